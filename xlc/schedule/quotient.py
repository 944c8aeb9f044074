"""Division of a whole row of exponentials by one number, by multiplications; the quotients are those of a division, bit for bit.

    e[r] = exp(x[r] - max(x));  y[r] = e[r] / u
    ->
    low = min(x)                                          in the pass that finds the maximum
    if low - max(x) >= -60 and u <= 2**24:                then no remainder below is too small to be exact
      p = 1 / u,  c = fma(-p, u, 1) * p                   p + c is 1 / u to twice the precision
      q = fma(e, p, e*c);  y[r] = fma(fma(-q, u, e), p, q)

q is at most one unit off, and p is 1 / u rounded to nearest: then the last step gives the quotient rounded to nearest (Markstein; Muller
et al., Handbook of Floating-Point Arithmetic, section 4.7). A division of a vector takes as long as ten to sixteen of these instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xlc.ir.loops import LOAD, Buffer, Expr, Let, const, substitute, var, walk
from xlc.ir.op import Monoid, lookup
from xlc.ir.types import f32

LOW, MOST = -60.0, 2.0**24
_fma = lookup("fma")

LEAST = Monoid(lambda dtype: (const(float("inf"), dtype),), lambda s, t: (lookup("where")(t[0] < s[0], t[0], s[0]),))
"""The minimum of numbers; it does not care for nan."""


@dataclass(frozen=True)
class Exponentials:
    """A row kept in ``buffer``: exp(value - maximum), where ``maximum`` is the name of the reduction's result."""

    buffer: Buffer
    value: Expr
    maximum: Expr

    def divided(self, values: Sequence[Expr], row: frozenset[str]) -> list[Expr]:
        """The quotients of elements of the row and something that is the same for the whole row."""
        return [e for e in walk(*values) if e.op.name == "divide" and e.dtype is f32 and e.args[0].op is LOAD
                and e.args[0]["buffer"] is self.buffer and e.args[1].free.isdisjoint(row)]


def exponentials(buffer: Buffer, e: Expr) -> Exponentials | None:
    """What a kept value is, if it is that."""
    if e.op.name != "exp" or e.dtype is not f32 or e.args[0].op.name != "subtract":
        return None
    value, maximum = e.args[0].args
    return Exponentials(buffer, value, maximum) if maximum.op.name == "var" else None


def by_multiplication(quotients: Sequence[Expr], values: Sequence[Expr]) -> tuple[list[Let], list[Expr]]:
    """What is computed once, and the values with the quotients replaced."""
    u = quotients[0].args[1]
    p, c = var("reciprocal", f32), var("correction", f32)
    lets = [Let("reciprocal", const(1.0, f32) / u), Let("correction", _fma(-p, u, const(1.0, f32)) * p)]
    replaced = {}
    for e in quotients:
        q = _fma(e.args[0], p, e.args[0] * c)
        replaced[e] = _fma(_fma(-q, u, e.args[0]), p, q)
    return lets, [substitute(v, replaced) for v in values]


def safe(row: Exponentials, low: Expr, u: Expr) -> Expr:
    """Whether every step is exact where it must be (false if anything is nan)."""
    return (low - row.maximum >= const(LOW, f32)) & (u <= const(MOST, f32))


__all__ = ["LEAST", "Exponentials", "by_multiplication", "exponentials", "safe"]
