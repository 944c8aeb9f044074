"""An exponential moving average of the weights, which often generalise better than the last ones.

    average = xlc.optim.ema(0.999)
    shadow = average.init(params)
    shadow = average.update(shadow, params, num_updates=state["step"])        after each step, inside the jitted function
    params = average.weights(shadow, params)                                  for evaluation: the average, in the parameters' dtypes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import tree
from ..errors import XlcValueError
from .rules import as_array, at_dtype, widen


@dataclass(frozen=True)
class Average:
    """``s = d*s + (1-d)*p``, in at least 32 bits."""

    decay: float

    def init(self, params: Any) -> Any:
        """The average of one value: the parameters themselves (copied, so that either may be donated)."""
        return tree.map(lambda p: widen(p) * 1, params)

    def update(self, shadow: Any, params: Any, num_updates: Any = None) -> Any:
        """The average with the new parameters in it. ``num_updates`` n, the steps so far, makes it quick at first, as in TensorFlow:
        d = min(decay, (1 + n) / (10 + n))."""
        d: Any = self.decay if num_updates is None else np.minimum(self.decay, (1.0 + num_updates) / (10.0 + num_updates))

        def blend(s: Any, p: Any) -> Any:
            s, rate = as_array(s), as_array(d)
            return s * at_dtype(rate, s) + widen(p).astype(s.dtype) * at_dtype(1 - rate, s)

        return tree.map(blend, shadow, params)

    def weights(self, shadow: Any, params: Any) -> Any:
        """The average as parameters, in the dtypes of ``params``."""
        return tree.map(lambda s, p: as_array(s).astype(as_array(p).dtype), shadow, params)


def ema(decay: float) -> Average:
    """An exponential moving average; decay is typically 0.99 to 0.9999."""
    if not (isinstance(decay, (int, float)) and 0 <= decay <= 1):
        raise XlcValueError(f"the decay of an average must be a number in [0, 1], found {decay!r}")
    return Average(float(decay))
