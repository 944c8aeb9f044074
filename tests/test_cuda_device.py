"""How CuPy is called: orders and arguments, checked against a CuPy of our own that writes down what it is asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy, FakeStream

from xlc.backends.cuda import device as devices
from xlc.backends.cuda.chip import CHIPS, chip
from xlc.backends.cuda.device import AbsentDevice, CupyDevice
from xlc.errors import XlcError, XlcTypeError, XlcValueError


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    fake = FakeCupy()
    monkeypatch.setattr(devices, "_cupy", lambda: fake)
    devices.numbered.cache_clear()
    yield fake
    devices.numbered.cache_clear()


@pytest.fixture
def gpu(cupy: FakeCupy) -> CupyDevice:
    return devices.current()


def test_the_limits_are_read_from_the_device(gpu: CupyDevice) -> None:
    assert (gpu.name, gpu.arch, gpu.chip.name) == ("cuda:0", "sm_90", "NVIDIA H200")
    table = chip("sm_90a")
    for field in ("sms", "shared_block", "shared_sm", "threads", "l2", "registers"):
        assert getattr(gpu.chip, field) == getattr(table, field)
    assert gpu is devices.current() and gpu is devices.numbered(0)


def test_a_launch_passes_the_table_by_value(cupy: FakeCupy, gpu: CupyDevice) -> None:
    table = np.arange(5, dtype=np.int64)
    l0 = gpu.load("", b"cubin").function("l0")
    gpu.launch(l0, 7, 1024, table)
    gpu.launch(l0, 3, 0, table[:1], cooperative=True)
    assert cupy.calls == [("load", 0), ("launch", "l0", (7,), 1024, table.tobytes()),
                          ("launch", "l0", (3,), 0, table[:1].tobytes(), "cooperative")]


def test_more_shared_memory_is_asked_for_once(cupy: FakeCupy, gpu: CupyDevice) -> None:
    l0, table = gpu.load("", b"cubin").function("l0"), np.zeros(2, np.int64)
    for shared in (48 << 10, 100 << 10, 64 << 10, 100 << 10, 227 << 10):
        gpu.launch(l0, 1, shared, table)
    assert [c[3] for c in cupy.calls if c[0] == "allow"] == [100 << 10, 227 << 10]
    with pytest.raises(XlcError, match="l0 asks for 233472 bytes of shared memory; a block of cuda:0 .sm_90. may have 232448"):
        gpu.launch(l0, 1, 228 << 10, table)
    assert gpu.resident(l0, 0) == 132 * 8


def test_code_that_the_driver_does_not_load(gpu: CupyDevice) -> None:
    with pytest.raises(XlcError, match=r"cuda:0 \(sm_90\).*NO_BINARY.*knows CUDA 12.4; NVRTC must not be of a later"):
        gpu.load("", b"of another chip")


def launches(gpu: CupyDevice) -> Any:
    """A plan of two launches."""
    module = gpu.load("", b"cubin")
    l0, l1 = module.function("l0"), module.function("l1")

    def record(place: np.ndarray) -> None:
        gpu.launch(l0, 4, 0, place)
        gpu.launch(l1, 2, 64, place)

    return module, record


def test_a_plan_is_captured_once_and_replayed(cupy: FakeCupy, gpu: CupyDevice) -> None:
    module, record = launches(gpu)
    replay = gpu.replay(module, 24, record)
    cupy.calls.clear()
    for k in range(4):
        replay(np.full(3, k, np.int64))
    place = np.array([0x10000], np.uint64).tobytes()
    tables = [("launch", "xlc_set_table", (1,), 0, place, np.full(3, k, np.int64).tobytes()) for k in range(4)]
    graph = ("graph", 0, "l0", "l1")
    assert cupy.calls == [("alloc", 24), tables[0], ("launch", "l0", (4,), 0, place), ("launch", "l1", (2,), 64, place),
                          tables[1], ("begin",), ("end",), graph, tables[2], graph, tables[3], graph]


def test_each_stream_has_its_own_table(cupy: FakeCupy, gpu: CupyDevice) -> None:
    module, record = launches(gpu)
    replay, table = gpu.replay(module, 24, record), np.zeros(3, np.int64)
    for _ in range(3):
        replay(table)
        with FakeStream(cupy, 5):
            replay(table)
    places = [c[4] for c in cupy.calls if c[1:2] == ("xlc_set_table",)]
    assert len(set(places)) == 2 and places == places[:2] * 3
    assert [c[1] for c in cupy.calls if c[0] == "graph"] == [0, 5, 0, 5] and cupy.calls.count(("begin",)) == 2
    for number in range(10, 10 + 2 * devices.STREAMS):
        with FakeStream(cupy, number):
            replay(table)
    assert len(replay._recordings) == devices.STREAMS


def test_inside_a_capture_of_the_user_launches_are_captured(cupy: FakeCupy, gpu: CupyDevice) -> None:
    module, record = launches(gpu)
    replay, table, stream = gpu.replay(module, 24, record), np.zeros(3, np.int64), FakeStream(cupy, 5)
    with stream:
        stream.begin_capture()
        replay(table)
        replay(table)
        stream.end_capture().launch()
    assert cupy.calls[-1] == ("graph", 5, *["xlc_set_table", "l0", "l1"] * 2)


def test_a_failing_capture_is_ended(cupy: FakeCupy, gpu: CupyDevice) -> None:
    def fails() -> None:
        raise XlcError("no")

    with pytest.raises(XlcError, match="no"):
        devices.capture(gpu, fails)
    assert cupy.calls == [("begin",), ("end",)] and len(cupy.streams) == 1


def test_threads_take_turns(cupy: FakeCupy, gpu: CupyDevice) -> None:
    """No table of another call comes between a table and the launches that read it."""
    module, record = launches(gpu)
    replay = gpu.replay(module, 8, record)
    replay(np.zeros(1, np.int64))
    threads = [threading.Thread(target=lambda k=k: [replay(np.full(1, k, np.int64)) for _ in range(50)]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [c[1] if c[0] == "launch" else c[0] for c in cupy.calls if c[0] in ("launch", "graph")][3:]
    assert names == ["xlc_set_table", "graph"] * 200


def test_a_table_that_no_argument_holds(gpu: CupyDevice) -> None:
    with pytest.raises(XlcError, match="a table of 40000 bytes is too large"):
        gpu.replay(gpu.load("", b"cubin"), 40000, lambda place: None)


def test_work_goes_to_the_device_of_its_arrays(cupy: FakeCupy) -> None:
    other = devices.numbered(1)
    assert other.empty((2, 3), np.float32).device.id == 1
    other.load("", b"cubin")
    assert cupy.calls == [("load", 1)] and cupy.device == 0
    with pytest.raises(XlcValueError, match="there is no cuda:2; this machine has 2 GPUs"):
        devices.numbered(2)


def test_memory(cupy: FakeCupy, gpu: CupyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    space = gpu.workspace(1000)
    assert space.address == 0x10000 and cupy.calls == [("alloc", 1000)]
    array = gpu.empty((3,), np.int8)
    assert gpu.owns(array) and not devices.numbered(1).owns(array) and not gpu.owns(np.zeros(3)) and gpu.address(array) == 4096
    assert gpu.asarray(array) is array
    assert gpu.asarray([1.0, 2.0]).shape == (2,) and cupy.calls[-1] == ("copy", np.ndarray)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert devices.owner(array) is gpu and devices.owner(np.zeros(3)) is None


def test_arrays_of_other_libraries(cupy: FakeCupy, gpu: CupyDevice) -> None:
    class Tensor:
        shape, dtype = (3,), "float32"

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    tensor: Any = Tensor()
    gpu.asarray(tensor)
    assert cupy.calls == [("from_dlpack", Tensor)]
    cupy.__version__ = "13.6.0"  # type: ignore[misc]
    tensor.dtype = "torch.bfloat16"
    with pytest.raises(XlcTypeError, match="CuPy 13.6.0 has no bfloat16: install cupy 14 or later"):
        gpu.asarray(tensor)


def test_a_chip_that_is_not_here() -> None:
    absent = AbsentDevice("sm_90a")
    assert absent.arch == "sm_90a" and absent.chip is CHIPS["sm_90"] and absent.chip.target == "sm_90a" and not absent.owns(np.zeros(1))
    assert chip("sm_80").target == "sm_80"
    assert chip("sm_107").sms == chip("sm_100").sms
    assert (chip("sm_88").arch, chip("sm_88").shared_block) == ("sm_88", chip("sm_86").shared_block)
    for act in (lambda: absent.load("", b""), lambda: absent.empty((1,), "f4"), lambda: absent.asarray([1])):
        with pytest.raises(XlcError, match="compiled for sm_90a, which is not here"):
            act()
    for wrong in ("sm_10", "sm_130", "gfx90a", ""):
        with pytest.raises(XlcValueError, match="sm_75, sm_80"):
            AbsentDevice(wrong)


def test_without_a_gpu(cupy: FakeCupy) -> None:
    def no_driver() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    for missing in (no_driver, lambda: 0):
        cupy.cuda.runtime.getDeviceCount = missing
        assert devices.count() == 0
        with pytest.raises(XlcError, match="there is no GPU that can be used here.*cuda:sm_90"):
            devices.current()


def test_cupy_has_what_is_called() -> None:
    """Names alone: nothing runs without a GPU."""
    cupy = pytest.importorskip("cupy")
    runtime, driver = cupy.cuda.runtime, cupy.cuda.driver
    assert driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8
    for holder, names in ((runtime, ["getDeviceCount", "getDevice", "driverGetVersion", "deviceGetAttribute", "getDeviceProperties"]),
                          (driver, ["funcSetAttribute", "occupancyMaxActiveBlocksPerMultiprocessor"]),
                          (cupy.cuda, ["Device", "Stream", "alloc", "get_current_stream"]),
                          (cupy.cuda.function.Module, ["load", "get_function"]),
                          (cupy.cuda.Stream, ["begin_capture", "end_capture", "is_capturing"]), (cupy.cuda.graph.Graph, ["launch"]),
                          (cupy, ["ndarray", "empty", "asarray", "asnumpy", "from_dlpack"])):
        assert [n for n in names if not hasattr(holder, n)] == []
    numbers = {"ComputeCapabilityMajor": 75, "ComputeCapabilityMinor": 76, "MultiProcessorCount": 16, "L2CacheSize": 38,
               "MaxSharedMemoryPerBlockOptin": 97, "MaxSharedMemoryPerMultiprocessor": 81, "MaxThreadsPerMultiProcessor": 39,
               "MaxRegistersPerMultiprocessor": 82}
    assert {n: v for n, v in numbers.items() if getattr(runtime, f"cudaDevAttr{n}", v) != v} == {}
