"""Who works on a row of a reduction: how many threads of a block, which, and how many elements at a time.

    softmax of f32[16384,1024]   Team(lanes=32, vector=4)                    a warp for a row, 16 bytes for a thread
    sum of f32[4096,4096] {axes=(0,)}   Team(lanes=8, vector=4, across=True)     32 columns side by side, each of 8 threads

The choice follows from the shape and the types; under ``strict`` from the shape alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xlc import config
from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Expr, const, walk
from xlc.ir.machine import Machine
from xlc.ir.types import product
from xlc.schedule.nest import power_of_two
from xlc.schedule.reductions import Reductions

from .bind import THREADS, T, pieces

WARP = 32
BYTES = 16  # of one access
LINE = 128  # bytes that a warp should read side by side
EACH = 32  # elements of a row for one thread, if fewer than WARP threads share it
SHORT = 32  # reduced elements that one thread folds alone, where neighbouring threads walk neighbouring results


@dataclass(frozen=True)
class Team:
    """``lanes`` threads share a row: neighbours or, ``across``, threads that are as many apart as the block has rows side by side. A thread
    takes ``vector`` neighbours in memory at a time: of its row or, across, of as many rows."""

    lanes: int
    vector: int = 1
    across: bool = False

    @property
    def rows(self) -> int:
        """Rows, or vectors of rows, of a block."""
        return THREADS // self.lanes

    @property
    def width(self) -> int:
        """Rows of a thread."""
        return self.vector if self.across else 1

    @property
    def depth(self) -> int:
        """Elements of its row that a thread takes at a time."""
        return 1 if self.across else self.vector

    @property
    def step(self) -> int:
        """Elements of a row that its threads take at a time."""
        return self.lanes * self.depth

    @property
    def lane(self) -> Expr:
        """Which of those that share its row a thread is."""
        return _of_thread(lambda: T // self.rows if self.across else T % self.lanes)

    @property
    def row(self) -> Expr:
        return _of_thread(lambda: T % self.rows if self.across else T // self.lanes)

    def bits(self) -> Iterator[int]:
        """The bits of a thread's number in which those that share a row differ."""
        bit = self.rows if self.across else 1
        for _ in range(self.lanes.bit_length() - 1):
            yield bit
            bit *= 2

    @property
    def warps(self) -> int:
        """Warps that share a row."""
        return self.lanes >> sum(bit < WARP for bit in self.bits())

    @property
    def kept(self) -> int:
        """Rows of a warp."""
        return min(self.rows, WARP) if self.across else max(WARP // self.lanes, 1)

    def warp(self, j: int) -> Expr:
        """The number of the j-th warp that works on a thread's row."""
        if self.across:
            return self.row // WARP + j * max(self.rows // WARP, 1)
        return self.row * self.warps + j


def _of_thread(make: Callable[[], Expr]) -> Expr:
    with ix.ranges({T: const(THREADS)}):
        return make()


def choose(r: Reductions, machine: Machine) -> Team:
    return _across(r, machine) if not r.along else _along(r, machine)


def _along(r: Reductions, machine: Machine) -> Team:
    row, rows = product(d.extent for d in r.inner), product(d.extent for d in r.outer)
    if not isinstance(row, int):
        return Team(THREADS)
    vector, nbytes = _vector(r)
    shared = power_of_two(-(-row // vector)) if row else 1
    lanes = THREADS if row > WARP * EACH else min(shared, max(LINE // (vector * nbytes), 1), WARP)
    while lanes < WARP and row > EACH * lanes:
        lanes *= 2
    while lanes < min(THREADS, shared) and isinstance(rows, int) and rows * lanes < 2 * machine.cores * THREADS:
        lanes *= 2
    return Team(lanes, vector)


def _across(r: Reductions, machine: Machine) -> Team:
    row, rows = product(d.extent for d in r.inner), product(d.extent for d in r.outer)
    vector, _ = _vector(r)
    lanes = 1 if isinstance(row, int) and row <= SHORT else 8
    if not isinstance(rows, int):
        return Team(lanes, vector, True)

    def blocks() -> int:
        found = pieces(rows, THREADS // lanes * vector)
        assert isinstance(found, int)
        return found

    while vector > 1 and blocks() < 2 * machine.cores:
        vector //= 2
    fewest = min(8, power_of_two(-(-rows // vector)))  # rows side by side, which fill a sector of memory
    while blocks() < 2 * machine.cores and THREADS // lanes > fewest and (not isinstance(row, int) or row >= 8 * lanes):
        lanes *= 2
    return Team(lanes, vector, True)


def _vector(r: Reductions) -> tuple[int, int]:
    """How many neighbours in memory a thread takes at a time, and the bytes of each."""
    last = (r.inner[-1] if r.inner else None) if r.along else r.last
    if last is None or last.static is None:
        return 1, 4
    if config.strict:
        width, nbytes = 4, 4
    else:
        loads = [e for e in walk(*(f.value for f in r.folds), *(v for _, _, v, _, _ in r.roots)) if e.op is LOAD]
        near = [e for e in loads if ix.polynomial(e.args[0]).get((last.var,)) == 1]
        sizes = [e["buffer"].dtype.bytes for e in near]
        sizes += [b.dtype.bytes for b, a, _, _, full in r.roots if (full or not r.along) and ix.polynomial(a).get((last.var,)) == 1]
        if not sizes:
            return 1, 4
        nbytes = max(sizes)
        width = 1 if any(e["masked"] for e in near) else max(BYTES // nbytes, 1)
    while last.static % width:
        width //= 2
    return width, nbytes


__all__ = ["WARP", "Team", "choose"]
