"""Rematerialisation: the cut, the barrier, the memory that is saved, and that values and gradients stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import xlc
from xlc.ir.node import Graph, Node, parameter
from xlc.ir.op import lookup
from xlc.ir.types import Type, f32
from xlc.pipeline import compile_graph
from xlc.run.explain import rematerialised
from xlc.transform.remat import kept_values

RNG = np.random.default_rng(0)
X = RNG.standard_normal((256, 24))
LAYERS = [(RNG.standard_normal((24, 48)) / 5, RNG.standard_normal((48, 24)) / 7) for _ in range(6)]


def layer(h: Any, v: Any, w: Any) -> Any:
    return h + np.tanh(np.exp(-((h @ v) ** 2)) @ w)


def loss(each: Callable[..., Any]) -> Callable[..., Any]:
    def f(layers: Any, x: Any) -> Any:
        for v, w in layers:
            x = each(x, v, w)
        return (x**2).mean()

    return f


def leaves(value: Any) -> list[np.ndarray]:
    return [a for v in value for a in leaves(v)] if isinstance(value, (tuple, list)) else [value]


def same(a: Any, b: Any) -> None:
    for p, q in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(p, q)


# ------------------------------------------------------------------------------------------------ the cut


def chain(rng: np.random.Generator) -> tuple[list[Node], list[Node], list[Node]]:
    """Values of random sizes: parameters, then operators on earlier values."""
    params = [parameter(Type(f32, (int(rng.integers(1, 9)),)), f"p{k}", k) for k in range(2)]
    values = list(params)
    for _ in range(6):
        wide = [n for n in values if n.rank]
        args = [wide[int(rng.integers(len(wide)))] for _ in range(2)]
        padding = int(rng.integers(1, 6))
        parts = [lookup("sum")(a, axes=(0,)) for a in args]
        n = lookup("broadcast")(parts[0] * parts[1], shape=(padding,), axes=())
        values += [p for p in (*parts, n.args[0], n) if p not in values]
    read = [values[int(k)] for k in rng.choice(len(values), 3, replace=False)]
    return params, values, read


def suffices(kept: set[Node], params: list[Node], read: list[Node]) -> bool:
    """Whether everything read can be computed from what is kept."""
    graph = Graph((), tuple(read)).rebuild(lambda n, args: parameter(n.type, "kept", 0) if n in kept else None)
    return not set(graph.nodes()) & (set(params) - kept)


@pytest.mark.parametrize("seed", range(12))
def test_the_cut_is_minimal(seed: int) -> None:
    """Against every subset of the values."""
    params, values, read = chain(np.random.default_rng(seed))
    values = [n for n in Graph((), tuple(read)).nodes() if n.op.name != "full" and n in values]
    inside = [p for p in params if p in values]

    def weight(nodes: Any) -> int:
        return sum(int(n.type.bytes) for n in nodes)  # type: ignore[arg-type]

    kept = kept_values(values, read, params, (), lambda n: False)
    assert suffices(kept, inside, read)
    for count in range(4):
        for other in combinations(values, count):
            if weight(other) < weight(kept):
                assert not suffices(set(other), inside, read)


def test_what_is_dear_is_kept_and_what_is_free_costs_nothing() -> None:
    x, w = parameter(Type(f32, (8, 8)), "x", 0), parameter(Type(f32, (8, 8)), "w", 1)
    d = lookup("dot")(x, w, contract=((1,), (0,)), batch=((), ()))
    y = lookup("exp")(d)
    values = [x, w, d, y]
    assert kept_values(values, [y], [x, w], (), lambda n: False) == {y}  # 1 value of the same bytes in place of 2
    assert kept_values(values, [d, y], [x, w], (), lambda n: False) == {d}
    assert kept_values(values, [d, y], [x, w], (x, w), lambda n: False) == {x, w}
    assert kept_values(values, [d, y], [x, w], (x, w), lambda n: n is d) == {d}
    assert kept_values(values, [d, y], [x, w], (x, w), lambda n: True) == {d, y}


# ------------------------------------------------------------------------------------------------ memory and time


def compiled(policy: str | None) -> tuple[Any, Any]:
    each = layer if policy is None else xlc.checkpoint(layer, policy=policy)
    f = xlc.jit(xlc.value_and_grad(loss(each)))
    return f.compile(LAYERS, X), f(LAYERS, X)


def test_less_memory_the_same_values() -> None:
    plain, expected = compiled(None)
    again, found = compiled("nothing_saveable")
    same(found, expected)
    h, inner, packed = X.nbytes, 2 * X.nbytes, 12 * LAYERS[0][0].nbytes
    assert plain.plan.arena >= 6 * (h + 2 * inner)  # of every layer tanh, the first product and exp
    assert again.plan.arena <= 6 * h + 3 * inner + packed < 0.6 * plain.plan.arena  # h of every layer, and what one layer needs
    assert "rematerialised" not in plain.explain()
    text = next(line for line in again.explain().splitlines() if "rematerialised" in line)
    assert "run again in the backward pass, from 5 values" in text, text


def test_policies() -> None:
    """Contractions are not run again by "dots_saveable", nothing by "everything_saveable"."""
    dots = {}
    for policy in (None, "nothing_saveable", "dots_saveable", "everything_saveable"):
        program, _ = compiled(policy)
        nodes = program.after("simplify").nodes()
        dots[policy] = sum(n.op.name == "dot" for n in nodes)
        again = rematerialised(program.after("simplify"))
        assert (again is None) == (policy in (None, "everything_saveable"))
        if policy == "dots_saveable":
            assert again is not None and all(n.op.kind != "contraction" for n in again.again)
    assert dots["nothing_saveable"] == dots[None] + 12
    assert dots["dots_saveable"] == dots["everything_saveable"] == dots[None]


def test_a_narrow_value_is_kept_in_place_of_wide_arguments() -> None:
    """What the backward pass reads hangs on 8 numbers, the argument, which something computed, has 4096."""
    @xlc.checkpoint
    def f(x: Any) -> Any:
        return np.exp(np.sin(x.sum(0)))

    def g(x: Any) -> Any:
        return f(np.cos(x)).sum()

    program = xlc.jit(xlc.value_and_grad(g)).compile(np.zeros((512, 8)))
    again = rematerialised(program.after("simplify"))
    assert again is not None and [n.type.shape for n in again.kept] == [(8,)]


def test_a_barrier_costs_nothing() -> None:
    x = parameter(Type(f32, (100,)), "x", 0)
    g = lookup("exp")(x)
    program = compile_graph(Graph((x,), (lookup("sin")(lookup("optimization_barrier")(x * 2.0, g)),)))
    assert len(program.kernels) == 1 and program.plan.arena == 0 and "exp" not in str(program.kernels[0].loops)
    data = np.linspace(-1, 1, 100, dtype="f4")
    np.testing.assert_allclose(program.run([data])[0], np.sin(2 * data), rtol=1e-6)


# ------------------------------------------------------------------------------------------------ for users


def f(x: Any, w: Any, power: int = 2) -> Any:
    return {"y": np.tanh(x @ w) ** power, "n": np.argmax(x, axis=0)}


def total(g: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, w: (g(x, w, 3)["y"] * np.cos(x[:, :1])).sum()


A, B = X[:5, :4], X[:4, 5:8]


STACKED = np.stack([B, 2 * B], axis=1)
WRAPPED: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
    "grad": (lambda h: xlc.grad(h, argnums=(0, 1)), B),
    "jit": (xlc.jit, B),
    "jacfwd": (xlc.jacfwd, B),
    "hessian": (lambda h: xlc.hessian(h, argnums=1), B),
    "grad of grad": (lambda h: xlc.grad(lambda x, w: (xlc.grad(h)(x, w) ** 2).sum()), B),
    "jvp of grad": (lambda h: lambda x, w: xlc.jvp(xlc.grad(h), (x, w), (x, w))[1], B),
    "grad of jvp": (lambda h: xlc.grad(lambda x, w: xlc.jvp(h, (x, w), (x, w))[1]), B),
    "vmap": (lambda h: xlc.vmap(h, in_axes=(None, 1)), STACKED),
    "vmap of grad": (lambda h: xlc.vmap(xlc.grad(h, argnums=(0, 1)), in_axes=(None, 1)), STACKED),
    "grad of vmap": (lambda h: xlc.grad(lambda x, w: xlc.vmap(h, in_axes=(None, 1))(x, w).sum(), argnums=(0, 1)), STACKED),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_transform(name: str) -> None:
    wrap, w = WRAPPED[name]
    for p, q in zip(leaves(wrap(total(f))(A, w)), leaves(wrap(total(xlc.checkpoint(f)))(A, w)), strict=True):
        np.testing.assert_allclose(q, p, rtol=1e-10, atol=1e-12)


def test_results_are_nested_as_those_of_the_function() -> None:
    found, expected = xlc.checkpoint(policy="dots_saveable")(f)(A, B), xlc.jit(f)(A, B)
    assert list(found) == list(expected)
    same(list(found.values()), list(expected.values()))


def test_what_the_function_closes_over() -> None:
    """Traced values of the surroundings, constants, and arguments that are not differentiated."""
    def g(x: Any, w: Any) -> Any:
        outside = np.sin(x)
        inner = xlc.checkpoint(lambda y: (np.exp(y * outside) @ w, outside))
        return (inner(x)[0] ** 2).sum() + inner(x)[1].sum()

    def plain(x: Any, w: Any) -> Any:
        return ((np.exp(x * np.sin(x)) @ w) ** 2).sum() + np.sin(x).sum()

    same(xlc.grad(g, argnums=(0, 1))(A, B), xlc.grad(plain, argnums=(0, 1))(A, B))


def test_nested_checkpoints() -> None:
    outer = xlc.checkpoint(lambda x, v, w: xlc.checkpoint(layer)(xlc.checkpoint(layer)(x, v, w), v, w))
    plain = loss(lambda x, v, w: layer(layer(x, v, w), v, w))
    same(xlc.jit(xlc.grad(loss(outer)))(LAYERS[:2], X), xlc.jit(xlc.grad(plain))(LAYERS[:2], X))


def test_custom_rules_inside() -> None:
    @xlc.custom_vjp
    def square(x: Any) -> Any:
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, ct: (7 * x * ct,))
    found = xlc.grad(lambda x: xlc.checkpoint(lambda x: np.sin(square(np.sin(x))))(x).sum())(A)
    np.testing.assert_allclose(found, np.cos(np.sin(A) ** 2) * 7 * np.sin(A) * np.cos(A), rtol=1e-12)


def test_symbolic_sizes() -> None:
    step = xlc.jit(xlc.grad(lambda x, v, w: (xlc.checkpoint(layer)(xlc.checkpoint(layer)(x, v, w), v, w) ** 2).sum(), argnums=1),
                   dynamic={"x": {0: "batch"}})
    plain = xlc.jit(xlc.grad(lambda x, v, w: (layer(layer(x, v, w), v, w) ** 2).sum(), argnums=1))
    for n in (32, 7, 0):
        np.testing.assert_allclose(step(X[:n], *LAYERS[0]), plain(X[:n], *LAYERS[0]), rtol=1e-10, atol=1e-12)
    assert step.compiles == 1


def test_misuse_is_named() -> None:
    with pytest.raises(xlc.XlcValueError, match="policy='dots' is not one of 'nothing_saveable', 'dots_saveable'"):
        xlc.checkpoint(layer, policy="dots")
    with pytest.raises(xlc.XlcTypeError, match=r"write xlc.checkpoint\(f\)\(x\)"):
        xlc.checkpoint(X)
