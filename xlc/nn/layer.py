"""Layers: what makes parameters for an input, and a pure function of parameters and input.

    net = xlc.nn.Sequential(xlc.nn.Conv(6, 5), xlc.nn.relu, xlc.nn.MaxPool(2), xlc.nn.Flatten(), xlc.nn.Dense(10))
    params = net.init(xlc.random.key(0), xlc.spec(("batch", 28, 28, 1)))      a pytree: what is trained
    scores = net.apply(params, images)                                        traceable, and for arrays at once

What a network carries besides, the running moments of ``BatchNorm``, is its memory, a second pytree; dropout takes a key:

    memory = net.memory(xlc.spec(("batch", 28, 28, 1)))
    scores, memory = net.apply(params, images, memory, key=key, training=True)

A layer of one's own is a subclass with ``init`` and ``forward`` (and ``memory``); a plain function of x is a layer already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from .. import numpy as np
from .. import random
from ..errors import XlcTypeError
from ..frontend.jit import jit, spec


class Layer:
    """``init`` and ``memory`` take an array, or an ``xlc.spec``, that stands for the input; parameters have its dtype if that is a float,
    else float32."""

    def init(self, key: Any, x: Any) -> Any:
        """New parameters; () where there are none."""
        return ()

    def memory(self, x: Any) -> Any:
        """The memory of before the first batch; () where there is none."""
        return ()

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        """(result, new memory). ``memory`` is None where the caller keeps none, ``key`` None where there is no randomness."""
        raise NotImplementedError(f"{type(self).__name__} defines forward(params, x, memory, key, training) -> (y, memory)")

    def apply(self, params: Any, x: Any, memory: Any = None, *, key: Any = None, training: bool = False) -> Any:
        """The result for x; with a memory (result, new memory). ``training`` drops out and normalises by the batch."""
        y, new = self.forward(params, x, memory, key, training)
        return y if memory is None else (y, new)


@dataclass(frozen=True)
class Function(Layer):
    """A function of x alone."""

    function: Callable[[Any], Any]

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        return self.function(x), ()


def as_layer(value: Any) -> Layer:
    if isinstance(value, Layer):
        return value
    if isinstance(value, type) or not callable(value):
        found = f"the class {value.__name__}; write {value.__name__}(...)" if isinstance(value, type) else type(value).__name__
        raise XlcTypeError(f"a network is made of layers and functions, found {found}")
    return Function(value)


class _Several(Layer):
    """Layers by number: parameters and memory are tuples, an entry for each."""

    def __init__(self, *layers: Any):
        self.layers = tuple(map(as_layer, layers))

    def inputs(self, x: Any) -> list[Any]:
        """The spec of each layer's input."""
        return [x] * len(self.layers)

    def init(self, key: Any, x: Any) -> Any:
        return tuple(layer.init(random.fold_in(key, k), v) for k, (layer, v) in enumerate(zip(self.layers, self.inputs(x), strict=True)))

    def memory(self, x: Any) -> Any:
        return tuple(layer.memory(v) for layer, v in zip(self.layers, self.inputs(x), strict=True))

    def part(self, k: int, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        """Layer number k, with what belongs to it."""
        kept, drawn = None if memory is None else memory[k], None if key is None else random.fold_in(key, k)
        return self.layers[k].forward(params[k], x, kept, drawn, training)


class Sequential(_Several):
    """One layer after the other."""

    def inputs(self, x: Any) -> list[Any]:
        found = [x]
        for layer in self.layers:
            found.append(result_spec(layer, found[-1]))
        return found[:-1]

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        new = []
        for k in range(len(self.layers)):
            x, kept = self.part(k, params, x, memory, key, training)
            new.append(kept)
        return x, tuple(new)


class Parallel(_Several):
    """Several layers on the same input, joined: ``Parallel(a, b, join=np.add)`` gives join(a(x), b(x)); without ``join`` the channels of
    the results stand side by side, as in Inception."""

    def __init__(self, *layers: Any, join: Callable[..., Any] | None = None):
        super().__init__(*layers)
        self.join = join or (lambda *found: np.concatenate(found, axis=-1))

    def forward(self, params: Any, x: Any, memory: Any, key: Any, training: bool) -> tuple[Any, Any]:
        found = [self.part(k, params, x, memory, key, training) for k in range(len(self.layers))]
        return self.join(*(y for y, _ in found)), tuple(new for _, new in found)


def Residual(*body: Any, shortcut: Any = lambda x: x) -> Parallel:
    """x + body(x); ``shortcut`` is what takes the place of x where the shapes differ. K. He et al., arXiv:1512.03385."""
    return Parallel(Sequential(*body), shortcut, join=lambda y, x: y + x)


# ------------------------------------------------------------------------------------------------ inputs


def input_shape(x: Any) -> tuple[Any, ...]:
    return x.type.shape if hasattr(x, "type") else numpy.shape(x)


def input_dtype(x: Any) -> Any:
    """The dtype of parameters for this input."""
    dtype = x.type.dtype.numpy if hasattr(x, "type") else np.asarray(x).dtype
    return dtype if "float" in dtype.name else numpy.dtype(numpy.float32)


def result_spec(layer: Layer, x: Any) -> Any:
    """The spec of what the layer gives for x: it is traced, and nothing is computed."""
    like = x if hasattr(x, "type") else spec(numpy.shape(x), np.asarray(x).dtype)
    result = jit(lambda key, x: layer.forward(layer.init(key, like), x, None, key, True)[0]).lower(spec(2, "uint32"), like).graph.results[0]
    return spec(result.type.shape, result.type.dtype)
