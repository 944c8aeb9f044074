"""The CUDA backend where there is no GPU: ``jit(f, device="shim")`` runs the CUDA text on the CPU, in the order of threads that follows the
colon: shim, shim:descending, shim:random."""

from __future__ import annotations

import os
from typing import Any

from cuda_shim import MISSING, ShimDevice

from xlc import pipeline
from xlc.backends.cuda.backend import CudaBackend

DEVICES = ("cuda",) if os.environ.get("XLC_CUDA_DEVICE") == "gpu" else () if MISSING else ("shim:random",)
"""What conformance is tested on beside the CPU."""


class ShimBackend(CudaBackend):
    """Nothing is compiled but the text itself, when it is loaded."""

    graphs = False
    compiler = "shim"

    def binary(self, text: str, graph: bool) -> bytes:
        return b""


def shim(device: str) -> ShimBackend:
    return ShimBackend(ShimDevice(order=device.partition(":")[2] or "ascending"))


def install() -> None:
    pipeline.BACKENDS["shim"] = shim


def chip(arch: str = "sm_90") -> Any:
    """The backend for a chip that is not here."""
    return pipeline.backend_for(f"cuda:{arch}")


__all__ = ["DEVICES", "MISSING", "ShimBackend", "chip", "install"]
