"""What can be proved about sizes, whatever the (non-negative) values of their names.

    at_most(batch*40, batch*64 + 8)        True
    at_most(4096, batch*2000)              False: not for batch = 0
    upper(4096, batch*2000)                batch*2000 + 4096, a size that is at least both
    aligned(batch*4, 64)                   64*((4*batch+63)//64)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import lcm

from .types import Dim, Quotient, Size, _terms, evaluate


def aligned(size: Size, alignment: int) -> Size:
    """The size rounded up to a multiple of ``alignment``."""
    if isinstance(size, Dim):
        return size if size.divide(alignment) is not None else (size + (alignment - 1)) // alignment * alignment
    return -(-size // alignment) * alignment


def at(size: Size, value: int) -> int:
    """The size where every name is ``value``."""
    return evaluate(size, dict.fromkeys(size.names, value)) if isinstance(size, Dim) else size


def at_most(a: Size, b: Size) -> bool:
    """Whether a <= b is certain. False means that it was not proved."""
    if isinstance(a, int) and isinstance(b, int):
        return a <= b
    return a is b or a == b or _proved(a, b)


@lru_cache(maxsize=1 << 14)
def _proved(a: Size, b: Size) -> bool:
    difference = b - a
    if isinstance(difference, int):
        return difference >= 0
    terms = dict(difference.terms)
    if all(c >= 0 for c in terms.values()):
        return True
    _cancel_quotients(terms)
    return _one_quotient(terms) or _least_is_positive(terms, True) or _least_is_positive(terms, False)


def _one_quotient(terms: dict) -> bool:
    """n//d <= e exactly if n <= d*e + d-1, and n//d >= e exactly if n >= d*e: for one quotient, where the other coefficients allow it."""
    for m, c in terms.items():
        q = _quotient(m)
        rest = {k: v for k, v in terms.items() if v and k != m}
        if q is None or not c or any(v % c for v in rest.values()):
            continue
        e: Size = 0 + Dim({k: v // -c for k, v in rest.items()})  # the other side of n//d >= e (c > 0) or n//d <= e
        bound = q.denominator * e
        if at_most(bound, q.numerator) if c > 0 else at_most(q.numerator, bound + (q.denominator - 1)):
            return True
    return False


def _quotient(monomial: tuple) -> Quotient | None:
    return monomial[0][0] if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], Quotient) else None


def _cancel_quotients(terms: dict) -> None:
    """Drop -c*(m//d) against +c*(n//d) where m <= n, which leaves a smaller sum."""
    for m, c in [t for t in terms.items() if t[1] < 0 and _quotient(t[0])]:
        for n, k in [t for t in terms.items() if t[1] > 0 and _quotient(t[0])]:
            small, large = _quotient(m), _quotient(n)
            if small and large and small.denominator == large.denominator and at_most(small.numerator, large.numerator):
                used = min(-c, k)
                c += used
                terms[m], terms[n] = c, k - used
                if not c:
                    break


def _least_is_positive(terms: dict, use_numerators: bool) -> bool:
    """Whether the sum is certainly >= 0 when quotients are replaced by bounds without quotients: (n-d+1)/d <= n//d <= n/d, or 0 <= n//d."""
    atoms = [q for m in terms for a, _ in m if isinstance(a, Quotient) for q in (a,)]
    scale = lcm(*(q.denominator for q in atoms)) if atoms else 1
    total: Size = 0
    for m, c in terms.items():
        found = [(a, p) for a, p in m if isinstance(a, Quotient)]
        if not c or (found and c > 0 and (len(found) > 1 or found[0][1] > 1 or not use_numerators)):
            continue
        if not found:
            total = total + Dim({m: c * scale})
            continue
        if len(found) > 1 or found[0][1] > 1:
            return False
        q = found[0][0]
        rest = Dim({tuple(t for t in m if t[0] != q): c * (scale // q.denominator)})
        total = total + rest * (q.numerator - (q.denominator - 1) if c > 0 else q.numerator)
    return all(c >= 0 for _, c in total.terms) if isinstance(total, Dim) else total >= 0


def upper(sizes: Iterable[Size]) -> Size:
    """A size that is at least every one of these: one of them where that is proved, else the largest coefficient of each term."""
    out: Size = 0
    for s in sizes:
        if at_most(s, out):
            continue
        if at_most(out, s):
            out = s
            continue
        one, two = dict(_terms(out)), dict(_terms(s))
        out = Dim({m: max(one.get(m, 0), two.get(m, 0)) for m in {**one, **two}})
    return out
