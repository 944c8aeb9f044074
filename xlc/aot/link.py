"""From an object file to a static archive, or through the system's linker to a shared library; and files that appear whole or not at all.

    archive(code, "mlp.o", ["mlp", ...])     -> bytes of mlp.a (an ELF or COFF archive with its symbol table); needs no tool
    shared(code, target)                     -> bytes of mlp.so; needs cc, or the LLD inside the ziglang wheel
    write(path, data)                        the file is replaced in one step
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..backends.cpu.target import Target, host
from ..errors import XlcError


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, (0o777 if path.suffix == ".so" else 0o666) & ~mask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def archive(code: bytes, member: str, symbols: Sequence[str]) -> bytes:
    """A ``.a`` of one object, in the System V format: a table of symbols for the linker, then the object."""

    def entry(name: str, data: bytes, mode: str) -> bytes:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{mode:<8}{len(data):<10}`\n".encode()
        return head + data + b"\n" * (len(data) % 2)

    names = b"".join(s.encode() + b"\0" for s in symbols)
    long_name = f"{member}/\n".encode() if len(member) > 15 else b""
    table_size = 4 + 4 * len(symbols) + len(names)
    at = 8 + 60 + table_size + table_size % 2 + (60 + len(long_name) + len(long_name) % 2 if long_name else 0)
    table = len(symbols).to_bytes(4, "big") + at.to_bytes(4, "big") * len(symbols) + names
    parts = [b"!<arch>\n", entry("/", table, "0")]
    if long_name:
        parts.append(entry("//", long_name, ""))
    return b"".join([*parts, entry("/0" if long_name else f"{member}/", code, "644")])


def shared(code: bytes, target: Target, name: str) -> bytes:
    """The object as a shared library that needs no other."""
    with tempfile.TemporaryDirectory(prefix="xlc-link-") as folder:
        source, out = Path(folder, f"{name}.o"), Path(folder, f"{name}.so")
        source.write_bytes(code)
        errors = []
        for command in _linkers(target):
            done = subprocess.run([*command, "-o", str(out), str(source)], capture_output=True, text=True, check=False, cwd=folder)
            if done.returncode == 0 and out.exists():
                return out.read_bytes()
            errors.append(f"{' '.join(command)}: {done.stderr.strip()[:500]}")
    if errors:
        raise XlcError("the shared library could not be linked:\n" + "\n".join(errors))
    wanted = "cc, gcc or clang" if target.triple == host().triple else f"a linker for {target.triple}"
    raise XlcError(f"a .so needs a linker, and none was found: install {wanted}, or the ziglang package (pip install ziglang), which "
                   f"brings one; or export "
                   "a .o or .a, which need none")


def _linkers(target: Target) -> list[list[str]]:
    """Commands that link a shared library, the most usual first."""
    options = ["-shared", "-nostdlib", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,--gc-sections", "-s"]
    found = []
    if target.triple == host().triple:
        own = os.environ.get("CC", "").split()
        found = [[*c, *options] for c in ([own] if own else []) + [["cc"], ["gcc"], ["clang"]] if shutil.which(c[0])][:1]
    if importlib.util.find_spec("ziglang") is not None:
        system = "macos" if "apple" in target.triple else "windows" if "windows" in target.triple else "linux"
        arch = target.arch.replace("arm64", "aarch64")
        more = options if system == "linux" else ["-shared", "-nostdlib"]
        found.append([sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-{system}-{'musl' if system == 'linux' else 'none'}",
                      *more])
    return found
