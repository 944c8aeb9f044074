"""The text of ``Mma``: fragments of both operands from shared memory, then one ``mma.sync`` for each 16 x 8 tile.

    mma acc[t], sa[at] steps 40 1, sb[at] steps 1 40, shape 64 32 32 products 1
 -> for (int k = 0; k < 32; k += 16) {
      unsigned fa[4][4], fb[4][2];
      for (int i = 0; i < 4; ++i) xlc_ldmatrix_x4(fa[i], a + i*640 + k);
      for (int j = 0; j < 4; j += 2) xlc_ldmatrix_x4(fb[j], b + j*320 + k);
      for (int i = 0; i < 4; ++i) for (int j = 0; j < 4; ++j) xlc_mma_m16n8k16_bf16(acc + (i*4 + j)*4, fa[i], fb[j]);
    }

Halves come through ``ldmatrix``, transposed where an operand's rows (columns) are neighbours in memory rather than its contracted elements;
f32, which has no such instruction, element by element, rounded to tf32 on the way. A left operand in registers is a fragment as it is: the
pairs of neighbours that a lane has of a sum's columns 16k to 16k+15 are what it has to bring of the contracted elements 16k to 16k+15.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlc.ir.loops import Mma

UNROLL = "#pragma unroll"


def mma_lines(s: Mma, acc: str, a: str, b: str) -> Iterator[str]:
    """Statements that add to the registers ``acc`` the product of tiles that begin at the addresses ``a`` and ``b``."""
    halves = s.a.dtype.bits == 16
    m, n, depth = s.shape
    step, (high, across) = 16 if halves else 8, (m // 16, n // 8)
    element = "unsigned short" if halves else "float"
    held = s.a.space == "register"
    yield f"const {element} *const fragment_b = {b};"
    if not held:
        yield f"const {element} *const fragment_a = {a};"
    yield UNROLL
    yield f"for (int k = 0; k < {depth}; k += {step}) {{"
    yield from _halves(s, high, across, a if held else "") if halves else _tf32(s, high, across)
    yield UNROLL
    yield f"for (int i = 0; i < {high}; ++i)"
    yield UNROLL
    yield f"for (int j = 0; j < {across}; ++j) {{"
    name = f"xlc_mma_m16n8k16_{s.a.dtype.name}" if halves else "xlc_mma_m16n8k8_tf32"
    pairs = [("fa", "fb")] if s.products == 1 else [("ra", "fb"), ("fa", "rb"), ("fa", "fb")]
    yield from (f"{name}({acc} + (i * {across} + j) * 4, {x}[i], {y}[j]);" for x, y in pairs)
    yield "}"
    yield "}"


def _halves(s: Mma, high: int, across: int, held: str) -> Iterator[str]:
    (row, ka), (column, kb) = s.a_steps, s.b_steps
    inside, upper, odd = "t % 8", "t / 16 % 2 * 8", "t / 8 % 2 * 8"  # of the four matrices that lanes address: 8 lanes for each
    lane_a = f"(t % 16) * {row} + {upper}" if ka == 1 else f"({upper} + {inside}) * {ka} + {odd}"
    lane_b = f"({upper} + {inside}) * {column} + {odd}" if kb == 1 else f"({odd} + {inside}) * {kb} + {upper}"
    yield f"unsigned fa[{high}][4], fb[{across}][2];"
    yield UNROLL
    yield f"for (int i = 0; i < {high}; ++i)"
    if held:
        at = f"(i * {s.shape[2] // 8} + k / 8) * 4 + e * 2"
        yield UNROLL
        yield f"for (int e = 0; e < 4; ++e) fa[i][e] = {held}[{at}] | (unsigned){held}[{at} + 1] << 16;"
    else:
        yield f"xlc_ldmatrix_x4{'' if ka == 1 else '_trans'}(fa[i], fragment_a + {lane_a} + i * {16 * row} + k * {ka});"
    yield UNROLL
    yield (f"for (int j = 0; j < {across}; j += 2) "
           f"xlc_ldmatrix_x4{'' if kb == 1 else '_trans'}(fb[j], fragment_b + {lane_b} + j * {8 * column} + k * {kb});")


def _tf32(s: Mma, high: int, across: int) -> Iterator[str]:
    (row, ka), (column, kb) = s.a_steps, s.b_steps
    rest = s.products == 3
    yield f"unsigned fa[{high}][4], fb[{across}][2]{f', ra[{high}][4], rb[{across}][2]' if rest else ''};"
    for x, count, parts, address in (
            ("a", high, 4, f"(t / 4 % 8 + i * 16 + e % 2 * 8) * {row} + (t % 4 + e / 2 * 4 + k) * {ka}"),
            ("b", across, 2, f"(t / 4 % 8 + i * 8) * {column} + (t % 4 + e * 4 + k) * {kb}")):
        yield UNROLL
        yield f"for (int i = 0; i < {count}; ++i)"
        yield UNROLL
        yield f"for (int e = 0; e < {parts}; ++e) {{"
        yield f"const float x = fragment_{x}[{address}];"
        yield f"f{x}[i][e] = xlc_f32_to_tf32(x);"
        if rest:
            yield f"r{x}[i][e] = xlc_f32_to_tf32(x - xlc_bits<float>(f{x}[i][e]));"
        yield "}"


__all__ = ["mma_lines"]
