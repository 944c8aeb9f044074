"""The CUDA backend where there is no GPU: ``jit(f, device="shim")`` runs the CUDA text on the CPU, in the order of threads that follows the
colon, as for the chip that follows the next: shim, shim:descending, shim:random, shim:random:sm_90."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

from cuda_shim import MISSING, ShimDevice

from xlc import pipeline
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.backend import CudaBackend
from xlc.backends.cuda.module import emit_module

DEVICES = ("cuda",) if os.environ.get("XLC_CUDA_DEVICE") == "gpu" else () if MISSING else ("shim:random",)
"""What conformance is tested on beside the CPU."""

CHIPS = ("cuda:sm_80", "cuda:sm_90") if nvrtc.available() else ()
"""Chips that are not here, for which everything is compiled."""

LISTED = (  # what may use local memory, and why
    (r"/ |% |xlc_floor_divide|xlc_remainder", "a 64-bit integer division is a call, which saves registers"),
)


def check_resources(program: Any) -> None:
    """Compile a program's module for the chip, and hold that no kernel spills registers or has an array in local memory, unless the list
    says why, and that products in the background stay there."""
    backend, plan = program.backend, program.plan
    done = backend.compiled(backend.text(plan))
    assert "(C75" not in done.log, done.log  # ptxas waits for each product, or puts waits of its own between
    text = {k.name: k.function for k in emit_module(plan).kernels}
    for entry, found in done.resources.items():
        if not found.local:
            continue
        head = next((s for s in done.text.splitlines() if re.match(rf"XLC_ENTRY\({entry}\b", s)), "")
        calls = set(re.findall(r"\bk\d+(?:_\d+)?\b", head))
        bodies = "\n".join(text[k] for k in calls if k in text)
        loop = "xlc_grid_sync" in re.split(rf"XLC_ENTRY\({entry}\b", done.text)[-1].partition("XLC_ENTRY(")[0]
        if found.stack <= 32 and found.spill_stores <= 32 and (loop or any(done.text.count(f" {k}(") > 2 for k in calls)):
            continue  # a kernel that several launches, or a loop, share is a call, which saves some registers once
        why = next((reason for pattern, reason in LISTED if re.search(pattern, bodies) and "long long" in bodies), None)
        assert why is not None, f"{entry} for {backend.device.arch}: {found}\n{bodies}"


class ShimBackend(CudaBackend):
    """Nothing is compiled but the text itself, when it is loaded."""

    graphs = False
    compiler = "shim"

    def binary(self, text: str, graph: bool) -> bytes:
        return b""


@functools.cache
def shim(device: str) -> ShimBackend:
    order, arch = (*device.split(":")[1:], "", "")[:2]
    return ShimBackend(ShimDevice(arch or "sm_80", order=order or "ascending"))


def install() -> None:
    pipeline.BACKENDS["shim"] = shim


def chip(arch: str = "sm_90") -> Any:
    """The backend for a chip that is not here."""
    return pipeline.backend_for(f"cuda:{arch}")


__all__ = ["CHIPS", "DEVICES", "MISSING", "ShimBackend", "check_resources", "chip", "install"]
