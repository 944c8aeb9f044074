"""Every network learns: each is trained, and must reach its target on data that it has not seen.

    python examples/train_networks.py [--smoke] [NAME ...]         default: all of networks.training; smoke: one of each family

How each is trained, what is measured and what must be reached, says ``networks.training``: accuracy where guessing gives 10% (or less),
perplexity where guessing gives the size of the vocabulary. All steps of a training are one compiled program.
"""

from __future__ import annotations

import sys
import time

from networks.training import PUBLISHED, TRAININGS, reach

FAMILIES = ("iris", "lenet5", "resnet-cifar", "gru", "wide-and-deep")


def show(name: str, full: bool) -> None:
    start = time.perf_counter()
    reached = reach(name, full)
    print(f"{name + ', published size' * full:32}{reached}  {time.perf_counter() - start:6.1f} s", flush=True)
    assert reached.ok and reached.compiles == 1, name


def main(names: list[str], smoke: bool) -> None:
    for name in names or (FAMILIES if smoke else TRAININGS):
        if name in TRAININGS:
            show(name, False)
    for name in () if smoke else names or PUBLISHED:
        if name in PUBLISHED:
            show(name, True)


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--smoke"], "--smoke" in sys.argv)
