"""The fuzzer: random graphs and random NumPy programs, compiled and compared with the interpreter, failures reduced.

    python -m tests.fuzz --seconds 60 --seed 1        prints each failure as IR text that parses back, and the seed that makes it
    python -m tests.fuzz --only 1234                  one seed, in this process

A seed is run in a process of its own, so that a crash is a failure like others.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # run as a module, the files beside this one are found too
os.environ.setdefault("XLC_CACHE_DIR", "")

from fuzz_graphs import Case, random_graph  # noqa: E402
from fuzz_oracle import Expected, evaluate_graph  # noqa: E402

from xlc import config  # noqa: E402
from xlc.ir.node import Graph, Node, full, parameter  # noqa: E402
from xlc.ir.parse import parse_graph  # noqa: E402
from xlc.ir.text import constants_of, print_graph  # noqa: E402
from xlc.pipeline import compile_graph  # noqa: E402

TOLERATED: tuple[str, ...] = ()  # messages of what is documented as not supported


def failure(case: Case, fuse: bool = True, donate: bool = False, **knobs: Any) -> str | None:
    """What is wrong with the compiled program of a graph, or None. ``knobs`` are those of ``xlc.config``."""
    try:
        with config.context(**knobs):
            program = compile_graph(case.graph, fuse=fuse, donate=range(len(case.graph.params)) if donate else ())
            program.loaded  # noqa: B018  (compiles)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return None if any(t in text for t in TOLERATED) else "compiling: " + text
    for sizes, arrays in case.runs:
        try:
            expected = Expected(case.graph, arrays, sizes)
        except (ValueError, IndexError, ZeroDivisionError):  # NumPy refuses this size (an empty extreme, say)
            continue
        try:
            results = program.run([a.copy() for a in arrays])
        except Exception as error:
            return f"running with {sizes}: {type(error).__name__}: {error}"
        wrong = expected.check(results)
        if wrong:
            return f"comparing{f' with {sizes}' if sizes else ''}: {wrong}"
    return None


# ------------------------------------------------------------------------------------------------ reducing


def _kind(message: str) -> str:
    head, _, rest = message.partition(":")
    return head.split(" ")[0] + (rest.split(":")[0] if head == "compiling" else "")


def _with_results(case: Case, results: Sequence[Node]) -> Case:
    graph = Graph(case.graph.params, tuple(results), case.graph.name)
    needed = set(Graph((), graph.results).nodes())
    names = frozenset().union(*(n.type.names for n in needed))
    kept = [k for k, p in enumerate(graph.params) if p in needed or names & p.type.names]
    return Case(Graph(tuple(graph.params[k] for k in kept), graph.results, graph.name), [(s, [a[k] for k in kept]) for s, a in case.runs])


def _as_parameter(case: Case, node: Node) -> Case:
    """The node's value comes in as an argument."""
    p = parameter(node.type, f"v{len(case.graph.params)}", len(case.graph.params))
    runs = []
    for sizes, arrays in case.runs:
        values = evaluate_graph(case.graph, arrays, sizes, None)
        runs.append((sizes, [*arrays, np.ascontiguousarray(values[node]).reshape(values[node].shape)]))
    changed = case.graph.rebuild(lambda n, args: p if n is node else None)
    return _with_results(Case(Graph((*case.graph.params, p), changed.results, changed.name), runs), changed.results)


def _replaced(case: Case, node: Node, by: Node) -> Case:
    changed = case.graph.rebuild(lambda n, args: by if n is node else None)
    return _with_results(Case(Graph(case.graph.params, changed.results, changed.name), case.runs), changed.results)


def _smaller(case: Case) -> Any:
    """Cases that are simpler than this one, the boldest first."""
    graph = case.graph
    for run in case.runs:
        if len(case.runs) > 1:
            yield lambda run=run: Case(graph, [run])
    for r in dict.fromkeys(graph.results):
        if len(graph.results) > 1:
            yield lambda r=r: _with_results(case, [r])
    for k in range(len(graph.results)):
        if len(graph.results) > 1:
            yield lambda k=k: _with_results(case, [*graph.results[:k], *graph.results[k + 1 :]])
    for r in graph.results:
        for a in r.args:
            yield lambda r=r, a=a: _with_results(case, [a if x is r else x for x in graph.results])
    inner = [n for n in graph.nodes() if n.args]
    for n in inner:
        if n.op.name != "parameter":
            yield lambda n=n: _as_parameter(case, n)
    for n in inner:
        for a in n.args:
            if a.type == n.type:
                yield lambda n=n, a=a: _replaced(case, n, a)
        yield lambda n=n: _replaced(case, n, full(n.type, 1))
    for n in graph.nodes():
        if n.op.name in ("parameter", "constant"):
            yield lambda n=n: _replaced(case, n, full(n.type, 1))


def size(case: Case) -> tuple[int, ...]:
    graph = case.graph
    computed = [n for n in graph.nodes() if n.op.name not in ("parameter", "full")]
    return len(computed), len(graph.params), len(graph.results), len(case.runs)


def reduce_case(case: Case, seconds: float = 20, **options: Any) -> tuple[Case, str]:
    """A smallest case that fails in the same way, and how."""
    message = failure(case, **options)
    assert message is not None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for candidate in _smaller(case):
            if time.monotonic() > end:
                break
            try:
                small = candidate()
                if size(small) >= size(case):
                    continue
                found = failure(small, **options)
            except Exception:  # the simpler graph is no graph (types that no longer fit, sizes nobody knows)
                continue
            if found is not None and _kind(found) == _kind(message):
                case, message = small, found
                break
        else:
            break
    return case, message


def report(seed: int, case: Case, message: str) -> str:
    """A failing case as text: the graph parses back with the arrays below it."""
    text = print_graph(case.graph, locations=False)
    arrays = constants_of(case.graph)
    assert str(parse_graph(text, arrays)) == str(case.graph) or "nan" in text, "the text does not parse back"
    lines = [f"seed {seed}: {message}", text]
    lines += [f"  {k} = {np.array2string(v.astype(np.float64) if v.dtype.kind == 'V' else v, threshold=20)}" for k, v in arrays.items()]
    for sizes, values in case.runs[:1]:
        shown = {str(p["name"]): a for p, a in zip(case.graph.params, values, strict=True)}
        lines += [
            f"  %{k} = {a.dtype}{list(a.shape)} {np.array2string(a.astype(np.float64) if a.dtype.kind == 'V' else a, threshold=20)}"
            for k, a in shown.items()
        ]
        lines += [f"  sizes {sizes}"] if sizes else []
    return "\n".join(lines)


def options_of(seed: int) -> dict[str, Any]:
    """Mostly the usual ones; now and then others."""
    r = random.Random(seed)
    found: dict[str, Any] = {"fuse": r.random() < 0.8, "donate": r.random() < 0.2}
    if r.random() < 0.2:
        found["check"] = 1
    for knob, value in (
        ("strict", True),
        ("fuse_elementwise", False),
        ("fuse_reductions", False),
        ("fuse_contractions", False),
        ("fuse_rows", False),
        ("pack_constants", False),
        ("reorder", False),
        ("num_threads", 1),
    ):
        if r.random() < 0.07:
            found[knob] = value
    return found


def run_seed(seed: int, reduce: bool = True) -> str | None:
    """The report of a failing seed, or None. Every third seed is a NumPy program."""
    if seed % 3 == 2:
        from fuzz_programs import run_program_seed

        return run_program_seed(seed)
    case = random_graph(seed)
    options = options_of(seed)
    message = failure(case, **options)
    if message is None:
        return None
    if reduce:
        case, message = reduce_case(case, **options)
    return report(seed, case, message) + f"\n  options {options}"


# ------------------------------------------------------------------------------------------------ the command


def _apart(seed: int, limit: float = 60) -> bool:
    """Run a seed in a forked process; True where it passes."""
    import signal

    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(int(limit))
        code = 1
        try:
            text = run_seed(seed)
            code = 1 if text else 0
            if text:
                print(text, flush=True)
        except BaseException:
            print(f"seed {seed}: the fuzzer itself failed", flush=True)
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        print(f"seed {seed}: killed by {signal.Signals(os.WTERMSIG(status)).name} (python -m tests.fuzz --only {seed})", flush=True)
    return status == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; the following ones are tried as long as there is time")
    parser.add_argument("--only", type=int, help="run this seed alone, in this process")
    parser.add_argument("--show", action="store_true", help="with --only: print the graph before it runs")
    given = parser.parse_args(arguments)
    if given.only is not None:
        if given.show and given.only % 3 != 2:
            print(random_graph(given.only).graph)
        text = run_seed(given.only, reduce=not given.show)
        print(text or "passes")
        return int(text is not None)
    end, seed, failed = time.monotonic() + given.seconds, given.seed, 0
    while time.monotonic() < end:
        failed += not _apart(seed)
        seed += 1
    print(f"{seed - given.seed} seeds, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
