"""Schedule of sort and argsort on a GPU: a block for each row (or several short ones), a stable merge sort; nan last, as in NumPy.

    block b {
      runs[k] = x[row, k]                                             in shared memory: values, and for argsort positions
      width = 1, 2, 4, ...: thread t: element i of one run goes to its place in that run, and as many further as the
                            neighbouring run has elements that come first, found by bisection
      y[row, k] = runs[k]
    }

Of rows that are longer than TILE, or of named size, tiles are sorted in this way and kept in memory (``rows_in_memory``). Then pairs of
runs of width TILE, 2*TILE, ... are merged, TILE elements at a time: a bisection finds what the two runs contribute to a piece of the
result, which is read into shared memory and merged there as above. One row is the work of one block: n elements take log2(n / TILE)
passes over memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node, make
from xlc.ir.op import lookup
from xlc.ir.types import DType, Type, bool_, i32, i64, product
from xlc.passes.group import Group
from xlc.schedule.inline import Inliner, Places, address
from xlc.schedule.nest import Dimension, decode, minimum, power_of_two
from xlc.schedule.sort import PASSES, moved, precedes, sorts

from .bind import THREADS, B, T, blocks, pieces, threads
from .scan import put

TILE = 4096  # elements that are sorted in shared memory
SHARED = 48 << 10  # bytes of it that every chip has
BOTH = 2  # copies of the runs, from one to the other


def tile(node: Node) -> int:
    """Elements of a row that are sorted in shared memory at a time: a power of two."""
    room = SHARED // (BOTH * sum(d.bytes for d in kinds(node)))
    return min(TILE, 1 << (room.bit_length() - 1))


def kinds(node: Node) -> tuple[DType, ...]:
    """What moves: values, and positions, which are narrow where a row is known to be short."""
    n = node.shape[node["axis"]]
    return tuple(i32 if k and isinstance(n, int) and n < 1 << 31 else d for k, d in enumerate(moved(node)))


def rows_in_memory(group: Group) -> tuple[Node, ...]:
    """Memory that the kernel of a group needs beside its results: two rows for each row that is long, or of unknown length."""
    n = group.anchor
    if n is None or not sorts(n) or any(s == 0 for s in n.shape):
        return ()
    row = n.shape[n["axis"]]
    if isinstance(row, int) and row <= tile(n):
        return ()
    shape = (*(s for d, s in enumerate(n.shape) if d != n["axis"]), BOTH, row)
    return tuple(make(lookup("copy"), (n,), Type(d, shape), {"token": object()}) for d in kinds(n))


def lower_sort(group: Group, places: Places, machine: Machine) -> list[Stmt]:
    node = group.anchor
    assert node is not None
    scratch = [b for b in places if b.args == (node,) and "token" in b.attributes]
    return _Sort(node, group, places, scratch).long() if scratch else _Sort(node, group, places, scratch).short()


class _Sort:
    def __init__(self, node: Node, group: Group, places: Places, scratch: Sequence[Node]):
        self.node, self.places, self.scratch = node, places, scratch
        self.n, self.tile = node.shape[node["axis"]], tile(node)
        self.inliner = Inliner(set(group.members) - {node}, places)
        self.outer = [Dimension(var(f"i{d}"), s) for d, s in enumerate(node.shape) if d != node["axis"]]
        self.total = product(d.extent for d in self.outer)
        self.descending = dict(node.attrs).get("descending", False)
        length = self.tile if not isinstance(self.n, int) or self.n > self.tile else self.n
        self.rows = 1 if scratch else max(THREADS // power_of_two(length), 1)  # of a block
        self.length = length  # of the runs in shared memory, of one row
        self.runs = [Buffer(f"runs{k}", d, (BOTH * length * self.rows,), "shared") for k, d in enumerate(kinds(node))]
        self.half = length * self.rows

    # -- one place or another ---------------------------------------------------------------------

    def index(self, k: Expr) -> tuple[Expr, ...]:
        return tuple(k if d == self.node["axis"] else var(f"i{d}") for d in range(self.node.rank))

    def given(self, k: Expr) -> list[Expr]:
        """What stands at position k of a row at first."""
        return [_cast(v, d) for v, d in zip((self.inliner.value(self.node.args[0], self.index(k)), k), kinds(self.node), strict=False)]

    def result(self, k: Expr, buffer: Buffer, at: Expr) -> Stmt:
        return Store(self.places[self.node], (address(self.node.shape, self.index(k)),), _cast(load(buffer, (at,)), self.node.dtype))

    def row(self, which: Expr, k: Expr) -> Expr:
        """Where position k of one of the two rows in memory lies."""
        return address(self.scratch[0].shape, (*(d.var for d in self.outer), which, k))

    # -- steps ------------------------------------------------------------------------------------

    def every(self, stop: Expr, *body: Stmt) -> Loop:
        """Threads take elements ``i`` below a limit in turn."""
        return threads(Loop("i", T, stop, THREADS, "serial", body))

    def placed(self, i: Expr, low: Expr, middle: Expr, end: Expr, now: Expr, steps: Expr) -> list[Stmt]:
        """The element at i of the runs low..middle and middle..end, to its place in the other half. A run has fewer than 2**steps."""
        at, stop, m = (Buffer(name, i64, (1,), "register") for name in ("at", "stop", "m"))
        zero = (const(0),)
        source, target = now * self.half, (const(1) - now) * self.half
        x = [var(f"x{k}", b.dtype) for k, b in enumerate(self.runs)]
        left, here, there = var("left", bool_), load(at, zero), load(stop, zero)
        probe, y = var("probe"), load(self.runs[0], (source + var("probe"),))
        # of the left run come first those that do not follow; of the right one, those that precede
        first = lookup("where")(left, precedes(y, x[0], self.descending), ~precedes(x[0], y, self.descending))
        search = Loop("step", const(0), steps, 1, "serial", (If(here < there, (
            Let("probe", (here + there) >> 1), Let("first", first),
            Store(at, zero, lookup("where")(var("first", bool_), probe + 1, here)),
            Store(stop, zero, lookup("where")(var("first", bool_), there, probe)))),))
        own = target + i + here - middle  # low + place in its run + how many of the other run come first
        return [Local(at), Local(stop), *(Let(v["name"], load(b, (source + i,))) for v, b in zip(x, self.runs, strict=True)),
                Let("left", i < middle), Store(at, zero, lookup("where")(left, middle, low)),
                Store(stop, zero, lookup("where")(left, end, middle)), search,
                *(Store(b, (own,), v) for v, b in zip(x, self.runs, strict=True))]

    def sorted_tile(self, count: Expr) -> list[Stmt]:
        """Passes over what is in the first half of the runs: ``count`` elements, the rows one after another."""
        i, width = var("i"), var("width")
        row = (i // self.length) * self.length if self.rows > 1 else const(0)
        end = minimum(row + self.length, count) if self.rows > 1 else count
        low = row + _floor(i - row, width * 2)
        one = self.every(count, Let("low", low), Let("middle", minimum(var("low") + width, end)),
                         Let("end", minimum(var("low") + width * 2, end)),
                         *self.placed(i, var("low"), var("middle"), var("end"), var("now"), var("pass") + 1))
        names = Let("width", const(1) << var("pass")), Let("now", var("pass") & const(1))
        return [Loop("pass", const(0), const(self.passes), 1, "serial", (*names, one))]

    @property
    def passes(self) -> int:
        return max(self.length - 1, 0).bit_length()

    def short(self) -> list[Stmt]:
        """Rows in shared memory."""
        n, i = self.length, var("i")
        per_block = pieces(self.total, self.rows)
        first = B * self.rows
        with ix.ranges({B: size(per_block), T: const(THREADS), i: const(n * self.rows)}):
            count = minimum((size(self.total) - first) * n, const(n * self.rows)) if self.rows > 1 else const(n)
            where: list[Stmt] = [Let("row", first + i // n if self.rows > 1 else first), Let("k", i % n)]
            with ix.ranges({var("row"): size(self.total), **{d.var: size(d.extent) for d in self.outer}}):
                where += decode(self.outer, var("row"))
                fill = self.every(count, *where, *(Store(b, (i,), v) for b, v in zip(self.runs, self.given(var("k")), strict=True)))
                out = self.every(count, *where, self.result(var("k"), self.runs[-1], i + self.passes % 2 * self.half))
            return [blocks(per_block, *map(Local, self.runs), fill, *self.sorted_tile(count), out)]

    def long(self) -> list[Stmt]:
        """Tiles in shared memory, then pieces of merged runs, which lie in memory."""
        n, t, i = size(self.n), self.tile, var("i")
        memory = [self.places[s] for s in self.scratch]
        count = minimum(n - var("tile"), const(t))
        with ix.ranges({B: size(self.total), T: const(THREADS), i: const(t), **{d.var: size(d.extent) for d in self.outer}}):
            at = var("tile") + i
            fill = self.every(count, *(Store(b, (i,), v) for b, v in zip(self.runs, self.given(at), strict=True)))
            keep = self.every(count, *(Store(m, (self.row(const(0), at),), load(b, (i + self.passes % 2 * self.half,)))
                                       for m, b in zip(memory, self.runs, strict=True)))
            tiles = Loop("tile", const(0), n, t, "serial", (fill, *self.sorted_tile(count), keep))
            width = const(t) << var("round")
            passes = PASSES if not n.is_const else max(-(-n.value // t) - 1, 0).bit_length()
            merging = Loop("round", const(0), const(passes), 1, "serial", (
                Let("run", width), Let("from", var("round") & const(1)),
                If(var("run") < n, (Loop("tile", const(0), n, t, "serial", tuple(self.piece(memory, n))),))))
            half = self.last_half(n, passes)
            out = self.every(n, self.result(i, memory[-1], self.row(half, i)))
            return [blocks(self.total, *decode(self.outer, B), *map(Local, self.runs), *map(Local, self.split), tiles, merging, out)]

    def last_half(self, n: Expr, passes: int) -> Expr:
        """Where the last pass left the row."""
        if n.is_const:
            return const(passes % 2)
        done = [lookup("cast")(const(self.tile << p) < n, dtype=i64) for p in range(PASSES - self.tile.bit_length())]
        return reduce(lambda a, b: a ^ b, done)

    @property
    def split(self) -> list[Buffer]:
        """How many of the left run come before the piece, and how many up to its end."""
        return [Buffer(name, i64, (THREADS,), "register") for name in ("before", "until")]

    def piece(self, memory: Sequence[Buffer], n: Expr) -> list[Stmt]:
        """Elements tile..tile+TILE of a pass."""
        i, run, side = var("i"), var("run"), var("from")
        base = _floor(var("tile"), run * 2)
        s, mid, end = var("s"), var("mid"), var("end_")
        bounds = [Let("s", base), Let("mid", minimum(s + run, n)), Let("end_", minimum(s + run * 2, n))]
        begin = [self.path(b, d, memory[0], (s, mid, end), side) for b, d in
                 zip(self.split, (var("tile") - s, minimum(var("tile") + self.tile, end) - s), strict=True)]
        before, until = (load(b, (T,)) for b in self.split)
        lefts, total = until - before, minimum(var("tile") + self.tile, end) - var("tile")
        place = lookup("where")(i < var("lefts"), s + before + i, mid + (var("tile") - s - before) + i - var("lefts"))
        pairs = list(zip(self.runs, memory, strict=True))
        read = threads(*bounds, Let("lefts", lefts), Loop("i", T, total, THREADS, "serial", (
            Let("place", place), *(Store(b, (i,), load(m, (self.row(side, var("place")),))) for b, m in pairs))))
        merge = threads(*bounds, Let("lefts", lefts), Let("total", total), Loop("i", T, var("total"), THREADS, "serial", tuple(
            self.placed(i, const(0), var("lefts"), var("total"), const(0), const(self.passes)))))
        write = threads(*bounds, Loop("i", T, total, THREADS, "serial", tuple(
            Store(m, (self.row(const(1) - side, var("tile") + i),), load(b, (i + self.half,))) for b, m in pairs)))
        return [threads(*bounds, *(x for b in begin for x in b)), read, merge, write]

    def path(self, into: Buffer, d: Expr, row: Buffer, runs: tuple[Expr, Expr, Expr], side: Expr) -> list[Stmt]:
        """How many of the first d elements of two merged runs come from the left one."""
        s, mid, end = runs
        name = into.name
        low, high = (Buffer(f"{x}_{name}", i64, (1,), "register") for x in ("low", "high"))
        zero = (const(0),)
        here, there, probe = load(low, zero), load(high, zero), var(f"probe_{name}")
        x, y = load(row, (self.row(side, s + probe),)), load(row, (self.row(side, mid + var(f"d_{name}") - 1 - probe),))
        # the left one at ``probe`` is among the first d unless the right one at d-1-probe comes before it
        taken = ~precedes(y, x, self.descending)
        names = Let(f"taken_{name}", taken)
        hit = var(names.name, bool_)
        search = Loop(f"step_{name}", const(0), const(PASSES), 1, "serial", (If(here < there, (
            Let(probe["name"], (here + there) >> 1), names,
            Store(low, zero, lookup("where")(hit, probe + 1, here)), Store(high, zero, lookup("where")(hit, there, probe)))),))
        return [Local(low), Local(high), Let(f"d_{name}", d),
                Store(low, zero, lookup("maximum")(var(f"d_{name}") - (end - mid), const(0))),
                Store(high, zero, minimum(var(f"d_{name}"), mid - s)), search, *put([into], (here,))]


def _floor(e: Expr, step: Expr) -> Expr:
    """The multiple of ``step``, a power of two, that is not above e."""
    return e - (e & (step - 1))


def _cast(e: Expr, d: DType) -> Expr:
    return e if e.dtype is d else lookup("cast")(e, dtype=d)


__all__ = ["lower_sort", "rows_in_memory"]
