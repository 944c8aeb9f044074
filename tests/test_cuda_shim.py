"""The names of CUDA text (prelude.cuh), on the CPU shim or with XLC_CUDA_DEVICE=gpu on a GPU; and that the shim finds what is undefined."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_shim import MISSING, ShimDevice, table

from xlc.backends.cuda import nvrtc
from xlc.errors import XlcError

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

PRELUDE = Path(nvrtc.__file__).with_name("prelude.cuh").read_text("utf-8")
bfloat16 = ml_dtypes.bfloat16
SHIMS = [ShimDevice(order=order, seed=seed)
         for order, seed in (("ascending", 0), ("descending", 0), ("random", 1), ("random", 2), ("random", 3))]
each_order = pytest.mark.parametrize("shim", SHIMS, ids=lambda d: f"{d.order}{d.seed}")


def run(device: Any, text: str, arrays: Sequence[np.ndarray], sizes: Sequence[int] = (), grid: int = 1, shared: int = 0,
        cooperative: bool = False) -> list[np.ndarray]:
    """The arrays after a launch of the entry ``f``."""
    text = f"{PRELUDE}\nXLC_TABLE({len(arrays)}, {len(sizes)})\n#line 1\n{text}"
    module = device.load(text, b"" if device.name == "shim" else nvrtc.compile(text, device.arch).cubin)
    held = [device.asarray(a) for a in arrays]
    device.launch(module.function("f"), grid, shared, table([device.address(a) for a in held], sizes), cooperative)
    return [device.numpy(a) for a in held]


def elementwise(device: Any, expression: str, x: np.ndarray, source: str, result: Any, target: str) -> np.ndarray:
    """``expression`` of x, for every element."""
    text = f"""XLC_ENTRY(f) {{
      const long long i = blockIdx.x * 256ll + threadIdx.x;
      if (i < XLC_SIZE(0)) {{ const {source} x = ((const {source}*)XLC_AT(0))[i]; (({target}*)XLC_AT(1))[i] = {expression}; }} }}"""
    return run(device, text, [x, np.zeros(x.shape, result)], [x.size], -(-x.size // 256))[1]


# ------------------------------------------------------------------------------------------------ NVRTC knows the text

EVERY = """
static __device__ __forceinline__ void every(const float* __restrict__ b0, float* __restrict__ b1, long long n, int block) {
  const long long i = block * 256ll + threadIdx.x;
  float* s = (float*)xlc_shared;
  unsigned short h = xlc_f32_to_f16(b0[i]) + xlc_f32_to_bf16(b0[i]) + xlc_f64_to_f16((double)b0[i]) + xlc_f64_to_bf16((double)b0[i]);
  s[threadIdx.x] = xlc_f16_to_f32(h) + xlc_bf16_to_f32(h) + xlc_bits<float>((unsigned)h);
  __syncthreads();
  xlc_cp_async16(s, b0); xlc_cp_async16_zfill(s, b0, i < n);
  xlc_cp_async8(s, b0); xlc_cp_async8_zfill(s, b0, i < n);
  xlc_cp_async4(s, b0); xlc_cp_async4_zfill(s, b0, i < n);
  xlc_cp_commit(); xlc_cp_wait<1>(); xlc_cp_wait<0>();
  __syncwarp();
  unsigned a[4], b[2];
  float d[4] = {0, 0, 0, 0};
  xlc_ldmatrix_x4(a, s); xlc_ldmatrix_x4_trans(a, s); xlc_ldmatrix_x2(b, s); xlc_ldmatrix_x2_trans(b, s);
  xlc_mma_m16n8k16_f16(d, a, b);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  xlc_mma_m16n8k16_bf16(d, a, b); xlc_mma_m16n8k8_tf32(d, a, b);
  a[0] += xlc_f32_to_tf32(d[0]);
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH_FEAT_SM90_ALL
  float r[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  xlc_fence_proxy_async(); xlc_wgmma_fence();
  xlc_wgmma_m64n16k16_f16<0, 1>(r, xlc_wgmma_operand(s, 16, 1024), xlc_wgmma_operand(s, 8192, 1024));
  xlc_wgmma_m64n16k16_f16<0>(r, a, xlc_wgmma_operand(s, 16, 1024));
  xlc_wgmma_commit(); xlc_wgmma_wait<0>(); xlc_wgmma_settle(r);
  d[0] += r[0];
#endif
  float v = d[0] + __shfl_xor_sync(0xffffffffu, s[0], 1) + __shfl_up_sync(0xffffffffu, s[0], 1) + __shfl_down_sync(0xffffffffu, s[0], 1);
  double w = __shfl_sync(0xffffffffu, (double)v, 3);
  const long long q = __shfl_xor_sync(0xffffffffu, n, 3);
  const unsigned z = __ballot_sync(0xffffffffu, v > 0) + __any_sync(0xffffffffu, v > 1) + __umulhi(a[0], 77u) + (unsigned)__umul64hi(q, n);
  v += sqrtf(v) + fmaf(v, v, v) + floorf(v) + ceilf(v) + truncf(v) + rintf(v) + fabsf(v) + fmaxf(v, 1) + fminf(v, 2) + xlc_exp2_approx(v);
  w += sqrt(w) + fma(w, w, w) + floor(w) + ceil(w) + trunc(w) + rint(w) + fabs(w) + fmax(w, 1) + fmin(w, 2);
  *(xlc_vec<float, 4>*)(b1 + 4 * i) = xlc_vec<float, 4>{v, (float)w, (float)z, (float)q};
}
XLC_ENTRY(f) {
  for (int block = blockIdx.x; block < 7; block += gridDim.x) every((const float*)XLC_AT(0), (float*)XLC_AT(1), XLC_SIZE(0), block);
  xlc_grid_sync((unsigned*)XLC_AT(2));
}
"""
CHIPS = [a for a in ("sm_75", "sm_80", "sm_90", "sm_90a", "sm_100", "sm_120")
         if nvrtc.available() and a.removesuffix("a") in nvrtc.supported()]


@pytest.mark.skipif(not nvrtc.available(), reason="needs nvidia-cuda-nvrtc")
@pytest.mark.parametrize("arch", CHIPS)
def test_every_name_compiles_for_every_chip(arch: str) -> None:
    text = f"{PRELUDE}\nXLC_TABLE(3, 1)\n{EVERY}"
    for options, entries in ((), {"f"}), (("-DXLC_GRAPH",), {"f", "xlc_set_table"}):
        done = nvrtc.compile(text, arch, options)
        assert entries <= set(done.resources) and not done.resources["f"].local
        assert "warning" not in done.log


def test_the_text_above_has_every_name() -> None:
    """Of the prelude: in its list, defined as functions, or made by a macro from others; and the shim compiles it."""
    known = PRELUDE[PRELUDE.index("Known to NVRTC"):PRELUDE.index("#ifndef")]
    listed = re.findall(r"\b(?:__\w+|\w*(?:sqrt|fma|floor|ceil|trunc|rint|fabs|fmax|fmin)f?)\b", known)
    made = re.findall(r"XLC_INLINE[\w ]* (xlc_\w+)\(|XLC_(?:MMA|LDMATRIX_X\d)\((xlc_\w+)", PRELUDE)
    copies = [f"xlc_cp_async{n}{z}" for n in re.findall(r"^XLC_CP_ASYNC\((\d+)", PRELUDE, re.MULTILINE) for z in ("", "_zfill")]
    names = {*listed, *("".join(m) for m in made), *copies, "xlc_vec", "xlc_shared"} - {"xlc_shared_address", "xlc_global", "xlc_cp_async"}
    assert len(names) >= 50 and names <= set(re.findall(r"\w+", EVERY)), names - set(re.findall(r"\w+", EVERY))
    SHIMS[0].load(f"XLC_TABLE(3, 1)\n{EVERY}")


def test_bf16_tensor_cores_are_no_names_below_sm_80() -> None:
    if "sm_75" in CHIPS:
        with pytest.raises(XlcError, match="xlc_mma_m16n8k16_bf16"):
            nvrtc.compile(f"{PRELUDE}\nXLC_TABLE(3, 1)\n" + re.sub(r"#(if|endif).*", "", EVERY), "sm_75")


# ------------------------------------------------------------------------------------------------ numbers

HALVES = np.arange(1 << 16, dtype=np.uint16)


def hard(kind: Any, count: int = 20_000) -> np.ndarray:
    """Floats of every magnitude; f16 and bf16 numbers, the middles between them, and what is just beside."""
    rng, bits = np.random.default_rng(0), np.dtype(f"u{np.dtype(kind).itemsize}")
    any_bits = rng.integers(0, np.iinfo(bits).max, count, bits).view(kind)
    with np.errstate(all="ignore"):
        grid = np.concatenate([HALVES.view(t).astype(kind) for t in (np.float16, bfloat16)])
        grid = grid[np.isfinite(grid)]
        middle = np.unique(grid)
        middle = middle[:-1] / 2 + middle[1:] / 2
        every = np.concatenate([any_bits, grid, middle, rng.normal(size=count).astype(kind) * 65504, np.asarray([np.inf, np.nan], kind)])
        return np.concatenate([every, np.nextafter(every, kind(np.inf)), np.nextafter(every, kind(-np.inf)), -every])


def nearest(x: np.ndarray, kind: Any) -> np.ndarray:
    """f64 to the nearest of a 16-bit kind, ties to the even one: all three neighbours are tried."""
    infinite = np.float64(2) ** (16 if kind is np.float16 else 128)
    with np.errstate(all="ignore"):
        guess = np.abs(x).astype(np.float32).astype(kind).view(np.uint16)
        tries = np.stack([np.maximum(guess, 1) - 1, guess, np.minimum(guess + 1, np.uint16(kind(np.inf).view(np.uint16)))])
        values = tries.view(kind).astype(np.float64)
        away = np.abs(np.where(np.isinf(values), infinite, values) - np.minimum(np.abs(x), infinite))
    best = np.lexsort((tries % 2, away), axis=0)[0]
    found = np.take_along_axis(tries, best[None], 0)[0].view(kind)
    return np.where(np.isnan(x), kind(np.nan), np.copysign(found, x.astype(np.float32)).astype(kind))


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """To the bit; any nan is like any other."""
    nan = np.isnan(expected)
    assert (np.isnan(found) == nan).all()
    np.testing.assert_array_equal(found[~nan].view(f"u{found.itemsize}"), expected[~nan].view(f"u{found.itemsize}"))


@pytest.mark.parametrize("name, kind", [("f16", np.float16), ("bf16", bfloat16)])
def test_conversions(cuda_device: Any, name: str, kind: Any) -> None:
    wide = elementwise(cuda_device, f"xlc_{name}_to_f32(x)", HALVES, "unsigned short", np.float32, "float")
    same(wide, HALVES.view(kind).astype(np.float32))
    with np.errstate(all="ignore"):
        x = hard(np.float32)
        narrow = elementwise(cuda_device, f"xlc_f32_to_{name}(x)", x, "float", np.uint16, "unsigned short").view(kind)
        same(narrow, x.astype(kind))
        x = hard(np.float64)
        narrow = elementwise(cuda_device, f"xlc_f64_to_{name}(x)", x, "double", np.uint16, "unsigned short").view(kind)
        same(narrow, nearest(x, kind))
        if kind is np.float16:
            same(narrow, x.astype(kind))


def tf32(x: np.ndarray) -> np.ndarray:
    """Eleven digits, ties away from zero."""
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(np.abs(x).astype(np.float64))
        digits = np.minimum(11, exponent + 136)
        rounded = np.ldexp(np.floor(np.ldexp(fraction, digits) + 0.5), exponent - digits).astype(np.float32)
    return np.copysign(np.where(np.isfinite(x), rounded, np.abs(x)), x)


def test_tf32(cuda_device: Any) -> None:
    x = hard(np.float32)
    found = elementwise(cuda_device, "xlc_f32_to_tf32(x)", x, "float", np.uint32, "unsigned")
    same(found.view(np.float32), tf32(x))


@pytest.mark.parametrize("kind, c, suffix", [(np.float32, "float", "f"), (np.float64, "double", "")])
def test_functions_of_floats(cuda_device: Any, kind: Any, c: str, suffix: str) -> None:
    x = np.concatenate([hard(kind, 4000), np.arange(-8, 8, 0.25, kind)])
    for name, oracle in {"sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint, "fabs": np.abs}.items():
        with np.errstate(all="ignore"):
            same(elementwise(cuda_device, f"{name}{suffix}(x)", x, c, kind, c), oracle(x))
    x = x[np.isfinite(x) & (np.abs(x) > 1e-3) & (np.abs(x) < 1e3)][:2000]
    rest = [float(Fraction(float(v)) ** 2 - Fraction(float(v * v))) for v in x]  # which no rounding changes
    same(elementwise(cuda_device, f"fma{suffix}(x, x, -(x * x))", x, c, kind, c), np.asarray(rest, kind))


def test_integers_and_bits(cuda_device: Any) -> None:
    x = np.random.default_rng(1).integers(0, 1 << 64, 1000, np.uint64)
    high = elementwise(cuda_device, "__umul64hi(x, 0x9e3779b97f4a7c15ull)", x, "unsigned long long", np.uint64, "unsigned long long")
    assert high.tolist() == [int(v) * 0x9E3779B97F4A7C15 >> 64 for v in x]
    high = elementwise(cuda_device, "__umulhi(x, 0x9e3779b9u)", x.astype(np.uint32), "unsigned", np.uint32, "unsigned")
    assert high.tolist() == [int(v) * 0x9E3779B9 >> 32 for v in x.astype(np.uint32)]
    same(elementwise(cuda_device, "xlc_bits<double>(x)", x, "unsigned long long", np.float64, "double"), x.view(np.float64))


# ------------------------------------------------------------------------------------------------ threads together

REDUCTION = """XLC_ENTRY(f) {
  const float* x = (const float*)XLC_AT(0) + blockIdx.x * 1000;
  float* s = (float*)xlc_shared;
  float v = 0;
  for (int i = threadIdx.x; i < 1000; i += 256) v += x[i];
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 8) {
    v = s[threadIdx.x];
    for (int d = 4; d; d /= 2) v += __shfl_xor_sync(0xffu, v, d);
    if (threadIdx.x == 0) ((float*)XLC_AT(1))[blockIdx.x] = v;
  }
}"""


def check_reduction(device: Any) -> None:
    x = np.random.default_rng(2).integers(-50, 50, (5, 1000)).astype(np.float32)  # sums are exact
    np.testing.assert_array_equal(run(device, REDUCTION, [x, np.zeros(5, np.float32)], grid=5, shared=32)[1], x.sum(1))


def test_a_block_reduces(cuda_device: Any) -> None:
    check_reduction(cuda_device)


@each_order
def test_a_block_reduces_in_every_order(shim: ShimDevice) -> None:
    check_reduction(shim)


def test_lanes_exchange(cuda_device: Any) -> None:
    """Positions of lanes at the end of the warp, both sizes of values, votes, lanes that take no part."""
    text = """XLC_ENTRY(f) {
      const unsigned t = threadIdx.x, all = 0xffffffffu;
      long long* y = (long long*)XLC_AT(0) + t * 8;
      y[0] = __shfl_xor_sync(all, (int)t, 5); y[1] = __shfl_up_sync(all, t, 3); y[2] = __shfl_down_sync(all, (long long)t << 40, 30);
      y[3] = __shfl_sync(all, (double)t / 2, t * 7) * 2; y[4] = __ballot_sync(all, t % 3 == 0); y[5] = __any_sync(all, t == 70);
      y[6] = y[7] = -1;
      if (t % 2) { y[6] = __ballot_sync(0xaaaaaaaau, t % 3 == 0); y[7] = __shfl_xor_sync(0xaaaaaaaau, xlc_bits<float>(t), 8) > 0; }
    }"""
    found = run(cuda_device, text, [np.zeros((256, 8), np.int64)])[0]
    t = np.arange(256)
    lane, warp = t % 32, t // 32 * 32
    threes = np.asarray([sum(1 << k for k in range(32) if (w + k) % 3 == 0) for w in warp])
    expected = [t ^ 5, np.where(lane < 3, t, t - 3), np.where(lane > 1, t, t + 30) << 40, warp + t * 7 % 32, threes, warp == 64,
                np.where(t % 2, threes & 0xAAAAAAAA, -1), np.where(t % 2, 1, -1)]
    np.testing.assert_array_equal(found, np.stack(expected, 1))


TRANSPOSE = """XLC_ENTRY(f) {
  float* s = (float*)xlc_shared;
  const float* x = (const float*)XLC_AT(0);
  const long long rows = XLC_SIZE(0), columns = XLC_SIZE(1), tiles = (columns + 31) / 32;
  const long long r = blockIdx.x / tiles * 32, c = blockIdx.x % tiles * 32;
  const int i = threadIdx.x / 32, j = threadIdx.x % 32;
  for (int k = i; k < 32; k += 8) if (r + k < rows && c + j < columns) s[k * 33 + j] = x[(r + k) * columns + c + j];
  __syncthreads();
  for (int k = i; k < 32; k += 8) if (c + k < columns && r + j < rows) ((float*)XLC_AT(1))[(c + k) * rows + r + j] = s[j * 33 + k];
}"""


def transposed(device: Any, text: str = TRANSPOSE) -> bool:
    x = np.random.default_rng(3).normal(size=(70, 41)).astype(np.float32)
    y = run(device, text, [x, np.zeros((41, 70), np.float32)], x.shape, grid=3 * 2, shared=32 * 33 * 4)[1]
    return np.array_equal(y, x.T)


def test_a_transposition_through_shared_memory(cuda_device: Any) -> None:
    assert transposed(cuda_device)


@each_order
def test_a_missing_barrier_is_found(shim: ShimDevice) -> None:
    """Shared memory that is read before it is written."""
    assert transposed(shim) and not transposed(shim, TRANSPOSE.replace("__syncthreads();", ""))


PASSED_ON = """XLC_ENTRY(f) {
  int* s = (int*)xlc_shared, v = threadIdx.x;
  for (int k = 0; k < 4; k++) { s[threadIdx.x] = v; __syncthreads(); v = s[(threadIdx.x + SHIFT) % 256]; AGAIN }
  ((int*)XLC_AT(0))[threadIdx.x] = v;
}"""


@pytest.mark.parametrize("shift", [1, 255, 97])
def test_a_value_that_is_overwritten_too_early_is_found_by_another_order(shift: int) -> None:
    text, y = PASSED_ON.replace("SHIFT", str(shift)), [np.zeros(256, np.int32)]
    right = (np.arange(256) + 4 * shift) % 256
    for shim in SHIMS:
        assert (run(shim, text.replace("AGAIN", "__syncthreads();"), y, shared=1024)[0] == right).all()
    assert any((run(shim, text.replace("AGAIN", ""), y, shared=1024)[0] != right).any() for shim in SHIMS)


def test_blocks_run_in_another_order() -> None:
    text = "XLC_ENTRY(f) { int* p = (int*)XLC_AT(0); if (threadIdx.x == 0) { p[1 + *p] = blockIdx.x; ++*p; } }"
    fresh = [ShimDevice(order=d.order, seed=d.seed) for d in SHIMS]  # a seed counts launches, of which other tests make some
    orders = [run(shim, text, [np.zeros(21, np.int32)], grid=20)[0][1:].tolist() for shim in fresh]
    assert orders[0] == list(range(20)) and orders[1] == orders[0][::-1]
    assert all(sorted(o) == orders[0] for o in orders) and len(set(map(tuple, orders))) == len(SHIMS)


GRID = """XLC_ENTRY(f) {
  int* x = (int*)XLC_AT(0);
  const int n = gridDim.x * 256, i = blockIdx.x * 256 + threadIdx.x;
  for (int k = 0; k < 5; k++) {
    int* from = x + k % 2 * n; int* to = x + (k + 1) % 2 * n;
    to[i] = from[(i + 300) % n] + 1;
    xlc_grid_sync((unsigned*)XLC_AT(1));
  }
}"""


def whole_grid(device: Any, text: str = GRID) -> bool:
    n = 7 * 256
    x = np.stack([np.arange(n), np.zeros(n)]).astype(np.int32)
    x, counter = run(device, text, [x, np.zeros(1, np.uint32)], grid=7, cooperative=True)
    return np.array_equal(x[1], (np.arange(n) + 5 * 300) % n + 5) and not counter[0] & 0x7FFFFFFF


def test_blocks_wait_for_one_another(cuda_device: Any) -> None:
    assert whole_grid(cuda_device)


@each_order
def test_a_missing_grid_barrier_is_found(shim: ShimDevice) -> None:
    assert whole_grid(shim) and not whole_grid(shim, GRID.replace("xlc_grid_sync(", "(void)("))


# ------------------------------------------------------------------------------------------------ tensor cores and asynchronous copies

def test_fragments(cuda_device: Any) -> None:
    """ldmatrix against the figures of the PTX ISA."""
    text = """XLC_ENTRY(f) {
      unsigned* s = (unsigned*)xlc_shared; const unsigned lane = threadIdx.x % 32;
      s[threadIdx.x] = ((const unsigned*)XLC_AT(0))[threadIdx.x];
      __syncthreads();
      unsigned r[12];
      const char* row = (const char*)xlc_shared + lane * 16;  // 32 rows of 8: four matrices, one above the other
      xlc_ldmatrix_x4(r, row); xlc_ldmatrix_x4_trans(r + 4, row); xlc_ldmatrix_x2(r + 8, row); xlc_ldmatrix_x2_trans(r + 10, row);
      for (int k = 0; k < 12; k++) ((unsigned*)XLC_AT(1))[threadIdx.x * 12 + k] = r[k];
    }"""
    x = np.random.default_rng(4).integers(0, 1 << 16, (8, 4, 8, 8), np.uint16)
    found = run(cuda_device, text, [x[0], np.zeros((256, 12), np.uint32)], shared=1024)[1].view(np.uint16).reshape(256, 12, 2)
    plain = x[0].reshape(4, 32, 2).transpose(1, 0, 2)  # lane, matrix, pair: row lane / 4
    turned = x[0].transpose(0, 2, 1).reshape(4, 32, 2).transpose(1, 0, 2)
    np.testing.assert_array_equal(found[:32], np.concatenate([plain, turned, plain[:, :2], turned[:, :2]], 1))


# C (M x N) of tiles 64 x 64, 8 warps of 16 x 32, K in steps of 32 through three stages of shared memory; K and N are multiples of 8.
MATMUL = """XLC_ENTRY(f) {
  typedef unsigned short half;
  const half* A = (const half*)XLC_AT(0); const half* B = (const half*)XLC_AT(1);
  const long long M = XLC_SIZE(0), N = XLC_SIZE(1), K = XLC_SIZE(2), tiles = (N + 63) / 64;
  const long long m0 = blockIdx.x / tiles * 64, n0 = blockIdx.x % tiles * 64;
  const int t = threadIdx.x, lane = t % 32, m = t / 32 % 4 * 16, n = t / 128 * 32, steps = (K + 31) / 32;
  half* s = (half*)xlc_shared;
  float d[4][4] = {};
  for (int k = 0; k < steps + 2; k++) {
    if (k < steps) {
      half* a = s + k % 3 * (64 * 40 + 32 * 72); half* b = a + 64 * 40;
      const long long ar = m0 + t / 4, ac = k * 32 + t % 4 * 8, br = k * 32 + t / 8, bc = n0 + t % 8 * 8;
      xlc_cp_async16_zfill(a + t / 4 * 40 + t % 4 * 8, A + ar * K + ac, ar < M && ac < K);
      xlc_cp_async16_zfill(b + t / 8 * 72 + t % 8 * 8, B + br * N + bc, br < K && bc < N);
    }
    xlc_cp_commit();
    if (k < 2) continue;
    xlc_cp_wait<2>();
    __syncthreads();  // seen by all
    const half* a = s + (k - 2) % 3 * (64 * 40 + 32 * 72); const half* b = a + 64 * 40;
    for (int h = 0; h < 32; h += 16) {
      unsigned x[4], y[4][2];
      xlc_ldmatrix_x4(x, a + (m + lane % 16) * 40 + h + lane / 16 * 8);
      xlc_ldmatrix_x4_trans(y[0], b + (h + lane % 16) * 72 + n + lane / 16 * 8);
      xlc_ldmatrix_x2_trans(y[2], b + (h + lane % 16) * 72 + n + 16);
      xlc_ldmatrix_x2_trans(y[3], b + (h + lane % 16) * 72 + n + 24);
      for (int j = 0; j < 4; j++) xlc_mma_m16n8k16_KIND(d[j], x, y[j]);
    }
    __syncthreads();  // read by all
  }
  for (int j = 0; j < 4; j++)
    for (int e = 0; e < 4; e++) {
      const long long r = m0 + m + lane / 4 + e / 2 * 8, c = n0 + n + j * 8 + lane % 4 * 2 + e % 2;
      if (r < M && c < N) ((float*)XLC_AT(2))[r * N + c] = d[j][e];
    }
}"""


def matmul_error(device: Any, kind: Any, change: Callable[[str], str] = lambda text: text) -> float:
    """The largest one; all products and sums are of moderate size."""
    M, N, K = 100, 72, 104
    rng = np.random.default_rng(5)
    a, b = (rng.uniform(-1, 1, shape).astype(kind) for shape in ((M, K), (K, N)))
    text = change(MATMUL.replace("KIND", "f16" if kind is np.float16 else "bf16"))
    c = run(device, text, [a, b, np.zeros((M, N), np.float32)], (M, N, K), grid=4, shared=3 * (64 * 40 + 32 * 72) * 2)[2]
    return float(np.max(np.abs(c - a.astype(np.float64) @ b.astype(np.float64))))


@pytest.mark.parametrize("kind", [np.float16, bfloat16])
def test_a_matmul_through_a_pipeline_of_copies(cuda_device: Any, kind: Any) -> None:
    assert matmul_error(cuda_device, kind) < 1e-4


@each_order
def test_a_missing_wait_or_barrier_in_the_pipeline_is_found(shim: ShimDevice) -> None:
    assert matmul_error(shim, np.float16) < 1e-4
    assert not matmul_error(shim, np.float16, lambda text: text.replace("xlc_cp_wait<2>();", "")) < 1e-2
    assert not matmul_error(shim, np.float16, lambda text: text.replace("xlc_cp_wait<2>();", "xlc_cp_wait<3>();")) < 1e-2
    assert not matmul_error(shim, np.float16, lambda text: text.replace("__syncthreads();  // seen", "//")) < 1e-2


def test_a_stage_that_is_overwritten_while_others_read_it_is_found() -> None:
    """Three stages and two barriers: without the second one a copy is issued into a stage that slower threads still read."""
    assert any(not matmul_error(shim, np.float16, lambda text: text.replace("__syncthreads();  // read", "//")) < 1e-2 for shim in SHIMS)


TF32 = """XLC_ENTRY(f) {
  const float* A = (const float*)XLC_AT(0); const float* B = (const float*)XLC_AT(1);  // 128 x 24, 24 x 8
  float* s = (float*)xlc_shared;
  const int lane = threadIdx.x % 32, m = threadIdx.x / 32 * 16;
  for (int i = threadIdx.x; i < 128 * 24; i += 256) s[i / 24 * 28 + i % 24] = A[i];
  __syncthreads();
  float d[4] = {0, 0, 0, 0};
  for (int k = 0; k < 24; k += 8) {
    unsigned a[4], b[2];
    xlc_ldmatrix_x4(a, s + (m + lane % 16) * 28 + k + lane / 16 * 4);
    for (int i = 0; i < 4; i++) a[i] = ROUND(xlc_bits<float>(a[i]));
    for (int i = 0; i < 2; i++) b[i] = ROUND(B[(k + lane % 4 + i * 4) * 8 + lane / 4]);
    xlc_mma_m16n8k8_tf32(d, a, b);
  }
  for (int e = 0; e < 4; e++) ((float*)XLC_AT(2))[(m + lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = d[e];
}"""


@pytest.mark.parametrize("rounds", [True, False])
def test_a_matmul_in_tf32(cuda_device: Any, rounds: bool) -> None:
    """Operands that were not rounded lose their low bits."""
    rng = np.random.default_rng(6)
    a, b = rng.uniform(-1, 1, (128, 24)).astype(np.float32), rng.uniform(-1, 1, (24, 8)).astype(np.float32)
    text = TF32.replace("ROUND", "xlc_f32_to_tf32" if rounds else "xlc_bits<unsigned>")
    c = run(cuda_device, text, [a, b, np.zeros((128, 8), np.float32)], shared=128 * 28 * 4)[2]
    x, y = ((tf32(v) if rounds else (v.view(np.uint32) & 0xFFFFE000).view(np.float32)).astype(np.float64) for v in (a, b))
    assert np.max(np.abs(c - x @ y)) < 1e-5 < np.max(np.abs(x @ y - a.astype(np.float64) @ b))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_copies_of_every_size(cuda_device: Any, size: int) -> None:
    text = f"""XLC_ENTRY(f) {{
      char* s = (char*)xlc_shared + threadIdx.x * 2 * {size};
      const char* x = (const char*)XLC_AT(0) + threadIdx.x * 2 * {size};
      xlc_cp_async{size}(s, x); xlc_cp_commit(); xlc_cp_async{size}_zfill(s + {size}, x + {size}, threadIdx.x % 3 != 0); xlc_cp_commit();
      xlc_cp_wait<1>(); xlc_cp_wait<0>();
      for (int i = 0; i < 2 * {size}; i++) ((char*)XLC_AT(1))[threadIdx.x * 2 * {size} + i] = s[i]; }}"""
    x = np.random.default_rng(7).integers(0, 255, (256, 2, size), np.uint8)
    y = run(cuda_device, text, [x, np.zeros_like(x)], shared=512 * size)[1]
    x[::3, 1] = 0
    np.testing.assert_array_equal(y, x)


# ------------------------------------------------------------------------------------------------ what the shim finds

FAULTS = {
    "some return": (
        "if (threadIdx.x == 5) return;\n __syncthreads();",
        "f: block 0 does not go on: 255 threads .thread 0 first. wait at __syncthreads .line 2.; 1 threads .thread 5 first. have returned"),
    "two barriers": (
        "if (threadIdx.x < 9) __syncthreads();\n else __syncthreads();",
        "thread 255, line 2: thread 0 of block 0 waits at line 1 meanwhile"),
    "a lane is missing": (
        "if (threadIdx.x % 32) __syncwarp();",
        "248 threads .thread 1 first. wait for lanes of their warp .line 1. with mask 0xffffffff"),
    "other shuffles": (
        "int v = 0; if (threadIdx.x < 9) v = __shfl_xor_sync(~0u, v, 1);\n else v = __shfl_xor_sync(~0u, v, 2);",
        "9 threads .thread 0 first. wait for lanes of their warp .line 1."),
    "not in the mask": ("__ballot_sync(0xffff, true);", "thread 16, line 1: the mask 0x0000ffff does not name the lane itself"),
    "from outside the mask": (
        "if (threadIdx.x < 8) __shfl_xor_sync(0xff, 1, 8);",
        "lane 0 takes the value of lane 8, which the mask does not name"),
    "past shared memory": ("xlc_shared[128 + threadIdx.x] = 0;", "a store to shared memory at 128, past the end at 128"),
    "copy past it": ("xlc_cp_async16(xlc_shared + 120, XLC_AT(0));", "xlc_cp_async16 writes outside of the shared memory"),
    "copy to elsewhere": ("float x[4]; xlc_cp_async16(x, XLC_AT(0));", "xlc_cp_async16 writes outside of the shared memory"),
    "copy from unaligned": ("xlc_cp_async16(xlc_shared, (char*)XLC_AT(0) + 8);", "an address of xlc_cp_async16 is not aligned"),
    "unaligned rows": ("unsigned r[4]; xlc_ldmatrix_x2(r, xlc_shared + 8);", "a row of ldmatrix is not aligned to 16 bytes"),
    "rows elsewhere": ("unsigned r[4]; xlc_ldmatrix_x4(r, XLC_AT(0));", "ldmatrix reads outside of the shared memory"),
    "a null pointer": ("*(volatile float*)(threadIdx.x * 4ll) = 0;", "thread 0: an access to address"),
    "no division": ("volatile int zero = 0; zero = 7 / zero;", "an integer is divided by zero"),
    "an endless recursion": ("f(table); __syncthreads();", "the stack overflows"),
    "before an array": ("((char*)XLC_AT(0))[-1] = 0;", "f: something is written beside an array of 1024 bytes"),
    "after an array": ("((char*)XLC_AT(0))[1024] = 0;", "f: something is written beside an array of 1024 bytes"),
    "not cooperative": (
        "xlc_grid_sync((unsigned*)XLC_AT(0));",
        "256 threads .thread 0 first. wait at xlc_grid_sync .line 1.; the launch is not cooperative"),
    "not zero": (
        "((unsigned*)XLC_AT(0))[0] = 7; xlc_grid_sync((unsigned*)XLC_AT(0));",
        "the counter of xlc_grid_sync is not zero before the launch"),
}


@pytest.mark.parametrize("body, message", FAULTS.values(), ids=FAULTS.keys())
def test_an_error_names_what_is_wrong(body: str, message: str) -> None:
    device = ShimDevice()
    with pytest.raises(XlcError, match=message):
        run(device, f"XLC_ENTRY(f) {{ {body} }}", [np.zeros(256, np.float32)], grid=2, shared=128)
    check_reduction(device)  # and the next launch is well


def test_limits_and_texts_that_do_not_compile() -> None:
    with pytest.raises(XlcError, match=r"f asks for 70000 bytes of shared memory; a block of shim \(sm_75\) may have 65536"):
        run(ShimDevice("sm_75"), "XLC_ENTRY(f) {}", [], shared=70000)
    with pytest.raises(XlcError, match="f is launched with 0 blocks"):
        run(ShimDevice(), "XLC_ENTRY(f) {}", [], grid=0)
    with pytest.raises(XlcError, match="rejects the CUDA text(.|\n)*not_a_name"):
        SHIMS[0].load("XLC_TABLE(0, 0)\nXLC_ENTRY(f) { not_a_name(); }")
    with pytest.raises(ValueError, match="ascending, descending, random"):
        ShimDevice(order="sorted")


def test_memory_that_was_not_written_is_nan() -> None:
    text = """XLC_ENTRY(f) {
      float local[4]; float* y = (float*)XLC_AT(0);
      if (threadIdx.x) return;
      y[1] = ((float*)xlc_shared)[3]; y[2] = local[threadIdx.x]; ((float*)xlc_shared)[3] = 1; }"""
    shim = ShimDevice()
    y = shim.empty((4,), np.float32)
    assert np.isnan(y).all()
    entry = shim.load(f"XLC_TABLE(1, 0)\n{text}").function("f")
    shim.launch(entry, 2, 16, table([shim.address(y)]))  # the second block does not see what the first left
    assert np.isnan(y[[0, 1, 3]]).all() and abs(y[2]) > 1e30


def test_arrays_of_the_device() -> None:
    shim = ShimDevice()
    x = shim.asarray(np.arange(6).reshape(2, 3))
    assert shim.owns(x) and not shim.owns(np.zeros(3)) and shim.asarray(x) is x and type(shim.numpy(x)) is np.ndarray
    assert all(shim.address(shim.empty(shape, bfloat16)) % 512 == 256 for shape in [(), (0,), (3, 5)])
    assert shim.workspace(100).address % 512 == 256 and shim.resident(None, 0) == shim.chip.sms == 3
    assert shim.empty((2, 0), np.bool_).shape == (2, 0) and (shim.numpy(x) == [[0, 1, 2], [3, 4, 5]]).all()


def test_other_processors_switch_threads_too() -> None:
    """By ucontext: the runtime is another one, hence another process."""
    program = "from test_cuda_shim import *\nfor s in SHIMS: check_reduction(s); assert whole_grid(s)\nprint('done')"
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path, "XLC_SHIM_PORTABLE": "1"},
                          capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
