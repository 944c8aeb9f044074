"""What the array API asks for besides functions of arrays: dtypes and their queries, constants, the description of the namespace."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ..frontend.array import Tracer, lift
from ..frontend.elementwise import result_dtype
from ..frontend.table import function

DTYPES = {"bool": np.dtype(np.bool_), **{f"{k}{b}": np.dtype(f"{k}{b}") for k in ("int", "uint") for b in (8, 16, 32, 64)},
          **{f"float{b}": np.dtype(f"float{b}") for b in (16, 32, 64)}}
bfloat16 = np.dtype(ml_dtypes.bfloat16)


def _dtype_of(x: Any) -> Any:
    return x.dtype if isinstance(x, (Tracer, np.ndarray, np.generic)) else x


def finfo(dtype: Any) -> Any:
    """Limits of a float dtype (of an array, or given)."""
    found = np.dtype(_dtype_of(dtype))
    return ml_dtypes.finfo(found) if found == bfloat16 else np.finfo(found)


def iinfo(dtype: Any) -> Any:
    """Limits of an integer dtype (of an array, or given)."""
    return np.iinfo(_dtype_of(dtype))


def isdtype(dtype: Any, kind: Any) -> bool:
    """Is it of this kind (a dtype, "bool", "signed integer", "unsigned integer", "integral", "real floating", "numeric", or a tuple of
    these)?"""
    if np.dtype(dtype) == bfloat16:
        return any(k in ("real floating", "numeric") or (not isinstance(k, str) and np.dtype(k) == bfloat16)
                   for k in (kind if isinstance(kind, tuple) else (kind,)))
    return np.isdtype(np.dtype(dtype), kind)


@function(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    return np.can_cast(_dtype_of(from_), _dtype_of(to), casting)


@function(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    return result_dtype(*(np.dtype(x) if isinstance(x, (str, type)) else x for x in arrays_and_dtypes)).numpy


@function(np.shape)
def shape(x: Any) -> Any:
    return lift(x).shape


@function(np.ndim)
def ndim(x: Any) -> int:
    return lift(x).ndim


@function(np.size)
def size(x: Any, axis: int | None = None) -> Any:
    return lift(x).size if axis is None else lift(x).shape[axis]


@function(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    return False


@function(np.isrealobj)
def isrealobj(x: Any) -> bool:
    return True


class NamespaceInfo:
    """The array API's description of what the namespace can do."""

    def capabilities(self) -> dict[str, Any]:
        return {"boolean indexing": False, "data-dependent shapes": False, "max dimensions": 64}

    def default_device(self) -> str:
        return "cpu"

    def devices(self) -> list[str]:
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        return {"real floating": np.dtype("float64"), "complex floating": np.dtype("complex128"), "integral": np.dtype("int64"),
                "indexing": np.dtype("int64")}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        return {name: d for name, d in DTYPES.items() if kind is None or isdtype(d, kind)}
