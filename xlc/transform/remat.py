"""Rematerialisation: calls of a function that keep few values for the backward pass, which computes the others again.

    %0 = checkpoint_3(%x, %w) {output=0}        its decomposition is the function's graph; reverse mode differentiates that graph, keeps
                                                what a minimum cut chooses, and computes the rest again from these

The idea is that of Chen et al., "Training deep nets with sublinear memory cost" (2016), the cut that of PyTorch's AOTAutograd: between the
arguments and what the backward pass reads, its weight is the bytes of the values that are kept. Parameters of the program are there anyway
and weigh nothing. What a policy does not let be computed again lies on the kept side of the cut.

What is computed again starts from ``optimization_barrier(kept, cotangents...)``: a view, which costs nothing, but a node that differs, so
that what follows is not merged with what the forward pass computed; and one that comes after the cotangents, so in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..ir.node import Graph, Node, parameter
from ..ir.sizes import at
from ..ir.types import Size
from ..ops.shape import barrier
from .calls import call, substitute
from .grad import cotangents
from .jvp import jvp_graph
from .vmap import batch_graph

__all__ = ["POLICIES", "checkpoint_call", "kept_values"]

_SIZE = 64  # what a named size is taken for where values are compared
_DEAR = ("contraction", "window", "control")


def checkpoint_call(body: Graph, args: Sequence[Node], policy: str) -> list[Node]:
    """The outputs of ``body(args)`` as the nodes of one call. Reverse mode keeps and computes again what ``policy`` (one of ``POLICIES``)
    allows; forward mode and vmap give checkpointed calls again."""

    def vjp_all(gs: Sequence[Node | None], needed: Sequence[bool], *actual: Node) -> list[Node | None]:
        return _pulled(body, actual, gs, needed, POLICIES[policy])

    def jvp_all(tangents: Sequence[Node | None], *actual: Node) -> list[Node | None]:
        pushed, flags = jvp_graph(body, [t is not None for t in tangents])
        found = checkpoint_call(pushed, [*actual, *(t for t in tangents if t is not None)], policy)
        moved = iter(found[len(body.results):])
        return [next(moved) if f else None for f in flags]

    def batch_all(size: Size, actual: Sequence[Node], batched: Sequence[bool]) -> tuple[list[Node], list[bool]]:
        mapped, flags = batch_graph(body, size, batched)
        return checkpoint_call(mapped, actual, policy), list(flags)

    return call("checkpoint", body, args, "of which the backward pass computes values again", vjp_all=vjp_all, jvp_all=jvp_all,
                batch_all=batch_all)


def _pulled(body: Graph, args: Sequence[Node], gs: Sequence[Node | None], needed: Sequence[bool], dear: Callable[[Node], bool]
            ) -> list[Node | None]:
    """Cotangents of the arguments, from the arguments, those of the results, and values that are computed again."""
    seeds = [None if g is None else parameter(g.type, f"ct{i}", i) for i, g in enumerate(gs)]
    wrt = [p for p, use in zip(body.params, needed, strict=True) if use]
    found = dict(zip(wrt, cotangents(body.results[:len(gs)], seeds, wrt), strict=True))
    live = _in_pieces([g for g in found.values() if g is not None])
    live_seeds = [s for s in seeds if s is not None]
    values, read = _forward(live, body.params, live_seeds)
    free = {p for p, a in zip(body.params, args, strict=True) if a.op.name in ("parameter", "constant")}
    kept = kept_values(values, read, body.params, free, dear)
    again = [r for r in read if r not in kept]
    computed = Graph((), tuple(again)).rebuild(lambda n, _: barrier(n, *live_seeds) if n in kept else None).results
    late = substitute(live, {**{n: n for n in kept}, **dict(zip(again, computed, strict=True))})
    actual = dict(zip(body.params, args, strict=True)) | {s: g for s, g in zip(seeds, gs, strict=True) if s is not None and g is not None}
    pulled = iter(substitute(late, actual))
    by_param = {p: None if g is None else next(pulled) for p, g in found.items()}
    return [by_param.get(p) for p in body.params]


def _in_pieces(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with composites taken apart, so that the cut may pass through them; but for those that have a rule of their own."""
    def parts(n: Node, args: tuple[Node, ...]) -> Node | None:
        whole = n.op.kind != "composite" or n.op.decompose is None or n.op.vjp is not None or n.op.vjp_all is not None
        return None if whole else n.op.decompose(*args, **n.attributes)  # type: ignore[misc]

    return list(Graph((), tuple(nodes)).rebuild(parts).results)


def _forward(results: Sequence[Node], params: Sequence[Node], seeds: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The values that depend on parameters but on no cotangent, in order, and those of them that are read together with cotangents."""
    own, late = set(params), set(seeds)
    values: list[Node] = []
    read: dict[Node, None] = {}
    for n in Graph((), tuple(results)).nodes():
        if n in late or any(a in late for a in n.args):
            late.add(n)
            read.update((a, None) for a in n.args if a in own)
        elif n in own or any(a in own for a in n.args):
            own.add(n)
            values.append(n)
    return values, list(read)


def kept_values(values: Sequence[Node], read: Sequence[Node], params: Collection[Node], free: Collection[Node],
                dear: Callable[[Node], bool]) -> set[Node]:
    """The values of least bytes from which all that are ``read`` can be computed. ``values`` lists all there are, arguments first; nothing
    is paid for those of ``free``, and those that are ``dear`` are not computed again."""
    import networkx as nx  # slow to import, and needed by checkpoints alone

    flow, known = nx.DiGraph(), set(values)
    flow.add_nodes_from(("source", "sink"))
    for n in values:
        flow.add_edge((n, "in"), (n, "out"), capacity=0 if n in free else at(n.type.bytes, _SIZE))
        flow.add_edges_from(((a, "out"), (n, "in")) for a in n.args if a in known)  # without a capacity: not to be cut
        if n in params or dear(n):
            flow.add_edge("source", (n, "in"))
    flow.add_edges_from(((r, "out"), "sink") for r in read)
    _, (above, _) = nx.minimum_cut(flow, "source", "sink")
    return {n for n in values if (n, "in") in above and (n, "out") not in above}


def _is_dear(n: Node) -> bool:
    """A contraction (or a window, or a loop), or a composite that has one inside."""
    if n.op.kind == "composite" and n.op.decompose is not None:
        inside = n.op.decompose(*n.args, **n.attributes)
        return any(m not in n.args and _is_dear(m) for m in Graph((), (inside,)).nodes())
    return n.op.kind in _DEAR


POLICIES: dict[str, Callable[[Node], bool]] = {"nothing_saveable": lambda n: False, "dots_saveable": _is_dear,
                                               "everything_saveable": lambda n: True}
"""Which values are never computed again, under the names that JAX has for it."""
