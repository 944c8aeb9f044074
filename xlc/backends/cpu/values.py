"""The value of an expression, as LLVM text, wherever the emitter of a kernel (or of an entry function) stands.

Every expression is evaluated once per *level*: the number of the innermost scope (loop, branch, unrolled copy) that it depends
on. Its instructions go in front of the scope within which it does not change. A value that differs between the lanes of a vector
loop is a tuple of parts, one hardware vector each; everything else is a scalar, spread over the lanes where it meets them.

    in the loop over j:  i*4096 + j   ->   %v1 = mul i64 %i, 4096   in front of the loop,   %v2 = add i64 %v1, %j   inside
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from xlc.errors import XlcNotImplementedError
from xlc.ir.loops import LOAD, Expr
from xlc.ir.types import DType, i64

from . import memory
from .scalar import SCALAR, native
from .writer import Lines, Writer, element, literal, memory_element, splat, vector

Value = str | tuple[str, ...]  # a scalar, or the parts of a value that differs between lanes
VOLATILE = 1 << 30  # the level of what a store may change: it is forgotten after each
_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": int.__add__, "subtract": int.__sub__, "multiply": int.__mul__, "minimum": min, "maximum": max}


@dataclass
class Scope:
    """A loop, branch or unrolled copy. What is invariant in it goes to ``hoist``, which stands in front of it."""

    hoist: Lines
    keys: list[Any] = field(default_factory=list)


@dataclass
class Lanes:
    """The vector loop being emitted: ``parts`` vectors of ``n`` lanes; a mask per part where not all lanes live; ``some``:
    whether any lane lives."""

    variable: Expr
    n: int
    parts: int
    masks: tuple[str | None, ...]
    some: str | None


class Values(Writer):
    """Evaluates expressions. ``stream`` is where instructions go that belong here; ``owner`` names the function in messages."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner
        self.entry: Lines = []
        self.stream: Lines = []
        self.memo: dict[Any, tuple[Any, int]] = {}
        self.scopes: list[Scope] = [Scope(self.entry)]
        self.volatile: list[Any] = []
        self.lanes: Lanes | None = None
        self.expansions: dict[Expr, Expr] = {}

    def load(self, e: Expr) -> tuple[Value, int]:
        """The value of a load and its level."""
        raise NotImplementedError

    @property
    def level(self) -> int:
        return len(self.scopes) - 1

    def enter(self) -> None:
        hoist: Lines = []
        self.stream.append(hoist)
        self.scopes.append(Scope(hoist))

    def leave(self) -> None:
        for key in self.scopes.pop().keys:
            self.memo.pop(key, None)

    def bind(self, key: Any, value: Any, level: int) -> None:
        self.memo[key] = value, level
        if level == VOLATILE:
            self.volatile.append(key)
        else:
            self.scopes[level].keys.append(key)

    def place(self, level: int) -> None:
        """Direct instructions to where a value of this level belongs."""
        self.out = self.stream if level >= self.level else self.scopes[level + 1].hoist

    def scalar(self, e: Expr) -> str:
        value = self.value(e)
        if isinstance(value, tuple):
            raise XlcNotImplementedError(f"{self.owner}: {e} differs between the lanes of a vector loop; a branch or loop bound must not")
        return value

    def value(self, e: Expr) -> Value:
        """The value of an expression here, evaluated at most once per level."""
        memo = self.memo
        found = memo.get(e)
        if found is not None:
            return found[0]
        stack = [e]
        while stack:
            x = stack[-1]
            if x in memo:
                stack.pop()
            elif x.op is LOAD:
                self.bind(x, *self.load(x))
            elif x.op.kind == "input":
                self.input(x)
            else:
                wanted = [a for a in x.args if a not in memo]
                if wanted:
                    stack.extend(wanted)
                elif native(x.op.name, x.args[0].dtype) or x.op.name == "lookup":
                    self.compute(x)
                else:
                    into = self.expansions.get(x)
                    if into is None:
                        into = self.expansions[x] = self.expand(x)
                    if into in memo:
                        self.bind(x, *memo[into])
                    else:
                        stack.append(into)
        return memo[e][0]

    def expand(self, x: Expr) -> Expr:
        if x.op.decompose is None:
            raise XlcNotImplementedError(f"{self.owner}: the operator {x.op.name} on {x.args[0].dtype} has neither a rule on the CPU nor a "
                                         f"decomposition")
        return x.op.decompose(*x.args, **dict(x.attrs))

    def input(self, x: Expr) -> None:
        if x.is_const:
            self.bind(x, literal(x.dtype, x.value), 0)
        elif x.op.name == "size":
            self.bind(x, f"%n.{x['name']}", 0)
        else:
            raise XlcNotImplementedError(f"{self.owner}: the variable {x['name']} is used outside the loop or Let that defines it")

    def compute(self, x: Expr) -> None:
        found = [self.memo[a] for a in x.args]
        level = max((lv for _, lv in found), default=0)
        name = x.op.name
        d = x.args[1].dtype if name == "where" else x.args[0].dtype
        attrs = dict(x.attrs)
        if any(isinstance(v, tuple) for v, _ in found):
            assert self.lanes is not None
            n = self.lanes.n
            args = [v if isinstance(v, tuple) else (self.spread(a, n),) * self.lanes.parts for a, (v, _) in zip(x.args, found, strict=True)]
            self.place(level)
            self.bind(x, tuple(self.apply(name, n, d, [a[p] for a in args], attrs) for p in range(self.lanes.parts)), level)
            return
        values = [v for v, _ in found]
        if x.dtype is i64 and d is i64 and name in _FOLD and all(is_number(v) for v in values):
            self.bind(x, literal(i64, _FOLD[name](int(values[0]), int(values[1]))), level)
            return
        if x.dtype is i64 and name in ("floor_divide", "remainder") and all(is_number(v) for v in values) and int(values[1]) > 0:
            a, b = map(int, values)
            self.bind(x, str(a // b if name == "floor_divide" else a % b), level)
            return
        self.place(level)
        self.bind(x, self.apply(name, 0, d, values, attrs), level)

    def apply(self, name: str, n: int, d: DType, args: Sequence[str], attrs: dict[str, Any]) -> str:
        if name == "lookup":
            return self.lookup(n, args[0], attrs["table"], attrs["dtype"])
        return SCALAR[name](self, n, d, args, attrs)

    def lookup(self, n: int, index: str, table: tuple[Any, ...], d: DType) -> str:
        """table[index], the index clamped into it; the table is a constant of the module."""
        scalar = memory_element(d)
        items = ", ".join(f"{scalar} {literal(d, v) if d.kind != 'b' else int(v)}" for v in table)
        name = f"@xlc.table.{_digest(scalar + items)}"
        self.declared.add(f"{name} = linkonce_odr hidden unnamed_addr constant [{len(table)} x {scalar}] [{items}], align 64")
        ty = vector("i64", n)
        kind = f"v{n}i64" if n else "i64"
        inside = self.call(f"smin.{kind}", ty, (ty, index), (ty, splat("i64", str(len(table) - 1), n)))
        inside = self.call(f"smax.{kind}", ty, (ty, inside), (ty, splat("i64", "0", n)))
        if n:
            return memory.gather(self, d, n, name, inside, None)
        return memory.load_scalar(self, d, self.emit(f"getelementptr inbounds {scalar}, ptr {name}, i64 {inside}"), None)

    def spread(self, e: Expr, n: int) -> str:
        """A scalar in every lane, made once per level."""
        value, level = self.memo[e]
        if not value.startswith("%"):
            return splat(element(e.dtype), value, n)
        key = ("spread", e, n)
        found = self.memo.get(key)
        if found is None:
            self.place(level)
            found = self.broadcast(element(e.dtype), value, n), level
            self.bind(key, *found)
        return found[0]


def is_number(value: str) -> bool:
    return value.lstrip("-").isdigit()


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
