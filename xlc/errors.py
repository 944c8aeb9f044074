"""Errors that a user sees. Each names the user's file and line, what was found, what was expected and what to do instead."""

from __future__ import annotations

import os
import sys

import numpy as np

Location = tuple[str, int]
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_ours: dict[str, bool] = {}  # file name -> is it a file of xlc, NumPy or Python's own machinery


class XlcError(Exception):
    """The base of every error of xlc. ``location`` is the (file, line) of the user's code that it is about, if known."""

    def __init__(self, message: str, location: Location | None = None):
        location = location or user_location()
        super().__init__(f"{os.path.basename(location[0])}:{location[1]}: {message}" if location else message)
        self.message, self.location = message, location


class XlcTypeError(XlcError, TypeError):
    """A dtype, argument count or kind of object that does not fit."""


class XlcValueError(XlcError, ValueError):
    """A shape, axis or value that does not fit."""


class XlcIndexError(XlcError, IndexError):
    """An index out of bounds, or more indices than dimensions."""


class XlcOverflowError(XlcError, OverflowError):
    """A Python number that does not fit the dtype it meets."""


class XlcFloatingPointError(XlcValueError, FloatingPointError):
    """A value that is nan, or infinite, where the user asked for a check."""


class XlcRecursionError(XlcError, RecursionError):
    """A traced function that calls itself without end."""


class XlcImportError(XlcError, ImportError):
    """A package that is needed here, and that xlc does not depend on, is not installed."""


class XlcNotImplementedError(XlcError, NotImplementedError):
    """Something valid that xlc does not do."""


def user_location() -> Location | None:
    """The innermost frame outside xlc: the line of the user's program that is running. About 0.3 us."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        ours = _ours.get(file)
        if ours is None:
            ours = _ours[file] = file.startswith((_PACKAGE, _NUMPY, "<frozen", "<__array_function__"))
        if not ours:
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None
