"""The entry function of a plan: order of launches, addresses, named sizes, threads, several modules; and loading it."""

from __future__ import annotations

import ctypes
import gc
import threading

import numpy as np
import pytest

from xlc import config
from xlc.backends.cpu.backend import BACKEND, CpuBackend, pack, unpack
from xlc.backends.cpu.compile import load as load_code
from xlc.backends.cpu.entry import aliases, emit_plan, symbol
from xlc.backends.cpu.target import host
from xlc.errors import XlcError
from xlc.ir.loops import Buffer, Kernel, Loop, Store, const, size, var
from xlc.ir.loops import load as read
from xlc.ir.node import Array
from xlc.ir.op import lookup
from xlc.ir.plan import Launch, Plan, Slot
from xlc.ir.types import Dim, Type, f32

N = Dim.named("n")
P = ctypes.c_void_p
TASK = ctypes.CFUNCTYPE(None, P, ctypes.c_int64, ctypes.c_int64)
RUN = ctypes.CFUNCTYPE(None, P, P, P, ctypes.c_int64)
CHUNK = 4096


class Parallel(ctypes.Structure):
    _fields_ = (("ctx", P), ("threads", ctypes.c_int64), ("run", RUN))


class Workers:
    """An ``xlc_parallel`` that runs the parts last to first, and counts."""

    def __init__(self, threads: int = 2):
        self.calls: list[int] = []

        def run(ctx: int, task: int, closure: int, n: int) -> None:
            self.calls.append(n)
            f = TASK(task)
            for lo, hi in ((n // 2, n), (n // 3, n // 2), (0, n // 3)):
                f(closure, lo, hi)

        self.struct = Parallel(None, threads, RUN(run))

    @property
    def pointer(self):
        return ctypes.byref(self.struct)


class Program:
    """A loaded plan."""

    def __init__(self, plan: Plan, backend: CpuBackend = BACKEND):
        self.plan = plan
        self.library = backend.load(backend.compile(plan), plan.name)
        self.entry = ctypes.CFUNCTYPE(ctypes.c_int32, P, P, P, P)(self.library.entry)
        self.workspace = ctypes.CFUNCTYPE(ctypes.c_int64, P)(self.library.workspace)

    def __call__(self, *buffers: np.ndarray, dims: tuple[int, ...] = (), par=None) -> int:
        sizes = (ctypes.c_int64 * max(len(dims), 1))(*dims)
        space = np.zeros(self.workspace(sizes) + 64, np.uint8)
        pointers = (P * len(buffers))(*(b.ctypes.data for b in buffers))
        return self.entry(pointers, sizes, (space.ctypes.data + 63) // 64 * 64, par)


def chunks(name: str, f, inputs: int = 1, extent=N, inplace=()) -> Kernel:
    """f of the elements of the inputs, in parallel chunks."""
    ins, out = tuple(Buffer(f"b{k}", f32, (extent,)) for k in range(inputs)), Buffer("out", f32, (extent,))
    c, at, lane = var("c"), var("i"), var("v")
    end = lookup("minimum")(c + CHUNK, size(extent))
    body = Loop("v", const(0), lookup("minimum")(end - at, const(16)), 1, "vector", (
        Store(out, (at + lane,), f(*(read(b, (at + lane,)) for b in ins))),), 16)
    sizes = ("n",) if isinstance(extent, Dim) else ()
    return Kernel(name, ins, (out,), sizes, (Loop("c", const(0), size(extent), CHUNK, "parallel", (
        Loop("i", c, end, 16, "serial", (body,)),)),), inplace)


def three_steps(name: str = "main", extent=N) -> Plan:
    """y = sqrt(x + 1) + w + 1, through two temporaries."""
    t = Type(f32, (extent,))
    padded = (extent * 4 + 63) // 64 * 64
    slots = (Slot("x", t, "param", 0), Slot("a", t, "arena", 0), Slot("b", t, "arena", padded), Slot("c", t, "arena", 0),
             Slot("y", t, "result", 0), Slot("w", t, "const", 0))
    launches = (Launch("k0", ("x",), ("a",)), Launch("k1", ("a",), ("b",)), Launch("k2", ("b", "w"), ("c",)), Launch("k0", ("c",), ("y",)))
    kernels = (chunks("k0", lambda x: x + 1.0, 1, extent), chunks("k1", lambda x: lookup("sqrt")(x), 1, extent),
               chunks("k2", lambda x, w: x + w, 2, extent))
    weights = np.arange(extent, dtype=np.float32) if isinstance(extent, int) else np.zeros(1, np.float32)
    return Plan(name, ("n",) if isinstance(extent, Dim) else (), slots, launches, kernels, (Array(weights),), 2 * padded, 0)


@pytest.mark.parametrize("modules", [1, 2, 7])
def test_sizes_threads_and_modules(modules: int) -> None:
    plan = three_steps()
    texts = emit_plan(plan, host(), modules)
    assert len(texts) == min(modules, len(plan.kernels))

    class Cut(CpuBackend):
        def texts(self, plan: Plan) -> list[str]:
            return texts

    program = Program(plan, Cut())
    for n in (0, 1, 5, 1000, CHUNK, 3 * CHUNK + 7, 20 * CHUNK + 1):
        rng = np.random.default_rng(n)
        x, w = rng.random(n, np.float32), rng.random(n, np.float32)
        want = np.sqrt(x + np.float32(1)) + w + np.float32(1)
        assert program.workspace((ctypes.c_int64 * 1)(n)) == (n * 4 + 63) // 64 * 128
        for threads in (None, 1, 2):
            workers = Workers(threads or 1)
            y = np.zeros(n, np.float32)
            assert program(x, y, w, dims=(n,), par=workers.pointer if threads else None) == 0
            assert np.array_equal(y, want)
            chunk_count = -(-n // CHUNK)
            assert set(workers.calls) <= {chunk_count}
            assert bool(workers.calls) == (threads == 2 and chunk_count > 10) or (1 < chunk_count <= 10)


def test_small_static_work_never_forks() -> None:
    program, workers = Program(three_steps("small", 2 * CHUNK + 1)), Workers()
    x, y = np.ones(2 * CHUNK + 1, np.float32), np.zeros(2 * CHUNK + 1, np.float32)
    assert program(x, y, x, par=workers.pointer) == 0
    assert workers.calls == [] and np.array_equal(y, np.sqrt(x + 1) + x + 1)
    assert "task" not in emit_plan(program.plan, host())[0]


def test_bad_size_is_an_error_code() -> None:
    program = Program(three_steps())
    x = np.zeros(1, np.float32)
    assert program.entry((P * 3)(x.ctypes.data, x.ctypes.data, x.ctypes.data), (ctypes.c_int64 * 1)(-1), x.ctypes.data, None) == 1


def test_donated_and_in_place_buffers_may_alias() -> None:
    t = Type(f32, (1000,))
    kernel = chunks("k0", lambda x: x + 1.0, 1, 1000, ((0, 0),))
    plan = Plan("main", (), (Slot("x", t, "param", 0), Slot("a", t, "arena", 0), Slot("b", t, "arena", 0), Slot("y", t, "result", 0)),
                (Launch("k0", ("x",), ("a",)), Launch("k0", ("a",), ("b",)), Launch("k0", ("b",), ("y",))), (kernel,), (), 4032, 0,
                ((0, 0),))
    assert [aliases(plan, launch) for launch in plan.launches] == [frozenset(), {0, 1}, frozenset()]
    assert "noalias" not in emit_plan(plan, host())[0]
    x = np.arange(1000, dtype=np.float32)
    assert Program(plan)(x, x) == 0
    assert np.array_equal(x, np.arange(3, 1003, dtype=np.float32))
    direct = Plan("main", (), (plan.slots[0], plan.slots[3]), (Launch("k0", ("x",), ("y",)),), (kernel,), (), 0, 0, ((0, 0),))
    assert aliases(direct, direct.launches[0]) == {0, 1}


def test_many_kernels_compile_on_several_threads() -> None:
    t = Type(f32, (100,))
    kernels = tuple(chunks(f"k{q}", lambda x, q=q: x + float(q), 1, 100) for q in range(20))
    slots = (Slot("t0", t, "param", 0), *(Slot(f"t{q}", t, "arena", 448 * q) for q in range(1, 20)), Slot("t20", t, "result", 0))
    launches = tuple(Launch(f"k{q}", (f"t{q}",), (f"t{q + 1}",)) for q in range(20))
    plan = Plan("chain", (), slots, launches, kernels, (), 448 * 20, 0)
    x, y = np.zeros(100, np.float32), np.zeros(100, np.float32)
    assert Program(plan)(x, y) == 0
    assert (y == sum(range(20))).all()
    blob = BACKEND.compile(plan)
    assert pack(unpack(blob)) == blob and len(unpack(blob)) == len(BACKEND.texts(plan))


def test_names_become_symbols() -> None:
    assert [symbol(s) for s in ("main", "<lambda>", "2d", "naïve", "")] == ["main", "_lambda_", "_2d", "na_ve", "_"]
    program = Program(three_steps("<lambda>"))
    x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert program(x, y, x, dims=(3,)) == 0 and y[0] == np.sqrt(np.float32(2)) + np.float32(2)


def test_compiling_and_loading_from_several_threads() -> None:
    plan = three_steps("main", 50)
    results: list[float] = []

    def work() -> None:
        for _ in range(5):
            x, y = np.full(50, 3, np.float32), np.zeros(50, np.float32)
            Program(plan)(x, y, x)
            results.append(float(y[0]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert results == [6.0] * 20


def test_missing_function_and_rejected_text() -> None:
    from xlc.backends.cpu.compile import compile_text

    with pytest.raises(XlcError, match="no function named nothing"):
        load_code([compile_text("define i32 @f() { ret i32 0 }", host())], ["nothing"])
    with pytest.raises(XlcError, match="LLVM rejects"):
        compile_text("define nonsense", host())


def test_override(tmp_path) -> None:
    plan = three_steps("edited", 50)
    tmp_path.joinpath("edited.ll").write_text(BACKEND.texts(plan)[0].replace("fadd", "fsub"))
    x, y = np.full(50, 2, np.float32), np.zeros(50, np.float32)
    with config.context(override=str(tmp_path)):
        assert Program(plan)(x, y, x) == 0
    assert (y == np.sqrt(np.float32(1)) - 2 - 1).all()


def test_sources() -> None:
    found = BACKEND.sources(three_steps())
    assert set(found) == {"k0", "k1", "k2"} and "define" in found["k1"]["llvm"] and "sqrt" in found["k1"]["s"]
