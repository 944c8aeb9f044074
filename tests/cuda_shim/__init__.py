"""Runs generated CUDA text on the CPU: a device for tests where there is no GPU.

    device = ShimDevice()                                      or ShimDevice("sm_80", order="random", seed=7)
    module = device.load(text, b"")                            the text of a Plan, with or without the prelude in front
    x, y = device.asarray(np.ones(256, "f4")), device.empty((256,), "f4")
    device.launch(module.function("l0"), 1, 0, table([device.address(x), device.address(y)], [256]))

The text is compiled by g++ behind ``shim.h`` and runs on the threads of ``shim.cpp``, which says what it finds: a barrier that not every
thread reaches, a lane that does not come, accesses outside of memory. ``order`` is the order in which threads and blocks run: results must
be the same for "ascending", "descending", and "random" with every seed. Device memory is nan (all bits set) before it is written, has a
margin on both sides that nothing may write, and lies at multiples of 256 bytes and of no more.

Compiled libraries are kept, by content, in xlc's cache on disk, which removes what was not used for long. With XLC_SHIM_PORTABLE=1 threads
are switched by ``ucontext``, as on processors other than x86-64.
"""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import functools
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlc.backends.cuda.chip import chip
from xlc.errors import XlcError
from xlc.run import cache

HERE = Path(__file__).parent
CXX = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
MISSING = None if CXX else "needs g++, which compiles CUDA text for the CPU"  # for pytest.mark.skipif
ORDERS = ("ascending", "descending", "random")

_EXACT = ["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-w"]
_MODULE = ["-O1", "-fno-exceptions", "-fno-asynchronous-unwind-tables", "-ftrivial-auto-var-init=pattern", "-nostdlib"]
ALIGNMENT = 256  # bytes: of device memory, and the width of its margins
_UNWRITTEN = b"\xff" * ALIGNMENT
_RUNTIME = ["-O2", "-fno-semantic-interposition", *(["-DXLC_SHIM_PORTABLE"] if os.environ.get("XLC_SHIM_PORTABLE") else [])]
_lock = threading.Lock()  # one launch at a time


def table(addresses: Sequence[int], sizes: Sequence[int] = ()) -> np.ndarray:
    """The bytes of ``struct Table``: what XLC_AT and XLC_SIZE read."""
    return np.array([*(addresses or [0]), *(sizes or [0])], np.int64).view(np.uint8)


class ShimModule:
    """A loaded library."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library

    def function(self, name: str) -> ShimFunction:
        return ShimFunction(name, ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value or 0)


class ShimFunction:
    """An entry."""

    def __init__(self, name: str, address: int):
        self.name, self.address = name, address


class Workspace:
    """Memory that is kept with the object."""

    def __init__(self, memory: np.ndarray):
        self.memory, self.address = memory, memory.ctypes.data


class ShimArray(np.ndarray):
    """An array in the memory of a ShimDevice (NumPy's in every other respect)."""


class ShimDevice:
    """The protocol ``Device`` of the CUDA backend, for a chip of that architecture with ``sms`` multiprocessors: fewer than a real one has,
    so that grids are small. ``launches`` counts launches; each takes another order when that is random."""

    def __init__(self, arch: str = "sm_80", order: str = "ascending", seed: int = 0, sms: int = 3):
        if order not in ORDERS:
            raise ValueError(f"order is one of {', '.join(ORDERS)}, and not {order!r}")
        self.name, self.arch, self.order, self.seed = "shim", arch, order, seed
        self.launches = self.products = 0  # products are those that a library would compute
        self.chip = dataclasses.replace(chip(arch), name="shim", sms=sms)
        self._memory: weakref.WeakSet[_Memory] = weakref.WeakSet()

    def load(self, source: str, cubin: bytes = b"") -> ShimModule:
        """Compile the text, unless that was done before."""
        runtime()
        return ShimModule(ctypes.CDLL(str(_build(source, _MODULE, ["-include", HERE / "shim.h"]))))

    def launch(self, function: ShimFunction, grid: int, shared: int, argument: np.ndarray, cooperative: bool = False) -> None:
        """Run all blocks. XlcError, which names the entry, where the text does what a chip leaves undefined."""
        if grid < 1:
            raise XlcError(f"{function.name} is launched with {grid} blocks; a grid has one at least")
        if shared > self.chip.shared_block:
            raise XlcError(f"{function.name} asks for {shared} bytes of shared memory; a block of {self.name} ({self.arch}) may have "
                           f"{self.chip.shared_block}")
        argument = np.ascontiguousarray(argument)
        message = ctypes.create_string_buffer(1000)
        with _lock:
            failed = runtime().xlc_shim_launch(function.address, argument.ctypes.data, grid, shared, cooperative, ORDERS.index(self.order),
                                               self.seed + self.launches, message, len(message))
        self.launches += 1
        if failed:
            raise XlcError(f"{function.name}: {message.value.decode()}")
        for memory in list(self._memory):
            if not memory.intact():
                self._memory.discard(memory)  # is told once
                raise XlcError(f"{function.name}: something is written beside an array of {memory.nbytes} bytes")

    def resident(self, function: ShimFunction, shared: int) -> int:
        """The most blocks of a cooperative launch: one to a multiprocessor, few and not a power of two."""
        return self.chip.sms

    def replay(self, module: ShimModule, nbytes: int, record: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        """There are no graphs: a replay launches again."""
        return record

    def empty(self, shape: tuple[int, ...], dtype: Any) -> ShimArray:
        dtype = np.dtype(dtype)
        memory = _Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self._memory.add(memory)
        return np.ndarray(shape, dtype, np.asarray(memory)).view(ShimArray)

    def asarray(self, value: Any) -> ShimArray:
        if self.owns(value):
            return value
        host = np.asarray(value)
        array = self.empty(host.shape, host.dtype)
        array[...] = host
        return array

    def numpy(self, array: ShimArray) -> np.ndarray:
        return np.array(array, subok=False)

    def address(self, array: ShimArray) -> int:
        return array.ctypes.data

    def settle(self) -> None:
        """Nothing is under way."""

    def view(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory that something else keeps, as an array."""
        return np.ndarray(shape, dtype, (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(address))

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """The product that a library would compute."""
        self.products += 1
        out[...] = np.matmul(a.astype(np.float64), b.astype(np.float64))

    def owns(self, value: Any) -> bool:
        return isinstance(value, ShimArray)

    def workspace(self, nbytes: int) -> Workspace:
        return Workspace(self.empty((nbytes,), np.uint8))


class _Memory:
    """That many bytes between two margins, all bits set. The arrays in it keep it."""

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self._whole = np.full(nbytes + 4 * ALIGNMENT, 0xFF, np.uint8)
        first = self._whole.ctypes.data + ALIGNMENT
        self.address = first + (ALIGNMENT - first) % (2 * ALIGNMENT)  # an odd multiple
        self.__array_interface__ = {"version": 3, "shape": (nbytes,), "typestr": "|u1", "data": (self.address, False)}

    def intact(self) -> bool:
        return all(ctypes.string_at(at, ALIGNMENT) == _UNWRITTEN for at in (self.address - ALIGNMENT, self.address + self.nbytes))


@functools.cache
def runtime() -> ctypes.CDLL:
    """The library of shim.cpp, wgmma.cpp and numbers.cpp, whose names modules refer to."""
    text = "\n".join((HERE / name).read_text("utf-8") for name in ("shim.cpp", "wgmma.cpp", "numbers.cpp"))
    library = ctypes.CDLL(str(_build(text, [*_RUNTIME, f"-I{HERE}"], ["-lm"])), mode=ctypes.RTLD_GLOBAL)
    i, p = ctypes.c_int, ctypes.c_void_p
    library.xlc_shim_launch.argtypes = [p, p, ctypes.c_uint, ctypes.c_size_t, i, i, ctypes.c_ulonglong, p, ctypes.c_size_t]
    return library


def _build(text: str, flags: Sequence[str], more: Sequence[str | Path]) -> Path:
    """The shared library of a C++ text."""
    command = [str(CXX), *_EXACT, *_processor(), *flags, *map(str, more)]
    key = cache.digest("\0".join([_version(), *command, _header(), text]).encode())
    library = (cache.folder() or _temporary()) / key[:2] / f"{key[2:]}.so"  # as the cache lays its files out
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    made = library.with_name(f".new-{key}-{os.getpid()}-{threading.get_ident()}")  # the name of what a writer may leave behind
    command[1:1] = ["-shared", "-o", str(made), "-x", "c++", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise XlcError(f"g++ rejects the CUDA text:\n{done.stderr[:4000]}")
    os.replace(made, library)
    return library


@functools.cache
def _temporary() -> Path:
    """A folder of this process."""
    folder = tempfile.mkdtemp(prefix="xlc-shim-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def _version() -> str:
    return subprocess.run([str(CXX), "-v"], capture_output=True, text=True).stderr


@functools.cache
def _header() -> str:
    return (HERE / "shim.h").read_text("utf-8")


@functools.cache
def _processor() -> list[str]:
    """Instructions for fma and rounding, where this processor has them."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return ["-mfma", "-msse4.1"] if "fma" in flags and "sse4_1" in flags else []


__all__ = ["CXX", "MISSING", "ORDERS", "ShimArray", "ShimDevice", "ShimModule", "runtime", "table"]
