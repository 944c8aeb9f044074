"""The gradient rules of the operator table, against central differences in float64 and against what is known at ties and edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import op_cases as cases
import pytest
from op_cases import CASES, ELEMENTWISE, TENSOR, Case, known_faults, type_of  # noqa: F401

from xlc.ir.interp import interpret
from xlc.ir.node import Graph, apply, parameter
from xlc.ir.op import Op, lookup
from xlc.ir.types import Type, dtype_of, f64
from xlc.transform.grad import vjp_graph

DIFFERENTIABLE = [op for op in TENSOR if op.dtypes and f64 in op.dtypes and op.kind != "create"
                  and op.name not in ("argmax", "argmin", "argsort", "searchsorted")]
SLOPES = [op for op in ELEMENTWISE if f64 in op.dtypes and op.name not in ("bitcast", "lookup", "nextafter", "stop_gradient")]


def pullback(op: Op, types: list[Type], attrs: dict[str, Any]) -> tuple[Graph, Graph]:
    """The graph of one operator, and the graph (arguments, cotangent) -> cotangents of its float arguments."""
    params = tuple(parameter(t, f"x{k}", k) for k, t in enumerate(types))
    graph = Graph(params, (apply(op, params, attrs),))
    return graph, vjp_graph(graph)


def check(op: Op, args: list[np.ndarray], attrs: dict[str, Any], types: list[Type] | None = None, sizes: dict[str, int] | None = None,
          symbolic: dict[str, Any] | None = None) -> None:
    graph, back = pullback(op, types or list(map(type_of, args)), attrs if symbolic is None else symbolic)
    rng = np.random.default_rng(5)
    out = interpret(graph, *args, sizes=sizes)[0]
    if not dtype_of(out.dtype).is_float:
        assert all(not np.any(g) for g in interpret(back, *args, np.zeros_like(out), sizes=sizes))
        return
    seed = rng.standard_normal(out.shape)
    found = iter(interpret(back, *args, seed, sizes=sizes))
    for k, a in enumerate(args):
        if a.dtype != np.float64:
            continue
        g = next(found)
        assert g.shape == a.shape and g.dtype == a.dtype
        direction, h = rng.standard_normal(a.shape), 1e-6
        moved = [interpret(graph, *args[:k], a + s * h * direction, *args[k + 1:], sizes=sizes)[0] for s in (1, -1)]
        slope = np.sum(seed * (moved[0] - moved[1])) / (2 * h)
        np.testing.assert_allclose(np.sum(g * direction), slope, rtol=2e-6, atol=2e-6, err_msg=f"{op.name} argument {k}")


@pytest.mark.parametrize("op", SLOPES, ids=lambda op: op.name)
def test_elementwise(op: Op) -> None:
    attrs = {"dtype": f64} if op.name == "cast" else {}
    args = cases.elementwise_arguments(op, f64, (11,))
    if op.vjp is None:
        pytest.fail(f"{op.name} has no gradient rule")
    if op.name in ("floor", "ceil", "trunc", "round", "sign", "floor_divide"):
        args = [np.where(np.abs(a - np.round(2 * a) / 2) < 1e-3, a + 0.01, a) for a in args]
    check(op, args, attrs)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_tensor(op: Op) -> None:
    for case in CASES[op.name]:
        check(op, cases.arguments(case, f64), case.attrs)


@pytest.mark.parametrize("op,case", [(op, c) for op in DIFFERENTIABLE for c in CASES[op.name] if c.symbolic is not None],
                         ids=lambda v: v.name if isinstance(v, Op) else "")
def test_slopes_with_named_sizes(op: Op, case: Case) -> None:
    assert case.symbolic is not None
    shapes, attrs, sizes = case.symbolic
    args = cases.arguments(case, f64)
    types = [Type(dtype_of(a.dtype), tuple(s)) for a, s in zip(args, shapes, strict=True)]
    check(op, args, case.attrs, types, sizes, attrs)




def gradient(name: str, *args: Any, seed: Any = None, **attrs: Any) -> list[np.ndarray]:
    """The cotangents of all float arguments for the cotangent ``seed`` (ones)."""
    arrays = [np.asarray(a) for a in args]
    graph, back = pullback(lookup(name), list(map(type_of, arrays)), attrs)
    out = interpret(graph, *arrays)[0]
    return interpret(back, *arrays, np.ones_like(out) if seed is None else np.asarray(seed, out.dtype))


def test_ties_share_equally() -> None:
    assert [g.tolist() for g in gradient("maximum", [1.0, 2.0, 3.0], [3.0, 2.0, 1.0])] == [[0, 0.5, 1], [1, 0.5, 0]]
    assert gradient("max", [1.0, 3.0, 3.0, 2.0], axes=(0,))[0].tolist() == [0, 0.5, 0.5, 0]
    assert gradient("min", [[1.0, 1.0], [2.0, 1.0]], axes=(1,))[0].tolist() == [[0.5, 0.5], [0, 1]]
    assert gradient("abs", [-2.0, 0.0, 2.0])[0].tolist() == [-1, 0, 1]
    assert gradient("relu", [-2.0, 0.0, 2.0])[0].tolist() == [0, 0, 1]


def test_products_with_zeros() -> None:
    assert gradient("prod", [2.0, 0.0, 3.0], axes=(0,))[0].tolist() == [0, 6, 0]
    assert gradient("prod", [2.0, 0.0, 0.0], axes=(0,))[0].tolist() == [0, 0, 0]
    x = np.array([2.0, 0.0, 3.0, 5.0, 0.0, 7.0])
    seed = np.array([1.0, 10.0, 100.0, 1000.0, 1e4, 1e5])
    for reverse in (False, True):
        expected = np.zeros(6)
        for i in range(6):
            for j in range(6):
                span = range(j, 6) if reverse else range(j + 1)
                if i in span:
                    expected[i] += seed[j] * np.prod([x[k] for k in span if k != i])
        found = gradient("cumulative_prod", x, seed=seed, axis=0, reverse=reverse)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_long_cumulative_products_take_linear_memory() -> None:
    x = np.full((20_000,), 1.0 + 1e-9)
    for name in ("cumulative_prod", "cumulative_max"):
        graph, back = pullback(lookup(name), [type_of(x)], {"axis": 0, "reverse": False})
        assert all(n.type.size <= 4 * x.size for n in back.nodes() if isinstance(n.type.size, int))


def test_powers() -> None:
    base, exponent = gradient("pow", [0.0, 0.0, 0.0, -2.0, 2.0], [0.0, 1.0, 2.0, 3.0, -1.0])
    assert base.tolist() == [0, 1, 0, 12, -0.25]
    assert exponent[:3].tolist() == [0, 0, 0]


def test_running_extremes_keep_the_last_holder() -> None:
    found = gradient("cumulative_max", [1.0, 3.0, 2.0, 3.0, 5.0], seed=[1, 10, 100, 1000, 10000], axis=0, reverse=False)[0]
    assert found.tolist() == [1, 110, 0, 1000, 10000]
    found = gradient("cumulative_min", [2.0, 1.0, 3.0], seed=[1, 10, 100], axis=0, reverse=True)[0]
    assert found.tolist() == [0, 11, 100]


def test_scatter_with_repeated_and_lost_indices() -> None:
    x, u, ids = np.zeros(3), np.array([1.0, 2.0, 4.0, 8.0]), np.array([1, 1, 7, 0])
    seed = [1.0, 10.0, 100.0]
    assert [g.tolist() for g in gradient("scatter", x, u, ids, seed=seed, axes=(0,), mode="set")] == [[0, 0, 100], [0, 10, 0, 1]]
    assert [g.tolist() for g in gradient("scatter", x, u, ids, seed=seed, axes=(0,), mode="add")] == [[1, 10, 100], [10, 10, 0, 1]]
    assert [g.tolist() for g in gradient("scatter", x, np.array([5.0, 5.0, 4.0, -1.0]), ids, seed=seed, axes=(0,), mode="max")] == \
        [[1, 0, 100], [5, 5, 0, 0]]
    product = gradient("scatter", np.array([3.0, 2.0, 1.0]), np.array([0.0, 5.0, 4.0, 0.0]), ids, seed=seed, axes=(0,), mode="multiply")
    assert [g.tolist() for g in product] == [[0, 0, 100], [100, 0, 0, 3]]


def test_small_index_dtypes_reach_far() -> None:
    x, ids = np.arange(300.0), np.array([5, 127, 0], np.int8)
    found = gradient("gather", x, ids, axis=0)[0]
    assert np.flatnonzero(found).tolist() == [0, 5, 127]
    found = gradient("scatter", x, np.ones(3), ids, axes=(0,), mode="add")
    assert found[1].tolist() == [1, 1, 1]


def test_slopes_far_out_and_at_the_edge() -> None:
    """Where the textbook formula cancels or meets inf - inf. (tanh: y itself has no more digits.)"""
    np.testing.assert_allclose(gradient("tanh", [12.0])[0], 1 / np.cosh([12.0]) ** 2, rtol=1e-4)
    np.testing.assert_allclose(gradient("expit", [40.0, -40.0])[0], [4.248354255291589e-18] * 2, rtol=1e-12)
    np.testing.assert_allclose(gradient("expm1", [-45.0])[0], np.exp([-45.0]), rtol=1e-14)
    np.testing.assert_allclose(gradient("asin", [1 - 2.0**-40])[0], 1 / np.sqrt(2.0**-40 * (2 - 2.0**-40)), rtol=1e-14)
    assert [float(g[0]) for g in gradient("logaddexp", [-np.inf], [-np.inf])] == [0.5, 0.5]
    assert [float(g[0]) for g in gradient("hypot", [0.0], [0.0])] == [0, 0]
    assert gradient("logsumexp", [-np.inf, 0.0], axes=(0,))[0].tolist() == [0, 1]
    assert [float(g[0]) for g in gradient("remainder", [0.3], [0.1])] == [1, -2]


def test_a_cross_entropy_is_softmax_minus_label() -> None:
    x = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(gradient("cross_entropy", x, np.array([2, 0]))[0], p - np.eye(3)[[2, 0]], atol=1e-15)


def test_causal_attention_with_named_sizes_masks_as_with_numbers() -> None:
    case = next(c for c in CASES["attention"] if c.symbolic is not None)
    assert case.symbolic is not None
    shapes, attrs, sizes = case.symbolic
    args = cases.arguments(case, f64)
    op = lookup("attention")
    fixed = pullback(op, list(map(type_of, args)), case.attrs)[0]
    named = pullback(op, [Type(f64, tuple(s)) for s in shapes], attrs)[0]
    decomposed = [Graph(g.params, (op.decompose(*g.params, **a),)) for g, a in ((fixed, case.attrs), (named, attrs))]  # type: ignore[misc]
    np.testing.assert_allclose(interpret(decomposed[0], *args)[0], interpret(decomposed[1], *args, sizes=sizes)[0], rtol=1e-14)
