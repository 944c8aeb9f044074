"""Draws of truth values and integers: bernoulli, categorical, randint, permutation.

    bernoulli(key, p)        ->   uniform(key) < p
    categorical(key, x)      ->   argmax(x + gumbel(key))                                (the Gumbel-max trick)
    permutation(key, n)      ->   argsort(bits(key, (n,), uint64))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, wrap
from ..frontend.axes import dtype_from, one_axis, shape_of, size_of
from ..frontend.elementwise import broadcast, broadcast_shapes, broadcast_to, cast, emit, literal, show_shape
from ..ir.node import Node, full
from ..ir.types import DTYPES, Dim, DType, bool_, f32, i64, u64
from ..numpy.index import argsort, take, take_along_axis
from ..numpy.reduce import argmax
from .continuous import drawn_in, parameters, standard_gumbel, unit
from .keys import drawing, random_words, split


@drawing
def bernoulli(key: Any, p: Any = 0.5, *, shape: Any = None, dtype: Any = None) -> Any:
    """True with probability p: uniform < p, in float32 whatever the dtype of p. 0 and 1 are exact; between them p counts in steps of
    2**-23."""
    to, (q,) = parameters(shape, f32, p=p)
    drawn = emit("less", unit(key, to, f32), q)
    return wrap(cast(drawn, bool_ if dtype is None else dtype_from(dtype)))


@drawing
def categorical(key: Any, logits: Any, *, axis: int = -1, shape: Any = None, dtype: Any = None) -> Any:
    """Class numbers, int64, drawn with the probabilities softmax(logits) along ``axis``. ``shape`` ends with the other axes of the logits,
    or what they broadcast to: ``categorical(key, logits, shape=(1000,))`` draws a thousand times from one row. A logit of -inf is never
    drawn."""
    node = lift(logits).node
    d = drawn_in(node.dtype) if node.dtype.is_float else f32
    if not node.rank:
        raise XlcValueError("categorical expects logits (..., classes), found a 0-d value")
    at = one_axis(axis, node.rank)
    rest = (*node.shape[:at], *node.shape[at + 1:])
    to = rest if shape is None else shape_of(shape)
    if len(to) < len(rest) or broadcast_shapes(to, rest) != to:
        raise XlcValueError(f"categorical: shape {show_shape(to)} must end with the other axes of the logits, {show_shape(rest)}")
    place = len(to) - len(rest) + at
    every = (*to[:place], node.shape[at], *to[place:])
    noisy = standard_gumbel(key, every, d) + broadcast(cast(node, d), every)
    found = argmax(wrap(noisy), axis=place)
    return found if dtype is None else wrap(cast(found.node, _integers(dtype)))


def _integers(dtype: Any) -> DType:
    d = dtype_from(dtype)
    if not d.is_int:
        raise XlcTypeError(f"this distribution has an integer dtype, found {d}")
    return d


@drawing
def randint(key: Any, lo: Any, hi: Any, *, shape: Any = None, dtype: Any = np.int64) -> Any:
    """Integers in [lo, hi), int64 unless ``dtype`` says otherwise; lo where hi <= lo. Each is the remainder of 64 random bits (128 for
    dtypes of 64 bits) by the number of possible results, so that no result is preferred by more than that number / 2**64."""
    d = _integers(dtype)
    wide = u64 if d is u64 else i64
    info = np.iinfo(d.numpy)
    low = _bound(lo, "lo", int(info.min), int(info.max), wide)
    last = _bound(hi - 1 if isinstance(hi, int) else hi, "hi", int(info.min), int(info.max), wide, less=not isinstance(hi, int))
    to = broadcast_shapes(low.shape, last.shape) if shape is None else shape_of(shape)
    low, last = (broadcast_to(n, to) for n in (low, last))
    word = DTYPES[f"u{max(d.bits, 32)}"]
    span = cast(emit("maximum", last, low) - low, word) + 1
    return wrap(cast(low + cast(_below(key, span), wide), d))


def _bound(value: Any, name: str, least: int, most: int, wide: DType, less: bool = False) -> Node:
    """An inclusive bound in the range of the dtype; ``less``: from one that is greater by 1."""
    if isinstance(value, int):
        if not least <= value <= most:
            raise XlcValueError(f"randint: {name} is out of the range of the dtype; expected lo >= {least} and hi <= {most + 1}")
        return literal(value, wide)
    node = lift(value).node
    if not node.dtype.is_int:
        raise XlcTypeError(f"randint: {name} must be an integer, found {node.type}; convert with astype(int)")
    own = np.iinfo(node.dtype.numpy)
    least, most = max(least + less, int(own.min) + less), min(most + less, int(own.max))
    return cast(emit("minimum", emit("maximum", node, full(node.type, least)), full(node.type, most)), wide) - less


def _below(key: Any, span: Node) -> Node:
    """Uniform words below ``span``; 0 stands for 2**bits. (high * 2**bits + low) % span, in words of that many bits."""
    bits = span.dtype.bits
    high, low = (random_words(k, span.shape, bits) for k in split(key))
    half = emit("remainder", full(span.type, 1 << bits // 2), span)
    power = emit("remainder", half * half, span)
    offset = emit("remainder", emit("remainder", high, span) * power + emit("remainder", low, span), span)
    return emit("where", emit("equal", span, full(span.type, 0)), low, offset)


@drawing
def permutation(key: Any, x: Any, *, axis: int = 0, independent: bool = False) -> Any:
    """0, 1, ..., x-1 in random order, int64; or the array x with what lies along ``axis`` in random order, where ``independent`` gives
    every line along that axis an order of its own. The order is that of random words of 64 bits, so that all orders are equally likely
    but for words that are equal (of a million, with probability 3e-8)."""
    if isinstance(x, (int, np.integer, Dim)):
        return argsort(wrap(random_words(key, (size_of(x, "the length of a permutation"),), 64)))
    array = lift(x)
    if not array.ndim:
        hint = "; a length must be known while tracing: declare it with static_argnames=" if isinstance(x, Tracer) else ""
        raise XlcTypeError(f"permutation takes an integer or an array with axes, found {array.node.type}{hint}")
    at = one_axis(axis, array.ndim)
    if independent:
        return take_along_axis(array, argsort(wrap(random_words(key, array.node.shape, 64)), at), at)
    return take(array, argsort(wrap(random_words(key, (array.node.shape[at],), 64))), at)
