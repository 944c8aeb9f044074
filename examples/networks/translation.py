"""Sequence to sequence with attention: an encoder, a decoder that looks at what the encoder has read, and two ways to let it write.

    net = network("seq2seq")                                 trained with the right words before each word (teacher forcing)
    ids, scores = model.greedy(params, source, 20)           the most likely word, again and again, until all have ended
    ids, scores = model.beam(params, source, 20, 5)          the best five beginnings are kept

The task is to write words backwards. Sequences lie with time first, (T, batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import uniform, zeros

from .layers import Layers
from .network import Network, register
from .recurrent import clipped, embedded, lstm
from .supervised import supervised

PAD, GO, EOS, LETTER = 0, 1, 2, 3  # the first letter is 3
NEVER = -1e30  # less than every sum of logarithms of probabilities


@dataclass(frozen=True)
class Translator:
    """Stacks of LSTM layers, and attention of the decoder's outputs to the encoder's. I. Sutskever et al., arXiv:1409.3215; M.-T. Luong
    et al., arXiv:1508.04025 (dot, without input feeding)."""

    vocabulary: int
    width: int
    layers: int

    def __call__(self, nn: Any, source: Any, words: Any) -> Any:
        """source (S, batch), the words before each word (T, batch) -> logits (T, batch, vocabulary)."""
        states, memory, seen = self.encode(nn, source)
        return self.decode(nn, words, states, memory, seen)[0]

    def stack(self, nn: Any, name: str, ids: Any, states: Any) -> tuple[list[Any], Any]:
        x, after = embedded(nn, ids, self.vocabulary, self.width, layer=f"{name}.embedding"), []
        for k in range(self.layers):
            state, x = lstm(nn, f"{name}.lstm{k}", x, self.width, state=states and states[k], init=uniform(-0.08, 0.08))
            after.append(state)
        return after, x

    def encode(self, nn: Any, source: Any) -> tuple[list[Any], Any, Any]:
        """The last states, the outputs (batch, S, width), and where there are words (batch, 1, S). Padding comes first, so that the last
        state is that after the last word."""
        states, y = self.stack(nn, "encoder", source, None)
        return states, nn.moveaxis(y, 0, 1), (source != PAD).T[:, None]

    def decode(self, nn: Any, words: Any, states: Any, memory: Any, seen: Any) -> tuple[Any, list[Any]]:
        """The logits of what follows each word, and the states after."""
        states, y = self.stack(nn, "decoder", words, states)
        query = nn.moveaxis(y, 0, 1)
        found = nn.concatenate([query, nn.attention(query, memory, memory, mask=seen)], axis=-1)
        mixed = nn.tanh(found @ nn.parameter("mix", "w", (2 * self.width, self.width), uniform(-0.08, 0.08)))
        logits = mixed @ nn.parameter("out", "w", (self.width, self.vocabulary), uniform(-0.08, 0.08))
        return nn.moveaxis(logits + nn.parameter("out", "b", (self.vocabulary,), zeros), 0, 1), states

    def greedy(self, params: Any, source: Any, length: int) -> tuple[Any, Any]:
        """source (S, batch) -> the words written (batch, length), after whose end comes padding, and the logarithm of their probability."""
        ids, scores = self.beam(params, source, length, 1)
        return ids[:, 0], scores[:, 0]

    def beam(self, params: Any, source: Any, length: int, beams: int) -> tuple[Any, Any]:
        """source (S, batch) -> the best words (batch, beams, length), the best first, and the logarithms of their probabilities.

        A loop until every beam has ended: each beam is continued by every word, and the best continuations are the new beams."""
        np = xlc.numpy
        batch, vocabulary = source.shape[1], self.vocabulary
        states, memory, seen = self.encode(Layers(params), source)
        states, memory, seen = xlc.tree.map(lambda a: np.repeat(a, beams, axis=0), (states, memory, seen))
        ended = np.where(np.arange(vocabulary) == PAD, 0, NEVER)  # what has ended is padded, at no cost

        def going(carry: Any) -> Any:
            t, words, *_ = carry
            return (t < length) & ~_over(words).all()

        def step(carry: Any) -> Any:
            t, words, ids, scores, states = carry
            logits, states = self.decode(Layers(params), words.reshape(1, -1), states, memory, seen)
            ways = xlc.nn.log_softmax(logits[0]).reshape(batch, beams, vocabulary)
            ways = np.where(_over(words)[:, :, None], ended.astype(ways.dtype), ways)
            scores, best = np.top_k((scores[:, :, None] + ways).reshape(batch, -1), beams)
            parent, words = best // vocabulary, best % vocabulary
            rows = (parent + np.arange(batch)[:, None] * beams).reshape(-1)
            ids = np.take_along_axis(ids, parent[:, :, None], axis=1)
            ids = np.where(np.arange(length) == t, words[:, :, None], ids)
            return t + 1, words, ids, scores, xlc.tree.map(lambda a: a[rows], states)

        first = np.where(np.arange(beams) == 0, 0, NEVER).astype(memory.dtype)  # beams begin alike: all but one are out of the race
        start = (0, np.full((batch, beams), GO, np.int64), np.zeros((batch, beams, length), np.int64),
                 np.broadcast_to(first, (batch, beams)), states)
        _, _, ids, scores, _ = xlc.while_loop(going, step, start)
        return ids, scores


def _over(words: Any) -> Any:
    return (words == EOS) | (words == PAD)


def reversal(rng: np.random.Generator, letters: int, longest: int, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words padded in front (longest, batch); GO and the words backwards; the words backwards and EOS, both (longest + 1, batch)."""
    source, before, after = (np.full((longest + k, batch), PAD) for k in (0, 1, 1))
    for b, n in enumerate(rng.integers(1, longest + 1, batch)):
        word = rng.integers(LETTER, LETTER + letters, n)
        source[longest - n:, b] = word
        before[:n + 1, b] = [GO, *word[::-1]]
        after[:n + 1, b] = [*word[::-1], EOS]
    return source, before, after


def model(full: bool) -> Translator:
    return Translator(LETTER + 26, 256, 4) if full else Translator(LETTER + 4, 16, 2)


@register("seq2seq")
def seq2seq(full: bool) -> Network:
    """Four layers of 256, words of up to 20 letters."""
    return trained(model(full), 20 if full else 4, 64 if full else 16, 1e-3 if full else 1e-2)


def trained(translator: Translator, longest: int, batch: int, rate: float = 5e-3) -> Network:
    """Words of up to ``longest`` letters, backwards; by Adam with a clipped gradient."""
    def cost(nn: Any, logits: Any, labels: Any) -> Any:
        written = labels != PAD
        return nn.where(written, nn.cross_entropy(logits, labels), 0.0).sum() / written.sum()

    return supervised("seq2seq", translator, cost, lambda rng: reversal(rng, translator.vocabulary - LETTER, longest, batch), inputs=2,
                      optimizer=clipped(5.0, xlc.optim.adam(rate)))
