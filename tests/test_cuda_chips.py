"""What chips make of kernels: those of the operator table's cases, with named sizes and gradients, and every schedule for every chip.

NVRTC compiles, and no kernel may spill registers or have an array in local memory (``cuda_backend.check_resources``). Only the cases with
named sizes run, on the shim. The conformance suite and the networks are compiled where they are tested.
``XLC_ALL=1`` takes every dtype of every case, and its gradients in all of them; without it, the dtypes take turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cuda_backend
import numpy as np
import op_cases as cases
import pytest
from fuzz_oracle import Expected
from op_cases import CASES, ELEMENTWISE, TENSOR, Case, graph_of, type_of

import xlc
import xlc.numpy as xp
from xlc import nn
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.chip import CHIPS
from xlc.ir.node import Graph
from xlc.ir.op import Op
from xlc.ir.types import DTYPES, Dim, DType
from xlc.pipeline import compile_graph
from xlc.transform.grad import vjp_graph

ALL = bool(os.environ.get("XLC_ALL"))
NO_SLOPE = ("bitcast", "lookup", "argmax", "argmin", "argsort", "searchsorted")


def turn(dtypes: Sequence[DType], k: int) -> Sequence[DType]:
    """The dtypes in which the k-th case is compiled."""
    return dtypes if ALL or not dtypes else (dtypes[k % len(dtypes)],)


def graphs(op: Op) -> Iterator[Graph]:
    """The operator on its cases, also with named sizes, and the pullbacks of both."""
    listed: list[Case | None] = [*CASES.get(op.name, [None])]
    for k, case in enumerate(listed):
        every = cases.dtypes(op, case) if case else op.dtypes
        floats = [d for d in every if d.is_float]
        for dtype in dict.fromkeys([*turn(every, k + len(op.name)), *turn(floats, k + len(op.name))]):
            args = cases.arguments(case, dtype) if case else cases.elementwise_arguments(op, dtype, (67,))
            found = [graph_of(op, list(map(type_of, args)), attrs)
                     for attrs in ([case.attrs] if case else cases.elementwise_attrs(op, dtype))]
            if case and case.symbolic:
                shapes, attrs, _ = case.symbolic
                found.append(graph_of(op, [type_of(a).with_shape(s) for a, s in zip(args, shapes, strict=True)], attrs))
            yield from found
            if op.name not in NO_SLOPE and dtype in floats:
                yield from (back for g in found if g.results[0].dtype.is_float and (back := vjp_graph(g)).results)


@pytest.mark.parametrize("chip", cuda_backend.CHIPS)
@pytest.mark.parametrize("op", ELEMENTWISE + TENSOR, ids=lambda op: op.name)
def test_generated(op: Op, chip: str) -> None:
    cuda_backend.check_resources(*(compile_graph(g, device=chip) for g in graphs(op)))


@pytest.mark.skipif(not cuda_backend.DEVICES, reason=str(cuda_backend.MISSING))
@pytest.mark.parametrize("op", [op for op in TENSOR if any(c.symbolic for c in CASES[op.name])], ids=lambda op: op.name)
def test_named_sizes_run(op: Op) -> None:
    """The text with named sizes computes what the interpreter does."""
    for k, case in enumerate(CASES[op.name]):
        for dtype in turn(cases.dtypes(op, case), k + len(op.name)) if case.symbolic else ():
            args = cases.arguments(case, dtype)
            assert case.symbolic is not None
            shapes, attrs, _ = case.symbolic
            graph = graph_of(op, [type_of(a).with_shape(s) for a, s in zip(args, shapes, strict=True)], attrs)
            lone = {str(s) for p in graph.params for s in p.shape if isinstance(s, Dim)}
            if all(name in lone for v in (*graph.params, *graph.results) for name in v.type.names):  # else no argument tells the size
                wrong = Expected(graph, args).check(compile_graph(graph, device=cuda_backend.DEVICES[0]).run(args))
                assert wrong is None, f"{wrong}: {op.name} {attrs} in {dtype}"


# ------------------------------------------------------------------------------------------------ every schedule


def spec(dtype: str, *shape: int | str) -> Any:
    return xlc.spec(shape, DTYPES[dtype].numpy)


def loops(x: Any) -> Any:
    """A loop of a known number of iterations, one that runs while a condition holds, and a branch in it."""
    def step(c: Any, row: Any) -> Any:
        c = xlc.cond(np.sum(c) > 3, lambda c: c * 0.5, lambda c: c + row, c)
        return c, np.max(c)

    c, rows = xlc.scan(step, x[0], x)
    return xlc.while_loop(lambda c: np.sum(c * c) < 100, lambda c: c * 2 + 1, c), rows


def convolution(x: Any, w: Any) -> Any:
    return nn.relu(nn.conv(x, w, padding=1))


SCHEDULES: dict[str, tuple[Callable[..., Any], Callable[[str], tuple[Any, ...]], str, str]] = {
    # name: (function, its arguments in a dtype, dtypes, what its text has)
    "map": (lambda x, y: np.where(x > y, x, y * y + x), lambda d: (spec(d, 1 << 20),) * 2, "f32 f16 bf16 i64 u8", "xlc_vec"),
    "mask": (lambda x, y: (x & ~y) | (x ^ y), lambda d: (spec(d, 1001),) * 2, "bool i64", "&"),
    "named": (lambda x, y: x + y * x, lambda d: (spec(d, "n", 7),) * 2, "f32 bf16 i64", "n_n"),
    "transpose": (lambda x: np.transpose(x, (0, 2, 1)), lambda d: (spec(d, 3, 500, 700),), "f32 bf16 i64", "xlc_shared"),
    "columns": (lambda x: (np.sum(x, 0), np.max(x, 0)), lambda d: (spec(d, 4096, 300),), "f32 f16 bf16 i64", "xlc_shared"),
    "any": (lambda x: (np.any(x, 1), np.argmax(x, 1)), lambda d: (spec(d, 300, 1000),), "bool", "__shfl"),
    "rows": (lambda x: nn.softmax(x * 2), lambda d: (spec(d, 512, 1024),), "f32 f16 bf16", "__shfl_xor_sync"),
    "team": (lambda x: nn.softmax(x * 2), lambda d: (spec(d, 512, 20000),), "f32 f16 bf16", "__syncthreads"),
    "long": (lambda x: np.sum(x), lambda d: (spec(d, 1 << 24),), "f32 bf16 i64", "__shfl_xor_sync"),
    "few": (lambda x, w: x @ w, lambda d: (spec(d, 3, 1000), spec(d, 1000, 500)), "f32 f16 bf16 i64", "acc"),
    "tiled": (lambda x, w: nn.gelu(x @ w), lambda d: (spec(d, 600, 500), spec(d, 500, 700)), "f32 f64", "xlc_shared"),
    "tiled integers": (lambda x, w: x @ w, lambda d: (spec(d, 600, 500), spec(d, 500, 700)), "i64 i32", "xlc_shared"),
    "tensor": (lambda x, w, b: nn.gelu(x @ w + b), lambda d: (spec(d, 1000, 512), spec(d, 512, 768), spec(d, 768)), "f16 bf16", "acc"),
    "window": (convolution, lambda d: (spec(d, 4, 30, 30, 32), spec(d, 3, 3, 32, 64)), "f32 f16 bf16", "acc"),
    "online": (lambda q, k, v: nn.attention(q, k, v, causal=True), lambda d: (spec(d, 8, 1024, 64),) * 3, "f32 f16 bf16", "xlc_shared"),
    "scan": (lambda x: np.cumsum(x, 1), lambda d: (spec(d, 20, 5000),), "f32 bf16 i64", "__shfl"),
    "sort": (lambda x: (np.sort(x, 1), np.argsort(x, 1, kind="stable")), lambda d: (spec(d, 20, 5000),), "f32 bf16 i64", "xlc_shared"),
    "indexed": (lambda x, u, i: (xp.at(x, i).add(u), np.take(x, i, 0)),
                lambda d: (spec(d, 500, 64), spec(d, 2000, 64), spec("i64", 2000)), "f32 bf16 i64", "for"),
    "loops": (loops, lambda d: (spec(d, 50, 100),), "f32 f16 f64", "xlc_grid_sync"),
}
OTHER_CHIPS = [a for a in CHIPS if f"cuda:{a}" not in cuda_backend.CHIPS and nvrtc.available() and a in nvrtc.supported()]
IN_CI = ("sm_75", "sm_86", "sm_120")
"""The oldest, and those with the least shared memory of their generation; the rest with ``XLC_ALL=1``."""


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("arch", [a for a in OTHER_CHIPS if ALL or a in IN_CI])
def test_every_schedule(arch: str, name: str) -> None:
    """Within the chip's shared memory, without what it does not have, without spills."""
    f, arguments, dtypes, has = SCHEDULES[name]
    programs = [xlc.jit(f, device=f"cuda:{arch}").compile(*arguments(d)).program for d in dtypes.split()]
    cuda_backend.check_resources(*programs)
    for p in programs:
        assert has in p.backend.text(p.plan), f"{name} for {arch} has no {has}"
