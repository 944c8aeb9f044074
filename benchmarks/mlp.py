"""The MLP 784-500-10 at batch 100: inference, and a whole training step (forward, backward, update) as one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import machine, peers
from .harness import Build, Contestant, Row, Scale, calls, contest
from .workloads import BATCH, NAMES, RATE, Workload, mlp_batches, mlp_inference, mlp_parameters, mlp_step_numpy, mlp_training

PEERS = ("JAX", "torch.compile", "ONNX Runtime")


def rows(scale: Scale) -> Iterator[Row]:
    batch = scale.size(BATCH, 4)
    for w, contestants in ((mlp_inference(batch), inference), (mlp_training(batch), training)):
        row = contest(scale, w.name, contestants(w) | machine.peaks(), work=w.flops, unit="FLOP", limit="fma peak", expected=w.expected)
        row.faster_than_best(PEERS)
        yield row


# ---------------------------------------------------------------------------------------------- inference

def inference(w: Workload) -> dict[str, Build]:
    p = mlp_parameters()
    nodes: list[peers.OnnxNode] = [("Gemm", ["x", "w1", "b1"], ["h"], {}), ("Relu", ["h"], ["r"], {}),
                                   ("Gemm", ["r", "w2", "b2"], ["y"], {})]
    out = np.empty(w.expected.shape, np.float32)

    def jax_calls() -> Contestant:
        jax = peers.library("jax")
        q = [jax.device_put(p[n]) for n in NAMES]
        return peers.jax_calls(lambda x, w1, b1, w2, b2: jax.nn.relu(x @ w1 + b1) @ w2 + b2, [(*args, *q) for args in w.inputs])

    return {
        "xlc": lambda: peers.xlc_calls(w.f, w.inputs),
        "NumPy": lambda: calls(w.f, w.inputs),
        "JAX": jax_calls,
        "torch": lambda: peers.torch_calls(_torch_mlp(p), w.inputs),
        "torch.compile": lambda: peers.torch_calls(_torch_mlp(p), w.inputs, compiled="default"),
        "torch.compile, frozen": lambda: peers.torch_calls(_torch_mlp(p), w.inputs, compiled="default", frozen=True),
        "ONNX Runtime": lambda: peers.onnx_calls(nodes, ["x"], w.inputs, {"y": out}, p),
    }


def _torch_mlp(p: dict[str, np.ndarray]) -> Any:
    nn = peers.library("torch").nn
    return nn.Sequential(peers.torch_linear(p["w1"], p["b1"]), nn.ReLU(), peers.torch_linear(p["w2"], p["b2"]))


# ---------------------------------------------------------------------------------------------- training

def _read(p: Any) -> list[np.ndarray]:
    return [np.asarray(p[n]) for n in NAMES]


def stepping(step: Callable[..., tuple[Any, Any]], parameters: Any, batches: list[tuple[Any, ...]],
             read: Callable[[Any], Any] = _read) -> Contestant:
    """A step that takes parameters and a batch and gives new parameters and the loss; each call goes on from where the last one stopped.
    The result that is checked is that of the first step."""
    state = parameters

    def call(x: Any, labels: Any) -> Any:
        nonlocal state
        state, loss = step(state, x, labels)
        return loss

    return calls(call, batches, lambda _: read(state))


def training(w: Workload) -> dict[str, Build]:
    batches = mlp_batches(len(w.inputs[0][1]))

    def xlc_step() -> Contestant:
        import xlc

        return stepping(xlc.jit(w.f, donate=w.donate), mlp_parameters(), batches)

    return {
        "xlc": xlc_step,
        "NumPy": lambda: stepping(mlp_step_numpy, mlp_parameters(), batches),
        "JAX": lambda: _jax_step(batches),
        "torch": lambda: _torch_step(batches, compiled=False),
        "torch.compile": lambda: _torch_step(batches, compiled=True),
        "torch.compile, one graph": lambda: _torch_one_graph(batches),
    }


def jax_step() -> Callable[..., Any]:
    """The training step as one JAX function."""
    jax = peers.library("jax")

    def loss(p: Any, x: Any, labels: Any) -> Any:
        z = jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(z), labels[:, None], -1).mean()

    def step(p: Any, x: Any, labels: Any) -> Any:
        value, g = jax.value_and_grad(loss)(p, x, labels)
        return {k: p[k] - RATE * g[k] for k in p}, value

    return step


def _jax_step(batches: list[tuple[Any, ...]]) -> Contestant:
    jax = peers.library("jax")
    jitted = jax.jit(jax_step(), donate_argnums=0)
    on_device = [jax.device_put(b) for b in batches]
    return stepping(lambda *args: jax.block_until_ready(jitted(*args)), jax.device_put(mlp_parameters()), on_device)


def _torch_step(batches: list[tuple[Any, ...]], *, compiled: bool) -> Contestant:
    """Forward and backward as autograd has them, then one update of all parameters."""
    torch = peers.library("torch")
    model = _torch_mlp(mlp_parameters())
    ps = list(model.parameters())

    def loss_of(x: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), labels)

    forward = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def step(_: Any, x: Any, labels: Any) -> Any:
        loss = forward(x, labels)
        grads = torch.autograd.grad(loss, ps)
        with torch.no_grad():
            torch._foreach_add_(ps, grads, alpha=-RATE)
        return model, loss

    return stepping(step, model, _tensors(batches), _read_module)


def _torch_one_graph(batches: list[tuple[Any, ...]]) -> Contestant:
    """Everything in one compiled graph, parameters updated in place."""
    torch = peers.library("torch")
    functional = torch.nn.functional
    p = {k: torch.from_numpy(v) for k, v in mlp_parameters().items()}

    def loss_of(p: Any, x: Any, labels: Any) -> Any:
        return functional.cross_entropy(functional.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"], labels)

    @torch.compile(dynamic=False)
    def step(p: Any, x: Any, labels: Any) -> Any:
        grads, loss = torch.func.grad_and_value(loss_of)(p, x, labels)
        for k, v in p.items():
            v.sub_(RATE * grads[k])
        return loss

    return stepping(lambda p, *batch: (p, step(p, *batch)), p, _tensors(batches))


def _tensors(batches: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    torch = peers.library("torch")
    return [tuple(torch.from_numpy(a) for a in b) for b in batches]


def _read_module(model: Any) -> list[np.ndarray]:
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    return [w1.T, b1, w2.T, b2]
