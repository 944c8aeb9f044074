"""log and what is made of it: log2, log10, log1p, asinh, acosh, atanh, softplus, logaddexp.

    log(x) = k ln 2 + log(1 + f),   x = 2**k (1 + f),   sqrt(1/2) <= 1 + f < sqrt(2)
    log(1 + f) = f - (f*f/2 - s (f*f/2 + R(s*s))),      s = f / (2 + f)                      (fdlibm's e_log.c)

The integer k is taken from the exponent bits and becomes a float by being placed under the exponent of 2**mantissa.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.loops import Expr
from .vecmath_core import (
    DOUBLE,
    INF,
    NAN,
    absolute,
    bits,
    constants,
    equal,
    fast_two_sum,
    fma,
    format_of,
    from_bits,
    horner,
    inverse_power,
    sqrt,
    two_sum,
    where,
    with_sign,
)
from .vecmath_exp import exp

LN2 = 0.6931471805599453
LARGE = 2.0**28
LN2_HEAD, LN2_TAIL = 0.6931471803691238, 1.9082149292705877e-10
SQRT_HALF = {23: 0x3F3504F3, 52: 0x3FE6A09E667F3BCD}
# (log((1+s)/(1-s)) - 2 s) / s**3 in s**2 < 0.0295
LOG = (0.6666666666666735, 0.39999999999408575, 0.2857142874398151, 0.22222198388944175, 0.181835748543412, 0.1531375900964216,
       0.14799072224630277)


@dataclass(frozen=True)
class Parts:
    """x = 2**k * m; k is a float, ``place`` the word bias + k."""

    m: Expr
    k: Expr
    place: Expr


def split(x: Expr) -> Parts:
    """The parts of a positive finite number, with sqrt(1/2) <= m < sqrt(2)."""
    f = format_of(x)
    small = x < f.tiny
    word = bits(where(small, x * 2.0 ** (f.mantissa + 2), x)) + ((f.bias << f.mantissa) - SQRT_HALF[f.mantissa])
    place = word >> f.mantissa
    m = from_bits((word & ((1 << f.mantissa) - 1)) + SQRT_HALF[f.mantissa])
    whole = 2.0**f.mantissa
    k = from_bits(place | ((f.bias + f.mantissa) << f.mantissa))
    return Parts(m, k - constants(small, whole + f.bias + f.mantissa + 2, whole + f.bias, x), place)


def log_near(f: Expr) -> tuple[Expr, Expr]:
    """log(1 + f) = f - a + b as (a, b), where a = f*f/2 and b is small."""
    s = f / (2 + f)
    half_square = f * f * 0.5
    z = s * s
    return half_square, s * fma(z, horner(z, LOG), half_square)


def defined(x: Expr, y: Expr, pole: float = 0.0) -> Expr:
    """y where pole < x < inf; else what a logarithm is there."""
    return where(x > pole, where(x < INF, y, x), where(x < pole, NAN, where(x >= pole, -INF, x)))


def log(x: Expr) -> Expr:
    p = split(x)
    f = p.m - 1
    a, b = log_near(f)
    return defined(x, fma(p.k, LN2_HEAD, f - (a - fma(p.k, LN2_TAIL, b))))


def log1p_parts(u: Expr, du: Expr) -> tuple[Expr, Expr]:
    """log(u + du) as (large, small), for a normal u and |du| <= ulp(u)."""
    p = split(u)
    d = where(p.k > 1000.0, 0.0, du * inverse_power(p.place, DOUBLE.bias))  # nothing is left of du up there
    f, df = two_sum(p.m - 1, d)
    a, b = log_near(f)
    large, rest = fast_two_sum(p.k * LN2_HEAD, f)
    return large, rest - (a - fma(p.k, LN2_TAIL, b)) + df * (1 - f)


def log1p(x: Expr) -> Expr:
    u, du = two_sum(x, 1.0)
    large, small = log1p_parts(u, du)
    return defined(x, where(absolute(x) < 2.0**-54, x, large + small), -1.0)


def scaled_log(x: Expr, head: float, tail: float, per_k: tuple[float, float]) -> Expr:
    """log(x) * (head + tail), where k counts per_k."""
    p = split(x)
    f = p.m - 1
    a, b = log_near(f)
    da = fma(f * 0.5, f, -a)
    large, rest = fast_two_sum(f, -a)
    rest = (rest - da) + b
    product = large * head
    small = fma(rest, head, fma(large, tail, fma(large, head, -product)))
    top = p.k * per_k[0]
    total, lost = fast_two_sum(top, product)
    return defined(x, total + (lost + fma(p.k, per_k[1], small)))


def log2(x: Expr) -> Expr:
    return scaled_log(x, 1.4426950408889634, 2.0355273740931033e-17, (1.0, 0.0))


def log10(x: Expr) -> Expr:
    return scaled_log(x, 0.4342944819032518, 1.098319650216765e-17, (0.3010299955494702, 1.1451100898021838e-10))


def log1p_sum(w: Expr, dw: Expr) -> Expr:
    """log(1 + w + dw) for w > -1/2."""
    u, du = two_sum(w, 1.0)
    large, small = log1p_parts(u, du + dw)
    return large + small


def asinh(x: Expr) -> Expr:
    """log1p(a + a*a / (1 + sqrt(a*a + 1))), or, where 1 is nothing beside a, log(a) + log(2)."""
    a = absolute(x)
    far = a > LARGE
    b = where(far, 1.0, a)
    square = b * b
    w, dw = two_sum(b, square / (1 + sqrt(square + 1)))
    y = log_far_or_near(far, a, w, dw)
    return where(a < 2.0**-28, x, where(a < INF, with_sign(y, x), x))


def acosh(x: Expr) -> Expr:
    """log1p(t + sqrt(2 t + t*t)) with t = x - 1, or, where 1 is nothing beside x, log(x) + log(2)."""
    far = x > LARGE
    t = where(far, 1.0, x - 1)
    square = fma(t, t, t + t)
    dsquare = fma(t, t, (t + t) - square)
    root = sqrt(square)
    droot = (fma(-root, root, square) + dsquare) * 0.5 / where(root > 0.0, root, 1.0)
    w, dw = fast_two_sum(root, t)
    y = log_far_or_near(far, x, w, dw + droot)
    return where(x < INF, where(x < 1.0, NAN, y), x)


def log_far_or_near(far: Expr, a: Expr, w: Expr, dw: Expr) -> Expr:
    """log(2 a) where far, else log(1 + w + dw)."""
    u, du = two_sum(w, 1.0)
    large, small = log1p_parts(where(far, a, u), where(far, 0.0, du + dw))
    return large + where(far, small + LN2, small)


def atanh(x: Expr) -> Expr:
    """log1p(2 a / (1 - a)) / 2."""
    a = absolute(x)
    d, dd = two_sum(-a, 1.0)
    reciprocal = 1 / d
    q = (a + a) * reciprocal
    dq = (fma(-q, d, a + a) - q * dd) * reciprocal
    y = log1p_sum(q, dq) * 0.5
    y = where(a < 1.0, y, where(a > 1.0, NAN, where(a >= 1.0, INF, a)))
    return where(a < 2.0**-28, x, with_sign(y, x))


def log1p_of_exp(x: Expr) -> Expr:
    """log(1 + exp(x)) for x <= 0."""
    w = exp(x)
    return where(x < -40.0, w, log1p_sum(w, w * 0))


def softplus(x: Expr) -> Expr:
    return where(x > 0.0, x, 0.0) + log1p_of_exp(-absolute(x))


def logaddexp(x: Expr, y: Expr) -> Expr:
    large = where(x > y, x, y)
    return where(equal(x, y), x + LN2, large + log1p_of_exp(-absolute(x - y)))
