"""The parser of graphs, and what it shares with that of kernels and plans (``parse_kernel``): tokens, sizes, types, attribute values.
The inverse of ``text``, whose docstring gives the grammar by example.

A tokenizer and recursive descent; nothing is ever evaluated as code. Types are taken from the text, not inferred (``verify`` compares).

    parse_graph("graph f(%x: f32[4]) { %0: f32[4] = add(%x, 1.0)  return %0 }")
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from ..errors import XlcValueError
from .node import Array, Graph, Node, full, make, parameter
from .op import OPS, Op
from .types import DTYPES, Dim, Size, Type

RESERVED = frozenset(DTYPES) | {"True", "False", "true", "false", "None", "inf", "nan", "graph", "op"}

_TOKEN = re.compile(r"""
    (?P<space>\s+) | (?P<comment>\#[^\n]*)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<number>(?:\d+\.(?!\.)\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+))
  | (?P<ref>%[A-Za-z0-9_.]+) | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<digest>@[0-9a-f]{16}) | (?P<symbol>->|\.\.|\*\*|//|<=|>=|==|!=|[-+*&|<>=:;,(){}\[\]])
""", re.VERBOSE)
_LOCATION = re.compile(r"#\s*(\S.*):(\d+)\s*$")


class Tokens:
    """The tokens of a text as (kind, text, line), and a place among them."""

    def __init__(self, text: str):
        self.at, self.locations = 0, dict[int, tuple[str, int]]()
        self.items: list[tuple[str, str, int]] = []
        position, line = 0, 1
        while position < len(text):
            m = _TOKEN.match(text, position)
            if m is None:
                raise XlcValueError(f"text, line {line}: found {text[position]!r}, expected something that xlc prints")
            kind, piece = str(m.lastgroup), m.group()
            if kind == "comment":
                where = _LOCATION.match(piece)
                if where:
                    self.locations[len(self.items)] = where[1], int(where[2])
            elif kind != "space":
                self.items.append((kind, piece, line))
            line += piece.count("\n")
            position = m.end()
        self.items.append(("end", "the end of the text", line))

    @property
    def kind(self) -> str:
        return self.items[self.at][0]

    @property
    def text(self) -> str:
        return self.items[self.at][1]

    def fail(self, expected: str) -> NoReturn:
        raise XlcValueError(f"text, line {self.items[self.at][2]}: found {self.text!r}, expected {expected}")

    def next(self) -> str:
        self.at += 1
        return self.items[self.at - 1][1]

    def peek(self, ahead: int = 1) -> str:
        return self.items[min(self.at + ahead, len(self.items) - 1)][1]

    def take(self, text: str) -> bool:
        """Whether this is the next token (it is then consumed)."""
        if self.text == text and self.kind != "string":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            self.fail(repr(text))

    def of(self, kind: str, what: str = "") -> str:
        if self.kind != kind:
            self.fail(what or f"a {kind}")
        return self.next()

    def integer(self) -> int:
        sign = -1 if self.take("-") else 1
        text = self.of("number", "an integer")
        return sign * int(text) if text.isdigit() else self.fail("an integer")

    def string(self, default: str = "") -> str:
        return str(json.loads(self.next())) if self.kind == "string" else default

    def listed(self, item: Callable[[], Any], close: str) -> list[Any]:
        """Items with commas between them up to the closing token, which is consumed."""
        out = []
        while not self.take(close):
            out.append(item())
            if not self.take(","):
                self.expect(close)
                break
        return out

    def operator(self, name: str) -> Op:
        import xlc.ops  # noqa: F401  (fills the table)

        return OPS[name] if name in OPS else self.fail(f"the name of an operator (there is no operator {name})")


class Values(Tokens):
    """Sizes, types and attribute values."""

    def __init__(self, text: str, constants: Mapping[str, np.ndarray] | None = None):
        super().__init__(text)
        self.constants = constants or {}
        self.graphs: dict[str, Graph] = {}  # those inside attributes, by name

    def type(self) -> Type:
        name = self.of("name", "a dtype")
        if name not in DTYPES:
            self.fail(f"a type ({name} is no dtype)")
        self.expect("[")
        return Type(DTYPES[name], tuple(self.listed(self.size, "]")))

    def size(self) -> Size:
        value = self.value(sizes=True)
        return value if isinstance(value, (int, Dim)) else self.fail("a size")

    def value(self, sizes: bool = False) -> Any:
        """An attribute value, or arithmetic on sizes (in which the reserved words are plain names)."""
        left = self._product(sizes)
        while self.kind == "symbol" and self.text in "+-":
            left = left + self._product(sizes) if self.next() == "+" else left - self._product(sizes)
        return left

    def _product(self, sizes: bool) -> Any:
        left = self._power(sizes)
        while self.kind == "symbol" and self.text in ("*", "//"):
            left = left * self._power(sizes) if self.next() == "*" else left // self._power(sizes)
        return left

    def _power(self, sizes: bool) -> Any:
        base = self._atom(sizes)
        if not self.take("**"):
            return base
        out: Any = 1
        for _ in range(self.integer()):
            out = base * out
        return out

    def _atom(self, sizes: bool) -> Any:
        kind = self.kind
        if kind == "number":
            return number_of(self.next())
        if kind == "string":
            return self.string()
        if self.take("-"):
            return -self._atom(sizes)
        if self.take("<"):
            inner = self.size()
            self.expect(">")
            return inner
        if self.take("("):
            items, comma = [], False
            while not self.take(")"):
                items.append(self.value(sizes))
                comma = self.take(",")
                if not comma:
                    self.expect(")")
                    break
            return items[0] if len(items) == 1 and not comma else tuple(items)
        name = self.of("name", "a value")
        if sizes or name not in RESERVED:
            return Dim.named(name)
        if name in DTYPES:
            return self._typed(name)
        if name == "graph":
            if self.peek() != "(":
                known = self.of("name", "the name of a graph")
                return self.graphs.get(known) or self.fail(f"a graph named {known} to be written out before this")
            self.at -= 1
            inner = _GraphParser.inside(self)
            self.graphs[inner.name] = inner
            return inner
        if name == "op":
            return self.operator(self.of("name"))
        return {"True": True, "true": True, "False": False, "false": False, "None": None, "inf": float("inf"), "nan": float("nan")}[name]

    def _typed(self, name: str) -> Any:
        """A dtype, a type or an array."""
        if self.text != "[":
            return DTYPES[name]
        self.at -= 1
        t = self.type()
        if self.kind == "digest":
            key = self.next()[1:]
            if key not in self.constants:
                self.fail(f"constants={{{key!r}: array}} to be given for the constant {t} before this")
            return Array(self.constants[key])
        if self.take("{"):
            items = self.listed(self.value, "}")
            flat = np.array(items, np.float64).astype(t.dtype.numpy) if t.dtype.is_float else np.array(items, t.dtype.numpy)
            return Array(flat.reshape(t.shape))
        return t

    def attributes(self, close: str) -> list[tuple[str, Any]]:
        def one() -> tuple[str, Any]:
            name = self.of("name", "an attribute")
            self.expect("=")
            return name, self.value()

        return self.listed(one, close)


def number_of(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


# ------------------------------------------------------------------------------------------------ graphs


class _GraphParser(Values):
    @staticmethod
    def inside(tokens: Values) -> Graph:
        """A graph in the middle of another text (an attribute)."""
        inner = _GraphParser.__new__(_GraphParser)
        inner.__dict__ = tokens.__dict__  # one position for both
        return inner.graph()

    def graph(self) -> Graph:
        self.expect("graph")
        name = self.of("name", "the name of the graph")
        nodes: dict[str, Node] = {}

        def param() -> Node:
            ref = self.of("ref", "a parameter")
            self.expect(":")
            t = self.type()
            nodes[ref] = parameter(t, self.string(ref[1:]), len(nodes))
            return nodes[ref]

        self.expect("(")
        params = tuple(self.listed(param, ")"))
        self.expect("{")
        while not self.take("return"):
            self._node(nodes)
        results = []
        while self.kind == "ref":
            results.append(self._named(nodes))
            self.take(",")
        self.expect("}")
        return Graph(params, tuple(results), name)

    def _named(self, nodes: Mapping[str, Node]) -> Node:
        ref = self.of("ref", "a node")
        if ref not in nodes:
            self.at -= 1
            self.fail("a name that is defined above")
        return nodes[ref]

    def _node(self, nodes: dict[str, Node]) -> None:
        ref = self.of("ref", "a node or return")
        self.expect(":")
        t = self.type()
        self.expect("=")
        op = self.operator(self.of("name", "an operator"))
        self.expect("(")
        args = self.listed(lambda: self._named(nodes) if self.kind == "ref" else self._atom(False), ")")
        like = next((a.type for a in args if isinstance(a, Node) and a.op.name != "full"), None)
        if like is None and any(not isinstance(a, Node) for a in args):
            self.fail("an argument beside the number, which gives it its type, before this")
        full_args = [a if isinstance(a, Node) else full(like, a) for a in args]  # type: ignore[arg-type]
        attrs = self.attributes("}") if self.take("{") else []
        if op.name == "full":
            nodes[ref] = full(t, dict(attrs)["value"])
        else:
            nodes[ref] = make(op, full_args, t, attrs, self.locations.get(self.at))


def parse_graph(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that prints as this text. ``constants`` gives the arrays that the text names by digest (``text.constants_of``)."""
    tokens = _GraphParser(text, constants)
    graph = tokens.graph()
    if tokens.kind != "end":
        tokens.fail("the end of the text")
    return graph
