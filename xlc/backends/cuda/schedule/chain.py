"""A contraction of what is elementwise in other contractions, in one kernel: what lies between stays on the chip.

    block b {                                                                       a block of rows
      thread t { q, g -> sq, sg;  the first k, v, b -> sk[0], sv[0], sb[0] }         in the background where it is a copy
      serial kt in (blocks of keys in which f may be anything but 0) {
        wait;  thread t { the next k, v, b -> sk[kt+1], ...;  s[t] = sq x sk[kt];  d[t] = sg x sv[kt] }
        thread t { p[t] = f(s[t], d[t]) }
        thread t { o[t] += p[t] x sb[kt] }
      }
      thread t { y = epilogue(o[t]) }
    }

What is computed is what ``xlc.schedule.chain`` recognises. Tensor cores multiply where they take all operands, else single threads do, with
fma. What f gives as halves stays in the registers that are the next product's left operand, and all three loops need no barrier between
them; else it goes through shared memory. Where b is what the first inner contraction reads on the right (the keys, for the gradient of the
queries), it is there already. With room for one tile of each operand alone, b comes while the inner contractions are computed, and the next
keys after these. The keys are taken in order, so a sum depends on the shape and the chip alone.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from xlc.ir import index as ix
from xlc.ir.loops import Buffer, Expr, If, Let, Local, Loop, Stmt, Store, Wait, const, load, size, substitute, var
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, f32
from xlc.passes.group import Group
from xlc.schedule.chain import Chain, Inner, is_chain, recognised
from xlc.schedule.inline import Places, flat
from xlc.schedule.lower import inputs_of_stages
from xlc.schedule.nest import minimum
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

ROWS = (128, 64)  # of a block
SIZES = ((32, 2), (32, 1))  # keys of a block, and how many blocks of them there are at a time: the first that fits
WIDEST, DEEPEST = 128, 256  # columns of the result, whose sums are registers; contracted elements of the inner ones
MOST = 2  # inner contractions, whose results are registers, too


@dataclass(frozen=True)
class Form:
    """The rows and keys of a block, the dtype of operands, the products of tensor cores (0: none), the tiles of a right operand that there
    is room for."""

    rows: int
    keys: int
    dtype: DType
    products: int
    slots: int

    @property
    def halves(self) -> bool:
        """Whether f is rounded to a half: then it stays in registers."""
        return self.dtype.bits == 16

    def share(self, columns: int, near: int) -> Share:
        if self.products:
            return Share(self.rows // 64, columns // 8, 2, True)
        return Share(self.rows // LANES, columns // LANES // near, near, False)


def block_of_rows(stages: Sequence[Group], shared: int, machine: Gpu) -> int | str:
    """The rows of a block, or why these stages are not computed in one kernel (see ``Machine.rows_of_stages``)."""
    places = Places({n: flat(n, f"b{k}") for k, n in enumerate([*inputs_of_stages(stages), *stages[-1].roots])})
    found = recognised(stages, shared, places, ROWS[0])
    if isinstance(found, str):
        return found
    form = _form(found, stages[-1], machine)
    return form if isinstance(form, str) else form.rows


def _form(c: Chain, group: Group, machine: Gpu) -> Form | str:
    assert group.anchor is not None
    columns, rows = length(c.columns), length(c.rows)
    depths = [length(i.depth) for i in c.inner]
    if 0 in (*depths, length(c.keys)):
        return "there is nothing to sum"
    if len(c.inner) > MOST:
        return f"it is made of {len(c.inner)} contractions"
    if not (isinstance(columns, int) and columns <= WIDEST and all(isinstance(d, int) and d <= DEEPEST for d in depths)):
        return f"operands of {', '.join(map(str, (*depths, columns)))} elements: up to {DEEPEST} and {WIDEST} fit"
    pairs = [*((stripped(i.a).dtype, stripped(i.b).dtype) for i in c.inner), (group.anchor.args[0].dtype, stripped(c.product.b).dtype)]
    taken = [products_of(a, b, machine.arch) for a, b in pairs]
    forms = [Form(ROWS[0], k, *taken[0], slots) for k, slots in SIZES if taken[0] is not None and all(t == taken[0] for t in taken)]
    few = isinstance(rows, int) and rows <= ROWS[1] or columns > 64
    forms += [Form(r, k, f32, 0, slots) for r in ROWS for k, slots in SIZES if r < ROWS[0] or not few]
    fitting = (f for f in forms if _Kernel(c, f).shared <= machine.shared)
    return next(fitting, "a block of its rows does not fit the shared memory")


def lower_chain(group: Group, places: Places, machine: Any) -> tuple[Stmt, ...] | None:
    assert group.tiling is not None and group.anchor is not None
    if not is_chain(group.stages):
        return None
    found = recognised(group.stages, group.tiling.shared, places, ROWS[0])
    assert isinstance(found, Chain)
    if any(s == 0 for s in group.anchor.shape):
        return ()
    form = _form(found, group, machine)
    assert isinstance(form, Form)
    return tuple(_Kernel(found, form).nest())


class _Kernel:
    def __init__(self, chain: Chain, form: Form):
        self.given, self.chain, self.form = chain, chain.quick(form.halves), form
        self.c = c = Contraction(chain.product)
        c.batch, c.a = chain.batch, Operand("a", c.a.value, chain.rows, chain.keys)
        rows, keys, dtype = form.rows, form.keys, form.dtype
        self.columns, self.depths = _up(length(chain.columns)), [_up(length(i.depth)) for i in chain.inner]
        inner = list(zip(chain.inner, self.depths, strict=True))
        self.left = [padded(Operand(f"q{k}", i.a, chain.rows, i.depth), rows, d, dtype, 1) for k, (i, d) in enumerate(inner)]
        self.right = [padded(Operand(f"k{k}", i.b, chain.keys, i.depth), keys, d, dtype, form.slots) for k, (i, d) in enumerate(inner)]
        self.b = padded(Operand("v", chain.product.b, chain.columns, chain.keys), self.columns, keys, dtype, form.slots)
        self.held = Buffer("p", dtype, (256, rows * keys // 256), "register")
        self.p = Staged(Operand("p", chain.value, (), ()), rows, keys, dtype, keys + (8 if dtype.bits == 16 else 4), 1, 1)
        same = next((x for x, i in zip(self.right, chain.inner, strict=True) if form.slots > 1 and self.is_b(x, i)), None)
        self.coming = [*self.right, *([self.b] if same is None else [])]
        if same is not None:
            self.b = replace(self.b, operand=replace(self.b.operand, name=same.operand.name))
        near = 1 if any(x.k_step == 1 for x in self.right) else min(4, keys // LANES)
        self.between = form.share(keys, near)
        self.sums = form.share(self.columns, 1 if self.b.k_step == 1 else min(4, self.columns // LANES & -(self.columns // LANES)))
        self.s = [Buffer(f"s{k}", f32, (256, self.between.count), "register") for k in range(len(chain.inner))]
        self.out = Buffer("o", f32, (256, self.sums.count), "register")
        self.row = var("row")

    def is_b(self, x: Staged, i: Inner) -> bool:
        """Whether tiles of this right operand are those of b: the same values at the same places."""
        columns = self.chain.columns
        if len(columns) != 1 or len(i.depth) != 1 or (x.k_step, x.row_step, x.pitch) != (self.b.row_step, self.b.k_step, self.b.pitch):
            return False
        return substitute(stripped(self.chain.product.b), {columns[0].var: i.depth[0].var}) is stripped(i.b)

    @property
    def tiles(self) -> list[Staged]:
        """What lies in shared memory."""
        return [*self.left, *self.coming, *([] if self.form.halves else [self.p])]

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return sum(-(-x.slots * x.pitch * x.dtype.bytes // 128) * 128 for x in self.tiles)

    def nest(self) -> list[Stmt]:
        return tile_order(self.chain.batch, pieces(self.c.rows, self.form.rows), 1, self.block)

    def block(self, mt: Expr, _: Expr) -> list[Stmt]:
        start, stop = self.given.window(self.row, self.form.rows)
        keys = self.form.keys
        steps = size(pieces(length(self.chain.keys), keys))
        if stop is not None and start is None:  # later rows have more keys: they come first
            mt = size(pieces(self.c.rows, self.form.rows)) - 1 - mt
        ends = [Let("first", const(0) if start is None else lookup("maximum")(start, const(0)) // keys),
                Let("last", steps if stop is None else minimum(steps, (stop + (keys - 1)) // keys))]
        first, last = (e.value if e.value.is_const else var(e.name) for e in ends)
        registers = [*self.s, self.out, *([self.held] if self.form.halves else [])]
        with ix.ranges({T: const(256), KT: steps}):
            begin = [*filled(self.out, 0.0), *(s for x in self.left for part in moved(x, self.row, const(0)) for s in part)]
            for x in self.coming if self.form.slots > 1 else self.right:
                begin += [s for part in self.brought(x, first, last) for s in part]
            loop = Loop(KT["name"], first, last, 1, "serial", tuple(self.step(last)))
            locals_ = map(Local, (*(x.buffer for x in self.tiles), *registers))
            return [Let("row", mt * self.form.rows), *(e for e in ends if not e.value.is_const), *locals_, threads(*begin), loop,
                    threads(*self.epilogue())]

    def brought(self, x: Staged, step: Expr, last: Expr) -> tuple[list[Stmt], list[Stmt]]:
        """What begins the way of a tile of a right operand to shared memory, and what ends it, if there is such a step."""
        at = step * self.form.keys
        row, k = (const(0), at) if x is self.b else (at, const(0))
        registers, begun, kept = moved(x, row, k, step % x.slots)
        exists = TRUE if step is KT else step < last
        return [*registers, *guarded(exists, begun)], guarded(exists, kept) if kept else []

    def step(self, last: Expr) -> list[Stmt]:
        """What is done with a block of keys."""
        form, slot = self.form, KT % self.form.slots
        inner = [s for acc, a, b, depth in zip(self.s, self.left, self.right, self.depths, strict=True)
                 for s in (*filled(acc, 0.0), *multiplied(acc, self.between, a, b, depth, form.products, slot))]
        outer = multiplied(self.out, self.sums, self.held if form.halves else self.p, self.b, form.keys, form.products, slot)

        def coming(tiles: Sequence[Staged], step: Expr) -> tuple[list[Stmt], list[Stmt]]:
            parts = [self.brought(x, step, last) for x in tiles]
            return [s for p in parts for s in p[0]], [s for p in parts for s in p[1]]

        if form.slots > 1:
            begun, kept = coming(self.coming, KT + 1)
            return [Wait(0), threads(*begun, *inner, *kept), threads(*self.evaluated()), threads(*outer)]
        (begun, kept), (later, kept_later) = coming([self.b], KT), coming(self.right, KT + 1)
        return [Wait(0), threads(*begun, *inner, *kept), threads(*self.evaluated()), Wait(0), threads(*later, *outer, *kept_later)]

    def evaluated(self) -> list[Stmt]:
        """f of what a thread has. Most blocks of keys are not at an edge of what a mask leaves."""
        (first, count), keys = self.between.span, self.form.keys
        row, key = self.edges(var("x"), var("y"))
        start, stop = self.chain.inside(self.row + first, count)
        stops = [*([] if stop is None else [stop]), *([] if key is TRUE else [size(length(self.chain.keys))])]
        inside = reduce(operator.and_, [x >= KT * keys + keys for x in stops], TRUE if start is None else start <= KT * keys)
        value = read_where(self.chain.value, row & key, {})
        everywhere = self.each(value if key is TRUE else lookup("where")(key, value, const(0.0, f32)))
        return everywhere if inside is TRUE else [If(inside, tuple(self.each(read_where(self.chain.compared, row, {}))), tuple(everywhere))]

    def each(self, value: Expr) -> list[Stmt]:
        """f, given over the accumulators at a row ``x`` and a key ``y``, for all that a thread has."""
        share, x, y = self.between, var("x"), var("y")
        element = (T, share.element(H, G, LANE))
        known = {**placed(self.chain.rows, x), **placed(self.chain.keys, y)}
        value = substitute(value, {**known, **{i.acc: load(s, element) for i, s in zip(self.chain.inner, self.s, strict=True)}})
        value = value if self.form.dtype is f32 else lookup("cast")(value, dtype=self.form.dtype)
        into = Store(self.held, element, value) if self.form.halves else Store(
            self.p.buffer, (share.row(H) * self.p.row_step + share.column(G) + LANE,), value)
        one: list[Stmt] = [Let("y", KT * self.form.keys + share.column(G) + LANE), into]
        return [share.each_row([Let("x", self.row + share.row(H)), share.each(one)])]

    def edges(self, row: Expr, key: Expr) -> tuple[Expr, Expr]:
        """Whether the row exists, and the key."""
        rows, keys = self.c.rows, length(self.chain.keys)
        return (TRUE if divides(self.form.rows, rows) else row < size(rows)), (TRUE if divides(self.form.keys, keys) else key < size(keys))

    def epilogue(self) -> list[Stmt]:
        share = self.sums

        def result(lane: Expr) -> Expr:
            return load(self.out, (T, share.element(H, G, lane)))

        with ix.ranges({H: const(share.high), G: const(share.groups)}):
            tile = Tile(self.form.rows, self.columns, self.form.keys)
            body = finished(self.c, tile, self.row + share.row(H), share.column(G), share.near, result)
        return [share.each_row([share.each_group(body)])]


def _up(n: Size) -> int:
    assert isinstance(n, int)
    return -(-n // 16) * 16


__all__ = ["block_of_rows", "lower_chain"]
