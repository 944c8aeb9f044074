"""Vector mathematics: each function, compiled, against double precision, mpmath and NumPy; and against the same expressions in C.

``make accuracy`` goes over all 2^32 inputs; here it is a sample with every exponent, and every half.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.special as sp
from mpmath import mp, mpf

from xlc.ir.loops import var, walk
from xlc.ir.node import Graph, parameter
from xlc.ir.op import lookup
from xlc.ir.types import DType, Type, bf16, f16, f32, f64
from xlc.ops import vecmath
from xlc.pipeline import compile_graph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import ctext
from benchmarks.accuracy import exact, to_bfloat16

DOUBLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f.__name__.replace("arc", "a"): f for f in (
        np.exp, np.exp2, np.expm1, np.log, np.log2, np.log10, np.log1p, np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh, np.cbrt,
        np.arcsin, np.arccos, np.arctan, np.arcsinh, np.arccosh, np.arctanh)},
    "erf": sp.erf, "erfc": sp.erfc, "erfinv": lambda x: np.copysign(sp.erfinv(x), x),
    "expit": lambda x: 1 / (1 + np.exp(-x)), "rsqrt": lambda x: 1 / np.sqrt(x),
    "silu": lambda x: x / (1 + np.exp(-x)), "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "gelu": lambda x: x * (sp.erfc(x * -np.sqrt(0.5)) / 2),
    "gelu_tanh": lambda x: x / (1 + np.exp(-1.5957691216057308 * (x + 0.044715 * x**3)))}
BINARY = {"pow": np.power, "atan2": np.arctan2, "hypot": np.hypot, "logaddexp": np.logaddexp}
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -2.0, -3.0, 7.0, np.inf, -np.inf, np.nan,
         88.7, 89.0, -87.4, -103.9, -104.1, 1e30, -1e30]


def run(name: str, dtype: DType, *arrays: np.ndarray) -> np.ndarray:
    """The compiled operator."""
    return np.asarray(compiled(name, dtype, len(arrays), len(arrays[0]))(list(arrays))[0])


@cache
def compiled(name: str, dtype: DType, count: int, n: int) -> Any:
    params = tuple(parameter(Type(dtype, (n,)), f"x{i}", i) for i in range(count))
    return compile_graph(Graph(params, (lookup(name)(*params),), name))


def single_inputs() -> np.ndarray:
    """Every exponent and sign with 60 random mantissas, and the edges."""
    rng = np.random.default_rng(0)
    words = (np.arange(512, dtype=np.uint32) << 23)[:, None] | rng.integers(0, 1 << 23, (512, 60), dtype=np.uint32)
    dense = rng.uniform(-20, 20, 8000).astype(np.float32)
    return np.concatenate([words.ravel().view(np.float32), dense, np.array(EDGES, np.float32)])


def ulps(y: np.ndarray, z: np.ndarray, dtype: DType) -> np.ndarray:
    """The errors of y in units of the last place of the f64 z; inf where nan, inf or the sign differ."""
    with np.errstate(all="ignore"):
        rounded = z.astype(dtype.numpy)
        unit = np.spacing(np.where(np.isfinite(rounded), np.abs(rounded), 1).astype(dtype.numpy)).astype(np.float64)
        finite = np.isfinite(rounded) & np.isfinite(y)
        error = np.abs(y.astype(np.float64) - z) / unit
    same = np.where(np.isnan(z), np.isnan(y), rounded == y)
    error = np.where(finite, error, np.where(same, 0, np.inf))
    return np.where(~np.isnan(z) & (np.signbit(y) != np.signbit(z)), np.inf, error)


@pytest.mark.parametrize("name", sorted(DOUBLE))
def test_f32_within_one_ulp(name: str) -> None:
    x = single_inputs()
    with np.errstate(all="ignore"):
        z = DOUBLE[name](x.astype(np.float64))
    error = ulps(run(name, f32, x), z, f32)
    assert error.max() <= 1, f"{name}({x[error.argmax()]!r})"


@pytest.mark.parametrize("name", sorted(DOUBLE))
def test_f64_within_two_ulps(name: str) -> None:
    rng = np.random.default_rng(1)
    small = rng.standard_normal(60) * np.exp2(rng.integers(-40, 5, 60))
    x = np.concatenate([small, rng.uniform(-1, 1, 40), rng.uniform(-30, 30, 40), [-740.0, 1e-310]])
    y = run(name, f64, x)
    mp.prec = 120
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        z = exact(name)(mpf(a))
        if isinstance(z, mp.mpc):
            assert np.isnan(b), f"{name}({a!r})"
        elif abs(z) < mpf(2) ** 1024:
            unit = mpf(2) ** max(mp.frexp(z)[1] - 53, -1074)
            assert abs(b - z) <= 2 * unit, f"{name}({a!r})"


@pytest.mark.parametrize("name", sorted(DOUBLE))
def test_f64_edges(name: str) -> None:
    x = np.array([*EDGES, 5e-324, -5e-324, 1e-310, -1e-310, 1e308, -1e308, 709.7, 710.4, -745.0, -746.0, 2.0**970])
    with np.errstate(all="ignore"):
        z = DOUBLE[name](x)
    y = run(name, f64, x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(z), err_msg=str(x[np.isnan(y) != np.isnan(z)]))
    number = ~np.isnan(z)
    np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(z[number]))
    np.testing.assert_allclose(y[number], z[number], rtol=3e-13, atol=1e-300)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
@pytest.mark.parametrize("name", sorted(DOUBLE))
def test_halves_are_correctly_rounded(name: str, dtype: DType) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    with np.errstate(all="ignore"):
        z = DOUBLE[name](x.astype(np.float64))
        right = to_bfloat16(z) if dtype is bf16 else z.astype(np.float16)
    y = run(name, dtype, x)
    nan = np.isnan(z)
    np.testing.assert_array_equal(np.isnan(y.astype(np.float32)), nan)
    wrong = ~nan & (y.view(np.uint16) != right.view(np.uint16))
    assert not wrong.any(), f"{name}({x[wrong][0]!r}) = {right[wrong][0]!r}, not {y[wrong][0]!r}"


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_huge_angles(name: str) -> None:
    """The second is within 5e-19 of a multiple of pi/2."""
    x = np.array([355.0, 6381956970095103 * 2.0**797, 1e22, 2.0**1023, -1e300, 1e5, 3e9])
    mp.prec = 1300
    for a, b in zip(x.tolist(), run(name, f64, x).tolist(), strict=True):
        assert abs(mpf(b) / getattr(mp, name)(mpf(a)) - 1) < 3e-16, a


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_near_a_pole_or_zero(name: str) -> None:
    """Multiples of pi/2 as f32: what is left after whole turns is tiny, and must keep its own precision."""
    multiples = np.unique((np.arange(1, 400000, 7) * np.float64(np.pi / 2)).astype(np.float32))
    x = np.concatenate([multiples, np.array([4.39987692e10, 7.72917892e28, -7.72917892e28, 1.6367e8, 8.757e24], np.float32)])
    z = {"sin": np.sin, "cos": np.cos, "tan": np.tan}[name](x.astype(np.float64))
    assert ulps(run(name, f32, x), z, f32).max() <= 0.6


def pairs(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of like and unlike magnitude, whole numbers, and all pairs of edges."""
    rng = np.random.default_rng(2)
    n = 4000
    anything = [rng.integers(0, 1 << 8 * dtype.itemsize, n, dtype=np.uint64).astype(f"u{dtype.itemsize}").view(dtype) for _ in range(2)]
    whole = [rng.integers(-20, 20, n).astype(dtype) for _ in range(2)]
    near = [rng.normal(0, 3, n).astype(dtype) for _ in range(2)]
    edges = np.array([*EDGES, np.finfo(dtype).tiny, np.finfo(dtype).max, -np.finfo(dtype).smallest_subnormal], dtype)
    crossed = [a.ravel() for a in np.meshgrid(edges, edges)]
    return np.concatenate([anything[0], whole[0], near[0], crossed[0]]), np.concatenate([anything[1], whole[1], near[1], crossed[1]])


@pytest.mark.parametrize("name", sorted(BINARY))
def test_f32_functions_of_two_within_one_ulp(name: str) -> None:
    x, y = pairs(np.dtype(np.float32))
    with np.errstate(all="ignore"):
        z = BINARY[name](x.astype(np.float64), y.astype(np.float64))
    error = ulps(run(name, f32, x, y), z, f32)
    assert error.max() <= 1, f"{name}({x[error.argmax()]!r}, {y[error.argmax()]!r})"


@pytest.mark.parametrize("name", sorted(BINARY))
def test_f64_functions_of_two_as_numpy(name: str) -> None:
    x, y = pairs(np.dtype(np.float64))
    with np.errstate(all="ignore"):
        z = BINARY[name](x, y)
    found = run(name, f64, x, y)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(z))
    number = ~np.isnan(z)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(z[number]))
    np.testing.assert_allclose(found[number], z[number], rtol=1e-15, atol=1e-16 if name == "logaddexp" else 5e-324)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", ["remainder", "floor_divide"])
def test_division_with_remainder_is_numpys(name: str, dtype: DType) -> None:
    x, y = pairs(dtype.numpy)
    with np.errstate(all="ignore"):
        z = getattr(np, name)(x, y)
    found = run(name, dtype, x, y)
    nan = np.isnan(z)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan], z[~nan])
    np.testing.assert_array_equal(np.signbit(found[~nan]), np.signbit(z[~nan]))


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", vecmath.__all__)
def test_only_mandatory_operators(name: str, dtype: DType) -> None:
    """Nothing that a backend would have to decompose, no 64-bit shift of signed numbers, no conversion to integers."""
    args = [var(v, dtype) for v in ("x", "y")[: 2 if name in (*BINARY, "remainder", "floor_divide") else 1]]
    for e in walk(getattr(vecmath, name)(*args)):
        assert e.op.kind == "input" or e.op.decompose is None or e.op.name == "round", e.op.name
        assert not (e.op.name == "cast" and e.dtype.is_float != e.args[0].dtype.is_float)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_c_gives_the_same_bits(tmp_path: Path) -> None:
    """The expressions as C, by the system's compiler: bit for bit what the backend computes (which therefore contracts nothing)."""
    names = [n for n in sorted(DOUBLE) if n not in ("sin", "cos", "tan")]
    text = [ctext.PROLOGUE]
    for name in names:
        text.append(ctext.function([var("x", f32)], getattr(vecmath, name)(var("x", f32)), f"one_{name}"))
        text.append(f"void {name}(const float *x, float *y, long n) {{ for (long i = 0; i < n; i++) y[i] = one_{name}(x[i]); }}")
    (tmp_path / "f.c").write_text("\n".join(text))
    subprocess.run(["cc", "-O2", "-ffp-contract=off", "-fno-math-errno", "-march=native", "-shared", "-fPIC", "f.c", "-o", "f.so", "-lm"],
                   cwd=tmp_path, check=True)
    lib = ctypes.CDLL(str(tmp_path / "f.so"))
    x = single_inputs()
    for name in names:
        y = np.empty_like(x)
        getattr(lib, name)(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(len(x)))
        np.testing.assert_array_equal(run(name, f32, x), y, err_msg=name)


def test_to_bfloat16_rounds_once() -> None:
    halfway = 1 + 2.0**-8
    z = np.array([halfway, halfway + 2.0**-40, -halfway - 2.0**-40, halfway + 2.0**-7, 1e-45, np.inf, np.nan, 3.4e38])
    y = to_bfloat16(z).astype(np.float64)
    expected = [1, 1 + 2.0**-7, -1 - 2.0**-7, 1 + 2.0**-6, 0, np.inf, np.nan, float(ml_dtypes.bfloat16(3.4e38))]
    np.testing.assert_array_equal(y, expected)
