"""A compiled program: every stage of its making, and the way to call it.

    e = f.compile(x, w)
    e.graph; e.after("fuse"); e.kernels[0].loops; e.plan; e.asm["k0"]["s"]; e.explain()
    e.run([x, w])          -> list of result arrays (flat; the front end puts them back into the function's structure)

The program that runs comes from the cache on disk when it is there; the stages are then made again when somebody asks for them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlc import config
from xlc.ir.loops import Kernel
from xlc.ir.node import Array, Graph
from xlc.ir.plan import Plan
from xlc.ir.types import Dim, Quotient, Size
from xlc.observe import finished, observing

_CACHED_CONSTANTS = 32 << 20  # bytes of captured arrays up to which a whole program is looked up by its source graph


class Executable:
    """One program for one device. Thread-safe; everything is made on demand, once."""

    def __init__(self, graph: Graph, options: Any, backend: Any):
        self.graph, self.options, self.backend = graph, options, backend
        self._knobs = config.compiling()  # of the moment at which it was asked for, whenever it is made
        self._lock = threading.RLock()
        self._compilation: Any = None
        self._loaded: Any = None
        self._native: dict[Any, Any] = {}

    # -- stages -----------------------------------------------------------------------------------

    @property
    def compilation(self) -> Any:
        """Every intermediate form (``xlc.pipeline.Compilation``)."""
        from xlc.pipeline import run_passes

        with self._lock:
            if self._compilation is None:
                with config.context(**self._knobs):
                    self._compilation = run_passes(self.graph, self.options, self.backend)
            return self._compilation

    def after(self, name: str) -> Any:
        """The program after a pass, by the pass's name."""
        return self.compilation.after(name)

    @property
    def plan(self) -> Plan:
        return self.compilation.plan

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels in the order of their launches (a kernel that is launched twice stands here twice; one in a loop once)."""
        named = {k.name: k for k in self.plan.kernels}
        return tuple(named[launch.kernel] for _, launch in self.plan.everywhere())

    @property
    def asm(self) -> Mapping[str, Mapping[str, str]]:
        """Generated code: ``asm[kernel]["llvm"]`` and ``asm[kernel]["s"]`` (assembly)."""
        return self.backend.sources(self.plan)

    def explain(self) -> str:
        """What was fused with what and why not, memory, work, and the roofline of every kernel, in words."""
        from .explain import explain

        return explain(self.compilation, self.backend.machine)

    def __str__(self) -> str:
        return self.explain()

    # -- running ----------------------------------------------------------------------------------

    @property
    def positions(self) -> tuple[int, ...]:
        """For each result of the graph, which of the distinct results it is."""
        distinct = list(dict.fromkeys(self.graph.results))
        return tuple(distinct.index(r) for r in self.graph.results)

    @property
    def loaded(self) -> Any:
        """The object in memory, with what a call must know (``Program``)."""
        with self._lock:
            if self._loaded is None:
                with config.context(**self._knobs):
                    self._loaded = self._load()
            return self._loaded

    def _load(self) -> Program:
        from . import cache

        key = self._key()
        data = cache.get(key) if key and not observing() else None
        start = time.perf_counter()
        program = self._compiled(key) if data is None else Program.unpack(data, self.backend)
        finished(self, time.perf_counter() - start, data is not None)
        return program

    def _compiled(self, key: str | None) -> Program:
        from . import cache

        plan = self.plan
        program = Program(self.backend.compile(plan), plan.name, plan.sizes, plan.arena if isinstance(plan.arena, int) else -1,
                           tuple(np.ascontiguousarray(c.value) for c in plan.constants), plan.donated, self.backend)
        if key and sum(c.nbytes for c in program.constants) <= 2 * _CACHED_CONSTANTS:
            cache.put(key, program.pack())
        return program

    def _key(self) -> str | None:
        """What the program depends on, as a text; None when its captured arrays are too large to be worth hashing."""
        from xlc.ir.text import print_graph

        from . import cache

        arrays = [n["value"] for n in self.graph.everywhere() if n.op.name == "constant"]
        if sum(a.value.nbytes for a in arrays) > _CACHED_CONSTANTS or not cache.enabled():
            return None
        digests = [cache.digest(np.ascontiguousarray(a.value).tobytes()) for a in arrays if isinstance(a, Array)]
        return cache.digest("\n".join([print_graph(self.graph), *digests, repr(self.options), repr(config.key()),
                                       self.backend.key]).encode())

    def native(self, params: Sequence[int], out_tree: Any, *, donate: Mapping[int, int] | None = None) -> Any:
        """The callable for the dispatcher: ``params[leaf]`` is the parameter that a leaf fills (-1: none), ``out_tree`` the structure of
        the results (its leaves count the graph's results)."""
        program = self.loaded
        names = program.sizes
        dims, checks = self._size_sources(params, names)
        results = [(r.dtype.numpy, tuple(_size_expression(s, names) for s in r.shape)) for r in dict.fromkeys(self.graph.results)]
        leaf_of = {p: leaf for leaf, p in enumerate(params) if p >= 0}
        alias = {r: leaf_of[p] for r, p in program.donated}
        return program.callable(params=list(params), results=results, out_tree=_renumbered(out_tree, self.positions), dims=dims,
                                checks=checks, donate=[leaf_of[p] for p in self.options.donate if p in leaf_of], alias=alias or None,
                                name=self.graph.name)

    def _size_sources(self, params: Sequence[int], names: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """Where each named size is read from, and the axes that must equal an expression of them."""
        dims: list[list[tuple[int, int]]] = [[] for _ in names]
        checks = []
        for leaf, p in enumerate(params):
            for axis, s in enumerate(self.graph.params[p].shape if p >= 0 else ()):
                if isinstance(s, Dim):
                    lone = next((n for n in names if s == Dim.named(n)), None)
                    if lone is not None:
                        dims[list(names).index(lone)].append((leaf, axis))
                    else:
                        checks.append((leaf, axis, _size_expression(s, names)))
        return dims, checks

    def run(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """Call with one array per parameter, in order."""
        n = len(self.graph.params)
        with self._lock:
            flat = self._native.get("flat")
            if flat is None:
                tree = ("list", [("leaf", i) for i in range(len(self.graph.results))])
                flat = self._native["flat"] = self.native(range(n), tree)
        return flat.call_flat(list(arrays))

    __call__ = run


class Program:
    """What is needed to call a compiled program, and to store it."""

    def __init__(self, code: bytes, name: str, sizes: Sequence[str], workspace: int, constants: Sequence[np.ndarray],
                 donated: Sequence[tuple[int, int]], backend: Any):
        self.code, self.name, self.sizes, self.workspace = code, name, tuple(sizes), workspace
        self.constants, self.donated = tuple(constants), tuple(donated)
        self.library = backend.load(code, name)

    def callable(self, **description: Any) -> Any:
        """What the front end calls (see ``native.Executable``): by address on the host, or through a device's library."""
        if not isinstance(getattr(self.library, "entry", None), int):
            from .on_device import Executable as OnDevice

            return OnDevice(self.library, constants=self.constants, **description)
        from .native import Executable as Native

        return Native(self.library.entry, workspace=max(self.workspace, 0), constants=self.constants, keepalive=self,
                      workspace_function=0 if self.workspace >= 0 else self.library.workspace, **description)

    def pack(self) -> bytes:
        head = json.dumps({"name": self.name, "sizes": self.sizes, "workspace": self.workspace, "donated": self.donated,
                           "code": len(self.code), "constants": [(str(_dtype_name(c)), c.shape) for c in self.constants]}).encode()
        return b"".join([len(head).to_bytes(8, "little"), head, self.code, *(c.tobytes() for c in self.constants)])

    @staticmethod
    def unpack(data: bytes, backend: Any) -> Program:
        from xlc.ir.types import DTYPES

        n = int.from_bytes(data[:8], "little")
        head = json.loads(data[8:8 + n])
        at = 8 + n + head["code"]
        code, constants = data[8 + n:at], []
        for dtype, shape in head["constants"]:
            d = DTYPES[dtype].numpy
            count = int(np.prod(shape, dtype=np.int64))
            constants.append(np.frombuffer(data, d, count, at).reshape(shape).copy())
            at += count * d.itemsize
        return Program(code, head["name"], head["sizes"], head["workspace"], constants, [tuple(p) for p in head["donated"]], backend)


def _dtype_name(a: np.ndarray) -> str:
    from xlc.ir.types import dtype_of

    return dtype_of(a.dtype).name


def _size_expression(s: Size, names: Sequence[str]) -> Any:
    """A size in the form that ``run.native`` describes."""
    if not isinstance(s, Dim):
        return int(s)
    order = list(names)

    def base(atom: Any) -> Any:
        if isinstance(atom, Quotient):
            return (_terms(_size_expression(atom.numerator, names)), atom.denominator)
        return order.index(atom)

    return [(c, [(base(a), p) for a, p in m]) for m, c in s.terms]


def _terms(e: Any) -> Any:
    return [(e, [])] if isinstance(e, int) else e


def _renumbered(tree: Any, positions: Sequence[int]) -> Any:
    if tree[0] == "leaf":
        return ("leaf", positions[tree[1]])
    if tree[0] in ("tuple", "list"):
        return (tree[0], [_renumbered(t, positions) for t in tree[1]])
    if tree[0] in ("dict", "call"):
        return (tree[0], tree[1], [_renumbered(t, positions) for t in tree[2]])
    return tree
