"""Image classifiers on images that never come twice.

    python examples/train_classifiers.py [--smoke] [NAME ...]         default: one of each family, at the size of the tests

Synthetic data of the networks' shapes: each class is a coarse random pattern under noise (``networks.classifier.patterns``). Accuracy on
images that were not seen must be 90%, where guessing gives 10%.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
from networks import network

import xlc
from xlc import optim

FAMILIES = {  # name -> its optimiser here, and steps
    "lenet": (optim.adam(2e-3), 150), "cifar": (optim.adam(1e-3), 150), "resnet-cifar": (optim.momentum(0.02, 0.9), 150),
    "alexnet": (optim.adam(1e-3), 400), "vgg-d": (optim.adam(5e-4), 2000),
    "googlenet": (optim.adam(2e-3), 250),
    "resnet50": (optim.momentum(0.01, 0.9), 200)}
TARGET = 0.9


def learn(name: str, steps: int, optimizer) -> float:
    """Accuracy in inference on fresh images after so many steps on fresh images."""
    net, rng = replace(network(name), optimizer=optimizer), np.random.default_rng(0)
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    for _ in range(steps):
        run, _ = step(run, *net.batch(rng))
    apply = xlc.jit(net.apply)
    right = []
    for _ in range(50):
        images, labels = net.batch(rng)
        right.append(apply(run["params"], run["state"], images).argmax(-1) == labels)
    return float(np.mean(right))


def main(names: list[str], smoke: bool) -> None:
    for name in names or (["lenet", "resnet-cifar"] if smoke else FAMILIES):
        optimizer, steps = FAMILIES.get(name, (optim.adam(1e-3), 400))
        start = time.perf_counter()
        accuracy = learn(name, steps, optimizer)
        print(f"{name:16} {steps} steps  {time.perf_counter() - start:5.1f} s  accuracy {accuracy:.1%}  target {TARGET:.0%}", flush=True)
        assert accuracy >= TARGET, name


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--smoke"], "--smoke" in sys.argv)
