"""Reductions and cumulative operators, each a monoid. ``axes`` are removed; float sums of halves accumulate in f32.

    sum(%x) {axes=(1,)}: f32[4] from f32[4,5];   argmax(%x) {axes=(0, 1)}: i64[], a row-major position
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcValueError
from xlc.ir.loops import Expr, const
from xlc.ir.node import Node, full
from xlc.ir.op import Monoid, Op, lookup, register
from xlc.ir.types import DType, Type, bool_, f32, i64

from .kinds import ALL, NUMBERS, is_half, reduction, rounded
from .scalar import bitwise_and, bitwise_or, cast, equal, maximum, minimum, not_equal, where
from .shape import broadcast, reshape


def _wide(d: DType) -> DType:
    return f32 if is_half(d) else d


def lowest(d: DType) -> Any:
    return -float("inf") if d.is_float else False if d is bool_ else np.iinfo(d.numpy).min


def highest(d: DType) -> Any:
    return float("inf") if d.is_float else True if d is bool_ else np.iinfo(d.numpy).max


def _of(start: Callable[[DType], Any], op: Callable[[Any, Any], Any]) -> Monoid:
    return Monoid(lambda d: (const(start(d), d),), lambda s, t: (op(s[0], t[0]),))


def _sum_like(start: Any, op: Callable[[Any, Any], Any]) -> Monoid:
    return Monoid(lambda d: (const(start, _wide(d)),), lambda s, t: (op(s[0], t[0]),))


SUM, PROD = _sum_like(0, lambda a, b: a + b), _sum_like(1, lambda a, b: a * b)
MAX, MIN = _of(lowest, lambda a, b: maximum(a, b)), _of(highest, lambda a, b: minimum(a, b))


def back(g: Node, x: Node, axes: Sequence[int]) -> Node:
    """A reduced tensor, repeated along the reduced axes of x."""
    return broadcast(g, shape=x.shape, axes=tuple(d for d in range(x.rank) if d not in axes))


def _extreme_vjp(g: Node, y: Node, x: Node, axes: tuple[int, ...]) -> list[Node]:
    """Shared equally among ties."""
    hit = equal(x, back(y, x, axes))
    count = sum_(cast(hit, dtype=_wide(x.dtype)), axes=axes)
    share = g / (cast(count, dtype=x.dtype) if count.dtype is not x.dtype else count)
    return [where(hit, back(share, x, axes), full(x.type, 0))]


def _prod_vjp(g: Node, y: Node, x: Node, axes: tuple[int, ...]) -> list[Node]:
    """The product of all others, from both sides, so that zeros need no division."""
    kept = tuple(d for d in range(x.rank) if d not in axes)
    order = (*kept, *axes)
    transpose = lookup("transpose")
    moved = transpose(x, axes=order)
    flat = reshape(moved, shape=(*(x.shape[d] for d in kept), _product(x.shape[d] for d in axes)))
    last = flat.rank - 1
    if flat.shape[last] == 0:
        return [back(g, x, axes)]
    left = _shifted(cumulative_prod(flat, axis=last, reverse=False), last, False)
    right = _shifted(cumulative_prod(flat, axis=last, reverse=True), last, True)
    others = transpose(reshape(left * right, shape=moved.shape), axes=tuple(order.index(d) for d in range(x.rank)))
    return [back(g, x, axes) * others]


def _product(sizes: Any) -> Any:
    from xlc.ir.types import product

    return product(sizes)


def _shifted(x: Node, axis: int, left: bool) -> Node:
    """Exclusive from inclusive: moved by one along the axis, a 1 entering."""
    n = x.shape[axis]
    one = full(Type(x.dtype, ()), 1)
    start = tuple((1 if left else 0) if d == axis else 0 for d in range(x.rank))
    stop = tuple((n if left else n - 1) if d == axis else s for d, s in enumerate(x.shape))
    kept = lookup("slice")(x, start=start, stop=stop, step=(1,) * x.rank)
    low = tuple(int(d == axis and not left) for d in range(x.rank))
    high = tuple(int(d == axis and left) for d in range(x.rank))
    return lookup("pad")(kept, one, low=low, high=high)


def _sum_array(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.sum(x, axis=axes, dtype=x.dtype)


sum_ = reduction("sum", _sum_array, SUM, NUMBERS, vjp=lambda g, y, x, axes: [back(g, x, axes)])
prod = reduction("prod", lambda x, axes: np.prod(x, axis=axes, dtype=x.dtype), PROD, NUMBERS, vjp=_prod_vjp)
max_ = reduction("max", lambda x, axes: np.max(x, axis=axes, initial=lowest_array(x)), MAX, ALL, vjp=_extreme_vjp, exact=True)
min_ = reduction("min", lambda x, axes: np.min(x, axis=axes, initial=highest_array(x)), MIN, ALL, vjp=_extreme_vjp, exact=True)
any_ = reduction("any", lambda x, axes: np.any(x, axis=axes), _of(lambda d: False, lambda a, b: bitwise_or(a, b)), (bool_,), exact=True)
all_ = reduction("all", lambda x, axes: np.all(x, axis=axes), _of(lambda d: True, lambda a, b: bitwise_and(a, b)), (bool_,), exact=True)


def lowest_array(x: np.ndarray) -> Any:
    from xlc.ir.types import dtype_of

    return np.asarray(lowest(dtype_of(x.dtype))).astype(x.dtype)


def highest_array(x: np.ndarray) -> Any:
    from xlc.ir.types import dtype_of

    return np.asarray(highest(dtype_of(x.dtype))).astype(x.dtype)


def _arg(precedes: Callable[[Expr, Expr], Expr], start: Callable[[DType], Any]) -> Monoid:
    """State (value, position). nan wins, then the extreme, then the earlier position; -1 stands for no element."""

    def merge(s: tuple[Expr, Expr], t: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        (v, i), (w, j) = s, t
        none, later = j < const(0), i < const(0)
        better = precedes(w, v)
        tie = equal(v, w)
        if v.dtype.is_float:
            v_nan, w_nan = not_equal(v, v), not_equal(w, w)
            better = (better & ~v_nan) | (w_nan & ~v_nan)
            tie = tie | (v_nan & w_nan)
        take = ~none & (later | better | (tie & (j < i)))
        return where(take, w, v), where(take, j, i)

    return Monoid(lambda d: (const(start(d), d), const(-1)), merge, lambda x, position: (x, position), lambda s: maximum(s[1], const(0)))


def _arg_array(f: Callable[..., Any]) -> Callable[..., Any]:
    def g(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        kept = [d for d in range(x.ndim) if d not in axes]
        moved = x.transpose((*kept, *axes))
        return np.asarray(f(moved.reshape((*(x.shape[d] for d in kept), int(np.prod([x.shape[d] for d in axes], dtype=int)))), -1))

    return g


argmax = reduction("argmax", _arg_array(np.argmax), _arg(lambda a, b: a > b, lowest), ALL, result=i64, exact=True,
                   vjp=lambda g, y, x, axes: [None])
argmin = reduction("argmin", _arg_array(np.argmin), _arg(lambda a, b: a < b, highest), ALL, result=i64, exact=True,
                   vjp=lambda g, y, x, axes: [None])

# ------------------------------------------------------------------------------------------------ cumulative


def cumulative(name: str, numpy: Callable[..., Any], monoid: Monoid, vjp: Callable[..., Any] | None = None) -> Op:
    def infer(x: Type, *, axis: int, reverse: bool = False) -> Type:
        if not 0 <= axis < x.rank:
            raise XlcValueError(f"{name}: axis {axis} is out of range for {x}")
        return x

    def oracle(x: np.ndarray, *, axis: int, reverse: bool = False) -> np.ndarray:
        wide = x.astype(np.float64) if x.dtype.kind in "fV" else x
        with np.errstate(all="ignore"):
            out = numpy(np.flip(wide, axis), axis) if reverse else numpy(wide, axis)
        return rounded(np.flip(out, axis) if reverse else np.asarray(out), x.dtype)

    return register(Op(name, "ordered", 1, infer, oracle, monoid=monoid, vjp=vjp, dtypes=NUMBERS))


def _cumulative_prod_vjp(g: Node, y: Node, x: Node, axis: int, reverse: bool) -> list[Node]:
    """dx[i] = sum over j >= i of g[j] * (product of all x up to j but x[i]). Before the first zero that is a division by x[i]; at the first
    zero it is what the products are with 1 in its place; after it, 0. (Work and memory are linear in the axis.)"""
    one, zero = full(x.type, 1), full(x.type, 0)
    is_zero = equal(x, zero)
    count = cumulative_sum(cast(is_zero, dtype=i64), axis=axis, reverse=reverse)
    first = bitwise_and(is_zero, equal(count, full(count.type, 1)))
    without = cumulative_prod(where(first, one, x), axis=axis, reverse=reverse)
    before = cumulative_sum(g * y, axis=axis, reverse=not reverse) / where(is_zero, one, x)
    at = cumulative_sum(g * without, axis=axis, reverse=not reverse)
    return [where(equal(count, full(count.type, 0)), before, where(first, at, zero))]


def _cumulative_extreme_vjp(g: Node, y: Node, x: Node, axis: int, reverse: bool) -> list[Node]:
    """To the latest position that holds the running extreme."""
    at = lookup("iota")(shape=x.shape, axis=axis, dtype=i64)
    holds = bitwise_or(equal(x, y), bitwise_and(not_equal(x, x), not_equal(y, y)))
    never = full(Type(i64, x.shape), highest(i64) if reverse else 0)
    holder = (cumulative_min if reverse else cumulative_max)(where(holds, at, never), axis=axis, reverse=reverse)
    return [lookup("take_along").vjp(g, y, x, holder, axis=axis)[0]]  # type: ignore[misc]


cumulative_sum: Op = cumulative("cumulative_sum", np.cumsum, SUM,
                                vjp=lambda g, y, x, axis, reverse: [cumulative_sum(g, axis=axis, reverse=not reverse)])
cumulative_prod = cumulative("cumulative_prod", np.cumprod, PROD, vjp=_cumulative_prod_vjp)
cumulative_max = cumulative("cumulative_max", np.maximum.accumulate, MAX, vjp=_cumulative_extreme_vjp)
cumulative_min = cumulative("cumulative_min", np.minimum.accumulate, MIN, vjp=_cumulative_extreme_vjp)
