"""Products of matrices and tensors. Every one is a ``dot`` (dot_general) between transposes, sums and broadcasts.

    einsum("bij,bjk->bik", x, y)    ->    dot(x, y) {batch=((0,), (0,)), contract=((2,), (1,))}
"""

from __future__ import annotations

import builtins
from collections import Counter
from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.array import Tracer, lift, wrap
from ..frontend.axes import integer, many_axes, one_axis
from ..frontend.elementwise import broadcast, broadcast_shapes, cast, elementwise, emit, loop_dtypes, result_dtype, show_shape, spec_of
from ..frontend.table import function
from ..ir.node import Node
from ..ir.types import DTYPES, DType, Size, bool_, dtype_of
from .shape import index_grid, transposed


def contract(x: Node, y: Node, axes: tuple[tuple[int, ...], tuple[int, ...]],
             batch: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())) -> Node:
    """dot_general of two nodes of one dtype; its dimensions are: batch, free ones of x, free ones of y."""
    if x.dtype == bool_:
        narrow = DTYPES["i32"]
        return cast(emit("dot", cast(x, narrow), cast(y, narrow), contract=axes, batch=batch), bool_)
    return emit("dot", x, y, contract=axes, batch=batch)


def _common(x: Any, y: Any, ufunc: np.ufunc | None = None) -> tuple[Tracer, Tracer, DType]:
    """Both as tracers of the dtype in which NumPy multiplies them, and the dtype of the result."""
    a, b = lift(x), lift(y)
    if ufunc is not None:
        left, right, out = loop_dtypes(ufunc, (spec_of(a), spec_of(b)))
    else:
        left = right = out = result_dtype(a, b)
    return wrap(cast(a.node, left)), wrap(cast(b.node, right)), out


@function(np.matmul)
def matmul(x: Any, y: Any, /, out: None = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    if out is not None:
        raise XlcTypeError("np.matmul(..., out=y): traced arrays are not written in place; write y = a @ b")
    a, b, result = _common(x, y, np.matmul)
    if not a.ndim or not b.ndim:
        raise XlcValueError("matmul: an operand is a scalar (0-d); use * for a product with a number")
    n, m = a.node.shape[-1], b.node.shape[-2 if b.ndim > 1 else 0]
    if n != m:
        raise XlcValueError(f"matmul: shapes {show_shape(a.node.shape)} and {show_shape(b.node.shape)} do not fit: the last size of the "
                            f"first, {n}, differs "
                            f"from {'the last but one' if b.ndim > 1 else 'the size'} of the second, {m}")
    left, right = a.node, b.node
    if left.rank <= 2 and right.rank <= 2 or right.rank <= 2:
        product = contract(left, right, ((left.rank - 1,), (builtins.max(right.rank - 2, 0),)))
    else:
        product = _stacked(left, right)
    return wrap(cast(product, result if dtype is None else dtype_of(dtype)))


def _stacked(x: Node, y: Node) -> Node:
    """The product of two stacks of matrices; leading axes broadcast. Axes of size 1 are no batch axes but free ones of the other side."""
    vector = x.rank == 1
    if vector:
        x = emit("reshape", x, shape=(1, *x.shape))
    lead = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    rank = len(lead)
    x_lead, y_lead = ((1,) * (rank - v.rank + 2) + v.shape[:-2] for v in (x, y))
    both = [i for i in range(rank) if x_lead[i] == y_lead[i] and lead[i] != 1]
    only_x = [i for i in range(rank) if x_lead[i] != 1 and y_lead[i] == 1]
    only_y = [i for i in range(rank) if y_lead[i] != 1 and x_lead[i] == 1]

    def kept(v: Node, own: tuple[Size, ...], axes: list[int]) -> Node:
        """Only the leading axes listed, in order, then the matrix."""
        shape = tuple(own[i] for i in axes) + v.shape[-2:]
        return emit("reshape", v, shape=shape) if shape != v.shape else v

    x_axes, y_axes = sorted(both + only_x), sorted(both + only_y)
    a, b = kept(x, x_lead, x_axes), kept(y, y_lead, y_axes)
    batch = tuple(x_axes.index(i) for i in both), tuple(y_axes.index(i) for i in both)
    out = contract(a, b, ((a.rank - 1,), (b.rank - 2,)), batch)
    names: list[Any] = [*both, *only_x, "row", *only_y, "column"]
    order = [*sorted(both + only_x + only_y), "row", "column"]
    out = transposed(out, tuple(names.index(n) for n in order))
    shape = (*lead, *(() if vector else (x.shape[-2],)), y.shape[-1])
    return emit("reshape", out, shape=shape) if out.shape != shape else out


@function(np.dot)
def dot(x: Any, y: Any, out: None = None) -> Any:
    a, b, _ = _common(x, y)
    if not a.ndim or not b.ndim:
        return elementwise("multiply", a, b)
    n, m = a.node.shape[-1], b.node.shape[builtins.max(b.ndim - 2, 0)]
    if n != m:
        raise XlcValueError(f"shapes {show_shape(a.node.shape)} and {show_shape(b.node.shape)} not aligned: {n} (axis {a.ndim - 1}) "
                            f"differs from {m} "
                            f"(axis {builtins.max(b.ndim - 2, 0)})")
    return wrap(contract(a.node, b.node, ((a.ndim - 1,), (builtins.max(b.ndim - 2, 0),))))


@function(np.vdot)
def vdot(x: Any, y: Any) -> Any:
    return dot(lift(x).reshape(-1), lift(y).reshape(-1))


@function(np.inner)
def inner(x: Any, y: Any) -> Any:
    a, b = lift(x), lift(y)
    return elementwise("multiply", a, b) if not a.ndim or not b.ndim else tensordot(a, b, ((-1,), (-1,)))


@function(np.outer, np.linalg.outer)
def outer(x: Any, y: Any, out: None = None) -> Any:
    return elementwise("multiply", lift(x).reshape((-1, 1)), lift(y).reshape((1, -1)))


@function(np.tensordot, np.linalg.tensordot)
def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    a, b, _ = _common(x, y)
    if isinstance(axes, (tuple, list)):
        left, right = (list(v) if isinstance(v, (tuple, list)) else [v] for v in axes)
    else:
        k = integer(axes, "axes")
        left, right = list(range(a.ndim - k, a.ndim)), list(range(k))
    left, right = [one_axis(i, a.ndim) for i in left], [one_axis(i, b.ndim) for i in right]
    if len(left) != len(right) or builtins.any(a.node.shape[i] != b.node.shape[j] for i, j in zip(left, right, strict=True)):
        raise XlcValueError(f"shape-mismatch for sum: axes {left} of {show_shape(a.node.shape)} and {right} of {show_shape(b.node.shape)}")
    return wrap(contract(a.node, b.node, (tuple(left), tuple(right))))


@function(np.vecdot, np.linalg.vecdot)
def vecdot(x: Any, y: Any, /, *, axis: int = -1, dtype: Any = None) -> Any:
    a, b, result = _common(x, y, np.vecdot)
    from .shape import moveaxis

    a, b = moveaxis(a, axis, -1), moveaxis(b, axis, -1)
    if a.node.shape[-1] != b.node.shape[-1]:
        raise XlcValueError(f"vecdot: the sizes along axis {axis} differ: {a.node.shape[-1]} and {b.node.shape[-1]}")
    return wrap(cast(_labelled([a.node, b.node], [[*_lead(a), "n"], [*_lead(b), "n"]], _lead(a if a.ndim >= b.ndim else b)), result))


def _lead(x: Tracer) -> list[Any]:
    """Labels for the leading axes, counted from the back so that they broadcast."""
    return list(range(-x.ndim, -1))


@function(np.matvec)
def matvec(x: Any, y: Any, /) -> Any:
    from .shape import squeeze

    return squeeze(matmul(x, lift(y)[..., None]), -1)


@function(np.vecmat)
def vecmat(x: Any, y: Any, /) -> Any:
    from .shape import squeeze

    return squeeze(matmul(lift(x)[..., None, :], y), -2)


@function(np.kron)
def kron(x: Any, y: Any) -> Any:
    a, b = lift(x), lift(y)
    rank = builtins.max(a.ndim, b.ndim)
    sa, sb = ((1,) * (rank - v.ndim) + v.node.shape for v in (a, b))
    wide_a = a.reshape(tuple(s for n in sa for s in (n, 1)))
    wide_b = b.reshape(tuple(s for n in sb for s in (1, n)))
    return (wide_a * wide_b).reshape(tuple(n * m for n, m in zip(sa, sb, strict=True)))


@function(np.cross, np.linalg.cross)
def cross(x: Any, y: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    from .shape import moveaxis, stack

    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    a, b = moveaxis(x, axisa, -1), moveaxis(y, axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise XlcValueError("cross: both arrays must have size 3 along the axis")
    a0, a1, a2 = (a[..., i] for i in range(3))
    b0, b1, b2 = (b[..., i] for i in range(3))
    return moveaxis(stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=-1), -1, axisc)


# ------------------------------------------------------------------------------------------------ einsum


@function(np.einsum)
def einsum(subscripts: Any, *operands: Any, out: None = None, dtype: Any = None, order: str = "K", casting: str = "safe",
           optimize: Any = False) -> Any:
    """np.einsum: any subscripts, with ellipses, repeated labels (diagonals) and implicit output."""
    if out is not None:
        raise XlcTypeError("np.einsum(..., out=y): traced arrays are not written in place; write y = np.einsum(...)")
    if not isinstance(subscripts, str):
        subscripts, operands = _interleaved(subscripts, operands)
    arrays = [lift(x) for x in operands]
    d = result_dtype(*arrays) if dtype is None else dtype_of(dtype)
    labels, output = _parse_einsum(subscripts, [x.ndim for x in arrays])
    return wrap(_labelled([cast(x.node, d) for x in arrays], labels, output))


def _interleaved(first: Any, rest: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """einsum(x, [0, 1], y, [1, 2], [0, 2]) as subscripts."""
    items = [first, *rest]
    letters = lambda ids: "".join("..." if i is Ellipsis else chr(ord("a") + i) for i in ids)  # noqa: E731
    operands = tuple(items[:len(items) // 2 * 2:2])
    text = ",".join(letters(i) for i in items[1::2])
    return (f"{text}->{letters(items[-1])}" if len(items) % 2 else text), operands


def _parse_einsum(text: str, ranks: list[int]) -> tuple[list[list[Any]], list[Any]]:
    """Labels per operand and of the output; an ellipsis becomes negative numbers, counted from the back."""
    text = text.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise XlcValueError(f"einsum: {text!r} has {len(terms)} operands, {len(ranks)} were given")

    def expand(term: str, rank: int | None, width: int) -> list[Any]:
        before, dots, after = term.partition("...")
        if not (before + after).isalpha() and before + after:
            raise XlcValueError(f"einsum: invalid subscript {term!r} in {text!r}; labels are letters and '...'")
        if rank is not None:
            width = rank - len(before) - len(after)
            if width < 0 or (width and not dots):
                raise XlcValueError(f"einsum: {term!r} has {len(before) + len(after)} labels, its operand has {rank} dimensions")
        return [*before, *(range(-width, 0) if dots else ()), *after]

    labels = [expand(t, r, 0) for t, r in zip(terms, ranks, strict=True)]
    width = -builtins.min((v for ls in labels for v in ls if isinstance(v, int)), default=0)
    if arrow:
        output = expand(right, None, width)
        unknown = [v for v in output if isinstance(v, str) and not builtins.any(v in ls for ls in labels)]
        if unknown or len(set(output)) < len(output):
            raise XlcValueError(f"einsum: the output {right!r} of {text!r} {'has an unknown label' if unknown else 'repeats a label'}")
    else:
        counts = Counter(v for ls in labels for v in ls if isinstance(v, str))
        output = [*range(-width, 0), *sorted(v for v, n in counts.items() if n == 1)]
    return labels, output


def _labelled(nodes: list[Node], labels: list[list[Any]], output: list[Any]) -> Node:
    """Multiply and sum: operands with labelled axes to the output's labels."""
    sizes: dict[Any, Size] = {}
    for node, names in zip(nodes, labels, strict=True):
        for name, s in zip(names, node.shape, strict=True):
            known = sizes.setdefault(name, s)
            if known == 1:
                sizes[name] = s
            elif s not in (1, known):
                raise XlcValueError(f"einsum: the label {name!r} has size {known} in one operand and {s} in another")
    work = [_simple(node, names, sizes) for node, names in zip(nodes, labels, strict=True)]
    while len(work) > 1:
        (x, xs), (y, ys) = work[0], work[1]
        later = set(output).union(*(names for _, names in work[2:])) if len(work) > 2 else set(output)
        work[:2] = [_pair(*_summed(x, xs, later | set(ys)), *_summed(y, ys, later | set(xs)), later)]
    out, names = _summed(*work[0], set(output))
    out = transposed(out, tuple(names.index(n) for n in output if n in names))
    shape = tuple(sizes[n] for n in output)
    if out.shape == shape:
        return out
    return emit("broadcast", out, shape=shape, axes=tuple(i for i, n in enumerate(output) if n in names))


def _simple(node: Node, names: list[Any], sizes: dict[Any, Size]) -> tuple[Node, list[Any]]:
    """Each label once: diagonals of repeated ones; axes of size 1 that meet a larger size are dropped."""
    names = list(names)
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            i = names.index(name)
            j = names.index(name, i + 1)
            ids = index_grid((node.shape[i],), 0)
            node = emit("index", node, ids, ids, axes=(i, j))
            if j != i + 1:  # the diagonal replaces axis i
                pass
            del names[j]
    thin = [i for i, n in enumerate(names) if node.shape[i] == 1 and sizes[n] != 1]
    if thin:
        node = emit("reshape", node, shape=tuple(s for i, s in enumerate(node.shape) if i not in thin))
        names = [n for i, n in enumerate(names) if i not in thin]
    return node, names


def _summed(node: Node, names: list[Any], needed: set[Any]) -> tuple[Node, list[Any]]:
    axes = tuple(i for i, n in enumerate(names) if n not in needed)
    if not axes:
        return node, names
    node = emit("any" if node.dtype == bool_ else "sum", node, axes=axes)
    return node, [n for n in names if n in needed]


def _pair(x: Node, xs: list[Any], y: Node, ys: list[Any], later: set[Any]) -> tuple[Node, list[Any]]:
    shared = [n for n in xs if n in ys]
    batch = [n for n in shared if n in later]
    summed = [n for n in shared if n not in later]
    if not summed and (not batch or not (set(xs) ^ set(ys))):  # no sum at all: an outer or an elementwise product
        order = [*xs, *(n for n in ys if n not in xs)]
        return _product(x, xs, y, ys, order), order
    out = contract(x, y, (tuple(map(xs.index, summed)), tuple(map(ys.index, summed))),
                   (tuple(map(xs.index, batch)), tuple(map(ys.index, batch))))
    free = lambda names: [n for n in names if n not in shared]  # noqa: E731
    return out, [*batch, *free(xs), *free(ys)]


def _product(x: Node, xs: list[Any], y: Node, ys: list[Any], order: list[Any]) -> Node:
    sizes = dict(zip(xs, x.shape, strict=True)) | dict(zip(ys, y.shape, strict=True))
    shape = tuple(sizes[n] for n in order)
    y = transposed(y, tuple(ys.index(n) for n in order if n in ys))
    spread = [emit("broadcast", v, shape=shape, axes=tuple(i for i, n in enumerate(order) if n in names)) if v.shape != shape else v
              for v, names in ((x, xs), (y, ys))]
    return emit("bitwise_and" if x.dtype == bool_ else "multiply", *spread)


# ------------------------------------------------------------------------------------------------ norms


@function(np.linalg.norm, np.linalg.vector_norm, names=("vector_norm",))
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms, and the Frobenius norm of matrices."""
    from .reduce import max, min, sum

    x = lift(x)
    if not x.node.dtype.is_float:
        x = x * 1.0
    axes = many_axes(axis, x.ndim)
    if ord is None or ord == "fro" or (ord == 2 and (len(axes) == 1 or axis is None and x.ndim == 1)):
        return elementwise("sqrt", sum(x * x, axes, keepdims=keepdims))
    size = elementwise("absolute", x)
    if len(axes) != 1:
        raise XlcTypeError(f"np.linalg.norm of matrices with ord={ord!r} is not supported; there is the Frobenius norm, and vector norms "
                           f"with axis=")
    if ord == np.inf:
        return max(size, axes, keepdims=keepdims)
    if ord == -np.inf:
        return min(size, axes, keepdims=keepdims)
    if ord == 0:
        return wrap(cast(sum(x != 0, axes, keepdims=keepdims).node, x.node.dtype))
    if ord == 1:
        return sum(size, axes, keepdims=keepdims)
    return elementwise("power", sum(elementwise("power", size, float(ord)), axes, keepdims=keepdims), 1.0 / ord)


@function(np.linalg.matrix_norm, names=("matrix_norm",))
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    if ord != "fro":
        raise XlcTypeError(f"matrix_norm with ord={ord!r} is not supported; there is the Frobenius norm")
    return norm(x, "fro", (-2, -1), keepdims)


@function(np.linalg.matrix_power)
def matrix_power(x: Any, n: int) -> Any:
    from .create import eye

    x, n = lift(x), integer(n, "n")
    if n < 0:
        raise XlcTypeError("np.linalg.matrix_power with a negative power is not supported: there is no inverse")
    out = None
    while n:
        if n & 1:
            out = x if out is None else matmul(out, x)
        x, n = (matmul(x, x) if n > 1 else x), n >> 1
    return wrap(broadcast(eye(x.shape[-1], dtype=x.dtype).node, x.node.shape)) if out is None else out
