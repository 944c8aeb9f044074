"""Training: a loop, with batches, validation, early stopping, checkpoints, logs.

    optimizer = xlc.optim.adam(1e-3)
    run = xlc.train.fit(
        xlc.train.step(loss, optimizer),                                loss(params, x, y) -> a number
        xlc.train.start(params, optimizer),
        xlc.train.Batches((x, y), 100, seed=0), epochs=20,
        metrics=lambda state, x, y: {"accuracy": accuracy(state["params"], x, y)}, validation=xlc.train.Batches((x2, y2), 500),
        early_stopping=xlc.train.EarlyStopping("val_accuracy", patience=3),
        callbacks=[xlc.train.Checkpoints("run"), xlc.train.TensorBoard("logs")], resume="run")
    run.state["params"], run.history

One step (forward, backward, update) is one compiled program, also for the last, smaller batch. A run that was interrupted and resumed is
the same, bit for bit, as one that was not. Progress bars, TensorBoard logs and checkpoints need ``pip install xlc[train]``.
"""

from .checkpoint import Checkpoints, latest, load, metadata, save
from .data import Batches
from .loop import evaluate, fit
from .run import Callback, Run
from .step import start, step
from .stopping import EarlyStopping
from .tensorboard import TensorBoard, Writer

__all__ = ["Batches", "Callback", "Checkpoints", "EarlyStopping", "Run", "TensorBoard", "Writer", "evaluate", "fit", "latest", "load",
           "metadata", "save", "start", "step"]
