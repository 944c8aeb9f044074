"""Gradients of attention on GPUs without a matrix of tokens x tokens: the CUDA text through the shim (threads in random order) against
formulas in double precision and finite differences; kernels, buffers and the arena of the plan; registers and shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cuda_backend
import ml_dtypes
import numpy as np
import pytest

import xlc
import xlc.nn
from xlc.backends.cuda import nvrtc
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
    ds = p * (dp - np.sum(p * dp, -1, keepdims=True)) * scale
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


def check(attention: Any, args: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], tolerance: float = 2e-5, rest: tuple[Any, ...] = (),
          ) -> Any:
    e = compiled(loss(attention), (*args, *rest))
    for k in e.kernels:
        assert all("may touch" in u or "may reach" in u or "bitwise_xor(tx" in u for u in verify_kernel(k))
    value, gradients = e(*args, *rest)
    np.testing.assert_allclose(value, expected[0], rtol=tolerance, atol=tolerance * np.sqrt(args[3].size))
    for g, x, name in zip(gradients, expected[1:], "qkv", strict=True):
        np.testing.assert_allclose(np.asarray(g).astype("f8"), x, rtol=tolerance, atol=tolerance * max(np.nanmax(np.abs(x), initial=0), 1), err_msg=name)
    again = e(*args, *rest)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(gradients, again[1], strict=True))
    return e


SHAPES = [((3,), 61, 61, 16, 16), ((), 97, 130, 8, 8), ((2, 2), 130, 65, 5, 7), ((1,), 3, 2, 2, 2), ((5,), 2, 200, 7, 3), ((), 70, 150, 100, 128)]


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
@pytest.mark.parametrize("sizes", [(150, 70, 64, 64), (20, 130, 24, 40), (33, 66, 3, 5)], ids=str)
def test_halves(sizes: tuple[int, ...], dtype: Any) -> None:
    queries, keys, depth, width = sizes
    args = tuple(values(2, n, d, seed=s, dtype=dtype) for s, (n, d) in enumerate(
        ((queries, depth), (keys, depth), (keys, width), (queries, width))))
    check(causal, args, formulas(*args, causal=True), TOLERANCE[dtype])
