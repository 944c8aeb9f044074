"""The functions of xlc.nn that networks use, on JAX's arrays: what ``Layers`` takes to run the same network there.

    conv(x, w, stride=2, padding="SAME")        jax.lax.conv_general_dilated, channels last

Whatever is not here, jax.numpy or jax.nn have under the same name.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

scan, stop_gradient, fold_in = lax.scan, lax.stop_gradient, jax.random.fold_in


def __getattr__(name: str) -> Any:
    return getattr(jax.nn, name) if hasattr(jax.nn, name) else getattr(jnp, name)


def _padding(padding: Any) -> Any:
    return [(padding, padding)] * 2 if isinstance(padding, int) else padding


def conv(x: Any, w: Any, *, stride: int = 1, padding: Any = 0, groups: int = 1) -> Any:
    return lax.conv_general_dilated(x, w, (stride, stride), _padding(padding), dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    feature_group_count=groups)


def _windows(x: Any, start: Any, operation: Any, window: int, stride: int | None, padding: Any) -> Any:
    step = stride or window
    pads = padding if isinstance(padding, str) else [(0, 0), *_padding(padding), (0, 0)]
    return lax.reduce_window(x, start, operation, (1, window, window, 1), (1, step, step, 1), pads)


def max_pool(x: Any, window: int, *, stride: int | None = None, padding: Any = 0) -> Any:
    return _windows(x, -jnp.inf, lax.max, window, stride, padding)


def avg_pool(x: Any, window: int, *, stride: int | None = None, padding: Any = 0) -> Any:
    return _windows(x, 0.0, lax.add, window, stride, padding) / window**2


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, eps: float, training: bool = False, momentum: float = 0.1) -> Any:
    if not training:
        return (x - mean) * lax.rsqrt(var + eps) * scale + bias
    axes = tuple(range(x.ndim - 1))
    found, spread = x.mean(axes), x.var(axes)
    n = x.size // x.shape[-1]
    y = (x - found) * lax.rsqrt(spread + eps) * scale + bias
    return y, mean + momentum * (found - mean), var + momentum * (spread * (n / max(n - 1, 1)) - var)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]


def l2_loss(x: Any) -> Any:
    return (x * x).sum() / 2


def embedding(table: Any, ids: Any) -> Any:
    return table[ids]


def lstm_cell(x: Any, state: Any, w: Any, b: Any) -> tuple[Any, Any]:
    h, c = state
    i, f, g, o = jnp.split(jnp.concatenate([x, h], -1) @ w + b, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def dropout(key: Any, x: Any, rate: float) -> Any:
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias


def attention(q: Any, k: Any, v: Any, *, mask: Any = None, causal: bool = False) -> Any:
    turned = (a.swapaxes(1, 2) for a in (q, k, v))
    return jax.nn.dot_product_attention(*turned, is_causal=causal).swapaxes(1, 2)
