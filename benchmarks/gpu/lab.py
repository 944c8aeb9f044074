"""The device of a run: arrays there, the same memory as seen by PyTorch and JAX, and time that includes the device's work.

    lab = Lab()                                    a GPU, through CuPy; Lab(host=True) is NumPy, for trying the benchmarks without one
    x = lab.normal((16384, 1024))                  float32, or lab.bf16(x)
    lab.xlc(f, x)    lab.torch(g, x, compiled="default")    lab.jax(h, x)          contestants; a library that is absent raises ``Missing``

A sample is wall-clock time from an idle device to an idle device, over as many calls as fill the sample: launches of one call overlap with
the work of the one before, as they do in a program.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..harness import Contestant, Missing
from ..peers import find

BF16 = np.dtype(ml_dtypes.bfloat16)
BLOCK = 999_983  # a prime, so that rows differ
CHECKED = 64  # leading rows of a result that are compared
SINGLE = 16 * CHECKED  # leading numbers of a result of one dimension that are
CHUNK = 32  # calls between which the device is not waited for, where the host's own time is wanted


class Lab:
    def __init__(self, host: bool = False):
        self.host = host
        self.xp: Any = np if host else importlib.import_module("cupy")

    # -------------------------------------------------------------------------------------------- arrays

    def normal(self, shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> Any:
        """Standard normal float32, a million of them over and over: made on the host, as not every CuPy has a library of random numbers."""
        n = int(np.prod(shape))
        block = np.random.default_rng(seed).standard_normal(min(n, BLOCK), np.float32) * np.float32(scale)
        return self.xp.tile(self.xp.asarray(block), -(-n // max(block.size, 1)))[:n].reshape(shape)

    def integers(self, below: int, shape: tuple[int, ...]) -> Any:
        return self.xp.asarray(np.random.default_rng(0).integers(0, below, shape))

    def bf16(self, x: Any) -> Any:
        """Rounded to nearest even, by the bits: not every CuPy that holds bfloat16 converts to it."""
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(BF16)

    def to_torch(self, x: Any) -> Any:
        """The same memory as a tensor."""
        torch = self.library("torch")
        if not hasattr(x, "dtype"):
            return x
        narrow = x.dtype == BF16
        shared = torch.from_dlpack(x.view(np.int16) if narrow else x)
        return shared.view(torch.bfloat16) if narrow else shared

    def to_jax(self, x: Any) -> Any:
        """A JAX array of the values; integers of 32 bits, JAX's default."""
        jax = self.library("jax")
        if self.host:
            return jax.device_put(x)
        if x.dtype == np.int64:
            x = x.astype(np.int32)
        self.wait()
        if x.dtype == BF16:
            return jax.lax.bitcast_convert_type(jax.dlpack.from_dlpack(x.view(np.uint16)), jax.numpy.bfloat16)
        return jax.dlpack.from_dlpack(x)

    def numbers(self, result: Any) -> Any:
        """The first rows of a result of any library, as float64 on the host, its leading dimensions being one; a list of them for several
        results."""
        if isinstance(result, (tuple, list)):
            return [self.numbers(r) for r in result]
        rank = getattr(result, "ndim", 0)
        part = result.reshape(-1, result.shape[-1])[:CHECKED] if rank > 1 else result[:SINGLE] if rank else result
        kind = type(part).__module__.partition(".")[0]
        if kind == "torch":
            return part.detach().double().cpu().numpy()
        if kind == "cupy":
            part = self.xp.asnumpy(part.view(np.uint16) if part.dtype == BF16 else part).view(part.dtype)
        return np.asarray(part).astype(np.float64)

    # -------------------------------------------------------------------------------------------- libraries

    def library(self, name: str) -> Any:
        """An installed library that sees the device."""
        find(name)
        found = importlib.import_module(name)
        if not self.host:
            if name == "torch" and not found.cuda.is_available():
                raise Missing("this torch has no CUDA")
            if name == "jax" and found.default_backend() != "gpu":
                raise Missing("this jax has no CUDA")
        return found

    def versions(self) -> dict[str, str]:
        """What is installed, or why it takes no part."""
        def version(name: str) -> str:
            try:
                return str(self.library(name).__version__)
            except Exception as error:  # a broken installation is as good as none, and is named
                return f"{type(error).__name__}: {error}"[:100]

        return {name: version(name) for name in ("cupy", "torch", "triton", "jax", "numpy", "llvmlite", "ml_dtypes")}

    # -------------------------------------------------------------------------------------------- time

    def wait(self, *made: Any) -> None:
        """Until the device has nothing left to do, whichever library gave it. JAX gives it from threads of its own, after a call has
        returned, and so is asked for what was ``made``."""
        if "jax" in sys.modules:
            sys.modules["jax"].block_until_ready(made)
        if not self.host:
            self.xp.cuda.runtime.deviceSynchronize()

    def calls(self, f: Callable[..., Any], args: Sequence[Any], **options: Any) -> Contestant:
        """A contestant that is timed until its work is done."""
        def seconds(n: int) -> float:
            self.wait()
            start = time.perf_counter()
            for _ in itertools.repeat(None, n):
                out = f(*args)
            self.wait(out)
            stop = time.perf_counter()
            del out
            return stop - start

        return Contestant(seconds, lambda: self.numbers(f(*args)), **options)

    def starts(self, f: Callable[..., Any], args: Sequence[Any]) -> Contestant:
        """A contestant whose own time on the host counts: what a call takes before it returns, on a device that keeps up."""
        def seconds(n: int) -> float:
            taken, out = 0.0, None
            for first in range(0, n, CHUNK):
                self.wait(out)
                start = time.perf_counter()
                for _ in itertools.repeat(None, min(CHUNK, n - first)):
                    out = f(*args)
                taken += time.perf_counter() - start
            self.wait(out)
            return taken

        return Contestant(seconds, lambda: self.numbers(f(*args)))

    def xlc(self, f: Callable[..., Any], *args: Any, **options: Any) -> Contestant:
        import xlc

        return self.calls(xlc.jit(f, **options), args)

    def jax(self, f: Callable[..., Any], *args: Any) -> Contestant:
        return self.calls(self.library("jax").jit(f), [self.to_jax(a) for a in args])

    def torch(self, f: Callable[..., Any], *args: Any, compiled: str = "", yardstick: bool = False) -> Contestant:
        """``compiled`` is a mode of torch.compile; empty: eager."""
        torch = self.library("torch")
        if compiled:
            f = torch.compile(f, dynamic=False, **({} if compiled == "default" else {"mode": compiled}))
        plain = self.calls(f, [self.to_torch(a) for a in args])

        def seconds(n: int) -> float:
            with torch.inference_mode():
                return plain.seconds(n)

        def result() -> Any:
            with torch.inference_mode():
                return plain.result() if plain.result else None

        return Contestant(seconds, result, yardstick=yardstick)

    def copy(self, nbytes: int) -> dict[str, Callable[[], Contestant]]:
        """Yardsticks: ways to copy memory, by the bytes read and written."""
        def plus_one(y: Any, x: Any) -> Any:
            return self.xp.add(x, np.float32(1), out=y)

        def copied(way: Callable[[Any, Any], Any]) -> Contestant:
            x = self.normal((nbytes // 4,))  # zeros cost less power
            y = self.xp.empty_like(x)
            return Contestant(self.calls(way, (y, x)).seconds, work=2.0 * x.nbytes, yardstick=True)

        return {"copy": lambda: copied(self.xp.copyto), "copy by a kernel": lambda: copied(plus_one)}

    def fits(self, nbytes: float) -> bool:
        """Is there that much memory?"""
        return self.host or nbytes < 0.8 * self.xp.cuda.runtime.memGetInfo()[1]

    def clean(self) -> None:
        """Give the memory of a row back, so that the next has all of it."""
        gc.collect()
        if not self.host:
            self.xp.get_default_memory_pool().free_all_blocks()
            with contextlib.suppress(Missing):
                self.library("torch").cuda.empty_cache()
