"""Scalar expressions as C: an independent reading of ``xlc/ops/vecmath*.py``, which the accuracy tests compile with the system's compiler.

    function([x], x * x + 1, "f")  ->
        static inline float f(float x) { const float t0 = x * x; const float t1 = t0 + 0x1.0p+0f; return t1; }
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from xlc.ir.loops import Expr, walk
from xlc.ir.types import DType

C_TYPES = {"f32": "float", "f64": "double", "i32": "int32_t", "u32": "uint32_t", "i64": "int64_t", "u64": "uint64_t", "bool": "int"}
INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=", "greater": ">",
         "greater_equal": ">=", "equal": "==", "not_equal": "!=", "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
         "bitwise_left_shift": "<<", "bitwise_right_shift": ">>"}
CALLS = {"fma": "fma", "abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint"}
PROLOGUE = """#include <stdint.h>
#include <string.h>
static inline uint32_t bits_f32(float x) { uint32_t y; memcpy(&y, &x, 4); return y; }
static inline uint64_t bits_f64(double x) { uint64_t y; memcpy(&y, &x, 8); return y; }
static inline float bits_u32(uint32_t x) { float y; memcpy(&y, &x, 4); return y; }
static inline double bits_u64(uint64_t x) { double y; memcpy(&y, &x, 8); return y; }
static inline float bits_i32(int32_t x) { float y; memcpy(&y, &x, 4); return y; }
static inline double bits_i64(int64_t x) { double y; memcpy(&y, &x, 8); return y; }
"""


def literal(value: Any, dtype: DType) -> str:
    if not dtype.is_float:
        return f"(({C_TYPES[dtype.name]}){int(value)}{'ull' if int(value) >= 0 else 'll'})"
    suffix = "f" if dtype.name == "f32" else ""
    if isnan(value):
        return f"__builtin_nan{suffix}(\"\")"
    if value in (float("inf"), -float("inf")):
        return f"{'-' if value < 0 else ''}__builtin_inf{suffix}()"
    return f"{float(value).hex()}{suffix}"


def statement(e: Expr, args: Sequence[str], tables: list[str]) -> str:
    name = e.op.name
    if name in INFIX:
        return f"({args[0]} {INFIX[name]} {args[1]})"
    if name in CALLS:
        return f"__builtin_{CALLS[name]}{'f' if e.dtype.name == 'f32' else ''}({', '.join(args)})"
    if name == "negative":
        return f"-{args[0]}"
    if name == "bitwise_not":
        return f"!{args[0]}" if e.dtype.name == "bool" else f"~{args[0]}"
    if name == "where":
        return f"{args[0]} ? {args[1]} : {args[2]}"
    if name == "cast":
        return f"({C_TYPES[e.dtype.name]}){args[0]}"
    if name == "bitcast":
        return f"bits_{e.args[0].dtype.name}({args[0]})"
    if name == "lookup":
        values = ", ".join(literal(v, e.dtype) for v in e["table"])
        tables.append(f"static const {C_TYPES[e.dtype.name]} table{len(tables)}[] = {{{values}}};")
        return f"table{len(tables) - 1}[{args[0]}]"
    raise NotImplementedError(f"{name} in C")


def function(params: Sequence[Expr], result: Expr, name: str) -> str:
    """A C function of scalars with that name."""
    text = {p: p["name"] for p in params}
    body: list[str] = []
    tables: list[str] = []
    for e in walk(result):
        if e in text:
            continue
        if e.is_const:
            text[e] = literal(e.value, e.dtype)
            continue
        text[e] = f"t{len(body)}"
        body.append(f"const {C_TYPES[e.dtype.name]} {text[e]} = {statement(e, [text[a] for a in e.args], tables)};")
    declared = ", ".join(f"{C_TYPES[p.dtype.name]} {text[p]}" for p in params)
    tables = [t.replace("table", f"{name}_table") for t in tables]
    lines = [line.replace("table", f"{name}_table") if "table" in line else line for line in body]
    return "\n".join([*tables, f"static inline {C_TYPES[result.dtype.name]} {name}({declared}) {{", *lines, f"return {text[result]};", "}"])
