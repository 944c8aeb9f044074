"""Loops and branches on a device: one launch each, whose blocks wait for each other; the results of the CPU, in every order of threads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cuda_backend
import numpy as np
import pytest

import xlc
from xlc import tree
from xlc.pipeline import backend_for

pytestmark = pytest.mark.skipif(cuda_backend.MISSING is not None, reason=str(cuda_backend.MISSING))

rng = np.random.default_rng(0)
X = rng.normal(size=(6, 7)).astype(np.float32)  # rows of 28 bytes: no row but the first begins at a whole vector
LONG = rng.normal(size=3000).astype(np.float32)
W = (rng.normal(size=(7, 7)) / 3).astype(np.float32)


def lstm(w: Any, xs: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        h, c = carry
        f, g = xlc.nn.sigmoid(w @ h + x), np.tanh(w @ c - x)
        c = f * c + (1 - f) * g
        return (f * np.tanh(c), c), h.sum()

    return xlc.scan(step, (xs[0], xs[1]), xs)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "fori": (lambda x: xlc.fori_loop(0, 10, lambda i, c: c * 0.5 + x * i, x), (X,)),
    "fori, several blocks": (lambda x: xlc.fori_loop(0, 5, lambda i, c: np.roll(c, 1) + x, x), (LONG,)),
    "fori, traced bounds": (lambda x, n: xlc.fori_loop(0, n, lambda i, c: c + i, x), (X, 7)),
    "no iteration": (lambda x: xlc.fori_loop(3, 3, lambda i, c: c + 1, x), (X,)),
    "while": (lambda x: xlc.while_loop(lambda c: c[0].sum() < 100, lambda c: (c[0] * 2 + 1, c[1] + 1), (abs(x), 0)), (X,)),
    "while, never": (lambda x: xlc.while_loop(lambda c: c.sum() < -1e9, lambda c: c + 1, x), (X,)),
    "scan": (lstm, (W, X)),
    "scan, reverse": (lambda xs: xlc.scan(lambda c, x: (c * 0.9 + x, (c, x[::-1])), xs[0], xs, reverse=True), (X,)),
    "scan, swapped carries": (lambda xs: xlc.scan(lambda c, x: ((c[1], c[0] + x), c[1]), (xs[0], xs[1]), xs), (X,)),
    "scan, reductions": (lambda xs: xlc.scan(lambda c, x: (xlc.nn.softmax(c + x), c.max()), xs[0], xs), (X,)),
    "cond": (lambda x: xlc.cond(x.sum() > 0, lambda a: a * 2, lambda a: np.sort(a, axis=1), x), (X,)),
    "switch, clamped": (lambda x, i: xlc.switch(i, [lambda a: a, lambda a: a * 2, lambda a: a - a.mean()], x), (X, 9)),
    "nested": (lambda x: xlc.fori_loop(0, 4, lambda i, c: xlc.cond(i % 2 == 0, lambda a: xlc.fori_loop(0, 3, lambda j, d: d * 0.5 + j, a),
                                                                   lambda a: a - x, c), x), (X,)),
    "gradient of scan": (xlc.grad(lambda w, xs: lstm(w, xs)[1].sum(), (0, 1)), (W, X)),
    "gradient of cond": (xlc.grad(lambda x: xlc.cond(x.sum() > 0, lambda a: (a * a).sum(), lambda a: np.sin(a).sum(), x)), (X,)),
    "mapped while": (xlc.vmap(lambda x: xlc.while_loop(lambda c: c < 50, lambda c: c * 2 + 1, abs(x).sum())), (X,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_those_of_the_cpu(name: str) -> None:
    f, arguments = PROGRAMS[name]
    expected, structure = tree.flatten(xlc.jit(f)(*arguments))
    for device in ("shim:descending", "shim:random"):
        leaves, found = tree.flatten(xlc.jit(f, device=device)(*arguments))
        assert found == structure
        for a, b in zip(leaves, expected, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_a_loop_is_one_launch_however_often_it_runs() -> None:
    device = backend_for("shim").device
    f = xlc.jit(lambda xs: xlc.scan(lambda c, x: (np.tanh(c + x), c), xs[0], xs)[0], device="shim")
    counts = []
    for steps in (3, 300):
        xs = rng.normal(size=(steps, 7)).astype(np.float32)
        f(xs)
        before = device.launches
        f(xs)
        counts.append(device.launches - before)
    assert counts[0] == counts[1] <= 4  # the barrier's counter, the first carry, the loop


def test_named_sizes_inside_of_loops() -> None:
    f = xlc.jit(lambda xs: xlc.scan(lambda c, x: (c * 0.5 + x, c.sum()), xs[0], xs), dynamic={"xs": {0: "time", 1: "width"}}, device="shim")
    for shape in ((1, 5), (4, 8), (9, 300)):
        xs = rng.normal(size=shape).astype(np.float32)
        c, sums = xs[0].astype(np.float64), []
        for x in xs:
            sums.append(c.sum())
            c = c * 0.5 + x
        got, rows = f(xs)
        np.testing.assert_allclose(got, c, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rows, sums, rtol=1e-4, atol=1e-4)
    assert f.compiles == 1


@pytest.mark.skipif(not cuda_backend.CHIPS, reason="needs NVRTC: pip install nvidia-cuda-nvrtc")
@pytest.mark.parametrize("name", ["fori, several blocks", "scan, reductions", "cond"])
def test_what_an_earlier_iteration_wrote_is_not_read_through_a_cache_that_keeps_it(name: str) -> None:
    """ld.global.nc may give what was there when the kernel began (PTX ISA, "ld.global.nc"): in a launch whose blocks go on after a barrier
    of the whole grid, only the table of addresses may be read so."""
    f, arguments = PROGRAMS[name]
    program = xlc.jit(f, device="cuda:sm_90").compile(*arguments).program
    backend = program.backend
    for graph in (False, True):
        ptx = backend.compiled(backend.text(program.plan), graph).ptx
        waiting = [entry for entry in ptx.split(".visible .entry ")[1:] if "atom.global.add" in entry]
        assert len(waiting) == 1 and "ld.global." in waiting[0]
        assert set(re.findall(r"ld\.global\.nc\.\S+", waiting[0])) <= ({"ld.global.nc.u64"} if graph else set())
