"""Layout assignment: contractions get a right-hand side that their tiles can read in whole vectors.

    %y = dot(%x, %w)    %w: f32[784,500]
    ->
    %p: f32[16,784,32] = copy(transpose(reshape(pad(%w)), ...))        panels as wide as the register tile
    %y = dot(%x, slice(reshape(transpose(%p))))

The views around ``copy`` cancel when addresses are computed, so the contraction reads the panels. For a constant %w the pass ``fold``
does the packing at compile time; for others it is a kernel of its own, into which whatever produces %w is fused.

Invariant established: the right operand of every contraction on floats is contiguous along its last free dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xlc.ir import index as ix
from xlc.ir.loops import size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node, full
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, Type, f32, f64, product

from .group import reads

FEW_ROWS = 16  # rows up to which a contraction is bound by reading its right operand
PACK_ROWS = 48  # rows of the result from which packing a computed right-hand side pays for itself


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``columns`` accumulators."""

    rows: int
    columns: int


def choose_tile(m: Size, n: Size, bits: int, machine: Machine) -> Tile:
    """The register tile for an m x n result: wide panels for few rows; else the tile with the least estimated time, of those that fit the
    registers: it should divide the result evenly, keep the multipliers busy (eight sums in flight) and load little per multiplication."""
    native = machine.lanes(bits)
    vectors = -(-n // native) if isinstance(n, int) else 1 << 20
    rows = m if isinstance(m, int) else 1 << 20
    if rows <= 6:
        return Tile(max(rows, 1), max(1, min(8 if rows <= 2 else 4, vectors)) * native)
    if 12 < rows <= FEW_ROWS:
        return Tile(rows, native)
    best: tuple[float, Tile] | None = None
    for across in range(1, min(4, vectors) + 1):
        most = min((machine.registers - 1 - across) // across, max(24 // across, 1))
        for height in range(most, max(most * 2 // 3, 1) - 1, -1):
            sums = height * across
            time = -(-vectors // across) * across / vectors * max(1.0, (height + across) / sums) * max(1.0, 8 / sums)
            uneven = isinstance(m, int) and rows > height and rows % height  # then code for two heights: it pays for large results
            time *= (1.05 if uneven and rows <= 256 else 1.0) + 0.003 * (24 - sums)
            if best is None or time < best[0]:
                best = time, Tile(min(height, rows), across * native)
    assert best is not None
    return best[1]


def element(dot: Node) -> DType:
    """The dtype of the accumulators."""
    return f32 if dot.dtype.is_float and dot.dtype.bits == 16 else dot.dtype


def free_dimensions(dot: Node) -> tuple[list[int], list[int]]:
    """The free dimensions of both operands."""
    (lc, rc), (lb, rb) = dot["contract"], dot["batch"]
    return ([d for d in range(dot.args[0].rank) if d not in lc and d not in lb],
            [d for d in range(dot.args[1].rank) if d not in rc and d not in rb])


def layout(graph: Graph, machine: Machine, constants: bool = True) -> Graph:
    """``constants``: rearrange captured right-hand sides, however small."""
    if not machine.panels:
        return graph
    return graph.rebuild(lambda n, args: _contraction(n, args, machine, constants) if n.op.kind == "contraction" else None)


def _contraction(n: Node, args: tuple[Node, ...], machine: Machine, constants: bool) -> Node | None:
    lhs, rhs = args
    wide = element(n)
    left_free, right_free = free_dimensions(n)
    if wide not in (f32, f64) or not right_free or any(s == 0 for s in (*lhs.shape, *rhs.shape)):
        return None
    rows: Size = product(lhs.shape[d] for d in left_free)
    last = right_free[-1]
    columns = rhs.shape[last]
    if not isinstance(columns, int):
        return None if _contiguous(rhs, last) else _again(n, lhs, lookup("copy")(_moved_last(rhs, last)), rhs, last)
    tile = choose_tile(_tile_rows(lhs, left_free), columns, wide.bits, machine)
    if columns <= tile.columns // 2 and columns == 1:
        return None
    constant = constants and _is_constant(rhs)
    many = not isinstance(rows, int) or rows >= PACK_ROWS
    depth = product(rhs.shape[d] for d in n["contract"][1])
    large = not isinstance(depth, int) or depth * columns * rhs.dtype.bytes > machine.l1
    if _contiguous(rhs, last) and not constant and not (many and large and columns > tile.columns):
        return None
    if _contiguous(rhs, last) and columns <= tile.columns and not constant:
        return None
    if isinstance(rows, int) and 8 <= rows <= FEW_ROWS and isinstance(depth, int) and depth >= 1024 and lhs.rank == 2 and left_free == [0]:
        # rows of a large power of two apart share few sets of the cache; side by side they do not
        transpose = lookup("transpose")
        lhs = transpose(lookup("copy")(transpose(lhs, axes=(1, 0))), axes=(1, 0))
    return n.op(lhs, pack(rhs, last, n["contract"][1], tile.columns), **n.attributes)


def _tile_rows(lhs: Node, free: list[int]) -> Size:
    return product(lhs.shape[d] for d in free) if free else 1


def _again(n: Node, lhs: Node, moved: Node, rhs: Node, last: int) -> Node:
    back = [*range(last), rhs.rank - 1, *range(last, rhs.rank - 1)]
    return n.op(lhs, lookup("transpose")(moved, axes=tuple(back)), **n.attributes)


def _moved_last(rhs: Node, last: int) -> Node:
    return lookup("transpose")(rhs, axes=(*(d for d in range(rhs.rank) if d != last), last))


def _is_constant(n: Node) -> bool:
    while n.op.kind == "view" and len(n.operands) == 1:
        n = n.args[0]
    return n.op.name == "constant"


def _contiguous(n: Node, dim: int) -> bool:
    """Whether neighbours along this dimension are neighbours in memory, seen through the views that the contraction reads through."""
    index = tuple(var(f"i{d}") for d in range(n.rank))
    along = index[dim]
    with ix.ranges({v: size(s) for v, s in zip(index, n.shape, strict=True)}):
        while n.op.kind == "view" and n.op.name != "copy" and len(n.args) == 1:
            ((n, index),) = reads(n, index)
        return ix.coefficient(ix.address_of(n.shape, index), along) == 1


def pack(x: Node, last: int, contracted: tuple[int, ...], width: int) -> Node:
    """``x`` rearranged into panels of ``width`` columns, as seen by a reader of the original shape."""
    transpose, reshape, slice_, copy = lookup("transpose"), lookup("reshape"), lookup("slice"), lookup("copy")
    others = [d for d in range(x.rank) if d != last and d not in contracted]
    order = (*others, *contracted, last)
    y: Any = transpose(x, axes=order)
    columns = x.shape[last]
    panels = -(-columns // width)
    padded = panels * width
    if padded != columns:
        zero = full(Type(x.dtype, ()), 0)
        y = lookup("pad")(y, zero, low=(0,) * y.rank, high=(*(0,) * (y.rank - 1), padded - columns))
    lead = [x.shape[d] for d in others]
    depth = [x.shape[d] for d in contracted]
    b, k = len(lead), len(depth)
    y = reshape(y, shape=(*lead, *depth, panels, width))
    forward = (*range(b), b + k, *range(b, b + k), b + k + 1)
    y = copy(transpose(y, axes=forward))
    backward = (*range(b), *range(b + 1, b + 1 + k), b, b + k + 1)
    y = reshape(transpose(y, axes=backward), shape=(*lead, *depth, padded))
    if padded != columns:
        y = slice_(y, start=(0,) * y.rank, stop=(*lead, *depth, columns), step=(1,) * y.rank)
    inverse = tuple(order.index(d) for d in range(x.rank))
    return transpose(y, axes=inverse)
