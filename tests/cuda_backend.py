"""The CUDA backend where there is no GPU: ``jit(f, device="shim")`` runs the CUDA text on the CPU, in the order of threads that follows the
colon, as for the chip that follows the next: shim, shim:descending, shim:random, shim:random:sm_90. With XLC_CUDA_DEVICE=gpu all of these
are this machine's GPU (see ``cuda_gpu``)."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import cuda_shim
from cuda_shim import ShimDevice
from cuda_units import resources

from xlc import pipeline
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.backend import CudaBackend
from xlc.backends.cuda.module import emit_module

ON_GPU = os.environ.get("XLC_CUDA_DEVICE") == "gpu"
MISSING = None if ON_GPU else cuda_shim.MISSING
DEVICES = () if MISSING else ("shim:random",)
"""What conformance is tested on beside the CPU."""

CHIPS = ("cuda:sm_80", "cuda:sm_90") if nvrtc.available() and not ON_GPU else ()
"""Chips that are not here, for which everything is compiled."""

LISTED = (  # what may use local memory, how many bytes of it, and why
    (r"\A// pow\n", 8, "powers of integers, up to 16 side by side, are squarings and nothing else: two registers of 128 are stored"),
    (r"const long long n_\w+", 8, "of named sizes, indices have 64 bits: a word is too many where two blocks share the registers"),
    (r"xlc_grid_sync", 32, "a function that a loop calls several times saves some registers once"),
)


def check_resources(*programs: Any) -> None:
    """Compile the kernels of programs for their chip, and hold that none spills registers or has an array in local memory, unless the list
    says why; nor more shared memory than a block may have."""
    backend = programs[0].backend
    for p in programs:
        for entry in emit_module(p.plan).entries:
            assert entry.shared <= backend.machine.shared, f"{entry.note} for {backend.device.arch} takes {entry.shared} bytes"
    for unit, found in resources(backend, *(p.plan for p in programs)):
        if not found.local:
            continue
        text = f"{unit.note}\n{unit.text}"
        bytes_ = max(found.stack, found.spill_stores, found.spill_loads)
        why = next((reason for pattern, most, reason in LISTED if bytes_ <= most and re.search(pattern, text)), None)
        assert why is not None, f"for {backend.device.arch}: {found}\n{text}"


class ShimBackend(CudaBackend):
    """Nothing is compiled but the text itself, when it is loaded."""

    graphs = False
    compiler = "shim"

    def binary(self, text: str, graph: bool) -> bytes:
        return b""


@functools.cache
def shim(device: str) -> CudaBackend:
    if ON_GPU:
        return gpu()
    order, arch = (*device.split(":")[1:], "", "")[:2]
    return ShimBackend(ShimDevice(arch or "sm_80", order=order or "ascending"))


@functools.cache
def gpu() -> CudaBackend:
    from cuda_gpu import HostSeenGpu

    from xlc.backends.cuda import device

    current = device.current()
    return CudaBackend(HostSeenGpu(current.cupy, current.number))


def install() -> None:
    pipeline.BACKENDS["shim"] = shim


def chip(arch: str = "sm_90") -> Any:
    """The backend for a chip that is not here."""
    return pipeline.backend_for(f"cuda:{arch}")


__all__ = ["CHIPS", "DEVICES", "MISSING", "ShimBackend", "check_resources", "chip", "install"]
