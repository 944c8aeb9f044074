"""Lowering of operators whose elements depend on earlier ones: cumulative operators, sorting, scatter.

    cumulative_sum   parallel row { state; serial k { state = merge(state, x[k]); y[k] = state } }
    sort, argsort    see the module ``sort``
    scatter          copy the operand (a backend leaves this out where the result lies over it), then apply the updates one after another
                     (their order is part of the meaning), whole rows of them in vectors
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import Size, i64, product
from xlc.passes.group import Group

from .inline import Inliner, Places, address
from .map import parallel
from .nest import Dimension, lanes, serial
from .sort import sort, sorts


def lower_ordered(group: Group, buffers: Places, machine: Machine) -> tuple[Stmt, ...]:
    node = group.anchor
    assert node is not None
    if any(s == 0 for s in node.shape):
        return ()
    if sorts(node):
        return tuple(sort(node, group, buffers))
    if node.op.name == "scatter":
        return tuple(_scatter(node, group, buffers, machine))
    return tuple(_cumulative(node, group, buffers))


def _dimensions(shape: Sequence[Size], skip: int | None = None) -> list[Dimension]:
    return [Dimension(var(f"i{d}"), s) for d, s in enumerate(shape) if d != skip]


def _cumulative(node: Node, group: Group, buffers: Places) -> list[Stmt]:
    axis, n = node["axis"], node.shape[node["axis"]]
    outer = _dimensions(node.shape, axis)
    k = var("k")
    place = (size(n) - 1) - k if node["reverse"] else k
    index = tuple(place if d == axis else var(f"i{d}") for d in range(node.rank))
    x = Inliner(set(group.members) - {node}, buffers).value(node.args[0], index)
    monoid = node.op.monoid
    assert monoid is not None
    states = monoid.init(x.dtype)
    registers = [Buffer(f"state{c}", s.dtype, (1,), "register") for c, s in enumerate(states)]
    zero = const(0)
    old = tuple(load(b, (zero,)) for b in registers)
    lifted = tuple(e if e.dtype is s.dtype else lookup("cast")(e, dtype=s.dtype) for e, s in zip(monoid.lift(x, k), states, strict=True))
    lets = [Let(f"n{c}", e) for c, e in enumerate(monoid.merge(old, lifted))]
    new = tuple(var(let.name, let.value.dtype) for let in lets)
    result = monoid.result(new)
    result = result if result.dtype is node.dtype else lookup("cast")(result, dtype=node.dtype)
    step: list[Stmt] = [*lets, *(Store(b, (zero,), e) for b, e in zip(registers, new, strict=True)),
                        Store(buffers[node], (address(node.shape, index),), result)]
    body: list[Stmt] = [Local(b) for b in registers]
    body += [Store(b, (zero,), s) for b, s in zip(registers, states, strict=True)]
    body.append(Loop("k", zero, size(n), 1, "serial", tuple(step)))
    ones = [Let(d.name, const(0)) for d in outer if d.extent == 1]
    return parallel(outer, [*ones, *body], 1)


def _scatter(node: Node, group: Group, buffers: Places, machine: Machine) -> list[Stmt]:
    """args: operand, updates, ids...; out-of-bounds updates are dropped."""
    operand, updates, *ids = node.args
    axes, mode = node["axes"], node["mode"]
    target = buffers[node]
    inliner = Inliner(set(group.members) - {node}, buffers)
    total = product(node.shape)
    flat = var("i")
    out: list[Stmt] = []
    with ix.ranges({flat: size(total)}):
        given = operand not in inliner.members  # at its own address, which needs no coordinates
        copy = load(buffers[operand], (flat,)) if given else inliner.value(operand, tuple(ix.unflatten(node.shape, flat)))
    out += lanes("v", const(0), size(total), machine.lanes(32) * 4, machine.lanes(32),
                 lambda x: [Store(target, (x,), _at(copy, flat, x))])
    where = ids[0].shape
    position = axes[0]
    rest = [d for d in range(operand.rank) if d not in axes]
    dims = _dimensions(updates.shape)
    u = [d.var for d in dims]
    in_ids = tuple(u[position:position + len(where)])
    with ix.ranges({d.var: size(d.extent) for d in dims}):
        values = [lookup("cast")(inliner.value(i, in_ids), dtype=i64) if i.dtype is not i64 else inliner.value(i, in_ids) for i in ids]
        update = inliner.value(updates, tuple(u))
    names = [Let(f"id{k}", v) for k, v in enumerate(values)]
    chosen = {axis: var(n.name) for axis, n in zip(axes, names, strict=True)}
    others = dict(zip(rest, [*u[:position], *u[position + len(where):]], strict=True))
    place = address(node.shape, tuple(chosen[d] if d in chosen else others[d] for d in range(operand.rank)))
    inside: Expr | None = None
    for axis, v in chosen.items():
        ok = (v >= const(0)) & (v < size(node.shape[axis]))
        inside = ok if inside is None else inside & ok
    assert inside is not None
    new = combined(mode, load(target, (place,)), update)
    before, after = dims[:position + len(where)], dims[position + len(where):]
    body: list[Stmt] = [Store(target, (place,), new)]
    if after:  # whole rows at a time: lanes are neighbours, which never meet
        *further, last = after
        width = machine.lanes(max(node.dtype.bits, 32))
        with ix.ranges({d.var: size(d.extent) for d in dims}):
            body = serial(further, lanes("w", const(0), size(last.extent), width, width,
                                         lambda x: [Store(target, (_at(place, last.var, x),), _at(new, last.var, x))]))
        body = [*(Let(d.name, const(0)) for d in further if d.extent == 1), *body]
    return [*out, *_nested(before, [*names, If(inside, tuple(body))])]


def _nested(dims: Sequence[Dimension], body: Sequence[Stmt]) -> list[Stmt]:
    """Serial loops, the first outermost."""
    for d in reversed(dims):
        body = [Loop(d.name, const(0), size(d.extent), 1, "serial", tuple(body))]
    return list(body)


def combined(mode: str, old: Expr, update: Expr) -> Expr:
    """What a scatter of that mode makes of an element."""
    op = {"set": None, "add": "add", "multiply": "multiply", "max": "maximum", "min": "minimum"}[mode]
    return update if op is None else lookup(op)(old, update)


def _at(e: Expr, v: Expr, x: Expr) -> Expr:
    from xlc.ir.loops import substitute

    return substitute(e, {v: x})
