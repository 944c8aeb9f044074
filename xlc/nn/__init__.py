"""Neural-network functions on NumPy arrays and on traced values alike.

    p = xlc.nn.softmax(x)                          on an array: compiled, kept and run at once
    @xlc.jit
    def loss(w): return xlc.nn.cross_entropy(x @ w, labels).mean()

Those that deserve a place of their own in a graph are one operator (see ``xlc/ops/composite.py``), so that what belongs together is fused
as one piece; the others are written with the functions of ``xlc.numpy``, and fused all the same.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import init as init
    from .ctc import ctc_loss as ctc_loss
    from .functions import attention as attention
    from .functions import cross_entropy as cross_entropy
    from .functions import elu as elu
    from .functions import gelu as gelu
    from .functions import layer_norm as layer_norm
    from .functions import leaky_relu as leaky_relu
    from .functions import log_softmax as log_softmax
    from .functions import relu as relu
    from .functions import relu6 as relu6
    from .functions import rms_norm as rms_norm
    from .functions import sigmoid as sigmoid
    from .functions import sigmoid_cross_entropy as sigmoid_cross_entropy
    from .functions import silu as silu
    from .functions import softmax as softmax
    from .functions import softplus as softplus
    from .layer import Layer as Layer
    from .layer import Parallel as Parallel
    from .layer import Residual as Residual
    from .layer import Sequential as Sequential
    from .layers import AvgPool as AvgPool
    from .layers import BatchNorm as BatchNorm
    from .layers import Conv as Conv
    from .layers import ConvTranspose as ConvTranspose
    from .layers import Dense as Dense
    from .layers import Dropout as Dropout
    from .layers import Embedding as Embedding
    from .layers import Flatten as Flatten
    from .layers import LayerNorm as LayerNorm
    from .layers import LocalResponseNorm as LocalResponseNorm
    from .layers import MaxPool as MaxPool
    from .lookup import embedding as embedding
    from .losses import kl_divergence as kl_divergence
    from .losses import l1_loss as l1_loss
    from .losses import l2_loss as l2_loss
    from .losses import log_uniform_candidates as log_uniform_candidates
    from .losses import mse as mse
    from .losses import sampled_softmax_loss as sampled_softmax_loss
    from .losses import softmax_cross_entropy as softmax_cross_entropy
    from .norm import batch_norm as batch_norm
    from .norm import group_norm as group_norm
    from .norm import instance_norm as instance_norm
    from .recurrent import gru_cell as gru_cell
    from .recurrent import lstm_cell as lstm_cell
    from .recurrent import rnn_cell as rnn_cell
    from .regularize import dropout as dropout
    from .sequence import GRU as GRU
    from .sequence import LSTM as LSTM
    from .sequence import RNN as RNN
    from .sequence import Bidirectional as Bidirectional
    from .window import avg_pool as avg_pool
    from .window import conv as conv
    from .window import conv_transpose as conv_transpose
    from .window import local_response_norm as local_response_norm
    from .window import max_pool as max_pool
    from .window import resize as resize

_WHERE = {  # name -> module that has it; imported when first used, so that the first call of one function does not wait for all
    **dict.fromkeys(("ctc_loss",), "ctc"),
    **dict.fromkeys(("dropout",), "regularize"),
    **dict.fromkeys(("embedding",), "lookup"),
    **dict.fromkeys(("attention", "cross_entropy", "elu", "gelu", "layer_norm", "leaky_relu", "log_softmax", "relu", "relu6", "rms_norm",
                     "sigmoid", "sigmoid_cross_entropy", "silu", "softmax", "softplus",), "functions"),
    **dict.fromkeys(("Layer", "Parallel", "Residual", "Sequential",), "layer"),
    **dict.fromkeys(("AvgPool", "BatchNorm", "Conv", "ConvTranspose", "Dense", "Dropout", "Embedding", "Flatten", "LayerNorm",
                     "LocalResponseNorm", "MaxPool",), "layers"),
    **dict.fromkeys(("kl_divergence", "l1_loss", "l2_loss", "log_uniform_candidates", "mse", "sampled_softmax_loss",
                     "softmax_cross_entropy",), "losses"),
    **dict.fromkeys(("batch_norm", "group_norm", "instance_norm",), "norm"),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_cell",), "recurrent"),
    **dict.fromkeys(("Bidirectional", "GRU", "LSTM", "RNN",), "sequence"),
    **dict.fromkeys(("avg_pool", "conv", "conv_transpose", "local_response_norm", "max_pool", "resize",), "window"),
}
__all__ = sorted([*_WHERE, "init"])


def __getattr__(name: str) -> Any:
    if name == "init":
        value = importlib.import_module(".init", __name__)
    elif name in _WHERE:
        value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    else:
        raise AttributeError(f"module 'xlc.nn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
