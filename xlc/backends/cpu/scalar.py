"""The scalar operators that LLVM text is written for: ``SCALAR[name](writer, n, dtype, args, attrs) -> value``.

``dtype`` is that of the first argument (of the values, for ``where``). Every function serves scalars (n = 0) and vectors of n
lanes. What is absent here is decomposed into these. f16 and bf16 arithmetic is done in f32 and rounded after every operator.

Nothing traps: x // 0 and x % 0 are 0, shifts by the width or more give what is left after so many single shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xlc.ir.types import DType, f32

from . import casts
from .writer import Writer, element, literal, splat, suffix, vector

Emit = Callable[[Writer, int, DType, Sequence[str], dict[str, Any]], str]


def _is_small_float(d: DType) -> bool:
    return d.is_float and d.bits == 16


def _constant(d: DType, value: Any, n: int) -> str:
    return splat(element(d), literal(d, value), n)


def _in_f32(rule: Emit) -> Emit:
    """The rule; on f16 and bf16 it computes in f32 and rounds."""

    def emit(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
        if not _is_small_float(d):
            return rule(w, n, d, args, attrs)
        return casts.narrow(w, n, d, rule(w, n, f32, [casts.widen(w, n, d, a) for a in args], attrs))

    return emit


def _arithmetic(integer: str, floating: str, boolean: str = "") -> Emit:
    def emit(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
        opcode = floating if d.is_float else boolean if d.kind == "b" else integer
        return w.emit(f"{opcode} {vector(element(d), n)} {args[0]}, {args[1]}")

    return _in_f32(emit)


def _intrinsic(name: str) -> Emit:
    """A float intrinsic; on integers the operator is the identity."""

    def emit(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
        if not d.is_float:
            return args[0]
        ty = vector(element(d), n)
        return w.call(f"{name}.{suffix(d, n)}", ty, *((ty, a) for a in args))

    return _in_f32(emit)


def _fma(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    ty = vector(element(d), n)
    if not d.is_float:
        return w.emit(f"add {ty} {w.emit(f'mul {ty} {args[0]}, {args[1]}')}, {args[2]}")
    return w.call(f"fma.{suffix(d, n)}", ty, *((ty, a) for a in args))


def _negative(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    ty = vector(element(d), n)
    if _is_small_float(d):
        return w.emit(f"xor {ty} {args[0]}, {splat('i16', '-32768', n)}")
    return w.emit(f"fneg {ty} {args[0]}" if d.is_float else f"sub {ty} {_constant(d, 0, n)}, {args[0]}")


def _abs(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    ty = vector(element(d), n)
    if not d.signed:
        return args[0]
    if _is_small_float(d):
        return w.emit(f"and {ty} {args[0]}, {splat('i16', '32767', n)}")
    if d.is_float:
        return w.call(f"fabs.{suffix(d, n)}", ty, (ty, args[0]))
    return w.call(f"abs.{suffix(d, n)}", ty, (ty, args[0]), ("i1", "false"))


def _extreme(less: bool) -> Emit:
    """minimum or maximum; nan if either is nan; of +0 and -0 the first. As x86 has it in one instruction, and nan in b put right: b is
    usually the new value and a the accumulator, so that a loop waits for the one instruction only."""

    def emit(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
        a, b = args
        if d.kind == "b":
            return w.emit(f"{'and' if less else 'or'} {vector('i1', n)} {a}, {b}")
        if d.is_int:
            ty = vector(element(d), n)
            return w.call(f"{'s' if d.signed else 'u'}{'min' if less else 'max'}.{suffix(d, n)}", ty, (ty, a), (ty, b))
        x, y, c = a, b, d
        if _is_small_float(d):
            x, y, c = casts.widen(w, n, d, a), casts.widen(w, n, d, b), f32
        ty = vector(element(c), n)
        picked = w.select(n, w.emit(f"fcmp {'olt' if less else 'ogt'} {ty} {y}, {x}"), element(d), b, a)
        return w.select(n, w.emit(f"fcmp uno {ty} {y}, {_constant(c, 0.0, n)}"), element(d), b, picked)

    return emit


def _compare(integer: str, floating: str, sign: bool = True) -> Emit:
    def emit(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
        if _is_small_float(d):
            args, d = [casts.widen(w, n, d, a) for a in args], f32
        code = f"fcmp {floating}" if d.is_float else f"icmp {('s' if d.signed else 'u') if sign else ''}{integer}"
        return w.emit(f"{code} {vector(element(d), n)} {args[0]}, {args[1]}")

    return emit


def _bitwise(opcode: str) -> Emit:
    return lambda w, n, d, args, attrs: w.emit(f"{opcode} {vector(element(d), n)} {args[0]}, {args[1]}")


def _not(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    return w.emit(f"xor {vector(element(d), n)} {args[0]}, {splat(element(d), 'true' if d.kind == 'b' else '-1', n)}")


def _shift_left(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    ty = vector(element(d), n)
    if (known := _literal_int(args[1])) is not None:
        return w.emit(f"shl {ty} {args[0]}, {args[1]}") if 0 <= known < d.bits else _constant(d, 0, n)
    inside = w.emit(f"icmp ult {ty} {args[1]}, {_constant(d, d.bits, n)}")
    return w.select(n, inside, element(d), w.emit(f"shl {ty} {args[0]}, {args[1]}"), _constant(d, 0, n))


def _shift_right(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    ty = vector(element(d), n)
    opcode = "ashr" if d.signed else "lshr"
    if (known := _literal_int(args[1])) is not None and 0 <= known < d.bits:
        return w.emit(f"{opcode} {ty} {args[0]}, {args[1]}")
    if d.signed:
        most = w.call(f"umin.{suffix(d, n)}", ty, (ty, args[1]), (ty, _constant(d, d.bits - 1, n)))
        return w.emit(f"ashr {ty} {args[0]}, {most}")
    inside = w.emit(f"icmp ult {ty} {args[1]}, {_constant(d, d.bits, n)}")
    return w.select(n, inside, element(d), w.emit(f"lshr {ty} {args[0]}, {args[1]}"), _constant(d, 0, n))


def _literal_int(text: str) -> int | None:
    """The integer that a literal operand stands for, in every lane."""
    if text.startswith("splat"):
        text = text.rstrip(")").rpartition(" ")[2]
    return int(text) if text.lstrip("-").isdigit() else None


def _floor_divide(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    a, b = args
    ty, known = vector(element(d), n), _literal_int(b)
    if known is not None and known > 0:
        if known & (known - 1) == 0:
            return w.emit(f"{'ashr' if d.signed else 'lshr'} {ty} {a}, {_constant(d, known.bit_length() - 1, n)}")
        if not d.signed:
            return w.emit(f"udiv {ty} {a}, {b}")
    zero, by_zero, divisor = _divisor(w, n, d, b)
    if not d.signed:
        return w.select(n, by_zero, element(d), zero, _quotient(w, n, d, a, divisor))
    q = _quotient(w, n, d, a, divisor)
    r = w.emit(f"sub {ty} {a}, {w.emit(f'mul {ty} {q}, {divisor}')}")
    opposite = w.emit(f"icmp slt {ty} {w.emit(f'xor {ty} {r}, {divisor}')}, {zero}")
    correction = w.emit(f"and {vector('i1', n)} {w.emit(f'icmp ne {ty} {r}, {zero}')}, {opposite}")
    minus_one = w.emit(f"sext {vector('i1', n)} {correction} to {ty}")
    q = w.emit(f"add {ty} {q}, {minus_one}")
    if known is not None and known > 0:
        return q
    q = w.select(n, w.emit(f"icmp eq {ty} {b}, {_constant(d, -1, n)}"), element(d), w.emit(f"sub {ty} {zero}, {a}"), q)
    return w.select(n, by_zero, element(d), zero, q)


def _remainder(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    a, b = args
    ty, known = vector(element(d), n), _literal_int(b)
    if known is not None and known > 0 and known & (known - 1) == 0:
        return w.emit(f"and {ty} {a}, {_constant(d, known - 1, n)}")
    zero, by_zero, divisor = _divisor(w, n, d, b)
    r = w.emit(f"sub {ty} {a}, {w.emit(f'mul {ty} {_quotient(w, n, d, a, divisor)}, {divisor}')}")
    if d.signed:
        opposite = w.emit(f"icmp slt {ty} {w.emit(f'xor {ty} {r}, {divisor}')}, {zero}")
        correction = w.emit(f"and {vector('i1', n)} {w.emit(f'icmp ne {ty} {r}, {zero}')}, {opposite}")
        r = w.select(n, correction, element(d), w.emit(f"add {ty} {r}, {divisor}"), r)
    return r if known is not None and known > 0 else w.select(n, by_zero, element(d), zero, r)


def _divisor(w: Writer, n: int, d: DType, b: str) -> tuple[str, str, str]:
    """(zero, whether b is zero, a divisor by which dividing is defined: 1 for 0, and for -1 where negation would overflow)."""
    ty, zero, known = vector(element(d), n), _constant(d, 0, n), _literal_int(b)
    if known is not None and known > 0:
        return zero, "", b
    by_zero = w.emit(f"icmp eq {ty} {b}, {zero}")
    bad = by_zero
    if d.signed:
        bad = w.emit(f"or {vector('i1', n)} {by_zero}, {w.emit(f'icmp eq {ty} {b}, {_constant(d, -1, n)}')}")
    return zero, by_zero, w.select(n, bad, element(d), _constant(d, 1, n), b)


def _quotient(w: Writer, n: int, d: DType, a: str, b: str) -> str:
    """a / b towards zero. Lanes of up to 32 bits divide as floats that hold them exactly: no processor divides integer vectors."""
    ty, s = vector(element(d), n), "s" if d.signed else "u"
    if not n or d.bits == 64 or _literal_int(b) is not None:
        return w.emit(f"{s}div {ty} {a}, {b}")
    fp = vector("float" if d.bits <= 16 else "double", n)
    x, y = (w.emit(f"{s}itofp {ty} {v} to {fp}") for v in (a, b))
    return w.emit(f"fpto{s}i {fp} {w.emit(f'fdiv {fp} {x}, {y}')} to {ty}")


def _where(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    return w.select(n, args[0], element(d), args[1], args[2])


def _cast(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    return casts.cast(w, n, d, attrs["dtype"], args[0])


def _bitcast(w: Writer, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
    return casts.bitcast(w, n, d, attrs["dtype"], args[0])


SCALAR: dict[str, Emit] = {
    "add": _arithmetic("add", "fadd", "or"),
    "subtract": _arithmetic("sub", "fsub", "xor"),
    "multiply": _arithmetic("mul", "fmul", "and"),
    "divide": _arithmetic("sdiv", "fdiv"),
    "fma": _in_f32(_fma),
    "floor_divide": _floor_divide,
    "remainder": _remainder,
    "negative": _negative,
    "abs": _abs,
    "sqrt": _intrinsic("sqrt"),
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "trunc": _intrinsic("trunc"),
    "round": _intrinsic("roundeven"),
    "minimum": _extreme(True),
    "maximum": _extreme(False),
    "less": _compare("lt", "olt"),
    "less_equal": _compare("le", "ole"),
    "greater": _compare("gt", "ogt"),
    "greater_equal": _compare("ge", "oge"),
    "equal": _compare("eq", "oeq", False),
    "not_equal": _compare("ne", "une", False),
    "bitwise_and": _bitwise("and"),
    "bitwise_or": _bitwise("or"),
    "bitwise_xor": _bitwise("xor"),
    "bitwise_not": _not,
    "bitwise_left_shift": _shift_left,
    "bitwise_right_shift": _shift_right,
    "where": _where,
    "cast": _cast,
    "bitcast": _bitcast,
}
"""``lookup`` is emitted by the kernel's emitter (it needs a table in the module)."""

INTEGER_ONLY = frozenset({"floor_divide", "remainder"})  # on floats these are decomposed
FLOAT_ONLY = frozenset({"divide"})


def native(name: str, d: DType) -> bool:
    """Whether there is a rule for the operator on this dtype."""
    if name in INTEGER_ONLY:
        return d.is_int
    return name in SCALAR and (name not in FLOAT_ONLY or d.is_float)

