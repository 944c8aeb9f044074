"""Initial values of parameters: functions of (key, shape, dtype), or what makes such a function.

    he = xlc.nn.init.he_normal()
    w = he(key, (3, 3, 64, 128))                 float32 unless a dtype is given; fan-in 3 * 3 * 64
    b = xlc.nn.init.zeros(key, (128,))

The last axis is that of the outputs, the one before that of the inputs; the axes before are the window of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .. import numpy as np
from .. import random
from ..errors import XlcValueError

Initializer = Callable[..., Any]
TRUNCATED_STD = 0.87962566103423978  # the standard deviation of a normal number within +-2


def constant(value: Any) -> Initializer:
    """One value (a number, or an array that broadcasts to the shape) everywhere."""

    def init(key: Any, shape: Sequence[int], dtype: Any = numpy.float32) -> Any:
        return np.full(tuple(shape), value, dtype)

    return init


zeros, ones = constant(0), constant(1)


def uniform(lo: float = -0.05, hi: float = 0.05) -> Initializer:
    """Uniform in [lo, hi)."""
    return lambda key, shape, dtype=numpy.float32: random.uniform(key, lo, hi, shape=tuple(shape), dtype=dtype)


def normal(std: float = 0.01, mean: float = 0.0) -> Initializer:
    """Normal."""
    return lambda key, shape, dtype=numpy.float32: random.normal(key, mean, std, shape=tuple(shape), dtype=dtype)


def truncated_normal(std: float = 0.01, mean: float = 0.0) -> Initializer:
    """Normal numbers within two standard deviations of the mean; ``std`` is that before the tails are cut, as in TensorFlow."""

    def init(key: Any, shape: Sequence[int], dtype: Any = numpy.float32) -> Any:
        return np.astype(random.truncated_normal(key, -2.0, 2.0, shape=tuple(shape), dtype=dtype) * float(std) + float(mean), dtype)

    return init


def variance_scaling(scale: float, mode: str, distribution: str) -> Initializer:
    """Variance scale / n, where n is the ``mode``: "fan_in" (inputs of one output), "fan_out" or "fan_avg", their mean; ``distribution`` is
    "normal", "truncated_normal" or "uniform"."""
    if mode not in ("fan_in", "fan_out", "fan_avg") or distribution not in ("normal", "truncated_normal", "uniform"):
        raise XlcValueError(f"variance_scaling: mode is fan_in, fan_out or fan_avg, distribution is normal, truncated_normal or uniform; "
                            f"found {mode!r}, {distribution!r}")

    def init(key: Any, shape: Sequence[int], dtype: Any = numpy.float32) -> Any:
        if len(shape) < 2:
            raise XlcValueError(f"variance_scaling needs a shape (..., in, out), found {tuple(shape)}; for biases use zeros or constant")
        window = math.prod(shape[:-2])
        fan_in, fan_out = shape[-2] * window, shape[-1] * window
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        std = math.sqrt(scale / max(1, n))
        made = {"normal": normal(std), "truncated_normal": truncated_normal(std / TRUNCATED_STD),
                "uniform": uniform(-math.sqrt(3) * std, math.sqrt(3) * std)}[distribution]
        return made(key, shape, dtype)

    return init


def glorot_uniform() -> Initializer:
    """Variance 2 / (fan_in + fan_out). X. Glorot and Y. Bengio, AISTATS 2010."""
    return variance_scaling(1, "fan_avg", "uniform")


def glorot_normal() -> Initializer:
    """Variance 2 / (fan_in + fan_out). X. Glorot and Y. Bengio, AISTATS 2010."""
    return variance_scaling(1, "fan_avg", "truncated_normal")


def he_uniform() -> Initializer:
    """Variance 2 / fan_in, for relu. K. He et al., arXiv:1502.01852."""
    return variance_scaling(2, "fan_in", "uniform")


def he_normal() -> Initializer:
    """Variance 2 / fan_in, for relu. K. He et al., arXiv:1502.01852."""
    return variance_scaling(2, "fan_in", "truncated_normal")


def lecun_uniform() -> Initializer:
    """Variance 1 / fan_in. Y. LeCun et al., Efficient BackProp, 1998."""
    return variance_scaling(1, "fan_in", "uniform")


def lecun_normal() -> Initializer:
    """Variance 1 / fan_in. Y. LeCun et al., Efficient BackProp, 1998."""
    return variance_scaling(1, "fan_in", "truncated_normal")
