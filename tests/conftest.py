"""Options of the test suite."""

from __future__ import annotations

import os
from typing import Any

import cuda_backend
import pytest

cuda_backend.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected part of the files in tests/golden")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def cuda_device() -> Any:
    """What CUDA text runs on: the shim on the CPU, or with ``XLC_CUDA_DEVICE=gpu`` CuPy's current device."""
    which = os.environ.get("XLC_CUDA_DEVICE", "shim")
    if which == "gpu":
        from xlc.backends.cuda import device

        return device.current()
    if which != "shim":
        raise pytest.UsageError(f"XLC_CUDA_DEVICE={which!r}: expected gpu, or shim")
    from cuda_shim import MISSING, ShimDevice

    return pytest.skip(MISSING) if MISSING else ShimDevice()
