"""Programs that write one symbol after the other: kept keys and values against whole sequences, beams against all sequences; k-means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import xlc
from examples.networks import columns, layers, network, transformer, translation
from examples.networks.layers import Layers
from examples.networks.network import cast
from xlc.ir.verify import verify_kernel

KEY = xlc.random.key(0)


@pytest.fixture(scope="module")
def gpt() -> tuple[transformer.GPT, dict[str, np.ndarray]]:
    params, _ = network("gpt").init(KEY)
    return transformer.model(False), cast(xlc.tree.map(lambda a: a * 8, params), np.float64)  # far from uniform


def test_decoding_with_kept_keys_and_values_equals_the_whole_sequence(gpt) -> None:
    model, params = gpt
    prompt = np.random.default_rng(0).integers(0, model.vocabulary, (3, 5))
    found = xlc.jit(lambda p, x: model.generate(p, x, 11))(params, prompt)
    whole, forward = prompt, xlc.jit(lambda p, x: model(Layers(p), x), dynamic={"x": {1: "time"}})
    for _ in range(11):
        whole = np.concatenate([whole, forward(params, whole)[:, -1].argmax(-1)[:, None]], 1)
    np.testing.assert_array_equal(found, whole[:, 5:])
    assert forward.compiles == 1


def test_drawn_tokens_follow_the_key(gpt) -> None:
    model, params = gpt
    draw = xlc.jit(lambda p, x, key: model.generate(p, x, 8, key))
    prompt = np.zeros((2, 1), np.int64)
    first, again, other = (draw(params, prompt, xlc.random.key(k)) for k in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and draw.compiles == 1
    assert first.min() >= 0 and first.max() < model.vocabulary


def sequences(vocabulary: int, length: int) -> list[tuple[int, ...]]:
    """All that can be written: after the end comes padding."""
    def whole(words: tuple[int, ...]) -> bool:
        return all(b == translation.PAD for a, b in itertools.pairwise(words) if a in (translation.EOS, translation.PAD))

    return [words for words in itertools.product(range(vocabulary), repeat=length) if whole(words)]


def test_beams_that_hold_everything_find_the_best_of_all_sequences() -> None:
    model, length = translation.Translator(translation.LETTER + 1, 6, 2), 3
    source = translation.reversal(np.random.default_rng(0), 1, 4, 3)[0]
    params = cast(xlc.tree.map(lambda a: a * 12, layers.init(model, KEY, source, source)[0]), np.float64)
    ids, scores = xlc.jit(lambda p, s: model.beam(p, s, length, model.vocabulary**length))(params, source)

    every = sequences(model.vocabulary, length)
    before = np.array([(translation.GO, *words[:-1]) for words in every]).T
    for b in range(3):
        logits = xlc.jit(lambda p, s, w: model(Layers(p), s, w))(params, source[:, [b] * len(every)], before)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        known = [sum(logits[t, k, w] for t, w in enumerate(words) if t == 0 or words[t - 1] not in (translation.EOS, translation.PAD))
                 for k, words in enumerate(every)]
        best = np.argsort(known)[::-1][:10]
        np.testing.assert_allclose(scores[b, :10], np.array(known)[best], rtol=1e-12)
        np.testing.assert_array_equal(ids[b, :10], np.array(every)[best])

    written, total = model.greedy(params, source, length)
    assert (total <= scores[:, 0] + 1e-12).all()
    for b in range(3):
        np.testing.assert_allclose(total[b], scores[b][(ids[b] == written[b]).all(1).argmax()], rtol=1e-12)


def test_k_means_ends_where_every_centre_is_the_mean_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(5 * k, 1, (50, 2)) for k in range(3)])
    centres, steps = xlc.jit(columns.fit)(x[[0, 1, 60]], x)
    nearest = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
    np.testing.assert_allclose(centres, [x[nearest == k].mean(0) for k in range(3)], rtol=1e-12)
    assert 1 < steps < 100
    alone = columns.moved(np.array([[0.0, 0.0], [1e6, 1e6]]), x)
    np.testing.assert_allclose(alone, [x.mean(0), [1e6, 1e6]], rtol=1e-12)  # nobody is near the second


def test_perplexity_of_a_uniform_guess_over_ten_symbols_is_ten() -> None:
    loss = xlc.nn.cross_entropy(np.zeros((7, 10)), np.arange(7)).mean()
    assert np.exp(loss) == pytest.approx(10, rel=1e-14)


def test_rows_of_a_cache_are_replaced_in_place() -> None:
    for mode in ("set", "add"):
        def replaced(cache, rows, values, mode=mode):
            return getattr(xlc.numpy.at(cache, rows), mode)(values)

        cache, rows, values = np.random.rand(9, 3, 4), np.array([7, 2, 7]), np.random.rand(3, 3, 4)
        expected = cache.copy()
        for row, value in zip(rows, values, strict=True):
            expected[row] = value + (expected[row] if mode == "add" else 0)
        jitted = xlc.jit(replaced, donate="cache")
        (kernel,) = (k for k in jitted.compile(cache, rows, values).plan.kernels if "scatter" in k.note)
        assert kernel.inplace and not verify_kernel(kernel)
        np.testing.assert_array_equal(jitted(cache, rows, values), expected)
