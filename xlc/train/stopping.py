"""Early stopping: as a pure function of the history, so that a resumed run stops where an uninterrupted one does.

    EarlyStopping("val_loss", patience=3).verdict(history) -> (number of the best epoch, stop now?)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import XlcValueError


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in a row in which ``monitor`` was not better than its best by more than ``min_delta``.

    monitor  a metric of the history: "loss", "val_accuracy", ...; nan is never better
    mode     "min", "max", or "auto": max for names that end in accuracy
    restore  the run ends with the state of its best epoch"""

    monitor: str = "val_loss"
    patience: int = 5
    min_delta: float = 0.0
    mode: str = "auto"
    restore: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max", "auto") or self.patience < 1 or self.min_delta < 0:
            raise XlcValueError("early stopping expects mode min, max or auto, a patience of at least 1, a min_delta of at least 0; "
                                f"found {self}")

    def verdict(self, history: Sequence[Mapping[str, float]]) -> tuple[int, bool]:
        """The best epoch so far, counted from 0, and whether patience is at its end."""
        sign = -1.0 if self.mode == "max" or (self.mode == "auto" and self.monitor.endswith("accuracy")) else 1.0
        best, at = math.inf, -1
        for k, record in enumerate(history):
            if self.monitor not in record:
                raise XlcValueError(f"early stopping monitors {self.monitor!r}, and an epoch has {', '.join(record)}")
            value = sign * record[self.monitor]
            if value < best - self.min_delta or (at < 0 and value == value):
                best, at = value, k
        return max(at, 0), len(history) - 1 - max(at, 0) >= self.patience
