"""exp and what is made of it: exp2, expm1, sinh, cosh, tanh.

    exp(x) = 2**n * (1 + p),   n = round(x / ln 2),   r = x - n ln 2,   p = r + r*r*P(r)

2**n is assembled in the exponent bits, from a number to which n was added far beyond the point (``Format.magic``), so there is no
conversion to an integer. It is applied as two factors, so that results too small to be normal are rounded once.
"""

from __future__ import annotations

from ..ir.loops import Expr
from .vecmath_core import absolute, bits, fma, format_of, from_bits, horner, inverse_power, power_of_two, quotient, where, with_sign

LOG2_E = 1.4426950408889634
# per mantissa: ln 2 as a head and a tail; (exp(r) - 1 - r) / r**2 on |r| < 0.3467
LN2 = {23: (0.693145751953125, 1.4286068203094173e-06), 52: (0.6931471803691238, 1.9082149292705877e-10)}
LN2_FULL = {23: (0.6931471824645996, -1.904654299957768e-09), 52: (0.6931471805599453, 2.3190468138462996e-17)}
EXP = {
    23: (0.5, 0.16666647791862488, 0.041666485369205475, 0.008337875828146935, 0.0013932890724390745, 0.00017337519966531545),
    52: (0.5, 0.16666666666666688, 0.041666666666666824, 0.008333333333313887, 0.0013888888888777592, 0.0001984126990340441,
         2.4801587560651292e-05, 2.755722862923604e-06, 2.755706593735634e-07, 2.5113956252187253e-08, 2.0978439437130434e-09),
}
# the same with one coefficient less, which is enough where 1 is added
EXP_SHORT = {
    23: (0.5, 0.16666488349437714, 0.04166555404663086, 0.008372284471988678, 0.0014035225613042712),
    52: (0.500000000000001, 0.16666666666665464, 0.04166666666653005, 0.008333333333713298, 0.001388888894648788, 0.00019841269671348532,
         2.4801487383552586e-05, 2.755699053502894e-06, 2.76331000254458e-07, 2.5303234766586205e-08),
}
# exp and exp2 overflow above the second and are 0 below the first (rounded outwards)
EXP_RANGE = {23: (-104.0, 89.0), 52: (-746.0, 710.0)}
EXP2_RANGE = {23: (-151.0, 129.0), 52: (-1076.0, 1025.0)}


def clamp(x: Expr, lo: float, hi: float) -> Expr:
    """x within [lo, hi]; nan stays."""
    x = where(x > hi, hi, x)
    return where(x < lo, lo, x)


def split(x: Expr) -> tuple[Expr, Expr]:
    """(r, k): x = n ln 2 + r with |r| <= ln(2)/2, and k an integer with n + 2 * bias in its low bits. x must be clamped."""
    f = format_of(x)
    head, tail = LN2_FULL[f.mantissa]
    shifted = fma(x, LOG2_E, f.magic + 2 * f.bias)
    n = shifted - (f.magic + 2 * f.bias)
    return fma(n, -tail, fma(n, -head, x)), bits(shifted)


def scale(y: Expr, k: Expr) -> Expr:
    """y * 2**n for k = n + 2 * bias, rounded once."""
    f = format_of(y)
    half = k >> 1
    return y * from_bits(half << f.mantissa) * from_bits((k - half) << f.mantissa)


def expm1_near(r: Expr) -> Expr:
    """exp(r) - 1 on |r| <= ln(2)/2."""
    return fma(r * r, horner(r, EXP[format_of(r).mantissa]), r)


def exp_near(r: Expr) -> Expr:
    """exp(r) on |r| <= ln(2)/2."""
    return horner(r, (1.0, 1.0, *EXP_SHORT[format_of(r).mantissa]))


def exp(x: Expr) -> Expr:
    f = format_of(x)
    r, k = split(clamp(x, *EXP_RANGE[f.mantissa]))
    return scale(exp_near(r), k)


def exp2(x: Expr) -> Expr:
    f = format_of(x)
    head, tail = LN2_FULL[f.mantissa]
    x = clamp(x, *EXP2_RANGE[f.mantissa])
    shifted = x + (f.magic + 2 * f.bias)
    t = x - (shifted - (f.magic + 2 * f.bias))
    r = fma(t, head, t * tail)
    return scale(exp_near(r), bits(shifted))


def split_exactly(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, c, k): as ``split``, and c is what r misses."""
    f = format_of(x)
    head, tail = LN2[f.mantissa]
    shifted = fma(x, LOG2_E, f.magic + 2 * f.bias)
    n = shifted - (f.magic + 2 * f.bias)
    a, b = fma(n, -head, x), n * tail
    r = a - b
    return r, (a - r) - b, bits(shifted)


def expm1(x: Expr) -> Expr:
    """2 * (s p + (s - 1/2)) with s = 2**(n-1): it overflows only where the result does."""
    f = format_of(x)
    r, c, k = split_exactly(clamp(x, {23: -20.0, 52: -40.0}[f.mantissa], EXP_RANGE[f.mantissa][1]))
    s = power_of_two(k, 2 * f.bias + 1)
    h = s - 0.5
    missed = (s - h) - 0.5
    a = fma(s, r, h)
    rest = fma(s, fma(r * r, horner(r, EXP[f.mantissa]), c), fma(s, r, h - a) + missed)
    return where(absolute(x) < 2.0 ** -(f.mantissa + 2), x, (a + rest) * 2)


# (sinh(r) - r) / r**3 and (cosh(r) - 1) / r**2 in r**2, on |r| < 0.3467
SINH = {52: (0.16666666666666666, 0.008333333333334426, 0.00019841269837078186, 2.755732624498663e-06, 2.5046760448476565e-08,
             1.7585787084001238e-10)}
COSH = {52: (0.5, 0.041666666666666685, 0.0013888888888873283, 2.480158734920488e-05, 2.7557251815731853e-07, 2.092177163555668e-09)}


def hyperbolic(x: Expr, limit: float, shift: int = 0) -> tuple[tuple[Expr, Expr], tuple[Expr, Expr]]:
    """sinh(x) and cosh(x), each times 2**-shift as an unevaluated sum (large, small), for 0 <= x, clamped to the limit:

        sinh(n ln 2 + r) = u cosh(r) + v sinh(r),   cosh(n ln 2 + r) = v cosh(r) + u sinh(r),   u, v = (2**n -+ 2**-n) / 2
    """
    f = format_of(x)
    r, c, k = split_exactly(where(x > limit, limit, x))
    up, down = power_of_two(k, 2 * f.bias + 1 + shift), where(x > 60.0, 0.0, inverse_power(k, 2 * f.bias, 1 + shift))
    u, v = up - down, up + down
    z = r * r
    even, odd = z * horner(z, COSH[f.mantissa]), fma(r * z, horner(z, SINH[f.mantissa]), c)

    def combine(a: Expr, b: Expr, missed: Expr) -> tuple[Expr, Expr]:
        large = fma(b, r, a)
        return large, fma(b, odd, fma(a, even, fma(b, r, a - large) + missed))

    return combine(u, v, (up - u) - down), combine(v, u, (up - v) + down)


def sinh(x: Expr) -> Expr:
    a = absolute(x)
    (large, small), _ = hyperbolic(a, 711.0, 3)
    return where(a < 2.0**-28, x, with_sign((large + small) * 8, x))


def cosh(x: Expr) -> Expr:
    _, (large, small) = hyperbolic(absolute(x), 711.0, 3)
    return (large + small) * 8


def tanh(x: Expr) -> Expr:
    a = absolute(x)
    (s, ds), (c, dc) = hyperbolic(a, 22.0)
    return where(a < 2.0**-28, x, with_sign(quotient(s, ds, c, dc), x))
