"""Looking into compiled functions: ``xlc.debug.print`` and ``xlc.debug.check_nans``.

    @xlc.jit
    def step(x, w):
        h = xlc.debug.check_nans(np.log(x @ w))        raises after the call if h holds nan, and names the operator that made the first
        xlc.debug.print("h {:.3f}, w {w}", h.mean(), w=w)
        return h

What is printed or checked becomes further results of the compiled program, which Python looks at after each call (``frontend.reports``);
``f.compile(...).graph`` shows them. Such a function returns to Python once per call, and a function without them is not touched. A library
that ``xlc.aot.export`` writes has no Python: they are left out, with a warning.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os.path import basename
from typing import Any

import numpy as np

from .errors import XlcError, XlcTypeError, XlcValueError, user_location
from .frontend.array import Tracer, lift
from .frontend.nans import check, refuse_bad
from .frontend.reports import Event, report, write
from .frontend.trace import as_array, current, describe, mark
from .frontend.tree import Tree, flatten, unflatten
from .ir.types import Dim

__all__ = ["check_nans", "print"]


def print(fmt: str, *args: Any, ordered: bool = True, **kwargs: Any) -> None:
    """``print(fmt.format(*args, **kwargs))`` whenever the traced function runs; at once outside of a trace.

    fmt       as for ``str.format``; a format after a colon, such as {:.3f}, is for scalars
    args      arrays, numbers, nested containers of them, and anything else, which is known when the function is traced
    ordered   lines always come in program order; JAX's name, without effect

    Lines appear when the call has ended. In ``scan`` and ``fori_loop`` there is one for each iteration, in a loop whose number of
    iterations is only known at run time (``while_loop``) for the last 256; in ``cond`` and ``switch`` where the branch ran; under ``vmap``
    for each element, if the values differ between elements; under ``grad`` in the forward pass, once.

    Raises XlcTypeError or XlcValueError for a format that does not fit, when the function is traced."""
    del ordered
    if not isinstance(fmt, str):
        raise XlcTypeError(f"debug.print expects a format string first, found {describe(fmt)}; write debug.print('x = {{}}', x)")
    leaves, tree = flatten((args, kwargs))
    if current() is None:
        _check_format(fmt, args, kwargs)
        write(fmt.format(*args, **kwargs))
        return
    mark()
    traced = [lift(leaf) if isinstance(leaf, (Tracer, Dim)) else None for leaf in leaves]
    _check_format(fmt, *unflatten(tree, [leaf if t is None else _stand_in(t) for leaf, t in zip(leaves, traced, strict=True)]))
    known = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]  # by its value now, as every constant
    holes = [k for k, t in enumerate(traced) if t is not None]
    report([t.node for t in traced if t is not None], _Line(fmt, tree, known, holes).events, ((user_location(), fmt),))


def check_nans(x: Any, inf: bool = False) -> Any:
    """``x`` itself, an array or a pytree of arrays; checked when the traced function has run, or at once outside of a trace.

    Raises XlcFloatingPointError (a ValueError and a FloatingPointError) where a float of it is nan, with ``inf`` also where one is
    infinite. The error is about the first operator that made one from arguments without: its name, line, type and arguments, and the
    iteration of a loop. The knob ``xlc.config.check_nans`` (XLC_CHECK_NANS=1) does so with the results of every jitted function."""
    at = user_location()
    what = f"what debug.check_nans{f' ({basename(at[0])}:{at[1]})' if at else ''} looks at"
    leaves, _ = flatten(x)
    if current() is None:
        refuse_bad([(as_array(leaf, what), what) for leaf in leaves], inf)
    else:
        mark()
        check([(lift(leaf).node, what) for leaf in leaves], inf)
    return x


# ------------------------------------------------------------------------------------------------ lines


@dataclass(frozen=True)
class _Line:
    """A line with holes for the values that are known at run time."""

    fmt: str
    tree: Tree
    known: Sequence[Any]
    holes: Sequence[int]

    def events(self, arrays: Sequence[np.ndarray]) -> Iterator[Event]:
        leaves = list(self.known)
        for k, a in zip(self.holes, arrays, strict=False):
            leaves[k] = a

        args, kwargs = unflatten(self.tree, leaves)
        yield (), partial(write, self.fmt.format(*args, **kwargs))


def _stand_in(t: Tracer) -> np.ndarray:
    """Zeros of the type of the value, to try a format on."""
    return np.broadcast_to(np.zeros((), t.node.dtype.numpy), [1 if isinstance(s, Dim) else s for s in t.node.shape])


class _Format(string.Formatter):
    """As ``str.format``, but every argument must be used, and arrays are not made into text."""

    def check_unused_args(self, used_args: Any, args: Any, kwargs: Any) -> None:
        unused = [str(k) for k in (*range(len(args)), *kwargs) if k not in used_args]
        if unused:
            raise ValueError(f"it does not use argument {', '.join(unused)}")

    def format_field(self, value: Any, format_spec: str) -> str:
        if not isinstance(value, np.ndarray) or not value.ndim:
            return format(value, format_spec)
        if format_spec:
            raise ValueError(f"{{:{format_spec}}} is for a scalar, not for an array of shape {value.shape}; write {{}}")
        return ""


def _check_format(fmt: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        _Format().vformat(fmt, args, kwargs)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, XlcError):
            raise
        raise XlcValueError(f"debug.print: the format {fmt!r} does not fit its arguments: {error}") from None
