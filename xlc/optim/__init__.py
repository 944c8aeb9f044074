"""Optimisers: pure functions from gradients to new parameters, over any pytree.

    optimizer = xlc.optim.chain(xlc.optim.clip_by_global_norm(5.0), xlc.optim.adam(1e-3))
    state = optimizer.init(params)

    @xlc.jit(donate=("params", "state"))                     # forward, backward and update: one program that updates in place
    def step(params, state, x, y):
        value, grads = xlc.value_and_grad(loss)(params, x, y)
        params, state = optimizer.update(grads, state, params)
        return params, state, value

They also run eagerly on NumPy arrays. What an optimiser remembers is a plain pytree ``{"step": int32, "rules": (...)}``, so that it is
donated, printed and saved like any other. The learning rate is a number, a schedule (a function of the step, evaluated from the counter
in the state while the program runs), or given anew at every call, ``update(..., lr=rate)``: none of these compiles anything again.

Conventions, where the literature or the frameworks differ: see each optimiser. Common to all: the learning rate stays outside of what is
accumulated (``v = beta*v + g; p -= lr*v``, as in PyTorch and TensorFlow); parameters of 16 bits have accumulators of 32 bits, and are
computed with in 32 bits and rounded once, at the end.
"""

from .average import Average, ema
from .optimizer import Accumulate, Optimizer, accumulate, chain
from .optimizers import adadelta, adagrad, adam, adamw, momentum, rmsprop, sgd
from .rules import Rule, clip_by_global_norm, global_norm, weight_decay
from .schedules import cosine, exponential, piecewise, warmup

__all__ = ["Accumulate", "Average", "Optimizer", "Rule", "accumulate", "adadelta", "adagrad", "adam", "adamw", "chain",
           "clip_by_global_norm", "cosine", "ema", "exponential", "global_norm", "momentum", "piecewise", "rmsprop", "sgd", "warmup",
           "weight_decay"]
