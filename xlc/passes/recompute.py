"""What lies between contractions and is as large as rows times columns is computed again by each contraction that reads it.

    %s = dot(%q, %k); %m = max(%s); %e = exp(%s - %m); %l = sum(%e); %p = %e / %l        softmax of the rows of %s
    %y = dot(%p, %v); %dv = dot(%p, %w) {contract=((0,), (0,))}                         %p has two readers, so it would be stored
    ->
    %y = dot(%p, %v)                                                                     of %p, %m and %l as before: one kernel
    %t = dot(%k', %q'); %dv = dot(exp(%t - %m') / %l', %w)                               %k' = optimization_barrier(%k, %w), ...

Once the reductions of rows are known, as vectors, everything between is elementwise in products of two operands, so that a kernel computes
a block of it on the way to the contraction that reads it: attention's backward pass without a matrix of tokens x tokens (T. Dao,
arXiv:2307.08691). Nothing is recognised but that: *inner* contractions, elementwise operators, reductions of rows, *outer* contractions. A
reduction of a row that is linear in an inner contraction becomes a contraction before it is summed,

    sum_j x[i,j] * (sum_c a[i,c] * b[j,c])   =   sum_c a[i,c] * (sum_j x[i,j] * b[j,c])

where the inner sum is the forward pass's result. An outer contraction that sums over rows gets everything transposed. Halves are
widened between the contractions, as kernels compute there in f32, so vectors are in f32.

It is done where the machine has one kernel for each of the outer contractions (asked with ``tile``, on the part of the graph alone), and
for all readers of what lies between; else nothing changes, and ``refusals`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node, make, parameter
from xlc.ir.op import lookup
from xlc.ir.types import Type, bool_, f32

from .between import Builder, Family, Outer, base, cast_like
from .fuse import FusionOptions, fuse
from .group import comes_later
from .layout import free_dimensions
from .tile import tile


def recompute(graph: Graph, options: FusionOptions, machine: Machine) -> Graph:
    """The graph in which contractions compute again what they read, where the machine has kernels for that."""
    taken = [f for f in _families(graph, options, machine) if f.why is None]
    return _rebuilt(graph, taken) if taken else graph


def refusals(graph: Graph, options: FusionOptions, machine: Machine) -> list[str]:
    """For people: why what lies between contractions is stored."""
    return list(dict.fromkeys(f"{f.shown} is stored: {f.why}" for f in _families(graph, options, machine) if f.why is not None))


def is_again(dot: Node) -> bool:
    """Whether what this contraction reads on the left is computed again for it alone: from what waits for its right operand."""
    token, seen, waiting = base(dot.args[1]), {dot.args[0]}, [dot.args[0]]
    while waiting:
        n = waiting.pop()
        operands = n.args if n.op.kind == "contraction" else ()
        if any(comes_later(a) and token in a.args[1:] for a in map(_behind_views, operands)):
            return True
        new = [a for a in n.args if a not in seen and n.op.kind == "elementwise"]
        seen.update(new)
        waiting += new
    return False


def _behind_views(n: Node) -> Node:
    """The barrier, or what lies in memory, behind views and a cast."""
    while not comes_later(n) and len(n.operands) == 1 and (n.op.kind == "view" or n.op.name == "cast"):
        n = n.args[0]
    return n


# ------------------------------------------------------------------------------------------------ what there is


def _families(graph: Graph, options: FusionOptions, machine: Machine) -> Iterator[Family]:
    """Those that would be stored for the sake of several readers, of which rows are reduced."""
    if not options.tiles or options.strict or machine.stacked:
        return
    trial = _Trial(options, machine)
    for f in _found(graph):
        if f.rows and (len(f.outer) > 1 or len(f.rows) > 2):
            if f.why is None:
                f.why = trial(f)
            yield f


def _found(graph: Graph) -> list[Family]:
    nodes, uses, results = graph.nodes(), graph.uses(), set(graph.results)
    of: dict[Node, Family] = {}
    for n in nodes:
        if _is_inner(n):
            of[n] = Family([n], {n: None})
        elif n.op.kind == "elementwise" or comes_later(n):
            for f in dict.fromkeys(of[a] for a in n.operands if a in of):
                of[n] = joined = _joined(of, of.get(n, f), f)
                joined.between[n] = None
    order = {n: k for k, n in enumerate(nodes)}
    families = [f for f in dict.fromkeys(of.values()) if any(c.op.kind == "reduction" for n in f.between for c in uses[n])]
    for f in families:
        f.between = dict.fromkeys(sorted(f.between, key=order.__getitem__))
        for n in f.between:
            if n in results or not (n.dtype is bool_ or n.dtype.is_float and n.dtype.bits <= 32):
                f.why = f"{n.op.name} {n.type} is a result" if n in results else f"{n.op.name} gives {n.dtype}"
            for c in uses[n]:
                if c not in f.between and n in c.operands:
                    f.why = _reader(f, n, c) or f.why
    return families


def _joined(of: dict[Node, Family], one: Family, other: Family) -> Family:
    if one is other:
        return one
    into, gone = (one, other) if len(one.between) >= len(other.between) else (other, one)
    into.inner += gone.inner
    into.between.update(gone.between)
    of.update(dict.fromkeys(gone.between, into))
    return into


def _is_inner(n: Node) -> bool:
    return n.op.kind == "contraction" and n.dtype.is_float and len(n["contract"][0]) == 1 and n.rank == len(n["batch"][0]) + 2 \
        and all(len(d) == 1 for d in free_dimensions(n))


def _reader(f: Family, n: Node, c: Node) -> str | None:
    """Adds a reader of what lies between to its family; says why that cannot be."""
    if c.op.kind == "reduction" and c["axes"] == (n.rank - 1,):
        f.rows += [c] * (c not in f.rows)
        return None
    if c.op.kind != "contraction" or all(a in f.between for a in c.args):
        return f"{c.op.name} reads it, too"
    side = c.args.index(n)
    batch, contract = c["batch"][side], c["contract"][side]
    if batch != tuple(range(n.rank - 2)) or len(contract) != 1:
        return "a contraction reads it along other dimensions"
    f.outer.append(Outer(c, side, contract[0] == n.rank - 2))
    return None


# ------------------------------------------------------------------------------------------------ whether, and how it is put together


def _behind(f: Family, rows: Sequence[Node]) -> set[Node]:
    """What is made of these reductions."""
    late: set[Node] = set()
    for n in f.between:
        if any(a in late or base(a) in rows for a in n.operands):
            late.add(n)
    return late


class _Trial:
    """Asks the machine, with parameters in place of what lies in memory; what is equal once."""

    def __init__(self, options: FusionOptions, machine: Machine):
        self.options, self.machine = options, machine
        self.params: dict[tuple[int, Type], Node] = {}
        self.known: dict[tuple[Node, ...], str | None] = {}

    def __call__(self, f: Family) -> str | None:
        """Why what lies between has to be stored; finds out which of the outer contractions is the forward one."""
        seen: dict[Node, Node] = {}

        def leaf(n: Node) -> Node:
            if n not in seen:
                key = len(seen), Type(f32, n.shape) if n in f.rows else n.type
                seen[n] = self.params.setdefault(key, parameter(key[1], f"p{key[0]}", key[0]))
            return seen[n]

        start = Builder(f, leaf)
        products = {r: found[1] for r in f.rows if (found := start.linear(r)) is not None}
        rows = [r for r in f.rows if r not in products]
        early, late = _behind(f, rows), _behind(f, list(products))
        f.forward = next((o for o in f.outer if not o.turned and o.side == 0 and o.wide in early and o.wide not in late), None)
        forward = dict.fromkeys([*([start.outer(f.forward, start.read(f.forward.other))] if f.forward else []), *products.values()])
        if len(forward) != 1:
            return "one contraction has to read the rows that are reduced, with nothing else between" if forward else \
                "no contraction reads the rows that are reduced"
        results = [(*forward, *dict.fromkeys(start.reduced(r) for r in rows))]
        for o in f.outer:
            if o is not f.forward:
                other = start.read(o.other)
                results.append((base(_again(f, leaf, leaf, base(other)).outer(o, other)),))
        return next((why for r in results if (why := self.kernels(r)) is not None), None)

    def kernels(self, results: tuple[Node, ...]) -> str | None:
        """Why there is not one kernel for these results."""
        if results not in self.known:
            graph = Graph(tuple(n for n in Graph((), results).nodes() if n.op.name == "parameter"), results)
            groups = tile(fuse(graph, self.options), graph, self.options, self.machine).groups
            last = next(g for g in groups if results[0] in g.roots)
            whys = [why for g in groups for n, why in g.why.items() if n.op.kind in ("elementwise", "reduction")]
            single = last.tiling is not None and all(g is last or g.kind == "map" for g in groups)
            self.known[results] = None if single else next(iter(last.why.values()), whys[-1] if whys else "there is no kernel for it")
        return self.known[results]


def _again(f: Family, leaf: Callable[[Node], Node], row: Callable[[Node], Node], token: Node, times: int = 1) -> Builder:
    """Computes everything once more for a contraction with something made of ``token``: for no other one."""
    after, barrier = [token] * times, lookup("optimization_barrier")
    return Builder(f, lambda n: barrier(leaf(n), *after), lambda r: barrier(row(r), *after))


def _rebuilt(graph: Graph, families: Sequence[Family]) -> Graph:
    new: dict[Node, Node] = {}
    work: dict[Node, Callable[[], Node]] = {}
    gone = {n for f in families for n in f.between}
    for f in families:
        work.update(_work(f, new))
    for n in graph.nodes():
        if n in work:
            new[n] = work[n]()
        elif n not in gone:
            args = tuple(new[a] for a in n.args if a in new or a in n.operands)
            new[n] = n if args == n.args else make(n.op, args, n.type, n.attrs, n.loc)
    return Graph(graph.params, tuple(new[r] for r in graph.results), graph.name)


def _work(f: Family, new: dict[Node, Node]) -> dict[Node, Callable[[], Node]]:
    """What becomes of the outer contractions and the reductions; ``new`` has what they are made of by the time they are asked for."""
    start = Builder(f, new.__getitem__)
    tokens: list[Node] = []

    def outer(o: Outer) -> Node:
        if o is f.forward:
            return start.outer(o, new[o.other])
        token = new[base(o.other)]
        tokens.append(token)
        return _again(f, new.__getitem__, start.reduced, token, tokens.count(token)).outer(o, new[o.other])

    return {**{r: lambda r=r: cast_like(start.reduced(r), r) for r in f.rows},  # type: ignore[misc]
            **{o.dot: lambda o=o: outer(o) for o in f.outer}}  # type: ignore[misc]


__all__ = ["is_again", "recompute", "refusals"]
