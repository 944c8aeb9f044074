"""Convolution, pooling, local response normalisation and resizing against plain loops in float64, SciPy, finite differences, and PyTorch
where it is installed; their kernels; named batch sizes; export."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from scipy.signal import correlate

import xlc
from xlc import nn
from xlc.errors import XlcError
from xlc.ir.interp import interpret
from xlc.ir.node import Graph, parameter
from xlc.ir.op import lookup
from xlc.ir.types import Type, f64

rng = np.random.default_rng(11)
LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
SIZES = {1: (11,), 2: (7, 6), 3: (4, 5, 3)}
WINDOWS = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}
TOLERANCE = {"f8": 1e-11, "f4": 3e-5, "f2": 3e-3, "bf16": 3e-2}


def draw(*shape: int, dtype: Any = "f8") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def close(found: Any, expected: Any, tolerance: float = 1e-11) -> None:
    found, expected = np.asarray(found).astype(np.float64), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(expected).max(initial=0))))


# ------------------------------------------------------------------------------------------------ what the functions mean


def same(n: int, k: int, s: int, d: int) -> tuple[int, int]:
    """TensorFlow's rule."""
    total = max(((n + s - 1) // s - 1) * s + (k - 1) * d + 1 - n, 0)
    return total // 2, total - total // 2


def widths(padding: Any, *lists: Any) -> list[tuple[int, int]]:
    """The padding that an argument means."""
    if isinstance(padding, str):
        return [same(*t) if padding == "SAME" else (0, 0) for t in zip(*lists, strict=True)]
    return [(p, p) if isinstance(p, int) else p for p in ([padding] * len(lists[0]) if isinstance(padding, int) else padding)]


def places(shape: tuple[int, ...], window: tuple[int, ...], stride: Any, pads: Any, dilation: Any) -> Any:
    """(position, place in the window, element of x or None) of everything that windows look at."""
    for i in np.ndindex(*positions(shape, window, stride, pads, dilation)):
        for w in np.ndindex(*window):
            at = tuple(a * s - lo + b * d for a, b, s, (lo, _), d in zip(i, w, stride, pads, dilation, strict=True))
            yield i, w, at if all(0 <= a < n for a, n in zip(at, shape, strict=True)) else None


def positions(shape: Any, window: Any, stride: Any, pads: Any, dilation: Any) -> tuple[int, ...]:
    return tuple((n + lo + hi - (k - 1) * d - 1) // s + 1
                 for n, k, s, (lo, hi), d in zip(shape, window, stride, pads, dilation, strict=True))


def loop_conv(x: np.ndarray, w: np.ndarray, stride: Any, pads: Any, dilation: Any, groups: int) -> np.ndarray:
    """The definition: channels last."""
    k, into = x.ndim - 2, w.shape[-1] // groups
    y = np.zeros((len(x), *positions(x.shape[1:-1], w.shape[:k], stride, pads, dilation), w.shape[-1]))
    for i, place, at in places(x.shape[1:-1], w.shape[:k], stride, pads, dilation):
        for g in range(groups if at is not None else 0):
            c, o = slice(g * w.shape[k], (g + 1) * w.shape[k]), slice(g * into, (g + 1) * into)
            y[(slice(None), *i, o)] += x[(slice(None), *at, c)] @ w[(*place, slice(None), o)]
    return y


def loop_gradients(x: np.ndarray, w: np.ndarray, h: np.ndarray, stride: Any, pads: Any, dilation: Any,
                   groups: int) -> tuple[np.ndarray, np.ndarray]:
    """What the loop above adds, taken backwards."""
    k, into = x.ndim - 2, w.shape[-1] // groups
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for i, place, at in places(x.shape[1:-1], w.shape[:k], stride, pads, dilation):
        for g in range(groups if at is not None else 0):
            c, o = slice(g * w.shape[k], (g + 1) * w.shape[k]), slice(g * into, (g + 1) * into)
            seen = h[(slice(None), *i, o)]
            dx[(slice(None), *at, c)] += seen @ w[(*place, slice(None), o)].T
            dw[(*place, slice(None), o)] += x[(slice(None), *at, c)].T @ seen
    return dx, dw


def first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


# ------------------------------------------------------------------------------------------------ convolution

CHANNELS = {"whole": (1, 3, 4), "one": (1, 1, 2), "groups": (2, 4, 6), "depthwise": (3, 3, 3), "multiplied": (3, 3, 6)}
CONVOLUTIONS = [  # spatial dimensions, stride, padding, dilation, channels
    *((2, s, p, 1, c) for (s, p), c in zip(itertools.product((1, 2, 3), (0, "SAME", 2)), itertools.cycle(CHANNELS))),
    *((2, s, 1, 2, c) for s, c in zip((1, 2, 1, 2, 3), CHANNELS, strict=True)),
    (2, (1, 3), ((0, 2), (1, 0)), (2, 1), "whole"), (2, 1, "VALID", 1, "depthwise"), (2, (2, 1), (0, 1), 1, "groups"),
    (1, 1, 0, 1, "whole"), (1, 2, "SAME", 1, "depthwise"), (1, 3, 1, 2, "groups"), (3, 1, 1, 1, "whole"), (3, 2, "SAME", 1, "groups")]


@pytest.mark.parametrize(("k", "stride", "padding", "dilation", "channels"), CONVOLUTIONS, ids=str)
def test_convolution_and_its_gradients(k: int, stride: Any, padding: Any, dilation: Any, channels: str) -> None:
    groups, c, o = CHANNELS[channels]
    x, w = draw(2, *SIZES[k], c), draw(*WINDOWS[k], c // groups, o)
    s, d = ([v] * k if isinstance(v, int) else v for v in (stride, dilation))
    pads = widths(padding, SIZES[k], WINDOWS[k], s, d)
    expected = loop_conv(x, w, s, pads, d, groups)
    h = draw(*expected.shape)

    def both(x: Any, w: Any, layout: str, h: np.ndarray) -> Any:
        def f(x: Any, w: Any) -> Any:
            return nn.conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout)

        y, pull = xlc.vjp(f, x, w)
        return y, *pull(h)

    found = xlc.jit(both, static_argnames=("layout",))(x, w, layout=LAST[k], h=h)
    for a, b in zip(found, (expected, *loop_gradients(x, w, h, s, pads, d, groups)), strict=True):
        close(a, b)
    if k == 2:  # channels first: the same numbers elsewhere
        turned = xlc.jit(both, static_argnames=("layout",))(first(x), w.transpose(3, 2, 0, 1).copy(), layout=FIRST[k], h=first(h))
        for a, b in zip(turned, (first(found[0]), first(found[1]), found[2].transpose(3, 2, 0, 1)), strict=True):
            close(a, b)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", ["whole", "depthwise", "groups"])
def test_every_float_dtype(dtype: str, channels: str) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bf16" else np.dtype(dtype)
    groups, c, o = CHANNELS[channels]
    x, w = draw(3, 7, 6, c, dtype=kind), draw(3, 2, c // groups, o, dtype=kind)
    pads = ((1, 1), (1, 1))
    expected = loop_conv(x.astype("f8"), w.astype("f8"), (2, 1), pads, (1, 1), groups)
    found = nn.conv(x, w, stride=(2, 1), padding=1, groups=groups)
    assert found.dtype == kind
    close(found, expected, TOLERANCE[dtype])
    dx, dw = xlc.grad(lambda x, w: nn.conv(x, w, stride=(2, 1), padding=1, groups=groups).sum(), argnums=(0, 1))(x, w)
    ex, ew = loop_gradients(x.astype("f8"), w.astype("f8"), np.ones_like(expected), (2, 1), pads, (1, 1), groups)
    assert dx.dtype == kind and dw.dtype == kind
    close(dx, ex, TOLERANCE[dtype])
    close(dw, ew, TOLERANCE[dtype])


def test_integers_and_promotion() -> None:
    x, w = rng.integers(-9, 9, (2, 6, 5, 3)), rng.integers(-9, 9, (3, 3, 3, 2)).astype(np.int32)
    found = nn.conv(x, w, padding=1)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, loop_conv(x, w, (1, 1), ((1, 1), (1, 1)), (1, 1), 1))
    assert nn.conv(x.astype("f4"), w.astype("f8")).dtype == np.float64


def test_against_scipy() -> None:
    x, w = draw(17, 23), draw(4, 5)
    for mode, padding in (("valid", "VALID"), ("full", ((3, 3), (4, 4)))):
        close(nn.conv(x[None, :, :, None], w[:, :, None, None], padding=padding)[0, :, :, 0], correlate(x, w, mode))


def test_sizes_of_the_batch() -> None:
    w = draw(3, 3, 2, 5)
    for n in (0, 1, 3):
        x = draw(n, 5, 4, 2)
        close(nn.conv(x, w, padding="SAME"), loop_conv(x, w, (1, 1), ((1, 1), (1, 1)), (1, 1), 1))
        dx, dw = xlc.grad(lambda x, w: nn.conv(x, w).sum(), argnums=(0, 1))(x, w)
        assert dx.shape == x.shape and (n or not dw.any())
    assert nn.max_pool(draw(0, 4, 4, 3), 2).shape == (0, 2, 2, 3)


def test_a_window_of_one_and_one_as_large_as_the_image() -> None:
    x = draw(2, 4, 5, 6)
    w = draw(1, 1, 6, 7)
    close(nn.conv(x, w), x @ w[0, 0])
    close(nn.conv(x, w, stride=2), x[:, ::2, ::2] @ w[0, 0])
    w = draw(4, 5, 6, 3)
    close(nn.conv(x, w)[:, 0, 0], np.tensordot(x, w, 3))


@pytest.mark.parametrize(("size", "channels"), [(1, 40), (2, 40), (3, 33), (4, 20), (5, 32), (6, 48)])
def test_small_images(size: int, channels: int) -> None:
    """Their rows are shorter than a register tile is high: a tile holds several, with whatever follows on it."""
    x, w, b = draw(7, size, size, 5, dtype="f4"), draw(3, 3, 5, channels, dtype="f4"), draw(channels, dtype="f4")
    expected = loop_conv(x.astype("f8"), w.astype("f8"), (1, 1), ((1, 1), (1, 1)), (1, 1), 1) + b
    for f in (lambda y: np.maximum(y, 0), lambda y: np.tanh(np.exp(-y * y))):
        program = xlc.jit(lambda x, w, b, f=f: f(nn.conv(x, w, padding=1) + b), dynamic={"x": {0: "batch"}})
        close(program(x, w, b), f(expected), 1e-5)
        close(program(x[:2], w, b), f(expected[:2]), 1e-5)
        close(xlc.jit(lambda x, w, b, f=f: f(nn.conv(x, w, padding=1) + b))(x, w, b), f(expected), 1e-5)


def test_second_derivatives() -> None:
    """The gradient of a gradient against differences of the gradient."""
    x, w = draw(2, 5, 4, 4), draw(3, 2, 2, 4)
    v, u = draw(*x.shape), draw(*w.shape)

    def loss(x: Any, w: Any) -> Any:
        y = nn.conv(x, w, stride=2, padding=1, groups=2)
        return (y**3).sum() + (nn.max_pool(x, 2, stride=1) ** 3).sum() + (nn.avg_pool(x, (2, 3), stride=2, padding=1) ** 3).sum()

    gradient = xlc.grad(loss, argnums=(0, 1))

    def along(x: Any, w: Any) -> Any:
        dx, dw = gradient(x, w)
        return (dx * v).sum() + (dw * u).sum()

    found, h = xlc.jit(xlc.grad(along, argnums=(0, 1)))(x, w), 1e-5
    plus, minus = gradient(x + h * v, w + h * u), gradient(x - h * v, w - h * u)
    for a, p, m in zip(found, plus, minus, strict=True):
        close(a, (p - m) / (2 * h), 1e-6)


# ------------------------------------------------------------------------------------------------ transposed convolution

TRANSPOSED = [  # spatial dimensions, stride, padding, output padding, dilation, channels
    (2, 1, 0, 0, 1, "whole"), (2, 2, 1, 1, 1, "whole"), (2, 2, 0, 0, 1, "groups"), (2, (3, 1), (1, 0), (2, 0), 1, "depthwise"),
    (2, 4, 0, 0, 1, "whole"), (2, 2, 1, 0, 2, "multiplied"), (1, 2, 1, 1, 1, "whole"), (1, 3, 0, 0, 2, "groups"),
    (3, 2, (1, 1, 0), 1, 1, "whole")]


@pytest.mark.parametrize(("k", "stride", "padding", "more", "dilation", "channels"), TRANSPOSED, ids=str)
def test_transposed_convolution(k: int, stride: Any, padding: Any, more: Any, dilation: int, channels: str) -> None:
    """PyTorch's definition: the adjoint of the convolution with weights (in, out / groups, spatial...)."""
    groups, c, o = CHANNELS[channels]
    x, w = draw(2, *WINDOWS[k], c), draw(c, o // groups, *WINDOWS[k])
    s, p, m = ([v] * k if isinstance(v, int) else v for v in (stride, padding, more))
    sizes = [(n - 1) * a - 2 * b + dilation * (q - 1) + e + 1 for n, a, b, q, e in zip(WINDOWS[k], s, p, WINDOWS[k], m, strict=True)]
    # the weights of the convolution that x is the cotangent of: (spatial..., out / groups, in)
    forward = np.moveaxis(w, (0, 1), (-1, -2))
    pads = [(b, b) for b in p]
    like = np.zeros((2, *sizes, o))
    expected = loop_gradients(like, forward, x, s, pads, [dilation] * k, groups)[0]
    h = draw(*expected.shape)

    options = {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups}

    def both(x: Any, w: Any) -> Any:
        y, pull = xlc.vjp(lambda x, w: nn.conv_transpose(x, w, **options, layout=LAST[k]), x, w)
        return y, *pull(h)

    y, dx, dw = xlc.jit(both)(x, w)
    close(y, expected)
    close(dx, loop_conv(h, forward, s, pads, [dilation] * k, groups))
    close(np.moveaxis(dw, (0, 1), (-1, -2)), loop_gradients(h, forward, x, s, pads, [dilation] * k, groups)[1])
    if k == 2:
        close(nn.conv_transpose(first(x), w, **options, layout=FIRST[k]), first(y))


def test_transposed_convolution_keeps_multiples() -> None:
    x = draw(1, 3, 4, 2)
    for stride, window in ((2, 3), (3, 2), (2, 4), (1, 5)):
        assert nn.conv_transpose(x, draw(2, 3, window, window), stride=stride, padding="SAME").shape == (1, 3 * stride, 4 * stride, 3)


# ------------------------------------------------------------------------------------------------ pooling

POOLS = [  # spatial dimensions, window, stride, padding
    (2, 2, None, 0), (2, (3, 2), 2, 1), (2, 3, 1, 1), (2, 2, 3, 0), (2, 1, 2, 0), (2, 3, 2, "SAME"),
    (2, (4, 3), (2, 3), ((0, 2), (1, 0))), (2, (7, 6), None, 0),
    (1, 3, 2, 1), (1, 2, 4, 0), (3, 2, None, 0), (3, (2, 3, 1), 1, (1, 1, 0))]


@pytest.mark.parametrize(("k", "window", "stride", "padding"), POOLS, ids=str)
def test_pooling_and_its_gradients(k: int, window: Any, stride: Any, padding: Any) -> None:
    x = rng.integers(-2, 3, (2, *SIZES[k], 3)).astype("f8")  # with ties
    size = (window,) * k if isinstance(window, int) else window
    s = size if stride is None else (stride,) * k if isinstance(stride, int) else stride
    pads = widths(padding, SIZES[k], size, s, [1] * k)
    shape = (2, *positions(SIZES[k], size, s, pads, [1] * k), 3)
    top, at, total, count = np.full(shape, -np.inf), np.full(shape, -1), np.zeros(shape), np.zeros(shape)
    found = list(places(SIZES[k], size, s, pads, [1] * k))
    for i, _, j in found:
        if j is not None:
            here, value = (slice(None), *i), x[(slice(None), *j)]
            more = value > top[here]
            top[here] = np.where(more, value, top[here])
            at[here] = np.where(more, np.ravel_multi_index(j, SIZES[k]), at[here])
            total[here] += value
            count[here] += 1
    h = draw(*shape)
    back = {"max": np.zeros(x.shape), True: np.zeros(x.shape), False: np.zeros(x.shape)}
    for i, _, j in found:
        if j is not None:
            there, here = (slice(None), *j), (slice(None), *i)
            back["max"][there] += np.where(at[here] == np.ravel_multi_index(j, SIZES[k]), h[here], 0)
            back[True][there] += h[here] / np.prod(size)
            back[False][there] += h[here] / count[here]

    def everything(x: Any, h: Any, layout: str) -> Any:
        options = {"stride": stride, "padding": padding, "layout": layout}
        functions = [lambda x: nn.max_pool(x, window, **options),
                     *(lambda x, c=c: nn.avg_pool(x, window, **options, count_include_pad=c) for c in (True, False))]
        out = [xlc.vjp(f, x) for f in functions]
        return [y for y, _ in out], [pull(h)[0] for _, pull in out]

    program = xlc.jit(everything, static_argnames=("layout",))
    expected = [top, total / np.prod(size), total / count], list(back.values())
    for a, b in zip(itertools.chain(*program(x, h, layout=LAST[k])), itertools.chain(*expected), strict=True):
        close(a, b, 1e-13)
    for a, b in zip(itertools.chain(*program(first(x), first(h), layout=FIRST[k])), itertools.chain(*expected), strict=True):
        close(a, first(b), 1e-13)


def test_pooling_of_other_dtypes() -> None:
    x = rng.integers(-100, -1, (2, 5, 6, 3)).astype(np.int8)
    found = nn.max_pool(x, 3, stride=2, padding=1)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, nn.max_pool(x.astype("f8"), 3, stride=2, padding=1))
    assert nn.avg_pool(x, 2).dtype == np.float64
    half = np.full((1, 8, 8, 1), 6e4, np.float16)
    assert nn.avg_pool(half, 8)[0, 0, 0, 0] == np.float16(6e4)  # summed in float32
    assert nn.max_pool(x > -50, 2).dtype == np.bool_
    x = draw(1, 4, 4, 1)
    x[0, 1, 1, 0] = np.nan
    assert np.isnan(nn.max_pool(x, 2)[0, 0, 0, 0]) and not np.isnan(nn.max_pool(x, 2)[0, 1:]).any()
    dx = xlc.grad(lambda x: nn.max_pool(x, 2).sum())(x)
    assert dx[0, 1, 1, 0] == 1 and dx.sum() == 4


# ------------------------------------------------------------------------------------------------ normalisation, resizing


def test_local_response_norm() -> None:
    x = draw(2, 3, 4, 7)
    for radius, alpha, beta, k in ((2, 2e-5, 0.75, 1.0), (1, 0.5, 0.5, 2.0), (0, 0.1, 1.0, 1.5), (9, 0.3, 0.75, 1.0)):
        total = np.stack([(x[..., max(c - radius, 0):c + radius + 1] ** 2).sum(-1) for c in range(7)], -1)
        close(nn.local_response_norm(x, radius, alpha=alpha, beta=beta, k=k), x / (k + alpha * total) ** beta)
    v, h = draw(*x.shape), 1e-6

    def loss(x: Any) -> Any:
        return (nn.local_response_norm(x, 2, alpha=0.3) ** 2).sum()

    slope = (float(loss(x + h * v)) - float(loss(x - h * v))) / (2 * h)
    assert (xlc.grad(loss)(x) * v).sum() == pytest.approx(slope, rel=1e-6)
    close(nn.local_response_norm(x.astype("f2"), 2, alpha=0.3), nn.local_response_norm(x, 2, alpha=0.3), 3e-3)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("sizes", [(14, 10), (3, 2), (7, 11), (1, 1), (20, 3)])
def test_resize(sizes: tuple[int, int], method: str) -> None:
    x = draw(2, 7, 5, 3)
    rows = []
    for n, m in zip((7, 5), sizes, strict=True):  # the matrix of the linear map along one dimension
        a = np.zeros((m, n))
        for i in range(m):
            centre = (i + 0.5) * n / m - 0.5
            if method == "nearest":
                a[i, int(np.floor((i + 0.5) * n / m))] = 1
            else:
                at = min(max(centre, 0), n - 1)
                a[i, int(at)] += 1 - (at - int(at))
                a[i, min(int(at) + 1, n - 1)] += at - int(at)
        rows.append(a)
    expected = np.einsum("ih,jw,nhwc->nijc", *rows, x)
    h = draw(*expected.shape)

    def both(x: Any) -> Any:
        y, pull = xlc.vjp(lambda x: nn.resize(x, sizes, method=method), x)
        return y, pull(h)[0]

    y, dx = xlc.jit(both)(x)
    close(y, expected)
    close(dx, np.einsum("ih,jw,nijc->nhwc", *rows, h))
    close(nn.resize(x, (2, *sizes, 3), method=method), y)
    close(nn.resize(x.astype("f2"), sizes, method=method), expected, 3e-3)


def test_resize_of_integers_and_of_infinities() -> None:
    x = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(nn.resize(x, (4, 3))[0, :, :, 0], np.repeat(x[0, :, :, 0], 2, 0))
    assert nn.resize(x, (4, 3)).dtype == np.uint8 and nn.resize(x, (4, 3), method="bilinear").dtype == np.float64
    assert nn.resize(np.array([1, np.inf, 2.0]).reshape(1, 3, 1), (1, 5, 1), method="bilinear")[0, 0, 0] == 1


# ------------------------------------------------------------------------------------------------ programs


def test_worked_examples() -> None:
    image = np.array([[1, -1, 0], [-1, 2, 1], [0, 2, -2]], "f4").reshape(1, 3, 3, 1)
    weights = np.array([[1, -1], [0, 2]], "f4").reshape(2, 2, 1, 1)
    padded = np.maximum(nn.conv(image, weights, stride=2, padding=((1, 0), (1, 0))) + 1, 0)
    assert padded[0, 0, 0, 0] == 3  # 0*1 + 0*(-1) + 0*0 + 1*2 + 1
    np.testing.assert_array_equal(nn.conv(image, weights, stride=2, padding="SAME")[0, :, :, 0] + 1, [[7, 1], [-1, -1]])
    assert 2 * 2 * 3 * 5 + 5 == 65 and nn.conv(draw(1, 2, 2, 3), draw(2, 2, 3, 5)).shape == (1, 1, 1, 5)


def lenet(dtype: str = "f4") -> tuple[Callable[[Any], Any], list[np.ndarray]]:
    weights = [draw(5, 5, 1, 6, dtype=dtype), draw(5, 5, 6, 16, dtype=dtype), draw(400, 10, dtype=dtype)]

    def net(x: Any) -> Any:
        h = nn.max_pool(np.maximum(nn.conv(x, weights[0]), 0), 2)
        assert h.shape[1:] == (14, 14, 6)
        h = nn.max_pool(np.maximum(nn.conv(h, weights[1]), 0), 2)
        assert h.shape[1:] == (5, 5, 16)
        return h.reshape(-1, 400) @ weights[2]

    return net, weights


def test_named_batch_sizes_compile_once() -> None:
    net, weights = lenet("f8")
    program = xlc.jit(net, dynamic={"x": {0: "batch"}})
    for n in (5, 1, 0, 8):
        x = draw(n, 32, 32, 1)
        h = x
        for w, size in zip(weights[:2], (14, 5), strict=True):
            h = np.maximum(loop_conv(h, w, (1, 1), [(0, 0)] * 2, (1, 1), 1), 0)
            h = h.reshape(n, size, 2, size, 2, -1 if n else w.shape[-1]).max((2, 4), initial=-np.inf)
        close(program(x), h.reshape(n, 400) @ weights[2])


def test_named_image_sizes() -> None:
    w = draw(3, 3, 2, 4)

    def loss(x: Any) -> Any:
        y = nn.max_pool(nn.conv(x, w, stride=2, padding=1), 3, stride=2, padding=1)
        return (nn.avg_pool(y, 2, stride=1, padding=1, count_include_pad=False) ** 2).sum()

    program = xlc.jit(xlc.grad(loss), dynamic={"x": {0: "batch", 1: "height", 2: "width"}})
    for shape in ((2, 11, 8, 2), (1, 6, 13, 2)):
        x = draw(*shape)
        close(program(x), xlc.grad(loss)(x))


def test_an_exported_network_equals_jit_bit_for_bit(tmp_path: Any) -> None:
    net, _ = lenet()
    x = draw(3, 32, 32, 1, dtype="f4")
    xlc.aot.export(net, [xlc.spec(("batch", 32, 32, 1))], tmp_path / "net.so")
    np.testing.assert_array_equal(xlc.aot.load(tmp_path / "net.so")(x), xlc.jit(net, dynamic={"x": {0: "batch"}})(x))


def test_kernels() -> None:
    """A convolution is a register tile that reads windows where they lie; pooling is one pass; nothing is scattered."""
    x, w = draw(4, 14, 14, 32, dtype="f4"), draw(3, 3, 32, 64, dtype="f4")
    e = xlc.jit(lambda x: nn.max_pool(np.maximum(nn.conv(x, w, padding=1), 0), 2)).compile(x)
    pad, conv, pool = (str(k.loops) for k in e.kernels)
    assert "copy+pad" in pad and "local acc" in conv and "fma" in conv and "max" in pool
    assert e.plan.arena < 3 * 4 * 16 * 16 * 64 * 4  # windows would take nine times as much

    def loss(x: Any, w: Any) -> Any:
        return (nn.max_pool(np.maximum(nn.conv(x, w, stride=2, padding=1), 0), 3, stride=2, padding=1) ** 2).sum()

    e = xlc.jit(xlc.grad(loss, argnums=(0, 1))).compile(x, w)
    assert "scatter" not in str(e.after("simplify"))
    assert sum("fma" in str(k.loops) for k in e.kernels) == 3  # forward, and both gradients


POOL = {"axes": (1, 2), "window": (2, 3), "stride": (2, 1), "padding": ((1, 0), (1, 1))}
BATCHED = {"slide": ((6, 2), {"axes": (0,), "windows": (1,), "start": (1,), "stride": (2,), "dilation": (1,), "count": (2,)}),
           "max_pool": ((2, 5, 6, 3), POOL), "sum_pool": ((2, 5, 6, 3), POOL),
           "avg_pool": ((2, 5, 6, 3), POOL | {"count_include_pad": False}),
           "local_response_norm": ((2, 7), {"radius": 1, "alpha": 0.5, "beta": 0.5, "k": 1.0}),
           "resample": ((2, 5, 3), {"axis": 1, "count": 8, "method": "bilinear", "adjoint": False}),
           "conv": ((2, 5, 3), {"padding": ((1, 0),), "stride": (2,), "base": (1,), "dilation": (1,), "groups": 1})}


@pytest.mark.parametrize("name", BATCHED)
def test_batching_rules(name: str) -> None:
    shape, attrs = BATCHED[name]
    op, x = lookup(name), draw(4, *shape)
    w = [draw(2, 3, 5)] if name == "conv" else []
    params = [parameter(Type(f64, a.shape), f"x{k}", k) for k, a in enumerate((x, *w))]
    assert op.batch is not None
    out = op.batch(4, params, [True, False][:len(params)], **attrs)
    close(interpret(Graph(tuple(params), (out,)), x, *w)[0], np.stack([op.numpy(a, *w, **attrs) for a in x]))


# ------------------------------------------------------------------------------------------------ errors

X, W = np.zeros((2, 8, 8, 4)), np.zeros((3, 3, 4, 6))
WRONG = [
    (lambda: nn.conv(X[0], W), "x\\[None\\]"), (lambda: nn.conv(X, W[0]), "weights of as many"),
    (lambda: nn.conv(X, W[:, :, :3]), "4 channels"),
    (lambda: nn.conv(X, W[:, :, :2, :5], groups=2), "5 output channels do not divide into 2 groups"),
    (lambda: nn.conv(X, W, groups=0), "groups must be at least 1"), (lambda: nn.conv(X, W, layout="HWC"), "layout is one of"),
    (lambda: nn.conv(X, W, layout="NWC"), "3 dimensions"), (lambda: nn.conv(X, W, stride=0), "stride must be at least 1"),
    (lambda: nn.conv(X, W, stride=(1, 2, 3)), "2 of them"), (lambda: nn.conv(X, W, padding=-1), "padding must be at least 0"),
    (lambda: nn.conv(X, W, padding="same"), '"SAME" or "VALID"'), (lambda: nn.conv(X, W, padding=((1, 1, 1), 0)), "padding"),
    (lambda: nn.conv(X, W, dilation=4), "a window of 9 does not fit"), (lambda: nn.conv(X, W, stride=1.5), "stride must be an integer"),
    (lambda: nn.conv(X > 0, W > 0), "numbers"), (lambda: nn.conv(X, np.zeros((0, 3, 4, 6))), "at least 1 in each dimension"),
    (lambda: nn.conv_transpose(X, W), "weights are \\(in, out"),
    (lambda: nn.conv_transpose(X, W.transpose(2, 3, 0, 1), output_padding=1), "less than"),
    (lambda: nn.conv_transpose(X, W.transpose(2, 3, 0, 1), padding=5), "leaves nothing"),
    (lambda: nn.max_pool(X, 9), "a window of 9 does not fit"),
    (lambda: nn.max_pool(X, 0), "window must be at least 1"), (lambda: nn.avg_pool(X, 2, padding=(1, 2, 3)), "each of the 2 spatial"),
    (lambda: nn.local_response_norm(X, -1), "radius must be at least 0"), (lambda: nn.resize(X, (4,)), "expects 4 sizes, or 2"),
    (lambda: nn.resize(X, (4, 4), method="cubic"), 'method is "nearest"'), (lambda: nn.resize(X, (0, 4)), "cannot become 0")]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_errors_name_the_line(case: int) -> None:
    f, text = WRONG[case]
    with pytest.raises(XlcError, match=f"test_window.py:\\d+: .*{text}"):
        f()
    with pytest.raises(XlcError, match=f"test_window.py:\\d+: .*{text}"):
        xlc.jit(lambda: f())()


# ------------------------------------------------------------------------------------------------ PyTorch


def test_against_torch() -> None:
    """Drawn settings, values and gradients; the loops above are the main oracle."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    for case in range(12):
        s, p, d, window = (int(rng.integers(*r)) for r in ((1, 4), (0, 3), (1, 3), (1, 4)))
        groups, c, o = list(CHANNELS.values())[case % 5]
        x, w = draw(2, c, 9, 8), draw(o, c // groups, window, 3)
        more = min(1, max(s, d) - 1)
        options = {"stride": s, "padding": p, "dilation": d, "groups": groups}
        mine = xlc.jit(lambda x, w, options=options: nn.conv(x, w, **options, layout="NCHW"))
        turned = xlc.jit(lambda x, w, options=options, m=more: nn.conv_transpose(x, w, **options, layout="NCHW", output_padding=m))
        theirs = functional.conv2d(*map(torch.from_numpy, (x, w)), **options).numpy()
        close(mine(x, w), theirs)
        back = draw(*theirs.shape)
        a, b = (torch.from_numpy(v).requires_grad_() for v in (back, w))
        y = functional.conv_transpose2d(a, b, **options, output_padding=more)
        close(turned(back, w), y.detach().numpy())
        h = draw(*y.shape)
        y.backward(torch.from_numpy(h))
        da, db = xlc.grad(lambda a, b, f=turned, h=h: (f(a, b) * h).sum(), argnums=(0, 1))(back, w)
        close(da, a.grad.numpy())
        close(db, b.grad.numpy())
