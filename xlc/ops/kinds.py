"""What operators of one kind have in common. A declaration elsewhere in this folder states only what differs.

    asinh = elementwise("asinh", np.arcsinh, FLOATS, vjp=lambda g, y, x: [g * rsqrt(x * x + 1)], decompose=vecmath.asinh)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xlc.errors import XlcTypeError, XlcValueError
from xlc.ir.loops import Expr, const
from xlc.ir.op import Monoid, Op, lookup, register
from xlc.ir.types import DTYPES, DType, Type, bf16, bool_, f16, f32, f64

FLOATS = tuple(d for d in DTYPES.values() if d.is_float)
INTS = tuple(d for d in DTYPES.values() if d.is_int)
NUMBERS = INTS + FLOATS
ALL = (bool_, *NUMBERS)
LOGICAL = (bool_, *INTS)


def is_half(d: DType) -> bool:
    return d.is_float and d.bits == 16


def rounded(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """NumPy's astype between floats, rounding once. (ml_dtypes narrows f64 to bf16 through f32, rounding twice: here f32 is rounded to
    odd.)"""
    if dtype.kind != "V" or x.dtype.kind != "f" or x.dtype.itemsize <= 4:
        return x.astype(dtype)
    near = x.astype(np.float32)
    back = near.astype(x.dtype)
    toward_zero = near.view(np.uint32) - (np.abs(back) > np.abs(x)).astype(np.uint32)
    odd = np.where((back != x) & np.isfinite(x), toward_zero | np.uint32(1), near.view(np.uint32))
    return odd.view(np.float32).astype(dtype)


def _widened(numpy: Callable[..., Any], exact: bool) -> Callable[..., Any]:
    """The oracle: halves in f32 where that is exact enough, everything inexact in f64, rounded once."""

    def compute(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        dtype = next((a.dtype for a in arrays if a.dtype.kind != "b"), arrays[0].dtype)
        half = dtype.itemsize == 2 and dtype.kind in "fV"
        with np.errstate(all="ignore"):
            if half or (dtype == np.float32 and not exact):
                wide = np.float32 if half and exact else np.float64
                out = np.asarray(numpy(*(a if a.dtype.kind == "b" else a.astype(wide) for a in arrays), **attrs))
                return out if out.dtype.kind == "b" else rounded(out, dtype)
            return np.asarray(numpy(*arrays, **attrs))

    return compute


def _lowered(decompose: Callable[..., Any], exact: bool, arity: int, ties: Mapping[float, float] | None) -> Callable[..., Any]:
    """A decomposition written for f32 and f64 serves the halves too: through f32 where that is exact, else through f64, rounded once.

    A result of f32 that is off by 1 ulp rounds to the right half unless it lies next to a tie. Of a function of one bf16 none does, and
    of one f16 a few do, which are ``ties`` where they are known (a test goes through all 2^16 arguments of either)."""

    def scalar(*args: Expr, **attrs: Any) -> Any:
        from .scalar import cast

        if not isinstance(args[0], Expr) or not is_half(args[0].dtype):
            return decompose(*args, **attrs)
        dtype = args[0].dtype
        through = exact or arity == 1 and (dtype is bf16 or ties is not None)
        wide = f32 if through else f64
        out = decompose(*(cast(a, dtype=wide) if is_half(a.dtype) else a for a in args), **attrs)
        out = cast(out, dtype=dtype) if out.dtype is wide else out
        for x, y in (ties or {}).items() if dtype is f16 else ():
            out = lookup("where")(lookup("equal")(args[0], const(x, f16)), const(y, f16), out)
        return out

    return scalar


def elementwise(name: str, numpy: Callable[..., Any], dtypes: Sequence[DType] = NUMBERS, *, arity: int = 1, result: DType | None = None,
                vjp: Callable[..., Any] | None = None, decompose: Callable[..., Any] | None = None, exact: bool = False, raw: bool = False,
                ties: Mapping[float, float] | None = None, samples: Sequence[tuple[float, float]] = (), doc: str = "") -> Op:
    """An operator on scalars of one dtype, applied at every position. ``raw``: the decomposition handles every dtype itself. ``ties``: the
    f16 for which its f32 result rounds to the wrong f16, with the right one."""
    allowed = tuple(dtypes)

    def infer(*types: Type) -> Type:
        if len(types) != arity:
            raise XlcTypeError(f"{name} takes {arity} argument{'s' * (arity > 1)}, not {len(types)}")
        first = types[0]
        for t in types[1:]:
            if t != first:
                raise XlcTypeError(f"{name} needs arguments of one type inside a graph; found {first} and {t} (insert cast or broadcast)")
        if first.dtype not in allowed:
            raise XlcTypeError(f"{name} is not defined on {first.dtype}; it takes {', '.join(map(str, allowed))}")
        return first if result is None else first.with_dtype(result)

    def scalar(*args: DType) -> DType:
        return args[0] if result is None else result

    lowered = decompose if decompose is None or raw else _lowered(decompose, exact, arity, ties)
    return register(Op(name, "elementwise", arity, infer, _widened(numpy, exact), scalar, vjp=vjp, decompose=lowered, dtypes=allowed,
                       samples=tuple(samples) or ((-4.0, 4.0),) * arity, exact=exact, doc=doc))


def view(name: str, infer: Callable[..., Type], numpy: Callable[..., Any], pull: Callable[..., Any], *, arity: int | None = 1,
         vjp: Callable[..., Any] | None = None, jvp: Callable[..., Any] | None = None, batch: Callable[..., Any] | None = None,
         kind: str = "view", operands: int | None = None, doc: str = "") -> Op:
    """An operator that moves elements: ``pull`` says where each comes from."""
    return register(Op(name, kind, arity, infer, numpy, pull=pull, vjp=vjp, jvp=jvp, batch=batch, operands=operands, dtypes=ALL, exact=True,
                       doc=doc))


def float_type(x: Type, **attrs: Any) -> Type:
    """The type rule of an operator from floats to floats of the same shape."""
    if not x.dtype.is_float:
        raise XlcTypeError(f"a float array is needed, not {x}")
    return x


def check_axes(name: str, axes: Sequence[int], rank: int) -> None:
    if len(set(axes)) != len(axes) or any(not 0 <= a < rank for a in axes) or list(axes) != sorted(axes):
        raise XlcValueError(f"{name}: axes {tuple(axes)} must be distinct, ascending and below the rank {rank}")


def up(axes: Sequence[int]) -> tuple[int, ...]:
    """Axes, once there is one more dimension in front."""
    return tuple(a + 1 for a in axes)


def reduction(name: str, numpy: Callable[..., Any], monoid: Monoid, dtypes: Sequence[DType] = NUMBERS, *, result: DType | None = None,
              vjp: Callable[..., Any] | None = None, exact: bool = False, doc: str = "") -> Op:
    """All elements along ``axes`` become one. ``numpy(x, axes)`` is the oracle."""

    def infer(x: Type, *, axes: tuple[int, ...]) -> Type:
        check_axes(name, axes, x.rank)
        if x.dtype not in dtypes:
            raise XlcTypeError(f"{name} is not defined on {x.dtype}; it takes {', '.join(map(str, dtypes))}")
        kept = tuple(s for d, s in enumerate(x.shape) if d not in axes)
        return Type(result or x.dtype, kept)

    def oracle(x: np.ndarray, *, axes: tuple[int, ...]) -> np.ndarray:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64) if x.dtype.kind in "fV" and not exact else x
            out = np.asarray(numpy(wide, axes))
        return out.astype(result.numpy) if result else rounded(out, x.dtype)

    return register(Op(name, "reduction", 1, infer, oracle, monoid=monoid, vjp=vjp, dtypes=tuple(dtypes), exact=exact, doc=doc))


def composite(name: str, infer: Callable[..., Type], decompose: Callable[..., Any], *, arity: int | None = 1,
              vjp: Callable[..., Any] | None = None, batch: Callable[..., Any] | None = None, dtypes: Sequence[DType] = FLOATS,
              doc: str = "") -> Op:
    """An operator that stays one node until the pass ``decompose``; differentiated, and mapped by vmap where it has no ``batch``, through
    its decomposition. Its oracle is the decomposition, interpreted in f64."""

    def oracle(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        from xlc.ir.interp import interpret
        from xlc.ir.node import Graph, parameter
        from xlc.ir.types import dtype_of

        wide = [a.astype(np.float64) if dtype_of(a.dtype).is_float else a for a in arrays]
        params = [parameter(Type(dtype_of(a.dtype), a.shape), f"x{k}", k) for k, a in enumerate(wide)]
        out = infer(*(Type(dtype_of(a.dtype), a.shape) for a in arrays), **attrs)
        graph = Graph(tuple(params), (decompose(*params, **attrs),))
        return np.asarray(interpret(graph, *wide)[0]).astype(out.dtype.numpy)

    return register(Op(name, "composite", arity, infer, oracle, vjp=vjp, batch=batch, decompose=decompose, dtypes=tuple(dtypes), doc=doc))
