"""The scalar operators that CUDA text is written for: ``SCALARS.rules[name](dtype, args, attrs) -> text``.

The same table, and the same meaning to the bit, as on a CPU: f16 and bf16 arithmetic is done in f32 and rounded after every operator;
integers wrap; nothing traps (x // 0 and x % 0 are 0, shifts by the width or more give what is left after so many single shifts). The
functions that are called stand in ``numerics.cuh``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xlc.backends.cstyle import Scalars
from xlc.ir.types import DType, bf16, f16, f32, f64

Rule = Callable[[DType, Sequence[str], Mapping[str, Any]], str]

TYPES = {"bool": "bool", "i8": "signed char", "i16": "short", "i32": "int", "i64": "long long",
         "u8": "unsigned char", "u16": "unsigned short", "u32": "unsigned", "u64": "unsigned long long",
         "f16": "unsigned short", "bf16": "unsigned short", "f32": "float", "f64": "double"}


def is_half(d: DType) -> bool:
    return d.is_float and d.bits == 16


def literal(d: DType, value: Any) -> str:
    if d.kind == "b":
        return "true" if value else "false"
    if is_half(d):
        return f"(unsigned short){int(np.asarray(value, d.numpy).view(np.uint16))}"
    if d.is_float:
        x = np.asarray(value, d.numpy)[()]
        if not math.isfinite(x):
            bits, suffix = (x.view(np.uint32), "u") if d is f32 else (x.view(np.uint64), "ull")
            return f"xlc_bits<{TYPES[d.name]}>({int(bits)}{suffix})"
        text = repr(float(x)) if d is f64 else float(x).hex()
        return f"({text}f)" if d is f32 else f"({text})"
    if d.bits == 64:
        return "(-9223372036854775807ll - 1)" if value == -(1 << 63) else f"{int(value)}{'ll' if d.signed else 'ull'}"
    return "(-2147483647 - 1)" if value == -(1 << 31) else f"({TYPES[d.name]}){int(value)}{'' if d.signed else 'u'}"


def widen(d: DType, x: str) -> str:
    return f"xlc_{d.name}_to_f32({x})"


def narrow(d: DType, x: str) -> str:
    return f"xlc_f32_to_{d.name}({x})"


def _in_f32(rule: Rule) -> Rule:
    """The rule; on f16 and bf16 it computes in f32 and rounds."""
    return lambda d, args, attrs: narrow(d, rule(f32, [widen(d, a) for a in args], attrs)) if is_half(d) else rule(d, args, attrs)


def _unsigned(d: DType) -> str:
    return "unsigned long long" if d.bits == 64 else "unsigned"


def _arithmetic(symbol: str, boolean: str = "") -> Rule:
    def rule(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
        a, b = args
        if d.kind == "b":
            return f"({a} {boolean} {b})"
        if d.is_float:
            return f"({a} {symbol} {b})"
        u = _unsigned(d)  # wraps, where signed arithmetic would be undefined
        return f"({TYPES[d.name]})(({u}){a} {symbol} ({u}){b})"

    return _in_f32(rule)


def _function(name: str) -> Rule:
    """A function of floats; on integers the operator is the identity."""
    return _in_f32(lambda d, args, attrs: f"{name}{'f' if d is f32 else ''}({args[0]})" if d.is_float else args[0])


def _fma(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
    a, b, c = args
    if d.is_float:
        return f"fma{'f' if d is f32 else ''}({a}, {b}, {c})"
    u = _unsigned(d)
    return f"({TYPES[d.name]})(({u}){a} * ({u}){b} + ({u}){c})"


def _negative(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
    if is_half(d):
        return f"(unsigned short)({args[0]} ^ 0x8000u)"
    return f"(-{args[0]})" if d.is_float else f"({TYPES[d.name]})(0 - ({_unsigned(d)}){args[0]})"


def _abs(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
    x = args[0]
    if not d.signed or d.kind == "b":
        return x
    if is_half(d):
        return f"(unsigned short)({x} & 0x7fffu)"
    if d.is_float:
        return f"fabs{'f' if d is f32 else ''}({x})"
    return f"({x} < 0 ? ({TYPES[d.name]})(0 - ({_unsigned(d)}){x}) : {x})"


def _extreme(name: str, boolean: str) -> Rule:
    """minimum or maximum; nan if either is nan; of +0 and -0 the first."""
    return _in_f32(lambda d, args, attrs: f"({args[0]} {boolean} {args[1]})" if d.kind == "b" else f"{name}({args[0]}, {args[1]})")


def _number(name: str) -> Rule:
    """fmin or fmax: one instruction, for which +0 is above -0."""
    return _in_f32(lambda d, args, attrs: f"{name}{'f' if d is f32 else ''}({args[0]}, {args[1]})")


def _compare(symbol: str) -> Rule:
    def rule(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
        a, b = [widen(d, x) for x in args] if is_half(d) else args
        return f"({a} {symbol} {b})"

    return rule


def _bitwise(symbol: str) -> Rule:
    return lambda d, args, attrs: f"({TYPES[d.name]})({args[0]} {symbol} {args[1]})"


def _not(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
    return f"(!{args[0]})" if d.kind == "b" else f"({TYPES[d.name]})(~{args[0]})"


def _call(name: str) -> Rule:
    return lambda d, args, attrs: f"{name}<{TYPES[d.name]}>({', '.join(args)})"


def _cast(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
    to: DType = attrs["dtype"]
    x = args[0]
    if to is d:
        return x
    if to.kind == "b":
        return f"(({x} & 0x7fffu) != 0)" if is_half(d) else f"({x} != 0)"
    if is_half(d):
        if to.is_float and not is_half(to):
            return f"({TYPES[to.name]}){widen(d, x)}"
        return _cast(f32, [widen(d, x)], attrs)
    if is_half(to):
        return f"xlc_f64_to_{to.name}({x})" if d is f64 else narrow(to, f"(float){x}")
    if d.is_float and to.is_int:
        return f"xlc_truncated<{TYPES[to.name]}>({x})"
    return f"({TYPES[to.name]}){x}"


def _bitcast(d: DType, args: Sequence[str], attrs: Mapping[str, Any]) -> str:
    to: DType = attrs["dtype"]
    if to.kind == "b":
        return f"((unsigned char){args[0]} != 0)"
    source = "unsigned char" if d.kind == "b" else TYPES[d.name]
    return f"xlc_bits<{TYPES[to.name]}>(({source}){args[0]})"


RULES: dict[str, Rule] = {
    "add": _arithmetic("+", "||"), "subtract": _arithmetic("-", "!="), "multiply": _arithmetic("*", "&&"),
    "divide": _in_f32(lambda d, args, attrs: f"({args[0]} / {args[1]})"),
    "fma": _in_f32(_fma), "floor_divide": _call("xlc_floor_divide"), "remainder": _call("xlc_remainder"),
    "negative": _negative, "abs": _abs,
    "sqrt": _function("sqrt"), "floor": _function("floor"), "ceil": _function("ceil"), "trunc": _function("trunc"),
    "round": _function("rint"),
    "minimum": _extreme("xlc_minimum", "&&"), "maximum": _extreme("xlc_maximum", "||"),
    "fmin": _number("fmin"), "fmax": _number("fmax"), "exp2_approx": lambda d, args, attrs: f"xlc_exp2_approx({args[0]})",
    "less": _compare("<"), "less_equal": _compare("<="), "greater": _compare(">"), "greater_equal": _compare(">="),
    "equal": _compare("=="), "not_equal": _compare("!="),
    "bitwise_and": _bitwise("&"), "bitwise_or": _bitwise("|"), "bitwise_xor": _bitwise("^"), "bitwise_not": _not,
    "bitwise_left_shift": _call("xlc_left_shift"), "bitwise_right_shift": _call("xlc_right_shift"),
    "where": lambda d, args, attrs: f"({args[0]} ? {args[1]} : {args[2]})", "cast": _cast, "bitcast": _bitcast,
}

INTEGER_ONLY = frozenset({"floor_divide", "remainder"})  # on floats these are decomposed


def native(name: str, d: DType) -> bool:
    """Whether there is a rule for the operator on this dtype."""
    if name in INTEGER_ONLY:
        return d.is_int
    return name in RULES and (name != "divide" or d.is_float)


SCALARS = Scalars(RULES, native, TYPES, literal)
__all__ = ["SCALARS", "TYPES", "bf16", "f16"]
