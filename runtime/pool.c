/* The thread pool behind xlc_parallel.

   run(task, n)   posts one part to each worker's mailbox, does part 0, then waits for the others: the only shared word
                  per worker is `state`, IDLE -> POSTED -> RUNNING -> IDLE. Whoever moves it from POSTED to RUNNING owns
                  the part: normally the worker; the caller itself when the worker has not come round to it by the time
                  the caller is done with its own part (it was parked, or its CPU is busy with another process). So a
                  late worker costs nothing but its absence.

   A part is taken from its front in pieces of halving size, by its owner first (the same rows go to the same core in
   run after run, and are in its cache) and by whoever has nothing left to do: a worker that loses its CPU in the middle
   of a part delays the others by one piece. What is computed does not depend on who takes what.

   Workers spin for SPIN_NS after each part, then park on a futex (elsewhere: a condition variable); so does the caller.
   Nobody spins when there are fewer CPUs than threads. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "xlc.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#endif

enum { MAX_THREADS = 256, SPIN_NS = 40000, PAUSES_PER_CLOCK = 32, LEAST_PIECE = 16 /* of a part: 1/16 */ };
enum state { IDLE, POSTED, RUNNING, STOP };

typedef struct worker {
  _Alignas(128) _Atomic uint32_t state; /* 128: adjacent lines are prefetched in pairs */
  _Atomic uint32_t parked;              /* the worker sleeps, or is about to, on `state` */
  _Atomic uint32_t awaited;             /* the caller sleeps, or is about to, on `state` */
  xlc_task task;
  void *closure;
  int64_t hi, least;     /* the end of the part, the least piece */
  _Atomic int64_t next;  /* what of the part is not taken begins here */
  pthread_t thread;
#ifndef __linux__
  pthread_mutex_t mutex;
  pthread_cond_t changed;
#endif
} worker;

static void pool_run(void *ctx, xlc_task task, void *closure, int64_t n);

static worker workers[MAX_THREADS]; /* workers[0] has no thread: part 0 is the caller's */
static int64_t parts;               /* of the run that goes on */
static int64_t started;             /* workers[1 .. started) have a thread; guarded by busy */
static int64_t spin_ns;             /* 0: do not spin */
static _Atomic bool busy;           /* a run(), a resize or the end of the process has the pool */
static _Thread_local bool inside;   /* this thread is inside a task */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static xlc_parallel parallel = {NULL, 1, pool_run};

/* ---- waiting ---- */

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Sleeps while w->state is `seen`; may return early. */
static void park(worker *w, uint32_t seen) {
#ifdef __linux__
  syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
#else
  pthread_mutex_lock(&w->mutex);
  while (atomic_load(&w->state) == seen) pthread_cond_wait(&w->changed, &w->mutex);
  pthread_mutex_unlock(&w->mutex);
#endif
}

static void unpark(worker *w) {
#ifdef __linux__
  syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0); /* worker and caller may both be there */
#else
  pthread_mutex_lock(&w->mutex);
  pthread_cond_broadcast(&w->changed);
  pthread_mutex_unlock(&w->mutex);
#endif
}

/* Spins until state differs from `a` and `b`, at most spin_ns; returns the last state seen. */
static uint32_t spin(worker *w, uint32_t a, uint32_t b) {
  uint32_t s = atomic_load_explicit(&w->state, memory_order_acquire);
  if ((s != a && s != b) || spin_ns == 0) return s;
  int64_t end = now_ns() + spin_ns;
  do {
    for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
      relax();
      s = atomic_load_explicit(&w->state, memory_order_acquire);
      if (s != a && s != b) return s;
    }
  } while (now_ns() < end);
  return s;
}

/* Waits until state differs from `a` and `b`: spins, then sleeps with `flag` up. */
static uint32_t await(worker *w, _Atomic uint32_t *flag, uint32_t a, uint32_t b) {
  uint32_t s = spin(w, a, b);
  if (s != a && s != b) return s;
  /* seq_cst: either the other side sees the flag after its store to state, or we see that store */
  atomic_store(flag, 1);
  while ((s = atomic_load(&w->state)) == a || s == b) park(w, s);
  atomic_store_explicit(flag, 0, memory_order_relaxed);
  return s;
}

/* ---- parts ---- */

/* Does what is left of a part, piece by piece. */
static void share(worker *w) {
  int64_t at = atomic_load_explicit(&w->next, memory_order_relaxed);
  while (at < w->hi) {
    int64_t take = (w->hi - at + 1) / 2;
    if (take < w->least) take = w->least;
    if (take > w->hi - at) take = w->hi - at;
    if (!atomic_compare_exchange_weak_explicit(&w->next, &at, at + take, memory_order_relaxed, memory_order_relaxed)) continue;
    w->task(w->closure, at, at + take);
    at = atomic_load_explicit(&w->next, memory_order_relaxed);
  }
}

/* One's own part, then what the others have not got to. */
static void share_all(int64_t own) {
  for (int64_t i = 0; i < parts; i++) share(&workers[(own + i) % parts]);
}

/* ---- workers ---- */

static void *work(void *arg) {
  worker *w = arg;
  inside = true; /* whatever runs here is a task: a nested run() is serial, a nested resize refused */
  for (;;) {
    uint32_t s = await(w, &w->parked, IDLE, RUNNING); /* RUNNING: the caller took our part */
    if (s == STOP) return NULL;
    if (!atomic_compare_exchange_strong(&w->state, &s, RUNNING)) continue;
    share_all(w - workers);
    atomic_store(&w->state, IDLE);
    if (atomic_load(&w->awaited)) unpark(w);
  }
}

static void post(worker *w, uint32_t state) {
  atomic_store(&w->state, state);
  if (atomic_load(&w->parked)) unpark(w);
}

static int64_t cpus(void) {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n;
}

static int64_t clamp(int64_t threads) { return threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads; }

static int64_t default_threads(void) {
  const char *text = getenv("XLC_NUM_THREADS");
  char *end = NULL;
  long n = text ? strtol(text, &end, 10) : 0;
  return clamp(n > 0 && *end == '\0' ? n : cpus());
}

/* Only while there are no workers. */
static void resize(int64_t threads) {
  parallel.threads = threads;
  spin_ns = cpus() >= threads ? SPIN_NS : 0;
}

/* Starts what is missing; returns how many threads there are, which is fewer than wished when the system refuses. */
static int64_t start(void) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the host's threads */
  for (; started < parallel.threads; started++) {
    worker *w = &workers[started];
    atomic_store(&w->state, IDLE);
    atomic_store(&w->parked, 0);
    atomic_store(&w->awaited, 0);
    if (pthread_create(&w->thread, NULL, work, w) != 0) break;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}

static void stop(void) {
  for (int64_t i = 1; i < started; i++) post(&workers[i], STOP);
  for (int64_t i = 1; i < started; i++) pthread_join(workers[i].thread, NULL);
  started = 1;
}

/* ---- the life of the pool ---- */

static void reset(void) {
  started = 1;
#ifndef __linux__
  for (int i = 0; i < MAX_THREADS; i++) {
    pthread_mutex_init(&workers[i].mutex, NULL);
    pthread_cond_init(&workers[i].changed, NULL);
  }
#endif
}

/* A child has one thread, the one that forked. */
static void after_fork(void) {
  reset();
  atomic_store(&busy, inside); /* forked inside a task: the pool stays taken until that run() returns */
}

static void at_exit(void) {
  if (!inside && !atomic_exchange(&busy, true)) stop(); /* keeps `busy`: whatever still runs is serial */
}

static void initialize(void) {
  reset();
  resize(default_threads());
  pthread_atfork(NULL, NULL, after_fork);
  atexit(at_exit);
}

const xlc_parallel *xlc_pool(void) {
  pthread_once(&once, initialize);
  return &parallel;
}

int xlc_pool_set_threads(int64_t threads) {
  xlc_pool();
  if (inside) return -1;
  while (atomic_exchange(&busy, true)) {
    struct timespec pause = {0, 20000};
    nanosleep(&pause, NULL);
  }
  stop();
  resize(threads > 0 ? clamp(threads) : default_threads());
  atomic_store(&busy, false);
  return 0;
}

/* ---- run ---- */

static void finish(worker *w) {
  uint32_t s = POSTED;
  if (atomic_compare_exchange_strong(&w->state, &s, RUNNING)) /* the worker did not come: its part is done, see share_all */
    atomic_store(&w->state, IDLE);
  else if (s == RUNNING)
    await(w, &w->awaited, RUNNING, RUNNING);
}

static void pool_run(void *ctx, xlc_task task, void *closure, int64_t n) {
  (void)ctx;
  if (n <= 0) return;
  if (n == 1 || inside || atomic_exchange_explicit(&busy, true, memory_order_acquire)) {
    task(closure, 0, n);
    return;
  }
  parts = started == parallel.threads ? started : start();
  if (parts > n) parts = n;
  const int64_t size = n / parts, longer = n % parts; /* the first `longer` parts have one more */
  inside = true;
  for (int64_t i = 0; i < parts; i++) {
    worker *w = &workers[i];
    const int64_t lo = i * size + (i < longer ? i : longer);
    w->task = task;
    w->closure = closure;
    w->hi = lo + size + (i < longer);
    w->least = 1 + size / LEAST_PIECE;
    atomic_store_explicit(&w->next, lo, memory_order_relaxed);
  }
  for (int64_t i = 1; i < parts; i++) post(&workers[i], POSTED);
  share_all(0);
  for (int64_t i = 1; i < parts; i++) finish(&workers[i]);
  inside = false;
  atomic_store_explicit(&busy, false, memory_order_release);
}
