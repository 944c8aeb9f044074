"""The GPU of this machine in the shim's place, so that its tests run there as they are (XLC_CUDA_DEVICE=gpu).

    device = HostSeenGpu(cupy, 0)        arrays are NumPy's, in host memory that the GPU reads and writes where it lies; whoever has
                                         launched something finds it done

Everything else is that of ``CupyDevice``: modules, launches, graphs, streams, workspace in device memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xlc.backends.cuda.device import CupyDevice, Function, LoadedModule, Record


class PinnedArray(np.ndarray):
    """An array in host memory that the GPU sees at the same address (NumPy's in every other respect)."""


class HostSeenGpu(CupyDevice):
    def __init__(self, cupy: Any, number: int):
        super().__init__(cupy, number)
        self.launches = self.products = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.frombuffer(self.cupy.cuda.alloc_pinned_memory(max(nbytes, 1)), np.uint8, max(nbytes, 1))
        memory[...] = 0xFF
        return np.ndarray(shape, dtype, memory).view(PinnedArray)

    def asarray(self, value: Any) -> Any:
        if self.owns(value):
            return value
        host = np.asarray(value)
        array = self.empty(host.shape, host.dtype)
        array[...] = host
        return array

    def copied(self, array: Any) -> Any:
        return self.asarray(np.array(array, subok=False))

    def numpy(self, array: Any) -> np.ndarray:
        return np.array(array, subok=False)

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def owns(self, value: Any) -> bool:
        return isinstance(value, PinnedArray)

    def launch(self, function: Function, grid: int, shared: int, argument: np.ndarray, cooperative: bool = False) -> None:
        super().launch(function, grid, shared, argument, cooperative)
        self.launches += 1
        if not self.capturing():
            self.settle()

    def replay(self, module: LoadedModule, nbytes: int, record: Record) -> Callable[[np.ndarray], bool]:  # type: ignore[override]
        replay = super().replay(module, nbytes, record)

        def run(table: np.ndarray) -> bool:
            captured = replay(table)
            self.settle()
            return captured

        return run

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        super().matmul(a, b, out)
        self.products += 1
        self.settle()
