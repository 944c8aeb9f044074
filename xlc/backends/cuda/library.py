"""A loaded module: runs a plan on a device, launch by launch."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .module import evaluate


class Library:
    """``head`` is what the backend wrote in front of the code: entries, places in the table, names of sizes, bytes of the arena."""

    def __init__(self, device: Any, head: Mapping[str, Any], text: str, binary: bytes):
        self.device, self.head, self.text, self.binary = device, head, text, binary
        self._lock = threading.Lock()
        self._module: Any = None

    @property
    def functions(self) -> list[Any]:
        with self._lock:
            if self._module is None:
                module = self.device.load(self.text, self.binary)
                self._module = module, [module.function(name) for name, *_ in self.head["entries"]]
            return self._module[1]

    def run(self, addresses: Sequence[int], sizes: Mapping[str, int]) -> None:
        """Launch the plan on parameters, results and constants at these addresses."""
        head, device, functions = self.head, self.device, self.functions
        places = head["places"]
        work = device.workspace(evaluate(head["arena"], sizes))
        counter = device.counter()
        table = np.zeros(places["length"] + max(len(head["sizes"]), 1), np.int64)
        table[:len(addresses)] = addresses
        table[places["arena"]], table[places["counter"]] = work.address, counter.address
        table[places["length"]:places["length"] + len(head["sizes"])] = [sizes[n] for n in head["sizes"]]
        for function, (_, blocks, shared, cooperative) in zip(functions, head["entries"], strict=True):
            count = evaluate(blocks, sizes)
            if count:
                device.launch(function, count, shared, table, cooperative)
