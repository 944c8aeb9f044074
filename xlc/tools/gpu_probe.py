"""What one process can find out about the GPU of this machine. Each probe is run by ``gpu_check`` in a process of its own.

    python -m xlc.tools.gpu_probe environment       prints one line of JSON, the last of its output
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.cuda import device, nvrtc

TEXT = """extern "C" __global__ void __launch_bounds__(256) saxpy(const float* x, float* y, float a) {
  __shared__ float s[256];
  s[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
  __syncthreads();
  y[blockIdx.x * 256 + threadIdx.x] += a * s[threadIdx.x ^ 1];
}
"""
COPIED = 1 << 30  # bytes
ROUNDS = 11


def compiler() -> dict[str, Any]:
    """NVRTC: which one, for which chips, and how long it takes. Needs no GPU."""
    start = time.perf_counter()
    found: dict[str, Any] = {"library": next(nvrtc.places()), "version": ".".join(map(str, nvrtc.version())), "chips": nvrtc.supported(),
                             "load_seconds": time.perf_counter() - start}
    for arch in ("sm_80", "sm_90"):
        start = time.perf_counter()
        used = nvrtc.compile(TEXT, arch).resources["saxpy"]
        found[arch] = {"seconds": time.perf_counter() - start, "registers": used.registers, "shared": used.shared, "local": used.local}
    return found


def environment() -> dict[str, Any]:
    """Chip, driver, CuPy, and the bandwidth of a copy in device memory, in bytes read and written per second."""
    gpu = device.current()
    cupy = gpu.cupy
    free, total = cupy.cuda.runtime.memGetInfo()
    return {"chip": gpu.chip.name, "arch": gpu.arch, "sms": gpu.chip.sms, "shared_block": gpu.chip.shared_block, "l2": gpu.chip.l2,
            "memory": total, "free": free, "driver": cupy.cuda.runtime.driverGetVersion(), "cupy": cupy.__version__,
            "python": sys.version.split()[0], "numpy": np.__version__, "copy_bandwidth": bandwidth(cupy, min(COPIED, free // 4)),
            "smi": _smi()}


def bandwidth(cupy: Any, nbytes: int) -> float:
    x, y = cupy.zeros(nbytes // 4, np.float32), cupy.zeros(nbytes // 4, np.float32)
    taken = []
    for _ in range(ROUNDS + 2):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        cupy.copyto(y, x)
        end.record()
        end.synchronize()
        taken.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
    return 2 * nbytes / statistics.median(taken[2:])


def _smi() -> str:
    """What the driver says of clocks and power, where its tool is there."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit"
    done = subprocess.run([tool, asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=10)
    return done.stdout.strip()


def programs() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """A few of every kind of schedule, on sizes that divide by nothing."""
    from ..frontend.control import scan, while_loop
    from ..frontend.grad import grad
    from ..nn import attention, softmax

    rng = np.random.default_rng(0)
    x, y, w = (rng.standard_normal(s).astype(np.float32) for s in ((37, 131), (37, 131), (131, 67)))
    half, heads = (rng.standard_normal(s).astype(np.float16) for s in ((72, 136), (1, 2, 100, 64)))
    at = rng.integers(0, 37, 53)
    return {"a chain": (lambda a, b: np.tanh(a) * b + 1, (x, y)), "all summed": (lambda a: a.sum(), (x,)),
            "columns summed": (lambda a: a.sum(0), (x,)), "rows": (softmax, (x,)), "turned": (lambda a: a.T + 1, (x,)),
            "product": (lambda a, b: a @ b, (x, w)), "product of halves": (lambda a: a @ a.T, (half,)),
            "tokens": (lambda q: attention(q, q, q), (heads,)), "rows picked": (lambda a, i: a[i], (x, at)),
            "rows in order": (lambda a: np.sort(a, axis=-1), (x,)), "running sums": (lambda a: np.cumsum(a, 1), (x,)),
            "gradient": (grad(lambda b, a: (np.maximum(a @ b, 0) ** 2).sum()), (w, x)),
            "row by row": (lambda a: scan(lambda s, r: (np.tanh(s + r), s), a[0], a), (x,)),
            "until large": (lambda a: while_loop(lambda s: np.abs(s).max() < 1e3, lambda s: s * 2, a), (x,))}


def difference(gpu: Any, f: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """How far three calls on the GPU (the second records a graph, which the third launches again) are from the CPU, as a part of the
    largest element."""
    from .. import tree
    from ..frontend.jit import jit

    on_gpu, expected = jit(f), [np.asarray(e, np.float64) for e in tree.leaves(jit(f)(*args))]
    given, worst = [gpu.asarray(a) for a in args], 0.0
    for _ in range(3):
        found = [gpu.numpy(a).astype(np.float64) for a in tree.leaves(on_gpu(*given))]
        worst = max(worst, *(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(found, expected, strict=True)))
    return worst


def _tolerance(args: tuple[Any, ...]) -> float:
    return 5e-3 if args[0].dtype == np.float16 else 1e-4


def sanity() -> dict[str, Any]:
    """Each program's error, or what it failed with. Exit status 1 if one did."""
    gpu = device.current()
    found: dict[str, Any] = {}
    for name, (f, args) in programs().items():
        try:
            off = difference(gpu, f, args)
            found[name] = off if off < _tolerance(args) else f"off by {off:.2g} of the largest element"
        except Exception as error:  # the others are tried all the same
            found[name] = f"{type(error).__name__}: {error}"[:2000]
    return found


def small_set() -> dict[str, Any]:
    """The programs, for the sanitizers to watch. Memory comes from the driver and not from a pool, so that each array's end is known."""
    gpu = device.current()
    gpu.cupy.cuda.set_allocator(None)
    found = {name: difference(gpu, f, args) for name, (f, args) in programs().items()}
    for name, (_, args) in programs().items():
        if not found[name] < _tolerance(args):
            raise SystemExit(f"{name}: off by {found[name]:.2g} of the largest element")
    return found


PROBES = {"compiler": compiler, "environment": environment, "sanity": sanity, "small_set": small_set}

if __name__ == "__main__":
    answer = PROBES[sys.argv[1]]()
    print(json.dumps(answer))
    sys.exit(any(isinstance(text, str) for text in answer.values()) if sys.argv[1] == "sanity" else 0)
