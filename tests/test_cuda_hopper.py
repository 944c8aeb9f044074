"""Contractions of halves on Hopper, by products of four warps, against NumPy in float64: on the shim, by the interpreter, and what NVRTC
makes of them."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_backend import CHIPS, MISSING, install

import xlc
from xlc.backends.cuda.emit import emit_kernel
from xlc.backends.cuda.schedule import contract, warpgroup
from xlc.backends.cuda.schedule.tiled import Tile
from xlc.errors import XlcError
from xlc.ir.interp import interpret_plan
from xlc.ir.loops import Mma, statements
from xlc.ir.parse_kernel import parse_kernel

install()
shim = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
chip = pytest.mark.skipif(not CHIPS, reason="needs NVRTC")
BF16 = ml_dtypes.bfloat16


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return rng.standard_normal(shape).astype("f4").astype(dtype)


def close(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """A product that is summed in f32 and rounded to the dtype of its operands."""
    a, b, unit = a.astype("f8"), b.astype("f8"), 2.0**-8 if a.dtype == BF16 else 2.0**-11
    scale = np.abs(a) @ np.abs(b)
    assert np.all(np.abs(y.astype("f8") - a @ b) <= unit * np.abs(a @ b) + 2.0**-20 * scale)


def products(f: Any, *arrays: np.ndarray, order: str = "random") -> tuple[list[np.ndarray], list[Mma]]:
    """The results, and the products of tensor cores that made them."""
    program = xlc.jit(f, device=f"shim:{order}:sm_90")
    found = [s for k in program.compile(*arrays).kernels for s in statements(k.body) if isinstance(s, Mma)]
    out = program(*arrays)
    return list(out) if isinstance(out, tuple) else [out], found


SHAPES = [(64, 64, 64), (72, 200, 136), (37, 65, 41), (130, 300, 70)]


@shim
@pytest.mark.parametrize("dtype", [np.float16, BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_operands_in_both_orders(shape: tuple[int, int, int], dtype: Any) -> None:
    m, k, n = shape
    rng = np.random.default_rng(m)
    a, at, b, bt = (draw(rng, s, dtype) for s in ((m, k), (k, m), (k, n), (n, k)))
    found, mmas = products(lambda a, at, b, bt: (a @ b, at.T @ b, a @ bt.T, at.T @ bt.T), a, at, b, bt)
    assert len(mmas) == 4 and {s.group for s in mmas} == {128}
    if k % 8 == 0 and m % 8 == 0 and n % 8 == 0:
        assert {(s.a_steps[0] == 1, s.b_steps[0] == 1) for s in mmas} == {(False, True), (True, True), (False, False), (True, False)}
    for y, (x, z) in zip(found, ((a, b), (at.T, b), (a, bt.T), (at.T, bt.T)), strict=True):
        close(y, x, z)


@shim
@pytest.mark.parametrize("sides", [(64, 128), (64, 256), (128, 64), (128, 128), (128, 256), (256, 128)], ids=str)
def test_every_tile(sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """More steps than slots, several tiles, edges; the same whatever the order of threads."""
    monkeypatch.setattr(contract, "warpgroup_tile", lambda *_: Tile(*sides, 64))
    rng = np.random.default_rng(sides[0])
    x, w = draw(rng, (150, 360), np.float16), draw(rng, (264, 360), np.float16)

    def f(x: Any, w: Any) -> Any:
        return x @ w.T

    with xlc.config.context(cache_dir=""):
        (y,), (mma,) = products(f, x, w)
        assert np.prod(mma.shape[:2]) * 2 == np.prod(sides)
        close(y, x, w.T)
        for order in ("ascending", "descending"):
            np.testing.assert_array_equal(products(f, x, w, order=order)[0][0], y)


@shim
def test_what_stands_around_is_fused() -> None:
    """Operators in front go through registers; bias, activation, residual and a second result are computed on the tile."""
    rng = np.random.default_rng(2)
    x, w, b, r = (draw(rng, s, np.float16) for s in ((70, 200), (200, 136), (136,), (70, 136)))
    (y, pre), (mma,) = products(lambda x, w, b, r: (lambda z: (np.maximum(z, 0) + r, z))(x @ w + b), x, w, b, r)
    assert mma.group == 128
    z = x.astype("f8") @ w + b
    np.testing.assert_allclose(pre, z, rtol=2e-3, atol=0.03)
    np.testing.assert_allclose(y, np.maximum(z, 0) + r, rtol=2e-3, atol=0.04)
    wide, deep = draw(rng, (70, 200), "f4"), draw(rng, (136, 200), np.float16)
    for times in (1, 2):
        found, mmas = products(lambda x, w, times=times: (x.astype("f2") * times) @ w.T, wide, deep)
        assert [s.group for s in mmas] == [128]
        close(found[0], wide.astype("f2") * times, deep.T)


@shim
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_halves_are_stored_eight_at_a_time(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes exchange what they have of a row first; not where neighbouring columns are no neighbours in memory, or f32 is stored."""
    rng = np.random.default_rng(6)
    x, w, r = draw(rng, (140, 64), np.float16), draw(rng, (64, 264), np.float16), draw(rng, (140, 264), np.float16)

    def f(x: Any, w: Any, r: Any) -> Any:
        return x @ w + r, (x @ w).T, x.astype("f4") @ w.astype("f4")

    monkeypatch.setattr(contract, "tensor_tile", lambda *_: Tile(64, 128, 32))
    with xlc.config.context(cache_dir=""):
        program = xlc.jit(f, device=f"shim:random:{arch}")
        texts = [emit_kernel(k).function for k in program.compile(x, w, r).kernels]
        y, z, wide = program(x, w, r)
    stored = [("__shfl_xor_sync" in t, "*(xlc_vec<unsigned short, 8>*)(b" in t) for t in texts]
    assert sorted(stored) == [(False, False), (False, False), (True, True)]
    expected = x.astype("f8") @ w
    np.testing.assert_allclose(y, expected + r, rtol=2e-3, atol=0.03)
    np.testing.assert_allclose(z, expected.T, rtol=2e-3, atol=0.03)
    close(wide, x, w)


@shim
def test_batches_and_views() -> None:
    rng = np.random.default_rng(4)
    x, w = draw(rng, (3, 40, 72), BF16), draw(rng, (3, 72, 48), BF16)
    heads = draw(rng, (40, 3, 2, 72), BF16)
    (y, z), mmas = products(lambda x, w, h: (x @ w, h[:, :, 1].transpose(1, 0, 2) @ w), x, w, heads)
    assert [s.group for s in mmas] == [128, 128]
    for i in range(3):
        close(y[i], x[i], w[i])
        close(z[i], heads[:, i, 1], w[i])


@shim
def test_convolution_and_its_gradients() -> None:
    rng = np.random.default_rng(5)
    x, w, g = draw(rng, (2, 9, 9, 8), np.float16), draw(rng, (3, 3, 8, 16), np.float16), draw(rng, (2, 9, 9, 16), np.float16)

    def loss(x: Any, w: Any) -> Any:
        return (xlc.nn.conv(x, w, padding=1) * g).sum()

    (y, dx, dw), mmas = products(lambda x, w: (xlc.nn.conv(x, w, padding=1), *xlc.grad(loss, argnums=(0, 1))(x, w)), x, w)
    assert 128 in {s.group for s in mmas}
    padded, kernel, outer = np.pad(x.astype("f8"), ((0, 0), (1, 1), (1, 1), (0, 0))), w.astype("f8"), g.astype("f8")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    back = np.zeros_like(padded)
    for i in range(3):
        for j in range(3):
            back[:, i:i + 9, j:j + 9] += outer @ kernel[i, j].T
    np.testing.assert_allclose(y, np.einsum("byxcij,ijco->byxo", windows, kernel), rtol=2e-3, atol=0.06)
    np.testing.assert_allclose(dw, np.einsum("byxcij,byxo->ijco", windows, outer), rtol=2e-3, atol=0.06)
    np.testing.assert_allclose(dx, back[:, 1:-1, 1:-1], rtol=2e-3, atol=0.06)


@shim
def test_symbolic_sizes() -> None:
    rng = np.random.default_rng(3)
    w = draw(rng, (72, 40), np.float16)
    rows = xlc.jit(lambda x: x @ w, dynamic={"x": {0: "batch"}}, device="shim:random:sm_90")
    depth = xlc.jit(lambda x, y: x.T @ y, dynamic={"x": {0: "k"}, "y": {0: "k"}}, device="shim:random:sm_90")
    for n in (1, 7, 150, 0):
        x, y = draw(rng, (n, 72), np.float16), draw(rng, (n, 40), np.float16)
        close(rows(x), x, w)
        close(depth(x, y), x.T, y)


@shim
@pytest.mark.parametrize("missing", ["__syncthreads();", "xlc_cp_wait<1>();", "xlc_fence_proxy_async();", "xlc_wgmma_fence();",
                                     "xlc_wgmma_wait<1>();", "xlc_wgmma_wait<0>();"])
def test_what_is_missing_is_found(missing: str, tmp_path: Any) -> None:
    rng = np.random.default_rng(4)
    x, w = draw(rng, (40, 424), np.float16), draw(rng, (424, 40), np.float16)
    compiled = xlc.jit(lambda x, w: x @ w, device="shim:random:sm_90").compile(x, w)
    text = compiled.program.backend.text(compiled.plan)
    assert missing in text
    (tmp_path / f"{compiled.plan.name}.cu").write_text(text.replace(missing, ""))
    found = []
    with xlc.config.context(override=str(tmp_path)):
        for order in ("ascending", "descending", "random"):
            try:
                y = xlc.jit(lambda x, w: x @ w, device=f"shim:{order}:sm_90")(x, w)
                found.append(bool(np.allclose(y, x.astype("f8") @ w, atol=0.05)))
            except XlcError:
                found.append(False)
    assert not all(found)


def test_the_interpreter_agrees() -> None:
    """The kernel as it is; the text parses back."""
    rng = np.random.default_rng(8)
    x, w = draw(rng, (20, 72), np.float16), draw(rng, (16, 72), np.float16)
    compiled = xlc.jit(lambda x, w: x @ w.T, device="shim:ascending:sm_90").compile(x, w)
    (kernel,) = compiled.kernels
    assert str(parse_kernel(str(kernel))) == str(kernel)
    close(interpret_plan(compiled.plan, [x, w])[0], x, w.T)


@shim
def test_a_slot_too_few_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies to a slot that the products of the step before may still read."""
    rng = np.random.default_rng(8)
    x, w = draw(rng, (20, 328), np.float16), draw(rng, (16, 328), np.float16)

    monkeypatch.setattr(warpgroup.OnWarpgroups, "busy", 1)
    with xlc.config.context(cache_dir=""), pytest.raises(XlcError, match="is stored before it is done"):
        products(lambda x, w: x @ w.T, x, w)


def loop_of(ptx: str) -> str:
    """The main loop: from its label to the jump back."""
    heads = [(m[1], m.start()) for m in re.finditer(r"^(\$L__BB\d+_\d+):", ptx, re.M)]
    bodies = [ptx[at:m.end()] for head, at in heads for m in re.finditer(rf"bra\S*\s+{re.escape(head)};", ptx) if m.start() > at]
    return min((b for b in bodies if "wgmma.mma_async" in b), key=len)


@chip
@pytest.mark.parametrize("form", range(4))
def test_the_main_loop(form: int) -> None:
    """Nothing but what there must be, in whole vectors: 64 contracted elements of a tile of 128 x 256; whichever way memory runs."""
    x = w = np.broadcast_to(np.zeros((), BF16), (4096, 4096))
    compiled = xlc.jit(lambda x, w: (x.T if form & 1 else x) @ (w.T if form & 2 else w), device="cuda:sm_90").compile(x, w)
    backend: Any = compiled.program.backend
    done = backend.compiled(backend.text(compiled.plan))
    assert done.arch == "sm_90a" and "(C75" not in done.log and not done.resources["l0"].local
    assert done.resources["l0"].registers <= 176
    expected = {"wgmma.mma_async.sync.aligned.m64n256k16": 4, "cp.async.cg": 12, "cp.async.wait_group": 1, "bar.sync": 1,
                "fence.proxy.async": 1, "ld.": 0, "st.": 0}
    assert {k: len(re.findall(rf"\b{re.escape(k)}", loop_of(done.ptx))) for k in expected} == expected


@chip
def test_other_chips_keep_to_theirs() -> None:
    x = np.zeros((256, 256), BF16)
    for arch, group, target in (("sm_80", 32, "sm_80"), ("sm_89", 32, "sm_89"), ("sm_90", 128, "sm_90a"), ("sm_100", 32, "sm_100")):
        compiled = xlc.jit(lambda x: x @ x, device=f"cuda:{arch}").compile(x)
        backend: Any = compiled.program.backend
        assert {s.group for k in compiled.kernels for s in statements(k.body) if isinstance(s, Mma)} == {group}
        assert backend.compiled(backend.text(compiled.plan)).arch == target and f" {target} " in backend.key
