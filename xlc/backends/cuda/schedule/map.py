"""Schedule of elementwise groups and views on a GPU: neighbouring threads write neighbouring vectors of 16 bytes.

    z[i] = x[i] * y[i], f32[n]   ->   block b { thread t { let p = (b*256+t)*4; if (p < n) { vector v in 0..4 { z[p+v] = ... } } } }
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Loop, Stmt, const, size, substitute, var
from xlc.ir.machine import Machine
from xlc.ir.types import product
from xlc.passes.group import Group
from xlc.schedule.inline import Inliner, Places
from xlc.schedule.map import join
from xlc.schedule.nest import Dimension, decode, stored

from .bind import positions

BYTES = 16  # of one access


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
    return tuple(elements(dims, stores))


def elements(dims: Sequence[Dimension], stores: Sequence[tuple[Buffer, Expr, Expr]]) -> list[Stmt]:
    """Independent stores (buffer, address, value) at every position of ``dims``."""
    if not dims:
        return positions(1, lambda p: stored(stores))
    *outer, last = dims
    n = last.static
    width = max(BYTES // max(b.dtype.bytes for b, _, _ in stores), 1)
    if outer and (n is None or n % width):
        width = 1
    lane = var("v")

    def lanes(at: Expr, count: Expr) -> Loop:
        memo: dict[Expr, Expr] = {}
        moved = {last.var: at + lane}
        with ix.ranges({lane: const(width)}):
            done = [(b, substitute(a, moved, memo), substitute(v, moved, memo)) for b, a, v in stores]
        return Loop("v", const(0), count, 1, "vector", tuple(stored(done)), width)

    def body(p: Expr) -> list[Stmt]:
        if not outer:
            whole = n is not None and n % width == 0
            end = size(last.extent)
            return [lanes(p, const(width))] if whole else [
                If(p + width <= end, (lanes(p, const(width)),), (lanes(p, end - p),) if width > 1 else ())]
        names = [*outer, Dimension(var("x"), last.extent)]
        with ix.ranges({d.var: size(d.extent) for d in names}):
            return [*decode(names, p), lanes(var("x"), const(width))]

    if width == 1 and not outer:
        return positions(last.extent, lambda p: [Let(last.name, p), *stored(stores)])
    return positions(product(d.extent for d in dims), body, width)


__all__ = ["elements", "lower_map"]
