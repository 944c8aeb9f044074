"""A run of training, and what is called while it goes on.

    class Print(Callback):
        def on_epoch(self, run): print(run.epoch, run.history[-1]["loss"])

A ``Run`` holds all that a resumed run needs: the state, how far it is, the sums of the current epoch, the history, the best state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """A run, while it goes on and afterwards. The next step overwrites the arrays of ``state``: a callback that keeps them copies them.

    state    what the step carries                      epoch    epochs that are complete
    step     steps that are complete, in all            batch    steps that are complete in the current epoch
    sums     of each metric in the current epoch, weighted by rows, and ``rows`` themselves
    history  a record per epoch: epoch, step, means of the metrics, and of validation as val_...
    best     the state of the best epoch, under early stopping
    stopped  why the run ended before its last epoch; empty if it did not. A callback ends a run by writing here"""

    state: Any
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: Any = None
    stopped: str = ""


class Callback:
    """What is called during a run. ``epochs`` and ``batches`` (of an epoch, None if unknown) say how long the run is; ``program()`` is the
    compiled step, with its graph and its plan. A function of the run alone serves as a callback that is called after each epoch."""

    def on_start(self, run: Run, epochs: int, batches: int | None) -> None:
        """Before the first step."""

    def on_step(self, run: Run, metrics: Mapping[str, float], program: Callable[[], Any]) -> None:
        """After each step."""

    def on_epoch(self, run: Run) -> None:
        """After each epoch; ``run.history[-1]`` is its record."""

    def on_end(self, run: Run) -> None:
        """At the end, also after an exception."""
