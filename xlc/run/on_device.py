"""The call path of programs that run on a device: arrays there in, arrays there out, nothing waited for.

    exe = Executable(library, params=[0, 1], results=[(np.float32, (8,))], out_tree=("leaf", 0), sizes=(), constants=())
    y = exe.call_flat([x, w])

The description is that of ``native.Executable``. Arguments that do not lie on the device (numbers, host arrays) are copied there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .fallback import _build, _evaluate

ALIGNMENT = 16  # bytes


class Executable:
    """``library`` is what the backend loaded: ``.device`` holds arrays, ``.run(addresses, sizes)`` launches. Thread-safe."""

    def __init__(self, library: Any, *, params: Sequence[int], results: Sequence[tuple[Any, Sequence[Any]]], out_tree: Any,
                 sizes: Sequence[str] = (), dims: Sequence[Sequence[tuple[int, int]]] = (), checks: Any = (), donate: Sequence[int] = (),
                 alias: Mapping[int, int] | None = None, constants: Sequence[np.ndarray] = (), name: str = ""):
        self.library, self.params, self.out_tree, self.name = library, list(params), out_tree, name
        self.sizes, self.dims, self.results = tuple(sizes), list(dims), [(np.dtype(d), tuple(s)) for d, s in results]
        self.donate, self.alias, self.calls = frozenset(donate), dict(alias or {}), 0
        self.leaf_of = {p: leaf for leaf, p in enumerate(self.params) if p >= 0}
        self.constants = [library.device.asarray(c) for c in constants]

    def run_flat(self, leaves: Sequence[Any]) -> list[Any]:
        if len(leaves) != len(self.params):
            raise ValueError(f"{self.name} takes {len(self.params)} leaves, found {len(leaves)}")
        device = self.library.device
        taken = {leaf: _whole(device, leaves[leaf]) for leaf in self.leaf_of.values()}
        env = [int(taken[places[0][0]].shape[places[0][1]]) for places in self.dims]
        results = []
        for k, (dtype, shape) in enumerate(self.results):
            if k in self.alias:
                results.append(taken[self.alias[k]].reshape([_evaluate(s, env) for s in shape]))
            else:
                results.append(device.empty([_evaluate(s, env) for s in shape], dtype))
        arrays = [*(taken[self.leaf_of[p]] for p in range(len(self.leaf_of))), *results, *self.constants]
        self.library.run([device.address(a) for a in arrays], dict(zip(self.sizes, env, strict=True)))
        self.calls += 1
        return results

    def call_flat(self, leaves: Sequence[Any]) -> Any:
        return _build(self.out_tree, self.run_flat(leaves))

    def __call__(self, *leaves: Any) -> Any:
        return self.call_flat(leaves)


def _whole(device: Any, value: Any) -> Any:
    """The device's array of a value, C-contiguous, at an address that suits the widest accesses; a copy where it was not so."""
    array = device.asarray(value)
    if array.flags.c_contiguous and device.address(array) % ALIGNMENT == 0:
        return array
    copy = device.empty(array.shape, array.dtype)
    copy[...] = array
    return copy
