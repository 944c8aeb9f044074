"""Lowering of groups with reductions, whole rows at a time; of any contraction that has no schedule of its own, too.

The domain is cut into outer dimensions and reduced ones. For each position of the outer dimensions the reductions run in stages, a stage
needing only the results of earlier ones; what several stages need and is dear to compute stays in a buffer on the stack:

    softmax:  parallel i { max over r; serial r { e[r] = exp(x[r]-max); sum }; serial r { y[r] = e[r]/sum } }

Where the last dimension is reduced, lanes run along the row and are folded in a tree at its end; otherwise lanes are neighbouring outer
positions. The order of every sum depends on the shape alone, never on threads or on what is fused; long float sums are cut into blocks
whose sums are added in twice the precision, so the error is below that of pairwise summation (Higham, Accuracy and Stability, ch. 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod

from xlc import config
from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, Let, Local, Loop, Stmt, Store, const, load, size, substitute, var, walk
from xlc.ir.machine import Machine
from xlc.ir.op import Monoid, lookup
from xlc.ir.types import f64, product
from xlc.passes.group import Group

from .inline import Places, address
from .map import parallel, prefetches
from .nest import Dimension, lanes, minimum, operations, power_of_two, stored
from .reductions import Fold, Reductions, is_float_sum, is_long, lifted

BLOCK = 64  # additions in a row in one lane before its sum moves to the wide accumulator
STACK_BYTES = 32 << 10
STRICT_LANES = 64
DEAR = 8
MANY = 32  # pieces that are enough to share out between threads
UNROLL = 64  # operations up to which the loop over a window is copied out


def lower_reduction(group: Group, buffers: Places, machine: Machine) -> tuple[Stmt, ...]:
    nest = _Nest.of(group, buffers)
    if nest is None:
        return ()
    nest.machine = machine
    return tuple(nest.rows() if nest.along or nest.last is None else nest.columns(nest.last))


@dataclass
class _Nest(Reductions):
    machine: Machine = Machine()

    def lane_counts(self, values: Iterable[Expr], limit: int | None) -> tuple[int, int]:
        """How many lanes a vector that computes these values has, and a vector of what is left; at most ``limit`` are useful. The lanes fix
        the order of every sum: under ``strict`` they depend on the shape alone, not on what is fused."""
        if config.strict:
            width = power_of_two(min(limit or STRICT_LANES, STRICT_LANES))
            return width, width
        native = self.native()
        width = native * (4 if operations(values) <= 12 else 2)
        if limit is not None and limit < width:
            width = native if limit > native else power_of_two(max(limit, 1))
        return width, native

    def native(self) -> int:
        bits = max([s.dtype.bits for f in self.folds for s in f.states()] + [f.value.dtype.bits for f in self.folds] + [32])
        return self.machine.lanes(bits)

    # -- lanes along the row ----------------------------------------------------------------------

    def rows(self) -> list[Stmt]:
        self.join()
        *before, last = self.inner or [Dimension(var("r0"), 1)]
        body: list[Stmt] = []
        self._stage_row(body)
        ahead, heaviest = self._next_row(before, last), self._heaviest()
        for stage in range(self.stages()):
            live = [(k, f) for k, f in enumerate(self.folds) if f.stage == stage]
            stores = [(b, a, v) for b, a, v, s, full in self.roots if full and s == stage]
            values = [*(f.value for _, f in live), *(v for _, _, v in stores)]
            width, native = self.lane_counts(values, None if last.static is None else max(last.static, 1))
            body += self._row_stage(live, stores, before, last, width, native, ahead if stage == heaviest else [])
        body += stored([(b, a, v) for b, a, v, _, full in self.roots if not full])
        total = product(d.extent for d in self.inner)
        block = max(1, 2048 // max(total, 1)) if isinstance(total, int) else 1
        return parallel(self.outer, body, block)

    def _heaviest(self) -> int:
        """The stage, but for the first where there are others, that computes most."""
        work = [operations([*(f.value for f in self.folds if f.stage == s), *(v for _, _, v, t, full in self.roots if full and s == t)])
                for s in range(self.stages())]
        return max(range(min(1, len(work) - 1), len(work)), key=lambda s: work[s])

    def _next_row(self, before: Sequence[Dimension], last: Dimension) -> list[tuple[Expr, int]]:
        """What the first stage of the next row reads, to be prefetched while this row is worked on: (load, distance)."""
        n = last.static
        if before or n is None or not self.outer or self.stages() == 1 or n * 4 > self.machine.l2 // 4:
            return []
        step = (self.outer[-1].var,)
        loads = {e: ix.polynomial(e.args[0]) for f in self.folds if f.stage == 0 for e in walk(f.value)
                 if e.op is LOAD and e["buffer"].space == "global"}
        return [(load(e["buffer"], e.args[:1]), p[step]) for e, p in loads.items()
                if p.get((last.var,)) == 1 and p.get(step, 0) >= n and n * e["buffer"].dtype.bytes >= 1024
                and not (isinstance(e["buffer"].size, int) and e["buffer"].size * e["buffer"].dtype.bytes < self.machine.l2)][:4]

    def _stage_row(self, body: list[Stmt]) -> None:
        """Keep on the stack what two stages need and is dear: it is computed in the first, loaded in the later ones."""
        row = product(d.extent for d in self.inner)
        self.kept: list[tuple[int, Buffer, Expr, Expr]] = []  # stage, buffer, address, value
        if not isinstance(row, int):
            return
        variables = {d.name for d in self.inner}
        at = address([d.extent for d in self.inner], [d.var for d in self.inner])
        names = count()

        def worth(e: Expr) -> bool:
            return e.op is not LOAD and operations([e]) > DEAR and bool(e.free & variables) and row * e.dtype.bytes <= STACK_BYTES

        found = self.keep(worth, lambda e: load(Buffer(f"row{next(names)}", e.dtype, (row,), "stack"), (at,)))
        self.kept = [(stage, e["buffer"], at, value) for stage, value, e in found]
        body += [Local(b) for _, b, _, _ in self.kept]

    def _row_stage(self, live: Sequence[tuple[int, Fold]], stores: Sequence[tuple[Buffer, Expr, Expr]], before: Sequence[Dimension],
                   last: Dimension, width: int, native: int, ahead: Sequence[tuple[Expr, int]] = ()) -> list[Stmt]:
        stage = live[0][1].stage if live else self.stages() - 1
        kept = [(b, a, v) for s, b, a, v in self.kept if s == stage]
        accumulators = {k: [Buffer(f"a{k}_{c}", s.dtype, (width,), "register") for c, s in enumerate(f.states())] for k, f in live}
        lane = var("w")
        out: list[Stmt] = []
        for k, f in live:
            out += [Local(b) for b in accumulators[k]]
            out.append(Loop("w", const(0), const(width), 1, "vector",
                            tuple(Store(b, (lane,), s) for b, s in zip(accumulators[k], f.states(), strict=True)), width))

        def body(x: Expr, lanes_at: Expr) -> list[Stmt]:
            at, memo = {last.var: x}, {}  # type: ignore[var-annotated]
            stmts: list[Stmt] = [Let(f"e{j}", substitute(v, at, memo)) for j, (_, _, v) in enumerate(kept)]
            named = {let.value: var(let.name, let.value.dtype) for let in stmts if isinstance(let, Let)}
            stmts += [Store(b, (substitute(a, at, memo),), named[substitute(v, at, memo)]) for b, a, v in kept]
            for k, f in live:
                old = tuple(load(b, (lanes_at,)) for b in accumulators[k])
                value = substitute(substitute(f.value, at, memo), named)
                new = f.monoid.merge(old, lifted(f, value, substitute(f.position, at, memo), old))
                names = [Let(f"n{k}_{c}", e) for c, e in enumerate(new)]
                stmts += names
                stmts += [Store(b, (lanes_at,), var(n.name, n.value.dtype)) for b, n in zip(accumulators[k], names, strict=True)]
            lets = [Let(f"o{j}", substitute(v, at, memo)) for j, (_, _, v) in enumerate(stores)]
            return [*prefetches(ahead, at, width), *lets, *stmts, *(Store(b, (substitute(a, at, memo),), var(let.name, let.value.dtype))
                                     for let, (b, a, _) in zip(lets, stores, strict=True))]

        wide = [(k, f) for k, f in live if _is_long_sum(f, last, before, width)]
        if wide:
            out += self._blocked(wide, accumulators, before, last, width, native, body, lane)
        else:
            out += _nested(before, lanes("v", const(0), size(last.extent), width, native, lambda x: body(x, _lane_of("v"))))
        for k, f in live:
            if (k, f) not in wide:
                out += _tree(f, accumulators[k], width)
                out += [Let(name, load(b, (const(0),))) for name, b in zip(f.names(k), accumulators[k], strict=True)]
        return out

    def _blocked(self, wide, accumulators, before, last, width, native, body, lane) -> list[Stmt]:  # type: ignore[no-untyped-def]
        """The row in blocks of BLOCK vectors; after each, the sums move to accumulators of twice the precision."""
        totals = {k: Buffer(f"total{k}", f64, (width,), "register") for k, _ in wide}
        out: list[Stmt] = []
        zero = const(0.0, f64)
        for k, _ in wide:
            out += [Local(totals[k]), Loop("w", const(0), const(width), 1, "vector", (Store(totals[k], (lane,), zero),), width)]

        def drain() -> list[Stmt]:
            stmts: list[Stmt] = []
            for k, f in wide:
                (acc,) = accumulators[k]
                more = load(totals[k], (lane,)) + lookup("cast")(load(acc, (lane,)), dtype=f64)
                stmts.append(Loop("w", const(0), const(width), 1, "vector", (
                    Store(totals[k], (lane,), more), Store(acc, (lane,), f.states()[0])), width))
            return stmts

        block = BLOCK * width
        base, end = var("b"), size(last.extent)
        if last.static is not None:
            whole = last.static // block * block
            inner: list[Stmt] = [Loop("b", const(0), const(whole), block, "serial", (
                *lanes("v", base, base + block, width, native, lambda x: body(x, _lane_of("v"))), *drain()))] if whole else []
            rest = lanes("v", const(whole), end, width, native, lambda x: body(x, _lane_of("v")))
            inner += [*rest, *drain()] if rest else []
        else:
            inner = [Loop("b", const(0), end, block, "serial", (
                *lanes("v", base, minimum(base + block, end), width, native, lambda x: body(x, _lane_of("v"))), *drain()))]
        out += _nested(before, inner)
        for k, f in wide:
            sums = lookup("sum").monoid
            assert sums is not None
            out += _tree_of(sums, [totals[k]], width, f"t{k}")
            out.append(Let(f.names(k)[0], lookup("cast")(load(totals[k], (const(0),)), dtype=f.states()[0].dtype)))
        return out

    # -- lanes across rows ------------------------------------------------------------------------

    def columns(self, last: Dimension) -> list[Stmt]:
        native = self.native()
        most = 4 if operations(f.value for f in self.folds) <= 12 else 2
        width = native * most
        if last.static is not None:
            even = next((w for w in range(most, most // 2, -1) if last.static % (native * w) == 0), most)  # no lanes beyond the last column
            width = min(width, power_of_two(last.static)) if last.static < width else native * even
        start, lane = var("c"), var("v")
        count = minimum(size(last.extent) - start * width, const(width)) if last.static is None or last.static % width else const(width)
        with ix.ranges({lane: const(width)}):
            column = start * width + lane
            at: dict[Expr, Expr] = {last.var: column}
            self.map(lambda e, memo: substitute(e, at, memo))
        zero = {d.var: const(0) for d in self.inner}
        body: list[Stmt] = []

        def vector(*stmts: Stmt) -> Loop:
            return Loop("v", const(0), count, 1, "vector", stmts, width)

        results: dict[Expr, Expr] = {}  # a finished state, which lives in a register buffer, one per lane

        def finished(e: Expr) -> Expr:
            return substitute(e, results)

        for stage in range(self.stages()):
            live = [(k, f) for k, f in enumerate(self.folds) if f.stage == stage]
            accumulators = {k: [Buffer(f"a{k}_{c}", s.dtype, (width,), "register") for c, s in enumerate(f.states())] for k, f in live}
            wide = [k for k, f in live if is_float_sum(f) and is_long(self.inner, BLOCK * 4)]
            totals = {k: Buffer(f"total{k}", f64, (width,), "register") for k in wide}
            for k, f in live:
                body += [Local(b) for b in accumulators[k]]
                body += [vector(*(Store(b, (lane,), s) for b, s in zip(accumulators[k], f.states(), strict=True)))]
            for k in wide:
                body += [Local(totals[k]), vector(Store(totals[k], (lane,), const(0.0, f64)))]
            step: list[Stmt] = []
            work = max(operations(f.value for _, f in live), 1)
            for k, f in live:
                old = tuple(load(b, (lane,)) for b in accumulators[k])
                new = f.monoid.merge(old, lifted(f, finished(f.value), f.position, old))
                names = [Let(f"n{k}_{c}", e) for c, e in enumerate(new)]
                step += [*names, *(Store(b, (lane,), var(n.name, n.value.dtype)) for b, n in zip(accumulators[k], names, strict=True))]
            outs = [(b, a, finished(v)) for b, a, v, s, full in self.roots if full and s == stage]
            lets = [Let(f"o{j}", v) for j, (_, _, v) in enumerate(outs)]
            step = [*lets, *step, *(Store(b, (a,), var(let.name, let.value.dtype)) for let, (b, a, _) in zip(lets, outs, strict=True))]
            if step:
                wider = {k: lookup("cast")(load(accumulators[k][0], (lane,)), dtype=f64) for k in wide}
                drain = [vector(Store(totals[k], (lane,), load(totals[k], (lane,)) + wider[k]),
                                Store(accumulators[k][0], (lane,), self.folds[k].states()[0])) for k in wide]
                body += _nested_blocked(self.inner, [vector(*step)], drain) if wide \
                    else _nested(self.inner, [vector(*step)], UNROLL // work)
            for k, f in live:
                for c, (name, s) in enumerate(zip(f.names(k), f.states(), strict=True)):
                    result = lookup("cast")(load(totals[k], (lane,)), dtype=s.dtype) if k in wide else load(accumulators[k][c], (lane,))
                    results[var(name, s.dtype)] = result
        ends = [(b, substitute(a, zero), finished(v)) for b, a, v, _, full in self.roots if not full]
        body += [vector(*stored(ends))] if ends else []
        n = last.static
        pieces = Dimension(start, -(-n // width) if n is not None else (last.extent + (width - 1)) // width)
        if pieces.extent == 1:
            body = [_substituted(s, {start: const(0)}) for s in body]
        *before, inside = [d for d in self.outer if d.var is not last.var] or [Dimension(var("u"), 1)]
        if prod(d.static or 1 for d in (*before, pieces)) < MANY:
            return parallel([*before, inside, pieces], body, 1)
        return parallel([*before, pieces], _nested([inside], body), 1)  # what a column needs everywhere stays at hand


def _substituted(s: Stmt, at: dict[Expr, Expr]) -> Stmt:
    """A statement with variables replaced."""
    match s:
        case Store(b, i, v, m):
            return Store(b, tuple(substitute(x, at) for x in i), substitute(v, at), None if m is None else substitute(m, at))
        case Let(n, v):
            return Let(n, substitute(v, at))
        case Loop():
            body = tuple(_substituted(x, at) for x in s.body)
            return Loop(s.var, substitute(s.start, at), substitute(s.stop, at), s.step, s.kind, body, s.width)
    return s


def _lane_of(v: str) -> Expr:
    """The lane of a ``lanes`` loop: where in the accumulators its element goes."""
    return var(v)


def _is_long_sum(f: Fold, last: Dimension, before: Sequence[Dimension], width: int) -> bool:
    return is_float_sum(f) and is_long([*before, last], BLOCK * width)


def _nested(dims: Sequence[Dimension], body: Sequence[Stmt], unrolled: int = 0) -> list[Stmt]:
    """Serial loops; copied out instead if they run at most ``unrolled`` times together (small windows)."""
    from .nest import serial

    total = product(d.extent for d in dims)
    if not isinstance(total, int) or total > unrolled:
        return serial(dims, body)
    out = list(body)
    for d in reversed(dims):
        out = [Loop(d.name, const(0), size(d.extent), 1, "unroll", tuple(out))]
    return out


def _nested_blocked(dims: Sequence[Dimension], body: Sequence[Stmt], drain: Sequence[Stmt]) -> list[Stmt]:
    """Serial loops; after every BLOCK iterations of the innermost, ``drain``."""
    *before, last = dims
    end = size(last.extent)
    base = var("b")
    inner = [Loop(last.name, base, minimum(base + BLOCK, end), 1, "serial", tuple(body)), *drain]
    return _nested(before, [Loop("b", const(0), end, BLOCK, "serial", tuple(inner))])


def _tree(f: Fold, buffers: Sequence[Buffer], width: int) -> list[Stmt]:
    return _tree_of(f.monoid, buffers, width, "f")


def _tree_of(monoid: Monoid, buffers: Sequence[Buffer], width: int, name: str) -> list[Stmt]:
    """Fold the lanes: halves onto halves."""
    lane, half = var("w"), width // 2
    out: list[Stmt] = []
    while half:
        new = monoid.merge(tuple(load(b, (lane,)) for b in buffers), tuple(load(b, (lane + half,)) for b in buffers))
        lets = [Let(f"{name}{half}_{c}", e) for c, e in enumerate(new)]
        out.append(Loop("w", const(0), const(half), 1, "vector", (
            *lets, *(Store(b, (lane,), var(x.name, x.value.dtype)) for b, x in zip(buffers, lets, strict=True))), half))
        half //= 2
    return out


__all__ = ["lower_reduction"]
