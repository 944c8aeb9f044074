"""A contraction of what is elementwise in other contractions: out[i, c] = sum_j f(dot1[i, j], dot2[i, j], ..., i, j) * b[j, c].

    s = dot(q, k);  d = dot(g, v);  y = dot(exp(s - m) / l * (d - r), k)         f over ACC0 = s, ACC1 = d:  exp(ACC0 - m[i]) / l[i] * ...

Enters a group with stages (see ``passes.tile``): contractions with their epilogues, and the contraction that reads the last of these on
the left. Leaves what a schedule needs to go through j in blocks, with a block of the inner contractions and of f at a time. Which operators
f is made of does not matter. The passes make such groups where what lies between is computed again for this kernel (``passes.recompute``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Expr, const, load, size, var, walk
from xlc.ir.node import Node
from xlc.ir.types import f32
from xlc.passes.group import Group
from xlc.passes.recompute import is_again

from .inline import Inliner, Places, flat
from .nest import Dimension
from .online import LOG2_E, exponential, factored, together, widened
from .product import Product
from .reductions import contraction_reads
from .window import EXPONENTIAL, bounds, compared, comparisons, vanishing


@dataclass(frozen=True)
class Inner:
    """An inner contraction: ``a`` over batch, rows and depth, ``b`` over batch, keys and depth; ``acc`` stands for its result, in f32."""

    acc: Expr
    a: Expr
    b: Expr
    depth: tuple[Dimension, ...]


@dataclass(frozen=True)
class Chain:
    """``value`` is f in f32, over the accumulators of ``inner`` and the variables of batch, rows and keys (which are contracted)."""

    product: Product
    inner: tuple[Inner, ...]
    value: Expr
    batch: tuple[Dimension, ...]
    rows: tuple[Dimension, ...]
    keys: tuple[Dimension, ...]
    columns: tuple[Dimension, ...]

    def window(self, first: Expr, count: int) -> tuple[Expr | None, Expr | None]:
        """Bounds of the keys, from and below which f may be anything but 0 in ``count`` rows from ``first`` on."""
        return bounds(vanishing(self.value, *self._place()), first, count)

    def inside(self, first: Expr, count: int) -> tuple[Expr | None, Expr | None]:
        """Bounds of the keys, from and below which f is what ``compared`` says in all of these rows."""
        return bounds(comparisons(self.value, *self._place()), first, count, all_of_them=True)

    @property
    def compared(self) -> Expr:
        """f without the comparisons from which the bounds follow."""
        return compared(self.value, *self._place())

    def _place(self) -> tuple[Expr, Expr]:
        """The row and the key, where these are one variable each (else some that do not occur)."""
        one = len(self.rows) == 1 and len(self.keys) == 1
        return (self.rows[0].var, self.keys[0].var) if one else (var("row"), var("key"))

    def quick(self, rounded: bool) -> Chain:
        """The same with cheaper operators: a division by what is made of no accumulator multiplies with its inverse, and where f is
        ``rounded`` to a half, its exponentials are one of a few instructions."""
        names, changed = {i.acc["name"] for i in self.inner}, dict[Expr, Expr]()
        for e in walk(self.value):
            args = [changed[a] for a in e.args]
            if e.op.name == "divide" and e.dtype is f32 and not e.args[1].free & names:
                changed[e] = args[0] * (1.0 / args[1])
            elif rounded and e.op.name == EXPONENTIAL and e.dtype is f32:
                x, shift = args[0].args if args[0].op.name == "subtract" else (args[0], const(0.0, f32))
                x, factor = factored(x)
                changed[e] = exponential(x, shift * LOG2_E, factor)
            else:
                changed[e] = e if e.op.kind == "input" or args == list(e.args) else e.op(*args, **dict(e.attrs))
        return replace(self, value=changed[self.value])


def is_chain(stages: Sequence[Group]) -> bool:
    return all(s.kind == "contraction" for s in stages)


def recognised(stages: Sequence[Group], shared: int, places: Places, narrow: int) -> Chain | str:
    """The parts of stages that have their first ``shared`` dimensions in common, or why they are not computed so; ``narrow`` as for an
    online softmax."""
    *before, group = stages
    dots, last = [s.anchor for s in before if s.anchor is not None], group.anchor
    assert last is not None
    if not is_again(last):
        return "this machine computes stages in one kernel only where they are a contraction, a softmax and a contraction, or come again"
    if any(d.rank != shared + 1 for d in dots) or len(last["contract"][0]) != 1:
        return "its rows have several dimensions"
    if not all(n.dtype.is_float and n.dtype.bits <= 32 for n in (*dots, last)):
        return "its contractions are not in f32 or less"
    own = Places({**places, **{r: flat(r, f"between{k}") for k, s in enumerate(before) for r in s.roots}})
    product = Product(group, last, own, join=False)
    dims = [*(Dimension(v, product.extents[v]) for v in (*product.batch, *product.ms))]
    front = [v if product.extents[v] != 1 else const(0) for v in group.domain[:shared]]
    keys = tuple(Dimension(v, product.extents[v]) for v in product.ks)
    at = (*front, keys[0].var if keys else const(0))
    members = {n for s in before for n in s.at}
    inner = []
    with ix.ranges({d.var: size(d.extent) for d in (*dims, *keys)}):
        for k, d in enumerate(dots):
            inner.append(_inner(k, d, at, Inliner(members, own)))
        value = _value(before[-1], dots, members, at, own, last.args[0])
    if isinstance(value, str):
        return value
    cut = len(dims) - together(dims, (*(i.b for i in inner), product.b), narrow)
    return Chain(product, tuple(inner), value, tuple(dims[:cut]), tuple(dims[cut:]), keys,
                 tuple(Dimension(v, product.extents[v]) for v in product.ns))


def _inner(k: int, dot: Node, at: tuple[Expr, ...], inner: Inliner) -> Inner:
    depth = [Dimension(var(f"d{k}_{j}"), dot.args[0].shape[c]) for j, c in enumerate(dot["contract"][0])]
    with ix.ranges({d.var: size(d.extent) for d in depth}):
        left, right = contraction_reads(dot, at, [d.var if d.extent != 1 else const(0) for d in depth])
        a, b = inner.value(dot.args[0], left), inner.value(dot.args[1], right)
    return Inner(var(f"acc{k}", f32), a, b, tuple(d for d in depth if d.extent != 1))


def _value(stage: Group, dots: Sequence[Node], members: set[Node], at: tuple[Expr, ...], places: Places, root: Node) -> Expr | str:
    """f in f32, over the accumulators."""
    results = {d: flat(d, f"inner{k}") for k, d in enumerate(dots)}
    f = Inliner(members - set(dots), Places({**places, **results})).value(root, at)
    known = {load(b, (places.address(d, at),)): var(f"acc{k}", f32) for k, (d, b) in enumerate(results.items())}
    f = widened(f, dict(known))
    if any(n.op is LOAD and n["buffer"] in results.values() for n in walk(f)):
        return "an inner contraction is read at other positions"
    return f


__all__ = ["Chain", "Inner", "is_chain", "recognised"]
