"""The practical example of NumPy's user guide, "Broadcasting": which athlete's class is an observation of (weight, height) nearest to?

https://numpy.org/doc/stable/user/basics.broadcasting.html#a-practical-example-vector-quantization. The program is that of the guide; only
the decorator is new.
"""

from numpy import argmin, array, sqrt, sum

import xlc

observation = array([111.0, 188.0])
codes = array([[102.0, 203.0],
               [132.0, 193.0],
               [45.0, 155.0],
               [57.0, 173.0]])


@xlc.jit
def nearest(observation, codes):
    diff = codes - observation    # the broadcast happens here
    dist = sqrt(sum(diff**2, axis=-1))
    return argmin(dist)


def main():
    found, expected = nearest(observation, codes), nearest.__wrapped__(observation, codes)
    print(f"nearest code: {found} (NumPy: {expected})")
    assert found == expected == 0


if __name__ == "__main__":
    main()
