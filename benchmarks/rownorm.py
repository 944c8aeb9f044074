"""Whole rows: softmax, layer norm, RMS norm and cross-entropy of 4096x1024, against one read and one write of memory and the peers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import machine, peers
from .harness import Build, Row, Scale, calls, contest, reason_of
from .workloads import NUMPY_ROWS, Workload, row_workloads


def rows(scale: Scale) -> Iterator[Row]:
    for kind, w in row_workloads(scale.size(4096, 8), scale.size(1024, 32)).items():
        limit, bar = ("read", "one read") if kind == "cross-entropy" else ("copy", "one read and one write")
        yardsticks = (machine.reads if limit == "read" else machine.copies)([args[0] for args in w.inputs])
        row = contest(scale, w.name, contestants(kind, w) | yardsticks, work=w.moved, unit="B", limit=limit, expected=w.expected)
        row.faster_than_best()
        row.share(limit, 0.9, f"{bar} of memory (90% of {limit} bandwidth)")
        _one_pass(row, w)
        yield row


def _one_pass(row: Row, w: Workload) -> None:
    """The bytes that the plan moves, against what must move."""
    try:
        from .memory import compiled, moved

        found, least = moved(compiled(w).plan), sum(a.nbytes for a in w.inputs[0]) + w.expected.size * 4
    except Exception as error:  # the row says already that xlc fails
        row.notes.append(f"no plan: {reason_of(error)}")
    else:
        row.judge("the plan moves each byte once", f"{found / least:.2f} of the least bytes", found <= 1.01 * least)


def contestants(kind: str, w: Workload) -> dict[str, Build]:
    out = np.empty(w.expected.shape, np.float32)
    return {
        "xlc": lambda: peers.xlc_calls(w.f, w.inputs),
        "NumPy": lambda: calls(NUMPY_ROWS[kind], w.inputs),
        "Numba": lambda: peers.numba_calls(re.sub("[ -]", "_", kind.lower()), w.inputs, out),
        "JAX": lambda: peers.jax_calls(_jax(kind), w.inputs),
        "JAX, result donated": lambda: peers.jax_calls(_jax(kind), w.inputs, donate_result=True),
        "torch": lambda: peers.torch_calls(_torch(kind), w.inputs),
        "torch.compile": lambda: peers.torch_calls(_torch(kind), w.inputs, compiled="default"),
        "ONNX Runtime": lambda: _onnx(kind, w, out),
    }


def _jax(kind: str) -> Callable[..., Any]:
    jax = peers.library("jax")
    jnp = jax.numpy

    def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias

    def rms_norm(x: Any, scale: Any) -> Any:
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def cross_entropy(x: Any, labels: Any) -> Any:
        return jax.nn.logsumexp(x, -1) - jnp.take_along_axis(x, labels[:, None], -1)[:, 0]

    found: dict[str, Callable[..., Any]] = {"softmax": jax.nn.softmax, "layer norm": layer_norm, "RMS norm": rms_norm,
                                            "cross-entropy": cross_entropy}
    return found[kind]


def _torch(kind: str) -> Callable[..., Any]:
    functional = peers.library("torch").nn.functional
    return {"softmax": lambda x: functional.softmax(x, -1),
            "layer norm": lambda x, scale, bias: functional.layer_norm(x, (x.shape[-1],), scale, bias, 1e-5),
            "RMS norm": lambda x, scale: functional.rms_norm(x, (x.shape[-1],), scale, 1e-6),
            "cross-entropy": lambda x, labels: functional.cross_entropy(x, labels, reduction="none")}[kind]


def _onnx(kind: str, w: Workload, out: np.ndarray) -> Any:
    nodes: dict[str, peers.OnnxNode] = {
        "softmax": ("Softmax", ["x"], ["y"], {"axis": -1}),
        "layer norm": ("LayerNormalization", ["x", "scale", "bias"], ["y"], {"axis": -1, "epsilon": 1e-5}),
        "RMS norm": ("SimplifiedLayerNormalization", ["x", "scale"], ["y"], {"axis": -1, "epsilon": 1e-6}),  # an extension of ONNX Runtime
        "cross-entropy": ("SoftmaxCrossEntropyLoss", ["x", "labels"], ["y"], {"reduction": "none"})}
    names = nodes[kind][1]
    varying = 2 if kind == "cross-entropy" else 1
    weights = dict(zip(names[varying:], w.inputs[0][varying:], strict=True))
    opset = 13 if kind == "cross-entropy" else 20  # later versions of that loss are missing
    return peers.onnx_calls([nodes[kind]], names[:varying], [args[:varying] for args in w.inputs], {"y": out}, weights, opset)
