"""The networks of examples/networks on a real GPU: inference, a step's loss and the gradients equal those of the CPU, in float64."""

from __future__ import annotations

import os

import numpy as np
import pytest

import xlc
from examples.networks import NETWORKS, network
from examples.networks.network import arguments, distance, ours
from xlc.backends.cuda import device

pytestmark = pytest.mark.skipif(os.environ.get("XLC_CUDA_DEVICE") != "gpu", reason="runs on a GPU: XLC_CUDA_DEVICE=gpu")


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_and_gradients_equal_the_cpus(name: str) -> None:
    net, gpu = network(name), device.current()
    given = arguments(net, np.float64)
    found = ours(net, *xlc.tree.map(gpu.asarray, given))
    assert all(gpu.owns(a) for a in xlc.tree.leaves(found))
    assert distance(xlc.tree.map(gpu.numpy, found), ours(net, *given)) < 1e-9
