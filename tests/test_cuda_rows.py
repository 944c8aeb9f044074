"""Memory-bound kernels on a GPU: quotients by a shared divisor to the bit, long rows, sums cut for whole accesses, arrays of several
widths; against NumPy, in any order of threads, and as the text shows them."""

from __future__ import annotations

from typing import Any

import cuda_backend
import ml_dtypes
import numpy as np
import pytest
from cuda_backend import MISSING, check_resources
from cuda_kernels import Program, checked
from test_cuda_reduce import loads

import xlc
from xlc import nn
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.emit import emit_kernel
from xlc.ir.loops import Loop, Wait, statements

cuda_backend.install()
runs = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
compiles = pytest.mark.skipif(not nvrtc.available(), reason="needs nvidia-cuda-nvrtc")
BF16 = np.dtype(ml_dtypes.bfloat16)
H200 = 132  # multiprocessors


def text(f: Any, *specs: Any) -> list[str]:
    """The kernels for an H200."""
    return [str(emit_kernel(k)) for k in xlc.jit(f, device="cuda:sm_90").compile(*specs).plan.kernels]


def blocks(f: Any, *specs: Any) -> list[int]:
    return [k.body[0].stop.value for k in xlc.jit(f, device="cuda:sm_90").compile(*specs).plan.kernels]


# ------------------------------------------------------------------------------------------------ quotients


@runs
@pytest.mark.parametrize("spread", [2, 60, 140])
def test_quotients_by_one_divisor_are_rounded_once(spread: int) -> None:
    """Within the range in which a reciprocal is shared, at its ends, and beyond."""
    rng = np.random.default_rng(spread)

    def numbers(*shape: int) -> np.ndarray:
        magnitude = (1 + rng.integers(0, 1 << 23, shape) / 2.0**23) * 2.0 ** rng.integers(-spread, spread, shape)
        return (magnitude * rng.choice([-1, 1], shape)).astype("f4")

    with np.errstate(all="ignore"):
        a, b = numbers(1024, 64), numbers(1024)
        a[:, :8] = np.float32(2) - np.float32(2**-23) * rng.integers(1, 200, (1024, 8)).astype("f4")  # quotients next to 1
        b[:512] = np.float32(2) - np.float32(2**-23) * rng.integers(1, 200, 512).astype("f4")
        a[::7, 9:12], b[5::99] = [0, -0.0, np.inf], [0] * len(b[5::99])
        want = a / b[:, None]
    got = np.asarray(xlc.jit(lambda a, b: a / b[:, None], device="shim:random")(a, b))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got.view("u4")[~np.isnan(want)], want.view("u4")[~np.isnan(want)])


@runs
@pytest.mark.parametrize("dtype", [np.dtype("f2"), BF16], ids=str)
def test_quotients_of_halves(dtype: np.dtype) -> None:
    """Of any two numbers, and of all pairs of 8-bit significands: the f32 quotient, rounded."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 16, (512, 256)).astype("u2"), rng.integers(0, 1 << 16, 512).astype("u2")
    significands = (np.arange(128, 256) / 128).astype(dtype)
    for a, b in ((bits[0].view(dtype), bits[1].view(dtype)), (np.tile(significands, (128, 1)), significands)):
        with np.errstate(all="ignore"):
            want = (a.astype("f4") / b.astype("f4")[:, None]).astype(dtype)
        got = np.asarray(xlc.jit(lambda a, b: a / b[:, None], device="shim:random")(a, b))
        number = ~np.isnan(want.astype("f4"))
        np.testing.assert_array_equal(got.view("u2")[number], want.view("u2")[number])
        assert np.isnan(got[~number].astype("f4")).all()


def test_softmax_divides_by_a_reciprocal_and_takes_either_zero() -> None:
    (kernel,) = text(lambda x: nn.softmax(x, -1), xlc.spec((16384, 1024), "f4"))
    assert "xlc_quotients_f32" in kernel and " / " not in kernel.partition("xlc_quotients")[2].replace("/ 32", "")
    assert "xlc_maximum(" not in kernel and "xlc_fold_maximum_f32(" in kernel
    (kernel,) = text(lambda x: np.maximum(x, 0), xlc.spec((1024,), "f4"))
    assert "xlc_maximum(" in kernel  # which of +0 and -0 it is stays the CPU's


# ------------------------------------------------------------------------------------------------ rows


@runs
@pytest.mark.parametrize("dtype", ["f4", "bf16"])
def test_long_rows_arrive_past_the_registers(dtype: str) -> None:
    n = 66560
    x = np.random.default_rng(1).standard_normal((2, n)).astype(BF16 if dtype == "bf16" else dtype)
    want = np.exp(x.astype("f8") - x.astype("f8").max(-1, keepdims=True))
    want /= want.sum(-1, keepdims=True)
    for order in ("random", "descending"):
        got = np.asarray(xlc.jit(lambda x: nn.softmax(x, -1), device=f"shim:{order}", dynamic={"x": {0: "b"}})(x))
        np.testing.assert_allclose(got.astype("f8"), want, rtol=5e-2 if dtype == "bf16" else 4e-6, atol=0)
    p = Program(lambda x: nn.softmax(x, -1), xlc.spec(("b", n), dtype))
    assert "xlc_cp_async16(" in p.text and p.text.count("xlc_cp_wait<0>") == 1


def test_a_row_of_65536_is_read_once() -> None:
    for dtype in ("f4", "bf16"):
        x, w = xlc.spec((16384, 65536), dtype), xlc.spec((65536,), dtype)
        for f, args in ((lambda x: nn.softmax(x, -1), (x,)), (nn.layer_norm, (x, w, w))):
            (kernel,) = xlc.jit(f, device="cuda:sm_90").compile(*args).plan.kernels
            row = next(b for b in kernel.inputs if b.size == 16384 * 65536)
            body = kernel.body[0].body
            first = next(k for k, s in enumerate(body) if isinstance(s, Loop))
            assert isinstance(body[first + 1], Wait)  # all of it is asked for before a thread waits
            assert loads(body[:first + 1], row) == loads(body, row) > 1  # into registers, and into shared memory


@compiles
def test_no_local_memory_in_gradients_of_long_rows() -> None:
    def f(x: Any, g: Any, w: Any) -> Any:
        return xlc.vjp(nn.layer_norm, x, w, w)[1](g)

    wide = xlc.spec((16384, 65536), "f4")
    check_resources(xlc.jit(f, device="cuda:sm_90").compile(wide, wide, xlc.spec((65536,), "f4")))


# ------------------------------------------------------------------------------------------------ sums


def test_column_sums_are_cut_for_whole_accesses() -> None:
    for shape, axes in (((16384, 8192), 0), ((65536, 768), 0), ((64, 1024, 768), (0, 1)), ((16384, 1024), 0)):
        first, *rest = text(lambda x, axes=axes: np.sum(x, axes), xlc.spec(shape, "f4"))
        assert "const xlc_vec<float, 4>*)(b0" in first and len(rest) == 1
        assert blocks(lambda x, axes=axes: np.sum(x, axes), xlc.spec(shape, "f4"))[0] >= 2 * H200


def test_statistics_over_neighbouring_axes_are_cut_as_one() -> None:
    assert blocks(lambda x: np.sum(x, (0, 1, 2)), xlc.spec((64, 56, 56, 64), "f4"))[0] >= 2 * H200


def test_columns_have_16_elements_of_a_thread_under_way() -> None:
    """Of which an access has 4, or none its neighbour. Lengths that are not known have what is left of 16 in fours."""
    for shape, most in (((16384, 8192), 4), ((16384, 1001), 16), (("n", 768), 16)):
        kernel = xlc.jit(lambda x: np.sum(x, 0), device="cuda:sm_90").compile(xlc.spec(shape, "f4")).plan.kernels[0]
        at_once = {s.stop.value for s in statements(kernel.body) if isinstance(s, Loop) and s.kind == "unroll" and s.var == "u"}
        assert at_once == ({most} if isinstance(shape[0], int) else {most, 4})


@runs
@pytest.mark.parametrize("shape", [(40, 20, 30, 6), (8000, 1, 8), (3, 4099, 4)])
def test_sums_over_neighbouring_axes(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype("f4")
    axes = tuple(range(len(shape) - 1))
    got = checked(lambda x: np.var(x, axes) + np.max(x, axes), x, interpret=False)
    np.testing.assert_allclose(got, x.astype("f8").var(axes) + x.max(axes), rtol=2e-6)


# ------------------------------------------------------------------------------------------------ cumulative operators


@runs
@pytest.mark.parametrize("shape, axis", [((40000,), 0), ((2, 65536), 1), ((40961, 3), 0)])
def test_cumulative_operators_of_few_long_rows(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(3).integers(-5, 6, shape).astype("f4")

    def backwards(x: Any) -> Any:
        return np.flip(np.cumsum(np.flip(x, axis), axis), axis)

    for f in (lambda x: np.cumsum(x, axis), lambda x: np.maximum.accumulate(x, axis), backwards):
        np.testing.assert_array_equal(checked(f, x, interpret=False), f(x))
    half = np.sign(x).astype(BF16)
    got = np.asarray(xlc.jit(lambda x: np.cumsum(x, axis, dtype=BF16), device="shim:random")(half))
    np.testing.assert_array_equal(got, np.cumsum(half.astype("f8"), axis).astype(BF16))


@runs
def test_cumulative_sums_are_accurate() -> None:
    x = np.random.default_rng(4).standard_normal(65536).astype("f4")
    got = checked(np.cumsum, x, interpret=False)
    assert np.abs(got - np.cumsum(x.astype("f8"))).max() < 1e-4  # one chain: 1e-3


def test_a_long_cumulative_sum_is_work_for_all_processors() -> None:
    assert blocks(np.cumsum, xlc.spec((1 << 24,), "f4"))[0] >= 2 * H200
    assert "xlc_vec<float, 4>" in text(np.cumsum, xlc.spec((1 << 24,), "f4"))[0]


# ------------------------------------------------------------------------------------------------ elementwise


def test_the_widest_array_is_accessed_16_bytes_at_a_time() -> None:
    n = xlc.spec((1 << 20,), "f4")
    (narrowing,) = text(lambda x: np.astype(x, BF16), n)
    assert "const xlc_vec<float, 4>*)(b0" in narrowing and "*(xlc_vec<unsigned short, 4>*)(b1" in narrowing
    (step,) = text(lambda w, g: w - 0.5 * np.astype(g, np.float32), n, xlc.spec((1 << 20,), "bf16"))
    assert "xlc_vec<unsigned short, 4>" in step and "*(xlc_vec<float, 4>*)(b2" in step


@runs
@pytest.mark.parametrize("n", [1, 7, 1023, 4099])
def test_arrays_of_several_widths(n: int) -> None:
    x, i = np.random.default_rng(n).standard_normal(n).astype("f4"), np.arange(n) % 3
    got = checked(lambda x, i: np.astype(np.where(i > 1, x, x * 2), np.float16), x, i, interpret=n < 10)
    np.testing.assert_array_equal(got, np.where(i > 1, x, x * 2).astype("f2"))
