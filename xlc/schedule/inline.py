"""The scalar value of a fused node at an index: everything between it and memory, written out.

Enters a Group (what is computed together) and the buffers of what is not; leaves Exprs over flat, one-dimensional buffers:

    %2 = multiply(exp(%x), broadcast(%b))  at (i, j)   ->   multiply(exp(x[i*64+j]), b[j])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, const, expr, load, substitute, walk
from xlc.ir.node import Node
from xlc.ir.types import Size

Index = tuple[Expr, ...]


def flat(node: Node, name: str) -> Buffer:
    """The buffer of a tensor as kernels see it: one dimension."""
    return Buffer(name, node.dtype, (node.type.size,))


address = ix.address_of


class Places(dict[Node, Buffer]):
    """Where the nodes that a kernel reads and writes lie.

    A loop nest may be one block of a larger one: its loop variables then count from ``start``, the block's first position (per variable),
    and of a node in ``blocks`` only the block exists: (shape of the block, its offset in the buffer)."""

    def __init__(self, buffers: Mapping[Node, Buffer], start: Mapping[Expr, Expr] | None = None,
                 blocks: Mapping[Node, tuple[tuple[Size, ...], Expr]] | None = None):
        super().__init__(buffers)
        self.start, self.blocks = dict(start or {}), dict(blocks or {})

    def index(self, at: Index) -> Index:
        """An index over the nest's variables, as an index of the whole tensor."""
        if not self.start:
            return at
        moved = {v: s + v for v, s in self.start.items()}
        return tuple(substitute(i, moved) for i in at)

    def address(self, node: Node, index: Index) -> Expr:
        """The place in its buffer of the element at an index of the whole tensor."""
        if node not in self.blocks:
            return address(node.shape, index)
        shape, offset = self.blocks[node]
        starts = [*self.start.values(), *[const(0)] * len(index)]
        return address(shape, tuple(i - s for i, s in zip(index, starts, strict=False))) + offset


class Inliner:
    """Values of the members of one group. ``fixed`` maps an anchor (a reduction, a contraction) to the scalar that stands for its
    result."""

    def __init__(self, members: Iterable[Node], buffers: Places):
        self.members, self.buffers = set(members), buffers
        self.fixed: dict[Node, Expr] = {}
        self.memo: dict[tuple[Node, Index, Expr | None], Expr] = {}

    def value(self, node: Node, index: Index) -> Expr:
        """The value of a node at an index over the variables of the nest."""
        return self._value(node, self.buffers.index(index), None)

    def place(self, node: Node, index: Index) -> Expr:
        """The address of what the kernel writes, at an index over the variables of the nest."""
        return self.buffers.address(node, self.buffers.index(index))

    def _value(self, node: Node, index: Index, where: Expr | None) -> Expr:
        """Iterative along chains of elementwise operators (they may be long); recursive through views."""
        stack = [(node, False)]
        while stack:
            n, ready = stack.pop()
            key = (n, index, where)
            if key in self.memo:
                continue
            if n in self.fixed:
                self.memo[key] = self.fixed[n]
            elif n not in self.members:
                self.memo[key] = load(self.buffers[n], (self.buffers.address(n, index),), where)
            elif n.op.kind == "elementwise":
                if ready:
                    args = [self.memo[(a, index, where)] for a in n.args]
                    self.memo[key] = n.op(*args, **n.attributes)
                else:
                    stack.append((n, True))
                    stack.extend((a, False) for a in reversed(n.args))
            else:
                self.memo[key] = n.op.pull(n, index, self._reader(n, where))  # type: ignore[misc]
        return self.memo[(node, index, where)]

    def _reader(self, n: Node, outer: Expr | None):  # type: ignore[no-untyped-def]
        def read(k: int, at: Sequence[Expr], where: Expr | None = None) -> Expr:
            guard = outer if where is None else where if outer is None else outer & where
            if guard is not None and guard.is_const:
                if not guard.value:  # never in bounds: the value is not used
                    return const(0, n.args[k].dtype)
                guard = None
            return self._value(n.args[k], tuple(at), guard)

        return read


# ------------------------------------------------------------------------------------------------ loops that are one


def uses_outside_addresses(values: Iterable[Expr]) -> set[Expr]:
    """Loop variables that matter to a value other than through the address of a load (iota, masks, gathers' arithmetic)."""
    found: set[Expr] = set()
    seen: set[int] = set()
    stack = list(values)
    while stack:
        e = stack.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        if e.op is LOAD:
            inner = [a for m in ix.polynomial(e.args[0]) for a in m if a.op.name not in ("var", "size")]
            stack.extend(inner)
            stack.extend(e.args[1:])
        elif e.op.name == "var":
            found.add(e)
        else:
            stack.extend(e.args)
    return found


def _split(p: ix.Polynomial, v: Expr) -> ix.Polynomial | None:
    """The polynomial factor of v, None where v occurs in another way."""
    out: ix.Polynomial = {}
    for m, c in p.items():
        if m.count(v) == 1:
            rest = list(m)
            rest.remove(v)
            out[tuple(rest)] = c
        elif any(ix.depends(a, v) for a in m):
            return None
    return out


def collapsible(addresses: Iterable[Expr], outer: Expr, inner: Expr, inner_extent: Expr) -> bool:
    """Whether the two loops walk every address as one loop of extent outer*inner would."""
    for a in addresses:
        p = ix.polynomial(a)
        po, pi = _split(p, outer), _split(p, inner)
        if po is None or pi is None:
            return False
        if any(inner in m for m in po) or any(outer in m for m in pi):
            return False
        if ix._arith("multiply", pi, ix.polynomial(inner_extent)) != po:
            return False
    return True


def collapse(e: Expr, outer: Expr, inner: Expr, joined: Expr, memo: dict[Expr, Expr]) -> Expr:
    """The expression over the one loop (``joined`` = outer*extent + inner in every address)."""
    for x in walk(e):
        if x in memo:
            continue
        if x.op is LOAD:
            p = {m: c for m, c in ix.polynomial(x.args[0]).items() if outer not in m}
            p = {tuple(joined if a is inner else memo.get(a, a) for a in m): c for m, c in p.items()}
            p = {tuple(sorted(m, key=ix._key)): c for m, c in p.items()}
            memo[x] = expr(LOAD, (ix.build(p), *(memo[a] for a in x.args[1:])), x.dtype, x.attrs)
        else:
            args = tuple(memo[a] for a in x.args)
            memo[x] = x if args == x.args else x.op(*args, **dict(x.attrs)) if x.op.kind != "input" else expr(x.op, args, x.dtype, x.attrs)
    return memo[e]


def addresses(values: Iterable[Expr]) -> list[Expr]:
    return [x.args[0] for x in walk(*values) if x.op is LOAD]
