"""The Graph: SSA over tensors.

    graph f(%x: f32[64,784], %w: f32[784,10]) {
      %0: f32[64,10] = dot(%x, %w) {contract=((1,), (0,)), batch=((), ())}    # user.py:12
      return %0
    }

A ``Node`` is hash-consed: the same operator on the same arguments with the same attributes is the same object, so equality
is identity and common subexpressions do not exist. The source location that made a node first is kept beside it and is not part
of its identity. Nothing is implicit: shapes and dtypes agree exactly (the front end inserts ``broadcast`` and ``cast``).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .op import Op, lookup
from .types import DType, Type

Location = tuple[str, int]  # file, line


class Array:
    """An array held by a graph (a captured constant). Small ones are equal by content, large ones by identity; read-only."""

    __slots__ = ("__weakref__", "_key", "value")

    def __init__(self, value: np.ndarray):
        self.value = value
        small = value.nbytes <= 256
        self._key = (value.dtype.str, str(value.dtype), value.shape, value.tobytes()) if small else id(value)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self._key == other._key

    def __repr__(self) -> str:
        return f"Array({self.value.dtype}, {self.value.shape})"


class Node:
    """One operation. ``attrs`` is a sorted tuple of (name, hashable value)."""

    __slots__ = ("__weakref__", "args", "attrs", "loc", "op", "type")
    op: Op
    args: tuple[Node, ...]
    attrs: tuple[tuple[str, Any], ...]
    type: Type
    loc: Location | None

    def __getitem__(self, attr: str) -> Any:
        for k, v in self.attrs:
            if k == attr:
                return v
        raise KeyError(attr)

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.attrs)

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.type}>"

    # Arithmetic for declarations (vjp, decompose, rules): operands of one type, or Python numbers.
    def _binary(name: str, swap: bool = False) -> Callable[[Any, Any], Any]:  # type: ignore[misc]
        def method(self: Node, other: Any) -> Any:
            return lookup(name)(other, self) if swap else lookup(name)(self, other)

        return method

    __add__, __radd__ = _binary("add"), _binary("add", True)
    __sub__, __rsub__ = _binary("subtract"), _binary("subtract", True)
    __mul__, __rmul__ = _binary("multiply"), _binary("multiply", True)
    __truediv__, __rtruediv__ = _binary("divide"), _binary("divide", True)
    __and__, __or__, __xor__ = _binary("bitwise_and"), _binary("bitwise_or"), _binary("bitwise_xor")
    __lt__, __le__, __gt__, __ge__ = _binary("less"), _binary("less_equal"), _binary("greater"), _binary("greater_equal")

    def __neg__(self) -> Node:
        return lookup("negative")(self)

    def __invert__(self) -> Node:
        return lookup("bitwise_not")(self)


_interned: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_current = threading.local()


class at_location:
    """Nodes built inside carry this location: ``with at_location(("user.py", 12)): ...``"""

    __slots__ = ("loc", "previous")

    def __init__(self, loc: Location | None):
        self.loc = loc

    def __enter__(self) -> None:
        self.previous = getattr(_current, "loc", None)
        _current.loc = self.loc

    def __exit__(self, *exc: object) -> None:
        _current.loc = self.previous


def make(op: Op, args: Sequence[Node], type: Type, attrs: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
         loc: Location | None = None) -> Node:
    """The node with these parts: the one that exists, or a new one. The type is given (see ``apply`` for inference)."""
    attrs = tuple(sorted(attrs.items())) if isinstance(attrs, Mapping) else tuple(attrs)
    args = tuple(args)
    key = (op.name, args, attrs, type)
    with _lock:
        node = _interned.get(key)
        if node is None:
            node = Node()
            node.op, node.args, node.attrs, node.type = op, args, attrs, type
            node.loc = loc if loc is not None else getattr(_current, "loc", None)
            _interned[key] = node
    return node


def apply(op: Op, args: Sequence[Any], attrs: Mapping[str, Any]) -> Node:
    """Build ``op(*args, **attrs)`` over Nodes; Python numbers among the arguments become constants of the first Node's type."""
    like = next((a for a in args if isinstance(a, Node)), None)
    nodes = [a if isinstance(a, Node) else full_like(like, a) for a in args]
    return make(op, nodes, op.infer(*(n.type for n in nodes), **attrs), attrs)


def outputs(op: Op, args: Sequence[Node], **attrs: Any) -> list[Node]:
    """All results of one call of an operator with several."""
    assert op.results is not None
    types = op.results(*(a.type for a in args), **attrs)
    return [make(op, args, t, {**attrs, "output": i}) for i, t in enumerate(types)]


class Call(NamedTuple):
    """What the outputs of one call of an operator with several have in common."""

    op: Op
    args: tuple[Node, ...]
    attrs: tuple[tuple[str, Any], ...]


def call_of(node: Node) -> Call:
    """The call that the node is an output of."""
    return Call(node.op, node.args, tuple([a for a in node.attrs if a[0] != "output"]))


def full_like(like: Node | None, value: Any) -> Node:
    if like is None:
        raise TypeError("an operator needs at least one Node among its arguments")
    return full(like.type, value)


def full(type: Type, value: Any) -> Node:
    """A tensor of one repeated value: ``full() {value, shape, dtype}``. The value is kept as a Python number of the dtype."""
    value = type.dtype.numpy.type(value).item() if not isinstance(value, (bool, int, float)) or type.dtype.kind != "f" \
        else float(type.dtype.numpy.type(value))
    if type.dtype.kind == "b":
        value = bool(value)
    elif type.dtype.is_int:
        value = int(value)
    key = _Bits(value) if isinstance(value, float) and (value != value or value == 0) else value  # nan equals itself, -0.0 differs from 0.0
    return make(lookup("full"), (), type, {"value": key, "shape": type.shape, "dtype": type.dtype})


class _Bits(float):
    """A float that compares by its bits, so that -0.0 and nan are distinct, equal-to-themselves attribute values."""

    def __eq__(self, other: object) -> bool:
        return type(other) is _Bits and self.hex() == other.hex()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.hex())


def constant(value: np.ndarray) -> Node:
    """A captured array: a ``full`` when it is one repeated value of rank 0, else ``constant() {value=Array}``."""
    from .types import dtype_of

    t = Type(dtype_of(value.dtype), value.shape)
    if value.ndim == 0:
        return full(t, value[()])
    return make(lookup("constant"), (), t, {"value": Array(value)})


@dataclass(frozen=True, eq=False)
class Graph:
    """Parameters in, results out. Parameters are nodes of the op ``parameter`` with attribute ``name`` (and ``index``)."""

    params: tuple[Node, ...]
    results: tuple[Node, ...]
    name: str = "main"

    def nodes(self) -> list[Node]:
        """Every node that the results need, arguments first, in a fixed order that follows the program. Iterative: no recursion limit."""
        order: list[Node] = []
        seen: set[int] = set()
        stack: list[tuple[Node, Iterator[Node]]] = []
        for root in (*self.params, *self.results):
            if id(root) in seen:
                continue
            seen.add(id(root))
            stack.append((root, iter(root.args)))
            while stack:
                node, rest = stack[-1]
                for arg in rest:
                    if id(arg) not in seen:
                        seen.add(id(arg))
                        stack.append((arg, iter(arg.args)))
                        break
                else:
                    order.append(node)
                    stack.pop()
        return order

    def everywhere(self) -> Iterator[Node]:
        """Every node of the graph and of the graphs inside it (the bodies of control flow)."""
        for n in self.nodes():
            yield n
            for body in bodies(n):
                yield from body.everywhere()

    def uses(self) -> dict[Node, list[Node]]:
        """For every node, the nodes that read it (a result is not a use)."""
        found: dict[Node, list[Node]] = {n: [] for n in self.nodes()}
        for n in found:
            for a in dict.fromkeys(n.args):
                found[a].append(n)
        return found

    def rebuild(self, rule: Callable[[Node, tuple[Node, ...]], Node | None], name: str | None = None) -> Graph:
        """A new graph in which every node is ``rule(node, new_args)``; None keeps the operation on the new arguments."""
        new: dict[Node, Node] = {p: p for p in self.params}
        for n in self.nodes():
            if n in new:
                continue
            args = tuple(new[a] for a in n.args)
            out = rule(n, args)
            if out is None:
                out = n if args == n.args else make(n.op, args, n.type, n.attrs, n.loc)
            new[n] = out
        return Graph(self.params, tuple(new[r] for r in self.results), name or self.name)

    def __str__(self) -> str:
        from .text import print_graph

        return print_graph(self)

    __repr__ = __str__


def bodies(n: Node) -> tuple[Graph, ...]:
    """The graphs that a node of control flow holds as attributes."""
    found: list[Graph] = []
    for _, v in n.attrs:
        found += [g for g in (v if isinstance(v, tuple) else (v,)) if isinstance(g, Graph)]
    return tuple(found)


def parameter(type: Type, name: str, index: int) -> Node:
    return make(lookup("parameter"), (), type, {"name": name, "index": index, "token": object()})
