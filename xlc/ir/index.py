"""Index arithmetic: what is known about i64 expressions made of loop variables, sizes and constants.

An index is kept as a polynomial over *atoms* (variables, sizes, and whatever is not polynomial: quotients, loads), so that equal
addresses are the same object and the lane coefficient of an address can be read off:

    simplified:  (i*4 + j) // 4  ->  i        when 0 <= j < 4 is known (``ranges``)
                 4*(t//4) + t%4  ->  t
    coefficient: of v in  i*64 + 2*v + 3   is 2

Sums and products of integers wrap, so these rewrites are exact for 64-bit data as well; quotients are simplified only on proven ranges.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

from . import loops
from .op import Op, lookup
from .types import bool_, i64

if TYPE_CHECKING:
    from .loops import Expr

Polynomial = dict[tuple["Expr", ...], int]  # monomial (sorted atoms) -> coefficient; () is the constant
_MAX_TERMS = 48
_MAX_DEGREE = 8
_context = threading.local()
_polynomials: weakref.WeakKeyDictionary[Any, Polynomial] = weakref.WeakKeyDictionary()
_keys: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


@contextmanager
def ranges(known: Mapping[Expr, Expr]) -> Iterator[None]:
    """Inside, each of these variables is known to lie in 0 <= v < extent."""
    previous = getattr(_context, "ranges", {})
    _context.ranges = {**previous, **known}
    try:
        yield
    finally:
        _context.ranges = previous


def _extent(e: Expr) -> Expr | None:
    return getattr(_context, "ranges", {}).get(e)


def _key(e: Expr) -> str:
    """A text that orders atoms the same way in every process."""
    text = _keys.get(e)
    stack = [e] if text is None else []
    while stack:  # not recursive: data of 64 bits can be an arbitrarily deep expression
        x = stack[-1]
        missing = [a for a in x.args if a not in _keys]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        parts = [x.op.name, *(f"{k}={getattr(v, 'name', v)}" for k, v in x.attrs), *(_keys[a] for a in x.args)]
        text = "(" + " ".join(map(str, parts)) + ")"
        if len(text) > 400:
            text = text[:300] + f"#{hash_text(text)}"
        _keys[x] = text
    return text  # type: ignore[return-value]


def hash_text(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]


def polynomial(e: Expr) -> Polynomial:
    """The polynomial that an i64 expression is (itself an atom, where it is nothing better)."""
    p = _polynomials.get(e)
    if p is None:
        name = e.op.name
        if e.is_const:
            p = {(): e.value} if e.value else {}
        elif name in ("add", "subtract", "multiply") and e.dtype is i64:
            joined = _arith(name, polynomial(e.args[0]), polynomial(e.args[1]))
            p = {(e,): 1} if joined is None else joined
        else:
            p = {(e,): 1}
        _polynomials[e] = p
    return p


def _arith(name: str, a: Polynomial, b: Polynomial) -> Polynomial | None:
    if name == "multiply":
        if len(a) * len(b) > _MAX_TERMS:
            return None
        out: Polynomial = {}
        for m, c in a.items():
            for n, d in b.items():
                if len(m) + len(n) > _MAX_DEGREE:  # repeated squaring of 64-bit data would double the degree each time
                    return None
                mono = tuple(sorted(m + n, key=_key)) if m and n else m + n
                out[mono] = out.get(mono, 0) + c * d
    else:
        out = dict(a)
        sign = -1 if name == "subtract" else 1
        for m, c in b.items():
            out[m] = out.get(m, 0) + sign * c
    return _join_quotients({m: c for m, c in out.items() if c})


def _join_quotients(p: Polynomial) -> Polynomial:
    """d*(t//d) + t%d -> t, for each such pair (times a common factor)."""
    if not any(a.op.name == "remainder" for m in p for a in m):
        return p
    for m, c in list(p.items()):
        rem = next((a for a in m if a.op.name == "remainder"), None)
        if rem is None or m not in p:
            continue
        t, d = rem.args
        quotient = lookup("floor_divide")
        rest = tuple(a for a in m if a is not rem)
        for m2, c2 in list(p.items()):
            q = next((a for a in m2 if a.op is quotient and a.args == (t, d)), None)
            if q is None:
                continue
            rest2 = [a for a in m2 if a is not q]
            # m2 * c2 must be (rest * c) * d
            want = _arith("multiply", {rest: c}, polynomial(d)) or {}
            if want == {tuple(sorted(rest2, key=_key)): c2}:
                out = {k: v for k, v in p.items() if k not in (m, m2)}
                joined = _arith("add", out, _arith("multiply", {rest: c}, polynomial(t)) or {})
                return joined if joined is not None else p
    return p


def build(p: Polynomial) -> Expr:
    """The canonical expression of a polynomial, whose coefficients wrap as 64-bit integers do."""
    p = _wrapped(p)
    if len(p) == 1 and len(next(iter(p))) == 1 and next(iter(p.values())) == 1:
        return next(iter(p))[0]
    add, mul = lookup("add"), lookup("multiply")
    total: Expr | None = None
    for m, c in sorted(p.items(), key=lambda t: (-len(t[0]), [_key(a) for a in t[0]])) if len(p) > 1 else p.items():
        term: Expr | None = None
        for a in m:
            term = a if term is None else loops.expr(mul, (term, a), i64)
        term = loops.const(c) if term is None else term if c == 1 else loops.expr(mul, (term, loops.const(c)), i64)
        total = term if total is None else loops.expr(add, (total, term), i64)
    result = total if total is not None else loops.const(0)
    if result not in _polynomials:
        _polynomials[result] = p
    return result


def coefficient(e: Expr, v: Expr) -> int | None:
    """c where e = c*v + (something without v); None where e is not of that form with a constant c."""
    c, found = 0, False
    for m, k in polynomial(e).items():
        if m == (v,):
            c, found = k, True
        elif any(depends(a, v) for a in m):
            return None
    return c if found else 0


def depends(e: Expr, v: Expr) -> bool:
    """Whether an expression reads a variable."""
    return v["name"] in e.free


def bounds(e: Expr) -> tuple[float, float]:
    """The least and greatest value an index can have, by interval arithmetic over the known ranges."""
    lo = hi = 0.0
    for m, c in polynomial(e).items():
        low, high = 1.0, 1.0
        for a in m:
            al, ah = _atom_bounds(a)
            products = [x * y if x and y else 0.0 for x in (low, high) for y in (al, ah)]
            low, high = min(products), max(products)
        low, high = (low * c, high * c) if c > 0 else (high * c, low * c)
        lo, hi = lo + low, hi + high
    return lo, hi


def _atom_bounds(a: Expr) -> tuple[float, float]:
    extent = _extent(a)
    name = a.op.name
    if extent is not None:
        return 0.0, extent.value - 1.0 if extent.is_const else inf
    if name == "size":
        return 0.0, inf
    if name == "remainder" and a.args[1].is_const and a.args[1].value > 0:
        lo, hi = bounds(a.args[0])
        d = a.args[1].value
        return 0.0, min(hi, d - 1.0) if lo >= 0 else d - 1.0
    if name == "remainder":
        return 0.0, inf
    if name == "floor_divide" and a.args[1].is_const and a.args[1].value > 0:
        lo, hi = bounds(a.args[0])
        d = a.args[1].value
        return (lo // d if lo != -inf else lo), (hi // d if hi != inf else hi)
    if name in ("minimum", "maximum"):
        (al, ah), (bl, bh) = bounds(a.args[0]), bounds(a.args[1])
        return (min(al, bl), min(ah, bh)) if name == "minimum" else (max(al, bl), max(ah, bh))
    if name == "floor_divide" and bounds(a.args[0])[0] >= 0 and bounds(a.args[1])[0] >= 0:
        return 0.0, inf
    return -inf, inf


def nonnegative(e: Expr) -> bool:
    return bounds(e)[0] >= 0


def _below(e: Expr, limit: Expr) -> bool:
    """Whether 0 <= e < limit is certain."""
    lo, hi = bounds(e)
    if lo < 0:
        return False
    if limit.is_const:
        return hi < limit.value
    extent = _extent(e)
    return extent is limit or (extent is not None and polynomial(extent) == polynomial(limit))


def _without(m: tuple[Expr, ...], factors: tuple[Expr, ...]) -> tuple[Expr, ...] | None:
    """The monomial divided by others, or None where it lacks one of them."""
    left = list(m)
    for a in factors:
        if a not in left:
            return None
        left.remove(a)
    return tuple(left)


def _divide(e: Expr, d: Expr) -> tuple[Polynomial, Polynomial]:
    """e = d * quotient + rest, term by term."""
    quotient: Polynomial = {}
    rest: Polynomial = {}
    (dm, dc), *more = polynomial(d).items() or [((), 0)]
    for m, c in polynomial(e).items():
        left = _without(m, dm)
        if not more and dc and c % dc == 0 and left is not None:
            quotient[left] = c // dc
        else:
            rest[m] = c
    if d.is_const and d.value > 0 and () in rest:  # floor the constant part too: (x + 7) // 4, x in 0..3, is no simpler; 4k + 7 is
        whole = rest[()] // d.value
        if whole:
            quotient[()] = quotient.get((), 0) + whole
            rest[()] -= whole * d.value
            if not rest[()]:
                del rest[()]
    return quotient, rest


def simplified(op: Op, args: tuple[Expr, ...], dtype: Any, attrs: Mapping[str, Any]) -> Expr | None:
    """A simpler expression equal to ``op(*args)``, or None. Only integers of 64 bits and booleans are touched."""
    if op.name == "cast" and args[0].dtype is dtype:
        return args[0]
    if dtype is i64 and args[0].dtype is i64:
        return _simplified_index(op.name, args)
    if dtype is bool_:
        return _simplified_bool(op.name, args)
    if op.name == "where" and args[0].is_const:
        return args[1] if args[0].value else args[2]
    return None


def _wrapped(p: Polynomial) -> Polynomial:
    """Coefficients as 64-bit integers have them (squares of squares of a constant would have a million digits)."""
    return {m: w for m, c in p.items() if (w := (c + (1 << 63)) % (1 << 64) - (1 << 63))}


def _simplified_index(name: str, args: tuple[Expr, ...]) -> Expr | None:
    if name in ("add", "subtract", "multiply"):
        p = _arith(name, polynomial(args[0]), polynomial(args[1]))
        return None if p is None else build(p)
    if name == "negative":
        return build({m: -c for m, c in polynomial(args[0]).items()})
    if name in ("floor_divide", "remainder"):
        a, d = args
        if a.is_const and d.is_const and d.value > 0:
            return loops.const(a.value // d.value if name == "floor_divide" else a.value % d.value)
        if d.is_const and d.value <= 0:
            return None
        if not d.is_const and not all(x.op.name == "size" for m in polynomial(d) for x in m):
            return None
        quotient, rest = _divide(a, d)
        r = build(rest)
        if (quotient or d.is_const) and _below(r, d):
            return build(quotient) if name == "floor_divide" else r
        if _below(a, d):
            return loops.const(0) if name == "floor_divide" else a
        if quotient and d.is_const and bounds(a) != (-inf, inf):
            q = _raw(name, r, d)
            return q if name == "remainder" else build(_arith("add", quotient, polynomial(q)) or {})
        inner = a.op.name == "floor_divide" and a.args[1].is_const and d.is_const and name == "floor_divide"
        if inner:
            return _raw(name, a.args[0], loops.const(a.args[1].value * d.value))
    if name in ("minimum", "maximum"):
        a, b = args
        (al, ah), (bl, bh) = bounds(a), bounds(b)
        if a is b or (ah <= bl if name == "minimum" else al >= bh):
            return a
        if bh <= al if name == "minimum" else bl >= ah:
            return b
    if name == "where" and args[0].is_const:
        return args[1] if args[0].value else args[2]
    return None


def _raw(name: str, a: Expr, d: Expr) -> Expr:
    return loops.expr(lookup(name), (a, d), i64)


def _simplified_bool(name: str, args: tuple[Expr, ...]) -> Expr | None:
    if name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal") and args[0].dtype is i64:
        a, b = args
        difference = _arith("subtract", polynomial(a), polynomial(b))
        if difference is None:
            return None
        lo, hi = bounds(build(difference))
        known = {"less": (hi < 0, lo >= 0), "less_equal": (hi <= 0, lo > 0), "greater": (lo > 0, hi <= 0),
                 "greater_equal": (lo >= 0, hi < 0), "equal": (lo == hi == 0, lo > 0 or hi < 0),
                 "not_equal": (lo > 0 or hi < 0, lo == hi == 0)}[name]
        if known[0] or (name == "less" and _below(a, b)):
            return loops.const(True, bool_)
        return loops.const(False, bool_) if known[1] else None
    if args[0].dtype is bool_ and name in ("bitwise_and", "logical_and", "bitwise_or", "logical_or"):
        for x, y in (args, args[::-1]):
            if x.is_const:
                absorbs = (not x.value) if name.endswith("and") else x.value
                return x if absorbs else y
        return args[0] if args[0] is args[1] else None
    if name in ("bitwise_not", "logical_not") and args[0].is_const and args[0].dtype is bool_:
        return loops.const(not args[0].value, bool_)
    if name == "where" and args[0].is_const:
        return args[1] if args[0].value else args[2]
    return None


def address_of(shape: Any, index: Any) -> Expr:
    """The row-major position of an index."""
    total = loops.const(0)
    for s, i in zip(shape, index, strict=True):
        total = total * loops.size(s) + i
    return total


def unflatten(shape: Any, position: Expr) -> list[Expr]:
    """The index at a row-major position."""
    from .types import product

    out: list[Expr] = []
    for d, s in enumerate(shape):
        inner = loops.size(product(shape[d + 1:]))
        if s == 1:
            out.append(loops.const(0))
        else:
            q = position // inner
            out.append(q % loops.size(s) if any(x != 1 for x in shape[:d]) else q)
    return out
