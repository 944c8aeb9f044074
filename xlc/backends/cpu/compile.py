"""LLVM text -> object file -> code in memory.

    object_bytes = compile_text(text, target)         # a relocatable object, as the linker or the loader takes it
    code = load([object_bytes], ["main", "main_workspace"])
    code.address("main")                              # valid while ``code`` lives

The text needs little: common and invariant expressions are already gone, vectors are written out. So the pass list is short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from xlc.errors import XlcError

from . import llvm
from .target import Target, host

PASSES = ("sroa",)
"""Register buffers into registers. More passes were measured to gain nothing; ``instruction_combine`` spoils minimum on AVX-512."""


class _Workshop(threading.local):
    """What one thread compiles with. LLVM's contexts and target machines serve one thread at a time."""

    def __init__(self) -> None:
        self.machines: dict[str, Any] = {}

    def machine(self, target: Target) -> Any:
        found = self.machines.get(target.key)
        if found is None:
            binding = llvm.binding() if target.triple == host().triple else llvm.all_targets()
            found = self.machines[target.key] = binding.Target.from_triple(target.triple).create_target_machine(
                cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="default")
        return found


_workshop = _Workshop()


def optimised(text: str, target: Target) -> tuple[Any, Any]:
    """(module, target machine) after the passes."""
    binding = llvm.binding()
    machine = _workshop.machine(target)
    try:
        module = binding.parse_assembly(text, binding.create_context())
    except RuntimeError as error:
        raise XlcError(f"the CPU backend wrote LLVM text that LLVM rejects: {error}") from error
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(machine, options)
    passes = binding.create_new_function_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module, machine


def compile_text(text: str, target: Target) -> bytes:
    """The object file of a module."""
    return _generate(*optimised(text, target), True)


def assembly(text: str, target: Target) -> str:
    """The assembly of a module."""
    return _generate(*optimised(text, target), False).decode()


def _generate(module: Any, machine: Any, as_object: bool) -> bytes:
    """Run the code generator. As ``machine.emit_object``, but without llvmlite's process-wide lock, which would keep threads from
    compiling at once (nearly all of the time goes here; module, context and machine are this thread's own)."""
    import ctypes

    from llvmlite.binding import ffi

    def unlocked(name: str) -> Callable[..., Any]:
        function = getattr(ffi.lib, name)
        return getattr(function, "_cfn", function)

    with ffi.OutputString() as message:
        memory = unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, int(as_object), message)
        if not memory:
            raise XlcError(f"LLVM could not generate code: {message}")
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(memory), ffi.lib.LLVMPY_GetBufferSize(memory))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)


class Code:
    """Loaded code. It stays valid while this object lives."""

    def __init__(self, engine: Any, addresses: dict[str, int]):
        self._engine, self._addresses = engine, addresses

    def address(self, name: str) -> int:
        return self._addresses[name]


_load_lock = threading.Lock()
_context: Any = None  # of the empty modules: it lives on, for the collector might free one of their own before the engine that needs it


def load(objects: Sequence[bytes], names: Sequence[str]) -> Code:
    """Object files (for this machine) linked together in memory; ``names`` are the functions whose addresses are wanted."""
    global _context
    binding = llvm.binding()
    with _load_lock:
        _context = _context or binding.create_context()
        empty = binding.parse_assembly("", _context)
        machine = binding.Target.from_triple(host().triple).create_target_machine(opt=0, reloc="pic", codemodel="default", jit=True)
        engine = binding.create_mcjit_compiler(empty, machine)
        for data in objects:
            engine.add_object_file(binding.object_file.ObjectFileRef.from_data(data))
        engine.finalize_object()
        addresses = {name: engine.get_function_address(name) for name in names}
    missing = [name for name, at in addresses.items() if not at]
    if missing:
        raise XlcError(f"the object holds no function named {', '.join(missing)}")
    return Code(engine, addresses)


__all__ = ["PASSES", "Code", "assembly", "compile_text", "load", "optimised"]
