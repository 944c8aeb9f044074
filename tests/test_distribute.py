"""Contractions that leave loops (``xlc.passes.distribute``): values against loops in Python and finite differences, what is left in the
loop, and when it stays as it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_control import differences, random_loop, scanned

import xlc
from xlc import config
from xlc.ir.interp import interpret
from xlc.ir.machine import Machine
from xlc.ir.node import Graph, bodies
from xlc.passes import control
from xlc.passes.decompose import decompose

rng = np.random.default_rng(5)
N, T = 24, 5
W, V, U = (rng.standard_normal(shape) / 5 for shape in ((2 * N, N), (N, N), (N, N)))
H, X, IDS = rng.standard_normal((2, N)), rng.standard_normal((T, 2, N)), rng.integers(0, 2 * N, (T, 2))


def joined(h: Any, x: Any) -> Any:
    h = np.tanh(np.concatenate([x, h], axis=-1) @ W)
    return h, h * 2


def between(h: Any, x: Any) -> Any:
    """What comes first and last can be computed before."""
    h = np.tanh(np.concatenate([x[:, :4], h, x[:, 4:]], axis=1) @ W)
    return h, None


def left(h: Any, x: Any) -> Any:
    h = np.tanh((V @ x.T).T + h @ U)
    return h, V.T @ h.T


def looked_up(h: Any, ids: Any) -> Any:
    h = np.sin(xlc.numpy.take(W, ids, axis=0) @ V + h)
    return h, (h @ V)[:, 3:7]


def normalised(h: Any, x: Any) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    h = np.tanh(np.maximum(x @ V, 0) @ U + h)
    return h, x


def gru(h: Any, x: Any) -> Any:
    z = x @ V + h @ U
    h = h * 0.5 + np.tanh(z) * 0.5
    return h, z


CELLS: dict[str, tuple[Callable[..., Any], Any]] = {
    "joined": (joined, X), "between": (between, X), "left": (left, X), "looked up": (looked_up, IDS), "normalised": (normalised, X),
    "gru": (gru, X)}


def contractions(graph: Graph) -> list[tuple[Any, ...]]:
    """The shapes of the contractions in the bodies of the graph, after all passes."""
    return [m.shape for b in dict.fromkeys(b for n in graph.nodes() for b in bodies(n)) for m in b.nodes() if m.op.kind == "contraction"]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_values(name: str, reverse: bool) -> None:
    cell, xs = CELLS[name]
    run = xlc.jit(lambda h, xs: xlc.scan(cell, h, xs, reverse=reverse))
    last, ys = run(H, xs)
    expected, rows = scanned(cell, H, xs, reverse=reverse)
    np.testing.assert_allclose(last, expected, rtol=1e-11)
    if ys is not None:
        np.testing.assert_allclose(ys, np.stack(rows), rtol=1e-11)
    with config.context(strict=True):  # each iteration as it is written
        kept = xlc.jit(lambda h, xs: xlc.scan(cell, h, xs, reverse=reverse)).compile(H, xs)
    moved = contractions(run.compile(H, xs).after("control"))
    assert len(moved) < len(contractions(kept.after("control"))) or (name in ("joined", "between") and moved == [(2, N)])


@pytest.mark.parametrize("name", ["joined", "between", "left", "normalised", "gru"])
def test_gradients(name: str) -> None:
    cell, xs = CELLS[name]

    def loss(h: Any, xs: Any) -> Any:
        last, ys = xlc.scan(cell, h, xs)
        return (last * last).sum() + (0 if ys is None else np.sin(ys).sum())

    found, run = xlc.jit(xlc.grad(loss, argnums=(0, 1)))(H, xs), xlc.jit(loss)
    np.testing.assert_allclose(found[0], differences(lambda h: run(h, xs), H), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], differences(lambda x: run(H, x), xs), rtol=1e-5, atol=1e-6)


def test_what_is_left_of_an_lstm() -> None:
    """Forwards the product by h; backwards the gradient by h alone; what belongs to x is computed for all steps."""
    w, b = rng.standard_normal((2 * N, 4 * N)) / 5, rng.standard_normal(4 * N)

    def step(state: Any, x: Any) -> Any:
        h, c = xlc.nn.lstm_cell(x, state, w, b)
        return (h, c), h

    def loss(xs: Any) -> Any:
        return (xlc.scan(step, (H, H), xs)[1] ** 2).sum()

    slope = xlc.jit(xlc.grad(loss))
    done = slope.compile(X)
    assert sorted(contractions(done.after("control"))) == [(2, N), (2, 4 * N)]
    assert all(n.args[1].shape == (N, 4 * N) for n in done.after("control").everywhere() if n.op.kind == "contraction")
    run = xlc.jit(loss)
    np.testing.assert_allclose(slope(X), differences(run, X), rtol=1e-5, atol=1e-6)


def test_only_what_is_read_of_a_contraction_is_computed() -> None:
    def f(h: Any, xs: Any) -> Any:
        return xlc.scan(lambda h, x: (np.tanh((h @ V)[:, 2:12] @ V[:10] + x), None), h, xs)[0]

    run = xlc.jit(f)
    assert (2, 10) in contractions(run.compile(H, X).after("control"))
    np.testing.assert_allclose(run(H, X), scanned(lambda h, x: (np.tanh((h @ V)[:, 2:12] @ V[:10] + x), None), H, X)[0], rtol=1e-12)


def test_loops_that_stay() -> None:
    """Maps, whose user wants one element at a time; matrices smaller than the rows; dtypes whose sums would be rounded more often."""
    def kept(f: Any, *args: Any) -> int:
        return len(contractions(xlc.jit(f).compile(*args).after("control")))

    assert kept(lambda xs: xlc.scan(lambda c, x: (c, np.tanh(x @ V) @ U), None, xs)[1].sum(0), X) == 1  # the last one is a result
    assert kept(lambda g, xs: xlc.scan(lambda g, x: (g + np.tanh(x @ V).T @ x, None), g, xs)[0], V, X) == 2
    with config.context(skip="distribute"):
        assert kept(lambda h, xs: xlc.scan(gru, h, xs)[0], H, X) == 2
    many = rng.standard_normal((T, 40, N))
    assert kept(lambda h, xs: xlc.scan(lambda h, x: (np.tanh(x @ V + h @ U), None), h, xs)[0], many[0], many) == 2
    half, w = X.astype("f2"), W.astype("f2")
    assert kept(lambda h, xs: xlc.scan(lambda h, x: (np.concatenate([x, h], axis=1) @ w, None), h, xs)[0], half[0], half) == 1


@pytest.mark.parametrize("dtype", ["i4", "u1", "f2", "f4", "bool"])
def test_dtypes(dtype: str) -> None:
    w, v = (rng.integers(0, 2, (N, N)).astype(dtype) for _ in range(2))
    xs = rng.integers(0, 2, (T, 2, N)).astype(dtype)

    def cell(h: Any, x: Any) -> Any:
        h = x @ w ^ h if dtype == "bool" else x @ w - h
        return h, h @ v

    run = xlc.jit(lambda h, xs: xlc.scan(cell, h, xs))
    last, ys = run(xs[0], xs)
    expected, rows = scanned(cell, xs[0], xs)
    assert last.dtype == ys.dtype == np.dtype(dtype)
    np.testing.assert_allclose(last, expected, rtol=1e-2 if dtype == "f2" else 0)
    np.testing.assert_allclose(ys, np.stack(rows), rtol=1e-2 if dtype == "f2" else 0)
    assert len(contractions(run.compile(xs[0], xs).after("control"))) == (dtype == "bool")  # which is one of i32, and a comparison


def test_named_lengths_nested_and_mapped_loops() -> None:
    run = xlc.jit(lambda h, xs: xlc.scan(joined, h, xs), dynamic={"xs": {0: "time"}})
    for n in (0, 1, T):
        last, ys = run(H, X[:n])
        expected, rows = scanned(joined, H, X[:n])
        np.testing.assert_allclose(last, expected, rtol=1e-11)
        np.testing.assert_allclose(ys, np.reshape(rows, (n, 2, N)), rtol=1e-11)
    assert run.compiles == 1

    def inner(h: Any, x: Any) -> Any:
        return xlc.scan(lambda c, k: (np.tanh((x * k) @ V + c @ U), None), h, np.arange(3.0))[0], h @ V

    def plain(h: Any, x: Any) -> Any:
        return scanned(lambda c, k: (np.tanh((x * k) @ V + c @ U), None), h, np.arange(3.0))[0], h @ V

    last, ys = xlc.jit(lambda h, xs: xlc.scan(inner, h, xs))(H, X)
    expected, rows = scanned(plain, H, X)
    np.testing.assert_allclose(last, expected, rtol=1e-11)
    np.testing.assert_allclose(ys, np.stack(rows), rtol=1e-11)
    hs = rng.standard_normal((3, 2, N))
    found = xlc.vmap(lambda h: xlc.scan(joined, h, X)[0])(hs)
    np.testing.assert_allclose(found, [scanned(joined, h, X)[0] for h in hs], rtol=1e-11)


def test_random_loops_mean_the_same() -> None:
    """With a machine for which everything pays that is no map."""
    moved = 0
    for seed in range(60):
        graph, arrays, sizes = random_loop(seed)
        graph = decompose(graph)
        plain = control.bodies(graph, lambda g: g)
        done = control.bodies(graph, lambda g: g, Machine(l2=0))
        moved += str(plain) != str(done)
        with np.errstate(all="ignore"):
            found, expected = interpret(done, *arrays, sizes=sizes), interpret(plain, *arrays, sizes=sizes)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.astype("f8"), b.astype("f8"), rtol=1e-2, atol=1e-2, err_msg=f"seed {seed}")
    assert moved
