"""The 784-500-10 network with everything that was best practice: a decaying rate, L2 on the weights, an average of the weights.

    python examples/mlp_best_practice.py [--smoke] [folder]

Rate 0.8 that decays by 0.99 an epoch, L2 of 1e-4, average 0.99, batches of 100, as on MNIST; here on scikit-learn's 1797 handwritten
digits, brought from 8x8 to the 28x28 pixels of MNIST. The run may be stopped and begun again: it goes on from its last checkpoint. What is
tested and exported is the average of the weights, and it must be right for 97% of the test images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import xlc
from xlc import optim, train

BATCH, TARGET = 100, 0.97


def scores(p, x):
    hidden = xlc.nn.relu(x @ p["w1"] + p["b1"])
    return hidden @ p["w2"] + p["b2"]


def loss(p, x, labels):
    return xlc.nn.cross_entropy(scores(p, x), labels).mean()


def quality(weights):
    """Validation of the average: a function (state, *batch) -> metrics."""
    def metrics(state, x, labels):
        p = weights(state)
        return {"loss": loss(p, x, labels), "accuracy": (scores(p, x).argmax(axis=1) == labels).mean()}

    return metrics


def digits():
    """((images, labels) to train on, to validate, to test): 1237, 200, 360 of them."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.arange(28) * 8 // 28
    images = (images.reshape(-1, 8, 8)[:, pixels][:, :, pixels].reshape(-1, 784) / 16 - 0.3).astype("f4")  # mean about 0
    order = np.random.default_rng(0).permutation(len(images))
    return [(images[rows], labels[rows]) for rows in (order[:1237], order[1237:1437], order[1437:])]


def begin(rng):
    def normal(*shape):
        return np.clip(rng.normal(0, 0.1, shape), -0.2, 0.2).astype("f4")

    return {"w1": normal(784, 500), "b1": np.zeros(500, "f4"), "w2": normal(500, 10), "b2": np.zeros(10, "f4")}


def main(folder: Path, smoke: bool) -> None:
    data, validation, (x, labels) = digits()
    params = begin(np.random.default_rng(1))
    assert sum(p.size for p in params.values()) == 397_510

    decay = optim.exponential(0.8, 0.99, len(data[0]) // BATCH)
    optimizer = optim.chain(optim.weight_decay(1e-4, mask=lambda p: xlc.tree.map(lambda a: a.ndim > 1, p)), optim.sgd(decay))
    average = optim.ema(0.99)
    step = xlc.jit(train.step(loss, optimizer, ema=average), donate="state", dynamic={"batch": {0: "rows"}})

    run = train.fit(step, train.start(params, optimizer, ema=average), train.Batches(data, BATCH, seed=0), epochs=10 if smoke else 60,
                    metrics=quality(lambda state: state["ema"]), validation=[validation],
                    early_stopping=train.EarlyStopping("val_accuracy", patience=20),
                    callbacks=[train.Checkpoints(folder / "run"), train.TensorBoard(folder / "logs", graph=not smoke)],
                    progress=sys.stdout.isatty(), resume=folder / "run")
    best = max(record["val_accuracy"] for record in run.history)
    print(f"{run.epoch} epochs, {run.step} steps, {step.compiles} compilation; best validation accuracy {best:.2%} {run.stopped}")

    weights = average.weights(run.state["ema"], params)
    accuracy = train.evaluate(quality(lambda state: state), weights, [(x, labels)])["accuracy"]
    print(f"test accuracy {accuracy:.2%} ({TARGET:.0%} is the target)")
    assert accuracy >= TARGET

    done = xlc.aot.export(lambda x: scores(weights, x), [xlc.spec(("batch", 784), "f4")], folder / "scores.so", name="scores")
    same = np.array_equal(xlc.aot.load(done.library)(x), xlc.jit(lambda x: scores(weights, x), dynamic={"x": {0: "batch"}})(x))
    print(f"exported to {done.library}, equal to the compiled function bit for bit: {same}")
    assert same


if __name__ == "__main__":
    rest = [a for a in sys.argv[1:] if a != "--smoke"]
    main(Path(rest[0] if rest else "out/mlp"), "--smoke" in sys.argv)
