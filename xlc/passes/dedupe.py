"""Kernels that are equal up to the names of kernels, buffers and variables are kept, and compiled, once.

    kernel a(in x: f32[8], out y: f32[8]) { ... y[i] = x[i] ... }
    kernel b(in p: f32[8], out q: f32[8]) { ... q[j] = p[j] ... }      ->  k0, k0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..ir.loops import CONST, LOAD, VAR, Buffer, Expr, If, Kernel, Let, Local, Loop, Mma, Prefetch, Stmt, Store, Wait, expressions


def dedupe(kernels: Sequence[Kernel]) -> tuple[tuple[Kernel, ...], list[str]]:
    """The distinct kernels, named k0, k1, ... in order of first use, and for each given kernel the name of the one that stands for it."""
    kept: dict[Any, Kernel] = {}
    names = []
    for k in kernels:
        key = structure(k)
        if key not in kept:
            kept[key] = replace(k, name=f"k{len(kept)}")
        names.append(kept[key].name)
    return tuple(kept.values()), names


def structure(kernel: Kernel) -> tuple[Any, ...]:
    """A value that is equal for two kernels exactly if a one-to-one renaming of kernel, buffers and variables makes them equal.
    Linear in the number of distinct expressions."""
    return _Structure().of(kernel)


class _Structure:
    def __init__(self) -> None:
        self.names: dict[tuple[str, str], int] = {}
        self.ids: dict[int, int] = {}
        self.rows: list[tuple[Any, ...]] = []

    def name(self, space: str, name: str) -> int:
        return self.names.setdefault((space, name), len(self.names))

    def buffer(self, b: Buffer) -> tuple[Any, ...]:
        return self.name("buffer", b.name), b.dtype.name, b.shape, b.space

    def of(self, k: Kernel) -> tuple[Any, ...]:
        buffers = tuple([self.buffer(b) for b in k.inputs]), tuple([self.buffer(b) for b in k.outputs])
        head = *buffers, k.sizes, k.inplace, k.streaming, k.library
        return head, self.body(k.body), tuple(self.rows)

    def body(self, body: Sequence[Stmt]) -> tuple[Any, ...]:
        return tuple([self.statement(s) for s in body])

    def statement(self, s: Stmt) -> tuple[Any, ...]:
        match s:
            case Store():
                return ("store", self.buffer(s.buffer), tuple([self.expr(e) for e in s.index]), self.expr(s.value),
                        None if s.mask is None else self.expr(s.mask))
            case Let():
                return "let", self.expr(s.value), self.name("variable", s.name)
            case Prefetch():
                return "prefetch", self.buffer(s.buffer), tuple([self.expr(e) for e in s.index]), s.distance
            case Mma():
                return ("mma", *map(self.buffer, (s.acc, s.a, s.b)), *map(self.expr, expressions(s)), s.a_steps, s.b_steps, s.shape,
                        s.products)
            case Wait():
                return "wait", s.left
            case Local():
                return "local", self.buffer(s.buffer)
            case If():
                return "if", self.expr(s.condition), self.body(s.body), self.body(s.orelse)
            case Loop():
                bounds = self.expr(s.start), self.expr(s.stop)
                return "for", self.name("variable", s.var), bounds, s.step, s.kind, s.width, self.body(s.body)

    def expr(self, root: Expr) -> int:
        """The number of the expression's row; rows of arguments come first."""
        ids = self.ids
        stack = [root]
        while stack:
            e = stack[-1]
            if id(e) in ids:
                stack.pop()
                continue
            missing = [a for a in e.args if id(a) not in ids]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            if e.op is VAR:
                attrs: Any = self.name("variable", e["name"])
            elif e.op is LOAD:
                attrs = self.buffer(e["buffer"]), e["masked"]
            elif e.op is CONST:
                attrs = (e.attrs[0][1].__class__.__name__, e.attrs[0][1])
            else:
                attrs = e.attrs
            ids[id(e)] = len(self.rows)
            self.rows.append((e.op.name, e.dtype.name, attrs, *[ids[id(a)] for a in e.args]))
        return ids[id(root)]
