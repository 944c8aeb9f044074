"""Offsets in one block of memory for buffers that are alive at different times.

Enters: ``Span``s (bytes, first and last step at which the buffer is alive, both included). Leaves: an offset for each, such that
spans that are alive together do not overlap, and the size of the whole.

    spans (64 B, 0-1) (64 B, 1-2) (64 B, 2-3)   ->   offsets 0, 64, 0   in 128 bytes

Sizes may be symbolic. Then a place is taken only if it is proved free for all values of the names (``ir.sizes.at_most``), and what is
compared between solutions is the size at a few sample values.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.sizes import at, at_most
from ..ir.types import Dim, Monomial, Size

SAMPLES = (64, 1, 1000)  # values of the names at which symbolic solutions are compared, the first before the others
SEARCH_WORK = 200_000  # how many pairs of buffers the search for a better arena may look at


@dataclass(frozen=True)
class Span:
    """A buffer: its bytes (a multiple of the alignment) and the steps from ``first`` to ``last`` during which it is alive."""

    bytes: Size
    first: int
    last: int


def lower_bound(spans: Sequence[Span]) -> Size:
    """The most bytes alive at one step: no arena is smaller. (Symbolic: the largest where every name is ``SAMPLES[0]``.)"""
    change: dict[int, Size] = {}
    for s in spans:
        change[s.first] = change.get(s.first, 0) + s.bytes
        change[s.last + 1] = change.get(s.last + 1, 0) - s.bytes
    live: Size = 0
    most: Size = 0
    for step in sorted(change):
        live = live + change[step]
        if at(live, SAMPLES[0]) > at(most, SAMPLES[0]):
            most = live
    return most


def pack(spans: Sequence[Span]) -> tuple[list[Size], Size]:
    """Offsets and the size of the arena: the best of several greedy orders, improved by a bounded search."""
    live = [k for k, s in enumerate(spans) if s.bytes != 0]
    offsets: list[Size] = [0] * len(spans)
    if not live:
        return offsets, 0
    kept = [spans[k] for k in live]
    found, total = (_pack_static if all(isinstance(s.bytes, int) for s in kept) else _pack_symbolic)(kept)
    for k, o in zip(live, found, strict=True):
        offsets[k] = o
    return offsets, total


def _orders(spans: Sequence[Span], bytes_: Sequence[int]) -> list[list[int]]:
    """Orders in which placing greedily tends to work: by size, by size times lifetime, by lifetime, by time of birth."""
    ids = range(len(spans))

    def long(k: int) -> int:
        return spans[k].last - spans[k].first + 1

    keys: list[Callable[[int], tuple]] = [
        lambda k: (-bytes_[k], -long(k), spans[k].first),
        lambda k: (-bytes_[k] * long(k), spans[k].first),
        lambda k: (-long(k), -bytes_[k], spans[k].first),
        lambda k: (spans[k].first, -long(k), -bytes_[k]),
        lambda k: (-spans[k].last, -long(k), -bytes_[k])]
    return [sorted(ids, key=key) for key in keys]


def _neighbours(spans: Sequence[Span]) -> list[list[int]]:
    """For each span the others that are alive at some step with it."""
    first = np.array([s.first for s in spans])
    last = np.array([s.last for s in spans])
    out = []
    for k, s in enumerate(spans):
        together = np.flatnonzero((first <= s.last) & (last >= s.first))
        out.append([j for j in together.tolist() if j != k])
    return out


# ------------------------------------------------------------------------------------------------ known sizes


def _pack_static(spans: Sequence[Span]) -> tuple[list[Size], int]:
    bytes_ = [int(s.bytes) for s in spans]
    bound = int(lower_bound(spans))
    best, least = _in_time(spans, bytes_)
    if least == bound:
        return list(best), least
    near = _neighbours(spans)
    work, cost = SEARCH_WORK, sum(map(len, near)) + len(spans)
    first = list(range(len(spans)))
    for order in _orders(spans, bytes_):
        if work <= 0:
            return list(best), least
        offsets, total = _place(order, bytes_, near)
        work -= cost
        if total < least:
            best, least, first = offsets, total, order
        if least == bound:
            return list(best), least
    best, least = _search(first, bytes_, near, best, least, bound, work)
    return list(best), least


def _in_time(spans: Sequence[Span], bytes_: Sequence[int]) -> tuple[list[int], int]:
    """What an allocator would do as the program runs: each buffer in the tightest gap among the live ones."""
    offsets = [0] * len(spans)
    live: list[tuple[int, int, int]] = []  # (offset, end, last step), in order of offset
    total = 0
    for k in sorted(range(len(spans)), key=lambda k: (spans[k].first, -bytes_[k])):
        now = spans[k].first
        live = [x for x in live if x[2] >= now]
        at_, total = _best_gap(live, bytes_[k], total)
        offsets[k] = at_
        insort(live, (at_, at_ + bytes_[k], spans[k].last))
    return offsets, total


def _best_gap(taken: Sequence[tuple[int, int, int]], need: int, total: int) -> tuple[int, int]:
    """The offset of the tightest gap of ``need`` bytes between the taken ranges, and the new total. Where there is none: the
    end of what is taken."""
    cursor = 0
    gap, place = 0, -1
    for offset, end, _ in taken:
        room = offset - cursor
        if room >= need and (place < 0 or room < gap):
            gap, place = room, cursor
        cursor = max(cursor, end)
    if place < 0 or (total - cursor >= need and total - cursor < gap):
        place = cursor
    return place, max(total, place + need)


def _place(order: Sequence[int], bytes_: Sequence[int], near: Sequence[Sequence[int]]) -> tuple[list[int], int]:
    """Place each in turn in the tightest gap that those placed before leave."""
    offsets = [-1] * len(bytes_)
    total = 0
    for k in order:
        taken = sorted([(offsets[j], offsets[j] + bytes_[j], 0) for j in near[k] if offsets[j] >= 0])
        offsets[k], total = _best_gap(taken, bytes_[k], total)
    return offsets, total


def _search(order: list[int], bytes_: Sequence[int], near: Sequence[Sequence[int]], offsets: list[int], least: int, bound: int,
            work: int) -> tuple[list[int], int]:
    """Move what sticks out at the top to the front of the order and place again, as long as work is left and the bound is not met."""
    cost = sum(map(len, near)) + 4 * len(order)
    random = np.random.default_rng(0)
    order, here = list(order), list(offsets)
    while work > 0 and least > bound:
        work -= cost
        top = max(here[k] + bytes_[k] for k in order)
        sticking = [k for k in order if here[k] + bytes_[k] == top]
        mover = sticking[int(random.integers(len(sticking)))]
        i = order.index(mover)
        order.insert(int(random.integers(i)) if i else 0, order.pop(i))
        if random.random() < 0.3:
            i, j = (int(x) for x in random.integers(len(order), size=2))
            order[i], order[j] = order[j], order[i]
        here, total = _place(order, bytes_, near)
        if total < least:
            offsets, least = here, total
    return offsets, least


# ------------------------------------------------------------------------------------------------ symbolic sizes


Form = tuple[int, ...]  # a size as coefficients over the monomials of one problem


class _Forms:
    """Sizes as tuples of coefficients: sums and proofs between them are what placing spends its time on."""

    def __init__(self, sizes: Sequence[Size]):
        self.monomials: list[Monomial] = sorted({m for s in sizes if isinstance(s, Dim) for m, _ in s.terms} | {()}, key=str)
        self.samples = [[at(Dim({m: 1}), v) for m in self.monomials] for v in SAMPLES]
        self.proved: dict[Form, bool] = {}

    def of(self, size: Size) -> Form:
        terms: dict[Monomial, int] = dict(size.terms) if isinstance(size, Dim) else {(): size}
        return tuple([terms.get(m, 0) for m in self.monomials])

    def size(self, form: Form) -> Size:
        return 0 + Dim(dict(zip(self.monomials, form, strict=True)))

    def at(self, form: Form, sample: int = 0) -> int:
        return sum([c * v for c, v in zip(form, self.samples[sample], strict=True)])

    def at_most(self, a: Form, b: Form) -> bool:
        difference = tuple([y - x for x, y in zip(a, b, strict=True)])
        if min(difference) >= 0:
            return True
        known = self.proved.get(difference)
        if known is None:
            known = self.proved[difference] = at_most(0, self.size(difference))
        return known

    def upper(self, forms: Iterable[Form]) -> Form:
        out = self.of(0)
        for f in forms:
            if not self.at_most(f, out):
                out = f if self.at_most(out, f) else tuple([max(x, y) for x, y in zip(out, f, strict=True)])
        return out


def _pack_symbolic(spans: Sequence[Span]) -> tuple[list[Size], Size]:
    """Known sizes below, symbolic ones above; or all together by size. Whichever is smaller at the samples."""
    forms = _Forms([s.bytes for s in spans])
    sample = [at(s.bytes, SAMPLES[0]) for s in spans]
    need = [forms.of(s.bytes) for s in spans]
    near = _neighbours(spans)
    static = [k for k, s in enumerate(spans) if isinstance(s.bytes, int)]
    below, base = _pack_static([spans[k] for k in static]) if static else ([], 0)
    fixed = {k: forms.of(o) for k, o in zip(static, below, strict=True)}
    bound = at(lower_bound(spans), SAMPLES[0])
    best: dict[int, Form] = {}
    least: list[int] = []
    total: Form = ()
    work = SEARCH_WORK
    for order in _orders(spans, sample):
        rest = [k for k in order if k not in fixed]
        for start, floor, todo in ((fixed, base, rest), (fixed, 0, rest), ({}, 0, order)) if static else (({}, 0, order),):
            if best and (work <= 0 or least[0] <= bound):
                break
            offsets, visits = _place_symbolic(todo, dict(start), forms.of(floor), need, near, forms)
            work -= visits
            ends = forms.upper(_plus(o, need[k]) for k, o in offsets.items())
            here = [forms.at(ends, v) for v in range(len(SAMPLES))]
            if not best or here < least:
                best, least, total = offsets, here, ends
    return [forms.size(best[k]) for k in range(len(spans))], forms.size(total)


def _plus(a: Form, b: Form) -> Form:
    return tuple([x + y for x, y in zip(a, b, strict=True)])


def _place_symbolic(order: Sequence[int], offsets: dict[int, Form], floor: Form, need: Sequence[Form], near: Sequence[Sequence[int]],
                    forms: _Forms) -> tuple[dict[int, Form], int]:
    """Each in turn at the lowest offset (at the sample) that is certainly free: the floor, or the end of a neighbour, or above all."""
    values = {k: forms.at(o) for k, o in offsets.items()}
    sample = [forms.at(n) for n in need]
    visits = 0
    for k in order:
        taken = [(offsets[j], _plus(offsets[j], need[j]), values[j], values[j] + sample[j]) for j in near[k] if j in offsets]
        candidates = {floor: forms.at(floor)} | {end: at_ for _, end, _, at_ in taken}
        for place, low in sorted(candidates.items(), key=lambda c: c[1]):
            top, high = _plus(place, need[k]), low + sample[k]
            visits += len(taken)
            if any(low < end_at and offset_at < high for _, _, offset_at, end_at in taken):
                continue  # no proof where it does not even hold at the sample
            if forms.at_most(floor, place) and all(forms.at_most(end, place) if end_at <= low else forms.at_most(top, offset)
                                                   for offset, end, _, end_at in taken):
                break
        else:
            place = forms.upper([floor, *(end for _, end, _, _ in taken)])
            low = forms.at(place)
        offsets[k], values[k] = place, low
    return offsets, visits + 10 * len(order)
