"""Minimax polynomials for ``xlc/ops/vecmath*.py``: the Remez exchange in mpmath, and the fits whose coefficients stand there.

    python -m benchmarks.minimax exp_f32        prints the coefficients, lowest power first, and the error in bits

``minimax(f, lo, hi, powers)`` fits ``sum c_k x**powers[k]`` to f on [lo, hi] so that the largest error relative to ``scale(x)`` is least.
The coefficients are rounded to the format one after the other, lowest power first, and those that follow are fitted anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mpmath import mp, mpf

Real = Callable[[mpf], mpf]


def exchange(f: Real, scale: Real, lo: float, hi: float, powers: Sequence[int], rounds: int = 30) -> tuple[list[mpf], mpf]:
    """The coefficients and the largest scaled error."""
    n = len(powers)
    a, b = mpf(lo), mpf(hi)
    grid = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * i / (24 * (n + 1))) for i in range(24 * (n + 1) + 1)]
    grid = [x for x in grid if x != 0]
    target = [f(x) / scale(x) for x in grid]
    basis = [[x**p / scale(x) for p in powers] for x in grid]
    points = [round(i * (len(grid) - 1) / n) for i in range(n + 1)]
    for _ in range(rounds):
        system = mp.matrix([[*basis[k], (-1) ** i] for i, k in enumerate(points)])
        solution = mp.lu_solve(system, mp.matrix([target[k] for k in points]))
        coefficients = [solution[i] for i in range(n)]
        errors = [sum((c * g for c, g in zip(coefficients, row, strict=True)), mpf(0)) - t for row, t in zip(basis, target, strict=True)]
        extremes: list[int] = []
        for k, e in enumerate(errors):
            if extremes and (errors[extremes[-1]] > 0) == (e > 0):
                if abs(e) > abs(errors[extremes[-1]]):
                    extremes[-1] = k
            else:
                extremes.append(k)
        while len(extremes) > n + 1:
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        if len(extremes) < n + 1 or extremes == points:
            break
        points = extremes
    return coefficients, max(abs(e) for e in errors)


def minimax(f: Real, lo: float, hi: float, powers: Sequence[int], dtype: str = "f4", scale: Real | None = None,
            exact: int | None = None) -> tuple[list[float], float]:
    """Rounded coefficients and the error in bits. ``exact``: so many of the lowest are rounded one by one (default: half of them)."""
    mp.prec = 200
    number = np.dtype(dtype).type
    weight = scale or f
    done: list[mpf] = []
    for k in range(len(powers) if exact is None else exact + 1):
        def rest(x: mpf, known: tuple[mpf, ...] = tuple(done)) -> mpf:
            return f(x) - sum((c * x**p for c, p in zip(known, powers, strict=False)), mpf(0))

        last = k == (len(powers) if exact is None else exact)
        fitted, _ = exchange(rest, weight, lo, hi, powers[k:])
        if last:
            done += [mpf(float(number(float(c)))) for c in fitted]
            break
        done.append(mpf(float(number(float(fitted[0])))))
    check = [mpf(lo) + (mpf(hi) - mpf(lo)) * (i + mpf(1) / 3) / 500 for i in range(500)]
    error = max(abs((sum((c * x**p for c, p in zip(done, powers, strict=True)), mpf(0)) - f(x)) / weight(x)) for x in check)
    return [float(c) for c in done], float(mp.log(error, 2))
