"""Connectionist temporal classification: the loss of a sequence of labels whose alignment to the frames is not known.

    losses = ctc_loss(log_probs, labels, input_lengths, label_lengths)          (frames, batch, classes), (batch, labels) -> (batch,)

A. Graves et al., Connectionist temporal classification, ICML 2006. The recursion over the frames is one ``scan``; its gradient is that of
the scan, the backward recursion of the paper.
"""

from __future__ import annotations

import math
from typing import Any

from .. import numpy as np
from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift
from ..frontend.control import scan
from ..frontend.elementwise import show_shape
from .functions import _arrays, _public

NEVER = -math.inf  # the logarithm of an impossible path's probability


@_public
def ctc_loss(log_probs: Any, labels: Any, input_lengths: Any, label_lengths: Any, *, blank: int = 0) -> Any:
    """-log of the probability of each row's labels, summed over all alignments; one loss per row, inf where there are too few frames.

    log_probs (frames, batch, classes) are logarithms of probabilities (log_softmax), labels (batch, most) integers other than ``blank``,
    input_lengths (batch,) the frames of each row, label_lengths (batch,) its labels: what lies beyond is not looked at."""
    (p,) = _arrays(log_probs)
    y, frames, count = (lift(v) for v in (labels, input_lengths, label_lengths))
    _check(p, y, frames, count)
    batch, width = y.shape[0], 2 * y.shape[1] + 1
    states = np.reshape(np.stack([np.full(y.shape, blank), np.astype(y, np.int64)], axis=-1), (batch, width - 1))
    states = np.concatenate([states, np.full((batch, 1), blank)], axis=1)  # a blank around each label
    wide = p if p.dtype.itemsize > 2 else np.astype(p, np.float32)
    emitted = np.take_along_axis(wide, np.broadcast_to(states, (p.shape[0], *states.shape)), axis=2)

    def shifted(x: Any, by: int) -> Any:
        return np.concatenate([np.full((batch, by), NEVER, x.dtype), x], axis=1)[:, :width]

    before = np.concatenate([np.full((batch, 2), blank), states], axis=1)[:, :width]
    skips = np.where((states != blank) & (states != before), 0.0, NEVER).astype(wide.dtype)

    def step(paths: Any, frame: Any) -> Any:
        """Each state follows itself, the one before, or, skipping a blank between different labels, the one before that."""
        k, emission = frame
        ways = np.logaddexp(np.logaddexp(paths, shifted(paths, 1)), shifted(paths, 2) + skips)
        return np.where((k < frames)[:, None], ways + emission, paths), None

    start = np.concatenate([np.zeros((batch, 1), wide.dtype), np.full((batch, width - 1), NEVER, wide.dtype)], axis=1)
    paths, _ = scan(step, start, (np.arange(p.shape[0]), emitted))
    last = np.astype(count, np.int64)[:, None] * 2
    ends = [np.take_along_axis(paths, at, axis=1)[:, 0] for at in (last, np.maximum(last - 1, 0))]
    return np.astype(-np.logaddexp(ends[0], np.where(count > 0, ends[1], NEVER)), p.dtype)


def _check(p: Tracer, y: Tracer, frames: Tracer, count: Tracer) -> None:
    if p.ndim != 3 or y.ndim != 2 or any(v.node.shape != p.node.shape[1:2] for v in (frames, count)) or y.node.shape[0] != p.node.shape[1]:
        raise XlcValueError("ctc_loss expects log_probs (frames, batch, classes), labels (batch, most), input_lengths (batch,) and "
                            f"label_lengths (batch,), found {', '.join(show_shape(v.node.shape) for v in (p, y, frames, count))}")
    for v, name in ((y, "labels"), (frames, "input_lengths"), (count, "label_lengths")):
        if not v.node.dtype.is_int:
            raise XlcTypeError(f"ctc_loss: {name} must be integers, found {v.node.type}")
