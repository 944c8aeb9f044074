"""The call path: from a Python call to compiled code and back, in C (``xlc._xlc``) or, where that was not built, in Python.

Everything below exists twice, with one meaning: in ``csrc/`` (fast) and in ``xlc/run/fallback.py`` (ctypes; no threads).

    exe = Executable(entry_address, params=[0, 1], results=[(np.float32, (8,))], out_tree=("leaf", 0))
    f = Dispatcher(miss)                     def miss(args, kwargs): ...; return f.add(args, kwargs, exe)
    f(x, y)                                  first call: miss; afterwards straight into compiled code

**Leaves.** The *leaves* of a call ``(args, kwargs)`` are numbered in this order: positional arguments left to right, then keyword
arguments
**sorted by name**; inside an argument depth first; a dict's values **in sorted order of its keys** (whatever their order of insertion; in
order of
insertion when the keys cannot be sorted). None and static arguments give no leaf. (So: ``flatten((args without static ones, kwargs
without static ones))``.)

*Fast* leaves: exactly ``numpy.ndarray`` (no subclass) of bool, integer, float, complex or a user dtype such as bfloat16; NumPy scalars of
these; Python ``bool int float complex`` (an int must fit int64). *Fast* containers: exactly ``dict`` (keys are str or int), ``list``,
``tuple``, named tuples, None.
The signature holds, per leaf: array (dtype, shape; a NumPy scalar is a 0-d array; byte order and strides are not part of it) or which
Python scalar; per container its
kind, length, keys, type; per static argument type and value (hash, then ``==``); the names of keyword arguments; and the context key (see
below).

``Dispatcher(miss, *, static_argnums=(), static_argnames=(), slow=False, owner=None)``
    Callable object; also a descriptor (usable as a method), weakly referenceable, with a ``__dict__``. An attribute it does not have is
    looked up on ``owner``
    (so ``f.lower``, ``f.compiles``, ``f.__wrapped__``, ``f.__doc__`` may live on an ordinary Python object); ``repr`` is the owner's.
    A call whose signature is known runs its executable. Every other call (unknown signature, a leaf or container that is not fast, an
    unhashable static argument,
    ``slow``) goes to ``miss(args: tuple, kwargs: dict)``. What ``miss`` returns is the result of the call, unless it returns ``RETRY``:
    then the
    signature is looked up again and its executable is called (RuntimeError if it is still unknown). Exceptions of miss propagate.
    Static arguments are the positions in ``static_argnums`` and the keywords in ``static_argnames`` (give both when a parameter can be
    passed both ways; miss gets them in place, in args and kwargs).
  ``.add(args, kwargs, executable) -> RETRY | None``   enters the executable for the signature of this call (replacing an earlier one).
                                                       None, and nothing is entered, when
                                  the call is not fast: then miss itself flattens, and returns ``executable.call_flat(leaves)``. Usual
                                  ending of miss: ``return f.add(...) or exe.call_flat(leaves)``.
                                  ValueError when the executable's leaf count is not that of the call.
  ``.find(args, kwargs) -> Executable | None``         what a call would run now (for the re-check inside the lock of a first call)
  ``.clear()``, ``.executables() -> list``, ``len(f.executables())``, ``.slow`` (bool, settable), ``.miss`` and ``.owner`` (settable)

``Executable(entry, *, params, results, out_tree, dims=(), checks=(), workspace=0, workspace_function=0, donate=(), alias=None,
constants=(),
             release_gil=True, parallel=True, name="", keepalive=None)``
    entry         address (int) of an ``xlc_entry`` (docs/abi.md)
    params        params[leaf] = slot of the entry's parameter that this leaf fills, or -1 (unused). ``len(params)`` = number of leaves.
    results       [(dtype, shape), ...]: one per result slot. A size is an int or an *expression* over the dims:
                  ``[(coef, [(base, power), ...]), ...]`` (a sum of products) where base is an index into ``dims`` or, for a floor
                  quotient, a pair ``(expression, expression)``.
                  ``2*d0*d1**2 + 3`` is ``[(2, [(0, 1), (1, 2)]), (3, [])]``;  ``d0 // 2`` is ``[(1, [(([(1, [(0, 1)])], 2), 1)])]``.
    dims          the symbolic sizes in the order of the ABI (sorted names): for each, all places where it stands alone, ``[(leaf, axis),
                  ...]``. It is read at the first; a call where the
                  others differ does not match (goes to miss). These axes match any size, 0 included.
    checks        [(leaf, axis, expression), ...]: further axes that match any size equal to the expression
    workspace     bytes of workspace, or ``workspace_function``: address of an ``xlc_workspace``
    donate        leaves whose buffers the entry may write to. If such an array is read-only, not C-contiguous or overlaps another leaf, a
                  copy is given instead.
    alias         {result index: leaf}: the result *is* the donated leaf's memory (a new array whose base is the argument); implies
                  donate. Results may not be larger than the leaf.
    constants     arrays whose addresses follow those of the results (kept alive; made C-contiguous once)
    release_gil   release the GIL around the entry (costs 50 ns; pass False when the work is below some microseconds)
    parallel      give the entry the process's thread pool (else par = NULL)
    keepalive     any object that owns the code (the JIT engine)
    out_tree      ``("leaf", i)`` result i | ``("none",)`` | ``("const", object)`` | ``("tuple", [children])`` | ``("list", [children])``
                  | ``("dict", [keys], [children])`` |
                  ``("call", constructor, [children])`` = constructor(*children): named tuples, dataclasses
  ``exe(*leaves)`` and ``.call_flat(leaves)`` -> result in out_tree;  ``.run_flat(leaves) -> list`` of result arrays. Leaves as above, or
  anything ``np.asarray`` accepts.
                  These three check the number of leaves, not dtypes or shapes: for callers that know them.
  ``.calls`` (int: calls so far), ``.name``, ``.keepalive``, ``.params``, ``.out_tree``
  A nonzero return of the entry raises RuntimeError with name and code. ValueError for a malformed description, at construction.

Results are fresh C-contiguous ndarrays; those of 64 KiB and more use blocks which are recycled when the array dies (64-byte aligned, huge
pages from 4 MiB on).

Functions:
  ``set_context(key: int | None)``      this thread's context key: part of every signature. Calls under other keys are other signatures
                                        (one integer per distinct ``config.key()``).
                                        None: this thread follows ``set_default_context(key: int)`` (initially 0) again.  ``get_context()
                                        -> int``
  ``pool_set_threads(n) -> None``       size of the thread pool, n >= 1 (0: the default, XLC_NUM_THREADS or the affinity mask).
                                        ``pool_threads() -> int``
  ``pool_address() -> int``             address of the process-wide ``xlc_parallel`` (0: there is none)
  ``parallel_for_test(task: int, closure: int, n: int) -> None``   runs the ``xlc_task`` at this address on the pool
  ``memory_stats() -> dict``            bytes: live, cached, peak_live (of recycled result blocks).  ``trim_memory() -> int`` frees what
                                        is cached, returns bytes
  ``NATIVE: bool``                      whether this is the C implementation;  ``RETRY``  the sentinel
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

__all__ = ["NATIVE", "RETRY", "Dispatcher", "Executable", "get_context", "memory_stats", "parallel_for_test", "pool_address",
           "pool_set_threads", "pool_threads", "set_context", "set_default_context", "trim_memory"]

if TYPE_CHECKING:
    from xlc.run.fallback import (
        NATIVE,
        RETRY,
        Dispatcher,
        Executable,
        get_context,
        memory_stats,
        parallel_for_test,
        pool_address,
        pool_set_threads,
        pool_threads,
        set_context,
        set_default_context,
        trim_memory,
    )
else:
    try:
        from xlc import _xlc as _implementation
    except ImportError as error:
        from xlc.run import fallback as _implementation

        warnings.warn(f"xlc runs without its C++ extension ({error}): calls are slower and use one thread. With a C++17 compiler "
                      "installed, reinstall xlc (pip install --force-reinstall --no-deps xlc) to have it.", RuntimeWarning, stacklevel=2)
    globals().update({name: getattr(_implementation, name) for name in __all__})
