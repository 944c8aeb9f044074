"""Algebraic simplification: rules that are data (``ir.rewrite``), applied until none matches.

    %0: f32[4] = multiply(%x, 1.0)
    %1: f32[2,2] = reshape(%0) {shape=(2, 2)}
    %2: f32[4] = reshape(%1) {shape=(4,)}      ->  %x

Afterwards a tensor of one repeated value is always a ``full`` of its own shape, never a view of one, so that a rule (or an emitter) that
looks for a number finds it. Rules that are not exact under IEEE 754 are marked ``fast`` and are applied only with ``fast=True``.
"""

from __future__ import annotations

from collections.abc import Collection
from math import frexp, inf, isfinite

import numpy as np

from ..ir.node import Array, Graph, Node, full, make
from ..ir.rewrite import FLOATS, INTEGERS, NUMBERS, SIGNED, Fill, Full, Match, P, Pattern, Rewritten, Rule, Var, rewrite
from ..ir.types import DTYPES, DType, bool_, f64
from .simplify_views import VIEW_RULES

x, y, z, c = Var("x"), Var("y"), Var("z"), Var("c")
a, b = Full("a"), Full("b")
BOOL = (bool_,)
INTEGERS_AND_BOOL = (*INTEGERS, bool_)


def simplify(graph: Graph, fast: bool = False, skip: Collection[str] = (), limit: int = -1) -> Graph:
    """The graph in simplest form. ``fast`` allows inexact rules, ``skip`` names rules to leave out, ``limit`` stops after so many
    applications. See ``simplify_counted`` for how often each rule applied."""
    return simplify_counted(graph, fast, skip, limit).graph


def simplify_counted(graph: Graph, fast: bool = False, skip: Collection[str] = (), limit: int = -1) -> Rewritten:
    return rewrite(graph, [r for r in RULES if (fast or not r.fast) and r.name not in skip], limit)


def _power_of_two(v: float) -> bool:
    return bool(v) and isfinite(v) and abs(frexp(v)[0]) == 0.5


def _reciprocal_is_exact(m: Match) -> bool:
    if not _power_of_two(m.a):
        return False
    r = 1 / m.a
    return isfinite(r) and float(m.root.dtype.numpy.type(r)) == r


def _multiply_by_reciprocal(m: Match) -> Node | None:
    with np.errstate(all="ignore"):
        r = float(m.root.dtype.numpy.type(1 / m.a)) if m.a else inf
    return None if not isfinite(r) else m.x * r


def represents(narrow: DType, wide: DType) -> bool:
    """Whether every value of the one dtype is a value of the other."""
    if narrow == wide or narrow is bool_:
        return True
    if wide is bool_:
        return False
    if narrow.is_float:
        return wide.is_float and wide.bits > narrow.bits
    digits = narrow.bits - (narrow.kind == "i")
    if wide.is_float:
        return digits <= {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}[wide.name]
    return digits <= wide.bits - (wide.kind == "i") and (wide.kind == "i" or narrow.kind == "u")


def _cast_twice_is_once(m: Match) -> bool:
    """x -> middle -> result equals x -> result: the middle holds every x, and the second cast treats it as it would x (integers wrap,
    floats saturate)."""
    start, middle, end = m.x.dtype, m.root.args[0].dtype, m.root.dtype
    wraps_or_not = start.is_int and middle.is_float and end.is_int and not represents(start, end)
    return represents(start, middle) and not wraps_or_not


def _uniform(m: Match) -> Node | None:
    """A captured array of one repeated value."""
    v = m.root["value"].value
    flat = np.ascontiguousarray(v).reshape(-1)
    if not flat.size:
        return full(m.root.type, 0)
    bits = flat.view(f"u{flat.itemsize}")
    return full(m.root.type, flat[0]) if bits[:16].min() == bits[:16].max() and (bits == bits[0]).all() else None


def _fold_full(m: Match) -> Node | None:
    """An elementwise operator on numbers alone."""
    n = m.root
    if n.op.kind != "elementwise" or n.op.numpy is None or not n.args or any(v.op.name != "full" for v in n.args):
        return None
    with np.errstate(all="ignore"):
        value = n.op.numpy(*[np.full((1,), v["value"], v.dtype.numpy) for v in n.args], **n.attributes)
    return full(n.type, np.asarray(value).astype(n.dtype.numpy).reshape(-1)[0])


def _product(times: int) -> Pattern:
    square = P.multiply(x, x)
    return square if times == 2 else P.multiply(square, x) if times == 3 else P.multiply(square, square)


def _swapped(m: Match) -> Node | None:
    """The number second, so that 2 * x and x * 2 are one node."""
    p, q = m.root.args
    return make(m.root.op, (q, p), m.root.type, m.root.attrs) if p.op.name == "full" and q.op.name != "full" else None


EXACT = [
    # multiplication and division
    Rule("multiply_one", P.multiply(x, 1), x, dtypes=NUMBERS),
    Rule("multiply_zero", P.multiply(x, 0), 0, dtypes=INTEGERS),
    Rule("multiply_minus_one", P.multiply(x, -1), P.negative(x), dtypes=SIGNED),
    Rule("multiply_negatives", P.multiply(P.negative(x), P.negative(y)), P.multiply(x, y), dtypes=NUMBERS),
    Rule("multiply_constants", P.multiply(P.multiply(x, a), b), P.multiply(x, P.multiply(a, b)), dtypes=INTEGERS,
         examples=(P.multiply(P.multiply(x, 3), 5),)),
    Rule("divide_one", P.divide(x, 1), x, dtypes=FLOATS),
    Rule("divide_minus_one", P.divide(x, -1), P.negative(x), dtypes=FLOATS),
    Rule("divide_negatives", P.divide(P.negative(x), P.negative(y)), P.divide(x, y), dtypes=FLOATS),
    Rule("divide_power_of_two", P.divide(x, a), _multiply_by_reciprocal, when=_reciprocal_is_exact, dtypes=FLOATS,
         examples=(P.divide(x, 4.0), P.divide(x, -0.125))),
    Rule("floor_divide_one", P.floor_divide(x, 1), x, dtypes=INTEGERS),
    Rule("remainder_one", P.remainder(x, 1), 0, dtypes=INTEGERS),
    # addition and subtraction
    Rule("add_zero", P.add(x, 0), x, dtypes=INTEGERS),
    Rule("add_negative_zero", P.add(x, -0.0), x, dtypes=FLOATS),
    Rule("add_negative", P.add(x, P.negative(y)), P.subtract(x, y), dtypes=NUMBERS),
    Rule("add_constants", P.add(P.add(x, a), b), P.add(x, P.add(a, b)), dtypes=INTEGERS, examples=(P.add(P.add(x, 3), 5),)),
    Rule("subtract_zero", P.subtract(x, 0), x, dtypes=NUMBERS),
    Rule("subtract_negative", P.subtract(x, P.negative(y)), P.add(x, y), dtypes=NUMBERS),
    Rule("subtract_itself", P.subtract(x, x), 0, dtypes=INTEGERS),
    Rule("subtract_from_zero", P.subtract(0, x), P.negative(x), dtypes=INTEGERS),
    Rule("subtract_from_negative_zero", P.subtract(-0.0, x), P.negative(x), dtypes=FLOATS),
    Rule("negative_negative", P.negative(P.negative(x)), x, dtypes=NUMBERS),
    Rule("negative_subtract", P.negative(P.subtract(x, y)), P.subtract(y, x), dtypes=INTEGERS),
    Rule("abs_negative", P.abs(P.negative(x)), P.abs(x), dtypes=SIGNED),
    Rule("abs_abs", P.abs(P.abs(x)), P.abs(x), dtypes=NUMBERS),
    Rule("square_negative", P.square(P.negative(x)), P.square(x), dtypes=NUMBERS),
    Rule("square_abs", P.square(P.abs(x)), P.square(x), dtypes=NUMBERS),
    # powers: products are at most as far from the truth as the power function
    Rule("pow_zero", P.pow(x, 0), 1, dtypes=NUMBERS),
    Rule("pow_one", P.pow(x, 1), x, ulps=1, dtypes=NUMBERS),
    Rule("pow_two", P.pow(x, 2), _product(2), ulps=1, dtypes=NUMBERS),
    Rule("pow_three", P.pow(x, 3), _product(3), ulps=2, dtypes=NUMBERS),
    Rule("pow_four", P.pow(x, 4), _product(4), ulps=3, dtypes=NUMBERS),
    Rule("pow_minus_one", P.pow(x, -1), P.divide(1, x), dtypes=FLOATS, ulps=1),
    # minimum, maximum
    *(Rule(f"{op}_itself", Pattern(op, (x, x)), x) for op in ("minimum", "maximum", "bitwise_and", "bitwise_or")),
    *(Rule(f"{op}_twice", Pattern(op, (Pattern(op, (x, y)), y)), Pattern(op, (x, y))) for op in ("minimum", "maximum")),
    # bits and truth values
    Rule("and_zero", P.bitwise_and(x, 0), 0, dtypes=INTEGERS),
    Rule("or_zero", P.bitwise_or(x, 0), x, dtypes=INTEGERS),
    Rule("xor_zero", P.bitwise_xor(x, 0), x, dtypes=INTEGERS),
    Rule("xor_itself", P.bitwise_xor(x, x), 0, dtypes=INTEGERS),
    Rule("xor_itself_bool", P.bitwise_xor(x, x), False, dtypes=BOOL),
    Rule("xor_true", P.bitwise_xor(x, True), P.bitwise_not(x), dtypes=BOOL),
    Rule("xor_false", P.bitwise_xor(x, False), x, dtypes=BOOL),
    Rule("and_true", P.bitwise_and(x, True), x, dtypes=BOOL),
    Rule("and_false", P.bitwise_and(x, False), False, dtypes=BOOL),
    Rule("or_true", P.bitwise_or(x, True), True, dtypes=BOOL),
    Rule("or_false", P.bitwise_or(x, False), x, dtypes=BOOL),
    Rule("not_not", P.bitwise_not(P.bitwise_not(x)), x),
    *(Rule(f"{op}_zero", Pattern(op, (x, 0)), x, dtypes=INTEGERS) for op in ("bitwise_left_shift", "bitwise_right_shift")),
    # comparisons
    *(Rule(f"{op}_itself", Pattern(op, (x, x)), True, dtypes=INTEGERS_AND_BOOL) for op in ("equal", "less_equal", "greater_equal")),
    *(Rule(f"{op}_itself", Pattern(op, (x, x)), False) for op in ("less", "greater")),
    Rule("not_equal_itself", P.not_equal(x, x), False, dtypes=INTEGERS_AND_BOOL),
    Rule("not_equal_not", P.bitwise_not(P.equal(x, y)), P.not_equal(x, y)),
    Rule("equal_not", P.bitwise_not(P.not_equal(x, y)), P.equal(x, y)),
    *(Rule(f"{op}_not", P.bitwise_not(Pattern(op, (x, y))), Pattern(other, (x, y)), dtypes=INTEGERS_AND_BOOL)
      for op, other in (("less", "greater_equal"), ("greater_equal", "less"), ("greater", "less_equal"), ("less_equal", "greater"))),
    # choice
    Rule("where_true", P.where(True, x, y), x),
    Rule("where_false", P.where(False, x, y), y),
    Rule("where_same", P.where(c, x, x), x, on="x"),
    Rule("where_not", P.where(P.bitwise_not(c), x, y), P.where(c, y, x), on="x"),
    Rule("where_itself", P.where(c, True, False), c, dtypes=BOOL),
    Rule("where_negated", P.where(c, False, True), P.bitwise_not(c), dtypes=BOOL),
    Rule("where_nested", P.where(c, P.where(c, x, y), z), P.where(c, x, z), on="x"),
    Rule("where_nested_else", P.where(c, x, P.where(c, y, z)), P.where(c, x, z), on="x"),
    # casts
    Rule("cast_same", P.cast(x), x, when=lambda m: m.root.dtype == m.x.dtype, examples=(P.cast(x, dtype=DType),)),
    Rule("cast_twice", P.cast(P.cast(x)), P.cast(x, dtype=lambda m: m.root.dtype), when=_cast_twice_is_once,
         examples=tuple(P.cast(P.cast(x, dtype=middle), dtype=end) for middle in DTYPES.values() for end in DTYPES.values())),
    # whole tensors
    *(Rule(f"{op}_number_second", Pattern(op, (a, x)), _swapped, on="x", dtypes=NUMBERS, examples=(Pattern(op, (Fill(3), x)),))
      for op in ("add", "multiply", "equal", "not_equal")),
    Rule("stop_gradient", P.stop_gradient(x), x),
    Rule("uniform_constant", P.constant(), _uniform, examples=(P.constant(value=Array(np.full((2, 3), -0.0))),), dtypes=(f64,)),
    Rule("fold_full", Pattern("*", ()), _fold_full, dtypes=NUMBERS, examples=(P.add(Fill(3), Fill(4)), P.less(Fill(3), Fill(4)))),
]

FAST = [
    Rule("add_zero_float", P.add(x, 0.0), x, fast=True, dtypes=FLOATS),
    Rule("multiply_zero_float", P.multiply(x, 0.0), 0.0, fast=True, dtypes=FLOATS),
    Rule("subtract_itself_float", P.subtract(x, x), 0.0, fast=True, dtypes=FLOATS),
    Rule("divide_itself", P.divide(x, x), 1.0, fast=True, dtypes=FLOATS),
    Rule("divide_constant", P.divide(x, a), _multiply_by_reciprocal, fast=True, dtypes=FLOATS, examples=(P.divide(x, 3.0),)),
    Rule("divide_divide", P.divide(P.divide(x, y), z), P.divide(x, P.multiply(y, z)), fast=True, dtypes=FLOATS),
    Rule("multiply_constants_float", P.multiply(P.multiply(x, a), b), P.multiply(x, P.multiply(a, b)), fast=True, dtypes=FLOATS,
         examples=(P.multiply(P.multiply(x, 3.0), 0.7),)),
    Rule("add_constants_float", P.add(P.add(x, a), b), P.add(x, P.add(a, b)), fast=True, dtypes=FLOATS,
         examples=(P.add(P.add(x, 3.0), 0.7),)),
    Rule("sqrt_squared", P.multiply(P.sqrt(x), P.sqrt(x)), x, fast=True, dtypes=FLOATS),
    Rule("pow_half", P.pow(x, 0.5), P.sqrt(x), fast=True, dtypes=FLOATS),
    Rule("exp_product", P.multiply(P.exp(x), P.exp(y)), P.exp(P.add(x, y)), fast=True, dtypes=FLOATS),
    Rule("log_exp", P.log(P.exp(x)), x, fast=True, dtypes=FLOATS),
    Rule("exp_log", P.exp(P.log(x)), x, fast=True, dtypes=FLOATS),
]

RULES = [*EXACT, *VIEW_RULES, *FAST]
