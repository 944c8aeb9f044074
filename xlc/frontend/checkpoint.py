"""Rematerialisation for users: ``checkpoint``.

    h = xlc.checkpoint(layer)(h, w)        the same values and gradients; the backward pass computes what the layer computed again

What enters is a function of arrays (or pytrees of them); a call of it in a trace becomes one call in the graph (``transform.remat``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..errors import XlcTypeError, XlcValueError
from ..ir.node import Graph, Node, parameter
from ..transform.calls import substitute
from ..transform.remat import POLICIES, checkpoint_call
from .array import Tracer, lift
from .jit import names_of
from .reports import with_actual
from .trace import describe
from .transformed import runnable
from .tree import flatten, unflatten

__all__ = ["checkpoint"]


def checkpoint(f: Callable[..., Any] | None = None, *, policy: str = "nothing_saveable") -> Any:
    """``f`` with a gradient that needs less memory and more time: values that the backward pass reads are not kept but computed again, from
    those that a minimum cut chooses, of the fewest bytes that suffice (at most those of the arguments).

    policy   "nothing_saveable"      any value may be computed again
             "dots_saveable"         contractions, windows and loops are not computed again: what is needed of them is kept
             "everything_saveable"   nothing is computed again

    Values and gradients are those of ``f``. ``xlc.jit(...).compile(...).explain()`` says what is kept and what is computed again. Python
    numbers and other arguments that are no arrays are passed on as they are."""
    if f is None:
        return lambda g: checkpoint(g, policy=policy)
    if not callable(f):
        raise XlcTypeError(f"checkpoint expects a function, found {describe(f)}; write xlc.checkpoint(f)(x), not xlc.checkpoint(f(x))")
    if policy not in POLICIES:
        raise XlcValueError(f"checkpoint: policy={policy!r} is not one of {', '.join(map(repr, POLICIES))}")

    @wraps(f)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = flatten((args, kwargs))
        given = [lift(leaf) if _is_traced(leaf) else None for leaf in leaves]
        params = {k: parameter(t.node.type, f"x{k}", k) for k, t in enumerate(given) if t is not None}
        own = [leaf if t is None else Tracer(params[k], t._weak) for k, (leaf, t) in enumerate(zip(leaves, given, strict=True))]
        own_args, own_kwargs = unflatten(tree, own)
        out, out_tree = flatten(f(*own_args, **own_kwargs))
        results = [lift(leaf).node for leaf in out]
        outside = _captured(results, list(params.values()))
        inside = [parameter(n.type, f"c{k}", len(leaves) + k) for k, n in enumerate(outside)]
        closed = [n for n in substitute(results, dict(zip(outside, inside, strict=True))) if n is not None]
        body = Graph((*params.values(), *inside), tuple(closed), names_of(getattr(f, "__name__", "function")))
        with_actual({p: t.node for p, t in zip(params.values(), [t for t in given if t is not None], strict=True)})
        nodes = checkpoint_call(body, [*(t.node for t in given if t is not None), *outside], policy)
        return unflatten(out_tree, [Tracer(n) for n in nodes])

    return runnable(checkpointed, f, ("checkpoint", policy))


def _is_traced(leaf: Any) -> bool:
    """Whether the leaf becomes an argument of the call; what is known stays a constant of its body."""
    return isinstance(leaf, Tracer) and (leaf.node.op.name == "parameter" or bool(leaf.node.args))


def _captured(results: list[Node], params: list[Node]) -> list[Node]:
    """The values of the surrounding trace that the function reads: those that do not depend on its arguments, where they meet what does."""
    own, traced = set(params), set(params)
    found: dict[Node, None] = {}
    for n in Graph((), tuple(results)).nodes():
        if n in own:
            continue
        if n.op.name == "parameter" or any(a in traced for a in n.args):
            traced.add(n)
        if any(a in own for a in n.args):
            own.add(n)
            found.update((a, None) for a in n.args if a in traced and a not in own)
    found.update((r, None) for r in results if r in traced and r not in own)
    return list(found)
