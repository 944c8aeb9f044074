"""The text of an ``Mma`` of four warps: ``wgmma``, which reads operands in shared memory by itself and adds to registers in the background.

    mma acc[t], sa[at] steps 64 1 8192, sb[at] steps 1 64 4096, shape 64 256 64 products 1 group 128
 -> const unsigned long long operand_a = xlc_wgmma_operand(sa + at, 16, 1024), operand_b = xlc_wgmma_operand(sb + at, 8192, 1024);
    xlc_wgmma_fence();
    for (int k = 0; k < 64; k += 16)
      xlc_wgmma_m64n256k16_bf16<0, 1>(acc + 0, operand_a + (k / 64 * 1024 + k % 64 / 8), operand_b + k * 8);
    xlc_wgmma_commit();

One instruction is of 64 rows, up to 256 columns and 16 contracted elements. An operand is a descriptor: where it begins and how far its
groups of eight rows and its panels are apart. What lies further on is reached by adding to the beginning, in units of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlc.ir.loops import Mma

from .tensor_cores import UNROLL

COLUMNS = (256, 128, 64, 32, 16)  # of one instruction
UNIT = 8  # elements in 16 bytes


def warpgroup_lines(s: Mma, acc: str, a: str, b: str) -> Iterator[str]:
    """Statements that begin to add to the registers ``acc`` the product of tiles that begin at the addresses ``a`` (or lie in the registers
    ``a``) and ``b``."""
    rows, columns, depth = s.shape
    high, inside = rows // 64, s.a.space == "register"
    if inside:
        yield from _fragments(a, high, depth)
    else:
        yield f"const unsigned long long operand_a = {_operand(a, s.a_steps)};"
    yield f"const unsigned long long operand_b = {_operand(b, s.b_steps)};"
    flags = ", ".join(str(int(steps[0] == 1)) for steps in ((s.b_steps,) if inside else (s.a_steps, s.b_steps)))
    yield f"xlc_wgmma_settle({acc});"
    yield "xlc_wgmma_fence();"
    for i in range(high):
        for first, n in _pieces(columns):
            left = f"fragment_a[{i}][k / 16]" if inside else f"operand_a + {_further(i * 64, s.a_steps)}"
            yield UNROLL
            yield (f"for (int k = 0; k < {depth}; k += 16) xlc_wgmma_m64n{n}k16_{s.b.dtype.name}<{flags}>"
                   f"({acc} + {(i * columns + first) // 2}, {left}, operand_b + {_further(first, s.b_steps)});")
    yield "xlc_wgmma_commit();"


def _fragments(a: str, high: int, depth: int) -> Iterator[str]:
    """Neighbouring elements, two in a register: those of an operand are where those of a result are."""
    yield f"unsigned fragment_a[{high}][{depth // 16}][4];"
    for head in (f"int i = 0; i < {high}; ++i", f"int k = 0; k < {depth // 16}; ++k", "int e = 0; e < 4; ++e"):
        yield UNROLL
        yield f"for ({head})"
    at = f"((i * {depth // 16} + k) * 4 + e) * 2"
    yield f"fragment_a[i][k][e] = {a}[{at}] | (unsigned){a}[{at} + 1] << 16;"


def _operand(address: str, steps: tuple[int, ...]) -> str:
    """Of rows whose contracted elements are neighbours there is one panel; the hardware takes the distance to the next for 16 bytes."""
    return f"xlc_wgmma_operand({address}, {steps[2] * 2 if steps[0] == 1 else 16}, 1024)"


def _further(row: int, steps: tuple[int, ...]) -> str:
    """How far from the beginning row ``row`` and contracted element ``k`` are, in units."""
    if steps[0] == 1:
        return f"(k * {64 // UNIT} + {row // 64 * steps[2] // UNIT})"
    return f"(k / 64 * {steps[2] // UNIT} + k % 64 / {UNIT} + {row * 64 // UNIT})"


def _pieces(columns: int) -> Iterator[tuple[int, int]]:
    """(first column, columns) of instructions that together have so many."""
    first = 0
    while first < columns:
        n = next(n for n in COLUMNS if n <= columns - first)
        yield first, n
        first += n


__all__ = ["warpgroup_lines"]
