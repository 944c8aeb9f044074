"""Memory planning: steps (kernels on the nodes of a graph) become a Plan (launches in order, a place for each buffer).

    steps of  graph f(%x: f32[64]) { a = exp(x); b = exp(a); c = exp(b); return c }

    plan f {
      %x: f32[64]  = param 0
      %c: f32[64]  = result 0
      %t0: f32[64] = arena 0
      %t1: f32[64] = arena 0          written in place, over %t0, if the kernel allows it; else arena 256
      k0(%x) -> (%t0)
      k0(%t0) -> (%t1)
      k0(%t1) -> (%c)
    } arena 256 bound 256

Parameters, results and constants have places of their own. Every other node lives in the arena from the step that writes it through the
last step that reads it. In this order: the order of the steps is chosen (``order``), outputs take over the memory of inputs that die
(``Kernel.inplace``), results that of donated parameters, and what is left gets offsets (``arena``). ``ir.verify.verify_plan`` checks all
this without knowing how it came about. A step that is a loop or a branch has been planned before: to this plan it is one step, which writes
what it computes and the memory in which it works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import XlcValueError
from ..ir.loops import Kernel
from ..ir.node import Array, Graph, Node
from ..ir.plan import ALIGNMENT, Branch, Entry, Launch, Loop, Plan, Slot
from ..ir.sizes import aligned, at
from ..ir.text import parameter_names
from ..ir.types import Dim, Size
from .arena import SAMPLES, Span, lower_bound, pack
from .dedupe import dedupe
from .order import Task, choose_order, peak


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel (or a loop, or a branch) on its operands: nodes of the graph in the order of the kernel's buffers. ``after``: nodes that
    should be computed before, without being read (where an order of the steps allows it). ``bodies`` is what is known about the making of a
    loop's or branch's bodies (``xlc.pipeline.Stages``)."""

    kernel: Kernel | Loop | Branch
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    note: str = ""
    after: tuple[Node, ...] = ()
    bodies: tuple[Any, ...] = ()

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that are run."""
        return (self.kernel,) if isinstance(self.kernel, Kernel) else tuple(k for b in self.kernel.bodies for k in b.kernels)


def plan_memory(graph: Graph, steps: Sequence[Step], donate: Sequence[int | tuple[int, int]] = (), reorder: bool = True) -> Plan:
    """The plan of a graph that has been lowered to steps. ``steps`` are in an order in which they may run; with ``reorder`` another one
    is taken if less memory is then alive. ``donate`` are positions of parameters whose memory results may take over: any result, or for
    (parameter, result) this one.

    A result must be written by exactly one step and be returned once (insert a copy where it is not so)."""
    given = steps = tuple(steps)
    _checked(graph, steps)
    if reorder:
        steps = _ordered(graph, steps, donate)
    writer = _writers(steps)
    temporaries = [n for n in writer if n not in set(graph.results)]
    last = _last_reads(steps)
    donated = _donations(graph, steps, donate)
    owner = _in_place(steps, set(temporaries), last)

    spans: dict[Node, Span] = {}  # one for each owner of memory, for as long as anything lies in it
    for n in temporaries:
        head = owner[n]
        ends = max(last.get(n, -1), writer[n])
        spans[head] = Span(_bytes(n), spans[head].first, ends) if head in spans else Span(_bytes(n), writer[n], ends)
    offsets, arena = pack(list(spans.values()))
    offset = dict(zip(spans, offsets, strict=True))

    slots, constants = _slots(graph, steps, temporaries, {n: offset[owner[n]] for n in temporaries})
    kernels, launches = _launches(steps, slots)
    sizes = sorted(frozenset().union(*(p.type.names for p in graph.params), *(k.sizes for k in kernels), *map(_names, launches)))
    notes = _notes(steps != given, sum(owner[n] is not n for n in temporaries), sum(len(s.kernels) for s in steps) - len(kernels))
    return Plan(graph.name, tuple(sizes), tuple(slots.values()), launches, kernels, constants, arena, lower_bound(list(spans.values())),
                donated, notes)


def _launches(steps: Sequence[Step], slots: Mapping[Node, Slot]) -> tuple[tuple[Kernel, ...], tuple[Entry, ...]]:
    """The distinct kernels of all steps, and what runs them."""
    kernels, names = dedupe([k for s in steps for k in s.kernels])
    known = {k.name: k for k in kernels}
    shared = iter(names)
    launches: list[Entry] = []
    for s in steps:
        inputs, outputs = (tuple(slots[n].name for n in nodes) for nodes in (s.inputs, s.outputs))
        if isinstance(s.kernel, Kernel):
            launches.append(Launch(next(shared), inputs, outputs, s.note))
            continue
        bodies = tuple(b.renamed({k.name: known[next(shared)] for k in b.kernels}) for b in s.kernel.bodies)
        launches.append(replace(s.kernel, inputs=inputs, outputs=outputs, note=s.note,
                                **({"body": bodies[0]} if isinstance(s.kernel, Loop) else {"bodies": bodies})))
    return kernels, tuple(launches)


def _names(x: Entry) -> frozenset[str]:
    """The named sizes that a loop or branch needs beside those of its kernels."""
    if isinstance(x, Launch):
        return frozenset()
    return frozenset().union(x.trips.names if isinstance(x, Loop) and isinstance(x.trips, Dim) else (), *(b.sizes for b in x.bodies))


def _bytes(n: Node) -> Size:
    return aligned(n.type.bytes, ALIGNMENT)


def _writers(steps: Sequence[Step]) -> dict[Node, int]:
    """The step that writes each node."""
    return {n: k for k, s in enumerate(steps) for n in s.outputs}


def _last_reads(steps: Sequence[Step]) -> dict[Node, int]:
    """The step that reads each node last."""
    return {n: k for k, s in enumerate(steps) for n in s.inputs}


def _checked(graph: Graph, steps: Sequence[Step]) -> None:
    """That the steps are a program."""
    writer: dict[Node, int] = {}
    for k, s in enumerate(steps):
        if isinstance(s.kernel, Kernel) and (len(s.inputs) != len(s.kernel.inputs) or len(s.outputs) != len(s.kernel.outputs)):
            raise XlcValueError(f"memory: step {k} gives {len(s.inputs)} inputs and {len(s.outputs)} outputs to kernel {s.kernel.name}, "
                                f"which has {len(s.kernel.inputs)} and {len(s.kernel.outputs)}")
        for n in s.inputs:
            if n not in writer and n.op.name not in ("parameter", "constant"):
                raise XlcValueError(f"memory: step {k} ({s.note}) reads {n}, which no earlier step writes; only parameters and "
                                    "constants are there from the start")
        for n in s.outputs:
            if n in writer or n.op.name in ("parameter", "constant"):
                what = "was written before" if n in writer else "is an input"
                raise XlcValueError(f"memory: step {k} ({s.note}) writes {n}, which {what}")
            writer[n] = k
    for r in graph.results:
        if r not in writer:
            raise XlcValueError(f"memory: no step writes the result {r}; a parameter or constant that is returned needs a copy")
    if len(set(graph.results)) != len(graph.results):
        raise XlcValueError("memory: a node is returned twice; the second needs a copy")


def _ordered(graph: Graph, steps: tuple[Step, ...], donate: Sequence[int | tuple[int, int]]) -> tuple[Step, ...]:
    """The steps in the order that needs the least memory: the most bytes alive at once, and the results that no parameter is donated to.
    With donations that is tried a second time, where what may be written over a parameter comes after all that reads it."""
    results = {n: at(_bytes(n), SAMPLES[0]) for n in graph.results}

    def needed(steps: tuple[Step, ...], most: int) -> int:
        there = {r for r, _ in _donations(graph, steps, donate)}
        return most + sum(size for k, size in enumerate(results.values()) if k not in there)

    found, most = _least(steps, set(results))
    if not donate or len(_donations(graph, found, donate)) == len(donate):
        return found
    later = _after_reads(graph, steps, donate)
    if later is None:
        return found
    other, highest = _least(later[0], set(results), later[1])
    return other if needed(other, highest) < needed(found, most) else found


def _least(steps: tuple[Step, ...], results: set[Node], also: Mapping[int, Sequence[int]] | None = None) -> tuple[tuple[Step, ...], int]:
    """An order of the steps for which few bytes are alive at once, and how many; ``also``: further steps that must come before a step."""
    writer = _writers(steps)
    temporaries = [n for n in writer if n not in results]
    number = {n: k for k, n in enumerate(temporaries)}
    tasks = []
    for k, s in enumerate(steps):
        reads = tuple(dict.fromkeys([number[n] for n in s.inputs if n in number]))
        writes = tuple([number[n] for n in s.outputs if n in number])
        inplace = tuple([(number[s.outputs[o]], number[s.inputs[i]]) for o, i in _allowed(s)
                         if s.outputs[o] in number and s.inputs[i] in number])
        tasks.append(Task(reads, writes, inplace, tuple(dict.fromkeys([*_before(k, s, writer), *(also or {}).get(k, ())]))))
    sizes = [at(_bytes(n), SAMPLES[0]) for n in temporaries]
    order = choose_order(tasks, sizes)
    return tuple([steps[k] for k in order]), peak(order, tasks, sizes)


def _before(k: int, s: Step, writer: Mapping[Node, int]) -> list[int]:
    """The steps that must come before step k."""
    return [writer[n] for n in s.inputs if n in writer] + [w for w in _computing(s.after, writer) if w < k]


def _after_reads(graph: Graph, steps: tuple[Step, ...], donate: Sequence[int | tuple[int, int]]
                 ) -> tuple[tuple[Step, ...], dict[int, list[int]]] | None:
    """The steps in an order in which results are written after the last read of the donated parameter that they may lie in, where this can
    be, and which steps must come before which for that. None where nothing was in the way."""
    writer = _writers(steps)
    before = [0] * len(steps)  # bit sets
    for k, s in enumerate(steps):
        for w in _before(k, s, writer):
            before[k] |= before[w] | 1 << w
    readers: dict[Node, list[int]] = {}
    for k, s in enumerate(steps):
        for n in dict.fromkeys(s.inputs):
            readers.setdefault(n, []).append(k)
    edges: dict[int, list[int]] = {}
    taken: set[Node] = set()
    for p, r in _pairs(graph, steps, donate):
        w = writer[r]
        others = [k for k in readers.get(p, ()) if k != w]
        if p in taken or r in taken or any(before[k] >> w & 1 for k in others):
            continue
        taken |= {p, r}
        for k in others:
            if not before[w] >> k & 1:
                edges.setdefault(w, []).append(k)
                more = before[k] | 1 << k
                before = [b | more if j == w or b >> w & 1 else b for j, b in enumerate(before)]
    if not edges:
        return None
    order = sorted(range(len(steps)), key=lambda k: (before[k].bit_count(), k))
    place = {k: j for j, k in enumerate(order)}
    return tuple(steps[k] for k in order), {place[w]: [place[k] for k in ks] for w, ks in edges.items()}


def _pairs(graph: Graph, steps: Sequence[Step], donate: Sequence[int | tuple[int, int]]) -> Iterator[tuple[Node, Node]]:
    """Donated parameters, and results that may lie there: first those whose step may work in place."""
    only = {graph.params[d[0]]: graph.results[d[1]] for d in donate if not isinstance(d, int)}
    free = [graph.params[d if isinstance(d, int) else d[0]] for d in donate]
    for s in steps:
        for o, i in _allowed(s):
            p, r = s.inputs[i], s.outputs[o]
            if p in free and r in graph.results and p.type == r.type and only.get(p, r) is r:
                yield p, r
    reading = {r: set(s.inputs) for s in steps for r in s.outputs}
    for p in free:
        yield from ((p, r) for r in graph.results if p.type == r.type and only.get(p, r) is r and p not in reading[r])


def _computing(nodes: Sequence[Node], writer: Mapping[Node, int]) -> list[int]:
    """The steps after which nothing but the work of one kernel is missing for these nodes."""
    found: dict[int, None] = {}
    stack, seen = list(nodes), set(nodes)
    while stack:
        n = stack.pop()
        if n in writer:
            found[writer[n]] = None
            continue
        stack.extend(a for a in n.args if a not in seen)
        seen.update(n.args)
    return list(found)


def _allowed(s: Step) -> list[tuple[int, int]]:
    """The (output, input) positions of the step that may share memory: the sizes agree, and where a node is several inputs, the kernel
    allows it for each of them."""
    allowed = s.kernel.inplace
    if not allowed:
        return []
    pairs = set(allowed)
    return [(o, i) for o, i in allowed if s.outputs[o].type.bytes == s.inputs[i].type.bytes
            and all((o, j) in pairs for j, n in enumerate(s.inputs) if n is s.inputs[i])]


def _in_place(steps: Sequence[Step], temporaries: set[Node], last: dict[Node, int]) -> dict[Node, Node]:
    """For each temporary the one whose memory it lives in: itself, or the first of the chain of nodes that it overwrites."""
    owner = {n: n for n in temporaries}
    for k, s in enumerate(steps):
        used: set[Node] = set()
        for o, i in _allowed(s):
            out, old = s.outputs[o], s.inputs[i]
            if out in owner and old in owner and last[old] == k and not used & {out, old}:
                owner[out] = owner[old]
                used |= {out, old}
    return owner


def _donations(graph: Graph, steps: Sequence[Step], donate: Sequence[int | tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Which result lies in which donated parameter: first where the step that writes the result reads the parameter for the last time
    and may work in place, then wherever the parameter is dead before the result is written."""
    writer, last = _writers(steps), _last_reads(steps)
    free = {graph.params[p]: p for p in (d if isinstance(d, int) else d[0] for d in donate)}
    only = {graph.params[d[0]]: d[1] for d in donate if not isinstance(d, int)}
    result = {n: k for k, n in enumerate(graph.results)}
    chosen: dict[int, int] = {}
    for k, s in enumerate(steps):
        for o, i in _allowed(s):
            out, old = s.outputs[o], s.inputs[i]
            if out in result and result[out] not in chosen and old in free and last[old] == k and out.type == old.type \
                    and only.get(old, result[out]) == result[out]:
                chosen[result[out]] = free.pop(old)
    for n, r in result.items():
        dead = next((p for p in free if p.type == n.type and last.get(p, -1) < writer[n] and only.get(p, r) == r), None)
        if r not in chosen and dead is not None:
            chosen[r] = free.pop(dead)
    return tuple(sorted(chosen.items()))


def _slots(graph: Graph, steps: Sequence[Step], temporaries: Sequence[Node], offset: dict[Node, Size]
           ) -> tuple[dict[Node, Slot], tuple[Array, ...]]:
    names = parameter_names(graph.params)
    taken = set(names)

    def fresh(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    slots = {p: Slot(name, p.type, "param", k) for k, (p, name) in enumerate(zip(graph.params, names, strict=True))}
    constants: list[Array] = []
    for s in steps:
        for n in s.inputs:
            if n.op.name == "constant" and n not in slots:
                slots[n] = Slot(fresh(f"c{len(constants)}"), n.type, "const", len(constants))
                constants.append(n["value"])
    slots.update((n, Slot(fresh(f"r{k}"), n.type, "result", k)) for k, n in enumerate(graph.results))
    slots.update((n, Slot(fresh(f"t{k}"), n.type, "arena", offset[n])) for k, n in enumerate(temporaries))
    return slots, tuple(constants)


def _notes(moved: bool, in_place: int, shared: int) -> tuple[str, ...]:
    notes = ["the steps were reordered, as less memory is then alive"] if moved else []
    notes += [f"{in_place} buffers are written in place"] if in_place else []
    return tuple(notes + ([f"{shared} launches share a kernel with another"] if shared else []))
