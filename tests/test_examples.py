"""The examples run: NumPy programs of the documentation under ``jit`` equal NumPy, and the demonstration goes from training to C."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xlc
from xlc.ir.verify import verify_kernel

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize("name", ["numpy_vector_quantization", "numpy_mnist", "numpy_lstm"])
def test_numpy_programs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert "NumPy: " in capsys.readouterr().out


def test_demo(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    done = subprocess.run([sys.executable, str(EXAMPLES / "demo.py"), "--smoke", str(tmp_path)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    for text in ("accuracy in Python", "digits.so", "digits.h", "report.html", "fused", "unfused"):
        assert text in done.stdout
    if shutil.which("cc"):
        assert "accuracy in C" in done.stdout and "peak resident" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3 and "http://" not in page and "https://" not in page and "<script" not in page


@pytest.mark.parametrize("name, shown", [("regression", "iris, test errors"), ("mlp_best_practice", "bit for bit: True")])
def test_programs_that_train(name: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                             capsys: pytest.CaptureFixture[str]) -> None:
    """Each states what it must reach, and asserts it."""
    for package in ("sklearn", "safetensors", "tensorboard"):
        pytest.importorskip(package)
    monkeypatch.setattr("sys.argv", [name, "--smoke", str(tmp_path)])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert shown in capsys.readouterr().out
    if name == "mlp_best_practice":
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")  # goes on from its checkpoint: nothing is left to do
        assert "10 epochs, 130 steps, 0 compilation" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_lenet", "train_style", "train_sequences"])
def test_networks_that_train(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each states what it must reach, and asserts it."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr("sys.argv", [name, "--smoke", *([str(tmp_path)] if name == "train_style" else [])])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_a_producer_of_part_of_a_concatenation_is_not_computed_beyond_its_end() -> None:
    x, y, w = np.random.rand(64), np.random.rand(50), np.random.rand(64, 64)
    for f in (lambda x, y, w: (np.concatenate([h := np.exp(x) * 2, y]), h), lambda x, y, w: np.concatenate([np.exp(w @ x), y]),
              lambda x, y, w: np.concatenate([np.exp(w).sum(1), y]), lambda x, y, w: np.pad((np.tanh(w) * x).max(1), (3, 50))):
        jitted = xlc.jit(f)
        for kernel in jitted.compile(x, y, w).plan.kernels:
            assert not [problem for problem in verify_kernel(kernel) if "may reach" in problem]
        np.testing.assert_allclose(np.hstack(jitted(x, y, w)), np.hstack(f(x, y, w)), rtol=1e-12)
