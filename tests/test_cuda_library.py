"""Contractions that a library computes: only large ones, only when asked for, only those with nothing fused to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cuda_backend
import numpy as np
import pytest

import xlc
from xlc.backends.cuda.schedule import library
from xlc.ir.parse_kernel import parse_kernel
from xlc.pipeline import backend_for

pytestmark = pytest.mark.skipif(cuda_backend.MISSING is not None, reason=str(cuda_backend.MISSING))
rng = np.random.default_rng(0)
A, B = (rng.normal(size=s).astype(np.float32) for s in ((48, 40), (40, 56)))
PROGRAMS: dict[str, tuple[Callable[..., Any], int]] = {
    "plain": (lambda a, b: a @ b, 1),
    "both transposed": (lambda a, b: (b.T @ a.T).T, 1),
    "batched": (lambda a, b: np.stack([a, -a]) @ np.stack([b, b]), 1),
    "with an epilogue": (lambda a, b: np.tanh(a @ b), 0),
    "between kernels": (lambda a, b: np.cumsum(np.cumsum(a, axis=1) @ b, axis=0), 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_the_library_computes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LARGE", 1000)
    f, products = PROGRAMS[name]
    device = backend_for("shim").device
    before = device.products
    with xlc.config.context(cuda_library="cublas"):
        got = xlc.jit(f, device="shim")(A, B)
    assert device.products - before == products
    np.testing.assert_allclose(got, f(A.astype(np.float64), B.astype(np.float64)), rtol=1e-4, atol=1e-4)
    xlc.jit(f, device="shim")(A, B)
    assert device.products - before == products  # off unless it is asked for


def test_small_ones_are_ours() -> None:
    with xlc.config.context(cuda_library="cublas"):
        (kernel,) = xlc.jit(lambda a, b: a @ b, device="shim").compile(A, B).kernels
    assert not kernel.library


def test_a_claim_prints_and_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LARGE", 1000)
    with xlc.config.context(cuda_library="cublas"):
        (kernel,) = xlc.jit(lambda a, b: a @ b, device="shim").compile(A, B).kernels
    assert kernel.library == ("matmul", 0, 1, 1, 48, 56, 40, 0, 0)
    assert "library(matmul, 0, 1, 1, 48, 56, 40, 0, 0)" in str(kernel)
    assert parse_kernel(str(kernel)) == kernel
