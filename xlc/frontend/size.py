"""Symbolic sizes as a user meets them: ``x.shape[0]`` while a function with dynamic sizes is traced.

    n = x.shape[0]            the size ``batch``
    n * 2, n // 3, n - 1      sizes
    n >= 0, n == n            decided where the answer is the same for every size
    n == 1                    raises: the answer would differ from call to call
    x / n                     a size is also a number: an int64 known at run time

In the IR a ``Dim`` that differs from another compares unequal; a user's ``if`` must not be answered so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import XlcTypeError, XlcValueError
from ..ir.types import Dim, Quotient, Size


def _least(dim: Size) -> int | None:
    """A lower bound that holds for all values of the names, where one is easily seen."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, c in dim.terms:
        if not monomial:
            total += c
        elif c < 0 or any(isinstance(a, Quotient) and (_least(a.numerator) or -1) < 0 for a, _ in monomial):
            return None
    return total


class SymbolicSize(Dim):
    """A Dim whose comparisons raise unless they are decided for every size."""

    __slots__ = ()

    def __init__(self, dim: Dim):
        self.terms, self._hash = dim.terms, dim._hash

    def _arithmetic(name: str) -> Callable[[Any, Any], Any]:  # type: ignore[misc]
        plain = getattr(Dim, name)

        def method(self: SymbolicSize, other: Any) -> Any:
            from .array import Tracer, lift

            if isinstance(other, (Tracer, float)) or not isinstance(other, (int, Dim)):
                return getattr(lift(self), name)(other)
            return symbolic(plain(plain_size(self), plain_size(other)))

        return method

    __add__, __radd__ = _arithmetic("__add__"), _arithmetic("__radd__")
    __sub__, __rsub__ = _arithmetic("__sub__"), _arithmetic("__rsub__")
    __mul__, __rmul__ = _arithmetic("__mul__"), _arithmetic("__rmul__")
    __floordiv__, __mod__ = _arithmetic("__floordiv__"), _arithmetic("__mod__")

    def __neg__(self) -> Any:
        return symbolic(-plain_size(self))

    def __truediv__(self, other: Any) -> Any:
        from .array import lift

        return lift(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        from .array import lift

        return other / lift(self)

    def __pow__(self, other: Any) -> Any:
        from .array import lift

        if isinstance(other, int) and other > 0:
            return symbolic(plain_size(self) * plain_size(self ** (other - 1))) if other > 1 else self
        return lift(self) ** other

    def _decide(self, other: Any, sign: str) -> bool:
        if not isinstance(other, (int, Dim)):
            raise XlcTypeError(f"the size {self} is compared with {type(other).__name__}; expected a size")
        difference = plain_size(self) - plain_size(other)
        low, high = _least(difference), _least(-difference)  # difference >= low, difference <= -high
        match sign:
            case "<" if low is not None and low >= 0:
                return False
            case "<" if high is not None and high > 0:
                return True
            case "==" if difference == 0:
                return True
            case "==" if (low is not None and low > 0) or (high is not None and high > 0):
                return False
        raise XlcValueError(f"{self} {sign} {other} depends on the size, which is not known while the function is traced, so a Python "
                            f"decision on it "
                            "would hold for one size only; choose with np.where, or leave this axis out of dynamic= so that each size is "
                            "compiled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (int, Dim)) and self._decide(other, "==")

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return self._decide(other, "<")

    def __ge__(self, other: Any) -> bool:
        return not self._decide(other, "<")

    def __gt__(self, other: Any) -> bool:
        return symbolic(plain_size(other))._decide(self, "<") if isinstance(other, Dim) else not self._decide(other + 1, "<")

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        raise XlcTypeError(f"the size {self} is symbolic: its value is not known while the function is traced. Make arrays of this size "
                           f"with xlc.numpy "
                           "(xlc.numpy.zeros, arange, ...) or np.zeros_like; a Python loop over it is not possible")

    __int__ = __float__ = __index__
    __hash__ = Dim.__hash__


def symbolic(size: Size) -> Any:
    """For the user: int, or a size that compares carefully."""
    return SymbolicSize(size) if isinstance(size, Dim) else size


def plain_size(size: Any) -> Size:
    """For the IR: int or plain Dim."""
    if isinstance(size, SymbolicSize):
        plain = Dim.__new__(Dim)
        plain.terms, plain._hash = size.terms, size._hash
        return plain
    return size
