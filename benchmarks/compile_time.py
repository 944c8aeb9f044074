"""Time to the first result of a function in a running process, with nothing cached and from the disk cache; time to import.

Each measurement is a process of its own (``python -m benchmarks.compile_time LIBRARY SUBJECT``), which first compiles something else, so
that what is loaded once per process is not counted.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from . import peers
from .harness import Build, Contestant, Missing, Row, Scale, contest, duration, progress
from .workloads import BATCH, deep, deep_forward, long_chain, many, mlp_training, random

ROUNDS = 7
MODULE = "benchmarks.compile_time"
BARS = {"x + 1": 0.015, "8-layer MLP forward": 0.040, "MLP training step": 0.150, "chain of 1000 operations": 0.5}
CHAINS = (250, 500, 1000, 2000)


def rows(scale: Scale) -> Iterator[Row]:
    scale = replace(scale, rounds=1 if scale.smoke else min(scale.rounds, ROUNDS), sample=0.0)
    yield imports(scale)
    subjects = ["x + 1", "chain of 20 operations"] if scale.smoke else [*BARS, *(f"chain of {n} operations" for n in CHAINS if n != 1000)]
    chains: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="xlc-bench-") as folder:
        for subject in subjects:
            progress(f"first result: {subject}")
            row = contest(scale, f"first result: {subject}", contestants(subject, folder))
            if subject in BARS:
                row.under(BARS[subject], f"first result under {duration(BARS[subject])}")
                cached = row.stats.get("xlc, from disk")
                quarter = BARS[subject] / 4
                row.judge(f"from the disk cache under {duration(quarter)}", duration(cached.median) if cached else "no xlc",
                          cached is not None and cached.median < quarter)
                row.faster_than_best()
            if row.us and (size := re.match(r"chain of (\d+)", subject)):
                chains[int(size[1])] = row.us.median
            yield row
    if set(CHAINS) <= chains.keys():
        yield linear(chains)


def linear(chains: dict[int, float]) -> Row:
    row = Row("first result: growth with the size of the graph")
    growth = chains[CHAINS[-1]] / chains[CHAINS[0]]
    size = CHAINS[-1] / CHAINS[0]
    row.judge("linear in the size of the graph", f"{size:g} times the operations take {growth:.1f} times as long", growth <= 1.2 * size)
    row.notes.append(", ".join(f"{n}: {duration(t)}" for n, t in sorted(chains.items())))
    return row


def imports(scale: Scale) -> Row:
    names = {"xlc": "import xlc", "xlc and xlc.jit": "import xlc; xlc.jit", "JAX": "import jax", "torch": "import torch",
             "NumPy": "import numpy"}

    def contestant(code: str) -> Contestant:
        library = re.split("[ ;]", code)[1]
        if library != "xlc":
            peers.find(library)
        text = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
        _child(["-c", text], {})  # bytecode is written
        return Contestant(lambda n: sum(_child(["-c", text], {}) for _ in range(n)), yardstick=library == "numpy", warm=False)

    row = contest(scale, "import, in a fresh process", {name: functools.partial(contestant, code) for name, code in names.items()})
    row.under(0.1, "import xlc under 100 ms")
    if complete := row.stats.get("xlc and xlc.jit"):
        row.judge("import xlc and all that xlc.jit needs (NumPy too) under 100 ms", duration(complete.median), complete.median < 0.1)
    return row


def contestants(subject: str, folder: str) -> dict[str, Build]:
    stored = os.path.join(folder, "stored")

    def run(library: str, cache: str | None) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            return _child(["-m", MODULE, library, subject], {"XLC_CACHE_DIR": cache or empty})

    def contestant(library: str, cache: str | None) -> Contestant:
        if library != "xlc":
            peers.find(library)
        run(library, cache)  # fills the cache, and shows that it works
        return Contestant(lambda n: sum(run(library, cache) for _ in range(n)), warm=False)

    return {"xlc": lambda: contestant("xlc", None), "xlc, from disk": lambda: contestant("xlc", stored),
            "JAX": lambda: contestant("jax", None)}


def _child(arguments: list[str], environment: dict[str, str]) -> float:
    """Seconds that a fresh interpreter reports."""
    done = subprocess.run([sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no message").splitlines()[-1])
    return float(done.stdout.split()[-1])


# ---------------------------------------------------------------------------------------------- in the child

def first_result(library: str, subject: str) -> float:
    """Seconds from a function that nobody has seen to its first result."""
    jit, wait = _jit(library)
    wait(jit(lambda x, y: x * 2 - y)(random(3), random(3)))
    f, args = _subject(library, subject)
    start = time.perf_counter()
    wait(jit(f)(*args))
    return time.perf_counter() - start


def _jit(library: str) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    if library == "xlc":
        import xlc

        return xlc.jit, lambda out: out
    jax = peers.library("jax")
    return jax.jit, jax.block_until_ready


def _subject(library: str, subject: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    if subject == "x + 1":
        return lambda x: x + 1, (random(1000),)
    if subject == "8-layer MLP forward":
        w = deep_forward(256)
        return (w.f if library == "xlc" else lambda x, ws, bs: deep(_numpy(library), x, ws, bs)), w.inputs[0]
    if subject == "MLP training step":
        from .mlp import jax_step

        w = mlp_training(BATCH)
        return w.f if library == "xlc" else jax_step(), w.inputs[0]
    if size := re.fullmatch(r"chain of (\d+) operations", subject):
        n = int(size[1])
        return lambda x, y: many(_numpy(library), n, x, y), long_chain(n).inputs[0]
    raise Missing(f"a subject called {subject!r}")


def _numpy(library: str) -> Any:
    return np if library == "xlc" else peers.library("jax").numpy


if __name__ == "__main__":
    print(first_result(*sys.argv[1:]))
