"""Building loop nests: the few shapes that every lowering is made of.

    rows(...)     one parallel loop over the product of the outer dimensions, their variables recovered by division
    lanes(...)    a run of vector loops over one dimension: full vectors, then what is left under a mask
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, Let, Loop, Stmt, Store, const, size, var, walk
from xlc.ir.op import lookup
from xlc.ir.types import Dim, Size, product
from xlc.passes.cost import expr_cost


@dataclass(frozen=True)
class Dimension:
    """A loop to be: its variable and its extent."""

    var: Expr
    extent: Size

    @property
    def name(self) -> str:
        return self.var["name"]

    @property
    def static(self) -> int | None:
        return self.extent if isinstance(self.extent, int) else None


def minimum(a: Expr, b: Expr) -> Expr:
    return lookup("minimum")(a, b)


def operations(values: Iterable[Expr]) -> int:
    """Elementwise operators in an expression DAG, i64 index arithmetic not counted; a decomposed one counts for what it becomes."""
    return sum(expr_cost(e) for e in walk(*values)
               if e.op.kind == "elementwise" and not all(a.dtype.name == "i64" for a in e.args))


def power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def lanes(v: str, start: Expr, stop: Expr, width: int, native: int, body: Callable[[Expr], Sequence[Stmt]]) -> list[Stmt]:
    """Statements that run ``body(x)`` for start <= x < stop in vectors of ``width`` lanes; what is left runs under a mask, ``native`` lanes
    at a time where its length is not known.

    ``body`` receives the position; lane variables are named after ``v``."""
    extent = stop - start
    lane, at = var(v), var(f"{v}_")

    def vector(base: Expr, count: Expr, w: int) -> Loop:
        return Loop(v, const(0), count, 1, "vector", tuple(body(base + lane)), w)

    def run(lo: Expr, hi: Expr, w: int, masked: bool) -> list[Stmt]:
        with ix.ranges({lane: const(w)}):
            trip = (hi - lo).value if (hi - lo).is_const else None
            if trip is not None and trip <= 0:
                return []
            if trip is not None and trip <= w:
                return [vector(lo, const(trip) if masked else const(w), w)]
            return [Loop(at["name"], lo, hi, w, "serial", (vector(at, minimum(hi - at, const(w)) if masked else const(w), w),))]

    if extent.is_const:
        n = extent.value
        middle = n // width * width
        rest = power_of_two(n - middle)
        return run(start, start + middle, width, False) + run(start + middle, stop, rest, rest != n - middle)
    whole = start + (extent // width) * width
    return run(start, whole, width, False) + run(whole, stop, native, True)


def decode(outer: Sequence[Dimension], p: Expr) -> list[Stmt]:
    """Recover the variables of several dimensions from one that runs over their product."""
    out: list[Stmt] = []
    rest: Expr = p
    with ix.ranges({p: size(product(d.extent for d in outer))}):
        for k, d in enumerate(outer):
            inner = size(product(e.extent for e in outer[k + 1:]))
            out.append(Let(d.name, rest // inner if k + 1 < len(outer) else rest))
            rest = rest % inner if k + 1 < len(outer) else rest
    return out


def rows(outer: Sequence[Dimension], body: Sequence[Stmt], step: int = 1) -> list[Stmt]:
    """One parallel loop over all of ``outer``."""
    outer = [d for d in outer if d.extent != 1] or []
    if not outer:
        return list(body)
    if len(outer) == 1:
        d = outer[0]
        return [Loop(d.name, const(0), size(d.extent), step, "parallel", tuple(body))]
    p = var("p")
    return [Loop("p", const(0), size(product(d.extent for d in outer)), 1, "parallel", (*decode(outer, p), *body))]


def serial(dims: Sequence[Dimension], body: Sequence[Stmt]) -> list[Stmt]:
    """Nested serial loops, the first outermost."""
    out = list(body)
    for d in reversed(dims):
        out = out if d.extent == 1 else [Loop(d.name, const(0), size(d.extent), 1, "serial", tuple(out))]
    return out


def units(dims: Sequence[Dimension]) -> dict[Expr, Expr]:
    """The variables of dimensions of extent 1 are 0."""
    return {d.var: const(0) for d in dims if d.extent == 1}


def stored(ends: Sequence[tuple[Buffer, Expr, Expr]]) -> list[Stmt]:
    """Stores (buffer, address, value), all of whose values are computed before the first (one may lie over what another still reads)."""
    if len(ends) == 1:
        return [Store(b, (a,), v) for b, a, v in ends]
    lets = [Let(f"z{j}", v) for j, (_, _, v) in enumerate(ends)]
    return [*lets, *(Store(b, (a,), var(let.name, let.value.dtype)) for let, (b, a, _) in zip(lets, ends, strict=True))]


def is_symbolic(s: Size) -> bool:
    return isinstance(s, Dim)


__all__ = ["Dimension", "decode", "lanes", "minimum", "operations", "power_of_two", "rows", "serial", "stored", "units"]
