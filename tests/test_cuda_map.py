"""Elementwise kernels for a GPU: what threads read and write together, and that it is right, in any order of threads."""

from __future__ import annotations

import cuda_backend
import numpy as np
import pytest
from cuda_kernels import Program, checked

from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.emit import emit_kernel
from xlc.backends.cuda.schedule.bind import THREADS
from xlc.ir.loops import Loop, Store, statements

pytestmark = pytest.mark.skipif(bool(cuda_backend.MISSING), reason=str(cuda_backend.MISSING))
CHIPS = ("sm_80", "sm_90") if nvrtc.available() else ()


def random(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-50, 50, shape).astype(dtype)


@pytest.mark.parametrize("rows, columns", [(1, 5), (31, 33), (32, 32), (8, 257), (3, 100), (64, 40)])
def test_transposition(rows: int, columns: int) -> None:
    x, y = random(rows, columns), random(columns, rows)
    got = checked(lambda x, y: np.transpose(x) * 2 + y, x, y, interpret=rows * columns < 400)
    np.testing.assert_array_equal(got, x.T * 2 + y)


@pytest.mark.parametrize("dtype", ["i1", "f2", "f8", "?"])
def test_transposition_of_other_sizes_of_elements(dtype: str) -> None:
    x = random(3, 20, 40, dtype=dtype)
    got = checked(lambda x: np.transpose(x, (0, 2, 1)), x, interpret=False, chips=CHIPS[:1])
    np.testing.assert_array_equal(got, x.transpose(0, 2, 1))


def test_two_operands_are_turned_and_sizes_may_have_names() -> None:
    x, y = random(40, 50), random(40, 50)
    got = checked(lambda x, y: np.transpose(x) - np.transpose(y), x, y, interpret=False, chips=CHIPS,
                  dynamic={"x": {0: "n", 1: "m"}, "y": {0: "n", 1: "m"}})
    np.testing.assert_array_equal(got, x.T - y.T)


def touched(kernel, thread: int) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    """The addresses of global memory that a thread of the first block touches, by buffer, in order."""
    from xlc.ir.loops import LOAD, Buffer, Expr, expressions, walk
    from xlc.ir.races import _scalar

    found: dict[str, list[int]] = {}

    def value(e: Expr, env: dict[str, int]) -> int:
        known: dict[Expr, int] = {}
        for x in walk(e):
            known[x] = env[x["name"]] if x.op.name == "var" else x.value if x.is_const else _scalar(x.op.name, [known[a] for a in x.args])
        return known[e]

    def note(b: Buffer, index: tuple[Expr, ...], env: dict[str, int]) -> None:
        if b.space == "global":
            found.setdefault(b.name, []).append(value(index[0], env))

    def run(body, env: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
        env = dict(env)
        for s in body:
            for e in walk(*expressions(s)):
                if e.op is LOAD:
                    note(e["buffer"], e.args, env)
            if isinstance(s, Store):
                note(s.buffer, s.index, env)
            elif isinstance(s, Loop):
                chosen = {"block": [0], "thread": [thread]}.get(s.kind)
                for i in chosen or range(value(s.start, env), value(s.stop, env), s.step):
                    run(s.body, {**env, s.var: i})
            elif hasattr(s, "condition"):
                run(s.body if value(s.condition, env) else s.orelse, env)
            elif hasattr(s, "name"):
                env[s.name] = value(s.value, env)

    run(kernel.body, {})
    return found


def test_a_warp_reads_and_writes_neighbours_of_a_turned_operand() -> None:
    (kernel,) = Program(lambda x: np.transpose(x) + 1, random(64, 96)).kernels
    threads = [touched(kernel, t) for t in range(32)]
    for name in ("b0", "b1"):
        for access in zip(*(t[name] for t in threads), strict=True):
            assert list(access) == list(range(access[0], access[0] + 32))


CASES = {
    "rows of 7": (lambda x, y: x + y, (10, 7), (7,)),
    "rows of 12": (lambda x, y: x + y, (10, 12), (12,)),
    "one for all": (lambda x, y: x * y, (13, 11), ()),
    "a column": (lambda x, y: x * y, (13, 8), (13, 1)),
    "padding": (lambda x, y: np.pad(x, ((1, 2), (3, 4))) + y, (9, 10), ()),
    "padding by vectors": (lambda x, y: np.pad(x, ((1, 0), (4, 8))) + y, (9, 12), ()),
    "reversed": (lambda x, y: x[:, ::-1] * y, (9, 12), ()),
    "slice": (lambda x, y: x[1:, 1:] + y, (19, 13), ()),
    "concatenation of rows": (lambda x, y: np.concatenate([x, y], 0), (9, 12), (5, 12)),
    "concatenation of columns": (lambda x, y: np.concatenate([x, y], 1), (9, 12), (9, 4)),
    "concatenation of odd columns": (lambda x, y: np.concatenate([x, y], 1), (9, 13), (9, 5)),
    "empty": (lambda x, y: x + y, (0, 5), (5,)),
    "a number": (lambda x, y: x + y, (), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_elements(case: str) -> None:
    f, one, other = CASES[case]
    x, y = random(*one), random(*other)
    np.testing.assert_array_equal(checked(f, x, y), f(x, y))


@pytest.mark.parametrize("n", [1, 31, 255, 257, 1000, 4097])
@pytest.mark.parametrize("dtype", ["i1", "f2", "f4", "f8"])
def test_lengths(n: int, dtype: str) -> None:
    x = random(n, dtype=dtype)
    np.testing.assert_array_equal(checked(lambda x: x + x, x, interpret=n < 300), x + x)


def test_vectors_of_16_bytes() -> None:
    """Also in rows, under conditions that all lanes share, and across the ends of odd rows."""
    for f, one, other, loads in [(lambda x, y: x + y, (64, 96), (96,), 2), (lambda x, y: np.concatenate([x, y], 1), (64, 96), (64, 32), 2),
                                 (lambda x, y: x + y, (64, 97), (97,), 1)]:
        (kernel,) = Program(f, random(*one), random(*other)).kernels
        text = str(emit_kernel(kernel))
        assert text.count("*(const xlc_vec<float, 4>*)(") == loads
        assert "*(xlc_vec<float, 4>*)(" in text


def test_large_work_is_several_vectors_of_a_thread() -> None:
    program = Program(lambda x: x * 2 + 1, np.zeros(1 << 25, "f4"))
    (kernel,) = program.kernels
    (blocks,) = kernel.body
    assert isinstance(blocks, Loop)
    assert blocks.stop.value == (1 << 25) // (THREADS * 4 * 4)
    assert any(isinstance(s, Loop) and s.kind == "unroll" and s.stop.value == 4 for s in statements(kernel.body))
