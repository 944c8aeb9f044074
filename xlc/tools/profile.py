"""Time, GB/s and GFLOP/s of every kernel of a compiled program, each run alone, once, on random data.

    print(profile(f.compile(x, w)))

    kernel       us     GB/s   GFLOP/s   what
    k0         12.1     41.0      13.2   matmul+add+maximum
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlc.ir.plan import Launch, Plan
from xlc.observe import random_array
from xlc.run.explain import Work, number, work_of
from xlc.run.launch import alone


@dataclass(frozen=True)
class Timing:
    """One launch: its best time in seconds, the bytes it must move, its operations."""

    kernel: str
    seconds: float
    bytes: int
    flops: int
    note: str

    def __str__(self) -> str:
        return (f"{self.kernel:<6} {self.seconds * 1e6:10.1f} {self.bytes / self.seconds / 1e9:8.1f} "
                f"{self.flops / self.seconds / 1e9:9.1f}   {self.note}")


@dataclass(frozen=True)
class Profile:
    timings: tuple[Timing, ...]

    def __str__(self) -> str:
        total = sum(t.seconds for t in self.timings)
        return "\n".join(["kernel         us     GB/s   GFLOP/s   what", *map(str, self.timings), f"total  {total * 1e6:10.1f}"])


def profile(executable: Any, repeat: int = 20, **sizes: int) -> Profile:
    """Run each launch of a program ``repeat`` times by itself; named sizes take the values given (64 if none is)."""
    plan: Plan = executable.plan
    env = {name: sizes.get(name, 64) for name in plan.sizes}
    works: dict[Any, Work] = {}
    done = executable.compilation
    for group, step in done.stages.kernels():
        works.setdefault((step.note, tuple(n.type for n in (*step.inputs, *step.outputs))), work_of(group, step))
    timings = []
    for inner, launch in plan.everywhere():
        slots = inner.by_name
        work = works.get((launch.note, tuple(slots[n].type for n in (*launch.inputs, *launch.outputs))))
        seconds = _run(inner, launch, executable.backend, env, repeat)
        moved, flops = (number(work.bytes), number(work.flops)) if work else (0, 0)
        timings.append(Timing(launch.kernel, seconds, moved, flops, launch.note))
    return Profile(tuple(timings))


def _run(plan: Plan, launch: Launch, backend: Any, env: dict[str, int], repeat: int) -> float:
    """The best time of one launch: of ``repeat`` runs, and of all within 5 ms, as threads take a while to come."""
    kernel = next(k for k in plan.kernels if k.name == launch.kernel)
    inputs, outputs = ([plan.by_name[n].type for n in names] for names in (launch.inputs, launch.outputs))
    run = alone(kernel, inputs, outputs, env, backend)
    rng = np.random.default_rng(0)
    arrays = [random_array(t, env, rng) for t in inputs]
    best, runs, end = float("inf"), 0, time.perf_counter() + 5e-3
    while runs < repeat or time.perf_counter() < end:
        start = time.perf_counter()
        run(arrays)
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best
