"""The networks of examples/networks on a GPU that is not there: a step's loss and gradients compile for the chips without spills, and those
of some of every kind equal the CPU's, through the shim."""

from __future__ import annotations

import os
from typing import Any

import cuda_backend
import numpy as np
import pytest

import xlc
from examples.networks import NETWORKS, network
from examples.networks.network import cast
from xlc import tree

RUN = ("mlp", "lenet5", "char-lstm", "gpt")  # a convolution's rows, a scan, attention
ALIKE = ("vgg-a", "vgg-b", "vgg-c", "vgg-d", "vgg16-17", "googlenet-17", "resnet50", "inception-resnet-v2", "neural-style")
"""Compiled with XLC_ALL=1 alone: their kernels are of the kinds that the others have, and take a minute or two."""
EVERY = [n for n in NETWORKS if n not in ALIKE or os.environ.get("XLC_ALL")]


def step(name: str, dtype: Any, device: str | None) -> tuple[Any, tuple[Any, ...]]:
    net = network(name)
    params, state = cast(net.init(xlc.random.key(0)), dtype)
    batch = cast(net.batch(np.random.default_rng(0)), dtype)
    return xlc.jit(xlc.value_and_grad(net.loss, has_aux=True), device=device), (params, state, xlc.random.key(1), *batch)


@pytest.mark.skipif(not cuda_backend.CHIPS, reason="needs NVRTC: pip install nvidia-cuda-nvrtc")
@pytest.mark.parametrize("name", EVERY)
def test_compiles_without_spills(name: str) -> None:
    f, arguments = step(name, np.float32, "cuda:sm_90" if EVERY.index(name) % 2 else "cuda:sm_80")
    cuda_backend.check_resources(f.compile(*arguments).program)


@pytest.mark.skipif(not cuda_backend.DEVICES, reason=str(cuda_backend.MISSING))
@pytest.mark.parametrize("name", RUN)
def test_loss_and_gradients_are_the_cpus(name: str) -> None:
    f, arguments = step(name, np.float64, cuda_backend.DEVICES[0])
    cpu, _ = step(name, np.float64, None)
    for a, b in zip(tree.leaves(f(*arguments)), tree.leaves(cpu(*arguments)), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-9, atol=1e-11)
