"""Regressions, from a straight line to classes, each with the data, the rate and the number of steps of the text it comes from.

    python examples/regression.py [--smoke]          all of it takes a few seconds, so the smoke test is the whole

Real data: scikit-learn's diabetes, breast cancer and iris sets; the 17 points of a classic introduction to gradient descent. The others are
made of noise. Every program states what it must reach, and is told when it does not.
"""

from __future__ import annotations

import numpy as np
from networks.dense import POINTS_X, POINTS_Y, curve, line, linear
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

import xlc
from xlc import optim, train


def squared(f):
    return lambda p, x, y: ((f(p, x) - y) ** 2).mean()


def learn(name: str, loss, params, data, optimizer, epochs: int, quality, target: float):
    """Train, and hold what was reached against the target; ``quality(params)`` is at least 0, and small is good."""
    step = xlc.jit(train.step(loss, optimizer), donate="state", dynamic={"batch": {0: "rows"}})
    run = train.fit(step, train.start(params, optimizer), data, epochs=epochs)
    reached = float(quality(run.state["params"]))
    print(f"{name:32} {run.step:6} steps  {step.compiles} compilation  reached {reached:.4f}  target {target}")
    assert reached <= target, f"{name}: {reached} is more than {target}"
    return run.state["params"]


def line_of_noise(rng) -> None:
    x = rng.random(100).astype("f4")
    p = {"w": np.float32(0), "b": np.float32(0)}
    learn("line 0.1 x + 0.2", squared(line), p, [(x, 0.1 * x + 0.2)], optim.sgd(0.2), 201,
          lambda p: max(abs(p["w"] - 0.1), abs(p["b"] - 0.2)), 0.01)


def seventeen_points(rng) -> None:
    """One sample per step, in order: 34,000 steps, which end near the line of least squares."""
    x, y = np.array(POINTS_X, "f4"), np.array(POINTS_Y, "f4")

    def cost(p, x, y):
        return ((line(p, x) - y) ** 2).sum() / (2 * len(POINTS_X))

    slope, offset = np.polyfit(x, y, 1)
    best = cost({"w": slope, "b": offset}, x, y)
    p = {"w": rng.standard_normal((), "f4"), "b": rng.standard_normal((), "f4")}
    learn("17 points, cost over the best", cost, p, train.Batches((x, y), 1), optim.sgd(0.01), 2000,
          lambda p: cost(p, x, y) / best - 1, 0.1)


def parabola(rng) -> None:
    x = np.linspace(-0.5, 0.5, 200).astype("f4")
    y = x**2 + rng.normal(0, 0.02, 200).astype("f4")
    p = {"w1": rng.standard_normal((1, 10), "f4"), "b1": np.zeros(10, "f4"), "w2": rng.standard_normal((10, 1), "f4"),
         "b2": np.zeros(1, "f4")}
    learn("parabola, mean squared error", squared(curve), p, [(x, y)], optim.sgd(0.1), 2000, lambda p: squared(curve)(p, x, y), 0.002)


def diabetes(rng) -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = (x / x.std(0)).astype("f4"), ((y - y.mean()) / y.std()).astype("f4")
    exact = np.linalg.lstsq(x, y, rcond=None)[1][0] / len(y)
    p = {"w": np.zeros(10, "f4"), "b": np.float32(0)}
    learn("diabetes, error over the best", squared(linear), p, train.Batches((x, y), 64, seed=0),
          optim.adam(optim.exponential(0.02, 0.97, 7)), 100, lambda p: squared(linear)(p, x, y) / exact - 1, 0.01)


def split(load, rng):
    x, y = load(return_X_y=True)
    order = rng.permutation(len(x))
    x = ((x - x.mean(0)) / x.std(0)).astype("f4")[order]
    return x, y[order], len(x) * 3 // 4


def breast_cancer(rng) -> None:
    x, y, n = split(load_breast_cancer, rng)
    p = {"w": np.zeros(30, "f4"), "b": np.float32(0)}
    learn("breast cancer, test errors", lambda p, x, y: xlc.nn.sigmoid_cross_entropy(linear(p, x), y).mean(), p,
          train.Batches((x[:n], y[:n].astype("f4")), 32, seed=0), optim.momentum(0.1, 0.9), 30,
          lambda p: ((linear(p, x[n:]) > 0) != y[n:]).mean(), 0.05)


def iris(rng) -> None:
    x, y, n = split(load_iris, rng)
    p = {"w": np.zeros((4, 3), "f4"), "b": np.zeros(3, "f4")}
    learn("iris, test errors", lambda p, x, y: xlc.nn.cross_entropy(linear(p, x), y).mean(), p, train.Batches((x[:n], y[:n]), 16, seed=0),
          optim.chain(optim.weight_decay(1e-3), optim.sgd(0.5)), 60, lambda p: (linear(p, x[n:]).argmax(1) != y[n:]).mean(), 0.06)


if __name__ == "__main__":
    for program in (line_of_noise, seventeen_points, parabola, diabetes, breast_cancer, iris):
        program(np.random.default_rng(0))
