"""Contractions with few rows or few columns: a matrix times vectors. They are bound by reading the matrix, which they do once.

    y[n] = sum over k of x[k] * w[n*4096+k]
 -> block b { thread t { serial i { acc += x[..] * w[..] }; s[t] = acc }
              thread t { if (t%32 < 16) s[t] += s[t+16] } ...   thread t { if (t%32 == 0) y[b*8+t//32] = s[t] } }

Threads share the columns, and the contracted elements of each column: neighbours among them along the direction in which the matrix lies in
memory. The sums of those that share a column are added in a tree, whose shape depends on that of the contraction alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, substitute, var
from xlc.ir.machine import Machine
from xlc.ir.types import Size

from .bind import THREADS, B, T, blocks, pieces, threads
from .contraction import Contraction, guarded
from .operand import LANE, TRUE, Operand, divides, length, position

FEW = 8  # rows up to which this serves
SUMS = 32  # of one thread
NEAR = 8  # threads that read neighbours at least
COLUMN, STEP = var("p"), var("i")


def few_rows(c: Contraction, machine: Machine) -> list[Stmt] | None:
    """The loop nest, if one of the operands has few rows."""
    rows = [(n, o) for o in (c.a, c.b) if isinstance(n := length(o.free), int) and n <= FEW]
    return _Few(c, *min(rows, key=lambda r: r[0]), machine).nest() if rows else None


class _Few:
    """``few`` has ``rows``; the positions of the other operand, ``many``, and of the batch are the columns. A thread sums ``wide`` of them
    and reads ``deep`` contracted elements together, ``steps`` times at once; ``shared`` threads share a column."""

    def __init__(self, c: Contraction, rows: int, few: Operand, machine: Machine):
        self.c, self.rows, self.few = c, rows, few
        many = c.b if few is c.a else c.a
        self.along_k = many.along_k or not many.free
        self.wide = 1 if self.along_k else many.lanes(many.free)
        while self.wide * rows > SUMS:
            self.wide //= 2  # it divides the columns
        self.deep = many.lanes(many.ks) if self.along_k else 1
        self.many = Operand("m", many.value, (*c.batch, *many.free), many.ks)
        self.shared = self._shared(machine)
        self.columns = THREADS // self.shared
        depth = c.depth if isinstance(c.depth, int) else 1 << 20
        self.steps = max(1, min(8 // self.deep if self.along_k else 4, depth // (self.shared * self.deep)))
        self.sums = Buffer("acc", c.dtype, (self.rows * self.wide,), "register")
        self.parts = Buffer("s", c.dtype, (self.rows * self.wide * THREADS,), "shared")

    def _shared(self, machine: Machine) -> int:
        """So many that the blocks occupy the chip and neighbours read neighbours, but no more than have something to add."""
        found, count = self.c.depth, length(self.many.free)
        most = THREADS
        while most > 1 and isinstance(found, int) and most * self.deep * 2 > found:
            most //= 2
        least, most = (min(NEAR, most), most) if self.along_k else (1, min(most, THREADS // NEAR))
        shared = least
        while shared < most and isinstance(count, int) and count * shared < 2 * machine.cores * THREADS * self.wide:
            shared *= 2
        return shared

    @property
    def count(self) -> Size:
        return length(self.many.free)

    def nest(self) -> list[Stmt]:
        own, part = (T // self.shared, T % self.shared) if self.along_k else (T % self.columns, T // self.columns)
        per_block = self.columns * self.wide
        with ix.ranges({T: const(THREADS), B: size(pieces(self.count, per_block)), LANE: const(max(self.wide, self.deep))}):
            first = Let("p", B * per_block + own * self.wide)
            exists = TRUE if divides(per_block, self.count) else size(self.count) > COLUMN
            summed = [first, Local(self.sums), *self.each(lambda e: [Store(self.sums, (e,), self.c.zero())]), *self.sum(part, exists)]
            if self.shared == 1:
                return [blocks(pieces(self.count, per_block), threads(*summed, *guarded(exists, self.finish(self.sums, 1, const(0)))))]
            kept = self.each(lambda e: [Store(self.parts, (e * THREADS + T,), load(self.sums, (e,)))])
            last = threads(first, *guarded(exists & (part < 1), self.finish(self.parts, THREADS, T)))
            return [blocks(pieces(self.count, per_block), Local(self.parts), threads(*summed, *kept), *self.tree(part), last)]

    def each(self, body: Callable[[Expr], Sequence[Stmt]]) -> list[Stmt]:
        """``body(e)`` for each of a thread's sums."""
        n, e = self.rows * self.wide, var("e")
        with ix.ranges({e: const(n)}):
            return list(body(const(0))) if n == 1 else [Loop("e", const(0), const(n), 1, "unroll", tuple(body(e)))]

    # -- the sums of a thread ---------------------------------------------------------------------

    def sum(self, part: Expr, exists: Expr) -> list[Stmt]:
        c, u, r = self.c, var("u"), var("r")
        lanes = max(self.wide, self.deep)
        each = self.steps * self.shared * self.deep
        mine = Buffer("m", c.dtype, (self.steps * lanes,), "register")
        others = Buffer("f", c.dtype, (self.steps * self.rows * self.deep,), "register")
        trips = pieces(c.depth, each)
        with ix.ranges({u: const(self.steps), r: const(self.rows), STEP: size(trips), COLUMN: size(self.count)}):
            k = ((STEP * self.steps + u) * self.shared + part) * self.deep
            edge = exists if divides(each, c.depth) else exists & (k < size(c.depth))
            fetch = self.vector(mine, u * lanes, lanes, self.many.at(COLUMN, k, edge, LANE, self.along_k))
            column = position(self.many.free, COLUMN)
            row = tuple(substitute(e, column) for e in self.few.at(r, k, edge, LANE, True))
            fetch.append(Loop("r", const(0), const(self.rows), 1, "unroll",
                              tuple(self.vector(others, (u * self.rows + r) * self.deep, self.deep, row))))
        w = var("w")

        def added(e: Expr) -> list[Stmt]:
            x = load(mine, (u * lanes + (w if self.along_k else e % self.wide),))
            y = load(others, ((u * self.rows + e // self.wide) * self.deep + w,))
            return [Store(self.sums, (e,), c.added(load(self.sums, (e,)), x, y))]

        add = Loop("w", const(0), const(self.deep), 1, "unroll", tuple(self.each(added)))
        return [Loop("i", const(0), size(trips), 1, "serial", (Local(mine), Local(others), self.unrolled(fetch), self.unrolled([add])))]

    def unrolled(self, body: Sequence[Stmt]) -> Stmt:
        return Loop("u", const(0), const(self.steps), 1, "unroll", tuple(body))

    def vector(self, into: Buffer, at: Expr, lanes: int, found: tuple[Expr, ...]) -> list[Stmt]:
        """Neighbours read into registers."""
        condition, value, other = found

        def read(e: Expr) -> Loop:
            return Loop("v", const(0), const(lanes), 1, "vector", (Store(into, (at + LANE,), self.c.widened(e)),), lanes)

        return [read(value)] if condition is TRUE else [If(condition, (read(value),), (read(other),))]

    # -- the sums of all that share a column ------------------------------------------------------

    def tree(self, part: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        half, apart = self.shared // 2, 1 if self.along_k else self.columns
        while half:
            def add(e: Expr, far: int = half * apart) -> list[Stmt]:
                at = e * THREADS + T
                return [Store(self.parts, (at,), self.c.joined(load(self.parts, (at,)), load(self.parts, (at + far,))))]

            out.append(threads(If(part < half, tuple(self.each(add)))))
            half //= 2
        return out

    def finish(self, done: Buffer, step: int, own: Expr) -> list[Stmt]:
        r = var("r")
        with ix.ranges({r: const(self.rows), COLUMN: size(self.count)}):
            at = {**position(self.many.free, COLUMN, LANE), **position(self.few.free, r)}
            stores = self.c.finish(load(done, ((r * self.wide + LANE) * step + own,)), at)
            return [Loop("r", const(0), const(self.rows), 1, "unroll", (
                Loop("v", const(0), const(self.wide), 1, "vector", tuple(stores), self.wide),))]


__all__ = ["few_rows"]
