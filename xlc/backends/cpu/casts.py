"""Conversions between dtypes, without a call into any library, exact or correctly rounded, denormals kept.

Floats go to integers by truncation, out-of-range values saturate, nan gives 0. f16 and bf16 are i16 in registers.
"""

from __future__ import annotations

from xlc.ir.types import DType, f32, f64

from .writer import Writer, element, literal, splat, suffix, vector


def cast(w: Writer, n: int, source: DType, to: DType, x: str) -> str:
    """The value ``x`` of dtype ``source`` as dtype ``to``."""
    if source is to:
        return x
    if to.kind == "b":
        return to_bool(w, n, source, x)
    if source.is_float and source.bits == 16:
        wide = widen(w, n, source, x)
        return narrow(w, n, to, wide) if to.is_float and to.bits == 16 else cast(w, n, f32, to, wide)
    if to.is_float and to.bits == 16:
        if source is f64:
            return narrow(w, n, to, round_to_odd(w, n, x))
        return narrow(w, n, to, cast(w, n, source, f32, x))
    s, t = vector(element(source), n), vector(element(to), n)
    if source.is_float and to.is_float:
        return w.emit(f"{'fpext' if to.bits > source.bits else 'fptrunc'} {s} {x} to {t}")
    if source.is_float:
        pair = f"{suffix(to, n)}.{suffix(source, n)}"
        return w.call(f"fpto{'s' if to.signed else 'u'}i.sat.{pair}", t, (s, x))
    if to.is_float:
        return w.emit(f"{'sitofp' if source.signed else 'uitofp'} {s} {x} to {t}")
    if source.kind == "b" or to.bits > source.bits:
        return w.emit(f"{'sext' if source.signed else 'zext'} {s} {x} to {t}")
    return w.emit(f"trunc {s} {x} to {t}") if to.bits < source.bits else x


def to_bool(w: Writer, n: int, source: DType, x: str) -> str:
    ty = vector(element(source), n)
    if source.is_float and source.bits == 16:  # anything but +-0
        magnitude = w.emit(f"and {ty} {x}, {splat('i16', '32767', n)}")
        return w.emit(f"icmp ne {ty} {magnitude}, zeroinitializer" if n else f"icmp ne i16 {magnitude}, 0")
    zero = splat(element(source), literal(source, 0), n)
    return w.emit(f"{'fcmp une' if source.is_float else 'icmp ne'} {ty} {x}, {zero}")


def bitcast(w: Writer, n: int, source: DType, to: DType, x: str) -> str:
    """The same bits as another dtype of the same width; a bool counts as 8 bits, 0 or 1."""
    if source.kind == "b":
        x = w.emit(f"zext {vector('i1', n)} {x} to {vector('i8', n)}")
    s, t = vector("i8" if source.kind == "b" else element(source), n), vector("i8" if to.kind == "b" else element(to), n)
    y = x if s == t else w.emit(f"bitcast {s} {x} to {t}")
    return w.emit(f"icmp ne {t} {y}, {splat('i8', '0', n)}") if to.kind == "b" else y


def widen(w: Writer, n: int, source: DType, x: str) -> str:
    """f16 or bf16 as f32, exactly."""
    small, wide, out = vector("i16", n), vector("i32", n), vector("float", n)
    if source.name == "bf16":
        z = w.emit(f"zext {small} {x} to {wide}")
        return w.emit(f"bitcast {wide} {w.emit(f'shl {wide} {z}, ' + splat('i32', '16', n))} to {out}")
    half = vector("half", n)
    return w.emit(f"fpext {half} {w.emit(f'bitcast {small} {x} to {half}')} to {out}")


def narrow(w: Writer, n: int, to: DType, x: str) -> str:
    """f32 as f16 or bf16, to nearest even."""
    small, wide, source = vector("i16", n), vector("i32", n), vector("float", n)
    if to.name == "f16":
        half = vector("half", n)
        return w.emit(f"bitcast {half} {w.emit(f'fptrunc {source} {x} to {half}')} to {small}")

    def c(k: int) -> str:
        return splat("i32", str(k), n)

    bits = w.emit(f"bitcast {source} {x} to {wide}")
    high = w.emit(f"lshr {wide} {bits}, {c(16)}")
    odd = w.emit(f"and {wide} {high}, {c(1)}")
    bias = w.emit(f"add {wide} {odd}, {c(0x7FFF)}")
    rounded = w.emit(f"lshr {wide} {w.emit(f'add {wide} {bits}, {bias}')}, {c(16)}")
    quiet = w.emit(f"or {wide} {high}, {c(0x40)}")
    nan = w.emit(f"fcmp uno {source} {x}, {splat('float', literal(f32, 0.0), n)}")
    return w.emit(f"trunc {wide} {w.select(n, nan, 'i32', quiet, rounded)} to {small}")


def round_to_odd(w: Writer, n: int, x: str) -> str:
    """f64 as f32 such that a further rounding to 11 or 8 bits is the correct rounding of x: towards zero, the last bit set if inexact."""
    wide, single, bits = vector("double", n), vector("float", n), vector("i32", n)
    near = w.emit(f"fptrunc {wide} {x} to {single}")
    back = w.emit(f"fpext {single} {near} to {wide}")
    inexact = w.emit(f"fcmp one {wide} {back}, {x}")
    got, wanted = (w.call(f"fabs.{suffix(f64, n)}", wide, (wide, v)) for v in (back, x))
    above = w.emit(f"fcmp ogt {wide} {got}, {wanted}")
    b = w.emit(f"bitcast {single} {near} to {bits}")
    less = w.emit(f"sext {vector('i1', n)} {above} to {bits}")
    odd = w.emit(f"zext {vector('i1', n)} {inexact} to {bits}")
    b = w.emit(f"or {bits} {w.emit(f'add {bits} {b}, {less}')}, {odd}")
    return w.emit(f"bitcast {bits} {b} to {single}")
