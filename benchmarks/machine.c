/* What this machine can do: multiply-adds from registers, and copies and reads of memory, on one and two threads.
   Each function times itself between two barriers, so that starting the second thread is not counted. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#define WIDTH 64
#define STREAM(p, v) _mm512_stream_ps((float *)(p), (__m512)(v))
#elif defined(__AVX__)
#include <immintrin.h>
#define WIDTH 32
#define STREAM(p, v) _mm256_stream_ps((float *)(p), (__m256)(v))
#else
#define WIDTH 16
#define STREAM(p, v) (*(p) = (v))
#endif

typedef float vec __attribute__((vector_size(WIDTH)));
typedef float unaligned __attribute__((vector_size(WIDTH), aligned(4)));
enum { FMA, MEMCPY, LOADS_STORES, NON_TEMPORAL, NON_TEMPORAL_AHEAD, READ, READ_AHEAD };
enum { AHEAD = 8192 }; /* bytes between a load and the prefetch beside it */
enum { CHAINS = 14 }; /* latency 4 x 2 units = 8 chains are enough; 16 registers would be too many for AVX2 */

typedef struct { int what, threads, index; int64_t repeats, sets; char **dst; char *const *src; size_t bytes; atomic_llong *gate; double seconds; float sink; } job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All threads pass when all have come; `round` counts the barriers passed so far. */
static void meet(const job *j, int64_t round) {
  atomic_fetch_add(j->gate, 1);
  for (int64_t spins = 0; atomic_load_explicit(j->gate, memory_order_acquire) < (int64_t)j->threads * (round + 1); spins++)
    if (spins > 20000) sched_yield();
}

static float multiply_add(int64_t n) {
  vec acc[CHAINS], a, b;
  for (int i = 0; i < CHAINS; i++) acc[i] = (vec){0} + (float)i;
  a = (vec){0} + 0.999f;
  b = (vec){0} + 0.001f;
  __asm__ volatile("" : "+x"(a), "+x"(b));
  for (int64_t k = 0; k < n; k++)
    for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + b;
  vec total = acc[0];
  for (int i = 1; i < CHAINS; i++) total += acc[i];
  return total[0];
}

static float pass(const job *j, char *dst, const char *src, size_t n) {
  size_t i = 0;
  vec sum[8] = {{0}};
  switch (j->what) {
  case MEMCPY: memcpy(dst, src, n); return 0;
  case LOADS_STORES:
    for (; i + 4 * WIDTH <= n; i += 4 * WIDTH)
      for (int k = 0; k < 4; k++) *(unaligned *)(dst + i + k * WIDTH) = *(const unaligned *)(src + i + k * WIDTH);
    break;
  case NON_TEMPORAL:
  case NON_TEMPORAL_AHEAD:
    for (; i < n && (uintptr_t)(dst + i) % WIDTH; i += 4) memcpy(dst + i, src + i, 4);
    for (; i + 4 * WIDTH <= n; i += 4 * WIDTH)
      for (int k = 0; k < 4; k++) {
        if (j->what == NON_TEMPORAL_AHEAD) __builtin_prefetch(src + i + k * WIDTH + AHEAD);
        STREAM((vec *)(dst + i + k * WIDTH), *(const unaligned *)(src + i + k * WIDTH));
      }
    break;
  case READ:
  case READ_AHEAD:
    for (; i + 8 * WIDTH <= n; i += 8 * WIDTH)
      for (int k = 0; k < 8; k++) {
        if (j->what == READ_AHEAD) __builtin_prefetch(src + i + k * WIDTH + AHEAD);
        sum[k] += *(const unaligned *)(src + i + k * WIDTH);
      }
    for (int k = 1; k < 8; k++) sum[0] += sum[k];
    return sum[0][0];
  }
  memcpy(dst + i, src + i, n - i);
  return 0;
}

static void *worker(void *p) {
  job *j = p;
  size_t half = j->bytes / (size_t)j->threads / 64 * 64, lo = half * (size_t)j->index, hi = j->index == j->threads - 1 ? j->bytes : lo + half;
  meet(j, 0);
  double start = now();
  if (j->what == FMA) {
    j->sink += multiply_add(j->repeats);
  } else {
    for (int64_t r = 0; r < j->repeats; r++) {
      int64_t s = r % j->sets;
      j->sink += pass(j, j->what >= READ ? NULL : j->dst[s] + lo, j->src[s] + lo, hi - lo);
      if (j->what == NON_TEMPORAL || j->what == NON_TEMPORAL_AHEAD) atomic_thread_fence(memory_order_seq_cst);
      meet(j, r + 1);
    }
  }
  j->seconds = now() - start;
  return NULL;
}

static double run(job base) {
  atomic_llong gate = 0;
  job jobs[2] = {base, base};
  pthread_t other;
  for (int i = 0; i < 2; i++) jobs[i].gate = &gate, jobs[i].index = i;
  if (base.threads > 1 && pthread_create(&other, NULL, worker, &jobs[1])) return -1;
  worker(&jobs[0]);
  if (base.threads > 1) pthread_join(other, NULL);
  volatile float keep = jobs[0].sink + jobs[1].sink;
  (void)keep;
  return jobs[1].seconds > jobs[0].seconds ? jobs[1].seconds : jobs[0].seconds;
}

/* Seconds of n rounds of CHAINS multiply-adds per thread. */
double peak(int threads, int64_t n) { return run((job){.what = FMA, .threads = threads, .repeats = n}); }
/* Floating-point operations of one round on one thread. */
int64_t peak_operations(void) { return 2 * CHAINS * (WIDTH / 4); }
/* Seconds of n passes over `sets` pairs of buffers in turn. */
double memory(int what, int threads, int64_t n, int64_t sets, char **dst, char *const *src, int64_t bytes) {
  return run((job){.what = what, .threads = threads, .repeats = n, .sets = sets, .dst = dst, .src = src, .bytes = (size_t)bytes});
}
