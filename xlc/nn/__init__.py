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
from .window import avg_pool, conv, conv_transpose, local_response_norm, max_pool, resize

__all__ = ["attention", "avg_pool", "conv", "conv_transpose", "cross_entropy", "gelu", "layer_norm", "local_response_norm", "log_softmax",
           "max_pool", "relu", "resize", "rms_norm", "sigmoid_cross_entropy", "silu", "softmax", "softplus"]
