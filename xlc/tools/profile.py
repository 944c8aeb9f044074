"""Time, GB/s and GFLOP/s of every kernel of a compiled program, each run alone on random data.

    print(profile(f.compile(x, w)))

    kernel       us     GB/s   GFLOP/s   what
    k0         12.1     41.0      13.2   matmul+add+maximum
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlc.ir.plan import Launch, Plan, Slot
from xlc.ir.types import evaluate
from xlc.run.explain import Work, number, work_of


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
    for group, step in zip(done.partition.groups, done.steps, strict=True):
        works.setdefault((step.note, tuple(n.type for n in step.outputs)), work_of(group, step))
    timings = []
    for launch in plan.launches:
        slots = plan.by_name
        work = works.get((launch.note, tuple(slots[n].type for n in launch.outputs)))
        seconds = _run(plan, launch, executable.backend, env, repeat)
        moved, flops = (number(work.bytes), number(work.flops)) if work else (0, 0)
        timings.append(Timing(launch.kernel, seconds, moved, flops, launch.note))
    return Profile(tuple(timings))


def _run(plan: Plan, launch: Launch, backend: Any, env: dict[str, int], repeat: int) -> float:
    """The best time of one launch, called through the ordinary call path as a plan of its own."""
    from xlc.run.native import Executable

    slots = plan.by_name
    inputs = [Slot(f"in{k}", slots[n].type, "param", k) for k, n in enumerate(launch.inputs)]
    outputs = [Slot(f"out{k}", slots[n].type, "result", k) for k, n in enumerate(launch.outputs)]
    kernel = next(k for k in plan.kernels if k.name == launch.kernel)
    alone = Plan("alone", plan.sizes, (*inputs, *outputs),
                 (Launch(kernel.name, tuple(s.name for s in inputs), tuple(s.name for s in outputs)),), (kernel,), (), 0, 0)
    library = backend.load(backend.compile(alone), "alone")
    random = np.random.default_rng(0)

    def data(s: Slot) -> np.ndarray:
        shape = tuple(evaluate(n, env) for n in s.type.shape)
        return random.random(shape).astype(s.type.dtype.numpy) if s.type.dtype.is_float else np.zeros(shape, s.type.dtype.numpy)

    arrays = [data(s) for s in inputs]
    dims = [[(leaf, axis) for leaf, s in enumerate(inputs) for axis, n in enumerate(s.type.shape) if str(n) == name] for name in plan.sizes]
    if not all(dims):
        raise ValueError("profiling needs each named size to stand alone in an input of each kernel")
    results = [(s.type.dtype.numpy, tuple(evaluate(n, env) for n in s.type.shape)) for s in outputs]
    run = Executable(library.entry, params=list(range(len(inputs))), results=results,
                     out_tree=("list", [("leaf", k) for k in range(len(outputs))]),
                     dims=dims, workspace=0, name="alone", keepalive=library)
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        run.call_flat(arrays)
        best = min(best, time.perf_counter() - start)
    return best
