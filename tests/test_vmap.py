"""Vectorisation: the operator table against a loop, for every choice of batched arguments, and ``vmap`` with the other transforms."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import op_cases as cases
import pytest
from op_cases import CASES, ELEMENTWISE, TENSOR, Case, graph_of, type_of

import xlc
from xlc.ir.interp import interpret
from xlc.ir.node import Graph, parameter
from xlc.ir.op import Op, lookup
from xlc.ir.types import Dim, DType, Type, bool_, f32, f64
from xlc.ir.verify import verify_graph
from xlc.transform.vmap import batch_graph

TENSORS = [op for op in TENSOR if op.kind != "create"]


def variant(a: np.ndarray, k: int) -> np.ndarray:
    """Another argument of the same kind: rolled, so that indices stay indices and sorted rows, scaled, stay sorted."""
    if a.dtype.kind in "iu":
        return np.roll(a, k, axis=None) if a.ndim else a
    return np.asarray(a ^ bool(k % 2)) if a.dtype.kind == "b" else np.asarray(a * (1 + 0.25 * k)).astype(a.dtype)


def check(op: Op, args: list[np.ndarray], attrs: dict[str, Any], size: int = 3) -> None:
    graph = graph_of(op, list(map(type_of, args)), attrs)
    for flags in itertools.product([False, True], repeat=len(args)):
        full = [np.stack([variant(a, k) for k in range(size)]) if b else a for a, b in zip(args, flags, strict=True)]
        mapped, (batched,) = batch_graph(graph, size, flags)
        assert batched == any(flags)
        (found,) = interpret(mapped, *full)
        rows = [interpret(graph, *(a[k] if b else a for a, b in zip(full, flags, strict=True)))[0] for k in range(size)]
        expected = np.stack(rows) if batched else rows[0]
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_allclose(cases.widened(found), cases.widened(expected), rtol=1e-12 if op.kind == "contraction" else 1e-7,
                                   atol=1e-12, err_msg=f"{op.name} {attrs} batched {flags}")


def dtype_for(op: Op, case: Case | None = None) -> DType:
    allowed = (case.dtypes if case and case.dtypes else op.dtypes)
    return f64 if f64 in allowed else allowed[-1]


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_elementwise(op: Op) -> None:
    dtype = dtype_for(op)
    check(op, cases.elementwise_arguments(op, dtype, (2, 3)), cases.elementwise_attrs(op, dtype)[-1])


@pytest.mark.parametrize(("op", "case"), [pytest.param(op, c, id=f"{op.name}-{k}") for op in TENSORS for k, c in enumerate(CASES[op.name])])
def test_tensor(op: Op, case: Case) -> None:
    if op.name == "searchsorted":  # a rolled array is not sorted
        case = Case([a.astype(np.float64) for a in case.args], case.attrs)
    check(op, cases.arguments(case, dtype_for(op, case), seed=3), case.attrs)


@pytest.mark.parametrize("op", [*ELEMENTWISE, *TENSORS], ids=lambda op: op.name)
def test_every_dtype_and_named_sizes(op: Op) -> None:
    """The graph for a named number of elements is well typed, whatever is batched."""
    size = Dim.named("elements")
    for graph in cases.every_graph(op):
        for flags in itertools.product([False, True], repeat=len(graph.params)):
            mapped, (batched,) = batch_graph(graph, size, flags)
            verify_graph(mapped)
            assert mapped.results[0].type == (Type(graph.results[0].dtype, (size, *graph.results[0].shape)) if batched
                                              else graph.results[0].type)


@pytest.mark.parametrize(("op", "case"), [pytest.param(op, c, id=f"{op.name}-{k}") for op in TENSORS
                                          for k, c in enumerate(CASES[op.name]) if c.symbolic])
def test_values_with_named_sizes(op: Op, case: Case) -> None:
    assert case.symbolic is not None
    shapes, named, sizes = case.symbolic
    args = cases.arguments(case, dtype_for(op, case), seed=3)
    graph = graph_of(op, list(map(type_of, args)), case.attrs)
    symbolic = graph_of(op, [type_of(a).with_shape(s) for a, s in zip(args, shapes, strict=True)], named)
    for flags in itertools.product([False, True], repeat=len(args)):
        full = [np.stack([a, a]) if b else a for a, b in zip(args, flags, strict=True)]
        mapped, _ = batch_graph(symbolic, Dim.named("elements"), flags, [True])
        (found,) = interpret(mapped, *full, sizes={**sizes, "elements": 2})
        (one,) = interpret(graph, *args)
        np.testing.assert_allclose(found, [one, one], rtol=1e-7)


@pytest.mark.parametrize(("name", "axes"), [("softmax", (1,)), ("layer_norm", (1,)), ("logsumexp", (0, 1))])
def test_composites_stay_whole(name: str, axes: tuple[int, ...]) -> None:
    extra = [Type(f32, (5,))] * 2 if name == "layer_norm" else []
    attrs: dict[str, Any] = {"axes": axes} | ({"eps": 1e-5} if extra else {})
    mapped, _ = batch_graph(graph_of(lookup(name), [Type(f32, (3, 5)), *extra], attrs), 4, [True, *(False for _ in extra)])
    assert [n.op.name for n in mapped.nodes() if n.args] == [name] and mapped.results[0]["axes"] == tuple(a + 1 for a in axes)


def test_a_matrix_for_all_is_one_contraction() -> None:
    """(B, n) times (n, m) is a matrix product, without batch dimensions."""
    dot = graph_of(lookup("dot"), [Type(f32, (5,)), Type(f32, (5, 7))], {"contract": ((0,), (0,)), "batch": ((), ())})
    mapped, _ = batch_graph(dot, 3, [True, False])
    (only,) = (n for n in mapped.nodes() if n.args)
    assert only.type == Type(f32, (3, 7)) and only["batch"] == ((), ())


def test_results_that_are_wanted_batched() -> None:
    x = parameter(Type(bool_, (2,)), "x", 0)
    n = Dim.named("n")
    mapped, flags = batch_graph(Graph((x,), (x, lookup("bitwise_not")(x))), n, [False], want=[False, True])
    assert flags == (False, True) and [r.type for r in mapped.results] == [Type(bool_, (2,)), Type(bool_, (n, 2))]


# ------------------------------------------------------------------------------------------------ for users

X = np.sin(np.arange(15.0)).reshape(5, 3)
W = np.cos(np.arange(12.0)).reshape(3, 4)


def loop(f: Callable[..., Any], *args: np.ndarray) -> np.ndarray:
    return np.stack([f(*row) for row in zip(*args, strict=True)])


def affine(x: Any, w: Any) -> Any:
    return np.tanh(x @ w)


def test_in_and_out_axes() -> None:
    expected = np.tanh(X @ W)
    np.testing.assert_allclose(xlc.vmap(affine, in_axes=(0, None))(X, W), expected, rtol=1e-12)
    np.testing.assert_allclose(xlc.vmap(affine, in_axes=[1, None], out_axes=1)(X.T.copy(), W), expected.T, rtol=1e-12)
    np.testing.assert_allclose(xlc.vmap(affine, in_axes=(None, -1), out_axes=-1)(X, W), expected, rtol=1e-12)
    three = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(xlc.vmap(lambda a: a.T, in_axes=1, out_axes=-2)(three), np.stack(
        [three[:, k].T for k in range(3)], axis=-2))
    assert xlc.vmap(lambda a: (a.shape, a * 1), in_axes=2)(three)[1].shape == (4, 2, 3)


def test_axes_nested_as_the_arguments_and_results() -> None:
    def f(p: Any, x: Any) -> Any:
        return {"y": p["w"] @ x + p["b"][0], "b": p["b"][0]}

    p = {"w": W.T, "b": [np.arange(5.0)]}
    found = xlc.vmap(f, in_axes=({"w": None, "b": 0}, 0), out_axes={"y": 1, "b": 0})(p, X)
    np.testing.assert_allclose(found["y"], (X @ W + np.arange(5.0)[:, None]).T, rtol=1e-12)
    np.testing.assert_array_equal(found["b"], np.arange(5.0))
    y, constant = xlc.vmap(lambda x: (x.sum(), np.ones(2)), out_axes=(0, None))(X)
    assert constant.shape == (2,) and y.shape == (5,)
    assert xlc.vmap(lambda x: (x.sum(), np.ones(2)))(X)[1].shape == (5, 2)
    np.testing.assert_allclose(xlc.vmap(lambda x, *, scale: x * scale)(X, scale=np.arange(5.0)), X * np.arange(5.0)[:, None])


def test_shapes_inside_are_those_without_the_axis() -> None:
    seen = []

    def f(x: Any) -> Any:
        seen.append((x.shape, x.ndim, len(x)))
        return x[: len(x) // 2] if x.ndim == 1 else x

    assert xlc.vmap(f)(X).shape == (5, 1) and seen[0] == ((3,), 1, 3)


def test_static_and_unmapped_arguments_of_a_jitted_function() -> None:
    f = xlc.jit(lambda x, n: x.reshape(n, -1).sum(0), static_argnames="n")
    np.testing.assert_allclose(xlc.vmap(f, in_axes=(0, None))(np.arange(12.0).reshape(2, 6), 3), [[6, 9], [24, 27]])


@pytest.mark.parametrize("size", [0, 1])
def test_small_mapped_axes(size: int) -> None:
    x = X[:size]
    for f, shape in ((lambda r: r @ W, (4,)), (lambda r: r.sum(), ()), (np.sort, (3,)), (lambda r: np.cumsum(r)[::-1], (3,)),
                     (lambda r: r[np.argsort(r)], (3,)), (lambda r: xlc.nn.softmax(r), (3,))):
        found = xlc.vmap(f)(x)
        assert found.shape == (size, *shape)
        np.testing.assert_allclose(found, np.stack([xlc.jit(f)(r) for r in x]) if size else found, rtol=1e-12)


def test_a_named_size() -> None:
    f = xlc.jit(xlc.vmap(lambda x, w: np.tanh(x @ w).sum() + x.max(), in_axes=(0, None)), dynamic={"x": {0: "batch"}})
    for n in (5, 2, 0):
        np.testing.assert_allclose(f(X[:n], W), np.tanh(X[:n] @ W).sum(1) + X[:n].max(1), rtol=1e-12)
    assert f.compiles == 1


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: xlc.vmap(affine)(X, W), xlc.XlcValueError, "found 5 in x along axis 0, 3 in w along axis 0"),
    (lambda: xlc.vmap(affine, in_axes=None)(X, W), xlc.XlcValueError, "maps no array"),
    (lambda: xlc.vmap(affine, in_axes=2)(X, W), xlc.XlcIndexError, r"axis 2 of x is to be mapped, and x has shape \(5, 3\)"),
    (lambda: xlc.vmap(lambda a: a)(3.0), xlc.XlcIndexError, "in_axes=None for an argument that is the same for all"),
    (lambda: xlc.vmap(affine, in_axes=(0,))(X, W), xlc.XlcValueError, "1 entries for 2 positional arguments"),
    (lambda: xlc.vmap(lambda p: p["a"], in_axes=({"b": 0},))({"a": X}), xlc.XlcTypeError, "not nested as the arguments"),
    (lambda: xlc.vmap(lambda x: x, out_axes=None)(X), xlc.XlcValueError, "out_axes is None for the result, which depends on"),
    (lambda: xlc.vmap(lambda x: x, out_axes=2)(X), xlc.XlcIndexError, "out_axes=2 is out of range for the result"),
    (lambda: xlc.vmap(lambda x: x, out_axes=(0, 0))(X), xlc.XlcTypeError, "not nested as the result"),
    (lambda: xlc.vmap(affine, in_axes=("a", 0)), xlc.XlcTypeError, "in_axes must be an int, None"),
    (lambda: xlc.vmap(X), xlc.XlcTypeError, r"write xlc.vmap\(f\)\(x\)")])
def test_misuse_is_named(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "test_vmap.py" in str(caught.value)


# ------------------------------------------------------------------------------------------------ composed


def test_nested() -> None:
    outer = xlc.vmap(xlc.vmap(lambda a, b: a * b + a, in_axes=(None, 0)), in_axes=(0, None))
    np.testing.assert_allclose(outer(X[:, 0], X[:, 1]), np.outer(X[:, 0], X[:, 1]) + X[:, :1], rtol=1e-12)
    closes_over = xlc.vmap(lambda row: xlc.vmap(lambda column: row @ column, in_axes=1)(W))
    np.testing.assert_allclose(closes_over(X), X @ W, rtol=1e-12)


def test_gradient_of_each_and_of_all() -> None:
    def f(x: Any, w: Any) -> Any:
        return (np.tanh(x @ w) ** 2).sum()

    one = xlc.jit(xlc.grad(f, argnums=(0, 1)))
    each = [one(x, W) for x in X]
    mapped = xlc.vmap(xlc.grad(f, argnums=(0, 1)), in_axes=(0, None))
    for g in (mapped, xlc.jit(mapped)):
        gx, gw = g(X, W)
        np.testing.assert_allclose(gx, [g[0] for g in each], rtol=1e-11)
        np.testing.assert_allclose(gw, [g[1] for g in each], rtol=1e-11)
    gx, gw = xlc.grad(lambda x, w: xlc.vmap(f, in_axes=(0, None))(x, w).sum(), argnums=(0, 1))(X, W)
    np.testing.assert_allclose(gx, [g[0] for g in each], rtol=1e-11)
    np.testing.assert_allclose(gw, sum(g[1] for g in each), rtol=1e-11)


def test_with_forward_mode_and_pullbacks() -> None:
    f = xlc.vmap(lambda x: np.sort(x)[0] * x)
    _, dy = xlc.jvp(f, (X,), (X,))
    np.testing.assert_allclose(dy, 2 * f(X), rtol=1e-12)
    pushed = xlc.vmap(lambda x: xlc.jvp(np.sin, (x,), (x,))[1])(X)
    np.testing.assert_allclose(pushed, np.cos(X) * X, rtol=1e-12)
    rows = xlc.vmap(lambda ct: xlc.vjp(np.sin, X[0])[1](ct)[0])(np.eye(3))
    np.testing.assert_allclose(rows, np.diag(np.cos(X[0])), rtol=1e-12)
    hessians = xlc.vmap(xlc.hessian(lambda x: (x**3).sum()))(X)
    np.testing.assert_allclose(hessians, loop(lambda x: np.diag(6 * x), X), rtol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_custom_rules_are_mapped(shared: bool) -> None:
    """A rule that is not the derivative shows that it is asked: alone, under vmap, and its sum where an argument is shared."""
    @xlc.custom_vjp
    def f(x: Any, w: Any) -> Any:
        return np.sin(x) * w, x + w

    f.defvjp(lambda x, w: ((np.sin(x) * w, x + w), (x, w)), lambda r, ct: (7 * ct[0] * np.cos(r[0]) * r[1], ct[1] * r[0]))
    w = W[:3, 0] if shared else W.reshape(4, 3)
    x, axes = X[:4], (0, None if shared else 0)
    ct = np.cos(np.arange(12.0)).reshape(4, 3)

    def weighted(x: Any, w: Any, ct: Any) -> Any:
        a, b = f(x, w)
        return (a * ct).sum() + (b * b).sum()

    gx, gw = 7 * ct * np.cos(x) * w, 2 * (x + w) * x
    each = xlc.vmap(xlc.grad(weighted, argnums=(0, 1)), in_axes=(*axes, 0))(x, w, ct)
    np.testing.assert_allclose(each[0], gx, rtol=1e-12)
    np.testing.assert_allclose(each[1], gw, rtol=1e-12)
    total = xlc.grad(lambda x, w: xlc.vmap(weighted, in_axes=(*axes, 0))(x, w, ct).sum(), argnums=(0, 1))(x, w)
    np.testing.assert_allclose(total[0], gx, rtol=1e-12)
    np.testing.assert_allclose(total[1], gw.sum(0) if shared else gw, rtol=1e-12)


def test_a_jitted_function_is_kept() -> None:
    f = xlc.jit(lambda x: x * 2)
    for _ in range(2):
        np.testing.assert_array_equal(xlc.vmap(f)(X), X * 2)
