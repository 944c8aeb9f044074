"""Lowering of contractions: a tile of the result in registers, the contracted dimension innermost, what follows fused into the tile.

    parallel p over (row groups, column panels, row blocks) {
      acc[12*32] in registers = 0
      serial k { vector v in 0..32 { unroll i in 0..12 { acc[i,v] = fma(a[m+i,k], b[k,n+v], acc[i,v]) } } }
      vector v { unroll i { y[m+i,n+v] = epilogue(acc[i,v]) } }
    }

The right-hand side must be contiguous along its last free dimension; the pass ``layout`` sees to it (by packing panels as wide as the tile,
which for constants happens at compile time). Rows are shared out evenly (tiles of height h and h-1), columns end under a mask. The row
groups keep the left operand in the second-level cache while all panels pass by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Let, Local, Loop, Prefetch, Stmt, Store, const, load, size, substitute, var, walk
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import Size, f32, f64, product
from xlc.passes.group import Group
from xlc.passes.layout import FEW_ROWS, choose_tile, element, free_dimensions

from .inline import Places
from .map import parallel
from .nest import Dimension, minimum, operations, serial
from .product import Product

DEEP = 1024  # contracted elements from which the contracted dimension is cut into pieces
AHEAD = 8192  # bytes between a prefetch and its use (measured best for 4 and 16 rows)
CACHE_WAY = 4096  # bytes after which addresses meet in the same set of the first-level cache
EPILOGUE = 80  # operations of a tile's epilogue up to which it is copied out for every row


def lower_contraction(group: Group, buffers: Places, machine: Machine) -> tuple[Stmt, ...] | None:
    """The loop nest, or None where the general lowering of reductions serves better (integers, no free dimension on the right)."""
    dot = group.anchor
    assert dot is not None
    wide = element(dot)
    _, right_free = free_dimensions(dot)
    if wide not in (f32, f64) or not right_free or any(s == 0 for s in dot.shape):
        return None
    lc = dot["contract"][0]
    if any(dot.args[0].shape[c] == 0 for c in lc):
        return None
    return _Contraction(group, dot, buffers, machine).lower()


@dataclass(frozen=True)
class _Piece:
    """A cut of the contracted dimension: piece number ``var`` of ``count``, each ``size`` long (the last may be shorter) of ``depth``;
    between pieces the sums wait in result number ``place``."""

    var: Expr
    size: int
    count: int
    depth: int
    place: int


class _Contraction(Product):
    def __init__(self, group: Group, dot: Node, buffers: Places, machine: Machine):
        super().__init__(group, dot, buffers)
        self.machine, self.dtype = machine, element(dot)
        self.a, self.b = self._wide(self.a), self._wide(self.b)
        left_free, _ = free_dimensions(dot)
        self.rows = product(dot.args[0].shape[d] for d in left_free)  # of the whole result, as the pass layout sees it

    def _wide(self, e: Expr) -> Expr:
        return e if e.dtype is self.dtype else lookup("cast")(e, dtype=self.dtype)

    # -- the nest ---------------------------------------------------------------------------------

    def lower(self) -> tuple[Stmt, ...] | None:
        self.n = self.ns[-1] if self.ns else None
        if self.n is None:
            return None
        n_extent: Size = self.extents[self.n]
        rows = self.rows  # as the pass layout saw them, which packed panels for this tile
        tile = choose_tile(rows, n_extent, self.dtype.bits, self.machine)
        self._whole_in_tile(tile.rows)
        m_extent: Size = self.extents[self.m] if self.m is not None else 1
        self.columns = tile.columns
        size_of_b = product(self.extents[v] for v in [*self.ks, *self.ns])
        outer = [Dimension(v, self.extents[v]) for v in [*self.batch, *self.ns[:-1]]]
        between = [Dimension(v, self.extents[v]) for v in self.before]  # inside the panels: these stay in the caches while all rows pass
        self.streams = isinstance(rows, int) and 1 < rows <= FEW_ROWS and isinstance(size_of_b, int) \
            and size_of_b * self.dtype.bytes > self.machine.l2
        panel, lane = var("j"), var("v")
        with ix.ranges({lane: const(tile.columns), panel: size(-(-n_extent // tile.columns) if isinstance(n_extent, int)
                                                               else (n_extent + (tile.columns - 1)) // tile.columns)}):
            column = panel * tile.columns + lane
            at, memo = {self.n: column}, {}  # type: ignore[var-annotated]
            self.everything(lambda e: substitute(e, at, memo), lambda e: substitute(e, at, memo))
        for e in walk(self.b):
            if e.op is LOAD and ix.coefficient(e.args[0], lane) not in (0, 1):
                return None
        padded = self._is_padded(lane, tile.columns)
        if isinstance(n_extent, int):
            panels: Size = -(-n_extent // tile.columns)
            rest = n_extent % tile.columns
            self.stop = const(tile.columns) if not rest else const(rest) if panels == 1 else minimum(
                const(n_extent) - panel * tile.columns, const(tile.columns))
        else:
            panels = (n_extent + (tile.columns - 1)) // tile.columns
            self.stop = minimum(size(n_extent) - panel * tile.columns, const(tile.columns))
        if not padded and not (self.stop.is_const and self.stop.value == tile.columns):
            self.b = _masked(self.b, lane < self.stop)
        dims, body = self._row_blocks(m_extent, panels, max(tile.rows // self.width, 1), panel)
        if panels == 1:
            body = _at_zero(body, panel)
        place = 1 + next((k for k, d in enumerate(dims) if d.var is panel), -1)
        return tuple(parallel([*outer, *dims[:place], *between, *dims[place:]], body, 1))

    def _whole_in_tile(self, rows: int) -> None:
        """Rows are counted along one dimension, ``m``. If the last ones are short (the pixels of a small image), a tile holds them whole:
        each of its rows then stands for ``width`` of them, whose places are known."""
        self.before: list[Expr] = self.ms[:-1]
        self.m: Expr | None = self.ms[-1] if self.ms else None
        self.whole: list[Expr] = []
        self.width = 1
        while self.before and self.m is not None and isinstance(n := self.extents[self.m], int) and 2 * n * self.width <= rows:
            self.whole.insert(0, self.m)
            self.width *= n
            self.m = self.before.pop()

    def _row(self, row: Expr, i: Expr) -> dict[Expr, Expr]:
        """The variables of row number ``i`` of a tile that begins at ``row``."""
        assert self.m is not None
        inside = ix.unflatten([self.extents[v] for v in self.whole], i % self.width)
        return {self.m: row + i // self.width, **dict(zip(self.whole, inside, strict=True))}

    def _is_padded(self, lane: Expr, width: int) -> bool:
        """Whether the right operand may be read for a whole panel, even beyond its last column: it was packed (its panel is a
        dimension)."""
        loads = [e for e in walk(self.b) if e.op is LOAD and ix.coefficient(e.args[0], lane) == 1]
        return bool(loads) and all(_packed(e, width) for e in loads)

    def _row_blocks(self, m: Size, panels: Size, rows: int, panel: Expr) -> tuple[list[Dimension], list[Stmt]]:
        block = var("mb")
        if not isinstance(m, int):
            blocks = (m + (rows - 1)) // rows
            start, end = block * rows, size(m)
            r, q = var("mr"), var("mq")
            few = start + ((end - start) // 4) * 4 if rows > 4 else start
            some = [Loop("mr", start, few, 4, "serial", tuple(self._tile(r, 4)))] if rows > 4 else []
            body: list[Stmt] = [If(start + rows <= end, tuple(self._tile(start, rows)), (
                *some, Loop("mq", few, end, 1, "serial", tuple(self._tile(q, 1)))))]
            return [Dimension(panel, panels), Dimension(block, blocks)], body
        count = -(-m // rows)
        height = next((h for h in range(-(-m // count), rows * 3 // 4, -1) if m % h == 0), -(-m // count))
        count = -(-m // height)
        tall = m - (height - 1) * count

        def each(tile: Callable[[Expr, int], list[Stmt]]) -> list[Stmt]:
            if tall == count:
                return tile(block * height, height)
            return [If(block < tall, tuple(tile(block * height, height)), tuple(tile(block * (height - 1) + tall, height - 1)))]

        cut = self._cut(m, panels, height * self.width)
        if cut is not None and isinstance(panels, int):
            return self._blocked(cut, panels, count, each)
        if count == 1:
            return [Dimension(panel, panels)], _at_zero(each(self._tile), block)
        return [Dimension(panel, panels), Dimension(block, count)], each(self._tile)

    def _cut(self, m: int, panels: Size, rows: int) -> _Piece | None:
        """How the contracted dimension is cut so that a piece of a block of rows fills half of the first-level cache, where it stays while
        panels pass by. The sums wait in the result meanwhile, so one result must have their dtype."""
        place = next((k for k, r in enumerate(self.group.roots) if r.dtype is self.dtype), None)
        if len(self.ks) != 1 or place is None or m < 64 or not isinstance(panels, int) or panels < 2:
            return None
        depth = self.extents[self.ks[0]]
        if not isinstance(depth, int) or depth < DEEP:
            return None
        most, line = self.machine.l1 // 2 // (rows * self.dtype.bytes), 64 // self.dtype.bytes
        even = -(-depth // -(-depth // most))
        piece = -(-even // line) * line
        return _Piece(var("kb"), piece, -(-depth // piece), depth, place) if piece < depth else None

    def _blocked(self, cut: _Piece, panels: int, count: int, each: Callable[[Callable[[Expr, int], list[Stmt]]], list[Stmt]]) -> tuple[
            list[Dimension], list[Stmt]]:
        """Parallel over groups of panels and of rows; inside, pieces of the contracted dimension, then blocks of rows, then panels: a block
        of rows stays in the first-level cache while the group's pieces of panels, which stay in the second, pass by."""
        wide = max(1, self.machine.l2 // 2 // (cut.size * self.dtype.bytes * self.columns))
        panel_groups = -(-panels // wide)
        wide = -(-panels // panel_groups)
        row_groups = next(g for g in range(1, 2 * self.machine.cores + 1) if g * panel_groups % self.machine.cores == 0)
        blocks = -(-count // row_groups)
        jg, ji, mg, mi = var("jg"), var("ji"), var("mg"), var("mi")

        def passing(row: Expr, rows: int) -> list[Stmt]:
            """One block of rows, with every panel of the group."""
            staged, left = self._staged(row, rows, cut)
            tile = self._tile(row, rows, cut, left)
            inside = tile if wide * panel_groups == panels else [If(var("j") < const(panels), tuple(tile))]
            return [*staged, *serial([Dimension(ji, wide)], [Let("j", jg * wide + ji), *inside])]

        body: list[Stmt] = [Let("mb", mg * blocks + mi)]
        rest = each(passing)
        body += rest if blocks * row_groups == count else [If(var("mb") < const(count), tuple(rest))]
        body = serial([Dimension(cut.var, cut.count), Dimension(mi, blocks)], body)
        dims = [Dimension(jg, panel_groups), Dimension(mg, row_groups)]
        return dims, [Let(d.name, const(0)) for d in (*dims, Dimension(ji, wide), Dimension(mi, blocks)) if d.extent == 1] + body

    def _staged(self, row: Expr, rows: int, cut: _Piece) -> tuple[list[Stmt], list[Expr] | None]:
        """A piece of a block of rows side by side on the stack, and how each row is read there; None if it is as well read where it lies.
        Rows a large power of two apart meet in one set of the cache, which has fewer ways than the block has rows."""
        k, count = self.ks[0], rows * self.width
        terms = ix.polynomial(self.a.args[0]) if self.a.op is LOAD else {}
        apart = gcd(CACHE_WAY, *(terms.get((v,), 0) * self.a.dtype.bytes for v in (self.m, *self.whole) if v is not None))
        if self.m is None or terms.get((k,)) != 1 or (self.m,) not in terms or count * apart <= CACHE_WAY * 6:
            return [], None
        line, lane, start = 64 // self.dtype.bytes, var("w"), cut.var * cut.size
        pitch = -(-cut.size // line) * line + line
        place, at = Buffer("rows", self.dtype, (count * pitch,), "stack"), var("s")
        stop = minimum(start + cut.size, const(cut.depth))
        stores = [Store(place, (at + lane - start + i * pitch,), substitute(self.a, {**self._row(row, const(i)), k: at + lane}))
                  for i in range(count)]
        width = self.machine.lanes(self.dtype.bits)
        copied = Loop("s", start, stop, width, "serial", (Loop("w", const(0), minimum(stop - at, const(width)), 1, "vector", tuple(stores),
                                                               width),))
        return [Local(place), copied], [load(place, (k - start + i * pitch,)) for i in range(count)]

    def _tile(self, row: Expr, rows: int, piece: _Piece | None = None, left: Sequence[Expr] | None = None) -> list[Stmt]:
        """``left`` holds the left operand of each row, where that is not read in its own place."""
        dtype, width = self.dtype, self.columns
        lane = var("v")
        count = rows * self.width
        acc = Buffer("acc", dtype, (count * width,), "register")
        fma, memo = lookup("fma"), [dict[Expr, Expr]() for _ in range(count)]

        def at(e: Expr, i: int) -> Expr:
            return e if self.m is None else substitute(e, self._row(row, const(i)), memo[i])

        def vector(stop: Expr, stmts: Sequence[Stmt]) -> Loop:
            return Loop("v", const(0), stop, 1, "vector", tuple(stmts), width)

        cells = [lane + i * width for i in range(count)]
        zero = const(0.0, dtype)
        full = const(width)
        out: list[Stmt] = [Local(acc)]
        if piece is None:
            out.append(vector(full, [Store(acc, (c,), zero) for c in cells]))
        else:
            waits, place = self.buffers[self.group.roots[piece.place]], self.where[piece.place]
            inside = piece.var > const(0)
            if not (self.stop.is_const and self.stop.value == width):
                inside = inside & (lane < self.stop)
            out.append(vector(full, [Store(acc, (c,), load(waits, (at(place, i),), inside)) for i, c in enumerate(cells)]))
        left = left or [at(self.a, i) for i in range(count)]
        update = vector(full, [Store(acc, (c,), fma(left[i], at(self.b, i), load(acc, (c,)))) for i, c in enumerate(cells)])
        if piece is None:
            out += serial([Dimension(k, self.extents[k]) for k in self.ks], [*self._prefetches(lane), update])
            return out + self._epilogue(row, count, at, cells, vector)
        k = self.ks[0]
        start = piece.var * piece.size
        out.append(Loop(k["name"], start, minimum(start + piece.size, const(piece.depth)), 1, "serial", (update,)))
        keep = vector(self.stop, [Store(waits, (at(place, i),), load(acc, (c,))) for i, c in enumerate(cells)])
        return [*out, If(piece.var < const(piece.count - 1), (keep,), tuple(self._epilogue(row, count, at, cells, vector)))]

    def _epilogue(self, row: Expr, rows: int, at: Callable[[Expr, int], Expr], cells: Sequence[Expr],
                  vector: Callable[[Expr, Sequence[Stmt]], Loop]) -> list[Stmt]:
        """What follows the contraction, on the finished sums of a tile."""
        dtype, width, lane, full = self.dtype, self.columns, var("v"), const(self.columns)
        acc = Buffer("acc", dtype, (rows * width,), "register")

        def finish(done: Expr, place: Callable[[Expr], Expr], name: str) -> list[Stmt]:
            result = {self.acc_value: done if done.dtype is self.dot.dtype else lookup("cast")(done, dtype=self.dot.dtype)}
            lets = [Let(f"{name}_{j}", substitute(place(v), result)) for j, v in enumerate(self.values)]
            return [*lets, *(Store(self.buffers[r], (place(w),), var(let.name, let.value.dtype))
                             for r, w, let in zip(self.group.roots, self.where, lets, strict=True))]

        if rows * operations(self.values) <= EPILOGUE or self.m is None:
            return [vector(self.stop, [s for i, c in enumerate(cells)
                                       for s in finish(load(acc, (c,)), lambda e, i=i: at(e, i), f"o{i}")])]  # type: ignore[misc]
        # A long epilogue is written once, in a loop over the rows of the tile, which waits on the stack meanwhile.
        waiting, i = Buffer("tile", dtype, (rows * width,), "stack"), var("i")
        here = self._row(row, i)
        return [Local(waiting), vector(full, [Store(waiting, (c,), load(acc, (c,))) for c in cells]),
                Loop("i", const(0), const(rows), 1, "serial", (
                    vector(self.stop, finish(load(waiting, (lane + i * width,)), lambda e: substitute(e, here), "o")),))]

    def _prefetches(self, lane: Expr) -> list[Stmt]:
        """Few rows use each element of a large right operand few times, so it must stream from memory: ahead of its use, line by line."""
        if not self.streams or self.b.op is not LOAD:
            return []
        at = substitute(self.b.args[0], {lane: const(0)})
        line = 64 // self.dtype.bytes
        return [Prefetch(self.b["buffer"], (at + k,), AHEAD // self.dtype.bytes) for k in range(0, self.columns, line)]


def _masked(e: Expr, mask: Expr) -> Expr:
    """The expression with its loads guarded: lanes beyond the last column read nothing and count as 0."""
    guarded = {x: load(x["buffer"], x.args[:1], mask) for x in walk(e) if x.op is LOAD and not x["masked"]}
    return substitute(e, guarded)


def _packed(e: Expr, width: int) -> bool:
    """Whether a load's buffer holds whole panels of this width (its size is a multiple of it, so the last one is complete)."""
    buffer: Buffer = e["buffer"]
    total = buffer.shape[0]
    panel = next((m for m, c in ix.polynomial(e.args[0]).items() if any(a["name"] == "j" for a in m if a.op.name == "var")), None)
    if not isinstance(total, int) or total % width or panel is None:
        return False
    step = ix.polynomial(e.args[0])[panel]
    return step % width == 0 and step > width and total % step == 0 or (step == width == total)


def _at_zero(body: Sequence[Stmt], v: Expr) -> list[Stmt]:
    """The statements with a variable that only takes the value 0."""
    return [Let(v["name"], const(0)), *body]


__all__ = ["lower_contraction"]
