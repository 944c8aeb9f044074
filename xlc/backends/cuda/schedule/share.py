"""Tiles of which every thread has some elements in registers, whole rows in the lanes of one warp; and products that are added to them.

    Share(2, 8, 2, tensor=True)     of a tile of 128 x 64 a thread has rows r and r + 8, and of these 8 times 2 neighbouring columns

Tensor cores multiply where they take the operands (then a warp has 16 or 32 whole rows), else single threads do, with fma. What is
computed from a tile (an online softmax, a chain of contractions) is up to the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, Local, Loop, Mma, Stmt, Store, const, load, substitute, var, walk
from xlc.ir.op import lookup
from xlc.ir.types import f32

from .bind import T
from .operand import LANE, TRUE, Staged
from .tensor import copied

LANES = 16  # threads that share rows, where they multiply themselves
H, G = var("h_"), var("g_")


@dataclass(frozen=True)
class Share:
    """The elements of a tile that a thread has in registers: ``high`` rows, ``groups`` times ``near`` neighbouring columns. Its rows' other
    elements are in the lanes that differ in ``bits``."""

    high: int
    groups: int
    near: int
    tensor: bool
    together: int = 32  # threads that multiply together, on tensor cores

    @property
    def bits(self) -> tuple[int, ...]:
        return (1, 2) if self.tensor else (1, 2, 4, 8)

    @property
    def count(self) -> int:
        return self.high * self.groups * self.near

    @property
    def part(self) -> tuple[Expr, int]:
        """The rows of the threads that multiply together: the first, and how many."""
        count = self.together // 4 * self.high
        return T // self.together * count, count

    @property
    def span(self) -> tuple[Expr, int]:
        """The first of rows that follow each other and hold all of a thread (of its warp), and how many these are."""
        assert self.together == 32 or self.high == 2  # of four warps, each has 16 rows of every 64
        return (T // 32 * (8 * self.high), 8 * self.high) if self.tensor else (T // LANES * self.high, self.high)

    def row(self, h: Expr) -> Expr:
        return self.span[0] + (h * 8 + T % 32 // 4 if self.tensor else h)

    def column(self, g: Expr) -> Expr:
        return g * 8 + T % 4 * 2 if self.tensor else g * (LANES * self.near) + T % LANES * self.near

    def element(self, h: Expr, g: Expr, lane: Expr) -> Expr:
        return ((h // 2 * self.groups + g) * 2 + h % 2) * 2 + lane if self.tensor else (h * self.groups + g) * self.near + lane

    def each_row(self, body: Sequence[Stmt]) -> Stmt:
        return Loop(H["name"], const(0), const(self.high), 1, "unroll", tuple(body))

    def each_group(self, body: Sequence[Stmt]) -> Stmt:
        return Loop(G["name"], const(0), const(self.groups), 1, "unroll", tuple(body))

    def each(self, body: Sequence[Stmt]) -> Stmt:
        return self.each_group([Loop(LANE["name"], const(0), const(self.near), 1, "unroll", tuple(body))])


def filled(b: Buffer, value: float) -> list[Stmt]:
    e, n = var("e"), b.shape[1]
    assert isinstance(n, int)
    return [Loop("e", const(0), const(n), 1, "vector", (Store(b, (T, e), const(value, f32)),), n)]


def moved(x: Staged, row: Expr, k: Expr, slot: Expr = const(0)) -> tuple[list[Stmt], list[Stmt], list[Stmt]]:  # noqa: B008  (immutable)
    """A tile on its way to shared memory: registers for it, what begins it, and what is done when there is time to wait for it."""
    if copied(x.operand, x.dtype):
        return [], x.copy(row, k, slot), []
    return [Local(x.registers)], x.fetch(row, k), x.keep(slot)


def multiplied(acc: Buffer, share: Share, a: Staged | Buffer, b: Staged, depth: int, products: int,
               slot: Expr = const(0)) -> list[Stmt]:  # noqa: B008  (immutable)
    """The product of two tiles is added to what each thread has in ``acc``; ``products`` of tensor cores (0: none), which take the left one
    from registers, too. ``slot`` is that of b."""
    if products:
        first, rows = share.part
        source, at, steps = (a, const(0), (0, 0)) if isinstance(a, Buffer) else (a.buffer, a.first(const(0), first), a.steps)
        return [Mma(acc, T, source, at, steps, b.buffer, b.first(slot, const(0)), b.steps, (rows, b.rows, depth), products, share.together)]
    assert isinstance(a, Staged)
    k, u, e, across = var("k"), var("u"), var("e"), share.groups * share.near
    fragments = [_fragment("fa", a, share.high, 1, share.row, const(0)),
                 _fragment("fb", b, across, share.near, share.column, slot * b.pitch)]
    with ix.ranges({e: const(share.count), u: const(4)}):
        left, right = (load(f, (at * 4 + u,)) for (f, _), at in zip(fragments, (e // across, e % across), strict=True))
        added = lookup("fma")(left, right, load(acc, (T, e)))
    lanes = Loop("e", const(0), const(share.count), 1, "vector", (Store(acc, (T, e), added),), share.count)
    inner = [*(Local(f) for f, _ in fragments), *(s for _, body in fragments for s in body),
             Loop("u", const(0), const(4), 1, "unroll", (lanes,))]
    return [Loop(k["name"], const(0), const(depth // 4), 1, "serial", tuple(inner))]


def _fragment(name: str, s: Staged, count: int, near: int, place: Callable[[Expr], Expr], first: Expr) -> tuple[Buffer, list[Stmt]]:
    """Four contracted elements of a thread's rows (or columns), in registers."""
    f, u, k = Buffer(name, s.dtype, (4 * count,), "register"), var("u"), var("k") * 4

    def vector(n: int, into: Expr, at: Expr) -> Stmt:
        return Loop("v", const(0), const(n), 1, "vector", (Store(f, (into,), load(s.buffer, (first + at,))),), n)

    if s.k_step == 1:
        assert near == 1
        return f, [Loop("g_", const(0), const(count), 1, "unroll", (vector(4, G * 4 + LANE, place(G) * s.row_step + k + LANE),))]
    one = vector(near, (G * near + LANE) * 4 + u, (k + u) * s.k_step + place(G) + LANE)
    return f, [Loop("u", const(0), const(4), 1, "unroll", (Loop("g_", const(0), const(count // near), 1, "unroll", (one,)),))]


def read_where(e: Expr, edge: Expr, at: dict[Expr, Expr]) -> Expr:
    """A value at a position, that is read from memory where that exists."""
    e = substitute(e, at)
    if edge is TRUE:
        return e
    loads = {x: load(x["buffer"], x.args[:-1] if x["masked"] else x.args, edge & x.args[-1] if x["masked"] else edge)
             for x in walk(e) if x.op is LOAD}
    return substitute(e, loads) if loads else e


__all__ = ["LANES", "G", "H", "Share", "filled", "moved", "multiplied", "read_where"]
