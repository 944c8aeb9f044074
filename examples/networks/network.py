"""What a network is here, the registry of all of them, and their comparison with PyTorch.

    net = network("lenet5")                                   or network("lenet5", full=True), the published size
    params, state = net.init(xlc.random.key(0))
    value, state = net.loss(params, state, key, *net.batch(np.random.default_rng(0)))
    compare(net, np.float64)                                  {"forward": 3e-15, "gradient": 2e-14}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import xlc

Tree = Any


@dataclass(frozen=True)
class Network:
    """A network at one size: pure functions over pytrees.

    init        key -> (params, state); the state is what a step changes and no gradient does: running averages, a carried hidden state
    apply       (params, state, *inputs) -> outputs: inference
    loss        (params, state, key, *batch) -> (number, new state): training; the key is for dropout
    batch       rng -> arrays: a batch that can be learnt, of real data or synthetic; its first ``inputs`` arrays are those of ``apply``
    reference   () -> (apply, loss) of the same meaning on PyTorch's tensors; PyTorch is imported when it is called
    using       functions -> (apply, loss) with other functions than xlc's, where the network is made of ``Layers``
    shapes      () -> params as specs, which costs no more than tracing
    step        (params, state, memory, key, *batch) -> (params, state, memory, number), where it is not the usual one"""

    name: str
    init: Callable[[Any], tuple[Tree, Tree]]
    apply: Callable[..., Any]
    loss: Callable[..., tuple[Any, Tree]]
    batch: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    reference: Callable[[], tuple[Callable[..., Any], Callable[..., Any]]]
    shapes: Callable[[], Tree]
    inputs: int = 1
    optimizer: Any = field(default_factory=lambda: xlc.optim.adam(1e-3))
    step: Callable[..., tuple[Any, Tree, Tree, Any]] | None = None
    using: Callable[[Any], tuple[Callable[..., Any], Callable[..., Any]]] | None = None

    @property
    def parameters(self) -> int:
        """The number of trained parameters, by their shapes."""
        return sum(int(np.prod(leaf.type.shape)) for leaf in xlc.tree.leaves(self.shapes()))

    def train(self, params: Tree, state: Tree, memory: Tree, key: Any, *batch: Any) -> tuple[Tree, Tree, Tree, Any]:
        """One step of training: (params, state, memory of the optimiser, loss)."""
        if self.step is not None:
            return self.step(params, state, memory, key, *batch)
        (value, state), grads = xlc.value_and_grad(self.loss, has_aux=True)(params, state, key, *batch)
        params, memory = self.optimizer.update(grads, memory, params)
        return params, state, memory, value

    def begin(self, key: Any) -> dict[str, Any]:
        """What ``xlc.train.fit`` carries from step to step."""
        params, state = self.init(key)
        return {"params": params, "state": state, "memory": self.optimizer.init(params), "key": xlc.random.fold_in(key, 1)}

    def advance(self, run: dict[str, Any], *batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A step as ``xlc.train.fit`` takes it, with a key of its own."""
        keys = xlc.random.split(run["key"], 2)
        params, state, memory, loss = self.train(run["params"], run["state"], run["memory"], keys[0], *batch)
        return {"params": params, "state": state, "memory": memory, "key": keys[1]}, {"loss": loss}


@dataclass(frozen=True)
class Entry:
    """A line of the registry: how to build the network, and the number of parameters that is published for it, None where none is."""

    build: Callable[[bool], Network]
    parameters: int | None = None


NETWORKS: dict[str, Entry] = {}


def register(name: str, parameters: int | None = None) -> Callable[[Callable[[bool], Network]], Callable[[bool], Network]]:
    """Enter a function ``full -> Network`` into the registry."""
    def enter(build: Callable[[bool], Network]) -> Callable[[bool], Network]:
        NETWORKS[name] = Entry(build, parameters)
        return build

    return enter


def network(name: str, full: bool = False) -> Network:
    """A network of the registry, at its published size or at one that trains in seconds."""
    return NETWORKS[name].build(full)


def cast(tree: Tree, dtype: Any) -> Tree:
    """The floats of a pytree in another dtype; integers as they are."""
    return xlc.tree.map(lambda a: a.astype(dtype) if np.asarray(a).dtype.kind == "f" else np.asarray(a), tree)


def distance(found: Tree, expected: Tree) -> float:
    """The greatest error of any array: relative to the greatest magnitude in the array, or to a thousandth of that in all arrays, where
    that is more, as what should be zero is noise."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in
             zip(xlc.tree.leaves(found), xlc.tree.leaves(expected), strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    sizes = [np.abs(b).max(initial=0) for _, b in pairs]
    least = max(1e-3 * max(sizes, default=0), float(np.finfo(np.float32).tiny))
    return max((float(np.abs(a - b).max(initial=0) / max(size, least)) for (a, b), size in zip(pairs, sizes, strict=True)), default=0.0)


def arguments(net: Network, dtype: Any, seed: int = 0) -> tuple[Any, ...]:
    """Parameters, state, key and a batch, in a dtype: the same numbers whatever it is."""
    params, state = cast(net.init(xlc.random.key(seed)), dtype)
    return params, state, xlc.random.key(seed + 1), *cast(net.batch(np.random.default_rng(seed)), dtype)


def ours(net: Network, params: Tree, state: Tree, key: Any, *batch: Any) -> tuple[Tree, Tree]:
    """(what inference gives, the loss and the state after a step; the gradients), as one program."""

    @xlc.jit
    def program(params: Tree, state: Tree, key: Any, *batch: Any) -> Tree:
        (value, after), grads = xlc.value_and_grad(net.loss, has_aux=True)(params, state, key, *batch)
        return (net.apply(params, state, *batch[:net.inputs]), value, after), grads

    return program(params, state, key, *batch)


def theirs(net: Network, params: Tree, state: Tree, key: Any, *batch: Any) -> tuple[Tree, Tree]:
    """The same by PyTorch."""
    import torch

    apply, loss = net.reference()
    tensors = xlc.tree.map(lambda a: torch.from_numpy(np.array(a)), (state, batch))
    weights = xlc.tree.map(lambda a: torch.from_numpy(np.array(a)).requires_grad_(), params)
    with torch.no_grad():
        outputs = apply(weights, tensors[0], *tensors[1][:net.inputs])
    value, after = loss(weights, tensors[0], key, *tensors[1])
    value.backward()
    grads = xlc.tree.map(lambda t: torch.zeros_like(t) if t.grad is None else t.grad, weights)
    return _numpy((outputs, value, after)), _numpy(grads)


def compare(net: Network, dtype: Any = np.float32, seed: int = 0) -> dict[str, float]:
    """Inference and the gradients of training against PyTorch, on the same weights: the error of the worst output, and of the worst
    parameter's gradient."""
    given = arguments(net, dtype, seed)
    return dict(zip(("forward", "gradient"), map(distance, ours(net, *given), theirs(net, *given)), strict=True))


def _numpy(tree: Tree) -> Tree:
    """PyTorch's tensors as arrays."""
    if isinstance(tree, dict):
        return {k: _numpy(v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_numpy(v) for v in tree)
    return tree.detach().numpy() if hasattr(tree, "detach") else tree
