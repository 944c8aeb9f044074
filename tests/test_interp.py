"""The interpreters: what graphs, kernels and plans mean, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import known_faults  # noqa: F401

from xlc.errors import XlcError
from xlc.ir.interp import interpret, interpret_kernel, interpret_plan
from xlc.ir.loops import Buffer, If, Kernel, Let, Local, Loop, Stmt, Store, const, load, size, var
from xlc.ir.node import Graph, constant, parameter
from xlc.ir.op import lookup
from xlc.ir.plan import Launch, Plan, Slot
from xlc.ir.types import Dim, Type, f32, f64

n = Dim.named("n")
i, v, zero = var("i"), var("v"), const(0)


def kernel(*body: Stmt, extent: object = n, inplace: tuple[tuple[int, int], ...] = ()) -> Kernel:
    shape = (extent,)
    return Kernel("k", (Buffer("x", f32, shape),), (Buffer("y", f32, shape),), ("n",), tuple(body), inplace)  # type: ignore[arg-type]


def x_at(index: object) -> object:
    return load(Buffer("x", f32, (n,)), (index,))  # type: ignore[arg-type]


Y = Buffer("y", f32, (n,))
DOUBLED = kernel(Loop("i", zero, size(n), 4, "parallel", (
    Loop("v", zero, lookup("minimum")(size(n) - i, 4), 1, "vector", (Store(Y, (i + v,), x_at(i + v) * 2.0),),
         4),)))  # type: ignore[operator]


def test_a_graph_with_named_sizes() -> None:
    x = parameter(Type(f32, (n, 3)), "x", 0)
    total = lookup("sum")(x, axes=(0,))
    g = Graph((x,), (total, lookup("broadcast")(total, shape=(n, 3), axes=(1,))))
    a = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = interpret(g, a)
    assert found[0].tolist() == a.sum(0).tolist() and found[1].shape == (4, 3)


def test_a_graph_checks_its_arguments() -> None:
    x = parameter(Type(f32, (3,)), "x", 0)
    g = Graph((x,), (x + 1.0,))
    for wrong in (np.zeros(3), np.zeros(4, np.float32)):
        with pytest.raises(XlcError, match="f32"):
            interpret(g, wrong)
    with pytest.raises(XlcError, match="1 argument"):
        interpret(g)


def test_a_captured_array() -> None:
    table = constant(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert interpret(Graph((), (lookup("transpose")(table, axes=(1, 0)),)))[0].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("count", [0, 1, 4, 7, 8])
def test_vector_loops_mask_their_lanes(count: int) -> None:
    a = np.arange(count, dtype=np.float32)
    assert interpret_kernel(DOUBLED, [a], {"n": count})[0].tolist() == (2 * a).tolist()


def test_locals_lets_and_branches() -> None:
    state = Buffer("s", f64, (1,), "register")
    held = load(state, (zero,))
    positive = var("x", f32) > 0
    body = (Local(state), Store(state, (zero,), const(0.0, f64)),
            Loop("i", zero, size(n), 1, "serial", (
                Let("x", x_at(i)),  # type: ignore[arg-type]
                If(lookup("any").monoid.result((positive,)), (Store(state, (zero,), held + lookup("cast")(var("x", f32), dtype=f64)),)),
                Store(Y, (i,), lookup("cast")(held, dtype=f32)))))
    found = interpret_kernel(kernel(*body), [np.array([1, -2, 3, 4], np.float32)], {"n": 4})[0]
    assert found.tolist() == [1, 1, 4, 8]


def test_accesses_out_of_bounds_are_refused_unless_masked() -> None:
    past = kernel(Loop("i", zero, size(n), 1, "serial", (Store(Y, (i,), x_at(i + 1)),)))  # type: ignore[arg-type]
    with pytest.raises(XlcError, match="outside"):
        interpret_kernel(past, [np.zeros(3, np.float32)], {"n": 3})
    guarded = load(Buffer("x", f32, (n,)), (i + 1,), i + 1 < size(n))
    masked = kernel(Loop("i", zero, size(n), 1, "serial", (Store(Y, (i,), guarded),)))
    assert interpret_kernel(masked, [np.array([1, 2, 3], np.float32)], {"n": 3})[0].tolist() == [2, 3, 0]
    beyond = kernel(Loop("i", zero, size(n) + 1, 1, "serial", (Store(Y, (i,), const(1.0, f32), i < size(n)),)))
    assert interpret_kernel(beyond, [np.zeros(2, np.float32)], {"n": 2})[0].tolist() == [1, 1]
    with pytest.raises(XlcError, match="not defined"):
        interpret_kernel(kernel(Store(Y, (zero,), var("nobody", f32))), [np.zeros(2, np.float32)], {"n": 2})


def test_what_is_not_written_is_poison() -> None:
    half = kernel(Store(Y, (zero,), const(1.0, f32)))
    found = interpret_kernel(half, [np.zeros(2, np.float32)], {"n": 2})[0]
    assert found[0] == 1 and np.isnan(found[1])


def plan(*launches: Launch, kernels: tuple[Kernel, ...], extra: tuple[Slot, ...] = (), arena: int = 64,
         donated: tuple[tuple[int, int], ...] = ()) -> Plan:
    t = Type(f32, (n,))
    slots = (Slot("x", t, "param", 0), Slot("y", t, "result", 0), *extra)
    return Plan("p", ("n",), slots, launches, kernels, (), arena, arena, donated)


def test_a_plan_through_the_arena() -> None:
    p = plan(Launch("k", ("x",), ("h",)), Launch("k", ("h",), ("y",)), kernels=(DOUBLED,), extra=(Slot("h", Type(f32, (n,)), "arena", 0),))
    a = np.arange(5, dtype=np.float32)
    assert interpret_plan(p, [a])[0].tolist() == (4 * a).tolist()
    assert a.tolist() == [0, 1, 2, 3, 4]


def test_a_donated_argument_is_the_result() -> None:
    """In place, an elementwise kernel is right and one that reads what it has overwritten is seen to be wrong."""
    a = np.arange(1, 6, dtype=np.float32)
    assert interpret_plan(plan(Launch("k", ("x",), ("y",)), kernels=(DOUBLED,), donated=((0, 0),)), [a])[0].tolist() == (2 * a).tolist()
    previous = lookup("maximum")(i - 1, 0)
    shifted = kernel(Loop("i", zero, size(n), 1, "serial", (Store(Y, (i,), x_at(previous)),)))  # type: ignore[arg-type]
    apart = interpret_plan(plan(Launch("k", ("x",), ("y",)), kernels=(shifted,)), [a])[0]
    shared = interpret_plan(plan(Launch("k", ("x",), ("y",)), kernels=(shifted,), donated=((0, 0),)), [a])[0]
    assert apart.tolist() == [1, 1, 2, 3, 4] and shared.tolist() == [1, 1, 1, 1, 1]


def test_overlapping_temporaries_show() -> None:
    both = Kernel("sum", (Buffer("x", f32, (n,)), Buffer("z", f32, (n,))), (Y,), ("n",),
                  (Loop("i", zero, size(n), 1, "serial", (Store(Y, (i,),
                                                                x_at(i) + load(Buffer("z", f32, (n,)),
                                                                               (i,))),)),))  # type: ignore[operator]
    t = Type(f32, (n,))
    launches = (Launch("k", ("x",), ("g",)), Launch("k", ("g",), ("h",)), Launch("sum", ("g", "h"), ("y",)))
    a = np.ones(3, np.float32)
    right = plan(*launches, kernels=(DOUBLED, both), extra=(Slot("g", t, "arena", 0), Slot("h", t, "arena", 64)), arena=128)
    wrong = plan(*launches, kernels=(DOUBLED, both), extra=(Slot("g", t, "arena", 0), Slot("h", t, "arena", 0)), arena=128)
    assert interpret_plan(right, [a])[0].tolist() == [6, 6, 6]
    assert interpret_plan(wrong, [a])[0].tolist() != [6, 6, 6]
