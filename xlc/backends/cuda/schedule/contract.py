"""Schedules of contractions on a GPU, and the choice among them.

    few       few rows, or few columns: bound by reading the other operand
    warpgroup f16 and bf16 by tensor cores on sm_90, four warps together
    tensor    f16 and bf16 (and f32 as tf32, where ``matmul_precision`` allows it) by tensor cores
    tiled     everything else: multiplications of single threads

The tile is the one with the least estimated time: tiles are computed in rounds of one for each multiprocessor; within a tile,
multiplications and reads of shared memory count. Shapes, dtypes and the chip decide (and, unless ``strict`` is set, which dimensions are
one for all that is fused), so a sum has one order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xlc import config
from xlc.ir.loops import Stmt
from xlc.ir.types import DType
from xlc.passes.group import Group
from xlc.schedule.inline import Places
from xlc.schedule.product import Product

from ..chip import chip
from .contraction import Contraction
from .few import few_rows
from .operand import length
from .tensor import OnTensorCores, copied, products
from .tiled import SIDE, Tile, Tiled
from .warpgroup import DEPTH, SHARED, OnWarpgroups

if TYPE_CHECKING:
    from ..backend import Gpu

UNKNOWN = 4096  # what a symbolic size is taken for
FIRST = 1500  # cycles until what is read first is there


def lower_contraction(group: Group, places: Places, machine: Any) -> tuple[Stmt, ...]:
    dot = group.anchor
    assert dot is not None
    if any(s == 0 for s in dot.shape):
        return ()
    c = Contraction(Product(group, dot, places, join=not config.strict))
    few = few_rows(c, machine)
    if few is not None:
        return tuple(few)
    taken = products(c, machine.arch)
    if taken is not None and taken[0].bits == 16 and machine.wgmma and not (isinstance(c.depth, int) and c.depth <= DEPTH // 2):
        return tuple(OnWarpgroups(c, warpgroup_tile(c, machine, taken[0]), taken[0], machine.shared).nest())
    if taken is not None:
        exchanges = chip(machine.arch).capability >= 80  # ptxas spills for it on sm_75, though there is room
        return tuple(OnTensorCores(c, tensor_tile(c, machine, taken[0]), *taken, exchanges).nest())
    return tuple(Tiled(c, register_tile(c, machine)).nest())


def register_tile(c: Contraction, machine: Gpu) -> Tile:
    """For multiplications of single threads: a thread has rows/16 x columns/16 sums, and reads as many rows and columns."""
    sides = [s for s in (32, 64, 128) if s <= (128 if c.dtype.bits <= 32 else 64)]
    shallow = isinstance(c.depth, int) and c.depth <= 8
    tiles = [Tile(r, s, 8 if shallow or r * s >= 128 * 64 else 16) for r in sides for s in sides]

    def cycles(t: Tile) -> float:
        high, across = t.rows // SIDE, t.columns // SIDE
        return high * across / 4 + (high + across) / 2

    return min(tiles, key=lambda t: (rounds(c, t, machine) * cycles(t), t.rows * t.columns))


def tensor_tile(c: Contraction, machine: Gpu, dtype: DType) -> Tile:
    """For tensor cores: 1024 multiplications in a cycle, and 128 bytes from shared memory, where a warp reads rows/2 and columns/4. The
    largest tile leaves no registers for operands that go through them."""
    size = dtype.bytes
    sides = [(r, s) for r in (64, 128) for s in (64, 128)] + [(128, 256)] * (copied(c.a, dtype) and copied(c.b, dtype))
    tiles = [Tile(r, s, 64 // size) for r, s in sides if 3 * (r + s) * (64 + 16) <= machine.shared]

    def cycles(t: Tile) -> float:
        return t.rows * t.columns / 1024 + (t.rows / 2 + t.columns / 4) * size * 8 / 128 / 2

    return min(tiles, key=lambda t: (rounds(c, t, machine) * cycles(t), t.rows * t.columns))


def warpgroup_tile(c: Contraction, machine: Gpu, dtype: DType) -> Tile:
    """For tensor cores that four warps use together: 2048 multiplications in a cycle, while shared memory moves 128 bytes. Each 64 rows are
    read once, and the columns once for each of them. Beside the steps there are the first tiles' way from memory, and the results'; where
    two blocks share a multiprocessor, one has its steps meanwhile."""
    sides = [(64, 128), (64, 256), (128, 64), (128, 128)]
    if copied(c.a, dtype) and copied(c.b, dtype):
        sides += [(128, 256), (256, 128)]
    depth = c.depth if isinstance(c.depth, int) else UNKNOWN

    def cycles(t: Tile) -> float:
        products, columns = t.rows * t.columns / 2048, t.columns if t.rows > 64 else t.columns / 2
        reads = max(t.rows // 64, 2) * (64 + columns)
        step = DEPTH * max(products, (reads + t.rows + t.columns) * dtype.bytes / 128)
        return -(-depth // DEPTH) * step + (FIRST + t.rows * t.columns / 12) / (2 if t.rows * t.columns <= SHARED else 1)

    return min((Tile(*s, DEPTH) for s in sides), key=lambda t: (rounds(c, t, machine) * cycles(t), t.rows * t.columns))


def rounds(c: Contraction, t: Tile, machine: Gpu) -> int:
    """How often every multiprocessor works on a tile."""
    batch, rows, columns = (s if isinstance(s, int) else UNKNOWN for s in (length(c.batch), c.rows, c.columns))
    return -(-batch * -(-rows // t.rows) * -(-columns // t.columns) // machine.cores)


__all__ = ["lower_contraction", "register_tile", "tensor_tile", "warpgroup_tile"]
