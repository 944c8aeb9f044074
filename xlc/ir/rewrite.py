"""Rewrite rules that are data, and the driver that applies them.

    x = Var("x")
    Rule("multiply_one", P.multiply(x, 1), x)
    Rule("subtract_negative", P.subtract(x, P.negative(y)), P.add(x, y))
    Rule("transpose_twice", P.transpose(P.transpose(x, axes=a), axes=b), P.transpose(x, axes=lambda m: tuple(m.a[i] for i in m.b)))

A pattern is made of variables (any node; the same variable twice means the same node), numbers (a ``full`` of this very value: 0.0 is
not -0.0), ``Full("c")`` (any ``full``; ``m.c`` is its number) and operators; an attribute is a value to equal or a variable to bind, and
one that is not mentioned may be anything. Commutative operators match both ways round.

A replacement is a pattern whose attributes may be functions of the match, or a function from the match to a Node (or None: no match). In it
a number is a ``full`` of the type of what stands beside it (alone: of the root's type).

A node is looked at after its arguments, and what replaces it is looked at again, so one walk over the graph reaches the fixpoint and costs
time linear in the size of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .node import Graph, Node, apply, at_location, constant, full, make, parameter
from .op import lookup
from .types import DTYPES, DType, Type, bool_

__all__ = ["FLOATS", "INTEGERS", "NUMBERS", "SIGNED", "Arg", "Fill", "Full", "Match", "P", "Pattern", "Rewritten", "Rule", "Var",
           "example_nodes", "instantiate", "rewrite", "variables"]

COMMUTATIVE = frozenset({"add", "multiply", "minimum", "maximum", "equal", "not_equal", "bitwise_and", "bitwise_or", "bitwise_xor"})
FLOATS = tuple(d for d in DTYPES.values() if d.is_float)
INTEGERS = tuple(d for d in DTYPES.values() if d.is_int)
NUMBERS = INTEGERS + FLOATS
SIGNED = tuple(d for d in NUMBERS if d.signed)


@dataclass(frozen=True)
class Var:
    """Any node; or, as an attribute, any value."""

    name: str


@dataclass(frozen=True)
class Full:
    """Any tensor of one repeated value, of which ``m.name`` is the number. A ``condition`` on the number may be given."""

    name: str
    condition: Callable[[Any], bool] | None = None


@dataclass(frozen=True)
class Pattern:
    """An operator on patterns. ``op`` is "*" for any."""

    op: str
    args: tuple[Any, ...]
    attrs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Arg:
    """In an example: a parameter of this shape, of the dtype under test unless one is given. The same object is the same parameter."""

    shape: tuple[int, ...] = (37,)
    dtype: DType | None = None


@dataclass(frozen=True)
class Fill:
    """In an example: a ``full`` of this shape."""

    value: Any
    shape: tuple[int, ...] = (37,)


class _Operators:
    """``P.add(x, 1)`` is the pattern of the operator ``add`` on these."""

    def __getattr__(self, name: str) -> Callable[..., Pattern]:
        return lambda *args, **attrs: Pattern(name, args, tuple(attrs.items()))


P = _Operators()


class Match(dict[str, Any]):
    """What the variables stand for; ``m.x`` is ``m["x"]``. ``m.root`` is the node that matched."""

    __slots__ = ()
    root: Node

    def __getattr__(self, name: str) -> Any:
        return self[name]


Replacement = Var | Full | Pattern | int | float | Callable[[Match], Node | None]


@dataclass(frozen=True)
class Rule:
    """``pattern`` becomes ``replacement`` where ``when`` holds and the dtype of ``on`` (the first variable) is one of ``dtypes``.

    fast       changes results beyond rounding: left out unless the user asks for fast mathematics
    ulps       how much nearer to the truth, or further from it, the result may come to lie (0: the same bits)
    examples   for self-tests: patterns of ``Arg`` and ``Fill`` that this one matches. The default is the pattern itself on vectors.
    """

    name: str
    pattern: Any
    replacement: Replacement
    when: Callable[[Match], bool] | None = None
    fast: bool = False
    dtypes: tuple[DType, ...] = tuple(DTYPES.values())
    on: str = ""
    ulps: int = 0
    examples: tuple[Pattern, ...] = ()
    _names: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(d.name for d in self.dtypes))
        if not self.on:
            object.__setattr__(self, "on", next(iter(variables(self.pattern)), ""))

    def match(self, node: Node) -> Match | None:
        """The match of the pattern at this node, if there is one and all conditions hold."""
        m = Match(root=node)
        if not _match(self.pattern, node, m):
            return None
        on = m.get(self.on, node)
        if (on.dtype.name if isinstance(on, Node) else m[self.on + "_node"].dtype.name) not in self._names:
            return None
        return m if self.when is None or self.when(m) else None

    def apply(self, node: Node) -> Node | None:
        """What the node becomes under this rule; None where the rule does not match."""
        m = self.match(node)
        if m is None:
            return None
        out = instantiate(self.replacement, m)
        if out is not None and out.type != node.type:
            raise AssertionError(f"rule {self.name} turns {node} into {out}: a different type")
        return None if out is node else out


def variables(pattern: Any) -> list[str]:
    """The names of the node variables of a pattern, in order."""
    if isinstance(pattern, (Var, Full)):
        return [pattern.name]
    return list(dict.fromkeys(v for a in pattern.args for v in variables(a))) if isinstance(pattern, Pattern) else []


def _match(p: Any, node: Node, m: Match) -> bool:
    if type(p) is Var:
        return m.setdefault(p.name, node) is node
    if type(p) is Pattern:
        if node.op.name != p.op and p.op != "*":
            return False
        if p.attrs and not _match_attributes(p, node, m):
            return False
        if not p.args:
            return True
        if len(p.args) != len(node.args):
            return False
        if len(p.args) == 2 and p.op in COMMUTATIVE:
            before = Match(m)
            if _match(p.args[0], node.args[0], m) and _match(p.args[1], node.args[1], m):
                return True
            m.clear()
            m.update(before)
            return _match(p.args[0], node.args[1], m) and _match(p.args[1], node.args[0], m)
        return all(_match(q, a, m) for q, a in zip(p.args, node.args, strict=True))
    if node.op.name != "full":
        return False
    value = node["value"]
    if type(p) is Full:
        if p.condition is not None and not p.condition(value):
            return False
        m[p.name + "_node"] = node
        return _same(m.setdefault(p.name, value), value)
    return _same(float(p) if node.dtype.is_float else p, value) and (node.dtype.kind == "b") == isinstance(p, bool)


def _match_attributes(p: Pattern, node: Node, m: Match) -> bool:
    have = dict(node.attrs)
    for k, want in p.attrs:
        if k not in have:
            return False
        if type(want) is Var:
            if m.setdefault(want.name, have[k]) != have[k]:
                return False
        elif want != have[k]:
            return False
    return True


def _same(a: Any, b: Any) -> bool:
    """Equal numbers, where 0.0 is not -0.0."""
    return bool(a == b or float(a) == float(b)) and (float(a) != 0 or str(float(a)) == str(float(b)))


def instantiate(p: Replacement, m: Match) -> Node | None:
    """The node that a replacement (or pattern) stands for under these bindings."""
    out = _build(p, m)
    return out if out is None or isinstance(out, Node) else full(m.root.type, out)


def _build(p: Any, m: Match) -> Any:
    if isinstance(p, Var):
        return m[p.name]
    if isinstance(p, Full):
        return m.get(p.name + "_node", m[p.name])
    if isinstance(p, Pattern):
        attrs = {k: m[v.name] if isinstance(v, Var) else v(m) if callable(v) else v for k, v in p.attrs}
        return apply(lookup(p.op), [_build(a, m) for a in p.args], attrs)
    return p(m) if callable(p) else p


def example_nodes(rule: Rule, dtype: DType) -> list[Node]:
    """The nodes that the rule's examples stand for, for the dtype of ``rule.on``. In patterns the variable ``c`` is a condition (bool)."""
    made: dict[Any, Node] = {}

    def build(p: Any) -> Any:
        if isinstance(p, (Arg, Var)):
            if p not in made:
                shape, own = (p.shape, p.dtype or dtype) if isinstance(p, Arg) else ((37,), bool_ if p.name == "c" else dtype)
                made[p] = parameter(Type(own, shape), f"x{len(made)}", len(made))
            return made[p]
        if isinstance(p, Fill):
            return full(Type(dtype, p.shape), p.value)
        if isinstance(p, Pattern):
            attrs: dict[str, Any] = {k: dtype if v is DType else v for k, v in p.attrs}
            if p.op == "constant":
                return constant(attrs["value"].value)
            return apply(lookup(p.op), [build(a) for a in p.args], attrs)
        return p

    return [build(e) for e in rule.examples or (rule.pattern,)]


# ------------------------------------------------------------------------------------------------ driver


@dataclass(frozen=True)
class Rewritten:
    """The new graph, and how often each rule was applied."""

    graph: Graph
    hits: Counter[str]


def rewrite(graph: Graph, rules: Sequence[Rule], limit: int = -1) -> Rewritten:
    """Apply the rules (the first that matches, at each node) until none matches. ``limit`` stops after so many applications (-1: never),
    for finding a rule at fault by bisection. Graphs inside attributes (the bodies of control flow) are left alone."""
    driver = _Driver(rules, limit)
    return Rewritten(driver.graph(graph), driver.hits)


class _Driver:
    def __init__(self, rules: Iterable[Rule], limit: int):
        self.by_op: dict[str, list[Rule]] = {}
        self.any: list[Rule] = []
        for r in rules:
            if r.pattern.op == "*":
                self.any.append(r)
            else:
                self.by_op.setdefault(r.pattern.op, []).append(r)
        self.hits: Counter[str] = Counter()
        self.limit = limit
        self.applied = 0

    def graph(self, g: Graph) -> Graph:
        nodes = g.nodes()
        budget = self.applied + 20 * len(nodes) + 200  # a circle of rules ends here
        normal: dict[Node, Node] = {p: p for p in g.params}
        for n in nodes:
            self.normalise(n, normal, budget)
        results = tuple(normal[r] for r in g.results)
        return g if results == g.results else Graph(g.params, results, g.name)

    def normalise(self, root: Node, normal: dict[Node, Node], budget: int) -> None:
        """Enter the normal form of a node, and of what it is made of."""
        becomes: dict[Node, Node] = {}  # one step
        stack = [root]
        while stack:
            n = stack[-1]
            if n in normal:
                stack.pop()
                continue
            missing = [a for a in n.args if a not in normal]
            if missing:
                normal.update((a, a) for a in missing if a in becomes)  # made of itself: a circle of rules
                stack.extend(a for a in missing if a not in becomes)
                continue
            if n not in becomes:
                args = tuple([normal[a] for a in n.args])
                becomes[n] = (self.step(n, budget) or n) if args == n.args else make(n.op, args, n.type, n.attrs, n.loc)
            following = becomes[n]
            if following is n:
                normal[n] = n
            elif following in normal:
                normal[n] = normal[following]
            elif following in becomes:
                normal[n] = n  # a circle of rules
            else:
                stack.append(following)

    def step(self, n: Node, budget: int) -> Node | None:
        if 0 <= self.limit <= self.applied or self.applied >= budget:
            return None
        with at_location(n.loc):
            for r in (*self.by_op.get(n.op.name, ()), *self.any):
                out = r.apply(n)
                if out is not None:
                    self.hits[r.name] += 1
                    self.applied += 1
                    return out
        return None
