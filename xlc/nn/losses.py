"""Losses beside the cross-entropies of ``functions``: squares, distances of distributions, sampled softmax.

    mse(y, target)                                                         the mean of (y - target)**2, a scalar
    sampled_softmax_loss(key, w, b, labels, x, num_sampled=64).mean()      cross-entropy over the labels and 64 random classes
"""

from __future__ import annotations

import math
from typing import Any

from .. import numpy as np
from .. import random
from ..errors import XlcTypeError, XlcValueError
from ..frontend.axes import integer
from ..frontend.elementwise import show_shape
from .functions import _arrays, _public


@_public
def mse(y: Any, target: Any) -> Any:
    """The mean squared error, over all elements."""
    a, b = _arrays(y, target)
    return np.mean(np.square(a - b))


@_public
def l1_loss(x: Any) -> Any:
    """sum(|x|); its gradient is sign(x), 0 at 0."""
    return np.sum(np.abs(*_arrays(x)))


@_public
def l2_loss(x: Any) -> Any:
    """sum(x**2) / 2, as TensorFlow's: the gradient is x."""
    return np.sum(np.square(*_arrays(x))) / 2


@_public
def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """-sum(labels * log(softmax(logits))) along the last axis: labels are probabilities (..., classes). For class numbers:
    cross_entropy."""
    from .functions import log_softmax

    x, p = _arrays(logits, labels)
    return -np.sum(p * log_softmax(x), axis=-1)


@_public
def kl_divergence(p: Any, q: Any) -> Any:
    """sum(p * (log(p) - log(q))) along the last axis, of probabilities; 0 where p is 0."""
    a, b = _arrays(p, q)
    some = a > 0
    safe = np.where(some, a, 1)
    return np.sum(np.where(some, a * (np.log(safe) - np.log(np.where(some, b, 1))), 0), axis=-1)


def _log_uniform(ids: Any, classes: Any) -> Any:
    """The probability of each class: (log(k + 2) - log(k + 1)) / log(classes + 1), in float64."""
    k = np.astype(ids, np.float64)
    return np.log1p(1 / (k + 1)) / np.log(np.astype(np.asarray(classes + 1), np.float64))


@_public
def log_uniform_candidates(key: Any, num_sampled: int, classes: Any) -> Any:
    """``num_sampled`` class numbers, int64, class k with probability log((k + 2) / (k + 1)) / log(classes + 1): Zipf's law, for classes
    that are sorted by falling frequency. They are drawn with replacement."""
    u = random.uniform(key, shape=(integer(num_sampled, "num_sampled"),), dtype=np.float64)
    most = np.asarray(classes)
    k = np.astype(np.expm1(u * np.log(np.astype(most + 1, np.float64))), np.int64)
    return np.minimum(k, most - 1)


@_public
def sampled_softmax_loss(key: Any, weights: Any, biases: Any, labels: Any, inputs: Any, *, num_sampled: int,
                         remove_accidental_hits: bool = True) -> Any:
    """An estimate of the cross-entropy of inputs @ weights.T + biases for training, one loss per row: the softmax runs over the labels and
    ``num_sampled`` classes that all rows share.

    weights (classes, features), biases (classes), labels (batch) or (batch, true) integers, inputs (batch, features). The classes are
    ``log_uniform_candidates``; from each logit the logarithm of the expected number of its class among them is subtracted. A sampled
    class that is a label of the row is left out of the row (``remove_accidental_hits``). With several labels each counts equally. As
    TensorFlow's, but for sampling with replacement. S. Jean et al., arXiv:1412.2007."""
    w, b, x = _arrays(weights, biases, inputs)
    y = np.asarray(labels)
    if y.dtype.kind not in "iu":
        raise XlcTypeError(f"sampled_softmax_loss expects integer labels, found {y.node.type}")
    y = y[:, None] if y.ndim == 1 else y
    if w.ndim != 2 or b.node.shape != w.node.shape[:1] or x.ndim != 2 or x.node.shape[1] != w.node.shape[1] or y.ndim != 2 \
            or y.node.shape[0] != x.node.shape[0]:
        shapes = ", ".join(show_shape(t.node.shape) for t in (w, b, y, x))
        raise XlcValueError("sampled_softmax_loss expects weights (classes, features), biases (classes,), labels (batch,) or (batch, true) "
                            f"and inputs (batch, features), found {shapes}")
    classes = w.shape[0]
    sampled = log_uniform_candidates(key, num_sampled, classes)

    def corrected(logits: Any, ids: Any) -> Any:
        return logits - np.astype(np.log(_log_uniform(ids, classes) * num_sampled), x.dtype)

    true = corrected(np.sum(x[:, None] * w[y], axis=-1) + b[y], y)
    others = corrected(x @ w[sampled].T + b[sampled], sampled)
    if remove_accidental_hits:
        others = np.where(np.any(y[:, :, None] == sampled, axis=1), -math.inf, others)
    return np.logsumexp(np.concatenate([true, others], axis=1), axis=1) - np.mean(true, axis=1)
