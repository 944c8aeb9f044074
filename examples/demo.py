"""From a NumPy function to a trained model in a C program. ``make demo`` runs this.

Trains a 64-500-10 network on scikit-learn's handwritten digits, each step (forward, backward, update) one compiled call; exports the
classifier as a shared library; compiles a C program that classifies the test images with it; compares fused with unfused; writes a report.

    python examples/demo.py [--smoke] [folder]          the folder, out/demo by default, receives digits.so, digits.h, digits, report.html
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import xlc
from xlc.run.explain import human, number, work_of
from xlc.tools.report import write_report

EPOCHS, BATCH, DECAY = 60, 100, 1e-4
HERE = Path(__file__).resolve().parent


# ------------------------------------------------------------------------------------------------ the program: plain NumPy


def scores(p, x):
    hidden = np.maximum(x @ p["w1"] + p["b1"], 0)
    return hidden @ p["w2"] + p["b2"]


def loss(p, x, labels):
    penalty = (p["w1"] ** 2).sum() + (p["w2"] ** 2).sum()
    return xlc.nn.cross_entropy(scores(p, x), labels).mean() + DECAY * penalty


def step(p, x, labels, rate):
    """One step of gradient descent: (loss, new parameters)."""
    value, gradient = xlc.value_and_grad(loss)(p, x, labels)
    return value, {k: p[k] - rate * gradient[k] for k in p}


def classify(p, image):
    """The most likely digit of each image."""
    return scores(p, image).argmax(axis=1)


# ------------------------------------------------------------------------------------------------


def main(folder: Path, smoke: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int64)
    order = rng.permutation(len(images))
    train, test = order[:1437], order[1437:]

    start = time.perf_counter()
    p, seconds = fit(images, labels, train, rng)
    print(f"trained             {EPOCHS} epochs of {len(train)} digits in {time.perf_counter() - start:.2f} s, compilation included; "
          f"{seconds * 1e6:.0f} us per step")
    guess = xlc.jit(classify)(p, images[test])
    accuracy = float((guess == labels[test]).mean())
    print(f"accuracy in Python  {accuracy:.2%}  ({(guess == labels[test]).sum()} of {len(test)} test images)")
    assert accuracy >= 0.97, "the network learned less than it does elsewhere"

    library = xlc.aot.export(classify, [p, xlc.spec((1, 64), "f4")], folder / "digits.so", name="digits")
    in_c(folder, library, images[test], labels[test], int((guess == labels[test]).sum()))
    program, rows = compare(p, images[train[:BATCH]], labels[train[:BATCH]], 20 if smoke else 300)
    report = write_report(program, folder / "report.html", "One training step of a 64-500-10 network",
                          {"test accuracy": f"{accuracy:.2%}", "batch": BATCH},
                          [("Fused and unfused", ("", "kernels", "bytes moved", "arena", "time per step"), rows)])
    print(f"library             {library.library.resolve()}\nheader              {library.header.resolve()}\nreport              "
          f"{report.resolve()}")


def fit(images, labels, train, rng):
    """The trained parameters, and the seconds that one step takes."""
    p = {"w1": rng.normal(0, 0.18, (64, 500)).astype(np.float32), "b1": np.zeros(500, np.float32),
         "w2": rng.normal(0, 0.06, (500, 10)).astype(np.float32), "b2": np.zeros(10, np.float32)}
    run = xlc.jit(step, donate="p")  # the new parameters take the memory of the old ones
    times = []
    for epoch in range(EPOCHS):
        rate = np.float32(0.5 * 0.97**epoch)
        for batch in rng.permutation(train)[:len(train) // BATCH * BATCH].reshape(-1, BATCH):
            x, y = images[batch], labels[batch]
            start = time.perf_counter()
            _, p = run(p, x, y, rate)
            times.append(time.perf_counter() - start)
    assert run.compiles == 1
    return p, statistics.median(times)


def in_c(folder: Path, library, images, labels, right: int) -> None:
    """Compile and run examples/digits.c; its accuracy must be Python's."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler (cc): the C program is left out")
        return
    (folder / "digits-test.bin").write_bytes(np.int64(len(images)).tobytes() + images.tobytes() + labels.tobytes())
    subprocess.run([compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}", str(HERE / "digits.c"),
                    str(library.library.resolve()),
                    "-o", str(folder / "digits")], check=True)
    done = subprocess.run([str((folder / "digits").resolve()), str(folder / "digits-test.bin"), str(library.library)], check=True,
                          text=True, capture_output=True)
    print(done.stdout, end="")
    assert f"({right} of {len(images)} test images)" in done.stdout, "C and Python disagree"


def compare(p, x, y, calls: int):
    """The training step with and without fusion: (the fused program, rows of a table)."""
    rate = np.float32(0.1)
    functions = {"fused": xlc.jit(step), "unfused": xlc.jit(step, fuse=False)}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for f in functions.values():
        f(p, x, y, rate)
    for _ in range(calls):
        for name, f in functions.items():
            start = time.perf_counter()
            f(p, x, y, rate)
            times[name].append(time.perf_counter() - start)
    rows = []
    for name, f in functions.items():
        program = f.compile(p, x, y, rate)
        done = program.program.compilation
        moved = sum(number(work_of(g, s).bytes) for g, s in zip(done.partition.groups, done.steps, strict=True))
        took = statistics.median(times[name]) * 1e6
        rows.append((name, len(program.kernels), human(moved), f"{program.plan.arena_bytes} B", f"{took:.0f} us"))
    for row in rows:
        print(f"{row[0]:20}{row[1]:3} kernels, {row[2]} moved, arena {row[3]}, {row[4]} per step")
    return functions["fused"].compile(p, x, y, rate), rows


if __name__ == "__main__":
    rest = [a for a in sys.argv[1:] if a != "--smoke"]
    main(Path(rest[0] if rest else "out/demo"), "--smoke" in sys.argv)
