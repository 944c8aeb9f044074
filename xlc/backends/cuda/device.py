"""A GPU, through CuPy: memory, modules, launches on CuPy's current stream. CuPy is imported here alone, when asked.

    gpu = device.current()                          CuPy's current device; or device.numbered(1), device.owner(array)
    module = gpu.load(text, cubin)
    gpu.launch(module.function("l0"), grid, 0, table)         the table's bytes are the kernel's argument
    replay = gpu.replay(module, nbytes, record)               record(argument) launches a whole plan; captured once per stream
    replay(table)                                             writes the table (of nbytes) on the device, and launches the graph

Nothing here waits for the device but ``numpy(array)``, whose result is the user's values.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xlc.errors import XlcError, XlcImportError, XlcTypeError, XlcValueError

from .chip import Chip, chip

if TYPE_CHECKING:
    from .replay import Replay

THREADS = 256
"""Of every block, so that kernels can share a launch."""
_STATIC_SHARED = 48 << 10  # dynamic shared memory that needs no permission
_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
LEGACY = (0, 1)
"""The numbers of the stream that all threads share, which cannot be captured."""
_NONE = "there is no GPU that can be used here; jit(device='cuda:sm_90') compiles for one that is elsewhere"

_NOTHING: AbstractContextManager[Any] = nullcontext()
Record = Callable[[np.ndarray], None]


class Module(Protocol):
    """Loaded code."""

    def function(self, name: str) -> Any: ...


class Device(Protocol):
    """What running a plan asks of a device. ``name`` is "cuda:0", ``arch`` "sm_90"; arrays are the device's own."""

    name: str
    arch: str
    chip: Chip

    def load(self, source: str, cubin: bytes) -> Module: ...
    def launch(self, function: Any, grid: int, shared: int, argument: np.ndarray, cooperative: bool = False) -> None: ...
    def resident(self, function: Any, shared: int) -> int: ...
    def replay(self, module: Module, nbytes: int, record: Record) -> Callable[[np.ndarray], bool]: ...
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any: ...
    def asarray(self, value: Any) -> Any: ...
    def copied(self, array: Any) -> Any: ...
    def numpy(self, array: Any) -> np.ndarray: ...
    def address(self, array: Any) -> int: ...
    def owns(self, value: Any) -> bool: ...
    def workspace(self, nbytes: int) -> Any: ...
    def capturing(self) -> bool: ...
    def settle(self) -> None: ...


# ------------------------------------------------------------------------------------------------ the real one

@functools.cache
def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise XlcImportError(f"running on a GPU needs CuPy: pip install xlc[cuda] ({error})") from None
    return cupy


def count() -> int:
    """GPUs of this machine; 0 without CuPy or a driver."""
    try:
        return _present()
    except XlcError:
        return 0


def _present() -> int:
    """How many there are; XlcError with the reason where there are none."""
    runtime = _cupy().cuda.runtime
    try:
        found = int(runtime.getDeviceCount())
    except RuntimeError as error:  # CUDARuntimeError
        driver, made_for = runtime.driverGetVersion(), runtime.runtimeGetVersion() // 1000
        advice = (f". The driver knows CUDA {_dotted(driver)} and this CuPy is made for CUDA {made_for}: install a newer driver, or "
                  f"pip install cupy-cuda{driver // 1000}x in its place" if 0 < driver < 1000 * made_for else "")
        raise XlcError(f"{_NONE}: {error}{advice}") from None
    if not found:
        raise XlcError(_NONE)
    return found


def _dotted(version: int) -> str:
    """12040 -> "12.4"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def current() -> CupyDevice:
    """CuPy's current device. XlcError where there is none."""
    _present()
    return numbered(_cupy().cuda.runtime.getDevice())


@functools.cache
def numbered(number: int) -> CupyDevice:
    """The GPU of that number."""
    found = _present()
    if not 0 <= number < found:
        raise XlcValueError(f"there is no cuda:{number}; this machine has {found} GPU{'s' * (found > 1)}")
    return CupyDevice(_cupy(), number)


def owner(value: Any) -> CupyDevice | None:
    """The GPU on which a CuPy array lies; None for anything else. CuPy is not imported to say so."""
    cupy = sys.modules.get("cupy")
    return numbered(value.device.id) if cupy is not None and isinstance(value, cupy.ndarray) else None


class Workspace:
    """Device memory from CuPy's pool. It returns there with this object, and is reused by later work of the same stream."""

    __slots__ = ("address", "memory")

    def __init__(self, memory: Any):
        self.memory, self.address = memory, int(memory.ptr)


class Function:
    """An entry of a module, and how much dynamic shared memory it has leave to use."""

    __slots__ = ("handle", "name", "shared")

    def __init__(self, handle: Any, name: str):
        self.handle, self.name, self.shared = handle, name, _STATIC_SHARED


class LoadedModule:
    """Code on the device; its functions, by name."""

    def __init__(self, module: Any):
        self._module = module
        self._functions: dict[str, Function] = {}

    def function(self, name: str) -> Function:
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = Function(self._module.get_function(name), name)
        return found


class CupyDevice:
    """One GPU. Work goes to CuPy's current stream of this device."""

    def __init__(self, cupy: Any, number: int):
        self.number, self.name = number, f"cuda:{number}"
        self.cupy = cupy
        self._runtime, self._driver = cupy.cuda.runtime, cupy.cuda.driver
        self.chip = self._read_chip()
        self.arch = self.chip.arch

    def __repr__(self) -> str:
        return f"<{self.name} {self.chip.name} {self.arch}>"

    def _read_chip(self) -> Chip:
        def attribute(number: int) -> int:  # of enum cudaDeviceAttr
            return int(self._runtime.deviceGetAttribute(number, self.number))

        name = self._runtime.getDeviceProperties(self.number)["name"]
        return Chip(f"sm_{attribute(75)}{attribute(76)}", name.decode() if isinstance(name, bytes) else str(name), sms=attribute(16),
                    shared_block=attribute(97), shared_sm=attribute(81), threads=attribute(39), l2=attribute(38), registers=attribute(82))

    def here(self) -> AbstractContextManager[Any]:
        """Makes this the current device, inside."""
        return _NOTHING if self._runtime.getDevice() == self.number else self.cupy.cuda.Device(self.number)

    # -------------------------------------------------------------------------------------------- code

    def load(self, source: str, cubin: bytes) -> LoadedModule:
        module = self.cupy.cuda.function.Module()
        with self.here():
            try:
                module.load(cubin)
            except RuntimeError as error:  # CUDADriverError
                driver = self._runtime.driverGetVersion()
                raise XlcError(f"{self.name} ({self.arch}) does not load the code made for it: {error}. The driver knows CUDA "
                               f"{_dotted(driver)}; NVRTC must not be of a later major version: install a newer driver, or pip install "
                               f"nvidia-cuda-nvrtc-cu{driver // 1000} in place of nvidia-cuda-nvrtc") from error
        return LoadedModule(module)

    def launch(self, function: Function, grid: int, shared: int, argument: np.ndarray, cooperative: bool = False) -> None:
        """Start ``grid`` blocks with ``shared`` bytes of dynamic shared memory; ``argument`` is copied before this returns."""
        self.start(function, grid, shared, (by_value(argument),), cooperative)

    def start(self, function: Function, grid: int, shared: int, arguments: tuple[Any, ...], cooperative: bool = False) -> None:
        """``launch`` with several arguments: host arrays of one element each."""
        with self.here():
            self._allow(function, shared)
            function.handle((grid,), (THREADS,), arguments, shared_mem=shared, enable_cooperative_groups=cooperative)

    def _allow(self, function: Function, shared: int) -> None:
        """A function asks before it uses more than 48 KiB of dynamic shared memory."""
        if shared > function.shared:
            if shared > self.chip.shared_block:
                raise XlcError(f"{function.name} asks for {shared} bytes of shared memory; a block of {self.name} ({self.arch}) may have "
                               f"{self.chip.shared_block}")
            self._runtime.setDevice(self.number)  # gives a thread that is new to the device its context, which the driver's functions want
            self._driver.funcSetAttribute(function.handle.ptr, self._driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
            function.shared = shared

    def resident(self, function: Function, shared: int) -> int:
        """The most blocks that run at the same time: the grid of a cooperative launch."""
        with self.here():
            self._allow(function, shared)
            self._runtime.setDevice(self.number)
            each = int(self._driver.occupancyMaxActiveBlocksPerMultiprocessor(function.handle.ptr, THREADS, shared))
        if not each:
            raise XlcError(f"{function.name} with {shared} bytes of shared memory does not fit a multiprocessor of {self.name} "
                           f"({self.arch})")
        return self.chip.sms * each

    def replay(self, module: LoadedModule, nbytes: int, record: Record) -> Replay:
        """A plan as a CUDA graph: see ``Replay``."""
        from .replay import SET_TABLE, Replay

        return Replay(self, module.function(SET_TABLE), nbytes, record)

    # -------------------------------------------------------------------------------------------- memory

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array, C-contiguous, its values not set."""
        with self.here():
            try:
                return self.cupy.empty(shape, dtype)
            except (TypeError, ValueError) as error:
                raise XlcTypeError(f"CuPy {self.cupy.__version__} has no arrays of {np.dtype(dtype)}: {error}") from error

    def asarray(self, value: Any) -> Any:
        """This device's array of the value: itself; without a copy what another library holds on this device (``__dlpack__``,
        ``__cuda_array_interface__``); a copy of anything else."""
        if self.owns(value):
            return value
        with self.here():
            if hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) in _DLPACK_CUDA:
                return self._from_dlpack(value)
            if isinstance(value, self.cupy.ndarray) or hasattr(value, "__cuda_array_interface__"):
                return self.cupy.asarray(value)
            return self.cupy.asarray(np.asarray(value))

    def _from_dlpack(self, value: Any) -> Any:
        kind = str(getattr(value, "dtype", ""))
        if "bfloat16" in kind and int(self.cupy.__version__.split(".")[0]) < 14:  # which ends the process there (cupy issue 8801)
            raise XlcTypeError(f"CuPy {self.cupy.__version__} has no bfloat16: install cupy 14 or later")
        try:
            return self.cupy.from_dlpack(value)
        except (BufferError, TypeError, ValueError, NotImplementedError) as error:
            if hasattr(value, "__cuda_array_interface__") and "bfloat16" not in kind:  # such as memory that is not to be written
                return self.cupy.asarray(value)
            raise XlcTypeError(f"an argument of type {type(value).__name__}, {kind}, does not become a CuPy array: {error}") from error

    def copied(self, array: Any) -> Any:
        """A new C-contiguous array of the same values. Bits are copied: not every CuPy converts every dtype."""
        made, bits = self.empty(array.shape, array.dtype), f"u{array.dtype.itemsize}"
        with self.here():
            made.view(bits)[...] = array.view(bits)
        return made

    def numpy(self, array: Any) -> np.ndarray:
        """The values on the host. Waits for them."""
        return np.asarray(self.cupy.asnumpy(array))

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def capturing(self) -> bool:
        """Does the user capture the current stream as a graph?"""
        stream = self.cupy.cuda.get_current_stream(self.number)
        return stream.ptr not in LEGACY and bool(stream.is_capturing())

    def settle(self) -> None:
        """Wait for what the current stream has been given."""
        with self.here():
            self.cupy.cuda.get_current_stream().synchronize()

    def view(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Memory that something else keeps, as an array."""
        memory = self.cupy.cuda.UnownedMemory(address, int(np.prod(shape)) * dtype.itemsize, None, self.number)
        return self.cupy.ndarray(shape, dtype, self.cupy.cuda.MemoryPointer(memory, 0))

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """cuBLAS's product, through CuPy."""
        with self.here():
            self.cupy.matmul(a, b, out=out)

    def owns(self, value: Any) -> bool:
        """Is it an array of CuPy on this device?"""
        return isinstance(value, self.cupy.ndarray) and value.device.id == self.number

    def workspace(self, nbytes: int) -> Workspace:
        """That much memory, aligned to 256 bytes at least, for work on the current stream."""
        with self.here():
            return Workspace(self.cupy.cuda.alloc(nbytes))


def by_value(argument: np.ndarray) -> np.ndarray:
    """The bytes of an array of one dimension, in one piece, as one value: CuPy takes host arrays as arguments when they have a single
    element, of any size."""
    return argument if argument.size == 1 else argument.view(_bytes(argument.nbytes))


@functools.cache
def _bytes(count: int) -> np.dtype:
    return np.dtype((np.void, count))


# ------------------------------------------------------------------------------------------------ none at all

class AbsentDevice:
    """A chip that is compiled for and is not here. Whatever would run says so."""

    def __init__(self, arch: str):
        self.chip = chip(arch)
        self.arch, self.name = arch, f"cuda:{arch}"

    def __repr__(self) -> str:
        return f"<{self.name}, absent>"

    def owns(self, value: Any) -> bool:
        return False

    def _absent(self, *args: Any, **kwargs: Any) -> Any:
        raise XlcError(f"compiled for {self.arch}, which is not here: call the function on a machine with a GPU, without "
                       f"device='{self.name}' (or XLC_CUDA_ARCH); here, .asm of what compile returns has the source and the cubin")

    load = launch = resident = replay = empty = asarray = copied = numpy = address = workspace = capturing = settle = _absent


__all__ = ["LEGACY", "THREADS", "AbsentDevice", "CupyDevice", "Device", "Function", "LoadedModule", "Module", "Workspace", "by_value",
           "count", "current", "numbered", "owner"]
