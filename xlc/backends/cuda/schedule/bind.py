"""Building loop nests for a GPU: who does what.

    positions(n, body)      one thread for each of n positions:   block b { thread t { let p = b*256+t; if (p < n) body } }
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


__all__ = ["B", "T", "THREADS", "blocks", "pieces", "positions", "threads"]
