"""Recurrent networks: language models of characters, of pairs of characters and of words, by LSTM, GRU and their variants.

Sequences lie with time first, (T, batch, ...), as ``xlc.scan`` goes through them. The states at the end of a batch are where the next
batch goes on (truncated back-propagation through time): they are the network's state, which a step changes and no gradient does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import truncated_normal, uniform, zeros

from .network import Network, register
from .supervised import supervised

# ------------------------------------------------------------------------------------------------ layers


def lstm(nn: Any, layer: str, x: Any, hidden: int, *, state: Any = None, init: Any = None, present: Any = None, peephole: bool = False,
         coupled: bool = False) -> tuple[Any, Any]:
    """x (T, batch, in) and the state (h, c) before, zeros where it is None -> the state after, and h at all times. Where ``present``
    (T, batch) is false the state stays as it is."""
    init, gates = init or uniform(-0.05, 0.05), 3 if coupled else 4
    w = nn.parameter(layer, "w", (x.shape[-1] + hidden, gates * hidden), init)
    b = nn.parameter(layer, "b", (gates * hidden,), zeros)
    options = {"coupled": True} if coupled else {}
    if peephole:
        options["peephole"] = nn.parameter(layer, "peephole", (gates - 1, hidden), init)

    def step(state: Any, row: Any) -> Any:
        x, here = row
        h, c = nn.lstm_cell(x, state, w, b, **options)
        if here is not None:
            h, c = nn.where(here[:, None], h, state[0]), nn.where(here[:, None], c, state[1])
        return (h, c), h

    nothing = nn.zeros((x.shape[1], hidden), dtype=x.dtype)
    return nn.scan(step, (nothing, nothing) if state is None else state, (x, present))


def gru(nn: Any, layer: str, x: Any, hidden: int, *, state: Any = None, init: Any = None) -> tuple[Any, Any]:
    """x (T, batch, in) and the state h before -> the state after, and h at all times."""
    init = init or uniform(-0.05, 0.05)
    w = nn.parameter(layer, "w", (x.shape[-1] + hidden, 3 * hidden), init)
    b = nn.parameter(layer, "b", (2, 3 * hidden), zeros)

    def step(h: Any, x: Any) -> Any:
        h = nn.gru_cell(x, h, w, b)
        return h, h

    return nn.scan(step, nn.zeros((x.shape[1], hidden), dtype=x.dtype) if state is None else state, x)


def carried(nn: Any, layer: str, x: Any, hidden: int, **options: Any) -> Any:
    """An LSTM layer that begins where it stopped in the batch before."""
    shape = (x.shape[1], hidden)
    before = nn.kept(layer, "h", shape, zeros), nn.kept(layer, "c", shape, zeros)
    (h, c), y = lstm(nn, layer, x, hidden, state=before, **options)
    nn.after[layer] = {"h": nn.stop_gradient(h), "c": nn.stop_gradient(c)}
    return y


def embedded(nn: Any, ids: Any, vocabulary: int, width: int, init: Any = None, layer: str = "embedding") -> Any:
    return nn.embedding(nn.parameter(layer, "w", (vocabulary, width), init or uniform(-0.05, 0.05)), ids)


# ------------------------------------------------------------------------------------------------ language models


def language(name: str, model: Callable[..., Any], vocabulary: int, time: int, batch: int, **options: Any) -> Network:
    """The next symbol: ``model(layers, ids (T, batch)) -> logits (T, batch, vocabulary)``; the loss is the sum over time, mean over the
    batch."""
    def cost(nn: Any, logits: Any, labels: Any) -> Any:
        return nn.cross_entropy(logits, labels).sum() / labels.shape[1]

    return supervised(name, model, cost, lambda rng: text(rng, vocabulary, time, batch), **options)


def text(rng: np.random.Generator, vocabulary: int, time: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of which each, most of the time, determines the next: (T, batch), and the same one step later."""
    ids = np.empty((time + 1, batch), np.int64)
    ids[0] = rng.integers(0, vocabulary, batch)
    for t in range(time):
        ids[t + 1] = np.where(rng.random(batch) < 0.1, rng.integers(0, vocabulary, batch), (ids[t] * 7 + 3) % vocabulary)
    return ids[:-1], ids[1:]


def clipped(norm: float, optimizer: Any) -> Any:
    return xlc.optim.chain(xlc.optim.clip_by_global_norm(norm), optimizer)


@register("ptb-lstm", parameters=4_651_600)
def ptb(full: bool) -> Network:
    """The language model of words: two layers of 200, 35 steps, state carried over, dropout of one half. W. Zaremba et al.,
    arXiv:1409.2329."""
    vocabulary, width, batch, time = (10_000, 200, 20, 35) if full else (50, 16, 4, 6)

    def model(nn: Any, ids: Any) -> Any:
        x = nn.dropout(embedded(nn, ids, vocabulary, width), 0.5)
        for layer in ("lstm1", "lstm2"):
            x = nn.dropout(carried(nn, layer, x, width), 0.5)
        return nn.dense(x, vocabulary, init=uniform(-0.05, 0.05))

    return language("ptb-lstm", model, vocabulary, time, batch, optimizer=clipped(5.0, xlc.optim.sgd(1.0)))


@register("char-lstm", parameters=(27 + 64) * 256 + 256 + 64 * 27 + 27)
def characters(full: bool) -> Network:
    """One character after the other, one-hot, 27 of them: one layer of 64 whose four gates are one contraction, unrolled for 10 steps."""
    hidden, batch, time = (64, 64, 10) if full else (16, 4, 6)

    def model(nn: Any, ids: Any) -> Any:
        init = truncated_normal(0.1)
        symbols = nn.one_hot(ids, 27, dtype=nn.kept("lstm", "h", (ids.shape[1], hidden), zeros).dtype)
        return nn.dense(carried(nn, "lstm", symbols, hidden, init=init), 27, init=init)

    rate = xlc.optim.exponential(10.0 if full else 1.0, 0.1, 5000, staircase=True)
    return language("char-lstm", model, 27, time, batch, optimizer=clipped(1.25, xlc.optim.sgd(rate)))


@register("bigram-lstm")
def bigrams(full: bool) -> Network:
    """Pairs of characters, 27 * 27 of them, embedded, with dropout on what enters and leaves the cell."""
    vocabulary, width, hidden, batch, time = (729, 128, 64, 64, 10) if full else (49, 8, 16, 4, 6)

    def model(nn: Any, ids: Any) -> Any:
        init = truncated_normal(0.1)
        x = nn.dropout(embedded(nn, ids, vocabulary, width, uniform(-1, 1)), 0.5)
        return nn.dense(nn.dropout(carried(nn, "lstm", x, hidden, init=init), 0.5), vocabulary, init=init)

    return language("bigram-lstm", model, vocabulary, time, batch, optimizer=clipped(1.25, xlc.optim.adam(1e-2)))


def cell(layer: Callable[..., Any], full: bool, name: str) -> Network:
    """A language model of characters by one layer of another cell."""
    hidden, batch, time = (128, 32, 25) if full else (12, 3, 5)

    def model(nn: Any, ids: Any) -> Any:
        return nn.dense(layer(nn, "cell", embedded(nn, ids, 27, 32, uniform(-1, 1)), hidden, init=truncated_normal(0.1))[1], 27)

    return language(name, model, 27, time, batch, optimizer=xlc.optim.adam(1e-2))


CELLS: Sequence[tuple[str, Callable[..., Any]]] = (
    ("gru", gru), ("peephole-lstm", functools.partial(lstm, peephole=True)), ("coupled-lstm", functools.partial(lstm, coupled=True)),
    ("coupled-peephole-lstm", functools.partial(lstm, peephole=True, coupled=True)))
for _name, _layer in CELLS:
    register(_name)(functools.partial(cell, _layer, name=_name))
