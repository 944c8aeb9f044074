"""What NVRTC makes of the kernels of plans, for a chip that is not here: registers, shared memory, spills, arrays in local memory.

    resources(backend, plan, ...)            -> [(Unit(text="static __device__ void @k0(...) {...}", ...), Resources(...)), ...]

A unit is what the assembler sees as one function: a kernel, or a loop or branch with the kernels of its bodies. It is compiled once for a
chip, however many programs have it, in this process, another one or an earlier run: what is found is kept in xlc's cache, under the digest
of its text. Those that are new are one module, so that NVRTC starts once.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.backend import CudaBackend
from xlc.backends.cuda.module import Module, emit_module
from xlc.ir.plan import Plan
from xlc.run import cache

BATCH = 64  # units of a module at most: so many are one start of NVRTC, and an error shows few of them


@dataclass(frozen=True)
class Unit:
    """``text``: functions and entries in which ``@`` begins each name that differs from module to module; ``tables``: what it reads;
    ``graph``: whether addresses lie in device memory; ``note``: what it computes."""

    text: str
    tables: tuple[str, ...]
    graph: bool
    note: str = field(compare=False)

    @property
    def digest(self) -> str:
        return cache.digest("\n".join([str(self.graph), *self.tables, self.text]).encode())


def units(module: Module, graph: bool) -> Iterator[Unit]:
    """The units of a module, in the order of its entries."""
    _, *entries = re.split(r"^(?=XLC_(?:SHARED_)?ENTRY\()", module.text, flags=re.MULTILINE)
    kernels = {k.name: k for k in module.kernels}
    for text in dict.fromkeys(entries):
        own = [kernels[name] for name in dict.fromkeys(re.findall(r"\bk\d+(?:_\d+)?(?=\()", text)) if name in kernels]
        functions = [re.sub(r"^(?://.*\n)+", "", k.function) for k in own]
        note = " ".join(line for k in own for line in k.function.splitlines()[:1] if line.startswith("//"))
        tables = tuple(f"static __device__ const {t}" for k in own for t in k.tables.values())
        alone = len(own) == 1 and "\n" not in text.strip()  # a launch
        entry = _entry(functions[0], text, own[0].name) if alone else re.sub(r"\A(XLC_ENTRY\()\w+", r"\1@e", text)
        text = "\n\n".join([*functions, entry])
        for n, k in enumerate(own):
            text = re.sub(rf"\b{k.name}(?=\()", f"@k{n}", text)
        yield Unit(text, tables, graph, note)


def _entry(function: str, entry: str, name: str) -> str:
    """A launch of the function whose buffers and sizes are those at the head of the table; for as many blocks as that entry."""
    enough = re.match(r"XLC_(?:ENTRY\(\w+|SHARED_ENTRY\(\w+, \d+)(, \d+)?\) {", entry)
    parameters = re.search(rf"void {name}\((.*)\) {{", function)
    assert enough and parameters
    own = parameters[1].split(", ")
    pointers, sizes = [p for p in own if "*" in p], [p for p in own if "n_" in p and "*" not in p]
    arguments = [f"({p[:p.index('*') + 1]})XLC_AT({k})" for k, p in enumerate(pointers)]
    arguments += [f"XLC_SIZE({k})" for k in range(len(sizes))]
    assert len(arguments) + 1 == len(own), own
    return f"XLC_ENTRY(@e{enough[1] or ''}) {{ {name}({', '.join([*arguments, 'blockIdx.x'])}); }}"


def resources(backend: CudaBackend, *plans: Plan) -> list[tuple[Unit, nvrtc.Resources]]:
    """What the chip of the backend needs for each unit of the plans."""
    wanted: dict[Unit, None] = {}
    for plan in plans:
        module = emit_module(plan)
        wanted |= dict.fromkeys(units(module, backend.captured(module)))
    known = _known(backend)
    known.read()
    for graph in (False, True):
        new = [u for u in wanted if u.graph == graph and u.digest not in known.found]
        for at in range(0, len(new), BATCH):
            some = new[at:at + BATCH]
            known.add({u.digest: r for u, r in zip(some, _compile(some, backend), strict=True)})
    return [(u, known.found[u.digest]) for u in wanted]


def _compile(some: list[Unit], backend: CudaBackend) -> list[nvrtc.Resources]:
    """For each unit its function that takes most: the entry, or one that it calls."""
    def used(macro: str) -> int:
        return max((int(k) + 1 for u in some for k in re.findall(rf"{macro}\((\d+)\)", u.text)), default=0)

    tables = dict.fromkeys(t for u in some for t in u.tables)
    parts = [u.text.replace("@", f"u{k}_") for k, u in enumerate(some)]
    done = backend.compiled("\n\n".join([f"XLC_TABLE({used('XLC_AT')}, {used('XLC_SIZE')})", *tables, *parts]), some[0].graph)
    assert "(C75" not in done.log, done.log  # the assembler waits for each product of sm_90a, or puts waits of its own between
    return [max((r for name, r in done.resources.items() if f"u{k}_" in name), key=lambda r: (r.stack, r.spill_stores, r.registers))
            for k in range(len(some))]


class _Known:
    """What is known of a chip's units: in a file, where there is a cache, to which all processes append a line for each."""

    def __init__(self, backend: CudaBackend):
        name = cache.digest(f"{backend.key} {backend.device.arch} {nvrtc.OPTIONS}".encode())[:16]
        folder = cache.folder()
        self.file, self.at = folder and folder / f"units-{name}.txt", 0
        self.found: dict[str, nvrtc.Resources] = {}

    def read(self) -> None:
        """What was added since the last time."""
        if self.file is None or not self.file.exists():
            return
        with self.file.open("rb") as file:
            file.seek(self.at)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):
                digest, *numbers = line.decode().split()
                self.found[digest] = nvrtc.Resources(*map(int, numbers))
                self.at += len(line)

    def add(self, found: Mapping[str, nvrtc.Resources]) -> None:
        self.found |= found
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab", buffering=0) as file:  # one write, which no other process tears
                file.write("".join(f"{d} {' '.join(map(str, dataclasses.astuple(r)))}\n" for d, r in found.items()).encode())


_known = functools.cache(_Known)


__all__ = ["Unit", "resources", "units"]
