"""A contraction as a product of matrices, and what is done with each element of the result: what every schedule of it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xlc.ir.loops import Expr, If, Stmt, const, substitute
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, f32, i32
from xlc.schedule.nest import Dimension, stored
from xlc.schedule.product import Product

from .operand import Operand, length


def wide(d: DType) -> DType:
    """What products of this dtype are summed in."""
    return f32 if d.is_float and d.bits == 16 else i32 if d.is_int and d.bits < 32 else d


class Contraction:
    """A contraction as a product of matrices ``a`` and ``b``, and what is done with each of its elements."""

    def __init__(self, p: Product):
        self.product = p
        self.dtype = wide(p.dot.dtype)
        self.batch, ms, ns, ks = (tuple(Dimension(v, p.extents[v]) for v in vs) for vs in (p.batch, p.ms, p.ns, p.ks))
        self.a, self.b = Operand("a", p.a, ms, ks), Operand("b", p.b, ns, ks)

    @property
    def rows(self) -> Size:
        return length(self.a.free)

    @property
    def columns(self) -> Size:
        return length(self.b.free)

    @property
    def depth(self) -> Size:
        return length(self.a.ks)

    def added(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """acc + a*b; of bools, whether any pair is true."""
        if self.dtype.is_float:
            return lookup("fma")(a, b, acc)
        return acc | (a & b) if self.dtype.kind == "b" else acc + a * b

    def zero(self) -> Expr:
        return const(0, self.dtype)

    def joined(self, x: Expr, y: Expr) -> Expr:
        """Two sums as one."""
        return x | y if self.dtype.kind == "b" else x + y

    def widened(self, e: Expr) -> Expr:
        return e if e.dtype is self.dtype else lookup("cast")(e, dtype=self.dtype)

    def finish(self, done: Expr, at: Mapping[Expr, Expr]) -> list[Stmt]:
        """Everything that follows, for the element of the result at these values of the loop variables."""
        p, memo = self.product, dict[Expr, Expr]()
        result = {p.acc_value: done if done.dtype is p.dot.dtype else lookup("cast")(done, dtype=p.dot.dtype)}
        return stored([(p.buffers[r], substitute(w, at), substitute(substitute(v, at, memo), result))
                       for r, w, v in zip(p.group.roots, p.where, p.values, strict=True)])


def guarded(condition: Expr, body: Sequence[Stmt]) -> list[Stmt]:
    """The statements where the condition holds."""
    if condition.is_const:
        return list(body) if condition.value else []
    return [If(condition, tuple(body))]


__all__ = ["Contraction", "guarded", "wide"]
