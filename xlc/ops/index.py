"""Indexed access: gathering, scattering, sorting, searching.

    gather {axis}          x, ids              x.shape[:axis] + ids.shape + x.shape[axis+1:]
    index {axes}           x, ids... (one shape S)   the indexed dimensions are replaced by S, at the place of the first
    take_along {axis}      x, ids              ids[i, j] picks along the axis, NumPy's take_along_axis
    scatter {axes, mode}   x, updates, ids...  a copy of x with updates applied one after another, in row-major order of the updates

Ids are already non-negative (the front end wraps negative ones); those out of range are clamped when reading and dropped when writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from xlc.errors import XlcIndexError, XlcTypeError, XlcValueError
from xlc.ir.loops import Expr, const, size
from xlc.ir.node import Node, full
from xlc.ir.op import Op, lookup, register
from xlc.ir.types import Dim, Size, Type, i64, u64

from .kinds import ALL, up, view
from .scalar import bitwise_and, cast, equal, maximum, minimum, not_equal, where
from .shape import moved, repeated


def _check_ids(name: str, *ids: Type) -> None:
    for t in ids:
        if not t.dtype.is_int:
            raise XlcTypeError(f"{name}: indices must be integers, not {t}")


def _check_nonempty(name: str, x: Type, axes: Sequence[int], ids: Type) -> None:
    """There is no element to clamp to along an axis of size 0."""
    empty = [a for a in axes if x.shape[a] == 0]
    if empty and ids.size != 0 and x.is_static:
        raise XlcIndexError(f"{name}: cannot take elements {ids} from {x}, whose axis {empty[0]} is empty")


def _wide(ids: Any) -> Any:
    """Indices (Nodes or Exprs) as i64; those of u64 beyond its range as the greatest number, so that they do not turn negative."""
    if ids.dtype is u64:
        ids = minimum(ids, (1 << 63) - 1)
    return ids if ids.dtype is i64 else cast(ids, dtype=i64)


def _clamped(i: Expr, n: Any) -> Expr:
    return maximum(minimum(_wide(i), size(n) - const(1)), const(0))


def _present(x: Node, axes: Sequence[int]) -> Expr | None:
    """Whether there is an element to clamp to along axes of named size, which may be 0; None where that is known."""
    tests = [size(x.shape[a]) > const(0) for a in axes if isinstance(x.shape[a], Dim)]
    return reduce(bitwise_and, tests) if tests else None


def _gather_type(x: Type, ids: Type, axis: int) -> Type:
    _check_ids("gather", ids)
    if not 0 <= axis < x.rank:
        raise XlcValueError(f"gather: axis {axis} is out of range for {x}")
    _check_nonempty("gather", x, (axis,), ids)
    return x.with_shape((*x.shape[:axis], *ids.shape, *x.shape[axis + 1:]))


def _gather_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    x, ids = n.args
    axis, k = n["axis"], ids.rank
    chosen = _clamped(read(1, tuple(index[axis:axis + k])), x.shape[axis])
    return read(0, (*index[:axis], chosen, *index[axis + k:]), _present(x, (axis,)))


def extent_like(size: Any, like: Node) -> Node:
    """A size, named or not, as i64 of the shape of ``like``."""
    if isinstance(size, int):
        return full(Type(i64, like.shape), size)
    return lookup("broadcast")(lookup("extent")(size=size), shape=like.shape, axes=())


def _scatter_add(g: Node, like: Node, ids: Sequence[Node], axes: tuple[int, ...]) -> Node:
    """The adjoint of indexing: each cotangent is added where its element came from (ids clamped, as when reading)."""
    clamped = []
    for i, a in zip(ids, axes, strict=True):
        wide = _wide(i)
        clamped.append(maximum(minimum(wide, extent_like(like.shape[a], wide) - 1), 0))
    return scatter(full(like.type, 0), g, *clamped, axes=axes, mode="add")


def _gather_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], axis: int) -> Node:
    (x, ids), (x_batched, ids_batched) = args, batched
    if x_batched and ids_batched:
        return _index_batch(size, args, batched, (axis,))
    return gather(x, ids, axis=axis + 1) if x_batched else moved(gather(x, ids, axis=axis), axis, 0)


gather = view("gather", _gather_type, lambda x, i, axis: np.take(x, np.clip(i, 0, max(x.shape[axis] - 1, 0)), axis), _gather_pull, arity=2,
              kind="indexed", vjp=lambda g, y, x, i, axis: [_scatter_add(g, x, [i], (axis,)), None], batch=_gather_batch)


def _index_type(x: Type, *ids: Type, axes: tuple[int, ...]) -> Type:
    _check_ids("index", *ids)
    if len(axes) != len(ids) or list(axes) != sorted(set(axes)) or not axes or not 0 <= axes[-1] < x.rank:
        raise XlcValueError(f"index of {x}: axes {axes} must be ascending, one for each of the {len(ids)} index arrays")
    if any(t.shape != ids[0].shape for t in ids):
        raise XlcValueError(f"index: index arrays must have one shape, found {', '.join(map(str, ids))}")
    rest = [s for d, s in enumerate(x.shape) if d not in axes]
    return x.with_shape((*rest[:axes[0]], *ids[0].shape, *rest[axes[0]:]))


def _index_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    x, *ids = n.args
    axes, k = n["axes"], ids[0].rank
    first = axes[0]
    at = tuple(index[first:first + k])
    chosen = {a: _clamped(read(j + 1, at), x.shape[a]) for j, a in enumerate(axes)}
    rest = iter([*index[:first], *index[first + k:]])
    return read(0, tuple(chosen[d] if d in chosen else next(rest) for d in range(x.rank)), _present(x, axes))


def _index_array(x: np.ndarray, *ids: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    order = (*axes, *(d for d in range(x.ndim) if d not in axes))
    picked = x.transpose(order)[tuple(np.clip(i, 0, max(x.shape[a] - 1, 0)) for i, a in zip(ids, axes, strict=True))]
    k = ids[0].ndim
    return np.moveaxis(picked, range(k), range(axes[0], axes[0] + k))


def _read_type(x: Type, *ids: Type, axes: tuple[int, ...]) -> Type:
    out = _index_type(x, *ids, axes=axes)
    _check_nonempty("index", x, axes, ids[0])
    return out


def _index_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], axes: tuple[int, ...]) -> Node:
    """Where both the array and the ids are batched, the position along the mapped axis is one more index."""
    (x, *ids), (x_batched, *ids_batched) = args, batched
    if not any(ids_batched):
        return index(x, *ids, axes=up(axes))
    if not x_batched:
        return moved(index(x, *repeated(size, ids, ids_batched), axes=axes), axes[0], 0)
    every = _every(size, ids, ids_batched)
    out = index(x, *every, axes=(0, *up(axes)))  # mapped axis, dimensions of the ids, other dimensions of x
    return _behind(out, every[0].rank - 1, axes[0])


def _every(size: Size, ids: Sequence[Node], batched: Sequence[bool]) -> list[Node]:
    """Batched ids, and in front of them the positions along the mapped axis."""
    ids = repeated(size, ids, batched)
    return [lookup("iota")(shape=ids[0].shape, axis=0, dtype=i64), *ids]


def _behind(x: Node, count: int, place: int) -> Node:
    """Dimensions 1 to ``count`` come after the ``place`` dimensions that follow them."""
    order = (0, *range(1 + count, 1 + count + place), *range(1, 1 + count), *range(1 + count + place, x.rank))
    return x if list(order) == sorted(order) else lookup("transpose")(x, axes=order)


index = view("index", _read_type, _index_array, _index_pull, arity=None, kind="indexed", batch=_index_batch,
             vjp=lambda g, y, x, *ids, axes: [_scatter_add(g, x, ids, axes), *(None for _ in ids)])


def _along_type(x: Type, ids: Type, axis: int) -> Type:
    _check_ids("take_along", ids)
    if x.rank != ids.rank or any(s != t for d, (s, t) in enumerate(zip(x.shape, ids.shape, strict=True)) if d != axis):
        raise XlcValueError(f"take_along: {ids} does not fit {x} along axis {axis}; all other sizes must agree")
    _check_nonempty("take_along", x, (axis,), ids)
    return x.with_shape(ids.shape)


def _along_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    axis = n["axis"]
    chosen = _clamped(read(1, tuple(index)), n.args[0].shape[axis])
    return read(0, tuple(chosen if d == axis else i for d, i in enumerate(index)), _present(n.args[0], (axis,)))


def _along_vjp(g: Node, y: Node, x: Node, ids: Node, axis: int) -> list[Node | None]:
    iota = lookup("iota")
    every = [_wide(ids) if d == axis else iota(shape=ids.shape, axis=d, dtype=i64) for d in range(x.rank)]
    return [_scatter_add(g, x, every, tuple(range(x.rank))), None]


take_along: Op = view("take_along", _along_type, lambda x, i, axis: np.take_along_axis(x, np.clip(i, 0, max(x.shape[axis] - 1, 0)), axis),
                  _along_pull, arity=2, kind="indexed", vjp=_along_vjp,
                  batch=lambda size, args, batched, axis: take_along(*repeated(size, args, batched), axis=axis + 1))

# ------------------------------------------------------------------------------------------------ scatter

MODES = ("set", "add", "multiply", "max", "min")


def _scatter_type(x: Type, updates: Type, *ids: Type, axes: tuple[int, ...], mode: str) -> Type:
    if mode not in MODES:
        raise XlcValueError(f"scatter: mode {mode!r} is not one of {', '.join(MODES)}")
    expected = _index_type(x, *ids, axes=axes)
    if updates != expected:
        raise XlcTypeError(f"scatter into {x}: the updates have type {updates}, the indexed elements {expected}")
    return x


def _scatter_array(x: np.ndarray, updates: np.ndarray, *ids: np.ndarray, axes: tuple[int, ...], mode: str) -> np.ndarray:
    out, k = x.copy(), ids[0].ndim
    combine: Any = {"set": lambda a, b: b, "add": np.add, "multiply": np.multiply, "max": np.maximum, "min": np.minimum}[mode]
    for position in np.ndindex(updates.shape):
        at = position[axes[0]:axes[0] + k]
        chosen = dict(zip(axes, (int(i[at]) for i in ids), strict=True))
        rest = iter([*position[:axes[0]], *position[axes[0] + k:]])
        where_ = tuple(chosen[d] if d in chosen else next(rest) for d in range(x.ndim))
        if all(0 <= p < s for p, s in zip(where_, x.shape, strict=True)):
            with np.errstate(all="ignore"):
                out[where_] = combine(out[where_], updates[position])
    return out


def _scatter_vjp(g: Node, y: Node, x: Node, u: Node, *ids: Node, axes: tuple[int, ...], mode: str) -> list[Node | None]:
    none: list[Node | None] = [None] * len(ids)
    if x.type.size == 0:
        return [g, full(u.type, 0), *none]
    inside = _inside(u, x, ids, axes)
    at_updates = where(inside, index(g, *ids, axes=axes), full(u.type, 0))
    if mode == "add":
        return [g, at_updates, *none]
    if mode == "set":
        # the update that was applied last at its place is the one that counts
        iota, reshape = lookup("iota"), lookup("reshape")
        count = u.type.size
        order = reshape(iota(shape=(count,), axis=0, dtype=i64), shape=u.shape)
        last = scatter(full(Type(i64, x.shape), -1), order, *ids, axes=axes, mode="max")
        kept = where(last < full(last.type, 0), g, full(x.type, 0))
        wins = bitwise_and(inside, equal(index(last, *ids, axes=axes), order))
        return [kept, where(wins, index(g, *ids, axes=axes), full(u.type, 0)), *none]
    if mode in ("max", "min"):
        hits_x = cast(equal(x, y), dtype=x.dtype)
        hits_u = where(bitwise_and(inside, equal(u, index(y, *ids, axes=axes))), full(u.type, 1), full(u.type, 0))
        count = scatter(hits_x, hits_u, *ids, axes=axes, mode="add")
        share = g / maximum(count, full(x.type, 1))
        return [hits_x * share, hits_u * index(share, *ids, axes=axes), *none]
    # the product of all other factors of a place: all that are not 0, divided by the own one, unless there are (other) zeros
    zero_x, zero_u = equal(x, full(x.type, 0)), equal(u, full(u.type, 0))
    rest_x, rest_u = where(zero_x, full(x.type, 1), x), where(zero_u, full(u.type, 1), u)
    rest = scatter(rest_x, rest_u, *ids, axes=axes, mode="multiply")
    zeros = scatter(cast(zero_x, dtype=i64), cast(zero_u, dtype=i64), *ids, axes=axes, mode="add")
    count_u = index(zeros, *ids, axes=axes) - cast(zero_u, dtype=i64)
    gx = where(equal(zeros - cast(zero_x, dtype=i64), full(zeros.type, 0)), g * (rest / rest_x), full(x.type, 0))
    gu = where(equal(count_u, full(count_u.type, 0)), index(g, *ids, axes=axes) * (index(rest, *ids, axes=axes) / rest_u), full(u.type, 0))
    return [gx, where(inside, gu, full(u.type, 0)), *none]


def _inside(u: Node, x: Node, ids: Sequence[Node], axes: tuple[int, ...]) -> Node:
    """Which updates are within bounds, as a tensor of the updates' shape."""
    k, out = ids[0].rank, None
    for i, a in zip(ids, axes, strict=True):
        wide = _wide(i)
        ok = bitwise_and(wide >= 0, wide < extent_like(x.shape[a], wide))
        out = ok if out is None else bitwise_and(out, ok)
    return lookup("broadcast")(out, shape=u.shape, axes=tuple(range(axes[0], axes[0] + k)))


def _scatter_jvp(ts: Sequence[Node | None], y: Node, x: Node, u: Node, *ids: Node, axes: tuple[int, ...], mode: str) -> Any:
    """Setting and adding are linear."""
    if mode not in ("set", "add"):
        return NotImplemented
    tx, tu = (full(a.type, 0) if t is None else t for a, t in zip((x, u), ts, strict=False))
    return scatter(tx, tu, *ids, axes=axes, mode=mode)


def _scatter_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], axes: tuple[int, ...], mode: str) -> Node:
    x, u = repeated(size, args[:2], batched[:2])
    ids, ids_batched = args[2:], batched[2:]
    if not any(ids_batched):
        return scatter(x, u, *ids, axes=up(axes), mode=mode)
    every = _every(size, ids, ids_batched)
    count, place = every[0].rank - 1, axes[0]
    order = (0, *range(1 + place, 1 + place + count), *range(1, 1 + place), *range(1 + place + count, u.rank))
    return scatter(x, lookup("transpose")(u, axes=order), *every, axes=(0, *up(axes)), mode=mode)


scatter: Any = register(Op("scatter", "indexed", None, _scatter_type, _scatter_array, vjp=_scatter_vjp, jvp=_scatter_jvp,
                           batch=_scatter_batch, dtypes=ALL, exact=True))

# ------------------------------------------------------------------------------------------------ order


def _axis_type(x: Type, axis: int, descending: bool = False) -> Type:
    if not 0 <= axis < x.rank:
        raise XlcValueError(f"sort: axis {axis} is out of range for {x}")
    return x


def _argsort_array(x: np.ndarray, axis: int, descending: bool = False) -> np.ndarray:
    if not descending:
        key = x.astype(np.float32) if x.dtype.kind == "V" else x
        return np.argsort(key, axis, kind="stable")
    nan = np.isnan(x.astype(np.float64)) if x.dtype.kind in "fV" else np.zeros(x.shape, bool)
    ranks = np.unique(x.astype(np.float64) if x.dtype.kind in "fV" else x, return_inverse=True)[1].reshape(x.shape)
    return np.argsort(np.where(nan, ranks.size + 1, -ranks), axis, kind="stable")


def _sort_vjp(g: Node, y: Node, x: Node, axis: int, **attrs: Any) -> list[Node]:
    order = argsort(x, axis=axis, **attrs)
    return [take_along.vjp(g, y, x, order, axis=axis)[0]]  # type: ignore[misc]


sort: Any = register(Op("sort", "ordered", 1, _axis_type,
                        lambda x, axis, descending=False: np.take_along_axis(x, _argsort_array(x, axis, descending), axis),
                        vjp=_sort_vjp, dtypes=ALL, exact=True, doc="stable; nan last"))
argsort: Any = register(Op("argsort", "ordered", 1, lambda x, axis, descending=False: _axis_type(x, axis).with_dtype(i64),
                           lambda x, axis, descending=False: _argsort_array(x, axis, descending).astype(np.int64),
                           vjp=lambda g, y, x, axis, **attrs: [None], dtypes=ALL, exact=True, doc="stable; nan last"))


def _search_type(a: Type, v: Type, side: str) -> Type:
    if not a.rank or a.dtype is not v.dtype or a.shape[:-1] != v.shape[:a.rank - 1]:
        raise XlcValueError(f"searchsorted needs a one-dimensional array (or rows of them) and values of its dtype (for each row), found "
                            f"{a} and {v}")
    if side not in ("left", "right"):
        raise XlcValueError(f"searchsorted: side must be 'left' or 'right', found {side!r}")
    return Type(i64, v.shape)


def _search_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    """Binary search, written out: log2(n) + 1 steps, or as many as the greatest array that memory can hold would take."""
    a = n.args[0]
    v, total, row = read(1, tuple(index)), a.shape[-1], tuple(index[:a.rank - 1])
    low, high = const(0), size(total)
    for _ in range(total.bit_length() if isinstance(total, int) else LARGEST_BITS):
        middle = (low + high) >> 1
        x = read(0, (*row, minimum(middle, size(total) - 1)), None if isinstance(total, int) else low < high)
        right = ~_before(v, x) if n["side"] == "right" else _before(x, v)
        right = bitwise_and(right, low < high)
        low, high = where(right, middle + 1, low), where(right, high, middle)
    return low


LARGEST_BITS = 40  # of the number of elements of an array of named size that is searched


def _before(x: Expr, y: Expr) -> Expr:
    if not x.dtype.is_float:
        return x < y
    return (x < y) | (equal(x, x) & not_equal(y, y))


def _search_array(a: np.ndarray, v: np.ndarray, side: Any) -> np.ndarray:
    out = np.empty(v.shape, np.int64)
    for row in np.ndindex(a.shape[:-1]):
        out[row] = np.searchsorted(a[row], v[row], side)
    return out


def _search_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], side: str) -> Node:
    """One sorted array serves values of any shape; where there is one for each element, they are rows."""
    return searchsorted(*(args if args[0].rank == 1 and not batched[0] else repeated(size, args, batched)), side=side)


searchsorted: Any = view("searchsorted", _search_type, _search_array, _search_pull, arity=2, kind="indexed", batch=_search_batch,
                         vjp=lambda g, y, a, v, side: [None, None])
