"""Where the arguments of a call live, which decides where it is compiled for.

    device_of(numpy array) -> None        device_of(cupy array on GPU 1) -> "cuda:1"        device_of(a torch tensor there) -> "cuda:1"

CuPy is not imported here: an array of it exists only where it has been.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import config
from ..errors import XlcTypeError
from .tree import flatten

_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
_NUMBERS = (bool, int, float)
_HOST = (np.ndarray, np.generic, bool, int, float)


def device_of(value: Any) -> str | None:
    """The device of an array on a GPU; None of anything else."""
    kind = type(value)
    if kind in _HOST or not (hasattr(kind, "__cuda_array_interface__") or hasattr(kind, "__dlpack_device__")):
        return None
    if kind.__module__.partition(".")[0] == "cupy":
        return f"cuda:{value.device.id}"
    if not hasattr(kind, "__dlpack_device__"):
        return "cuda"
    family, number = value.__dlpack_device__()
    return f"cuda:{number}" if family in _DLPACK_CUDA else None


def common_device(wanted: str | None, leaves: Sequence[Any], where: Sequence[str], name: str) -> str | None:
    """Where a call runs: ``wanted``, or where its arrays are. Arrays that lie in two places are an error; numbers and host arrays
    of no dimension go anywhere, and other host arrays to the device that is asked for by name."""
    found = [(device, path) for leaf, path in zip(leaves, where, strict=True) if (device := device_of(leaf)) is not None]
    if not found:
        return wanted
    device, path = found[0]
    for other, elsewhere in found[1:]:
        if other != device:
            raise XlcTypeError(f"{name}(): the argument {path} is on {device} and {elsewhere} is on {other}; move them to one device")
    if wanted is None:
        host = next((p for leaf, p in zip(leaves, where, strict=True) if isinstance(leaf, np.ndarray) and leaf.ndim), None)
        if host is not None:
            raise XlcTypeError(f"{name}(): the argument {path} is on {device} and {host} is a NumPy array; move one of them "
                               f"(cupy.asarray, cupy.asnumpy), or say where to run: jit(device=\"cuda\") copies NumPy arrays to the GPU")
        return device
    family = wanted.partition(":")[0]
    if family == "cpu" or (family == "cuda" and wanted not in ("cuda", device) and not wanted.startswith("cuda:sm_")):
        raise XlcTypeError(f"{name}(): the argument {path} is on {device}, and the function is compiled for {wanted}; move the argument")
    return device if wanted == "cuda" and not config.cuda_arch else wanted


def call_key(args: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The leaves of a call by position, and what tells it from calls that run another program; None of a call that only the long way can
    judge."""
    leaves, tree = flatten(args)
    parts: list[Any] = [tree, config.key()]
    for v in leaves:
        kind = type(v)
        parts.append(kind)
        if kind not in _NUMBERS:
            try:
                parts += (v.dtype, v.shape, getattr(v.device, "id", v.device))
            except AttributeError:
                return leaves, None
    return leaves, tuple(parts)


def to_host(value: Any) -> Any:
    """The values of a device's array, waited for, as a NumPy array; anything else as it is."""
    return value.get() if device_of(value) is not None and hasattr(value, "get") else value


class OnDevice:
    """An array on a device, as the front end sees it: its type."""

    __slots__ = ("dtype", "shape")

    def __init__(self, value: Any):
        self.shape = tuple(int(n) for n in value.shape)
        try:
            self.dtype = value.dtype if isinstance(value.dtype, np.dtype) else np.dtype(str(value.dtype).rpartition(".")[2])
        except TypeError:
            raise XlcTypeError(f"{type(value).__name__} of dtype {value.dtype} is no array that xlc computes with") from None


__all__ = ["OnDevice", "call_key", "common_device", "device_of", "to_host"]
