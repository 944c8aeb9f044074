"""Constant folding: what depends on captured arrays alone is computed now, by the interpreter.

    %0: f32[784,500] = constant() {value=f32[784,500]@5f3a...}
    %1: f32[500,784] = transpose(%0) {axes=(1, 0)}                ->      %1: f32[500,784] = constant() {value=f32[500,784]@91bc...}

So the packing of constant weights happens at compile time. Nothing is computed that is better made on the fly: a broadcast, an iota or a
repeated value stays what it is, and so does whatever would be much larger in memory than the arrays it is made of.
"""

from __future__ import annotations

from ..ir.interp import interpret
from ..ir.node import Graph, Node, constant
from ..ir.types import Dim, product

LARGEST = 64 << 20  # bytes of a result
LARGEST_STEP = 256 << 20  # bytes of anything on the way to it
MOST_WORK = 2 << 30  # multiplications of a contraction
SMALL = 4096  # bytes up to which growth does not matter
GROWTH = 2  # how many times larger than its arrays a result may be


def fold(graph: Graph, largest: int = LARGEST) -> Graph:
    """The graph with every constant subgraph replaced by its value, where that is worth its memory. ``largest`` is in bytes."""
    real: dict[Node, frozenset[Node]] = {}  # nodes that are known now, and the captured arrays below them
    for n in graph.nodes():
        if _is_known(n, real):
            real[n] = frozenset([n]) if n.op.name == "constant" else frozenset().union(*(real[a] for a in n.args))
    wanted = _frontier(graph, real)
    chosen: dict[Node, None] = {}
    seen: set[Node] = set()
    while wanted:
        n = wanted.pop()
        if n in seen:
            continue
        seen.add(n)
        if (packed := _packed(n)) is not None:
            wanted.append(packed)
        elif n.args and _worth_it(n, real[n], largest):
            chosen[n] = None
        else:
            wanted.extend(a for a in n.args if a in real)
    if not chosen:
        return graph
    values = interpret(Graph((), tuple(chosen), f"{graph.name}_constants"))
    new = {n: constant(v) for n, v in zip(chosen, values, strict=True)}
    return graph.rebuild(lambda n, args: new.get(n))


def _is_known(n: Node, real: dict[Node, frozenset[Node]]) -> bool:
    """Whether the interpreter can compute the node now, at a bounded cost."""
    if n.op.name == "constant":
        return True
    if n.op.name == "parameter" or n.op.kind in ("control", "composite") or not n.type.is_static or _is_symbolic([v for _, v in n.attrs]):
        return False
    return all(a in real for a in n.args) and _bytes(n) <= LARGEST_STEP and _work(n) <= MOST_WORK


def _is_symbolic(attribute: object) -> bool:
    """Whether an attribute holds a named size (the number of elements of something, a place in it)."""
    return any(map(_is_symbolic, attribute)) if isinstance(attribute, (tuple, list)) else isinstance(attribute, Dim)


def _bytes(n: Node) -> int:
    return int(n.type.bytes)  # static


def _work(n: Node) -> int:
    if n.op.kind != "contraction" or "contract" not in n.attributes:
        return 0
    return int(product([n.type.size, *(n.args[0].shape[k] for k in n["contract"][0])]))


def _frontier(graph: Graph, real: dict[Node, frozenset[Node]]) -> list[Node]:
    """The constant nodes that something else reads."""
    found = [r for r in graph.results if r in real]
    for n in graph.nodes():
        if n not in real:
            found += [a for a in n.args if a in real]
    return found


def _packed(n: Node) -> Node | None:
    """The ``copy`` below a chain of views: a layout that somebody asked for, which folding the views as well would undo."""
    base = n
    while base.op.kind == "view" and base.op.name != "copy" and len(base.args) == 1:
        base = base.args[0]
    return base if base is not n and base.op.name == "copy" else None


def _worth_it(n: Node, arrays: frozenset[Node], largest: int) -> bool:
    source = sum(_bytes(a) for a in arrays)
    return n.op.name != "broadcast" and source > 0 and _bytes(n) <= min(largest, max(SMALL, GROWTH * source))
