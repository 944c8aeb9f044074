"""Numba's versions of the workloads: loops over rows or elements, two threads, IEEE arithmetic. The last argument receives the result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange, vectorize

F = np.float32


@njit(parallel=True, fastmath=False)
def chain(x: Any, y: Any, out: Any) -> None:
    for i in prange(x.size):
        v = x[i]
        out[i] = F(0.5) * v * (F(1) + math.tanh(F(0.7978845608) * (v + F(0.044715) * v * v * v))) * F(1.5) + y[i]


@vectorize(["float32(float32, float32)"], target="parallel")
def chain_ufunc(v: Any, y: Any) -> Any:
    return F(0.5) * v * (F(1) + math.tanh(F(0.7978845608) * (v + F(0.044715) * v * v * v))) * F(1.5) + y


@njit(parallel=True, fastmath=False)
def softmax(x: Any, out: Any) -> None:
    for i in prange(x.shape[0]):
        top = x[i, 0]
        for j in range(x.shape[1]):
            top = max(top, x[i, j])
        total = F(0)
        for j in range(x.shape[1]):
            e = math.exp(x[i, j] - top)
            out[i, j] = e
            total += e
        for j in range(x.shape[1]):
            out[i, j] /= total


@njit(parallel=True, fastmath=False)
def layer_norm(x: Any, scale: Any, bias: Any, out: Any) -> None:
    for i in prange(x.shape[0]):
        total = F(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        mean = total / F(x.shape[1])
        square = F(0)
        for j in range(x.shape[1]):
            square += (x[i, j] - mean) * (x[i, j] - mean)
        r = F(1) / math.sqrt(square / F(x.shape[1]) + F(1e-5))
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - mean) * r * scale[j] + bias[j]


@njit(parallel=True, fastmath=False)
def rms_norm(x: Any, scale: Any, out: Any) -> None:
    for i in prange(x.shape[0]):
        square = F(0)
        for j in range(x.shape[1]):
            square += x[i, j] * x[i, j]
        r = F(1) / math.sqrt(square / F(x.shape[1]) + F(1e-6))
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] * r * scale[j]


@njit(parallel=True, fastmath=False)
def cross_entropy(x: Any, labels: Any, out: Any) -> None:
    for i in prange(x.shape[0]):
        top = x[i, 0]
        for j in range(x.shape[1]):
            top = max(top, x[i, j])
        total = F(0)
        for j in range(x.shape[1]):
            total += math.exp(x[i, j] - top)
        out[i] = math.log(total) + top - x[i, labels[i]]


@njit
def product_sum(x: Any, y: Any) -> Any:
    return x * y + y
