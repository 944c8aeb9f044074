"""Building loop nests for a GPU: who does what.

    positions(n, body)      one thread for each of n positions:   block b { thread t { let p = b*256+t; if (p < n) body } }
    bound(statements)       a nest made for a CPU, one thread for each step of its parallel loop
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from xlc.ir import index as ix
from xlc.ir.loops import Expr, If, Let, Loop, Stmt, const, size, var
from xlc.ir.types import Size

THREADS = 256
T, B = var("tx"), var("bx")


def threads(*body: Stmt) -> Loop:
    """What every thread of a block does."""
    return Loop(T["name"], const(0), const(THREADS), 1, "thread", tuple(body))


def blocks(count: Size | Expr, *body: Stmt) -> Loop:
    return Loop(B["name"], const(0), count if isinstance(count, Expr) else size(count), 1, "block", tuple(body))


def pieces(n: Size, each: int) -> Size:
    """How many pieces of that length n has, the last one perhaps shorter."""
    return (n + (each - 1)) // each


def positions(n: Size, body: Callable[[Expr], Sequence[Stmt]], each: int = 1, times: int = 1) -> list[Stmt]:
    """One thread for each ``each`` of n positions, ``times`` times; ``body`` gets the first position, as a variable that is below n.

    A thread that works several times has its positions 256 * each apart, so that a warp always touches neighbours, and blocks that lie
    within n as a whole ask for nothing: then all loads of a thread are under way before it waits for the first."""
    per_block = THREADS * each * times
    p, u = var("p"), var("u")

    def block(guarded: bool) -> Loop:
        with ix.ranges({T: const(THREADS), B: size(pieces(n, per_block)), u: const(times)}):
            where = B * per_block + (u * (THREADS * each) if times > 1 else 0) + T * each
            with ix.ranges({p: size(n)}):
                inner = tuple(body(p))
            one = (Let("p", where), *((If(p < size(n), inner),) if guarded else inner))
            return threads(Loop("u", const(0), const(times), 1, "unroll", one)) if times > 1 else threads(*one)

    if isinstance(n, int) and n % per_block == 0:
        return [blocks(pieces(n, per_block), block(False))]
    if times == 1:
        return [blocks(pieces(n, per_block), block(True))]
    return [blocks(pieces(n, per_block), If(B * per_block + per_block <= size(n), (block(False),), (block(True),)))]


def bound(nest: Sequence[Stmt]) -> list[Stmt]:
    """A nest made for a CPU on a GPU: one thread for each step of its parallel loop, or a single one."""
    if not nest:
        return []
    outer = nest[0]
    if len(nest) != 1 or not isinstance(outer, Loop) or outer.kind != "parallel":
        return positions(1, lambda p: [_scalar(s) for s in nest])
    trips = (outer.stop - outer.start + (outer.step - 1)) // outer.step
    p = var(outer.var + "_p")
    body = (Let(outer.var, outer.start + p * outer.step), *map(_scalar, outer.body))
    if trips.is_const:
        count = trips.value
        return [blocks(-(-count // THREADS), threads(Let(p["name"], B * THREADS + T), If(p < count, body)))]
    return [blocks((trips + (THREADS - 1)) // THREADS, threads(Let(p["name"], B * THREADS + T), If(p < trips, body)))]


def _scalar(s: Stmt) -> Stmt:
    """Lanes one after another."""
    if isinstance(s, Loop):
        return replace(s, kind="serial" if s.kind == "vector" else s.kind, body=tuple(map(_scalar, s.body)))
    if isinstance(s, If):
        return replace(s, body=tuple(map(_scalar, s.body)), orelse=tuple(map(_scalar, s.orelse)))
    return s


__all__ = ["B", "T", "THREADS", "blocks", "bound", "pieces", "positions", "threads"]
