"""The peers, each called the best way it is known to offer; one function per library turns a computation and its inputs into a contestant.

    jax_calls(lambda x, y: jnp.tanh(x) + y, inputs)      jitted, arrays on the device, waits for the result
    torch_calls(f, inputs, compiled="default")           torch.compile, inference mode, two threads
    onnx_calls([("Softmax", ["x"], ["y"], {"axis": -1})], {"x": ...}, ...)     a model built here, prebound inputs and outputs

Libraries are imported when first used; one that is not installed raises ``Missing`` and the run goes on without it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .harness import Contestant, Missing, calls
from .machine import THREADS

Inputs = Sequence[tuple[Any, ...]]
OnnxNode = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]  # operator, what it reads, what it writes, attributes


def find(name: str) -> None:
    """Is the library installed? Raises ``Missing`` otherwise; does not import it."""
    if importlib.util.find_spec(name) is None:
        raise Missing(f"pip install {'torch==2.13.0' if name == 'torch' else name}")


@functools.cache
def library(name: str) -> Any:
    """An installed library, ready for two threads (the others have it from the environment)."""
    find(name)
    found = importlib.import_module(name)
    if name in ("torch", "numexpr"):
        found.set_num_threads(THREADS)
    return found


def versions() -> str:
    """The peers that are installed, and those that are not."""
    here, absent = [], []
    for name in ("numexpr", "numba", "jax", "torch", "onnxruntime", "onnx", "llvmlite"):
        try:
            here.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    return f"peers: {', '.join(here) or 'none'}" + (f"; not installed, therefore left out: {', '.join(absent)}" if absent else "")


def xlc_calls(f: Callable[..., Any], inputs: Inputs, *, check: bool = True, **options: Any) -> Contestant:
    """``check=False``: a part of the row's computation, whose result is another."""
    import xlc

    return calls(xlc.jit(f, **options), inputs, _arrays if check else lambda _: None)


def _arrays(result: Any) -> Any:
    return [np.asarray(r) for r in result] if isinstance(result, (tuple, list)) else np.asarray(result)


# ---------------------------------------------------------------------------------------------- JAX

def jax_calls(f: Callable[..., Any], inputs: Inputs, *, donate_result: bool = False) -> Contestant:
    """``donate_result``: the result is written over the previous one, whose memory is donated as an extra argument."""
    jax = library("jax")
    on_device = [tuple(jax.device_put(a) for a in args) for args in inputs]
    if not donate_result:
        jitted = jax.jit(f)
        return calls(lambda *args: jitted(*args).block_until_ready(), on_device, _arrays)
    jitted = jax.jit(lambda out, *args: f(*args), donate_argnums=0, keep_unused=True)
    out = jax.jit(f)(*on_device[0])

    def call(*args: Any) -> Any:
        nonlocal out
        out = jitted(out, *args).block_until_ready()
        return out

    return calls(call, on_device, _arrays)


# ---------------------------------------------------------------------------------------------- PyTorch

def torch_calls(f: Callable[..., Any], inputs: Inputs, *, compiled: str | None = None, frozen: bool = False) -> Contestant:
    """``compiled`` is a mode of torch.compile, None for eager; ``frozen`` lets inductor fold and repack constant weights."""
    torch = library("torch")
    tensors = [tuple(torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in args) for args in inputs]
    settings = contextlib.nullcontext()
    if compiled:
        if frozen:
            settings = importlib.import_module("torch._inductor.config").patch(freezing=True)
        options: dict[str, Any] = {} if compiled == "default" else {"mode": compiled}
        f = torch.compile(f, dynamic=False, **options)
    plain = calls(f, tensors)
    with settings, torch.inference_mode():  # compiles here, at the first call
        f(*tensors[0])

    def seconds(n: int) -> float:
        with torch.inference_mode():
            return plain.seconds(n)

    def result() -> Any:
        with torch.inference_mode():
            return _arrays(f(*tensors[0]))

    return Contestant(seconds, result)


def torch_linear(weights: np.ndarray, bias: np.ndarray) -> Any:
    """The module x @ weights + bias."""
    torch = library("torch")
    layer = torch.nn.Linear(*weights.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights.T))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer.eval()


# ---------------------------------------------------------------------------------------------- ONNX Runtime

def onnx_model(nodes: Sequence[OnnxNode], inputs: Mapping[str, np.ndarray],
               outputs: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], opset: int = 20) -> bytes:
    """A serialised model."""
    onnx = library("onnx")
    helper = onnx.helper

    def info(name: str, a: np.ndarray) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)

    made = [helper.make_node(operator, reads, writes, **attributes) for operator, reads, writes, attributes in nodes]
    graph = helper.make_graph(made, "benchmark", [info(n, a) for n, a in inputs.items()], [info(n, a) for n, a in outputs.items()],
                              [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return bytes(model.SerializeToString())


def onnx_calls(nodes: Sequence[OnnxNode], names: Sequence[str], inputs: Inputs,
               outputs: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray] | None = None, opset: int = 20) -> Contestant:
    """``names`` are those of each tuple of ``inputs``; ``outputs`` gives a name and an array of the right shape for each result."""
    ort = library("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 4  # an operator it does not have is an error of ours to report, not text between the rows
    model = onnx_model(nodes, dict(zip(names, inputs[0], strict=True)), outputs, weights or {}, opset)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    results = {n: ort.OrtValue.ortvalue_from_numpy(np.zeros_like(a)) for n, a in outputs.items()}
    bound = []
    for args in inputs:
        binding = session.io_binding()
        for n, a in zip(names, args, strict=True):
            binding.bind_ortvalue_input(n, ort.OrtValue.ortvalue_from_numpy(a))
        for n, value in results.items():
            binding.bind_ortvalue_output(n, value)
        bound.append((binding,))
    values = list(results.values())

    def read(_: Any) -> Any:
        found = [v.numpy() for v in values]
        return found if len(found) > 1 else found[0]

    return calls(session.run_with_iobinding, bound, read)


# ---------------------------------------------------------------------------------------------- numexpr, Numba

def numexpr_calls(expression: str, names: Sequence[str], inputs: Inputs, constants: Mapping[str, np.float32] | None = None) -> Contestant:
    """``constants`` are float32: numexpr takes a literal as float64 and would compute in that."""
    numexpr = library("numexpr")
    out = np.empty_like(inputs[0][0])
    scopes = [({**dict(zip(names, args, strict=True)), **(constants or {})},) for args in inputs]
    return calls(lambda scope: numexpr.evaluate(expression, scope, {}, out=out, casting="same_kind"), scopes)


def numba_calls(kernel: str, inputs: Inputs, out: np.ndarray) -> Contestant:
    """A function of ``numba_kernels`` that writes its result into its last argument."""
    library("numba")
    kernels = importlib.import_module("benchmarks.numba_kernels")
    f = getattr(kernels, kernel)
    return calls(f, [(*args, out) for args in inputs], lambda _: out)
