"""Reports: what a program tells its caller besides its results, for ``xlc.debug``. A graph has no effects, so a report is a value.

    report((node,), events, lines)       one more result of the traced function; after each call, events([array]) says what to do with it

The reports of a trace lie in it, in program order. What is built from a body takes the body's reports along:

    scan, fori_loop    their values are stacked, as further results of the loop (``of_loop``)
    while_loop         the values of the last ``KEPT`` iterations are carried in a ring; checks are carried as one number (``Ring``)
    cond, switch       every branch gives the values of all, zeros for those of others, and the index says which count (``of_branch``)
    vmap               the values have an axis more (``of_elements``)
    grad, jvp, ...     fresh parameters are replaced by the actual arguments (``with_actual``)

A function that reports is called by the Python path (``jit.Compiled.run``); to others all this costs nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..ir.node import Graph, Node, full, parameter
from ..ir.op import lookup
from ..ir.types import Type, i64
from ..transform.calls import foreign, substitute
from .trace import current

KEPT = 256


@dataclass(frozen=True, eq=False)
class Call:
    """A call that has run: ``graph`` computes the values of one report, ``arrays`` are the arguments."""

    graph: Graph
    arrays: Sequence[np.ndarray]


Event = tuple[tuple[int, ...], Callable[[Call], None]]
"""Something to do after a call, and its place in the program: statement, iteration, statement in the body..."""


@dataclass(frozen=True, eq=False)
class Report:
    """``events`` are what the values of ``nodes`` mean. ``lines`` say which calls of ``xlc.debug`` it is from: (location, what) of each. A
    ``check`` has floats whose maximum over several iterations says as much as all of them."""

    nodes: tuple[Node, ...]
    events: Callable[[Sequence[np.ndarray]], Iterable[Event]]
    lines: tuple[Any, ...]
    check: bool = False


def report(nodes: Sequence[Node], events: Callable[[Sequence[np.ndarray]], Iterable[Event]], lines: tuple[Any, ...],
           check: bool = False) -> None:
    """A report of the running trace. One without values has a constant one, so that loops count it."""
    trace = current()
    assert trace is not None
    trace.reports.append(Report(tuple(nodes) or (full(Type(i64), 0),), events, lines, check))


# ------------------------------------------------------------------------------------------------ after a call


def tell(graph: Graph, reports: Sequence[Report], arguments: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
    """Do what the reports of a call say, in program order; checks, which may raise, come last."""
    found = sorted(_events(reports, values), key=lambda event: (reports[event[0][0]].check, event[0]))
    for (k, *_), act in found:
        act(Call(Graph(graph.params, reports[k].nodes, graph.name), arguments))


def _events(reports: Sequence[Report], values: Sequence[np.ndarray]) -> Iterator[Event]:
    rest = iter(values)
    for k, r in enumerate(reports):
        for where, act in r.events([next(rest) for _ in r.nodes]):
            yield (k, *where), act


def write(text: str, call: Call | None = None) -> None:
    """A line on standard output, in one piece, so that lines of several threads stay whole."""
    sys.stdout.write(text + "\n")


# ------------------------------------------------------------------------------------------------ transforms


def pending() -> list[Node]:
    """The values of all reports so far."""
    trace = current()
    return nodes_of(trace.reports) if trace is not None else []


def nodes_of(reports: Sequence[Report]) -> list[Node]:
    return [n for r in reports for n in r.nodes]


def _put(nodes: Sequence[Any], change: Callable[[Report, list[Any]], Report]) -> None:
    """New values for those of ``pending``."""
    trace, rest = current(), iter(nodes)
    if trace is not None:
        trace.reports[:] = [change(r, [next(rest) for _ in r.nodes]) for r in trace.reports]


def with_actual(given: Mapping[Node, Node]) -> None:
    """The reports in terms of actual arguments, in the place of the parameters that a transform put there."""
    if nodes := pending():
        _put(substitute(nodes, given), lambda r, new: replace(r, nodes=tuple(new)))


def of_elements(found: Sequence[tuple[Node, bool]]) -> None:
    """The reports for all elements of ``vmap``; ``found`` is what ``transform.vmap.batch`` makes of ``pending``. One that is the same for
    all elements stays one."""

    def change(r: Report, new: list[tuple[Node, bool]]) -> Report:
        flags = [flag for _, flag in new]
        if not any(flags):
            return r

        def events(arrays: Sequence[np.ndarray]) -> Iterator[Event]:
            for i in range(next(len(a) for a, flag in zip(arrays, flags, strict=True) if flag)):
                yield from r.events([a[i, ...] if flag else a for a, flag in zip(arrays, flags, strict=True)])

        return replace(r, nodes=tuple(n for n, _ in new), events=events)

    _put(found, change)


@contextmanager
def without_repeats() -> Iterator[None]:
    """Of the reports made inside, those of lines that have reported before are left out: fwd of a custom_vjp calls the function."""
    trace = current()
    assert trace is not None
    start = len(trace.reports)
    yield
    said = {line for r in trace.reports[:start] for line in r.lines}
    trace.reports[start:] = [r for r in trace.reports[start:] if not said.issuperset(r.lines)]


def repeated(reports: Sequence[Report], nodes: Sequence[Node]) -> None:
    """The same reports once more, of other values: their body stands here."""
    trace, rest = current(), iter(nodes)
    assert trace is not None
    trace.reports += [replace(r, nodes=tuple(next(rest) for _ in r.nodes)) for r in reports]


def owned(reports: Sequence[Report], params: Sequence[Node]) -> list[Report]:
    """The reports of a whole function or body, whose values depend on its parameters alone. Of others, which come from the rules of a
    custom_vjp that is differentiated inside a loop or under vmap, a warning tells, unless the same line reports the forward pass."""
    kept = [r for r in reports if not foreign(r.nodes, params)]
    said = {line for r in kept for line in r.lines}
    for file, number in dict.fromkeys(line[0] for r in reports if r not in kept for line in r.lines if line not in said and line[0]):
        warnings.warn_explicit("xlc.debug reports nothing here: a rule of a custom_vjp, inside the derivative of a loop, a branch or a "
                               "mapped function", UserWarning, file, number)
    return kept


# ------------------------------------------------------------------------------------------------ control flow


def _by_kind(reports: Sequence[Report], nodes: Sequence[Node]) -> Iterator[tuple[list[Report], list[Node]]]:
    """What is printed, and what is checked, with their values."""
    rest = iter(nodes)
    pairs = [(r, [next(rest) for _ in r.nodes]) for r in reports]
    for check in (False, True):
        chosen = [(r, new) for r, new in pairs if r.check is check]
        if chosen:
            yield [r for r, _ in chosen], [n for _, new in chosen for n in new]


def _lines(reports: Sequence[Report]) -> tuple[Any, ...]:
    return tuple(line for r in reports for line in r.lines)


def of_loop(reports: Sequence[Report], stacked: Sequence[Node], reverse: bool) -> None:
    """The reports of a loop, from those of its body and their values, stacked."""
    for group, nodes in _by_kind(reports, stacked):

        def events(arrays: Sequence[np.ndarray], group: list[Report] = group) -> Iterator[Event]:
            rows = range(len(arrays[0]))
            for turn, i in enumerate(reversed(rows) if reverse else rows):
                yield from (((turn, *where), act) for where, act in _events(group, [a[i, ...] for a in arrays]))

        report(nodes, events, _lines(group), group[0].check)


def of_branch(reports: Sequence[Report], nodes: Sequence[Node], index: Node, number: int, count: int) -> None:
    """The reports of one of ``count`` branches, whose values are zeros where another one ran."""
    for group, values in _by_kind(reports, nodes):
        if group[0].check:
            report(values, lambda arrays, group=group: _events(group, arrays), _lines(group), True)  # type: ignore[misc]
            continue

        def events(arrays: Sequence[np.ndarray], group: list[Report] = group) -> Iterator[Event]:
            if min(max(int(arrays[0]), 0), count - 1) == number:
                yield from _events(group, arrays[1:])

        report([index, *values], events, _lines(group))


class Ring:
    """The reports of a loop whose number of iterations is not known: carries in addition to its own. ``first`` are their first values,
    ``params`` their parameters in the body."""

    def __init__(self, reports: Sequence[Report]):
        self.nodes = nodes_of(reports)
        self.groups = list(_by_kind(reports, self.nodes))
        self.first = [n for group, nodes in self.groups for n in self._first(group[0].check, nodes)]
        self.params = [parameter(n.type, "report", k) for k, n in enumerate(self.first)]

    @staticmethod
    def _first(check: bool, nodes: Sequence[Node]) -> list[Node]:
        if check:
            return [full(n.type, 0) for n in nodes]
        return [full(Type(i64), 0), *(full(Type(n.dtype, (KEPT, *n.shape)), 0) for n in nodes)]

    def following(self, values: Sequence[Node]) -> list[Node]:
        """The next values of the carries, from what an iteration reports."""
        from ..ops.shape import repeat  # fills the table of operators, which importing xlc does not wait for

        nodes = dict(zip(self.nodes, values, strict=True))
        old, out = iter(self.params), []
        for group, own in self.groups:
            if group[0].check:
                out += [lookup("maximum")(next(old), nodes[v]) for v in own]
                continue
            count = next(old)
            here = lookup("equal")(lookup("iota")(shape=(KEPT,), axis=0, dtype=i64),
                                   repeat(KEPT, lookup("remainder")(count, full(count.type, KEPT))))
            out.append(lookup("add")(count, full(count.type, 1)))
            for v in own:
                whole = repeat(KEPT, nodes[v])
                out.append(lookup("where")(lookup("broadcast")(here, shape=whole.shape, axes=(0,)), whole, next(old)))
        return out

    def report(self, last: Sequence[Node]) -> None:
        """The reports of the loop, from the last values of its carries."""
        rest = iter(last)
        for group, nodes in self.groups:
            if group[0].check:
                report([next(rest) for _ in nodes], lambda arrays, group=group: _events(group, arrays),  # type: ignore[misc]
                       _lines(group), True)
                continue

            def events(arrays: Sequence[np.ndarray], group: list[Report] = group) -> Iterator[Event]:
                count, *kept = arrays
                first = max(0, int(count) - KEPT)
                if first:
                    yield (-1,), partial(write, f"... {first} earlier iterations of a loop are not shown, only the last {KEPT} are kept")
                for i in range(first, int(count)):
                    yield from (((i, *where), act) for where, act in _events(group, [a[i % KEPT, ...] for a in kept]))

            report([next(rest), *(next(rest) for _ in nodes)], events, _lines(group))
