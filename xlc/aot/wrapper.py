"""The C-callable functions around a compiled plan, as LLVM text, and the object file that holds both together with the constants.

    object_file(interface, plan, constants, target)    ->    bytes: an object that exports mlp, mlp_parallel, mlp_workspace_size,
    mlp_signature

Everything else in it is internal. Constants lie in read-only data. A large one is not written as text: its place is emitted as a mark
followed by zeros, and its bytes are put there afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..backends.cpu.compile import compile_text
from ..backends.cpu.entry import emit_plan, symbol
from ..backends.cpu.target import Target
from ..errors import XlcError
from ..ir.plan import ALIGNMENT, Plan
from ..ir.types import Dim, Quotient, Size
from .interface import MARK, Interface

_TEXT = 4096  # bytes up to which a constant is written as text


def object_file(interface: Interface, plan: Plan, constants: Sequence[np.ndarray], assumptions: Sequence[Size], target: Target) -> bytes:
    """One object file. ``assumptions`` are sizes that must not be negative for the program to be right."""
    (program,) = emit_plan(plan, target)
    program = program.replace("define dso_local ", "define internal ").replace("define hidden ", "define internal ")
    data = [np.ascontiguousarray(c).reshape(-1).view(np.uint8) for c in constants]
    parts = [program, *(_constant(f"{interface.name}.c{i}", d) for i, d in enumerate(data)),
             *_functions(interface, plan, len(data), assumptions)]
    return _filled(compile_text("\n".join(parts), target), interface.name, data)


def _functions(interface: Interface, plan: Plan, constants: int, assumptions: Sequence[Size]) -> list[str]:
    name, entry = interface.name, symbol(plan.name)
    sizes = [f"i64 %n.{s}" for s in interface.sizes]
    buffers = [*(f"%in.{p.name}" for p in interface.inputs), *(f"%out.{p.name}" for p in interface.outputs)]
    order = sorted(interface.sizes)  # the order of the ABI
    arguments = ", ".join([*sizes, *(f"ptr {b}" for b in buffers), "ptr %workspace"])
    text = MARK + interface.json()

    body = [f"  %buffers = alloca [{len(buffers) + constants} x ptr], align 8"]
    for i, b in enumerate([*buffers, *(f"@{name}.c{i}" for i in range(constants))]):
        body += [f"  %at.{i} = getelementptr inbounds ptr, ptr %buffers, i64 {i}", f"  store ptr {b}, ptr %at.{i}, align 8"]
    dims, given = _dims(order)
    checks = _Checks()
    for s in assumptions:
        checks.at_least_0(s)
    main = [f"define i32 @{name}_parallel({arguments}, ptr %par) #0 {{", "start:", *body, *dims,
            f"  %needed = call i64 @{entry}_workspace(ptr {given})",
            "  %where = ptrtoint ptr %workspace to i64", f"  %low = and i64 %where, {ALIGNMENT - 1}", "  %crooked = icmp ne i64 %low, 0",
            "  %absent = icmp eq i64 %where, 0", "  %wrong = or i1 %crooked, %absent", "  %used = icmp sgt i64 %needed, 0",
            "  %bad = and i1 %wrong, %used",
            *checks.lines, f"  br i1 {checks.failed}, label %misfit, label %fits", "misfit:", "  ret i32 1",
            "fits:", "  br i1 %bad, label %reject, label %run", "reject:", "  ret i32 2",
            "run:", f"  %code = call i32 @{entry}(ptr %buffers, ptr {given}, ptr %workspace, ptr %par)", "  ret i32 %code", "}"]
    serial = [f"define i32 @{name}({arguments}) #0 {{",
              f"  %code = call i32 @{name}_parallel({arguments}, ptr null)", "  ret i32 %code", "}"]
    workspace = [f"define i64 @{name}_workspace_size({', '.join(sizes)}) #0 {{", *dims,
                 f"  %bytes = call i64 @{entry}_workspace(ptr {given})", "  ret i64 %bytes", "}"]
    raw = text.encode() + b"\0"
    signature = [_constant(f"{name}.json", np.frombuffer(raw, np.uint8), as_text=True),
                 f"define ptr @{name}_signature() #0 {{", f"  %at = getelementptr inbounds i8, ptr @{name}.json, i64 {len(MARK)}",
                 "  ret ptr %at", "}"]
    return ["\n".join(part) for part in (main, serial, workspace, signature)]


def _dims(order: Sequence[str]) -> tuple[list[str], str]:
    """Instructions that put the sizes in memory, and where that is."""
    if not order:
        return [], "null"
    lines = [f"  %dims = alloca [{len(order)} x i64], align 8"]
    for i, s in enumerate(order):
        lines += [f"  %dim.{i} = getelementptr inbounds i64, ptr %dims, i64 {i}", f"  store i64 %n.{s}, ptr %dim.{i}, align 8"]
    return lines, "%dims"


class _Checks:
    """LLVM text that computes sizes and notes whether one is negative."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failed = "false"

    def emit(self, instruction: str) -> str:
        name = f"%check.{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def at_least_0(self, s: Size) -> None:
        negative = self.emit(f"icmp slt i64 {self.value(s)}, 0")
        self.failed = self.emit(f"or i1 {self.failed}, {negative}")

    def value(self, s: Size) -> str:
        if not isinstance(s, Dim):
            return str(s)
        total = "0"
        for monomial, coefficient in s.terms:
            term = str(coefficient)
            for atom, power in monomial:
                value = self._quotient(atom) if isinstance(atom, Quotient) else f"%n.{atom}"
                for _ in range(power):
                    term = self.emit(f"mul i64 {term}, {value}")
            total = self.emit(f"add i64 {total}, {term}")
        return total

    def _quotient(self, q: Quotient) -> str:
        """Rounded down, the denominator being positive."""
        a, d = self.value(q.numerator), q.denominator
        rest = self.emit(f"srem i64 {a}, {d}")
        below = self.emit(f"icmp slt i64 {rest}, 0")
        one = self.emit(f"zext i1 {below} to i64")
        return self.emit(f"sub i64 {self.emit(f'sdiv i64 {a}, {d}')}, {one}")


# ------------------------------------------------------------------------------------------------ constants


def _mark(symbol: str, size: int) -> bytes:
    """32 bytes that nothing else in the object holds."""
    return hashlib.sha256(f"{symbol} {size} place of a constant".encode()).digest()


_ESCAPED = np.array([list(b"\\%02X" % i) for i in range(256)], np.uint8)


def _quoted(data: np.ndarray) -> str:
    return _ESCAPED[data].tobytes().decode()


def _constant(symbol: str, data: np.ndarray, as_text: bool = False) -> str:
    head = f"@{symbol} = internal constant"
    if as_text or data.size <= _TEXT:
        return f'{head} [{data.size} x i8] c"{_quoted(data)}", align {ALIGNMENT}'
    mark = np.frombuffer(_mark(symbol, data.size), np.uint8)
    rest = data.size - mark.size
    place = f'[{mark.size} x i8] c"{_quoted(mark)}", [{rest} x i8] zeroinitializer'
    return f"{head} {{ [{mark.size} x i8], [{rest} x i8] }} {{ {place} }}, align {ALIGNMENT}"


def _filled(code: bytes, name: str, data: Sequence[np.ndarray]) -> bytes:
    """The object with the large constants in their places."""
    large = [(i, d) for i, d in enumerate(data) if d.size > _TEXT]
    if not large:
        return code
    out = bytearray(code)
    for i, d in large:
        mark = _mark(f"{name}.c{i}", d.size)
        at = code.find(mark)
        if at < 0 or code.find(mark, at + 1) >= 0 or at + d.size > len(code):
            raise XlcError(f"the place of constant {i} was not found in the object file of {name}")
        out[at:at + d.size] = memoryview(d)  # type: ignore[arg-type]
    return bytes(out)
