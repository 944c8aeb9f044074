"""Elementwise functions: every real NumPy ufunc, the array API's names for them, and some that NumPy lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import XlcTypeError
from ..frontend.array import Tracer, lift, unwrap, wrap
from ..frontend.axes import dtype_from, integer
from ..frontend.elementwise import (
    PYTHON,
    UFUNCS,
    broadcast,
    broadcast_shapes,
    cast,
    elementwise,
    emit,
    literal,
    loop_dtypes,
    result_dtype,
    spec_of,
)
from ..frontend.table import function
from ..ir.node import Node, full
from ..ir.types import DType, bool_

# array API name -> NumPy's
_STANDARD = {"abs": "absolute", "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan",
             "atan2": "arctan2",
             "atanh": "arctanh", "bitwise_invert": "invert", "bitwise_not": "invert", "bitwise_left_shift": "left_shift",
             "bitwise_right_shift": "right_shift", "pow": "power", "mod": "remainder", "true_divide": "divide"}


def _ufunc(name: str) -> Any:
    def f(*operands: Any, dtype: Any = None, casting: str = "same_kind", out: Any = None, where: Any = True) -> Any:
        if len(operands) != ufunc.nin:
            raise XlcTypeError(f"np.{name} takes {ufunc.nin} arrays, found {len(operands)}" +
                               ("; traced arrays are not written in place: write y = f(x)" if len(operands) > ufunc.nin else ""))
        if out is not None:
            raise XlcTypeError(f"np.{name}(..., out=y): traced arrays are not written in place; write y = np.{name}(...)")
        if where is not True:
            raise XlcTypeError(f"np.{name}(..., where=mask) leaves elements undefined; write np.where(mask, np.{name}(...), other)")
        return elementwise(name, *operands, dtype=dtype, casting=casting)

    ufunc = getattr(np, name)
    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"np.{name}, elementwise."
    return function(ufunc, names=tuple(k for k, v in _STANDARD.items() if v == name), numbers=True)(f)


for _name in sorted(UFUNCS):
    _ufunc(_name)


def float_dtype(x: Any) -> DType:
    """The dtype in which NumPy would compute np.exp(x)."""
    return loop_dtypes(np.exp, (spec_of(x if type(x) in PYTHON else lift(x)),))[-1]


def as_float(x: Any) -> Node:
    return cast(unwrap(x), float_dtype(x))


def _special(name: str, doc: str) -> None:
    def f(x: Any) -> Any:
        return wrap(emit(name, as_float(x)))

    f.__name__ = f.__qualname__ = name
    f.__doc__ = doc
    function(numbers=True)(f)


_special("erf", "The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x.")
_special("erfc", "1 - erf(x), without cancellation.")
_special("erfinv", "The number whose erf is x; +-inf for +-1, nan beyond.")
_special("expit", "The logistic function 1 / (1 + exp(-x)).")
_special("rsqrt", "1 / sqrt(x).")


@function(np.clip, names=("clip",))
def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None, out: None = None, dtype: Any = None) -> Any:
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    x = lift(x)
    if x.node.dtype.is_int:  # bounds beyond the dtype bound nothing
        info = np.iinfo(x.dtype)
        low = None if type(low) is int and low < info.min else low
        high = None if type(high) is int and high > info.max else high
    if low is None or high is None:
        y = x if low is None else elementwise("maximum", x, low, dtype=dtype)
        return y if high is None else elementwise("minimum", y, high, dtype=dtype)
    d = loop_dtypes(_CLIP, tuple(map(spec_of, (x, *(v if type(v) in PYTHON else lift(v) for v in (low, high))))), dtype)[-1]
    nodes = [literal(v, d) if type(v) in PYTHON else cast(unwrap(v), d) for v in (x, low, high)]
    shape = broadcast_shapes(*(n.shape for n in nodes))
    value, least, most = (broadcast(n, shape) for n in nodes)
    if d == bool_:
        return wrap(emit("bitwise_and", emit("bitwise_or", value, least), most))
    return wrap(emit("minimum", emit("maximum", value, least), most))


_CLIP = np._core.umath.clip  # type: ignore[attr-defined]


@function(np.where)
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    if x is None or y is None:
        raise XlcTypeError("np.where(condition) gives a result whose shape depends on the data; write np.where(condition, x, y)")
    return select_nodes(condition, x, y, result_dtype(x, y))


def select_nodes(condition: Any, x: Any, y: Any, dtype: DType) -> Tracer:
    c = cast(unwrap(condition), bool_)
    xs = [literal(v, dtype) if type(v) in PYTHON else cast(unwrap(v), dtype) for v in (x, y)]
    shape = broadcast_shapes(c.shape, xs[0].shape, xs[1].shape)
    return wrap(emit("where", *(broadcast(n, shape) for n in (c, *xs))))


@function(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    dtype = result_dtype(*choicelist, default)
    out = default
    for condition, choice in zip(reversed(list(condlist)), reversed(list(choicelist)), strict=True):
        out = select_nodes(condition, choice, out, dtype)
    return out


@function(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    x = lift(x)
    if x.dtype.kind in "biu":
        return x.copy()
    node = x.node
    largest = np.finfo(x.dtype).max if x.dtype.kind == "f" else 3.3895313892515355e38
    high, low = (float(largest if posinf is None else posinf), float(-largest if neginf is None else neginf))
    zero = full(node.type, 0.0)
    out = emit("where", emit("isinf", node), emit("where", node < zero, full(node.type, low), full(node.type, high)), node)
    return wrap(emit("where", emit("isnan", node), broadcast(literal(nan, node.dtype) if type(nan) in PYTHON else
                                                             cast(unwrap(nan), node.dtype), node.shape), out))


@function(np.isclose)
def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    x, y = lift(a), lift(b)
    if y.dtype.kind in "biu":
        y = elementwise("multiply", y, 1.0)
    near = (elementwise("absolute", x - y) <= (atol + rtol * elementwise("absolute", y))) & elementwise("isfinite", y)
    near = near | (x == y)
    return near | (elementwise("isnan", x) & elementwise("isnan", y)) if equal_nan else near


@function(np.allclose)
def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """As NumPy's, but the answer is a traced bool."""
    return isclose(a, b, rtol, atol, equal_nan).all()


@function(np.round, np.around)
def round(x: Any, decimals: int = 0, out: None = None) -> Any:
    x, decimals = lift(x), integer(decimals, "decimals")
    if x.dtype.kind in "bui" and decimals >= 0:
        return elementwise("rint", x) if x.dtype.kind == "b" else x.copy()
    if decimals == 0:
        return elementwise("rint", x, python=True)
    dtype, scale = x.dtype, float(10 ** abs(decimals))
    if decimals > 0:
        return astype(elementwise("rint", x * scale) / scale, dtype)
    return astype(elementwise("rint", x / scale) * scale, dtype)


@function(np.fix)
def fix(x: Any, out: None = None) -> Any:
    return elementwise("trunc", x)


@function(np.real)
def real(x: Any) -> Any:
    return lift(x)


@function(np.imag)
def imag(x: Any) -> Any:
    x = lift(x)
    return wrap(full(x.node.type, 0))


@function(np.isposinf)
def isposinf(x: Any, out: None = None) -> Any:
    return elementwise("isinf", x) & ~elementwise("signbit", x)


@function(np.isneginf)
def isneginf(x: Any, out: None = None) -> Any:
    return elementwise("isinf", x) & elementwise("signbit", x)


@function(np.isreal)
def isreal(x: Any) -> Any:
    return wrap(full(unwrap(x).type.with_dtype(bool_), True))


@function(np.iscomplex)
def iscomplex(x: Any) -> Any:
    return wrap(full(unwrap(x).type.with_dtype(bool_), False))


@function(np.sinc)
def sinc(x: Any) -> Any:
    y = select_nodes(lift(x) == 0, 1.0e-20, x, float_dtype(x)) * np.pi
    return elementwise("sin", y) / y


@function(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, casting: Any = "unsafe", device: Any = None) -> Any:
    x, to = lift(x), dtype_from(dtype)
    if casting != "unsafe" and not np.can_cast(x.dtype, to.numpy, casting):
        raise XlcTypeError(f"cannot cast array data from {x.dtype} to {to.numpy} according to the rule {casting!r}")
    if not copy and x.node.dtype == to:
        return x
    return wrap(cast(x.node, to))


@function(names=("view",))
def view(x: Any, dtype: Any = None) -> Any:
    """The same bits as another dtype of the same width."""
    from ..frontend.array import view_of

    x = lift(x)
    if dtype is None:
        return view_of(x, x.node)
    to = dtype_from(dtype)
    if to.bits != x.node.dtype.bits:
        raise XlcTypeError(f"x.view({to.numpy}) of {x.dtype} changes the shape; only dtypes of one width are supported")
    return view_of(x, emit("bitcast", x.node, dtype=to))
