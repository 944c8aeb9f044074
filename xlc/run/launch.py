"""One launch of a program by itself: to time it, or to compare it with the interpreter.

    run = alone(kernel, inputs, outputs, {"batch": 64}, backend)     inputs and outputs are types; run(arrays) gives arrays
    check_launches(executable)                                       XlcError names the first kernel whose results are wrong
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcError, XlcValueError
from xlc.ir.interp import interpret
from xlc.ir.loops import Kernel
from xlc.ir.node import Graph
from xlc.ir.plan import Launch, Plan, Slot
from xlc.ir.types import Type, evaluate
from xlc.observe import SYMBOL, random_array
from xlc.passes.dedupe import structure

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def alone(kernel: Kernel, inputs: Sequence[Type], outputs: Sequence[Type], env: Mapping[str, int], backend: Any) -> Run:
    """A kernel, compiled as a plan of its own and called through the ordinary call path. ``env`` gives the named sizes."""
    from xlc.run.executable import Program

    into = [Slot(f"in{k}", t, "param", k) for k, t in enumerate(inputs)]
    out = [Slot(f"out{k}", t, "result", k) for k, t in enumerate(outputs)]
    launch = Launch(kernel.name, tuple(s.name for s in into), tuple(s.name for s in out))
    code = backend.compile(Plan("alone", tuple(env), (*into, *out), (launch,), (kernel,), (), 0, 0))
    dims = [[(leaf, axis) for leaf, t in enumerate(inputs) for axis, s in enumerate(t.shape) if str(s) == name] for name in env]
    if not all(dims):
        raise XlcValueError(f"kernel {kernel.name} cannot be run by itself: a named size stands alone in none of its inputs")
    results = [(t.dtype.numpy, tuple(evaluate(s, env) for s in t.shape)) for t in outputs]
    tree = ("list", [("leaf", k) for k in range(len(out))])
    run = Program(code, "alone", tuple(env), 0, (), (), backend).callable(params=list(range(len(into))), results=results, out_tree=tree,
                                                                          dims=dims, name="alone")
    return lambda arrays: [r.get() if hasattr(r, "get") else r for r in run.call_flat(arrays)]  # what is on a device comes to the host


def check_launches(executable: Any) -> int:
    """Run every kernel on what the interpreter says enters it, and compare what leaves it; those of bodies on random parameters of the
    body. The number of kernels that could be compared (all of them, but for some with named sizes)."""
    stages = executable.compilation.stages
    plan: Plan = stages.plan
    names = {structure(k): k.name for k in plan.kernels}
    return _check(stages, dict.fromkeys(plan.sizes, SYMBOL), names, executable.backend)


def _check(stages: Any, env: Mapping[str, int], names: Mapping[Any, str], backend: Any) -> int:
    graph: Graph = stages.graph
    rng = np.random.default_rng(0)
    given = [random_array(p.type, env, rng) for p in graph.params]
    alone_ = [s for s in stages.steps if not s.bodies]
    needed = list(dict.fromkeys(n for s in alone_ for n in (*s.inputs, *s.outputs)))
    value = dict(zip(needed, interpret(Graph(graph.params, tuple(needed), graph.name), *given, sizes=env), strict=True))
    compared = sum(_check(body, env, names, backend) for s in stages.steps for body in s.bodies)
    for step in alone_:
        try:
            run = alone(step.kernel, [n.type for n in step.inputs], [n.type for n in step.outputs], env, backend)
        except XlcValueError:
            continue
        for n, found in zip(step.outputs, run([value[i] for i in step.inputs]), strict=True):
            wrong = ~np.isclose(found.astype(np.float64), value[n].astype(np.float64), rtol=1e-3, atol=1e-3, equal_nan=True)
            if wrong.any():
                where = tuple(map(int, np.argwhere(wrong)[0]))
                raise XlcError(f"kernel {names[structure(step.kernel)]} ({step.note}) of {graph.name} gives {found[where]} at "
                               f"{list(where)} of {n.op.name} {n.type}, where the interpreter gives {value[n][where]}; "
                               f"{int(wrong.sum())} of {wrong.size} elements differ", n.loc)
        compared += 1
    return compared
