"""The functions of xlc.nn that are written with xlc.numpy: against plain NumPy in float64, gradients against differences, and against
PyTorch where it is installed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from test_grad import check

import xlc
from xlc import nn
from xlc import random as R

rng = np.random.default_rng(3)
KEY = R.key(7)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# ------------------------------------------------------------------------------------------------ activations

ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray], np.ndarray]]] = {
    "sigmoid": (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "relu6": (nn.relu6, lambda x: np.clip(x, 0, 6)),
    "leaky_relu": (nn.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x)),
    "leaky_relu 0.2": (lambda x: nn.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "elu": (nn.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    "elu 0.5": (lambda x: nn.elu(x, alpha=0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    f, expected = ACTIVATIONS[name]
    x = np.concatenate([normal(50) * 4, [-1e4, 1e4, 0.0]])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(f(x), expected(x), rtol=1e-14)
        for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
            y = f(x.astype(dtype))
            assert y.dtype == dtype
            wide = expected(x.astype(dtype).astype(np.float64))
            np.testing.assert_allclose(y.astype(np.float64), wide, rtol=2e-2 if y.itemsize == 2 else 1e-6)
    assert np.isnan(f(np.float32(np.nan))) and f(np.zeros((0, 3))).shape == (0, 3) and f(np.float32(2)).shape == ()
    check(f, normal(40) * 4)


def test_ends_of_relu6() -> None:
    assert nn.relu6(np.array([-3, 4, 9])).tolist() == [0, 4, 6]
    slopes = xlc.grad(lambda x: nn.relu6(x).sum())(np.array([-1.0, 0.0, 3.0, 6.0, 7.0]))
    assert slopes.tolist() == [0, 0, 1, 0, 0]


# ------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "bf16"])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_dropout(rate: float, dtype: str) -> None:
    d = np.dtype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)
    x = (normal(100, 50) + 9).astype(d)
    y = nn.dropout(KEY, x, rate)
    assert y.dtype == d
    kept = y != 0
    assert abs(kept.mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / x.size)
    scaled = x.astype(np.float64) / max(1 - rate, 1e-9)
    np.testing.assert_allclose(y[kept].astype(np.float64), scaled[kept], rtol={2: 1e-2, 4: 1e-6, 8: 1e-14}[d.itemsize])
    if rate in (0.0, 1.0):
        np.testing.assert_array_equal(y, x if rate == 0 else np.zeros_like(x))
    np.testing.assert_array_equal(kept, nn.dropout(KEY, np.ones((100, 50), np.float32), rate) != 0)  # one mask for all dtypes


def test_gradient_of_dropout_is_its_mask() -> None:
    x = normal(30, 4)
    for rate in (0.0, 0.3, 1.0):
        mask = nn.dropout(KEY, np.ones_like(x), rate)
        g = xlc.jit(lambda x, rate: xlc.grad(lambda x: (nn.dropout(KEY, x, rate) * 3).sum())(x))(x, rate)
        np.testing.assert_allclose(g, 3 * mask)
    dropped = nn.dropout(KEY, np.full(100, np.inf), 0.5)
    assert set(dropped) == {0.0, np.inf}


# ------------------------------------------------------------------------------------------------ normalisation


def normalised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (2, 3, 4, 6), (2, 2, 3, 2, 6), (1, 3, 6)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    x, c = normal(*shape) * 2 + 3, shape[-1]
    scale, bias, mean, var = normal(c), normal(c), normal(c), rng.uniform(0.5, 2, c)
    np.testing.assert_allclose(
        nn.batch_norm(x, scale, bias, mean, var, eps=1e-3), (x - mean) / np.sqrt(var + 1e-3) * scale + bias, rtol=1e-12
    )
    y, new_mean, new_var = nn.batch_norm(x, scale, bias, mean, var, eps=1e-3, training=True, momentum=0.3)
    rows = x.reshape(-1, c)
    np.testing.assert_allclose(y, (normalised(rows, (0,), 1e-3) * scale + bias).reshape(shape), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(new_mean, 0.7 * mean + 0.3 * rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(new_var, 0.7 * var + 0.3 * rows.var(0, ddof=1), rtol=1e-12)
    assert new_mean.shape == new_var.shape == (c,)


def test_normalisations_are_differentiated() -> None:
    scale, bias, mean, var = normal(4), normal(4), normal(4), rng.uniform(0.5, 2, 4)
    check(lambda x, s, b, m, v: nn.batch_norm(x, s, b, m, v), normal(3, 2, 4), scale, bias, mean, var)
    check(lambda x, s, b: nn.batch_norm(x, s, b, mean, var, training=True)[0], normal(3, 5, 4), scale, bias)
    check(lambda x: nn.batch_norm(x, scale, bias, mean, var, training=True)[2], normal(3, 5, 4))
    check(lambda x, s, b: nn.instance_norm(x, s, b), normal(3, 5, 4), scale, bias)
    check(lambda x, s, b: nn.group_norm(x, s, b, groups=2), normal(3, 5, 4), scale, bias)


@pytest.mark.parametrize("shape, groups", [((3, 6), 2), ((2, 5, 6), 1), ((2, 4, 3, 6), 3), ((2, 4, 3, 6), 6)])
def test_group_and_instance_norm(shape: tuple[int, ...], groups: int) -> None:
    x, c = normal(*shape), shape[-1]
    scale, bias = normal(c), normal(c)
    parts = x.reshape(*shape[:-1], groups, c // groups)
    expected = normalised(parts, (*range(1, len(shape) - 1), len(shape)), 1e-5).reshape(shape) * scale + bias
    np.testing.assert_allclose(nn.group_norm(x, scale, bias, groups=groups), expected, rtol=1e-9, atol=1e-11)
    if len(shape) > 2:
        expected = normalised(x, tuple(range(1, len(shape) - 1)), 1e-5) * scale + bias
        np.testing.assert_allclose(nn.instance_norm(x, scale, bias), expected, rtol=1e-9, atol=1e-11)


def test_normalisations_of_other_kinds() -> None:
    """Halves are computed in float32, sizes may be named, a batch of one example has a variance."""
    x = (normal(64, 8) * 3 + 100).astype(np.float16)
    y, mean, var = nn.batch_norm(x, np.ones(8), np.zeros(8), np.zeros(8, np.float16), np.ones(8, np.float16), training=True)
    assert y.dtype == np.float64  # scale and bias promote
    one, zero = np.ones(8, np.float16), np.zeros(8, np.float16)
    y, mean, var = nn.batch_norm(x, one, zero, zero, one, training=True)
    assert y.dtype == mean.dtype == np.float16
    np.testing.assert_allclose(y, normalised(x.astype(np.float64), (0,), 1e-5), atol=4e-3)
    f = xlc.jit(lambda x: nn.batch_norm(x, one, zero, zero, one, training=True), dynamic={"x": {0: "n"}})
    for n in (1, 2, 33):
        for a, b in zip(f(x[:n]), nn.batch_norm(x[:n], one, zero, zero, one, training=True), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3)
    assert f.compiles == 1
    assert nn.group_norm(np.zeros((0, 4)), np.ones(4), np.zeros(4), groups=2).shape == (0, 4)


# ------------------------------------------------------------------------------------------------ embedding


def test_embedding() -> None:
    table, ids = normal(7, 3), np.array([[0, 6, 2], [2, 2, -1]])
    np.testing.assert_array_equal(nn.embedding(table, ids), table[ids])
    assert nn.embedding(table, np.uint8(3)).shape == (3,) and nn.embedding(table, np.zeros((0, 2), int)).shape == (0, 2, 3)
    np.testing.assert_array_equal(nn.embedding(table, np.array([7, 100])), table[[6, 6]])  # out of range: the last row
    np.testing.assert_array_equal(nn.embedding(table, np.array([-8, -100])), table[[0, 0]])
    w = normal(2, 3, 3)
    g = xlc.grad(lambda t: (nn.embedding(t, ids) * w).sum())(table)
    expected = np.zeros_like(table)
    np.add.at(expected, ids, w)
    np.testing.assert_allclose(g, expected)
    big = rng.integers(0, 5, 10_000)
    slope = xlc.jit(lambda t: xlc.grad(lambda t: (nn.embedding(t, big) * 0.1).sum())(t))
    first = slope(table.astype(np.float32))
    assert all((slope(table.astype(np.float32)) == first).all() for _ in range(3))


# ------------------------------------------------------------------------------------------------ recurrent cells


def lstm(x: Any, h: Any, c: Any, w: Any, b: Any, peep: Any = None, coupled: bool = False, forget: float = 0.0) -> Any:
    n = h.shape[-1]
    a = np.concatenate([x, h], -1) @ w + b
    parts = [a[..., k * n : (k + 1) * n] for k in range(a.shape[-1] // n)]
    i, f, g, o = parts if not coupled else (None, *parts)
    pi, pf, po = (np.zeros((3, n)) if peep is None else peep if not coupled else (0, *peep))
    f = sigmoid(f + pf * c + forget)
    i = 1 - f if coupled else sigmoid(i + pi * c)
    new = f * c + i * np.tanh(g)
    return sigmoid(o + po * new) * np.tanh(new), new


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("peephole", [False, True])
def test_lstm_cell(peephole: bool, coupled: bool) -> None:
    gates = 3 if coupled else 4
    x, h, c, w, b = normal(2, 5), normal(2, 3), normal(2, 3), normal(8, gates * 3), normal(gates * 3)
    peep = normal(gates - 1, 3) if peephole else None
    found = nn.lstm_cell(x, (h, c), w, b, peephole=peep, coupled=coupled, forget_bias=1.0)
    for a, e in zip(found, lstm(x, h, c, w, b, peep, coupled, 1.0), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12)
    for k in range(2):
        check(lambda x, h, c, w, b, k=k: nn.lstm_cell(x, (h, c), w, b, peephole=peep, coupled=coupled)[k], x, h, c, w, b)


def test_gates_are_one_contraction() -> None:
    x, h, c, w, b = normal(8, 16), normal(8, 32), normal(8, 32), normal(48, 128), normal(128)
    done = xlc.jit(lambda x, h, c: nn.lstm_cell(x, (h, c), w, b)).compile(x, h, c)
    assert sum(n.op.name == "dot" for n in done.graph.nodes()) == 1


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_cell(reset_after: bool) -> None:
    x, h, w, b = normal(2, 5), normal(2, 3), normal(8, 9), normal(9)
    (r, z, n), (rh, zh, nh) = (np.split(v, 3, 1) for v in (x @ w[:5] + b, h @ w[5:]))
    r, z = sigmoid(r + rh), sigmoid(z + zh)
    n = np.tanh(n + (r * nh if reset_after else (r * h) @ w[5:, 6:]))
    np.testing.assert_allclose(nn.gru_cell(x, h, w, b, reset_after=reset_after), (1 - z) * n + z * h, rtol=1e-12)
    check(lambda x, h, w, b: nn.gru_cell(x, h, w, b, reset_after=reset_after), x, h, w, b)
    if reset_after:
        both = np.stack([b, np.zeros(9)])
        np.testing.assert_allclose(nn.gru_cell(x, h, w, both), nn.gru_cell(x, h, w, b))
        check(lambda b: nn.gru_cell(x, h, w, b), normal(2, 9))


# ------------------------------------------------------------------------------------------------ losses


def test_simple_losses() -> None:
    a, b = normal(4, 3), normal(4, 3)
    np.testing.assert_allclose(nn.mse(a, b), ((a - b) ** 2).mean())
    np.testing.assert_allclose(nn.l2_loss(a), (a**2).sum() / 2)
    np.testing.assert_allclose(nn.l1_loss(a), np.abs(a).sum())
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (a, b))
    np.testing.assert_allclose(nn.softmax_cross_entropy(a, q), -(q * np.log(p)).sum(1), rtol=1e-12)
    np.testing.assert_allclose(nn.kl_divergence(p, q), (p * np.log(p / q)).sum(1), rtol=1e-10)
    assert nn.kl_divergence(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0
    np.testing.assert_array_equal(xlc.grad(nn.l2_loss)(a), a)
    for f in (nn.mse, nn.softmax_cross_entropy):
        check(f, a, b)
    check(nn.kl_divergence, p, q)


def test_log_uniform_candidates() -> None:
    ids = nn.log_uniform_candidates(KEY, 40_000, 50)
    k = np.arange(50)
    expected = (np.log(k + 2) - np.log(k + 1)) / np.log(51)
    counts = np.bincount(ids, minlength=50)
    assert ids.dtype == np.int64 and len(counts) == 50
    assert ((counts - 40_000 * expected) ** 2 / (40_000 * expected)).sum() < 85.4  # chi-square, 49 degrees, 0.1%


@pytest.mark.parametrize("true", [1, 2])
@pytest.mark.parametrize("remove", [True, False])
def test_sampled_softmax_loss(remove: bool, true: int) -> None:
    classes, features, batch, count = 30, 4, 6, 12
    w, b, x = normal(classes, features), normal(classes), normal(batch, features)
    labels = rng.integers(0, 8, (batch, true))
    sampled = nn.log_uniform_candidates(KEY, count, classes)
    probability = (np.log(np.arange(classes) + 2.0) - np.log(np.arange(classes) + 1.0)) / np.log(classes + 1)
    expected = []
    for row in range(batch):
        logit = [x[row] @ w[k] + b[k] - np.log(count * probability[k]) for k in labels[row]]
        others = [x[row] @ w[k] + b[k] - np.log(count * probability[k]) for k in sampled if not (remove and k in labels[row])]
        expected.append(np.log(np.exp(logit + others).sum()) - np.mean(logit))

    def loss(w: Any, b: Any, x: Any) -> Any:
        return nn.sampled_softmax_loss(KEY, w, b, labels, x, num_sampled=count, remove_accidental_hits=remove)

    np.testing.assert_allclose(loss(w, b, x), expected, rtol=1e-10)
    assert any(k in labels for k in sampled)
    if true == 1:
        np.testing.assert_array_equal(loss(w, b, x), nn.sampled_softmax_loss(KEY, w, b, labels[:, 0], x, num_sampled=count,
                                                                             remove_accidental_hits=remove))
    check(loss, w, b, x)


def paths(log_probs: np.ndarray, labels: list[int]) -> float:
    """-log of the probability of the labels, by all sequences of classes."""
    frames, classes = log_probs.shape
    total = 0.0
    for path in itertools.product(range(classes), repeat=frames):
        if [k for i, k in enumerate(path) if k and (i == 0 or path[i - 1] != k)] == labels:
            total += np.exp(sum(log_probs[i, k] for i, k in enumerate(path)))
    return -np.log(total) if total else np.inf


def test_ctc_loss() -> None:
    """Repeated labels, rows of several lengths, no label, as many labels as frames, too few frames."""
    x = normal(6, 6, 3)
    labels = np.array([[1, 1, 2], [2, 1, 99], [1, 2, 1], [2, 2, 2], [1, 2, 1], [1, 1, 2]])
    inputs, counts = np.array([6, 5, 6, 4, 3, 3]), np.array([3, 2, 0, 1, 3, 3])
    log_probs = x - np.log(np.exp(x).sum(-1, keepdims=True))
    expected = [paths(log_probs[:t, b], labels[b, :n].tolist()) for b, (t, n) in enumerate(zip(inputs, counts, strict=True))]
    found = nn.ctc_loss(log_probs, labels, inputs, counts)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[5] == np.inf and np.isfinite(found[:5]).all()
    single = nn.ctc_loss(log_probs.astype(np.float32), labels.astype(np.int32), inputs, counts)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    check(lambda x: nn.ctc_loss(nn.log_softmax(x), labels, inputs, counts)[:5], x)
    assert nn.ctc_loss(log_probs, labels[:, :0], inputs, 0 * counts).shape == (6,)
    rows = dict.fromkeys(("labels", "input_lengths", "label_lengths"), {0: "b"})
    f = xlc.jit(nn.ctc_loss, dynamic={"log_probs": {0: "t", 1: "b"}, **rows})
    np.testing.assert_allclose(f(log_probs, labels, inputs, counts), expected, rtol=1e-12)
    np.testing.assert_allclose(f(log_probs[:4, 3:4], labels[3:4], inputs[3:4], counts[3:4]), expected[3:4], rtol=1e-12)
    assert f.compiles == 1


# ------------------------------------------------------------------------------------------------ initial values


def test_initial_values() -> None:
    init = nn.init
    assert (init.zeros(KEY, (2, 3)) == 0).all() and (init.ones(KEY, (2,), np.float64) == 1).all()
    assert init.zeros(KEY, (2, 3)).dtype == np.float32 and init.ones(KEY, (2,), np.float64).dtype == np.float64
    np.testing.assert_array_equal(init.constant(np.array([1, 2]))(KEY, (3, 2)), [[1, 2]] * 3)
    shape = (3, 3, 40, 60)
    fan_in, fan_out = 360, 540
    for f, variance, bound in (
        (init.uniform(-0.5, 0.5), 1 / 12, 0.5),
        (init.normal(0.2), 0.04, 2),
        (init.truncated_normal(0.2), 0.04 * init.TRUNCATED_STD**2, 0.4),
        (init.glorot_uniform(), 2 / (fan_in + fan_out), np.sqrt(6 / (fan_in + fan_out))),
        (init.glorot_normal(), 2 / (fan_in + fan_out), 1),
        (init.he_uniform(), 2 / fan_in, np.sqrt(6 / fan_in)),
        (init.he_normal(), 2 / fan_in, 1),
        (init.lecun_uniform(), 1 / fan_in, np.sqrt(3 / fan_in)),
        (init.lecun_normal(), 1 / fan_in, 1),
        (init.variance_scaling(3.0, "fan_out", "normal"), 3 / fan_out, 1),
    ):
        w = f(KEY, shape)
        assert w.shape == shape and w.dtype == np.float32
        assert abs(w.var(dtype=np.float64) / variance - 1) < 0.03 and np.abs(w).max() <= bound * (1 + 1e-6)
        np.testing.assert_array_equal(w, xlc.jit(lambda key, f=f: f(key, shape))(KEY))
    assert init.he_normal()(KEY, (5, 6), np.float16).dtype == np.float16


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: nn.dropout(KEY, np.ones(3), 1.5), "between 0 and 1"),
        (lambda: nn.dropout(0, np.ones(3), 0.5), "xlc.random.key"),
        (lambda: nn.batch_norm(np.ones((2, 3)), *[np.ones(4)] * 4), "each of the 3 channels"),
        (lambda: nn.batch_norm(np.ones(3), *[np.ones(3)] * 4), r"\(batch, ..., channels\)"),
        (lambda: nn.group_norm(np.ones((2, 6)), np.ones(6), np.ones(6), groups=4), "must divide"),
        (lambda: nn.embedding(np.ones((2, 3)), np.ones(2)), "integer ids"),
        (lambda: nn.embedding(np.ones((0, 3)), np.array([0])), "table"),
        (lambda: nn.lstm_cell(np.ones((2, 3)), np.ones((2, 4)), np.ones((7, 16)), np.ones(16)), "pair"),
        (lambda: nn.lstm_cell(np.ones((2, 3)), (np.ones((2, 4)),) * 2, np.ones((7, 12)), np.ones(12)), r"\(7, 16\)"),
        (lambda: nn.gru_cell(np.ones((2, 3)), np.ones((2, 4)), np.ones((6, 12)), np.ones(12)), r"\(7, 12\)"),
        (lambda: nn.sampled_softmax_loss(KEY, np.ones((9, 2)), np.ones(9), np.ones(3), np.ones((3, 2)), num_sampled=4), "integer labels"),
        (lambda: nn.init.he_normal()(KEY, (3,)), "in, out"),
        (lambda: nn.init.variance_scaling(1, "fan", "normal"), "fan_in"),
    ],
)
def test_mistakes_are_named(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(xlc.XlcError, match=text):
        call()


# ------------------------------------------------------------------------------------------------ PyTorch


def test_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    import torch.nn.functional as F

    T = torch.tensor
    x, scale, bias, mean, var = normal(5, 4, 3, 6), normal(6), normal(6), normal(6), rng.uniform(0.5, 2, 6)
    first = T(x).permute(0, 3, 1, 2)

    def last(t: Any) -> np.ndarray:
        return t.permute(0, 2, 3, 1).detach().numpy()

    running = T(mean).clone(), T(var).clone()
    y, m, v = nn.batch_norm(x, scale, bias, mean, var, eps=1e-3, training=True, momentum=0.3)
    np.testing.assert_allclose(y, last(F.batch_norm(first, *running, T(scale), T(bias), True, 0.3, 1e-3)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(m, running[0], rtol=1e-12)
    np.testing.assert_allclose(v, running[1], rtol=1e-12)
    grouped = F.group_norm(first, 3, T(scale), T(bias))
    np.testing.assert_allclose(nn.group_norm(x, scale, bias, groups=3), last(grouped), rtol=1e-9, atol=1e-12)

    x, labels = normal(9, 4, 6), rng.integers(1, 6, (4, 3))
    inputs, counts = np.array([9, 7, 8, 9]), np.array([3, 2, 0, 1])
    parameter = T(x, requires_grad=True)
    losses = F.ctc_loss(parameter.log_softmax(-1), T(labels), T(inputs), T(counts), reduction="none")
    losses.sum().backward()
    values, slope = xlc.value_and_grad(lambda x: nn.ctc_loss(nn.log_softmax(x), labels, inputs, counts).sum())(x)
    np.testing.assert_allclose(values, losses.sum().detach(), rtol=1e-12)
    np.testing.assert_allclose(slope, parameter.grad, rtol=1e-9, atol=1e-12)

    a, h, c = normal(3, 7), normal(3, 5), normal(3, 5)
    for cell in (torch.nn.LSTMCell(7, 5).double(), torch.nn.GRUCell(7, 5).double()):
        w_ih, w_hh, b_ih, b_hh = (p.detach().numpy() for p in cell.parameters())
        w = np.concatenate([w_ih.T, w_hh.T])
        if isinstance(cell, torch.nn.GRUCell):
            np.testing.assert_allclose(nn.gru_cell(a, h, w, np.stack([b_ih, b_hh])), cell(T(a), T(h)).detach(), rtol=1e-10)
        else:
            for ours, theirs in zip(nn.lstm_cell(a, (h, c), w, b_ih + b_hh), cell(T(a), (T(h), T(c))), strict=True):
                np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-10)
