"""What the functions of vecmath are written in: operators on Exprs, the parts of a float, exact sums and products, polynomials.

    horner(x, (a, b, c))    ->  fma(fma(c, x, b), x, a)
    copysign(y, x)          ->  bitcast((bits(y) & 0x7f...) | (bits(x) & 0x80...))

Nothing here branches, reads memory (but ``table``) or calls a library. A ``where`` with a comparison is written ``where(x > c, c, x)`` on
purpose: it keeps nan and is one machine instruction, which NaN-propagating ``minimum`` is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.loops import Expr, const
from ..ir.op import lookup
from ..ir.types import DType, f32, f64, u32, u64

INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True)
class Format:
    """A binary float: its type, the unsigned integer of its width, the bits of its stored mantissa, its exponent bias."""

    dtype: DType
    word: DType
    mantissa: int
    bias: int

    @property
    def sign(self) -> int:
        return 1 << (self.word.bits - 1)

    @property
    def magic(self) -> float:
        """1.5 * 2**mantissa: adding it rounds to an integer, which then stands in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def tiny(self) -> float:
        """The least normal number."""
        return 2.0 ** (1 - self.bias)


SINGLE, DOUBLE = Format(f32, u32, 23, 127), Format(f64, u64, 52, 1023)


def format_of(x: Expr) -> Format:
    return DOUBLE if x.dtype is f64 else SINGLE


def _named(name: str) -> Callable[..., Expr]:
    def call(*args: Any) -> Expr:
        return lookup(name)(*args)

    return call


fma, absolute, sqrt, floor, trunc, nearest = (_named(n) for n in ("fma", "abs", "sqrt", "floor", "trunc", "round"))
equal, not_equal = _named("equal"), _named("not_equal")


def where(condition: Expr, a: Any, b: Any) -> Expr:
    if not isinstance(a, Expr):
        a = const(a, b.dtype)
    return lookup("where")(condition, a, b)


def constants(condition: Expr, a: float, b: float, like: Expr) -> Expr:
    """One of two numbers."""
    return where(condition, const(a, like.dtype), const(b, like.dtype))


def cast(x: Expr, dtype: DType) -> Expr:
    return lookup("cast")(x, dtype=dtype)


def bits(x: Expr) -> Expr:
    return lookup("bitcast")(x, dtype=format_of(x).word)


def from_bits(word: Expr) -> Expr:
    return lookup("bitcast")(word, dtype=f64 if word.dtype is u64 else f32)


def table(index: Expr, values: Sequence[float], dtype: DType) -> Expr:
    return lookup("lookup")(index, table=tuple(values), dtype=dtype)


def horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial with these coefficients, lowest power first."""
    y: Any = const(coefficients[-1], x.dtype)
    for c in reversed(coefficients[:-1]):
        y = fma(y, x, const(c, x.dtype))
    return y


def copysign(magnitude: Expr, sign: Expr) -> Expr:
    mask = format_of(sign).sign
    return from_bits((bits(magnitude) & (mask - 1)) | (bits(sign) & mask))


def with_sign(magnitude: Expr, sign: Expr) -> Expr:
    """The same where the magnitude is known to have sign +; a negative one changes sign where ``sign`` is negative."""
    return from_bits(bits(magnitude) ^ (bits(sign) & format_of(sign).sign))


def two_sum(a: Expr, b: Any) -> tuple[Expr, Expr]:
    """a + b exactly: the rounded sum and its error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def fast_two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """The same for |a| >= |b| (Dekker)."""
    s = a + b
    return s, b - (s - a)


def two_product(a: Expr, b: Any) -> tuple[Expr, Expr]:
    """a * b exactly."""
    p = a * b
    return p, fma(a, b, -p)


def quotient(a: Expr, da: Expr, b: Expr, db: Expr) -> Expr:
    """(a + da) / (b + db), where the second parts are small: nearly as good as rounded once."""
    a, da = fast_two_sum(a, da)
    b, db = fast_two_sum(b, db)
    reciprocal = 1 / b
    q = a * reciprocal
    return fma(fma(-q, db, da) + fma(-q, b, a), reciprocal, q)


def power_of_two(k: Expr, offset: int) -> Expr:
    """2**n from the word k = offset + n, as far as it is a normal number; bits of k above the exponent's place may be set."""
    f = DOUBLE if k.dtype is u64 else SINGLE
    return from_bits((k - (offset - f.bias) if offset != f.bias else k) << f.mantissa)


def inverse_power(k: Expr, offset: int, down: int = 0) -> Expr:
    """2**-(n + down) from k = offset + n, where that is a normal number."""
    f = DOUBLE if k.dtype is u64 else SINGLE
    return from_bits(((offset + f.bias - down) - k) << f.mantissa)


def in_double(function: Callable[..., Expr]) -> Callable[..., Expr]:
    """A function of f64 numbers serving f32 as well: evaluated in f64 and rounded once."""

    def evaluate(*args: Expr) -> Expr:
        dtype = args[0].dtype
        if dtype is f64:
            return function(*args)
        return cast(function(*(cast(a, f64) for a in args)), dtype)

    return evaluate


def by_width(single: Callable[..., Expr], double: Callable[..., Expr]) -> Callable[..., Expr]:
    """One function out of its f32 and its f64 form."""

    def evaluate(*args: Expr) -> Expr:
        return (double if args[0].dtype is f64 else single)(*args)

    return evaluate
