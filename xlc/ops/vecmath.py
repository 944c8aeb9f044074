"""Vector mathematics: the functions that no backend has as an instruction, as branch-free expressions in the mandatory scalar operators.

    exp(x)  ->  bitcast(...) * bitcast(...) * fma(fma(...), r, 1)       for an Expr x of dtype f32 or f64

Each function takes Exprs of one dtype, f32 or f64, and gives an Expr of that dtype; the errors stand in ``docs/numerics.md``. There is no flush
of denormals, no table in memory but for f64 sin, cos and tan, and no call. In f32 the functions either stay in f32 (``*_single``: those
that programs spend their time in) or are evaluated in f64 and rounded once.
"""

from __future__ import annotations

from . import vecmath_erf, vecmath_exp, vecmath_log, vecmath_pow, vecmath_trig
from .vecmath_core import in_double
from .vecmath_exp import exp, exp2, expm1
from .vecmath_pow import floor_divide, hypot, pow, remainder, rsqrt
from .vecmath_trig import cos, sin, tan

sinh, cosh, tanh = (in_double(f) for f in (vecmath_exp.sinh, vecmath_exp.cosh, vecmath_exp.tanh))
log, log2, log10, log1p = (in_double(f) for f in (vecmath_log.log, vecmath_log.log2, vecmath_log.log10, vecmath_log.log1p))
asinh, acosh, atanh = (in_double(f) for f in (vecmath_log.asinh, vecmath_log.acosh, vecmath_log.atanh))
softplus, logaddexp = (in_double(f) for f in (vecmath_log.softplus, vecmath_log.logaddexp))
asin, acos, atan, atan2 = (in_double(f) for f in (vecmath_trig.asin, vecmath_trig.acos, vecmath_trig.atan, vecmath_trig.atan2))
erf, erfc, gelu, gelu_tanh = (in_double(f) for f in (vecmath_erf.erf, vecmath_erf.erfc, vecmath_erf.gelu, vecmath_erf.gelu_tanh))
expit, silu, cbrt = (in_double(f) for f in (vecmath_erf.expit, vecmath_erf.silu, vecmath_pow.cbrt))

__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf", "erfc", "exp", "exp2", "expit", "expm1",
           "floor_divide", "gelu", "gelu_tanh", "hypot", "log", "log10", "log1p", "log2", "logaddexp", "pow", "remainder", "rsqrt", "silu",
           "sin", "sinh", "softplus", "tan", "tanh"]
