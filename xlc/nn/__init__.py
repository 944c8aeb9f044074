"""Neural-network functions on NumPy arrays and on traced values alike.

    p = xlc.nn.softmax(x)                          on an array: compiled, kept and run at once
    @xlc.jit
    def loss(w): return xlc.nn.cross_entropy(x @ w, labels).mean()

Each is one operator of the graph (see ``xlc/ops/composite.py``), so that what belongs together is fused as one piece.
"""

from .functions import (
    attention,
    cross_entropy,
    gelu,
    layer_norm,
    log_softmax,
    relu,
    rms_norm,
    sigmoid_cross_entropy,
    silu,
    softmax,
    softplus,
)

__all__ = ["attention", "cross_entropy", "gelu", "layer_norm", "log_softmax", "relu", "rms_norm", "sigmoid_cross_entropy", "silu",
           "softmax", "softplus"]
