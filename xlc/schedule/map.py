"""Lowering of elementwise groups and views: every element of the roots on its own.

    parallel i in 0..n step 16384 {
      serial v_ in i..min(i+16384,n) step 64 { vector v in 0..64 width 64 { z[v_+v] = ... } }
    }
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, If, Loop, Prefetch, Stmt, const, load, size, substitute, var, walk
from xlc.ir.machine import Machine
from xlc.ir.types import i64, product
from xlc.passes.group import Group

from . import inline
from .inline import Inliner, Places
from .nest import Dimension, decode, lanes, minimum, operations, serial, stored
from .transpose import transposing

AHEAD = 2 << 10  # bytes from what a vector reads to what is prefetched meanwhile
CHUNK = 1 << 14  # elements of one step of the parallel loop, when a single dimension is cut
SHORT = 512  # elements up to which a row takes less time than to find out where it is, from its number among all rows


def lower_map(group: Group, buffers: Places, machine: Machine) -> tuple[Stmt, ...]:
    dims = [Dimension(v, group.extents[v]) for v in group.domain]
    if any(d.extent == 0 for d in dims):
        return ()
    with ix.ranges({d.var: size(d.extent) for d in dims}):
        inliner = Inliner(group.members, buffers)
        values = [inliner.value(r, group.domain) for r in group.roots]
        where = [inliner.place(r, group.domain) for r in group.roots]
        dims, values, where = join(dims, values, where)
        dims, values, where = cut(dims, values, where, machine)
    stores = [(buffers[r], a, v) for r, a, v in zip(group.roots, where, values, strict=True)]
    return tuple(nest(dims, stores, machine))


def join(dims: Sequence[Dimension], values: Sequence[Expr], where: Sequence[Expr]) -> tuple[list[Dimension], list[Expr], list[Expr]]:
    """Drop dimensions of extent 1 and make one loop of neighbours wherever all addresses allow it. ``where`` are addresses too."""
    zero = {d.var: const(0) for d in dims if d.extent == 1}
    if zero:
        memo: dict[Expr, Expr] = {}
        values, where = [substitute(v, zero, memo) for v in values], [substitute(a, zero, memo) for a in where]
    dims = [d for d in dims if d.extent != 1]
    k = len(dims) - 2
    while k >= 0:
        outer, inner = dims[k], dims[k + 1]
        seen = [*inline.addresses(values), *where]
        pinned = inline.uses_outside_addresses(values)
        if outer.var not in pinned and inner.var not in pinned \
                and inline.collapsible(seen, outer.var, inner.var, size(inner.extent)):
            memo = {}
            values = [inline.collapse(v, outer.var, inner.var, inner.var, memo) for v in values]
            where = [ix.build({m: c for m, c in ix.polynomial(a).items() if outer.var not in m}) for a in where]
            dims[k:k + 2] = [Dimension(inner.var, outer.extent * inner.extent)]
        k -= 1
    return list(dims), list(values), list(where)


def cut(dims: list[Dimension], values: list[Expr], where: list[Expr], machine: Machine) -> tuple[list[Dimension], list[Expr], list[Expr]]:
    """The last dimension in two where addresses divide its variable by a number of whole vectors: what is ``i // 64`` is then the same for
    all lanes, which are neighbours in memory, and is not gathered."""
    last = dims[-1] if dims else None
    if last is None or last.static is None:
        return dims, values, where
    least = machine.lanes(32)
    parts = {e.args[1].value for e in walk(*values, *where)
             if e.op.name in ("floor_divide", "remainder") and e.dtype is i64 and e.args[1].is_const
             and ix.polynomial(e.args[0]).get((last.var,)) == 1}
    fitting = [c for c in parts if least <= c < last.static and last.static % c == 0 and all(p % c == 0 for p in parts)]
    if not fitting:
        return dims, values, where
    inner = Dimension(var(f"{last.name}_in"), min(fitting))
    outer = Dimension(var(f"{last.name}_out"), last.static // min(fitting))
    with ix.ranges({d.var: size(d.extent) for d in (outer, inner)}):
        at: dict[Expr, Expr] = {last.var: outer.var * const(min(fitting)) + inner.var}
        memo: dict[Expr, Expr] = {}
        values, where = ([substitute(e, at, memo) for e in some] for some in (values, where))
    return [*dims[:-1], outer, inner], values, where


def nest(dims: Sequence[Dimension], stores: Sequence[tuple[Buffer, Expr, Expr]], machine: Machine) -> list[Stmt]:
    """The loops around independent stores (buffer, address, value)."""

    def body(at: dict[Expr, Expr]) -> list[Stmt]:
        memo: dict[Expr, Expr] = {}
        done = [(b, substitute(a, at, memo), substitute(v, at, memo)) for b, a, v in stores]
        ahead = prefetches(streams, at, width) if at else []
        return ahead + stored(done)

    if not dims:
        return body({})
    tiles = transposing(dims, stores, machine, lambda d, b: parallel(d, b, 1))
    if tiles is not None:
        return tiles
    *outer, last = dims
    streams = long_streams([v for _, _, v in stores], [b for b, _, _ in stores], last.var, machine)
    bits = max(b.dtype.bits for b, _, _ in stores)
    native = machine.lanes(max(bits, 32))
    ops = operations(v for _, _, v in stores)
    width = native * (4 if ops <= 8 else 2 if ops <= 40 else 1)
    work = max(ops, 4)
    chunk = max(width, 1 << ((CHUNK * 8 // (8 + work)).bit_length() - 1))  # a power of two: most sizes are whole chunks
    n = last.static
    inside = [Dimension(d.var, d.extent) for d in outer]
    if n is not None and n <= 2 * chunk and outer:
        loop = lanes("v", const(0), const(n), width, native, lambda x: body({last.var: x}))
        while n < SHORT and len(inside) > 1 and (rows := inside[-1].static) is not None and n * rows <= chunk:
            loop, n = serial(inside[-1:], loop), n * rows
            inside.pop()
        return parallel(inside, loop, max(1, chunk // n))
    pieces = Dimension(var("c"), -(-n // chunk) if n is not None else (last.extent + (chunk - 1)) // chunk)
    if n is not None and n <= chunk and not outer:
        return lanes("v", const(0), const(n), width, native, lambda x: body({last.var: x}))
    lo = pieces.var * chunk
    if n is not None and n % chunk == 0:
        loop = lanes("v", lo, lo + chunk, width, native, lambda x: body({last.var: x}))
    else:
        end = size(last.extent)
        loop = [If(lo + chunk <= end, tuple(lanes("v", lo, lo + chunk, width, native, lambda x: body({last.var: x}))),
                   tuple(tail(lo, end, width, native, lambda x: body({last.var: x}))))]
    return parallel([*inside, pieces], loop, 1)


def long_streams(values: Sequence[Expr], outputs: Sequence[Buffer], walked: Expr, machine: Machine) -> list[tuple[Expr, int]]:
    """The loads of neighbouring elements, one for each buffer, if caches do not hold what is touched and there is work between two loads:
    then the loads that are in flight at a time are few, and the processor's own prefetching alone does not reach full bandwidth."""
    loads: dict[Buffer, Expr] = {}
    for e in walk(*values):
        if e.op is LOAD and e["buffer"].space == "global" and ix.polynomial(e.args[0]).get((walked,)) == 1:
            loads.setdefault(e["buffer"], e.args[0])
    sizes = [b.size * b.dtype.bytes for b in (*loads, *outputs) if isinstance(b.size, int)]
    if sum(sizes) < 4 * machine.l2 or len(loads) > 4 or operations(values) < 8:
        return []
    return [(load(b, (a,)), AHEAD // b.dtype.bytes) for b, a in loads.items()
            if isinstance(b.size, int) and b.size * b.dtype.bytes > machine.l2]


def prefetches(streams: Sequence[tuple[Expr, int]], at: dict[Expr, Expr], width: int) -> list[Stmt]:
    """What vectors of ``width`` lanes read from each stream (a load, a distance), that many elements on."""
    out: list[Stmt] = []
    for e, distance in streams:
        b, where = e["buffer"], substitute(substitute(e.args[0], at), {var("v"): const(0)})
        line = max(64 // b.dtype.bytes, 1)
        out += [Prefetch(b, (where,), distance + k) for k in range(0, width, line)]
    return out


def tail(lo: Expr, end: Expr, width: int, native: int, body) -> list[Stmt]:  # type: ignore[no-untyped-def]
    """The last, shorter chunk."""
    if end.is_const and len(ix.polynomial(lo)) == 1:  # its length is known though its start is a variable
        step = next(iter(ix.polynomial(lo).values()))
        rest = end.value % step
        return lanes("v", const(end.value - rest), end, width, native, body)
    return lanes("v", lo, end, width, native, body)


def parallel(dims: Sequence[Dimension], body: Sequence[Stmt], block: int, names: tuple[str, str] = ("p", "q")) -> list[Stmt]:
    """One parallel loop over the product of ``dims``, ``block`` iterations of it per step. The variables of an iteration (where it is not
    that of the one dimension) and of a step have these names."""
    dims = [d for d in dims if d.extent != 1] or []
    if not dims:
        return list(body)
    total = product(d.extent for d in dims)
    p = var(names[0]) if len(dims) > 1 else dims[0].var
    inner = [*(decode(dims, p) if len(dims) > 1 else []), *body]
    if block > 1:
        step = var(names[1])
        inner = [Loop(p["name"], step, minimum(step + block, size(total)), 1, "serial", tuple(inner))]
        return [Loop(names[1], const(0), size(total), block, "parallel", tuple(inner))]
    return [Loop(p["name"], const(0), size(total), 1, "parallel", tuple(inner))]
