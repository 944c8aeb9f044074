"""Functions called outside any trace: compiled for their arguments, kept, and run at once. Those of ``xlc.numpy``:

    xlc.numpy.logsumexp(a, axis=1)    ->    jit(lambda x: logsumexp(x, axis=1))(a)

Arrays are arguments of the compiled function; everything else (axes, dtypes, numbers) is part of what is compiled. Elementwise functions
take Python numbers as arguments too, so that ``multiply(a, 2.5)`` is not compiled again for 2.6; others say which numbers they
take so: ``public(..., numbers=(float,))``.

Control flow takes functions of the user's, and what these close over may be anything, and anything may have happened to it since the last
call. So they are traced at each call, in which their arrays become arguments; what is kept is the compiled program, by the text of what was
traced (``at_once``): nothing stays as it was at an earlier call, and other values in the same program compile nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from .. import config
from ..ir.text import print_graph
from .array import Tracer
from .jit import Compiled, jit
from .table import WEAK_NUMBERS, call
from .trace import current, mark
from .tree import Tree, flatten, unflatten

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = 1024
_kept: OrderedDict[Any, Any] = OrderedDict()
_programs: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.Lock()
Numbers = tuple[type, ...]  # the types of Python numbers that are arguments


class _Hole:
    """The place of an array in a list of settings."""


def public(name: str, f: Callable[..., Any], *, numbers: Numbers = ()) -> Callable[..., Any]:
    """The function that users call: part of the running trace, or compiled and run."""
    numbers = (int, float) if name in WEAK_NUMBERS else numbers

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            mark()
            return call(f, name, args, kwargs)
        return _run(name, f, args, kwargs, numbers)

    wrapped.__name__ = wrapped.__qualname__ = name
    wrapped.__module__ = f.__module__.rpartition(".")[0] or f.__module__
    return wrapped


def exported(*, numbers: Numbers = ()) -> Callable[[F], F]:
    """``public`` as a decorator, under the function's own name."""
    return lambda f: public(f.__name__, f, numbers=numbers)  # type: ignore[return-value]


def _run(name: str, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], numbers: Numbers) -> Any:
    leaves, tree = flatten((args, kwargs))
    arrays = [v for v in leaves if _is_array(v, numbers)]
    settings = tuple(_Hole if _is_array(v, numbers) else _hashable(v) for v in leaves)
    key = (name, f, tree, settings)
    found = _kept.get(key)
    if found is None:
        found = _kept[key] = jit(_closed(name, f, tree, leaves, numbers))
        if len(_kept) > _KEPT:
            _kept.popitem(last=False)
    else:
        _kept.move_to_end(key)
    return found(*arrays)


def at_once(f: Callable[..., Any], *operands: Any) -> Any:
    """``f(*operands)``, traced for these operands; compiled, unless a call before has compiled the same program; and run."""
    from ..pipeline import compile_graph

    lowered, arrays = jit(f).owner.opened(operands)
    graph = lowered.graph
    held = tuple(n["value"] for n in graph.everywhere() if n.op.name == "constant")
    key = (print_graph(graph, locations=False), tuple(p.type for p in graph.params), held, config.key())
    with _lock:
        program = _programs.get(key)
        if program is None:
            program = _programs[key] = compile_graph(graph)
            if len(_programs) > _KEPT:
                _programs.popitem(last=False)
        else:
            _programs.move_to_end(key)
    return Compiled(lowered, program).run(arrays)


def _closed(name: str, f: Callable[..., Any], tree: Tree, leaves: list[Any], numbers: Numbers) -> Callable[..., Any]:
    """The function of the arrays alone."""
    settings = [_Hole if _is_array(v, numbers) else v for v in leaves]

    def closed(*arrays: Any) -> Any:
        rest = iter(arrays)
        args, kwargs = unflatten(tree, [next(rest) if v is _Hole else v for v in settings])
        return call(f, name, args, kwargs)

    closed.__name__ = closed.__qualname__ = name
    return closed


def _is_array(v: Any, numbers: Numbers) -> bool:
    kind = type(v)
    if kind in (bool, int, float):
        return kind in numbers
    return kind is np.ndarray or isinstance(v, (np.generic, Tracer)) or hasattr(kind, "__array__") or hasattr(kind, "__dlpack__")


def _hashable(v: Any) -> Any:
    """A setting as part of a key: 1, 1.0 and True are different ones."""
    try:
        hash(v)
    except TypeError:
        return (type(v), repr(v))
    return (type(v), str(v) if isinstance(v, float) else v)
