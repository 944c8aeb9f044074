"""What is computed again and what is stored, which reductions are one kernel, and how long ones are cut. Values are compared with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xlc

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype("f4")


def compiled(f: Any, *args: np.ndarray, tolerance: float = 1e-5) -> Any:
    """The compiled function, whose results are those of f in float64."""
    e = xlc.jit(f).compile(*args)
    expected = f(*(a.astype("f8") for a in args))
    for found, right in zip(xlc.tree.leaves(xlc.jit(f)(*args)), xlc.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance)
    return e


def test_reductions_over_the_same_elements_are_one_kernel() -> None:
    e = compiled(lambda x, y: (x.sum(0), (x * y).sum(0), x.max(0), 2 * (x + 1).mean(0)), normal(300, 700), normal(300, 700), tolerance=1e-4)
    assert len(e.kernels) == 1


def test_a_reduction_joins_one_that_is_needed_in_another_order() -> None:
    x, y = normal(9, 30, 70), normal(70, 30)
    compiled(lambda x, y: (x.sum(0).T * y, (x * x).sum(0), x.max(0).T), x, y, tolerance=1e-4)


def test_reductions_of_other_elements_are_not() -> None:
    x, y = normal(300, 700), normal(300, 700)
    assert len(compiled(lambda x, y: (x.sum(0), y.sum(0)), x, y, tolerance=1e-4).kernels) == 2  # nothing is loaded once for both
    assert len(compiled(lambda x, y: (x.sum(0), x.sum(1)), x, y, tolerance=1e-4).kernels) == 2


def test_a_reduction_that_needs_the_other_comes_later() -> None:
    """No kernel may need itself: the second sum needs the first, and the third both."""

    def f(x: Any, y: Any) -> Any:
        mean = x.sum(0) / len(x)
        spread = np.square(x - mean).sum(0)
        return mean, spread, (x * y * spread).sum(0)

    assert len(compiled(f, normal(300, 700), normal(300, 700), tolerance=1e-2).kernels) <= 3


def test_sums_of_two_values_are_stored_where_many_read_them() -> None:
    """a + b, read by three kernels: one computes it, the others load it, and neither a nor b."""
    a, b, w = normal(600, 64), normal(600, 64), normal(64, 64)

    def f(a: Any, b: Any, w: Any) -> Any:
        c = a @ w + b
        return (c @ w).sum(), (c.T @ c), np.tanh(c) @ w

    e = compiled(f, a, b, w, tolerance=1e-2)
    assert sum("%a" in line for line in str(e.plan).splitlines() if line.lstrip().startswith("k")) == 1


def test_the_gradient_of_normalisation_keeps_its_argument_alone() -> None:
    """Of each layer what is normalised, and what the next product reads; not the deviations, nor what is normalised, nor relu's mask."""
    layers, rows, width = 8, 4096, 64
    x, scale, mean = normal(rows, width), np.ones(width, "f4"), np.zeros(width, "f4")
    weights = [normal(width, width) / 8 for _ in range(layers)]

    def loss(weights: Any, x: Any) -> Any:
        for w in weights:
            y, _, _ = xlc.nn.batch_norm(x @ w, scale, mean, mean, scale, training=True)
            x = xlc.nn.relu(y)
        return np.square(x).mean()

    e = xlc.jit(xlc.grad(loss)).compile(weights, x)
    assert e.plan.arena_bytes < (2 * layers + 3) * rows * width * 4


@pytest.mark.parametrize("shape", [(128, 60, 16), (127, 161, 5), (1000, 100), (9, 4000, 33)], ids=str)
def test_long_sums_down_few_columns_are_cut(shape: tuple[int, ...]) -> None:
    """So that all threads have work; the pieces depend on the shape alone."""
    axes = tuple(range(len(shape) - 1))
    e = compiled(lambda x: (x.sum(axes), x.max(axes)), normal(*shape), tolerance=1e-3)
    assert any(f"f32[{pieces},{shape[-1]}]" in str(e.after("split")) for pieces in range(8, 65))


def test_short_sums_and_those_of_many_columns_are_not() -> None:
    for shape in (100, 16), (128, 30, 2048):
        axes = tuple(range(len(shape) - 1))
        assert len(compiled(lambda x: x.sum(axes), normal(*shape), tolerance=1e-3).kernels) == 1  # noqa: B023


@pytest.mark.parametrize("shape", [(3, 8, 9, 16), (5, 1, 7, 3), (2, 6, 4000, 17), (2, 3, 4, 5, 6)], ids=str)
def test_short_rows_are_walked_through_without_divisions(shape: tuple[int, ...]) -> None:
    x, widths = normal(*shape), [(0, 0), *[(1, 2)] * (len(shape) - 2), (0, 0)]
    e = compiled(lambda x: np.pad(x, widths) * 2, x)
    text = str(e.kernels[0].loops)
    assert "serial i" in text and "remainder" not in text or shape[2] == 4000
