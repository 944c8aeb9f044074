"""Graphs as TensorBoard's graph page reads them: a GraphDef, in which a slash in a name makes a box that opens.

    before(program.after("trace"))     network.py-12/dot, ...               boxes are the lines of the user's program
    after(program.after("fuse"))       kernel-0-contraction/dot, ...        boxes are the kernels that fusion makes

Edges carry their shapes; a node shows its attributes, the line that made it, and why a kernel did not take it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from .extras import extra

_TYPES = {"bool": "DT_BOOL", "f16": "DT_HALF", "bf16": "DT_BFLOAT16", "f32": "DT_FLOAT", "f64": "DT_DOUBLE",
          **{f"i{bits}": f"DT_INT{bits}" for bits in (8, 16, 32, 64)}, **{f"u{bits}": f"DT_UINT{bits}" for bits in (8, 16, 32, 64)}}
_LONGEST = 200  # characters of an attribute


class _Drawing:
    """A GraphDef that grows node by node."""

    def __init__(self) -> None:
        self.proto = extra("tensorboard.compat.proto.graph_pb2", "TensorBoard logs").GraphDef()
        self.types = extra("tensorboard.compat.proto.types_pb2", "TensorBoard logs")
        self.proto.versions.producer = 22
        self.taken: set[str] = set()

    def add(self, node: Any, scope: str, inputs: Iterable[str], notes: dict[str, str]) -> str:
        """Draw a node of the graph; its name."""
        attributes = node.attributes
        label = attributes["name"] if node.op.name == "parameter" else node.op.name
        wanted = re.sub(r"[^A-Za-z0-9_.\-/]", "_", f"{scope}/{label}" if scope else label)
        name, k = wanted, 1
        while name in self.taken:
            name, k = f"{wanted}_{k}", k + 1
        self.taken.add(name)
        drawn = self.proto.node.add(name=name, op="Placeholder" if node.op.name == "parameter" else node.op.name, input=inputs)
        drawn.attr["dtype"].type = getattr(self.types, _TYPES[node.dtype.name])
        shape = drawn.attr["_output_shapes"].list.shape.add()
        for size in node.shape:
            shape.dim.add(size=size if isinstance(size, int) else -1, name="" if isinstance(size, int) else str(size))
        place = {"line": f"{node.loc[0]}:{node.loc[1]}"} if node.loc else {}
        shown = {k: v for k, v in attributes.items() if k not in ("name", "index", "token")}
        for key, value in {**shown, "type": str(node.type), **place, **notes}.items():
            drawn.attr[key].s = str(value)[:_LONGEST].encode()
        return name


def before(graph: Any) -> Any:
    """The GraphDef of a Graph."""
    drawing, names = _Drawing(), {}  # type: ignore[var-annotated]
    results = set(graph.results)
    for node in graph.nodes():
        scope = f"{os.path.basename(node.loc[0])}-{node.loc[1]}" if node.loc and node.args else ""
        names[node] = drawing.add(node, scope, [names[a] for a in node.args], {"result": "yes"} if node in results else {})
    return drawing.proto


def after(partition: Any) -> Any:
    """The GraphDef of a Partition: what is computed in several kernels is drawn in each of them."""
    drawing = _Drawing()
    stored: dict[Any, str] = {}  # what lies in memory: parameters, constants, what kernels before wrote
    for group in partition.groups:
        inside: dict[Any, str] = {}
        scope = f"kernel-{group.number}-{group.kind}"
        for node in _arguments_first(group.at):
            inputs = []
            for a in node.args:
                if a not in group.at and a not in stored:
                    stored[a] = drawing.add(a, "", (), {})
                inputs.append(inside[a] if a in group.at else stored[a])
            why = {f"{p.op.name}_is_not_fused": reason for p, reason in group.why.items() if p in node.args}
            inside[node] = drawing.add(node, scope, inputs, why)
        stored.update((root, inside[root]) for root in group.roots)
    return drawing.proto


def _arguments_first(members: Any) -> list[Any]:
    order: dict[Any, None] = {}
    for root in members:
        stack = [root]
        while stack:
            node = stack[-1]
            waiting = [a for a in node.args if a in members and a not in order]
            if waiting:
                stack.extend(waiting)
            else:
                order[stack.pop()] = None
    return list(order)
