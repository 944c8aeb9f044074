"""A contraction and what is fused with it, as scalars over as few loops as possible.

    y = tanh(dot(x, w) + b)    ->    a = x[m*64+k], b = w[k*32+n], values = (tanh(acc + b[n]),), where = (m*32+n,)

The loop variables come in four classes: ``batch``, rows ``ms`` (free in the left operand), columns ``ns`` (free in the right one) and
contracted ones ``ks``. Neighbours of one class are one variable where all addresses allow it, if ``join``; dimensions of extent 1 have
none. What is joined depends on all that is fused.
"""

from __future__ import annotations

from collections.abc import Callable

from xlc.ir import index as ix
from xlc.ir.loops import Expr, const, size, substitute, var
from xlc.ir.node import Node
from xlc.ir.types import Size
from xlc.passes.group import Group
from xlc.passes.layout import free_dimensions

from . import inline
from .inline import Inliner, Places
from .reductions import contraction_reads


class Product:
    """``a`` and ``b`` are the operands; ``acc_value`` stands for their contraction (of the dtype of the result) in ``values``, what is
    written at the addresses ``where``, one for each root of the group."""

    def __init__(self, group: Group, dot: Node, buffers: Places, join: bool = True):
        self.group, self.dot, self.buffers = group, dot, buffers
        m_rank, n_rank = map(len, free_dimensions(dot))
        lhs, domain = dot.args[0], group.domain
        ks = tuple(var(f"k{j}") for j in range(len(dot["contract"][0])))
        self.extents: dict[Expr, Size] = {**group.extents, **{k: lhs.shape[c] for k, c in zip(ks, dot["contract"][0], strict=True)}}
        batch = dot.rank - n_rank - m_rank
        inliner = Inliner(group.members, buffers)
        self.acc_value = inliner.fixed[dot] = var("acc", dot.dtype)
        with ix.ranges({v: size(s) for v, s in self.extents.items()}):
            left, right = contraction_reads(dot, domain, ks)
            self.a, self.b = inliner.value(dot.args[0], left), inliner.value(dot.args[1], right)
            self.values = [inliner.value(r, domain) for r in group.roots]
            self.where = [inliner.place(r, domain) for r in group.roots]
        self._drop_units()
        classes = ks, domain[batch:batch + m_rank], domain[batch + m_rank:]
        self.ks, self.ms, self.ns = (self._joined([v for v in vs if self.extents[v] != 1], join) for vs in classes)
        self.batch = [v for v in domain[:batch] if self.extents[v] != 1]

    def everything(self, change: Callable[[Expr], Expr], place: Callable[[Expr], Expr]) -> None:
        """Change all values, and the addresses that are written."""
        self.a, self.b = change(self.a), change(self.b)
        self.values, self.where = [change(v) for v in self.values], [place(w) for w in self.where]

    def _drop_units(self) -> None:
        zero = {v: const(0) for v, s in self.extents.items() if s == 1}
        if zero:
            memo: dict[Expr, Expr] = {}
            self.everything(lambda e: substitute(e, zero, memo), lambda e: substitute(e, zero, memo))

    def _joined(self, vs: list[Expr], join: bool) -> list[Expr]:
        """Neighbouring dimensions of one class as one, where all addresses allow it."""
        j = len(vs) - 2 if join else -1
        while j >= 0:
            o, i = vs[j], vs[j + 1]
            every = [self.a, self.b, *self.values]
            pinned = inline.uses_outside_addresses(every)
            if o not in pinned and i not in pinned and inline.collapsible(
                    [*inline.addresses(every), *self.where], o, i, size(self.extents[i])):
                memo: dict[Expr, Expr] = {}
                self.everything(lambda e, o=o, i=i, memo=memo: inline.collapse(e, o, i, i, memo),  # type: ignore[misc]
                                lambda e, o=o: ix.build({m: c for m, c in ix.polynomial(e).items() if o not in m}))  # type: ignore[misc]
                self.extents[i] = self.extents[o] * self.extents[i]
                del vs[j]
            j -= 1
        return vs


__all__ = ["Product"]
