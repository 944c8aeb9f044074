"""A small GPT: a decoder of transformer blocks, trained on whole sequences, and run one token at a time with the keys and values kept.

    net = network("gpt")
    ids = generate(params, prompt, 100)                 greedy; with a key, drawn
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import constant, normal, zeros

from .layers import Layers
from .network import Network, register
from .recurrent import clipped, embedded, text
from .supervised import supervised


@dataclass(frozen=True)
class GPT:
    """The shape of a model, and the model. A. Radford et al., Language Models are Unsupervised Multitask Learners, 2019: normalisation
    before each part, learnt positions, the table of the embedding also as the weights of the output."""

    vocabulary: int
    width: int
    heads: int
    blocks: int
    context: int

    def __call__(self, nn: Any, ids: Any, cache: Any = None, start: Any = 0) -> Any:
        """ids (batch, T) -> logits (batch, T, vocabulary). With a cache the ids are those at the positions from ``start``, which also see
        what the cache holds of the positions before; and (logits, cache) is given."""
        positions = nn.arange(ids.shape[1]) + start
        x = embedded(nn, ids, self.vocabulary, self.width, normal(0.02))
        x = x + embedded(nn, positions, self.context, self.width, normal(0.02), "position")
        after = []
        for k in range(self.blocks):
            y, kept = self.attend(nn, f"block{k}.attention", norm(nn, f"block{k}.norm1", x), cache and cache[k], positions)
            x = x + y
            x = x + self.perceive(nn, f"block{k}", norm(nn, f"block{k}.norm2", x))
            after.append(kept)
        logits = norm(nn, "norm", x) @ nn.parameter("embedding", "w", (self.vocabulary, self.width), normal(0.02)).T
        return logits if cache is None else (logits, after)

    def attend(self, nn: Any, layer: str, x: Any, cache: Any, positions: Any) -> tuple[Any, Any]:
        batch, time, width = x.shape
        qkv = linear(nn, layer, x, 3 * width)
        q, k, v = (qkv[..., n * width:(n + 1) * width].reshape(batch, time, self.heads, width // self.heads) for n in range(3))
        mask = None
        if cache is not None:  # positions first, so that rows are replaced
            cache = {name: nn.at(cache[name], positions).set(nn.moveaxis(rows, 1, 0)) for name, rows in (("k", k), ("v", v))}
            k, v = (nn.moveaxis(cache[name], 0, 1) for name in "kv")
            mask = nn.arange(self.context) <= positions[:, None]
        y = nn.attention(*(nn.moveaxis(a, 1, 2) for a in (q, k, v)), mask=mask, causal=cache is None)
        return linear(nn, f"{layer}.out", nn.moveaxis(y, 2, 1).reshape(batch, time, width), width, self.branch), cache

    def perceive(self, nn: Any, layer: str, x: Any) -> Any:
        hidden = nn.gelu(linear(nn, f"{layer}.up", x, 4 * self.width), approximate=True)
        return linear(nn, f"{layer}.down", hidden, self.width, self.branch)

    @property
    def branch(self) -> Any:
        """The values of what is added to the residual stream: smaller, the more is added."""
        return normal(0.02 / math.sqrt(2 * self.blocks))

    def empty(self, batch: int, dtype: Any = np.float32) -> list[dict[str, Any]]:
        """A cache that holds nothing."""
        shape = (self.context, batch, self.heads, self.width // self.heads)
        return [{name: xlc.numpy.zeros(shape, dtype) for name in "kv"} for _ in range(self.blocks)]

    def generate(self, params: Any, prompt: Any, length: int, key: Any = None) -> Any:
        """prompt (batch, T) -> (batch, length) further tokens: the most likely, or with a key drawn. The prompt is read at once; then each
        token is one iteration of a loop, which reads the weights and the cache."""
        def choose(logits: Any, position: Any) -> Any:
            return logits.argmax(-1) if key is None else xlc.random.categorical(xlc.random.fold_in(key, position), logits)

        batch, time = prompt.shape
        logits, cache = self(Layers(params), prompt, self.empty(batch, params["embedding"]["w"].dtype))
        first = choose(logits[:, -1], time - 1)

        def step(carry: Any, position: Any) -> Any:
            token, cache = carry
            logits, cache = self(Layers(params), token[:, None], cache, position)
            following = choose(logits[:, 0], position)
            return (following, cache), following

        _, rest = xlc.scan(step, (first, cache), xlc.numpy.arange(time, time + length - 1))
        return xlc.numpy.concatenate([first[:, None], rest.T], axis=1)


def linear(nn: Any, layer: str, x: Any, features: int, init: Any = None) -> Any:
    return x @ nn.parameter(layer, "w", (x.shape[-1], features), init or normal(0.02)) + nn.parameter(layer, "b", (features,), zeros)


def norm(nn: Any, layer: str, x: Any) -> Any:
    shape = (x.shape[-1],)
    return nn.layer_norm(x, nn.parameter(layer, "scale", shape, constant(1)), nn.parameter(layer, "bias", shape, zeros))


def model(full: bool) -> GPT:
    return GPT(65, 384, 6, 6, 256) if full else GPT(17, 24, 2, 2, 16)


@register("gpt", parameters=65 * 384 + 256 * 384 + 6 * (12 * 384 * 384 + 13 * 384) + 2 * 384)
def gpt(full: bool) -> Network:
    """A GPT of characters: six blocks of width 384, six heads, 256 positions; 10.8 M parameters."""
    return trained(model(full), 8 if full else 3, 1e-3 if full else 1e-2)


def trained(shape: GPT, batch: int, rate: float = 3e-3) -> Network:
    """A model of this shape, by AdamW with a clipped gradient."""
    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ids, labels = text(rng, shape.vocabulary, shape.context, batch)
        return ids.T.copy(), labels.T.copy()

    return supervised("gpt", shape, lambda nn, logits, labels: nn.cross_entropy(logits, labels).mean(), data,
                      optimizer=clipped(1.0, xlc.optim.adamw(rate, weight_decay=0.1)))
