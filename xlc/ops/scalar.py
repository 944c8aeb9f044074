"""Elementwise operators: the array API's elementwise functions and the activations that networks use.

Those without ``decompose`` are the mandatory scalar operators: every backend emits them itself. Semantics are NumPy's; where NumPy leaves
them open: integer division by zero gives 0, shifts by the width or more give 0 (-1 for an arithmetic right shift of a negative number), a
float out of an integer's range is cast to the nearest end of the range and nan to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xlc.errors import XlcTypeError
from xlc.ir.loops import const
from xlc.ir.node import Node, full_like
from xlc.ir.op import Op, register
from xlc.ir.types import DType, Type, bool_, f32, i16, i32, i64

from . import oracle, vecmath
from .kinds import ALL, FLOATS, INTS, LOGICAL, NUMBERS, elementwise, rounded


def zeros_like(x: Any) -> Any:
    return full_like(x, 0) if isinstance(x, Node) else const(0, x.dtype)


def _pick(c: Any, g: Any) -> Any:
    return where(c, g, zeros_like(g))


# ------------------------------------------------------------------------------------------------ mandatory


def _quietly(f: Any) -> Any:
    def g(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if x.dtype.kind in "iu":
            out = f(x, np.where(y == 0, np.ones_like(y), y))
            return np.where(y == 0, np.zeros_like(out), out)
        return f(x, y)

    return g


def _shift(left: bool) -> Any:
    def g(x: np.ndarray, n: np.ndarray) -> np.ndarray:
        bits = x.dtype.itemsize * 8
        inside = (n >= 0) & (n < bits)
        amount = np.where(inside, n, np.zeros_like(n))
        out = np.left_shift(x, amount) if left else np.right_shift(x, amount)
        beyond = np.where(x < 0, np.full_like(x, -1), np.zeros_like(x)) if x.dtype.kind == "i" and not left else np.zeros_like(x)
        return np.where(inside, out, beyond)

    return g


add = elementwise("add", np.add, ALL, arity=2, exact=True, vjp=lambda g, y, a, b: [g, g])
subtract = elementwise("subtract", np.subtract, NUMBERS, arity=2, exact=True, vjp=lambda g, y, a, b: [g, -g])
multiply = elementwise("multiply", np.multiply, ALL, arity=2, exact=True, vjp=lambda g, y, a, b: [g * b, g * a])
divide = elementwise("divide", np.divide, FLOATS, arity=2, exact=True, vjp=lambda g, y, a, b: [g / b, -(g * y / b)])
negative = elementwise("negative", np.negative, NUMBERS, exact=True, vjp=lambda g, y, x: [-g])
abs_ = elementwise("abs", np.abs, NUMBERS, exact=True, vjp=lambda g, y, x: [g * sign(x)])
sqrt = elementwise("sqrt", np.sqrt, FLOATS, exact=True, samples=[(0, 9)], vjp=lambda g, y, x: [g * 0.5 / y])
floor = elementwise("floor", np.floor, NUMBERS, exact=True, vjp=lambda g, y, x: [None])
ceil = elementwise("ceil", np.ceil, NUMBERS, exact=True, vjp=lambda g, y, x: [None])
trunc = elementwise("trunc", np.trunc, NUMBERS, exact=True, vjp=lambda g, y, x: [None])
round_ = elementwise("round", np.rint, FLOATS, exact=True, vjp=lambda g, y, x: [None], doc="to the nearest integer, ties to even")


def _extreme_vjp(g: Any, y: Any, a: Any, b: Any) -> list[Any]:
    half = g * 0.5
    tie = equal(a, b)
    first = equal(y, a)
    return [where(tie, half, _pick(first, g)), where(tie, half, where(first, zeros_like(g), g))]


minimum = elementwise("minimum", np.minimum, ALL, arity=2, exact=True, vjp=_extreme_vjp, doc="nan if either is nan")
maximum = elementwise("maximum", np.maximum, ALL, arity=2, exact=True, vjp=_extreme_vjp, doc="nan if either is nan")
less, less_equal, greater, greater_equal, equal, not_equal = (
    elementwise(name, getattr(np, name), ALL, arity=2, result=bool_, exact=True, vjp=lambda g, y, a, b: [None, None])
    for name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"))
bitwise_and, bitwise_or, bitwise_xor = (
    elementwise(name, getattr(np, name), LOGICAL, arity=2, exact=True) for name in ("bitwise_and", "bitwise_or", "bitwise_xor"))
bitwise_not = elementwise("bitwise_not", np.invert, LOGICAL, exact=True)
bitwise_left_shift = elementwise("bitwise_left_shift", _shift(True), INTS, arity=2, exact=True, samples=[(-9, 9), (0, 9)])
bitwise_right_shift = elementwise("bitwise_right_shift", _shift(False), INTS, arity=2, exact=True, samples=[(-9, 9), (0, 9)])


def _exact_fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """One rounding. f32: the product is exact in f64, the sum is rounded to odd there (Boldo and Melquiond, 2008). f64: by rationals."""
    if a.dtype != np.float64:
        product, addend = a.astype(np.float64) * b, c.astype(np.float64)
        total = np.asarray(product + addend)
        back = total - product
        error = (product - (total - back)) + (addend - back)
        exact = (error == 0) | ~np.isfinite(error)
        below = total.view(np.int64) - ((error < 0) != (total < 0))
        return np.where(exact, total, (below | 1).view(np.float64)).astype(a.dtype)
    from fractions import Fraction

    def one(x: float, y: float, z: float) -> float:
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
            return x * y + z
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        try:
            return float(exact) if exact else x * y + z
        except OverflowError:
            return math.inf if exact > 0 else -math.inf

    return np.vectorize(one, otypes=[np.float64])(a, b, c)


fma = elementwise("fma", _exact_fma, FLOATS, arity=3, exact=True, vjp=lambda g, y, a, b, c: [g * b, g * a, g], doc="a*b + c, rounded once")


def _where_type(c: Type, a: Type, b: Type) -> Type:
    if c.dtype is not bool_:
        raise XlcTypeError(f"where needs a bool condition, not {c.dtype}")
    if a != b or a.shape != c.shape:
        raise XlcTypeError(f"where needs arguments of one shape and values of one type inside a graph; found {c}, {a}, {b}")
    return a


where: Op = register(Op("where", "elementwise", 3, _where_type, lambda c, a, b: np.asarray(np.where(c, a, b)).astype(a.dtype),
                        lambda c, a, b: a, dtypes=ALL, exact=True,
                    vjp=lambda g, y, c, a, b: [None, _pick(c, g), where(c, zeros_like(g), g)], samples=((0, 1), (-4, 4), (-4, 4))))


def cast_array(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """NumPy's astype, with floats saturating at an integer's range and nan as 0."""
    with np.errstate(all="ignore"):
        if x.dtype.kind in "fV" and dtype.kind in "iu":
            wide = x.astype(np.float64)
            info = np.iinfo(dtype)
            inside = np.where((wide >= float(info.min)) & (wide < float(info.max)), wide, 0.0).astype(dtype)
            return np.where(wide >= float(info.max), info.max, np.where(wide < float(info.min), info.min, inside)).astype(dtype)
        if x.dtype.kind == "V" and dtype.kind == "b":
            return x.astype(np.float32) != 0
        return rounded(x, dtype)


def _cast_vjp(g: Any, y: Any, x: Any, dtype: DType) -> list[Any]:
    return [cast(g, dtype=x.dtype) if x.dtype.is_float and dtype.is_float else None]


cast: Op = register(Op("cast", "elementwise", 1, lambda x, dtype: x.with_dtype(dtype), lambda x, dtype: cast_array(x, dtype.numpy),
                   lambda x, dtype: dtype, dtypes=ALL,
                   exact=True, vjp=_cast_vjp, jvp=lambda ts, y, x, dtype: cast(ts[0], dtype=dtype),
                   doc="to the nearest value of another dtype; see the module on values out of range"))


def _bitcast_type(x: Type, dtype: DType) -> Type:
    if x.dtype.bits != dtype.bits:
        raise XlcTypeError(f"bitcast between {x.dtype} and {dtype}: their widths differ")
    return x.with_dtype(dtype)


bitcast = register(Op("bitcast", "elementwise", 1, _bitcast_type,
                      lambda x, dtype: np.ascontiguousarray(x).view(dtype.numpy).reshape(x.shape),
                      lambda x, dtype: dtype, dtypes=NUMBERS, exact=True, doc="the same bits as another dtype"))
lookup_ = register(Op("lookup", "elementwise", 1, lambda i, table, dtype: i.with_dtype(dtype),
                      lambda i, table, dtype: np.asarray(table, dtype.numpy)[np.clip(i, 0, len(table) - 1)], lambda i, table, dtype: dtype,
                      dtypes=(i64,), exact=True, samples=((0, 3),), doc="an entry of a constant table; the index is clamped"))

# ------------------------------------------------------------------------------------------------ integers, signs, classes

floor_divide = elementwise("floor_divide", _quietly(np.floor_divide), NUMBERS, arity=2, exact=True, samples=[(-9, 9), (1, 5)],
                           decompose=lambda a, b: vecmath.floor_divide(a, b), vjp=lambda g, y, a, b: [None, None])
remainder = elementwise("remainder", _quietly(np.remainder), NUMBERS, arity=2, exact=True, samples=[(-9, 9), (1, 5)],
                        decompose=lambda a, b: vecmath.remainder(a, b), vjp=lambda g, y, a, b: [g, -(g * floor_divide(a, b))])


def _sign(x: Any) -> Any:
    zero, one = zeros_like(x), const(1, x.dtype)
    if not x.dtype.signed:
        return where(x.equals(zero), zero, one)
    signed = where(x > zero, one, where(x < zero, const(-1, x.dtype), zero))
    return where(not_equal(x, x), x, signed) if x.dtype.is_float else signed


sign: Op = elementwise("sign", np.sign, NUMBERS, exact=True, decompose=_sign, vjp=lambda g, y, x: [None])
square = elementwise("square", np.square, NUMBERS, exact=True, raw=True, decompose=lambda x: x * x, vjp=lambda g, y, x: [g * x * 2])
reciprocal = elementwise("reciprocal", np.reciprocal, FLOATS, exact=True, raw=True, decompose=lambda x: const(1, x.dtype) / x,
                         samples=[(1, 5)], vjp=lambda g, y, x: [-(g * y * y)])
isnan = elementwise("isnan", np.isnan, NUMBERS, result=bool_, exact=True, decompose=lambda x: not_equal(x, x), vjp=lambda g, y, x: [None])
fmax, fmin = (
    elementwise(name, getattr(np, name), FLOATS, arity=2, exact=True, raw=True, vjp=_extreme_vjp, doc="the number where one of them is nan",
                decompose=lambda a, b, both=both: where(isnan(a), b, where(isnan(b), a, both(a, b))))
    for name, both in (("fmax", maximum), ("fmin", minimum)))
isinf = elementwise("isinf", np.isinf, NUMBERS, result=bool_, exact=True, vjp=lambda g, y, x: [None],
                    decompose=lambda x: equal(abs_(x), const(math.inf, x.dtype)) if x.dtype.is_float else const(False, bool_))
isfinite = elementwise("isfinite", np.isfinite, NUMBERS, result=bool_, exact=True, vjp=lambda g, y, x: [None],
                       decompose=lambda x: abs_(x) < const(math.inf, x.dtype) if x.dtype.is_float else const(True, bool_))



def _truth(x: Any) -> Any:
    return x if x.dtype is bool_ else not_equal(x, zeros_like(x))


logical_and = elementwise("logical_and", np.logical_and, ALL, arity=2, result=bool_, exact=True, raw=True,
                          vjp=lambda g, y, a, b: [None, None], decompose=lambda a, b: _truth(a) & _truth(b))
logical_or = elementwise("logical_or", np.logical_or, ALL, arity=2, result=bool_, exact=True, raw=True, vjp=lambda g, y, a, b: [None, None],
                         decompose=lambda a, b: _truth(a) | _truth(b))
logical_xor = elementwise("logical_xor", np.logical_xor, ALL, arity=2, result=bool_, exact=True, raw=True,
                          vjp=lambda g, y, a, b: [None, None], decompose=lambda a, b: _truth(a) ^ _truth(b))
logical_not = elementwise("logical_not", np.logical_not, ALL, result=bool_, exact=True, raw=True, vjp=lambda g, y, x: [None],
                          decompose=lambda x: ~_truth(x))
_INT = {16: i16, 32: i32, 64: i64}


def _bits(x: Any) -> Any:
    return bitcast(x, dtype=_INT[x.dtype.bits])


def _signbit(x: Any) -> Any:
    return _bits(x) < 0


def _copysign(x: Any, s: Any) -> Any:
    low = (1 << (x.dtype.bits - 1)) - 1
    return bitcast((_bits(x) & low) | (_bits(s) & (-low - 1)), dtype=x.dtype)


def _nextafter(x: Any, y: Any) -> Any:
    """Neighbouring floats are neighbouring integers, sign and magnitude."""
    b, d = _bits(x), x.dtype
    low = (1 << (d.bits - 1)) - 1
    away = where(b < 0, (y < x), (y > x))
    zero = x.equals(const(0, d))
    smallest = bitcast((_bits(y) & (-low - 1)) | const(1, b.dtype), dtype=d)
    step = bitcast(where(away, b + 1, b - 1), dtype=d)
    moved = where(zero, smallest, step)
    nan = not_equal(x, x) | not_equal(y, y)
    return where(nan, x + y, where(x.equals(y), y, moved))


signbit = elementwise("signbit", np.signbit, FLOATS, result=bool_, exact=True, raw=True, decompose=_signbit, vjp=lambda g, y, x: [None])
copysign = elementwise("copysign", np.copysign, FLOATS, arity=2, exact=True, raw=True, decompose=_copysign,
                       vjp=lambda g, y, x, s: [where(equal(signbit(x), signbit(s)), g, -g), None])


def _nextafter_array(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(x == y, y, np.nextafter(x, y))  # of two zeros the second, as in C, for f16 too


nextafter = register(Op("nextafter", "elementwise", 2, copysign.infer, _nextafter_array, copysign.scalar, decompose=_nextafter,
                        vjp=lambda g, y, a, b: [g, None], dtypes=FLOATS, samples=((-4, 4), (-4, 4)), exact=True))

# ------------------------------------------------------------------------------------------------ functions of one number

_SQRT_PI = math.sqrt(math.pi)
exp: Op  # the derivatives below name one another
sin: Op
cos: Op
sinh: Op
cosh: Op
rsqrt: Op
expit: Op
_unary: dict[str, tuple[Callable[..., Any], tuple[float, float], Callable[..., list[Any]]]] = {
    "exp": (np.exp, (-9, 9), lambda g, y, x: [g * y]),
    "exp2": (np.exp2, (-9, 9), lambda g, y, x: [g * y * math.log(2)]),
    "expm1": (np.expm1, (-5, 5), lambda g, y, x: [g * exp(x)]),
    "log": (np.log, (0.1, 9), lambda g, y, x: [g / x]),
    "log2": (np.log2, (0.1, 9), lambda g, y, x: [g / (x * math.log(2))]),
    "log10": (np.log10, (0.1, 9), lambda g, y, x: [g / (x * math.log(10))]),
    "log1p": (np.log1p, (-0.9, 9), lambda g, y, x: [g / (x + 1)]),
    "sin": (np.sin, (-9, 9), lambda g, y, x: [g * cos(x)]),
    "cos": (np.cos, (-9, 9), lambda g, y, x: [-(g * sin(x))]),
    "tan": (np.tan, (-1.4, 1.4), lambda g, y, x: [g * (y * y + 1)]),
    "asin": (np.arcsin, (-0.99, 0.99), lambda g, y, x: [g * rsqrt((1 - x) * (x + 1))]),
    "acos": (np.arccos, (-0.99, 0.99), lambda g, y, x: [-(g * rsqrt((1 - x) * (x + 1)))]),
    "atan": (np.arctan, (-9, 9), lambda g, y, x: [g / (x * x + 1)]),
    "sinh": (np.sinh, (-5, 5), lambda g, y, x: [g * cosh(x)]),
    "cosh": (np.cosh, (-5, 5), lambda g, y, x: [g * sinh(x)]),
    "tanh": (np.tanh, (-4, 4), lambda g, y, x: [g * ((1 - y) * (y + 1))]),
    "asinh": (np.arcsinh, (-9, 9), lambda g, y, x: [g * rsqrt(x * x + 1)]),
    "acosh": (np.arccosh, (1.1, 9), lambda g, y, x: [g * rsqrt((x - 1) * (x + 1))]),
    "atanh": (np.arctanh, (-0.95, 0.95), lambda g, y, x: [g / ((1 - x) * (x + 1))]),
    "cbrt": (np.cbrt, (0.1, 9), lambda g, y, x: [g / (y * y * 3)]),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (0.1, 9), lambda g, y, x: [-(g * y * 0.5 / x)]),
    "erf": (oracle.erf, (-3, 3), lambda g, y, x: [g * exp(-(x * x)) * (2 / _SQRT_PI)]),
    "erfc": (oracle.erfc, (-3, 3), lambda g, y, x: [-(g * exp(-(x * x)) * (2 / _SQRT_PI))]),
    "erfinv": (oracle.erfinv, (-0.95, 0.95), lambda g, y, x: [g * exp(y * y) * (_SQRT_PI / 2)]),
    "expit": (oracle.expit, (-6, 6), lambda g, y, x: [g * (y * expit(-x))]),
    "softplus": (lambda x: np.logaddexp(x, 0), (-6, 6), lambda g, y, x: [g * expit(x)]),
    "silu": (oracle.silu, (-6, 6), lambda g, y, x: [g * _silu_slope(x)]),
    "gelu": (oracle.gelu, (-4, 4), lambda g, y, x: [g * _gelu_slope(x)]),
    "gelu_tanh": (oracle.gelu_tanh, (-4, 4), lambda g, y, x: [g * _gelu_tanh_slope(x)]),
}


def _silu_slope(x: Any) -> Any:
    s = expit(x)
    return s * (x * expit(-x) + 1)


def _gelu_slope(x: Any) -> Any:
    cdf = erfc(x * -math.sqrt(0.5)) * 0.5
    return cdf + x * exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def _gelu_tanh_slope(x: Any) -> Any:
    c = 0.7978845608028654
    u = (x + x * x * x * 0.044715) * (2 * c)
    s = expit(u)
    return s + x * (s * expit(-u)) * (x * x * (3 * 0.044715) + 1) * (2 * c)


_made: dict[str, Op] = {
    name: elementwise(name, oracle, FLOATS, samples=[interval], vjp=vjp, decompose=getattr(vecmath, name))
    for name, (oracle, interval, vjp) in _unary.items()}
exp2_approx = elementwise("exp2_approx", np.exp2, (f32,), samples=[(-9, 9)], vjp=_unary["exp2"][2], decompose=vecmath.exp2,
                          doc="2**x with a relative error of 2**-22 at most; what is no normal number is 0")
exp, exp2, expm1, log, log2, log10, log1p = (_made[n] for n in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p"))
sin, cos, tan, sinh, cosh, tanh = (_made[n] for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh"))
rsqrt, erf, erfc, expit, softplus = (_made[n] for n in ("rsqrt", "erf", "erfc", "expit", "softplus"))
relu = elementwise("relu", lambda x: np.maximum(x, x.dtype.type(0)), NUMBERS, exact=True, raw=True, samples=[(-4, 4)],
                   decompose=lambda x: maximum(x, const(0, x.dtype)), vjp=lambda g, y, x: [_pick(x > 0, g)])

# ------------------------------------------------------------------------------------------------ functions of two


def _int_power(x: Any, n: Any) -> Any:
    """Square and multiply over every bit of the exponent; negative exponents give the integer part of the power."""
    one, zero = const(1, x.dtype), const(0, x.dtype)
    result, base, e = one, x, n
    for _ in range(x.dtype.bits - (1 if x.dtype.signed else 0)):
        result = where((e & 1).equals(one), result * base, result)
        base, e = base * base, e >> 1
    if not x.dtype.signed:
        return result
    flipped = where((n & 1).equals(one), x, one)
    small = where(x.equals(one), one, where(x.equals(const(-1, x.dtype)), flipped, zero))
    return where(n < zero, small, result)


def _pow(x: Any, n: Any) -> Any:
    """Small whole exponents that are known are products (at most 1 ulp off, as good as a library's power, at a twentieth of the work)."""
    if not x.dtype.is_float:
        return _int_power(x, n)
    if n.is_const and float(n.value) in (1.0, 2.0, 3.0, 4.0):
        square_ = x * x
        return {1.0: x, 2.0: square_, 3.0: square_ * x, 4.0: square_ * square_}[float(n.value)]
    return vecmath.pow(x, n)


def _power_array(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "i":
        kept = np.power(x, np.where(n < 0, np.zeros_like(n), n))
        small = np.where(x == 1, 1, np.where(x == -1, np.where(n % 2 == 1, -1, 1), 0))
        return np.where(n < 0, small, kept).astype(x.dtype)
    return np.power(x, n)


def _pow_vjp(g: Any, y: Any, x: Any, n: Any) -> list[Any]:
    zero = equal(n, zeros_like(n))
    base = where(x > 0, x, full_like(x, 1))
    return [g * where(zero, zeros_like(x), n * pow_(x, n - 1)), g * where(x > 0, y * log(base), where(equal(y, y), zeros_like(y), y))]


pow_ = elementwise("pow", _power_array, NUMBERS, arity=2, samples=[(0.1, 4), (-3, 3)], vjp=_pow_vjp,
                   decompose=_pow)
atan2 = elementwise("atan2", np.arctan2, FLOATS, arity=2, decompose=vecmath.atan2,
                    vjp=lambda g, r, y, x: [g * x / (x * x + y * y), -(g * y / (x * x + y * y))])


def _hypot_vjp(g: Any, r: Any, x: Any, y: Any) -> list[Any]:
    """0 at the origin."""
    safe = where(equal(r, zeros_like(r)), full_like(r, 1), r)
    return [g * (x / safe), g * (y / safe)]


def _logaddexp_vjp(g: Any, y: Any, a: Any, b: Any) -> list[Any]:
    """Equal operands share, infinite ones as well."""
    d = where(equal(a, b), zeros_like(a), a - b)
    return [g * expit(d), g * expit(-d)]


hypot = elementwise("hypot", np.hypot, FLOATS, arity=2, decompose=vecmath.hypot, vjp=_hypot_vjp)
logaddexp = elementwise("logaddexp", np.logaddexp, FLOATS, arity=2, decompose=vecmath.logaddexp, vjp=_logaddexp_vjp)
stop_gradient = elementwise("stop_gradient", lambda x: x, ALL, exact=True, raw=True, decompose=lambda x: x, vjp=lambda g, y, x: [None],
                            doc="the identity, through which no gradient flows")
