"""xlc: a NumPy function becomes one fused native program, with its gradient, and ships as a shared library.

    @xlc.jit
    def layer(x, w, b):
        return np.tanh(x @ w + b)

    y = layer(x, w, b)                                         compiled at the first call of a kind, then only run
    dw = xlc.grad(lambda w: layer(x, w, b).mean())(w)
    xlc.aot.export(layer, [xlc.spec(("batch", 784)), w, b], "layer.so")

Words that mean one thing here:

    trace        running a function once on traced values, to learn which operators it applies
    tracer       a traced value: dtype and shape of an array, no elements
    weak         of a Python scalar: does not widen the arrays that it meets (NEP 50)
    graph        operators on tensors, as traced; ``f.lower(x).graph``
    node         one operator of a graph
    pass         graph -> graph, meaning preserved; ``f.compile(x).after("fuse")``
    kernel       one loop nest, what several fused nodes become
    schedule     the choices that shape a kernel's loops: tiles, vectors, threads
    plan         the launches of kernels in order, and the place of every buffer
    arena        the one block of memory that holds all intermediate buffers
    executable   a plan as machine code that can be called
    spec         the type of an argument in place of an array; its sizes may be names
    pytree       nested dicts, lists, tuples, dataclasses of arrays
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import aot as aot
    from . import config as config
    from . import errors as errors
    from . import nn as nn
    from . import numpy as numpy
    from . import optim as optim
    from . import random as random
    from . import train as train
    from . import tree as tree
    from .errors import XlcError as XlcError
    from .errors import XlcIndexError as XlcIndexError
    from .errors import XlcOverflowError as XlcOverflowError
    from .errors import XlcTypeError as XlcTypeError
    from .errors import XlcValueError as XlcValueError
    from .frontend.control import cond as cond
    from .frontend.control import fori_loop as fori_loop
    from .frontend.control import scan as scan
    from .frontend.control import switch as switch
    from .frontend.control import while_loop as while_loop
    from .frontend.custom import custom_vjp as custom_vjp
    from .frontend.grad import grad as grad
    from .frontend.grad import stop_gradient as stop_gradient
    from .frontend.grad import value_and_grad as value_and_grad
    from .frontend.grad import vjp as vjp
    from .frontend.jacobian import hessian as hessian
    from .frontend.jacobian import jacfwd as jacfwd
    from .frontend.jacobian import jacrev as jacrev
    from .frontend.jit import jit as jit
    from .frontend.jit import spec as spec
    from .frontend.jvp import jvp as jvp
    from .frontend.vmap import vmap as vmap

_WHERE = {  # public name -> module that has it; imported when first used, so that `import xlc` stays quick
    **dict.fromkeys(("jit", "spec"), ".frontend.jit"),
    **dict.fromkeys(("grad", "value_and_grad", "vjp", "stop_gradient"), ".frontend.grad"),
    **dict.fromkeys(("cond", "switch", "while_loop", "fori_loop", "scan"), ".frontend.control"),
    "jvp": ".frontend.jvp",
    "vmap": ".frontend.vmap",
    **dict.fromkeys(("jacfwd", "jacrev", "hessian"), ".frontend.jacobian"),
    "custom_vjp": ".frontend.custom",
    **dict.fromkeys(("XlcError", "XlcTypeError", "XlcValueError", "XlcIndexError", "XlcOverflowError"), ".errors"),
}
_MODULES = ("aot", "config", "errors", "nn", "numpy", "optim", "random", "train", "tree")
__all__ = sorted([*_WHERE, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name], __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module 'xlc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
