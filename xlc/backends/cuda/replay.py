"""A plan as a CUDA graph, which is captured once for a stream and launched again with new arguments.

    replay = device.replay(module, nbytes, record)    record(argument) launches the plan, its entries reading the table at this address
    replay(table)                                     writes the table (of nbytes) on the device, and launches the graph
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlc.errors import XlcError

from .device import CupyDevice, Function, Record, Workspace, by_value

SET_TABLE = "xlc_set_table"
"""The entry of a module that writes a table: ``xlc_set_table(Table* at, const __grid_constant__ Table table)``, one block."""
STREAMS = 8
"""Streams for which one plan keeps its graph at the same time."""
ARGUMENT_LIMIT = 32764 - 8
"""Bytes of a table that can be an argument, beside a pointer (CUDA 12.1 and later)."""
_PER_THREAD = 2  # one number for streams of which every thread has its own


@dataclass
class _Recording:
    """One plan on one stream, which is kept open so that no other gets its number; ``place`` is the address of the table's memory."""

    stream: Any
    memory: Workspace
    place: np.ndarray
    launch: Callable[[], Any] | None = None


class Replay:
    """A plan whose launches read the addresses of their arrays in a table in device memory.

    Each call writes its own table there and runs the launches, on the current stream, after what came before. At the first call on a
    stream they are started one by one, which loads their code; at the second they are recorded as a CUDA graph, and from then on the graph
    is launched. A stream has its own table and graph. Calls from several threads take turns, so that no other table gets between a table
    and its launches. Into a graph that the user captures go the launches, which read a table of this call alone: it is kept, because the
    user's graph may run at any time.
    """

    def __init__(self, device: CupyDevice, set_table: Function, nbytes: int, record: Record):
        if nbytes > ARGUMENT_LIMIT:
            raise XlcError(f"a plan with a table of {nbytes} bytes is too large for one graph, whose table may have {ARGUMENT_LIMIT}")
        self._device, self._set_table, self._nbytes, self._record = device, set_table, nbytes, record
        self._recordings: dict[Hashable, _Recording] = {}
        self._captured: list[_Recording] = []
        self._lock = threading.Lock()

    def __call__(self, table: np.ndarray) -> bool:
        """Returns whether this call went into a graph of the user's."""
        device = self._device
        with self._lock, device.here():
            stream = device.cupy.cuda.get_current_stream()
            key: Hashable = stream.ptr if stream.ptr != _PER_THREAD else (_PER_THREAD, threading.get_ident())
            known, captured = self._recordings.get(key), device.capturing()
            found = self._new(stream) if known is None or captured else known
            device.start(self._set_table, 1, 0, (found.place, by_value(table)))
            if captured:
                self._captured.append(found)
                self._record(found.place)
            elif known is None:
                if len(self._recordings) >= STREAMS:  # the oldest makes place; its graph, if it still runs, is freed when it has
                    del self._recordings[next(iter(self._recordings))]
                self._recordings[key] = found
                self._record(found.place)
            else:
                if found.launch is None:
                    found.launch = self._captured_launch(found.place)
                found.launch()
            return captured

    def _captured_launch(self, place: np.ndarray) -> Callable[[], Any]:
        """What launches the graph; where it cannot be made, the launches one by one."""
        try:
            return capture(self._device, lambda: self._record(place)).launch
        except RuntimeError as error:  # CUDARuntimeError, CUDADriverError
            warnings.warn(f"a program is launched kernel by kernel, because it cannot be captured as a CUDA graph: {error}", stacklevel=2)
            return lambda: self._record(place)

    def _new(self, stream: Any) -> _Recording:
        memory = self._device.workspace(self._nbytes)
        return _Recording(stream, memory, np.array([memory.address], np.uint64))


def capture(device: CupyDevice, launch: Callable[[], None]) -> Any:
    """What ``launch`` starts on the current stream, recorded and not run: a CUDA graph; ``.launch()`` runs it on the current stream."""
    with device.here():
        stream = device.cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                launch()
            except BaseException:
                with suppress(RuntimeError):  # the capture may be invalid, which is no news then
                    stream.end_capture()
                raise
            return stream.end_capture()


__all__ = ["ARGUMENT_LIMIT", "SET_TABLE", "STREAMS", "Replay", "capture"]
