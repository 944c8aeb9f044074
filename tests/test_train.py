"""The training loop, checkpoints and logs. Runs are compared with the same steps written as a plain loop, files with what was put in."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import xlc
from xlc import optim, train

RNG = np.random.default_rng(3)
X = RNG.standard_normal((53, 4)).astype("f4")
Y = (X @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.7).astype("f4")


def params() -> dict[str, np.ndarray]:
    return {"w": np.zeros(4, "f4"), "b": np.zeros((), "f4")}


def loss(p, x, y):
    return ((x @ p["w"] + p["b"] - y) ** 2).mean()


def by_hand(lr: float, epochs: int, size: int, seed: int) -> tuple[np.ndarray, list[float]]:
    """Gradient descent in NumPy float64: (w, mean loss of each epoch)."""
    w, b, means = np.zeros(4), 0.0, []
    for epoch in range(epochs):
        order, total = np.random.default_rng((seed, epoch)).permutation(53), 0.0
        for k in range(0, 53, size):
            x, y = X[order[k:k + size]].astype("f8"), Y[order[k:k + size]].astype("f8")
            error = x @ w + b - y
            total += float((error**2).sum())
            w, b = w - lr * 2 * x.T @ error / len(x), b - lr * 2 * error.mean()
        means.append(total / 53)
    return w, means


# ------------------------------------------------------------------------------------------------ the loop


def test_fit_is_the_plain_loop_in_one_compilation() -> None:
    step = xlc.jit(train.step(loss, optim.sgd(0.05)), donate="state", dynamic={"batch": {0: "batch"}})
    run = train.fit(step, train.start(params(), optim.sgd(0.05)), train.Batches((X, Y), 10, seed=5), epochs=4)
    w, means = by_hand(0.05, 4, 10, 5)
    np.testing.assert_allclose(run.state["params"]["w"], w, rtol=1e-5)
    np.testing.assert_allclose([r["loss"] for r in run.history], means, rtol=1e-5)
    assert step.compiles == 1, "the last batch has 3 rows, the others 10"
    assert run.step == 24 and run.epoch == 4 and [r["step"] for r in run.history] == [6, 12, 18, 24] and not run.stopped


def test_a_function_is_jitted_and_the_callers_arrays_stay() -> None:
    traced = []

    def step(state, x, y):
        traced.append(x.shape)
        value, slope = xlc.value_and_grad(loss)(state, x, y)
        return xlc.tree.map(lambda p, g: p - 0.05 * g, state, slope), value

    begin = params()
    run = train.fit(step, begin, train.Batches((X, Y), 10, seed=5), epochs=4)
    assert len(traced) == 1 and not begin["w"].any()
    np.testing.assert_allclose(run.state["w"], by_hand(0.05, 4, 10, 5)[0], rtol=1e-5)


@pytest.mark.parametrize("data", [[(X, Y)] * 3, lambda epoch: iter([(X, Y)] * 3), train.Batches((np.tile(X, (3, 1)), np.tile(Y, 3)), 53)],
                         ids=["list", "function", "batches"])
def test_kinds_of_data(data) -> None:
    run = train.fit(train.step(loss, optim.sgd(0.05)), train.start(params(), optim.sgd(0.05)), data, epochs=2)
    w, b = np.zeros(4), 0.0
    for _ in range(6):
        error = X @ w + b - Y
        w, b = w - 0.1 * X.T @ error / 53, b - 0.1 * error.mean()
    np.testing.assert_allclose(run.state["params"]["w"], w, rtol=1e-5)


def test_a_batch_may_be_a_dict_or_an_array() -> None:
    run = train.fit(lambda s, batch: (s + batch["x"].sum() + batch["n"].sum(), {"rows": batch["n"].mean()}), np.float64(0),
                    train.Batches({"x": np.ones((5, 2)), "n": np.ones(5)}, 2), epochs=1)
    assert run.state == 15 and run.history[0]["rows"] == 1
    assert train.fit(lambda s, x: (s + x.sum(), 0.0), np.float64(0), train.Batches(np.ones(5), 2), epochs=2).state == 10


def test_batches_are_a_permutation_that_depends_on_seed_and_epoch() -> None:
    rows = np.arange(23)
    data = train.Batches((rows, rows * 2), 5, seed=1)
    epochs = [list(data(k)) for k in (0, 1, 0)]
    assert [len(x) for x, _ in epochs[0]] == [5, 5, 5, 5, 3] and len(data) == 5
    for epoch in epochs:
        x = np.concatenate([x for x, _ in epoch])
        assert sorted(x) == rows.tolist() and all((y == 2 * x).all() for x, y in epoch)
    first, second, again = (np.concatenate([x for x, _ in e]) for e in epochs)
    assert (first == again).all() and (first != second).any() and (first != rows).any()
    np.testing.assert_array_equal(np.concatenate(list(train.Batches(rows, 5))), rows)
    assert [len(x) for x in train.Batches(rows, 5, drop_last=True)] == [5] * 4


def test_validation_is_the_mean_over_rows() -> None:
    def metrics(state, x, y):
        return {"loss": loss(state["params"], x, y), "n": (x[:, 0] * 0 + 1).sum()}

    run = train.fit(train.step(loss, optim.sgd(0.05)), train.start(params(), optim.sgd(0.05)), train.Batches((X, Y), 10, seed=0), epochs=2,
                    metrics=metrics, validation=train.Batches((X, Y), 20))
    assert set(run.history[1]) == {"epoch", "step", "loss", "val_loss", "val_n"}
    p = run.state["params"]
    assert run.history[1]["val_loss"] == pytest.approx(float(((X @ p["w"] + p["b"] - Y) ** 2).mean()), rel=1e-5)
    assert run.history[1]["val_n"] == pytest.approx((20 * 20 + 20 * 20 + 13 * 13) / 53)
    assert train.evaluate(metrics, run.state, [(X, Y)])["loss"] == pytest.approx(run.history[1]["val_loss"], rel=1e-5)


def test_a_rate_that_a_callback_changes_compiles_nothing() -> None:
    optimizer = optim.sgd(100.0)
    step = xlc.jit(train.step(loss, optimizer), donate="state", dynamic={"batch": {0: "batch"}})

    def slower(run):
        run.state["lr"] = run.state["lr"] / 2

    run = train.fit(step, train.start(params(), optimizer, lr=0.1), [(X, Y)], epochs=5, callbacks=[slower])
    w, b = np.zeros(4), 0.0
    for k in range(5):
        error = X @ w + b - Y
        w, b = w - 0.2 * 0.5**k * X.T @ error / 53, b - 0.2 * 0.5**k * error.mean()
    np.testing.assert_allclose(run.state["params"]["w"], w, rtol=1e-5)
    assert step.compiles == 1


def test_the_average_of_the_weights() -> None:
    average, optimizer = optim.ema(0.9), optim.sgd(0.05)
    run = train.fit(train.step(loss, optimizer, ema=average), train.start(params(), optimizer, ema=average), [(X, Y)] * 5, epochs=1)
    p, shadow = params(), average.init(params())
    for n in range(5):
        p = xlc.tree.map(lambda p, g: p - np.float32(0.05) * g, p, xlc.grad(loss)(p, X, Y))
        d = min(0.9, (1 + n) / (10 + n))
        shadow = xlc.tree.map(lambda s, p, d=d: d * s + (1 - d) * p, shadow, p)
    np.testing.assert_allclose(run.state["ema"]["w"], shadow["w"], rtol=1e-5)


def test_a_loss_with_metrics() -> None:
    step = train.step(lambda p, x, y: (loss(p, x, y), {"bias": p["b"]}), optim.sgd(0.05), has_aux=True)
    run = train.fit(step, train.start(params(), optim.sgd(0.05)), [(X, Y)], epochs=2)
    assert run.history[0]["bias"] == 0 and run.history[1]["bias"] == pytest.approx(0.1 * float(Y.mean()), rel=1e-5)


# ------------------------------------------------------------------------------------------------ stopping


def scripted(values):
    """A step whose loss in epoch k is values[k]; its state counts the epochs."""
    return lambda state, value: (state + 1, value.sum()), lambda epoch: iter([np.array([values[epoch]], "f8")])


def test_early_stopping_ends_at_the_best_epoch() -> None:
    step, data = scripted([5, 3, 4, 2.5, 2.6, 2.7, 2.55, 1])
    run = train.fit(step, np.float64(0), data, epochs=8, early_stopping=train.EarlyStopping("loss", patience=3))
    assert run.epoch == 7 and run.stopped == "loss was best in epoch 4" and run.state == 4
    last = train.fit(step, np.float64(0), data, epochs=8, early_stopping=train.EarlyStopping("loss", patience=3, restore=False))
    assert last.state == 7
    full = train.fit(step, np.float64(0), data, epochs=8, early_stopping=train.EarlyStopping("loss", patience=4))
    assert full.epoch == 8 and full.state == 8 and not full.stopped


@pytest.mark.parametrize("values, options, expected", [
    ([1, 2, 3], {"mode": "max"}, (2, False)), ([3, 2, 1], {"mode": "max"}, (0, True)),
    ([3, 2.95, 2.9], {"min_delta": 0.2}, (0, True)), ([3, 2.9, 2.7], {"min_delta": 0.2}, (2, False)),
    ([np.nan, np.nan, 2], {}, (2, False)), ([1, np.nan, np.nan], {}, (0, True)), ([np.inf, np.inf], {}, (0, False)), ([1], {}, (0, False)),
])
def test_verdict(values, options, expected) -> None:
    assert train.EarlyStopping("m", patience=2, **options).verdict([{"m": float(v)} for v in values]) == expected


def test_accuracy_is_better_when_it_is_greater() -> None:
    assert train.EarlyStopping("val_accuracy").verdict([{"val_accuracy": 0.1}, {"val_accuracy": 0.2}]) == (1, False)


def test_a_callback_ends_a_run() -> None:
    class Stop(train.Callback):
        def on_step(self, run, metrics, program):
            if run.step == 3:
                run.stopped = "enough"

    run = train.fit(train.step(loss, optim.sgd(0.05)), train.start(params(), optim.sgd(0.05)), [(X, Y)] * 2, epochs=5, callbacks=[Stop()])
    assert run.step == 3 and run.stopped == "enough"


# ------------------------------------------------------------------------------------------------ checkpoints


def everything() -> dict:
    return {"a": [np.arange(6).reshape(2, 3).astype(d) for d in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")],
            "half": np.array([1.5, np.nan, -0.0], ml_dtypes.bfloat16), "scalar": np.array(2.5), "empty": np.zeros((0, 3), "f4"),
            "none": None, "numbers": (1, 2.5, True), "strided": np.arange(12.0).reshape(3, 4).T, "layer.1": {"w": np.ones(1, ">f4")}}


def same_bits(a, b) -> bool:
    return all(np.asarray(x).dtype.newbyteorder("=") == np.asarray(y).dtype.newbyteorder("=") and np.shape(x) == np.shape(y)
               and np.asarray(x).astype(np.asarray(y).dtype).tobytes() == np.asarray(y).tobytes()
               for x, y in zip(xlc.tree.leaves(a), xlc.tree.leaves(b), strict=True))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    tree = everything()
    path = train.save(tmp_path / "new" / "all.safetensors", tree, author="me")
    found = train.load(path, tree)
    assert same_bits(found, tree) and found["none"] is None and found["numbers"] == (1, 2.5, True) and type(found["numbers"][2]) is bool
    assert train.metadata(path)["author"] == "me" and "'layer.1': {'w': *}" in train.metadata(path)["structure"]
    found["scalar"][...] = 1  # writable
    assert [p.name for p in path.parent.iterdir()] == ["all.safetensors"]


def test_other_programs_read_it(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    path = train.save(tmp_path / "m.safetensors", {"layers": [{"w": X}], "b": Y})
    found = numpy.load_file(path)
    assert set(found) == {"layers.0.w", "b"}
    np.testing.assert_array_equal(found["layers.0.w"], X)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = train.save(tmp_path / "m.safetensors", {"ema": {"w": X}, "ema2": {"w": Y}, "n": np.array(3)})
    np.testing.assert_array_equal(train.load(path, {"w": X}, part="ema")["w"], X)
    assert train.load(path, 0, part="n") == 3
    with pytest.raises(xlc.XlcValueError, match="its part 'em', does not hold what is expected:\n  w is missing"):
        train.load(path, {"w": X}, part="em")


def test_every_difference_is_named(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = train.save(tmp_path / "m.safetensors", {"w": X, "b": Y, "old": Y, "n": np.zeros(2, "i4")})
    with pytest.raises(xlc.XlcValueError) as caught:
        train.load(path, {"w": X.T, "b": Y.astype("f8"), "new": Y, "n": np.zeros(2, "i4")})
    assert caught.value.message.split("\n  ")[1:] == ["b is float32[53], expected float64[53]", "new is missing", "old is not expected",
                                                      "w is float32[53, 4], expected float32[4, 53]"]
    assert caught.value.location[0] == __file__
    with pytest.raises(xlc.XlcValueError, match="and 16 more"):
        train.load(path, [X] * 20)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    path = train.save(tmp_path / "m.safetensors", {"w": X})
    order = []
    monkeypatch.setattr("os.fsync", lambda handle: order.append("fsync"))

    def failing(source, target):
        order.append("replace")
        raise OSError("no space")

    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(OSError, match="no space"):
        train.save(path, {"w": X + 1})
    assert order == ["fsync", "replace"], "the content is on the disk before it gets its name"
    np.testing.assert_array_equal(train.load(path, {"w": X})["w"], X)
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = train.save(tmp_path / "m.safetensors", {"w": X})
    content = path.read_bytes()
    for broken in (b"", content[:40], content[:-1], b"\x80\x04."):
        path.write_bytes(broken)
        for read in (lambda: train.load(path, {"w": X}), lambda: train.metadata(path)):
            with pytest.raises(xlc.XlcValueError, match="no complete safetensors file"):
                read()
    for read in (lambda: train.load(tmp_path / "nothing", X), lambda: train.metadata(tmp_path / "nothing")):
        with pytest.raises(FileNotFoundError):
            read()
    with pytest.raises(xlc.XlcTypeError, match="holds arrays and numbers, found str"):
        train.save(path, {"w": "text"})
    with pytest.raises(xlc.XlcValueError, match=r"two leaves have the name 'a\.b'"):
        train.save(path, {"a.b": X, "a": {"b": X}})


class Interrupt(train.Callback):
    def __init__(self, step: int):
        self.step = step

    def on_step(self, run, metrics, program):
        if run.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [1, 5, 7, 13])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(at: int, tmp_path: Path) -> None:
    """5 batches an epoch, a checkpoint every 2 steps and after each epoch; killed within epochs and at their ends; early stopping, an
    average, a schedule, moments."""
    pytest.importorskip("safetensors")
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.exponential(0.1, 0.5, 5)), optim.weight_decay(0.01))
    average = optim.ema(0.9)
    step = xlc.jit(train.step(loss, optimizer, ema=average), donate="state", dynamic={"batch": {0: "batch"}})

    def go(*callbacks, **more):
        return train.fit(step, train.start(params(), optimizer, ema=average), train.Batches((X, Y), 12, seed=2), epochs=3,
                         metrics=lambda s, x, y: loss(s["params"], x, y), validation=[(X, Y)],
                         early_stopping=train.EarlyStopping(patience=2), callbacks=callbacks, **more)

    whole = go()
    save = train.Checkpoints(tmp_path, every_steps=2, keep=2)
    with pytest.raises(KeyboardInterrupt):
        go(save, Interrupt(at), resume=tmp_path)
    resumed = go(save, resume=tmp_path)
    assert same_bits(resumed.state, whole.state) and same_bits(resumed.best, whole.best)
    assert resumed.history == whole.history and resumed.step == whole.step == 15
    assert len(list(tmp_path.iterdir())) == 2 and train.latest(tmp_path).name == "step-000000015.safetensors"
    assert step.compiles == 1
    again = go(save, resume=train.latest(tmp_path))
    assert again.step == 15 and same_bits(again.state, whole.state), "a run that is complete is not begun again"


def test_the_average_becomes_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    average, optimizer = optim.ema(0.9), optim.sgd(0.05)
    p = xlc.tree.map(lambda a: a.astype(ml_dtypes.bfloat16), params())
    run = train.fit(train.step(loss, optimizer, ema=average), train.start(p, optimizer, ema=average), [(X, Y)] * 5, epochs=1,
                    callbacks=[train.Checkpoints(tmp_path)])
    shadow = train.load(train.latest(tmp_path), average.init(p), part="state.ema")
    assert same_bits(shadow, run.state["ema"]) and shadow["w"].dtype == np.float32
    assert average.weights(shadow, p)["w"].dtype == ml_dtypes.bfloat16


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    step, begin = train.step(loss, optim.sgd(0.05)), train.start(params(), optim.sgd(0.05))
    train.fit(step, begin, [(X, Y)], epochs=1, callbacks=[train.Checkpoints(tmp_path)])
    with pytest.raises(xlc.XlcValueError, match=r"state\.optimizer\.rules\.0\.mean\.b is missing"):
        train.fit(step, train.start(params(), optim.adam()), [(X, Y)], epochs=2, resume=tmp_path)
    with pytest.raises(xlc.XlcValueError, match="holds arrays and no run"):
        train.fit(step, begin, [(X, Y)], epochs=2, resume=train.save(tmp_path / "p.safetensors", begin))
    assert train.fit(step, begin, [(X, Y)], epochs=1, resume=tmp_path / "nothing-yet").step == 1


# ------------------------------------------------------------------------------------------------ logs


def test_tensorboard_reads_the_log(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = importlib.import_module("tensorboard.util.tensor_util")
    run = train.fit(train.step(loss, optim.adam(0.1)), train.start(params(), optim.adam(0.1)), train.Batches((X, Y), 10, seed=0), epochs=3,
                    callbacks=[train.TensorBoard(tmp_path, every=2)])
    log = accumulator.EventAccumulator(str(tmp_path))
    log.Reload()
    assert set(log.Tags()["tensors"]) == {"step/loss", "epoch/loss", "w", "b"}
    means = log.Tensors("epoch/loss")
    assert [e.step for e in means] == [6, 12, 18] and len(log.Tensors("step/loss")) == 9
    np.testing.assert_allclose([float(util.make_ndarray(e.tensor_proto)) for e in means], [r["loss"] for r in run.history], rtol=1e-6)
    buckets = util.make_ndarray(log.Tensors("w")[-1].tensor_proto)
    assert buckets[:, 2].sum() == 4 and buckets[0, 0] == pytest.approx(float(run.state["params"]["w"].min()))


def test_the_graph_page_shows_both_graphs(tmp_path: Path) -> None:
    """Through the server's own code: the runs that the page lists, and the graph that it sends to the browser."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    program = xlc.jit(train.step(loss, optim.adam(0.1)), dynamic={"batch": {0: "batch"}}).compile(train.start(params(), optim.adam()), X, Y)
    with train.Writer(tmp_path) as log:
        log.graph(program)
        log.histogram("with nan", np.array([np.nan, 1.0, np.inf]), 0)
    graphs = {}
    for name in ("before-fusion", "after-fusion"):
        events = accumulator.EventAccumulator(str(tmp_path / name))
        events.Reload()
        graphs[name] = events.Graph()
    for graph in graphs.values():
        names = [n.name for n in graph.node]
        assert len(set(names)) == len(names)
        assert {i for n in graph.node for i in n.input} <= set(names), "every edge begins at a node"
        assert {"state_params_w", "batch_0"} <= set(names)
        assert all(n.attr["_output_shapes"].list.shape for n in graph.node)
        assert all(n.name.count("/") <= 1 for n in graph.node)
    assert len(graphs["before-fusion"].node) == len(program.after("trace").nodes())
    kernels = {n.name.split("/")[0] for n in graphs["after-fusion"].node if n.name.startswith("kernel-")}
    assert len(kernels) == len(program.after("fuse").groups) == len(program.plan.launches)
    x = next(n for n in graphs["before-fusion"].node if n.name == "batch_0")
    assert [d.size for d in x.attr["_output_shapes"].list.shape[0].dim] == [-1, 4] and x.op == "Placeholder"


def test_tensorboard_serves_the_graphs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    werkzeug = pytest.importorskip("werkzeug.test")
    with train.Writer(tmp_path / "run") as log:
        log.graph(xlc.jit(loss).compile(params(), X, Y))
    program = importlib.import_module("tensorboard.program").TensorBoard(
        plugins=[importlib.import_module("tensorboard.plugins.graph.graphs_plugin").GraphsPlugin,
                 importlib.import_module("tensorboard.plugins.core.core_plugin").CorePluginLoader()])
    program.configure(logdir=str(tmp_path), load_fast="false")
    ingester = importlib.import_module("tensorboard.backend.event_processing.data_ingester").LocalDataIngester(program.flags)
    ingester._multiplexer.AddRunsFromDirectory(str(tmp_path))
    ingester._multiplexer.Reload()
    application = importlib.import_module("tensorboard.backend.application")
    client = werkzeug.Client(application.TensorBoardWSGIApp(program.flags, program.plugin_loaders, ingester.data_provider))
    info = json.loads(client.get("/data/plugin/graphs/info").data)
    assert {run for run, entry in info.items() if entry["run_graph"]} == {"run/before-fusion", "run/after-fusion"}
    shown = client.get("/data/plugin/graphs/graph?run=run/after-fusion").data.decode()
    assert 'name: "kernel-' in shown and 'name: "p_w"' in shown


def test_a_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    train.fit(train.step(loss, optim.sgd(0.05)), train.start(params(), optim.sgd(0.05)), [(X, Y)], epochs=2, progress=True)
    assert f"epoch 1/2  loss {(Y**2).mean():.4g}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("missing, call", [
    ("safetensors", lambda folder: train.save(folder / "m", X)),
    ("safetensors", lambda folder: train.Checkpoints(folder).on_start(None, 1, 1)),
    ("rich", lambda folder: train.fit(lambda s, x: (s, 0.0), X, [X], epochs=1, progress=True)),
    ("tensorboard", lambda folder: train.Writer(folder)),
])
def test_what_is_not_installed(missing: str, call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.split(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"package {missing}, which is not installed: pip install xlc\[train\]") as caught:
        call(tmp_path)
    assert isinstance(caught.value, xlc.XlcError)


def test_errors_say_what_is_wrong() -> None:
    step, begin = train.step(loss, optim.sgd(0.05)), train.start(params(), optim.sgd(0.05))
    for call, text in [
        (lambda: train.fit(lambda s, x: ({"n": s["n"] * 0.5}, 0.0), {"n": np.arange(3)}, [X], epochs=1),
         r"state\['n'\] was int64\[3\] and became float64\[3\]"),
        (lambda: train.fit(lambda s, x: ((s, s), 0.0), X, [X], epochs=1), "nested as the one it is given"),
        (lambda: train.fit(lambda s, x: s, X, [X], epochs=1), r"returns \(state, metrics\)"),
        (lambda: train.fit(lambda s, x: (s, x), X, [X], epochs=1), r"'loss' has shape \(53, 4\)"),
        (lambda: train.fit(step, begin, iter([(X, Y)]), epochs=2), "an iterator can be read once"),
        (lambda: train.fit(step, begin, [], epochs=1), "no batch in epoch 1"),
        (lambda: train.fit(step, begin, [(X, Y)], epochs=1, validation=[(X, Y)]), "validation needs both"),
        (lambda: train.fit(step, train.start(params(), optim.sgd(1), ema=optim.ema(0.9)), [(X, Y)], epochs=1), "must agree"),
        (lambda: train.fit(step, begin, [(X, Y)], epochs=1, early_stopping=train.EarlyStopping()), "monitors 'val_loss', and an epoch has"),
        (lambda: train.EarlyStopping(patience=0), "patience of at least 1"),
        (lambda: train.Batches((X, Y[:3]), 10), "found 3 and 53"),
        (lambda: train.Batches((X, 3), 10), "a first axis of rows, found int"),
        (lambda: train.Batches((), 10), "found none"),
        (lambda: train.Batches(X, 0), "a positive int"),
        (lambda: train.Batches(X, 5, seed=-1), "a non-negative int"),
        (lambda: train.Checkpoints("x", keep=0), "keep >= 1"),
    ]:
        with pytest.raises(xlc.XlcError, match=text):
            call()
