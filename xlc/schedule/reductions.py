"""What a group with reductions computes, before a schedule says who does it: folds in stages, and what is stored.

    softmax:  stage 0: max(x[r]);  stage 1: sum(exp(x[r] - s0));  stage 2: y[r] = exp(x[r] - s0) / s1

Enters a Group; leaves ``Reductions``: loops over outer and reduced dimensions, the folds, and the roots with their values and addresses as
expressions over the loop variables. A contraction without a schedule of its own is a fold of products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from xlc import config
from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, const, size, substitute, var, walk
from xlc.ir.node import Node
from xlc.ir.op import Monoid, lookup
from xlc.ir.types import f32, f64, product
from xlc.passes.group import Group, reduction_index

from . import inline
from .inline import Inliner, Places, address
from .nest import Dimension


@dataclass(frozen=True)
class Fold:
    """One reduction to run: its state machine, what it reduces, and the stage it belongs to."""

    node: Node
    monoid: Monoid
    value: Expr
    position: Expr
    stage: int

    def states(self) -> tuple[Expr, ...]:
        return self.monoid.init(self.value.dtype)

    def names(self, k: int) -> list[str]:
        return [f"s{k}_{c}" for c in range(len(self.states()))]


@dataclass
class Reductions:
    """``last`` is the dimension along which memory is walked, None where every extent is 1. Dimensions of extent 1 are left out."""

    folds: list[Fold]
    roots: list[tuple[Buffer, Expr, Expr, int, bool]]  # buffer, address, value, stage, whether it varies along the row
    outer: list[Dimension]
    inner: list[Dimension]
    last: Dimension | None

    @classmethod
    def of(cls, group: Group, buffers: Places) -> Self | None:
        """Those of a group; None where there is nothing to compute."""
        if group.anchor is not None:
            lhs, (lc, _) = group.anchor.args[0], group.anchor["contract"]
            reduced = tuple(var(f"r{k}") for k in range(len(lc)))
            extents = {**group.extents, **{r: lhs.shape[c] for r, c in zip(reduced, lc, strict=True)}}
            anchors, outer_vars = [group.anchor], group.domain
        else:
            reduced, extents, anchors, outer_vars = group.reduced, group.extents, group.reductions, group.outer
        with ix.ranges({v: size(s) for v, s in extents.items()}):
            folds, values, where = _fold_values(group, anchors, outer_vars, reduced, extents, buffers)
        order = _axis_order(group, anchors[0], outer_vars, reduced)
        if any(extents[v] == 0 for v in outer_vars):
            return None
        outer = [Dimension(v, extents[v]) for v in outer_vars if extents[v] != 1]
        inner = [Dimension(v, extents[v]) for v in order if v in reduced and extents[v] != 1]
        last = next((Dimension(v, extents[v]) for v in reversed(order) if extents[v] != 1), None)
        roots = [(buffers[r], a, v, _depth(v, folds), _is_full(group, r, reduced))
                 for r, a, v in zip(group.roots, where, values, strict=True)]
        found = cls(folds, roots, outer, inner, last)
        found.substitute({v: const(0) for v in order if extents[v] == 1})
        return found

    @property
    def along(self) -> bool:
        """Whether memory is walked along the row."""
        return self.last is None or any(self.last.var is d.var for d in self.inner)

    def stages(self) -> int:
        return max([f.stage for f in self.folds] + [s for *_, s, full in self.roots if full]) + 1

    def substitute(self, at: dict[Expr, Expr]) -> None:
        """Replace loop variables."""
        if at:
            self.map(lambda e, memo: substitute(e, at, memo))

    def map(self, on_value: Callable[[Expr, dict[Expr, Expr]], Expr], on_address: Callable[[Expr], Expr] | None = None) -> None:
        """Rewrite every value (the dict is a memo), every address and position."""
        memo: dict[Expr, Expr] = {}
        change = on_address or (lambda a: on_value(a, memo))
        self.folds = [Fold(f.node, f.monoid, on_value(f.value, memo), change(f.position), f.stage) for f in self.folds]
        self.roots = [(b, change(a), on_value(v, memo), s, full) for b, a, v, s, full in self.roots]

    def join(self) -> None:
        """Neighbouring reduced dimensions as one, where every address allows it."""
        dims = list(self.inner)
        k = len(dims) - 2 if not config.strict else -1
        while k >= 0:
            o, i = dims[k], dims[k + 1]
            everything = [f.value for f in self.folds] + [v for _, _, v, _, _ in self.roots]
            places = [a for _, a, _, _, full in self.roots if full] + [f.position for f in self.folds]
            pinned = inline.uses_outside_addresses(everything)
            if o.var not in pinned and i.var not in pinned and inline.collapsible(
                    [*inline.addresses(everything), *places], o.var, i.var, size(i.extent)):
                self._collapse(o.var, i.var)
                dims[k:k + 2] = [Dimension(i.var, o.extent * i.extent)]
            k -= 1
        self.inner = dims

    def _collapse(self, outer: Expr, inner: Expr) -> None:
        """One loop instead of two: ``inner`` runs over both."""
        self.map(lambda e, memo: inline.collapse(e, outer, inner, inner, memo),
                 lambda a: ix.build({m: c for m, c in ix.polynomial(a).items() if outer not in m}))

    def keep(self, worth: Callable[[Expr], bool], place: Callable[[Expr], Expr]) -> list[tuple[int, Expr, Expr]]:
        """What a stage computes again though an earlier one has, where it is worth keeping, is loaded from its place by the later ones.
        Returns (first stage, value, load)."""
        by_stage: list[list[Expr]] = [[] for _ in range(self.stages())]
        for f in self.folds:
            by_stage[f.stage].append(f.value)
        for _, _, v, s, full in self.roots:
            if full:
                by_stage[s].append(v)
        replaced: dict[Expr, Expr] = {}
        kept: list[tuple[int, Expr, Expr]] = []
        for stage in range(1, len(by_stage)):
            earlier = {e for s in range(stage) for e in walk(*by_stage[s])}
            stack = list(by_stage[stage])
            while stack:
                e = stack.pop()
                if e in replaced or e.op.kind == "input" and e.op is not LOAD:
                    continue
                if e in earlier and worth(e):
                    first = next(s for s in range(stage) if e in set(walk(*by_stage[s])))
                    replaced[e] = place(e)
                    kept.append((first, e, replaced[e]))
                elif e.op is not LOAD:
                    stack.extend(e.args)
        kept.sort(key=lambda k: -len(walk(k[1])))  # what holds another comes first
        for j, (first, e, loaded) in enumerate(kept):
            only = {e: loaded}
            self.folds = [f if f.stage <= first else replace(f, value=substitute(f.value, only)) for f in self.folds]
            self.roots = [(b, a, v if s <= first else substitute(v, only), s, full) for b, a, v, s, full in self.roots]
            kept[:j] = [(t, v if t <= first else substitute(v, only), x) for t, v, x in kept[:j]]
        return kept


def contraction_reads(dot: Node, index: Sequence[Expr], reduced: Sequence[Expr]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """The indices of both operands of a contraction for a result index (batch, lhs free, rhs free) and the contracted variables."""
    (lc, rc), (lb, rb) = dot["contract"], dot["batch"]
    lhs, rhs = dot.args
    batch, rest = list(index[:len(lb)]), iter(index[len(lb):])

    def place(rank: int, contracted: Sequence[int], batched: Sequence[int]) -> tuple[Expr, ...]:
        known = {**dict(zip(contracted, reduced, strict=True)), **dict(zip(batched, batch, strict=True))}
        return tuple(known[d] if d in known else next(rest) for d in range(rank))

    left = place(lhs.rank, lc, lb)
    return left, place(rhs.rank, rc, rb)


def _is_full(group: Group, root: Node, reduced: Sequence[Expr]) -> bool:
    return any(v in i for i in group.at[root] for v in reduced)


def _axis_order(group: Group, anchor: Node, outer: Sequence[Expr], reduced: Sequence[Expr]) -> list[Expr]:
    """All loop variables, in the order in which memory is walked (the argument's dimensions)."""
    if anchor.op.kind == "contraction":
        (left, right), lhs, rhs = anchor["contract"], *anchor.args
        dots = lhs.rank - 1 in left and (rhs.rank - 1 in right or rhs.shape[-1] == 1)  # both walk memory along the contracted dimension
        return [*outer, *reduced] if dots else [*outer[:-1], *reduced, *outer[-1:]]
    return list(reduction_index(anchor, next(iter(group.at[anchor])), tuple(reduced)))


def _fold_values(group: Group, anchors: Sequence[Node], outer: Sequence[Expr], reduced: Sequence[Expr], extents: dict,
                 buffers: Places) -> tuple[list[Fold], list[Expr], list[Expr]]:
    """Every reduction as a Fold (in an order in which they can run), and the values and addresses of the roots."""
    inliner = Inliner(group.members, buffers)
    position = address([extents[v] for v in reduced], reduced)
    folds: list[Fold] = []
    for n in _dependency_order(anchors):
        if n.op.kind == "contraction":
            left, right = contraction_reads(n, outer, reduced)
            wide = f32 if n.dtype.is_float and n.dtype.bits == 16 else n.dtype
            a, b = inliner.value(n.args[0], left), inliner.value(n.args[1], right)
            if wide is not n.dtype:
                a, b = lookup("cast")(a, dtype=wide), lookup("cast")(b, dtype=wide)
            product_, monoid = (lookup("bitwise_and")(a, b), lookup("any").monoid) if n.dtype.kind == "b" else (a * b, lookup("sum").monoid)
            fold = Fold(n, monoid, product_, position, 0)  # type: ignore[arg-type]
        else:
            value = inliner.value(n.args[0], reduction_index(n, next(iter(group.at[n])), tuple(reduced)))
            fold = Fold(n, n.op.monoid, value, position, _depth(value, folds))  # type: ignore[arg-type]
        k = len(folds)
        state = tuple(var(name, s.dtype) for name, s in zip(fold.names(k), fold.states(), strict=True))
        result = fold.monoid.result(state)
        inliner.fixed[n] = result if result.dtype is n.dtype else lookup("cast")(result, dtype=n.dtype)
        folds.append(fold)
    values, where = [], []
    for r in group.roots:
        at = next(iter(group.at[r]))
        values.append(inliner.value(r, at))
        where.append(inliner.place(r, at))
    return folds, values, where


def _dependency_order(anchors: Sequence[Node]) -> list[Node]:
    """Reductions whose arguments need other reductions come after these. (Members were added from the results upwards.)"""
    return list(reversed(anchors))


def _depth(e: Expr, folds: Sequence[Fold]) -> int:
    """The first stage in which an expression can be evaluated: one after the last reduction that it reads."""
    names = {name: f.stage + 1 for k, f in enumerate(folds) for name in f.names(k)}
    return max((names.get(name, 0) for name in e.free), default=0)


def lifted(f: Fold, value: Expr, position: Expr, like: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The state of one element, in the dtypes of the states that it is merged with."""
    lifted = f.monoid.lift(value, position)
    return tuple(e if e.dtype is s.dtype else lookup("cast")(e, dtype=s.dtype) for e, s in zip(lifted, like, strict=True))


def is_float_sum(f: Fold) -> bool:
    return f.node.op.name in ("sum", "dot") and f.states()[0].dtype in (f32, f64)


def is_long(dims: Sequence[Dimension], limit: int) -> bool:
    total = product(d.extent for d in dims)
    return not isinstance(total, int) or total > limit


__all__ = ["Fold", "Reductions", "contraction_reads", "is_float_sum", "is_long", "lifted"]
