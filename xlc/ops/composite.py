"""Composites: operators that stay one node until the pass ``decompose``, so that a backend may claim them. All act along ``axes``
(ascending) or the last dimensions.

    softmax(%x) {axes=(1,)}  ->  e = exp(x - max(x)); e / sum(e)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.node import Node, full
from xlc.ir.op import lookup
from xlc.ir.types import Size, Type, bool_, f32, i64, product

from .index import take_along
from .kinds import composite, is_half, up
from .kinds import float_type as _float
from .linalg import dot
from .reduce import back, max_, sum_
from .scalar import abs_, cast, equal, exp, isfinite, log, log1p, maximum, rsqrt, square, stop_gradient, where
from .shape import broadcast, repeated, reshape


def _along(name: str) -> Any:
    """The batching rule of an operator along ``axes`` of its first argument; parameters that differ between elements need the
    decomposition."""

    def rule(size: Size, args: Sequence[Node], batched: Sequence[bool], axes: tuple[int, ...], **attrs: Any) -> Any:
        if any(batched[1:]):
            return NotImplemented
        return lookup(name)(*args, axes=up(axes), **attrs)

    return rule


def _leading(name: str) -> Any:
    """The batching rule of an operator on the last dimensions: the mapped axis is one more in front."""
    return lambda size, args, batched, **attrs: lookup(name)(*repeated(size, args, batched), **attrs)


def _reduced(x: Type, axes: tuple[int, ...]) -> Type:
    return Type(_float(x).dtype, tuple(s for d, s in enumerate(x.shape) if d not in axes))


def _peak(x: Node, axes: tuple[int, ...]) -> Node:
    """The greatest element, 0 where it is infinite (so that inf - inf does not arise); no gradient flows through it."""
    m = stop_gradient(max_(x, axes=axes))
    return where(isfinite(m), m, full(m.type, 0))


def _logsumexp(x: Node, axes: tuple[int, ...]) -> Node:
    m = _peak(x, axes)
    return log(sum_(exp(x - back(m, x, axes)), axes=axes)) + m


def _softmax(x: Node, axes: tuple[int, ...]) -> Node:
    e = exp(x - back(stop_gradient(max_(x, axes=axes)), x, axes))
    return e / back(sum_(e, axes=axes), x, axes)


def _log_softmax(x: Node, axes: tuple[int, ...]) -> Node:
    shifted = x - back(stop_gradient(max_(x, axes=axes)), x, axes)
    return shifted - back(log(sum_(exp(shifted), axes=axes)), x, axes)


def _softmax_vjp(g: Node, y: Node, x: Node, axes: tuple[int, ...]) -> list[Node]:
    """In terms of the result alone: neither the exponentials nor their sums are kept."""
    return [y * (g - back(sum_(g * y, axes=axes), x, axes))]


def _log_softmax_vjp(g: Node, y: Node, x: Node, axes: tuple[int, ...]) -> list[Node]:
    return [g - exp(y) * back(sum_(g, axes=axes), x, axes)]


logsumexp = composite("logsumexp", _reduced, _logsumexp, batch=_along("logsumexp"))
softmax = composite("softmax", _float, _softmax, vjp=_softmax_vjp, batch=_along("softmax"))
log_softmax = composite("log_softmax", _float, _log_softmax, vjp=_log_softmax_vjp, batch=_along("log_softmax"))


def _mean(x: Node, axes: tuple[int, ...]) -> Node:
    count = product(x.shape[a] for a in axes)
    total = sum_(x, axes=axes)
    if isinstance(count, int):
        return total / float(max(count, 1))
    return total / broadcast(cast(lookup("extent")(size=count), dtype=x.dtype), shape=total.shape, axes=())


def _wide(x: Node) -> Node:
    return cast(x, dtype=f32) if is_half(x.dtype) else x


def _deviation(x: Node, axes: tuple[int, ...]) -> Node:
    return x - back(_mean(x, axes), x, axes)


def _variance(x: Node, axes: tuple[int, ...]) -> Node:
    return _mean(square(_deviation(x, axes)), axes)


variance = composite("variance", _reduced, _variance, batch=_along("variance"), doc="the mean of the squares of what differs from the mean")


def _standardize(x: Node, axes: tuple[int, ...], eps: float) -> Node:
    return _deviation(x, axes) * _deviation_scale(x, axes, eps)


def _deviation_scale(x: Node, axes: tuple[int, ...], eps: float) -> Node:
    return back(rsqrt(_variance(x, axes) + eps), x, axes)


def _standardize_vjp(g: Node, y: Node, x: Node, axes: tuple[int, ...], eps: float) -> list[Node]:
    """From x, its mean and its variance, all of which the forward pass has: two sums, both over g and y. Differentiating each step would
    add that of the deviations, which is 0 but for rounding, and keep them."""
    return [(g - back(_mean(g, axes), x, axes) - y * back(_mean(g * y, axes), x, axes)) * _deviation_scale(x, axes, eps)]


standardize = composite("standardize", lambda x, axes, eps: _float(x), _standardize, vjp=_standardize_vjp, batch=_along("standardize"),
                        doc="(x - mean(x)) / sqrt(variance(x) + eps) along axes")


def _affine_type(x: Type, *parameters: Type, axes: tuple[int, ...], eps: float) -> Type:
    expected = tuple(x.shape[a] for a in axes)
    for p in parameters:
        if p.shape != expected or p.dtype is not x.dtype:
            raise XlcValueError(f"normalisation of {x} over axes {axes}: scale and bias must be {Type(x.dtype, expected)}, not {p}")
    return _float(x)


def _layer_norm(x: Node, scale: Node, bias: Node, axes: tuple[int, ...], eps: float) -> Node:
    y = standardize(_wide(x), axes=axes, eps=eps)
    out = y * broadcast(_wide(scale), shape=x.shape, axes=axes) + broadcast(_wide(bias), shape=x.shape, axes=axes)
    return cast(out, dtype=x.dtype) if out.dtype is not x.dtype else out


def _rms_norm(x: Node, scale: Node, axes: tuple[int, ...], eps: float) -> Node:
    y = _wide(x)
    out = y * back(rsqrt(_mean(square(y), axes) + eps), x, axes) * broadcast(_wide(scale), shape=x.shape, axes=axes)
    return cast(out, dtype=x.dtype) if out.dtype is not x.dtype else out


layer_norm = composite("layer_norm", _affine_type, _layer_norm, arity=3, batch=_along("layer_norm"))
rms_norm = composite("rms_norm", _affine_type, _rms_norm, arity=2, batch=_along("rms_norm"))


def _cross_type(logits: Type, labels: Type) -> Type:
    if not labels.dtype.is_int or labels.shape != logits.shape[:-1]:
        raise XlcValueError(f"cross_entropy of logits {logits}: labels must be integers of shape {logits.shape[:-1]}, not {labels}")
    return Type(_float(logits).dtype, labels.shape)


def _cross_entropy(logits: Node, labels: Node) -> Node:
    axis = logits.rank - 1
    picked = take_along(logits, reshape(cast(labels, dtype=i64), shape=(*labels.shape, 1)), axis=axis)
    return logsumexp(logits, axes=(axis,)) - reshape(picked, shape=labels.shape)


def _cross_entropy_vjp(g: Node, y: Node, logits: Node, labels: Node) -> list[Node | None]:
    """softmax (from the row's logsumexp, which the forward pass has) minus the one-hot label, without a scatter."""
    axis = logits.rank - 1
    rows = tuple(range(axis))
    total = broadcast(logsumexp(logits, axes=(axis,)), shape=logits.shape, axes=rows)
    columns = lookup("iota")(shape=logits.shape, axis=axis, dtype=i64)
    hot = cast(equal(columns, broadcast(cast(labels, dtype=i64), shape=logits.shape, axes=rows)), dtype=logits.dtype)
    return [(exp(logits - total) - hot) * broadcast(g, shape=logits.shape, axes=rows), None]


cross_entropy = composite("cross_entropy", _cross_type, _cross_entropy, arity=2, vjp=_cross_entropy_vjp, batch=_leading("cross_entropy"))


def _same_type(x: Type, y: Type) -> Type:
    if x != y:
        raise XlcTypeError(f"arguments of one type are needed, found {x} and {y}")
    return _float(x)


def _sigmoid_cross_entropy(x: Node, z: Node) -> Node:
    """max(x, 0) - x*z + log(1 + exp(-|x|)): no overflow for any x."""
    return maximum(x, 0.0) - x * z + log1p(exp(-abs_(x)))


def _sigmoid_cross_entropy_vjp(g: Node, y: Node, x: Node, z: Node) -> list[Node]:
    return [g * (lookup("expit")(x) - z), -(g * x)]


sigmoid_cross_entropy = composite("sigmoid_cross_entropy", _same_type, _sigmoid_cross_entropy, arity=2, vjp=_sigmoid_cross_entropy_vjp,
                                  batch=_leading("sigmoid_cross_entropy"))


def _attention_type(q: Type, k: Type, v: Type, *mask: Type, causal: bool, scale: float | None) -> Type:
    ranks = q.rank >= 2 and k.rank == q.rank and v.rank == q.rank
    if not ranks or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1] or v.shape[:-1] != k.shape[:-1]:
        raise XlcValueError(f"attention needs q (..., tokens, depth), k (..., keys, depth), v (..., keys, width), found {q}, {k}, {v}")
    scores = (*q.shape[:-1], k.shape[-2])
    if mask and (mask[0].shape != scores or (mask[0].dtype is not bool_ and mask[0].dtype is not q.dtype)):
        raise XlcValueError(f"attention: the mask must be bool or {q.dtype} of shape {scores}, not {mask[0]}")
    return Type(_float(q).dtype, (*q.shape[:-1], v.shape[-1]))


def _attention(q: Node, k: Node, v: Node, *mask: Node, causal: bool, scale: float | None) -> Node:
    lead = tuple(range(q.rank - 2))
    depth = q.shape[-1]
    factor = scale if scale is not None else 1 / math.sqrt(depth)
    scores = dot(q, k, contract=((q.rank - 1,), (k.rank - 1,)), batch=(lead, lead)) * factor
    low = full(scores.type, -math.inf)
    if mask:
        scores = where(mask[0], scores, low) if mask[0].dtype is bool_ else scores + mask[0]
    if causal:
        iota = lookup("iota")
        rows, columns = (iota(shape=scores.shape, axis=scores.rank - d, dtype=i64) for d in (2, 1))
        scores = where(columns <= rows, scores, low)  # query i sees keys 0..i, as in PyTorch and JAX
    weights = softmax(scores, axes=(scores.rank - 1,))
    return dot(weights, v, contract=((scores.rank - 1,), (v.rank - 2,)), batch=(lead, lead))


attention = composite("attention", _attention_type, _attention, arity=None, batch=_leading("attention"))
