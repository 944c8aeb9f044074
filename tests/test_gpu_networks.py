"""The networks of examples/networks on a real GPU: inference, a step's loss and the gradients equal those of the CPU, in float64."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import xlc
from examples.networks import NETWORKS, network
from examples.networks.network import arguments, distance, ours

pytestmark = pytest.mark.skipif(os.environ.get("XLC_CUDA_DEVICE") != "gpu", reason="runs on a GPU: XLC_CUDA_DEVICE=gpu")


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_and_gradients_equal_the_cpus(name: str, cuda_device: Any) -> None:
    net = network(name)
    given = arguments(net, np.float64)
    found = ours(net, *xlc.tree.map(cuda_device.asarray, given))
    assert all(cuda_device.owns(a) for a in xlc.tree.leaves(found))
    assert distance(xlc.tree.map(cuda_device.numpy, found), ours(net, *given)) < 1e-9
