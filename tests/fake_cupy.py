"""A CuPy without a GPU: its arrays lie in memory of the shim, and what it is asked for is written down, in order.

    cupy = FakeCupy()                    cupy.calls: ("load", device), ("alloc", bytes), ("launch", entry, grid, shared, arguments...),
                                         ("begin",), ("end",), ("graph", stream, entries...), ("allow", ...), ("copy", ...)
    cupy = RunningCupy()                 launches run the text of the module, on the shim (see ``standing_in``)

What CuPy 14 refuses is refused here in its words: a device's array that is made a NumPy array behind one's back, one that meets a host
array, a capture on the default stream, an argument of a kernel that is no single value; and what the driver refuses: its functions on a
thread without a context, a graph launched into a graph, more dynamic shared memory than was allowed.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_shim import ShimDevice

ATTRIBUTES = {75: 9, 76: 0, 16: 132, 97: 232448, 81: 233472, 39: 2048, 38: 52428800, 82: 65536}
"""Of an H200, by their numbers in cudaDeviceAttr."""
IMPLICIT = "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
SHARED = 48 << 10  # bytes of dynamic shared memory that need no permission


# ------------------------------------------------------------------------------------------------ arrays

class FakeArray:
    """An array on a device: a view of memory that NumPy must not see."""

    __array_priority__ = 100

    def __init__(self, host: Any, number: Any = 0, memory: Any = None):
        """Of what lies there; or, as CuPy has it, of a shape, a dtype and a pointer."""
        self._host, self._number = host, number
        if memory is not None:
            dtype, self._number = np.dtype(number), memory.device_id
            space = (ctypes.c_char * (int(np.prod(host)) * dtype.itemsize)).from_address(memory.ptr)
            self._host = np.ndarray(host, dtype, space)

    device = property(lambda self: SimpleNamespace(id=self._number))
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data if self._host.size else 0, device_id=self._number))
    T = property(lambda self: self._new(self._host.T))

    def _new(self, host: Any) -> Any:
        return FakeArray(host, self._number) if isinstance(host, np.ndarray) else FakeArray(np.asarray(host), self._number)

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "strides", "ndim", "size", "nbytes", "itemsize", "flags"):
            return getattr(self._host, name)
        if name not in ("astype", "view", "reshape", "swapaxes", "copy", "ravel", "sum", "max", "any", "all", "transpose"):
            raise AttributeError(f"'ndarray' object has no attribute {name!r}")
        return lambda *args, **kwargs: self._new(getattr(self._host, name)(*args, **kwargs))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(IMPLICIT)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(hasattr(type(x), "__array_ufunc__") and not isinstance(x, (FakeArray, np.ndarray, np.generic)) for x in inputs):
            return NotImplemented  # whose own turn it is, as in CuPy
        out = kwargs.pop("out", (None,))[0]
        result = getattr(ufunc, method)(*map(host, inputs), **({"out": out._host} if out is not None else {}), **kwargs)
        return out if out is not None else self._new(result)

    def __array_function__(self, f: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(not issubclass(t, (FakeArray, np.ndarray)) for t in types):
            return NotImplemented
        return wrapped(f, self._number)(*args, **kwargs)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        h = self._host
        return {"shape": h.shape, "typestr": h.dtype.str, "data": (self.data.ptr, False), "version": 3, "strides": h.strides, "stream": 1}

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._number

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("a CuPy array is taken as it is")

    def __getitem__(self, at: Any) -> Any:
        at = host(at) if isinstance(at, tuple) else (host(at),)
        return self._new(self._host[at if any(i is Ellipsis for i in at) else (*at, ...)])

    def __setitem__(self, at: Any, value: Any) -> None:
        self._host[host(at)] = host(value)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        return (self._new(x) for x in self._host)

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return np.array(self._host, subok=False)

    def item(self) -> Any:
        return self._host.item()

    def __float__(self) -> float:
        return float(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __repr__(self) -> str:
        return repr(self._host)


FakeArray.__module__, FakeArray.__name__ = "cupy", "ndarray"
for _name, _f in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "and": np.bitwise_and,
                  "rshift": np.right_shift, "pow": np.power, "matmul": np.matmul, "lt": np.less, "gt": np.greater}.items():
    setattr(FakeArray, f"__{_name}__", lambda x, y, f=_f: f(x, y))
    setattr(FakeArray, f"__r{_name}__", lambda x, y, f=_f: f(y, x))
FakeArray.__neg__ = lambda x: np.negative(x)  # type: ignore[attr-defined]


def host(value: Any) -> Any:
    """What an array of the device holds; an array of the host is refused."""
    if isinstance(value, FakeArray):
        return value._host
    if isinstance(value, (tuple, list)):
        return type(value)(map(host, value))
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def wrapped(f: Callable[..., Any], number: int) -> Callable[..., Any]:
    """NumPy's function on arrays of the device."""
    def call(*args: Any, **kwargs: Any) -> Any:
        result = f(*map(host, args), **{k: host(v) for k, v in kwargs.items()})
        return FakeArray(np.asarray(result), number) if isinstance(result, (np.ndarray, np.generic)) else result

    return call


# ------------------------------------------------------------------------------------------------ the library

class FakeCupy:
    """Two GPUs. A launch into a stream that is captured goes to the graph."""

    ndarray = FakeArray
    __version__ = "14.2.0"
    __spec__ = ModuleSpec("cupy", None)

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.shim = ShimDevice(arch="sm_90")
        self.device, self.numbers, self.here = 0, iter(range(77, 1 << 30)), threading.local()
        self.null, self.ptds = FakeStream(self, 0), FakeStream(self, 2)
        self.streams, self.free = [self.null], 16 << 30
        pool = SimpleNamespace(free_all_blocks=lambda: None)
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: 2, getDevice=lambda: self.device, driverGetVersion=lambda: 13000,
                                    runtimeGetVersion=lambda: 13000, setDevice=self.set_device, deviceSynchronize=lambda: None,
                                    memGetInfo=lambda: (self.free, self.free), deviceGetAttribute=lambda which, number: ATTRIBUTES[which],
                                    getDeviceProperties=lambda number: {"name": b"NVIDIA H200"}),
            driver=SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8, funcSetAttribute=self.allow,
                                   occupancyMaxActiveBlocksPerMultiprocessor=self.occupancy),
            Device=lambda number: FakeCurrent(self, number), Stream=lambda non_blocking: FakeStream(self, next(self.numbers)),
            get_current_stream=lambda number=-1: self.streams[-1], alloc=self.alloc, alloc_pinned_memory=bytearray,
            Event=FakeEvent, set_allocator=lambda f: None,
            get_elapsed_time=lambda begin, end: 1e3 * (end.at - begin.at), function=SimpleNamespace(Module=lambda: FakeModule(self)),
            UnownedMemory=lambda address, size, owner, number=-1: SimpleNamespace(ptr=address, device_id=number),
            MemoryPointer=lambda memory, offset: SimpleNamespace(ptr=memory.ptr + offset, device_id=memory.device_id))
        self.get_default_memory_pool = lambda: pool

    # -- the driver

    def set_device(self, number: int) -> None:
        self.device, self.here.context = number, True

    def driver(self) -> None:
        """A function of the driver, which sees no context on a thread that the runtime has not given one."""
        if not getattr(self.here, "context", False):
            raise RuntimeError("CUDA_ERROR_INVALID_CONTEXT: invalid device context")

    def allow(self, function: int, attribute: int, value: int) -> None:
        self.driver()
        if value > ATTRIBUTES[97]:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.calls.append(("allow", function, attribute, value))

    def occupancy(self, function: int, threads: int, shared: int) -> int:
        self.driver()
        return min(ATTRIBUTES[82] // 32 // threads, ATTRIBUTES[81] // (shared + 1024))

    def loaded(self, cubin: bytes) -> Callable[..., None]:
        """What runs a launch of the module: ``run(entry, blocks, shared, arguments, cooperative)``."""
        return lambda *launch: None

    # -- memory

    def alloc(self, nbytes: int) -> Any:
        self.calls.append(("alloc", nbytes))
        memory = self.shim.empty((nbytes,), np.uint8)
        return SimpleNamespace(ptr=memory.ctypes.data, memory=memory)

    def empty(self, shape: Any, dtype: Any = float) -> Any:
        return FakeArray(np.asarray(self.shim.empty(shape if isinstance(shape, tuple) else (shape,), dtype)), self.device)

    def asarray(self, value: Any) -> Any:
        if isinstance(value, FakeArray) and value.device.id == self.device:
            return value
        made = np.asarray(value._host if isinstance(value, FakeArray) else value)
        if made.dtype.kind == "O":
            raise ValueError("Unsupported dtype object")
        self.calls.append(("copy", type(value)))
        array = self.empty(made.shape, made.dtype)
        array._host[...] = made
        return array

    def array(self, value: Any) -> Any:
        return self.asarray(host(value) if isinstance(value, FakeArray) else value)

    def asnumpy(self, array: Any) -> np.ndarray:
        return array.get() if isinstance(array, FakeArray) else np.asarray(array)

    def from_dlpack(self, value: Any) -> Any:
        self.calls.append(("from_dlpack", type(value)))
        return self.empty(value.shape, np.dtype(str(value.dtype)))

    def fuse(self) -> Callable[[Any], Any]:
        return lambda f: f

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        f = getattr(np, name)
        return wrapped(f, self.device) if callable(f) and not isinstance(f, type) else f


class FakeCurrent:
    def __init__(self, cupy: FakeCupy, number: int):
        self.cupy, self.number = cupy, number

    def __enter__(self) -> None:
        self.outer = self.cupy.device
        self.cupy.set_device(self.number)

    def __exit__(self, *exc: object) -> None:
        self.cupy.set_device(self.outer)


class FakeEvent:
    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass


class FakeStream:
    def __init__(self, cupy: FakeCupy, number: int):
        self.cupy, self.ptr = cupy, number
        self.recorded: list[tuple[str, Callable[[], None]]] | None = None

    def __enter__(self) -> FakeStream:
        self.cupy.streams.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.cupy.streams.pop()

    def begin_capture(self) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self.recorded = []
        self.cupy.calls.append(("begin",))

    def end_capture(self) -> Any:
        recorded, self.recorded = self.recorded or [], None
        self.cupy.calls.append(("end",))

        def launch() -> None:
            if self.cupy.streams[-1].recorded is not None:
                raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
            self.cupy.calls.append(("graph", self.cupy.streams[-1].ptr, *(name for name, _ in recorded)))
            for _, run in recorded:
                run()

        return SimpleNamespace(launch=launch)

    def is_capturing(self) -> bool:
        return self.recorded is not None

    def synchronize(self) -> None:
        self.cupy.calls.append(("synchronize", self.ptr))


class FakeModule:
    def __init__(self, cupy: FakeCupy):
        self.cupy = cupy

    def load(self, cubin: bytes) -> None:
        if type(cubin) is not bytes:
            raise TypeError(f"Argument 'cubin' has incorrect type (expected bytes, got {type(cubin).__name__})")
        if not cubin.startswith((b"cubin", b"\x7fELF")):
            raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on the device")
        if self.cupy.streams[-1].recorded is not None:
            raise AssertionError("code is loaded while a stream is captured")
        self.cupy.here.context = True
        self.cupy.calls.append(("load", self.cupy.device))
        self.run = self.cupy.loaded(cubin)

    def get_function(self, name: str) -> Any:
        cupy, number = self.cupy, abs(hash((id(self), name)))

        def start(grid: Any, block: Any, args: Any, shared_mem: int = 0, stream: Any = None,
                  enable_cooperative_groups: bool = False) -> None:
            assert block == (256,) and 0 < grid[0] < 1 << 31
            for a in args:
                if not isinstance(a, np.ndarray):
                    raise TypeError(f"Unsupported type {type(a)}")
                if a.size != 1:
                    raise TypeError(f"You are trying to pass a numpy.ndarray of shape {a.shape} as a kernel parameter. Only "
                                    "numpy.ndarrays of size one can be passed by value.")
                assert a.ctypes.data % 8 == 0
            allowed = max((c[3] for c in cupy.calls if c[:2] == ("allow", number)), default=SHARED)
            if shared_mem > allowed:
                raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
            cupy.here.context = True
            taken = [a.tobytes() for a in args]  # the driver copies arguments at the launch

            def run() -> None:
                self.run(name, grid[0], shared_mem, taken, enable_cooperative_groups)

            recorded = cupy.streams[-1].recorded
            if recorded is not None:
                recorded.append((name, run))
                return
            cupy.calls.append(("launch", name, grid, shared_mem, *taken, *(["cooperative"] if enable_cooperative_groups else [])))
            run()

        start.ptr = number  # type: ignore[attr-defined]
        return start


# ------------------------------------------------------------------------------------------------ with kernels that run

class RunningCupy(FakeCupy):
    """``sources`` has the text of every cubin that is loaded; where NVRTC made none, the cubin is the text."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[bytes, str] = {}

    def loaded(self, cubin: bytes) -> Callable[..., None]:
        code, sizes = self.shim.load(self.sources[cubin]), dict[int, int]()

        def run(name: str, blocks: int, shared: int, arguments: list[bytes], cooperative: bool) -> None:
            place = int.from_bytes(arguments[0][:8], "little")
            if name == "xlc_set_table":
                ctypes.memmove(place, arguments[1], len(arguments[1]))
                sizes[place] = len(arguments[1])
                return
            table = ctypes.string_at(place, sizes[place]) + arguments[0][8:] if sizes else arguments[0]
            self.shim.launch(code.function(name), blocks, shared, np.frombuffer(table, np.uint8), cooperative)

        return run


@contextmanager
def standing_in(cupy: FakeCupy, nvrtc: bool = False) -> Iterator[FakeCupy]:
    """This CuPy in place of the real one, here. ``nvrtc``: modules are compiled, and their cubins thrown away."""
    from xlc.backends.cuda import backend, device

    load, find, before = device.CupyDevice.load, device._cupy, sys.modules.get("cupy")
    kept = {name: vars(backend.CudaBackend)[name] for name in ("binary", "compiler")}

    def loaded(self: Any, source: str, cubin: bytes) -> Any:
        if isinstance(cupy, RunningCupy):
            cupy.sources[cubin] = source
        return load(self, source, cubin)

    def forget() -> None:
        for made in (backend._backend, device.numbered):  # that of another device is not to be found, nor is this one afterwards
            made.cache_clear()

    forget()
    device.CupyDevice.load, device._cupy = loaded, lambda: cupy  # type: ignore[method-assign, assignment]
    sys.modules["cupy"] = cupy  # type: ignore[assignment]
    if not nvrtc:
        backend.CudaBackend.binary = lambda self, text, graph: b"\x7fELF" + text.encode()  # type: ignore[method-assign]
        backend.CudaBackend.compiler = "none"  # type: ignore[method-assign, assignment]
    try:
        yield cupy
    finally:
        device.CupyDevice.load, device._cupy = load, find  # type: ignore[method-assign]
        for name, value in kept.items():
            setattr(backend.CudaBackend, name, value)
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before
        forget()
