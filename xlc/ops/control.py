"""Control flow: operators that hold Graphs, and choose which of them run, and how often.

    %0: f32[8] = loop(%w, %h, %xs) {body=graph step(%w: f32[8,8], %h: f32[8], %x: f32[8]) {...}, carries=1, fixed=1, length=10,
                                    output=0, reverse=False}
    %1: f32[8] = switch(%k, %a) {branches=(graph f(%a: f32[8]) {...}, graph g(%a: f32[8]) {...}), output=0}

``loop``: the arguments are ``fixed`` values, which every iteration sees; the initial values of the ``carries``; and arrays whose first
axis has ``length`` rows, of which an iteration sees its own. The body takes one of each, in this order, and gives the next carries, then
rows of further results, which are stacked. With ``reverse`` the rows are visited (and written) from the last to the first. Without a
``length`` (None) there are no rows, and it runs as long as its first carry, a bool, is true.

``switch``: the first argument (i64) chooses a branch, and is clamped; each takes the other arguments and gives the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.node import Graph
from xlc.ir.op import Op, register
from xlc.ir.types import Size, Type, bool_, i64


def _loop_types(*types: Type, body: Graph, carries: int, fixed: int, length: Size | None, reverse: bool) -> tuple[Type, ...]:
    rows = len(types) - fixed - carries
    given = [p.type for p in body.params]
    if len(given) != len(types) or rows < 0 or len(body.results) < carries:
        raise XlcValueError(f"loop: {body.name} takes {len(given)} arguments and gives {len(body.results)} results, which does not fit "
                            f"{len(types)} arguments, of which {fixed} are fixed and {carries} are carries")
    if length is None and (rows or len(body.results) > carries or not carries or types[fixed] != Type(bool_)):
        raise XlcTypeError(f"loop: without a length {body.name} has no rows, and its first carry is a bool")
    for k, (t, p) in enumerate(zip(types, given, strict=True)):
        expected = p if k < fixed + carries else p.with_shape((length, *p.shape))  # type: ignore[arg-type]
        if t != expected:
            raise XlcTypeError(f"loop: argument {k} is {t}, expected {expected}")
    out = [r.type for r in body.results]
    for k, (t, r) in enumerate(zip(types[fixed:fixed + carries], out, strict=False)):
        if t != r:
            raise XlcTypeError(f"loop: carry {k} is {t} at first, and {r} after an iteration of {body.name}")
    return (*out[:carries], *(t.with_shape((length, *t.shape)) for t in out[carries:]))  # type: ignore[arg-type]


def _loop_arrays(*arrays: np.ndarray, body: Any, carries: int, fixed: int, length: int | None, reverse: bool) -> list[np.ndarray]:
    """``body`` is a function on arrays; ``body.results`` are the types of what it gives (see ``ir.interp``)."""
    held, carry, rows = arrays[:fixed], list(arrays[fixed:fixed + carries]), arrays[fixed + carries:]
    if length is None:
        while carry[0]:
            carry = body(*held, *carry)
        return carry
    stacked = [np.empty((length, *shape), dtype) for dtype, shape in body.results[carries:]]
    for i in reversed(range(length)) if reverse else range(length):
        out = body(*held, *carry, *(r[i] for r in rows))
        carry = out[:carries]
        for s, row in zip(stacked, out[carries:], strict=True):
            s[i] = row
    return [*carry, *stacked]


def _switch_types(*types: Type, branches: tuple[Graph, ...]) -> tuple[Type, ...]:
    index, operands = types[0], types[1:]
    if index != Type(i64):
        raise XlcTypeError(f"switch: the index is {index}, expected i64[]")
    first = tuple(r.type for r in branches[0].results)
    for b in branches:
        if tuple(p.type for p in b.params) != operands:
            raise XlcTypeError(f"switch: the branch {b.name} does not take {', '.join(map(str, operands))}")
        if tuple(r.type for r in b.results) != first:
            raise XlcTypeError(f"switch: the branches {branches[0].name} and {b.name} give results of different types")
    return first


def _switch_arrays(index: np.ndarray, *operands: np.ndarray, branches: tuple[Any, ...]) -> list[np.ndarray]:
    found: list[np.ndarray] = branches[min(max(int(index), 0), len(branches) - 1)](*operands)
    return found


def _rule(module: str, name: str) -> Callable[..., Any]:
    """A rule of a transform, which works on the graphs of bodies and so is part of it."""

    def rule(*args: Any, **attrs: Any) -> Any:
        from xlc.transform import branches, loops

        return getattr(loops if module == "loops" else branches, name)(*args, **attrs)

    return rule


loop = register(Op("loop", "control", None, numpy=_loop_arrays, results=_loop_types, vjp_all=_rule("loops", "vjp"),
                   jvp_all=_rule("loops", "jvp"), batch_all=_rule("loops", "batch"), doc="the same graph again and again"))
switch = register(Op("switch", "control", None, numpy=_switch_arrays, results=_switch_types, vjp_all=_rule("branches", "vjp"),
                     jvp_all=_rule("branches", "jvp"), batch_all=_rule("branches", "batch"), doc="one of several graphs"))
