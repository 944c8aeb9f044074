"""The inverse of erf.

    erfinv(x) = x G(w),   w = -log(1 - x*x)                                        (the variable of M. Giles, 2011)

G is analytic in w where x is not near +-1, and nearly linear in sqrt(w) where it is: two polynomials, of which each element takes the
coefficients it needs. 1 - x*x is one fused multiply-add, so that w is as good as x.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.loops import Expr
from ..ir.types import f32, f64
from .vecmath_core import INF, NAN, absolute, cast, constants, fma, sqrt, two_product, where, with_sign
from .vecmath_log import log
from .vecmath_wide import log64

# For f32: G in w on [0, 5], and in sqrt(w) on [sqrt(5), 4]
EDGE = 5.0
NEAR = (0.8862269274662614, 0.23201355573682253, 0.011550336909649522, -0.002338543891405495, -0.00012199832336319495,
        4.0483454732556757e-05, 5.83722415348377e-06, -2.4983568735520264e-06, 3.0988264379219325e-07, -1.7169868976367614e-08,
        3.3589921863820696e-10)
FAR = (-3.756174952971426, 15.438158625562176, -22.31362184068911, 18.961874734039412, -10.130785720911094, 3.6097859099144465,
       -0.8757393919553357, 0.14349825750784748, -0.015242016935528188, 0.0009492649601545307, -2.634861932862278e-05)
# For f64, about a middle: on [0, 7] and on [sqrt(7), 6.01]; the value there, what that misses, and the other coefficients
EDGE_64, MIDDLE_NEAR, MIDDLE_FAR = 7.0, 3.5, 4.328
NEAR_FIRST, NEAR_MISSED = 1.742829922065944, 3.2572359647623327e-17
FAR_FIRST, FAR_MISSED = 4.171005784852735, 2.0868340402345116e-16
NEAR_64 = (0.2353584092078791, -0.006717066587673048, -0.0004812834633235319, 0.00015856231501886804, -1.5798453657905404e-05,
           -3.823684564562206e-07, 3.216821861646179e-07, -3.68723063552502e-08, -7.043933060737757e-10, 7.447508259584573e-10,
           -8.61180406700418e-11, -1.9206829684708602e-12, 1.8001828880011858e-12, -2.0324892004058906e-13, -5.737077129388734e-15,
           4.4496041601070386e-15, -4.834162242548068e-16, -1.676056719638334e-17, 1.1024223378569649e-17, -1.2178174666761115e-18,
           -4.1237461590020627e-20, 3.254835696299695e-20, -3.233098148272699e-21, -3.8701935240824077e-22, 8.3784129208481e-23,
           1.8740293466569795e-24, -7.927642032963947e-25)
FAR_64 = (1.0100787620736988, 0.0005779539840775736, -0.0005454179064763193, 0.00018890348708188853, -5.5295561256733714e-05,
          1.7284395513391958e-05, -7.198460879418388e-06, 3.922478052551517e-06, -2.2109343258089887e-06, 1.0880076415268273e-06,
          -4.203871300088881e-07, 1.0527347415486444e-07, 5.067119496580597e-10, -1.668178693576443e-08, 9.562407262620213e-09,
          -2.9626291044478455e-09, 3.127783542551334e-10, 2.232471056956017e-10, -1.4604335869183006e-10, 3.4084790508501035e-11,
          1.5653144657374792e-12, -1.7259874311245397e-12, 2.99830506478245e-13, -3.3354327164070925e-13, 9.917056778335635e-14,
          2.385442085885172e-14, -9.182297879666244e-15)


def _chosen(far: Expr, t: Expr, near: Sequence[float], beyond: Sequence[float]) -> Expr:
    """One of two polynomials of the same degree."""
    y = constants(far, beyond[-1], near[-1], t)
    for a, b in zip(beyond[-2::-1], near[-2::-1], strict=True):
        y = fma(y, t, constants(far, a, b, t))
    return y


def _defined(x: Expr, y: Expr) -> Expr:
    """y where |x| < 1."""
    a = absolute(x)
    return where(a < 1.0, y, where(a > 1.0, NAN, with_sign(where(a >= 1.0, INF, a), x)))


def single(x: Expr) -> Expr:
    z = cast(x, f64)
    w = -log64(fma(-z, z, 1.0))
    far = w > EDGE
    y = z * _chosen(far, where(far, sqrt(w), w), NEAR, FAR)
    return _defined(x, cast(y, f32))


def double(x: Expr) -> Expr:
    """The first coefficient times x is exact; the rest is small beside it. Beyond the edge |x| is nearly 1, so that what it takes away from
    G is a small term, as is what sqrt(w) was rounded by."""
    a = absolute(x)
    w = -log(fma(-x, x, 1.0))
    far = w > EDGE_64
    s = sqrt(w)
    t = where(far, s - MIDDLE_FAR, w - MIDDLE_NEAR)
    slope = _chosen(far, t, NEAR_64, FAR_64)
    product, rest = two_product(a, NEAR_FIRST)
    near = product + fma(a, fma(slope, t, NEAR_MISSED), rest)
    missed = fma(-s, s, w) / (s + s) + FAR_MISSED
    beyond = FAR_FIRST + fma(slope, t, fma(fma(slope, t, FAR_FIRST), a - 1, missed))
    return _defined(x, with_sign(where(far, beyond, near), x))
