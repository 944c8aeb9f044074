"""Forward mode: the operator table against finite differences and reverse mode; ``jvp``, ``jacfwd``, ``jacrev``, ``hessian``."""

from __future__ import annotations

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
from xlc.ir.types import Type, f32, f64
from xlc.ir.verify import verify_graph
from xlc.transform.grad import vjp_graph
from xlc.transform.jvp import jvp_graph

FLOAT_RESULT = [op for op in TENSOR if f64 in op.dtypes and op.kind != "create"]
SMOOTH = [op for op in ELEMENTWISE if f64 in op.dtypes and op.name not in ("bitcast", "lookup")]
# What finite differences do not show: what is constant by definition, or steps by one unit in the last place.
NOT_DIFFERENCES = ("stop_gradient", "nextafter")


def check(op: Op, args: list[np.ndarray], attrs: dict[str, Any]) -> None:
    """<u, J t> = <J^T u, t>, and J t against central differences."""
    graph = graph_of(op, list(map(type_of, args)), attrs)
    moving = [k for k, a in enumerate(args) if a.dtype == np.float64]
    pushed, flags = jvp_graph(graph, [True] * len(args))
    if not graph.results[0].dtype.is_float or not moving:
        assert flags == (False,) and len(pushed.results) == 1
        return
    rng = np.random.default_rng(7)
    tangents = [rng.standard_normal(args[k].shape) for k in moving]
    y, *found = interpret(pushed, *args, *tangents)
    np.testing.assert_array_equal(y, interpret(graph, *args)[0])
    t = found[0] if found else np.zeros_like(y)
    assert t.shape == y.shape and t.dtype == y.dtype
    u = rng.standard_normal(y.shape)
    back = interpret(vjp_graph(graph), *args, u)
    np.testing.assert_allclose(np.sum(u * t), sum(np.sum(g * s) for g, s in zip(back, tangents, strict=True)), rtol=1e-10, atol=1e-10)
    if op.name not in NOT_DIFFERENCES:
        h, ends = 1e-6, []
        for sign in (1, -1):
            shifted = list(args)
            for k, s in zip(moving, tangents, strict=True):
                shifted[k] = args[k] + sign * h * s
            ends.append(interpret(graph, *shifted)[0])
        np.testing.assert_allclose(t, (ends[0] - ends[1]) / (2 * h), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_elementwise(op: Op) -> None:
    args = cases.elementwise_arguments(op, f64, (11,))
    if op.name in ("floor", "ceil", "trunc", "round", "sign", "floor_divide"):
        args = [np.where(np.abs(a - np.round(2 * a) / 2) < 1e-3, a + 0.01, a) for a in args]
    check(op, args, {"dtype": f64} if op.name == "cast" else {})


@pytest.mark.parametrize(("op", "case"), [pytest.param(op, c, id=f"{op.name}-{k}") for op in FLOAT_RESULT
                                          for k, c in enumerate(CASES[op.name])])
def test_tensor(op: Op, case: Case) -> None:
    check(op, cases.arguments(case, f64, seed=3), case.attrs)


@pytest.mark.parametrize("op", [*(op for op in ELEMENTWISE if op.name != "bitcast"), *FLOAT_RESULT], ids=lambda op: op.name)
def test_every_dtype_and_named_sizes(op: Op) -> None:
    """The tangent has the type of the result."""
    for graph in cases.every_graph(op):
        pushed, flags = jvp_graph(graph, [True] * len(graph.params))
        verify_graph(pushed)
        assert [r.type for r in pushed.results[1:]] == [graph.results[0].type] * flags[0]


@pytest.mark.parametrize(("op", "case"), [pytest.param(op, c, id=f"{op.name}-{k}") for op in FLOAT_RESULT
                                          for k, c in enumerate(CASES[op.name]) if c.symbolic])
def test_values_with_named_sizes(op: Op, case: Case) -> None:
    assert case.symbolic is not None
    shapes, named, sizes = case.symbolic
    args = cases.arguments(case, f64, seed=3)
    types = list(map(type_of, args))
    both = [jvp_graph(graph_of(op, ts, attrs), [True] * len(args))[0] for ts, attrs in (
        (types, case.attrs), ([t.with_shape(s) for t, s in zip(types, shapes, strict=True)], named))]
    tangents = [np.cos(a) for a in args if a.dtype == np.float64][:len(both[0].params) - len(args)]
    for found, expected in zip(interpret(both[1], *args, *tangents, sizes=sizes), interpret(both[0], *args, *tangents), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_casts_push_tangents_in_the_new_dtype() -> None:
    graph = graph_of(lookup("cast"), [Type(f32, (3,))], {"dtype": f64})
    pushed, flags = jvp_graph(graph, [True])
    assert flags == (True,) and pushed.results[1].dtype is f64


def test_inactive_parameters_cost_nothing() -> None:
    x, w = parameter(Type(f32, (3,)), "x", 0), parameter(Type(f32, (3,)), "w", 1)
    pushed, flags = jvp_graph(Graph((x, w), (lookup("sin")(x), w * 2.0)), [True, False])
    assert flags == (True, False) and len(pushed.params) == 3 and len(pushed.results) == 3


# ------------------------------------------------------------------------------------------------ for users

X = np.linspace(-1, 2, 6).reshape(2, 3)
W = np.cos(np.arange(12.0)).reshape(3, 4)


def layer(x: Any, w: Any) -> Any:
    return np.tanh(x @ w)


def differences(f: Callable[..., Any], args: list[np.ndarray], k: int, h: float = 1e-6) -> np.ndarray:
    """The Jacobian of a NumPy function with one result with respect to argument k."""
    out = []
    for i in np.ndindex(args[k].shape):
        step = np.zeros_like(args[k])
        step[i] = h
        ends = [np.asarray(f(*args[:k], args[k] + s * step, *args[k + 1:])) for s in (1, -1)]
        out.append((ends[0] - ends[1]) / (2 * h))
    return np.moveaxis(np.reshape(out, (*args[k].shape, *out[0].shape)), range(args[k].ndim), range(-args[k].ndim, 0))


def test_jvp_gives_value_and_tangent() -> None:
    y, dy = xlc.jvp(layer, (X, W), (X * 2, W * 3))
    np.testing.assert_allclose(y, np.tanh(X @ W), rtol=1e-12)
    np.testing.assert_allclose(dy, (1 - np.tanh(X @ W) ** 2) * (2 * X @ W + 3 * X @ W), rtol=1e-12)


def test_jvp_over_pytrees_integers_and_aux() -> None:
    def f(p: Any, n: Any) -> Any:
        return {"s": np.sin(p["a"]) * p["b"][0], "n": n + 1, "zero": np.floor(p["a"])}, p["a"].sum()

    p, dp = {"a": X, "b": [2.0]}, {"a": X + 1, "b": [None]}
    y, dy, aux = xlc.jvp(f, (p, np.arange(3)), (dp, None), has_aux=True)
    assert dy["n"] is None and not dy["zero"].any() and aux == pytest.approx(X.sum())
    np.testing.assert_array_equal(y["n"], [1, 2, 3])
    np.testing.assert_allclose(dy["s"], 2 * np.cos(X) * (X + 1), rtol=1e-12)


@pytest.mark.parametrize(("primals", "tangents", "message"), [
    (X, (X,), "the primals as a tuple"), ((X, W), (X,), "2 primals and 1 tangents"),
    ((X, W), (X, X), r"its type, f64\[3,4\], found f64\[2,3\]"),
    ((X, W), (X, W.astype("f4")), "the tangent of w must have its type"), (({"a": X}, W), (X, W), "must be nested as"),
    ((np.arange(6).reshape(2, 3), W), (X, W), "x is no float")])
def test_tangents_that_do_not_fit(primals: Any, tangents: Any, message: str) -> None:
    with pytest.raises(xlc.XlcTypeError, match=message):
        xlc.jvp(layer, primals, tangents)


@pytest.mark.parametrize("jacobian", [xlc.jacfwd, xlc.jacrev])
def test_jacobians(jacobian: Any) -> None:
    found = jacobian(layer, argnums=(0, 1))(X, W)
    for k in (0, 1):
        np.testing.assert_allclose(found[k], differences(layer, [X, W], k), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jacobian(layer, argnums=-1)(X, W), found[1], rtol=1e-12)
    np.testing.assert_allclose(xlc.jit(jacobian(layer))(X, W), found[0], rtol=1e-12)
    assert jacobian(layer)(np.zeros((0, 3)), W).shape == (0, 4, 0, 3)
    assert jacobian(lambda x: x * x)(3.0) == 6.0


@pytest.mark.parametrize("jacobian", [xlc.jacfwd, xlc.jacrev])
def test_jacobians_of_pytrees(jacobian: Any) -> None:
    def f(p: Any) -> Any:
        return [p["a"].sum(0), p["a"].sum() * p["b"]], p["b"]

    found, aux = jacobian(f, has_aux=True)({"a": X, "b": 3.0})
    assert aux == 3.0
    np.testing.assert_array_equal(found[0]["a"], np.broadcast_to(np.eye(3)[:, None, :], (3, 2, 3)))
    np.testing.assert_array_equal(found[0]["b"], np.zeros(3))
    np.testing.assert_array_equal(found[1]["a"], np.full((2, 3), 3.0))
    assert found[1]["b"] == pytest.approx(X.sum())


def test_jacobians_refuse_what_is_no_float() -> None:
    with pytest.raises(xlc.XlcTypeError, match="float results"):
        xlc.jacrev(lambda x: x > 0)(X)
    with pytest.raises(xlc.XlcTypeError, match="needs a float"):
        xlc.jacfwd(lambda x: x)(np.arange(3))
    with pytest.raises(xlc.XlcTypeError, match=r"not xlc.hessian|not xlc.jacrev"):
        xlc.hessian(X)  # type: ignore[arg-type]


def rosenbrock(x: Any) -> Any:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_hessian() -> None:
    """Against scipy's closed form, and every pair of the two modes."""
    from scipy.optimize import rosen_hess

    x = np.array([1.3, 0.7, 0.8, 1.9])
    pairs = [xlc.hessian(rosenbrock), xlc.jacrev(xlc.jacfwd(rosenbrock)), xlc.jacrev(xlc.jacrev(rosenbrock)),
             xlc.jacfwd(xlc.jacfwd(rosenbrock)), xlc.jit(xlc.jacfwd(xlc.grad(rosenbrock)))]
    for h in pairs:
        np.testing.assert_allclose(h(x), rosen_hess(x), rtol=1e-10)


def test_hessian_over_pytrees_against_differences() -> None:
    def f(a: Any, b: Any) -> Any:
        return (np.sin(a) @ b).sum() ** 2

    a, b = X, W[:, 0]
    found = xlc.hessian(f, argnums=(0, 1))(a, b)
    grads = [xlc.jit(xlc.grad(f, argnums=k)) for k in (0, 1)]
    for i in (0, 1):
        for j in (0, 1):
            np.testing.assert_allclose(found[i][j], differences(grads[i], [a, b], j), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("f", [lambda x: np.sort(x * 3) * x, lambda x: np.cumprod(x), lambda x: x.max() * x,
                               lambda x: np.linalg.norm(x) * x, lambda x: xlc.nn.softmax(x), lambda x: xlc.nn.layer_norm(x, x, x),
                               lambda x: np.where(x > 0, x, 2 * x)[::-1],
                               lambda x: np.concatenate([x, x[:2]]) ** 2], ids=range(8))
def test_forward_over_reverse_equals_reverse_over_forward(f: Any) -> None:
    """The transpose of the pushforward, and the pushforward of the pullback, against differences of the gradient."""
    x, v = np.array([0.3, -1.2, 2.5, 0.9]), np.array([1.0, -2.0, 0.5, 3.0])

    def total(x: Any) -> Any:
        return (f(x) ** 2).sum()

    gradient = xlc.jit(xlc.grad(total))
    expected = (gradient(x + 1e-6 * v) - gradient(x - 1e-6 * v)) / 2e-6
    np.testing.assert_allclose(xlc.jvp(xlc.grad(total), (x,), (v,))[1], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(xlc.grad(lambda x: xlc.jvp(total, (x,), (v,))[1])(x), expected, rtol=1e-5, atol=1e-5)


def test_jvp_of_vjp_and_of_a_jitted_function() -> None:
    jitted = xlc.jit(layer)
    for _ in range(2):
        _, dy = xlc.jvp(jitted, (X, W), (X, W))
    np.testing.assert_allclose(dy, xlc.jvp(layer, (X, W), (X, W))[1], rtol=1e-12)
    _, dg = xlc.jvp(lambda x: xlc.vjp(np.sin, x)[1](x)[0], (X,), (X,))
    np.testing.assert_allclose(dg, X * (np.cos(X) - X * np.sin(X)), rtol=1e-12)


def test_forward_mode_transposes_a_custom_rule() -> None:
    """Rules that are not the derivatives show that they are asked: alone, mapped, with an argument that is shared or has no tangent."""
    @xlc.custom_vjp
    def f(x: Any, w: Any, n: Any) -> Any:
        return {"y": np.sin(x) @ w, "n": n, "z": x + n}

    def backward(r: Any, ct: Any) -> Any:
        x, w = r
        running = xlc.scan(lambda c, row: (c + row, c), np.zeros(W.shape[1]), ct["y"], reverse=True)[1]  # a sum of the rows that follow
        return 7 * np.cos(x) * (running @ w.T) + ct["z"], 5 * np.sin(x).T @ ct["y"], None

    f.defvjp(lambda x, w, n: (f(x, w, n), (x, w)), backward)
    x, dx, dw = np.cos(np.arange(2.0 * len(W))).reshape(2, -1), np.ones((2, len(W))), np.sin(W)
    first = np.array([[0, 0], [1, 0]])  # the transpose of that sum
    dy = first @ (7 * np.cos(x) * dx) @ W, 5 * np.sin(x) @ dw
    for wrap in (lambda g: g, xlc.jit):
        value, moved = wrap(lambda x, dx, dw: xlc.jvp(lambda x, w: f(x, w, 3), (x, W), (dx, dw)))(x, dx, dw)
        np.testing.assert_allclose(value["y"], np.sin(x) @ W, rtol=1e-12)
        np.testing.assert_allclose(moved["y"], sum(dy), rtol=1e-12)
        np.testing.assert_allclose(moved["z"], dx, rtol=1e-12)
    np.testing.assert_allclose(xlc.jvp(lambda w: f(x, w, 3)["y"], (W,), (dw,))[1], dy[1], rtol=1e-12)
    many, t = np.stack([x, 2 * x, 3 * x]), np.stack([dx, x, -dx])
    _, mapped = xlc.jvp(lambda x, w: xlc.vmap(lambda x: f(x, w, 3)["y"])(x), (many, W), (t, dw))
    for k, found in enumerate(mapped):
        np.testing.assert_allclose(found, first @ (7 * np.cos(many[k]) * t[k]) @ W + 5 * np.sin(many[k]) @ dw, rtol=1e-12)
    forward, reverse = xlc.jacfwd(lambda x: f(x, W, 3)["y"])(x), xlc.jacrev(lambda x: f(x, W, 3)["y"])(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)
    np.testing.assert_allclose(xlc.jvp(xlc.grad(lambda x: f(x, W, 3)["z"].sum() + f(x, W, 3)["y"].sum()), (x,), (dx,))[1],
                               -7 * np.sin(x) * (np.array([[1], [0]]) * W.sum(1)), rtol=1e-12)


@pytest.mark.parametrize("rule", [lambda ct: np.clip(ct, -1, 1), lambda ct: ct * ct, lambda ct: np.round(ct) * 2])
def test_forward_mode_refuses_a_custom_rule_that_is_not_linear(rule: Any) -> None:
    f = xlc.custom_vjp(lambda x: x * 1.0)
    f.defvjp(lambda x: (x * 1.0, None), lambda r, ct: (rule(ct),))
    with pytest.raises(xlc.XlcTypeError, match=r"test_jvp.py:\d+: forward mode .* is not linear in the cotangent; use grad, vjp or jacrev"):
        xlc.jvp(lambda x: f(x), (X,), (X,))


def test_symbolic_sizes() -> None:
    f = xlc.jit(xlc.jacrev(lambda x: np.cumsum(x * x)), dynamic={"x": {0: "n"}})
    for n in (3, 5):
        x = np.arange(1.0, n + 1)
        np.testing.assert_allclose(f(x), np.tril(np.broadcast_to(2 * x, (n, n))), rtol=1e-12)
    assert f.compiles == 1
