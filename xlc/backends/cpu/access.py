"""Loads and stores of a kernel: from an index expression to a pointer and a distance between lanes.

    x[i*4096 + j + v], v the lane:   base %x, moved by i*4096 in front of the loop over j, by j inside it; distance 1

``registers`` holds the buffers that are not memory at all (see ``registers.py``); ``pointers`` the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import Any

from xlc.errors import XlcNotImplementedError
from xlc.ir.index import polynomial
from xlc.ir.loops import Buffer, Expr, Prefetch, Store, const, size, substitute
from xlc.ir.types import product

from . import memory
from .registers import RegisterArray
from .target import Target
from .values import VOLATILE, Value, Values, is_number
from .writer import memory_element, vector

Terms = dict[tuple[Expr, ...], int]
STACK = 1 << 20
"""Bytes of local buffers that a kernel may have."""


class Accesses(Values):
    """``constant`` are the buffers that the function never writes."""

    def __init__(self, owner: str, target: Target, constant: frozenset[Buffer], pointers: dict[Buffer, str]):
        super().__init__(owner)
        self.target, self.constant, self.pointers = target, constant, pointers
        self.block = "entry"
        self.registers: dict[Buffer, RegisterArray] = {}
        self.offsets: dict[Any, Expr] = {}
        self.streaming: frozenset[Buffer] = frozenset()  # 64-byte aligned buffers, to be written past the caches
        self.streamed = False
        self.multiples: dict[Expr, int] = {}  # loop variable -> a divisor of all its values
        self.stack_bytes = 0

    def label(self, name: str) -> None:
        self.stream.append(f"{name}:")
        self.block = name

    def jump(self, text: str) -> None:
        self.stream.append("  " + text)

    def local(self, b: Buffer) -> None:
        if b in self.registers or b in self.pointers:
            return
        count = product(b.shape)
        if not isinstance(count, int):
            raise XlcNotImplementedError(f"{self.owner}: the local buffer {b.name} has the size {count}; it must be a number")
        self.stack_bytes += 0 if b.space == "register" else count * b.dtype.bytes
        if self.stack_bytes > STACK:
            raise XlcNotImplementedError(f"{self.owner}: local buffers of {self.stack_bytes} bytes (the last: {b.name}) do not fit on a "
                                         f"thread's stack, which has room for {STACK}")
        if b.space == "register":
            most, side = self.target.lanes(b.dtype.bits), b.shape[-1]
            if len(b.shape) == 2 and b.shape[0] == side and isinstance(side, int):  # a square tile, which is transposed row by row
                most = min(most, side)
            self.registers[b] = RegisterArray(self, self.entry, b.dtype, count, most)
        else:
            self.pointers[b] = f"%{self.name('s')}"
            self.entry.append(f"  {self.pointers[b]} = alloca [{count} x {memory_element(b.dtype)}], align 64")

    def offset(self, b: Buffer, index: Sequence[Expr]) -> Expr:
        """The place of an element, in elements."""
        if len(index) == 1:
            return index[0]
        key = (b.shape, *index)
        total = self.offsets.get(key)
        if total is None:
            total = const(0)
            for k, i in enumerate(index):
                total = total + i * size(product(b.shape[k + 1:]))
            self.offsets[key] = total
        return total

    def divisor(self, e: Expr) -> int:
        """A number that divides every value of an i64 expression."""
        return gcd(*(c * prod(self.multiples.get(a, 1) for a in m) for m, c in polynomial(e).items()))

    def streams(self, s: Store, stride: int | None) -> bool:
        """Whether whole aligned vectors are written, to a buffer that is to be written past the caches."""
        assert self.lanes is not None
        if s.buffer not in self.streaming or stride != 1 or s.mask is not None or self.lanes.n * s.buffer.dtype.bytes < 32:
            return False
        at = substitute(self.offset(s.buffer, s.index), {self.lanes.variable: const(0)})
        return self.divisor(at) % self.lanes.n == 0

    def split(self, offset: Expr) -> tuple[int, int | None, list[tuple[int, Expr, int]], Terms]:
        """An offset as (constant, lane stride or None, [(level, product of uniform atoms, coefficient)], what else varies with
        the lane)."""
        fixed, stride, uniform = 0, 0, []
        varying: Terms = {}
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

    def load(self, e: Expr) -> tuple[Value, int]:
        b: Buffer = e["buffer"]
        index, guard = (e.args[:-1], e.args[-1]) if e["masked"] else (e.args, None)
        fixed, stride, uniform, varying = self.split(self.offset(b, index))
        level = self.level if b in self.constant else VOLATILE
        if b in self.registers:
            return self.load_register(b, fixed, stride, uniform, varying), level
        lanes = self.lanes
        condition = self.value(guard) if guard is not None else None
        base = self.pointer(b, uniform, fixed)
        if lanes is None or (stride == 0 and not isinstance(condition, tuple)):
            self.out = self.stream
            if lanes is not None and lanes.some is not None:
                condition = lanes.some if condition is None else self.emit(f"and i1 {lanes.some}, {condition}")
            return memory.load_scalar(self, b.dtype, base, condition), level  # type: ignore[arg-type]
        offsets, scalar = self.lane_offsets(varying), memory_element(b.dtype)
        out = []
        for p in range(lanes.parts):
            mask = self.joined_mask(p, condition)
            if offsets is not None:
                out.append(memory.gather(self, b.dtype, lanes.n, base, offsets[p], mask))
            elif stride == 0:
                out.append(memory.load_lanes(self, b.dtype, lanes.n, base, 0, mask))
            else:
                at = self.emit(f"getelementptr inbounds {scalar}, ptr {base}, i64 {p * lanes.n * (stride or 0)}") if p else base
                out.append(memory.load_lanes(self, b.dtype, lanes.n, at, stride or 0, mask))
        return tuple(out), level

    def lane_offsets(self, varying: Terms) -> tuple[str, ...] | None:
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
            raise XlcNotImplementedError(f"{self.owner}: the register buffer {b.name} is indexed by something that is not constant after "
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
                raise self.conflict(s)
            if lanes is not None and lanes.some is not None:
                condition = lanes.some if condition is None else self.emit(f"and i1 {lanes.some}, {condition}")
            self.guarded(condition, lambda: memory.store_scalar(self, b.dtype, base, value))
            return
        parts = value if isinstance(value, tuple) else (self.spread(s.value, lanes.n),) * lanes.parts
        streams = self.streams(s, stride)
        self.streamed |= streams
        self.out = self.stream
        for p in range(lanes.parts):
            mask = self.joined_mask(p, condition)
            if offsets is not None:
                memory.scatter(self, b.dtype, lanes.n, base, offsets[p], parts[p], mask)
            else:
                assert stride is not None
                at = self.emit(f"getelementptr inbounds {memory_element(b.dtype)}, ptr {base}, i64 {p * lanes.n * stride}") if p else base
                memory.store_lanes(self, b.dtype, lanes.n, at, stride, parts[p], mask, streams)

    def prefetch(self, s: Prefetch) -> None:
        """Into every level of cache."""
        fixed, _, uniform, _ = self.split(self.offset(s.buffer, s.index))
        at = self.emit(f"getelementptr {memory_element(s.buffer.dtype)}, ptr {self.pointer(s.buffer, uniform, fixed)}, i64 {s.distance}")
        self.declared.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.do(f"call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 3, i32 1)")

    def store_register(self, s: Store, fixed: int, stride: int | None, uniform: Sequence[Any], varying: dict[Any, int], value: Value,
                       condition: Value | None) -> None:
        array, lanes = self.registers[s.buffer], self.lanes
        places = self.places(s.buffer, fixed, stride, uniform, varying)
        self.out = self.stream
        if not stride or lanes is None:
            if isinstance(value, tuple) or isinstance(condition, tuple):
                raise self.conflict(s)
            array.write_one(fixed, value, condition)
            return
        parts = value if isinstance(value, tuple) else (self.spread(s.value, lanes.n),) * lanes.parts
        self.out = self.stream
        for p, r in enumerate(places):
            array.write(r, parts[p], self.joined_mask(p, condition))

    def conflict(self, s: Store) -> XlcNotImplementedError:
        return XlcNotImplementedError(f"{self.owner}: the lanes of a vector loop store different values to one element of {s.buffer.name}")

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
