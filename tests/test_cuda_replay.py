"""The way of a plan on a GPU, from NVRTC's cubin over a launch or a captured graph to results, with a CuPy whose launches run the same
text on the shim. Streams, graphs and arguments are the real ones of ``CupyDevice``; the chip is not."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy

import xlc
from xlc.backends.cuda import device as devices
from xlc.backends.cuda import nvrtc

shim = pytest.importorskip("cuda_shim", reason="tests/cuda_shim is not there")
pytest.importorskip("xlc.backends.cuda.backend", reason="the backend is not there")
pytestmark = pytest.mark.skipif(bool(shim.MISSING) or not nvrtc.available(), reason="needs NVRTC and what the shim needs")


class Array(shim.ShimArray):  # type: ignore[misc,name-defined]
    """Memory of the shim, with the attributes of CuPy's arrays that are asked for."""

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=0)

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


class ShimmedCupy(FakeCupy):
    """``sources`` has the text of every cubin that is loaded."""

    ndarray = Array

    def __init__(self) -> None:
        super().__init__()
        self.shim = shim.ShimDevice(arch="sm_90")
        self.sources: dict[bytes, str] = {}

    def loaded(self, cubin: bytes) -> Callable[..., None]:
        code, sizes = self.shim.load(self.sources[cubin]), dict[int, int]()

        def run(name: str, blocks: int, shared: int, arguments: list[bytes], cooperative: bool) -> None:
            place = int.from_bytes(arguments[0][:8], "little")
            if name == devices.SET_TABLE:
                ctypes.memmove(place, arguments[1], len(arguments[1]))
                sizes[place] = len(arguments[1])
                return
            table = ctypes.string_at(place, sizes[place]) if sizes else arguments[0]
            self.shim.launch(code.function(name), blocks, shared, np.frombuffer(table, np.uint8), cooperative)

        return run

    def alloc(self, nbytes: int) -> Any:
        memory = self.empty((nbytes,), np.uint8)
        self.calls.append(("alloc", nbytes))
        return SimpleNamespace(ptr=memory.ctypes.data, memory=memory)

    def empty(self, shape: Any, dtype: Any) -> Any:
        return self.shim.empty(tuple(shape), dtype).view(Array)

    def asarray(self, value: Any) -> Any:
        made = self.empty(value.shape, value.dtype)
        made[...] = value
        return made

    def asnumpy(self, array: Any) -> np.ndarray:
        return np.array(array, subok=False)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ShimmedCupy]:
    fake = ShimmedCupy()
    load = devices.CupyDevice.load

    def remembered(self: Any, source: str, cubin: bytes) -> Any:
        fake.sources[cubin] = source
        return load(self, source, cubin)

    from xlc.backends.cuda import backend

    monkeypatch.setattr(devices.CupyDevice, "load", remembered)
    monkeypatch.setattr(devices, "_cupy", lambda: fake)
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    for kept in (backend._backend, devices.numbered):  # that of another device is not to be found, nor is this one afterwards
        kept.cache_clear()
    with xlc.config.context(cache_dir=""):
        yield fake
    for kept in (backend._backend, devices.numbered):
        kept.cache_clear()


def called(cupy: ShimmedCupy, f: Callable[..., Any], *args: np.ndarray) -> list[str]:
    """Run it three times on the device, compare with the CPU, and say what was started."""
    expected = xlc.tree.leaves(xlc.jit(f)(*args))
    compiled, gpu = xlc.jit(f, device="cuda"), devices.current()
    for k in range(3):
        given = [gpu.asarray(a * (1 + k)) for a in args]  # elsewhere, and other values: nothing may stick to a graph
        found = xlc.tree.leaves(compiled(*given))
        wanted = expected if not k else xlc.tree.leaves(xlc.jit(f)(*(a * (1 + k) for a in args)))
        for a, b in zip(found, wanted, strict=True):
            assert gpu.owns(a)
            np.testing.assert_allclose(gpu.numpy(a), b, rtol=1e-4, atol=1e-3)
    return [c[1] if c[0] == "launch" else c[0] for c in cupy.calls if c[0] in ("launch", "graph", "begin")]


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_plan_of_one_launch_is_launched(cupy: ShimmedCupy) -> None:
    assert called(cupy, lambda x: np.tanh(x) * 2 + x, rows(37, 131)) == ["l0"] * 3


def test_a_plan_of_many_is_captured_and_replayed_on_new_arguments(cupy: ShimmedCupy) -> None:
    started = called(cupy, lambda x, w: (np.maximum(x @ w, 0) @ w.T, x.sum(0), np.sort(x, axis=-1)), rows(9, 131), rows(131, 17))
    first, rest = started[:started.index("begin")], started[started.index("begin"):]
    assert rest == ["begin", "graph", "xlc_set_table", "graph"]
    assert first[0] == first[-1] == "xlc_set_table" and len(first) > 4
