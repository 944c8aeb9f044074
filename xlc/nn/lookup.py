"""Embedding: rows of a table.

    embedding(table, ids)        table (rows, features), ids (...) integers   ->   (..., features)
"""

from __future__ import annotations

from typing import Any

from .. import numpy as np
from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import lift
from .functions import _public


@_public
def embedding(table: Any, ids: Any) -> Any:
    """table[ids]. Negative ids count from the end; those out of range give the first or the last row, as in JAX. The gradient adds the
    rows' cotangents to zeros one after another, in the order of the ids, so that it is the same in every run."""
    t, i = lift(table), lift(ids)
    if not i.node.dtype.is_int:
        raise XlcTypeError(f"embedding expects integer ids, found {i.node.type}; convert with astype(int)")
    if t.ndim == 0 or (t.node.shape[0] == 0 and i.node.type.size != 0):
        raise XlcValueError(f"embedding expects a table of shape (rows, features), found {t.node.type}")
    return np.take(t, i, axis=0)
