"""Networks that tell classes apart: a function of images that gives scores, trained by cross-entropy.

    classifier("lenet5", lenet5, image=(32, 32, 1), classes=10, batch=100)       ->     Network
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .network import Network
from .supervised import supervised


def classifier(name: str, model: Callable[..., Any], image: Sequence[int], classes: int, batch: int, *, l2: float = 0,
               decayed: Callable[[str], bool] = lambda layer: True, loss: Callable[..., Any] | None = None,
               answer: Callable[..., Any] = lambda nn, scores: scores, batch_of: Callable[..., Any] | None = None,
               **options: Any) -> Network:
    """A network ``model(layers, images) -> scores (batch, classes)``.

    l2        weight of the sum of squares / 2 of the matrices of those layers that ``decayed(name)`` accepts
    loss      (layers, scores, labels) -> number, in place of the mean cross-entropy
    answer    (layers, scores) -> what inference gives, in place of the scores
    batch_of  rng -> (images, labels), in place of ``patterns``
    options   those of ``supervised``"""
    def outputs(nn: Any, images: Any) -> Any:
        scores = model(nn, images)
        return scores if nn.training else answer(nn, scores)

    def measure(nn: Any, scores: Any, labels: Any) -> Any:
        total = loss(nn, scores, labels) if loss else nn.cross_entropy(scores, labels).mean()
        penalties = [nn.l2_loss(p["w"]) for layer, p in nn.params.items() if l2 and "w" in p and decayed(layer)]
        return total + l2 * sum(penalties) if penalties else total

    return supervised(name, outputs, measure, batch_of or (lambda rng: patterns(rng, image, classes, batch)), **options)


def patterns(rng: np.random.Generator, image: Sequence[int], classes: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that can be told apart: each class is a coarse pattern that noise covers in part. (images f4, labels i8)"""
    coarse = tuple(-(-n // 4) for n in image[:2]) + tuple(image[2:])
    labels = rng.integers(0, classes, batch)
    shapes = np.stack([np.random.default_rng(k).normal(size=coarse) for k in labels])
    for axis, n in enumerate(image[:2], 1):
        shapes = shapes.repeat(4, axis).take(range(n), axis)
    return (shapes + rng.normal(0, 0.5, shapes.shape)).astype("f4"), labels
