"""Calls with CuPy arrays, as a user makes them: a CuPy that refuses what the real one refuses, whose kernels run on the shim."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import cuda_backend
import numpy as np
import pytest
from fake_cupy import FakeArray, FakeStream, RunningCupy, standing_in
from ml_dtypes import bfloat16

import xlc

pytestmark = pytest.mark.skipif(cuda_backend.MISSING is not None, reason=str(cuda_backend.MISSING))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def cupy() -> Iterator[RunningCupy]:
    with standing_in(RunningCupy()) as fake, xlc.config.context(cache_dir=""):
        yield fake  # type: ignore[misc]


def there(cupy: RunningCupy, value: Any) -> Any:
    return xlc.tree.map(cupy.asarray, value)


def values(result: Any) -> Any:
    """The results, all of which must be on the device."""
    leaves = xlc.tree.leaves(result)
    assert all(isinstance(a, FakeArray) for a in leaves), [type(a) for a in leaves]
    return xlc.tree.map(lambda a: a.get(), result)


def same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(xlc.tree.leaves(found), xlc.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int64, np.float16, bfloat16, np.float32, np.float64])
def test_arrays_of_every_kind(cupy: RunningCupy, dtype: Any) -> None:
    base = cupy.asarray((RNG.normal(size=(8, 6)) * 3).astype(dtype))
    f = xlc.jit(lambda x: (np.where(x > 1, x, -x) if x.dtype != np.bool_ else ~x, x.sum()))
    for view in (lambda a: a, lambda a: a.T, lambda a: a[1:], lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a[2, 3], lambda a: a[:0],
                 lambda a: a[3]):
        x = view(base)
        h = x.get()
        first, total = values(f(x))
        assert first.dtype == dtype and first.shape == h.shape
        same(first, ~h if dtype is np.bool_ else np.where(h > 1, h, -h))
        same(total, h.astype(np.float64).sum(), 0.05 if dtype in (np.float16, bfloat16) else 1e-5)


PROGRAMS: dict[str, tuple[Callable[[Any], Callable[..., Any]], int]] = {
    "nested jit": (lambda c: xlc.jit(lambda x: xlc.jit(lambda y: y * 2)(x) + 1), 1),
    "gradient": (lambda c: xlc.grad(lambda x: (x ** 2).sum()), 1),
    "jitted gradient": (lambda c: xlc.jit(xlc.value_and_grad(lambda x: (np.tanh(x) ** 2).sum())), 1),
    "vmap": (lambda c: xlc.vmap(lambda x: x / x.sum()), 1),
    "named sizes": (lambda c: xlc.jit(lambda x: x.sum(0), dynamic={"x": {0: "n"}}), 1),
    "scan": (lambda c: lambda x: xlc.scan(lambda s, a: (s + a, s.sum()), x[0], x), 1),
    "loop": (lambda c: xlc.jit(lambda x: xlc.while_loop(lambda s: s.sum() < 100, lambda s: s * s + 1, x)), 1),
    "numbers": (lambda c: xlc.jit(lambda x, k: x * k + np.float32(3)), 2),
    "constant on the left": (lambda c: xlc.jit(lambda x: c + x), 1),
    "constant on the right": (lambda c: xlc.jit(lambda x: x * c - np.sum(x * c)), 1),
    "constant in a function": (lambda c: xlc.jit(lambda x: np.where(x > 0, c, np.maximum(c, x))), 1),
    "constant returned": (lambda c: xlc.jit(lambda x: (c, x + 1)), 1),
    "eager": (lambda c: lambda x: xlc.numpy.cumsum(x, axis=1), 1),
    "eager with a number": (lambda c: lambda x: xlc.numpy.add(x, 2.5), 1),
    "eager softmax": (lambda c: lambda x: xlc.nn.softmax(x), 1),
    "asarray": (lambda c: lambda x: xlc.numpy.asarray(x), 1),
    "zeros_like": (lambda c: lambda x: xlc.numpy.zeros_like(x), 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(cupy: RunningCupy, name: str) -> None:
    make, arguments = PROGRAMS[name]
    args = (X, 2.5)[:arguments]
    c = (X * 2 - 1).astype(np.float32)
    f = make(cupy.asarray(c))
    before = len(cupy.calls)
    expected = make(c)(*args)
    for _ in range(3):
        same(values(f(*there(cupy, args[:1]), *args[1:])), expected)
    copies = "constant" in name or name == "numbers"  # waits when they are made; numbers are copied at each call
    assert not [c for c in cupy.calls[before:] if c[0] == "synchronize"] or copies


def test_whole_training(cupy: RunningCupy) -> None:
    adam = xlc.optim.adam(0.1)

    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((x @ p["w"] - y) ** 2).mean()

    @xlc.jit
    def step(p: Any, memory: Any, x: Any, y: Any) -> Any:
        value, g = xlc.value_and_grad(loss)(p, x, y)
        p, memory = adam.update(g, memory, p)
        return p, memory, value

    p, y = {"w": np.zeros(5, np.float32)}, X[:, 0] * 2
    here = step(p, adam.init(p), X, y)
    q = there(cupy, p)
    found = step(q, adam.init(q), *there(cupy, (X, y)))
    same(values(found), here)
    again = step(*found[:2], *there(cupy, (X, y)))
    same(values(again), step(*here[:2], X, y))


def test_data_on_a_device_is_batched_on_the_host(cupy: RunningCupy) -> None:
    (batch,) = list(xlc.train.Batches(there(cupy, (X, X[:, 0])), 6))
    same(batch, (X, X[:, 0]))


def test_what_is_told_during_a_call(cupy: RunningCupy, capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        xlc.debug.print("the sum is {}", x.sum())
        return x + 1

    same(values(xlc.jit(f)(cupy.asarray(np.ones(4, np.float32)))), np.full(4, 2))
    assert "the sum is 4" in capsys.readouterr().out
    with xlc.config.context(check_nans=True), pytest.raises(xlc.XlcError, match="holds nan"):
        xlc.jit(lambda x: np.log(x))(cupy.asarray(np.full(4, -1, np.float32)))


def test_donated_memory_is_taken_over(cupy: RunningCupy) -> None:
    f = xlc.jit(lambda x: x + 1, donate="x")
    x = cupy.asarray(np.ones(1000, np.float32))
    y = f(x)
    assert y.data.ptr == x.data.ptr
    same(values(y), np.full(1000, 2))
    twice = xlc.jit(lambda x, y: (x + 1, y[::-1] * 2), donate="x")
    same(values(twice(y, y)), (np.full(1000, 3), np.full(1000, 4)))


def test_host_arrays_go_where_it_is_said(cupy: RunningCupy) -> None:
    same(values(xlc.jit(lambda x: x * 2, device="cuda")(X)), X * 2)
    other = FakeArray(np.array(X), 1)
    same(values(xlc.jit(lambda x, y: x * y, device="cuda")(other, X)), X * X)
    assert xlc.jit(lambda x: x * 2)(other).device.id == 1


@pytest.mark.parametrize(("arguments", "words"), [
    (lambda c: (c.asarray(X), X), r"a is on cuda:0 and b is a NumPy array; move one of them"),
    (lambda c: (c.asarray(X), FakeArray(X, 1)), r"a is on cuda:0 and b is on cuda:1; move them to one device"),
    (lambda c: (c.asarray(X.astype(np.complex64)), 1.0), r"a is an array of dtype complex64; complex numbers are not supported"),
])
def test_arguments_that_do_not_go_together(cupy: RunningCupy, arguments: Callable[[Any], Any], words: str) -> None:
    f = xlc.jit(lambda a, b: a + b)
    with pytest.raises(xlc.XlcTypeError, match=rf"test_cuda_cupy\.py:\d+: .*{words}"):
        f(*arguments(cupy))


def test_the_first_call_of_a_thread(cupy: RunningCupy) -> None:
    """A loop's launch asks the driver how many blocks run at a time."""
    f = xlc.jit(lambda x: xlc.while_loop(lambda s: s.sum() < 50, lambda s: s * 2 + 1, x))
    x, found = cupy.asarray(np.ones(7, np.float32)), list[Any]()
    thread = threading.Thread(target=lambda: found.append(f(x)))
    thread.start()
    thread.join()
    same(values(found[0]), f(np.ones(7, np.float32)))


def test_a_call_inside_a_graph_of_the_users(cupy: RunningCupy) -> None:
    """Its memory is not given to anybody else as long as the graph may run."""
    f = xlc.jit(lambda x: np.cumsum(np.sort(x @ x.T, axis=1), axis=0))
    x, stream = cupy.asarray(X), FakeStream(cupy, 5)
    expected = values(f(x))
    with stream:
        stream.begin_capture()
        y = f(x)
        graph = stream.end_capture()
        for k in (1, 2):
            x[...] = float(k) * cupy.asarray(X)
            graph.launch()
            same(values(y), expected * k * k)


def test_the_first_call_inside_a_graph_of_the_users(cupy: RunningCupy) -> None:
    x, stream = cupy.asarray(X), FakeStream(cupy, 6)
    with stream:
        stream.begin_capture()
        with pytest.raises(xlc.XlcError, match=r"is called for the first time while the current stream is captured .* call it once before"):
            xlc.jit(lambda x: x * 3)(x)
        stream.end_capture()


def test_every_launch_is_checked(cupy: RunningCupy) -> None:
    with xlc.config.context(check=3):
        same(values(xlc.jit(lambda x: xlc.nn.softmax(x @ x.T))(cupy.asarray(X))).sum(1), np.ones(6))


def test_memory_that_dlpack_does_not_give_away(cupy: RunningCupy) -> None:
    """Arrays of JAX are not to be written, which CuPy may refuse; its other protocol says where they are all the same."""
    class Theirs:
        shape, dtype = X.shape, X.dtype
        __cuda_array_interface__ = cupy.asarray(X).__cuda_array_interface__

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    def refuse(value: Any) -> Any:
        raise BufferError("read-only")

    theirs, before = Theirs(), cupy.asarray
    cupy.from_dlpack, cupy.asarray = refuse, lambda v: before(X) if v is theirs else before(v)  # type: ignore[method-assign]
    try:
        same(values(xlc.jit(lambda x: x * 3)(theirs)), X * 3)
    finally:
        del cupy.from_dlpack, cupy.asarray


def test_a_library_computes(cupy: RunningCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    from xlc.backends.cuda.schedule import library

    monkeypatch.setattr(library, "LARGE", 10)
    with xlc.config.context(cuda_library="cublas"):
        for a, b in ((X, X.T), (X.T, X), (np.stack([X, X]), np.stack([X.T, X.T]))):
            same(values(xlc.jit(lambda a, b: a @ b)(*there(cupy, (a, b)))), a @ b)
