"""The parser of graphs, kernels and plans: the inverse of ``text``, whose docstring gives the grammar by example.

A tokenizer and recursive descent; nothing is ever evaluated as code. Types are taken from the text, not inferred (``verify`` compares).

    parse_graph("graph f(%x: f32[4]) { %0: f32[4] = add(%x, 1.0)  return %0 }")
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from ..errors import XlcValueError
from . import loops
from .loops import Buffer, Expr, If, Kernel, Let, Local, Loop, Stmt, Store
from .node import Array, Graph, Node, full, make, parameter
from .op import OPS, Op
from .plan import PLACES, Launch, Plan, Slot
from .types import DTYPES, Dim, DType, Size, Type, bool_, i64

RESERVED = frozenset(DTYPES) | {"True", "False", "true", "false", "None", "inf", "nan", "graph", "op"}

_TOKEN = re.compile(r"""
    (?P<space>\s+) | (?P<comment>\#[^\n]*)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<number>(?:\d+\.(?!\.)\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+))
  | (?P<ref>%[A-Za-z0-9_.]+) | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<digest>@[0-9a-f]{16}) | (?P<symbol>->|\.\.|\*\*|//|<=|>=|==|!=|[-+*&|<>=:;,(){}\[\]])
""", re.VERBOSE)
_LOCATION = re.compile(r"#\s*(\S.*):(\d+)\s*$")
_INFIX = {"+": ("add", 5), "-": ("subtract", 5), "*": ("multiply", 6), "//": ("floor_divide", 6), "<": ("less", 4), "<=": ("less_equal", 4),
          ">": ("greater", 4), ">=": ("greater_equal", 4), "==": ("equal", 4), "!=": ("not_equal", 4), "&": ("bitwise_and", 3),
          "|": ("bitwise_or", 2)}
_LONG_NAMES = {"min": "minimum", "max": "maximum"}
_LOOP_KINDS = frozenset({"serial", "parallel", "vector", "unroll", "block", "thread"})


class _Tokens:
    """The tokens of a text as (kind, text, line), and a place among them."""

    def __init__(self, text: str):
        self.at, self.locations = 0, dict[int, tuple[str, int]]()
        self.items: list[tuple[str, str, int]] = []
        position, line = 0, 1
        while position < len(text):
            m = _TOKEN.match(text, position)
            if m is None:
                raise XlcValueError(f"text, line {line}: the character {text[position]!r} starts nothing that xlc prints")
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


class _Values(_Tokens):
    """Sizes, types and attribute values."""

    def __init__(self, text: str, constants: Mapping[str, np.ndarray] | None = None):
        super().__init__(text)
        self.constants = constants or {}

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
            self.at -= 1
            return _GraphParser.inside(self)
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
            return Array(np.array(items, np.float64 if t.dtype.is_float else None).astype(t.dtype.numpy).reshape(t.shape))
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


class _GraphParser(_Values):
    @staticmethod
    def inside(tokens: _Values) -> Graph:
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


# ------------------------------------------------------------------------------------------------ kernels


class _Scope:
    """Names that are visible in a body: variables, buffers, and the names of subexpressions."""

    def __init__(self, outer: _Scope | None = None, sizes: Iterable[str] = ()):
        self.exprs: dict[str, Expr] = dict(outer.exprs) if outer else {n: loops.expr(loops.SIZE, (), i64, (("name", n),)) for n in sizes}
        self.buffers: dict[str, Buffer] = dict(outer.buffers) if outer else {}


class _KernelParser(_Values):
    """``free`` lets names that nothing declares be i64 variables, and loads be from unknown buffers (for a lone expression)."""

    def __init__(self, text: str):
        super().__init__(text)
        self.scope = _Scope()
        self.free = False

    # Expressions. A number is kept as a Python value until what stands beside it gives it a dtype.

    def expression(self, like: DType | None = None) -> Expr:
        return self._typed_number(self._infix(0), like)

    def _typed_number(self, value: Any, like: DType | None) -> Expr:
        if isinstance(value, Expr):
            return value
        if isinstance(value, bool):
            return loops.const(value, bool_)
        if isinstance(value, float) and (like is None or not like.is_float):
            self.fail(f"a dtype for the number {value} before this, as in f32({value})")
        return loops.const(value, like or i64)

    def _infix(self, least: int) -> Any:
        left = self._operand()
        while self.kind == "symbol" and self.text in _INFIX and _INFIX[self.text][1] > least:
            name, rank = _INFIX[self.next()]
            right = self._infix(rank)
            if name == "subtract" and all(isinstance(x, int) or (isinstance(x, Expr) and x.dtype is i64) for x in (left, right)):
                # Canonical index arithmetic has sums of multiples only.
                name, right = "add", self._minus(right)
            left = self._apply(self.operator(name), [left, right], [])
        return left

    def _minus(self, value: Any) -> Any:
        if not isinstance(value, Expr):
            return -value
        times, factor = self.operator("multiply"), loops.const(-1)
        if value.op is times and value.args[1].is_const:
            value, factor = value.args[0], loops.const(-value.args[1].value)
        return self._apply(times, [value, factor], [])

    def _apply(self, op: Op, args: Sequence[Any], attrs: Sequence[tuple[str, Any]]) -> Expr:
        beside = args[1:] if op.name == "where" else args
        like = next((a.dtype for a in beside if isinstance(a, Expr) and not a.is_const), None)
        full_args = [self._typed_number(a, like) for a in args]
        try:
            dtype = op.scalar(*(a.dtype for a in full_args), **dict(attrs)) if op.scalar else full_args[0].dtype
        except (TypeError, KeyError, IndexError) as error:
            self.fail(f"arguments that fit {op.name} before this ({error})")
        return loops.expr(op, full_args, dtype, sorted(attrs))

    def _operand(self) -> Any:
        if self.kind == "number":
            return number_of(self.next())
        if self.take("-"):
            word = self.next()
            value = float(word) if word in ("inf", "nan") else number_of(word) if word[0].isdigit() else self.fail("a number before this")
            return -value
        if self.take("("):
            inner = self._infix(0)
            self.expect(")")
            return inner
        if self.kind == "ref":
            return self._variable(self.next())
        name = self.of("name", "an expression")
        if self.text == "[" and name not in DTYPES:
            return self._load(name)
        if self.take("("):
            return self._call(name)
        if name in ("true", "false"):
            return name == "true"
        return float(name) if name in ("inf", "nan") else self._variable(name)

    def _variable(self, name: str) -> Expr:
        found = self.scope.exprs.get(name)
        if found is None:
            if not self.free or name.startswith("%"):
                self.at -= 1
                self.fail("a name that is declared")
            return loops.var(name)
        return found

    def _call(self, name: str) -> Any:
        if name in DTYPES:
            value = self._infix(0)
            self.expect(")")
            return value if isinstance(value, Expr) else loops.const(value, DTYPES[name])
        if name == "size":
            size = self.of("name", "a named size")
            self.expect(")")
            return loops.expr(loops.SIZE, (), i64, (("name", size),))
        args, attrs = [], []
        while not self.take(")"):
            if self.kind == "name" and self.peek() == "=":
                attribute = self.next()
                self.expect("=")
                attrs.append((attribute, self.value()))
            else:
                args.append(self._infix(0))
            if not self.take(","):
                self.expect(")")
                break
        op = self.operator(_LONG_NAMES.get(name, name))
        return self._apply(op, args, attrs)

    def _load(self, name: str) -> Expr:
        buffer = self._buffer_named(name)
        index, mask = self._index()
        return loops.expr(loops.LOAD, [*index, *([mask] if mask is not None else [])], buffer.dtype,
                          (("buffer", buffer), ("masked", mask is not None)))

    def _index(self) -> tuple[list[Expr], Expr | None]:
        index, mask = [], None
        self.expect("[")
        while not self.take("]"):
            if self.take("where"):
                mask = self.expression(bool_)
                self.expect("]")
                break
            index.append(self.expression(i64))
            if self.text not in ("where", "]"):
                self.expect(",")
        return index, mask

    def _buffer_named(self, name: str) -> Buffer:
        if name not in self.scope.buffers:
            self.fail(f"a declared buffer ({name} is not) before this")
        return self.scope.buffers[name]

    # Statements.

    def kernel(self) -> Kernel:
        self.expect("kernel")
        name = self.of("name", "the name of the kernel")
        ins: list[Buffer] = []
        outs: list[Buffer] = []

        def argument() -> None:
            which = ins if self.take("in") else outs if self.take("out") else self.fail("in or out")
            which.append(self._declared())

        self.scope = _Scope()
        self.expect("(")
        self.listed(argument, ")")
        buffers = self.scope.buffers
        sizes = tuple(self._parenthesised("sizes", lambda: self.of("name")))
        inplace = tuple(self._parenthesised("inplace", self.pair))
        note = self.string()
        self.scope = _Scope(None, sizes)
        self.scope.buffers = buffers
        return Kernel(name, tuple(ins), tuple(outs), sizes, self._block(), inplace, note)

    def _parenthesised(self, word: str, item: Callable[[], Any]) -> list[Any]:
        if not self.take(word):
            return []
        self.expect("(")
        return self.listed(item, ")")

    def pair(self) -> tuple[int, int]:
        first = self.integer()
        self.expect(":")
        return first, self.integer()

    def _declared(self) -> Buffer:
        name = self.of("name", "a buffer")
        self.expect(":")
        t = self.type()
        space = self.next() if self.text in ("register", "stack", "shared") else "global"
        buffer = self.scope.buffers[name] = Buffer(name, t.dtype, t.shape, space)
        return buffer

    def _block(self, variable: tuple[str, Expr] | None = None) -> tuple[Stmt, ...]:
        outer = self.scope
        self.scope = _Scope(outer)
        if variable:
            self.scope.exprs[variable[0]] = variable[1]
        body: list[Stmt] = []
        self.expect("{")
        while not self.take("}"):
            if self.kind == "ref":
                self._named_subexpression()
            else:
                body.append(self._statement())
        self.scope = outer
        return tuple(body)

    def _named_subexpression(self) -> None:
        ref = self.next()
        self.expect("=")
        self.scope.exprs[ref] = self.expression()

    def _statement(self) -> Stmt:
        word = self.of("name", "a statement")
        if self.text == "[":
            buffer = self._buffer_named(word)
            index, _ = self._index()
            self.expect("=")
            value = self.expression(buffer.dtype)
            return Store(buffer, tuple(index), value, self.expression(bool_) if self.take("where") else None)
        if word == "let":
            name = self.of("name")
            self.expect(":")
            dtype = DTYPES.get(self.of("name", "a dtype")) or self.fail("a dtype")
            self.expect("=")
            value = self.expression(dtype)
            self.scope.exprs[name] = loops.var(name, dtype)
            return Let(name, value)
        if word == "local":
            return Local(self._declared())
        if word == "if":
            condition = self.expression(bool_)
            body = self._block()
            return If(condition, body, self._block() if self.take("else") else ())
        if word not in _LOOP_KINDS:
            self.at -= 1
            self.fail("let, local, if, a loop or a store")
        name = self.of("name", "a loop variable")
        self.expect("in")
        start = self.expression(i64)
        self.expect("..")
        stop = self.expression(i64)
        step = self.integer() if self.take("step") else 1
        width = self.integer() if self.take("width") else 0
        return Loop(name, start, stop, step, word, self._block((name, loops.var(name))), width)


def parse_kernel(text: str) -> Kernel:
    """The kernel that prints as this text."""
    tokens = _KernelParser(text)
    kernel = tokens.kernel()
    if tokens.kind != "end":
        tokens.fail("the end of the text")
    return kernel


def parse_expr(text: str, buffers: Iterable[Buffer] = (), variables: Iterable[Expr] = (), sizes: Iterable[str] = ()) -> Expr:
    """The expression that prints as this text. Names that are given nowhere are i64 variables."""
    tokens = _KernelParser(text)
    tokens.scope, tokens.free = _Scope(None, sizes), True
    tokens.scope.buffers.update((b.name, b) for b in buffers)
    tokens.scope.exprs.update((str(v["name"]), v) for v in variables)
    while tokens.kind == "ref" and tokens.peek() == "=":
        tokens._named_subexpression()
        tokens.take(";")
    e = tokens.expression()
    if tokens.kind != "end":
        tokens.fail("the end of the text")
    return e


# ------------------------------------------------------------------------------------------------ plans


def parse_plan(text: str, kernels: Sequence[Kernel] = (), constants: Mapping[str, np.ndarray] | None = None) -> Plan:
    """The plan that prints as this text; its kernels follow in the text, or are given, in the order of ``Plan.kernels``."""
    t = _KernelParser(text)
    t.constants = constants or {}
    t.expect("plan")
    name = t.of("name", "the name of the plan")
    sizes = tuple(t._parenthesised("sizes", lambda: t.of("name")))
    donated = tuple(t._parenthesised("donated", t.pair))
    slots: list[Slot] = []
    arrays: list[Array] = []
    launches: list[Launch] = []
    notes: list[str] = []

    def reference() -> str:
        return t.of("ref", "a slot")[1:]

    t.expect("{")
    while not t.take("}"):
        if t.kind == "ref":
            slot = reference()
            t.expect(":")
            slot_type = t.type()
            t.expect("=")
            place = t.next() if t.text in PLACES else t.fail("a place: " + ", ".join(PLACES))
            slots.append(Slot(slot, slot_type, place, t.size()))
        elif t.text == "data" and t.peek() != "(":
            t.at += 1
            t.integer()
            t.expect("=")
            arrays.append(t.value())
        elif t.text == "note" and t.peek() != "(":
            t.at += 1
            notes.append(t.string())
        else:
            kernel = t.of("name", "a slot, a launch or }")
            t.expect("(")
            inputs = tuple(t.listed(reference, ")"))
            t.expect("->")
            t.expect("(")
            launches.append(Launch(kernel, inputs, tuple(t.listed(reference, ")")), t.string()))
    t.expect("arena")
    arena = t.size()
    t.expect("bound")
    bound = t.size()
    own = []
    while t.text == "kernel":
        own.append(t.kernel())
    if t.kind != "end":
        t.fail("kernel or the end of the text")
    return Plan(name, sizes, tuple(slots), tuple(launches), tuple(own) or tuple(kernels), tuple(arrays), arena, bound, donated, tuple(notes))
