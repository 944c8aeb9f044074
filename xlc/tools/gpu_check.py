"""``python -m xlc gpu-check`` (or ``make gpu``): all that the machine's GPU can show, in one run of less than eight minutes.

    compiler       30 s   NVRTC, which needs no GPU; without one the check ends here, with exit status 2
    environment    40 s   chip, driver, versions, bandwidth of a copy
    sanity         60 s   a small set of programs, of every kind of schedule, against the CPU
    benchmarks    270 s   ``python -m benchmarks.gpu``: what the bars are about first, training last
    conformance   150 s   the tests of the CUDA backend and the conformance suite, on the GPU instead of the shim (XLC_CUDA_DEVICE=gpu)
    networks       80 s   forward and gradients of examples/networks on the GPU
    memcheck, racecheck    40 s   the small set under compute-sanitizer, where that is on the PATH

These are the most that each takes; all together end after 470 s, the last ones being cut short. What matters most comes first. Each section
is a process of its own, so that one that crashes or hangs costs no other. Its result is printed when it ends. One JSON file, written after
every section, holds everything: versions, chip, date, and of what failed the text. The benchmarks write a file beside it all the while.
``--smoke`` tries the whole on tiny sizes. Exit status: 0, or 1 if a section failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backends.cuda import device

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 470.0  # seconds for all sections together
MARGIN = 30.0  # seconds of a section's time in which it ends by itself
LEAST = 8.0  # seconds without which no section begins
SHOWN = 20  # tests that failed, of which the text is printed; all are in the JSON
TAIL = 4000  # characters of a section's output that are kept
NO_GPU = 2

Reader = Callable[[str, Path], tuple[dict[str, Any], str]]


@dataclass(frozen=True)
class Section:
    """``argv`` after the interpreter; "{file}" in it is a file that the process may write, "{seconds}" what it should take; "{until}" in
    its environment is the time at which it should be done. ``read`` makes of its output and that file what was found, and a line about it.
    ``before`` is what runs the interpreter."""

    name: str
    argv: tuple[str, ...]
    seconds: float
    read: Reader
    before: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # files of the source tree


@dataclass
class Outcome:
    status: str  # ok, failed, timeout, skipped
    seconds: float = 0.0
    line: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    tail: str = ""


# ------------------------------------------------------------------------------------------------ what there is to do

TESTS = ("shim", "emit", "map", "reduce", "contract", "attention", "ordered", "control", "library", "networks")


def _last_line(output: str, file: Path) -> dict[str, Any]:
    return dict(json.loads(output.strip().rpartition("\n")[2]))


def _compiler(output: str, file: Path) -> tuple[dict[str, Any], str]:
    found = _last_line(output, file)
    chips, seconds = found["chips"], found["sm_90"]["seconds"]
    return found, f"NVRTC {found['version']}, {chips[0]} to {chips[-1]}, {seconds * 1e3:.0f} ms for a small module"


def _environment(output: str, file: Path) -> tuple[dict[str, Any], str]:
    found = _last_line(output, file)
    driver = f"{found['driver'] // 1000}.{found['driver'] % 1000 // 10}"
    return found, (f"{found['chip']} ({found['arch']}), {found['sms']} SMs, driver for CUDA {driver}, CuPy {found['cupy']}, "
                   f"copy {found['copy_bandwidth'] / 1e9:.0f} GB/s")


def _sanity(output: str, file: Path) -> tuple[dict[str, Any], str]:
    found = _last_line(output, file)
    wrong = {name: text for name, text in found.items() if isinstance(text, str)}
    first = next(iter(wrong.items()), None)
    return found, f"{len(found) - len(wrong)} of {len(found)} programs right" + (f"; {first[0]}: {first[1]}"[:300] if first else "")


def _small_set(output: str, file: Path) -> tuple[dict[str, Any], str]:
    summary = next((line.strip("= ") for line in output.split("\n") if "SUMMARY" in line), "")
    return {"summary": summary}, summary


def _tests(output: str, file: Path) -> tuple[dict[str, Any], str]:
    """Counts and failures of a JUnit file."""
    suites = list(ElementTree.parse(file).getroot().iter("testsuite"))
    total = {key: sum(int(s.get(key, 0)) for s in suites) for key in ("tests", "failures", "errors", "skipped")}
    wrong = [{"test": f"{case.get('classname')}::{case.get('name')}", "why": (problem.get("message") or "")[:500]}
             for s in suites for case in s.iter("testcase") for problem in case if problem.tag in ("failure", "error")]
    bad = total["failures"] + total["errors"]
    late = sum("time is up" in (case.get("message") or "") for s in suites for case in s.iter("skipped"))
    line = f"{total['tests'] - bad - total['skipped']} passed, {bad} failed, {total['skipped'] - late} skipped"
    return {**total, "late": late, "wrong": wrong}, line + (f", {late} left out, time is up" if late else "")


def _benchmarks(output: str, file: Path) -> tuple[dict[str, Any], str]:
    found = dict(json.loads(file.read_text()))
    return found, str(found.get("summary", ""))


def sections(smoke: bool = False) -> list[Section]:
    """In the order in which they run. ``smoke``: each on little."""
    probe, measure = ("-m", "xlc.tools.gpu_probe"), ("-m", "benchmarks.gpu", "--json", "{file}", "--seconds", "{seconds}")
    on_gpu = {"XLC_CUDA_DEVICE": "gpu", "XLC_TESTS_UNTIL": "{until}"}
    networks = "tests/test_gpu_networks.py"
    tests = tuple(f"tests/test_cuda_{name}.py" for name in TESTS)
    conformance = (*tests, "tests/test_conformance.py")
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *_processes(), "--junitxml={file}")
    sanitizer = shutil.which("compute-sanitizer") or ""
    watched = [Section(tool, (*probe, "small_set"), 40, _small_set, (sanitizer, "--tool", tool, "--error-exitcode", "9"))
               for tool in ("memcheck", "racecheck")]
    return [Section("compiler", (*probe, "compiler"), 30, _compiler), Section("environment", (*probe, "environment"), 40, _environment),
            Section("sanity", (*probe, "sanity"), 60, _sanity),
            Section("benchmarks", (*measure, *(["--smoke"] if smoke else [])), 270, _benchmarks, needs=("benchmarks/gpu/__main__.py",)),
            Section("conformance", (*pytest, *(["-k", "transposition"] if smoke else []), *conformance), 150, _tests,
                    environment=on_gpu, needs=conformance),
            Section("networks", (*pytest, *(["-k", "iris"] if smoke else []), networks), 80, _tests, environment=on_gpu, needs=(networks,)),
            *watched]


def _processes() -> tuple[str, ...]:
    """Most of a test is NVRTC's time, which several processes share; the GPU serves them in turn."""
    import importlib.util

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ("-n", str(min(cores, 12))) if cores > 1 and importlib.util.find_spec("xdist") else ()


# ------------------------------------------------------------------------------------------------ doing it

def perform(section: Section, seconds: float, beside: Path | None = None) -> Outcome:
    """Run one section, for so long at most. The file that it writes stays: ``beside`` with the section's name."""
    missing = [n for n in section.needs if not (ROOT / n).exists()]
    if missing:
        return Outcome("skipped", line=f"{missing[0]} is not there: run from a copy of the sources")
    if section.before and not section.before[0]:
        return Outcome("skipped", line="compute-sanitizer is not on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        file = beside.with_name(f"{beside.stem}-{section.name}{'.json' if section.read is _benchmarks else '.xml'}") if beside else \
            Path(folder, "found")
        file.unlink(missing_ok=True)
        file = file.resolve()
        margin = min(MARGIN, seconds / 3)
        filled = {"{file}": str(file), "{seconds}": f"{seconds - margin:.0f}", "{until}": f"{time.time() + seconds - margin:.0f}"}
        argv = [*section.before, sys.executable, *(_filled(part, filled) for part in section.argv)]
        more = {name: _filled(text, filled) for name, text in section.environment.items()}
        paths = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
        log = Path(folder, "log")
        start = time.perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, **more}, stdout=out,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
            status = _wait(process, seconds)
        taken = time.perf_counter() - start
        output = log.read_text(errors="replace")
        outcome = Outcome("timeout" if status is None else "failed" if status else "ok", taken, tail=output[-TAIL:])
        try:
            outcome.found, outcome.line = section.read(output, file)
        except (OSError, ValueError, KeyError, IndexError, ElementTree.ParseError):  # a process that ended early left nothing to read
            outcome.line = next((line.strip() for line in reversed(output.split("\n")) if line.strip()), "no output")[:160]
            outcome.status = "failed" if outcome.status == "ok" else outcome.status
        return outcome


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status; None, and the process and its children are ended, when time is up."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, 9)
        process.kill()
        process.wait()
        return None


def check(output: Path, only: Sequence[str] = (), budget: float = BUDGET, smoke: bool = False) -> int:
    """Run the sections (or those named), write the JSON, print the table; the exit status."""
    outcomes: dict[str, Outcome] = {}
    status, until = 0, time.monotonic() + budget
    output.parent.mkdir(parents=True, exist_ok=True)
    for section in sections(smoke):
        if only and section.name not in only:
            continue
        if section.name != "compiler" and not device.count():
            status = NO_GPU
            break
        left = until - time.monotonic()
        if left < LEAST:
            outcomes[section.name] = Outcome("skipped", line="time is up")
        else:
            print(f"{section.name} ...", file=sys.stderr, flush=True)
            outcomes[section.name] = perform(section, min(section.seconds, left), output)
        _write(output, outcomes)
        print(table({section.name: outcomes[section.name]}).rpartition("\n")[2], file=sys.stderr, flush=True)
    print(table(outcomes))
    for outcome in outcomes.values():
        if outcome.found.get("table"):
            print(f"\n{outcome.found['table']}")
        for wrong in outcome.found.get("wrong", ())[:SHOWN] if "tests" in outcome.found else ():
            print(f"\n{wrong['test']}: {wrong['why']}")
    print(f"\n{output}")
    if status == NO_GPU:
        print("there is no GPU that can be used here: the compiler alone was checked")
        return NO_GPU
    return int(any(o.status in ("failed", "timeout") for o in outcomes.values()))


def _write(output: Path, outcomes: Mapping[str, Outcome]) -> None:
    """After every section, so that what was found is there whatever happens next."""
    when = datetime.datetime.now().isoformat(timespec="seconds")
    output.write_text(json.dumps({"when": when, "sections": {n: vars(o) for n, o in outcomes.items()}}, indent=1))


def table(outcomes: Mapping[str, Outcome]) -> str:
    lines = [("section", "status", "seconds", "found"), *((n, o.status, f"{o.seconds:.0f}", o.line) for n, o in outcomes.items())]
    widths = [max(len(line[k]) for line in lines) for k in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="out/gpu-check.json", metavar="FILE", help="the JSON (default out/gpu-check.json)")
    parser.add_argument("--section", action="append", default=[], choices=[s.name for s in sections()], help="only these; all by default")
    parser.add_argument("--smoke", action="store_true", help="everything on tiny sizes: the times mean nothing")
    parser.add_argument("--seconds", type=float, default=BUDGET, help=f"for all sections together (default {BUDGET:.0f})")
