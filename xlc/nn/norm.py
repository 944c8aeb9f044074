"""Normalisation over batches, instances and groups of channels. The channels are the last dimension.

    y, mean, var = batch_norm(x, scale, bias, mean, var, training=True)        (x - mean(x)) / sqrt(var(x) + eps) * scale + bias

Halves are computed with in float32. layer_norm and rms_norm are operators, in ``functions``.
"""

from __future__ import annotations

import math
from typing import Any

from .. import numpy as np
from ..errors import XlcValueError
from ..frontend.array import Tracer, wrap
from ..frontend.axes import integer
from ..frontend.elementwise import emit, show_shape
from ..ir.types import dtype_of
from .functions import _arrays, _number, _public


def _wide(x: Tracer) -> Tracer:
    return np.astype(x, np.float32) if dtype_of(x.dtype).bits == 16 else x


def _prepared(name: str, x: Any, least: int, **channels: Any) -> tuple[Any, Any, list[Any]]:
    """x as it is, x and the values per channel as they are computed with."""
    x, *rest = _arrays(x, *channels.values())
    if x.ndim < least:
        raise XlcValueError(f"{name} expects x of shape (batch, ..., channels), found {show_shape(x.node.shape)}")
    for key, v in zip(channels, rest, strict=True):
        if v.node.shape != x.node.shape[-1:]:
            raise XlcValueError(f"{name}: {key} must have one value for each of the {x.node.shape[-1]} channels, found shape "
                                f"{show_shape(v.node.shape)}")
    return x, _wide(x), [_wide(v) for v in rest]


def _standardized(x: Any, axes: tuple[int, ...], eps: Any, scale: Any, bias: Any) -> Any:
    """x with mean 0 and variance 1 along axes, times scale plus bias."""
    return wrap(emit("standardize", x.node, axes=axes, eps=_number(eps, "eps"))) * scale + bias


@_public
def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, eps: float = 1e-5, training: bool = False,
               momentum: Any = 0.1) -> Any:
    """(x - mean) / sqrt(var + eps) * scale + bias for x (batch, ..., channels), all others (channels,).

    ``training=True`` normalises by the mean and the variance of x over all dimensions but the last, through which gradients flow, and gives
    (y, new_mean, new_var), where new = (1 - momentum) * old + momentum * that of x, as in PyTorch (Keras counts the other way round: its
    0.99 is 0.01 here). The variance that is remembered is the unbiased one, with n - 1 for n. S. Ioffe and C. Szegedy,
    arXiv:1502.03167."""
    x, wide, (s, b, m, v) = _prepared("batch_norm", x, 2, scale=scale, bias=bias, mean=mean, var=var)
    if not training:
        return np.astype((wide - m) * np.rsqrt(v + _number(eps, "eps")) * s + b, x.dtype)
    axes = tuple(range(x.ndim - 1))
    y = np.astype(_standardized(wide, axes, eps, s, b), x.dtype)
    batch_mean, batch_var = np.mean(wide, axis=axes), wrap(emit("variance", wide.node, axes=axes))
    count = np.asarray(math.prod(x.shape[:-1]))
    unbiased = batch_var * np.astype(count / np.maximum(count - 1, 1), wide.dtype)
    kept = [np.astype(old + momentum * (new - old), x.dtype) for old, new in ((m, batch_mean), (v, unbiased))]
    return y, *kept


@_public
def instance_norm(x: Any, scale: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    """Every channel of every example, (batch, ..., channels), normalised over the dimensions between; scale and bias (channels,). D.
    Ulyanov et al., arXiv:1607.08022."""
    x, wide, (s, b) = _prepared("instance_norm", x, 3, scale=scale, bias=bias)
    return np.astype(_standardized(wide, tuple(range(1, x.ndim - 1)), eps, s, b), x.dtype)


@_public
def group_norm(x: Any, scale: Any, bias: Any, *, groups: int, eps: float = 1e-5) -> Any:
    """The channels of every example, (batch, ..., channels), in ``groups`` groups of neighbours, each normalised over the dimensions
    between and over its channels; scale and bias (channels,). Y. Wu and K. He, arXiv:1803.08494."""
    x, wide, (s, b) = _prepared("group_norm", x, 2, scale=scale, bias=bias)
    channels, n = x.shape[-1], integer(groups, "groups")
    if n < 1 or channels % n != 0:
        raise XlcValueError(f"group_norm: groups = {n} must divide the number of channels, {channels}")
    parts = np.reshape(wide, (*x.shape[:-1], n, channels // n))
    per_group = (n, channels // n)
    y = _standardized(parts, (*range(1, x.ndim - 1), x.ndim), eps, np.reshape(s, per_group), np.reshape(b, per_group))
    return np.astype(np.reshape(y, x.shape), x.dtype)
