"""What one can see of a compilation: XLC_DEBUG, XLC_DUMP, XLC_CHECK, XLC_SKIP, profiles."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import xlc
from xlc.run.launch import check_launches
from xlc.tools.profile import profile


def layer(x, w, b):
    h = np.tanh(x @ w + b)
    return h / h.sum(axis=1, keepdims=True)


@pytest.fixture
def arguments():
    rng = np.random.default_rng(0)
    return [rng.random(s).astype("f4") + 1 for s in [(9, 40), (40, 33), (33,)]]


@pytest.mark.parametrize(("level", "texts"), [(1, ["2 kernel launches, compiled in"]), (2, ["GFLOP/s", "k1 "]),
                                              (3, ["group 0", "parallel", "plan layer"]), (4, ["define"]), (5, ["-- simplify"])])
def test_debug_levels(level, texts, arguments, capfd):
    with xlc.config.context(debug=level, skip="layout", cache_dir=""):
        xlc.jit(layer)(*arguments)
    seen = capfd.readouterr().err
    for text in texts:
        assert text in seen


def test_dump_is_written_even_if_the_program_is_in_the_cache(arguments, tmp_path):
    with xlc.config.context(cache_dir=str(tmp_path / "cache")):
        xlc.jit(layer)(*arguments)
        with xlc.config.context(dump=str(tmp_path / "dump")):
            xlc.jit(layer)(*arguments)
    files = sorted(p.name for p in (tmp_path / "dump").glob("*/*"))
    assert [f.split("-")[1] for f in files] == ["decompose.graph", "control.graph", "simplify.graph", "recompute.graph", "split.graph",
                                                "layout.graph", "fold.graph", "results.graph", "fuse.txt", "lower.txt", "memory.plan"]


def test_check_runs_every_kernel(arguments):
    program = xlc.jit(layer).compile(*arguments).program
    assert check_launches(program) == len(program.plan.launches)
    with xlc.config.context(check=3):
        np.testing.assert_allclose(xlc.jit(layer)(*arguments), layer(*arguments), rtol=1e-4)


def test_check_names_the_wrong_kernel_and_the_line():
    x = np.ones((4, 5), "f4")
    good = xlc.jit(lambda x: x * 2).compile(x).program
    other = xlc.jit(lambda x: x * 3).compile(x).program
    done = good.compilation.stages
    wrong = replace(done, plan=other.plan, steps=(replace(done.steps[0], kernel=other.compilation.steps[0].kernel),))
    found = r"test_observe.py:\d+: kernel k0 \(multiply\).* gives .* at \[0, 0\].*interpreter gives .*20 of 20"
    with pytest.raises(xlc.XlcError, match=found):
        check_launches(SimpleNamespace(compilation=SimpleNamespace(stages=wrong), backend=good.backend))


@pytest.mark.parametrize("names", ["simplify", "recompute", "split", "layout", "fold", "simplify,split,layout,fold", "multiply_one"])
def test_passes_and_rules_can_be_left_out(names, arguments):
    w = arguments[1]
    with xlc.config.context(skip=names):
        f = xlc.jit(lambda x, b: (layer(x, w, b) * 1).sum())
        np.testing.assert_allclose(f(arguments[0], arguments[2]), layer(*arguments).sum(), rtol=1e-4)
        left_out = [n for n in names.split(",") if n != "multiply_one"]
        assert not set(left_out) & set(f.compile(arguments[0], arguments[2]).compilation.graphs)


def test_profile_times_every_launch(arguments):
    found = profile(xlc.jit(layer, dynamic={"x": {0: "n"}}).compile(*arguments), repeat=2, n=7)
    assert all(t.seconds > 0 for t in found.timings) and "total" in str(found)


def test_work_is_that_of_the_operands():
    """Two products with results of one type, of which one adds up four times as much."""
    a, b, c, d = (np.ones(shape, "f4") for shape in ((8, 64), (64, 24), (8, 16), (16, 24)))
    found = profile(xlc.jit(lambda a, b, c, d: (a @ b, c @ d)).compile(a, b, c, d), repeat=1)
    assert {2 * 8 * 24 * 64, 2 * 8 * 24 * 16} <= {t.flops for t in found.timings}
