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

from .module import evaluate

ALIGNMENT = 256  # of the counter behind the arena


class Library:
    """``head`` is what the backend wrote in front of the code: entries, places in the table, names of sizes, bytes of the arena, whether
    the module is made for graphs."""

    def __init__(self, device: Any, head: Mapping[str, Any], text: str, binary: bytes):
        self.device, self.head, self.text, self.binary = device, head, text, binary
        self._lock = threading.Lock()
        self._replays: dict[tuple[int, ...], Any] = {}
        self._launches: dict[tuple[int, ...], Any] = {}
        self._waits = any(cooperative for *_, cooperative in head["entries"])
        self._names = tuple(head["sizes"])

    @cached_property
    def loaded(self) -> Any:
        return self.device.load(self.text, self.binary)

    def launches(self, values: tuple[int, ...]) -> tuple[list[tuple[Any, int, int, bool]], int]:
        """At these sizes: function, blocks, shared memory and kind of each launch, and the bytes of the arena. Made once."""
        found = self._launches.get(values)
        if found is None:
            sizes, launches = dict(zip(self._names, values, strict=True)), []
            for name, blocks, shared, cooperative in self.head["entries"]:
                function, count = self.loaded.function(name), evaluate(blocks, sizes)
                count = min(count, self.device.resident(function, shared)) if cooperative else count
                if count > 0:
                    launches.append((function, count, shared, cooperative))
            found = self._launches[values] = launches, -(-evaluate(self.head["arena"], sizes) // ALIGNMENT) * ALIGNMENT
        return found

    def run(self, addresses: Sequence[int], values: tuple[int, ...]) -> None:
        """Launch the plan on parameters, results and constants at these addresses; ``values`` are those of the named sizes."""
        launches, arena = self.launches(values)
        start = end = 0
        if arena or self._waits:
            work = self.device.workspace(arena + ALIGNMENT)
            start, end = work.address, work.address + arena
        table = np.array([*addresses, start, end, *(values or (0,))], np.int64)
        if not self.head["graph"]:
            self.launch(launches, table)
            return
        with self._lock:
            replay = self._replays.get(values)
            if replay is None:
                replay = self._replays[values] = self.device.replay(self.loaded, table.nbytes, lambda at: self.launch(launches, at))
        replay(table)

    def launch(self, launches: Sequence[tuple[Any, int, int, bool]], argument: np.ndarray) -> None:
        """Every launch, in order, with the table or (for graphs) its address."""
        launch = self.device.launch
        for function, count, shared, cooperative in launches:
            launch(function, count, shared, argument, cooperative)


__all__ = ["Library"]
