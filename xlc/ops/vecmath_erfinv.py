"""The inverse of erf.

    erfinv(x) = x G(w),   w = -log(1 - x*x)                                        (the variable of M. Giles, 2011)

G is analytic in w where x is not near +-1, and nearly linear in sqrt(w) where it is: two polynomials, of which each element takes the
coefficients it needs. 1 - x*x is one fused multiply-add, so that w is as good as x.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.loops import Expr
from ..ir.types import f32, f64
from .vecmath_core import INF, NAN, absolute, cast, constants, fma, sqrt, where, with_sign
from .vecmath_log import log
from .vecmath_wide import log64

# For f32: G in w on [0, 5], and in sqrt(w) on [sqrt(5), 4]
EDGE = 5.0
NEAR = (0.8862269274662614, 0.23201355573682253, 0.011550336909649522, -0.002338543891405495, -0.00012199832336319495,
        4.0483454732556757e-05, 5.83722415348377e-06, -2.4983568735520264e-06, 3.0988264379219325e-07, -1.7169868976367614e-08,
        3.3589921863820696e-10)
FAR = (-3.756174952971426, 15.438158625562176, -22.31362184068911, 18.961874734039412, -10.130785720911094, 3.6097859099144465,
       -0.8757393919553357, 0.14349825750784748, -0.015242016935528188, 0.0009492649601545307, -2.634861932862278e-05)
# For f64, about a middle: on [0, 7] and on [sqrt(7), 6.01]; the first coefficient of the latter, and what it misses
EDGE_64, MIDDLE_NEAR, MIDDLE_FAR = 7.0, 3.5, 4.328
NEAR_FIRST, FAR_FIRST, FAR_MISSED = 1.742829922065944, 4.171005784852735, 2.0868340402345116e-16
NEAR_64 = (0.23535840920787862, -0.006717066587672152, -0.00048128346331883723, 0.00015856231501478477, -1.5798453671754423e-05,
           -3.823684491447093e-07, 3.216822051770728e-07, -3.687231315464651e-08, -7.044080041097169e-10, 7.44754587716997e-10,
           -8.611095708964875e-11, -1.9220184575067128e-12, 1.7979253122922574e-12, -2.029313066414132e-13, -5.24497773385639e-15,
           4.3979176125052226e-15, -5.579262163632118e-16, -1.0987732070995114e-17, 1.8855297764859167e-17, -1.6529958254594553e-18,
           -6.016373054356122e-19, 5.370695971680801e-20, 2.2812255069540932e-20, -9.86027359126676e-22, -6.250148287758071e-22,
           9.375230728192431e-24, 7.778932060396805e-24)
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
    """Beyond the edge |x| is nearly 1, so that what it takes away from G is a small term, as is what sqrt(w) was rounded by."""
    a = absolute(x)
    w = -log(fma(-x, x, 1.0))
    far = w > EDGE_64
    s = sqrt(w)
    t = where(far, s - MIDDLE_FAR, w - MIDDLE_NEAR)
    slope = _chosen(far, t, NEAR_64, FAR_64)
    g = fma(slope, t, constants(far, FAR_FIRST, NEAR_FIRST, t))
    missed = fma(-s, s, w) / (s + s) + FAR_MISSED
    beyond = FAR_FIRST + fma(slope, t, fma(g, a - 1, missed))
    return _defined(x, where(far, with_sign(beyond, x), x * g))
