"""Training steps of whole networks (forward, backward, update as one call) beside JAX and torch.compile: time, compile time, memory.

A row is a line of ``SUBJECTS``: a network of examples/networks at its published size, and how its peers run it. Parameters and batches are
the same for all, and the loss of the first step is checked.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import peers
from .harness import US, Build, Contestant, Row, Scale, amount, calls, contest, duration

Rule = Callable[[Any, Any, Any], tuple[Any, Any]]
PEERS = ("JAX", "torch.compile")


@dataclass(frozen=True)
class Subject:
    """``rule``: (parameter, gradient, what is remembered of it) -> (parameter, remembered), the optimiser for JAX; ``torch``: parameters ->
    torch.optim's. ``jax``: network -> loss of the same arguments as ``Network.loss`` on JAX's arrays."""

    network: str
    title: str
    rule: Rule
    torch: Callable[[Any], Any]
    jax: Callable[[Any], Callable[..., Any]] = lambda net: net.using(importlib.import_module("benchmarks.jax_functions"))[1]


def momentum(rate: float, beta: float) -> tuple[Rule, Callable[[Any], Any]]:
    """The velocity v = beta * v + g, and p -= rate * v."""
    def rule(p: Any, g: Any, v: Any) -> tuple[Any, Any]:
        v = beta * v + g
        return p - rate * v, v

    return rule, lambda ps: peers.library("torch").optim.SGD(ps, rate, beta)


SUBJECTS = (Subject("lenet5", "LeNet-5, batch 100", *momentum(0.01, 0.9)),
            Subject("resnet-cifar", "ResNet-32 for CIFAR, batch 128", *momentum(0.1, 0.9)))


def rows(scale: Scale) -> Iterator[Row]:
    from examples.networks import network

    for subject in SUBJECTS:
        net = network(subject.network, full=not scale.smoke)
        first: dict[str, float] = {}
        memory: dict[str, float] = {}
        ways: dict[str, Build] = {US: functools.partial(ours, net, first, memory),
                                  "JAX": functools.partial(jax, net, subject, first, memory),
                                  "torch": functools.partial(torch, net, subject, first, memory, compiled=False),
                                  "torch.compile": functools.partial(torch, net, subject, first, memory, compiled=True)}
        row = contest(scale, f"training step: {subject.title}", ways, expected=expected(net), tolerance=1e-3)
        row.faster_than_best(PEERS)
        compile_time(row, first)
        memory_needed(row, memory)
        yield row


def begin(net: Any) -> tuple[Any, Any, Any, tuple[Any, ...]]:
    """Parameters, state, key, a batch."""
    import xlc

    return *net.init(xlc.random.key(0)), xlc.random.key(1), net.batch(np.random.default_rng(0))


def expected(net: Any) -> Any:
    """The loss of the first step in float64: PyTorch's, or where that is not installed ours."""
    from examples.networks.network import arguments, ours, theirs

    try:
        return theirs(net, *arguments(net, np.float64))[0][1]
    except ImportError:
        return ours(net, *arguments(net, np.float64))[0][1]


def stepping(step: Callable[..., Any], state: tuple[Any, ...], rest: tuple[Any, ...], first: dict[str, float], name: str) -> Contestant:
    """``step(*state, *rest) -> (*state, loss)``; every call goes on from where the last one stopped. The first, which compiles, is timed
    here, and its result is what is checked."""
    def call() -> Any:
        nonlocal state
        *state, loss = step(*state, *rest)  # type: ignore[assignment]
        return loss

    start = time.perf_counter()
    loss = np.array(call())
    first[name] = time.perf_counter() - start
    timed = calls(call, [()])
    return Contestant(timed.seconds, lambda: loss)


def ours(net: Any, first: dict[str, float], memory: dict[str, float]) -> Contestant:
    import xlc

    params, state, key, batch = begin(net)
    step = xlc.jit(net.train, donate=("params", "state", "memory"))
    began = (params, state, net.optimizer.init(params))
    with xlc.config.context(cache_dir=""):
        contestant = stepping(step, began, (key, *batch), first, US)
    plan = step.compile(*began, key, *batch).plan
    memory[US], memory["bound"] = plan.arena_bytes, plan.lower_bound_bytes
    return contestant


def jax(net: Any, subject: Subject, first: dict[str, float], memory: dict[str, float]) -> Contestant:
    jax = peers.library("jax")
    loss = subject.jax(net)
    tree = jax.tree_util

    def step(params: Any, state: Any, kept: Any, key: Any, *batch: Any) -> Any:
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state, key, *batch)
        moved = tree.tree_map(subject.rule, params, grads, kept)
        params, kept = tree.tree_transpose(tree.tree_structure(params), tree.tree_structure((0, 0)), moved)
        return params, state, kept, value

    params, state, key, batch = begin(net)
    began = jax.device_put((params, state, tree.tree_map(np.zeros_like, params)))
    rest = jax.device_put((key, *batch))
    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    start = time.perf_counter()
    program = jitted.lower(*began, *rest).compile()
    took = time.perf_counter() - start
    memory["JAX"] = program.memory_analysis().temp_size_in_bytes
    contestant = stepping(lambda *args: jax.block_until_ready(program(*args)), began, rest, first, "JAX")
    first["JAX"] += took
    return contestant


def torch(net: Any, subject: Subject, first: dict[str, float], memory: dict[str, float], *, compiled: bool) -> Contestant:
    import xlc

    torch = peers.library("torch")
    params, state, key, batch = begin(net)
    loss = net.reference()[1]
    theirs, kept, tensors = (xlc.tree.map(lambda a: torch.from_numpy(np.array(a)), t) for t in (params, state, batch))
    weights = [t.requires_grad_() for t in xlc.tree.leaves(theirs)]
    optimizer = subject.torch(weights)
    forward = torch.compile(loss, dynamic=False) if compiled else loss
    saved: dict[int, int] = {}

    def keep(t: Any) -> Any:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    def step(kept: Any) -> Any:
        value, kept = forward(theirs, kept, key, *tensors)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return kept, value.detach()

    name = "torch.compile" if compiled else "torch"
    if not compiled:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            forward(theirs, kept, key, *tensors)
        own = {t.untyped_storage().data_ptr() for t in [*weights, *xlc.tree.leaves(tensors)]}
        memory[name] = sum(n for place, n in saved.items() if place not in own)
    with importlib.import_module("torch._inductor.config").patch(force_disable_caches=True):
        return stepping(step, (kept,), (), first, name)


def compile_time(row: Row, first: dict[str, float]) -> None:
    """The first call, nothing cached: below JAX's, and below a fifth of torch.compile's."""
    row.notes.append("first call: " + ", ".join(f"{name} {duration(t)}" for name, t in first.items()))
    for name, part, bar in (("JAX", 1, "compiles faster than JAX"), ("torch.compile", 5, "compiles in a fifth of torch.compile's time")):
        known = US in first and name in first
        row.judge(bar, f"{first[name] / first[US]:.1f} times as fast" if known else "cannot be said", first[US] * part <= first[name]
                  if known else None)


def memory_needed(row: Row, memory: dict[str, float]) -> None:
    """Temporaries: the arena against its lower bound and against JAX's. Of PyTorch we know what the forward pass keeps for the backward
    pass, less than its peak."""
    if US not in memory:
        row.judge("arena at most 1.05 of its lower bound", f"no {US}", False)
        return
    bound = memory.pop("bound")
    row.notes.append("temporaries: " + ", ".join(f"{name} {amount(n)}" for name, n in memory.items()))
    row.judge("arena at most 1.05 of its lower bound", f"{memory[US] / max(bound, 1):.3f}", memory[US] <= 1.05 * bound)
    for name, what in (("JAX", "temporaries"), ("torch", "kept for the backward pass")):
        if name in memory:
            row.judge(f"arena below {name}'s {what}", f"{amount(memory[US])} for {amount(memory[name])}", memory[US] < memory[name])
