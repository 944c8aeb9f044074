"""What functions that NumPy lacks mean: by Python's own math, in double precision. The interpreter and the tests ask these.

    erfinv(np.array([0.5]))     array([0.47693628])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def _each(f: Callable[[float], float]) -> Function:
    return lambda x: np.vectorize(f, otypes=[np.float64])(np.asarray(x, np.float64)).astype(x.dtype)


def _erfinv(x: float) -> float:
    """The normal quantile, and two steps of Newton's, near 1 in terms of what is missing to 1."""
    a = abs(x)
    if not 0 < a < 1:
        return math.copysign(math.inf, x) if a == 1 else math.nan if a > 1 else x
    y = NormalDist().inv_cdf(max((1 - a) / 2, 1e-300)) * -math.sqrt(0.5)
    for _ in range(2):
        missed = (1 - a) - math.erfc(y) if a > 0.5 else math.erf(y) - a
        y -= missed * math.exp(y * y) * math.sqrt(math.pi) / 2
    return math.copysign(y, x)


erf, erfc, erfinv = _each(math.erf), _each(math.erfc), _each(_erfinv)


def expit(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def silu(x: np.ndarray) -> np.ndarray:
    return x * expit(x)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 * erfc(-x / math.sqrt(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """nan at -inf, as 0 * inf is; gelu and silu, too."""
    return x * expit(2 * 0.7978845608028654 * (x + 0.044715 * x**3))
