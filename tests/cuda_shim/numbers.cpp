// Number formats of the shim: conversions of f16, bf16 and tf32, and the products of tensor cores on fragments as the PTX ISA lays them out.
#include "shim.h"

extern "C" void xlc_shim_meet_warp(void* operand, void (*exchange)(void* const*), int line);

namespace {

// f64 to a 16-bit float with so many bits of fraction and this least exponent: to nearest even; nan becomes the one that a chip makes.
template <int FRACTION, int LEAST> unsigned short narrow(double x) {
  const unsigned long long bits = xlc_bits<unsigned long long>(x), magnitude = bits & ~(1ull << 63);
  const unsigned short sign = bits >> 48 & 0x8000, infinity = (0x7fff >> FRACTION) << FRACTION;
  if (x != x) return 0x7fff;
  const int exponent = (int)(magnitude >> 52) - 1023;
  if (exponent < LEAST) {  // a multiple of the least number, which may be the least normal one
    const double unit = xlc_bits<double>((1023ull + FRACTION - LEAST) << 52);
    return sign | (unsigned short)__builtin_rint(xlc_bits<double>(magnitude) * unit);
  }
  const int drop = 52 - FRACTION;
  const unsigned long long rounded = magnitude + (1ull << (drop - 1)) - 1 + (magnitude >> drop & 1);
  const unsigned long long narrowed = (rounded >> drop) - ((unsigned long long)(1023 + LEAST - 1) << FRACTION);
  return sign | (narrowed < infinity ? (unsigned short)narrowed : infinity);
}

struct Product { float* d; const unsigned *a, *b; };

float half(unsigned register_, int i) { return xlc_f16_to_f32(register_ >> 16 * i); }
float bfloat(unsigned register_, int i) { return xlc_bf16_to_f32(register_ >> 16 * i); }
float tfloat(unsigned register_, int) { return xlc_bits<float>(register_ & 0xffffe000); }

// d (16x8) += a (16x2W) b (2Wx8) of elements that lie PACK to a register. Products are exact and their sum is rounded once; a chip
// promises no order.
template <int PACK, float (*ELEMENT)(unsigned, int)> void multiply(void* const lanes[32]) {
  constexpr int K = 8 * PACK;
  double a[16][K], b[K][8], sum[16][8] = {};
  for (int lane = 0; lane < 32; lane++) {
    const Product& p = *(const Product*)lanes[lane];
    const int group = lane / 4, k = lane % 4 * PACK;
    for (int e = 0; e < PACK; e++) {
      for (int i = 0; i < 4; i++) a[group + i % 2 * 8][k + i / 2 * 4 * PACK + e] = ELEMENT(p.a[i], e);
      for (int i = 0; i < 2; i++) b[k + i * 4 * PACK + e][group] = ELEMENT(p.b[i], e);
    }
  }
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < K; k++)
      for (int column = 0; column < 8; column++) sum[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < 32; lane++) {
    float* d = ((const Product*)lanes[lane])->d;
    for (int i = 0; i < 4; i++) d[i] = (float)(d[i] + sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
  }
}

template <int PACK, float (*ELEMENT)(unsigned, int)> void mma(float* d, const unsigned* a, const unsigned* b, int line) {
  Product mine = {d, a, b};
  xlc_shim_meet_warp(&mine, multiply<PACK, ELEMENT>, line);
}

}  // namespace

extern "C" {
float xlc_f16_to_f32(unsigned short x) {
  const unsigned sign = (unsigned)(x & 0x8000) << 16, magnitude = x & 0x7fff;
  if (magnitude >= 0x7c00) return xlc_bits<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  if (magnitude < 0x400) return xlc_bits<float>(sign | xlc_bits<unsigned>((float)magnitude * 0x1p-24f));
  return xlc_bits<float>(sign | (magnitude + (112 << 10)) << 13);
}
float xlc_bf16_to_f32(unsigned short x) { return xlc_bits<float>((unsigned)x << 16); }
unsigned short xlc_f64_to_f16(double x) { return narrow<10, -14>(x); }
unsigned short xlc_f32_to_f16(float x) { return narrow<10, -14>(x); }
unsigned short xlc_f64_to_bf16(double x) { return narrow<7, -126>(x); }
unsigned short xlc_f32_to_bf16(float x) { return narrow<7, -126>(x); }
unsigned xlc_f32_to_tf32(float x) {
  const unsigned bits = xlc_bits<unsigned>(x);
  return x - x == 0 ? (bits + 0x1000) & 0xffffe000 : x != x ? 0x7fffffff : bits;
}
// Exact, but for what is no normal number.
float xlc_exp2_approx(float x) {
  const double y = __builtin_exp2(x);
  return y < 0x1p-126 ? 0 : (float)y;
}

void xlc_mma_m16n8k16_f16(float* d, const unsigned* a, const unsigned* b, int line) { mma<2, half>(d, a, b, line); }
void xlc_mma_m16n8k16_bf16(float* d, const unsigned* a, const unsigned* b, int line) { mma<2, bfloat>(d, a, b, line); }
void xlc_mma_m16n8k8_tf32(float* d, const unsigned* a, const unsigned* b, int line) { mma<1, tfloat>(d, a, b, line); }
}
