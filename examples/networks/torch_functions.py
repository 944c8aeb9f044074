"""The functions of xlc.nn that networks use, on PyTorch's tensors and made of PyTorch's own functions: the reference of the comparison.

    conv(x, w, stride=2, padding="SAME")        torch.nn.functional.conv2d, for channels last as xlc.nn has them

Whatever is not here, PyTorch has under the same name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import xlc

from .torch_sequence import *  # noqa: F403

fold_in = xlc.random.fold_in
relu, elu, softmax, leaky_relu, relu6 = F.relu, F.elu, F.softmax, F.leaky_relu, F.relu6


def __getattr__(name: str) -> Any:
    return getattr(torch, name)


def _first(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def _last(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


def _pads(x: Any, window: tuple[int, int], stride: tuple[int, int], padding: Any) -> list[int]:
    """Before and after the width, before and after the height: the order of ``F.pad``."""
    if padding == "VALID":
        return [0, 0, 0, 0]
    if padding != "SAME":
        return [padding] * 4 if isinstance(padding, int) else [n for pair in reversed(padding) for n in pair]
    out = []
    for n, k, s in reversed(list(zip(x.shape[1:3], window, stride, strict=True))):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        out += [total // 2, total - total // 2]
    return out


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def conv(x: Any, w: Any, *, stride: int = 1, padding: Any = 0, groups: int = 1) -> Any:
    padded = F.pad(_first(x), _pads(x, w.shape[:2], _pair(stride), padding))
    return _last(F.conv2d(padded, w.permute(3, 2, 0, 1), stride=stride, groups=groups))


def conv_transpose(x: Any, w: Any, *, stride: int, padding: str) -> Any:
    """The size of x times the stride: what is too much is cut off, the odd one after."""
    full = F.conv_transpose2d(_first(x), w, stride=stride)
    sizes = [n * stride for n in x.shape[1:3]]
    top, left = ((have - want) // 2 if have > want else 0 for have, want in zip(full.shape[2:], sizes, strict=True))
    cut = full[:, :, top:top + sizes[0], left:left + sizes[1]]
    return _last(F.pad(cut, (0, sizes[1] - cut.shape[3], 0, sizes[0] - cut.shape[2])))


def max_pool(x: Any, window: int, *, stride: int | None = None, padding: Any = 0) -> Any:
    stride = stride or window
    padded = F.pad(_first(x), _pads(x, _pair(window), _pair(stride), padding), value=-float("inf"))
    return _last(F.max_pool2d(padded, window, stride))


def avg_pool(x: Any, window: int, *, stride: int | None = None, padding: Any = 0, count_include_pad: bool = True) -> Any:
    stride = stride or window
    pads = _pads(x, _pair(window), _pair(stride), padding)
    total = F.avg_pool2d(F.pad(_first(x), pads), window, stride)
    if not count_include_pad:
        total = total / F.avg_pool2d(F.pad(torch.ones_like(_first(x)), pads), window, stride)
    return _last(total)


def local_response_norm(x: Any, radius: int, *, alpha: float, beta: float, k: float) -> Any:
    size = 2 * radius + 1
    return _last(F.local_response_norm(_first(x), size, alpha * size, beta, k))


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, eps: float, training: bool = False, momentum: float = 0.1) -> Any:
    mean, var = mean.clone(), var.clone()
    y = F.batch_norm(x.movedim(-1, 1), mean, var, scale, bias, training, momentum, eps).movedim(1, -1)
    return (y, mean, var) if training else y


def dropout(key: Any, x: Any, rate: float) -> Any:
    """With the mask that xlc draws from the key."""
    mask = np.array(xlc.random.bernoulli(key, 1 - rate, shape=tuple(x.shape)))
    return torch.where(torch.from_numpy(mask), x / (1 - rate), torch.zeros_like(x))


def top_k(x: Any, k: int) -> Any:
    return tuple(torch.topk(x, k))


def cross_entropy(logits: Any, labels: Any) -> Any:
    return F.cross_entropy(logits.movedim(-1, 1) if logits.ndim > 1 else logits, labels, reduction="none")


def sigmoid_cross_entropy(logits: Any, labels: Any) -> Any:
    return F.binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="none")


def mse(y: Any, target: Any) -> Any:
    return F.mse_loss(y, target)


def l2_loss(x: Any) -> Any:
    return (x * x).sum() / 2


def matrix_transpose(x: Any) -> Any:
    return x.mT


def pad(x: Any, width: Any) -> Any:
    """As NumPy's, with zeros."""
    return F.pad(x, [n for pair in reversed(width) for n in pair])


def stop_gradient(x: Any) -> Any:
    return x.detach()
