"""Kernel -> LLVM text of one function.

    kernel k0(in x: f32[64], out y: f32[64]) { vector v in 0..64 width 64 { y[v] = sqrt(x[v]) } }
 -> define hidden void @k0(ptr noalias readonly %b0, ptr noalias %b1, i64 %lo, i64 %hi) { ... <16 x float> ... }

The parameters are the inputs, the outputs, the named sizes, and the iterations lo..hi of a parallel outermost loop (0..1 where there is none).

Every expression is evaluated once per *level* (the loop it depends on), in front of the loop within which it does not change; so no pass over
the LLVM code needs to look for common or invariant expressions. Loads stay at their statement. A value that depends on a lane is a tuple of parts of
one hardware vector each; everything else is a scalar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from xlc.errors import XlcNotImplementedError
from xlc.ir.index import polynomial
from xlc.ir.loops import LOAD, Buffer, Expr, If, Kernel, Let, Local, Loop, Stmt, Store, const, expressions, load, size, statements, walk
from xlc.ir.types import DType, bool_, i64, product

from . import memory
from .registers import RegisterArray
from .scalar import SCALAR, native
from .target import Target
from .writer import Lines, Writer, element, flatten, literal, memory_element, splat, vector

Value = Union[str, tuple[str, ...]]  # a scalar, or the parts of a value that differs between lanes
VOLATILE = 1 << 30  # the level of what a later store may change: it is forgotten after each statement
_FOLD = {"add": int.__add__, "subtract": int.__sub__, "multiply": int.__mul__, "minimum": min, "maximum": max}


@dataclass
class KernelText:
    """A function, and the declarations that it needs once per module."""

    name: str
    function: str
    declarations: frozenset[str]

    def __str__(self) -> str:
        return module_text([self])


def module_text(parts: Sequence[KernelText]) -> str:
    """Functions as one module."""
    declarations = sorted(frozenset().union(*(p.declarations for p in parts)))
    return "\n".join([*declarations, *(p.function for p in parts), 'attributes #0 = { nounwind "no-builtins" }', ""])


@dataclass
class Scope:
    """A loop, branch or unrolled copy. What is invariant in it goes to ``hoist``, which stands in front of it."""

    hoist: Lines
    keys: list[Any] = field(default_factory=list)


@dataclass
class Lanes:
    """The vector loop being emitted: ``parts`` vectors of ``n`` lanes; a mask per part where not all lanes live; ``some``: whether any lane lives."""

    variable: Expr
    n: int
    parts: int
    masks: tuple[str | None, ...]
    some: str | None


def emit_kernel(kernel: Kernel, target: Target, aliased: frozenset[str] = frozenset()) -> KernelText:
    """The function of a kernel. Buffers named in ``aliased`` may share memory with another one."""
    return KernelEmitter(kernel, target, aliased).text()


def parallel_loop(kernel: Kernel) -> Loop | None:
    """The outermost loop, if its iterations may be cut over threads."""
    only = kernel.body[0] if len(kernel.body) == 1 else None
    return only if isinstance(only, Loop) and only.kind == "parallel" else None


class KernelEmitter(Writer):
    def __init__(self, kernel: Kernel, target: Target, aliased: frozenset[str] = frozenset()):
        super().__init__()
        self.kernel, self.target, self.aliased = kernel, target, aliased
        self.entry: Lines = []
        self.stream: Lines = []
        self.block = "entry"
        self.memo: dict[Any, tuple[Any, int]] = {}
        self.scopes: list[Scope] = [Scope(self.entry)]
        self.volatile: list[Any] = []
        self.lanes: Lanes | None = None
        self.registers: dict[Buffer, RegisterArray] = {}
        self.pointers: dict[Buffer, str] = {b: f"%b{k}" for k, b in enumerate((*kernel.inputs, *kernel.outputs))}
        self.constant = frozenset(kernel.inputs)
        self.expansions: dict[Expr, Expr] = {}

    def text(self) -> KernelText:
        kernel, outer = self.kernel, parallel_loop(self.kernel)
        if outer is not None:
            self.loop(outer, ("%lo", "%hi"))
        else:
            self.body(kernel.body)
        params = [f"ptr {'' if b.name in self.aliased else 'noalias '}{'readonly ' if k < len(kernel.inputs) else ''}%b{k}"
                  for k, b in enumerate((*kernel.inputs, *kernel.outputs))]
        params += [*(f"i64 %n.{s}" for s in kernel.sizes), "i64 %lo", "i64 %hi"]
        lines = [f"define hidden void @{kernel.name}({', '.join(params)}) #0 {{", "entry:", *flatten(self.entry), *flatten(self.stream),
                 "  ret void", "}"]
        return KernelText(kernel.name, "\n".join(lines), frozenset(self.declared))

    # -- statements -------------------------------------------------------------------------------

    def body(self, body: Sequence[Stmt]) -> None:
        for s in body:
            self.statement(s)
            for key in self.volatile:
                self.memo.pop(key, None)
            self.volatile.clear()

    def statement(self, s: Stmt) -> None:
        match s:
            case Store():
                self.store(s)
            case Let():
                value = self.value(s.value)
                self.bind(load_variable(s), value, self.level)
            case Local():
                self.local(s.buffer)
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

    def label(self, name: str) -> None:
        self.stream.append(f"{name}:")
        self.block = name

    def jump(self, text: str) -> None:
        self.stream.append("  " + text)

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
        self.enter()
        body, end, before = self.name("body"), self.name("end"), self.block
        if trips is None:
            self.out = self.stream
            self.jump(f"br i1 {self.emit(f'icmp slt i64 {start}, {stop}')}, label %{body}, label %{end}")
        else:
            self.jump(f"br label %{body}")
        self.label(body)
        variable, following, phi = f"%{self.name('i')}", f"%{self.name('i')}", len(self.stream)
        self.stream.append("")
        self.bind(loop_variable(s), variable, self.level)
        self.body(s.body)
        self.stream[phi] = f"  {variable} = phi i64 [ {start}, %{before} ], [ {following}, %{self.block} ]"
        self.jump(f"{following} = add nsw i64 {variable}, {s.step}")
        self.out = self.stream
        self.jump(f"br i1 {self.emit(f'icmp slt i64 {following}, {stop}')}, label %{body}, label %{end}")
        self.leave()
        self.label(end)

    def copy(self, s: Loop, at: str) -> None:
        """One iteration, where the variable is a constant."""
        self.enter()
        self.bind(loop_variable(s), at, self.level)
        self.body(s.body)
        self.leave()

    def unrolled(self, s: Loop) -> None:
        start, stop = self.scalar(s.start), self.scalar(s.stop)
        if not (is_number(start) and is_number(stop)):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the loop over {s.var} is to be unrolled, but runs from {s.start} to {s.stop}; "
                                         f"its bounds must be constants")
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
        n = min(s.width, self.target.lanes(_common_bits(s)))
        parts = s.width // n if count is None else -(-count // n)
        self.enter()
        masks, some = self.masks(stop, count, n, parts, s.width)
        variable = loop_variable(s)
        self.lanes = Lanes(variable, n, parts, masks, some)
        self.bind(variable, tuple(_numbers("i64", range(p * n, p * n + n)) for p in range(parts)), self.level)
        self.body(s.body)
        self.lanes = None
        self.leave()

    def masks(self, stop: str, count: int | None, n: int, parts: int, width: int) -> tuple[tuple[str | None, ...], str | None]:
        if count is not None:
            lanes = [range(p * n, p * n + n) for p in range(parts)]
            return tuple(None if r[-1] < count else "<" + ", ".join(f"i1 {'true' if k < count else 'false'}" for k in r) + ">" for r in lanes), None
        self.out = self.stream
        some = self.emit(f"icmp sgt i64 {stop}, 0")
        clamped = self.call("smin.i64", "i64", ("i64", stop), ("i64", str(width)))
        least = self.call("smax.i64", "i64", ("i64", clamped), ("i64", "0"))
        limit = self.broadcast("i32", self.emit(f"trunc i64 {least} to i32"), n)
        ty = vector("i32", n)
        return tuple(self.emit(f"icmp slt {ty} {_numbers('i32', range(p * n, p * n + n))}, {limit}") for p in range(parts)), some

    # -- memory -----------------------------------------------------------------------------------

    def local(self, b: Buffer) -> None:
        if b in self.registers or b in self.pointers:
            return
        count = product(b.shape)
        if not isinstance(count, int):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the local buffer {b.name} has the size {count}; it must be a number")
        if b.space == "register":
            self.registers[b] = RegisterArray(self, self.entry, b.dtype, count, self.target.lanes(b.dtype.bits))
        else:
            self.pointers[b] = f"%{self.name('s')}"
            self.entry.append(f"  {self.pointers[b]} = alloca [{count} x {memory_element(b.dtype)}], align 64")

    def offset(self, b: Buffer, index: Sequence[Expr]) -> Expr:
        """The place of an element, in elements."""
        total = const(0)
        for k, i in enumerate(index):
            total = total + i * size(product(b.shape[k + 1:]))
        return index[0] if len(index) == 1 else total

    def split(self, offset: Expr) -> tuple[int, int | None, list[tuple[int, Expr, int]], dict[tuple[Expr, ...], int]]:
        """An offset as (constant, lane stride or None, [(level, product of uniform atoms, coefficient)], what else varies with the lane)."""
        fixed, stride, uniform, varying = 0, 0, [], {}
        lane = self.lanes.variable if self.lanes else None
        for m, c in polynomial(offset).items():
            if len(m) == 1 and m[0] is lane:
                stride = c
                continue
            values = [self.value(a) for a in m]
            left = tuple(a for a, v in zip(m, values, strict=True) if not (isinstance(v, str) and is_number(v)))
            for v in values:
                if isinstance(v, str) and is_number(v):
                    c *= int(v)
            if not left:
                fixed += c
            elif len(left) == 1 and left[0] is lane:
                stride += c
            elif any(isinstance(v, tuple) for v in values):
                varying[left] = varying.get(left, 0) + c
            else:
                term = left[0]
                for a in left[1:]:
                    term = term * a
                uniform.append((max(self.memo[a][1] for a in left), term, c))
        if varying:
            if stride and lane is not None:
                varying[lane,] = varying.get((lane,), 0) + stride
            return fixed, None, uniform, varying
        return fixed, stride, uniform, varying

    def pointer(self, b: Buffer, uniform: list[tuple[int, Expr, int]], fixed: int) -> str:
        """Where the element at these terms lies. Outer terms are added first, each in front of the loops that do not change it."""
        at, scalar, key = self.pointers[b], memory_element(b.dtype), (b,)
        for level, term, c in sorted(uniform, key=lambda t: t[0]):
            key = (*key, term, c)  # type: ignore[assignment]
            found = self.memo.get(key)
            if found is None:
                step = self.scalar(term)
                level = max(level, self.memo[term][1])
                self.place(level)
                if c != 1:
                    step = self.emit(f"mul i64 {step}, {c}")
                at = self.emit(f"getelementptr inbounds {scalar}, ptr {at}, i64 {step}")
                self.bind(key, at, level)
            else:
                at = found[0]
        self.out = self.stream
        return self.emit(f"getelementptr inbounds {scalar}, ptr {at}, i64 {fixed}") if fixed else at

    def load(self, e: Expr) -> Value:
        b: Buffer = e["buffer"]
        index, guard = (e.args[:-1], e.args[-1]) if e["masked"] else (e.args, None)
        fixed, stride, uniform, varying = self.split(self.offset(b, index))
        if b in self.registers:
            return self.load_register(b, fixed, stride, uniform, varying)
        lanes = self.lanes
        condition = self.value(guard) if guard is not None else None
        base = self.pointer(b, uniform, fixed)
        if lanes is None or (stride == 0 and not isinstance(condition, tuple)):
            self.out = self.stream
            if lanes is not None and lanes.some is not None:
                condition = lanes.some if condition is None else self.emit(f"and i1 {lanes.some}, {condition}")
            return memory.load_scalar(self, b.dtype, base, condition)  # type: ignore[arg-type]
        offsets = self.lane_offsets(varying)
        out = []
        for p in range(lanes.parts):
            mask = self.joined_mask(p, condition)
            if offsets is not None:
                out.append(memory.gather(self, b.dtype, lanes.n, base, offsets[p], mask))
            elif stride == 0:
                out.append(memory.load_lanes(self, b.dtype, lanes.n, base, 0, mask))
            else:
                at = self.emit(f"getelementptr inbounds {memory_element(b.dtype)}, ptr {base}, i64 {p * lanes.n * (stride or 0)}") if p else base
                out.append(memory.load_lanes(self, b.dtype, lanes.n, at, stride or 0, mask))
        return tuple(out)

    def lane_offsets(self, varying: dict[tuple[Expr, ...], int]) -> tuple[str, ...] | None:
        """The part of an offset that varies with the lane, where it is not a constant stride."""
        if not varying:
            return None
        total = const(0)
        for m, c in varying.items():
            term = const(c)
            for a in m:
                term = term * a
            total = total + term
        value = self.value(total)
        self.out = self.stream
        assert isinstance(value, tuple)
        return value

    def joined_mask(self, part: int, condition: Value | None) -> str | None:
        """The lanes of a part that live, and where the condition holds."""
        assert self.lanes is not None
        live = self.lanes.masks[part]
        if condition is None:
            return live
        mask = condition[part] if isinstance(condition, tuple) else self.broadcast("i1", condition, self.lanes.n)
        return mask if live is None else self.emit(f"and {vector('i1', self.lanes.n)} {live}, {mask}")

    def places(self, b: Buffer, fixed: int, stride: int | None, uniform: Sequence[Any], varying: dict[Any, int]) -> list[range]:
        """The constant places, per part, of an access to a register buffer."""
        if uniform or varying:
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the register buffer {b.name} is indexed by something that is not constant after "
                                         f"unrolling and vectorising; make it a stack buffer")
        if not stride or self.lanes is None:
            return [range(fixed, fixed + 1)]
        n = self.lanes.n
        return [range(fixed + p * n * stride, fixed + (p + 1) * n * stride, stride) for p in range(self.lanes.parts)]

    def load_register(self, b: Buffer, fixed: int, stride: int | None, uniform: Sequence[Any], varying: dict[Any, int]) -> Value:
        places, array = self.places(b, fixed, stride, uniform, varying), self.registers[b]
        self.out = self.stream
        if not stride or self.lanes is None:
            return array.read_one(fixed)
        return tuple(array.read(r) for r in places)

    def store(self, s: Store) -> None:
        b, value = s.buffer, self.value(s.value)
        condition = self.value(s.mask) if s.mask is not None else None
        fixed, stride, uniform, varying = self.split(self.offset(b, s.index))
        lanes = self.lanes
        if b in self.registers:
            self.store_register(s, fixed, stride, uniform, varying, value, condition)
            return
        base, offsets = self.pointer(b, uniform, fixed), self.lane_offsets(varying)
        if lanes is None or stride == 0:
            if isinstance(value, tuple) or isinstance(condition, tuple):
                raise XlcNotImplementedError(f"kernel {self.kernel.name}: the lanes of a vector loop store different values to one element of {b.name}")
            if lanes is not None and lanes.some is not None:
                condition = lanes.some if condition is None else self.emit(f"and i1 {lanes.some}, {condition}")
            self.guarded(condition, lambda: memory.store_scalar(self, b.dtype, base, value))  # type: ignore[arg-type]
            return
        parts = value if isinstance(value, tuple) else (self.spread(s.value, lanes.n),) * lanes.parts
        self.out = self.stream
        for p in range(lanes.parts):
            mask = self.joined_mask(p, condition)
            if offsets is not None:
                memory.scatter(self, b.dtype, lanes.n, base, offsets[p], parts[p], mask)
            else:
                assert stride is not None
                at = self.emit(f"getelementptr inbounds {memory_element(b.dtype)}, ptr {base}, i64 {p * lanes.n * stride}") if p else base
                memory.store_lanes(self, b.dtype, lanes.n, at, stride, parts[p], mask)

    def store_register(self, s: Store, fixed: int, stride: int | None, uniform: Sequence[Any], varying: dict[Any, int], value: Value,
                       condition: Value | None) -> None:
        array, lanes = self.registers[s.buffer], self.lanes
        places = self.places(s.buffer, fixed, stride, uniform, varying)
        self.out = self.stream
        if not stride or lanes is None:
            if isinstance(value, tuple) or isinstance(condition, tuple):
                raise XlcNotImplementedError(f"kernel {self.kernel.name}: the lanes of a vector loop store different values to one element of {s.buffer.name}")
            array.write_one(fixed, value, condition)
            return
        parts = value if isinstance(value, tuple) else (self.spread(s.value, lanes.n),) * lanes.parts
        self.out = self.stream
        for p, r in enumerate(places):
            array.write(r, parts[p], self.joined_mask(p, condition))

    def guarded(self, condition: str | None, act: Any) -> None:
        self.out = self.stream
        if condition is None or condition == "true":
            act()
            return
        yes, end = self.name("then"), self.name("end")
        self.jump(f"br i1 {condition}, label %{yes}, label %{end}")
        self.label(yes)
        act()
        self.jump(f"br label %{end}")
        self.label(end)

    # -- expressions ------------------------------------------------------------------------------

    def scalar(self, e: Expr) -> str:
        value = self.value(e)
        if isinstance(value, tuple):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: {e} differs between the lanes of a vector loop; a branch or loop bound must not")
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
                value = self.load(x)
                self.bind(x, value, self.level if x["buffer"] in self.constant else VOLATILE)
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
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the operator {x.op.name} on {x.args[0].dtype} has neither a rule on the CPU nor a "
                                         f"decomposition")
        return x.op.decompose(*x.args, **dict(x.attrs))  # type: ignore[no-any-return]

    def input(self, x: Expr) -> None:
        if x.is_const:
            self.bind(x, literal(x.dtype, x.value), 0)
        elif x.op.name == "size":
            self.bind(x, f"%n.{x['name']}", 0)
        else:
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the variable {x['name']} is used outside the loop or Let that defines it")

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
            self.bind(x, literal(i64, _FOLD[name](*(int(v) for v in values))), level)
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
        inside = self.call(f"umin.{f'v{n}' if n else ''}i64", ty, (ty, index), (ty, splat("i64", str(len(table) - 1), n)))
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
        return found[0]  # type: ignore[no-any-return]


def loop_variable(s: Loop) -> Expr:
    from xlc.ir.loops import var

    return var(s.var)


def load_variable(s: Let) -> Expr:
    from xlc.ir.loops import var

    return var(s.name, s.value.dtype)


def is_number(value: str) -> bool:
    return value.lstrip("-").isdigit()


def _numbers(scalar: str, values: Sequence[int]) -> str:
    return "<" + ", ".join(f"{scalar} {k}" for k in values) + ">"


def _digest(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:16]


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
    for st in statements(s.body):
        if isinstance(st, Store) and not seen & set(walk(st.value)):
            counts[st.buffer.dtype.bits] = counts.get(st.buffer.dtype.bits, 0) + 1
    if not counts:
        first = next((st.buffer.dtype.bits for st in statements(s.body) if isinstance(st, Store)), 32)
        return first
    return max(counts, key=lambda b: (counts[b], -b))


__all__ = ["KernelEmitter", "KernelText", "emit_kernel", "expressions", "load", "module_text", "parallel_loop"]
