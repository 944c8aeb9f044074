"""The f32 functions that programs spend their time in.

log, tanh and erf stay in f32: the large term of each sum is exact or the result itself, so only small terms carry errors.
The others need more bits than f32 has (a tail that is right relative to itself, a product behind an exponential): they take the shortest
way through f64, whose polynomials here are cut to some 2**-30:

    exp64(z):      n = round(z log2 e) by a shift beyond the point;  2**n * P(z - n ln 2)
    reciprocal(d): an f32 division, and one step of Newton in f64, because f64 division is the slowest instruction of all
"""

from __future__ import annotations

from ..ir.loops import Expr, const
from ..ir.types import f32, f64
from .vecmath_core import DOUBLE, INF, NAN, SINGLE, absolute, bits, cast, constants, fma, from_bits, horner, power_of_two, where, with_sign

LOG2_E, LN2 = 1.4426950408889634, 0.6931471805599453
LN2_HEAD, LN2_TAIL = 0.693145751953125, 1.4286068203094173e-06
# (log(1+f) - f + f*f/2) / f**3 on |f| <= 1/3
LOG = (0.3333333432674408, -0.24999943375587463, 0.19999749958515167, -0.166733980178833, 0.1430085450410843, -0.12287233024835587,
       0.10785927623510361, -0.12429900467395782, 0.11915426701307297)
TANH_EDGE = 0.8
# (tanh(x) - x) / x**3 in x*x below the edge; (1 - tanh) / w in w = exp(-2 x) above; exp(-2 r) on |r| <= ln(2)/4
TANH = (-0.33333298563957214, 0.13332241773605347, -0.0538535937666893, 0.02130649983882904, -0.007414114661514759, 0.0015870005590841174)
TANH_TAIL = (1.9999994039535522, -1.9999418258666992, 1.9980976581573486, -1.971003770828247, 1.77009117603302, -1.0386942625045776)
EXP_MINUS_2 = (1.0, -2.0, 2.0, -1.333319067955017, 0.6666488647460938, -0.2679131031036377, 0.08982544392347336)
ERF_EDGE = 0.92
# erf(x) / x - 1 in x*x below the edge; above, -log2(erfc) about a point where it is nearly a float; 2**-t on |t| <= 1/2
ERF = (0.12837916612625122, -0.3761262893676758, 0.11283625662326813, -0.026855727657675743, 0.0051923817954957485, -0.0008049337193369865,
       7.994154293555766e-05)
ERF_POINT, ERF_VALUE = 1.004638671875, 2.686103343963623
ERF_TAIL = (3.8185136318206787, 1.2171791791915894, 0.059693269431591034, -0.014421415515244007, 0.0028839942533522844,
            -0.00041245543980039656, 3.035273402929306e-05)
EXP2_MINUS = (1.0, -0.6931472420692444, 0.24022655189037323, -0.05550273135304451, 0.00961702223867178, -0.0013418220914900303,
              0.00015837111277505755)
# in f64: exp(r) on |r| <= ln(2)/2; log(1+w) / w on [0, 1]; erfc(a / sqrt(2)) exp(a*a/2) / 2 in 1 / (1 + 0.3 a) for 0 <= a <= 14.6
EXP64 = (1.0000000005552323, 1.0000000364365826, 0.49999992082253836, 0.1666641966721319, 0.04166822161644831, 0.008374857586972147,
         0.001383725186822925)
LOG1P64 = (0.9999999952571541, -0.49999902264100177, 0.33329959883942634, -0.24954114567837785, 0.19675858954066183, -0.15305390594887547,
           0.10603344922220923, -0.0569566934365526, 0.019850034988946753, -0.0032437228472394133)
PHI64 = (6.633868539483033e-07, 0.1196713001353369, 0.11972606649932134, 0.1093550591305679, 0.08156225965615606, 0.08860023813512996,
         -0.06735212318334641, 0.17898658490183345, -0.21957699226363345, 0.10907845163848359, -0.020051509542567895)
GELU_LINEAR, GELU_CUBIC = 1.5957691216057308, 0.07135481627260025  # 2 sqrt(2/pi), and 0.044715 times that


def log(x: Expr) -> Expr:
    """k ln 2 + f - f*f/2 + ..., where 2/3 <= 1 + f < 4/3. What the sum of the two large terms misses is added to the small ones."""
    small = x < SINGLE.tiny
    word = bits(where(small, x * 2.0**25, x)) + (0x3F800000 - 0x3F2AAAAB)
    k = from_bits((word >> 23) | 0x4B000000) - constants(small, 2.0**23 + 127 + 25, 2.0**23 + 127, x)
    f = from_bits((word & 0x7FFFFF) + 0x3F2AAAAB) - 1
    large = fma(k, LN2_HEAD, f)
    missed = fma(k, LN2_HEAD, -large) + f
    y = large + fma(fma(horner(f, LOG), f, -0.5), f * f, fma(k, LN2_TAIL, missed))
    return where(x > 0.0, where(x < INF, y, x), where(x < 0.0, NAN, where(x >= 0.0, -INF, x)))


def tanh(x: Expr) -> Expr:
    a = absolute(x)
    b = where(a > 9.1, 9.1, a)
    shifted = fma(b, -2 * LOG2_E, SINGLE.magic + SINGLE.bias)
    r = fma(shifted - (SINGLE.magic + SINGLE.bias), LN2 / 2, b)
    w = horner(r, EXP_MINUS_2) * power_of_two(bits(shifted), SINGLE.bias)
    far = fma(-w, horner(w, TANH_TAIL), 1.0)
    square = a * a
    near = fma(square * horner(square, TANH), a, a)
    return with_sign(where(a < TANH_EDGE, near, far), x)


def erf(x: Expr) -> Expr:
    a = absolute(x)
    u = where(a > 4.0, 4.0, a) - ERF_POINT
    slope = horner(u, ERF_TAIL)
    shifted = SINGLE.magic + SINGLE.bias - fma(slope, u, ERF_VALUE)
    n = SINGLE.magic + SINGLE.bias - shifted
    t = fma(slope, u, ERF_VALUE - n)
    far = fma(-horner(t, EXP2_MINUS), power_of_two(bits(shifted), SINGLE.bias), 1.0)
    near = fma(a, horner(a * a, ERF), a)
    return with_sign(where(a < ERF_EDGE, near, far), x)


def exp64(z: Expr) -> Expr:
    """exp of an f64 within +-700."""
    shifted = fma(z, LOG2_E, DOUBLE.magic + DOUBLE.bias)
    r = fma(shifted - (DOUBLE.magic + DOUBLE.bias), -LN2, z)
    return horner(r, EXP64) * power_of_two(bits(shifted), DOUBLE.bias)


def reciprocal(d: Expr) -> Expr:
    """1 / d for an f64 within f32's range."""
    y = cast(1 / cast(d, f32), f64)
    return fma(fma(-d, y, 1.0), y, y)


def sigmoid(x: Expr, z: Expr) -> Expr:
    """1 / (1 + exp(-z)) in f64, for a z >= 0; 1 minus that where x < 0."""
    w = where(z > 150.0, 0.0, exp64(-z))
    return where(x < 0.0, w, const(1.0, f64)) * reciprocal(w + 1)


def expit(x: Expr) -> Expr:
    return cast(sigmoid(x, cast(absolute(x), f64)), f32)


def silu(x: Expr) -> Expr:
    z = cast(x, f64)
    return cast(z * sigmoid(z, absolute(z)), f32)


def gelu_tanh(x: Expr) -> Expr:
    z = cast(x, f64)
    a = absolute(z)
    return cast(z * sigmoid(z, a * fma(a * a, GELU_CUBIC, GELU_LINEAR)), f32)


def phi(a: Expr) -> Expr:
    """(1 - erf(a / sqrt(2))) / 2 for an a >= 0 in f64."""
    y = exp64(a * a * -0.5) * horner(reciprocal(fma(a, 0.3, 1.0)), PHI64)
    return where(a > 18.0, 0.0, y)


def gelu(x: Expr) -> Expr:
    z = cast(x, f64)
    far = phi(absolute(z))
    return cast(z * where(z < 0.0, far, 1 - far), f32)


def softplus(x: Expr) -> Expr:
    z = cast(x, f64)
    w = where(absolute(z) > 150.0, 0.0, exp64(-absolute(z)))
    return cast(fma(w, horner(w, LOG1P64), where(z > 0.0, z, 0.0)), f32)
