"""The layers: each is an initial value and one of the functions of ``xlc.nn``. Channels are the last dimension.

    Dense(500)                 x @ w + b                                      {"w": (in, 500), "b": (500,)}
    Conv(32, 5, padding="SAME")                                               {"w": (5, 5, in, 32), "b": (32,)}
    BatchNorm()                memory {"mean", "var"} beside                  {"scale", "bias"}

Weights begin as ``glorot_uniform``, biases as zeros, as in Keras; ``weights=`` and ``bias=`` take any initialiser of ``xlc.nn.init``, and
``bias=None`` leaves the bias out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from .. import numpy as np
from .. import random
from ..errors import XlcTypeError, XlcValueError
from . import init
from .functions import layer_norm
from .layer import Layer, input_dtype, input_shape
from .lookup import embedding
from .norm import batch_norm
from .regularize import dropout
from .window import avg_pool, conv, conv_transpose, local_response_norm, max_pool

Sizes = int | Sequence[int]


def _weights(key: Any, x: Any, weights: Any, shape: tuple[Any, ...], bias: Any, features: int) -> dict[str, Any]:
    """w, and b where there is one."""
    if not all(isinstance(n, int) for n in shape):
        raise XlcValueError(f"weights of shape {shape} need sizes in numbers; only the batch and the positions of an input may have names")
    first, second = random.split(key)
    found = {"w": weights(first, shape, input_dtype(x))}
    return found if bias is None else found | {"b": bias(second, (features,), input_dtype(x))}


def _biased(y: Any, params: dict[str, Any]) -> Any:
    return y + params["b"] if "b" in params else y


def _spatial(value: Sizes, x: Any) -> tuple[int, ...]:
    """A window for each dimension between batch and channels."""
    return (value,) * (len(input_shape(x)) - 2) if isinstance(value, int) else tuple(value)


@dataclass(frozen=True)
class Dense(Layer):
    """x @ w + b over the last dimension."""

    features: int
    _: KW_ONLY
    weights: Any = init.glorot_uniform()
    bias: Any = init.zeros

    def init(self, key: Any, x: Any) -> Any:
        return _weights(key, x, self.weights, (input_shape(x)[-1], self.features), self.bias, self.features)

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return _biased(x @ params["w"], params), ()


@dataclass(frozen=True)
class Conv(Layer):
    """``xlc.nn.conv`` and a bias, over (batch, spatial..., channels). A window that is a number has it in every direction."""

    features: int
    window: Sizes
    _: KW_ONLY
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    weights: Any = init.glorot_uniform()
    bias: Any = init.zeros

    def init(self, key: Any, x: Any) -> Any:
        shape = (*_spatial(self.window, x), input_shape(x)[-1] // self.groups, self.features)
        return _weights(key, x, self.weights, shape, self.bias, self.features)

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        y = conv(x, params["w"], stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return _biased(y, params), ()


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """``xlc.nn.conv_transpose`` and a bias; its weights are (in, features / groups, window...)."""

    features: int
    window: Sizes
    _: KW_ONLY
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    groups: int = 1
    weights: Any = init.glorot_uniform()
    bias: Any = init.zeros

    def init(self, key: Any, x: Any) -> Any:
        window, channels = _spatial(self.window, x), input_shape(x)[-1]
        params = _weights(key, x, self.weights, (*window, channels, self.features // self.groups), self.bias, self.features)
        return params | {"w": np.moveaxis(params["w"], (-2, -1), (0, 1))}

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        y = conv_transpose(x, params["w"], stride=self.stride, padding=self.padding, output_padding=self.output_padding, groups=self.groups)
        return _biased(y, params), ()


@dataclass(frozen=True)
class MaxPool(Layer):
    """``xlc.nn.max_pool``."""

    window: Sizes
    _: KW_ONLY
    stride: Any = None
    padding: Any = 0

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return max_pool(x, self.window, stride=self.stride, padding=self.padding), ()


@dataclass(frozen=True)
class AvgPool(Layer):
    """``xlc.nn.avg_pool``; without a window, the mean over all positions: (batch, channels)."""

    window: Sizes | None = None
    _: KW_ONLY
    stride: Any = None
    padding: Any = 0
    count_include_pad: bool = True

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        if self.window is None:
            return np.mean(x, axis=tuple(range(1, x.ndim - 1))), ()
        return avg_pool(x, self.window, stride=self.stride, padding=self.padding, count_include_pad=self.count_include_pad), ()


@dataclass(frozen=True)
class Flatten(Layer):
    """(batch, ...) to (batch, everything)."""

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return np.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), ()


@dataclass(frozen=True)
class Dropout(Layer):
    """``xlc.nn.dropout`` while training; nothing otherwise. The rate may be traced, if the layer is made inside the step."""

    rate: Any = 0.5

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        if not training:
            return x, ()
        if key is None:
            raise XlcTypeError("Dropout draws while training: apply(params, x, key=xlc.random.fold_in(key, step), training=True)")
        return dropout(key, x, self.rate), ()


@dataclass(frozen=True)
class BatchNorm(Layer):
    """``xlc.nn.batch_norm``: by the batch while training, by the moments in the memory otherwise."""

    momentum: float = 0.1
    eps: float = 1e-5

    def init(self, key: Any, x: Any) -> Any:
        return _affine(x)

    def memory(self, x: Any) -> Any:
        zeros, ones = _affine(x).values()
        return {"mean": zeros, "var": ones}

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        if memory is None and not training:
            raise XlcTypeError("BatchNorm needs its moments, unless it is training: apply(params, x, memory), memory = net.memory(x)")
        moments = (params["bias"], params["scale"]) if memory is None else (memory["mean"], memory["var"])
        found = batch_norm(x, params["scale"], params["bias"], *moments, eps=self.eps, training=training, momentum=self.momentum)
        return (found[0], {"mean": found[1], "var": found[2]}) if training else (found, memory)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """``xlc.nn.layer_norm`` over the last dimension."""

    eps: float = 1e-5

    def init(self, key: Any, x: Any) -> Any:
        return _affine(x)

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return layer_norm(x, params["scale"], params["bias"], eps=self.eps), ()


def _affine(x: Any) -> dict[str, Any]:
    """Per channel: bias zeros, scale ones."""
    shape, dtype = input_shape(x)[-1:], input_dtype(x)
    return {"bias": np.zeros(shape, dtype), "scale": np.ones(shape, dtype)}


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """``xlc.nn.local_response_norm``."""

    radius: int
    _: KW_ONLY
    alpha: float
    beta: float
    k: float = 1.0

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return local_response_norm(x, self.radius, alpha=self.alpha, beta=self.beta, k=self.k), ()


@dataclass(frozen=True)
class Embedding(Layer):
    """Rows of a table (rows, features), for integers."""

    rows: int
    features: int
    _: KW_ONLY
    weights: Any = init.normal(1.0)

    def init(self, key: Any, x: Any) -> Any:
        return {"table": self.weights(key, (self.rows, self.features), input_dtype(x))}

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return embedding(params["table"], x), ()
