"""Errors that a user sees. Each names the user's file and line, what was found, what was expected and what to do instead."""

from __future__ import annotations

import os
import sys

Location = tuple[str, int]
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


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


def user_location() -> Location | None:
    """The innermost frame outside xlc: the line of the user's program that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_PACKAGE, "<frozen", "<__array_function__")) and "/numpy/" not in file:
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None
