"""Sliding windows, and what is reduced over them: pooling, local response normalisation.

    slide(%x: f32[2,3,9]) {axes=(2,), windows=(0,), start=(0,), stride=(2,), dilation=(1,), count=(4,)}: f32[2,3,4]
        element [w, c, i] is x[w, c, 2*i + w]

``windows`` is slide of a broadcast: x repeated for every place in a window, each repetition read from where that place lies. Its new
dimensions are the first ones, so that the loops of a reduction over them run inside, along the last dimension of x. ``overlap_add`` is its
adjoint. Both are views and sums that gather: nothing is scattered, and each element of a gradient is added up in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.loops import Expr, size
from xlc.ir.node import Node, constant, full
from xlc.ir.op import Op, lookup
from xlc.ir.types import Size, Type, f32, i32, i64, product

from .index import extent_like, gather
from .kinds import ALL, composite, float_type, is_half, view
from .reduce import lowest, max_, min_, sum_
from .scalar import bitwise_or, cast, equal, maximum, minimum, not_equal, pow_, where
from .shape import broadcast, pad, reshape, slice_, spread, transpose

Pairs = tuple[tuple[Size, Size], ...]


def positions(n: Size, window: Size, stride: int, dilation: int = 1) -> Size:
    """How many windows fit along a dimension of size n: 0 or less if none does."""
    return (n - ((window - 1) * dilation + 1)) // stride + 1


# ------------------------------------------------------------------------------------------------ the view


def _slide_type(x: Type, axes: tuple[int, ...], windows: tuple[int, ...], start: tuple[Size, ...], stride: tuple[int, ...],
                dilation: tuple[int, ...], count: tuple[Size, ...]) -> Type:
    used = (*axes, *windows)
    if len({len(v) for v in (axes, windows, start, stride, dilation, count)}) != 1 or len(set(used)) != len(used) or any(
            not 0 <= d < x.rank for d in used):
        raise XlcValueError(f"slide of {x}: axes {axes} and windows {windows} must be distinct dimensions, and start, stride, dilation and "
                            "count must have an entry for each pair of them")
    shape = list(x.shape)
    for a, w, at, s, d, n in zip(axes, windows, start, stride, dilation, count, strict=True):
        k, shape[a] = x.shape[w], n
        if all(isinstance(v, int) for v in (x.shape[a], k, at, n)) and n and k:
            ends = [at + i * s + j * d for i in (0, n - 1) for j in (0, k - 1)]
            if min(ends) < 0 or max(ends) >= x.shape[a]:
                raise XlcValueError(f"slide of {x}: {n} windows from {at}, stride {s}, dilation {d}, leave dimension {a}")
    return x.with_shape(shape)


def _slide_array(x: np.ndarray, axes: Any, windows: Any, start: Any, stride: Any, dilation: Any, count: Any) -> np.ndarray:
    for a, w, at, s, d, n in zip(axes, windows, start, stride, dilation, count, strict=True):
        where_ = at + s * np.arange(n)[:, None] + d * np.arange(x.shape[w])[None, :]
        order = np.expand_dims(where_ if a < w else where_.T, tuple(k for k in range(x.ndim) if k not in (a, w)))
        x = np.take_along_axis(x, order, a)
    return x


def _slide_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    at = list(index)
    for a, w, first, s, d in zip(n["axes"], n["windows"], n["start"], n["stride"], n["dilation"], strict=True):
        at[a] = index[a] * s + index[w] * d + size(first)
    return read(0, tuple(at))


def _slide_vjp(g: Node, y: Node, x: Node, axes: Any, windows: Any, start: Any, stride: Any, dilation: Any, count: Any) -> list[Node]:
    """Element [p, w] came to position (p - start - w*dilation) / stride, where that is one: windows in the other direction, over the
    cotangent with zeros between and around."""
    low: list[Size] = [0] * x.rank
    high, begin = [*low], []
    for a, w, at, s, d in zip(axes, windows, start, stride, dilation, strict=True):
        n, reach = x.shape[a], (x.shape[w] - 1) * d
        g = spread(g, a, s)
        least, most = (reach, 0) if isinstance(reach, int) and reach < 0 else (0, reach)
        low[a], high[a] = _at_least_0(at + most, at + most), _at_least_0(n - at - least - g.shape[a], n)
        begin.append(low[a] - at)
    g = pad(g, full(Type(g.dtype, ()), 0), low=tuple(low), high=tuple(high))
    return [slide(g, axes=axes, windows=windows, start=tuple(begin), stride=(1,) * len(axes), dilation=tuple(-d for d in dilation),
                  count=tuple(x.shape[a] for a in axes))]


def _at_least_0(n: Size, enough: Size) -> Size:
    """max(n, 0); where n is not known, a size that is certainly not less."""
    return max(n, 0) if isinstance(n, int) else enough


def _slide_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], axes: Any, windows: Any, **attrs: Any) -> Node:
    return slide(args[0], axes=_up(axes), windows=_up(windows), **attrs)


def _up(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + 1 for a in axes)


slide: Op = view("slide", _slide_type, _slide_array, _slide_pull, vjp=_slide_vjp, batch=_slide_batch,
                 doc="element [i, w] is x[start + i*stride + w*dilation, w], for each pair of axes and windows")


def windows(x: Node, axes: Sequence[int], window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Node:
    """The windows along ``axes``: dimensions (window..., x's, with positions in place of sizes)."""
    k = len(axes)
    start, stop, step = [0] * x.rank, list(x.shape), [1] * x.rank
    moved = []  # those that hold more than one element
    for j, (a, n, s, d) in enumerate(zip(axes, window, stride, dilation, strict=True)):
        if n == 1:
            step[a] = s
        else:
            moved.append((a + k, j, 0, s, d, positions(x.shape[a], n, s, d)))
    if any(s != 1 for s in step):
        x = slice_(x, start=tuple(start), stop=tuple(stop), step=tuple(step))
    every = broadcast(x, shape=(*window, *x.shape), axes=tuple(range(k, k + x.rank)))
    return slide(every, **dict(zip(_SLIDE, zip(*moved, strict=True), strict=True))) if moved else every


_SLIDE = ("axes", "windows", "start", "stride", "dilation", "count")


def overlap_add(y: Node, x: Node, axes: Sequence[int], stride: Sequence[int], padding: Pairs) -> Node:
    """The adjoint of ``windows`` of x, padded, without dilation: y has dimensions (window..., positions and others); the result, of the
    shape of x, holds at p the sum of all y[w, i] with i*stride + w = p + padding.

    With w = a*stride + b and p = q*stride + b that is the sum over a of y[a*stride + b, q - a]: so many terms as windows overlap."""
    k = len(axes)
    rank = y.rank - k
    zero = full(Type(y.dtype, ()), 0)
    steps = [-(-y.shape[j] // s) for j, s in enumerate(stride)]
    groups = [(x.shape[a] + lo + hi + (s - 1)) // s for a, s, (lo, hi) in zip(axes, stride, padding, strict=True)]
    low: list[Size] = [0] * y.rank
    high = [*low]
    for j, a in enumerate(axes):
        high[j] = steps[j] * stride[j] - y.shape[j]
        low[k + a], high[k + a] = steps[j] - 1, _at_least_0(groups[j] - y.shape[k + a], groups[j])
    y = pad(y, zero, low=tuple(low), high=tuple(high))
    y = reshape(y, shape=(*(n for pair in zip(steps, stride, strict=True) for n in pair), *y.shape[k:]))
    at = tuple(2 * k + a for a in axes)
    y = slide(y, axes=at, windows=tuple(range(0, 2 * k, 2)), start=tuple(s - 1 for s in steps), stride=(1,) * k, dilation=(-1,) * k,
              count=tuple(groups))
    order, shape = list(range(0, 2 * k, 2)), list(steps)
    for a in range(rank):
        order.append(2 * k + a)
        shape.append(y.shape[2 * k + a])
        if a in axes:
            j = list(axes).index(a)
            order.append(2 * j + 1)
            shape[-1] = groups[j] * stride[j]
    y = reshape(transpose(y, axes=tuple(order)), shape=tuple(shape))
    start: list[Size] = [0] * y.rank
    for a, (lo, _) in zip(axes, padding, strict=True):
        start[k + a] = lo
    stop = (*steps, *(a + n for a, n in zip(start[k:], x.shape, strict=True)))
    return sum_(slice_(y, start=tuple(start), stop=stop, step=(1,) * y.rank), axes=tuple(range(k)))


def padded(x: Node, axes: Sequence[int], padding: Pairs, value: Any = 0) -> Node:
    """x with ``value`` around it; negative widths crop."""
    low: list[Size] = [0] * x.rank
    high, start, stop = [*low], [*low], list(x.shape)
    for a, (lo, hi) in zip(axes, padding, strict=True):
        for width, pads, cut, sign in ((lo, low, start, -1), (hi, high, stop, 1)):
            if isinstance(width, int) and width < 0:
                cut[a] += sign * width
            else:
                pads[a] = width
    if start != [0] * x.rank or tuple(stop) != x.shape:
        x = slice_(x, start=tuple(start), stop=tuple(stop), step=(1,) * x.rank)
    if any(p != 0 for p in (*low, *high)):
        x = pad(x, full(Type(x.dtype, ()), value), low=tuple(low), high=tuple(high))
    return x


# ------------------------------------------------------------------------------------------------ pooling


def _pool_type(x: Type, axes: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs) -> Type:
    shape = list(x.shape)
    for a, k, s, (lo, hi) in zip(axes, window, stride, padding, strict=True):
        n = shape[a] = positions(x.shape[a] + lo + hi, k, s)
        if k < 1 or s < 1 or (isinstance(n, int) and n < 0):
            raise XlcValueError(f"pooling of {x}: windows of {k}, stride {s}, do not fit dimension {a} padded by {(lo, hi)}")
    return x.with_shape(shape)


def _pooled(x: Node, axes: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Pairs, value: Any) -> Node:
    return windows(padded(x, axes, padding, value), axes, window, stride, (1,) * len(axes))


def _each_window(g: Node, window: Sequence[int]) -> Node:
    k = len(window)
    return broadcast(g, shape=(*window, *g.shape), axes=tuple(range(k, k + g.rank)))


def _sum_pool(x: Node, axes: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs) -> Node:
    return sum_(_pooled(x, axes, window, stride, padding, 0), axes=tuple(range(len(axes))))


def _sum_pool_vjp(g: Node, y: Node, x: Node, axes: Any, window: Any, stride: Any, padding: Any) -> list[Node]:
    return [overlap_add(_each_window(g, window), x, axes, stride, padding)]


def _batched(op: Callable[[], Op]) -> Callable[..., Node]:
    """The rule of operators along axes: these move up by one."""
    return lambda size, args, batched, axes, **attrs: op()(args[0], axes=_up(axes), **attrs)


sum_pool: Op = composite("sum_pool", _pool_type, _sum_pool, vjp=_sum_pool_vjp, batch=_batched(lambda: sum_pool))


def _max_pool(x: Node, axes: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs) -> Node:
    return max_(_pooled(x, axes, window, stride, padding, lowest(x.dtype)), axes=tuple(range(len(axes))))


def _max_pool_vjp(g: Node, y: Node, x: Node, axes: Any, window: Any, stride: Any, padding: Any) -> list[Node]:
    """To the first of the greatest, in row-major order of the window."""
    every = _pooled(x, axes, window, stride, padding, lowest(x.dtype))
    count, k = product(window), len(window)
    place = reshape(lookup("iota")(shape=(count,), axis=0, dtype=i32), shape=window)
    places = broadcast(place, shape=every.shape, axes=tuple(range(k)))
    greatest = bitwise_or(equal(every, _each_window(y, window)), not_equal(every, every))
    first = min_(where(greatest, places, full(places.type, count)), axes=tuple(range(k)))
    back = _each_window(g, window)
    hit = where(equal(_each_window(first, window), places), back, full(back.type, 0))
    return [overlap_add(hit, x, axes, stride, padding)]


max_pool: Op = composite("max_pool", _pool_type, _max_pool, vjp=_max_pool_vjp, batch=_batched(lambda: max_pool), dtypes=ALL)


def wide(x: Node) -> Node:
    """Halves are added up in f32."""
    return cast(x, dtype=f32) if is_half(x.dtype) else x


def _avg_pool_type(x: Type, axes: Any, window: Any, stride: Any, padding: Any, count_include_pad: bool) -> Type:
    return _pool_type(float_type(x), axes, window, stride, padding)


def _avg_pool(x: Node, axes: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs,
              count_include_pad: bool) -> Node:
    total = sum_pool(wide(x), axes=axes, window=window, stride=stride, padding=padding)
    if count_include_pad or not any(p for pair in padding for p in pair):
        return cast(total / float(product(window)), dtype=x.dtype)
    count: Node | None = None
    for a, k, s, (lo, _) in zip(axes, window, stride, padding, strict=True):
        first = lookup("iota")(shape=total.shape, axis=a, dtype=i64) * s - lo
        inside = minimum(first + k, extent_like(x.shape[a], first)) - maximum(first, 0)
        count = inside if count is None else count * inside
    assert count is not None
    return cast(total / cast(maximum(count, 1), dtype=total.dtype), dtype=x.dtype)


avg_pool: Op = composite("avg_pool", _avg_pool_type, _avg_pool, batch=_batched(lambda: avg_pool))

# ------------------------------------------------------------------------------------------------ local response normalisation


def _local_response_norm(x: Node, radius: int, alpha: float, beta: float, k: float) -> Node:
    y, last = wide(x), x.rank - 1
    total = sum_pool(y * y, axes=(last,), window=(2 * radius + 1,), stride=(1,), padding=((radius, radius),))
    base = total * alpha + k
    return cast(y * pow_(base, full(base.type, -beta)), dtype=x.dtype)


local_response_norm: Op = composite("local_response_norm", float_type, _local_response_norm,
                                    batch=lambda size, args, batched, **attrs: local_response_norm(args[0], **attrs))

# ------------------------------------------------------------------------------------------------ resampling


def _taps(source: int, target: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Which elements make up each element of a resized dimension, and their weights: both (terms, target). Pixel i of n covers i/n to
    (i+1)/n."""
    i = np.arange(target)
    if method == "nearest":
        return ((2 * i + 1) * source // (2 * target))[None], np.ones((1, target))
    at = np.clip((i + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(at).astype(np.int64)
    part = at - low
    return np.stack([low, np.minimum(low + 1, source - 1)]), np.stack([1 - part, part])


def _transposed(taps: tuple[np.ndarray, np.ndarray], source: int) -> tuple[np.ndarray, np.ndarray]:
    """The taps of the adjoint: to which elements each element of the source contributes."""
    index, weight = (t.ravel() for t in taps)
    target = np.tile(np.arange(taps[0].shape[1]), taps[0].shape[0])
    index, weight, target = index[weight != 0], weight[weight != 0], target[weight != 0]
    order = np.argsort(index, kind="stable")
    index, weight, target = index[order], weight[order], target[order]
    term = np.arange(len(index)) - np.searchsorted(index, index)
    found = np.zeros((max(term, default=0) + 1, source), np.int64), np.zeros((max(term, default=0) + 1, source))
    found[0][term, index], found[1][term, index] = target, weight
    return found


def _resample_type(x: Type, axis: int, count: int, method: str, adjoint: bool) -> Type:
    if not x.dtype.is_float and (method != "nearest" or adjoint):
        raise XlcTypeError(f"resample of {x} computes means: it needs floats")
    n = x.shape[axis] if 0 <= axis < x.rank else 0
    if not isinstance(n, int) or n < 1 or count < 1:
        raise XlcValueError(f"resample of {x} to {count} along axis {axis}: both sizes must be known and at least 1")
    return x.with_shape(count if d == axis else s for d, s in enumerate(x.shape))


def _resample(x: Node, axis: int, count: int, method: str, adjoint: bool) -> Node:
    index, weight = _transposed(_taps(count, x.shape[axis], method), count) if adjoint else _taps(x.shape[axis], count, method)
    if len(index) == 1 and (weight == 1).all():
        return gather(x, constant(index[0]), axis=axis)
    terms = gather(wide(x), constant(index), axis=axis)
    weights = broadcast(constant(weight.astype(terms.dtype.numpy)), shape=terms.shape, axes=(axis, axis + 1))
    zero = full(terms.type, 0)
    terms = where(equal(weights, zero), zero, weights * terms)  # what does not count may be infinite
    return cast(sum_(terms, axes=(axis,)), dtype=x.dtype)


def _resample_vjp(g: Node, y: Node, x: Node, axis: int, count: int, method: str, adjoint: bool) -> list[Node]:
    return [resample(g, axis=axis, count=x.shape[axis], method=method, adjoint=not adjoint)]


resample: Op = composite("resample", _resample_type, _resample, vjp=_resample_vjp, dtypes=ALL,
                         batch=lambda size, args, batched, axis, **attrs: resample(args[0], axis=axis + 1, **attrs),
                         doc="a dimension resized by interpolation between half-pixel centres, or the adjoint of that")
