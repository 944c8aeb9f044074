"""Schedule of groups with reductions on a GPU: several threads to a row, its elements in their registers, partial results exchanged.

    softmax of f32[16384,1024], a warp to a row, 32 elements to a thread:
      block b in 0..2048 {
        thread t { a = max of x0[t, :] = x[...] }       16 bytes at a time
        thread t { merge with t ^ 1 } ... 5 steps       shuffles
        thread t { sum of x1[t, :] = exp(x0[t, :] - max) } ...
        thread t { y[...] = x1[t, :] / sum }
      }

``Team`` says who shares a row. Threads of a warp combine by shuffles, warps then through shared memory: always in the same order, so that
results depend on the shape alone (and on the machine, where few rows are shared out among more threads). Reductions are commutative but for
positions, which their states hold (as on a CPU). A float sum has chains of at most CHAIN additions, then a tree; longer ones move to an
accumulator of twice the precision, so that the error is below that of pairwise summation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, substitute, var
from xlc.ir.machine import Machine
from xlc.ir.op import lookup
from xlc.ir.types import f64, product
from xlc.passes.group import Group
from xlc.schedule.inline import Places
from xlc.schedule.nest import Dimension, decode, minimum, operations
from xlc.schedule.reductions import Fold, Reductions, is_float_sum, lifted

from .bind import THREADS, B, T, blocks, pieces, threads
from .team import WARP, Team, choose

CHAIN = 64  # additions in a row before a sum moves to the wide accumulator
KEEP, KEEP_ALL = 64, 128  # registers of a thread for one value of its part of a row, and for all
DEAR = 8  # operations from which a value is kept and not computed again
UNROLL = 4  # vectors that a thread reads at a time
COPIED = 16  # vectors up to which all are copied out

State = tuple[Buffer, ...]


def lower_reduction(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...]:
    found = Reductions.of(group, places)
    if found is None:
        return ()
    found.join()
    return tuple(_Nest(found, choose(found, machine)).blocks())


class _Nest:
    def __init__(self, r: Reductions, team: Team):
        self.r, self.team = r, team
        outer = list(r.outer)
        if team.across:
            outer.sort(key=lambda d: r.last is not None and d.var is r.last.var)
        self.outer, self.inner = outer, r.inner or [Dimension(var("r"), 1)]
        self.rows, self.row = product(d.extent for d in outer), product(d.extent for d in self.inner)
        self.last = (outer if team.across else self.inner)[-1].var  # of which a vector has neighbours
        self.lane: Expr = var("v") if team.vector > 1 else const(0)
        self.moved = {self.last: self.last + self.lane} if team.vector > 1 else {}
        self.results: dict[Expr, Expr] = {}  # finished states: where they lie
        self.locals: list[Stmt] = []
        self.kept: list[tuple[int, Expr, Expr]] = self._keep()

    def blocks(self) -> list[Stmt]:
        body: list[Stmt] = []
        stages = self.r.stages()
        for s in range(stages):
            body += self.stage(s, s + 1 < stages)
        ends = [(b, a, v) for b, a, v, _, full in self.r.roots if not full]
        if ends:
            zero = {d.var: const(0) for d in self.inner}
            done = self.vector(self.stored([(b, substitute(a, zero), v) for b, a, v in ends]), self.team.across)
            body.append(threads(*self.guarded(done, self.team.lane.equals(0))))
        return [blocks(pieces(self.rows, self.team.rows * self.team.width), *self.locals, *body)]

    # -- positions --------------------------------------------------------------------------------

    def guarded(self, body: Sequence[Stmt], condition: Expr | None = None) -> list[Stmt]:
        """Statements for a thread's row, if there is one."""
        each = self.team.rows * self.team.width
        p = var("p")
        with ix.ranges({T: const(THREADS)}):
            where = B * each + self.team.row * self.team.width
        inner = (*decode(self.outer, p), *body) if self.outer else tuple(body)
        if not (isinstance(self.rows, int) and self.rows % each == 0):
            inside = p < size(self.rows)
            condition = inside if condition is None else inside & condition
        return [Let("p", where), *([If(condition, inner)] if condition is not None and not condition.is_const else inner)]

    def vector(self, body: Sequence[Stmt], whole: bool = True) -> list[Stmt]:
        """The lanes of a thread, if it has several."""
        n = self.team.vector
        return [Loop("v", const(0), const(n), 1, "vector", tuple(body), n)] if n > 1 and whole else list(body)

    def steps(self, body: Sequence[Stmt], drain: Sequence[Stmt]) -> list[Stmt]:
        """All vectors of a thread's part of the row; k counts them. After at most CHAIN of them ``drain``."""
        each = self.team.lanes * (1 if self.team.across else self.team.vector)
        q, k = var("q"), var("k")
        with ix.ranges({T: const(THREADS)}):
            where = (k * self.team.lanes + self.team.lane) * (each // self.team.lanes)
        one = (Let("q", where), *decode(self.inner, q), *body)
        checked = (Let("q", where), If(q < size(self.row), one[1:]))

        def run(start: Expr, stop: Expr, unroll: int, body: Sequence[Stmt]) -> Loop:
            if unroll == 1:
                return Loop("k", start, stop, 1, "serial", tuple(body))
            u, inner = var("u"), tuple(body)
            return Loop("k_", start, stop, unroll, "serial", (
                Loop("u", const(0), const(unroll), 1, "unroll", (Let("k", var("k_") + u), *inner)),))

        if not isinstance(self.row, int):
            total, full = (size(self.row) + (each - 1)) // each, size(self.row) // (each * UNROLL) * UNROLL
            if not drain:
                return [run(const(0), full, UNROLL, one), run(full, total, 1, checked)]
            c = var("c")
            stop = minimum(c + CHAIN, total)
            return [Loop("c", const(0), total, CHAIN, "serial", (run(c, stop, 1, checked), *drain))]
        full, rest = divmod(self.row, each)
        out: list[Stmt] = []
        first = 0
        if drain and full >= CHAIN:
            first = full // CHAIN * CHAIN
            out.append(Loop("c", const(0), const(first), CHAIN, "serial", (run(var("c"), var("c") + CHAIN, UNROLL, one), *drain)))
        if not self.kept and full - first > COPIED:
            middle = first + (full - first) // UNROLL * UNROLL
            out.append(run(const(first), const(middle), UNROLL, one))
            first = middle
        if full > first:
            out.append(Loop("k", const(first), const(full), 1, "unroll", one))
        if rest:
            out += [Let("k", const(full)), *checked]
        return [*out, *drain]

    # -- one stage --------------------------------------------------------------------------------

    def _keep(self) -> list[tuple[int, Expr, Expr]]:
        """What two stages need stays in registers: what is read for this row alone, and what is dear."""
        if not isinstance(self.row, int) or self.team.across and self.team.width > 1:
            return []
        each = self.team.lanes * (1 if self.team.across else self.team.vector)
        part = -(-self.row // each) * (each // self.team.lanes)
        inner, outer = {d.name for d in self.inner}, {d.name for d in self.outer}
        names, used = count(), 0

        def words(e: Expr) -> int:
            return part * max(e.dtype.bits // 32, 1)

        def worth(e: Expr) -> bool:
            mine = bool(e.free & outer) or not outer
            return bool(e.free & inner) and (mine if e.op is LOAD else operations([e]) > DEAR) \
                and words(e) <= KEEP and used + words(e) <= KEEP_ALL

        def place(e: Expr) -> Expr:
            nonlocal used
            used += words(e)
            b = Buffer(f"x{next(names)}", e.dtype, (THREADS, part), "register")
            self.locals.append(Local(b))
            return load(b, (T, var("k") * (1 if self.team.across else self.team.vector) + (const(0) if self.team.across else self.lane)))

        return self.r.keep(worth, place)

    def stage(self, s: int, shared: bool) -> list[Stmt]:
        """The folds and stores of a stage. ``shared``: every thread needs the results."""
        live = [(k, f) for k, f in enumerate(self.r.folds) if f.stage == s]
        n = self.team.vector
        parts = {k: tuple(Buffer(f"a{k}_{c}", i.dtype, (n,), "register") for c, i in enumerate(f.states())) for k, f in live}
        wide = [k for k, f in live if is_float_sum(f) and self.is_long()]
        totals = {k: Buffer(f"w{k}", f64, (n,), "register") for k in wide}
        start: list[Stmt] = []
        for k, f in live:
            start += [Local(b) for b in parts[k]]
            start += self.vector([Store(b, (self.lane,), i) for b, i in zip(parts[k], f.states(), strict=True)])
        for k in wide:
            start += [Local(totals[k]), *self.vector([Store(totals[k], (self.lane,), const(0.0, f64))])]
        drain: list[Stmt] = []
        for k in wide:
            more = lookup("cast")(load(parts[k][0], (self.lane,)), dtype=f64)
            drain += self.vector([Store(totals[k], (self.lane,), load(totals[k], (self.lane,)) + more),
                                  Store(parts[k][0], (self.lane,), self.r.folds[k].states()[0])])
        body = self.guarded(self.steps(self.vector(self.element(s, live, parts)), drain))
        ends: list[Stmt] = []
        states: dict[int, State] = {}
        for k, f in live:
            states[k] = self.state(k, f, "")
            ends += self.folded(k, f, parts[k], totals.get(k), states[k])
        out: list[Stmt] = [threads(*start, *body, *ends)]
        return [*out, *self.combined(live, states, shared)]

    def is_long(self) -> bool:
        each = self.team.lanes * (1 if self.team.across else self.team.vector)
        return not isinstance(self.row, int) or self.row > each * CHAIN

    def element(self, s: int, live: Sequence[tuple[int, Fold]], parts: dict[int, State]) -> list[Stmt]:
        """What is done with one element of the row in a stage."""
        at, memo = {**self.moved, **self.results}, {}  # type: ignore[var-annotated]
        kept = [(f"e{j}", substitute(value, at, memo), where["buffer"], where.args) for j, (first, value, where) in enumerate(self.kept)
                if first == s]
        named = {value: var(name, value.dtype) for name, value, _, _ in kept}
        out: list[Stmt] = [Let(name, value) for name, value, _, _ in kept]
        out += [Store(b, index, named[value]) for _, value, b, index in kept]
        for k, f in live:
            old = tuple(load(b, (self.lane,)) for b in parts[k])
            value = substitute(substitute(f.value, at, memo), named) if named else substitute(f.value, at, memo)
            new = f.monoid.merge(old, lifted(f, value, substitute(f.position, at, memo), old))
            lets = [Let(f"n{k}_{c}", e) for c, e in enumerate(new)]
            out += [*lets, *(Store(b, (self.lane,), var(x.name, x.value.dtype)) for b, x in zip(parts[k], lets, strict=True))]
        stores = [(b, a, v) for b, a, v, t, full in self.r.roots if full and t == s]
        lets = [Let(f"o{j}", substitute(substitute(v, at, memo), named) if named else substitute(v, at, memo))
                for j, (_, _, v) in enumerate(stores)]
        return [*out, *lets, *(Store(b, (substitute(a, at, memo),), var(x.name, x.value.dtype))
                               for x, (b, a, _) in zip(lets, stores, strict=True))]

    def stored(self, ends: Sequence[tuple[Buffer, Expr, Expr]]) -> list[Stmt]:
        at, memo = {**(self.moved if self.team.across else {}), **self.results}, {}  # type: ignore[var-annotated]
        lets = [Let(f"z{j}", substitute(v, at, memo)) for j, (_, _, v) in enumerate(ends)]
        return [*lets, *(Store(b, (substitute(a, at, memo),), var(x.name, x.value.dtype)) for x, (b, a, _) in zip(lets, ends, strict=True))]

    # -- results ----------------------------------------------------------------------------------

    def state(self, k: int, f: Fold, mark: str) -> State:
        """Registers for a state of every thread."""
        found = tuple(Buffer(f"s{k}_{c}{mark}", i.dtype, (THREADS, self.team.width), "register") for c, i in enumerate(f.states()))
        self.locals += [Local(b) for b in found]
        return found

    def folded(self, k: int, f: Fold, parts: State, total: Buffer | None, into: State) -> list[Stmt]:
        """From the accumulators of a thread to its state: of one row, they are folded."""
        if total is not None:
            wide, sums = (total,), lookup("sum").monoid
        else:
            wide, sums = parts, f.monoid

        def narrow(e: Expr, b: Buffer) -> Expr:
            return e if e.dtype is b.dtype else lookup("cast")(e, dtype=b.dtype)

        if self.team.across:
            return self.vector([Store(b, (T, self.lane), narrow(load(a, (self.lane,)), b)) for a, b in zip(wide, into, strict=True)])
        values = [tuple(load(a, (const(v),)) for a in wide) for v in range(self.team.vector)]
        lets, found = _tree(sums.merge, values, f"f{k}")  # type: ignore[union-attr]
        return [*lets, *(Store(b, (T, const(0)), narrow(e, b)) for b, e in zip(into, found, strict=True))]

    def combined(self, live: Sequence[tuple[int, Fold]], states: dict[int, State], shared: bool) -> list[Stmt]:
        """All threads of a row have merged their states: in a warp with what another lane has, then what the warps have left in memory."""
        out: list[Stmt] = []
        width = self.team.width
        w = var("w") if width > 1 else const(0)

        def each(body: Sequence[Stmt]) -> list[Stmt]:
            return [Loop("w", const(0), const(width), 1, "unroll", tuple(body))] if width > 1 else list(body)

        for bit in self.team.bits():
            if bit >= WARP or not live:
                break
            body: list[Stmt] = []
            for k, f in live:
                into = self.state(k, f, f"_{bit}")
                mine, other = (tuple(load(b, (lane, w)) for b in states[k]) for lane in (T, T ^ const(bit)))
                later = (T & const(bit)).equals(bit)
                first = tuple(lookup("where")(later, o, m) for m, o in zip(mine, other, strict=True))
                second = tuple(lookup("where")(later, m, o) for m, o in zip(mine, other, strict=True))
                lets, merged = _named(f.monoid.merge(first, second), f"m{k}")
                body += [*lets, *(Store(b, (T, w), e) for b, e in zip(into, merged, strict=True))]
                states[k] = into
            out.append(threads(*each(body)))
        if self.team.warps > 1 and live:
            out += self._between_warps(live, states, shared, w, each)
        for k, f in live:
            at = self.lane if self.team.across else const(0)
            self.results.update({var(n, b.dtype): load(b, (T, at)) for n, b in zip(f.names(k), states[k], strict=True)})
        return out

    def _between_warps(self, live: Sequence[tuple[int, Fold]], states: dict[int, State], shared: bool, w: Expr,
                       each: Callable[[Sequence[Stmt]], list[Stmt]]) -> list[Stmt]:
        team = self.team
        left, taken = [], []
        for k, f in live:
            memory = tuple(Buffer(f"m{k}_{c}", b.dtype, (THREADS // WARP * team.kept * team.width,), "shared")
                           for c, b in enumerate(states[k]))
            self.locals += [Local(b) for b in memory]
            with ix.ranges({T: const(THREADS)}):
                mine = (T // WARP * team.kept + T % WARP) * team.width + w
                theirs = [(team.warp(j) * team.kept + T % team.kept) * team.width + w for j in range(team.warps)]
            left += [Store(m, (mine,), load(b, (T, w))) for m, b in zip(memory, states[k], strict=True)]
            lets, merged = _tree(f.monoid.merge, [tuple(load(m, (at,)) for m in memory) for at in theirs], f"m{k}")
            into = states[k] = self.state(k, f, "_all")
            taken += [*lets, *(Store(b, (T, w), e) for b, e in zip(into, merged, strict=True))]
        first = const(team.kept) > T % WARP
        put = [If(first, tuple(each(left)))] if team.kept < WARP else each(left)
        take = each(taken) if shared else [If(team.lane.equals(0), tuple(each(taken)))]
        return [threads(*put), threads(*take)]


def _named(values: Sequence[Expr], name: str) -> tuple[list[Stmt], tuple[Expr, ...]]:
    lets = [Let(f"{name}_{c}", e) for c, e in enumerate(values)]
    return list(lets), tuple(var(x.name, x.value.dtype) for x in lets)


def _tree(merge: Callable[[tuple[Expr, ...], tuple[Expr, ...]], Sequence[Expr]], values: Sequence[tuple[Expr, ...]],
          name: str) -> tuple[list[Stmt], tuple[Expr, ...]]:
    """States merged pairwise, neighbours first: what is computed on the way, and the last."""
    out: list[Stmt] = []
    level = 0
    while len(values) > 1:
        merged = []
        for j in range(0, len(values) - 1, 2):
            lets, new = _named(merge(values[j], values[j + 1]), f"{name}_{level}_{j}")
            out += lets
            merged.append(new)
        values, level = [*merged, *values[len(values) // 2 * 2:]], level + 1
    return out, values[0]


__all__ = ["lower_reduction"]
