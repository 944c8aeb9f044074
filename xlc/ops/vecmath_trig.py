"""sin, cos, tan and their inverses.

Arguments of any size are reduced exactly (Payne and Hanek), without a branch: the leading bits of x / (2 pi) count whole turns and are
never computed. Of 1/(2 pi) only the bits from a position on matter, which depends on the exponent of x:

    f64: x * 2**-32j times frac(2**32j / (2 pi)) in four words of 53 bits, from a table of 31 rows; products are exact pairs
    f32: x times three words of 29 bits and one of 53, from one of two positions; 24 + 29 bits are an exact f64 product

What is left is a fraction of a turn. The f32 functions go on in f64, which leaves room for plain evaluation.
"""

from __future__ import annotations

from ..ir.loops import Expr, const
from ..ir.types import f32, f64
from .vecmath_core import (
    INF,
    NAN,
    absolute,
    bits,
    cast,
    constants,
    copysign,
    equal,
    fast_two_sum,
    fma,
    from_bits,
    horner,
    nearest,
    not_equal,
    quotient,
    sqrt,
    table,
    two_product,
    two_sum,
    where,
    with_sign,
)

TWO_PI, TWO_PI_TAIL = 6.283185307179586, 2.4492935982947064e-16
# frac(2**(32 j) / (2 pi)) for j = 0..30 as four doubles each, to 212 bits
TURNS = (
    (0.15915494309189535, 0.5764315897822948, 0.4962438318155379, 0.4894594811401896, 0.21424325702452368, 0.30885148432533194,
     0.49835735069762754, 0.9675131646052119, 0.42884990912041393, 0.5647499989732491, 0.006138546976630695, 0.5095885114856439,
     0.24816100466368032, 0.17301045724355132, 0.727059214677577, 0.2956362444041613, 0.2281358264563944, 0.6761455275831326,
     0.3062203857997077, 0.37824717097749205, 0.1528487137834357, 0.9355207716071098, 0.7812217473906508, 0.9668182143903287,
     0.9835779897025624, 0.837930398028496, 0.8566531957566879, 0.7888604658253995, 0.8274164110549406, 0.6546627607579365,
     0.364409368946303),
    (-9.839338337591243e-18, -2.8379563267480424e-17, -7.794641491660314e-18, 1.9423961760004573e-17, 8.94377744103428e-19,
     1.2737614411829066e-17, 1.8671525366907604e-17, 4.9361814006880354e-17, 9.97499275816504e-18, 5.174406847611988e-17,
     3.9292359538905395e-19, 3.855276614753999e-17, -2.6168813635855343e-18, -7.085497756857632e-18, 1.5679088660348827e-17,
     5.245449001145765e-19, -6.054931925541655e-18, -3.3915023178570774e-17, -2.097102609221723e-17, -1.5755885760791695e-18,
     8.012916365255464e-19, -2.7757374403831163e-17, -2.7539625420093866e-17, -5.015313628818215e-17, 4.5528720398562216e-17,
     -4.131414152527401e-18, 3.370933178919571e-17, -2.078704896973778e-18, 3.5310535385877453e-17, -1.8107240460094006e-17,
     5.139638599652889e-18),
    (-5.360718141446502e-34, -1.4163110933705578e-33, 1.7157661998664718e-34, 8.37266327054085e-34, -1.1024876734099253e-35,
     2.1332449696655817e-34, 6.655884293621639e-34, -2.639330090883487e-33, -6.947428806792178e-34, 1.4405188768548412e-33,
     -1.669282188255462e-35, 1.0644482099967317e-34, 1.5733177308087007e-34, -1.7149970003597467e-34, 1.5163415926875521e-33,
     -7.857068166715246e-36, 1.553449663790413e-34, 2.105631748394975e-34, -3.294711383158479e-34, 2.8587925099494197e-35,
     -1.9548519314125474e-35, 2.266267408765182e-33, 5.020061962037696e-34, 2.6238555848176286e-33, -2.5500297897751436e-33,
     3.0081386699224285e-34, -1.544848298627149e-33, -1.3018657624647792e-35, -1.2545851090230316e-33, 3.4794011265393624e-34,
     1.2392827119631619e-34),
    (4.026781963297056e-50, -1.1239462621282857e-51, -8.462771188179335e-52, -4.868286771783941e-50, 2.031294154355459e-52,
     4.2001642829777056e-51, 6.560725791012545e-51, 1.6979864977564405e-49, 3.2850087894004273e-50, -1.5696722286482764e-50,
     -8.475909736926427e-52, 6.422043066291366e-51, -7.769045293444727e-51, -4.2966863942490144e-51, -8.330666617990352e-50,
     3.4551024134184584e-52, -1.3542430212427635e-51, 2.1362786460964956e-50, 2.0060336329059202e-50, -5.453365751222337e-52,
     -1.3091685446198322e-51, -9.808186359962082e-50, 2.658940970902311e-50, -1.1808648347479356e-49, 1.0582455524332664e-49,
     -7.246403824109536e-51, -1.3431834745499515e-50, 6.870530488247614e-52, -7.863103103970065e-50, -1.3375898505174554e-50,
     -2.9921546522262326e-52),
)
# 1/(2 pi) in words of 29, 29, 29 and 53 bits: from its first bit, and from the bit of weight 2**-61 on
NEAR = (0.15915494272485375, 3.6704158115630214e-10, 5.690025167992954e-19, 1.470303687279978e-27)
FAR = (5.690025167992954e-19, 1.4703036846932608e-27, 2.5867171752090537e-36, 9.458140970740169e-46)
# sin(2 pi t) / t in t*t for |t| <= 1/4; the same, and cos(2 pi t), for |t| <= 1/8
SIN_TURN = (6.2831853070467165, -41.34170209694126, 81.60522369109599, -76.70417027402912, 42.00779729121175, -14.381390608861318)
SIN_EIGHTH = (6.283185307151009, -41.341702150574754, 81.60520381426635, -76.69777490425827, 41.46991529655533)
COS_EIGHTH = (0.9999999999439454, -19.73920863302315, 64.93931074028906, -85.44229755999822, 59.20278370995977)
# (sin(r) - r) / r**3 and (cos(r) - 1 + r*r/2) / r**4 in r*r for |r| <= pi/4
SIN = (-0.1666666666666663, 0.008333333333321839, -0.00019841269829357595, 2.7557313538648264e-06, -2.5050734515778715e-08,
       1.5895448527641815e-10)
COS = (0.041666666666666595, -0.0013888888888873338, 2.4801587288997207e-05, -2.7557314215133015e-07, 2.087570508207203e-09,
       -1.135873062838845e-11)
# (atan(q) - q) / q**3 in q*q for |q| < sqrt(2) - 1; (asin(s) - s) / s**3 in s*s for |s| <= 1/2
ATAN = (-0.3333333333333319, 0.19999999999952173, -0.14285714280052442, 0.11111110776197475, -0.09090897547540974, 0.076920564541349,
        -0.06663061055632201, 0.05847574676483335, -0.05037878902220919, 0.03802813007465415, -0.01786709206110966)
ASIN = (0.16666666666665403, 0.075000000003386, 0.04464285682692396, 0.0303819591979309, 0.022371756528586098, 0.01735972849214136,
        0.013884994250789477, 0.012170836275048483, 0.006520784854911621, 0.01954836519914792, -0.016256423335977245, 0.03193473379344187)
HALF_PI, HALF_PI_TAIL = 1.5707963267948966, 6.123233995736766e-17
TINY = 2.0**-13  # an f32 below is its own sine


def fraction(x: Expr) -> Expr:
    """x without its nearest integer."""
    return x - nearest(x)


def turn_single(x: Expr) -> tuple[Expr, Expr]:
    """x / (2 pi) without whole turns, as t + dt in f64, for the value of an f32. Next to a quarter, half or whole turn dt counts."""
    z = cast(x, f64)
    far = absolute(z) >= 2.0**83
    words = [constants(far, b, a, z) for a, b in zip(NEAR, FAR, strict=True)]
    t, e1 = fast_two_sum(fraction(z * words[0]), fraction(z * words[1]))
    t, e2 = fast_two_sum(t, fraction(z * words[2]))
    return fraction(t), fma(z, words[3], e1 + e2)


def quarter_double(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(q, r, dr): x = (q + 4 m) pi/2 + r + dr with q in -2..2 and |r| <= pi/4."""
    exponent = (bits(x) >> 52) & 0x7FF
    row = where((exponent > 1075) & (exponent < 2047), (exponent - 1075) >> 5, 0)
    z = from_bits(bits(x) - (row << 57))
    a, da = two_product(z, table(row, TURNS[0], f64))
    b, db = two_product(z, table(row, TURNS[1], f64))
    c, dc = two_product(z, table(row, TURNS[2], f64))
    d = fma(z, table(row, TURNS[3], f64), dc)
    top, e1 = two_sum(fraction(a), fraction(da))
    top, e2 = two_sum(top, fraction(b))
    c, e4 = two_sum(c, db)
    top, e3 = two_sum(fraction(top), c)
    top, low = two_sum(top, e1 + e2 + e3)
    low = low + e4 + d
    q = nearest(top * 4)
    t = fma(q, -0.25, top)
    t, low = fast_two_sum(t, low)
    r, dr = two_product(t, TWO_PI)
    return q, r, fma(t, TWO_PI_TAIL, fma(low, TWO_PI, dr))


def sin_parts(r: Expr, dr: Expr) -> tuple[Expr, Expr]:
    z = r * r
    return r, fma(r * z, horner(z, SIN), fma(dr, -0.5 * z, dr))


def cos_parts(r: Expr, dr: Expr) -> tuple[Expr, Expr]:
    z = r * r
    half = z * 0.5
    w = 1 - half
    return w, ((1 - w) - half) + fma(z * z, horner(z, COS), -(r * dr))


def sum_of(parts: tuple[Expr, Expr]) -> Expr:
    return parts[0] + parts[1]


def sin(x: Expr) -> Expr:
    if x.dtype is f32:
        t, dt = turn_single(x)
        back = absolute(t) > 0.25
        t = where(back, copysign(const(0.5, f64), t) - t, t) + where(back, -dt, dt)
        return where(absolute(x) < TINY, x, cast(t * horner(t * t, SIN_TURN), f32))
    q, r, dr = quarter_double(x)
    odd = absolute(q).equals(1.0)
    y = where(odd, sum_of(cos_parts(r, dr)), sum_of(sin_parts(r, dr)))
    return where(absolute(x) < 2.0**-27, x, where((q < 0.0) & odd | (absolute(q) > 1.5), -y, y))


def cos(x: Expr) -> Expr:
    if x.dtype is f32:
        t, dt = turn_single(x)
        t = (0.25 - absolute(t)) - with_sign(dt, t)
        return cast(t * horner(t * t, SIN_TURN), f32)
    q, r, dr = quarter_double(x)
    odd = absolute(q).equals(1.0)
    y = where(odd, sum_of(sin_parts(r, dr)), sum_of(cos_parts(r, dr)))
    return where((q > 0.0) & odd | (absolute(q) > 1.5), -y, y)


def tan(x: Expr) -> Expr:
    if x.dtype is f32:
        t, dt = turn_single(x)
        t = fma(nearest(t + t), -0.5, t)
        a, da = absolute(t), with_sign(dt, t)
        steep = a > 0.125
        a = where(steep, 0.25 - a, a) + where(steep, -da, da)
        up, along = a * horner(a * a, SIN_EIGHTH), horner(a * a, COS_EIGHTH)
        return where(absolute(x) < TINY, x, cast(with_sign(where(steep, along, up) / where(steep, up, along), t), f32))
    q, r, dr = quarter_double(x)
    odd = absolute(q).equals(1.0)
    (s, ds), (c, dc) = sin_parts(r, dr), cos_parts(r, dr)
    y = quotient(where(odd, -c, s), where(odd, -dc, ds), where(odd, s, c), where(odd, ds, dc))
    return where(absolute(x) < 2.0**-27, x, y)


def atan_parts(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """atan(a / b) for a, b >= 0, as (large, small), by way of

    atan(a/b) = pi/4 + atan((a-b) / (a+b)) = pi/2 - atan(b/a)
    """
    steep, middle = a > b * 2.414213562373095, a > b * 0.41421356237309503
    difference, missed = two_sum(a, -b)
    total, missed_too = two_sum(a, b)
    flat = ~middle
    n = where(steep, -b, where(flat, a, difference))
    d = where(steep, a, where(flat, b, total))
    dn = where(steep | flat, 0.0, missed)
    dd = where(steep | flat, 0.0, missed_too)
    reciprocal = 1 / d
    q = n * reciprocal
    dq = (fma(-q, d, n) + fma(-q, dd, dn)) * reciprocal
    z = q * q
    base = where(steep, HALF_PI, constants(flat, 0.0, HALF_PI / 2, q))
    tail = where(steep, HALF_PI_TAIL, constants(flat, 0.0, HALF_PI_TAIL / 2, q))
    large, rest = fast_two_sum(base, q)
    return large, rest + (fma(q * z, horner(z, ATAN), dq) + tail)


def atan(x: Expr) -> Expr:
    a = absolute(x)
    large, small = atan_parts(where(a > 2.0**60, 2.0**60, a), const(1.0, x.dtype))
    return where(a < 2.0**-28, x, with_sign(large + small, x))


def atan2(y: Expr, x: Expr) -> Expr:
    a, b = absolute(y), absolute(x)
    most = where(a > b, a, b)
    endless = most >= INF
    factor = where(most > 2.0**1000, 2.0**-30, constants(most < 2.0**-900, 2.0**120, 1.0, a))
    a = where(endless, constants(a >= INF, 1.0, 0.0, a), a * factor)
    b = where(endless, constants(b >= INF, 1.0, 0.0, b), b * factor)
    b = where(equal(a + b, 0.0), 1.0, b)
    large, small = atan_parts(a, b)
    left = (bits(x) >> 63) > 0
    turned, rest = fast_two_sum(const(2 * HALF_PI, x.dtype), -large)
    value = where(left, turned + (rest + (2 * HALF_PI_TAIL - small)), large + small)
    return where(not_equal(x, x) | not_equal(y, y), NAN, with_sign(value, y))


def arc(a: Expr) -> tuple[Expr, Expr, Expr]:
    """For 0 <= a <= 1: (s, t, big): asin(s + ...) = s + t, with s = a, or, where a is big (above 1/2), s = sqrt((1-a)/2)."""
    big = a > 0.5
    z = where(big, fma(a, -0.5, 0.5), a * a)
    root = sqrt(z)
    droot = fma(-root, root, z) * 0.5 / where(root > 0.0, root, 1.0)
    s = where(big, root, a)
    return s, fma(s * z, horner(z, ASIN), where(big, droot, 0.0)), big


def asin(x: Expr) -> Expr:
    """x + ..., or pi/2 - 2 asin(sqrt((1 - a) / 2)). nan above 1, from the square root."""
    a = absolute(x)
    s, t, big = arc(a)
    large, rest = fast_two_sum(const(HALF_PI, x.dtype), s * -2)
    y = where(big, large + (rest + fma(t, -2.0, HALF_PI_TAIL)), s + t)
    return where(a < 2.0**-28, x, with_sign(y, x))


def acos(x: Expr) -> Expr:
    """2 asin(sqrt((1 - x) / 2)), pi/2 - asin(x), pi - 2 asin(sqrt((1 + x) / 2))."""
    s, t, big = arc(absolute(x))
    negative = x < 0.0
    small_s, small_t = with_sign(s, x), with_sign(t, x)
    large, rest = fast_two_sum(where(big, 2 * HALF_PI, const(HALF_PI, x.dtype)), where(big, s * -2, -small_s))
    down = large + (rest + where(big, fma(t, -2.0, 2 * HALF_PI_TAIL), HALF_PI_TAIL - small_t))
    return where(big & ~negative, (s + t) * 2, down)
