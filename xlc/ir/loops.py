"""The Kernel: one loop nest over scalars and buffers.

    kernel k0(in x: f32[n], in y: f32[n], out z: f32[n]) sizes(n) {
      parallel i in 0..n step 64 {
        vector v in 0..min(n-i,64) width 64 {
          z[i+v] = add(multiply(x[i+v], 2.0), y[i+v])
        }
      }
    }

Expressions (``Expr``) are scalars: constants, loop variables (i64), named sizes (i64), loads, and elementwise operators. They are
hash-consed. Statements are ``Loop``, ``Store``, ``Let``, ``Local``, ``If``, ``Prefetch``, ``Mma`` and ``Wait``. Meaning is sequential,
whatever the kinds of the loops; a kind is a permission:

- ``serial``    in order.
- ``parallel``  iterations are independent; only as the single outermost statement. It is cut over threads in whole steps.
- ``vector``    start 0, at most ``width`` iterations, independent within each statement: lanes. A stop that is
                not the constant ``width`` masks the lanes from stop on. ``width`` may exceed a hardware vector: it is then several, whole
                ones first.
- ``unroll``    constant bounds; copied out.
- ``block``, ``thread``  for GPUs.
- ``async``     as vector, of one store of a load to shared memory: it may take effect as late as the next ``Wait`` that waits for it.

A ``Local`` buffer lives until the end of the enclosing body. space ``register``: small, all indices constant after unrolling and
vectorising (accumulators); space ``stack``: any index, at most a few KiB per thread, contents undefined at first.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from .op import Op, lookup, register
from .types import Dim, DType, Quotient, Size, bool_, evaluate, i64, product

CONST = register(Op("const", "input", 0, doc="a scalar literal; attribute value"))
VAR = register(Op("var", "input", 0, doc="a loop or Let variable; attribute name"))
SIZE = register(Op("size", "input", 0, doc="a named size (i64); attribute name"))
LOAD = register(Op("load", "input", None, doc="buffer[index...]; attributes buffer and masked; if masked, the last argument is the mask, "
                                              "and where it is false the value is 0 and memory is not touched"))


class Expr:
    """A scalar inside a Kernel. Equality is identity (hash-consed). ``free`` holds the names of the variables it reads."""

    __slots__ = ("__weakref__", "args", "attrs", "dtype", "free", "op")
    op: Op
    args: tuple[Expr, ...]
    attrs: tuple[tuple[str, Any], ...]
    dtype: DType
    free: frozenset[str]

    def __getitem__(self, attr: str) -> Any:
        for k, v in self.attrs:
            if k == attr:
                return v
        raise KeyError(attr)

    @property
    def value(self) -> Any:
        """The Python number of a constant."""
        return self["value"] if self.op is CONST else None

    @property
    def is_const(self) -> bool:
        return self.op is CONST

    def _binary(name: str, swap: bool = False) -> Callable[[Any, Any], Any]:  # type: ignore[misc]
        def method(self: Expr, other: Any) -> Expr:
            a, b = lift(self, other)
            return scalar_apply(lookup(name), (b, a) if swap else (a, b), {})

        return method

    __add__, __radd__ = _binary("add"), _binary("add", True)
    __sub__, __rsub__ = _binary("subtract"), _binary("subtract", True)
    __mul__, __rmul__ = _binary("multiply"), _binary("multiply", True)
    __truediv__, __rtruediv__ = _binary("divide"), _binary("divide", True)
    __floordiv__, __mod__ = _binary("floor_divide"), _binary("remainder")
    __and__, __or__, __xor__ = _binary("bitwise_and"), _binary("bitwise_or"), _binary("bitwise_xor")
    __rand__, __ror__, __rxor__ = _binary("bitwise_and", True), _binary("bitwise_or", True), _binary("bitwise_xor", True)
    __lshift__, __rshift__ = _binary("bitwise_left_shift"), _binary("bitwise_right_shift")
    __lt__, __le__, __gt__, __ge__ = _binary("less"), _binary("less_equal"), _binary("greater"), _binary("greater_equal")

    def __neg__(self) -> Expr:
        return scalar_apply(lookup("negative"), (self,), {})

    def __invert__(self) -> Expr:
        return scalar_apply(lookup("bitwise_not"), (self,), {})

    def equals(self, other: Any) -> Expr:
        """The comparison (``==`` on Exprs is identity)."""
        return scalar_apply(lookup("equal"), lift(self, other), {})

    def __repr__(self) -> str:
        from .text import print_expr

        return print_expr(self)


_interned: weakref.WeakValueDictionary[Any, Expr] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def expr(op: Op, args: Sequence[Expr], dtype: DType, attrs: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()) -> Expr:
    """The expression with these parts, interned; no inference, no simplification."""
    if type(attrs) is not tuple:
        attrs = tuple(sorted(attrs.items())) if isinstance(attrs, Mapping) else tuple(attrs)
    args = tuple(args)
    key = (op.name, args, dtype.name, attrs)
    with _lock:
        e = _interned.get(key)
        if e is None:
            e = Expr()
            e.op, e.args, e.dtype, e.attrs = op, args, dtype, attrs
            e.free = _free(op, args, attrs)
            _interned[key] = e
    return e


_NOTHING: frozenset[str] = frozenset()


def _free(op: Op, args: tuple[Expr, ...], attrs: tuple[tuple[str, Any], ...]) -> frozenset[str]:
    if op is VAR:
        return frozenset((attrs[0][1],))
    found = _NOTHING
    for a in args:
        if not a.free <= found:
            found = found | a.free if found else a.free
    return found


@lru_cache(1 << 12)
def _integer(value: int) -> Expr:
    return expr(CONST, (), i64, (("value", value),))


def const(value: Any, dtype: DType = i64) -> Expr:
    if dtype is i64:
        return _integer(int(value))
    if dtype.is_float:
        value = float(dtype.numpy.type(value))
        value = value if value == value and value != 0 else node._Bits(value)
    else:
        value = bool(value) if dtype is bool_ else int(value)
    return expr(CONST, (), dtype, (("value", value),))


def var(name: str, dtype: DType = i64) -> Expr:
    return expr(VAR, (), dtype, (("name", name),))


def size(s: Size) -> Expr:
    """A size as an i64 expression."""
    if not isinstance(s, Dim):
        return const(s)
    total: Expr = const(0)
    for monomial, c in s.terms:
        term = const(c)
        for atom, power in monomial:
            a = size(atom.numerator) // atom.denominator if isinstance(atom, Quotient) else expr(SIZE, (), i64, (("name", atom),))
            for _ in range(power):
                term = term * a
        total = total + term
    return total


def lift(a: Any, b: Any) -> tuple[Expr, Expr]:
    if isinstance(a, Expr):
        return a, b if isinstance(b, Expr) else const(b, a.dtype)
    return const(a, b.dtype), b


def load(buffer: Buffer, index: Sequence[Expr], mask: Expr | None = None) -> Expr:
    masked = mask is not None and not (mask.is_const and mask.value)
    args = (*index, mask) if masked and mask is not None else tuple(index)
    return expr(LOAD, args, buffer.dtype, (("buffer", buffer), ("masked", masked)))


def scalar_apply(op: Op, args: Sequence[Any], attrs: Mapping[str, Any]) -> Expr:
    """``op(*args)`` on scalars. Python numbers take the dtype of the first Expr (for ``where``: of the first value). i64 and bool
    arithmetic, which is what indices and masks are made of, is folded and simplified on the way (see ``ir.index``)."""
    values = [a for a in args if isinstance(a, Expr)]
    like = values[0].dtype
    if op.name == "where":
        like = next((a.dtype for a in args[1:] if isinstance(a, Expr)), like)
    full = [a if isinstance(a, Expr) else const(a, like) for a in args]
    dtype = op.scalar(*(a.dtype for a in full), **attrs) if op.scalar else full[0].dtype
    return index.simplified(op, tuple(full), dtype, attrs) or expr(op, full, dtype, attrs)


# ------------------------------------------------------------------------------------------------ statements


@dataclass(frozen=True)
class Buffer:
    """Memory of one dtype, dense and row-major. ``space`` is global (a kernel argument), register, stack, or shared (GPU)."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]
    space: str = "global"

    @property
    def size(self) -> Size:
        return product(self.shape)


@dataclass(frozen=True)
class Store:
    """buffer[index] = value, where ``mask`` (if any) is true."""

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr
    mask: Expr | None = None


@dataclass(frozen=True)
class Let:
    """Evaluate once, here; ``var(name, dtype)`` is the value from here to the end of the body."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Local:
    """Declare a local buffer for the rest of the body."""

    buffer: Buffer


@dataclass(frozen=True)
class If:
    """Branch on a scalar that no vector lane varies."""

    condition: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True)
class Loop:
    var: str
    start: Expr
    stop: Expr
    step: int
    kind: str
    body: tuple[Stmt, ...]
    width: int = 0


@dataclass(frozen=True)
class Prefetch:
    """A hint: the element ``distance`` elements after buffer[index] (which need not exist) will be read soon. It has no effect on
    values."""

    buffer: Buffer
    index: tuple[Expr, ...]
    distance: int = 0


@dataclass(frozen=True)
class Mma:
    """acc[thread, e] += (sum over k of a[row, k] * b[k, column]), for each element e that the thread owns of a tile of ``shape`` (rows,
    columns, contracted): the part of this thread in what the threads of a ``group`` do together on tensor cores: those of a warp (32), or
    of four (128). With lane = thread % 32, element ((i*columns/8 + j)*2 + h)*2 + w is at row i*16 + h*8 + lane//4, column j*8 + lane%4*2
    + w (PTX ISA, mma.m16n8k16); of four warps, each has 16 of 64 rows: i*64 + thread//32%4*16 + h*8 + lane//4 (wgmma.m64nNk16).

    ``a`` and ``b`` lie in shared memory: (row, k) of a at a_at + place(row, k, a_steps), (k, column) of b at b_at + place(column, k,
    b_steps). Four warps take panels (three steps). A left operand of halves may be in registers, where it lies as a result does: (row, k)
    at ((i*contracted/8 + k//8)*2 + h)*2 + w, in the lane that has that row and k%8 as its column, since an earlier loop over threads.
    Halves are multiplied exactly; f32 is rounded to tf32 (``products`` = 1), or its three largest partial products are summed (3).

    What four warps do may be done later: until a ``Wait`` for it, nothing may touch ``acc``, or write what is read."""

    acc: Buffer
    thread: Expr
    a: Buffer
    a_at: Expr
    a_steps: tuple[int, ...]
    b: Buffer
    b_at: Expr
    b_steps: tuple[int, ...]
    shape: tuple[int, int, int]
    products: int = 1
    group: int = 32


def place(row: Any, k: Any, steps: Sequence[int]) -> Any:
    """Where an element of a tile lies: at row*steps[0] + k*steps[1]. With a third step, in panels of 64 elements along the direction whose
    step is 1, that many elements apart; the other step is 64. Of each eight rows of a panel, which are 128 bytes each, the pieces of 16
    bytes are exchanged, piece p of row r being at p ^ r, so that those of a column lie in different banks (PTX ISA, 128-byte swizzling)."""
    if len(steps) == 2:
        return row * steps[0] + k * steps[1]
    along, other = (row, k) if steps[0] == 1 else (k, row)
    return along // 64 * steps[2] + other * 64 + (along // 8 % 8 ^ other % 8) * 8 + along % 8


@dataclass(frozen=True)
class Wait:
    """Until the ``async`` stores have taken effect that each thread made, but for those in the last ``left`` loops over threads that hold
    such; of ``products``, until each ``Mma`` of four warps is done that the thread takes part in, but for the last ``left``: that may stand
    inside of a loop over threads too. It has no effect on values."""

    left: int
    products: bool = False


Stmt = Store | Let | Local | If | Loop | Prefetch | Mma | Wait


@dataclass(frozen=True)
class Kernel:
    """One loop nest. Inputs are never written; ``inplace`` lists (output, input) pairs of positions that may share memory, because each
    iteration of the outermost loop has read all it needs of that input's part before it writes that part of the output.
    ``streaming`` lists the outputs (positions) that are best written past the caches: a hint, without effect on values."""

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    sizes: tuple[str, ...]
    body: tuple[Stmt, ...]
    inplace: tuple[tuple[int, int], ...] = ()
    note: str = field(default="", compare=False)  # what it computes, for people
    streaming: tuple[int, ...] = ()
    library: tuple[str | int, ...] = ()  # a function, and its settings, that does the same where the backend has it

    @property
    def loops(self) -> str:
        """The loop nest as text."""
        return str(self)

    def __str__(self) -> str:
        from .text import print_kernel

        return print_kernel(self)

    __repr__ = __str__

    def with_body(self, *body: Stmt) -> Kernel:
        return replace(self, body=tuple(body))


def statements(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Every statement, outer before inner, in program order."""
    for s in body:
        yield s
        if isinstance(s, Loop):
            yield from statements(s.body)
        elif isinstance(s, If):
            yield from statements(s.body)
            yield from statements(s.orelse)


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions that a statement itself evaluates."""
    match s:
        case Store():
            return (*s.index, s.value, *((s.mask,) if s.mask is not None else ()))
        case Let():
            return (s.value,)
        case Prefetch():
            return s.index
        case Mma():
            return s.thread, s.a_at, s.b_at
        case If():
            return (s.condition,)
        case Loop():
            return (s.start, s.stop)
    return ()


def walk(*roots: Expr) -> list[Expr]:
    """Every distinct expression below the roots, arguments first."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack = list(reversed(roots))
    while stack:
        e = stack[-1]
        if e in seen:
            stack.pop()
            continue
        pending = [a for a in e.args if a not in seen]
        if pending:
            pending.reverse()
            stack.extend(pending)
        else:
            seen.add(e)
            order.append(e)
            stack.pop()
    return order


def substitute(e: Expr, replacement: Mapping[Expr, Expr], memo: dict[Expr, Expr] | None = None) -> Expr:
    """The expression with some subexpressions replaced (simplified on the way up). ``memo`` may be shared between calls with one
    replacement."""
    memo = {} if memo is None else memo
    variables = frozenset(k["name"] for k in replacement) if all(k.op is VAR for k in replacement) else None

    def untouched(x: Expr) -> bool:
        return variables is not None and x.free.isdisjoint(variables)

    if untouched(e):
        return e
    stack = [e]
    while stack:
        x = stack[-1]
        if x in memo:
            stack.pop()
        elif x in replacement:
            memo[x] = replacement[x]
            stack.pop()
        else:
            pending = [a for a in x.args if a not in memo and not untouched(a)]
            if pending:
                stack.extend(pending)
                continue
            args = tuple([memo.get(a, a) for a in x.args])
            memo[x] = x if args == x.args else expr(x.op, args, x.dtype, x.attrs) if x.op.kind == "input" \
                else scalar_apply(x.op, args, dict(x.attrs))
            stack.pop()
    return memo[e]


from . import index, node  # noqa: E402  (they need Expr; the names are used in functions)

__all__ = ["CONST", "LOAD", "SIZE", "VAR", "Buffer", "Expr", "If", "Kernel", "Let", "Local", "Loop", "Mma", "Prefetch", "Stmt", "Store",
           "Wait", "const", "evaluate", "expr", "expressions", "load", "place", "size", "statements", "substitute", "var", "walk"]
