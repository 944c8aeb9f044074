"""Kernel -> LLVM text of one function.

    kernel k0(in x: f32[64], out y: f32[64]) { vector v in 0..64 width 64 { y[v] = sqrt(x[v]) } }
 -> define hidden void @k0(ptr noalias readonly %b0, ptr noalias %b1, i64 %lo, i64 %hi) { ... <16 x float> ... }

The parameters are the inputs, the outputs, the named sizes, and the iterations lo..hi of a parallel outermost loop (0..1 where
there is none).

Vectors are written out, common and invariant expressions are found on the way (``values.py``), so LLVM needs few passes. Loads stay at
their statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import gcd

from xlc.errors import XlcNotImplementedError
from xlc.ir.index import polynomial
from xlc.ir.loops import LOAD, VAR, Buffer, Expr, If, Kernel, Let, Local, Loop, Prefetch, Stmt, Store, const, statements, var, walk
from xlc.ir.types import bool_, i64

from .access import Accesses
from .target import Target
from .values import Lanes, Scope, is_number
from .writer import flatten, vector

Work = dict[tuple[Expr, ...], float]
ATTRIBUTES = ('attributes #0 = { nounwind "no-builtins" }', 'attributes #1 = { nounwind noinline optnone "no-builtins" }')
"""Of kernels, and of the functions around them: those run once per call and are compiled in half the time without optimisation."""


@dataclass
class KernelText:
    """A function, the declarations that it needs once per module, and about how many instructions it runs (a polynomial over size
    expressions)."""

    name: str
    function: str
    declarations: frozenset[str]
    work: Work

    def __str__(self) -> str:
        return module_text([self])


def module_text(parts: Sequence[KernelText]) -> str:
    """Functions as one module."""
    declarations = sorted(frozenset().union(*(p.declarations for p in parts)))
    return "\n".join([*declarations, *(p.function for p in parts), *ATTRIBUTES, ""])


def emit_kernel(kernel: Kernel, target: Target, aliased: frozenset[int] = frozenset(), symbol: str = "") -> KernelText:
    """The function of a kernel, under the name ``symbol``. The buffers at the positions ``aliased`` (inputs, then outputs) may
    share memory."""
    name = symbol or kernel.name
    if kernel.streaming and not aliased:  # what is rewritten in place is in the caches already
        streaming = KernelEmitter(kernel, target, aliased, f"{name}.streaming", True)
        text = streaming.text()
        if streaming.streamed:
            return _by_alignment(kernel, name, text, KernelEmitter(kernel, target, aliased, f"{name}.ordinary").text())
    return KernelEmitter(kernel, target, aliased, name).text()


def _by_alignment(kernel: Kernel, name: str, streaming: KernelText, ordinary: KernelText) -> KernelText:
    """A function that calls the first where the outputs are aligned as it needs them, else the second: buffers of callers need only be
    aligned to their elements."""
    head = ordinary.function.partition("\n")[0].replace(ordinary.name, name)
    arguments = re.sub(r"(noalias|readonly) ", "", head[head.index("("):head.rindex(" #")])
    together, lines = "0", []
    for o in kernel.streaming:
        lines += [f"  %at{o} = ptrtoint ptr %b{len(kernel.inputs) + o} to i64", f"  %or{o} = or i64 %at{o}, {together}"]
        together = f"%or{o}"
    lines += [f"  %low = and i64 {together}, 63", "  %aligned = icmp eq i64 %low, 0", "  br i1 %aligned, label %yes, label %no",
              "yes:", f"  call void @{streaming.name}{arguments}", "  ret void",
              "no:", f"  call void @{ordinary.name}{arguments}", "  ret void"]
    function = "\n".join([head, "entry:", *lines, "}", streaming.function, ordinary.function])
    return KernelText(name, function, streaming.declarations | ordinary.declarations, ordinary.work)


def parallel_loop(kernel: Kernel) -> Loop | None:
    """The outermost loop, if its iterations may be cut over threads."""
    only = kernel.body[0] if len(kernel.body) == 1 else None
    return only if isinstance(only, Loop) and only.kind == "parallel" else None


class KernelEmitter(Accesses):
    """Walks the statements."""

    def __init__(self, kernel: Kernel, target: Target, aliased: frozenset[int], symbol: str, streaming: bool = False):
        pointers = {b: f"%b{k}" for k, b in enumerate((*kernel.inputs, *kernel.outputs))}
        super().__init__(f"kernel {kernel.name}", target, frozenset(kernel.inputs), pointers)
        self.kernel, self.aliased, self.symbol = kernel, aliased, symbol
        if streaming:
            self.streaming = frozenset(kernel.outputs[o] for o in kernel.streaming)
        self.more: Work = {}
        self.widths: dict[int, int] = {}  # id of a vector loop (alive in the kernel) -> lanes per part

    def text(self) -> KernelText:
        kernel, outer = self.kernel, parallel_loop(self.kernel)
        if outer is not None:
            self.loop(outer, ("%lo", "%hi"))
        else:
            self.in_turn(kernel.body)
        params = [f"ptr {'' if k in self.aliased else 'noalias '}{'readonly ' if k < len(kernel.inputs) else ''}%b{k}"
                  for k in range(len(kernel.inputs) + len(kernel.outputs))]
        params += [*(f"i64 %n.{s}" for s in kernel.sizes), "i64 %lo", "i64 %hi"]
        name = self.symbol
        if self.streamed and self.target.arch == "x86_64":
            self.declared.add("declare void @llvm.x86.sse.sfence()")
            self.jump("call void @llvm.x86.sse.sfence()")
        lines = [f"define hidden void @{name}({', '.join(params)}) #0 {{", "entry:", *flatten(self.entry), *flatten(self.stream),
                 "  ret void", "}"]
        return KernelText(name, "\n".join(lines), frozenset(self.declared), {**self.more, (): self.work})

    # -- statements -------------------------------------------------------------------------------

    def in_turn(self, body: Sequence[Stmt]) -> None:
        """The kernel's statements. What copies an input to an output is skipped where the one lies over the other."""
        inputs, outputs = self.kernel.inputs, self.kernel.outputs
        for pair, run in groupby(body, key=copied):
            if pair is None or pair[0] not in inputs or (outputs.index(pair[1]), inputs.index(pair[0])) not in self.kernel.inplace \
                    or outputs.index(pair[1]) + len(inputs) not in self.aliased:
                self.body(tuple(run))
                continue
            copy, end, self.out = self.name("copy"), self.name("end"), self.stream
            same = self.emit(f"icmp eq ptr {self.pointers[pair[0]]}, {self.pointers[pair[1]]}")
            self.enter()
            self.jump(f"br i1 {same}, label %{end}, label %{copy}")
            self.label(copy)
            self.body(tuple(run))
            self.jump(f"br label %{end}")
            self.leave()
            self.label(end)

    def body(self, body: Sequence[Stmt]) -> None:
        for s in body:
            if not isinstance(s, (Let, Store)):  # what it holds may store
                self.forget()
            self.statement(s)
            if not isinstance(s, Let):
                self.forget()
        self.forget()

    def forget(self) -> None:
        """What a store may have changed is loaded again."""
        for key in self.volatile:
            self.memo.pop(key, None)
        self.volatile.clear()

    def statement(self, s: Stmt) -> None:
        match s:
            case Store():
                self.store(s)
            case Let():
                value = self.value(s.value)
                if s.value.dtype is i64:
                    self.multiples[var(s.name)] = self.divisor(s.value)
                self.bind(var(s.name, s.value.dtype), value, self.level)
            case Local():
                self.local(s.buffer)
            case Prefetch():
                self.prefetch(s)
            case If():
                self.branch(s)
            case Loop(kind="vector"):
                self.vector_loop(s)
            case Loop(kind="unroll"):
                self.unrolled(s)
            case Loop(kind="serial" | "parallel"):
                self.loop(s)
            case Loop():
                raise XlcNotImplementedError(f"kernel {self.kernel.name}: a loop of kind {s.kind} has no meaning on a CPU")

    def loop(self, s: Loop, part: tuple[str, str] | None = None) -> None:
        """A counted loop, tested at its end; ``part`` are the iterations to run, as for a parallel loop."""
        start, stop = self.scalar(s.start), self.scalar(s.stop)
        if part is not None:
            self.out = self.stream
            last = self.emit(f"mul i64 {part[1]}, {s.step}")
            last = self.emit(f"add i64 {start}, {last}") if start != "0" else last
            first = self.emit(f"mul i64 {part[0]}, {s.step}")
            start = self.emit(f"add i64 {start}, {first}") if start != "0" else first
            stop = self.call("smin.i64", "i64", ("i64", stop), ("i64", last))
        trips = -(-(int(stop) - int(start)) // s.step) if is_number(start) and is_number(stop) else None
        if trips is not None and trips <= 1:
            if trips == 1:
                self.copy(s, start)
            return
        self.multiples[var(s.var)] = gcd(s.step, self.divisor(s.start))
        self.enter()
        outside, self.work, self.more = (self.work, self.more), 0.0, {}
        body, end, before = self.name("body"), self.name("end"), self.block
        if trips is None:
            self.out = self.stream
            self.jump(f"br i1 {self.emit(f'icmp slt i64 {start}, {stop}')}, label %{body}, label %{end}")
        else:
            self.jump(f"br label %{body}")
        self.label(body)
        variable, following, phi = f"%{self.name('i')}", f"%{self.name('i')}", len(self.stream)
        self.stream.append("")
        self.bind(var(s.var), variable, self.level)
        self.body(s.body)
        self.stream[phi] = f"  {variable} = phi i64 [ {start}, %{before} ], [ {following}, %{self.block} ]"
        self.jump(f"{following} = add nsw i64 {variable}, {s.step}")
        self.out = self.stream
        self.jump(f"br i1 {self.emit(f'icmp slt i64 {following}, {stop}')}, label %{body}, label %{end}")
        self.leave()
        self.label(end)
        self.repeat(s, *outside)

    def repeat(self, s: Loop, work: float, more: Work) -> None:
        """The work of the loop just emitted, as often as it runs (at most), joins what was counted before it."""
        body: Work = {**self.more, (): self.work + 1}
        self.work, self.more = work, more
        for m, c in trips(s).items():
            for m2, c2 in body.items():
                if m or m2:
                    self.more[m + m2] = self.more.get(m + m2, 0.0) + c * c2
                else:
                    self.work += c * c2

    def copy(self, s: Loop, at: str) -> None:
        """One iteration, where the variable is a constant."""
        self.multiples[var(s.var)] = int(at)
        self.enter()
        self.bind(var(s.var), at, self.level)
        self.body(s.body)
        self.leave()

    def unrolled(self, s: Loop) -> None:
        start, stop = self.scalar(s.start), self.scalar(s.stop)
        if not (is_number(start) and is_number(stop)):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the loop over {s.var} is to be unrolled, but runs from {s.start} to "
                                         f"{s.stop}; its bounds must be constants")
        for k in range(int(start), int(stop), s.step):
            self.copy(s, str(k))

    def branch(self, s: If) -> None:
        condition = self.scalar(s.condition)
        if condition in ("true", "false"):
            self.enter()
            self.body(s.body if condition == "true" else s.orelse)
            self.leave()
            return
        yes, no, end = self.name("then"), self.name("else"), self.name("end")
        self.enter()
        hoist = self.scopes[-1].hoist
        self.jump(f"br i1 {condition}, label %{yes}, label %{no if s.orelse else end}")
        self.label(yes)
        self.body(s.body)
        self.jump(f"br label %{end}")
        self.leave()
        if s.orelse:
            self.scopes.append(Scope(hoist))
            self.label(no)
            self.body(s.orelse)
            self.jump(f"br label %{end}")
            self.leave()
        self.label(end)

    def vector_loop(self, s: Loop) -> None:
        """Straight-line code: each statement for all parts before the next."""
        if self.lanes is not None:
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the vector loop over {s.var} is inside another one")
        stop = self.scalar(s.stop)
        count = min(int(stop), s.width) if is_number(stop) else None
        if count is not None and count <= 0:
            return
        if s.width == 1:
            if count is not None:
                self.copy(s, "0")
            else:
                self.branch(If(s.stop > 0, (Loop(s.var, const(0), const(1), 1, "vector", s.body, 1),)))
            return
        n = self.widths.get(id(s), 0)
        if not n:
            n = self.widths[id(s)] = min(s.width, self.target.lanes(_common_bits(s)))
        if count is None:
            n = gcd(n, s.width)  # 48 lanes of f16 are three parts of 16, where 32 fill a register
        parts = -(-(s.width if count is None else count) // n)
        self.enter()
        masks, some = self.masks(stop, count, n, parts, s.width)
        variable = var(s.var)
        self.lanes = Lanes(variable, n, parts, masks, some)
        self.bind(variable, tuple(_numbers("i64", range(p * n, p * n + n)) for p in range(parts)), self.level)
        self.body(s.body)
        self.lanes = None
        self.leave()

    def masks(self, stop: str, count: int | None, n: int, parts: int, width: int) -> tuple[tuple[str | None, ...], str | None]:
        if count is not None:
            alive = [[k < count for k in range(p * n, p * n + n)] for p in range(parts)]
            return tuple(None if all(a) else f"<{', '.join('i1 true' if x else 'i1 false' for x in a)}>" for a in alive), None
        self.out = self.stream
        some = self.emit(f"icmp sgt i64 {stop}, 0")
        clamped = self.call("smin.i64", "i64", ("i64", stop), ("i64", str(width)))
        least = self.call("smax.i64", "i64", ("i64", clamped), ("i64", "0"))
        limit = self.broadcast("i32", self.emit(f"trunc i64 {least} to i32"), n)
        ty = vector("i32", n)
        return tuple(self.emit(f"icmp slt {ty} {_numbers('i32', range(p * n, p * n + n))}, {limit}") for p in range(parts)), some


def copied(s: Stmt) -> tuple[Buffer, Buffer] | None:
    """The buffers from which and to which the statement copies elements that stay in their places, if that is all it does."""
    if isinstance(s, Store):
        same = s.value.op is LOAD and s.value.args == s.index and s.value["buffer"].space == s.buffer.space == "global"
        return (s.value["buffer"], s.buffer) if same else None
    pairs = {copied(inner) for inner in (*s.body, *(s.orelse if isinstance(s, If) else ()))} if isinstance(s, (If, Loop)) else set()
    return pairs.pop() if len(pairs) == 1 else None


def trips(s: Loop) -> Work:
    """How often a loop runs, at most: a polynomial over size expressions. What varies with an outer loop counts as 0."""
    choices = s.stop.args if s.stop.op.name == "minimum" else (s.stop,)
    counts: list[Work] = []
    for stop in choices:
        difference: Work = {m: c / s.step for m, c in polynomial(stop).items()}
        for m, c in polynomial(s.start).items():
            difference[m] = difference.get(m, 0.0) - c / s.step
        counts.append({m: c for m, c in difference.items() if c and not any(x.op is VAR for a in m for x in walk(a))})
    return min(counts, key=lambda w: (len(w), len(w) == 1 and () not in w, w.get((), 0.0)))


def _numbers(scalar: str, values: Sequence[int]) -> str:
    return "<" + ", ".join(f"{scalar} {k}" for k in values) + ">"


def _common_bits(s: Loop) -> int:
    """The width of most of the data that a vector loop computes with; it decides how many lanes fill a register. Addresses do not count."""
    counts: dict[int, int] = {}
    roots = [x for st in statements(s.body) if not isinstance(st, Loop) for x in
             ((st.value,) if isinstance(st, (Store, Let)) else ())]
    seen: set[Expr] = set()
    stack = list(roots)
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        if e.op.kind == "input" and e.op is not LOAD:
            continue
        if e.dtype is not bool_:
            counts[e.dtype.bits] = counts.get(e.dtype.bits, 0) + 1
        if e.op is LOAD:
            if e["buffer"].dtype is bool_:
                counts[8] = counts.get(8, 0) + 1
            continue
        stack.extend(e.args)
    if not counts:
        first = next((st.buffer.dtype.bits for st in statements(s.body) if isinstance(st, Store)), 32)
        return first
    return max(counts, key=lambda b: (counts[b], -b))

