"""Rules: what turns gradients into the direction of a step. An optimiser is a sequence of rules and a learning rate.

    rule.init(params) -> state
    rule.apply(updates, state, params, step) -> (updates, state)     updates are gradients at first, the direction at last

``leafwise`` makes a rule of a formula for one array, which is how the optimisers are written:

    leafwise("velocity", formula=lambda g, step, v: (v := beta * v + g, v))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import tree
from ..errors import XlcTypeError, XlcValueError


@dataclass(frozen=True)
class Rule:
    """``init(params) -> state``; ``apply(updates, state, params, step) -> (updates, state)``, pure, traceable. ``step`` counts from 0."""

    init: Callable[[Any], Any]
    apply: Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def stateless(apply: Callable[[Any, Any], Any]) -> Rule:
    """A rule that remembers nothing: ``apply(updates, params) -> updates``."""
    return Rule(lambda params: (), lambda updates, state, params, step: (apply(updates, params), state))


def leafwise(*slots: str, formula: Callable[..., tuple[Any, ...]]) -> Rule:
    """A rule that treats every array alike: ``formula(g, step, *slots) -> (direction, *new slots)``. The slots begin as zeros; the state is
    a dict of them, each nested as the parameters are."""

    def init(params: Any) -> Any:
        return {slot: tree.map(zeros_like, params) for slot in slots}

    def apply(updates: Any, state: Any, params: Any, step: Any) -> tuple[Any, Any]:
        leaves, nest = tree.flatten(updates)
        columns = [tree.leaves(state[slot]) for slot in slots]
        out = [formula(g, step, *values) for g, *values in zip(leaves, *columns, strict=True)]
        direction, *new = ([row[k] for row in out] for k in range(1 + len(slots)))
        return tree.unflatten(nest, direction), {slot: tree.unflatten(nest, v) for slot, v in zip(slots, new, strict=True)}

    return Rule(init, apply)


# ------------------------------------------------------------------------------------------------ dtypes


def as_array(value: Any) -> Any:
    """An array or traced value as it is; a Python number as an array."""
    return value if hasattr(value, "dtype") else np.asarray(value, np.float64)


def wide(dtype: Any) -> np.dtype:
    """The dtype in which parameters of ``dtype`` are accumulated: float32 for the halves."""
    return np.dtype(np.float32) if np.dtype(dtype).itemsize < 4 else np.dtype(dtype)


def widen(value: Any) -> Any:
    array = as_array(value)
    return array.astype(wide(array.dtype))


def zeros_like(param: Any) -> Any:
    return np.zeros_like(as_array(param), dtype=wide(as_array(param).dtype))


def at_dtype(number: Any, like: Any) -> Any:
    """A number, traced or not, as one that does not widen ``like``."""
    return as_array(number).astype(like.dtype)


# ------------------------------------------------------------------------------------------------ rules that users chain


def global_norm(values: Any) -> Any:
    """sqrt(sum of the squares of all elements of all leaves), at least in float32; 0 for no leaves."""
    squares = [np.sum(np.square(widen(v))) for v in tree.leaves(values)]
    return np.sqrt(sum(squares[1:], squares[0])) if squares else np.float32(0)


def clip_by_global_norm(max_norm: Any) -> Rule:
    """Scale all gradients by max_norm / max(norm, max_norm), the norm being that of all of them together, so that the direction stays.
    A gradient that is not finite makes all of them nan, as in TensorFlow. R. Pascanu et al., arXiv:1211.5063."""
    if isinstance(max_norm, (int, float)) and not max_norm > 0:
        raise XlcValueError(f"clip_by_global_norm expects a positive norm, found {max_norm}")

    def apply(updates: Any, params: Any) -> Any:
        norm = global_norm(updates)
        limit = at_dtype(max_norm, norm)
        scale = limit / np.maximum(norm, limit)
        return tree.map(lambda g: widen(g) * at_dtype(scale, widen(g)), updates)

    return stateless(apply)


def weight_decay(rate: Any, mask: Any = None) -> Rule:
    """Add rate * p to what will move p.

    In front of an optimiser this is the gradient of the penalty rate * sum(p**2) / 2 (L2), and the optimiser scales it like the rest of the
    gradient; behind one it is decoupled: p -= lr * rate * p, whatever the gradients were (I. Loshchilov and F. Hutter, arXiv:1711.05101).

        chain(weight_decay(1e-4), sgd(0.1))          chain(adam(1e-3), weight_decay(1e-2))      the same as adamw(1e-3, weight_decay=1e-2)

    ``mask``: a pytree of bools nested as the parameters, or a function of the parameters that gives one: True decays. Biases and scales are
    usually left out: ``mask=lambda p: xlc.tree.map(lambda a: a.ndim > 1, p)``."""

    def apply(updates: Any, params: Any) -> Any:
        chosen = tree.map(lambda p: True, params) if mask is None else mask(params) if callable(mask) else mask
        wrong = next((m for m in tree.leaves(chosen) if not isinstance(m, (bool, np.bool_))), None)
        if wrong is not None:
            raise XlcTypeError(f"the mask of weight_decay has a bool for every parameter, found {wrong!r}")
        return tree.map(lambda g, p, on: widen(g) + at_dtype(rate, widen(g)) * widen(p) if on else g, updates, params, chosen)

    return stateless(apply)
