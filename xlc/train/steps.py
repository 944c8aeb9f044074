"""The usual training step, from a loss and an optimiser.

    start(params, optimizer)         {"params": params, "optimizer": optimizer.init(params), "step": 0}
    step(loss, optimizer)            f(state, *batch) -> (state, {"loss": value})

Both are a few lines over ``xlc.value_and_grad`` and ``optimizer.update``; ``fit`` takes any function of this form, so that what does not
fit (two networks that alternate, a carried hidden state) is written out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..errors import XlcTypeError
from ..frontend.grad import value_and_grad
from ..random import fold_in


def start(params: Any, optimizer: Any, *, ema: Any = None, lr: float | None = None, memory: Any = None, key: Any = None) -> dict[str, Any]:
    """The state before the first step: ``params``, ``optimizer``, ``step``, and what is given:

    ema     ``xlc.optim.ema(decay)``: the average of the weights is state["ema"]
    lr      a learning rate that is an input of each step and takes the place of the optimiser's: a callback that assigns to state["lr"]
            changes it without compiling
    memory  of a network (``Layer.memory``), carried from step to step
    key     ``xlc.random.key(seed)``: each step hands the loss a key of its own; a resumed run draws what an uninterrupted one does"""
    state = {"params": params, "optimizer": optimizer.init(params), "step": np.zeros((), np.int32)}
    if ema is not None:
        state["ema"] = ema.init(params)
    if lr is not None:
        state["lr"] = np.array(lr, np.float64)
    return state | {name: value for name, value in (("memory", memory), ("key", key)) if value is not None}


def step(loss: Callable[..., Any], optimizer: Any, *, ema: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """One step: ``f(state, *batch) -> (state, metrics)``, pure and traceable, for a state of ``start`` with the same options.

    ``loss(params, *batch)`` gives a number; with ``has_aux`` (number, dict of numbers), which join the metrics. Where the state has a key
    or a memory, the loss is given ``key=`` and ``memory=`` too, and the dict that it returns has the new "memory"."""

    def train(state: dict[str, Any], *batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if ("ema" in state) != (ema is not None):
            raise XlcTypeError("start and step must agree: ema= was given to one of them alone")
        given = {"memory": state["memory"]} if "memory" in state else {}
        if "key" in state:
            given["key"] = fold_in(state["key"], state["step"])
        value, grads = value_and_grad(partial(loss, **given), has_aux=has_aux)(state["params"], *batch)
        value, aux = value if has_aux else (value, {})
        params, remembered = optimizer.update(grads, state["optimizer"], state["params"], lr=state.get("lr"))
        new = {**state, "params": params, "optimizer": remembered, "step": state["step"] + np.int32(1)}
        if ema is not None:
            new["ema"] = ema.update(state["ema"], params, num_updates=state["step"])
        if "memory" in state:
            if "memory" not in aux:
                raise XlcTypeError('the state has a memory, so the loss returns the new one: (value, {"memory": memory}), has_aux=True')
            new["memory"] = aux["memory"]
        return new, {"loss": value, **{name: v for name, v in aux.items() if name != "memory"}}

    return train
