"""Intervals of index expressions: which i64 values fit 32 bits, and how these are computed.

    interval_of("add", [(0, 255), (0, 31)])  ->  (0, 286)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

Interval = tuple[float, float]
NARROW = (-(2.0**31), 2.0**31 - 1)
UNKNOWN: Interval = (-inf, inf)


def interval_of(name: str, args: Sequence[Interval]) -> Interval:
    """The interval of an index operator's result."""
    (a, b), (c, d) = args[0], args[-1]
    match name:
        case "add":
            return a + c, b + d
        case "subtract":
            return a - d, b - c
        case "multiply":
            products = [x * y if x and y else 0.0 for x in (a, b) for y in (c, d)]
            return min(products), max(products)
        case "floor_divide" if c == d and c > 0:
            return (a // c if a > -inf else a), (b // c if b < inf else b)
        case "remainder" if c == d and c > 0:
            return (0.0, min(b, c - 1)) if a >= 0 else (0.0, c - 1)
        case "minimum":
            return min(a, c), min(b, d)
        case "maximum":
            return max(a, c), max(b, d)
        case "where":
            (e, f) = args[1]
            return min(e, c), max(f, d)
        case "bitwise_and" if a >= 0 and c >= 0:
            return 0.0, min(b, d)
        case "bitwise_xor" if a >= 0 and c >= 0 and max(b, d) < inf:
            return 0.0, float((1 << int(max(b, d)).bit_length()) - 1)
    return UNKNOWN


INDEX: dict[str, Callable[..., str]] = {
    "add": "({} + {})".format, "subtract": "({} - {})".format, "multiply": "({} * {})".format,
    "floor_divide": "(int)((unsigned){} / {}u)".format, "remainder": "(int)((unsigned){} % {}u)".format,
    "minimum": "({0} < {1} ? {0} : {1})".format, "maximum": "({0} > {1} ? {0} : {1})".format,
    "bitwise_and": "({} & {})".format, "bitwise_xor": "({} ^ {})".format, "where": "({} ? {} : {})".format,
    "less": "({} < {})".format, "less_equal": "({} <= {})".format, "greater": "({} > {})".format, "greater_equal": "({} >= {})".format,
    "equal": "({} == {})".format, "not_equal": "({} != {})".format,
}
"""What is written on indices that fit 32 bits."""

__all__ = ["INDEX", "NARROW", "UNKNOWN", "Interval", "interval_of"]
