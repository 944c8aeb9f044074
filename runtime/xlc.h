/* The interface between compiled programs, the runtime and whoever calls them (docs/abi.md). C11 and C++. */
#ifndef XLC_H
#define XLC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One part, [lo, hi), of a parallel loop. */
typedef void (*xlc_task)(void *closure, int64_t lo, int64_t hi);

/* The only way a compiled program reaches threads. A host may give its own. */
typedef struct xlc_parallel {
  void *ctx;
  int64_t threads; /* how many workers run() may use, >= 1 */
  void (*run)(void *ctx, xlc_task task, void *closure, int64_t n); /* task over pieces of [0, n), each once; returns when all is done */
} xlc_parallel;

/* A compiled program; 0 on success. buffers: parameters in order, then results in order. dims: the symbolic sizes in
   the order of their sorted names (NULL when there are none). workspace: 64-byte aligned. par may be NULL. */
typedef int32_t (*xlc_entry)(void *const *buffers, const int64_t *dims, void *workspace, const xlc_parallel *par);
/* Bytes of workspace for these sizes. */
typedef int64_t (*xlc_workspace)(const int64_t *dims);

/* The process's thread pool (pool.c). run() cuts [0, n) into at most `threads` contiguous parts and works on the
   first itself; it runs everything on its caller's thread when the pool is busy, and so may be nested and called from
   any thread. Threads start with the first run(), after a fork anew in the child. */
const xlc_parallel *xlc_pool(void);
/* Changes the number of threads, the caller's included; 0 means the default: XLC_NUM_THREADS, or the CPUs that this
   process may use. Waits for a run() in progress. Returns 0; -1 when called from inside a task. */
int xlc_pool_set_threads(int64_t threads);

#ifdef __cplusplus
}
#endif
#endif
