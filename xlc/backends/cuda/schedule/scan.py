"""Schedules of cumulative operators on a GPU, any monoid: prefixes of a block's threads, by shuffles and shared memory.

    y[i,k] = x[i,0] + ... + x[i,k], f32[n,m]
    ->
    block b {                                    256/L rows, L threads for each; a thread has EACH neighbours at a time
      serial c (chunks of L*EACH along the row) {
        thread t { x' = x[i, ...]; within the thread: x'[e] = merge(x'[e-1], x'[e]) }
        ``prefixes``: before[t] = what threads in front of t have, whole[t] = what all L have
        thread t { y[i, ...] = merge(merge(carry, before), x'[e]); carry = merge(carry, whole) }
      }
    }

Along another axis than the last a thread walks along a column, and neighbouring threads along neighbouring columns, unless columns are few
and long. A row is the work of one block, whatever its length: few long rows are cut before (``passes/split.py``), unless their size is
symbolic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.op import Monoid, lookup
from xlc.ir.types import DType, product
from xlc.passes.group import Group
from xlc.schedule.inline import Inliner, Places, address
from xlc.schedule.nest import Dimension, decode, power_of_two

from .bind import THREADS, B, T, blocks, pieces, positions, threads

WARP = 32
BYTES = 16  # of one access
EACH = 4  # neighbours of a thread
MORE = 16  # of a thread, where rows are long
LONG = 1 << 14  # elements of a row from which a thread takes MORE
FEW = 1 << 13  # columns, below which a block takes a column
TALL = 512  # elements of a column from which it does

State = tuple[Expr, ...]


def where(condition: Expr, a: State, b: State) -> State:
    return tuple(lookup("where")(condition, x, y) for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class Prefixes:
    """What threads in front of each one have, of ``lanes`` (a power of two) neighbouring threads, merged in their order.

    ``own`` is filled by the caller, a row for each thread. After ``statements`` it holds the state of all the lanes, ``before`` that of the
    lanes in front."""

    monoid: Monoid
    start: State  # of nothing
    lanes: int
    name: str

    def _registers(self, stem: str) -> tuple[Buffer, ...]:
        return tuple(Buffer(f"{stem}{self.name}{c}", s.dtype, (THREADS,), "register") for c, s in enumerate(self.start))

    @property
    def own(self) -> tuple[Buffer, ...]:
        return self._registers("own")

    @property
    def before(self) -> tuple[Buffer, ...]:
        return self._registers("before")

    @property
    def other(self) -> tuple[Buffer, ...]:
        return self._registers("other")

    @property
    def shared(self) -> tuple[Buffer, ...]:
        return tuple(Buffer(f"warps{self.name}{c}", s.dtype, (THREADS // WARP,), "shared") for c, s in enumerate(self.start))

    def locals(self) -> list[Stmt]:
        across = self.shared if self.lanes > WARP else ()
        return [Local(b) for b in (*self.own, *self.before, *self.other, *across)]

    def statements(self) -> list[Stmt]:
        """Lanes whose numbers differ in one bit exchange what they have: the upper one learns what lies in front, both learn the sum."""
        own, before = state(self.own), state(self.before)
        out: list[Stmt] = [threads(*put(self.before, self.start))]
        for d in (1 << k for k in range(5) if 1 << k < self.lanes):
            upper = lookup("not_equal")(T & const(d), const(0))
            there = state(self.other)
            below = where(upper, self.monoid.merge(there, before), before)
            both = where(upper, self.monoid.merge(there, own), self.monoid.merge(own, there))
            out.append(threads(*put(self.other, tuple(load(b, (T ^ const(d),)) for b in self.own))))
            out.append(threads(*put((*self.before, *self.own), (*below, *both))))
        return out + (self._across() if self.lanes > WARP else [])

    def _across(self) -> list[Stmt]:
        """Warps, by way of shared memory."""
        count, w = self.lanes // WARP, var("w")
        own, before, front = state(self.own), state(self.before), state(self.other)
        first = T // self.lanes * count
        warp = (T % self.lanes) // WARP
        each = tuple(load(b, (first + w,)) for b in self.shared)
        step = where(w < warp, self.monoid.merge(front, each), front)
        every = self.monoid.merge(own, each)
        return [threads(If((T % WARP).equals(0), tuple(Store(b, (T // WARP,), s) for b, s in zip(self.shared, own, strict=True)))),
                threads(*put((*self.other, *self.own), (*self.start, *self.start)),
                        Loop("w", const(0), const(count), 1, "unroll", (*put((*self.other, *self.own), (*step, *every)),)),
                        *put(self.before, self.monoid.merge(front, before)))]


def state(buffers: Sequence[Buffer]) -> State:
    """What a thread has."""
    return tuple(load(b, (T,)) for b in buffers)


def put(buffers: Sequence[Buffer], values: State, *at: Expr) -> list[Stmt]:
    """A thread's own registers take new values, all of which are computed before the first is stored."""
    lets = [Let(f"n{c}", v) for c, v in enumerate(values)]
    return [*lets, *(Store(b, (T, *at), var(n.name, n.value.dtype)) for b, n in zip(buffers, lets, strict=True))]


# ------------------------------------------------------------------------------------------------ cumulative operators


def lower_cumulative(group: Group, places: Places, machine: Machine) -> list[Stmt]:
    node = group.anchor
    assert node is not None
    axis, shape = node["axis"], node.shape
    inner, columns = product(shape[axis + 1:]), product(s for d, s in enumerate(shape) if d != axis)
    few = isinstance(columns, int) and columns < FEW and not (isinstance(shape[axis], int) and shape[axis] < TALL)
    return _Cumulative(node, group, places).rows() if inner == 1 or few else _Cumulative(node, group, places).columns()


class _Cumulative:
    def __init__(self, node: Node, group: Group, places: Places):
        self.node, self.target = node, places[node]
        self.inliner = Inliner(set(group.members) - {node}, places)
        self.axis, self.n = node["axis"], node.shape[node["axis"]]
        self.outer = [Dimension(var(f"i{d}"), s) for d, s in enumerate(node.shape) if d != self.axis]
        assert node.op.monoid is not None
        self.monoid = node.op.monoid
        self.start = tuple(self.monoid.init(node.args[0].dtype))

    def index(self, k: Expr) -> tuple[Expr, ...]:
        at = size(self.n) - 1 - k if self.node["reverse"] else k
        return tuple(at if d == self.axis else var(f"i{d}") for d in range(self.node.rank))

    def lifted(self, k: Expr) -> State:
        """The state of the element at position k of a row."""
        x = self.inliner.value(self.node.args[0], self.index(k))
        return tuple(_cast(e, s.dtype) for e, s in zip(self.monoid.lift(x, k), self.start, strict=True))

    def store(self, k: Expr, s: State) -> Store:
        return Store(self.target, (address(self.node.shape, self.index(k)),), _cast(self.monoid.result(s), self.node.dtype))

    def columns(self) -> list[Stmt]:
        """A thread for each column."""
        registers = [Buffer(f"state{c}", s.dtype, (1,), "register") for c, s in enumerate(self.start)]
        zero, k = (const(0),), var("k")

        def body(p: Expr) -> list[Stmt]:
            with ix.ranges({d.var: size(d.extent) for d in self.outer}):
                new = self.monoid.merge(tuple(load(b, zero) for b in registers), self.lifted(k))
                lets = [Let(f"n{c}", e) for c, e in enumerate(new)]
                names = tuple(var(let.name, let.value.dtype) for let in lets)
                step: list[Stmt] = [*lets, *(Store(b, zero, v) for b, v in zip(registers, names, strict=True)), self.store(k, names)]
                return [*decode(self.outer, p), *(Local(b) for b in registers),
                        *(Store(b, zero, s) for b, s in zip(registers, self.start, strict=True)),
                        Loop("k", const(0), size(self.n), 1, "serial", tuple(step))]

        return positions(product(d.extent for d in self.outer), body)

    def rows(self) -> list[Stmt]:
        """Several threads for each row."""
        n, total = self.n, product(d.extent for d in self.outer)
        each = EACH if isinstance(n, int) and n < LONG else MORE
        width = min(each, max(BYTES // max(self.node.dtype.bytes, 4), 1))
        lanes = min(power_of_two(-(-n // each)), THREADS) if isinstance(n, int) else THREADS
        at_once = THREADS // lanes
        scan = Prefixes(self.monoid, self.start, lanes, "")
        mine = [Buffer(f"x{c}", s.dtype, (THREADS, each), "register") for c, s in enumerate(self.start)]
        carry = [Buffer(f"carry{c}", s.dtype, (THREADS,), "register") for c, s in enumerate(self.start)]
        e, v, g, row, k = var("e"), var("v"), var("g"), var("row"), var("k")
        first = k * each
        place = [Let("row", B * at_once + T // lanes), Let("k", var("c") + T % lanes)]
        known = {B: size(pieces(total, at_once)), T: const(THREADS), e: const(each), v: const(width), g: const(each // width)}
        with ix.ranges({**known, **{d.var: size(d.extent) for d in self.outer}}):
            inside = row < size(total) if at_once > 1 else None

            def guarded(body: Sequence[Stmt], condition: Expr, orelse: Sequence[Stmt] = ()) -> list[Stmt]:
                """Within the row, and within the last one."""
                both = condition if inside is None else condition & inside
                return list(body) if both.is_const else [If(both, tuple(body), tuple(orelse))]

            def fill(at: Expr, states: State) -> list[Stmt]:
                return put(mine, states, at)

            def held(at: Expr) -> State:
                return tuple(load(b, (T, at)) for b in mine)

            def edges(body: Callable[[Expr], Sequence[Stmt]], orelse: Sequence[Stmt] = ()) -> list[Stmt]:
                """A thread's neighbours together, or those that are there."""
                part = Loop("v", const(0), const(width), 1, "vector", tuple(body(g * width + v)), width)
                whole = Loop("g", const(0), const(each // width), 1, "unroll", (part,))
                if isinstance(n, int) and n % each == 0:
                    instead = [Loop("e", const(0), const(each), 1, "unroll", tuple(orelse))] if orelse else []
                    return guarded([whole], k < const(n // each), instead)
                single = Loop("e", const(0), const(each), 1, "unroll", tuple(guarded(body(e), first + e < size(n), orelse)))
                return guarded([whole], first + each <= size(n), [single])

            decoded = decode(self.outer, row) if inside is None else decode(self.outer, lookup("minimum")(row, size(total) - 1))
            read = edges(lambda i: fill(i, self.lifted(first + i)), fill(e, self.start))
            add = Loop("e", const(1), const(each), 1, "unroll", tuple(fill(e, self.monoid.merge(held(e - 1), held(e)))))
            front = self.monoid.merge(state(carry), state(scan.before))
            names = tuple(var(f"f{c}", s.dtype) for c, s in enumerate(front))
            write = edges(lambda i: [self.store(first + i, self.monoid.merge(names, held(i)))])
            body = [threads(*place, *decoded, *read, add, *put(scan.own, held(const(each - 1)))),
                    *scan.statements(),
                    threads(*place, *decoded, *(Let(x["name"], s) for x, s in zip(names, front, strict=True)), *write,
                            *put(carry, self.monoid.merge(state(carry), state(scan.own))))]
        chunks = Loop("c", const(0), size(pieces(n, each)), lanes, "serial", tuple(body))
        return [blocks(pieces(total, at_once), *(Local(b) for b in (*mine, *carry)), *scan.locals(),
                       threads(*put(carry, self.start)), chunks)]


def _cast(e: Expr, d: DType) -> Expr:
    return e if e.dtype is d else lookup("cast")(e, dtype=d)


__all__ = ["Prefixes", "lower_cumulative", "put", "state", "where"]
