"""The memory planner: its plans pass an independent checker, changed plans do not, and little memory is wasted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xlc
from xlc.errors import XlcValueError
from xlc.ir.loops import Buffer, Kernel, Loop, Store, const, load, scalar_apply, size, var
from xlc.ir.node import Array, Graph, Node, constant, make, parameter
from xlc.ir.op import lookup
from xlc.ir.plan import Plan
from xlc.ir.sizes import aligned, at, at_most, upper
from xlc.ir.text import constants_of, parse_plan, print_plan
from xlc.ir.types import Dim, Size, Type, evaluate, f32, f64, i8
from xlc.ir.verify import VerifyError, verify_kernel, verify_plan
from xlc.passes.arena import Span, lower_bound, pack
from xlc.passes.dedupe import dedupe, structure
from xlc.passes.memory import Step, plan_memory
from xlc.passes.order import Task, choose_order, peak

B = Dim.named("b")


def kernel(inputs: Sequence[Node], outputs: Sequence[Node], inplace: tuple[tuple[int, int], ...] = (), tag: float = 1.0) -> Kernel:
    """Some kernel of these operands."""
    ins = tuple(Buffer(f"x{k}", n.dtype, (n.type.size,)) for k, n in enumerate(inputs))
    outs = tuple(Buffer(f"z{k}", n.dtype, (n.type.size,)) for k, n in enumerate(outputs))
    names = sorted(frozenset().union(*(b.size.names for b in (*ins, *outs) if isinstance(b.size, Dim))))
    body = tuple(Loop("i", const(0), size(z.size), 1, "serial", (Store(z, (var("i"),), const(tag, z.dtype)),)) for z in outs)
    return Kernel("k", ins, outs, tuple(names), body, inplace)


def step(inputs: Sequence[Node], *types: Type, inplace: tuple[tuple[int, int], ...] = (), tag: object = 0) -> Step:
    outputs = tuple(make(lookup("add"), inputs, t, {"k": (k, tag)}) for k, t in enumerate(types))
    return Step(kernel(inputs, outputs, inplace), tuple(inputs), outputs)


def vector(n: Size) -> Type:
    return Type(f32, (n,))


def chain(count: int, n: Size = 64, inplace: tuple[tuple[int, int], ...] = ((0, 0),)) -> tuple[Graph, list[Step]]:
    x = parameter(vector(n), "x", 0)
    steps: list[Step] = []
    last = x
    for k in range(count):
        steps.append(step([last], vector(n), inplace=inplace, tag=k))
        last = steps[-1].outputs[0]
    return Graph((x,), (last,)), steps


def program(seed: int, count: int, sizes: Sequence[Size], window: int = 6) -> tuple[Graph, list[Step]]:
    """A random program: steps of one to three inputs, some with two outputs, some that may work in place."""
    r = random.Random(seed)
    params = tuple(parameter(vector(r.choice(sizes)), f"p{k}", k) for k in range(2))
    pool: list[Node] = [*params, constant(np.arange(5, dtype="f4"))]
    steps = []
    for k in range(count):
        inputs = list(dict.fromkeys(r.choices(pool[-window:], k=r.randint(1, 3))))
        types = [vector(r.choice(sizes)) for _ in range(r.choice([1, 1, 1, 2]))]
        if r.random() < 0.5:
            types[0] = inputs[0].type
        pairs = tuple((o, i) for o in range(len(types)) for i in range(len(inputs)) if r.random() < 0.5)
        steps.append(step(inputs, *types, inplace=pairs, tag=(seed, k)))
        pool += steps[-1].outputs
    written = [n for s in steps for n in s.outputs]
    results = [n for n in written if not any(n in s.inputs for s in steps)] + r.sample(written, min(2, len(written)))
    return Graph(params, tuple(dict.fromkeys(results))), steps


# ------------------------------------------------------------------------------------------------ plans


def test_a_chain_in_place_needs_one_buffer() -> None:
    g, steps = chain(5)
    plan = plan_memory(g, steps)
    verify_plan(plan)
    assert plan.arena == plan.lower_bound == 256 and len(plan.launches) == 5 and len(plan.kernels) == 1
    assert [s.place for s in plan.slots] == ["param", "result", "arena", "arena", "arena", "arena"]


def test_a_chain_that_may_not_work_in_place_needs_two() -> None:
    g, steps = chain(5, inplace=())
    plan = plan_memory(g, steps)
    verify_plan(plan)
    assert plan.arena == plan.lower_bound == 512


def test_one_step_needs_no_arena() -> None:
    g, steps = chain(1)
    plan = plan_memory(g, steps)
    verify_plan(plan)
    assert plan.arena == plan.lower_bound == 0 and plan.donated == ()


def test_symbolic_sizes() -> None:
    g, steps = chain(6, 10 * B, inplace=())
    plan = plan_memory(g, steps)
    verify_plan(plan)
    assert plan.sizes == ("b",) and plan.arena == plan.lower_bound == 2 * aligned(40 * B, 64)
    g, steps = chain(6, 16 * B, inplace=())
    assert plan_memory(g, steps).arena == 128 * B


def test_program_order_stays_where_nothing_is_gained() -> None:
    g, steps = program(3, 12, [64])
    plan = plan_memory(g, steps, reorder=False)
    written = [x.outputs for x in plan.launches]
    assert [len(w) for w in written] == [len(s.outputs) for s in steps]


def test_order_lowers_the_peak() -> None:
    """Two wide values, each reduced at once, beat two wide values alive together."""
    x = parameter(vector(4), "x", 0)
    wide = [step([x], vector(10_000), tag=("w", k)) for k in range(4)]
    narrow = [step([w.outputs[0]], vector(4), tag=("n", k)) for k, w in enumerate(wide)]
    end = step([n.outputs[0] for n in narrow], vector(4), tag="end")
    g, steps = Graph((x,), end.outputs), [*wide, *narrow, end]
    there, here = plan_memory(g, steps, reorder=False), plan_memory(g, steps)
    verify_plan(there)
    verify_plan(here)
    assert there.lower_bound > 160_000 and here.lower_bound < 41_000 and here.arena == here.lower_bound


def test_donation() -> None:
    g, steps = chain(3)
    plan = plan_memory(g, steps, donate=(0,))
    verify_plan(plan)
    assert plan.donated == ((0, 0),)
    one = plan_memory(*chain(1), donate=(0,))
    verify_plan(one)
    assert one.donated == ((0, 0),)
    assert plan_memory(*chain(1, inplace=()), donate=(0,)).donated == ()  # the only kernel may not work in place
    x = parameter(vector(64), "x", 0)
    first = step([x], vector(64))
    second = step([x, first.outputs[0]], vector(64))
    late = plan_memory(Graph((x,), (first.outputs[0], second.outputs[0])), [first, second], donate=(0,))
    verify_plan(late)
    assert late.donated == ()  # read again after the first result, and not in place by the second
    wrong = replace(late, donated=((0, 0),))
    with pytest.raises(VerifyError, match="needed"):
        verify_plan(wrong)


def test_what_may_lie_in_a_donated_parameter_is_written_after_its_last_read() -> None:
    """An update of %x in place, and a reader of %x that comes later in the program; where the reader needs the update, or the other order
    needs more memory than it saves, the program's order stays."""
    x, y = parameter(vector(64), "x", 0), parameter(vector(64), "y", 1)
    update, reader = step([x], vector(64), inplace=((0, 0),), tag="u"), step([x, y], vector(64), tag="r")
    end = step([reader.outputs[0]], vector(3), tag="e")
    for steps in ([update, reader, end], [reader, update, end]):
        g = Graph((x, y), (update.outputs[0], end.outputs[0]))
        plan = plan_memory(g, steps, donate=(0,))
        verify_plan(plan)
        assert plan.donated == ((0, 0),) and plan_memory(g, [update, reader, end], donate=(0,), reorder=False).donated == ()
    other = step([y], vector(64), tag="o")  # works nowhere in place, but x is dead by then
    plan = plan_memory(Graph((x, y), (other.outputs[0], end.outputs[0])), [other, reader, end], donate=(0,))
    verify_plan(plan)
    assert plan.donated == ((0, 0),)
    first = step([x], vector(64), vector(64), inplace=((0, 0),), tag="f")
    second = step([x, first.outputs[1]], vector(3), tag="s")
    assert plan_memory(Graph((x,), (first.outputs[0], second.outputs[0])), [first, second], donate=(0,)).donated == ()
    # the reader gives 100 times as much as the update saves, and it would be alive with another value as large
    first, big = step([y], vector(6400), tag="a"), step([x], vector(6400), tag="b")
    small = step([first.outputs[0]], vector(64), tag="c")
    update = step([x, small.outputs[0]], vector(64), inplace=((0, 0),), tag="d")
    ends = [step([big.outputs[0], update.outputs[0]], vector(3), tag="e"), step([first.outputs[0], update.outputs[0]], vector(3), tag="g")]
    steps = [first, small, update, ends[1], big, ends[0]]
    plan = plan_memory(Graph((x, y), (update.outputs[0], *(e.outputs[0] for e in ends))), steps, donate=(0,))
    verify_plan(plan)
    assert plan.donated == () and plan.arena < 2 * 6400 * 4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25))
def test_donations_need_no_more_memory_than_the_order_without(seed: int, count: int) -> None:
    g, steps = program(seed, count, [64, 640])

    def needed(donate: tuple[int, ...], order: bool) -> int:
        plan = plan_memory(g, steps, donate=donate, reorder=order)
        verify_plan(plan)
        there = {r for r, _ in plan.donated}
        return int(plan.lower_bound) + sum(int(aligned(r.type.bytes, 64)) for k, r in enumerate(g.results) if k not in there)

    assert needed((0, 1), True) <= min(needed((), True), needed((0, 1), False))


def test_a_training_step_updates_all_that_it_is_given_in_place() -> None:
    rng = np.random.default_rng(0)
    p = {f"w{k}": rng.standard_normal((12, 12)).astype("f4") / 4 for k in range(4)}
    x = rng.standard_normal((5, 12)).astype("f4")

    def train(p: dict[str, np.ndarray], x: np.ndarray) -> Any:
        def loss(p: dict[str, np.ndarray]) -> Any:
            h = x
            for w in p.values():
                h = np.tanh(h @ w)
            return (h * h).sum()

        value, slope = xlc.value_and_grad(loss)(p)
        return {k: p[k] - np.float32(0.1) * slope[k] for k in p}, value

    step_ = xlc.jit(train, donate="p")
    plan = step_.compile(p, x).plan
    assert sorted(i for _, i in plan.donated) == [0, 1, 2, 3]
    expected, value = xlc.jit(train)(p, x)
    found, same = step_({k: w.copy() for k, w in p.items()}, x)
    assert value == same and all(np.array_equal(found[k], expected[k]) for k in p)


def test_a_node_that_is_two_inputs_needs_both_pairs() -> None:
    x = parameter(vector(64), "x", 0)
    first = step([x], vector(64))
    y = first.outputs[0]
    for pairs, arena in ((((0, 0),), 512), (((0, 0), (0, 1)), 256)):
        second = step([y, y], vector(64), inplace=pairs)
        third = step([second.outputs[0]], vector(64))
        plan = plan_memory(Graph((x,), third.outputs), [first, second, third])
        verify_plan(plan)
        assert plan.arena == arena


def test_zero_sizes_and_unread_outputs() -> None:
    x = parameter(vector(0), "x", 0)
    first = step([x], vector(0), vector(100))
    second = step([first.outputs[0]], vector(3))
    plan = plan_memory(Graph((x,), second.outputs), [first, second])
    verify_plan(plan)
    assert plan.arena == 448


def test_names_and_constants() -> None:
    x = parameter(vector(4), "t0", 0)
    w = constant(np.arange(4, dtype="f4"))
    first = step([x, w], vector(4))
    second = step([first.outputs[0], w], vector(4))
    plan = plan_memory(Graph((x,), second.outputs), [first, second])
    verify_plan(plan)
    assert [s.name for s in plan.slots] == ["t0", "c0", "r0", "t0_"] and plan.constants == (Array(np.arange(4, dtype="f4")),)
    assert parse_plan(print_plan(plan, kernels=True), constants=constants_of(plan)) == plan


def test_what_lowering_must_not_do() -> None:
    g, steps = chain(2)
    x = g.params[0]
    y = steps[0].outputs[0]
    for graph, given_ in [(Graph((x,), (x,)), steps), (Graph((x,), (y, y)), steps[:1]), (Graph((x,), (y,)), steps[1:]),
                          (g, [steps[0], steps[0], steps[1]]), (g, [replace(steps[0], inputs=()), steps[1]])]:
        with pytest.raises(XlcValueError, match="memory: "):
            plan_memory(graph, given_)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 12),
       st.sampled_from([(64, 3, 1000), (B, 4 * B, 100), (16 * B, 32 * B, 10 * B), (0, 7, B * B)]))
def test_plans_pass_the_checker(seed: int, count: int, window: int, sizes: Sequence[Size]) -> None:
    g, steps = program(seed, count, sizes, window)
    donate = tuple(range(seed % 3))
    for reorder in (True, False):
        plan = plan_memory(g, steps, donate=donate, reorder=reorder)
        verify_plan(plan)
        assert at_most(plan.lower_bound, plan.arena) or all(at(plan.lower_bound, v) <= at(plan.arena, v) for v in (64, 640))
        assert at(plan.arena, 64) >= measured_bound(plan, 64)
        assert len(plan.launches) == len(steps)
    text = print_plan(plan, kernels=True)
    assert parse_plan(text, constants=constants_of(plan)) == plan


def measured_bound(plan: Plan, value: int) -> int:
    """The most bytes of the arena that are alive at once, counted byte by byte range (what lies in place is counted once)."""
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    for t, x in enumerate(plan.launches):
        for n in (*x.inputs, *x.outputs):
            first.setdefault(n, t)
            last[n] = t
    most = 0
    for t in range(len(plan.launches)):
        ranges = {(at(s.at, value), at(s.at, value) + at(s.type.bytes, value)) for s in plan.slots
                  if s.place == "arena" and first[s.name] <= t <= last[s.name]}
        most = max(most, sum(b - a for a, b in ranges))
    return most


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 25), st.booleans())
def test_changed_plans_are_refused(seed: int, count: int, symbolic: bool) -> None:
    """Move a slot, swap two launches, shrink the arena: the checker notices whenever an interpreter of addresses does."""
    r = random.Random(seed)
    g, steps = program(seed, count, [16 * B, 64, 32 * B] if symbolic else [64, 100, 16], 5)
    plan = plan_memory(g, steps)
    arena = [k for k, s in enumerate(plan.slots) if s.place == "arena"]
    changed = []
    if arena:
        k, j = r.choice(arena), r.choice(arena)
        slots = list(plan.slots)
        slots[k] = replace(slots[k], at=slots[j].at)
        changed.append(replace(plan, slots=tuple(slots)))
        changed.append(replace(plan, arena=plan.arena - 64))
    launches = list(plan.launches)
    a, b = r.randrange(len(launches)), r.randrange(len(launches))
    launches[a], launches[b] = launches[b], launches[a]
    changed.append(replace(plan, launches=tuple(launches)))
    for p in changed:
        wrong = [v for v in (0, 1, 2, 64, 100) if clobbers(p, v)]
        if wrong:
            with pytest.raises(VerifyError):
                verify_plan(p)
        elif p is not changed[-1]:
            verify_plan(p)


def clobbers(plan: Plan, value: int) -> bool:
    """Runs the plan on an arena of bytes that remember who wrote them; whether a launch reads what is not what it was."""
    env = dict.fromkeys(plan.sizes, value)
    total = evaluate(plan.arena, env)
    memory: list[str | None] = [None] * max(total, 0)
    slots = plan.by_name
    written = {s.name for s in plan.slots if s.place in ("param", "const")}
    kernels = {k.name: k for k in plan.kernels}

    def extent(n: str) -> range:
        start = evaluate(slots[n].at, env)
        return range(start, start + evaluate(slots[n].type.bytes, env), 16)

    for x in plan.launches:
        for n in x.inputs:
            if n not in written or (slots[n].place == "arena" and any(memory[k] != n for k in extent(n))):
                return True
        for o, n in enumerate(x.outputs):
            written.add(n)
            if slots[n].place != "arena":
                continue
            if extent(n) and (extent(n)[-1] + 1 > total or evaluate(slots[n].at + slots[n].type.bytes, env) > total):
                return True
            for i, other in enumerate(x.inputs):
                if slots[other].place == "arena" and set(extent(n)) & set(extent(other)) and (
                        extent(n) != extent(other) or (o, i) not in kernels[x.kernel].inplace):
                    return True
            for k in extent(n):
                if memory[k] in x.outputs[:o]:
                    return True
                memory[k] = n
    return False


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: replace(p, slots=p.slots[:-1]), "no slot"),
    (lambda p: replace(p, slots=(*p.slots, p.slots[-1])), "same name"),
    (lambda p: replace(p, slots=tuple(replace(s, at=s.at + 4) if s.place == "arena" else s for s in p.slots)), "multiple"),
    (lambda p: replace(p, slots=tuple(replace(s, place="attic") if s.place == "arena" else s for s in p.slots)), "attic"),
    (lambda p: replace(p, kernels=()), "no such kernel"),
    (lambda p: replace(p, kernels=p.kernels * 2), "same name"),
    (lambda p: replace(p, launches=p.launches[1:]), "nothing has written"),
    (lambda p: replace(p, launches=p.launches[:-1]), "nothing writes the result"),
    (lambda p: replace(p, launches=(*p.launches, p.launches[-1])), "written before"),
    (lambda p: replace(p, launches=tuple(replace(x, inputs=()) for x in p.launches)), "inputs"),
    (lambda p: replace(p, donated=((0, 5),)), "donated"),
    (lambda p: replace(p, slots=tuple(replace(s, type=Type(f64, s.type.shape)) if s.place == "param" else s for s in p.slots)), "buffer"),
    (lambda p: replace(p, slots=tuple(replace(s, at=1) if s.place == "result" else s for s in p.slots)), "numbered"),
    (lambda p: replace(p, arena=0), "beyond the arena"),
])
def test_verify_plan_refuses(change, message: str) -> None:  # type: ignore[no-untyped-def]
    plan = plan_memory(*chain(4, inplace=()))
    verify_plan(plan)
    with pytest.raises(VerifyError, match=message):
        verify_plan(change(plan))


# ------------------------------------------------------------------------------------------------ offsets


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12), st.integers(0, 5)), max_size=40))
def test_pack_is_sound(items: list[tuple[int, int, int]]) -> None:
    spans = [Span(64 * s, a, a + d) for s, a, d in items]
    offsets, total = pack(spans)
    for k, s in enumerate(spans):
        assert offsets[k] % 64 == 0 and offsets[k] + s.bytes <= total  # type: ignore[operator]
        for j in range(k):
            t = spans[j]
            if s.first <= t.last and t.first <= s.last and s.bytes and t.bytes:
                assert offsets[k] >= offsets[j] + t.bytes or offsets[j] >= offsets[k] + s.bytes  # type: ignore[operator]
    assert total >= lower_bound(spans) if spans else total == 0  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(12))
def test_pack_is_near_the_bound(seed: int) -> None:
    r = random.Random(seed)
    spans = []
    for _ in range(150):
        first = r.randrange(200)
        spans.append(Span(64 * r.choice([1, 2, 5, 16, 100, 333]), first, first + min(r.randrange(1, 20), r.randrange(1, 60))))
    _, total = pack(spans)
    assert total <= 1.08 * lower_bound(spans)  # type: ignore[operator]


def test_layers_meet_the_bound() -> None:
    """Forward and backward through 20 layers: each activation is alive until its own gradient."""
    spans = [Span(64 * (k % 3 + 1), k, 40 - k) for k in range(20)] + [Span(128, t, t + 1) for t in range(40)]
    _, total = pack(spans)
    assert total == lower_bound(spans)


# ------------------------------------------------------------------------------------------------ order


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_order_is_the_best_for_short_programs(seed: int, count: int) -> None:
    r = random.Random(seed)
    sizes = [r.choice([1, 2, 3, 10, 50]) for _ in range(count)]
    tasks = []
    for k in range(count):
        reads = tuple(sorted(r.sample(range(k), min(k, r.randint(0, 2)))))
        tasks.append(Task(reads, (k,), tuple((k, x) for x in reads if sizes[x] == sizes[k] and r.random() < 0.5), reads))
    order = choose_order(tasks, sizes)
    legal = [p for p in permutations(range(count)) if all(p.index(a) < p.index(k) for k, t in enumerate(tasks) for a in t.after)]
    assert order in legal
    assert peak(order, tasks, sizes) == min(peak(p, tasks, sizes) for p in legal)


@pytest.mark.parametrize("seed", range(5))
def test_order_is_never_worse_than_the_program(seed: int) -> None:
    g, steps = program(seed, 120, [10, 1000, 50], 30)
    assert at(plan_memory(g, steps).lower_bound, 64) <= at(plan_memory(g, steps, reorder=False).lower_bound, 64)


# ------------------------------------------------------------------------------------------------ equal kernels


def doubled(name: str, x: str, z: str, i: str, factor: float = 2.0, dtype=f32) -> Kernel:  # type: ignore[no-untyped-def]
    a, b = Buffer(x, dtype, (8,)), Buffer(z, dtype, (8,))
    value = scalar_apply(lookup("multiply"), (load(a, (var(i),)), const(factor, dtype)), {})
    return Kernel(name, (a,), (b,), (), (Loop(i, const(0), const(8), 1, "serial", (Store(b, (var(i),), value),)),))


def test_dedupe() -> None:
    kernels = [doubled("a", "x", "z", "i"), doubled("b", "p", "q", "j"), doubled("c", "x", "z", "i", 3.0),
               doubled("d", "x", "z", "i", dtype=f64)]
    kept, names = dedupe(kernels)
    assert names == ["k0", "k0", "k1", "k2"] and [k.name for k in kept] == ["k0", "k1", "k2"]
    assert structure(doubled("a", "x", "z", "i", 0.0)) != structure(doubled("a", "x", "z", "i", -0.0))
    assert structure(replace(kernels[0], inplace=((0, 0),))) != structure(kernels[0])
    nan = float("nan")
    assert structure(doubled("a", "x", "z", "i", nan)) == structure(doubled("b", "x", "y", "i", nan))
    assert verify_kernel(kept[0]) == []


def test_a_renaming_must_be_one_to_one() -> None:
    x, y, z = (Buffer(n, i8, (1,)) for n in "xyz")
    zero = (const(0),)

    def copy(a: Buffer, b: Buffer) -> Kernel:
        return Kernel("k", (x, y), (z,), (), (Store(z, zero, load(a, zero)), Store(z, zero, load(b, zero))))

    assert structure(copy(x, y)) != structure(copy(x, x)) != structure(copy(y, x))


# ------------------------------------------------------------------------------------------------ sizes


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_proved_about_sizes_holds(data: st.DataObject) -> None:
    m = Dim.named("m")

    def draw() -> Size:
        c = [data.draw(st.sampled_from([0, 1, 4, 40, 64, 2000])) for _ in range(4)]
        s = c[0] + c[1] * B + c[2] * m + c[3] * B * m
        return aligned(s, 64) if data.draw(st.booleans()) else s

    a, b = draw() + draw(), draw()
    top = upper([a, b])
    proved = at_most(a, b)
    for values in [(0, 0), (1, 0), (0, 1), (3, 5), (17, 2), (100, 1)]:
        env = dict(zip("bm", values, strict=True))
        p, q = evaluate(a, env), evaluate(b, env)
        assert evaluate(top, env) >= max(p, q)
        assert not proved or p <= q
        assert evaluate(aligned(a, 64), env) in range(p, p + 64)


def test_sizes_that_are_proved() -> None:
    assert at_most(B * 40, B * 64 + 8) and at_most(aligned(B * 4, 64), aligned(B * 8, 64)) and at_most(B * 4, aligned(B * 4, 64))
    assert at_most(aligned(B * 4, 64), B * 4 + 63) and not at_most(4096, B * 2000) and at_most(3, 3) and not at_most(4, 3)
    assert aligned(B * 16, 64) == 64 * ((16 * B + 63) // 64) and aligned(B * 32 * 4, 64) == 128 * B
