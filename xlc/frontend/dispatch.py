"""Between a jitted function and the compiled call path (``xlc.run.native``).

    f.dispatcher(x, w)      known kind of call: straight into compiled code, in C
                            else: ``Jitted.miss`` traces, compiles, and ``enter``s the program for this kind of call

While a function is traced, and under other values of the knobs that change what is compiled, calls are of another kind: the context key
says so.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from .. import config
from ..run import native
from .trace import current, on_switch
from .tree import Tree, flatten, unflatten

_TRACING = -1
_keys: dict[tuple[Any, ...], int] = {config.key(): 0}
_fresh = count(1)


def follow_context() -> None:
    """Tell the call path what this thread's calls depend on besides their arguments."""
    if current() is not None:
        native.set_context(_TRACING)
        return
    key = _keys.setdefault(config.key(), next(_fresh))
    if config.overridden():
        native.set_context(key)
    else:
        native.set_context(None)
        native.set_default_context(key)


def follow_threads() -> None:
    native.pool_set_threads(config.get("num_threads"))


config.on_change(follow_context)
on_switch(follow_context)
if config.get("num_threads"):
    follow_threads()
config.on_change(follow_threads, "num_threads")


def result_tree(tree: Tree) -> Any:
    """A tree of results in the form of ``run.native``."""
    numbers = iter(range(tree.size))

    def walk(t: Tree) -> Any:
        match t.kind:
            case "leaf":
                return ("leaf", next(numbers))
            case "none":
                return ("none",)
            case "dict":
                return ("dict", list(t.keys), [walk(c) for c in t.children])
            case "call":
                return ("call", t.make, [walk(c) for c in t.children])
        return (t.kind, [walk(c) for c in t.children])

    return walk(tree)


def leaf_order(args: tuple[Any, ...], kwargs: dict[str, Any], static: tuple[frozenset[int], frozenset[str]], canonical: Any) -> list[int]:
    """For each leaf of the call as it was written, its number after the arguments were bound to names (keywords may have been given out of
    order).

    ``canonical(args, kwargs)`` flattens a call bound to names."""
    numbers, names = static
    plain = tuple(None if i in numbers else a for i, a in enumerate(args)), {k: v for k, v in kwargs.items() if k not in names}
    leaves, tree = flatten(plain)
    tags = [_Tag(i) for i in range(len(leaves))]
    tagged_args, tagged_kwargs = unflatten(tree, tags)
    tagged_args = tuple(a if i in numbers else t for i, (a, t) in enumerate(zip(args, tagged_args, strict=True)))
    order = {tag.number: position for position, tag in enumerate(canonical(tagged_args, {**kwargs, **tagged_kwargs}))}
    return [order[i] for i in range(len(leaves))]


class _Tag:
    """Stands for one leaf of a call."""

    __slots__ = ("number",)

    def __init__(self, number: int):
        self.number = number
