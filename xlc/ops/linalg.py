"""The contraction: every product of tensors, as StableHLO's dot_general.

    dot(%x: f32[8,64,32], %y: f32[8,32,16]) {contract=((2,), (1,)), batch=((0,), (0,))}: f32[8,64,16]

Result dimensions are: batch, free ones of the left, free ones of the right. Halves accumulate in f32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.node import Node
from xlc.ir.op import Op, lookup, register
from xlc.ir.types import Size, Type

from .kinds import ALL, rounded, up
from .shape import moved

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def _infer(a: Type, b: Type, contract: Pair, batch: Pair) -> Type:
    (lc, rc), (lb, rb) = contract, batch
    if a.dtype is not b.dtype:
        raise XlcTypeError(f"dot needs operands of one dtype, found {a} and {b}")
    if len(lc) != len(rc) or len(lb) != len(rb):
        raise XlcValueError(f"dot: contract {contract} and batch {batch} must pair dimensions of both operands")
    for t, used in ((a, (*lc, *lb)), (b, (*rc, *rb))):
        if len(set(used)) < len(used) or any(not 0 <= d < t.rank for d in used):
            raise XlcValueError(f"dot: contract {contract} and batch {batch} must name distinct dimensions of {a} and {b}")
    for kind, left, right in (("contracted", lc, rc), ("batch", lb, rb)):
        for i, j in zip(left, right, strict=True):
            if a.shape[i] != b.shape[j]:
                raise XlcValueError(f"dot: {kind} dimensions differ: {a} has {a.shape[i]} in dimension {i}, "
                                    f"{b} has {b.shape[j]} in dimension {j}")
    free = [s for d, s in enumerate(a.shape) if d not in lc and d not in lb]
    free += [s for d, s in enumerate(b.shape) if d not in rc and d not in rb]
    return Type(a.dtype, (*(a.shape[d] for d in lb), *free))


def _array(a: np.ndarray, b: np.ndarray, contract: Pair, batch: Pair) -> np.ndarray:
    (lc, rc), (lb, rb) = contract, batch
    lf, rf = _free(a.ndim, lc, lb), _free(b.ndim, rc, rb)
    shape = [*(a.shape[d] for d in (*lb, *lf)), *(b.shape[d] for d in rf)]
    lead, inner = [a.shape[d] for d in lb], math.prod(a.shape[d] for d in lc)
    wide = np.dtype(np.float64) if a.dtype.kind in "fV" else np.dtype(np.int64) if a.dtype.kind == "b" else a.dtype
    left = a.astype(wide).transpose((*lb, *lf, *lc)).reshape((*lead, math.prod(a.shape[d] for d in lf), inner))
    right = b.astype(wide).transpose((*rb, *rc, *rf)).reshape((*lead, inner, math.prod(b.shape[d] for d in rf)))
    with np.errstate(all="ignore"):
        out = np.asarray(np.matmul(left, right)).reshape(shape)
    return out != 0 if a.dtype.kind == "b" else rounded(out, a.dtype)


def _free(rank: int, *used: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d for d in range(rank) if not any(d in u for u in used))


def _vjp(g: Node, y: Node, a: Node, b: Node, contract: Pair, batch: Pair) -> list[Node]:
    (lc, rc), (lb, rb) = contract, batch
    left, right, n = _free(a.rank, lc, lb), _free(b.rank, rc, rb), len(lb)
    g_batch, g_left = tuple(range(n)), tuple(range(n, n + len(left)))
    g_right = tuple(range(n + len(left), n + len(left) + len(right)))
    # d/da: contract g with b over b's free dimensions; the result has dimensions batch, left, contracted (in b's order)
    da = dot(g, b, contract=(g_right, right), batch=(g_batch, rb))
    order = sorted(range(len(rc)), key=lambda k: rc[k])
    da = _placed(da, (*lb, *left, *(lc[k] for k in order)))
    # d/db: contract a with g over a's free dimensions; the result has dimensions batch, contracted (in a's order), right
    db = dot(a, g, contract=(left, g_left), batch=(lb, g_batch))
    order = sorted(range(len(lc)), key=lambda k: lc[k])
    return [da, _placed(db, (*rb, *(rc[k] for k in order), *right))]


def _placed(x: Node, where: tuple[int, ...]) -> Node:
    """Dimension k of x becomes dimension where[k]."""
    if where == tuple(range(len(where))):
        return x
    return lookup("transpose")(x, axes=tuple(where.index(d) for d in range(len(where))))


def _batch(size: Size, args: Sequence[Node], batched: Sequence[bool], contract: Pair, batch: Pair) -> Node:
    """The mapped axis is a batch dimension where both operands have it, else a free dimension of the one that has it."""
    (a, b), (left, right) = args, batched
    (lc, rc), (lb, rb) = (_raised(pair, batched) for pair in (contract, batch))
    if left and right:
        return dot(a, b, contract=(lc, rc), batch=((0, *lb), (0, *rb)))
    at = len(lb) if left else len(lb) + len(_free(a.rank, lc, lb))
    return moved(dot(a, b, contract=(lc, rc), batch=(lb, rb)), at, 0)


def _raised(pair: Pair, batched: Sequence[bool]) -> Pair:
    left, right = (up(dims) if b else dims for dims, b in zip(pair, batched, strict=True))
    return left, right


dot: Any = register(Op("dot", "contraction", 2, _infer, _array, vjp=_vjp, batch=_batch, dtypes=ALL))
