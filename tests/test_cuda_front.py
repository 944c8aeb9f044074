"""Where a call runs, and what it says when that cannot be: arrays that claim to be on a GPU, programs for chips that are not here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cuda_backend
import numpy as np
import pytest

import xlc
from xlc.backends.cuda import nvrtc
from xlc.frontend.devices import common_device, device_of

needs_shim = pytest.mark.skipif(cuda_backend.MISSING is not None, reason=str(cuda_backend.MISSING))
needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason="needs NVRTC: pip install nvidia-cuda-nvrtc")


class Gpu:
    """An array on a GPU, as far as the front end looks at it."""

    def __init__(self, number: int, shape: tuple[int, ...] = (3,)):
        self.number, self.shape, self.dtype = number, shape, np.dtype(np.float32)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.number

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("nothing is copied before it is known where it goes")


def test_where_arrays_are() -> None:
    assert device_of(Gpu(1)) == "cuda:1"
    assert [device_of(v) for v in (np.ones(3), 1, 2.5, np.float32(1), None, True)] == [None] * 6


def test_calls_run_where_their_arrays_are() -> None:
    assert common_device(None, [1.0, np.ones(3)], ["a", "b"], "f") is None
    assert common_device(None, [Gpu(1), 2.0], ["a", "b"], "f") == "cuda:1"
    assert common_device("cuda", [Gpu(1), np.ones(3)], ["a", "b"], "f") == "cuda:1"


@pytest.mark.parametrize(("wanted", "arguments", "words"), [
    (None, (Gpu(0), Gpu(1)), r"a is on cuda:0 and b is on cuda:1; move them to one device"),
    (None, (Gpu(0), np.ones(3)), r"a is on cuda:0 and b is a NumPy array; move one of them"),
    ("cpu", (Gpu(0), 1.0), r"a is on cuda:0, and the function is compiled for cpu"),
    ("cuda:1", (Gpu(0), 1.0), r"a is on cuda:0, and the function is compiled for cuda:1"),
])
def test_mixed_devices_are_an_error(wanted: str | None, arguments: tuple[Any, ...], words: str) -> None:
    f = xlc.jit(lambda a, b: a + b, device=wanted)
    with pytest.raises(xlc.XlcTypeError, match=rf"test_cuda_front\.py:\d+: .*{words}"):
        f(*arguments)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:sm_1"])
def test_devices_that_do_not_exist(device: str) -> None:
    with pytest.raises(xlc.XlcError, match=r"there is no|sm_1"):
        xlc.jit(lambda x: x + 1, device=device)(np.ones(3))


@needs_nvrtc
def test_code_for_a_chip_that_is_not_here() -> None:
    f = xlc.jit(lambda x: np.exp(x) + 1, device="cuda:sm_90")
    program = f.compile(np.ones((64, 100), np.float32))
    module = program.asm["module"]
    assert module["cubin"][:4] == b"\x7fELF" and ".target sm_90" in module["ptx"] and "k0" in module["cuda"]
    assert not any(r.local for r in module["resources"].values())
    assert "__device__ void k0" in program.asm["k0"]["cuda"]
    with pytest.raises(xlc.XlcError, match="compiled for sm_90, which is not here"):
        f(np.ones((64, 100), np.float32))


@needs_nvrtc
def test_the_chip_is_a_knob() -> None:
    with xlc.config.context(cuda_arch="sm_80"):
        program = xlc.jit(lambda x: x + 1, device="cuda").compile(np.ones(3))
        assert ".target sm_80" in program.asm["module"]["ptx"]


@needs_shim
def test_calls_on_a_device_are_compiled_once_and_told_apart() -> None:
    f = xlc.jit(lambda x, k: {"y": x * k, "z": (x.sum(), None)}, device="shim")
    for shape in ((3, 5), (4, 5), (3, 5)):
        for k in (2.0, 3, np.float32(4)):
            x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            got = f(x, k)
            np.testing.assert_array_equal(got["y"], x * k)
            assert got["y"].dtype == (x * k).dtype and got["z"][1] is None
            np.testing.assert_allclose(got["z"][0], x.sum())
            np.testing.assert_array_equal(f(x, k=k)["y"], x * k)
    assert f.compiles == 6
    with xlc.config.context(strict=True):
        f(x, 2.0)
    assert f.compiles == 7


@needs_shim
def test_views_and_byte_offsets_are_copied_first() -> None:
    f = xlc.jit(lambda x: x * 2, device="shim")
    base = np.arange(64, dtype=np.float32)
    for x in (base[1:], base[::2], base.reshape(8, 8).T, base[::-1], base[:0], base[3]):
        np.testing.assert_array_equal(f(x), x * 2)


@needs_shim
def test_donated_arrays_are_reused() -> None:
    device = xlc.pipeline.backend_for("shim").device
    f = xlc.jit(lambda x: x + 1, device="shim", donate="x")
    x = device.asarray(np.ones(1000, np.float32))
    y = f(x)
    assert device.address(y) == device.address(x)
    np.testing.assert_array_equal(y, np.full(1000, 2, np.float32))


@needs_shim
def test_a_donated_array_that_is_passed_twice_is_copied() -> None:
    device = xlc.pipeline.backend_for("shim").device
    f = xlc.jit(lambda x, y: (x + 1, y[::-1] * 2), device="shim", donate="x")
    for _ in range(2):
        x = device.asarray(np.arange(1000, dtype=np.float32))
        a, b = f(x, x)
        np.testing.assert_array_equal(a, np.arange(1000) + 1)
        np.testing.assert_array_equal(b, np.arange(1000)[::-1] * 2)


@needs_shim
def test_two_threads() -> None:
    f = xlc.jit(lambda x: xlc.nn.softmax(x @ x.T), device="shim")
    arrays = [np.random.default_rng(k).normal(size=(8 + k % 3, 16)).astype(np.float32) for k in range(12)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(f, arrays))
    for x, y in zip(arrays, found, strict=True):
        e = np.exp(x.astype(np.float64) @ x.T)
        np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-5)
    assert f.compiles == 3


@needs_shim
def test_named_sizes() -> None:
    f = xlc.jit(lambda x, w: np.tanh(x @ w).sum(axis=0), dynamic={"x": {0: "batch"}}, device="shim")
    w = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    for n in (1, 2, 33, 257, 0):
        x = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
        np.testing.assert_allclose(f(x, w), np.tanh(x.astype(np.float64) @ w).sum(axis=0), rtol=1e-5, atol=1e-5)
    assert f.compiles == 1


@needs_shim
def test_check_compares_every_launch() -> None:
    x = np.random.default_rng(0).normal(size=(9, 33)).astype(np.float32)
    with xlc.config.context(check=3):
        np.testing.assert_allclose(xlc.jit(lambda x: xlc.nn.softmax(x @ x.T), device="shim")(x).sum(1), np.ones(9), rtol=1e-5)


@needs_shim
def test_training_on_a_device(tmp_path: Any) -> None:
    from xlc import optim, train

    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 5)).astype(np.float32)
    y = (x @ np.arange(5)).astype(np.float32)

    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((x @ p["w"] - y) ** 2).mean()

    def fit(device: str | None, **options: Any) -> Any:
        adam = optim.adam(0.1)
        return train.fit(train.step(loss, adam), train.start({"w": np.zeros(5, np.float32)}, adam), train.Batches((x, y), 32, seed=0),
                         epochs=6, metrics=lambda s, x, y: loss(s["params"], x, y), validation=[(x, y)], device=device, **options)

    there, here = fit("shim", callbacks=[train.Checkpoints(tmp_path, every=3)]), fit(None)
    for a, b in zip(there.history, here.history, strict=True):
        np.testing.assert_allclose([a["loss"], a["val_loss"]], [b["loss"], b["val_loss"]], rtol=1e-4)
    again = fit("shim", resume=tmp_path)  # the run is over: nothing more is done
    np.testing.assert_array_equal(np.asarray(again.state["params"]["w"]), np.asarray(there.state["params"]["w"]))
