// The names of xlc/backends/cuda/prelude.cuh for a CPU: generated CUDA text is compiled as C++ behind this header (g++ -include shim.h) and
// runs on the threads of shim.cpp. Nothing else is included, since every module pays for it.
#pragma once
#define XLC_PRELUDE  // the text may have the prelude in front: it is skipped

#define XLC_TABLE(A, S) struct Table { void* at[(A) ? (A) : 1]; long long sizes[(S) ? (S) : 1]; };
#define XLC_ENTRY(name, ...) extern "C" void name(const Table& table)
#define XLC_AT(k) (table.at[k])
#define XLC_SIZE(k) (table.sizes[k])

#define __device__
#define __forceinline__ inline
#define XLC_LINE int line = __builtin_LINE()  // threads that wait for one another have to do so at one line of the text

template <class T, int N> struct alignas(sizeof(T) * N) xlc_vec { T e[N]; };

extern "C" {
struct xlc_shim_index { unsigned x; };
extern xlc_shim_index threadIdx, blockIdx, gridDim;
extern unsigned char* xlc_shared;

void __syncthreads(XLC_LINE);
void __syncwarp(XLC_LINE);
void xlc_grid_sync(unsigned* counter, XLC_LINE);
unsigned __ballot_sync(unsigned mask, bool value, XLC_LINE);
unsigned long long xlc_shim_shuffle(unsigned mask, unsigned long long value, unsigned source, int line);

void xlc_ldmatrix_x2(unsigned* r, const void* row, XLC_LINE);
void xlc_ldmatrix_x4(unsigned* r, const void* row, XLC_LINE);
void xlc_ldmatrix_x2_trans(unsigned* r, const void* row, XLC_LINE);
void xlc_ldmatrix_x4_trans(unsigned* r, const void* row, XLC_LINE);
void xlc_mma_m16n8k16_f16(float* d, const unsigned* a, const unsigned* b, XLC_LINE);
void xlc_mma_m16n8k16_bf16(float* d, const unsigned* a, const unsigned* b, XLC_LINE);
void xlc_mma_m16n8k8_tf32(float* d, const unsigned* a, const unsigned* b, XLC_LINE);

unsigned xlc_shared_address(const void* p);
void xlc_fence_proxy_async();
void xlc_wgmma_fence(XLC_LINE);
void xlc_wgmma_commit(XLC_LINE);
void xlc_shim_products(unsigned groups, int line);
void xlc_shim_wgmma(float* d, int columns, bool bfloat, const unsigned* a, unsigned long long a_operand, int ta, unsigned long long b, int tb,
                    int line);

void xlc_shim_copy(void* shared, const void* global, unsigned bytes, bool valid);
void xlc_shim_wait(unsigned groups);
void xlc_cp_commit();

float xlc_f16_to_f32(unsigned short);
float xlc_bf16_to_f32(unsigned short);
unsigned short xlc_f32_to_f16(float);
unsigned short xlc_f64_to_f16(double);
unsigned short xlc_f32_to_bf16(float);
unsigned short xlc_f64_to_bf16(double);
unsigned xlc_f32_to_tf32(float);
float xlc_exp2_approx(float);

float sqrtf(float) noexcept, fmaf(float, float, float) noexcept, floorf(float) noexcept, ceilf(float) noexcept, truncf(float) noexcept,
    rintf(float) noexcept, fabsf(float) noexcept, fmaxf(float, float) noexcept, fminf(float, float) noexcept;
double sqrt(double) noexcept, fma(double, double, double) noexcept, floor(double) noexcept, ceil(double) noexcept, trunc(double) noexcept,
    rint(double) noexcept, fabs(double) noexcept, fmax(double, double) noexcept, fmin(double, double) noexcept;
}

static inline int __any_sync(unsigned mask, bool value, XLC_LINE) { return __ballot_sync(mask, value, line) != 0; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }

template <class To, class From> static inline To xlc_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "xlc_bits is between types of one size");
  union { From from; To to; } u = {from};
  return u.to;
}

template <class T> static inline T xlc_shim_shuffle_of(unsigned mask, T value, unsigned source, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "values of 32 or 64 bits are shuffled");
  union { unsigned long long bits; T value; } u = {0};
  u.value = value;
  u.bits = xlc_shim_shuffle(mask, u.bits, source, line);
  return u.value;
}
// A source outside of the warp is the lane itself.
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, unsigned lane, XLC_LINE) {
  const unsigned me = threadIdx.x % 32, from = me ^ lane;
  return xlc_shim_shuffle_of(mask, value, from < 32 ? from : me, line);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned lane, XLC_LINE) {
  const unsigned me = threadIdx.x % 32;
  return xlc_shim_shuffle_of(mask, value, lane <= me ? me - lane : me, line);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned lane, XLC_LINE) {
  const unsigned me = threadIdx.x % 32;
  return xlc_shim_shuffle_of(mask, value, lane < 32 - me ? me + lane : me, line);
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, unsigned lane, XLC_LINE) {
  return xlc_shim_shuffle_of(mask, value, lane % 32, line);
}

static inline void xlc_cp_async4(void* shared, const void* global) { xlc_shim_copy(shared, global, 4, true); }
static inline void xlc_cp_async8(void* shared, const void* global) { xlc_shim_copy(shared, global, 8, true); }
static inline void xlc_cp_async16(void* shared, const void* global) { xlc_shim_copy(shared, global, 16, true); }
static inline void xlc_cp_async4_zfill(void* shared, const void* global, bool valid) { xlc_shim_copy(shared, global, 4, valid); }
static inline void xlc_cp_async8_zfill(void* shared, const void* global, bool valid) { xlc_shim_copy(shared, global, 8, valid); }
static inline void xlc_cp_async16_zfill(void* shared, const void* global, bool valid) { xlc_shim_copy(shared, global, 16, valid); }
template <int N> static inline void xlc_cp_wait() { xlc_shim_wait(N); }

static inline unsigned long long xlc_wgmma_operand(const void* p, unsigned leading, unsigned stride) {
  return 1ull << 62 | (unsigned long long)(stride / 16) << 32 | (unsigned long long)(leading / 16) << 16 | xlc_shared_address(p) / 16;
}
template <int N> static inline void xlc_wgmma_wait(XLC_LINE) { xlc_shim_products(N, line); }
template <int N> static inline void xlc_wgmma_settle(float (&d)[N]) { asm volatile("" : : "r"(d) : "memory"); }
#define XLC_WGMMA(N, type, bfloat) \
  template <int TA, int TB> static inline void xlc_wgmma_m64n##N##k16_##type(float* d, unsigned long long a, unsigned long long b, XLC_LINE) { \
    xlc_shim_wgmma(d, N, bfloat, nullptr, a, TA, b, TB, line); \
  } \
  template <int TB> static inline void xlc_wgmma_m64n##N##k16_##type(float* d, const unsigned* a, unsigned long long b, XLC_LINE) { \
    xlc_shim_wgmma(d, N, bfloat, a, 0, 0, b, TB, line); \
  }
XLC_WGMMA(16, f16, false) XLC_WGMMA(32, f16, false) XLC_WGMMA(64, f16, false) XLC_WGMMA(128, f16, false) XLC_WGMMA(256, f16, false)
XLC_WGMMA(16, bf16, true) XLC_WGMMA(32, bf16, true) XLC_WGMMA(64, bf16, true) XLC_WGMMA(128, bf16, true) XLC_WGMMA(256, bf16, true)
#undef XLC_WGMMA
