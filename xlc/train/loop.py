"""The loop: epochs over batches, a step for each, means of the metrics, and callbacks.

    run = fit(step, state, Batches((x, y), 100, seed=0), epochs=10)
    run.state, run.history                                      [{"epoch": 1, "step": 15, "loss": 0.7}, ...]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .. import tree
from ..errors import XlcTypeError, XlcValueError
from ..frontend.devices import to_host
from ..frontend.jit import jit
from .checkpoint import read_run
from .progress import Bar
from .run import Callback, Run
from .stopping import EarlyStopping


class _AfterEpoch(Callback):
    def __init__(self, call: Callable[[Run], Any]):
        self.call = call

    def on_epoch(self, run: Run) -> None:
        self.call(run)


def fit(step: Callable[..., Any], state: Any, data: Any, *, epochs: int, metrics: Callable[..., Any] | None = None, validation: Any = None,
        early_stopping: EarlyStopping | None = None, callbacks: Sequence[Any] = (), progress: bool = False, resume: Any = None,
        device: str | None = None) -> Run:
    """Train for ``epochs`` epochs.

    step            f(state, *batch) -> (state, metrics), metrics a number or a dict of numbers: see ``train.step``. It is jitted with its
                    state donated and its batch of a named size; one that is jitted already is used as it is
    state           any pytree; it is copied once, the caller's arrays stay as they are
    data            ``Batches``, a list or another iterable of batches, or a function epoch -> iterable. A batch is a tuple or list of
                    arguments of the step, or one argument
    metrics         f(state, *batch) -> a number or a dict of numbers, to be averaged over ``validation`` after each epoch; without it, the
                    loss of ``step`` is not computed there
    early_stopping  ``EarlyStopping(...)``
    callbacks       ``Callback`` objects, or functions that are called with the ``Run`` after each epoch
    progress        a progress bar on the terminal
    resume          a checkpoint, or the folder of ``Checkpoints``: the run goes on from the newest one, if there is any
    device          where step and metrics run: see ``jit``. On "cuda" the state stays there, and batches of NumPy arrays are copied to it

    Raises XlcValueError for an epoch without batches, XlcTypeError for a step that changes the type of its state."""
    if (metrics is None) != (validation is None):
        raise XlcTypeError("validation needs both what is computed, metrics=f(state, *batch), and where, validation=data")
    run = (read_run(resume, state) if resume is not None else None) or Run(tree.map(_copied, state))
    compiled = _jitted(step, device, donate=True)
    check = None if metrics is None else _jitted(metrics, device)
    listeners = [c if isinstance(c, Callback) else _AfterEpoch(c) for c in [*([Bar()] if progress else []), *callbacks]]
    batches = len(data) if hasattr(data, "__len__") else None
    try:
        for listener in listeners:
            listener.on_start(run, epochs, batches)
        while run.epoch < epochs and not run.stopped:
            _epoch(run, compiled, data, listeners)
            means = {} if check is None else {f"val_{k}": v for k, v in evaluate(check, run.state, validation).items()}
            _finish(run, means, early_stopping)
            for listener in listeners:
                listener.on_epoch(run)
    finally:
        for listener in listeners:
            listener.on_end(run)
    if early_stopping is not None and early_stopping.restore and run.best is not None:
        run.state = tree.map(_copied, run.best)
    return run


def _epoch(run: Run, step: Any, data: Any, listeners: Sequence[Callback]) -> None:
    """The rest of the current epoch."""
    for batch in islice(_batches(data, run.epoch), run.batch, None):
        arguments = _arguments(batch)
        before = _types(run.state) if run.step == 0 else None
        out = step(run.state, *arguments)
        if not isinstance(out, tuple) or len(out) != 2:
            raise XlcTypeError(f"a training step returns (state, metrics), found {type(out).__name__}")
        run.state, found = out[0], _numbers(out[1])
        if before is not None:
            _check_types(before, _types(run.state))
        run.step, run.batch = run.step + 1, run.batch + 1
        _add(run.sums, found, rows := _rows(batch))
        run.rows += rows
        for listener in listeners:
            listener.on_step(run, found, lambda arguments=arguments: step.compile(run.state, *arguments))  # type: ignore[misc]
        if run.stopped:
            break
    if run.batch == 0:
        raise XlcValueError(f"the data gave no batch in epoch {run.epoch + 1}" +
                            ("; an iterator can be read once: pass a list, Batches, or a function of the epoch that makes an iterator"
                             if isinstance(data, Iterator) else ""))


def _finish(run: Run, means: Mapping[str, float], early_stopping: EarlyStopping | None) -> None:
    """The epoch becomes a record of the history."""
    run.epoch += 1
    run.history.append({"epoch": run.epoch, "step": run.step, **{k: v / max(run.rows, 1) for k, v in run.sums.items()}, **means})
    run.batch, run.sums, run.rows = 0, {}, 0
    if early_stopping is not None:
        best, over = early_stopping.verdict(run.history)
        if best == len(run.history) - 1 and early_stopping.restore:
            run.best = tree.map(_copied, run.state)
        if over and not run.stopped:
            run.stopped = f"{early_stopping.monitor} was best in epoch {best + 1}"


def evaluate(f: Callable[..., Any], state: Any, data: Any, device: str | None = None) -> dict[str, float]:
    """The means, over all rows of ``data``, of what f(state, *batch) gives: a number, called "loss", or a dict of numbers, each a mean over
    the rows of its batch."""
    compiled = _jitted(f, device)
    sums: dict[str, float] = {}
    total = 0
    for batch in _batches(data, 0):
        rows = _rows(batch)
        _add(sums, _numbers(compiled(state, *_arguments(batch))), rows)
        total += rows
    return {k: v / max(total, 1) for k, v in sums.items()}


# ------------------------------------------------------------------------------------------------ pieces


def _copied(leaf: Any) -> np.ndarray:
    """A new array, on the host."""
    return np.array(to_host(leaf))


def _jitted(f: Callable[..., Any], device: str | None = None, donate: bool = False) -> Any:
    """f compiled once for every number of rows; the first argument is the state."""
    if hasattr(f, "lower"):
        return f
    first, *rest = inspect.signature(f).parameters
    return jit(f, donate=first if donate else (), dynamic={name: {0: "batch"} for name in rest}, device=device)


def _batches(data: Any, epoch: int) -> Iterable[Any]:
    return data(epoch) if callable(data) else data


def _arguments(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def _rows(batch: Any) -> int:
    leaves = tree.leaves(batch)
    return int(np.shape(leaves[0])[0]) if leaves and np.ndim(leaves[0]) else 1


def _numbers(found: Any) -> dict[str, float]:
    values = found if isinstance(found, Mapping) else {"loss": found}
    wrong = next((k for k, v in values.items() if np.ndim(v)), None)
    if wrong is not None:
        raise XlcTypeError(f"a metric is one number per batch, and {wrong!r} has shape {np.shape(values[wrong])}; write .mean()")
    return {k: float(v) for k, v in values.items()}


def _add(sums: dict[str, float], found: Mapping[str, float], rows: int) -> None:
    for k, v in found.items():
        sums[k] = sums.get(k, 0.0) + v * rows


def _types(state: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    leaves, nest = tree.flatten(state)
    return nest, [(getattr(leaf, "dtype", None) or np.asarray(leaf).dtype, np.shape(leaf)) for leaf in leaves]


def _check_types(before: tuple[Any, Any], after: tuple[Any, Any]) -> None:
    (nest, types), (other, found) = before, after
    if nest != other:
        raise XlcTypeError(f"a training step returns a state nested as the one it is given, {nest}, found {other}")
    for path, was, now in zip(tree.paths(nest, "state"), types, found, strict=True):
        if was != now:
            raise XlcTypeError(f"a training step keeps the types of its state, and {path} was {was[0]}{list(was[1])} and became "
                               f"{now[0]}{list(now[1])}; convert it with astype, or begin with the other")
