"""A CuPy without a GPU: it writes down what it is asked for, in order. Launches do nothing, or run where the test says.

    cupy = FakeCupy()                    cupy.calls: ("load", device), ("alloc", bytes), ("launch", entry, grid, shared, arguments...),
                                         ("begin",), ("end",), ("graph", stream, entries...), ("allow", ...), ("copy", ...)
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

ATTRIBUTES = {75: 9, 76: 0, 16: 132, 97: 232448, 81: 233472, 39: 2048, 38: 52428800, 82: 65536}
"""Of an H200, by their numbers in cudaDeviceAttr."""


class FakeArray:
    def __init__(self, shape: Any, dtype: Any, number: int, address: int = 4096):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.device, self.data = SimpleNamespace(id=number), SimpleNamespace(ptr=address)


class FakeCupy:
    """Two GPUs. A launch into a stream that is captured goes to the graph."""

    ndarray: type = FakeArray
    __version__ = "14.2.0"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.device, self.streams = 0, [FakeStream(self, 0)]
        self.addresses = iter(range(0x10000, 1 << 30, 0x1000))
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: 2, getDevice=lambda: self.device, driverGetVersion=lambda: 12040,
                                    deviceGetAttribute=lambda which, number: ATTRIBUTES[which],
                                    getDeviceProperties=lambda number: {"name": b"NVIDIA H200"}),
            driver=SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
                                   funcSetAttribute=lambda *args: self.calls.append(("allow", *args)),
                                   occupancyMaxActiveBlocksPerMultiprocessor=lambda f, threads, shared: 65536 // 32 // threads),
            Device=lambda number: FakeCurrent(self, number), Stream=lambda non_blocking: FakeStream(self, 77),
            get_current_stream=lambda: self.streams[-1], alloc=self.alloc, function=SimpleNamespace(Module=lambda: FakeModule(self)))

    def loaded(self, cubin: bytes) -> Callable[..., None]:
        """What runs a launch of the module: ``run(entry, blocks, shared, arguments, cooperative)``."""
        return lambda *launch: None

    def alloc(self, nbytes: int) -> Any:
        self.calls.append(("alloc", nbytes))
        return SimpleNamespace(ptr=next(self.addresses))

    def empty(self, shape: Any, dtype: Any) -> Any:
        return FakeArray(shape, dtype, self.device)

    def asarray(self, value: Any) -> Any:
        self.calls.append(("copy", type(value)))
        return FakeArray(value.shape, value.dtype, self.device)

    def from_dlpack(self, value: Any) -> Any:
        self.calls.append(("from_dlpack", type(value)))
        return FakeArray(value.shape, value.dtype, self.device)


class FakeCurrent:
    def __init__(self, cupy: FakeCupy, number: int):
        self.cupy, self.number = cupy, number

    def __enter__(self) -> None:
        self.outer, self.cupy.device = self.cupy.device, self.number

    def __exit__(self, *exc: object) -> None:
        self.cupy.device = self.outer


class FakeStream:
    def __init__(self, cupy: FakeCupy, number: int):
        self.cupy, self.ptr = cupy, number
        self.recorded: list[tuple[str, Callable[[], None]]] | None = None

    def __enter__(self) -> FakeStream:
        self.cupy.streams.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.cupy.streams.pop()

    def begin_capture(self) -> None:
        assert self.ptr not in (0, 1, 2)
        self.recorded = []
        self.cupy.calls.append(("begin",))

    def end_capture(self) -> Any:
        recorded, self.recorded = self.recorded or [], None
        self.cupy.calls.append(("end",))

        def launch() -> None:
            self.cupy.calls.append(("graph", self.cupy.streams[-1].ptr, *(name for name, _ in recorded)))
            for _, run in recorded:
                run()

        return SimpleNamespace(launch=launch)

    def is_capturing(self) -> bool:
        return self.recorded is not None

    def synchronize(self) -> None:
        raise AssertionError("the host waits for the device")


class FakeModule:
    def __init__(self, cupy: FakeCupy):
        self.cupy = cupy

    def load(self, cubin: bytes) -> None:
        if not cubin.startswith((b"cubin", b"\x7fELF")):
            raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")
        self.cupy.calls.append(("load", self.cupy.device))
        self.run = self.cupy.loaded(cubin)

    def get_function(self, name: str) -> Any:
        def start(grid: Any, block: Any, args: Any, shared_mem: int, enable_cooperative_groups: bool) -> None:
            assert block == (256,) and all(isinstance(a, np.ndarray) and a.size == 1 for a in args)
            taken = [a.tobytes() for a in args]  # the driver copies arguments at the launch

            def run() -> None:
                self.run(name, grid[0], shared_mem, taken, enable_cooperative_groups)

            recorded = self.cupy.streams[-1].recorded
            if recorded is not None:
                recorded.append((name, run))
                return
            self.cupy.calls.append(("launch", name, grid, shared_mem, *taken, *(["cooperative"] if enable_cooperative_groups else [])))
            run()

        start.ptr = hash(name)  # type: ignore[attr-defined]
        return start
