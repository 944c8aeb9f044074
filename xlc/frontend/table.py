"""Which implementation serves which NumPy function.

    @function(np.sum)                          ``np.sum(tracer)``, ``tracer.sum()`` and ``xlc.numpy.sum`` are one implementation
    def sum(x, axis=None, ...): ...

The table is filled by importing ``xlc.numpy``, which happens when the first function is traced.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..errors import XlcError, XlcNotImplementedError, XlcTypeError

F = TypeVar("F", bound=Callable[..., Any])
BY_NUMPY: dict[Any, Callable[..., Any]] = {}
BY_NAME: dict[str, Callable[..., Any]] = {}
WEAK_NUMBERS: set[str] = set()  # functions whose Python numbers are operands, not settings


def function(*numpy: Any, names: tuple[str, ...] = (), numbers: bool = False) -> Callable[[F], F]:
    """Enter an implementation under its own name, the names of the NumPy functions it serves, and ``names``."""

    def enter(f: F) -> F:
        for n in numpy:
            BY_NUMPY[n] = f
        for name in {f.__name__, *names, *(n.__name__ for n in numpy if "linalg" not in (n.__module__ or ""))}:
            BY_NAME[name] = f
            if numbers:
                WEAK_NUMBERS.add(name)
        return f

    return enter


def implementation(name: str) -> Callable[..., Any]:
    found = BY_NAME.get(name)
    if found is None:
        import xlc.numpy  # noqa: F401  (fills the table)

        found = BY_NAME[name]
    return found


def serving(numpy_function: Any) -> Callable[..., Any]:
    """The implementation of a NumPy function, or an error that names the nearest one there is."""
    found = BY_NUMPY.get(numpy_function)
    if found is None:
        import xlc.numpy  # noqa: F401

        found = BY_NUMPY.get(numpy_function)
    if found is None:
        raise unsupported(full_name(numpy_function))
    return found


def full_name(f: Any) -> str:
    module = getattr(f, "__module__", None) or "numpy"
    name = getattr(f, "__name__", str(f))
    return f"{module.replace('numpy', 'np', 1)}.{name}" if module.startswith("numpy") else f"np.{name}"


# Where the nearest name is not the nearest meaning.
INSTEAD = {
    "nonzero": "its shape depends on the data; choose with np.where(condition, a, b)",
    "flatnonzero": "its shape depends on the data; choose with np.where(condition, a, b)",
    "argwhere": "its shape depends on the data; choose with np.where(condition, a, b)",
    "unique": "its shape depends on the data; np.sort(x) puts equal values side by side",
    "compress": "its shape depends on the data; choose with np.where(condition, a, b)",
    "extract": "its shape depends on the data; choose with np.where(condition, a, b)",
    "delete": "write it with slices and np.concatenate",
    "insert": "write it with slices and np.concatenate",
    "put": "it writes in place; use x = xlc.numpy.at(x, index).set(values)",
    "place": "it writes in place; use x = np.where(mask, values, x)",
    "putmask": "it writes in place; use x = np.where(mask, values, x)",
    "copyto": "it writes in place; use x = np.where(mask, values, x)",
    "fill_diagonal": "it writes in place; use np.where(np.eye(n, dtype=bool), value, x)",
    "put_along_axis": "it writes in place; use xlc.numpy.at",
    "array_equal": "use np.all(x == y), which stays a traced value",
    "interp": "use np.searchsorted and arithmetic",
    "histogram": "use xlc.numpy.one_hot and a sum",
    "bincount": "use xlc.numpy.one_hot(x, n).sum(axis=0), or xlc.numpy.at(counts, x).add(1)",
    "vectorize": "write the function with array operations",
    "apply_along_axis": "write the function with axis= arguments",
    "save": "it needs the values; save what the compiled function returns",
    "savetxt": "it needs the values; save what the compiled function returns",
    "array_str": "it needs the values", "array_repr": "it needs the values", "array2string": "it needs the values",
}


def unsupported(name: str) -> XlcError:
    import xlc.numpy  # noqa: F401

    short = name.rsplit(".", 1)[-1]
    advice = INSTEAD.get(short)
    if advice is None and ".linalg." in name:
        advice = "of np.linalg there are " + ", ".join(sorted({f.__name__ for f in BY_NUMPY if f.__module__ == "numpy.linalg"}))
    if advice is None:
        near = difflib.get_close_matches(short, sorted(BY_NAME), n=3, cutoff=0.5)
        advice = ("the nearest that are: " + ", ".join(f"np.{n}" if hasattr(np, n) else f"xlc.numpy.{n}" for n in near)) if near else \
            "xlc.numpy.__all__ lists those that are; write it with those, or compute it outside the compiled function"
    return XlcNotImplementedError(f"{name} is not supported on traced values: {advice}")


def call(f: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
    """Call an implementation; a wrong argument list becomes an error at the user's line."""
    try:
        return f(*args, **kwargs)
    except TypeError as error:
        if isinstance(error, XlcError) or error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise
        raise XlcTypeError(f"{name}: {str(error).replace(f.__name__ + '() ', '')}" + _out_advice(kwargs)) from None


def _out_advice(kwargs: dict[str, Any]) -> str:
    if kwargs.get("out") is None:
        return ""
    return "; traced arrays are not written in place: assign the result, y = f(x), instead of out=y"
