"""Kernels that are compiled once, whatever program they are in; and what spills is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cuda_backend
import cuda_units
import numpy as np
import pytest

import xlc
from xlc import config
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.module import emit_module

pytestmark = pytest.mark.skipif(not nvrtc.available(), reason="needs NVRTC: pip install nvidia-cuda-nvrtc")
X = np.ones((40, 50), "f4")


def program(f: Any, *args: Any) -> Any:
    return xlc.jit(f, device="cuda:sm_90").compile(*args).program


def units(f: Any, *args: Any, graph: bool = False) -> list[cuda_units.Unit]:
    return list(cuda_units.units(emit_module(program(f, *args).plan), graph))


def test_a_kernel_is_one_unit_wherever_it_stands() -> None:
    (one,) = units(lambda x: np.sum(x, 1), X)
    several = units(lambda y, x: (np.cumsum(y), np.sum(x, 1)), X[0], X)
    assert len(several) == 2 and one in several and one.note == "// sum"
    assert one != units(lambda x: np.sum(x, 1), X, graph=True)[0]


def test_launches_that_share_an_entry_are_the_same_unit() -> None:
    (one,) = units(lambda x: np.sum(x, 1), X)
    assert set(units(lambda x, y: (np.sum(x, 1), np.sum(y, 1)), X, X)) == {one}


def test_a_loop_is_a_unit_with_its_kernels() -> None:
    found = units(lambda x: xlc.fori_loop(0, 9, lambda i, x: np.cumsum(x * 0.5, 1), x), X)
    assert [u.text.count("static __device__") for u in found if "xlc_grid_sync" in u.text] >= [1]


def test_what_is_known_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by another process, which reads the file."""
    backend, plan = cuda_backend.chip("sm_90"), program(lambda x: (np.sum(x, 1), np.cumsum(x, 0)), X).plan
    with config.context(cache_dir=str(tmp_path)):
        first, second = cuda_units._Known(backend), cuda_units._Known(backend)
    monkeypatch.setattr(cuda_units, "_known", lambda _: first)
    found = cuda_units.resources(backend, plan)
    assert len(found) == 2 and all(0 < r.registers < 255 and not r.local for _, r in found)
    monkeypatch.setattr(cuda_units, "_known", lambda _: second)
    monkeypatch.setattr(cuda_units, "_compile", lambda *_: pytest.fail("compiled again"))
    assert cuda_units.resources(backend, plan) == found
    assert first.file is not None and len(first.file.read_text().splitlines()) == 2


def test_a_spill_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def spilling(some: list[cuda_units.Unit], backend: Any) -> list[nvrtc.Resources]:
        """Each kernel with an array that is indexed by what is only known at run time."""
        local = "float a[999]; for (int i = 0; i < 999; ++i) a[i] = b0[i] * b0[i + 999]; b1[block] = a[(int)b0[block]];"
        return compile_([cuda_units.Unit(u.text.replace(") {\n", f") {{\n{local}\n", 1), u.tables, u.graph, u.note) for u in some], backend)

    compile_ = cuda_units._compile
    known = cuda_units._Known(cuda_backend.chip("sm_90"))
    known.file = None
    monkeypatch.setattr(cuda_units, "_known", lambda _: known)
    monkeypatch.setattr(cuda_units, "_compile", spilling)
    with pytest.raises(AssertionError, match=r"for sm_90: Resources\(registers=\d+, shared=0, stack=[34]\d\d\d, .*\n// sum\n"):
        cuda_backend.check_resources(program(lambda x: np.sum(x, 1), X))
