"""CUDA text of kernels: barriers where threads communicate and nowhere else, shuffles, vector accesses, narrow indices, clear refusals.

What the text computes is compared with the interpreter, which runs kernels one iteration after another.
"""

from __future__ import annotations

from typing import Any

import cuda_backend
import numpy as np
import pytest

from xlc.backends.cuda.emit import emit_kernel
from xlc.backends.cuda.module import emit_module
from xlc.errors import XlcNotImplementedError
from xlc.ir.interp import interpret_kernel
from xlc.ir.loops import Kernel
from xlc.ir.parse_kernel import parse_kernel
from xlc.ir.plan import Launch, Plan, Slot
from xlc.ir.types import Type
from xlc.ir.verify import check_kernel
from xlc.run.executable import Program

ORDERS = ("shim:ascending", "shim:descending", "shim:random")


def kernel(text: str) -> Kernel:
    return parse_kernel(text)


def run(k: Kernel, *arrays: np.ndarray, device: str = "shim") -> list[np.ndarray]:
    from xlc.pipeline import backend_for

    into = [Slot(f"i{n}", Type(b.dtype, b.shape), "param", n) for n, b in enumerate(k.inputs)]
    out = [Slot(f"o{n}", Type(b.dtype, b.shape), "result", n) for n, b in enumerate(k.outputs)]
    plan = Plan("alone", (), (*into, *out), (Launch(k.name, tuple(s.name for s in into), tuple(s.name for s in out)),), (k,), (), 0, 0)
    backend = backend_for(device)
    program = Program(backend.compile(plan), "alone", (), 0, (), (), backend).callable(
        params=list(range(len(into))), results=[(s.type.dtype.numpy, s.type.shape) for s in out],
        out_tree=("list", [("leaf", n) for n in range(len(out))]))
    return [np.asarray(a) for a in program.call_flat(list(arrays))]


def same_everywhere(k: Kernel, *arrays: np.ndarray) -> None:
    """The text gives what the interpreter gives, in every order of threads."""
    check_kernel(k)
    expected = interpret_kernel(k, arrays)
    if cuda_backend.MISSING is None:
        for device in ORDERS:
            for e, got in zip(expected, run(k, *arrays, device=device), strict=True):
                np.testing.assert_array_equal(got, e)


REVERSE = """kernel k(in x: f32[512], out y: f32[512]) {
  block b in 0..2 {
    local s: f32[256] shared
    thread t in 0..256 { s[t] = x[b*256+t] }
    thread t in 0..256 { y[b*256+t] = s[255-t] }
  }
}"""


def test_a_barrier_stands_between_writing_and_reading() -> None:
    k = kernel(REVERSE)
    text = emit_kernel(k)
    assert text.function.count("__syncthreads") == 1 and text.shared == 1024
    same_everywhere(k, np.arange(512, dtype=np.float32))


def test_no_barrier_where_threads_keep_to_themselves() -> None:
    k = kernel("""kernel k(in x: f32[256], out y: f32[256], out z: f32[256]) {
      block b in 0..1 {
        local r: f32[256,2] register
        thread t in 0..256 { r[t,0] = x[t]  r[t,1] = x[t]*2.0 }
        thread t in 0..256 { y[t] = r[t,0]+r[t,1] }
        thread t in 0..256 { z[t] = r[t,1] }
      }
    }""")
    text = emit_kernel(k).function
    assert "__syncthreads" not in text and "[2]" in text
    same_everywhere(k, np.arange(256, dtype=np.float32))


def test_barriers_inside_of_loops_see_the_iteration_before() -> None:
    """One between writing and reading, and one before the next iteration writes again what may still be read."""
    k = kernel("""kernel k(in x: f32[1024], out y: f32[256]) {
      block b in 0..1 {
        local s: f32[256] shared
        local r: f32[256,1] register
        thread t in 0..256 { r[t,0] = 0.0 }
        serial k in 0..4 {
          thread t in 0..256 { s[t] = x[k*256+t] }
          thread t in 0..256 { r[t,0] = r[t,0]+s[255-t] }
        }
        thread t in 0..256 { y[t] = r[t,0] }
      }
    }""")
    assert emit_kernel(k).function.count("__syncthreads") == 2
    same_everywhere(k, np.random.default_rng(0).normal(size=1024).astype(np.float32))


def test_a_barrier_that_is_taken_out_is_missed() -> None:
    """The check above can fail."""
    if cuda_backend.MISSING or cuda_backend.ON_GPU:
        pytest.skip(cuda_backend.MISSING or "is about the shim")
    from xlc.pipeline import backend_for

    class Without(cuda_backend.ShimBackend):
        def text(self, plan: Plan, module: Any = None) -> str:
            return emit_module(plan).text.replace("__syncthreads();", "")

    k, x = kernel(REVERSE), np.arange(512, dtype=np.float32)
    backends = [Without(backend_for(d).device) for d in ORDERS]
    from xlc import pipeline

    found = []
    for n, backend in enumerate(backends):
        pipeline.BACKENDS["without"] = lambda d, backend=backend: backend
        found.append(run(k, x, device=f"without:{n}")[0])
    assert any(not np.array_equal(f, interpret_kernel(k, [x])[0]) for f in found)


@pytest.mark.parametrize("dtype", ["f32", "f64", "i64", "u8", "bf16", "bool"])
def test_registers_of_other_lanes_are_shuffled(dtype: str) -> None:
    k = kernel(f"""kernel k(in x: {dtype}[256], out y: {dtype}[256]) {{
      block b in 0..1 {{
        local r: {dtype}[256,1] register
        thread t in 0..256 {{ r[t,0] = x[t] }}
        thread t in 0..256 {{ y[t] = r[bitwise_xor(t, 5),0] }}
      }}
    }}""")
    text = emit_kernel(k).function
    assert "__shfl_xor_sync" in text and "__syncthreads" not in text
    from xlc.ir.types import DTYPES

    same_everywhere(k, np.arange(256).astype(DTYPES[dtype].numpy))


def test_neighbours_are_one_access() -> None:
    k = kernel("""kernel k(in x: f32[1024], in w: f32[4], out y: f32[1024], out z: bf16[1024]) {
      block b in 0..1 { thread t in 0..256 { vector v in 0..4 width 4 {
        y[t*4+v] = x[t*4+v]*w[v]
        z[t*4+v] = cast(x[t*4+v], dtype=bf16)
      } } }
    }""")
    text = emit_kernel(k).function
    assert text.count("xlc_vec<float, 4>*)(x") == 1 and "xlc_vec<float, 4>*)(y" in text and "xlc_vec<unsigned short, 4>*)(z" in text
    same_everywhere(k, np.random.default_rng(0).normal(size=1024).astype(np.float32), np.arange(4, dtype=np.float32))
    apart = emit_kernel(k, unaligned=frozenset([0, 2])).function  # rows of something, which begin anywhere
    assert "xlc_vec<float, 4>*)(x" not in apart and "xlc_vec<float, 4>*)(y" not in apart and "xlc_vec<unsigned short, 4>*)(z" in apart


def test_indices_are_of_32_bits_where_they_fit() -> None:
    small = kernel("kernel k(out y: i64[256]) { block b in 0..1 { thread t in 0..256 { y[t] = t*3 } } }")
    large = kernel("kernel k(out y: i64[256]) { block b in 0..1 { thread t in 0..256 { y[t] = t*12884901888 } } }")
    assert "const int e" in emit_kernel(small).function and "const long long e" in emit_kernel(large).function
    same_everywhere(small)
    same_everywhere(large)


def test_buffers_that_may_share_memory_do_not_promise_otherwise() -> None:
    k = kernel("kernel k(in x: f32[256], out y: f32[256]) { block b in 0..1 { thread t in 0..256 { y[t] = x[t] } } }")
    assert emit_kernel(k).function.count("__restrict__") == 2
    assert "__restrict__" not in emit_kernel(k, aliased=frozenset([0, 1])).function


@pytest.mark.parametrize(("text", "words"), [
    ("kernel k(out y: f32[4]) { serial i in 0..4 { y[i] = 0.0 } }", "one loop over blocks"),
    ("kernel k(out y: f32[4]) { block b in 0..4 { y[b] = 0.0 } }", "outside of a loop over threads"),
    ("kernel k(out y: f32[4]) { block b in 0..1 { thread t in 0..4 { y[t] = 0.0 } } }", "runs from 0 to 256"),
    ("kernel k(out y: f32[256]) { block b in 0..1 { local r: f32[9] register thread t in 0..256 { y[t] = 0.0 } } }", "one row for each"),
    ("""kernel k(out y: f32[256]) { block b in 0..1 { local r: f32[256,1] register
         thread t in 0..256 { r[t,0] = 0.0 } thread t in 0..256 { y[t] = r[255-t,0] } } }""", "not t \\^ constant"),
])
def test_what_cannot_be_written_is_refused(text: str, words: str) -> None:
    with pytest.raises(XlcNotImplementedError, match=words):
        emit_kernel(kernel(text))
