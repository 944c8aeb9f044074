"""Lowering of operators whose elements depend on earlier ones: cumulative operators, sorting, scatter.

    cumulative_sum   parallel row { state; serial k { state = merge(state, x[k]); y[k] = state } }
    sort, argsort    parallel row { bottom-up merge sort between two rows on the stack or in the result }
    scatter          copy the operand, then apply the updates one after another (their order is part of the meaning)
"""

from __future__ import annotations

from collections.abc import Sequence

from xlc.errors import XlcValueError
from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import Size, i64, product
from xlc.passes.fuse import Group

from .inline import Inliner, address
from .map import parallel
from .nest import Dimension, lanes, minimum


def lower_ordered(group: Group, buffers: dict[Node, Buffer], machine: Machine) -> tuple[Stmt, ...]:
    node = group.anchor
    assert node is not None
    if any(s == 0 for s in node.shape):
        return ()
    if node.op.name in ("sort", "argsort"):
        return tuple(_sort(node, group, buffers))
    if node.op.name == "scatter":
        return tuple(_scatter(node, group, buffers, machine))
    return tuple(_cumulative(node, group, buffers))


def _dimensions(shape: Sequence[Size], skip: int | None = None) -> list[Dimension]:
    return [Dimension(var(f"i{d}"), s) for d, s in enumerate(shape) if d != skip]


def _cumulative(node: Node, group: Group, buffers: dict[Node, Buffer]) -> list[Stmt]:
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


def _sort(node: Node, group: Group, buffers: dict[Node, Buffer]) -> list[Stmt]:
    """Stable bottom-up merge sort of positions. ``order`` and ``other`` swap roles after each pass; nan sorts last, as in NumPy."""
    axis, n = node["axis"], node.shape[node["axis"]]
    if not isinstance(n, int):
        raise XlcValueError(f"{node.op.name} along an axis of symbolic size {n} is not supported; make that axis static", node.loc)
    if n > 1 << 20:
        raise XlcValueError(f"{node.op.name} along an axis of {n} elements: at most {1 << 20} are supported", node.loc)
    source, target, descending = node.args[0], buffers[node], dict(node.attrs).get("descending", False)
    zero = const(0)
    outer = _dimensions(node.shape, axis)

    inliner = Inliner(set(group.members) - {node}, buffers)

    def index(k: Expr) -> tuple[Expr, ...]:
        return tuple(k if d == axis else var(f"i{d}") for d in range(node.rank))

    order, other = Buffer("order", i64, (n,), "stack"), Buffer("other", i64, (n,), "stack")
    k = var("k")
    body: list[Stmt] = [Local(order), Local(other), Loop("k", zero, const(n), 1, "serial", (Store(order, (k,), k),))]
    a, b, width, passes = order, other, 1, 0
    registers = {name: Buffer(name, i64, (1,), "register") for name in ("left", "right")}
    body += [Local(r) for r in registers.values()]
    start = var("s")
    while width < n:
        middle, end = minimum(start + width, const(n)), minimum(start + 2 * width, const(n))
        left, right = var("l", i64), var("r", i64)
        clamp = const(n - 1)
        pl, pr = load(a, (minimum(left, clamp),)), load(a, (minimum(right, clamp),))
        x, y = (inliner.value(source, index(var(p, i64))) for p in ("pl", "pr"))
        later = _precedes(y, x, descending)  # the right one goes first only where it strictly precedes
        take_left = (left < middle) & ((right >= end) | ~later)
        merge: list[Stmt] = [
            Let("l", load(registers["left"], (zero,))), Let("r", load(registers["right"], (zero,))), Let("pl", pl), Let("pr", pr),
            Let("take", take_left),
            Store(b, (k,), lookup("where")(var("take", take_left.dtype), var("pl", i64), var("pr", i64))),
            Store(registers["left"], (zero,), left + lookup("cast")(var("take", take_left.dtype), dtype=i64)),
            Store(registers["right"], (zero,), right + lookup("cast")(~var("take", take_left.dtype), dtype=i64))]
        body.append(Loop("s", zero, const(n), 2 * width, "serial", (
            Store(registers["left"], (zero,), start), Store(registers["right"], (zero,), middle),
            Loop("k", start, end, 1, "serial", tuple(merge)))))
        a, b, width, passes = b, a, width * 2, passes + 1
    final = load(a, (k,))
    value = final if node.op.name == "argsort" else inliner.value(source, index(final))
    body.append(Loop("k", zero, const(n), 1, "serial", (Store(target, (address(node.shape, index(k)),), value),)))
    ones = [Let(d.name, const(0)) for d in outer if d.extent == 1]
    return parallel(outer, [*ones, *body], 1)


def _precedes(x: Expr, y: Expr, descending: bool) -> Expr:
    """x sorts strictly before y."""
    if not x.dtype.is_float:
        return y < x if descending else x < y
    x_nan, y_nan = lookup("not_equal")(x, x), lookup("not_equal")(y, y)
    return ~x_nan & (((y < x) if descending else (x < y)) | y_nan)


def _scatter(node: Node, group: Group, buffers: dict[Node, Buffer], machine: Machine) -> list[Stmt]:
    """args: operand, updates, ids...; out-of-bounds updates are dropped."""
    operand, updates, *ids = node.args
    axes, mode = node["axes"], node["mode"]
    target = buffers[node]
    inliner = Inliner(set(group.members) - {node}, buffers)
    total = product(node.shape)
    flat = var("i")
    out: list[Stmt] = []
    with ix.ranges({flat: size(total)}):
        index = tuple(ix.unflatten(node.shape, flat))
        copy = inliner.value(operand, index)
    out += lanes("v", const(0), size(total), machine.lanes(32) * 4, machine.lanes(32),
                 lambda x: [Store(target, (x,), _at(copy, flat, x))])
    where = ids[0].shape
    position = axes[0]
    rest = [d for d in range(operand.rank) if d not in axes]
    update_dims = _dimensions(updates.shape)
    u = [d.var for d in update_dims]
    in_ids = tuple(u[position:position + len(where)])
    with ix.ranges({d.var: size(d.extent) for d in update_dims}):
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
    old = load(target, (place,))
    combine = {"set": lambda: update, "add": lambda: old + update, "multiply": lambda: old * update,
               "max": lambda: lookup("maximum")(old, update), "min": lambda: lookup("minimum")(old, update)}[mode]()
    body: list[Stmt] = [*names, If(inside, (Store(target, (place,), combine),))]  # type: ignore[arg-type]
    for d in reversed(update_dims):
        body = [Loop(d.name, const(0), size(d.extent), 1, "serial", tuple(body))]
    return out + body


def _at(e: Expr, v: Expr, x: Expr) -> Expr:
    from xlc.ir.loops import substitute

    return substitute(e, {v: x})
