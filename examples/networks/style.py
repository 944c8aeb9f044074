"""The style of one image on the content of another: by gradient descent on the image, and by a network that is trained to do it at once.

Both compare what a fixed VGG-19 makes of images. Trained weights of it are not at hand, so that it is random here; random ones carry style
as well (K. He et al., arXiv:1606.04801). L. Gatys et al., arXiv:1508.06576; J. Johnson et al., arXiv:1603.08155."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import xlc

from . import layers
from .imagenet import VGG, vgg_features
from .layers import Layers
from .network import Network, register

CONTENT, STYLE = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def features(nn: Any, x: Any, width: int) -> dict[str, Any]:
    """Activations of VGG-19, up to the last that is compared."""
    return vgg_features(nn, x, VGG["e"][0], width, stop=STYLE[-1])


def gram(nn: Any, x: Any) -> Any:
    """How channels go together, whatever the place: (batch, height, width, c) -> (batch, c, c)."""
    batch, height, width, c = x.shape
    flat = x.reshape(batch, height * width, c)
    return nn.matmul(nn.matrix_transpose(flat), flat) / (height * width * c)


def mean_square(nn: Any, x: Any, y: Any) -> Any:
    return 2 * nn.l2_loss(x - y) / math.prod(x.shape)


def variation(nn: Any, x: Any) -> Any:
    """The mean square of differences of neighbours, down and to the right."""
    return mean_square(nn, x[:, 1:], x[:, :-1]) + mean_square(nn, x[:, :, 1:], x[:, :, :-1])


def style_distance(nn: Any, found: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """Of Gram matrices; one image's style is wanted of all."""
    total: Any = 0
    for name in STYLE:
        ours, theirs = gram(nn, found[name]), gram(nn, wanted[name])
        total = total + mean_square(nn, ours, nn.broadcast_to(theirs, ours.shape))
    return total


def fixed_vgg(key: Any, width: int, image: Any) -> Any:
    return layers.init(lambda nn, x: features(nn, x, width), key, image)[0]


def pictures(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Smooth noise of unit variance."""
    x = rng.normal(size=shape).cumsum(1).cumsum(2)
    return ((x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)).astype("f4")


# ------------------------------------------------------------------------------------------------ the image as the variable


@register("neural-style", parameters=224 * 224 * 3)
def neural_style(full: bool) -> Network:
    return neural_style_network(*(224, 64) if full else (32, 4))


def neural_style_network(size: int, width: int) -> Network:
    """The one parameter is the image, of size x size pixels; inference gives what is compared, of any image. ``width``: channels of the
    first layers of VGG-19, 64 as published."""
    image = xlc.spec((1, size, size, 3), "f4")

    def functions(f: Any = None) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def apply(params: Any, vgg: Any, x: Any) -> Any:
            nn = Layers(vgg, None, f)
            found = features(nn, x, width)
            return found[CONTENT], [gram(nn, found[name]) for name in STYLE]

        def loss(params: Any, vgg: Any, key: Any, content: Any, style: Any) -> tuple[Any, Any]:
            nn = Layers(vgg, None, f)
            found, kept, wanted = (features(Layers(vgg, None, f), x, width) for x in (params["image"], content, style))
            total = 5 * mean_square(nn, found[CONTENT], kept[CONTENT]) + 500 * style_distance(nn, found, wanted)
            return total + 100 * variation(nn, params["image"]), vgg

        return apply, loss

    def init(key: Any) -> tuple[Any, Any]:
        start = xlc.nn.init.normal(0.256)(key, (1, size, size, 3))
        return {"image": np.asarray(start)}, fixed_vgg(xlc.random.fold_in(key, 1), width, image)

    return Network("neural-style", init, *functions(), lambda rng: (pictures(rng, 1, size, size, 3), pictures(rng, 1, size, size, 3)),
                   lambda: functions(_torch()), lambda: {"image": image}, optimizer=xlc.optim.adam(0.05))


# ------------------------------------------------------------------------------------------------ a network that does it at once


def transform(nn: Any, x: Any, width: int) -> Any:
    """The same size, in [-127.5, 127.5]; normalised by the moments of the batch, in inference as well."""
    def norm(x: Any) -> Any:
        return nn.batch_norm(x, averages=False)

    def conv(x: Any, channels: int, window: int, stride: int = 1) -> Any:
        return norm(nn.conv(x, channels, window, stride=stride, bias=False))

    for channels, window, stride in ((width, 9, 1), (2 * width, 3, 2), (4 * width, 3, 2)):
        x = nn.relu(conv(x, channels, window, stride))
    for _ in range(5):
        x = x + conv(nn.relu(conv(x, 4 * width, 3)), 4 * width, 3)
    for channels in (2 * width, width):
        x = nn.relu(norm(nn.conv_transpose(x, channels, 3, stride=2, bias=False)))
    return nn.tanh(conv(x, 3, 9)) * 127.5


@register("fast-style", parameters=1_677_638)
def fast_style(full: bool) -> Network:
    return fast_style_network(256, 32, 64, 2, 1e-3) if full else fast_style_network(32, 2, 4, 2, 1e-2)


def fast_style_network(size: int, width: int, vgg_width: int, batch: int, rate: float) -> Network:
    """For images of size x size pixels; ``width``: channels of the layers next to the images, 32 as published."""
    images, one = xlc.spec((batch, size, size, 3), "f4"), xlc.spec((1, size, size, 3), "f4")

    def model(nn: Any, x: Any) -> Any:
        return transform(nn, x, width)

    def functions(f: Any = None) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def apply(params: Any, vgg: Any, x: Any) -> Any:
            return model(Layers(params, None, f), x)

        def loss(params: Any, vgg: Any, key: Any, content: Any, style: Any) -> tuple[Any, Any]:
            """Made and content images go through the fixed network side by side in one batch."""
            nn = Layers(params, None, f, key)
            made = model(nn, content)
            both = features(Layers(vgg, None, f), nn.concatenate([made, content]) / 127.5, width=vgg_width)
            wanted = features(Layers(vgg, None, f), style, vgg_width)
            found = {name: x[:batch] for name, x in both.items()}
            total = 7.5 * mean_square(nn, found[CONTENT], both[CONTENT][batch:]) + 100 * style_distance(nn, found, wanted)
            return total + 200 * variation(nn, made / 127.5), vgg

        return apply, loss

    return Network("fast-style", lambda key: (layers.init(model, key, images)[0], fixed_vgg(xlc.random.fold_in(key, 1), vgg_width, one)),
                   *functions(), lambda rng: (pictures(rng, batch, size, size, 3), pictures(rng, 1, size, size, 3)),
                   lambda: functions(_torch()), lambda: layers.shapes(model, images), optimizer=xlc.optim.adam(rate))


def _torch() -> Any:
    from . import torch_functions

    return torch_functions
