"""The Plan: what runs, in order, and where every buffer lies.

    plan main sizes(batch) {
      %x: f32[batch,784] = param 0
      %h: f32[batch,500] = arena 0
      %y: f32[batch,10]  = result 0
      %w: f32[784,500]   = const 0
      k0(%x, %w) -> (%h)
      k1(%h) -> (%y)
    } arena batch*2000+48

Control flow stands among the launches, with plans of its own for what it runs:

      loop(%w, %h0, %xs) -> (%h, %ys, %a) fixed 1 carries 1 trips 10 {
        plan step {
          %w: f32[8,8] = param 0         the same in every iteration
          %h: f32[8]   = param 1         where %h lies, which is %h0 at first
          %x: f32[8]   = param 2         row i of %xs
          ...
        } arena 64
      }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

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
class Loop:
    """Run ``body`` ``trips`` times, or (None) while its first carry, a bool, is true.

    inputs    ``fixed`` slots, which are the body's first parameters; the initial values of the ``carries``; slots of which iteration i
              sees row i (with ``reverse`` row trips-1-i)
    outputs   the carries, which live here and are updated here; slots of which the body writes row i; for each carry that the body does
              not write over the old one (its ``donated``) a slot with which it changes places after every iteration; the body's arena"""

    body: Plan
    trips: Size | None
    reverse: bool
    fixed: int
    carries: int
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    note: str = ""

    @property
    def bodies(self) -> tuple[Plan, ...]:
        return (self.body,)

    @property
    def rows(self) -> int:
        """How many results the body writes row by row."""
        return sum(s.place == "result" for s in self.body.slots) - self.carries

    @property
    def swapped(self) -> tuple[int, ...]:
        """The carries that the body does not write over the old ones."""
        there = {r for r, _ in self.body.donated}
        return tuple(j for j in range(self.carries) if j not in there)

    @property
    def inplace(self) -> tuple[tuple[int, int], ...]:
        """A carry may live where its initial value lies."""
        return tuple((j, self.fixed + j) for j in range(self.carries))


@dataclass(frozen=True)
class Branch:
    """Run one of the bodies: inputs are the index (i64, clamped), then what every body takes; outputs what every body gives, then memory
    for the arena of any of them."""

    bodies: tuple[Plan, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    note: str = ""

    @property
    def inplace(self) -> tuple[tuple[int, int], ...]:
        return ()


Entry = Launch | Loop | Branch


@dataclass(frozen=True)
class Plan:
    """``kernels`` holds each distinct kernel once, those of inner plans too. ``lower_bound`` is the largest set of bytes alive at once (the
    least any arena can be for this order of launches). ``donated`` lists (result index, parameter index) pairs that share memory."""

    name: str
    sizes: tuple[str, ...]
    slots: tuple[Slot, ...]
    launches: tuple[Entry, ...]
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

    def everywhere(self) -> Iterator[tuple[Plan, Launch]]:
        """Every launch of a kernel, in order, with the plan (this or an inner one) that it stands in."""
        for x in self.launches:
            if isinstance(x, Launch):
                yield self, x
            else:
                for body in x.bodies:
                    yield from body.everywhere()

    def renamed(self, kernels: Mapping[str, Kernel]) -> Plan:
        """The same plan with other kernels for its own."""
        def entry(x: Entry) -> Entry:
            if isinstance(x, Launch):
                return replace(x, kernel=kernels[x.kernel].name)
            if isinstance(x, Loop):
                return replace(x, body=x.body.renamed(kernels))
            return replace(x, bodies=tuple(b.renamed(kernels) for b in x.bodies))

        used = tuple({k.name: k for old in self.kernels for k in (kernels[old.name],)}.values())
        return replace(self, launches=tuple(map(entry, self.launches)), kernels=used)

    def __str__(self) -> str:
        from .text import print_plan

        return print_plan(self)

    __repr__ = __str__


def same_place(plan: Plan, a: Slot, b: Slot) -> bool:
    """Whether a slot lies exactly where another does."""
    return (a.place == b.place == "arena" and a.at == b.at) or (a.place == "result" and b.place == "param" and (a.at, b.at) in plan.donated)


def aliases(plan: Plan, launch: Launch) -> frozenset[int]:
    """Positions (inputs, then outputs) of the buffers of a launch that share memory with another one, of which one is written."""
    slots = [plan.by_name[n] for n in (*launch.inputs, *launch.outputs)]
    found: set[int] = set()
    for o in range(len(launch.inputs), len(slots)):
        for k in range(o):
            if slots[k] is slots[o] or same_place(plan, slots[o], slots[k]):
                found |= {k, o}
    return frozenset(found)
