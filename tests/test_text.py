"""Graphs, kernels and plans print and parse back; the file tests of passes; the verifiers of graphs and kernels.

A file in ``tests/golden`` is ``# <passes>``, an input, a line ``# ->`` and the expected output, which ``pytest --update-golden`` rewrites.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xlc.ops  # noqa: F401
from xlc.errors import XlcError, XlcValueError
from xlc.ir import loops as lo
from xlc.ir.loops import Buffer, Expr, Kernel, Loop, Store, const, load, var
from xlc.ir.node import Array, Graph, Node, apply, at_location, constant, full, make, parameter
from xlc.ir.op import lookup
from xlc.ir.plan import Launch, Plan, Slot
from xlc.ir.races import replay
from xlc.ir.text import (
    constants_of,
    parse_expr,
    parse_graph,
    parse_kernel,
    parse_plan,
    print_expr,
    print_graph,
    print_kernel,
    print_plan,
    print_value,
)
from xlc.ir.types import DTYPES, Dim, Type, bf16, bool_, f32, f64, i8, i32, i64, u8
from xlc.ir.verify import VerifyError, check_kernel, verify_graph, verify_kernel
from xlc.passes.decompose import decompose
from xlc.passes.simplify import simplify

GOLDEN = Path(__file__).parent / "golden"


# ------------------------------------------------------------------------------------------------ file tests


def through(passes: list[str], text: str) -> str:
    if passes == ["kernel"]:
        kernel = parse_kernel(text)
        return "\n".join([print_kernel(kernel), *(f"# unproven: {u}" for u in verify_kernel(kernel))])
    graph = parse_graph(text)
    verify_graph(graph)
    for name in passes:
        graph = {"simplify": simplify, "decompose": decompose}[name](graph)
        verify_graph(graph)
    return print_graph(graph)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda p: p.stem)
def test_golden(path: Path, update_golden: bool) -> None:
    head, _, rest = path.read_text().partition("\n")
    before, _, expected = rest.partition("# ->\n")
    got = through(head.strip("# ").split(), before) + "\n"
    if update_golden:
        path.write_text(f"{head}\n{before.rstrip()}\n# ->\n{got}")
    else:
        assert got == expected, f"{path.name}: run pytest --update-golden if this is what it should be"


def test_there_are_golden_files() -> None:
    assert len(list(GOLDEN.glob("*.txt"))) >= 6


# ------------------------------------------------------------------------------------------------ graphs


def same(a: Graph, b: Graph) -> bool:
    """Structural equality, up to the identity of parameters and large arrays."""
    pairs: dict[Node, Node] = {}
    for n, m in zip(a.nodes(), b.nodes(), strict=True):
        pairs[n] = m
        if n.op is not m.op or n.type != m.type or [pairs[x] for x in n.args] != list(m.args):
            return False
        if [k for k, _ in n.attrs] != [k for k, _ in m.attrs]:
            return False
        for (k, v), (_, w) in zip(n.attrs, m.attrs, strict=True):
            if isinstance(v, Array):
                if v.value.dtype != w.value.dtype or v.value.shape != w.value.shape or v.value.tobytes() != w.value.tobytes():
                    return False
            elif isinstance(v, Graph):
                if not same(v, w):
                    return False
            elif k != "token" and v != w:
                return False
    return [pairs[r] for r in a.results] == list(b.results)


def round_trip(g: Graph) -> str:
    text = print_graph(g)
    back = parse_graph(text, constants_of(g))
    assert print_graph(back) == text
    assert same(g, back)
    return text


def test_graph_text() -> None:
    x, w = parameter(Type(f32, (64, 784)), "x", 0), parameter(Type(f32, (784, 10)), "w", 1)
    with at_location(("/home/someone/user.py", 12)):
        h = apply(lookup("dot"), [x, w], {"contract": ((1,), (0,)), "batch": ((), ())})
        y = h * 2.0
    assert round_trip(Graph((x, w), (y,), "f")) == """\
graph f(%x: f32[64,784], %w: f32[784,10]) {
  %0: f32[64,10] = dot(%x, %w) {batch=((), ()), contract=((1,), (0,))}  # user.py:12
  %1: f32[64,10] = multiply(%0, 2.0)  # user.py:12
  return %1
}"""


def test_parameter_names() -> None:
    params = [parameter(Type(f32, ()), name, k) for k, name in enumerate(["p['w']", "p['w'] ", "p__w__", "0", "", "ü", "\"quoted\\"])]
    text = round_trip(Graph(tuple(params), (params[1],)))
    assert [p["name"] for p in parse_graph(text).params] == [p["name"] for p in params]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_numbers_and_constants(dtype) -> None:  # type: ignore[no-untyped-def]
    x = parameter(Type(dtype, (3,)), "x", 0)
    op = lookup("bitwise_xor" if dtype is bool_ else "add")
    values: list[object] = [0, 1] if dtype is bool_ else [0, 1, 3]
    if dtype.is_float:
        values += [0.1, -0.0, float("inf"), -float("inf"), float("nan"), 1e-7, 3e4, 1 / 3]
    elif dtype.is_int:
        values += [np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max]
    results = [apply(op, [x, full(x.type, v)], {}) for v in values] + [full(Type(dtype, (2,)), v) for v in values]
    small = np.array(values[:3]).astype(dtype.numpy)
    large = np.arange(200).astype(np.uint8).astype(dtype.numpy)
    everything = np.frombuffer(np.random.default_rng(0).bytes(16 * dtype.bytes), np.uint8)
    odd = (everything & 1).view(np.bool_) if dtype is bool_ else everything.view(dtype.numpy)  # with nan payloads, perhaps
    results += [constant(a) for a in (small, large, large.reshape(2, 100), odd, large[:0], large[:0].reshape(0, 3))]
    round_trip(Graph((x,), tuple(results)))


def test_shortest_numbers() -> None:
    assert print_expr(const(float(np.float32(0.1)), f32)) == "f32(0.1)"
    assert print_expr(const(0.1, f64)) == "f64(0.1)"
    assert print_expr(const(1e-3, bf16)).startswith("bf16(0.00")


def test_symbolic_sizes_and_awkward_names() -> None:
    n, odd = Dim.named("n"), Dim.named("f32")
    x = parameter(Type(f32, (n, 2 * odd + 1, (n + 1) // 2)), "x", 0)
    y = apply(lookup("broadcast"), [x], {"shape": (3, *x.shape), "axes": (1, 2, 3)})
    text = round_trip(Graph((x,), (y, x)))
    assert "<2*f32+1>" in text or "<1+2*f32>" in text


def test_a_number_takes_the_type_beside_it() -> None:
    g = parse_graph("graph g(%x: i32[4]) { %0: i32[4] = add(%x, 7)  return %0 }")
    assert g.results[0].args[1]["value"] == 7 and g.results[0].args[1].type == Type(i32, (4,))
    x, c = parameter(Type(f32, (4,)), "x", 1), parameter(Type(bool_, (4,)), "c", 0)
    picked = make(lookup("where"), [c, full(x.type, 1.0), x], x.type)
    assert "full()" in round_trip(Graph((c, x), (picked,)))  # beside a condition a number would be taken for a bool


def test_nested_graphs() -> None:
    p, q = parameter(Type(f32, ()), "x", 0), parameter(Type(f32, ()), "y", 0)
    outer = make(lookup("negative"), (q,), q.type, {"body": Graph((p,), (p * 2.0, p), "body"), "n": 3})
    assert "body=graph body(%x: f32[]) {" in round_trip(Graph((q,), (outer,)))


def test_attribute_values() -> None:
    n = Dim.named("n")
    for v in [(), (1,), (1, (2, n)), "a \"b\"\n", None, True, -3, 2.5, float("inf"), i8, Type(f32, (n, 3)), (n + 1) // 2, n * n * 3 - 4]:
        x = parameter(Type(f32, ()), "x", 0)
        g = Graph((x,), (make(lookup("negative"), (x,), x.type, {"v": v}),))
        assert parse_graph(print_graph(g)).results[0]["v"] == v, print_value(v)


def test_deep_graphs_are_no_problem() -> None:
    x = y = parameter(Type(f32, (64, 64)), "x", 0)
    for _ in range(5000):
        y = -y * 2.0
    g = Graph((x,), (y,))
    text = print_graph(g)
    assert len(text.splitlines()) == 10003
    assert same(g, parse_graph(text))


@pytest.mark.parametrize(("text", "message"), [
    ("graph g(%x: f32[4]) { %0: f32[4] = frobnicate(%x) return %0 }", "no operator frobnicate"),
    ("graph g(%x: f32[4]) { return %y }", "defined above"),
    ("graph g(%x: f33[4]) { return %x }", "f33"),
    ("graph g(%x: f32[4]) {\n  %0: f32[4] = add(%x %x)\n  return %0 }", "line 2"),
    ("graph g(%x: f32[4]) { %0: f32[9] = constant() {value=f32[99]@0123456789abcdef} return %0 }", "0123456789abcdef"),
    ("graph g(%x: f32[4]) { return %x } }", "end of the text"),
    ("graph g(%x: f32[4]) { return $ }", "'$'"),
    ("kernel k(in x: f32[4], out z: f32[4]) { z[0] = 1.5 z[1] = y[0] }", "declared buffer"),
    ("kernel k(out z: f32[4]) { let a: i64 = cast(2.0, dtype=i64) }", "f32(2.0)"),
    ("kernel k(out z: f32[4]) { z[0] = q }", "name that is declared"),
    ("kernel k(out z: f32[4]) { spiral i in 0..4 { } }", "a loop or a store"),
    ("plan p { %x: f32[4] = attic 0 } arena 0 bound 0", "param, result, const, arena"),
])
def test_parse_errors(text: str, message: str) -> None:
    parse = parse_graph if text.startswith("graph") else parse_kernel if text.startswith("kernel") else parse_plan
    with pytest.raises(XlcValueError, match="found") as error:
        parse(text)
    assert message in str(error.value)
    assert isinstance(error.value, XlcError)


# ------------------------------------------------------------------------------------------------ expressions and kernels


N = lo.size(Dim.named("n"))
X, W = Buffer("x", f32, (Dim.named("n"),)), Buffer("w", f32, (4, 4))
VI, VJ = var("i"), var("j")
FLOAT_OPS = ["add", "subtract", "multiply", "divide", "minimum"]


def exprs(dtype):  # type: ignore[no-untyped-def]
    """Random expressions of a dtype."""
    leaves = {i64: st.sampled_from([VI, VJ, N, const(0), const(3), const(-7), const(2**62)]),
              bool_: st.sampled_from([const(True, bool_), const(False, bool_), var("c", bool_)]),
              f32: st.one_of(st.floats(width=32).map(lambda v: const(v, f32)),
                             st.sampled_from([var("t", f32), load(X, (VI,)), load(W, (VI, VJ))]))}
    if dtype is i64:
        return st.recursive(leaves[i64], lambda inner: st.builds(
            lambda name, a, b: lo.scalar_apply(lookup(name), (a, b), {}),
            st.sampled_from(["add", "subtract", "multiply", "floor_divide", "remainder", "minimum", "maximum", "bitwise_left_shift"]),
            inner, inner), max_leaves=12)
    if dtype is bool_:
        compare = st.builds(lambda name, a, b: lo.scalar_apply(lookup(name), (a, b), {}),
                            st.sampled_from(["less", "less_equal", "equal", "not_equal", "greater"]), exprs(i64), exprs(i64))
        return st.recursive(st.one_of(leaves[bool_], compare), lambda inner: st.builds(
            lambda name, a, b: lo.scalar_apply(lookup(name), (a, b), {}), st.sampled_from(["bitwise_and", "bitwise_or", "bitwise_xor"]),
            inner, inner), max_leaves=6)
    return st.recursive(leaves[f32], lambda inner: st.one_of(
        st.builds(lambda name, a, b: lo.scalar_apply(lookup(name), (a, b), {}), st.sampled_from(FLOAT_OPS), inner, inner),
        st.builds(lambda c, a, b: lo.scalar_apply(lookup("where"), (c, a, b), {}), exprs(bool_), inner, inner),
        st.builds(lambda i: lo.scalar_apply(lookup("cast"), (i,), {"dtype": f32}), exprs(i64)),
        st.builds(lambda i, m: load(X, (i,), m), exprs(i64), exprs(bool_)),
        inner.map(lambda a: a * a + a)), max_leaves=25)


@settings(max_examples=150, deadline=None)
@given(st.one_of(exprs(i64), exprs(bool_), exprs(f32)))
def test_expressions_parse_back_to_the_same_object(e: Expr) -> None:
    text = print_expr(e)
    back = parse_expr(text, [X, W], [VI, VJ, var("t", f32), var("c", bool_)], ["n"])
    assert back is e, (text, print_expr(back))


def test_shared_expressions_print_in_linear_size() -> None:
    e = load(X, (VI,))
    for _ in range(200):
        e = e * e + 0.5
    text = print_expr(e)
    assert len(text) < 20_000
    assert parse_expr(text, [X]) is e
    for _ in range(3000):
        e = lookup("negative")(e)
    assert parse_expr(print_expr(e), [X]) is e


def test_kernel_text() -> None:
    text = """\
kernel k0(in x: f32[n], in y: f32[n], out z: f32[n]) sizes(n) inplace(0:0) "saxpy" {
  parallel i in 0..n step 64 {
    vector v in 0..min(n-i, 64) width 64 {
      z[i+v] = add(multiply(x[i+v], 2.0), y[i+v])
    }
  }
}"""
    kernel = parse_kernel(text)
    assert print_kernel(kernel) == text and kernel.note == "saxpy" and kernel.inplace == ((0, 0),)
    loop = kernel.body[0]
    assert isinstance(loop, Loop) and loop.step == 64 and loop.body[0].width == 64  # type: ignore[union-attr]
    assert verify_kernel(kernel) == []


def test_every_statement() -> None:
    text = """\
kernel k(in x: f32[n,4], in q: i8[4], out z: f32[n,4], out b: bool[4]) sizes(n) {
  local acc: f32[2] register
  local row: u8[4] stack
  let n: i64 = size(n)+1
  serial i in 0..size(n) {
    if i < 3 & i != 1 {
      acc[0] = -0.0
      row[i] = u8(255)
    } else {
      acc[1] = x[i, 0 where i < size(n)]
    }
    unroll j in 0..4 {
      z[i, j] = where(i < j, acc[0], cast(q[j], dtype=f32)) where i < size(n)
      b[j] = true
    }
  }
}"""
    kernel = parse_kernel(text.replace("u8(255)", "255"))
    assert print_kernel(kernel) == text.replace("u8(255)", "255")
    assert parse_kernel(print_kernel(kernel)) == kernel
    store = kernel.body[3].body[0].body[1]  # type: ignore[union-attr]
    assert isinstance(store, Store) and store.value is const(255, u8)


# ------------------------------------------------------------------------------------------------ plans


def test_plan_text() -> None:
    n = Dim.named("batch")
    kernel = parse_kernel("kernel k0(in a: f32[batch,4], in w: f32[4], out z: f32[batch,4]) sizes(batch) "
                          "{ parallel i in 0..batch { serial j in 0..4 { z[i,j] = multiply(a[i,j], w[j]) } } }")
    t = Type(f32, (n, 4))
    weights = Array(np.arange(4, dtype="f4"))
    slots = (Slot("x", t, "param", 0), Slot("w", Type(f32, (4,)), "const", 0), Slot("t", t, "arena", 64 * ((n + 63) // 64)),
             Slot("y", t, "result", 0))
    launches = (Launch("k0", ("x", "w"), ("t",), "a note"), Launch("k0", ("t", "w"), ("y",)))
    plan = Plan("main", ("batch",), slots, launches, (kernel,), (weights,), 128 * ((n + 63) // 64) + 64, n * 16, ((0, 0),), ("hello",))
    text = print_plan(plan, kernels=True)
    back = parse_plan(text, constants=constants_of(plan))
    assert back == plan and back.notes == plan.notes and print_plan(back, kernels=True) == text
    assert parse_plan(print_plan(plan), plan.kernels) == plan


# ------------------------------------------------------------------------------------------------ verifiers


def test_verify_graph() -> None:
    x, y = parameter(Type(f32, (4,)), "x", 0), parameter(Type(f32, (5,)), "y", 1)
    verify_graph(Graph((x, y), (x + 1.0, -y)))
    bad = [Graph((x,), (make(lookup("add"), (x, y), x.type),)), Graph((x,), (make(lookup("add"), (x, x), y.type),)), Graph((x,), (-y,)),
           Graph((x, x), (x,)), Graph((x + 1.0,), (x,)), Graph((x,), (make(lookup("add"), (x,), x.type),))]
    for g in bad:
        with pytest.raises(VerifyError):
            verify_graph(g)


GOOD = {
    "matrix": "sizes(m, n) { parallel i in 0..n { serial j in 0..m { z[i*m+j] = x[i*m+j] } } }",
    "tile": "sizes(m, n) { parallel q in 0..n*m step 16 { serial p in q..min(q+16, n*m) { z[p] = x[p] } } }",
    "decode": "sizes(m, n) { parallel p in 0..n*m { let a: i64 = p//m  let b: i64 = remainder(p, m)  z[b*n+a] = x[a*m+b] } }",
    "columns": "sizes(m, n) { parallel j in 0..m { serial i in 0..n { z[i*m+j] = x[i*m+j] } } }",
    "reverse": "sizes(m, n) { parallel i in 0..n*m { z[n*m-1-i] = x[i] } }",
    "chunks": "sizes(m, n) { parallel c in 0..(n*m+1023)//1024 { if c*1024+1024 <= n*m { serial i in c*1024..c*1024+1024 { z[i] = x[i] } } "
              "else { serial i in c*1024..n*m { z[i] = x[i] } } } }",
    "masked": "sizes(m, n) { parallel i in 0..n*m step 7 { unroll r in 0..7 { z[i+r] = x[i+r where i+r < n*m] where i+r < n*m } } }",
}
BAD = {
    "too far": ("sizes(m, n) { parallel i in 0..n*m+1 { z[i] = 1.0 } }", {"n": 3, "m": 2}),
    "negative": ("sizes(m, n) { parallel i in 0..n*m { z[i] = x[i-1] } }", {"n": 3, "m": 2}),
    "unmasked tail": ("sizes(m, n) { parallel i in 0..n*m step 4 { unroll r in 0..4 { z[i+r] = 1.0 } } }", {"n": 3, "m": 2}),
    "same element": ("sizes(m, n) { parallel i in 0..n { serial j in 0..m { z[j] = x[i*m+j] } } }", {"n": 3, "m": 2}),
    "neighbour": ("sizes(m, n) { parallel i in 0..n*m { z[i] = 1.0  if i > 0 { z[i] = z[i-1] } } }", {"n": 3, "m": 2}),
    "overlap": ("sizes(m, n) { parallel i in 0..n { serial j in 0..m+1 { z[i*m+j] = 1.0 where i*m+j < n*m } } }", {"n": 3, "m": 2}),
}
HEAD = "kernel k(in x: f32[n*m], out z: f32[n*m]) "


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_verify_kernel_proves(body: str) -> None:
    kernel = parse_kernel(HEAD + body)
    assert verify_kernel(kernel) == []
    for n, m in [(1, 1), (3, 5), (8, 1), (70, 40)]:
        assert replay(kernel, {"n": n, "m": m}) == []
    assert verify_kernel(parse_kernel(print_kernel(kernel))) == []


@pytest.mark.parametrize(("body", "sizes"), BAD.values(), ids=BAD)
def test_verify_kernel_reports(body: str, sizes: dict[str, int]) -> None:
    kernel = parse_kernel(HEAD + body)
    assert verify_kernel(kernel)
    assert replay(kernel, sizes)
    with pytest.raises(VerifyError, match="out of bounds|both touch"):
        check_kernel(kernel)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_proved_holds(data: st.DataObject) -> None:
    """A random affine kernel in which nothing is unproven has neither accesses out of bounds nor races when it is replayed."""
    small = st.integers(-2, 6)
    a, b, c = (data.draw(small) for _ in range(3))
    steps, extent, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
    rows = data.draw(st.integers(1, 6))
    mask = data.draw(st.sampled_from(["", f" where i*{a}+j < {size}", f" where i*{a}+j*{b}+{c} < {size} & i*{a}+j*{b}+{c} >= 0"]))
    index = data.draw(st.sampled_from([f"i*{a}+j*{b}+{c}", f"remainder(i*{a}+j, {abs(b) + 1})+j", f"(i*{a}+j)//{abs(b) + 1}+{c}"]))
    kernel = parse_kernel(f"kernel k(out z: f32[{size}]) {{ parallel i in 0..{rows} step {steps} {{ serial j in 0..{extent} "
                          f"{{ z[{index}] = 1.0{mask} }} }} }}")
    try:
        unproven = verify_kernel(kernel)
    except VerifyError:
        return  # a constant index that is out of bounds
    if not unproven:
        assert replay(kernel, {}) == []


@pytest.mark.parametrize(("text", "message"), [
    ("kernel k(in x: f32[4], out z: f32[4]) { x[0] = 1.0 }", "is written"),
    ("kernel k(in x: f32[4], out z: f32[4]) { z[4] = 1.0 }", "out of bounds"),
    ("kernel k(in x: f32[4], out z: f32[4]) { z[0, 1] = 1.0 }", "has 2 indices"),
    ("kernel k(out z: f32[n]) { z[0] = 1.0 }", "declares"),
    ("kernel k(out z: f32[4]) { serial i in 0..2 { parallel j in 0..2 { z[j] = 1.0 } } }", "outermost"),
    ("kernel k(out z: f32[4]) { vector v in 1..4 width 4 { z[v] = 1.0 } }", "from 0"),
    ("kernel k(out z: f32[n]) sizes(n) { unroll v in 0..n { z[v] = 1.0 } }", "not constant"),
    ("kernel k(out z: f32[4]) { serial i in 0..2 { serial i in 0..2 { z[i] = 1.0 } } }", "again"),
    ("kernel k(out z: f32[4]) { z[0] = i64(1) }", "is stored to"),
    ("kernel k(out z: f32[4], out z: f32[4]) { }", "the same name"),
    ("kernel k(out z: f32[4]) inplace(0:0) { }", "do not exist"),
    ("kernel k(out z: f32[4]) { local t: f32[4] }", "global memory"),
])
def test_verify_kernel_refuses(text: str, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_kernel(parse_kernel(text))


def test_undeclared_names_are_refused() -> None:
    z = Buffer("z", f32, (4,))
    for body in [Store(z, (var("i"),), const(1.0, f32)), Store(Buffer("y", f32, (4,)), (const(0),), const(1.0, f32)),
                 Store(z, (N,), const(1.0, f32)), Store(z, (const(0),), var("t", f32))]:
        with pytest.raises(VerifyError):
            verify_kernel(Kernel("k", (), (z,), (), (body,)))


def test_inplace_claims_are_checked() -> None:
    claim = "kernel k(in x: f32[n], out z: f32[n]) sizes(n) inplace(0:0) "
    assert verify_kernel(parse_kernel(claim + "{ parallel i in 0..n { z[i] = x[i] } }")) == []
    good = ["{ serial i in 0..n step 8 { vector v in 0..min(n-i, 8) width 8 { z[i+v] = x[i+v] } } }",
            "{ parallel i in 0..n { if i < 3 { z[i] = x[i] } else { let t: f32 = x[i]  z[i] = add(t, 1.0) } } }",
            "{ serial i in 0..n//4 { serial j in 0..4 { z[i*4+j] = x[i*4+j] } } serial i in n//4*4..n { z[i] = x[i] } }"]
    bad = ["{ parallel i in 0..n { z[i] = x[n-1-i] } }",
           "{ parallel i in 0..n-1 { z[i] = x[i+1] } }",
           "{ serial i in 0..n { z[i] = 1.0  z[i] = x[i] } }",
           "{ serial i in 0..n { z[i] = 1.0 } serial i in 0..n { z[i] = x[i] } }",
           "{ serial k in 0..2 { serial i in 0..n { z[i] = x[i] } } }",
           "{ serial i in 0..n { let t: f32 = x[0]  z[i] = add(x[i], t) } }"]
    for body in good:
        assert verify_kernel(parse_kernel(claim + body)) == []
    for body in bad:
        assert any("inplace" in u for u in verify_kernel(parse_kernel(claim + body)))
