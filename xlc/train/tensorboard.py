"""Logs for TensorBoard, through its own package, without TensorFlow: ``tensorboard --logdir logs``.

    with Writer("logs/first") as log:
        log.scalar("loss", 0.7, step=100)
        log.histogram("w", w, step=100)
        log.graph(step.compile(state, x, y))            the graph page: before fusion, and the kernels after it

``TensorBoard("logs/first")`` is the callback of ``fit`` that writes all of these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import tree
from ..errors import XlcTypeError
from .extras import extra
from .graphdef import after, before
from .run import Callback, Run

_PURPOSE = "TensorBoard logs"


class Writer:
    """An event file in ``folder``. Its graphs are runs of their own beside it, ``folder/before-fusion`` and ``folder/after-fusion``, as a
    run of TensorBoard has one graph."""

    def __init__(self, folder: Any):
        self.folder = Path(folder)
        self.events = extra("tensorboard.compat.proto.event_pb2", _PURPOSE)
        self._file = self._open(self.folder)

    @staticmethod
    def _open(folder: Path) -> Any:
        return extra("tensorboard.summary.writer.event_file_writer", _PURPOSE).EventFileWriter(os.fspath(folder))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._add(extra("tensorboard.plugins.scalar.summary_v2", _PURPOSE).scalar_pb(tag, float(value)), step)

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """The distribution of the finite elements of an array."""
        flat = np.asarray(values).astype(np.float64).ravel()
        self._add(extra("tensorboard.plugins.histogram.summary_v2", _PURPOSE).histogram_pb(tag, flat[np.isfinite(flat)]), step)

    def _add(self, summary: Any, step: int) -> None:
        self._file.add_event(self.events.Event(wall_time=time.time(), step=int(step), summary=summary))

    def graph(self, program: Any) -> None:
        """The graph of a compiled program (what ``f.compile(x)`` gives), as traced and as fused."""
        if not hasattr(program, "after"):
            raise XlcTypeError(f"a compiled program is expected, such as f.compile(x), found {type(program).__name__}")
        for name, drawn in (("before-fusion", before(program.after("trace"))), ("after-fusion", after(program.after("fuse")))):
            file = self._open(self.folder / name)
            file.add_event(self.events.Event(wall_time=time.time(), graph_def=drawn.SerializeToString()))
            file.close()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TensorBoard(Callback):
    """A callback that logs a run into ``folder``: metrics of every ``every``-th step as step/..., means of each epoch as epoch/...,
    histograms, and the graph of the step.

    histograms  what to log after each epoch, as a function of the state: by default state["params"], if it has that; None for nothing
    graph       draw the compiled step, before and after fusion"""

    def __init__(self, folder: Any, *, every: int = 10, histograms: Callable[[Any], Any] | None = lambda state: _params(state),
                 graph: bool = True):
        self.folder, self.every, self.histograms, self.graph = folder, max(1, every), histograms, graph
        self.writer: Writer | None = None

    def on_start(self, run: Run, epochs: int, batches: int | None) -> None:
        self.writer, self.drawn = Writer(self.folder), not self.graph

    def on_step(self, run: Run, metrics: Mapping[str, float], program: Callable[[], Any]) -> None:
        assert self.writer is not None
        if not self.drawn:
            self.writer.graph(program())
            self.drawn = True
        if run.step % self.every == 0:
            for name, value in metrics.items():
                self.writer.scalar(f"step/{name}", value, run.step)

    def on_epoch(self, run: Run) -> None:
        assert self.writer is not None
        for name, value in run.history[-1].items():
            if name not in ("epoch", "step"):
                self.writer.scalar(f"epoch/{name}", value, run.step)
        if self.histograms is not None:
            shown = self.histograms(run.state)
            for name, leaf in zip(tree.names(shown), tree.leaves(shown), strict=True):
                self.writer.histogram(name, leaf, run.step)
        self.writer.flush()

    def on_end(self, run: Run) -> None:
        if self.writer is not None:
            self.writer.close()


def _params(state: Any) -> Any:
    return state["params"] if isinstance(state, dict) and "params" in state else ()
