"""``python -m benchmarks.networks [NAME ...] [--full] [--alone]``: every network of examples/networks in one table.

Errors are against PyTorch on the same weights: inference and gradients in float64, then the gradients in float32 beside PyTorch's own in
float32, both against those in float64: a deep network with batch normalisation of few images magnifies what is rounded. What is compiled
is the training step, with nothing cached: tracing, all passes, machine code, and the first run; "per op" is milliseconds for each traced
operator. The arena stands beside its lower bound. What is exported is inference with its weights; "equal" says whether the library gives
the bits that the compiled function gives. With ``--alone`` nothing is compared with PyTorch, which takes the longest of all at full size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import xlc
from examples.networks import NETWORKS, Network, network
from examples.networks.network import arguments, distance, ours, theirs

ERRORS = ("forward", "gradient", "in f32", "torch f32")
COLUMNS = {"network": 24, "parameters": 12, "forward": 9, "gradient": 9, "in f32": 9, "torch f32": 9, "operators": 10, "compile ms": 11,
           "per op": 7, "step ms": 9, "arena MB": 9, "bound": 6, "exported KB": 12, "equal": 6}


def against_pytorch(net: Network) -> dict[str, str]:
    try:
        import torch  # noqa: F401
    except ImportError:
        return dict.fromkeys(ERRORS, "-")
    wide, narrow = arguments(net, np.float64), arguments(net, np.float32)
    forward, gradient = theirs(net, *wide)
    found, slopes = ours(net, *wide)
    errors = (distance(found, forward), distance(slopes, gradient), distance(ours(net, *narrow)[1], gradient),
              distance(theirs(net, *narrow)[1], gradient))
    return {name: f"{error:.1e}" for name, error in zip(ERRORS, errors, strict=True)}


def training(net: Network, params: Any, state: Any, batch: tuple[Any, ...]) -> dict[str, str]:
    """The step, compiled and timed; it has the parameters as its own from here on."""
    step = xlc.jit(net.train, donate=("params", "state", "memory"))
    memory, key = net.optimizer.init(params), xlc.random.key(1)
    times = []
    with xlc.config.context(cache_dir=""):
        for _ in range(6):
            start = time.perf_counter()
            params, state, memory, value = step(params, state, memory, key, *batch)
            times.append(time.perf_counter() - start)
        assert np.isfinite(value), f"{net.name}: the loss is {value}"
        program = step.compile(params, state, memory, key, *batch)
        operators, plan = len(list(program.lowered.graph.nodes())), program.plan
    once = statistics.median(times[1:])
    first = (times[0] - once) * 1e3
    return {"operators": f"{operators:,}", "compile ms": f"{first:,.0f}", "per op": f"{first / operators:.1f}",
            "step ms": f"{once * 1e3:,.2f}", "arena MB": f"{plan.arena_bytes / 1e6:,.1f}",
            "bound": f"{plan.arena_bytes / plan.lower_bound_bytes if plan.lower_bound_bytes else 1:.2f}"}


def exported(net: Network, params: Any, state: Any, inputs: tuple[Any, ...]) -> dict[str, str]:
    def infer(*x: Any) -> Any:
        return net.apply(params, state, *x)

    with tempfile.TemporaryDirectory() as folder:
        done = xlc.aot.export(infer, [xlc.spec(x.shape, x.dtype) for x in inputs], Path(folder) / "net.so", name="net")
        size = Path(done.library).stat().st_size
        pairs = zip(xlc.tree.leaves(xlc.aot.load(done.library)(*inputs)), xlc.tree.leaves(xlc.jit(infer)(*inputs)), strict=True)
        equal = all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
    return {"exported KB": f"{size / 1e3:,.0f}", "equal": "yes" if equal else "NO"}


def row(name: str, full: bool, alone: bool) -> dict[str, str]:
    net = network(name, full)
    found = {"network": name, "parameters": f"{net.parameters:,}"}
    params, state = net.init(xlc.random.key(0))
    batch = net.batch(np.random.default_rng(0))
    found |= dict.fromkeys(ERRORS, "-") if alone else against_pytorch(net)
    found |= exported(net, params, state, batch[:net.inputs])
    return found | training(net, params, state, batch)


def show(cells: dict[str, str]) -> str:
    return " ".join(cells[c].ljust(w) if c == "network" else cells[c].rjust(w) for c, w in COLUMNS.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description="The classic networks in one table.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(NETWORKS)}")
    parser.add_argument("--full", action="store_true", help="at their published sizes; minutes")
    parser.add_argument("--alone", action="store_true", help="without PyTorch: no errors")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in NETWORKS]:
        parser.error(f"no network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    print(show({c: c for c in COLUMNS}), flush=True)
    for name in chosen.names or NETWORKS:
        print(show(row(name, chosen.full, chosen.alone)), flush=True)


if __name__ == "__main__":
    main()
