"""Operators with several outputs: each output is a node of its own, and the nodes of one call belong together.

    %0 = while(%a, %b) {body=..., output=0}
    %1 = while(%a, %b) {body=..., output=1}        call_of(%0) == call_of(%1) == (while, (%a, %b), (("body", ...),))

A transform handles a call once: ``Op.vjp_all``, ``jvp_all`` and ``batch_all`` speak of all its outputs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import XlcTypeError
from ..ir.node import Call, Graph, Node, call_of, outputs
from ..ir.op import Op
from ..ir.types import Type

__all__ = ["Call", "above", "call", "call_of", "calls", "foreign", "substitute"]


def calls(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """For the first output of each call in the program: all its outputs in it. In reverse the first is reached last, when every use of
    every output has been seen."""
    groups: dict[Call, list[Node]] = {}
    for n in order:
        if n.op.vjp_all is not None:
            groups.setdefault(call_of(n), []).append(n)
    return {outputs[0]: outputs for outputs in groups.values()}


def above(results: Sequence[Node], bottom: Container[Node]) -> list[Node]:
    """Every node that the results need, down to and including ``bottom``, arguments first, in program order."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(r, False) for r in reversed(results)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in bottom:
                stack.extend((a, False) for a in reversed(node.args) if a not in seen)
    return order


def substitute(roots: Sequence[Node | None], replacement: Mapping[Node, Node]) -> list[Node | None]:
    """The same values with some nodes (fresh parameters, as a rule) replaced by others."""
    live = [r for r in roots if r is not None]
    new = iter(Graph((), tuple(live)).rebuild(lambda n, args: replacement.get(n)).results)
    return [None if r is None else next(new) for r in roots]


def foreign(results: Iterable[Node], own: Iterable[Node]) -> list[Node]:
    """The parameters of other graphs that these results read: what a rule that the user gives has closed over."""
    mine = set(own)
    return [n for n in Graph((), tuple(results)).nodes() if n.op.name == "parameter" and n not in mine]


def _fingerprint(graph: Graph) -> str:
    from ..ir.text import print_graph

    return hashlib.sha256(print_graph(graph, locations=False).encode()).hexdigest()[:16]


_numbers = itertools.count()


def call(kind: str, primal: Graph, args: Sequence[Node], doc: str, *, vjp_all: Callable[..., Any], jvp_all: Callable[..., Any],
         batch_all: Callable[..., Any]) -> list[Node]:
    """The outputs of ``primal(args)`` as the nodes of one call: a composite of its own, ``kind_0123456789abcdef_7(args...) {output=i}``,
    whose decomposition is output i of ``primal``, and whose rules for transforms are given."""
    kind = f"{kind}_{_fingerprint(primal)}"  # what it computes: graphs of equal text are taken for equal, by the cache on disk too

    def inlined(*actual: Node, output: int) -> Node:
        (out,) = substitute([primal.results[output]], dict(zip(primal.params, actual, strict=True)))
        assert out is not None
        return out

    def oracle(*arrays: np.ndarray) -> list[np.ndarray]:
        from ..ir.interp import interpret

        return interpret(primal, *arrays)

    def results(*types: Type) -> list[Type]:
        if types != tuple(p.type for p in primal.params):
            raise XlcTypeError(f"{primal.name} was traced for {', '.join(str(p.type) for p in primal.params)}")
        return [r.type for r in primal.results]

    op = Op(f"{kind}_{next(_numbers)}", "composite", len(args), results=results, numpy=oracle, decompose=inlined,
            doc=f"{primal.name}, {doc}", vjp_all=vjp_all, jvp_all=jvp_all, batch_all=batch_all)
    return outputs(op, args)
