"""What lies between contractions, in f32, made once more from what lies in memory.

    %s = dot(%q, %k); %p = exp(%s - %m) / %l     turned ->     %s = dot(%k, %q); %p = exp(%s - %m) / %l, %m and %l along the columns

A ``Family`` is what the pass ``recompute`` finds: inner contractions, everything elementwise that is made of them, reductions of its rows,
and the outer contractions that read it. A ``Builder`` makes it again, straight or with the last two dimensions exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from xlc.ir.node import Graph, Node, full, make
from xlc.ir.op import lookup
from xlc.ir.types import Size, Type, f32

from .group import comes_later, is_free
from .layout import free_dimensions


@dataclass(frozen=True)
class Outer:
    """A contraction that reads something wide, as operand ``side``; ``turned``: it sums over its rows."""

    dot: Node
    side: int
    turned: bool

    @property
    def wide(self) -> Node:
        return self.dot.args[self.side]

    @property
    def other(self) -> Node:
        return self.dot.args[1 - self.side]


@dataclass(eq=False)
class Family:
    """Inner contractions, everything elementwise that is made of them, and who reads it. ``why``: the reason to store it."""

    inner: list[Node] = field(default_factory=list)
    between: dict[Node, None] = field(default_factory=dict)
    outer: list[Outer] = field(default_factory=list)
    rows: list[Node] = field(default_factory=list)
    forward: Outer | None = None  # the one that is computed together with the reductions of rows
    why: str | None = None

    @property
    def shown(self) -> str:
        return f"{self.inner[0].op.name} {self.inner[0].type}"


def base(n: Node) -> Node:
    """What lies in memory, in front of views."""
    while n.op.kind == "view" and len(n.operands) == 1:
        n = n.args[0]
    return n


def widened(x: Node) -> Node:
    """A half in f32."""
    if not x.dtype.is_float or x.dtype.bits > 16:
        return x
    return full(Type(f32, x.shape), x["value"]) if x.op.name == "full" else lookup("cast")(x, dtype=f32)


def cast_like(x: Node, like: Node) -> Node:
    return x if x.dtype is like.dtype else lookup("cast")(x, dtype=like.dtype)


class Builder:
    """What lies between, in f32. ``leaf`` gives what stands for something in memory, ``row`` for a reduction of rows."""

    def __init__(self, family: Family, leaf: Callable[[Node], Node], row: Callable[[Node], Node] | None = None):
        self.family, self.leaf = family, leaf
        self.row = row or self.reduced
        self.memo: dict[tuple[Node, bool], Node] = {}
        self.rows: dict[Node, Node] = {}

    def value(self, node: Node, turned: bool) -> Node:
        """``turned``: with its last two dimensions exchanged."""
        stack = [(node, False)]
        while stack:
            n, ready = stack.pop()
            if (n, turned) in self.memo:
                continue
            parts = self.parts(n)
            if ready or not parts:
                self.memo[(n, turned)] = self.made(n, [self.memo[(a, turned)] for a in parts], turned)
            else:
                stack.append((n, True))
                stack.extend((a, False) for a in parts)
        return self.memo[(node, turned)]

    def parts(self, n: Node) -> tuple[Node, ...]:
        """The arguments of which n is made again, at the same position."""
        return n.operands if n.op.kind == "elementwise" or n in self.family.between and comes_later(n) else ()

    def made(self, n: Node, args: Sequence[Node], turned: bool) -> Node:
        """n of its arguments, straight or turned; what is made of inner contractions is in f32, what else is as it was."""
        if n in self.family.between:
            return self.between(n, args, turned)
        shape = _exchanged(n.shape) if turned else n.shape
        if n.op.kind == "elementwise":
            return n.op(*map(cast_like, args, n.operands), **n.attributes)
        if n.op.name == "full":
            return full(Type(n.dtype, shape), n["value"])
        if n.op.name == "iota":
            return n.op(**{**n.attributes, "shape": shape, "axis": _exchange(n["axis"], n.rank) if turned else n["axis"]})
        if n.op.name == "broadcast" and (made := _generated(n.args[0], n.shape, n["axes"])) is not None:
            return self.value(made, turned)
        if n.op.name == "broadcast" and not (turned and {n.rank - 1, n.rank - 2} <= set(n["axes"])):
            axes = tuple(_exchange(a, n.rank) for a in n["axes"]) if turned else n["axes"]
            return n.op(self.read(n.args[0]), shape=shape, axes=axes)
        there = self.read(n)
        return lookup("transpose")(there, axes=_exchanged(tuple(range(n.rank)))) if turned else there

    def between(self, n: Node, args: Sequence[Node], turned: bool) -> Node:
        if n.op.kind == "contraction":
            (a, b), (lc, rc), (lb, rb) = (widened(self.read(a)) for a in n.args), n["contract"], n["batch"]
            return n.op(b, a, contract=(rc, lc), batch=(rb, lb)) if turned else n.op(a, b, contract=(lc, rc), batch=(lb, rb))
        wide = list(map(widened, args))
        if n.op.kind == "view" or n.op.name == "cast" and n.dtype.is_float:  # a barrier, a rounding
            return wide[0]
        return widened(n.op(*wide, **n.attributes))

    def read(self, n: Node) -> Node:
        """What lies in memory, or a reduction of rows, through the views in front of it."""
        views = []
        while n.op.kind == "view" and len(n.operands) == 1:
            views += [n] * (not comes_later(n))
            n = n.args[0]
        found = n if is_free(n) else self.row(n) if n in self.family.rows else self.leaf(n)
        for v in reversed(views):
            found = make(v.op, (found,), Type(found.dtype, v.shape), v.attrs, v.loc)
        return found

    # -- reductions and contractions --------------------------------------------------------------

    def reduced(self, r: Node) -> Node:
        """The reduction of rows, in f32."""
        if r not in self.rows:
            linear = self.linear(r)
            if linear is None:
                self.rows[r] = r.op(self.value(r.args[0], False), **r.attributes)
            else:
                left, product = linear
                self.rows[r] = r.op(lookup("multiply")(left, widened(product)), axes=(product.rank - 1,))
        return self.rows[r]

    def linear(self, r: Node) -> tuple[Node, Node] | None:
        """(the left operand of an inner contraction, the contraction of the rest with its right operand) where r sums a product with it."""
        if r.op.name != "sum":
            return None
        summed = self.value(r.args[0], False)
        inner = {self.memo[(d, False)]: d for d in self.family.inner if (d, False) in self.memo}
        found = _peeled(summed, inner)
        if found is None:
            return None
        dot, factor = found
        (lc, _), (lb, rb) = dot["contract"], dot["batch"]
        (free,), (along,) = free_dimensions(dot)
        right = self.read(inner[dot].args[1])
        batch = tuple(range(len(lb)))
        product = dot.op(cast_like(factor, right), right, contract=((r.args[0].rank - 1,), (along,)), batch=(batch, rb))
        left, axes = dot.args[0], (*lb, free, *lc)
        return left if axes == tuple(range(left.rank)) else lookup("transpose")(left, axes=axes), product

    def outer(self, o: Outer, other: Node) -> Node:
        """The outer contraction, of what is computed again as its left operand, which it sums along its rows."""
        rank, batch, rest = o.wide.rank, o.dot["batch"][0], 1 - o.side
        left = cast_like(self.value(o.wide, o.turned), o.wide)
        found = o.dot.op(left, other, contract=((rank - 1,), o.dot["contract"][rest]), batch=(tuple(range(rank - 2)), o.dot["batch"][rest]))
        if o.side == 0:
            return found
        count = len(batch)
        return lookup("transpose")(found, axes=(*range(count), *range(count + 1, found.rank), count))


def _generated(x: Node, shape: tuple[Size, ...], axes: tuple[int, ...]) -> Node | None:
    """A broadcast of what is made of nothing, made at that shape."""
    made: dict[Node, Node | None] = {}
    for n in Graph((), (x,)).nodes() if x.op.kind in ("elementwise", "create") else ():
        args = [made[a] for a in n.args]
        if n.op.name == "iota":
            made[n] = n.op(**{**n.attributes, "shape": shape, "axis": axes[n["axis"]]})
        elif n.op.name == "full":
            made[n] = full(Type(n.dtype, shape), n["value"])
        else:
            made[n] = None if n.op.kind != "elementwise" or None in args else n.op(*args, **n.attributes)
    return made.get(x)


def _exchange(d: int, rank: int) -> int:
    return {rank - 1: rank - 2, rank - 2: rank - 1}.get(d, d)


def _exchanged(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    return (*shape[:-2], shape[-1], shape[-2])


def _peeled(e: Node, inner: Collection[Node], factor: Node | None = None) -> tuple[Node, Node] | None:
    """(the inner contraction in which e is linear, what it is multiplied by). Factors are applied from the outside in, so in the order that
    they have where e is the transpose of the function that was differentiated."""
    if e in inner:
        return None if factor is None else (e, factor)
    name, args, multiply = e.op.name, e.args, lookup("multiply")
    one = full(e.type, 1.0) if factor is None else factor
    if name == "multiply":
        steps = [(a, b if factor is None else multiply(factor, b)) for a, b in dict.fromkeys((args, args[::-1]))]
    elif name == "divide":
        steps = [(args[0], e.op(one, args[1]))]
    elif name == "negative":
        steps = [(args[0], e.op(one))]
    elif name == "where" and args[2].op.name == "full" and float(args[2]["value"]) == 0:
        steps = [(args[1], e.op(args[0], one, args[2]))]
    else:
        return None
    return next((found for a, times in steps if (found := _peeled(a, inner, times)) is not None), None)


__all__ = ["Builder", "Family", "Outer", "base", "cast_like"]
