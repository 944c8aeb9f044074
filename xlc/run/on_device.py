"""The call path of programs that run on a device: arrays there in, arrays there out, nothing waited for.

    exe = Executable(library, params=[0, 1], results=[(np.float32, (8,))], out_tree=("leaf", 0))
    y = exe.call_flat([x, w])

The description is that of ``native.Executable``. Arguments that do not lie on the device (numbers, host arrays) are copied there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcError

from .fallback import _build, _evaluate

ALIGNMENT = 16  # bytes


class Executable:
    """``library`` is what the backend loaded: ``.device`` holds arrays, ``.run(addresses, sizes)`` launches. Thread-safe."""

    def __init__(self, library: Any, *, params: Sequence[int], results: Sequence[tuple[Any, Sequence[Any]]], out_tree: Any,
                 dims: Sequence[Sequence[tuple[int, int]]] = (), checks: Any = (), donate: Sequence[int] = (),
                 alias: Mapping[int, int] | None = None, constants: Sequence[np.ndarray] = (), name: str = ""):
        self.library, self.params, self.out_tree, self.name = library, list(params), out_tree, name
        self.dims, self.results = list(dims), [(np.dtype(d), tuple(s)) for d, s in results]
        self.alias, self.calls = dict(alias or {}), 0
        self.order = [leaf for _, leaf in sorted((p, leaf) for leaf, p in enumerate(self.params) if p >= 0)]  # of each parameter
        self.donated = sorted(set(donate) & set(self.order))
        if library.device.capturing():
            raise XlcError(f"{name} is called for the first time while the current stream is captured as a graph: call it once before, "
                           f"which loads its code and its constants")
        self.constants = [library.device.asarray(c) for c in constants]  # kept alive; they stay where they are
        if self.constants:
            library.device.settle()  # whatever stream the first calls are on
        self.constant_addresses = [library.device.address(c) for c in self.constants]

    def run_flat(self, leaves: Sequence[Any]) -> list[Any]:
        if len(leaves) != len(self.params):
            raise ValueError(f"{self.name} takes {len(self.params)} leaves, found {len(leaves)}")
        device = self.library.device
        taken: list[Any] = [_whole(device, leaves[leaf]) if p >= 0 else None for leaf, p in enumerate(self.params)]
        for leaf in self.donated:
            if any(_overlap(device, taken[leaf], other) for k, other in enumerate(taken) if k != leaf and other is not None):
                taken[leaf] = device.copied(taken[leaf])  # what is written must not be another argument, too
        env = tuple([int(taken[places[0][0]].shape[places[0][1]]) for places in self.dims])
        results = []
        for k, (dtype, shape) in enumerate(self.results):
            shape = tuple([_evaluate(s, env) for s in shape]) if env else shape
            results.append(taken[self.alias[k]].reshape(shape) if k in self.alias else device.empty(shape, dtype))
        address = device.address
        self.library.run([*[address(taken[leaf]) for leaf in self.order], *[address(r) for r in results], *self.constant_addresses], env)
        self.calls += 1
        return results

    def call_flat(self, leaves: Sequence[Any]) -> Any:
        return _build(self.out_tree, self.run_flat(leaves))

    def __call__(self, *leaves: Any) -> Any:
        return self.call_flat(leaves)


def _whole(device: Any, value: Any) -> Any:
    """The device's array of a value, C-contiguous, at an address that suits the widest accesses; a copy where it was not so."""
    array = device.asarray(value)
    return array if array.flags.c_contiguous and device.address(array) % ALIGNMENT == 0 else device.copied(array)


def _overlap(device: Any, a: Any, b: Any) -> bool:
    """Whether two arrays, each in one piece, share memory."""
    start, other = device.address(a), device.address(b)
    return bool(start < other + b.nbytes and other < start + a.nbytes)
