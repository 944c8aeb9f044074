"""``python -m benchmarks [GROUP ...] [--smoke] [--json FILE]``: every row of the table of bars, or the groups named."""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib
import json
import os
import sys
import time

GROUPS = {  # name -> where its rows are made, and what they are
    "elementwise": ("elementwise:rows", "gelu, scale and add of 64K, 1M and 16M floats"),
    "rows": ("rownorm:rows", "softmax, layer norm, RMS norm and cross-entropy of 4096x1024"),
    "matmul": ("matmul:rows", "products with constant weights, square and skinny"),
    "gelu": ("matmul:fused_rows", "product, bias and gelu against the bare product"),
    "conv": ("conv:rows", "convolutions with constant weights"),
    "conv-steps": ("conv:step_rows", "training steps of two convolutions"),
    "attention": ("attention:rows", "attention of 16 heads of 64, with and without a causal mask"),
    "mlp": ("mlp:rows", "inference and training step of the MLP 784-500-10"),
    "training": ("training:rows", "training steps of whole networks"),
    "sequences": ("sequences:rows", "training steps of LSTMs and a GPT, a long loop, compilations of a run"),
    "overhead": ("overhead:rows", "what a call itself costs"),
    "compile": ("compile_time:rows", "time to the first result, and to import"),
    "arena": ("memory:arena_rows", "arena against its lower bound"),
    "fusion": ("memory:fusion_rows", "fused against unfused"),
    "export": ("export:rows", "size and memory of the exported MLP"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="xlc beside its peers, in one run.",
                                     epilog="groups:\n" + "\n".join(f"  {name:12} {doc}" for name, (_, doc) in GROUPS.items()))
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="default: all")
    parser.add_argument("--smoke", action="store_true", help="everything once on tiny arrays: shows that it runs, the times mean nothing")
    parser.add_argument("--rounds", type=int, help="samples of each contestant (default 21)")
    parser.add_argument("--patience", type=float, default=60, metavar="SECONDS",
                        help="time to spend on waiting for other processes and on repeating rounds that they disturbed (default 60)")
    parser.add_argument("--json", metavar="FILE", help="write all samples")
    chosen = parser.parse_args()
    if unknown := [g for g in chosen.groups if g not in GROUPS]:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    return chosen


def prepare(smoke: bool) -> None:
    """The same two cores for all; must come before any library is loaded, since several read it then."""
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_setaffinity") else []
    if cores:
        os.sched_setaffinity(0, cores)
    for library in ("XLC", "OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    if smoke:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torch.compile takes seconds for each function


def main() -> int:
    chosen = parse()
    prepare(chosen.smoke)
    from . import harness, machine, peers, quiet

    rounds = chosen.rounds or harness.Scale.rounds
    scale = harness.SMOKE if chosen.smoke else harness.Scale(rounds=rounds, patience=quiet.Patience(chosen.patience))
    start = time.perf_counter()
    about = machine.describe(scale)
    harness.say(f"{datetime.datetime.now():%Y-%m-%d %H:%M}\n{about}\n{peers.versions()}")
    if chosen.smoke:
        harness.say("smoke run: tiny arrays, the times and verdicts below mean nothing")
    found: dict[str, list[harness.Row]] = {}
    for name in chosen.groups or GROUPS:
        module, function = GROUPS[name][0].split(":")
        found[name] = []
        harness.say(f"\n== {name}: {GROUPS[name][1]}")
        for row in getattr(importlib.import_module(f"benchmarks.{module}"), function)(scale):
            harness.progress("")
            harness.say(harness.show(row))
            found[name].append(row)
    for name, rows in found.items():
        harness.say(f"\n## {name}\n\n{harness.summary(rows)}")
    rows = [row for group in found.values() for row in group]
    marks = collections.Counter(harness.mark(row, v) for row in rows for v in row.verdicts)
    harness.say(f"\nbars: {', '.join(f'{n} {m}' for m, n in marks.items())}; {time.perf_counter() - start:.0f} s")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as f:
            groups = {name: [row.json() for row in rows] for name, rows in found.items()}
            json.dump({"machine": about, "smoke": chosen.smoke, "groups": groups}, f, indent=1)
    failed = [f"{row.workload}: {name}: {why}" for row in rows for name, why in row.absent.items() if name.startswith(harness.US)]
    for line in failed:
        harness.say(f"xlc failed: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
