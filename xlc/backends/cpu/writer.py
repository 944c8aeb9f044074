"""Writing LLVM text: types, literals, fresh names, and where instructions go.

A value is its LLVM text, without its type: ``%v12``, ``7``, ``splat (float 0x3FF0000000000000)``. How a dtype is held in a register:

    bool i1 | i8..u64 iN | f16 and bf16 i16 (their bits) | f32 float | f64 double

and in memory the same, but bool as i8. ``n`` is the number of lanes; 0 is a scalar.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from xlc.ir.types import DType

Lines = list[Any]  # strings, and nested Lines: places that are filled later

_BITS = {"bool": "i1", "f16": "i16", "bf16": "i16", "f32": "float", "f64": "double"}


def element(d: DType) -> str:
    """The scalar LLVM type that holds a value of the dtype in a register."""
    return _BITS.get(d.name) or f"i{d.bits}"


def memory_element(d: DType) -> str:
    return "i8" if d.kind == "b" else element(d)


def vector(scalar: str, n: int) -> str:
    return f"<{n} x {scalar}>" if n else scalar


def mangled(scalar: str, n: int) -> str:
    """The type as intrinsics name it: v16f32."""
    short = {"float": "f32", "double": "f64", "ptr": "p0"}.get(scalar, scalar)
    return f"v{n}{short}" if n else short


def suffix(d: DType, n: int) -> str:
    """The type that holds a dtype, as intrinsics name it."""
    return mangled(element(d), n)


def literal(d: DType, value: Any) -> str:
    """A constant of the dtype, as a scalar."""
    if d.name in ("f32", "f64"):
        return "0x" + struct.pack(">d", float(value)).hex().upper()
    if d.is_float:
        return str(int.from_bytes(d.numpy.type(float(value)).tobytes(), "little"))
    if d.kind == "b":
        return "true" if value else "false"
    return str((int(value) + (1 << (d.bits - 1))) % (1 << d.bits) - (1 << (d.bits - 1)))


def splat(scalar: str, text: str, n: int) -> str:
    """A scalar literal in every lane."""
    return f"splat ({scalar} {text})" if n else text


def flatten(lines: Lines) -> Iterable[str]:
    for line in lines:
        if isinstance(line, str):
            yield line
        else:
            yield from flatten(line)


class Writer:
    """Instructions of one function. ``out`` is where they are appended now; ``work`` counts them, each as often as it runs where
    that is known."""

    def __init__(self) -> None:
        self.out: Lines = []
        self.count = 0
        self.work = 0.0
        self.declared: set[str] = set()

    def name(self, stem: str = "v") -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def emit(self, text: str) -> str:
        """An instruction that has a result; its name."""
        self.count += 1
        self.work += 1
        name = f"%v{self.count}"
        self.out.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self.work += 1
        self.out.append("  " + text)

    def call(self, intrinsic: str, ty: str, *args: tuple[str, str]) -> str:
        """Call an intrinsic whose declaration LLVM knows by its name."""
        return self.emit(f"call {ty} @llvm.{intrinsic}({', '.join(f'{t} {a}' for t, a in args)})")

    def select(self, n: int, mask: str, scalar: str, a: str, b: str) -> str:
        ty = vector(scalar, n)
        return self.emit(f"select {vector('i1', n)} {mask}, {ty} {a}, {ty} {b}")

    def shuffle(self, scalar: str, n: int, a: str, b: str, lanes: Iterable[int]) -> str:
        """Lanes of ``a`` (0..n-1) and ``b`` (n..), picked."""
        picked = list(lanes)
        mask = ", ".join(f"i32 {k}" if k >= 0 else "i32 poison" for k in picked)
        return self.emit(f"shufflevector <{n} x {scalar}> {a}, <{n} x {scalar}> {b}, <{len(picked)} x i32> <{mask}>")

    def broadcast(self, scalar: str, value: str, n: int) -> str:
        """A scalar in every lane."""
        if not n:
            return value
        if not value.startswith("%"):
            return splat(scalar, value, n)
        one = self.emit(f"insertelement <{n} x {scalar}> poison, {scalar} {value}, i64 0")
        return self.emit(f"shufflevector <{n} x {scalar}> {one}, <{n} x {scalar}> poison, <{n} x i32> zeroinitializer")
