"""Lowering of sort and argsort: every row on its own, by a stable bottom-up merge sort; nan sorts last, as in NumPy.

    parallel row {
      runs[0][k] = x[k]
      width = 1, 2, 4, ...: every two neighbouring runs of that length in one half of ``runs`` are merged into the other half
      y[k] = runs[half][k]
    }

``runs`` holds two rows of values, and for argsort two of positions that move along. They are on the stack where their length is known and
small; else they are outputs of the kernel that nobody reads (``rows_in_memory``).
"""

from __future__ import annotations

from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.node import Node, make
from xlc.ir.op import lookup
from xlc.ir.types import DType, Type, bool_, i64
from xlc.passes.group import Group

from .inline import Inliner, Places, address
from .map import parallel
from .nest import Dimension, minimum

ON_STACK = 1 << 14  # elements of a row that is sorted on the stack
PASSES = 48  # more than any size needs


def sorts(n: Node) -> bool:
    return n.op.name in ("sort", "argsort")


def moved(n: Node) -> tuple[DType, ...]:
    """What moves while a row is sorted."""
    return (n.args[0].dtype, i64) if n.op.name == "argsort" else (n.dtype,)


def rows_in_memory(group: Group) -> tuple[Node, ...]:
    """Memory that the kernel of a group needs beside its results: two rows for each row that is long, or of unknown length."""
    n = group.anchor
    if n is None or not sorts(n) or any(s == 0 for s in n.shape):
        return ()
    row = n.shape[n["axis"]]
    if isinstance(row, int) and row <= ON_STACK:
        return ()
    shape = (*(s for d, s in enumerate(n.shape) if d != n["axis"]), 2, row)
    return tuple(make(lookup("copy"), (n,), Type(d, shape), {"token": object()}) for d in moved(n))


def sort(node: Node, group: Group, buffers: Places) -> list[Stmt]:
    """The loop nest of an anchor; what ``rows_in_memory`` asked for is among ``buffers``."""
    rows = [b for b in buffers if b.args == (node,) and "token" in b.attributes]
    axis, source, zero, one, k = node["axis"], node.args[0], const(0), const(1), var("k")
    n = size(node.shape[axis])
    outer = [Dimension(var(f"i{d}"), s) for d, s in enumerate(node.shape) if d != axis]
    index = tuple(k if d == axis else var(f"i{d}") for d in range(node.rank))
    runs = [buffers[r] for r in rows] or [Buffer(f"runs{j}", d, (n.value * 2,), "stack") for j, d in enumerate(moved(node))]
    left, right, half = (Buffer(name, i64, (1,), "register") for name in ("left", "right", "half"))
    now, width, start, a, b = (var(name, i64) for name in ("now", "width", "s", "l", "r"))

    def place(which: Expr, at: Expr) -> tuple[Expr, ...]:
        return (address(rows[0].shape, (*(d.var for d in outer), which, at)),) if rows else (which * n + at,)

    value = Inliner(set(group.members) - {node}, buffers).value(source, index)
    fill = Loop("k", zero, n, 1, "serial", tuple(Store(b, place(zero, k), v) for b, v in zip(runs, (value, k), strict=False)))
    middle, end = minimum(start + width, n), minimum(start + width * 2, n)
    heads = [Let(f"{side}{j}", load(run, place(now, minimum(at, n - 1)))) for side, at in (("x", a), ("y", b))
             for j, run in enumerate(runs)]
    take = var("take", bool_)
    x, y = (var(f"{side}0", runs[0].dtype) for side in "xy")
    merge = Loop("k", start, end, 1, "serial", (
        Let("l", load(left, (zero,))), Let("r", load(right, (zero,))), *heads,
        # the right one goes first only where it strictly precedes
        Let("take", (a < middle) & ((b >= end) | ~precedes(y, x, dict(node.attrs).get("descending", False)))),
        *(Store(run, place(one - now, k), lookup("where")(take, var(f"x{j}", run.dtype), var(f"y{j}", run.dtype)))
          for j, run in enumerate(runs)),
        Store(left, (zero,), a + lookup("cast")(take, dtype=i64)), Store(right, (zero,), b + lookup("cast")(~take, dtype=i64))))
    pairs = lookup("floor_divide")(n + width * 2 - 1, width * 2)
    every_pair = Loop("q", zero, pairs, 1, "serial", (
        Let("s", var("q") * width * 2), Store(left, (zero,), start), Store(right, (zero,), middle), merge))
    one_pass = (Let("width", one << var("t")), Let("now", load(half, (zero,))),
                If(width < n, (every_pair, Store(half, (zero,), one - now))))
    body: list[Stmt] = [
        *(Local(b) for b in ([] if rows else runs)), *(Local(b) for b in (left, right, half)),
        *(Let(d.name, zero) for d in outer if d.extent == 1), fill, Store(half, (zero,), zero),
        Loop("t", zero, const(PASSES if not n.is_const else max(n.value - 1, 0).bit_length()), 1, "serial", one_pass),
        Let("last", load(half, (zero,))),
        Loop("k", zero, n, 1, "serial", (Store(buffers[node], (address(node.shape, index),), load(runs[-1], place(var("last", i64), k))),))]
    return parallel(outer, body, 1)


def precedes(x: Expr, y: Expr, descending: bool) -> Expr:
    """x sorts strictly before y."""
    if not x.dtype.is_float:
        return y < x if descending else x < y
    x_nan, y_nan = lookup("not_equal")(x, x), lookup("not_equal")(y, y)
    return ~x_nan & (((y < x) if descending else (x < y)) | y_nan)


__all__ = ["moved", "precedes", "rows_in_memory", "sort", "sorts"]
