"""How exact the compiled functions are: ``make accuracy``.

    python -m benchmarks.accuracy --all               every f32 input of every function (some 20 s each on two cores)
    python -m benchmarks.accuracy --sample exp tanh   every 1021st, of these

    function   dtype     max ulp  mean ulp  worst input     wrong
    exp        float32     0.856     0.246  4.545182            0

float32 is compared with double precision (``accuracy.c``), float64 with mpmath on random inputs, float16 and bfloat16 with the correctly
rounded result for each of their 2^16 inputs. "wrong" counts what no rounding excuses: nan, inf or the sign.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
from mpmath import mp, mpf

Function = Callable[[Any], Any]
STRIDE = 1021
BLOCK = 1 << 17
LIMITS = {("erfc", "float64"): 2.5}
EXPONENTIAL = ("exp", "exp2", "expm1", "sinh", "cosh", "erf", "erfc", "silu", "softplus", "gelu", "gelu_tanh")  # mpmath: not exp(1e300)


class Errors(ctypes.Structure):
    _fields_ = [("most", ctypes.c_double), ("sum", ctypes.c_double), ("count", ctypes.c_uint64), ("wrong", ctypes.c_uint64),
                ("worst", ctypes.c_double), ("wrong_at", ctypes.c_double)]


def exact(name: str) -> Callable[[mpf], mpf]:
    """The function in mpmath."""
    half = mpf(1) / 2
    special: dict[str, Callable[[mpf], mpf]] = {
        "exp2": lambda x: mpf(2) ** x, "log2": lambda x: mp.log(x, 2), "rsqrt": lambda x: 1 / mp.sqrt(x),
        "erfinv": lambda x: mp.erfinv(x) if abs(x) < 1 else mp.mpc(0, 1),
        "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)), "expit": lambda x: 1 / (1 + mp.exp(-x)), "silu": lambda x: x / (1 + mp.exp(-x)),
        "softplus": lambda x: mp.log1p(mp.exp(x)), "gelu": lambda x: x * mp.erfc(-x * mp.sqrt(half)) / 2,
        "gelu_tanh": lambda x: x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3)))}
    return special.get(name) or getattr(mp, name)


def functions() -> dict[str, Function]:
    """Every elementwise function of one argument, as its user writes it."""
    import xlc
    from xlc import numpy as xnp

    plain = (np.exp, np.exp2, np.expm1, np.log, np.log2, np.log10, np.log1p, np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh, np.cbrt,
             np.arcsin, np.arccos, np.arctan, np.arcsinh, np.arccosh, np.arctanh)
    named: dict[str, Function] = {f.__name__.replace("arc", "a"): f for f in plain}
    named |= {n: getattr(xnp, n) for n in ("erf", "erfc", "erfinv", "expit", "rsqrt")}
    named |= {"silu": lambda x: xlc.nn.silu(x), "softplus": lambda x: xlc.nn.softplus(x), "gelu": lambda x: xlc.nn.gelu(x),
              "gelu_tanh": lambda x: xlc.nn.gelu(x, approximate=True)}
    return {name: xlc.jit(lambda x, f=f: f(x)) for name, f in named.items()}


def library() -> ctypes.CDLL:
    """accuracy.c, compiled; with the vector library if there is one."""
    source = Path(__file__).with_name("accuracy.c")
    folder = tempfile.mkdtemp(prefix="xlc-accuracy-")
    out = os.path.join(folder, "accuracy.so")
    command = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off",
               "-fopenmp-simd", "-shared", "-fPIC", str(source), "-o", out]
    # not -ffast-math, which would flush denormals in the whole process
    if subprocess.run([*command, "-lmvec", "-lm"], capture_output=True).returncode:
        subprocess.run([*command, "-DSCALAR", "-lm"], check=True)
    return ctypes.CDLL(out)


def address(a: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


def sweep(lib: ctypes.CDLL, name: str, f: Function, stride: int) -> Errors:
    """The errors over every stride-th f32."""
    compare = getattr(lib, f"compare_{name}")
    words = np.arange(BLOCK, dtype=np.uint32) * np.uint32(stride)

    def block(start: int) -> Errors:
        x = (words[: -(-((1 << 32) - start) // stride)] + np.uint32(start)).view(np.float32)
        y = np.ascontiguousarray(f(x))
        e = Errors()
        compare(address(x), address(y), ctypes.c_long(len(x)), ctypes.byref(e))
        return e

    f(np.zeros(BLOCK, np.float32))
    total = Errors()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for e in pool.map(block, range(0, 1 << 32, BLOCK * stride)):
            if e.most > total.most:
                total.most, total.worst = e.most, e.worst
            if e.wrong:
                total.wrong_at = e.wrong_at
            total.sum, total.count, total.wrong = total.sum + e.sum, total.count + e.count, total.wrong + e.wrong
    return total


def double_inputs(n: int) -> np.ndarray:
    """All magnitudes, and the ranges where functions bend."""
    rng = np.random.default_rng(0)
    everywhere = rng.integers(0, 1 << 64, n, dtype=np.uint64).view(np.float64)
    near = rng.standard_normal(n) * np.exp2(rng.integers(-30, 8, n))
    special = [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e308, 709.78, -745.1, -745.2, 6381956970095103 * 2.0**797]
    return np.concatenate([everywhere, near, rng.uniform(-1, 1, n), rng.uniform(-40, 40, n), special])


def double_errors(name: str, f: Function, n: int) -> Errors:
    """f64 against mpmath."""
    x = double_inputs(n)
    y = np.asarray(f(x))
    reference, e = exact(name), Errors()
    mp.prec = 120
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if not np.isfinite(a) or not np.isfinite(b) or abs(a) > 1e6 and name in EXPONENTIAL:
            continue
        mp.prec = 120 if abs(a) < 1e6 else 1300
        z = reference(mpf(a))
        if isinstance(z, mpmath.mpc) or z == 0:
            continue
        ulp = mpf(2) ** max(mp.frexp(z)[1] - 53, -1074)
        error = float(abs(b - z) / ulp)
        e.count, e.sum = e.count + 1, e.sum + error
        if error > e.most:
            e.most, e.worst = error, a
    return e


def to_bfloat16(z: np.ndarray) -> np.ndarray:
    """f64 to bf16, rounded once: to odd into f32, then to even."""
    narrow = z.astype(np.float32)
    beyond = np.abs(narrow.astype(np.float64)) > np.abs(z)
    down = np.where(beyond, np.nextafter(narrow, np.float32(0)), narrow)
    odd = (down.view(np.uint32) | (down.astype(np.float64) != z)).view(np.float32)
    return np.where(np.isfinite(z) & np.isfinite(down), odd, narrow).astype(ml_dtypes.bfloat16)


def half_errors(lib: ctypes.CDLL, name: str, f: Function, dtype: Any) -> Errors:
    """Every f16 or bf16: the number of those that are not correctly rounded is ``wrong``."""
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    y = np.asarray(f(x))
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
    z = np.empty_like(wide)
    getattr(lib, f"values_{name}")(address(wide), address(z), ctypes.c_long(len(x)))
    with np.errstate(all="ignore"):
        right = to_bfloat16(z) if dtype is ml_dtypes.bfloat16 else z.astype(dtype)
    nan = np.isnan(right.astype(np.float32))
    same = np.where(nan, np.isnan(y.astype(np.float32)), right.view(np.uint16) == y.view(np.uint16))
    e = Errors(most=0.5, count=len(x), wrong=int(np.count_nonzero(~same)))
    if e.wrong:
        e.worst = e.wrong_at = float(x[~same][0])
    return e


def report(name: str, dtype: str, e: Errors) -> bool:
    limit = LIMITS.get((name, dtype), 2.0 if dtype == "float64" else 1.0)
    good = not e.wrong and e.most <= limit
    where = e.wrong_at if e.wrong else e.worst
    mean = f"{e.sum / max(e.count, 1):9.3f}" if dtype.startswith("float") and dtype != "float16" else " " * 9
    print(f"{name:<10} {dtype:<9} {e.most:8.3f} {mean}  {where:<15.9g} {e.wrong:5d}{'' if good else '   <- too large'}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="functions; default: all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every f32 (the default)")
    which.add_argument("--sample", action="store_true", help=f"every {STRIDE}th f32 only")
    args = parser.parse_args()
    lib, good = library(), True
    print(f"{'function':<10} {'dtype':<9} {'max ulp':>8} {'mean ulp':>9}  {'worst input':<15} wrong")
    for name, f in functions().items():
        if args.names and name not in args.names:
            continue
        good &= report(name, "float32", sweep(lib, name, f, STRIDE if args.sample else 1))
        good &= report(name, "float64", double_errors(name, f, 200 if args.sample else 4000))
        good &= report(name, "float16", half_errors(lib, name, f, np.float16))
        good &= report(name, "bfloat16", half_errors(lib, name, f, ml_dtypes.bfloat16))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
