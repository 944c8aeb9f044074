"""``python -m benchmarks.gpu [GROUP ...] [--json FILE] [--smoke]``: xlc on a GPU beside whatever of torch.compile, JAX, Triton and CuPy is
installed, in less than four minutes. Training comes last: it takes most of the time, and what has not begun when time is up is left out.

The rows run in a process of their own, which writes each down when it is done: when one ends the process (or the device's context), or a
group takes too long, the groups after it are run by another. The file of ``--json`` is written anew every two seconds, so that it holds
what was found whatever happens next. ``--smoke`` runs everything on tiny arrays, on the CPU where there is no GPU.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import harness

GROUPS = {  # name -> where its rows are made, and the seconds after which its process is ended; in this order
    "elementwise": ("rows:elementwise", 60),  # gelu, scale and add of 256M numbers
    "matmul": ("rows:products", 70),  # bf16 products, with and without bias and gelu
    "attention": ("rows:attention", 50),  # 16 heads of 64, 4096 tokens
    "rows": ("rows:normalizations", 80),  # softmax, layer norm and cross-entropy of 16384 rows
    "overhead": ("rows:overhead", 40),  # what a call takes on the host
    "compile": ("rows:compile_times", 40),  # time to the first result
    "training": ("training:rows", 240),  # training steps of whole networks
}
SECONDS = 225.0  # for all; what has not begun by then is left out
GRACE = 20.0  # seconds after which what has begun is ended
ROUNDS = 5


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="xlc on a GPU beside its peers, in one run.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--json", metavar="FILE", help="write rows and tables")
    parser.add_argument("--smoke", action="store_true", help="everything once on tiny arrays: the times mean nothing")
    parser.add_argument("--seconds", type=float, help=f"after which no group begins (default {SECONDS:.0f}; a smoke run has an hour)")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := [g for g in chosen.groups if g not in GROUPS]:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    chosen.seconds = chosen.seconds or (3600.0 if chosen.smoke else SECONDS)
    return chosen


# ------------------------------------------------------------------------------------------------ the process that runs rows

def work(groups: list[str], file: Path, smoke: bool, until: float) -> None:
    """Append one line of JSON per event: versions, group begun, row done, group done."""
    from xlc.backends.cuda import device

    from .lab import Lab

    host = smoke and not device.count()
    lab = Lab(host)
    scale = harness.SMOKE if smoke else harness.Scale(rounds=ROUNDS, settle=False)

    def tell(event: str, **more: Any) -> None:
        with file.open("a", encoding="utf-8") as f:
            f.write(json.dumps({"event": event, "time": time.time(), **more}) + "\n")

    tell("versions", versions=lab.versions(), chip="none: NumPy on the CPU" if host else repr(device.current()))
    for name in groups:
        if time.time() > until:
            tell("left out", group=name)
            continue
        tell("begun", group=name)
        module, function = GROUPS[name][0].split(":")
        try:
            for row in getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)(lab, scale):
                harness.say(harness.show(row))
                tell("row", group=name, row=row.json(), table=harness.summary([row]))
                if time.time() > until:
                    tell("left out", group=name, after=row.workload)
                    break
        except Exception as error:  # the rows of other groups are independent
            tell("failed", group=name, why=harness.reason_of(error))
        tell("done", group=name)
        lab.wait()  # raises when the device's context is lost: the next process has a new one
        lab.clean()


def environment() -> dict[str, str]:
    """What libraries must find before they are loaded."""
    return {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}


# ------------------------------------------------------------------------------------------------ the process that collects them

def collect(groups: list[str], smoke: bool, seconds: float, save: Callable[[list[dict[str, Any]]], None]) -> list[dict[str, Any]]:
    """The events of all workers, which are saved as they come. A worker that ends early is followed by one for what it had not begun."""
    until = time.time() + seconds
    events: list[dict[str, Any]] = []
    remaining = list(groups)
    with tempfile.TemporaryDirectory() as folder:
        while remaining:
            file = Path(folder, f"{len(remaining)}.jsonl")
            argv = [sys.executable, "-m", "benchmarks.gpu", *remaining, "--worker", str(file), "--seconds", str(until - time.time())]
            worker = subprocess.Popen([*argv, *(["--smoke"] if smoke else [])], env=environment())
            status: int | str | None = None
            while status is None:
                try:
                    status = worker.wait(2)
                except subprocess.TimeoutExpired:
                    status = "time is up" if time.time() > until + GRACE else overdue(told(file), smoke)
                    if status:
                        worker.kill()
                        worker.wait()
                found = told(file)
                save(events + found)
            events += found
            seen = [e["group"] for e in found if e["event"] in ("begun", "left out")]
            done = {e["group"] for e in found if e["event"] in ("done", "left out")}
            events += [{"event": "failed", "group": g, "why": f"the process ended: {status}"} for g in dict.fromkeys(seen) if g not in done]
            if not seen or status == "time is up":
                events += [{"event": "failed", "group": g, "why": f"not begun: {status}"} for g in remaining if g not in seen]
                break
            remaining = [g for g in remaining if g not in seen]
    return events


def overdue(events: list[dict[str, Any]], smoke: bool) -> str | None:
    """What there is to say if the last group began too long ago."""
    last = next((e for e in reversed(events) if e["event"] in ("begun", "done")), None)
    if last is None or last["event"] == "done" or smoke or time.time() - last["time"] < GROUPS[last["group"]][1]:
        return None
    return f"not done after {GROUPS[last['group']][1]} s"


def told(file: Path) -> list[dict[str, Any]]:
    """What a worker has written so far; its last line may not be whole yet."""
    lines = file.read_text("utf-8").split("\n") if file.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]


def report(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What goes to the file: versions, rows, one table, one line."""
    rows = [e for e in events if e["event"] == "row"]
    lines = [line for e in rows for line in e["table"].splitlines()[2:]]
    marks = collections.Counter({True: "met", False: "missed", None: "open"}[v["met"]] for e in rows for v in e["row"]["verdicts"])
    head = harness.summary([]).splitlines()
    wrong = [f"{e['group']}: {e['why']}" for e in events if e["event"] == "failed"]
    wrong += [f"{row['workload']}: {n}: {why}" for row in (e["row"] for e in rows) for n, why in row["absent"].items()
              if not why.startswith(harness.MISSING)]
    wrong += [f"{e['group']}: left out, time is up" for e in events if e["event"] == "left out"]
    about = next((e for e in events if e["event"] == "versions"), {})
    return {"chip": about.get("chip"), "versions": about.get("versions"), "rows": [{"group": e["group"], **e["row"]} for e in rows],
            "when": datetime.datetime.now().isoformat(timespec="seconds"), "wrong": wrong, "table": "\n".join([*head, *lines, *wrong]),
            "summary": f"{len(rows)} rows, bars: {', '.join(f'{n} {m}' for m, n in marks.items()) or 'none'}, {len(wrong)} problems"}


def main() -> int:
    chosen = parse()
    groups = chosen.groups or list(GROUPS)
    if chosen.worker:
        work(groups, Path(chosen.worker), chosen.smoke, time.time() + chosen.seconds)
        return 0

    def save(events: list[dict[str, Any]]) -> None:
        if chosen.json:
            Path(chosen.json).write_text(json.dumps(report(events), indent=1), "utf-8")

    events = collect(groups, chosen.smoke, chosen.seconds, save)
    save(events)
    found = report(events)
    harness.say(f"\n{found['chip']}\n{found['versions']}\n\n{found['table']}\n\n{found['summary']}")
    failed = [line for line in found["wrong"] if f": {harness.US}: " in line or "ended" in line]
    return 1 if failed or not found["rows"] else 0


if __name__ == "__main__":
    sys.exit(main())
