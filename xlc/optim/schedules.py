"""Learning rates as functions of the step: pure and traceable, evaluated inside the jitted step from the counter in the state.

    xlc.optim.sgd(xlc.optim.exponential(0.8, 0.99, 600))          0.8 * 0.99**(step / 600)
    xlc.optim.adam(xlc.optim.warmup(xlc.optim.cosine(1e-3, 10_000), 500))

The first step is step 0. A schedule takes an int, an array or a traced value, and gives a float64 scalar (array for array), which the
optimiser rounds to the precision that it computes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import XlcValueError

Schedule = Callable[[Any], Any]


def exponential(lr: float, rate: float, decay_steps: int, staircase: bool = False) -> Schedule:
    """lr * rate**(step / decay_steps); ``staircase``: the exponent is rounded down, the rate falls once in ``decay_steps``."""
    _positive(decay_steps, "decay_steps")
    if not rate > 0:
        raise XlcValueError(f"rate must be positive, found {rate!r}")

    def schedule(step: Any) -> Any:
        periods = step // decay_steps if staircase else step / decay_steps
        return lr * np.exp(periods * math.log(rate))

    return schedule


def cosine(lr: float, decay_steps: int, final: float = 0.0) -> Schedule:
    """From lr to ``final`` (a rate too) along half a cosine, within ``decay_steps``; then ``final``. I. Loshchilov and F. Hutter,
    arXiv:1608.03983, without restarts."""
    _positive(decay_steps, "decay_steps")

    def schedule(step: Any) -> Any:
        done = np.minimum(step, decay_steps) / decay_steps
        return final + (lr - final) * 0.5 * (1 + np.cos(math.pi * done))

    return schedule


def warmup(after: float | Schedule, steps: int) -> Schedule:
    """During the first ``steps`` a straight line up to the rate of ``after`` at 0: (step + 1) / steps of it; then ``after``, whose step 0
    is the end of the warm-up. P. Goyal et al., arXiv:1706.02677."""
    _positive(steps, "steps")
    main: Schedule = after if callable(after) else lambda step: after

    def schedule(step: Any) -> Any:
        return np.minimum((step + 1) / steps, 1.0) * main(np.maximum(step - steps, 0))

    return schedule


def piecewise(boundaries: Sequence[int], values: Sequence[float]) -> Schedule:
    """values[0] before step boundaries[0], values[1] from there before boundaries[1], ...; one value more than boundaries."""
    if len(values) != len(boundaries) + 1 or list(boundaries) != sorted(set(boundaries)):
        raise XlcValueError(f"piecewise expects ascending boundaries and one value more than boundaries, found {list(boundaries)} and "
                            f"{list(values)}")

    def schedule(step: Any) -> Any:
        value = step * 0.0 + values[0]
        for boundary, following in zip(boundaries, values[1:], strict=True):
            value = np.where(step >= boundary, following, value)
        return value

    return schedule


def _positive(steps: int, name: str) -> None:
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise XlcValueError(f"{name} must be a positive int, found {steps!r}")
