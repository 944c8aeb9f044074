"""Two networks that play against each other: a generator of images from noise, and a discriminator of real images from made ones.

I. Goodfellow et al., arXiv:1406.2661; with the layers of A. Radford et al., arXiv:1511.06434, and real labels of 0.9 as T. Salimans et al.,
arXiv:1606.03498, smooth them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import xlc

from . import layers
from .layers import Functions, Layers
from .network import Network, register

REAL = 0.9


def generator(nn: Any, z: Any, size: int, width: int) -> Any:
    """Small and deep, then thrice twice the size and half the channels: (batch, size, size, 3) in [-1, 1]."""
    x = nn.dense(z, (size // 8) ** 2 * 4 * width).reshape(z.shape[0], size // 8, size // 8, 4 * width)
    x = nn.relu(nn.batch_norm(x))
    for channels in (2 * width, width):
        x = nn.relu(nn.batch_norm(nn.conv_transpose(x, channels, 4, stride=2, bias=False)))
    return nn.tanh(nn.conv_transpose(x, 3, 4, stride=2))


def discriminator(nn: Any, x: Any, width: int) -> Any:
    """A score for each image, high for real."""
    x = nn.leaky_relu(nn.conv(x, width, 4, stride=2), 0.2)
    for channels in (2 * width, 4 * width):
        x = nn.leaky_relu(nn.batch_norm(nn.conv(x, channels, 4, stride=2, bias=False)), 0.2)
    return nn.dense(nn.flatten(x), 1)[:, 0]


class Game:
    """Both losses, with the functions of xlc (None) or PyTorch's. Parameters and state are {"discriminator": ..., "generator": ...}."""

    def __init__(self, size: int, width: int, functions: Any = None):
        self.size, self.width, self.functions = size, width, functions or Functions()

    def make(self, params: Any, state: Any, key: Any, z: Any) -> tuple[Any, Any]:
        """Images, and the new state of the generator."""
        nn = Layers(params, state, self.functions, key)
        return generator(nn, z, self.size, self.width), nn.after

    def judge(self, params: Any, state: Any, key: Any, x: Any, label: float) -> tuple[Any, Any]:
        """The loss of the discriminator where the images should have the label, and its new state."""
        nn = Layers(params, state, self.functions, key)
        scores = discriminator(nn, x, self.width)
        return nn.sigmoid_cross_entropy(scores, nn.full_like(scores, label)).mean(), nn.after

    def discriminating(self, ours: Any, theirs: Any, state: Any, key: Any, z: Any, real: Any) -> tuple[Any, Any]:
        """What the discriminator lowers: real images are real, and made ones are not. Its running averages are of real images."""
        right, kept = self.judge(ours, state["discriminator"], key, real, REAL)
        wrong, _ = self.judge(ours, state["discriminator"], key, self.make(theirs, state["generator"], key, z)[0], 0.0)
        return right + wrong, kept

    def generating(self, ours: Any, theirs: Any, state: Any, key: Any, z: Any) -> tuple[Any, Any]:
        """What the generator lowers: made images pass for real."""
        images, kept = self.make(ours, state["generator"], key, z)
        return self.judge(theirs, state["discriminator"], key, images, 1.0)[0], kept

    def apply(self, params: Any, state: Any, z: Any) -> Any:
        return self.make(params["generator"], state["generator"], None, z)[0]

    def loss(self, params: Any, state: Any, key: Any, z: Any, real: Any) -> tuple[Any, Any]:
        """Both losses at once, each with the other network fixed: their gradients are those of the two players."""
        fixed = xlc.tree.map(self.functions.stop_gradient, params)
        first, judged = self.discriminating(params["discriminator"], fixed["generator"], state, key, z, real)
        second, made = self.generating(params["generator"], fixed["discriminator"], state, key, z)
        return first + second, {"discriminator": judged, "generator": made}


class Both:
    """One optimiser for each of the two networks."""

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer

    def init(self, params: Any) -> Any:
        return {name: self.optimizer.init(p) for name, p in params.items()}


def alternate(game: Game, optimizer: Any) -> Callable[..., tuple[Any, Any, Any, Any]]:
    """A step of the discriminator, then one of the generator against what the discriminator has become. The loss is the former's."""
    def step(params: Any, state: Any, memory: Any, key: Any, z: Any, real: Any) -> tuple[Any, Any, Any, Any]:
        (value, judged), grads = xlc.value_and_grad(game.discriminating, has_aux=True)(
            params["discriminator"], params["generator"], state, key, z, real)
        judge, first = optimizer.update(grads, memory["discriminator"], params["discriminator"])
        (_, made), grads = xlc.value_and_grad(game.generating, has_aux=True)(params["generator"], judge, state, key, z)
        make, second = optimizer.update(grads, memory["generator"], params["generator"])
        return ({"discriminator": judge, "generator": make}, {"discriminator": judged, "generator": made},
                {"discriminator": first, "generator": second}, value)

    return step


def rings(rng: np.random.Generator, size: int, batch: int) -> np.ndarray:
    """Coloured rings on black, in [-1, 1]: images to imitate, (batch, size, size, 3)."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = rng.uniform(0.2, 0.4, (batch, 1, 1)) * size
    inside = np.exp(-((np.hypot(x, y) - radius) / (0.06 * size)) ** 2)
    return (2 * inside[..., None] * rng.uniform(0.3, 1, (batch, 1, 1, 3)) - 1).astype("f4")


@register("gan", parameters=1_736_388)
def gan(full: bool) -> Network:
    return gan_network(32, 64, 64, 100, 2e-4) if full else gan_network(16, 4, 8, 12, 3e-3)


def gan_network(size: int, width: int, batch: int, noise: int, rate: float) -> Network:
    """Images of size x size pixels, from ``noise`` numbers; ``width``: channels of the layers next to the images."""
    game, optimizer = Game(size, width), xlc.optim.adam(rate, 0.5)
    z, x = xlc.spec((batch, noise), "f4"), xlc.spec((batch, size, size, 3), "f4")
    parts = {"discriminator": (lambda nn, x: discriminator(nn, x, width), x), "generator": (lambda nn, z: generator(nn, z, size, width), z)}

    def init(key: Any) -> tuple[Any, Any]:
        made = {name: layers.init(model, xlc.random.fold_in(key, k), spec) for k, (name, (model, spec)) in enumerate(parts.items())}
        return {name: p for name, (p, _) in made.items()}, {name: s for name, (_, s) in made.items()}

    def using(functions: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        other = Game(size, width, functions)
        return other.apply, other.loss

    def reference() -> tuple[Callable[..., Any], Callable[..., Any]]:
        from . import torch_functions

        return using(torch_functions)

    return Network("gan", init, game.apply, game.loss, lambda rng: (rng.standard_normal((batch, noise), "f4"), rings(rng, size, batch)),
                   reference, lambda: {name: layers.shapes(model, spec) for name, (model, spec) in parts.items()},
                   optimizer=Both(optimizer), step=alternate(game, optimizer), using=using)
