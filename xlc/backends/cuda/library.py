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
    """``head`` is what the backend wrote in front of the code: entries, places in the table, names of sizes, bytes of the arena, whether the
    module is made for graphs."""

    def __init__(self, device: Any, head: Mapping[str, Any], text: str, binary: bytes):
        self.device, self.head, self.text, self.binary = device, head, text, binary
        self._lock = threading.Lock()
        self._replays: dict[tuple[int, ...], Any] = {}
        places = head["places"]
        self._arena, self._counter, self._length = places["arena"], places["counter"], places["length"]
        self._names = tuple(head["sizes"])

    @cached_property
    def loaded(self) -> tuple[Any, list[Any]]:
        """The module, and the functions of its entries."""
        module = self.device.load(self.text, self.binary)
        return module, [module.function(name) for name, *_ in self.head["entries"]]

    def run(self, addresses: Sequence[int], sizes: Mapping[str, int]) -> None:
        """Launch the plan on parameters, results and constants at these addresses."""
        arena = -(-evaluate(self.head["arena"], sizes) // ALIGNMENT) * ALIGNMENT
        work = self.device.workspace(arena + ALIGNMENT)
        values = tuple(sizes[n] for n in self._names)
        table = np.array([*addresses, work.address, work.address + arena, *(values or (0,))], np.int64)
        if not self.head["graph"]:
            self.launch(table, sizes)
            return
        with self._lock:
            replay = self._replays.get(values)
            if replay is None:
                replay = self._replays[values] = self.device.replay(self.loaded[0], table.nbytes, lambda at: self.launch(at, sizes))
        replay(table)

    def launch(self, argument: np.ndarray, sizes: Mapping[str, int]) -> None:
        """Every entry, in order, with the table or (for graphs) its address."""
        device = self.device
        for function, (_, blocks, shared, cooperative) in zip(self.loaded[1], self.head["entries"], strict=True):
            count = evaluate(blocks, sizes)
            if cooperative:
                count = min(count, device.resident(function, shared))
            if count > 0:
                device.launch(function, count, shared, argument, cooperative)


__all__ = ["Library"]
