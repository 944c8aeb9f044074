"""Reductions and cumulative functions, with NumPy's dtypes: sums of small integers in 64 bits, means of integers in float64, float16
through float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, unwrap, wrap
from ..frontend.axes import dtype_from, many_axes, one_axis, reduced_axes
from ..frontend.elementwise import PYTHON, broadcast, cast, elementwise, emit, literal, size_node
from ..frontend.table import function
from ..ir.node import Node, full
from ..ir.types import DTYPES, DType, Size, Type, bool_, f32, f64, i64, product, u64
from .elementwise import as_float, select_nodes


def reduce(name: str, x: Node, axis: Any, keepdims: bool) -> Node:
    axes = reduced_axes(axis, x.rank)
    out = emit(name, x, axes=axes) if axes else x
    return keep(out, x.shape, axes) if keepdims else out


def keep(x: Node, shape: tuple[Size, ...], axes: tuple[int, ...]) -> Node:
    kept = tuple(1 if i in axes else s for i, s in enumerate(shape))
    return emit("reshape", x, shape=kept) if x.shape != kept else x


def _no_out(out: Any, name: str) -> None:
    if out is not None:
        raise XlcTypeError(f"np.{name}(..., out=y): traced arrays are not written in place; write y = np.{name}(...)")


def masked(x: Tracer, where: Any, identity: Any) -> Tracer:
    """``x`` with the identity of the reduction where the mask is false."""
    if where is None or where is True:
        return x
    return select_nodes(where, x, wrap(literal(identity, x.node.dtype)), x.node.dtype)


def sum_dtype(d: DType) -> DType:
    """NumPy adds integers in 64 bits."""
    return i64 if d.kind in "bi" else u64 if d.kind == "u" else d


def _initial(value: Any, like: Tracer) -> Tracer:
    """The start of a reduction, in its dtype."""
    d = like.node.dtype
    return wrap(literal(bool(value) if d == bool_ else value, d) if type(value) in PYTHON else cast(unwrap(value), d))


def _accumulated(x: Tracer, dtype: Any) -> Tracer:
    return wrap(cast(x.node, sum_dtype(x.node.dtype) if dtype is None else dtype_from(dtype)))


@function(np.sum)
def sum(x: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, initial: Any = None,
        where: Any = None) -> Any:
    _no_out(out, "sum")
    x = masked(_accumulated(lift(x), dtype), where, 0)
    y = wrap(reduce("sum" if x.node.dtype != bool_ else "any", x.node, axis, keepdims))
    return y if initial is None else elementwise("add", y, _initial(initial, y))


@function(np.prod)
def prod(x: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, initial: Any = None,
         where: Any = None) -> Any:
    _no_out(out, "prod")
    x = masked(_accumulated(lift(x), dtype), where, 1)
    y = wrap(reduce("prod" if x.node.dtype != bool_ else "all", x.node, axis, keepdims))
    return y if initial is None else elementwise("multiply", y, _initial(initial, y))


def _extreme(name: str, x: Any, axis: Any, out: Any, keepdims: bool, initial: Any, where: Any) -> Any:
    _no_out(out, name)
    x = lift(x)
    d = x.node.dtype
    if where is not None and where is not True and initial is None:
        raise XlcValueError(f"reduction operation 'np.{name}' does not have an identity, so to use a where mask one has to specify "
                            f"'initial'")
    if initial is None and product(x.node.shape[a] for a in reduced_axes(axis, x.ndim)) == 0:
        raise XlcValueError(f"zero-size array to reduction operation np.{name} which has no identity; give initial=")
    if where is not None and where is not True:
        x = select_nodes(where, x, _initial(initial, x), d)
    if d == bool_:
        y = wrap(reduce("any" if name == "max" else "all", x.node, axis, keepdims))
    else:
        y = wrap(reduce(name, x.node, axis, keepdims))
    return y if initial is None else elementwise("maximum" if name == "max" else "minimum", y, _initial(initial, y))


@function(np.max, np.amax)
def max(x: Any, axis: Any = None, out: None = None, keepdims: bool = False, initial: Any = None, where: Any = None) -> Any:
    return _extreme("max", x, axis, out, keepdims, initial, where)


@function(np.min, np.amin)
def min(x: Any, axis: Any = None, out: None = None, keepdims: bool = False, initial: Any = None, where: Any = None) -> Any:
    return _extreme("min", x, axis, out, keepdims, initial, where)


@function(np.any)
def any(x: Any, axis: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None) -> Any:
    _no_out(out, "any")
    return wrap(reduce("any", masked(wrap(cast(unwrap(x), bool_)), where, False).node, axis, keepdims))


@function(np.all)
def all(x: Any, axis: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None) -> Any:
    _no_out(out, "all")
    return wrap(reduce("all", masked(wrap(cast(unwrap(x), bool_)), where, True).node, axis, keepdims))


@function(np.count_nonzero)
def count_nonzero(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return sum(wrap(cast(unwrap(x), bool_)), axis, keepdims=keepdims)


def _arg(name: str, x: Any, axis: Any, out: Any, keepdims: bool) -> Any:
    _no_out(out, name)
    node = unwrap(x)
    axes = tuple(range(node.rank)) if axis is None else () if not node.rank and axis in (0, -1) else (one_axis(axis, node.rank),)
    if product(node.shape[a] for a in axes) == 0:
        raise XlcValueError(f"attempt to get {name} of an empty sequence")
    if not axes:
        return wrap(full(Type(i64), 0))
    node = cast(node, DTYPES["u8"]) if node.dtype == bool_ else node
    return wrap(reduce(name, node, axes, keepdims))


@function(np.argmax)
def argmax(x: Any, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Any:
    return _arg("argmax", x, axis, out, keepdims)


@function(np.argmin)
def argmin(x: Any, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Any:
    return _arg("argmin", x, axis, out, keepdims)


# ------------------------------------------------------------------------------------------------ means


def _mean_dtypes(x: Tracer, dtype: Any) -> tuple[DType, DType]:
    """(dtype to add in, dtype of the result)."""
    d = x.node.dtype if dtype is None else dtype_from(dtype)
    if dtype is None and not d.is_float:
        return f64, f64
    return (f32 if d.is_float and d.bits == 16 else d), d


def count(x: Tracer, axis: Any) -> Size:
    return product(x.node.shape[a] for a in many_axes(axis, x.ndim))


def divided(x: Node, n: Size) -> Node:
    """x / n for a size n."""
    if isinstance(n, int):
        return emit("divide", x, full(x.type, float(n)))
    return emit("divide", x, broadcast(cast(size_node(n), x.dtype), x.shape))


@function(np.mean)
def mean(x: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None) -> Any:
    _no_out(out, "mean")
    x = lift(x)
    wide, result = _mean_dtypes(x, dtype)
    total = sum(wrap(cast(x.node, wide)), axis, None, None, keepdims, where=where)
    if where is not None and where is not True:
        kept = sum(wrap(broadcast(cast(unwrap(where), bool_), x.node.shape)), axis, wide.numpy, None, keepdims)
        return wrap(cast((total / kept).node, result))
    if not wide.is_float:
        return wrap(cast(divided(cast(total.node, f64), count(x, axis)), result))
    return wrap(cast(divided(total.node, count(x, axis)), result))


@function(np.var)
def var(x: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False, *, where: Any = None,
        mean: Any = None,
        correction: float | None = None) -> Any:
    return wrap(_variance(x, axis, dtype, out, ddof if correction is None else correction, keepdims, where, mean, root=False))


@function(np.std)
def std(x: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False, *, where: Any = None,
        mean: Any = None,
        correction: float | None = None) -> Any:
    return wrap(_variance(x, axis, dtype, out, ddof if correction is None else correction, keepdims, where, mean, root=True))


def _variance(x: Any, axis: Any, dtype: Any, out: Any, ddof: float, keepdims: bool, where: Any, center: Any, root: bool) -> Node:
    _no_out(out, "var")
    if where is not None and where is not True:
        raise XlcTypeError("np.var and np.std with where= are not supported; write them with np.mean(..., where=mask)")
    x = lift(x)
    wide, result = _mean_dtypes(x, dtype)
    if not wide.is_float:
        wide = f64
    wider = wrap(cast(x.node, wide))
    center = mean(wider, axis, keepdims=True) if center is None else wrap(cast(unwrap(center), wide))
    distance = wider - center
    total = sum(distance * distance, axis, None, None, keepdims).node
    n = count(x, axis)
    if isinstance(n, int):
        divisor = n - ddof if n - ddof > 0 else 0  # NumPy: no degrees of freedom left divides by zero
        out_node = emit("divide", total, full(total.type, float(divisor)))
    else:
        left = elementwise("maximum", elementwise("subtract", wrap(cast(size_node(n), wide)), float(ddof), python=True), 0.0)
        out_node = emit("divide", total, broadcast(left.node, total.shape))
    return cast(emit("sqrt", out_node) if root else out_node, result)


@function(np.average)
def average(x: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False) -> Any:
    x = lift(x)
    if weights is None:
        y = mean(x, axis, keepdims=keepdims)
        n = count(x, axis)
        scale = wrap(broadcast(cast(size_node(n), y.node.dtype), y.node.shape))
    else:
        w = lift(weights)
        if w.ndim == 1 and x.ndim != 1 and axis is not None:
            at = one_axis(axis, x.ndim)
            w = w.reshape(tuple(-1 if i == at else 1 for i in range(x.ndim)))
        elif w.node.shape != x.node.shape and axis is None:
            raise XlcTypeError("Axis must be specified when shapes of a and weights differ.")
        if not w.node.dtype.is_float and not x.node.dtype.is_float:
            w = wrap(cast(w.node, f64))
        product_ = x * w
        w = wrap(broadcast(cast(w.node, product_.node.dtype), x.node.shape))
        scale = sum(w, axis, keepdims=keepdims)
        y = sum(product_, axis, keepdims=keepdims) / scale
    return (y, scale) if returned else y


@function(np.ptp)
def ptp(x: Any, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
    return max(x, axis, out, keepdims) - min(x, axis, out, keepdims)


@function()
def logsumexp(x: Any, axis: Any = None, *, keepdims: bool = False, b: None = None) -> Any:
    """log(sum(exp(x))) over ``axis``, without overflow."""
    node = as_float(x)
    axes = many_axes(axis, node.rank)
    out = emit("logsumexp", node, axes=axes)
    return wrap(keep(out, node.shape, axes) if keepdims else out)


# ------------------------------------------------------------------------------------------------ without nan


def _without_nan(name: str, reduction: Any, fill: Any) -> None:
    def f(x: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        x = lift(x)
        if x.node.dtype.is_float:
            x = select_nodes(elementwise("isnan", x), fill, x, x.node.dtype)
        return reduction(x, axis, dtype=dtype, keepdims=keepdims)

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"np.{name}"
    function(getattr(np, name))(f)


_without_nan("nansum", sum, 0.0)
_without_nan("nanprod", prod, 1.0)


def _nan_extreme(name: str, reduction: Any, fill: float) -> None:
    def f(x: Any, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        x = lift(x)
        if not x.node.dtype.is_float:
            return reduction(x, axis, keepdims=keepdims)
        missing = elementwise("isnan", x)
        y = reduction(select_nodes(missing, fill, x, x.node.dtype), axis, keepdims=keepdims)
        return select_nodes(all(missing, axis, keepdims=keepdims), float("nan"), y, x.node.dtype)

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"np.{name}"
    function(getattr(np, name))(f)


_nan_extreme("nanmax", max, float("-inf"))
_nan_extreme("nanmin", min, float("inf"))


@function(np.nanmean)
def nanmean(x: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
    x = lift(x)
    return mean(x, axis, dtype, out, keepdims, where=~elementwise("isnan", x))


# ------------------------------------------------------------------------------------------------ cumulative


def _cumulative(name: str, x: Tracer, axis: Any, dtype: Any) -> Tracer:
    if axis is None:
        x, axis = x.reshape(-1), 0
    x = _accumulated(x, dtype) if name in ("cumulative_sum", "cumulative_prod") else x
    if x.ndim == 0:
        x = x.reshape(1)
    node = x.node
    if node.dtype == bool_:
        return wrap(cast(emit(name, cast(node, DTYPES["u8"]), axis=one_axis(axis, node.rank), reverse=False), bool_))
    return wrap(emit(name, node, axis=one_axis(axis, node.rank), reverse=False))


@function(np.cumsum)
def cumsum(x: Any, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    _no_out(out, "cumsum")
    return _cumulative("cumulative_sum", lift(x), axis, dtype)


@function(np.cumprod)
def cumprod(x: Any, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    _no_out(out, "cumprod")
    return _cumulative("cumulative_prod", lift(x), axis, dtype)


def _standard_cumulative(name: str, x: Any, axis: Any, dtype: Any, include_initial: bool, identity: int) -> Tracer:
    x = lift(x)
    if axis is None:
        if x.ndim != 1:
            raise XlcValueError(f"np.{name}: for arrays which have more than one dimension the axis argument is required")
        axis = 0
    y = _cumulative(name, x, axis, dtype)
    if not include_initial:
        return y
    at = one_axis(axis, y.ndim)
    first = full(Type(y.node.dtype, tuple(1 if i == at else s for i, s in enumerate(y.node.shape))), identity)
    return wrap(emit("concat", first, y.node, axis=at))


@function(np.cumulative_sum)
def cumulative_sum(x: Any, /, *, axis: Any = None, dtype: Any = None, out: None = None, include_initial: bool = False) -> Any:
    return _standard_cumulative("cumulative_sum", x, axis, dtype, include_initial, 0)


@function(np.cumulative_prod)
def cumulative_prod(x: Any, /, *, axis: Any = None, dtype: Any = None, out: None = None, include_initial: bool = False) -> Any:
    return _standard_cumulative("cumulative_prod", x, axis, dtype, include_initial, 1)


@function()
def cumulative_max(x: Any, axis: Any = 0, dtype: Any = None) -> Any:
    """The largest so far, along ``axis``."""
    return _cumulative("cumulative_max", lift(x), axis, None)


@function()
def cumulative_min(x: Any, axis: Any = 0, dtype: Any = None) -> Any:
    """The smallest so far, along ``axis``."""
    return _cumulative("cumulative_min", lift(x), axis, None)
