"""Layers that carry their parameters, so that a network is one function that says what it computes and, by this, what it needs.

    def mlp(nn, x):
        return nn.dense(nn.relu(nn.dense(x, 500)), 10)

    params, state = init(mlp, key, spec)               {"dense1": {"w": (784, 500), "b": (500,)}, "dense2": ...}, {}
    y = mlp(Layers(params, state), x)                  the functions of xlc.nn and xlc.numpy, on arrays and on traced values
    y = mlp(Layers(params, state, torch_functions), x)      PyTorch's, on tensors

Layers are numbered as they are met. Images have their channels last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import xlc
from xlc.nn.init import Initializer, constant, he_normal, zeros


class Functions:
    """xlc.nn, xlc.numpy, xlc and xlc.random as one namespace."""

    def __getattr__(self, name: str) -> Any:
        return next(getattr(place, name) for place in (xlc.nn, xlc.numpy, xlc, xlc.random) if hasattr(place, name))


class Layers:
    """One run of a network: parameters and state are read from pytrees; whatever is no layer is taken from ``functions``.

    key     for dropout; None: inference
    after   the new state, once the network has run"""

    def __init__(self, params: dict[str, Any], state: dict[str, Any] | None = None, functions: Any = None, key: Any = None):
        self.params, self.state, self.functions, self.key = params, state or {}, functions or Functions(), key
        self.after: dict[str, Any] = {}
        self.met: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.functions, name)

    @property
    def training(self) -> bool:
        return self.key is not None

    def _name(self, kind: str) -> str:
        self.met[kind] = self.met.get(kind, 0) + 1
        return f"{kind}{self.met[kind]}"

    def parameter(self, layer: str, name: str, shape: tuple[int, ...], init: Initializer) -> Any:
        """An array that is trained."""
        return self.params[layer][name]

    def kept(self, layer: str, name: str, shape: tuple[int, ...], init: Initializer) -> Any:
        """An array that is not."""
        return self.state[layer][name]

    def conv(self, x: Any, channels: int, window: int | tuple[int, int], *, stride: int = 1, padding: Any = "SAME", groups: int = 1,
             bias: bool = True, init: Initializer | None = None, bias_init: Initializer = zeros) -> Any:
        layer, sizes = self._name("conv"), (window, window) if isinstance(window, int) else window
        w = self.parameter(layer, "w", (*sizes, x.shape[-1] // groups, channels), init or he_normal())
        y = self.functions.conv(x, w, stride=stride, padding=padding, groups=groups)
        return y + self.parameter(layer, "b", (channels,), bias_init) if bias else y

    def conv_transpose(self, x: Any, channels: int, window: int, *, stride: int, bias: bool = True, init: Initializer | None = None) -> Any:
        """The size of x times the stride."""
        layer = self._name("conv_transpose")
        std = math.sqrt(2 / (x.shape[-1] * window * window / stride**2))
        w = self.parameter(layer, "w", (x.shape[-1], channels, window, window), init or xlc.nn.init.truncated_normal(std))
        y = self.functions.conv_transpose(x, w, stride=stride, padding="SAME")
        return y + self.parameter(layer, "b", (channels,), zeros) if bias else y

    def dense(self, x: Any, features: int, *, init: Initializer | None = None, bias_init: Initializer = zeros) -> Any:
        layer = self._name("dense")
        w = self.parameter(layer, "w", (x.shape[-1], features), init or he_normal())
        return x @ w + self.parameter(layer, "b", (features,), bias_init)

    def batch_norm(self, x: Any, *, eps: float = 1e-3, momentum: float = 0.1, scale: bool = True, averages: bool = True) -> Any:
        """By the moments of the batch in training, and by their running averages in inference; ``averages=False``: always by the batch."""
        layer, shape = self._name("batch_norm"), (x.shape[-1],)
        gain = self.parameter(layer, "scale", shape, constant(1)) if scale else self.functions.ones(shape, dtype=x.dtype)
        bias = self.parameter(layer, "bias", shape, zeros)
        if not averages:
            nothing = self.functions.zeros(shape, dtype=x.dtype)
            return self.functions.batch_norm(x, gain, bias, nothing, nothing, eps=eps, training=True)[0]
        mean, var = self.kept(layer, "mean", shape, zeros), self.kept(layer, "var", shape, constant(1))
        if not self.training:
            return self.functions.batch_norm(x, gain, bias, mean, var, eps=eps)
        y, mean, var = self.functions.batch_norm(x, gain, bias, mean, var, eps=eps, training=True, momentum=momentum)
        self.after[layer] = {"mean": mean, "var": var}
        return y

    def dropout(self, x: Any, rate: float) -> Any:
        if not self.training:
            return x
        return self.functions.dropout(self.functions.fold_in(self.key, int(self._name("dropout")[7:])), x, rate)

    def flatten(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1)


class _Plan(Layers):
    """Layers that write down what they need instead of reading it."""

    def __init__(self, key: Any) -> None:
        super().__init__({}, {}, None, key)
        self.needs: list[tuple[dict[str, Any], str, str, tuple[int, ...], Initializer]] = []

    def parameter(self, layer: str, name: str, shape: tuple[int, ...], init: Initializer) -> Any:
        self.needs.append((self.params, layer, name, shape, init))
        return xlc.numpy.zeros(shape, np.float32)

    def kept(self, layer: str, name: str, shape: tuple[int, ...], init: Initializer) -> Any:
        self.needs.append((self.state, layer, name, shape, init))
        return xlc.numpy.zeros(shape, np.float32)


def needs(model: Callable[..., Any], *inputs: Any) -> _Plan:
    """What a network needs, for inputs that are arrays or specs; it is traced, not run."""
    plans: list[_Plan] = []

    def trace(*traced: Any) -> int:
        plans.append(_Plan(xlc.random.key(0)))
        model(plans[-1], *traced)
        return 0

    xlc.jit(trace).lower(*inputs)
    return plans[-1]


def init(model: Callable[..., Any], key: Any, *inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Initial parameters and state: float32 arrays in dictionaries by layer and name."""
    plan = needs(model, *inputs)
    for k, (where, layer, name, shape, make) in enumerate(plan.needs):
        where.setdefault(layer, {})[name] = np.asarray(make(xlc.random.fold_in(key, k), shape))
    return plan.params, plan.state


def shapes(model: Callable[..., Any], *inputs: Any) -> dict[str, Any]:
    """The parameters as specs."""
    plan = needs(model, *inputs)
    for where, layer, name, shape, _ in plan.needs:
        where.setdefault(layer, {})[name] = xlc.spec(shape, "f4")
    return plan.params
