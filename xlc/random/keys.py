"""Keys, and the random bits that they stand for.

    k = key(0)                          uint32[2]: an ordinary array
    k, sub = split(k)                   two keys; use each for one draw
    bits(sub, shape=(3,))               %0 = iota; %1 = threefry2x32(sub[0], sub[1], 0, %0) {word=0} ^ threefry2x32(...) {word=1}

Element i, counted in row-major order, is made of the key and of i as a counter of 64 bits: (i >> 32, i & 0xffffffff). So it depends neither
on the other elements nor on how loops are cut. Words of 32 bits are the exclusive or of the two words of a block, those of 64 bits are
both. JAX gives the same bits (``jax_threefry_partitionable``, which is its default).
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import XlcOverflowError, XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, wrap
from ..frontend.axes import dtype_from, shape_of
from ..frontend.eager import exported
from ..frontend.elementwise import broadcast, broadcast_shapes, cast, emit, show_shape
from ..frontend.trace import describe
from ..ir.node import Node, full
from ..ir.types import DTYPES, Size, Type, product, u32, u64

WORD = 0xFFFFFFFF


# Floats (a rate, a bound) are arguments of what is compiled; sizes are part of it.
drawing = exported(numbers=(float,))

# ------------------------------------------------------------------------------------------------ words


def block(key: tuple[Node, Node], counter: tuple[Node, Node]) -> tuple[Node, Node]:
    """Both words, for arrays of u32 of one shape."""
    first, second = (emit("threefry2x32", *key, *counter, word=w) for w in (0, 1))
    return first, second


def key_words(key: Any, shape: tuple[Size, ...]) -> tuple[Node, Node]:
    """The words of a key that a user gave, repeated to a shape."""
    if isinstance(key, (bool, int, float, np.integer)):
        raise XlcTypeError(f"a random function takes a key first, found {describe(key)}; write xlc.random.key({key})")
    node = lift(key).node
    if node.dtype is not u32 or node.shape != (2,):
        many = "; for several keys at once use xlc.vmap" if node.dtype is u32 and node.rank > 1 and node.shape[-1] == 2 else ""
        raise XlcTypeError(f"a random function takes a key first, an array uint32[2] that xlc.random.key(seed) or split makes, found "
                           f"{node.type}{many}")
    k0, k1 = (broadcast(wrap(node)[w].node, shape) for w in (0, 1))
    return k0, k1


def counters(shape: tuple[Size, ...]) -> tuple[Node, Node]:
    """The row-major index of every element, as (high, low) words."""
    total = product(shape)
    if isinstance(total, int) and total <= 1 << 32:
        low = emit("reshape", emit("iota", shape=(total,), axis=0, dtype=u32), shape=shape)
        return full(low.type, 0), low
    if isinstance(total, int) and total >= 1 << 63:
        raise XlcValueError(f"an array of shape {show_shape(shape)} has {total} elements; arrays have fewer than 2**63")
    index = emit("reshape", emit("iota", shape=(total,), axis=0, dtype=u64), shape=shape)
    return cast(emit("bitwise_right_shift", index, full(index.type, 32)), u32), cast(index, u32)


def random_words(key: Any, shape: tuple[Size, ...], width: int) -> Node:
    """Uniform words of 8, 16, 32 or 64 bits."""
    first, second = block(key_words(key, shape), counters(shape))
    if width < 64:
        return cast(emit("bitwise_xor", first, second), DTYPES[f"u{width}"])
    high = emit("bitwise_left_shift", cast(first, u64), full(Type(u64, shape), 32))
    return emit("bitwise_or", high, cast(second, u64))


# ------------------------------------------------------------------------------------------------ for users


@drawing
def threefry2x32(key: Any, counter: Any) -> Any:
    """The generator itself: uint32 (..., 2) of keys and of counters, broadcast, to blocks of random words, uint32 (..., 2). Threefry-2x32
    with 20 rounds (J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011)."""
    pairs = [lift(v) for v in (key, counter)]
    for t, name in zip(pairs, ("key", "counter"), strict=True):
        if t.node.dtype is not u32 or t.ndim == 0 or t.node.shape[-1] != 2:
            raise XlcTypeError(f"threefry2x32 takes uint32 arrays of shape (..., 2), found {t.node.type} as {name}")
    shape = broadcast_shapes(*(t.node.shape[:-1] for t in pairs))
    k0, k1, x0, x1 = (broadcast(t[..., w].node, shape) for t in pairs for w in (0, 1))
    return stacked(block((k0, k1), (x0, x1)))


def stacked(words: tuple[Node, Node]) -> Tracer:
    """Two words side by side, along a new last axis."""
    parts = [emit("reshape", w, shape=(*w.shape, 1)) for w in words]
    return wrap(emit("concat", *parts, axis=parts[0].rank - 1))


def key(seed: Any) -> Any:
    """The key of a seed: uint32[2], the high and the low word of the 64-bit integer."""
    if isinstance(seed, Tracer):
        return _traced_key(seed)
    try:
        number = operator.index(seed)
    except TypeError:
        raise XlcTypeError(f"a seed is an integer, found {describe(seed)}") from None
    if not -(1 << 63) <= number < 1 << 64:
        raise XlcOverflowError(f"a seed has 64 bits, found {number}")
    return np.array([number >> 32 & WORD, number & WORD], np.uint32)


def _traced_key(seed: Tracer) -> Tracer:
    node = seed.node
    if not node.dtype.is_int or node.rank:
        raise XlcTypeError(f"a seed is one integer, found {node.type}")
    return stacked(_words_of(node))


def _words_of(number: Node) -> tuple[Node, Node]:
    wide = cast(number, u64)
    return cast(emit("bitwise_right_shift", wide, full(wide.type, 32)), u32), cast(wide, u32)


@drawing
def split(key: Any, n: Any = 2) -> Any:
    """``n`` new keys, uint32[n, 2], independent of one another and of draws from other keys: ``a, b = split(key)``. ``n`` may be a shape.
    Do not draw with a key that was split: its first elements would be made of the same counters."""
    shape = shape_of(n)
    return stacked(block(key_words(key, shape), counters(shape)))


@exported(numbers=(int,))
def fold_in(key: Any, data: Any) -> Any:
    """A new key out of a key and an integer, such as the number of a step, which may be traced."""
    number = lift(data).node
    if not number.dtype.is_int or number.rank:
        raise XlcTypeError(f"fold_in takes one integer, such as the number of a step, found {number.type}")
    return stacked(block(key_words(key, ()), _words_of(number)))


@drawing
def bits(key: Any, shape: Any = (), dtype: Any = np.uint32) -> Any:
    """Uniform random words, of an unsigned dtype."""
    d = dtype_from(dtype)
    if d.kind != "u":
        raise XlcTypeError(f"random bits are of an unsigned dtype, not {d}; for integers in a range use xlc.random.randint")
    return wrap(random_words(key, shape_of(shape), d.bits))
