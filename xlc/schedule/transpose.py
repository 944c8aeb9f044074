"""Elementwise kernels that read some operand along another dimension than they write: square tiles, turned in registers.

    z[i*n+j] = x[j*m+i] + 1
    ->
    parallel l (16 of j), serial d (16 of i):
      unroll a: vector v in 0..16 { tile[a,v] = x[(l+a)*m + d+v] }          16 neighbours of x at a time
      unroll c: vector w in 0..16 { z[(d+c)*n + l+w] = tile[w,c] + 1 }      16 neighbours of z at a time

so that memory is read and written in whole vectors, and no line of the cache is visited twice. What does not fill a tile uses a part
of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Local, Loop, Stmt, Store, const, load, size, substitute, var, walk
from xlc.ir.machine import Machine
from xlc.ir.op import lookup
from xlc.ir.types import Size

from .nest import Dimension, stored

TILE = 16
TILES = 64  # tiles that one step of the parallel loop turns

Place = tuple[Buffer, Expr, Expr]  # buffer, address, value


def turned(dims: Sequence[Dimension], stores: Sequence[Place]) -> tuple[Dimension, list[Expr]] | None:
    """The dimension along which most of the operands that are not read along the last dimension lie, and these loads."""
    last = dims[-1]
    found: dict[Dimension, list[Expr]] = {}
    for e in walk(*(v for _, _, v in stores)):
        if e.op is not LOAD or e["buffer"].space != "global" or e.dtype.kind == "b":
            continue
        p = ix.polynomial(e.args[0])
        across = next((d for d in dims[:-1] if p.get((d.var,)) == 1 and not _elsewhere(p, d.var)), None)
        if across is not None and p.get((last.var,)) != 1 and any(ix.depends(a, last.var) for m in p for a in m):
            found.setdefault(across, []).append(e)
    if not found:
        return None
    d, loads = max(found.items(), key=lambda f: len(f[1]))
    small = min(s for s in (d.static, last.static, 1 << 30) if s is not None)
    return (d, loads) if small >= 4 and len(loads) <= 4 else None


def _elsewhere(p: ix.Polynomial, v: Expr) -> bool:
    """Whether v occurs in an address in another way than as a term of its own."""
    return any(m != (v,) and any(ix.depends(a, v) for a in m) for m in p)


def transposing(dims: Sequence[Dimension], stores: Sequence[Place], machine: Machine,
                around: Callable[[Sequence[Dimension], Sequence[Stmt]], list[Stmt]]) -> list[Stmt] | None:
    """The loop nest, None where nothing is turned. ``around`` makes the parallel loop."""
    found = turned(dims, stores)
    if found is None:
        return None
    d, loads = found
    last = dims[-1]
    t = min(TILE, machine.lanes(max(32, *(e.dtype.bits for e in loads))))
    tiles = [Buffer(f"tile{k}", e.dtype, (t, t), "register") for k, e in enumerate(loads)]

    def tile(l0: Expr, d0: Expr, rows: int, columns: int) -> list[Stmt]:
        a, c, v, w = (var(name) for name in "acvw")
        out: list[Stmt] = []
        for buffer, e in zip(tiles, loads, strict=True):
            moved = substitute(e, {last.var: l0 + a, d.var: d0 + v})
            vector = Loop("v", const(0), const(columns), 1, "vector", (Store(buffer, (a, v), moved),), t)
            out += [Local(buffer), Loop("a", const(0), const(rows), 1, "unroll", (vector,))]
        turned_loads = {e: load(b, (w, c)) for b, e in zip(tiles, loads, strict=True)}
        at = {last.var: l0 + w, d.var: d0 + c}
        done = [(b, substitute(address, at), substitute(substitute(value, turned_loads), at)) for b, address, value in stores]
        body = Loop("w", const(0), const(rows), 1, "vector", tuple(stored(done)), t)
        return [*out, Loop("c", const(0), const(columns), 1, "unroll", (body,))]

    def rest(l0: Expr, rows: Expr, d0: Expr, stop: Expr) -> list[Stmt]:
        """Element by element along the last dimension, for what is left of a size that is not known."""
        w = var("w")
        at = {last.var: l0 + w, d.var: var("g")}
        done = [(b, substitute(address, at), substitute(value, at)) for b, address, value in stores]
        return [Loop("g", d0, stop, 1, "serial", (Loop("w", const(0), rows, 1, "vector", tuple(stored(done)), t),))]

    def strip(l0: Expr, rows: int, lo: Expr, hi: Expr) -> list[Stmt]:
        """``rows`` of the last dimension, lo..hi of the other."""
        n, at = d.static, var("d_")
        if n is None:
            whole = lo + ((hi - lo) // t) * t
            return [Loop("d_", lo, whole, t, "serial", tuple(tile(l0, at, rows, t))), *rest(l0, const(rows), whole, hi)]
        full, edge = n // t * t, n % t
        main: list[Stmt] = [Loop("d_", lo, lookup("minimum")(hi, const(full)), t, "serial", tuple(tile(l0, at, rows, t)))] if full else []
        if not edge:
            return main
        partial = tile(l0, const(full), rows, edge)
        return [*main, *(partial if n <= chunk else [If(hi >= const(n), tuple(partial))])]

    chunk = t * TILES
    n, m = last.static, d.static
    tiles_of, chunks_of = Dimension(var("p_"), _pieces(last, t)), Dimension(var("q_"), _pieces(d, chunk))
    l0 = tiles_of.var * t if tiles_of.extent != 1 else const(0)
    lo = chunks_of.var * chunk if chunks_of.extent != 1 else const(0)
    with ix.ranges({x.var: size(x.extent) for x in (tiles_of, chunks_of)}):
        hi = size(d.extent) if m is not None and m <= chunk else lo + chunk if m is not None and m % chunk == 0 else \
            lookup("minimum")(lo + chunk, size(d.extent))
        body: list[Stmt]
        if n is None:
            end = size(last.extent)
            body = [If(l0 + t <= end, tuple(strip(l0, t, lo, hi)), tuple(rest(l0, end - l0, lo, hi)))]
        elif n < t:
            body = strip(l0, n, lo, hi)
        elif n % t:
            body = [If(l0 + t <= const(n), tuple(strip(l0, t, lo, hi)), tuple(strip(l0, n % t, lo, hi)))]
        else:
            body = strip(l0, t, lo, hi)
    return around([*(x for x in dims[:-1] if x.var is not d.var), tiles_of, chunks_of], body)


def _pieces(d: Dimension, step: int) -> Size:
    return (d.extent + (step - 1)) // step


__all__ = ["transposing", "turned"]
