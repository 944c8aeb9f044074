"""Kernels written by hand in Triton, as its tutorials write them, for PyTorch's tensors."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _softmax(x, y, columns, BLOCK: tl.constexpr, SALT: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    v = tl.load(x + row * columns + at, mask=inside, other=-float("inf"))
    v = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row * columns + at, v / tl.sum(v, axis=0), mask=inside)


@triton.jit
def _chain(x, y, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    a = tl.load(x + at, mask=inside).to(tl.float32)
    b = tl.load(y + at, mask=inside).to(tl.float32)
    inner = 0.7978845608 * (a + 0.044715 * a * a * a)
    result = 0.5 * a * (2 * tl.sigmoid(2 * inner)) * 1.5 + b
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


def softmax(x: Any, salt: int = 0) -> Any:
    """``salt`` makes a kernel of its own, which is compiled anew."""
    rows, columns = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(columns)
    _softmax[(rows,)](x, out, columns, BLOCK=block, SALT=salt, num_warps=min(max(block // 256, 4), 16))
    return out


def chain(x: Any, y: Any) -> Any:
    out = torch.empty_like(x)
    _chain[(triton.cdiv(x.numel(), 1024),)](x, y, out, x.numel(), BLOCK=1024)
    return out
