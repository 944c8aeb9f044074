"""The networks of examples/networks on a GPU that is not there: a step's loss and gradients compile for the chips without spills, and those
of some of every kind equal the CPU's, through the shim."""

from __future__ import annotations

from typing import Any

import cuda_backend
import numpy as np
import pytest

import xlc
from examples.networks import NETWORKS, network
from examples.networks.network import cast
from xlc import tree

RUN = ("mlp", "lenet5", "char-lstm", "gpt")  # a convolution's rows, a scan, attention


def step(name: str, dtype: Any) -> tuple[Any, tuple[Any, ...]]:
    """Loss and gradients of a network, and their arguments."""
    net = network(name)
    params, state = cast(net.init(xlc.random.key(0)), dtype)
    batch = cast(net.batch(np.random.default_rng(0)), dtype)
    return xlc.value_and_grad(net.loss, has_aux=True), (params, state, xlc.random.key(1), *batch)


@pytest.mark.skipif(not cuda_backend.CHIPS, reason="needs NVRTC: pip install nvidia-cuda-nvrtc")
@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_without_spills(name: str) -> None:
    f, arguments = step(name, np.float32)
    for chip in cuda_backend.CHIPS:
        cuda_backend.check_resources(xlc.jit(f, device=chip).compile(*arguments).program)


@pytest.mark.skipif(not cuda_backend.DEVICES, reason=str(cuda_backend.MISSING))
@pytest.mark.parametrize("name", RUN)
def test_loss_and_gradients_are_the_cpus(name: str) -> None:
    f, arguments = step(name, np.float64)
    here, there = (xlc.jit(f, device=d)(*arguments) for d in (cuda_backend.DEVICES[0], None))
    for a, b in zip(tree.leaves(here), tree.leaves(there), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-9, atol=1e-11)
