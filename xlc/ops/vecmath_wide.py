"""f32 functions by way of f64, with polynomials cut to some 2**-30: one rounding is all that the result shows.

    log64(z) = k ln 2 + f P(f),   z = 2**k (1 + f),   2/3 <= 1 + f < 4/3
    sinh(n ln 2 + r) = u cosh(r) + v sinh(r),   u, v = (2**n -+ 2**-n) / 2

Near 0 the first terms of a series take over where a sum would have cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.loops import Expr, const
from ..ir.types import f32, f64
from .vecmath_core import (
    DOUBLE,
    INF,
    NAN,
    absolute,
    bits,
    cast,
    equal,
    fma,
    from_bits,
    horner,
    inverse_power,
    power_of_two,
    sqrt,
    where,
    with_sign,
)
from .vecmath_log import LN2, defined
from .vecmath_pow import CBRT, cube_root_parts, powered
from .vecmath_single import LOG2_E, exp64, phi
from .vecmath_trig import HALF_PI

LOG10_E, LOG10_2 = 0.4342944819032518, 0.3010299956639812
TWO_THIRDS = 0x3FE5555555555555
# log(1+f) / f on |f| <= 1/3: for one rounding, and for a product with a large number behind it
LOG = (0.9999999999101451, -0.5000000203425962, 0.3333333926989556, -0.2499963803422294, 0.19999372738316512, -0.16684596673158433,
       0.1430967931657129, -0.1214157979921676, 0.10703591503266031, -0.13046321880642445, 0.12181586213717198)
LOG_LONG = (1.0000000000024996, -0.500000000017102, 0.33333333114564306, -0.2499999942326485, 0.20000031176839084, -0.1666672267086383,
            0.14284054866533008, -0.1249761681366282, 0.11152877679924246, -0.10051600110424964, 0.08558748217180472, -0.07744445231125628,
            0.10937864449166458, -0.10436877642866753)
# sinh(r) / r and cosh(r) in r*r on |r| < 0.3467; atan(q) / q in q*q on |q| <= 1; asin(s) / s in s*s on |s| <= 1/2
SINH = (0.9999999999955383, 0.16666666785934872, 0.008333283607101798, 0.00019907539448660557)
COSH = (0.9999999999606091, 0.5000000106217478, 0.041666221544433446, 0.0013948406647317888)
ATAN = (0.9999999976316402, -0.3333328365145558, 0.19998266235352685, -0.1426193482629275, 0.10942038856909643, -0.0837733789125177,
        0.057552465836324646, -0.030804941085013974, 0.010727119027236472, -0.0017539671054663546)
ASIN = (1.0000000002544804, 0.1666665694600741, 0.07500604114522365, 0.04450307841523922, 0.031900894355543045, 0.01413909966859762,
        0.03788618013219048)


def log64(z: Expr, coefficients: Sequence[float] = LOG, unit: float = 1.0, per_k: float = LN2) -> Expr:
    """log(z) * unit for a positive normal f64; ``per_k`` is log(2) * unit."""
    word = bits(z) + ((1023 << 52) - TWO_THIRDS)
    k = from_bits((word >> 52) | (1075 << 52)) - (2.0**52 + 1023)
    f = from_bits((word & ((1 << 52) - 1)) + TWO_THIRDS) - 1
    return fma(k, per_k, f * horner(f, [c * unit for c in coefficients]))


def log2(x: Expr) -> Expr:
    return defined(x, cast(log64(cast(x, f64), unit=LOG2_E, per_k=1.0), f32))


def log10(x: Expr) -> Expr:
    return defined(x, cast(log64(cast(x, f64), unit=LOG10_E, per_k=LOG10_2), f32))


def log1p(x: Expr) -> Expr:
    z = cast(x, f64)
    y = where(absolute(z) < 2.0**-20, fma(z * -0.5, z, z), log64(z + 1))
    return defined(x, cast(y, f32), -1.0)


def asinh(x: Expr) -> Expr:
    a = cast(absolute(x), f64)
    square = a * a
    y = where(a < 2.0**-10, fma(a * square, -1 / 6, a), log64(a + sqrt(square + 1)))
    return with_sign(where(a < INF, cast(y, f32), cast(a, f32)), x)


def acosh(x: Expr) -> Expr:
    z = cast(x, f64)
    y = log64(z + sqrt(fma(z, z, -1.0)))
    return where(x >= 1.0, where(x < INF, cast(y, f32), x), NAN)


def atanh(x: Expr) -> Expr:
    a = cast(absolute(x), f64)
    y = where(a < 2.0**-10, fma(a * a * a, 1 / 3, a), log64((1 + a) / (1 - a)) * 0.5)
    return with_sign(where(a < 1.0, cast(y, f32), where(a > 1.0, NAN, where(a >= 1.0, INF, absolute(x)))), x)


def hyperbolic(a: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """(u, v, r, r*r), for a in [0, 100] of f64."""
    shifted = fma(a, LOG2_E, DOUBLE.magic + DOUBLE.bias)
    r = fma(shifted - (DOUBLE.magic + DOUBLE.bias), -LN2, a)
    k = bits(shifted)
    up, down = power_of_two(k, DOUBLE.bias + 1), inverse_power(k, DOUBLE.bias, 1)
    return up - down, up + down, r, r * r


def sinh(x: Expr) -> Expr:
    z = cast(x, f64)
    z = where(absolute(z) > 100.0, with_sign(const(100.0, f64), z), z)
    u, v, r, square = hyperbolic(absolute(z))
    return with_sign(cast(fma(v * r, horner(square, SINH), u * horner(square, COSH)), f32), x)


def cosh(x: Expr) -> Expr:
    a = cast(absolute(x), f64)
    u, v, r, square = hyperbolic(where(a > 100.0, 100.0, a))
    return cast(fma(u * r, horner(square, SINH), v * horner(square, COSH)), f32)


def erfc(x: Expr) -> Expr:
    z = cast(x, f64)
    tail = phi(absolute(z) * 1.4142135623730951) * 2
    return cast(where(z < 0.0, 2 - tail, tail), f32)


def arctangent(n: Expr, d: Expr) -> Expr:
    """atan(n / d) for f64 n, d >= 0, of which not both are 0 or inf."""
    steep = n > d
    q = where(steep, d, n) / where(steep, n, d)
    y = q * horner(q * q, ATAN)
    return where(steep, HALF_PI - y, y)


def atan(x: Expr) -> Expr:
    return with_sign(cast(arctangent(cast(absolute(x), f64), const(1.0, f64)), f32), x)


def atan2(y: Expr, x: Expr) -> Expr:
    a, b = cast(absolute(y), f64), cast(absolute(x), f64)
    both = (a >= INF) & (b >= INF)
    a, b = where(both, 1.0, a), where(both | equal(a + b, 0.0), 1.0, b)
    angle = arctangent(a, b)
    return with_sign(cast(where((bits(x) >> 31) > 0, 2 * HALF_PI - angle, angle), f32), y)


def arc(x: Expr) -> tuple[Expr, Expr]:
    """(y, big): asin of the f64 |x|, or, where it is big (above 1/2), of sqrt((1 - |x|) / 2)."""
    a = absolute(x)
    big = a > 0.5
    z = where(big, fma(a, -0.5, 0.5), a * a)
    return where(big, sqrt(z), a) * horner(z, ASIN), big


def asin(x: Expr) -> Expr:
    y, big = arc(cast(x, f64))
    return with_sign(cast(where(big, fma(y, -2.0, HALF_PI), y), f32), x)


def acos(x: Expr) -> Expr:
    z = cast(x, f64)
    y, big = arc(z)
    flat = HALF_PI - with_sign(y, z)
    return cast(where(big, where(z < 0.0, fma(y, -2.0, 2 * HALF_PI), y + y), flat), f32)


def cbrt(x: Expr) -> Expr:
    m, power = cube_root_parts(cast(absolute(x), f64))
    y = horner(m, CBRT)
    cube = y * y * y
    y = y * ((cube + 2 * m) / (2 * cube + m)) * power
    return where((absolute(x) > 0.0) & (absolute(x) < INF), with_sign(cast(y, f32), x), x)


def rsqrt(x: Expr) -> Expr:
    y = 1 / sqrt(x)
    z = cast(y, f64)
    better = fma(z * 0.5, fma(-z * z, cast(x, f64), 1.0), z)
    return where((x > 0.0) & (x < INF), cast(better, f32), y)


def pow(x: Expr, y: Expr) -> Expr:
    a, exponent = cast(absolute(x), f64), cast(y, f64)
    large = log64(a, LOG_LONG)
    large = where(a > 0.0, where(a < INF, large, a), where(a >= 0.0, -INF, a))
    z = exponent * large
    z = where(z > 200.0, 200.0, z)
    return powered(x, y, cast(exp64(where(z < -200.0, -200.0, z)), f32))
