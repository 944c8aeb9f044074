"""Contractions on GPUs: every schedule through the shim (threads in random order) against NumPy in double precision, by the interpreter,
and what NVRTC makes of it."""

from __future__ import annotations

import re
from typing import Any

import cuda_backend
import ml_dtypes
import numpy as np
import pytest

import xlc
import xlc.nn
from xlc import config
from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.emit import emit_kernel
from xlc.ir.interp import interpret_plan
from xlc.ir.loops import Kernel, Loop, Mma, Wait, statements
from xlc.ir.parse_kernel import parse_kernel
from xlc.ir.verify import VerifyError, verify_kernel
from xlc.passes.dedupe import structure

cuda_backend.install()
shim = pytest.mark.skipif(bool(cuda_backend.MISSING), reason=str(cuda_backend.MISSING))
chips = pytest.mark.skipif(not nvrtc.available(), reason="needs NVRTC")
BF16 = np.dtype(ml_dtypes.bfloat16)
UNIT = {"f": 2.0**-24, "d": 2.0**-53, "e": 2.0**-11}


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.random(shape) < 0.2 if dtype.kind == "b" else rng.standard_normal(shape).astype(dtype)


def kernels(f: Any, *args: Any, device: str = "shim") -> list[Kernel]:
    return list(xlc.jit(f, device=device).compile(*args).kernels)


def holds(kernel: Kernel, kind: type) -> bool:
    return any(isinstance(s, kind) for s in statements(kernel.body))


def product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a @ b in double precision, and the same of magnitudes, to which errors are relative."""
    x, y = a.astype("f8"), b.astype("f8")
    return x @ y, np.abs(x) @ np.abs(y)


def close(got: Any, a: np.ndarray, b: np.ndarray, unit: float) -> None:
    expected, scale = product(a, b)
    bound = (a.shape[-1] + 4) * unit * scale + 1e-30
    assert np.asarray(got).shape == expected.shape
    assert np.all(np.abs(np.asarray(got).astype("f8") - expected) <= bound)


# ------------------------------------------------------------------------------------------------ every shape

SHAPES = [(1, 1, 1), (33, 17, 31), (64, 64, 64), (70, 8, 300), (129, 40, 131), (1, 700, 90), (90, 513, 1), (3, 257, 65), (8, 64, 8)]


@shim
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, int, int]) -> None:
    """Rows, contracted, columns; both operands in both orders, where one compiled program holds all four."""
    m, k, n = shape
    rng = np.random.default_rng(m * k * n)
    a, at, b, bt = (draw(rng, s, "f4") for s in ((m, k), (k, m), (k, n), (n, k)))
    got = xlc.jit(lambda a, at, b, bt: (a @ b, at.T @ b, a @ bt.T, at.T @ bt.T), device="shim:random")(a, at, b, bt)
    for y, (x, z) in zip(got, ((a, b), (at.T, b), (a, bt.T), (at.T, bt.T)), strict=True):
        close(y, x, z, UNIT["f"])


@shim
@pytest.mark.parametrize("dtype", ["f8", "f2", "i1", "u2", "i4", "i8", "?"])
def test_dtypes(dtype: str) -> None:
    rng = np.random.default_rng(7)
    pairs = [(draw(rng, (m, k), dtype), draw(rng, (k, n), dtype)) for m, k, n in ((40, 33, 37), (3, 50, 40), (5, 20, 48))]
    got = xlc.jit(lambda a, b, c, d, e, f: (a @ b, c @ d, e @ f), device="shim:random")(*(x for pair in pairs for x in pair))
    for y, (a, b) in zip(got, pairs, strict=True):
        assert y.dtype == np.dtype(dtype)
        if a.dtype.kind in "iub":
            np.testing.assert_array_equal(y, a @ b)  # integers wrap
        else:
            expected, scale = product(a, b)
            unit = UNIT[a.dtype.char] + 60 * UNIT["f"] if a.dtype.itemsize == 2 else 60 * UNIT["d"]
            assert np.all(np.abs(y.astype("f8") - expected) <= unit * scale)


@shim
@pytest.mark.parametrize("spec", ["bij,bjk->bik", "bij,bj->bi", "i,j->ij", "ibj,jbk->bik", "bi,bi->b", "ij,kl->ijkl", "abij,abkj->abik"])
def test_contractions(spec: str) -> None:
    sizes = {"a": 2, "b": 3, "i": 13, "j": 20, "k": 9, "l": 4}
    rng = np.random.default_rng(len(spec))
    x, y = (draw(rng, tuple(sizes[c] for c in part), "f4") for part in spec.split("->")[0].split(","))
    got = xlc.jit(lambda x, y: xlc.numpy.einsum(spec, x, y), device="shim:random")(x, y)
    np.testing.assert_allclose(got, np.einsum(spec, x.astype("f8"), y.astype("f8")), rtol=0, atol=1e-4)


@shim
def test_empty() -> None:
    f = xlc.jit(lambda x, y: x @ y + 1, device="shim")
    assert f(np.ones((0, 5), "f4"), np.ones((5, 3), "f4")).shape == (0, 3)
    np.testing.assert_array_equal(f(np.ones((40, 0), "f4"), np.ones((0, 30), "f4")), np.ones((40, 30)))


@shim
def test_symbolic_sizes() -> None:
    rng = np.random.default_rng(3)
    w = draw(rng, (33, 20), "f4")
    rows = xlc.jit(lambda x: np.maximum(x @ w, 0), dynamic={"x": {0: "batch"}}, device="shim:random")
    depth = xlc.jit(lambda x, y: x.T @ y, dynamic={"x": {0: "k"}, "y": {0: "k"}}, device="shim:random")
    for n in (1, 7, 50, 0):
        x, y = draw(rng, (n, 33), "f4"), draw(rng, (n, 20), "f4")
        np.testing.assert_allclose(rows(x), np.maximum(x.astype("f8") @ w, 0), rtol=0, atol=1e-4)
        np.testing.assert_allclose(depth(x, y), x.astype("f8").T @ y, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------ convolutions


def windows(x: np.ndarray, k: int) -> np.ndarray:
    """[batch, y, x, channels, ky, kx]"""
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))


@shim
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_convolution_and_its_gradients(dtype: str) -> None:
    """The result, and the gradients of sum(y * g), by a plain loop over the window."""
    rng = np.random.default_rng(5)
    x, w, g = draw(rng, (2, 9, 9, 8), dtype), draw(rng, (3, 3, 8, 16), dtype), draw(rng, (2, 9, 9, 16), dtype)

    def loss(x: Any, w: Any) -> Any:
        return (xlc.nn.conv(x, w, padding=1) * g).sum()

    y, dx, dw = xlc.jit(lambda x, w: (xlc.nn.conv(x, w, padding=1), *xlc.grad(loss, argnums=(0, 1))(x, w)), device="shim:random")(x, w)
    wide, kernel, outer = x.astype("f8"), w.astype("f8"), g.astype("f8")
    padded = np.pad(wide, ((0, 0), (1, 1), (1, 1), (0, 0)))
    back = np.zeros_like(padded)
    for i in range(3):
        for j in range(3):
            back[:, i:i + 9, j:j + 9] += outer @ kernel[i, j].T
    atol = 1e-4 if dtype == "f4" else 0.06
    np.testing.assert_allclose(y, np.einsum("byxcij,ijco->byxo", windows(padded, 3), kernel), rtol=1e-3, atol=atol)
    np.testing.assert_allclose(dw, np.einsum("byxcij,byxo->ijco", windows(padded, 3), outer), rtol=1e-3, atol=atol)
    np.testing.assert_allclose(dx, back[:, 1:-1, 1:-1], rtol=1e-3, atol=atol)


# ------------------------------------------------------------------------------------------------ tensor cores


@shim
@pytest.mark.parametrize("dtype", ["f2", BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize("shape", [(64, 32, 64), (72, 200, 136), (37, 53, 41), (130, 17, 70)], ids=str)
def test_halves(shape: tuple[int, int, int], dtype: Any) -> None:
    """Widened operands: products are exact and summed in f32."""
    m, k, n = shape
    rng = np.random.default_rng(m)
    a, at, b, bt = (draw(rng, s, dtype) for s in ((m, k), (k, m), (k, n), (n, k)))

    def f(*arrays: Any) -> Any:
        a, at, b, bt = (x.astype("f4") for x in arrays)
        return a @ b, at.T @ b, a @ bt.T, at.T @ bt.T

    f_ = xlc.jit(f, device="shim:random")
    found = f_.compile(a, at, b, bt).kernels
    assert all(holds(x, Mma) for x in found)
    assert holds(found[0], Wait) == (k % 2 == 0)  # a copy is of 4 bytes at least
    for y, (x, z) in zip(f_(a, at, b, bt), ((a, b), (at.T, b), (a, bt.T), (at.T, bt.T)), strict=True):
        close(y, x, z, UNIT["f"])


@shim
@pytest.mark.parametrize(("precision", "unit", "mma"),
                         [("highest", 2.0**-24, False), ("high", 2.0**-22, True), ("default", 2.0**-10, True)])
def test_matmul_precision(precision: str, unit: float, mma: bool) -> None:
    rng = np.random.default_rng(1)
    a, b, c = draw(rng, (64, 96), "f4"), draw(rng, (96, 72), "f4"), draw(rng, (72, 96), "f4")
    with config.context(matmul_precision=precision):
        f = xlc.jit(lambda a, b, c: (a @ b, a @ c.T), device="shim:random")
        assert [holds(k, Mma) for k in f.compile(a, b, c).kernels] == [mma, mma]
        y, z = f(a, b, c)
    expected, scale = product(a, b)
    assert np.abs(y - expected).max() <= 4 * unit * scale.max()
    if precision != "highest":
        assert np.abs(y - expected).max() > unit / 2**9 * scale.max()  # it is what it says
    close(z, a, c.T, 4 * unit)


# ------------------------------------------------------------------------------------------------ structure


def gelu_of_products(x: Any, w: Any, b: Any, r: Any) -> Any:
    y = x @ w + b
    return xlc.nn.gelu(y) + r, y


@shim
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_what_follows_is_fused(dtype: str) -> None:
    """Bias, activation, residual, and two results: one kernel, and what lies between is not written."""
    from scipy.special import erf

    rng = np.random.default_rng(2)
    x, w, b, r = draw(rng, (70, 40), dtype), draw(rng, (40, 66), dtype), draw(rng, (66,), dtype), draw(rng, (70, 66), dtype)
    f = xlc.jit(gelu_of_products, device="shim:random")
    (kernel,) = f.compile(x, w, b, r).kernels
    assert len(kernel.outputs) == 2
    y, pre = f(x, w, b, r)
    z = x.astype("f8") @ w + b
    np.testing.assert_allclose(pre, z, rtol=0, atol=2e-5 if dtype == "f4" else 0.03)
    np.testing.assert_allclose(y, z * 0.5 * (1 + erf(z / 2**0.5)) + r, rtol=0, atol=2e-5 if dtype == "f4" else 0.04)


def test_long_sums_with_few_results_are_cut() -> None:
    x, y = np.zeros((20000, 24), "f4"), np.zeros((20000, 40), "f4")
    assert len(kernels(lambda x, y: x.T @ y, x, y)) == 2
    assert len(kernels(lambda x, y: x.T @ y, x[:500], y[:500])) == 1
    assert len(kernels(lambda x, y: x @ y, np.zeros((512, 4096), "f4"), np.zeros((4096, 512), "f4"))) == 1


@shim
def test_cut_sums() -> None:
    rng = np.random.default_rng(9)
    x, y, v = draw(rng, (9001, 12), "f4"), draw(rng, (9001, 20), "f4"), draw(rng, (20011,), "f4")
    got = xlc.jit(lambda x, y, v: (x.T @ y, v @ v), device="shim:random")(x, y, v)
    close(got[0], x.T, y, UNIT["f"])
    close(got[1], v, v, UNIT["f"])


@shim
@pytest.mark.parametrize(("dtype", "missing"), [("f4", "__syncthreads();"), ("f2", "__syncthreads();"), ("f2", "xlc_cp_wait<1>();")])
def test_what_is_missing_is_found(dtype: str, missing: str, tmp_path: Any) -> None:
    """A barrier, or the wait for copies in the background: then some order of threads gives another result."""
    rng = np.random.default_rng(4)
    x, w = draw(rng, (40, 160), dtype), draw(rng, (160, 40), dtype)
    compiled = xlc.jit(lambda x, w: x @ w, device="shim:random").compile(x, w)
    text = compiled.program.backend.text(compiled.plan)
    assert missing in text
    (tmp_path / f"{compiled.plan.name}.cu").write_text(text.replace(missing, ""))
    with config.context(override=str(tmp_path)):
        found = []
        for order in ("ascending", "descending", "random"):
            found.append(xlc.jit(lambda x, w: x @ w, device=f"shim:{order}")(x, w))
    assert not all(np.allclose(y, x.astype("f8") @ w, atol=0.05) for y in found)


SMALL: list[tuple[Any, tuple[int, ...], tuple[int, ...], Any]] = [
    (lambda x, y: x @ y, (9, 8), (8, 10), "f4"), (lambda x, y: x @ y, (2, 9), (9, 4), "f4"),
    (lambda x, y: x @ y.T, (10, 24), (9, 24), "f2"), (lambda x, y: x @ y, (9, 5), (5, 9), "f2")]


@pytest.mark.parametrize("case", range(len(SMALL)))
def test_kernels_mean_what_they_should(case: int) -> None:
    """By the interpreter; the text parses back, and nothing is wrong with it."""
    f, s, t, dtype = SMALL[case]
    rng = np.random.default_rng(case)
    x, y = draw(rng, s, dtype), draw(rng, t, dtype)
    compiled = xlc.jit(f, device="shim").compile(x, y)
    (kernel,) = compiled.kernels
    again = parse_kernel(str(kernel))
    assert str(again) == str(kernel) and structure(again) == structure(kernel)
    assert all("may touch" in message or "may reach" in message for message in verify_kernel(kernel))
    (got,) = interpret_plan(compiled.plan, [x, y])
    if x.dtype.kind == "i":
        np.testing.assert_array_equal(got, f(x, y))
    else:
        np.testing.assert_allclose(got, f(x.astype("f8"), y.astype("f8")), rtol=2e-3, atol=1e-5 if dtype == "f4" else 2e-3)


def test_wrong_statements_are_refused() -> None:
    (kernel,) = kernels(lambda x, y: x @ y, np.zeros((64, 64), "f2"), np.zeros((64, 64), "f2"))
    text = str(kernel)
    for old, new, message in (("shape 32 16 32", "shape 32 8 32", "expected multiples"), ("products 1", "products 2", "in 1 or 3"),
                              ("f16", "f64", "mma on f64 and f64"), ("acc: f32[256,16]", "acc: f32[256,17]", "adds to acc")):
        with pytest.raises(VerifyError, match=message):
            verify_kernel(parse_kernel(text.replace(old, new)))
    with pytest.raises(VerifyError, match="one store of a load to shared memory"):
        verify_kernel(parse_kernel(text.replace("vector e in", "async e in")))


# ------------------------------------------------------------------------------------------------ what NVRTC makes of it


def large() -> list[tuple[str, Any, tuple[Any, ...], int]]:
    """(name, function, arguments, the most registers)"""
    def z(*shape: int, dtype: Any = "f4") -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    def mm(x: Any, y: Any) -> Any:
        return x @ y

    half = {"dtype": BF16}
    return [
        ("f32", mm, (z(4096, 4096), z(4096, 4096)), 128),
        ("f32, primes", lambda x, y: x.T @ y.T, (z(4099, 1031), z(1031, 4099)), 168),
        ("f32 with gelu", lambda x, y, b: xlc.nn.gelu(x @ y + b), (z(4096, 1024), z(1024, 4096), z(4096)), 168),
        ("f64", mm, (z(2048, 2048, dtype="f8"), z(2048, 2048, dtype="f8")), 168),
        ("i8", mm, (z(2048, 2048, dtype="i1"), z(2048, 2048, dtype="i1")), 168),
        ("bf16", mm, (z(4096, 4096, **half), z(4096, 4096, **half)), 192),
        ("bf16 with gelu", lambda x, y, b: xlc.nn.gelu(x @ y.T + b), (z(4096, 1024, **half), z(4096, 1024, **half), z(4096, **half)), 192),
        ("f16 with a residual", lambda x, y, b, r: x @ y + b + r, (*[z(4096, 4096, dtype="f2")] * 2, z(4096, dtype="f2"),
                                                                   z(4096, 4096, dtype="f2")), 192),
        ("bf16, primes", mm, (z(1031, 1033, **half), z(1033, 1031, **half)), 192),
        ("conv", lambda x, w: xlc.nn.conv(x, w, padding=1), (z(32, 56, 56, 64), z(3, 3, 64, 64)), 168),
        ("conv of halves", lambda x, w: xlc.nn.conv(x, w, stride=2), (z(32, 57, 57, 64, dtype="f2"), z(3, 3, 64, 64, dtype="f2")), 128),
        ("matrix times vector", mm, (z(4096, 4096), z(4096)), 128),
        ("few rows", mm, (z(8, 4096, **half), z(4096, 4096, **half)), 128),
        ("batched", mm, (z(64, 512, 64), z(64, 64, 512)), 168),
    ]


@chips
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", range(14))
def test_registers(case: int, arch: str) -> None:
    """No spills, no local memory."""
    name, f, args, most = large()[case]
    compiled = xlc.jit(f, device=f"cuda:{arch}").compile(*args)
    backend: Any = compiled.program.backend
    done = backend.compiled(backend.text(compiled.plan))
    found = done.resources
    assert "(C75" not in done.log, (name, done.log)
    assert found and not any(r.local for r in found.values()), (name, found)
    assert max(r.registers for r in found.values()) <= most, (name, found)
    assert all(emit_kernel(k).shared <= backend.machine.shared for k in compiled.kernels)


@chips
@pytest.mark.parametrize(("case", "loop"), [
    (0, {"fma.rn.f32": 512, "ld.shared.v4.f32": 32, "ld.shared": 32, "ld.global.nc.v4.f32": 2, "bar.sync": 1}),
    (5, {"mma.sync": 64, "ldmatrix": 16, "cp.async.cg": 6, "cp.async.wait_group": 1, "bar.sync": 1, "ld.shared": 0, "ld.global": 0})])
def test_the_main_loop(case: int, loop: dict[str, int]) -> None:
    """Nothing but what there must be, and in whole vectors. In f32 a step is 8 contracted elements of 128 x 128 tiles, in bf16 32 of
    128 x 256."""
    _, f, args, _ = large()[case]
    compiled = xlc.jit(f, device="cuda:sm_80").compile(*args)
    backend: Any = compiled.program.backend
    ptx = backend.compiled(backend.text(compiled.plan)).ptx
    head = max(re.finditer(r"^(\$L__BB\d+_\d+):", ptx, re.M), key=lambda m: len(_body(ptx, m)))
    body = _body(ptx, head)
    assert {k: len(re.findall(rf"^\s*(?:@\S+ )?{re.escape(k)}", body, re.M)) for k in loop} == loop


def _body(ptx: str, head: re.Match[str]) -> str:
    """A loop: from its label to the jump back."""
    back = [m.end() for m in re.finditer(rf"bra\S*\s+{re.escape(head[1])};", ptx) if m.start() > head.start()]
    return ptx[head.start():back[-1]] if back else ""


def test_tiles_fill_the_chip() -> None:
    """Large tiles for large results, small ones where the multiprocessors would wait."""
    def tile(m: int, n: int) -> str:
        (kernel,) = kernels(lambda x, y: x @ y, np.zeros((m, 512), "f4"), np.zeros((512, n), "f4"), device="cuda:sm_90")
        assert isinstance(kernel.body[0], Loop)
        return str(kernel.body[0].stop)

    assert tile(4096, 4096) == "1024" and tile(512, 512) == "128"
