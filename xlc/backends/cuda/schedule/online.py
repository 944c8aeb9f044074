"""Contraction, softmax, contraction in one kernel: scores and probabilities of a block of rows and 64 keys at a time stay on the chip.

    block b {                                                                       a block of rows
      thread t { q -> sq, the first k -> sk }                                       in the background where it is a copy
      serial kt in (blocks of keys that the mask leaves) {
        wait;  thread t { v -> sv;  s[t] = sq x sk }
        thread t { s[t] = score(s[t]);  greatest of a row in s[t] }  thread t { of the lanes that share it, by shuffles } ...
        thread t { p = exp(s - m);  l[t] += p;  o[t] *= exp(m before - m);  weight(p) -> sp }
        wait;  thread t { the next k -> sk;  o[t] += sp x sv }
      }
      thread t { y = epilogue(o[t] / l) }
    }

What is computed is what ``xlc.schedule.online`` recognises. A row belongs to lanes of one warp, so that m and l need shuffles alone. Tensor
cores multiply where they take the operands (then a warp has 16 whole rows), else single threads do, with fma. The keys are taken in order,
64 at a time, and within these in one order: a row's sums depend on the shape alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, Let, Local, Loop, Stmt, Store, Wait, const, load, size, substitute, var
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, f32
from xlc.passes.group import Group
from xlc.schedule.inline import Places, flat
from xlc.schedule.lower import inputs_of_stages
from xlc.schedule.nest import minimum
from xlc.schedule.online import ACC, Online, P, exponential, recognised, rescaled
from xlc.schedule.tile import pieces

from .bind import T, threads
from .contraction import Contraction, guarded
from .operand import LANE, TRUE, Operand, Staged, divides, length, stripped
from .operand import position as placed
from .share import LANES, G, H, Share, filled, moved, multiplied, read_where
from .tensor import padded, products_of
from .tiled import KT, Tile, finished, tile_order

if TYPE_CHECKING:
    from ..backend import Gpu

KEYS = 64  # of a block
ROWS = 128
WIDEST, DEEPEST = 128, 256  # columns of the result, whose sums are registers; contracted elements of the scores
FEW = 16  # rows, below which reading k and v bounds the time, and other schedules share that out better
LONG = 1024  # keys from which that matters
LOWEST = const(float("-inf"), f32)


# ------------------------------------------------------------------------------------------------ when, and in what form


@dataclass(frozen=True)
class Form:
    """How an ``Online`` is computed: the rows of a block, the dtype in shared memory, the products of tensor cores (0: none)."""

    rows: int
    dtype: DType
    products: int

    def share(self, columns: int, near: int) -> Share:
        if self.products:
            return Share(2, columns // 8, 2, True)
        return Share(self.rows // LANES, columns // LANES // near, near, False)


def block_of_rows(stages: Sequence[Group], shared: int, machine: Gpu) -> int | str:
    """The rows of a block, or why these stages are not computed in one kernel (see ``Machine.rows_of_stages``)."""
    group = stages[-1]
    places = Places({n: flat(n, f"b{k}") for k, n in enumerate([*inputs_of_stages(stages), *group.roots, *stages[-2].roots])})
    found = recognised(stages, shared, places, ROWS)
    if isinstance(found, str):
        return found
    form = _form(found, group.anchor.args[0], machine)
    return form if isinstance(form, str) else form.rows


def _form(o: Online, probabilities: Node, machine: Gpu) -> Form | str:
    depth, columns, rows, keys = (length(d) for d in (o.depth, o.columns, o.rows, o.keys))
    if 0 in (depth, keys) or o.beside and columns == 0:
        return "there is nothing to sum"
    if not (isinstance(depth, int) and isinstance(columns, int) and depth <= DEEPEST and columns <= WIDEST):
        return f"heads of {depth} and {columns} elements: up to {DEEPEST} and {WIDEST} fit"
    long = not isinstance(keys, int) or keys > LONG
    if long and isinstance(rows, int) and rows < FEW:
        return "there are few rows for each key: kernels of their own share the keys out between blocks"
    first, last = (products_of(a, b, machine.arch) for a, b in (
        (stripped(o.q).dtype, stripped(o.k).dtype), (probabilities.dtype, stripped(o.v).dtype)))
    forms = [Form(ROWS, *first)] if first is not None and first == last else []
    few = isinstance(rows, int) and rows <= ROWS // 2 or columns > 64
    forms += [Form(r, f32, 0) for r in (ROWS, ROWS // 2) if r < ROWS or not few]
    fitting = (f for f in forms if _Kernel(o, f).shared <= machine.shared)
    return next(fitting, "a block of its rows does not fit the shared memory")


def lower_online(group: Group, places: Places, machine: Any) -> tuple[Stmt, ...]:
    assert group.tiling is not None and group.anchor is not None
    found = recognised(group.stages, group.tiling.shared, places, ROWS)
    assert isinstance(found, Online)
    if any(s == 0 for s in group.anchor.shape):
        return ()
    form = _form(found, group.anchor.args[0], machine)
    assert isinstance(form, Form)
    return tuple(_Kernel(found, form).nest())


# ------------------------------------------------------------------------------------------------ the kernel


class _Kernel:
    def __init__(self, o: Online, form: Form):
        self.o, self.form = o, form
        self.c = c = Contraction(o.product)
        c.batch, c.a = o.batch, Operand("a", c.a.value, o.rows, o.keys)
        self.depth, self.columns = (_up(length(d), 16) for d in (o.depth, o.columns))
        rows, dtype = form.rows, form.dtype
        self.q = padded(Operand("q", o.q, o.rows, o.depth), rows, self.depth, dtype, 1)
        self.k = padded(Operand("k", o.k, o.keys, o.depth), KEYS, self.depth, dtype, 1)
        self.v = padded(Operand("v", o.v, o.columns, o.keys), self.columns, KEYS, dtype, 1)
        self.p = Staged(Operand("p", ACC, (), ()), rows, KEYS, dtype, KEYS + (8 if dtype.bits == 16 else 4), 1, 1)
        self.scores = form.share(KEYS, 1 if self.k.k_step == 1 else 4)
        self.sums = form.share(self.columns, 1 if self.v.k_step == 1 else min(4, self.columns // LANES & -(self.columns // LANES)))
        self.s, self.out = (Buffer(n, f32, (256, x.count), "register") for n, x in (("s", self.scores), ("o", self.sums)))
        self.m, self.l, self.top = (Buffer(n, f32, (256, self.scores.high), "register") for n in "mlt")
        self.row = var("row")

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return sum(_up(x.pitch * x.dtype.bytes, 128) for x in (self.q, self.k, self.v, self.p))

    def nest(self) -> list[Stmt]:
        return tile_order(self.o.batch, pieces(self.c.rows, self.form.rows), 1, self.block)

    def block(self, mt: Expr, _: Expr) -> list[Stmt]:
        start, stop = self.o.window(self.row, self.form.rows)
        steps = size(pieces(length(self.o.keys), KEYS))
        if stop is not None:  # later rows have more keys: they come first
            mt = size(pieces(self.c.rows, self.form.rows)) - 1 - mt
        first = const(0) if start is None else lookup("maximum")(start, const(0)) // KEYS
        last = steps if stop is None else minimum(steps, (stop + (KEYS - 1)) // KEYS)
        ends = [Let("first", first), Let("last", last)]
        first, last = (e.value if e.value.is_const else var(e.name) for e in ends)
        buffers = [*(x.buffer for x in (self.q, self.k, self.v, self.p)), self.s, self.out, self.m, self.l]
        with ix.ranges({T: const(256), KT: steps}):
            start_ = [*filled(self.out, 0.0), *filled(self.m, float("-inf")), *filled(self.l, 0.0)]
            for x, at, exists in ((self.q, self.row, TRUE), (self.k, first * KEYS, first < last)):
                registers, fetch, keep = moved(x, at, const(0))
                start_ += [*registers, *guarded(exists, [*fetch, *keep])]
            loop = Loop(KT["name"], first, last, 1, "serial", tuple(self.step(last)))
            total, lets = self.across("l", self.l, lookup("add"))
            return [Let("row", mt * self.form.rows), *(e for e in ends if not e.value.is_const), *map(Local, buffers),
                    threads(*start_), loop, *lets, threads(*self.epilogue(total))]

    def step(self, last: Expr) -> list[Stmt]:
        """What is done with a block of keys."""
        registers_v, fetch_v, keep_v = moved(self.v, const(0), KT * KEYS)
        registers_k, fetch_k, keep_k = moved(self.k, (KT + 1) * KEYS, const(0))
        more = last > KT + 1
        top, shuffles = self.across("t", self.top, lookup("maximum"))
        scores = self.product(self.s, self.scores, self.q, self.k, self.depth)
        return [Wait(0), threads(*registers_v, *fetch_v, *filled(self.s, 0.0), *scores, *keep_v),
                Local(self.top), threads(*self.scored()), *shuffles, threads(*self.probabilities(top)), Wait(0),
                threads(*registers_k, *(guarded(more, fetch_k)), *self.product(self.out, self.sums, self.p, self.v, KEYS),
                        *(guarded(more, keep_k) if keep_k else ()))]

    def product(self, acc: Buffer, share: Share, a: Staged, b: Staged, depth: int) -> list[Stmt]:
        return multiplied(acc, share, a, b, depth, self.form.products)

    # -- rows -------------------------------------------------------------------------------------

    def scored(self) -> list[Stmt]:
        """The scores of a thread, and the greatest of each of its rows."""
        o, share, x, y = self.o, self.scores, var("x"), var("y")
        at = (T, share.element(H, G, LANE))
        row, key = self.edges(x, y)
        score = substitute(read_where(o.score, row & key, self.place(x, y)), {ACC: load(self.s, at)})
        one: list[Stmt] = [
            Let("y", KT * KEYS + share.column(G) + LANE), Let("z", lookup("where")(key, score, LOWEST)), Store(self.s, at, var("z", f32)),
            Store(self.top, (T, H), lookup("maximum")(load(self.top, (T, H)), var("z", f32)))]
        return [share.each_row([Let("x", self.row + share.row(H)), Store(self.top, (T, H), LOWEST), share.each(one)])]

    def edges(self, row: Expr, key: Expr) -> tuple[Expr, Expr]:
        """Whether the row exists, and the key."""
        rows, keys = self.c.rows, length(self.o.keys)
        return (TRUE if divides(self.form.rows, rows) else row < size(rows)), (TRUE if divides(KEYS, keys) else key < size(keys))

    def place(self, row: Expr, key: Expr) -> dict[Expr, Expr]:
        return {**placed(self.o.rows, row), **placed(self.o.keys, key)}

    def across(self, name: str, b: Buffer, op: Any) -> tuple[Buffer, list[Stmt]]:
        """The values of all lanes that share a row as one, in each of them."""
        out: list[Stmt] = []
        for bit in self.scores.bits:
            new = Buffer(f"{name}_{bit}", f32, b.shape, "register")
            mine, other = load(b, (T, H)), load(b, (T ^ const(bit), H))
            later = (T & const(bit)).equals(bit)
            first, second = lookup("where")(later, other, mine), lookup("where")(later, mine, other)
            out += [Local(new), threads(self.scores.each_row([Store(new, (T, H), op(first, second))]))]
            b = new
        return b, out

    def probabilities(self, top: Buffer) -> list[Stmt]:
        """Those of a thread, to shared memory, and what has been summed so far made to fit them."""
        o, share, sums = self.o, self.scores, self.sums
        x, y, p = var("x"), var("y"), var("e", f32)
        new, shift, scale = var("new", f32), var("shift", f32), var("scale", f32)
        subtracted, factor = rescaled(load(self.m, (T, H)), new)
        row, key = self.edges(x, y)
        weight = substitute(read_where(o.weight, row & key, self.place(x, y)), {P: p})
        value = weight if self.form.dtype is f32 else lookup("cast")(weight, dtype=self.form.dtype)
        into = share.row(H) * self.p.row_step + share.column(G) + LANE
        one: list[Stmt] = [
            Let("y", KT * KEYS + share.column(G) + LANE), Let("e", exponential(load(self.s, (T, share.element(H, G, LANE))) - shift)),
            Store(self.l, (T, H), load(self.l, (T, H)) + p), Store(self.p.buffer, (into,), value)]
        at = (T, sums.element(H, G, LANE))
        return [share.each_row([
            Let("x", self.row + share.row(H)), Let("new", lookup("maximum")(load(self.m, (T, H)), load(top, (T, H)))),
            Let("shift", subtracted), Let("scale", substitute(factor, {subtracted: shift})),
            Store(self.m, (T, H), new), Store(self.l, (T, H), load(self.l, (T, H)) * scale), share.each(one),
            sums.each([Store(self.out, at, load(self.out, at) * scale)])])]

    def epilogue(self, total: Buffer) -> list[Stmt]:
        share, keys = self.sums, length(self.o.keys)

        def result(lane: Expr) -> Expr:
            done = load(self.out, (T, share.element(H, G, lane))) / load(total, (T, H))
            return done if isinstance(keys, int) else lookup("where")(size(keys).equals(0), 0.0, done)

        tile = Tile(self.form.rows, self.columns, KEYS)
        with ix.ranges({H: const(share.high), G: const(share.groups)}):
            body = finished(self.c, tile, self.row + share.row(H), share.column(G), share.near, result)
        return [share.each_row([*self.beside(total), share.each_group(body)])]

    def beside(self, total: Buffer) -> list[Stmt]:
        """m and l, written by one of the lanes that share a row. Of a row without a key l is nan, as a sum of exp(-inf - -inf)."""
        if not self.o.beside:
            return []
        x, m = var("mine"), load(self.m, (T, H))
        sum_ = lookup("where")(m.equals(float("-inf")), float("nan"), load(total, (T, H)))
        stores = [Store(b, (substitute(at, placed(self.o.rows, x)),), m if name == "m" else sum_) for name, b, at in self.o.beside]
        first = (T & const(sum(self.scores.bits))).equals(0)
        return [Let("mine", self.row + self.scores.row(H)), *guarded(first & self.edges(x, const(0))[0], stores)]


def _up(n: Size, step: int) -> int:
    assert isinstance(n, int)
    return -(-n // step) * step


__all__ = ["block_of_rows", "lower_online"]
