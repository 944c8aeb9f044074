"""Contractions of large matrices on a GPU: a tile of the result for each block, a part of it in the registers of each thread.

    block b {                                                  tiles in an order in which neighbours share rows and columns in the L2
      local sa, sb shared;  local acc: f32[256,64] register
      thread t { stage tile 0 }
      serial kt { thread t { load tile kt+1 into registers;  acc += (columns of sa) x (rows of sb);  registers -> the other slot } }
      thread t { y[row, col] = epilogue(acc) }
    }

Operands are staged through the inliner, so any view in front of them (a window, a transposed one, padding) is read where it lies, and a
convolution is an implicit matrix product. Each sum is one chain of fused multiply-adds in the order of the contracted dimension, in f32
for halves; integers below 32 bits are summed in 32 and cut, which wraps as if each step had been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.types import Size, product
from xlc.schedule.nest import Dimension, decode

from .bind import B, T, blocks, pieces, threads
from .contraction import Contraction, guarded
from .operand import LANE, TRUE, Staged, divides, position

SIDE = 16  # threads along each side of a tile
ROWS, COLUMNS = 4, 8  # lanes of a warp along the sides of its part
TOGETHER = range(8, 3, -1)  # tile rows that are worked on together, so that their columns are read from L2
KT = var("kt")


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``columns`` of the result, ``depth`` contracted elements at a time."""

    rows: int
    columns: int
    depth: int


def tile_order(batch: Sequence[Dimension], down: Size, across: Size, body: Callable[[Expr, Expr], Sequence[Stmt]]) -> list[Stmt]:
    """One block for each of batch x down x across tiles. Several rows of tiles (or columns) are worked on together."""
    high, broad = _together(down), _together(across)
    mt, nt = var("mt"), var("nt")
    rows_inside = high >= broad
    many, few, within = (down, across, high) if rows_inside else (across, down, broad)
    outer = Dimension(var("g"), many // within if isinstance(many, int) else many)
    dims = [*batch, *(d for d in (outer, Dimension(nt if rows_inside else mt, few), Dimension(var("h"), within)) if d.extent != 1)]
    known = {d.var for d in dims}

    def here(v: Expr) -> Expr:
        return v if v in known else const(0)

    grouped = here(outer.var) * within + here(var("h"))
    with ix.ranges({d.var: size(d.extent) for d in dims}):
        lets = decode(dims, B) if dims else []
        place = (grouped, here(nt)) if rows_inside else (here(mt), grouped)
        return [blocks(product(d.extent for d in dims), *lets, *body(*place))]


def _together(n: Size) -> int:
    if not isinstance(n, int):
        return 1
    return n if n <= TOGETHER.start else next((d for d in TOGETHER if n % d == 0), 1)


# ------------------------------------------------------------------------------------------------ tiles in registers


class Tiled:
    """Every thread owns a part of the tile of rows/16 x columns/16 elements, in groups of neighbours that are read from shared memory by
    one access; the lanes of a warp are 4 x 8 of these, so that it reads few different ones."""

    slots = 2

    def __init__(self, c: Contraction, tile: Tile):
        self.c, self.tile = c, tile
        pad = 16 // c.dtype.bytes
        self.a, self.b = (Staged(o, n, tile.depth, c.dtype, 1, n + pad, self.slots) for o, n in ((c.a, tile.rows), (c.b, tile.columns)))
        self.high, self.across = tile.rows // SIDE, tile.columns // SIDE
        self.acc = Buffer("acc", c.dtype, (256, self.high * self.across), "register")

    def nest(self) -> list[Stmt]:
        c, t = self.c, self.tile
        return tile_order(c.batch, pieces(c.rows, t.rows), pieces(c.columns, t.columns), self.block)

    def block(self, mt: Expr, nt: Expr) -> list[Stmt]:
        row, column = var("row"), var("col")
        return [Let("row", mt * self.tile.rows), Let("col", nt * self.tile.columns), *(Local(s.buffer) for s in (self.a, self.b)),
                Local(self.acc), *self.pipeline(row, column), *self.finish(row, column)]

    def finish(self, row: Expr, column: Expr) -> list[Stmt]:
        return [threads(*self.epilogue(row, column))]

    def cleared(self) -> list[Stmt]:
        e, n = var("e"), self.acc.shape[1]
        assert isinstance(n, int)
        return [Loop("e", const(0), const(n), 1, "vector", (Store(self.acc, (T, e), self.c.zero()),), n)]

    def pipeline(self, row: Expr, column: Expr) -> list[Stmt]:
        """All steps along the contracted dimension: what the next one needs is read while this one is computed."""
        first, place = (self.a, self.b), (row, column)
        steps = pieces(self.c.depth, self.tile.depth)

        def staged(step: Expr) -> list[Stmt]:
            return [x for s, p in zip(first, place, strict=True) for x in s.fetch(p, step * self.tile.depth)]

        def kept(step: Expr) -> list[Stmt]:
            return [x for s in first for x in s.keep(step % self.slots)]

        registers = [Local(s.registers) for s in first]
        with ix.ranges({KT: size(steps), T: const(256)}):
            more, work = size(steps) > KT + 1, self.multiply(KT % self.slots)
            if steps != 1:
                work = [*registers, *guarded(more, staged(KT + 1)), *work, *guarded(more, kept(KT + 1))]
        start = [*registers, *staged(const(0)), *kept(const(0))] if steps != 0 else []
        return [threads(*self.cleared(), *start), Loop("kt", const(0), size(steps), 1, "serial", (threads(*work),))]

    # -- who owns what ----------------------------------------------------------------------------

    @property
    def neighbours(self) -> int:
        """Rows, or columns, of a thread that lie side by side at most."""
        return 16 // self.c.dtype.bytes if self.c.dtype.bytes >= 4 else 4

    def places(self, count: int, lanes: int, down: bool) -> tuple[int, Callable[[Expr], Expr]]:
        """How many of a thread's ``count`` rows (columns) lie side by side, and where in the tile group number g of them begins."""
        near = min(count, self.neighbours)
        lane, warp = T % 32, T // 32
        own, part = (lane // COLUMNS, warp // 2) if down else (lane % COLUMNS, warp % 2)
        return near, lambda g: part * (lanes * count) + g * (lanes * near) + own * near

    def multiply(self, slot: Expr) -> list[Stmt]:
        """The tiles in a slot multiplied."""
        k, g, e = var("k"), var("g_"), var("e")
        out: list[Stmt] = []
        fragments = []
        for s, count, lanes in ((self.a, self.high, ROWS), (self.b, self.across, COLUMNS)):
            near, place = self.places(count, lanes, s is self.a)
            f = Buffer(f"f{s.operand.name}", s.dtype, (count,), "register")
            at = slot * s.pitch + k * s.k_step + place(g) + LANE
            read = Loop("v", const(0), const(near), 1, "vector", (Store(f, (g * near + LANE,), load(s.buffer, (at,))),), near)
            out += [Local(f), Loop("g_", const(0), const(count // near), 1, "unroll", (read,))]
            fragments.append(f)
        n = self.high * self.across
        with ix.ranges({e: const(n)}):
            a, b = load(fragments[0], (e // self.across,)), load(fragments[1], (e % self.across,))
        out.append(Loop("e", const(0), const(n), 1, "vector", (Store(self.acc, (T, e), self.c.added(load(self.acc, (T, e)), a, b)),), n))
        return [Loop("k", const(0), const(self.tile.depth), 1, "unroll", tuple(out))]

    def epilogue(self, row: Expr, column: Expr) -> list[Stmt]:
        i, g = var("i"), var("g_")
        near_rows, row_of = self.places(self.high, ROWS, True)
        near, column_of = self.places(self.across, COLUMNS, False)
        with ix.ranges({i: const(self.high), g: const(self.across // near), T: const(256)}):
            at = row + row_of(i // near_rows) + i % near_rows
            inside = finished(self.c, self.tile, at, column + column_of(g), near,
                              lambda lane: load(self.acc, (T, i * self.across + g * near + lane)))
        return [Loop("i", const(0), const(self.high), 1, "unroll", (
            Loop("g_", const(0), const(self.across // near), 1, "unroll", tuple(inside)),))]


def finished(c: Contraction, tile: Tile, row: Expr, column: Expr, near: int, acc: Callable[[Expr], Expr]) -> list[Stmt]:
    """What follows the contraction at ``near`` neighbouring columns, where these exist; as vectors where they exist together."""
    x, y, z = var("x"), var("y"), var("z")
    edge = TRUE if divides(tile.rows, c.rows) else x < size(c.rows)
    beyond = not divides(tile.columns, c.columns)
    lets: list[Stmt] = [Let("x", row), Let("y", column)]
    if c.b.free and divides(near, c.b.free[-1].extent):
        edge = edge & (y < size(c.columns)) if beyond else edge
        together = c.finish(acc(LANE), {**position(c.a.free, x), **position(c.b.free, y, LANE)})
        return [*lets, *guarded(edge, [Loop("v", const(0), const(near), 1, "vector", tuple(together), near)])]
    inside = c.finish(acc(LANE), {**position(c.a.free, x), **position(c.b.free, z)})
    each = Loop("v", const(0), const(near), 1, "unroll", (Let("z", y + LANE), *guarded(z < size(c.columns) if beyond else TRUE, inside)))
    return [*lets, *guarded(edge, [each])]


__all__ = ["Tile", "Tiled", "finished", "tile_order"]
