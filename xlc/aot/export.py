"""A function, with specs for what is an input and values for what is not, becomes ``.so``, ``.a`` or ``.o`` and a header.

    export(step, [params_specs, x_spec, y_spec, 0.1], "step.so")    ->    Exported(library, header, interface, executable)

The function is traced on the specs. Arrays given as values are constants of the library; Python numbers, strings and None are what they
are.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import config
from ..backends.cpu.backend import CpuBackend
from ..backends.cpu.target import Target, host, named
from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import lift
from ..frontend.jit import Lowered, Spec, jit
from ..frontend.trace import describe
from ..frontend.transformed import argument_names
from ..frontend.tree import NONE, Tree, flatten, paths, unflatten
from ..ir.node import Graph, Node
from ..ir.op import lookup
from ..ir.plan import Plan
from ..ir.types import Dim
from ..pipeline import Options
from ..run.executable import Executable
from ..run.native import Dispatcher
from . import link
from .interface import Interface, c_names, port, tree_to_data
from .wrapper import object_file

SUFFIXES = (".so", ".a", ".o")


@dataclass(frozen=True)
class Exported:
    """What was written: the paths of the library and of its header, the interface as data, the program with all its stages."""

    library: Path
    header: Path
    interface: Interface
    executable: Executable

    def __fspath__(self) -> str:
        return str(self.library)


def export(f: Callable[..., Any], args: Sequence[Any], path: str | os.PathLike[str], *, name: str | None = None, target: str = "host",
           cpu: str | None = None) -> Exported:
    """Compile ``f(*args)`` into a library at ``path``; its suffix (.so, .a, .o) decides the kind. The header appears beside it.

    args    one per argument of f: ``xlc.spec`` (an input), an array (baked in), a Python value (as it is), or nested containers of these
    name    of the C function; f's own name by default
    target  "host", or an LLVM triple such as "aarch64-unknown-linux-gnu"
    cpu     an LLVM processor name such as "x86-64-v3"; by default the one that is running (for other triples a generic one)"""
    where = Path(path)
    if where.suffix not in SUFFIXES:
        raise XlcValueError(f"the library must end in .so, .a or .o, found {str(path)!r}")
    own = getattr(f, "__name__", "")
    name = name if name is not None else own if own.isidentifier() and own.isascii() else re.sub(r"\W+", "_", where.stem, flags=re.ASCII)
    if not re.fullmatch(r"[A-Za-z_]\w*", name, flags=re.ASCII) or c_names([name], set()) != [name]:
        raise XlcValueError(f"name={name!r} is no name for a C function; expected letters, digits and underscores")
    processor = _target(target, cpu)
    lowered, inputs = lower_baked(f, args, name)
    graph, donate = _distinct(lowered.graph), _donated(f, inputs.paths)
    executable = Executable(graph, Options(getattr(f, "fuse", True), config.get("strict"), config.get("fast_math"), donate),
                            CpuBackend(processor))
    plan = replace(executable.plan, name=f"{name}_entry")
    interface = _interface(name, lowered, inputs, plan, processor)
    code = object_file(interface, plan, [c.value for c in plan.constants], lowered.assumptions, processor)
    symbols = [name, f"{name}_parallel", f"{name}_workspace_size", f"{name}_signature"]
    data = {".o": lambda: code, ".a": lambda: link.archive(code, f"{name}.o", symbols),
            ".so": lambda: link.shared(code, processor, name)}[where.suffix]()
    header = where.with_suffix(".h")
    link.write(header, interface.header().encode())
    link.write(where, data)
    return Exported(where, header, interface, executable)


def _target(target: str, cpu: str | None) -> Target:
    try:
        if target == "host":
            return host() if cpu is None or cpu in ("host", "native") else named(cpu, host().triple)
        return named(cpu or "generic", target) if cpu or not target.startswith("x86") else named("x86-64-v3", target)
    except RuntimeError as error:
        raise XlcValueError(f"target={target!r}, cpu={cpu!r}: {error}") from None


# ------------------------------------------------------------------------------------------------ tracing


@dataclass(frozen=True)
class _Inputs:
    """The specs among the arguments: how a user writes each, the names of the arguments that hold one, and these arguments' nesting with
    what is baked in left out."""

    paths: tuple[str, ...]
    arguments: tuple[str, ...]
    tree: Tree


def lower_baked(f: Callable[..., Any], args: Sequence[Any], name: str) -> tuple[Lowered, _Inputs]:
    if not callable(f):
        raise XlcTypeError(f"export expects a function, found {describe(f)}")
    if not isinstance(args, (list, tuple)):
        raise XlcTypeError(f"export expects the function's arguments as a list, found {describe(args)}; write export(f, [x], path)")
    try:
        inspect.signature(f).bind(*args)
    except TypeError as error:
        raise XlcTypeError(f"{name}(): {error}; it takes {inspect.signature(f)}, and args= lists one value per argument") from None
    except ValueError:
        pass  # a function written in C: it has no signature
    leaves, tree = flatten(list(args))
    names = argument_names(f, len(args))
    where = [p for root, child in zip(names, tree.children, strict=True) for p in paths(child, root)]
    holes = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Spec)]

    def baked(*inputs: Any) -> Any:
        filled = [lift(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf for leaf in leaves]
        for i, value in zip(holes, inputs, strict=True):
            filled[i] = value
        return f(*unflatten(tree, filled))

    baked.__name__ = baked.__qualname__ = name
    labels = c_names([where[i] for i in holes], set())
    baked.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # so that the graph's parameters bear these names
        [inspect.Parameter(label, inspect.Parameter.POSITIONAL_ONLY) for label in labels])
    lowered = jit(baked).lower(*(leaves[i] for i in holes))
    open_ = set(holes)
    count = iter(range(len(leaves)))
    trees = [_without_baked(child, count, open_) for child in tree.children]
    used = [i for i, t in enumerate(trees) if t.size]
    return lowered, _Inputs(tuple(where[i] for i in holes), tuple(names[i] for i in used), Tree("tuple", tuple(trees[i] for i in used)))


def _without_baked(tree: Tree, count: Any, holes: set[int]) -> Tree:
    """The tree with None in the places of leaves that are not inputs."""
    if tree.kind == "leaf":
        return tree if next(count) in holes else NONE
    return replace(tree, children=tuple(_without_baked(c, count, holes) for c in tree.children))


def _distinct(graph: Graph) -> Graph:
    """A value that is returned twice is copied: every output is memory of its own."""
    seen: set[Node] = set()
    results = []
    for r in graph.results:
        while r in seen:
            r = lookup("copy")(r)
        seen.add(r)
        results.append(r)
    return Graph(graph.params, tuple(results), graph.name)


def _donated(f: Any, where: Sequence[str]) -> tuple[int, ...]:
    donate = f.owner.donate if isinstance(f, Dispatcher) else ()
    return tuple(i for i, path in enumerate(where) if re.split(r"[\[.]", path)[0] in donate)


def _interface(name: str, lowered: Lowered, inputs: _Inputs, plan: Plan, target: Target) -> Interface:
    sizes = sorted({n for p in lowered.graph.params for s in p.shape if isinstance(s, Dim) for n in s.names})
    taken = {name, *sizes}
    ins = c_names(inputs.paths, taken)
    outs = c_names(paths(lowered.out_tree, "y"), taken)
    shared = {result: ins[param] for result, param in plan.donated}
    return Interface(
        name, tuple(sizes),
        tuple(port(n, p.type, path) for n, p, path in zip(ins, lowered.graph.params, inputs.paths, strict=True)),
        tuple(port(n, r.type, path, shared.get(i, "")) for i, (n, r, path) in
              enumerate(zip(outs, lowered.graph.results, paths(lowered.out_tree, "y"), strict=True))),
        inputs.arguments, tree_to_data(inputs.tree), tree_to_data(lowered.out_tree), str(plan.arena), f"{target.triple} ({target.cpu})")
