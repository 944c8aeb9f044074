"""Control flow: scan, fori_loop, while_loop, cond, switch against loops in Python, their derivatives against finite differences, and what
becomes of them in plans."""

from __future__ import annotations

import random
import re
import subprocess
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fuzz_graphs import random_graph

import xlc
from xlc import config
from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.interp import interpret, interpret_plan
from xlc.ir.node import Graph, Node, bodies, outputs, parameter
from xlc.ir.op import OPS
from xlc.ir.plan import Branch, Loop
from xlc.ir.text import constants_of, parse_graph, parse_plan, print_graph, print_plan
from xlc.ir.verify import VerifyError, verify_graph, verify_plan
from xlc.pipeline import compile_graph

rng = np.random.default_rng(7)
W, H, X = rng.standard_normal((4, 4)) / 2, rng.standard_normal(4), rng.standard_normal((6, 4))
STEP = 1e-6


def scanned(f, init, xs, length=None, reverse=False):
    """The meaning of scan: a loop in Python over lists."""
    n = len(xs) if length is None else length
    carry, ys = init, [None] * n
    for i in reversed(range(n)) if reverse else range(n):
        carry, ys[i] = f(carry, None if xs is None else xs[i])
    return carry, ys


def differences(f, x):
    """The gradient of a scalar function by central differences."""
    g = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += STEP
        down[i] -= STEP
        g[i] = (f(up) - f(down)) / (2 * STEP)
    return g


def step(h, x):
    h = np.tanh(W @ h + x)
    return h, h * x


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("length", [0, 1, 2, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(length: int, reverse: bool) -> None:
    xs = rng.standard_normal((length, 4))
    last, ys = xlc.jit(lambda h, xs: xlc.scan(step, h, xs, reverse=reverse))(H, xs)
    expected, rows = scanned(step, H, xs, reverse=reverse)
    np.testing.assert_allclose(last, expected, rtol=1e-13)
    np.testing.assert_allclose(ys, np.reshape(rows, (length, 4)), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["bool", "i1", "u1", "i2", "u4", "i8", "f2", "bfloat16", "f4", "f8"])
def test_every_dtype(dtype: str) -> None:
    d = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    init, xs = np.array([1, 0, 1]).astype(d), (rng.integers(0, 2, (5, 3))).astype(d)

    def f(c, x):
        return (c ^ x, c & x) if d.kind == "b" else (c + x, c * x)

    last, ys = xlc.scan(f, init, xs)
    expected, rows = scanned(f, init, xs)
    assert last.dtype == ys.dtype == d
    assert np.array_equal(last, expected) and np.array_equal(ys, np.stack(rows))


def test_scan_over_trees() -> None:
    Pair = namedtuple("Pair", "a b")
    init = {"n": 0, "p": Pair(np.zeros(3, "f4"), [np.float64(1)])}
    xs = (X.astype("f4"), {"w": np.arange(6)})

    def f(c, x):
        a = c["p"].a + x[0][:3]
        return {"n": c["n"] + x[1]["w"], "p": Pair(a, [c["p"].b[0] * 2])}, (None, a.sum(), {"n": c["n"]})

    last, (nothing, sums, seen) = xlc.jit(lambda init, xs: xlc.scan(f, init, xs))(init, xs)
    assert isinstance(last["p"], Pair) and nothing is None
    assert last["n"] == 15 and last["p"].b[0] == 64
    np.testing.assert_allclose(last["p"].a, X[:, :3].sum(0), rtol=1e-5)
    np.testing.assert_allclose(sums, np.cumsum(X[:, :3].astype("f4"), 0).sum(1), rtol=1e-4)
    assert seen["n"].tolist() == [0, 0, 1, 3, 6, 10]


def test_scan_without_rows_and_without_carries() -> None:
    (a, b), seen = xlc.scan(lambda c, _: ((c[1], c[0] + c[1]), c[0]), (0, 1), None, length=10)
    assert (int(a), int(b)) == (55, 89) and seen.tolist() == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
    nothing, twice = xlc.scan(lambda c, x: (c, x * 2), None, np.arange(3))
    assert nothing is None and twice.tolist() == [0, 2, 4]
    assert xlc.scan(lambda c, x: (c, None), (), None, length=2) == ((), None)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_while_and_fori(n: int) -> None:
    def count(x, n):
        return xlc.while_loop(lambda c: (c[1] < n) & (c[0].sum() < 1e9), lambda c: (c[0] * 1.5 + x, c[1] + 1), (x, 0))

    value, i = xlc.jit(count)(H, n)
    expected = H
    for _ in range(n):
        expected = expected * 1.5 + H
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    assert i == n
    expected = H
    for k in range(2, 2 + n):
        expected = expected * 0.5 + k * H
    static = xlc.jit(lambda x: xlc.fori_loop(2, 2 + n, lambda i, c: c * 0.5 + i * x, x))(H)
    traced = xlc.jit(lambda x, hi: xlc.fori_loop(2, hi, lambda i, c: c * 0.5 + i * x, x))(H, np.int32(2 + n))
    np.testing.assert_allclose(static, expected, rtol=1e-13)
    np.testing.assert_allclose(traced, expected, rtol=1e-13)
    assert xlc.fori_loop(5, 3, lambda i, c: c + i, 7) == 7


def test_cond_and_switch() -> None:
    for pred in (True, np.bool_(False), np.array(True)):
        found = xlc.cond(pred, lambda x: x + 1, lambda x: -x, H)
        assert np.array_equal(found, H + 1 if pred else -H)
    f = xlc.jit(lambda k, x: xlc.switch(k, [lambda x: (x, 0), lambda x: (x * 10, 1), lambda x: (x - W[0], 2)], x))
    for k in (-(2**40), -1, 0, 1, 2, 3, 2**40):
        x, which = f(k, H)
        expected = min(max(k, 0), 2)
        assert which == expected and np.array_equal(x, [H, H * 10, H - W[0]][expected])
    for index in (np.uint64(2**64 - 1), np.uint8(200), np.int8(2)):
        assert f(index, H)[1] == 2
    chosen = xlc.jit(lambda x: xlc.switch(1, [lambda: x, lambda: x * 2]))
    assert "switch" not in str(chosen.lower(H).graph)  # a known index is no choice


def nested(x):
    def outer(c, row):
        def inner(d, v):
            d = xlc.cond(v > 0, lambda d: d * np.cos(v), lambda d: d * 0.5 + v, d)
            return d, d * v

        c, ys = xlc.scan(inner, c, row)
        return c, ys.sum() * xlc.fori_loop(0, 3, lambda i, a: a + i * row[0], 1.0)

    c, ys = xlc.scan(outer, 1.0, x)
    return c + (ys * ys).sum()


def nested_in_python(x):
    c, ys = 1.0, []
    for row in x:
        total = 0.0
        for v in row:
            c = c * np.cos(v) if v > 0 else c * 0.5 + v
            total += c * v
        ys.append(total * (1 + 3 * row[0]))
    return c + (np.array(ys) ** 2).sum()


def test_nested() -> None:
    np.testing.assert_allclose(xlc.jit(nested)(X), nested_in_python(X), rtol=1e-12)


def test_python_numbers_take_the_dtype_of_the_body() -> None:
    xs = np.arange(4, dtype="f4")
    last, ys = xlc.scan(lambda c, x: (c + x, c), 0, xs)
    assert last.dtype == ys.dtype == np.float32 and last == 6 and ys.tolist() == [0, 0, 1, 3]
    assert xlc.fori_loop(0, 3, lambda i, c: c * 1.5, 2).dtype == np.float64
    last, _ = xlc.scan(lambda c, x: (1, None), np.float32(0), xs)  # and in the result that of the carry
    assert last.dtype == np.float32 and last == 1
    assert xlc.cond(True, lambda: np.float32(1), lambda: 2).dtype == np.float32
    assert xlc.fori_loop(np.int32(0), 3, lambda i, c: i, np.int32(7)).dtype == np.int32
    weak = xlc.jit(lambda x: x * xlc.fori_loop(0, 3, lambda i, c: c + i, 0))(xs)
    assert weak.dtype == np.float32  # a loop over Python numbers is one


def test_bodies_close_over_values_arrays_and_each_other() -> None:
    table = rng.standard_normal((6, 4))

    def f(w, n):
        scale = w.sum()

        def body(i, c):
            def inner(d, row):
                return d * 0.9 + row @ w + scale, None

            return xlc.scan(inner, c + xlc.numpy.take(table, i, axis=0), w)[0] + n

        return xlc.fori_loop(0, n, body, w[0])

    c = W[0]
    for i in range(3):
        c = c + table[i]
        for row in W:
            c = c * 0.9 + row @ W + W.sum()
        c = c + 3
    np.testing.assert_allclose(xlc.jit(f)(W, 3), c, rtol=1e-12)


def test_in_place_operators_inside_a_body() -> None:
    def f(c, x):
        c += x
        c *= 2
        return c, c

    last, ys = xlc.scan(f, H, X)
    expected, rows = scanned(lambda c, x: ((c + x) * 2, (c + x) * 2), H, X)
    np.testing.assert_allclose(last, expected)
    np.testing.assert_allclose(ys, rows)


def test_named_sizes() -> None:
    f = xlc.jit(lambda h, xs: xlc.scan(lambda h, x: (np.tanh(h + x), (h.sum(), xs.shape[0] * h[:2])), h, xs), dynamic={"xs": {0: "n"}})
    for n in (3, 0, 1, 6):
        last, (sums, more) = f(H, X[:n])
        expected, rows = scanned(lambda h, x, n=n: (np.tanh(h + x), (h.sum(), n * h[:2])), H, X[:n])
        np.testing.assert_allclose(last, expected, rtol=1e-13)
        np.testing.assert_allclose(sums, [s for s, _ in rows], rtol=1e-13)
        np.testing.assert_allclose(more, np.reshape([m for _, m in rows], (n, 2)), rtol=1e-13)
    assert f.compiles == 1
    g = xlc.jit(lambda x: xlc.fori_loop(0, 4, lambda i, c: np.tanh(c @ x + i), x), dynamic={"x": {0: "n", 1: "n"}})
    for n in (1, 5, 33):
        x = rng.standard_normal((n, n))
        c = x
        for i in range(4):
            c = np.tanh(c @ x + i)
        np.testing.assert_allclose(g(x), c, rtol=1e-9, atol=1e-12)


def test_large_bodies_run_on_several_threads() -> None:
    a = rng.standard_normal((500, 300))
    f = xlc.jit(lambda a: xlc.fori_loop(0, 6, lambda i, c: np.tanh(c) + a, a))
    c = a
    for _ in range(6):
        c = np.tanh(c) + a
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(f(a))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4 and all(np.array_equal(found[0], r) for r in found)
    np.testing.assert_allclose(found[0], c, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ derivatives


@xlc.custom_vjp
def doubled(a):
    return a * 2


doubled.defvjp(lambda a: (a * 2, None), lambda residuals, ct: (ct * 2,))


def masked(h):
    """Carries that are integers and bools, rows that are indices."""
    def f(c, i):
        n, seen, h = c
        h = xlc.numpy.at(h, i).add(h[0] * n) * 0.9
        return (n + 1, seen | (h[0] > 0), h), np.where(seen, h[i], h.sum())

    (_, _, h), ys = xlc.scan(f, (0, np.bool_(False), h), np.array([3, 0, 1, 1]))
    return h.sum() + (ys * ys).sum()


def rows_without_carry(h):
    return (xlc.scan(lambda c, x: (c, np.exp(np.sin(x * h) * (x + 1))), None, X)[1] ** 2).sum()


FUNCTIONS = {
    "rnn": lambda h: sum(v.sum() for v in xlc.scan(step, h, X)),
    "reverse": lambda h: sum((v * v).sum() for v in xlc.scan(step, h, X, reverse=True)),
    "last": lambda h: xlc.scan(step, h, X)[0][1],
    "rows": lambda h: (xlc.scan(step, h, X)[1] * X).sum(),
    "weights": lambda h: (xlc.scan(lambda c, x: (np.tanh((c @ np.outer(h, h)) * h + x), None), H, X)[0] ** 2).sum(),
    "differentiated rows": lambda h: (xlc.scan(lambda c, x: (np.sin(c + x), c * x), H, np.outer(np.arange(3.0), h))[1]).sum(),
    "fori": lambda h: xlc.fori_loop(1, 5, lambda i, c: c * np.sin(c) + i * h, h).sum(),
    "no rows": lambda h: xlc.scan(lambda c, _: (np.sin(c) * h, c.sum()), h, None, length=3)[1].sum(),
    "empty": lambda h: xlc.scan(step, h, X[:0])[0].sum() + xlc.scan(step, h, X[:0])[1].sum(),
    "cond": lambda h: xlc.cond(h[0] > 0, lambda x: np.sin(x) * x, lambda x: x**3, h).sum(),
    "switch": lambda h: xlc.switch(2, [lambda: h, lambda: h * 2, lambda: h * h * h]).sum() * h[0],
    "nested": lambda h: nested(np.outer(h, h[:3])),
    "integers": masked,
    "rows without carry": rows_without_carry,
    "softmax": lambda h: xlc.scan(lambda c, x: (xlc.nn.softmax(c * x) * 2, xlc.nn.softmax(c).max()), h, X)[1].sum(),
    "custom": lambda h: xlc.scan(lambda c, x: (doubled(c) * 0.3 + x * c, doubled(c)), h, X)[1].sum(),
    "gradient inside": lambda h: xlc.scan(lambda c, x: (c + 0.1 * xlc.grad(lambda z: np.sin(z * x).sum())(c), None), h, X)[0].sum(),
    "gradient of a gradient": lambda h: (xlc.grad(lambda h: xlc.scan(step, h, X)[1].sum())(h) ** 2).sum(),
    "mapped": lambda h: xlc.vmap(lambda w: xlc.scan(lambda c, x: (np.tanh(c * w + x), None), h, X)[0])(np.outer(h, h)).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name: str) -> None:
    f = FUNCTIONS[name]
    value, found = xlc.jit(xlc.value_and_grad(f))(H)
    run = xlc.jit(f)
    np.testing.assert_allclose(value, run(H), rtol=1e-12)
    np.testing.assert_allclose(found, differences(run, H), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode(name: str) -> None:
    f, t = FUNCTIONS[name], rng.standard_normal(4)
    _, moved = xlc.jvp(f, (H,), (t,))
    np.testing.assert_allclose(moved, xlc.grad(f)(H) @ t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mapped(name: str) -> None:
    f, many = FUNCTIONS[name], rng.standard_normal((3, 4))
    run, slope = xlc.jit(f), xlc.jit(xlc.grad(f))
    np.testing.assert_allclose(xlc.vmap(f)(many), [run(h) for h in many], rtol=1e-11)
    np.testing.assert_allclose(xlc.vmap(xlc.grad(f))(many), [slope(h) for h in many], rtol=1e-9, atol=1e-12)


def test_gradients_of_all_arguments() -> None:
    def loss(w, h, xs):
        last, ys = xlc.scan(lambda h, x: (lambda n: (n, n * x))(np.tanh(w @ h + x)), h, xs)
        return (ys * np.cos(ys)).sum() + last.sum()

    found = xlc.grad(loss, argnums=(0, 1, 2))(W, H, X)
    run = xlc.jit(loss)
    for k, g in enumerate(found):
        args = [W, H, X]
        np.testing.assert_allclose(g, differences(lambda a, k=k, args=args: run(*args[:k], a, *args[k + 1:]), args[k]), atol=1e-7)
    # jax.grad(loss, (0, 1, 2)) of the same function with jax.lax.scan, in float64 (jax 0.10.2, jax_enable_x64), on these arrays:
    expected = [[[0.2345345047192801, 0.2952830317333396], [0.6601708973056644, -0.6668581581190431]],
                [0.21728015018146873, 0.6403367424677429],
                [[0.8033597290630052, 1.1834472386487171], [0.17964416120232743, 0.8043454725204674],
                 [0.9067013822084534, 0.04739877478340332]]]
    w, h, xs = np.array([[0.5, -0.25], [0.125, 0.75]]), np.array([0.5, -1.0]), np.array([[0.5, 1.0], [-0.25, 0.5], [1.0, -0.75]])
    for g, e in zip(xlc.grad(loss, argnums=(0, 1, 2))(w, h, xs), expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-12)


def test_while_forward_and_mapped() -> None:
    def f(x):
        return xlc.while_loop(lambda c: (c[0] * c[0]).sum() < 1e3, lambda c: (c[0] * 1.7 + np.sin(c[0]), c[1] + 1), (x, 0))

    run, t = xlc.jit(lambda x: f(x)[0]), rng.standard_normal(4)
    _, moved = xlc.jvp(lambda x: f(x)[0], (H,), (t,))
    np.testing.assert_allclose(moved, (run(H + STEP * t) - run(H - STEP * t)) / (2 * STEP), rtol=1e-5)
    many = np.outer([0.1, 3, 100], H)
    values, counts = xlc.vmap(f)(many)
    alone = [xlc.jit(f)(x) for x in many]
    np.testing.assert_allclose(values, [v for v, _ in alone], rtol=1e-13)
    assert counts.tolist() == [int(n) for _, n in alone] and len(set(counts.tolist())) == 3
    assert xlc.vmap(lambda n: xlc.fori_loop(0, n, lambda i, c: c + i, 0))(np.array([0, 3, 5])).tolist() == [0, 3, 10]


def test_mapped_choices() -> None:
    f = xlc.jit(xlc.vmap(lambda k, x: xlc.switch(k, [lambda x: x, lambda x: x * 10, lambda x: -x], x)))
    np.testing.assert_array_equal(f(np.array([-3, 0, 1, 2, 9]), X[:5]), [X[0], X[1], X[2] * 10, -X[3], -X[4]])
    shared = xlc.vmap(lambda x: xlc.cond(H[0] > 0, lambda x: x, lambda x: H, x))
    np.testing.assert_array_equal(shared(X), X if H[0] > 0 else np.tile(H, (6, 1)))


def test_rule_of_a_custom_function_that_closes_over_a_traced_value() -> None:
    def f(h, w):
        @xlc.custom_vjp
        def g(a):
            return a * 2

        g.defvjp(lambda a: (a * 2, None), lambda residuals, ct: (ct * w,))
        return xlc.scan(lambda c, x: (g(c) + x, None), h, X)[0].sum()

    found = xlc.jit(lambda h, w: xlc.grad(f)(h, w))(H, np.full(4, 3.0))
    np.testing.assert_allclose(found, np.full(4, 3.0**6))
    chosen = xlc.jit(lambda h, w: xlc.grad(lambda h: xlc.cond(h[0] > w[0], lambda: f(h, w), lambda: f(h, w) * 2))(h))(H, np.full(4, 3.0))
    np.testing.assert_allclose(chosen, np.full(4, 2 * 3.0**6))


# ------------------------------------------------------------------------------------------------ what they become


def loops_of(plan) -> list[Loop]:
    return [x for x in plan.launches if isinstance(x, Loop)]


def test_carries_are_updated_in_place() -> None:
    e = xlc.jit(lambda h, xs: xlc.scan(lambda c, x: ((c[0] * x, c[1] + 1), None), (h, 0), xs)[0]).compile(H, X)
    (loop,) = loops_of(e.plan)
    assert loop.swapped == () and len(list(e.plan.everywhere())) <= 4
    assert "2 carries, 2 updated in place" in e.explain()
    e = xlc.jit(lambda h, xs: xlc.scan(lambda c, x: (W @ c + x, None), h, xs)[0]).compile(H, X)
    (loop,) = loops_of(e.plan)
    assert loop.swapped == (0,)  # every element of the product needs all of the carry: two buffers change places
    kept = xlc.jit(lambda s: xlc.fori_loop(0, 9, lambda i, s: s * 0.5, s), donate="s")
    s = np.ones(1000)
    assert np.shares_memory(kept(s), s) and (s == 0.5**9).all()


def test_what_does_not_change_is_computed_once_and_what_nobody_needs_never() -> None:
    def f(w, h, xs):
        (h, _, same), _ = xlc.scan(lambda c, x: ((np.tanh(np.exp(w) @ c[0] + x), c[1] * 3, c[2]), c[0].sum()), (h, h, h), xs)
        return h, same

    e = xlc.jit(f).compile(W, H, X)
    (loop,) = loops_of(e.plan)
    assert loop.carries == 1 and loop.rows == 0
    assert "exp" not in "".join(x.note for _, x in loop.body.everywhere()) and "exp" in "".join(x.note for _, x in e.plan.everywhere())


def test_a_loop_and_its_gradient_run_the_body_forwards_once() -> None:
    e = xlc.jit(xlc.value_and_grad(FUNCTIONS["rnn"])).compile(H)
    forward, back = loops_of(e.plan)
    assert (forward.reverse, back.reverse) == (False, True)
    assert sum("tanh" in x.note for _, x in e.plan.everywhere()) == 1
    assert back.swapped == () and all("tanh" not in x.note for _, x in back.body.everywhere())


def test_a_loop_and_its_tangents_are_one() -> None:
    def f(h):
        (value, _), (moved, _) = xlc.jvp(lambda h: xlc.scan(step, h, X), (h,), (h * 2,))
        return value, moved

    assert len(loops_of(xlc.jit(f).compile(H).plan)) == 1
    value, moved = xlc.jit(f)(H)
    np.testing.assert_allclose(value, scanned(step, H, X)[0], rtol=1e-13)
    last = xlc.jit(lambda h: xlc.scan(step, h, X)[0])
    np.testing.assert_allclose(moved, (last(H + STEP * H) - last(H - STEP * H)) / STEP, rtol=1e-5, atol=1e-9)


def test_gradients_of_weights_are_products_after_the_loop() -> None:
    big = rng.standard_normal((40, 40)) / 8

    def loss(w, h):
        return xlc.scan(lambda h, x: (np.tanh(h @ w + x), None), h, X[:, :1] * np.ones((6, 40)))[0].sum()

    e = xlc.jit(xlc.grad(loss)).compile(big, np.ones((2, 40)))
    _, back = loops_of(e.plan)
    assert back.carries == 1 and all(e.plan.by_name[n].type.shape != (40, 40) for n in back.outputs)
    slope, run, d = xlc.grad(loss)(big, np.ones((2, 40))), xlc.jit(loss), rng.standard_normal((40, 40))
    expected = (run(big + STEP * d, np.ones((2, 40))) - run(big - STEP * d, np.ones((2, 40)))) / (2 * STEP)
    np.testing.assert_allclose((slope * d).sum(), expected, rtol=1e-6)
    assert not xlc.grad(lambda w: xlc.scan(lambda h, x: (h @ w, None), np.ones(40), X[:0])[0].sum())(big).any()


def test_stored_values_are_few() -> None:
    """Of h = tanh(w h + x) the gradient needs h alone; exp(-x) comes from the row."""
    e = xlc.jit(xlc.grad(lambda h: xlc.scan(lambda h, x: (np.tanh(W @ h + x) * (1 - x), None), h, X)[0].sum())).compile(H)
    forward, _ = loops_of(e.plan)
    assert forward.rows == 1


def test_plans_print_parse_verify_and_run_in_the_interpreter() -> None:
    f = xlc.jit(xlc.value_and_grad(lambda h: nested(np.outer(h, h[:3])) + FUNCTIONS["fori"](h)))
    e = f.compile(H)
    verify_graph(e.graph)
    assert str(parse_graph(str(e.graph), constants_of(e.graph))) == str(e.graph)
    assert ".py:" in str(e.graph) and ".py:" not in print_graph(e.graph, locations=False)
    final = e.after("results")
    assert str(parse_graph(str(final), constants_of(final))) == str(final)
    verify_plan(e.plan)
    text = print_plan(e.plan, kernels=True)
    back = parse_plan(text, constants=constants_of(e.plan))
    assert print_plan(back, kernels=True) == text
    verify_plan(back)
    expected = interpret(e.graph, H)
    for a, b in zip(interpret_plan(back, [H]), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for a, b in zip(f(H), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_interpreter_agrees_after_every_pass() -> None:
    with xlc.config.context(check=3, cache_dir=""):
        xlc.jit(nested)(X)
        xlc.jit(xlc.grad(FUNCTIONS["rnn"]))(H)
        xlc.jit(lambda x: xlc.while_loop(lambda c: c.sum() < 9, lambda c: c * 2 + 1, x))(np.abs(H))


def test_wrong_plans_are_refused() -> None:
    plan = xlc.jit(lambda h, xs: xlc.scan(step, h, xs)).compile(H, X).plan
    text = print_plan(plan, kernels=True)
    for old, new, message in (("carries 1", "carries 0", "needs"), ("trips 6", "trips 5", "needs"), ("trips 6 ", " ", "while"),
                              ("-> (%r0, %r1, ", "-> (%r1, %r0, ", "needs"), ("loop(%c0, %h,", "loop(%c0, %t0,", "nothing has written")):
        assert text.count(old) == 1, old
        with pytest.raises(VerifyError, match=message):
            verify_plan(parse_plan(text.replace(old, new), constants=constants_of(plan)))


def test_reports_and_profiles(tmp_path: Path) -> None:
    from xlc.tools.profile import profile
    from xlc.tools.report import write_report

    e = xlc.jit(lambda h: xlc.scan(lambda c, x: xlc.cond(x.sum() > 0, lambda: (c * x, c), lambda: (c, x)), h, X)).compile(H)
    assert "loop lambda_, 6 times: 1 carry" in e.explain() and "one of 2 branches" in e.explain()
    assert len(profile(e.program, repeat=1).timings) == len(e.kernels)
    write_report(e, tmp_path / "report.html")
    assert "loop" in (tmp_path / "report.html").read_text()
    assert any(isinstance(x, Branch) for x in loops_of(e.plan)[0].body.launches)
    assert bodies(e.graph.results[0])


def test_exported_libraries_give_the_same_bits(tmp_path: Path) -> None:
    w = W.astype("f4")

    def net(h, xs, n):
        def body(h, x):
            h = xlc.cond(x.sum() > 0, lambda: np.tanh(w @ h + x), lambda: h * 0.5)
            return h, h.sum()

        h, ys = xlc.scan(body, h, xs)
        return xlc.fori_loop(0, n, lambda i, h: np.sin(h) @ w, h), ys

    xlc.aot.export(net, [xlc.spec(4, "f4"), xlc.spec(("time", 4), "f4"), xlc.spec((), "i8")], tmp_path / "net.so")
    library, run = xlc.aot.load(tmp_path / "net.so"), xlc.jit(net, dynamic={"xs": {0: "time"}})
    for steps in (0, 1, 6):
        args = H.astype("f4"), X[:steps].astype("f4"), np.int64(steps)
        for a, b in zip(library(*args), run(*args), strict=True):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    symbols = subprocess.run(["nm", "-D", "--undefined-only", tmp_path / "net.so"], capture_output=True, text=True, check=True).stdout
    assert not re.findall(r" U ", symbols)


def test_programs_come_from_the_cache(tmp_path: Path) -> None:
    with xlc.config.context(cache_dir=str(tmp_path)):
        def make(k):
            return xlc.jit(lambda h: xlc.scan(lambda c, x: (np.tanh(c + x) * k, c), h, X))

        first = make(2.0)(H)
        files = len(list(tmp_path.glob("*/*")))
        again, other = make(2.0)(H), make(3.0)(H)
        assert len(list(tmp_path.glob("*/*"))) == files + 1  # what a body holds is part of the key
    assert np.array_equal(first[1], again[1]) and not np.array_equal(first[1], other[1])


def random_loop(seed: int) -> tuple[Graph, list[np.ndarray], dict[str, int]]:
    """A random graph as the body of a loop, with random roles of its parameters."""
    draw, case = random.Random(seed), random_graph(3 * seed)
    (sizes, arrays), given = case.runs[0], case.graph.params
    carried: dict[Node, Node] = {}
    for p in given:
        following = next((r for r in case.graph.results if r.type == p.type and r not in carried.values()), None)
        if following is not None and draw.random() < 0.7:
            carried[p] = following
    rows = [p for p in given if p not in carried and draw.random() < 0.5]
    fixed = [p for p in given if p not in carried and p not in rows]
    stacked = [r for r in case.graph.results if r not in carried.values()]
    body = Graph((*fixed, *carried, *rows), (*carried.values(), *stacked), "body")
    length, value = draw.choice((0, 1, 2, 3)), dict(zip(given, arrays, strict=True))
    values = [np.stack([value[p]] * length) if p in rows and length else np.zeros((0, *value[p].shape), value[p].dtype) if p in rows
              else value[p] for p in body.params]
    params = [parameter(p.type.with_shape((length, *p.shape)) if p in rows else p.type, f"x{k}", k) for k, p in enumerate(body.params)]
    found = outputs(OPS["loop"], params, body=body, carries=len(carried), fixed=len(fixed), length=length, reverse=draw.random() < 0.5)
    return Graph(tuple(params), tuple(r for r in found if draw.random() < 0.8) or tuple(found), "f"), values, sizes


@pytest.mark.parametrize("first", range(0, 15, 5))
def test_random_bodies(first: int) -> None:
    for seed in range(first, first + 5):
        graph, arrays, sizes = random_loop(seed)
        verify_graph(graph)
        with config.context(check=1):
            e = compile_graph(graph, fuse=seed % 4 != 3, donate=range(len(arrays)) if seed % 2 else ())
            found = e.run([a.copy() for a in arrays])
        assert parse_plan(print_plan(e.plan, kernels=True), constants=constants_of(e.plan)) == e.plan
        for a, b in zip(found, interpret(graph, *arrays, sizes=sizes), strict=True):
            np.testing.assert_allclose(a.astype("f8"), b.astype("f8"), rtol=1e-2, atol=1e-2, err_msg=f"seed {seed}")


# ------------------------------------------------------------------------------------------------ errors

LEAK: list[Any] = []


def leaking(x):
    xlc.scan(lambda c, _: (LEAK.append(c), (c, None))[1], x, None, length=2)
    return LEAK.pop() + 1


ERRORS = {
    "dtype of a carry": (lambda: xlc.scan(lambda c, x: ({"a": c["a"] * 1.5}, None), {"a": np.int32(1)}, X), XlcTypeError,
                         r"init\['a'\] is i32\[\] at first and f64\[\] after an iteration; write \.astype\('int32'\)"),
    "shape of a carry": (lambda: xlc.fori_loop(0, 3, lambda i, c: np.stack([c, c]), H), XlcTypeError,
                         r"fori_loop: body .*init is f64\[4\] at first and f64\[2,4\].*same shape"),
    "nesting of a carry": (lambda: xlc.scan(lambda c, x: ((c, c), None), H, X), XlcTypeError, r"nested as .* \*, found \(\*, \*\)"),
    "no pair": (lambda: xlc.scan(lambda c, x: c, H, X), XlcTypeError, r"must return a pair \(carry, y\)"),
    "no length": (lambda: xlc.scan(lambda c, x: (c, None), H), XlcValueError, "length="),
    "lengths": (lambda: xlc.scan(lambda c, x: (c, None), H, (X, X[:3])), XlcValueError, r"xs\[0\] has 6, xs\[1\] has 3"),
    "other length": (lambda: xlc.scan(lambda c, x: (c, None), H, X, length=5), XlcValueError, "length has 5, xs has 6"),
    "scalar rows": (lambda: xlc.scan(lambda c, x: (c, None), H, 3.0), XlcTypeError, "xs is a scalar"),
    "pred": (lambda: xlc.cond(1, lambda: 1, lambda: 2), XlcTypeError, r"pred must be a bool scalar, found i64\[\]; write pred != 0"),
    "pred of rank 1": (lambda: xlc.cond(H > 0, lambda: 1, lambda: 2), XlcTypeError, r"found bool\[4\]; compare, or reduce with \.any"),
    "nesting of branches": (lambda: xlc.cond(True, lambda x: x, lambda x: (x, x), H), XlcTypeError, r"false_fn and true_fn .*nested alike"),
    "dtype of branches": (lambda: xlc.cond(True, lambda x: x, lambda x: x.astype("f4"), H), XlcTypeError,
                          r"the result is f32\[4\] from false_fn, and f64\[4\] from true_fn"),
    "index": (lambda: xlc.switch(1.0, [lambda: 1]), XlcTypeError, "index must be an integer scalar"),
    "no branches": (lambda: xlc.switch(0, []), XlcTypeError, "list of functions"),
    "condition": (lambda: xlc.while_loop(lambda c: c, lambda c: c + 1, 1), XlcTypeError, r"cond_fn must return a bool scalar, .*i64\[\]"),
    "bounds": (lambda: xlc.fori_loop(0.0, 3, lambda i, c: c, H), XlcTypeError, "lo must be an integer"),
    "gradient of while": (lambda: xlc.grad(lambda x: xlc.while_loop(lambda c: c.sum() < 9, lambda c: c * 2, x).sum())(np.abs(H)),
                          XlcTypeError, "use scan, or fori_loop with Python ints"),
    "leak": (lambda: xlc.jit(leaking)(H), XlcTypeError, r"used after the trace of '<lambda>' has ended"),
    "if": (lambda: xlc.scan(lambda c, x: (c if c > 0 else -c, None), 1.0, X), XlcTypeError, "truth value"),
    "no function": (lambda: xlc.cond(True, 1, 2), XlcTypeError, "functions as bodies"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    run, kind, text = ERRORS[name]
    with pytest.raises(kind, match=text) as caught:
        run()
    assert Path(caught.value.location[0]).name == Path(__file__).name
