"""AlexNet, Network-in-Network and VGG: convolutions in a row, then fully connected layers or an average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xlc
from xlc.nn.init import normal

from .classifier import classifier
from .network import Network, register


def covering_pool(nn: Any, x: Any, window: int = 3, stride: int = 2) -> Any:
    """Maxima whose last windows may reach over the edge, so that no pixel is left out: Caffe's pooling."""
    pads = [(0, -(n - window) % stride) for n in x.shape[1:3]]
    return nn.max_pool(x, window, stride=stride, padding=pads)


# ------------------------------------------------------------------------------------------------ AlexNet


def alexnet_features(nn: Any, x: Any, width: int, groups: int, local: Any) -> Any:
    """Five convolutions. ``local`` is the normalisation after the first two; ``groups``: as in the original, on two GPUs, three of them
    see half of the channels only."""
    x = nn.relu(nn.conv(x, 12 * width, 11, stride=4, init=normal(0.01)))
    x = nn.max_pool(local(x), 3, stride=2)
    x = nn.relu(nn.conv(x, 32 * width, 5, groups=groups))
    x = nn.max_pool(local(x), 3, stride=2)
    x = nn.relu(nn.conv(x, 48 * width, 3))
    x = nn.relu(nn.conv(x, 48 * width, 3, groups=groups))
    x = nn.relu(nn.conv(x, 32 * width, 3, groups=groups))
    return nn.max_pool(x, 3, stride=2)


@register("alexnet", parameters=60_965_224)
def alexnet(full: bool) -> Network:
    """With the shapes of Caffe's weights. A. Krizhevsky et al., NIPS 2012."""
    width, hidden, classes = (8, 4096, 1000) if full else (1, 32, 10)

    def model(nn: Any, x: Any) -> Any:
        def local(x: Any) -> Any:
            return nn.local_response_norm(x, 2, alpha=2e-5, beta=0.75, k=1.0)

        x = nn.flatten(alexnet_features(nn, x, width, 2, local))
        for _ in range(2):
            x = nn.dropout(nn.relu(nn.dense(x, hidden)), 0.5)
        return nn.dense(x, classes)

    return classifier("alexnet", model, (227, 227, 3) if full else (67, 67, 3), classes, 1 if full else 4,
                      answer=lambda nn, scores: nn.softmax(scores, -1))


@register("alexnet-17")
def alexnet17(full: bool) -> Network:
    """For the 17 flowers of Oxford: no groups, normalisation after each pooling, tanh."""
    width, hidden = (8, 4096) if full else (1, 32)

    def model(nn: Any, x: Any) -> Any:
        def pool(x: Any) -> Any:
            return nn.local_response_norm(nn.max_pool(x, 3, stride=2, padding="SAME"), 5, alpha=1e-4, beta=0.75, k=1.0)

        x = pool(nn.relu(nn.conv(x, 12 * width, 11, stride=4)))
        x = pool(nn.relu(nn.conv(x, 32 * width, 5)))
        for channels in (48, 48, 32):
            x = nn.relu(nn.conv(x, channels * width, 3))
        x = nn.flatten(pool(x))
        for _ in range(2):
            x = nn.dropout(nn.tanh(nn.dense(x, hidden)), 0.5)
        return nn.dense(x, 17)

    return classifier("alexnet-17", model, (227, 227, 3) if full else (67, 67, 3), 17, 2 if full else 4,
                      optimizer=xlc.optim.momentum(1e-3 if full else 1e-2, 0.9))


@register("alexnet-mnist", parameters=5_624_842)
def alexnet_mnist(full: bool) -> Network:
    """An AlexNet for 28x28 pixels whose weights and biases all start as normal numbers."""
    channels, hidden = ((64, 128, 256), 1024) if full else ((4, 8, 16), 32)

    def model(nn: Any, x: Any) -> Any:
        one = {"init": normal(1.0), "bias_init": normal(1.0)}
        for c in channels:
            x = nn.max_pool(nn.relu(nn.conv(x, c, 3, **one)), 2, padding="SAME")
            x = nn.dropout(nn.local_response_norm(x, 4, k=1.0, alpha=0.001 / 9, beta=0.75), 0.2)
        x = nn.flatten(x)
        for _ in range(2):
            x = nn.relu(nn.dense(x, hidden, **one))
        return nn.dense(x, 10, **one)

    return classifier("alexnet-mnist", model, (28, 28, 1), 10, 64 if full else 8, optimizer=xlc.optim.adam(1e-3 if full else 2e-2))


# ------------------------------------------------------------------------------------------------ Network in Network


@register("nin", parameters=7_595_176)
def nin(full: bool) -> Network:
    """Each convolution is followed by two of 1x1, and the scores are averages. M. Lin et al., arXiv:1312.4400."""
    width, classes = (96, 1000) if full else (8, 10)

    def model(nn: Any, x: Any) -> Any:
        def stage(x: Any, channels: int, window: int, first: float, last: int = 0, **options: Any) -> Any:
            x = nn.relu(nn.conv(x, channels, window, init=scaled(first), **options))
            x = nn.relu(nn.conv(x, channels, 1, init=scaled(0.05)))
            return nn.relu(nn.conv(x, last or channels, 1, init=scaled(0.01 if last else 0.05)))

        def scaled(std: float) -> Any:
            return normal(std) if full else None

        x = covering_pool(nn, stage(x, width, 11, 0.01, stride=4, padding="VALID"))
        x = covering_pool(nn, stage(x, width * 8 // 3, 5, 0.05))
        x = nn.dropout(covering_pool(nn, stage(x, 4 * width, 3, 0.01)), 0.5)
        return stage(x, width * 32 // 3, 3, 0.05, last=classes).mean((1, 2))

    return classifier("nin", model, (224, 224, 3) if full else (67, 67, 3), classes, 2 if full else 4,
                      optimizer=xlc.optim.momentum(0.01, 0.9) if full else None)


# ------------------------------------------------------------------------------------------------ VGG

VGG = {  # convolutions of each of the five stages, and how many of the last three stages' are 1x1
    "a": ((1, 1, 2, 2, 2), 0), "b": ((2, 2, 2, 2, 2), 0), "c": ((2, 2, 3, 3, 3), 1), "d": ((2, 2, 3, 3, 3), 0), "e": ((2, 2, 4, 4, 4), 0)}


def vgg_features(nn: Any, x: Any, stages: Sequence[int], width: int, single: int = 0, stop: str = "") -> dict[str, Any]:
    """The activations by name, relu1_1 to pool5, up to ``stop``; the last ``single`` convolutions of stages 3 to 5 are 1x1."""
    found: dict[str, Any] = {}
    for stage, count in enumerate(stages, 1):
        for k in range(1, count + 1):
            window = 1 if stage > 2 and k > count - single else 3
            x = found[f"relu{stage}_{k}"] = nn.relu(nn.conv(x, min(width << stage - 1, 8 * width), window))
            if stop == f"relu{stage}_{k}":
                return found
        x = found[f"pool{stage}"] = nn.max_pool(x, 2)
    return found


def vgg(name: str, letter: str, full: bool, classes: int = 1000, batch: int = 1, optimizer: Any = None) -> Network:
    stages, single = VGG[letter]
    width, hidden, classes = (64, 4096, classes) if full else (4, 32, 10)

    def model(nn: Any, x: Any) -> Any:
        x = nn.flatten(vgg_features(nn, x, stages, width, single)["pool5"])
        for _ in range(2):
            x = nn.dropout(nn.relu(nn.dense(x, hidden)), 0.5)
        return nn.dense(x, classes)

    return classifier(name, model, (224, 224, 3) if full else (32, 32, 3), classes, batch if full else 4,
                      optimizer=optimizer or xlc.optim.momentum(0.01, 0.9) if full else None)


for _letter, _parameters in {"a": 132_863_336, "b": 133_047_848, "c": 133_638_952, "d": 138_357_544, "e": 143_667_240}.items():
    register(f"vgg-{_letter}", parameters=_parameters)(lambda full, letter=_letter: vgg(f"vgg-{letter}", letter, full))


@register("vgg16-17", parameters=134_330_193)
def vgg16_17(full: bool) -> Network:
    """VGG-16 for the 17 flowers of Oxford."""
    return vgg("vgg16-17", "d", full, 17, 2, xlc.optim.rmsprop(1e-3))
