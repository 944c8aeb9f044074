"""Pytrees for users: nested dicts, lists, tuples, named tuples and dataclasses of arrays.

    xlc.tree.map(lambda p, g: p - 0.1 * g, params, grads)      the same nesting, with a function applied leaf by leaf
    xlc.tree.leaves({"b": x, "a": [y, None]})                  [y, x]
    leaves, nest = xlc.tree.flatten(params)                    and back: xlc.tree.unflatten(nest, leaves)
    xlc.tree.names({"w": x, "layers": [y, z]})                 ["layers.0", "layers.1", "w"]

None is an empty container, not a leaf; the keys of a dict are in sorted order.
"""

from __future__ import annotations

from typing import Any

from .errors import XlcValueError
from .frontend.tree import Tree, flatten, paths, unflatten
from .frontend.tree import map_leaves as map

__all__ = ["Tree", "flatten", "leaves", "map", "names", "paths", "unflatten"]


def leaves(value: Any) -> list[Any]:
    """The leaves, in order."""
    return flatten(value)[0]


def names(value: Any) -> list[str]:
    """For each leaf its place, with dots: ``layers.0.w``; the leaf of a tree that is a leaf is called ``value``. Raises XlcValueError if
    two leaves would have one name (the keys "a.b", and "b" in "a")."""
    found = [".".join(step) or "value" for step in _steps(flatten(value)[1], ())]
    twice = next((n for n in found if found.count(n) > 1), None) if len(set(found)) < len(found) else None
    if twice is not None:
        raise XlcValueError(f"two leaves have the name {twice!r}: a key contains a dot; rename it")
    return found


def _steps(tree: Tree, above: tuple[str, ...]) -> list[tuple[str, ...]]:
    if tree.kind == "leaf":
        return [above]
    keys = tree.keys or range(len(tree.children))
    return [step for key, child in zip(keys, tree.children, strict=True) for step in _steps(child, (*above, str(key)))]
