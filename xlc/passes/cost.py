"""What operators cost, in scalar operations: add 1, divide 4, exp 20 or so."""

from __future__ import annotations

from collections.abc import Iterable

from xlc.ir.loops import Expr, var, walk
from xlc.ir.node import Node

from .group import in_memory, is_anchor, is_free

_known: dict[tuple[str, str], int] = {}


def op_cost(n: Node) -> int:
    """Scalar operations that one elementwise op takes (counted in its decomposition, once)."""
    key = (n.op.name, n.args[0].dtype.name if n.args else "")
    if key not in _known:
        _known[key] = {"divide": 4, "sqrt": 4, "floor_divide": 8, "remainder": 8}.get(n.op.name, 1)
        if n.op.decompose is not None:
            wide = [a.dtype for a in n.args]
            try:
                out = n.op.decompose(*(var(f"c{i}", d) for i, d in enumerate(wide)), **n.attributes)
                _known[key] = sum(e.op.kind == "elementwise" for e in walk(out))
            except Exception:  # a decomposition that does not take this dtype directly: assume a transcendental
                _known[key] = 20
    return _known[key]


def expr_cost(e: Expr) -> int:
    """The same for an elementwise operator in a kernel; 1 where no node of its kind was asked for."""
    return _known.get((e.op.name, e.args[0].dtype.name), 1)


def costs(nodes: Iterable[Node]) -> dict[Node, int]:
    """Scalar operations per element of each node, everything above it inlined."""
    total: dict[Node, int] = {}
    for n in nodes:
        if in_memory(n) or is_free(n) or is_anchor(n) or n.op.kind == "reduction":
            total[n] = 1
        else:
            mine = op_cost(n) if n.op.kind == "elementwise" else 0
            total[n] = min(mine + sum(total[a] for a in n.operands), 1 << 20)
    return total
