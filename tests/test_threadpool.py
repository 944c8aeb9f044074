"""The thread pool behind xlc_parallel: every index once, whoever calls it from wherever."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

_xlc = pytest.importorskip("xlc._xlc", reason="the C++ extension is not installed")

SOURCE = r"""
#include <stdint.h>
#include "xlc.h"
void increment(void *c, int64_t lo, int64_t hi) { int32_t *a = c; for (int64_t i = lo; i < hi; i++) a[i]++; }
typedef struct { const xlc_parallel *p; int32_t *a; int64_t inner; } nest;
void nested(void *c, int64_t lo, int64_t hi) { nest *n = c;
  for (int64_t i = lo; i < hi; i++) n->p->run(n->p->ctx, increment, n->a + i * n->inner, n->inner); }
typedef struct { const float *x; double *sums; } block_sums;                              /* a block's sum does not depend on the cut */
void sum_blocks(void *c, int64_t lo, int64_t hi) { block_sums *s = c;
  for (int64_t b = lo; b < hi; b++) { double t = 0; for (int64_t i = 0; i < 1000; i++) t += s->x[b * 1000 + i]; s->sums[b] = t; } }
typedef struct { int64_t parts[64][2]; int64_t n; } cuts;
void record(void *c, int64_t lo, int64_t hi) { cuts *r = c; int64_t k = __atomic_fetch_add(&r->n, 1, __ATOMIC_SEQ_CST);
  if (k < 64) r->parts[k][0] = lo, r->parts[k][1] = hi; }
"""
RUNTIME = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "runtime")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "tasks.c").write_text(SOURCE)
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", f"-I{RUNTIME}", "-o", folder / "tasks.so", folder / "tasks.c"],
                   check=True)
    return ctypes.CDLL(str(folder / "tasks.so"))


@pytest.fixture
def run(library):
    return lambda name, closure, n: _xlc.parallel_for_test(ctypes.cast(getattr(library, name), ctypes.c_void_p).value, closure, n)


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request):
    before = _xlc.pool_threads()
    _xlc.pool_set_threads(request.param)
    yield request.param
    _xlc.pool_set_threads(before)


def test_every_index_once(run, threads):
    assert _xlc.pool_threads() == threads
    for n in [0, 1, 2, 3, 5, threads, threads + 1, 1000, 12_345]:
        a = np.zeros(n + 1, np.int32)
        for _ in range(20):
            run("increment", a.ctypes.data, n)
        assert (a[:n] == 20).all() and a[n] == 0


def test_pieces_cover_the_range_once(run, threads):
    for n in [1, 2, 5, 100, 101]:
        record = np.zeros(129, np.int64)
        run("record", record.ctypes.data, n)
        parts = sorted(map(tuple, record[:128].reshape(64, 2)[: record[128]].tolist()))
        assert min(n, threads) <= len(parts) <= n
        assert parts[0][0] == 0 and parts[-1][1] == n and all(a[1] == b[0] for a, b in zip(parts, parts[1:], strict=False))
        assert len(parts) <= 8 * threads, "a part is taken in pieces of halving size, not one by one"


def nest(a, inner):
    return (ctypes.c_void_p * 3)(_xlc.pool_address(), a.ctypes.data, inner)


def test_a_nested_run_is_serial(run, threads):
    a = np.zeros(5000, np.int32)
    closure = nest(a, 50)
    for _ in range(20):
        run("nested", ctypes.addressof(closure), 100)
    assert (a == 20).all()


def test_results_do_not_depend_on_the_number_of_threads(run):
    x = np.random.default_rng(0).random(200_000, np.float32)
    before, found = _xlc.pool_threads(), []
    for n in (1, 2, 3, 5, 2):
        _xlc.pool_set_threads(n)
        sums = np.zeros(200)
        closure = (ctypes.c_void_p * 2)(x.ctypes.data, sums.ctypes.data)
        run("sum_blocks", ctypes.addressof(closure), 200)
        found.append(sums.tobytes())
    _xlc.pool_set_threads(before)
    assert len(set(found)) == 1


def test_many_callers_and_a_changing_size(run):
    before, arrays = _xlc.pool_threads(), [np.zeros(997, np.int32) for _ in range(4)]

    def call(a):
        for _ in range(500):
            run("increment", a.ctypes.data, len(a))

    callers = [threading.Thread(target=call, args=(a,)) for a in arrays]
    for t in callers:
        t.start()
    for n in range(12):
        _xlc.pool_set_threads(1 + n % 4)
    for t in callers:
        t.join()
    _xlc.pool_set_threads(before)
    assert all((a == 500).all() for a in arrays)


def test_size_cannot_change_inside_a_task():
    refused = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    def task(closure, lo, hi):
        try:
            _xlc.pool_set_threads(1)
        except RuntimeError as error:
            refused.append(str(error))

    _xlc.parallel_for_test(ctypes.cast(task, ctypes.c_void_p).value, 0, 2)
    assert refused and all("inside" in r for r in refused)
    with pytest.raises(ValueError):
        _xlc.pool_set_threads(-1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: fork beside threads
def test_fork(run, threads):
    a = np.zeros(1000, np.int32)
    run("increment", a.ctypes.data, 1000)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                expected = a + 50
                for _ in range(50):
                    run("increment", a.ctypes.data, 1000)
                os._exit(0 if (a == expected).all() else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        run("increment", a.ctypes.data, 1000)
    assert (a == 4).all()


@pytest.mark.parametrize("asked, expected", [("3", 3), ("1", 1), ("0", None), ("x", None), ("", None), ("100000", 256)])
def test_size_from_the_environment_and_a_clean_end(asked, expected):
    code = ("import ctypes, os\nfrom xlc import _xlc\n"
            "t = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(lambda c, lo, hi: None)\n"
            "if _xlc.pool_threads() < 9:\n    _xlc.parallel_for_test(ctypes.cast(t, ctypes.c_void_p).value, 0, 10)\n"
            "print(_xlc.pool_threads(), len(os.sched_getaffinity(0)))\n")
    environment = {**os.environ, "XLC_NUM_THREADS": asked, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    found, cpus = map(int, done.stdout.split())
    assert found == (expected or cpus)


def test_one_cpu():
    """On a single CPU nobody spins, and everything still ends."""
    code = ("import ctypes, os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nfrom xlc import _xlc\n"
            "assert _xlc.pool_threads() == 1\n_xlc.pool_set_threads(3)\nseen = []\n"
            "t = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(lambda c, lo, hi: seen.append(hi - lo))\n"
            "for _ in range(50):\n    _xlc.parallel_for_test(ctypes.cast(t, ctypes.c_void_p).value, 0, 10)\n"
            "assert sum(seen) == 500 and len(seen) >= 150")
    environment = {**os.environ, "XLC_NUM_THREADS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
