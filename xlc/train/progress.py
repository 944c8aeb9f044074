"""A progress bar, by rich: one line per epoch with its metrics, and a bar for the epoch that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .extras import extra
from .run import Callback, Run


def described(metrics: Mapping[str, float]) -> str:
    """Metrics in one line: ``loss 0.123  val_accuracy 0.975``."""
    return "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k not in ("epoch", "step"))


class Bar(Callback):
    """A callback that draws the bar; it is removed when the run ends."""

    def __init__(self) -> None:
        self.progress = extra("rich.progress", "progress bars").Progress(transient=True)
        self.task: Any = None

    def on_start(self, run: Run, epochs: int, batches: int | None) -> None:
        self.epochs, self.batches = epochs, batches
        self.progress.start()
        self._next(run)

    def _next(self, run: Run) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(f"epoch {run.epoch + 1}/{self.epochs}", total=self.batches, completed=run.batch)

    def on_step(self, run: Run, metrics: Mapping[str, float], program: Callable[[], Any]) -> None:
        self.progress.update(self.task, completed=run.batch, description=f"epoch {run.epoch + 1}/{self.epochs}  {described(metrics)}")

    def on_epoch(self, run: Run) -> None:
        self.progress.console.print(f"epoch {run.epoch}/{self.epochs}  {described(run.history[-1])}", highlight=False)
        self._next(run)

    def on_end(self, run: Run) -> None:
        self.progress.stop()
