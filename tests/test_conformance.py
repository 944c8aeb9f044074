"""Every operator of the table, in every dtype and several shapes, on every backend: the compiled program against the interpreter.

Many operators are the results of one program, so that there are few compilations; each operator still is a kernel of its own or
fused with its neighbours, as ``fuse`` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from cuda_backend import CHIPS, DEVICES, ON_GPU, check_resources
from fuzz_graphs import sample
from fuzz_oracle import Expected

import xlc.ops  # noqa: F401  (fills the table)
from xlc.ir.node import Graph, Node, constant, full, parameter
from xlc.ir.op import OPS, Op
from xlc.ir.types import DTYPES, DType, Type
from xlc.pipeline import compile_graph

BACKENDS = DEVICES if ON_GPU else ("cpu", *DEVICES, *CHIPS)
SHAPES = ((), (0,), (1,), (7,), (5, 33), (3, 1, 17))
SPECIALS = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-3, 88.0, -104.0, 3e4, 1.0, -1.0, 0.5, 2.5, -2.5)


class Program:
    """A graph that grows, and the arguments of its parameters."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.params: list[Node] = []
        self.arrays: list[np.ndarray] = []
        self.results: list[Node] = []

    def argument(self, array: np.ndarray, dtype: DType) -> Node:
        p = parameter(Type(dtype, array.shape), f"x{len(self.params)}", len(self.params))
        self.params.append(p)
        self.arrays.append(array)
        return p

    def value(self, dtype: DType, shape: Sequence[int], flavour: str = "any") -> Node:
        return self.argument(sample(self.rng, dtype, tuple(shape), flavour), dtype)

    def add(self, op: Op, *args: Node, **attrs: Any) -> None:
        self.results.append(op(*args, **attrs))

    def check(self, backend: str, fuse: bool) -> None:
        graph = Graph(tuple(self.params), tuple(self.results), "conformance")
        program = compile_graph(graph, fuse=fuse, device=backend)
        if backend in CHIPS:
            check_resources(program)
            return
        got = program.run([a.copy() for a in self.arrays])
        names = [f"{r.op.name} {r.attributes} on {', '.join(str(a.type) for a in r.args)}" for r in graph.results]
        wrong = Expected(graph, self.arrays).check(got)
        where = next((names[int(word)] for word in (wrong or "").split()[1:2] if word.isdigit()), "")
        assert wrong is None, f"{wrong}: {where}"


def _samples(op: Op, k: int, dtype: DType, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Values in the operator's interval, and, of floats, the special ones."""
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    low, high = op.samples[k] if k < len(op.samples) else (-4.0, 4.0)
    if dtype.is_int:
        x = rng.integers(0 if dtype.kind == "u" else int(min(low, 0)), int(high) + 3, shape)
        ends = np.iinfo(dtype.numpy)
        wide = np.where(
            rng.integers(0, 5, shape) == 0,
            np.where(rng.integers(0, 2, shape) == 0, ends.min, ends.max).astype(dtype.numpy),
            x.astype(dtype.numpy),
        )
        return np.asarray(wide).astype(dtype.numpy)
    x = rng.uniform(low, high, shape)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(rng.integers(0, 4, shape) == 0, rng.choice(SPECIALS, shape), x)).astype(dtype.numpy)


ELEMENTWISE = [op for op in OPS.values() if op.kind == "elementwise" and op.name not in ("cast", "bitcast", "lookup", "where")]
CASES = [(backend, fuse) for backend in BACKENDS for fuse in (True, False) if fuse or backend not in CHIPS]


def everywhere(dtypes: Sequence[DType]) -> Any:
    """Each of these dtypes on each backend, fused and not."""
    cases = [(b, f, d) for b, f in CASES for d in dtypes]
    ids = [f"{b}-{'fused' if f else 'separate'}-{d}" for b, f, d in cases]
    return pytest.mark.parametrize(("backend", "fuse", "dtype"), cases, ids=ids)


every_dtype = everywhere(list(DTYPES.values()))


@every_dtype
def test_elementwise(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    for op in ELEMENTWISE:
        if dtype in op.dtypes:
            for shape in ((67,), ()) if fuse else ((3, 1, 17), (0,)):
                args = [p.argument(_samples(op, k, dtype, shape, p.rng), dtype) for k in range(op.arity or 1)]
                p.add(op, *args)
    p.check(backend, fuse)


@every_dtype
def test_where_cast_bitcast_lookup(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    for shape in SHAPES:
        x = p.value(dtype, shape)
        p.add(OPS["where"], p.value(DTYPES["bool"], shape), x, p.value(dtype, shape))
        for to in DTYPES.values():
            p.add(OPS["cast"], x, dtype=to)
            if to.bits == dtype.bits and "b" not in (to.kind, dtype.kind):
                p.add(OPS["bitcast"], x, dtype=to)
        table = tuple(v.item() for v in np.asarray(sample(p.rng, dtype, (9,)), np.float64 if dtype.is_float else None))
        p.add(OPS["lookup"], p.value(DTYPES["i64"], shape), table=table, dtype=dtype)
    p.check(backend, fuse)


@every_dtype
def test_views(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    x, y, s, e = (p.value(dtype, shape) for shape in ((4, 5, 7), (4, 3, 7), (), (3, 0)))
    p.add(OPS["transpose"], x, axes=(2, 0, 1))
    p.add(OPS["transpose"], OPS["transpose"](x, axes=(1, 0, 2)), axes=(2, 1, 0))
    p.add(OPS["reshape"], x, shape=(10, 14))
    p.add(OPS["reshape"], OPS["transpose"](x, axes=(2, 1, 0)), shape=(140,))
    p.add(OPS["reshape"], s, shape=(1, 1))
    p.add(OPS["reshape"], e, shape=(0, 9))
    p.add(OPS["broadcast"], s, shape=(3, 2), axes=())
    p.add(OPS["broadcast"], OPS["slice"](x, start=(0, 2, 0), stop=(4, 3, 7), step=(1, 1, 1)), shape=(2, 4, 5, 7), axes=(1, 2, 3))
    p.add(OPS["slice"], x, start=(3, 0, 6), stop=(-1, 5, 0), step=(-1, 2, -2))
    p.add(OPS["slice"], x, start=(2, 0, 0), stop=(2, 5, 7), step=(1, 1, 1))
    p.add(OPS["pad"], x, s, low=(1, 0, 2), high=(0, 3, 0))
    p.add(OPS["pad"], e, s, low=(0, 2), high=(1, 0))
    p.add(OPS["concat"], x, y, x, axis=1)
    p.add(OPS["concat"], e, p.value(dtype, (3, 4)), e, axis=1)
    p.add(OPS["copy"], x)
    p.add(OPS["optimization_barrier"], x, OPS["negative"](y) if dtype in OPS["negative"].dtypes else y)
    p.add(OPS["full"], value=sample(p.rng, dtype, ())[()].item(), shape=(2, 3), dtype=dtype)
    p.add(OPS["iota"], shape=(3, 130), axis=1, dtype=dtype)
    p.results += [constant(sample(p.rng, dtype, (3, 5))), full(Type(dtype, ()), 1), x]
    p.check(backend, fuse)


def _reductions(dtype: DType) -> Iterator[Op]:
    return (op for op in OPS.values() if op.kind == "reduction" and dtype in op.dtypes)


@every_dtype
def test_reductions(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    cube, long, tall, one = (
        p.value(dtype, s, f) for s, f in (((3, 5, 17), "any"), ((2, 300), "small"), ((130, 7), "any"), ((1, 1), "any"))
    )
    for op in _reductions(dtype):
        for x, axes in (
            (cube, (0,)),
            (cube, (1,)),
            (cube, (2,)),
            (cube, (0, 2)),
            (cube, (1, 2)),
            (cube, (0, 1, 2)),
            (long, (1,)),
            (tall, (0,)),
            (one, (0,)),
            (cube, ()),
        ):
            p.add(op, x, axes=axes)
        if op.name not in ("argmax", "argmin"):
            p.add(op, p.value(dtype, (3, 0)), axes=(1,))
            p.add(op, p.value(dtype, (0, 3)), axes=(1,))
    p.check(backend, fuse)


@every_dtype
def test_ordered(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    x, one, none = p.value(dtype, (3, 17, 2)), p.value(dtype, (1,)), p.value(dtype, (0, 2))
    for op in OPS.values():
        if op.kind == "ordered" and dtype in op.dtypes:
            for option in ({"descending": False}, {"descending": True}) if "sort" in op.name else ({"reverse": False}, {"reverse": True}):
                for value, axis in ((x, 0), (x, 1), (x, 2), (one, 0), (none, 0), (none, 1)):
                    p.add(op, value, axis=axis, **option)
    line = (
        np.sort(sample(p.rng, dtype, (37,), "any"))
        if dtype.name != "bf16"
        else np.sort(sample(p.rng, DTYPES["f32"], (37,))).astype(dtype.numpy)
    )
    for side in ("left", "right"):
        p.add(OPS["searchsorted"], p.argument(line, dtype), p.value(dtype, (4, 5)), side=side)
        p.add(OPS["searchsorted"], p.value(dtype, (0,)), p.value(dtype, (3,)), side=side)
    p.check(backend, fuse)


@every_dtype
def test_indexed(backend: str, fuse: bool, dtype: DType) -> None:
    """Indices out of bounds on both sides: clamped when reading, dropped when writing."""
    p = Program()
    x = p.value(dtype, (4, 5, 6))
    for ids_type in (DTYPES["i64"], DTYPES["i8"], DTYPES["u64"], DTYPES["i32"]):
        ids, two = p.value(ids_type, (3,), "any"), p.value(ids_type, (2, 3), "index")
        p.add(OPS["gather"], x, ids, axis=1)
        p.add(OPS["gather"], x, two, axis=0)
        p.add(OPS["index"], x, two, p.value(ids_type, (2, 3), "index"), axes=(0, 2))
        p.add(OPS["take_along"], x, p.value(ids_type, (4, 9, 6), "any"), axis=1)
    i, j = (p.value(DTYPES["i32"], (7,), "index") for _ in range(2))
    for mode in ("set", "add", "multiply", "max", "min"):
        p.add(OPS["scatter"], x, p.value(dtype, (4, 7, 6)), i, axes=(1,), mode=mode)
        p.add(OPS["scatter"], x, p.value(dtype, (7, 5)), i, j, axes=(0, 2), mode=mode)
        p.add(OPS["scatter"], x, p.value(dtype, (5, 6)), p.value(DTYPES["u64"], (), "any"), axes=(0,), mode=mode)
    p.check(backend, fuse)


CONTRACTIONS: tuple[tuple[tuple[int, ...], tuple[int, ...], Any, Any], ...] = (
    ((7, 5), (5, 9), ((1,), (0,)), ((), ())),
    ((7, 5), (9, 5), ((1,), (1,)), ((), ())),
    ((5, 7), (5, 9), ((0,), (0,)), ((), ())),
    ((33, 65), (65, 50), ((1,), (0,)), ((), ())),
    ((5,), (5,), ((0,), (0,)), ((), ())),
    ((7, 5), (5,), ((1,), (0,)), ((), ())),
    ((5,), (5, 130), ((0,), (0,)), ((), ())),
    ((3,), (4,), ((), ()), ((), ())),
    ((), (3,), ((), ()), ((), ())),
    ((2, 7, 5), (2, 5, 9), ((2,), (1,)), ((0,), (0,))),
    ((7, 2, 5, 3), (5, 9, 3, 2), ((2, 3), (0, 2)), ((1,), (3,))),
    ((1, 5), (5, 1), ((1,), (0,)), ((), ())),
    ((0, 5), (5, 3), ((1,), (0,)), ((), ())),
    ((4, 0), (0, 3), ((1,), (0,)), ((), ())),
    ((2, 3), (2, 3), ((), ()), ((0, 1), (0, 1))),
    ((1, 64), (64, 64), ((1,), (0,)), ((), ())),
)


@every_dtype
def test_contractions(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    for left, right, contract, batch in CONTRACTIONS:
        p.add(OPS["dot"], p.value(dtype, left, "small"), p.value(dtype, right, "small"), contract=contract, batch=batch)
    p.add(OPS["dot"], p.value(dtype, (9, 40), "small"), constant(sample(p.rng, dtype, (40, 70))), contract=((1,), (0,)), batch=((), ()))
    p.check(backend, fuse)


@everywhere([d for d in DTYPES.values() if d.is_float])
def test_composites(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    x = p.value(dtype, (3, 4, 17), "small")
    q, k, v = (p.value(dtype, s, "small") for s in ((2, 5, 8), (2, 7, 8), (2, 7, 3)))
    for axes in ((2,), (0,), (1, 2)):
        for name in ("softmax", "log_softmax", "logsumexp", "variance"):
            p.add(OPS[name], x, axes=axes)
        p.add(OPS["standardize"], x, axes=axes, eps=1e-3)
    for axes, shape in (((2,), (17,)), ((1, 2), (4, 17)), ((0,), (3,))):
        scale, bias = p.value(dtype, shape, "small"), p.value(dtype, shape, "small")
        p.add(OPS["layer_norm"], x, scale, bias, axes=axes, eps=1e-5)
        p.add(OPS["rms_norm"], x, scale, axes=axes, eps=1e-6)
    p.add(OPS["cross_entropy"], x, p.value(DTYPES["i32"], (3, 4), "index"))
    p.add(OPS["sigmoid_cross_entropy"], x, p.value(dtype, (3, 4, 17), "small"))
    p.add(OPS["attention"], q, k, v, causal=False, scale=None)
    p.add(OPS["attention"], q, k, v, p.value(DTYPES["bool"], (2, 5, 7)), causal=True, scale=0.5)
    p.add(OPS["attention"], q, k, v, p.value(dtype, (2, 5, 7), "small"), causal=False, scale=None)
    p.check(backend, fuse)


WINDOWS = {"axes": (1, 2), "window": (2, 3), "stride": (2, 1), "padding": ((1, 0), (1, 2))}
CONVOLUTIONS = (  # x, w, padding, stride, base, dilation, groups
    ((3, 9, 9, 5), (3, 2, 5, 17), ((1, 1), (0, 1)), (1, 2), (1, 1), (2, 1), 1),
    ((2, 7, 6, 6), (2, 2, 3, 8), ((1, -1), (2, 0)), (1, 1), (2, 3), (1, 1), 2),
    ((2, 5, 6, 33), (3, 3, 1, 66), ((1, 1), (1, 1)), (2, 2), (1, 1), (1, 1), 33),
    ((5, 2, 3, 64), (1, 1, 64, 40), ((0, 0), (0, 0)), (1, 1), (1, 1), (1, 1), 1),
    ((2, 21, 1), (5, 1, 7), ((2, 2),), (1,), (1,), (1,), 1),
    ((0, 4, 4), (3, 4, 5), ((1, 1),), (1,), (1,), (1,), 1),
)


@everywhere([*(d for d in DTYPES.values() if d.is_float), DTYPES["i32"]])
def test_windows(backend: str, fuse: bool, dtype: DType) -> None:
    p = Program()
    for left, right, padding, stride, base, dilation, groups in CONVOLUTIONS:
        x, w = p.value(dtype, left, "small"), p.value(dtype, right, "small")
        attrs = {"padding": padding, "stride": stride, "base": base, "dilation": dilation, "groups": groups}
        y = OPS["conv"](x, w, **attrs)
        p.add(OPS["conv"], x, w, **attrs)
        p.add(OPS["conv_weights"], x, p.value(dtype, y.shape, "small"), window=right[:-2], **attrs)
    x = p.value(dtype, (3, 8, 9, 19), "small")
    p.add(OPS["max_pool"], x, **WINDOWS)
    p.add(OPS["sum_pool"], x, **WINDOWS)
    p.add(OPS["resample"], x, axis=2, count=5, method="nearest", adjoint=False)
    slides = {"axes": (1,), "windows": (2,), "start": (0,), "stride": (2,), "dilation": (1,), "count": (3,)}
    p.add(OPS["slide"], p.value(dtype, (2, 7, 3, 5), "small"), **slides)
    if dtype.is_float:
        p.add(OPS["avg_pool"], x, **WINDOWS, count_include_pad=False)
        p.add(OPS["local_response_norm"], x, radius=2, alpha=0.1, beta=0.75, k=1.5)
        for count, adjoint in ((17, False), (3, True)):
            p.add(OPS["resample"], x, axis=1, count=count, method="bilinear", adjoint=adjoint)
    p.check(backend, fuse)


def test_every_operator_is_covered() -> None:
    """An operator of a new kind or name has to be entered above (control flow: in test_control.py)."""
    named = {
        "where",
        "cast",
        "bitcast",
        "lookup",
        "transpose",
        "reshape",
        "broadcast",
        "slice",
        "pad",
        "concat",
        "copy",
        "optimization_barrier",
        "full",
        "iota",
        "constant",
        "parameter",
        "extent",
        "searchsorted",
        "gather",
        "index",
        "take_along",
        "scatter",
        "dot",
        "softmax",
        "log_softmax",
        "logsumexp",
        "variance",
        "standardize",
        "layer_norm",
        "rms_norm",
        "cross_entropy",
        "sigmoid_cross_entropy",
        "attention",
        "slide",
        "conv",
        "conv_weights",
        "max_pool",
        "sum_pool",
        "avg_pool",
        "local_response_norm",
        "resample",
        "const",
        "var",
        "size",
        "load",
    }
    by_kind = {op.name for op in OPS.values() if op.kind in ("reduction", "ordered", "control")} | {op.name for op in ELEMENTWISE}
    assert set(OPS) - named - by_kind == set()




@pytest.mark.parametrize(
    ("dtype", "wide"), [("bf16", "f32"), ("f16", "f32"), ("i8", "i32"), ("u8", "i64"), ("i16", "i32"), ("i32", "i64"), ("f32", "f64")]
)
def test_nothing_is_written_beside_a_row(dtype: str, wide: str) -> None:
    """Rows of odd lengths, in place: what a store spills over its row is what the next row reads. (LLVM 22 stores too much under a mask of
    one lane when the value is a truncation.)"""
    from xlc.ir.parse import parse_graph

    for n in (1, 3, 9, 15, 17, 31, 33, 65):
        graph = parse_graph(f"""graph rows(%x: {dtype}[39,3,{n}], %y: {wide}[39,{n}], %s: {dtype}[3]) {{
          %0: {wide}[39,3,{n}] = cast(%x) {{dtype={wide}}}
          %1: {wide}[3] = cast(%s) {{dtype={wide}}}
          %2: {wide}[39,3,{n}] = broadcast(%1) {{axes=(1,), shape=(39, 3, {n})}}
          %3: {wide}[39,3,{n}] = broadcast(%y) {{axes=(0, 2), shape=(39, 3, {n})}}
          %4: {wide}[39,3,{n}] = multiply(%0, %3)
          %5: {wide}[39,3,{n}] = multiply(%4, %2)
          %6: {dtype}[39,3,{n}] = cast(%5) {{dtype={dtype}}}
          return %6 }}""")
        program = compile_graph(graph, donate=(0,))
        assert program.plan.donated
        d, w = DTYPES[dtype].numpy, DTYPES[wide].numpy
        got = program.run([np.full((39, 3, n), 2, d), np.full((39, n), 3, w), np.array([1, 2, 3], d)])[0]
        np.testing.assert_array_equal(got.astype(np.float64), np.broadcast_to(np.array([[6], [12], [18]]), (39, 3, n)))
