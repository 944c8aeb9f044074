"""Results of tensor cores, exchanged between the lanes that share a row, so that each has eight neighbouring columns instead of two.

A lane has columns 2q and 2q+1 of every eight, q being its number among four. Of four times eight columns, the four lanes hand each other
two at a time what the other is to have: in two rounds of shuffles, with the lanes t ^ 1 and t ^ 2, lane q gets all of the q-th eight.

    e[t, k] = acc[t, what t ^ 1 is to have]     for each lane;  then  acc[t, what t gives away] = e[t ^ 1, k];  and so with t ^ 2
"""

from __future__ import annotations

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, Local, Loop, Stmt, Store, const, load, var
from xlc.ir.op import lookup

from .bind import T, threads

GROUPS, COLUMNS = 4, 8  # of columns that four lanes share out


def exchanged(acc: Buffer) -> list[Stmt]:
    """``acc``, as an ``Mma`` leaves it, made such that ``element`` says where in it things are."""
    count = acc.shape[1]
    assert isinstance(count, int)
    sent = Buffer("sent", acc.dtype, (256, count // 2), "register")
    e = var("e")
    out: list[Stmt] = [Local(sent)]
    for bit in (1, 2):
        with ix.ranges({e: const(count)}):  # e = ((group of four, group) , row and column)
            pair = e // 4 % 2
            low = e // 8 * 16 + pair * (8 if bit == 1 else 4) + e % 4
            group = e // 4 % 4
            place = e // 16 * 8 + (group // 2 if bit == 1 else group % 2) * 4 + e % 4
            give = lookup("where")((T & const(bit)).equals(bit), load(acc, (T, low)), load(acc, (T, low + 4 * bit)))
            kept = (T & const(bit)).equals(group & const(bit))
            take = lookup("where")(kept, load(acc, (T, e)), load(sent, (T ^ const(bit), place)))
        out += [threads(_each(count // 2, Store(sent, (T, e), give))), threads(_each(count, Store(acc, (T, e), take)))]
    return out


def element(four: Expr, row: Expr, column: Expr) -> Expr:
    """Where in the exchanged ``acc`` of lane q column ``column`` of eight is, of the q-th eight of the ``four``-th four of them."""
    return four * 16 + column // 2 * 4 + row * 2 + column % 2


def _each(count: int, s: Stmt) -> Loop:
    return Loop("e", const(0), const(count), 1, "vector", (s,), count)


__all__ = ["COLUMNS", "GROUPS", "element", "exchanged"]
