"""Tests generated from the operator table: every operator's type rule, oracle, pull, monoid and decomposition, on every dtype it admits."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import op_cases as cases
import pytest
import scipy.special as special
from op_cases import CASES, ELEMENTWISE, TENSOR, Case, known_faults, type_of  # noqa: F401

from xlc.errors import XlcError
from xlc.ir.loops import LOAD, Buffer, Expr, const, expr, load, var, walk
from xlc.ir.node import Graph, apply, parameter
from xlc.ir.op import OPS, Op, lookup
from xlc.ir.types import DTYPES, Dim, DType, Type, bf16, bool_, dtype_of, evaluate, f16, f32, f64, i64

MANDATORY = {
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "negative", "abs", "sqrt", "floor", "ceil", "trunc", "round",
    "minimum", "maximum", "fma", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "bitwise_and", "bitwise_or",
    "bitwise_xor", "bitwise_not", "bitwise_left_shift", "bitwise_right_shift", "where", "cast", "bitcast", "lookup"}
INTEGER_ONLY = {"floor_divide", "remainder"}


def ordinal(a: np.ndarray) -> np.ndarray:
    """Floats as integers in the order of their values, both zeros 0; nan is a number of its own."""
    word = np.ascontiguousarray(a).view(f"i{a.dtype.itemsize}").astype(object).reshape(a.shape)
    low = -(1 << (8 * a.dtype.itemsize - 1))
    order = np.where(word < 0, low - word, word)
    return np.where(np.isnan(a.astype(np.float64)), 1 << 80, order)


def same(found: np.ndarray, expected: np.ndarray, ulps: int = 0) -> None:
    """Equal up to ``ulps`` (with 0, the sign of zero counts, too)."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if not dtype_of(found.dtype).is_float:
        assert np.array_equal(found, expected), (found, expected)
        return
    distance = np.abs(ordinal(found) - ordinal(expected))
    if distance.size:
        worst = np.unravel_index(np.argmax(distance), distance.shape)
        assert distance[worst] <= ulps, (distance[worst], found[worst], expected[worst], worst)
    if ulps == 0:
        number = expected == expected
        assert np.array_equal(np.signbit(found)[number], np.signbit(expected)[number])


# ------------------------------------------------------------------------------------------------ the table itself


def test_every_tensor_operator_has_cases() -> None:
    assert {op.name for op in TENSOR} == set(CASES)


def test_mandatory_operators_are_those_without_a_decomposition() -> None:
    assert {op.name for op in ELEMENTWISE if op.decompose is None} | INTEGER_ONLY == MANDATORY


@pytest.mark.parametrize("op", ELEMENTWISE + TENSOR, ids=lambda op: op.name)
def test_declarations_are_complete(op: Op) -> None:
    assert op.infer is not None and op.numpy is not None and op.dtypes
    if op.kind == "elementwise":
        assert op.scalar is not None and op.arity
    if op.kind in ("view", "create") or (op.kind == "indexed" and op.name != "scatter"):
        assert op.pull is not None
    if op.kind == "reduction" or op.name.startswith("cumulative"):
        assert op.monoid is not None
    if op.kind == "composite":
        assert op.decompose is not None


@pytest.mark.parametrize("folder", ["backends", "schedule", "run", "ir"])
def test_one_declaration(folder: str) -> None:
    """An operator that is not mandatory is named nowhere between the table and the machine code."""
    names = "|".join(re.escape(op.name) for op in ELEMENTWISE if op.name not in MANDATORY)
    quoted = re.compile(f"[\"']({names})[\"']")
    root = Path(__file__).parents[1] / "xlc" / folder
    found = {(p.name, hit) for p in root.rglob("*.py") for hit in quoted.findall(p.read_text())}
    # (index arithmetic knows the algebra of truth values under both names)
    found = {(p, hit) for p, hit in found if not hit.startswith("logical_")}
    # (an online softmax rests on what exp alone does: exp(a + b) = exp(a) exp(b))
    found -= {("window.py", "exp"), ("online.py", "exp2_approx"), ("online.py", "fmax")}
    # (a backend's table lists what its hardware has)
    assert not {hit for hit in found if hit[0] != "scalar.py"}


# ------------------------------------------------------------------------------------------------ types and oracles


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_elementwise_types(op: Op) -> None:
    for dtype in op.dtypes:
        for attrs in cases.elementwise_attrs(op, dtype):
            for shape in cases.SHAPES:
                args = cases.elementwise_arguments(op, dtype, shape)
                out = np.asarray(op.numpy(*args, **attrs))
                assert op.infer(*map(type_of, args), **attrs) == type_of(out), (dtype, shape, attrs)
            assert op.scalar is not None
            assert op.scalar(*(dtype_of(a.dtype) for a in args), **attrs) == dtype_of(out.dtype)


@pytest.mark.parametrize("op", TENSOR, ids=lambda op: op.name)
def test_tensor_types(op: Op) -> None:
    for case in CASES[op.name]:
        for dtype in cases.dtypes(op, case):
            args = cases.arguments(case, dtype)
            out = np.asarray(op.numpy(*args, **case.attrs))
            assert op.infer(*map(type_of, args), **case.attrs) == type_of(out), (dtype, case)


SECOND_OPINION: dict[str, Any] = {
    "erf": special.erf, "erfc": special.erfc, "expit": special.expit, "rsqrt": lambda x: np.sqrt(1 / x),
    "gelu": lambda x: x * special.ndtr(x),
    "silu": lambda x: x * special.expit(x), "softplus": lambda x: special.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), "exp": np.exp, "log": np.log,
    "cbrt": special.cbrt,
    "exp2": special.exp2, "log1p": special.log1p, "expm1": special.expm1, "sin": np.sin, "tan": np.tan, "pow": np.power,
    "atan2": np.arctan2,
    "hypot": lambda x, y: np.sqrt(x * x + y * y), "logaddexp": lambda x, y: special.logsumexp(np.stack([x, y]), axis=0)}


@pytest.mark.parametrize("name", sorted(SECOND_OPINION))
def test_functions_against_scipy(name: str) -> None:
    op = lookup(name)
    for dtype in (f64, f32):
        args = cases.elementwise_arguments(op, dtype, (200,))
        expected = SECOND_OPINION[name](*(a.astype(np.float64) for a in args))
        np.testing.assert_allclose(op.numpy(*args).astype(np.float64), expected, rtol=1e-13 if dtype is f64 else 1.2e-7, atol=1e-14)


@pytest.mark.parametrize("dtype", [f16, bf16, f32], ids=str)
def test_oracle_casts_round_once(dtype: DType) -> None:
    """f64 -> narrower against rounding by exact rational arithmetic: just above, at and just below every kind of tie."""
    digits = {"f16": 11, "bf16": 8, "f32": 24}[dtype.name]
    rng = np.random.default_rng(1)
    ties = (rng.integers(1 << (digits - 1), 1 << digits, 500) + 0.5) * 2.0 ** (1 - digits)
    values = np.concatenate([ties, np.nextafter(ties, 9), np.nextafter(ties, 0), -ties, [0.0, -0.0, 1e300, -1e300, np.inf, np.nan, 1e-300]])
    found = lookup("cast").numpy(values, dtype=dtype)
    with mpmath.workprec(digits):
        expected = [float(+mpmath.mpf(v)) if 1e-30 < abs(v) < 1e30 else v for v in values]
    same(found, np.asarray(expected).astype(np.float32).astype(dtype.numpy))


def test_oracle_casts_to_integers_saturate() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 2.9, -2.9, 255.5, 1e30, -1e30, 9.3e18, 1.85e19])
    for dtype in (d for d in DTYPES.values() if d.is_int):
        info = np.iinfo(dtype.numpy)
        exact = [0 if v != v else info.max if v > info.max else info.min if v < info.min else int(v) for v in values]
        assert lookup("cast").numpy(values, dtype=dtype).tolist() == exact


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_oracle_of_fma_rounds_once(dtype: DType) -> None:
    rng = np.random.default_rng(2)
    a, b = ((rng.random(400) + 1).astype(dtype.numpy) for _ in range(2))
    near = -(a * b).astype(dtype.numpy)
    tiny = (rng.standard_normal(400) * 2.0 ** rng.integers(-60, -20, 400)).astype(dtype.numpy)
    for c in (near, tiny, np.ones_like(a)):
        with mpmath.workprec(300):
            exact = [mpmath.mpf(float(x)) * mpmath.mpf(float(y)) + mpmath.mpf(float(z)) for x, y, z in zip(a, b, c, strict=True)]
        with mpmath.workprec(24 if dtype is f32 else 53):
            expected = np.array([float(+v) for v in exact]).astype(dtype.numpy)
        same(lookup("fma").numpy(a, b, c) + dtype.numpy.type(0), expected + dtype.numpy.type(0))


def test_integer_corner_cases() -> None:
    for dtype in (d for d in DTYPES.values() if d.is_int):
        info, t = np.iinfo(dtype.numpy), dtype.numpy.type
        low, high = np.array([info.min]), np.array([info.max])
        x = np.array([7, 0, info.min, info.max], dtype.numpy)
        zero = np.zeros(4, dtype.numpy)
        assert not lookup("floor_divide").numpy(x, zero).any() and not lookup("remainder").numpy(x, zero).any()
        width = np.full(4, dtype.bits, dtype.numpy)
        assert not lookup("bitwise_left_shift").numpy(x, width).any()
        assert lookup("bitwise_right_shift").numpy(x, width).tolist() == [-1 if v < 0 else 0 for v in x.tolist()]
        assert lookup("add").numpy(high.astype(dtype.numpy), np.ones(1, dtype.numpy)).tolist() == [info.min]
        if dtype.kind == "i":
            minus = np.full(1, -1, dtype.numpy)
            lowest = low.astype(dtype.numpy)
            assert lookup("floor_divide").numpy(lowest, minus) == t(info.min) and lookup("abs").numpy(lowest) == t(info.min)
            assert lookup("pow").numpy(np.array([2, -1, -1, 1, 0], dtype.numpy),
                                       np.array([-1, -3, -2, -9, -1], dtype.numpy)).tolist() == [0, -1, 1, 1, 0]


# ------------------------------------------------------------------------------------------------ scalar expressions


def value_of(root: Expr, variables: dict[str, np.ndarray], buffers: dict[str, np.ndarray] | None = None,
             sizes: dict[str, int] | None = None) -> np.ndarray:
    """A tiny evaluator: variables are arrays (lanes); a load outside its buffer fails unless its mask is false."""
    memo: dict[Expr, np.ndarray] = {}
    for e in walk(root):
        args = [memo[a] for a in e.args]
        match e.op.name:
            case "const":
                memo[e] = np.asarray(e.value, e.dtype.numpy)
            case "var":
                memo[e] = variables[e["name"]]
            case "size":
                memo[e] = np.asarray((sizes or {})[e["name"]], np.int64)
            case "load":
                assert buffers is not None
                source = buffers[e["buffer"].name]
                *index, mask = args if e["masked"] else (*args, np.asarray(True))
                if not mask:
                    memo[e] = np.zeros((), source.dtype)
                    continue
                assert all(0 <= i < s for i, s in zip(index, source.shape, strict=True)), "a load out of bounds"
                memo[e] = np.asarray(source[tuple(int(i) for i in index)])
            case _:
                shape = np.broadcast_shapes(*(a.shape for a in args))
                memo[e] = np.asarray(e.op.numpy(*(np.broadcast_to(a, shape) for a in args), **dict(e.attrs)))
        assert dtype_of(memo[e].dtype) == e.dtype, (e.op, memo[e].dtype, e.dtype)
    return memo[root]


def native(e: Expr) -> bool:
    d = e.args[0].dtype
    return e.op.name in MANDATORY and not (e.op.name in INTEGER_ONLY and d.is_float)


def expanded(root: Expr) -> Expr:
    """The expression in mandatory operators alone."""
    memo: dict[Expr, Expr] = {}
    for e in walk(root):
        args = tuple(memo[a] for a in e.args)
        if e.op.kind == "input":
            memo[e] = e if e.op is not LOAD else expr(e.op, args, e.dtype, e.attrs)
        elif native(e):
            memo[e] = expr(e.op, args, e.dtype, e.attrs)
        else:
            assert e.op.decompose is not None
            memo[e] = expanded(e.op.decompose(*args, **dict(e.attrs)))
        assert memo[e].dtype == e.dtype, e.op
    return memo[root]


def special_values(dtype: DType) -> np.ndarray:
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        found = {v for v in (0, 1, 2, 3, 7, 63, 64, -1, -2, -3, info.min, info.min + 1, info.max,
                             info.max - 1) if info.min <= v <= info.max}
        return np.array(sorted(found)).astype(dtype.numpy) if dtype.kind == "i" else np.array(sorted(found), dtype.numpy)
    bits = 8 * dtype.numpy.itemsize
    least = np.array([1, 2, 3], f"u{bits // 8}").view(dtype.numpy)
    top = np.array([np.inf]).astype(dtype.numpy).view(f"u{bits // 8}") - 1
    some = np.array([0.0, 1.0, 0.5, 2.0, 3.0, 1.5, 7.25, 100.0, np.inf, np.nan]).astype(dtype.numpy)
    positive = np.concatenate([some, least, top.view(dtype.numpy)])
    return np.concatenate([positive, -positive])


# ulps allowed in f64, where the oracle itself is not exact; f32 gets 1, the 16-bit floats 0
LOOSE = {"rsqrt": 3, "gelu": 2000, "silu": 4, "gelu_tanh": 2000, "softplus": 4, "expit": 4, "logaddexp": 4, "erfc": 3}


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.decompose is not None], ids=lambda op: op.name)
def test_decompositions(op: Op) -> None:
    assert op.decompose is not None
    for dtype in op.dtypes:
        if op.name in INTEGER_ONLY and dtype.is_int:
            continue
        drawn = [list(x) for x in cases.elementwise_arguments(op, dtype, (60,))]
        edges = special_values(dtype)
        grid = [g.reshape(-1) for g in np.meshgrid(*[edges] * len(drawn), indexing="ij")]
        args = [np.concatenate([np.array(d, dtype.numpy), g]) for d, g in zip(drawn, grid, strict=True)]
        if op.name in ("sin", "cos", "tan", "logaddexp", "atan2", "pow") and dtype is f64:
            args = [np.where(np.abs(a) < 1e300, a, 1.0) for a in args]  # NumPy itself is off there
        names = [f"x{k}" for k in range(len(args))]
        scalar = op(*(var(name, dtype) for name in names))
        found = value_of(expanded(scalar), dict(zip(names, args, strict=True)))
        expected = np.asarray(op.numpy(*args))
        found = np.broadcast_to(found, expected.shape)
        ulps = 0 if op.exact or dtype in (f16, bf16) or not dtype.is_float else 1 if dtype is f32 else LOOSE.get(op.name, 2)
        try:
            same(found, expected, ulps)
        except AssertionError as error:
            raise AssertionError(f"{op.name} on {dtype}: {error}") from None


def test_repeated_squaring_of_i64_stays_small() -> None:
    x, k = var("x", i64), var("k", i64)
    values = np.array([3, -3, 2, 7, 0, 1, -1], np.int64)
    powers = np.array([13, 41, 63, 0, 0, -5, -5], np.int64)
    found = value_of(expanded(lookup("pow")(x, k)), {"x": values, "k": powers})
    assert found.tolist() == [((int(v) ** int(p) + (1 << 63)) % (1 << 64)) - (1 << 63) if p >= 0 else int(v)
                              for v, p in zip(values, powers, strict=True)]


# ------------------------------------------------------------------------------------------------ pull


def pulled(op: Op, types: list[Type], attrs: dict[str, Any], names: list[str]) -> tuple[Expr, Any]:
    """The scalar of ``op(*parameters)`` at the index of variables i0, i1, ..., and its node."""
    params = [parameter(t, f"p{k}", k) for k, t in enumerate(types)]
    node = apply(op, params, attrs) if params else Graph((), (_make(op, attrs),)).results[0]
    buffers = [Buffer(name, t.dtype, t.shape) for name, t in zip(names, types, strict=True)]

    def read(k: int, index: Any, where: Expr | None = None) -> Expr:
        return load(buffers[k], tuple(index), where)

    index = tuple(var(f"i{d}") for d in range(node.rank))
    assert op.pull is not None
    return op.pull(node, index, read), node


def _make(op: Op, attrs: dict[str, Any]) -> Any:
    from xlc.ir.node import make

    return make(op, (), op.infer(**attrs), attrs)


def check_pull(op: Op, args: list[np.ndarray], types: list[Type], attrs: dict[str, Any], expected: np.ndarray,
               sizes: dict[str, int]) -> None:
    names = [f"b{k}" for k in range(len(args))]
    scalar, _ = pulled(op, types, attrs, names)
    rng = np.random.default_rng(3)
    places = list(np.ndindex(expected.shape))
    for at in [places[k] for k in rng.permutation(len(places))[:24]]:
        variables = {f"i{d}": np.asarray(k, np.int64) for d, k in enumerate(at)}
        found = value_of(scalar, variables, dict(zip(names, args, strict=True)), sizes)
        same(np.asarray(found), np.asarray(expected[at]))


@pytest.mark.parametrize("op", [op for op in TENSOR if op.pull is not None], ids=lambda op: op.name)
def test_pull(op: Op) -> None:
    for case in CASES[op.name]:
        for dtype in [d for d in cases.dtypes(op, case) if d.name in ("f32", "i8", "bool", "bf16")] or [f32]:
            args = cases.arguments(case, dtype)
            check_pull(op, args, list(map(type_of, args)), case.attrs, np.asarray(op.numpy(*args, **case.attrs)), {})


SYMBOLIC = [(op, case) for op in TENSOR for case in CASES[op.name] if case.symbolic is not None]


def symbolic_types(case: Case, args: list[np.ndarray]) -> list[Type]:
    assert case.symbolic is not None
    return [Type(dtype_of(a.dtype), tuple(s)) for a, s in zip(args, case.symbolic[0], strict=True)]


@pytest.mark.parametrize("op,case", SYMBOLIC, ids=lambda v: v.name if isinstance(v, Op) else "")
def test_named_sizes(op: Op, case: Case) -> None:
    """The type and the pull with named sizes are those without, once the names have values."""
    assert case.symbolic is not None
    _, attrs, sizes = case.symbolic
    args = cases.arguments(case, f32 if f32 in op.dtypes else bool_)
    types = symbolic_types(case, args)
    expected = np.asarray(op.numpy(*args, **case.attrs))
    inferred = op.infer(*types, **attrs)
    assert any(isinstance(s, Dim) for t in (*types, inferred) for s in t.shape)
    assert Type(inferred.dtype, tuple(evaluate(s, sizes) for s in inferred.shape)) == type_of(expected)
    if op.pull is not None:
        check_pull(op, args, types, attrs, expected, sizes)


# ------------------------------------------------------------------------------------------------ monoids


def folded(op: Op, column: np.ndarray, order: list[int]) -> np.ndarray:
    """The reduction of a vector with its elements merged pairwise, in a tree over ``order``."""
    dtype, monoid = dtype_of(column.dtype), op.monoid
    assert monoid is not None
    cast = lookup("cast")
    init = monoid.init(dtype)

    def lifted(k: int) -> tuple[Expr, ...]:
        x = const(column[k] if not dtype.is_float else float(column[k]), dtype)
        return tuple(e if e.dtype == s.dtype else cast(e, dtype=s.dtype) for e, s in zip(monoid.lift(x, const(k)), init, strict=True))

    states = [monoid.merge(init, lifted(k)) for k in order] or [init]
    while len(states) > 1:
        states = [monoid.merge(*states[k:k + 2]) if k + 1 < len(states) else states[k] for k in range(0, len(states), 2)]
    return value_of(monoid.result(states[0]), {})


@pytest.mark.parametrize("op", [op for op in TENSOR if op.kind == "reduction"], ids=lambda op: op.name)
def test_monoids(op: Op) -> None:
    rng = np.random.default_rng(4)
    for dtype in op.dtypes:
        columns = [cases.draw(dtype, (size,), seed=size) for size in (0, 1, 2, 5, 8)]
        columns.append(np.array([1, 3, 3, 0, 3]).astype(dtype.numpy))
        if dtype.is_float:
            columns += [np.array(c).astype(dtype.numpy) for c in ([1, np.nan, 5, np.nan], [-np.inf] * 3, [np.inf, 1, np.inf], [-0.0, -0.0])]
        for column in columns:
            if not column.size and op.name.startswith("arg"):
                continue
            expected = np.asarray(op.numpy(column, axes=(0,)))
            in_order = list(range(column.size))
            orders = [in_order] if op.name in ("sum", "prod") else [in_order, list(map(int, rng.permutation(column.size)))]
            for order in orders:
                found = lookup("cast").numpy(folded(op, column, order), dtype=dtype_of(expected.dtype))
                ulps = 0 if op.exact or not dtype.is_float else 4
                same(np.asarray(found), expected, ulps or (1 if dtype.is_float and not op.exact else 0))


# ------------------------------------------------------------------------------------------------ misuse


def _of(name: str, *types: str, **attrs: Any) -> Any:
    return pytest.param(name, [Type.parse(t) for t in types], attrs, id=f"{name}({', '.join(types)})")


@pytest.mark.parametrize("name,types,attrs", [
    _of("add", "f32[3]", "f32[4]"), _of("add", "f32[3]", "f64[3]"), _of("add", "f32[3]"), _of("exp", "i32[3]"),
    _of("divide", "i32[3]", "i32[3]"),
    _of("bitwise_and", "f32[]", "f32[]"), _of("where", "f32[2]", "f32[2]", "f32[2]"), _of("where", "bool[2]", "f32[3]", "f32[3]"),
    _of("bitcast", "f32[2]", dtype=i64), _of("sum", "f32[3,4]", axes=(2,)), _of("sum", "f32[3,4]", axes=(1, 0)),
    _of("sum", "f32[3]", axes=(0, 0)),
    _of("any", "f32[3]", axes=(0,)), _of("cumulative_sum", "f32[3]", axis=1, reverse=False), _of("reshape", "f32[3,4]", shape=(5,)),
    _of("reshape", "f32[n,4]", shape=(5,)), _of("transpose", "f32[3,4]", axes=(0, 0)), _of("broadcast", "f32[3]", shape=(4,), axes=(0,)),
    _of("broadcast", "f32[3]", shape=(3,), axes=()), _of("slice", "f32[3]", start=(0,), stop=(5,), step=(1,)),
    _of("slice", "f32[3]", start=(0,), stop=(3,), step=(0,)), _of("pad", "f32[3]", "f64[]", low=(1,), high=(1,)),
    _of("pad", "f32[3]", "f32[]", low=(-1,), high=(1,)), _of("concat", "f32[3]", "f32[3,1]", axis=0),
    _of("concat", "f32[3,2]", "f32[4,2]", axis=1),
    _of("gather", "f32[3]", "f32[2]", axis=0), _of("gather", "f32[3]", "i64[2]", axis=1), _of("gather", "f32[0]", "i64[2]", axis=0),
    _of("index", "f32[0]", "i64[2]", axes=(0,)),
    _of("dot", "f32[3,4]", "f32[4,3]", contract=((1, 1), (0, 0)), batch=((), ())), _of("searchsorted", "f32[n]", "f32[2]", side="middle"),
    _of("index", "f32[3,3]", "i64[2]", "i64[3]", axes=(0, 1)),
    _of("take_along", "f32[3,4]", "i64[2,4]", axis=1), _of("scatter", "f32[3]", "f32[2]", "i64[2]", axes=(0,), mode="divide"),
    _of("scatter", "f32[3]", "f32[3]", "i64[2]", axes=(0,), mode="add"), _of("sort", "f32[3]", axis=1),
    _of("searchsorted", "f32[3,3]", "f32[2]", side="left"),
    _of("dot", "f32[3,4]", "f32[3,4]", contract=((1,), (0,)), batch=((), ())),
    _of("dot", "f32[3,4]", "f64[4,4]", contract=((1,), (0,)), batch=((), ())),
    _of("softmax", "i32[3]", axes=(0,)), _of("layer_norm", "f32[3,4]", "f32[3]", "f32[4]", axes=(1,), eps=1e-5),
    _of("cross_entropy", "f32[3,4]", "i64[4]"), _of("cross_entropy", "f32[3,4]", "f32[3]"),
    _of("attention", "f32[2,3,4]", "f32[2,5,3]", "f32[2,5,4]", causal=False, scale=None),
])
def test_misuse_is_explained(name: str, types: list[Type], attrs: dict[str, Any]) -> None:
    with pytest.raises(XlcError) as error:
        OPS[name].infer(*types, **attrs)
    assert len(str(error.value)) > 20 and isinstance(error.value, (TypeError, ValueError, IndexError))


def test_sort_puts_nan_last_and_is_stable() -> None:
    for dtype in cases.FLOATS:
        x = np.array([2, np.nan, -0.0, 0.0, -np.inf, 2]).astype(dtype.numpy)
        assert lookup("argsort").numpy(x, axis=0).tolist() == [4, 2, 3, 0, 5, 1]
        assert math.isnan(float(lookup("sort").numpy(x, axis=0)[-1]))


def test_searching_an_empty_array_of_named_size_reads_nothing() -> None:
    a, v = np.zeros(0), np.array([1.0])
    check_pull(lookup("searchsorted"), [a, v], [Type(f64, (cases.n,)), type_of(v)], {"side": "left"}, np.array([0]), {"n": 0})


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_small_known_powers_are_products(dtype: DType) -> None:
    x = cases.draw(dtype, (200,))
    for n in (1, 2, 3, 4):
        found = value_of(expanded(lookup("pow")(var("x", dtype), float(n))), {"x": x})
        np.testing.assert_array_max_ulp(found, (x.astype(np.longdouble) ** n).astype(dtype.numpy), 2)
