"""The yardsticks: what this machine's arithmetic and memory allow on two threads, as contestants beside the others.

    contest(scale, "chain, 16M", {"copy": lambda: copies(...), "xlc": ...}, limit="copy")

``machine.c`` is compiled with the system's ``cc``; without one there are no yardsticks but NumPy's own copy.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .harness import Build, Contestant, Missing, Scale, calls, contest, progress

THREADS = 2
COPIES = {"memcpy": 1, "loads and stores": 2, "non-temporal": 3, "non-temporal, prefetch": 4}  # the constants of machine.c
READS = {"read": 5, "read (prefetch)": 6}
_ENOUGH = 1 << 16  # rounds of the multiply-add loop per call: about 30 us


@functools.cache
def library() -> ctypes.CDLL:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Missing("a C compiler, for the yardsticks")
    folder = tempfile.mkdtemp(prefix="xlc-bench-")
    target = os.path.join(folder, "machine.so")
    source = pathlib.Path(__file__).with_name("machine.c")
    options = ["-O3", "-march=native", "-ffp-contract=fast", "-pthread", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", target, source], check=True, capture_output=True, text=True)
    found = ctypes.CDLL(target)
    shutil.rmtree(folder)
    found.peak.restype = found.memory.restype = ctypes.c_double
    found.peak.argtypes = (ctypes.c_int, ctypes.c_int64)
    found.peak_operations.restype = ctypes.c_int64
    found.memory.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return found


def peak(threads: int = THREADS) -> Contestant:
    """Multiply-adds from registers. One call is ``_ENOUGH`` rounds of them on every thread."""
    lib = library()
    operations = lib.peak_operations() * _ENOUGH * threads
    return Contestant(lambda n: float(lib.peak(threads, n * _ENOUGH)), work=float(operations), yardstick=True)


def _passes(what: int, threads: int, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], moved: float) -> Contestant:
    lib = library()
    pointers = [(ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays)) for arrays in (targets, sources)]
    size, sets = sources[0].nbytes, len(sources)

    def seconds(n: int, _keep: object = (sources, targets)) -> float:
        return float(lib.memory(what, threads, n, sets, *pointers, size))

    return Contestant(seconds, work=moved, yardstick=True)


def copies(sources: Sequence[np.ndarray]) -> dict[str, Build]:
    """Every way to copy these arrays, one after the other in turn; one copy reads and writes each byte once."""
    targets: list[np.ndarray] = []

    def into() -> list[np.ndarray]:
        if not targets:
            targets.extend(np.ones_like(a) for a in sources)
        return targets

    def by_numpy() -> Contestant:
        c = calls(np.copyto, list(zip(into(), sources, strict=True)))
        return Contestant(c.seconds, work=2.0 * sources[0].nbytes, yardstick=True)

    def ours(what: int) -> Build:
        return lambda: _passes(what, THREADS, sources, into(), 2.0 * sources[0].nbytes)

    return {"copy (NumPy, 1 thread)": by_numpy, **{f"copy ({name})": ours(what) for name, what in COPIES.items()}}


def reads(sources: Sequence[np.ndarray]) -> dict[str, Build]:
    """Reading these arrays and adding them up."""
    moved = float(sources[0].nbytes)
    return {name: functools.partial(_passes, what, THREADS, sources, sources, moved) for name, what in READS.items()}


def peaks() -> dict[str, Build]:
    return {"fma peak": peak}


def describe(scale: Scale) -> str:
    """The machine in a few lines: its name, and its own limits."""
    progress("machine")
    scale = replace(scale, rounds=min(scale.rounds, 7))
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}, NumPy {np.__version__}"
    lines = [f"{cpu()}, {os.cpu_count()} CPUs, {system}"]
    one, two = (contest(scale, "", {"peak": functools.partial(peak, threads)}) for threads in (1, THREADS))
    if one.stats:
        found = [f"{row.stats['peak'].rate / 1e9:.0f}" for row in (one, two)]
        lines.append(f"f32 multiply-add from registers: {found[0]} GFLOP/s on one thread, {found[1]} on two")
    for name, elements in (("256 KiB", 1 << 16), ("4 MiB", 1 << 20), ("64 MiB", 1 << 24)):
        sources = [np.ones(scale.size(elements, 1 << 10), np.float32) for _ in range(2)]
        row = contest(scale, "", {**copies(sources), **reads(sources)})
        rates = ", ".join(f"{way} {s.rate / 1e9:.1f}" for way, s in row.stats.items())
        absent = "; ".join(sorted(set(row.absent.values())))
        lines.append(f"GB/s, arrays of {name}, two in turn: {'; '.join(filter(None, (rates, absent)))}")
    return "\n".join(lines)


def cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            fields = dict(line.split(":", 1) for line in f.read().split("\n\n")[0].splitlines() if ":" in line)
        named = {k.strip(): v.strip() for k, v in fields.items()}
        return f"{named.get('model name', platform.machine())} (family {named.get('cpu family')}, model {named.get('model')})"
    except OSError:
        return platform.processor() or platform.machine()
