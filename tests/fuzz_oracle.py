"""What a graph may give: the interpreter's result, and how far from it a correct program can be.

    Expected(graph, arrays, sizes).check(results) -> None, or what is wrong

A compiled program may round differently (sums in another order, functions within an ulp), and what follows may amplify that. So the graph
is interpreted several times; after each operator that is allowed an error, noise of that size is added. What the noise does
not change has to agree exactly; what it changes may differ a few times as much; where it turns
numbers into others altogether, nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlc.ir.interp import sizes_from, static
from xlc.ir.node import Graph, Node
from xlc.ir.types import DType, evaluate, f32

SAMPLES = 4
AMPLITUDE = 8  # times the error that is allowed
SLACK = 4  # times the largest deviation that the noise caused
_MANTISSA = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}
_TINY = {"f16": 2.0**-24, "bf16": 2.0**-133, "f32": 2.0**-149, "f64": 2.0**-1074}
UNSIGNED_ZERO = {
    "minimum",
    "maximum",
    "max",
    "min",
    "sum",
    "prod",
    "dot",
    "scatter",
    "cumulative_sum",
    "cumulative_max",
    "cumulative_min",
    "relu",
}


def ulp(d: DType) -> float:
    return 2.0 ** -_MANTISSA[d.name]


def _exact_sum(terms: np.ndarray, d: DType) -> bool:
    """Whether every partial sum of these (wide) terms fits the accumulator exactly: all are multiples of one unit, and few."""
    terms = terms[np.isfinite(terms)]
    big = float(np.abs(terms).sum())
    bits = 24 if d.bits <= 32 else 53
    if not big:
        return True
    unit = 2.0 ** (np.ceil(np.log2(big)) - bits)
    if unit < 2.0**-1000 or big > (3e38 if d.bits <= 32 else 1e300):
        return False
    return bool(np.all(terms / unit == np.rint(terms / unit))) if np.isfinite(big / unit) else False


def _spread(n: Node, args: Sequence[np.ndarray], y: np.ndarray) -> Any:
    """The absolute error that the node's operator may add, element by element; 0 where its result is determined. nan: anything."""
    d, name = n.dtype, n.op.name
    if not d.is_float:
        return 0.0
    half = d.bits == 16
    acc = ulp(f32) if half else ulp(d)
    wide = [a.astype(np.float64) for a in args]
    if name in ("sum", "cumulative_sum", "mean"):
        if _exact_sum(wide[0], f32 if half else d):
            return 0.0
        magnitude = np.where(np.isfinite(wide[0]), np.abs(wide[0]), 0.0)
        total = magnitude.sum(n["axes"]) if name == "sum" else np.broadcast_to(magnitude.sum(n["axis"], keepdims=True), y.shape)
        terms = args[0].size / max(y.size, 1) if name == "sum" else y.shape[n["axis"]]
        count = 4 + (terms / 64 if d.bits == 64 else 0) if name == "sum" else 4 + terms / 4
        return _bounded(count * acc * total, total, d)
    if name in ("prod", "cumulative_prod"):
        axes = n["axes"] if name == "prod" else (n["axis"],)
        count = float(np.prod([args[0].shape[a] for a in axes]))
        big = np.prod(np.maximum(np.abs(wide[0]), 1.0), axis=axes, keepdims=name != "prod")
        low = np.prod(np.minimum(np.where(wide[0] == 0, 1.0, np.abs(wide[0])), 1.0), axis=axes, keepdims=name != "prod")
        limit = float(np.finfo(np.float32 if d.bits <= 32 else np.float64).max)
        wild = ~((big < limit / 16) & (low > 16 / limit))
        exact = np.all(wide[0] == np.rint(wide[0])) and np.all(big < 2.0 ** (24 if d.bits <= 32 else 53))
        return np.where(wild & np.ones(y.shape, bool), np.nan, 0.0 if exact else count * acc * np.abs(y.astype(np.float64)))
    if name == "dot":
        attrs = n.attributes
        total = n.op.numpy(*(np.where(np.isfinite(w), np.abs(w), 0.0) for w in wide), **attrs)
        depth = max(int(np.prod([args[0].shape[k] for k in attrs["contract"][0]])), 1)
        whole = all(np.all((w * 64 == np.rint(w * 64)) | np.isnan(w)) for w in wide) and total.max(initial=0.0) * 4096 < 2.0**24
        return 0.0 if whole else _bounded(max(4, depth / 4) * acc * total, total, d)
    if n.op.kind == "elementwise" and not n.op.exact:
        scale = 1.0 if half else 4.0
        return scale * ulp(d) * np.abs(y.astype(np.float64)) + 2 * _TINY[d.name]
    return 0.0


def _bounded(error: np.ndarray, total: np.ndarray, d: DType) -> np.ndarray:
    limit = float(np.finfo(np.float32 if d.bits <= 32 else np.float64).max) / 4
    return np.where(total < limit, error, np.nan)


def _noisy(n: Node, args: Sequence[np.ndarray], y: np.ndarray, rng: np.random.Generator, run: int) -> np.ndarray:
    """The value with an error that the operator may make; what may be anything is something else in each of four runs, and a nan has
    the other sign in every second one."""
    if not n.dtype.is_float:
        return y
    if n.op.name in UNSIGNED_ZERO:
        y = np.where(y == 0, np.where(rng.integers(0, 2, y.shape) == 1, -y, y), y).astype(y.dtype)
    y = np.where(np.isnan(y), np.asarray((np.nan, -np.nan)[run % 2]).astype(y.dtype), y)  # which sign a nan has is left open
    error = np.asarray(_spread(n, args, y))
    if not np.any(error != 0):
        return y
    wide = y.astype(np.float64)
    unknown = np.isnan(error)
    out = wide + np.where(unknown, 0.0, error) * AMPLITUDE * rng.uniform(-1, 1, y.shape)
    choices = np.asarray([np.nan, np.inf, 0.0, 1.0])[(np.arange(y.size).reshape(y.shape) + run) % 4]
    out = np.where(unknown, choices, np.where(np.isfinite(wide), out, wide))
    return out.astype(y.dtype)


def evaluate_graph(
    graph: Graph, arrays: Sequence[np.ndarray], sizes: Mapping[str, int], noise: np.random.Generator | None, run: int = 0
) -> dict[Node, np.ndarray]:
    """Every node's value."""
    env = {**sizes_from([p.type for p in graph.params], arrays), **sizes}
    values: dict[Node, np.ndarray] = dict(zip(graph.params, arrays, strict=True))
    with np.errstate(all="ignore"):
        for n in graph.nodes():
            if n in values:
                continue
            args = [values[a] for a in n.args]
            y = np.asarray(n.op.numpy(*args, **{k: static(v, env) for k, v in n.attrs}))
            assert y.dtype == n.dtype.numpy and y.shape == tuple(evaluate(s, env) for s in n.shape), (
                f"{n.op.name}: {y.dtype}{y.shape} for {n.type}"
            )
            values[n] = y if noise is None else _noisy(n, args, y, noise, run)
    return values


class Expected:
    """The results of a graph on arrays, with what each element may deviate."""

    def __init__(self, graph: Graph, arrays: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None, seed: int = 0):
        from xlc.passes.decompose import decompose

        graph = decompose(graph)
        self.values = evaluate_graph(graph, arrays, sizes or {}, None)
        runs = [evaluate_graph(graph, arrays, sizes or {}, np.random.default_rng([seed, k]), k) for k in range(SAMPLES)]
        self.results = [self.values[r] for r in graph.results]
        self.others = [[run[r] for run in runs] for r in graph.results]

    def check(self, results: Sequence[np.ndarray]) -> str | None:
        """What is wrong with these results, or None."""
        if len(results) != len(self.results):
            return f"{len(results)} results instead of {len(self.results)}"
        for k, (got, want, others) in enumerate(zip(results, self.results, self.others, strict=True)):
            if got.dtype != want.dtype or got.shape != want.shape:
                return f"result {k} is {got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
            bad = wrong(got, want, others)
            if bad.any():
                at = tuple(int(i[0]) for i in np.nonzero(bad)) if bad.ndim else ()
                return (
                    f"result {k} {want.dtype}{list(want.shape)} differs in {int(bad.sum())} of {bad.size} elements; "
                    f"at {list(at)} it is {got[at]!r} instead of {want[at]!r}"
                )
        return None


def wrong(got: np.ndarray, want: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Where a result is neither the expected one nor as near to it as the noisy ones."""
    if want.dtype.kind in "biu":
        settled = np.ones(want.shape, bool)
        for o in others:
            settled &= o == want
        return np.asarray((got != want) & settled)
    g, w = got.astype(np.float64), want.astype(np.float64)
    same = (g == w) | (np.isnan(g) & np.isnan(w))
    if not others or bool(np.all(same)):
        return np.asarray(~same)
    deviation, settled, noisy = np.zeros(w.shape), np.ones(w.shape, bool), np.zeros(w.shape, bool)
    with np.errstate(all="ignore"):
        for sample in others:
            o = sample.astype(np.float64)
            settled &= (np.isnan(o) == np.isnan(w)) & ((o == w) | (np.isfinite(o) == np.isfinite(w)))
            settled &= ~(np.isinf(o) & np.isinf(w) & (o != w))
            noisy |= (o != w) & ~np.isnan(o)
            deviation = np.fmax(deviation, np.abs(o - w))
        from xlc.ir.types import dtype_of

        d = dtype_of(want.dtype)
        any_noise = bool(noisy.any())
        allowed = SLACK * deviation + (2 * ulp(d) * np.abs(w) + 2 * _TINY[d.name] if any_noise else 0.0)
        largest = float(np.finfo(np.float32).max if d.name == "bf16" else np.finfo(d.numpy).max)
        if any_noise:  # next to the largest number an infinity is as good
            settled &= ~(np.abs(w) + allowed > largest)
        return np.asarray(~same & settled & ~(np.abs(g - w) <= allowed))
