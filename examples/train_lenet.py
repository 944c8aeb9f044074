"""LeNet-5 at its published size, on real digits.

    python examples/train_lenet.py [--smoke]

The data are scikit-learn's 1797 handwritten digits, brought from 8x8 to the 32x32 pixels of LeNet-5: 1437 to learn from, 360 to test. It
must be right for 98% of those (93% after the three epochs of the smoke test). The last batch of an epoch is smaller, and the rate falls
with each step; both are inputs of the one program that is compiled. What is tested is the exported library.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from networks import network
from sklearn.datasets import load_digits

import xlc
from xlc import train


def digits():
    """(images (n, 32, 32, 1) of mean 0, labels), in random order."""
    images, labels = load_digits(return_X_y=True)
    large = xlc.nn.resize(images.reshape(-1, 8, 8, 1).astype("f4"), (32, 32), method="bilinear")
    order = np.random.default_rng(0).permutation(len(labels))
    return ((large - large.mean()) / large.std())[order], labels[order]


def main(epochs: int, target: float) -> None:
    images, labels = digits()
    rate = xlc.optim.cosine(0.03, epochs * 15)
    net = replace(network("lenet5", full=True), optimizer=xlc.optim.momentum(rate, 0.9))
    assert net.parameters == 61_706

    step = xlc.jit(net.advance, donate="run", dynamic={"batch": {0: "rows"}})
    run = train.fit(step, net.begin(xlc.random.key(0)), train.Batches((images[:1437], labels[:1437]), 100, seed=0), epochs=epochs,
                    progress=sys.stdout.isatty())
    print(f"{run.epoch} epochs, {run.step} steps, {step.compiles} compilation, loss {run.history[-1]['loss']:.4f}")
    assert step.compiles == 1

    params, state = run.state["params"], run.state["state"]
    with tempfile.TemporaryDirectory() as folder:
        specs = [xlc.spec(("batch", 32, 32, 1), "f4")]
        done = xlc.aot.export(lambda x: net.apply(params, state, x), specs, Path(folder) / "lenet5.so", name="lenet5")
        accuracy = (xlc.aot.load(done.library)(images[1437:]).argmax(1) == labels[1437:]).mean()
    print(f"test accuracy of the library {accuracy:.2%} ({target:.0%} is the target)")
    assert accuracy >= target


if __name__ == "__main__":
    main(*(3, 0.93) if "--smoke" in sys.argv else (20, 0.98))
