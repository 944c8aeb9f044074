"""Timing: contestants of one workload, taken in turn, and what came of it.

    row = contest("softmax 4096x1024", {"xlc": lambda: calls(f, inputs), "numpy": lambda: calls(g, inputs)}, expected=..., ...)

Every round times each contestant once, so that a machine whose clock or neighbours change does so for all alike. A sample is the mean of as
many calls as fill ``Scale.sample`` seconds; what is reported is the median over rounds and the 10th and 90th percentile. Rounds that other
processes disturbed are taken again as long as patience lasts, and else noted. A contestant that is not installed, fails, or gives a wrong
result is named with the reason and not timed.
"""

from __future__ import annotations

import itertools
import sys
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import quiet

Build = Callable[[], "Contestant"]
US = "xlc"
MISSING = "not installed"


class Missing(Exception):
    """A contestant that is not installed here."""


@dataclass(frozen=True)
class Scale:
    """How much work one run does. ``smoke`` shrinks every workload to nothing: it shows that all works, its times mean nothing.
    ``settle``: each sample waits until the threads of the contestant before sleep; there is no need where a GPU does the work."""

    smoke: bool = False
    rounds: int = 21
    sample: float = 0.02
    patience: quiet.Patience = field(default_factory=quiet.Patience)
    settle: bool = True

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.smoke else full


SMOKE = Scale(smoke=True, rounds=2, sample=0.0002)


@dataclass(frozen=True)
class Contestant:
    """``seconds(n)`` is the time of n calls. ``result()`` makes one call and gives its result as NumPy arrays; None where there is nothing
    to check. ``work`` overrides the row's work per call; a ``yardstick`` is shown and measured against but is no rival; ``warm`` is off
    where each call is a process of its own, which nothing warms."""

    seconds: Callable[[int], float]
    result: Callable[[], Any] | None = None
    work: float | None = None
    yardstick: bool = False
    warm: bool = True


def calls(f: Callable[..., Any], inputs: Sequence[tuple[Any, ...]], read: Callable[[Any], Any] = np.asarray) -> Contestant:
    """A contestant that is a Python callable, whose result is there when it returns; ``inputs`` are taken in turn."""

    def seconds(n: int) -> float:
        turns = itertools.islice(itertools.cycle(inputs), n)
        start = time.perf_counter()
        for args in turns:
            out = f(*args)
        stop = time.perf_counter()
        del out
        return stop - start

    return Contestant(seconds, lambda: read(f(*inputs[0])))


def statement(source: str, scope: dict[str, Any], read: Callable[[Any], Any] = np.asarray) -> Contestant:
    """A contestant that is an expression, for calls so short that a wrapper would count."""
    return Contestant(timeit.Timer(source, globals=scope).timeit, lambda: read(eval(source, scope)))  # noqa: S307 our own text


@dataclass(frozen=True)
class Stats:
    """Seconds per call."""

    samples: tuple[float, ...]
    work: float

    def _at(self, q: float) -> float:
        return float(np.percentile(self.samples, q))

    @property
    def median(self) -> float:
        return self._at(50)

    @property
    def low(self) -> float:
        return self._at(10)

    @property
    def high(self) -> float:
        return self._at(90)

    @property
    def rate(self) -> float:
        """Work per second: bytes or operations."""
        return self.work / self.median


@dataclass(frozen=True)
class Verdict:
    """One bar of the table and whether it is met (None: cannot be said here)."""

    bar: str
    found: str
    met: bool | None


@dataclass
class Row:
    """One workload: what each contestant took, who is absent and why, and the verdicts on the bars. ``unit`` names what ``work`` counts
    ("B", "FLOP", or "" for time alone); rates are a percentage of that of the fastest yardstick whose name begins with ``limit``."""

    workload: str
    unit: str = ""
    limit: str | None = None
    stats: dict[str, Stats] = field(default_factory=dict)
    yardsticks: frozenset[str] = frozenset()
    absent: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    disturbed: bool = False

    @property
    def us(self) -> Stats | None:
        return self.stats.get(US)

    def best(self, among: Sequence[str] | None = None) -> str | None:
        """The fastest rival, by its median; ``among`` are beginnings of names ("jax" covers "jax, donated")."""
        rivals = [n for n in self.stats if not n.startswith(US) and n not in self.yardsticks
                  and (among is None or any(n.startswith(a) for a in among))]
        return min(rivals, key=lambda n: self.stats[n].median, default=None)

    def judge(self, bar: str, found: str, met: bool | None) -> None:
        self.verdicts.append(Verdict(bar, found, met))

    def fastest(self, yardstick: str | None) -> Stats | None:
        """The best of the yardsticks whose names begin so: "copy" has several ways."""
        found = [self.stats[n] for n in self.yardsticks if yardstick and n.startswith(yardstick)]
        return max(found, key=lambda s: s.rate, default=None)

    def faster_than_best(self, among: Sequence[str] | None = None) -> None:
        """The bar "at least as fast as the best of these"."""
        bar = f"faster than the best of {', '.join(among)}" if among else "faster than the best peer"
        rival = self.best(among)
        if self.us is None or rival is None:
            self.judge(bar, f"no {US}" if self.us is None else "no peer here", False if self.us is None else None)
            return
        ratio = self.stats[rival].median / self.us.median
        self.judge(bar, f"{ratio:.2f}x of {rival}", ratio >= 1)

    def under(self, seconds: float, bar: str | None = None) -> None:
        """The bar "takes less than so many seconds"."""
        found = duration(self.us.median) if self.us else f"no {US}"
        self.judge(bar or f"under {duration(seconds)}", found, self.us is not None and self.us.median < seconds)

    def share(self, of: str, least: float, bar: str) -> None:
        """The bar "at least this share of the rate of that yardstick"."""
        limit = self.fastest(of)
        if self.us is None or limit is None:
            self.judge(bar, f"no {US}" if self.us is None else f"no {of}", False if self.us is None else None)
            return
        found = self.us.rate / limit.rate
        self.judge(bar, f"{found:.0%}", found >= least)

    def json(self) -> dict[str, Any]:
        taken = {n: {"median": s.median, "p10": s.low, "p90": s.high, "work": s.work, "samples": s.samples} for n, s in self.stats.items()}
        return {"workload": self.workload, "unit": self.unit, "absent": self.absent, "notes": self.notes, "contestants": taken,
                "disturbed": self.disturbed, "verdicts": [{"bar": v.bar, "found": v.found, "met": v.met} for v in self.verdicts]}


def contest(scale: Scale, workload: str, contestants: Mapping[str, Build], *, work: float = 0.0, unit: str = "", limit: str | None = None,
            expected: Any = None, tolerance: float = 1e-4) -> Row:
    """Build, check and time the contestants of one workload."""
    row = Row(workload, unit, limit)
    ready: dict[str, Contestant] = {}
    for name, build in contestants.items():
        try:
            ready[name] = checked(build(), expected, tolerance)
        except Missing as reason:
            row.absent[name] = f"{MISSING} ({reason})"
        except Exception as error:  # a contestant that breaks must not end the run: it is named, and the bar is not met
            row.absent[name] = reason_of(error)
    row.yardsticks = frozenset(n for n, c in ready.items() if c.yardstick)
    samples, shares = rounds(ready, scale)
    for name, contestant in ready.items():
        row.stats[name] = Stats(tuple(samples[name]), work if contestant.work is None else contestant.work)
    if not scale.smoke and (disturbed := [s for s in shares if s > quiet.LIMIT]):
        row.disturbed = 2 * len(disturbed) > len(shares)
        row.notes.append(f"disturbed: others kept up to {max(disturbed):.1f} cores busy in {len(disturbed)} of {len(shares)} rounds")
    return row


def reason_of(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip() or '?'}".splitlines()[0][:200]


def rounds(contestants: Mapping[str, Contestant], scale: Scale) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds per call of every contestant, one sample per round; and for each round the cores that others kept busy."""
    scale.patience.wait()
    counts = {name: _calls_per_sample(c, scale.sample) for name, c in contestants.items()}
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    shares: list[float] = []
    while len(shares) < scale.rounds:
        first = len(shares) % max(len(contestants), 1)
        order = [*contestants][first:] + [*contestants][:first]
        before = quiet.reading()
        taken = {name: _sample(contestants[name], counts[name], scale) for name in order}
        share = quiet.others(before)
        if not scale.patience.accepts(share, time.perf_counter() - before[0]):
            scale.patience.wait()
            continue
        shares.append(share)
        for name, seconds in taken.items():
            samples[name].append(seconds)
    return samples, shares


def _sample(c: Contestant, n: int, scale: Scale) -> float:
    """Seconds per call of n calls, once the threads of the contestant before sleep, and after some calls to warm up."""
    if scale.settle and not scale.smoke:
        quiet.settle()
    if c.warm:
        c.seconds(1 + n // 8)
    return c.seconds(n) / n


def _calls_per_sample(c: Contestant, sample: float) -> int:
    n = 1
    while (spent := c.seconds(n)) < sample / 4:
        n *= 4
    return max(1, round(n * sample / max(spent, 1e-9)))


def checked(c: Contestant, expected: Any, tolerance: float) -> Contestant:
    """The contestant, once its result is seen to be right. The error is measured against the largest element expected."""
    found = c.result() if c.result else None
    if expected is None or found is None:
        return c
    want, got = (list(x) if isinstance(x, (tuple, list)) else [x] for x in (expected, found))
    if len(want) != len(got):
        raise ValueError(f"wrong result: {len(got)} arrays, expected {len(want)}")
    for w, g in zip(want, got, strict=True):
        if np.shape(g) != np.shape(w):
            raise ValueError(f"wrong result: shape {np.shape(g)}, expected {np.shape(w)}")
        error = float(np.max(np.abs(np.asarray(g, np.float64) - w), initial=0.0)) / max(float(np.max(np.abs(w), initial=0.0)), 1e-30)
        if not error <= tolerance:
            raise ValueError(f"wrong result: off by {error:.2g} of the largest element")
    return c


# ---------------------------------------------------------------------------------------------- text

def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= 0.9995 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def amount(n: float, unit: str = "B") -> str:
    step = 1024.0 if unit == "B" else 1000.0
    for prefix in ("", "K", "M", "G"):
        if n < step or prefix == "G":
            return f"{n:.3g} {prefix}{unit}"
        n /= step
    raise AssertionError


def show(row: Row) -> str:
    """A row with all its contestants, as text."""
    lines = [f"\n{row.workload}"]
    limit = row.fastest(row.limit)
    width = max((len(n) for n in (*row.stats, *row.absent)), default=0)
    for name, s in sorted(row.stats.items(), key=lambda item: item[1].median):
        text = f"  {name:{width}}  {duration(s.median):>8}   {duration(s.low):>8} to {duration(s.high):<8}"
        if row.unit and s.work:
            text += f" {s.rate / 1e9:8.1f} G{row.unit}/s" + (f"  {s.rate / limit.rate:4.0%} of {row.limit}" if limit else "")
        lines.append(text + ("  (yardstick)" if name in row.yardsticks else ""))
    lines += [f"  {name:{width}}  {reason}" for name, reason in row.absent.items() if not reason.startswith(MISSING)]
    lines += [f"  note: {n}" for n in row.notes]
    lines += [f"  {mark(row, v)}: {v.bar}: {v.found}" for v in row.verdicts]
    return "\n".join(lines)


def mark(row: Row, v: Verdict) -> str:
    """Whether the bar is met; a row that others disturbed for most of its rounds decides nothing."""
    return "disturbed" if row.disturbed else {True: "met", False: "MISSED", None: "open"}[v.met]


def summary(rows: Sequence[Row]) -> str:
    """All verdicts as one Markdown table."""
    head = ("workload", "xlc", "best peer", "bar", "found", "")
    body = []
    for row in rows:
        rival = row.best()
        for i, v in enumerate(row.verdicts):
            ours = duration(row.us.median) if row.us and not i else ""
            theirs = f"{duration(row.stats[rival].median)} {rival}" if rival and not i else ""
            body.append(("" if i else row.workload, ours, theirs, v.bar, v.found, mark(row, v)))
    return table(head, body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    lines = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in (head, ["-" * w for w in widths], *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def say(text: str) -> None:
    print(text, flush=True)


def progress(text: str) -> None:
    """What is being done now, where a person watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
