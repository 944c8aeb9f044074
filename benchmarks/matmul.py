"""Products with constant weights, square and skinny, against the peak of two cores (or the bandwidth, where that is the limit) and the
peers; and the product with bias and gelu against the bare product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import machine, peers
from .harness import Build, Row, Scale, calls, contest
from .workloads import Workload, dense_gelu, matmul

PEERS = ("ONNX Runtime", "JAX", "NumPy")
SQUARE = (32, 64, 100, 128, 256, 500, 512, 1000, 1024, 2048)
SKINNY = ((1, 4096, 4096), (4, 4096, 4096), (16, 4096, 4096))
DENSE = ((256, 256, 256), (512, 1024, 1024), (100, 784, 500))
SLACK = 1.05


def rows(scale: Scale) -> Iterator[Row]:
    for n in (32,) if scale.smoke else SQUARE:
        w, weights = matmul(n, n, n)
        contestants = products(w, weights) | machine.peaks()
        row = contest(scale, w.name, contestants, work=w.flops, unit="FLOP", limit="fma peak", expected=w.expected)
        row.faster_than_best(PEERS)
        if n >= 256:
            row.share("fma peak", 0.9, "at least 90% of the two-core FMA peak")
        yield row
    for m, k, n in ((4, 64, 64),) if scale.smoke else SKINNY:
        w, weights = matmul(m, k, n)
        contestants = products(w, weights) | machine.reads([weights])
        row = contest(scale, w.name, contestants, work=w.moved, unit="B", limit="read", expected=w.expected)
        row.faster_than_best(PEERS)
        row.share("read", 0.9, "at the bandwidth limit (90% of read bandwidth)")
        yield row


def fused_rows(scale: Scale) -> Iterator[Row]:
    for m, k, n in ((16, 16, 16),) if scale.smoke else DENSE:
        w, weights, bias = dense_gelu(m, k, n)
        contestants = dense(w, weights, bias) | machine.peaks()
        row = contest(scale, w.name, contestants, work=w.flops, unit="FLOP", limit="fma peak", expected=w.expected)
        if row.us and (alone := row.stats.get("xlc, bare product")):
            cost = row.us.median / alone.median
            row.judge("at most 5% over the bare product", f"{cost - 1:+.1%}", cost <= SLACK)
        else:
            row.judge("at most 5% over the bare product", "no xlc", False)
        row.faster_than_best()
        yield row


def products(w: Workload, weights: np.ndarray) -> dict[str, Build]:
    out = np.empty(w.expected.shape, np.float32)
    return {
        "xlc": lambda: peers.xlc_calls(w.f, w.inputs),
        "NumPy": lambda: calls(lambda x: np.matmul(x, weights, out=out), w.inputs),
        "JAX": lambda: _jax_weights(lambda x, b: x @ b, w, weights),
        "ONNX Runtime": lambda: peers.onnx_calls([("MatMul", ["x", "w"], ["y"], {})], ["x"], w.inputs, {"y": out}, {"w": weights}),
        "torch": lambda: peers.torch_calls(peers.library("torch").mm, [(*args, weights) for args in w.inputs]),
    }


def _jax_weights(f: Any, w: Workload, *weights: np.ndarray) -> Any:
    """Weights as arguments on the device: as constants XLA gains nothing and takes long to compile."""
    device = [peers.library("jax").device_put(a) for a in weights]
    return peers.jax_calls(f, [(*args, *device) for args in w.inputs])


def dense(w: Workload, weights: np.ndarray, bias: np.ndarray) -> dict[str, Build]:
    out = np.empty((w.inputs[0][0].shape[0], weights.shape[1]), np.float32)

    def jax_dense(x: Any, b: Any, c: Any) -> Any:
        return peers.library("jax").nn.gelu(x @ b + c, approximate=True)

    def torch_dense() -> Any:
        nn = peers.library("torch").nn
        return nn.Sequential(peers.torch_linear(weights, bias), nn.GELU(approximate="tanh"))

    nodes = [("MatMul", ["x", "w"], ["h"], {}), ("Add", ["h", "b"], ["z"], {}), ("Gelu", ["z"], ["y"], {"approximate": "tanh"})]
    return {
        "xlc": lambda: peers.xlc_calls(w.f, w.inputs),
        "xlc, bare product": lambda: peers.xlc_calls(lambda x: x @ weights, w.inputs, check=False),
        "xlc, fuse=False": lambda: peers.xlc_calls(w.f, w.inputs, fuse=False),
        "NumPy": lambda: calls(w.f, w.inputs),
        "JAX": lambda: _jax_weights(jax_dense, w, weights, bias),
        "torch.compile": lambda: peers.torch_calls(torch_dense(), w.inputs, compiled="default"),
        "torch.compile, frozen": lambda: peers.torch_calls(torch_dense(), w.inputs, compiled="default", frozen=True),
        "ONNX Runtime": lambda: peers.onnx_calls(nodes, ["x"], w.inputs, {"y": out}, {"w": weights, "b": bias}),
    }
