"""Optimisers against their recurrences written plainly in NumPy float64, and against torch.optim where it is installed."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import xlc
from xlc import optim

STEPS = 7


def gradients(shape: tuple[int, ...] = (3, 5), count: int = STEPS, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 2, shape) for _ in range(count)]


def start(shape: tuple[int, ...] = (3, 5)) -> np.ndarray:
    return np.random.default_rng(9).standard_normal(shape)


# ------------------------------------------------------------------------------------------------ the oracle: one loop each


def sgd(w, gs, lr):
    for g in gs:
        w = w - lr * g
    return w


def momentum(w, gs, lr, beta, nesterov=False):
    v = 0
    for g in gs:
        v = beta * v + g
        w = w - lr * (g + beta * v if nesterov else v)
    return w


def adagrad(w, gs, lr=0.01, eps=1e-8):
    s = 0
    for g in gs:
        s = s + g**2
        w = w - lr / np.sqrt(s + eps) * g
    return w


def rmsprop(w, gs, lr=0.001, gamma=0.9, eps=1e-8):
    e = 0
    for g in gs:
        e = gamma * e + (1 - gamma) * g**2
        w = w - lr / np.sqrt(e + eps) * g
    return w


def adadelta(w, gs, lr=1.0, rho=0.9, eps=1e-6):
    e = u = 0
    for g in gs:
        e = rho * e + (1 - rho) * g**2
        d = np.sqrt(u + eps) / np.sqrt(e + eps) * g
        u = rho * u + (1 - rho) * d**2
        w = w - lr * d
    return w


def adam(w, gs, lr=0.001, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m = v = 0
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - lr * decay * w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


CASES = {
    "sgd": (lambda: optim.sgd(0.1), lambda w, gs: sgd(w, gs, 0.1)),
    "momentum": (lambda: optim.momentum(0.1, 0.9), lambda w, gs: momentum(w, gs, 0.1, 0.9)),
    "nesterov": (lambda: optim.momentum(0.1, 0.8, nesterov=True), lambda w, gs: momentum(w, gs, 0.1, 0.8, True)),
    "adagrad": (lambda: optim.adagrad(), adagrad),
    "rmsprop": (lambda: optim.rmsprop(), rmsprop),
    "adadelta": (lambda: optim.adadelta(), adadelta),
    "adam": (lambda: optim.adam(), adam),
    "adam without memory": (lambda: optim.adam(0.01, 0, 0), lambda w, gs: adam(w, gs, 0.01, 0, 0)),
    "adamw": (lambda: optim.adamw(weight_decay=0.1), lambda w, gs: adam(w, gs, decay=0.1)),
}


def run(optimizer, w, gs, jitted: bool, **inputs):
    update = xlc.jit(optimizer.update) if jitted else optimizer.update
    state = optimizer.init(w)
    for g in gs:
        w, state = update(g, state, w, **inputs)
    return w, state, update


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("name", CASES)
def test_recurrence(name: str, dtype: str, jitted: bool) -> None:
    make, oracle = CASES[name]
    w, gs = start().astype(dtype), [g.astype(dtype) for g in gradients()]
    found, state, update = run(make(), {"w": w, "none": None}, [{"w": g, "none": None} for g in gs], jitted)
    expected = oracle(w.astype("f8"), [g.astype("f8") for g in gs])
    assert found["w"].dtype == dtype and found["none"] is None and state["step"] == STEPS and state["step"].dtype == np.int32
    np.testing.assert_allclose(found["w"], expected, rtol=1e-12 if dtype == "f8" else 2e-5, atol=1e-14 if dtype == "f8" else 2e-6)
    assert not jitted or update.compiles == 1


TORCH = {
    "sgd": lambda t, p: t.optim.SGD(p, 0.1), "momentum": lambda t, p: t.optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda t, p: t.optim.SGD(p, 0.1, momentum=0.8, nesterov=True), "adadelta": lambda t, p: t.optim.Adadelta(p),
    "adam": lambda t, p: t.optim.Adam(p), "adamw": lambda t, p: t.optim.AdamW(p, weight_decay=0.1),
    "adagrad": lambda t, p: t.optim.Adagrad(p, 0.01, eps=0), "rmsprop": lambda t, p: t.optim.RMSprop(p, 0.001, alpha=0.9, eps=0),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str) -> None:
    """adagrad and rmsprop differ from torch in where eps stands, so it is 0 there and here."""
    torch = pytest.importorskip("torch")
    ours = {"adagrad": lambda: optim.adagrad(0.01, eps=0.0), "rmsprop": lambda: optim.rmsprop(eps=0.0)}.get(name, CASES[name][0])()
    p = torch.tensor(start(), requires_grad=True)
    theirs = TORCH[name](torch, [p])
    for g in gradients():
        p.grad = torch.tensor(g)
        theirs.step()
    np.testing.assert_allclose(run(ours, start(), gradients(), True)[0], p.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (127,)])
@pytest.mark.parametrize("name", CASES)
def test_shapes(name: str, shape: tuple[int, ...]) -> None:
    make, oracle = CASES[name]
    found, _, _ = run(make(), start(shape), gradients(shape, 3), True)
    assert found.shape == shape
    np.testing.assert_allclose(found, oracle(start(shape), gradients(shape, 3)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_halves_are_accumulated_in_float32(name: str, dtype, jitted: bool) -> None:
    make, oracle = CASES[name]
    w, g = start().astype(dtype), gradients(count=1)[0].astype(dtype)
    found, state, _ = run(make(), w, [g], jitted)
    assert found.dtype == dtype
    assert all(leaf.dtype == np.float32 for leaf in xlc.tree.leaves(state["rules"]))
    once = oracle(w.astype("f8"), [g.astype("f8")])  # one rounding to the half: at most one unit in the last place
    np.testing.assert_allclose(found.astype("f8"), once, rtol=1.01 * float(ml_dtypes.finfo(dtype).eps) / 2, atol=1e-6)


# ------------------------------------------------------------------------------------------------ the learning rate


@pytest.mark.parametrize("name", CASES)
def test_the_rate_is_an_input(name: str) -> None:
    make, _ = CASES[name]
    optimizer, w, gs = make(), start(), gradients()
    state = optimizer.init(w)
    step = xlc.jit(lambda g, state, w, rate: optimizer.update(g, state, w, lr=rate))
    expected, remembered = w, state
    for k, g in enumerate(gs):
        rate = 0.5 / (k + 1)
        w, state = step(g, state, w, rate)
        expected, remembered = optimizer.update(g, remembered, expected, lr=rate)
        np.testing.assert_allclose(w, expected, rtol=1e-12)
    assert step.compiles == 1
    assert not np.allclose(w, run(make(), start(), gs, False)[0])


def test_a_rate_made_inside_the_step() -> None:
    step = xlc.jit(lambda w, g, rate: optim.sgd(rate).update(g, optim.sgd(rate).init(w), w)[0])
    for rate in (0.1, 0.3):
        np.testing.assert_allclose(step(start(), gradients()[0], rate), start() - rate * gradients()[0])
    assert step.compiles == 1


@pytest.mark.parametrize("rate", [0.1, np.float64(0.1), np.array(0.1), np.float32(0.1)])
def test_a_wide_rate_does_not_widen(rate) -> None:
    w, g = start().astype("f4"), gradients()[0].astype("f4")
    for jitted in (False, True):
        found, _, _ = run(optim.sgd(rate), w, [g], jitted)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, w - np.float32(0.1) * g)


SCHEDULES = {
    "exponential": (optim.exponential(0.8, 0.99, 6), lambda t: 0.8 * 0.99 ** (t / 6)),
    "staircase": (optim.exponential(0.1, 0.1, 6, staircase=True), lambda t: 0.1 * 0.1 ** (t // 6)),
    "cosine": (optim.cosine(0.5, 20, 0.1), lambda t: 0.1 + 0.4 * (1 + math.cos(math.pi * min(t, 20) / 20)) / 2),
    "warm-up": (optim.warmup(0.5, 5), lambda t: 0.5 * min(1, (t + 1) / 5)),
    "warm-up of a schedule": (optim.warmup(optim.exponential(0.8, 0.9, 2), 4),
                              lambda t: 0.8 * (t + 1) / 4 if t < 4 else 0.8 * 0.9 ** ((t - 4) / 2)),
    "piecewise": (optim.piecewise([3, 10], [1.0, 0.1, 0.01]), lambda t: 1.0 if t < 3 else 0.1 if t < 10 else 0.01),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str) -> None:
    schedule, oracle = SCHEDULES[name]
    traced = xlc.jit(schedule)
    for t in (0, 1, 2, 3, 5, 6, 9, 10, 19, 20, 21, 1000):
        for found in (schedule(t), schedule(np.int32(t)), traced(np.array(t, np.int32))):
            np.testing.assert_allclose(found, oracle(t), rtol=1e-13)
    np.testing.assert_allclose(schedule(np.arange(30)), [oracle(t) for t in range(30)], rtol=1e-13)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_in_a_step(name: str) -> None:
    schedule, oracle = SCHEDULES[name]
    w, gs = start(), gradients(count=12)
    found, _, update = run(optim.sgd(schedule), w, gs, True)
    for t, g in enumerate(gs):
        w = w - oracle(t) * g
    np.testing.assert_allclose(found, w, rtol=1e-12)
    assert update.compiles == 1


# ------------------------------------------------------------------------------------------------ worked numbers


@pytest.mark.parametrize("jitted", [False, True])
def test_gradient_descent_on_a_square(jitted: bool) -> None:
    def path(rate: float, count: int) -> list[float]:
        optimizer = optim.sgd(rate)

        def one(x, state):
            return optimizer.update(xlc.grad(lambda x: x**2)(x) if jitted else 2 * x, state, x)

        step = xlc.jit(one) if jitted else one
        x, state, out = np.array(5.0), optimizer.init(5.0), []
        for _ in range(count):
            x, state = step(x, state)
            out.append(float(x))
        return out

    np.testing.assert_allclose(path(0.3, 5), [2, 0.8, 0.32, 0.128, 0.0512], rtol=1e-14)
    np.testing.assert_allclose(path(1.0, 4), [-5, 5, -5, 5])
    assert round(path(0.001, 5)[-1], 2) == 4.95
    assert 2290 <= next(k for k, x in enumerate(path(0.001, 2400), 1) if x < 0.05) <= 2310


@pytest.mark.parametrize("jitted", [False, True])
def test_average_with_num_updates(jitted: bool) -> None:
    average = optim.ema(0.99)
    update = xlc.jit(average.update) if jitted else average.update
    shadow = update(average.init(0.0), 5.0, 0)
    assert float(shadow) == 4.5
    assert float(update(shadow, 10.0, 10_000)) == pytest.approx(4.555, rel=1e-15)
    assert float(average.update(1.0, 2.0)) == pytest.approx(1.01, rel=1e-15)


def test_average_of_halves() -> None:
    average, p = optim.ema(0.9), {"w": np.ones(3, ml_dtypes.bfloat16)}
    shadow = average.update(average.init(p), {"w": np.full(3, 2, ml_dtypes.bfloat16)})
    assert shadow["w"].dtype == np.float32
    np.testing.assert_allclose(shadow["w"], 1.1, rtol=1e-6)
    assert average.weights(shadow, p)["w"].dtype == ml_dtypes.bfloat16


# ------------------------------------------------------------------------------------------------ rules


def test_clip_by_global_norm() -> None:
    p, g = {"a": np.zeros(2), "b": np.zeros(())}, {"a": np.array([3.0, 0.0]), "b": np.array(4.0)}
    assert optim.global_norm(g) == 5 and optim.global_norm(()) == 0
    for limit, scale in ((1.0, 0.2), (5.0, 1.0), (50.0, 1.0)):
        for jitted in (False, True):
            found, _, _ = run(optim.chain(optim.clip_by_global_norm(limit), optim.sgd(1.0)), p, [g], jitted)
            np.testing.assert_allclose(found["a"], [-3 * scale, 0], rtol=1e-15)
            np.testing.assert_allclose(found["b"], -4 * scale, rtol=1e-15)


def test_clipping_follows_torch() -> None:
    torch = pytest.importorskip("torch")
    gs = {"a": gradients((4, 3))[0].astype("f4"), "b": gradients((7,))[1].astype("f4")}
    ps = [torch.zeros(g.shape, requires_grad=True) for g in gs.values()]
    for p, g in zip(ps, gs.values(), strict=True):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(ps, 0.5)
    np.testing.assert_allclose(optim.global_norm(gs), norm, rtol=1e-6)
    found, _, _ = run(optim.chain(optim.clip_by_global_norm(0.5), optim.sgd(1.0)), xlc.tree.map(np.zeros_like, gs), [gs], True)
    for p, name in zip(ps, gs, strict=True):
        np.testing.assert_allclose(found[name], -p.grad.numpy(), rtol=1e-5)


def test_weight_decay_before_and_behind() -> None:
    w, gs, rate = start(), gradients(), 0.05
    l2, _, _ = run(optim.chain(optim.weight_decay(rate), optim.momentum(0.1, 0.9)), w, gs, True)
    v, expected = 0, w
    for g in gs:
        v = 0.9 * v + g + rate * expected
        expected = expected - 0.1 * v
    np.testing.assert_allclose(l2, expected, rtol=1e-12)
    decoupled, _, _ = run(optim.chain(optim.momentum(0.1, 0.9), optim.weight_decay(rate)), w, gs, True)
    v, expected = 0, w
    for g in gs:
        v = 0.9 * v + g
        expected = expected - 0.1 * rate * expected - 0.1 * v
    np.testing.assert_allclose(decoupled, expected, rtol=1e-12)


def test_weight_decay_is_the_gradient_of_half_the_squares() -> None:
    w = start()
    found, _, _ = run(optim.chain(optim.weight_decay(0.3), optim.sgd(0.1)), w, [np.zeros_like(w)], True)
    np.testing.assert_allclose(found, w - 0.1 * xlc.grad(lambda w: 0.3 * (w**2).sum() / 2)(w), rtol=1e-14)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, lambda p: xlc.tree.map(lambda a: a.ndim > 1, p)])
def test_weight_decay_of_some(mask) -> None:
    p = {"w": start(), "b": start((5,))}
    found, _, _ = run(optim.chain(optim.weight_decay(0.5, mask), optim.sgd(1.0)), p, [xlc.tree.map(np.zeros_like, p)], True)
    np.testing.assert_allclose(found["w"], 0.5 * p["w"])
    np.testing.assert_array_equal(found["b"], p["b"])


@pytest.mark.parametrize("jitted", [False, True])
def test_accumulation_steps_along_the_mean(jitted: bool) -> None:
    w, gs = start(), gradients(count=7)
    found, state, _ = run(optim.accumulate(optim.adam(0.1), 3), w, gs, jitted)
    means = [(gs[0] + gs[1] + gs[2]) / 3, (gs[3] + gs[4] + gs[5]) / 3]
    np.testing.assert_allclose(found, adam(w, means, 0.1), rtol=1e-12)
    assert state["optimizer"]["step"] == 2 and state["calls"] == 1
    np.testing.assert_allclose(state["sum"], gs[6])
    one, _ = optim.accumulate(optim.sgd(0.1), 2).update(gs[0], optim.accumulate(optim.sgd(0.1), 2).init(w), w)
    np.testing.assert_array_equal(one, w)


def test_a_chain_is_part_of_another() -> None:
    inner = optim.chain(optim.weight_decay(0.1), optim.adam(0.01))
    outer = optim.chain(optim.clip_by_global_norm(1.0), inner)
    by_hand = optim.chain(optim.clip_by_global_norm(1.0), optim.weight_decay(0.1), optim.adam(0.01))
    np.testing.assert_array_equal(run(outer, start(), gradients(), True)[0], run(by_hand, start(), gradients(), True)[0])


# ------------------------------------------------------------------------------------------------ one program


def network(p, x, y):
    return xlc.nn.cross_entropy(np.maximum(x @ p["w1"] + p["b1"], 0) @ p["w2"], y).mean()


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adadelta"])
def test_a_donated_step_is_one_program_that_updates_in_place(name: str) -> None:
    optimizer = CASES[name][0]()

    def step(params, state, x, y):
        value, grads = xlc.value_and_grad(network)(params, x, y)
        params, state = optimizer.update(grads, state, params)
        return params, state, value

    rng = np.random.default_rng(0)
    p = {"w1": rng.normal(0, 0.1, (64, 50)).astype("f4"), "b1": np.zeros(50, "f4"), "w2": rng.normal(0, 0.1, (50, 10)).astype("f4")}
    x, y = rng.random((32, 64), "f4"), rng.integers(0, 10, 32)
    jitted = xlc.jit(step, donate=("params", "state"))
    plan = jitted.compile(p, optimizer.init(p), x, y).plan
    carried = len(xlc.tree.leaves((p, optimizer.init(p))))
    assert len(plan.donated) == carried, "every parameter and accumulator is overwritten by its successor"
    state = optimizer.init(p)
    losses = []
    for _ in range(3):
        places = [a.__array_interface__["data"][0] for a in xlc.tree.leaves((p, state))]
        p, state, value = jitted(p, state, x, y)
        assert [a.__array_interface__["data"][0] for a in xlc.tree.leaves((p, state))] == places
        losses.append(float(value))
    assert losses[2] < losses[0] and jitted.compiles == 1


# ------------------------------------------------------------------------------------------------ errors


def test_errors_say_what_is_wrong() -> None:
    o = optim.sgd(0.1)
    state = o.init({"w": start()})
    for call, text in [
        (lambda: o.init({"w": np.arange(3)}), r"params\['w'\] is an array of int64"),
        (lambda: o.init({"w": 3}), r"params\['w'\] is int 3"),
        (lambda: o.update({"v": start()}, state, {"w": start()}), r"nested as \{'v': \*\}, and the parameters as \{'w': \*\}"),
        (lambda: o.update({"w": start((2,))}, state, {"w": start((3,))}), r"params\['w'\] has the shape \(3,\), and its gradient \(2,\)"),
        (lambda: optim.sgd("fast"), "a learning rate that is a number"),
        (lambda: optim.momentum(0.1, 1.0), r"beta must be a number in \[0, 1\)"),
        (lambda: optim.chain(optim.weight_decay(0.1)), "exactly one optimiser"),
        (lambda: optim.chain(optim.sgd(1), optim.sgd(1)), "exactly one optimiser"),
        (lambda: optim.chain(0.1), "rules and one optimiser"),
        (lambda: optim.chain(optim.accumulate(optim.sgd(1), 2)), "around the chain"),
        (lambda: optim.accumulate(optim.sgd(1), 0), "a positive int"),
        (lambda: optim.clip_by_global_norm(0.0), "a positive norm"),
        (lambda: optim.piecewise([3], [1.0]), "one value more"),
        (lambda: optim.exponential(0.1, 0.9, 0), "decay_steps must be a positive int"),
        (lambda: optim.ema(2), r"in \[0, 1\]"),
    ]:
        with pytest.raises(xlc.XlcError, match=text) as caught:
            call()
        assert caught.value.location[0] == __file__
