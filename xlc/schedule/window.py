"""What a mask leaves: the columns of a matrix in which a block of rows may hold anything but its masked value.

    x = where(j <= i, s, -inf), rows 128 to 255   ->   columns below 256

Conditions that compare the row's number with the column's are half planes; a bound follows from each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Expr, const, substitute, walk
from xlc.ir.op import lookup
from xlc.ir.types import bool_, i32, i64

EXPONENTIAL = "exp"
HalfPlane = tuple[int, int, Expr]  # (a, b, c), a not 0: a*column + b*row + c <= 0


def bounds(planes: Iterable[HalfPlane], first: Expr, count: int, all_of_them: bool = False) -> tuple[Expr | None, Expr | None]:
    """From which column on, and below which, some of ``count`` rows from ``first`` on may lie in all half planes (``all_of_them``: these
    rows do, all of them); None: no bound."""
    low, high = (first + (count - 1), first) if all_of_them else (first, first + (count - 1))
    start: Expr | None = None
    stop: Expr | None = None
    for a, b, c in planes:
        rest = b * (low if b >= 0 else high) + c
        if a > 0:
            limit = (-rest) // a + 1
            stop = limit if stop is None else lookup("minimum")(stop, limit)
        else:
            limit = -((-rest) // -a)
            start = limit if start is None else lookup("maximum")(start, limit)
    return start, stop


def half_planes(x: Expr, row: Expr, column: Expr) -> Iterator[HalfPlane]:
    """Of the conditions without which x is -inf."""
    while x.op.name == "where":
        condition, yes, no = x.args
        if not (no.is_const and no.value == float("-inf")):
            return
        yield from _conjuncts(condition, row, column)
        x = yes


def vanishing(x: Expr, row: Expr, column: Expr) -> Iterator[HalfPlane]:
    """Of the conditions without which x is 0, where what it is multiplied with is finite."""
    name = x.op.name
    if name == "where" and x.args[2].is_const and float(x.args[2].value) == 0:
        yield from _conjuncts(x.args[0], row, column)
        yield from vanishing(x.args[1], row, column)
    elif name == "multiply":
        for a in x.args:
            yield from vanishing(a, row, column)
    elif name in ("divide", "negative", "cast"):
        yield from vanishing(x.args[0], row, column)
    elif name == EXPONENTIAL:
        yield from _lowest(x.args[0], row, column)


def _lowest(x: Expr, row: Expr, column: Expr) -> Iterator[HalfPlane]:
    """Of the conditions without which x is -inf, where what is subtracted from it is finite."""
    yield from _lowest(x.args[0], row, column) if x.op.name == "subtract" else half_planes(x, row, column)


def unmasked(x: Expr, row: Expr, column: Expr) -> Expr:
    """x where its half planes hold."""
    if x.op.name != "where" or not (x.args[2].is_const and x.args[2].value == float("-inf")):
        return x
    rest, inner = _remaining(x.args[0], row, column), unmasked(x.args[1], row, column)
    return inner if rest is None else lookup("where")(rest, inner, x.args[2])


def comparisons(x: Expr, row: Expr, column: Expr) -> Iterator[HalfPlane]:
    """Of all conditions in x."""
    for e in walk(x):
        if e.op.name == "where":
            yield from _conjuncts(e.args[0], row, column)


def compared(x: Expr, row: Expr, column: Expr) -> Expr:
    """x where all its half planes hold."""
    changed: dict[Expr, Expr] = {}
    for e in walk(x):
        rest = _remaining(e.args[0], row, column) if e.op.name == "where" else None
        if e.op.name == "where" and rest is None:
            changed[e] = changed[e.args[1]]
        else:
            args = [changed[a] if a is not e.args[0] or rest is None else rest for a in e.args]
            changed[e] = e if e.op.kind == "input" or args == list(e.args) else e.op(*args, **dict(e.attrs))
    return changed[x]


def _remaining(condition: Expr, row: Expr, column: Expr) -> Expr | None:
    """A condition without the part that is half planes."""
    if condition.op.name in ("bitwise_and", "logical_and") and condition.dtype is bool_:
        parts = [p for p in (_remaining(a, row, column) for a in condition.args) if p is not None]
        return condition.op(*parts) if len(parts) == 2 else parts[0] if parts else None
    return None if any(True for _ in _conjuncts(condition, row, column)) else condition


def _conjuncts(condition: Expr, row: Expr, column: Expr) -> Iterator[HalfPlane]:
    name = condition.op.name
    if name in ("bitwise_and", "logical_and") and condition.dtype is bool_:
        for part in condition.args:
            yield from _conjuncts(part, row, column)
    if name not in ("less", "less_equal", "greater", "greater_equal") or not condition.args[0].dtype.is_int:
        return
    low, high = (_index(e) for e in (condition.args if name.startswith("less") else condition.args[::-1]))
    if low is None or high is None:
        return
    difference = low - high + (0 if name.endswith("equal") else 1)
    a, b = ix.coefficient(difference, column), ix.coefficient(difference, row)
    rest = substitute(difference, {column: const(0), row: const(0)})
    if a and b is not None and not any(n.op is LOAD for n in walk(rest)):
        yield a, b, rest


def _index(e: Expr) -> Expr | None:
    """An integer as i64, where no step on the way wraps."""
    if e.is_const:
        return const(e.value)
    if e.dtype is i64:
        return e
    if e.dtype is not i32:
        return None
    if e.op.name == "cast" and e.args[0].dtype is i64:
        return e.args[0]  # of an index: within the bounds of arrays
    if e.op.name in ("add", "subtract"):
        parts = [_index(a) for a in e.args]
        return None if None in parts else e.op(*parts)
    return None


__all__ = ["EXPONENTIAL", "HalfPlane", "bounds", "compared", "comparisons", "half_planes", "unmasked", "vanishing"]
