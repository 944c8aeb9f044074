"""Dropout.

    y = dropout(key, x, 0.5)     ->     where(bernoulli(key, 0.5), x / 0.5, 0)

The mask is arithmetic on the key and the position, so that it is made where it is used. Only where a gradient in the same program needs it
again is it kept, a byte for each element, as that is less than to compute it twice.
"""

from __future__ import annotations

from typing import Any

from .. import numpy as np
from .. import random
from ..errors import XlcValueError
from ..frontend.eager import exported
from .functions import _arrays

LEAST = 2.0**-24  # less than the mask can tell from 0, and a number in every dtype


def dropout(key: Any, x: Any, rate: Any) -> Any:
    """x with every element set to 0 with probability ``rate``, and the others divided by 1 - rate; rates of 0 and 1 are exact. The rate
    may be traced, so that another one is not compiled again. For evaluation leave the call out, or give a rate of 0. N. Srivastava et
    al., JMLR 15, 2014."""
    if isinstance(rate, (int, float)) and not 0 <= rate <= 1:
        raise XlcValueError(f"dropout: rate, the probability of setting an element to 0, lies between 0 and 1; found {rate}")
    return _dropped(key, x, rate)


@exported(numbers=(float,))
def _dropped(key: Any, x: Any, rate: Any) -> Any:
    (x,) = _arrays(x)
    kept = 1 - np.asarray(rate)
    divisor = np.astype(np.maximum(kept, LEAST), x.dtype)  # at a rate of 1 all is dropped, and no gradient is 0 / 0
    return np.where(random.bernoulli(key, kept, shape=x.shape), x / divisor, 0)
