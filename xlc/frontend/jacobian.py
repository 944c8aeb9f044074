"""Derivatives of functions with any results: ``jacfwd``, ``jacrev``, ``hessian``.

    J = xlc.jacrev(lambda w: np.tanh(x @ w))(w)        shape (result..., w...): one pullback for each element of the result, vectorised
    J = xlc.jacfwd(lambda w: np.tanh(x @ w))(w)        the same by one pushforward for each element of w: better for few arguments

Both are one graph: the pullback (or pushforward) of a fresh cotangent (tangent), with all unit vectors in its place by ``transform.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..errors import XlcTypeError
from ..ir.node import Node, full, parameter
from ..ir.op import lookup
from ..ir.types import Type, i64
from ..ops.shape import moved, repeated
from ..transform.grad import cotangents
from ..transform.jvp import tangents
from ..transform.vmap import batch
from .array import Tracer, lift
from .trace import describe
from .transformed import Inputs, check_argnums, resolve, runnable, split_aux, what
from .tree import flatten, paths, unflatten

__all__ = ["hessian", "jacfwd", "jacrev"]

Blocks = Callable[[Sequence[Node], Sequence[Node]], list[list[Node]]]
"""(results, parameters) -> for each result its derivative with respect to each parameter, of the shape of the result, then the parameter"""


def jacfwd(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The Jacobian by forward mode: nested as the result of f, each array in it replaced by what is nested as the argument (with a tuple of
    ``argnums``: a tuple of these), of the shape of the result's array followed by that of the argument's.

    With ``has_aux`` f returns (result, aux), and so does this: (Jacobian, aux). Raises XlcTypeError for arguments and results that are no
    floats, XlcIndexError for wrong argnums."""
    return _jacobian("jacfwd", _columns, f, argnums, has_aux)


def jacrev(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As ``jacfwd``, by reverse mode: better for functions with fewer results than arguments."""
    return _jacobian("jacrev", _rows, f, argnums, has_aux)


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The second derivatives, ``jacfwd(jacrev(f))``: of the shape of the result, then twice that of the argument."""
    return jacfwd(jacrev(f, argnums, has_aux), argnums, has_aux)


def _jacobian(name: str, blocks: Blocks, f: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool) -> Callable[..., Any]:
    if not callable(f):
        raise XlcTypeError(f"{name} expects a function, found {describe(f)}; write xlc.{name}(f)(x), not xlc.{name}(f(x))")
    chosen = check_argnums(argnums)
    positions = chosen if isinstance(chosen, tuple) else (chosen,)

    @wraps(f)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        wrt = Inputs(f, args, resolve(f, positions, len(args)), must_be_float=True)
        out, aux = split_aux(f(*wrt.args, **kwargs), has_aux, f)
        leaves, tree = flatten(out)
        results = [_float(leaf, path) for leaf, path in zip(leaves, paths(tree, "the result"), strict=True)]
        extra, extra_tree = flatten(aux)
        flat = [block for row in blocks(results, wrt.params) for block in row]
        found = wrt.actual([*flat, *(lift(leaf).node for leaf in extra)])
        k = len(wrt.params)
        nested = [wrt.nested(found[i * k:(i + 1) * k]) for i in range(len(results))]
        whole = unflatten(tree, [row if isinstance(chosen, tuple) else row[0] for row in nested])
        return (whole, unflatten(extra_tree, [Tracer(n) for n in found[len(flat):] if n is not None])) if has_aux else whole

    return runnable(jacobian, f, (name, chosen, has_aux))


def _float(leaf: Any, path: str) -> Node:
    node = lift(leaf).node
    if not node.dtype.is_float:
        raise XlcTypeError(f"a Jacobian needs a function with float results, and {path} is {what(leaf)} of {node.dtype.numpy}; return it "
                           "as aux with has_aux=True, or as a float")
    return node


def _rows(results: Sequence[Node], params: Sequence[Node]) -> list[list[Node]]:
    """One pullback for each element of each result."""
    out = []
    for r in results:
        ct = parameter(r.type, "ct", 0)
        found = _mapped(cotangents([r], [ct], params), params, ct)
        out.append([lookup("reshape")(g, shape=(*r.shape, *p.shape)) for g, p in zip(found, params, strict=True)])
    return out


def _columns(results: Sequence[Node], params: Sequence[Node]) -> list[list[Node]]:
    """One pushforward for each element of each parameter."""
    columns = []
    for p in params:
        t = parameter(p.type, "t", 0)
        found = _mapped(tangents(results, {**dict.fromkeys(params), p: t}), results, t)
        columns.append([lookup("reshape")(moved(g, 0, g.rank - 1), shape=(*r.shape, *p.shape))
                        for g, r in zip(found, results, strict=True)])
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in results]


def _mapped(values: Sequence[Node | None], like: Sequence[Node], seed: Node) -> list[Node]:
    """The values, which are linear in ``seed``, for each unit vector in its place: all along a new axis in front."""
    n = seed.type.size
    found = batch([full(x.type, 0) if v is None else v for v, x in zip(values, like, strict=True)], n, {seed: (_units(seed.type), True)})
    return repeated(n, *zip(*found, strict=True)) if found else []


def _units(t: Type) -> Node:
    """All unit vectors of a type, along a new axis in front."""
    n, iota = t.size, lookup("iota")
    rows, columns = (iota(shape=(n, n), axis=axis, dtype=i64) for axis in (0, 1))
    return lookup("reshape")(lookup("cast")(lookup("equal")(rows, columns), dtype=t.dtype), shape=(n, *t.shape))
