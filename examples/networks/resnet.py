"""Residual networks: for CIFAR with activation before the convolutions, and ResNet-50 with bottlenecks. K. He et al., arXiv:1512.03385,
arXiv:1603.05027."""

from __future__ import annotations

from typing import Any

import xlc

from .classifier import classifier
from .network import Network, register


def _same_shape(nn: Any, x: Any, channels: int, stride: int) -> Any:
    """The shortcut without parameters: every other pixel, and channels of zeros on both sides."""
    more = (channels - x.shape[-1]) // 2
    x = nn.avg_pool(x, 1, stride=stride) if stride > 1 else x
    return nn.pad(x, ((0, 0), (0, 0), (0, 0), (more, more))) if more else x


def cifar_block(nn: Any, x: Any, channels: int, stride: int) -> Any:
    """BN-relu-conv twice, and x."""
    y = x
    for s in (stride, 1):
        y = nn.conv(nn.relu(nn.batch_norm(y)), channels, 3, stride=s, bias=False)
    return y + _same_shape(nn, x, channels, stride)


def resnet_cifar(n: int, width: int, classes: int = 10) -> Any:
    """6n + 2 layers: three stages of n blocks, of ``width`` channels, twice and four times as many."""
    def model(nn: Any, x: Any) -> Any:
        x = nn.conv(x, width, 3, bias=False)
        for stage in range(3):
            for block in range(n):
                x = cifar_block(nn, x, width << stage, 2 if stage and not block else 1)
        return nn.dense(nn.relu(nn.batch_norm(x)).mean((1, 2)), classes)

    return model


@register("resnet-cifar", parameters=464_154)
def resnet32(full: bool) -> Network:
    """n = 5."""
    rate = xlc.optim.exponential(0.1 if full else 0.02, 0.1, 32_000, staircase=True)
    return classifier("resnet-cifar", resnet_cifar(5, 16) if full else resnet_cifar(2, 8), (32, 32, 3) if full else (12, 12, 3), 10,
                      128 if full else 8, l2=1e-4, optimizer=xlc.optim.momentum(rate, 0.9))


def bottleneck(nn: Any, x: Any, channels: int, stride: int) -> Any:
    """1x1, 3x3, 1x1 to four times the channels; where the shape changes the shortcut is a convolution."""
    y = nn.relu(nn.batch_norm(nn.conv(x, channels, 1, bias=False)))
    y = nn.relu(nn.batch_norm(nn.conv(y, channels, 3, stride=stride, padding=1, bias=False)))
    y = nn.batch_norm(nn.conv(y, 4 * channels, 1, bias=False))
    if stride > 1 or x.shape[-1] != 4 * channels:
        x = nn.batch_norm(nn.conv(x, 4 * channels, 1, stride=stride, bias=False))
    return nn.relu(y + x)


@register("resnet50", parameters=25_557_032)
def resnet50(full: bool) -> Network:
    blocks, width, classes = ((3, 4, 6, 3), 64, 1000) if full else ((1, 2), 4, 10)

    def model(nn: Any, x: Any) -> Any:
        x = nn.relu(nn.batch_norm(nn.conv(x, width, 7, stride=2, padding=3, bias=False)))
        x = nn.max_pool(x, 3, stride=2, padding=1)
        for stage, count in enumerate(blocks):
            for block in range(count):
                x = bottleneck(nn, x, width << stage, 2 if stage and not block else 1)
        return nn.dense(x.mean((1, 2)), classes)

    return classifier("resnet50", model, (224, 224, 3) if full else (33, 33, 3), classes, 2 if full else 4, l2=1e-4,
                      optimizer=xlc.optim.momentum(0.1 if full else 0.01, 0.9))
