"""Proofs of inequalities between index expressions, for the verifier.

    inside  parallel i in 0..n step 64 { vector v in 0..min(n-i, 64) { x[i+v] } }      0 <= i+v  and  i+v <= n-1     are proved

An expression is a polynomial over atoms: loop variables, sizes, and whatever is not polynomial (quotients, minima, loads). To prove p >= 0,
the atoms are replaced by bounds, innermost first, until a polynomial over sizes remains, which are known to be at least 0. A bound may have
alternatives (min(a, b) is at most a, and at most b), of which one has to do. This shares no code with ``ir.index``, which it checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .loops import Expr, expr, var, walk
from .op import lookup
from .types import i64

Poly = dict[tuple[Expr, ...], int]  # atoms sorted by id -> coefficient
Bound = list[list[Poly]]  # one of these lists has to do; of a list, every polynomial is needed
MAX_TERMS = 64
_NEGATED = {"less": "greater_equal", "less_equal": "greater", "greater": "less_equal", "greater_equal": "less", "not_equal": "equal"}
NESTED = 16  # steps that a bound of a bitwise operator counts for
MAX_STEPS = 2000  # of one proof


def plus(a: Poly, b: Poly, factor: int = 1) -> Poly:
    out = dict(a)
    for m, c in b.items():
        out[m] = out.get(m, 0) + factor * c
    return {m: c for m, c in out.items() if c}


def times(a: Poly, b: Poly) -> Poly:
    out: Poly = {}
    for m, c in a.items():
        for n, d in b.items():
            key = tuple(sorted(m + n, key=id))
            out[key] = out.get(key, 0) + c * d
    return {m: c for m, c in out.items() if c}


def number(c: int) -> Poly:
    return {(): c} if c else {}


@dataclass
class _Range:
    """What is known of a variable: bounds, how deep its loop is, and bounds (k, p) of its multiples: k * variable >= p (or <= p)."""

    depth: int
    lower: Bound = field(default_factory=list)
    upper: Bound = field(default_factory=list)
    multiples_lower: list[tuple[int, Poly]] = field(default_factory=list)
    multiples_upper: list[tuple[int, Poly]] = field(default_factory=list)

    def copy(self) -> _Range:
        return _Range(self.depth, list(self.lower), list(self.upper), list(self.multiples_lower), list(self.multiples_upper))


class Prover:
    """Knows the loops, lets and conditions around a place."""

    def __init__(self) -> None:
        self.ranges: dict[Expr, _Range] = {}
        self.facts: dict[Expr, _Range] = {}  # what conditions say about atoms that are no variables
        self.lets: dict[Expr, Expr] = {}
        self.least: dict[Expr, int] = {}  # sizes that are known to be at least this
        self.polys: dict[Expr, Poly] = {}
        self.reaches: dict[Expr, tuple[int, int]] = {}
        self.steps = 0

    # Contexts.

    @contextmanager
    def loop(self, name: str, start: Expr, stop: Expr, step: int) -> Iterator[None]:
        """Inside the body of a loop (which therefore runs at least once)."""
        v = var(name)
        before = dict(self.ranges), dict(self.least), self.polys, self.reaches
        low, high = self.poly(start), self.poly(stop)
        self.polys, self.reaches = {}, {}
        span = plus(high, low, -1)
        upper: Bound = [[plus(high, number(-1))]]
        if set(span) <= {()} and span:
            upper = [[plus(low, number((span[()] - 1) // step * step))]]
        elif step != 1 and all(c % step == 0 for c in span.values()):
            upper.insert(0, [plus(high, number(-step))])
        self.ranges[v] = _Range(len(self.ranges), [[low]], upper)
        self._learn_least(plus(span, number(-1)))
        try:
            yield
        finally:
            self.ranges, self.least, self.polys, self.reaches = before

    @contextmanager
    def let(self, name: str, value: Expr) -> Iterator[None]:
        v = var(name)
        before = dict(self.lets), self.polys, self.reaches
        self.polys, self.reaches = {}, {}
        if value.dtype is i64:
            self.lets[v] = value
        try:
            yield
        finally:
            self.lets, self.polys, self.reaches = before

    @contextmanager
    def known(self, condition: Expr | None, truth: bool = True) -> Iterator[None]:
        """Where the condition has this truth value."""
        before = {k: r.copy() for k, r in self.ranges.items()}, {k: r.copy() for k, r in self.facts.items()}, dict(self.least)
        for fact in self._facts(condition, truth) if condition is not None else ():
            self._learn(fact)
        try:
            yield
        finally:
            self.ranges, self.facts, self.least = before

    def _facts(self, c: Expr, truth: bool) -> Iterator[Poly]:
        """Polynomials that are >= 0 where the condition has this truth value."""
        name = c.op.name
        if name in (("bitwise_and", "logical_and") if truth else ("bitwise_or", "logical_or")):
            for a in c.args:
                yield from self._facts(a, truth)
        elif name in ("bitwise_not", "logical_not"):
            yield from self._facts(c.args[0], not truth)
        elif c.args and c.args[0].dtype is i64:
            if not truth:
                name = _NEGATED.get(name, "")
            p, q = self.poly(c.args[0]), self.poly(c.args[-1])
            if name in ("less", "less_equal", "equal"):
                yield plus(plus(q, p, -1), number(-1 if name == "less" else 0))
            if name in ("greater", "greater_equal", "equal"):
                yield plus(plus(p, q, -1), number(-1 if name == "greater" else 0))

    def _learn(self, f: Poly) -> None:
        """f >= 0 bounds the innermost atom in it."""
        atom = self._innermost(f)
        if atom is not None:
            factor, rest = self._split(f, atom)
            if factor is not None and set(factor) == {()}:
                c, r = factor[()], self.ranges.get(atom) or self.facts.setdefault(atom, _Range(0))
                if all(k % c == 0 for k in rest.values()):
                    (r.upper if c < 0 else r.lower).insert(0, [{m: -k // c for m, k in rest.items()}])
                elif c < 0:
                    r.multiples_upper.append((-c, rest))
                else:
                    r.multiples_lower.append((c, plus({}, rest, -1)))
        self._learn_least(f)

    def _learn_least(self, f: Poly) -> None:
        """c*a + k >= 0 bounds the atom a; if k < 0, each atom of a product of sizes is at least 1."""
        monomials = [m for m in f if m]
        if len(monomials) == 1 and f[monomials[0]] > 0:
            bound = -(f.get((), 0) // f[monomials[0]])
            sizes = all(a.op.name == "size" for a in monomials[0])
            for a in monomials[0] if len(monomials[0]) == 1 or (sizes and bound > 0) else ():
                self.least[a] = max(self.least.get(a, 0), bound if len(monomials[0]) == 1 else 1)

    # Polynomials.

    def poly(self, e: Expr) -> Poly:
        """The expression as a polynomial over atoms."""
        p = self.polys.get(e)
        if p is None:
            name = e.op.name
            if e.is_const:
                p = number(int(e.value))
            elif e in self.lets:
                p = self.poly(self.lets[e])
            elif e.dtype is i64 and name in ("add", "subtract"):
                p = plus(self.poly(e.args[0]), self.poly(e.args[1]), 1 if name == "add" else -1)
            elif e.dtype is i64 and name == "multiply":
                p = times(self.poly(e.args[0]), self.poly(e.args[1]))
            elif e.dtype is i64 and name == "negative":
                p = plus({}, self.poly(e.args[0]), -1)
            else:
                p = {(e,): 1}
            if len(p) > MAX_TERMS:
                p = {(e,): 1}
            self.polys[e] = p
        return p

    @staticmethod
    def _split(p: Poly, a: Expr) -> tuple[Poly | None, Poly]:
        """p = factor * a + rest; the factor is None where p is not linear in the atom."""
        factor: Poly = {}
        rest: Poly = {}
        for m, c in p.items():
            count = m.count(a)
            if count > 1:
                return None, p
            if count:
                factor[tuple(x for x in m if x is not a)] = c
            else:
                rest[m] = c
        return factor, rest

    # Proofs.

    def at_least_zero(self, p: Poly) -> bool:
        """Whether p >= 0 is proved."""
        self.steps = MAX_STEPS
        if self._proved(p):
            return True
        expanded = self._without_remainders(p)
        return expanded != p and self._proved(expanded)

    def _without_remainders(self, p: Poly) -> Poly:
        """The same with t - d*(t//d) for t % d, so that d*(t//d) + t % d is t."""
        for a in {a for m in p for a in m if a.op.name == "remainder"}:
            factor, rest = self._split(p, a)
            if factor is not None:
                quotient: Poly = {(expr(lookup("floor_divide"), a.args, i64),): 1}
                p = plus(plus(rest, times(factor, self.poly(a.args[0]))), times(times(factor, self.poly(a.args[1])), quotient), -1)
        return p

    def within(self, index: Expr, size: Poly) -> tuple[bool, bool]:
        """Whether 0 <= index is proved, and whether index < size is."""
        p = self.poly(index)
        return self.at_least_zero(p), self.at_least_zero(plus(plus(size, p, -1), number(-1)))

    def _proved(self, p: Poly) -> bool:
        self.steps -= 1
        if self.steps < 0 or len(p) > MAX_TERMS:
            return False
        atom = self._innermost(p)
        if atom is None:
            return self._positive_over_sizes(p)
        factor, rest = self._split(p, atom)
        if factor is None:
            return False
        quotient = self._quotient_bound(atom, factor, rest)
        if quotient is not None and self._proved(quotient):
            return True
        positive = self._proved(factor)
        if not positive and not self._proved(plus({}, factor, -1)):
            return False
        for alternative in self._bounds(atom)[0 if positive else 1]:
            if all(self._proved(plus(times(factor, b), rest)) for b in alternative):
                return True
        r = self.ranges.get(atom) or self.facts.get(atom)
        for k, b in () if r is None else r.multiples_lower if positive else r.multiples_upper:
            if all(c % k == 0 for c in factor.values()) and self._proved(plus(times({m: c // k for m, c in factor.items()}, b), rest)):
                return True
        return False

    def _positive_over_sizes(self, p: Poly) -> bool:
        shifted: Poly = {}
        for m, c in p.items():
            term: Poly = {(): c}
            for a in m:
                term = times(term, {(a,): 1, **number(self.least.get(a, 0))})
            shifted = plus(shifted, term)
        return all(c >= 0 for c in shifted.values())

    def _innermost(self, p: Poly) -> Expr | None:
        """The atom to replace first: the one of the deepest loop, before the variables that it is made of."""
        best, rank = None, (-2.0, 0)
        for a in {a for m in p for a in m}:
            if a.op.name == "size":
                continue
            depth, parts = self._reach(a)
            here = (depth if a in self.ranges else depth + 0.5, parts)
            if best is None or here > rank:
                best, rank = a, here
        return best

    def _reach(self, a: Expr) -> tuple[int, int]:
        """The depth of the deepest variable an atom is made of, and of how many parts it is made; through lets."""
        found = self.reaches.get(a)
        if found is None:
            depth, parts = -1, 0  # no variable: eliminated after all variables
            for x in walk(a):
                inner = self._reach(self.lets[x]) if x in self.lets else (self.ranges[x].depth if x in self.ranges else -1, 1)
                depth, parts = max(depth, inner[0]), parts + inner[1]
            found = self.reaches[a] = depth, parts
        return found

    @staticmethod
    def _constant_divisor(a: Expr) -> int:
        return a.args[1].value if a.op.name in ("floor_divide", "remainder") and a.args[1].is_const and a.args[1].value > 0 else 0

    def _quotient_bound(self, a: Expr, factor: Poly, rest: Poly) -> Poly | None:
        """k*d*(t//d) is at least k*(t-d+1), and -k*d*(t//d) at least -k*t (k >= 0, d > 0)."""
        if a.op.name != "floor_divide":
            return None
        d = self.poly(a.args[1])
        k = exact_quotient(factor, d)
        if k is None or not (self._constant_divisor(a) or self._proved(plus(d, number(-1)))):
            return None
        t = self.poly(a.args[0])
        if all(c >= 0 for c in k.values()) and all(x.op.name == "size" for m in k for x in m):
            return plus(times(k, plus(t, plus(number(1), d, -1))), rest)
        return plus(times(k, t), rest) if all(c <= 0 for c in k.values()) and all(x.op.name == "size" for m in k for x in m) else None

    def _bounds(self, a: Expr) -> tuple[Bound, Bound]:
        """Lower and upper bounds of an atom."""
        r = self.ranges.get(a)
        if r is not None:
            return r.lower, r.upper
        lower, upper = self._bounds_by_operator(a)
        known = self.facts.get(a)
        if known is not None:
            lower, upper = known.lower + lower, known.upper + upper
        return ([*lower, [number(self.least[a])]] if a in self.least else lower), upper

    def _bounds_by_operator(self, a: Expr) -> tuple[Bound, Bound]:
        name = a.op.name
        if name in ("minimum", "maximum"):
            p, q = (self.poly(x) for x in a.args)
            both, either = [[p, q]], [[p], [q]]
            return (both, either) if name == "minimum" else (either, both)
        if name == "where":
            p, q = (self.poly(x) for x in a.args[1:])
            return [[p, q]], [[p, q]]
        if name == "remainder":
            t, divisor = self.poly(a.args[0]), self.poly(a.args[1])
            upper: Bound = [[plus(divisor, number(-1))]] if self._constant_divisor(a) or self._proved(plus(divisor, number(-1))) else []
            return ([[{}]] if self._proved(divisor) else []), (upper + ([[t]] if self._proved(t) else []))
        if name == "floor_divide":
            return self._quotient_bounds(a)
        if name in ("bitwise_and", "bitwise_or", "bitwise_xor") and self.steps > 0:
            self.steps -= NESTED  # they may be nested deeply, in data that is no index
            ends = [e for x in a.args for low in (True, False) if (e := self._constant(self.poly(x), low)) is not None and e >= 0]
            return ([[{}]], [[number((1 << max(ends).bit_length()) - 1)]]) if len(ends) == 4 else ([], [])
        if name == "cast" and a.args[0].dtype.kind in "biu" and a.args[0].dtype.bits < 64:
            d = a.args[0].dtype
            high = 1 if d.kind == "b" else 2 ** (d.bits - (d.kind == "i")) - 1
            return [[number(-high - 1 if d.kind == "i" else 0)]], [[number(high)]]
        return [], []

    def _quotient_bounds(self, a: Expr) -> tuple[Bound, Bound]:
        t, divisor = self.poly(a.args[0]), self.poly(a.args[1])
        lower: Bound = [[{}]] if self._proved(t) else []
        upper: Bound = []
        d = self._constant_divisor(a)
        if d:
            low, high = self._constant(t, True), self._constant(t, False)
            lower += [[number(low // d)]] if low is not None else []
            upper += [[number(high // d)]] if high is not None else []
        atom, inner = a.args[0], self.ranges.get(a.args[0])
        if inner is not None or len(t) == 1:  # t <= d*e - 1  gives  t//d <= e - 1
            tops = inner.upper if inner is not None else self._bounds(atom)[1]
            for (top, *more) in tops:
                e = exact_quotient(plus(top, number(1)), divisor) if not more else None
                if e is not None:
                    upper.append([plus(e, number(-1))])
        return lower, upper

    def constant(self, e: Expr) -> int | None:
        """The number that an expression is proved to be, if it is one."""
        self.steps = MAX_STEPS
        low, high = (self._constant(self.poly(e), first) for first in (True, False))
        return low if low == high else None

    def _constant(self, p: Poly, low: bool) -> int | None:
        """A constant bound of a polynomial, if it has one."""
        while True:
            atom = self._innermost(p)
            if atom is None:
                return p.get((), 0) if set(p) <= {()} else None
            factor, rest = self._split(p, atom)
            if factor is None or set(factor) != {()}:
                return None
            bounds = self._bounds(atom)[0 if (factor[()] > 0) == low else 1]
            single = next((b[0] for b in bounds if len(b) == 1), None)
            if single is None or self.steps < 0:
                return None
            self.steps -= 1
            p = plus(times(factor, single), rest)


def exact_quotient(p: Poly, d: Poly) -> Poly | None:
    if len(d) != 1:
        return number(1) if p == d else None
    ((dm, dc),) = d.items()
    out: Poly = {}
    for m, c in p.items():
        left = list(m)
        for a in dm:
            if a not in left:
                return None
            left.remove(a)
        if c % dc:
            return None
        out[tuple(left)] = c // dc
    return out


def flat_index(index: Sequence[Poly], shape: Sequence[Poly]) -> Poly:
    """The row-major position of an index."""
    out: Poly = {}
    for i, d in zip(index, shape, strict=True):
        out = plus(times(out, d), i)
    return out


def renamed(e: Expr, names: Mapping[Expr, Expr], memo: dict[Expr, Expr]) -> Expr:
    """The expression with variables replaced, not simplified."""
    for x in walk(e):
        if x not in memo:
            memo[x] = names[x] if x in names else x if not x.args else expr(x.op, [memo[a] for a in x.args], x.dtype, x.attrs)
    return memo[e]


__all__ = ["Poly", "Prover", "exact_quotient", "flat_index", "number", "plus", "renamed", "times"]
