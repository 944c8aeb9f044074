"""The check of a GPU machine, as far as it runs without one: sections that end well, badly or never; what is read and written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cuda_backend
import pytest

from benchmarks.gpu import __main__ as measured
from xlc.backends.cuda import device, nvrtc
from xlc.tools import gpu_check
from xlc.tools.cli import main
from xlc.tools.gpu_check import Section

PRINTS = "print('noise'); print('{\"n\": 3}')"


def section(name: str, program: str, seconds: float = 30, **more: object) -> Section:
    return Section(name, ("-c", program), seconds, lambda output, file: (found := gpu_check._last_line(output, file), f"n is {found['n']}"),
                   **more)  # type: ignore[arg-type]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count", lambda: 1)


def check(sections: list[Section], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, dict[str, object]]]:
    monkeypatch.setattr(gpu_check, "sections", lambda smoke=False: sections)
    output = tmp_path / "out" / "found.json"
    status = gpu_check.check(output)
    return status, json.loads(output.read_text())["sections"]


@pytest.mark.usefixtures("gpu")
def test_a_section_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sections = [section("good", PRINTS), section("crash", "import os; print('last words', flush=True); os.abort()"),
                section("endless", "import time; print('begun', flush=True); time.sleep(600)", 1.0),
                section("wrong", PRINTS + "; raise SystemExit(1)"), section("silent", "pass"),
                section("elsewhere", PRINTS, needs=("no/such/file",)), section("no tool", PRINTS, before=("",)), section("after", PRINTS)]
    status, found = check(sections, tmp_path, monkeypatch)
    assert status == 1
    assert [(name, o["status"]) for name, o in found.items()] == [
        ("good", "ok"), ("crash", "failed"), ("endless", "timeout"), ("wrong", "failed"), ("silent", "failed"), ("elsewhere", "skipped"),
        ("no tool", "skipped"), ("after", "ok")]
    assert found["good"]["found"] == {"n": 3} and found["crash"]["line"] == "last words" and "begun" in str(found["endless"]["tail"])
    printed = capsys.readouterr().out
    assert "n is 3" in printed and "compute-sanitizer is not on the PATH" in printed and "no/such/file is not there" in printed


@pytest.mark.usefixtures("gpu")
def test_tests_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "test_some.py"
    file.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2\n@pytest.mark.skip\ndef test_c(): pass\n")
    argv = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--junitxml={file}", str(file))
    status, found = check([Section("tests", argv, 60, gpu_check._tests)], tmp_path, monkeypatch)
    tests = found["tests"]
    assert status == 1 and tests["line"] == "1 passed, 1 failed, 1 skipped"
    assert tests["found"]["wrong"][0]["test"].endswith("test_b")  # type: ignore[index]


@pytest.mark.skipif(not nvrtc.available() or device.count() > 0, reason="for a machine with NVRTC and without a GPU")
def test_without_a_gpu_the_compiler_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "found.json"
    assert main(["gpu-check", "-o", str(output)]) == gpu_check.NO_GPU
    found = json.loads(output.read_text())["sections"]
    assert list(found) == ["compiler"] and found["compiler"]["found"]["sm_90"]["shared"] == 1024
    assert "there is no GPU" in capsys.readouterr().out


def test_the_sections_run_what_exists() -> None:
    found = {s.name: s for s in gpu_check.sections()}
    assert list(found) == ["compiler", "environment", "sanity", "benchmarks", "conformance", "networks", "memcheck", "racecheck"]
    assert gpu_check.BUDGET < 480 and "tests/test_cuda_contract.py" in found["conformance"].argv
    assert all((gpu_check.ROOT / n).exists() for s in found.values() for n in s.needs)
    assert sys.executable not in found["conformance"].argv


@pytest.mark.skipif(cuda_backend.MISSING is not None, reason=str(cuda_backend.MISSING))
def test_everything_on_a_gpu_that_is_none(tmp_path: Path) -> None:
    """Every line of the check that a GPU would run: sections, the tests with the GPU in the shim's place, the benchmarks' rows; CuPy is a
    stand-in (``dry_gpu``) that runs kernels on the shim."""
    output, here = tmp_path / "gpu.json", Path(__file__).parent
    paths = os.pathsep.join(map(str, (here / "dry_gpu", here, here.parent)))
    sections = [word for name in ("environment", "sanity", "conformance", "networks") for word in ("--section", name)]
    for argv in (["xlc.tools", "gpu-check", "--smoke", "-o", str(output), *sections],
                 ["benchmarks.gpu", "elementwise", "attention", "overhead", "--smoke", "--json", str(tmp_path / "gpu-benchmarks.json")]):
        done = subprocess.run([sys.executable, "-m", *argv], text=True, env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())["sections"]
    assert {name: o["status"] for name, o in found.items()} == dict.fromkeys(sections[1::2], "ok")
    assert found["environment"]["found"]["chip"] == "NVIDIA H200" and "14 of 14 programs right" in found["sanity"]["line"]
    assert found["conformance"]["found"]["tests"] > 5 and found["networks"]["line"] == "1 passed, 0 failed, 0 skipped"
    measured = json.loads((tmp_path / "gpu-benchmarks.json").read_text())
    assert measured["wrong"] == [] and len(measured["rows"]) == 6 and "H200" in measured["chip"] and measured["when"]


def test_benchmarks_go_on_after_a_process_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group that ended it is named, and those after it get a process of their own."""
    absent = {"JAX": "ValueError: wrong", "Triton": "not installed (x)"}
    row = {"workload": "w", "absent": absent, "verdicts": [{"met": True}, {"met": None}]}
    began: list[list[str]] = []

    def begin(argv: list[str], **_: Any) -> Any:
        groups = argv[3:argv.index("--worker")]
        began.append(groups)
        events: list[dict[str, Any]] = [{"event": "versions", "versions": {}, "chip": "H200"}]
        for group in groups:
            events.append({"event": "begun", "group": group})
            if group == "matmul":
                break
            events += [{"event": "row", "group": group, "row": row, "table": "head\n----\n| w |"}, {"event": "done", "group": group}]
        Path(argv[argv.index("--worker") + 1]).write_text("\n".join(map(json.dumps, events)) + "\n")
        return SimpleNamespace(wait=lambda seconds: -6 if "matmul" in groups else 0)

    monkeypatch.setattr(measured.subprocess, "Popen", begin)
    saved: list[int] = []
    found = measured.report(measured.collect(["rows", "matmul", "overhead"], smoke=False, seconds=60, save=lambda e: saved.append(len(e))))
    assert saved == [5, 10]
    assert began == [["rows", "matmul", "overhead"], ["overhead"]]
    assert [r["group"] for r in found["rows"]] == ["rows", "overhead"] and found["chip"] == "H200"
    assert found["wrong"] == ["matmul: the process ended: -6", *["w: JAX: ValueError: wrong"] * 2]
    assert found["summary"] == "2 rows, bars: 2 met, 2 open, 3 problems" and found["table"].count("| w |") == 2


def test_a_group_that_takes_too_long_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[list[str]] = []

    class Worker:
        def __init__(self, argv: list[str], **_: Any) -> None:
            self.groups, self.killed = argv[3:argv.index("--worker")], False
            began.append(self.groups)
            events: list[dict[str, Any]] = []
            for group in self.groups:
                events.append({"event": "begun", "group": group, "time": time.time() - 1000})
                if group == "matmul":
                    break
                events.append({"event": "done", "group": group, "time": time.time()})
            Path(argv[argv.index("--worker") + 1]).write_text("".join(json.dumps(e) + "\n" for e in events) + '{"half')

        def wait(self, seconds: float = 0) -> int:
            if "matmul" in self.groups and not self.killed:
                raise subprocess.TimeoutExpired("worker", seconds)
            return 0

        def kill(self) -> None:
            self.killed = True

    monkeypatch.setattr(measured.subprocess, "Popen", Worker)
    found = measured.report(measured.collect(["elementwise", "matmul", "overhead"], smoke=False, seconds=60, save=lambda e: None))
    assert began == [["elementwise", "matmul", "overhead"], ["overhead"]]
    assert found["wrong"] == ["matmul: the process ended: not done after 70 s"]
