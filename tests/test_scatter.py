"""Scatter against NumPy's ``ufunc.at``: rows in vectors, in the order of the updates, in place where the operand is donated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xlc

rng = np.random.default_rng(11)
UFUNCS: dict[str, Any] = {"add": np.add, "multiply": np.multiply, "max": np.maximum, "min": np.minimum}
WHERE: dict[str, Any] = {  # shape of the operand -> what is indexed, repeated and lost places among it
    "rows": ((9, 37), lambda i: (i,)), "long rows": ((5, 300), lambda i: (i % 5,)), "columns": ((3, 9), lambda i: (slice(None), i)),
    "blocks": ((9, 3, 17), lambda i: (i,)), "between": ((4, 9, 18), lambda i: (slice(None), i)), "ones": ((9, 1, 5), lambda i: (i,)),
    "numbers": ((9,), lambda i: (i,)), "pairs": ((9, 7, 16), lambda i: (i, (i * 5) % 7)), "one row": ((9, 33), lambda i: (i[0],))}
IDS = np.array([3, 0, 8, 3, 3, 2, 8])


def places(name: str) -> tuple[np.ndarray, tuple[Any, ...], np.ndarray]:
    shape, where = WHERE[name]
    x, at = rng.integers(1, 4, shape), where(IDS)
    return x, at, rng.integers(1, 4, x[at].shape)


@pytest.mark.parametrize("donate", [(), ("x",)])
@pytest.mark.parametrize("name", WHERE)
def test_every_mode(name: str, donate: Any) -> None:
    x, at, u = places(name)
    for mode, dtype in (("set", "f4"), ("add", "f4"), ("multiply", "f8"), ("max", "i2"), ("min", "u1"), ("add", "f2"), ("set", "bool")):
        given, updates = x.astype(dtype), u.astype(dtype)
        expected = given.copy()
        if mode == "set":
            expected[at] = updates
        else:
            UFUNCS[mode].at(expected, at, updates)
        run = xlc.jit(lambda x, u, at=at, mode=mode: getattr(xlc.numpy.at(x, at), mode)(u), donate=donate)
        memory = given.copy()
        found = run(memory, updates)
        np.testing.assert_allclose(found, expected, rtol=1e-3 if dtype == "f2" else 1e-6, err_msg=f"{mode} {dtype}")
        assert np.shares_memory(found, memory) == bool(donate)


def test_an_embedding_table_learns_in_place() -> None:
    """The rows are the only memory that is touched: the copy of the operand is for those who keep it."""
    table, ids, g = rng.standard_normal((50, 20)), rng.integers(0, 50, (6, 7)), rng.standard_normal((6, 7, 20))
    expected = table.copy()
    np.add.at(expected, ids, -0.5 * g)
    run = xlc.jit(lambda t, ids, g: xlc.numpy.at(t, ids).add(-0.5 * g), donate="t")
    program = run.compile(table, ids, g)
    assert any("icmp eq ptr %b0, %b" in text for text in program.backend.texts(program.plan))
    kept = xlc.jit(lambda t, ids, g: xlc.numpy.at(t, ids).add(-0.5 * g)).compile(table, ids, g)
    assert not any("icmp eq ptr" in text for text in kept.backend.texts(kept.plan))
    np.testing.assert_allclose(run(table.copy(), ids, g), expected, rtol=1e-12)
    slope = xlc.grad(lambda t: (xlc.nn.embedding(t, ids) * g).sum())(table)
    expected = np.zeros_like(table)
    np.add.at(expected, ids, g)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_named_sizes() -> None:
    run = xlc.jit(lambda t, ids, g: xlc.numpy.at(t, ids).add(g), dynamic={"t": {1: "width"}, "ids": {0: "n"}, "g": {0: "n", 1: "width"}})
    for n, width in ((3, 5), (1, 16), (7, 33), (0, 4), (2, 1)):
        t, ids, g = rng.standard_normal((6, width)), rng.integers(0, 6, n), rng.standard_normal((n, width))
        expected = t.copy()
        np.add.at(expected, ids, g)
        np.testing.assert_allclose(run(t, ids, g), expected, rtol=1e-12)
    assert run.compiles == 1
