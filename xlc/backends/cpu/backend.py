"""The CPU backend: what the pipeline and an Executable ask of it.

    BACKEND.machine                    the processor, for schedules
    BACKEND.lowerings()(group) -> Step     loop nests
    BACKEND.compile(plan) -> bytes     one blob of object files
    BACKEND.load(blob, name)           code in memory: .entry, .workspace are addresses
    BACKEND.sources(plan)              {kernel: {"llvm": text, "s": assembly}}
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xlc import config
from xlc.ir.loops import Kernel
from xlc.ir.machine import Machine
from xlc.ir.plan import Plan

from . import llvm
from .compile import PASSES, Code, assembly, compile_text, load
from .emit import emit_kernel
from .entry import emit_plan, symbol
from .scalar import SCALAR
from .target import Target, host, named

SPLIT = 8
"""Kernels from which a plan is compiled as several modules, on several cores."""


@dataclass(frozen=True)
class Library:
    """A loaded plan: addresses of its functions, valid while this object lives."""

    code: Code
    entry: int
    workspace: int


class CpuBackend:
    """Code for one processor; ``target`` is None for the one that is running (or the knob ``target_cpu``)."""

    name = "cpu"
    scalar = SCALAR
    stages = ("llvm", "s", "object")

    def __init__(self, target: Target | None = None):
        self._target = target

    @property
    def target(self) -> Target:
        if self._target is not None:
            return self._target
        return named(config.target_cpu, host().triple) if config.target_cpu else host()

    @property
    def machine(self) -> Machine:
        t = self.target
        return Machine(t.vector_bits, t.registers, t.l1, t.l2, t.l3, t.cores)

    limits = machine

    @property
    def key(self) -> str:
        """What the generated code depends on besides the plan."""
        return f"cpu {self.target.key} {llvm.version()} {','.join(PASSES)}"

    def lowerings(self) -> Any:
        """What makes the kernels of the groups of one program."""
        from xlc.schedule.lower import Lowerings

        return Lowerings(self.machine)

    def texts(self, plan: Plan) -> list[str]:
        """The plan's modules, as LLVM text; the first holds the entry function. Files ``<plan>.ll``, ``<plan>.1.ll``, ... in the folder
        of the knob ``override`` replace them."""
        texts = emit_plan(plan, self.target, 1 if len(plan.kernels) <= SPLIT else max(self.threads, 1))
        if config.override:
            files = [Path(config.override, f"{symbol(plan.name)}{f'.{k}' if k else ''}.ll") for k in range(len(texts))]
            texts = [file.read_text() if file.exists() else text for file, text in zip(files, texts, strict=True)]
        return texts

    @property
    def threads(self) -> int:
        return config.compile_threads or host().cores

    def objects(self, plan: Plan) -> list[bytes]:
        """The plan's object files."""
        texts, target = self.texts(plan), self.target
        if len(texts) == 1:
            return [compile_text(texts[0], target)]
        return list(self._workers.map(lambda text: compile_text(text, target), texts))

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "xlc-compile")

    def compile(self, plan: Plan) -> bytes:
        return pack(self.objects(plan))

    def load(self, blob: bytes, name: str) -> Library:
        entry = symbol(name)
        code = load(unpack(blob), [entry, f"{entry}_workspace"])
        return Library(code, code.address(entry), code.address(f"{entry}_workspace"))

    def sources(self, plan: Plan) -> Mapping[str, Mapping[str, str]]:
        """Per kernel its LLVM text and its assembly."""
        return {k.name: self.source(k) for k in plan.kernels}

    def source(self, kernel: Kernel) -> dict[str, str]:
        text = str(emit_kernel(kernel, self.target))
        return {"llvm": text, "s": assembly(text, self.target)}


def pack(objects: list[bytes]) -> bytes:
    """Several object files as one blob: a count, the lengths, the bytes."""
    return b"".join([len(objects).to_bytes(8, "little"), *(len(o).to_bytes(8, "little") for o in objects), *objects])


def unpack(blob: bytes) -> list[bytes]:
    count = int.from_bytes(blob[:8], "little")
    at, out = 8 + 8 * count, []
    for k in range(count):
        length = int.from_bytes(blob[8 + 8 * k:16 + 8 * k], "little")
        out.append(blob[at:at + length])
        at += length
    return out


BACKEND = CpuBackend()
__all__ = ["BACKEND", "CpuBackend", "Library", "pack", "unpack"]
