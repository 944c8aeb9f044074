"""What transforms for users share: fresh parameters in the place of arguments, the names of arguments, and running outside of a trace.

    wrt = Inputs(f, args, [0], must_be_float=True)      wrt.params: a parameter for each float leaf of args[0]
    y = f(*wrt.args)                                    what f computes, in terms of them
    wrt.actual([y.node])                                the same in terms of args
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ..errors import XlcIndexError, XlcTypeError, XlcValueError
from ..ir.node import Node, full, parameter
from ..run.native import Dispatcher
from ..transform.calls import substitute
from .array import Storage, Tracer, lift
from .elementwise import show_shape
from .jit import jit, names_of
from .trace import current, describe
from .tree import Tree, flatten, paths, unflatten

__all__ = ["Inputs", "argument_names", "check_argnums", "compiled_for", "resolve", "runnable", "split_aux", "what"]


class Inputs:
    """The arguments that are differentiated, as fresh parameters in the place of their leaves. ``args`` is the argument list for the
    function."""

    def __init__(self, f: Any, args: Sequence[Any], positions: Sequence[int], must_be_float: bool):
        self.args = list(args)
        self.params: list[Node] = []
        self.weak: list[bool] = []
        self.given: dict[Node, Node] = {}
        self.trees: list[tuple[Tree, list[int | None]]] = []  # per position: for each leaf, which parameter it is
        names = argument_names(f, len(args))
        for position in positions:
            leaves, tree = flatten(args[position])
            index: list[int | None] = []
            for k, (leaf, path) in enumerate(zip(leaves, paths(tree, names[position]), strict=True)):
                tracer = lift(leaf)
                if tracer.node.dtype.is_float:
                    index.append(len(self.params))
                    leaves[k] = self._fresh(tracer, path)
                elif must_be_float:
                    raise XlcTypeError(f"the gradient of {getattr(f, '__name__', 'the function')} with respect to {path} needs a float, "
                                       f"and {path} is {_kind(leaf, tracer)}; pass {path}.astype(float) or a float, or choose other "
                                       "arguments with argnums=")
                else:
                    index.append(None)
            self.args[position] = unflatten(tree, leaves)
            self.trees.append((tree, index))

    def _fresh(self, tracer: Tracer, path: str) -> Tracer:
        p = parameter(tracer.node.type, names_of(path), len(self.params))
        self.params.append(p)
        self.weak.append(tracer._weak)
        self.given[p] = tracer.node
        return Tracer(p, tracer._weak, None if tracer._weak else Storage(f"the argument {path}"))

    def actual(self, nodes: Sequence[Node | None]) -> list[Node | None]:
        """Values in terms of the actual arguments."""
        return substitute(nodes, self.given)

    def nested(self, found: Sequence[Node | None]) -> tuple[Any, ...]:
        """Values for the parameters (cotangents; None is zero) in the nesting of the arguments, one entry per position."""
        nodes = [full(p.type, 0) if g is None else g for p, g in zip(self.params, found, strict=True)]
        values = [Tracer(n, weak and n.rank == 0) for n, weak in zip(nodes, self.weak, strict=True)]
        return tuple(unflatten(tree, [None if i is None else values[i] for i in index]) for tree, index in self.trees)


def argument_names(f: Any, count: int) -> list[str]:
    """What the positional arguments are called; ``*xs`` gives ``xs[0]``."""
    names: list[str] = []
    try:
        for p in inspect.signature(f).parameters.values():
            if p.kind is p.VAR_POSITIONAL:
                names += [f"{p.name}[{i}]" for i in range(count - len(names))]
            elif p.kind is not p.KEYWORD_ONLY and p.kind is not p.VAR_KEYWORD:
                names.append(p.name)
    except (TypeError, ValueError):
        pass
    return names[:count] + [f"x{i}" for i in range(len(names), count)]


def check_argnums(argnums: int | Sequence[int]) -> int | tuple[int, ...]:
    if isinstance(argnums, (int, np.integer)) and not isinstance(argnums, bool):
        return int(argnums)
    if isinstance(argnums, (tuple, list)) and argnums:
        return tuple(i for item in argnums if isinstance(i := check_argnums(item), int))
    raise XlcTypeError(f"argnums={argnums!r}: expected a position such as 0, or a tuple of positions such as (0, 1)")


def resolve(f: Any, positions: Sequence[int], count: int) -> list[int]:
    name = getattr(f, "__name__", "the function")
    for i in positions:
        if not -count <= i < count:
            raise XlcIndexError(f"argnums names argument {i} of {name}, which was called with {count} positional arguments; an argument "
                                "that is differentiated is passed by position, not by keyword")
    out = [i % count for i in positions]
    if len(set(out)) < len(out):
        raise XlcValueError(f"argnums={tuple(positions)} names an argument of {name} twice")
    return out


def what(value: Any) -> str:
    """A result in a message."""
    if isinstance(value, Tracer):
        return f"an array of shape {show_shape(value._node.shape)}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list, dict)) else describe(value)


def _kind(leaf: Any, tracer: Tracer) -> str:
    return f"the Python {type(leaf).__name__} {leaf}" if type(leaf) in (int, bool) else f"an array of {tracer.dtype}"


def split_aux(out: Any, has_aux: bool, f: Any) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not isinstance(out, tuple) or len(out) != 2:
        raise XlcTypeError(f"{getattr(f, '__name__', 'the function')} must return a pair (value, aux) where has_aux=True, it returned "
                           f"{what(out)}")
    return out


_kept: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


_OPTIONS = ("static", "dynamic")


def compiled_for(traced: Callable[..., Any], f: Any, key: Any, keep: Sequence[str] = _OPTIONS) -> Any:
    """The jitted form of ``traced``, which computes something from ``f``. For a function that is jitted itself it is kept with it, so that
    writing ``xlc.grad(f)(x)`` again compiles nothing. ``keep``: whether its static arguments and its symbolic sizes hold here too, as they
    do where the arguments are the same."""
    if not isinstance(f, Dispatcher):
        return jit(traced)
    kept = _kept.setdefault(f, {})
    if key not in kept:
        owner: Any = f.owner
        kept[key] = jit(traced, static_argnames=tuple(owner.static) if "static" in keep else (),
                        dynamic=(owner.dynamic or None) if "dynamic" in keep else None, fuse=owner.fuse, device=owner.device)
    return kept[key]


def runnable(traced: Callable[..., Any], f: Any, key: Any, keep: Sequence[str] = _OPTIONS) -> Callable[..., Any]:
    """``traced`` inside a trace; compiled (see ``compiled_for``) and run outside one."""
    compiled: list[Any] = []

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            return traced(*args, **kwargs)
        if not compiled:
            compiled.append(compiled_for(traced, f, key, keep))
        return compiled[0](*args, **kwargs)

    wrapped.in_trace = lambda args, kwargs: traced(*args, **kwargs)  # type: ignore[attr-defined]
    wrapped.__wrapped__ = f
    return wrapped
