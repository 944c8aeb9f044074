"""Reverse mode: from a Graph and the cotangents of its results to the cotangents of chosen nodes.

    graph f(%x: f32[3]) {                        graph f_vjp(%x: f32[3], %ct0: f32[3]) {
      %0: f32[3] = sin(%x)              ->         %0: f32[3] = cos(%x)
      return %0                                    %1: f32[3] = multiply(%ct0, %0)
    }                                              return %1
                                                 }

Every operator states its own rule (``Op.vjp``, or ``Op.vjp_all`` where it has several outputs); a composite without one is differentiated
through its decomposition. A cotangent that is zero is None and costs nothing. Contributions are added in the reverse order of the program,
so that the result is the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import XlcError, XlcTypeError
from ..ir.node import Graph, Node, at_location, full, parameter
from ..ir.op import lookup
from .calls import above, call_of, calls

__all__ = ["cotangents", "vjp_graph"]


def vjp_graph(graph: Graph, wrt: Sequence[int] | None = None) -> Graph:
    """The pullback as a graph of its own: parameters of ``graph``, then one cotangent for each result; results: the cotangents of the
    parameters whose positions ``wrt`` lists (default: every float one)."""
    chosen = [i for i, p in enumerate(graph.params) if p.dtype.is_float] if wrt is None else list(wrt)
    seeds = [parameter(r.type, f"ct{i}", len(graph.params) + i) for i, r in enumerate(graph.results)]
    params = [graph.params[i] for i in chosen]
    found = cotangents(graph.results, seeds, params)
    results = [full(p.type, 0) if g is None else g for p, g in zip(params, found, strict=True)]
    return Graph((*graph.params, *seeds), tuple(results), f"{graph.name}_vjp")


def cotangents(results: Sequence[Node], seeds: Sequence[Node | None], wrt: Sequence[Node],
               given: Sequence[Node] = ()) -> list[Node | None]:
    """The cotangent of each node of ``wrt``, given those of the results; None is zero. The nodes of ``wrt`` are independent variables:
    nothing flows through one of them into another. What lies below the nodes of ``given`` is not looked at."""
    leaves = set(wrt)
    order = above(results, leaves | set(given))
    active = set(leaves)
    for n in order:
        if n.dtype.is_float and n not in active and any(a in active for a in n.args):
            active.add(n)
    total: dict[Node, Node] = {}

    def add(node: Node, g: Node | None, rule: str) -> None:
        if g is None or node not in active:
            return
        if g.type != node.type:
            raise XlcError(f"the gradient rule of {rule} gave {g.type} for an argument of type {node.type}", node.loc)
        before = total.get(node)
        total[node] = g if before is None else lookup("add")(before, g)

    for r, seed in zip(results, seeds, strict=True):
        add(r, seed, "a result")
    first = calls(n for n in order if n in active and n not in leaves)
    for n in reversed(order):
        if n in leaves or n not in active:
            continue
        with at_location(n.loc):
            if (outputs := first.get(n)) is not None:
                gs: Sequence[Node | None] = _pull_call(n, outputs, total, [a in active for a in n.args])
            elif n in total and n.op.vjp_all is None:
                gs = _pull(n, total[n], [a in active for a in n.args])
            else:
                continue
            for a, g in zip(n.args, gs, strict=True):
                add(a, g, n.op.name)
    return [total.get(n) for n in wrt]


def _pull(n: Node, g: Node, needed: Sequence[bool]) -> Sequence[Node | None]:
    """Cotangents of the arguments of one node; those that are not needed may be None."""
    if n.op.vjp is not None:
        return n.op.vjp(g, n, *n.args, **n.attributes)
    if n.op.kind == "composite" and n.op.decompose is not None:
        inside = n.op.decompose(*n.args, **n.attributes)
        wanted = list(dict.fromkeys(a for a, use in zip(n.args, needed, strict=True) if use))
        found = dict(zip(wanted, cotangents([inside], [g], wanted, n.args), strict=True))
        return [found.pop(a, None) for a in n.args]  # an argument that occurs twice: its cotangent already is the sum
    raise XlcTypeError(f"{n.op.name} is not differentiable; wrap its result in xlc.stop_gradient if no gradient should flow through it",
                       n.loc)


def _pull_call(n: Node, outputs: Sequence[Node], total: dict[Node, Node], needed: Sequence[bool]) -> Sequence[Node | None]:
    """The same for all outputs of one call together."""
    found = {out["output"]: total[out] for out in outputs if out in total}
    if not found:
        return [None] * len(n.args)
    assert n.op.vjp_all is not None
    return n.op.vjp_all([found.get(i) for i in range(max(found) + 1)], needed, *n.args, **dict(call_of(n).attrs))
