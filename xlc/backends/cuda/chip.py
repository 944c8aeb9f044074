"""What a GPU has of everything: read from the device, or from a table when code is made for a chip that is not here.

    chip("sm_90")      Chip(arch="sm_90", name="H100, H200", sms=132, shared_block=232448, ...)

Sizes per SM and per block follow from the compute capability (CUDA C++ Programming Guide, "Technical Specifications per Compute
Capability"); the number of SMs and the level-2 cache are those of the product that is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xlc.errors import XlcValueError

K, M = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Chip:
    """The limits of one chip: ``shared_block`` is the most dynamic shared memory that a block may ask for (opt-in), ``shared_sm`` what the
    blocks of a streaming multiprocessor share; ``registers`` (of 32 bits) and ``threads`` are per multiprocessor. Sizes in bytes."""

    arch: str
    name: str
    sms: int
    shared_block: int
    shared_sm: int
    threads: int
    l2: int
    registers: int = 65536

    @property
    def capability(self) -> int:
        """90 of sm_90."""
        return int(self.arch.removeprefix("sm_").rstrip("af"))

    @property
    def target(self) -> str:
        """The name under which NVRTC compiles for it: that which offers what only this chip has, where schedules use it (``wgmma``)."""
        return "sm_90a" if self.capability == 90 else f"sm_{self.capability}"


CHIPS = {chip.arch: chip for chip in (
    Chip("sm_75", "T4", 40, 64 * K, 64 * K, 1024, 4 * M),
    Chip("sm_80", "A100", 108, 163 * K, 164 * K, 2048, 40 * M),
    Chip("sm_86", "A10, RTX 3090", 72, 99 * K, 100 * K, 1536, 6 * M),
    Chip("sm_87", "Jetson Orin", 16, 163 * K, 164 * K, 1536, 4 * M),
    Chip("sm_89", "L4, L40, RTX 4090", 58, 99 * K, 100 * K, 1536, 48 * M),
    Chip("sm_90", "H100, H200", 132, 227 * K, 228 * K, 2048, 50 * M),
    Chip("sm_100", "B200", 148, 227 * K, 228 * K, 2048, 126 * M),
    Chip("sm_103", "B300", 148, 227 * K, 228 * K, 2048, 126 * M),
    Chip("sm_110", "Jetson Thor", 20, 227 * K, 228 * K, 1536, 32 * M),
    Chip("sm_120", "RTX 5090", 170, 99 * K, 100 * K, 1536, 96 * M),
    Chip("sm_121", "GB10", 48, 99 * K, 100 * K, 1536, 24 * M),
)}


def chip(arch: str) -> Chip:
    """The chip of that name; "sm_90a" is sm_90. One that is not in the table counts as the smallest of its generation (sm_88 as sm_86).
    XlcValueError where no generation is known."""
    name = arch.rstrip("af")
    if name in CHIPS:
        return CHIPS[name]
    family = [c for c in CHIPS.values() if c.arch[:-1] == name[:-1]]
    if not family:
        raise XlcValueError(f"the limits of {arch!r} are not known; xlc compiles from afar for {', '.join(CHIPS)}")
    return replace(min(family, key=lambda c: c.shared_block), arch=name)


__all__ = ["CHIPS", "Chip", "chip"]
