"""The optimiser: rules, then a step of the learning rate along what they give.

    optimizer.init(params) -> state                                {"step": 0, "rules": (state of each rule, ...)}
    optimizer.update(grads, state, params) -> (params, state)      p - lr(step) * direction

``chain`` puts rules in front of an optimiser (they see the gradient) and behind it (they see the direction).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import tree
from ..errors import XlcTypeError, XlcValueError
from .rules import Rule, as_array, at_dtype, widen, zeros_like


@dataclass(frozen=True)
class Optimizer:
    """``lr`` is a number, a traced scalar, or a schedule: a function of the step (0 at the first update)."""

    lr: Any
    rules: tuple[Rule, ...] = ()

    def init(self, params: Any) -> dict[str, Any]:
        """The state of before the first step. Raises XlcTypeError for a parameter that is not a float."""
        _check_floats(params)
        return {"step": np.zeros((), np.int32), "rules": tuple(rule.init(params) for rule in self.rules)}

    def update(self, grads: Any, state: Any, params: Any, lr: Any = None) -> tuple[Any, Any]:
        """New parameters and state. ``lr`` (a number, or a scalar that is an argument of the jitted step) takes the place of the
        optimiser's own for this step. Raises XlcValueError where the nesting or shapes of the gradients are not those of the
        parameters."""
        _check_alike(grads, params)
        step, rules = state["step"], []
        direction = tree.map(widen, grads)
        for rule, remembered in zip(self.rules, state["rules"], strict=True):
            direction, remembered = rule.apply(direction, remembered, params, step)
            rules.append(remembered)
        rate = self.lr if lr is None else lr
        rate = rate(step) if callable(rate) else rate

        def move(p: Any, d: Any) -> Any:
            w = widen(p)
            return (w - at_dtype(rate, w) * d.astype(w.dtype)).astype(as_array(p).dtype)

        return tree.map(move, params, direction), {"step": step + np.int32(1), "rules": tuple(rules)}


def chain(*parts: Any) -> Optimizer:
    """Rules and one optimiser, in order: ``chain(clip_by_global_norm(5.0), adam(1e-3), weight_decay(1e-2))``. A chain is an optimiser, and
    may be part of another."""
    wrong = next((p for p in parts if not isinstance(p, (Rule, Optimizer))), None)
    if wrong is not None:
        raise XlcTypeError(f"chain expects rules and one optimiser, found {type(wrong).__name__}" +
                           ("; gradient accumulation goes around the chain: accumulate(chain(...), every)"
                            if isinstance(wrong, Accumulate) else ""))
    optimizers = [p for p in parts if isinstance(p, Optimizer)]
    if len(optimizers) != 1:
        raise XlcValueError(f"chain expects exactly one optimiser among its parts, found {len(optimizers)}; end with sgd(lr) if the rules "
                            "give the direction themselves")
    rules = tuple(rule for p in parts for rule in (p.rules if isinstance(p, Optimizer) else (p,)))
    return Optimizer(optimizers[0].lr, rules)


@dataclass(frozen=True)
class Accumulate:
    """An optimiser that steps once in ``every`` calls, along the mean of their gradients."""

    optimizer: Optimizer
    every: int

    def init(self, params: Any) -> dict[str, Any]:
        return {"optimizer": self.optimizer.init(params), "sum": tree.map(zeros_like, params), "calls": np.zeros((), np.int32)}

    def update(self, grads: Any, state: Any, params: Any, lr: Any = None) -> tuple[Any, Any]:
        """As ``Optimizer.update``; between steps the parameters are returned as they are."""
        _check_alike(grads, params)
        total = tree.map(lambda s, g: s + widen(g), state["sum"], grads)
        calls = state["calls"] + np.int32(1)
        due = calls == self.every
        mean = tree.map(lambda s: s / s.dtype.type(self.every), total)
        moved = self.optimizer.update(mean, state["optimizer"], params, lr)
        new, optimizer = tree.map(lambda a, b: np.where(due, a, b), moved, (params, state["optimizer"]))
        kept = {"optimizer": optimizer, "sum": tree.map(lambda s: np.where(due, np.zeros_like(s), s), total),
                "calls": np.where(due, np.int32(0), calls)}
        return new, kept


def accumulate(optimizer: Optimizer, every: int) -> Accumulate:
    """Gradient accumulation: batches that do not fit into memory, ``every`` of them to one step. The optimiser's step counts steps, not
    calls, and so does its schedule."""
    if not isinstance(every, int) or every < 1:
        raise XlcValueError(f"accumulate expects how many calls make one step, a positive int, found {every!r}")
    if not isinstance(optimizer, Optimizer):
        raise XlcTypeError(f"accumulate expects an optimiser such as sgd(0.1), found {type(optimizer).__name__}")
    return Accumulate(optimizer, every)


# ------------------------------------------------------------------------------------------------ checks


def _check_floats(params: Any) -> None:
    leaves, nest = tree.flatten(params)
    for leaf, path in zip(leaves, tree.paths(nest, "params"), strict=True):
        if not isinstance(leaf, float) and "float" not in str(getattr(leaf, "dtype", "")):
            found = f"an array of {leaf.dtype}" if hasattr(leaf, "dtype") else f"{type(leaf).__name__} {leaf!r}"
            raise XlcTypeError(f"optimisers move floats, and {path} is {found}; keep what is not trained outside of the parameters")


def _check_alike(grads: Any, params: Any) -> None:
    (leaves, nest), (found, other) = tree.flatten(params), tree.flatten(grads)
    if other != nest:
        raise XlcValueError(f"the gradients are nested as {other}, and the parameters as {nest}; take the gradients of these parameters, "
                            "grads = xlc.grad(loss)(params, ...)")
    for k, (p, g) in enumerate(zip(leaves, found, strict=True)):
        if np.shape(p) != np.shape(g):
            path = tree.paths(nest, "params")[k]
            raise XlcValueError(f"{path} has the shape {np.shape(p)}, and its gradient {np.shape(g)}")
