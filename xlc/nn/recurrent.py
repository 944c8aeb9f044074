"""One step of a recurrent network.

    h, c = lstm_cell(x, (h, c), w, b)          x (batch, in), h and c (batch, hidden), w (in + hidden, 4 hidden), b (4 hidden)

The rows of ``w`` are those of x, then those of h; its columns are the gates, each ``hidden`` wide, in PyTorch's order. All gates are one
contraction. PyTorch's parameters are ``w = concatenate([w_ih.T, w_hh.T])`` and ``b = b_ih + b_hh``. Over time: the layers of ``sequence``,
xlc.scan, or a Python loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import numpy as np
from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer
from ..frontend.elementwise import show_shape
from .functions import _arrays, _public


def _checked(name: str, w: Tracer, x: Tracer, h: Tracer, gates: int) -> None:
    expected = (x.node.shape[-1] + h.node.shape[-1], gates * h.node.shape[-1])
    if w.node.shape != expected:
        columns = "hidden" if gates == 1 else f"{gates} hidden"
        raise XlcValueError(f"{name} of x {show_shape(x.node.shape)} and h {show_shape(h.node.shape)} expects w of shape (in + hidden, "
                            f"{columns}) = {show_shape(expected)}, found {show_shape(w.node.shape)}")


@_public
def rnn_cell(x: Any, h: Any, w: Any, b: Any, *, activation: Callable[[Any], Any] = np.tanh) -> Any:
    """The next state and output activation([x, h] @ w + b), from x (..., in), h (..., hidden), w (in + hidden, hidden) and b (hidden)."""
    x, h, w, b = _arrays(x, h, w, b)
    _checked("rnn_cell", w, x, h, 1)
    return activation(np.concatenate([x, h], axis=-1) @ w + b)


@_public
def lstm_cell(x: Any, state: Any, w: Any, b: Any, *, peephole: Any = None, coupled: bool = False, forget_bias: float = 0.0) -> Any:
    """The next state (h, c), of which h is the output, from x (..., in) and the state (h, c), each (..., hidden).

        i, f, g, o = [x, h] @ w + b                         w (in + hidden, 4 hidden), b (4 hidden)
        c' = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(g);  h' = sigmoid(o) * tanh(c')

    peephole   (3, hidden): times c it is added to i and f, times c' to o (F. Gers and J. Schmidhuber, 2000)
    coupled    the input gate is 1 - sigmoid(f): gates f, g, o, so w (in + hidden, 3 hidden), peephole (2, hidden) for f and o

    S. Hochreiter and J. Schmidhuber, Neural Computation 9, 1997; F. Gers et al., 2000."""
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise XlcTypeError("lstm_cell expects the state as a pair (h, c)")
    extra = () if peephole is None else (peephole,)
    x, h, c, w, b, *peep = _arrays(x, *state, w, b, *extra)
    gates = 3 if coupled else 4
    _checked("lstm_cell", w, x, h, gates)
    if peep and peep[0].node.shape != (gates - 1, h.node.shape[-1]):
        raise XlcValueError(f"lstm_cell expects peephole weights of shape {show_shape((gates - 1, h.node.shape[-1]))}, found "
                            f"{show_shape(peep[0].node.shape)}")
    *first, g, o = np.split(np.concatenate([x, h], axis=-1) @ w + b, gates, axis=-1)
    if peep:
        first = [gate + peep[0][k] * c for k, gate in enumerate(first)]
    f = np.expit(first[-1] + forget_bias)
    i = 1 - f if coupled else np.expit(first[0])
    c = f * c + i * np.tanh(g)
    o = np.expit(o + peep[0][-1] * c if peep else o)
    return o * np.tanh(c), c


@_public
def gru_cell(x: Any, h: Any, w: Any, b: Any, *, reset_after: bool = True) -> Any:
    """The next state and output h, from x (..., in) and h (..., hidden).

        r, z, n = x @ w[:in] + b[0];  r', z', n' = h @ w[in:] + b[1]           w (in + hidden, 3 hidden), b (2, 3 hidden)
        r = sigmoid(r + r');  z = sigmoid(z + z');  n = tanh(n + r * n');  h' = (1 - z) * n + z * h

    A b of shape (3 hidden) stands for (b, 0). This is PyTorch's and cuDNN's form. ``reset_after=False`` has the form of the paper, where
    the reset gate multiplies h before the contraction: n = tanh(n + (r * h) @ w[in:, 2 hidden:]), with b (3 hidden). K. Cho et al.,
    arXiv:1406.1078."""
    x, h, w, b = _arrays(x, h, w, b)
    _checked("gru_cell", w, x, h, 3)
    size, hidden = x.shape[-1], h.shape[-1]
    if b.ndim == 2 and not reset_after:
        raise XlcValueError("gru_cell with reset_after=False has one bias of shape (3 hidden)")
    bx, bh = (b[0], b[1]) if b.ndim == 2 else (b, 0)
    if reset_after:
        (r, z, n), (rh, zh, nh) = (np.split(v, 3, axis=-1) for v in (x @ w[:size] + bx, h @ w[size:] + bh))
        r, z = np.expit(r + rh), np.expit(z + zh)
        n = np.tanh(n + r * nh)
    else:
        r, z = np.split(np.expit(np.concatenate([x, h], axis=-1) @ w[:, :2 * hidden] + bx[:2 * hidden]), 2, axis=-1)
        n = np.tanh(np.concatenate([x, r * h], axis=-1) @ w[:, 2 * hidden:] + bx[2 * hidden:])
    return (1 - z) * n + z * h
