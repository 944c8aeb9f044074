"""What the generated operator tests run: for every operator of the table that is not elementwise, arguments of odd shapes and attributes.

    CASES["gather"] -> [Case([(5, 3), ids], {"axis": 0}), ...]

An argument is a shape (values are drawn, in the dtype under test), or an array, which is taken as it is. ``symbolic`` says which case also
runs with named sizes: the shapes of its arguments with names in place of some numbers, and its attributes so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from xlc.ir.node import Graph, apply, parameter
from xlc.ir.op import OPS, Op, lookup
from xlc.ir.types import DTYPES, Dim, DType, Type, dtype_of, f32, i64

lookup("add")
FLOATS = [d for d in DTYPES.values() if d.is_float]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (7,), (3, 5)]
n, m = Dim.named("n"), Dim.named("m")


# Known faults: each test is expected to fail, and fails if it does not.
KNOWN_FAULTS: set[str] = set()


@pytest.fixture(autouse=True)
def known_faults(request: pytest.FixtureRequest) -> None:
    if request.node.name in KNOWN_FAULTS:
        request.node.add_marker(pytest.mark.xfail(strict=True, reason="a known fault of the operator table"))


@dataclass
class Case:
    """``dtypes``: the dtypes of the arguments that are shapes (empty: all that the operator admits)."""

    args: list[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    dtypes: Sequence[DType] = ()
    symbolic: tuple[list[tuple[Any, ...]], dict[str, Any], dict[str, int]] | None = None


def ids(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def _reductions() -> list[Case]:
    return [Case([(3, 5)], {"axes": (1,)}, symbolic=([(n, m)], {"axes": (1,)}, {"n": 3, "m": 5})), Case([(3, 5)], {"axes": (0,)}),
            Case([(2, 3, 7)], {"axes": (0, 2)}), Case([(13,)], {"axes": (0,)}), Case([(1,)], {"axes": (0,)}),
            Case([(0, 3)], {"axes": (1,)}),
            Case([(3, 5)], {"axes": (0, 1)})]


def _cumulative() -> list[Case]:
    return [Case([(7,)], {"axis": 0, "reverse": False}, symbolic=([(n,)], {"axis": 0, "reverse": False}, {"n": 7})),
            Case([(3, 5)], {"axis": 0, "reverse": True}), Case([(2, 3, 4)], {"axis": 1, "reverse": False}),
            Case([(0,)], {"axis": 0, "reverse": False}),
            Case([(1, 3)], {"axis": 0, "reverse": True})]


def _scatters() -> list[Case]:
    found = []
    for mode in ("set", "add", "multiply", "max", "min"):
        found += [Case([(5, 3), (4, 3), ids([4, 0, 4, 9])], {"axes": (0,), "mode": mode}, FLOATS),
                  Case([(3, 5), (3, 4), ids([1, 1, 1, -1])], {"axes": (1,), "mode": mode}, FLOATS),
                  Case([(4, 5), (2, 3), ids([[0, 1, 2], [3, 3, 3]]), ids([[0, 1, 2], [4, 4, 4]])], {"axes": (0, 1), "mode": mode}, FLOATS)]
    found[0].symbolic = ([(n, m), (4, m), (4,)], {"axes": (0,), "mode": "set"}, {"n": 5, "m": 3})
    return found


def _slices() -> list[Case]:
    def cut(size: tuple[int, ...], *ranges: tuple[int, int, int]) -> Case:
        start, stop, step = zip(*ranges, strict=True)
        return Case([size], {"start": start, "stop": stop, "step": step})

    symbolic = Case([(7, 5)], {"start": (6, 0), "stop": (-1, 4), "step": (-1, 1)},
                    symbolic=([(n, m)], {"start": (n - 1, 0), "stop": (-1, m - 1), "step": (-1, 1)}, {"n": 7, "m": 5}))
    spread = Case([(8,)], {"start": (1,), "stop": (8,), "step": (3,)}, symbolic=([(n,)], {"start": (1,), "stop": (n,), "step": (3,)},
                                                                                 {"n": 8}))
    return [cut((7,), (1, 6, 1)), cut((7,), (0, 7, 3)), cut((7,), (1, 7, 3)), cut((7,), (6, -1, -1)), cut((7,), (5, 0, -2)),
            cut((7,), (3, 3, 1)),
            cut((7,), (6, 1, -3)), cut((3, 5), (0, 3, 2), (4, -1, -1)), cut((0,), (0, 0, 1)), symbolic, spread]


def _conv(x: Any, w: Any, padding: Any, stride: Any, base: Any, dilation: Any, groups: int) -> Case:
    attrs = {"padding": padding, "stride": stride, "base": base, "dilation": dilation, "groups": groups}
    return Case([x, w], attrs, symbolic=([(n, *x[1:]), w], attrs, {"n": x[0]}) if x[0] else None)


def _pool(x: Any, window: Any, stride: Any, padding: Any, **attrs: Any) -> Case:
    attrs |= {"axes": tuple(range(1, 1 + len(window))), "window": window, "stride": stride, "padding": padding}
    return Case([x], attrs, symbolic=([(n, *x[1:])], attrs, {"n": x[0]}))


CASES: dict[str, list[Case]] = {
    "full": [Case([], {"value": 3, "shape": (2, 3), "dtype": f32}), Case([], {"value": 0, "shape": (), "dtype": i64})],
    "iota": [Case([], {"shape": (3, 5), "axis": k, "dtype": d}) for k, d in ((0, i64), (1, f32), (1, DTYPES["u8"]))],
    "extent": [Case([], {"size": 5})],
    "copy": [Case([(3, 5)])],
    "optimization_barrier": [Case([(3, 5), (2,)], symbolic=([(n, m), (2,)], {}, {"n": 3, "m": 5})), Case([()]), Case([(0,), (), (3,)])],
    "broadcast": [Case([(3,)], {"shape": (2, 3, 4), "axes": (1,)}, symbolic=([(n,)], {"shape": (2, n, m), "axes": (1,)}, {"n": 3, "m": 4})),
                  Case([()], {"shape": (7,), "axes": ()}), Case([(2, 3)], {"shape": (2, 3), "axes": (0, 1)}),
                  Case([()], {"shape": (0, 2), "axes": ()})],
    "transpose": [Case([(2, 3, 5)], {"axes": (2, 0, 1)}, symbolic=([(n, 3, m)], {"axes": (2, 0, 1)}, {"n": 2, "m": 5})),
                  Case([()], {"axes": ()})],
    "reshape": [Case([(6, 5)], {"shape": (5, 6)}), Case([(2, 3, 5)], {"shape": (6, 5)}), Case([(6, 1, 5)], {"shape": (2, 3, 1, 5)}),
                Case([(1, 1)], {"shape": ()}), Case([(0, 3)], {"shape": (3, 0, 2)}), Case([(4, 9)], {"shape": (6, 6)}),
                Case([(3, 4)], {"shape": (12,)}, symbolic=([(n, 4)], {"shape": (n * 4,)}, {"n": 3})),
                Case([(15, 2)], {"shape": (3, 5, 2)}, symbolic=([(n * m, 2)], {"shape": (n, m, 2)}, {"n": 3, "m": 5}))],
    "slice": _slices(),
    "pad": [Case([(3, 5), ()], {"low": (1, 0), "high": (2, 3)}, symbolic=([(n, m), ()], {"low": (1, 0), "high": (2, m - 2)},
                                                                          {"n": 3, "m": 5})),
            Case([(0,), ()], {"low": (2,), "high": (0,)}), Case([(), ()], {"low": (), "high": ()})],
    "concat": [Case([(3, 2), (3, 0), (3, 5)], {"axis": 1}, symbolic=([(n, 2), (n, 0), (n, m)], {"axis": 1}, {"n": 3, "m": 5})),
               Case([(4,)], {"axis": 0})],
    "gather": [Case([(5, 3), ids([[4, 0], [9, -3]])], {"axis": 0}, symbolic=([(n, m), (2, 2)], {"axis": 0}, {"n": 5, "m": 3})),
               Case([(3, 5), np.array(2, np.uint8)], {"axis": 1}), Case([(5,), np.zeros((0,), np.int32)], {"axis": 0}),
               Case([(300,), np.array([5, 127, 0], np.int8)], {"axis": 0})],
    "index": [Case([(4, 5, 3), ids([0, 3, 9]), ids([4, 1, 0])], {"axes": (0, 1)}),
              Case([(4, 5, 3), ids([[0], [3]]), ids([[2], [2]])], {"axes": (0, 2)}),
              Case([(4, 5), ids([1, 1])], {"axes": (1,)}, symbolic=([(n, m), (2,)], {"axes": (1,)}, {"n": 4, "m": 5}))],
    "take_along": [Case([(3, 5), ids([[0, 4], [1, 1], [7, 2]])], {"axis": 1}), Case([(3,), ids([2, 2, 0, 1])], {"axis": 0},
                                                                                      symbolic=([(n,), (4,)], {"axis": 0}, {"n": 3}))],
    "scatter": _scatters(),
    "sort": [Case([(7,)], {"axis": 0}), Case([(3, 5)], {"axis": 0}), Case([(0, 2)], {"axis": 1})],
    "argsort": [Case([(7,)], {"axis": 0}), Case([(3, 5)], {"axis": 1})],
    "searchsorted": [Case([np.array([-1, 0, 0, 2, np.nan], np.float32), np.array([[-2, 0, 1], [2, 3, np.nan]], np.float32)], {"side": s})
                     for s in ("left", "right")] + [Case([np.arange(11) * 3, np.arange(-2, 35)], {"side": "left"}),
                                                    Case([np.sort(np.sin(np.arange(37.0))), np.linspace(-1, 1, 13)], {"side": "right"},
                                                         symbolic=(
                                                        [(n,), (m,)], {"side": "right"}, {"n": 37, "m": 13})),
                                                    Case([np.zeros(0, np.int32), np.arange(3, dtype=np.int32)], {"side": "right"}),
                                                    Case([np.sort(np.sin(np.arange(10.0)).reshape(2, 5)),
                                                          np.linspace(-1, 1, 6).reshape(2, 3)], {"side": "left"})],
    "dot": [Case([(3, 5), (5, 2)], {"contract": ((1,), (0,)), "batch": ((), ())},
                 symbolic=([(n, m), (m, 2)], {"contract": ((1,), (0,)), "batch": ((), ())}, {"n": 3, "m": 5})),
            Case([(2, 3, 5), (5, 2, 4)], {"contract": ((2,), (0,)), "batch": ((0,), (1,))}),
            Case([(3,), (4,)], {"contract": ((), ()), "batch": ((), ())}),
            Case([(2, 3, 4), (4, 7, 3)], {"contract": ((1, 2), (2, 0)), "batch": ((), ())}),
            Case([(3, 0), (0, 2)], {"contract": ((1,), (0,)), "batch": ((), ())}),
            Case([(2, 5), (5, 2)], {"contract": ((0, 1), (1, 0)), "batch": ((), ())})],
    "softmax": [Case([(3, 5)], {"axes": (1,)}, symbolic=([(n, m)], {"axes": (1,)}, {"n": 3, "m": 5})), Case([(2, 3, 4)], {"axes": (0, 2)})],
    "log_softmax": [Case([(3, 5)], {"axes": (0,)})],
    "layer_norm": [Case([(3, 5), (5,), (5,)], {"axes": (1,), "eps": 1e-5},
                        symbolic=([(n, m), (m,), (m,)], {"axes": (1,), "eps": 1e-5}, {"n": 3, "m": 5}))],
    "variance": [Case([(3, 5)], {"axes": (1,)}, symbolic=([(n, m)], {"axes": (1,)}, {"n": 3, "m": 5})),
                 Case([(2, 3, 4)], {"axes": (0, 1)})],
    "standardize": [Case([(3, 5)], {"axes": (1,), "eps": 1e-5}, symbolic=([(n, m)], {"axes": (1,), "eps": 1e-5}, {"n": 3, "m": 5})),
                    Case([(2, 3, 4)], {"axes": (0, 1), "eps": 1e-3})],
    "rms_norm": [Case([(2, 3, 4), (3, 4)], {"axes": (1, 2), "eps": 1e-6})],
    "cross_entropy": [Case([(3, 5), ids([0, 4, 2])], {}, symbolic=([(n, m), (n,)], {}, {"n": 3, "m": 5})), Case([(5,), ids(3)])],
    "sigmoid_cross_entropy": [Case([(3, 5), (3, 5)])],
    "attention": [Case([(2, 3, 4), (2, 5, 4), (2, 5, 7)], {"causal": False, "scale": None}),
                  Case([(2, 3, 4), (2, 5, 4), (2, 5, 7)], {"causal": True, "scale": 0.3},
                       symbolic=([(2, n, 4), (2, m, 4), (2, m, 7)], {"causal": True, "scale": 0.3}, {"n": 3, "m": 5})),
                  Case([(2, 3, 4), (2, 5, 4), (2, 5, 7), (2, 3, 5)], {"causal": False, "scale": None})],
}
CASES |= {
    "slide": [Case([(2, 3, 9)], {"axes": (2,), "windows": (0,), "start": (1,), "stride": (3,), "dilation": (2,), "count": (2,)},
                   symbolic=([(2, 3, n)], {"axes": (2,), "windows": (0,), "start": (1,), "stride": (3,), "dilation": (2,),
                                           "count": ((n - 3) // 3,)}, {"n": 9})),
              Case([(4, 5, 2, 3)], {"axes": (1, 0), "windows": (2, 3), "start": (1, 2), "stride": (1, 1), "dilation": (1, -1),
                                    "count": (3, 2)}),
              Case([(5, 2)], {"axes": (0,), "windows": (1,), "start": (0,), "stride": (1,), "dilation": (1,), "count": (0,)})],
    "conv": [_conv((2, 5, 6, 3), (3, 2, 3, 4), ((1, 1), (0, 2)), (2, 1), (1, 1), (1, 2), 1),
             _conv((2, 5, 4), (3, 2, 6), ((2, -1),), (1,), (3,), (1,), 2),
             _conv((1, 4, 3, 3, 2), (2, 1, 2, 1, 2), ((0, 1),) * 3, *[(1, 1, 1)] * 3, 2),
             _conv((0, 5, 3), (2, 3, 4), ((0, 0),), (1,), (1,), (1,), 1)],
    "conv_weights": [Case([(2, 5, 6, 3), (2, 3, 3, 4)], {"window": (3, 2), "padding": ((1, 1), (0, 1)), "stride": (2, 2), "base": (1, 1),
                                                         "dilation": (1, 2), "groups": 1}),
                     Case([(2, 5, 4), (2, 5, 4)], {"window": (2,), "padding": ((1, 0),), "stride": (1,), "base": (1,), "dilation": (1,),
                                                   "groups": 4})],
    "max_pool": [_pool((2, 5, 6, 3), (2, 3), (2, 1), ((1, 0), (1, 1))), _pool((3, 7), (2,), (2,), ((0, 0),))],
    "sum_pool": [_pool((2, 5, 6, 3), (3, 2), (1, 3), ((1, 0), (0, 2)))],
    "avg_pool": [_pool((2, 5, 6, 3), (2, 3), (2, 1), ((1, 0), (1, 1)), count_include_pad=c) for c in (True, False)],
    "local_response_norm": [Case([(2, 7)], {"radius": 2, "alpha": 0.1, "beta": 0.75, "k": 1.5})],
    "resample": [Case([(2, 5, 3)], {"axis": 1, "count": s, "method": how, "adjoint": back}, () if how == "nearest" else FLOATS)
                 for s, how, back in ((8, "nearest", False), (3, "bilinear", False), (7, "bilinear", True))],
}
CASES |= {name: _reductions() for name in ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin", "logsumexp")}
CASES |= {name: _cumulative() for name in ("cumulative_sum", "cumulative_prod", "cumulative_max", "cumulative_min")}
ELEMENTWISE = sorted((op for op in OPS.values() if op.kind == "elementwise"), key=lambda op: op.name)
# Control flow is made of graphs, and has tests of its own (test_control.py).
TENSOR = sorted((op for op in OPS.values() if op.kind not in ("elementwise", "input", "control")), key=lambda op: op.name)
ATTRS: dict[str, list[dict[str, Any]]] = {"cast": [{"dtype": d} for d in DTYPES.values()],
                                          "threefry2x32": [{"word": 0}, {"word": 1}],
                                          "lookup": [{"table": (1.5, -2.0, 0.0, 9.0), "dtype": f32}]}


def elementwise_attrs(op: Op, dtype: DType) -> list[dict[str, Any]]:
    if op.name == "bitcast":
        return [{"dtype": d} for d in DTYPES.values() if d.bits == dtype.bits and d.kind != "b"]
    return ATTRS.get(op.name, [{}])


def draw(dtype: DType, shape: tuple[int, ...], low: float = -4, high: float = 4, seed: int = 0) -> np.ndarray:
    """Values of the dtype between low and high."""
    rng = np.random.default_rng([seed, *shape, *map(ord, dtype.name)])
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.is_int:
        return rng.integers(max(int(low), 0) if dtype.kind == "u" else int(low), int(high) + 1, shape).astype(dtype.numpy)
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype.numpy)


def elementwise_arguments(op: Op, dtype: DType, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    found = [draw(dtype, shape, *op.samples[k] if op.samples else (-4, 4), seed=seed + k) for k in range(op.arity or 1)]
    if op.name == "where":
        found[0] = draw(DTYPES["bool"], shape, seed=seed)
    return found


def arguments(case: Case, dtype: DType, seed: int = 0) -> list[np.ndarray]:
    return [draw(dtype, a, seed=seed + k) if isinstance(a, tuple) else a for k, a in enumerate(case.args)]


def dtypes(op: Op, case: Case) -> Sequence[DType]:
    """The dtypes to run a case with: where no argument is drawn, one will do."""
    return (case.dtypes or op.dtypes) if any(isinstance(a, tuple) for a in case.args) else op.dtypes[:1]


def every_graph(op: Op) -> Iterator[Graph]:
    """The operator on each of its cases, in every dtype, and with named sizes."""
    for case in CASES.get(op.name, [None]):  # type: ignore[list-item]
        for dtype in dtypes(op, case) if case else op.dtypes:
            args = arguments(case, dtype) if case else elementwise_arguments(op, dtype, (3,))
            for attrs in [case.attrs] if case else elementwise_attrs(op, dtype):
                yield graph_of(op, list(map(type_of, args)), attrs)
            if case and case.symbolic:
                shapes, named, _ = case.symbolic
                yield graph_of(op, [Type(dtype_of(a.dtype), s) for a, s in zip(args, shapes, strict=True)], named)


def graph_of(op: Op, types: Sequence[Type], attrs: dict[str, Any]) -> Graph:
    """One operator on parameters of these types."""
    params = tuple(parameter(t, f"x{k}", k) for k, t in enumerate(types))
    return Graph(params, (apply(op, params, attrs),))


def type_of(a: np.ndarray) -> Type:
    return Type(dtype_of(a.dtype), a.shape)


def widened(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) if dtype_of(a.dtype).is_float else a
