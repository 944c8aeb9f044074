"""Gradients of attention on GPUs without a matrix of tokens x tokens: the CUDA text through the shim (threads in random order) against
formulas in double precision and finite differences; kernels, buffers and the arena of the plan; registers and shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cuda_backend
import ml_dtypes
import numpy as np
import pytest
from test_cuda_attention import rounds

import xlc
import xlc.nn
from examples.networks import network
from xlc import tree
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.schedule import chain, online
from xlc.ir.interp import interpret_plan
from xlc.ir.verify import verify_kernel

cuda_backend.install()
shim = pytest.mark.skipif(bool(cuda_backend.MISSING), reason=str(cuda_backend.MISSING))
chips = pytest.mark.skipif(not nvrtc.available(), reason="needs NVRTC")
BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {"f4": 2e-5, "f2": 1e-2, BF16: 6e-2}


def values(*shape: int, seed: int = 0, dtype: Any = "f4") -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype("f4").astype(dtype)


def swapped(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2)


def formulas(q: np.ndarray, k: np.ndarray, v: np.ndarray, w: np.ndarray, mask: Any = None, causal: bool = False,
             kept: Any = 1.0) -> tuple[np.ndarray, ...]:
    """sum(attention(q, k, v) * w) and its gradients by q, k, v, in float64. ``kept``: what the probabilities are multiplied with."""
    q, k, v, w = (x.astype("f8") for x in (q, k, v, w))
    scale = 1 / np.sqrt(q.shape[-1])
    s = q @ swapped(k) * scale
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype("f8")
    if causal:
        s = np.where(np.arange(s.shape[-1]) <= np.arange(s.shape[-2])[:, None], s, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
    dp = w @ swapped(v) * kept
    ds = np.where(s == -np.inf, 0, p * (dp - np.sum(p * dp, -1, keepdims=True)) * scale)
    return np.sum((p * kept) @ v * w), ds @ k, swapped(ds) @ q, swapped(p * kept) @ w


def loss(attention: Callable[..., Any]) -> Any:
    return xlc.value_and_grad(lambda q, k, v, w, *rest: np.sum((attention(q, k, v, *rest) * w).astype("f4")), argnums=(0, 1, 2))


def plain(q: Any, k: Any, v: Any) -> Any:
    return xlc.nn.attention(q, k, v)


def causal(q: Any, k: Any, v: Any) -> Any:
    return xlc.nn.attention(q, k, v, causal=True)


def largest(e: Any) -> int:
    """The elements of the largest array that the plan's kernels write."""
    return max(b.size for k in e.kernels for b in k.outputs)


def compiled(f: Any, args: tuple[Any, ...], device: str = "shim:random") -> Any:
    """Of which no kernel writes rows x keys, and in which nothing is stored for want of a kernel."""
    e = xlc.jit(f, device=device).compile(*args)
    assert "is stored" not in e.explain(), e.explain()
    return e


def check(attention: Any, args: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], tolerance: float = 2e-5,
          rest: tuple[Any, ...] = (), device: str = "shim:random") -> Any:
    e = compiled(loss(attention), (*args, *rest), device)
    for k in e.kernels:
        assert all("may touch" in u or "may reach" in u or "bitwise_xor(tx" in u for u in verify_kernel(k))
    value, gradients = e(*args, *rest)
    np.testing.assert_allclose(value, expected[0], rtol=tolerance, atol=tolerance * np.sqrt(args[3].size))
    for g, x, name in zip(gradients, expected[1:], "qkv", strict=True):
        unit = max(np.nanmax(np.abs(x), initial=0), 1)
        np.testing.assert_allclose(np.asarray(g).astype("f8"), x, rtol=tolerance, atol=tolerance * unit, err_msg=name)
    again = e(*args, *rest)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(gradients, again[1], strict=True))
    return e


SHAPES = [((3,), 61, 61, 16, 16), ((), 97, 130, 8, 8), ((2, 2), 130, 65, 5, 7), ((1,), 3, 2, 2, 2), ((5,), 2, 200, 7, 3),
          ((), 70, 150, 100, 128)]


@shim
@pytest.mark.parametrize("mask", [plain, causal])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[Any, ...], mask: Any) -> None:
    """Batch, queries, keys, elements of a key and of a value."""
    batch, queries, keys, depth, width = shape
    args = (values(*batch, queries, depth), values(*batch, keys, depth, seed=1), values(*batch, keys, width, seed=2),
            values(*batch, queries, width, seed=3))
    e = check(mask, args, formulas(*args, causal=mask is causal))
    if min(queries, keys) > 2 * max(depth, width):
        assert largest(e) < np.prod(batch) * queries * keys


@shim
@pytest.mark.parametrize("dtype", ["f2", BF16], ids=str)
@pytest.mark.parametrize(("sizes", "chip"), [((150, 70, 64, 64), "sm_80"), ((150, 70, 64, 64), "sm_90"), ((20, 130, 24, 40), "sm_80"),
                                             ((33, 66, 3, 5), "sm_80")], ids=str)
def test_halves(sizes: tuple[int, ...], chip: str, dtype: Any) -> None:
    """On sm_90 four warps multiply together in the forward kernel."""
    queries, keys, depth, width = sizes
    args = tuple(values(2, n, d, seed=s, dtype=dtype) for s, (n, d) in enumerate(
        ((queries, depth), (keys, depth), (keys, width), (queries, width))))
    check(causal, args, formulas(*args, causal=True), TOLERANCE[dtype], device=f"shim:random:{chip}")


@shim
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks(kind: str) -> None:
    args = values(2, 3, 70, 8), values(2, 3, 90, 8, seed=1), values(2, 3, 90, 12, seed=2), values(2, 3, 70, 12, seed=4)
    mask = values(2, 3, 70, 90, seed=3)
    mask = mask > 0.5 if kind == "bool" else mask
    check(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), args, formulas(*args, mask), rest=(mask,))


@shim
def test_rows_without_a_key() -> None:
    """nan where there is nan without fusion: in all values' gradients."""
    args = tuple(values(70, 8, seed=s) for s in range(4))
    mask = np.arange(70) >= np.arange(70)[:, None] + 30
    e = check(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), args, formulas(*args, mask), rest=(mask,))
    with xlc.config.context(fuse_tiles=False):
        old = xlc.jit(loss(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m)), device="shim")(*args, mask)
    for a, b in zip(e(*args, mask)[1], old[1], strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


@shim
def test_dropout() -> None:
    args = values(70, 16), values(80, 16, seed=1), values(80, 16, seed=2), values(70, 16, seed=4)
    kept = values(70, 80, seed=3) > -0.5

    def f(q: Any, k: Any, v: Any, kept: Any) -> Any:
        return np.where(kept, xlc.nn.softmax(q @ k.T * 0.25) / 0.7, 0) @ v

    e = check(f, args, formulas(*args, kept=kept / 0.7), rest=(kept,))
    assert sum("exp" in k.note for k in e.kernels) == 4

    def g(q: Any, k: Any, v: Any, key: Any) -> Any:
        return xlc.nn.dropout(key, xlc.nn.softmax(q @ k.T * 0.25), 0.3) @ v

    key = xlc.random.key(3)
    kept = np.asarray(xlc.nn.dropout(key, np.ones((70, 80), "f4"), 0.3), "f8")
    e = check(g, args, formulas(*args, kept=kept), rest=(key,))
    assert largest(e) < 70 * 80  # not even the mask is stored


@shim
def test_heads_that_share_keys() -> None:
    q, k, v, w = values(2, 2, 3, 70, 16), values(2, 2, 90, 16, seed=1), values(2, 2, 90, 16, seed=2), values(2, 2, 3, 70, 16, seed=3)

    def f(q: Any, k: Any, v: Any) -> Any:
        return xlc.nn.attention(q, *(np.broadcast_to(x[:, :, None], (2, 2, 3, 90, 16)) for x in (k, v)))

    value, dq, dk, dv = formulas(q, k[:, :, None], v[:, :, None], w)
    e = check(f, (q, k, v, w), (value, dq, dk.sum(2), dv.sum(2)))
    assert largest(e) < 12 * 70 * 90


@shim
def test_heads_beside_tokens() -> None:
    """(batch, tokens, heads, depth), as a projection gives it: transposed where it is read, and where gradients are written."""
    q, k, v, w = (values(2, 70, 3, 16, seed=s) for s in range(4))

    def turned(*xs: np.ndarray) -> list[np.ndarray]:
        return [x.transpose(0, 2, 1, 3) for x in xs]

    value, *gradients = formulas(*turned(q, k, v, w), causal=True)
    e = check(lambda q, k, v: causal(*turned(q, k, v)).transpose(0, 2, 1, 3), (q, k, v, w), (value, *turned(*gradients)))
    assert len(e.kernels) == 9 and largest(e) < 6 * 70 * 70  # three transpose gradients


@shim
def test_softmax_in_f32_between_halves() -> None:
    args = tuple(values(60, 16, seed=s, dtype="f2") for s in range(4))
    check(lambda q, k, v: xlc.nn.softmax((q @ k.T).astype("f4") * 0.25).astype("f2") @ v, args, formulas(*args), TOLERANCE["f2"])


@shim
def test_windows() -> None:
    args = tuple(values(300, 8, seed=s) for s in range(4))

    def f(q: Any, k: Any, v: Any) -> Any:
        i, j = xlc.numpy.arange(300)[:, None], xlc.numpy.arange(300)
        return xlc.nn.softmax(np.where((j < i + 3) & (i - j <= 40), q @ k.T / np.sqrt(np.float32(8)), -np.inf)) @ v

    i, j = np.arange(300)[:, None], np.arange(300)
    check(f, args, formulas(*args, (j < i + 3) & (i - j <= 40)))


@shim
def test_what_follows_is_in_the_kernels() -> None:
    """Everything elementwise, also halves that are widened."""
    args = tuple(values(70, 16, seed=s) for s in range(4))
    e = compiled(xlc.value_and_grad(lambda q, k, v, w: np.sum(causal(q * 2, k, np.tanh(v)) * w), argnums=(0, 1, 2)), args)
    value, (dq, dk, dv) = e(*args)
    q, k, v, w = args
    expected = formulas(2 * q, k, np.tanh(v.astype("f8")), w, causal=True)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(dq, 2 * expected[1], rtol=2e-5, atol=2e-4)
    np.testing.assert_allclose(dk, expected[2], rtol=2e-5, atol=2e-4)
    np.testing.assert_allclose(dv, expected[3] * (1 - np.tanh(v.astype("f8")) ** 2), rtol=2e-5, atol=2e-4)


@shim
def test_named_sizes() -> None:
    f = xlc.jit(loss(causal), device="shim:random", dynamic={a: {1: "tokens"} for a in range(4)})
    for n in (1, 7, 64, 150):
        args = tuple(values(2, n, 8, seed=s) for s in range(4))
        value, gradients = f(*args)
        for g, x in zip(gradients, formulas(*args, causal=True)[1:], strict=True):
            np.testing.assert_allclose(g, x, rtol=2e-5, atol=2e-5)
    assert len(f.compile(*args).kernels) <= 7


@shim
def test_no_token() -> None:
    f = xlc.jit(loss(plain), device="shim")
    for q, k in ((0, 4), (4, 0), (0, 0)):
        args = values(2, q, 8), values(2, k, 8), values(2, k, 3), values(2, q, 3)
        value, gradients = f(*args)
        assert value == 0 and all(g.shape == a.shape and not np.any(g) for g, a in zip(gradients, args, strict=False))


@shim
def test_checkpoints() -> None:
    """What a checkpoint would compute again is computed again anyway."""
    args = tuple(values(70, 16, seed=s) for s in range(4))
    e = check(xlc.checkpoint(causal), args, formulas(*args, causal=True))
    assert largest(e) < 70 * 70


@shim
def test_mapped() -> None:
    """Of single examples under vmap: the masks of both passes are one, though they were made differently."""
    args = tuple(values(2, 70, 16, seed=s) for s in range(4))
    e = compiled(xlc.vmap(loss(causal)), args)
    assert len(e.kernels) == 6
    for g, x in zip(e(*args)[1], formulas(*args, causal=True)[1:], strict=True):
        np.testing.assert_allclose(g, x, rtol=2e-5, atol=2e-4)


@shim
def test_some_gradients() -> None:
    """Without the value the forward product is computed for the sake of maxima, sums, and the rows' sums of products."""
    args = tuple(values(2, 70, 16, seed=s) for s in range(4))
    for wrt, kernels in (((0,), 3), ((0, 2), 4), ((1, 2), 4)):
        e = compiled(xlc.grad(lambda q, k, v, w: np.sum(plain(q, k, v) * w), argnums=wrt), args)
        assert len(e.kernels) == kernels and largest(e) == 2 * 70 * 16
        for g, n in zip(e(*args), wrt, strict=True):
            np.testing.assert_allclose(g, formulas(*args)[n + 1], rtol=2e-5, atol=2e-4)


@shim
@pytest.mark.parametrize("case", ["same", "capped", "scaled"])
def test_what_else_lies_between(case: str) -> None:
    """One array as queries, keys and values; a bounded score; a traced scale. Against the CPU, in double precision."""
    def f(q: Any, k: Any, v: Any, w: Any, c: Any) -> Any:
        if case == "same":
            return np.sum(xlc.nn.attention(q, q, q, causal=True) * w)
        s = q @ np.swapaxes(k, -1, -2)
        return np.sum(xlc.nn.softmax(np.tanh(s * 0.1) * 5 if case == "capped" else s * c) @ v * w)

    args = (*(values(2, 70, 16, seed=s) for s in range(4)), np.float32(0.2))
    g = xlc.value_and_grad(f, argnums=(0,) if case == "same" else (0, 1, 2))
    e = compiled(g, args)
    assert largest(e) == 2 * 70 * 16
    for a, b in zip(tree.leaves(e(*args)), tree.leaves(xlc.jit(g)(*(x.astype("f8") for x in args))), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4)


# ------------------------------------------------------------------------------------------------ when it is not done


@shim
def test_a_gradient_that_is_as_large() -> None:
    """That of an additive mask: what lies between is stored, as it is a result."""
    q, k, v, w = (values(70, 16, seed=s) for s in range(4))
    mask = values(70, 70, seed=5)
    f = xlc.value_and_grad(lambda q, m: np.sum(xlc.nn.attention(q, k, v, mask=m) * w), argnums=(0, 1))
    e = xlc.jit(f, device="shim:random").compile(q, mask)
    assert "f32[70,70] is stored: multiply f32[70,70] is a result" in e.explain()
    _, (dq, dm) = e(q, mask)
    np.testing.assert_allclose(dq, formulas(q, k, v, w, mask)[1], rtol=2e-5, atol=2e-5)
    step = values(70, 70, seed=6).astype("f8")
    ends = [formulas(q, k, v, w, mask + s * 1e-5 * step)[0] for s in (1, -1)]
    np.testing.assert_allclose(np.sum(np.asarray(dm) * step), (ends[0] - ends[1]) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("knobs", [{"strict": True}, {"fuse_tiles": False}, {"skip": "recompute"}], ids=str)
@shim
def test_switched_off(knobs: dict[str, Any]) -> None:
    args = tuple(values(70, 16, seed=s) for s in range(4))
    with xlc.config.context(**knobs):
        e = xlc.jit(loss(causal), device="shim:random").compile(*args)
        assert largest(e) == 70 * 70
        for g, x in zip(e(*args)[1], formulas(*args, causal=True)[1:], strict=True):
            np.testing.assert_allclose(g, x, rtol=2e-5, atol=2e-5)


def test_too_wide() -> None:
    wide = xlc.spec((300, 200))
    e = xlc.jit(loss(plain), device="cuda:sm_80").compile(wide, wide, wide, wide)
    assert "f32[300,300] is stored: heads of 200 and 200 elements: up to 256 and 128 fit" in e.explain()


# ------------------------------------------------------------------------------------------------ what is compiled


@pytest.mark.parametrize(("dtype", "arena", "before"), [("f4", 4390912, 268435456), (BF16, 2293760, 134217728)], ids=str)
def test_kernels_and_memory(dtype: Any, arena: int, before: int) -> None:
    """Loss and gradients of causal attention over 1024 tokens in 16 heads: attention with its maxima and sums, the sum of the loss (2), the
    rows' sums of products, a kernel for each gradient."""
    spec = xlc.spec((2, 8, 1024, 64), dtype)
    e = compiled(loss(causal), (spec,) * 4, "cuda:sm_90")
    assert len(e.kernels) == 7 and e.plan.arena == arena and largest(e) == 16 * 1024 * 64
    assert [len(g.stages) for g in e.after("fuse").groups] == [3, 1, 1, 1, 3, 3, 2]
    with xlc.config.context(skip="recompute"):
        old = xlc.jit(loss(causal), device="cuda:sm_90").compile(*(spec,) * 4)
    assert len(old.kernels) == 10 and old.plan.arena == before


def test_blocks_that_a_mask_excludes() -> None:
    """For the gradients of keys and values these are the queries in front of them."""
    spec = xlc.spec((1, 1024, 64), BF16)
    e = compiled(loss(causal), (spec,) * 4, "cuda:sm_90")
    chains = [list(rounds(k)) for g, k in zip(e.after("fuse").groups, e.kernels, strict=True) if g.kind == "contraction"]
    assert chains[1:] == [list(range(32, 0, -4))] * 3 and sum(chains[0]) < 8 * 16 * 3 / 4
    e = compiled(loss(plain), (spec,) * 4, "cuda:sm_90")
    chains = [list(rounds(k)) for g, k in zip(e.after("fuse").groups, e.kernels, strict=True) if g.kind == "contraction"]
    assert chains[1:] == [[32] * 8] * 3


def test_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels mean, every access checked; with small blocks, as the interpreter takes one thread after another."""
    monkeypatch.setattr(chain, "SIZES", ((16, 2),))
    monkeypatch.setattr(online, "KEYS", 16)
    args = tuple(values(18, 4, seed=s, dtype="f2") for s in range(4))
    with xlc.config.context(cache_dir=""):
        e = compiled(xlc.grad(lambda q, k, v, w: np.sum((causal(q, k, v) * w).astype("f4"))), args, "cuda:sm_80")
    (found,) = interpret_plan(e.plan, args)
    np.testing.assert_allclose(found, formulas(*args, causal=True)[1], rtol=TOLERANCE["f2"], atol=TOLERANCE["f2"])


@chips
@pytest.mark.parametrize(("arch", "dtype", "depth", "precision"), [
    ("sm_80", "f4", 64, "highest"), ("sm_90", "f4", 128, "highest"), ("sm_90", BF16, 64, "highest"), ("sm_80", BF16, 128, "highest"),
    ("sm_80", "f2", 96, "highest")], ids=str)
def test_resources(arch: str, dtype: Any, depth: int, precision: str) -> None:
    spec = xlc.spec((16, 4096, depth), dtype)
    with xlc.config.context(matmul_precision=precision):
        e = compiled(loss(causal), (spec,) * 4, f"cuda:{arch}")
        assert largest(e) == 16 * 4096 * depth
        assert all(not r.local and r.registers <= 255 for r in e.asm["module"]["resources"].values())


@shim
def test_gpt() -> None:
    """The network of ``test_cuda_networks``: no kernel writes tokens x tokens elements of a head; gradients are the CPU's."""
    net = network("gpt")
    params, state = net.init(xlc.random.key(0))
    args = (params, state, xlc.random.key(1), *net.batch(np.random.default_rng(0)))
    f = xlc.value_and_grad(net.loss, has_aux=True)
    e = xlc.jit(f, device="shim:random").compile(*args)
    groups = e.after("fuse").groups
    assert sorted(len(g.stages) for g in groups if g.tiling) == [2, 2, 3, 3, 3, 3, 3, 3]
    assert not any(r.shape[-2:] == (16, 16) for g in groups for r in g.results)
    for a, b in zip(tree.leaves(e(*args)), tree.leaves(xlc.jit(f)(*args)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_the_formulas() -> None:
    """The other tests' measure, against finite differences."""
    args = tuple(values(2, 9, 4, seed=s).astype("f8") for s in range(4))
    kept = (values(2, 9, 9, seed=5) > -0.5) / 0.7
    _, *gradients = formulas(*args, causal=True, kept=kept)
    for n, g in enumerate(gradients):
        step = values(2, 9, 4, seed=9).astype("f8")
        ends = [formulas(*(a + (t * 1e-5 * step if m == n else 0) for m, a in enumerate(args)), causal=True, kept=kept)[0] for t in (1, -1)]
        np.testing.assert_allclose(np.sum(g * step), (ends[0] - ends[1]) / 2e-5, rtol=1e-6)
