"""Vectorisation: from a Graph for one element to the Graph for all elements of a new axis, which comes first.

    graph f(%x: f32[3], %w: f32[3,2]) {                        graph f_vmap(%x: f32[8,3], %w: f32[3,2]) {
      %0: f32[2] = dot(%x, %w) {contract=((0,), (0,))...}  ->    %0: f32[8,2] = dot(%x, %w) {contract=((1,), (0,))...}
      %1: f32[] = sum(%0) {axes=(0,)}                            %1: f32[8] = sum(%0) {axes=(1,)}
      return %1                                                  return %1
    }                                                          }

What depends on no batched value stays as it is. Of all else the kind says what becomes of it (``Op.batch`` states what differs):

    elementwise             arguments that are not batched are repeated
    view                    so, and its attributes get an entry for the new axis
    reduction, ordered      axes move up by one
    contraction, indexed    by ``Op.batch``
    composite               by ``Op.batch``, else through its decomposition
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import XlcTypeError
from ..ir.node import Graph, Node, at_location, parameter
from ..ir.types import Size, Type
from ..ops.kinds import up
from ..ops.shape import repeat, repeated
from .calls import Call, above, call_of

__all__ = ["Batched", "batch", "batch_graph"]

Batched = tuple[Node, bool]
"""A value, and whether the mapped axis is its first one (else it is the same for all elements)."""


def batch_graph(graph: Graph, size: Size, batched: Sequence[bool], want: Sequence[bool] | None = None) -> tuple[Graph, tuple[bool, ...]]:
    """The graph with an axis of ``size`` in front of those parameters that ``batched`` flags. The returned tuple flags the results that
    have it; those that ``want`` flags have it in any case."""
    params = tuple(parameter(Type(p.dtype, (size, *p.shape)), p["name"], p["index"]) if b else p
                   for p, b in zip(graph.params, batched, strict=True))
    found = batch(graph.results, size, {p: (q, b) for p, q, b in zip(graph.params, params, batched, strict=True)})
    want = want or [False] * len(found)
    results = [(repeat(size, n), True) if w and not b else (n, b) for (n, b), w in zip(found, want, strict=True)]
    return Graph(params, tuple(n for n, _ in results), f"{graph.name}_vmap"), tuple(b for _, b in results)


def batch(results: Sequence[Node], size: Size, given: Mapping[Node, Batched]) -> list[Batched]:
    """The results for all elements, when those of the nodes of ``given`` are what it says. What lies below them is not looked at; all other
    leaves are the same for all elements."""
    found: dict[Node, Batched] = dict(given)
    calls: dict[Call, tuple[Sequence[Node], Sequence[bool]]] = {}
    for n in above(results, given):
        if n in found:
            continue
        args, flags = zip(*(found[a] for a in n.args), strict=True) if n.args else ((), ())
        if args == n.args:
            found[n] = n, False
            continue
        with at_location(n.loc):
            if n.op.batch_all is None:
                found[n] = _batch_one(n, size, args, flags)
            else:
                call = call_of(n)
                if call not in calls:
                    calls[call] = n.op.batch_all(size, args, flags, **dict(call.attrs))
                nodes, mapped = calls[call]
                found[n] = nodes[n["output"]], mapped[n["output"]]
    return [found[r] for r in results]


def _batch_one(n: Node, size: Size, args: Sequence[Node], flags: Sequence[bool]) -> Batched:
    op, attrs = n.op, n.attributes
    if not any(flags):
        return op(*args, **attrs), False
    if op.batch is not None and (out := op.batch(size, args, flags, **attrs)) is not NotImplemented:
        return out, True
    match op.kind:
        case "elementwise":
            return op(*repeated(size, args, flags), **attrs), True
        case "view" if attrs.keys() <= _ENTRIES.keys():
            return op(*repeated(size, args, flags), **{name: _ENTRIES[name](size, value) for name, value in attrs.items()}), True
        case "reduction" | "ordered":
            return op(*repeated(size, args, flags), **{name: _MOVED.get(name, lambda v: v)(value) for name, value in attrs.items()}), True
        case "composite" if op.decompose is not None:
            return batch([op.decompose(*n.args, **attrs)], size, dict(zip(n.args, zip(args, flags, strict=True), strict=True)))[0]
    raise XlcTypeError(f"{op.name} cannot be mapped by xlc.vmap: it has no batching rule", n.loc)


_MOVED: dict[str, Callable[[Any], Any]] = {"axis": lambda a: a + 1, "axes": up}
"""Attributes that name dimensions, once there is one more in front."""

_ENTRIES: dict[str, Callable[[Size, Any], Any]] = {
    "axis": lambda size, a: a + 1, "axes": lambda size, axes: (0, *up(axes)), "shape": lambda size, shape: (size, *shape),
    "start": lambda size, at: (0, *at), "stop": lambda size, at: (size, *at), "step": lambda size, by: (1, *by),
    "low": lambda size, widths: (0, *widths), "high": lambda size, widths: (0, *widths)}
"""Attributes of views that hold an entry per dimension, with an entry for the new one."""
