"""The functions of the NumPy tutorial "Deep learning on MNIST": the network's activation, its slope, one step of its training, its
evaluation.

https://numpy.org/numpy-tutorials/tutorial-deep-learning-on-mnist/. The statements are those of the tutorial, in functions so that they
can be compiled; `x *= y` and `x += y` on arrays that a function makes are allowed, on its arguments they are not, so the step returns new
weights. Random images stand for MNIST.
"""

import numpy as np

import xlc

rng = np.random.default_rng(884736743)
learning_rate = 0.005


# Define ReLU that returns the input if it's positive and 0 otherwise.
@xlc.jit
def relu(x):
    return (x >= 0) * x


# Set up a derivative of the ReLU function that returns 1 for a positive input
# and 0 otherwise.
@xlc.jit
def relu2deriv(output):
    return output >= 0


@xlc.jit
def train(layer_0, label, dropout_mask, weights_1, weights_2):
    layer_1 = np.dot(layer_0, weights_1)
    layer_1 = relu(layer_1)
    layer_1 *= dropout_mask * 2
    layer_2 = np.dot(layer_1, weights_2)
    training_loss = np.sum((label - layer_2) ** 2)
    layer_2_delta = label - layer_2
    layer_1_delta = np.dot(weights_2, layer_2_delta) * relu2deriv(layer_1)
    layer_1_delta *= dropout_mask
    weights_1 = weights_1 + learning_rate * np.outer(layer_0, layer_1_delta)
    weights_2 = weights_2 + learning_rate * np.outer(layer_1, layer_2_delta)
    return training_loss, weights_1, weights_2


@xlc.jit
def evaluate(test_images, test_labels, weights_1, weights_2):
    results = relu(test_images @ weights_1) @ weights_2
    test_loss = np.sum((test_labels - results) ** 2)
    test_accurate_predictions = np.sum(
        np.argmax(results, axis=1) == np.argmax(test_labels, axis=1)
    )
    return test_loss, test_accurate_predictions


def main():
    images, labels = rng.random((50, 784)), np.eye(10)[rng.integers(0, 10, 50)]
    ours = theirs = (0.2 * rng.random((784, 100)) - 0.1, 0.2 * rng.random((100, 10)) - 0.1)
    plain = {f: f.__wrapped__ for f in (train, evaluate)}
    for image, label in zip(images, labels, strict=True):
        dropout_mask = rng.integers(low=0, high=2, size=100)
        loss, *ours = train(image, label, dropout_mask, *ours)
        expected, *theirs = plain[train](image, label, dropout_mask, *theirs)
        assert np.isclose(loss, expected)
    (loss, right), (expected_loss, expected_right) = evaluate(images, labels, *ours), plain[evaluate](images, labels, *theirs)
    print(f"loss {loss:.6f}, {right} of 50 right (NumPy: {expected_loss:.6f}, {expected_right})")
    assert np.isclose(loss, expected_loss) and right == expected_right and all(map(np.allclose, ours, theirs))


if __name__ == "__main__":
    main()
