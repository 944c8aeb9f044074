"""Neural-network functions on NumPy arrays and on traced values alike.

    p = xlc.nn.softmax(x)                          on an array: compiled, kept and run at once
    @xlc.jit
    def loss(w): return xlc.nn.cross_entropy(x @ w, labels).mean()

Those that deserve a place of their own in a graph are one operator (see ``xlc/ops/composite.py``), so that what belongs together is fused
as one piece; the others are written with the functions of ``xlc.numpy``, and fused all the same.
"""

from . import init
from .ctc import ctc_loss
from .dropout import dropout
from .embedding import embedding
from .functions import (
    attention,
    cross_entropy,
    elu,
    gelu,
    layer_norm,
    leaky_relu,
    log_softmax,
    relu,
    relu6,
    rms_norm,
    sigmoid_cross_entropy,
    silu,
    softmax,
    softplus,
)
from .losses import kl_divergence, l1_loss, l2_loss, log_uniform_candidates, mse, sampled_softmax_loss, softmax_cross_entropy
from .norm import batch_norm, group_norm, instance_norm
from .recurrent import gru_cell, lstm_cell
from .window import avg_pool, conv, conv_transpose, local_response_norm, max_pool, resize

__all__ = ["attention", "avg_pool", "batch_norm", "conv", "conv_transpose", "cross_entropy", "ctc_loss", "dropout", "elu", "embedding",
           "gelu", "group_norm", "gru_cell", "init", "instance_norm", "kl_divergence", "l1_loss", "l2_loss", "layer_norm", "leaky_relu",
           "local_response_norm", "log_softmax", "log_uniform_candidates", "lstm_cell", "max_pool", "mse", "relu", "relu6", "resize",
           "rms_norm", "sampled_softmax_loss", "sigmoid_cross_entropy", "silu", "softmax", "softmax_cross_entropy", "softplus"]
