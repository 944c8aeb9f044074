"""Nested containers as a flat list of leaves and a shape to rebuild them.

    leaves, tree = flatten({"b": x, "a": [y, None]})      leaves == [y, x]; str(tree) == "{'a': [*, None], 'b': *}"
    unflatten(tree, leaves)                               {"a": [y, None], "b": x}

Containers are dict (keys in sorted order), OrderedDict, list, tuple, namedtuple, instances of dataclasses, and None. Everything else is a
leaf. Trees are immutable and hashable: equal trees mean equal nesting.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import XlcTypeError, XlcValueError

DEPTH = 200


@dataclasses.dataclass(frozen=True)
class Tree:
    """``kind`` is leaf, none, tuple, list, dict or call; ``keys`` are a dict's keys or the names of fields; ``make`` rebuilds a
    ``call``."""

    kind: str
    children: tuple[Tree, ...] = ()
    keys: tuple[Any, ...] = ()
    make: Callable[..., Any] | None = None

    @property
    def size(self) -> int:
        """Number of leaves."""
        return 1 if self.kind == "leaf" else sum(c.size for c in self.children)

    def __str__(self) -> str:
        inside = [str(c) for c in self.children]
        match self.kind:
            case "leaf":
                return "*"
            case "none":
                return "None"
            case "tuple":
                return f"({', '.join(inside)}{',' if len(inside) == 1 else ''})"
            case "list":
                return f"[{', '.join(inside)}]"
            case "dict":
                return "{" + ", ".join(f"{k!r}: {c}" for k, c in zip(self.keys, inside, strict=True)) + "}"
        return f"{getattr(self.make, '__name__', self.make)}({', '.join(f'{k}={c}' for k, c in zip(self.keys, inside, strict=True))})"


LEAF, NONE = Tree("leaf"), Tree("none")


def flatten(value: Any) -> tuple[list[Any], Tree]:
    leaves: list[Any] = []
    return leaves, _flatten(value, leaves, DEPTH)


def _flatten(value: Any, leaves: list[Any], depth: int) -> Tree:
    kind = type(value)
    if value is None:
        return NONE
    if depth == 0:
        raise XlcValueError(f"an argument nests deeper than {DEPTH} containers; does a list or dict contain itself?")
    if kind is tuple or kind is list:
        return Tree(kind.__name__, tuple([_flatten(v, leaves, depth - 1) for v in value]))
    if kind is dict:
        keys = _sorted_keys(value)
        return Tree("dict", tuple([_flatten(value[k], leaves, depth - 1) for k in keys]), keys)
    if kind is OrderedDict:
        keys = tuple(value)
        children = tuple([_flatten(value[k], leaves, depth - 1) for k in keys])
        return Tree("call", children, keys, _OrderedDictOf(keys))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return Tree("call", tuple([_flatten(v, leaves, depth - 1) for v in value]), kind._fields, kind)
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(value)
        hidden = [f.name for f in fields if not f.init]
        if hidden:
            raise XlcTypeError(f"the dataclass {kind.__name__} cannot be an argument or a result: its field {hidden[0]} has init=False, "
                               f"so a copy "
                               "with other arrays cannot be made through its constructor")
        names = tuple(f.name for f in fields)
        make = _FieldsOf(kind, names) if any(f.kw_only for f in fields) else kind
        return Tree("call", tuple([_flatten(getattr(value, n), leaves, depth - 1) for n in names]), names, make)
    leaves.append(value)
    return LEAF


def _sorted_keys(value: dict[Any, Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(value))
    except TypeError:
        kinds = sorted({type(k).__name__ for k in value})
        raise XlcTypeError(f"the keys of a dict must be comparable with each other; found {' and '.join(kinds)}") from None


@dataclasses.dataclass(frozen=True)
class _OrderedDictOf:
    keys: tuple[Any, ...]
    __name__ = "OrderedDict"

    def __call__(self, *values: Any) -> OrderedDict[Any, Any]:
        return OrderedDict(zip(self.keys, values, strict=True))


@dataclasses.dataclass(frozen=True)
class _FieldsOf:
    """A dataclass with keyword-only fields, called with values in order."""

    kind: type
    names: tuple[str, ...]

    def __call__(self, *values: Any) -> Any:
        return self.kind(**dict(zip(self.names, values, strict=True)))


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    it = iter(leaves)
    value = _unflatten(tree, it)
    if next(it, it) is not it:
        raise ValueError(f"{tree} has {tree.size} leaves, {len(leaves)} were given")
    return value


def _unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    match tree.kind:
        case "leaf":
            return next(leaves)
        case "none":
            return None
    children = [_unflatten(c, leaves) for c in tree.children]
    match tree.kind:
        case "list":
            return children
        case "tuple":
            return tuple(children)
        case "dict":
            return dict(zip(tree.keys, children, strict=True))
    assert tree.make is not None
    return tree.make(*children)


def spread(prefix: Any, tree: Tree, exact: bool = False) -> list[Any] | None:
    """For each leaf of the tree what ``prefix``, a value nested as the tree or as an upper part of it, has at that place; None in it is a
    value too. ``exact``: nested as the tree. None if it is nested otherwise."""
    leaves, given = flatten(prefix)
    it = iter(leaves)

    def walk(p: Tree, t: Tree) -> list[Any] | None:
        if p.kind in ("leaf", "none"):
            return [None if p.kind == "none" else next(it)] * t.size if t.kind in ("leaf", p.kind) or not exact else None
        if (p.kind, p.keys, p.make, len(p.children)) != (t.kind, t.keys, t.make, len(t.children)):
            return None
        found = [walk(a, b) for a, b in zip(p.children, t.children, strict=True)]
        return None if any(f is None for f in found) else [v for f in found if f is not None for v in f]

    return walk(given, tree)


def paths(tree: Tree, root: str = "") -> list[str]:
    """For each leaf, how a user would write it: ``p['w'][0]``."""
    if tree.kind == "leaf":
        return [root]
    out: list[str] = []
    for i, child in enumerate(tree.children):
        step = f"[{tree.keys[i]!r}]" if tree.kind == "dict" or isinstance(tree.make, _OrderedDictOf) else \
            f".{tree.keys[i]}" if tree.kind == "call" else f"[{i}]"
        out += paths(child, root + step)
    return out


def map_leaves(f: Callable[..., Any], value: Any, *others: Any) -> Any:
    """``f`` on every leaf (and the leaves at the same places of the others), in the same nesting."""
    leaves, tree = flatten(value)
    rest = []
    for other in others:
        found, shape = flatten(other)
        if shape != tree:
            raise XlcValueError(f"the nesting {shape} differs from {tree}")
        rest.append(found)
    return unflatten(tree, [f(*vs) for vs in zip(leaves, *rest, strict=True)])
