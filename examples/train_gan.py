"""A generator and a discriminator that take turns, until noise becomes images like those that it has been shown.

    python examples/train_gan.py [--smoke]

Synthetic data: coloured rings of random radius (``networks.gan.rings``). After training the mean image of the made ones must be as that of
the real ones, pixel by pixel, within a third of the distance that it had at first.
"""

from __future__ import annotations

import sys

import numpy as np
from networks.gan import gan_network, rings

import xlc


def distance(net, run, z, real) -> float:
    """Between the mean images, root mean square over pixels."""
    made = xlc.jit(net.apply)(run["params"], run["state"], z)
    return float(np.sqrt(np.mean((made.mean(0) - real.mean(0)) ** 2)))


def main(steps: int) -> None:
    net, rng = gan_network(16, 16, 32, 16, 1e-3), np.random.default_rng(0)
    z, real = rng.standard_normal((256, 16), "f4"), rings(rng, 16, 256)
    step, run = xlc.jit(net.advance, donate="run"), net.begin(xlc.random.key(0))
    first = distance(net, run, z, real)
    for _ in range(steps):
        run, metrics = step(run, *net.batch(rng))
        assert np.isfinite(metrics["loss"])
    last = distance(net, run, z, real)
    print(f"{steps} steps: mean images differ by {last:.3f}, at first by {first:.3f}; loss of the discriminator {metrics['loss']:.2f}")
    assert last < first / 3


if __name__ == "__main__":
    main(400 if "--smoke" in sys.argv else 2000)
