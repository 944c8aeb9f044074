"""Which elements of a tile of a block a thread has in registers, where whole rows belong to lanes of one warp.

    Share(high=2, groups=8, near=2, tensor=True)      16 rows x 64 columns of each warp, as tensor cores leave them: of lane 5 the rows 1
                                                      and 9, and of these the columns 2 and 3 of each eight
    Share(high=8, groups=1, near=4, tensor=False)     128 rows x 64 columns: 16 lanes share 8 rows, each has 4 neighbours of these
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xlc.ir.loops import Expr, Loop, Stmt, const, var

from .bind import T
from .operand import LANE

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

    @property
    def bits(self) -> tuple[int, ...]:
        return (1, 2) if self.tensor else (1, 2, 4, 8)

    @property
    def count(self) -> int:
        return self.high * self.groups * self.near

    @property
    def span(self) -> tuple[Expr, int]:
        """The first of rows that follow each other and hold all of a thread (of its warp), and how many these are."""
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


__all__ = ["LANES", "G", "H", "Share"]
