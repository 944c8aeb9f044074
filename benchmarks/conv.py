"""Convolutions with constant weights as networks have them, against the peak of two cores and the peers; and steps of two layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import machine, peers
from .harness import Build, Contestant, Row, Scale, calls, contest
from .workloads import SETS, Workload, random

PEERS = ("ONNX Runtime", "JAX")
# (batch, height, width, in), (height, width, in / groups, out), stride, groups
LAYERS = (
    ((100, 28, 28, 1), (5, 5, 1, 32), 1, 1),
    ((100, 14, 14, 32), (5, 5, 32, 64), 1, 1),
    ((128, 32, 32, 16), (3, 3, 16, 16), 1, 1),
    ((1, 224, 224, 3), (7, 7, 3, 64), 2, 1),
    ((1, 56, 56, 64), (3, 3, 64, 64), 1, 1),
    ((1, 56, 56, 64), (1, 1, 64, 256), 1, 1),
    ((1, 14, 14, 256), (3, 3, 256, 256), 1, 1),
    ((1, 14, 14, 1024), (1, 1, 1024, 256), 1, 1),
    ((1, 7, 7, 512), (3, 3, 512, 512), 1, 1),
    ((1, 56, 56, 144), (3, 3, 1, 144), 1, 144),
)
TINY = (((2, 6, 5, 4), (3, 3, 4, 8), 1, 1),)
STEPS = {"LeNet": ((100, 28, 28, 1), (5, 5, 1, 32), (5, 5, 32, 64)), "residual block": ((128, 32, 32, 16), (3, 3, 16, 16), (3, 3, 16, 16))}


def rows(scale: Scale) -> Iterator[Row]:
    for layer in TINY if scale.smoke else LAYERS:
        w, weights = convolution(*layer)
        row = contest(scale, w.name, forward(w, weights, *layer[2:]) | machine.peaks(), work=w.flops, unit="FLOP", limit="fma peak",
                      expected=w.expected)
        row.faster_than_best(PEERS)
        yield row


def step_rows(scale: Scale) -> Iterator[Row]:
    for name, (x, first, second) in STEPS.items():
        batch = (2, *x[1:]) if scale.smoke else x
        row = contest(scale, f"step of {name}: 2 convolutions of {show(batch)} and their gradients", steps(name, batch, first, second))
        row.faster_than_best()
        yield row


def show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _same(n: int, k: int, stride: int) -> tuple[int, int]:
    total = max((-(-n // stride) - 1) * stride + k - n, 0)
    return total // 2, total - total // 2


def convolution(shape: tuple[int, ...], window: tuple[int, ...], stride: int, groups: int) -> tuple[Workload, np.ndarray]:
    import xlc

    xs, weights = [random(*shape, seed=i) for i in range(SETS)], random(*window, seed=9, scale=0.1)
    pads = [(0, 0), *(_same(n, k, stride) for n, k in zip(shape[1:3], window, strict=False)), (0, 0)]
    padded = np.pad(xs[0].astype(np.float64), pads)
    seen = np.lib.stride_tricks.sliding_window_view(padded, window[:2], (1, 2))[:, ::stride, ::stride]
    if groups == 1:
        expected = np.tensordot(seen, weights.astype(np.float64), ((4, 5, 3), (0, 1, 2)))
    else:
        expected = np.einsum("nhwcij,ijc->nhwc", seen, weights[:, :, 0].astype(np.float64))
    name = f"conv {show(shape)} * {show(window)}" + (f" stride {stride}" if stride > 1 else "")
    flops = 2.0 * expected.size * window[0] * window[1] * window[2]
    return Workload(name, lambda x: xlc.nn.conv(x, weights, stride=stride, padding="SAME", groups=groups), [(x,) for x in xs], expected,
                    flops), weights


def forward(w: Workload, weights: np.ndarray, stride: int, groups: int) -> dict[str, Build]:
    first = [(np.ascontiguousarray(x.transpose(0, 3, 1, 2)),) for (x,) in w.inputs]  # where these peers are at home
    oihw = np.ascontiguousarray(weights.transpose(3, 2, 0, 1))
    out = np.empty(w.expected.transpose(0, 3, 1, 2).shape, np.float32)
    attributes = {"strides": [stride, stride], "auto_pad": "SAME_UPPER", "group": groups}

    def onnx() -> Contestant:
        return _last(peers.onnx_calls([("Conv", ["x", "w"], ["y"], attributes)], ["x"], first, {"y": out}, {"w": oihw}))

    def torch() -> Contestant:
        lib = peers.library("torch")
        layer = lib.nn.functional.conv2d
        lo, hi = _same(w.inputs[0][0].shape[1], weights.shape[0], stride)
        tensor = lib.from_numpy(oihw)
        pad = lib.nn.functional.pad if lo != hi else None
        return _last(peers.torch_calls(lambda x: layer(x if pad is None else pad(x, (lo, hi, lo, hi)), tensor, stride=stride,
                                                       padding=lo if pad is None else 0, groups=groups), first))

    return {"xlc": lambda: peers.xlc_calls(w.f, w.inputs), "JAX": lambda: _jax(w, weights, stride, groups), "ONNX Runtime": onnx,
            "torch": torch}


def _last(c: Contestant) -> Contestant:
    """The result with its channels last."""
    assert c.result is not None
    read = c.result
    return Contestant(c.seconds, lambda: np.asarray(read()).transpose(0, 2, 3, 1))


def _jax(w: Workload, weights: np.ndarray, stride: int, groups: int) -> Contestant:
    jax = peers.library("jax")
    device = jax.device_put(weights)

    def f(x: Any, k: Any) -> Any:
        return jax.lax.conv_general_dilated(x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                            feature_group_count=groups)

    return peers.jax_calls(f, [(*args, device) for args in w.inputs])


# ---------------------------------------------------------------------------------------------- steps


def steps(name: str, x: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...]) -> dict[str, Build]:
    """The gradients of two layers by their weights: pooled between (LeNet), or with a shortcut (residual)."""
    inputs = [(random(*x, seed=i), random(*first, seed=8, scale=0.1), random(*second, seed=9, scale=0.1)) for i in range(SETS)]
    pooled = name == "LeNet"

    def ours() -> Contestant:
        import xlc

        def loss(a: Any, v: Any, w: Any) -> Any:
            h = np.maximum(xlc.nn.conv(a, v, padding="SAME"), 0)
            h = xlc.nn.max_pool(h, 2) if pooled else h
            h = xlc.nn.conv(h, w, padding="SAME")
            h = xlc.nn.max_pool(np.maximum(h, 0), 2) if pooled else h + a
            return (h * h).mean()

        return calls(xlc.jit(xlc.grad(loss, argnums=(1, 2))), inputs, lambda _: None)

    def theirs() -> Contestant:
        jax = peers.library("jax")

        def conv(a: Any, w: Any) -> Any:
            return jax.lax.conv_general_dilated(a, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

        def pool(a: Any) -> Any:
            return jax.lax.reduce_window(a, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

        def loss(a: Any, v: Any, w: Any) -> Any:
            h = jax.numpy.maximum(conv(a, v), 0)
            h = pool(h) if pooled else h
            h = conv(h, w)
            h = pool(jax.numpy.maximum(h, 0)) if pooled else h + a
            return (h * h).mean()

        jitted = jax.jit(jax.grad(loss, argnums=(1, 2)))
        device = [tuple(jax.device_put(a) for a in args) for args in inputs]
        return calls(lambda *args: jax.block_until_ready(jitted(*args)), device, lambda _: None)

    def eager() -> Contestant:
        torch = peers.library("torch")
        f = torch.nn.functional

        def call(a: Any, v: Any, w: Any) -> Any:
            h = f.conv2d(a, v, padding=v.shape[-1] // 2).relu()
            h = f.max_pool2d(h, 2) if pooled else h
            h = f.conv2d(h, w, padding=w.shape[-1] // 2)
            h = f.max_pool2d(h.relu(), 2) if pooled else h + a
            return torch.autograd.grad((h * h).mean(), (v, w))

        def tensors(a: np.ndarray, *w: np.ndarray) -> tuple[Any, ...]:
            image = torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2)))
            return image, *(torch.from_numpy(np.ascontiguousarray(v.transpose(3, 2, 0, 1))).requires_grad_() for v in w)

        return calls(call, [tensors(*args) for args in inputs], lambda _: None)

    return {"xlc": ours, "JAX": theirs, "torch": eager}
