"""Reverse mode for users: ``grad``, ``value_and_grad``, ``vjp``, ``stop_gradient``.

    dw = xlc.grad(lambda w: np.tanh(x @ w).sum())(w)          outside a trace: compiled, run at once, kept for the next call
    xlc.jit(xlc.grad(f)), xlc.grad(xlc.grad(f))               inside a trace: part of it

What enters is a function of arrays (or pytrees of them). It runs on fresh parameters, so that what it closes over is constant to it; the
cotangents come from ``transform.grad``; then the fresh parameters are replaced by the actual arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ..errors import XlcTypeError
from ..ir.node import Node, full
from ..ir.op import lookup
from ..ir.types import Type
from ..run.native import Dispatcher
from ..transform.grad import cotangents
from .array import Tracer, lift
from .elementwise import cast, show_shape
from .jit import jit
from .trace import current, describe
from .transformed import Inputs, check_argnums, resolve, runnable, split_aux, what
from .tree import Tree, flatten, map_leaves, paths, unflatten

__all__ = ["grad", "stop_gradient", "value_and_grad", "vjp"]


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar function with respect to the positional arguments ``argnums`` (a tuple gives a tuple), in their nesting.

    f must return a float scalar; with ``has_aux`` it returns (scalar, anything else), and the result is (gradient, anything else).
    Raises XlcTypeError for arguments that are not floats and results that are no scalar, XlcIndexError for wrong argnums."""
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both.in_trace(args, kwargs)  # type: ignore[attr-defined]
        return (found, value[1]) if has_aux else found

    return runnable(gradient, f, ("grad", check_argnums(argnums), has_aux))


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As ``grad``, and what f returned comes first: ``(value, gradient)``, with ``has_aux`` ``((value, aux), gradient)``."""
    name = getattr(f, "__name__", "the function")
    if not callable(f):
        raise XlcTypeError(f"grad expects a function, found {describe(f)}; write xlc.grad(f)(x), not xlc.grad(f(x))")
    chosen = check_argnums(argnums)
    positions = chosen if isinstance(chosen, tuple) else (chosen,)

    @wraps(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        wrt = Inputs(f, args, resolve(f, positions, len(args)), must_be_float=True)
        value, aux = split_aux(f(*wrt.args, **kwargs), has_aux, f)
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

    return runnable(both, f, ("value_and_grad", chosen, has_aux))


def vjp(f: Callable[..., Any], *args: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``(f(*args), pullback)``; ``pullback(ct)`` takes a cotangent nested as the result and gives a tuple with the cotangent of every
    argument (None for arrays that are not floats). With ``has_aux`` f returns (result, aux), and so does vjp: ``(y, pullback, aux)``."""
    if current() is None:
        return _vjp_at_once(f, args, has_aux)
    wrt = Inputs(f, args, range(len(args)), must_be_float=False)
    out, aux = split_aux(f(*wrt.args), has_aux, f)
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


# ------------------------------------------------------------------------------------------------ results and cotangents


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


def _vjp_at_once(f: Callable[..., Any], args: tuple[Any, ...], has_aux: bool) -> tuple[Any, ...]:
    run = f if isinstance(f, Dispatcher) else jit(f)
    y, aux = split_aux(run(*args), has_aux, f)

    def make() -> Callable[..., Any]:
        def pull(arguments: tuple[Any, ...], ct: Any) -> tuple[Any, ...]:
            trace = current()
            assert trace is not None
            start = len(trace.reports)
            pullback = vjp(f, *arguments, has_aux=has_aux)[1]
            end = len(trace.reports)
            found: tuple[Any, ...] = pullback(ct)
            del trace.reports[start:end]  # the call of vjp has told these
            return found

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
