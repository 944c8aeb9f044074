"""Reductions on a GPU: the CUDA text, run on the CPU in several orders of threads, against NumPy in float64; what kernels look like; what
NVRTC makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cuda_backend
import numpy as np
import pytest
from cuda_backend import MISSING
from cuda_kernels import Program

import xlc
from xlc import nn
from xlc.ir.loops import LOAD, Buffer, Local, Loop, Stmt, expressions, statements, walk
from xlc.ir.types import DTYPES

cuda_backend.install()
runs = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
ORDERS = ("shim:random", "shim:descending")
RNG = np.random.default_rng(5)


def on_gpu(f: Any, *args: np.ndarray) -> list[np.ndarray]:
    """The results, which are the same in every order of threads."""
    first, second = ([np.asarray(y) for y in xlc.jit(f, device=d)(*args)] for d in ORDERS)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    return first


def close(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-6) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=tolerance, atol=tolerance)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


# ------------------------------------------------------------------------------------------------ along rows


@runs
@pytest.mark.parametrize(("rows", "n"), [
    (5, 1), (3, 31), (300, 32), (2, 33), (7, 255), (1, 256), (3, 257), (9, 1000), (2, 4097), (1, 65536)])
def test_rows(rows: int, n: int) -> None:
    x = RNG.standard_normal((rows, n)).astype("f4")
    x[0, n // 2:] = x[0, 0]  # ties

    def f(x: Any) -> Any:
        centred = x - np.mean(x, -1, keepdims=True)
        return (nn.softmax(x, -1), np.sum(np.exp(x) * 0.5, -1) + 1, np.argmax(x, -1), np.argmin(x * 2, -1),
                centred / np.sqrt(np.mean(centred * centred, -1, keepdims=True) + 0.125), np.max(x, -1), np.any(x > 3, -1))

    got = on_gpu(f, x)
    wide = x.astype(np.float64)
    close(got[0], softmax(x))
    close(got[1], np.exp(wide).sum(-1) * 0.5 + 1)
    np.testing.assert_array_equal(got[2], x.argmax(-1))
    np.testing.assert_array_equal(got[3], x.argmin(-1))
    centred = wide - wide.mean(-1, keepdims=True)
    close(got[4], centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 0.125), 2e-6)
    np.testing.assert_array_equal(got[5], x.max(-1))
    np.testing.assert_array_equal(got[6], (x > 3).any(-1))


@runs
@pytest.mark.parametrize("dtype", ["f2", "bf16", "f8", "i1", "i8", "u4"])
def test_types_of_long_rows_and_columns(dtype: str) -> None:
    """Several elements to an access, states of other widths than the elements, both ways."""
    d = DTYPES["bf16"].numpy if dtype == "bf16" else np.dtype(dtype)
    x = RNG.integers(-4 if dtype[0] != "u" else 0, 5, (6, 2504)).astype(d)
    narrow = dtype in ("f2", "bf16")

    def f(x: Any) -> Any:
        return [g(x, axis) for axis in (0, 1) for g in (np.sum, np.max, np.argmin)]

    for axis, got in zip((0, 1), np.split(np.array(on_gpu(f, x), object), 2), strict=True):
        total = x.astype(np.float64).sum(axis)
        assert got[0].dtype == xlc.jit(np.sum)(x).dtype
        close(got[0].astype(np.float64), total, 2e-2 if narrow else 0)
        np.testing.assert_array_equal(got[1].astype(np.float64), x.astype(np.float64).max(axis))
        np.testing.assert_array_equal(got[2], x.astype(np.float64).argmin(axis))


@runs
@pytest.mark.parametrize(("n", "dtype"), [(17003, "f4"), (65544, "f4"), (65544, "f2")])
def test_rows_that_registers_do_not_hold(n: int, dtype: str) -> None:
    """The rest of the row is kept in shared memory. (The number of rows is a symbol, so that they are not cut.)"""
    x = RNG.standard_normal((3, n)).astype(dtype)
    for d in ORDERS:
        got = np.asarray(xlc.jit(softmax_rows, device=d, dynamic={"x": {0: "b"}})(x))
        close(got, softmax(x.astype("f4")), 2e-6)
    p = Program(softmax_rows, xlc.spec(("b", n), dtype))
    (kernel,) = p.kernels
    first = next(s for s in kernel.body[0].body if isinstance(s, Loop))
    assert loads((first,), kernel.inputs[0]) == loads(kernel.body, kernel.inputs[0]) > 1  # into registers, and into memory


# ------------------------------------------------------------------------------------------------ columns and windows


@runs
@pytest.mark.parametrize("shape", [(1, 1), (33, 1), (31, 3), (4097, 5), (257, 33), (64, 1000), (9, 4100), (40, 3, 7)])
def test_columns(shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal(shape).astype("f4")

    def f(x: Any) -> Any:
        return nn.softmax(x, 0), np.sum(x * x, 0), np.argmax(x, 0), np.var(x, tuple(range(x.ndim - 1)))

    got = on_gpu(f, x)
    wide = x.astype(np.float64)
    close(got[0], softmax(x, 0))
    close(got[1], (wide * wide).sum(0))
    np.testing.assert_array_equal(got[2], x.argmax(0))
    close(got[3], wide.var(tuple(range(x.ndim - 1))))


@runs
def test_windows_and_axes_between() -> None:
    x = RNG.standard_normal((2, 9, 11, 8)).astype("f4")

    def f(x: Any) -> Any:
        turned = np.transpose(x, (3, 0, 2, 1))
        return nn.max_pool(x, 3, stride=2, padding="SAME"), np.sum(x, (0, 2)), np.sum(x, (1, 3)), np.max(turned, (1, 2))

    got = on_gpu(f, x)
    want = xlc.jit(f)(x)
    np.testing.assert_array_equal(got[0], want[0])
    wide = x.astype(np.float64)
    close(got[1], wide.sum((0, 2)))
    close(got[2], wide.sum((1, 3)))
    np.testing.assert_array_equal(got[3], x.max((0, 2)).T)


# ------------------------------------------------------------------------------------------------ sizes, order, accuracy


@runs
def test_sizes_that_are_not_known() -> None:
    """Rows and their length are symbols; some rows do not exist, some are empty."""
    f = [xlc.jit(lambda x: (nn.softmax(x, -1), np.sum(x, 0), np.sum(x)), device=d, dynamic={"x": {0: "b", 1: "n"}}) for d in ORDERS]
    for shape in ((3, 40), (1, 1), (9, 1030), (0, 5), (4, 0)):
        x = RNG.standard_normal(shape).astype("f4")
        for g in f:
            got = [np.asarray(y) for y in g(x)]
            close(got[0], softmax(x) if x.size else x)
            close(got[1], x.astype(np.float64).sum(0))
            close(got[2], x.astype(np.float64).sum())


@runs
def test_nothing_and_one_number() -> None:
    def f(x: Any, y: Any, s: Any) -> Any:
        return np.sum(x, 1), np.max(np.sum(y, 0)), np.sum(s), np.prod(x, 0), np.sum(x)

    x = np.zeros((4, 0), "f4")
    got = on_gpu(f, x, np.ones((3, 5), "f4"), np.float32(7))
    np.testing.assert_array_equal(got[0], np.zeros(4))
    assert [float(got[k]) for k in (1, 2, 4)] == [3, 7, 0] and got[3].shape == (0,)


@runs
def test_the_first_of_equals_and_nan_win() -> None:
    x = np.zeros((3, 3000), "f4")
    x[1, [700, 2999]] = np.nan
    x[2, [2047, 1024, 5 + 1024]] = 4
    got = on_gpu(lambda x: (np.argmax(x, 1), np.argmax(x.T, 0), np.max(x, 1)), x)
    assert got[0].tolist() == got[1].tolist() == [0, 700, 1024]
    np.testing.assert_array_equal(got[2], np.float32([0, np.nan, 4]))


@runs
@pytest.mark.parametrize(("shape", "axis"), [((1 << 20,), 0), ((1 << 17, 3), 0), ((2, 1 << 18), 1)])
def test_sums_are_accurate(shape: tuple[int, ...], axis: int) -> None:
    """All terms are positive: NumPy's pairwise sum, for comparison, is off by up to 1e-7 or so, one accumulator by 1e-5."""
    x = (RNG.random(shape) + 0.1).astype("f4")
    (got,) = on_gpu(lambda x: (np.sum(x, axis),), x)
    want = x.astype(np.float64).sum(axis)
    assert np.max(np.abs(got - want) / want) <= 1.2e-7


@runs
def test_strict_sums_do_not_depend_on_what_is_fused() -> None:
    x = RNG.standard_normal((6, 1000)).astype("f4")
    y = RNG.standard_normal((6, 1000)).astype("f2")
    with xlc.config.context(strict=True):
        alone = on_gpu(lambda x: (np.sum(x, 1), np.sum(x, 0)), x)
        fused = on_gpu(lambda x, y: (np.sum(x + y.astype("f4") * 0, 1), np.max(x, 1), x * 2, np.sum(x, 0)), x, y)
    np.testing.assert_array_equal(alone[0], fused[0])
    np.testing.assert_array_equal(alone[1], fused[3])


@pytest.mark.parametrize(("shape", "axis"), [((2, 9), 1), ((1, 257), 1), ((5, 33), 0)])
@runs
def test_interpreter(shape: tuple[int, int], axis: int) -> None:
    """The kernel means the same to the interpreter, bit for bit."""
    x = RNG.standard_normal(shape).astype("f4")
    p = Program(lambda x: np.sum((x - np.mean(x, axis, keepdims=True)) ** 2, axis), x)
    assert p.unproven == []
    np.testing.assert_array_equal(p.interpret(x), p.run(x, order="random"))


# ------------------------------------------------------------------------------------------------ structure


def softmax_rows(x: Any) -> Any:
    return nn.softmax(x, -1)


def layer_norm(x: Any, g: Any, b: Any) -> Any:
    return nn.layer_norm(x, g, b)


def cross_entropy(x: Any, labels: Any) -> Any:
    return nn.cross_entropy(x, labels)


def loads(body: Sequence[Stmt], b: Buffer) -> int:
    """How many places of the program text read a buffer."""
    return sum(e.op is LOAD and e["buffer"] == b for s in statements(body) for e in walk(*expressions(s)))


@pytest.mark.parametrize("n", [1024, 8192])
def test_a_row_is_read_once(n: int) -> None:
    """Softmax, layer norm and cross-entropy are one kernel each (and a sum of losses), which keeps the row in registers. The exponentials,
    too, are computed once."""
    x = np.zeros((16384, n), "f4")
    programs = [Program(softmax_rows, x), Program(layer_norm, x, x[0], x[0]), Program(cross_entropy, x, np.zeros(16384, "i8"))]
    for p, kept in zip(programs, (2, 1, 1), strict=True):
        kernel = p.kernels[0]
        assert len(p.kernels) == 1 or p is programs[2], [k.note for k in p.kernels]
        assert loads(kernel.body, kernel.inputs[0]) == (1 if p is not programs[2] else 2)  # the second is that of the label's logit
        rows = [s.buffer for s in statements(kernel.body) if isinstance(s, Local) and s.buffer.name.startswith("x")]
        assert [b.shape for b in rows] == [(256, n // (32 if n == 1024 else 256))] * kept
        assert not [u for u in p.unproven if "may reach" in u or "negative" in u]
    assert programs[0].text.count("__syncthreads") == (0 if n == 1024 else 2)
    assert "xlc_vec<float, 4>" in programs[0].text


def test_few_results_are_cut_for_all_processors() -> None:
    for shape, axis in (((1 << 24,), 0), ((1 << 16, 64), 0), ((64, 1 << 17), 1)):
        p = xlc.jit(lambda x, axis=axis: np.sum(x, axis), device="cuda:sm_80").compile(xlc.spec(shape, "f4"))
        assert [k.body[0].stop.value >= 2 * 108 for k in p.kernels] == [True, False]  # two blocks to each processor of an A100


@pytest.mark.skipif(not cuda_backend.CHIPS, reason="needs nvidia-cuda-nvrtc")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_no_local_memory(arch: str) -> None:
    """Registers are registers: no spill, no array in local memory."""
    for d in ("f4", "f2"):
        def f(x: Any, g: Any, labels: Any) -> Any:
            return softmax_rows(x), layer_norm(x[:, :8192], g, g), cross_entropy(x[:, :1000], labels), np.argmax(x, 0), np.var(x, 0)

        p = Program(f, xlc.spec((16384, 65536), d), xlc.spec((8192,), d), xlc.spec((16384,), "i8"))
        assert not [name for name, r in p.resources(arch).items() if r.local]
