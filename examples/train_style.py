"""The style of one photograph on the content of another: by descent on the image itself, and by a network that learns to do it at once.

    python examples/train_style.py [--smoke] [folder]

Real data: scikit-learn's two photographs, a temple (content) and a flower (style), reduced to 128 pixels (32 in the smoke test). Trained
weights of VGG-19 are not at hand; its weights are random. Descent on the image must lower the loss to a tenth of what it was with noise.
The network sees pieces of the left half of the temple; the loss on pieces of the right half must fall to a fifth of what it was at first.
Both images are written as PPM files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from networks.style import fast_style_network, neural_style_network
from sklearn.datasets import load_sample_image

import xlc


def photograph(name: str, size: int) -> np.ndarray:
    """(1, size, size, 3) of mean 0 and deviation 1, cut from the middle."""
    pixels = load_sample_image(name)
    left = (pixels.shape[1] - pixels.shape[0]) // 2
    square = xlc.nn.resize(pixels[None, :, left:left + pixels.shape[0]].astype("f4"), (size, size), method="bilinear")
    return (square - square.mean()) / square.std()


def descend(folder: Path, size: int, width: int, steps: int) -> None:
    net = neural_style_network(size, width)
    content, style = photograph("china.jpg", size), photograph("flower.jpg", size)
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    losses = []
    for _ in range(steps):
        run, metrics = step(run, content, style)
        losses.append(float(metrics["loss"]))
    print(f"{steps} steps on the image, {step.compiles} compilation: the loss fell from {losses[0]:.1f} to {losses[-1]:.1f}")
    assert losses[-1] < 0.1 * losses[0]
    write(folder / "style.ppm", run["params"]["image"][0])


def learn(folder: Path, size: int, width: int, steps: int) -> None:
    """On pieces of an image three times as large."""
    net, rng = fast_style_network(size, width, 2 * width, 2, 5e-3), np.random.default_rng(0)
    content, style = photograph("china.jpg", 3 * size)[0], photograph("flower.jpg", size)

    def pieces(lo: int, hi: int) -> np.ndarray:
        corners = [(rng.integers(0, 2 * size), rng.integers(lo, hi)) for _ in range(2)]
        return np.stack([content[y:y + size, x:x + size] for y, x in corners])

    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    check, unseen = xlc.jit(net.loss), [pieces(3 * size // 2, 2 * size) for _ in range(8)]

    def quality() -> float:
        return float(np.mean([check(run["params"], run["state"], None, piece, style)[0] for piece in unseen]))

    first = quality()
    for _ in range(steps):
        run, _ = step(run, pieces(0, size // 2), style)
    last = quality()
    print(f"{steps} steps of the network, {step.compiles} compilation: the loss on unseen pieces fell from {first:.1f} to {last:.1f}")
    assert last < 0.2 * first
    write(folder / "fast.ppm", xlc.jit(net.apply)(run["params"], run["state"], unseen[0])[0] / 127.5)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.uint8(np.clip(128 + 50 * image, 0, 255))
    path.write_bytes(b"P6 %d %d 255\n" % image.shape[1::-1] + pixels.tobytes())
    print(f"written to {path}")


def main(folder: Path, smoke: bool) -> None:
    descend(folder, *(32, 4, 60) if smoke else (128, 16, 300))
    learn(folder, *(32, 2, 150) if smoke else (64, 8, 400))


if __name__ == "__main__":
    rest = [a for a in sys.argv[1:] if a != "--smoke"]
    main(Path(rest[0] if rest else "out/style"), "--smoke" in sys.argv)
