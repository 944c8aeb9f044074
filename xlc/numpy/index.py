"""Functions that select by integers: take, take_along_axis, the functional update ``at``, and what sorting gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, unwrap, wrap
from ..frontend.axes import integer, one_axis
from ..frontend.eager import public
from ..frontend.elementwise import broadcast, broadcast_shapes, cast, elementwise, emit, literal, result_dtype, show_shape, size_node
from ..frontend.index import get_item, parse_key, wrap_negative
from ..frontend.table import function
from ..ir.node import Node, full
from ..ir.types import DTYPES, Dim, Size, Type, i64
from .elementwise import select_nodes
from .shape import index_grid


def integer_ids(ids: Any, name: str) -> Tracer:
    found = lift(np.zeros(np.shape(ids), np.int64) if isinstance(ids, (list, tuple)) and not len(ids) else ids)
    if found.node.dtype.kind not in "iub":
        raise XlcTypeError(f"np.{name} expects integers as indices, found {found.dtype}; convert with astype(int)")
    return found


@function(np.take)
def take(x: Any, indices: Any, axis: int | None = None, out: None = None, mode: str = "raise") -> Any:
    """np.take; traced indices that are out of bounds are clamped."""
    x, ids = lift(x), integer_ids(indices, "take").node
    if axis is None:
        x, axis = x.reshape(-1), 0
    elif not x.ndim:
        x = x.reshape(1)  # as NumPy does
    at = one_axis(axis, x.ndim)
    n = x.node.shape[at]
    if mode == "wrap":
        ids = elementwise("remainder", wrap(cast(ids, i64)), wrap(size_node(n))).node
    elif mode == "clip":
        ids = elementwise("maximum", wrap(cast(ids, i64)), 0).node
    elif mode in ("raise", "fill"):
        ids = wrap_negative(ids, n)
    else:
        raise XlcValueError(f"mode must be 'raise', 'wrap' or 'clip', found {mode!r}")
    return wrap(emit("gather", x.node, ids, axis=at))


@function(np.take_along_axis)
def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    x, ids = lift(x), integer_ids(indices, "take_along_axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    at = one_axis(axis, x.ndim)
    if ids.ndim != x.ndim:
        raise XlcValueError(f"`indices` and `arr` must have the same number of dimensions: found {ids.ndim} and {x.ndim}")
    n = x.node.shape[at]
    lead = broadcast_shapes(*(tuple(1 if i == at else s for i, s in enumerate(v.node.shape)) for v in (x, ids)))
    def shape(size: Size) -> tuple[Size, ...]:
        return tuple(size if i == at else s for i, s in enumerate(lead))

    node = broadcast(x.node, shape(n))
    return wrap(emit("take_along", node, broadcast(wrap_negative(ids.node, n), shape(ids.node.shape[at])), axis=at))


class At:
    """``xlc.numpy.at(x, index)``: an array with some elements replaced, as a new array. Elements whose index is out of bounds are left out;
    where an index occurs several times, ``set`` keeps the last and the others combine all."""

    def __init__(self, x: Any, index: Any):
        self.x, self.index = x, index

    def set(self, values: Any) -> Any:
        return _AT["set"](self.x, self.index, values)

    def add(self, values: Any) -> Any:
        return _AT["add"](self.x, self.index, values)

    def multiply(self, values: Any) -> Any:
        return _AT["multiply"](self.x, self.index, values)

    def min(self, values: Any) -> Any:
        return _AT["min"](self.x, self.index, values)

    def max(self, values: Any) -> Any:
        return _AT["max"](self.x, self.index, values)

    def subtract(self, values: Any) -> Any:
        return self.add(-values if isinstance(values, (Tracer, int, float)) else np.negative(values))

    def get(self) -> Any:
        return self.x[self.index]


def _at(mode: str) -> Any:
    def f(x: Any, index: Any, values: Any) -> Any:
        return wrap(_scatter(lift(x), index, values, mode))

    return public(f"at_{mode}", f)


_AT = {mode: _at(mode) for mode in ("set", "add", "multiply", "min", "max")}


def _scatter(x: Tracer, index: Any, values: Any, mode: str) -> Node:
    node, d = x.node, x.node.dtype
    if isinstance(values, (bool, int, float)) and type(values) in (bool, int, float):
        values = wrap(literal(values if not (d.is_int and isinstance(values, float)) else int(values), d))
    new = cast(lift(values).node, d)
    if isinstance(index, (Tracer, np.ndarray)) and index.dtype.kind == "b":
        return _masked_update(node, index, new, mode)
    if mode == "set" and index in (Ellipsis, ()) if not isinstance(index, (Tracer, np.ndarray, list)) else False:
        return _fitted(new, node.shape)
    key = parse_key(node, index)
    lead = [position for position, _ in key.arrays]
    direct = not key.new_axes and not key.drop and all(b is None for b in key.basic) and lead == list(range(len(lead))) and lead
    if direct:  # x[i, j] with all other axes whole
        common = broadcast_shapes(*(ids.shape for _, ids in key.arrays))
        ids = [broadcast(v, common) for _, v in key.arrays]
        axes = tuple(lead)
        shape = common + node.shape[len(lead):]
    else:  # the coordinates of every element of x[index]
        axes = tuple(range(node.rank))
        ids = [get_item(wrap(index_grid(node.shape, a)), index).node for a in axes]
        shape = ids[0].shape if ids else ()
        if not ids:
            return _combined(node, _fitted(new, ()), mode)
    update = _fitted(new, shape)
    if d.kind == "b" and mode != "set":
        raise XlcTypeError(f"xlc.numpy.at(x, index).{mode} on booleans; use np.where")
    return emit("scatter", node, update, *ids, axes=axes, mode=mode)


def _fitted(new: Node, shape: tuple[Size, ...]) -> Node:
    """The values, broadcast to the shape of x[index] as an assignment would (leading axes of size 1 may be too many)."""
    while new.rank > len(shape) and new.shape[0] == 1:
        new = emit("reshape", new, shape=new.shape[1:])
    if new.rank > len(shape) or broadcast_shapes(new.shape, shape) != shape:
        raise XlcValueError(f"could not broadcast values of shape {show_shape(new.shape)} into the indexed shape {show_shape(shape)}")
    return broadcast(new, shape)


def _combined(x: Node, new: Node, mode: str) -> Node:
    return new if mode == "set" else emit({"min": "minimum", "max": "maximum"}.get(mode, mode), x, new)


def _masked_update(x: Node, mask: Any, new: Node, mode: str) -> Node:
    m = unwrap(mask)
    if m.rank > x.rank or m.shape != x.shape[:m.rank]:
        raise XlcValueError(f"boolean index of shape {show_shape(m.shape)} does not match the array's {show_shape(x.shape)}")
    if new.rank > x.rank - m.rank:
        raise XlcTypeError("values for a boolean mask must be one number, or broadcast along the axes that the mask does not cover; how "
                           "many elements it "
                           "selects is not known while tracing: write x = np.where(mask, values_of_the_shape_of_x, x)")
    m = emit("broadcast", m, shape=x.shape, axes=tuple(range(m.rank))) if m.rank < x.rank else m
    return emit("where", m, _combined(x, broadcast(new, x.shape), mode), x)


# ------------------------------------------------------------------------------------------------ order


def _descending(x: Node, at: int, op: str) -> Node:
    """Stable, largest first: turned round, sorted, turned round again."""
    return _turned(emit(op, _turned(x, at), axis=at), at)


def _turned(x: Node, at: int) -> Node:
    return wrap(x)[tuple(slice(None, None, -1) if i == at else slice(None) for i in range(x.rank))].node


@function(np.sort)
def sort(x: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False) -> Any:
    x = lift(x)
    if axis is None:
        x, axis = x.reshape(-1), -1
    at = one_axis(axis, x.ndim)
    node = cast(x.node, DTYPES["u8"]) if x.node.dtype.kind == "b" else x.node
    return wrap(cast(_descending(node, at, "sort") if descending else emit("sort", node, axis=at), x.node.dtype))


@function(np.argsort)
def argsort(x: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False) -> Any:
    """Always stable (NumPy's default is not, and may order equal elements differently)."""
    x = lift(x)
    if axis is None or not x.ndim:
        x, axis = x.reshape(-1), -1
    at = one_axis(axis, x.ndim)
    node = cast(x.node, DTYPES["u8"]) if x.node.dtype.kind == "b" else x.node
    if not descending:
        return wrap(emit("argsort", node, axis=at))
    last = wrap(size_node(node.shape[at])) - 1
    return last - wrap(_descending(node, at, "argsort"))


@function(names=("top_k",))
def top_k(x: Any, k: int, /, *, axis: int = -1, mode: str = "largest") -> Any:
    """(values, indices) of the k largest (or smallest) along ``axis``, in order."""
    x, k = lift(x), integer(k, "k")
    at = one_axis(axis, x.ndim)
    n = x.node.shape[at]
    if isinstance(n, int) and not 0 <= k <= n:
        raise XlcValueError(f"top_k: k = {k} must lie between 0 and the size of the axis, {n}")
    if mode not in ("largest", "smallest"):
        raise XlcValueError(f"top_k: mode must be 'largest' or 'smallest', found {mode!r}")
    order = argsort(x, at, descending=mode == "largest")
    first = order[tuple(slice(0, k) if i == at else slice(None) for i in range(x.ndim))]
    return take_along_axis(x, first, at), first


@function(np.searchsorted)
def searchsorted(x1: Any, x2: Any, /, side: str = "left", sorter: Any = None) -> Any:
    a, v = lift(x1), lift(x2) if type(x2) not in (int, float) else x2
    if side not in ("left", "right"):
        raise XlcValueError(f"side must be 'left' or 'right', found {side!r}")
    if a.ndim != 1:
        raise XlcValueError("searchsorted: the first array must be 1-d")
    if sorter is not None:
        a = take(a, sorter, 0)
    d = result_dtype(a, v)
    values = literal(v, d) if type(v) in (int, float) else cast(v.node, d)
    return wrap(emit("searchsorted", cast(a.node, d), values, side=side))


@function(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """np.digitize for increasing bins."""
    return searchsorted(bins, x, "left" if right else "right")


@function(np.diff)
def diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    from .shape import broadcast_to, concatenate

    x = lift(x)
    at = one_axis(axis, x.ndim)
    def edge(v: Any) -> Tracer:
        v = lift(v)
        return broadcast_to(v, tuple(1 if i == at else s for i, s in enumerate(x.node.shape))) if v.ndim == 0 else v

    parts = [*([edge(prepend)] if prepend is not None else []), x, *([edge(append)] if append is not None else [])]
    y = concatenate(parts, at) if len(parts) > 1 else x
    for _ in range(integer(n, "n")):
        high, low = (y[tuple(s if i == at else slice(None) for i in range(y.ndim))] for s in (slice(1, None), slice(None, -1)))
        y = elementwise("not_equal" if y.node.dtype.kind == "b" else "subtract", high, low)
    return y


@function(np.ediff1d)
def ediff1d(x: Any) -> Any:
    return diff(lift(x).reshape(-1))


@function(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    y = lift(y)
    at = one_axis(axis, y.ndim)
    if x is None:
        d = dx
    else:
        d = diff(x) if lift(x).ndim == 1 else diff(x, axis=at)
        if d.ndim == 1:
            d = d.reshape(tuple(-1 if i == at else 1 for i in range(y.ndim)))
    high, low = (y[tuple(s if i == at else slice(None) for i in range(y.ndim))] for s in (slice(1, None), slice(None, -1)))
    return (d * (high + low) / 2.0).sum(at)


def _middle(x: Tracer, at: int) -> Tracer:
    """The median along an axis of a sorted array; nan where there is one (it sorts last)."""
    n = x.node.shape[at]
    if isinstance(n, Dim):
        raise XlcTypeError(f"the median along the symbolic size {n} is not supported; leave this axis out of dynamic=")
    pick = lambda i: x[tuple(i if d == at else slice(None) for d in range(x.ndim))]  # noqa: E731
    if n == 0:
        raise XlcValueError("median of an empty axis")
    y = pick(n // 2) if n % 2 else (pick(n // 2 - 1) + pick(n // 2)) / 2
    y = wrap(cast(y.node, x.node.dtype if x.node.dtype.is_float else DTYPES["f64"]))
    return select_nodes(elementwise("isnan", pick(n - 1)), wrap(full(Type(y.node.dtype), float("nan"))), y, y.node.dtype)


@function(np.median)
def median(x: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    from ..frontend.axes import many_axes
    from .shape import moveaxis

    x = lift(x)
    axes = many_axes(axis, x.ndim)
    kept = tuple(1 if i in axes else s for i, s in enumerate(x.node.shape))
    moved = moveaxis(x, axes, tuple(range(-len(axes), 0))) if axes else x
    rest = moved.node.shape[:x.ndim - len(axes)]
    flat = moved.reshape((*rest, -1))
    y = _middle(sort(flat, -1), flat.ndim - 1)
    return y.reshape(kept) if keepdims else y


@function(np.isin)
def isin(x: Any, values: Any, assume_unique: bool = False, invert: bool = False, *, kind: Any = None) -> Any:
    from .reduce import any as any_

    found = any_(lift(x)[..., None] == lift(values).reshape(-1), axis=-1)
    return ~found if invert else found
