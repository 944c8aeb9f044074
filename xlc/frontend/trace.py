"""A trace: the time during which a Python function runs on traced values, and what belongs to that time.

    with tracing("layer") as trace:       enters: a name for messages
        y = f(Tracer(node), ...)          operators on tracers build nodes
                                          leaves: nothing; the results are read from the tracers before the trace ends

One trace is current per thread. A value of another trace, or of one that has ended, is refused (``refuse``). The bodies of control flow
are traced within a trace (``tracing(name, inside=True)``): what such a body uses of the traces around it becomes a parameter of the body.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import Location, XlcError, XlcTypeError, user_location
from ..ir.node import Node, constant, parameter
from ..ir.node import _current as _node_location
from ..ir.types import Dim, Type, dtype_of
from .devices import device_of


class _Local(threading.local):
    trace: Trace | None = None


_local = _Local()


class Trace:
    """``captured`` maps the id of an array of the closure to (the array, what stands for it, its value): each is copied once. A constant
    stands for it; in an ``open`` trace a parameter, as the program is to serve other values too (``taken``: all of them). ``assumptions``
    holds sizes that must not be negative for what was traced to hold (an ``x[1:]`` on a symbolic axis). ``reports`` are what is told
    besides the results (``frontend.reports``). ``around`` is the trace that this one, of a body of control flow, is part of; ``enclosed``
    maps what it uses of it to its own parameters for that."""

    __slots__ = ("alive", "around", "assumptions", "captured", "enclosed", "name", "open", "reports", "taken", "thread")

    def __init__(self, name: str, around: Trace | None = None, open: bool = False):
        self.name, self.alive, self.around, self.open = name, True, around, open
        self.enclosed: dict[Node, Node] = {}
        self.thread = threading.get_ident()
        self.captured: dict[int, tuple[Any, Node, np.ndarray]] = {}
        self.taken: dict[Node, np.ndarray] = {}
        self.assumptions: set[Dim] = set()
        self.reports: list[Any] = []

    def capture(self, array: np.ndarray) -> Node:
        """What stands for the array, by its value now: what the caller writes into it later has no effect."""
        outermost = self
        while outermost.around is not None:
            outermost = outermost.around
        if outermost.open and outermost is not self:
            found = self.enclose(outermost, outermost.capture(array))
            assert found is not None
            return found
        known = self.captured.get(id(array))
        if known is not None and _same_bits(known[2], array):
            return known[1]
        value = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
        node = parameter(Type(dtype_of(value.dtype), value.shape), "captured", 0) if self.open else constant(value)
        self.captured[id(array)] = (array, node, value)
        if self.open:
            self.taken[node] = value
        return node

    def enclose(self, owner: Trace, node: Node) -> Node | None:
        """What stands here for a node of the trace ``owner``; None where that is none of the traces around this one."""
        outer = node if self.around is owner else None if self.around is None else self.around.enclose(owner, node)
        if outer is None or (not outer.args and outer.op.name != "parameter"):
            return outer  # numbers and arrays are the same everywhere
        if outer not in self.enclosed:
            self.enclosed[outer] = parameter(outer.type, outer["name"] if outer.op.name == "parameter" else "closed", len(self.enclosed))
        return self.enclosed[outer]


def _same_bits(value: np.ndarray, array: np.ndarray) -> bool:
    """Has the captured array kept its value since it was captured?"""
    if value.shape != array.shape or value.dtype != array.dtype:
        return False
    bits = f"u{array.dtype.itemsize}"
    return bool(np.array_equal(value.view(bits), np.ascontiguousarray(array).view(bits)))


class tracing:
    """Makes a new trace the current one of this thread; ``inside``: part of the current one; ``open``: see ``Trace``."""

    def __init__(self, name: str, inside: bool = False, open: bool = False):
        self.trace = Trace(name, _local.trace if inside else None, open)

    def __enter__(self) -> Trace:
        self.outer, _local.trace = _local.trace, self.trace
        self.location = getattr(_node_location, "loc", None)
        _switched()
        return self.trace

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _local.trace = self.outer
        _switched()
        self.trace.alive = False
        self.trace.captured.clear()
        _node_location.loc = None
        if self.trace.around is not None:
            self.trace.around.assumptions |= self.trace.assumptions
            _node_location.loc = self.location


def _switched() -> None:
    for callback in _callbacks:
        callback()


_callbacks: list[Callable[[], None]] = []


def on_switch(callback: Callable[[], None]) -> None:
    """Call back whenever this thread's current trace changes."""
    _callbacks.append(callback)


def current() -> Trace | None:
    """The trace that runs on this thread, if any."""
    return _local.trace


def mark() -> None:
    """Nodes made from now on carry the user's current line."""
    _node_location.loc = user_location()


def refuse(trace: Trace, made_at: Location | None) -> XlcError:
    """The error for a value of ``trace`` that is used outside it."""
    where = f" (made at {made_at[0]}:{made_at[1]})" if made_at else ""
    if not trace.alive:
        return XlcTypeError(f"a traced value{where} is used after the trace of {trace.name!r} has ended; it stands for no array. Return "
                            f"it from the "
                            "function instead of storing it outside (in a global, an attribute or a list)")
    if trace.thread != threading.get_ident():
        return XlcTypeError(f"a traced value{where} of {trace.name!r} is used on another thread than the one that traces it; pass it as "
                            f"an argument to "
                            "a function that is jitted on its own, or compute in the thread that traces")
    return XlcTypeError(f"a traced value{where} of the function {trace.name!r} is used inside the separate trace of "
                        f"{_local.trace.name if _local.trace else None!r}; pass it as an argument")


def enclosed(owner: Trace, node: Node) -> Node:
    """What stands in the current trace for a node of another one; refused where it cannot be known here."""
    here = _local.trace
    found = here.enclose(owner, node) if here is not None and owner.alive else None
    if found is None:
        raise refuse(owner, node.loc)
    return found


def as_array(value: Any, what: str = "a value") -> np.ndarray:
    """A concrete array from an ndarray, a NumPy scalar, nested lists of numbers, or an object with ``__array__`` or ``__dlpack__``."""
    kind = type(value)
    if kind is not np.ndarray:
        if isinstance(value, np.ma.MaskedArray):
            raise XlcTypeError(f"{what} is a masked array; pass its .data and its .mask as two arrays, and combine them with np.where")
        if isinstance(value, np.matrix):
            raise XlcTypeError(f"{what} is an np.matrix; pass np.asarray(m)")
        if device_of(value) is not None:
            if not hasattr(kind, "get"):
                raise XlcTypeError(f"{what} is a GPU array ({kind.__module__}.{kind.__name__}); copy it to the host (x.cpu().numpy()), or "
                                   f"make it an argument of a jitted function")
            return as_array(value.get(), what)  # an array that a traced function captures is a constant, by its value
        if isinstance(value, (str, bytes)) or value is None or isinstance(value, (dict, set, complex)) or callable(value):
            raise XlcTypeError(f"{what} is {describe(value)}; expected an array or a number. An argument that is no array is declared with "
                               "static_argnames=")
        try:
            value = np.asarray(value) if hasattr(value, "__array__") or isinstance(value,
                                                                                   (list, tuple, int, float)) else np.from_dlpack(value)
        except (TypeError, ValueError, BufferError, RuntimeError, AttributeError) as error:
            raise XlcTypeError(f"{what} is {describe(value)}, which is no array ({error}). An argument that is no array is declared with "
                               "static_argnames=") from None
    check_dtype(value.dtype, what)
    return value


def check_dtype(dtype: np.dtype, what: str) -> None:
    """XlcTypeError for a dtype that xlc does not compute with."""
    try:
        dtype_of(dtype)
    except TypeError:
        advice = _DTYPE_ADVICE.get(dtype.kind, "convert it with astype")
        raise XlcTypeError(f"{what} is an array of dtype {dtype}; {advice}") from None


_DTYPE_ADVICE = {
    "O": "arrays of objects cannot be compiled: convert it to a numeric dtype with astype(float), or make several arrays",
    "U": "strings cannot be compiled: pass them with static_argnames=, or encode them as integers",
    "S": "strings cannot be compiled: pass them with static_argnames=, or encode them as integers",
    "T": "strings cannot be compiled: pass them with static_argnames=, or encode them as integers",
    "M": "dates cannot be compiled: pass x.astype('int64')",
    "m": "time differences cannot be compiled: pass x.astype('int64')",
    "c": "complex numbers are not supported: pass x.real and x.imag as two arrays",
    "V": "structured arrays cannot be compiled: pass the fields as separate arrays, x['field']",
    "f": "extended precision is not supported: pass x.astype('float64')",
}


def describe(value: Any) -> str:
    """An object in a message: its type, and its value where that is short."""
    if value is None:
        return "None"
    text = repr(value) if isinstance(value, (str, bytes, int, float, complex, bool)) else ""
    return f"{type(value).__name__} {text[:40]}".strip() if text else f"an object of type {type(value).__name__}"
