"""Contractions of f16 and bf16 on sm_90: by ``wgmma``, four warps together, in the background.

    block b {
      thread t { tile 0 -> slot 0 }  thread t { tile 1 -> slot 1 }                                          in the background (async)
      serial kt { wait 1;  thread t { tile kt+2 -> slot (kt+2)%4;  mma acc[t], sa[...], sb[...] group 128;  wait products 1 } }
      wait products 0
      thread t { y[row, col] = epilogue(acc) }
    }

Tensor cores read both operands in shared memory by themselves, so the registers are for sums: 64 x 256 for four warps. A product is under
way while the next step's copies are begun and its own tiles are waited for: when all threads have come to step kt, the products of step
kt - 2 are done, whose slot is free. Operands lie in panels with 128-byte swizzling, whichever way memory runs, and are copied 16 bytes at
a time. What is more than a copy goes through registers, a step ahead, in three slots.

A large tile leaves a multiprocessor to one block. Of smaller ones two fit, of which one has its products while the other waits for its
first tiles or stores; the tile of 128 x 128 is copied one step ahead, in three slots, for that.
"""

from __future__ import annotations

from xlc.ir.loops import Expr, Stmt, Wait
from xlc.ir.types import DType

from .contraction import Contraction
from .operand import Operand, Staged, stripped
from .tensor import OnTensorCores
from .tiled import Tile

DEPTH = 64  # contracted elements of a step: 128 bytes
SHARED = 128 * 128  # elements of a tile up to which registers let two blocks share a multiprocessor


def panels(o: Operand, rows: int, depth: int, dtype: DType, slots: int) -> Staged:
    """Tiles as ``wgmma`` reads them."""
    row_step, k_step, panel = (64, 1, rows * 64) if o.along_k else (1, 64, depth * 64)
    return Staged(Operand(o.name, stripped(o.value), o.free, o.ks), rows, depth, dtype, row_step, k_step, slots, panel)


class OnWarpgroups(OnTensorCores):
    group, busy = 128, 2
    staged = staticmethod(panels)

    def __init__(self, c: Contraction, tile: Tile, dtype: DType, shared: int):
        self.down = 2 if tile.rows > 64 else 1
        slot = (tile.rows + tile.columns) * tile.depth * dtype.bytes
        if tile.rows * tile.columns <= SHARED and 2 * 3 * slot <= shared < 2 * 4 * slot:
            self.ahead = 1  # so that two blocks fit a multiprocessor
        super().__init__(c, tile, dtype, 1)

    def pipeline(self, row: Expr, column: Expr) -> list[Stmt]:
        return [*super().pipeline(row, column), Wait(0, True)]

    def multiply(self, slot: Expr) -> list[Stmt]:
        return [*super().multiply(slot), Wait(1, True)]


__all__ = ["DEPTH", "SHARED", "OnWarpgroups"]
