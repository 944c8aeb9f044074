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
from xlc.ir.types import DTYPES, Type
from xlc.ir.verify import verify_graph

SEEDS, CHUNK = 240, 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        text = fuzz.run_seed(seed, reduce=False)
        assert text is None, text


# Seeds that failed once: (seed, what it was)
ONCE = [
    (214, "lookup clamped a negative index to the last entry"),
    (250, "a reduction whose result is needed transposed"),
    (555, "sorting a repeated value, which is not in memory"),
    (868, "a value stored over another that the next store still read"),
    (921, "a reduction inside a pad ran beyond its result"),
    (10076, "folding an operator that depends on a named size"),
]


@pytest.mark.parametrize("seed", [s for s, _ in ONCE], ids=[why.replace(" ", "-") for _, why in ONCE])
def test_seeds_that_failed_once(seed: int) -> None:
    text = fuzz.run_seed(seed, reduce=False)
    assert text is None, text


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
    assert set(OPS) - seen <= {"const", "var", "size", "load", "extent"}


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
