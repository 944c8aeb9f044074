"""The CUDA backend: what the pipeline and an Executable ask of it (as of the CPU's).

    backend("cuda")           the current GPU, through CuPy
    backend("cuda:sm_90")     code for a chip that is not here: it compiles, shows sources, and does not run
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from xlc import config
from xlc.errors import XlcValueError
from xlc.ir.loops import Kernel, size
from xlc.ir.machine import Machine
from xlc.ir.plan import Plan

from . import nvrtc
from .chip import chip
from .emit import THREADS, emit_kernel
from .library import Library
from .module import Module, emit_module, places, tree
from .scalar import SCALARS

FOLDER = Path(__file__).parent
DIRECT = 2
"""Launches up to which a plan is not captured as a graph."""


def prelude() -> str:
    """What stands in front of a module on a GPU."""
    return (FOLDER / "prelude.cuh").read_text("utf-8")


def numerics() -> str:
    return (FOLDER / "numerics.cuh").read_text("utf-8")


@dataclass(frozen=True)
class Gpu(Machine):
    """The chip, as schedules see it. ``shared`` is what a block may have of shared memory, in bytes; ``arch`` is "sm_90"."""

    arch: str = "sm_80"
    shared: int = 99 << 10

    @property
    def wgmma(self) -> bool:
        """Whether four warps multiply together, in the background."""
        return chip(self.arch).target == "sm_90a"

    def rows_of_stages(self, stages: Any, shared: int) -> int | str:
        from xlc.schedule.chain import is_chain

        from .schedule import chain, online

        return (chain if is_chain(stages) else online).block_of_rows(stages, shared, self)


class CudaBackend:
    """Code for one device (see ``device.Device``)."""

    name = "cuda"
    scalar = SCALARS.rules
    stages = ("cuda", "ptx", "cubin")
    graphs = True  # whether plans of several launches are captured

    def __init__(self, device: Any):
        self.device = device

    @cached_property
    def machine(self) -> Gpu:
        c = self.device.chip
        return Gpu(vector_bits=128, registers=255, l1=c.shared_sm, l2=c.l2, l3=c.l2, cores=c.sms, threads=THREADS,
                   panels=False, stacked=False, arch=self.device.arch, shared=c.shared_block)

    @property
    def limits(self) -> Gpu:
        return self.machine

    @cached_property
    def key(self) -> str:
        """What the generated code depends on besides the plan."""
        import hashlib

        text = hashlib.sha256((prelude() + numerics()).encode()).hexdigest()[:16]
        return f"cuda {self.machine} {self.device.chip.target} {self.graphs} {self.compiler} {text}"

    @property
    def compiler(self) -> str:
        return f"nvrtc {nvrtc.version()}"

    def binary(self, text: str, graph: bool) -> bytes:
        """Machine code of a module."""
        return self.compiled(text, graph).cubin

    def compiled(self, text: str, graph: bool = False) -> nvrtc.Compiled:
        """A module as NVRTC compiles it: cubin, PTX, registers and spills."""
        return nvrtc.compile(prelude() + numerics() + text, self.device.chip.target, ("-DXLC_GRAPH",) if graph else ())

    def lowerings(self) -> Any:
        from xlc.schedule.lower import Lowerings

        from .schedule.library import claiming
        from .schedule.lower import SCHEDULES, scratch

        return claiming(Lowerings(self.machine, SCHEDULES, scratch))

    def text(self, plan: Plan, module: Module | None = None) -> str:
        """The module of a plan (``module``, where it is made already). A file ``<plan>.cu`` in the folder of the knob ``override``
        replaces it."""
        if config.override and (file := Path(config.override, f"{plan.name}.cu")).exists():
            return file.read_text("utf-8")
        return (module or emit_module(plan)).text

    def captured(self, module: Module) -> bool:
        """Whether a plan runs as a CUDA graph: it has several launches, and no call of a library, which takes addresses from the host."""
        return self.graphs and len(module.entries) > DIRECT and not any(e.library for e in module.entries)

    def compile(self, plan: Plan) -> bytes:
        module = emit_module(plan)
        text = self.text(plan, module)
        graph = self.captured(module)
        binary = self.binary(text, graph)
        entries = [[e.name, e.blocks, e.shared, e.cooperative, e.slots, e.library] for e in module.entries]
        head = json.dumps({"entries": entries, "places": places(plan),
                           "sizes": list(plan.sizes), "arena": tree(size(plan.arena)), "graph": graph, "text": len(text.encode())}).encode()
        return b"".join([len(head).to_bytes(8, "little"), head, text.encode(), binary])

    def load(self, blob: bytes, name: str) -> Library:
        start = 8 + int.from_bytes(blob[:8], "little")
        head = json.loads(blob[8:start])
        end = start + head["text"]
        return Library(self.device, head, numerics() + blob[start:end].decode(), blob[end:])

    def sources(self, plan: Plan) -> Mapping[str, Mapping[str, Any]]:
        """Per kernel its CUDA text; under "module" the whole text, its PTX and the cubin."""
        return {**{k.name: self.source(k) for k in plan.kernels}, "module": self.module_source(plan)}

    def module_source(self, plan: Plan) -> dict[str, Any]:
        text = self.text(plan)
        done = self.compiled(text)
        return {"cuda": prelude() + numerics() + text, "ptx": done.ptx, "cubin": done.cubin, "resources": done.resources}

    def source(self, kernel: Kernel) -> dict[str, str]:
        return {"cuda": str(emit_kernel(kernel))}


def backend(device: str) -> CudaBackend:
    from . import device as devices

    which = device.partition(":")[2] or str(devices.current().number)
    if not which.isdigit() and not which.startswith("sm_"):
        raise XlcValueError(f"there is no device {device!r}; expected cuda, cuda:NUMBER or cuda:sm_NUMBER")
    return _backend(which)


@cache
def _backend(which: str) -> CudaBackend:
    from . import device as devices

    return CudaBackend(devices.numbered(int(which)) if which.isdigit() else devices.AbsentDevice(which))


__all__ = ["CudaBackend", "backend", "numerics", "prelude"]
