"""Batches of arrays that are in memory.

    data = Batches((images, labels), 100, seed=0)
    for x, y in data(epoch): ...                       shuffled; the order depends on the seed and the number of the epoch alone
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import tree
from ..errors import XlcTypeError, XlcValueError
from ..frontend.devices import to_host


class Batches:
    """Rows of arrays (any pytree of them, with first axes of one length), ``size`` at a time; the last batch has what is left.

    seed       shuffles each epoch, as np.random.default_rng((seed, epoch)) permutes; None keeps the order
    drop_last  leaves a last batch out that is smaller. There is no need to: steps that ``fit`` compiles take any size"""

    def __init__(self, arrays: Any, size: int, *, seed: int | None = None, drop_last: bool = False):
        leaves = tree.leaves(arrays)
        wrong = next((a for a in leaves if not hasattr(a, "__array__") or np.ndim(a) == 0), None)
        if wrong is not None or not leaves:
            raise XlcTypeError(f"Batches expects arrays with a first axis of rows, found {type(wrong).__name__ if leaves else 'none'}")
        lengths = sorted({len(a) for a in leaves})
        if len(lengths) > 1:
            raise XlcValueError(f"the arrays of Batches have one number of rows; found {' and '.join(map(str, lengths))}")
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise XlcValueError(f"the size of a batch must be a positive int, found {size!r}")
        if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
            raise XlcValueError(f"the seed must be a non-negative int, found {seed!r}")
        self.arrays = tree.map(lambda a: np.asarray(to_host(a)), arrays)
        self.rows, self.size, self.seed, self.drop_last = lengths[0], int(size), seed, drop_last

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.rows // self.size if self.drop_last else -(-self.rows // self.size)

    def __call__(self, epoch: int) -> Iterator[Any]:
        """The batches of one epoch."""
        order = np.arange(self.rows) if self.seed is None else np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        for k in range(len(self)):
            rows = order[k * self.size:(k + 1) * self.size]
            yield tree.map(lambda a, rows=rows: a[rows], self.arrays)

    def __iter__(self) -> Iterator[Any]:
        return self(0)
