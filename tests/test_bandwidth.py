"""Kernels that are bound by memory: streaming stores, prefetching, transposing tiles, division by multiplication. Values, never times."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

import xlc
import xlc.nn
from xlc.backends.cpu.emit import emit_kernel
from xlc.backends.cpu.target import host
from xlc.ir.loops import Kernel
from xlc.ir.parse_kernel import parse_kernel
from xlc.ir.verify import verify_kernel
from xlc.passes.dedupe import structure
from xlc.schedule import lower


def kernel_of(f, *args) -> Kernel:
    (kernel,) = xlc.jit(f).compile(*args).kernels
    return kernel


def values(*shape: int, dtype: str = "f4", scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(list(shape)).standard_normal(shape) * scale).astype(dtype)


# ------------------------------------------------------------------------------------------------ streaming stores


def test_large_results_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "STREAM_BYTES", 1 << 16)
    for n in (1 << 16, (1 << 16) + 7):
        x = values(n)
        kernel = kernel_of(lambda x: x * 2 + 1, x)
        text = str(emit_kernel(kernel, host()))
        assert kernel.streaming == (0,) and "!nontemporal" in text and ".ordinary" in text
        assert np.array_equal(xlc.jit(lambda x: x * 2 + 1)(x), x * 2 + 1)


def test_streaming_needs_aligned_memory_and_no_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "STREAM_BYTES", 1 << 16)
    kernel = kernel_of(lambda x: x + 1, values(1 << 16))
    assert "!nontemporal" not in str(emit_kernel(kernel, host(), frozenset({0, 1})))
    f = xlc.jit(lambda x: x + 1, donate=(0,))
    x = values((1 << 16) + 1)[1:]  # donated: the result has this address
    assert np.array_equal(f(x.copy()), x + 1)


def test_small_results_are_not_streamed() -> None:
    assert kernel_of(lambda x: x + 1, values(1000)).streaming == ()


def test_streaming_is_part_of_a_kernel() -> None:
    text = "kernel k0(in x: f32[64], out y: f32[64]) streaming(0) {\n  vector v in 0..64 width 64 {\n    y[v] = x[v]\n  }\n}"
    kernel = parse_kernel(text)
    assert kernel.streaming == (0,) and str(kernel) == text and not verify_kernel(kernel)
    assert structure(kernel) != structure(parse_kernel(text.replace(" streaming(0)", "")))
    with pytest.raises(xlc.XlcError, match="streaming"):
        verify_kernel(parse_kernel(text.replace("streaming(0)", "streaming(1)")))


# ------------------------------------------------------------------------------------------------ transposes


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i2", "f2", "i8", "bool"])
def test_transposes(dtype: str) -> None:
    for shape in ((16, 16), (17, 33), (5, 100), (100, 5), (4, 4), (3, 50), (40, 8), (1040, 20)):
        x, y = values(*shape, dtype=dtype, scale=5), values(*shape[::-1], dtype=dtype, scale=5)
        equal, turned = xlc.jit(lambda x, y: (y == x.T, x.T))(x, y)
        assert np.array_equal(equal, y == x.T) and np.array_equal(turned, x.T), shape
        assert np.array_equal(xlc.jit(lambda x, y: np.where(y == y, x.T, y))(x, y), x.T), shape


def test_transposing_kernels_are_proved() -> None:
    kernel = kernel_of(lambda x: x.T + 1, values(40, 70))
    assert "tile0" in str(kernel) and not verify_kernel(kernel)
    square = values(20, 20)
    assert np.array_equal(xlc.jit(lambda s: s + s.T)(square), square + square.T)


def test_permutations() -> None:
    x = values(3, 5, 17, 19)
    for axes in itertools.permutations(range(4)):
        assert np.array_equal(xlc.jit(lambda x, axes=axes: np.transpose(x, axes) * 2)(x), np.transpose(x, axes) * 2)


def test_transposes_of_named_sizes() -> None:
    f = xlc.jit(lambda x: x.T * 2, dynamic={"x": {0: "n", 1: "m"}})
    g = xlc.jit(lambda x: x.T * 2, dynamic={"x": {0: "n"}})
    for n, m in ((16, 16), (17, 33), (5, 100), (1, 7), (0, 3), (70, 1100)):
        x, y = values(n, m), values(n, 50)
        assert np.array_equal(f(x), x.T * 2) and np.array_equal(g(y), y.T * 2)
    assert f.compiles == g.compiles == 1


# ------------------------------------------------------------------------------------------------ rows


def test_next_row_is_prefetched() -> None:
    assert "prefetch" in str(kernel_of(lambda x: xlc.nn.softmax(x), values(2048, 1024)))
    assert "prefetch" not in str(kernel_of(lambda x: xlc.nn.softmax(x), values(64, 64)))


@pytest.mark.parametrize("heads,depth,dtype", [(6, 64, "f4"), (3, 16, "f8"), (2, 128, "f2"), (5, 48, "f4"), (4, 7, "f4"), (1, 32, "i4")])
def test_heads_side_by_side_are_read_in_whole_vectors(heads: int, depth: int, dtype: str) -> None:
    """(batch, heads, time, depth) three times -> (batch, time, 3 heads depth), as the gradient of attention's queries, keys and values."""
    shape, width = (2, heads, 5, depth), heads * depth
    parts = [values(*shape, dtype=dtype, scale=9.0 + k) for k in range(3)]

    def joined(*parts: Any) -> Any:
        out = [np.pad(np.moveaxis(p, 1, 2).reshape(2, 5, width), ((0, 0), (0, 0), (k * width, (2 - k) * width))) for k, p in
               enumerate(parts)]
        return out[0] + out[1] + out[2]

    program = xlc.jit(joined).compile(*parts)
    assert np.array_equal(xlc.jit(joined)(*parts), joined(*parts))
    if depth % 16 == 0:
        assert not re.search(r"v\+v_\)?//|remainder\(v\+v_", str(program.kernels[0].loops))
