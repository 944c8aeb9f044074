"""Convolution, pooling, local response normalisation and resizing: windows that slide over arrays of one to three spatial dimensions.

    y = xlc.nn.conv(x, w, padding="SAME")              x (batch, height, width, in), w (height, width, in, out)
    y = xlc.nn.conv(x, w, layout="NCHW", stride=2)     x (batch, in, height, width), w (out, in, height, width)

``layout`` names the dimensions: N(batch), C(hannels), D(epth), H(eight), W(idth): NWC, NHWC and NDHWC have the channels last, NCW, NCHW and
NCDHW first. ``stride``, ``dilation``, windows are a number, or one for each spatial dimension; ``padding`` too, or pairs (before, after),
or "VALID" (none) or "SAME" (as much as gives ceil(size / stride) positions, the odd one after, as in TensorFlow and JAX).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import lift, wrap
from ..frontend.axes import integer, shape_of
from ..frontend.elementwise import cast, emit, result_dtype, show_shape
from ..ir.node import Node
from ..ir.types import Dim, Size
from ..ops.conv import transposed_weights
from ..ops.window import positions
from .functions import _float, _floats, _number, _public

LAYOUTS = ("NWC", "NCW", "NHWC", "NCHW", "NDHWC", "NCDHW")
Pairs = tuple[tuple[int, int], ...]


def _spatial(x: Node, layout: Any, name: str) -> tuple[int, ...]:
    """The spatial dimensions of x. The layouts of images also stand for one and for three spatial dimensions."""
    if layout not in LAYOUTS:
        raise XlcValueError(f"{name}: layout is one of {', '.join(LAYOUTS)}, found {layout!r}")
    if not 3 <= x.rank <= 5 or (len(layout) != 4 and len(layout) != x.rank):
        raise XlcValueError(f"{name} with layout {layout} expects x of {len(layout)} dimensions, found shape {show_shape(x.shape)}; a "
                            "single example is a batch of one: x[None]")
    return tuple(range(2, x.rank)) if layout[1] == "C" else tuple(range(1, x.rank - 1))


def _each(value: Any, rank: int, what: str, least: int = 1) -> tuple[int, ...]:
    """One integer for each spatial dimension."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * rank
    if len(values) != rank:
        raise XlcValueError(f"{what} must be a number, or {rank} of them, one for each spatial dimension, found {value!r}")
    found = tuple(integer(v, what) for v in values)
    if any(v < least for v in found):
        raise XlcValueError(f"{what} must be at least {least}, found {value!r}")
    return found


def _padding(value: Any, sizes: Sequence[Size], window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pairs:
    if isinstance(value, str):
        if value not in ("SAME", "VALID"):
            raise XlcValueError(f'padding is a number, pairs (before, after), "SAME" or "VALID", found {value!r}')
        return tuple(_same(*t) if value == "SAME" else (0, 0) for t in zip(sizes, window, stride, dilation, strict=True))
    if not isinstance(value, Sequence):
        value = [value] * len(sizes)
    if len(value) != len(sizes):
        raise XlcValueError(f"padding must have an entry, a number or a pair (before, after), for each of the {len(sizes)} spatial "
                            f"dimensions, found {value!r}")
    return tuple(_each(v, 2, "padding", 0) for v in value)  # type: ignore[misc]


def _same(n: Size, window: int, stride: int, dilation: int) -> tuple[int, int]:
    reach = (window - 1) * dilation + 1
    if isinstance(n, Dim):
        if stride != 1:
            raise XlcValueError(f'padding "SAME" with stride {stride} depends on the size {n}, which is not known here; give it in numbers')
        total = reach - 1
    else:
        total = max((-(-n // stride) - 1) * stride + reach - n, 0)
    return total // 2, total - total // 2


def _positive(name: str, x: Node, axes: Sequence[int], padding: Pairs, window: Sequence[int], stride: Sequence[int],
              dilation: Sequence[int]) -> None:
    for a, (lo, hi), k, s, d in zip(axes, padding, window, stride, dilation, strict=True):
        n = x.shape[a]
        if isinstance(n, int) and positions(n + lo + hi, k, s, d) < min(n + lo + hi, 1):  # type: ignore[operator]
            raise XlcValueError(f"{name}: a window of {(k - 1) * d + 1} does not fit dimension {a} of shape {show_shape(x.shape)}, which "
                                f"is {n + lo + hi} with its padding")


def _moved(x: Node, order: Sequence[int]) -> Node:
    return x if tuple(order) == tuple(range(x.rank)) else emit("transpose", x, axes=tuple(order))


def _channels_last(x: Node) -> Node:
    return _moved(x, (0, *range(2, x.rank), 1))


def _channels_first(x: Node) -> Node:
    return _moved(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def _operands(name: str, x: Any, w: Any, layout: Any) -> tuple[Node, Node, tuple[int, ...]]:
    a, b = lift(x), lift(w)
    dtype = result_dtype(a, b)
    first, second = cast(a.node, dtype), cast(b.node, dtype)
    spatial = _spatial(first, layout, name)
    if second.rank != first.rank:
        raise XlcValueError(f"{name} of x with shape {show_shape(first.shape)} expects weights of as many dimensions, found shape "
                            f"{show_shape(second.shape)}; a single example is a batch of one: x[None]")
    return first, second, spatial


@_public
def conv(x: Any, w: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, layout: str = "NHWC") -> Any:
    """The correlation of x with w over one to three spatial dimensions: what networks call convolution.

    x         (batch, spatial..., in), or (batch, in, spatial...) if ``layout`` has the channels first
    w         (spatial..., in / groups, out), or (out, in / groups, spatial...)
    result    x's layout with ``out`` channels and floor((size + padding - dilation*(window - 1) - 1) / stride) + 1 positions
    groups    output group g sees input group g alone; groups = in: each channel on its own (depthwise)

    Halves are added up in float32. Raises XlcValueError for shapes that do not fit."""
    a, b, spatial = _operands("conv", x, w, layout)
    k, first = len(spatial), layout[1] == "C"
    if first:
        a, b = _channels_last(a), _moved(b, (*range(2, b.rank), 1, 0))
    window = b.shape[:k]
    if not all(isinstance(n, int) and n >= 1 for n in window):
        raise XlcValueError(f"conv: the window of weights of shape {show_shape(lift(w).node.shape)} must be at least 1 in each dimension")
    steps, spread = _each(stride, k, "stride"), _each(dilation, k, "dilation")
    pads = _padding(padding, a.shape[1:-1], window, steps, spread)
    parts = _groups(groups)
    if a.shape[-1] != b.shape[-2] * parts:
        raise XlcValueError(f"conv: x of shape {show_shape(lift(x).node.shape)} has {a.shape[-1]} channels, weights of shape "
                            f"{show_shape(lift(w).node.shape)} take {b.shape[-2]} in each of {parts} groups; with layout {layout} weights "
                            f"are {'(out, in / groups, spatial...)' if first else '(spatial..., in / groups, out)'}")
    _divides("conv", b.shape[-1], parts)
    _positive("conv", a, range(1, k + 1), pads, window, steps, spread)
    out = emit("conv", a, b, padding=pads, stride=steps, base=(1,) * k, dilation=spread, groups=parts)
    return wrap(_channels_first(out) if first else out)


def _groups(groups: Any) -> int:
    found = integer(groups, "groups")
    if found < 1:
        raise XlcValueError(f"groups must be at least 1, found {found}")
    return found


def _divides(name: str, channels: Size, groups: int) -> None:
    if isinstance(channels, int) and channels % groups:
        raise XlcValueError(f"{name}: {channels} output channels do not divide into {groups} groups")


@_public
def conv_transpose(x: Any, w: Any, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1, groups: int = 1,
                   layout: str = "NHWC") -> Any:
    """The adjoint of ``conv`` in its first argument, which has the positions of x as its result; PyTorch's conv_transpose.

    x                 (batch, spatial..., in), or (batch, in, spatial...)
    w                 (in, out / groups, spatial...), whatever the layout
    result            (size - 1)*stride - padding + dilation*(window - 1) + output_padding + 1 positions; "SAME": size*stride
    output_padding    positions at the end, less than the stride, that the convolution would not have looked at

    V. Dumoulin and F. Visin, arXiv:1603.07285."""
    a, b, spatial = _operands("conv_transpose", x, w, layout)
    k, first, parts = len(spatial), layout[1] == "C", _groups(groups)
    if first:
        a = _channels_last(a)
    if a.shape[-1] != b.shape[0]:
        raise XlcValueError(f"conv_transpose: x of shape {show_shape(lift(x).node.shape)} has {a.shape[-1]} channels, weights of shape "
                            f"{show_shape(b.shape)} take {b.shape[0]}; weights are (in, out / groups, spatial...)")
    _divides("conv_transpose", b.shape[0], parts)
    window = b.shape[2:]
    if not all(isinstance(n, int) and n >= 1 for n in window):
        raise XlcValueError(f"conv_transpose: the window of weights of shape {show_shape(b.shape)} must be at least 1 in each dimension")
    steps, spread = _each(stride, k, "stride"), _each(dilation, k, "dilation")
    more = _each(output_padding, k, "output_padding", 0)
    if any(m >= max(s, d) for m, s, d in zip(more, steps, spread, strict=True)):
        raise XlcValueError(f"output_padding must be less than the stride or the dilation, found {output_padding!r} with stride {stride!r}")
    if padding == "SAME":
        reach = [(n - 1) * d + 1 for n, d in zip(window, spread, strict=True)]
        cut = [max(r - s, 0) for r, s in zip(reach, steps, strict=True)]
        pads: Pairs = tuple((c // 2, c - c // 2) for c in cut)
        more = tuple(m + max(s - r, 0) for m, r, s in zip(more, reach, steps, strict=True))
    else:
        pads = _padding(padding, a.shape[1:-1], window, steps, spread)
    around = tuple(((n - 1) * d - lo, (n - 1) * d - hi + m) for n, d, (lo, hi), m in zip(window, spread, pads, more, strict=True))
    for n, s, (lo, hi), size, d in zip(a.shape[1:-1], steps, around, window, spread, strict=True):
        if isinstance(n, int) and (n - 1) * s + 1 + lo + hi - (size - 1) * d < 1:
            raise XlcValueError(f"conv_transpose: padding {padding!r} leaves nothing of {n} positions with stride {s}")
    turned = transposed_weights(_moved(b, (*range(2, b.rank), 1, 0)), parts)
    out = emit("conv", a, turned, padding=around, stride=(1,) * k, base=steps, dilation=spread, groups=parts)
    return wrap(_channels_first(out) if first else out)


# ------------------------------------------------------------------------------------------------ pooling


def _pool(name: str, x: Node, window: Any, stride: Any, padding: Any, layout: Any) -> dict[str, Any]:
    axes = _spatial(x, layout, name)
    k = len(axes)
    size = _each(window, k, "window")
    steps = size if stride is None else _each(stride, k, "stride")
    pads = _padding(padding, [x.shape[a] for a in axes], size, steps, (1,) * k)
    _positive(name, x, axes, pads, size, steps, (1,) * k)
    return {"axes": axes, "window": size, "stride": steps, "padding": pads}


@_public
def max_pool(x: Any, window: Any, *, stride: Any = None, padding: Any = 0, layout: str = "NHWC") -> Any:
    """The greatest element of each window, with the stride of the window by default. Padding counts as -inf (integers: as the least
    value); nan wins. The gradient goes to the first of equal elements, in row-major order of the window."""
    node = lift(x).node
    return wrap(emit("max_pool", node, **_pool("max_pool", node, window, stride, padding, layout)))


@_public
def avg_pool(x: Any, window: Any, *, stride: Any = None, padding: Any = 0, layout: str = "NHWC", count_include_pad: bool = True) -> Any:
    """The mean of each window, with the stride of the window by default. Padding is 0 and counts; with ``count_include_pad=False`` the mean
    is of what is not padding."""
    (node,) = _floats(x)
    found = _pool("avg_pool", node, window, stride, padding, layout)
    return wrap(emit("avg_pool", node, **found, count_include_pad=bool(count_include_pad)))


@_public
def local_response_norm(x: Any, radius: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """x / (k + alpha * s)**beta, s the sum of squares over the channels (the last dimension) from c - radius to c + radius: TensorFlow's
    definition. (PyTorch's alpha is divided by the number of channels in the sum.) A. Krizhevsky et al., NIPS 2012, section 3.3."""
    (node,) = _floats(x)
    if node.rank == 0:
        raise XlcValueError("local_response_norm expects channels in the last dimension, found a scalar")
    reach = _each(radius, 1, "radius", 0)[0]
    return wrap(emit("local_response_norm", node, radius=reach, alpha=_number(alpha, "alpha"), beta=_number(beta, "beta"),
                     k=_number(k, "k")))


# ------------------------------------------------------------------------------------------------ resizing


@_public
def resize(x: Any, shape: Any, *, method: str = "nearest") -> Any:
    """x with other sizes: all of them, or those between the first (batch) and the last (channels). Each dimension that changes is read at
    the centres of its new pixels (half-pixel centres; no antialiasing, as with align_corners=False in PyTorch).

    method    "nearest" (PyTorch's nearest-exact), or "bilinear": linear along each dimension, edges repeated"""
    if method not in ("nearest", "bilinear"):
        raise XlcValueError(f'resize: method is "nearest" or "bilinear", found {method!r}')
    tracer = lift(x)
    node = tracer.node if method == "nearest" else cast(tracer.node, _float(tracer.node.dtype))
    sizes = shape_of(shape)
    if len(sizes) == node.rank - 2:
        sizes = (node.shape[0], *sizes, node.shape[-1])
    if len(sizes) != node.rank:
        raise XlcValueError(f"resize of shape {show_shape(node.shape)} expects {node.rank} sizes, or {max(node.rank - 2, 0)} without batch "
                            f"and channels, found {show_shape(sizes)}")
    changed = [d for d, (n, m) in enumerate(zip(node.shape, sizes, strict=True)) if n != m]
    for d in sorted(changed, key=lambda d: _growth(node.shape[d], sizes[d])):
        node = emit("resample", node, axis=d, count=sizes[d], method=method, adjoint=False)
    return wrap(node)


def _growth(n: Size, m: Size) -> float:
    """What shrinks comes first: less is left to compute with."""
    if not isinstance(n, int) or not isinstance(m, int):
        raise XlcTypeError(f"resize: sizes must be known while the function is traced, found {n} to be {m}")
    if n == 0 or m == 0:
        raise XlcValueError(f"resize: a dimension of size {n} cannot become {m}")
    return math.log(m / n)


__all__ = ["avg_pool", "conv", "conv_transpose", "local_response_norm", "max_pool", "resize"]
