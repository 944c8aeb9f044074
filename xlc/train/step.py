"""The usual training step, from a loss and an optimiser.

    start(params, optimizer)         {"params": params, "optimizer": optimizer.init(params), "step": 0}
    step(loss, optimizer)            f(state, *batch) -> (state, {"loss": value})

Both are a few lines over ``xlc.value_and_grad`` and ``optimizer.update``; ``fit`` takes any function of this form, so that what does not
fit (two networks that alternate, a carried hidden state) is written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import XlcTypeError
from ..frontend.grad import value_and_grad


def start(params: Any, optimizer: Any, *, ema: Any = None, lr: float | None = None) -> dict[str, Any]:
    """The state before the first step: ``params``, ``optimizer``, ``step``; with ``ema=xlc.optim.ema(decay)`` the average of the weights as
    ``ema``; with ``lr`` a learning rate that is an input of each step and overrides the optimiser's: assigning to state["lr"], in a
    callback, changes it without compiling."""
    state = {"params": params, "optimizer": optimizer.init(params), "step": np.zeros((), np.int32)}
    if ema is not None:
        state["ema"] = ema.init(params)
    if lr is not None:
        state["lr"] = np.array(lr, np.float64)
    return state


def step(loss: Callable[..., Any], optimizer: Any, *, ema: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """One step: ``f(state, *batch) -> (state, metrics)``, pure and traceable, for a state of ``start`` with the same options.

    ``loss(params, *batch)`` gives a number; with ``has_aux`` (number, dict of numbers), which join the metrics."""

    def train(state: dict[str, Any], *batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if ("ema" in state) != (ema is not None):
            raise XlcTypeError("start and step must agree: ema= was given to one of them alone")
        value, grads = value_and_grad(loss, has_aux=has_aux)(state["params"], *batch)
        value, aux = value if has_aux else (value, {})
        params, remembered = optimizer.update(grads, state["optimizer"], state["params"], lr=state.get("lr"))
        new = {**state, "params": params, "optimizer": remembered, "step": state["step"] + np.int32(1)}
        if ema is not None:
            new["ema"] = ema.update(state["ema"], params, num_updates=state["step"])
        return new, {"loss": value, **aux}

    return train
