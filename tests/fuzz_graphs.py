"""Random typed graphs from the operator table.

    graph, arrays, sizes = random_graph(seed)          the same for the same seed

Every kind of operator, every dtype, sizes from 0 up, several results, shared subexpressions, views of views, captured arrays. ``exact``
keeps to operators without rounding, on small multiples of 1/8, so that a result must agree exactly; ``symbolic`` names some sizes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import xlc.ops  # noqa: F401  (fills the table)
from xlc.errors import XlcError
from xlc.ir.node import Graph, Node, constant, full, parameter
from xlc.ir.op import OPS
from xlc.ir.types import DTYPES, Dim, DType, Size, Type, evaluate, i64, product

SIZES = (0, 1, 1, 2, 3, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 33, 64, 65, 100, 130, 257)
LARGE = (1, 2, 3, 7, 33, 64, 1000, 2049, 4097, 5000, 16384, 16385, 33000, 70001)  # past the sizes at which loops are cut and shared out
LARGEST, LARGEST_OF_LARGE = 1 << 15, 1 << 18
FLOATS = ("f16", "bf16", "f32", "f64")
ELEMENTWISE = tuple(op for op in OPS.values() if op.kind == "elementwise" and op.name not in ("cast", "bitcast", "lookup"))
ENVIRONMENTS = (
    {"n": 3, "m": 5},
    {"n": 1, "m": 1},
    {"n": 0, "m": 2},
    {"n": 17, "m": 33},
    {"n": 64, "m": 7},
    {"n": 101, "m": 16},
    {"n": 2, "m": 0},
)


@dataclass
class Case:
    """A graph, and for each assignment of its named sizes the arguments."""

    graph: Graph
    runs: list[tuple[dict[str, int], list[np.ndarray]]]


def sample(rng: np.random.Generator, dtype: DType, shape: Sequence[int], flavour: str = "small") -> np.ndarray:
    """Values of a dtype: ``small`` multiples of 1/8, ``any`` with infinities, nan and extremes among them, ``index`` around 0..9."""
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.is_float:
        x = rng.integers(-24, 25, shape) / 8
        if flavour == "any":
            special = np.asarray([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, -3e38, 1e5, 0.1, 1e-3, 700.0, -700.0])
            x = np.where(rng.integers(0, 4, shape) == 0, special[rng.integers(0, len(special), shape)], x + rng.standard_normal(shape))
        with np.errstate(all="ignore"):
            return np.asarray(x).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    low = -5 if dtype.kind == "i" else 0
    x = rng.integers(-2 if dtype.kind == "i" else 0, 9, shape) if flavour == "index" else rng.integers(low, 7, shape)
    out = np.asarray(x).astype(dtype.numpy)
    if flavour == "any":
        wild = rng.integers(info.min, info.max, shape, dtype=dtype.numpy, endpoint=True)
        ends = np.where(rng.integers(0, 2, shape) == 1, np.asarray(info.max, dtype.numpy), np.asarray(info.min, dtype.numpy))
        kind = rng.integers(0, 6, shape)
        out = np.where(kind == 0, wild, np.where(kind == 1, ends, out)).astype(dtype.numpy)
    return out


class _Writer:
    def __init__(self, seed: int, exact: bool, symbolic: bool, flavour: str, large: bool):
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.exact, self.symbolic, self.flavour = exact, symbolic, flavour
        r = self.rng
        self.largest = LARGEST_OF_LARGE if large else LARGEST
        self.sizes: list[Size] = r.sample(LARGE if large else SIZES, r.randint(2, 4))
        if r.random() < 0.85 and 0 in self.sizes:
            self.sizes = [s for s in self.sizes if s] or [3]
        if symbolic:
            self.sizes = [*self.sizes[:2], Dim.named("n"), *([Dim.named("m")] if r.random() < 0.5 else [])]
        self.dtypes = r.sample(sorted(DTYPES), r.randint(1, 4))
        if r.random() < 0.7:
            self.dtypes.append("f32")
        self.pool: list[Node] = []
        self.params: list[Node] = []
        self.flavours: list[str] = []

    # -- pieces -----------------------------------------------------------------------------------

    def dtype(self, allowed: Sequence[DType] = ()) -> DType:
        mine = [DTYPES[d] for d in self.dtypes if not allowed or DTYPES[d] in allowed]
        return self.rng.choice(mine or list(allowed))

    def shape(self, rank: int | None = None) -> tuple[Size, ...]:
        r = self.rng
        rank = r.choice((0, 1, 1, 2, 2, 2, 3, 3, 4)) if rank is None else rank
        for _ in range(20):
            shape = tuple(r.choice(self.sizes) for _ in range(rank))
            if self.elements(shape) <= self.largest // 4:
                return shape
        return tuple(r.choice((1, 2, 3)) for _ in range(rank))

    @staticmethod
    def elements(shape: Sequence[Size]) -> int:
        return evaluate(product(shape), {"n": 101, "m": 33})

    def new(self, t: Type, flavour: str | None = None) -> Node:
        """A fresh leaf of this type."""
        r, flavour = self.rng, flavour or self.flavour
        kind = r.random()
        if kind < 0.12 and flavour != "index":
            return full(t, sample(self.numbers, t.dtype, (), flavour)[()])
        if kind < 0.2 and t.is_static and t.rank:
            return constant(sample(self.numbers, t.dtype, t.shape, flavour))  # type: ignore[arg-type]
        if kind < 0.25 and t.rank:
            return OPS["iota"](shape=t.shape, axis=r.randrange(t.rank), dtype=t.dtype)
        p = parameter(t, f"x{len(self.params)}", len(self.params))
        self.params.append(p)
        self.flavours.append(flavour)
        return p

    def pick(self, accept: Callable[[Node], bool] = lambda n: True) -> Node | None:
        found = [n for n in self.pool if accept(n)]
        if not found:
            return None
        return found[-1 - min(int(self.rng.expovariate(0.3)), len(found) - 1)] if self.rng.random() < 0.7 else self.rng.choice(found)

    def like(self, t: Type, flavour: str | None = None) -> Node:
        """A node of exactly this type: one that exists, one made to fit, or a new one."""
        r = self.rng
        same = self.pick(lambda n: n.type == t)
        if same is not None and r.random() < 0.6:
            return same
        if r.random() < 0.7 and t.rank and flavour is None:
            fits = self.pick(lambda n: self.axes_into(n.shape, t.shape) is not None and n.type != t)
            if fits is not None:
                fits = fits if fits.dtype is t.dtype else OPS["cast"](fits, dtype=t.dtype)
                axes = self.axes_into(fits.shape, t.shape)
                return OPS["broadcast"](fits, shape=t.shape, axes=axes) if fits.shape != t.shape else fits
        if r.random() < 0.5 and t.rank:
            kept = sorted(r.sample(range(t.rank), r.randint(0, t.rank)))
            small = self.new(Type(t.dtype, tuple(t.shape[d] if r.random() < 0.8 else 1 for d in kept)), flavour)
            return OPS["broadcast"](small, shape=t.shape, axes=tuple(kept)) if small.shape != t.shape or not kept else small
        return self.new(t, flavour)

    @staticmethod
    def axes_into(small: Sequence[Size], large: Sequence[Size]) -> tuple[int, ...] | None:
        """Ascending output dimensions for a broadcast, or None."""
        axes, at = [], 0
        for s in small:
            while at < len(large) and s not in (large[at], 1):
                at += 1
            if at == len(large):
                return None
            axes.append(at)
            at += 1
        return tuple(axes)

    # -- operators --------------------------------------------------------------------------------

    def elementwise(self) -> Node | None:
        r = self.rng
        op = r.choice([o for o in ELEMENTWISE if o.exact or not self.exact])
        x = self.pick(lambda n: n.dtype in op.dtypes)
        if op.name == "where":
            y = self.pick()
            if y is None:
                return None
            return op(self.like(Type(DTYPES["bool"], y.shape)), y, self.like(y.type))
        if x is None:
            x = self.pick()
            if x is None:
                return None
            x = OPS["cast"](x, dtype=self.dtype(op.dtypes))
        args = [x, *(self.like(x.type) for _ in range((op.arity or 1) - 1))]
        r.shuffle(args)
        return op(*args)

    def cast(self) -> Node | None:
        x = self.pick()
        if x is None:
            return None
        to = self.dtype()
        if self.rng.random() < 0.1 and x.dtype.kind != "b":
            return (
                OPS["bitcast"](x, dtype=self.rng.choice([d for d in DTYPES.values() if d.bits == x.dtype.bits and d.kind != "b"]))
                if self.exact
                else None
            )
        if self.rng.random() < 0.1:
            table = tuple(float(v) if to.is_float else bool(v) if to.kind == "b" else int(v) for v in sample(self.numbers, to, (5,)))
            return OPS["lookup"](x if x.dtype is i64 else OPS["cast"](x, dtype=i64), table=table, dtype=to)
        return OPS["cast"](x, dtype=to)

    def transpose(self) -> Node | None:
        x = self.pick(lambda n: n.rank > 1)
        return x and OPS["transpose"](x, axes=tuple(self.rng.sample(range(x.rank), x.rank)))

    def reshape(self) -> Node | None:
        r, x = self.rng, self.pick()
        if x is None:
            return None
        shape = list(x.shape)
        for _ in range(r.randint(1, 4)):
            kind = r.random()
            if kind < 0.3 and len(shape) > 1:
                k = r.randrange(len(shape) - 1)
                shape[k : k + 2] = [shape[k] * shape[k + 1]]
            elif kind < 0.6 and shape:
                k = r.randrange(len(shape))
                s = shape[k]
                divisors = [d for d in (2, 3, 4, 5, 7, 8, 13, 16) if isinstance(s, int) and s and s % d == 0]
                if divisors:
                    d = r.choice(divisors)
                    shape[k : k + 1] = [d, s // d] if r.random() < 0.5 else [s // d, d]
            elif kind < 0.75:
                shape.insert(r.randint(0, len(shape)), 1)
            elif kind < 0.9 and 1 in shape:
                shape.remove(1)
            else:
                r.shuffle(shape)
        return OPS["reshape"](x, shape=tuple(shape[:6])) if len(shape) <= 6 else None

    def broadcast(self) -> Node | None:
        r, x = self.rng, self.pick(lambda n: n.rank < 4)
        if x is None:
            return None
        shape, axes = [], []
        for s in x.shape:
            while r.random() < 0.3 and len(shape) < 4:
                shape.append(r.choice(self.sizes))
            axes.append(len(shape))
            shape.append(r.choice(self.sizes) if s == 1 and r.random() < 0.6 else s)
        while r.random() < 0.4 and len(shape) < 4:
            shape.append(r.choice(self.sizes))
        return OPS["broadcast"](x, shape=tuple(shape), axes=tuple(axes))

    def slice(self) -> Node | None:
        r, x = self.rng, self.pick(lambda n: n.rank > 0)
        if x is None:
            return None
        start, stop, step = [], [], []
        for s in x.shape:
            if isinstance(s, int) and s and r.random() < 0.7:
                a, b = sorted((r.randint(0, s - 1), r.randint(1, s)))
                k = r.choice((1, 1, 1, 2, 3, -1, -1, -2))
                a, b = (a, max(a, b)) if k > 0 else (max(b - 1, a), a - 1)
            elif r.random() < 0.3:
                k = -1
                a, b = s - 1, -1
            else:
                a, b, k = 0, s, r.choice((1, 1, 2)) if isinstance(s, Dim) else 1
            start.append(a)
            stop.append(b)
            step.append(k)
        return OPS["slice"](x, start=tuple(start), stop=tuple(stop), step=tuple(step))

    def pad(self) -> Node | None:
        r, x = self.rng, self.pick(lambda n: n.rank > 0)
        if x is None:
            return None
        low, high = (tuple(r.choice((0, 0, 1, 2, 5)) for _ in range(x.rank)) for _ in range(2))
        return OPS["pad"](x, self.like(Type(x.dtype, ())), low=low, high=high)

    def concat(self) -> Node | None:
        r, x = self.rng, self.pick(lambda n: n.rank > 0)
        if x is None:
            return None
        axis = r.randrange(x.rank)
        parts = [x]
        for _ in range(r.randint(0, 3)):
            s = r.choice((*self.sizes[:2], x.shape[axis]))
            parts.append(self.like(Type(x.dtype, (*x.shape[:axis], s, *x.shape[axis + 1 :]))))
        r.shuffle(parts)
        return OPS["concat"](*parts, axis=axis)

    def copy(self) -> Node | None:
        r, x = self.rng, self.pick()
        if x is None or r.random() < 0.5:
            return x and OPS["copy"](x)
        before = [n for n in (self.pick() for _ in range(r.randint(0, 2))) if n is not None]
        return OPS["optimization_barrier"](x, *before)

    def reduction(self) -> Node | None:
        r = self.rng
        op = r.choice([o for o in OPS.values() if o.kind == "reduction" and not (self.exact and o.name == "prod")])
        x = self.pick(lambda n: n.dtype in op.dtypes and n.rank > 0) or self.pick(lambda n: n.rank > 0)
        if x is None:
            return None
        x = x if x.dtype in op.dtypes else OPS["cast"](x, dtype=self.dtype(op.dtypes))
        axes = tuple(sorted(r.sample(range(x.rank), r.randint(0 if r.random() < 0.1 else 1, x.rank))))
        if op.name in ("argmax", "argmin") and any(x.shape[a] == 0 for a in axes):
            return None
        y = op(x, axes=axes)
        if r.random() < 0.5:  # what follows a reduction in practice: back to the shape it came from
            kept = tuple(d for d in range(x.rank) if d not in axes)
            self.pool.append(y)
            return OPS["broadcast"](y, shape=x.shape, axes=kept)
        return y

    def ordered(self) -> Node | None:
        r = self.rng
        op = r.choice([o for o in OPS.values() if o.kind == "ordered" and not (self.exact and o.name == "cumulative_prod")])
        x = self.pick(lambda n: n.rank > 0 and n.dtype in op.dtypes)
        if x is None:
            return None
        axis = r.randrange(x.rank)
        if "sort" in op.name:
            return op(x, axis=axis, descending=r.random() < 0.4) if isinstance(x.shape[axis], int) else None
        return op(x, axis=axis, reverse=r.random() < 0.4)

    def indices(self, shape: Sequence[Size]) -> Node:
        dtype = self.rng.choice([d for d in DTYPES.values() if d.is_int])
        return self.like(Type(dtype, tuple(shape)), "index")

    def indexed(self) -> Node | None:
        r, x = self.rng, self.pick(lambda n: n.rank > 0)
        if x is None:
            return None
        name = r.choice(("gather", "index", "take_along", "scatter", "scatter", "searchsorted"))
        axis = r.randrange(x.rank)
        if name == "searchsorted":
            if x.rank != 1 or not isinstance(x.shape[0], int):
                return None
            return OPS[name](
                OPS["sort"](x, axis=0, descending=False), self.like(Type(x.dtype, self.shape())), side=r.choice(("left", "right"))
            )
        if name == "take_along":
            return (
                None
                if x.shape[axis] == 0
                else OPS[name](x, self.indices((*x.shape[:axis], r.choice(self.sizes), *x.shape[axis + 1 :])), axis=axis)
            )
        where = self.shape(r.choice((0, 1, 1, 2)))
        if name == "gather":
            return None if x.shape[axis] == 0 else OPS[name](x, self.indices(where), axis=axis)
        axes = tuple(sorted(r.sample(range(x.rank), r.randint(1, min(x.rank, 2)))))
        if name == "index" and any(x.shape[a] == 0 for a in axes):
            return None
        ids = [self.indices(where) for _ in axes]
        if any(i.dtype is not ids[0].dtype for i in ids) and r.random() < 0.5:
            ids = [i if i.dtype is i64 else OPS["cast"](i, dtype=i64) for i in ids]
        if name == "index":
            return OPS[name](x, *ids, axes=axes)
        picked = OPS["index"].infer(x.type, *(i.type for i in ids), axes=axes)
        if self.elements(picked.shape) > 2000:
            return None
        modes = ("set", "max", "min") if x.dtype.kind == "b" else ("set", "add", "max", "min", *(() if self.exact else ("multiply",)))
        return OPS[name](x, self.like(picked), *ids, axes=axes, mode=r.choice(modes))

    def contraction(self) -> Node | None:
        r, x = self.rng, self.pick(lambda n: n.rank > 0)
        if x is None:
            return None
        if self.exact and x.dtype.is_float and x.dtype.bits == 16:
            return None
        dims = list(range(x.rank))
        r.shuffle(dims)
        cut = r.choice((0, 1, 1, 1, 1, 2))
        lc = dims[:cut]
        lb = dims[cut : cut + r.choice((0, 0, 0, 1, 1, 2))]
        free = [r.choice(self.sizes) for _ in range(r.choice((0, 1, 1, 1, 2)))]
        labels: list[Any] = [*(("c", d) for d in lc), *(("b", d) for d in lb), *(("f", k) for k in range(len(free)))]
        r.shuffle(labels)
        shape = tuple(free[k] if kind == "f" else x.shape[k] for kind, k in labels)
        rc = tuple(labels.index(("c", d)) for d in lc)
        rb = tuple(labels.index(("b", d)) for d in lb)
        if self.elements(shape) > self.largest:
            return None
        y = self.like(Type(x.dtype, shape))
        work = self.elements(OPS["dot"].infer(x.type, y.type, contract=(tuple(lc), rc), batch=(tuple(lb), rb)).shape)
        if work * self.elements([x.shape[d] for d in lc]) > 1 << 21:
            return None
        return OPS["dot"](x, y, contract=(tuple(lc), rc), batch=(tuple(lb), rb))

    def composite(self) -> Node | None:
        r = self.rng
        x = self.pick(lambda n: n.dtype.is_float and n.rank > 0 and all(s != 0 for s in n.shape))
        if x is None or self.exact:
            return None
        name = r.choice(
            ("softmax", "log_softmax", "logsumexp", "layer_norm", "rms_norm", "standardize", "variance", "cross_entropy",
             "sigmoid_cross_entropy", "attention")
        )
        axes = tuple(sorted(r.sample(range(x.rank), r.choice((1, 1, min(2, x.rank))))))
        if name in ("softmax", "log_softmax", "logsumexp", "variance"):
            return OPS[name](x, axes=axes)
        if name == "standardize":
            return OPS[name](x, axes=axes, eps=1e-3)
        if name in ("layer_norm", "rms_norm"):
            scale = Type(x.dtype, tuple(x.shape[a] for a in axes))
            more = [self.like(scale) for _ in range(2 if name == "layer_norm" else 1)]
            return OPS[name](x, *more, axes=axes, eps=r.choice((1e-5, 1e-3)))
        if name == "cross_entropy":
            return OPS[name](x, self.indices(x.shape[:-1]))
        if name == "sigmoid_cross_entropy":
            return OPS[name](x, self.like(x.type))
        if x.rank < 2:
            return None
        keys, width = r.choice(self.sizes), r.choice(self.sizes)
        if keys == 0 or isinstance(x.shape[-1], Dim) or isinstance(x.shape[-2], Dim) != isinstance(keys, Dim):
            return None
        k = self.like(Type(x.dtype, (*x.shape[:-2], keys, x.shape[-1])))
        v = self.like(Type(x.dtype, (*x.shape[:-2], keys, width)))
        scores = (*x.shape[:-1], keys)
        if self.elements(scores) > self.largest:
            return None
        mask = [self.like(Type(r.choice((DTYPES["bool"], x.dtype)), scores))] if r.random() < 0.4 else []
        return OPS[name](x, k, v, *mask, causal=r.random() < 0.4, scale=r.choice((None, 0.25)))

    def window(self) -> Node | None:
        r = self.rng
        name = r.choice(("slide", "conv", "conv", "max_pool", "sum_pool", "avg_pool", "local_response_norm", "resample"))
        inexact = name in ("avg_pool", "local_response_norm")
        x = self.pick(lambda n: n.rank > 0 and n.dtype.kind != "b" and (n.dtype.is_float or not inexact) and all(s != 0 for s in n.shape))
        if x is None or (inexact and self.exact):
            return None
        if name == "local_response_norm":
            return OPS[name](x, radius=r.randint(0, 2), alpha=0.25, beta=r.choice((0.5, 0.75)), k=1.0)
        if name == "conv":
            return self.convolution(x)
        known = [d for d, s in enumerate(x.shape) if isinstance(s, int)]
        if not known:
            return None
        axis = r.choice(known)
        size = x.shape[axis]
        if name == "resample":
            linear = x.dtype.is_float and not self.exact and r.random() < 0.5
            count = r.choice((1, 2, 3, 5, 8, 13))
            return OPS[name](x, axis=axis, count=count, method="bilinear" if linear else "nearest", adjoint=linear and r.random() < 0.5)
        k, stride = r.randint(1, 3), r.randint(1, 3)
        if name == "slide":
            many = OPS["broadcast"](x, shape=(k, *x.shape), axes=tuple(range(1, x.rank + 1)))
            dilation = r.choice((1, 2, -1))
            start = max(0, (1 - k) * dilation)
            count = max(0, (size - start - max(0, (k - 1) * dilation) - 1) // stride + 1)
            return OPS[name](many, axes=(axis + 1,), windows=(0,), start=(start,), stride=(stride,), dilation=(dilation,), count=(count,))
        padding = (r.randint(0, 2), r.randint(0, 2))
        if size + sum(padding) < k or self.elements(x.shape) * k > self.largest:
            return None
        more = {"count_include_pad": r.random() < 0.5} if inexact else {}
        return OPS[name](x, axes=(axis,), window=(k,), stride=(stride,), padding=(padding,), **more)

    def convolution(self, x: Node) -> Node | None:
        r = self.rng
        if not 3 <= x.rank <= 4 or not all(isinstance(s, int) for s in x.shape[1:]) or (self.exact and x.dtype.bits == 16):
            return None
        k, channels = x.rank - 2, x.shape[-1]
        groups = r.choice((1, 1, channels, next((g for g in (2, 3) if channels % g == 0), 1)))
        attrs = {name: tuple(r.choice((1, 1, 2, 3)) for _ in range(k)) for name in ("stride", "base", "dilation")}
        attrs["padding"] = tuple((r.randint(-1, 2), r.randint(0, 2)) for _ in range(k))
        window = tuple(r.randint(1, 3) for _ in range(k))
        spans = [(n - 1) * b + 1 + sum(p) - (w - 1) * d for n, b, p, w, d in zip(
            x.shape[1:-1], attrs["base"], attrs["padding"], window, attrs["dilation"], strict=True)]
        if min(spans) < 1 or self.elements((x.shape[0], *spans, channels)) * 27 > self.largest * 4:
            return None
        w = self.like(Type(x.dtype, (*window, channels // groups, groups * r.choice((1, 2, 5)))))
        y = OPS["conv"](x, w, **attrs, groups=groups)
        return y if r.random() < 0.6 else OPS["conv_weights"](x, self.like(y.type), window=window, **attrs, groups=groups)

    WEIGHTS = {
        "elementwise": 10,
        "cast": 2,
        "transpose": 2,
        "reshape": 3,
        "broadcast": 3,
        "slice": 3,
        "pad": 2,
        "concat": 2,
        "copy": 1,
        "reduction": 5,
        "ordered": 2,
        "indexed": 3,
        "contraction": 3,
        "composite": 2,
        "window": 2,
    }

    def write(self, length: int) -> Graph:
        r = self.rng
        for _ in range(r.randint(1, 3)):
            self.pool.append(self.new(Type(self.dtype(), self.shape())))
        names, weights = list(self.WEIGHTS), list(self.WEIGHTS.values())
        if r.random() < 0.4:  # a graph of a few kinds
            weights = [w if r.random() < 0.4 else 0 for w in weights]
            weights[0] = weights[0] or 3
        tries = 0
        made = 0
        while made < length and tries < 6 * length:
            tries += 1
            before = len(self.params)
            try:
                n = getattr(self, r.choices(names, weights)[0])()
            except XlcError:  # a combination that the type rule refuses
                del self.params[before:], self.flavours[before:]
                self.pool = [m for m in self.pool if m.op.name != "parameter" or m in self.params]
                continue
            if n is None or self.elements(n.shape) > self.largest:
                continue
            self.pool.append(n)
            made += 1
        used: set[Node] = {a for n in self.pool for a in n.args}
        ends = [n for n in self.pool if n not in used]
        results = ends[-r.randint(1, 4) :] + r.sample(self.pool, min(len(self.pool), r.choice((0, 0, 0, 1, 2))))
        graph = Graph((), tuple(results), "fuzz")
        needed = set(graph.nodes())
        kept = [k for k, p in enumerate(self.params) if p in needed or r.random() < 0.2]
        self.flavours = [self.flavours[k] for k in kept]
        return Graph(tuple(self.params[k] for k in kept), tuple(results), "fuzz")


def random_graph(seed: int) -> Case:
    """The graph and the arguments that belong to a seed."""
    r = random.Random(seed * 7919 + 13)
    exact, symbolic = r.random() < 0.55, r.random() < 0.3
    large = not symbolic and r.random() < 0.08
    writer = _Writer(seed, exact, symbolic, "any" if not exact and r.random() < 0.35 else "small", large)
    graph = writer.write(r.choice((1, 2, 3, 5) if large else (1, 2, 3, 5, 8, 13, 20, 40)))
    names = sorted(frozenset().union(*(p.type.names for p in graph.params), *(n.type.names for n in graph.nodes())))
    lone = {str(s) for p in graph.params for s in p.shape if isinstance(s, Dim)}
    params = list(graph.params)
    for name in names:
        if name not in lone:  # a size is read from an argument
            params.append(parameter(Type(DTYPES["f32"], (Dim.named(name),)), f"size_{name}", len(params)))
            writer.flavours.append("small")
    if len(params) != len(graph.params):
        graph = Graph(tuple(params), graph.results, graph.name)
    runs = []
    for env in ENVIRONMENTS if names else ({},):
        arrays = [
            sample(writer.numbers, p.dtype, [evaluate(s, env) for s in p.shape], f) for p, f in zip(params, writer.flavours, strict=True)
        ]
        runs.append(({k: env[k] for k in names}, arrays))
    return Case(graph, runs)
