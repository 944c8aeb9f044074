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

where the inner sum is the forward pass's result. An outer contraction that sums over rows gets everything transposed. Halves are widened
between the contractions, as kernels compute there in f32, so vectors are in f32.

It is done where the machine has one kernel for each of the outer contractions (asked with ``tile``, on the part of the graph alone), and for
all readers of what lies between; else nothing changes, and ``refusals`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node, full, make, parameter
from xlc.ir.op import lookup
from xlc.ir.types import Size, Type, bool_, f32

from .fuse import FusionOptions, fuse
from .group import is_free
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
    token, seen, waiting = _base(dot.args[1]), {dot.args[0]}, [dot.args[0]]
    while waiting:
        n = waiting.pop()
        if _comes_later(n) and token in n.args[1:]:
            return True
        new = [a for a in n.operands if a not in seen and n.op.kind in ("elementwise", "contraction", "view")]
        seen.update(new)
        waiting += new
    return False


def _comes_later(n: Node) -> bool:
    return len(n.operands) < len(n.args)


# ------------------------------------------------------------------------------------------------ what there is


@dataclass(frozen=True)
class _Outer:
    """A contraction that reads something wide, as operand ``side``; ``turned``: it sums over its rows."""

    dot: Node
    side: int
    turned: bool

    @property
    def wide(self) -> Node:
        return self.dot.args[self.side]

    @property
    def other(self) -> Node:
        return self.dot.args[1 - self.side]


@dataclass(eq=False)
class _Family:
    """Inner contractions, everything elementwise that is made of them, and who reads it. ``why``: the reason to store it."""

    inner: list[Node] = field(default_factory=list)
    between: dict[Node, None] = field(default_factory=dict)
    outer: list[_Outer] = field(default_factory=list)
    rows: list[Node] = field(default_factory=list)
    forward: _Outer | None = None  # the one that is computed together with the reductions of rows
    why: str | None = None

    @property
    def shown(self) -> str:
        return f"{self.inner[0].op.name} {self.inner[0].type}"


def _families(graph: Graph, options: FusionOptions, machine: Machine) -> Iterator[_Family]:
    """Those of which rows are reduced and that several contractions read."""
    if not options.tiles or options.strict or machine.stacked:
        return
    trial = _Trial(options, machine)
    for f in _found(graph):
        if len(f.outer) > 1 and f.rows:
            if f.why is None:
                f.why = trial(f)
            yield f


def _found(graph: Graph) -> list[_Family]:
    nodes, uses, results = graph.nodes(), graph.uses(), set(graph.results)
    of: dict[Node, _Family] = {}
    for n in nodes:
        if _is_inner(n):
            of[n] = _Family([n], {n: None})
        elif n.op.kind == "elementwise" or _comes_later(n):
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


def _joined(of: dict[Node, _Family], one: _Family, other: _Family) -> _Family:
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


def _reader(f: _Family, n: Node, c: Node) -> str | None:
    """Adds a reader of what lies between to its family; says why that cannot be."""
    if c.op.kind == "reduction" and c["axes"] == (n.rank - 1,):
        f.rows += [c] * (c not in f.rows)
        return None
    if c.op.kind != "contraction" or c.args[0] is c.args[1]:
        return f"{c.op.name} reads it, too"
    side = c.args.index(n)
    batch, contract = c["batch"][side], c["contract"][side]
    if batch != tuple(range(n.rank - 2)) or len(contract) != 1:
        return "a contraction reads it along other dimensions"
    f.outer.append(_Outer(c, side, contract[0] == n.rank - 2))
    return None


# ------------------------------------------------------------------------------------------------ how it is computed again


def _base(n: Node) -> Node:
    """What lies in memory, in front of views."""
    while n.op.kind == "view" and len(n.operands) == 1:
        n = n.args[0]
    return n


def _wide(x: Node) -> Node:
    return lookup("cast")(x, dtype=f32) if x.dtype.is_float and x.dtype is not f32 else x


def _cast(x: Node, like: Node) -> Node:
    return x if x.dtype is like.dtype else lookup("cast")(x, dtype=like.dtype)


class _Builder:
    """What lies between, in f32. ``leaf`` gives what stands for something in memory, ``row`` for a reduction of rows."""

    def __init__(self, family: _Family, leaf: Callable[[Node], Node], row: Callable[[Node], Node] | None = None):
        self.family, self.leaf = family, leaf
        self.row = row or self.reduced
        self.memo: dict[tuple[Node, bool], Node] = {}
        self.rows: dict[Node, Node] = {}

    def value(self, node: Node, turned: bool) -> Node:
        """``turned``: with its last two dimensions exchanged."""
        stack = [(node, False)]
        while stack:
            n, ready = stack.pop()
            if (n, turned) in self.memo:
                continue
            parts = self.parts(n)
            if ready or not parts:
                self.memo[(n, turned)] = self.made(n, [self.memo[(a, turned)] for a in parts], turned)
            else:
                stack.append((n, True))
                stack.extend((a, False) for a in parts)
        return self.memo[(node, turned)]

    def parts(self, n: Node) -> tuple[Node, ...]:
        """The arguments of which n is made again, at the same position."""
        return n.operands if n.op.kind == "elementwise" or n in self.family.between and _comes_later(n) else ()

    def made(self, n: Node, args: Sequence[Node], turned: bool) -> Node:
        if n.op.kind == "elementwise":
            narrowed = n.op.name == "cast" and n.dtype.is_float and args[0].dtype is f32
            return args[0] if narrowed else _wide(n.op(*args, **n.attributes))
        if args:  # behind a barrier
            return args[0]
        shape = _exchanged(n.shape) if turned else n.shape
        if n in self.family.between:
            (a, b), (lc, rc), (lb, rb) = map(self.operand, n.args), n["contract"], n["batch"]
            return n.op(b, a, contract=(rc, lc), batch=(rb, lb)) if turned else n.op(a, b, contract=(lc, rc), batch=(lb, rb))
        if n.op.name == "full":
            return full(Type(f32 if n.dtype.is_float else n.dtype, shape), n["value"])
        if n.op.name == "iota":
            return n.op(**{**n.attributes, "shape": shape, "axis": _exchange(n["axis"], n.rank) if turned else n["axis"]})
        if n.op.name == "broadcast" and not turned | ({n.rank - 1, n.rank - 2} <= set(n["axes"])):
            return n.op(self.vector(n.args[0]), shape=shape, axes=n["axes"])
        if n.op.name == "broadcast" and turned and not {n.rank - 1, n.rank - 2} <= set(n["axes"]):
            return n.op(self.vector(n.args[0]), shape=shape, axes=tuple(_exchange(a, n.rank) for a in n["axes"]))
        there = self.vector(n)
        return lookup("transpose")(there, axes=_exchanged(tuple(range(n.rank)))) if turned else there

    def vector(self, n: Node) -> Node:
        return self.row(n) if n in self.family.rows else _wide(self.read(n))

    def operand(self, n: Node) -> Node:
        """An operand of an inner contraction."""
        return _wide(self.read(n))

    def read(self, n: Node) -> Node:
        """What lies in memory, through the views in front of it."""
        views = []
        while n.op.kind == "view" and len(n.operands) == 1:
            views.append(n)
            n = n.args[0]
        found = n if is_free(n) else self.leaf(n)
        for v in reversed([v for v in views if not _comes_later(v)]):
            found = make(v.op, (found,), v.type, v.attrs, v.loc)
        return found

    # -- reductions and contractions --------------------------------------------------------------

    def reduced(self, r: Node) -> Node:
        """The reduction of rows, in f32."""
        if r not in self.rows:
            linear = self.linear(r)
            if linear is None:
                self.rows[r] = r.op(self.value(r.args[0], False), **r.attributes)
            else:
                left, product = linear
                self.rows[r] = r.op(lookup("multiply")(left, _wide(product)), axes=(product.rank - 1,))
        return self.rows[r]

    def linear(self, r: Node) -> tuple[Node, Node] | None:
        """(the left operand of an inner contraction, the contraction of the rest with its right operand) where r sums a product with it."""
        if r.op.name != "sum":
            return None
        summed = self.value(r.args[0], False)
        found = _peeled(summed, {self.memo[(d, False)] for d in self.family.inner if (d, False) in self.memo})
        if found is None:
            return None
        (a, b), (lc, _), (lb, rb) = found[0].args, found[0]["contract"], found[0]["batch"]
        (free,), (along,) = free_dimensions(found[0])
        right = b.args[0] if b.op.name == "cast" else b
        batch = tuple(range(len(lb)))
        product = found[0].op(_cast(found[1], right), right, contract=((r.args[0].rank - 1,), (along,)), batch=(batch, rb))
        axes = (*lb, free, *lc)
        return a if axes == tuple(range(a.rank)) else lookup("transpose")(a, axes=axes), product

    def outer(self, o: _Outer, other: Node) -> Node:
        """The outer contraction, of what is computed again as its left operand, which it sums along its rows."""
        rank, batch, rest = o.wide.rank, o.dot["batch"][0], 1 - o.side
        left = _cast(self.value(o.wide, o.turned), o.wide)
        found = o.dot.op(left, other, contract=((rank - 1,), o.dot["contract"][rest]), batch=(tuple(range(rank - 2)), o.dot["batch"][rest]))
        if o.side == 0:
            return found
        count = len(batch)
        return lookup("transpose")(found, axes=(*range(count), *range(count + 1, found.rank), count))


def _exchange(d: int, rank: int) -> int:
    return {rank - 1: rank - 2, rank - 2: rank - 1}.get(d, d)


def _exchanged(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    return (*shape[:-2], shape[-1], shape[-2])


def _peeled(e: Node, inner: set[Node], factor: Node | None = None) -> tuple[Node, Node] | None:
    """(the inner contraction in which e is linear, what it is multiplied by). Factors are applied from the outside in, so in the order that
    they have where e is the transpose of the function that was differentiated."""
    if e in inner:
        return None if factor is None else (e, factor)
    name, one = e.op.name, factor if factor is not None else full(e.type, 1.0)
    steps: list[tuple[Node, Callable[[], Node]]] = []
    if name == "multiply":
        steps = [(a, lambda b=b: b if factor is None else lookup("multiply")(factor, b)) for a, b in (e.args, e.args[::-1])]
    elif name == "divide":
        steps = [(e.args[0], lambda: lookup("divide")(one, e.args[1]))]
    elif name == "negative":
        steps = [(e.args[0], lambda: lookup("negative")(one))]
    elif name == "where" and e.args[2].op.name == "full" and float(e.args[2]["value"]) == 0:
        steps = [(e.args[1], lambda: lookup("where")(e.args[0], one, e.args[2]))]
    return next((found for a, times in steps if (found := _peeled(a, inner, times())) is not None), None)


# ------------------------------------------------------------------------------------------------ whether, and how it is put together


def _behind(f: _Family, rows: Sequence[Node]) -> set[Node]:
    """What is made of these reductions."""
    late: set[Node] = set()
    for n in f.between:
        if any(a in late or _base(a) in rows for a in n.operands):
            late.add(n)
    return late


class _Trial:
    """Asks the machine, with parameters in place of what lies in memory; what is equal once."""

    def __init__(self, options: FusionOptions, machine: Machine):
        self.options, self.machine = options, machine
        self.params: dict[tuple[int, Type], Node] = {}
        self.known: dict[Node, str | None] = {}

    def __call__(self, f: _Family) -> str | None:
        """Why what lies between has to be stored; finds out which of the outer contractions is the forward one."""
        seen: dict[Node, Node] = {}

        def leaf(n: Node) -> Node:
            if n not in seen:
                key = len(seen), Type(f32, n.shape) if n in f.rows else n.type
                seen[n] = self.params.setdefault(key, parameter(key[1], f"p{key[0]}", key[0]))
            return seen[n]

        start = _Builder(f, leaf)
        products = {r: found[1] for r in f.rows if (found := start.linear(r)) is not None}
        late = _behind(f, list(products))
        f.forward = next((o for o in f.outer if not o.turned and o.side == 0 and o.wide not in late), None)
        if f.forward is None and not products:
            return "no contraction reads the rows that are reduced"
        asked = [] if f.forward is None else [start.outer(f.forward, start.read(f.forward.other))]
        asked = list(dict.fromkeys([*asked, *products.values()]))
        results = [(asked[0], *(start.reduced(r) for r in f.rows if r not in products)), *((n,) for n in asked[1:])]
        for o in f.outer:
            if o is not f.forward:
                other = start.read(o.other)
                results.append((_base(_again(f, leaf, leaf, _base(other)).outer(o, other)),))
        return next((why for r in results if (why := self.kernels(r)) is not None), None)

    def kernels(self, results: tuple[Node, ...]) -> str | None:
        """Why there is not one kernel for these results."""
        if results[0] not in self.known:
            graph = Graph(tuple(n for n in Graph((), results).nodes() if n.op.name == "parameter"), results)
            groups = tile(fuse(graph, self.options), graph, self.options, self.machine).groups
            last = next(g for g in groups if results[0] in g.roots)
            whys = [why for g in groups for n, why in g.why.items() if n.op.kind in ("elementwise", "reduction")]
            single = last.tiling is not None and all(g is last or g.kind == "map" for g in groups)
            self.known[results[0]] = None if single else next(iter(last.why.values()), whys[-1] if whys else "there is no kernel for it")
        return self.known[results[0]]


def _again(f: _Family, leaf: Callable[[Node], Node], row: Callable[[Node], Node], token: Node, times: int = 1) -> _Builder:
    """Computes everything once more for a contraction with something made of ``token``: for no other one."""
    after, barrier = [token] * times, lookup("optimization_barrier")
    return _Builder(f, lambda n: barrier(leaf(n), *after), lambda r: barrier(row(r), *after))


def _rebuilt(graph: Graph, families: Sequence[_Family]) -> Graph:
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


def _work(f: _Family, new: dict[Node, Node]) -> dict[Node, Callable[[], Node]]:
    """What becomes of the outer contractions and the reductions; ``new`` has what they are made of by the time they are asked for."""
    start = _Builder(f, new.__getitem__)
    tokens: list[Node] = []

    def outer(o: _Outer) -> Node:
        if o is f.forward:
            return start.outer(o, new[o.other])
        token = new[_base(o.other)]
        tokens.append(token)
        return _again(f, new.__getitem__, start.reduced, token, tokens.count(token)).outer(o, new[o.other])

    return {**{r: lambda r=r: _cast(start.reduced(r), r) for r in f.rows},  # type: ignore[misc]
            **{o.dot: lambda o=o: outer(o) for o in f.outer}}  # type: ignore[misc]


__all__ = ["is_again", "recompute", "refusals"]
