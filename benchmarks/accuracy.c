/* Errors of f32 functions against double precision, which is right to far less than what is counted here.
   With glibc's vector library (x86-64) a sweep over all 2^32 inputs takes well under a minute; -DSCALAR does without. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef SCALAR
#define FAST(f) __attribute__((simd("notinbranch"))) double f(double);
FAST(exp) FAST(exp2) FAST(expm1) FAST(log) FAST(log2) FAST(log10) FAST(log1p) FAST(sin) FAST(cos) FAST(tan) FAST(sinh) FAST(cosh) FAST(tanh)
FAST(asin) FAST(acos) FAST(atan) FAST(asinh) FAST(acosh) FAST(atanh) FAST(erf) FAST(erfc) FAST(cbrt)
#endif

typedef struct { double most, sum; uint64_t count, wrong; double worst, wrong_at; } Errors;

static uint32_t bits(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }

/* The error of y in units of the last place of the exact z; wrong: nan against number, inf against finite, or the other sign. */
static void add(Errors *e, float x, float y, double z) {
    float rounded = (float)z;
    if (z != z || y != y) {
        if (z != z && y != y) return;
    } else if (isinf(rounded) || isinf(y)) {
        if (rounded == y) return;
    } else if (!signbit(z) == !signbit(y)) {
        int exponent = (int)(bits(fabsf(rounded)) >> 23);
        double error = fabs((double)y - z) / ldexp(1.0, (exponent ? exponent : 1) - 150);
        e->sum += error;
        e->count++;
        if (error > e->most) e->most = error, e->worst = x;
        return;
    }
    e->wrong++;
    e->wrong_at = x;
}

#define CHUNK 4096
#define FUNCTION(name, value)                                                                              \
    void values_##name(const double *xs, double *zs, long n) {                                             \
        for (long i = 0; i < n; i++) { double x = xs[i]; zs[i] = (value); }                                \
    }                                                                                                      \
    void compare_##name(const float *xs, const float *ys, long n, Errors *e) {                             \
        double wide[CHUNK], zs[CHUNK];                                                                     \
        for (long start = 0; start < n; start += CHUNK) {                                                  \
            long m = n - start < CHUNK ? n - start : CHUNK;                                                \
            for (long i = 0; i < m; i++) wide[i] = xs[start + i];                                          \
            for (long i = 0; i < m; i++) { double x = wide[i]; zs[i] = (value); }                          \
            for (long i = 0; i < m; i++) add(e, xs[start + i], ys[start + i], zs[i]);                      \
        }                                                                                                  \
    }

FUNCTION(exp, exp(x))
FUNCTION(exp2, exp2(x))
FUNCTION(expm1, expm1(x))
FUNCTION(log, log(x))
FUNCTION(log2, log2(x))
FUNCTION(log10, log10(x))
FUNCTION(log1p, log1p(x))
FUNCTION(sin, sin(x))
FUNCTION(cos, cos(x))
FUNCTION(tan, tan(x))
FUNCTION(sinh, sinh(x))
FUNCTION(cosh, cosh(x))
FUNCTION(tanh, tanh(x))
FUNCTION(asin, asin(x))
FUNCTION(acos, acos(x))
FUNCTION(atan, atan(x))
FUNCTION(asinh, asinh(x))
FUNCTION(acosh, acosh(x))
FUNCTION(atanh, atanh(x))
FUNCTION(erf, erf(x))
FUNCTION(erfc, erfc(x))
FUNCTION(cbrt, cbrt(x))
FUNCTION(rsqrt, 1 / sqrt(x))
FUNCTION(expit, 1 / (1 + exp(-x)))
FUNCTION(silu, x / (1 + exp(-x)))
FUNCTION(softplus, (x > 0 ? x : 0) + log1p(exp(-fabs(x))))
FUNCTION(gelu, x * erfc(x * -0.70710678118654752440) / 2)
FUNCTION(gelu_tanh, x / (1 + exp(-1.59576912160573071176 * (x + 0.044715 * x * x * x))))
