"""Three sequence networks: a language model of characters, a GPT that writes, a translator that writes words backwards.

    python examples/train_sequences.py [--smoke]

Real text: the licence and the descriptions that scikit-learn's data sets come with, in 27 symbols (a to z and space). The LSTM carries its
state from batch to batch; the perplexity of the language models on text that they have not seen must be below 10 (LSTM) and 11 (GPT); that
of a uniform guess is 27. The translator is given random words, and must write 90% of new words backwards without a mistake. The smoke test
trains less, for targets that show that something is learnt. All steps of a run are one compiled program.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from networks import network, transformer, translation
from sklearn import datasets

import xlc


def corpus() -> np.ndarray:
    """Symbols 0 (space) to 26 (z)."""
    text = "".join(load().DESCR for load in (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_diabetes,
                                             datasets.load_digits, datasets.load_linnerud)).lower()
    ids = np.array([ord(c) - 96 if "a" <= c <= "z" else 0 for c in text])
    return ids[(ids > 0) | (np.roll(ids, 1) > 0)]  # one space at a time


def characters(epochs: int, target: float) -> None:
    """Rows of the text side by side, 10 symbols at a time, as long as the rows are."""
    net, ids, rows = replace(network("char-lstm", full=True), optimizer=xlc.optim.adam(1e-2)), corpus(), 64
    length = len(ids) // rows
    columns = ids[:rows * length].reshape(rows, length).T
    split = length * 9 // 10
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    for _ in range(epochs):
        for t in range(0, split - 10, 10):
            run, _ = step(run, columns[t:t + 10], columns[t + 1:t + 11])
    check = xlc.jit(net.loss)
    costs, state = [], run["state"]
    for t in range(split, length - 10, 10):
        cost, state = check(run["params"], state, None, columns[t:t + 10], columns[t + 1:t + 11])
        costs.append(cost / 10)
    report("character LSTM", np.exp(np.mean(costs)), target, step)


def gpt(steps: int, target: float) -> None:
    model = transformer.GPT(27, 64, 4, 2, 64)
    net, ids, rng = transformer.trained(model, 16), corpus(), np.random.default_rng(0)
    split = len(ids) * 9 // 10
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))

    def batch(lo: int, hi: int) -> list[np.ndarray]:
        places = rng.integers(lo, hi - model.context, 16)[:, None] + np.arange(model.context)
        return [ids[places], ids[places + 1]]

    for _ in range(steps):
        run, _ = step(run, *batch(0, split - 1))
    costs = [xlc.jit(net.loss)(run["params"], {}, None, *batch(split, len(ids) - 1))[0] for _ in range(4)]
    report("GPT", np.exp(np.mean(costs)), target, step)
    written = model.generate(run["params"], ids[None, :8], 50, xlc.random.key(1))[0]
    print("  it writes:", "".join(" abcdefghijklmnopqrstuvwxyz"[k] for k in [*ids[:8], *written]))


def backwards(steps: int, target: float) -> None:
    translator = translation.Translator(translation.LETTER + 8, 64, 1)
    net, rng = translation.trained(translator, 6, 64), np.random.default_rng(0)
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    for _ in range(steps):
        run, _ = step(run, *net.batch(rng))
    source, _, right = net.batch(rng)
    for how in (lambda p: translator.greedy(p, source, 7)[0], lambda p: translator.beam(p, source, 7, 4)[0][:, 0]):
        written = xlc.jit(how)(run["params"])
        report("words backwards, wrong", float((written != right.T).any(1).mean()), target, step)


def report(name: str, reached: float, target: float, step: object) -> None:
    print(f"{name:24} {reached:.3f}  target {target}  {step.compiles} compilation")
    assert reached <= target and step.compiles == 1


def main(smoke: bool) -> None:
    characters(*(2, 16) if smoke else (12, 10))
    gpt(*(60, 17) if smoke else (400, 11))
    backwards(*(150, 0.8) if smoke else (800, 0.1))


if __name__ == "__main__":
    main("--smoke" in sys.argv)
