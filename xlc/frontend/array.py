"""The traced value: what a function sees in place of an array while it is traced.

A ``Tracer`` wraps a Node. Operators, methods, NumPy's ufuncs and functions on it build further nodes:

    h = np.tanh(x @ w + b)          ->  %0 = dot(%x, %w) ...; %1 = broadcast(%b); %2 = add(%0, %1); %3 = tanh(%2)

It has the dtype and shape an array would have, and no values. A *weak* tracer stands for a Python scalar (NEP 50: it does not widen
arrays).

Views and in-place operators. A basic slice, a reshape, a transpose of a traced array shares a ``Storage`` with it, as a NumPy view would
share memory. ``h += b`` rebinds ``h`` to a new tracer and makes every other tracer of that storage stale: using one afterwards raises,
because in NumPy it would show the new values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from ..errors import XlcError, XlcIndexError, XlcTypeError, XlcValueError
from ..ir.node import Node, full
from ..ir.types import Dim, Type, bool_, dtype_of, f64, i64, u64
from .size import symbolic
from .table import call, full_name, implementation, serving, unsupported
from .trace import _local, as_array, describe, enclosed, mark


class Storage:
    """What would be one piece of memory in NumPy. ``owner`` says whose it is where that is not the traced function."""

    __slots__ = ("owner", "version")

    def __init__(self, owner: str = ""):
        self.owner, self.version = owner, 0


class Tracer:
    """A value while tracing. Made by ``wrap`` and ``lift``; ``node`` is what it stands for."""

    __slots__ = ("__weakref__", "_node", "_storage", "_trace", "_version", "_weak")
    _node: Node
    __hash__ = None  # type: ignore[assignment]  # as ndarray

    def __init__(self, node: Node, weak: bool = False, storage: Storage | None = None):
        self._node, self._weak, self._trace = node, weak, _local.trace
        self._storage, self._version = storage, storage.version if storage is not None else 0

    @property
    def node(self) -> Node:
        """The node, if the value may be used here and now."""
        if self._storage is not None and self._version != self._storage.version:
            raise XlcValueError(f"{self!r} shares memory with an array that was changed in place after it was made (x += ..., or a slice "
                                f"of it); in NumPy "
                                "it would show the change. Write x = x + ... where another name or a view still needs the old value, or "
                                "take the view "
                                "again after the change")
        if self._trace is not _local.trace:
            assert self._trace is not None
            return enclosed(self._trace, self._node)
        return self._node

    # ------------------------------------------------------------------ what is known while tracing

    @property
    def shape(self) -> tuple[Any, ...]:
        shape = self._node.type.shape
        return tuple([symbolic(s) for s in shape]) if any(type(s) is not int for s in shape) else shape

    @property
    def dtype(self) -> np.dtype:
        return self._node.type.dtype.numpy

    @property
    def ndim(self) -> int:
        return len(self._node.type.shape)

    @property
    def size(self) -> Any:
        return symbolic(self._node.type.size)

    @property
    def itemsize(self) -> int:
        return self._node.type.dtype.bytes

    @property
    def nbytes(self) -> Any:
        return symbolic(self._node.type.bytes)

    @property
    def device(self) -> str:
        return "cpu"

    def to_device(self, device: str, /, *, stream: Any = None) -> Tracer:
        if device != "cpu":
            raise XlcValueError(f"there is no device {device!r}; expected 'cpu'")
        return self

    @property
    def real(self) -> Tracer:
        return self

    @property
    def T(self) -> Tracer:
        return self.transpose()

    @property
    def mT(self) -> Tracer:
        return _named("matrix_transpose", self)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise XlcTypeError("len() of a 0-d traced value")
        size = self._node.type.shape[0]
        if isinstance(size, Dim):
            raise XlcTypeError(f"len() must be a number, and the size {size} is not known while tracing; x.shape[0] gives it as a "
                               f"symbolic size")
        return size

    def __iter__(self) -> Iterator[Tracer]:
        if self.ndim == 0:
            raise XlcTypeError("iteration over a 0-d traced value")
        size = self._node.type.shape[0]
        if isinstance(size, Dim):
            raise XlcTypeError(f"iteration over an axis of the symbolic size {size}; write it with array operations, or leave this axis "
                               f"out of dynamic=")
        return iter([self[i] for i in range(size)])

    def __repr__(self) -> str:
        loc = self._node.loc
        return f"<traced {'weak ' if self._weak else ''}{self._what()}{f' of {loc[0]}:{loc[1]}' if loc else ''}>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def _what(self) -> str:
        name = f"{self._node['name']}: " if self._node.op.name == "parameter" else ""
        return f"{name}{self._node.type}"

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        import xlc.numpy

        return xlc.numpy

    # ------------------------------------------------------------------ what is not known while tracing

    def _unknown(self, what: str, instead: str) -> NoReturn:
        self.node  # noqa: B018  (a leaked or stale tracer is the more specific error)
        made = f", made at {self._node.loc[0]}:{self._node.loc[1]}" if self._node.loc else ""
        raise XlcTypeError(f"{what} of a traced value ({self._what()}{made}): its value is not known while the function is traced. "
                           f"{instead}")

    def __bool__(self) -> bool:
        self._unknown("the truth value", "Python's if, while, and, or, not, assert, min and max cannot depend on it: choose values with "
                      "np.where(condition, a, b), combine conditions with & | ~, use np.minimum and np.maximum; if it is a setting "
                      "rather than data, "
                      "declare it with static_argnames=")

    def __int__(self) -> int:
        self._unknown("int()", "Use x.astype(int) to stay with arrays; if it is a setting (a size, a number of steps) rather than data, "
                               "declare it "
                      "with static_argnames=")

    def __index__(self) -> int:
        self._unknown("the integer value", "As an index into a traced array it works (x[i]); for an ordinary array write "
                                           "xlc.numpy.take(a, i, axis=0) with a "
                      "traced i; for a size, range() or a list index declare the argument with static_argnames=")

    def __float__(self) -> float:
        self._unknown("float()", "The functions of math (math.sin, ...) need a number: use NumPy's (np.sin, ...); x.astype(float) "
                                 "converts; if it is a "
                      "setting rather than data, declare it with static_argnames=. To write it into an ordinary array use "
                      "xlc.numpy.at(a, i).set(x)")

    __complex__ = __float__

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._unknown("np.asarray()", "Traced values inside a list become one array with np.stack([...]) or xlc.numpy.asarray([...]); a "
                                      "function "
                      "outside NumPy cannot be traced; to read or write an ordinary array at traced indices use xlc.numpy.take(a, i, "
                      "axis=0) and "
                      "xlc.numpy.at(a, i).set(value)")

    def item(self, *index: Any) -> NoReturn:
        self._unknown("item()", "Leave it an array (x[0], x.reshape(())); return it and call .item() on the result")

    def tolist(self) -> NoReturn:
        self._unknown("tolist()", "Return the array and convert the result")

    def __contains__(self, value: Any) -> bool:
        self._unknown("'in'", "Use np.any(x == value)")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise XlcTypeError("a traced array cannot be assigned to in place (x[index] = value); write x = xlc.numpy.at(x, "
                           "index).set(value), also "
                           ".add, .multiply, .min, .max; for a mask x = np.where(mask, value, x)")

    def _in_place(name: str, instead: str) -> Callable[..., NoReturn]:  # type: ignore[misc]
        def method(self: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
            raise XlcTypeError(f"x.{name}() changes a traced array in place; write {instead}")

        return method

    sort = _in_place("sort", "x = np.sort(x)")
    partition = _in_place("partition", "x = np.sort(x)")
    fill = _in_place("fill", "x = np.full_like(x, value)")
    put = _in_place("put", "x = xlc.numpy.at(x, index).set(value)")
    resize = _in_place("resize", "x = np.reshape(x, shape)")
    setflags = _in_place("setflags", "nothing: a traced array has no flags")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(np.ndarray, name):
            raise _MissingAttribute(unsupported(f"ndarray.{name}").message)
        raise _MissingAttribute(f"a traced array has no attribute {name!r} (nor has an array)")

    # ------------------------------------------------------------------ NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        mark()
        name, where = ufunc.__name__, kwargs.pop("where", True)
        (out, *others) = kwargs.pop("out", (None,))
        if others and any(o is not None for o in (out, *others)):
            raise XlcTypeError(f"np.{name}(..., out=(y, z)): traced arrays are not written in place; write y, z = np.{name}(...)")
        if isinstance(out, np.ndarray):
            raise XlcTypeError(f"np.{name} would write a traced value into an ordinary array (a += b, or out=a); write a = a + b, or "
                               "make a with xlc.numpy.zeros, np.zeros_like(x)")
        if out is None and where is not True:
            raise XlcTypeError(f"np.{name}(..., where=mask) leaves elements undefined; write np.where(mask, np.{name}(...), other)")
        if method != "__call__":
            if out is not None or where is not True:
                raise XlcTypeError(f"np.{name}.{method} with out= or where= is not supported on traced values; write y = "
                                   f"np.{name}.{method}(x)")
            return _ufunc_method(ufunc, method, inputs, kwargs)
        result = call(serving(ufunc), full_name(ufunc), inputs, kwargs)
        if out is None:
            return result
        if where is not True:
            result = implementation("where")(where, result, out)
        return _written(out, result, f"np.{name}(..., out=y)", f"y = np.{name}(...)")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        mark()
        return call(serving(func), full_name(func), args, kwargs)

    # ------------------------------------------------------------------ operators

    def _binary(name: str, swap: bool = False) -> Callable[[Any, Any], Any]:  # type: ignore[misc]
        def method(self: Tracer, other: Any) -> Any:
            mark()
            if getattr(type(other), "__array_ufunc__", self) is None:
                return NotImplemented
            return elementwise(name, other, self, python=True) if swap else elementwise(name, self, other, python=True)

        return method

    def _inplace(name: str) -> Callable[[Any, Any], Any]:  # type: ignore[misc]
        def method(self: Tracer, other: Any) -> Any:
            mark()
            return _update(self, name, other)

        return method

    __add__, __radd__, __iadd__ = _binary("add"), _binary("add", True), _inplace("add")
    __sub__, __rsub__, __isub__ = _binary("subtract"), _binary("subtract", True), _inplace("subtract")
    __mul__, __rmul__, __imul__ = _binary("multiply"), _binary("multiply", True), _inplace("multiply")
    __truediv__, __rtruediv__, __itruediv__ = _binary("divide"), _binary("divide", True), _inplace("divide")
    __floordiv__, __rfloordiv__, __ifloordiv__ = _binary("floor_divide"), _binary("floor_divide", True), _inplace("floor_divide")
    __mod__, __rmod__, __imod__ = _binary("remainder"), _binary("remainder", True), _inplace("remainder")
    __divmod__, __rdivmod__ = _binary("divmod"), _binary("divmod", True)
    __and__, __rand__, __iand__ = _binary("bitwise_and"), _binary("bitwise_and", True), _inplace("bitwise_and")
    __or__, __ror__, __ior__ = _binary("bitwise_or"), _binary("bitwise_or", True), _inplace("bitwise_or")
    __xor__, __rxor__, __ixor__ = _binary("bitwise_xor"), _binary("bitwise_xor", True), _inplace("bitwise_xor")
    __lshift__, __rlshift__, __ilshift__ = _binary("left_shift"), _binary("left_shift", True), _inplace("left_shift")
    __rshift__, __rrshift__, __irshift__ = _binary("right_shift"), _binary("right_shift", True), _inplace("right_shift")
    __lt__, __le__, __gt__, __ge__ = _binary("less"), _binary("less_equal"), _binary("greater"), _binary("greater_equal")
    __eq__, __ne__ = _binary("equal"), _binary("not_equal")
    __ipow__ = _inplace("power")

    def __pow__(self, other: Any) -> Any:
        mark()
        return power(self, other)

    def __rpow__(self, other: Any) -> Any:
        mark()
        return elementwise("power", other, self, python=True)

    def __matmul__(self, other: Any) -> Any:
        return _named("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _named("matmul", other, self)

    def __imatmul__(self, other: Any) -> Any:
        return _update(self, "matmul", other)

    def _unary(name: str) -> Callable[[Any], Any]:  # type: ignore[misc]
        def method(self: Tracer) -> Any:
            mark()
            return elementwise(name, self, python=True)

        return method

    __neg__, __pos__, __abs__, __invert__ = _unary("negative"), _unary("positive"), _unary("absolute"), _unary("invert")

    def __round__(self, digits: int | None = None) -> Any:
        return _named("round", self, digits or 0)

    def __getitem__(self, key: Any) -> Any:
        mark()
        return get_item(self, key)

    def __copy__(self) -> Tracer:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Tracer:
        return self.copy()

    # ------------------------------------------------------------------ methods whose arguments differ from the function's

    def reshape(self, *shape: Any, **kwargs: Any) -> Tracer:
        return _named("reshape", self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self, *axes: Any) -> Tracer:
        return _named("transpose", self, axes[0] if len(axes) == 1 else axes or None)

    def astype(self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True) -> Tracer:
        return _named("astype", self, dtype, copy=copy, casting=casting)

    def flatten(self, order: str = "C") -> Tracer:
        return _named("ravel", self, order).copy()

    def copy(self, order: str = "C") -> Tracer:
        return wrap(self.node, self._weak)

    def dot(self, other: Any) -> Tracer:
        return _named("dot", self, other)

    def view(self, dtype: Any = None, type: Any = None) -> Tracer:
        return _named("view", self, dtype)

    def conj(self) -> Tracer:
        return self

    conjugate = conj


class _MissingAttribute(XlcError, AttributeError):
    """An attribute that traced arrays do not have."""


def _named(name: str, *args: Any, **kwargs: Any) -> Any:
    mark()
    return call(implementation(name), name, args, kwargs)


def _method(name: str) -> Callable[..., Any]:
    def method(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        return _named(name, self, *args, **kwargs)

    method.__name__ = name
    return method


for _name in ["sum", "prod", "mean", "var", "std", "max", "min", "any", "all", "argmax", "argmin", "cumsum", "cumprod", "argsort",
              "searchsorted", "take", "repeat", "ravel", "squeeze", "swapaxes", "diagonal", "trace", "clip", "round", "nonzero", "ptp",
              "choose", "compress"]:
    if _name not in ("nonzero", "choose", "compress"):
        setattr(Tracer, _name, _method(_name))


# ------------------------------------------------------------------------------------------------ making and opening tracers


def wrap(node: Node, weak: bool = False, storage: Storage | None = None) -> Tracer:
    return Tracer(node, weak, storage)


def unwrap(x: Any) -> Node:
    """The node of a tracer or of anything that can become one."""
    return x.node if type(x) is Tracer else lift(x).node


def view_of(x: Tracer, node: Node) -> Tracer:
    """A tracer that shares memory with ``x`` in NumPy's eyes."""
    if x._storage is None:
        if x._weak:
            return Tracer(node)
        x._storage = Storage()
    return Tracer(node, False, x._storage)


def lift(x: Any) -> Tracer:
    """A tracer for a number (weak), an array (a constant), a symbolic size, or nested lists of these and of tracers."""
    kind = type(x)
    if kind is Tracer:
        x.node  # noqa: B018  (checks)
        return x
    if kind is bool:
        return Tracer(full(Type(bool_), x), True)
    if kind is int:
        if not -(1 << 63) <= x < 1 << 64:
            from ..errors import XlcOverflowError

            raise XlcOverflowError(f"the Python integer {x} does not fit 64 bits")
        return Tracer(full(Type(i64 if x < 1 << 63 else u64), x), x < 1 << 63)
    if kind is float:
        return Tracer(full(Type(f64), x), True)
    if isinstance(x, Dim):
        return Tracer(size_node(x), True)
    if isinstance(x, (list, tuple)) and _holds_tracers(x):
        return implementation("stack")([lift(v) for v in x])
    array = as_array(x)
    trace = _local.trace
    if trace is None:
        raise XlcTypeError("this function works on traced values, and no function is being traced on this thread")
    if array.ndim == 0:
        return Tracer(full(Type(dtype_of(array.dtype)), array[()]))
    return Tracer(trace.capture(array), False, Storage(f"a captured array of {array.dtype}{list(array.shape)}"))


def _holds_tracers(x: Any) -> bool:
    return any(isinstance(v, (Tracer, Dim)) or (isinstance(v, (list, tuple)) and _holds_tracers(v)) for v in x)


# ------------------------------------------------------------------------------------------------ operators that need more than one line


def power(x: Any, y: Any) -> Any:
    """``x ** y``. NumPy's operator (not np.power) computes small constant powers by multiplication, and so do we."""
    if type(x) is Tracer and x._node.dtype.kind == "b" and not x._weak and type(y) is int and y == 2:
        return elementwise("square", x)  # int8, where np.power(x, 2) is int64
    if type(x) is Tracer and type(y) in (int, float) and x._node.dtype.kind != "b":
        if x._weak and x._node.dtype.is_int and type(y) is int and y < 0:
            # a Python int to a negative power is a float
            return elementwise("power", elementwise("add", x, 0.0, python=True), y, python=True)
        result = dtype_of(loop_dtypes(np.power, (spec_of(x), type(y)))[-1])
        if result == x._node.dtype:
            match y:
                case 0 if not x._weak:
                    return wrap(full(x.node.type, 1))
                case 1:
                    return wrap(x.node, x._weak)
                case 2:
                    return elementwise("multiply", x, x, python=True)
                case 3 if result.bits >= 32:
                    return elementwise("multiply", elementwise("multiply", x, x, python=True), x, python=True)
                case 4 if result.bits >= 32:
                    square = elementwise("multiply", x, x, python=True)
                    return elementwise("multiply", square, square, python=True)
                case 0.5 if result.is_float:
                    return elementwise("sqrt", x, python=True)
                case -1 if result.is_float:
                    return elementwise("divide", 1.0 if x._weak else wrap(full(x.node.type, 1)), x, python=True)
    return elementwise("power", x, y, python=True)


def _update(x: Tracer, name: str, other: Any) -> Tracer:
    """``x <name>= other``: a new tracer for the same memory; older views of it become stale."""
    node = x.node
    operation = implementation("matmul") if name == "matmul" else power if name == "power" else None
    result = operation(x, other) if operation else elementwise(name, x, other, python=True)
    if x._weak or (node.rank == 0 and x._storage is None):
        return result  # Python and NumPy scalars are immutable: the name is bound to a new one
    symbol = _SYMBOLS[name]
    return _written(x, result, f"x {symbol}= ...", f"x = x {symbol} ...")


def _written(x: Tracer, result: Tracer, what: str, instead: str) -> Tracer:
    """``result`` in the memory of ``x``: a new tracer; every other tracer of that memory becomes stale."""
    node, out, storage = x.node, result.node, x._storage
    if storage is not None and storage.owner:
        raise XlcTypeError(f"{what} would write into {storage.owner}, which belongs to the caller; write {instead} (a compiled function "
                           "does not change its arguments; donate= lets it reuse their memory)")
    if not np.can_cast(out.dtype.numpy, node.dtype.numpy, "same_kind"):
        raise XlcTypeError(f"{what}: cannot cast the result from {out.dtype.numpy} to {node.dtype.numpy} with casting rule 'same_kind': "
                           f"an array that is updated in place keeps its dtype; write {instead}")
    if out.shape != node.shape:
        raise XlcValueError(f"{what}: non-broadcastable output operand with shape {show_shape(node.shape)} doesn't match the broadcast "
                            f"shape {show_shape(out.shape)}; write {instead}")
    if storage is None:
        storage = x._storage = Storage()
    storage.version += 1
    return Tracer(cast(out, node.dtype), False, storage)


_SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "floor_divide": "//", "remainder": "%", "power": "**",
            "matmul": "@",
            "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^", "left_shift": "<<", "right_shift": ">>"}
_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any",
               "logaddexp": "logsumexp"}
_ACCUMULATIONS = {"add": "cumsum", "multiply": "cumprod", "maximum": "cumulative_max", "minimum": "cumulative_min"}


def _ufunc_method(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``np.add.reduce`` and its like, where there is a function that does it."""
    name = ufunc.__name__
    if method == "reduce" and name in _REDUCTIONS:
        kwargs.setdefault("axis", 0)
        return _named(_REDUCTIONS[name], *inputs, **kwargs)
    if method == "accumulate" and name in _ACCUMULATIONS:
        kwargs.setdefault("axis", 0)
        return _named(_ACCUMULATIONS[name], *inputs, **kwargs)
    if method == "outer" and ufunc.nin == 2:
        x, y = (lift(v) for v in inputs)
        return elementwise(name, x[(...,) + (None,) * y.ndim], y, **kwargs)
    if method == "at":
        raise XlcTypeError(f"np.{name}.at changes a traced array in place; write x = xlc.numpy.at(x, index).add(values), also .multiply, "
                           f".min, .max, .set")
    raise unsupported(f"np.{name}.{method}")


def check_rank(x: Tracer, rank: int, what: str) -> None:
    if x.ndim < rank:
        raise XlcIndexError(f"{what} needs at least {rank} dimensions, found {describe(x)} of shape {show_shape(x._node.type.shape)}")


# Below: these modules need the class above.
from .elementwise import cast, elementwise, loop_dtypes, show_shape, size_node, spec_of  # noqa: E402
from .index import get_item  # noqa: E402
