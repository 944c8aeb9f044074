"""What the compiler did, in plain words: kernels and why they are what they are, memory, work, and what the machine allows.

    explain(compilation, machine) -> text
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node, make
from xlc.ir.plan import Branch, Loop, Plan
from xlc.ir.types import Dim, Size, product
from xlc.ops.shape import barrier
from xlc.passes.cost import op_cost
from xlc.passes.group import Group, in_memory, is_free
from xlc.passes.memory import Step
from xlc.passes.recompute import refusals

_SYMBOL = 64  # the value assumed for a named size in estimates


@dataclass(frozen=True)
class Work:
    """Floating-point (or integer) operations and the bytes that must cross from or to memory."""

    flops: Size
    bytes: Size

    @property
    def intensity(self) -> float:
        return number(self.flops) / max(number(self.bytes), 1)


def number(s: Size) -> int:
    """A size, named ones taken as 64."""
    return s.evaluate(dict.fromkeys(s.names, _SYMBOL)) if isinstance(s, Dim) else s


def node_flops(n: Node) -> Size:
    """Operations that one node takes."""
    if n.op.kind == "elementwise":
        return n.type.size * op_cost(n)
    if n.op.kind in ("reduction", "ordered"):
        return n.args[0].type.size
    if n.op.kind == "contraction":
        return n.type.size * product(n.args[0].shape[d] for d in n["contract"][0]) * 2
    return 0


def work_of(group: Group, step: Step) -> Work:
    flops: Size = 0
    for n in group.computed:
        flops = node_flops(n) + flops
    moved: Size = 0
    for n in (*step.inputs, *step.outputs):
        moved = n.type.bytes + moved
    return Work(flops, moved)


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 'es' if noun.endswith('h') else 's'}"


def human(n: float, unit: str = "B") -> str:
    for prefix in ("", "K", "M", "G", "T"):
        if n < 1000:
            return f"{n:.3g} {prefix}{unit}"
        n /= 1000
    return f"{n:.3g} P{unit}"


def explain(done: Any, machine: Machine) -> str:
    """The report of one compilation (``xlc.pipeline.Compilation``)."""
    plan: Plan = done.plan
    source = [n for n in done.source.everywhere() if not in_memory(n) and not is_free(n)]
    lines = [f"{plan.name}: {counted(len(source), 'operation')} became {counted(len(list(plan.everywhere())), 'kernel launch')}"
             f" ({counted(len(plan.kernels), 'distinct kernel')})."]
    _explain_steps(done.stages, machine, lines, "  ", itertools.count())
    total_flops: Size = 0
    total_bytes: Size = 0
    for group, step in done.stages.kernels():
        work = work_of(group, step)
        total_flops, total_bytes = work.flops + total_flops, work.bytes + total_bytes
    arena, bound = plan.arena, plan.lower_bound
    ratio = number(arena) / number(bound) if number(bound) else 1.0
    lines.append(f"  memory: arena {_size(arena)}, least possible for this order {_size(bound)} (ratio {ratio:.3f}); "
                 f"{counted(len(plan.constants), 'constant')}")
    if again := rematerialised(done.graphs.get("simplify", done.source)):
        lines.append(f"  rematerialised: {again}")
    lines.extend(f"  {why}" for why in _stored(done, machine))
    once = ", every body once" if any(s.bodies for s in done.steps) else ""
    lines.append(f"  in all {human(number(total_flops), 'flop')} and {human(number(total_bytes))} of traffic{once}")
    lines.extend(f"  {note}" for note in (*done.partition.notes, *plan.notes))
    return "\n".join(lines)


def _explain_steps(stages: Any, machine: Machine, lines: list[str], indent: str, numbers: Iterator[int]) -> None:
    """A few lines for each kernel; loops and branches with what is inside them."""
    flops_per_cycle = 2 * 2 * machine.lanes(32)
    for group, step in zip(stages.partition.groups, stages.steps, strict=True):
        operands = f"reads {', '.join(map(_tensor, step.inputs)) or 'nothing'}; writes {', '.join(map(_tensor, step.outputs))}"
        if step.bodies:
            lines += [f"{indent}{_describe_region(step)}", f"{indent}    {operands}"]
            for body in step.bodies:
                _explain_steps(body, machine, lines, indent + "  ", numbers)
        else:
            work = work_of(group, step)
            ridge = flops_per_cycle / 8  # operations per byte at which arithmetic takes as long as memory (8 bytes a cycle a core)
            limit = "memory" if work.intensity < ridge else "arithmetic"
            lines += [f"{indent}kernel {next(numbers)} ({group.kind}): {describe_members(group)}", f"{indent}    {operands}",
                      f"{indent}    {human(number(work.flops), 'flop')}, {human(number(work.bytes))} moved, {work.intensity:.2g} flop/B:"
                      f" bound by {limit} (roofline: {_roofline(work, machine)})"]
        for n, why in ((n, why) for stage in group.stages for n, why in stage.why.items()):
            lines.append(f"{indent}    {n.op.name} {n.type}{_line(n)} is not fused here: {why}")


def _describe_region(step: Step) -> str:
    what = step.kernel
    if isinstance(what, Branch):
        return f"one of {counted(len(what.bodies), 'branch')}: {step.note}"
    times = "while its first carry is true" if not isinstance(what, Loop) or what.trips is None else f"{what.trips} times"
    swapped = len(what.swapped) if isinstance(what, Loop) else 0
    carries = what.carries if isinstance(what, Loop) else 0
    return f"loop {step.note}, {times}: {counted(carries, 'carry').replace('carrys', 'carries')}, {carries - swapped} updated in place"


@dataclass(frozen=True)
class Rematerialised:
    """What a program computes twice so as not to keep it: ``again`` are the nodes of the second time, ``kept`` the values that they start
    from, ``spared`` the values among the first ones that nobody keeps."""

    again: tuple[Node, ...]
    kept: tuple[Node, ...]
    spared: tuple[Node, ...]

    def __str__(self) -> str:
        flops, kept, spared = (sum(number(s) for s in sizes) for sizes in (
            map(node_flops, self.again), (n.type.bytes for n in self.kept), (n.type.bytes for n in self.spared)))
        return (f"{counted(len(self.again), 'operation')} ({human(flops, 'flop')}) run again in the backward pass, from "
                f"{counted(len(self.kept), 'value')} ({human(kept)}) that are kept, in place of {counted(len(self.spared), 'value')} "
                f"({human(spared)}) that are not")


def rematerialised(graph: Graph) -> Rematerialised | None:
    """What the graph rematerialises: nodes that are others of its nodes, but for barriers."""
    bare: dict[Node, Node] = {}
    for n in graph.nodes():
        args = tuple(bare[a] for a in n.args)
        bare[n] = args[0] if n.op is barrier else n if args == n.args else make(n.op, args, n.type, n.attrs)
    twice = {n: b for n, b in bare.items() if n.op is not barrier and b is not n and b in bare}
    again = tuple(n for n in twice if node_flops(n) or not (is_free(n) or n.op.kind == "view"))
    kept = dict.fromkeys(n.args[0] for n in bare if n.op is barrier and not in_memory(n.args[0]) and not is_free(n.args[0]))
    read = dict.fromkeys(twice[a] for n in bare if n not in twice for a in n.args if a in twice)
    return Rematerialised(again, tuple(kept), tuple(n for n in read if n not in kept)) if again else None


def _stored(done: Any, machine: Machine) -> list[str]:
    """Why what lies between contractions is not computed again by those that read it."""
    from xlc.pipeline import fusion

    return refusals(done.graphs.get("simplify", done.source), fusion(done.options, machine), machine) if done.options.fuse else []


def describe_members(group: Group) -> str:
    names: dict[str, int] = {}
    for n in reversed(group.computed):
        if n.op.name != "full":
            names[n.op.name] = names.get(n.op.name, 0) + 1
    text = ", ".join(k if c == 1 else f"{k} x{c}" for k, c in names.items()) or "full"
    computed = sum(names.values())
    return f"{text}" + (f" - {computed} operations in one loop nest" if computed > 1 else "")


def _roofline(work: Work, machine: Machine) -> str:
    cycles_compute = number(work.flops) / (4 * machine.lanes(32))
    cycles_memory = number(work.bytes) / 8
    return f"{human(max(cycles_compute, cycles_memory), 'cycles')} on one core"


def _tensor(n: Node) -> str:
    name = dict(n.attrs).get("name") if n.op.name == "parameter" else n.op.name
    return f"{name} {n.type}"


def _line(n: Node) -> str:
    return f" ({n.loc[0].rsplit('/', 1)[-1]}:{n.loc[1]})" if n.loc else ""


def _size(s: Size) -> str:
    return f"{s} B" if isinstance(s, int) else f"({s}) B"
