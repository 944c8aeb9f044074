"""The functions of ``torch_functions`` that networks of sequences use: cells, loops, attention, embeddings, sampled softmax.

    h, c = lstm_cell(x, (h, c), w, b)            torch.lstm_cell, with xlc's one matrix cut into PyTorch's two
    carry, ys = scan(f, carry, xs)               a Python loop
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import xlc


def embedding(table: Any, ids: Any) -> Any:
    return F.embedding(ids, table)


def lstm_cell(x: Any, state: Any, w: Any, b: Any, *, peephole: Any = None, coupled: bool = False) -> tuple[Any, Any]:
    h, c = state
    if peephole is None and not coupled:
        return torch.lstm_cell(x, (h, c), w[:x.shape[-1]].T, w[x.shape[-1]:].T, b, torch.zeros_like(b))
    gates = [F.linear(x, u[:x.shape[-1]].T, v) + F.linear(h, u[x.shape[-1]:].T)
             for u, v in zip(w.tensor_split(3 if coupled else 4, 1), b.tensor_split(3 if coupled else 4), strict=True)]
    seen = [0, 0, 0] if peephole is None else peephole
    *first, g, o = gates
    f = torch.sigmoid(first[-1] + seen[len(first) - 1] * c)
    i = 1 - f if coupled else torch.sigmoid(first[0] + seen[0] * c)
    c = f * c + i * torch.tanh(g)
    return torch.sigmoid(o + seen[len(first)] * c) * torch.tanh(c), c


def gru_cell(x: Any, h: Any, w: Any, b: Any) -> Any:
    return torch.gru_cell(x, h, w[:x.shape[-1]].T, w[x.shape[-1]:].T, b[0], b[1])


def scan(f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any) -> tuple[Any, Any]:
    rows, out = xlc.tree.leaves(xs), []
    for t in range(len(rows[0])):
        init, y = f(init, xlc.tree.map(lambda a, t=t: a[t], xs))
        out.append(y)
    return init, None if out[0] is None else xlc.tree.map(lambda *ys: torch.stack(ys), *out)


def attention(q: Any, k: Any, v: Any, *, mask: Any = None, causal: bool = False) -> Any:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    return F.layer_norm(x, x.shape[-1:], scale, bias)


def gelu(x: Any, approximate: bool = False) -> Any:
    return F.gelu(x, approximate="tanh" if approximate else "none")


def one_hot(ids: Any, classes: int, dtype: Any) -> Any:
    return F.one_hot(ids, classes).to(dtype)


def sampled_softmax_loss(key: Any, weights: Any, biases: Any, labels: Any, inputs: Any, *, num_sampled: int) -> Any:
    """Cross-entropy over one list of classes per row, the label first, with what xlc draws from the key."""
    classes = len(weights)
    sampled = torch.from_numpy(xlc.nn.log_uniform_candidates(key, num_sampled, classes))
    ids = torch.cat([labels[:, None], sampled.expand(len(labels), -1)], 1)
    frequency = torch.log((ids + 2.0).double() / (ids + 1.0).double()) / torch.log(torch.tensor(classes + 1.0).double())
    logits = torch.einsum("bf,bnf->bn", inputs, weights[ids]) + biases[ids] - torch.log(frequency * num_sampled).to(inputs.dtype)
    hit = ids == labels[:, None]
    hit[:, 0] = False
    return F.cross_entropy(logits.masked_fill(hit, -float("inf")), torch.zeros_like(labels), reduction="none")
