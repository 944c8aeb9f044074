"""The networks of examples/networks at their small size: against PyTorch, or finite differences where that is not installed; trained;
exported. Published numbers of parameters at full size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlc
from examples.networks import NETWORKS, network
from examples.networks.network import cast, compare

TORCH = importlib.util.find_spec("torch") is not None
TWO_LOSSES = ("gan", "k-means-and-dnn")  # each with the other's part held fixed: what is added up has another derivative
EXPORTED = ("mlp", "lenet5", "resnet-cifar", "alexnet", "gan", "gpt")  # of all kinds; `python -m benchmarks.networks` exports all
every = pytest.mark.parametrize("name", NETWORKS)


@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if entry.parameters is not None])
def test_published_number_of_parameters(name: str) -> None:
    assert network(name, full=True).parameters == NETWORKS[name].parameters


@every
def test_inference_and_gradients_equal_pytorch(name: str) -> None:
    pytest.importorskip("torch")
    errors = compare(network(name), np.float64)
    assert errors["forward"] < 1e-9 and errors["gradient"] < 1e-9, errors


@pytest.mark.parametrize("name", ["mlp", "lenet5", "cifar"] if TORCH else [n for n in NETWORKS if n not in TWO_LOSSES])
def test_gradients_equal_finite_differences(name: str) -> None:
    """Along a random direction, in float64, at a random place near the initial one, as relu has no slope where its argument is 0."""
    net, rng = network(name), np.random.default_rng(0)
    params, state = cast(net.init(xlc.random.key(0)), np.float64)
    batch, key = cast(net.batch(rng), np.float64), xlc.random.key(1)
    loss = xlc.jit(xlc.value_and_grad(net.loss, has_aux=True))
    way, off = (xlc.tree.map(lambda p: rng.standard_normal(p.shape) * (np.abs(p).mean() + 1e-3), params) for _ in range(2))
    params = xlc.tree.map(lambda p, d: p + 0.1 * d, params, off)

    def at(step: float) -> float:
        return float(loss(xlc.tree.map(lambda p, d: p + step * d, params, way), state, key, *batch)[0][0])

    _, grads = loss(params, state, key, *batch)
    slope = sum(np.vdot(g, d) for g, d in zip(xlc.tree.leaves(grads), xlc.tree.leaves(way), strict=True))
    np.testing.assert_allclose((at(1e-8) - at(-1e-8)) / 2e-8, slope, rtol=1e-3)


@every
def test_training_lowers_the_loss_of_a_batch(name: str) -> None:
    net = network(name)
    params, state = net.init(xlc.random.key(0))
    batch, memory = net.batch(np.random.default_rng(0)), net.optimizer.init(params)
    step = xlc.jit(net.train, donate=("params", "state", "memory"))
    losses = []
    for _ in range(net.steps):
        params, state, memory, value = step(params, state, memory, xlc.random.key(1), *batch)
        losses.append(float(value))
    assert step.compiles == 1
    assert np.all(np.isfinite(losses)), losses
    if net.falls is None:
        np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    else:
        assert losses[-1] < net.falls * losses[0], losses


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_inference_equals_jit_bit_for_bit(name: str, tmp_path: Path) -> None:
    net = network(name)
    params, state = net.init(xlc.random.key(0))
    inputs = net.batch(np.random.default_rng(0))[:net.inputs]

    def infer(*x: Any) -> Any:
        return net.apply(params, state, *x)

    specs = [xlc.spec(x.shape, x.dtype) for x in inputs]
    library = xlc.aot.load(xlc.aot.export(infer, specs, tmp_path / "net.so", name="net").library)
    for a, b in zip(xlc.tree.leaves(library(*inputs)), xlc.tree.leaves(xlc.jit(infer)(*inputs)), strict=True):
        np.testing.assert_array_equal(a, b)
