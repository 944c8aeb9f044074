"""Vectorisation for users: ``vmap``.

    xlc.vmap(lambda x: x @ x)(rows)                      the function of one row, for all rows at once
    xlc.vmap(f, in_axes=(None, 0))(params, batch)        the same params for every example

What enters is a function of arrays (or pytrees of them). It runs on fresh parameters without the mapped axis; ``transform.vmap`` makes of
what it computes the graph for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..errors import XlcIndexError, XlcTypeError, XlcValueError
from ..ir.node import Node, parameter
from ..ir.types import Size, Type
from ..ops.shape import moved, repeat
from ..transform.vmap import Batched, batch
from .array import Storage, Tracer, lift
from .elementwise import show_shape
from .jit import names_of
from .trace import describe
from .transformed import argument_names, runnable
from .tree import Tree, flatten, paths, spread, unflatten

__all__ = ["vmap"]


def vmap(f: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """``f`` for every position of an axis of its arguments, as one program.

    in_axes    which axis of the arguments is mapped: an int (negative from the end), None for an argument that is the same for all, or a
               tuple with an entry per positional argument, each an int, None, or nested as the argument. Keyword arguments are mapped
               along axis 0
    out_axes   where the mapped axis goes in the results: an int, None for results that do not depend on the mapped arguments, or nested as
               the result

    f sees arrays without the mapped axis. Raises XlcValueError where the sizes along the mapped axes differ, XlcIndexError for axes out of
    range, XlcTypeError for axes that are nested otherwise."""
    if not callable(f):
        raise XlcTypeError(f"vmap expects a function, found {describe(f)}; write xlc.vmap(f)(x), not xlc.vmap(f(x))")
    for name, axes in (("in_axes", in_axes), ("out_axes", out_axes)):
        for leaf in flatten(axes)[0]:
            if type(leaf) is not int:
                raise XlcTypeError(f"vmap: {name} must be an int, None, or containers of these, found {describe(leaf)}")

    @wraps(f)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        inputs = _Mapped(f, in_axes, args, kwargs)
        leaves, tree = flatten(f(*inputs.args, **inputs.kwargs))
        found = batch([lift(leaf).node for leaf in leaves], inputs.size, inputs.given)
        return unflatten(tree, [Tracer(_placed(r, inputs.size, axis, path)) for r, axis, path in zip(
            found, _out_axes(out_axes, tree), paths(tree, "the result"), strict=True)])

    return runnable(mapped, f, ("vmap", repr(in_axes), repr(out_axes)), keep=("static",))


class _Mapped:
    """The arguments for one element: fresh parameters in the place of the arrays that are mapped."""

    def __init__(self, f: Any, in_axes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]):
        axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        if isinstance(axes, tuple) and len(axes) != len(args):
            raise XlcValueError(f"vmap: in_axes={in_axes!r} has {len(axes)} entries for {len(args)} positional arguments")
        leaves, tree = flatten(args)
        along = spread(axes, tree)
        if along is None:
            raise XlcTypeError(f"vmap: in_axes={in_axes!r} is not nested as the arguments, {tree}")
        names = argument_names(f, len(args))
        where = [path for child, name in zip(tree.children, names, strict=True) for path in paths(child, name)]
        more, more_tree = flatten(kwargs)
        where += [path for child, name in zip(more_tree.children, more_tree.keys, strict=True) for path in paths(child, name)]
        self.given: dict[Node, Batched] = {}
        self._sizes: dict[str, Size] = {}
        elements = [leaf if axis is None else self._element(leaf, axis, path)
                    for leaf, axis, path in zip([*leaves, *more], [*along, *[0] * len(more)], where, strict=True)]
        self.args: tuple[Any, ...] = unflatten(tree, elements[:len(leaves)])
        self.kwargs: dict[str, Any] = unflatten(more_tree, elements[len(leaves):])
        self.size = self._common_size(in_axes)

    def _element(self, leaf: Any, axis: int, path: str) -> Tracer:
        node = lift(leaf).node
        if not -node.rank <= axis < node.rank:
            hint = "; pass in_axes=None for an argument that is the same for all" if node.rank == 0 else ""
            raise XlcIndexError(f"vmap: axis {axis} of {path} is to be mapped, and {path} has shape {show_shape(node.shape)}{hint}")
        axis %= node.rank
        whole = moved(node, axis, 0)
        p = parameter(Type(node.dtype, whole.shape[1:]), names_of(path), len(self.given))
        self.given[p] = whole, True
        self._sizes[f"{path} along axis {axis}"] = whole.shape[0]
        return Tracer(p, storage=Storage(f"the argument {path}"))

    def _common_size(self, in_axes: Any) -> Size:
        sizes = list(self._sizes.values())
        if not sizes:
            raise XlcValueError(f"vmap: in_axes={in_axes!r} maps no array; at least one argument must have an axis that is mapped")
        if any(s != sizes[0] for s in sizes):
            raise XlcValueError("vmap: the sizes along the mapped axes must be equal, found "
                                + ", ".join(f"{s} in {where}" for where, s in self._sizes.items()))
        return sizes[0]


def _out_axes(out_axes: Any, tree: Tree) -> list[Any]:
    found = spread(out_axes, tree)
    if found is None:
        raise XlcTypeError(f"vmap: out_axes={out_axes!r} is not nested as the result, {tree}")
    return found


def _placed(result: Batched, size: Size, axis: int | None, path: str) -> Node:
    """The result with the mapped axis where the user wants it."""
    node, batched = result
    if axis is None:
        if batched:
            raise XlcValueError(f"vmap: out_axes is None for {path}, which depends on the mapped arguments; give the axis where its "
                                "elements go, such as 0")
        return node
    whole = node if batched else repeat(size, node)
    if not -whole.rank <= axis < whole.rank:
        raise XlcIndexError(f"vmap: out_axes={axis} is out of range for {path}, which has {whole.rank} dimensions with the mapped one")
    return moved(whole, 0, axis % whole.rank)
