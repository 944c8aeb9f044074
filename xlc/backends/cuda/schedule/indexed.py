"""Schedule of scatter on a GPU: deterministic, without atomic operations, in the order of the updates, which is part of the meaning.

    y = scatter(x, updates, ids), y: f32[R,C], ids: i64[N]
    ->
    block b {                                            owns rows first..end of y, and a range of columns
      y[first..end, columns] = x[...]
      serial chunk of the ids {
        thread t { looks at EACH neighbours, which of them are among the rows }
        ``prefixes`` of how many                         the place of each hit in a list in shared memory, in the order of the ids
        thread t { list[before..] = (n, id - first) }
        thread t { serial j over the list { if row j is one of this thread's: y[row, column] += updates[n, column] } }
      }
    }

A row of y belongs to a group of neighbouring threads, which share its columns, so that each element is touched by one thread alone. Every
block looks through all ids: the cost is N * blocks reads of ids (from the second-level cache, 256 * EACH at a time), R * C copied elements
and N * C updates. Blocks are a few for each multiprocessor, more only where ids are few. Where y lies over x nothing is copied (the emitter
leaves out what stores an element onto itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, bool_, i32, i64, product
from xlc.passes.group import Group
from xlc.schedule.inline import Inliner, Places, address
from xlc.schedule.nest import Dimension, decode, minimum, power_of_two
from xlc.schedule.ordered import combined

from .bind import THREADS, B, T, blocks, pieces, threads
from .scan import Prefixes, put

EACH = 4  # ids that a thread looks at, at a time
COLUMNS = 1024  # of one block
FEW = 1 << 12  # ids, up to which blocks may be many
BLOCKS, MANY = 4, 16  # for each multiprocessor


def lower_scatter(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...]:
    node = group.anchor
    assert node is not None
    return () if any(s == 0 for s in node.shape) else tuple(_Scatter(node, group, places, machine).nest())


class _Scatter:
    """``rows`` are the positions along the indexed axes, ``columns`` those along the others."""

    def __init__(self, node: Node, group: Group, places: Places, machine: Machine):
        self.node, self.target = node, places[node]
        self.inliner = Inliner(set(group.members) - {node}, places)
        self.operand, self.updates, *self.ids = node.args
        self.axes = node["axes"]
        self.indexed, self.others = ([s for d, s in enumerate(node.shape) if (d in self.axes) == own] for own in (True, False))
        self.rows, self.columns, self.count = product(self.indexed), product(self.others), product(self.ids[0].shape)
        self.side = min(power_of_two(self.columns), THREADS) if isinstance(self.columns, int) else THREADS  # threads side by side in a row
        self.over = THREADS // self.side  # rows at a time
        self.each = EACH if not isinstance(self.count, int) or self.count > THREADS else 1
        self.parts, self.height = self.shares(machine)
        self.number = i32 if isinstance(self.count, int) and self.count < 1 << 31 else i64

    def shares(self, machine: Machine) -> tuple[int, Size]:
        """How many blocks share the rows, and how many rows each has."""
        few = isinstance(self.count, int) and self.count <= FEW
        wanted = machine.cores * (MANY if few else BLOCKS)
        across = pieces(self.columns, COLUMNS)
        parts = max(wanted // (across if isinstance(across, int) else 1), 1)
        if not isinstance(self.rows, int):
            return parts, pieces(self.rows, parts)
        height = -(-self.rows // parts)
        height = -(-height // self.over) * self.over
        return -(-self.rows // height), height

    def nest(self) -> list[Stmt]:
        part, strip = Dimension(var("part"), self.parts), Dimension(var("strip"), pieces(self.columns, COLUMNS))
        first, end = var("first"), var("end")
        listed = [Buffer("numbers", self.number, (THREADS * self.each,), "shared"), Buffer("hits", i32, (THREADS * self.each,), "shared")]
        mine = Buffer("hit", i32, (THREADS, self.each), "register")
        monoid = lookup("sum").monoid
        assert monoid is not None
        scan = Prefixes(monoid, (const(0, i32),), THREADS, "")
        known = {B: size(part.extent * strip.extent), T: const(THREADS), part.var: size(part.extent), strip.var: size(strip.extent),
                 var("n"): size(self.count), var("row"): size(self.rows), var("column"): size(self.columns), var("e"): const(self.each)}
        with ix.ranges(known):
            looks = [threads(*self.look(mine, first, end), *put(scan.own, (self.found(mine),))), *scan.statements(),
                     threads(*self.listing(mine, listed, scan)), threads(*self.apply(listed, scan, first))]
            chunks = Loop("chunk", const(0), size(self.count), THREADS * self.each, "serial", tuple(looks))
            return [blocks(part.extent * strip.extent, *decode([part, strip], B), Let("first", part.var * size(self.height)),
                           Let("end", minimum(first + size(self.height), size(self.rows))), *map(Local, (*listed, mine)), *scan.locals(),
                           threads(self.copy(first, end)), *([chunks] if self.count != 0 else []))]

    # -- where things are -------------------------------------------------------------------------

    def place(self) -> tuple[Expr, ...]:
        """The index of an element of the operand at ``row`` and ``column``."""
        rows, columns = iter(ix.unflatten(self.indexed, var("row"))), iter(ix.unflatten(self.others, var("column")))
        return tuple(next(rows) if d in self.axes else next(columns) for d in range(self.node.rank))

    def update(self) -> Expr:
        """The element number ``n`` of the updates of a column."""
        ids, columns = ix.unflatten(self.ids[0].shape, var("n")), ix.unflatten(self.others, var("column"))
        return self.inliner.value(self.updates, (*columns[:self.axes[0]], *ids, *columns[self.axes[0]:]))

    def along_columns(self, body: Callable[[], Sequence[Stmt]]) -> Stmt:
        """The columns of a thread."""
        start = const(0) if pieces(self.columns, COLUMNS) == 1 else var("strip") * COLUMNS
        stop = minimum(start + COLUMNS, size(self.columns))
        return Loop("column", start + T % self.side, stop, self.side, "serial", tuple(body()))

    # -- what threads do --------------------------------------------------------------------------

    def copy(self, first: Expr, end: Expr) -> Stmt:
        def body() -> list[Stmt]:
            return [Store(self.target, (address(self.node.shape, self.place()),), self.inliner.value(self.operand, self.place()))]

        return Loop("row", first + T // self.side, end, self.over, "serial", (self.along_columns(body),))

    def look(self, mine: Buffer, first: Expr, end: Expr) -> list[Stmt]:
        """Which of a thread's ids are among the rows of the block: hit[e] is the row, counted from the block's first, or -1."""
        n, e = var("n"), var("e")
        at = tuple(ix.unflatten(self.ids[0].shape, n))
        names = [Let(f"id{k}", cast(self.inliner.value(i, at), i64)) for k, i in enumerate(self.ids)]
        ids = [var(x.name) for x in names]
        row = address(self.indexed, ids)
        inside = [c for i, s in zip(ids, self.indexed, strict=True) for c in (i >= 0, i < size(s))]
        hit = reduce(lambda a, b: a & b, [*inside, row >= first, row < end])
        found = lookup("where")(hit, cast(row - first, i32), const(-1, i32))
        miss, checked = Store(mine, (T, e), const(-1, i32)), Store(mine, (T, e), found)
        body = If(self.nth(e) < size(self.count), (*names, checked), (miss,))
        return [Loop("e", const(0), const(self.each), 1, "unroll", (Let("n", self.nth(e)), body))]

    def nth(self, e: Expr) -> Expr:
        return var("chunk") + T * self.each + e

    def found(self, mine: Buffer) -> Expr:
        return reduce(lambda a, b: a + b, [cast(load(mine, (T, const(e))) >= const(0, i32), i32) for e in range(self.each)])

    def listing(self, mine: Buffer, listed: Sequence[Buffer], scan: Prefixes) -> list[Stmt]:
        """The hits go to their places in the list."""
        numbers, hits = listed
        out: list[Stmt] = [Let("place0", cast(load(scan.before[0], (T,)), i64))]
        for e in range(self.each):
            own, place = load(mine, (T, const(e))), (var(f"place{e}"),)
            out.append(If(own >= const(0, i32), (Store(numbers, place, cast(self.nth(const(e)), self.number)), Store(hits, place, own))))
            out.append(Let(f"place{e + 1}", place[0] + cast(own >= const(0, i32), i64)))
        return out[:-1]

    def apply(self, listed: Sequence[Buffer], scan: Prefixes, first: Expr) -> list[Stmt]:
        numbers, hits = listed
        j = (var("j"),)

        def body() -> list[Stmt]:
            place = (address(self.node.shape, self.place()),)
            return [Store(self.target, place, combined(self.node["mode"], load(self.target, place), self.update()))]

        inner: list[Stmt] = [Let("n", cast(load(numbers, j), i64)), Let("row", first + var("hit")), self.along_columns(body)]
        own = lookup("equal")(var("hit") % self.over, T // self.side) if self.over > 1 else const(True, bool_)
        turn = [Let("hit", cast(load(hits, j), i64)), *([If(own, tuple(inner))] if self.over > 1 else inner)]
        return [Loop("j", const(0), cast(load(scan.own[0], (T,)), i64), 1, "serial", tuple(turn))]


def cast(e: Expr, d: DType) -> Expr:
    return e if e.dtype is d else lookup("cast")(e, dtype=d)


__all__ = ["lower_scatter"]
