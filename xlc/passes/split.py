"""Long reductions of which a kernel would make few pieces are cut in two, so that all threads can work and the order of a sum is fixed.

    %0: f32[] = sum(%x) {axes=(0,)}        %x: f32[1000003]
    ->
    %0: f32[64,15625] = reshape(slice(%x)),  %1: f32[64] = sum(%0) {axes=(1,)},  %2: f32[1] = sum(slice(%x)) ...
    %3: f32[] = sum(concat(%1, %2)) {axes=(0,)}

Invariant established: a reduction of more than LONG elements has at least FEW_ROWS results, or, down columns (of which vectors take
COLUMNS together), FEW_PIECES pieces of them, unless a size is symbolic. The number of pieces depends on the shape alone: results do not
depend on the number of threads.
"""

from __future__ import annotations

from xlc.ir.node import Graph, Node
from xlc.ir.op import lookup
from xlc.ir.types import f32, product

FEW_ROWS, LONG, PIECES = 16, 1 << 16, 64
COLUMNS, FEW_PIECES = 64, 8
FEWEST = 8  # pieces that are worth a second reduction


def split(graph: Graph) -> Graph:
    return graph.rebuild(_split)


def _split(n: Node, args: tuple[Node, ...]) -> Node | None:
    if n.op.kind != "reduction" or n.op.name in ("argmax", "argmin"):
        return None
    (x,), axes = args, n["axes"]
    rows = product(s for d, s in enumerate(x.shape) if d not in axes)
    row = product(x.shape[d] for d in axes)
    if not isinstance(rows, int) or not isinstance(row, int) or row * rows <= LONG or not rows:
        return None
    columns = 1 if x.rank - 1 in axes else x.shape[-1]
    if rows >= FEW_ROWS and (columns == 1 or rows // columns * -(-columns // COLUMNS) >= FEW_PIECES):
        return None
    axis = next((d for least in (PIECES, FEWEST) for d in axes if x.shape[d] >= least), None)
    if axis is None:
        return None
    reshape, slice_, concat, cast = lookup("reshape"), lookup("slice"), lookup("concat"), lookup("cast")
    wide = n.op.name in ("sum", "prod") and x.dtype.is_float and x.dtype.bits == 16
    if wide:
        x = cast(x, dtype=f32)
    extent = x.shape[axis]
    each = -(-extent // PIECES)
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


def _bounds(x: Node, axis: int, start: int, stop: int) -> dict[str, tuple[object, ...]]:
    return {"start": tuple(start if d == axis else 0 for d in range(x.rank)),
            "stop": tuple(stop if d == axis else s for d, s in enumerate(x.shape)), "step": (1,) * x.rank}
