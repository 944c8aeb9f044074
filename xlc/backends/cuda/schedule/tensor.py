"""Contractions on tensor cores: f16 and bf16, summed in f32; f32 as tf32, where the knob ``matmul_precision`` allows that.

    block b {
      thread t { tile 0 -> slot 0 }  thread t { tile 1 -> slot 1 }                                   in the background (async)
      serial kt { wait 1;  thread t { tile kt+2 -> slot (kt+2)%3;  mma acc[t], sa[...], sb[...] } }    each warp a part of the tile
      thread t { y[row, col] = epilogue(acc) }
    }

An operand lies in shared memory as it does in global memory (contracted elements side by side, or rows), padded so that the eight rows of
a fragment are in different banks. What is more than a copy (an operator in front, neighbours that are none) goes through registers instead,
in two slots.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc import config
from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, Loop, Mma, Stmt, Wait, const, load, size, var
from xlc.ir.types import DType, f32

from .bind import T, pieces, threads
from .contraction import Contraction, guarded
from .exchange import COLUMNS, GROUPS, element, exchanged
from .operand import Operand, Staged, divides, stripped
from .tiled import KT, Tile, Tiled, finished

PRODUCTS = {"highest": 0, "high": 3, "default": 1}


def products(c: Contraction, arch: str) -> tuple[DType, int] | None:
    """The dtype in which tensor cores of this chip take the operands of a contraction, and in how many products; None where they do not."""
    a, b = (stripped(o.value).dtype for o in (c.a, c.b))
    return products_of(a, b, arch) if c.dtype is f32 else None


def products_of(a: DType, b: DType, arch: str) -> tuple[DType, int] | None:
    """The same of operands of these dtypes, that are summed in f32."""
    chip = int(arch.removeprefix("sm_").rstrip("af"))
    if a is not b:
        return None
    if a.bits == 16 and a.is_float:
        return (a, 1) if chip >= (75 if a.name == "f16" else 80) else None
    count = PRODUCTS[config.matmul_precision]
    return (f32, count) if a is f32 and count and chip >= 80 else None


def copied(o: Operand, dtype: DType) -> bool:
    """Whether tiles are copied as they are, several bytes at a time."""
    value = stripped(o.value)
    return value.op is LOAD and value.dtype is dtype and o.lanes(o.ks if o.along_k else o.free) * dtype.bytes >= 4


def padded(o: Operand, rows: int, depth: int, dtype: DType, slots: int) -> Staged:
    pad = 8 if dtype.bits == 16 else 4 if o.along_k else 8
    row_step, k_step = (depth + pad, 1) if o.along_k else (1, rows + pad)
    return Staged(Operand(o.name, stripped(o.value), o.free, o.ks), rows, depth, dtype, row_step, k_step, slots)


class OnTensorCores(Tiled):
    """Groups of threads have parts of a tile; copies are so many tiles ahead, and one is being read."""

    group, down, ahead, busy = 32, 2, 2, 1
    staged = staticmethod(padded)

    def __init__(self, c: Contraction, tile: Tile, dtype: DType, products: int, exchanges: bool = True):
        self.c, self.tile, self.products, self.exchanges = c, tile, products, exchanges
        self.rows, self.columns = tile.rows // self.down, tile.columns // self.beside  # of a group
        self.plain = copied(c.a, dtype) and copied(c.b, dtype)
        self.slots = (self.ahead if self.plain else 1) + self.busy
        steps = pieces(c.depth, tile.depth)
        if isinstance(steps, int):
            self.slots = max(1, min(self.slots, steps))
        self.a, self.b = (self.staged(o, n, tile.depth, dtype, self.slots) for o, n in ((c.a, tile.rows), (c.b, tile.columns)))
        self.acc = Buffer("acc", f32, (256, self.rows * self.columns // self.group), "register")

    @property
    def beside(self) -> int:
        """Groups along the columns of a tile; ``down`` are along its rows."""
        return 256 // self.group // self.down

    def pipeline(self, row: Expr, column: Expr) -> list[Stmt]:
        if not self.plain:
            return super().pipeline(row, column)
        steps = pieces(self.c.depth, self.tile.depth)

        def copies(step: Expr) -> list[Stmt]:
            return [x for s, first in ((self.a, row), (self.b, column)) for x in s.copy(first, step * self.tile.depth, step % self.slots)]

        out: list[Stmt] = []
        for k in range(self.ahead):
            out.append(threads(*(self.cleared() if k == 0 else ()), *guarded(size(steps) > const(k), copies(const(k)))))
        with ix.ranges({KT: size(steps), T: const(256)}):
            later = KT + self.ahead
            following = guarded(size(steps) > later, copies(later))
            work = threads(*following, *self.multiply(KT % self.slots))
        return [*out, Loop("kt", const(0), size(steps), 1, "serial", (Wait(self.ahead - 1 if following else 0), work))]

    def multiply(self, slot: Expr) -> list[Stmt]:
        row, column = self.part
        return [Mma(self.acc, T, self.a.buffer, self.a.first(slot, row), self.a.steps, self.b.buffer, self.b.first(slot, column),
                    self.b.steps, (self.rows, self.columns, self.tile.depth), self.products, self.group)]

    @property
    def part(self) -> tuple[Expr, Expr]:
        """Where in a tile that of this thread's group begins."""
        group = T // self.group
        return group // self.beside * self.rows, group % self.beside * self.columns

    @property
    def whole(self) -> bool:
        """Whether lanes exchange results, so that halves are stored eight at a time."""
        p, free = self.c.product, self.c.b.free
        if not (self.exchanges and self.columns % (GROUPS * COLUMNS) == 0 and free and divides(COLUMNS, free[-1].extent)):
            return False
        return all(p.buffers[r].dtype.bits == 16 and ix.coefficient(w, free[-1].var) == 1
                   for r, w in zip(p.group.roots, p.where, strict=True))

    def finish(self, row: Expr, column: Expr) -> list[Stmt]:
        return [*(exchanged(self.acc) if self.whole else ()), *super().finish(row, column)]

    def epilogue(self, row: Expr, column: Expr) -> list[Stmt]:
        i, j, h = var("i"), var("j"), var("h_")
        (down, right), lane, warp = self.part, T % 32, T // 32 % (self.group // 32)
        step = self.group // 2  # rows of which a warp has 16
        near, wide = (COLUMNS, GROUPS * COLUMNS) if self.whole else (2, COLUMNS)
        high, across = self.rows // step, self.columns // wide

        def result(v: Expr) -> Expr:
            at = i * across + j
            return load(self.acc, (T, element(at, h, v) if self.whole else (at * 2 + h) * 2 + v))

        with ix.ranges({i: const(high), j: const(across), h: const(2), T: const(256)}):
            x = row + down + i * step + warp * 16 + h * 8 + lane // 4
            y = column + right + j * wide + lane % 4 * near
            body: Sequence[Stmt] = finished(self.c, self.tile, x, y, near, result)
        for v, n in ((h, 2), (j, across), (i, high)):
            body = [Loop(v["name"], const(0), const(n), 1, "unroll", tuple(body))]
        return list(body)


__all__ = ["OnTensorCores", "copied", "padded", "products", "products_of"]
