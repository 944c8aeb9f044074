"""What one instruction of AVX-512 does and the scalar operators need several for.

    y * bitcast(half << 23) * bitcast((k - half) << 23)        k = bits(t), half = k >> 1      (vecmath's ``scale``)
    ->
    scale_exponent(y, t - magic)                               vscalefps

The results are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc.ir.loops import Expr, expr
from xlc.ir.op import Op
from xlc.ir.types import DType, f32, f64
from xlc.ops.vecmath_core import format_of
from xlc.ops.vecmath_exp import scale

from .target import Target
from .writer import Writer, element, vector

SCALE = Op("scale_exponent", "elementwise", 2, doc="y * 2**n for an integer n (as a float), rounded once")


def has_scale(target: Target) -> bool:
    return target.arch == "x86_64" and target.vector_bits == 512


def shortcut(x: Expr) -> Expr | None:
    """The same value by fewer instructions, None if there is no such form."""
    if x.dtype is not f32 and x.dtype is not f64:
        return None
    first, high = x.args
    if high.op.name != "bitcast" or first.op.name != "multiply" or first.args[1].op.name != "bitcast":
        return None
    shift = first.args[1].args[0]
    half = shift.args[0] if shift.op.name == "bitwise_left_shift" else shift
    k = half.args[0] if half.op.name == "bitwise_right_shift" else half
    f = format_of(x)
    base = f.magic + 2 * f.bias
    if k.op.name != "bitcast" or k.args[0].op.name not in ("fma", "add") or k.args[0].args[-1].value != base:
        return None
    y, shifted = first.args[0], k.args[0]
    return expr(SCALE, (y, shifted - base), x.dtype) if scale(y, k) is x else None


def scale_exponent(w: Writer, n: int, d: DType, args: Sequence[str]) -> str:
    scalar = element(d)
    if n * d.bits > 512:  # lanes were counted for a narrower type
        half = n // 2
        low, high = (scale_exponent(w, half, d, [w.shuffle(scalar, n, a, "poison", range(k, k + half)) for a in args]) for k in (0, half))
        return w.shuffle(scalar, half, low, high, range(n))
    least = 128 // d.bits
    lanes = max(n, least)
    values = list(args)
    if n < lanes:
        widened = [*range(n), *[-1] * (lanes - n)]
        values = [w.broadcast(scalar, a, lanes) if not n else w.shuffle(scalar, n, a, "poison", widened) for a in args]
    ty, kind = vector(scalar, lanes), "ps" if d is f32 else "pd"
    mask = f"i{max(lanes, 8)}"
    whole = lanes * d.bits == 512
    name = f"@llvm.x86.avx512.mask.scalef.{kind}.{lanes * d.bits}"
    w.declared.add(f"declare {ty} {name}({ty}, {ty}, {ty}, {mask}{', i32' if whole else ''})")
    y = w.emit(f"call {ty} {name}({ty} {values[0]}, {ty} {values[1]}, {ty} poison, {mask} -1{', i32 4' if whole else ''})")
    if not n:
        return w.emit(f"extractelement {ty} {y}, i64 0")
    return w.shuffle(scalar, lanes, y, "poison", range(n)) if n < lanes else y


__all__ = ["SCALE", "has_scale", "scale_exponent", "shortcut"]
