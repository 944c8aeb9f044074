"""A fixed set of the fuzzer's seeds, and the fuzzer's own machinery: the reducer, the text that it prints."""

from __future__ import annotations

from typing import Any

import fuzz
import numpy as np
import pytest
from fuzz_graphs import Case, random_graph, sample
from fuzz_oracle import Expected

from xlc.ir.node import Graph, parameter
from xlc.ir.op import OPS, lookup
from xlc.ir.parse import parse_graph
from xlc.ir.text import constants_of, print_graph
from xlc.ir.types import DTYPES, Type, evaluate
from xlc.ir.verify import verify_graph

SEEDS, CHUNK = 240, 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        text = fuzz.run_seed(seed, reduce=False)
        assert text is None, text


# Graphs that were compiled wrongly once.
ONCE = {
    "lookup clamped a negative index to the last entry": """graph f(%x: i64[13]) {
        %0: f32[13] = lookup(%x) {dtype=f32, table=(-3.0, -2.5, -0.75, -0.5, -2.375)}  return %0 }""",
    "the result of a reduction is needed transposed": """graph f(%x: f32[3,3,3]) {
        %0: f32[3,3] = max(%x) {axes=(2,)}  %1: f32[3,3] = transpose(%0) {axes=(1, 0)}  return %1 }""",
    "a repeated value, which is not in memory, is sorted": """graph f(%x: f32[n]) {
        %0: f32[7,7,n] = full() {dtype=f32, shape=(7, 7, n), value=-0.625}
        %1: f32[7,7,n] = sort(%0) {axis=0, descending=True}  return %1 }""",
    "a value was stored over another that the next store still read": """graph f(%x: f32[3,3,3], %y: u32[3,1,3], %z: f32[9,6]) {
        %0: u32[] = sum(%y) {axes=(0, 1, 2)}
        %1: f32[] = cast(%0) {dtype=f32}
        %2: f32[3] = broadcast(%1) {axes=(), shape=(3,)}
        %3: f32[3,3] = dot(%x, %2) {batch=((), ()), contract=((2,), (0,))}
        %4: f32[13,6] = broadcast(%1) {axes=(), shape=(13, 6)}
        %5: f32[44,6] = concat(%z, %4, %4, %z) {axis=0}
        %6: f32[] = sum(%5) {axes=(0, 1)}
        return %3, %6 }""",
    "a reduction inside a pad ran beyond its result": """graph f(%x: i32[n,m]) {
        %0: i64[m] = argmin(%x) {axes=(0,)}
        %1: i64[n,m] = broadcast(%0) {axes=(1,), shape=(n, m)}
        %2: i64[] = full() {dtype=i64, shape=(), value=5}
        %3: i64[m+5] = pad(%0, %2) {high=(5,), low=(0,)}
        return %1, %3 }""",
    "an operator on constants that depends on a named size was folded": """graph f(%x: f32[n]) {
        %0: i64[] = extent() {size=n}  %1: i64[] = add(%0, %0)  %2: i64[3] = broadcast(%1) {axes=(), shape=(3,)}  return %2 }""",
    "indices beyond i64 turned negative": """graph f(%x: f32[5], %i: u64[40]) { %0: f32[40] = gather(%x, %i) {axis=0}  return %0 }""",
    "squares of squares of a constant had a million digits": """graph f(%x: i64[9]) {
        %0: i64[9] = full() {dtype=i64, shape=(9,), value=-5}  %1: i64[9] = pow(%0, %x)  return %1 }""",
    "a row to sort did not fit the stack": """graph f(%x: i16[40001]) {
        %0: i16[40001] = sort(%x) {axis=0, descending=False}  %1: i64[40001] = argsort(%x) {axis=0, descending=True}  return %0, %1 }""",
}


@pytest.mark.parametrize("why", ONCE)
@pytest.mark.parametrize("fuse", [True, False])
def test_graphs_that_failed_once(why: str, fuse: bool) -> None:
    graph = parse_graph(ONCE[why])
    rng = np.random.default_rng(1)
    runs = [
        (dict(env), [sample(rng, p.dtype, [evaluate(s, env) for s in p.shape], "any" if p.dtype.is_int else "small") for p in graph.params])
        for env in ({"n": 5, "m": 3}, {"n": 1, "m": 1}, {"n": 65, "m": 40})
    ]
    assert fuzz.failure(Case(graph, runs), fuse, check=1) is None


def test_graphs_are_valid_and_print() -> None:
    for seed in range(1000, 1060):
        graph = random_graph(seed).graph
        verify_graph(graph)
        text = print_graph(graph, locations=False)
        assert print_graph(parse_graph(text, constants_of(graph)), locations=False) == text


def test_the_same_seed_is_the_same_graph() -> None:
    first, second = random_graph(77), random_graph(77)
    assert str(first.graph) == str(second.graph)
    assert all(
        a.tobytes() == b.tobytes() for (_, x), (_, y) in zip(first.runs, second.runs, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_every_operator_is_generated() -> None:
    seen = {n.op.name for seed in range(700) for n in random_graph(seed).graph.nodes()}
    assert set(OPS) - seen <= {"const", "var", "size", "load", "extent", "loop", "switch"}


def test_the_reducer_keeps_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is wrong whenever a reduction follows a transpose: the two are left."""

    def broken(case: Case, **options: Any) -> str | None:
        bad = any(n.op.kind == "reduction" and n.args[0].op.name == "transpose" for n in case.graph.nodes())
        return "comparing: it is wrong" if bad else None

    monkeypatch.setattr(fuzz, "failure", broken)
    seed = next(s for s in range(3000) if s % 3 != 2 and broken(random_graph(s)) and len(random_graph(s).graph.nodes()) > 12)
    case, message = fuzz.reduce_case(random_graph(seed))
    assert message == "comparing: it is wrong"
    assert [n.op.name for n in case.graph.nodes() if n.args][:-1] == ["transpose"]
    assert len(case.graph.results) == 1
    text = fuzz.report(seed, case, message)
    shown = text[text.index("graph") : text.index("\n}") + 2]
    assert str(parse_graph(shown, constants_of(case.graph))) == str(parse_graph(print_graph(case.graph), constants_of(case.graph)))


def test_the_oracle_sees_small_errors() -> None:
    """One wrong element, an off-by-one, a wrong sign; not the last bits of a sum."""
    x = parameter(Type(DTYPES["f32"], (40, 33)), "x", 0)
    total = lookup("sum")(lookup("exp")(x), axes=(1,))
    expected = Expected(Graph((x,), (total, lookup("abs")(x))), [sample(np.random.default_rng(0), DTYPES["f32"], (40, 33))])
    right = [r.copy() for r in expected.results]
    assert expected.check(right) is None
    nudged = [right[0] * np.float32(1 + 2e-7), right[1]]
    assert expected.check(nudged) is None
    for k, change in ((0, 0.05), (1, 1e-6)):
        bad = [r.copy() for r in right]
        bad[k][3] += np.float32(change)
        assert expected.check(bad)
    assert expected.check([-right[0], right[1]])
    assert expected.check([right[0].astype(np.float64), right[1]])
