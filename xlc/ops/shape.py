"""Operators that make tensors from nothing, and views: operators that move elements without computing.

    broadcast {shape, axes}    input dimension i becomes output dimension axes[i] (StableHLO's broadcast_in_dim)
    slice {start, stop, step}  one Python range per dimension; the step may be negative, then stop may be -1
    pad {low, high}            by the value of the second argument, a scalar
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.index import address_of, unflatten
from xlc.ir.loops import Expr, const, size
from xlc.ir.node import Node, full
from xlc.ir.op import Op, lookup, register
from xlc.ir.types import Dim, DType, Size, Type, bool_, dtype_of, i64, product

from .kinds import view
from .scalar import cast, where

parameter = register(Op("parameter", "input", 0, None, None, doc="an argument of the graph"))  # type: ignore[arg-type]
constant = register(Op("constant", "input", 0, lambda value: Type(dtype_of(value.value.dtype), value.value.shape),
                       lambda value: value.value, doc="a captured array"))


def _full(value: Any, shape: tuple[Size, ...], dtype: DType) -> np.ndarray:
    return np.full(shape, value, dtype.numpy)


full_ = view("full", lambda value, shape, dtype: Type(dtype, shape), _full, lambda n, i, read: const(n["value"], n.dtype), arity=0,
             kind="create", doc="one value everywhere")


def _iota_array(shape: Sequence[int], axis: int, dtype: DType) -> np.ndarray:
    line = np.arange(shape[axis]).astype(dtype.numpy)
    return np.broadcast_to(line.reshape([-1 if d == axis else 1 for d in range(len(shape))]), shape)


iota = view("iota", lambda shape, axis, dtype: Type(dtype, shape), _iota_array, lambda n, i, read: cast(i[n["axis"]], dtype=n.dtype),
            arity=0, kind="create", doc="0, 1, 2, ... along an axis")
extent = view("extent", lambda size: Type(i64, ()), lambda size: np.asarray(size, np.int64), lambda n, i, read: size(n["size"]), arity=0,
              kind="create", doc="a symbolic size as a number")
copy = view("copy", lambda x: x, lambda x: x.copy(), lambda n, i, read: read(0, i), vjp=lambda g, y, x: [g],
            doc="the same elements in memory of their own: where a layout or a result asks for it")

# ------------------------------------------------------------------------------------------------ views of one tensor


def _broadcast_type(x: Type, shape: tuple[Size, ...], axes: tuple[int, ...]) -> Type:
    if len(axes) != x.rank or list(axes) != sorted(set(axes)) or any(not 0 <= a < len(shape) for a in axes):
        raise XlcValueError(f"broadcast of {x} to {shape}: axes {axes} must name one output dimension each, ascending")
    for a, s in zip(axes, x.shape, strict=True):
        if s != shape[a] and s != 1:
            raise XlcValueError(f"cannot broadcast {x} to shape {shape}: dimension {a} has size {shape[a]}, the argument's is {s}")
    return x.with_shape(shape)


def _broadcast_array(x: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    placed = [1] * len(shape)
    for a, n in zip(axes, x.shape, strict=True):
        placed[a] = n
    return np.broadcast_to(x.reshape(placed), shape)


def _broadcast_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    x = n.args[0]
    return read(0, tuple(const(0) if x.shape[d] == 1 and n.shape[a] != 1 else index[a] for d, a in enumerate(n["axes"])))


def _broadcast_vjp(g: Node, y: Node, x: Node, shape: Any, axes: tuple[int, ...]) -> list[Node]:
    new = tuple(d for d in range(len(shape)) if d not in axes)
    stretched = tuple(a for d, a in enumerate(axes) if x.shape[d] == 1 and shape[a] != 1)
    out = lookup("sum")(g, axes=tuple(sorted((*new, *stretched)))) if new or stretched else g
    return [reshape(out, shape=x.shape) if out.shape != x.shape else out]


broadcast = view("broadcast", _broadcast_type, _broadcast_array, _broadcast_pull, vjp=_broadcast_vjp)


def repeat(size: Size, x: Node) -> Node:
    """The same tensor ``size`` times, along a new dimension in front."""
    return broadcast(x, shape=(size, *x.shape), axes=tuple(range(1, x.rank + 1)))


def repeated(size: Size, args: Sequence[Node], batched: Sequence[bool]) -> list[Node]:
    """Arguments of which all have the mapped axis in front."""
    return [a if b else repeat(size, a) for a, b in zip(args, batched, strict=True)]


def _transpose_type(x: Type, axes: tuple[int, ...]) -> Type:
    if sorted(axes) != list(range(x.rank)):
        raise XlcValueError(f"transpose of {x}: axes {axes} are not a permutation of its {x.rank} dimensions")
    return x.with_shape(x.shape[a] for a in axes)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(list(axes).index(d) for d in range(len(axes)))


transpose: Op = view("transpose", _transpose_type, lambda x, axes: x.transpose(axes),
                     lambda n, i, read: read(0, tuple(i[k] for k in _inverse(n["axes"]))),
                     vjp=lambda g, y, x, axes: [transpose(g, axes=_inverse(axes))])


def moved(x: Node, source: int, target: int) -> Node:
    """One dimension at another place, the others in order."""
    order = [d for d in range(x.rank) if d != source]
    order.insert(target, source)
    return x if source == target else transpose(x, axes=tuple(order))


def _reshape_type(x: Type, shape: tuple[Size, ...]) -> Type:
    if product(shape) != x.size:
        raise XlcValueError(f"cannot reshape {x} ({x.size} elements) to shape {shape} ({product(shape)} elements)")
    return x.with_shape(shape)


def _reshape_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    """Dimensions are matched in groups of equal products, so that most quotients never arise."""
    source, target = n.args[0].shape, n.shape
    out: list[Expr] = []
    i = j = 0
    while i < len(source) or j < len(target):
        a, b = [source[i]] if i < len(source) else [], [target[j]] if j < len(target) else []
        i2, j2 = min(i + 1, len(source)), min(j + 1, len(target))
        while product(a) != product(b) and (i2 < len(source) or j2 < len(target)):
            grow_source = _smaller(product(a), product(b))
            if (grow_source and i2 < len(source)) or j2 >= len(target):
                a.append(source[i2])
                i2 += 1
            else:
                b.append(target[j2])
                j2 += 1
        out += unflatten(a, address_of(b, index[j:j2]))
        i, j = i2, j2
    return read(0, tuple(out))


def _smaller(a: Size, b: Size) -> bool:
    """a grows next: by value where known, else a symbolic size counts as large."""
    def weight(s: Size) -> int:
        return s.evaluate(dict.fromkeys(s.names, 1 << 20)) if isinstance(s, Dim) else s
    return weight(a) < weight(b)


reshape: Op = view("reshape", _reshape_type, lambda x, shape: x.reshape(shape), _reshape_pull,
                   vjp=lambda g, y, x, shape: [reshape(g, shape=x.shape)])


def slice_size(start: Size, stop: Size, step: int) -> Size:
    """Elements of a range that is known to be in order (start <= stop for a positive step)."""
    if isinstance(start, int) and isinstance(stop, int):
        return len(range(start, stop, step))
    span, stride = (stop - start, step) if step > 0 else (start - stop, -step)
    return span if stride == 1 else (span + (stride - 1)) // stride


def _slice_type(x: Type, start: tuple[Size, ...], stop: tuple[Size, ...], step: tuple[int, ...]) -> Type:
    if not len(start) == len(stop) == len(step) == x.rank or 0 in step:
        raise XlcValueError(f"slice of {x} needs a start, a stop and a step other than 0 for each of its {x.rank} dimensions")
    for s, a, b, k in zip(x.shape, start, stop, step, strict=True):
        if not (isinstance(s, int) and isinstance(a, int) and isinstance(b, int)):
            continue
        if len(range(a, b, k)) and not (0 <= a < s and 0 <= range(a, b, k)[-1] < s):
            raise XlcValueError(f"slice {a}:{b}:{k} leaves the bounds of a dimension of size {s}")
    return x.with_shape(slice_size(a, b, k) for a, b, k in zip(start, stop, step, strict=True))


def _slice_array(x: np.ndarray, start: Any, stop: Any, step: Any) -> np.ndarray:
    return x[np.ix_(*(np.arange(a, b, k) for a, b, k in zip(start, stop, step, strict=True)))] if x.ndim else x


def _slice_vjp(g: Node, y: Node, x: Node, start: Any, stop: Any, step: Any) -> list[Node]:
    """The adjoint puts the elements back: reversed, spread by the step with zeros between, and padded."""
    for d, k in enumerate(step):
        if k < 0:
            g = flip(g, d)
        n, k = g.shape[d], abs(k)
        if n == 0:
            return [full(x.type, 0)]
        g = spread(g, d, k)  # no zeros after the last element: they may lie beyond the end
        first = start[d] if step[d] > 0 else start[d] - (n - 1) * k
        g = _pad_axis(g, d, first, x.shape[d] - first - g.shape[d])
    return [g]


slice_ = view("slice", _slice_type, _slice_array, lambda n, i, read: read(0, tuple(
    k * s + size(a) for k, a, s in zip(i, n["start"], n["step"], strict=True))), vjp=_slice_vjp)


def flip(x: Node, axis: int) -> Node:
    """The elements along an axis in reverse order."""
    return slice_(x, start=tuple(s - 1 if d == axis else 0 for d, s in enumerate(x.shape)),
                  stop=tuple(-1 if d == axis else s for d, s in enumerate(x.shape)),
                  step=tuple(-1 if d == axis else 1 for d in range(x.rank)))


def spread(x: Node, axis: int, step: int) -> Node:
    """The elements along an axis with step - 1 zeros between neighbours."""
    n = x.shape[axis]
    if step == 1 or n == 0:
        return x
    x = _pad_axis(reshape(x, shape=(*x.shape[:axis + 1], 1, *x.shape[axis + 1:])), axis + 1, 0, step - 1)
    x = reshape(x, shape=(*x.shape[:axis], n * step, *x.shape[axis + 2:]))
    return slice_(x, start=(0,) * x.rank, stop=tuple(s - (step - 1 if e == axis else 0) for e, s in enumerate(x.shape)), step=(1,) * x.rank)


def _pad_axis(x: Node, axis: int, low: Size, high: Size) -> Node:
    if low == 0 and high == 0:
        return x
    zero = full(Type(x.dtype, ()), 0)
    return pad(x, zero, low=tuple(low if d == axis else 0 for d in range(x.rank)),
               high=tuple(high if d == axis else 0 for d in range(x.rank)))


# ------------------------------------------------------------------------------------------------ views of several


def _pad_type(x: Type, value: Type, low: tuple[Size, ...], high: tuple[Size, ...]) -> Type:
    if value.rank or value.dtype is not x.dtype:
        raise XlcTypeError(f"pad of {x} needs a scalar of its dtype as value, not {value}")
    if len(low) != x.rank or len(high) != x.rank or any(isinstance(p, int) and p < 0 for p in (*low, *high)):
        raise XlcValueError(f"pad of {x}: low {low} and high {high} must hold {x.rank} widths of at least 0")
    return x.with_shape(s + lo + hi for s, lo, hi in zip(x.shape, low, high, strict=True))


def _pad_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    inside: Expr | None = None
    at = []
    for i, lo, hi, s in zip(index, n["low"], n["high"], n.args[0].shape, strict=True):
        k = i - size(lo) if lo != 0 else i
        at.append(k)
        for needed, test in ((lo, k >= const(0)), (hi, k < size(s))):
            if needed != 0:
                inside = test if inside is None else inside & test
    if inside is None:
        return read(0, tuple(at))
    return where(inside, read(0, tuple(at), inside), read(1, ()))


def _pad_vjp(g: Node, y: Node, x: Node, value: Node, low: Any, high: Any) -> list[Node | None]:
    inner = slice_(g, start=low, stop=tuple(lo + s for lo, s in zip(low, x.shape, strict=True)), step=(1,) * x.rank)
    axes = tuple(range(x.rank))
    total = lookup("sum")
    if not axes:
        return [g, None]
    padding = pad(full(x.type, 0), full(value.type, 1), low=low, high=high)  # 1 where the value went: no difference of two large sums
    return [inner, total(g * padding, axes=axes)]


def _pad_array(x: np.ndarray, value: np.ndarray, low: Any, high: Any) -> np.ndarray:
    out = np.full([s + lo + hi for s, lo, hi in zip(x.shape, low, high, strict=True)], value[()], x.dtype)
    out[tuple(slice(lo, lo + s) for s, lo in zip(x.shape, low, strict=True))] = x
    return out


def _pad_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], low: Any, high: Any) -> Node:
    """One value for all elements stays a scalar; a value each is chosen where the padding is."""
    (x, value), (x_batched, value_batched) = args, batched
    x = x if x_batched else repeat(size, x)
    padded = pad(x, full(Type(x.dtype, ()), 0) if value_batched else value, low=(0, *low), high=(0, *high))
    if not value_batched:
        return padded
    inside = pad(full(Type(bool_, x.shape[1:]), True), full(Type(bool_, ()), False), low=low, high=high)
    return where(repeat(size, inside), padded, broadcast(value, shape=padded.shape, axes=(0,)))


pad = view("pad", _pad_type, _pad_array, _pad_pull, arity=2, vjp=_pad_vjp, batch=_pad_batch)


def _concat_type(*types: Type, axis: int) -> Type:
    if not types:
        raise XlcValueError("concat needs at least one argument")
    first = types[0]
    for t in types[1:]:
        if t.dtype is not first.dtype or t.rank != first.rank or any(
                s != r for d, (s, r) in enumerate(zip(t.shape, first.shape, strict=True)) if d != axis):
            raise XlcValueError(f"concat along axis {axis}: {t} does not fit {first}; all other sizes and the dtype must agree")
    if not 0 <= axis < first.rank:
        raise XlcValueError(f"concat: axis {axis} is out of range for {first}")
    total: Size = 0
    for t in types:
        total = t.shape[axis] + total
    return first.with_shape(total if d == axis else s for d, s in enumerate(first.shape))


def _concat_pull(n: Node, index: Sequence[Expr], read: Any) -> Expr:
    axis, position, start = n["axis"], index[n["axis"]], 0
    parts: list[tuple[Expr, Size, int]] = []
    at: Size = start
    for k, a in enumerate(n.args):
        parts.append((position - size(at), a.shape[axis], k))
        at = a.shape[axis] + at
    out: Expr | None = None
    for local, s, k in reversed(parts):
        here = tuple(local if d == axis else i for d, i in enumerate(index))
        guard = (local >= const(0)) & (local < size(s))
        value = read(k, here, guard)
        out = value if out is None else where(local < size(s), value, out)
    return out  # type: ignore[return-value]


def _concat_vjp(g: Node, y: Node, *args: Node, axis: int) -> list[Node]:
    out, at = [], 0
    for a in args:
        stop = a.shape[axis] + at
        out.append(slice_(g, start=tuple(at if d == axis else 0 for d in range(g.rank)),
                          stop=tuple(stop if d == axis else s for d, s in enumerate(g.shape)),
                          step=(1,) * g.rank))
        at = stop
    return out


concat = view("concat", _concat_type, lambda *xs, axis: np.concatenate(xs, axis), _concat_pull, arity=None, vjp=_concat_vjp)
