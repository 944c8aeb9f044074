"""Kernels for a GPU that is not here, one program at a time: checked, interpreted, run as CUDA text on the CPU, compiled by NVRTC.

    program = Program(f, x, y)
    program.interpret(x, y)                 by the interpreter of Kernels
    program.run(x, y, order="descending")   the CUDA text, on the threads of ``cuda_shim`` in this order
    program.resources("sm_80")              registers, spills, local memory, as ptxas tells them
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cuda_backend
import numpy as np

import xlc
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.backend import numerics, prelude
from xlc.backends.cuda.module import emit_module
from xlc.ir.interp import interpret_plan
from xlc.ir.loops import Kernel
from xlc.ir.verify import verify_kernel, verify_plan

cuda_backend.install()


class Program:
    def __init__(self, f: Callable[..., Any], *args: Any, **options: Any):
        self.compiled = {o: xlc.jit(f, device=f"shim:{o}", **options) for o in ("ascending", "descending", "random")}
        self.plan = self.compiled["ascending"].compile(*args).plan
        verify_plan(self.plan)
        self.unproven = [u for k in self.plan.kernels for u in verify_kernel(k)]

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(self.plan.kernels)

    @property
    def text(self) -> str:
        return emit_module(self.plan).text

    def interpret(self, *arrays: np.ndarray) -> np.ndarray:
        return interpret_plan(self.plan, arrays)[0]

    def run(self, *arrays: np.ndarray, order: str = "ascending") -> np.ndarray:
        return np.array(self.compiled[order](*arrays), subok=False)

    def resources(self, arch: str) -> dict[str, nvrtc.Resources]:
        return nvrtc.compile(prelude() + numerics() + self.text, arch).resources


def checked(f: Callable[..., Any], *arrays: np.ndarray, interpret: bool = True, chips: tuple[str, ...] = (), **options: Any) -> np.ndarray:
    """The result of a program: the same whatever the order of threads, and what the interpreter says. No chip needs local memory."""
    program = Program(f, *arrays, **options)
    got = program.run(*arrays)
    np.testing.assert_array_equal(program.run(*arrays, order="random"), got)
    if interpret:
        np.testing.assert_array_equal(program.interpret(*arrays), got)
    for arch in () if cuda_backend.ON_GPU else chips:
        for name, used in program.resources(arch).items():
            assert not used.stack and not used.spill_stores, (name, used)
    return got


__all__ = ["Program", "checked"]
