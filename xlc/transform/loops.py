"""Derivatives of loops, and loops of many elements at once: a loop becomes another loop, whose body is a transform of its body.

    vjp     the loop once more, with what its gradient needs stacked row by row, and a loop over these rows in the other direction, which
            carries cotangents (Griewank and Walther, Evaluating Derivatives, 2008; JAX's scan)
    jvp     one loop, which carries values and tangents
    batch   one loop, whose carries have an axis more; where the elements end at different times, until the last has ended

What reverse mode stores is what cotangents meet in the transposed body: not what the rows and fixed values give again cheaply, and of a
chain of cheap operators the smallest link. The original loop and the one that stores become one in ``passes.control``.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from ..errors import XlcTypeError
from ..ir.node import Graph, Node, full, outputs, parameter
from ..ir.op import lookup
from ..ir.sizes import at
from ..ir.types import Size
from ..ops.shape import moved, repeat
from .calls import substitute
from .grad import cotangents
from .jvp import jvp_graph
from .vmap import batch_graph

__all__ = ["batch", "jvp", "vjp"]

_SAMPLE = 64  # the value of named sizes when bytes are compared


def vjp(gs: Sequence[Node | None], needed: Sequence[bool], *args: Node, body: Graph, carries: int, fixed: int, length: Size | None,
        reverse: bool) -> list[Node | None]:
    """Cotangents of the arguments of a loop."""
    if length is None:
        raise XlcTypeError("reverse mode (grad, vjp, jacrev) through a loop whose number of iterations is not known when it is traced: use "
                           "scan, or fori_loop with Python ints as bounds; jvp and jacfwd work", args[0].loc or body.results[0].loc)
    active = _reached(body, needed, fixed, carries)
    wrt = [k for k, use in enumerate(active) if use]
    seeds = [parameter(r.type, f"ct{j}", j) if (active[fixed + j] if j < carries else j < len(gs) and gs[j] is not None) else None
             for j, r in enumerate(body.results)]
    found = dict(zip(wrt, cotangents(body.results, seeds, [body.params[k] for k in wrt]), strict=True))
    stored = _stored([g for g in found.values() if g is not None], seeds, body, fixed, carries)
    whole = Graph(body.params, (*body.results, *stored), body.name)
    rows = outputs(lookup("loop"), args, body=whole, carries=carries, fixed=fixed, length=length, reverse=reverse)[len(body.results):]

    back = _Loop(length, not reverse, f"{body.name}_vjp")
    for p, a in zip(body.params[:fixed], args, strict=False):
        back.fixed[p] = a
    for p, a in zip(body.params[fixed + carries:], args[fixed + carries:], strict=True):
        back.rows[p] = a
    inside = {n: parameter(n.type, f"r{k}", k) for k, n in enumerate(stored)}
    back.rows.update((inside[n], row) for n, row in zip(stored, rows, strict=True))
    for seed, g in zip(seeds[carries:], gs[carries:], strict=False):
        if seed is not None and g is not None:
            back.rows[seed] = g
    found = dict(zip(found, substitute(list(found.values()), inside), strict=True))
    place: dict[int, int] = {}
    for k in (k for k in wrt if k < fixed + carries):
        g, p, j = found[k], body.params[k], k - fixed
        if k >= fixed:
            seed = seeds[j]
            assert seed is not None
            first = gs[j] if j < len(gs) else None
            place[k] = back.carry(seed, full(p.type, 0) if first is None else first, full(p.type, 0) if g is None else g)
        elif g is not None:
            total = parameter(p.type, f"d_{p['name']}", k)
            place[k] = back.carry(total, full(p.type, 0), lookup("add")(total, g))
    for k in (k for k in wrt if k >= fixed + carries and found[k] is not None):
        place[k] = back.row(found[k])
    out = back.outputs()
    return [out[place[k]] if k in place and needed[k] else None for k in range(len(args))]


class _Loop:
    """A loop in the making: what stands for each parameter, and what becomes of the carries."""

    def __init__(self, length: Size | None, reverse: bool, name: str):
        self.length, self.reverse, self.name = length, reverse, name
        self.fixed: dict[Node, Node] = {}
        self.rows: dict[Node, Node] = {}
        self.carries: list[tuple[Node, Node, Node]] = []
        self.stacked: list[Node] = []

    def carry(self, param: Node, first: Node, following: Node) -> int:
        """A carry: its parameter, first value and next value. Its place among the carries."""
        self.carries.append((param, first, following))
        return len(self.carries) - 1

    def row(self, value: Node | None) -> int:
        """A result that is stacked, as a negative place."""
        assert value is not None
        self.stacked.append(value)
        return -len(self.stacked)

    def outputs(self) -> list[Node]:
        """The carries in order, then the stacked results in reverse order, so that both kinds of places are indices."""
        results = (*(n for _, _, n in self.carries), *reversed(self.stacked))
        used = set(Graph((), results).nodes())
        fixed = [p for p in self.fixed if p in used]
        rows = [p for p in self.rows if p in used]
        graph = Graph((*fixed, *(p for p, _, _ in self.carries), *rows), results, self.name)
        args = [*(self.fixed[p] for p in fixed), *(first for _, first, _ in self.carries), *(self.rows[p] for p in rows)]
        return outputs(lookup("loop"), args, body=graph, carries=len(self.carries), fixed=len(fixed), length=self.length,
                       reverse=self.reverse) if results else []


def _reached(body: Graph, start: Sequence[bool], fixed: int, carries: int) -> list[bool]:
    """Which float parameters depend on those of ``start``: those themselves, and carries that an iteration makes depend on them."""
    active = [use and p.dtype.is_float for use, p in zip(start, body.params, strict=True)]
    while True:
        reached = {p for p, use in zip(body.params, active, strict=True) if use}
        for n in body.nodes():
            if n.dtype.is_float and any(a in reached for a in n.args):
                reached.add(n)
        more = [j for j in range(carries) if body.results[j] in reached and not active[fixed + j]]
        if not more:
            return active
        for j in more:
            active[fixed + j] = True


# ------------------------------------------------------------------------------------------------ what reverse mode stores


def _stored(targets: Sequence[Node], seeds: Sequence[Node | None], body: Graph, fixed: int, carries: int) -> list[Node]:
    """The values of an iteration that its transpose needs and that are not there again anyway. They are looked for from the last to the
    first: a cheap operator is computed again where that stores no more."""
    order = Graph((), tuple(targets)).nodes()
    position = {n: k for k, n in enumerate(order)}
    linear = {s for s in seeds if s is not None}
    carried = set(body.params[fixed:fixed + carries])
    varying = set(body.params[fixed + carries:]) | carried
    for n in order:
        if any(a in linear for a in n.args):
            linear.add(n)
        elif any(a in varying for a in n.args):
            varying.add(n)
    free = {n for n in order if n not in varying or n in body.params[fixed + carries:]}
    waiting = {a for n in order if n in linear for a in n.args if a not in linear and a not in free}
    heap = [-position[n] for n in waiting]
    heapq.heapify(heap)
    stored: list[Node] = []
    while heap:
        n = order[-heapq.heappop(heap)]
        for parts in (_made_of(n, free | carried | waiting), n.args) if _is_cheap(n) and n not in carried else ():
            new = [a for a in dict.fromkeys(parts) if a not in free and a not in waiting]
            if sum(map(_bytes, new)) <= _bytes(n):
                waiting.update(new)
                for a in new:
                    heapq.heappush(heap, -position[a])
                break
        else:
            stored.append(n)
    return stored[::-1]


def _made_of(n: Node, given: set[Node]) -> list[Node]:
    """What the node is made of by cheap operators alone."""
    found: list[Node] = []
    stack, seen = list(n.args), set(n.args)
    while stack:
        a = stack.pop()
        if a in given or not _is_cheap(a):
            found.append(a)
        else:
            new = [b for b in a.args if b not in seen]
            seen.update(new)
            stack += new
    return found


def _is_cheap(n: Node) -> bool:
    """A few instructions per element."""
    return (n.op.kind == "view" and n.op.pull is not None) or (n.op.kind == "elementwise" and n.op.decompose is None)


def _bytes(n: Node) -> int:
    return at(n.type.bytes, _SAMPLE)


# ------------------------------------------------------------------------------------------------ forward mode


def jvp(tangents: Sequence[Node | None], *args: Node, body: Graph, carries: int, fixed: int, length: Size | None,
        reverse: bool) -> list[Node | None]:
    """Tangents of the results of a loop."""
    active = _reached(body, [t is not None for t in tangents], fixed, carries)
    graph, flags = jvp_graph(body, active)
    values, moves = graph.results[:len(body.results)], iter(graph.results[len(body.results):])
    pushed = [next(moves) if flag else None for flag in flags]
    given = iter(graph.params[len(body.params):])
    tangent = [next(given) if use else None for use in active]

    both = _Loop(length, reverse, graph.name)
    where: dict[int, int] = {}
    for k, (p, a, dp) in enumerate(zip(body.params, args, tangent, strict=True)):
        da = None if dp is None else full(a.type, 0) if tangents[k] is None else tangents[k]
        into = both.fixed if k < fixed else both.rows
        if fixed <= k < fixed + carries:
            both.carry(p, a, values[k - fixed])
        else:
            into[p] = a
            if dp is not None and da is not None:
                into[dp] = da
    for j in range(carries):
        dp, first, following = tangent[fixed + j], tangents[fixed + j], pushed[j]
        if dp is not None:
            t = body.params[fixed + j].type
            where[j] = both.carry(dp, full(t, 0) if first is None else first, full(t, 0) if following is None else following)
    for j in range(carries, len(body.results)):
        if pushed[j] is not None:
            where[j] = both.row(pushed[j])
    out = both.outputs()
    return [out[where[j]] if j in where else None for j in range(len(body.results))]


# ------------------------------------------------------------------------------------------------ many at once


def batch(size: Size, args: Sequence[Node], batched: Sequence[bool], body: Graph, carries: int, fixed: int, length: Size | None,
          reverse: bool) -> tuple[list[Node], list[bool]]:
    """The results of ``size`` loops."""
    flags = list(batched)
    while True:
        graph, out = batch_graph(body, size, flags, [j < carries and flags[fixed + j] for j in range(len(body.results))])
        apart = length is None and out[0]  # the elements end at different times, and so each has values of its own
        more = [j for j in range(carries) if (out[j] or apart) and not flags[fixed + j]]
        if not more:
            break
        for j in more:
            flags[fixed + j] = True
    given = [a if not flag else repeat(size, a) if not was else moved(a, 0, 1) if k >= fixed + carries else a
             for k, (a, flag, was) in enumerate(zip(args, flags, batched, strict=True))]
    if apart:
        graph = _until_the_last(graph, fixed)
        given.insert(fixed, lookup("any")(given[fixed], axes=(0,)))
    found = outputs(lookup("loop"), given, body=graph, carries=carries + apart, fixed=fixed, length=length, reverse=reverse)[apart:]
    return [moved(n, 1, 0) if b and j >= carries else n for j, (n, b) in enumerate(zip(found, out, strict=True))], list(out)


def _until_the_last(body: Graph, fixed: int) -> Graph:
    """The body of a loop that runs while its condition holds for any element; elements that have ended keep their values."""
    where, go, values = lookup("where"), body.params[fixed], body.params[fixed + 1:]
    going = go & body.results[0]
    kept = [where(lookup("broadcast")(go, shape=old.shape, axes=(0,)), new, old) for new, old in zip(body.results[1:], values, strict=True)]
    some = parameter(body.results[0].type.with_shape(()), "some", fixed)
    return Graph((*body.params[:fixed], some, go, *values), (lookup("any")(going, axes=(0,)), going, *kept), body.name)
