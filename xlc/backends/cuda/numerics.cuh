// Scalar operators whose meaning C++ leaves undefined or states otherwise (see scalar.py). Plain C++, on a GPU and in tests on a CPU.
#define XLC_INLINE static __device__ __forceinline__

// nan if either is nan; of +0 and -0 the first.
template <class T> XLC_INLINE T xlc_minimum(T a, T b) { return b != b ? b : b < a ? b : a; }
template <class T> XLC_INLINE T xlc_maximum(T a, T b) { return b != b ? b : b > a ? b : a; }

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
