"""The functions of ``xlc.nn``: arguments as users write them, in the form that the composite operators take.

    softmax(x, axis=-1)    ->    %0: f32[4,10] = softmax(%x) {axes=(1,)}

Integers and booleans are computed with as float64; arrays of several dtypes are promoted as NumPy promotes them.
"""

from __future__ import annotations

from typing import Any

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, wrap
from ..frontend.axes import many_axes
from ..frontend.eager import exported
from ..frontend.elementwise import broadcast, broadcast_shapes, broadcast_to, cast, emit, result_dtype, show_shape
from ..ir.node import Node, full
from ..ir.types import DType, bool_, f64

_public = exported()


def _floats(*values: Any) -> list[Node]:
    """Nodes of the one float dtype to which the values promote."""
    tracers = [lift(v) for v in values]
    dtype = _float(result_dtype(*tracers))
    return [cast(t.node, dtype) for t in tracers]


def _arrays(*values: Any) -> list[Tracer]:
    """Traced values of the one float dtype to which the values promote."""
    return [wrap(n) for n in _floats(*values)]


def _float(dtype: DType) -> DType:
    return dtype if dtype.is_float else f64


# ------------------------------------------------------------------------------------------------ activations


def _unary(name: str, x: Any) -> Any:
    (node,) = _floats(x)
    return wrap(emit(name, node))


@_public
def relu(x: Any) -> Any:
    """max(x, 0); nan stays nan. Integers stay integers."""
    tracer = lift(x)
    return wrap(emit("relu", tracer.node)) if tracer.node.dtype != bool_ else tracer


@_public
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), as ``xlc.numpy.expit``. Integers become floats."""
    return _unary("expit", x)


@_public
def relu6(x: Any) -> Any:
    """min(max(x, 0), 6); nan stays nan. The gradient is 0 at both ends. Integers stay integers."""
    tracer = lift(relu(x))
    six = full(tracer.node.type, 6)
    return wrap(emit("where", emit("greater_equal", tracer.node, six), six, tracer.node))


@_public
def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    """x where x >= 0, negative_slope * x below. A. Maas et al., ICML 2013."""
    (tracer,) = _arrays(x)
    return wrap(emit("where", (tracer >= 0).node, tracer.node, cast((tracer * negative_slope).node, tracer.node.dtype)))


@_public
def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x where x > 0, alpha * (exp(x) - 1) below. D.-A. Clevert et al., arXiv:1511.07289."""
    (node,) = _floats(x)
    below = wrap(emit("expm1", emit("minimum", node, full(node.type, 0)))) * alpha
    return wrap(emit("where", emit("greater", node, full(node.type, 0)), node, cast(below.node, node.dtype)))


@_public
def gelu(x: Any, approximate: bool = False) -> Any:
    """x * Phi(x), Phi the distribution function of the normal distribution; ``approximate``: by tanh. D. Hendrycks and K. Gimpel,
    arXiv:1606.08415."""
    return _unary("gelu_tanh" if approximate else "gelu", x)


@_public
def silu(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return _unary("silu", x)


@_public
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return _unary("softplus", x)


@_public
def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) along ``axis`` (an int, a tuple, or None for all), without overflow."""
    (node,) = _floats(x)
    return wrap(emit("softmax", node, axes=many_axes(axis, node.rank)))


@_public
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)), without overflow or loss of small probabilities."""
    (node,) = _floats(x)
    return wrap(emit("log_softmax", node, axes=many_axes(axis, node.rank)))


# ------------------------------------------------------------------------------------------------ normalisation


@_public
def layer_norm(x: Any, scale: Any, bias: Any, *, axis: Any = -1, eps: float = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + eps) * scale + bias along ``axis``; scale and bias have the shape of these axes. J. L. Ba et al.,
    arXiv:1607.06450."""
    node, s, b = _floats(x, scale, bias)
    axes = many_axes(axis, node.rank)
    return wrap(emit("layer_norm", node, *(_along(v, node, axes, name) for v, name in ((s, "scale"), (b, "bias"))), axes=axes,
                     eps=_number(eps, "eps")))


@_public
def rms_norm(x: Any, scale: Any, *, axis: Any = -1, eps: float = 1e-6) -> Any:
    """x / sqrt(mean(x**2) + eps) * scale along ``axis``; scale has the shape of these axes. B. Zhang and R. Sennrich, arXiv:1910.07467."""
    node, s = _floats(x, scale)
    axes = many_axes(axis, node.rank)
    return wrap(emit("rms_norm", node, _along(s, node, axes, "scale"), axes=axes, eps=_number(eps, "eps")))


def _along(parameter: Node, x: Node, axes: tuple[int, ...], name: str) -> Node:
    expected = tuple(x.shape[a] for a in axes)
    if parameter.rank not in (0, len(axes)) or (parameter.rank and parameter.shape != expected):
        raise XlcValueError(f"{name} must have the shape of the normalised axes, {show_shape(expected)}, found "
                            f"{show_shape(parameter.shape)}")
    return broadcast(parameter, expected)


def _number(value: Any, name: str) -> float:
    if isinstance(value, Tracer):
        value.__float__()
    try:
        return float(value)
    except (TypeError, ValueError):
        raise XlcTypeError(f"{name} must be a number, found {value!r}") from None


# ------------------------------------------------------------------------------------------------ losses


@_public
def cross_entropy(logits: Any, labels: Any) -> Any:
    """-log(softmax(logits)[label]), one loss per row: logits (..., classes), integer labels (...) in [0, classes)."""
    (x,) = _floats(logits)
    y = lift(labels).node
    if not y.dtype.is_int:
        raise XlcTypeError(f"cross_entropy expects integer labels, one class number per row, found {y.type}; for probabilities write "
                           "-(labels * xlc.nn.log_softmax(logits)).sum(-1)")
    if x.rank == 0 or y.shape != x.shape[:-1]:
        raise XlcValueError(f"cross_entropy of logits of shape {show_shape(x.shape)} expects labels of shape {show_shape(x.shape[:-1])}, "
                            f"found "
                            f"{show_shape(y.shape)}")
    return wrap(emit("cross_entropy", x, y))


@_public
def sigmoid_cross_entropy(logits: Any, labels: Any) -> Any:
    """-labels*log(p) - (1-labels)*log(1-p) with p = 1/(1+exp(-logits)), elementwise, without overflow."""
    x, y = _floats(logits, labels)
    shape = broadcast_shapes(x.shape, y.shape)
    return wrap(emit("sigmoid_cross_entropy", broadcast(x, shape), broadcast(y, shape)))


# ------------------------------------------------------------------------------------------------ attention


@_public
def attention(q: Any, k: Any, v: Any, *, mask: Any = None, causal: bool = False, scale: Any = None) -> Any:
    """softmax(q @ k.T * scale) @ v over (..., tokens, depth); leading dimensions broadcast. A. Vaswani et al., arXiv:1706.03762.

    mask    (..., queries, keys), broadcast: a boolean one keeps where it is True, a float one is added to the scores
    causal  a query sees the keys up to its own position (the last query sees the last key)
    scale   1/sqrt(depth) by default"""
    nodes = _floats(q, k, v)
    for node, name in zip(nodes, "qkv", strict=True):
        if node.rank < 2:
            raise XlcValueError(f"attention expects {name} of shape (..., tokens, depth), found {show_shape(node.shape)}")
    lead = broadcast_shapes(*(n.shape[:-2] for n in nodes))
    query, key, value = (broadcast(n, (*lead, *n.shape[-2:])) for n in nodes)
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise XlcValueError(f"attention expects q (..., queries, depth), k (..., keys, depth), v (..., keys, width), found "
                            f"{show_shape(query.shape)}, "
                            f"{show_shape(key.shape)}, {show_shape(value.shape)}")
    if isinstance(scale, Tracer):
        query = cast((wrap(query) * scale).node, query.dtype)
        scale = 1.0
    arguments = [query, key, value]
    if mask is not None:
        m = lift(mask).node
        if m.dtype.is_int:
            raise XlcTypeError(f"an attention mask is boolean (True keeps) or float (added to the scores), found {m.type}; write mask != 0")
        scores = (*lead, query.shape[-2], key.shape[-2])
        arguments.append(broadcast_to(m if m.dtype == bool_ else cast(m, query.dtype), scores))
    return wrap(emit("attention", *arguments, causal=bool(causal), scale=None if scale is None else _number(scale, "scale")))
