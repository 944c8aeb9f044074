"""Options of the test suite."""

from __future__ import annotations

import os
import time
from typing import Any

import cuda_backend
import pytest

cuda_backend.install()
UNTIL = float(os.environ.get("XLC_TESTS_UNTIL", "inf"))
"""The time, in seconds of the epoch, after which no test begins: what was found by then is reported, whatever happens next."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected part of the files in tests/golden")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > UNTIL:
        pytest.skip("time is up")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def cuda_device() -> Any:
    """What CUDA text runs on: the shim on the CPU, or with ``XLC_CUDA_DEVICE=gpu`` CuPy's current device."""
    which = os.environ.get("XLC_CUDA_DEVICE", "shim")
    if which == "gpu":
        return cuda_backend.gpu().device
    if which != "shim":
        raise pytest.UsageError(f"XLC_CUDA_DEVICE={which!r}: expected gpu, or shim")
    from cuda_shim import MISSING, ShimDevice

    return pytest.skip(MISSING) if MISSING else ShimDevice()
