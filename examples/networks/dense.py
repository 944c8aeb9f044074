"""Fully connected networks."""

from __future__ import annotations

from typing import Any

import xlc
from xlc.nn.init import truncated_normal

from .classifier import classifier
from .network import Network, register


@register("mlp", parameters=397_510)
def mlp(full: bool) -> Network:
    """784-500-10."""
    def model(nn: Any, x: Any) -> Any:
        init = truncated_normal(0.1)
        return nn.dense(nn.relu(nn.dense(nn.flatten(x), 500 if full else 32, init=init)), 10, init=init)

    return classifier("mlp", model, (28, 28) if full else (8, 8), 10, 100 if full else 16, optimizer=xlc.optim.sgd(0.1))
