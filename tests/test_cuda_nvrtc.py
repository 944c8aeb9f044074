"""NVRTC through ctypes: machine code, resources and messages, without a GPU."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from xlc.backends.cuda import nvrtc
from xlc.errors import XlcError, XlcImportError, XlcValueError

pytestmark = pytest.mark.skipif(not nvrtc.available(), reason="NVRTC is not installed (pip install nvidia-cuda-nvrtc)")

ADD = """
extern "C" __global__ void __launch_bounds__(256) add(const float* x, float* y, int n) {
  __shared__ float s[300];
  int i = blockIdx.x * 256 + threadIdx.x;
  s[threadIdx.x] = i < n ? x[i] : 0;
  __syncthreads();
  y[i] = s[threadIdx.x ^ 1] + 1;
}
"""
LOCAL = """
extern "C" __global__ void indexed(const float* x, const int* at, float* y) {
  float a[100];
  for (int i = 0; i < 100; i++) a[i] = x[i];
  y[0] = a[at[0]];
}
"""
SPILL = """
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(const float* x, float* y) {
  float a[64];
  for (int i = 0; i < 64; i++) a[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
  for (int i = 0; i < 64; i++) y[i * 1024 + threadIdx.x] = a[i] * a[63 - i];
}
"""


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_90a"])
def test_machine_code_and_resources(arch: str) -> None:
    done = nvrtc.compile(ADD, arch)
    assert done.cubin[:4] == b"\x7fELF" and b"add" in done.cubin
    found = done.resources["add"]
    assert set(done.resources) == {"add"} and found.shared == 1200 and 4 < found.registers < 64 and not found.local
    assert f".target {arch}" in done.ptx and ".visible .entry add(" in done.ptx


def test_every_chip_that_is_supported() -> None:
    assert {"sm_75", "sm_80", "sm_90", "sm_120"} <= set(nvrtc.supported())
    for arch in nvrtc.supported():
        assert nvrtc.compile(ADD, arch).resources["add"].shared == 1200


def test_arrays_in_local_memory_and_spills_are_seen() -> None:
    found = nvrtc.compile(LOCAL + SPILL, "sm_90").resources
    assert found["indexed"].local and found["indexed"].stack == 400 and not found["indexed"].spill_stores
    assert found["spilling"].local and found["spilling"].registers == 32 and found["spilling"].spill_loads > 0


def test_what_a_called_function_takes_counts_for_its_caller() -> None:
    text = "__noinline__ float deep(const float* x, int k) { float a[50]; for (int i = 0; i < 50; i++) a[i] = x[i]; return a[k]; }\n" \
           'extern "C" __global__ void outer(float* x, const int* k) { x[0] = deep(x, k[0]); }'
    found = nvrtc.compile(text, "sm_80").resources
    assert found["outer"].registers > 0 and found["outer"].stack >= 200
    assert [r.registers for name, r in found.items() if "deep" in name] == [0]


def test_the_log_of_either_version_is_read() -> None:
    """As CUDA 12.9 and 13.5 print it for the same spilling kernel."""
    for tail in ("280 bytes cumulative stack size, 1200 bytes smem, 368 bytes cmem[0]", "1200 bytes smem"):
        log = ("ptxas warning : Registers are spilled to local memory in function 'k', 280 bytes spill stores, 400 bytes spill loads\n"
               "ptxas info    : 24 bytes gmem, 8 bytes cmem[4]\nptxas info    : Compiling entry function 'k' for 'sm_80'\n"
               "ptxas info    : Function properties for k\n"
               "ptxas         .     280 bytes stack frame, 280 bytes spill stores, 400 bytes spill loads\n"
               f"ptxas info    : Used 32 registers, used 1 barriers, {tail}\nptxas info    : Compile time = 11.321 ms")
        assert nvrtc.resources(log) == {"k": nvrtc.Resources(32, 1200, 280, 280, 400)}


def test_products_are_not_contracted() -> None:
    text = 'extern "C" __global__ void f(float* x) { x[0] = x[1] * x[2] + x[3]; }'
    assert "fma" not in nvrtc.compile(text, "sm_80").ptx
    assert "fma" in nvrtc.compile(text, "sm_80", ("--fmad=true",)).ptx


def test_an_error_shows_the_lines() -> None:
    text = "\n".join(["// first", "int f(int a) {", "  int b = a;", "  return missing + b;", "}", "// last"])
    with pytest.raises(XlcError) as error:
        nvrtc.compile(text, "sm_80")
    message = str(error.value)
    assert 'xlc.cu(4): error: identifier "missing" is undefined' in message and "NVRTC_ERROR_COMPILATION" in message
    shown = message[message.index("     2  int f"):]
    assert ">     4    return missing + b;" in shown and "      5  }" in shown and "first" not in shown


def test_what_the_assembler_rejects_is_an_error() -> None:
    with pytest.raises(XlcError, match="Not a name of any known instruction: 'bogus'"):
        nvrtc.compile('extern "C" __global__ void f() { asm volatile("bogus;"); }', "sm_80")
    with pytest.raises(XlcError, match="240000 bytes smem"):
        nvrtc.compile(ADD.replace("s[300]", "s[60000]"), "sm_80")


@pytest.mark.parametrize("arch", ["sm_20", "90", "gfx90a", "", "sm_90 "])
def test_a_chip_that_is_not_known(arch: str) -> None:
    with pytest.raises(XlcValueError, match="there are sm_75, .*sm_90"):
        nvrtc.compile(ADD, arch)


def test_two_threads_compile_at_once() -> None:
    """Each waits until both are inside, so that the calls overlap; each gets its own program and log."""
    together = threading.Barrier(2, timeout=60)

    def compile_one(name: str) -> nvrtc.Compiled:
        together.wait()
        return nvrtc.compile(ADD.replace("add", name).replace("300", "400" if name == "one" else "500"), "sm_90")

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(compile_one, ["one", "two"])
    assert one.resources["one"].shared == 1600 and two.resources["two"].shared == 2000
    assert nvrtc.compile(one.text, "sm_90").cubin == one.cubin


def test_where_the_library_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12", "cuda_nvrtc/lib/libnvrtc.alt.so.12"):
        file = tmp_path / "site" / "nvidia" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    toolkit = tmp_path / "toolkit" / "lib64" / "libnvrtc.so.12"
    toolkit.parent.mkdir(parents=True)
    toolkit.touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path / "site/nvidia")]))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    monkeypatch.setenv("CUDA_PATH", str(toolkit.parent.parent))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    found = [Path(p).relative_to(tmp_path).parts[-3:] if Path(p).is_absolute() else (p,) for p in nvrtc.places()]
    assert found == [("cu13", "lib", "libnvrtc.so.13"), ("cuda_nvrtc", "lib", "libnvrtc.so.12"), ("toolkit", "lib64", "libnvrtc.so.12"),
                     ("libnvrtc.so.13",), ("libnvrtc.so.12",), ("libnvrtc.so",)]


def test_no_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "places", lambda: iter(["/nowhere/libnvrtc.so.13"]))
    nvrtc._library.cache_clear()
    try:
        assert not nvrtc.available()
        with pytest.raises(XlcImportError, match="pip install nvidia-cuda-nvrtc\n  /nowhere/libnvrtc.so.13: "):
            nvrtc._library()
    finally:
        nvrtc._library.cache_clear()


def test_functions_of_the_prelude_that_a_module_does_not_need_are_no_warnings() -> None:
    assert "warning" not in nvrtc.compile("static __device__ int spare(int a) { return a; }\n" + ADD, "sm_80").log


def test_what_nvrtc_opens_by_its_name_is_loaded_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel of CUDA 13.0 has no path to its own folder: "failed to open libnvrtc-builtins.so.13.0"."""
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0"):
        (tmp_path / name).touch()
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(Path(name).name)
        return MagicMock()

    monkeypatch.setattr(nvrtc, "places", lambda: iter([str(tmp_path / "libnvrtc.so.13")]))
    monkeypatch.setattr(nvrtc.ctypes, "CDLL", load)
    nvrtc._library.__wrapped__()
    assert loaded == ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]
