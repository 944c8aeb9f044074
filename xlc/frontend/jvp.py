"""Forward mode for users: ``jvp``.

    y, dy = xlc.jvp(np.sin, (x,), (dx,))          dy = cos(x) * dx

What enters is a function of arrays (or pytrees of them) and tangents nested as its arguments. It runs on fresh parameters; the tangents
come from ``transform.jvp``; then the fresh parameters are replaced by the actual arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import XlcTypeError
from ..ir.node import Node, full
from ..transform.jvp import tangents as tangents_of
from .array import Tracer, lift
from .elementwise import cast
from .trace import current, describe
from .transformed import Inputs, argument_names, compiled_for, split_aux
from .tree import flatten, paths, spread, unflatten

__all__ = ["jvp"]


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> tuple[Any, ...]:
    """``(f(*primals), tangent of the result)`` for tangents nested as the primals, of the same shapes and dtypes; None stands for zero, and
    for the tangent of what is no float. Results that are no floats have the tangent None. With ``has_aux`` f returns (result, aux), and jvp
    ``(y, dy, aux)``. Raises XlcTypeError for tangents that do not fit."""
    if not callable(f):
        raise XlcTypeError(f"jvp expects a function, found {describe(f)}; write xlc.jvp(f, (x,), (dx,))")
    for name, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, (tuple, list)):
            raise XlcTypeError(f"jvp expects the {name} as a tuple with an entry for each argument, found {describe(value)}; "
                               "write xlc.jvp(f, (x,), (dx,))")
    if len(primals) != len(tangents):
        raise XlcTypeError(f"jvp needs a tangent for each argument, found {len(primals)} primals and {len(tangents)} tangents")

    def pushforward(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, ...]:
        return _traced(f, has_aux, primals, tangents)

    run = pushforward if current() is not None else compiled_for(pushforward, f, ("jvp", has_aux), keep=())
    out: tuple[Any, ...] = run(tuple(primals), tuple(tangents))
    return out


def _traced(f: Callable[..., Any], has_aux: bool, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, ...]:
    wrt = Inputs(f, primals, range(len(primals)), must_be_float=False)
    given = dict(zip(wrt.params, _seeds(f, wrt, tangents), strict=True))
    out, aux = split_aux(f(*wrt.args), has_aux, f)
    leaves, tree = flatten(out)
    results = [lift(leaf).node for leaf in leaves]
    extra, extra_tree = flatten(aux)
    moved = [full(r.type, 0) if t is None and r.dtype.is_float else t
             for r, t in zip(results, tangents_of(results, given), strict=True)]
    found = [None if n is None else Tracer(n) for n in wrt.actual([*results, *moved, *(lift(leaf).node for leaf in extra)])]
    k = len(results)
    y, dy = unflatten(tree, found[:k]), unflatten(tree, found[k:2 * k])
    return (y, dy, unflatten(extra_tree, found[2 * k:])) if has_aux else (y, dy)


def _seeds(f: Callable[..., Any], wrt: Inputs, tangents: Sequence[Any]) -> list[Node | None]:
    """The tangent of each parameter, checked against its argument; Python numbers take the type of their place."""
    out: list[Node | None] = []
    names = argument_names(f, len(tangents))
    for (tree, index), tangent, name in zip(wrt.trees, tangents, names, strict=True):
        found = spread(tangent, tree, exact=True)
        if found is None:
            raise XlcTypeError(f"the tangent of {name} must be nested as {name}, {tree}, found {flatten(tangent)[1]}")
        for leaf, i, path in zip(found, index, paths(tree, name), strict=True):
            if i is None and leaf is not None:
                raise XlcTypeError(f"{path} is no float, so that it has no tangent; pass None, or {path}.astype(float) as the argument")
            if i is None:
                continue
            t, tracer = wrt.params[i].type, None if leaf is None else lift(leaf)
            if tracer is not None and (tracer.node.shape != t.shape or not (tracer._weak or tracer.node.dtype == t.dtype)):
                raise XlcTypeError(f"the tangent of {path} must have its type, {t}, found {tracer.node.type}")
            out.append(None if tracer is None else cast(tracer.node, t.dtype))
    return out
