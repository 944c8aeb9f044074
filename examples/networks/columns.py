"""Columns of identifiers and of clusters: a linear model and Wide & Deep with sparse columns, k-means, and k-means beside a network.

    net = network("wide-and-deep")
    net.apply(params, {}, query, document)                  logits of a click, from any two 64-bit identifiers
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import normal, zeros

from .classifier import patterns
from .network import Network, register
from .recurrent import embedded
from .supervised import supervised

# ------------------------------------------------------------------------------------------------ a linear model


@register("linear-regressor", parameters=100_000 + 2 + 1)
def linear_regressor(full: bool) -> Network:
    """The price of a house: two real columns, square feet and rooms, and a sparse one, the zip code, of which a row looks one weight up;
    the gradient of the others is not touched."""
    codes, batch = (100_000, 100) if full else (50, 32)

    def model(nn: Any, square_foot: Any, num_rooms: Any, zip_code: Any) -> Any:
        real = nn.dense(nn.stack([square_foot, num_rooms], -1), 1, init=zeros)
        return (real + embedded(nn, zip_code, codes, 1, zeros, "zip_code"))[:, 0]

    def data(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Normalised columns; what a place is worth depends on its code."""
        square_foot, num_rooms = rng.standard_normal((2, batch), "f4")
        zip_code = rng.integers(0, codes, batch)
        price = 2 * square_foot - num_rooms + np.sin(zip_code) + 0.5
        return square_foot, num_rooms, zip_code, price.astype("f4")

    return supervised("linear-regressor", model, lambda nn, y, price: nn.mse(y, price), data, inputs=3, optimizer=xlc.optim.adagrad(0.3))


# ------------------------------------------------------------------------------------------------ wide and deep


def hashed(ids: Any, buckets: int) -> Any:
    """Identifiers, int64, scattered over buckets by multiplications that wrap around (the finaliser of MurmurHash3, on 32 bits each)."""
    h = ids * 0x2545F4914F6CDD1D
    h = (h ^ ((h >> 33) & 0x7FFFFFFF)) * 0x5851F42D4C957F2D
    return ((h >> 29) & 0x7FFFFFFF) % buckets


def crossed(a: Any, b: Any, buckets: int) -> Any:
    """Pairs of identifiers as one column."""
    return hashed(a * 0x9E3779B1 + b, buckets)


@register("wide-and-deep")
def wide_and_deep(full: bool) -> Network:
    """A linear model of the crossed column remembers, a network 500-200-100 on embeddings of 32 generalises; they are trained together.
    H.-T. Cheng et al., arXiv:1606.07792."""
    buckets, width, hidden, batch = (100_000, 32, (500, 200, 100), 128) if full else (60, 4, (16, 8, 6), 24)

    def model(nn: Any, query: Any, document: Any) -> Any:
        columns = {"query": hashed(query, buckets), "document": hashed(document, buckets), "both": crossed(query, document, buckets)}
        wide = sum(embedded(nn, ids, buckets, 1, zeros, f"wide.{name}") for name, ids in columns.items())
        x = nn.concatenate([embedded(nn, columns[name], buckets, width, normal(width**-0.5), f"deep.{name}")
                            for name in ("query", "document")], axis=-1)
        for n in hidden:
            x = nn.relu(nn.dense(x, n))
        return (wide + nn.dense(x, 1))[:, 0]

    def data(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Clicks that depend on the pair."""
        query, document = rng.integers(0, 20, (2, batch)) * 1_000_003
        return query, document, ((query + document) % 3 == 0).astype("f4")

    return supervised("wide-and-deep", model, lambda nn, y, click: nn.sigmoid_cross_entropy(y, click).mean(), data, inputs=2,
                      optimizer=xlc.optim.adagrad(0.05))


# ------------------------------------------------------------------------------------------------ k-means


def distances(centres: Any, x: Any) -> Any:
    """Squared, (rows, centres)."""
    return ((x[:, None] - centres) ** 2).sum(-1)


def moved(centres: Any, x: Any) -> Any:
    """Lloyd's step: each centre to the mean of the rows that are nearest to it; one without rows stays."""
    nearest = distances(centres, x).argmin(1)
    count = xlc.numpy.zeros(len(centres), x.dtype)
    total = xlc.numpy.at(xlc.numpy.zeros_like(centres), nearest).add(x)
    count = xlc.numpy.at(count, nearest).add(1)[:, None]
    return np.where(count > 0, total / np.maximum(count, 1), centres)


def fit(centres: Any, x: Any, limit: int = 100) -> tuple[Any, Any]:
    """Steps until no centre moves: (centres, how many steps)."""
    def going(carry: Any) -> Any:
        _, still, n = carry
        return still & (n < limit)

    def step(carry: Any) -> Any:
        centres, _, n = carry
        after = moved(centres, x)
        return after, (after != centres).any(), n + 1

    centres, _, n = xlc.while_loop(going, step, (centres, True, 0))
    return centres, n


def clusters(nn: Any, x: Any, count: int) -> Any:
    return distances(nn.parameter("clusters", "centres", (count, x.shape[-1]), normal(1.0)), x)


@register("k-means")
def k_means(full: bool) -> Network:
    """The distances to ten centres; the loss is the mean distance to the nearest, and a step is Lloyd's."""
    rows, features, count = (10_000, 64, 10) if full else (40, 16, 3)

    def step(params: Any, state: Any, memory: Any, key: Any, x: Any) -> Any:
        centres = params["clusters"]["centres"]
        return {"clusters": {"centres": moved(centres, x)}}, state, memory, distances(centres, x).min(1).mean()

    net = supervised("k-means", lambda nn, x: clusters(nn, x, count), lambda nn, d: _least(nn, d).mean(),
                     lambda rng: (patterns(rng, (features, 1), count, rows)[0][..., 0],))
    return replace(net, step=step)


@register("k-means-and-dnn")
def beside_a_network(full: bool) -> Network:
    """Two trainings in one step: the centres move as Lloyd says, and a network that sees the distances too follows its gradient."""
    rows, features, count, hidden = (1000, 64, 10, 128) if full else (40, 16, 3, 8)

    def model(nn: Any, x: Any) -> tuple[Any, Any]:
        d = clusters(nn, x, count)
        return nn.dense(nn.relu(nn.dense(nn.concatenate([x, nn.stop_gradient(d)], axis=1), hidden)), count), d

    def cost(nn: Any, y: Any, labels: Any) -> Any:
        return nn.cross_entropy(y[0], labels).mean() + _least(nn, y[1]).mean()

    def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x, labels = patterns(rng, (features, 1), count, rows)
        return x[..., 0], labels

    net = supervised("k-means-and-dnn", model, cost, data)

    def step(params: Any, state: Any, memory: Any, key: Any, x: Any, labels: Any) -> Any:
        (value, state), grads = xlc.value_and_grad(net.loss, has_aux=True)(params, state, key, x, labels)
        centres = moved(params["clusters"]["centres"], x)
        params, memory = net.optimizer.update(grads, memory, params)
        return {**params, "clusters": {"centres": centres}}, state, memory, value

    return replace(net, step=step)


def _least(nn: Any, d: Any) -> Any:
    return nn.amin(d, axis=1)
