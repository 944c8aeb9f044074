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
from examples.networks.layers import Functions
from examples.networks.network import Network, cast, compare
from examples.networks.training import TRAININGS, reach

TORCH = importlib.util.find_spec("torch") is not None
TWO_LOSSES = ("gan", "k-means-and-dnn")  # each with the other's part held fixed
EXPORTED = ("mlp", "lenet5", "resnet-cifar", "gan", "ptb-lstm", "gpt", "wide-and-deep")
# Of all kinds; the others are exported by `python -m benchmarks.networks`.
QUICK = [name for name, how in TRAININGS.items() if not how.long]
every = pytest.mark.parametrize("name", NETWORKS)


@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if entry.parameters is not None])
def test_published_number_of_parameters(name: str) -> None:
    assert network(name, full=True).parameters == NETWORKS[name].parameters


@every
def test_inference_and_gradients_equal_pytorch(name: str) -> None:
    pytest.importorskip("torch")
    errors = compare(network(name), np.float64)
    assert errors["forward"] < 1e-9 and errors["gradient"] < 1e-9, errors


class Held(Functions):
    """What ``stop_gradient`` lets through is what it let through in the run before, so that differences see what derivatives see."""

    def __init__(self, before: Held | None = None):
        self.seen: list[Any] = []
        self.before = before and iter(before.seen)

    def stop_gradient(self, x: Any) -> Any:
        self.seen.append(x)
        return next(self.before) if self.before else x


def held(net: Network) -> Any:
    """The loss at some parameters, where whatever is held fixed is that of other parameters."""
    def loss(params: Any, fixed: Any, *rest: Any) -> Any:
        if net.using is None:
            return net.loss(params, *rest)[0]
        first = Held()
        net.using(first)[1](fixed, *rest)
        return net.using(Held(first))[1](params, *rest)[0]

    return xlc.jit(loss)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "cifar", *TWO_LOSSES] if TORCH else NETWORKS)
def test_gradients_equal_finite_differences(name: str) -> None:
    """Along a random direction, in float64, at a random place near the initial one, as relu has no slope where its argument is 0."""
    net, rng = network(name), np.random.default_rng(0)
    params, state = cast(net.init(xlc.random.key(0)), np.float64)
    batch, key = cast(net.batch(rng), np.float64), xlc.random.key(1)
    loss, value = xlc.jit(xlc.value_and_grad(net.loss, has_aux=True)), held(net)
    way, off = (xlc.tree.map(lambda p: rng.standard_normal(p.shape) * (np.abs(p).mean() + 1e-3), params) for _ in range(2))
    params = xlc.tree.map(lambda p, d: p + 0.1 * d, params, off)

    def at(step: float) -> float:
        return float(value(xlc.tree.map(lambda p, d: p + step * d, params, way), params, state, key, *batch))

    _, grads = loss(params, state, key, *batch)
    slope = sum(np.vdot(g, d) for g, d in zip(xlc.tree.leaves(grads), xlc.tree.leaves(way), strict=True))
    np.testing.assert_allclose((at(1e-8) - at(-1e-8)) / 2e-8, slope, rtol=1e-3)


@pytest.mark.parametrize("name", QUICK)
def test_training_reaches_its_target(name: str) -> None:
    """On data that were not trained on."""
    reached = reach(name)
    assert reached.ok and reached.compiles == 1, str(reached)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in QUICK])
def test_training_lowers_the_loss_of_a_batch(name: str) -> None:
    """Of those that take long to reach their target: examples/train_networks.py, train_gan.py and train_style.py hold them to it."""
    net = network(name)
    params, state = net.init(xlc.random.key(0))
    batch, memory = net.batch(np.random.default_rng(0)), net.optimizer.init(params)
    step = xlc.jit(net.train, donate=("params", "state", "memory"))
    losses = []
    for _ in range(12):
        params, state, memory, value = step(params, state, memory, xlc.random.key(1), *batch)
        losses.append(float(value))
    assert step.compiles == 1
    assert np.all(np.isfinite(losses)) and losses[-1] < 0.8 * losses[0], losses


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
