"""Arrays from nothing: zeros, arange, eye, ... of sizes that may be symbolic."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Storage, Tracer, lift, wrap
from ..frontend.axes import dtype_from, integer, one_axis, shape_of, size_of
from ..frontend.elementwise import PYTHON, broadcast, broadcast_to, cast, elementwise, emit, literal, result_dtype
from ..frontend.table import function
from ..frontend.trace import current
from ..ir.node import Node, full
from ..ir.types import Dim, DType, Size, Type, bool_, dtype_of, f64, i64


def _filled(shape: tuple[Size, ...], value: Any, dtype: DType) -> Tracer:
    return wrap(literal(value, dtype, shape))


def _constant_maker(name: str, value: int) -> None:
    def f(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None) -> Any:
        return _filled(shape_of(shape), value, f64 if dtype is None else dtype_from(dtype))

    def f_like(x: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None) -> Any:
        x = lift(x)
        return _filled(x.node.shape if shape is None else shape_of(shape), value, x.node.dtype if dtype is None else dtype_from(dtype))

    for g, n in ((f, name), (f_like, f"{name}_like")):
        g.__name__ = g.__qualname__ = n
        g.__doc__ = f"np.{n}" + ("; the elements are 0" if name == "empty" else "")
        function(getattr(np, n))(g)


_constant_maker("zeros", 0)
_constant_maker("ones", 1)
_constant_maker("empty", 0)


@function(np.full)
def full_(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None) -> Any:
    return _full(shape_of(shape), fill_value, dtype)


@function(np.full_like)
def full_like(x: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *,
              device: Any = None) -> Any:
    x = lift(x)
    return _full(x.node.shape if shape is None else shape_of(shape), fill_value, x.node.dtype if dtype is None else dtype)


def _full(shape: tuple[Size, ...], value: Any, dtype: Any) -> Tracer:
    if type(value) in PYTHON:
        d = {bool: bool_, int: i64, float: f64}[type(value)] if dtype is None else dtype_from(dtype)
        if type(value) is float and d.is_int:
            value = int(value)
        return _filled(shape, value, d)
    node = lift(value).node
    return wrap(broadcast_to(node if dtype is None else cast(node, dtype_from(dtype)), shape))


@function(np.arange)
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, *, device: Any = None, like: Any = None) -> Any:
    if stop is None:
        start, stop = 0, start
    values = (start, stop, step)
    for v, what in zip(values, ("start", "stop", "step"), strict=True):
        if isinstance(v, Tracer):
            raise XlcTypeError(f"np.arange with a traced {what} gives a result whose shape depends on the data; declare it with "
                               f"static_argnames=, or write "
                               f"x + np.arange(n) with a known n")
    if not builtins.any(isinstance(v, Dim) for v in values):
        if builtins.all(isinstance(v, (int, np.integer)) for v in values) and (dtype is None or dtype_from(dtype).is_int):
            n = len(range(int(start), int(stop), int(step)))
            d = dtype_from(dtype) if dtype is not None else dtype_of(np.arange(*values[:0], 0).dtype)
            return _counted(n, int(start), int(step), d)
        numpy_dtype: Any = None if dtype is None else dtype_from(dtype).numpy
        return lift(np.arange(start, stop, step, numpy_dtype))  # type: ignore[call-overload]
    start, stop = size_or_int(start), size_or_int(stop)
    step = integer(step, "step")
    if step < 1 or isinstance(start, Dim):
        raise XlcTypeError("np.arange with a symbolic start or a negative step; write start + step * np.arange(n)")
    from ..frontend.index import _assume

    length = stop - start
    _assume(length)
    n_ = (length + (step - 1)) // step
    return _counted(n_, start, step, i64 if dtype is None else dtype_from(dtype))


def size_or_int(v: Any) -> Size:
    return size_of(v) if isinstance(v, Dim) else integer(v, "a bound")


def _counted(n: Size, start: int, step: int, d: DType) -> Tracer:
    """start + step * (0, 1, ..., n-1)."""
    wide = d if d.bits == 64 or d.is_float else i64
    x = emit("iota", shape=(n,), axis=0, dtype=wide)
    if step != 1:
        x = emit("multiply", x, literal(step, wide, x.shape))
    if start:
        x = emit("add", x, literal(start, wide, x.shape))
    return wrap(cast(x, d))


@function(np.linspace)
def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0, *,
             device: Any = None) -> Any:
    n = integer(num, "num")
    if n < 0:
        raise XlcValueError(f"Number of samples, {n}, must be non-negative.")
    if not isinstance(start, Tracer) and not isinstance(stop, Tracer):
        numpy_dtype: Any = None if dtype is None else dtype_from(dtype).numpy
        found: Any = np.linspace(start, stop, n, endpoint, retstep, numpy_dtype, axis)  # type: ignore[call-overload]
        return (lift(found[0]), found[1]) if retstep else lift(found)
    d = result_dtype(start, stop, float(n))
    d = d if d.is_float else f64
    first, last = (wrap(cast(lift(v).node, d)) for v in (start, stop))
    divisions = n - 1 if endpoint else n
    step = (last - first) / float(divisions) if divisions > 0 else wrap(full(Type(d), float("nan")))
    steps = wrap(cast(_counted(n, 0, 1, i64).node, d)).reshape((n,) + (1,) * builtins.max(first.ndim, last.ndim))
    y = steps * step + first if divisions > 0 else steps * (last - first) + first
    if endpoint and n > 1:  # the last value exactly
        ends = wrap(broadcast(emit("equal", _counted(n, 0, 1, i64).node, literal(n - 1, i64, (n,))), (n,))).reshape(steps.shape)
        y = wrap(emit("where", broadcast(ends.node, y.node.shape), broadcast(last.node, y.node.shape), y.node))
    if axis:
        from .shape import moveaxis

        y = moveaxis(y, 0, one_axis(axis, y.ndim))
    if dtype is not None:
        to = dtype_from(dtype)
        y = wrap(cast(elementwise("floor", y).node if to.is_int else y.node, to))
    return (y, step) if retstep else y


@function(np.logspace)
def logspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: float = 10.0, dtype: Any = None, axis: int = 0) -> Any:
    y = elementwise("power", base, linspace(start, stop, num, endpoint, axis=axis))
    return y if dtype is None else wrap(cast(y.node, dtype_from(dtype)))


@function(np.eye)
def eye(n: Any, m: Any = None, /, k: int = 0, dtype: Any = float, order: str = "C", *, device: Any = None, like: Any = None,
        **kwargs: Any) -> Any:
    m = kwargs.pop("M", m)
    if kwargs:
        raise TypeError(f"eye() got an unexpected keyword argument {next(iter(kwargs))!r}")
    shape = (size_of(n), size_of(n if m is None else m))
    rows, columns = (emit("iota", shape=shape, axis=a, dtype=i64) for a in (0, 1))
    k = integer(k, "k")
    return wrap(cast(emit("equal", columns, emit("add", rows, full(rows.type, k)) if k else rows),
                     dtype_from(float if dtype is None else dtype)))


@function(np.identity)
def identity(n: Any, dtype: Any = None, *, like: Any = None) -> Any:
    return eye(n, dtype=dtype)


@function(np.tri)
def tri(n: Any, m: Any = None, k: int = 0, dtype: Any = float, *, like: Any = None) -> Any:
    shape = (size_of(n), size_of(n if m is None else m))
    rows, columns = (emit("iota", shape=shape, axis=a, dtype=i64) for a in (0, 1))
    return wrap(cast(emit("less_equal", columns, emit("add", rows, full(rows.type, integer(k, "k")))), dtype_from(dtype)))


@function(np.asarray, np.asanyarray, np.ascontiguousarray, names=("asarray",))
def asarray(x: Any, dtype: Any = None, order: Any = None, *, device: Any = None, copy: bool | None = None, like: Any = None) -> Any:
    found = _strong(x)
    if dtype is not None and dtype_from(dtype) != found.node.dtype:
        return wrap(cast(found.node, dtype_from(dtype)))
    return found.copy() if copy else found


def _strong(x: Any) -> Tracer:
    """An array as such, a Python scalar as the array that np.asarray makes of it."""
    if isinstance(x, np.ndarray) and current() is not None:
        found = lift(x)
        return Tracer(found.node, False, found._storage or Storage("a captured array"))
    found = lift(x)
    return wrap(found.node) if found._weak else found


@function(np.array)
def array(x: Any, dtype: Any = None, *, copy: bool | None = True, order: str = "K", subok: bool = False, ndmin: int = 0,
          like: Any = None) -> Any:
    y = asarray(x, dtype).copy()
    return y.reshape((1,) * (ndmin - y.ndim) + y.node.shape) if y.ndim < ndmin else y


@function(np.copy)
def copy(x: Any, order: str = "K", subok: bool = False) -> Any:
    return _strong(x).copy()


@function(np.meshgrid)
def meshgrid(*arrays: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    if indexing not in ("xy", "ij"):
        raise XlcValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    found = [lift(x).reshape(-1) for x in arrays]
    n = len(found)
    order = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    shape: list[Size] = [1] * n
    for x, at in zip(found, order, strict=True):
        shape[at] = x.node.shape[0]
    out = []
    for x, at in zip(found, order, strict=True):
        thin = emit("reshape", x.node, shape=tuple(s if i == at else 1 for i, s in enumerate(shape)))
        out.append(wrap(thin if sparse else broadcast(thin, tuple(shape))))
    return tuple(out)


@function(np.indices)
def indices(dimensions: Any, dtype: Any = int, sparse: bool = False) -> Any:
    shape = shape_of(dimensions)
    grids = [wrap(cast(emit("iota", shape=shape, axis=a, dtype=i64), dtype_from(dtype))) for a in range(len(shape))]
    from .shape import stack

    return stack(grids) if grids else lift(np.indices(()))


def one_hot_node(ids: Node, n: Size, dtype: DType) -> Node:
    shape = (*ids.shape, n)
    spread = emit("broadcast", ids, shape=shape, axes=tuple(range(ids.rank)))
    return cast(emit("equal", spread, emit("iota", shape=shape, axis=ids.rank, dtype=i64)), dtype)


@function()
def one_hot(x: Any, n: Any, /, *, dtype: Any = float, axis: int = -1) -> Any:
    """1 where the new axis, of size ``n``, equals the integer x, else 0 (all 0 where x is out of range)."""
    node = lift(x).node
    if not node.dtype.is_int:
        raise XlcTypeError(f"one_hot expects integers, found {node.dtype.numpy}")
    y = wrap(one_hot_node(cast(node, i64), size_of(n), dtype_from(dtype)))
    from .shape import moveaxis

    return y if axis == -1 else moveaxis(y, -1, one_axis(axis, y.ndim))
