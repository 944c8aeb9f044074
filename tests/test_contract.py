"""The blocking of large products: pieces of the contracted dimension, blocks of rows beside each other on the stack."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import xlc
import xlc.nn
from xlc.ir.verify import verify_kernel


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("m", "k", "n", "side_by_side"), [(96, 2048, 96, True), (130, 2048, 100, True), (84, 1040, 96, False)])
def test_rows_that_collide_in_the_cache_are_copied(m: int, k: int, n: int, side_by_side: bool, dtype: str) -> None:
    rng = np.random.default_rng(k)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,)))
    f = xlc.jit(lambda x: np.maximum(x @ w + b, 0))
    kernel = f.compile(x).kernels[-1]
    # tiles of two heights are too much for the proof of races; they are as they were before rows were copied
    assert all("may touch the same element" in message for message in verify_kernel(kernel))
    assert ("local rows" in kernel.loops) == side_by_side and "serial kb in" in kernel.loops
    expected = np.maximum(x.astype("f8") @ w + b, 0)
    assert np.allclose(f(x), expected, rtol=0, atol=(1e-6 if dtype == "f4" else 1e-14) * k)


def test_tiles_of_whole_short_rows_are_copied_too() -> None:
    """A tile of several rows of two pixels, 32 KiB apart, over a contracted dimension that is cut."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((1, 160, 4, 1024)).astype("f4"), rng.standard_normal((1, 1, 1024, 80)).astype("f4")
    f = xlc.jit(lambda x: xlc.nn.conv(x, w, stride=2))
    assert "local rows" in f.compile(x).kernels[-1].loops
    np.testing.assert_allclose(f(x), x[:, ::2, ::2].astype("f8") @ w[0, 0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("m", "n"), [(68, 128), (76, 128), (92, 192)])
def test_one_piece_is_no_piece(m: int, n: int) -> None:
    """Tiles so low that the whole contracted dimension of a block of rows fits the cache."""
    rng = np.random.default_rng(m)
    x, w = rng.standard_normal((m, 1024)).astype("f4"), rng.standard_normal((1024, n)).astype("f4")
    np.testing.assert_allclose(xlc.jit(lambda x: x @ w)(x), x.astype("f8") @ w, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16, "i1", "i2"])
def test_columns_that_are_left_over(dtype: str) -> None:
    """Panels of 48 columns are three halves of a register of 32 halves: all of them are stored, whatever is left for the last panel."""
    rng = np.random.default_rng(0)
    for n in (*range(33, 49, 3), *range(129, 145, 3), 191):
        x, w = (rng.integers(-3, 4, s).astype(dtype) for s in ((8, 9), (9, n)))
        np.testing.assert_array_equal(xlc.jit(lambda x, w: x @ w)(x, w).astype("f8"), x.astype("f8") @ w.astype("f8"))
