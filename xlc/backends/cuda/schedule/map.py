"""Schedule of elementwise groups and views on a GPU: neighbouring threads write neighbouring vectors of 16 bytes.

    z[i] = x[i] * y[i], f32[n]   ->   block b { thread t { let p = (b*256+t)*4; if (p < n) { vector v in 0..4 { z[p+v] = ... } } } }

Rows that are whole vectors are walked along (one division for each vector finds the row). Of others the vectors reach across the ends, so
that what is written is aligned all the same: each lane finds its own row. Where a lane's own condition is that of its whole vector (the
parts of a concatenation, padding), it is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Loop, Stmt, const, size, substitute, var, walk
from xlc.ir.machine import Machine
from xlc.ir.types import Size, bool_, i64, product
from xlc.passes.group import Group
from xlc.schedule.inline import Inliner, Places
from xlc.schedule.map import join
from xlc.schedule.nest import Dimension, decode, operations, stored

from .bind import THREADS, positions
from .transpose import transposing

BYTES = 16  # of one access
BLOCKS = 8  # that a multiprocessor runs at a time
WAVES = 2  # of blocks that a launch has at least, before threads do more than one vector
WORK = 64  # operations of one thread up to which its vectors are copied out

Stores = Sequence[tuple[Buffer, Expr, Expr]]  # buffer, address, value


def lower_map(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...]:
    dims = [Dimension(v, group.extents[v]) for v in group.domain]
    if any(d.extent == 0 for d in dims):
        return ()
    with ix.ranges({d.var: size(d.extent) for d in dims}):
        inliner = Inliner(group.members, places)
        values = [inliner.value(r, group.domain) for r in group.roots]
        where = [inliner.place(r, group.domain) for r in group.roots]
        dims, values, where = join(dims, values, where)
    stores = [(places[r], a, v) for r, a, v in zip(group.roots, where, values, strict=True)]
    turned = transposing(dims, stores) if dims else None
    times = repeats(product(d.extent for d in dims), stores, dims[-1].var, machine) if dims else 1
    return tuple(turned or elements(dims, stores, times))


def vector_width(stores: Stores, last: Expr) -> int:
    """Elements whose widest neighbours along ``last`` in memory, read or written, are one access."""
    loads = [e["buffer"] for e in walk(*(v for _, _, v in stores)) if e.op is LOAD and ix.polynomial(e.args[0]).get((last,)) == 1]
    return max(BYTES // max(b.dtype.bytes for b in (*loads, *(b for b, _, _ in stores))), 1)


def repeats(total: Size, stores: Stores, last: Expr, machine: Machine) -> int:
    """How many vectors a thread should write: several, where there is enough to do for all multiprocessors, and each is little work."""
    width = vector_width(stores, last)
    if not isinstance(total, int):
        return 1
    work = max(operations(v for _, _, v in stores), 1) * width
    enough = [u for u in (4, 2) if u * work <= WORK and total >= WAVES * BLOCKS * machine.cores * THREADS * width * u]
    return max(enough, default=1)


def elements(dims: Sequence[Dimension], stores: Stores, times: int = 1) -> list[Stmt]:
    """Independent stores (buffer, address, value) at every position of ``dims``, ``times`` vectors by each thread."""
    if not dims:
        return positions(1, lambda p: stored(stores))
    *outer, last = dims
    width, lane = vector_width(stores, last.var), var("v")

    def lanes(at: Mapping[Expr, Expr], count: Expr | int) -> Loop:
        """One vector: where the variables of ``dims`` have these values, over the lane."""
        memo: dict[Expr, Expr] = {}
        done = [(b, substitute(a, at, memo), uniform(substitute(v, at, memo), lane, width)) for b, a, v in stores]
        return Loop("v", const(0), count if isinstance(count, Expr) else const(count), 1, "vector", tuple(stored(done)), width)

    if last.static is not None and last.static % width == 0:
        rows = [*outer, Dimension(var("x"), last.static // width)]

        def along(p: Expr) -> list[Stmt]:
            with ix.ranges({lane: const(width), **{d.var: size(d.extent) for d in rows}}):
                return [*decode(rows, p), lanes({last.var: var("x") * width + lane}, width)]

        return positions(product(d.extent for d in rows), along, 1, times)
    total = product(d.extent for d in dims)
    dense = ix.address_of([d.extent for d in dims], [d.var for d in dims])
    if any(a is not dense for _, a, _ in stores):
        return positions(total, lambda p: [*decode(dims, p), *stored(stores)], 1, times)

    def across(p: Expr) -> list[Stmt]:
        end = size(total)
        with ix.ranges({lane: const(width)}):
            at = dict(zip((d.var for d in dims), ix.unflatten([d.extent for d in dims], p + lane), strict=True))
            whole = lanes(at, width)
            return [whole] if width == 1 else [If(p + width <= end, (whole,), (lanes(at, end - p),))]

    return positions(total, across, width, times)


DECIDED = {("less", 1), ("greater_equal", 1), ("greater", -1), ("less_equal", -1)}  # comparison with 0, the lane's coefficient


def uniform(e: Expr, lane: Expr, width: int) -> Expr:
    """The expression with those comparisons asked for the first lane that have one answer for all:  4*x + v < 64  ->  4*x < 64."""
    replaced: dict[Expr, Expr] = {}
    for x in walk(e):
        if x.dtype is bool_ and x.args and x.args[0].dtype is i64 and x.op.name in dict(DECIDED) and ix.depends(x, lane):
            p = ix.polynomial(x.args[0] - x.args[1])
            rest = {m: k for m, k in p.items() if m != (lane,)}
            if (x.op.name, p.get((lane,))) in DECIDED and all(k % width == 0 for k in rest.values()) \
                    and not any(ix.depends(a, lane) for m in rest for a in m):
                replaced[x] = x.op(ix.build(rest), const(0))
    return substitute(e, replaced) if replaced else e


__all__ = ["elements", "lower_map", "repeats", "uniform"]
