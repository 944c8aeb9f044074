"""Loop distribution: contractions with a matrix that is the same in every iteration leave the loop, and are one for all iterations.

    loop(%w, %h, %xs) { z = dot(concat(%x, %h), %w); ... }    ->    %zs = dot(%xs, %w[:in])                          in front of it
                                                                    loop(%w, %h, %zs) { z = %z + dot(%h, %w[in:]); ... }
    loop(...) { ...; return ..., dot(%g, %w) }                ->    %gs = loop(...) { ...; return ..., %g }
                                                                    dot(%gs, %w)                                     after it

(K. Kennedy and K. McKinley, Loop distribution with arbitrary control flow, 1990; cuDNN does so with recurrent networks.) A contraction
can move in front of the loop where no carry reaches it, and behind it where no carry needs it. It does where that takes no memory, or
where the matrix, which is then read once and not in every iteration, outweighs twice the rows that are written and read again instead, and
what is stacked stays in the cache, or is at most twice what the loop stacks anyway while the matrix comes from beyond the second-level
cache. The sum of contractions over all iterations, which is the gradient of a matrix, is one from the start (``transform.loops``).

Products stay what they are; sums are formed in another order where an operand was joined of parts that move and parts that stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..ir.machine import Machine
from ..ir.node import Graph, Node, parameter
from ..ir.op import lookup
from ..ir.sizes import at
from ..transform.calls import substitute
from ..transform.vmap import batch
from .layout import free_dimensions

if TYPE_CHECKING:
    from .control import ControlCall

_SAMPLE = 64  # the value of named sizes when bytes are compared
_MAPPED = ("contraction", "create", "elementwise", "indexed", "input", "reduction", "view")  # what may move in front of a loop


def distribute(call: ControlCall, machine: Machine) -> dict[int, Node]:
    """What the graph needs of a loop, from which contractions have been moved away."""
    if "body" not in call.attrs or call.attrs["length"] is None or at(call.attrs["length"], _SAMPLE) < 2:
        out = call.results(call.args)
        return {j: out[j] for j in call.needed}
    loop = _Distribution(call, machine)
    loop.split()
    loop.move_before()
    loop.move_after()
    return loop.outputs()


class _Distribution:
    """A loop as it changes: ``rows`` maps each parameter that is a row to the stacked array; ``later`` maps stacked results to values, in
    terms of the body, that are computed of all rows after the loop; ``kept`` are the values that are stacked for these."""

    def __init__(self, call: ControlCall, machine: Machine):
        fixed, self.carries = call.attrs["fixed"], call.attrs["carries"]
        self.call, self.length, self.machine = call, call.attrs["length"], machine
        body: Graph = call.attrs["body"]
        self.held = dict(zip(body.params[:fixed], call.args, strict=False))
        self.carried = dict(zip(body.params[fixed:fixed + self.carries], call.args[fixed:], strict=False))
        self.rows = dict(zip(body.params[fixed + self.carries:], call.args[fixed + self.carries:], strict=True))
        self.later: dict[int, Node] = {}
        self.kept: list[Node] = []
        self.look(body.results)
        self.room = 2 * self.stacked([*self.rows, *self.results[self.carries:]])

    def look(self, results: Sequence[Node]) -> None:
        """Which nodes differ between iterations, and which of them a carry reaches."""
        self.results, self.body = tuple(results), Graph((), tuple(results))
        self.varying, self.reached = {*self.rows, *self.carried}, set(self.carried)
        for n in self.body.nodes():
            for found in (self.varying, self.reached):
                if any(a in found for a in n.args):
                    found.add(n)

    def replace(self, instead: dict[Node, Node]) -> None:
        self.look([r for r in substitute(self.results, instead) if r is not None])

    def stacked(self, nodes: Iterable[Node]) -> int:
        """Bytes that these take for all iterations."""
        return sum(_bytes(n) for n in nodes) * at(self.length, _SAMPLE)

    def pays(self, row: Node, matrix: Node) -> bool:
        """Whether memory for these rows is worth that the matrix is read once."""
        most = max(self.machine.l3 // 2, self.room if _bytes(matrix) > self.machine.l2 else 0)
        return _bytes(matrix) >= 2 * _bytes(row) and self.stacked([row]) <= most

    def factors(self, n: Node) -> tuple[Node, Node] | None:
        """Of a contraction the operand that varies, and the one that does not."""
        if n.op.kind != "contraction" or sum(a in self.varying for a in n.args) != 1:
            return None
        a, b = n.args
        return (a, b) if a in self.varying else (b, a)

    # -------------------------------------------------------------------------------------------- in front of the loop

    def split(self) -> None:
        """A contraction of an operand that is joined of parts becomes a sum where some of the parts can move, and others cannot."""
        sums = {n: self._sum(n) for n in self.body.nodes() if n.op.kind == "contraction" and n.dtype.bits >= 32}
        instead = {n: s for n, s in sums.items() if s is not None}
        if instead:
            self.replace(instead)

    def _sum(self, n: Node) -> Node | None:
        for side, joined in enumerate(n.args):
            if self.factors(n) is None or joined.op.name != "concat" or joined["axis"] not in n["contract"][side]:
                continue
            matrix, along = n.args[1 - side], n["contract"][1 - side][n["contract"][side].index(joined["axis"])]
            products, worth, begin = [], False, 0
            for stays, group in groupby(joined.args, key=self.reached.__contains__):
                parts = list(group)
                end: Any = begin + sum(p.shape[joined["axis"]] for p in parts)
                part = parts[0] if len(parts) == 1 else joined.op(*parts, axis=joined["axis"])
                rest = _sliced(matrix, {along: (begin, end)})
                products.append(n.op(*((rest, part) if side else (part, rest)), **n.attributes))
                worth, begin = worth or (not stays and self.pays(products[-1], rest)), end
            if len(products) > 1 and worth:
                return reduce(lookup("add"), products)
        return None

    def move_before(self) -> None:
        """Contractions that no carry reaches, and that meet one soon. (Where none is met the loop is a map, whose user wants the values of
        one element at a time in memory.)"""
        uses, meeting = self.body.uses(), set()
        for n in reversed(self.body.nodes()):
            if any(u in self.reached or (u in meeting and u.op.kind in ("elementwise", "view")) for u in uses[n]):
                meeting.add(n)
        moved = [n for n in self.body.nodes() if n in meeting and n not in self.reached and (found := self.factors(n)) is not None
                 and self.pays(n, found[1]) and all(m.op.kind in _MAPPED for m in Graph((), (n,)).nodes())]
        if moved:
            inside = {n: parameter(n.type, f"row{k}", 0) for k, n in enumerate(moved)}
            whole = self.outside(moved, self.rows)
            self.rows.update((inside[n], w) for n, w in zip(moved, whole, strict=True))
            self.replace(inside)

    def outside(self, nodes: Sequence[Node], rows: dict[Node, Node]) -> list[Node]:
        """Values of all iterations, from the stacked values of ``rows``."""
        given = {**{p: (a, False) for p, a in self.held.items()}, **{p: (a, True) for p, a in rows.items()}}
        return [n for n, _ in batch(nodes, self.length, given)]

    # -------------------------------------------------------------------------------------------- after the loop

    def move_after(self) -> None:
        """Stacked results that are contractions which nothing else needs, or nothing but rows seen in another way."""
        for j in self.call.needed:
            value = self.results[j]
            if j < self.carries or value not in self.varying:
                continue
            if all(n.op.kind in ("input", "view", "create") and n not in self.carried for n in Graph((), (value,)).nodes()):
                self.later[j] = value
                continue
            chain, product = _seen_through(value)
            others = Graph((), tuple(r for k, r in enumerate(self.results) if k != j and k not in self.later)).uses()
            factors = self.factors(product)
            if factors is None or (product in others and (product in self.results or not _is_more_than(product, others[product]))):
                continue
            there = factors[0] in self.rows or factors[0] in self.kept or factors[0] in self.results[self.carries:]
            if there or self.pays(*factors):
                self.later[j] = _on_part(chain, product)
                self.kept.append(factors[0])

    def outputs(self) -> dict[int, Node]:
        """The results of the call: of the loop that is left, and of what comes after it."""
        stay = {j: self.results[j] for j in self.call.needed if j >= self.carries and j not in self.later}
        stacked = list(dict.fromkeys([*stay.values(), *(n for n in self.kept if n not in self.rows)]))
        body = Graph((*self.held, *self.carried, *self.rows), narrowed((*self.results[:self.carries], *stacked)),
                     self.call.attrs["body"].name)
        args = [*self.held.values(), *self.carried.values(), *self.rows.values()]
        out = self.call.results(args, body=body) if self.carries or stacked else []
        rows = dict(zip(stacked, out[self.carries:], strict=True))
        found = {j: out[j] if j < self.carries else rows[stay[j]] for j in self.call.needed if j not in self.later}
        return {**found, **dict(zip(self.later, self.outside(list(self.later.values()), {**self.rows, **rows}), strict=True))}


# ------------------------------------------------------------------------------------------------ parts of contractions


def narrowed(results: tuple[Node, ...]) -> tuple[Node, ...]:
    """The same values, of contractions that are read in part no more than that part."""
    while True:
        instead: dict[Node, Node] = {}
        for n, readers in Graph((), results).uses().items():
            if n.op.kind == "contraction" and n not in results and _is_more_than(n, readers):
                first = tuple(min(r["start"][d] for r in readers) for d in range(n.rank))
                part = _part(n, first, tuple(max(r["stop"][d] for r in readers) for d in range(n.rank)))
                instead.update((r, _sliced(part, {d: (a - f, b - f) for d, (a, b, f) in
                                                  enumerate(zip(r["start"], r["stop"], first, strict=True))})) for r in readers)
        if not instead:
            return results
        results = tuple(r for r in substitute(results, instead) if r is not None)


def _is_more_than(n: Node, readers: Sequence[Node]) -> bool:
    """Whether slices are all that reads the node, and they leave a part of some dimension out."""
    if not all(r.op.name == "slice" and all(s == 1 for s in r["step"]) for r in readers) or not all(isinstance(s, int) for s in n.shape):
        return False
    return any(min(r["start"][d] for r in readers) > 0 or max(r["stop"][d] for r in readers) < s for d, s in enumerate(n.shape))


def _part(product: Node, start: Sequence[Any], stop: Sequence[Any]) -> Node:
    """A slice of a contraction, as the contraction of slices."""
    count = len(product["batch"][0])
    free = free_dimensions(product)
    begin = (count, count + len(free[0]))
    operands = []
    for a, shared, own, first in zip(product.args, product["batch"], free, begin, strict=True):
        places = {**{d: k for k, d in enumerate(shared)}, **{d: first + k for k, d in enumerate(own)}}
        operands.append(_sliced(a, {d: (start[k], stop[k]) for d, k in places.items()}))
    return product.op(*operands, **product.attributes)


def _sliced(x: Node, spans: dict[int, tuple[Any, Any]]) -> Node:
    """A part of some dimensions, the others whole."""
    every = [spans.get(d, (0, s)) for d, s in enumerate(x.shape)]
    if every == [(0, s) for s in x.shape]:
        return x
    return lookup("slice")(x, start=tuple(a for a, _ in every), stop=tuple(b for _, b in every), step=(1,) * x.rank)


def _seen_through(n: Node) -> tuple[list[Node], Node]:
    """The views of one argument through which a value is seen, the last one first, and what is seen."""
    chain: list[Node] = []
    while n.op.kind == "view" and len(n.args) == 1:
        chain.append(n)
        n = n.args[0]
    return chain, n


def _on_part(chain: list[Node], product: Node) -> Node:
    """The views on the contraction; a slice of it is the contraction of slices."""
    chain = list(chain)
    if chain and chain[-1].op.name == "slice" and all(s == 1 for s in chain[-1]["step"]):
        cut = chain.pop()
        product = _part(product, cut["start"], cut["stop"])
    for view in reversed(chain):
        product = view.op(product, **view.attributes)
    return product


def _bytes(n: Node) -> int:
    return at(n.type.bytes, _SAMPLE)
