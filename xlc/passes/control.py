"""Control flow as a whole: which loops are one, what of them is needed, and what their bodies compute again and again.

    %0 = loop(%w, %h, %xs) {body=step, ...}      ->      %w2 = copy(transpose(%w))          invariant: computed once
                                                         %0 = loop(%w2, %h, %xs) {body=step', ...}

``bodies(graph, passes)`` goes through the calls of control flow in a graph. Results that nobody needs, and what they alone need, are left
out; a carry that never changes is passed as it is; loops over the same things, of which one carries all that the other does, become one
(so a loop and the same loop that also gives what its gradient needs run once). Contractions that need not be in a loop leave it (see
``distribute``). Each body is then compiled on its own (``passes``: Graph ->
Graph, the whole list), once, and what is dear in it and the same in every iteration moves in front of the loop.

Invariant established: every body is a graph on which all passes have run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.machine import Machine
from ..ir.node import Call, Graph, Node, call_of, outputs, parameter
from .distribute import distribute

Compile = Callable[[Graph], Graph]


def bodies(graph: Graph, passes: Compile, machine: Machine | None = None) -> Graph:
    """The graph with every body of control flow compiled. With a ``machine``, contractions leave loops where
    that pays there (see ``distribute``)."""
    if not any(n.op.kind == "control" for n in graph.nodes()):
        return graph
    graph = _on_calls(merge(graph), _pruned)
    if machine is not None:
        graph = _on_calls(_on_calls(graph, lambda call: distribute(call, machine)), _pruned)
    done: dict[Graph, Graph] = {}

    def compiled(body: Graph) -> Graph:
        if body not in done:
            done[body] = passes(body)
        return done[body]

    return _on_calls(graph, lambda call: _compiled(call, compiled))


@dataclass(frozen=True)
class ControlCall:
    """One call of control flow: its operator, arguments and attributes, and which of its results the graph needs."""

    op: Any
    args: tuple[Node, ...]
    attrs: dict[str, Any]
    needed: tuple[int, ...]
    loc: Any

    def results(self, args: Sequence[Node], **attrs: Any) -> list[Node]:
        return outputs(self.op, args, **{**self.attrs, **attrs})


def _on_calls(graph: Graph, change: Callable[[ControlCall], dict[int, Node]]) -> Graph:
    """The graph with every call of control flow changed: ``change`` gives a node for each needed result."""
    needed: dict[Any, list[int]] = {}
    for n in graph.nodes():
        if n.op.kind == "control":
            needed.setdefault(call_of(n), []).append(n["output"])
    made: dict[Any, dict[int, Node]] = {}

    def rule(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op.kind != "control":
            return None
        key = call_of(n)
        if key not in made:
            attrs = {k: v for k, v in n.attrs if k != "output"}
            made[key] = change(ControlCall(n.op, args, attrs, tuple(sorted(needed[key])), n.loc))
        return made[key][n["output"]]

    return graph.rebuild(rule)


# ------------------------------------------------------------------------------------------------ what is needed


def _pruned(call: ControlCall) -> dict[int, Node]:
    return _pruned_loop(call) if "body" in call.attrs else _pruned_branches(call)


def _pruned_loop(call: ControlCall) -> dict[int, Node]:
    body, fixed, carries = call.attrs["body"], call.attrs["fixed"], call.attrs["carries"]
    carried = body.params[fixed:fixed + carries]
    same = {j for j in range(carries) if body.results[j] is carried[j]}
    if call.attrs["length"] is None:
        same.discard(0)
    wanted = {j for j in call.needed if j not in same} | ({0} if call.attrs["length"] is None else set())
    while True:  # a carry is needed if something that is needed reads it
        inside = set(Graph((), tuple(body.results[j] for j in sorted(wanted))).nodes())
        more = wanted | {j for j in range(carries) if carried[j] in inside and j not in same}
        if more == wanted:
            break
        wanted = more
    kept = sorted(wanted)
    new_carries = [j for j in kept if j < carries]
    args = dict(zip(body.params, call.args, strict=True))
    held = [p for k, p in enumerate(body.params) if p in inside and (k < fixed or (k < fixed + carries and k - fixed in same))]
    rows = [p for p in body.params[fixed + carries:] if p in inside]
    params = (*held, *(carried[j] for j in new_carries), *rows)
    new = {j: call.args[fixed + j] for j in call.needed if j in same}
    if kept:
        inner = Graph(params, tuple(body.results[j] for j in kept), body.name) if params != body.params or len(kept) < len(body.results) \
            else body
        out = call.results([args[p] for p in params], body=inner, fixed=len(held), carries=len(new_carries))
        new.update((j, out[kept.index(j)]) for j in call.needed if j not in same)
    return new


def _pruned_branches(call: ControlCall) -> dict[int, Node]:
    index, *operands = call.args
    results = [tuple(b.results[j] for j in call.needed) for b in call.attrs["branches"]]
    read = [set(Graph((), r).nodes()) for r in results]
    used = [k for k in range(len(operands)) if any(b.params[k] in inside for b, inside in zip(call.attrs["branches"], read, strict=True))]
    kept = tuple(Graph(tuple(b.params[k] for k in used), r, b.name) for b, r in zip(call.attrs["branches"], results, strict=True))
    return dict(zip(call.needed, call.results([index, *(operands[k] for k in used)], branches=kept), strict=True))


# ------------------------------------------------------------------------------------------------ loops that are one


def merge(graph: Graph) -> Graph:
    """Loops that do all that others do take over their work. Transforms keep the parameters of a body that they extend, so that the loop
    that a gradient needs, or the one that also carries tangents, and the original are seen to be the same loop here."""
    loops: dict[Call, list[Node]] = {}
    for n in graph.nodes():
        if n.op.kind == "control" and "body" in n.attributes:
            loops.setdefault(call_of(n), []).append(n)
    known = [_Loop(call, nodes) for call, nodes in loops.items()]
    for small in sorted(known, key=lambda c: len(c.given)):
        large = next((c for c in known if c is not small and small.is_part_of(c)), None)
        if large is not None:
            return merge(_taken_over(graph, small, large))
    return graph


class _Loop:
    """A loop: its arguments by the parameters that stand for them, and what becomes of its carries."""

    def __init__(self, call: Call, nodes: Sequence[Node]):
        self.call, self.nodes, attrs = call, nodes, dict(call.attrs)
        self.body: Graph = attrs["body"]
        self.trips, self.carries, self.fixed = (attrs["length"], attrs["reverse"]), attrs["carries"], attrs["fixed"]
        roles = ["fixed"] * self.fixed + ["carry"] * self.carries + ["row"] * (len(call.args) - self.fixed - self.carries)
        self.given = dict(zip(self.body.params, zip(call.args, roles, strict=True), strict=True))
        self.carried = dict(zip(self.body.params[self.fixed:], self.body.results[:self.carries], strict=False))

    def is_part_of(self, other: _Loop) -> bool:
        """Whether the other one carries all that this one does, and does not need its results."""
        return self.trips == other.trips and self.given.items() <= other.given.items() and self.carried.items() <= other.carried.items() \
            and not set(self.nodes) & set(Graph((), other.call.args).nodes())


def _taken_over(graph: Graph, small: _Loop, large: _Loop) -> Graph:
    """The graph with the loop ``large`` also giving the results of ``small``."""
    rows = dict.fromkeys((*large.body.results[large.carries:], *small.body.results[small.carries:]))
    body = Graph(large.body.params, (*large.body.results[:large.carries], *rows), large.body.name)
    carry = {p: k for k, p in enumerate(large.carried)}
    row = {r: large.carries + k for k, r in enumerate(rows)}
    found = outputs(large.call.op, large.call.args, **{**dict(large.call.attrs), "body": body})  # what these need, neither loop gives
    instead: dict[Node, Node] = {}
    for loop in (small, large):
        for n in loop.nodes:
            k = n["output"]
            instead[n] = found[carry[loop.body.params[loop.fixed + k]] if k < loop.carries else row[loop.body.results[k]]]
    return graph.rebuild(lambda n, args: instead.get(n))


# ------------------------------------------------------------------------------------------------ bodies


def _compiled(call: ControlCall, compiled: Compile) -> dict[int, Node]:
    if "branches" in call.attrs:
        out = call.results(call.args, branches=tuple(map(compiled, call.attrs["branches"])))
        return {k: out[k] for k in call.needed}
    body, fixed = compiled(call.attrs["body"]), call.attrs["fixed"]
    invariant = _invariant(body, fixed)
    if invariant:
        outside = dict(zip(body.params[:fixed], call.args, strict=False))
        before = Graph((), tuple(invariant)).rebuild(lambda n, args: outside.get(n)).results
        inside = {n: parameter(n.type, f"once{k}", fixed + k) for k, n in enumerate(invariant)}
        results = Graph((), body.results).rebuild(lambda n, args: inside.get(n)).results
        body = Graph((*body.params[:fixed], *inside.values(), *body.params[fixed:]), results, body.name)
        call = ControlCall(call.op, (*call.args[:fixed], *before, *call.args[fixed:]), call.attrs, call.needed, call.loc)
        fixed += len(invariant)
    out = call.results(call.args, body=body, fixed=fixed)
    return {k: out[k] for k in call.needed}


def _invariant(body: Graph, fixed: int) -> list[Node]:
    """The nodes to compute once: dear, the same in every iteration, and read by something that is not (through views, which are free)."""
    same: dict[Node, bool] = {p: k < fixed for k, p in enumerate(body.params)}
    dear: dict[Node, bool] = {}
    for n in body.nodes():
        same.setdefault(n, all(same[a] for a in n.args))
        dear[n] = bool(n.args) and (_is_dear(n) or any(dear[a] for a in n.args))
    results = set(body.results)
    wanted: dict[Node, None] = {}
    edge = [a for n in body.nodes() if not same[n] or n in results for a in n.args if same[a] and dear[a]]
    while edge:
        n = edge.pop()
        if n.op.kind == "view" and not _is_dear(n):
            edge += [a for a in n.args if dear[a]]
        elif n not in results and any(m.op.kind == "input" for m in Graph((), (n,)).nodes()):
            wanted[n] = None
    return list(wanted)


def _is_dear(n: Node) -> bool:
    """Worth memory of its own: more than a few instructions per element."""
    return n.op.kind in ("contraction", "reduction", "ordered", "indexed", "control") or n.op.name == "copy" \
        or (n.op.kind == "elementwise" and n.op.decompose is not None)


__all__ = ["bodies", "merge"]
