"""Composite operators (softmax, layer_norm, ...) become the operators they are made of, unless the backend claims them.

    %0: f32[8,10] = softmax(%x) {axis=1}      ->      max, broadcast, subtract, exp, sum, broadcast, divide

Afterwards the graph holds no composite but those in ``keep``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..ir.node import Graph, Node
from ..ir.rewrite import Match, Pattern, Rule, rewrite


def decompose(graph: Graph, keep: Collection[str] | Callable[[Node], bool] = ()) -> Graph:
    """The graph without composites. ``keep`` names those to leave whole, or decides for each node."""
    kept = keep if callable(keep) else lambda n: n.op.name in keep

    def parts(m: Match) -> Node | None:
        n = m.root
        if n.op.kind != "composite" or n.op.decompose is None or kept(n):
            return None
        result: Node = n.op.decompose(*n.args, **n.attributes)
        return result

    return rewrite(graph, [Rule("decompose", Pattern("*", ()), parts)]).graph
