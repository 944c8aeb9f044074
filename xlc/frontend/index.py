"""Indexing of traced arrays: ``x[key]``, with NumPy's rules.

    x[1:, ::-1]            slice                              a view
    x[0], x[None]          slice and reshape                  a view
    x[i]                   gather(x, i) {axis=0}              i: an integer array or a traced integer
    x[i, :, j]             index(x, i, j) {axes=(0, 2)}       several integer arrays; NumPy's rule places their dimensions

Basic keys (integers, slices, None, ...) share memory with ``x`` in NumPy's eyes; keys that hold arrays copy. An integer that is known while
tracing is checked against the size; one that is traced wraps around when negative and is clamped into the range when it is outside.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import XlcIndexError, XlcTypeError, XlcValueError
from ..ir.node import Node, full
from ..ir.types import Dim, Size, Type, i64
from .array import Tracer, lift, unwrap, view_of, wrap
from .elementwise import broadcast, broadcast_shapes, cast, emit, show_shape
from .size import plain_size
from .trace import _local, describe


@dataclass
class Key:
    """A key, one entry per dimension of the array after new axes were inserted: a slice or an index array (Node). ``scalar`` tells the
    entries that were written as integers."""

    basic: list[Any]  # per axis of x: (start, stop, step) or None for a whole axis
    new_axes: list[int]  # positions of None in the inserted array
    drop: list[int]  # positions (inserted array) of integers in a basic key
    arrays: list[tuple[int, Node]]  # positions (inserted array) and ids
    separated: bool  # NumPy: the arrays' dimensions go first


def get_item(x: Tracer, key: Any) -> Tracer:
    node = x.node
    k = parse_key(node, key)
    out = node
    if any(b is not None for b in k.basic):
        whole = [(0, n, 1) if b is None else b for b, n in zip(k.basic, node.shape, strict=True)]
        start, stop, step = zip(*whole, strict=True)
        out = emit("slice", out, start=start, stop=stop, step=step)
    shape = list(out.shape)
    for position in k.new_axes:
        shape.insert(position, 1)
    shape = [s for i, s in enumerate(shape) if i not in k.drop]
    if tuple(shape) != out.shape:
        out = emit("reshape", out, shape=tuple(shape))
    if not k.arrays:
        scalar = out.rank == 0 and not (key is Ellipsis or (type(key) is tuple and any(item is Ellipsis for item in key)))
        return wrap(out) if scalar else view_of(x, out)  # x[0] of a vector is a NumPy scalar: immutable, no view
    return wrap(_gather(out, k))


def _gather(x: Node, k: Key) -> Node:
    axes = tuple(axis for axis, _ in k.arrays)
    if len(axes) == 1:
        return emit("gather", x, k.arrays[0][1], axis=axes[0])
    common = broadcast_shapes(*(ids.shape for _, ids in k.arrays))
    out = emit("index", x, *(broadcast(ids, common) for _, ids in k.arrays), axes=axes)
    if k.separated and axes[0] > 0:
        n, first = len(common), axes[0]
        out = emit("transpose", out, axes=(*range(first, first + n), *range(first), *range(first + n, out.rank)))
    return out


def parse_key(x: Node, key: Any) -> Key:
    entries = _expand(x, key if type(key) is tuple else (key,))
    advanced = any(kind == "array" for kind, _ in entries)
    k = Key([], [], [], [], False)
    axis = position = 0
    for kind, value in entries:
        if kind == "new":
            k.new_axes.append(position)
        elif kind == "gap":
            continue
        else:
            n = x.shape[axis]
            if kind == "slice":
                k.basic.append(None if value.start is value.stop is value.step is None else _slice(value, n, axis))
            elif kind == "int" and not advanced:
                i = known_index(value, n, axis)
                k.basic.append((i, i + 1, 1))
                k.drop.append(position)
            else:
                k.basic.append(None)
                ids = full(Type(i64), known_index(value, n, axis)) if kind == "int" and isinstance(n, int) else \
                    wrap_negative(unwrap(value), n)
                k.arrays.append((position, ids))
            axis += 1
        position += 1
    if len(k.arrays) > 1:
        kinds = "".join("a" if kind == "array" or kind == "int" else "." for kind, _ in entries).strip(".")
        k.separated = "." in kinds
    return k


def _expand(x: Node, key: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """The entries with their kinds; the ellipsis as slices, masks as their integer indices."""
    entries: list[tuple[str, Any]] = []
    ellipsis = None
    for item in key:
        if item is None:
            entries.append(("new", None))
        elif item is Ellipsis:
            if ellipsis is not None:
                raise XlcIndexError("an index can only have a single ellipsis ('...')")
            ellipsis = len(entries)
            entries.append(("gap", None))
        elif isinstance(item, slice):
            entries.append(("slice", item))
        elif isinstance(item, (bool, np.bool_)):
            raise XlcTypeError("a single bool as an index is not supported on traced values; write x[None] for x[True]")
        elif isinstance(item, (int, np.integer, Dim)):
            entries.append(("int", plain_size(item) if isinstance(item, Dim) else int(item)))
        else:
            entries += _array_entries(item)
    used = sum(kind in ("slice", "int", "array") for kind, _ in entries)
    if used > x.rank:
        raise XlcIndexError(f"too many indices: the array has {x.rank} dimensions (shape {show_shape(x.shape)}), but {used} were indexed")
    rest = [("slice", slice(None))] * (x.rank - used)
    if ellipsis is None:
        return entries + rest
    return entries[:ellipsis + 1] + rest + entries[ellipsis + 1:]


def _array_entries(item: Any) -> list[tuple[str, Any]]:
    if type(item) is not Tracer and not isinstance(item, np.ndarray):
        if isinstance(item, (str, float, dict, set)) or callable(item):
            raise XlcIndexError(f"only integers, slices (`:`), ellipsis (`...`), None and integer arrays are valid indices; found "
                                f"{describe(item)}")
        item = lift(item) if not isinstance(item, (list, tuple)) or len(item) else np.zeros(np.shape(item), np.int64)
    kind = item.dtype.kind
    if kind == "b":
        constant = item if isinstance(item, np.ndarray) else constant_of(item.node)
        if constant is None:
            raise XlcTypeError(f"a traced boolean mask as an index ({item!r}) gives a result whose shape depends on the data; write "
                               f"np.where(mask, x, "
                               "other) instead of x[mask], np.sum(x, where=mask) instead of x[mask].sum(), and x = np.where(mask, v, x) "
                               "instead of "
                               "x[mask] = v")
        return [("array", lift(ids)) for ids in np.nonzero(constant)]
    if kind not in "iu":
        raise XlcIndexError(f"arrays used as indices must be of integer (or boolean) type, found {item.dtype}; convert with astype(int)")
    return [("array", lift(item))]


def constant_of(node: Node) -> np.ndarray | None:
    """The value of a node that is a constant itself."""
    if node.op.name == "constant":
        return node["value"].value
    if node.op.name == "full" and node.type.is_static:
        return np.full(node.shape, node["value"], node.dtype.numpy)
    return None


def known_index(i: Size, n: Size, axis: int) -> Size:
    """An index that is known while tracing, counted from the front."""
    if isinstance(n, int) and isinstance(i, int):
        if not -n <= i < n:
            raise XlcIndexError(f"index {i} is out of bounds for axis {axis} with size {n}")
        return i % n if n else i
    if isinstance(i, int):
        _assume(n - i - 1 if i >= 0 else n + i)
        return i if i >= 0 else n + i
    _assume(i)
    _assume(n - i - 1)
    return i


def wrap_negative(ids: Node, n: Size) -> Node:
    """Integer ids as i64, negative ones counted from the end. Constants are checked against the size."""
    from .elementwise import size_node

    constant = constant_of(ids)
    if constant is not None and isinstance(n, int):
        if constant.size and not (-n <= int(constant.min()) and int(constant.max()) < n):
            bad = constant[(constant < -n) | (constant >= n)].flat[0]
            raise XlcIndexError(f"index {bad} is out of bounds for an axis of size {n}")
        return unwrap(np.where(constant < 0, constant + n, constant).astype(np.int64))
    signed = ids.dtype.signed
    ids = cast(ids, i64)
    if not signed:
        return ids
    size = broadcast(size_node(n), ids.shape)
    return emit("where", emit("less", ids, full(ids.type, 0)), emit("add", ids, size), ids)


def _slice(s: slice, n: Size, axis: int) -> tuple[Size, Size, int]:
    """(start, stop, step) within the axis; ``range(start, stop, step)`` lists the elements."""
    start, stop, step = (_bound(v, axis) for v in (s.start, s.stop, s.step))
    if step == 0:
        raise XlcValueError("slice step cannot be zero")
    if isinstance(step, Dim):
        raise XlcIndexError(f"the step of a slice must be an int, found the symbolic size {step}")
    if isinstance(n, int) and not isinstance(start, Dim) and not isinstance(stop, Dim):
        first, last, step = slice(start, stop, step).indices(n)
        length = len(range(first, last, step))
        return (first, first + length * step, step) if length and step == 1 else (first, last, step) if length else (0, 0, 1)
    step = 1 if step is None else step
    if step < 0:
        if start is not None or stop is not None:
            raise XlcIndexError(f"a slice with bounds and a negative step along the symbolic axis {axis}; write x[a:b][::{step}]")
        return n - 1, -1, step
    low = 0 if start is None else _within(start, n)
    high = n if stop is None else _within(stop, n)
    _assume(high - low)
    return low, high, step


def _bound(v: Any, axis: int) -> Any:
    if v is None or isinstance(v, int):
        return v
    if isinstance(v, Dim):
        return plain_size(v)
    if isinstance(v, Tracer):
        raise XlcTypeError(f"a traced integer as a bound of a slice (axis {axis}) gives a result whose shape depends on the data; for a "
                           f"window of known "
                           "length k write np.take(x, i + np.arange(k), axis=...), else declare the bound with static_argnames=")
    try:
        return operator.index(v)
    except TypeError:
        raise XlcTypeError(f"the bounds of a slice must be integers or None, found {describe(v)}") from None


def _within(bound: Size, n: Size) -> Size:
    at = n + bound if isinstance(bound, int) and bound < 0 else bound
    _assume(at)
    _assume(n - at)
    return at


def _assume(size: Size) -> None:
    """What follows holds only where this is not negative: calls with other sizes are compiled on their own."""
    from ..errors import XlcIndexError
    from .size import _least

    least = _least(size)
    if least is not None and least >= 0:
        return
    if isinstance(size, int):
        raise XlcIndexError("index out of bounds")
    if _local.trace is not None:
        _local.trace.assumptions.add(size)
