"""Trainings, one for each network: how, and what must be reached on data that were not trained on.

    print(reach("lenet5"))        100 steps  accuracy  1   target >= 0.95  1 compilation;  .ok says whether the target is reached

Data are those of the network's ``batch``, drawn anew for every step and for the measure: real for iris and the 17 points, otherwise
synthetic, with the network's shapes. Inference is measured: no dropout, running averages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import xlc
from xlc import optim

from .network import Network, network

Measure = Callable[..., Any]  # (network, params, state, *batch) -> a number, traced


# ------------------------------------------------------------------------------------------------ what is measured


def accuracy(net: Network, params: Any, state: Any, *batch: Any) -> Any:
    """The part that is right, of a batch of classes."""
    return (net.apply(params, state, *batch[:net.inputs]).argmax(-1) == batch[-1]).mean()


def all_heads(net: Network, params: Any, state: Any, images: Any, labels: Any) -> Any:
    """The part whose every head is right."""
    return (net.apply(params, state, images).argmax(-1) == labels).all(-1).mean()


def best_of_three(net: Network, params: Any, state: Any, images: Any, labels: Any) -> Any:
    return (net.apply(params, state, images)[1][:, 0] == labels).mean()


def clicks(net: Network, params: Any, state: Any, *batch: Any) -> Any:
    return ((net.apply(params, state, *batch[:net.inputs]) > 0) == (batch[-1] > 0.5)).mean()


def beside(net: Network, params: Any, state: Any, x: Any, labels: Any) -> Any:
    return (net.apply(params, state, x)[0].argmax(-1) == labels).mean()


def loss(net: Network, params: Any, state: Any, *batch: Any) -> Any:
    return net.loss(params, state, None, *batch)[0]


def perplexity(net: Network, params: Any, state: Any, *batch: Any) -> Any:
    """Of the next symbol; that of a uniform guess is the size of the vocabulary."""
    return np.exp(xlc.nn.cross_entropy(net.apply(params, state, *batch[:net.inputs]), batch[-1]).mean())


def of_words(net: Network, params: Any, state: Any, ids: Any, labels: Any) -> Any:
    """Perplexity of the word that is looked for, among all words."""
    found = xlc.nn.embedding(params["embedding"]["w"], ids)
    found = found if found.ndim == 2 else found.sum(-2)
    return np.exp(xlc.nn.cross_entropy(found @ params["softmax"]["w"].T + params["softmax"]["b"], labels).mean())


def words(net: Network, params: Any, state: Any, source: Any, before: Any, after: Any) -> Any:
    """The part of the words that is right, given those before; padding does not count."""
    written = after != 0
    return ((net.apply(params, state, source, before).argmax(-1) == after) & written).sum() / written.sum()


# ------------------------------------------------------------------------------------------------ what must be reached


@dataclass(frozen=True)
class Training:
    """measure  of fresh batches; at least ``target``, or at most where ``least`` is false
    draws    batches of the network side by side in one step
    long     takes more than two or three seconds"""

    measure: Measure
    target: float
    steps: int
    draws: int = 1
    optimizer: Any = None
    least: bool = True
    long: bool = False


def classes(target: float, steps: int, draws: int, optimizer: Any = None, *, measure: Measure = accuracy, long: bool = False) -> Training:
    return Training(measure, target, steps, draws, optimizer, long=long)


def at_most(measure: Measure, target: float, steps: int, optimizer: Any = None) -> Training:
    return Training(measure, target, steps, optimizer=optimizer, least=False)


VGG = optim.adam(5e-4)
TRAININGS: dict[str, Training] = {
    "line": at_most(loss, 1e-5, 201), "points": at_most(loss, 0.1, 2000), "parabola": at_most(loss, 1e-3, 2000),
    "linear-regressor": at_most(loss, 0.01, 400), "two-three-one": at_most(loss, 1e-3, 300),
    "softmax-regression-a": classes(0.95, 200, 2), "softmax-regression-b": classes(0.95, 400, 2),
    "softmax-regression-c": classes(0.95, 200, 2), "logistic-regression": classes(0.85, 200, 2),
    "logistic-regression-sgd": classes(0.85, 200, 2), "mlp": classes(0.95, 200, 2), "mlp-tflearn": classes(0.95, 200, 2),
    "mlp-best-practice": classes(0.95, 200, 2), "mlp-1024": classes(0.95, 300, 2),
    "mlp-deep": classes(0.9, 600, 4, optim.adam(3e-3), long=True), "intervals": classes(0.9, 600, 1), "iris": classes(0.97, 200, 1),
    "lenet5": classes(0.95, 100, 4), "lenet": classes(0.95, 100, 2), "mnist-learn": classes(0.95, 100, 2),
    "mnist-tflearn": classes(0.95, 100, 2), "mnist-keras": classes(0.95, 150, 2), "notmnist": classes(0.95, 100, 2),
    "mnist-zeros": Training(accuracy, 0.25, 50, 2, least=False),  # it must not learn
    "cifar": classes(0.95, 100, 4),
    "characters": classes(0.9, 600, 16, optim.adam(3e-3), measure=best_of_three, long=True),  # of 3755
    "captcha": classes(0.95, 150, 4, measure=all_heads),
    "alexnet": classes(0.95, 200, 8, optim.adam(1e-3), long=True), "alexnet-17": classes(0.95, 400, 8, optim.adam(2e-4), long=True),
    # Warm-up and many images, as a class whose scores no image makes positive has no gradient.
    "nin": classes(0.95, 400, 16, optim.adam(optim.warmup(optim.cosine(2e-3, 400), 50)), long=True),
    "vgg-a": classes(0.9, 250, 8, VGG, long=True), "vgg-b": classes(0.9, 350, 8, VGG, long=True),
    "vgg-c": classes(0.9, 500, 8, VGG, long=True),
    "vgg-d": classes(0.9, 250, 8, VGG, long=True), "vgg-e": classes(0.9, 250, 8, VGG, long=True),
    "vgg16-17": classes(0.9, 250, 8, VGG, long=True),
    "googlenet": classes(0.95, 100, 8, optim.adam(2e-3), long=True), "googlenet-17": classes(0.95, 150, 8, optim.adam(2e-3), long=True),
    # 30 images: the last normalisations see one place of each, and the moments of three or four images say nothing.
    "inception-v3": classes(0.9, 200, 10, optim.adam(2e-3), long=True),
    "inception-resnet-v2": classes(0.9, 150, 10, optim.adam(2e-3), long=True),
    "resnet-cifar": classes(0.95, 60, 4, optim.adam(3e-3)), "resnet50": classes(0.9, 80, 8, optim.adam(2e-3)),
    "ptb-lstm": at_most(perplexity, 15, 3000, optim.adam(1e-2)),
    "char-lstm": at_most(perplexity, 3.5, 700), "bigram-lstm": at_most(perplexity, 5, 700), "gru": at_most(perplexity, 3, 500),
    "peephole-lstm": at_most(perplexity, 3, 500), "coupled-lstm": at_most(perplexity, 3, 500),
    "coupled-peephole-lstm": at_most(perplexity, 3, 500), "gpt": Training(perplexity, 2.2, 200, 4, least=False),
    "skip-gram": at_most(of_words, 8, 1000), "cbow": at_most(of_words, 12, 2000, optim.adam(3e-3)),
    "seq2seq": Training(words, 0.75, 1200), "wide-and-deep": Training(clicks, 0.85, 1000, optimizer=optim.adam(1e-2)),
    "video-qa": Training(accuracy, 0.95, 500, optimizer=optim.adam(1e-2)),
    "k-means": at_most(loss, 4.7, 20), "k-means-and-dnn": Training(beside, 0.9, 300),
}
"""At the small size."""
PUBLISHED: dict[str, Training] = {
    "lenet5": classes(0.95, 60, 1), "captcha": classes(0.9, 30, 2, optim.adam(1e-3), measure=all_heads),
    "alexnet-mnist": classes(0.95, 60, 1),  # weights as large as these are only tame in wide layers
}
"""At the published size. The networks that are in neither have programs of their own: ``train_gan`` and ``train_style``."""


@dataclass(frozen=True)
class Reached:
    value: float
    training: Training
    compiles: int

    @property
    def ok(self) -> bool:
        return self.value >= self.training.target if self.training.least else self.value <= self.training.target

    def __str__(self) -> str:
        how = self.training
        return (f"{how.steps:5} steps  {how.measure.__name__:14} {self.value:8.3g}   target {'>=' if how.least else '<='} {how.target:<5}  "
                f"{self.compiles} compilation")


def reach(name: str, full: bool = False, seed: int = 0) -> Reached:
    """Train a network as its line says, and measure it on ten fresh batches."""
    how, net, rng = (PUBLISHED if full else TRAININGS)[name], network(name, full), np.random.default_rng(seed)
    net = replace(net, optimizer=how.optimizer) if how.optimizer else net

    def batch() -> tuple[np.ndarray, ...]:
        first, *more = (net.batch(rng) for _ in range(how.draws))
        return tuple(map(np.concatenate, zip(first, *more, strict=True))) if more else first

    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(seed))
    for _ in range(how.steps):
        run, _ = step(run, *batch())
    measure = xlc.jit(lambda params, state, *batch: how.measure(net, params, state, *batch))
    return Reached(float(np.mean([measure(run["params"], run["state"], *batch()) for _ in range(10)])), how, step.compiles)
