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
from dataclasses import replace
from itertools import count

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Let, Local, Loop, Stmt, Store, Wait, const, load, size, substitute, var
from xlc.ir.machine import Machine
from xlc.ir.op import Monoid, lookup
from xlc.ir.types import f64, product
from xlc.passes.group import Group
from xlc.schedule.inline import Places
from xlc.schedule.nest import Dimension, decode, operations
from xlc.schedule.reductions import Fold, Reductions, is_float_sum, lifted

from .bind import THREADS, B, T, blocks, pieces, threads
from .team import WARP, Team, choose

CHAIN = 64  # additions in a row before a sum moves to the wide accumulator
KEEP, KEEP_ALL = 64, 128  # registers of a thread for one value of its part of a row, and for all
SPARE = 4 << 10  # bytes of shared memory that are left for exchanging results
DEAR = 8  # operations from which a value is kept and not computed again
UNROLL = 4  # vectors that a thread reads at a time
COPIED = 16  # vectors up to which all are copied out

State = tuple[Buffer, ...]


def lower_reduction(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...]:
    found = Reductions.of(group, places)
    if found is None:
        return ()
    found.join()
    found.folds = [replace(f, monoid=unordered(f.monoid)) for f in found.folds]
    return tuple(_Nest(found, choose(found, machine), machine).blocks())


def unordered(m: Monoid) -> Monoid:
    """The monoid for threads that merge in an order of their own: which of +0 and -0 is the larger depends on it anyway."""
    def either(e: Expr) -> Expr:
        return lookup(f"fold_{e.op.name}")(*e.args) if e.op.name in ("minimum", "maximum") and e.dtype.is_float else e

    return replace(m, merge=lambda s, t: tuple(map(either, m.merge(s, t))))


class _Nest:
    def __init__(self, r: Reductions, team: Team, machine: Machine):
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
        self.far: dict[Expr, Expr] = {}  # kept values that registers do not hold: where they are instead
        self.near = 0  # steps whose values registers hold, if that is not all
        self.early = False  # what is kept is on its way before anything is computed
        self.kept: list[tuple[int, Expr, Expr]] = self._keep(machine)

    def blocks(self) -> list[Stmt]:
        body: list[Stmt] = self.ahead() if self.early else []
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
        width, p = self.team.width, var("p")
        with ix.ranges({T: const(THREADS)}):
            where = B * self.team.rows + self.team.row
        inner = (*_coordinates(self.outer, p, width), *body)
        if not (isinstance(self.rows, int) and self.rows % (self.team.rows * width) == 0):
            inside = p < size(self.rows if width == 1 else product(d.extent for d in self.outer[:-1]) * (self.outer[-1].extent // width))
            condition = inside if condition is None else inside & condition
        return [Let("p", where), *([If(condition, inner)] if condition is not None and not condition.is_const else inner)]

    def vector(self, body: Sequence[Stmt], whole: bool = True) -> list[Stmt]:
        """The lanes of a thread, if it has several."""
        n = self.team.vector
        return [Loop("v", const(0), const(n), 1, "vector", tuple(body), n)] if n > 1 and whole else list(body)

    def steps(self, make: Callable[[bool], Sequence[Stmt]], drain: Sequence[Stmt], first: bool) -> list[Stmt]:
        """All vectors of a thread's part of the row; k counts them. After at most CHAIN of them ``drain``. ``make`` gives what is done
        with one, where its kept values are in registers or (True) not. ``first``: the row is read from memory."""
        team, q, k = self.team, var("q"), var("k")
        with ix.ranges({T: const(THREADS)}):
            where = Let("q", k * team.lanes + team.lane)
        at = _coordinates(self.inner, q, team.depth)
        inside = q < (size(self.row) if team.depth == 1 else const(self.row // team.depth))

        def checked(far: bool) -> list[Stmt]:
            return [where, If(inside, (*at, *make(far)))]

        def run(start: int | Expr, stop: int | Expr, unroll: int, far: bool = False) -> list[Stmt]:
            """Steps that all threads have, some at a time; 0: all copied out."""
            low, high = (const(e) if isinstance(e, int) else e for e in (start, stop))
            one = (where, *at, *make(far))
            if low is high:
                return []
            if not unroll:
                return [Loop("k", low, high, 1, "unroll", one)]
            some = Loop("u", const(0), const(unroll), 1, "unroll", (Let("k", var("k_") + var("u")), *one))
            return [Loop("k_", low, high, unroll, "serial", (some,))]

        def chains(stop: int | Expr) -> list[Stmt]:
            c = var("c")
            end = const(stop) if isinstance(stop, int) else stop
            return [] if stop == 0 else [Loop("c", const(0), end, CHAIN, "serial", (*run(c, c + CHAIN, together), *drain))]

        together = UNROLL * 4 // team.vector if team.across else UNROLL  # down columns few blocks run at a time

        if not isinstance(self.row, int):
            n = size(self.row)
            total, middle = (n + (team.step - 1)) // team.step, n // (team.step * together) * together
            start = n // (team.step * CHAIN) * CHAIN if drain else const(0)
            few = n // (team.step * UNROLL) * UNROLL
            rest = [*(run(middle, few, UNROLL) if together > UNROLL else []), Loop("k", few, total, 1, "serial", tuple(checked(False)))]
            return [*(chains(start) if drain else []), *run(start, middle, together), *rest, *drain]
        full = self.row // team.step
        if self.near:
            deep = max((8 if first else 2) * UNROLL // team.depth, 1)  # few such blocks run at a time: each reads much at once
            middle = full - (full - self.near) % deep
            out = [*run(0, self.near, 0), *drain, *run(self.near, middle, deep, True)]
        else:
            start = full // CHAIN * CHAIN if drain else 0
            middle = start + ((full - start) // together * together if not self.kept and full - start > COPIED else 0)
            out = [*(chains(start) if drain else []), *run(start, middle, together)]
        far = self.near > 0
        return [*out, *run(middle, full, 0, far), *([Let("k", const(full)), *checked(far)] if self.row % team.step else []), *drain]

    # -- one stage --------------------------------------------------------------------------------

    def _keep(self, machine: Machine) -> list[tuple[int, Expr, Expr]]:
        """What two stages need stays in registers: what is read for this row alone, and what is dear. Of a longer row one value is kept, in
        registers and the rest in shared memory, for two blocks on a processor or for one, which may use more registers."""
        if not isinstance(self.row, int) or self.team.across and self.team.width > 1:
            return []
        width = self.team.depth
        part = -(-self.row // self.team.step) * width
        inner, outer = {d.name for d in self.inner}, {d.name for d in self.outer}
        names, used = count(), 0

        def near(e: Expr) -> int:
            """How much of it registers hold; 0 if there is no room for all of it."""
            words = max(e.dtype.bits // 32, 1)
            if part * words <= KEEP:
                return part if used + part * words <= KEEP_ALL else 0
            for together, most in ((2, KEEP), (1, KEEP_ALL)):
                room = most * 5 // 8 if e.dtype.bits < 32 else most // words  # halves are worked on in registers of their own
                held = min(room, part) // width * width
                rest = (part - held) * THREADS * e.dtype.bytes
                if not used and self.team.lanes == THREADS and rest <= machine.shared // together - SPARE:
                    return held
            return 0

        def worth(e: Expr) -> bool:
            mine = bool(e.free & outer) or not outer
            return bool(e.free & inner) and (mine if e.op is LOAD else operations([e]) > DEAR) and near(e) > 0

        def place(e: Expr) -> Expr:
            nonlocal used
            held = near(e)
            used += held * max(e.dtype.bits // 32, 1) if held == part else KEEP_ALL
            b, k = Buffer(f"x{next(names)}", e.dtype, (THREADS, held), "register"), var("k")
            self.locals.append(Local(b))
            where = load(b, (T, k * width + (const(0) if self.team.across else self.lane)))
            if held < part:
                self.near = held // width
                rest = Buffer(f"{b.name}_far", e.dtype, ((part - held) * THREADS,), "shared")
                self.locals.append(Local(rest))
                self.far[where] = load(rest, (((k - self.near) * THREADS + T) * width + self.lane,))
            return where

        kept = self.r.keep(worth, place)
        if self.near and width > 1 and all(v.op is LOAD and not v["masked"] for _, v, _ in kept):
            self.early = True
            ((_, value, where),) = kept
            self.r.map(lambda e, memo: substitute(e, {value: where}, memo))
            return [(-1, value, where)]
        return kept

    def ahead(self) -> list[Stmt]:
        """All of a row that registers do not hold is under way, past the registers, with what they hold, before a thread waits for any of
        it: one block at a time must ask for as much as several would."""
        ((_, value, where),) = self.kept
        n = self.team.vector

        def copied(far: bool) -> list[Stmt]:
            at = {**self.moved, **(self.far if far else {})}
            place = substitute(where, at)
            store = Store(place["buffer"], place.args, substitute(value, at))
            return [Loop("v", const(0), const(n), 1, "async" if far else "vector", (store,), n)]

        return [threads(*self.guarded(self.steps(copied, [], True))), Wait(0)]

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
        body = self.guarded(self.steps(lambda far: self.vector(self.element(s, live, parts, far)), drain, s == 0))
        ends: list[Stmt] = []
        states: dict[int, State] = {}
        for k, f in live:
            states[k] = self.state(k, f, "")
            ends += self.folded(k, f, parts[k], totals.get(k), states[k])
        out: list[Stmt] = [threads(*start, *body, *ends)]
        return [*out, *self.combined(live, states, shared)]

    def is_long(self) -> bool:
        """Whether a thread adds up more than a chain."""
        return not isinstance(self.row, int) or self.row > self.team.step * CHAIN

    def element(self, s: int, live: Sequence[tuple[int, Fold]], parts: dict[int, State], far: bool) -> list[Stmt]:
        """What is done with one element of the row in a stage."""
        at, memo = {**self.moved, **self.results, **(self.far if far else {})}, {}  # type: ignore[var-annotated]
        kept = [(f"e{j}", substitute(value, at, memo), place["buffer"], place.args) for j, (first, value, where) in enumerate(self.kept)
                if first == s for place in (substitute(where, at, memo),)]
        named = {value: var(name, value.dtype) for name, value, _, _ in kept}
        out: list[Stmt] = [Let(name, value) for name, value, _, _ in kept]
        out += [Store(b, index, named[value]) for _, value, b, index in kept]
        for k, f in live:
            old = tuple(load(b, (self.lane,)) for b in parts[k])
            value = substitute(substitute(f.value, at, memo), named)
            new = f.monoid.merge(old, lifted(f, value, substitute(f.position, at, memo), old))
            lets = [Let(f"n{k}_{c}", e) for c, e in enumerate(new)]
            out += [*lets, *(Store(b, (self.lane,), var(x.name, x.value.dtype)) for b, x in zip(parts[k], lets, strict=True))]
        stores = [(b, a, v) for b, a, v, t, full in self.r.roots if full and t == s]
        lets = [Let(f"o{j}", substitute(substitute(v, at, memo), named)) for j, (_, _, v) in enumerate(stores)]
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
        wide: State = parts if total is None else (total,)
        monoid = f.monoid if total is None else lookup("sum").monoid
        assert monoid is not None

        def narrow(e: Expr, b: Buffer) -> Expr:
            return e if e.dtype is b.dtype else lookup("cast")(e, dtype=b.dtype)

        if self.team.across:
            return self.vector([Store(b, (T, self.lane), narrow(load(a, (self.lane,)), b)) for a, b in zip(wide, into, strict=True)])
        values = [tuple(load(a, (const(v),)) for a in wide) for v in range(self.team.vector)]
        lets, found = _tree(monoid.merge, values, f"f{k}")
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
            memory = tuple(Buffer(f"g{k}_{c}", b.dtype, (THREADS // WARP * team.kept * team.width,), "shared")
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


def _coordinates(dims: Sequence[Dimension], p: Expr, each: int) -> list[Stmt]:
    """The variables of the p-th position or, of the last dimension, of the p-th ``each`` positions."""
    if not dims:
        return []
    *before, last = dims
    if each == 1:
        return decode(dims, p)
    assert isinstance(last.extent, int)
    short = Dimension(var(f"{last.name}_"), last.extent // each)
    return [*decode([*before, short], p), Let(last.name, short.var * each)]


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
