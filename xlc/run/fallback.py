"""The call path in Python, through ctypes: for an installation without a C++ compiler. Slower, single-threaded, and otherwise the same.

    from xlc.run.fallback import Dispatcher, Executable     what it means stands in xlc/run/native.py; tests/test_dispatch.py runs on both
"""

from __future__ import annotations

import ctypes
import os
import threading
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

NATIVE = False
RETRY: Any = object()
DEPTH = 200  # as xlc/frontend/tree.py
_ENTRY = (ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_LIMIT = 1 << 63

# ---- signatures ----

_PYTHON = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64), complex: np.dtype(np.complex128)}


class _NotFast(Exception):
    """Something that only miss can deal with."""


class _Context(threading.local):
    key: int | None = None


_context = _Context()
_default_context = 0


class _Call(NamedTuple):
    structure: tuple[Any, ...]
    types: tuple[tuple[Any, ...], ...]  # of each leaf: (kind, dtype, sizes...)
    leaves: list[Any]


def _is_element(dtype: np.dtype[Any]) -> bool:
    return dtype.num <= 15 or dtype.num == 23 or 256 <= dtype.num < 2048


def _leaf_type(value: Any) -> tuple[Any, ...]:
    kind = type(value)
    if kind in _PYTHON:
        if kind is int and not -_LIMIT <= value < _LIMIT:
            raise _NotFast
        return (kind,)
    if kind is not np.ndarray and not isinstance(value, np.generic) or not _is_element(value.dtype):
        raise _NotFast
    return (np.ndarray, value.dtype.newbyteorder("="), *value.shape)


def _walk(value: Any, out: _Call, depth: int) -> Any:
    """The structure of a value; its leaves and their types are appended."""
    kind = type(value)
    if value is None:
        return None
    if depth == 0:
        raise _NotFast
    if kind is dict:
        if any(type(k) is not str and (type(k) is not int or not -_LIMIT <= k < _LIMIT) for k in value):
            raise _NotFast
        try:
            keys = sorted(value)
        except TypeError:
            keys = list(value)
        return (dict, *[(type(k), k, _walk(value[k], out, depth - 1)) for k in keys])
    if kind is tuple or kind is list or isinstance(value, tuple) and hasattr(kind, "_fields"):
        return (kind, *[_walk(v, out, depth - 1) for v in value])
    cast("list[Any]", out.types).append(_leaf_type(value))
    out.leaves.append(value)
    return 0


# ---- sizes ----


def _check_size(size: Any, dims: int) -> Any:
    """The size, if it is one: see Executable in native.py."""
    if hasattr(size, "__index__"):
        return size.__index__()
    for _, factors in size:
        for base, power in factors:
            if power < 1:
                raise ValueError("a power in a size must be at least 1")
            if hasattr(base, "__index__"):
                if not 0 <= base < dims:
                    raise ValueError("a size names a dim that does not exist")
            else:
                _check_size(base[0], dims)
                _check_size(base[1], dims)
    return size


def _evaluate(size: Any, dims: Sequence[int]) -> int:
    if isinstance(size, int):
        return size
    total = 0
    for coef, factors in size:
        for base, power in factors:
            coef *= (dims[base] if hasattr(base, "__index__") else _evaluate(base[0], dims) // _evaluate(base[1], dims)) ** power
        total += coef
    return total


# ---- executables ----


def aligned(nbytes: int) -> np.ndarray[Any, Any]:
    """That many bytes, 64-byte aligned, uninitialised."""
    block = np.empty(nbytes + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start:start + nbytes]


def _build(tree: Any, results: list[Any]) -> Any:
    match tree[0]:
        case "leaf":
            return results[tree[1]]
        case "none":
            return None
        case "const":
            return tree[1]
        case "tuple":
            return tuple([_build(c, results) for c in tree[1]])
        case "list":
            return [_build(c, results) for c in tree[1]]
        case "dict":
            return {k: _build(c, results) for k, c in zip(tree[1], tree[2], strict=True)}
    return tree[1](*[_build(c, results) for c in tree[2]])


_LENGTHS = {"leaf": 2, "none": 1, "const": 2, "tuple": 2, "list": 2, "dict": 3, "call": 3}


def _check_tree(tree: Any, results: int) -> None:
    if tree[0] not in _LENGTHS:
        raise ValueError(f"out_tree: unknown kind {tree[0]!r}; expected leaf, none, const, tuple, list, dict or call")
    if len(tree) != _LENGTHS[tree[0]]:
        raise ValueError(f"out_tree: ({tree[0]!r}, ...) has the wrong length")
    if tree[0] == "leaf" and not 0 <= tree[1] < results:
        raise ValueError("out_tree names a result that does not exist")
    if tree[0] == "dict" and len(tree[1]) != len(tree[2]):
        raise ValueError("out_tree: a dict needs one child for each key")
    if tree[0] in ("tuple", "list", "dict", "call"):
        for child in tree[-1]:
            _check_tree(child, results)


class Executable:
    """A compiled program with everything that is needed to call it."""

    def __init__(self, entry: int, *, params: Sequence[int], results: Sequence[tuple[Any, Sequence[Any]]], out_tree: Any,
                 dims: Sequence[Sequence[tuple[int, int]]] = (), checks: Sequence[tuple[int, int, Any]] = (), workspace: int = 0,
                 workspace_function: int = 0, donate: Iterable[int] = (), alias: Mapping[int, int] | None = None,
                 constants: Sequence[Any] = (), release_gil: bool = True, parallel: bool = True, name: str = "",
                 keepalive: Any = None):
        if not entry:
            raise ValueError("entry is the address 0")
        self.params, self.out_tree, self.keepalive, self.name, self.calls = tuple(params), out_tree, keepalive, name or "compiled code", 0
        self._dims, self._checks = [list(places) for places in dims], list(checks)
        self._results = [(np.dtype(dtype), [_check_size(s, len(self._dims)) for s in shape]) for dtype, shape in results]
        self._alias, self._donated = dict(alias or {}), {*donate, *(alias or {}).values()}
        self._constants = [np.ascontiguousarray(a).reshape(np.shape(a)) for a in constants]
        filled = [s for s in self.params if s != -1]
        if sorted(filled) != list(range(len(filled))):
            raise ValueError(f"params must fill the parameter slots 0, 1, ... once each; found {filled}")
        places = [place for group in self._dims for place in group] + [(leaf, axis) for leaf, axis, _ in self._checks]
        if not all(self._dims) or any(axis < 0 for _, axis in places):
            raise ValueError("a symbolic size must stand alone in at least one place, and an axis must not be negative")
        for leaf in (*self._donated, *(leaf for leaf, _ in places)):
            if not 0 <= leaf < len(self.params):
                raise ValueError(f"there is no leaf {leaf}: params describes {len(self.params)}")
        for _, _, size in self._checks:
            _check_size(size, len(self._dims))
        if any(not 0 <= r < len(self._results) for r in self._alias) or len(set(self._alias.values())) < len(self._alias):
            raise ValueError("alias names a result that does not exist, or two results for one leaf")
        for dtype, shape in self._results:
            if dtype.hasobject or dtype.itemsize == 0:
                raise ValueError("results must be numbers")
            if any(isinstance(s, int) and s < 0 for s in shape):
                raise ValueError("a result has a negative size")
        _check_tree(out_tree, len(self._results))
        self._entry = (ctypes.CFUNCTYPE if release_gil else ctypes.PYFUNCTYPE)(*_ENTRY)(entry)
        self._workspace = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(workspace_function) if workspace_function else workspace
        self._slots = len(filled)

    def __repr__(self) -> str:
        return f"<Executable {self.name}: {len(self.params)} leaves, {len(self._results)} results, {self.calls} calls>"

    def __call__(self, *leaves: Any) -> Any:
        return self.call_flat(leaves)

    def call_flat(self, leaves: Iterable[Any]) -> Any:
        return _build(self.out_tree, self.run_flat(leaves))

    def holes(self) -> list[tuple[int, int]]:
        """The axes that match any size: (leaf, axis)."""
        return [place for places in self._dims for place in places] + [(leaf, axis) for leaf, axis, _ in self._checks]

    def read_dims(self, leaves: Sequence[Any]) -> list[int] | None:
        """The symbolic sizes; None when places that should agree differ."""
        def size_at(leaf: int, axis: int) -> int:
            shape = np.shape(leaves[leaf])
            return shape[axis] if axis < len(shape) else -1

        dims = [size_at(*places[0]) for places in self._dims]
        same = all(size_at(*place) == dim >= 0 for dim, places in zip(dims, self._dims, strict=True) for place in places)
        return dims if same and all(size_at(leaf, axis) == _evaluate(size, dims) for leaf, axis, size in self._checks) else None

    def run_flat(self, leaves: Iterable[Any]) -> list[Any]:
        given = [v if isinstance(v, (np.ndarray, np.generic, *_PYTHON)) else np.asarray(v) for v in leaves]
        if len(given) != len(self.params):
            raise TypeError(f"{self.name} takes {len(self.params)} leaves, {len(given)} were given")
        self.calls += 1
        dims = self.read_dims(given)
        if dims is None:
            raise ValueError(f"{self.name}: axes that bear the same name have different sizes")
        arrays = [self._memory(v, i in self._donated) for i, v in enumerate(given)]
        self._separate(arrays)
        results = [self._result(r, arrays, dims) for r in range(len(self._results))]
        buffers = (ctypes.c_void_p * (self._slots + len(results) + len(self._constants) or 1))()
        for slot, array in (*zip(self.params, arrays, strict=True), *enumerate([*results, *self._constants], self._slots)):
            if slot >= 0:
                buffers[slot] = array.ctypes.data
        sizes = (ctypes.c_int64 * len(dims))(*dims) if dims else None
        space = aligned(max(self._workspace(sizes) if callable(self._workspace) else self._workspace, 0))
        code = self._entry(buffers, sizes, space.ctypes.data if space.size else None, None)
        if code:
            raise RuntimeError(f"{self.name} failed with code {code}{' (bad symbolic size)' if code == 1 else ''}")
        return results

    @staticmethod
    def _memory(value: Any, donated: bool) -> np.ndarray[Any, Any]:
        dtype = _PYTHON.get(type(value)) or value.dtype
        if not _is_element(dtype):
            raise TypeError(f"an array of dtype {dtype} cannot be an argument of compiled code")
        array = np.asarray(value, dtype.newbyteorder("="))
        fits = array.flags.c_contiguous and array.flags.aligned and (array.flags.writeable or not donated)
        return array if fits else np.array(array, order="C", copy=True, subok=False)

    def _separate(self, arrays: list[np.ndarray[Any, Any]]) -> None:
        """Donated arrays that share memory with another leaf are copied, so that writing to one is not seen in the other."""
        used = [i for i, slot in enumerate(self.params) if slot >= 0 or i in self._donated]
        for i in self._donated:
            if any(j != i and np.may_share_memory(arrays[i], arrays[j]) for j in used):
                arrays[i] = arrays[i].copy()

    def _result(self, r: int, arrays: list[np.ndarray[Any, Any]], dims: Sequence[int]) -> np.ndarray[Any, Any]:
        dtype, sizes = self._results[r]
        shape = [_evaluate(s, dims) for s in sizes]
        for k, size in enumerate(shape):
            if size < 0:
                raise ValueError(f"{self.name}: a result would have the size {size} in dimension {k}")
        nbytes = dtype.itemsize * int(np.prod(shape, dtype=object))
        if r not in self._alias:
            return np.empty(shape, dtype) if nbytes < 1 << 16 else aligned(nbytes).view(dtype).reshape(shape)
        donor = arrays[self._alias[r]]
        if donor.nbytes < nbytes:
            raise ValueError(f"{self.name}: a result of {nbytes} bytes does not fit into its donated argument of {donor.nbytes} bytes")
        return donor.reshape(-1).view(np.uint8)[:nbytes].view(dtype).reshape(shape)


# ---- dispatchers ----


class _Entry(NamedTuple):
    types: tuple[tuple[Any, ...], ...]
    executable: Executable


class Dispatcher:
    """From a call to its executable."""

    def __init__(self, miss: Callable[[tuple[Any, ...], dict[str, Any]], Any], *, static_argnums: Iterable[int] = (),
                 static_argnames: Iterable[str] = (), slow: bool = False, owner: Any = None):
        self.miss, self.slow, self.owner = miss, slow, owner
        self._static_argnums, self._static_argnames = frozenset(static_argnums), frozenset(static_argnames)
        if any(p < 0 for p in self._static_argnums):
            raise ValueError("static_argnums must not be negative")
        if any(type(n) is not str for n in self._static_argnames):
            raise TypeError("static_argnames must be strings")
        self._exact: dict[Any, Executable] = {}
        self._symbolic: dict[Any, list[_Entry]] = {}

    def _take_apart(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        call = _Call((), cast(Any, []), [])
        try:
            positional = [(i, type(v), v) if i in self._static_argnums else _walk(v, call, DEPTH) for i, v in enumerate(args)]
            keywords = [(k, type(v), v) if k in self._static_argnames else (k, _walk(v, call, DEPTH)) for k, v in sorted(kwargs.items())]
            structure = (get_context(), *positional, *keywords)
            hash(structure)
        except (_NotFast, TypeError):  # TypeError: a static argument that has no hash
            return None
        return _Call(structure, tuple(call.types), call.leaves)

    def _find(self, call: _Call) -> Executable | None:
        found = self._exact.get((call.structure, call.types))
        if found is None:
            for entry in self._symbolic.get(call.structure, ()):
                if _mask(call.types, entry.executable) == entry.types and entry.executable.read_dims(call.leaves) is not None:
                    return entry.executable
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for retried in (False, True):
            call = None if self.slow and not retried else self._take_apart(args, kwargs)
            executable = self._find(call) if call else None
            if call and executable:
                return executable.call_flat(call.leaves)
            if not retried:
                result = self.miss(args, kwargs)
                if result is not RETRY:
                    return result
        raise RuntimeError("miss asked to look again, but added nothing that matches this call")

    def add(self, args: tuple[Any, ...], kwargs: dict[str, Any], executable: Executable) -> Any:
        call = self._take_apart(args, kwargs)
        if call is None:
            return None
        if len(call.leaves) != len(executable.params):
            raise ValueError(f"{executable.name} takes {len(executable.params)} leaves, this call has {len(call.leaves)}")
        for leaf, axis in executable.holes():
            if axis >= np.ndim(call.leaves[leaf]):
                raise ValueError(f"{executable.name}: leaf {leaf} has no axis {axis} in this call")
        if not executable.holes():
            self._exact[call.structure, call.types] = executable
        else:
            entry = _Entry(_mask(call.types, executable), executable)
            others = [e for e in self._symbolic.get(call.structure, []) if e.types != entry.types]
            self._symbolic[call.structure] = [entry, *others]
        return RETRY

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable | None:
        call = self._take_apart(args, kwargs)
        return self._find(call) if call else None

    def clear(self) -> None:
        self._exact.clear()
        self._symbolic.clear()

    def executables(self) -> list[Executable]:
        return [*(e.executable for entries in self._symbolic.values() for e in entries), *self._exact.values()]

    def __get__(self, instance: Any, kind: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        owner = self.__dict__.get("owner")
        if owner is None:
            raise AttributeError(f"'Dispatcher' object has no attribute {name!r}")
        return getattr(owner, name)

    def __repr__(self) -> str:
        return object.__repr__(self) if self.owner is None else repr(self.owner)


def _mask(leaf_types: tuple[tuple[Any, ...], ...], executable: Executable) -> tuple[tuple[Any, ...], ...]:
    """The types with a wildcard at each axis that matches any size."""
    masked = [list(t) for t in leaf_types]
    for leaf, axis in executable.holes():
        if axis + 2 < len(masked[leaf]):
            masked[leaf][axis + 2] = "*"
    return tuple(map(tuple, masked))


# ---- context, pool, memory ----


def get_context() -> int:
    return _default_context if _context.key is None else _context.key


def set_context(key: int | None) -> None:
    _context.key = key


def set_default_context(key: int) -> None:
    global _default_context
    _default_context = key


_threads = 0


def pool_set_threads(n: int) -> None:
    global _threads
    if n < 0:
        raise ValueError("the number of threads must be positive, or 0 for the default")
    _threads = n


def pool_threads() -> int:
    """What was asked for; without the extension everything runs on the caller's thread."""
    asked = os.environ.get("XLC_NUM_THREADS", "")
    return _threads or (int(asked) if asked.isdecimal() and int(asked) else len(os.sched_getaffinity(0)))


def pool_address() -> int:
    return 0


def parallel_for_test(task: int, closure: int, n: int) -> None:
    if n > 0:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(task)(closure, 0, n)


def memory_stats() -> dict[str, int]:
    return {"live": 0, "cached": 0, "peak_live": 0}


def trim_memory() -> int:
    return 0
