"""An operator: one declaration that every stage reads.

The same ``Op`` serves tensors in a ``Graph`` (its arguments are Nodes) and, when it is elementwise, scalars inside a
``Kernel`` (its arguments are Exprs). Calling an Op builds whichever of the two its arguments are:

    add(x, y)          Nodes  -> Node  add(%x, %y)
    add(a, 1.0)        Expr   -> Expr  a + 1.0      (a Python number takes the dtype, and the shape, of the others)

The *kind* supplies what operators have in common (type rule, pull, vjp shape, tests); see ``xlc/ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = ("input", "elementwise", "create", "view", "reduction", "contraction", "indexed", "ordered", "control",
         "composite")


@dataclass(frozen=True, eq=False)
class Monoid:
    """How a reduction (or a cumulative operator) combines. Its state is a tuple of scalars.

    ``init(dtype)`` gives the state of no elements (Exprs); ``lift(x, position)`` the state of one element, ``position`` being its
    row-major index (i64) within the reduced axes; ``merge(s, t)`` combines, s before t; ``result(s)`` is the scalar that is stored.
    ``accumulate`` names the dtype the state of a float sum has (f16 -> f32)."""

    init: Callable[[Any], tuple]
    merge: Callable[[tuple, tuple], tuple]
    lift: Callable[[Any, Any], tuple] = lambda x, position: (x,)
    result: Callable[[tuple], Any] = lambda s: s[0]


@dataclass(frozen=True, eq=False)
class Op:
    """One operator.

    infer(*types, **attrs) -> Type                 the type rule; raises XlcError subclasses on misuse
    numpy(*arrays, **attrs) -> array               what it means (used by the interpreter and as the tests' oracle);
                                                   gets and gives arrays of exactly the declared dtypes
    scalar(*dtypes, **attrs) -> DType              elementwise only: dtype of the scalar result
    pull(node, index, read) -> Expr                the value of the node at ``index`` (tuple of i64 Exprs, one per dimension), where
                                                   ``read(k, index, where=None)`` gives the value of argument k at an index;
                                                   ``where`` (bool Expr) guards reads that may be out of bounds.
                                                   None: the operator is an anchor (reduction, contraction, ...), lowered by its kind.
    monoid                                         reduction and cumulative operators
    vjp(g, y, *args, **attrs) -> list              cotangents of the arguments (None: not differentiable in it)
    jvp(tangents, y, *args, **attrs) -> Node       tangent of the result from those of the arguments (None: zero), where the one that
                                                   ``transform.jvp`` derives from the kind or from vjp does not serve
    batch(size, args, batched, **attrs) -> Node    the operator at ``size`` positions of an axis that comes first in the result and in
                                                   those arguments that ``batched`` flags, where the kind's rule does not serve
    results(*types, **attrs) -> types              for an operator with several outputs, which are the nodes op(args){output=i, ...}: the
                                                   types of all of them. ``infer`` is derived, ``numpy`` gives a list of all outputs, and
                                                   these rules, too, speak of all outputs of one call; ``attrs`` comes without ``output``:
    vjp_all(gs, needed, *args, **attrs) -> list    the cotangents of the arguments that are needed, from those of all outputs (None: zero;
                                                   the list ends with the last output that has one)
    jvp_all(tangents, *args, **attrs) -> list      the same forwards: the tangents of all outputs (None: zero)
    batch_all(size, args, batched, **attrs) -> (list, list)   the same for batch: all outputs, and which of them are batched
    decompose(*args, **attrs)                      the same value in other operators. Elementwise: on Exprs, used where a backend
                                                   does not list the op. Composite: on Nodes, used by the pass ``decompose``.
    dtypes                                         the dtypes that its (first) argument may have
    samples                                        per argument, the interval on which generated tests draw; (lo, hi)
    exact                                          the result is exact or correctly rounded in every dtype (no ulp allowance in tests)
    """

    name: str
    kind: str
    arity: int | None = None
    infer: Callable[..., Any] = field(repr=False, default=None)  # type: ignore[assignment]
    numpy: Callable[..., Any] = field(repr=False, default=None)  # type: ignore[assignment]
    scalar: Callable[..., Any] | None = field(repr=False, default=None)
    pull: Callable[..., Any] | None = field(repr=False, default=None)
    monoid: Monoid | None = field(repr=False, default=None)
    vjp: Callable[..., Sequence[Any]] | None = field(repr=False, default=None)
    jvp: Callable[..., Any] | None = field(repr=False, default=None)
    batch: Callable[..., Any] | None = field(repr=False, default=None)
    results: Callable[..., Sequence[Any]] | None = field(repr=False, default=None)
    vjp_all: Callable[..., Sequence[Any]] | None = field(repr=False, default=None)
    jvp_all: Callable[..., Sequence[Any]] | None = field(repr=False, default=None)
    batch_all: Callable[..., tuple[Sequence[Any], Sequence[bool]]] | None = field(repr=False, default=None)
    decompose: Callable[..., Any] | None = field(repr=False, default=None)
    dtypes: tuple[Any, ...] = ()
    samples: tuple[tuple[float, float], ...] = ()
    exact: bool = False
    doc: str = ""

    def __post_init__(self) -> None:
        if (results := self.results) is not None:
            object.__setattr__(self, "infer", lambda *types, output, **attrs: results(*types, **attrs)[output])

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        for a in args:
            if isinstance(a, loops.Expr):
                return loops.scalar_apply(self, args, attrs)
        return node.apply(self, args, attrs)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return (lookup, (self.name,))


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an operator in the table. Its name is its identity in every text."""
    if op.name in OPS:
        raise ValueError(f"operator {op.name} is declared twice")
    if op.kind not in KINDS:
        raise ValueError(f"operator {op.name}: unknown kind {op.kind}")
    OPS[op.name] = op
    return op


def lookup(name: str) -> Op:
    if name not in OPS:
        import xlc.ops  # noqa: F401  (fills the table)

    return OPS[name]


# Both need Op; they are looked at when an operator is called (an import inside a function costs more than the call).
from . import loops, node  # noqa: E402
