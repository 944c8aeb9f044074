"""Attention of halves on GPUs: probabilities that stay in registers, the exponential of two instructions, masks at edges alone. Errors
against NumPy in float64, within what the analysis allows; what chips make of it."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_shim import ShimDevice, table
from test_cuda_attention import attention, causal, check, chips, compiled, plain, probabilities, shim, values

import xlc
import xlc.nn
from xlc.backends.cuda.emit import emit_kernel
from xlc.ir.interp import interpret_kernel
from xlc.ir.loops import If, Kernel, Loop, Mma, expressions, statements, walk
from xlc.ir.op import lookup
from xlc.ir.parse_kernel import parse_kernel
from xlc.ir.verify import VerifyError, verify_kernel

BF16 = np.dtype(ml_dtypes.bfloat16)
HALVES = ["f2", BF16]
UNIT = {np.dtype("f2"): (2.0**-11, 2.0**-25), BF16: (2.0**-8, 2.0**-134)}  # half an ulp of 1, and of the least number


def allowed(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, p: np.ndarray) -> np.ndarray:
    """How far the result may be off: each probability and the result are rounded to a half. Besides, a score is a sum in f32, which counts
    for as much as it is off; the exponential is |x - m| 2^-24 + 2^-22 off, and the sum of n of them n 2^-24."""
    unit, least = UNIT[q.dtype]
    q, k, v = (x.astype("f8") for x in (q, k, v))
    score = np.abs(q) @ np.swapaxes(np.abs(k), -1, -2) * scale
    far = np.where(p > 0, -np.log(np.maximum(p, 1e-300)), 0)
    each = unit + 2.0**-22 + (far + 2 * score * q.shape[-1] + k.shape[-2]) * 2.0**-24
    return (p * each) @ np.abs(v) + least * np.abs(v).sum(-2, keepdims=True) + 2 * unit * (p @ np.abs(v)) + least


def close(got: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, p: np.ndarray) -> None:
    error = np.abs(np.asarray(got).astype("f8") - p @ v.astype("f8"))
    assert (error <= allowed(q, k, v, q.shape[-1] ** -0.5, p)).all(), error.max()


def hopper(f: Any, *args: np.ndarray) -> Any:
    """The result on a chip whose four warps multiply together, in the one kernel that there is; the forms of its products."""
    e = xlc.jit(f, device="shim:random:sm_90").compile(*args)
    (kernel,) = e.kernels
    assert all("may touch" in u or "may reach" in u or "bitwise_xor(tx" in u for u in verify_kernel(kernel))
    found = [s for s in statements(kernel.body) if isinstance(s, Mma)]
    assert [(s.a.space, s.group, s.shape[0]) for s in found] == [
        ("register" if found[0].shape[2] == 64 else "shared", 128, 64), ("register", 128, 64)]
    return e(*args)


def drawn(*shapes: tuple[int, ...], dtype: Any) -> list[np.ndarray]:
    return [values(*s, seed=n, dtype=dtype) for n, s in enumerate(shapes)]


# ------------------------------------------------------------------------------------------------ values

SIZES = [(3, 40, 40, 16, 16), (2, 500, 200, 64, 64), (3, 250, 70, 72, 100), (1, 130, 300, 24, 8)]


@shim
@pytest.mark.parametrize("mask", [plain, causal])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_errors(sizes: tuple[int, ...], dtype: Any, mask: Any) -> None:
    """Batch, queries, keys, elements of a key and of a value; of the second and third each warp has 32 rows."""
    batch, queries, keys, depth, width = sizes
    q, k, v = drawn((batch, queries, depth), (batch, keys, depth), (batch, keys, width), dtype=dtype)
    e = xlc.jit(mask, device="shim:random").compile(q, k, v)
    (scores, result) = (s for s in statements(e.kernels[0].body) if isinstance(s, Mma))
    assert result.a.space == "register" and scores.shape[0] == result.shape[0] == (32 if queries in (500, 250) else 16)
    close(e(q, k, v), q, k, v, probabilities(q, k, causal=mask is causal))


FOUR = [(1, 40, 40, 64, 64), (2, 150, 200, 64, 64), (1, 130, 450, 128, 128), (2, 70, 66, 256, 64), (1, 129, 129, 64, 128)]


@shim
@pytest.mark.parametrize("mask", [plain, causal])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("sizes", FOUR, ids=str)
def test_four_warps_together(sizes: tuple[int, ...], dtype: Any, mask: Any) -> None:
    batch, queries, keys, depth, width = sizes
    q, k, v = drawn((batch, queries, depth), (batch, keys, depth), (batch, keys, width), dtype=dtype)
    close(hopper(mask, q, k, v), q, k, v, probabilities(q, k, causal=mask is causal))


@shim
def test_four_warps_take_operands_as_they_lie() -> None:
    """Transposed keys and values, some that are no copies, heads beside tokens, windows that leave no key, sizes with names."""
    q, k, v = drawn((70, 64), (150, 64), (150, 64), dtype="f2")
    p = probabilities(q, k)
    close(hopper(lambda q, k, v: plain(q, k.T, v.T), q, k.T.copy(), v.T.copy()), q, k, v, p)
    close(hopper(lambda q, k, v: plain(q, k[::-1], v[::-1]), q, k, v), q, k, v, p)
    heads = [np.stack([x] * 3, 1) for x in (q, k, v)]
    close(hopper(lambda *x: plain(*(y.transpose(1, 0, 2) for y in x)), *heads)[1], q, k, v, p)
    q = values(300, 64, dtype="f2")  # the last block has no key
    i, j = np.arange(300)[:, None], np.arange(150)

    def window(q: Any, k: Any, v: Any) -> Any:
        i, j = xlc.numpy.arange(300)[:, None], xlc.numpy.arange(150)
        return xlc.nn.softmax(np.where((j < i - 9) & (j > i - 40), q @ k.T * np.float16(0.125), np.float16(-np.inf))) @ v

    got = np.asarray(hopper(window, q, k, v))
    assert np.isnan(got[:10]).all() and np.isnan(got[189:]).all()
    close(got[10:189], q[10:189], k, v, probabilities(q, k, (j < i - 9) & (j > i - 40))[10:189])
    f = xlc.jit(causal, device="shim:random:sm_90", dynamic={a: {0: "tokens"} for a in range(3)})
    for n in (1, 64, 130):
        close(f(q[:1].repeat(n, 0), k[:n], v[:n]), q[:1].repeat(n, 0), k[:n], v[:n], probabilities(q[:1].repeat(n, 0), k[:n], causal=True))


@shim
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_large_scores(dtype: Any) -> None:
    """Probabilities from 1 down to 0; the exponential of what is far below the greatest is 0."""
    q, k, v = drawn((70, 32), (130, 32), (130, 16), dtype=dtype)
    q = (q.astype("f4") * 30).astype(dtype)
    close(xlc.jit(plain, device="shim:random")(q, k, v), q, k, v, probabilities(q, k))


@shim
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 60000.0])
def test_values_that_are_not_finite(value: float) -> None:
    """As of f32, of which the exponential is exact."""
    q, k, v = drawn((5, 8), (100, 8), (100, 8), dtype="f2")
    q[3, 2] = value
    k[7, 2] = 1
    got = xlc.jit(plain, device="shim:random")(q, k, v)
    wide = np.asarray(xlc.jit(plain, device="shim:random")(*(x.astype("f4") for x in (q, k, v))))
    np.testing.assert_allclose(got.astype("f4"), wide, rtol=4e-3, atol=4e-3)


@shim
def test_rows_without_a_key() -> None:
    q, k, v = drawn((300, 8), (300, 8), (300, 8), dtype=BF16)
    mask = np.arange(300) >= np.arange(300)[:, None] + 30
    got = np.asarray(xlc.jit(lambda q, k, v, m: xlc.nn.attention(q, k, v, mask=m), device="shim")(q, k, v, mask))
    assert np.isnan(got[270:].astype("f4")).all()
    close(got[:270], q[:270], k, v, probabilities(q, k, mask)[:270])


@shim
@pytest.mark.parametrize("scale", [0.3, -0.3, 0.0])
def test_factors_of_scores(scale: float) -> None:
    """Only one above 0 may be moved into the exponent."""
    q, k, v = drawn((40, 16), (70, 16), (70, 16), dtype="f2")
    expected = attention((q.astype("f8") * scale * 4).astype("f8"), k, v)
    check(lambda q, k, v: xlc.nn.softmax(q @ k.T * np.float16(scale)) @ v, (q, k, v), expected, 8e-3)
    if scale > 0:
        check(lambda q, k, v: xlc.nn.softmax(q @ k.T / np.float16(1 / scale)) @ v, (q, k, v), expected, 8e-3)


@shim
def test_what_stands_between() -> None:
    """A bias, dropped probabilities, a window, another epilogue, keys that go through registers, sizes with names."""
    q, k, v, bias, keep = drawn((700, 16), (300, 16), (300, 16), (700, 300), (700, 300), dtype="f2")
    keep = keep > -0.5
    i, j = np.arange(700)[:, None], np.arange(300)
    inside = (2 * j < i + 3) & (i - 2 * j <= 180)

    def f(q: Any, k: Any, v: Any, bias: Any, keep: Any) -> Any:
        i, j = xlc.numpy.arange(700)[:, None], xlc.numpy.arange(300)
        s = q @ k.T * np.float16(0.25) + bias
        p = xlc.nn.softmax(np.where((2 * j < i + 3) & (i - 2 * j <= 180), s, np.float16(-np.inf)))
        return np.where(keep, p * np.float16(1.25), np.float16(0)) @ v[::-1] + q

    s = np.where(inside, q.astype("f8") @ k.astype("f8").T * 0.25 + bias.astype("f8"), -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    expected = np.where(keep, e / e.sum(-1, keepdims=True) * 1.25, 0) @ v[::-1].astype("f8") + q.astype("f8")
    check(f, (q, k, v, bias, keep), expected, 1e-2)


@shim
def test_named_sizes() -> None:
    f = xlc.jit(causal, device="shim:random", dynamic={a: {1: "tokens"} for a in range(3)})
    for n in (1, 63, 64, 300):
        q, k, v = drawn((2, n, 8), (2, n, 8), (2, n, 8), dtype=BF16)
        close(f(q, k, v), q, k, v, probabilities(q, k, causal=True))


@shim
def test_the_order_of_threads_does_not_matter() -> None:
    args = drawn((2, 500, 64), (2, 300, 64), (2, 300, 64), dtype=BF16)
    for arch in ("sm_80", "sm_90"):
        got = [np.asarray(xlc.jit(plain, device=f"shim:{o}:{arch}")(*args)).view("u2") for o in ("ascending", "descending", "random")]
        np.testing.assert_array_equal(got[0], got[1])
        np.testing.assert_array_equal(got[0], got[2])


# ------------------------------------------------------------------------------------------------ parts

MMA = """kernel k(in a: f16[1024], in b: f16[1024], out y: f32[4096]) {
  block x in 0..1 {
    local p: f16[256,16] register
    local acc: f32[256,16] register
    local s: f16[512] shared
    thread t in 0..256 {
      unroll e in 0..16 {
        p[t,e] = a[remainder(t, 32)//4*16+remainder(e//2, 2)*128+remainder(e//4, 2)*8+remainder(t, 4)*2+remainder(e, 2)+e//8*256]
        acc[t,e] = 1.0
      }
      vector v in 0..2 width 2 { s[t*2+v] = b[t*2+v] }
    }
    thread t in 0..256 {
      mma acc[t], p[0] steps 0 0, s[0] steps 1 16, shape 32 16 16 products 1
    }
    thread t in 0..256 {
      unroll e in 0..16 { y[t*16+e] = acc[t,e] }
    }
  }
}"""


def test_a_left_operand_in_registers() -> None:
    """Read back from its text; by the interpreter and as a kernel on the shim; what would read registers too early is refused."""
    kernel = parse_kernel(MMA)
    assert str(parse_kernel(str(kernel))) == str(kernel) and "mma acc[t], p[0] steps 0 0, s[0] steps 1 16" in str(kernel)
    verify_kernel(kernel)
    a, b = values(1024, dtype="f2"), values(1024, seed=1, dtype="f2")
    product = a[:512].reshape(32, 16).astype("f8") @ b[:256].reshape(16, 16).astype("f8") + 1
    t, e = np.arange(256)[:, None], np.arange(16)
    expected = product[e // 8 * 16 + e // 2 % 2 * 8 + t % 32 // 4, e // 4 % 2 * 8 + t % 4 * 2 + e % 2]
    np.testing.assert_allclose(interpret_kernel(kernel, [a, b])[0].reshape(256, 16), expected, rtol=1e-6)
    early = MMA.replace("    }\n    thread t in 0..256 {\n      mma", "      mma")
    for text, message in ((early, "reads p of other threads, and writes it"), (MMA.replace("p: f16[256,16]", "p: f16[256,17]"), "takes p"),
                          (MMA.replace("f16", "f32"), "takes p")):
        with pytest.raises(VerifyError, match=message):
            verify_kernel(parse_kernel(text))


def test_shuffles_read_what_was_there_before() -> None:
    text = """kernel k(in x: f32[256], out y: f32[256]) {
  block b in 0..1 {
    local s: f32[256,1] register
    thread t in 0..256 { s[t,0] = x[t] }
    thread t in 0..256 { y[t] = s[bitwise_xor(t, 1),0] }
  }
}"""
    verify_kernel(parse_kernel(text))
    with pytest.raises(VerifyError, match="reads s of other threads, and writes it"):
        verify_kernel(parse_kernel(text.replace(" }\n    thread t in 0..256 {", "")))


@shim
def test_the_approximate_exponential() -> None:
    """By the operator's own meaning; on the shim as on a chip, where no number below the normal ones is a result."""
    x = np.concatenate([np.linspace(-125, 127, 4001), [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 128.0, -150.0]]).astype("f4")
    with np.errstate(over="ignore"):
        exact = np.exp2(x.astype("f8")).astype("f4")
    np.testing.assert_allclose(lookup("exp2_approx").numpy(x), exact, rtol=2.0**-22)
    device = ShimDevice("sm_80")
    module = device.load("""XLC_TABLE(2, 1)
        XLC_ENTRY(f) {
          for (int i = threadIdx.x; i < XLC_SIZE(0); i += 256) ((float*)XLC_AT(1))[i] = xlc_exp2_approx(((const float*)XLC_AT(0))[i]);
        }""")
    for source, expected in ((x, exact), (np.full(3, -126.5, "f4"), np.zeros(3))):
        given, into = device.asarray(source), device.empty(source.shape, "f4")
        device.launch(module.function("f"), 1, 0, table([device.address(given), device.address(into)], [source.size]))
        np.testing.assert_allclose(into, expected, rtol=2.0**-22)


def scalars(kernel: Kernel, inside: Any = None) -> list[str]:
    return [e.op.name for s in statements(kernel.body if inside is None else inside) for e in walk(*expressions(s))]


def test_masks_are_for_edges() -> None:
    """One of two branches compares nothing."""
    spec = [xlc.spec((16, 4096, 64), BF16)] * 3
    (branch,) = (s for s in statements(compiled(causal, *spec).body) if isinstance(s, If) and any(isinstance(x, Loop) for x in s.orelse))
    assert "less_equal" in scalars(compiled(causal, *spec), branch.orelse) or "where" in scalars(compiled(causal, *spec), branch.orelse)
    assert not {"less_equal", "greater_equal", "where"} & set(scalars(compiled(causal, *spec), branch.body))


@pytest.mark.parametrize("dtype", [*HALVES, "f4"], ids=str)
def test_only_halves_take_the_approximate_exponential(dtype: Any) -> None:
    spec = [xlc.spec((16, 1024, 64), dtype)] * 3
    found = set(scalars(compiled(plain, *spec)))
    assert ("exp2_approx" in found, "exp" in found) == (dtype != "f4", dtype == "f4")


def inner_loop(ptx: str) -> list[str]:
    """The instructions of the loop that multiplies."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {line.split(":")[0]: n for n, line in enumerate(lines) if re.match(r"\$L\w+:", line)}
    jumps = [(labels[found[1]], n) for n, line in enumerate(lines) if (found := re.search(r"bra(?:\.uni)?\s+(\$L\w+);", line))]
    (loop,) = (lines[first:last] for first, last in jumps if first < last and any("mma" in line for line in lines[first:last]))
    return [line for line in loop if line.endswith((";", ";}"))]


@chips
@pytest.mark.parametrize("depth", [64, 128])
@pytest.mark.parametrize("mask", [plain, causal])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_instructions(arch: str, mask: Any, depth: int) -> None:
    """Of the loop over keys: one barrier, nothing stored to shared memory; for each score of a thread one exponential, one maximum (in each
    of two branches), and not many instructions besides (in PTX; two conversions to a half and what pairs them become one)."""
    spec = [xlc.spec((16, 4096, depth), BF16)] * 3
    e = xlc.jit(mask, device=f"cuda:{arch}").compile(*spec)
    backend: Any = e.program.backend
    done = backend.compiled(backend.text(e.plan))
    loop = inner_loop(done.ptx)
    scores = {("sm_80", 64): 64, ("sm_80", 128): 32, ("sm_90", 64): 32, ("sm_90", 128): 64}[arch, depth]
    products = (128, 0) if arch == "sm_80" else (0, depth // 8)
    names = ("mma.sync", "wgmma.mma_async", "bar.sync", "st.shared", "ex2.approx.ftz", "max.f32")
    *fixed, exponentials, maxima = (sum(name in line for line in loop) for name in names)
    assert fixed == [*products, 1, 0] and scores <= exponentials <= scores + 4 and maxima <= scores * (2 if mask is causal else 1) + 12
    assert len(loop) <= (11 if mask is plain else 15) * scores + sum(products) + 240
    found = done.resources["l0"]
    assert not found.local and not re.search("serialized|C75", done.log), done.log
    shared = emit_kernel(e.kernels[0]).shared
    if (arch, depth) == ("sm_90", 64):  # two blocks fit a multiprocessor: one multiplies while the other does not
        assert found.registers <= 128 and 2 * shared <= 227 << 10
    else:
        assert found.registers <= 240 and shared <= backend.machine.shared
