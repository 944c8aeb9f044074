"""The elementwise chain: gelu, scale and add of two arrays, against the machine's copy bandwidth and the peers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from . import machine, peers
from .harness import Build, Contestant, Row, Scale, calls, contest
from .workloads import Workload, chain

PEERS = ("numexpr", "Numba", "JAX", "torch.compile")


def rows(scale: Scale) -> Iterator[Row]:
    for full, tiny in ((1 << 16, 1000), (1 << 20, 1001), (1 << 24, 1002)):
        w = chain(scale.size(full, tiny))
        row = contest(scale, w.name, contestants(w), work=w.moved, unit="B", limit="copy", expected=w.expected)
        row.faster_than_best(PEERS)
        if full == 1 << 24:
            row.share("copy", 0.9, "at least 90% of copy bandwidth")
        yield row


def contestants(w: Workload) -> dict[str, Build]:
    out = np.empty_like(w.inputs[0][0])

    def torch_into() -> Contestant:
        return peers.torch_calls(partial(_torch_into, peers.library("torch").from_numpy(out)), w.inputs, compiled="default")

    return {
        "xlc": lambda: peers.xlc_calls(w.f, w.inputs),
        "NumPy": lambda: calls(w.f, w.inputs),
        "numexpr": lambda: peers.numexpr_calls("half * x * (one + tanh(a * (x + b * x * x * x))) * s + y", "xy", w.inputs, _CONSTANTS),
        "Numba, prange": lambda: peers.numba_calls("chain", w.inputs, out),
        "Numba, vectorize": lambda: peers.numba_calls("chain_ufunc", w.inputs, out),
        "JAX": lambda: peers.jax_calls(_jax, w.inputs),
        "JAX, result donated": lambda: peers.jax_calls(_jax, w.inputs, donate_result=True),
        "torch.compile": lambda: peers.torch_calls(_torch, w.inputs, compiled="default"),
        "torch.compile, out=": torch_into,
        **machine.copies([x for x, _ in w.inputs]),
    }


_CONSTANTS = {"half": np.float32(0.5), "one": np.float32(1), "a": np.float32(0.7978845608), "b": np.float32(0.044715), "s": np.float32(1.5)}


def _jax(x: Any, y: Any) -> Any:
    import jax.numpy as jnp

    return 0.5 * x * (1 + jnp.tanh(0.7978845608 * (x + 0.044715 * x * x * x))) * 1.5 + y


def _torch(x: Any, y: Any) -> Any:
    import torch

    return torch.nn.functional.gelu(x, approximate="tanh") * 1.5 + y


def _torch_into(out: Any, x: Any, y: Any) -> Any:
    out.copy_(_torch(x, y))
    return out


