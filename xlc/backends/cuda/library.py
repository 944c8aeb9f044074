"""A loaded module: runs a plan on a device, launch by launch, or as one CUDA graph.

A plan of more than two launches is captured once for each stream (and for each set of sizes) and replayed: its entries read a table in
device memory, which is written anew before each replay.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from xlc.ir.types import DTYPES

from .module import evaluate

ALIGNMENT = 256  # of the counter behind the arena
_Launch = tuple[Any, int, int, bool, np.ndarray | None]
"""Function, blocks (none of a call of a library), shared memory, whether blocks wait for each other, places and offsets of the arrays."""
REPLAYS = 16  # sets of sizes for which a plan keeps its graphs


class Library:
    """``head`` is what the backend wrote in front of the code: entries, places in the table, names of sizes, bytes of the arena, whether
    the module is made for graphs."""

    def __init__(self, device: Any, head: Mapping[str, Any], text: str, binary: bytes):
        self.device, self.head, self.text, self.binary = device, head, text, binary
        self._lock = threading.Lock()
        self._replays: dict[tuple[int, ...], Any] = {}
        self._launches: dict[tuple[int, ...], Any] = {}
        self._captured: list[Any] = []
        self._waits = any(cooperative for _, _, _, cooperative, _, _ in head["entries"])
        self._names = tuple(head["sizes"])

    @cached_property
    def loaded(self) -> Any:
        return self.device.load(self.text, self.binary)

    def launches(self, values: tuple[int, ...]) -> tuple[list[_Launch], int]:
        """At these sizes: the launches, and the bytes of the arena. Made once."""
        found = self._launches.get(values)
        if found is None:
            sizes, launches = dict(zip(self._names, values, strict=True)), list[_Launch]()
            for name, blocks, shared, cooperative, slots, library in self.head["entries"]:
                if library:
                    launches.append((_Call(self.device, sizes, *library), 0, 0, False, None))
                    continue
                function, count = self.loaded.function(name), evaluate(blocks, sizes)
                count = min(count, self.device.resident(function, shared)) if cooperative else count
                if count > 0:
                    pairs = [[place, evaluate(offset, sizes)] for place, offset in slots or ()]
                    where = None if slots is None else np.array(pairs, np.int64).ravel()
                    launches.append((function, count, shared, cooperative, where))
            found = self._launches[values] = launches, -(-evaluate(self.head["arena"], sizes) // ALIGNMENT) * ALIGNMENT
        return found

    def run(self, addresses: Sequence[int], values: tuple[int, ...]) -> None:
        """Launch the plan on parameters, results and constants at these addresses; ``values`` are those of the named sizes."""
        launches, arena = self.launches(values)
        if not launches:
            return
        work, start, end = None, 0, 0
        if arena or self._waits:
            work = self.device.workspace(arena + ALIGNMENT)
            start, end = work.address, work.address + arena
        table = np.array([*addresses, start, end, *(values or (0,))], np.int64)
        if self.head["graph"]:
            captured = self.replay(launches, values, table.nbytes)(table)
        else:
            self.launch(launches, table)
            captured = work is not None and self.device.capturing()
        if captured and work is not None:
            self._captured.append(work)  # the user's graph may run at any time

    def replay(self, launches: Sequence[_Launch], values: tuple[int, ...], nbytes: int) -> Any:
        """The plan at these sizes as a graph. Made once."""
        with self._lock:
            found = self._replays.get(values)
            if found is None:
                if len(self._replays) >= REPLAYS:
                    del self._replays[next(iter(self._replays))]
                found = self._replays[values] = self.device.replay(self.loaded, nbytes, lambda at: self.launch(launches, at))
            return found

    def launch(self, launches: Sequence[_Launch], argument: np.ndarray) -> None:
        """Every launch, in order, with the table or (for graphs) its address."""
        launch = self.device.launch
        for function, count, shared, cooperative, where in launches:
            if count:
                given = argument if where is None else np.concatenate((argument.view(np.int64), where))
                launch(function, count, shared, given, cooperative)
            else:
                function(argument)


class _Call:
    """A launch that a library does: ("matmul", a, b, batch, m, n, k, whether a lies transposed, whether b does): see
    ``schedule.library``."""

    def __init__(self, device: Any, sizes: Mapping[str, int], claim: Sequence[Any], dtype: str, where: Sequence[tuple[int, Any]]):
        self.device, self.claim, self.dtype = device, claim, DTYPES[dtype].numpy
        self.where = [(place, evaluate(offset, sizes)) for place, offset in where]

    def __call__(self, table: np.ndarray) -> None:
        _, a, b, batch, m, n, k, a_transposed, b_transposed = self.claim
        at = [int(table[place]) + offset for place, offset in self.where]
        device, last = self.device, len(at) - 1
        x = device.view(at[a], (batch, k, m) if a_transposed else (batch, m, k), self.dtype)
        y = device.view(at[b], (batch, n, k) if b_transposed else (batch, k, n), self.dtype)
        device.matmul(x.swapaxes(1, 2) if a_transposed else x, y.swapaxes(1, 2) if b_transposed else y,
                      device.view(at[last], (batch, m, n), self.dtype))


__all__ = ["Library"]
