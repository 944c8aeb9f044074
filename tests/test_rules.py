"""Every rewrite rule against NumPy, and the driver that applies them; the passes decompose and fold."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import pytest

import xlc.ops  # noqa: F401
from xlc.errors import XlcError
from xlc.ir.node import Graph, Node, apply, constant, full, parameter
from xlc.ir.op import OPS, lookup
from xlc.ir.rewrite import P, Pattern, Rule, Var, example_nodes, rewrite, variables
from xlc.ir.text import parse_graph, print_graph
from xlc.ir.types import DTYPES, Dim, DType, Type, bf16, bool_, f16, f32, f64, i8, i32, i64
from xlc.passes.decompose import decompose
from xlc.passes.simplify import RULES, represents, simplify, simplify_counted

x, y = Var("x"), Var("y")


def evaluate(node: Node, env: Mapping[Node, np.ndarray]) -> np.ndarray:
    """The value of a node by its operators' oracles."""
    values = dict(env)
    for n in Graph((), (node,)).nodes():
        if n not in values:
            with np.errstate(all="ignore"):
                values[n] = np.asarray(n.op.numpy(*[values[a] for a in n.args], **n.attributes))
            assert values[n].shape == n.shape and values[n].dtype == n.dtype.numpy, n
    return values[node]


def draw(t: Type, seed: int, gentle: bool = False) -> np.ndarray:
    """Random values, with all that is special about the dtype among them."""
    r = np.random.default_rng(seed)
    shape = tuple(int(s) for s in t.shape)
    if t.dtype is bool_:
        return r.random(shape) < 0.5
    if t.dtype.is_int:
        info = np.iinfo(t.dtype.numpy)
        special = [0, 1, 2, info.max, info.min, info.max - 1, -1 if info.min else 5]
        out = np.where(r.random(shape) < 0.5, r.integers(info.min, info.max, shape, t.dtype.numpy, endpoint=True), r.integers(0, 9, shape))
        out = out.astype(t.dtype.numpy)
    else:
        out = r.standard_normal(shape) if not gentle else r.uniform(0.5, 2, shape)
        out = (out * 10.0 ** r.integers(-4, 4, shape) if not gentle else out).astype(t.dtype.numpy)
        tiny = np.finfo(np.float32).tiny if t.dtype.bits > 16 else 6e-8
        special = [] if gentle else [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, tiny, -tiny / 2, 1e30]
    flat = out.reshape(-1)
    with np.errstate(all="ignore"):
        for k, s in enumerate(special[:flat.size // 2]):
            flat[(k * 7 + seed) % flat.size] = np.asarray(s).astype(t.dtype.numpy)
    return out


def bits(v: np.ndarray) -> np.ndarray:
    """The values as integers that are ordered like them; all nans are one."""
    if v.dtype.kind in "iub":
        return v.astype(np.int64) if v.dtype != np.uint64 else v.view(np.int64)
    u = v.view(f"i{v.dtype.itemsize}").astype(np.int64)
    wide = v.astype(np.float64)
    ordered = np.where(u < 0, np.iinfo(f"i{v.dtype.itemsize}").min - u, u) if v.dtype.itemsize < 8 else u
    return np.where(np.isnan(wide), np.int64(1 << 40), ordered)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_rule_keeps_the_value(rule: Rule) -> None:
    tried = 0
    for dtype in rule.dtypes:
        try:
            nodes = example_nodes(rule, dtype)
        except (XlcError, OverflowError, ValueError):
            continue  # the operators are not defined on this dtype
        for node in nodes:
            new = rule.apply(node)
            if new is None:
                continue
            tried += 1
            assert new.type == node.type
            params = [n for n in Graph((), (node, new)).nodes() if n.op.name == "parameter"]
            for seed in range(3):
                env = {p: draw(p.type, seed + zlib.crc32(p["name"].encode()), rule.fast) for p in params}
                before, after = evaluate(node, env), evaluate(new, env)
                if rule.fast or (rule.name.startswith("dot") and dtype.is_float):
                    np.testing.assert_allclose(after.astype(np.float64), before.astype(np.float64), rtol=64 * eps(dtype), atol=1e-6)
                    continue
                distance = np.abs(bits(before) - bits(after))
                assert (distance <= (rule.ulps if dtype.is_float else 0)).all(), (dtype, node, before, after)
    assert tried, f"no example of {rule.name} matches"


def eps(dtype: DType) -> float:
    return {"f16": 1e-3, "bf16": 1e-2, "f32": 1.2e-7, "f64": 2.3e-16}[dtype.name]


def test_rules_are_distinct_and_about_operators_that_exist() -> None:
    names = [r.name for r in RULES]
    assert len(set(names)) == len(names)

    def operators(p: object) -> set[str]:
        return {p.op} | {o for a in p.args for o in operators(a)} if isinstance(p, Pattern) else set()

    used = {o for r in RULES for o in operators(r.pattern) | operators(r.replacement)} - {"*"}
    assert used <= set(OPS), used - set(OPS)


def test_inexact_rules_are_off() -> None:
    p = parameter(Type(f32, (4,)), "x", 0)
    g = Graph((p,), (p + 0.0,))
    assert simplify(g) is g
    assert simplify(g, fast=True).results == (p,)


def test_skip_and_count() -> None:
    p = parameter(Type(f32, (4,)), "x", 0)
    g = Graph((p,), (p * 1.0 - 0.0,))
    out = simplify_counted(g)
    assert out.graph.results == (p,) and out.hits == {"multiply_one": 1, "subtract_zero": 1}
    assert len(simplify(g, skip={"multiply_one"}).nodes()) == 3
    assert simplify_counted(g, limit=1).hits.total() == 1


def simplified(text: str) -> str:
    return print_graph(simplify(parse_graph(text))).split("{", 1)[1].strip(" \n}").strip()


@pytest.mark.parametrize(("before", "after"), [
    ("graph g(%x: f32[4]) { %a: f32[1,4] = reshape(%x) {shape=(1, 4)} %b: f32[4] = reshape(%a) {shape=(4,)} return %b }", "return %x"),
    ("graph g(%x: f32[8]) { %a: f32[8,1] = reshape(%x) {shape=(8, 1)} %b: f32[8,5] = broadcast(%a) {axes=(0, 1), shape=(8, 5)} return %b }",
     "%0: f32[8,5] = broadcast(%x) {axes=(0,), shape=(8, 5)}\n  return %0"),
    # a broadcast number is a number
    ("graph g(%x: f32[8]) { %o: f32[] = full() {dtype=f32, shape=(), value=1.0} %b: f32[8] = broadcast(%o) {axes=(), shape=(8,)} "
     "%m: f32[8] = multiply(%b, %x) return %m }", "return %x"),
    # of a symbolic shape too
    ("graph g(%x: f32[n]) { %o: f32[] = full() {dtype=f32, shape=(), value=1.0} %b: f32[n] = broadcast(%o) {axes=(), shape=(n,)} "
     "%m: f32[n] = divide(%x, %b) return %m }", "return %x"),
    ("graph g(%x: f32[2,3], %w: f32[5,3]) { %t: f32[3,5] = transpose(%w) {axes=(1, 0)} "
     "%d: f32[2,5] = dot(%x, %t) {batch=((), ()), contract=((1,), (0,))} return %d }",
     "%0: f32[2,5] = dot(%x, %w) {batch=((), ()), contract=((1,), (1,))}\n  return %0"),
    ("graph g(%x: f32[3,1,n]) { %s: f32[n] = sum(%x) {axes=(0, 1)} return %s }",
     "%0: f32[3,n] = reshape(%x) {shape=(3, n)}\n  %1: f32[n] = sum(%0) {axes=(0,)}\n  return %1"),
    ("graph g(%x: f32[3], %y: f32[3]) { %a: f32[2,3] = broadcast(%x) {axes=(1,), shape=(2, 3)} %b: f32[2,3] = broadcast(%y) {axes=(1,), "
     "shape=(2, 3)} %c: f32[2,3] = add(%a, %b) return %c }",
     "%0: f32[3] = add(%x, %y)\n  %1: f32[2,3] = broadcast(%0) {axes=(1,), shape=(2, 3)}\n  return %1"),
])
def test_simplify(before: str, after: str) -> None:
    assert simplified(before) == after


def test_simplify_is_linear() -> None:
    p = parameter(Type(f32, (4,)), "x", 0)
    n = p
    for _ in range(3000):
        m = -(n * 1.0)
        n = -m + p
    out = simplify_counted(Graph((p,), (n,)))
    assert len(out.graph.nodes()) == 3001 and out.hits["negative_negative"] == 3000


def test_a_circle_of_rules_ends() -> None:
    p = parameter(Type(f32, (4,)), "x", 0)
    q = parameter(Type(f32, (4,)), "y", 1)
    swap = [Rule("swap", P.subtract(x, y), P.subtract(y, x)), Rule("grow", P.negative(x), P.negative(P.add(x, 1)))]
    out = rewrite(Graph((p, q), (p - q, -p)), swap)
    assert len(out.graph.results) == 2


def test_represents() -> None:
    assert represents(i8, f16) and represents(f16, f32) and represents(bool_, bf16) and represents(i32, f64)
    assert not represents(i32, f32) and not represents(f16, bf16) and not represents(bf16, f16) and not represents(i64, f64)
    for a in DTYPES.values():
        for b in DTYPES.values():
            if represents(a, b) and a is not bool_ and a.is_int:
                ends = np.array([np.iinfo(a.numpy).min, np.iinfo(a.numpy).max], a.numpy)
                assert [int(v) for v in ends.astype(b.numpy)] == [int(v) for v in ends], (a, b)


def test_variables_in_order() -> None:
    assert variables(P.where(Var("c"), x, P.add(x, y))) == ["c", "x", "y"]


def test_decompose() -> None:
    composites = [op for op in OPS.values() if op.kind == "composite" and op.decompose is not None]
    softmax = next((op for op in composites if op.name == "softmax"), None)
    if softmax is None:
        pytest.skip("no composites yet")
    p = parameter(Type(f64, (3, 5)), "x", 0)
    g = Graph((p,), (apply(softmax, [p], {"axes": (1,)}),))
    assert decompose(g, keep={"softmax"}) is g and decompose(g, keep=lambda n: n.op is softmax) is g
    parts = decompose(g)
    assert not any(n.op.kind == "composite" for n in parts.nodes())
    v = np.random.default_rng(0).standard_normal((3, 5))
    e = np.exp(v - v.max(1, keepdims=True))
    np.testing.assert_allclose(evaluate(parts.results[0], {p: v}), e / e.sum(1, keepdims=True), rtol=1e-14)


def test_fold() -> None:
    from xlc.passes.fold import fold

    r = np.random.default_rng(0)
    w, s = r.standard_normal((6, 4)).astype("f4"), r.standard_normal(4).astype("f4")
    p = parameter(Type(f32, (2, 4)), "x", 0)
    scaled = constant(w) * apply(lookup("broadcast"), [constant(s)], {"shape": (6, 4), "axes": (1,)})
    turned = apply(lookup("transpose"), [scaled], {"axes": (1, 0)})
    out = fold(Graph((p,), (apply(lookup("dot"), [p, turned], {"contract": ((1,), (0,)), "batch": ((), ())}),)))
    assert [n.op.name for n in out.nodes()] == ["parameter", "constant", "dot"]
    np.testing.assert_array_equal(out.nodes()[1]["value"].value, (w * s).T)


def test_fold_never_makes_large_arrays_of_small_ones() -> None:
    from xlc.passes.fold import fold

    p = parameter(Type(f32, (1000, 1000)), "x", 0)
    row = apply(lookup("broadcast"), [constant(np.arange(1000, dtype="f4"))], {"shape": (1000, 1000), "axes": (1,)})
    g = Graph((p,), (p + (row + row), p * full(p.type, 2.0)))
    assert not any(n.op.name == "constant" and n.type.size > 1000 for n in fold(g).nodes())
    n = Dim.named("n")
    q = parameter(Type(f32, (n, 3)), "x", 0)
    sym = Graph((q,), (q + apply(lookup("broadcast"), [constant(np.arange(3, dtype="f4"))], {"shape": (n, 3), "axes": (1,)}),))
    assert fold(sym) is sym
