"""What the driver does around every pass, so that no pass has to: verify, compare, dump, print.

    XLC_CHECK=1   verify the output of every pass                     XLC_DEBUG=1   a line for every compilation, or use of the cache
    XLC_CHECK=2   and interpret graphs before and after               XLC_DEBUG=2   and the time of each kernel by itself
    XLC_CHECK=3   and compare every kernel with the interpreter       XLC_DEBUG=3   and groups, kernels and plan
    XLC_DUMP=dir  write the output of every pass to a numbered file   XLC_DEBUG=4   and LLVM text;  5 and the graph after each pass
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlc import config
from xlc.errors import XlcError
from xlc.ir.node import Graph
from xlc.ir.plan import Plan
from xlc.ir.types import Type, evaluate

_programs = itertools.count()
SYMBOL = 5  # the value of named sizes when graphs are interpreted


class Observer:
    """Watches one compilation."""

    def __init__(self, name: str):
        self.quiet = not (config.check or config.dump or config.debug >= 3)
        self.name, self.step = re.sub(r"\W", "_", name), 0
        self.number = -1 if self.quiet else next(_programs)

    def __call__(self, stage: str, before: Any, after: Any, seconds: float) -> None:
        """``after`` is what the pass ``stage`` made of ``before``."""
        if self.quiet:
            return
        if config.debug >= 5 or (config.debug >= 3 and not isinstance(after, Graph)):
            print(f"-- {stage} ({seconds * 1e3:.1f} ms)\n{as_text(after)}", file=sys.stderr)
        if config.dump:
            self.write(stage, after)
        if config.check >= 1:
            verify(stage, after)
        if config.check >= 2 and isinstance(before, Graph) and isinstance(after, Graph):
            compare(stage, before, after)

    def write(self, stage: str, value: Any) -> None:
        kind = "graph" if isinstance(value, Graph) else "plan" if isinstance(value, Plan) else "txt"
        folder = Path(config.dump) / f"{os.getpid()}-{self.number:03}-{self.name}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.step:02}-{stage}.{kind}").write_text(as_text(value) + "\n", encoding="utf-8")
        self.step += 1


def as_text(value: Any) -> str:
    if isinstance(value, tuple):  # steps: the kernels
        return "\n\n".join(str(k) for s in value for k in s.kernels)
    return str(value)


def verify(stage: str, value: Any) -> None:
    """The independent checker of what this is."""
    from xlc.ir.verify import check_kernel, verify_graph, verify_plan

    if isinstance(value, Graph):
        verify_graph(value)
    elif isinstance(value, Plan):
        verify_plan(value)
        for k in value.kernels:
            check_kernel(k)
    elif hasattr(value, "groups"):
        import networkx as nx

        if not nx.is_directed_acyclic_graph(value.dag()):
            raise XlcError(f"after {stage}: kernels need each other's results")


def compare(stage: str, before: Graph, after: Graph) -> None:
    """Both graphs, interpreted on the same random arrays, agree."""
    from xlc.ir.interp import interpret

    rng = np.random.default_rng(0)
    names = frozenset().union(*(p.type.names for p in before.params))
    env = dict.fromkeys(names, SYMBOL)
    arrays = [random_array(p.type, env, rng) for p in before.params]
    for k, (a, b) in enumerate(zip(interpret(before, *arrays), interpret(after, *arrays), strict=False)):
        if not np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-3, atol=1e-3, equal_nan=True):
            raise XlcError(f"the pass {stage} changed result {k}: run with XLC_DUMP=dir and compare the graphs before and after")


def observing() -> bool:
    """Whether somebody wants to see the stages of a compilation, so that a program from the cache does not do."""
    return bool(config.check or config.dump or config.debug >= 2 or config.override)


def finished(executable: Any, seconds: float, cached: bool) -> None:
    """What is done with a program that is ready to run."""
    if config.check >= 3:
        from xlc.run.launch import check_launches

        check_launches(executable)
    if not config.debug:
        return
    arguments = ", ".join(str(p.type) for p in executable.graph.params)
    from xlc.run.explain import counted

    how = "from the cache on disk" if cached else f"{counted(len(executable.kernels), 'kernel launch')}, compiled"
    print(f"xlc: {executable.graph.name}({arguments}): {how} in {seconds * 1e3:.1f} ms", file=sys.stderr)
    if config.debug >= 4:
        print(*executable.backend.texts(executable.plan), sep="\n", file=sys.stderr)
    if config.debug >= 2:
        from xlc.tools.profile import profile

        print(profile(executable), file=sys.stderr)


def random_array(t: Type, env: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """Values that suit a parameter of this type; ``env`` gives the named sizes."""
    shape = tuple(evaluate(s, env) for s in t.shape)
    return (rng.standard_normal(shape) if t.dtype.is_float else rng.integers(0, 2, shape)).astype(t.dtype.numpy)
