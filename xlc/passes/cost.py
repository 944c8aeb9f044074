"""What values cost where they are computed: scalar operations (add 1, divide 4, exp 20 or so), and what is loaded for them.

    %0 = subtract(%x, broadcast(%mean)); %1 = multiply(%0, broadcast(%scale))        %1: 2 operations, loads %x
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xlc.ir.loops import Expr, var, walk
from xlc.ir.node import Node
from xlc.ir.sizes import at

from .arena import SAMPLES
from .group import in_memory, is_anchor, is_free

LARGE = 64 << 10  # bytes from which it matters that a value is loaded
MOST = 4  # large values that are told apart
REPEATED = 8  # times that a broadcast value is read, from which what it is made of hardly counts

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


@dataclass(frozen=True)
class Cost:
    """Of one element of a node, everything above it that is not in memory written out: its scalar operations, and the large values of
    which it is made (the first few of them)."""

    work: int
    reads: tuple[Node, ...]


NOTHING = Cost(0, ())


def costs(nodes: Iterable[Node], uses: Mapping[Node, Sequence[Node]], results: Collection[Node]) -> dict[Node, Cost]:
    """What each node costs. It is not known yet what will be in memory; what is made of several large values and read more than once is
    assumed to be."""
    found: dict[Node, Cost] = {}
    for n in nodes:
        if is_free(n):
            found[n] = NOTHING
        elif in_memory(n) or is_anchor(n) or n.op.kind == "reduction":
            found[n] = _loaded(n)
        else:
            parts = [_loaded(a) if len(found[a].reads) > 1 and (len(uses[a]) > 1 or a in results) else found[a] for a in n.operands]
            if n.op.kind == "view" and _size(n) >= REPEATED * sum(map(_size, n.operands)):
                parts = []
            mine = op_cost(n) if n.op.kind == "elementwise" else 0
            reads = tuple(dict.fromkeys(r for c in parts for r in c.reads))[:MOST]
            found[n] = Cost(min(mine + sum(c.work for c in parts), 1 << 20), reads)
    return found


def _loaded(n: Node) -> Cost:
    return Cost(0, (n,)) if _size(n) * n.dtype.bytes >= LARGE else NOTHING


def _size(n: Node) -> int:
    return at(n.type.size, SAMPLES[0])
