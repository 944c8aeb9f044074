"""Tile-and-fuse: what a contraction reads is computed in its kernel, a block of rows at a time. Values against float64 NumPy, bits against
the same program without it, the number of kernels, the arena."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlc
import xlc.nn
from xlc.ir.verify import verify_kernel
from xlc.passes import tile


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between the stages of a test would stay in the cache."""
    monkeypatch.setattr(tile, "KEPT", -1.0)


def values(*shape: int, seed: int = 0, dtype: Any = "f4") -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def softmax(s: np.ndarray) -> np.ndarray:
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, causal: bool = False) -> np.ndarray:
    """In float64, as it is written in the paper (arXiv:1706.03762)."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype(np.float64)
    if causal:
        s = np.where(np.arange(s.shape[-1]) <= np.arange(s.shape[-2])[:, None], s, -np.inf)
    return softmax(s) @ v


def check(f: Callable[..., Any], args: tuple[np.ndarray, ...], expected: np.ndarray, tolerance: float = 2e-5, stages: int = 3) -> Any:
    """Values; bits without the fusion and with one thread; proofs. Returns the compiled program."""
    e = xlc.jit(f).compile(*args)
    assert [len(g.stages) for g in e.after("fuse").groups if g.tiling] in ([stages], [2]), e.after("fuse")
    got = np.asarray(e(*args))
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=tolerance, atol=tolerance)
    for knobs in ({"fuse_tiles": False}, {"num_threads": 1}):
        with xlc.config.context(**knobs):
            same = np.asarray(xlc.jit(f)(*args))
        assert np.array_equal(got.view(np.uint8), same.view(np.uint8)), knobs
    assert not verify_kernel(e.kernels[-1])
    return e


# ------------------------------------------------------------------------------------------------ attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(3, 61, 16), (97, 8), (2, 2, 40, 5), (1, 1, 1), (5, 1, 7)])
def test_attention(shape: tuple[int, ...], causal: bool) -> None:
    q, k, v = (values(*shape, seed=s) for s in range(3))
    e = check(lambda q, k, v: xlc.nn.attention(q, k, v, causal=causal), (q, k, v), attention(q, k, v, causal=causal))
    assert len(e.kernels) <= 3  # at most one that packs k and one that packs v


def test_heads_beside_tokens() -> None:
    """(batch, tokens, heads, depth), as a projection gives it."""
    q, k, v = (values(2, 61, 3, 16, seed=s) for s in range(3))
    expected = attention(*(x.transpose(0, 2, 1, 3) for x in (q, k, v)), causal=True)
    check(lambda q, k, v: xlc.nn.attention(*(x.transpose(0, 2, 1, 3) for x in (q, k, v)), causal=True), (q, k, v), expected)


def test_scores_are_never_in_memory() -> None:
    q, k, v = (values(4, 256, 32, seed=s) for s in range(3))

    def f(q: Any, k: Any, v: Any) -> Any:
        return xlc.nn.attention(q, k, v)

    e = xlc.jit(f).compile(q, k, v)
    with xlc.config.context(fuse_tiles=False):
        old = xlc.jit(f).compile(q, k, v)
    scores = 4 * 256 * 256 * 4
    assert old.plan.arena >= 2 * scores and e.plan.arena <= k.nbytes + v.nbytes < scores
    assert len(e.kernels) == len(old.kernels) - 2
    assert "3 stages" in str(e.after("fuse")) and "dot x2" in e.explain()


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks(kind: str) -> None:
    q, k, v = values(2, 3, 33, 8), values(2, 3, 50, 8, seed=1), values(2, 3, 50, 12, seed=2)
    mask = values(2, 3, 33, 50, seed=3)
    mask = (mask > -0.5) | (np.arange(50) == 0) if kind == "bool" else mask
    e = check(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), (q, k, v, mask), attention(q, k, v, mask))
    assert "where" in e.kernels[-1].note or kind == "float"


@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-13), ("f2", 4e-3)])
def test_dtypes(dtype: str, tolerance: float) -> None:
    q, k, v = (values(2, 45, 16, seed=s, dtype=dtype) for s in range(3))
    check(lambda q, k, v: xlc.nn.attention(q, k, v, causal=True), (q, k, v), attention(q, k, v, causal=True), tolerance)


def test_empty() -> None:
    f = xlc.jit(lambda q, k, v: xlc.nn.attention(q, k, v))
    assert f(values(0, 4, 8), values(0, 4, 8), values(0, 4, 8)).shape == (0, 4, 8)
    assert f(values(2, 0, 8), values(2, 5, 8), values(2, 5, 3)).shape == (2, 0, 3)
    w1, w2 = values(6, 0), values(0, 3)
    assert np.array_equal(xlc.jit(lambda x: np.maximum(x @ w1, 0) @ w2)(values(5, 6)), np.zeros((5, 3), "f4"))


def test_strict_adds_in_the_same_order() -> None:
    q, k, v = (values(2, 70, 16, seed=s) for s in range(3))

    def f(q: Any, k: Any, v: Any) -> Any:
        return xlc.nn.attention(q, k, v, causal=True)

    with xlc.config.context(strict=True):
        fused = xlc.jit(f)(q, k, v)
        assert np.array_equal(fused, xlc.jit(f, fuse=False)(q, k, v))


# ------------------------------------------------------------------------------------------------ rows in the arena, named sizes


def test_long_rows_lie_in_the_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile, "STACK_BYTES", 0)
    q, k, v = (values(150, 8, seed=s) for s in range(3))
    e = check(lambda q, k, v: xlc.nn.attention(q, k, v, scale=0.3535533905932738), (q, k, v), attention(q, k, v))
    assert e.after("fuse").groups[-1].tiling.chunk and "stack" not in str(e.kernels[-1]).split("row0")[0]


def test_named_rows() -> None:
    f = xlc.jit(lambda q, k, v: xlc.nn.attention(q, k, v), dynamic={0: {0: "queries"}})
    k, v = values(30, 8, seed=1), values(30, 6, seed=2)
    for n in (1, 5, 36, 100):
        q = values(n, 8)
        np.testing.assert_allclose(f(q, k, v), attention(q, k, v), rtol=2e-5, atol=2e-5)
    assert "3 stages" in str(f.compile(values(5, 8), k, v).after("fuse"))


def test_named_rows_and_keys() -> None:
    f = xlc.jit(lambda q, k, v: xlc.nn.attention(q, k, v, causal=True), dynamic={a: {1: "tokens"} for a in range(3)})
    for n in (1, 7, 36, 75):
        q, k, v = (values(2, n, 8, seed=s) for s in range(3))
        np.testing.assert_allclose(f(q, k, v), attention(q, k, v, causal=True), rtol=2e-5, atol=2e-5)
    assert "3 stages" in str(f.compile(q, k, v).after("fuse"))


# ------------------------------------------------------------------------------------------------ other rows between two contractions


def test_mlp() -> None:
    x, w1, b1, w2 = values(301, 20), values(20, 33, seed=1), values(33, seed=2), values(33, 7, seed=3)
    expected = np.maximum(x.astype("f8") @ w1 + b1, 0) @ w2
    e = check(lambda x: np.maximum(x @ w1 + b1, 0) @ w2, (x,), expected, 1e-4, stages=2)
    assert len(e.kernels) == 1 and e.plan.arena == 0


def test_layer_norm_between() -> None:
    x, w1, w2 = values(130, 20), values(20, 33, seed=1), values(33, 7, seed=2)
    scale, bias = values(33, seed=3), values(33, seed=4)
    h = x.astype("f8") @ w1
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * scale + bias
    e = check(lambda x: xlc.nn.layer_norm(x @ w1, scale, bias) @ w2, (x,), h @ w2, 1e-4)
    assert len(e.kernels) == 1


def test_three_contractions() -> None:
    x, *ws = values(90, 12), values(12, 16, seed=1), values(16, 20, seed=2), values(20, 5, seed=3)
    h = x.astype("f8")
    for w in ws[:-1]:
        h = np.tanh(h @ w)
    e = check(lambda x: np.tanh(np.tanh(x @ ws[0]) @ ws[1]) @ ws[2], (x,), h @ ws[2], 1e-4)
    assert len(e.kernels) == 1


def test_two_rows_of_products_that_meet() -> None:
    a, b, w = values(64, 10), values(10, 24, seed=1), values(24, 9, seed=2)
    expected = softmax((a.astype("f8") @ b) * (2 * a.astype("f8") @ b + 1)) @ w
    x2 = 2 * a
    e = xlc.jit(lambda a, x2, b: xlc.nn.softmax((a @ b) * (x2 @ b + 1)) @ w).compile(a, x2, b)
    np.testing.assert_allclose(e(a, x2, b), expected, rtol=1e-4, atol=1e-4)
    assert len(e.kernels) == 1


# ------------------------------------------------------------------------------------------------ what stays apart, and why


def unfused(f: Callable[..., Any], *args: np.ndarray) -> str:
    e = xlc.jit(f).compile(*args)
    assert all(g.tiling is None for g in e.after("fuse").groups)
    return e.explain()


def test_what_is_needed_elsewhere_is_stored() -> None:
    x, w = values(80, 16), values(16, 16, seed=1)

    def f(x: Any) -> Any:
        h = np.maximum(x @ w, 0)
        return h, h @ w

    assert "read many times" in unfused(f, x)
    h, y = xlc.jit(f)(x)
    np.testing.assert_allclose(y, h @ w, rtol=1e-4, atol=1e-4)
    unfused(lambda x: np.maximum(x @ w, 0) + np.maximum(x @ w, 0) @ w, x)


def test_rows_that_are_contracted_are_stored() -> None:
    x, w = values(40, 16), values(16, 24, seed=1)
    unfused(lambda x: np.maximum(x @ w, 0).T @ x, x)


def test_the_cost_rule_says_why() -> None:
    x, w1, w2 = values(100, 784), values(784, 500, seed=1), values(500, 10, seed=2)
    assert "more would be loaded of the right operands" in unfused(lambda x: np.maximum(x @ w1, 0) @ w2, x)
    few = values(9, 512), values(512, 1024, seed=1), values(1024, 512, seed=2)
    assert "too few blocks of rows" in unfused(lambda x, a, b: np.maximum(x @ a, 0) @ b, *few)


def test_knob() -> None:
    with xlc.config.context(fuse_tiles=False):
        unfused(lambda q: xlc.nn.attention(q, q, q), values(30, 8))


# ------------------------------------------------------------------------------------------------ elsewhere


def test_gradient() -> None:
    q, k, v = (values(40, 6, seed=s, dtype="f8") for s in range(3))

    def loss(q: Any, k: Any, v: Any) -> Any:
        return (xlc.nn.attention(q, k, v, causal=True) ** 2).sum()

    got = xlc.grad(loss)(q, k, v)
    step, direction = 1e-6, values(40, 6, seed=9, dtype="f8")
    numeric = sum(s * (attention(q + s * step * direction, k, v, causal=True) ** 2).sum() for s in (1, -1)) / (2 * step)
    np.testing.assert_allclose((got * direction).sum(), numeric, rtol=1e-6)


def test_interpreter_agrees() -> None:
    q, k, v = (values(13, 4, seed=s) for s in range(3))
    with xlc.config.context(check=3):
        got = xlc.jit(lambda q, k, v: xlc.nn.attention(q, k, v) * 1)(q, k, v)
    np.testing.assert_allclose(got, attention(q, k, v), rtol=2e-5, atol=2e-5)


def test_ahead_of_time(tmp_path: Path) -> None:
    q, k, v = (values(3, 50, 8, seed=s) for s in range(3))

    def f(q: Any, k: Any, v: Any) -> Any:
        return xlc.nn.attention(q, k, v, causal=True)

    spec = xlc.spec((3, 50, 8))
    library = xlc.aot.load(xlc.aot.export(f, [spec, spec, spec], tmp_path / "f.so").library)
    assert np.array_equal(library(q, k, v), xlc.jit(f)(q, k, v))


def test_small_intermediates_stay_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    w1, w2 = values(64, 256), values(256, 16)
    f = xlc.jit(lambda x: np.maximum(x @ w1, 0) @ w2)
    small, large = f.compile(values(64, 64)), f.compile(values(1 << 14, 64))
    assert len(small.kernels) == 2 and "stays in the cache" in small.explain()
    assert len(large.kernels) == 1
