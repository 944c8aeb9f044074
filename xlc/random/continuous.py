"""Draws of floats: uniform, normal, truncated_normal, exponential, gumbel, logistic, laplace, cauchy.

    normal(key, 0.0, 2.0, shape=(3,))   ->   erfinv(uniform bits in (-1, 1)) * sqrt(2) * 2.0

Each is one monotone function of one uniform number, so that an element costs one block of the generator, and a draw is differentiable in
its parameters. A uniform number has the bits of the mantissa: 23 in float32 and 52 in float64, so that normal numbers end at 5.4 and 8.1
standard deviations. Halves are drawn in float32 and rounded, except for ``uniform``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import XlcTypeError
from ..frontend.array import lift, wrap
from ..frontend.axes import dtype_from, shape_of
from ..frontend.elementwise import PYTHON, broadcast_shapes, broadcast_to, cast, emit, literal
from ..frontend.trace import describe
from ..ir.node import Node, full
from ..ir.types import DTYPES, DType, Size, Type, f32
from .keys import drawing, random_words

SQRT_2 = math.sqrt(2)


def float_dtype(dtype: Any) -> DType:
    found = f32 if dtype is None else dtype_from(dtype)
    if not found.is_float:
        raise XlcTypeError(f"this distribution has a float dtype, found {found}")
    return found


def drawn_in(dtype: DType) -> DType:
    """The dtype that a draw is computed in."""
    return f32 if dtype.bits < 32 else dtype


def parameters(shape: Any, dtype: DType, **values: Any) -> tuple[tuple[Size, ...], list[Node]]:
    """The shape of a draw, and its parameters in that shape and dtype. ``shape=None``: the one to which the parameters broadcast."""
    nodes = []
    for name, v in values.items():
        if isinstance(v, tuple):
            raise XlcTypeError(f"{name} must be a number or an array, found {describe(v)}; a shape is given as shape={v}")
        nodes.append(literal(v, dtype) if type(v) in PYTHON else cast(lift(v).node, dtype))
    to = broadcast_shapes(*(n.shape for n in nodes)) if shape is None else shape_of(shape)
    return to, [broadcast_to(n, to) for n in nodes]


def unit(key: Any, shape: tuple[Size, ...], dtype: DType) -> Node:
    """Uniform numbers in [0, 1): the high bits of a random word become the mantissa of a number in [1, 2)."""
    mantissa = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}[dtype.name]
    width = 8 if mantissa < 8 else dtype.bits
    word = DTYPES[f"u{dtype.bits}"]
    bits = cast(random_words(key, shape, width), word)
    one = int(np.ones((), dtype.numpy).view(word.numpy))
    shifted = emit("bitwise_right_shift", bits, full(bits.type, width - mantissa))
    return emit("bitcast", emit("bitwise_or", shifted, full(bits.type, one)), dtype=dtype) - 1.0


def between(key: Any, lo: Node, hi: Node) -> Node:
    """Uniform numbers in [lo, hi)."""
    return emit("maximum", lo, unit(key, lo.shape, lo.dtype) * (hi - lo) + lo)


def span(key: Any, shape: tuple[Size, ...], dtype: DType, lo: float, hi: float = 1.0) -> Node:
    return between(key, *(full(Type(dtype, shape), v) for v in (lo, hi)))


def smallest(dtype: DType) -> float:
    return float(np.finfo(dtype.numpy).tiny)


def standard_normal(key: Any, shape: tuple[Size, ...], dtype: DType) -> Node:
    lo = float(np.nextafter(dtype.numpy.type(-1), dtype.numpy.type(0)))
    return emit("erfinv", span(key, shape, dtype, lo)) * SQRT_2


def standard_gumbel(key: Any, shape: tuple[Size, ...], dtype: DType) -> Node:
    u = span(key, shape, dtype, smallest(dtype))
    return emit("negative", emit("log", emit("negative", emit("log", u))))


# ------------------------------------------------------------------------------------------------ for users


@drawing
def uniform(key: Any, lo: Any = 0.0, hi: Any = 1.0, *, shape: Any = None, dtype: Any = None) -> Any:
    """Uniform numbers in [lo, hi) (``hi`` itself occurs where rounding reaches it). float32 unless ``dtype`` says otherwise."""
    d = float_dtype(dtype)
    _, (low, high) = parameters(shape, d, lo=lo, hi=hi)
    return wrap(between(key, low, high))


@drawing
def normal(key: Any, mean: Any = 0.0, std: Any = 1.0, *, shape: Any = None, dtype: Any = None) -> Any:
    """Normal numbers of this mean and standard deviation: sqrt(2) erfinv(u) std + mean, u uniform in (-1, 1)."""
    d = float_dtype(dtype)
    to, (m, s) = parameters(shape, drawn_in(d), mean=mean, std=std)
    return wrap(cast(standard_normal(key, to, m.dtype) * s + m, d))


@drawing
def truncated_normal(key: Any, lo: Any = -2.0, hi: Any = 2.0, *, shape: Any = None, dtype: Any = None) -> Any:
    """Standard normal numbers that lie strictly between lo and hi, by inversion: exact where lo and hi are within some four standard
    deviations; no gradient flows to the bounds where they are hit."""
    d = float_dtype(dtype)
    _, (low, high) = parameters(shape, drawn_in(d), lo=lo, hi=hi)
    below, above = (emit("erf", v / SQRT_2) for v in (low, high))
    x = emit("erfinv", between(key, below, above)) * SQRT_2
    inner = [emit("nextafter", emit("stop_gradient", v), full(v.type, to)) for v, to in ((low, math.inf), (high, -math.inf))]
    return wrap(cast(emit("minimum", emit("maximum", x, inner[0]), inner[1]), d))


def _standard(name: str, doc: str, draw: Any) -> Any:
    def f(key: Any, shape: Any = (), dtype: Any = None) -> Any:
        d = float_dtype(dtype)
        return wrap(cast(draw(key, shape_of(shape), drawn_in(d)), d))

    f.__name__ = f.__qualname__ = name
    f.__doc__ = doc
    return drawing(f)


def _exponential(key: Any, shape: tuple[Size, ...], d: DType) -> Node:
    return emit("negative", emit("log1p", emit("negative", unit(key, shape, d))))


def _logistic(key: Any, shape: tuple[Size, ...], d: DType) -> Node:
    u = span(key, shape, d, smallest(d))
    return emit("log", u) - emit("log1p", emit("negative", u))


def _laplace(key: Any, shape: tuple[Size, ...], d: DType) -> Node:
    u = span(key, shape, d, -1.0 + float(np.finfo(d.numpy).epsneg))
    return emit("sign", u) * emit("log1p", emit("negative", emit("abs", u)))


def _cauchy(key: Any, shape: tuple[Size, ...], d: DType) -> Node:
    return emit("tan", (span(key, shape, d, float(np.finfo(d.numpy).eps)) - 0.5) * math.pi)


gumbel = _standard("gumbel", "Standard Gumbel numbers, -log(-log(u)): what, added to logits, makes argmax a draw from softmax.",
                   standard_gumbel)
exponential = _standard("exponential", "Exponential numbers of mean 1, -log(1 - u).", _exponential)
logistic = _standard("logistic", "Standard logistic numbers, log(u / (1 - u)).", _logistic)
laplace = _standard("laplace", "Standard Laplace numbers, of density exp(-|x|) / 2.", _laplace)
cauchy = _standard("cauchy", "Standard Cauchy numbers, tan(pi (u - 1/2)).", _cauchy)
