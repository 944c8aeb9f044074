"""Control flow outside of a trace: what functions close over has its value of the call; a program that is known is not compiled again."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_control import scanned

import xlc
from xlc.frontend import eager

rng = np.random.default_rng(3)
H, X = rng.standard_normal(4), rng.standard_normal((6, 4))


@pytest.fixture(autouse=True)
def none_kept() -> Iterator[None]:
    eager._programs.clear()
    yield
    eager._programs.clear()


def same(found: Any, expected: Any) -> None:
    last, ys = expected
    np.testing.assert_allclose(found[0], last, rtol=1e-12)
    np.testing.assert_allclose(found[1], np.stack(ys), rtol=1e-12)


def test_arrays_of_the_closure_have_their_value_of_the_call() -> None:
    w = rng.standard_normal((4, 4))

    def step(h: Any, x: Any) -> Any:
        h = np.tanh(w @ h + x)
        return h, h * x

    same(xlc.scan(step, H, X), scanned(step, H, X))
    w[:] = rng.standard_normal((4, 4))  # written to
    same(xlc.scan(step, H, X), scanned(step, H, X))
    w = rng.standard_normal((4, 4))  # another array under the name
    same(xlc.scan(step, H, X), scanned(step, H, X))
    assert len(eager._programs) == 1
    w = w.astype("f4")  # another type
    same(xlc.scan(step, H, X), scanned(step, H, X))
    w = np.asfortranarray(w)[:, ::-1]
    same(xlc.scan(step, H, X), scanned(step, H, X))
    assert len(eager._programs) == 2


GLOBAL = 2.0


def test_whatever_else_a_function_uses_has_its_value_of_the_call(monkeypatch: Any) -> None:
    settings, times, k = SimpleNamespace(rate=0.5), [1, 2], 3

    def step(h: Any, x: Any, scale: Any = settings) -> Any:
        return h * scale.rate + x * k + GLOBAL + len(times), h

    def check() -> None:
        same(xlc.scan(step, H, X), scanned(step, H, X))

    check()
    settings.rate = 0.25
    check()
    times.append(3)
    check()
    k = 4
    check()
    monkeypatch.setitem(globals(), "GLOBAL", -1.0)
    check()


def test_functions_written_anew_are_the_same_program() -> None:
    for factor in (1.0, 2.0, 3.0):
        a = np.full(4, factor)
        found = xlc.cond(factor > 1, lambda x, a=a: x * a, lambda x, a=a: x - a, H)
        np.testing.assert_allclose(found, H * a if factor > 1 else H - a)
        value = xlc.while_loop(lambda v, a=a: v[0] < 3, lambda v, a=a: (v[0] + 1, v[1] + a), (0, H))
        np.testing.assert_allclose(value[1], H + 3 * a, rtol=1e-12)
        np.testing.assert_allclose(xlc.fori_loop(0, 3, lambda i, v, a=a: v * a + i, H), ((H * a) * a + 1) * a + 2, rtol=1e-12)
        np.testing.assert_allclose(xlc.switch(int(factor), [lambda x: x, lambda x, a=a: x + a], H), H + a)
    assert len(eager._programs) == 4


def test_other_programs_are_compiled() -> None:
    for x in (X, X.astype("f4"), X[:3]):
        for f in (lambda h, x: (h + x, h), lambda h, x: (h - x, h)):
            same(xlc.scan(f, x[0], x), scanned(f, x[0], x))
    assert len(eager._programs) == 6
    for reverse in (False, True):
        same(xlc.scan(lambda h, x: (h + x, h), H, X, reverse=reverse), scanned(lambda h, x: (h + x, h), H, X, reverse=reverse))
    assert len(eager._programs) == 7


def test_nested_functions_and_transforms_inside() -> None:
    w = rng.standard_normal((4, 4))

    def outer(h: Any, x: Any) -> Any:
        inner = xlc.scan(lambda c, k: (np.sin(w @ c + k), None), h, x)[0]
        return inner + w[0], xlc.grad(lambda z: np.sum((w @ z) ** 2))(h)

    def plain(h: Any, x: Any) -> Any:
        inner = scanned(lambda c, k: (np.sin(w @ c + k), None), h, x)[0]
        return inner + w[0], 2 * w.T @ (w @ h)

    for _ in range(2):
        same(xlc.scan(outer, H, X), scanned(plain, H, X))
        w *= 0.5
    assert len(eager._programs) == 1

    def plain_again(h: Any, x: Any) -> Any:
        return np.tanh(w @ h) + x, h

    again = xlc.checkpoint(lambda h, x: plain_again(h, x)[0])
    for _ in range(2):
        same(xlc.scan(lambda h, x: (again(h, x), h), H, X), scanned(plain_again, H, X))
        w *= 0.5


def test_an_array_that_changes_while_it_is_traced_counts_by_its_value_at_each_use() -> None:
    w = np.ones(4)

    def step(h: Any, x: Any) -> Any:
        first = h * w
        w[:] = 3.0
        return first + x * w, None

    last, _ = xlc.scan(step, H, X)
    expected = H
    for x in X:
        expected = expected + 3 * x
    np.testing.assert_allclose(last, expected, rtol=1e-12)


def test_what_is_written_into_an_array_later_has_no_effect_and_nothing_is_held() -> None:
    def run() -> Any:
        w = rng.standard_normal(4)

        def step(h: Any, x: Any) -> Any:
            return h * w + x, h

        found, expected = xlc.scan(step, H, X), scanned(step, H, X)
        w[:] = 0
        same(found, expected)
        return weakref.ref(w)

    watched = run()
    gc.collect()
    assert watched() is None


def test_prints_are_those_of_the_call(capsys: Any) -> None:
    for word in ("one", "two"):
        xlc.fori_loop(0, 2, lambda i, h, word=word: (xlc.debug.print(word + " {i}", i=i), h + 1)[1], H)
    assert capsys.readouterr().out.split("\n")[:4] == ["one 0", "one 1", "two 0", "two 1"]


def test_threads() -> None:
    found: list[Any] = [None] * 8

    def work(k: int) -> None:
        a = np.full(4, float(k))
        found[k] = [xlc.scan(lambda h, x: (h * 0.5 + a, None), H, X)[0] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k, results in enumerate(found):
        expected = H
        for _ in X:
            expected = expected * 0.5 + k
        np.testing.assert_allclose(results, [expected] * 5, rtol=1e-12)
    assert len(eager._programs) == 1
