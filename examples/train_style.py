"""The style of one photograph on the content of another, by descent on the image itself.

    python examples/train_style.py [--smoke] [folder]

Real data: scikit-learn's two photographs, a temple (content) and a flower (style), reduced to 128 pixels (32 in the smoke test). Trained
weights of VGG-19 are not at hand; its weights are random. The loss must fall to a tenth of what it was with noise; the image is written as
a PPM file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from networks.style import neural_style_network
from sklearn.datasets import load_sample_image

import xlc


def photograph(name: str, size: int) -> np.ndarray:
    """(1, size, size, 3) of mean 0 and deviation 1, cut from the middle."""
    pixels = load_sample_image(name)
    left = (pixels.shape[1] - pixels.shape[0]) // 2
    square = xlc.nn.resize(pixels[None, :, left:left + pixels.shape[0]].astype("f4"), (size, size), method="bilinear")
    return (square - square.mean()) / square.std()


def main(folder: Path, size: int, width: int, steps: int) -> None:
    net = neural_style_network(size, width)
    content, style = photograph("china.jpg", size), photograph("flower.jpg", size)
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    losses = []
    for _ in range(steps):
        run, metrics = step(run, content, style)
        losses.append(float(metrics["loss"]))
    print(f"{steps} steps, {step.compiles} compilation: the loss fell from {losses[0]:.1f} to {losses[-1]:.1f}")
    assert losses[-1] < 0.1 * losses[0]

    image = run["params"]["image"][0]
    pixels = np.uint8(np.clip(128 + 50 * image, 0, 255))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "style.ppm").write_bytes(b"P6 %d %d 255\n" % (size, size) + pixels.tobytes())
    print(f"written to {folder / 'style.ppm'}")


if __name__ == "__main__":
    rest = [a for a in sys.argv[1:] if a != "--smoke"]
    main(Path(rest[0] if rest else "out/style"), *(32, 4, 60) if "--smoke" in sys.argv else (128, 16, 300))
