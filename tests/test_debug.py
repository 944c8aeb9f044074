"""``xlc.debug``: what is printed is what the same function prints when Python runs it, line by line; a nan is traced to the operator that
made it."""

from __future__ import annotations

import inspect
import threading
import warnings
from typing import NamedTuple

import numpy as np
import pytest

import xlc
from xlc.debug import check_nans
from xlc.debug import print as show
from xlc.frontend.reports import KEPT


@pytest.fixture
def printed(capsys):
    """The lines since the last call."""
    return lambda: capsys.readouterr().out.splitlines()


def line_of(f, text):
    """The ``file:line`` of the function's line that holds the text."""
    lines, first = inspect.getsourcelines(f)
    (found,) = [k for k, line in enumerate(lines) if text in line]
    return f"test_debug.py:{first + found}:"


# ------------------------------------------------------------------------------------------------ print


class Pair(NamedTuple):
    a: object
    b: object


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "i8", "u4", "?"])
def test_formats(printed, dtype):
    def f(x, s, n):
        show("{} {:.2f} {s!r:>10} {n[a][1]} {pair.b} {x.shape} {{}} {v:.{digits}f}", x, s, s="text", v=s, digits=1, n=n, pair=Pair(1, s),
             x=x)
        show("no values")
        return x

    x, s, n = np.arange(3).astype(dtype), np.float64(1.375), {"a": [np.int32(4), np.array([True])], "b": None}
    g = xlc.jit(f)
    f(x, s, n)
    expected = printed()
    assert expected == [f"{x} 1.38     'text' [ True] 1.375 (3,) {{}} 1.4", "no values"]
    for _ in range(3):
        np.testing.assert_array_equal(g(x, s, n), x)
        assert printed() == expected
    assert g.owner.compiles == 1


def test_scalars_weak_numbers_bfloat_and_sizes(printed):
    import ml_dtypes

    @xlc.jit(dynamic={"x": {0: "n"}})
    def f(x, k):
        show("{} {:d} {n} {:.3f}", x, k, x.sum(), n=x.shape[0])

    assert f(np.arange(2.0).astype(ml_dtypes.bfloat16), 7) is None
    f(np.arange(5.0).astype(ml_dtypes.bfloat16), 8)
    assert printed() == ["[0 1] 7 2 1.000", "[0 1 2 3 4] 8 5 10.000"]


def test_order_and_values_as_they_are_at_that_point(printed):
    constant = np.array([1, 2])

    @xlc.jit
    def f(x):
        y = x * 2
        show("1 {}", y)
        show("2 {}", x)
        show("3 {} {}", constant, y)
        y = y + 1
        show("4 {}", y)
        return x

    f(np.array(5))
    constant[:] = 9
    f(np.array(6))
    assert printed() == ["1 10", "2 5", "3 [1 2] 10", "4 11", "1 12", "2 6", "3 [1 2] 12", "4 13"]


def test_outside_of_a_trace(printed):
    show("{:.1f} {k}", 2.0, k=[1])
    assert printed() == ["2.0 [1]"]


@pytest.mark.parametrize(("fmt", "args", "message"), [
    ("{} {}", (1,), "does not fit"), ("{}", (1, 2), "does not use argument 1"), ("{:.2f}", (np.ones(2),), "for a scalar"),
    ("{x}", (1,), "does not fit"), ("{:d}", (np.float64(1),), "does not fit"), ("{", (), "does not fit"), (3, (), "format string")])
def test_formats_that_do_not_fit(fmt, args, message):
    for run in (lambda *a: show(fmt, *a), xlc.jit(lambda *a: show(fmt, *a))):
        with pytest.raises(xlc.XlcError, match=message):
            run(*args)


def test_nested_jit_and_loops(printed):
    inner = xlc.jit(lambda x: (show("inner {}", x), x + 1)[1])

    @xlc.jit
    def f(x):
        def body(h, r):
            show("row {} {}", h, r)
            h = xlc.fori_loop(0, 2, lambda i, c: (show("i {}", i), inner(c))[1], h)
            return h, (show("end"), h)[1]
        return xlc.scan(body, x, np.array([10, 20]), reverse=True)

    h, ys = f(np.array(0))
    assert h == 4 and ys.tolist() == [4, 2]
    assert printed() == ["row 0 20", "i 0", "inner 0", "i 1", "inner 1", "end", "row 2 10", "i 0", "inner 2", "i 1", "inner 3", "end"]


def test_loops_of_no_iterations_and_symbolic_length(printed):
    @xlc.jit(dynamic={"xs": {0: "n"}})
    def f(xs):
        return xlc.scan(lambda h, x: (show("{}", x), h + x)[::-1], 0.0, xs)[0]

    assert f(np.zeros(0)) == 0 and printed() == []
    assert f(np.arange(3.0)) == 3 and printed() == ["0.0", "1.0", "2.0"]


def test_branches(printed):
    @xlc.jit
    def f(k, x):
        def branch(name):
            return lambda x: (show(name + " {}", x), x * 2)[1]
        y = xlc.switch(k, [branch("a"), branch("b"), lambda x: x], x)
        return xlc.cond(y.sum() > 2, lambda: (show("large"), y)[1], lambda: (show("small {}", y), x)[1])

    x = np.ones(2)
    for k, expected in ((-5, ["a [1. 1.]", "large"]), (1, ["b [1. 1.]", "large"]), (7, ["small [1. 1.]"])):
        f(k, x)
        assert printed() == expected
    xlc.jit(lambda x: xlc.cond(True, lambda: show("yes {}", x), lambda: show("no {}", x)))(3)
    assert printed() == ["yes 3"]


def test_while_loops_show_the_last_iterations(printed):
    @xlc.jit
    def f(n):
        def test(c):
            show("test {}", c)
            return c < n
        return xlc.while_loop(test, lambda c: (show("body {}", c), c + 1)[1], 0)

    assert f(2) == 2
    assert printed() == ["test 0", "body 0", "test 1", "body 1", "test 2"]
    n = KEPT + 44
    assert f(n) == n
    expected = [line for c in range(n) for line in (f"body {c}", f"test {c + 1}")][-2 * KEPT:]
    assert printed() == ["test 0", f"... 44 earlier iterations of a loop are not shown, only the last {KEPT} are kept", *expected]
    xlc.jit(lambda n: xlc.fori_loop(0, n, lambda i, c: (show("{} {}", i, c), c * 2)[1], 1.0))(3)
    assert printed() == ["0 1.0", "1 2.0", "2 4.0"]


def test_gradients_print_once(printed):
    def f(x):
        show("f {:.1f}", x)
        y = xlc.checkpoint(lambda x: (show("checkpoint {}", x), np.sin(x))[1])(x)
        return xlc.scan(lambda h, _: ((show("h {:.2f}", h), h * y)[1], None), x, length=2)[0]

    x = np.float64(2.0)
    lines = ["f 2.0", "checkpoint 2.0", "h 2.00", f"h {2 * np.sin(2):.2f}"]
    derivative = np.sin(x) ** 2 + 2 * x * np.sin(x) * np.cos(x)
    for run in (xlc.grad(f), xlc.jit(xlc.grad(f)), lambda x: xlc.value_and_grad(f)(x)[1], lambda x: xlc.jvp(f, (x,), (1.0,))[1],
                xlc.jacfwd(f), xlc.jacrev(f)):
        np.testing.assert_allclose(run(x), derivative, rtol=1e-12)
        assert printed() == lines
    xlc.hessian(f)(x)
    assert printed() == lines
    xlc.jit(xlc.checkpoint(f))(x)
    assert printed() == lines


def test_cotangents_are_printed_in_custom_vjp(printed):
    @xlc.custom_vjp
    def f(x):
        show("f {}", x)
        return x * 3

    def fwd(x):
        show("fwd {}", x)
        return f(x), x

    def bwd(x, ct):
        show("bwd {} {}", x, ct)
        return (ct * 3,)

    f.defvjp(fwd, bwd)
    assert xlc.jit(f)(2.0) == 6 and printed() == ["f 2.0"]
    assert xlc.grad(lambda x: f(x) * 5)(2.0) == 15
    assert printed() == ["f 2.0", "fwd 2.0", "bwd 2.0 5.0"]
    y, pullback = xlc.vjp(f, 2.0)
    assert y == 6 and printed() == ["f 2.0"]
    assert pullback(1.0) == (3.0,) and printed() == ["fwd 2.0", "bwd 2.0 1.0"]
    with pytest.warns(UserWarning, match="reports nothing here") as caught:
        assert xlc.grad(lambda x: xlc.scan(lambda h, _: (f(h), None), x, length=2)[0])(2.0) == 9
    assert printed() == ["f 2.0", "f 6.0"]
    assert sorted(w.lineno for w in caught) == [int(line_of(g, "show").split(":")[1]) for g in (fwd, bwd)]


def test_vmap_prints_each_element(printed):
    def f(x, n):
        show("n {}", n)
        show("x {}", x)
        y = xlc.cond(x > 1, lambda: (show("large {}", x), x)[1], lambda: 0.0)
        y = xlc.fori_loop(0, 2, lambda i, c: (show("{} {}", i, c), c + 1)[1], y)
        return xlc.while_loop(lambda c: c < n, lambda c: (show("while {}", c), c + 1)[1], y)

    out = xlc.vmap(f, in_axes=(0, None))(np.array([1.0, 2.0]), 5.0)
    assert out.tolist() == [5, 5]
    assert printed() == ["n 5.0", "x 1.0", "x 2.0", "large 2.0", "0 0.0", "0 2.0", "1 1.0", "1 3.0", "while 2.0", "while 4.0", "while 3.0",
                         "while 4.0"]
    xlc.vmap(xlc.vmap(lambda x: (show("{}", x), x)[1]), in_axes=1)(np.array([[1, 2], [3, 4]]))
    assert printed() == ["1", "3", "2", "4"]
    xlc.vmap(xlc.grad(lambda x: (show("{}", x), x * x)[1]))(np.array([1.0, 2.0]))
    assert printed() == ["1.0", "2.0"]


def test_threads_keep_their_lines(printed):
    f = xlc.jit(lambda x: xlc.scan(lambda h, r: ((show("{} {}", h, r), h)[1], r), x, np.arange(50))[0])
    f(0)
    printed()
    threads = [threading.Thread(target=lambda k=k: [f(k) for _ in range(4)]) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    lines = printed()
    assert sorted(lines) == sorted(f"{k} {r}" for k in range(3) for r in range(50) for _ in range(4))
    for k in range(3):
        assert [line for line in lines if line[0] == str(k)] == [f"{k} {r}" for r in range(50)] * 4


def test_others_are_not_touched():
    """A function without reports is called by the native path, and has no results but its own."""
    f = xlc.jit(lambda x: x + 1)
    f(np.ones(3))
    e = f.compile(np.ones(3))
    assert e.lowered.reports == () and len(e.graph.results) == 1
    before = e.native((0,)).calls
    f(np.ones(3))
    assert e.native((0,)).calls == before + 1


def test_a_library_does_without(tmp_path, capfd):
    def f(x):
        show("{}", x)
        return check_nans(np.log(x))

    with pytest.warns(UserWarning, match="debug.print"):
        out = xlc.aot.export(f, [xlc.spec(3, "f8")], tmp_path / "f.so")
    x = np.array([-1.0, 1.0, 2.0])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(xlc.aot.load(out.library)(x), np.log(x), rtol=1e-14)
    assert capfd.readouterr().out == ""
    with xlc.config.context(check_nans=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(xlc.aot.export(lambda x: x, [xlc.spec(3)], tmp_path / "g.so", name="g").interface.outputs) == 1


# ------------------------------------------------------------------------------------------------ nan


def fails(f, *args, match=None):
    """The error's text; it is of all the kinds that a user may expect."""
    with pytest.raises(xlc.XlcFloatingPointError, match=match) as caught:
        f(*args)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, FloatingPointError)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_in_the_middle_of_a_chain(dtype):
    def f(x):
        y = np.exp(x) - 2
        z = np.sqrt(y)
        w = z * 3 + np.where(x > 0, 1, 2).astype(x.dtype)
        return check_nans(w).sum()

    g = xlc.jit(f)
    fine, bad = np.array([1, 2], dtype), np.array([1, 0, 2], dtype)
    np.testing.assert_allclose(g(fine), f(fine), rtol=1e-2)
    for _ in range(2):
        text = fails(g, bad)
        assert text.startswith(line_of(f, "np.sqrt")) and "sqrt" in text and "in [-1.0, " in text and "check_nans (test_debug.py:" in text
    np.testing.assert_allclose(g(fine), f(fine), rtol=1e-2)


def test_masked_values_and_other_branches_are_no_culprits():
    @xlc.jit
    def f(x):
        y = np.where(x > 0, np.log(x), 0)
        z = xlc.cond(x.sum() > 0, lambda: check_nans(np.sqrt(x + 1)), lambda: np.sqrt(x))
        return check_nans(y), z

    with np.errstate(all="ignore"):
        f(np.array([-1.0, 2.0]))
        f(np.array([-1.0, -2.0]))
        text = fails(f, np.array([-3.0, 4.0]), match="sqrt")
    assert "in the branch" in text


def test_arguments_constants_and_at_once():
    assert "so does the argument p_w" in fails(xlc.jit(lambda p: check_nans(p["w"] * 2)), {"w": np.array([1, np.nan])})
    c = np.array([np.nan, 1])
    assert "so does a constant" in fails(xlc.jit(lambda x: check_nans(x + c)), np.ones(2))
    fails(check_nans, {"a": np.array(np.nan)})
    assert check_nans({"a": np.ones(2), "b": 3})["b"] == 3
    f = xlc.jit(lambda x, n: check_nans((x, n, x[:0])))
    assert f(np.array([1, np.inf]), 3)[1] == 3
    assert "multiply" in fails(xlc.jit(lambda x: check_nans(x * x, inf=True)), np.array([1e200]), match="nan or inf")


@pytest.mark.parametrize("reverse", [False, True])
def test_in_a_scan(reverse):
    def body(h, x):
        y = x - h
        return h + 1, np.sqrt(y)

    @xlc.jit
    def f(xs):
        h, ys = xlc.scan(body, 0.0, xs, reverse=reverse)
        return check_nans(ys).sum() + h

    xs = np.arange(6) + 1.0
    assert np.isfinite(f(xs if not reverse else xs[::-1].copy()))
    xs[3] = -1
    text = fails(f, xs, match="at row 3 of body" if reverse else "in iteration 3 of body")
    assert text.startswith(line_of(body, "np.sqrt"))


def test_within_nested_loops_at_the_check():
    @xlc.jit
    def f(x, n):
        def outer(c):
            def inner(i, v):
                return check_nans(np.sqrt(v - i)) * 0 + v
            return c[0] + 1, xlc.fori_loop(0, 3, inner, c[1] - 1)
        return xlc.while_loop(lambda c: c[0] < n, outer, (0, x))[1]

    assert f(10.0, 2) == 8
    text = fails(f, 10.0, 700, match="sqrt")
    assert "in iteration 8 of outer" in text and "in iteration 2 of" in text and "= -1.0" in text


def test_in_a_custom_vjp_and_in_the_gradient_only():
    @xlc.custom_vjp
    def f(x):
        return np.sqrt(x) + 1

    def bwd(x, ct):
        return (ct / np.log(x),)

    f.defvjp(lambda x: (f(x), x), bwd)
    assert fails(xlc.jit(lambda x: check_nans(f(x))), np.array([-1.0])).startswith(line_of(f.f, "np.sqrt"))
    g = xlc.jit(lambda x: check_nans(xlc.grad(lambda x: f(x).sum() * 0)(x)))
    assert g(np.array([2.0])) == 0
    text = fails(g, np.array([1.0]))
    assert text.startswith(line_of(bwd, "np.log")) and "divide" in text

    def norm(x):
        return np.sqrt((x * x).sum())

    with xlc.config.context(check_nans=True):
        assert norm(np.zeros(2)) == xlc.jit(norm)(np.zeros(2)) == 0
        assert fails(xlc.grad(norm), np.zeros(2)).startswith(line_of(norm, "np.sqrt"))


def test_mapped():
    f = xlc.jit(xlc.vmap(lambda x: check_nans(np.log(x))))
    np.testing.assert_allclose(f(np.ones(3)), 0)
    fails(f, np.array([1.0, -1.0]), match="log")


def test_the_knob_checks_every_call():
    f = xlc.jit(lambda x, k: {"y": np.log(x), "k": k})
    bad = np.array([-1.0])
    assert np.isnan(f(bad, 1)["y"][0])
    with xlc.config.context(check_nans=True):
        assert f(-bad, 2)["k"] == 2
        fails(f, bad, 1, match=r"the result\['y'\] of <lambda> holds nan; the first was made by log")
    assert np.isnan(f(bad, 1)["y"][0])


def test_donated_arguments_are_kept_for_the_search():
    @xlc.jit(donate="x")
    def f(x):
        return check_nans(np.sqrt(x - 1))

    text = fails(f, np.full(1000, 0.5))
    assert "sqrt" in text and "= -0.5" in text
    np.testing.assert_array_equal(f(np.full(1000, 5.0)), np.full(1000, 2.0))


def test_prints_come_before_the_error(printed):
    f = xlc.jit(lambda x: (check_nans(np.log(x)), show("x {}", x))[0])
    fails(f, -1.0)
    assert printed() == ["x -1.0"]
