"""Functions that move elements without computing: reshape, transpose, join, split, repeat, pad."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, unwrap, view_of, wrap
from ..frontend.axes import XlcAxisError, integer, many_axes, one_axis, reduced_axes, reshaped, shape_of, size_of
from ..frontend.elementwise import broadcast, broadcast_shapes, cast, emit, literal, result_dtype, show_shape
from ..frontend.elementwise import broadcast_to as broadcast_node
from ..frontend.table import function
from ..ir.node import Node, full
from ..ir.types import DTYPES, Dim, Size, Type, dtype_of, product


@function(np.reshape)
def reshape(x: Any, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: bool | None = None) -> Any:
    x = lift(x)
    target = reshaped(x.node.shape, newshape if shape is None else shape)
    if order == "F":
        turned = emit("reshape", transposed(x.node, tuple(reversed(range(x.ndim)))), shape=tuple(reversed(target)))
        return wrap(transposed(turned, tuple(reversed(range(len(target))))))
    if order not in ("C", "A"):
        raise XlcValueError(f"order must be 'C', 'F' or 'A', found {order!r}")
    node = x.node if target == x.node.shape else emit("reshape", x.node, shape=target)
    return wrap(node) if copy else view_of(x, node)


@function(np.ravel)
def ravel(x: Any, order: str = "C") -> Any:
    return reshape(x, -1, "C" if order == "K" else order)


def transposed(node: Node, axes: tuple[int, ...]) -> Node:
    return node if axes == tuple(range(node.rank)) else emit("transpose", node, axes=axes)


@function(np.transpose, names=("permute_dims",))
def transpose(x: Any, axes: Any = None) -> Any:
    x = lift(x)
    order = tuple(reversed(range(x.ndim))) if axes is None else tuple(one_axis(a, x.ndim) for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise XlcValueError(f"axes don't match array: axes {tuple(axes)} for an array of {x.ndim} dimensions")
    return view_of(x, transposed(x.node, order))


@function(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    x = lift(x)
    if x.ndim < 2:
        raise XlcValueError(f"matrix transpose with ndim < 2 is undefined; found shape {show_shape(x.node.shape)}")
    return swapaxes(x, -1, -2)


@function(np.swapaxes)
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    x = lift(x)
    order = list(range(x.ndim))
    i, j = one_axis(axis1, x.ndim), one_axis(axis2, x.ndim)
    order[i], order[j] = order[j], order[i]
    return view_of(x, transposed(x.node, tuple(order)))


@function(np.moveaxis)
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    x = lift(x)
    src, dst = ([one_axis(a, x.ndim) for a in (v if isinstance(v, (tuple, list)) else (v,))] for v in (source, destination))
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise XlcValueError("`source` and `destination` arguments must have the same number of distinct elements")
    order = [i for i in range(x.ndim) if i not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return view_of(x, transposed(x.node, tuple(order)))


@function(np.rollaxis)
def rollaxis(x: Any, axis: int, start: int = 0) -> Any:
    x = lift(x)
    axis, start = one_axis(axis, x.ndim), integer(start, "start")
    start = start + x.ndim if start < 0 else start
    return moveaxis(x, axis, start - 1 if axis < start else start)


@function(np.squeeze)
def squeeze(x: Any, axis: Any = None) -> Any:
    x = lift(x)
    axes = [i for i, s in enumerate(x.node.shape) if isinstance(s, int) and s == 1] if axis is None else reduced_axes(axis, x.ndim)
    for a in axes:
        if x.node.shape[a] != 1:
            raise XlcValueError(f"cannot select an axis to squeeze out which has size not equal to one: axis {a} has size "
                                f"{x.node.shape[a]}")
    return reshape(x, tuple(s for i, s in enumerate(x.node.shape) if i not in axes))


@function(np.expand_dims)
def expand_dims(x: Any, axis: Any = 0) -> Any:
    x = lift(x)
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    rank = x.ndim + len(given)
    axes = [one_axis(a, rank) for a in given]
    if len(set(axes)) < len(axes):
        raise XlcAxisError(f"repeated axis in axis={axis}")
    rest = iter(x.node.shape)
    return reshape(x, tuple(1 if i in axes else next(rest) for i in range(rank)))


def _at_least(rank: int, shape_for: Any) -> None:
    def f(*arrays: Any) -> Any:
        found = [lift(x) for x in arrays]
        out = [x if x.ndim >= rank else reshape(x, shape_for(x.node.shape)) for x in found]
        return out[0] if len(out) == 1 else tuple(out)

    f.__name__ = f.__qualname__ = f"atleast_{rank}d"
    f.__doc__ = f"np.atleast_{rank}d"
    function(getattr(np, f.__name__))(f)


_at_least(1, lambda s: (1,))
_at_least(2, lambda s: (1, 1) if not s else (1, s[0]))
_at_least(3, lambda s: (1, 1, 1) if not s else (1, s[0], 1) if len(s) == 1 else (*s, 1))


@function(np.broadcast_to)
def broadcast_to(x: Any, shape: Any, subok: bool = False) -> Any:
    x = lift(x)
    return view_of(x, broadcast_node(x.node, shape_of(shape)))


@function(np.broadcast_arrays)
def broadcast_arrays(*arrays: Any, subok: bool = False) -> Any:
    found = [lift(x) for x in arrays]
    shape = broadcast_shapes(*(x.node.shape for x in found))
    return tuple(view_of(x, broadcast(x.node, shape)) for x in found)


# ------------------------------------------------------------------------------------------------ join and split


def _as_list(arrays: Any, name: str) -> list[Tracer]:
    if isinstance(arrays, Tracer) or not isinstance(arrays, Sequence):
        arrays = list(arrays)
    if not arrays:
        raise XlcValueError(f"np.{name}: need at least one array")
    return [lift(x) for x in arrays]


@function(np.concatenate, names=("concat",))
def concatenate(arrays: Any, /, axis: int | None = 0, out: None = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    found = _as_list(arrays, "concatenate")
    common = result_dtype(*found) if dtype is None else dtype_of(dtype)
    if axis is None:
        found, axis = [ravel(x) for x in found], 0
    if not found[0].ndim:
        raise XlcValueError("zero-dimensional arrays cannot be concatenated; use np.stack")
    at = one_axis(axis, found[0].ndim)
    shape = found[0].node.shape
    for i, x in enumerate(found):
        if x.ndim != len(shape):
            raise XlcValueError(f"all the input arrays must have the same number of dimensions: array 0 has {len(shape)}, array {i} has "
                                f"{x.ndim}")
        for d, (s, t) in enumerate(zip(shape, x.node.shape, strict=True)):
            if d != at and s != t:
                raise XlcValueError(f"all the input array dimensions except for the concatenation axis must match: along dimension {d} "
                                    f"array 0 has size "
                                    f"{s} and array {i} has size {t}")
    nodes = [cast(x.node, common) for x in found]
    return wrap(emit("concat", *nodes, axis=at) if len(nodes) > 1 else nodes[0])


@function(np.stack)
def stack(arrays: Any, /, axis: int = 0, out: None = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    found = _as_list(arrays, "stack")
    for i, x in enumerate(found):
        if x.node.shape != found[0].node.shape:
            raise XlcValueError(f"all input arrays must have the same shape: array 0 has {show_shape(found[0].node.shape)}, array {i} has "
                                f"{show_shape(x.node.shape)}")
    at = one_axis(axis, found[0].ndim + 1)
    return concatenate([expand_dims(x, at) for x in found], axis=at, dtype=dtype)


def _joined(name: str, prepare: Any, axis: Any) -> None:
    def f(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
        found = [prepare(x) for x in _as_list(tup, name)]
        return concatenate(found, axis(found[0].ndim), dtype=dtype)

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"np.{name}"
    function(getattr(np, name))(f)


def _rank(n: int) -> Any:
    from ..frontend.table import BY_NAME

    return BY_NAME[f"atleast_{n}d"]


_joined("vstack", _rank(2), lambda n: 0)
_joined("hstack", _rank(1), lambda n: 0 if n == 1 else 1)
_joined("dstack", _rank(3), lambda n: 2)
_joined("column_stack", lambda x: reshape(x, (-1, 1)) if x.ndim < 2 else x, lambda n: 1)


@function(np.append)
def append(x: Any, values: Any, axis: int | None = None) -> Any:
    return concatenate([lift(x), lift(values)], axis)


@function(np.block)
def block(arrays: Any) -> Any:
    def depth_of(a: Any) -> int:
        return 1 + builtins.max((depth_of(v) for v in a), default=0) if isinstance(a, list) else 0

    depth = depth_of(arrays)
    rank = builtins.max(depth, *(x.ndim for x in _leaves(arrays)), 0)

    def join(a: Any, level: int) -> Tracer:
        if isinstance(a, list):
            return concatenate([join(v, level + 1) for v in a], axis=rank - depth + level)
        x = lift(a)
        return reshape(x, (1,) * (rank - x.ndim) + x.node.shape)

    return join(arrays, 0)


def _leaves(a: Any) -> list[Tracer]:
    return [x for v in a for x in _leaves(v)] if isinstance(a, list) else [lift(a)]


def _part(x: Tracer, at: int, start: int, stop: int) -> Tracer:
    key: list[Any] = [slice(None)] * x.ndim
    key[at] = slice(start, stop)
    return x[tuple(key)]


@function(np.array_split)
def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    return _split(lift(x), indices_or_sections, axis, even=False)


@function(np.split)
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    return _split(lift(x), indices_or_sections, axis, even=True)


def _split(x: Tracer, sections: Any, axis: int, even: bool) -> list[Tracer]:
    at = one_axis(axis, x.ndim)
    n = x.node.shape[at]
    if isinstance(sections, (list, tuple, np.ndarray)):
        bounds = [0, *(integer(i, "a split point") for i in sections)]
        return [_part(x, at, lo, hi) for lo, hi in zip(bounds, [*bounds[1:], None], strict=True)]  # type: ignore[arg-type]
    parts = integer(sections, "the number of sections")
    if parts <= 0:
        raise XlcValueError("number sections must be larger than 0.")
    if isinstance(n, Dim):
        each = n.divide(parts)
        if each is None:
            raise XlcValueError(f"cannot split an axis of the symbolic size {n} into {parts} parts: {parts} does not divide it for every "
                                f"size")
        return [_part(x, at, each * i, each * (i + 1)) for i in range(parts)]  # type: ignore[arg-type]
    if even and n % parts:
        raise XlcValueError(f"array split does not result in an equal division: axis {at} has size {n}, which {parts} does not divide")
    small, more = divmod(n, parts)
    bounds = [0]
    for i in range(parts):
        bounds.append(bounds[-1] + small + (i < more))
    return [_part(x, at, lo, hi) for lo, hi in zip(bounds, bounds[1:], strict=False)]


@function(np.hsplit)
def hsplit(x: Any, indices_or_sections: Any) -> Any:
    x = lift(x)
    return split(x, indices_or_sections, 1 if x.ndim > 1 else 0)


@function(np.vsplit)
def vsplit(x: Any, indices_or_sections: Any) -> Any:
    return split(x, indices_or_sections, 0)


@function(np.dsplit)
def dsplit(x: Any, indices_or_sections: Any) -> Any:
    return split(x, indices_or_sections, 2)


@function(np.unstack)
def unstack(x: Any, /, *, axis: int = 0) -> Any:
    return tuple(moveaxis(x, axis, 0))


# ------------------------------------------------------------------------------------------------ flip, roll, repeat


@function(np.flip)
def flip(x: Any, axis: Any = None) -> Any:
    x = lift(x)
    axes = many_axes(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))] if axes else x


@function(np.flipud)
def flipud(x: Any) -> Any:
    return flip(x, 0)


@function(np.fliplr)
def fliplr(x: Any) -> Any:
    return flip(x, 1)


@function(np.rot90)
def rot90(x: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    x = lift(x)
    i, j = (one_axis(a, x.ndim) for a in axes)
    match integer(k, "k") % 4:
        case 0:
            return x
        case 2:
            return flip(flip(x, i), j)
        case 1:
            return swapaxes(flip(x, j), i, j)
    return flip(swapaxes(x, i, j), j)


@function(np.roll)
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    x = lift(x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.node.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        axes = axes * len(shifts) if len(axes) == 1 else axes
    node = x.node
    for s, a in zip(shifts, axes, strict=True):
        at = one_axis(a, x.ndim)
        n = node.shape[at]
        if isinstance(s, Tracer):
            node = _roll_traced(node, s, at)
            continue
        by = integer(s, "shift")
        if isinstance(n, int):
            by = by % n if n else 0
        if by == 0:
            continue
        cut = n - by if isinstance(n, int) or by > 0 else -by  # a symbolic axis must be longer than the shift
        y = wrap(node)
        if isinstance(n, Dim):
            from ..frontend.index import _assume

            _assume(n - abs(by))
        node = emit("concat", _part(y, at, cut, None).node, _part(y, at, 0, cut).node, axis=at)  # type: ignore[arg-type]
    return wrap(node)


def _roll_traced(node: Node, shift: Tracer, at: int) -> Node:
    from ..frontend.elementwise import size_node
    from .create import arange

    n = node.shape[at]
    ids = (arange(n) - shift) % wrap(size_node(n))
    return emit("gather", node, ids.node, axis=at)


@function(np.tile)
def tile(x: Any, reps: Any) -> Any:
    x = lift(x)
    times = [integer(r, "reps") for r in (reps if isinstance(reps, (tuple, list, np.ndarray)) else (reps,))]
    rank = builtins.max(len(times), x.ndim)
    times = [1] * (rank - len(times)) + times
    shape = (1,) * (rank - x.ndim) + x.node.shape
    interleaved = tuple(s for pair in zip((1,) * rank, shape, strict=True) for s in pair)
    wide = tuple(s for pair in zip(times, shape, strict=True) for s in pair)
    repeated = broadcast(emit("reshape", x.node, shape=interleaved), wide)
    return wrap(emit("reshape", repeated, shape=tuple(t * s for t, s in zip(times, shape, strict=True))))


@function(np.repeat)
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    x = lift(x)
    if axis is None:
        x, axis = ravel(x), 0
    elif not x.ndim:
        x = ravel(x)
    at = one_axis(axis, x.ndim)
    if isinstance(repeats, Tracer):
        raise XlcTypeError("np.repeat with traced repeats gives a result whose shape depends on the data; the repeats must be known "
                           "while tracing")
    counts = np.asarray(repeats)
    if counts.ndim and counts.size > 1:
        ids = np.repeat(np.arange(counts.size), counts)
        if counts.size != x.node.shape[at]:
            raise XlcValueError(f"operands could not be broadcast together with shape ({x.node.shape[at]},) ({counts.size},)")
        return wrap(emit("gather", x.node, unwrap(ids), axis=at))
    n = size_of(counts.reshape(()).item(), "repeats")
    shape = x.node.shape
    apart = emit("reshape", x.node, shape=(*shape[:at + 1], 1, *shape[at + 1:]))
    wide = broadcast(apart, (*shape[:at + 1], n, *shape[at + 1:]))
    return wrap(emit("reshape", wide, shape=(*shape[:at], n * shape[at], *shape[at + 1:])))


# ------------------------------------------------------------------------------------------------ pad


@function(np.pad)
def pad(x: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    x = lift(x)
    if isinstance(pad_width, dict):
        per_axis = [(0, 0)] * x.ndim
        for a, w in pad_width.items():
            per_axis[one_axis(a, x.ndim)] = tuple(np.broadcast_to(w, (2,)).tolist())
    else:
        per_axis = [tuple(p) for p in np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()]
    for low, high in per_axis:
        if integer(low, "pad_width") < 0 or integer(high, "pad_width") < 0:
            raise XlcValueError("index can't contain negative values: pad_width must be at least 0")
    if mode == "constant":
        return _pad_constant(x, per_axis, constant_values)
    if mode not in _PAD_INDEX:
        raise XlcTypeError(f"np.pad with mode={mode!r} is not supported; there are 'constant', {', '.join(map(repr, _PAD_INDEX))}")
    node = x.node
    for at, (low, high) in enumerate(per_axis):
        n = node.shape[at]
        if not low and not high:
            continue
        if not isinstance(n, int):
            raise XlcTypeError(f"np.pad with mode={mode!r} along the symbolic size {n} is not supported; leave this axis out of dynamic=")
        if n == 0:
            raise XlcValueError(f"can't extend empty axis {at} using modes other than 'constant' or 'empty'")
        ids = _PAD_INDEX[mode](np.arange(-low, n + high), n)
        node = emit("gather", node, unwrap(ids.astype(np.int64)), axis=at)
    return wrap(node)


def _reflect(i: np.ndarray, n: int) -> np.ndarray:
    period = builtins.max(2 * (n - 1), 1)
    i = i % period
    return np.where(i < n, i, period - i)


def _symmetric(i: np.ndarray, n: int) -> np.ndarray:
    i = i % (2 * n)
    return np.where(i < n, i, 2 * n - 1 - i)


_PAD_INDEX: dict[str, Any] = {"edge": lambda i, n: np.clip(i, 0, n - 1), "wrap": lambda i, n: i % n, "reflect": _reflect,
                              "symmetric": _symmetric}


def _pad_constant(x: Tracer, per_axis: list[Any], values: Any) -> Tracer:
    node = x.node
    d = node.dtype

    def as_value(v: Any) -> Node:
        v = lift(v).node
        return cast(v, d) if v.op.name != "full" else literal(d.numpy.type(v["value"]).item() if d.is_int else v["value"], d)

    if isinstance(values, (Tracer, int, float)) or np.ndim(values) == 0:
        low, high = zip(*per_axis, strict=True) if per_axis else ((), ())
        return wrap(emit("pad", node, as_value(values), low=tuple(low), high=tuple(high))) if any(low) or any(high) else wrap(node)
    pairs = np.broadcast_to(np.asarray(values), (x.ndim, 2)).tolist()
    for at, ((low, high), (a, b)) in enumerate(zip(per_axis, pairs, strict=True)):
        for amounts, v in (((low, 0), a), ((0, high), b)):
            if amounts != (0, 0):
                lows, highs = ([amounts[i] if d_ == at else 0 for d_ in range(x.ndim)] for i in (0, 1))
                node = emit("pad", node, as_value(v), low=tuple(lows), high=tuple(highs))
    return wrap(node)


# ------------------------------------------------------------------------------------------------ diagonals


def index_grid(shape: tuple[Size, ...], axis: int) -> Node:
    """The coordinate along ``axis``, everywhere in a tensor of this shape."""
    return emit("iota", shape=shape, axis=axis, dtype=DTYPES["i64"])


def _triangle(name: str, keep_lower: bool) -> None:
    def f(m: Any, k: int = 0) -> Any:
        x = lift(m)
        if x.ndim == 1:
            x = broadcast_to(x, (x.node.shape[0], x.node.shape[0]))
        if x.ndim < 2:
            raise XlcValueError(f"np.{name} needs an array of at least 1 dimension")
        node = x.node
        rows, columns = (index_grid(node.shape[-2:], a) for a in (0, 1))
        offset = full(rows.type, integer(k, "k"))
        kept = emit("less_equal" if keep_lower else "greater_equal", columns, emit("add", rows, offset))
        return wrap(emit("where", broadcast(kept, node.shape), node, full(node.type, 0)))

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"np.{name}"
    function(getattr(np, name))(f)


_triangle("tril", True)
_triangle("triu", False)


@function(np.diagonal, np.linalg.diagonal)
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    x = lift(x)
    if x.ndim < 2:
        raise XlcValueError("diag requires an array of at least two dimensions")
    i, j = one_axis(axis1, x.ndim), one_axis(axis2, x.ndim)
    if i == j:
        raise XlcAxisError("axis1 and axis2 cannot be the same")
    y = moveaxis(x, (i, j), (-2, -1))
    rows, columns = y.node.shape[-2:]
    k = integer(offset, "offset")
    if isinstance(rows, Dim) or isinstance(columns, Dim):
        if rows != columns or k:
            raise XlcTypeError("the diagonal of a matrix of symbolic sizes is supported only for square ones without offset")
        n, low = rows, 0
    else:
        n, low = builtins.max(0, builtins.min(rows, columns - k) if k >= 0 else builtins.min(rows + k, columns)), 0
    start_row, start_column = (builtins.max(low, -k), builtins.max(low, k))
    steps = index_grid((n,), 0)
    ids = [emit("add", steps, full(steps.type, s)) if s else steps for s in (start_row, start_column)]
    return wrap(emit("index", y.node, *ids, axes=(y.ndim - 2, y.ndim - 1)))


@function(np.diag)
def diag(x: Any, k: int = 0) -> Any:
    x = lift(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise XlcValueError(f"Input must be 1- or 2-d, found shape {show_shape(x.node.shape)}")
    k = integer(k, "k")
    n = x.node.shape[0] + abs(k)
    rows, columns = (index_grid((n, n), a) for a in (0, 1))
    on = emit("equal", columns, emit("add", rows, full(rows.type, k)))
    padded = emit("pad", x.node, literal(0, x.node.dtype), low=(builtins.max(0, k),), high=(builtins.max(0, -k),)) if k else x.node
    spread = emit("broadcast", padded, shape=(n, n), axes=(1,))
    return wrap(emit("where", on, spread, full(Type(x.node.dtype, (n, n)), 0)))


@function(np.diagflat)
def diagflat(x: Any, k: int = 0) -> Any:
    return diag(ravel(x), k)


@function(np.trace, np.linalg.trace)
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: None = None) -> Any:
    from .reduce import sum

    return sum(diagonal(x, offset, axis1, axis2), -1, dtype)


def numel(shape: tuple[Size, ...]) -> Size:
    return product(shape)
