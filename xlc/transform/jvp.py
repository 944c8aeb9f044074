"""Forward mode: from a Graph and the tangents of its parameters to the tangents of its results.

    graph f(%x: f32[3]) {                        graph f_jvp(%x: f32[3], %t0: f32[3]) {
      %0: f32[3] = sin(%x)              ->         %0: f32[3] = sin(%x)
      return %0                                    %1: f32[3] = cos(%x)
    }                                              %2: f32[3] = multiply(%t0, %1)
                                                   return %0, %2
                                                 }

No operator needs a rule of its own (``Op.jvp`` states one where it is better). By kind:

    view, indexed     what moves elements moves their tangents in the same way
    contraction       linear in each argument: the sum of the contractions with one argument replaced by its tangent
    elementwise       the Jacobian is diagonal, so it is its own transpose: vjp of the tangent
    composite         through its decomposition
    all others        vjp is linear in the cotangent, and its transpose is jvp: reverse mode through the graph of vjp

A tangent that is zero is None and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from ..errors import XlcError, XlcTypeError
from ..ir.node import Graph, Node, at_location, full, parameter
from ..ir.op import lookup
from .calls import Call, above, call_of
from .grad import cotangents

__all__ = ["jvp_graph", "tangents"]


def jvp_graph(graph: Graph, active: Sequence[bool]) -> tuple[Graph, tuple[bool, ...]]:
    """Values and tangents as a graph of its own. Parameters: those of ``graph``, then the tangents of the float ones that ``active``
    flags. Results: those of ``graph``, then the tangents of those that the returned tuple flags; the tangents of the others are zero."""
    moving = [p for p, use in zip(graph.params, active, strict=True) if use and p.dtype.is_float]
    seeds = [parameter(p.type, f"t{i}", len(graph.params) + i) for i, p in enumerate(moving)]
    still: dict[Node, Node | None] = dict.fromkeys(graph.params)
    found = tangents(graph.results, {**still, **dict(zip(moving, seeds, strict=True))})
    results = (*graph.results, *(t for t in found if t is not None))
    return Graph((*graph.params, *seeds), results, f"{graph.name}_jvp"), tuple(t is not None for t in found)


def tangents(results: Sequence[Node], given: Mapping[Node, Node | None]) -> list[Node | None]:
    """The tangent of each result, when those of the nodes of ``given`` are what it says; None is zero. What lies below them is not looked
    at; all other leaves are constant."""
    found: dict[Node, Node | None] = dict(given)
    calls: dict[Call, Sequence[Node | None]] = {}
    for n in above(results, given):
        if n in found:
            continue
        ts = [found[a] for a in n.args]
        if not n.dtype.is_float or all(t is None for t in ts):
            found[n] = None
            continue
        with at_location(n.loc):
            if n.op.jvp_all is None:
                t = _push(n, ts)
            else:
                call = call_of(n)
                if call not in calls:
                    calls[call] = n.op.jvp_all(ts, *n.args, **dict(call.attrs))
                t = calls[call][n["output"]]
        if t is not None and t.type != n.type:
            raise XlcError(f"forward mode through {n.op.name} gave {t.type} for a result of type {n.type}", n.loc)
        found[n] = t
    return [found[r] for r in results]


def _push(n: Node, ts: Sequence[Node | None]) -> Node | None:
    """The tangent of one node from those of its arguments, of which one at least is not zero."""
    op, args, attrs = n.op, n.args, n.attributes
    if op.jvp is not None and (t := op.jvp(ts, n, *args, **attrs)) is not NotImplemented:
        return t
    moved = [(k, t) for k, t in enumerate(ts) if t is not None]
    if op.kind in ("view", "indexed") and op.pull is not None:
        return op(*(a if not a.dtype.is_float else full(a.type, 0) if t is None else t for a, t in zip(args, ts, strict=True)), **attrs)
    if op.kind == "contraction":
        return _sum([op(*args[:k], t, *args[k + 1:], **attrs) for k, t in moved])
    if op.kind == "composite" and op.decompose is not None:
        return tangents([op.decompose(*args, **attrs)], dict(zip(args, ts, strict=True)))[0]
    if op.vjp is None:
        raise XlcTypeError(f"{op.name} is not differentiable; wrap its result in xlc.stop_gradient if no derivative should flow through it",
                           n.loc)
    if op.kind == "elementwise":
        return _sum([op.vjp(t, n, *args, **attrs)[k] for k, t in moved])
    ct = parameter(n.type, "ct", 0)
    gs = op.vjp(ct, n, *args, **attrs)
    live = [(gs[k], t) for k, t in moved if gs[k] is not None]
    return cotangents([g for g, _ in live], [t for _, t in live], [ct], [n, *args])[0]


def _sum(parts: Sequence[Node | None]) -> Node | None:
    live = [p for p in parts if p is not None]
    return reduce(lookup("add"), live) if live else None
