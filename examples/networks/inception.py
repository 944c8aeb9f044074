"""Inception networks: branches of several windows, side by side on the channels. GoogLeNet, Inception-v3, Inception-ResNet-v2.

C. Szegedy et al., arXiv:1409.4842, arXiv:1512.00567, arXiv:1602.07261. ``thin`` divides all channels, for the small sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import xlc

from .classifier import classifier
from .network import Network, register

# 1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; after the pool
GOOGLENET = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}


def side_by_side(nn: Any, *branches: Any) -> Any:
    return nn.concatenate(branches, axis=-1)


def googlenet(classes: int, thin: int, blocks: Sequence[str] = tuple(GOOGLENET), *, radius: int = 2, alpha: float = 2e-5,
              linear: Sequence[str] = (), summary: Callable[..., Any] = lambda nn, x: x.mean((1, 2))) -> Any:
    """``radius`` and ``alpha`` of the local normalisation; ``linear``: blocks whose 5x5 has no relu; ``summary``: what the scores see."""
    def model(nn: Any, x: Any) -> Any:
        def conv(x: Any, channels: int, window: int, **options: Any) -> Any:
            return nn.relu(nn.conv(x, channels // thin, window, **options))

        def pool(x: Any, stride: int) -> Any:
            return nn.max_pool(x, 3, stride=stride, padding="SAME")

        def local(x: Any) -> Any:
            return nn.local_response_norm(x, radius, alpha=alpha, beta=0.75, k=1.0)

        x = local(pool(conv(x, 64, 7, stride=2), 2))
        x = pool(local(conv(conv(x, 64, 1), 192, 3)), 2)
        for name in blocks:
            one, reduced3, three, reduced5, five, pooled = GOOGLENET[name]
            wide = nn.conv(conv(x, reduced5, 1), five // thin, 5)
            x = side_by_side(nn, conv(x, one, 1), conv(conv(x, reduced3, 1), three, 3), wide if name in linear else nn.relu(wide),
                             conv(pool(x, 1), pooled, 1))
            x = pool(x, 2) if name in ("3b", "4e") else x
        return nn.dense(nn.dropout(summary(nn, x), 0.4), classes)

    return model


@register("googlenet", parameters=6_998_552)
def googlenet_1000(full: bool) -> Network:
    model = googlenet(1000, 1) if full else googlenet(10, 8, ("3b", "4e", "5b"))
    return classifier("googlenet", model, (224, 224, 3) if full else (32, 32, 3),
                      1000 if full else 10, 2 if full else 4, optimizer=xlc.optim.momentum(1e-3, 0.9) if full else None)


@register("googlenet-17", parameters=5_973_552 + (8 * 8 * 1024 + 1) * 17)
def googlenet_17(full: bool) -> Network:
    """For the 17 flowers of Oxford, as TFLearn has it: an average over 7x7 at every place, and scores from all places."""
    model = googlenet(17, *(1,) if full else (8, ("3b", "4e", "5b")), radius=5, alpha=1e-4, linear=("3b",), summary=lambda nn, x:
                      nn.flatten(nn.avg_pool(x, 7, stride=1, padding="SAME", count_include_pad=False)))
    return classifier("googlenet-17", model, (227, 227, 3) if full else (32, 32, 3), 17, 2 if full else 4,
                      optimizer=xlc.optim.momentum(1e-3, 0.9) if full else None)


# ------------------------------------------------------------------------------------------------ with batch normalisation


class Normalised:
    """Convolutions without bias, each with batch normalisation (no scale) and, but for the last word, relu."""

    def __init__(self, nn: Any, thin: int):
        self.nn, self.thin = nn, thin

    def conv(self, x: Any, channels: int, window: Any, *, relu: bool = True, **options: Any) -> Any:
        x = self.nn.batch_norm(self.nn.conv(x, channels // self.thin, window, bias=False, **options), scale=False)
        return self.nn.relu(x) if relu else x

    def chain(self, x: Any, *convs: tuple[int, Any], **last: Any) -> Any:
        """Convolutions of (channels, window) in a row; ``last`` are options of the last one."""
        for channels, window in convs[:-1]:
            x = self.conv(x, channels, window)
        return self.conv(x, *convs[-1], **last)

    def stem(self, x: Any) -> Any:
        """Five convolutions and two pools, to an eighth of the size."""
        x = self.conv(x, 32, 3, stride=2, padding="VALID")
        x = self.conv(self.conv(x, 32, 3, padding="VALID"), 64, 3)
        x = self.shrink(x)
        x = self.conv(self.conv(x, 80, 1, padding="VALID"), 192, 3, padding="VALID")
        return self.shrink(x)

    def shrink(self, x: Any) -> Any:
        return self.nn.max_pool(x, 3, stride=2)

    def average(self, x: Any) -> Any:
        return self.nn.avg_pool(x, 3, stride=1, padding="SAME", count_include_pad=False)


HALF = {"stride": 2, "padding": "VALID"}


def inception_v3(classes: int, thin: int, pooled: Sequence[int] = (32, 64, 64), middle: Sequence[int] = (128, 160, 160, 192),
                 last: int = 2) -> Any:
    """Without the auxiliary scores. A block for each of ``pooled`` (channels after the average) and of ``middle`` (channels between), and
    ``last`` more."""
    def model(nn: Any, x: Any) -> Any:
        n = Normalised(nn, thin)
        x = n.stem(x)
        for c in pooled:
            x = side_by_side(nn, n.conv(x, 64, 1), n.chain(x, (48, 1), (64, 5)), n.chain(x, (64, 1), (96, 3), (96, 3)),
                             n.conv(n.average(x), c, 1))
        x = side_by_side(nn, n.conv(x, 384, 3, **HALF), n.chain(x, (64, 1), (96, 3), (96, 3), **HALF), n.shrink(x))
        for c in middle:
            x = side_by_side(nn, n.conv(x, 192, 1), n.chain(x, (c, 1), (c, (1, 7)), (192, (7, 1))),
                             n.chain(x, (c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))), n.conv(n.average(x), 192, 1))
        x = side_by_side(nn, n.chain(x, (192, 1), (320, 3), **HALF), n.chain(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), **HALF),
                         n.shrink(x))
        for _ in range(last):
            three, five = n.conv(x, 384, 1), n.chain(x, (448, 1), (384, 3))
            x = side_by_side(nn, n.conv(x, 320, 1), n.conv(three, 384, (1, 3)), n.conv(three, 384, (3, 1)), n.conv(five, 384, (1, 3)),
                             n.conv(five, 384, (3, 1)), n.conv(n.average(x), 192, 1))
        return nn.dense(nn.dropout(x.mean((1, 2)), 0.2), classes)

    return model


@register("inception-v3", parameters=23_817_352)
def inception_v3_1000(full: bool) -> Network:
    model = inception_v3(1000, 1) if full else inception_v3(10, 16, (32,), (160,), 1)
    return classifier("inception-v3", model, (299, 299, 3) if full else (75, 75, 3),
                      1000 if full else 10, 2 if full else 3, answer=lambda nn, scores: nn.softmax(scores, -1),
                      optimizer=xlc.optim.rmsprop(1e-4) if full else None)


def inception_resnet_v2(classes: int, thin: int, blocks: tuple[int, int, int]) -> Any:
    """The two convolutions 1x3 and 3x1 of the last blocks have no relu, as in the program that this is made after."""
    def model(nn: Any, x: Any) -> Any:
        n = Normalised(nn, thin)

        def residual(x: Any, scale: float, *branches: Any, relu: bool = True) -> Any:
            x = x + scale * nn.conv(side_by_side(nn, *branches), x.shape[-1], 1)
            return nn.relu(x) if relu else x

        def last_block(x: Any, **options: Any) -> Any:
            y = n.conv(n.conv(n.conv(x, 192, 1), 224, (1, 3), relu=False), 256, (3, 1), relu=False)
            return residual(x, 0.2, n.conv(x, 192, 1), y, **options)

        x = n.stem(x)
        x = side_by_side(nn, n.conv(x, 96, 1), n.chain(x, (48, 1), (64, 5)), n.chain(x, (64, 1), (96, 3), (96, 3)),
                         n.conv(n.average(x), 64, 1))
        for _ in range(blocks[0]):
            x = residual(x, 0.17, n.conv(x, 32, 1), n.chain(x, (32, 1), (32, 3)), n.chain(x, (32, 1), (48, 3), (64, 3)))
        x = side_by_side(nn, n.conv(x, 384, 3, **HALF), n.chain(x, (256, 1), (256, 3), (384, 3), **HALF), n.shrink(x))
        for _ in range(blocks[1]):
            x = residual(x, 0.1, n.conv(x, 192, 1), n.chain(x, (128, 1), (160, (1, 7)), (192, (7, 1))))
        x = side_by_side(nn, n.chain(x, (256, 1), (384, 3), **HALF), n.chain(x, (256, 1), (288, 3), **HALF),
                         n.chain(x, (256, 1), (288, 3), (320, 3), **HALF), n.shrink(x))
        for _ in range(blocks[2]):
            x = last_block(x)
        x = n.conv(last_block(x, relu=False), 1536, 1)
        return nn.dense(nn.dropout(x.mean((1, 2)), 0.2), classes)

    return model


@register("inception-resnet-v2", parameters=54_302_321)
def inception_resnet_v2_17(full: bool) -> Network:
    """For the 17 flowers of Oxford."""
    model = inception_resnet_v2(17, 1, (10, 20, 9)) if full else inception_resnet_v2(17, 16, (1, 1, 1))
    return classifier("inception-resnet-v2", model, (299, 299, 3) if full else (75, 75, 3), 17, 2 if full else 3,
                      optimizer=xlc.optim.rmsprop(1e-4) if full else None)
