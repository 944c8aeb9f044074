"""The slow interpreters: they define what Graphs, Kernels and Plans mean.

    interpret(graph, x, w)                    each node by its operator's ``numpy`` oracle
    interpret_kernel(kernel, [x], {"n": 8})   statement by statement, lane by lane, every access checked
    interpret_plan(plan, [x, w])              launches in order over one arena of bytes, poisoned at first
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcError, XlcIndexError, XlcTypeError, XlcValueError

from . import plan as plans
from .loops import LOAD, Buffer, Expr, If, Kernel, Let, Local, Loop, Mma, Stmt, Store, place, walk
from .node import Graph, Node, call_of
from .plan import Branch, Launch, Plan
from .types import Dim, Type, dtype_of, evaluate


def sizes_from(types: Sequence[Type], arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """The values of the named sizes, read from arrays."""
    env: dict[str, int] = {}
    for t, a in zip(types, arrays, strict=True):
        for s, n in zip(t.shape, a.shape, strict=True):
            if isinstance(s, Dim) and len(s.names) == 1 and s == Dim.named(next(iter(s.names))):
                env.setdefault(next(iter(s.names)), n)
    return env


class Body:
    """A graph inside an attribute, as a function on arrays. ``results`` are the (dtype, shape) of what it gives."""

    def __init__(self, graph: Graph, env: Mapping[str, int]):
        self.graph, self.env = graph, env
        self.results = [(r.dtype.numpy, tuple(evaluate(s, env) for s in r.shape)) for r in graph.results]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return interpret(self.graph, *arrays, sizes=self.env)


def static(value: Any, env: Mapping[str, int], body: Callable[[Graph, Mapping[str, int]], Body] = Body) -> Any:
    """An attribute with its symbolic sizes replaced by their values, and its graphs by functions."""
    if isinstance(value, Dim):
        return value.evaluate(env)
    if isinstance(value, Graph):
        return body(value, env)
    return tuple(static(v, env, body) for v in value) if isinstance(value, tuple) else value


def interpret(graph: Graph, *arrays: Any, sizes: Mapping[str, int] | None = None) -> list[np.ndarray]:
    """The results of a graph on these arrays. XlcTypeError where an argument or a result is not of the declared type."""
    wanted = set(graph.results)
    values = {n: a for n, a in steps(graph, *arrays, sizes=sizes) if n in wanted}
    return [np.ascontiguousarray(values[r]).reshape(values[r].shape) for r in graph.results]


def steps(graph: Graph, *arrays: Any, sizes: Mapping[str, int] | None = None) -> Iterator[tuple[Node, np.ndarray]]:
    """Every node and its value, one after the other; nothing is kept for longer than it is needed."""
    if len(arrays) != len(graph.params):
        raise XlcTypeError(f"the graph takes {len(graph.params)} arguments, not {len(arrays)}")
    given = [np.asarray(a) for a in arrays]
    env = {**sizes_from([p.type for p in graph.params], given), **(sizes or {})}
    values: dict[Node, np.ndarray] = {}
    for p, a in zip(graph.params, given, strict=True):
        values[p] = _checked(p, a, env)
        yield p, values[p]
    uses = {n: len(u) for n, u in graph.uses().items()}
    calls: dict[Any, list[np.ndarray]] = {}  # operators with several results are run once
    for n in graph.nodes():
        if n in values:
            continue
        call = call_of(n) if n.op.results is not None else n
        if (found := calls.get(call)) is None:
            attrs = {k: static(v, env) for k, v in n.attrs if call is n or k != "output"}
            out = n.op.numpy(*(values[a] for a in n.args), **attrs)
            found = [out] if call is n else calls.setdefault(call, out)
        values[n] = _checked(n, np.asarray(found[0 if call is n else n["output"]]), env)
        yield n, values[n]
        for arg in dict.fromkeys(n.args):
            uses[arg] -= 1
            if not uses[arg]:
                del values[arg]


def _checked(n: Node, a: np.ndarray, env: Mapping[str, int]) -> np.ndarray:
    shape = tuple(evaluate(s, env) for s in n.shape)
    if dtype_of(a.dtype) is not n.dtype or a.shape != shape:
        raise XlcTypeError(f"{n.op.name} gave {a.dtype}{list(a.shape)} where its type says {n.type}", n.loc)
    return a


# ------------------------------------------------------------------------------------------------ kernels


class _Machine:
    def __init__(self, kernel: Kernel, memory: dict[Buffer, np.ndarray], sizes: Mapping[str, int]):
        self.kernel, self.memory, self.sizes = kernel, memory, sizes
        self.variables: dict[str, np.ndarray] = {}

    def evaluate(self, *roots: Expr) -> list[np.ndarray]:
        memo: dict[int, np.ndarray] = {}
        for e in walk(*roots):
            memo[id(e)] = self.one(e, [memo[id(a)] for a in e.args])
        return [memo[id(r)] for r in roots]

    def one(self, e: Expr, args: list[np.ndarray]) -> np.ndarray:
        name = e.op.name
        if name == "const":
            return np.asarray(e.value, e.dtype.numpy)
        if name == "var":
            if e["name"] not in self.variables:
                raise XlcError(f"kernel {self.kernel.name}: the variable {e['name']} is not defined here")
            return self.variables[e["name"]]
        if name == "size":
            return np.asarray(self.sizes[e["name"]], np.int64)
        if e.op is LOAD:
            return self.load(e, args)
        args = list(np.broadcast_arrays(*args)) if len({a.shape for a in args}) > 1 else args
        return np.asarray(e.op.numpy(*args, **dict(e.attrs)))

    def position(self, b: Buffer, index: Sequence[np.ndarray], active: np.ndarray) -> np.ndarray:
        shape = [evaluate(s, self.sizes) for s in b.shape]
        at: Any = np.int64(0)
        for i, n in zip(index, shape, strict=True):
            bad = active & ((i < 0) | (i >= n))
            if np.any(bad):
                raise XlcIndexError(f"kernel {self.kernel.name}: {b.name}[{np.broadcast_to(i, bad.shape)[bad][0]}] is outside 0..{n}")
            at = at * n + i
        return np.asarray(at)

    def load(self, e: Expr, args: list[np.ndarray]) -> np.ndarray:
        b: Buffer = e["buffer"]
        index, mask = (args[:-1], args[-1]) if e["masked"] else (args, np.asarray(True))
        if b not in self.memory:
            raise XlcError(f"kernel {self.kernel.name}: the buffer {b.name} is not declared here")
        active = mask & self.lane_mask()
        at = np.where(active, self.position(b, index, active), 0)
        flat = self.memory[b].reshape(-1)
        if not flat.size:
            return np.zeros(at.shape, flat.dtype)
        return np.where(active, flat[at], np.zeros((), flat.dtype)).astype(flat.dtype)

    def lane_mask(self) -> np.ndarray:
        return np.asarray(True)

    def run(self, body: Sequence[Stmt]) -> None:
        declared: list[Buffer] = []
        for s in body:
            match s:
                case Let(name, value):
                    self.variables[name] = self.evaluate(value)[0]
                case Local(b):
                    declared.append(b)
                    self.memory[b] = _poison(np.empty([evaluate(n, self.sizes) for n in b.shape], b.dtype.numpy))
                case Store():
                    self.store(s)
                case Mma():
                    self.mma(s)
                case If(condition, then, orelse):
                    self.run(then if bool(self.evaluate(condition)[0]) else orelse)
                case Loop():
                    self.loop(s)
        for b in declared:
            del self.memory[b]

    def store(self, s: Store) -> None:
        *index, value = self.evaluate(*s.index, s.value)
        mask = self.evaluate(s.mask)[0] if s.mask is not None else np.asarray(True)
        shape = np.broadcast_shapes(value.shape, mask.shape, *(i.shape for i in index))
        active = np.broadcast_to(mask, shape)
        at = np.broadcast_to(self.position(s.buffer, index, active), shape)
        self.memory[s.buffer].reshape(-1)[at[active]] = np.broadcast_to(value, shape)[active]

    def mma(self, s: Mma) -> None:
        """Products are exact (of what is left after rounding to tf32), and so is their sum up to f64, before it is added in f32."""
        thread, a_at, b_at = self.evaluate(s.thread, s.a_at, s.b_at)
        (m, n, depth), t = s.shape, int(thread)
        high, k, part, lane = m // (s.group // 2), np.arange(depth), np.arange(2), t % 32
        rows = (np.arange(high)[:, None] * (s.group // 2) + t % s.group // 32 * 16 + lane // 4 + part * 8).reshape(-1)
        columns = (np.arange(0, n, 8)[:, None] + lane % 4 * 2 + part).reshape(-1)
        if s.a.space == "register":
            each = (np.arange(high)[:, None, None] * (depth // 8) + k // 8) * 4 + part[:, None] * 2 + k % 2
            a = self.memory[s.a][t // 4 * 4 + k % 8 // 2, each.reshape(-1, depth)]
        else:
            a = self.memory[s.a][self.position(s.a, [a_at + place(rows[:, None], k, s.a_steps)], np.asarray(True))]
        b = self.memory[s.b][self.position(s.b, [b_at + place(columns, k[:, None], s.b_steps)], np.asarray(True))]
        parts = [(a, b)] if s.a.dtype.bits == 16 else _tf32_products(a, b, s.products)
        total = sum(x.astype(np.float64) @ y.astype(np.float64) for x, y in parts)
        acc = self.memory[s.acc][t].reshape(high, n // 8, 2, 2)
        acc += np.asarray(total).reshape(high, 2, n // 8, 2).transpose(0, 2, 1, 3).astype(np.float32)

    def loop(self, s: Loop) -> None:
        start, stop = (int(v) for v in self.evaluate(s.start, s.stop))
        outer = self.variables.get(s.var)
        if s.kind in ("vector", "async"):
            if start or stop > s.width:
                raise XlcValueError(f"kernel {self.kernel.name}: vector loop {s.var} over {start}..{stop} with width {s.width}")
            if stop > 0:
                self.variables[s.var] = np.arange(stop, dtype=np.int64)
                self.run(s.body)
        else:
            for i in range(start, stop, s.step):
                self.variables[s.var] = np.asarray(i, np.int64)
                self.run(s.body)
        if outer is not None:
            self.variables[s.var] = outer


def _tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to 10 bits behind the point, ties away from zero."""
    bits = ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), bits, x)


def _tf32_products(a: np.ndarray, b: np.ndarray, products: int) -> list[tuple[np.ndarray, np.ndarray]]:
    big_a, big_b = _tf32(a), _tf32(b)
    return [(big_a, big_b)] if products == 1 else [(_tf32(a - big_a), big_b), (big_a, _tf32(b - big_b)), (big_a, big_b)]


def _poison(a: np.ndarray) -> np.ndarray:
    """Memory that nobody has written: every byte 0xFF (nan as a float)."""
    a.reshape(-1).view(np.uint8)[:] = 0xFF
    return a


def interpret_kernel(kernel: Kernel, inputs: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None) -> list[np.ndarray]:
    """The outputs of a kernel. Inputs are copied; an access out of bounds raises XlcIndexError."""
    env = dict(sizes or {})
    outputs = [np.empty([evaluate(s, env) for s in b.shape], b.dtype.numpy) for b in kernel.outputs]
    _launch(kernel, [np.array(a, order="C") for a in inputs], outputs, env)
    return outputs


def _launch(kernel: Kernel, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], env: Mapping[str, int]) -> None:
    """Run a kernel on this very memory (an output may lie where an input does). Outputs that share no memory are poisoned first."""
    memory: dict[Buffer, np.ndarray] = {}
    for b, a in zip((*kernel.inputs, *kernel.outputs), (*inputs, *outputs), strict=True):
        if dtype_of(a.dtype) is not b.dtype:
            raise XlcTypeError(f"kernel {kernel.name}: the buffer {b.name} holds {b.dtype}, it was given {a.dtype}")
        memory[b] = a.reshape([evaluate(s, env) for s in b.shape])
    for a in outputs:
        if not any(np.may_share_memory(a, other) for other in inputs):
            _poison(a)
    with np.errstate(all="ignore"):
        _Machine(kernel, memory, env).run(kernel.body)


# ------------------------------------------------------------------------------------------------ plans


def interpret_plan(plan: Plan, arrays: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None) -> list[np.ndarray]:
    """The results of a plan. All temporaries live in one arena of bytes, a donated argument where its result does, and kernels run on that
    memory itself: a wrong offset, or an in-place step that is none, shows."""
    params = sorted((s for s in plan.slots if s.place == "param"), key=lambda s: evaluate(s.at, {}))
    env = {**sizes_from([s.type for s in params], [np.asarray(a) for a in arrays]), **(sizes or {})}

    results: dict[int, np.ndarray] = {}
    memory: dict[str, np.ndarray] = {}
    for s in plan.slots:
        if s.place == "param":
            memory[s.name] = np.array(arrays[evaluate(s.at, env)], s.type.dtype.numpy).reshape(_shape(s.type, env))
        elif s.place == "result":
            results[evaluate(s.at, env)] = memory[s.name] = _poison(np.empty(_shape(s.type, env), s.type.dtype.numpy))
    names = {(s.place, s.at): s.name for s in plan.slots}
    for result, param in plan.donated:
        shape = results[result].shape
        results[result] = memory[names["result", result]] = memory[names["param", param]].reshape(shape)
    _run_plan(plan, memory, _poison(np.empty(evaluate(plan.arena, env), np.uint8)), env)
    return [results[k] for k in sorted(results)]


def _shape(t: Type, env: Mapping[str, int]) -> list[int]:
    return [evaluate(s, env) for s in t.shape]


def _run_plan(plan: Plan, memory: dict[str, np.ndarray], arena: np.ndarray, env: Mapping[str, int]) -> None:
    """Run a plan where its parameters and results lie in ``memory``, and its temporaries in ``arena`` (bytes)."""
    for s in plan.slots:
        if s.place == "const":
            memory[s.name] = plan.constants[evaluate(s.at, env)].value
        elif s.place == "arena":
            at, count = evaluate(s.at, env), evaluate(s.type.bytes, env)
            memory[s.name] = arena[at:at + count].view(s.type.dtype.numpy).reshape(_shape(s.type, env))
    kernels = {k.name: k for k in plan.kernels}
    for x in plan.launches:
        inputs, outputs = [memory[n] for n in x.inputs], [memory[n] for n in x.outputs]
        if isinstance(x, Launch):
            _launch(kernels[x.kernel], inputs, outputs, env)
        elif isinstance(x, Branch):
            chosen = x.bodies[min(max(int(inputs[0]), 0), len(x.bodies) - 1)]
            _run_inner(chosen, inputs[1:], outputs[:-1], outputs[-1], env)
        else:
            _run_loop(x, inputs, outputs, env)


def _run_inner(plan: Plan, params: Sequence[np.ndarray], results: Sequence[np.ndarray], arena: np.ndarray, env: Mapping[str, int]) -> None:
    given = {"param": params, "result": results}
    memory = {s.name: given[s.place][evaluate(s.at, env)] for s in plan.slots if s.place in given}
    _run_plan(plan, memory, arena[:evaluate(plan.arena, env)], env)


def _run_loop(x: plans.Loop, inputs: list[np.ndarray], outputs: list[np.ndarray], env: Mapping[str, int]) -> None:
    held, stacked = inputs[:x.fixed], inputs[x.fixed + x.carries:]
    home, written = outputs[:x.carries], outputs[x.carries:x.carries + x.rows]
    for h, first in zip(home, inputs[x.fixed:], strict=False):
        h[...] = first
    now, spare = list(home), dict(zip(x.swapped, outputs[x.carries + x.rows:], strict=False))
    trips = None if x.trips is None else evaluate(x.trips, env)
    done = 0
    while bool(now[0]) if trips is None else done < trips:
        i = 0 if trips is None else trips - 1 - done if x.reverse else done
        following = [spare.get(j, now[j]) for j in range(x.carries)]
        _run_inner(x.body, [*held, *now, *(s[i, ...] for s in stacked)], [*following, *(w[i, ...] for w in written)], outputs[-1], env)
        spare = {j: now[j] for j in spare}
        now, done = following, done + 1
    for h, n in zip(home, now, strict=True):
        h[...] = n
