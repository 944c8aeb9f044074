"""What one elementwise operator costs, in scalar operations: add 1, divide 4, exp 20 or so."""

from __future__ import annotations

from xlc.ir.loops import var, walk
from xlc.ir.node import Node

_OWN_COST: dict[tuple[str, str], int] = {}


def op_cost(n: Node, cache: dict[tuple[str, str], int]) -> int:
    """Scalar operations that one elementwise op takes (counted in its decomposition, once)."""
    key = (n.op.name, n.args[0].dtype.name if n.args else "")
    if key not in cache:
        cache[key] = {"divide": 4, "sqrt": 4, "floor_divide": 8, "remainder": 8}.get(n.op.name, 1)
        if n.op.decompose is not None:
            wide = [a.dtype for a in n.args]
            try:
                out = n.op.decompose(*(var(f"c{i}", d) for i, d in enumerate(wide)), **n.attributes)
                cache[key] = sum(e.op.kind == "elementwise" for e in walk(out))
            except Exception:  # a decomposition that does not take this dtype directly: assume a transcendental
                cache[key] = 20
    return cache[key]
