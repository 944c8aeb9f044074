"""Products of four warps on Hopper: the instruction on the shim by descriptors that are made by hand, the statement of the Kernel IR
against the interpreter, and that nothing may touch what is under way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_backend import CHIPS, MISSING
from cuda_shim import ShimDevice, table

from xlc.backends.cuda import nvrtc
from xlc.backends.cuda.backend import numerics, prelude
from xlc.backends.cuda.emit import emit_kernel
from xlc.backends.cuda.scalar import TYPES
from xlc.errors import XlcError
from xlc.ir.interp import interpret_kernel
from xlc.ir.loops import Buffer, Expr, Kernel, Let, Local, Loop, Mma, Stmt, Store, Wait, const, load, place, statements, var
from xlc.ir.parse_kernel import parse_kernel
from xlc.ir.types import DType, bf16, f16, f32
from xlc.ir.verify import VerifyError, check_kernel, verify_kernel

shim = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
chip = pytest.mark.skipif(not CHIPS, reason="needs NVRTC")
BF16 = ml_dtypes.bfloat16
ORDERS = [("ascending", 0), ("descending", 0), ("random", 1), ("random", 2)]


# ------------------------------------------------------------------------------------------------ the instruction

ONE = """
XLC_TABLE(3, 0)
XLC_ENTRY(f) {
  const int t = threadIdx.x;
  unsigned short *const a = (unsigned short*)XLC_AT(0), *const b = (unsigned short*)XLC_AT(1), *const s = (unsigned short*)xlc_shared;
  for (int i = t; i < 2 * 64 * 64; i += 256) s[i] = a[i];
  for (int i = t; i < COLUMNS * 64; i += 256) s[2 * 64 * 64 + i] = b[i];
  float d[COLUMNS / 2];
  for (int i = 0; i < COLUMNS / 2; ++i) d[i] = i;
  xlc_fence_proxy_async();
  __syncthreads();
  xlc_wgmma_fence();
  for (int k = 0; k < 64; k += 16)
    xlc_wgmma_m64nCOLUMNSk16_TYPE<LEFT, RIGHT>(d, xlc_wgmma_operand(s + t / 128 * 4096, 16, 1024) + (LEFT ? k * 8 : k / 8),
                                          xlc_wgmma_operand(s + 8192, RIGHT ? 8192 : 16, 1024) + (RIGHT ? k * 8 : k / 8));
  xlc_wgmma_commit();
  xlc_wgmma_wait<0>();
  xlc_wgmma_settle(d);
  for (int i = 0; i < COLUMNS / 2; ++i) ((float*)XLC_AT(2))[t * (COLUMNS / 2) + i] = d[i];
}
"""


def atoms(x: np.ndarray, transposed: bool) -> np.ndarray:
    """64-element panels of a matrix (rows, contracted) as PTX draws them: atoms of 8 x 128 bytes, in row r of which the piece p of 16
    bytes is where p ^ r was."""
    lines = x.T if transposed else x
    panels = [lines[:, i:i + 64] for i in range(0, lines.shape[1], 64)]
    return np.concatenate([row.reshape(8, 8)[np.arange(8) ^ r % 8].reshape(-1) for p in panels for r, row in enumerate(p)])


def fragment(x: np.ndarray) -> np.ndarray:
    """(64, columns) of a result -> (128 threads, columns / 2): PTX ISA, "Register fragments", wgmma.m64nNk16."""
    return x.reshape(4, 2, 8, -1, 4, 2).transpose(0, 2, 4, 3, 1, 5).reshape(128, -1)


def run(text: str, arrays: Sequence[np.ndarray], shared: int = 227 << 10, order: str = "ascending", seed: int = 0) -> list[np.ndarray]:
    device = ShimDevice("sm_90", order=order, seed=seed)
    held = [device.asarray(a) for a in arrays]
    device.launch(device.load(text).function("f"), 1, shared, table([device.address(a) for a in held]))
    return [device.numpy(a) for a in held]


def one(columns: int, dtype: Any, ta: int, tb: int) -> str:
    text = ONE.replace("COLUMNS", str(columns)).replace("TYPE", "f16" if dtype is np.float16 else "bf16")
    return text.replace("LEFT", str(ta)).replace("RIGHT", str(tb))


@shim
@pytest.mark.parametrize("dtype", [np.float16, BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize(("ta", "tb"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("columns", [64, 256])
def test_operands_as_the_isa_lays_them_out(columns: int, ta: int, tb: int, dtype: Any) -> None:
    rng = np.random.default_rng(columns + ta + 2 * tb)
    a, b = rng.integers(-8, 9, (2, 64, 64)).astype(dtype), rng.integers(-8, 9, (columns, 64)).astype(dtype)
    operands = [np.concatenate([atoms(x, bool(ta)) for x in a]), atoms(b, bool(tb))]
    arrays = [*(x.view(np.uint16) for x in operands), np.zeros((256, columns // 2), "f4")]
    found = run(one(columns, dtype, ta, tb), arrays, order="random")[2]
    expected = np.concatenate([fragment(x.astype("f4") @ b.astype("f4").T) for x in a]) + np.arange(columns // 2)
    np.testing.assert_array_equal(found, expected)  # small integers: every sum is exact


@shim
@pytest.mark.parametrize(("old", "new", "message"), [
    ("xlc_fence_proxy_async();\n", "", "without a fence and a barrier"),
    ("__syncthreads();\n", "", "without a fence and a barrier"),
    ("xlc_wgmma_commit();", "xlc_wgmma_commit(); s[t] = 0;", "is stored before it is done"),
    ("xlc_wgmma_fence();\n", "", "without xlc_wgmma_fence"),
    ("xlc_wgmma_wait<0>();", "xlc_wgmma_wait<1>();", "before its products are waited for"),
    ("d, xlc", "d + (t == 3) * 0, t == 3 ? 0 : xlc", "128-byte swizzling"),
    ("16, 1024)", "16, 1024 + 49152)", "outside of the shared memory")])
def test_what_a_chip_leaves_undefined_is_an_error(old: str, new: str, message: str) -> None:
    text = one(64, np.float16, 0, 0)
    assert old in text
    zeros = np.ones(2 * 64 * 64, np.uint16)
    with pytest.raises(XlcError, match=message):
        run(text.replace(old, new), [zeros, zeros[:4096], np.zeros((256, 32), "f4")], shared=24 << 10)


@shim
def test_results_are_nowhere_before_the_wait() -> None:
    text = one(64, np.float16, 0, 0)
    early = text.replace("xlc_wgmma_wait<0>();", "((float*)XLC_AT(2))[t] = d[0]; xlc_wgmma_wait<0>();").replace("i < COLUMNS / 2", "i < 0")
    early = early.replace("for (int i = 0; i < 64 / 2; ++i) ((float*)", "for (int i = 0; i < 0; ++i) ((float*)")
    ones = np.ones(2 * 64 * 64, np.float16).view(np.uint16)
    assert np.isnan(run(early, [ones, ones[:4096], np.zeros((256, 32), "f4")])[2].reshape(-1)[:256]).all()


# ------------------------------------------------------------------------------------------------ the statement


T = var("t")
COLUMNS, DEPTH = 192, 96  # columns in several instructions; contracted elements in several panels


def threads(*body: Stmt) -> Loop:
    return Loop("t", const(0), const(256), 1, "thread", body)


def each(name: str, n: int, kind: str, *body: Stmt) -> Loop:
    return Loop(name, const(0), const(n), 1, kind, body, n if kind == "vector" else 0)


def product_kernel(ta: bool, tb: bool, registers: bool = False, dtype: DType = bf16) -> Kernel:
    """y = x w^T, of which each four warps have 128 rows, or 64 that lie in registers. Operands are stored element by element."""
    high, half = 1 if registers else 2, COLUMNS // 2
    rows = high * 128
    x, w, y = Buffer("x", dtype, (rows * DEPTH,)), Buffer("w", dtype, (COLUMNS * DEPTH,)), Buffer("y", f32, (rows * COLUMNS,))
    acc, fa = Buffer("acc", f32, (256, high * half), "register"), Buffer("fa", dtype, (256, DEPTH // 2), "register")
    i, e = var("i"), var("e")
    fill: list[Stmt] = [each("e", high * half, "vector", Store(acc, (T, e), const(0, f32)))]
    operands: list[tuple[Buffer, Expr, tuple[int, ...]]] = []
    for name, source, n, transposed in (("sa", x, rows, ta), ("sb", w, COLUMNS, tb)):
        steps = (1, 64, 64 * DEPTH) if transposed else (64, 1, 64 * n)
        b = Buffer(name, dtype, (n * DEPTH if transposed else n * (-(-DEPTH // 64) * 64),), "shared")
        into = (place(i // DEPTH, i % DEPTH, steps),)
        fill.append(each("j", n * DEPTH // 256, "vector", Let("i", var("j") * 256 + T), Store(b, into, load(source, (i,)))))
        operands.append((b, T // 128 * high * (steps[2] if transposed else 64 * 64) if b.name == "sa" else const(0), steps))

    def row(i: Expr, h: Expr) -> Expr:
        return (T // 128 * high + i) * 64 + T // 32 % 4 * 16 + h * 8 + T % 32 // 4

    if registers:
        k = e // 4 * 8 + T % 4 * 2 + e % 2
        fill[1] = each("e", DEPTH // 2, "vector", Store(fa, (T, e), load(x, (row(const(0), e // 2 % 2) * DEPTH + k,))))
        operands[0] = fa, const(0), (0, 0)
    at = row(e // half, e // 2 % 2) * COLUMNS + e % half // 4 * 8 + T % 4 * 2 + e % 2
    shared = [b for b, _, _ in operands if b.space == "shared"]
    body = [*map(Local, (Buffer("pad", f32, (3,), "shared"), *shared, acc, *([fa] if registers else []))), threads(*fill),
            threads(Mma(acc, T, *operands[0], *operands[1], (high * 64, COLUMNS, DEPTH), 1, 128)), Wait(0, True),
            threads(each("e", high * half, "vector", Store(y, (at,), load(acc, (T, e)))))]
    return Kernel("k", (x, w), (y,), (), (Loop("b", const(0), const(1), 1, "block", tuple(body)),))


def launched(k: Kernel, arrays: Sequence[np.ndarray], result: np.ndarray, order: str, seed: int) -> np.ndarray:
    done = emit_kernel(k)
    return run(module(k, len(arrays)), [*(a.view(np.uint16) for a in arrays), result], done.shared, order, seed)[-1]


def module(k: Kernel, inputs: int) -> str:
    """A kernel and its entry."""
    done = emit_kernel(k)
    arguments = ", ".join(f"({'const ' if i < len(k.inputs) else ''}{TYPES[b.dtype.name]}*)XLC_AT({i})"
                          for i, b in enumerate((*k.inputs, *k.outputs)))
    entry = f"XLC_ENTRY(f) {{ {done.name}({arguments}, blockIdx.x); }}"
    return "\n".join([prelude(), numerics(), f"XLC_TABLE({inputs + 1}, 0)", done.function, entry])


FORMS = [(False, False, False), (False, True, False), (True, False, False), (True, True, False), (False, False, True), (False, True, True)]


@shim
@pytest.mark.parametrize(("ta", "tb", "registers"), FORMS)
def test_the_statement_means_the_same_everywhere(ta: bool, tb: bool, registers: bool) -> None:
    k = product_kernel(ta, tb, registers)
    again = parse_kernel(str(k))
    assert str(again) == str(k) and [s for s in statements(again.body) if isinstance(s, (Mma, Wait))] == [
        s for s in statements(k.body) if isinstance(s, (Mma, Wait))]
    assert not [u for u in verify_kernel(k) if u.startswith(("sa[", "sb[", "acc["))]
    rng = np.random.default_rng(3)
    rows = 128 if registers else 256
    x, w = rng.integers(-4, 5, (rows, DEPTH)).astype(BF16), rng.integers(-4, 5, (COLUMNS, DEPTH)).astype(BF16)
    expected = x.astype("f4") @ w.astype("f4").T
    arrays = [x.reshape(-1), w.reshape(-1)]
    np.testing.assert_array_equal(interpret_kernel(k, arrays)[0].reshape(rows, COLUMNS), expected)
    for order, seed in ORDERS:
        np.testing.assert_array_equal(launched(k, arrays, np.zeros(rows * COLUMNS, "f4"), order, seed).reshape(rows, COLUMNS), expected)


@chip
@pytest.mark.parametrize(("ta", "tb", "registers"), FORMS)
def test_the_assembler_runs_products_in_the_background(ta: bool, tb: bool, registers: bool) -> None:
    done = nvrtc.compile(module(product_kernel(ta, tb, registers, bf16 if tb else f16), 2), "sm_90a")
    assert "(C75" not in done.log, done.log
    assert not done.resources["f"].local, done.log
    assert done.ptx.count("wgmma.mma_async") == (1 if registers else 2) * 2 * (DEPTH // 16)


# ------------------------------------------------------------------------------------------------ what is under way

SMALL = """
kernel k(out y: f32[256]) {
  block b in 0..1 {
    local sa: bf16[8192] shared
    local sb: bf16[4096] shared
    local acc: f32[256,32] register
    thread t in 0..256 {
      mma acc[t], sa[t // 128 * 4096] steps 64 1 4096, sb[0] steps 64 1 4096, shape 64 64 64 products 1 group 128
    }
    BEFORE
    wait products 0
    thread t in 0..256 {
      y[t] = acc[t, 5]
    }
    AFTER
  }
}"""


def small(before: str = "", after: str = "", wait: str = "wait products 0") -> Kernel:
    return parse_kernel(SMALL.replace("BEFORE", before).replace("AFTER", after).replace("wait products 0", wait))


def test_what_is_under_way_is_not_touched() -> None:
    store = "thread t in 0..256 { sa[t] = 0.0 }"
    check_kernel(small(after=store))
    for wait in ("", "wait 0", "wait products 1"):
        with pytest.raises(VerifyError, match="acc is touched before"):
            verify_kernel(small(wait=wait))
    with pytest.raises(VerifyError, match="acc is touched before"):
        verify_kernel(small("thread t in 0..256 { acc[t, 0] = 0.0 }"))
    with pytest.raises(VerifyError, match="never waited for"):
        verify_kernel(parse_kernel(re.sub(r"wait.*?AFTER", "", SMALL, flags=re.S).replace("BEFORE", "")))
    for early in (store, store.replace("sa", "wait products 0 sa")):  # each waits for its own alone
        with pytest.raises(VerifyError, match="while a product may read it"):
            check_kernel(small(early))


def test_wrong_statements_are_refused() -> None:
    text = str(product_kernel(False, True))
    for old, new, message in (
            ("shape 128 192 96", "shape 96 192 96", "multiples of"), ("group 128", "group 64", "expected 32, or 128 of halves"),
            ("steps 64 1 16384", "steps 72 1", "in steps of"), ("steps 64 1 16384", "steps 72 1 16384", "expected panels of 64"),
            ("steps 1 64 6144", "steps 1 64 6145", "expected panels of 64"), ("sb[0]", "sb[64]", "expected panels of 64"),
            ("steps 1 64 6144", "steps 1 64 8192", "out of bounds"), (" mma", " wait 0\n      mma", "waited for inside")):
        assert old in text, text
        with pytest.raises(VerifyError, match=message):
            verify_kernel(parse_kernel(text.replace(old, new)))
