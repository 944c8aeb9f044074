"""An operand of a contraction as a matrix, and how a block copies tiles of it into shared memory.

    a[m*64+k], tiles of 64 rows and 16 contracted elements   ->   thread t { vector v in 0..4 { r[v] = b0[(row+t//4)*64 + k + t%4*4 + v] } }

Rows are positions along the free dimensions (of the right operand these are columns of the result), as one number. A thread copies
vectors of up to 16 bytes along the direction in which memory runs. What lies beyond the last row, or the last contracted element, is 0 and
not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Loop, Stmt, Store, const, load, place, size, substitute, var, walk
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, bool_, f32, product
from xlc.schedule.nest import Dimension

from .bind import THREADS, T, pieces

BYTES = 16  # of one access
LANE, VECTOR = var("v"), var("q")
TRUE = const(True, bool_)


def position(dims: Sequence[Dimension], at: Expr, lane: Expr = const(0)) -> dict[Expr, Expr]:  # noqa: B008  (an immutable value)
    """The variables of several dimensions at a position in their product; ``lane`` more along the last one."""
    if not dims:
        return {}
    inside = ix.unflatten([d.extent for d in dims], at) if len(dims) > 1 else [at]
    return {d.var: i + (lane if d is dims[-1] else const(0)) for d, i in zip(dims, inside, strict=True)}


def length(dims: Sequence[Dimension]) -> Size:
    return product(d.extent for d in dims)


def divides(n: int, s: Size) -> bool:
    return isinstance(s, int) and s % n == 0


def stripped(value: Expr) -> Expr:
    """A value of 16 bits that is only widened, before that."""
    inner = value.args[0] if value.op.name == "cast" else value
    return inner if inner.dtype.is_float and inner.dtype.bits == 16 and value.dtype is f32 else value


@dataclass(frozen=True)
class Operand:
    """``value`` over the batch's variables and those of ``free`` and ``ks``."""

    name: str
    value: Expr
    free: tuple[Dimension, ...]
    ks: tuple[Dimension, ...]

    def steps(self, dims: Sequence[Dimension]) -> bool:
        """Whether neighbours along these dimensions are neighbours in memory."""
        found = {ix.coefficient(e.args[0], dims[-1].var) for e in walk(self.value) if e.op is LOAD} if dims else set()
        return 1 in found and found <= {0, 1}

    def lanes(self, dims: Sequence[Dimension]) -> int:
        """Neighbours along these dimensions that one access may take."""
        if not self.steps(dims):
            return 1
        widest = max(e.dtype.bytes for e in walk(self.value) if e.op is LOAD)
        lanes = BYTES // widest
        while lanes > 1 and not divides(lanes, dims[-1].extent):  # no number divides a size that has a name
            lanes //= 2
        return max(lanes, 1)

    @property
    def along_k(self) -> bool:
        """Whether memory runs along the contracted dimensions, rather than along the free ones."""
        return (self.lanes(self.ks), self.steps(self.ks)) > (self.lanes(self.free), self.steps(self.free))

    def at(self, row: Expr, k: Expr, edge: Expr, lane: Expr, along_k: bool) -> tuple[Expr, Expr, Expr]:
        """(condition, value where it holds, value elsewhere) at a row and a contracted position, ``lane`` more along one of them. ``edge``
        says whether both exist. Masks that are the same for all lanes are part of the condition, so that whole vectors are read."""
        none = const(0)
        value = substitute(self.value, {**position(self.free, row, none if along_k else lane),
                                        **position(self.ks, k, lane if along_k else none)})
        masked = {e: e.args[-1] for e in walk(value) if e.op is LOAD and e["masked"]}
        hoisted = {e: m for e, m in masked.items() if not ix.depends(m, lane)}
        condition = edge
        for m in dict.fromkeys(hoisted.values()):
            condition = condition & m
        zero = const(0, value.dtype)
        plain = {e: load(e["buffer"], e.args[:-1]) for e in hoisted}
        if value.op is LOAD or not hoisted:
            return condition, substitute(value, plain), zero
        guarded = {e: load(e["buffer"], e.args[:-1] if e["masked"] else e.args, edge & masked[e] if e["masked"] else edge)
                   for e in walk(value) if e.op is LOAD}
        other = substitute(value, guarded)
        return condition, substitute(value, plain), other if edge is TRUE else lookup("where")(edge, other, zero)


@dataclass(frozen=True)
class Staged:
    """Tiles of ``rows`` x ``depth`` of an operand in shared memory, one in each of ``slots``; element (row, k) lies at
    row * row_step + k * k_step of its slot, or in panels that are ``panel`` apart (see ``loops.place``)."""

    operand: Operand
    rows: int
    depth: int
    dtype: DType
    row_step: int
    k_step: int
    slots: int
    panel: int = 0

    @property
    def steps(self) -> tuple[int, ...]:
        return (self.row_step, self.k_step, self.panel) if self.panel else (self.row_step, self.k_step)

    @property
    def pitch(self) -> int:
        if self.panel:
            return (self.rows if self.row_step == 1 else self.depth) // 64 * self.panel
        return max(self.row_step * self.rows, self.k_step * self.depth)

    @property
    def buffer(self) -> Buffer:
        return Buffer(f"s{self.operand.name}", self.dtype, (self.slots * self.pitch,), "shared")

    @property
    def lanes(self) -> int:
        """Elements that a thread takes at once."""
        o = self.operand
        return o.lanes(o.ks if o.along_k else o.free)

    @property
    def registers(self) -> Buffer:
        vectors = pieces(self.rows * self.depth // self.lanes, THREADS)
        return Buffer(f"r{self.operand.name}", self.dtype, (vectors * self.lanes,), "register")

    def vectors(self, body: Callable[[Expr, Expr, Expr], Sequence[Stmt]]) -> list[Stmt]:
        """``body(row, k, q)`` for each vector that a thread copies: its first row and contracted element in the tile, its number."""
        lanes, o = self.lanes, self.operand
        count = self.rows * self.depth // lanes
        across = (self.depth if o.along_k else self.rows) // lanes
        trips = -(-count // THREADS)
        q = VECTOR if trips > 1 else const(0)
        with ix.ranges({T: const(THREADS), VECTOR: const(trips)}):
            number = T + q * THREADS
            fast, slow = (number % across) * lanes, number // across
            inside = list(body(*((slow, fast) if o.along_k else (fast, slow)), q))
        if count % THREADS:
            inside = [If(number < count, tuple(inside))]
        return inside if trips == 1 else [Loop("q", const(0), const(trips), 1, "unroll", tuple(inside))]

    def fetch(self, first: Expr, start: Expr) -> list[Stmt]:
        """The part of this thread of the tile whose first row and contracted element these are, into its registers."""
        lanes, into, o = self.lanes, self.registers, self.operand

        def vector(row: Expr, k: Expr, q: Expr) -> list[Stmt]:
            condition, value, other = o.at(first + row, start + k, self.edge(first + row, start + k), LANE, o.along_k)

            def moved(e: Expr) -> Loop:
                return Loop("v", const(0), const(lanes), 1, "vector", (Store(into, (q * lanes + LANE,), self.widened(e)),), lanes)

            return [moved(value)] if condition is TRUE else [If(condition, (moved(value),), (moved(other),))]

        return self.vectors(vector)

    def copy(self, first: Expr, start: Expr, slot: Expr) -> list[Stmt]:
        """The part of this thread of a tile straight to its slot, in the background; for an operand that is a load."""
        lanes, o = self.lanes, self.operand

        def vector(row: Expr, k: Expr, q: Expr) -> list[Stmt]:
            condition, value, _ = o.at(first + row, start + k, self.edge(first + row, start + k), LANE, o.along_k)
            moved = load(value["buffer"], value.args[:1], condition)
            return [Loop("v", const(0), const(lanes), 1, "async", (Store(self.buffer, (self.lane(slot, row, k),), moved),), lanes)]

        return self.vectors(vector)

    def lane(self, slot: Expr, row: Expr, k: Expr) -> Expr:
        """Where the lanes of a vector go that begins there in a tile."""
        step = self.k_step if self.operand.along_k else self.row_step
        return slot * self.pitch + place(row, k, self.steps) + LANE * step

    def first(self, slot: Expr, row: Expr) -> Expr:
        """Where a row begins: in panels, one of each 64."""
        return slot * self.pitch + (row // 64 * self.panel if self.panel and self.row_step == 1 else row * self.row_step)

    def edge(self, row: Expr, k: Expr) -> Expr:
        """Whether a row and a contracted element exist."""
        rows, depth = length(self.operand.free), length(self.operand.ks)
        inside = TRUE if divides(self.rows, rows) else row < size(rows)
        return inside if divides(self.depth, depth) else inside & (k < size(depth))

    def widened(self, e: Expr) -> Expr:
        return e if e.dtype is self.dtype else lookup("cast")(e, dtype=self.dtype)

    def keep(self, slot: Expr) -> list[Stmt]:
        """What ``fetch`` has read goes to a slot."""
        lanes = self.lanes

        def vector(row: Expr, k: Expr, q: Expr) -> list[Stmt]:
            read = load(self.registers, (q * lanes + LANE,))
            return [Loop("v", const(0), const(lanes), 1, "vector", (Store(self.buffer, (self.lane(slot, row, k),), read),), lanes)]

        return self.vectors(vector)


__all__ = ["LANE", "TRUE", "Operand", "Staged", "divides", "length", "position", "stripped"]
