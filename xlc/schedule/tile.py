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

from collections.abc import Callable, Sequence
from dataclasses import replace

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, const, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.types import Size, product
from xlc.passes.fuse import Group, reads

from .inline import Places
from .map import parallel
from .nest import Dimension

LowerBody = Callable[[Group, Places, Machine], tuple[Stmt, ...]]
REST = 4  # rows at a time of a last block whose height has a name


def lower_tiles(group: Group, buffers: dict[Node, Buffer], machine: Machine, lower_body: LowerBody) -> tuple[Stmt, ...]:
    return _Tiles(group, buffers, machine, lower_body).lower()


class _Tiles:
    def __init__(self, group: Group, buffers: dict[Node, Buffer], machine: Machine, lower_body: LowerBody):
        assert group.tiling is not None
        self.group, self.buffers, self.machine, self.lower_body = group, buffers, machine, lower_body
        self.shared = group.domain[:group.tiling.shared]
        self.high = group.tiling.rows
        self.outer = [Dimension(var(f"t{k}"), group.extents[v]) for k, v in enumerate(self.shared[:-1])]

    def lower(self) -> tuple[Stmt, ...]:
        if any(s == 0 for s in self.group.anchor.shape):  # type: ignore[union-attr]
            return ()
        rows, high, block = self.group.extents[self.shared[-1]], self.high, var("tb")
        if not isinstance(rows, int):
            blocks: Size = (rows + (high - 1)) // high
            start, end = block * high, size(rows)
            few = start + ((end - start) // REST) * REST
            r, q = var("tr"), var("tq")
            body: list[Stmt] = [If(start + high <= end, tuple(self.block(start, high)), (
                Loop("tr", start, few, REST, "serial", tuple(self.block(r, REST))),
                Loop("tq", few, end, 1, "serial", tuple(self.block(q, 1)))))]
        else:
            whole, rest = divmod(rows, high)
            blocks = whole + bool(rest)
            with ix.ranges({block: const(max(whole, 1))}):
                body = self.block(block * high if blocks > 1 else const(0), high) if whole else self.block(const(0), rest)
            if whole and rest:
                body = [If(block < const(whole), tuple(body), tuple(self.block(const(whole * high), rest)))]
        units: list[Stmt] = [Let(d.name, const(0)) for d in self.outer if d.extent == 1]
        return tuple(parallel([*self.outer, Dimension(block, blocks)], [*units, *body], 1, "t"))

    def block(self, start: Expr, high: int) -> list[Stmt]:
        """All stages, on ``high`` rows from ``start`` on."""
        group, shared = self.group, self.shared
        starts = {v: const(0) if d.extent == 1 else d.var for v, d in zip(shared, self.outer, strict=False)} | {shared[-1]: start}
        extents: dict[Expr, Size] = {v: 1 for v in shared[:-1]} | {shared[-1]: high}
        own, blocks, out = dict(self.buffers), {}, list[Stmt]()
        for k, stage in enumerate(group.stages):
            if stage is not group:
                (root,) = stage.roots
                shape = (*(extents[v] for v in shared), *root.shape[len(shared):-1], padded(root.shape[-1], root.dtype.bytes))
                blocks[root] = shape, const(0)
                old = overwritten(stage, group.stages[:k])
                own[root] = own[old] if old is not None else Buffer(f"x{k}", root.dtype, (product(shape),), "stack")
                out += [Local(own[root])] if old is None else []
            part = replace(stage, extents={**stage.extents, **extents}, tiling=None)
            with ix.ranges({d.var: size(d.extent) for d in self.outer}):
                body = self.lower_body(part, Places(own, starts, blocks), self.machine)
            inside = [replace(s, kind="serial") if isinstance(s, Loop) and s.kind == "parallel" else s for s in body]
            out += inside if len(inside) == 1 else [Loop(f"s{k}", const(0), const(1), 1, "serial", tuple(inside))]
        return out


def overwritten(stage: Group, before: Sequence[Group]) -> Node | None:
    """The result of an earlier stage over which this one may write its own: each element is read at its own position only, and the last
    time just before it is written (after all reductions, as the one root depends on them all). Nobody else reads it."""
    if stage.anchor is not None:
        return None
    (root,) = stage.roots
    return next((r for s in before for r in s.roots if r.type == root.type and any(r in n.args for n in stage.at) and all(
        at == stage.domain for n in stage.at for i in stage.at[n] for a, at in reads(n, i, stage.reduced) if a is r)), None)


def padded(n: Size, bytes_: int) -> Size:
    """The distance of rows of n elements: an odd number of cache lines. So rows are aligned, and neighbours lie in different sets."""
    line = max(64 // bytes_, 1)
    return (-(-n // line) | 1) * line if isinstance(n, int) else n


__all__ = ["lower_tiles"]
