"""Every knob, in one table.

    xlc.config.strict = True                          for the whole process
    with xlc.config.context(strict=True, debug=2): ...     for this thread, inside the block
    @xlc.config.context(num_threads=1)                     for this thread, inside the function
    XLC_STRICT=1 python program.py                         from the environment

A value set in a ``context`` wins over one that was assigned, which wins over the environment, which wins over the default. Knobs marked
``compile`` change what is compiled: a function called under other values of them is compiled again (see ``key``).
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import XlcError, XlcTypeError, XlcValueError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Knob:
    default: Any
    doc: str
    compile: bool = False
    choices: tuple[Any, ...] = ()


KNOBS: dict[str, Knob] = {
    "strict": Knob(False, "fused results equal unfused ones bit for bit", compile=True),
    "fast_math": Knob(False, "allow rewrites that are not exact under IEEE 754", compile=True),
    "fuse_elementwise": Knob(True, "fuse elementwise operators with each other", compile=True),
    "fuse_reductions": Knob(True, "fuse reductions with their producers and consumers", compile=True),
    "fuse_contractions": Knob(True, "fuse what follows a contraction into its tile", compile=True),
    "fuse_rows": Knob(True, "keep whole rows in cache between dependent reductions (softmax, layer norm)", compile=True),
    "fuse_tiles": Knob(True, "compute what a contraction reads a block of rows at a time, even by another contraction (attention)",
                       compile=True),
    "pack_constants": Knob(True, "rearrange constant operands of contractions at compile time", compile=True),
    "reorder": Knob(True, "choose the order of launches that lowers the peak of memory", compile=True),
    "skip": Knob("", "names of rules and passes to leave out, separated by commas", compile=True),
    "override": Knob("", "folder whose files replace generated sources of the same name", compile=True),
    "bisect": Knob(-1, "apply only the first N rewrites (-1: all), to find the one at fault", compile=True),
    "target_cpu": Knob("", "CPU to generate code for (empty: the one that is running)", compile=True),
    "cuda_arch": Knob("", "chip to generate CUDA code for, such as sm_90 (empty: the one that is there)", compile=True),
    "cuda_library": Knob("none", "what computes large contractions with nothing fused to them on a GPU", compile=True,
                         choices=("none", "cublas")),
    "matmul_precision": Knob("highest", "on a GPU, contractions of f32: highest in f32, high in three products of tf32, default in one",
                             compile=True, choices=("highest", "high", "default")),
    "num_threads": Knob(0, "threads a compiled program may use (0: one per available core)"),
    "compile_threads": Knob(0, "threads the compiler may use (0: one per available core)"),
    "cache_dir": Knob(os.path.join("~", ".cache", "xlc"), "folder of compiled objects (empty: no cache on disk)"),
    "cache_bytes": Knob(1 << 30, "the most that the folder may hold"),
    "check_nans": Knob(False, "check the float results of every jitted call, and name the operator that made the first nan", compile=True),
    "debug": Knob(0, "1 compilations, 2 time per kernel, 3 schedules, 4 source, 5 graph after each pass", choices=(0, 1, 2, 3, 4, 5)),
    "dump": Knob("", "folder that receives every intermediate form, one numbered file each"),
    "check": Knob(0, "1 verify after each pass, 2 interpret after each pass, 3 compare every launch with the interpreter",
                  choices=(0, 1, 2, 3)),
}
_COMPILE = tuple(name for name, knob in KNOBS.items() if knob.compile)


def _convert(name: str, value: Any, source: str) -> Any:
    """The value as the knob's type, from Python or from the environment's text."""
    knob = KNOBS[name]
    kind = type(knob.default)
    if kind is bool and isinstance(value, str):
        value = {"1": True, "true": True, "on": True, "yes": True, "": False, "0": False, "false": False, "off": False,
                 "no": False}.get(value.lower(), value)
    elif kind is int and isinstance(value, str):
        value = int(value) if value.removeprefix("-").isdigit() else value
    elif kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif kind is bool and value in (0, 1):
        value = bool(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise XlcTypeError(f"{source}: {value!r} is not a value of the knob {name}, which is of type {kind.__name__}: {knob.doc}")
    if knob.choices and value not in knob.choices:
        raise XlcValueError(f"{source}: {value!r} is not a value of the knob {name}; expected one of {knob.choices}: {knob.doc}")
    return value


def _known(name: str) -> str:
    if name not in KNOBS:
        near = difflib.get_close_matches(name, KNOBS, n=1)
        raise XlcUnknownKnob(f"there is no knob {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(KNOBS)}"))
    return name


class XlcUnknownKnob(XlcError, AttributeError, TypeError):
    """A knob that does not exist."""


def _from_environment() -> dict[str, Any]:
    return {name: _convert(name, os.environ[variable], variable) if (variable := f"XLC_{name.upper()}") in os.environ else knob.default
            for name, knob in KNOBS.items()}


class _Local(threading.local):
    overrides: tuple[tuple[str, Any], ...] = ()
    key: tuple[int, tuple[Any, ...]] | None = None


_values = _from_environment()
_local = _Local()
_generation = 0  # counts assignments, so that a thread's cached key is known to be stale
_changed: list[tuple[str, Callable[[], None]]] = []


def get(name: str) -> Any:
    """The value of a knob on this thread."""
    for k, v in reversed(_local.overrides):
        if k == name:
            return v
    return _values[_known(name)]


def key() -> tuple[Any, ...]:
    """The values of all knobs that change what is compiled, on this thread."""
    cached = _local.key
    if cached is None or cached[0] != _generation:
        cached = _local.key = (_generation, tuple(get(name) for name in _COMPILE))
    return cached[1]


def compiling() -> dict[str, Any]:
    """The values of those knobs, by name: what is made later, on demand, is made under them (``context(**compiling())``)."""
    return {name: get(name) for name in _COMPILE}


def assign(name: str, value: Any) -> None:
    """Set a knob for the whole process."""
    global _generation
    name = _known(name)
    _values[name] = _convert(name, value, f"xlc.config.{name}")
    _generation += 1
    _notify((name,))


def overridden() -> bool:
    """Is this thread inside a ``context``?"""
    return bool(_local.overrides)


def on_change(callback: Callable[[], None], knob: str = "") -> None:
    """Call back, on the same thread, after a change of this knob's value (empty: of any)."""
    _changed.append((knob, callback))


def _notify(names: tuple[str, ...]) -> None:
    for knob, callback in _changed:
        if not knob or knob in names:
            callback()


class context:
    """``with context(strict=True):`` or ``@context(strict=True)``: other values, on this thread, inside."""

    def __init__(self, **knobs: Any):
        self.knobs = tuple((_known(k), _convert(k, v, f"xlc.config.context({k}={v!r})")) for k, v in knobs.items())
        self.outer: list[tuple[tuple[str, Any], ...]] = []

    def __enter__(self) -> None:
        self.outer.append(_local.overrides)
        self._set(_local.overrides + self.knobs)

    def __exit__(self, *exc: object) -> None:
        self._set(self.outer.pop())

    def _set(self, overrides: tuple[tuple[str, Any], ...]) -> None:
        _local.overrides, _local.key = overrides, None
        _notify(tuple(k for k, _ in self.knobs))

    def __call__(self, f: F) -> F:
        @functools.wraps(f)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with context(**dict(self.knobs)):
                return f(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class _Config(ModuleType):
    """Makes the knobs attributes of the module, checked on assignment."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in globals():
            super().__setattr__(name, value)
        else:
            assign(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *KNOBS]


sys.modules[__name__].__class__ = _Config

if TYPE_CHECKING:
    def __getattr__(name: str) -> Any: ...
