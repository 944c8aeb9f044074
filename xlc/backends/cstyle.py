"""Kernels as text of a language like C: what CUDA, and any C compiler, have in common.

    vector v in 0..4 width 4 { y[t*4+v] = x[t*4+v] + 1 }
 -> const xlc_vec<float, 4> x0 = *(const xlc_vec<float, 4>*)(x + t*4);
    xlc_vec<float, 4> y0;
    for (int v = 0; v < 4; ++v) { const float e1 = x0.e[v] + 1.0f; y0.e[v] = e1; }
    *(xlc_vec<float, 4>*)(y + t*4) = y0;

Enters a Kernel and a table of scalar operators (``Scalars``); leaves lines. Every expression is evaluated once per scope, where it is first
needed; common subexpressions and what a loop does not change are left to the compiler. i64 expressions whose values are known to fit are
computed as ``int``: processors of graphics cards have no 64-bit integer units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, inf, prod
from typing import Any, NamedTuple

from xlc.errors import XlcNotImplementedError
from xlc.ir import index as ix
from xlc.ir.loops import (
    LOAD,
    Buffer,
    Expr,
    If,
    Kernel,
    Let,
    Local,
    Loop,
    Prefetch,
    Stmt,
    Store,
    const,
    expressions,
    substitute,
    var,
    walk,
)
from xlc.ir.types import DType, bool_, i64

from .intervals import INDEX, NARROW, UNKNOWN, Interval, interval_of

Access = tuple[Buffer, Expr, Expr | None]  # of one-dimensional memory: where, and the condition


class Value(NamedTuple):
    """What an expression became: a name or literal, whether an i64 is held as an ``int``, the interval in which it lies."""

    text: str
    narrow: bool = False
    range: Interval = UNKNOWN


@dataclass(frozen=True)
class Scalars:
    """A language's scalar operators: ``rules[name](dtype, args, attrs) -> text``, where dtype is that of the first argument (of the values,
    for ``where``). What ``native`` denies is decomposed."""

    rules: Mapping[str, Callable[[DType, Sequence[str], Mapping[str, Any]], str]]
    native: Callable[[str, DType], bool]
    types: Mapping[str, str]
    literal: Callable[[DType, Any], str]


class Printer:
    """Prints the statements of one kernel. ``readonly`` are buffers that nothing writes while it runs."""

    def __init__(self, kernel: Kernel, scalars: Scalars, readonly: frozenset[Buffer], names: Mapping[Buffer, str]):
        self.kernel, self.scalars, self.readonly = kernel, scalars, readonly
        self.names: dict[Buffer, str] = dict(names)
        self.lines: list[str] = []
        self.depth = 1
        self.memo: dict[Expr, Value] = {}
        self.scopes: list[list[Expr]] = [[]]
        self.volatile: set[Expr] = set()
        self.expansions: dict[Expr, Expr] = {}
        self.multiples: dict[Expr, int] = {}
        self.tables: dict[str, str] = {}
        self.vectors: dict[Access, str] = {}  # loads and stores of all lanes at once, and the vectors in registers
        self.counter = 0

    # -- text -------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def name(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def enter(self, head: str) -> None:
        self.line(head + " {")
        self.depth += 1
        self.scopes.append([])

    def leave(self) -> None:
        for e in self.scopes.pop():
            self.memo.pop(e, None)
            self.volatile.discard(e)
        self.depth -= 1
        self.line("}")

    def bind(self, e: Expr, value: Value) -> Value:
        self.memo[e] = value
        self.scopes[-1].append(e)
        return value

    def forget(self) -> None:
        """What a store may have changed is loaded again."""
        for e in self.volatile:
            self.memo.pop(e, None)
        self.volatile.clear()

    def ctype(self, d: DType, narrow: bool = False) -> str:
        return "int" if narrow else self.scalars.types[d.name]

    # -- expressions ------------------------------------------------------------------------------

    def value(self, e: Expr) -> Value:
        """The value of an expression here."""
        stack = [e]
        while stack:
            x = stack[-1]
            if x in self.memo:
                stack.pop()
                continue
            if x.op.kind == "input" and x.op is not LOAD:
                self.leaf(x)
                continue
            args = self.arguments(x)
            wanted = [a for a in args if a not in self.memo]
            if wanted:
                stack.extend(reversed(wanted))
            elif x.op is LOAD:
                self.load(x)
            elif x.op.name == "lookup" or self.scalars.native(x.op.name, x.args[0].dtype):
                self.compute(x)
            else:
                into = self.expansions.get(x)
                if into is None:
                    into = self.expansions[x] = self.expand(x)
                if into in self.memo:
                    self.bind(x, self.memo[into])
                    if into in self.volatile:
                        self.volatile.add(x)
                else:
                    stack.append(into)
        return self.memo[e]

    def arguments(self, x: Expr) -> Sequence[Expr]:
        """What must be evaluated before x."""
        if x.op is not LOAD:
            return x.args
        if _access(x) in self.vectors:
            return ()
        index = x.args[:-1] if x["masked"] else x.args
        return (self.offset(x["buffer"], index), *x.args[len(index):])

    def offset(self, b: Buffer, index: Sequence[Expr]) -> Expr:
        """The place of an element in its buffer, in elements."""
        return index[0] if len(index) == 1 else ix.address_of(b.shape, index)

    def expand(self, x: Expr) -> Expr:
        if x.op.decompose is None:
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the operator {x.op.name} on {x.args[0].dtype} has neither a rule on "
                                         f"this device nor a decomposition")
        return x.op.decompose(*x.args, **dict(x.attrs))

    def leaf(self, x: Expr) -> Value:
        if x.is_const:
            if x.dtype is i64:
                v = x.value
                narrow = NARROW[0] <= v <= NARROW[1]
                return self.bind(x, Value(str(v) if narrow else self.scalars.literal(i64, v), narrow, (v, v)))
            return self.bind(x, Value(self.scalars.literal(x.dtype, x.value)))
        if x.op.name == "size":
            return self.bind(x, Value(f"n_{x['name']}", False, (0.0, inf)))
        raise XlcNotImplementedError(f"kernel {self.kernel.name}: the variable {x['name']} is used outside the loop or Let that defines it")

    def temporary(self, x: Expr, text: str, narrow: bool = False, interval: Interval = UNKNOWN) -> Value:
        name = self.name("e")
        self.line(f"const {self.ctype(x.dtype, narrow)} {name} = {text};")
        if any(a in self.volatile for a in self.arguments(x)):
            self.volatile.add(x)
        return self.bind(x, Value(name, narrow, interval))

    def compute(self, x: Expr) -> Value:
        found = [self.memo[a] for a in x.args]
        name = x.op.name
        if name == "lookup":
            return self.temporary(x, self.lookup(x, found[0]))
        d = x.args[1].dtype if name == "where" else x.args[0].dtype
        interval = interval_of(name, [v.range for v in found]) if x.dtype is i64 and d is i64 else UNKNOWN
        if d is i64 and name in INDEX and all(v.narrow for a, v in zip(x.args, found, strict=True) if a.dtype is i64) \
                and (x.dtype is bool_ or (NARROW[0] <= interval[0] and interval[1] <= NARROW[1])):
            positive = all(v.range[0] >= 0 for v in found)
            known = found[-1].range[0] == found[-1].range[1] and found[-1].range[0] > 0
            if name not in ("floor_divide", "remainder") or positive and known:
                return self.temporary(x, INDEX[name](*(v.text for v in found)), x.dtype is i64, interval)
        # a narrow value is the same number; only where the width of what an operator works on shows, it is made wide
        keep = name == "cast" and x.dtype.kind != "u"
        texts = [v.text if keep or not v.narrow else f"({self.ctype(i64)}){v.text}" for v in found]
        return self.temporary(x, self.scalars.rules[name](d, texts, dict(x.attrs)), False, interval)

    def lookup(self, x: Expr, index: Value) -> str:
        """table[index], the index clamped into it; the table is a constant of the module."""
        d, table = x["dtype"], x["table"]
        items = ", ".join(self.scalars.literal(d, v) for v in table)
        name = "xlc_table_" + hashlib.sha256(f"{d} {items}".encode()).hexdigest()[:12]
        self.tables[name] = f"{self.ctype(d)} {name}[{len(table)}] = {{{items}}};"
        return f"{name}[{index.text} < 0 ? 0 : {index.text} > {len(table) - 1} ? {len(table) - 1} : {index.text}]"

    # -- memory -----------------------------------------------------------------------------------

    def load(self, x: Expr) -> Value:
        b = x["buffer"]
        if (vector := self.vectors.get(_access(x))) is not None:
            text = f"{vector}.e[{self.memo[self.lane].text}]"
        else:
            index = x.args[:-1] if x["masked"] else x.args
            text = f"{self.names[b]}[{self.memo[self.offset(b, index)].text}]"
            if x["masked"]:
                text = f"{self.memo[x.args[-1]].text} ? {text} : ({self.ctype(b.dtype)})0"
        value = self.temporary(x, text)
        if b not in self.readonly:
            self.volatile.add(x)
        return value

    def store(self, s: Store) -> None:
        value = self.value(s.value)
        mask = self.value(s.mask).text if s.mask is not None else ""
        if (s.buffer, s.index[0], None) in self.vectors:
            place = f"{self.vectors[s.buffer, s.index[0], None]}.e[{self.memo[self.lane].text}]"
        else:
            place = f"{self.names[s.buffer]}[{self.value(self.offset(s.buffer, s.index)).text}]"
        self.line(f"{f'if ({mask}) ' if mask else ''}{place} = {value.text};")

    def local(self, b: Buffer) -> None:
        """A local array of a thread."""
        if not all(isinstance(s, int) for s in b.shape):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the local buffer {b.name} has the size {b.size}; it must be a number")
        self.names[b] = self.name(f"{b.name}_")
        self.line(f"{self.ctype(b.dtype)} {self.names[b]}[{b.size}];")

    # -- statements -------------------------------------------------------------------------------

    def body(self, body: Sequence[Stmt]) -> None:
        for s in body:
            if not isinstance(s, (Let, Store)):
                self.forget()
            self.statement(s)
            if not isinstance(s, Let):
                self.forget()

    def statement(self, s: Stmt) -> None:
        match s:
            case Store():
                self.store(s)
            case Let():
                value = self.value(s.value)
                if s.value.dtype is i64:
                    self.multiples[var(s.name)] = self.divisor(s.value)
                self.memo.pop(var(s.name, s.value.dtype), None)
                self.bind(var(s.name, s.value.dtype), value)
            case Local():
                self.local(s.buffer)
            case If():
                self.branch(s)
            case Prefetch():
                pass
            case Loop(kind="vector" | "async"):
                self.vector(s)
            case Loop():
                self.loop(s)

    def branch(self, s: If) -> None:
        condition = self.value(s.condition).text
        if condition in ("true", "false"):
            self.enter("")
            self.body(s.body if condition == "true" else s.orelse)
            self.leave()
            return
        self.enter(f"if ({condition})")
        self.body(s.body)
        self.leave()
        if s.orelse:
            self.enter("else")
            self.body(s.orelse)
            self.leave()

    def loop(self, s: Loop) -> None:
        """A counted loop in order; ``unroll`` is copied out by the compiler."""
        if s.kind not in ("serial", "unroll", "vector", "async"):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: a loop of kind {s.kind} has no meaning here")
        start, stop = self.value(s.start), self.value(s.stop)
        unrolled = s.kind in ("unroll", "vector", "async")
        if unrolled or (s.start.is_const and s.stop.is_const and s.stop.value - s.start.value <= s.step):
            self.line("#pragma unroll")
        elif s.kind == "serial":
            self.line("#pragma unroll 1") if _holds_loops(s.body) else None
        self.counted(s, start, stop)

    def counted(self, s: Loop, start: Value, stop: Value) -> None:
        narrow = start.narrow and (stop.narrow or stop.range[1] <= NARROW[1]) and stop.range[1] + s.step <= NARROW[1]
        name, kind = self.name(f"{s.var}_"), "int" if narrow else self.ctype(i64)
        step = f"++{name}" if s.step == 1 else f"{name} += {s.step}"
        self.enter(f"for ({kind} {name} = {start.text}; {name} < {stop.text}; {step})")
        self.variable(s.var, Value(name, narrow, (start.range[0], stop.range[1] - 1)), gcd(s.step, self.divisor(s.start)))
        self.body(s.body)
        self.leave()

    def variable(self, name: str, value: Value, multiple: int = 1) -> None:
        self.memo.pop(var(name), None)
        self.bind(var(name), value)
        self.multiples[var(name)] = multiple

    def divisor(self, e: Expr) -> int:
        """A number that divides every value of an i64 expression."""
        return gcd(*(c * prod(self._atom_divisor(a) for a in m) for m, c in ix.polynomial(e).items()))

    def _atom_divisor(self, a: Expr) -> int:
        if a.op.name == "remainder" and a.args[1].is_const:
            return gcd(self.divisor(a.args[0]), a.args[1].value) or 1
        return self.multiples.get(a, 1)

    def vector(self, s: Loop) -> None:
        """Lanes of one thread, copied out; where all lanes together read or write neighbours, that is one access."""
        whole = s.stop.is_const and s.stop.value == s.width and s.width > 1
        lane = var(s.var)
        loads, stores = (self.accesses(s, lane) if whole else ([], []))
        outside, self.lane = dict(self.vectors), lane
        for b, address, mask in (*loads, *stores):
            name, base = self.name(f"{b.name}_"), self.value(substitute(address, {lane: const(0)})).text
            kind = f"xlc_vec<{self.ctype(b.dtype)}, {s.width}>"
            if (b, address, mask) in stores:
                self.line(f"{kind} {name};")
            else:
                given = f"{self.value(mask).text} ? " if mask is not None else ""
                self.line(f"const {kind} {name} = {given}*(const {kind}*)({self.names[b]} + {base}){f' : {kind}{{}}' if given else ''};")
            self.vectors[b, address, mask] = name
        self.loop(s)
        for b, address, _ in stores:
            base = self.value(substitute(address, {lane: const(0)})).text
            self.line(f"*(xlc_vec<{self.ctype(b.dtype)}, {s.width}>*)({self.names[b]} + {base}) = {self.vectors[b, address, None]};")
        self.vectors = outside

    def accesses(self, s: Loop, lane: Expr) -> tuple[list[Access], list[Access]]:
        """What all lanes read, and write, together: aligned neighbours, in memory, under no condition of a single lane. None of what is
        loaded is stored in the same loop, unless by the same lane after."""
        plain = [x for x in s.body if isinstance(x, (Let, Store))]
        inside = {x.name for x in plain if isinstance(x, Let)}
        if len(plain) != len(s.body):
            return [], []

        def together(access: Access) -> bool:
            _, address, mask = access
            own = address.free & inside or (mask is not None and mask.free & inside)
            return not own and self.together(access, lane, s.width)

        written = [x.buffer for x in plain if isinstance(x, Store)]
        reads = dict.fromkeys(_access(e) for e in walk(*(e for x in plain for e in expressions(x))) if e.op is LOAD)
        read = {b for b, _, _ in reads}
        stores = [(x.buffer, x.index[0], None) for x in plain
                  if isinstance(x, Store) and x.mask is None and written.count(x.buffer) == 1 and x.buffer not in read]
        return [a for a in reads if a[0] not in written and together(a)], [a for a in stores if together(a)]

    def together(self, access: Access, lane: Expr, width: int) -> bool:
        """Whether the lanes' elements are aligned neighbours in memory, under one mask, that one access may take."""
        b, address, mask = access
        if b.space not in ("global", "shared") or b in self.unaligned or len(b.shape) != 1 or b.dtype.bytes * width > 16 \
                or (mask is not None and ix.depends(mask, lane)):
            return False
        p = ix.polynomial(address)
        if p.get((lane,)) != 1 or any(ix.depends(a, lane) for m in p if m != (lane,) for a in m):
            return False
        return self.divisor(address - lane) % width == 0

    lane: Expr = const(0)
    unaligned: frozenset[Buffer] = frozenset()


def _access(x: Expr) -> Access:
    """What a load reads."""
    return x["buffer"], x.args[0], x.args[-1] if x["masked"] else None


def _holds_loops(body: Iterable[Stmt]) -> bool:
    return any(isinstance(s, (Loop, If)) for s in body)


__all__ = ["Interval", "Printer", "Scalars", "Value"]
