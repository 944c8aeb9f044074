"""Checks for nan in what a program computes, and where the first came from.

    check([(node, "the result of f")])      a report of the running trace: one float, nan where the node holds one
    origin(graph, arrays, bad)              the operator that made it

Nothing is looked for while the program runs. If the float says so after a call, the graph is interpreted on the call's arguments, and
from the checked value the way leads back, through values that are bad, to the first operator whose arguments are not. That may be a loop:
then its iterations are run, and the first whose result is bad is searched likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import XlcFloatingPointError, user_location
from ..ir.interp import Body, sizes_from, static, steps
from ..ir.node import Graph, Node, bodies, full, parameter
from ..ir.op import lookup
from .devices import to_host
from .reports import Call, Event, report

__all__ = ["check", "origin", "refuse_bad"]

Bad = Callable[[np.ndarray], bool]


def check(values: Iterable[tuple[Node, str]], inf: bool = False) -> None:
    """Checks of these nodes, if they are floats; each with what to call it in the error."""
    at = user_location()
    for node, what in values:
        if node.dtype.is_float:
            probe = lookup("abs")(node)
            if probe.rank:
                probe = lookup("max")(probe, axes=tuple(range(probe.rank)))
            probe = lookup("maximum")(probe, full(probe.type, 0))  # of no elements
            report([probe], partial(_events, what, _not_finite if inf else _nan), ((at, what, inf),), check=True)


def refuse_bad(arrays: Iterable[tuple[np.ndarray, str]], inf: bool = False) -> None:
    """The same check of arrays, now."""
    for a, what in arrays:
        if (_not_finite if inf else _nan)(a):
            raise XlcFloatingPointError(f"{what} holds {'nan or inf' if inf else 'nan'}")


def _nan(a: np.ndarray) -> bool:
    return _is_float(a) and bool(np.isnan(a).any())


def _not_finite(a: np.ndarray) -> bool:
    return _is_float(a) and not bool(np.isfinite(a).all())


def _is_float(a: np.ndarray) -> bool:
    return a.dtype.kind not in "biu"


def _events(what: str, bad: Bad, arrays: Sequence[np.ndarray]) -> list[Event]:
    return [((), partial(_fail, what, bad))] if bad(arrays[0]) else []


def _fail(what: str, bad: Bad, call: Call) -> None:
    with np.errstate(all="ignore"):
        found = origin(call.graph, [to_host(a) for a in call.arrays], bad)
    kind = "nan" if bad is _nan else "nan or inf"
    if found is None:
        raise XlcFloatingPointError(f"{what} holds {kind}, and in the interpreter it does not: the compiled code rounds differently, or is "
                                    "wrong; XLC_CHECK=3 compares them kernel by kernel")
    raise XlcFloatingPointError(f"{what} holds {kind}; {found.sentence(kind)}", found.node.loc if found.node.args else None)


# ------------------------------------------------------------------------------------------------ where it came from


@dataclass(frozen=True)
class Origin:
    """The operator that made the first bad value, in the words of ``inside`` (iterations and branches, from the outermost), and its
    arguments."""

    node: Node
    inside: tuple[str, ...]
    arguments: tuple[np.ndarray, ...]

    def sentence(self, kind: str) -> str:
        n = self.node
        if n.op.name == "parameter":
            return f"so does the argument {n['name']}: {n.type}"
        if not n.args:
            return f"so does a constant, {n.type}"
        given = " and ".join(f"{a.type}{_range(v)}" for a, v in zip(n.args, self.arguments, strict=True))
        return f"the first was made by {n.op.name}: {n.type}{', '.join(('', *self.inside))}, from {given}"


def _range(a: np.ndarray) -> str:
    if not a.size:
        return ""
    least, most = a.min(), a.max()
    return f" = {least}" if least == most else f" in [{least}, {most}]"


def origin(graph: Graph, arrays: Sequence[np.ndarray], bad: Bad, sizes: Mapping[str, int] | None = None) -> Origin | None:
    """Where the first bad value came from of those that make a result of the graph bad; None if none is bad."""
    env = {**sizes_from([p.type for p in graph.params], arrays), **(sizes or {})}
    values = dict(steps(graph, *arrays, sizes=env))
    reached = {r for r in graph.results if bad(values[r])}
    first: Node | None = None
    for n in reversed(values):
        if n in reached:
            before = [a for a in n.args if bad(values[a])]
            reached.update(before)
            first = first if before else n
    if first is None:
        return None
    given = tuple(values[a] for a in first.args)
    return _within(first, given, bad, env) or Origin(first, (), given)


def _within(n: Node, given: Sequence[np.ndarray], bad: Bad, env: Mapping[str, int]) -> Origin | None:
    """The origin in what the operator consists of: bodies, or a function of the user."""
    if bodies(n):
        runs: list[_Run] = []
        attrs = {k: static(v, env, lambda g, sizes: _Watched(g, sizes, bad, runs)) for k, v in n.attrs if k != "output"}
        n.op.numpy(*given, **attrs)
        k, run = next(((k, run) for k, run in enumerate(runs) if run.arrays is not None), (0, None))
        if run is None or run.arrays is None:
            return None
        found = origin(run.graph, run.arrays, bad, env)
        return found and Origin(found.node, (_place(n, run.graph, k, len(runs)), *found.inside), found.arguments)
    if n.op.results is not None and n.op.decompose is not None:
        params = [parameter(a.type, "x", k) for k, a in enumerate(n.args)]
        return origin(Graph(tuple(params), (n.op.decompose(*params, **n.attributes),), n.op.name), given, bad, env)
    return None


@dataclass
class _Run:
    """One run of a body; ``arrays`` are its arguments if it is the first that gave something bad."""

    graph: Graph
    arrays: tuple[np.ndarray, ...] | None


class _Watched(Body):
    def __init__(self, graph: Graph, env: Mapping[str, int], bad: Bad, runs: list[_Run]):
        super().__init__(graph, env)
        self.bad, self.runs = bad, runs

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        out = super().__call__(*arrays)
        first = all(run.arrays is None for run in self.runs) and any(self.bad(a) for a in out)
        self.runs.append(_Run(self.graph, arrays if first else None))
        return out


def _place(n: Node, graph: Graph, k: int, count: int) -> str:
    attrs: dict[str, Any] = n.attributes
    if not any(isinstance(v, Graph) for v in attrs.values()):
        return f"in the branch {graph.name}"
    return f"at row {count - 1 - k} of {graph.name}" if attrs.get("reverse") else f"in iteration {k} of {graph.name}"
