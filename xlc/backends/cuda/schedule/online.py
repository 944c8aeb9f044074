"""Contraction, softmax, contraction in one kernel: scores and probabilities of a block of rows and 64 keys at a time stay on the chip.

    block b {                                                                       a block of rows
      thread t { q -> sq, the first k -> sk[0] }  thread t { the first v -> sv[0] } ...
      serial kt in (blocks of keys that the mask leaves) {
        wait;  thread t { a later k -> sk[kt+2];  s[t] = sq x sk[kt] }              in the background where it is a copy
        thread t { s[t] = score(s[t]);  greatest of a row in s[t] }  thread t { of the lanes that share it, by shuffles } ...
        thread t { p[t] = exp(s - m);  l[t] += p;  o[t] *= exp(m before - m) }
        thread t { a later v -> sv[kt+2];  o[t] += weight(p[t]) x sv[kt] }
      }
      thread t { y = epilogue(o[t] / l) }
    }

What is computed is what ``xlc.schedule.online`` recognises. A row belongs to lanes of one warp, so that m and l need shuffles alone. Tensor
cores multiply where they take the operands (then a warp has 16 or 32 whole rows), else single threads do, with fma. Probabilities in halves
stay in the registers that are the next product's left operand; others go through shared memory. Where four warps multiply together, in the
background, they wait for the product with values once they have begun the next step's scores. The keys are taken in order, 64 at a time,
and within these in one order: a row's sums depend on the shape and the chip alone.

The greatest score is taken with ``fmax``, for which nan is no number: a score that is nan makes its exponential nan, and with it l and the
row. Where probabilities are rounded to halves, their exponential is one of a few instructions (``exponential`` with a factor).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, Wait, const, load, place, size, statements, substitute, var
from xlc.ir.node import Node
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, f32
from xlc.passes.group import Group
from xlc.schedule.inline import Places, flat
from xlc.schedule.lower import inputs_of_stages
from xlc.schedule.nest import minimum
from xlc.schedule.online import ACC, Online, P, exponential, recognised, rescaling, shifted
from xlc.schedule.tile import pieces

from .bind import T, threads
from .contraction import Contraction, guarded
from .operand import LANE, TRUE, Operand, Staged, divides, length, stripped
from .operand import position as placed
from .share import LANES, G, H, Share, filled, moved, multiplied, read_where
from .tensor import copied, padded, products_of
from .tiled import KT, Tile, finished, tile_order
from .warpgroup import panels

if TYPE_CHECKING:
    from ..backend import Gpu

KEYS = 64  # of a block
ROWS = 128
WIDEST, DEEPEST = 128, 256  # columns of the result, whose sums are registers; contracted elements of the scores
FEW = 16  # rows, below which reading k and v bounds the time, and other schedules share that out better
LONG = 1024  # keys from which that matters
WARPGROUP = 128
NARROW = 64  # elements of a key, up to which four warps have q in registers
LOWEST = const(float("-inf"), f32)


@dataclass(frozen=True)
class Form:
    """How an ``Online`` is computed: the rows of a block, and the keys of a step, the dtype of operands, the products of tensor cores (0:
    none), how many tiles of keys there is room for, and of values, and how many threads multiply together. Four warps multiply in the
    background: the values of one step while scores of the next are, so that they need room for one more tile."""

    rows: int
    keys: int
    dtype: DType
    products: int
    slots: int = 1
    together: int = 32

    @property
    def halves(self) -> bool:
        """Whether probabilities are rounded to a half: then they stay in registers, and their exponential need not be exact."""
        return self.dtype.bits == 16

    def share(self, columns: int, near: int) -> Share:
        if self.products:
            return Share(self.rows // 64, columns // 8, 2, True, self.together)
        return Share(self.rows // LANES, columns // LANES // near, near, False)


def block_of_rows(stages: Sequence[Group], shared: int, machine: Gpu) -> int | str:
    """The rows of a block, or why these stages are not computed in one kernel (see ``Machine.rows_of_stages``)."""
    group = stages[-1]
    places = Places({n: flat(n, f"b{k}") for k, n in enumerate([*inputs_of_stages(stages), *group.roots, *stages[-2].roots])})
    found = recognised(stages, shared, places, ROWS)
    if isinstance(found, str):
        return found
    assert group.anchor is not None
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
    forms = []
    if first is not None and first == last:
        sizes = [(ROWS, KEYS)]
        if first[0].bits == 16 and _tall(o, machine.cores):  # a warp has 32 rows: it reads each fragment of k and v for two products
            sizes.insert(0, (2 * ROWS, KEYS if columns <= 64 else KEYS // 2))
        forms = [Form(*s, *first, slots) for s in sizes for slots in ((3, 2, 1) if first[0].bits == 16 else (1,))]
        if first[0].bits == 16 and machine.wgmma and depth % 64 == columns % 64 == 0:
            forms[:0] = [Form(ROWS, KEYS if columns <= 64 else 2 * KEYS, *first, slots, WARPGROUP) for slots in (3, 2)]
    few = isinstance(rows, int) and rows <= ROWS // 2 or columns > 64
    forms += [Form(r, KEYS, f32, 0) for r in (ROWS, ROWS // 2) if r < ROWS or not few]
    fitting = (f for f in forms if (k := _Kernel(o, f)).shared <= machine.shared and (f.slots < 3 or k.plain))
    return next(fitting, "a block of its rows does not fit the shared memory")


def _tall(o: Online, cores: int) -> bool:
    """Whether blocks of twice ``ROWS`` are good: there are enough of them, and hardly more rows in them than there are. A size that has a
    name is large."""
    short, tall = (pieces(length(o.rows), n) for n in (ROWS, 2 * ROWS))
    blocks = tall * length(o.batch)
    return not isinstance(short, int) or (short % 2 == 0 or short > 8) and (not isinstance(blocks, int) or blocks >= cores)


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
        self.form, self.o = form, o
        self.factor: float | None = None
        if form.halves:
            self.o, self.factor = o.factored()
        self.c = c = Contraction(o.product)
        c.batch, c.a = o.batch, Operand("a", c.a.value, o.rows, o.keys)
        self.depth, self.columns = (_up(length(d), 16) for d in (o.depth, o.columns))
        rows, dtype = form.rows, form.dtype
        late = form.together == WARPGROUP
        staged = panels if late else padded
        self.q = staged(Operand("q", o.q, o.rows, o.depth), rows, self.depth, dtype, 1)
        self.k = staged(Operand("k", o.k, o.keys, o.depth), form.keys, self.depth, dtype, form.slots)
        self.v = staged(Operand("v", o.v, o.columns, o.keys), self.columns, form.keys, dtype, form.slots + late)
        self.done = [Wait(0, True)] if late else []
        self.parts = form.share(self.depth, 2) if late and self.depth <= NARROW else None
        self.left = Buffer("q", dtype, (256, self.parts.count), "register") if self.parts else self.q
        self.p = Staged(Operand("p", ACC, (), ()), rows, form.keys, dtype, form.keys + (8 if dtype.bits == 16 else 4), 1, 1)
        self.scores = form.share(form.keys, 1 if self.k.k_step == 1 else 4)
        self.sums = form.share(self.columns, 1 if self.v.k_step == 1 else min(4, self.columns // LANES & -(self.columns // LANES)))
        self.s, self.out = (Buffer(n, f32, (256, x.count), "register") for n, x in (("s", self.scores), ("o", self.sums)))
        self.m, self.l, self.top = (Buffer(n, f32, (256, self.scores.high), "register") for n in "mlt")
        self.held = Buffer("p", dtype, (256, self.scores.count), "register")
        self.row = var("row")

    @property
    def tiles(self) -> tuple[Staged, ...]:
        """What lies in shared memory."""
        return (self.q, self.k, self.v) if self.form.halves else (self.q, self.k, self.v, self.p)

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return sum(_up(x.slots * x.pitch * x.dtype.bytes, 128) for x in self.tiles)

    @property
    def plain(self) -> bool:
        """Whether keys and values are copied as they are, in the background."""
        return all(copied(x.operand, x.dtype) for x in (self.k, self.v))

    def nest(self) -> list[Stmt]:
        return tile_order(self.o.batch, pieces(self.c.rows, self.form.rows), 1, self.block)

    def block(self, mt: Expr, _: Expr) -> list[Stmt]:
        start, stop = self.o.window(self.row, self.form.rows)
        steps = size(pieces(length(self.o.keys), self.form.keys))
        if stop is not None:  # later rows have more keys: they come first
            mt = size(pieces(self.c.rows, self.form.rows)) - 1 - mt
        first = const(0) if start is None else lookup("maximum")(start, const(0)) // self.form.keys
        last = steps if stop is None else minimum(steps, (stop + (self.form.keys - 1)) // self.form.keys)
        ends = [Let("first", first), Let("last", last)]
        first, last = (e.value if e.value.is_const else var(e.name) for e in ends)
        buffers = [*(x.buffer for x in self.tiles), self.s, self.out, self.m, self.l,
                   *([self.held] if self.form.halves else []), *([self.left] if isinstance(self.left, Buffer) else [])]
        with ix.ranges({T: const(256), KT: steps}):
            loop = Loop(KT["name"], first, last, 1, "serial", tuple(self.step(last)))
            work = guarded(first < last, [loop, *self.done]) if self.done else [loop]  # without a step, no product is under way
            total, lets = self.across("l", self.l, lookup("add"))
            return [Let("row", mt * self.form.rows), *(e for e in ends if not e.value.is_const), *map(Local, buffers),
                    *self.start(first, last), *work, *lets, threads(*self.epilogue(total))]

    def start(self, first: Expr, last: Expr) -> list[Stmt]:
        """Nothing summed; q, and the first keys and values on their way."""
        begun = [*filled(self.out, 0.0), *filled(self.m, float("-inf")), *filled(self.l, 0.0),
                 *(s for part in moved(self.q, self.row, const(0)) for s in part)]
        ahead = [(x, first + j) for j in range(self.form.slots - 1) for x in (self.k, self.v)] or [(self.k, first)]
        out = [[s for part in self.brought(x, at, last) for s in part] for x, at in ahead]
        after = sum(any(isinstance(s, Loop) and s.kind == "async" for s in statements(body)) for body in out[1:])
        return [threads(*begun, *out[0]), *(threads(*body) for body in out[1:]), *self.fragments(after)]

    def fragments(self, after: int) -> list[Stmt]:
        """What each thread has to bring of q, where that stays in registers: four warps would read it from shared memory in every step.
        So many loops over threads have begun copies since that of q."""
        share, into = self.parts, self.left
        if share is None or not isinstance(into, Buffer):
            return []
        read = load(self.q.buffer, (place(share.row(H), share.column(G) + LANE, self.q.steps),))
        return [Wait(after), threads(share.each_row([share.each([Store(into, (T, share.element(H, G, LANE)), read)])]))]

    def step(self, last: Expr) -> list[Stmt]:
        """What is done with a block of keys. With one slot values come while scores are computed, the next keys while these are multiplied
        with values. With more, what comes is for a later step, and goes where nothing has been read since the last barrier."""
        slots, products = self.form.slots, self.form.products
        early, late = ((self.v, KT), (self.k, KT + 1)) if slots == 1 else ((self.k, KT + (slots - 1)), (self.v, KT + (slots - 1)))
        (first, kept), (second, kept_too) = (self.brought(x, at, last) for x, at in (early, late))
        top, shuffles = self.across("t", self.top, lookup("fmax"))
        scores = multiplied(self.s, self.scores, self.left, self.k, self.depth, products, KT % slots)
        probabilities = self.held if self.form.halves else self.p
        result = multiplied(self.out, self.sums, probabilities, self.v, self.form.keys, products, KT % self.v.slots)
        later = 2 * (slots - 2) if slots > 2 and first and second else 0  # of what is on its way, two loops over threads for each step
        return [Wait(later), threads(*first, *filled(self.s, 0.0), *scores, *kept, *self.done),
                Local(self.top), threads(*self.scored()), *shuffles, threads(*self.probabilities(top)), *([Wait(0)] if slots == 1 else []),
                threads(*second, *result, *kept_too)]

    def brought(self, x: Staged, step: Expr, last: Expr) -> tuple[list[Stmt], list[Stmt]]:
        """What begins the way of the keys, or values, of a step to shared memory, and what ends it, if there is such a step."""
        at = step * self.form.keys
        row, k = (at, const(0)) if x is self.k else (const(0), at)
        registers, begun, kept = moved(x, row, k, step % x.slots)
        exists = TRUE if step is KT else step < last
        return [*registers, *guarded(exists, begun)], guarded(exists, kept) if kept else []

    # -- rows -------------------------------------------------------------------------------------

    def scored(self) -> list[Stmt]:
        """The scores of a thread, and the greatest of each of its rows. Most blocks of keys are not at an edge of what a mask leaves."""
        o, (first, count) = self.o, self.scores.span
        row, key = self.edges(var("x"), var("y"))
        start, stop = o.inside(self.row + first, count)
        stops = [*([] if stop is None else [stop]), *([] if key is TRUE else [size(length(o.keys))])]
        at, end = KT * self.form.keys, (KT + 1) * self.form.keys
        inside = reduce(operator.and_, [x >= end for x in stops], TRUE if start is None else start <= at)
        everywhere = self.highest(lookup("where")(key, read_where(o.score, row & key, {}), LOWEST))
        return everywhere if inside is TRUE else [If(inside, tuple(self.highest(read_where(o.unmasked, row, {}))), tuple(everywhere))]

    def highest(self, score: Expr) -> list[Stmt]:
        """Scores of a thread, given over ``ACC`` at a row ``x`` and a key ``y``."""
        share, z = self.scores, var("z", f32)
        at = (T, share.element(H, G, LANE))
        one: list[Stmt] = [
            Let("y", KT * self.form.keys + share.column(G) + LANE), Let("z", substitute(score, {**self.place(), ACC: load(self.s, at)})),
            Store(self.s, at, z), Store(self.top, (T, H), lookup("fmax")(load(self.top, (T, H)), z))]
        return [share.each_row([Let("x", self.row + share.row(H)), Store(self.top, (T, H), LOWEST), share.each(one)])]

    def edges(self, row: Expr, key: Expr) -> tuple[Expr, Expr]:
        """Whether the row exists, and the key."""
        rows, keys = self.c.rows, length(self.o.keys)
        return (TRUE if divides(self.form.rows, rows) else row < size(rows)), (TRUE if divides(self.form.keys, keys) else key < size(keys))

    def place(self) -> dict[Expr, Expr]:
        return {**placed(self.o.rows, var("x")), **placed(self.o.keys, var("y"))}

    def across(self, name: str, b: Buffer, op: Any) -> tuple[Buffer, list[Stmt]]:
        """The values of all lanes that share a row as one, in each of them."""
        out: list[Stmt] = []
        for bit in self.scores.bits:
            new = Buffer(f"{name}_{bit}", f32, b.shape, "register")
            both = op(load(b, (T, H)), load(b, (T ^ const(bit), H)))  # the same number in both lanes: neither operator knows an order
            out += [Local(new), threads(self.scores.each_row([Store(new, (T, H), both)]))]
            b = new
        return b, out

    def probabilities(self, top: Buffer) -> list[Stmt]:
        """Those of a thread, and what has been summed so far made to fit them."""
        o, share, sums, c = self.o, self.scores, self.sums, self.factor
        new, shift, scale, p = (var(n, f32) for n in ("new", "shift", "scale", "e"))
        row, key = self.edges(var("x"), var("y"))
        weight = substitute(read_where(o.weight, row & key, self.place()), {P: p})
        value = weight if self.form.dtype is f32 else lookup("cast")(weight, dtype=self.form.dtype)
        element = (T, share.element(H, G, LANE))
        into = Store(self.held, element, value) if self.form.halves else Store(
            self.p.buffer, (share.row(H) * self.p.row_step + share.column(G) + LANE,), value)
        one: list[Stmt] = [Let("y", KT * self.form.keys + share.column(G) + LANE), Let("e", exponential(load(self.s, element), shift, c)),
                           Store(self.l, (T, H), load(self.l, (T, H)) + p), into]
        at = (T, sums.element(H, G, LANE))
        return [share.each_row([
            Let("x", self.row + share.row(H)), Let("new", lookup("fmax")(load(self.m, (T, H)), load(top, (T, H)))),
            Let("shift", shifted(new, c)), Let("scale", rescaling(load(self.m, (T, H)), shift, c)),
            Store(self.m, (T, H), new), Store(self.l, (T, H), load(self.l, (T, H)) * scale), share.each(one),
            sums.each([Store(self.out, at, load(self.out, at) * scale)])])]

    def epilogue(self, total: Buffer) -> list[Stmt]:
        share, keys = self.sums, length(self.o.keys)

        def result(lane: Expr) -> Expr:
            done = load(self.out, (T, share.element(H, G, lane)))
            done = done * var("over", f32) if self.form.halves else done / load(total, (T, H))
            return done if isinstance(keys, int) else lookup("where")(size(keys).equals(0), 0.0, done)

        tile = Tile(self.form.rows, self.columns, self.form.keys)
        with ix.ranges({H: const(share.high), G: const(share.groups)}):
            body = finished(self.c, tile, self.row + share.row(H), share.column(G), share.near, result)
        over = [Let("over", 1.0 / load(total, (T, H)))] if self.form.halves else []
        return [share.each_row([*self.beside(total), *over, share.each_group(body)])]

    def beside(self, total: Buffer) -> list[Stmt]:
        """m and l, written by one of the lanes that share a row. Of a row without a key l is nan, as a sum of exp(-inf - -inf)."""
        if not self.o.beside:
            return []
        x, m = var("mine"), load(self.m, (T, H)) * (self.factor or 1.0)
        sum_ = lookup("where")(m.equals(float("-inf")), float("nan"), load(total, (T, H)))
        stores = [Store(b, (substitute(at, placed(self.o.rows, x)),), m if name == "m" else sum_) for name, b, at in self.o.beside]
        first = (T & const(sum(self.scores.bits))).equals(0)
        return [Let("mine", self.row + self.scores.row(H)), *guarded(first & self.edges(x, const(0))[0], stores)]


def _up(n: Size, step: int) -> int:
    assert isinstance(n, int)
    return -(-n // step) * step


__all__ = ["block_of_rows", "lower_online"]
