"""Connectionist temporal classification: the likelihood of a labelling of which only the order is known, not the times.

    ctc_loss(log_softmax(x), labels, input_lengths, label_lengths)           x (T, batch, classes)   ->   (batch,)

The labels, with a blank before, between and after, are the states of an automaton that each time step may stay in, leave by one, or by two
where that skips a blank between different labels:

    b  a  b  c  b            a[t, s] = logaddexp(a[t-1, s], a[t-1, s-1], a[t-1, s-2] if it may skip) + log_probs[t, label of s]

The sum over all paths is a scan over time; its reverse mode is the backward half of the forward-backward algorithm.
"""

from __future__ import annotations

from typing import Any

import numpy

from .. import numpy as np
from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer
from ..frontend.axes import integer
from ..frontend.control import scan
from ..frontend.elementwise import show_shape
from .functions import _arrays, _public

NEVER = -1e30  # the logarithm of probability 0: finite, so that no inf - inf occurs, in values or in gradients


@_public
def ctc_loss(log_probs: Any, labels: Any, input_lengths: Any, label_lengths: Any, *, blank: int = 0) -> Any:
    """-log(probability of the labels), one loss per row: log_probs (T, batch, classes) are logarithms of probabilities (log_softmax of
    logits), labels (batch, S) integers. The first input_lengths (batch) of the T steps count, and the first label_lengths (batch) of the
    S labels.

    inf where no path exists (too few steps; every label needs one, and equal neighbours one between them), with a gradient of 0. The
    gradient is that of the function as written; PyTorch adds exp(log_probs), which is the same once it has passed the log_softmax.
    A. Graves et al., ICML 2006."""
    (x,) = _arrays(log_probs)
    y, steps, counts = (np.asarray(v) for v in (labels, input_lengths, label_lengths))
    _check(x, y, steps, counts)
    dtype, x = x.dtype, x if x.dtype.itemsize > 2 else np.astype(x, numpy.float32)
    time, batch, classes = x.shape
    blank = integer(blank, "blank")
    y = np.astype(y, numpy.int64)
    gaps = np.full((batch, y.shape[1], 1), blank, numpy.int64)
    states = np.concatenate([np.full((batch, 1), blank, numpy.int64),
                             np.reshape(np.concatenate([y[:, :, None], gaps], axis=2), (batch, 2 * y.shape[1]))], axis=1)
    place = np.arange(2 * y.shape[1] + 1)
    skips = (states != blank) & (place > 1) & (states != _before(states, 2, blank))
    emitted = np.maximum(np.take_along_axis(x, np.broadcast_to(states, (time, *states.shape)), axis=2), NEVER)

    def step(paths: Any, now: Any) -> Any:
        t, row = now
        ways = np.stack([paths, _before(paths, 1, NEVER), np.where(skips, _before(paths, 2, NEVER), NEVER)])
        return np.where((t < steps)[:, None], np.logsumexp(ways, axis=0) + row, paths), None

    start = np.broadcast_to(np.where(place == 0, 0, NEVER), states.shape).astype(x.dtype)
    paths, _ = scan(step, start, (np.arange(time), emitted))
    ends = (place == 2 * counts[:, None]) | (place == 2 * counts[:, None] - 1)
    total = np.logsumexp(np.where(ends, paths, NEVER), axis=1)
    return np.astype(np.where(total > NEVER / 2, -total, numpy.inf), dtype)


def _before(states: Any, n: int, fill: Any) -> Any:
    """What stands n places before, along the last axis."""
    return np.pad(states, ((0, 0), (n, 0)), constant_values=fill)[:, :states.shape[1]]


def _check(x: Tracer, y: Tracer, steps: Tracer, counts: Tracer) -> None:
    for t, name in ((y, "labels"), (steps, "input_lengths"), (counts, "label_lengths")):
        if not t.node.dtype.is_int:
            raise XlcTypeError(f"ctc_loss expects integers as {name}, found {t.node.type}")
    fits = x.ndim == 3 and y.ndim == 2
    if not fits or any(t.node.shape != x.node.shape[1:2] for t in (steps, counts)) or y.node.shape[0] != x.node.shape[1]:
        shapes = ", ".join(show_shape(t.node.shape) for t in (x, y, steps, counts))
        raise XlcValueError("ctc_loss expects log_probs (T, batch, classes), labels (batch, S), input_lengths (batch,) and label_lengths "
                            f"(batch,), found {shapes}")
