"""erf, erfc, and the activations: expit, silu, gelu, gelu_tanh.

    erfc(a) = exp(-a*a) G(t) / (1 + 2 a),   t = (a - 4) / (a + 4)            (Shepherd and Laframboise 1981)
    gelu(x) = x/2 erfc(-x / sqrt(2)),   gelu_tanh(x) = x expit(2 u),   silu(x) = x expit(x)

The last three are nan at -inf, where the formulas multiply it by 0.
"""

from __future__ import annotations

from typing import Any

from ..ir.loops import Expr, const
from .vecmath_core import DOUBLE, INF, absolute, fast_two_sum, fma, horner, two_product, two_sum, where, with_sign
from .vecmath_exp import EXP_RANGE, clamp, expm1_near, scale, split_exactly

# erf(x) / x - 1 in x*x on |x| <= 1; G on 0 <= a < 27.5
ERF = (0.1283791670955126, -0.376126389031841, 0.11283791670971086, -0.026866170648026797, 0.005223977652631677, -0.0008548328531302516,
       0.000120553859953626, -1.4926875940570175e-05, 1.648095879099729e-06, -1.6555955012611488e-07, 1.600461544314205e-08,
       -1.642888081650686e-09, 1.4278838146826037e-10)
ERFC = (1.2329951186255526, -0.13962111684056253, 0.01537965210261965, 0.06809705425469541, -0.10103906603629931, 0.09373283499825207,
        -0.06633036581232464, 0.03716751553906597, -0.016197734056596746, 0.005031969963880321, -0.0007577732969336524,
        -0.00019925661882641137, 0.00015062171610244588, -2.4399469592282402e-05, -1.1222173265193388e-05, 5.710265379496118e-06,
        2.9417175963321417e-07, -8.260676255409222e-07, 7.405204528961168e-08, 1.104087342599841e-07, -1.7400033344689256e-08,
        -1.4084495368970645e-08, 1.6452047426046188e-09, 1.18892599413151e-09)
ERFC_TAIL = -4.523805124795324e-17  # what the first coefficient misses
SQRT_HALF, SQRT_HALF_TAIL = 0.7071067811865476, -4.833646656726457e-17
TWO_BY_SQRT_PI = 1.1283791670955126
# 2 sqrt(2/pi), and 0.044715 times that, as head and tail
TANH_LINEAR = (1.5957691216057308, -9.96930880911092e-17)
TANH_CUBIC = (0.07135481627260025, -6.175149918155315e-19)


def tail(a: Expr, da: Expr | None, square: Expr, dsquare: Expr, factor: Any = 1.0) -> Expr:
    """factor * erfc(a + da) for a >= 0, where (a + da)**2 = square + dsquare."""
    a = where(a > 28.0, 28.0, a)
    below, missed = two_sum(a + a, 1.0)
    reciprocal = 1 / (below * (a + 4))
    inverse = (a + 4) * reciprocal
    t = fma(a + a, below * reciprocal, -1.0)
    slope = horner(t, ERFC[1:])
    g = fma(slope, t, ERFC[0])
    dg = fma(slope, t, ERFC[0] - g) + ERFC_TAIL
    q = g * inverse
    dq = (fma(-q, below, g) + fma(-q, missed, dg)) * inverse
    dq = dq if da is None else fma(da, fma(a + a, q, -TWO_BY_SQRT_PI), dq)
    least = EXP_RANGE[52][0]
    r, c, k = split_exactly(where(square > -least, least, -square))
    p = expm1_near(r)
    c = where(square > -least, c, c - dsquare)
    return scale((q + fma(q, p, fma(q, fma(c, p, c), dq))) * factor, k)


def erf_near(x: Expr) -> Expr:
    """erf on [-1, 1]."""
    return fma(x, horner(x * x, ERF), x)


def erf(x: Expr) -> Expr:
    a = absolute(x)
    square, dsquare = two_product(a, a)
    return where(a < 1.0, erf_near(x), with_sign(1 - tail(a, None, square, dsquare), x))


def erfc(x: Expr) -> Expr:
    a = absolute(x)
    square, dsquare = two_product(a, a)
    far = tail(a, None, square, dsquare)
    return where(a < 0.5, 1 - erf_near(x), where(x < 0.0, 2 - far, far))


def gelu(x: Expr) -> Expr:
    a = absolute(x)
    a = where(a > 100.0, 100.0, a)
    square, dsquare = two_product(a, a * 0.5)
    b, db = two_product(a, SQRT_HALF)
    far = tail(b, fma(a, SQRT_HALF_TAIL, db), square, dsquare, where(x < 0.0, x, 1.0) * 0.5)
    near = x * fma(erf_near(x * SQRT_HALF), 0.5, 0.5)
    return where(x < -40.0, x * 0, where(a < 0.7, near, where(x < 0.0, far, x * (1 - far))))


def sigmoid(x: Expr, dx: Any = 0.0, factor: Any = 1.0) -> Expr:
    """factor / (1 + exp(-(x + dx))); factor is finite."""
    a = -absolute(x)
    near = a > -800.0
    r, c, k = split_exactly(clamp(a, -800.0, 0.0))
    c = c + where(near, with_sign(dx, -x), 0.0) if isinstance(dx, Expr) else c
    p = expm1_near(r)
    one = const(1.0, x.dtype)
    w, dw = fast_two_sum(one, p + fma(c, p, c))
    size = scale(w, k)
    d, dd = fast_two_sum(one, size)
    negative = x < 0.0
    n = where(negative, w, one)
    q = n / d
    dq = (fma(-q, d, n) - q * (dd + scale(dw, k)) + where(negative, dw, 0.0)) / d
    return scale(fma(q, factor, dq * factor), where(negative, k, 2 * DOUBLE.bias))


def expit(x: Expr) -> Expr:
    return sigmoid(x)


def silu(x: Expr) -> Expr:
    y = sigmoid(x, factor=clamp(x, -1000.0, INF))
    return where(x < INF, where(x < -1000.0, x * 0, y), x)


def gelu_tanh(x: Expr) -> Expr:
    """x expit(2 u), u = sqrt(2/pi) (x + 0.044715 x**3)."""
    z = clamp(x, -100.0, 100.0)
    square, dsquare = two_product(z, z)
    first, dfirst = two_product(square, TANH_CUBIC[0])
    c, dc = fast_two_sum(*two_sum(first, TANH_LINEAR[0]))
    dc = dc + (dfirst + fma(square, TANH_CUBIC[1], fma(dsquare, TANH_CUBIC[0], TANH_LINEAR[1])))
    u, du = two_product(z, c)
    y = sigmoid(u, fma(z, dc, du), factor=z)
    return where(x > 100.0, x, where(x < -100.0, x * 0, y))
