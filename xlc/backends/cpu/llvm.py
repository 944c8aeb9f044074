"""llvmlite, imported and initialised at first use (importing xlc must stay quick)."""

from __future__ import annotations

import threading
from types import ModuleType

_lock = threading.Lock()
_binding: ModuleType | None = None


def binding() -> ModuleType:
    """``llvmlite.binding``, with the host's code generator ready."""
    global _binding
    if _binding is None:
        with _lock:
            import llvmlite.binding as llvm

            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            _binding = llvm
    return _binding


def all_targets() -> ModuleType:
    """``llvmlite.binding`` with every code generator that the wheel carries."""
    llvm = binding()
    with _lock:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return llvm


def version() -> str:
    """What identifies the generated code: llvmlite's and LLVM's versions."""
    import llvmlite

    return f"llvmlite {llvmlite.__version__}"
