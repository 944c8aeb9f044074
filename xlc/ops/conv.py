"""Convolution as contractions of windows, and the contraction that gives its weights' gradient.

    conv(%x: f32[8,28,28,32], %w: f32[5,5,32,64]) {padding=((2, 2), (2, 2)), stride=(1, 1), base=(1, 1), dilation=(1, 1), groups=1}
        ->  pad, copy, broadcast, slide: f32[5,5,8,28,28,32];  dot over (5, 5, 32): f32[8,28,28,64]

x has dimensions (batch, spatial..., channels), w (spatial..., channels / groups, out), the result (batch, spatial..., out). ``base`` puts
zeros between neighbours of x before it is padded; negative padding crops. With these the gradients of both operators are the operators
themselves, so gradients of gradients are convolutions again, and nothing is scattered. The windows are never stored: the contraction reads
them where they lie (Chetlur et al., arXiv:1410.0759, implicit GEMM); what was padded is stored once, so that no loop asks for the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.node import Node
from xlc.ir.op import Op
from xlc.ir.types import Dim, Size, Type, product

from .kinds import NUMBERS, composite
from .linalg import dot
from .reduce import sum_
from .scalar import cast
from .shape import broadcast, copy, flip, reshape, slice_, spread, transpose
from .window import Pairs, padded, positions, wide, windows

FEW = 16  # channels that fill no vector


def _spatial(x: Node) -> tuple[int, ...]:
    return tuple(range(1, x.rank - 1))


def _extents(x: Type, padding: Pairs, base: tuple[int, ...]) -> list[Size]:
    """The spatial sizes after dilation and padding."""
    return [(n - 1) * b + 1 + lo + hi for n, b, (lo, hi) in zip(x.shape[1:-1], base, padding, strict=True)]


def _checked(x: Type, w: Type, groups: int, *lists: tuple[Any, ...]) -> None:
    k = x.rank - 2
    if x.dtype is not w.dtype or x.dtype not in NUMBERS:
        raise XlcTypeError(f"conv needs two arrays of numbers of one dtype, found {x} and {w}")
    if k < 1 or w.rank != x.rank or any(len(v) != k for v in lists):
        raise XlcValueError(f"conv of {x} and {w}: both need a batch or channel dimension, {k} spatial ones and channels; stride, padding, "
                            "base and dilation have an entry for each spatial dimension")
    if groups < 1:
        raise XlcValueError(f"conv of {x}: {groups} groups")


def _conv_type(x: Type, w: Type, padding: Pairs, stride: tuple[int, ...], base: tuple[int, ...], dilation: tuple[int, ...],
               groups: int) -> Type:
    _checked(x, w, groups, padding, stride, base, dilation)
    if x.shape[-1] != w.shape[-2] * groups or (isinstance(w.shape[-1], int) and w.shape[-1] % groups):
        raise XlcValueError(f"conv of {x} and {w} in {groups} groups: the weights must have {x.shape[-1]}/{groups} input channels, and a "
                            "multiple of the groups as output channels")
    out = [positions(n, k, s, d) for n, k, s, d in zip(_extents(x, padding, base), w.shape[:-2], stride, dilation, strict=True)]
    if any(isinstance(n, int) and n < 0 for n in out):
        raise XlcValueError(f"conv of {x} and {w}: the windows do not fit")
    return x.with_shape((x.shape[0], *out, w.shape[-1]))


def _around(x: Node, padding: Pairs, base: tuple[int, ...]) -> Node:
    """x with zeros between and around, stored if there are any. Few channels are joined to the last spatial dimension meanwhile, along
    which the copy then runs."""
    if all(b == 1 for b in base) and all(p == 0 for pair in padding for p in pair):
        return x
    for a, b in zip(_spatial(x), base, strict=True):
        x = spread(x, a, b)
    last, channels = x.rank - 2, x.shape[-1]
    if not isinstance(channels, int) or not 1 < channels < FEW:
        return copy(padded(x, _spatial(x), padding))
    *before, (lo, hi) = padding
    x = reshape(x, shape=(*x.shape[:last], x.shape[last] * channels))
    x = copy(padded(x, range(1, last + 1), (*before, (lo * channels, hi * channels))))
    return reshape(x, shape=(*x.shape[:last], x.shape[last] // channels, channels))


def _grouped(x: Node, axis: int, groups: int) -> Node:
    """A dimension as (groups, rest)."""
    return reshape(x, shape=(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1:]))


def _conv(x: Node, w: Node, padding: Pairs, stride: tuple[int, ...], base: tuple[int, ...], dilation: tuple[int, ...],
          groups: int) -> Node:
    k = x.rank - 2
    out = _conv_type(x.type, w.type, padding, stride, base, dilation, groups).shape
    if any(map(_has_phases, x.shape[1:-1], stride, base, dilation)):
        return _phased(x, w, padding, stride, base, dilation, groups, out)
    x = _around(x, padding, base)
    if groups > 1 and w.shape[k] == 1:
        return _depthwise(x, w, stride, dilation, groups)
    y = windows(x, _spatial(x), w.shape[:k], stride, dilation)  # (window..., batch, positions..., channels)
    inner = tuple(range(k))
    if groups == 1:
        return dot(y, w, contract=((*inner, y.rank - 1), (*inner, k)), batch=((), ()))
    y, w = _grouped(y, y.rank - 1, groups), _grouped(w, w.rank - 1, groups)
    z = dot(y, w, contract=((*inner, y.rank - 1), (*inner, k)), batch=((y.rank - 2,), (k + 1,)))  # (groups, batch, positions..., out)
    return reshape(transpose(z, axes=(*range(1, z.rank - 1), 0, z.rank - 1)), shape=out)


def _depthwise(x: Node, w: Node, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> Node:
    """Each channel on its own: no contraction, but a sum over the window that runs along the channels."""
    k = x.rank - 2
    y = wide(windows(x, _spatial(x), w.shape[:k], stride, dilation))
    lead = tuple(range(y.rank - 1))
    repeated = broadcast(y, shape=(*y.shape, w.shape[-1] // groups), axes=(*lead, y.rank - 1))
    y = reshape(repeated, shape=(*y.shape[:-1], w.shape[-1]))
    each = broadcast(reshape(wide(w), shape=(*w.shape[:k], w.shape[-1])), shape=y.shape, axes=(*range(k), y.rank - 1))
    return cast(sum_(y * each, axes=tuple(range(k))), dtype=x.dtype)


def _has_phases(n: Size, stride: int, base: int, dilation: int) -> bool:
    return base > 1 and stride == 1 and dilation == 1 and isinstance(n, int)


def _phased(x: Node, w: Node, padding: Pairs, stride: tuple[int, ...], base: tuple[int, ...], dilation: tuple[int, ...], groups: int,
            out: tuple[Size, ...]) -> Node:
    """Without the zeros between neighbours: position lo + b*q - e of the result is the sum over a of x[q + a] * w[b*a + e], so the b kinds
    of positions are b times as many output channels of one convolution with a b-th of the window, whose results are interleaved."""
    k = x.rank - 2
    taps: list[int] = []
    phases: list[int] = []
    kinds: list[int] = []
    around: list[tuple[Size, Size]] = []
    start: list[int] = []
    for n, size, m, s, b, d, (lo, hi) in zip(x.shape[1:-1], w.shape[:k], out[1:-1], stride, base, dilation, padding, strict=True):
        b = b if _has_phases(n, s, b, d) else 1
        e = min(b, size)  # the others have no weights: their positions are 0
        taps, phases, kinds = [*taps, -(-size // e)], [*phases, e], [*kinds, b]
        first, last = (b - 1 - lo) // b, (m + b - 2 - lo) // b  # the q of the first and the last position
        around.append((lo, hi) if b == 1 else (-first, last + taps[-1] - n))
        start.append(0 if b == 1 else b - 1 - lo - b * first)
    inside, total, each = w.shape[k], product(phases), w.shape[-1] // groups
    w = padded(w, range(k), tuple((0, t * e - size) for t, e, size in zip(taps, phases, w.shape[:k], strict=True)))
    w = reshape(w, shape=(*(v for pair in zip(taps, phases, strict=True) for v in pair), inside, groups, each))
    for a in range(k):
        w = flip(w, 2 * a + 1) if phases[a] != 1 else w
    w = transpose(w, axes=(*range(0, 2 * k, 2), 2 * k, 2 * k + 1, *range(1, 2 * k, 2), 2 * k + 2))
    w = reshape(w, shape=(*taps, inside, groups * total * each))
    left = tuple(1 if kind > 1 else b for kind, b in zip(kinds, base, strict=True))
    z = conv(x, w, padding=tuple(around), stride=stride, base=left, dilation=dilation, groups=groups)
    count = z.shape[1:-1]
    z = reshape(z, shape=(*z.shape[:-1], groups, *phases, each))
    z = padded(z, range(k + 2, 2 * k + 2), tuple((b - e, 0) for b, e in zip(kinds, phases, strict=True)))
    z = transpose(z, axes=(0, *(v for a in range(k) for v in (1 + a, k + 2 + a)), k + 1, 2 * k + 2))
    z = reshape(z, shape=(z.shape[0], *(n * b for n, b in zip(count, kinds, strict=True)), w.shape[-1] // total))
    stop = (z.shape[0], *(a + m for a, m in zip(start, out[1:-1], strict=True)), z.shape[-1])
    return slice_(z, start=(0, *start, 0), stop=stop, step=(1,) * z.rank)


def _conv_vjp(g: Node, y: Node, x: Node, w: Node, padding: Pairs, stride: Any, base: Any, dilation: Any, groups: int) -> list[Node]:
    weights = conv_weights(x, g, window=w.shape[:-2], padding=padding, stride=stride, base=base, dilation=dilation, groups=groups)
    return [_conv_input(g, x, w, padding, stride, base, dilation, groups), weights]


def _conv_input(g: Node, x: Node, w: Node, padding: Pairs, stride: Any, base: Any, dilation: Any, groups: int) -> Node:
    """The cotangent of x: a convolution of g, spread by the stride, with the weights reversed and their channels exchanged."""
    k = x.rank - 2
    around: list[tuple[Size, Size]] = []
    whole = True
    for n, m, size, (lo, hi), s, b, d in zip(x.shape[1:-1], g.shape[1:-1], w.shape[:k], padding, stride, base, dilation, strict=True):
        reach = (size - 1) * d
        high = (n - 1) * b + 1 + reach - (reach - lo) - ((m - 1) * s + 1)
        if isinstance(high, Dim):  # how much the last window falls short of the end is not known: as much as it can
            high, whole = reach - hi + s - 1, False
        around.append((reach - lo, high))
    turned = transposed_weights(w, groups)
    out = conv(g, turned, padding=tuple(around), stride=base, base=stride, dilation=dilation, groups=groups)
    return out if whole else slice_(out, start=(0,) * out.rank, stop=x.shape, step=(1,) * out.rank)


def transposed_weights(w: Node, groups: int) -> Node:
    """(spatial..., in / groups, out) reversed in space, as (spatial..., out / groups, in)."""
    k = w.rank - 2
    for axis in range(k):
        w = flip(w, axis) if w.shape[axis] != 1 else w
    w = transpose(_grouped(w, k + 1, groups), axes=(*range(k), k + 2, k + 1, k))
    return reshape(w, shape=(*w.shape[:k + 1], w.shape[k + 1] * w.shape[k + 2]))


def _conv_batch(size: Size, args: Sequence[Node], batched: Sequence[bool], **attrs: Any) -> Any:
    """Of the same weights for all: a larger batch. Weights each are no convolution, but the contraction that it becomes."""
    x, w = args
    if batched[1]:
        return NotImplemented
    y = conv(reshape(x, shape=(size * x.shape[1], *x.shape[2:])), w, **attrs)
    return reshape(y, shape=(size, x.shape[1], *y.shape[1:]))


conv: Op = composite("conv", _conv_type, _conv, arity=2, vjp=_conv_vjp, batch=_conv_batch, dtypes=NUMBERS)


def _weights_type(x: Type, g: Type, window: tuple[int, ...], padding: Pairs, stride: tuple[int, ...], base: tuple[int, ...],
                  dilation: tuple[int, ...], groups: int) -> Type:
    _checked(x, g, groups, window, padding, stride, base, dilation)
    return x.with_shape((*window, x.shape[-1] // groups, g.shape[-1]))


def _conv_weights(x: Node, g: Node, window: tuple[int, ...], padding: Pairs, stride: tuple[int, ...], base: tuple[int, ...],
                  dilation: tuple[int, ...], groups: int) -> Node:
    k = x.rank - 2
    if any(b > 1 for b in base) and all(s == 1 for s in stride) and x.type.is_static:
        return _exchanged(x, g, window, padding, base, dilation, groups)
    y = windows(_around(x, padding, base), _spatial(x), window, stride, dilation)
    pixels = tuple(range(k + 1))  # batch and positions
    if groups == 1:
        return dot(y, g, contract=(tuple(k + d for d in pixels), pixels), batch=((), ()))
    y, g = _grouped(y, y.rank - 1, groups), _grouped(g, g.rank - 1, groups)
    if y.shape[-1] == 1:
        shape = (*y.shape[:-1], g.shape[-1])
        each = broadcast(wide(reshape(y, shape=y.shape[:-1])), shape=shape, axes=tuple(range(y.rank - 1)))
        z = sum_(each * broadcast(wide(g), shape=shape, axes=tuple(range(k, y.rank))), axes=tuple(k + d for d in pixels))
        return cast(reshape(z, shape=(*window, 1, product(z.shape[k:]))), dtype=x.dtype)
    z = dot(y, g, contract=(tuple(k + d for d in pixels), pixels), batch=((y.rank - 2,), (g.rank - 2,)))  # (groups, window..., in, out)
    z = transpose(z, axes=(*range(1, k + 2), 0, k + 2))
    return reshape(z, shape=(*z.shape[:k + 1], z.shape[k + 1] * z.shape[k + 2]))


def _exchanged(x: Node, g: Node, window: tuple[int, ...], padding: Pairs, base: tuple[int, ...], dilation: tuple[int, ...],
               groups: int) -> Node:
    """Without the zeros between neighbours of x: the windows are those of g, a stride apart, and the weights come out reversed."""
    low = [(size - 1) * d - lo for size, d, (lo, _) in zip(window, dilation, padding, strict=True)]
    last = [(n - 1) * b + (size - 1) * d + 1 for n, b, size, d in zip(x.shape[1:-1], base, window, dilation, strict=True)]
    around = tuple((lo, end - lo - m) for lo, end, m in zip(low, last, g.shape[1:-1], strict=True))
    turned = conv_weights(g, x, window=window, padding=around, stride=base, base=(1,) * len(base), dilation=dilation, groups=groups)
    return transposed_weights(turned, groups)


def _conv_weights_vjp(h: Node, y: Node, x: Node, g: Node, window: Any, padding: Pairs, stride: Any, base: Any, dilation: Any,
                      groups: int) -> list[Node]:
    return [_conv_input(g, x, h, padding, stride, base, dilation, groups),
            conv(x, h, padding=padding, stride=stride, base=base, dilation=dilation, groups=groups)]


conv_weights: Op = composite("conv_weights", _weights_type, _conv_weights, arity=2, vjp=_conv_weights_vjp, dtypes=NUMBERS,
                             doc="the weights' cotangent of conv(x, w), from that of its result")
