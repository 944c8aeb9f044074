"""What is bound by memory, by tensor cores, or by the host: one generator of rows for each group."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..harness import US, Build, Contestant, Missing, Row, Scale, Stats, contest, duration, reason_of
from ..workloads import NUMPY_ROWS, deep, gelu_scale_add, softmax_numpy
from .lab import CHECKED, SINGLE, Lab

COMPILERS = ("torch.compile", "JAX")
ROWS = 16384
TOO_LARGE = "needs more memory than the device has"
BATCHES = 3  # of a compile time


def elementwise(lab: Lab, scale: Scale) -> Iterator[Row]:
    """gelu, scale and add of 256M numbers."""
    n = scale.size(1 << 28, 4096)
    for narrow in (False, True):
        name = f"gelu, scale, add: {n} {'bf16' if narrow else 'f32'}"
        if not lab.fits(64.0 * n):
            yield Row(name, notes=[TOO_LARGE])
            continue
        x, y = (lab.normal((n,), seed) for seed in (0, 1))
        if narrow:
            x, y = lab.bf16(x), lab.bf16(y)
        expected = gelu_scale_add(*(lab.numbers(a) for a in (x, y)))
        ways: dict[str, Build] = {
            US: functools.partial(lab.xlc, _gelu_scale_add, x, y),
            "torch.compile": lambda x=x, y=y: lab.torch(_chain(lab.library("torch")), x, y, compiled="default"),
            "JAX": lambda x=x, y=y: lab.jax(_chain(lab.library("jax").numpy), x, y),
            "Triton": functools.partial(_triton, lab, "chain", x, y),
            **({} if narrow or lab.host else {"CuPy": lambda x=x, y=y: lab.calls(lab.xp.fuse()(_chain(lab.xp)), (x, y))}),
            **lab.copy(x.nbytes)}
        row = contest(scale, name, ways, work=3.0 * x.nbytes, unit="B", limit="copy", expected=expected,
                      tolerance=3e-2 if narrow else 1e-5)
        row.share("copy", 0.95, "95% of copy bandwidth")
        row.faster_than_best(COMPILERS)
        yield row
        del x, y, ways
        lab.clean()


def _gelu_scale_add(x: Any, y: Any) -> Any:
    """NumPy's bfloat16 times a Python number is float32; the result is of x's dtype, as those of the other libraries are."""
    return gelu_scale_add(x, y).astype(x.dtype)


def _chain(xp: Any) -> Callable[..., Any]:
    """The function of ``gelu_scale_add``, for a library that does not take NumPy's."""
    tanh = xp.tanh
    return lambda x, y: 0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x * x))) * 1.5 + y


def _triton(lab: Lab, name: str, *args: Any) -> Contestant:
    lab.library("torch")
    if lab.host:
        raise Missing("triton runs on GPUs")
    lab.library("triton")
    return lab.torch(getattr(importlib.import_module("benchmarks.gpu.kernels"), name), *args)


# ---------------------------------------------------------------------------------------------- rows

def normalizations(lab: Lab, scale: Scale) -> Iterator[Row]:
    """softmax, layer norm, cross-entropy of 16384 rows."""
    import xlc

    for columns in (1024, 8192, 65536):
        rows, columns = scale.size(ROWS, 80), scale.size(columns, 40)
        if not lab.fits(44.0 * rows * columns):
            yield Row(f"rows of {columns}", notes=[TOO_LARGE])
            continue
        x, bias = lab.normal((rows, columns)), lab.normal((columns,), 2)
        weight, labels = lab.normal((columns,), 1), lab.integers(columns, (rows,))
        subjects: dict[str, tuple[Callable[..., Any], tuple[Any, ...], float]] = {
            "softmax": (xlc.nn.softmax, (x,), 2), "layer norm": (xlc.nn.layer_norm, (x, weight, bias), 2),
            "cross-entropy": (xlc.nn.cross_entropy, (x, labels), 1)}
        for name, (f, args, passes) in subjects.items():
            ways: dict[str, Build] = {
                US: functools.partial(lab.xlc, f, *args),
                "torch.compile": lambda n=name, a=args: lab.torch(_torch_rows(lab)[n], *a, compiled="default"),
                "JAX": lambda n=name, a=args: lab.jax(_jax_rows(lab)[n], *a),
                **({"Triton": functools.partial(_triton, lab, "softmax", x)} if name == "softmax" else {}),
                **lab.copy(min(x.nbytes, 1 << 30))}
            row = contest(scale, f"{name} {rows}x{columns} f32", ways, work=passes * x.nbytes, unit="B", limit="copy",
                          expected=_expected(lab, name, *args), tolerance=1e-4)
            row.share("copy", 0.9, "90% of copy bandwidth")
            row.faster_than_best(COMPILERS)
            yield row
        del x, args, subjects, ways
        lab.clean()


def _expected(lab: Lab, name: str, x: Any, *rest: Any) -> np.ndarray:
    """Of the rows that are checked."""
    if name == "cross-entropy":  # one number per row: more rows
        rows = np.concatenate([lab.numbers(x[k:k + CHECKED]) for k in range(0, min(SINGLE, len(x)), CHECKED)])
        return NUMPY_ROWS[name](rows, lab.numbers(rest[0]).astype(np.int64))
    return NUMPY_ROWS[name](lab.numbers(x), *(lab.numbers(a[None])[0] for a in rest))


def _torch_rows(lab: Lab) -> dict[str, Callable[..., Any]]:
    functional = lab.library("torch").nn.functional
    return {"softmax": lambda x: functional.softmax(x, -1), "layer norm": lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b),
            "cross-entropy": lambda x, labels: functional.cross_entropy(x, labels, reduction="none")}


def _jax_rows(lab: Lab) -> dict[str, Callable[..., Any]]:
    lab.library("jax")
    functions = importlib.import_module("benchmarks.jax_functions")
    return {"softmax": lambda x: functions.softmax(x), "layer norm": functions.layer_norm, "cross-entropy": functions.cross_entropy}


# ---------------------------------------------------------------------------------------------- tensor cores

def gelu(tanh: Callable[[Any], Any], h: Any) -> Any:
    return 0.5 * h * (1 + tanh(0.7978845608 * (h + 0.044715 * h * h * h)))


def products(lab: Lab, scale: Scale) -> Iterator[Row]:
    """bf16 products of squares, bare and with bias and gelu."""
    for size in (1024, 2048, 4096, 8192):
        n = scale.size(size, 64)
        x, w, b = (lab.bf16(lab.normal(s, seed, c)) for s, seed, c in (((n, n), 0, 1.0), ((n, n), 1, n ** -0.5), ((n,), 2, 1.0)))
        bare = lab.numbers(x) @ _all(lab, w)
        flops = 2.0 * n ** 3
        row = contest(scale, f"{n}x{n} @ {n}x{n} bf16", {
            US: functools.partial(lab.xlc, lambda x, w: x @ w, x, w),
            "cuBLAS": functools.partial(lab.torch, lambda x, w: x @ w, x, w, yardstick=True),
            "JAX": functools.partial(lab.jax, lambda x, w: x @ w, x, w)},
            work=flops, unit="FLOP", limit="cuBLAS", expected=bare, tolerance=2e-2)
        row.share("cuBLAS", 0.85 if size >= 4096 else 0.0, "85% of cuBLAS" if size >= 4096 else "share of cuBLAS")
        yield row
        ways: dict[str, Build] = {
            US: functools.partial(lab.xlc, lambda x, w, b: gelu(np.tanh, x @ w + b), x, w, b),
            "cuBLAS, then bias and gelu": lambda x=x, w=w, b=b: lab.torch(_torch_dense(lab), x, w, b),
            "torch.compile": lambda x=x, w=w, b=b: lab.torch(_torch_dense(lab), x, w, b, compiled="default"),
            "JAX": lambda x=x, w=w, b=b: lab.jax(lambda x, w, b: gelu(lab.library("jax").numpy.tanh, x @ w + b), x, w, b)}
        row = contest(scale, f"gelu({n}x{n} @ {n}x{n} + bias) bf16", ways, work=flops, unit="FLOP",
                      expected=gelu(np.tanh, bare + lab.numbers(b[None])[0]), tolerance=3e-2)
        row.faster_than_best(("cuBLAS",))
        row.faster_than_best(COMPILERS)
        yield row
        lab.clean()


def _all(lab: Lab, x: Any) -> np.ndarray:
    """All of an array, on the host: float32 is enough for sums of products of bf16 to be checked."""
    return np.concatenate([lab.numbers(x[k:k + CHECKED]).astype(np.float32) for k in range(0, len(x), CHECKED)])


def _torch_dense(lab: Lab) -> Callable[..., Any]:
    torch = lab.library("torch")
    return lambda x, w, b: torch.nn.functional.gelu(torch.addmm(b, x, w), approximate="tanh")


def attention(lab: Lab, scale: Scale) -> Iterator[Row]:
    """16 heads of 64, 4096 tokens, bf16."""
    import xlc

    heads, tokens, depth = scale.size(16, 2), scale.size(4096, 96), 64
    q, k, v = (lab.bf16(lab.normal((1, heads, tokens, depth), seed)) for seed in range(3))
    for causal in (False, True):
        f = functools.partial(_xlc_attention, causal=causal)
        ways: dict[str, Build] = {US: functools.partial(lab.xlc, f, q, k, v)}
        ways |= {f"SDPA {name}": functools.partial(_sdpa, lab, name, causal, q, k, v)
                 for name in ("flash", "cudnn", "efficient", "math") if name == "math" or not lab.host}
        ways["JAX"] = lambda causal=causal: lab.jax(_jax_attention(lab, causal), q, k, v)
        row = contest(scale, f"attention 1x{heads}x{tokens}x{depth} bf16{' causal' if causal else ''}", ways, unit="FLOP",
                      work=4.0 * heads * tokens ** 2 * depth / (2 if causal else 1), expected=_attention_numbers(lab, q, k, v, causal),
                      tolerance=3e-2)
        best = row.best(("SDPA",))
        if best and row.us:
            ratio = row.stats[best].median / row.us.median
            row.judge("70% of the best SDPA", f"{ratio:.0%} of {best}", ratio >= 0.7)
        else:
            row.judge("70% of the best SDPA", "no SDPA here" if row.us else f"no {US}", None if row.us else False)
        try:
            arena = xlc.jit(f).compile(q, k, v).plan.arena_bytes
            row.judge("no scores in device memory", f"arena of {arena} bytes", arena < 2 * heads * tokens ** 2)
        except Exception as error:  # the row's times stand all the same
            row.judge("no scores in device memory", reason_of(error), False)
        yield row


def _xlc_attention(q: Any, k: Any, v: Any, causal: bool) -> Any:
    import xlc

    return xlc.nn.attention(q, k, v, causal=causal)


def _attention_numbers(lab: Lab, q: Any, k: Any, v: Any, causal: bool) -> Any:
    """The first queries of the first head."""
    a, b, c = lab.numbers(q), _all(lab, k[0, 0]), _all(lab, v[0, 0])
    scores = a @ b.T / a.shape[-1] ** 0.5
    return softmax_numpy(np.where(np.triu(np.ones(scores.shape, bool), 1), -np.inf, scores) if causal else scores) @ c


def _sdpa(lab: Lab, name: str, causal: bool, q: Any, k: Any, v: Any) -> Contestant:
    torch = lab.library("torch")
    chosen = importlib.import_module("torch.nn.attention")
    backend = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "math": "MATH"}[name]
    kind = getattr(chosen.SDPBackend, backend)
    plain = lab.torch(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal), q, k, v)

    def seconds(n: int) -> float:
        with chosen.sdpa_kernel(kind):
            return plain.seconds(n)

    def result() -> Any:
        with chosen.sdpa_kernel(kind):
            return plain.result() if plain.result else None

    return Contestant(seconds, result)


def _jax_attention(lab: Lab, causal: bool) -> Callable[..., Any]:
    nn = lab.library("jax").nn

    def f(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
        return nn.dot_product_attention(q, k, v, is_causal=causal, implementation=None if lab.host else "cudnn").swapaxes(1, 2)

    return f


# ---------------------------------------------------------------------------------------------- the host

def overhead(lab: Lab, scale: Scale) -> Iterator[Row]:
    """What a call takes before it returns."""
    import xlc

    x, y = lab.normal((256,)), lab.normal((256,), 1)
    expected = lab.numbers(x) * lab.numbers(y) + lab.numbers(y)

    def f(x: Any, y: Any) -> Any:
        return x * y + y

    row = contest(scale, "call of one launch: x * y + y", {
        US: lambda: lab.starts(xlc.jit(f), (x, y)), "JAX": lambda: lab.starts(lab.library("jax").jit(f), (lab.to_jax(x), lab.to_jax(y))),
        "torch.compile": lambda: lab.starts(lab.library("torch").compile(f, dynamic=False), (lab.to_torch(x), lab.to_torch(y))),
        "CuPy, two ufuncs": lambda: lab.starts(f, (x, y))}, expected=expected)
    row.under(10e-6)
    yield row

    ws = [lab.normal((64, 64), k, 0.1) for k in range(8)]
    bs, z = [lab.normal((64,), 9 + k) for k in range(8)], lab.normal((64, 64), 20)

    def layers(xp: Any) -> Callable[..., Any]:
        return lambda x, ws, bs: deep(xp, x, ws, bs)

    def torch_layers(x: Any, ws: Any, bs: Any) -> Any:
        for w, b in zip(ws, bs, strict=True):
            x = (x @ w + b).relu()
        return x

    many = deep(np, lab.numbers(z), [lab.numbers(w) for w in ws], [lab.numbers(b) for b in bs])
    row = contest(scale, "call of a plan of 8 layers, 64x64", {
        US: lambda: lab.starts(xlc.jit(layers(np)), (z, ws, bs)),
        "JAX": lambda: lab.starts(lab.library("jax").jit(layers(lab.library("jax").numpy)),
                                  (lab.to_jax(z), [lab.to_jax(w) for w in ws], [lab.to_jax(b) for b in bs])),
        "torch.compile, graphs": lambda: lab.starts(lab.library("torch").compile(torch_layers, dynamic=False, mode="reduce-overhead"),
                                                    (lab.to_torch(z), [lab.to_torch(w) for w in ws], [lab.to_torch(b) for b in bs]))},
                  expected=many, tolerance=1e-2)
    row.under(10e-6)
    yield row


def compile_times(lab: Lab, scale: Scale) -> Iterator[Row]:
    """From nothing to the first result, caches off; the median of some, after a first that loads what each library loads once."""
    import xlc

    def ours(k: int) -> None:
        with xlc.config.context(cache_dir=""):
            xlc.jit(lambda x: xlc.nn.softmax(x * 2) + 1)(lab.normal((256, 1000 + k)))

    def jax(k: int) -> None:
        library = lab.library("jax")
        library.jit(lambda x: library.nn.softmax(x * 2) + 1)(lab.to_jax(lab.normal((256, 1000 + k)))).block_until_ready()

    def torch(k: int) -> None:
        library = lab.library("torch")
        library._dynamo.reset()
        with importlib.import_module("torch._inductor.config").patch(force_disable_caches=True):
            library.compile(lambda x: library.softmax(x * 2, -1) + 1, dynamic=False)(lab.to_torch(lab.normal((256, 1000 + k))))

    def triton(k: int) -> None:
        lab.library("torch")
        if lab.host:
            raise Missing("triton runs on GPUs")
        lab.library("triton")
        importlib.import_module("benchmarks.gpu.kernels").softmax(lab.to_torch(lab.normal((256, 1000 + k))), int(time.time()) + k)

    row = Row("first result: softmax(x * 2) + 1")
    for name, first in {US: ours, "JAX": jax, "torch.compile": torch, "Triton": triton}.items():
        try:
            row.stats[name] = Stats(tuple(_taken(lab, first, k) for k in range(BATCHES + 1))[1:], 0.0)
        except Missing as reason:
            row.absent[name] = f"not installed ({reason})"
        except Exception as error:  # a peer that breaks is named, and the others go on
            row.absent[name] = reason_of(error)
    row.notes.append(", ".join(f"{n} {duration(s.low)} to {duration(s.high)}" for n, s in row.stats.items()))
    row.faster_than_best(("torch.compile", "Triton"))
    yield row


def _taken(lab: Lab, act: Callable[[int], None], k: int) -> float:
    lab.wait()
    start = time.perf_counter()
    act(k)
    lab.wait()
    return time.perf_counter() - start
