"""Training steps of sequence networks beside JAX and PyTorch; a long loop beside its unrolled body; compilations over a training run.

A step is forward, backward, clipping of the gradient's norm and update, of examples/networks at the published size. JAX runs the same
model with its own functions; PyTorch has its own LSTM module, as its users have.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from examples.networks import Network, network

from . import peers
from .harness import US, Build, Contestant, Row, Scale, calls, contest
from .training import PEERS, begin, compile_time, memory_needed, ours, stepping

CLIP, RATE = 5.0, 0.1
STEPS = {"ptb-lstm": "PTB LSTM, 20 x 35, hidden 200, vocabulary 10,000", "char-lstm": "character LSTM, 64 x 10, hidden 64",
         "gpt": "GPT of 10.8 M parameters, 8 x 256"}


def rows(scale: Scale) -> Iterator[Row]:
    for name, about in STEPS.items():
        first: dict[str, float] = {}
        memory: dict[str, float] = {}
        few = replace(scale, rounds=min(scale.rounds, 7), sample=0.0)
        row = contest(few, f"training step: {about}", steps(network(name, full=not scale.smoke), first, memory))
        row.faster_than_best(PEERS)
        compile_time(row, first)
        memory_needed(row, memory)
        yield row
    yield long_loop(scale)
    yield compilations(scale)


# ---------------------------------------------------------------------------------------------- steps

def steps(net: Network, first: dict[str, float], memory: dict[str, float]) -> dict[str, Build]:
    import xlc

    rule = xlc.optim.chain(xlc.optim.clip_by_global_norm(CLIP), xlc.optim.sgd(RATE))
    return {US: lambda: ours(replace(net, optimizer=rule), first, memory), "JAX": lambda: _jax_step(net, first, memory),
            "torch": lambda: _torch_step(net, first, compiled=False), "torch.compile": lambda: _torch_step(net, first, compiled=True)}


def _jax_step(net: Network, first: dict[str, float], memory: dict[str, float]) -> Contestant:
    jax = peers.library("jax")
    from . import jax_functions

    assert net.using is not None
    _, loss = net.using(jax_functions)

    def step(params: Any, state: Any, key: Any, *batch: Any) -> Any:
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state, key, *batch)
        norm = jax.numpy.sqrt(sum((g * g).sum() for g in jax.tree.leaves(grads)))
        rate = RATE * jax.numpy.minimum(1, CLIP / norm)
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), state, value

    params, state, _, batch = begin(net)
    began, rest = jax.device_put((params, state)), (jax.random.key(1), *jax.device_put(batch))
    start = time.perf_counter()
    program = jax.jit(step, donate_argnums=(0, 1)).lower(*began, *rest).compile()
    took = time.perf_counter() - start
    memory["JAX"] = program.memory_analysis().temp_size_in_bytes
    contestant = stepping(lambda *args: jax.block_until_ready(program(*args)), began, rest, first, "JAX")
    first["JAX"] += took
    return contestant


def _torch_step(net: Network, first: dict[str, float], *, compiled: bool) -> Contestant:
    torch = peers.library("torch")
    params, _, _, batch = begin(net)
    loss, weights = (_torch_lstm if "lstm1" in params or "lstm" in params else _torch_functions)(net, params)
    forward = torch.compile(loss, dynamic=False) if compiled else loss
    tensors = [torch.from_numpy(a) for a in batch]

    def step() -> Any:
        value = forward(*tensors)
        grads = torch.autograd.grad(value, weights)
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            torch._foreach_add_(weights, torch._foreach_mul(grads, torch.clamp(CLIP / norm, max=1)), alpha=-RATE)
        return (value.detach(),)

    with importlib.import_module("torch._inductor.config").patch(force_disable_caches=True):
        return stepping(step, (), (), first, "torch.compile" if compiled else "torch")


def _torch_functions(net: Network, params: Any) -> tuple[Any, list[Any]]:
    """The same model, with PyTorch's functions."""
    import xlc

    torch = peers.library("torch")
    _, loss = net.reference()
    tensors = xlc.tree.map(lambda a: torch.from_numpy(a.copy()).requires_grad_(), params)
    return lambda *batch: loss(tensors, {}, None, *batch)[0], xlc.tree.leaves(tensors)


def _torch_lstm(net: Network, params: Any) -> tuple[Any, list[Any]]:
    """nn.Embedding or one-hot, nn.LSTM, nn.Linear; the state is carried over."""
    torch = peers.library("torch")
    layers = sum(name.startswith("lstm") for name in params)
    hidden, vocabulary = params["dense1"]["w"].shape
    embedded = "embedding" in params
    table = torch.nn.Embedding(vocabulary, hidden) if embedded else None
    cells = torch.nn.LSTM(hidden if embedded else vocabulary, hidden, layers, dropout=0.5 if layers > 1 else 0.0)
    out = torch.nn.Linear(hidden, vocabulary)
    drop = torch.nn.functional.dropout
    held: list[Any] = [None]

    def compute(ids: Any, labels: Any, state: Any) -> Any:
        x = drop(table(ids), 0.5) if table else torch.nn.functional.one_hot(ids, vocabulary).float()
        y, state = cells(x, state)
        logits = out(drop(y, 0.5) if table else y)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / ids.shape[1], state

    def loss(ids: Any, labels: Any) -> Any:
        state = held[0] or tuple(torch.zeros(layers, ids.shape[1], hidden) for _ in range(2))
        value, state = compute(ids, labels, state)
        held[0] = tuple(s.detach() for s in state)
        return value

    return loss, [p for m in (table, cells, out) if m for p in m.parameters()]


# ---------------------------------------------------------------------------------------------- loops and compilations

def long_loop(scale: Scale) -> Row:
    """An LSTM over 1000 steps in one call, beside 20 steps written out, called 50 times."""
    import xlc

    length, part, hidden, batch = scale.size(1000, 20), scale.size(20, 5), scale.size(200, 8), scale.size(20, 2)
    rng = np.random.default_rng(0)
    w, b = (rng.normal(0, 0.05, shape).astype("f4") for shape in ((2 * hidden, 4 * hidden), (4 * hidden,)))
    x = rng.normal(size=(length, batch, hidden)).astype("f4")
    state = (np.zeros((batch, hidden), "f4"),) * 2

    def step(state: Any, x: Any) -> Any:
        h, c = xlc.nn.lstm_cell(x, state, w, b)
        return (h, c), h

    @xlc.jit
    def looped(h: Any, c: Any, x: Any) -> Any:
        return xlc.scan(step, (h, c), x)

    @xlc.jit
    def unrolled(h: Any, c: Any, x: Any) -> Any:
        ys = []
        for k in range(part):
            (h, c), y = step((h, c), x[k])
            ys.append(y)
        return h, c, np.stack(ys)

    def seconds(n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            for k in range(0, length, part):
                unrolled(*state, x[k:k + part])
        return time.perf_counter() - start

    row = contest(replace(scale, rounds=min(scale.rounds, 7)), f"scan: LSTM of {hidden}, batch {batch}, {length} steps", {
        "xlc": lambda: calls(lambda *a: looped(*a)[1], [(*state, x)]), "xlc, unrolled": lambda: Contestant(seconds)})
    ratio = row.stats["xlc"].median / row.stats["xlc, unrolled"].median if "xlc" in row.stats and "xlc, unrolled" in row.stats else None
    row.judge("within 10% of the unrolled body times its count", f"{ratio:.2f}x" if ratio else "no xlc", ratio is not None and ratio <= 1.1)
    return row


def compilations(scale: Scale) -> Row:
    """Three epochs of batches of which the last is smaller, with another rate in each."""
    import xlc

    net, row = network("gru"), Row("compilations of a training run with a last smaller batch and a changing rate")
    params, state = net.init(xlc.random.key(0))
    memory = net.optimizer.init(params)

    def step(params: Any, memory: Any, ids: Any, labels: Any, rate: Any) -> Any:
        (value, _), grads = xlc.value_and_grad(net.loss, has_aux=True)(params, state, None, ids, labels)
        return *net.optimizer.update(grads, memory, params, lr=rate), value

    jitted = xlc.jit(step, donate=("params", "memory"), dynamic={"ids": {1: "batch"}, "labels": {1: "batch"}})
    rng = np.random.default_rng(0)
    for epoch in range(3):
        for size in (32, 32, 7):
            ids = rng.integers(0, 27, (6, size))
            params, memory, _ = jitted(params, memory, ids[:-1], ids[1:], 0.01 / (1 + epoch))
    row.judge("1 compilation", str(jitted.compiles), jitted.compiles == 1)
    return row
