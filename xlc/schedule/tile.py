"""Lowering of groups with stages: for each block of rows, the nests of the stages one after another, on buffers that hold one block.

    parallel p over (batch, blocks of rows) {
      local s: f32[36*512] stack
      local x: f32[36*512] stack
      serial ... { s[...] = ... }        the stages' own nests, restricted to the block
      serial ... { x[...] = ... s[...] }
      serial ... { y[...] = ... x[...] }
    }

Each stage is lowered as if it were alone, with loop variables that count from the block's first position (``inline.Places``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Local, Loop, Stmt, const, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node, make
from xlc.ir.op import lookup
from xlc.ir.types import Size, Type, product
from xlc.passes.group import Group
from xlc.passes.tile import blocks, blocks_of_rows, overwritten, pieces

from .inline import Places
from .map import parallel
from .nest import Dimension

LowerBody = Callable[[Group, Places, Machine], tuple[Stmt, ...]]
NAMES = ("t", "tq")  # variables of the loop over blocks and of that over chunks of them
REST = 4  # rows at a time of a last block whose height has a name


def lower_tiles(group: Group, buffers: dict[Node, Buffer], machine: Machine, lower_body: LowerBody) -> tuple[Stmt, ...]:
    return _Tiles(group, buffers, machine, lower_body).lower()


def blocks_in_memory(group: Group) -> tuple[Node, ...]:
    """Memory that the kernel needs beside its results: for each result of a stage that does not overwrite another, a block per chunk."""
    tiling = group.tiling
    if tiling is None or not tiling.chunk:
        return ()
    chunks = pieces(blocks(group), tiling.chunk)
    own = [s.roots[0] for k, s in enumerate(tiling.before) if overwritten(s, tiling.before[:k]) is None]
    return tuple(make(lookup("copy"), (r,), Type(r.dtype, (chunks, *block_shape(r, tiling.shared, tiling.rows))), {"token": object()})
                 for r in own)


def block_shape(root: Node, shared: int, rows: int) -> tuple[Size, ...]:
    return (*(1,) * (shared - 1), rows, *root.shape[shared:-1], padded(root.shape[-1], root.dtype.bytes))


class _Tiles:
    def __init__(self, group: Group, buffers: dict[Node, Buffer], machine: Machine, lower_body: LowerBody):
        assert group.tiling is not None
        self.group, self.buffers, self.machine, self.lower_body = group, buffers, machine, lower_body
        self.shared = group.domain[:group.tiling.shared]
        self.high, self.each = group.tiling.rows, group.tiling.chunk
        self.memory = {n.args[0]: n for n in buffers if n.args and "token" in n.attributes}
        self.outer = [Dimension(var(f"t{k}"), group.extents[v]) for k, v in enumerate(self.shared[:-1])]

    def lower(self) -> tuple[Stmt, ...]:
        if any(s == 0 for s in self.group.anchor.shape):  # type: ignore[union-attr]
            return ()
        rows, high, block = self.group.extents[self.shared[-1]], self.high, var("tb")
        if not isinstance(rows, int):
            start, end = block * high, size(rows)
            few = start + ((end - start) // REST) * REST
            r, q = var("tr"), var("ts")
            body: list[Stmt] = [If(start + high <= end, tuple(self.block(start, high)), (
                Loop("tr", start, few, REST, "serial", tuple(self.block(r, REST))),
                Loop("ts", few, end, 1, "serial", tuple(self.block(q, 1)))))]
        else:
            whole, rest = divmod(rows, high)
            with ix.ranges({block: const(max(whole, 1))}):
                body = self.block(block * high if rows > high else const(0), high) if whole else self.block(const(0), rest)
            if whole and rest:
                body = [If(block < const(whole), tuple(body), tuple(self.block(const(whole * high), rest)))]
        dims = [*self.outer, Dimension(block, pieces(rows, high))]
        return tuple(parallel(dims, body, max(self.each, 1), NAMES))

    def chunk(self) -> Expr:
        """The number of the chunk that the loops around a block are at."""
        dims = [d for d in (*self.outer, Dimension(var("tb"), blocks_of_rows(self.group))) if d.extent != 1]
        if not dims:
            return const(0)
        return var(NAMES[1]) // self.each if self.each > 1 else var(NAMES[0]) if len(dims) > 1 else dims[0].var

    def block(self, start: Expr, high: int) -> list[Stmt]:
        """All stages, on ``high`` rows from ``start`` on."""
        group, shared = self.group, self.shared
        starts = {v: const(0) if d.extent == 1 else d.var for v, d in zip(shared, self.outer, strict=False)} | {shared[-1]: start}
        extents: dict[Expr, Size] = {**dict.fromkeys(shared[:-1], 1), shared[-1]: high}
        own, out = dict(self.buffers), list[Stmt]()
        blocks: dict[Node, tuple[tuple[Size, ...], Expr]] = {}
        for k, stage in enumerate(group.stages):
            if stage is not group:
                (root,) = stage.roots
                old = overwritten(stage, group.stages[:k])
                shape = block_shape(root, len(shared), high)
                if old is not None:
                    own[root], blocks[root] = own[old], blocks[old]
                elif root in self.memory:
                    scratch = self.memory[root]
                    own[root], blocks[root] = self.buffers[scratch], (shape, self.chunk() * size(product(scratch.shape[1:])))
                else:
                    own[root], blocks[root] = Buffer(f"x{k}", root.dtype, (product(shape),), "stack"), (shape, const(0))
                    out.append(Local(own[root]))
            part = replace(stage, extents={**stage.extents, **extents}, tiling=None)
            with ix.ranges({d.var: size(d.extent) for d in self.outer}):
                body = self.lower_body(part, Places(own, starts, blocks), self.machine)
            inside = [replace(s, kind="serial") if isinstance(s, Loop) and s.kind == "parallel" else s for s in body]
            out += inside if len(inside) == 1 else [Loop(f"s{k}", const(0), const(1), 1, "serial", tuple(inside))]
        return out


def padded(n: Size, bytes_: int) -> Size:
    """The distance of rows of n elements: an odd number of cache lines. So rows are aligned, and neighbours lie in different sets."""
    line = max(64 // bytes_, 1)
    return (-(-n // line) | 1) * line if isinstance(n, int) else n


__all__ = ["blocks_in_memory", "lower_tiles"]
