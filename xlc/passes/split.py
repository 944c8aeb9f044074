"""Long reductions with few results are cut in two, so that all threads can work and the order of a sum is fixed.

    %0: f32[] = sum(%x) {axes=(0,)}        %x: f32[1000003]
    ->
    %0: f32[64,15625] = reshape(slice(%x)),  %1: f32[64] = sum(%0) {axes=(1,)},  %2: f32[1] = sum(slice(%x)) ...
    %3: f32[] = sum(concat(%1, %2)) {axes=(0,)}

Invariant established: a reduction with fewer than FEW_ROWS results (FEW_COLUMNS, where it goes down columns) reduces at most LONG elements
(4 * LONG) in one piece, unless a size is symbolic or the axes are all short.
Where few elements lie side by side (columns of a matrix of 3, say), several rows are taken together, so that there are NEIGHBOURS.
The number of pieces depends on the shape alone: results do not depend on the number of threads.
"""

from __future__ import annotations

from xlc.ir.node import Graph, Node
from xlc.ir.op import lookup
from xlc.ir.types import f32, product

FEW_ROWS, FEW_COLUMNS, LONG, PIECES, NEIGHBOURS = 16, 256, 1 << 16, 64, 64


def split(graph: Graph) -> Graph:
    return graph.rebuild(_split)


def _split(n: Node, args: tuple[Node, ...]) -> Node | None:
    if n.op.kind != "reduction" or n.op.name in ("argmax", "argmin"):
        return None
    (x,), axes = args, n["axes"]
    rows = product(s for d, s in enumerate(x.shape) if d not in axes)
    row = product(x.shape[d] for d in axes)
    if not isinstance(rows, int) or not isinstance(row, int) or not rows or not _lacks_work_for_threads(rows, row, x.rank - 1 not in axes):
        return None
    axis = next((d for d in axes if x.shape[d] >= 4 * PIECES), None)
    if axis is None:
        return None
    beside = product(x.shape[axis + 1:])
    together = -(-NEIGHBOURS // beside) if axes[-1] == axis and 1 < beside < NEIGHBOURS and x.shape[axis] >= 4 * PIECES * NEIGHBOURS else 1
    reshape, slice_, concat, cast = lookup("reshape"), lookup("slice"), lookup("concat"), lookup("cast")
    wide = n.op.name in ("sum", "prod") and x.dtype.is_float and x.dtype.bits == 16
    if wide:
        x = cast(x, dtype=f32)
    extent = x.shape[axis]
    pieces = PIECES * together
    each = extent // pieces
    main = x
    if each * pieces != extent:
        main = slice_(x, **_bounds(x, axis, 0, each * pieces))
    after = x.shape[axis + 1:]
    shape = (*x.shape[:axis], PIECES, each, *((together * beside,) if together > 1 else after))
    inner = tuple(d + (d >= axis) for d in axes)
    partial = n.op(reshape(main, shape=shape), axes=inner)
    kept = sum(d not in axes for d in range(axis))  # where the pieces are among the partial results' dimensions
    if together > 1:
        partial = reshape(partial, shape=(*partial.shape[:kept], pieces, *after))
    if each * pieces != extent:
        rest = n.op(slice_(x, **_bounds(x, axis, each * pieces, extent)), axes=axes)
        rest = reshape(rest, shape=(*rest.shape[:kept], 1, *rest.shape[kept:]))
        partial = concat(partial, rest, axis=kept)
    total = n.op(partial, axes=(kept,))
    return cast(total, dtype=n.dtype) if wide else total


def _lacks_work_for_threads(rows: int, row: int, columns: bool) -> bool:
    """Whether the results are so few that threads could not share them. (Columns are computed a few vectors of neighbours at a time.)"""
    return rows < FEW_ROWS and row * rows > LONG or columns and rows < FEW_COLUMNS and row * rows > 4 * LONG


def _bounds(x: Node, axis: int, start: int, stop: int) -> dict[str, tuple[object, ...]]:
    return {"start": tuple(start if d == axis else 0 for d in range(x.rank)),
            "stop": tuple(stop if d == axis else s for d, s in enumerate(x.shape)), "step": (1,) * x.rank}
