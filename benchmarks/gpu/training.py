"""Training steps of whole networks on a GPU: forward, backward and gradient descent as one call, beside JAX and torch.compile.

Parameters and batches are the same for all, on the device before anything is timed; a step goes on from the last one's result, and the
host waits for the device at the end of a sample only. The loss of the first step is checked against xlc on the CPU.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from examples.networks import Network, network
from examples.networks.transformer import GPT, trained

from ..harness import US, Build, Contestant, Missing, Row, Scale, contest, duration
from ..sequences import _torch_lstm
from .lab import Lab

PEERS = ("JAX", "torch.compile")
RATE = 0.01


@dataclass(frozen=True)
class Subject:
    """``share``: how much of the better peer's speed is the bar. ``mode`` is torch.compile's: with CUDA graphs where launches count."""

    title: str
    make: Callable[[bool], Network]
    batch: int = 0
    share: float = 1.0
    mode: str = "reduce-overhead"


def _named(name: str) -> Callable[[bool], Network]:
    return lambda full: network(name, full=full)


SUBJECTS = (
    Subject("MLP 784-500-10", _named("mlp")),
    Subject("LeNet-5", _named("lenet5")),
    Subject("PTB LSTM", _named("ptb-lstm"), mode="default"),
    Subject("12 blocks of GPT-2 small, 4 x 1024", lambda full: trained(GPT(65, 768, 12, 12, 1024) if full else GPT(17, 24, 2, 2, 16), 4),
            share=0.9, mode="default"),
    Subject("ResNet-50, batch 64", _named("resnet50"), batch=64, share=0.9, mode="default"),
)


def rows(lab: Lab, scale: Scale) -> Iterator[Row]:
    """Training steps of an MLP, LeNet, an LSTM, GPT-2's blocks, ResNet-50."""
    few = replace(scale, sample=min(scale.sample, 0.05))
    for subject in SUBJECTS:
        first: dict[str, float] = {}
        net = subject.make(not scale.smoke)
        given = begin(net, 0 if scale.smoke else subject.batch)
        ways: dict[str, Build] = {
            US: partial(ours, lab, net, given, first), "JAX": partial(jax, lab, net, given, first),
            "torch.compile": partial(torch, lab, net, given, first, subject.mode), "torch": partial(torch, lab, net, given, first, "")}
        small = scale.smoke or subject.share == 1.0  # the CPU takes long for the others
        row = contest(few, f"training step: {subject.title}", ways, expected=expected(net, given) if small else None, tolerance=1e-2)
        row.notes.append("first call: " + ", ".join(f"{name} {duration(t)}" for name, t in first.items()))
        best = row.best(PEERS)
        bar = f"{subject.share:.0%} of the better of {', '.join(PEERS)}"
        if best and row.us:
            ratio = row.stats[best].median / row.us.median
            row.judge(bar, f"{ratio:.2f}x of {best}", ratio >= subject.share)
        else:
            row.judge(bar, "no peer here" if row.us else f"no {US}", None if row.us else False)
        yield row
        lab.clean()


def begin(net: Network, batch: int) -> tuple[Any, Any, tuple[np.ndarray, ...]]:
    """Parameters, state, and a batch; of another size than the network's own by repetition."""
    import xlc

    arrays = net.batch(np.random.default_rng(0))
    if batch:
        arrays = tuple(np.resize(a, (batch, *a.shape[1:])) for a in arrays)
    return *net.init(xlc.random.key(0)), arrays


def expected(net: Network, given: tuple[Any, Any, tuple[np.ndarray, ...]]) -> Any:
    import xlc

    params, state, batch = given
    return np.asarray(xlc.jit(net.loss)(params, state, xlc.random.key(1), *batch)[0], np.float64)


def _stepping(lab: Lab, step: Callable[..., Any], state: Any, first: dict[str, float], name: str, random: bool = False) -> Contestant:
    """``step(state) -> (state, loss)``. The first call, which compiles, is timed here and gives the loss that is checked; not where the
    network draws random numbers, which each library does in its own way."""
    def seconds(n: int) -> float:
        nonlocal state
        lab.wait()
        start = time.perf_counter()
        for _ in range(n):
            state, _ = step(state)
        lab.wait(state)
        return time.perf_counter() - start

    start = time.perf_counter()
    state, loss = step(state)
    lab.wait(state, loss)
    first[name] = time.perf_counter() - start
    value = lab.numbers(loss)
    return Contestant(seconds, None if random else lambda: value)


def ours(lab: Lab, net: Network, given: Any, first: dict[str, float]) -> Contestant:
    import xlc

    params, state, batch = xlc.tree.map(lab.xp.array, given)  # copies, even on the host: they are donated
    key = lab.xp.array(xlc.random.key(1))
    optimizer = xlc.optim.sgd(RATE)
    train = xlc.jit(replace(net, optimizer=optimizer, step=None).train, donate=("params", "state", "memory"))

    def step(kept: Any) -> Any:
        *kept, loss = train(*kept, key, *batch)
        return kept, loss

    memory = xlc.tree.map(lab.xp.array, optimizer.init(given[0]))
    with xlc.config.context(cache_dir=""):
        return _stepping(lab, step, [params, state, memory], first, US)


def jax(lab: Lab, net: Network, given: Any, first: dict[str, float]) -> Contestant:
    library = lab.library("jax")
    if net.using is None:
        raise Missing("the network is not written for JAX")
    _, loss = net.using(importlib.import_module("benchmarks.jax_functions"))
    params, state, batch = library.device_put(given)
    key = library.random.key(1)

    def train(params: Any, state: Any, *batch: Any) -> Any:
        (value, state), grads = library.value_and_grad(loss, has_aux=True)(params, state, key, *batch)
        return library.tree.map(lambda p, g: p - RATE * g, params, grads), state, value

    jitted = library.jit(train, donate_argnums=(0, 1))

    def step(kept: Any) -> Any:
        *kept, value = jitted(*kept, *batch)
        return kept, value

    return _stepping(lab, step, [params, state], first, "JAX", random="ptb" in net.name)


def torch(lab: Lab, net: Network, given: Any, first: dict[str, float], mode: str) -> Contestant:
    import xlc

    library = lab.library("torch")
    place, key = "cpu" if lab.host else "cuda", xlc.random.key(1)  # with a key the network trains
    params, state, batch = given
    recurrent = "lstm" in net.name
    library.set_default_device(place)
    tensors = [library.from_numpy(np.array(a)).to(place) for a in batch]
    if recurrent:
        plain, weights = _torch_lstm(net, params)
        loss: Callable[..., Any] = lambda kept, *batch: (plain(*batch), kept)  # noqa: E731
    else:
        theirs = xlc.tree.map(lambda a: library.from_numpy(np.array(a)).to(place).requires_grad_(), params)
        weights, reference = xlc.tree.leaves(theirs), net.reference()[1]
        loss = lambda kept, *batch: reference(theirs, kept, key, *batch)  # noqa: E731
    kept = xlc.tree.map(lambda a: library.from_numpy(np.array(a)).to(place), state)
    if mode:
        loss = library.compile(loss, dynamic=False, **({} if mode == "default" else {"mode": mode}))

    def step(kept: Any) -> Any:
        value, kept = loss(kept, *tensors)
        grads = library.autograd.grad(value, weights)
        with library.no_grad():
            library._foreach_add_(weights, grads, alpha=-RATE)
        return kept, value.detach()

    return _stepping(lab, step, kept, first, "torch.compile" if mode else "torch", random=recurrent)
