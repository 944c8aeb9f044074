"""Tile-and-fuse: what a contraction reads is computed in its own loop nest, a block of rows at a time, and never written to memory.

    group dot: %s = dot(%q, %k)             group dot: %s = dot(%q, %k)
    group softmax: %p = ... %s ...     ->              %p = ... %s ...
    group dot: %y = dot(%p, %v)                        %y = dot(%p, %v)         3 stages, 36 rows at a time

Enters a Partition; leaves one in which such groups are *stages* of the contraction that reads them (``Group.tiling``). A stage is a group
as it was, with the lowering of its kind; only its loops over the shared dimensions (batch and rows) run over one block, and its result is a
buffer that holds one block. So nothing is computed twice, and every sum is added in the order that it had.

A producer becomes a stage when one group alone reads it, at the shared dimensions' own positions; when the stages hold a contraction (else
there is a single pass over memory to win); when a block of all that lies between the stages fits the cache; and when there are blocks
enough for all cores. The idea is Halide's compute_at (J. Ragan-Kelley et al., PLDI 2013); for attention it is the first half of T. Dao et
al., arXiv:2205.14135, with whole rows instead of an online softmax. A machine whose threads have no room for whole rows says itself which
stages it computes together, and in blocks of how many rows (``Machine.rows_of_stages``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node
from xlc.ir.types import Size, f32, product

from .fuse import FusionOptions
from .group import Group, Partition, Tiling, comes_later, needed_at, reads
from .layout import choose_tile, element, free_dimensions

MOST_TILES = 3  # register tiles that a block is high: their rows share what is loaded of the right operands
STACK_BYTES = 80 << 10  # that a block may take on the stack of a thread, which need not be the host's main one
LARGE = 64 << 20  # bytes between two stages that are worth a block in the last cache
STREAMED = 32  # bytes of right operands beyond the cache, per byte of a block, up to which it pays (measured)
CHUNK = 16  # blocks that share memory, where their number has a name
SMALL = 1 << 22  # multiplications that one core does alone
KEPT = 0.5  # what lies between the stages, as a part of the second-level cache, up to which it stays there in any case


def tile(partition: Partition, graph: Graph, options: FusionOptions, machine: Machine) -> Partition:
    """The partition with producers of contractions as stages in front of them."""
    if not options.tiles or options.strict and not machine.stacked:  # where whole rows are not there, they are summed in another order
        return partition
    tiler = _Tiler(partition, graph, machine)
    for g in partition.groups:
        if g.anchor is not None and g.anchor.op.kind == "contraction":
            tiler.visit(g)
    groups = [g for g in partition.groups if g not in tiler.absorbed]
    return replace(partition, groups=in_order(groups) if any(g.tiling and g.tiling.beside for g in groups) else tuple(groups))


def in_order(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups in the order that they have, but each after all whose results it reads."""
    home = {r: g for g in groups for r in g.results}
    order: dict[Group, None] = {}
    for g in groups:
        stack = [g]
        while stack:
            last = stack[-1]
            before = {home[a]: None for s in last.stages for n in s.at for a in n.operands if a in home and home[a] is not last}
            missing = [b for b in before if b not in order]
            stack += missing[:1]
            if not missing:
                order[stack.pop()] = None
    return tuple(order)


class _Tiler:
    def __init__(self, partition: Partition, graph: Graph, machine: Machine):
        self.uses, self.results, self.machine = graph.uses(), set(graph.results), machine
        self.home = {r: g for g in partition.groups for r in g.roots}
        self.readers: dict[Node, list[Group]] = {}
        for g in partition.groups:
            for a in {a for n in g.at for a in n.operands if a not in g.at}:
                self.readers.setdefault(a, []).append(g)
        self.absorbed: set[Group] = set()

    def visit(self, g: Group) -> None:
        """Put what the contraction of g reads on the left in front of it, where that pays."""
        assert g.anchor is not None
        x, shared = g.anchor.args[0], rows_in_front(g.anchor)
        producer = self.home.get(x)
        if producer is None or not shared or self.uses[x] != [g.anchor] or g.anchor.args[1] is x or not self.is_read_by(x, producer, g):
            return
        beside = tuple(r for r in producer.roots if r is not x)
        if beside and (self.machine.stacked or not all(r in producer.reductions and r.dtype is f32 for r in beside)):
            return
        before = self.stages(producer, shared)
        if not any(s.kind == "contraction" for s in before):
            return
        if beside and self.waits((*before, g), beside):
            return
        tiling = self.tiling(g, before, shared)
        if isinstance(tiling, str):
            g.why[x] = tiling
            return
        inside = {r for s in before for r in s.roots}
        for s in (*before, g):
            s.tiling = None
            s.why = {n: why for n, why in s.why.items() if n not in inside}
        g.tiling = replace(tiling, beside=beside)
        self.absorbed.update(before)

    def is_private(self, n: Node, producer: Group, reader: Group) -> bool:
        """Whether the group that computes n computes nothing else for others, and n is needed in one other group only."""
        return producer.roots == [n] and self.is_read_by(n, producer, reader)

    def is_read_by(self, n: Node, producer: Group, reader: Group) -> bool:
        """Whether n is needed in this group only."""
        return n not in self.results and self.readers[n] == [reader]

    def waits(self, stages: Sequence[Group], rows: Sequence[Node]) -> bool:
        """Whether something that the stages read from memory needs reductions of rows that one of them gives."""
        own = {r for s in stages for r in s.roots}
        waiting = [a for s in stages for n in s.at for a in n.operands if a not in s.at and a in self.home and a not in own]
        seen = set(waiting)
        while waiting:
            new = {a for s in self.home[waiting.pop()].stages for n in s.at for a in n.args if a not in s.at and a in self.home} - seen
            if not new.isdisjoint(rows):
                return True
            seen |= new
            waiting += new
        return False

    def stages(self, g: Group, shared: int) -> tuple[Group, ...]:
        """g, and in front of it what it alone reads at the shared positions; nothing, where g itself mixes rows."""
        front = g.domain[:shared]
        if len(front) < shared or any(v in g.reduced for v in front):
            return ()
        if g.anchor is not None and (g.kind != "contraction" or left_dimensions(g.anchor) < shared):
            return ()
        before: list[Group] = list(g.tiling.before) if g.tiling and g.tiling.shared == shared else []
        if g.tiling and not before:
            return ()
        for n in dict.fromkeys(a for m in g.at for a in m.operands if a not in g.at):
            producer = self.home.get(n)
            if producer is None or producer in self.absorbed or not self.is_private(n, producer, g):
                continue
            at = needed_at(n, g, self.uses)
            covered = [g.extents[v] for v in front] == list(n.shape[:shared])
            if covered and at and all(i[:shared] == front for i in at) and not any(
                    c is g.anchor or c in g.operands or c in g.at and comes_later(c) for c in self.uses[n]):
                found = self.stages(producer, shared)
                if any(s.kind == "contraction" for s in found):
                    before += found
        return (*before, g)

    def tiling(self, g: Group, before: tuple[Group, ...], shared: int) -> Tiling | str:
        """How g is cut into blocks, or why it is not."""
        if not self.machine.stacked:
            found = self.machine.rows_of_stages((*before, g), shared)
            return found if isinstance(found, str) else Tiling(before, shared, found)
        contractions = [s.anchor for s in (*before, g) if s.anchor is not None]
        kept = [s.roots[0] for k, s in enumerate(before) if overwritten(s, before[:k]) is None]
        row, whole = static(total(r.dtype.bytes * product(r.shape[shared:]) for r in kept)), static(total(r.type.bytes for r in kept))
        work, large = static(total(map(weight, contractions))), whole is None or whole > LARGE
        high = height(max(contractions, key=lambda n: static(weight(n)) or 0), self.machine)
        rows, others = g.extents[g.domain[shared - 1]], product(g.extents[v] for v in g.domain[:shared - 1])
        fitting = MOST_TILES if row is None else STACK_BYTES // max(row, 1) // high or self.machine.l2 // 2 // max(row, 1) // high
        if whole is not None and whole <= KEPT * self.machine.l2:
            return "what lies between stays in the cache, and kernels of their own compile sooner"
        if not fitting and not large:
            return "a block of its rows does not fit the cache"
        most = min(max(fitting, 1), MOST_TILES) * high
        if isinstance(rows, int):
            most = min(most, max(rows, 1))
        if isinstance(rows, int) and isinstance(others, int) and (work is None or work > SMALL):
            while most > high and -(-rows // most) * others < 4 * self.machine.cores:
                most -= high
            if -(-rows // most) * others < 2 * self.machine.cores:
                return "there are too few blocks of rows to share out between threads"
        streamed = sum(b for b in map(static, map(right_bytes, contractions)) if b is not None and b > self.machine.l2)
        if row is not None and streamed > STREAMED * row * most:
            return "for each block of its rows more would be loaded of the right operands than that saves"
        on_stack = row is not None and row * most <= STACK_BYTES
        return Tiling(before, shared, most, 0 if on_stack else self.chunk(pieces(rows, most) * others))

    def chunk(self, blocks: Size) -> int:
        """How many blocks share memory one after another."""
        return -(-blocks // (4 * self.machine.cores)) if isinstance(blocks, int) else CHUNK


def pieces(n: Size, each: int) -> Size:
    return -(-n // each) if isinstance(n, int) else (n + (each - 1)) // each


def blocks_of_rows(g: Group) -> Size:
    """How many blocks the last of the shared dimensions makes."""
    assert g.tiling is not None
    return pieces(g.extents[g.domain[g.tiling.shared - 1]], g.tiling.rows)


def blocks(g: Group) -> Size:
    """How many blocks there are."""
    assert g.tiling is not None
    return blocks_of_rows(g) * product(g.extents[v] for v in g.domain[:g.tiling.shared - 1])


def left_dimensions(dot: Node) -> int:
    """How many leading dimensions of the result are those of the left operand (batch and rows), 0 where these are batch alone."""
    free, _ = free_dimensions(dot)
    return len(dot["batch"][0]) + len(free) if free else 0


def rows_in_front(dot: Node) -> int:
    """How many leading dimensions the left operand and the result share (batch and rows), 0 where they are in another order."""
    lb, _ = dot["batch"]
    free, _ = free_dimensions(dot)
    return len(lb) + len(free) if free and (*lb, *free) == tuple(range(len(lb) + len(free))) else 0


def height(dot: Node, machine: Machine) -> int:
    """Rows of the register tile of a contraction."""
    left, right = free_dimensions(dot)
    rows = product(dot.args[0].shape[d] for d in left)
    return choose_tile(rows, dot.args[1].shape[right[-1]] if right else 1, element(dot).bits, machine).rows


def weight(dot: Node) -> Size:
    """The multiplications of a contraction."""
    return dot.type.size * product(dot.args[0].shape[d] for d in dot["contract"][0])


def right_bytes(dot: Node) -> Size:
    """The size of the right operand, for one position of the batch."""
    right = dot.args[1]
    return right.dtype.bytes * product(right.shape[d] for d in range(right.rank) if d not in dot["batch"][1])


def total(sizes: Iterable[Size]) -> Size:
    found: Size = 0
    for s in sizes:
        found = s + found
    return found


def static(s: Size) -> int | None:
    return s if isinstance(s, int) else None


def overwritten(stage: Group, before: Sequence[Group]) -> Node | None:
    """The result of an earlier stage over which this one may write its own: each element is read at its own position only, and the last
    time just before it is written (after all reductions, as the one root depends on them all). Nobody else reads it."""
    if stage.anchor is not None:
        return None
    (root,) = stage.roots
    return next((r for s in before for r in s.roots if r.type == root.type and any(r in n.args for n in stage.at) and all(
        at == stage.domain for n in stage.at for i in stage.at[n] for a, at in reads(n, i, stage.reduced) if a is r)), None)
