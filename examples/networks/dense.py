"""Regressions and fully connected networks.

``line``, ``linear`` and ``curve`` are functions of a dictionary of parameters, which ``examples/regression.py`` trains on real data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xlc import optim
from xlc.nn.init import normal, truncated_normal, zeros

from .classifier import classifier
from .network import Network, register
from .supervised import supervised

POINTS_X = [3.3, 4.4, 5.5, 6.71, 6.93, 4.168, 9.779, 6.182, 7.59, 2.167, 7.042, 10.791, 5.313, 7.997, 5.654, 9.27, 3.1]
POINTS_Y = [1.7, 2.76, 2.09, 3.19, 1.694, 1.573, 3.366, 2.596, 2.53, 1.221, 2.827, 3.465, 1.65, 2.904, 2.42, 2.94, 1.3]


def line(p: Any, x: Any) -> Any:
    return x * p["w"] + p["b"]


def linear(p: Any, x: Any) -> Any:
    return x @ p["w"] + p["b"]


def curve(p: Any, x: Any, tanh: Callable[[Any], Any] = np.tanh) -> Any:
    """One input, ten hidden units, one output, tanh on both layers."""
    return tanh(tanh(x[:, None] @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])[:, 0]


# ------------------------------------------------------------------------------------------------ regressions


@register("line", parameters=2)
def one_line(full: bool) -> Network:
    """0.1 x + 0.2, from 0 and 0."""
    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.random(100).astype("f4")
        return x, 0.1 * x + np.float32(0.2)

    return supervised("line", functools.partial(_line, zeros), lambda nn, y, target: nn.mse(y, target), data, optimizer=optim.sgd(0.2))


@register("points", parameters=2)
def points(full: bool) -> Network:
    """The 17 points."""
    def cost(nn: Any, y: Any, target: Any) -> Any:
        return ((y - target) ** 2).sum() / (2 * len(POINTS_X))

    return supervised("points", functools.partial(_line, normal(1.0)), cost,
                      lambda rng: (np.array(POINTS_X, "f4"), np.array(POINTS_Y, "f4")), optimizer=optim.sgd(0.01))


def _line(init: Any, nn: Any, x: Any) -> Any:
    return line({name: nn.parameter("line", name, (), init) for name in "wb"}, x)


@register("parabola", parameters=31)
def parabola(full: bool) -> Network:
    """x**2 and noise, by 1-10-1."""
    def model(nn: Any, x: Any) -> Any:
        shapes = {"w1": (1, 10), "b1": (10,), "w2": (10, 1), "b2": (1,)}
        return curve({name: nn.parameter("curve", name, shape, normal(1.0) if name[0] == "w" else zeros) for name, shape in shapes.items()},
                     x, nn.tanh)

    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = np.linspace(-0.5, 0.5, 200).astype("f4")
        return x, x**2 + rng.normal(0, 0.02, 200).astype("f4")

    return supervised("parabola", model, lambda nn, y, target: nn.mse(y, target), data, optimizer=optim.sgd(0.1))


def _by_log(nn: Any, scores: Any, labels: Any) -> Any:
    return -(nn.one_hot(labels, 10, dtype=scores.dtype) * nn.log(nn.softmax(scores, -1))).sum(1).mean()


def _by_squares(nn: Any, scores: Any, labels: Any) -> Any:
    return nn.mse(nn.softmax(scores, -1), nn.one_hot(labels, 10, dtype=scores.dtype))


def softmax_regression(full: bool, name: str, batch: int, rate: float, init: Any = zeros, objective: Any = None) -> Network:
    """784-10; the rate is that of the texts, and at the small size one that shows in a dozen steps."""
    return classifier(name, lambda nn, x: nn.dense(nn.flatten(x), 10, init=init), (28, 28) if full else (8, 8), 10, batch if full else 16,
                      optimizer=optim.sgd(rate if full else 0.5), loss=objective)


for _name, _batch, _rate, _init, _objective in (
        ("softmax-regression-a", 100, 0.01, zeros, _by_log), ("softmax-regression-b", 128, 0.2, zeros, _by_squares),
        ("softmax-regression-c", 100, 0.5, zeros, _by_log), ("logistic-regression", 10_000, 0.5, truncated_normal(1.0), None),
        ("logistic-regression-sgd", 128, 0.5, truncated_normal(1.0), None)):
    register(_name, parameters=7850)(functools.partial(softmax_regression, name=_name, batch=_batch, rate=_rate, init=_init,
                                                       objective=_objective))


# ------------------------------------------------------------------------------------------------ several layers


@register("two-three-one", parameters=13)
def two_three_one(full: bool) -> Network:
    """Two inputs, three hidden units, one output, all of them relu; here it learns their sum."""
    def model(nn: Any, x: Any) -> Any:
        return nn.relu(nn.dense(nn.relu(nn.dense(x, 3, init=normal(1.0))), 1, init=normal(1.0)))[:, 0]

    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([[[0.7, 0.9]], rng.random((15, 2))]).astype("f4")
        return x, x.sum(1)

    return supervised("two-three-one", model, lambda nn, y, target: nn.mse(y, target), data, optimizer=optim.adam(0.05))


def perceptron(hidden: tuple[int, ...], classes: int = 10, init: Any = None, keep: Callable[[int], float] = lambda layer: 1.0) -> Any:
    """Layers of relu and a linear one; after hidden layer i, dropout that keeps ``keep(i)``."""
    def model(nn: Any, x: Any) -> Any:
        x = nn.flatten(x)
        for k, n in enumerate(hidden):
            x = nn.relu(nn.dense(x, n, init=init))
            x = x if keep(k) == 1 else nn.dropout(x, 1 - keep(k))
        return nn.dense(x, classes, init=init)

    return model


def _on_digits(name: str, full: bool, model: Any, batch: int = 100, **options: Any) -> Network:
    return classifier(name, model, (28, 28) if full else (8, 8), 10, batch if full else 16, **options)


@register("mlp", parameters=397_510)
def mlp(full: bool) -> Network:
    """784-500-10."""
    return _on_digits("mlp", full, perceptron((500 if full else 32,), init=truncated_normal(0.1)),
                      optimizer=optim.sgd(0.01 if full else 0.1))


@register("mlp-tflearn", parameters=101 * 64 + 65 * 10)
def mlp_tflearn(full: bool) -> Network:
    """100 numbers, one hidden layer of 64, ten classes."""
    return classifier("mlp-tflearn", perceptron((64 if full else 16,)), (100,) if full else (20,), 10, 100 if full else 16,
                      optimizer=optim.sgd(0.1))


@register("mlp-best-practice", parameters=397_510)
def best_practice(full: bool) -> Network:
    """784-500-10 with a decaying rate, L2 of 1e-4, and an average of the weights for inference, which is part of the state."""
    optimizer = optim.sgd(optim.exponential(0.8 if full else 0.1, 0.99, 600))
    net = _on_digits("mlp-best-practice", full, perceptron((500 if full else 32,), init=truncated_normal(0.1)), l2=1e-4,
                     optimizer=optimizer)
    average = optim.ema(0.99)

    def init(key: Any) -> Any:
        params, _ = net.init(key)
        return params, {"ema": average.init(params)}

    def step(params: Any, state: Any, memory: Any, key: Any, *batch: Any) -> Any:
        done = memory["step"]
        params, _, memory, value = net.train(params, {}, memory, key, *batch)
        return params, {"ema": average.update(state["ema"], params, num_updates=done)}, memory, value

    return replace(net, init=init, step=step, apply=lambda params, state, x: net.apply(average.weights(state["ema"], params), {}, x))


@register("mlp-1024", parameters=785 * 1024 + 1025 * 10)
def mlp_1024(full: bool) -> Network:
    """784-1024-10 with L2, dropout of one half and a decaying rate."""
    return _on_digits("mlp-1024", full, perceptron((1024 if full else 32,), keep=lambda layer: 0.5), batch=128, l2=1e-3,
                      optimizer=optim.sgd(optim.exponential(0.1, 0.95, 1000)))


@register("mlp-deep")
def deep(full: bool) -> Network:
    """Six hidden layers, each half of the one before, at least 2; the first are dropped most."""
    layers, first = 6, 1024 if full else 256
    model = perceptron(tuple(max(first >> k, 2) for k in range(layers)), keep=lambda k: 0.5 + 0.5 * k / (layers + 1))
    return _on_digits("mlp-deep", full, model, batch=128, l2=1e-3,
                      optimizer=optim.adam(optim.exponential(1e-3 if full else 1e-2, 0.95, 1000)))


@register("intervals")
def intervals(full: bool) -> Network:
    """How many of two numbers in [-1, 1] lie in [-0.5, 0.5]?"""
    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.uniform(-1, 1, (100, 2)).astype("f4")
        return x, (np.abs(x) <= 0.5).sum(1)

    return classifier("intervals", perceptron((20, 20), 3), (2,), 3, 100, batch_of=data, optimizer=optim.adam(0.02))


@register("iris", parameters=50 + 220 + 210 + 33)
def iris(full: bool) -> Network:
    """Hidden layers of 10, 20, 10, on the real flowers."""
    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_iris

        x, y = load_iris(return_X_y=True)
        return ((x - x.mean(0)) / x.std(0)).astype("f4"), y

    return classifier("iris", perceptron((10, 20, 10), 3), (4,), 3, 150, batch_of=data, optimizer=optim.adam(0.02))
