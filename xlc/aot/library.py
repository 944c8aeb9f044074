"""A library that ``export`` made, called from Python.

    mlp = load("mlp.so")
    mlp(x)            NumPy arrays in, what the exported function returned out; the GIL is released meanwhile
    mlp.interface     names, dtypes, shapes, workspace

All that is known of a library is read from the file itself: the JSON that its ``<name>_signature()`` gives.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import XlcTypeError, XlcValueError
from ..frontend.trace import as_array
from ..frontend.tree import flatten, unflatten
from ..ir.plan import ALIGNMENT
from ..ir.types import Dim, evaluate
from ..run import native
from .interface import MARK, Interface, Port, tree_from_data


def load(path: str | os.PathLike[str]) -> Library:
    """Open an exported ``.so``. XlcValueError for any other file."""
    where = Path(path)
    if not where.is_file():
        raise XlcValueError(f"there is no file {str(path)!r}")
    try:
        interface = Interface.parse(_signature(where))
    except (ValueError, KeyError, TypeError) as error:
        raise XlcValueError(f"{str(path)!r} is no library that this xlc can load: {error}") from None
    try:
        return Library(where, interface, ctypes.CDLL(str(where.resolve())))
    except OSError as error:
        kind = "; a .o or .a is for a linker: export a .so" if where.suffix in (".o", ".a") else ""
        raise XlcValueError(f"{str(path)!r} was made for {interface.target} and cannot be loaded here: {error}{kind}") from None


def _signature(path: Path) -> str:
    """The JSON inside the file."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(MARK.encode())
            if at < 0:
                raise ValueError("it holds no xlc signature")
            start = at + len(MARK)
            return data[start:data.find(b"\0", start)].decode()


class Library:
    """A callable library. Arguments are those of the exported function that were specs, in order or by name, nested as they were (with
    None in the places of what is baked in)."""

    def __init__(self, path: Path, interface: Interface, code: ctypes.CDLL):
        self.path, self.interface, self._code = path, interface, code
        self.__name__ = interface.name
        self._tree, self._out_tree = tree_from_data(interface.in_tree), tree_from_data(interface.out_tree)
        self._sizes = [Dim.named(s) for s in interface.sizes]
        self._types = {p.name: p.type for p in (*interface.inputs, *interface.outputs)}
        self._workspace_bytes = code[f"{interface.name}_workspace_size"]
        self._workspace_bytes.restype = ctypes.c_size_t
        self._entry = code[f"{interface.name}_parallel"]
        self._entry.restype = ctypes.c_int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves = self._leaves(args, kwargs)
        arrays = [self._array(p, leaf) for p, leaf in zip(self.interface.inputs, leaves, strict=True)]
        env = self._env(arrays)
        sizes = [ctypes.c_int64(env[s]) for s in self.interface.sizes]
        made = [self._types[p.name] for p in self.interface.outputs]
        outputs = [np.empty(tuple(evaluate(s, env) for s in t.shape), t.dtype.numpy) for t in made]
        shared = {p.shared: i for i, p in enumerate(self.interface.outputs) if p.shared}
        arrays = [a.copy() if p.name in shared else a for p, a in zip(self.interface.inputs, arrays, strict=True)]
        workspace = np.empty(self._workspace_bytes(*sizes) + ALIGNMENT, np.uint8)
        aligned = workspace.ctypes.data + -workspace.ctypes.data % ALIGNMENT
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, *outputs)]
        code = self._entry(*sizes, *pointers, ctypes.c_void_p(aligned), ctypes.c_void_p(native.pool_address() or None))
        if code:
            raise XlcValueError(f"{self.__name__} refuses the sizes {env}" if code == 1 else f"{self.__name__} failed with code {code}")
        return unflatten(self._out_tree, outputs)

    def _leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        names = self.interface.arguments
        given = dict(zip(names, args, strict=False))
        if len(args) > len(names) or kwargs.keys() & given.keys() or (given.keys() | kwargs.keys()) != set(names):
            raise XlcTypeError(f"{self.__name__} takes ({', '.join(names)}), found {len(args)} positional arguments"
                               + (f" and {', '.join(kwargs)}" if kwargs else ""))
        given |= kwargs
        leaves, tree = flatten(tuple(given[n] for n in names))
        if str(tree) != str(self._tree):
            raise XlcTypeError(f"{self.__name__} takes ({', '.join(names)}) nested as {self._tree}, found {tree}")
        return leaves

    def _array(self, p: Port, value: Any) -> np.ndarray:
        what = f"{self.__name__}(): the argument {p.path}"
        dtype = self._types[p.name].dtype.numpy
        array = np.asarray(value, dtype) if type(value) in (bool, int, float) else as_array(value, what)
        if array.dtype.newbyteorder("=") != dtype:
            raise XlcTypeError(f"{what} must be {p.type}, found {array.dtype}; convert it with astype")
        if array.ndim != len(p.shape):
            raise XlcValueError(f"{what} must be {p.type}, found shape {array.shape}")
        return np.ascontiguousarray(array, dtype).reshape(array.shape)

    def _env(self, arrays: list[np.ndarray]) -> dict[str, int]:
        """The named sizes, read from the arguments; every axis is checked."""
        env: dict[str, int] = {}
        axes = [(p, axis, s, n) for p, a in zip(self.interface.inputs, arrays, strict=True)
                for axis, (s, n) in enumerate(zip(self._types[p.name].shape, a.shape, strict=True))]
        for _, _, s, n in axes:
            if s in self._sizes:
                env.setdefault(str(s), n)
        for p, axis, s, n in axes:
            if isinstance(s, Dim) and not s.names <= env.keys():
                unknown = ", ".join(sorted(s.names - env.keys()))
                raise XlcValueError(f"the size {s} of {p.path} cannot be solved for {unknown}; call the library from C")
            expected = evaluate(s, env)
            if expected != n:
                must = f"have {s} = {expected}" if isinstance(s, Dim) else f"be {p.type}"
                raise XlcValueError(f"{self.__name__}(): the argument {p.path} must {must} on axis {axis}, found {n}")
        return env

    def __repr__(self) -> str:
        return f"<xlc library {self.__name__}({', '.join(str(p.type) for p in self.interface.inputs)}) of {self.path}>"
