"""Layers: their parameters, what they compute (against NumPy, and PyTorch where it is installed), their memory and their randomness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xlc
from xlc import nn, optim, train

KEY = xlc.random.key(0)


def count(net: nn.Layer, *shape: int) -> int:
    return sum(a.size for a in xlc.tree.leaves(net.init(KEY, xlc.spec(("batch", *shape)))))


def lenet5() -> nn.Sequential:
    return nn.Sequential(nn.Conv(6, 5), nn.relu, nn.MaxPool(2), nn.Conv(16, 5), nn.relu, nn.MaxPool(2), nn.Flatten(),
                         nn.Dense(120), nn.relu, nn.Dense(84), nn.relu, nn.Dense(10))


def test_numbers_of_parameters() -> None:
    assert count(lenet5(), 32, 32, 1) == 61_706
    assert count(nn.Sequential(nn.Dense(500), nn.relu, nn.Dense(10)), 784) == 397_510
    assert count(nn.Conv(5, 1), 2, 2, 3) == 3 * 5 + 5
    same = {"padding": "SAME"}  # LeNet as TensorFlow's tutorials have it
    like = nn.Sequential(nn.Conv(32, 5, **same), nn.relu, nn.MaxPool(2, **same), nn.Conv(64, 5, **same), nn.relu, nn.MaxPool(2, **same),
                         nn.Flatten(), nn.Dense(512), nn.relu, nn.Dropout(), nn.Dense(10))
    assert count(like, 28, 28, 1) == 1_663_370
    assert count(nn.Sequential(nn.Conv(256, 5, groups=2, bias=None), nn.BatchNorm()), 9, 9, 96) == 25 * 48 * 256 + 512
    assert count(nn.Sequential(), 3) == 0


def test_names_and_dtypes() -> None:
    net = nn.Sequential(nn.Dense(3), nn.relu, nn.Residual(nn.Dense(3, bias=None), nn.LayerNorm()))
    params = net.init(KEY, np.zeros((2, 5)))
    assert xlc.tree.names(params) == ["0.b", "0.w", "2.0.0.w", "2.0.1.bias", "2.0.1.scale"]
    assert {a.dtype for a in xlc.tree.leaves(params)} == {np.dtype("f8")}
    assert nn.Embedding(4, 2).init(KEY, np.zeros((3,), "i4"))["table"].dtype == np.float32
    again, other = net.init(KEY, np.zeros((2, 5))), net.init(xlc.random.key(1), np.zeros((2, 5)))
    assert (again[0]["w"] == params[0]["w"]).all() and (other[0]["w"] != params[0]["w"]).all()
    assert (params[0]["w"][:3] != params[2][0][0]["w"]).all(), "every layer draws for itself"


def test_a_network_in_numpy() -> None:
    net = nn.Sequential(nn.Dense(7), np.tanh, nn.LayerNorm(), nn.Dense(2))
    x = np.random.default_rng(0).standard_normal((4, 3))
    params = net.init(KEY, x)
    a, _, n, b = params
    h = np.tanh(x @ a["w"] + a["b"])
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * n["scale"] + n["bias"]
    for apply in (net.apply, xlc.jit(net.apply)):
        np.testing.assert_allclose(apply(params, x), h @ b["w"] + b["b"], rtol=1e-12)


def test_batches_of_any_size_are_one_compilation() -> None:
    net = lenet5()
    apply, params = xlc.jit(net.apply, dynamic={"x": {0: "batch"}}), net.init(KEY, xlc.spec(("batch", 32, 32, 1)))
    assert [apply(params, np.ones((n, 32, 32, 1), "f4")).shape for n in (1, 3, 8)] == [(1, 10), (3, 10), (8, 10)]
    assert apply.compiles == 1


def test_init_inside_jit() -> None:
    net, x = lenet5(), xlc.spec((1, 32, 32, 1))
    compiled = xlc.jit(lambda key: net.init(key, x))(KEY)
    for a, b in zip(xlc.tree.leaves(compiled), xlc.tree.leaves(net.init(KEY, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_batch_norm_remembers() -> None:
    net = nn.Sequential(nn.BatchNorm(momentum=0.25))
    x = np.random.default_rng(0).standard_normal((6, 2, 3)) * 3 + 1
    params, memory = net.init(KEY, x), net.memory(x)
    y, new = net.apply(params, x, memory, training=True)
    mean, var = x.mean((0, 1)), x.var((0, 1))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-10)
    np.testing.assert_allclose(new[0]["mean"], 0.25 * mean, rtol=1e-12)
    np.testing.assert_allclose(new[0]["var"], 0.75 + 0.25 * var * 12 / 11, rtol=1e-12)
    shown, kept = net.apply(params, x, new)
    np.testing.assert_allclose(shown, (x - new[0]["mean"]) / np.sqrt(new[0]["var"] + 1e-5), rtol=1e-10)
    assert all((a == b).all() for a, b in zip(xlc.tree.leaves(kept), xlc.tree.leaves(new), strict=True))
    np.testing.assert_allclose(net.apply(params, x, training=True), y, rtol=1e-12)
    with pytest.raises(xlc.XlcTypeError, match="BatchNorm needs its moments"):
        net.apply(params, x)


def test_dropout_draws_while_training() -> None:
    net, x = nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.5)), np.ones((100, 100), "f4")
    np.testing.assert_array_equal(net.apply(net.init(KEY, x), x), x)
    y = net.apply(((), ()), x, key=KEY, training=True)
    assert np.allclose(np.unique(y), [0, 1 / 0.375]) and abs((y > 0).mean() - 0.375) < 0.03
    with pytest.raises(xlc.XlcTypeError, match="Dropout draws while training"):
        net.apply(((), ()), x, training=True)
    rated = xlc.jit(lambda rate, x: nn.Dropout(rate).apply((), x, key=KEY, training=True))
    assert [round(float((rated(r, x) == 0).mean()), 1) for r in (0.1, 0.5, 0.9)] == [0.1, 0.5, 0.9] and rated.compiles == 1


def test_branches() -> None:
    net = nn.Parallel(nn.Dense(2), nn.Dense(3), lambda x: x)
    x = np.random.default_rng(0).standard_normal((4, 5))
    (a, b, _) = params = net.init(KEY, x)
    np.testing.assert_allclose(net.apply(params, x), np.concatenate([x @ a["w"] + a["b"], x @ b["w"] + b["b"], x], -1), rtol=1e-12)
    residual = nn.Residual(nn.Dense(5), np.tanh)
    p = residual.init(KEY, x)
    np.testing.assert_allclose(residual.apply(p, x), x + np.tanh(x @ p[0][0]["w"] + p[0][0]["b"]), rtol=1e-12)
    shorter = nn.Residual(nn.Dense(2), shortcut=nn.Dense(2, bias=None))
    assert shorter.apply(shorter.init(KEY, x), x).shape == (4, 2)


def test_pools_embedding_and_a_layer_of_ones_own() -> None:
    class Scale(nn.Layer):
        def init(self, key, x):
            return {"scale": np.full((), 2.0, "f4")}

        def forward(self, params, x, memory, key, training):
            return x * params["scale"], ()

    ids = np.array([[0, 2], [1, 1]])
    net = nn.Sequential(nn.Embedding(3, 4), Scale(), nn.AvgPool())
    params = net.init(KEY, ids)
    np.testing.assert_allclose(net.apply(params, ids), 2 * params[0]["table"][ids].mean(1), rtol=1e-6)
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(nn.AvgPool(2).apply((), x)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(nn.MaxPool(3, stride=1).apply((), x)[0, :, :, 0], [[10, 11], [14, 15]])


def test_lenet_and_its_gradients_equal_pytorch() -> None:
    torch = pytest.importorskip("torch")
    net, rng = lenet5(), np.random.default_rng(0)
    x, labels = rng.standard_normal((3, 32, 32, 1)), rng.integers(0, 10, 3)
    params = net.init(KEY, x)

    def loss(params):
        return nn.cross_entropy(net.apply(params, x), labels).mean()

    value, grads = xlc.value_and_grad(loss)(params)
    p = [{k: torch.tensor(v, requires_grad=True) for k, v in layer.items()} if layer else () for layer in params]
    h, f = torch.tensor(x).permute(0, 3, 1, 2), torch.nn.functional
    for k in (0, 3):
        h = f.max_pool2d(torch.relu(f.conv2d(h, p[k]["w"].permute(3, 2, 0, 1), p[k]["b"])), 2)
    h = h.permute(0, 2, 3, 1).reshape(3, -1)
    for k in (7, 9, 11):
        h = h @ p[k]["w"] + p[k]["b"]
        h = torch.relu(h) if k < 11 else h
    theirs = f.cross_entropy(h, torch.tensor(labels))
    theirs.backward()
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-12)
    for ours, other in zip(grads, p, strict=True):
        for name in ours or ():
            np.testing.assert_allclose(ours[name], other[name].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_equals_pytorch(groups: int) -> None:
    torch = pytest.importorskip("torch")
    layer = nn.ConvTranspose(6, 3, stride=2, padding=1, output_padding=1, groups=groups)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 4))
    params = layer.init(KEY, x)
    theirs = torch.nn.functional.conv_transpose2d(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(params["w"]), None, 2, 1, 1, groups)
    np.testing.assert_allclose(layer.apply(params, x), theirs.permute(0, 2, 3, 1).numpy() + params["b"], rtol=1e-10)


def test_a_network_with_memory_and_dropout_learns_and_resumes(tmp_path: Path) -> None:
    """scikit-learn's digits: 95% of the test images after six epochs, in one compilation; interrupted and resumed it is the same."""
    pytest.importorskip("safetensors")
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x, labels = (images.reshape(-1, 8, 8, 1) / 16).astype("f4")[order], labels[order]
    net = nn.Sequential(nn.Conv(16, 3, padding="SAME", bias=None), nn.BatchNorm(), nn.relu, nn.MaxPool(2),
                        nn.Conv(32, 3, padding="SAME"), nn.relu, nn.Flatten(), nn.Dropout(0.3), nn.Dense(10))

    def loss(params, x, y, memory, key):
        scores, memory = net.apply(params, x, memory, key=key, training=True)
        return nn.cross_entropy(scores, y).mean(), {"memory": memory, "accuracy": (scores.argmax(1) == y).mean()}

    def quality(state, x, y):
        return {"accuracy": (net.apply(state["params"], x, state["memory"])[0].argmax(1) == y).mean()}

    optimizer = optim.adam(3e-3)
    step = xlc.jit(train.step(loss, optimizer, has_aux=True), donate="state", dynamic={"batch": {0: "batch"}})

    def go(epochs, **options):
        begin = train.start(net.init(KEY, x[:1]), optimizer, memory=net.memory(x[:1]), key=xlc.random.key(7))
        return train.fit(step, begin, train.Batches((x[:1400], labels[:1400]), 64, seed=0), epochs=epochs, **options)

    run = go(6)
    assert train.evaluate(quality, run.state, [(x[1400:], labels[1400:])])["accuracy"] >= 0.95
    assert set(run.history[0]) == {"epoch", "step", "loss", "accuracy"}
    go(4, callbacks=[train.Checkpoints(tmp_path)])
    again = go(6, resume=tmp_path)
    for a, b in zip(xlc.tree.leaves(run.state), xlc.tree.leaves(again.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert step.compiles == 1


def test_errors_say_what_is_wrong() -> None:
    for call, text in [
        (lambda: nn.Sequential(nn.Dense), r"the class Dense; write Dense\(\.\.\.\)"),
        (lambda: nn.Sequential(3), "layers and functions, found int"),
        (lambda: nn.Dense(3).init(KEY, xlc.spec((2, "features"))), "need sizes in numbers"),
        (lambda: train.step(lambda p, x, memory: x.sum(), optim.sgd(1))(
            train.start(np.ones(2), optim.sgd(1), memory=()), np.ones(2)), "the loss returns the new one"),
    ]:
        with pytest.raises(xlc.XlcError, match=text):
            xlc.jit(call)() if "returns" in text else call()
