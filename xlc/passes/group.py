"""What fusion makes: groups of nodes that are computed together, in an order in which they can run.

    group 0 reduction: exp f32[4,10], sum f32[4], broadcast f32[4,10], divide f32[4,10]        at: exp (i0, i1), sum (i0), ...

A group has a *domain* (loop variables with extents); ``at`` says at which indices of the domain each member is needed. ``reads`` says where
a node reads its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlc.ir.index import ranges
from xlc.ir.loops import Expr, size, var
from xlc.ir.node import Node
from xlc.ir.types import Size

Index = tuple[Expr, ...]


@dataclass(eq=False)
class Group:
    """Nodes of one loop nest. ``roots`` are written to memory; ``reduced`` are the loop variables of the reductions among the members."""

    number: int
    domain: Index
    extents: dict[Expr, Size]
    roots: list[Node] = field(default_factory=list)
    at: dict[Node, set[Index]] = field(default_factory=dict)
    reductions: list[Node] = field(default_factory=list)
    reduced: Index = ()
    anchor: Node | None = None
    operands: set[Node] = field(default_factory=set)  # views between memory and the anchor
    why: dict[Node, str] = field(default_factory=dict)  # for people: why a producer was not fused
    reach: int = 0  # bit set of the groups that depend on this one
    tiling: Tiling | None = None

    @property
    def members(self) -> list[Node]:
        return list(self.at)

    @property
    def stages(self) -> tuple[Group, ...]:
        """What the kernel computes, one after another."""
        return (*self.tiling.before, self) if self.tiling else (self,)

    @property
    def results(self) -> list[Node]:
        """What the kernel writes to memory."""
        return [*self.roots, *(self.tiling.beside if self.tiling else ())]

    @property
    def computed(self) -> list[Node]:
        """The members of all stages, the last ones first."""
        return [n for g in reversed(self.stages) for n in g.at]

    @property
    def kind(self) -> str:
        return self.anchor.op.kind if self.anchor is not None else "reduction" if self.reductions else "map"

    @property
    def outer(self) -> Index:
        return tuple(v for v in self.domain if v not in self.reduced)


@dataclass(frozen=True)
class Tiling:
    """Groups that are computed in front of another, in its loop nest, a block of rows at a time (see the pass ``tile``). All run over the
    first ``shared`` variables of its domain; a block is ``rows`` positions of the last of these. What lies between the stages is on the
    stack, or where ``chunk`` is not 0, in the arena, for each so many blocks one after another. Reductions of rows that are read elsewhere
    lie ``beside`` the group's roots."""

    before: tuple[Group, ...]
    shared: int
    rows: int
    chunk: int = 0
    beside: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Partition:
    """Groups in an order in which they can run."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()

    def dag(self) -> Any:
        """Groups, by number, and who needs whose results: a networkx.DiGraph."""
        import networkx as nx  # slow to import, and needed by checks and drawings alone

        home = {r: g.number for g in self.groups for r in g.results}
        found = nx.DiGraph()
        found.add_nodes_from(g.number for g in self.groups)
        found.add_edges_from((home[a], g.number) for g in self.groups for s in g.stages for n in s.at for a in n.operands
                             if a not in s.at and a in home)
        return found

    def __str__(self) -> str:
        lines = []
        for g in self.groups:
            lines.append(f"group {g.number} {g.kind}: {', '.join(f'{n.op.name} {n.type}' for n in reversed(g.computed))}")
            if g.tiling:
                lines.append(f"  {len(g.stages)} stages, {g.tiling.rows} rows at a time; on the way: "
                             + ", ".join(f"{r.op.name} {r.type}" for s in g.tiling.before for r in s.roots))
            lines += [f"  not fused: {n.op.name} {n.type}: {why}" for s in g.stages for n, why in s.why.items()]
        return "\n".join(lines)

    __repr__ = __str__


def is_free(n: Node) -> bool:
    """Made from nothing: never stored for a consumer's sake."""
    return n.op.name in ("full", "iota")


def in_memory(n: Node) -> bool:
    return n.op.name in ("parameter", "constant")


def is_anchor(n: Node) -> bool:
    return n.op.pull is None and n.op.kind not in ("reduction", "elementwise") and not in_memory(n)


def comes_later(n: Node) -> bool:
    """Whether it is a barrier: what is computed from it comes after what it holds, and so not together with what it reads."""
    return len(n.operands) < len(n.args)


def reads(node: Node, index: Index, reduced: Index = ()) -> list[tuple[Node, Index]]:
    """Which elements of its arguments a node reads for its element at ``index``."""
    if node.op.kind == "elementwise":
        return [(a, index) for a in node.args]
    if node.op.kind == "reduction":
        return [(node.args[0], reduction_index(node, index, reduced))]
    found: list[tuple[Node, Index]] = []

    def read(k: int, at: Index, where: Expr | None = None) -> Expr:
        arg = node.args[k]
        found.append((arg, tuple(at)))
        return var(f"?{k}_" + "_".join(map(repr, at)), arg.dtype)

    if node.op.pull is not None:
        node.op.pull(node, index, read)
    return found


def reduction_index(node: Node, index: Index, reduced: Index) -> Index:
    """Where a reduction reads its argument: ``reduced`` variables on its axes, ``index`` on the others."""
    axes, kept, r = node["axes"], iter(index), iter(reduced)
    return tuple(next(r) if d in axes else next(kept) for d in range(node.args[0].rank))


def needed_at(n: Node, g: Group, uses: Mapping[Node, Sequence[Node]]) -> set[Index]:
    """The indices at which the members of g, but for its anchor, read n."""
    found: set[Index] = set()
    with ranges({v: size(s) for v, s in g.extents.items()}):
        for c in uses[n]:
            if c in g.at and not is_anchor(c):
                for i in g.at[c]:
                    found |= {at for a, at in reads(c, i, g.reduced) if a is n}
    return found
