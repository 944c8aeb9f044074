"""The random generator: Threefry-2x32 with 20 rounds, as an elementwise operator on words of 32 bits.

    threefry2x32(%k0, %k1, %x0, %x1) {word=0}    the first word of the block that the key (k0, k1) makes of the counter (x0, x1)

J. Salmon, M. Moraes, R. Dror, D. Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011). It keeps no state: the random word at a place
depends on the key and the place alone, so that it is computed wherever it is used, and fused like any arithmetic.
"""

from __future__ import annotations

from typing import Any

from xlc.errors import XlcTypeError
from xlc.ir.op import Op, register
from xlc.ir.types import Type, u32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def _block(k0: Any, k1: Any, x0: Any, x1: Any, word: int = 0) -> Any:
    """On Exprs and on arrays of uint32 alike."""
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = x0 + k0, x1 + k1
    for group in range(5):
        for r in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << r) | (x1 >> (32 - r))) ^ x0
        x0, x1 = x0 + keys[(group + 1) % 3], x1 + (keys[(group + 2) % 3] + (group + 1))
    return (x0, x1)[word]


def _array(*arrays: Any, word: int = 0) -> Any:
    import numpy as np

    with np.errstate(over="ignore"):
        k0, k1, x0, x1 = arrays
        return np.asarray(_block(k0, k1, x0, x1, word))


def _type(*types: Type, word: int = 0) -> Type:
    if len(types) != 4 or any(t != types[0] for t in types) or types[0].dtype is not u32:
        raise XlcTypeError("threefry2x32 needs two words of key and two of counter, all u32 of one shape, found "
                           f"{', '.join(map(str, types))}")
    return types[0]


threefry2x32 = register(Op("threefry2x32", "elementwise", 4, _type, _array, lambda *dtypes, word=0: u32, decompose=_block,
                           vjp=lambda g, y, *args, word=0: [None] * 4, dtypes=(u32,), samples=((0, 1 << 32),) * 4, exact=True,
                           doc="a word of the block of random bits for a key and a counter"))
