"""Words as vectors: skip-gram and continuous bags of words, trained by sampled softmax.

    net = network("skip-gram")
    net.apply(params, {}, ids)                cosine similarities of these words to all: (batch, vocabulary)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import truncated_normal, uniform, zeros

from .network import Network, register
from .recurrent import embedded, text
from .supervised import supervised


def vectors(name: str, full: bool, window: int) -> Network:
    """T. Mikolov et al., arXiv:1301.3781: the word in the middle and ``window`` words around it, which are summed where there are several.
    50,000 words, sorted by falling frequency, in 128 dimensions; 64 random classes to a batch."""
    vocabulary, width, batch, sampled = (50_000, 128, 128, 64) if full else (50, 8, 16, 6)

    def model(nn: Any, ids: Any) -> Any:
        table = nn.parameter("embedding", "w", (vocabulary, width), uniform(-1, 1))
        found = embedded(nn, ids, vocabulary, width)
        found = found if window == 1 else found.sum(-2)
        return found if nn.training else unit(nn, found) @ unit(nn, table).T

    def cost(nn: Any, x: Any, labels: Any) -> Any:
        w = nn.parameter("softmax", "w", (vocabulary, width), truncated_normal(width**-0.5))
        return nn.sampled_softmax_loss(nn.key, w, nn.parameter("softmax", "b", (vocabulary,), zeros), labels, x, num_sampled=sampled).mean()

    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The words before one, and it."""
        ids, after = text(rng, vocabulary, window, batch)
        return (ids[0] if window == 1 else ids.T.copy()), after[-1]

    return supervised(name, model, cost, data, optimizer=xlc.optim.adagrad(1.0))


def unit(nn: Any, x: Any) -> Any:
    return x / nn.sqrt(nn.square(x).sum(-1)[..., None])


for _name, _window in (("skip-gram", 1), ("cbow", 4)):
    register(_name, parameters=2 * 50_000 * 128 + 50_000)(functools.partial(vectors, _name, window=_window))
