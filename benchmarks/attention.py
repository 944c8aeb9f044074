"""Attention, 16 heads of 64: one kernel against four, against the peers, and the arena of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import machine, peers
from .harness import Build, Contestant, Row, Scale, amount, calls, contest
from .workloads import Workload, attention

PEERS = ("JAX", "torch")


def rows(scale: Scale) -> Iterator[Row]:
    for batch, tokens in ((1, 512), (1, 1024), (1, 4096), (4, 512)):
        for causal in (False, True):
            w = attention(batch, scale.size(16, 2), scale.size(tokens, 40), 64, causal)
            row = contest(scale, w.name, contestants(w, causal) | machine.peaks(), work=w.flops, unit="FLOP", limit="fma peak",
                          expected=w.expected)
            row.faster_than_best(PEERS)
            _against_stored_scores(row, w)
            yield row


def contestants(w: Workload, causal: bool) -> dict[str, Build]:
    return {
        "xlc": lambda: peers.xlc_calls(w.f, w.inputs),
        "xlc, scores stored": lambda: stored(w),
        "JAX": lambda: peers.jax_calls(_jax(causal), w.inputs),
        "torch": lambda: peers.torch_calls(_torch(causal), w.inputs),
    }


def stored(w: Workload) -> Contestant:
    import xlc

    with xlc.config.context(fuse_tiles=False):
        program = xlc.jit(w.f).compile(*w.inputs[0])
    return calls(program, w.inputs)


def _against_stored_scores(row: Row, w: Workload) -> None:
    import xlc

    from .memory import compiled

    one = compiled(w).plan
    with xlc.config.context(fuse_tiles=False):
        other = compiled(w).plan
    found = (f"{len(one.launches)} kernels for {len(other.launches)}, arena {amount(one.arena_bytes)} for {amount(other.arena_bytes)}")
    scores = w.inputs[0][0].nbytes // 64 * w.inputs[0][0].shape[-2]  # heads of 64
    row.judge("no scores in memory", found, one.arena_bytes < scores)


def _jax(causal: bool) -> Callable[..., Any]:
    jax = peers.library("jax")

    def f(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal).swapaxes(1, 2)

    return f


def _torch(causal: bool) -> Callable[..., Any]:
    functional = peers.library("torch").nn.functional
    return lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
