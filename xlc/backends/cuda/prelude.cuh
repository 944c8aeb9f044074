// The names that generated CUDA text may use besides plain C++ and what NVRTC itself knows. It stands in front of every module; the
// tests put `tests/cuda_shim/shim.h`, which defines the same names for a CPU, in its place. Nothing is included: NVRTC needs no headers.
//
// A module is this file, then the text of one Plan. XLC_TABLE(A, S) comes first in it and defines `struct Table { void* at[A]; long long
// sizes[S]; }` (a part without entries has one, unused); XLC_ENTRY(name) begins an entry of 256 threads; XLC_AT(k) and XLC_SIZE(k) read
// the table inside of an entry:
//
//     XLC_TABLE(2, 1)
//     static __device__ __forceinline__ void k0(const float* __restrict__ b0, float* __restrict__ b1, long long n, int block) {
//       const long long i = block * 256ll + threadIdx.x;
//       if (i < n) b1[i] = sqrtf(b0[i]);
//     }
//     XLC_ENTRY(l0) { k0((const float*)XLC_AT(0), (float*)XLC_AT(1), XLC_SIZE(0), blockIdx.x); }
//
// XLC_ENTRY(name, n) says that n blocks on a multiprocessor are enough: with no number, ptxas may aim at more, and spill for that. It aims
// at half of the threads that there is room for: of 2048 they leave a thread 128 registers, of 1536 only 80, and there one block is enough.
//
// The table is the argument of an entry by value. With -DXLC_GRAPH it lies in device memory, at an address that a captured graph keeps,
// and XLC_TABLE also makes the entry `xlc_set_table(Table* table, Table value)`, which writes it (one block) before each replay.
//
// An entry that several launches share is told by each of them where its arrays are: XLC_SHARED_ENTRY(name, N) begins one with N arrays,
// XLC_SLOT(k) is the address of one, and what is passed is the table (or its address) with N pairs of a place in it and an offset in bytes.
// XLC_CALL is its first statement.
//
// Known to NVRTC, and to be used (the shim defines just these):
//   threadIdx.x blockIdx.x gridDim.x  __syncthreads() __syncwarp()
//   __shfl_xor_sync __shfl_up_sync __shfl_down_sync __shfl_sync (mask, value of 32 or 64 bits, lane)  __ballot_sync __any_sync (mask, bool)
//   sqrtf fmaf floorf ceilf truncf rintf fabsf fmaxf fminf  sqrt fma floor ceil trunc rint fabs fmax fmin  __umulhi __umul64hi
#ifndef XLC_PRELUDE
#define XLC_PRELUDE

#if __CUDA_ARCH__ == 750 || __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000 || __CUDA_ARCH__ == 1030
#define XLC_BOUNDS(...) __launch_bounds__(__VA_ARGS__)
#else
#define XLC_SECOND(a, b, ...) b
#define XLC_BOUNDS(...) __launch_bounds__(256, XLC_SECOND(__VA_ARGS__, 1, 0))
#endif

#define XLC_TABLE_STRUCT(A, S) struct Table { void* at[(A) ? (A) : 1]; long long sizes[(S) ? (S) : 1]; };
struct XlcSlot { long long place, offset; };
template <class T, int N> struct XlcCall { T table; XlcSlot slots[(N) ? (N) : 1]; };
#ifdef XLC_GRAPH
#define XLC_TABLE(A, S) XLC_TABLE_STRUCT(A, S) \
  extern "C" __global__ void __launch_bounds__(256) xlc_set_table(Table* table, const __grid_constant__ Table value) { \
    for (unsigned i = threadIdx.x; i < sizeof(Table) / 8; i += 256) ((long long*)table)[i] = ((const long long*)&value)[i]; \
  }
#define XLC_ENTRY(name, ...) extern "C" __global__ void XLC_BOUNDS(256, ##__VA_ARGS__) name(const Table* __restrict__ table)
#define XLC_AT(k) xlc_global(table->at[k])
#define XLC_SIZE(k) (table->sizes[k])
#define XLC_SHARED_ENTRY(name, N, ...) \
  extern "C" __global__ void XLC_BOUNDS(256, ##__VA_ARGS__) name(const __grid_constant__ XlcCall<const Table*, N> call)
#define XLC_CALL const Table* const table = call.table;
#else
#define XLC_TABLE(A, S) XLC_TABLE_STRUCT(A, S)
#define XLC_ENTRY(name, ...) extern "C" __global__ void XLC_BOUNDS(256, ##__VA_ARGS__) name(const __grid_constant__ Table table)
#define XLC_AT(k) (table.at[k])
#define XLC_SIZE(k) (table.sizes[k])
#define XLC_SHARED_ENTRY(name, N, ...) \
  extern "C" __global__ void XLC_BOUNDS(256, ##__VA_ARGS__) name(const __grid_constant__ XlcCall<Table, N> call)
#define XLC_CALL const Table& table = call.table;
#endif
#define XLC_SLOT(k) ((char*)XLC_AT(call.slots[k].place) + call.slots[k].offset)

#define XLC_INLINE __device__ __forceinline__  // and not static: what a text does not use is no warning

// The same address, of which the compiler knows that it is in global memory: it cannot see that of one that was itself loaded.
XLC_INLINE void* xlc_global(void* p) {
  unsigned long long q;
  asm("cvta.to.global.u64 %0, %1;" : "=l"(q) : "l"(p));
  return __cvta_global_to_generic(q);
}

// The shared memory of a block: kernels cut it up by offset.
extern __shared__ __align__(1024) unsigned char xlc_shared[];

// N adjacent elements, which are loaded and stored by one access.
template <class T, int N> struct alignas(sizeof(T) * N) xlc_vec { T e[N]; };

// The bits of a value as another type of the same size.
template <class To, class From> XLC_INLINE To xlc_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "xlc_bits is between types of one size");
  union { From from; To to; } u = {from};
  return u.to;
}

// ---- f16 and bf16 are `unsigned short`. Conversions round once, to nearest even; nan stays nan.

XLC_INLINE float xlc_f16_to_f32(unsigned short x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
XLC_INLINE unsigned short xlc_f32_to_f16(float x) { unsigned short y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
XLC_INLINE unsigned short xlc_f64_to_f16(double x) { unsigned short y; asm("cvt.rn.f16.f64 %0, %1;" : "=h"(y) : "d"(x)); return y; }
XLC_INLINE float xlc_bf16_to_f32(unsigned short x) { return __uint_as_float((unsigned)x << 16); }

XLC_INLINE unsigned short xlc_f32_to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
  unsigned short y;
  // two at a time, one of which is 0: that of a single number runs at a quarter of the rate
  asm("{ .reg .b32 two; .reg .b16 high; cvt.rn.bf16x2.f32 two, 0f00000000, %1; mov.b32 {%0, high}, two; }" : "=h"(y) : "f"(x));
  return y;
#else
  const unsigned u = __float_as_uint(x);
  return x != x ? 0x7fff : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
#endif
}

// By way of the f32 towards zero, made odd where that is not exact: a sticky bit, which keeps the second rounding from being another.
XLC_INLINE unsigned short xlc_f64_to_bf16(double x) {
  const float y = __double2float_rz(x);
  return xlc_f32_to_bf16((double)y == x ? y : __uint_as_float(__float_as_uint(y) | 1));
}

// 2**x, with an error of 2^-22.5 of the significand (PTX ISA, ex2). Numbers below the normal ones count as 0, as argument and as result;
// -inf gives 0, inf gives inf, nan stays nan.
XLC_INLINE float xlc_exp2_approx(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }

// ---- Copies from global to shared memory that are seen after a wait. Addresses are multiples of the size. `_zfill` writes zeros and
// reads nothing where `valid` is false. xlc_cp_wait<N>() waits for all but the last N groups that this thread committed.

XLC_INLINE unsigned xlc_shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

#if __CUDA_ARCH__ >= 800
#define XLC_CP_ASYNC(bytes, cache) \
  XLC_INLINE void xlc_cp_async##bytes##_zfill(void* shared, const void* global, bool valid) { \
    asm volatile("cp.async." cache ".shared.global [%0], [%1], " #bytes ", %2;" \
                 :: "r"(xlc_shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(valid ? bytes : 0) : "memory"); \
  } \
  XLC_INLINE void xlc_cp_async##bytes(void* shared, const void* global) { \
    asm volatile("cp.async." cache ".shared.global [%0], [%1], " #bytes ";" \
                 :: "r"(xlc_shared_address(shared)), "l"(__cvta_generic_to_global(global)) : "memory"); \
  }
XLC_INLINE void xlc_cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> XLC_INLINE void xlc_cp_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }
#else  // plain copies
#define XLC_CP_ASYNC(bytes, cache) \
  XLC_INLINE void xlc_cp_async##bytes##_zfill(void* shared, const void* global, bool valid) { \
    typedef xlc_vec<unsigned, bytes / 4> words; \
    *(words*)shared = valid ? *(const words*)global : words{}; \
  } \
  XLC_INLINE void xlc_cp_async##bytes(void* shared, const void* global) { xlc_cp_async##bytes##_zfill(shared, global, true); }
XLC_INLINE void xlc_cp_commit() {}
template <int N> XLC_INLINE void xlc_cp_wait() {}
#endif
XLC_CP_ASYNC(4, "ca")
XLC_CP_ASYNC(8, "ca")
XLC_CP_ASYNC(16, "cg")
#undef XLC_CP_ASYNC

// ---- Tensor cores. All 32 lanes of a warp take part; fragments lie in the lanes as the PTX ISA says.
//
// ldmatrix: 8x8 matrices of 16-bit elements in shared memory; lane i gives the address of row i % 8 (16 bytes, aligned) of matrix i / 8,
// and gets two adjacent elements of each (of its transpose). A barrier stands between it and the stores of what it reads.

#define XLC_LDMATRIX_X4(name, kind) XLC_INLINE void name(unsigned r[4], const void* row) { \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" kind ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(xlc_shared_address(row))); \
  }
#define XLC_LDMATRIX_X2(name, kind) XLC_INLINE void name(unsigned r[2], const void* row) { \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" kind ".shared.b16 {%0, %1}, [%2];" \
                 : "=r"(r[0]), "=r"(r[1]) : "r"(xlc_shared_address(row))); \
  }
XLC_LDMATRIX_X4(xlc_ldmatrix_x4, "")
XLC_LDMATRIX_X4(xlc_ldmatrix_x4_trans, ".trans")
XLC_LDMATRIX_X2(xlc_ldmatrix_x2, "")
XLC_LDMATRIX_X2(xlc_ldmatrix_x2_trans, ".trans")
#undef XLC_LDMATRIX_X4
#undef XLC_LDMATRIX_X2

// d += a b: a of 16 rows, b of 8 columns (each column together), d in f32. bf16 and tf32 are there from sm_80 on; below they are no
// names, so that a schedule that asks for them does not compile.

#define XLC_MMA(name, shape) XLC_INLINE void name(float d[4], const unsigned a[4], const unsigned b[2]) { \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
  }
#if __CUDA_ARCH__ >= 800
XLC_MMA(xlc_mma_m16n8k16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
XLC_MMA(xlc_mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
XLC_MMA(xlc_mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")

// To nearest, ties away from zero; the result is an operand of mma.
XLC_INLINE unsigned xlc_f32_to_tf32(float x) { unsigned y; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x)); return y; }
#else  // two halves of k
XLC_INLINE void xlc_mma_m16n8k16_f16(float d[4], const unsigned a[4], const unsigned b[2]) {
  for (int h = 0; h < 2; h++)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[2 * h]), "r"(a[2 * h + 1]), "r"(b[h]));
}
#endif
#undef XLC_MMA

#if __CUDA_ARCH_FEAT_SM90_ALL
// ---- Tensor cores of sm_90a, which four warps use together: 128 threads from a multiple of 128 on. d[0 .. N/2) += a b in the background,
// d lying in the lanes as the PTX ISA says (wgmma.m64nNk16), a of 64 rows and b of N columns in shared memory, 128-byte swizzled, as
// descriptors; or 16 rows of a in the registers of each warp, as an operand of mma. TA, TB: rows (columns) and not contracted elements
// are neighbours. xlc_wgmma_fence() stands before, where registers were touched; xlc_wgmma_wait<N>() waits for all but the last N groups
// that were committed, and then xlc_wgmma_settle(d) keeps what reads d behind it.

// What was written to shared memory is seen by these products; a barrier follows.
XLC_INLINE void xlc_fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
XLC_INLINE void xlc_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
XLC_INLINE void xlc_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> XLC_INLINE void xlc_wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory"); }
template <int N> XLC_INLINE void xlc_wgmma_settle(float (&d)[N]) {
  #pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i]) :: "memory");
}

// An operand that begins at a multiple of 1024 bytes, or at a step of 16 contracted elements from one. `leading`: bytes from 64 neighbours
// to the next 64, of rows (columns) that are neighbours; `stride`: from eight rows, or contracted elements, of 128 bytes to the next.
XLC_INLINE unsigned long long xlc_wgmma_operand(const void* p, unsigned leading, unsigned stride) {
  const unsigned low = (xlc_shared_address(p) & 0x3ffff) >> 4 | leading >> 4 << 16, high = stride >> 4 | 1u << 30;
  return low | (unsigned long long)high << 32;
}

// The names of 8, 16, 32, 64 and 128 results, and these themselves.
#define XLC_TEN(t) "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define XLC_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define XLC_D16 XLC_TEN() "%10, %11, %12, %13, %14, %15"
#define XLC_D32 XLC_TEN() XLC_TEN(1) XLC_TEN(2) "%30, %31"
#define XLC_D64 XLC_TEN() XLC_TEN(1) XLC_TEN(2) XLC_TEN(3) XLC_TEN(4) XLC_TEN(5) "%60, %61, %62, %63"
#define XLC_D128 XLC_TEN() XLC_TEN(1) XLC_TEN(2) XLC_TEN(3) XLC_TEN(4) XLC_TEN(5) XLC_TEN(6) XLC_TEN(7) XLC_TEN(8) XLC_TEN(9) XLC_TEN(10) \
  XLC_TEN(11) "%120, %121, %122, %123, %124, %125, %126, %127"
#define XLC_R8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define XLC_R16(i) XLC_R8(i), XLC_R8(i + 8)
#define XLC_R32(i) XLC_R16(i), XLC_R16(i + 16)
#define XLC_R64(i) XLC_R32(i), XLC_R32(i + 32)
#define XLC_R128(i) XLC_R64(i), XLC_R64(i + 64)
#define XLC_WGMMA(N, type, registers, results, p0, p1, p2, p3, p4, p5) \
  template <int TA, int TB> XLC_INLINE void xlc_wgmma_m64n##N##k16_##type(float* d, unsigned long long a, unsigned long long b) { \
    asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type \
                 " {" registers "}, %" #p0 ", %" #p1 ", p, 1, 1, %" #p2 ", %" #p3 ";}" : results : "l"(a), "l"(b), "n"(TA), "n"(TB)); \
  } \
  template <int TB> XLC_INLINE void xlc_wgmma_m64n##N##k16_##type(float* d, const unsigned a[4], unsigned long long b) { \
    asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type \
                 " {" registers "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1, %" #p5 ";}" \
                 : results : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(TB)); \
  }
#define XLC_WGMMAS(type) \
  XLC_WGMMA(16, type, XLC_D8, XLC_R8(0), 8, 9, 10, 11, 12, 13) \
  XLC_WGMMA(32, type, XLC_D16, XLC_R16(0), 16, 17, 18, 19, 20, 21) \
  XLC_WGMMA(64, type, XLC_D32, XLC_R32(0), 32, 33, 34, 35, 36, 37) \
  XLC_WGMMA(128, type, XLC_D64, XLC_R64(0), 64, 65, 66, 67, 68, 69) \
  XLC_WGMMA(256, type, XLC_D128, XLC_R128(0), 128, 129, 130, 131, 132, 133)
XLC_WGMMAS(f16)
XLC_WGMMAS(bf16)
#undef XLC_WGMMAS
#undef XLC_WGMMA
#undef XLC_TEN
#endif

// ---- Waits for every thread of every block of a cooperative launch. The counter is zero before the launch. Block 0 adds what makes the
// sum of a round 2^31, so that the top bit flips when the last block has come and the counter is good for the next round as it is
// (the barrier of cooperative groups). What was written before is seen after.
XLC_INLINE void xlc_grid_sync(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const unsigned before = atomicAdd(counter, blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u);
    while (((*(volatile unsigned*)counter ^ before) & 0x80000000u) == 0) {}
    __threadfence();
  }
  __syncthreads();
}

#undef XLC_INLINE
#endif
