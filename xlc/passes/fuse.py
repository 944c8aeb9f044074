"""Fusion: which nodes are computed together, in one loop nest, and which are written to memory.

    %0 = exp(%x)                 groups: [%0 %1 %2 %3] -> one kernel, writes %3 only
    %1 = sum(%0) {axes=(1,)}
    %2 = broadcast(%1)
    %3 = divide(%0, %2)

Enters a Graph without composites; leaves a ``Partition``: groups in an order in which they can run. The walk goes from the results to the
parameters. A group has a *domain* (loop variables with extents); ``at`` says at which indices of the domain each member is needed. A
producer joins the group of its consumers when all of them are in that one group and no work is repeated: needed at one index, which
varies with the outer loops. Producers are copied into several groups where that costs less than to store and load them; others become one
more output of a consumer's group where no cycle can arise, or the root of a new group. A reduction joins when it is needed at the outer
variables only (so a row is reduced where it is used), or a group of reductions over the same elements; a contraction joins the group of
what follows it (its epilogue) when it is needed at the domain's own variables.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

from xlc.errors import XlcError
from xlc.ir.loops import var
from xlc.ir.node import Graph, Node, call_of
from xlc.ir.types import f32, product

from .cost import costs
from .group import Group, Index, Partition, comes_later, in_memory, is_anchor, is_free, needed_at

CHEAP = 3  # scalar operations that may be repeated for the same element
AGAIN = 8  # scalar operations that cost less in one more kernel than to store and load their result
SIBLINGS = 8  # reductions in one pass over the same elements
MAX_MEMBERS = 160


@dataclass(frozen=True)
class FusionOptions:
    elementwise: bool = True
    reductions: bool = True
    contractions: bool = True
    rows: bool = True  # a reduction together with consumers that need the whole row again (softmax)
    tiles: bool = True  # what a contraction reads, another contraction itself, a block of rows at a time (attention)
    halves: bool = False  # a contraction reads f16 and bf16 that are widened for it as they are (its kernel widens, or has no need to)
    strict: bool = False  # every reduction adds in the order that it has on its own


class _Fuser:
    def __init__(self, graph: Graph, options: FusionOptions):
        self.graph, self.options = graph, options
        self.nodes = graph.nodes()
        self.uses = {n: [c for c in users if n in c.operands] for n, users in graph.uses().items()}
        self.results = set(graph.results)
        self.cost = costs(self.nodes, self.uses, self.results)
        self.groups: list[Group] = []
        self.of: dict[Node, list[Group]] = {}  # the groups that compute a node
        self.home: dict[Node, Group] = {}  # the group that writes it
        self.calls: dict[Any, Group] = {}  # the group of a call that has several results
        self.sums: dict[Any, list[Group]] = {}  # those with reductions and nothing longer, by what they go over
        self.notes: list[str] = []

    # -- groups ---------------------------------------------------------------------------------

    def start(self, n: Node) -> Group:
        number = len(self.groups)
        domain = tuple(var(f"i{d}") for d in range(n.rank))
        g = Group(number, domain, dict(zip(domain, n.shape, strict=True)))
        self.groups.append(g)
        g.roots.append(n)
        self.home[n] = g
        self.place(n, g, {domain})
        return g

    def place(self, n: Node, g: Group, at: set[Index]) -> None:
        g.at[n] = at
        self.of.setdefault(n, []).append(g)
        if n.op.kind == "reduction":
            self.open_reduction(n, g, next(iter(at)))
        elif is_anchor(n):
            g.anchor = n
        elif any(c in g.at and (is_anchor(c) or c in g.operands) for c in self.uses[n]):
            g.operands.add(n)

    def write(self, n: Node, g: Group, at: set[Index], readers: list[Group]) -> None:
        """n becomes one more result of a group."""
        self.place(n, g, at)
        g.roots.append(n)
        self.home[n] = g
        for h in readers:
            self.connect(g, h)

    def connect(self, g: Group, h: Group) -> None:
        """h depends on g (or may): everything that reaches g now reaches what h reaches."""
        new = (1 << h.number) | h.reach
        if new & ~g.reach:
            for q in self.groups:
                if q is g or q.reach >> g.number & 1:
                    q.reach |= new

    def open_reduction(self, n: Node, g: Group, index: Index) -> None:
        g.reductions.append(n)
        if g.reduced:
            return
        axes, shape = n["axes"], n.args[0].shape
        free = [v for v in g.domain if v not in index]
        sizes = [shape[a] for a in axes]
        if free and [g.extents[v] for v in free] == sizes:
            g.reduced = tuple(free)
        else:
            g.reduced = tuple(var(f"r{k}") for k in range(len(axes)))
            g.extents.update(zip(g.reduced, sizes, strict=True))
            self.sums.setdefault((axes, shape), []).append(g)

    # -- decisions ------------------------------------------------------------------------------

    def needed_at(self, n: Node, g: Group) -> set[Index]:
        return needed_at(n, g, self.uses)

    def covers(self, n: Node, g: Group, index: Index) -> bool:
        """Whether g runs over exactly the elements of n at this index: a consumer such as concat or pad has more, and reads n for some of
        them only."""
        return [g.extents.get(v) for v in index] == list(n.shape)

    def refusal(self, n: Node, g: Group, at: set[Index]) -> str | None:
        """Why n cannot be computed inside g, or None."""
        if n.op.name == "copy":
            return "it is rearranged in memory first, for the kernel that reads it"
        if (n.op.kind == "reduction" or is_anchor(n)) and any(c in g.at and comes_later(c) for c in self.uses[n]):
            return "a barrier stands between it and its consumer"
        operand = [c for c in self.uses[n] if c in g.at and (is_anchor(c) or c in g.operands)]
        if operand:
            contracts = g.anchor is not None and g.anchor.op.kind == "contraction"
            through = n.op.kind == "view" and len(n.operands) == 1 or self.options.halves and _widens(n)
            if through and not at and contracts:
                return None
            return "control flow works on what lies in memory" if g.kind == "control" else \
                "an operand of a contraction, sort or scatter is read many times"
        if len(g.at) >= MAX_MEMBERS:
            return "the kernel would grow too large"
        if n.op.kind == "reduction":
            return self.refuse_reduction(n, g, at)
        if is_anchor(n):
            if not self.options.contractions or n.op.kind != "contraction":
                return f"{n.op.name} has a loop nest of its own"
            if g.anchor is not None or g.reductions:
                return "the consumer already has a contraction or a reduction"
            return None if at == {g.domain} and self.covers(n, g, g.domain) else "its consumer reads it at other positions"
        if not self.options.elementwise and n.op.kind == "elementwise":
            return "fusion of elementwise operators is switched off"
        if self.cost[n].work > CHEAP and n.op.kind != "view":  # a view costs nothing: its producer is asked next
            if len(at) > 1:
                return f"{len(at)} different positions of it are needed"
            if self.repeats(g, next(iter(at), ())):
                return "every iteration of an outer loop would compute it again"
        return None

    def repeats(self, g: Group, index: Index) -> bool:
        """Whether computing at this index repeats work: an outer loop runs over positions that do not change it."""
        used = frozenset().union(*(i.free for i in index))
        innermost_used = max((k for k, v in enumerate(g.domain) if v["name"] in used), default=-1)
        return any(v["name"] not in used and g.extents[v] != 1 for v in g.domain[:innermost_used])

    def is_copied(self, n: Node, groups: int) -> bool:
        """Whether so many kernels had better each compute n than load it from the one that does: k kernels load what it is made of, s
        large values, instead of one that loads these and stores n (which takes as long as to load it one and a half times), and k - 1
        that load it."""
        cost = self.cost[n]
        return self.options.elementwise and cost.work <= AGAIN and (groups - 1) * (len(cost.reads) - 1) < 1.5

    def sibling(self, n: Node, groups: list[Group]) -> Group | None:
        """A group of reductions that goes over the elements that the reduction n goes over, and reads some that n reads: n becomes one more
        result of it. ``groups`` read n, so the group may not depend on them."""
        if n.op.kind != "reduction" or not self.options.reductions:
            return None
        mine = set(self.cost[n.args[0]].reads)
        return next((g for g in self.sums.get((n["axes"], n.args[0].shape), ())
                     if g not in groups and g.anchor is None and len(g.reductions) < SIBLINGS and len(g.at) < MAX_MEMBERS
                     and any(not mine.isdisjoint(self.cost[r.args[0]].reads) for r in g.reductions)
                     and not any(h.reach >> g.number & 1 for h in groups)), None)

    def refuse_reduction(self, n: Node, g: Group, at: set[Index]) -> str | None:
        if not self.options.reductions:
            return "fusion of reductions is switched off"
        if g.anchor is not None:
            return "the consumer has a contraction"
        if len(at) != 1:
            return "its result is needed at several positions"
        index = next(iter(at))
        if all(i in g.domain for i in index) and not self.covers(n, g, index):
            return "its consumer needs it in a part of the iterations only"
        axes, shape = n["axes"], n.args[0].shape
        sizes = [shape[a] for a in axes]
        if g.reductions:
            if index != g.outer or [g.extents[v] for v in g.reduced] != sizes:
                return "it reduces over other axes than the reduction it would join"
            if self.options.strict and (g.reductions[0]["axes"], g.reductions[0].args[0].shape) != (axes, shape):
                return "it would add in another order (strict)"
        elif any(i not in g.domain for i in index) or len(set(index)) != len(index):
            return "its result is needed at computed positions"
        else:
            free = [v for v in g.domain if v not in index]
            if free and ([g.extents[v] for v in free] != sizes or tuple(v for v in g.domain if v in index) != index):
                return "its consumer runs over other dimensions"
        if not self.options.rows and any(v not in index for v in g.domain):
            return "keeping rows is switched off"
        rows, row = product(g.extents[v] for v in g.domain if v in index), product(sizes)
        if isinstance(rows, int) and rows < 8 and not (isinstance(row, int) and row * rows <= 1 << 14) \
                and any(v not in index for v in g.domain):
            return "there are too few rows to share out between threads"
        return None

    # -- the walk -------------------------------------------------------------------------------

    def run(self) -> Partition:
        for n in reversed(self.nodes):
            if in_memory(n) and n not in self.results:
                continue
            groups = list(dict.fromkeys(g for c in self.uses[n] for g in self.of.get(c, ())))
            if in_memory(n) or not (groups or n in self.results):  # nobody reads what only has to come first
                continue
            if is_free(n) and n not in self.results:
                for g in groups:
                    self.place(n, g, self.needed_at(n, g))
                continue
            self.decide(n, groups)
        return Partition(self.ordered(), tuple(self.notes))

    def decide(self, n: Node, groups: list[Group]) -> None:
        needs = {g: self.needed_at(n, g) for g in groups}
        refused = {g: why for g in groups if (why := self.refusal(n, g, needs[g]))}
        for g, why in refused.items():
            g.why[n] = why
        willing = [g for g in groups if g not in refused]
        stored = n in self.results or bool(refused) or not groups
        copies = not is_anchor(n) and n.op.kind != "reduction" and (n.op.kind == "view" or self.is_copied(n, len(groups)))
        if not stored and (len(willing) == 1 or copies):
            for g in willing:
                self.place(n, g, needs[g])
            return
        # One group computes and writes it, the others load it and so depend on that group.
        for g in willing:
            others = [h for h in groups if h is not g]
            own = needs[g] == {g.domain} or (needs[g] == {g.outer} and bool(g.reductions)) or n.op.kind == "reduction"
            if own and self.covers(n, g,
                                   next(iter(needs[g]))) and self.options.elementwise and not any(h.reach >> g.number & 1 for h in others):
                self.write(n, g, needs[g], others)
                return
        call = call_of(n) if n.op.results is not None else None
        sibling = self.sibling(n, groups)
        if call in self.calls:  # another result of a call that has a group
            self.write(n, self.calls[call], set(), groups)
        elif sibling is not None:
            self.write(n, sibling, set(sibling.at[sibling.reductions[0]]), groups)
        else:
            own_group = self.start(n)
            if call is not None:
                self.calls[call] = own_group
            for h in groups:
                self.connect(own_group, h)

    def ordered(self) -> tuple[Group, ...]:
        """The groups in an order in which they can run: of those that are ready, the one whose first root the program computes first."""
        position = {n: k for k, n in enumerate(self.nodes)}
        first = [min(position[r] for r in g.roots) for g in self.groups]
        after: list[set[int]] = [set() for _ in self.groups]
        waiting = [0] * len(self.groups)
        for g in self.groups:
            sources = {self.home[a].number for n in g.at for a in n.operands if a not in g.at and a in self.home}
            waiting[g.number] = len(sources)
            for s in sources:
                after[s].add(g.number)
        ready = [(first[k], k) for k, count in enumerate(waiting) if not count]
        heapq.heapify(ready)
        order: list[Group] = []
        while ready:
            _, k = heapq.heappop(ready)
            order.append(self.groups[k])
            for h in after[k]:
                waiting[h] -= 1
                if not waiting[h]:
                    heapq.heappush(ready, (first[h], h))
        if len(order) != len(self.groups):
            raise XlcError("fusion made groups that need each other; please report this graph", self.nodes[-1].loc)
        return tuple(order)


def _widens(n: Node) -> bool:
    return n.op.name == "cast" and n.dtype is f32 and n.args[0].dtype.is_float and n.args[0].dtype.bits == 16


def fuse(graph: Graph, options: FusionOptions = FusionOptions()) -> Partition:
    """The partition of a graph into kernels."""
    return _Fuser(graph, options).run()


def separate(graph: Graph) -> Partition:
    """No fusion: every operator that computes something is a kernel; views and constants are read through, as in NumPy."""
    return fuse(graph, FusionOptions(elementwise=False, reductions=False, contractions=False))
