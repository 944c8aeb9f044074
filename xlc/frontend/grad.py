"""Reverse mode for users: ``grad``, ``value_and_grad``, ``vjp``, ``stop_gradient``.

    dw = xlc.grad(lambda w: np.tanh(x @ w).sum())(w)          outside a trace: compiled, run at once, kept for the next call
    xlc.jit(xlc.grad(f)), xlc.grad(xlc.grad(f))               inside a trace: part of it

What enters is a function of arrays (or pytrees of them). It runs on fresh parameters, so that what it closes over is constant to it; the
cotangents come from ``transform.grad``; then the fresh parameters are replaced by the actual arguments.
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
from ..ir.op import lookup
from ..ir.types import Type
from ..run.native import Dispatcher
from ..transform.calls import substitute
from ..transform.grad import cotangents
from .array import Storage, Tracer, lift
from .elementwise import cast, show_shape
from .jit import jit, names_of
from .trace import current, describe
from .tree import Tree, flatten, map_leaves, paths, unflatten

__all__ = ["argument_names", "grad", "stop_gradient", "value_and_grad", "vjp", "what"]


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar function with respect to the positional arguments ``argnums`` (a tuple gives a tuple), in their nesting.

    f must return a float scalar; with ``has_aux`` it returns (scalar, anything else), and the result is (gradient, anything else).
    Raises XlcTypeError for arguments that are not floats and results that are no scalar, XlcIndexError for wrong argnums."""
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both.in_trace(args, kwargs)  # type: ignore[attr-defined]
        return (found, value[1]) if has_aux else found

    return _runnable(gradient, f, ("grad", _key(argnums), has_aux))


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As ``grad``, and what f returned comes first: ``(value, gradient)``, with ``has_aux`` ``((value, aux), gradient)``."""
    name = getattr(f, "__name__", "the function")
    if not callable(f):
        raise XlcTypeError(f"grad expects a function, found {describe(f)}; write xlc.grad(f)(x), not xlc.grad(f(x))")
    chosen = _key(argnums)
    positions = chosen if isinstance(chosen, tuple) else (chosen,)

    @wraps(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        wrt = _Inputs(f, args, _resolve(f, positions, len(args)), must_be_float=True)
        out = f(*wrt.args, **kwargs)
        if has_aux and (not isinstance(out, tuple) or len(out) != 2):
            raise XlcTypeError(f"{name} must return a pair (value, aux) where has_aux=True, it returned {what(out)}")
        value, aux = out if has_aux else (out, None)
        y = _scalar(value, name)
        found = cotangents([y], [full(y.type, 1)], wrt.params)
        leaves, tree = flatten(aux)
        extra = [leaf.node if isinstance(leaf, Tracer) else None for leaf in leaves]
        y2, *rest = wrt.actual([y, *found, *extra])
        value = Tracer(y2 if y2 is not None else y)
        grads = wrt.nested(rest[:len(found)])
        result = grads if isinstance(chosen, tuple) else grads[0]
        if not has_aux:
            return value, result
        aux = unflatten(tree, [leaf if n is None else Tracer(n) for leaf, n in zip(leaves, rest[len(found):], strict=True)])
        return (value, aux), result

    return _runnable(both, f, ("value_and_grad", chosen, has_aux))


def vjp(f: Callable[..., Any], *args: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``(f(*args), pullback)``; ``pullback(ct)`` takes a cotangent nested as the result and gives a tuple with the cotangent of every
    argument (None for arrays that are not floats). With ``has_aux`` f returns (result, aux), and so does vjp: ``(y, pullback, aux)``."""
    if current() is None:
        return _vjp_at_once(f, args, has_aux)
    wrt = _Inputs(f, args, range(len(args)), must_be_float=False)
    out, aux = _split_aux(f(*wrt.args), has_aux, f)
    leaves, tree = flatten(out)
    results = [lift(leaf).node for leaf in leaves]
    extra, extra_tree = flatten(aux)

    def pullback(ct: Any) -> tuple[Any, ...]:
        seeds = _seeds(ct, tree, [r.type for r in results])
        return wrt.nested(wrt.actual(cotangents(results, seeds, wrt.params)))

    y = unflatten(tree, [Tracer(n) for n in wrt.actual(results) if n is not None])
    more = [Tracer(n) for n in wrt.actual([lift(leaf).node for leaf in extra]) if n is not None]
    return (y, pullback, unflatten(extra_tree, more)) if has_aux else (y, pullback)


def stop_gradient(x: Any) -> Any:
    """The same value (or pytree of values), constant to every gradient."""
    if current() is None:
        return x

    def stopped(leaf: Any) -> Any:
        if isinstance(leaf, Tracer) and leaf.node.dtype.is_float:
            return Tracer(lookup("stop_gradient")(leaf.node), leaf._weak)
        return leaf

    return map_leaves(stopped, x)


# ------------------------------------------------------------------------------------------------ inputs and results


class _Inputs:
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
        """Cotangents of the parameters in the nesting of the arguments, one entry per position."""
        values = [Tracer(full(p.type, 0) if g is None else g, weak) for p, g, weak in zip(self.params, found, self.weak, strict=True)]
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


def _key(argnums: int | Sequence[int]) -> int | tuple[int, ...]:
    if isinstance(argnums, (int, np.integer)) and not isinstance(argnums, bool):
        return int(argnums)
    if isinstance(argnums, (tuple, list)) and argnums:
        return tuple(i for item in argnums if isinstance(i := _key(item), int))
    raise XlcTypeError(f"argnums={argnums!r}: expected a position such as 0, or a tuple of positions such as (0, 1)")


def _resolve(f: Any, positions: Sequence[int], count: int) -> list[int]:
    name = getattr(f, "__name__", "the function")
    for i in positions:
        if not -count <= i < count:
            raise XlcIndexError(f"argnums names argument {i} of {name}, which was called with {count} positional arguments; an argument "
                                "that is differentiated is passed by position, not by keyword")
    out = [i % count for i in positions]
    if len(set(out)) < len(out):
        raise XlcValueError(f"argnums={tuple(positions)} names an argument of {name} twice")
    return out


def _scalar(value: Any, name: str) -> Node:
    leaves, tree = flatten(value)
    hint = "reduce it to one number with .sum() or .mean(), or use xlc.vjp"
    if tree.kind != "leaf":
        raise XlcTypeError(f"the gradient needs a function with a scalar result, and {name} returned {what(value)}; return one number, "
                           f"further results "
                           "with has_aux=True, or use xlc.vjp")
    node = lift(leaves[0]).node
    if node.rank:
        raise XlcTypeError(f"the gradient needs a function with a scalar result, and {name} returned an array of shape "
                           f"{show_shape(node.shape)}; {hint}")
    if not node.dtype.is_float:
        raise XlcTypeError(f"the gradient needs a function with a float result, and {name} returned {node.dtype.numpy}")
    return node


def what(value: Any) -> str:
    """A result in a message."""
    if isinstance(value, Tracer):
        return f"an array of shape {show_shape(value._node.shape)}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list, dict)) else describe(value)


def _kind(leaf: Any, tracer: Tracer) -> str:
    return f"the Python {type(leaf).__name__} {leaf}" if type(leaf) in (int, bool) else f"an array of {tracer.dtype}"


def _split_aux(out: Any, has_aux: bool, f: Any) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not isinstance(out, tuple) or len(out) != 2:
        raise XlcTypeError(f"{getattr(f, '__name__', 'the function')} must return a pair (value, aux) where has_aux=True, it returned "
                           f"{what(out)}")
    return out


def _seeds(ct: Any, tree: Tree, types: Sequence[Type]) -> list[Node | None]:
    """A cotangent given by the user, checked against the result's nesting and types; Python numbers take the type of their place."""
    leaves, found = flatten(ct)
    if found != tree:
        raise XlcTypeError(f"the pullback expects a cotangent nested as the result, {tree}, found {found}")
    out: list[Node | None] = []
    for leaf, t, path in zip(leaves, types, paths(tree, "the cotangent"), strict=True):
        if not t.dtype.is_float:
            out.append(None)
            continue
        tracer = lift(leaf)
        if tracer.node.shape != t.shape or not (tracer._weak or tracer.node.dtype == t.dtype):
            raise XlcTypeError(f"{path} must have the type of the result, {t}, found {tracer.node.type}")
        out.append(cast(tracer.node, t.dtype))
    return out


# ------------------------------------------------------------------------------------------------ called on arrays


_kept: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _compiled(make: Callable[[], Callable[..., Any]], f: Any, key: Any) -> Any:
    """The jitted form of what ``make`` gives. For a function that is jitted itself it is kept with it, so that writing ``xlc.grad(f)(x)``
    again compiles nothing; its static arguments and symbolic sizes hold here too."""
    if not isinstance(f, Dispatcher):
        return jit(make())
    kept = _kept.setdefault(f, {})
    if key not in kept:
        owner: Any = f.owner
        kept[key] = jit(make(), static_argnames=tuple(owner.static), dynamic=owner.dynamic or None, fuse=owner.fuse, device=owner.device)
    return kept[key]


def _runnable(traced: Callable[..., Any], f: Any, key: Any) -> Callable[..., Any]:
    """``traced`` inside a trace; compiled and run outside one."""
    compiled: list[Any] = []

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            return traced(*args, **kwargs)
        if not compiled:
            compiled.append(_compiled(lambda: traced, f, key))
        return compiled[0](*args, **kwargs)

    wrapped.in_trace = lambda args, kwargs: traced(*args, **kwargs)  # type: ignore[attr-defined]
    wrapped.__wrapped__ = f
    return wrapped


def _vjp_at_once(f: Callable[..., Any], args: tuple[Any, ...], has_aux: bool) -> tuple[Any, ...]:
    run = f if isinstance(f, Dispatcher) else jit(f)
    y, aux = _split_aux(run(*args), has_aux, f)

    def make() -> Callable[..., Any]:
        def pull(arguments: tuple[Any, ...], ct: Any) -> tuple[Any, ...]:
            return vjp(f, *arguments, has_aux=has_aux)[1](ct)

        return pull

    compiled = jit(make())

    def pullback(ct: Any) -> tuple[Any, ...]:
        leaves, tree = flatten(y)
        given, found = flatten(ct)
        if found != tree:
            raise XlcTypeError(f"the pullback expects a cotangent nested as the result, {tree}, found {found}")
        typed = [np.asarray(g, leaf.dtype) if type(g) in (int, float) else g for g, leaf in zip(given, leaves, strict=True)]
        return compiled(args, unflatten(tree, typed))

    return (y, pullback, aux) if has_aux else (y, pullback)
