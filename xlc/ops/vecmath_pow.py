"""Powers, roots and remainders: pow, cbrt, rsqrt, hypot, floor_divide, remainder.

    pow(x, y) = exp(y * log(x)),  log as an unevaluated sum of two floats of together 66 bits
    remainder(x, y) = x - floor(x/y) y exactly: r <- r - round(r/y) y takes 53 bits off the quotient each time, without rounding
"""

from __future__ import annotations

from ..ir.loops import Expr, const
from ..ir.types import f32, f64
from .vecmath_core import (
    DOUBLE,
    INF,
    NAN,
    absolute,
    bits,
    cast,
    constants,
    copysign,
    equal,
    fast_two_sum,
    floor,
    fma,
    horner,
    nearest,
    not_equal,
    power_of_two,
    sqrt,
    trunc,
    two_product,
    two_sum,
    where,
    with_sign,
)
from .vecmath_exp import clamp, expm1_near, scale, split_exactly
from .vecmath_log import LN2_HEAD, LN2_TAIL
from .vecmath_log import split as split_log

# (log((1+s)/(1-s)) - 2 s - 2/3 s**3) / s**5 in s*s < 0.0295
LOG_LONG = (0.39999999999999974, 0.28571428571447044, 0.22222222217068988, 0.1818181892731018, 0.15384553007070764, 0.13336465150289906,
            0.11671838091361628, 0.1201368397567979)
TWO_THIRDS, TWO_THIRDS_TAIL = 0.6666666666666666, 3.700743415417188e-17
CBRT = (0.5578437652429168, 0.5676984980055966, -0.1502374374032339, 0.024359851931163762, -0.001555432438279868)  # on [0.7, 5.66]


def log_long(a: Expr) -> tuple[Expr, Expr]:
    """log(a) as (large, small), for a positive finite f64."""
    p = split_log(a)
    f = p.m - 1
    d, dd = two_sum(f, 2.0)
    reciprocal = 1 / d
    s = f * reciprocal
    ds = (fma(-s, d, f) - s * dd) * reciprocal
    z = s * s
    dz = fma(s, s, -z) + 2 * s * ds
    cube, dcube = two_product(s, z)
    dcube = dcube + fma(s, dz, ds * z)
    c, dc = two_sum(z * horner(z, LOG_LONG), TWO_THIRDS)
    rest, drest = two_product(cube, c)
    drest = drest + fma(cube, dc + TWO_THIRDS_TAIL, dcube * c)
    large, low = two_sum(p.k * LN2_HEAD, s + s)
    large, lower = two_sum(large, rest)
    return fast_two_sum(large, low + lower + (drest + fma(p.k, LN2_TAIL, ds + ds)))


def pow(x: Expr, y: Expr) -> Expr:
    a = absolute(x)
    large, small = log_long(a)
    large = where(a > 0.0, where(a < INF, large, a), where(a >= 0.0, -INF, a))
    exponent, missed = y * large, fma(y, large, -(y * large))
    missed = where(absolute(exponent) < 800.0, fma(y, small, missed), 0.0)
    r, c, k = split_exactly(clamp(exponent, -800.0, 800.0))
    p = expm1_near(r)
    rest = c + missed
    return powered(x, y, scale(1 + (p + fma(rest, p, rest)), k))


def powered(x: Expr, y: Expr, size: Expr) -> Expr:
    """x**y, from the size |x|**y that it has where nothing special happens."""
    a = absolute(x)
    whole = equal(trunc(y), y)
    odd = whole & not_equal(trunc(y * 0.5), y * 0.5)
    size = where(equal(a, 1.0), where(equal(y, y), 1.0, y), size)
    signed = where(odd, with_sign(size, x), where((x < 0.0) & (a < INF) & ~whole, NAN, size))
    return where(equal(y, 0.0) | equal(x, 1.0), 1.0, signed)


def cube_root_parts(a: Expr) -> tuple[Expr, Expr]:
    """(m, power): a = m * power**3, power is a power of two, and m lies within [0.7, 5.66]. For positive finite f64."""
    p = split_log(a)
    third = nearest(fma(p.k, 1 / 3, -0.3))
    step = fma(third, -3.0, p.k)
    m = p.m * where(step > 1.5, 4.0, constants(step > 0.5, 2.0, 1.0, a))
    return m, power_of_two(bits(third + (DOUBLE.magic + DOUBLE.bias)), DOUBLE.bias)


def cbrt(x: Expr) -> Expr:
    """Halley's iteration, then Newton's with the cube as an exact sum."""
    a = absolute(x)
    m, power = cube_root_parts(a)
    y = horner(m, CBRT)
    cube = y * y * y
    y = y * ((cube + 2 * m) / (2 * cube + m))
    square, dsquare = two_product(y, y)
    y = y - (fma(square, y, -m) + dsquare * y) / (3 * square)
    return where((a > 0.0) & (a < INF), with_sign(y * power, x), x)


def rsqrt(x: Expr) -> Expr:
    small, large = x < 2.0**-900, x > 2.0**900
    z = x * where(small, 2.0**200, constants(large, 2.0**-200, 1.0, x))
    y = 1 / sqrt(z)
    square, dsquare = two_product(y, y)
    better = fma(y * -0.5, fma(square, z, -1.0) + dsquare * z, y)
    better = better * where(small, 2.0**100, constants(large, 2.0**-100, 1.0, x))
    return where((x > 0.0) & (x < INF), better, y)


def hypot(x: Expr, y: Expr) -> Expr:
    if x.dtype is f32:
        x, y = cast(x, f64), cast(y, f64)
        return cast(endless(x, y, sqrt(fma(x, x, y * y))), f32)
    a, b = absolute(x), absolute(y)
    a, b = where(a > b, a, b), where(a > b, b, a)
    up = where(a > 2.0**500, 2.0**-600, constants(a < 2.0**-450, 2.0**600, 1.0, a))
    down = where(a > 2.0**500, 2.0**600, constants(a < 2.0**-450, 2.0**-600, 1.0, a))
    a, b = a * up, b * up
    s, ds = two_product(a, a)
    t, dt = two_product(b, b)
    total, missed = fast_two_sum(s, t)
    h = sqrt(total)
    dh = (fma(-h, h, total) + (missed + ds + dt)) * 0.5 / where(h > 0.0, h, 1.0)
    return endless(x, y, (h + dh) * down)


def endless(x: Expr, y: Expr, value: Expr) -> Expr:
    """inf where x or y is, even beside nan."""
    return where((absolute(x) >= INF) | (absolute(y) >= INF), INF, value)


def nearest_remainder(x: Expr, y: Expr) -> Expr:
    """x - n y for an integer n such that it is at most y/2, exactly; x itself where it is less than y."""
    r, b = x, absolute(y)
    if x.dtype is f32:
        r, b = cast(x, f64), cast(b, f64)
        for _ in range(6):
            r = fma(-nearest(r / b), b, r)
        return where(absolute(x) < absolute(y), x, cast(r, f32))
    for power in (1400, 700, 0):
        divisor = b * 2.0**(power // 2) * 2.0**(power - power // 2)
        for _ in range(14):
            r = where(absolute(r) < divisor, r, fma(-nearest(r / divisor), divisor, r))
    return where(absolute(x) < absolute(y), x, r)


def remainder(x: Expr, y: Expr) -> Expr:
    """As Python and NumPy: the sign of y."""
    r = nearest_remainder(x, y)
    turned = where((r < 0.0) & (y > 0.0) | (r > 0.0) & (y < 0.0), r + y, r)
    return where(equal(r, 0.0), copysign(const(0.0, x.dtype), y), turned)


def floor_divide(x: Expr, y: Expr) -> Expr:
    """As NumPy's, which rounds (x - fmod(x, y)) / y to the next integer."""
    r = nearest_remainder(x, y)
    size = absolute(y)
    mod = where((r < 0.0) & (x > 0.0), r + size, where((r > 0.0) & (x < 0.0), r - size, r))
    turned = (mod < 0.0) & (y > 0.0) | (mod > 0.0) & (y < 0.0)
    quotient = (x - mod) / y
    quotient = where(turned, quotient - 1, quotient)
    down = floor(quotient)
    down = where(quotient - down > 0.5, down + 1, down)
    return where(equal(y, 0.0), x / y, where(equal(quotient, 0.0), copysign(quotient * 0, x / y), down))
