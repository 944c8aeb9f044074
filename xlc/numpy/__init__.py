"""The array API standard (2024.12) on NumPy arrays and on traced values, with NumPy's names as well.

    import xlc.numpy as xnp
    xnp.logsumexp(a, axis=1)                   on an array: compiled, kept and run at once
    @xlc.jit
    def f(x): return xnp.tril(x @ x.mT)        on traced values: part of the program, the same as np.tril there

Beyond NumPy: ``at(x, index).set(v)`` (functional update), ``one_hot``, ``top_k``, ``logsumexp``, ``erf``, ``erfc``, ``erfinv``,
``expit``, ``rsqrt``. Functions whose result's shape depends on the data (``nonzero``, ``unique_values``...) are left out. Every function
named here serves the NumPy function of its name on traced values.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import XlcNotImplementedError, XlcTypeError
from ..frontend.devices import device_of
from ..frontend.eager import public
from ..frontend.table import BY_NAME, BY_NUMPY, INSTEAD, unsupported
from ..frontend.trace import current
from . import create, elementwise, index, reduce, standard  # noqa: F401  (fill the table)
from . import linalg as _linalg  # noqa: F401
from . import shape as _shape  # noqa: F401
from .index import At
from .standard import finfo as finfo
from .standard import iinfo as iinfo
from .standard import isdtype as isdtype

at = At
__array_api_version__ = "2024.12"
_RENAMED = {"full_": "full"}
_CONVERSIONS = {"asarray", "asanyarray", "ascontiguousarray", "array"}  # NumPy refuses arrays on a device
_CONCRETE = {"zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye", "identity", "tri", "indices", "can_cast",
             "result_type", "shape",
             "ndim", "size", "iscomplexobj", "isrealobj", "zeros_like", "ones_like", "empty_like", "full_like", "asarray", "asanyarray",
             "ascontiguousarray", "array", "copy", "meshgrid"}  # without a trace: NumPy's own


def _export(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    if name not in _CONCRETE:
        return public(name, f)
    numpy_function, traced = getattr(np, name), public(name, f)

    def either(*args: Any, **kwargs: Any) -> Any:
        if current() is not None or (name in _CONVERSIONS and args and device_of(args[0]) is not None):
            return traced(*args, **kwargs)
        return numpy_function(*args, **kwargs)

    either.__name__ = either.__qualname__ = name
    either.__doc__ = numpy_function.__doc__
    return either


_functions = {_RENAMED.get(_name, _name): _f for _name, _f in BY_NAME.items()}
for _name, _f in _functions.items():
    globals()[_name] = _export(_name, _f)

pi, e, inf, nan, newaxis = np.pi, np.e, np.inf, np.nan, None
globals().update({_name: _d.type for _name, _d in standard.DTYPES.items()})
bfloat16 = standard.bfloat16.type
linalg = SimpleNamespace(**{_f.__name__: public(_f.__name__, BY_NUMPY[_f]) for _f in BY_NUMPY if getattr(_f, "__module__",
        "") == "numpy.linalg"})
__all__ = sorted([*_functions, "at", "finfo", "iinfo", "isdtype", "from_dlpack", "linalg", "pi", "e", "inf", "nan", "newaxis", "bfloat16",
                  *standard.DTYPES])


def from_dlpack(x: Any, /, *, device: Any = None, copy: Any = None) -> Any:
    """An array from any object with ``__dlpack__``."""
    if device not in (None, "cpu"):
        raise XlcTypeError(f"there is no device {device!r}; expected 'cpu'")
    return np.from_dlpack(x, copy=copy)


def __array_namespace_info__() -> standard.NamespaceInfo:
    return standard.NamespaceInfo()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if hasattr(np, name) or name in INSTEAD:
        error = unsupported(f"xlc.numpy.{name}")
        raise _MissingFunction(error.message)
    raise AttributeError(f"module 'xlc.numpy' has no attribute {name!r}")


class _MissingFunction(XlcNotImplementedError, AttributeError):
    """A NumPy function that is not offered here."""
