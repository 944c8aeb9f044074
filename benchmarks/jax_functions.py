"""The functions of xlc.nn that the sequence networks use, as a user of JAX writes them: ``net.using(jax_functions)``.

Whatever is not here, jax.numpy has under the same name.
"""

from __future__ import annotations

from typing import Any

from . import peers

jax = peers.library("jax")
scan, stop_gradient, one_hot, fold_in = jax.lax.scan, jax.lax.stop_gradient, jax.nn.one_hot, jax.random.fold_in


def __getattr__(name: str) -> Any:
    return getattr(jax.numpy, name)


def embedding(table: Any, ids: Any) -> Any:
    return table[ids]


def lstm_cell(x: Any, state: Any, w: Any, b: Any) -> tuple[Any, Any]:
    h, c = state
    i, f, g, o = jax.numpy.split(jax.numpy.concatenate([x, h], -1) @ w + b, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o) * jax.numpy.tanh(c), c


def dropout(key: Any, x: Any, rate: float) -> Any:
    return jax.numpy.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]


def gelu(x: Any, approximate: bool = False) -> Any:
    return jax.nn.gelu(x, approximate)


def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias


def attention(q: Any, k: Any, v: Any, *, mask: Any = None, causal: bool = False) -> Any:
    turned = (a.swapaxes(1, 2) for a in (q, k, v))
    return jax.nn.dot_product_attention(*turned, is_causal=causal).swapaxes(1, 2)
