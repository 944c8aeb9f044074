"""Elementwise functions on traced values: NumPy's promotion, made explicit.

    elementwise("add", x_i8, 1.5)      x: i8[3]  ->  add(cast(x) {dtype=f64}, full(1.5)) : f64[3]

The dtypes come from NumPy itself (``ufunc.resolve_dtypes``, which knows NEP 50 and the weak Python scalars). What enters are tracers,
Python scalars and anything array-like; what leaves is a tracer. A NumPy ufunc is either an operator of the IR (``_OPERATORS``), or a few of
them (``_LOWERINGS``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import XlcOverflowError, XlcTypeError, XlcValueError
from ..ir.node import Node, apply, full
from ..ir.op import lookup
from ..ir.types import DTYPES, Dim, DType, Size, Type, bool_, dtype_of, f64, i64
from .array import Tracer, lift, unwrap, wrap
from .size import plain_size

PYTHON = (bool, int, float)
Lowering = Callable[..., Node]


def emit(name: str, *args: Any, **attrs: Any) -> Node:
    """A node of the operator ``name``; a TypeError or ValueError of its type rule already names the user's line."""
    return apply(lookup(name), args, attrs)


def cast(node: Node, dtype: DType) -> Node:
    return node if node.dtype == dtype else emit("cast", node, dtype=dtype)


def literal(value: Any, dtype: DType, shape: tuple[Size, ...] = ()) -> Node:
    """A Python number as a tensor of one value, with NumPy's check of its range."""
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        if not isinstance(value, (bool, int)):
            raise XlcTypeError(f"the number {value!r} meets an array of integers; write it as an integer, or convert the array with astype")
        if not info.min <= value <= info.max:
            raise XlcOverflowError(f"Python integer {value} out of bounds for {dtype.numpy}; write np.int64({value}) or convert the "
                                   f"array with "
                                   f"astype to a dtype that holds it")
    with np.errstate(all="ignore"):
        if dtype.is_float:
            try:
                value = float(dtype.numpy.type(float(value)))
            except OverflowError:
                raise XlcOverflowError(f"Python integer {str(value)[:30]}... is too large to convert to a float") from None
        return full(Type(dtype, shape), value)


# ------------------------------------------------------------------------------------------------ shapes


def broadcast_shapes(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """NumPy's broadcasting, over named sizes too: a named size meets itself or 1."""
    out: list[Size] = []
    for i in range(max(map(len, shapes), default=0)):
        size: Size = 1
        for shape in shapes:
            j = i - max(map(len, shapes)) + len(shape)
            if j < 0 or (other := shape[j]) == 1 or other == size:
                continue
            if size != 1:
                listed = " and ".join(show_shape(s) for s in shapes)
                hint = f"; {size} and {other} are equal for some sizes only: give both axes the same name" \
                    if isinstance(size, Dim) or isinstance(other, Dim) else ""
                raise XlcValueError(f"operands could not be broadcast together with shapes {listed}: {size} does not match {other} "
                                    f"(axis {i - max(map(len, shapes))}){hint}")
            size = other
        out.append(size)
    return tuple(out)


def show_shape(shape: Sequence[Size]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def broadcast(node: Node, shape: tuple[Size, ...]) -> Node:
    """To a shape that it is known to broadcast to: new axes in front, axes of size 1 repeated."""
    if node.shape == shape:
        return node
    if node.op.name == "full":
        return full(Type(node.dtype, shape), node["value"])
    lead = len(shape) - node.rank
    kept = [i for i in range(node.rank) if node.shape[i] == shape[lead + i]]
    if len(kept) < node.rank:
        node = emit("reshape", node, shape=tuple(node.shape[i] for i in kept))
    return emit("broadcast", node, shape=shape, axes=tuple(lead + i for i in kept))


def broadcast_to(node: Node, shape: tuple[Size, ...]) -> Node:
    """To a shape that a user asked for."""
    if len(shape) < node.rank or broadcast_shapes(node.shape, shape) != shape:
        raise XlcValueError(f"cannot broadcast an array of shape {show_shape(node.shape)} to {show_shape(shape)}")
    return broadcast(node, shape)


# ------------------------------------------------------------------------------------------------ dtypes


@lru_cache(maxsize=4096)
def _loop(ufunc: np.ufunc, spec: tuple[Any, ...], dtype: np.dtype | None, casting: Any) -> tuple[DType, ...]:
    signature = (None,) * ufunc.nin + (dtype,) * ufunc.nout
    if all(isinstance(s, type) for s in spec):
        spec = tuple(map(np.dtype, spec))  # Python numbers alone: comparisons of these are defined on objects
    with np.errstate(all="ignore"):
        found = ufunc.resolve_dtypes((*spec, *(None,) * ufunc.nout), signature=signature, casting=casting)
    return tuple(dtype_of(d) for d in found)


def loop_dtypes(ufunc: np.ufunc, spec: tuple[Any, ...], dtype: Any = None, casting: str = "same_kind") -> tuple[DType, ...]:
    """The dtypes NumPy computes with: of each input, then of each output. ``spec``: dtypes, or bool, int, float for Python scalars."""
    try:
        return _loop(ufunc, spec, None if dtype is None else dtype_of(dtype).numpy, casting)
    except TypeError as error:
        names = ", ".join(d.__name__ if isinstance(d, type) else str(d) for d in spec)
        asked = f" with dtype={np.dtype(dtype)}" if dtype is not None else ""
        reason = str(error).splitlines()[0]
        raise XlcTypeError(f"np.{ufunc.__name__} is not defined for ({names}){asked}; convert with astype first ({reason})") from None


def spec_of(x: Any) -> Any:
    """What promotion sees of an operand: a dtype, or the type of a Python scalar."""
    kind = type(x)
    if kind is Tracer:
        dtype = x._node.type.dtype
        return dtype.numpy if not x._weak or dtype.kind == "b" else int if dtype.kind == "i" else float
    if kind is bool:
        return np.dtype(bool)
    if kind is int or kind is float:
        return kind
    return x.dtype


def result_dtype(*operands: Any) -> DType:
    """The dtype that NumPy's ``result_type`` gives: for concat, where, clip, stack..."""
    operands = tuple(x if type(x) in PYTHON or isinstance(x,
                                                          (Tracer, np.ndarray, np.generic, np.dtype, type)) else lift(x) for x in operands)
    stand: dict[Any, Any] = {int: 0, float: 0.0}
    specs = [x if isinstance(x, (np.dtype, type)) else spec_of(x) for x in operands]
    try:
        return dtype_of(np.result_type(*(stand.get(s, s) for s in specs)))
    except TypeError:
        raise XlcTypeError(f"there is no common dtype of {', '.join(str(s) for s in specs)}; convert one with astype") from None


def is_weak(x: Any) -> bool:
    return type(x) in PYTHON or (type(x) is Tracer and x._weak)


# ------------------------------------------------------------------------------------------------ the call


def elementwise(name: str, *operands: Any, dtype: Any = None, casting: str = "same_kind", python: bool = False) -> Any:
    """The ufunc np.<name> on operands of any kind. ``python``: it is a Python operator, so that weak operands give a weak result."""
    ufunc = getattr(np, name)
    operands = tuple(_operand(x) for x in operands)
    weak = python and all(map(is_weak, operands))
    specs = tuple(map(spec_of, operands))
    if weak and name not in _KEEPS_BOOL:
        specs = tuple(int if s == np.dtype(bool) else s for s in specs)  # True + True is 2 in Python
    if name in _COMPARISONS:
        out_of_range = _compare_far_literal(name, operands, specs)
        if out_of_range is not None:
            return out_of_range
    loop = loop_dtypes(ufunc, specs, dtype, casting)
    inputs = loop[:ufunc.nin]
    shape = broadcast_shapes(*(x._node.type.shape for x in operands if type(x) is Tracer))
    nodes = [literal(x, d, shape) if type(x) in PYTHON else broadcast(cast(unwrap(x), d), shape) for x,
             d in zip(operands, inputs, strict=True)]
    lowered = lower(name, *nodes)
    if ufunc.nout == 1:
        return wrap(cast(lowered, loop[-1]), weak)
    return tuple(wrap(cast(n, d), weak) for n, d in zip(lowered, loop[ufunc.nin:], strict=True))


def _operand(x: Any) -> Any:
    if type(x) in PYTHON:
        return x
    return x if type(x) is Tracer else lift(x)


def lower(name: str, *nodes: Node) -> Any:
    """np.<name> on nodes of the loop's dtypes and one shape: a node, or one per result."""
    first = nodes[0].dtype
    special = _BOOL.get(name) if first.kind == "b" else _INT.get(name) if first.is_int else None
    special = special or _LOWERINGS.get(name)
    if special is not None:
        return special(*nodes)
    return emit(_OPERATORS[name], *nodes)


_COMPARISONS = {"less": (True, False), "less_equal": (True, False), "greater": (False, True), "greater_equal": (False, True),
                "equal": (False, False), "not_equal": (True, True)}
_KEEPS_BOOL = {"bitwise_and", "bitwise_or", "bitwise_xor", *_COMPARISONS}


def _compare_far_literal(name: str, operands: tuple[Any, ...], specs: tuple[Any, ...]) -> Any:
    """``x_u8 < 300``: NumPy answers by value, although 300 is no uint8."""
    if len(operands) != 2 or sum(type(x) is Tracer for x in operands) != 1:
        return None
    right = type(operands[0]) is Tracer
    x, value = operands if right else operands[::-1]
    dtype = x._node.type.dtype
    if type(value) is not int or not dtype.is_int:
        return None
    info = np.iinfo(dtype.numpy)
    if info.min <= value <= info.max:
        return None
    above, below = _COMPARISONS[name]  # is "x <op> value" true for a value above the range, below it
    answer = (above if value > info.max else below) if right or name in ("equal", "not_equal") else (below if value > info.max else above)
    return wrap(full(Type(bool_, unwrap(x).shape), answer))


# ------------------------------------------------------------------------------------------------ what each ufunc is


_OPERATORS = {name: name for name in ["add", "subtract", "multiply", "divide", "floor_divide", "remainder", "hypot", "logaddexp",
                                      "maximum", "minimum", "copysign", "nextafter", "bitwise_and", "bitwise_or", "bitwise_xor",
                                      "negative", "sqrt", "cbrt", "square", "sign", "signbit", "reciprocal", "exp", "exp2", "expm1", "log",
                                      "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil", "trunc",
                                      "isnan", "isinf", "isfinite", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal",
                                      "fmax", "fmin"]}
_OPERATORS |= {"power": "pow", "arctan2": "atan2", "left_shift": "bitwise_left_shift", "right_shift": "bitwise_right_shift",
               "invert": "bitwise_not", "absolute": "abs", "fabs": "abs", "rint": "round", "arcsin": "asin", "arccos": "acos",
               "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh"}


def _same(x: Node) -> Node:
    return x


def _select(condition: Node, x: Any, y: Any) -> Node:
    like = x if isinstance(x, Node) else y
    x, y = (v if isinstance(v, Node) else full(like.type, v) for v in (x, y))
    return emit("where", condition, x, y)


def _never(x: Node) -> Node:
    return full(x.type.with_dtype(bool_), False)


def _always(x: Node) -> Node:
    return full(x.type.with_dtype(bool_), True)


def _logical(name: str) -> Lowering:
    return lambda *xs: emit(name, *(cast(x, bool_) for x in xs))


def _fmod(x: Node, y: Node) -> Node:
    if x.dtype.is_float:
        return emit("copysign", emit("remainder", emit("abs", x), emit("abs", y)), x)
    r = emit("remainder", x, y)
    if not x.dtype.signed:
        return r
    zero = full(x.type, 0)
    wrong_sign = emit("bitwise_and", emit("not_equal", r, zero), emit("less", emit("bitwise_xor", r, x), zero))
    return _select(wrong_sign, r - y, r)


def _mixed_compare(name: str) -> Lowering:
    """int64 against uint64 by value, as NumPy compares them: a negative number is less than any unsigned one."""

    def lowering(x: Node, y: Node) -> Node:
        if x.dtype == y.dtype:
            return emit(name, x, y)
        signed_first = x.dtype.signed
        s = x if signed_first else y
        below = emit("less", s, full(s.type, 0))
        a, b = (cast(v, DTYPES["u64"]) for v in (x, y))
        above, under = _COMPARISONS[name]
        return _select(below, _always(below) if (above if signed_first else under) else _never(below), emit(name, a, b))

    return lowering


def _bool_order(name: str) -> Lowering:
    not_ = lambda v: emit("bitwise_not", v)  # noqa: E731
    return {"less": lambda x, y: emit("bitwise_and", not_(x), y), "less_equal": lambda x, y: emit("bitwise_or", not_(x), y),
            "greater": lambda x, y: emit("bitwise_and", x, not_(y)), "greater_equal": lambda x, y: emit("bitwise_or", x, not_(y)),
            "equal": lambda x, y: not_(emit("bitwise_xor", x, y)), "not_equal": lambda x, y: emit("bitwise_xor", x, y)}[name]


def _bit_count(x: Node) -> Node:
    """The number of ones in |x|, two by two, four by four, ..."""
    if x.dtype.signed:
        x = cast(emit("abs", x), DTYPES[f"u{x.dtype.bits}"])
    bits, t = x.dtype.bits, x.type

    def mask(group: int) -> Node:
        return full(t, sum(((1 << group) - 1) << i for i in range(0, bits, 2 * group)))

    for group in (g for g in (1, 2, 4, 8, 16, 32) if g < bits):
        x = emit("bitwise_and", x, mask(group)) + emit("bitwise_and", emit("bitwise_right_shift", x, full(t, group)), mask(group))
    return x


def _logaddexp2(x: Node, y: Node) -> Node:
    high = emit("maximum", x, y)
    far = emit("negative", emit("abs", x - y))
    out = high + emit("log1p", emit("exp2", far)) * (1 / math.log(2))
    return _select(emit("equal", x, y), x + 1.0, out)


def _heaviside(x: Node, y: Node) -> Node:
    zero = full(x.type, 0)
    return _select(emit("isnan", x), x, _select(emit("equal", x, zero), y, _select(x < zero, zero, full(x.type, 1))))


def _modf(x: Node) -> tuple[Node, Node]:
    whole = emit("trunc", x)
    return emit("copysign", _select(emit("isinf", x), 0.0, x - whole), x), whole


def _ldexp(x: Node, n: Node) -> Node:
    """x * 2**n in two factors, so that neither overflows before the product does."""
    n = cast(n, f64)
    half = emit("floor", n * 0.5)
    wide = cast(x, f64)
    return cast(wide * emit("exp2", half) * emit("exp2", n - half), x.dtype)


def _int_power(x: Node, y: Node) -> Node:
    if y.dtype.signed and y.op.name == "full" and y["value"] < 0:
        raise XlcValueError("Integers to negative integer powers are not allowed; convert the base with astype(float)")
    return emit("pow", x, y)


_LOWERINGS: dict[str, Any] = {
    "logical_and": _logical("bitwise_and"), "logical_or": _logical("bitwise_or"), "logical_xor": _logical("bitwise_xor"),
    "logical_not": _logical("bitwise_not"), "positive": _same, "conjugate": _same,
    "deg2rad": lambda x: x * (math.pi / 180), "radians": lambda x: x * (math.pi / 180),
    "rad2deg": lambda x: x * (180 / math.pi), "degrees": lambda x: x * (180 / math.pi),
    "fmod": _fmod, "float_power": lambda x, y: emit("pow", x, y),
    "logaddexp2": _logaddexp2, "heaviside": _heaviside, "modf": _modf, "ldexp": _ldexp, "bitwise_count": _bit_count,
    "divmod": lambda x, y: (emit("floor_divide", x, y), emit("remainder", x, y)),
}
_BOOL: dict[str, Any] = {
    "add": lambda x, y: emit("bitwise_or", x, y), "multiply": lambda x, y: emit("bitwise_and", x, y),
    "maximum": lambda x, y: emit("bitwise_or", x, y), "minimum": lambda x, y: emit("bitwise_and", x, y),
    "fmax": lambda x, y: emit("bitwise_or", x, y), "fmin": lambda x, y: emit("bitwise_and", x, y),
    "absolute": _same, "floor": _same, "ceil": _same, "trunc": _same, "isnan": _never, "isinf": _never, "isfinite": _always,
    "bitwise_count": _same, **{name: _bool_order(name) for name in _COMPARISONS},
}
_INT: dict[str, Any] = {
    "floor": _same, "ceil": _same, "trunc": _same, "isnan": _never, "isinf": _never, "isfinite": _always, "power": _int_power,
    "fmax": lambda x, y: emit("maximum", x, y), "fmin": lambda x, y: emit("minimum", x, y),
    "reciprocal": lambda x: _select(emit("equal", x, full(x.type, 1)), x,
                                    _select(emit("equal", x, full(x.type, -1)), x, 0)) if x.dtype.signed else
    _select(emit("equal", x, full(x.type, 1)), x, 0), "signbit": lambda x: emit("less", x, full(x.type, 0)),
    "square": lambda x: x * x, **{name: _mixed_compare(name) for name in _COMPARISONS},
}
UFUNCS = frozenset(_OPERATORS) | frozenset(_LOWERINGS)


def size_node(size: Size) -> Node:
    """A size as a number: i64[]."""
    size = plain_size(size)
    return full(Type(i64), size) if isinstance(size, int) else emit("extent", size=size)
