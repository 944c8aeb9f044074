"""From a call of control flow to a step of the program: the plans of its bodies, and the memory in which they work.

    %0 = loop(%w, %h, %xs) {body=step, carries=1, fixed=1, length=10}    ->    Step(Loop(plan of step, ...), (%w, %h, %xs), (%0, scratch))

``plan`` plans a body: a Graph on which all passes have run, and which result may lie over which parameter (the carries). Constants that
bodies hold become inputs of the step, so that constants are the business of the outermost plan alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.node import Graph, Node, make, outputs
from ..ir.op import lookup
from ..ir.plan import Branch, Loop
from ..ir.sizes import upper
from ..ir.types import Type, u8
from .fuse import Group
from .memory import Step

Planner = Callable[[Graph, Sequence[tuple[int, int]]], Any]


def region(group: Group, plan: Planner) -> Step:
    """The step of a group whose anchor is a call of control flow."""
    call = group.anchor
    assert call is not None
    attrs = {k: v for k, v in call.attrs if k != "output"}
    results = outputs(call.op, call.args, **attrs)
    return _loop(call, results, attrs, plan) if "body" in attrs else _branch(call, results, attrs["branches"], plan)


def _loop(call: Node, results: list[Node], attrs: dict[str, Any], plan: Planner) -> Step:
    body, fixed, carries = attrs["body"], attrs["fixed"], attrs["carries"]
    held = _constants([body])
    params = (*body.params[:fixed], *held, *body.params[fixed:])
    fixed += len(held)
    stages = plan(Graph(params, body.results, body.name), [(fixed + j, j) for j in range(carries)])
    loop = Loop(stages.plan, attrs["length"], attrs["reverse"], fixed, carries)
    spare = [_scratch(call, results[j].type) for j in loop.swapped]
    inputs = (*call.args[:attrs["fixed"]], *held, *call.args[attrs["fixed"]:])
    return Step(loop, inputs, (*results, *spare, _arena(call, [stages])), body.name, (stages,))


def _branch(call: Node, results: list[Node], branches: Sequence[Graph], plan: Planner) -> Step:
    held = _constants(branches)
    stages = [plan(Graph((*b.params, *held), b.results, b.name), ()) for b in branches]
    return Step(Branch(tuple(s.plan for s in stages)), (*call.args, *held), (*results, _arena(call, stages)),
                "/".join(b.name for b in branches), tuple(stages))


def _constants(graphs: Sequence[Graph]) -> list[Node]:
    """The captured arrays that kernels of these graphs, or of graphs inside them, read."""
    return list(dict.fromkeys(n for g in graphs for n in g.everywhere() if n.op.name == "constant"))


def _scratch(call: Node, type: Type) -> Node:
    """Memory that the step needs while it runs."""
    return make(lookup("copy"), (call,), type, {"token": object()})


def _arena(call: Node, stages: Sequence[Any]) -> Node:
    return _scratch(call, Type(u8, (upper(s.plan.arena for s in stages),)))


__all__ = ["region"]
