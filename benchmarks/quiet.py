"""Who else is using our processors: figures taken beside other work mean nothing, so such rounds are taken again.

    patience = Patience(60)
    patience.wait()                     until the machine is quiet, at most as long as patience lasts
    before = reading(); ...; others(before)      -> 0.02, cores that others kept busy meanwhile
    settle()                            until the threads of this process are asleep: pools spin for a while after their work

Where the system does not tell (no /proc), the machine counts as quiet.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

LIMIT = 0.1  # cores; below it a round counts as undisturbed
_PROBE = 0.3  # seconds; the system counts in ticks of 10 ms
_NAP = 0.002

Reading = tuple[float, float]


def reading() -> Reading:
    """The time, and the seconds that processes other than this one and its children have ever used on our processors."""
    return time.perf_counter(), _busy() - sum(os.times()[:4])


def others(before: Reading) -> float:
    """Cores that others kept busy since then, on average."""
    now = reading()
    return max(0.0, (now[1] - before[1]) / max(now[0] - before[0], 1e-9))


def settle(at_most: float = 1.0) -> None:
    """At most a second: OpenMP of torch.compile spins for 200 ms."""
    stop = time.perf_counter() + at_most
    while time.perf_counter() < stop:
        before = time.process_time()
        time.sleep(_NAP)
        if time.process_time() - before < _NAP / 5:
            return


def _busy() -> float:
    """Seconds during which our processors did anything: user, nice, system, irq, softirq, and what the hypervisor gave to others."""
    try:
        with open("/proc/stat", encoding="ascii") as f:
            lines = [line.split() for line in f if line.startswith("cpu")]
    except OSError:
        return sum(os.times()[:4])
    ours = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    return sum(int(line[i]) for line in lines if line[0] in ours for i in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")


@dataclass
class Patience:
    """How many seconds a whole run may still spend on waiting for others and on rounds that they disturbed."""

    seconds: float = 0.0

    def wait(self) -> None:
        while self.seconds > 0:
            before = reading()
            time.sleep(_PROBE)
            if others(before) <= LIMIT:
                return
            self.seconds -= _PROBE

    def accepts(self, share: float, spent: float) -> bool:
        """Is this round good enough? A disturbed one costs patience; when that is gone, everything is."""
        if share <= LIMIT or self.seconds <= 0:
            return True
        self.seconds -= spent
        return False
