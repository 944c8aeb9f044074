"""In which order to run the steps of a program, so that little memory is alive at once.

Enters: for each step the temporaries it reads and writes, and the steps that must come before it. Leaves: a permutation of the steps
in which every step follows those it depends on, chosen for the least peak of live bytes; program order, unless another is better.

    a = f(x); b = f(y); c = g(a); d = g(b)     with g shrinking:     f(x) g(a) f(y) g(b)      one large buffer alive, not two
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

EXACT_STEPS = 10  # programs up to this length are searched completely


@dataclass(frozen=True)
class Task:
    """One step, as the scheduler sees it. Temporaries are numbered; ``inplace`` lists (written, read) temporaries of equal size that may
    share memory when this step is the last to read; ``after`` the steps it depends on."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    inplace: tuple[tuple[int, int], ...] = ()
    after: tuple[int, ...] = ()


def choose_order(tasks: Sequence[Task], sizes: Sequence[int]) -> tuple[int, ...]:
    """The best order found. ``sizes`` gives the bytes of each temporary."""
    program = tuple(range(len(tasks)))
    best, least = program, peak(program, tasks, sizes)
    if least == _floor(tasks, sizes):
        return program
    candidates = [_greedy(tasks, sizes), _depth_first(tasks, sizes)]
    if len(tasks) <= EXACT_STEPS:
        candidates.append(_exact(tasks, sizes))
    for order in candidates:
        bytes_ = peak(order, tasks, sizes)
        if bytes_ < least:
            best, least = order, bytes_
    return best


def peak(order: Sequence[int], tasks: Sequence[Task], sizes: Sequence[int]) -> int:
    """The most bytes alive at once: a temporary lives from the step that writes it through the last that reads it."""
    left = _readers(tasks, len(sizes))
    live = most = 0
    for s in order:
        t = tasks[s]
        dying = {r for r in t.reads if left[r] == 1}
        for r in t.reads:
            left[r] -= 1
        born = sum([sizes[w] for w in t.writes])
        most = max(most, live + born - _shared(t, dying, sizes))
        live += born - sum([sizes[r] for r in dying]) - sum([sizes[w] for w in t.writes if not left[w]])
    return most


def _shared(t: Task, dying: set[int], sizes: Sequence[int]) -> int:
    """Bytes that the step writes over what it is the last to read."""
    used: set[int] = set()
    total = 0
    for w, r in t.inplace:
        if r in dying and not used & {w, r}:
            used |= {w, r}
            total += sizes[w]
    return total


def _readers(tasks: Sequence[Task], temporaries: int) -> list[int]:
    left = [0] * temporaries
    for t in tasks:
        for r in t.reads:
            left[r] += 1
    return left


def _floor(tasks: Sequence[Task], sizes: Sequence[int]) -> int:
    """What every order needs: the largest single step."""
    most = 0
    for t in tasks:
        both = sum([sizes[x] for x in {*t.reads, *t.writes}]) - sum([sizes[w] for w in {w for w, _ in t.inplace}])
        most = max(most, both)
    return most


def _greedy(tasks: Sequence[Task], sizes: Sequence[int]) -> tuple[int, ...]:
    """Always the ready step that leaves the least memory alive after it; the earliest among equals."""
    waiting = [len(t.after) for t in tasks]
    followers: list[list[int]] = [[] for _ in tasks]
    readers: list[set[int]] = [set() for _ in sizes]
    for s, t in enumerate(tasks):
        for a in t.after:
            followers[a].append(s)
        for r in t.reads:
            readers[r].add(s)
    unread = {w for t in tasks for w in t.writes if not readers[w]}

    def growth(s: int) -> int:
        t = tasks[s]
        return sum([sizes[w] for w in t.writes if w not in unread]) - sum([sizes[r] for r in t.reads if len(readers[r]) == 1])

    ready = [(growth(s), s) for s in range(len(tasks)) if not waiting[s]]
    heapq.heapify(ready)
    done = [False] * len(tasks)
    order: list[int] = []
    while ready:
        _, s = heapq.heappop(ready)
        if done[s]:
            continue  # an entry from before its growth fell
        done[s] = True
        order.append(s)
        for r in tasks[s].reads:
            readers[r].discard(s)
            if len(readers[r]) == 1:
                (last,) = readers[r]
                if not waiting[last]:
                    heapq.heappush(ready, (growth(last), last))
        for f in followers[s]:
            waiting[f] -= 1
            if not waiting[f]:
                heapq.heappush(ready, (growth(f), f))
    return tuple(order)


def _depth_first(tasks: Sequence[Task], sizes: Sequence[int]) -> tuple[int, ...]:
    """Each step directly after all that it needs, the branch that leaves the most behind first."""
    left = [sum([sizes[w] for w in t.writes]) for t in tasks]
    needed = {a for t in tasks for a in t.after}
    order: list[int] = []
    seen = [False] * len(tasks)
    for sink in range(len(tasks)):
        if sink in needed:
            continue
        stack = [(sink, iter(sorted(tasks[sink].after, key=lambda a: (-left[a], a))))]
        seen[sink] = True
        while stack:
            s, rest = stack[-1]
            a = next((a for a in rest if not seen[a]), None)
            if a is None:
                order.append(s)
                stack.pop()
            else:
                seen[a] = True
                stack.append((a, iter(sorted(tasks[a].after, key=lambda a: (-left[a], a)))))
    return tuple(order)


def _exact(tasks: Sequence[Task], sizes: Sequence[int]) -> tuple[int, ...]:
    """The least peak over all orders: dynamic programming over the sets of steps that have run."""
    n = len(tasks)
    readers = [sum(1 << s for s, t in enumerate(tasks) if r in t.reads) for r in range(len(sizes))]
    before = [sum(1 << a for a in t.after) for t in tasks]
    reach: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}  # set -> least peak, bytes alive, order
    for _ in range(n):
        following: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for ran, (most, live, order) in reach.items():
            for s, t in enumerate(tasks):
                bit = 1 << s
                if ran & bit or before[s] & ~ran:
                    continue
                dying = {r for r in t.reads if not readers[r] & ~(ran | bit)}
                during = live + sum(sizes[w] for w in t.writes) - _shared(t, dying, sizes)
                after = live + sum(sizes[w] for w in t.writes if readers[w]) - sum(sizes[r] for r in dying)
                key = ran | bit
                entry = (max(most, during), after, (*order, s))
                if key not in following or entry < following[key]:
                    following[key] = entry
        reach = following
    return reach[(1 << n) - 1][2]
