"""Vector mathematics: the functions that no backend has as an instruction, as branch-free expressions in the mandatory scalar operators.

    exp(x)  ->  bitcast(...) * bitcast(...) * fma(fma(...), r, 1)       for an Expr x of dtype f32 or f64

Each function takes Exprs of one dtype, f32 or f64, and gives an Expr of that dtype; the errors stand in ``docs/numerics.md``. There is no
flush of denormals, no table in memory but for f64 sin, cos and tan, and no call. In f32 the functions either stay in f32 or are evaluated
in f64, with shorter polynomials, and rounded once.
"""

from __future__ import annotations

from . import vecmath_erf, vecmath_erfinv, vecmath_exp, vecmath_log, vecmath_pow, vecmath_single, vecmath_trig, vecmath_wide
from .vecmath_core import by_width, in_double
from .vecmath_exp import exp, exp2, expm1
from .vecmath_pow import floor_divide, hypot, remainder
from .vecmath_trig import cos, sin, tan

log = by_width(vecmath_single.log, vecmath_log.log)
tanh = by_width(vecmath_single.tanh, vecmath_exp.tanh)
erf = by_width(vecmath_single.erf, vecmath_erf.erf)
expit = by_width(vecmath_single.expit, vecmath_erf.expit)
silu = by_width(vecmath_single.silu, vecmath_erf.silu)
gelu = by_width(vecmath_single.gelu, vecmath_erf.gelu)
gelu_tanh = by_width(vecmath_single.gelu_tanh, vecmath_erf.gelu_tanh)
softplus = by_width(vecmath_single.softplus, vecmath_log.softplus)
logaddexp = in_double(vecmath_log.logaddexp)
log2 = by_width(vecmath_wide.log2, vecmath_log.log2)
log10 = by_width(vecmath_wide.log10, vecmath_log.log10)
log1p = by_width(vecmath_wide.log1p, vecmath_log.log1p)
asinh = by_width(vecmath_wide.asinh, vecmath_log.asinh)
acosh = by_width(vecmath_wide.acosh, vecmath_log.acosh)
atanh = by_width(vecmath_wide.atanh, vecmath_log.atanh)
sinh = by_width(vecmath_wide.sinh, vecmath_exp.sinh)
cosh = by_width(vecmath_wide.cosh, vecmath_exp.cosh)
erfc = by_width(vecmath_wide.erfc, vecmath_erf.erfc)
erfinv = by_width(vecmath_erfinv.single, vecmath_erfinv.double)
asin = by_width(vecmath_wide.asin, vecmath_trig.asin)
acos = by_width(vecmath_wide.acos, vecmath_trig.acos)
atan = by_width(vecmath_wide.atan, vecmath_trig.atan)
atan2 = by_width(vecmath_wide.atan2, vecmath_trig.atan2)
cbrt = by_width(vecmath_wide.cbrt, vecmath_pow.cbrt)
rsqrt = by_width(vecmath_wide.rsqrt, vecmath_pow.rsqrt)
pow = by_width(vecmath_wide.pow, vecmath_pow.pow)

__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "exp2",
           "expit", "expm1", "floor_divide", "gelu", "gelu_tanh", "hypot", "log", "log10", "log1p", "log2", "logaddexp", "pow",
           "remainder", "rsqrt", "silu", "sin", "sinh", "softplus", "tan", "tanh"]
