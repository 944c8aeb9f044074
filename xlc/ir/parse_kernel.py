"""The parser of kernels and plans: the inverse of ``text``, whose docstring gives the grammar by example.

    parse_kernel("kernel k(in x: f32[n], out z: f32[n]) sizes(n) { parallel i in 0..n { z[i] = exp(x[i]) } }")

A number has the dtype of the first expression beside it, that is no number; where there is none, an integer is i64, and anything else must
say, as in ``f32(2.0)``. A size and a variable of one name are told apart by ``size(n)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import loops
from . import plan as plans
from .loops import Buffer, Expr, If, Kernel, Let, Local, Loop, Mma, Prefetch, Stmt, Store, Wait
from .node import Array
from .op import Op
from .parse import Values, number_of
from .plan import PLACES, Branch, Entry, Launch, Plan, Slot
from .types import DTYPES, DType, bool_, i64

_INFIX = {"+": ("add", 5), "-": ("subtract", 5), "*": ("multiply", 6), "//": ("floor_divide", 6), "<": ("less", 4), "<=": ("less_equal", 4),
          ">": ("greater", 4), ">=": ("greater_equal", 4), "==": ("equal", 4), "!=": ("not_equal", 4), "&": ("bitwise_and", 3),
          "|": ("bitwise_or", 2)}
_LONG_NAMES = {"min": "minimum", "max": "maximum"}
_LOOP_KINDS = frozenset({"serial", "parallel", "vector", "unroll", "block", "thread", "async"})


class _Scope:
    """Names that are visible in a body: variables, buffers, and the names of subexpressions."""

    def __init__(self, outer: _Scope | None = None, sizes: Iterable[str] = ()):
        self.exprs: dict[str, Expr] = dict(outer.exprs) if outer else {n: loops.expr(loops.SIZE, (), i64, (("name", n),)) for n in sizes}
        self.buffers: dict[str, Buffer] = dict(outer.buffers) if outer else {}


class _KernelParser(Values):
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
        streaming = tuple(self._parenthesised("streaming", self.integer))
        library = tuple(self._parenthesised("library", lambda: self.integer() if self.text.isdigit() else self.of("name")))
        note = self.string()
        self.scope = _Scope(None, sizes)
        self.scope.buffers = buffers
        return Kernel(name, tuple(ins), tuple(outs), sizes, self._block(), inplace, note, streaming, library)

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

    def _mma(self) -> Mma:
        def element() -> tuple[Buffer, Expr]:
            buffer = self._buffer_named(self.of("name", "a buffer"))
            (index,), _ = self._index()
            return buffer, index

        def integers(word: str, count: int = 0) -> tuple[int, ...]:
            """That many after a word; or all there are."""
            self.expect(word)
            found = [self.integer() for _ in range(count)]
            while not count and self.text != ",":
                found.append(self.integer())
            return tuple(found)

        parts: list[Any] = [*element()]
        for _ in range(2):
            self.expect(",")
            parts += [*element(), integers("steps")]
        self.expect(",")
        acc, thread, a, a_at, a_steps, b, b_at, b_steps = parts
        rows, columns, depth = integers("shape", 3)
        (products,) = integers("products", 1)
        group = self.integer() if self.take("group") else 32
        return Mma(acc, thread, a, a_at, a_steps, b, b_at, b_steps, (rows, columns, depth), products, group)

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
        if word == "prefetch":
            buffer = self._buffer_named(self.of("name", "a buffer"))
            index, _ = self._index()
            self.expect("ahead")
            return Prefetch(buffer, tuple(index), self.integer())
        if word == "mma":
            return self._mma()
        if word == "wait":
            products = self.take("products")
            return Wait(self.integer(), products)
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
    plan = _plan(t)
    own = []
    while t.text == "kernel":
        own.append(t.kernel())
    if t.kind != "end":
        t.fail("kernel or the end of the text")
    kept = {k.name: k for k in own or kernels}
    whole = _with_kernels(plan, kept)
    return replace(whole, kernels=tuple(own) or tuple(kernels))


def _with_kernels(plan: Plan, kernels: Mapping[str, Kernel]) -> Plan:
    """The plan and its inner plans, each with the kernels that it launches."""
    def entry(x: Entry) -> Entry:
        if isinstance(x, plans.Loop):
            return replace(x, body=_with_kernels(x.body, kernels))
        return replace(x, bodies=tuple(_with_kernels(b, kernels) for b in x.bodies)) if isinstance(x, Branch) else x

    used = dict.fromkeys(x.kernel for _, x in plan.everywhere())
    return replace(plan, launches=tuple(map(entry, plan.launches)), kernels=tuple(kernels[n] for n in used if n in kernels))


def _plan(t: _KernelParser) -> Plan:
    t.expect("plan")
    name = t.of("name", "the name of the plan")
    sizes = tuple(t._parenthesised("sizes", lambda: t.of("name")))
    donated = tuple(t._parenthesised("donated", t.pair))
    slots: list[Slot] = []
    arrays: list[Array] = []
    launches: list[Entry] = []
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
            what = t.of("name", "a slot, a launch or }")
            t.expect("(")
            inputs = tuple(t.listed(reference, ")"))
            t.expect("->")
            t.expect("(")
            outputs, note = tuple(t.listed(reference, ")")), t.string()
            if what == "loop":
                launches.append(_loop(t, inputs, outputs, note))
            elif what == "branch":
                launches.append(Branch(_inner(t), inputs, outputs, note))
            else:
                launches.append(Launch(what, inputs, outputs, note))
    t.expect("arena")
    arena = t.size()
    t.expect("bound")
    bound = t.size()
    return Plan(name, sizes, tuple(slots), tuple(launches), (), tuple(arrays), arena, bound, donated, tuple(notes))


def _loop(t: _KernelParser, inputs: tuple[str, ...], outputs: tuple[str, ...], note: str) -> Entry:
    t.expect("fixed")
    fixed = t.integer()
    t.expect("carries")
    carries = t.integer()
    trips = t.size() if t.take("trips") else None
    reverse = t.take("reverse")
    bodies = _inner(t)
    return plans.Loop(bodies[0], trips, reverse, fixed, carries, inputs, outputs, note)


def _inner(t: _KernelParser) -> tuple[Plan, ...]:
    t.expect("{")
    found = []
    while not t.take("}"):
        found.append(_plan(t))
    return tuple(found)
