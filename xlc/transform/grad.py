"""Reverse mode: from a Graph and the cotangents of its results to the cotangents of chosen nodes.

    graph f(%x: f32[3]) {                        graph f_vjp(%x: f32[3], %ct0: f32[3]) {
      %0: f32[3] = sin(%x)              ->         %0: f32[3] = cos(%x)
      return %0                                    %1: f32[3] = multiply(%ct0, %0)
    }                                              return %1
                                                 }

Every operator states its own rule (``Op.vjp``); a composite without one is differentiated through its decomposition. A cotangent that is
zero is None and costs nothing. Contributions are added in the reverse order of the program, so that the result is the same every time.
``custom_call`` makes nodes whose rule the user gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import XlcError, XlcTypeError
from ..ir.node import Graph, Node, at_location, full, make, parameter
from ..ir.op import Op, lookup
from ..ir.types import Type

__all__ = ["cotangents", "custom_call", "substitute", "vjp_graph"]

Pull = Callable[[Sequence[Node], Sequence["Node | None"], Sequence[bool]], Sequence["Node | None"]]
"""(arguments, cotangents of all outputs, which arguments need one) -> cotangents of the arguments"""


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
    order = _above(results, leaves | set(given))
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
    calls = _calls(order)
    for n in reversed(order):
        if n in leaves or n not in active:
            continue
        with at_location(n.loc):
            if (outputs := calls.get(n)) is not None:
                gs: Sequence[Node | None] = _pull_call(n, outputs, total, [a in active for a in n.args])
            elif n in total and not isinstance(n.op, CustomCall):
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


def _above(results: Sequence[Node], bottom: set[Node]) -> list[Node]:
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


def substitute(roots: Sequence[Node | None], replacement: dict[Node, Node]) -> list[Node | None]:
    """The same values with some nodes (fresh parameters, as a rule) replaced by others."""
    live = [r for r in roots if r is not None]
    new = iter(Graph((), tuple(live)).rebuild(lambda n, args: replacement.get(n)).results)
    return [None if r is None else next(new) for r in roots]


# ------------------------------------------------------------------------------------------------ rules that the user gives


@dataclass(frozen=True, eq=False, repr=False)
class CustomCall(Op):
    """One call of a function with its own gradient. Each output is a node ``custom_vjp_7(args...) {output=i}``: a composite whose
    decomposition is output i of ``primal``, and whose outputs are pulled back together, once, by ``pull_all``."""

    primal: Graph = Graph((), ())
    pull_all: Pull = lambda args, gs, needed: [None for _ in args]


_numbers = itertools.count()


def custom_call(primal: Graph, args: Sequence[Node], pull_all: Pull) -> list[Node]:
    """The outputs of ``primal(args)`` as nodes that are differentiated by ``pull_all``."""

    def inlined(*actual: Node, output: int) -> Node:
        (out,) = substitute([primal.results[output]], dict(zip(primal.params, actual, strict=True)))
        assert out is not None
        return out

    def oracle(*arrays: np.ndarray, output: int) -> np.ndarray:
        from ..ir.interp import interpret

        return interpret(Graph(primal.params, (primal.results[output],)), *arrays)[0]

    def infer(*types: Type, output: int) -> Type:
        if types != tuple(p.type for p in primal.params):
            raise XlcTypeError(f"{primal.name} was traced for {', '.join(str(p.type) for p in primal.params)}")
        return primal.results[output].type

    op = CustomCall(f"custom_vjp_{next(_numbers)}", "composite", len(args), infer=infer, numpy=oracle, decompose=inlined,
                    doc=f"{primal.name}, with a gradient rule given by the user", primal=primal, pull_all=pull_all)
    return [make(op, args, r.type, {"output": i}) for i, r in enumerate(primal.results)]


def _calls(order: Sequence[Node]) -> dict[Node, list[Node]]:
    """For the first output of each custom call in the program: all its outputs in it. The first is reached last in reverse, when every
    use of every output has been seen."""
    first: dict[tuple[Op, tuple[Node, ...]], Node] = {}
    groups: dict[Node, list[Node]] = {}
    for n in order:
        if isinstance(n.op, CustomCall):
            groups.setdefault(first.setdefault((n.op, n.args), n), []).append(n)
    return groups


def _pull_call(n: Node, outputs: Sequence[Node], total: dict[Node, Node], needed: Sequence[bool]) -> Sequence[Node | None]:
    assert isinstance(n.op, CustomCall)
    gs: list[Node | None] = [None] * len(n.op.primal.results)
    for out in outputs:
        gs[out["output"]] = total.get(out)
    return [None] * len(n.args) if all(g is None for g in gs) else n.op.pull_all(n.args, gs, needed)
