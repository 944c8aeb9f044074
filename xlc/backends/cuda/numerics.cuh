// Scalar operators whose meaning C++ leaves undefined or states otherwise (see scalar.py). Plain C++, on a GPU and in tests on a CPU.
#define XLC_INLINE static __device__ __forceinline__

// nan if either is nan; of +0 and -0 the first.
template <class T> XLC_INLINE T xlc_minimum(T a, T b) { return b != b ? b : b < a ? b : a; }
template <class T> XLC_INLINE T xlc_maximum(T a, T b) { return b != b ? b : b > a ? b : a; }

// The same, but of +0 and -0 either: one instruction from sm_80 on.
#if __CUDA_ARCH__ >= 800
#define XLC_FOLD(name, instruction, type, letter) \
  XLC_INLINE type xlc_fold_##name(type a, type b) { \
    type y; \
    asm(instruction " %0, %1, %2;" : "=" letter(y) : letter(a), letter(b)); \
    return y; \
  }
XLC_FOLD(minimum_f32, "min.NaN.f32", float, "f")
XLC_FOLD(maximum_f32, "max.NaN.f32", float, "f")
XLC_FOLD(minimum_f16, "min.NaN.f16", unsigned short, "h")
XLC_FOLD(maximum_f16, "max.NaN.f16", unsigned short, "h")
XLC_FOLD(minimum_bf16, "min.NaN.bf16", unsigned short, "h")
XLC_FOLD(maximum_bf16, "max.NaN.bf16", unsigned short, "h")
#else
#define XLC_FOLD(name, widen, narrow, type) \
  XLC_INLINE type xlc_fold_minimum_##name(type a, type b) { return narrow(xlc_minimum(widen(a), widen(b))); } \
  XLC_INLINE type xlc_fold_maximum_##name(type a, type b) { return narrow(xlc_maximum(widen(a), widen(b))); }
XLC_FOLD(f32, , , float)
XLC_FOLD(f16, xlc_f16_to_f32, xlc_f32_to_f16, unsigned short)
XLC_FOLD(bf16, xlc_bf16_to_f32, xlc_f32_to_bf16, unsigned short)
#endif
#undef XLC_FOLD
XLC_INLINE double xlc_fold_minimum_f64(double a, double b) { return xlc_minimum(a, b); }
XLC_INLINE double xlc_fold_maximum_f64(double a, double b) { return xlc_maximum(a, b); }

// a[i] / b, to the bit, by a reciprocal that they share. It is in two parts, so that the first quotient is off by less than 1 ulp; then one
// step with what is left, which is exact, rounds right (P. Markstein, IBM J. Res. Dev. 34, 1990). That asks for numbers far from overflow
// and underflow; others are divided one by one. Of bf16 the product with the rounded reciprocal is enough: it is off by at most 2^-23, and
// no quotient of numbers of 8 bits is as close to one of 9, a tie.
template <int N> XLC_INLINE bool xlc_far_from_limits(const float (&a)[N], float b) {
  bool fits = (fabsf(b) > 0x1p-32f) & (fabsf(b) < 0x1p32f);
  for (int i = 0; i < N; ++i) fits &= (fabsf(a[i]) > 0x1p-64f) & (fabsf(a[i]) < 0x1p64f);
  return fits;
}
template <int N> XLC_INLINE void xlc_quotients_f32(float (&a)[N], float b) {
  const float r = 1.0f / b, low = r * fmaf(-b, r, 1.0f);
  if (xlc_far_from_limits(a, b)) {
    for (int i = 0; i < N; ++i) {
      const float q = fmaf(a[i], r, a[i] * low);
      a[i] = fmaf(fmaf(-b, q, a[i]), r, q);
    }
  } else {
    for (int i = 0; i < N; ++i) a[i] = a[i] / b;
  }
}
template <int N> XLC_INLINE void xlc_quotients_f16(unsigned short (&a)[N], unsigned short b) {
  for (int k = 0; k < N; k += 4) {
    float wide[4];
    for (int i = 0; i < 4; ++i) wide[i] = xlc_f16_to_f32(a[k + i]);
    xlc_quotients_f32(wide, xlc_f16_to_f32(b));
    for (int i = 0; i < 4; ++i) a[k + i] = xlc_f32_to_f16(wide[i]);
  }
}
template <int N> XLC_INLINE void xlc_quotients_bf16(unsigned short (&a)[N], unsigned short b) {
  float wide[N];
  for (int i = 0; i < N; ++i) wide[i] = xlc_bf16_to_f32(a[i]);
  const float d = xlc_bf16_to_f32(b), r = 1.0f / d;
  if (xlc_far_from_limits(wide, d)) {
    for (int i = 0; i < N; ++i) a[i] = xlc_f32_to_bf16(wide[i] * r);
  } else {
    for (int i = 0; i < N; ++i) a[i] = xlc_f32_to_bf16(wide[i] / d);
  }
}

// Towards minus infinity; 0 where b is 0.
template <class T> XLC_INLINE T xlc_floor_divide(T a, T b) {
  if (b == 0) return 0;
  if (T(-1) < T(0) && b == T(-1)) return T(0ull - (unsigned long long)a);
  const T q = a / b;
  return T(q * b) != a && ((a < 0) != (b < 0)) ? T(q - 1) : q;
}
template <class T> XLC_INLINE T xlc_remainder(T a, T b) {
  if (b == 0 || (T(-1) < T(0) && b == T(-1))) return 0;
  const T r = a % b;
  return r != 0 && ((r < 0) != (b < 0)) ? T(r + b) : r;
}
template <class T> XLC_INLINE T xlc_left_shift(T a, T n) {
  return n < 0 || n >= T(sizeof(T) * 8) ? T(0) : T((unsigned long long)a << (unsigned)n);
}
template <class T> XLC_INLINE T xlc_right_shift(T a, T n) {
  const bool inside = !(n < 0 || n >= T(sizeof(T) * 8));
  return inside ? T(a >> (unsigned)n) : a < 0 ? T(-1) : T(0);
}
// A float as an integer: towards zero, saturating, nan gives 0.
template <class T, class F> XLC_INLINE T xlc_truncated(F x) {
  const bool is_signed = T(-1) < T(0);
  const T least = is_signed ? T(1ull << (sizeof(T) * 8 - 1)) : T(0), most = T(~least);
  return x != x ? T(0) : x <= F(least) ? least : x >= F(most) ? most : T(x);
}
