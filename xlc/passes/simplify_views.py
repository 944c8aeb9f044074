"""The rules of ``simplify`` about shapes: views of views, views of constants, reductions over nothing, transposed operands of contractions.

    %0: f32[8,1] = reshape(%x) {shape=(8, 1)}
    %1: f32[8,5] = broadcast(%0) {axes=(0, 1), shape=(8, 5)}      ->  broadcast(%x) {axes=(0,), shape=(8, 5)}

All of them are exact: they move values, they do not compute (except ``dot_transpose``, which leaves the products as they are).
"""

from __future__ import annotations

from typing import Any

from ..ir.node import Node, apply, full, make
from ..ir.op import lookup
from ..ir.rewrite import FLOATS, INTEGERS, Arg, Fill, Match, P, Pattern, Replacement, Rule, Var
from ..ir.types import DTYPES, Dim, DType, i64

x, y = Var("x"), Var("y")
a, b = Var("a"), Var("b")  # axes
ALL = tuple(DTYPES.values())


def _shape(m: Match) -> tuple[Any, ...]:
    return m.root.shape


def _view_of_full(m: Match) -> Node | None:
    n = m.root
    return full(n.type, n.args[0]["value"]) if n.args[0].op.name == "full" else None


def _of_equal_fulls(m: Match) -> Node | None:
    """concat or pad of one value throughout."""
    if any(v.op.name != "full" for v in m.root.args):
        return None
    values = {v["value"] for v in m.root.args}
    return full(m.root.type, values.pop()) if len(values) == 1 else None


# transpose and reshape


def _keeps_order(m: Match) -> bool:
    """The transpose moves only dimensions of size 1."""
    order = [k for k in m.a if m.x.shape[k] != 1]
    return order == sorted(order)


def _transposed_broadcast(m: Match) -> Node | None:
    axes = tuple(m.b.index(k) for k in m.a)
    return apply(lookup("broadcast"), [m.x], {"shape": m.root.shape, "axes": axes}) if list(axes) == sorted(axes) else None


# broadcast


def _is_identity(m: Match) -> bool:
    return m.root.shape == m.x.shape and m.a == tuple(range(m.x.rank))


def _adds_ones(m: Match) -> bool:
    """The broadcast repeats nothing: it only adds dimensions of size 1."""
    kept = [m.root.shape[k] for k in m.a]
    return list(m.a) == sorted(m.a) and kept == list(m.x.shape) and all(d == 1 for k, d in enumerate(m.root.shape) if k not in m.a)


def _broadcast_reshaped(m: Match) -> Node | None:
    """The reshape before the broadcast only adds dimensions of size 1."""
    reshaped = m.root.args[0]
    axes, k = [], 0
    for size, axis in zip(reshaped.shape, m.a, strict=True):
        if k < m.x.rank and m.x.shape[k] == size:
            axes.append(axis)
            k += 1
        elif size != 1:
            return None
    return apply(lookup("broadcast"), [m.x], {"shape": m.root.shape, "axes": tuple(axes)}) if k == m.x.rank else None


def _hoist_broadcast(m: Match) -> Node | None:
    """f(broadcast(x), broadcast(y)) -> broadcast(f(x, y)): computed once, not once for each copy."""
    n = m.root
    views = [v for v in n.args if v.op.name == "broadcast"]
    if n.op.kind != "elementwise" or not views or any(v.op.name not in ("broadcast", "full") for v in n.args):
        return None
    first = views[0]
    shape = first.args[0].shape
    if any(v.attrs != first.attrs or v.args[0].shape != shape for v in views):
        return None
    args = [v.args[0] if v.op.name == "broadcast" else full(v.type.with_shape(shape), v["value"]) for v in n.args]
    inner = make(n.op, args, n.type.with_shape(shape), n.attrs)
    return make(first.op, [inner], n.type, first.attrs)


# slice, pad, concat, gather


def _takes_all(m: Match) -> bool:
    return m.x.shape == m.root.shape and all(v == 0 for v in m.root["start"]) and all(v == 1 for v in m.root["step"])


def _slice_of_slice(m: Match) -> Node | None:
    inner, n = m.root.args[0], m.root
    step = tuple(p * q for p, q in zip(inner["step"], n["step"], strict=True))
    start = tuple(p + q * r for p, q, r in zip(inner["start"], n["start"], inner["step"], strict=True))
    stop = tuple(_stop(*t) for t in zip(start, step, n.shape, strict=True))
    return apply(n.op, [m.x], {"start": start, "stop": stop, "step": step})


def _stop(start: Any, step: int, count: Any) -> Any:
    """One past the last of ``count`` positions."""
    if count == 0:
        return start
    return start + (count - 1) * step + (1 if step > 0 else -1)


def _slice_of_concat(m: Match) -> Node | None:
    """A slice that lies within one part."""
    n, joined = m.root, m.root.args[0]
    axis = joined["axis"]
    if joined.op.name != "concat" or n["step"][axis] != 1 or n.shape[axis] == 0:
        return None
    begin: Any = 0
    for part in joined.args:
        end = begin + part.shape[axis]
        lo, hi = n["start"][axis], n["stop"][axis]
        if any(isinstance(v, Dim) for v in (begin, end, lo, hi)) and not (begin == lo and end == hi):
            return None
        if (begin == lo and end == hi) or begin <= lo < hi <= end:
            start = tuple(lo - begin if k == axis else v for k, v in enumerate(n["start"]))
            stop = tuple(hi - begin if k == axis else v for k, v in enumerate(n["stop"]))
            return apply(n.op, [part], {"start": start, "stop": stop, "step": n["step"]})
        begin = end
    return None


def _pads_nothing(m: Match) -> bool:
    return all(v == 0 for v in (*m.root["low"], *m.root["high"]))


def _gathers_all(m: Match) -> bool:
    ids = m.root.args[1]
    return ids.rank == 1 and ids.shape[0] == m.x.shape[m.root["axis"]]


# reductions and contractions


def _reduce_ones(m: Match) -> Node | None:
    """Reducing a dimension of size 1 removes it."""
    n = m.root
    ones = [k for k in n["axes"] if m.x.shape[k] == 1]
    if not ones:
        return None
    rest = tuple(d for k, d in enumerate(m.x.shape) if k not in ones)
    out = apply(lookup("reshape"), [m.x], {"shape": rest})
    left = tuple(k - sum(o < k for o in ones) for k in n["axes"] if k not in ones)
    return apply(n.op, [out], {**n.attributes, "axes": left}) if left else out


def _merged_axes(m: Match) -> tuple[int, ...]:
    """The dimensions of x that two reductions, one after the other, remove."""
    kept = [k for k in range(m.x.rank) if k not in m.a]
    return tuple(sorted([*m.a, *(kept[k] for k in m.b)]))


def _reduce_full(m: Match) -> Node | None:
    """min, max, any, all of one repeated value (of which there is at least one)."""
    n = m.root
    if n.args[0].op.name != "full" or any(not isinstance(d, int) or d == 0 for d in n.args[0].shape):
        return None
    return full(n.type, n.args[0]["value"])


def _dot_transpose(m: Match) -> Node | None:
    """dot(transpose(x), y) -> dot(x, y) with other dimensions contracted, where the free dimensions keep their order."""
    n = m.root
    contract, batch, args = [list(n["contract"]), list(n["batch"]), list(n.args)]
    for k, arg in enumerate(n.args):
        if arg.op.name != "transpose":
            continue
        axes = arg["axes"]
        bound = {*contract[k], *batch[k]}
        free = [axes[d] for d in range(arg.rank) if d not in bound]
        if free != sorted(free):
            continue
        contract[k] = tuple(axes[d] for d in contract[k])
        batch[k] = tuple(axes[d] for d in batch[k])
        args[k] = arg.args[0]
    return None if args == list(n.args) else apply(n.op, args, {**n.attributes, "contract": tuple(contract), "batch": tuple(batch)})


def _view(op: str, pattern: Pattern, *examples: Pattern) -> Rule:
    return Rule(f"{op}_full", pattern, _view_of_full, examples=examples)


def _merged(op: str, dtypes: tuple[DType, ...], fast: bool = False) -> Rule:
    twice = Pattern(op, (Pattern(op, (x,), (("axes", a),)),), (("axes", b),))
    return Rule(f"{op}_{op}{'_float' if fast else ''}", twice, Pattern(op, (x,), (("axes", _merged_axes),)), fast=fast, dtypes=dtypes,
                examples=(Pattern(op, (Pattern(op, (Arg((2, 3, 4)),), (("axes", (0,)),)),), (("axes", (1,)),)),))


def _reduction(name: str, pattern: Pattern, replacement: Replacement, *examples: Pattern) -> Rule:
    return Rule(name, pattern, replacement, examples=examples)


_REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")
_M23, _M34 = Arg((2, 3)), Arg((3, 4))
_IDS = Arg((2,), i64)
VIEW_RULES = [
    # of constants
    _view("transpose", P.transpose(), P.transpose(Fill(2, (2, 3)), axes=(1, 0))),
    _view("reshape", P.reshape(), P.reshape(Fill(2, (2, 3)), shape=(6,))),
    _view("broadcast", P.broadcast(), P.broadcast(Fill(2, (3,)), axes=(1,), shape=(2, 3))),
    _view("slice", P.slice(), P.slice(Fill(2, (5,)), start=(1,), stop=(3,), step=(1,))),
    _view("gather", P.gather(), P.gather(Fill(2, (5, 3)), _IDS, axis=0)),
    _view("index", P.index(), P.index(Fill(2, (5, 3)), _IDS, axes=(1,))),
    _view("take_along", P.take_along(), P.take_along(Fill(2, (5,)), _IDS, axis=0)),
    Rule("concat_fulls", P.concat(), _of_equal_fulls, examples=(P.concat(Fill(2, (2,)), Fill(2, (3,)), axis=0),)),
    Rule("pad_fulls", P.pad(), _of_equal_fulls, examples=(P.pad(Fill(2, (2,)), Fill(2, ()), low=(1,), high=(0,)),)),
    *(_reduction(f"{op}_full", Pattern(op, ()), _reduce_full, Pattern(op, (Fill(1, (2, 3)),), (("axes", (1,)),)))
      for op in _REDUCTIONS[2:]),
    # transpose
    Rule("transpose_identity", P.transpose(x, axes=a), x, when=lambda m: m.a == tuple(range(m.x.rank)),
         examples=(P.transpose(_M23, axes=(0, 1)),)),
    Rule("transpose_transpose", P.transpose(P.transpose(x, axes=a), axes=b), P.transpose(x, axes=lambda m: tuple(m.a[k] for k in m.b)),
         examples=(P.transpose(P.transpose(Arg((2, 3, 4)), axes=(2, 0, 1)), axes=(1, 0, 2)),)),
    Rule("transpose_ones", P.transpose(x, axes=a), P.reshape(x, shape=_shape), when=_keeps_order,
         examples=(P.transpose(Arg((2, 1, 3)), axes=(1, 0, 2)),)),
    Rule("transpose_broadcast", P.transpose(P.broadcast(x, axes=a), axes=b), _transposed_broadcast,
         examples=(P.transpose(P.broadcast(_M23, axes=(0, 1), shape=(2, 3, 4)), axes=(2, 0, 1)),)),
    # reshape
    Rule("reshape_identity", P.reshape(x), x, when=lambda m: m.x.shape == m.root.shape, examples=(P.reshape(_M23, shape=(2, 3)),)),
    Rule("reshape_reshape", P.reshape(P.reshape(x)), P.reshape(x, shape=_shape),
         examples=(P.reshape(P.reshape(_M23, shape=(6,)), shape=(3, 2)),)),
    Rule("reshape_broadcast_scalar", P.reshape(P.broadcast(x)), P.broadcast(x, shape=_shape, axes=()), when=lambda m: m.x.rank == 0,
         examples=(P.reshape(P.broadcast(Arg(()), axes=(), shape=(2, 3)), shape=(6,)),)),
    # broadcast
    Rule("broadcast_identity", P.broadcast(x, axes=a), x, when=_is_identity, examples=(P.broadcast(_M23, axes=(0, 1), shape=(2, 3)),)),
    Rule("broadcast_ones", P.broadcast(x, axes=a), P.reshape(x, shape=_shape), when=_adds_ones,
         examples=(P.broadcast(_M23, axes=(1, 3), shape=(1, 2, 1, 3)),)),
    Rule("broadcast_broadcast", P.broadcast(P.broadcast(x, axes=a), axes=b),
         P.broadcast(x, shape=_shape, axes=lambda m: tuple(m.b[k] for k in m.a)),
         examples=(P.broadcast(P.broadcast(Arg((3,)), axes=(1,), shape=(2, 3)), axes=(0, 2), shape=(2, 4, 3)),)),
    Rule("broadcast_reshape", P.broadcast(P.reshape(x), axes=a), _broadcast_reshaped,
         examples=(P.broadcast(P.reshape(Arg((3,)), shape=(3, 1)), axes=(0, 1), shape=(3, 5)),)),
    Rule("hoist_broadcast", Pattern("*", ()), _hoist_broadcast,
         examples=(P.add(P.broadcast(Arg((3,)), axes=(1,), shape=(2, 3)), P.broadcast(Arg((3,)), axes=(1,), shape=(2, 3))),
                   P.add(P.broadcast(Arg((3,)), axes=(1,), shape=(2, 3)), 1))),
    # slice, pad, concat, gather
    Rule("slice_all", P.slice(x), x, when=_takes_all, examples=(P.slice(_M23, start=(0, 0), stop=(2, 3), step=(1, 1)),)),
    Rule("slice_slice", P.slice(P.slice(x)), _slice_of_slice, examples=tuple(
        P.slice(P.slice(Arg((20,)), **one), **two)
        for one in ({"start": (1,), "stop": (18,), "step": (2,)}, {"start": (19,), "stop": (-1,), "step": (-1,)})
        for two in ({"start": (2,), "stop": (7,), "step": (3,)}, {"start": (6,), "stop": (-1,), "step": (-2,)},
                    {"start": (3,), "stop": (3,), "step": (1,)}))),
    Rule("slice_concat", P.slice(P.concat()), _slice_of_concat,
         examples=(P.slice(P.concat(_M23, Arg((4, 3)), axis=0), start=(3, 1), stop=(5, 3), step=(1, 1)),)),
    Rule("pad_nothing", P.pad(x, y), x, when=_pads_nothing, examples=(P.pad(_M23, Arg(()), low=(0, 0), high=(0, 0)),)),
    Rule("concat_one", P.concat(x), x, examples=(P.concat(_M23, axis=0),)),
    Rule("gather_iota", P.gather(x, P.iota()), x, when=_gathers_all,
         examples=(P.gather(_M23, P.iota(shape=(2,), axis=0, dtype=i64), axis=0),)),
    # reductions, cumulative operators, contractions
    *(_reduction(f"{op}_nothing", Pattern(op, (x,), (("axes", ()),)), x, Pattern(op, (_M23,), (("axes", ()),))) for op in _REDUCTIONS),
    *(_reduction(f"{op}_ones", Pattern(op, (x,)), _reduce_ones,
                 *(Pattern(op, (Arg((2, 1, 3)),), (("axes", axes),)) for axes in ((1,), (1, 2)))) for op in _REDUCTIONS),
    *(_merged(op, ALL) for op in _REDUCTIONS[2:]),
    *(_merged(op, INTEGERS) for op in _REDUCTIONS[:2]),
    *(_merged(op, FLOATS, fast=True) for op in _REDUCTIONS[:2]),
    *(Rule(f"cumulative_{op}_ones", Pattern(f"cumulative_{op}", (x,)), x, when=lambda m: m.x.shape[m.root["axis"]] == 1,
           examples=(Pattern(f"cumulative_{op}", (Arg((3, 1)),), (("axis", 1), ("reverse", False))),)) for op in _REDUCTIONS[:4]),
    Rule("dot_transpose", P.dot(), _dot_transpose, ulps=8, examples=(
        P.dot(P.transpose(_M23, axes=(1, 0)), Arg((2, 5)), contract=((1,), (0,)), batch=((), ())),
        P.dot(_M23, P.transpose(Arg((5, 3)), axes=(1, 0)), contract=((1,), (0,)), batch=((), ())),
        P.dot(P.transpose(Arg((2, 3, 4)), axes=(1, 0, 2)), Arg((3, 4, 5)), contract=((2,), (1,)), batch=((0,), (0,))))),
]
