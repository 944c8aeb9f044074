"""The CUDA backend: what the pipeline and an Executable ask of it (as of the CPU's).

    backend("cuda")           the current GPU, through CuPy
    backend("cuda:sm_90")     code for a chip that is not here: it compiles, shows sources, and does not run
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from xlc import config
from xlc.errors import XlcValueError
from xlc.ir.loops import Kernel, size
from xlc.ir.machine import Machine
from xlc.ir.plan import Plan

from .emit import emit_kernel
from .library import Library
from .module import emit_module, places, tree
from .scalar import SCALARS

FOLDER = Path(__file__).parent


def prelude() -> str:
    """What stands in front of a module on a GPU."""
    return (FOLDER / "prelude.cuh").read_text("utf-8")


def numerics() -> str:
    return (FOLDER / "numerics.cuh").read_text("utf-8")


class CudaBackend:
    """Code for one device (see ``device.Device``)."""

    name = "cuda"
    scalar = SCALARS.rules
    stages = ("cuda", "ptx", "cubin")

    def __init__(self, device: Any):
        self.device = device

    @property
    def machine(self) -> Machine:
        return self.device.machine

    limits = machine

    @cached_property
    def key(self) -> str:
        """What the generated code depends on besides the plan."""
        import hashlib

        text = hashlib.sha256((prelude() + numerics()).encode()).hexdigest()[:16]
        return f"cuda {self.device.arch} {self.device.compiler} {text}"

    def lowerings(self) -> Any:
        from xlc.schedule.lower import Lowerings

        from .schedule.lower import SCHEDULES, scratch

        return Lowerings(self.machine, SCHEDULES, scratch)

    def text(self, plan: Plan) -> str:
        """The module of a plan. A file ``<plan>.cu`` in the folder of the knob ``override`` replaces it."""
        if config.override and (file := Path(config.override, f"{plan.name}.cu")).exists():
            return file.read_text("utf-8")
        return emit_module(plan).text

    def compile(self, plan: Plan) -> bytes:
        module, text = emit_module(plan), self.text(plan)
        graph = len(module.entries) > 2 and self.device.captures
        binary = self.device.compile(numerics() + text, graph)
        head = json.dumps({"entries": [[e.name, e.blocks, e.shared, e.cooperative] for e in module.entries], "places": places(plan),
                           "sizes": list(plan.sizes), "arena": tree(size(plan.arena)), "graph": graph, "text": len(text.encode())}).encode()
        return b"".join([len(head).to_bytes(8, "little"), head, text.encode(), binary])

    def load(self, blob: bytes, name: str) -> Library:
        start = 8 + int.from_bytes(blob[:8], "little")
        head = json.loads(blob[8:start])
        end = start + head["text"]
        return Library(self.device, head, numerics() + blob[start:end].decode(), blob[end:])

    def sources(self, plan: Plan) -> Mapping[str, Mapping[str, Any]]:
        """Per kernel its CUDA text; under "module" the whole text, its PTX and the cubin."""
        return {**{k.name: self.source(k) for k in plan.kernels}, "module": self.device.sources(numerics() + self.text(plan))}

    def source(self, kernel: Kernel) -> dict[str, str]:
        return {"cuda": str(emit_kernel(kernel))}




def backend(device: str) -> CudaBackend:
    from .device import device_named

    _, _, which = device.partition(":")
    if which and not which.isdigit() and not which.startswith("sm_"):
        raise XlcValueError(f"there is no device {device!r}; expected cuda, cuda:NUMBER or cuda:sm_NUMBER")
    return CudaBackend(device_named(which))


__all__ = ["CudaBackend", "backend", "numerics", "prelude"]
