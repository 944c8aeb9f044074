"""A function whose gradient the user gives: ``custom_vjp``.

    f.defvjp(fwd, bwd)      a call of f in a trace is a composite node; reverse mode asks fwd and bwd instead of looking inside

What enters is a call on traced values; what leaves are the outputs of one ``transform.custom.custom_call``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

from ..errors import XlcTypeError
from ..ir.node import Graph, Node, full, parameter
from ..transform.calls import substitute
from ..transform.custom import custom_call
from .array import Tracer, lift
from .elementwise import cast
from .reports import with_actual, without_repeats
from .trace import current
from .transformed import what
from .tree import NONE, flatten, unflatten

__all__ = ["custom_vjp"]


class custom_vjp:
    """A function whose gradient the user gives.

        @xlc.custom_vjp
        def f(x, n): ...
        f.defvjp(fwd, bwd)        fwd(x, n) -> (f(x, n), residuals);  bwd(residuals, ct) -> (cotangent of x, cotangent of n)

    ``bwd`` returns one entry per argument, nested as the argument; None is zero. Arguments at ``nondiff_argnums`` are passed as they are
    (they need not be arrays) and come first in ``bwd``: ``bwd(n, residuals, ct)``. Forward mode (jvp, jacfwd) transposes the rule, and
    raises an XlcTypeError where ``bwd`` is not linear in ct."""

    def __init__(self, f: Callable[..., Any], nondiff_argnums: Sequence[int] = ()):
        self.f = f
        self.nondiff = tuple(nondiff_argnums)
        self.fwd: Callable[..., Any] | None = None
        self.bwd: Callable[..., Any] | None = None
        update_wrapper(self, f)

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> Callable[..., Any]:
        """Set the rule. Gives the function back."""
        if not callable(fwd) or not callable(bwd):
            raise XlcTypeError("defvjp expects two functions: fwd(*args) -> (result, residuals) and bwd(residuals, cotangent) -> "
                               "cotangents")
        self.fwd, self.bwd = fwd, bwd
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is None:
            return self.f(*args, **kwargs)
        name = self.__name__  # type: ignore[attr-defined]
        if self.fwd is None:
            raise XlcTypeError(f"the custom_vjp function {name} has no rule yet; give it one with {name}.defvjp(fwd, bwd)")
        if kwargs:
            bound = inspect.signature(self.f).bind(*args, **kwargs)
            if bound.kwargs:
                raise XlcTypeError(f"{name}: keyword-only arguments are not supported with custom_vjp; pass {', '.join(bound.kwargs)} by "
                                   f"position")
            args = bound.args
        return _Call(self, args).outputs()


class _Call:
    """One call of a custom_vjp function inside a trace."""

    def __init__(self, function: custom_vjp, args: tuple[Any, ...]):
        self.function, self.given = function, args
        self.name: str = function.__name__  # type: ignore[attr-defined]
        self.nondiff = [i % len(args) for i in function.nondiff if -len(args) <= i < len(args)]
        self.leaves, self.tree = flatten([a for i, a in enumerate(args) if i not in self.nondiff])
        self.tracers = [lift(leaf) for leaf in self.leaves]

    def arguments(self, tracers: Sequence[Tracer]) -> list[Any]:
        """The call's argument list with these tracers in the places of the leaves."""
        values = iter(unflatten(self.tree, tracers))
        return [a if i in self.nondiff else next(values) for i, a in enumerate(self.given)]

    def outputs(self) -> Any:
        params = [parameter(t.node.type, f"x{i}", i) for i, t in enumerate(self.tracers)]
        out = self.function.f(*self.arguments([Tracer(p, t._weak) for p, t in zip(params, self.tracers, strict=True)]))
        leaves, self.out_tree = flatten(out)
        results = [lift(leaf).node for leaf in leaves]
        own = set(params)
        self.outer = [n for n in Graph((), tuple(results)).nodes() if n.op.name == "parameter" and n not in own]
        primal = Graph((*params, *self.outer), tuple(results), self.name)
        self.results = results
        with_actual({p: t.node for p, t in zip(params, self.tracers, strict=True)})
        nodes = custom_call(primal, [*(t.node for t in self.tracers), *self.outer], self.pull)
        return unflatten(self.out_tree, [Tracer(n) for n in nodes])

    def pull(self, args: Sequence[Node], gs: Sequence[Node | None], needed: Sequence[bool]) -> list[Node | None]:
        """Cotangents of the call's leaves: the user's fwd, then bwd."""
        count = len(self.tracers)
        if any(needed[count:]):
            raise XlcTypeError(f"the custom_vjp function {self.name} closes over a traced value that is differentiated; its rule gives "
                               f"no gradient for it: "
                               "pass it as an argument, or through xlc.stop_gradient", args[0].loc if args else None)
        assert self.function.fwd is not None and self.function.bwd is not None
        with without_repeats():
            forward = self.function.fwd(*self.arguments([Tracer(a, t._weak) for a, t in zip(args, self.tracers, strict=False)]))
        if not isinstance(forward, tuple) or len(forward) != 2:
            raise XlcTypeError(f"fwd of {self.name} must return a pair (result, residuals), it returned {what(forward)}")
        if flatten(forward[0])[1] != self.out_tree:
            raise XlcTypeError(f"fwd of {self.name} must return (result, residuals) with a result nested as {self.name}'s own, "
                               f"{self.out_tree}, found "
                               f"{flatten(forward[0])[1]}")
        ct = unflatten(self.out_tree, [Tracer(full(r.type, 0) if g is None else g) for g, r in zip(gs, self.results, strict=True)])
        back = self.function.bwd(*(self.given[i] for i in self.nondiff), forward[1], ct)
        nodes = self._checked(back)
        outer = dict(zip(self.outer, args[count:], strict=True))
        return [*substitute(nodes, outer), *(None for _ in self.outer)]

    def _checked(self, back: Any) -> list[Node | None]:
        """What bwd returned, per leaf."""
        expected = self.tree.children
        if not isinstance(back, (tuple, list)) or len(back) != len(expected):
            raise XlcTypeError(f"bwd of {self.name} must return a tuple with one cotangent for each of its {len(expected)} arguments, it "
                               f"returned "
                               f"{what(back)}")
        out: list[Node | None] = []
        types = iter([t._node.type for t in self.tracers])  # of a trace that may have ended
        for i, (value, tree) in enumerate(zip(back, expected, strict=True)):
            found, shape = flatten(value)
            mine = [next(types) for _ in range(tree.size)]
            if shape == NONE:
                out += [None] * len(mine)
                continue
            if shape != tree:
                raise XlcTypeError(f"bwd of {self.name}: the cotangent of argument {i} must be nested as the argument, {tree}, found "
                                   f"{shape}")
            for leaf, t in zip(found, mine, strict=True):
                g = lift(leaf).node
                if not t.dtype.is_float:
                    out.append(None)
                    continue
                if g.shape != t.shape or not g.dtype.is_float:
                    raise XlcTypeError(f"bwd of {self.name}: the cotangent of argument {i} must be {t}, found {g.type}")
                out.append(cast(g, t.dtype))
        return out
