"""What a call itself costs: two arrays of 8 floats, ten arrays, a dict of a hundred."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .harness import Build, Contestant, Row, Scale, contest, statement
from .workloads import random

FLOATS = 8


def rows(scale: Scale) -> Iterator[Row]:
    x, y = random(FLOATS), random(FLOATS, seed=1)
    row = contest(scale, "call with two arrays of 8 floats: x * y + y", _two(x, y), expected=(x * y + y).astype(np.float64))
    row.under(0.25e-6)
    if row.us and "NumPy, two ufuncs" in row.stats:
        theirs = row.stats["NumPy, two ufuncs"].median
        row.judge("under NumPy's two ufuncs", f"{theirs / row.us.median:.2f}x of NumPy", row.us.median < theirs)
    else:
        row.judge("under NumPy's two ufuncs", "no xlc", False)
    row.faster_than_best()
    yield row

    ten = [random(FLOATS, seed=i) for i in range(10)]
    names = [f"x{i}" for i in range(10)]
    row = contest(scale, "call with 10 arrays: their sum", _many(add_ten, f"f({', '.join(names)})", dict(zip(names, ten, strict=True))),
                  expected=sum(a.astype(np.float64) for a in ten))
    row.under(1e-6)
    row.faster_than_best()
    yield row

    tree = {f"w{i}": random(FLOATS, seed=i) for i in range(100)}
    row = contest(scale, "call with a dict of 100 arrays: their sum", _many(add_dict, "f(p)", {"p": tree}),
                  expected=sum(a.astype(np.float64) for a in tree.values()))
    row.under(10e-6)
    row.faster_than_best()
    yield row


def product_sum(x: Any, y: Any) -> Any:
    return x * y + y


def add_ten(x0: Any, x1: Any, x2: Any, x3: Any, x4: Any, x5: Any, x6: Any, x7: Any, x8: Any, x9: Any) -> Any:
    return x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9


def add_dict(p: dict[str, Any]) -> Any:
    total, *rest = p.values()
    for a in rest:
        total = total + a
    return total


def _two(x: np.ndarray, y: np.ndarray) -> dict[str, Build]:
    def numba() -> Contestant:
        peers.library("numba")
        from .numba_kernels import product_sum as f

        return statement("f(x, y)", {"f": f, "x": x, "y": y})

    def torch() -> Contestant:
        t = peers.library("torch")
        with t.no_grad():
            return statement("f(x, y)", {"f": t.compile(product_sum, dynamic=False), "x": t.from_numpy(x), "y": t.from_numpy(y)})

    return {"NumPy, two ufuncs": lambda: statement("x * y + y", {"x": x, "y": y}), "Numba": numba, "torch.compile": torch,
            **_jitted(product_sum, "f(x, y)", {"x": x, "y": y})}


def _many(f: Any, source: str, scope: dict[str, Any]) -> dict[str, Build]:
    return {"NumPy": lambda: statement(source, {"f": f, **scope}), **_jitted(f, source, scope)}


def _jitted(f: Any, source: str, scope: dict[str, Any]) -> dict[str, Build]:
    def xlc() -> Contestant:
        import xlc

        return statement(source, {"f": xlc.jit(f), **scope})

    def jax(device: bool) -> Contestant:
        library = peers.library("jax")
        arguments = {k: library.device_put(v) for k, v in scope.items()} if device else scope
        text = f"{source}.block_until_ready()" if device else f"asarray({source})"
        return statement(text, {"f": library.jit(f), "asarray": np.asarray, **arguments})

    return {"xlc": xlc, "JAX": lambda: jax(True), "JAX, NumPy in and out": lambda: jax(False)}
