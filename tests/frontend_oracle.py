"""Runs a function as traced (on the graph interpreter, or compiled) and compares with NumPy running the same function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import xlc
from xlc.frontend.tree import flatten, unflatten
from xlc.ir.interp import interpret

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(d) for d in ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")] + [BF16]
ULPS = {"f2": 4, "f4": 8, "f8": 16}


def traced(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the graph of ``f`` means."""
    lowered = xlc.jit(f, **options).lower(*args)
    leaves, _ = flatten(args)
    arrays = [np.asarray(v) for v in leaves if not isinstance(v, str)]
    return unflatten(lowered.out_tree, interpret(lowered.graph, *arrays))


def expected(f: Callable[..., Any], *args: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return f(*args)


def compare(got: Any, want: Any, rtol: float | None = None, exact: bool = False) -> None:
    mine, tree = flatten(got)
    theirs, shape = flatten(want)
    assert str(tree).replace("[", "(") .replace("]", ")").replace(",)", ")") == str(shape).replace("[", "(").replace("]",
            ")").replace(",)", ")")
    for g, w in zip(mine, theirs, strict=True):
        g, w = np.asarray(g), np.asarray(w)
        assert g.dtype == w.dtype, f"dtype {g.dtype}, NumPy has {w.dtype}"
        assert g.shape == w.shape, f"shape {g.shape}, NumPy has {w.shape}"
        if w.dtype.kind in "biu" or exact:
            np.testing.assert_array_equal(g, w)
        else:
            wide = np.float64
            tolerance = rtol if rtol is not None else 2e-2 if w.dtype == BF16 else {2: 4e-3, 4: 2e-6, 8: 1e-12}[w.dtype.itemsize]
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(g.astype(wide), w.astype(wide), rtol=tolerance, atol=tolerance * 1e-2)


def same_as_numpy(f: Callable[..., Any], *args: Any, rtol: float | None = None, exact: bool = False) -> None:
    """Traced, ``f`` has NumPy's result, or raises where NumPy raises, an error of the same builtin class."""
    try:
        want = expected(f, *args)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        kind = next(k for k in (OverflowError, IndexError, ValueError, TypeError) if isinstance(error, k))
        try:
            got = traced(f, *args)
        except xlc.XlcError as mine:
            assert isinstance(mine, kind), f"{type(mine).__name__} is no {kind.__name__}: {mine}; NumPy: {error}"
            return
        raise AssertionError(f"NumPy raises {error!r}; traced it gives {got}") from None
    compare(traced(f, *args), want, rtol, exact)


def sample(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Moderate values, zeros among them; floats get a nan-free mix of signs."""
    rng = np.random.default_rng([seed, *shape])
    d = np.dtype(dtype)
    if d.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if d.kind == "u":
        return rng.integers(0, 6, shape).astype(d)
    if d.kind == "i":
        return rng.integers(-5, 6, shape).astype(d)
    return (rng.integers(-20, 21, shape) / 8).astype(d)
