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

#define CHUNK 4096

/* The errors of ys in units of the last place of the exact zs; wrong: nan against number, inf against finite, or the other sign. */
static void add(Errors *e, const float *xs, const float *ys, const double *zs, long n) {
    double errors[CHUNK], most = 0, sum = 0;
    int wrong[CHUNK], wrongs = 0, count = 0;
#pragma omp simd reduction(+ : wrongs, count)
    for (long i = 0; i < n; i++) {
        double y = ys[i], z = zs[i];
        float rounded = fabsf((float)z);
        uint32_t word;
        memcpy(&word, &rounded, 4);
        uint64_t exponent = word >> 23, scale = (1023 + 150 - (exponent ? exponent : 1)) << 52;
        double per_ulp;
        memcpy(&per_ulp, &scale, 8);
        int numbers = (rounded < INFINITY) & (fabs(y) < INFINITY), flipped = (z == z) & (copysign(1, y) != copysign(1, z));
        int same = numbers | ((z != z) & (y != y)) | (y == (float)z);
        errors[i] = numbers ? fabs(y - z) * per_ulp : 0;
        wrong[i] = flipped | !same;
        count += numbers;
        wrongs += wrong[i];
    }
#pragma omp simd reduction(+ : sum) reduction(max : most)
    for (long i = 0; i < n; i++) sum += errors[i], most = errors[i] > most ? errors[i] : most;
    e->sum += sum, e->count += count, e->wrong += wrongs;
    for (long i = 0; most > e->most; i++)
        if (errors[i] == most) e->most = most, e->worst = xs[i];
    for (long i = 0; wrongs; i++)
        if (wrong[i]) wrongs = 0, e->wrong_at = xs[i];
}

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
            add(e, xs + start, ys + start, zs, m);                                                         \
        }                                                                                                  \
    }

/* Newton's steps, from the approximation of S. Winitzki. */
static double erfinv(double x) {
    double a = fabs(x), l = log1p(-a * a), m = 4.3307 + l / 2, y = sqrt(sqrt(m * m - l / 0.147) - m);
    for (int k = 0; k < 4; k++) y -= (a > 0.5 ? (1 - a) - erfc(y) : erf(y) - a) * exp(y * y) * 0.88622692545275801365;
    return a < 1 ? a ? copysign(y, x) : x : a == 1 ? copysign(INFINITY, x) : NAN;
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
FUNCTION(erfinv, erfinv(x))
FUNCTION(cbrt, cbrt(x))
FUNCTION(rsqrt, 1 / sqrt(x))
FUNCTION(expit, 1 / (1 + exp(-x)))
FUNCTION(silu, x / (1 + exp(-x)))
FUNCTION(softplus, (x > 0 ? x : 0) + log1p(exp(-fabs(x))))
FUNCTION(gelu, x * erfc(x * -0.70710678118654752440) / 2)
FUNCTION(gelu_tanh, x / (1 + exp(-1.59576912160573071176 * (x + 0.044715 * x * x * x))))
