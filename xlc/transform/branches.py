"""Derivatives of a choice between graphs, and choices of many elements at once.

    vjp     a choice between the transposed branches, each of which computes its values again: nothing is stored
    jvp     a choice between the branches with tangents
    batch   a choice between the branches for all elements; where the index differs between them, all branches, and a selection
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.node import Graph, Node, full, outputs, parameter
from ..ir.op import lookup
from ..ir.types import Size
from .calls import substitute
from .grad import cotangents
from .jvp import jvp_graph
from .vmap import batch_graph

__all__ = ["batch", "jvp", "vjp"]


def vjp(gs: Sequence[Node | None], needed: Sequence[bool], index: Node, *operands: Node, branches: tuple[Graph, ...]) -> list[Node | None]:
    """Cotangents of the index (none) and the operands."""
    given = [(j, g) for j, g in enumerate(gs) if g is not None]
    wrt = [k for k, (use, a) in enumerate(zip(needed[1:], operands, strict=True)) if use and a.dtype.is_float]
    transposed = []
    for b in branches:
        seeds: list[Node | None] = [None] * len(b.results)
        for j, g in given:
            seeds[j] = parameter(g.type, f"ct{j}", len(b.params) + j)
        found = cotangents(b.results, seeds, [b.params[k] for k in wrt])
        results = tuple(full(operands[k].type, 0) if g is None else g for k, g in zip(wrt, found, strict=True))
        transposed.append(Graph((*b.params, *(s for s in seeds if s is not None)), results, f"{b.name}_vjp"))
    out = outputs(lookup("switch"), [index, *operands, *(g for _, g in given)], branches=tuple(transposed))
    where = dict(zip(wrt, out, strict=True))
    return [None, *(where.get(k) for k in range(len(operands)))]


def jvp(tangents: Sequence[Node | None], index: Node, *operands: Node, branches: tuple[Graph, ...]) -> list[Node | None]:
    """Tangents of the results."""
    active = [t is not None and a.dtype.is_float for t, a in zip(tangents[1:], operands, strict=True)]
    pushed = [jvp_graph(b, active) for b in branches]
    count = len(branches[0].results)
    moving = [j for j in range(count) if any(flags[j] for _, flags in pushed)]
    graphs = []
    for graph, flags in pushed:
        found = iter(graph.results[count:])
        own = {j: next(found) for j in range(count) if flags[j]}
        graphs.append(Graph(graph.params, tuple(own[j] if j in own else full(graph.results[j].type, 0) for j in moving), graph.name))
    if not moving:
        return [None] * count
    args = [index, *operands, *(t for t, use in zip(tangents[1:], active, strict=True) if use and t is not None)]
    where = dict(zip(moving, outputs(lookup("switch"), args, branches=tuple(graphs)), strict=True))
    return [where.get(j) for j in range(count)]


def batch(size: Size, args: Sequence[Node], batched: Sequence[bool], branches: tuple[Graph, ...]) -> tuple[list[Node], list[bool]]:
    """The results for all elements."""
    (index, *operands), (differs, *flags) = args, batched
    want = [any(found) for found in zip(*(batch_graph(b, size, flags)[1] for b in branches), strict=True)]
    if not differs:
        graphs = tuple(batch_graph(b, size, flags, want)[0] for b in branches)
        return outputs(lookup("switch"), args, branches=graphs), want
    all_of_them = [True] * len(want)
    graphs = tuple(batch_graph(b, size, flags, all_of_them)[0] for b in branches)
    found = [substitute(g.results, dict(zip(g.params, operands, strict=True))) for g in graphs]
    return [_selected(index, [f[j] for f in found]) for j in range(len(want))], all_of_them


def _selected(index: Node, values: Sequence[Node | None]) -> Node:
    """Element i is that of ``values[index[i]]``; the index is clamped."""
    *others, chosen = values
    assert chosen is not None
    for k in reversed(range(len(others))):
        here = lookup("less_equal")(index, full(index.type, k))
        chosen = lookup("where")(lookup("broadcast")(here, shape=chosen.shape, axes=(0,)), others[k], chosen)
    return chosen

