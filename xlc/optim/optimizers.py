"""The optimisers, as formulas for one array. ``g`` is its gradient, ``p`` the parameter, ``lr`` the learning rate, t the number of the
step, from 1.

    name      direction d, then p -= lr * d
    sgd       g
    momentum  v = beta*v + g;  d = v;  Nesterov: d = g + beta*v
    adagrad   s = s + g**2;  d = g / sqrt(s + eps)
    rmsprop   s = beta*s + (1-beta)*g**2;  d = g / sqrt(s + eps)
    adadelta  s = rho*s + (1-rho)*g**2;  d = sqrt(u + eps) / sqrt(s + eps) * g;  u = rho*u + (1-rho)*d**2
    adam      m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g**2;  d = m/(1-b1**t) / (sqrt(v/(1-b2**t)) + eps)
    adamw     that of adam + weight_decay * p
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from .optimizer import Optimizer, chain
from .rules import at_dtype, leafwise, weight_decay


def sgd(lr: Any) -> Optimizer:
    """Gradient descent."""
    return Optimizer(_rate(lr, "sgd"))


def momentum(lr: Any, beta: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Gradient descent along a velocity that forgets: B. Polyak, 1964; ``nesterov``: Y. Nesterov, 1983, in the form of I. Sutskever et al.,
    2013, that PyTorch and TensorFlow use.

    The learning rate is outside the velocity, as in PyTorch (dampening 0) and TensorFlow. Texts that write v = beta*v + lr*g differ only
    when the rate changes: there an old gradient keeps its old rate, here the whole velocity takes the new one."""
    beta = _fraction(beta, "beta")

    def formula(g: Any, step: Any, v: Any) -> tuple[Any, ...]:
        v = beta * v + g
        return (g + beta * v if nesterov else v), v

    return Optimizer(_rate(lr, "momentum"), (leafwise("velocity", formula=formula),))


def adagrad(lr: Any = 0.01, eps: float = 1e-8) -> Optimizer:
    """J. Duchi et al., JMLR 12, 2011: each element by the sum of its squared gradients, so that rare features learn quickly.

    eps is inside the root. PyTorch: outside, 1e-10. TensorFlow: no eps, sums that begin at 0.1."""

    def formula(g: Any, step: Any, s: Any) -> tuple[Any, ...]:
        s = s + g * g
        return g / np.sqrt(s + eps), s

    return Optimizer(_rate(lr, "adagrad"), (leafwise("squares", formula=formula),))


def rmsprop(lr: Any = 1e-3, beta: float = 0.9, eps: float = 1e-8) -> Optimizer:
    """T. Tieleman and G. Hinton, 2012: each element by a running mean of its squared gradients.

    eps is inside the root, as in TensorFlow (there 1e-10). PyTorch: outside, and beta 0.99."""
    beta = _fraction(beta, "beta")

    def formula(g: Any, step: Any, s: Any) -> tuple[Any, ...]:
        s = beta * s + (1 - beta) * g * g
        return g / np.sqrt(s + eps), s

    return Optimizer(_rate(lr, "rmsprop"), (leafwise("squares", formula=formula),))


def adadelta(lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6) -> Optimizer:
    """M. Zeiler, arXiv:1212.5701: the steps have the units of the parameters, so that no learning rate is needed; it is 1.

    The same formula and constants as PyTorch; Zeiler's rho is 0.95. TensorFlow's default for the rate, 0.001, hardly moves."""
    rho = _fraction(rho, "rho")

    def formula(g: Any, step: Any, s: Any, u: Any) -> tuple[Any, ...]:
        s = rho * s + (1 - rho) * g * g
        d = np.sqrt(u + eps) / np.sqrt(s + eps) * g
        return d, s, rho * u + (1 - rho) * d * d

    return Optimizer(_rate(lr, "adadelta"), (leafwise("squares", "steps", formula=formula),))


def adam(lr: Any = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """D. Kingma and J. Ba, arXiv:1412.6980, as in its algorithm 1 and in PyTorch: eps outside the root, after the bias correction.

    TensorFlow 1 adds eps before the correction of the second moment ("epsilon hat")."""
    beta1, beta2 = _fraction(beta1, "beta1"), _fraction(beta2, "beta2")

    def formula(g: Any, step: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        return m / _correction(beta1, step, g) / (np.sqrt(v / _correction(beta2, step, g)) + eps), m, v

    return Optimizer(_rate(lr, "adam"), (leafwise("mean", "squares", formula=formula),))


def adamw(lr: Any = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: Any = 0.01,
          mask: Any = None) -> Optimizer:
    """Adam with decoupled weight decay: I. Loshchilov and F. Hutter, arXiv:1711.05101. The decay is multiplied by the learning rate, as in
    PyTorch: p -= lr * weight_decay * p. ``mask`` as in ``weight_decay``."""
    return chain(adam(lr, beta1, beta2, eps), _decay(weight_decay, mask))


_decay = weight_decay


def _correction(beta: float, step: Any, like: Any) -> Any:
    """1 - beta**t, without the cancellation that leaves few digits of 1 - 0.999 in float32."""
    return at_dtype(-np.expm1((step + np.int32(1)) * (math.log(beta) if beta else -math.inf)), like)


def _rate(lr: Any, name: str) -> Any:
    if callable(lr) or np.ndim(lr) == 0 and (hasattr(lr, "dtype") or type(lr) in (int, float)):
        return lr
    raise XlcTypeError(f"{name} expects a learning rate that is a number, a scalar array, or a function of the step, found {lr!r}")


def _fraction(value: float, name: str) -> float:
    if isinstance(value, (int, float)) and 0 <= value < 1:
        return float(value)
    raise XlcValueError(f"{name} must be a number in [0, 1), found {value!r}")
