"""Networks that are trained on pairs of inputs and targets, whatever the inputs and the objective are.

    supervised("xor", lambda nn, x: nn.dense(x, 1), lambda nn, y, target: nn.mse(y, target), batch)       ->     Network
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import xlc

from . import layers
from .layers import Layers
from .network import Network


def supervised(name: str, model: Callable[..., Any], objective: Callable[..., Any],
               batch: Callable[[np.random.Generator], tuple[Any, ...]], *, optimizer: Any = None, **options: Any) -> Network:
    """A network ``model(layers, *inputs) -> outputs``, trained to a small ``objective(layers, outputs, *targets)``; ``batch`` gives
    inputs and targets. The objective may have parameters of its own. ``options``: those of the Network."""
    inputs = options.get("inputs", 1)

    def whole(nn: Layers, *arrays: Any) -> Any:
        return objective(nn, model(nn, *arrays[:inputs]), *arrays[inputs:])

    def functions(f: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Inference and loss, with the functions of xlc (None) or of another library."""
        def apply(params: Any, state: Any, *arrays: Any) -> Any:
            return model(Layers(params, state, f), *arrays)

        def loss(params: Any, state: Any, key: Any, *arrays: Any) -> Any:
            nn = Layers(params, state, f, key)
            return whole(nn, *arrays), nn.after

        return apply, loss

    def reference() -> tuple[Callable[..., Any], Callable[..., Any]]:
        from . import torch_functions

        return functions(torch_functions)

    apply, loss = functions(None)
    example = batch(np.random.default_rng(0))
    return Network(name, lambda key: layers.init(whole, key, *example), apply, loss, batch, reference,
                   lambda: layers.shapes(whole, *example), optimizer=optimizer or xlc.optim.adam(1e-3), using=functions,
                   **options)
