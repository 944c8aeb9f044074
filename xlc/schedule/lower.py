"""Lowering: a group of nodes becomes a Kernel.

    group [%0 = multiply(%x, %x), %1 = sum(%0) {axes=(1,)}]  ->  kernel(in b0: f32[...], out b1: f32[...]) { parallel i ... }

The kind of the group, or ``tiled`` where it has stages, chooses the lowering; each returns the statements of the loop nest over flat
buffers. Names are canonical (buffers b0, b1, ... inputs first), so that equal kernels are equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from xlc.ir.loops import LOAD, SIZE, Buffer, Expr, Kernel, Stmt, Store, expressions, statements, walk
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.types import Dim
from xlc.passes.group import Group
from xlc.passes.memory import Step

from .contract import lower_contraction
from .inline import Places, flat
from .map import lower_map
from .ordered import lower_ordered
from .reduce import lower_reduction
from .sort import rows_in_memory
from .tile import blocks_in_memory, lower_tiles

STREAM_BYTES = 48 << 20
"""What a kernel reads and writes, from which its outputs bypass the caches at the latest, however large the last one is. Measured with 480
MiB of L3 among the cores of a socket: the next kernel, too, is then faster when it reads them from memory."""
Loads = dict[Buffer, set[Expr]]  # the addresses at which a buffer is read
Lowering = Callable[[Group, Places, Machine], "tuple[Stmt, ...] | None"]
Scratch = Callable[[Group], tuple[Node, ...]]
"""Memory that the kernel of a group needs beside its results, as nodes that nobody reads; lowerings find them among their places."""


def lower(group: Group, machine: Machine, lowerings: Mapping[str, Sequence[Lowering]], scratch: Scratch) -> Step:
    """The kernel of a group, by the first lowering of its kind that takes it."""

    inputs = group_inputs(group)
    outputs = [*group.results, *scratch(group)]
    buffers = {n: flat(n, f"b{k}") for k, n in enumerate([*inputs, *outputs])}
    body = lower_body(group, Places(buffers), machine, lowerings)
    evaluated = walk(*(e for s in statements(body) for e in expressions(s)))
    loads: dict[Buffer, set[Expr]] = {}
    for e in evaluated:
        if e.op is LOAD:
            loads.setdefault(e["buffer"], set()).add(e.args[0])
    inputs = [n for n in inputs if buffers[n] in loads]
    ins, outs = tuple(buffers[n] for n in inputs), tuple(buffers[n] for n in outputs)
    names = frozenset().union(*(s.names for b in [*ins, *outs] for s in b.shape if isinstance(s, Dim)),
                              *(s.names for s in group.extents.values() if isinstance(s, Dim)),
                              (e["name"] for e in evaluated if e.op is SIZE))
    kernel = Kernel("k", ins, outs, tuple(sorted(names)), tuple(body), inplace_pairs(body, ins, outs, loads, group), describe(group),
                    streamed_outputs(ins, outs, loads, machine))
    return Step(kernel, tuple(inputs), tuple(outputs), describe(group), group_after(group))


def lower_body(group: Group, places: Places, machine: Machine, lowerings: Mapping[str, Sequence[Lowering]]) -> tuple[Stmt, ...]:
    """The loop nest of a group."""
    kind = group.kind if group.tiling is None else "tiled"
    return next(body for lowering in lowerings[kind] if (body := lowering(group, places, machine)) is not None)


def scratch(group: Group) -> tuple[Node, ...]:
    """What the lowerings for CPUs need."""
    return blocks_in_memory(group) if group.tiling else rows_in_memory(group)


def group_inputs(group: Group) -> list[Node]:
    """What a group reads, in the order in which its members mention it."""
    return inputs_of_stages(group.stages)


def inputs_of_stages(stages: Sequence[Group]) -> list[Node]:
    own = {r for stage in stages[:-1] for r in stage.roots}
    return list(dict.fromkeys(a for stage in stages for n in stage.at for a in n.operands if a not in stage.at and a not in own))


def group_after(group: Group) -> tuple[Node, ...]:
    """What should be computed before a group, without being read by it."""
    return tuple(dict.fromkeys(a for stage in group.stages for n in stage.at for a in n.args[len(n.operands):]))


class Lowerings:
    """Lowering of many groups, by a backend's table (and what its lowerings need as ``scratch``) or that for CPUs: those that are equal but
    for what they read and write share one kernel."""

    def __init__(self, machine: Machine, lowerings: Mapping[str, Sequence[Lowering]] | None = None, scratch: Scratch = scratch):
        self.machine, self.lowerings, self.scratch = machine, lowerings or LOWERINGS, scratch
        self.known: dict[object, tuple[Step, list[int]]] = {}

    def __call__(self, group: Group) -> Step:
        inputs = group_inputs(group)
        key = structure(group, inputs)
        found = self.known.get(key)
        if found is None:
            step = lower(group, self.machine, self.lowerings, self.scratch)
            self.known[key] = step, [inputs.index(n) for n in step.inputs]
            return step
        step, used = found
        return Step(step.kernel, tuple(inputs[k] for k in used), (*group.results, *self.scratch(group)), step.note, group_after(group))


def structure(group: Group, inputs: list[Node]) -> object:
    """Everything that the lowering of a group depends on, and nothing else."""
    number = {n: ("in", k) for k, n in enumerate(inputs)}
    parts = []
    for stage in group.stages:  # a node may be in several
        number.update({n: ("at", len(number) + k) for k, n in enumerate(stage.at)})
        rows = tuple((n.op.name, n.attrs, n.type, tuple(number[a] for a in n.operands), frozenset(at)) for n, at in stage.at.items())
        parts.append((rows, tuple(number[r] for r in stage.roots), tuple(number[r] for r in stage.reductions), stage.domain, stage.reduced,
                      frozenset(stage.extents.items())))
    return tuple(n.type for n in inputs), tuple(parts), group.tiling and (
        group.tiling.shared, group.tiling.rows, group.tiling.chunk, tuple(number[r] for r in group.tiling.beside))


def inplace_pairs(body: Sequence[Stmt], inputs: Sequence[Buffer], outputs: Sequence[Buffer], loads: Loads,
                  group: Group) -> tuple[tuple[int, int], ...]:
    """(output, input) pairs that may share memory: the input is loaded only at addresses at which the output is stored, each time just
    before (all loads of an iteration come before its stores). In a reduction that holds for what is stored after the row alone; a scatter
    copies its operand before it reads or writes anything else of it."""
    full = any(v in i for r in group.roots for i in group.at[r] for v in group.reduced)
    if full or group.tiling or group.kind not in ("map", "contraction", "reduction", "indexed"):
        return ()
    stores: Loads = {}
    for s in statements(body):
        if isinstance(s, Store):
            stores.setdefault(s.buffer, set()).update(s.index)
    return tuple((o, i) for o, out in enumerate(outputs) for i, b in enumerate(inputs)
                 if b.dtype.bits == out.dtype.bits and b.size == out.size and (out not in loads or group.kind == "indexed")
                 and loads.get(b) and loads[b] <= stores.get(out, set()))


def streamed_outputs(inputs: Sequence[Buffer], outputs: Sequence[Buffer], loads: Loads, machine: Machine) -> tuple[int, ...]:
    """The outputs to be written past the caches: large ones that the kernel does not read, of a kernel that touches more memory than caches
    hold. (An ordinary store reads the line first and later drives another one out; see docs/performance.md.)"""
    sizes = {b: b.size * b.dtype.bytes for b in (*inputs, *outputs) if isinstance(b.size, int)}
    written = sum(sizes.get(b, 0) for b in outputs)
    touched = written + min(sum(sizes.get(b, 0) for b in inputs), 2 * written)  # of a table, a part is read
    enough = min(STREAM_BYTES, machine.l3 * 3 // 4)
    if touched < enough:
        return ()
    return tuple(o for o, b in enumerate(outputs) if b not in loads and sizes.get(b, 0) >= enough // 8)


def describe(group: Group) -> str:
    """What a group computes, for people: its operators in order, the dear ones first."""
    names = [n.op.name for n in reversed(group.computed) if n.op.kind not in ("view", "create")]
    if not names:
        names = [n.op.name for n in group.computed]
    head = names[:6]
    return "+".join(head) + (f"+{len(names) - 6} more" if len(names) > 6 else "")


LOWERINGS: dict[str, tuple[Lowering, ...]] = {
    "map": (lower_map,), "reduction": (lower_reduction,), "contraction": (lower_contraction, lower_reduction),
    "ordered": (lower_ordered,), "indexed": (lower_ordered,),
    "tiled": (lambda group, places, machine: lower_tiles(group, places, machine, partial(lower_body, lowerings=LOWERINGS)),)}
