"""CUDA C++ -> machine code of a chip, by NVIDIA's runtime compiler. No GPU, driver or toolkit is needed.

    done = nvrtc.compile(text, "sm_90")       # text is a whole module, without #include
    done.cubin                                # bytes, as the driver loads them
    done.resources["l0"]                      # Resources(registers=32, shared=1024, stack=0, spill_stores=0, spill_loads=0)
    done.ptx                                  # text, made when it is looked at

    nvrtc.version()      (13, 5)              for keys of caches
    nvrtc.supported()    ("sm_75", "sm_80", ..., "sm_121")

The library is called through ctypes, which lets go of the GIL, and NVRTC may compile on several threads at once.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlc.errors import XlcError, XlcImportError, XlcValueError

OPTIONS = ("--std=c++17", "--fmad=false", "-default-device", "--ptxas-options=-v", "-diag-suppress=177")
"""Products and sums are not contracted, as on the CPU; a function without a qualifier runs on the device; the log tells resources, and does
not name the functions of a prelude that a module does not need (177)."""
OLDEST = 75
"""The lowest compute capability of all: Turing, which is also the first that CUDA 13 knows."""
FILE = "xlc.cu"
"""The name that messages give to the text."""
_SHOWN = 5  # errors whose source lines are shown
_AROUND = 2  # lines shown before and after each


@dataclass(frozen=True)
class Resources:
    """What one function takes: registers per thread (0 for a function that is called and not launched, which has its caller's), bytes of
    static shared memory per block, bytes of local memory per thread (``stack``), and bytes of registers spilled there."""

    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0

    @property
    def local(self) -> bool:
        """Does it use local memory, which is device memory: an array that is indexed at run time, or spilled registers?"""
        return bool(self.stack or self.spill_stores or self.spill_loads)


@dataclass(frozen=True)
class Compiled:
    """A compiled module. ``log`` holds NVRTC's warnings and what the assembler says of each function."""

    text: str
    arch: str
    options: tuple[str, ...]
    cubin: bytes
    log: str

    @functools.cached_property
    def resources(self) -> dict[str, Resources]:
        """Per function that was not inlined."""
        return resources(self.log)

    @functools.cached_property
    def ptx(self) -> str:
        """The virtual assembly."""
        return _run(self.text, (f"-arch={self.arch.replace('sm_', 'compute_')}", *self.options), "PTX")[0].rstrip(b"\0").decode()


def compile(text: str, arch: str, options: tuple[str, ...] = ()) -> Compiled:  # noqa: A001 the verb of this module
    """Compile a module for a chip such as ``"sm_80"``, or ``"sm_90a"`` with the instructions that only this chip has.

    ``options`` come after ``OPTIONS``. XlcImportError without NVRTC; XlcValueError for a chip that it does not know; XlcError, with the
    source lines, for text that it rejects.
    """
    if not re.fullmatch(r"sm_\d+[af]?", arch) or arch.rstrip("af") not in supported():
        numbers = ".".join(map(str, version()))
        raise XlcValueError(f"{arch!r} is no chip that xlc compiles for with NVRTC {numbers}; there are {', '.join(supported())}")
    options = (*OPTIONS, *options)
    cubin, log = _run(text, (f"-arch={arch}", *options), "CUBIN")
    return Compiled(text, arch, options, cubin, log)


@functools.cache
def version() -> tuple[int, int]:
    """Of the library."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


@functools.cache
def supported() -> tuple[str, ...]:
    """The chips that it knows and that xlc makes code for, oldest first."""
    count = ctypes.c_int()
    _check(_library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(_library().nvrtcGetSupportedArchs(found))
    return tuple(f"sm_{number}" for number in found if number >= OLDEST)


def available() -> bool:
    """Is there a library?"""
    try:
        _library()
    except XlcImportError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ one program

def _run(text: str, options: tuple[str, ...], wanted: str) -> tuple[bytes, str]:
    """(the result of that kind, the log)."""
    library, program = _library(), ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), FILE.encode(), 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), given)
        log = _read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
        if status:
            raise XlcError(f"NVRTC rejects the CUDA text ({_name(status)}, options {' '.join(options)}):\n{explain(log, text)}")
        return _read(program, wanted), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, data))
    return data.raw


def explain(log: str, text: str) -> str:
    """The log, followed by the numbered lines of the source around each of its errors."""
    lines = text.split("\n")
    at = [int(k) for k in re.findall(rf"^{re.escape(FILE)}\((\d+)\): (?:catastrophic )?error", log, re.MULTILINE)]
    parts = [log]
    for number in list(dict.fromkeys(at))[:_SHOWN]:
        around = range(max(number - _AROUND, 1), min(number + _AROUND, len(lines)) + 1)
        parts.append("\n".join(f"{'>' if k == number else ' '}{k:6}  {lines[k - 1]}" for k in around))
    return "\n\n".join(parts)


_ENTRY = re.compile(r"Compiling entry function '([^']+)'")
_FUNCTION = re.compile(r"Function properties for (\S+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_BYTES = re.compile(r"(\d+) bytes (smem|cumulative stack size)")


def resources(log: str) -> dict[str, Resources]:
    """What ``ptxas -v`` prints, which is the same in CUDA 12 and 13:

        ptxas info    : Compiling entry function 'l0' for 'sm_90'
        ptxas info    : Function properties for l0
        ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
        ptxas info    : Used 75 registers, used 1 barriers, 1200 bytes smem
    """
    found: dict[str, Resources] = {}
    entry = function = ""
    for line in log.split("\n"):
        if match := _ENTRY.search(line):
            entry = match[1]
        elif match := _FUNCTION.search(line):
            function = match[1]
        elif match := _STACK.search(line):
            found[function] = Resources(0, 0, *map(int, match.groups()))
        elif match := _USED.search(line):
            size = {kind: int(bytes_) for bytes_, kind in _BYTES.findall(line)}
            own = found.get(entry, Resources())
            found[entry] = Resources(int(match[1]), size.get("smem", 0), max(own.stack, size.get("cumulative stack size", 0)),
                                     own.spill_stores, own.spill_loads)
    return found


# ------------------------------------------------------------------------------------------------ the library

def _name(status: int) -> str:
    return str(_library().nvrtcGetErrorString(status).decode())


def _check(status: int) -> None:
    if status:
        raise XlcError(f"NVRTC failed: {_name(status)}")


@functools.cache
def _library() -> Any:
    """The first library that loads, with the types of its functions."""
    tried = []
    for place in places():
        try:
            for builtins in _below(Path(place).parent, "libnvrtc-builtins.so.*") if os.path.isabs(place) else ():
                ctypes.CDLL(builtins)  # NVRTC opens it by its name alone, and that of CUDA 13.0 does not look beside itself
            library = ctypes.CDLL(place)
        except OSError as error:
            tried.append(f"{place}: {error}")
            continue
        for name, types in _TYPES.items():
            getattr(library, name).argtypes = types
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise XlcImportError("compiling for a GPU needs NVRTC, which was not found: pip install nvidia-cuda-nvrtc"
                         + "".join(f"\n  {line}" for line in tried))


_PROGRAM, _OUT = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
_TYPES: dict[str, list[Any]] = {
    "nvrtcVersion": [ctypes.POINTER(ctypes.c_int)] * 2,
    "nvrtcGetNumSupportedArchs": [ctypes.POINTER(ctypes.c_int)],
    "nvrtcGetSupportedArchs": [ctypes.POINTER(ctypes.c_int)],
    "nvrtcGetErrorString": [ctypes.c_int],
    "nvrtcCreateProgram": [ctypes.POINTER(_PROGRAM), ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p],
    "nvrtcCompileProgram": [_PROGRAM, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    "nvrtcDestroyProgram": [ctypes.POINTER(_PROGRAM)],
    **{f"nvrtcGet{what}Size": [_PROGRAM, _OUT] for what in ("CUBIN", "PTX", "ProgramLog")},
    **{f"nvrtcGet{what}": [_PROGRAM, ctypes.c_char_p] for what in ("CUBIN", "PTX", "ProgramLog")},
}


def places() -> Iterator[str]:
    """Where the library may lie, most wanted first: NVIDIA's wheel, what CuPy's finder names, a toolkit, the system's own search."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations if found else None) or ():
        yield from _below(Path(folder), "*/lib/libnvrtc.so.*", "*/bin/nvrtc64_*.dll", "*/bin/*/nvrtc64_*.dll")
    yield from _cupy()
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if toolkit := os.environ.get(variable):
            yield from _below(Path(toolkit), "lib64/libnvrtc.so*", "lib/libnvrtc.so*", "targets/*/lib/libnvrtc.so*", "bin/nvrtc64_*.dll")
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def _below(folder: Path, *patterns: str) -> Iterator[str]:
    """The files below the folder, the highest version first."""
    def number(path: Path) -> list[int]:
        return [int(k) for k in re.findall(r"\d+", path.name)]

    yield from map(str, sorted((p for pattern in patterns for p in folder.glob(pattern) if ".alt" not in p.name), key=number, reverse=True))


def _cupy() -> Iterator[str]:
    """CuPy 14 finds NVIDIA's libraries through the package ``cuda-pathfinder``."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        return
    try:
        place = load_nvidia_dynamic_lib("nvrtc").abs_path
    except RuntimeError:  # DynamicLibNotFoundError, which is one
        return
    if place:
        yield str(place)


__all__ = ["FILE", "OLDEST", "OPTIONS", "Compiled", "Resources", "available", "compile", "explain", "places", "resources", "supported",
           "version"]
