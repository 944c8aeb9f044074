"""CTC: against the sum over all paths, written out; gradients against differences; against PyTorch where it is installed."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from test_grad import check

import xlc
from xlc import nn

rng = np.random.default_rng(5)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def by_paths(log_probs: np.ndarray, labels: Any, steps: Any, counts: Any, blank: int = 0) -> np.ndarray:
    out = []
    for b, (n, count) in enumerate(zip(steps, counts, strict=True)):
        wanted = tuple(int(v) for v in labels[b][:count])
        found = [np.prod([np.exp(log_probs[t, b, k]) for t, k in enumerate(path)])
                 for path in itertools.product(range(log_probs.shape[2]), repeat=int(n)) if collapse(path, blank) == wanted]
        out.append(-np.log(np.sum(found)) if found else np.inf)
    return np.array(out)


CASES = {  # labels, input_lengths, label_lengths, for six steps and three classes besides the blank
    "plain": ([[1, 2], [3, 1]], [6, 6], [2, 2]),
    "repeated": ([[1, 1, 1], [2, 2, 3]], [6, 5], [3, 3]),
    "shorter": ([[1, 2, 3], [3, 3, 3]], [4, 6], [2, 1]),
    "no labels": ([[1, 2], [3, 3]], [3, 6], [0, 1]),
    "no room": ([[1, 1], [1, 2]], [2, 2], [2, 2]),
    "no steps": ([[1, 1], [1, 2]], [0, 0], [0, 1]),
    "one": ([[1], [2]], [1, 1], [1, 1]),
    "empty labels": (np.zeros((2, 0), int), [6, 2], [0, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_sum_over_paths(name: str) -> None:
    y, steps, counts = (np.array(v) for v in CASES[name])
    x = rng.normal(size=(6, 2, 4))
    expected = by_paths(log_softmax(x), y, steps, counts)
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 1e-5), (ml_dtypes.bfloat16, 2e-2)):
        got = nn.ctc_loss(log_softmax(x).astype(dtype), y, steps, counts)
        assert got.dtype == dtype and got.shape == (2,)
        np.testing.assert_allclose(got.astype(np.float64), expected, rtol=rtol)
    finite = np.isfinite(expected)
    if finite.any():
        check(lambda x: nn.ctc_loss(nn.log_softmax(x), y[finite], steps[finite], counts[finite]), x[:, finite])
    slope = xlc.grad(lambda x: nn.ctc_loss(nn.log_softmax(x), y, steps, counts).sum())(x)
    assert np.isfinite(slope).all() and (slope[:, ~finite] == 0).all()


def test_another_blank_and_impossible_classes() -> None:
    x = log_softmax(rng.normal(size=(5, 1, 3)))
    x[2, 0, 1] = -np.inf
    y = np.array([[0, 1]], np.int32)
    np.testing.assert_allclose(nn.ctc_loss(x, y, [5], [2], blank=2), by_paths(x, y, [5], [2], blank=2), rtol=1e-12)


def test_probabilities_of_all_labellings_add_up() -> None:
    """Every path collapses to one labelling, so their probabilities sum to 1: 15 labellings of up to four labels out of two."""
    x = log_softmax(rng.normal(size=(4, 1, 3)))
    every = [p for n in range(5) for p in itertools.product((1, 2), repeat=n)]
    y = np.array([[*p, *[0] * (4 - len(p))] for p in every])
    loss = nn.ctc_loss(np.repeat(x, len(y), 1), y, np.full(len(y), 4), [len(p) for p in every])
    np.testing.assert_allclose(np.exp(-loss).sum(), 1, rtol=1e-12)


def test_long_sequences_of_any_batch_in_one_compilation() -> None:
    def loss(x: Any, y: Any, t: Any, s: Any) -> Any:
        return nn.ctc_loss(nn.log_softmax(x), y, t, s).mean()

    f = xlc.jit(xlc.value_and_grad(loss), dynamic={"x": {1: "n"}, "y": {0: "n"}, "t": {0: "n"}, "s": {0: "n"}})
    for batch in (3, 1):
        x, y = rng.normal(size=(200, batch, 11)).astype("f4"), rng.integers(1, 11, (batch, 40))
        t, s = rng.integers(150, 201, batch), rng.integers(0, 41, batch)
        value, slope = f(x, y, t, s)
        assert abs(slope.sum()) < 1e-3 and (slope[t.min():, t.argmin()] == 0).all()
        exact, steep = xlc.value_and_grad(loss)(x.astype("f8"), y, t, s)
        np.testing.assert_allclose(value, exact, rtol=1e-5)
        np.testing.assert_allclose(slope, steep, atol=2e-4)
    assert f.compiles == 1


def test_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x, y = rng.normal(size=(60, 4, 11)), rng.integers(1, 11, (4, 20))
    t, s = rng.integers(45, 61, 4), rng.integers(0, 21, 4)
    value, slope = xlc.value_and_grad(lambda x: nn.ctc_loss(nn.log_softmax(x), y, t, s).mean())(x)
    z = torch.tensor(x, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(z.log_softmax(-1), *map(torch.tensor, (y, t, s)), reduction="none").mean()
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    np.testing.assert_allclose(slope, z.grad.numpy(), atol=1e-12)


def test_wrong_arguments() -> None:
    x, y = np.zeros((5, 2, 4), "f4"), np.ones((2, 3), int)
    for args, found in [((x, y * 1.0, [5, 5], [3, 3]), "integers as labels"), ((x, y[0], [5, 5], [3, 3]), "found"),
                        ((x, y, [5], [3, 3]), r"input_lengths \(batch,\)"), ((x[0], y, [5, 5], [3, 3]), "log_probs"),
                        ((x, y[:1], [5, 5], [3, 3]), "labels")]:
        with pytest.raises(xlc.XlcError, match=found):
            nn.ctc_loss(*args)
