"""Long reductions of which a kernel would make few pieces are cut in two, so that all threads can work and the order of a sum is fixed.

    %0: f32[] = sum(%x) {axes=(0,)}        %x: f32[1000003]
    ->
    %0: f32[64,15625] = reshape(slice(%x)),  %1: f32[64] = sum(%0) {axes=(1,)},  %2: f32[1] = sum(slice(%x)) ...
    %3: f32[] = sum(concat(%1, %2)) {axes=(0,)}

    %0: f32[64,64] = dot(%x, %y) {contract=((0,), (0,))}        %x, %y: f32[100352,64]        (a GPU of 132 processors)
    ->
    %0: f32[98,64,64] = dot(reshape(%x), reshape(%y)) {contract=((1,), (1,)), batch=((0,), (0,))},  %1 = sum(%0) {axes=(0,)}

Invariant established: on a CPU, a reduction of more than LONG elements has at least FEW_ROWS results, or, down columns (of which vectors
take COLUMNS together), FEW_PIECES pieces of them, unless a size is symbolic. The number of pieces depends on the shape alone: results do
not depend on the number of threads. On a GPU, whose blocks of threads each take a row, or SIDE neighbouring accesses of ACCESS bytes,
there are blocks for all of its processors, or no thread does more than STEPS. Contractions are cut there, too, where their results, a
tile for each processor, leave most of them idle, and cumulative operators along few rows: prefixes within pieces of at least STRETCH, then
what lies in front of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

from xlc.ir.loops import var
from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node, full
from xlc.ir.op import lookup
from xlc.ir.types import Size, Type, f32, product

from .layout import free_dimensions
from .recompute import is_again

FEW_ROWS, LONG, PIECES = 16, 1 << 16, 64
COLUMNS, FEW_PIECES = 64, 8
FEWEST = 8  # pieces that are worth a second reduction
SIDE, STEPS, ACCESS = 32, 32, 16
STRETCH = 1 << 12  # of a cumulative operator: elements that are worth a piece
TILE, PIECE = 64, 1024  # of a contraction: rows and columns that a core works on, contracted elements that are worth a piece


def split(graph: Graph, machine: Machine) -> Graph:
    def cut(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op.kind == "contraction":
            return _split_dot(n, args, machine.cores) if machine.threads > 1 and not is_again(n) else None
        if n.op.name.startswith("cumulative"):
            return _split_cumulative(n, args[0], machine.cores) if machine.threads > 1 else None
        return _split(n, args, machine)

    return graph.rebuild(cut)


def _split_dot(n: Node, args: tuple[Node, ...], cores: int) -> Node | None:
    (lc, rc), (lb, rb) = n["contract"], n["batch"]
    left, right = free_dimensions(n)
    sizes = [product(x.shape[d] for d in dims) for x, dims in zip((args[0], args[1], args[0], args[0]), (left, right, lb, lc), strict=True)]
    rows, columns, batch, depth = (s if isinstance(s, int) else 0 for s in sizes)
    if not n.dtype.is_float or not lc or not rows * columns * batch * depth:
        return None
    few = min(rows, columns) <= TILE // 8
    tiles = batch * (-(-rows * columns * 8 // (TILE * TILE)) if few else -(-rows // TILE) * -(-columns // TILE))
    k = max(range(len(lc)), key=lambda j: args[0].shape[lc[j]])
    extent = args[0].shape[lc[k]]
    assert isinstance(extent, int)
    most = min(-(-2 * cores // tiles), depth // PIECE, extent)
    pieces = next((p for p in range(most, most // 2, -1) if extent % p == 0), most)
    if tiles * 2 > cores or pieces < 2:
        return None
    wide = n.dtype.bits == 16
    x, y = (lookup("cast")(a, dtype=f32) if wide else a for a in args)
    whole = extent // pieces * pieces

    def moved(dims: tuple[int, ...], cut: int) -> tuple[int, ...]:
        return tuple(d + (d >= cut) for d in dims)

    partial = n.op(_in_pieces(x, lc[k], pieces), _in_pieces(y, rc[k], pieces), contract=(moved(lc, lc[k]), moved(rc, rc[k])),
                   batch=((*moved(lb, lc[k]), lc[k]), (*moved(rb, rc[k]), rc[k])))
    total = lookup("sum")(partial, axes=(len(lb),))
    if whole != extent:
        rest = (lookup("slice")(a, **_bounds(a, d[k], whole, extent)) for a, d in ((x, lc), (y, rc)))
        total = lookup("add")(total, n.op(*rest, **n.attributes))
    return lookup("cast")(total, dtype=n.dtype) if wide else total


def _in_pieces(x: Node, axis: int, pieces: int) -> Node:
    """That dimension as two, (pieces, elements of each), without what is left."""
    extent = x.shape[axis]
    assert isinstance(extent, int)
    each = extent // pieces
    if each * pieces != extent:
        x = lookup("slice")(x, **_bounds(x, axis, 0, each * pieces))
    return lookup("reshape")(x, shape=(*x.shape[:axis], pieces, each, *x.shape[axis + 1:]))


def _split_cumulative(n: Node, x: Node, cores: int) -> Node | None:
    """Few long rows: prefixes within pieces, then what lies in front of each piece, merged to them."""
    axis, extent = n["axis"], x.shape[n["axis"]]
    rows = product(s for d, s in enumerate(x.shape) if d != axis)
    if not isinstance(rows, int) or not isinstance(extent, int) or not 0 < rows < cores or extent < FEWEST * STRETCH:
        return None
    assert n.op.monoid is not None
    (start,) = n.op.monoid.init(x.dtype)
    (merged,) = n.op.monoid.merge((var("a", start.dtype),), (var("b", start.dtype),))
    most = min(-(-4 * cores // rows), extent // STRETCH)
    pieces = next((p for p in range(most, most // 2, -1) if extent % p == 0), most)
    each = -(-extent // pieces)
    pad, reshape, nothing = lookup("pad"), lookup("reshape"), full(Type(start.dtype, ()), start.value)

    def padded(x: Node, low: int, high: int) -> Node:
        ends = ({axis: k} for k in (low, high))
        return pad(x, nothing, **{k: tuple(e.get(d, 0) for d in range(x.rank)) for k, e in zip(("low", "high"), ends, strict=True)})

    x = x if x.dtype is start.dtype else lookup("cast")(x, dtype=start.dtype)
    x = padded(x, 0, pieces * each - extent) if pieces * each != extent else x
    within = n.op(reshape(x, shape=(*x.shape[:axis], pieces, each, *x.shape[axis + 1:])), axis=axis + 1, reverse=n["reverse"])
    end = 0 if n["reverse"] else each - 1
    totals = lookup("slice")(within, **_bounds(within, axis + 1, end, end + 1))
    totals = n.op(reshape(totals, shape=(*x.shape[:axis], pieces, *x.shape[axis + 1:])), axis=axis, reverse=n["reverse"])
    first = int(n["reverse"])
    front = padded(lookup("slice")(totals, **_bounds(totals, axis, first, pieces - 1 + first)), 1 - first, first)
    front = lookup("broadcast")(front, shape=within.shape, axes=tuple(d for d in range(within.rank) if d != axis + 1))
    y = reshape(merged.op(front, within), shape=x.shape)
    y = lookup("slice")(y, **_bounds(y, axis, 0, extent)) if pieces * each != extent else y
    return y if y.dtype is n.dtype else lookup("cast")(y, dtype=n.dtype)


def _split(n: Node, args: tuple[Node, ...], machine: Machine) -> Node | None:
    if n.op.kind != "reduction" or n.op.name in ("argmax", "argmin"):
        return None
    (x,), axes = args, n["axes"]
    rows = product(s for d, s in enumerate(x.shape) if d not in axes)
    if not isinstance(rows, int) or not rows or not all(isinstance(x.shape[d], int) for d in axes):
        return None
    if machine.threads > 1:
        x, axes = _neighbours_joined(x, axes)
    found = _cut(x, axes, rows, machine)
    if found is None:
        return None
    axis, each = found
    reshape, slice_, concat, cast = lookup("reshape"), lookup("slice"), lookup("concat"), lookup("cast")
    wide = n.op.name in ("sum", "prod") and x.dtype.is_float and x.dtype.bits == 16
    if wide:
        x = cast(x, dtype=f32)
    extent = x.shape[axis]
    pieces = extent // each
    main = x
    if each * pieces != extent:
        main = slice_(x, **_bounds(x, axis, 0, each * pieces))
    shape = (*x.shape[:axis], pieces, each, *x.shape[axis + 1:])
    inner = tuple(d if d < axis else d + 1 for d in axes)
    partial = n.op(reshape(main, shape=shape), axes=inner)
    kept = sum(d not in axes for d in range(axis))  # where the pieces are among the partial results' dimensions
    if each * pieces != extent:
        rest = n.op(slice_(x, **_bounds(x, axis, each * pieces, extent)), axes=axes)
        rest = reshape(rest, shape=(*rest.shape[:kept], 1, *rest.shape[kept:]))
        partial = concat(partial, rest, axis=kept)
    total = n.op(partial, axes=(kept,))
    return cast(total, dtype=n.dtype) if wide else total


def _neighbours_joined(x: Node, axes: Sequence[int]) -> tuple[Node, tuple[int, ...]]:
    """Neighbouring axes as one, of which there may be as many pieces as of their product."""
    shape: list[Size] = []
    joined: list[int] = []
    for d, s in enumerate(x.shape):
        if d in axes and d - 1 in axes:
            shape[-1] *= s
        else:
            joined += [len(shape)] if d in axes else []
            shape.append(s)
    return (x, tuple(axes)) if len(shape) == x.rank else (lookup("reshape")(x, shape=tuple(shape)), tuple(joined))


def _cut(x: Node, axes: Sequence[int], rows: int, machine: Machine) -> tuple[int, int] | None:
    """Along which axis a reduction with so many results is cut, and how much of it makes a piece."""
    extents = [x.shape[d] for d in axes]
    row, along = prod(extents), x.rank - 1 in axes
    if machine.threads == 1:
        columns = 1 if along else x.shape[-1]
        if row * rows <= LONG or rows >= FEW_ROWS and (along or rows // columns * -(-columns // COLUMNS) >= FEW_PIECES):
            return None
        axis = next((d for least in (PIECES, FEWEST) for d in axes if x.shape[d] >= least), None)
        return None if axis is None else (axis, -(-x.shape[axis] // PIECES))
    blocks = rows if along else -(-rows // (SIDE * gcd(x.shape[-1], ACCESS // max(x.dtype.bytes, 4))))
    steps = row // (4 * machine.threads if along else machine.threads // SIDE)  # of a thread, one after another
    if blocks >= 2 * machine.cores or steps < STEPS:
        return None
    wanted = max(min(4 * machine.cores // blocks, steps // (STEPS // 4), max(extents) // 4), 1)
    pieces = 1 << (wanted.bit_length() - 1)
    axis = next((d for d in axes if x.shape[d] >= 4 * pieces), None)
    return None if pieces == 1 or axis is None else (axis, x.shape[axis] // pieces)


def _bounds(x: Node, axis: int, start: int, stop: int) -> dict[str, tuple[object, ...]]:
    return {"start": tuple(start if d == axis else 0 for d in range(x.rank)),
            "stop": tuple(stop if d == axis else s for d, s in enumerate(x.shape)), "step": (1,) * x.rank}
