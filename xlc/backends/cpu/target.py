"""The processor that code is made for.

    host()                       this machine, as LLVM and sysfs describe it
    named("cortex-a72")          another one, by LLVM's name; the triple follows from the name, or is given

A ``Target`` is plain data: it is part of every cache key, and schedules read their limits from it.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from xlc.errors import XlcValueError


@dataclass(frozen=True)
class Target:
    """``features`` is LLVM's list; ``vector_bits`` the width of a register used for arithmetic, ``registers`` their number;
    caches in bytes, per core but for ``l3``."""

    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 16 << 20
    cores: int = 1

    @property
    def arch(self) -> str:
        return self.triple.partition("-")[0]

    def lanes(self, bits: int) -> int:
        """Elements of that many bits in one register."""
        return max(self.vector_bits // bits, 2)

    @property
    def key(self) -> str:
        """Identifies the code that is generated: everything but the core count."""
        return f"{self.triple} {self.cpu} {self.features} {self.vector_bits} {self.registers} {self.l1} {self.l2} {self.l3}"


@lru_cache(1)
def host() -> Target:
    """This machine."""
    from .llvm import binding

    llvm = binding()
    available = llvm.get_host_cpu_features()
    bits, registers, extra = _registers(llvm.get_default_triple(), {k for k, v in available.items() if v})
    caches = _host_caches()
    return Target(llvm.get_default_triple(), llvm.get_host_cpu_name(), ",".join([available.flatten(), *extra]), bits, registers,
                  caches.get((1, "Data"), 32 << 10), caches.get((2, "Unified"), 1 << 20), caches.get((3, "Unified"), 16 << 20),
                  len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


# What a named processor has, by the prefix of its name. AVX-512 processors that LLVM would rather run with 256 bits are told otherwise.
_AVX512 = ("x86-64-v4", "skylake-avx512", "cascadelake", "icelake", "tigerlake", "rocketlake", "sapphirerapids", "emeraldrapids",
           "graniterapids", "znver4", "znver5")
_AVX2 = ("x86-64-v3", "haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "alderlake", "raptorlake", "meteorlake")
_ARM = ("cortex-a", "cortex-x", "neoverse", "apple-", "ampere", "thunderx", "generic", "a64fx", "oryon")


def named(cpu: str, triple: str | None = None, features: str = "") -> Target:
    """A processor by LLVM's name (``x86-64-v3``, ``znver5``, ``cortex-a72``, ``apple-m1``, ``generic``: aarch64)."""
    if triple is None:
        system = "apple-darwin" if cpu.startswith("apple-") else "unknown-linux-gnu"
        if cpu.startswith((*_AVX512, *_AVX2)):
            triple = f"x86_64-{system}"
        elif cpu.startswith(_ARM):
            triple = f"aarch64-{system}"
        else:
            raise XlcValueError(f"the processor {cpu!r} is not known; xlc makes code for {', '.join((*_AVX512, *_AVX2))}, and for aarch64 "
                                f"{', '.join(_ARM)}...; give the triple for others, as in named({cpu!r}, 'aarch64-unknown-linux-gnu')")
    have = {"avx512f", "avx2", "fma", "f16c"} if cpu.startswith(_AVX512) else {"avx2", "fma", "f16c"} if cpu.startswith(_AVX2) else set()
    have |= {f[1:] for f in features.split(",") if f.startswith("+")}
    bits, registers, extra = _registers(triple, have)
    caches = (48 << 10, 2 << 20, 32 << 20) if bits == 512 else (32 << 10, 1 << 20, 16 << 20)
    return Target(triple, cpu, ",".join(f for f in (features, *extra) if f), bits, registers, *caches)


def _registers(triple: str, have: set[str]) -> tuple[int, int, list[str]]:
    """(vector bits, vector registers, features to add). Errors for what cannot run without a C library."""
    arch = triple.partition("-")[0]
    if arch in ("x86_64", "amd64"):
        if "avx512f" in have:
            return 512, 32, ["-prefer-256-bit"]
        if {"avx2", "fma", "f16c"} <= have:
            return 256, 16, []
        raise XlcValueError(f"the target {triple} lacks AVX2, FMA or F16C, which generated code needs; use cpu='x86-64-v3' or a later one")
    if arch in ("aarch64", "arm64"):
        return 128, 32, []
    raise XlcValueError(f"the architecture {arch} is not supported by the CPU backend; xlc makes code for x86_64 and aarch64")


def _host_caches() -> dict[tuple[int, str], int]:
    """(level, kind) -> bytes, from sysfs; empty elsewhere than on Linux. A last level that many cores share counts by the core's
    part of it."""
    found: dict[tuple[int, str], int] = {}
    if platform.system() == "Linux":
        for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
            try:
                level, kind, text = (index.joinpath(f).read_text().strip() for f in ("level", "type", "size"))
                found[int(level), kind] = int(text[:-1]) << {"K": 10, "M": 20}[text[-1]]
            except (OSError, ValueError, KeyError):
                continue
    return found
