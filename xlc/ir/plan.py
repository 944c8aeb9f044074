"""The Plan: what runs, in order, and where every buffer lies.

    plan main sizes(batch) {
      %x: f32[batch,784] = param 0
      %h: f32[batch,500] = arena 0
      %y: f32[batch,10]  = result 0
      %w: f32[784,500]   = const 0
      k0(%x, %w) -> (%h)
      k1(%h) -> (%y)
    } arena batch*2000+48
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .loops import Kernel
from .node import Array
from .types import Size, Type

PLACES = ("param", "result", "const", "arena")
ALIGNMENT = 64


@dataclass(frozen=True)
class Slot:
    """One buffer of the plan. ``place`` is one of PLACES; ``at`` is the index of the parameter, result or constant, or the byte offset in
    the arena (a Size: affine in the symbols, always a multiple of 64)."""

    name: str
    type: Type
    place: str
    at: Size


@dataclass(frozen=True)
class Launch:
    """Run a kernel: ``inputs`` and ``outputs`` name slots, in the order of the kernel's buffers."""

    kernel: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """``kernels`` holds each distinct kernel once. ``lower_bound`` is the largest set of bytes alive at once (the least any arena can be
    for this order of launches). ``donated`` lists (result index, parameter index) pairs that share memory."""

    name: str
    sizes: tuple[str, ...]
    slots: tuple[Slot, ...]
    launches: tuple[Launch, ...]
    kernels: tuple[Kernel, ...]
    constants: tuple[Array, ...]
    arena: Size
    lower_bound: Size
    donated: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def arena_bytes(self) -> Size:
        return self.arena

    @property
    def lower_bound_bytes(self) -> Size:
        return self.lower_bound

    def slot(self, name: str) -> Slot:
        return self.by_name[name]

    @property
    def by_name(self) -> dict[str, Slot]:
        return {s.name: s for s in self.slots}

    def __str__(self) -> str:
        from .text import print_plan

        return print_plan(self)

    __repr__ = __str__
