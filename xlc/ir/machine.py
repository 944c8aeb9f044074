"""The processor, as far as a schedule needs to know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """What a schedule needs to know about the processor."""

    vector_bits: int = 512
    registers: int = 32
    l1: int = 48 << 10
    l2: int = 2 << 20
    l3: int = 32 << 20
    cores: int = 2
    threads: int = 1  # of a core, that work on one piece of a kernel together (a GPU's block)
    shared: int = 0  # bytes of memory that they have in common
    panels: bool = True  # contractions read their right-hand side from panels as wide as a register tile
    stacked: bool = True  # what lies between the stages of one kernel may lie on the stack of a thread, a block of rows at a time

    def rows_of_stages(self, stages: Sequence[Any], shared: int) -> int | str:
        """Of groups that could be stages of the last one (see ``passes.tile``), on a machine that is not ``stacked``: the rows of a block
        in which a schedule of its own computes all of them, or why there is none."""
        return "this machine has no schedule for several stages in one kernel"

    def lanes(self, bits: int = 32) -> int:
        """Elements of that width in one register."""
        return max(self.vector_bits // bits, 2)
