"""Every network learns: each is trained, and must reach its target on data that it has not seen.

    python examples/train_networks.py [--smoke] [NAME ...]         default: all of networks.training; smoke: one of each family

How each is trained, what is measured and what must be reached, says ``networks.training``: accuracy where guessing gives 10% (or less),
perplexity where guessing gives the size of the vocabulary. All steps of a training are one compiled program.
"""

from __future__ import annotations

import sys
import time

from networks.training import TRAININGS, reach

FAMILIES = ("iris", "lenet5", "resnet-cifar", "gru", "wide-and-deep")


def main(names: list[str]) -> None:
    for name in names:
        start = time.perf_counter()
        reached = reach(name)
        print(f"{name:24}{reached}  {time.perf_counter() - start:6.1f} s", flush=True)
        assert reached.ok and reached.compiles == 1, name


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--smoke"] or list(FAMILIES if "--smoke" in sys.argv else TRAININGS))
