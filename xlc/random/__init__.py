"""Random numbers without state: functions of a key.

    key = xlc.random.key(0)                              uint32[2]; the same key gives the same numbers, on every machine
    key, sub = xlc.random.split(key)
    x = xlc.random.normal(sub, shape=(3, 4))             on an array: compiled, kept and run at once
    @xlc.jit
    def noisy(key, x): return x + 0.1 * xlc.random.normal(key, shape=x.shape)      in a program: fused with what uses it

The generator is Threefry-2x32 (see ``xlc/ops/random.py``). Floats are float32 unless ``dtype`` says otherwise.
"""

from __future__ import annotations

from .continuous import cauchy, exponential, gumbel, laplace, logistic, normal, truncated_normal, uniform
from .discrete import bernoulli, categorical, permutation, randint
from .keys import bits, fold_in, key, split, threefry2x32

__all__ = ["bernoulli", "bits", "categorical", "cauchy", "exponential", "fold_in", "gumbel", "key", "laplace", "logistic", "normal",
           "permutation", "randint", "split", "threefry2x32", "truncated_normal", "uniform"]
