"""Promises about bits: fused equals unfused under ``strict``; nothing depends on threads, on the run, or on whose object it is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlc
import xlc.nn
import xlc.numpy as xnp
from xlc.frontend.tree import flatten

ROOT = Path(__file__).resolve().parent.parent


def values(*shape: int, dtype: str = "f4", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def bits(result: Any) -> list[bytes]:
    return [np.asarray(v).tobytes() for v in flatten(result)[0]]


def training_step(p: Any, x: Any, y: Any) -> Any:
    def loss(p: Any) -> Any:
        h = np.maximum(x @ p["w1"] + p["b1"], 0)
        return xlc.nn.cross_entropy(xlc.nn.gelu(h @ p["w2"] + p["b2"]), y).mean()

    value, slope = xlc.value_and_grad(loss)(p)
    return value, {k: p[k] - np.float32(0.1) * slope[k] for k in p}


MLP = {"w1": values(60, 70), "b1": values(70), "w2": values(70, 10), "b2": values(10)}
X = values(37, 60)
LABELS = np.arange(37) % 10
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sum of a chain": (lambda x: (np.exp(x) * x + 1).sum(1), (values(5, 301),)),
    "sums along every axis": (lambda x: [np.tanh(x).sum(a) for a in (0, 1, 2, (0, 1), (0, 2), (1, 2), None)], (values(7, 33, 18),)),
    "sum of a transposed value": (lambda x: [(x.T * 2).sum(0), (x.T * 2).sum(1), (x.T + 1).sum()], (values(70, 300),)),
    "softmax": (lambda x: xlc.nn.softmax(x * 2), (values(9, 1000),)),
    "softmax of columns": (lambda x: xlc.nn.softmax(x * 2, axis=0), (values(130, 40),)),
    "log_softmax, float64": (lambda x: xlc.nn.log_softmax(x), (values(9, 77, dtype="f8"),)),
    "softmax, float16": (lambda x: xlc.nn.softmax(x), (values(9, 77, dtype="f2"),)),
    "layer norm": (lambda x, s, b: xlc.nn.layer_norm(np.tanh(x), s, b) * 3, (values(6, 500), values(500), values(500))),
    "layer norm of long rows": (lambda x, s, b: xlc.nn.layer_norm(x, s, b), (values(3, 9001), values(9001), values(9001))),
    "rms norm": (lambda x, s: xlc.nn.rms_norm(x, s), (values(6, 129), values(129))),
    "mean and variance": (lambda x: ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), x.std(1)), (values(200, 65),)),
    "mixed dtypes": (lambda x, y: ((x * y).sum(1), (x + 1).sum(1), x.astype("f8").sum(1)), (values(5, 200), values(5, 200, dtype="f8"))),
    "bfloat16 sums": (lambda x: x.astype(xnp.bfloat16).sum(1) * 2, (values(5, 200),)),
    "long sums": (lambda x: (np.sqrt(np.abs(x)).sum(), x.sum()), (values(70001),)),
    "matmul chain": (lambda x, a, b: np.tanh(x @ a + 1) @ b - 2, (values(33, 65), values(65, 130), values(130, 7))),
    "matmul with a long inner dimension": (lambda x, a: np.exp((x @ a) / 100).sum(0), (values(20, 3000), values(3000, 40))),
    "vectors": (lambda x, a: (np.exp(x) @ a, a @ a, (x * 2) @ (a + 1)), (values(33, 300), values(300))),
    "attention": (lambda q, k, v: xlc.nn.attention(q, k, v, causal=True), (values(2, 17, 8), values(2, 17, 8), values(2, 17, 8))),
    "cumulative": (lambda x: (np.cumsum(x * 2, 1), np.cumsum(x, 0)), (values(19, 40),)),
    "training step": (training_step, (MLP, X, LABELS)),
}
every_program = pytest.mark.parametrize("name", PROGRAMS)


@every_program
def test_fused_equals_unfused_bit_for_bit(name: str) -> None:
    f, args = PROGRAMS[name]
    with xlc.config.context(strict=True):
        fused, separate = xlc.jit(f)(*args), xlc.jit(f, fuse=False)(*args)
    assert bits(fused) == bits(separate)


@pytest.mark.parametrize("name", ["sums along every axis", "layer norm", "softmax of columns", "matmul chain", "vectors"])
def test_strict_holds_for_named_sizes(name: str) -> None:
    f, args = PROGRAMS[name]
    with xlc.config.context(strict=True):
        dynamic = {0: {0: "n"}}
        assert bits(xlc.jit(f, dynamic=dynamic)(*args)) == bits(xlc.jit(f, dynamic=dynamic, fuse=False)(*args))


def test_strict_is_remembered_until_the_program_is_made() -> None:
    """What is compiled on demand is compiled under the knobs of the moment at which it was asked for."""
    f, args = PROGRAMS["sum of a chain"]
    with xlc.config.context(strict=True):
        asked = xlc.jit(f).compile(*args)
        now = xlc.jit(f)(*args)
    assert bits(asked.run(list(args))) == bits(now)
    assert asked.program.compilation.options.strict


@every_program
def test_threads_do_not_change_bits(name: str) -> None:
    f, args = PROGRAMS[name]
    g = xlc.jit(f)
    with xlc.config.context(num_threads=1):
        one = bits(g(*args))
    for threads in (2, 3):
        with xlc.config.context(num_threads=threads):
            assert bits(g(*args)) == one
    assert bits(g(*args)) == one


def digest() -> str:
    found = hashlib.sha256()
    for f, args in PROGRAMS.values():
        for b in bits(xlc.jit(f)(*args)):
            found.update(b)
    return found.hexdigest()


def test_another_process_gives_the_same_bits(tmp_path: Path) -> None:
    """In another process, with another number of threads; compiled anew there, and then loaded from the cache on disk."""
    program = "import sys; sys.path[:0] = ['tests', '.']; import test_strict; print(test_strict.digest())"
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "XLC_NUM_THREADS": threads, "XLC_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": threads},
        ).stdout
        for threads in ("1", "2")
    ]
    assert found[0] == found[1] and len(found[0]) > 60
    assert found[0].strip() == digest()


def test_two_threads_calling_at_once_get_the_same_bits() -> None:
    f, args = PROGRAMS["training step"]
    g = xlc.jit(f)
    want: list[Any] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def call(k: int) -> None:
        start.wait()
        for _ in range(5):
            want[k].append(bits(g(*args)))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(w == want[0][0] for each in want for w in each) and len(want[3]) == 5
    assert g.compiles == 1


def test_fork_gives_the_same_bits() -> None:
    """A child process of a program that has a thread pool."""
    f, args = PROGRAMS["matmul chain"]
    g = xlc.jit(f)
    with xlc.config.context(num_threads=2):
        want = bits(g(*args))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if bits(g(*args)) == want and bits(xlc.jit(lambda x: np.exp(x).sum())(X)) else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_memory_that_is_reused_keeps_the_bits() -> None:
    """Donated arguments and strided, reversed, read-only ones give what plain ones give."""
    f, (p, x, y) = PROGRAMS["training step"]
    want = bits(xlc.jit(f)(p, x, y))
    given = {k: v.copy() for k, v in p.items()}
    assert bits(xlc.jit(f, donate=("p",))(given, x, y)) == want
    wide = np.zeros((37, 120), np.float32)
    wide[:, ::2] = x
    still = x.copy()
    still.flags.writeable = False
    for other in (wide[:, ::2], np.asfortranarray(x), np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1], still):
        assert bits(xlc.jit(f)(p, other, y)) == want
