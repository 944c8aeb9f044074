"""Control flow for users: ``cond``, ``switch``, ``while_loop``, ``fori_loop``, ``scan``, with JAX's signatures and meaning.

    h, ys = xlc.scan(lambda h, x: (np.tanh(w @ h + x), h), h0, xs)

A body is traced once, on parameters of its own, within the running trace; what it uses of the values around it becomes a ``fixed``
argument. Carries keep their dtype and shape; those that begin as Python numbers take the dtype that the body gives them (then it is
traced again). Outside a trace the whole is traced, compiled (once for each program, see ``eager.at_once``) and run at once, with the
values that the arrays and numbers that the functions use have at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..ir.node import Graph, Node, full, outputs, parameter
from ..ir.op import lookup
from ..ir.types import Dim, Size, Type, bool_, i64
from ..transform.calls import substitute
from .array import Tracer, lift
from .eager import at_once
from .elementwise import cast, result_dtype
from .jit import names_of
from .reports import Report, Ring, nodes_of, of_branch, of_loop, owned, repeated
from .size import plain_size
from .trace import current, describe, mark, tracing
from .tree import Tree, flatten, paths, unflatten

__all__ = ["cond", "fori_loop", "scan", "switch", "while_loop"]


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """``true_fn(*operands)`` where pred, a bool scalar, is true, else ``false_fn(*operands)``: only that one is run.

    Both give results of the same nesting, shapes and dtypes. Raises XlcTypeError where pred is no bool scalar, or the results differ."""
    if current() is None:
        return at_once(lambda pred, operands: cond(pred, true_fn, false_fn, *operands), pred, operands)
    mark()
    which = _condition(pred, "cond: pred")
    index = full(Type(i64), int(which["value"])) if which.op.name == "full" else cast(which, i64)
    return _switch("cond", index, [("false_fn", false_fn), ("true_fn", true_fn)], operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)``, the integer scalar index clamped to those that there are. Results as for ``cond``."""
    if current() is None:
        return at_once(lambda index, operands: switch(index, branches, *operands), index, operands)
    mark()
    if not isinstance(branches, Sequence) or not branches:
        raise XlcTypeError(f"switch expects a list of functions, found {describe(branches)}")
    which = lift(index).node
    if which.rank or not which.dtype.is_int:
        raise XlcTypeError(f"switch: the index must be an integer scalar, found {which.type}")
    if which.dtype.bits == 64 and not which.dtype.signed:
        which = lookup("minimum")(which, len(branches))
    return _switch("switch", cast(which, i64), [(f"branches[{k}]", f) for k, f in enumerate(branches)], operands)


def while_loop(cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any) -> Any:
    """``while cond_fn(value): value = body_fn(value)``, from ``init``; the last value. The value keeps its nesting, shapes and dtypes.

    It has no reverse mode, as the number of iterations is not known: scan, or fori_loop with Python ints as bounds, has."""
    if current() is None:
        return at_once(lambda init: while_loop(cond_fn, body_fn, init), init)
    mark()
    return _while("while_loop: body_fn", cond_fn, body_fn, _Values("init", init))


def fori_loop(lo: Any, hi: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """``for i in range(lo, hi): value = body(i, value)``, from ``init``; the last value, which keeps its nesting, shapes and dtypes.

    With Python ints as bounds it has a reverse mode; bounds may also be traced integers."""
    known = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in (lo, hi))
    if current() is None:
        if known:
            return at_once(lambda init: fori_loop(lo, hi, body, init), init)
        return at_once(lambda lo, hi, init: fori_loop(lo, hi, body, init), lo, hi, init)
    mark()
    low, high = lift(lo), lift(hi)
    for t, name in ((low, "lo"), (high, "hi")):
        if t.node.rank or not t.node.dtype.is_int:
            raise XlcTypeError(f"fori_loop: {name} must be an integer scalar, found {t.node.type}")
    dtype, weak = result_dtype(low, high), low._weak and high._weak
    low, high = (Tracer(cast(t.node, dtype), weak) for t in (low, high))
    value = _Values("init", (low, init))
    value.paths = ["i", *paths(flatten(init)[1], "init")]
    if not known:
        return _while("fori_loop: body", lambda c: c[0] < high, lambda c: (c[0] + 1, body(c[0], c[1])), value)[1]
    rows = _Values("xs", None)
    return _scan("fori_loop: body", lambda c, _: ((c[0] + 1, body(c[0], c[1])), None), value, rows, max(int(hi) - int(lo), 0), False)[0][1]


def scan(f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: Any = None, reverse: bool = False) -> tuple[Any, Any]:
    """A loop over the rows of arrays: ``carry, y = f(carry, x)`` for each row x of ``xs`` (a pytree of arrays with one first size, or
    None with a ``length``), from ``init``. Gives the last carry and the ys, stacked.

    The carry keeps its nesting, shapes and dtypes. With ``reverse`` rows are visited from the last to the first, and the ys lie in the
    places of their xs. Raises XlcTypeError for a carry that changes, XlcValueError for first sizes that differ."""
    if current() is None:
        return at_once(lambda init, xs: scan(f, init, xs, length, reverse), init, xs)
    mark()
    rows = _Values("xs", xs)
    return _scan("scan: f", f, _Values("init", init), rows, _length(rows, length), bool(reverse))


# ------------------------------------------------------------------------------------------------ loops and branches


def _scan(what: str, f: Callable[..., Any], carry: _Values, rows: _Values, length: Size, reverse: bool) -> tuple[Any, Any]:
    row = rows.of_types([n.type.with_shape(n.shape[1:]) for n in rows.nodes])

    def pair(out: Any) -> Any:
        if not isinstance(out, tuple) or len(out) != 2:
            raise XlcTypeError(f"{what} must return a pair (carry, y), it returned {describe(out)}; write (carry, None) if there is no y")
        return out

    body = _fixed_point(what, carry, lambda: _trace(f, [carry, row], pair), lambda tree: tree.children[0])
    graph = Graph((*body.fixed_params, *body.params), tuple(body.nodes), names_of(getattr(f, "__name__", "body")))
    out = outputs(lookup("loop"), [*body.fixed, *carry.nodes, *rows.nodes], body=graph, carries=len(carry.nodes), fixed=len(body.fixed),
                  length=length, reverse=reverse)
    carries, rest = len(carry.nodes), len(body.leaves)
    of_loop(body.reports, out[rest:], reverse)
    return carry.like(out[:carries]), unflatten(body.tree.children[1], [Tracer(n) for n in out[carries:rest]])


def _while(what: str, cond_fn: Callable[..., Any], body_fn: Callable[..., Any], value: _Values) -> Any:
    """The loop's first carry is what cond_fn says; the body computes the next value, and what cond_fn says of that."""
    body = _fixed_point(what, value, lambda: _trace(body_fn, [value]), lambda tree: tree)
    test = _trace(cond_fn, [value])
    if test.tree.kind != "leaf" or test.leaves[0].type != Type(bool_):
        found = str(test.leaves[0].type) if test.tree.kind == "leaf" else str(test.tree)
        raise XlcTypeError(f"while_loop: cond_fn must return a bool scalar, it returned {found}; compare, or reduce with .any() or .all()")
    fixed = list(dict.fromkeys([*body.fixed, *test.fixed]))
    inside = {n: parameter(n.type, "fixed", k) for k, n in enumerate(fixed)}
    following, told = body.on(body.params, inside)
    (again,), asked = test.on(following, inside)
    (first,), asked_first = test.on(value.nodes, {n: n for n in fixed})
    repeated(test.reports, asked_first)
    ring = Ring([*body.reports, *test.reports])
    params = (*inside.values(), parameter(Type(bool_), "go", len(fixed)), *body.params, *ring.params)
    graph = Graph(params, (again, *following, *ring.following([*told, *asked])), names_of(getattr(body_fn, "__name__", "body")))
    given = [first, *value.nodes, *ring.first]
    _, *out = outputs(lookup("loop"), [*fixed, *given], body=graph, carries=len(given), fixed=len(fixed), length=None, reverse=False)
    ring.report(out[len(value.nodes):])
    return value.like(out[:len(value.nodes)])


def _switch(what: str, index: Node, branches: Sequence[tuple[str, Callable[..., Any]]], operands: tuple[Any, ...]) -> Any:
    given = _Values("operands", operands)
    traced = [_trace(f, [given.spread()]) for _, f in branches]
    (first, *others), (name, *names) = traced, [n for n, _ in branches]
    for other, n in zip(others, names, strict=True):
        if other.tree != first.tree:
            raise XlcTypeError(f"{what}: the results of {name} and {n} must be nested alike, found {first.tree} and {other.tree}")
    weak = []
    for k, path in enumerate(paths(first.tree, "the result")):
        _agree(what, path, [(n, b, k) for (n, _), b in zip(branches, traced, strict=True)])
        weak.append(all(b.weak[k] for b in traced))
    if index.op.name == "full":
        body = traced[min(max(index["value"], 0), len(traced) - 1)]
        out, told = body.on(given.nodes, {n: n for n in body.fixed})
        repeated(body.reports, told)
    else:
        fixed = list(dict.fromkeys(n for b in traced for n in b.fixed))
        graphs = []
        for b, (n, f) in zip(traced, branches, strict=True):
            inside = {n: parameter(n.type, "fixed", k) for k, n in enumerate(fixed)}
            out, told = b.on(b.params, inside)
            told = [t for other in traced for t in (told if other is b else [full(n.type, 0) for n in nodes_of(other.reports)])]
            graphs.append(Graph((*inside.values(), *b.params), (*out, *told), names_of(getattr(f, "__name__", n))))
        out = outputs(lookup("switch"), [index, *fixed, *given.nodes], branches=tuple(graphs))
        out, told = out[:len(weak)], out[len(weak):]
        for k, b in enumerate(traced):
            count = len(nodes_of(b.reports))
            of_branch(b.reports, told[:count], index, k, len(traced))
            told = told[count:]
    return unflatten(first.tree, [Tracer(n, w) for n, w in zip(out, weak, strict=True)])


def _agree(what: str, path: str, leaves: Sequence[tuple[str, _Traced, int]]) -> None:
    """One result of all branches: a Python number takes the dtype that others have."""
    common = result_dtype(*(Tracer(b.leaves[k], b.weak[k]) for _, b, k in leaves))
    name, first, at = next((x for x in leaves if not x[1].weak[x[2]]), leaves[0])
    expected = Type(common, first.leaves[at].shape) if first.weak[at] else first.leaves[at].type
    for other, b, k in leaves:
        if b.weak[k] and common == expected.dtype:
            b.leaves[k] = cast(b.leaves[k], common)
        if b.leaves[k].type != expected:
            raise XlcTypeError(f"{what}: {path} is {expected} from {name}, and {b.leaves[k].type} from {other}; branches must agree: "
                               "convert one with astype, reshape or np.broadcast_to")


# ------------------------------------------------------------------------------------------------ values and bodies


class _Values:
    """A pytree of operands: their nodes, and which are Python numbers; ``types`` are those of the parameters that stand for them."""

    def __init__(self, name: str, value: Any):
        leaves, self.tree = flatten(value)
        tracers = [lift(leaf) for leaf in leaves]
        self.paths = paths(self.tree, name)
        self.nodes = [t.node for t in tracers]
        self.weak = [t._weak for t in tracers]
        self._types: list[Type] | None = None
        self.several = False

    @property
    def types(self) -> list[Type]:
        return [n.type for n in self.nodes] if self._types is None else self._types

    def of_types(self, types: Sequence[Type]) -> _Values:
        """The same for parameters of other types."""
        out = copy(self)
        out._types, out.weak = list(types), [False] * len(types)
        return out

    def spread(self) -> _Values:
        """A tuple whose items are arguments of their own."""
        out = copy(self)
        out.several = True
        return out

    def like(self, nodes: Sequence[Node]) -> Any:
        """These nodes in the nesting of the values."""
        return unflatten(self.tree, [Tracer(n, w) for n, w in zip(nodes, self.weak, strict=True)])

    def arguments(self, params: Sequence[Node]) -> tuple[Any, ...]:
        value = self.like(params)
        return tuple(value) if self.several else (value,)


@dataclass
class _Traced:
    """A traced body. ``fixed`` are the values around it that it uses, ``fixed_params`` its parameters for them, ``reports`` what it tells
    besides its results."""

    fixed: list[Node]
    fixed_params: list[Node]
    params: list[Node]
    leaves: list[Node]
    weak: list[bool]
    tree: Tree
    reports: list[Report]

    @property
    def nodes(self) -> list[Node]:
        """The results, and the values of the reports."""
        return [*self.leaves, *nodes_of(self.reports)]

    def on(self, args: Sequence[Node], fixed: dict[Node, Node]) -> tuple[list[Node], list[Node]]:
        """The results on these arguments, and the values of the reports."""
        given = dict(zip(self.params, args, strict=True))
        given.update((p, fixed[n]) for p, n in zip(self.fixed_params, self.fixed, strict=True))
        found = [n for n in substitute(self.nodes, given) if n is not None]
        return found[:len(self.leaves)], found[len(self.leaves):]


def _trace(f: Callable[..., Any], operands: Sequence[_Values], checked: Callable[[Any], Any] = lambda out: out) -> _Traced:
    """The body f on parameters like the operands."""
    if not callable(f):
        raise XlcTypeError(f"control flow expects functions as bodies, found {describe(f)}")
    with tracing(getattr(f, "__name__", "a body"), inside=True) as trace:
        own = [[parameter(t, names_of(p), 0) for t, p in zip(v.types, v.paths, strict=True)] for v in operands]
        out = checked(f(*(a for v, params in zip(operands, own, strict=True) for a in v.arguments(params))))
        mark()
        leaves, tree = flatten(out)
        found = [lift(leaf) for leaf in leaves]
        nodes = [t.node for t in found]
        params, closed = [p for params in own for p in params], list(trace.enclosed.values())
        told = owned(trace.reports, [*closed, *params])
        return _Traced(list(trace.enclosed), closed, params, nodes, [t._weak for t in found], tree, told)


def _fixed_point(what: str, carry: _Values, trace: Callable[[], _Traced], part: Callable[[Tree], Tree]) -> _Traced:
    """The body, traced until what it makes of the carry (``part`` of its result) is of the carry's own types."""
    while True:
        body = trace()
        if part(body.tree) != carry.tree:
            raise XlcTypeError(f"{what} must return a carry nested as the one that it takes, {carry.tree}, found {part(body.tree)}")
        changed = [_adopted(what, carry, body, k) for k in range(len(carry.nodes))]
        if not any(changed):
            return body


def _adopted(what: str, carry: _Values, body: _Traced, k: int) -> bool:
    """Whether a carry that began as a Python number has taken the dtype that the body gives it."""
    old, new = carry.types[k], body.leaves[k].type
    if carry.weak[k] and new.shape == old.shape and (old != new or not body.weak[k]):
        carry.nodes[k] = cast(carry.nodes[k], result_dtype(Tracer(carry.nodes[k], True), Tracer(body.leaves[k], body.weak[k])))
        carry.weak[k] = body.weak[k]
        return True
    if body.weak[k] and new.shape == old.shape and result_dtype(old.dtype.numpy, Tracer(body.leaves[k], True)) == old.dtype:
        body.leaves[k] = cast(body.leaves[k], old.dtype)  # a Python number in place of the carry
    elif old != new:
        hint = f"write .astype({str(old.dtype.numpy)!r}), or begin with {new.dtype.numpy}" if old.shape == new.shape \
            else "every iteration must give the same shape"
        raise XlcTypeError(f"{what} changes the type of its carry: {carry.paths[k]} is {old} at first and {new} after an iteration; {hint}")
    return False


def _condition(pred: Any, what: str) -> Node:
    node = lift(pred).node
    if node.type != Type(bool_):
        hint = "compare, or reduce with .any() or .all()" if node.rank else "write pred != 0"
        raise XlcTypeError(f"{what} must be a bool scalar, found {node.type}; {hint}")
    return node


def _length(rows: _Values, length: Any) -> Size:
    """How many rows there are."""
    asked = None if length is None else plain_size(length)
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, (int, np.integer, Dim))):
        raise XlcTypeError(f"scan: length must be an int, found {describe(length)}; while_loop or fori_loop take a traced number")
    found: list[tuple[str, Size]] = [] if asked is None else [("length", asked if isinstance(asked, Dim) else int(asked))]
    for node, path in zip(rows.nodes, rows.paths, strict=True):
        if not node.rank:
            raise XlcTypeError(f"scan: {path} is a scalar, which has no rows to go through; pass it through init, or let f close over it")
        found.append((path, node.shape[0]))
    if not found:
        raise XlcValueError("scan: without xs it must be told its length=")
    for path, n in found:
        if n != found[0][1]:
            raise XlcValueError(f"scan: the first sizes must be equal: {found[0][0]} has {found[0][1]}, {path} has {n}")
    if isinstance(found[0][1], int) and found[0][1] < 0:
        raise XlcValueError(f"scan: length must not be negative, found {found[0][1]}")
    return found[0][1]
