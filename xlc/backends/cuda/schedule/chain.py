"""A contraction of what is elementwise in other contractions, in one kernel: what lies between stays on the chip (see ``xlc.schedule.chain``).

    block b {                                                                       a block of rows
      thread t { q, g -> sq, sg;  the first k, v -> sk, sv }                         in the background where it is a copy
      serial kt in (blocks of keys in which f may be anything but 0) {
        wait;  thread t { b -> sb;  s[t] = sq x sk;  d[t] = sg x sv }
        thread t { f(s[t], d[t]) -> sp }
        wait;  thread t { the next k, v -> sk, sv;  o[t] += sp x sb }
      }
      thread t { y = epilogue(o[t]) }
    }

Tensor cores multiply where they take all operands, else single threads do, with fma. The keys are taken in order, so a sum depends on the
shape alone. What f reads at a row or a key alone is evaluated once for it, and a division by that is a multiplication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlc.ir import index as ix
from xlc.ir.loops import LOAD, Buffer, Expr, Let, Local, Loop, Stmt, Store, Wait, const, load, size, substitute, var, walk
from xlc.ir.op import lookup
from xlc.ir.types import DType, Size, f32
from xlc.passes.group import Group
from xlc.schedule.chain import Chain, is_chain, recognised
from xlc.schedule.inline import Places, flat
from xlc.schedule.lower import inputs_of_stages
from xlc.schedule.nest import Dimension, minimum
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

ROWS, KEYS = (128, 64), (64, 32)  # of a block
WIDEST, DEEPEST = 128, 256  # columns of the result, whose sums are registers; contracted elements of the inner ones
MOST = 2  # inner contractions, whose results are registers, too


@dataclass(frozen=True)
class Form:
    """The rows and keys of a block, the dtype in shared memory, the products of tensor cores (0: none)."""

    rows: int
    keys: int
    dtype: DType
    products: int

    def share(self, columns: int, near: int) -> Share:
        if self.products:
            return Share(2, columns // 8, 2, True)
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
    forms = [Form(ROWS[0], k, *taken[0]) for k in KEYS if taken[0] is not None and all(t == taken[0] for t in taken)]
    few = isinstance(rows, int) and rows <= ROWS[1] or columns > 64
    forms += [Form(r, k, f32, 0) for r in ROWS for k in KEYS if r < ROWS[0] or not few]
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
        self.chain, self.form = chain, form
        self.c = c = Contraction(chain.product)
        c.batch, c.a = chain.batch, Operand("a", c.a.value, chain.rows, chain.keys)
        rows, keys, dtype = form.rows, form.keys, form.dtype
        self.columns, self.depths = _up(length(chain.columns)), [_up(length(i.depth)) for i in chain.inner]

        def staged(name: str, value: Expr, free: tuple[Dimension, ...], along: tuple[Dimension, ...], count: int, depth: int) -> Staged:
            return padded(Operand(name, value, free, along), count, depth, dtype, 1)

        inner = list(zip(chain.inner, self.depths, strict=True))
        self.left = [staged(f"q{k}", i.a, chain.rows, i.depth, rows, d) for k, (i, d) in enumerate(inner)]
        self.right = [staged(f"k{k}", i.b, chain.keys, i.depth, keys, d) for k, (i, d) in enumerate(inner)]
        self.b = staged("v", chain.product.b, chain.columns, chain.keys, self.columns, keys)
        self.p = Staged(Operand("p", chain.value, (), ()), rows, keys, dtype, keys + (8 if dtype.bits == 16 else 4), 1, 1)
        near = 1 if any(x.k_step == 1 for x in self.right) else min(4, keys // LANES)
        self.between = form.share(keys, near)
        self.sums = form.share(self.columns, 1 if self.b.k_step == 1 else min(4, self.columns // LANES & -(self.columns // LANES)))
        self.s = [Buffer(f"s{k}", f32, (256, self.between.count), "register") for k in range(len(chain.inner))]
        self.out = Buffer("o", f32, (256, self.sums.count), "register")
        self.row = var("row")

    @property
    def tiles(self) -> list[Staged]:
        return [*self.left, *self.right, self.b, self.p]

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return sum(-(-x.pitch * x.dtype.bytes // 128) * 128 for x in self.tiles)

    def nest(self) -> list[Stmt]:
        return tile_order(self.chain.batch, pieces(self.c.rows, self.form.rows), 1, self.block)

    def block(self, mt: Expr, _: Expr) -> list[Stmt]:
        start, stop = self.chain.window(self.row, self.form.rows)
        keys = self.form.keys
        steps = size(pieces(length(self.chain.keys), keys))
        if stop is not None and start is None:  # later rows have more keys: they come first
            mt = size(pieces(self.c.rows, self.form.rows)) - 1 - mt
        ends = [Let("first", const(0) if start is None else lookup("maximum")(start, const(0)) // keys),
                Let("last", steps if stop is None else minimum(steps, (stop + (keys - 1)) // keys))]
        first, last = (e.value if e.value.is_const else var(e.name) for e in ends)
        with ix.ranges({T: const(256), KT: steps}):
            begin = filled(self.out, 0.0)
            for x, at, exists in (*((x, self.row, TRUE) for x in self.left), *((x, first * keys, first < last) for x in self.right)):
                registers, fetch, keep = moved(x, at, const(0))
                begin += [*registers, *guarded(exists, [*fetch, *keep])]
            loop = Loop(KT["name"], first, last, 1, "serial", tuple(self.step(last)))
            return [Let("row", mt * self.form.rows), *(e for e in ends if not e.value.is_const), *map(Local, (x.buffer for x in self.tiles)),
                    *map(Local, (*self.s, self.out)), threads(*begin), loop, threads(*self.epilogue())]

    def step(self, last: Expr) -> list[Stmt]:
        """What is done with a block of keys."""
        keys = self.form.keys
        registers_b, fetch_b, keep_b = moved(self.b, const(0), KT * keys)
        parts = [moved(x, (KT + 1) * keys, const(0)) for x in self.right]
        registers, fetch, keep = ([s for p in parts for s in p[k]] for k in range(3))
        products = [s for acc, a, b, depth in zip(self.s, self.left, self.right, self.depths, strict=True)
                    for s in (*filled(acc, 0.0), *multiplied(acc, self.between, a, b, depth, self.form.products))]
        more = last > KT + 1
        return [Wait(0), threads(*registers_b, *fetch_b, *products, *keep_b), threads(*self.evaluated()), Wait(0),
                threads(*registers, *guarded(more, fetch), *multiplied(self.out, self.sums, self.p, self.b, keys, self.form.products),
                        *(guarded(more, keep) if keep else ()))]

    def evaluated(self) -> list[Stmt]:
        """f of what a thread has, to shared memory."""
        share, x, y = self.between, var("x"), var("y")
        row, key = self.edges(x, y)
        at = {**placed(self.chain.rows, x), **placed(self.chain.keys, y)}
        value = read_where(_divided(self.chain.value, [i.acc for i in self.chain.inner]), row & key, at)
        value = substitute(value, {i.acc: load(s, (T, share.element(H, G, LANE))) for i, s in zip(self.chain.inner, self.s, strict=True)})
        value = lookup("where")(key, value, const(0.0, f32)) if key is not TRUE else value
        value = value if self.form.dtype is f32 else lookup("cast")(value, dtype=self.form.dtype)
        into = share.row(H) * self.p.row_step + share.column(G) + LANE
        one: list[Stmt] = [Let("y", KT * self.form.keys + share.column(G) + LANE), Store(self.p.buffer, (into,), value)]
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


def _divided(f: Expr, accumulators: Sequence[Expr]) -> Expr:
    """f with divisions by what is not made of accumulators as multiplications by the inverse."""
    names, changed = {a["name"] for a in accumulators}, dict[Expr, Expr]()
    for e in walk(f):
        args = [changed[a] for a in e.args]
        if e.op.name == "divide" and e.dtype is f32 and e.args[0].free & names and not e.args[1].free & names:
            changed[e] = args[0] * (1.0 / args[1])
        else:
            changed[e] = e if e.op.kind == "input" or args == list(e.args) else e.op(*args, **dict(e.attrs))
    return changed[f]


def _up(n: Size) -> int:
    assert isinstance(n, int)
    return -(-n // 16) * 16


__all__ = ["block_of_rows", "lower_chain"]
