"""Recurrent layers: a cell at every step of a sequence, by one ``xlc.scan``.

    LSTM(64)                                                (batch, time, in) -> (batch, time, 64)       {"w": (in + 64, 256), "b": (256,)}
    Bidirectional(GRU(64))                                  (batch, time, in) -> (batch, time, 128)
    Sequential(LSTM(200), Dropout(0.5), LSTM(200, sequence=False), Dense(10))         two layers, and what the last step of them says

Layers in a row are stacked by ``Sequential``, which takes what stands between them, dropout or a normalisation, too. Where a sequence goes
on in the next batch, or an encoder hands its state to a decoder, the layer is ``stateful`` and its memory is the state:

    layer = LSTM(64, stateful=True)
    y, state = layer.apply(params, x, layer.memory(x));  y, state = layer.apply(params, following, state)

Weights begin uniform within +-1 / sqrt(hidden), as PyTorch's, biases as zeros. A loop of another form is written with ``xlc.scan`` and a
cell of ``recurrent``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from .. import numpy as np
from .. import random
from ..errors import XlcTypeError, XlcValueError
from ..frontend.control import scan
from . import init
from .functions import _public
from .layer import Layer, Parallel, input_dtype, input_shape
from .recurrent import gru_cell, lstm_cell, rnn_cell


@dataclass(frozen=True)
class Recurrent(Layer):
    """What the layers have in common; x is (..., time, in), most often (batch, time, in).

    reverse     from the last step to the first; outputs lie in the places of their inputs
    sequence    the output of every step, (..., time, hidden); False: of the step that comes last only, (..., hidden)
    stateful    the state is the layer's memory, and the next call goes on from it; False: every call begins with zeros
    time_major  x is (time, ..., in), and so is the output of every step
    weights     an initialiser, or None for uniform(-1 / sqrt(hidden), 1 / sqrt(hidden)); bias: None for no bias"""

    hidden: int
    _: KW_ONLY
    reverse: bool = False
    sequence: bool = True
    stateful: bool = False
    time_major: bool = False
    weights: Any = None
    bias: Any = init.zeros
    gates: ClassVar[int]
    states: ClassVar[tuple[str, ...]] = ("h",)

    def cell(self, params: dict[str, Any], x: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The next state, of which "h" is the output; x (..., in)."""
        raise NotImplementedError(f"{type(self).__name__} defines cell(params, x, state) -> state")

    def bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.hidden,)

    def init(self, key: Any, x: Any) -> Any:
        features = input_shape(x)[-1]
        if not isinstance(features, int):
            raise XlcValueError(f"{type(self).__name__} needs the number of features as a number, found {features!r}")
        weights = self.weights or init.uniform(-1 / math.sqrt(self.hidden), 1 / math.sqrt(self.hidden))
        first, second = random.split(key)
        found = {"w": weights(first, (features + self.hidden, self.gates * self.hidden), input_dtype(x))}
        return found if self.bias is None else found | {"b": self.bias(second, self.bias_shape(), input_dtype(x))}

    def memory(self, x: Any) -> Any:
        if not self.stateful:
            return ()
        shape = self.state_shape(input_shape(x))
        if not all(isinstance(n, int) for n in shape):
            raise XlcValueError(f"the memory of a stateful {type(self).__name__} needs sizes in numbers, found {shape}")
        return {name: np.zeros(shape, input_dtype(x)) for name in self.states}

    def state_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """That of each part of the state, (..., hidden), for inputs of this shape."""
        if len(shape) < 2:
            raise XlcTypeError(f"{type(self).__name__} expects x of shape (..., time, features), found {len(shape)} dimensions")
        return (*(shape[1:-1] if self.time_major else shape[:-2]), self.hidden)

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        y, state = through(self, params, x, memory or None)
        return y, state if self.stateful else ()


@_public
def through(layer: Recurrent, params: Any, x: Any, state: Any) -> tuple[Any, Any]:
    """(outputs, last state) of one sequence."""
    expected = layer.state_shape(x.shape)
    if state is None:
        state = dict.fromkeys(layer.states, np.zeros(expected, np.result_type(x, params["w"])))
    found = {name: tuple(input_shape(part)) for name, part in state.items()}
    if found != dict.fromkeys(layer.states, expected):
        raise XlcValueError(f"{type(layer).__name__} expects {' and '.join(layer.states)} of shape {expected} as its state, found {found}")

    def step(state: Any, row: Any) -> Any:
        state = layer.cell(params, row, state)
        return state, state["h"] if layer.sequence else None

    state, y = scan(step, state, x if layer.time_major else np.moveaxis(x, -2, 0), reverse=layer.reverse)
    if not layer.sequence:
        return state["h"], state
    return y if layer.time_major else np.moveaxis(y, 0, -2), state


@dataclass(frozen=True)
class RNN(Recurrent):
    """``rnn_cell``: h' = tanh([x, h] @ w + b), or another activation. J. Elman, Cognitive Science 14, 1990."""

    _: KW_ONLY
    activation: Callable[[Any], Any] = np.tanh
    gates = 1

    def cell(self, params: dict[str, Any], x: Any, state: dict[str, Any]) -> dict[str, Any]:
        return {"h": rnn_cell(x, state["h"], params["w"], params.get("b", 0.0), activation=self.activation)}


@dataclass(frozen=True)
class LSTM(Recurrent):
    """``lstm_cell``, whose four gates are one contraction; its state is {"h", "c"}. ``forget_bias`` is added to the forget gate (1 in R.
    Jozefowicz et al., ICML 2015)."""

    _: KW_ONLY
    forget_bias: float = 0.0
    gates = 4
    states = ("h", "c")

    def cell(self, params: dict[str, Any], x: Any, state: dict[str, Any]) -> dict[str, Any]:
        h, c = lstm_cell(x, (state["h"], state["c"]), params["w"], params.get("b", 0.0), forget_bias=self.forget_bias)
        return {"h": h, "c": c}


@dataclass(frozen=True)
class GRU(Recurrent):
    """``gru_cell`` in PyTorch's form, with biases (2, 3 hidden)."""

    gates = 3

    def bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.hidden)

    def cell(self, params: dict[str, Any], x: Any, state: dict[str, Any]) -> dict[str, Any]:
        return {"h": gru_cell(x, state["h"], params["w"], params.get("b", 0.0))}


def Bidirectional(layer: Recurrent) -> Parallel:
    """The layer from the first step to the last and another from the last to the first, side by side on the channels. M. Schuster and K.
    Paliwal, IEEE Trans. Signal Processing 45, 1997."""
    if not isinstance(layer, Recurrent):
        raise XlcTypeError(f"Bidirectional expects a recurrent layer, such as LSTM(64), found {type(layer).__name__}")
    return Parallel(layer, replace(layer, reverse=not layer.reverse))
