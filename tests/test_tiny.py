"""Everything once, in a few seconds: the first thing to run after a change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import xlc
import xlc.nn
import xlc.numpy as xnp

RNG = np.random.default_rng(0)
X, W, B = (RNG.standard_normal(s).astype("f4") for s in ((6, 20), (20, 30), (30,)))


def close(a: object, b: object, tolerance: float = 1e-5) -> None:
    assert np.shape(a) == np.shape(b)
    np.testing.assert_allclose(np.asarray(a, "f8"), np.asarray(b, "f8"), rtol=tolerance, atol=tolerance)


def layer(x, w, b):  # type: ignore[no-untyped-def]
    h = x @ w + b
    return 0.5 * h * (1 + np.tanh(0.7978845608 * (h + 0.044715 * h**3)))


def test_a_numpy_function_is_compiled_once() -> None:
    f = xlc.jit(layer)
    for _ in range(3):
        close(f(X, W, B), layer(X, W, B))
    assert f.compiles == 1
    f(X.astype("f8"), W.astype("f8"), B.astype("f8"))
    assert f.compiles == 2


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ml_dtypes.bfloat16])
def test_every_dtype(dtype: object) -> None:
    x = RNG.integers(0, 2 if dtype == "?" else 5, (3, 7)).astype(dtype)

    def f(x):
        return (x + x, x.max(0), x[::-1, 2:5], np.concatenate([x, x], 1), x.astype("f4").sum(), x == x.T[:1].T, np.sort(x, 1))

    for got, want in zip(xlc.jit(f)(x), f(x), strict=True):
        assert np.asarray(got).dtype == np.asarray(want).dtype
        np.testing.assert_array_equal(got, want)


def test_the_shapes_that_go_wrong() -> None:
    for shape in ((), (0,), (1,), (3, 0), (1, 1), (17,), (2, 3, 5)):
        x = np.asarray(RNG.standard_normal(shape), "f4")
        for got, want in zip(
            xlc.jit(lambda x: (x * 2 + 1, x.sum(), x.reshape(-1), x[..., None]))(x),
            (x * 2 + 1, x.sum(), x.reshape(-1), x[..., None]),
            strict=True,
        ):
            close(got, want)


def test_kinds_of_operators() -> None:
    ids = np.array([2, 0, 5])

    def f(x, i):
        return (
            x.mean(1),
            x.argmax(0),
            np.cumsum(x, 1),
            np.argsort(x, 1),
            x[i],
            np.where(x > 0, x, 0),
            np.pad(x, 1),
            x.T.copy(),
            np.einsum("ij,kj->ik", x, x),
            x.std(0),
            np.take_along_axis(x, np.argsort(x, 1), 1),
            np.linalg.norm(x),
        )

    for got, want in zip(xlc.jit(f)(X, ids), f(X, ids), strict=True):
        close(got, want, 1e-4)
    close(xnp.at(X, ids).add(1.0)[5], X[5] + 1)
    close(xnp.logsumexp(X, axis=1), np.log(np.exp(X.astype("f8")).sum(1)))


def test_composites() -> None:
    e = np.exp(X - X.max(1, keepdims=True))
    close(xlc.nn.softmax(X), e / e.sum(1, keepdims=True))
    close(
        xlc.nn.layer_norm(X, np.ones(20, "f4"), np.zeros(20, "f4")),
        (X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-5),
        1e-4,
    )
    close(xlc.nn.cross_entropy(X, np.arange(6)), -np.log((e / e.sum(1, keepdims=True))[np.arange(6), np.arange(6)]), 1e-4)
    q = X.reshape(2, 3, 20)
    assert xlc.nn.attention(q, q, q, causal=True).shape == q.shape


def test_gradients() -> None:
    close(xlc.grad(lambda x: (x * x).sum())(X), 2 * X)
    value, slope = xlc.value_and_grad(lambda w: layer(X, w, B).mean())(W)
    step = 1e-2 * slope / np.abs(slope).max()
    change = layer(X.astype("f8"), W + step.astype("f8"), B).mean() - layer(X.astype("f8"), W, B).mean()
    close(change / (slope * step).sum(), 1.0, 0.05)
    close(xlc.jit(xlc.grad(xlc.grad(lambda x: x**3)))(np.float64(2.0)), 12.0)
    y, pull = xlc.vjp(lambda x: np.sin(x), np.float32(1.0))
    close(pull(np.float32(2.0))[0], 2 * np.cos(1.0))


def test_pytrees_named_sizes_donation() -> None:
    step = xlc.jit(lambda p, x: {k: v - 0.5 * x.sum() for k, v in p.items()}, donate=("p",))
    close(step({"a": np.ones(3, "f4")}, np.ones(2, "f4"))["a"], np.zeros(3))
    f = xlc.jit(lambda x: (xlc.nn.softmax(x), x @ W, x.sum(0)), dynamic={"x": {0: "batch"}})
    for n in (6, 0, 1, 37):
        x = RNG.standard_normal((n, 20)).astype("f4")
        close(f(x)[1], x @ W, 1e-4)
        close(f(x)[2], x.sum(0), 1e-4)
    assert f.compiles == 1


def test_errors_name_the_line() -> None:
    with pytest.raises(xlc.XlcError, match=r"test_tiny.py:\d+"):
        xlc.jit(lambda x: x if x.sum() > 0 else -x)(X)
    with pytest.raises(ValueError, match=r"test_tiny.py:\d+"):
        xlc.jit(lambda x, y: x + y)(X, B)


def test_stages_print() -> None:
    e = xlc.jit(layer).compile(X, W, B)
    assert "dot" in str(e.graph) and "tanh" in str(e.after("simplify"))
    assert len(e.kernels) == 1 and e.plan.arena_bytes >= e.plan.lower_bound_bytes if hasattr(e.plan, "arena_bytes") else e.kernels
    assert "contraction" in e.explain() or "one loop nest" in e.explain()


def test_a_library_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "layer.so"
    xlc.aot.export(lambda x: layer(x, W, B), [xlc.spec((6, 20), "f4")], str(path), name="layer")
    assert np.asarray(xlc.aot.load(str(path))(X)).tobytes() == np.asarray(xlc.jit(lambda x: layer(x, W, B))(X)).tobytes()
    assert (tmp_path / "layer.h").exists()


def test_knobs_and_import_are_light() -> None:
    with xlc.config.context(strict=True, check=1, num_threads=1):
        close(xlc.jit(lambda x: np.exp(x).sum(1))(X), np.exp(X).sum(1))
    text = "import sys, xlc; print(sorted(m for m in ('llvmlite', 'networkx', 'numpy.testing') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout.strip() == "[]"
