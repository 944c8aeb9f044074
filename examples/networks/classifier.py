"""Networks that tell classes apart: a function of images that gives scores, trained by cross-entropy.

    classifier("lenet5", lenet5, image=(32, 32, 1), classes=10, batch=100)       ->     Network
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import xlc

from . import layers
from .layers import Layers
from .network import Network


def classifier(name: str, model: Callable[..., Any], image: Sequence[int], classes: int, batch: int, *, optimizer: Any = None, l2: float = 0,
               decayed: Callable[[str], bool] = lambda layer: True, loss: Callable[..., Any] | None = None,
               answer: Callable[..., Any] = lambda nn, scores: scores, batch_of: Callable[..., Any] | None = None) -> Network:
    """A network ``model(layers, images) -> scores (batch, classes)``.

    l2        weight of the sum of squares / 2 of the matrices of those layers that ``decayed(name)`` accepts
    loss      (layers, scores, labels) -> number, in place of the mean cross-entropy
    answer    (layers, scores) -> what inference gives, in place of the scores
    batch_of  rng -> (images, labels), in place of ``patterns``"""
    x = xlc.spec((batch, *image), "f4")

    def measure(nn: Layers, scores: Any, labels: Any) -> Any:
        total = loss(nn, scores, labels) if loss else nn.cross_entropy(scores, labels).mean()
        penalties = [nn.l2_loss(p["w"]) for layer, p in nn.params.items() if l2 and "w" in p and decayed(layer)]
        return total + l2 * sum(penalties) if penalties else total

    def functions(f: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Inference and loss, with the functions of xlc (None) or of another library."""
        def apply(params: Any, state: Any, images: Any) -> Any:
            nn = Layers(params, state, f)
            return answer(nn, model(nn, images))

        def train(params: Any, state: Any, key: Any, images: Any, labels: Any) -> Any:
            nn = Layers(params, state, f, key)
            return measure(nn, model(nn, images), labels), nn.after

        return apply, train

    def reference() -> tuple[Callable[..., Any], Callable[..., Any]]:
        from . import torch_functions

        return functions(torch_functions)

    apply, train = functions(None)
    return Network(name, lambda key: layers.init(model, key, x), apply, train,
                   batch_of or (lambda rng: patterns(rng, image, classes, batch)), reference, lambda: layers.shapes(model, x),
                   optimizer=optimizer or xlc.optim.adam(1e-3), using=functions)


def patterns(rng: np.random.Generator, image: Sequence[int], classes: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that can be told apart: each class is a coarse pattern that noise covers in part. (images f4, labels i8)"""
    coarse = tuple(-(-n // 4) for n in image[:2]) + tuple(image[2:])
    labels = rng.integers(0, classes, batch)
    shapes = np.stack([np.random.default_rng(k).normal(size=coarse) for k in labels])
    for axis, n in enumerate(image[:2], 1):
        shapes = shapes.repeat(4, axis).take(range(n), axis)
    return (shapes + rng.normal(0, 0.5, shapes.shape)).astype("f4"), labels
