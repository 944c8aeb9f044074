"""Programs for a GPU that is not here: compiled to kernels, checked, run as CUDA text on the CPU, and by NVRTC for real chips.

    program = Program(f, x, y)              all kernels verified
    program.interpret(x, y)                 by the interpreter of Kernels
    program.run(x, y, order="descending")   the CUDA text, on the threads of ``cuda_shim`` in this order
    program.resources("sm_80")              registers, spills, local memory, as ptxas tells them
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cuda_shim import ShimDevice, table

import xlc
from xlc import pipeline
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.backend import CudaBackend, numerics, prelude
from xlc.backends.cuda.module import emit_module, evaluate, places
from xlc.ir.interp import interpret_plan, sizes_from
from xlc.ir.machine import Machine
from xlc.ir.verify import verify_kernel, verify_plan


class Nowhere:
    """A device that compiles nothing."""

    name, arch, compiler, captures = "nowhere", "sm_80", "none", False
    machine = Machine(vector_bits=128, cores=132, threads=256, panels=False, stacked=False)

    def compile(self, text: str, graph: bool = False) -> bytes:
        return b""


pipeline.BACKENDS.setdefault("nowhere", lambda device: CudaBackend(Nowhere()))


class Program:
    def __init__(self, f: Callable[..., Any], *args: Any, **options: Any):
        self.plan = xlc.jit(f, device="nowhere", **options).compile(*args).plan
        verify_plan(self.plan)
        self.unproven = [u for k in self.plan.kernels for u in verify_kernel(k)]
        self.module = emit_module(self.plan)

    @property
    def kernels(self) -> Any:
        return self.plan.kernels

    @property
    def text(self) -> str:
        return self.module.text

    def interpret(self, *arrays: np.ndarray) -> np.ndarray:
        return interpret_plan(self.plan, arrays)[0]

    def run(self, *arrays: np.ndarray, order: str = "ascending", seed: int = 0) -> np.ndarray:
        device = ShimDevice(order=order, seed=seed)
        plan, module = self.plan, device.load(numerics() + self.text)
        params = sorted((s for s in plan.slots if s.place == "param"), key=lambda s: evaluate(s.at, {}))
        results = sorted((s for s in plan.slots if s.place == "result"), key=lambda s: evaluate(s.at, {}))
        sizes = sizes_from([s.type for s in params], arrays)
        given = [device.asarray(a) for a in arrays]
        out = [device.empty(tuple(n if isinstance(n, int) else n.evaluate(sizes) for n in s.type.shape), s.type.dtype.numpy) for s in results]
        constants = [device.asarray(c.value) for c in plan.constants]
        arena = device.workspace(plan.arena if isinstance(plan.arena, int) else plan.arena.evaluate(sizes))
        counter, at = device.asarray(np.zeros(4, np.uint32)), places(plan)
        addresses = [*map(device.address, (*given, *out, *constants)), arena.address, device.address(counter)]
        assert len(addresses) == at["length"]
        for e in self.module.entries:
            count = evaluate(e.blocks, sizes)
            if count:
                device.launch(module.function(e.name), count, e.shared, table(addresses, [sizes[n] for n in plan.sizes]), e.cooperative)
        return device.numpy(out[0])

    def resources(self, arch: str) -> dict[str, nvrtc.Resources]:
        return nvrtc.compile(prelude() + numerics() + self.text, arch).resources
