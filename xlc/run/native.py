"""The call path: from a Python call to compiled code and back, in C (``xlc._xlc``) or, where that was not built, in Python.

    exe = Executable(entry_address, params=[0, 1], results=[(np.float32, (8,))], out_tree=("leaf", 0))
    f = Dispatcher(miss)                     def miss(args, kwargs): ...; return f.add(args, kwargs, exe)
    f(x, y)                                  first call: miss; afterwards straight into compiled code

Everything below exists twice, with one meaning: in ``csrc/`` (fast) and in ``xlc/run/fallback.py`` (ctypes; no threads).

Leaves
    The *leaves* of a call ``(args, kwargs)`` are numbered so: positional arguments left to right, then keyword arguments **sorted by
    name**; inside an argument depth first; a dict's values **sorted by key**, however they were inserted (in order of insertion when
    the keys cannot be compared). None and static arguments give no leaf.
    *Fast* leaves: exactly ``numpy.ndarray`` (no subclass) of bool, integer, float, complex or a user dtype such as bfloat16; NumPy
    scalars of these; Python ``bool int float complex`` (an int must fit int64). *Fast* containers: exactly ``dict`` (whose keys are
    str or int), ``list``, ``tuple``, any named tuple, None.

Signatures
    A signature holds for each leaf: an array's dtype and shape (a NumPy scalar is a 0-d array; byte order and strides do not count), or
    which Python scalar; for each container its kind, length, keys, type; for each static argument type and value (hash, then ``==``);
    the names of keyword arguments; and the context key (below).

``Dispatcher(miss, *, static_argnums=(), static_argnames=(), slow=False, owner=None)``
    A callable; also a descriptor (usable as a method), weakly referenceable, with a ``__dict__``. An attribute that it does not have is
    looked up on ``owner`` (so ``f.lower``, ``f.compiles``, ``f.__doc__`` may live on an ordinary object); ``repr`` is the owner's.
    A call whose signature is known runs its executable. Every other call (unknown signature; a leaf or container that is not fast; a
    static argument without a hash; ``slow``) goes to ``miss(args: tuple, kwargs: dict)``. What ``miss`` returns is the result of the
    call, unless it is ``RETRY``: then the signature is looked up again and its executable is called (RuntimeError if there still is
    none). Static are the positions in ``static_argnums`` and the keywords in ``static_argnames``: give both for a parameter that can be
    passed both ways.

    ``add(args, kwargs, executable) -> RETRY | None``
        Enters the executable for the signature of this call, replacing an earlier one. None, and nothing is entered, when the call is
        not fast: then miss flattens the arguments itself. The usual ending of miss: ``return f.add(args, kwargs, exe) or
        exe.call_flat(leaves)``. ValueError when the executable takes another number of leaves.
    ``find(args, kwargs) -> Executable | None``
        What a call would run now: for the second look inside the lock of a first call.
    ``clear()``, ``executables() -> list``; settable: ``slow``, ``miss``, ``owner``

``Executable(entry, *, params, results, out_tree, dims=(), checks=(), workspace=0, workspace_function=0, donate=(), alias=None,
constants=(), release_gil=True, parallel=True, name="", keepalive=None)``
    entry         address of an ``xlc_entry`` (docs/abi.md)
    params        params[leaf] = the slot of the entry's parameter that this leaf fills, or -1 (unused); its length is the number of leaves
    results       [(dtype, shape), ...]. A size is an int or an *expression* over the dims, a sum of products: ``[(coef, [(base, power),
                  ...]), ...]`` where base is an index into ``dims`` or, for a floor quotient, a pair of expressions.
                  ``2*d0*d1**2 + 3`` is ``[(2, [(0, 1), (1, 2)]), (3, [])]``;  ``d0 // 2`` is ``[(1, [(([(1, [(0, 1)])], 2), 1)])]``
    dims          for each symbolic size, in the order of the ABI, all places where it stands alone: ``[(leaf, axis), ...]``. These axes
                  match any size, 0 included; a call where the places of one size differ does not match.
    checks        [(leaf, axis, expression), ...]: further axes, which match any size equal to the expression
    workspace     bytes; or ``workspace_function``, the address of an ``xlc_workspace``
    donate        leaves whose buffers the entry may write to. An array that is read-only, not C-contiguous or overlaps another leaf is
                  copied first.
    alias         {result: leaf}: the result *is* the donated leaf's memory (a new array whose base is the argument); implies donate
    constants     arrays whose addresses follow those of the results (kept alive; made C-contiguous once, not copied otherwise)
    release_gil   release the GIL around the entry: costs 50 ns; pass False when the work is below some microseconds
    parallel      give the entry the process's thread pool (else par = NULL)
    keepalive     whatever owns the code
    out_tree      ``("leaf", i)`` result i, ``("none",)``, ``("const", object)``, ``("tuple", [children])``, ``("list", [children])``,
                  ``("dict", [keys], [children])``, ``("call", constructor, [children])`` = constructor(*children)

    ``exe(*leaves)``, ``call_flat(leaves)`` give the result in out_tree, ``run_flat(leaves)`` the list of result arrays. Leaves as above,
    or anything ``np.asarray`` accepts. These check the number of leaves, not dtypes or shapes: for callers that know them.
    Attributes: ``calls`` (so far), ``name``, ``keepalive``, ``params``, ``out_tree``.
    A nonzero return of the entry raises RuntimeError with name and code. A malformed description: ValueError, at construction.

Results are fresh C-contiguous arrays. Those of 64 KiB and more use memory that is recycled when the array dies (64-byte aligned, huge
pages from 4 MiB on; at most 1 GiB, and four times what was ever live, is kept).

``set_context(key: int | None)``, ``set_default_context(key: int)``, ``get_context() -> int``
    The context key of this thread, part of every signature: one integer for each distinct ``config.key()``. None: this thread follows
    the default (initially 0) again.
``pool_set_threads(n)``, ``pool_threads() -> int``, ``pool_address() -> int``
    The thread pool's size (0: the default, XLC_NUM_THREADS or the CPUs this process may use) and ``xlc_parallel`` (0: there is none).
``parallel_for_test(task, closure, n)``
    Runs the ``xlc_task`` at this address on the pool.
``memory_stats() -> dict``, ``trim_memory() -> int``
    Bytes of recycled memory: live, cached, peak_live. Frees what is cached, and this thread's workspace (which is kept from call to call,
    up to 4 GiB); returns how much that was.
``NATIVE``, ``RETRY``
    Whether this is the C implementation; the sentinel.
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

        warnings.warn(f"xlc runs without its C++ extension ({error}): calls are slower and use one thread. To have it, install a C++17 "
                      "compiler, then xlc again from its sources (pip install --force-reinstall --no-deps .).", RuntimeWarning,
                      stacklevel=2)
    globals().update({name: getattr(_implementation, name) for name in __all__})
