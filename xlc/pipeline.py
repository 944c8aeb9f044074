"""The list of passes, in order. What each establishes stands beside it.

    compile_graph(graph) -> Executable        Graph -> ... -> Partition -> Steps -> Plan -> object -> callable
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlc import config
from xlc.ir.node import Graph, Node
from xlc.ir.op import lookup
from xlc.ir.plan import Plan
from xlc.observe import Observer
from xlc.passes.decompose import decompose
from xlc.passes.fold import fold
from xlc.passes.fuse import FusionOptions, Partition, fuse, in_memory, separate
from xlc.passes.layout import layout
from xlc.passes.memory import Step, plan_memory
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
    Pass("simplify", lambda g, o, b: simplify(g, o.fast_math, skipped(), config.bisect)),  # no rule of the table applies any more
    Pass("split", lambda g, o, b: split(g)),  # no long reduction with few results
    # contractions read their right-hand side along its last dimension
    Pass("layout", lambda g, o, b: layout(g, b.machine, config.pack_constants)),
    Pass("fold", lambda g, o, b: fold(g)),  # no operation on constants alone; packed weights are constants
    # every result is a node of its own: no parameter, constant or other result
    Pass("results", lambda g, o, b: own_results(g), optional=False),
)


def skipped() -> tuple[str, ...]:
    """The rules and passes that the user leaves out."""
    return tuple(filter(None, config.skip.split(",")))


@dataclass
class Compilation:
    """All stages of one program. ``graphs`` maps each pass to its output."""

    source: Graph
    options: Options
    graphs: dict[str, Graph] = field(default_factory=dict)
    partition: Partition | None = None
    steps: tuple[Step, ...] = ()
    plan: Plan | None = None
    seconds: dict[str, float] = field(default_factory=dict)

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


def run_passes(graph: Graph, options: Options, backend: Any) -> Compilation:
    """Everything up to the Plan."""
    done = Compilation(graph, options)
    observe = Observer(graph.name)

    def run(name: str, work: Callable[[Any], Any], value: Any) -> Any:
        start = time.perf_counter()
        out = work(value)
        done.seconds[name] = time.perf_counter() - start
        observe(name, value, out, done.seconds[name])
        return out

    graph = Graph(graph.params, tuple(dict.fromkeys(graph.results)), graph.name)  # the same result twice is one result, see Executable
    for p in GRAPH_PASSES:
        if p.optional and p.name in skipped():
            continue
        graph = done.graphs[p.name] = run(p.name, lambda g, p=p: p.run(g, options, backend), graph)  # type: ignore[misc]
    knobs = FusionOptions(config.fuse_elementwise, config.fuse_reductions, config.fuse_contractions, config.fuse_rows, config.fuse_tiles,
                          options.strict)
    done.partition = run("fuse", lambda g: tile(fuse(g, knobs), g, knobs, backend.machine) if options.fuse else separate(g), graph)
    done.steps = run("lower", lambda parts: tuple(map(backend.lowerings(), parts.groups)), done.partition)
    done.plan = run("memory", lambda steps: plan_memory(graph, steps, options.donate, config.reorder), done.steps)
    return done


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


_BACKENDS: dict[str, Any] = {}
_lock = threading.Lock()


def backend_for(device: str | None) -> Any:
    """The backend that a device name asks for."""
    from xlc.errors import XlcValueError

    name = (device or "cpu").split(":")[0]
    with _lock:
        if name not in _BACKENDS:
            if name != "cpu":
                raise XlcValueError(f"there is no backend for device {device!r}; installed: cpu")
            from xlc.backends.cpu.backend import BACKEND

            _BACKENDS[name] = BACKEND
    return _BACKENDS[name]


def compile_graph(graph: Graph, *, fuse: bool = True, device: str | None = None, donate: Sequence[int] = ()) -> Any:
    """Compile a graph for a device. The result is called with one C-contiguous array per parameter and gives a list of results."""
    from xlc.run.executable import Executable

    backend = backend_for(device)
    options = Options(fuse, config.strict, config.fast_math, tuple(donate), device or "cpu")
    return Executable(graph, options, backend)
