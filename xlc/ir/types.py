"""What a value is: its element type, its sizes, known or named.

    f32[64,784]        a matrix            Type(f32, (64, 784))
    f32[batch,784]     a named size        Type(f32, (Dim.named("batch"), 784))
    i64[]              a scalar            Type(i64, ())

A size is an ``int`` or a ``Dim``: a polynomial with integer coefficients over named sizes (and floor quotients of
such polynomials). Arithmetic on sizes gives an ``int`` again whenever the result is constant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["DTYPES", "DType", "Dim", "Size", "Type", "bf16", "bool_", "dtype_of", "evaluate", "f16", "f32", "f64",
           "i8", "i16", "i32", "i64", "parse_size", "product", "u8", "u16", "u32", "u64"]


@dataclass(frozen=True)
class DType:
    """An element type. ``kind`` is one of b(ool), i(nt), u(nsigned), f(loat); ``bits`` is its width in memory."""

    name: str
    kind: str
    bits: int
    numpy: np.dtype

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        return self.kind in "iu"

    @property
    def signed(self) -> bool:
        return self.kind in "if"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, DType) and self.name == other.name)


bool_ = DType("bool", "b", 8, np.dtype(np.bool_))
i8, i16, i32, i64 = (DType(f"i{b}", "i", b, np.dtype(f"int{b}")) for b in (8, 16, 32, 64))
u8, u16, u32, u64 = (DType(f"u{b}", "u", b, np.dtype(f"uint{b}")) for b in (8, 16, 32, 64))
f16, f32, f64 = (DType(f"f{b}", "f", b, np.dtype(f"float{b}")) for b in (16, 32, 64))
bf16 = DType("bf16", "f", 16, np.dtype(ml_dtypes.bfloat16))
DTYPES = {d.name: d for d in (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64)}
_BY_NUMPY = {d.numpy: d for d in DTYPES.values()}


def dtype_of(value: Any) -> DType:
    """The DType of a DType, a NumPy dtype or anything ``np.dtype`` accepts. TypeError for what xlc does not compute with. A text means
    what it means to NumPy (``"i8"`` is int64), and else one of ``DTYPES`` (``"f32"``)."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value == "bfloat16":
        return bf16
    try:
        dtype = np.dtype(value)
    except TypeError:
        if isinstance(value, str) and value in DTYPES:
            return DTYPES[value]
        raise
    found = _BY_NUMPY.get(dtype.newbyteorder("=")) if dtype.kind not in "OSUVMmc" or dtype == bf16.numpy else None
    if found is None:
        raise TypeError(f"dtype {dtype} is not supported; xlc computes with {', '.join(DTYPES)}")
    return found


# ------------------------------------------------------------------------------------------------ sizes


Monomial = tuple[tuple[Any, int], ...]  # sorted ((atom, power), ...); an atom is a name or a Quotient


@dataclass(frozen=True)
class Quotient:
    """floor(numerator / denominator), where it does not divide exactly: an atom of a Dim."""

    numerator: Dim
    denominator: int

    def __str__(self) -> str:
        return f"(({self.numerator})//{self.denominator})"


class Dim:
    """A polynomial over named sizes, each of which is an integer of at least 0. Immutable, hashable, prints and parses back."""

    __slots__ = ("_hash", "terms")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms = tuple(sorted(((m, c) for m, c in terms.items() if c), key=lambda t: str(t[0])))
        self._hash = hash(self.terms)

    @staticmethod
    def named(name: str) -> Dim:
        if not name.isidentifier():
            raise ValueError(f"a named size must be an identifier, not {name!r}")
        return Dim({((name, 1),): 1})

    @staticmethod
    def _simplest(terms: Mapping[Monomial, int]) -> Size:
        live = {m: c for m, c in terms.items() if c}
        if not live:
            return 0
        if len(live) == 1 and () in live:
            return live[()]
        return Dim(live)

    def __add__(self, other: Size) -> Size:
        out = dict(self.terms)
        for m, c in _terms(other):
            out[m] = out.get(m, 0) + c
        return Dim._simplest(out)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return Dim({m: -c for m, c in self.terms})

    def __sub__(self, other: Size) -> Size:
        return self + (-other)

    def __rsub__(self, other: Size) -> Size:
        return -self + other

    def __mul__(self, other: Size) -> Size:
        out: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                powers = dict(m1)
                for atom, p in m2:
                    powers[atom] = powers.get(atom, 0) + p
                m = tuple(sorted(powers.items(), key=str))
                out[m] = out.get(m, 0) + c1 * c2
        return Dim._simplest(out)

    __rmul__ = __mul__

    def divide(self, other: Size) -> Size | None:
        """The exact quotient, or None where ``other`` does not divide this polynomial for every value of its names."""
        divisor = list(_terms(other))
        if len(divisor) != 1:
            return 1 if self == other else None
        (dm, dc), out = divisor[0], {}
        for m, c in self.terms:
            powers = dict(m)
            for atom, p in dm:
                powers[atom] = powers.get(atom, 0) - p
            if c % dc or any(p < 0 for p in powers.values()):
                return None
            out[tuple((a, p) for a, p in powers.items() if p)] = c // dc
        return Dim._simplest(out)

    def __floordiv__(self, other: Size) -> Size:
        exact = self.divide(other)
        if exact is not None:
            return exact
        if isinstance(other, int) and other > 0:
            return Dim({((Quotient(self, other), 1),): 1})
        raise ValueError(f"cannot divide the symbolic size {self} by {other}")

    def __mod__(self, other: Size) -> Size:
        return self - (self // other) * other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __index__(self) -> int:
        raise TypeError(f"the size {self} is symbolic: its value is not known while the function is traced")

    @property
    def names(self) -> frozenset[str]:
        found: set[str] = set()
        for m, _ in self.terms:
            for atom, _p in m:
                found |= {atom} if isinstance(atom, str) else atom.numerator.names
        return frozenset(found)

    def evaluate(self, env: Mapping[str, int]) -> int:
        total = 0
        for m, c in self.terms:
            for atom, p in m:
                value = env[atom] if isinstance(atom, str) else atom.numerator.evaluate(env) // atom.denominator
                c *= value**p
            total += c
        return total

    def __str__(self) -> str:
        def term(m: Monomial, c: int) -> str:
            factors = [str(a) if p == 1 else f"{a}**{p}" for a, p in m]
            return "*".join(([str(c)] if c != 1 or not m else []) + factors)

        return "+".join(term(m, c) for m, c in self.terms).replace("+-", "-")

    __repr__ = __str__


Size = int | Dim


def _terms(size: Size) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def evaluate(size: Size, env: Mapping[str, int]) -> int:
    return size.evaluate(env) if isinstance(size, Dim) else size


def product(sizes: Iterable[Size]) -> Size:
    out: Size = 1
    for s in sizes:
        out = s * out
    return out


def parse_size(text: str) -> Size:
    """The inverse of ``str`` on a size: integers, names, ``+ - * // **`` and parentheses. Nothing is evaluated as code."""

    def walk(node: ast.expr) -> Size:
        match node:
            case ast.Constant(value=int(v)):
                return v
            case ast.Name(id=name):
                return Dim.named(name)
            case ast.UnaryOp(op=ast.USub(), operand=x):
                return -walk(x)
            case ast.BinOp(left=a, op=ast.Add(), right=b):
                return walk(a) + walk(b)
            case ast.BinOp(left=a, op=ast.Sub(), right=b):
                return walk(a) - walk(b)
            case ast.BinOp(left=a, op=ast.Mult(), right=b):
                return walk(a) * walk(b)
            case ast.BinOp(left=a, op=ast.FloorDiv(), right=b):
                return walk(a) // walk(b)  # type: ignore[operator]
            case ast.BinOp(left=a, op=ast.Pow(), right=ast.Constant(value=int(p))):
                return product([walk(a)] * p)
        raise ValueError(f"not a size: {text!r}")

    return walk(ast.parse(text, mode="eval").body)


# ------------------------------------------------------------------------------------------------ types


@dataclass(frozen=True)
class Type:
    """The type of one tensor: dtype and shape. Always dense and row-major; another layout is another shape."""

    dtype: DType
    shape: tuple[Size, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @cached_property
    def size(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def bytes(self) -> Size:
        return self.size * self.dtype.bytes

    @property
    def is_static(self) -> bool:
        return all(isinstance(s, int) for s in self.shape)

    @property
    def names(self) -> frozenset[str]:
        return frozenset().union(*(s.names for s in self.shape if isinstance(s, Dim)))

    @cached_property
    def _hash(self) -> int:
        return hash((self.dtype.name, self.shape))

    def __hash__(self) -> int:
        return self._hash

    def with_shape(self, shape: Iterable[Size]) -> Type:
        return Type(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> Type:
        return Type(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    __repr__ = __str__

    @staticmethod
    def parse(text: str) -> Type:
        name, _, rest = text.strip().partition("[")
        inside = rest.rstrip("]").strip()
        return Type(DTYPES[name], tuple(parse_size(s) for s in inside.split(",")) if inside else ())
