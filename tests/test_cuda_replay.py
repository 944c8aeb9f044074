"""The way of a plan on a GPU, from NVRTC's cubin over a launch or a captured graph to results, with a CuPy whose launches run the same
text on the shim. Streams, graphs and arguments are the real ones of ``CupyDevice``; the chip is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_cupy import RunningCupy, standing_in

import xlc
from xlc.backends.cuda import device as devices
from xlc.backends.cuda import nvrtc

shim = pytest.importorskip("cuda_shim", reason="tests/cuda_shim is not there")
pytest.importorskip("xlc.backends.cuda.backend", reason="the backend is not there")
pytestmark = pytest.mark.skipif(bool(shim.MISSING) or not nvrtc.available(), reason="needs NVRTC and what the shim needs")


@pytest.fixture
def cupy() -> Iterator[RunningCupy]:
    with standing_in(RunningCupy(), nvrtc=True) as fake, xlc.config.context(cache_dir=""):
        yield fake


def called(cupy: RunningCupy, f: Callable[..., Any], *args: np.ndarray) -> list[str]:
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


def test_a_plan_of_one_launch_is_launched(cupy: RunningCupy) -> None:
    assert called(cupy, lambda x: np.tanh(x) * 2 + x, rows(37, 131)) == ["l0"] * 3


def test_a_plan_of_many_is_captured_and_replayed_on_new_arguments(cupy: RunningCupy) -> None:
    started = called(cupy, lambda x, w: (np.maximum(x @ w, 0) @ w.T, x.sum(0), np.sort(x, axis=-1)), rows(9, 131), rows(131, 17))
    first, rest = started[:started.index("begin")], started[started.index("begin"):]
    assert rest == ["begin", "graph", "xlc_set_table", "graph"]
    assert first[0] == first[-1] == "xlc_set_table" and len(first) > 4


def test_launches_of_one_kernel_share_an_entry(cupy: RunningCupy) -> None:
    """NVRTC's time is that of the kernels, however often they are launched; each launch says where its arrays are."""
    def layers(x: Any, ws: Any) -> Any:
        for w in ws:
            x = np.tanh(x @ w)
        return x, x.sum(0)

    x, ws = rows(37, 16), [rows(16, 16) * (1 + k / 10) for k in range(6)]
    started = called(cupy, lambda x, *ws: layers(x, ws), x, *ws)
    assert started.count("l0") == 6 and len({n for n in started if n[0] == "l"}) == 2
    f = xlc.jit(layers, dynamic={"x": {0: "n"}}, device="cuda")
    for n in (3, 70, 3, 3):
        found, total = f(x[:n] if n < 37 else rows(n, 16), ws)
        expected = layers(x[:n] if n < 37 else rows(n, 16), ws)
        np.testing.assert_allclose(found.get(), expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(total.get(), expected[1], rtol=1e-4, atol=1e-4)
    module = xlc.jit(layers, device="cuda:sm_90").compile(x, ws).asm["module"]
    assert set(module["resources"]) == {"l0", "l6"} and not module["resources"]["l0"].local
