"""Recurrent layers: against loops in NumPy, finite differences, and PyTorch where it is installed; stacked, both ways, carried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_grad import check

import xlc
from xlc import nn, optim, train

KEY = xlc.random.key(0)
rng = np.random.default_rng(0)
X = rng.standard_normal((2, 5, 3))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rnn_step(p: Any, x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray]:
    return (np.tanh(np.concatenate([x, h], -1) @ p["w"] + p["b"]),)


def lstm_step(p: Any, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, f, g, o = np.split(np.concatenate([x, h], -1) @ p["w"] + p["b"], 4, -1)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(p: Any, x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray]:
    n = x.shape[-1]
    (r, z, a), (rh, zh, ah) = np.split(x @ p["w"][:n] + p["b"][0], 3, -1), np.split(h @ p["w"][n:] + p["b"][1], 3, -1)
    z = sigmoid(z + zh)
    return ((1 - z) * np.tanh(a + sigmoid(r + rh) * ah) + z * h,)


BIAS = {"bias": nn.init.normal(0.5)}
LAYERS = {"rnn": (nn.RNN, rnn_step, {}), "lstm": (nn.LSTM, lstm_step, {"forget_bias": 1.0}), "gru": (nn.GRU, gru_step, {})}


def by_numpy(step: Any, states: int, p: Any, x: np.ndarray, hidden: int, reverse: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """All outputs (batch, time, hidden), and the last state."""
    state = [np.zeros((len(x), hidden))] * states
    y = np.empty((*x.shape[:2], hidden))
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        state = step(p, x[:, t], *state)
        y[:, t] = state[0]
    return y, state


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_and_gradients(kind: str, reverse: bool) -> None:
    make, step, options = LAYERS[kind]
    layer = make(4, reverse=reverse, stateful=True, **options, **BIAS)
    params = layer.init(KEY, X)
    y, state = by_numpy(step, len(layer.states), params, X, 4, reverse)
    found, after = layer.apply(params, X, layer.memory(X))
    np.testing.assert_allclose(found, y, rtol=1e-10)
    for name, part in zip(layer.states, state, strict=True):
        np.testing.assert_allclose(after[name], part, rtol=1e-10)
    last = make(4, reverse=reverse, sequence=False, **options)
    np.testing.assert_allclose(last.apply(params, X), state[0], rtol=1e-10)
    major = make(4, reverse=reverse, time_major=True, **options)
    np.testing.assert_allclose(major.apply(params, X.swapaxes(0, 1)), y.swapaxes(0, 1), rtol=1e-10)
    np.testing.assert_allclose(last.apply(params, X[0]), state[0][0], rtol=1e-10)
    check(lambda x, w, b: layer.apply({"w": w, "b": b}, x), X, params["w"], params["b"])


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sequence_in_two_parts(kind: str) -> None:
    layer = LAYERS[kind][0](4, stateful=True)
    params, memory = layer.init(KEY, X), layer.memory(X)
    whole, end = layer.apply(params, X, memory)
    first, between = layer.apply(params, X[:, :2], memory)
    second, state = layer.apply(params, X[:, 2:], between)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-12)
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(xlc.tree.leaves(state), xlc.tree.leaves(end), strict=True))
    np.testing.assert_allclose(layer.apply(params, X), whole, rtol=1e-12)


def test_stacked_and_in_both_directions() -> None:
    net = nn.Sequential(nn.Bidirectional(nn.LSTM(4)), nn.Dropout(0.5), nn.Bidirectional(nn.GRU(3, sequence=False)), nn.Dense(2))
    params = net.init(KEY, xlc.spec(("batch", "time", 3), "f8"))
    (a, b), _, (c, d), dense = params

    def plain(p: Any, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> Any:
        return lstm_step({"w": p["w"], "b": p["b"] - np.repeat([0, 1, 0, 0], 4)}, x, h, c)

    x = np.concatenate([by_numpy(plain, 2, a, X, 4)[0], by_numpy(plain, 2, b, X, 4, True)[0]], -1)
    x = np.concatenate([by_numpy(gru_step, 1, c, x, 3)[1][0], by_numpy(gru_step, 1, d, x, 3, True)[1][0]], -1)
    apply = xlc.jit(net.apply, dynamic={"x": {0: "batch", 1: "time"}})
    np.testing.assert_allclose(apply(params, X), x @ dense["w"] + dense["b"], rtol=1e-10)
    assert apply(params, X[:1, :3]).shape == (1, 2) and apply.compiles == 1
    dropped = [net.apply(params, X, key=xlc.random.key(k), training=True) for k in (1, 1, 2)]
    assert (dropped[0] == dropped[1]).all() and (dropped[0] != dropped[2]).any()


def test_parameters() -> None:
    assert {k: v.shape for k, v in nn.LSTM(200).init(KEY, np.ones((20, 35, 200), "f4")).items()} == {"w": (400, 800), "b": (800,)}
    w = nn.LSTM(16).init(KEY, np.ones((1, 1, 50), "f4"))["w"]
    assert w.dtype == np.float32 and 0.24 < np.abs(w).max() <= 0.25 and abs(w.mean()) < 0.01
    assert list(nn.GRU(4, bias=None).init(KEY, X)) == ["w"] and nn.GRU(4).init(KEY, X)["b"].shape == (2, 12)
    for make in (nn.RNN, nn.LSTM, nn.GRU):
        p = make(4).init(KEY, X)
        np.testing.assert_array_equal(make(4, bias=None).apply({"w": p["w"]}, X), make(4).apply(p, X))
    relu = nn.RNN(4, activation=nn.relu)
    p = relu.init(KEY, X)
    assert relu.apply(p, X).min() == 0 and relu.apply(p, X.astype("f2")).dtype == np.float64
    halves = nn.LSTM(4).init(KEY, X.astype("f2"))
    assert nn.LSTM(4).apply(halves, X.astype("f2")).dtype == np.float16


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 1, 3)])
def test_empty_and_short(shape: tuple[int, ...]) -> None:
    for make in (nn.RNN, nn.LSTM, nn.GRU):
        params = make(4).init(KEY, np.ones(shape))
        assert make(4).apply(params, np.ones(shape)).shape == (*shape[:2], 4)
        assert make(4, sequence=False).apply(params, np.ones(shape)).shape == (shape[0], 4)


def test_the_gates_are_one_contraction_in_one_loop() -> None:
    layer = nn.LSTM(8)
    done = xlc.jit(layer.apply).compile(layer.init(KEY, X), X)
    (body,) = {n["body"] for n in done.graph.nodes() if n.op.name == "loop"}
    assert sum(n.op.name == "dot" for n in body.nodes()) == 1


def test_a_language_model_carries_its_state() -> None:
    """A symbol repeats what was said 3 steps before, and batches are 2 steps long: without the state it cannot be known."""
    ids = np.tile(np.random.default_rng(1).integers(0, 4, (8, 3)), 41)
    net = nn.Sequential(nn.Embedding(4, 8), nn.LSTM(16, stateful=True), nn.Dense(4))
    optimizer, first = optim.adam(0.02), xlc.spec((8, 2), "i8")

    def loss(params: Any, x: Any, y: Any, memory: Any) -> Any:
        scores, memory = net.apply(params, x, memory, training=True)
        return nn.cross_entropy(scores, y).mean(), {"memory": memory}

    step = xlc.jit(train.step(loss, optimizer, has_aux=True))
    state = train.start(net.init(KEY, first), optimizer, memory=net.memory(first))
    batches = [(ids[:, t:t + 2], ids[:, t + 1:t + 3]) for t in range(0, 120, 2)]
    run = train.fit(step, state, batches, epochs=6)
    assert run.history[-1]["loss"] < 0.15 and step.compiles == 1, run.history[-1]


def test_errors_say_what_is_wrong() -> None:
    lstm = nn.LSTM(4, stateful=True)
    params = lstm.init(KEY, X)
    for call, text in [
        (lambda: lstm.memory(xlc.spec(("batch", 5, 3))), r"memory of a stateful LSTM needs sizes in numbers, found \(batch, 4\)"),
        (lambda: lstm.init(KEY, xlc.spec((2, 5, "features"))), "number of features as a number, found features"),
        (lambda: lstm.apply(params, X[0, 0]), r"x of shape \(..., time, features\), found 1 dimension"),
        (lambda: lstm.apply(params, X[..., :2]), r"expects w of shape \(in \+ hidden, 4 hidden\) = \(6, 16\), found \(7, 16\)"),
        (lambda: lstm.apply(params, X, lstm.memory(X[:1])), r"h and c of shape \(2, 4\) as its state"),
        (lambda: lstm.apply(params, X, {"h": np.zeros((2, 4))}), "expects h and c of shape"),
        (lambda: nn.Bidirectional(nn.Dense(3)), "expects a recurrent layer, such as LSTM"),
        (lambda: nn.rnn_cell(X[:, 0], np.zeros((2, 4)), params["w"], 0.0), r"\(in \+ hidden, hidden\) = \(7, 4\)"),
    ]:
        with pytest.raises(xlc.XlcError, match=text):
            call()


@pytest.mark.parametrize("kind", LAYERS)
def test_two_layers_both_ways_equal_pytorch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](3, 4, 2, batch_first=True, bidirectional=True).double()
    make = LAYERS[kind][0]
    net = nn.Sequential(nn.Bidirectional(make(4)), nn.Bidirectional(make(4)))
    given = {name: t.detach().numpy() for name, t in theirs.named_parameters()}

    def weights(suffix: str) -> dict[str, np.ndarray]:
        w_x, w_h, b_x, b_h = (given[f"{name}_{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        return {"w": np.concatenate([w_x.T, w_h.T]), "b": np.stack([b_x, b_h]) if kind == "gru" else b_x + b_h}

    params = tuple((weights(f"l{k}"), weights(f"l{k}_reverse")) for k in (0, 1))
    np.testing.assert_allclose(net.apply(params, X), theirs(torch.from_numpy(X))[0].detach(), rtol=1e-10)
    slope = xlc.grad(lambda x: (net.apply(params, x) ** 2).sum())(X)
    x = torch.from_numpy(X).requires_grad_()
    (theirs(x)[0] ** 2).sum().backward()
    np.testing.assert_allclose(slope, x.grad, rtol=1e-9, atol=1e-12)
