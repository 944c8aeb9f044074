"""What is computed: every workload of the table as a plain NumPy function with arguments, for xlc to compile.

    w = chain(1 << 20);  xlc.jit(w.f)(*w.inputs[0])

``inputs`` holds several sets of arguments so that a benchmark can take them in turn, and ``expected`` gives the result in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .harness import Scale

SETS = 4


@dataclass(frozen=True)
class Workload:
    """``flops`` and ``moved`` are the operations and the least bytes of one call. ``donate`` names arguments whose memory may be taken."""

    name: str
    f: Callable[..., Any]
    inputs: list[tuple[Any, ...]]
    expected: Any = None
    flops: float = 0.0
    moved: float = 0.0
    donate: tuple[str, ...] = ()


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape, np.float32) * np.float32(scale)


def wide(*arrays: np.ndarray) -> list[np.ndarray]:
    return [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]


# ---------------------------------------------------------------------------------------------- elementwise

def gelu_scale_add(x: Any, y: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x))) * 1.5 + y


def chain(n: int) -> Workload:
    inputs = [(random(n, seed=2 * i), random(n, seed=2 * i + 1)) for i in range(SETS)]
    return Workload(f"gelu, scale, add: {n} f32", gelu_scale_add, inputs, gelu_scale_add(*wide(*inputs[0])), moved=12.0 * n)


# ---------------------------------------------------------------------------------------------- rows

def _softmax(x: Any) -> Any:
    import xlc

    return xlc.nn.softmax(x)


def _layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    import xlc

    return xlc.nn.layer_norm(x, scale, bias)


def _rms_norm(x: Any, scale: Any) -> Any:
    import xlc

    return xlc.nn.rms_norm(x, scale)


def _cross_entropy(x: Any, labels: Any) -> Any:
    import xlc

    return xlc.nn.cross_entropy(x, labels)


def softmax_numpy(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm_numpy(x: Any, scale: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * scale + bias


def rms_norm_numpy(x: Any, scale: Any) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def cross_entropy_numpy(x: Any, labels: Any) -> Any:
    top = x.max(-1)
    return np.log(np.exp(x - top[:, None]).sum(-1)) + top - x[np.arange(len(x)), labels]


NUMPY_ROWS: dict[str, Callable[..., Any]] = {"softmax": softmax_numpy, "layer norm": layer_norm_numpy, "RMS norm": rms_norm_numpy,
                                            "cross-entropy": cross_entropy_numpy}


def row_workloads(rows: int, columns: int) -> dict[str, Workload]:
    xs = [random(rows, columns, seed=i) for i in range(SETS)]
    scale, bias = random(columns, seed=8) + 1, random(columns, seed=9)
    labels = [np.random.default_rng(i).integers(0, columns, rows) for i in range(SETS)]
    ours: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
        "softmax": (_softmax, [(x,) for x in xs]), "layer norm": (_layer_norm, [(x, scale, bias) for x in xs]),
        "RMS norm": (_rms_norm, [(x, scale) for x in xs]), "cross-entropy": (_cross_entropy, list(zip(xs, labels, strict=True)))}
    size = f"{rows}x{columns} f32"
    return {name: Workload(f"{name} {size}", f, inputs, NUMPY_ROWS[name](*wide(*inputs[0])),
                           moved=4.0 * rows * columns * (1 if name == "cross-entropy" else 2))
            for name, (f, inputs) in ours.items()}


# ---------------------------------------------------------------------------------------------- contractions

def gelu(h: Any) -> Any:
    return 0.5 * h * (1 + np.tanh(0.7978845608 * (h + 0.044715 * h * h * h)))


def matmul(m: int, k: int, n: int) -> tuple[Workload, np.ndarray]:
    """A product with constant weights, and the weights."""
    w = random(k, n, seed=7)
    inputs = [(random(m, k, seed=i),) for i in range(3)]
    expected = np.matmul(*wide(inputs[0][0], w))
    return Workload(f"{m}x{k} @ {k}x{n}", lambda x: x @ w, inputs, expected, 2.0 * m * k * n, 4.0 * (m * k + k * n + m * n)), w


def dense_gelu(m: int, k: int, n: int) -> tuple[Workload, np.ndarray, np.ndarray]:
    w, b = random(k, n, seed=7, scale=k ** -0.5), random(n, seed=8)
    inputs = [(random(m, k, seed=i),) for i in range(3)]
    x64, w64, b64 = wide(inputs[0][0], w, b)
    return Workload(f"gelu({m}x{k} @ {k}x{n} + bias)", lambda x: gelu(x @ w + b), inputs, gelu(x64 @ w64 + b64), 2.0 * m * k * n), w, b


def attention(batch: int, heads: int, tokens: int, depth: int, causal: bool) -> Workload:
    """The expected values in float64, head by head."""
    import xlc.nn

    inputs = [tuple(random(batch, heads, tokens, depth, seed=3 * i + j) for j in range(3)) for i in range(2)]
    expected = np.empty((batch, heads, tokens, depth))
    hidden = np.triu(np.ones((tokens, tokens), bool), 1) if causal else np.zeros((), bool)
    for at in np.ndindex(batch, heads):
        q, k, v = wide(*(a[at] for a in inputs[0]))
        expected[at] = softmax_numpy(np.where(hidden, -np.inf, q @ k.T / depth ** 0.5)) @ v
    name = f"attention {batch}x{heads}x{tokens}x{depth}{' causal' if causal else ''}"
    return Workload(name, lambda q, k, v: xlc.nn.attention(q, k, v, causal=causal), inputs, expected,
                    4.0 * batch * heads * tokens ** 2 * depth)


# ---------------------------------------------------------------------------------------------- networks

BATCH, RATE = 100, 0.01
NAMES = ("w1", "b1", "w2", "b2")


def mlp_parameters(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    p = {"w1": random(784, 500, seed=1, scale=0.05), "b1": random(500, seed=2, scale=0.1),
         "w2": random(500, 10, seed=3, scale=0.05), "b2": random(10, seed=4, scale=0.1)}
    return {k: v.astype(dtype) for k, v in p.items()}


def mlp_forward(p: Any, x: Any) -> Any:
    return np.maximum(x @ p["w1"] + p["b1"], 0) @ p["w2"] + p["b2"]


def mlp_inference(batch: int = BATCH) -> Workload:
    p = mlp_parameters()
    inputs = [(random(batch, 784, seed=i),) for i in range(3)]
    return Workload(f"MLP 784-500-10 inference, batch {batch}", lambda x: mlp_forward(p, x), inputs,
                    mlp_forward(mlp_parameters(np.float64), *wide(*inputs[0])), 2.0 * batch * (784 * 500 + 500 * 10))


def mlp_batches(batch: int = BATCH) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(random(batch, 784, seed=i), np.random.default_rng(i).integers(0, 10, batch)) for i in range(3)]


def mlp_loss(p: Any, x: Any, labels: Any) -> Any:
    import xlc

    return xlc.nn.cross_entropy(mlp_forward(p, x), labels).mean()


def mlp_step(p: Any, x: Any, labels: Any) -> Any:
    """One step of gradient descent: new parameters and the loss."""
    import xlc

    loss, g = xlc.value_and_grad(mlp_loss)(p, x, labels)
    return {k: p[k] - RATE * g[k] for k in p}, loss


def mlp_step_numpy(p: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
    """The same step by hand, for the reference and for NumPy as a contestant."""
    h = np.maximum(x @ p["w1"] + p["b1"], 0)
    z = h @ p["w2"] + p["b2"]
    z -= z.max(-1, keepdims=True)
    e = np.exp(z)
    total = e.sum(-1, keepdims=True)
    rows = np.arange(len(x))
    loss = (np.log(total[:, 0]) - z[rows, labels]).mean()
    d = e / total
    d[rows, labels] -= 1
    d /= len(x)
    dh = (d @ p["w2"].T) * (h > 0)
    g = {"w1": x.T @ dh, "b1": dh.sum(0), "w2": h.T @ d, "b2": d.sum(0)}
    return {k: p[k] - p[k].dtype.type(RATE) * g[k] for k in p}, loss


def mlp_training(batch: int = BATCH) -> Workload:
    inputs = [(mlp_parameters(), *b) for b in mlp_batches(batch)]
    _, x, labels = inputs[0]
    expected, _ = mlp_step_numpy(mlp_parameters(np.float64), wide(x)[0], labels)
    forward = 2.0 * batch * (784 * 500 + 500 * 10)
    return Workload(f"MLP 784-500-10 training step, batch {batch}", mlp_step, inputs,
                    [expected[n] for n in NAMES], 2 * forward + 2.0 * batch * 500 * 10, donate=("p",))


def deep_forward(width: int, layers: int = 8) -> Workload:
    """Several equal dense layers; the weights are arguments, so that compilation has nothing to fold."""
    ws = [random(width, width, seed=i, scale=width ** -0.5) for i in range(layers)]
    bs = [random(width, seed=layers + i) for i in range(layers)]
    return Workload(f"{layers}-layer MLP forward, width {width}", lambda x, ws, bs: deep(np, x, ws, bs), [(random(32, width), ws, bs)])


def deep(xp: Any, x: Any, ws: Any, bs: Any) -> Any:
    for w, b in zip(ws, bs, strict=True):
        x = xp.maximum(x @ w + b, 0)
    return x


def long_chain(n: int) -> Workload:
    """n elementwise operations, one after the other, no two alike."""
    return Workload(f"chain of {n} operations", lambda x, y: many(np, n, x, y), [(random(64, 64), random(64, 64, seed=1))])


def many(xp: Any, n: int, x: Any, y: Any) -> Any:
    for i in range(n):
        c = 0.5 + i / 4096
        match i % 5:
            case 0:
                x = x * c
            case 1:
                x = x + y
            case 2:
                x = xp.tanh(x)
            case 3:
                x = x - c
            case _:
                x = xp.maximum(x, -c)
    return x


def everything(scale: Scale) -> list[Workload]:
    """One of each, for the questions that are not about time."""
    rows = row_workloads(scale.size(4096, 8), scale.size(1024, 32))
    edge = scale.size(512, 16)
    return [chain(scale.size(1 << 20, 256)), *rows.values(), matmul(edge, edge, edge)[0], dense_gelu(edge, edge, edge)[0],
            mlp_inference(scale.size(BATCH, 4)), mlp_training(scale.size(BATCH, 4)), deep_forward(scale.size(256, 16)),
            long_chain(scale.size(1000, 20))]
