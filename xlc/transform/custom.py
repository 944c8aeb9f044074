"""Calls of functions whose gradient the user gives.

    %0 = custom_vjp_7(%x, %n) {output=0}       its decomposition is the function's graph; reverse mode asks ``pull`` instead

Under vmap the call stays one: of the batched graph, with the batched rule. Forward mode is the transpose of the rule, which is linear in
the cotangents: reverse mode through the graph of ``pull``. A rule that is not linear, such as one that clips, has none, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import XlcTypeError
from ..ir.node import Graph, Node, parameter
from ..ir.op import lookup
from ..ir.types import Size
from .calls import above, call, substitute
from .grad import cotangents
from .vmap import batch_graph

__all__ = ["Pull", "custom_call"]

Pull = Callable[[Sequence[Node], Sequence[Node | None], Sequence[bool]], Sequence[Node | None]]
"""(arguments, cotangents of all outputs, which arguments need one) -> cotangents of the arguments"""


def custom_call(primal: Graph, args: Sequence[Node], pull: Pull) -> list[Node]:
    """The outputs of ``primal(args)`` as nodes that are differentiated by ``pull``."""

    def vjp_all(gs: Sequence[Node | None], needed: Sequence[bool], *actual: Node) -> Sequence[Node | None]:
        return pull(actual, [*gs, *[None] * (len(primal.results) - len(gs))], needed)

    def jvp_all(tangents: Sequence[Node | None], *actual: Node) -> list[Node | None]:
        return _transposed(primal, pull, tangents, actual)

    def batch_all(size: Size, actual: Sequence[Node], batched: Sequence[bool]) -> tuple[list[Node], list[bool]]:
        everywhere = [True] * len(primal.results)
        mapped, _ = batch_graph(primal, size, batched, everywhere)
        named = Graph(mapped.params, mapped.results, primal.name)
        return custom_call(named, actual, _batched_pull(primal, size, batched, pull)), everywhere

    return call("custom_vjp", primal, args, "with a gradient rule given by the user", vjp_all=vjp_all, jvp_all=jvp_all, batch_all=batch_all)


def _transposed(primal: Graph, pull: Pull, tangents: Sequence[Node | None], args: Sequence[Node]) -> list[Node | None]:
    """The tangents of all outputs, from those of the arguments."""
    seeds = [parameter(r.type, f"ct{i}", i) if r.dtype.is_float else None for i, r in enumerate(primal.results)]
    gs = pull(args, seeds, [t is not None for t in tangents])
    live = [(g, t) for g, t in zip(gs, tangents, strict=True) if g is not None and t is not None]
    cts = [s for s in seeds if s is not None]
    found = cotangents([g for g, _ in live], [t for _, t in live], cts, args)
    used, left = (set(above([n for n in nodes if n is not None], args)) for nodes in ([g for g, _ in live], found))
    if any(ct in left or (t is None and ct in used) for ct, t in zip(cts, found, strict=True)):
        raise XlcTypeError(f"forward mode (jvp, jacfwd, hessian) through the custom_vjp function {primal.name} transposes its rule, and "
                           "what bwd returns is not linear in the cotangent; use grad, vjp or jacrev, or write the function without "
                           "custom_vjp")
    tangent = dict(zip(cts, found, strict=True))
    return [None if s is None else tangent[s] for s in seeds]


def _batched_pull(primal: Graph, size: Size, batched: Sequence[bool], pull: Pull) -> Pull:
    """The rule for all elements. An argument that they share gets the sum of their cotangents."""

    def rule(args: Sequence[Node], gs: Sequence[Node | None], needed: Sequence[bool]) -> list[Node | None]:
        own = [parameter(p.type, p["name"], i) for i, p in enumerate(primal.params)]
        seeds = [None if g is None else parameter(r.type, f"ct{i}", i) for i, (g, r) in enumerate(zip(gs, primal.results, strict=True))]
        found = pull(own, seeds, needed)
        live = [i for i, g in enumerate(found) if g is not None and needed[i]]
        inputs = [*own, *(s for s in seeds if s is not None)]
        one = Graph(tuple(inputs), tuple(g for i in live if (g := found[i]) is not None), primal.name)
        flags = [*batched, *[True] * (len(inputs) - len(own))]
        mapped, _ = batch_graph(one, size, flags, [True] * len(live))
        actual = dict(zip(mapped.params, [*args, *(g for g in gs if g is not None)], strict=True))
        out: list[Node | None] = [None] * len(args)
        for i, g in zip(live, substitute(mapped.results, actual), strict=True):
            assert g is not None
            out[i] = g if batched[i] else lookup("sum")(g, axes=(0,))
        return out

    return rule
