"""Contraction, softmax, contraction, as one pass over the contracted dimension: an online softmax.

    x = where(j <= i, dot(q, k) * scale, -inf);  p = exp(x - max(x)) / sum(exp(x - max(x)));  y = dot(p, v)

Enters a group with stages (see ``passes.tile``): a contraction with its epilogue, rows of a maximum and a sum, and the contraction that
reads them. Leaves what a schedule needs to go through the keys j in blocks, keeping of each row only the maximum m of x so far, the sum l
of exp(x - m), and the sum of exp(x - m) * v, both rescaled when m grows (M. Milakov and N. Gimelshein, arXiv:1805.02867; T. Dao et al.,
arXiv:2205.14135). That this is the same follows from the rows' algebra: what is contracted is exp(x - m), times what depends on neither m
nor l, over l. Which operators x is made of does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, const, expr, load, size, var, walk
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import bool_, f32
from xlc.passes.group import Group

from .inline import Inliner, Places, flat
from .nest import Dimension
from .product import Product
from .reductions import contraction_reads
from .window import EXPONENTIAL, bounds, half_planes, unmasked

APPROXIMATE = "exp2_approx"
LOG2_E = math.log2(math.e)
ACC, P = var("acc", f32), var("p", f32)


@dataclass(frozen=True)
class Online:
    """All over the variables of the dimensions. ``q`` and ``k`` are the operands of the first contraction, ``v`` is the right one of the
    last, ``product``. ``score`` is x over ``ACC``, the first contraction's result; ``weight`` is what is contracted with v, over ``P`` =
    exp(x - m), but for the division by l. Both are in f32, whatever the operators' dtypes are."""

    product: Product
    q: Expr
    k: Expr
    v: Expr
    score: Expr
    weight: Expr
    batch: tuple[Dimension, ...]
    rows: tuple[Dimension, ...]
    keys: tuple[Dimension, ...]
    depth: tuple[Dimension, ...]
    columns: tuple[Dimension, ...]
    beside: tuple[tuple[str, Buffer, Expr], ...]  # m and l, where they are results, too: which, and where a row's goes

    def window(self, first: Expr, count: int) -> tuple[Expr | None, Expr | None]:
        """Bounds of the keys, from and below which x may be anything but -inf in ``count`` rows from ``first`` on; None where there is
        none. They follow from comparisons of the row with the key."""
        return bounds(half_planes(self.score, *self._place()), first, count)

    def inside(self, first: Expr, count: int) -> tuple[Expr | None, Expr | None]:
        """Bounds of the keys, from and below which x is what ``unmasked`` says in all of these rows."""
        return bounds(half_planes(self.score, *self._place()), first, count, all_of_them=True)

    @property
    def unmasked(self) -> Expr:
        """``score`` without the comparisons from which the bounds follow."""
        return unmasked(self.score, *self._place())

    def _place(self) -> tuple[Expr, Expr]:
        """The row and the key, where these are one variable each (else some that do not occur)."""
        one = len(self.rows) == 1 and len(self.keys) == 1
        return (self.rows[0].var, self.keys[0].var) if one else (var("row"), var("key"))

    def factored(self) -> tuple[Online, float]:
        """The same but for a constant factor above 0 of x, which is given besides: 1 where there is none."""
        score, factor = factored(self.score)
        return replace(self, score=score), factor


def recognised(stages: Sequence[Group], shared: int, places: Places, narrow: int) -> Online | str:
    """The parts of stages that have their first ``shared`` dimensions in common, or why they are no online softmax. ``narrow``: rows of a
    block, up to which the rows of several positions of outer dimensions, which read the same right operands, are put together."""
    if [s.kind for s in stages] != ["contraction", "reduction", "contraction"]:
        return "this machine computes stages in one kernel only where they are a contraction, a softmax and a contraction"
    scores, rows, group = stages
    first, last = scores.anchor, group.anchor
    assert first is not None and last is not None
    root = last.args[0]
    if first.rank != shared + 1 or len(last["contract"][0]) != 1:
        return "its rows have several dimensions"
    if not all(n.dtype.is_float and n.dtype.bits <= 32 for n in (first, last)):
        return "its contractions are not in f32 or less"
    own = Places({**places, root: flat(root, "probabilities"), **{r: flat(r, "scores") for r in scores.roots}})
    product = Product(group, last, own, join=False)
    dims = [*(Dimension(v, product.extents[v]) for v in (*product.batch, *product.ms))]
    front = [v if product.extents[v] != 1 else const(0) for v in group.domain[:shared]]
    keys = tuple(Dimension(v, product.extents[v]) for v in product.ks)
    at = (*front, keys[0].var if keys else const(0))
    contracted = [Dimension(var(f"d{j}"), first.args[0].shape[c]) for j, c in enumerate(first["contract"][0])]
    with ix.ranges({d.var: size(d.extent) for d in (*dims, *keys, *contracted)}):
        left, right = contraction_reads(first, at, [d.var if d.extent != 1 else const(0) for d in contracted])
        inner = Inliner(scores.members, own)
        q, k = inner.value(first.args[0], left), inner.value(first.args[1], right)
        found = _softmax(scores, rows, root, first, at, own)
        beside = tuple(("ml"[rows.reductions.index(r) == 0], own[r], own.address(r, tuple(front))) for r in rows.roots if r is not root)
    if isinstance(found, str):
        return found
    cut = len(dims) - together(dims, (k, product.b), narrow)
    return Online(product, q, k, product.b, *found, tuple(dims[:cut]), tuple(dims[cut:]), keys,
                  tuple(d for d in contracted if d.extent != 1), tuple(Dimension(v, product.extents[v]) for v in product.ns), beside)


def shifted(peak: Expr, factor: float | None = None) -> Expr:
    """What ``exponential`` subtracts from x where the maximum so far is ``peak``. Where all x so far are -inf that is 0, so that exp(x - m)
    is 0: a row of which all keys are masked ends as 0/0."""
    shift = lookup("where")(peak.equals(float("-inf")), 0.0, peak)
    return shift if factor is None else shift * (factor * LOG2_E)


def rescaling(old: Expr, shift: Expr, factor: float | None = None) -> Expr:
    """By what is multiplied that was summed where the maximum was ``old``, for it to be summed under ``shift``."""
    return lookup(EXPONENTIAL)(old - shift) if factor is None else lookup(APPROXIMATE)(old * (factor * LOG2_E) - shift)


def exponential(x: Expr, shift: Expr, factor: float | None = None) -> Expr:
    """exp(x - m). With a factor it is exp((x - m) * factor), in two instructions where the machine has ``APPROXIMATE``: what is raised is
    rounded once, so that the relative error of the result is |x - m| * factor * 2**-24 + 2**-22, and, as the shift is rounded, too, a
    factor that all of a row have in common."""
    return lookup(EXPONENTIAL)(x - shift) if factor is None else lookup(APPROXIMATE)(lookup("fma")(x, factor * LOG2_E, -shift))


def together(dims: list[Dimension], operands: tuple[Expr, ...], narrow: int) -> int:
    """How many of the last dimensions are the rows of one block: 1, or more where they are short and share the right operands."""
    count, rows = 0, 1
    for d in reversed(dims):
        if any(ix.depends(e, d.var) for e in operands) or count and not (isinstance(d.extent, int) and rows * d.extent <= narrow):
            break
        count += 1
        if not isinstance(d.extent, int):
            break
        rows *= d.extent
    return count


def _softmax(scores: Group, rows: Group, root: Node, first: Node, at: tuple[Expr, ...], places: Places) -> tuple[Expr, Expr] | str:
    """(x, weight) in f32."""
    highest, total = rows.reductions[-1], rows.reductions[0]  # the last of all is added first
    last = len(at) - 1
    if len(rows.reductions) != 2 or (highest.op.name, total.op.name) != ("max", "sum") \
            or any(n["axes"] != (last,) or n.args[0].rank != last + 1 for n in (highest, total)):
        return "its rows are no softmax: they have other reductions than a maximum and a sum"
    result = flat(first, "first")
    inner = Inliner({*scores.members, *rows.members} - {first}, Places({**places, first: result}))
    peak, sum_ = var("peak", highest.dtype), var("total", total.dtype)
    x = inner.value(highest.args[0], at)
    inner.fixed[highest] = peak
    e = inner.value(total.args[0], at)
    inner.fixed[total] = sum_
    value = inner.value(root, at)
    if not (e.op.name == EXPONENTIAL and e.args[0].op.name == "subtract" and e.args[0].args == (x, peak)):
        return "its rows are no softmax: what is summed is not exp(x - max(x))"
    linear = _linear(value, e, sum_)
    if linear is None or not linear[1]:
        return "its rows are no softmax: what is contracted is not proportional to exp(x - max(x)) over its sum"
    read = load(result, (places.address(first, at),))
    memo = {read: ACC}
    x, weight = widened(x, memo), widened(linear[0], memo)
    if any(n.op is LOAD and n["buffer"] == result for n in walk(x, weight)):
        return "its rows read the first contraction at other positions"
    return x, weight


def _linear(value: Expr, e: Expr, total: Expr) -> tuple[Expr, bool] | None:
    """(the value over ``P`` for e, without its division by the total; whether it has one), where it is proportional to e."""
    if value is e:
        return P, False
    name, args = value.op.name, value.args
    constant = [not (a.free & {"peak", "total"}) for a in args]
    if name == "cast" and value.dtype.is_float or name == "negative":
        inner = _linear(args[0], e, total)
        return inner and (inner[0] if name == "cast" else -inner[0], inner[1])
    if name == "divide":
        inner = _linear(args[0], e, total)
        below = args[1].args[0] if args[1].op.name == "cast" else args[1]
        if inner is None or below is not total and not constant[1] or below is total and inner[1]:
            return None
        return (inner[0], True) if below is total else (inner[0] / _f32(args[1]), inner[1])
    if name == "multiply" and any(constant):
        k = constant.index(True)
        inner = _linear(args[1 - k], e, total)
        return inner and (inner[0] * _f32(args[k]), inner[1])
    if name == "where" and constant[0]:
        parts = [(const(0.0, f32), None) if a.is_const and float(a.value) == 0 else _linear(a, e, total) for a in args[1:]]
        divided = {d for p in parts if p is not None for d in [p[1]] if d is not None}
        if None in parts or len(divided) != 1:
            return None
        return lookup("where")(args[0], *(p[0] for p in parts if p is not None)), divided.pop()
    return None


def _f32(e: Expr) -> Expr:
    return e if e.dtype is f32 else lookup("cast")(e, dtype=f32)


def widened(e: Expr, memo: dict[Expr, Expr]) -> Expr:
    """The value with f16 and bf16 computed in f32: rounded where it is loaded alone."""
    for x in walk(e):
        if x in memo:
            continue
        args = [memo[a] for a in x.args]
        if x.is_const:
            memo[x] = const(x.value, f32) if _is_half(x) else x
        elif x.op.kind == "input":
            plain = expr(x.op, args, x.dtype, x.attrs)
            memo[x] = _f32(plain) if _is_half(x) else plain
        elif x.op.name == "cast" and _is_half(x):
            memo[x] = _f32(args[0])
        else:
            if not x.dtype.is_float and x.dtype is not bool_:  # its bits, perhaps
                args = [lookup("cast")(a, dtype=b.dtype) if _is_half(b) else a for a, b in zip(args, x.args, strict=True)]
            found = x.op(*args, **dict(x.attrs))
            memo[x] = _f32(found) if _is_half(found) else found
    return memo[e]


def _is_half(e: Expr) -> bool:
    return e.dtype.is_float and e.dtype.bits == 16


def factored(x: Expr) -> tuple[Expr, float]:
    """(y, c) with x = c*y, c > 0. A factor of what a mask lets through is one of all: -inf stays what it is."""
    name, args = x.op.name, x.args
    if name == "where" and args[2].is_const and args[2].value == float("-inf"):
        inner, factor = factored(args[1])
        return lookup("where")(args[0], inner, args[2]), factor
    if name == "multiply" and args[0].is_const:
        args = args[::-1]
    if name in ("multiply", "divide") and args[1].is_const and 0 < args[1].value < math.inf:
        inner, factor = factored(args[0])
        found = factor * args[1].value if name == "multiply" else factor / args[1].value
        if 2.0**-100 < found < 2.0**100:
            return inner, found
    return x, 1.0


__all__ = ["ACC", "P", "Online", "exponential", "factored", "recognised", "rescaling", "shifted", "together", "widened"]
