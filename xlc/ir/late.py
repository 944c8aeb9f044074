"""Products that finish late: from an ``Mma`` of four warps to the ``Wait`` for it nobody may write what it reads, or touch what it adds to.

    mma acc[t], sa[..], sb[..] ...  group 128
    sa[..] = x                       may be read by the product that is under way
    y = acc[t, 0]                    is not summed yet
    wait products 0
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from .loops import LOAD, Buffer, If, Kernel, Loop, Mma, Stmt, Store, Wait, expressions, place, statements, walk

Pending = tuple[Mma, ...]  # oldest first


def late_products(kernel: Kernel, fail: Callable[[str], NoReturn]) -> list[str]:
    """Fails where a thread touches its own result too early. Returns what could not be decided: stores to shared memory of which a product
    may read another part."""
    unproven: dict[str, None] = {}

    def visit(s: Stmt, pending: Pending) -> Pending:
        results, sources = {m.acc for m in pending}, {x for m in pending for x in (m.a, m.b)}
        read = {e["buffer"] for e in walk(*expressions(s)) if e.op is LOAD}
        written = {s.buffer} if isinstance(s, Store) else set()
        for b in sorted(results & (read | written), key=lambda b: b.name):
            fail(f"{b.name} is touched before the products that add to it are waited for")
        for b in written & sources:
            if b.space == "register":
                fail(f"{b.name} is written before the products that read it are waited for")
        if isinstance(s, Loop) and s.kind == "thread":  # of any thread
            inside = list(statements(s.body))
            reads = sources | {x for m in inside if isinstance(m, Mma) and m.group > 32 for x in (m.a, m.b)}
            for b in dict.fromkeys(x.buffer for x in inside if isinstance(x, Store)):
                if b in reads and b.space == "shared":
                    unproven[f"a store may touch what a product that is under way reads of {b.name}"] = None
        match s:
            case Mma():
                if any(m.acc == s.acc and (m.shape[1], m.group) != (s.shape[1], s.group) for m in pending):
                    fail(f"products of different shapes that are not waited for add to {s.acc.name}")
                return (*pending, s) if s.group > 32 else pending
            case Wait(left, True):
                return pending[-left:] if left else ()
            case Loop():
                once = run(s.body, pending)
                return run(s.body, once) if once != pending and s.kind == "serial" else once
            case If():
                yes, no = run(s.body, pending), run(s.orelse, pending)
                return (*no, *yes[len(no):]) if yes[:len(no)] == no else (*no, *yes)
        return pending

    def run(body: Sequence[Stmt], pending: Pending) -> Pending:
        for s in body:
            pending = visit(s, pending)
        return pending

    for m in run(kernel.body, ())[:1]:
        fail(f"products that add to {m.acc.name} are never waited for")
    return list(unproven)


class UnderWay:
    """The products that every thread of a block has begun, at given addresses."""

    def __init__(self) -> None:
        self.begun: dict[int, list[tuple[int, int, int]]] = {}  # thread -> what it has begun, oldest first
        self.active: Counter[tuple[int, int, int]] = Counter()
        self.reads: dict[tuple[int, int, int], list[tuple[Buffer, frozenset[int]]]] = {}

    def begin(self, s: Mma, thread: int, a_at: int, b_at: int) -> None:
        key = id(s), a_at, b_at
        if key not in self.reads:
            rows, columns, depth = s.shape
            operands = [(s.a, a_at, s.a_steps, rows), (s.b, b_at, s.b_steps, columns)]
            self.reads[key] = [(b, frozenset((at + place(np.arange(n)[:, None], np.arange(depth), steps)).reshape(-1).tolist()))
                               for b, at, steps, n in operands if b.space == "shared"]
        self.begun.setdefault(thread, []).append(key)
        self.active[key] += 1

    def wait(self, thread: int | None, left: int) -> None:
        """``thread``, or all of them, waits for all but its last ``left``."""
        for begun in self.begun.values() if thread is None else [self.begun.get(thread, [])]:
            done = begun[:len(begun) - left] if left < len(begun) else []
            self.active.subtract(done)
            del begun[:len(done)]

    def touched(self, b: Buffer, position: int) -> bool:
        """Whether a product that is under way may read this element."""
        return any(n and b == x and position in places for key, n in self.active.items() for x, places in self.reads[key])


__all__ = ["UnderWay", "late_products"]
