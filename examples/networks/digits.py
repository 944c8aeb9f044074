"""Convolutional networks for small images: LeNet-5 and its descendants on MNIST, CIFAR, Chinese characters, a captcha."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import Initializer, constant, glorot_uniform, he_normal, normal, truncated_normal, zeros
from xlc.optim import adam, sgd

from .classifier import classifier
from .network import Network, register

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)


@register("lenet5", parameters=61_706)
def lenet5(full: bool) -> Network:
    """Y. LeCun et al., Proc. IEEE 86, 1998, with relu and maxima, and C3 connected to all of S2."""
    def model(nn: Any, x: Any) -> Any:
        for channels in (6, 16):
            x = nn.max_pool(nn.relu(nn.conv(x, channels, 5, padding="VALID")), 2)
        x = nn.flatten(x)
        for features in (120, 84) if full else (24, 16):
            x = nn.relu(nn.dense(x, features))
        return nn.dense(x, 10)

    return classifier("lenet5", model, (32, 32, 1), 10, 100 if full else 8, optimizer=xlc.optim.momentum(0.01, 0.9))


def convolutional(*channels: int, hidden: int, classes: int = 10, window: int = 5, padding: str = "SAME", init: Initializer | None = None,
                  bias: Initializer = zeros, activation: str = "relu", dropout: str = "", rectified: bool = False) -> Callable[..., Any]:
    """Convolutions, each with a maximum of 2x2 after it, then one hidden layer: the network of a hundred tutorials.

    dropout    "flat", "hidden", or none: where half of the values are dropped
    rectified  relu on the scores too"""
    def model(nn: Any, x: Any) -> Any:
        act = getattr(nn, activation)
        for c in channels:
            x = nn.max_pool(act(nn.conv(x, c, window, padding=padding, init=init)), 2, padding=padding)
        x = nn.flatten(x)
        x = nn.dropout(x, 0.5) if dropout == "flat" else x
        x = act(nn.dense(x, hidden, init=init, bias_init=bias))
        x = nn.dropout(x, 0.5) if dropout == "hidden" else x
        scores = nn.dense(x, classes, init=init, bias_init=bias)
        return nn.relu(scores) if rectified else scores

    return model


def _mnist(name: str, full: bool, hidden: int, *, batch: int = 100, l2: float = 0, optimizer: Any = None, **options: Any) -> Network:
    """32 and 64 channels on 28x28 pixels; the small one 8 and 16."""
    channels = (32, 64) if full else (8, 16)
    model = convolutional(*channels, hidden=hidden if full else 32, **options)
    return classifier(name, model, MNIST, 10, batch if full else 16, l2=l2, decayed=lambda layer: layer.startswith("dense"),
                      optimizer=optimizer or sgd(0.01))


@register("lenet", parameters=1_663_370)
def lenet(full: bool) -> Network:
    """LeNet-like: a hidden layer of 512 with dropout and L2."""
    return _mnist("lenet", full, 512, l2=5e-4, dropout="hidden", init=truncated_normal(0.1), bias=constant(0.1))


@register("mnist-learn", parameters=1_625_606)
def mnist_learn(full: bool) -> Network:
    return _mnist("mnist-learn", full, 500, dropout="hidden", init=glorot_uniform())


@register("mnist-tflearn", parameters=1_625_606)
def mnist_tflearn(full: bool) -> Network:
    return _mnist("mnist-tflearn", full, 500, l2=1e-3, dropout="hidden", init=glorot_uniform())


@register("mnist-keras", parameters=569_606)
def mnist_keras(full: bool) -> Network:
    return _mnist("mnist-keras", full, 500, batch=128, padding="VALID", dropout="flat", init=glorot_uniform())


@register("mnist-zeros", parameters=3_274_634)
def mnist_zeros(full: bool) -> Network:
    """A demonstration of a network that does not learn: from weights of zero no gradient reaches a layer, and relu on the scores stops
    the last one."""
    return _mnist("mnist-zeros", full, 1024, init=zeros, rectified=True, optimizer=adam(1e-4))


@register("notmnist")
def notmnist(full: bool) -> Network:
    """One channel, relu6, a rate that decays, dropout."""
    return _mnist("notmnist", full, 64, activation="relu6", init=truncated_normal(0.1), dropout="hidden",
                  optimizer=sgd(xlc.optim.exponential(0.05, 0.95, 1000)))


@register("cifar")
def cifar(full: bool) -> Network:
    """Three convolutions, dropout, a layer with ELU."""
    channels = (32, 64, 128) if full else (8, 16, 32)

    def model(nn: Any, x: Any) -> Any:
        init = normal(0.01) if full else he_normal()
        for c in channels:
            x = nn.max_pool(nn.relu(nn.conv(x, c, 3, init=init)), 2)
        x = nn.dropout(nn.flatten(x), 0.5)
        return nn.dense(nn.elu(nn.dense(x, 4 * channels[-1], init=init)), 10, init=init)

    return classifier("cifar", model, CIFAR, 10, 128 if full else 8)


@register("characters", parameters=61_544_491)
def characters(full: bool) -> Network:
    """3755 Chinese characters of 64x64 pixels, as in HWDB1.1; inference gives the three best classes."""
    classes, channels = 3755, (32, 64) if full else (4, 8)

    def model(nn: Any, x: Any) -> Any:
        for c in channels:
            x = nn.max_pool(nn.relu(nn.conv(x, c, 3)), 2, padding="SAME")
        return nn.dense(nn.flatten(x), classes)

    return classifier("characters", model, (64, 64, 1) if full else (16, 16, 1), classes, 128 if full else 8,
                      answer=lambda nn, scores: nn.top_k(nn.softmax(scores, -1), 3), optimizer=adam(1e-4 if full else 1e-2))


@register("captcha")
def captcha(full: bool) -> Network:
    """Ten characters side by side, each upright or flipped: ten heads of two classes, and one loss that sums theirs."""
    heads, hidden = (10, 512) if full else (3, 16)

    def model(nn: Any, x: Any) -> Any:
        channels = 32 if full else 4
        for window, padding in ((5, 2), (5, 2), (3, 2)):
            x = nn.avg_pool(nn.relu(nn.conv(x, channels, window, padding=padding)), 2, stride=1)
        x = nn.dense(nn.flatten(x), hidden)
        return nn.stack([nn.dense(x, 2) for _ in range(heads)], 1)

    def loss(nn: Any, scores: Any, labels: Any) -> Any:
        return nn.cross_entropy(scores, labels).sum(1).mean()

    def batch(rng: Any) -> Any:
        return captchas(rng, heads, 28 if full else 8, 8)

    return classifier("captcha", model, (28, 280, 1) if full else (8, 24, 1), 2, 8, loss=loss,
                      batch_of=batch, optimizer=adam(1e-4 if full else 1e-2))


def captchas(rng: Any, heads: int, size: int, batch: int) -> tuple[Any, Any]:
    """Rows of ``heads`` patterns, light at the top, that are flipped where the label is 1. (images, labels (batch, heads))"""
    glyphs = rng.normal(0, 0.5, (batch, heads, size, size)) + np.linspace(1, -1, size)[:, None]
    labels = rng.integers(0, 2, (batch, heads))
    images = np.where(labels[:, :, None, None] == 1, glyphs[:, :, ::-1], glyphs)
    return images.transpose(0, 2, 1, 3).reshape(batch, size, heads * size, 1).astype("f4"), labels
