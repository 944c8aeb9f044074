"""Axes, shapes and dtypes as users write them, in the form the IR has: checked, non-negative, plain."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from ..errors import XlcTypeError, XlcValueError
from ..ir.types import Dim, DType, Size, dtype_of
from .array import Tracer
from .elementwise import show_shape
from .size import plain_size
from .trace import describe


class XlcAxisError(XlcValueError, IndexError):
    """An axis that the array does not have, or one that is given twice."""


def one_axis(axis: Any, rank: int, what: str = "axis") -> int:
    i = integer(axis, what)
    if not -rank <= i < rank:
        raise XlcAxisError(f"{what} {i} is out of bounds for an array of dimension {rank}")
    return i % rank


def many_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """None means all; an int one; a tuple several, in ascending order."""
    if axis is None:
        return tuple(range(rank))
    if not isinstance(axis, (tuple, list)):
        return (one_axis(axis, rank),)
    found = [one_axis(a, rank) for a in axis]
    if len(set(found)) < len(found):
        raise XlcAxisError(f"an axis is given twice in axis={tuple(axis)}")
    return tuple(sorted(found))


def reduced_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """``many_axes`` for NumPy's reductions, which allow axis 0 and -1 of a 0-d array."""
    return () if rank == 0 and isinstance(axis, int) and axis in (0, -1) else many_axes(axis, rank)


def integer(value: Any, what: str) -> int:
    """A Python int that is known while tracing."""
    if isinstance(value, Tracer):
        value.__index__()
    try:
        return operator.index(value)
    except TypeError:
        raise XlcTypeError(f"{what} must be an integer, found {describe(value)}") from None


def size_of(value: Any, what: str = "a size") -> Size:
    if isinstance(value, Dim):
        return plain_size(value)
    size = integer(value, what)
    if size < 0:
        raise XlcValueError(f"{what} must not be negative, found {size}")
    return size


def shape_of(shape: Any) -> tuple[Size, ...]:
    """A shape given as an int or a sequence."""
    if isinstance(shape, Dim) or not isinstance(shape, Iterable) or isinstance(shape, Tracer):
        return (size_of(shape),)
    return tuple([size_of(s) for s in shape])


def dtype_from(dtype: Any) -> DType:
    try:
        return dtype_of(dtype)
    except TypeError as error:
        raise XlcTypeError(str(error)) from None


def reshaped(old: tuple[Size, ...], shape: Any) -> tuple[Size, ...]:
    """The shape meant by one that may hold a -1."""
    from ..ir.types import product

    given = [shape] if isinstance(shape, Dim) or not isinstance(shape, Iterable) or isinstance(shape, Tracer) else list(shape)
    sizes: list[Size] = [plain_size(s) if isinstance(s, Dim) else integer(s, "a size") for s in given]
    total = product(old)
    unknown = [i for i, s in enumerate(sizes) if isinstance(s, int) and s < 0]
    if len(unknown) > 1:
        raise XlcValueError("can only specify one unknown dimension")
    message = f"cannot reshape array of size {total} (shape {show_shape(old)}) into shape {show_shape(sizes)}"
    if unknown:
        if sizes[unknown[0]] != -1:
            raise XlcValueError(f"{message}: negative sizes other than -1 are not allowed")
        rest = product(s for i, s in enumerate(sizes) if i != unknown[0])
        if rest == 0 or (isinstance(rest, int) and isinstance(total, int) and total % rest):
            raise XlcValueError(message)
        quotient = total // rest if isinstance(total, int) and isinstance(rest, int) else \
            total.divide(rest) if isinstance(total, Dim) else None
        if quotient is None:
            raise XlcValueError(f"{message}: {rest} does not divide {total} for every value of its names")
        sizes[unknown[0]] = quotient
    if product(sizes) != total:
        raise XlcValueError(message)
    return tuple(sizes)
