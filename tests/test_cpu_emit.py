"""The CPU backend's code against NumPy: every scalar operator on every dtype, every way of addressing, and what the object files hold."""

from __future__ import annotations

import ctypes
import struct
import warnings

import ml_dtypes
import numpy as np
import pytest

from xlc.backends.cpu.compile import assembly, compile_text, load
from xlc.backends.cpu.emit import emit_kernel, module_text
from xlc.backends.cpu.scalar import native
from xlc.backends.cpu.target import host, named
from xlc.errors import XlcError, XlcNotImplementedError
from xlc.ir.loops import Buffer, If, Kernel, Let, Local, Loop, Store, const, size, var
from xlc.ir.loops import load as read
from xlc.ir.op import lookup
from xlc.ir.types import DTYPES, Dim, bf16, bool_, f16, f32, f64, i32, i64, u8

INTS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
FLOATS = ("f16", "bf16", "f32", "f64")
v, i, j, k = (var(n) for n in "vijk")
minimum = lookup("minimum")
NARROW = named("x86-64-v3", host().triple) if host().vector_bits == 512 else None
"""The same machine with half the vectors and without masks in registers."""
BOTH = [(d, None) for d in DTYPES] + [(d, NARROW) for d in ("f16", "bf16", "f32", "f64", "i8", "i32", "u64", "bool") if NARROW]


class Functions:
    """Kernels compiled together and loaded; calling one takes arrays and sizes."""

    def __init__(self, *kernels: Kernel, target=None):
        target = target or host()
        self.kernels = {kernel.name: kernel for kernel in kernels}
        self.object = compile_text(module_text([emit_kernel(kernel, target) for kernel in kernels]), target)
        self.code = load([self.object], list(self.kernels))

    def __call__(self, name: str, *arrays: np.ndarray, sizes: tuple[int, ...] = (), lo: int = 0, hi: int = 1) -> None:
        f = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), *[ctypes.c_int64] * (len(sizes) + 2))(self.code.address(name))
        f(*(a.ctypes.data for a in arrays), *sizes, lo, hi)


def vector(body, n: int, width: int = 16):
    """One masked vector loop over 0..n in steps of width."""
    return Loop("i", const(0), const(n), width, "serial", (
        Loop("v", const(0), minimum(const(n) - i, const(width)), 1, "vector", tuple(body(i + v)), width),))


def elementwise(name: str, dtypes, out, n: int, make, lanes: bool = True) -> Kernel:
    ins = tuple(Buffer(f"x{q}", d, (n,)) for q, d in enumerate(dtypes))
    y = Buffer("y", out, (n,))

    def body(at):
        return [Store(y, (at,), make(*(read(b, (at,)) for b in ins)))]

    loop = vector(body, n) if lanes else Loop("j", const(0), const(n), 1, "serial", tuple(body(j)))
    return Kernel(name, ins, (y,), (), (loop,))


def undefined(data: bytes) -> list[str]:
    """Undefined symbols of an ELF64 little-endian object."""
    at, = struct.unpack_from("<Q", data, 40)
    entry, count, _ = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, at + entry * s) for s in range(count)]
    found = []
    for s in sections:
        if s[1] == 2:
            strings = sections[s[6]][4]
            for offset in range(s[4] + 24, s[4] + s[5], 24):
                name, _, _, section = struct.unpack_from("<IBBH", data, offset)
                if section == 0:
                    found.append(data[strings + name:data.index(b"\0", strings + name)].decode())
    return found


def samples(d, n: int = 61, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if d is bool_:
        return rng.integers(0, 2, n).astype(bool)
    if d.is_float:
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-7, 6e-8, 65504.0, 1e30, 3.7]
        with np.errstate(all="ignore"):
            return np.concatenate([rng.permutation(special), rng.normal(size=n - len(special)) * 3]).astype(d.numpy)
    info = np.iinfo(d.numpy)
    special = [info.min, info.max, 0, 1, info.max - 1, info.min + 1, 2, 7] + ([-1, -2, -7] if d.signed else [])
    some = rng.integers(max(info.min, -40), min(info.max, 40), n - 2 * len(special), endpoint=True)
    special = np.array(special, d.numpy)
    return np.concatenate([rng.permutation(special), some.astype(d.numpy), rng.permutation(special)])


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit, but for the payload of a nan and the sign of a zero that minimum may choose."""
    if a.dtype.kind in "biu":
        return bool(np.array_equal(a, b))
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return bool(np.all((a64 == b64) | (np.isnan(a64) & np.isnan(b64))))


BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "floor_divide": np.floor_divide,
          "remainder": np.remainder, "minimum": np.minimum, "maximum": np.maximum, "less": np.less, "less_equal": np.less_equal,
          "greater": np.greater, "greater_equal": np.greater_equal, "equal": np.equal, "not_equal": np.not_equal,
          "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
          "bitwise_left_shift": np.left_shift, "bitwise_right_shift": np.right_shift}
UNARY = {"negative": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint,
         "bitwise_not": np.invert}
BITS = ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not")


def takes(name: str, d) -> bool:
    if name in BITS:
        return not d.is_float
    if name.startswith("bitwise") or name in ("floor_divide", "remainder"):
        return d.is_int
    if name in ("divide", "sqrt", "floor", "ceil", "trunc", "round"):
        return d.is_float
    return d is not bool_ or name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "minimum", "maximum")


@pytest.mark.parametrize(("dtype", "target"), BOTH)
def test_operators(dtype: str, target) -> None:
    d = DTYPES[dtype]
    kernels, n = [], 61
    for name in (*BINARY, *UNARY):
        if takes(name, d):
            arity = 2 if name in BINARY else 1
            out = lookup(name).scalar(*[d] * arity)
            for lanes in (True, False):
                kernels.append(elementwise(f"{name}_{lanes}", [d] * arity, out, n, lookup(name), lanes))
    functions = Functions(*kernels, target=target)
    assert undefined(functions.object) == []
    x, z = samples(d), samples(d, seed=1)
    for name, oracle in {**BINARY, **UNARY}.items():
        if takes(name, d):
            args = (x, z) if name in BINARY else (x,)
            with np.errstate(all="ignore"):
                want = oracle(*args)
            for lanes in (True, False):
                got = np.zeros(n, functions.kernels[f"{name}_{lanes}"].outputs[0].dtype.numpy)
                functions(f"{name}_{lanes}", *args, got)
                wrong = got != want
                assert want.dtype == got.dtype and same(got, want), (name, lanes, x[wrong], z[wrong], got[wrong], want[wrong])


def cast_oracle(x: np.ndarray, to) -> np.ndarray:
    """NumPy's cast; from floats to integers saturating, nan to 0."""
    if x.dtype.kind in "fV" and to.is_int:
        info = np.iinfo(to.numpy)
        wide = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=1e300, neginf=-1e300))
        exact = [max(info.min, min(info.max, int(t))) for t in wide]
        return np.array(exact, dtype=to.numpy)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x.astype(to.numpy)


@pytest.mark.parametrize(("dtype", "target"), BOTH)
def test_casts(dtype: str, target) -> None:
    d, n = DTYPES[dtype], 61
    cast = lookup("cast")
    functions = Functions(*(elementwise(f"to_{t}_{lanes}", [d], t, n, lambda x, t=t: cast(x, dtype=t), lanes)
                            for t in DTYPES.values() for lanes in (True, False) if t is not d), target=target)
    assert undefined(functions.object) == []
    x = samples(d)
    for t in DTYPES.values():
        if t is not d:
            for lanes in (True, False):
                got = np.zeros(n, t.numpy)
                functions(f"to_{t}_{lanes}", x, got)
                want = cast_oracle(x, t)
                assert same(got, want), (t, lanes, x[got != want], got[got != want], want[got != want])


def test_narrowing_is_correctly_rounded() -> None:
    """f64 -> f16 on halfway cases that rounding twice gets wrong; f32 -> bf16 around ties, denormals and overflow."""
    cast = lookup("cast")
    n = 4096
    functions = Functions(*(elementwise(f"{s}_{t}", [DTYPES[s]], DTYPES[t], n, lambda x, t=t: cast(x, dtype=DTYPES[t]))
                            for s, t in (("f64", "f16"), ("f32", "bf16"), ("f32", "f16"), ("f16", "f32"), ("bf16", "f32"))))
    rng = np.random.default_rng(3)
    halves = np.arange(n, dtype=np.uint16).view(np.float16).astype(np.float64)
    above = np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float64)
    ties = (halves + above) / 2 * (1 + rng.integers(-2, 3, n) * 2.0**-52)
    got = np.zeros(n, np.float16)
    functions("f64_f16", ties, got)
    assert np.array_equal(got, ties.astype(np.float16))
    bits = rng.integers(0, 1 << 32, n, dtype=np.uint32)
    bits[:2048] = (bits[:2048] & 0xFFFF0000) | rng.choice([0x7FFF, 0x8000, 0x8001], 2048).astype(np.uint32)
    bits[:64] &= 0x807FFFFF  # denormals
    single = bits.view(np.float32)
    brain = np.zeros(n, ml_dtypes.bfloat16)
    functions("f32_bf16", single, brain)
    with np.errstate(all="ignore"):
        assert same(brain, single.astype(ml_dtypes.bfloat16))
        functions("f32_f16", single, got)
        assert same(got, single.astype(np.float16))
    back = np.zeros(n, np.float32)
    functions("bf16_f32", brain, back)
    assert same(back, brain.astype(np.float32))


def test_where_fma_bitcast() -> None:
    n, where, fma, bitcast = 61, lookup("where"), lookup("fma"), lookup("bitcast")
    kernels = [elementwise(f"where_{d}", [bool_, d, d], d, n, where) for d in DTYPES.values()]
    kernels += [elementwise(f"fma_{d}", [d, d, d], d, n, fma) for d in (f32, f64)]
    kernels += [elementwise("bits", [f32], i32, n, lambda x: bitcast(x, dtype=i32)), elementwise("half", [f16], DTYPES["u16"], n,
                                                                                                lambda x: bitcast(x, dtype=DTYPES["u16"]))]
    functions = Functions(*kernels)
    mask = samples(bool_)
    for d in DTYPES.values():
        x, z, got = samples(d), samples(d, seed=2), np.zeros(n, d.numpy)
        functions(f"where_{d}", mask, x, z, got)
        assert same(got, np.where(mask, x, z))
    x = np.full(n, 1 + 2.0**-12, np.float32)
    got = np.zeros(n, np.float32)
    functions("fma_f32", x, x, -np.ones(n, np.float32), got)
    assert (got == np.float32(2.0**-11 + 2.0**-24)).all()  # rounded once
    bits = np.zeros(n, np.int32)
    functions("bits", samples(f32), bits)
    assert np.array_equal(bits, samples(f32).view(np.int32))


def test_product_and_sum_are_not_contracted() -> None:
    n = 61
    functions = Functions(elementwise("k", [f32, f32, f32], f32, n, lambda x, y, z: x * y + z))
    x, got = np.full(n, 1 + 2.0**-12, np.float32), np.zeros(n, np.float32)
    functions("k", x, x, -np.ones(n, np.float32), got)
    assert (got == x * x - np.float32(1)).all()


@pytest.mark.parametrize(("dtype", "target"), [(d, t) for d, t in BOTH if d in ("f32", "f64", "i8", "bool", "bf16", "i64")])
def test_addressing(dtype: str, target) -> None:
    """Forward, reversed, strided, far strided, gathered, scattered, transposed, broadcast; with and without masks."""
    d, n = DTYPES[dtype], 37
    x, idx, y = Buffer("x", d, (4 * n,)), Buffer("idx", i64, (n,)), Buffer("y", d, (n,))
    wide = Buffer("y", d, (3 * n,))
    kernels = []
    for name, at in {"reversed": lambda e: const(n - 1) - e, "two": lambda e: e * 2 + 1, "three": lambda e: e * 3,
                     "minus_two": lambda e: const(2 * n) - e * 2, "same": lambda e: const(5)}.items():
        kernels.append(Kernel(name, (x,), (y,), (), (vector(lambda e, at=at: [Store(y, (e,), read(x, (at(e),)))], n),)))
        whole = Loop("v", const(0), const(32), 1, "vector", (Store(y, (v,), read(x, (at(v),))),), 32)
        kernels.append(Kernel(f"{name}_whole", (x,), (y,), (), (whole,)))
    kernels += [
        Kernel("gather", (x, idx), (y,), (), (vector(lambda e: [Store(y, (e,), read(x, (read(idx, (e,)),)))], n),)),
        Kernel("scatter", (x, idx), (y,), (), (vector(lambda e: [Store(y, (read(idx, (e,)),), read(x, (e,)))], n),)),
        Kernel("store_three", (x,), (wide,), (), (vector(lambda e: [Store(wide, (e * 3 + 1,), read(x, (e,)))], n),)),
        Kernel("store_reversed", (x,), (y,), (), (vector(lambda e: [Store(y, (const(n - 1) - e,), read(x, (e,)))], n),)),
        Kernel("guarded", (x,), (y,), (), (vector(lambda e: [Store(y, (e,), read(x, (e - 3,), (e >= 3) & (e < 20)))], n),)),
        Kernel("guarded_scalar", (x,), (y,), (), (Loop("j", const(0), const(n), 1, "serial", (
            Store(y, (j,), read(x, (j - 3,), j >= 3)),)),)),
        Kernel("store_guarded", (x,), (y,), (), (vector(lambda e: [Store(y, (e,), read(x, (e,)), (e >= 3) & (e < 20))], n),)),
    ]
    functions = Functions(*kernels, target=target)
    assert undefined(functions.object) == []
    rng = np.random.default_rng(0)
    a = np.concatenate([samples(d), samples(d, seed=1), samples(d, seed=3)])[:4 * n]
    order = rng.permutation(n)
    e = np.arange(n)
    for name, at in {"reversed": n - 1 - e, "two": 2 * e + 1, "three": 3 * e, "minus_two": 2 * n - 2 * e, "same": 0 * e + 5}.items():
        got = np.zeros(n, d.numpy)
        functions(name, a, got)
        assert same(got, a[at]), name
        got[:] = 0
        functions(f"{name}_whole", a, got)
        assert same(got[:32], a[at][:32]) and same(got[32:], np.zeros(n - 32, d.numpy)), name

    def result(name: str, *args: np.ndarray, count: int = n) -> np.ndarray:
        out = np.zeros(count, d.numpy)
        functions(name, *args, out)
        return out

    assert same(result("gather", a, order), a[order])
    want = np.zeros(n, d.numpy)
    want[order] = a[:n]
    assert same(result("scatter", a, order), want)
    want = np.zeros(3 * n, d.numpy)
    want[1::3] = a[:n]
    assert same(result("store_three", a, count=3 * n), want)
    assert same(result("store_reversed", a), a[:n][::-1])
    zero = np.zeros(n, d.numpy)
    shifted = np.concatenate([zero[:3], a])[:n]
    assert same(result("guarded", a), np.where((e >= 3) & (e < 20), shifted, zero))
    assert same(result("guarded_scalar", a), np.where(e >= 3, shifted, zero))
    assert same(result("store_guarded", a), np.where((e >= 3) & (e < 20), a[:n], zero))


def reduction(d, acc_dtype, rows: int, columns: int, width: int) -> Kernel:
    """Row sums with ``width`` accumulators in registers, a masked tail and a halving tree."""
    x, y = Buffer("x", d, (rows, columns)), Buffer("y", acc_dtype, (rows,))
    acc, w = Buffer("acc", acc_dtype, (width,), "register"), var("w")
    cast = lookup("cast")

    def wide(e):
        return e if e.dtype is acc_dtype else cast(e, dtype=acc_dtype)

    whole = columns // width * width
    body = [Local(acc), Loop("w", const(0), const(width), 1, "vector", (Store(acc, (w,), const(0, acc_dtype)),), width),
            Loop("j", const(0), const(whole), width, "serial", (Loop("v", const(0), const(width), 1, "vector", (
                Let("t", read(acc, (v,)) + wide(read(x, (i, j + v)))), Store(acc, (v,), var("t", acc_dtype))), width),))]
    if columns > whole:
        body.append(Loop("v", const(0), const(columns - whole), 1, "vector", (
            Store(acc, (v,), read(acc, (v,)) + wide(read(x, (i, const(whole) + v)))),), width))
    half = width // 2
    while half:
        body.append(Loop("w", const(0), const(half), 1, "vector", (
            Let("f", read(acc, (w,)) + read(acc, (w + half,))), Store(acc, (w,), var("f", acc_dtype))), half))
        half //= 2
    body.append(Store(y, (i,), read(acc, (const(0),))))
    return Kernel("sums", (x,), (y,), (), (Loop("i", const(0), const(rows), 1, "parallel", tuple(body)),))


@pytest.mark.parametrize(("dtype", "acc", "width"), [
    ("f32", "f32", 64), ("f32", "f64", 32), ("f64", "f64", 16), ("u8", "i32", 64), ("i64", "i64", 8), ("bf16", "f32", 32),
    ("f16", "f32", 4), ("f32", "f32", 1), ("f32", "f32", 2)])
def test_reduction_stays_in_registers(dtype: str, acc: str, width: int) -> None:
    d, a = DTYPES[dtype], DTYPES[acc]
    rows, columns = 5, 203
    kernel = reduction(d, a, rows, columns, width)
    functions = Functions(kernel)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (rows, columns)).astype(d.numpy)
    got = np.zeros(rows, a.numpy)
    functions("sums", x, got, lo=1, hi=4)
    assert np.array_equal(got, np.where([False, True, True, True, False], x.astype(a.numpy).sum(1), 0))
    functions("sums", x, got, lo=0, hi=rows + 7)  # more iterations than there are: the stop holds
    assert np.array_equal(got, x.astype(a.numpy).sum(1))
    text = assembly(str(emit_kernel(kernel, named("x86-64-v4"))), named("x86-64-v4"))
    assert "rsp" not in text and "rbp" not in text  # no stack slot is left


@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v3", "cortex-a72", "apple-m1"])
def test_tile_is_promoted_everywhere(cpu: str) -> None:
    target = named(cpu)
    lanes = target.lanes(32)
    rows, columns = (6 if target.registers == 32 else 4), 2 * lanes
    kernel = tile(rows, columns, 64)
    text = assembly(str(emit_kernel(kernel, target)), target)
    assert not any(word in text for word in ("rsp", "[sp")), text


def tile(m: int, n: int, depth: int) -> Kernel:
    a, b, c = Buffer("a", f32, (m, depth)), Buffer("b", f32, (depth, n)), Buffer("c", f32, (m, n))
    acc, u = Buffer("acc", f32, (m, n), "register"), var("u")

    def each(stmt) -> Loop:
        return Loop("u", const(0), const(m), 1, "unroll", (Loop("v", const(0), const(n), 1, "vector", (stmt,), n),))

    product = lookup("fma")(read(a, (u, k)), read(b, (k, v)), read(acc, (u, v)))
    return Kernel("tile", (a, b), (c,), (), (
        Local(acc), each(Store(acc, (u, v), const(0.0, f32))),
        Loop("k", const(0), const(depth), 1, "serial", (each(Store(acc, (u, v), product)),)),
        each(Store(c, (u, v), read(acc, (u, v))))))


def test_tile() -> None:
    functions = Functions(tile(14, 32, 50))
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (14, 50)).astype(np.float32), rng.integers(-4, 5, (50, 32)).astype(np.float32)
    c = np.zeros((14, 32), np.float32)
    functions("tile", a, b, c)
    assert np.array_equal(c, a @ b)


def test_register_buffer_odd_accesses() -> None:
    """Unaligned pieces, elements, masked lanes and lanes behind the end of a register buffer."""
    x, y, r = Buffer("x", f32, (40,)), Buffer("y", f32, (40,)), Buffer("r", f32, (21,), "register")
    body = (
        Local(r), Loop("v", const(0), const(21), 1, "vector", (Store(r, (v,), read(x, (v,))),), 32),
        Loop("v", const(0), const(8), 1, "vector", (Store(r, (v + 5,), read(r, (v + 12,))),), 8),
        Store(r, (const(20),), read(r, (const(3),)) + 100.0),
        Loop("v", const(0), size(3), 1, "vector", (Store(r, (v,), const(-1.0, f32), v.equals(1)),), 4),
        Loop("v", const(0), const(21), 1, "vector", (Store(y, (v,), read(r, (v,))),), 32))
    functions = Functions(Kernel("odd", (x,), (y,), (), body))
    a, got = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    functions("odd", a, got)
    want = a[:21].copy()
    want[5:13] = a[12:20]
    want[20] = a[3] + 100
    want[1] = -1
    assert np.array_equal(got[:21], want) and not got[21:].any()


def test_row_on_the_stack() -> None:
    """Two passes over a row that is kept in a stack buffer, and the largest element between them."""
    rows, columns, width = 3, 100, 16
    x, y, row = Buffer("x", f32, (rows, columns)), Buffer("y", f32, (rows, columns)), Buffer("row", f32, (columns,), "stack")
    top = Buffer("top", f32, (1,), "register")
    body = (
        Local(row), Local(top), Store(top, (const(0),), const(-np.inf, f32)),
        Loop("j", const(0), const(columns), width, "serial", (Loop("v", const(0), minimum(const(columns) - j, const(width)), 1, "vector", (
            Store(row, (j + v,), read(x, (i, j + v)) * 2.0),), width),)),
        Loop("j", const(0), const(columns), 1, "serial", (
            Store(top, (const(0),), lookup("maximum")(read(top, (const(0),)), read(row, (j,)))),)),
        Let("m", read(top, (const(0),))),
        Loop("j", const(0), const(columns), width, "serial", (Loop("v", const(0), minimum(const(columns) - j, const(width)), 1, "vector", (
            Store(y, (i, j + v), read(row, (j + v,)) - var("m", f32)),), width),)))
    functions = Functions(Kernel("row", (x,), (y,), (), (Loop("i", const(0), const(rows), 1, "parallel", body),)))
    a = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    got = np.zeros_like(a)
    functions("row", a, got, lo=0, hi=rows)
    assert np.array_equal(got, a * 2 - (a * 2).max(1, keepdims=True))


def test_branches_lets_and_sizes() -> None:
    """Shared names in branches and successive loops, symbolic sizes, step of the parallel loop."""
    n = Dim.named("n")
    x, y = Buffer("x", f32, (n, 8)), Buffer("y", f32, (n, 8))

    def loop(factor: float) -> Loop:
        t = var("t", f32)
        return Loop("v", const(0), const(8), 1, "vector", (
            Let("t", read(x, (j, v)) * factor), Store(y, (j, v), t + lookup("cast")(j, dtype=f32))), 8)

    body = Loop("j", i, minimum(i + 3, size(n)), 1, "serial", (If((j % 2).equals(0), (loop(2.0),), (loop(-1.0),)),))
    functions = Functions(Kernel("k", (x,), (y,), ("n",), (Loop("i", const(0), size(n), 3, "parallel", (body,)),)))
    a = np.random.default_rng(0).normal(size=(11, 8)).astype(np.float32)
    got = np.zeros_like(a)
    functions("k", a, got, sizes=(11,), lo=0, hi=2)
    functions("k", a, got, sizes=(11,), lo=2, hi=4)
    row = np.arange(11, dtype=np.float32)[:, None]
    assert np.array_equal(got, np.where(row % 2 == 0, a * np.float32(2), -a) + row)


def test_stores_are_seen_by_later_statements() -> None:
    x, y = Buffer("x", i64, (8,)), Buffer("y", i64, (8,))
    body = (Loop("v", const(0), const(8), 1, "vector", (Store(y, (v,), read(x, (v,)) + 1),), 8),
            Loop("v", const(0), const(8), 1, "vector", (Store(y, (v,), read(y, (v,)) * 2), Store(y, (v,), read(y, (v,)) + 3)), 8),
            Store(y, (const(0),), read(y, (const(7),))))
    functions = Functions(Kernel("k", (x,), (y,), (), body))
    a, got = np.arange(8), np.zeros(8, np.int64)
    functions("k", a, got)
    want = (a + 1) * 2 + 3
    want[0] = want[7]
    assert np.array_equal(got, want)


def test_lookup() -> None:
    table = tuple(float(t) for t in np.linspace(-1, 1, 21))
    n = 37
    functions = Functions(*(elementwise(f"k{lanes}", [i64], f64, n, lambda x: lookup("lookup")(x, table=table, dtype=f64), lanes)
                            for lanes in (True, False)))
    assert undefined(functions.object) == []
    index, got = np.random.default_rng(0).integers(0, 21, n), np.zeros(n)
    for lanes in (True, False):
        functions(f"k{lanes}", index, got)
        assert np.array_equal(got, np.array(table)[index])


def test_constant_divisors() -> None:
    n, d = 61, i32
    kernels = [elementwise(f"{name}_{'m' if c < 0 else ''}{abs(c)}", [d], d, n, lambda x, name=name, c=c: lookup(name)(x, const(c, d)))
               for name in ("floor_divide", "remainder") for c in (1, 2, 8, 3, 7, -1, -4, 0)]
    functions = Functions(*kernels)
    x = samples(d)
    for name, f in (("floor_divide", np.floor_divide), ("remainder", np.remainder)):
        for c in (1, 2, 8, 3, 7, -1, -4, 0):
            got = np.zeros(n, np.int32)
            functions(f"{name}_{'m' if c < 0 else ''}{abs(c)}", x, got)
            with np.errstate(all="ignore"):
                assert np.array_equal(got, f(x, np.int32(c))), (name, c)


def test_wide_chain_is_linear_and_not_recursive() -> None:
    def chain(x):
        for _ in range(3000):
            x = x * x + 1.0
        return x

    assert str(emit_kernel(elementwise("k", [f32], f32, 61, chain), named("x86-64-v4"))).count("fmul") == 3000


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4", "znver5", "cortex-a72", "apple-m1", "neoverse-v2"])
def test_cross_compiled_objects_need_no_library(cpu: str) -> None:
    target, n = named(cpu, "aarch64-unknown-linux-gnu" if cpu == "apple-m1" else None), 61
    kernels = []
    for d in DTYPES.values():
        for name in (*BINARY, *UNARY):
            if takes(name, d) and native(name, d) and d.name in ("f16", "bf16", "f32", "f64", "i8", "u64", "i32"):
                arity = 2 if name in BINARY else 1
                kernels.append(elementwise(f"{name}_{d}", [d] * arity, lookup(name).scalar(*[d] * arity), n, lookup(name)))
        kernels += [elementwise(f"{d}_{t}", [d], t, n, lambda x, t=t: lookup("cast")(x, dtype=t), lanes)
                    for t in (f16, bf16, f64, u8, i64) if t is not d for lanes in (d.is_float,)]
    assert undefined(compile_text(module_text([emit_kernel(kernel, target) for kernel in kernels]), target)) == []


def test_messages() -> None:
    x, y, r = Buffer("x", f32, (8,)), Buffer("y", f32, (8,)), Buffer("r", f32, (8,), "register")
    with pytest.raises(XlcNotImplementedError, match="register buffer r is indexed by something that is not constant"):
        loop = Loop("j", const(0), const(8), 1, "serial", (Store(r, (j,), read(x, (j,))),))
        emit_kernel(Kernel("k", (x,), (y,), (), (Local(r), loop)), host())
    with pytest.raises(XlcNotImplementedError, match="no meaning on a CPU"):
        emit_kernel(Kernel("k", (x,), (y,), (), (Loop("j", const(0), const(8), 1, "thread", (Store(y, (j,), read(x, (j,))),)),)), host())
    with pytest.raises(XlcError, match="x86-64-v3"):
        named("nocona", "x86_64-unknown-linux-gnu")
    with pytest.raises(XlcError, match="cortex-a"):
        named("z80")
