"""Cumulative operators, sorting and scatter on a GPU: against NumPy, in any order of threads; no local memory."""

from __future__ import annotations

from typing import Any

import cuda_backend
import numpy as np
import pytest
from cuda_kernels import Program, checked

import xlc.numpy as xp
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.emit import emit_kernel
from xlc.backends.cuda.schedule import sort
from xlc.frontend.array import wrap
from xlc.ir.op import lookup

pytestmark = pytest.mark.skipif(bool(cuda_backend.MISSING), reason=str(cuda_backend.MISSING))
CHIPS = ("sm_80", "sm_90") if nvrtc.available() else ()


def integers(*shape: int, dtype: str = "f4", low: int = -5, high: int = 6) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(dtype)


# ------------------------------------------------------------------------------------------------ cumulative operators

@pytest.mark.parametrize("n", [1, 2, 31, 33, 257, 1000, 4097])
def test_cumulative_sum_of_rows(n: int) -> None:
    x = integers(3, n)
    np.testing.assert_array_equal(checked(lambda x: np.cumsum(x, 1), x, interpret=n == 33), np.cumsum(x, 1))


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u2", "f2", "f8"])
def test_cumulative_sum_of_other_dtypes(dtype: str) -> None:
    x = integers(5, 100, dtype=dtype, low=0)
    np.testing.assert_array_equal(checked(lambda x: np.cumsum(x, 1, dtype=x.dtype), x, interpret=False), np.cumsum(x, 1, dtype=dtype))


@pytest.mark.parametrize("shape, axis", [((70, 30), 0), ((600, 5), 0), ((3, 40, 7), 1), ((0, 4), 0), ((9, 1), 1)])
def test_cumulative_operators_along_axes(shape: tuple[int, ...], axis: int) -> None:
    x = integers(*shape)
    np.testing.assert_array_equal(checked(lambda x: np.cumsum(x, axis), x, interpret=False), np.cumsum(x, axis))
    got = checked(lambda x: np.maximum.accumulate(x, axis), x, interpret=False)
    np.testing.assert_array_equal(got, np.maximum.accumulate(x, axis))

    def backwards(x: np.ndarray) -> np.ndarray:
        return np.flip(np.cumprod(np.flip(np.sign(x), axis), axis), axis)

    np.testing.assert_array_equal(checked(backwards, x, interpret=False), backwards(x))


def test_cumulative_sum_of_named_sizes_needs_no_local_memory() -> None:
    x = integers(3, 4500)
    got = checked(lambda x: np.cumsum(x, 1), x, interpret=False, chips=CHIPS, dynamic={"x": {0: "n", 1: "m"}})
    np.testing.assert_array_equal(got, np.cumsum(x, 1))


def test_nan_and_infinity() -> None:
    x = np.array([[1, np.inf, 2, -np.inf, 3], [1, 2, np.nan, 3, 4]], "f4")
    np.testing.assert_array_equal(checked(lambda x: np.cumsum(x, 1), x), np.cumsum(x, 1))
    np.testing.assert_array_equal(checked(lambda x: np.maximum.accumulate(x, 1), x, interpret=False), np.maximum.accumulate(x, 1))


# ------------------------------------------------------------------------------------------------ sorting

@pytest.mark.parametrize("n", [1, 2, 7, 32, 33, 255, 1000])
def test_sort_and_argsort(n: int) -> None:
    x = integers(3, n)
    np.testing.assert_array_equal(checked(lambda x: np.sort(x, 1), x, interpret=n == 7), np.sort(x, 1))
    got = checked(lambda x: np.argsort(x, 1, kind="stable"), x, interpret=n == 7)
    np.testing.assert_array_equal(got, np.argsort(x, 1, kind="stable"))


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", "f2", "f8"])
def test_sort_of_other_dtypes_and_axes(dtype: str) -> None:
    x = integers(150, 3, dtype=dtype, low=0, high=100)
    np.testing.assert_array_equal(checked(lambda x: np.sort(x, 0), x, interpret=False), np.sort(x, 0))


def test_nan_sorts_last_and_descending_order_is_stable() -> None:
    x = np.array([3, np.nan, -np.inf, 3, np.inf, -0.0, 0.0, np.nan, 1], "f4")
    np.testing.assert_array_equal(checked(lambda x: np.argsort(x, kind="stable"), x), np.argsort(x, kind="stable"))
    got = checked(lambda x: wrap(lookup("argsort")(x.node, axis=0, descending=True)), x)
    np.testing.assert_array_equal(got, [4, 0, 3, 8, 5, 6, 2, 1, 7])


@pytest.mark.parametrize("n", [64, 65, 130, 500])
def test_rows_longer_than_a_tile_are_merged_in_memory(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "TILE", 64)
    x = integers(2, n)
    np.testing.assert_array_equal(checked(lambda x: np.sort(x, 1), x, interpret=False), np.sort(x, 1))
    got = checked(lambda x: np.argsort(x, 1, kind="stable"), x, interpret=False)
    np.testing.assert_array_equal(got, np.argsort(x, 1, kind="stable"))


@pytest.mark.parametrize("n", [1, 5000, 9000])
def test_rows_of_named_size(n: int) -> None:
    x = integers(n, low=-999, high=999)
    got = checked(lambda x: np.argsort(x, kind="stable"), x, interpret=False, dynamic={"x": {0: "n"}}, chips=CHIPS if n == 1 else ())
    np.testing.assert_array_equal(got, np.argsort(x, kind="stable"))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sorting_long_rows_needs_no_local_memory(dtype: str, chip: str) -> None:
    used = Program(lambda x: np.argsort(x, kind="stable"), np.zeros(100000, dtype)).resources(chip)
    assert not any(u.stack or u.spill_stores for u in used.values()), used


# ------------------------------------------------------------------------------------------------ scatter

OPS: dict[str, Any] = {"set": lambda a, b: b, "add": np.add, "multiply": np.multiply, "max": np.maximum, "min": np.minimum}


def scattered(x: np.ndarray, u: np.ndarray, ids: np.ndarray, mode: str) -> np.ndarray:
    out = x.copy()
    for n, i in enumerate(ids):
        if -len(x) <= i < len(x):
            out[i] = OPS[mode](out[i], u[n])
    return out


@pytest.mark.parametrize("mode", OPS)
@pytest.mark.parametrize("rows, columns, count", [(10, (5,), 7), (40, (), 700), (30, (300,), 20), (5, (2, 3), 0), (700, (), 300)])
def test_scatter(mode: str, rows: int, columns: tuple[int, ...], count: int) -> None:
    """Equal ids meet in their order; ids out of bounds are left out. (Fractions: another order of a sum is another number.)"""
    draw = np.random.default_rng(count)
    x, u = draw.random((rows, *columns)).astype("f4"), draw.random((count, *columns)).astype("f4")
    ids = draw.integers(-rows, rows + 2, count)
    got = checked(lambda x, u, i: getattr(xp.at(x, i), mode)(u), x, u, ids, interpret=mode == "add" and count == 7)
    np.testing.assert_array_equal(got, scattered(x, u, ids, mode))


def test_scatter_by_several_ids_and_behind_other_axes() -> None:
    draw = np.random.default_rng(0)
    x, u = integers(6, 7, 5), integers(40, 5)
    i, j = draw.integers(0, 6, 40), draw.integers(0, 7, 40).astype("i4")
    want = x.copy()
    np.add.at(want, (i, j), u)
    np.testing.assert_array_equal(checked(lambda x, u, i, j: xp.at(x, (i, j)).add(u), x, u, i, j, interpret=False), want)
    y, v = integers(4, 9, 3, dtype="i2"), integers(4, 20, 3, dtype="i2")
    k = draw.integers(0, 9, 20)
    want = y.copy()
    np.add.at(want, np.s_[:, k], v)
    np.testing.assert_array_equal(checked(lambda y, v, k: xp.at(y, np.s_[:, k]).add(v), y, v, k, interpret=False), want)


def test_scatter_of_named_sizes_needs_no_local_memory() -> None:
    x, u, ids = integers(10, 5), integers(2000, 5), np.random.default_rng(0).integers(0, 10, 2000)
    got = checked(lambda x, u, i: xp.at(x, i).add(u), x, u, ids, interpret=False, chips=CHIPS,
                  dynamic={"x": {0: "n", 1: "m"}, "u": {0: "k", 1: "m"}, "i": {0: "k"}})
    want = x.copy()
    np.add.at(want, ids, u)
    np.testing.assert_array_equal(got, want)


def test_scatter_onto_its_operand_copies_nothing() -> None:
    program = Program(lambda x, u, i: xp.at(x, i).add(u), integers(10, 5), integers(7, 5), np.zeros(7, "i8"))
    kernel = next(k for k in program.kernels if len(k.inputs) == 3)
    assert kernel.inplace == ((0, 0),)
    out, x = kernel.outputs[0].name, kernel.inputs[0].name
    assert f"if ((const void*){out} != (const void*){x}) {out}[" in str(emit_kernel(kernel, aliased=frozenset({0, 3})))


def test_one_scatter_after_another_works_in_place() -> None:
    x, u, ids = integers(10, 5), integers(40, 5), np.random.default_rng(0).integers(0, 10, 40)
    got = checked(lambda x, u, i: xp.at(xp.at(x, i).add(u), i).max(u) * 2, x, u, ids, interpret=False)
    np.testing.assert_array_equal(got, scattered(scattered(x, u, ids, "add"), u, ids, "max") * 2)
