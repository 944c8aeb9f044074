"""Elementwise kernels that read operands along another dimension than they write: tiles turned in shared memory.

    z[i*n+j] = x[j*m+i] + 1
    ->
    block b (32 of i, 32 of j) {
      local tile: f32[32,33] shared                                       a column more, so that columns lie in different banks
      thread t { x = t%32, y = t//32: for r: tile[y+8*r, x] = x[(j0+y+8*r)*m + i0+x] }          a warp reads 32 neighbours
      thread t { ... for r: z[(i0+y+8*r)*n + j0+x] = tile[x, y+8*r] + 1 }                         and writes 32 neighbours
    }

What lies beyond an edge is neither read nor written.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, substitute, var
from xlc.ir.types import product
from xlc.schedule.nest import Dimension, decode, stored
from xlc.schedule.transpose import Place, turned

from .bind import THREADS, B, T, blocks, pieces, threads

TILE = 32
ROWS = THREADS // TILE  # of a tile that a block reads or writes at a time
LEAST = 8  # elements of a dimension, below which neighbours in the other one lie close enough


def transposing(dims: Sequence[Dimension], stores: Sequence[Place]) -> list[Stmt] | None:
    """The loop nest; None where nothing is turned, or along so short a dimension that caches do."""
    found = turned(dims, stores)
    if found is None or any(d.static is not None and d.static < LEAST for d in (found[0], dims[-1])):
        return None
    d, loads = found
    last = dims[-1]
    tiles = [Buffer(f"tile{k}", e.dtype, (TILE, TILE + 1), "shared") for k, e in enumerate(loads)]
    over, down = Dimension(var("p_"), pieces(last.extent, TILE)), Dimension(var("q_"), pieces(d.extent, TILE))
    outer = [*(x for x in dims[:-1] if x.var is not d.var), down, over]
    x, y, r = var("x"), var("y"), var("r")
    row = y + r * ROWS

    def each(l_at: Expr, d_at: Expr, body: Sequence[Stmt]) -> Loop:
        """What threads do at these places of a tile, if they are inside."""
        lanes = [Let("x", T % TILE), Let("y", T // TILE)]
        inside = (over.var * TILE + l_at < size(last.extent)) & (down.var * TILE + d_at < size(d.extent))
        if inside.is_const:
            return threads(*lanes, Loop("r", const(0), const(TILE // ROWS), 1, "unroll", tuple(body)))
        return threads(*lanes, Loop("r", const(0), const(TILE // ROWS), 1, "unroll", (If(inside, tuple(body)),)))

    total = product(e.extent for e in outer)
    variables = {B: size(total), T: const(THREADS), x: const(TILE), y: const(ROWS), r: const(TILE // ROWS)}
    with ix.ranges({**variables, **{e.var: size(e.extent) for e in outer}}):
        def moved(e: Expr, l_at: Expr, d_at: Expr) -> Expr:
            return substitute(e, {last.var: over.var * TILE + l_at, d.var: down.var * TILE + d_at})

        read = [Store(tile, (row, x), moved(e, row, x)) for tile, e in zip(tiles, loads, strict=True)]
        values = {e: load(tile, (x, row)) for tile, e in zip(tiles, loads, strict=True)}
        write = stored([(b, moved(a, x, row), moved(substitute(v, values), x, row)) for b, a, v in stores])
        return [blocks(total, *decode(outer, B), *(Local(tile) for tile in tiles), each(row, x, read), each(x, row, write))]


__all__ = ["transposing"]
