"""The list of passes, in order. What each establishes stands beside it.

    compile_graph(graph) -> Executable        Graph -> ... -> Partition -> Steps -> Plan -> object -> callable
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xlc import config
from xlc.ir.machine import Machine
from xlc.ir.node import Graph, Node, make
from xlc.ir.op import lookup
from xlc.ir.plan import Plan
from xlc.observe import Observer
from xlc.passes import control
from xlc.passes.decompose import decompose
from xlc.passes.fold import fold
from xlc.passes.fuse import FusionOptions, fuse, separate
from xlc.passes.group import Group, Partition, in_memory, is_free
from xlc.passes.layout import layout
from xlc.passes.memory import Step, plan_memory
from xlc.passes.recompute import recompute
from xlc.passes.regions import region
from xlc.passes.simplify import simplify
from xlc.passes.split import split
from xlc.passes.tile import tile


@dataclass(frozen=True)
class Options:
    """What changes the meaning of ``compile``: part of every cache key."""

    fuse: bool = True
    strict: bool = False
    fast_math: bool = False
    donate: tuple[int, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Pass:
    name: str
    run: Callable[[Graph, Options, Any], Graph]
    optional: bool = True  # the knob ``skip`` may leave it out


GRAPH_PASSES: tuple[Pass, ...] = (
    Pass("decompose", lambda g, o, b: decompose(g), optional=False),  # no composite is left, but those that the backend's library claims
    # loops and branches do no more than is needed, and on their bodies all these passes have run
    Pass("control", lambda g, o, b: control.bodies(g, lambda body: Passes(o, b, body.name)(body), None if stays(o) else b.machine),
         optional=False),
    Pass("simplify", lambda g, o, b: simplify(g, o.fast_math, skipped(), config.bisect)),  # no rule of the table applies any more
    # what lies between contractions is read by one of them, where the machine has kernels that compute it again
    Pass("recompute", lambda g, o, b: recompute(g, fusion(o, b.machine), b.machine) if o.fuse else g),
    Pass("split", lambda g, o, b: split(g, b.machine)),  # no long reduction with few results
    # contractions read their right-hand side along its last dimension
    Pass("layout", lambda g, o, b: layout(g, b.machine, config.pack_constants)),
    Pass("fold", lambda g, o, b: fold(g)),  # no operation on constants alone; packed weights are constants
    # every result is a node of its own: no parameter, constant or other result; what control flow works on lies in memory
    Pass("results", lambda g, o, b: own_results(stored_operands(g)), optional=False),
)


def fusion(options: Options, machine: Machine) -> FusionOptions:
    """What the knobs let be fused."""
    return FusionOptions(config.fuse_elementwise, config.fuse_reductions, config.fuse_contractions, config.fuse_rows, config.fuse_tiles,
                         machine.threads > 1 and not options.strict, options.strict)


def skipped() -> tuple[str, ...]:
    """The rules and passes that the user leaves out."""
    return tuple(filter(None, config.skip.split(",")))


def stays(options: Options) -> bool:
    """Whether loops keep their contractions: under ``strict`` an iteration is computed as it is written."""
    return options.strict or "distribute" in skipped()


@dataclass(frozen=True)
class Stages:
    """What becomes of a graph on which all passes have run: the program itself, or the body of a loop or branch."""

    graph: Graph
    partition: Partition
    steps: tuple[Step, ...]
    plan: Plan

    def kernels(self) -> Iterator[tuple[Group, Step]]:
        """Every kernel, in order, with the group that it computes; those of bodies where their loop or branch is."""
        for group, step in zip(self.partition.groups, self.steps, strict=True):
            if step.bodies:
                for body in step.bodies:
                    yield from body.kernels()
            else:
                yield group, step


@dataclass
class Compilation:
    """All stages of one program. ``graphs`` maps each pass to its output."""

    source: Graph
    options: Options
    graphs: dict[str, Graph]
    stages: Stages
    seconds: dict[str, float]

    @property
    def partition(self) -> Partition:
        return self.stages.partition

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.stages.steps

    @property
    def plan(self) -> Plan:
        return self.stages.plan

    def after(self, name: str) -> Any:
        """The program after a pass: a Graph, the Partition (fuse), the Steps (lower) or the Plan (memory)."""
        late: dict[str, Any] = {"trace": self.source, "fuse": self.partition, "lower": self.steps, "memory": self.plan}
        if name in late:
            return late[name]
        if name not in self.graphs:
            known = ", ".join(["trace", *self.graphs, "fuse", "lower", "memory"])
            from xlc.errors import XlcValueError

            raise XlcValueError(f"there is no pass {name!r}; the passes are: {known}")
        return self.graphs[name]


class Passes:
    """Runs, times and observes the passes on one graph, and then what makes a Plan of it."""

    def __init__(self, options: Options, backend: Any, name: str):
        self.options, self.backend = options, backend
        self.observe = Observer(name)
        self.graphs: dict[str, Graph] = {}
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[Any], Any], value: Any) -> Any:
        start = time.perf_counter()
        out = work(value)
        self.seconds[name] = time.perf_counter() - start
        self.observe(name, value, out, self.seconds[name])
        return out

    def __call__(self, graph: Graph) -> Graph:
        for p in GRAPH_PASSES:
            if p.optional and p.name in skipped():
                continue
            graph = self.graphs[p.name] = self.run(p.name, lambda g, p=p: p.run(g, self.options, self.backend), graph)  # type: ignore[misc]
        return graph

    def stages(self, graph: Graph, donate: Sequence[int | tuple[int, int]]) -> Stages:
        """Kernels and plan of a graph on which all passes have run."""
        knobs = fusion(self.options, self.backend.machine)

        def partitioned(g: Graph) -> Partition:
            return tile(fuse(g, knobs), g, knobs, self.backend.machine) if self.options.fuse else separate(g)

        partition = self.run("fuse", partitioned, graph)
        steps = self.run("lower", lambda parts: tuple(map(self.lowering(), parts.groups)), partition)
        plan = self.run("memory", lambda steps: plan_memory(graph, steps, donate, config.reorder), steps)
        return Stages(graph, partition, steps, plan)

    def lowering(self) -> Callable[[Group], Step]:
        """What makes a step of a group: the backend a kernel, and this class what runs the plans of bodies."""
        kernel = self.backend.lowerings()
        return lambda group: region(group, self.body) if group.kind == "control" else kernel(group)

    def body(self, graph: Graph, carried: Sequence[tuple[int, int]]) -> Stages:
        return Passes(self.options, self.backend, graph.name).stages(graph, carried)


def run_passes(graph: Graph, options: Options, backend: Any) -> Compilation:
    """Everything up to the Plan."""
    passes = Passes(options, backend, graph.name)
    distinct = Graph(graph.params, tuple(dict.fromkeys(graph.results)), graph.name)  # the same result twice is one result, see Executable
    stages = passes.stages(passes(distinct), options.donate)
    return Compilation(graph, options, passes.graphs, stages, passes.seconds)


def stored_operands(graph: Graph) -> Graph:
    """What control flow works on lies in memory: numbers and counters that it takes are stored."""
    copy = lookup("copy")

    def stored(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op.kind != "control":
            return None
        return make(n.op, [copy(a) if is_free(a) else a for a in args], n.type, n.attrs, n.loc)

    return graph.rebuild(stored)


def own_results(graph: Graph) -> Graph:
    """Results that are parameters, constants, or have become equal to another result, are copied: a result is memory of its own."""
    copy = lookup("copy")
    results: list[Node] = []
    for r in graph.results:
        own = copy(r) if in_memory(r) else r
        while own in results:
            own = copy(own)
        results.append(own)
    return Graph(graph.params, tuple(results), graph.name)




def _cpu(device: str) -> Any:
    from xlc.backends.cpu.backend import BACKEND

    return BACKEND


def _cuda(device: str) -> Any:
    from xlc.backends.cuda.backend import backend

    return backend(device)


BACKENDS: dict[str, Callable[[str], Any]] = {"cpu": _cpu, "cuda": _cuda}
"""What gives the backend of a device, the same one each time, by what stands in front of the colon in the device's name."""


def backend_for(device: str | None) -> Any:
    """The backend that a device name asks for: "cpu", "cuda" (the current GPU), "cuda:1", "cuda:sm_90" (code for a chip
    that is not here)."""
    from xlc.errors import XlcValueError

    device = device or "cpu"
    family = device.split(":")[0]
    if family not in BACKENDS:
        raise XlcValueError(f"there is no backend for device {device!r}; there are: {', '.join(BACKENDS)}")
    if family == "cuda" and config.cuda_arch and ":" not in device:
        device = f"cuda:{config.cuda_arch}"
    return BACKENDS[family](device)


def compile_graph(graph: Graph, *, fuse: bool = True, device: str | None = None, donate: Sequence[int] = ()) -> Any:
    """Compile a graph for a device. The result is called with one C-contiguous array per parameter and gives a list of results."""
    from xlc.run.executable import Executable

    backend = backend_for(device)
    options = Options(fuse, config.strict, config.fast_math, tuple(donate), device or "cpu")
    return Executable(graph, options, backend)
