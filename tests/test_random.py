"""Random numbers: the generator against its published vectors and against plain Python, the bits that JAX gives, the same bits however a
program is compiled, and distributions against SciPy's. Every key is fixed, so that nothing here is left to chance."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats as st

import xlc
import xlc.nn as nn
from xlc import random as R

KEY = R.key(42)
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
WORD = 0xFFFFFFFF


def block(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32 with 20 rounds as its paper states it: on Python's integers, round by round."""
    ks = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + ks[0]) & WORD, (counter[1] + ks[1]) & WORD
    for r in range(20):
        x = (x + y) & WORD
        n = ROTATIONS[r % 8]
        y = ((y << n) | (y >> (32 - n))) & WORD ^ x
        if r % 4 == 3:
            s = r // 4 + 1
            x, y = (x + ks[s % 3]) & WORD, (y + ks[(s + 1) % 3] + s) & WORD
    return x, y


def words(*values: Any) -> np.ndarray:
    return np.array(values, np.uint32)


def expected_bits(key: np.ndarray, count: int, first: int = 0) -> list[tuple[int, int]]:
    pair = (int(key[0]), int(key[1]))
    return [block(pair, (i >> 32, i & WORD)) for i in range(first, first + count)]


# ------------------------------------------------------------------------------------------------ the generator


@pytest.mark.parametrize(
    "counter, key, result",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((WORD, WORD), (WORD, WORD), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_published_vectors(counter: Any, key: Any, result: Any) -> None:
    """The lines "threefry2x32 20" of kat_vectors in Random123."""
    assert block(key, counter) == result
    found = R.threefry2x32(words(*key), words(*counter))
    assert found.dtype == np.uint32 and tuple(found) == result


def test_raw_generator_broadcasts() -> None:
    rng = np.random.default_rng(0)
    keys, counters = rng.integers(0, 1 << 32, (5, 1, 2), np.uint32), rng.integers(0, 1 << 32, (3, 2), np.uint32)
    found = R.threefry2x32(keys, counters)
    assert found.shape == (5, 3, 2)
    for i in range(5):
        for j in range(3):
            assert tuple(found[i, j]) == block(tuple(map(int, keys[i, 0])), tuple(map(int, counters[j])))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5, 2), (2, 0, 3), (1031,)])
def test_bits_are_counted_by_position(shape: tuple[int, ...]) -> None:
    blocks = expected_bits(KEY, int(np.prod(shape)))
    for dtype, of in (
        (np.uint32, lambda a, b: a ^ b),
        (np.uint64, lambda a, b: a << 32 | b),
        (np.uint8, lambda a, b: (a ^ b) & 0xFF),
        (np.uint16, lambda a, b: (a ^ b) & 0xFFFF),
    ):
        found = R.bits(KEY, shape, dtype)
        assert found.dtype == dtype and found.shape == shape
        np.testing.assert_array_equal(found.reshape(-1), np.array([of(*b) for b in blocks], dtype))
    np.testing.assert_array_equal(R.split(KEY, shape).reshape(-1, 2), np.array(blocks, np.uint32).reshape(-1, 2))


def test_counters_have_64_bits() -> None:
    """Of an array of 2**33 words only three are computed."""
    tail = xlc.jit(lambda key: R.bits(key, ((1 << 33) + 5,))[-3:])(KEY)
    assert tail.tolist() == [a ^ b for a, b in expected_bits(KEY, 3, (1 << 33) + 2)]
    middle = xlc.jit(lambda key: R.bits(key, (4, 1 << 31))[2, :2])(KEY)
    assert middle.tolist() == [a ^ b for a, b in expected_bits(KEY, 2, 1 << 32)]
    with pytest.raises(xlc.XlcValueError, match=r"fewer than 2\*\*63"):
        R.bits(KEY, (1 << 32, 1 << 32))


def test_seeds() -> None:
    for seed, pair in ((0, (0, 0)), (42, (0, 42)), ((7 << 32) + 5, (7, 5)), (-1, (WORD, WORD)), ((1 << 64) - 1, (WORD, WORD))):
        assert tuple(R.key(seed)) == pair and R.key(seed).dtype == np.uint32
    assert tuple(R.key(np.int32(9))) == (0, 9)
    traced = xlc.jit(R.key)
    assert tuple(traced(np.int64(-(1 << 40) + 3))) == ((-(1 << 40) + 3) >> 32 & WORD, 3)
    assert tuple(traced(np.uint8(200))) == (0, 200)


def test_keys_are_arrays() -> None:
    a, b = R.split(KEY)
    assert tuple(R.split(KEY, 3)[1]) == tuple(b) and a.shape == (2,)
    assert tuple(R.fold_in(KEY, 7)) == block((0, 42), (0, 7)) == tuple(xlc.jit(R.fold_in)(KEY, np.int32(7)))

    @xlc.jit
    def step(state: dict[str, Any]) -> dict[str, Any]:
        key, sub = R.split(state["key"])
        return {"key": key, "x": state["x"] + R.normal(sub, shape=state["x"].shape)}

    state = {"key": KEY, "x": np.zeros(3, np.float32)}
    for _ in range(2):
        state = step(state)
    sub = R.split(R.split(KEY)[0])
    np.testing.assert_array_equal(state["key"], sub[0])
    np.testing.assert_allclose(state["x"], R.normal(R.split(KEY)[1], shape=(3,)) + R.normal(sub[1], shape=(3,)), rtol=1e-6)


def test_the_bits_of_jax() -> None:
    """Made by jax 0.10.2 with jax_enable_x64: k = jax.random.PRNGKey(42); jax.random.split(k, 3); fold_in(k, 7); bits(k, (2, 2), "uint32");
    bits(k, (2,), "uint64"); uniform, normal, truncated_normal(k, -1, 2) and gumbel of shape (4,) in float32; normal of (4,) in float64;
    randint(k, (6,), -100, 1000, "int32"); bernoulli(k, float32(.3), (8,)); categorical(k, log([.1, .2, .3, .4]), shape=(8,))."""
    assert R.split(KEY, 3).tolist() == [[1832780943, 270669613], [64467757, 2916123636], [2465931498, 255383827]]
    assert R.fold_in(KEY, 7).tolist() == [2547012911, 1371500959]
    assert R.bits(KEY, (2, 2)).tolist() == [[2098992034, 2919706841], [2646866425, 2409546199]]
    assert R.bits(KEY, (2,), np.uint64).tolist() == [7871734211187709741, 276886910877598708]
    assert R.randint(KEY, -100, 1000, shape=(6,), dtype=np.int32).tolist() == [44, 814, 371, 469, 509, 819]
    assert R.bernoulli(KEY, 0.3, shape=(8,)).astype(int).tolist() == [0, 0, 0, 0, 0, 0, 1, 0]
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    assert R.categorical(KEY, logits, shape=(8,)).tolist() == [3, 3, 3, 3, 3, 3, 1, 1]
    floats = {
        "uniform": [0.48870956897735596, 0.6797971725463867, 0.6162714958190918, 0.5610160827636719],
        "normal": [-0.02830461598932743, 0.4671318531036377, 0.2957029640674591, 0.15354591608047485],
        "gumbel": [0.3340933918952942, 0.952019453048706, 0.7255305647850037, 0.5481715202331543],
    }
    for name, values in floats.items():
        np.testing.assert_allclose(getattr(R, name)(KEY, shape=(4,)), values, rtol=1e-5)
    trunc = [0.14770005643367767, 0.5684449076652527, 0.42102551460266113, 0.29997000098228455]
    np.testing.assert_allclose(R.truncated_normal(KEY, -1.0, 2.0, shape=(4,)), trunc, rtol=1e-5)
    wide = [-0.18471174528191162, -2.169824560397754, 0.18693555179382582, 0.6122653570510959]
    np.testing.assert_allclose(R.normal(KEY, shape=(4,), dtype=np.float64), wide, rtol=1e-13)


# ------------------------------------------------------------------------------------------------ however it is compiled


def drawn(key: Any, n: Any) -> list[Any]:
    return [
        R.bits(key, (n, 6)),
        R.normal(key, shape=(n, 6)),
        R.normal(key, 0.5, 2.0, shape=(n,), dtype=np.float64),
        R.bernoulli(key, 0.25, shape=(n, 2, 3)),
        R.randint(key, 0, 10, shape=(n,)),
        R.categorical(key, np.zeros(5, np.float32), shape=(n,)),
        R.permutation(key, n),
    ]


def test_the_same_bits_however_it_is_compiled() -> None:
    expected = [f(KEY) for f in (xlc.jit(lambda key, k=k: drawn(key, 37)[k]) for k in range(7))]  # each on its own
    found = {
        "together": xlc.jit(lambda key: drawn(key, 37))(KEY),
        "unfused": xlc.jit(lambda key: drawn(key, 37), fuse=False)(KEY),
        "a named size": xlc.jit(lambda key, x: drawn(key, x.shape[0]), dynamic={"x": {0: "n"}})(KEY, np.zeros(37)),
        "outside": drawn(KEY, 37),
        "an element of more": [v[:37] for v in xlc.jit(lambda key: drawn(key, 64)[:2])(KEY)],
    }
    with xlc.config.context(num_threads=1):
        found["one thread"] = xlc.jit(lambda key: drawn(key, 37))(KEY)
    for how, values in found.items():
        for a, b in zip(values, expected, strict=False):
            np.testing.assert_array_equal(a, b, err_msg=how)


def test_threads_give_the_same_bits() -> None:
    f = xlc.jit(lambda key: R.normal(key, shape=(300, 1000)))
    many = f(KEY)
    with xlc.config.context(num_threads=1):
        np.testing.assert_array_equal(f(KEY), many)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_an_exported_program_draws_the_same(tmp_path: Path) -> None:
    f = xlc.jit(lambda key, x, rate: nn.dropout(key, x, rate), dynamic={"x": {0: "batch"}})
    arguments = [xlc.spec((2,), "u4"), xlc.spec(("batch", 8), "f4"), xlc.spec((), "f4")]
    xlc.aot.export(f, arguments, str(tmp_path / "drop.so"))
    x = np.ones((21, 8), np.float32)
    np.testing.assert_array_equal(xlc.aot.load(str(tmp_path / "drop.so"))(KEY, x, np.float32(0.3)), f(KEY, x, np.float32(0.3)))


def test_a_mask_needs_no_memory() -> None:
    x = np.ones((64, 512), np.float32)
    done = xlc.jit(lambda key, x, w, rate: nn.dropout(key, x, rate) * w).compile(KEY, x, x, 0.5)
    assert len(done.kernels) == 1 and done.plan.arena == 0


def test_run_time_parameters_do_not_recompile() -> None:
    f = xlc.jit(lambda key, rate, step: nn.dropout(R.fold_in(key, step), np.ones(100, np.float32), rate))
    for step, rate in enumerate((0.1, 0.5, 0.9)):
        np.testing.assert_array_equal(f(KEY, rate, step), nn.dropout(R.fold_in(KEY, step), np.ones(100, np.float32), rate))
    assert f.compiles == 1


EACH: dict[str, Callable[[Any], Any]] = {
    "bits": lambda k: R.bits(k, (5,), np.uint64),
    "split": lambda k: R.split(k, 3),
    "fold_in": lambda k: R.fold_in(k, 3),
    "normal": lambda k: R.normal(k, shape=(3, 2)),
    "truncated_normal": lambda k: R.truncated_normal(k, -1, 1.0, shape=(3,)),
    "bernoulli": lambda k: R.bernoulli(k, 0.3, shape=(8,)),
    "categorical": lambda k: R.categorical(k, np.arange(4.0)),
    "randint": lambda k: R.randint(k, 0, 9, shape=(3,)),
    "permutation": lambda k: R.permutation(k, 6),
    "dropout": lambda k: nn.dropout(k, np.ones(9), 0.4),
}


@pytest.mark.parametrize("name", EACH)
def test_many_keys_by_vmap(name: str) -> None:
    keys = R.split(KEY, 4)
    np.testing.assert_array_equal(xlc.vmap(EACH[name])(keys), np.stack([EACH[name](k) for k in keys]))


def test_keys_in_loops_and_checkpoints() -> None:
    def step(state: Any, x: Any) -> Any:
        key, sub = R.split(state[0])
        h = nn.dropout(sub, state[1] + x, 0.5)
        return (key, h), h

    xs = np.arange(12.0).reshape(4, 3)
    state, hs = (KEY, np.zeros(3)), []
    for x in xs:
        state, h = step(state, x)
        hs.append(h)
    np.testing.assert_array_equal(xlc.scan(step, (KEY, np.zeros(3)), xs)[1], hs)

    def loss(x: Any) -> Any:
        return nn.dropout(KEY, x * x, 0.5).sum()

    np.testing.assert_array_equal(xlc.grad(lambda x: xlc.checkpoint(loss)(x))(xs), xlc.grad(loss)(xs))
    mean, slope = xlc.jvp(lambda m: R.normal(KEY, m, 2.0, shape=(3,), dtype=np.float64), (np.float64(1.0),), (np.float64(0.5),))
    np.testing.assert_array_equal(slope, [0.5] * 3)
    np.testing.assert_array_equal(mean, R.normal(KEY, 1.0, 2.0, shape=(3,), dtype=np.float64))


# ------------------------------------------------------------------------------------------------ distributions

N = 20_000
CONTINUOUS: dict[str, tuple[Callable[..., np.ndarray], Any]] = {
    "uniform": (R.uniform, st.uniform()),
    "uniform -3 5": (lambda k, **o: R.uniform(k, -3, 5.0, **o), st.uniform(-3, 8)),
    "normal": (R.normal, st.norm()),
    "normal 2 3": (lambda k, **o: R.normal(k, 2.0, 3.0, **o), st.norm(2, 3)),
    "truncated_normal": (R.truncated_normal, st.truncnorm(-2, 2)),
    "truncated_normal 1 3": (lambda k, **o: R.truncated_normal(k, 1, 3, **o), st.truncnorm(1, 3)),
    "truncated_normal one side": (lambda k, **o: R.truncated_normal(k, -np.inf, 0.5, **o), st.truncnorm(-np.inf, 0.5)),
    "exponential": (R.exponential, st.expon()),
    "gumbel": (R.gumbel, st.gumbel_r()),
    "logistic": (R.logistic, st.logistic()),
    "laplace": (R.laplace, st.laplace()),
    "cauchy": (R.cauchy, st.cauchy()),
}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_distributions(name: str, dtype: str) -> None:
    """Kolmogorov and Smirnov's test, and moments where there are some."""
    draw, law = CONTINUOUS[name]
    x = draw(R.fold_in(KEY, 1), shape=(N,), dtype=dtype)
    assert x.dtype == np.dtype(dtype) and np.isfinite(x).all()
    assert st.kstest(x.astype(np.float64), law.cdf).pvalue > 0.01
    if name != "cauchy":
        assert abs(x.mean(dtype=np.float64) - law.mean()) < 4 * law.std() / np.sqrt(N)
        assert abs(x.var(dtype=np.float64) / law.var() - 1) < 0.1


def test_ranges() -> None:
    x = R.uniform(KEY, shape=(1 << 20,))
    assert x.min() >= 0 and x.max() < 1 and x.min() < 1e-5 and x.max() > 1 - 1e-5
    y = R.truncated_normal(KEY, -0.5, 0.25, shape=(1 << 18,))
    assert y.min() > -0.5 and y.max() < 0.25
    far = R.truncated_normal(KEY, 3.5, 3.75, shape=(1000,), dtype=np.float64)
    assert far.min() > 3.5 and far.max() < 3.75
    z = R.normal(KEY, shape=(1 << 22,))
    assert 4.9 < np.abs(z).max() < 5.5  # as many as four million normal numbers reach


@pytest.mark.parametrize("dtype", ["f2", "bf16"])
def test_halves(dtype: str) -> None:
    d = np.dtype(xlc.numpy.bfloat16) if dtype == "bf16" else np.dtype(dtype)
    x = R.normal(KEY, shape=(4000,), dtype=d)
    assert x.dtype == d
    np.testing.assert_array_equal(x, R.normal(KEY, shape=(4000,)).astype(d))  # drawn in float32, rounded once
    u = R.uniform(KEY, shape=(4000,), dtype=d).astype(np.float64)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.02
    assert len(np.unique(u)) > (100 if dtype == "bf16" else 900)


def test_parameters_broadcast_and_are_differentiated() -> None:
    mean, std = np.array([[0.0], [10.0], [-5.0]]), np.array([1.0, 2.0])
    x = R.normal(KEY, mean, std, dtype=np.float64)
    z = R.normal(KEY, shape=(3, 2), dtype=np.float64)
    np.testing.assert_allclose(x, mean + std * z)
    assert R.normal(KEY, mean, std).dtype == np.float32
    slopes = xlc.grad(lambda m, s: R.normal(KEY, m, s, dtype=np.float64).sum(), (0, 1))(mean, std)
    np.testing.assert_allclose(slopes[0], np.full((3, 1), 2.0))
    np.testing.assert_allclose(slopes[1], z.sum(0))
    assert R.uniform(KEY, shape=(4, 3, 2)).shape == (4, 3, 2) and R.uniform(KEY).shape == ()
    assert R.uniform(KEY, 0.0, std, shape=(0, 2)).shape == (0, 2)


def test_bernoulli() -> None:
    p = np.array([0.0, 0.02, 0.5, 0.9, 1.0])
    x = R.bernoulli(KEY, p, shape=(N, 5))
    assert x.dtype == bool
    mean = x.mean(0)
    assert mean[0] == 0 and mean[4] == 1
    assert (np.abs(mean - p) <= 4 * np.sqrt(p * (1 - p) / N)).all()
    assert R.bernoulli(KEY, shape=(3,), dtype=np.float32).dtype == np.float32


def test_categorical() -> None:
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        logits = np.log(p).astype(np.float32)
    x = R.categorical(KEY, logits, shape=(N, 2))
    assert x.dtype == np.int64 and x.shape == (N, 2)
    for row in range(2):
        counts = np.bincount(x[:, row], minlength=3)
        assert counts[p[row] == 0].sum() == 0
        some = p[row] > 0
        assert st.chisquare(counts[some], N * p[row][some]).pvalue > 0.01
    np.testing.assert_array_equal(R.categorical(KEY, logits.T, axis=0).shape, (2,))
    assert R.categorical(KEY, logits[0]).shape == () and R.categorical(KEY, np.zeros((0, 4))).shape == (0,)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "u4", "i8", "u8"])
def test_randint(dtype: str) -> None:
    for lo, hi in ((0, 7), (3, 4), (100, 127)):
        x = R.randint(KEY, lo, hi, shape=(7000,), dtype=dtype)
        assert x.dtype == np.dtype(dtype) and x.min() == lo and x.max() == hi - 1
        assert hi - lo == 1 or st.chisquare(np.bincount(x.astype(int) - lo)).pvalue > 0.01
    info = np.iinfo(dtype)
    every = R.randint(KEY, int(info.min), int(info.max) + 1, shape=(4096,), dtype=dtype).astype(np.float64)
    scaled = (every - float(info.min)) / (float(info.max) - float(info.min) + 1)
    assert st.kstest(scaled + 0.5 / 2**info.bits, st.uniform().cdf).pvalue > 0.01


def test_randint_of_traced_bounds() -> None:
    f = xlc.jit(lambda key, lo, hi: R.randint(key, lo, hi, shape=(500,)))
    x = f(KEY, np.int32(-5), np.int64(5))
    assert x.min() == -5 and x.max() == 4 and x.dtype == np.int64
    assert (f(KEY, np.int32(9), np.int64(9)) == 9).all() and (f(KEY, np.int32(9), np.int64(2)) == 9).all()
    np.testing.assert_array_equal(x, R.randint(KEY, -5, 5, shape=(500,)))
    low = np.array([0, 100], np.int8)
    y = R.randint(KEY, low, low + np.int8(3), shape=(200, 2), dtype=np.int16)
    assert (y.min(0) == low).all() and (y.max(0) == low + 2).all()


def test_permutation_is_one_and_uniform() -> None:
    for n in (0, 1, 2, 17, 1000):
        p = R.permutation(KEY, n)
        assert p.dtype == np.int64
        np.testing.assert_array_equal(np.sort(p), np.arange(n))
    rows = R.permutation(KEY, np.tile(np.arange(4), (4800, 1)), axis=1, independent=True)
    _, counts = np.unique(rows @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24 and st.chisquare(counts).pvalue > 0.01
    firsts = np.bincount([R.permutation(k, 5)[0] for k in R.split(KEY, 400)], minlength=5)
    assert st.chisquare(firsts).pvalue > 0.01


def test_permutation_of_an_array() -> None:
    x = np.arange(60.0).reshape(5, 4, 3)
    for axis in (0, 1, -1):
        y = R.permutation(KEY, x, axis=axis)
        order = R.permutation(KEY, x.shape[axis])
        np.testing.assert_array_equal(y, np.take(x, order, axis))
    z = R.permutation(KEY, x, axis=1, independent=True)
    np.testing.assert_array_equal(np.sort(z, 1), x)
    assert len({tuple(z[i, :, j] - z[i, :, j].min()) for i in range(5) for j in range(3)}) > 5


def test_choice() -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3])
    for chosen, expected in ((R.choice(KEY, 4, shape=(N,)), None), (R.choice(KEY, 4, shape=(N,), p=p), N * p[[0, 2, 3]])):
        counts = np.bincount(chosen, minlength=4)
        assert st.chisquare(counts[counts > 0], expected).pvalue > 0.01 and (counts[1] > 0) == (expected is None)
    x = np.arange(30.0).reshape(10, 3)
    assert R.choice(KEY, x).shape == (3,) and R.choice(KEY, x, shape=(2, 4)).shape == (2, 4, 3)
    once = R.choice(KEY, x, shape=(2, 5), replace=False)
    np.testing.assert_array_equal(np.sort(once.reshape(10, 3), 0), x)
    firsts = [R.choice(k, 4, shape=(2,), replace=False, p=p) for k in R.split(KEY, 500)]
    assert all(a != b and 1 not in (a, b) for a, b in firsts)
    assert st.chisquare(np.bincount([a for a, _ in firsts])[[0, 2, 3]], 500 * p[[0, 2, 3]]).pvalue > 0.01
    f = xlc.jit(lambda key, x: R.choice(key, x, shape=(3,)), dynamic={"x": {0: "n"}})
    np.testing.assert_array_equal(f(KEY, x), R.choice(KEY, x, shape=(3,)))


def test_streams_are_independent() -> None:
    """Of the keys of a split, of folds and of a seed's neighbours: no correlation, and pairs fill the square."""
    keys = [*R.split(KEY, 4), *R.split(R.split(KEY)[0], 2), *(R.fold_in(KEY, i) for i in (100, 101)), R.key(43), R.key(44)]
    assert len({tuple(k) for k in keys}) == len(keys)
    x = np.stack([R.uniform(k, shape=(N,)) for k in keys]).astype(np.float64)
    off = np.corrcoef(x)[np.triu_indices(len(keys), 1)]
    assert np.abs(off).max() < 4 / np.sqrt(N)
    for a, b in ((0, 1), (4, 5), (6, 7), (8, 9)):
        counts, _, _ = np.histogram2d(x[a], x[b], bins=8, range=[[0, 1], [0, 1]])
        assert st.chisquare(counts.reshape(-1)).pvalue > 0.01
    lagged = np.corrcoef(x[0, :-1], x[0, 1:])[0, 1]
    assert abs(lagged) < 4 / np.sqrt(N)


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda: R.normal(0, shape=(2,)), xlc.XlcTypeError, r"write xlc.random.key\(0\)"),
        (lambda: R.normal(np.zeros(2)), xlc.XlcTypeError, "found f64"),
        (lambda: R.normal(R.split(KEY, 3)), xlc.XlcTypeError, "xlc.vmap"),
        (lambda: R.normal(KEY, (3, 4)), xlc.XlcTypeError, r"shape=\(3, 4\)"),
        (lambda: R.uniform(KEY, dtype=int), xlc.XlcTypeError, "float dtype"),
        (lambda: R.bits(KEY, (3,), np.int32), xlc.XlcTypeError, "randint"),
        (lambda: R.uniform(KEY, np.zeros(3), shape=(2,)), xlc.XlcValueError, "broadcast"),
        (lambda: R.uniform(KEY, shape=(-1,)), xlc.XlcValueError, "negative"),
        (lambda: R.key(1.5), xlc.XlcTypeError, "integer"),
        (lambda: R.key(1 << 64), xlc.XlcOverflowError, "64 bits"),
        (lambda: R.fold_in(KEY, 0.5), xlc.XlcTypeError, "integer"),
        (lambda: R.randint(KEY, 0.5, 2), xlc.XlcTypeError, "integer"),
        (lambda: R.randint(KEY, 0, 300, dtype=np.uint8), xlc.XlcValueError, "hi <= 256"),
        (lambda: R.randint(KEY, 0, 3, dtype=np.float32), xlc.XlcTypeError, "integer dtype"),
        (lambda: R.categorical(KEY, 1.0), xlc.XlcValueError, "classes"),
        (lambda: R.categorical(KEY, np.zeros((2, 3)), shape=(5, 4)), xlc.XlcValueError, "broadcast"),
        (lambda: R.categorical(KEY, np.zeros((4, 2, 3)), shape=(2,)), xlc.XlcValueError, "end with"),
        (lambda: R.permutation(KEY, -1), xlc.XlcValueError, "negative"),
        (lambda: R.permutation(KEY, np.float32(3)), xlc.XlcTypeError, "array with axes"),
        (lambda: R.choice(KEY, 3, shape=(4,), replace=False), xlc.XlcValueError, "4 of 3"),
        (lambda: R.choice(KEY, 0, shape=(4,)), xlc.XlcValueError, "4 of 0"),
        (lambda: R.choice(KEY, 3, shape=(2,), p=np.ones(4)), xlc.XlcValueError, "each of the 3"),
        (lambda: R.threefry2x32(KEY, np.zeros((3, 2), np.int32)), xlc.XlcTypeError, "counter"),
        (lambda: R.normal(KEY, shape=(2,), size=3), xlc.XlcTypeError, "size"),
    ],
)
def test_mistakes_are_named(call: Callable[[], Any], kind: type, text: str) -> None:
    with pytest.raises(kind, match=text) as error:
        call()
    assert re.match(r"test_random\.py:\d+", str(error.value))


def test_jax_agrees_on_many_keys() -> None:
    jax = pytest.importorskip("jax")
    for seed in (0, 1, 123456789):
        theirs, ours = jax.random.PRNGKey(seed), R.key(seed)
        for shape in ((), (5,), (3, 4, 2)):
            np.testing.assert_array_equal(R.bits(ours, shape), jax.random.bits(theirs, shape))
            np.testing.assert_array_equal(R.uniform(ours, shape=shape), jax.random.uniform(theirs, shape))
            np.testing.assert_allclose(R.normal(ours, shape=shape), jax.random.normal(theirs, shape), rtol=2e-5, atol=1e-6)
