"""Attention on GPUs: one kernel with an online softmax. The CUDA text through the shim (threads in random order) against NumPy in double
precision; how many kernels and blocks there are; registers and shared memory, as NVRTC tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cuda_backend
import ml_dtypes
import numpy as np
import pytest

import xlc
import xlc.nn
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.schedule import online
from xlc.ir.interp import interpret_plan
from xlc.ir.loops import Kernel, Let, Loop, Mma, const, statements, substitute, var
from xlc.ir.verify import verify_kernel

cuda_backend.install()
shim = pytest.mark.skipif(bool(cuda_backend.MISSING), reason=str(cuda_backend.MISSING))
chips = pytest.mark.skipif(not nvrtc.available(), reason="needs NVRTC")
BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {"f4": 4e-6, "f2": 4e-3, BF16: 3e-2}


def values(*shape: int, seed: int = 0, dtype: Any = "f4") -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype("f4").astype(dtype)


def probabilities(q: np.ndarray, k: np.ndarray, mask: np.ndarray | None = None, causal: bool = False) -> np.ndarray:
    """In float64, as it is written in the paper (arXiv:1706.03762)."""
    s = q.astype("f8") @ np.swapaxes(k.astype("f8"), -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype("f8")
    if causal:
        s = np.where(np.arange(s.shape[-1]) <= np.arange(s.shape[-2])[:, None], s, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, causal: bool = False) -> np.ndarray:
    return probabilities(q, k, mask, causal) @ v.astype("f8")


def check(f: Callable[..., Any], args: tuple[np.ndarray, ...], expected: np.ndarray, tolerance: float = 4e-6, device: str = "shim:random",
          **options: Any) -> Any:
    """One kernel, nothing in memory, values. (Not all addresses are proved: see ``test_interpreted``.)"""
    e = xlc.jit(f, device=device, **options).compile(*args)
    assert len(e.kernels) == 1 and e.plan.arena == 0, e.after("fuse")
    assert all("may touch" in u or "may reach" in u or "bitwise_xor(tx" in u for u in verify_kernel(e.kernels[0]))
    got = np.asarray(e(*args))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.astype("f8"), expected, rtol=tolerance, atol=tolerance)
    return e


def plain(q: Any, k: Any, v: Any) -> Any:
    return xlc.nn.attention(q, k, v)


def causal(q: Any, k: Any, v: Any) -> Any:
    return xlc.nn.attention(q, k, v, causal=True)


# ------------------------------------------------------------------------------------------------ shapes and dtypes

SHAPES = [((3,), 61, 61, 16, 16), ((), 97, 130, 8, 8), ((2, 2), 130, 65, 5, 7), ((1,), 1, 2, 1, 1), ((5,), 1, 200, 7, 3),
          ((), 130, 200, 100, 128)]


@shim
@pytest.mark.parametrize("mask", [plain, causal])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[Any, ...], mask: Any) -> None:
    """Batch, queries, keys, elements of a key and of a value."""
    batch, queries, keys, depth, width = shape
    args = values(*batch, queries, depth), values(*batch, keys, depth, seed=1), values(*batch, keys, width, seed=2)
    check(mask, args, attention(*args, causal=mask is causal))


@shim
@pytest.mark.parametrize("dtype", ["f2", BF16], ids=str)
@pytest.mark.parametrize("sizes", [(150, 70, 64, 64), (20, 130, 24, 40), (33, 66, 3, 5)], ids=str)
def test_halves_use_tensor_cores(sizes: tuple[int, ...], dtype: Any) -> None:
    queries, keys, depth, width = sizes
    args = values(2, queries, depth, dtype=dtype), values(2, keys, depth, seed=1, dtype=dtype), values(2, keys, width, seed=2, dtype=dtype)
    e = check(causal, args, attention(*args, causal=True), TOLERANCE[dtype])
    assert sum(isinstance(s, Mma) for s in statements(e.kernels[0].body)) == 2


@shim
@pytest.mark.parametrize(("precision", "tolerance"), [("high", 1e-5), ("default", 1e-2)])
def test_tf32(precision: str, tolerance: float) -> None:
    args = values(70, 32), values(70, 32, seed=1), values(70, 32, seed=2)
    with xlc.config.context(matmul_precision=precision):
        e = check(plain, args, attention(*args), tolerance)
    assert any(isinstance(s, Mma) for s in statements(e.kernels[0].body))


@shim
def test_softmax_in_f32_between_halves() -> None:
    q, k, v = (values(60, 16, seed=s, dtype="f2") for s in range(3))

    def f(q: Any, k: Any, v: Any) -> Any:
        s = (q @ k.T).astype("f4") * 0.25
        return xlc.nn.softmax(s).astype("f2") @ v

    check(f, (q, k, v), attention(q, k, v), TOLERANCE["f2"])


@shim
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_the_order_of_threads_does_not_matter(order: str) -> None:
    args = tuple(values(140, 32, seed=s) for s in range(3))
    got = [np.asarray(xlc.jit(causal, device=f"shim:{o}")(*args)) for o in (order, "random")]
    np.testing.assert_array_equal(*got)


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_interpreted(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel means, every access checked; with small blocks, as the interpreter takes one thread after another."""
    monkeypatch.setattr(online, "KEYS", 16)
    if dtype == "f4":  # of the other, each of 8 warps has 16 rows
        monkeypatch.setattr(online, "ROWS", 32)
    args = tuple(values(21 if dtype == "f4" else 18, 4, seed=s, dtype=dtype) for s in range(3))
    with xlc.config.context(cache_dir=""):
        e = xlc.jit(causal, device="cuda:sm_80").compile(*args)
    assert list(rounds(e.kernels[0])) == [2]
    np.testing.assert_allclose(interpret_plan(e.plan, args)[0], attention(*args, causal=True), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


# ------------------------------------------------------------------------------------------------ what stands between the contractions


@shim
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks(kind: str) -> None:
    q, k, v = values(2, 3, 70, 8), values(2, 3, 90, 8, seed=1), values(2, 3, 90, 12, seed=2)
    mask = values(2, 3, 70, 90, seed=3)
    mask = mask > 0.5 if kind == "bool" else mask
    check(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), (q, k, v, mask), attention(q, k, v, mask))


@shim
def test_rows_without_a_key() -> None:
    """nan, as without fusion; rows whose first blocks are masked are like others."""
    q, k, v = values(140, 8), values(140, 8, seed=1), values(140, 8, seed=2)
    mask = np.arange(140) >= np.arange(140)[:, None] + 30
    got = check(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), (q, k, v, mask), attention(q, k, v, mask))
    assert np.isnan(np.asarray(got(q, k, v, mask))[110:]).all()
    with xlc.config.context(fuse_tiles=False):
        old = xlc.jit(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), device="shim")(q, k, v, mask)
    np.testing.assert_array_equal(np.isnan(old), np.isnan(got(q, k, v, mask)))


@shim
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_values_that_are_not_finite(value: float) -> None:
    q, k, v = values(5, 8), values(100, 8, seed=1), values(100, 8, seed=2)
    q[3, 2] = value
    check(plain, (q, k, v), np.asarray(xlc.jit(plain)(q, k, v), "f8"))


@shim
def test_multiplied_probabilities() -> None:
    """As dropout does it, and otherwise."""
    q, k, v, keep = values(70, 16), values(80, 16, seed=1), values(80, 16, seed=2), values(70, 80, seed=3) > -0.5

    def f(q: Any, k: Any, v: Any, keep: Any) -> Any:
        return np.where(keep, xlc.nn.softmax(q @ k.T * 0.25) / 0.7, 0) * 2 @ v

    check(f, (q, k, v, keep), np.where(keep, probabilities(q, k) / 0.7, 0) * 2 @ v.astype("f8"))


@shim
def test_what_follows_is_in_the_kernel() -> None:
    args = tuple(values(2, 3, 70, 16, seed=s) for s in range(3))
    check(lambda q, k, v: np.tanh(plain(q, k, v)) + q, args, np.tanh(attention(*args)) + args[0].astype("f8"))


@shim
def test_heads_that_share_keys() -> None:
    """Grouped queries: k and v are broadcast, and read where they lie."""
    q, k, v = values(2, 2, 3, 70, 16), values(2, 2, 90, 16, seed=1), values(2, 2, 90, 16, seed=2)

    def f(q: Any, k: Any, v: Any) -> Any:
        k, v = (np.broadcast_to(x[:, :, None], (2, 2, 3, 90, 16)) for x in (k, v))
        return xlc.nn.attention(q, k, v)

    check(f, (q, k, v), attention(q, k[:, :, None], v[:, :, None]))


@shim
def test_one_query_of_many_heads_that_share_keys() -> None:
    """The queries of all heads are the rows of one block."""
    q, k, v = values(2, 24, 1, 16), values(2, 90, 16, seed=1), values(2, 90, 16, seed=2)

    def f(q: Any, k: Any, v: Any) -> Any:
        return xlc.nn.attention(q, *(np.broadcast_to(x[:, None], (2, 24, 90, 16)) for x in (k, v)))

    e = check(f, (q, k, v), attention(q, k[:, None], v[:, None]))
    assert blocks(e.kernels[0]) == 2


@shim
def test_heads_beside_tokens() -> None:
    """(batch, tokens, heads, depth), as a projection gives it: transposed where it is read."""
    q, k, v = (values(2, 70, 3, 16, seed=s) for s in range(3))
    args = tuple(x.transpose(0, 2, 1, 3) for x in (q, k, v))
    check(lambda q, k, v: causal(*(x.transpose(0, 2, 1, 3) for x in (q, k, v))), (q, k, v), attention(*args, causal=True))


@shim
def test_operands_that_are_computed() -> None:
    """Transposed operands, and some that are no plain copies, go through registers."""
    q, k, v = values(16, 70), values(16, 90, seed=1), values(12, 90, seed=2)
    check(lambda q, k, v: plain(q.T, k.T, v.T), (q, k, v), attention(q.T, k.T, v.T))
    check(lambda q, k, v: plain(q.T, k.T[::-1], v.T[::-1, ::-1]), (q, k, v), attention(q.T, k.T, v.T[:, ::-1]))


@shim
def test_named_sizes() -> None:
    f = xlc.jit(causal, device="shim:random", dynamic={a: {1: "tokens"} for a in range(3)})
    for n in (1, 7, 64, 150):
        q, k, v = (values(2, n, 8, seed=s) for s in range(3))
        np.testing.assert_allclose(f(q, k, v), attention(q, k, v, causal=True), rtol=4e-6, atol=4e-6)
    assert len(f.compile(q, k, v).kernels) == 1
    g = xlc.jit(plain, device="shim:random", dynamic={1: {0: "keys"}, 2: {0: "keys"}})
    for n in (0, 3, 130):
        q, k, v = values(5, 8), values(n, 8, seed=1), values(n, 8, seed=2)
        np.testing.assert_allclose(g(q, k, v), attention(q, k, v) if n else np.zeros((5, 8)), rtol=4e-6, atol=4e-6)


@shim
def test_no_key_and_one_key() -> None:
    f = xlc.jit(plain, device="shim")
    assert f(values(0, 4, 8), values(0, 4, 8), values(0, 4, 8)).shape == (0, 4, 8)
    assert f(values(2, 0, 8), values(2, 5, 8), values(2, 5, 3)).shape == (2, 0, 3)
    np.testing.assert_array_equal(f(values(2, 3, 8), values(2, 0, 8), values(2, 0, 3)), np.zeros((2, 3, 3)))
    one = values(2, 1, 3, seed=2)  # a single key: nothing is left of the softmax's reductions
    np.testing.assert_allclose(f(values(2, 3, 8), values(2, 1, 8), one), np.broadcast_to(one, (2, 3, 3)), rtol=1e-6)


# ------------------------------------------------------------------------------------------------ blocks of keys that a mask excludes


def blocks(kernel: Kernel) -> int:
    return len(list(rounds(kernel)))


def rounds(kernel: Kernel) -> Iterator[int]:
    """How many blocks of keys each block of rows goes through."""
    (grid,) = kernel.body
    assert isinstance(grid, Loop)
    for b in range(grid.stop.value):
        known = {var(grid.var): const(b)}
        for s in grid.body:
            if isinstance(s, Let):
                known[var(s.name)] = substitute(s.value, known)
            if isinstance(s, Loop) and s.var == "kt":
                yield max(substitute(s.stop, known).value - substitute(s.start, known).value, 0)


def compiled(f: Any, *args: Any) -> Kernel:
    (kernel,) = xlc.jit(f, device="cuda:sm_90").compile(*args).kernels
    return kernel


def test_causal_masks_leave_out_half_of_the_blocks() -> None:
    spec = xlc.spec((2, 1024, 64))
    assert sum(rounds(compiled(plain, spec, spec, spec))) == 2 * 8 * 16
    assert list(rounds(compiled(causal, spec, spec, spec))) == [*range(16, 0, -2)] * 2  # the longest come first


def test_windows_leave_out_what_lies_before_them() -> None:
    def f(q: Any, k: Any, v: Any) -> Any:
        i, j = xlc.numpy.arange(1024)[:, None], xlc.numpy.arange(1024)
        s = np.where((j <= i) & (j > i - 100), q @ k.T / 8, -np.inf)
        return xlc.nn.softmax(s) @ v

    found = list(rounds(compiled(f, *[xlc.spec((1024, 64))] * 3)))
    assert len(found) == 8 and max(found) == 4 and sum(found) == 2 + 7 * 4


@shim
def test_windows() -> None:
    q, k, v = values(300, 8), values(300, 8, seed=1), values(300, 8, seed=2)

    def f(q: Any, k: Any, v: Any) -> Any:
        i, j = xlc.numpy.arange(300)[:, None], xlc.numpy.arange(300)
        return xlc.nn.softmax(np.where((j < i + 3) & (i - j <= 40), q @ k.T / np.sqrt(np.float32(8)), -np.inf)) @ v

    i, j = np.arange(300)[:, None], np.arange(300)
    check(f, (q, k, v), attention(q, k, v, (j < i + 3) & (i - j <= 40)))


# ------------------------------------------------------------------------------------------------ when it is not done


@pytest.mark.parametrize("knobs", [{"strict": True}, {"fuse_tiles": False}], ids=str)
@shim
def test_switched_off(knobs: dict[str, bool]) -> None:
    args = tuple(values(70, 16, seed=s) for s in range(3))
    with xlc.config.context(**knobs):
        e = xlc.jit(causal, device="shim:random").compile(*args)
        assert len(e.kernels) == 3
        if "strict" in knobs:
            np.testing.assert_array_equal(e(*args), xlc.jit(causal, device="shim", fuse=False)(*args))
    np.testing.assert_allclose(e(*args), attention(*args, causal=True), rtol=4e-6, atol=4e-6)


def test_what_is_no_softmax_is_not_fused_so() -> None:
    x, w1, w2 = xlc.spec((130, 20)), xlc.spec((20, 33)), xlc.spec((33, 7))

    def norm(x: Any, w1: Any, w2: Any) -> Any:
        h = x @ w1
        return (h / np.sum(np.exp(h), -1, keepdims=True)) @ w2

    for f, why in ((lambda x, w1, w2: np.maximum(x @ w1, 0) @ w2, "only where they are a contraction, a softmax"), (norm, "no softmax")):
        e = xlc.jit(f, device="cuda:sm_80").compile(x, w1, w2)
        assert len(e.kernels) > 1 and why in str(e.after("fuse"))
    wide = xlc.spec((300, 200))
    assert "up to 256 and 128 fit" in str(xlc.jit(plain, device="cuda:sm_80").compile(wide, wide, wide).after("fuse"))


@shim
def test_gradients_with_a_checkpoint() -> None:
    """The forward pass is one kernel; the backward pass computes the probabilities again. Against differences in float64."""
    args, w = tuple(values(20, 4, seed=s) for s in range(3)), values(20, 4, seed=3)
    f = xlc.value_and_grad(lambda q, k, v: np.sum(xlc.checkpoint(causal)(q, k, v) * w), argnums=(0, 1, 2))
    e = xlc.jit(f, device="shim:random").compile(*args)
    assert [k.note.startswith("dot+") and "max" in k.note for k in e.kernels].count(True) == 1
    value, gradients = e(*args)

    def loss(*args: np.ndarray) -> float:
        return float(np.sum(attention(*args, causal=True) * w))

    np.testing.assert_allclose(value, loss(*args), rtol=1e-5)
    for n, g in enumerate(gradients):
        step = values(20, 4, seed=9).astype("f8")
        at = [[a.astype("f8") + (s * 1e-5 * step if n == m else 0) for m, a in enumerate(args)] for s in (1, -1)]
        np.testing.assert_allclose(np.sum(np.asarray(g) * step), (loss(*at[0]) - loss(*at[1])) / 2e-5, rtol=2e-4)


# ------------------------------------------------------------------------------------------------ what chips make of it


@chips
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("dtype", "depth"), [("f4", 64), ("f4", 128), (BF16, 64), (BF16, 128), ("f2", 96)], ids=str)
def test_resources(dtype: Any, depth: int, arch: str) -> None:
    spec = xlc.spec((16, 4096, depth), dtype)
    e = xlc.jit(causal, device=f"cuda:{arch}").compile(spec, spec, spec)
    found = e.asm["module"]["resources"]["l0"]
    assert not found.local and found.registers <= 255
    assert "4096,4096]" not in "\n".join(str(e.plan).splitlines()) and e.plan.arena == 0
