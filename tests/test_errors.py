"""What a user is told: the line of the program, what was found, what to write instead; and the builtin class that NumPy would raise."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

import xlc
import xlc.numpy as xnp

X = np.ones((2, 3), np.float32)
I = np.arange(3)  # noqa: E741


def call(f: Any, *args: Any, **options: Any) -> None:
    xlc.jit(f, **options).lower(*args)


# name: (the function, its arguments, the builtin class, words of the message)
WRONG: dict[str, tuple[Any, tuple[Any, ...], type[Exception], str]] = {
    "if": (lambda x: 1 if x.sum() > 0 else 2, (X,), TypeError, r"truth value.*np\.where.*static_argnames"),
    "while": (lambda x: [x for _ in iter(lambda: bool(x[0, 0]), False)], (X,), TypeError, "truth value"),
    "and": (lambda x: (x > 0) and (x < 1), (X,), TypeError, "& |"),
    "chained comparison": (lambda x: 0 < x < 1, (X,), TypeError, "truth value"),
    "python max": (lambda x: max(x[0, 0], x[0, 1]), (X,), TypeError, "np.maximum"),
    "int": (lambda x: int(x[0, 0]), (X,), TypeError, r"int\(\).*astype"),
    "float": (lambda x: float(x.mean()), (X,), TypeError, r"float\(\)"),
    "math": (lambda x: math.sin(x[0, 0]), (X,), TypeError, r"math.*np\.sin"),
    "range": (lambda n: list(range(n)), (3,), TypeError, "static_argnames"),
    "a list's index": (lambda n: [1, 2, 3][n], (1,), TypeError, "static_argnames"),
    "an ordinary array's index": (lambda n: np.arange(3)[n], (I,), TypeError, "xlc.numpy.take"),
    "asarray": (lambda x: np.asarray(x), (X,), TypeError, "np.asarray"),
    "an array of traced values": (lambda x: np.array([x[0, 0], x[0, 1]]), (X,), TypeError, "np.stack"),
    "item": (lambda x: x.sum().item(), (X,), TypeError, r"item\(\)"),
    "tolist": (lambda x: x.tolist(), (X,), TypeError, "tolist"),
    "in": (lambda x: 1.0 in x, (X,), TypeError, "np.any"),
    "len of a number": (lambda s: len(s), (2.0,), TypeError, "0-d"),
    "iteration over a number": (lambda s: list(s), (2.0,), TypeError, "0-d"),
    "assignment": (lambda x: x.__setitem__(0, 1), (X,), TypeError, r"xlc\.numpy\.at\(x, index\)\.set\(value\)"),
    "assignment into an ordinary array": (lambda x: np.zeros(3).__setitem__(0, x[0, 0]), (X,), TypeError, "xlc.numpy.at"),
    "out": (lambda x: np.add(x, 1, out=x), (X,), TypeError, r"write y = np\.add"),
    "out of a reduction": (lambda x: np.sum(x, out=x), (X,), TypeError, "not written in place"),
    "out into an ordinary array": (lambda x: np.add(x, 1, out=np.zeros((2, 3), "f4")), (X,), TypeError, "ordinary array"),
    "ufunc where": (lambda x: np.add(x, 1, where=x > 0), (X,), TypeError, r"np\.where\(mask"),
    "ufunc at": (lambda x: np.add.at(x, 0, 1), (X,), TypeError, r"xlc\.numpy\.at"),
    "sort in place": (lambda x: x.sort(), (X,), TypeError, r"x = np\.sort\(x\)"),
    "mask": (lambda x: x[x > 0], (X,), TypeError, r"np\.where\(mask"),
    "nonzero": (lambda x: np.where(x), (X,), TypeError, "shape depends on the data"),
    "traced slice": (lambda x, i: x[i:], (X, 1), TypeError, "np.take"),
    "broadcast": (lambda x, y: x + y, (X, np.ones(4)), ValueError, r"could not be broadcast.*\(2, 3\) and \(4,\): 3 does not match 4"),
    "matmul": (lambda x, y: x @ y, (X, X), ValueError, r"\(2, 3\) and \(2, 3\).*3, differs from.* 2"),
    "matmul of a number": (lambda x: x @ 2.0, (X,), ValueError, "scalar"),
    "reshape": (lambda x: x.reshape(4, -1), (X,), ValueError, r"cannot reshape array of size 6 \(shape \(2, 3\)\) into shape \(4, -1\)"),
    "axis": (lambda x: x.sum(2), (X,), ValueError, "axis 2 is out of bounds for an array of dimension 2"),
    "axis is an index error too": (lambda x: x.sum(2), (X,), IndexError, "axis 2"),
    "axis twice": (lambda x: x.sum((0, 0)), (X,), ValueError, "twice"),
    "index": (lambda x: x[2], (X,), IndexError, "index 2 is out of bounds for axis 0 with size 2"),
    "array index": (lambda x: x[:, [0, 5]], (X,), IndexError, "index 5 is out of bounds"),
    "too many indices": (lambda x: x[0, 0, 0], (X,), IndexError, r"too many indices.*2 dimensions.*3 were"),
    "float index": (lambda x: x[1.0], (X,), IndexError, "only integers"),
    "overflow": (lambda x: x.astype("i1") + 300, (X,), OverflowError, "300 out of bounds for int8"),
    "huge": (lambda x: x + 2**70, (X.astype(int),), OverflowError, "out of bounds|does not fit"),
    "bitwise on floats": (lambda x: x & 1, (X,), TypeError, r"np.bitwise_and is not defined for \(float32, int\)"),
    "subtract booleans": (lambda x: (x > 0) - (x > 1), (X,), TypeError, r"np\.subtract is not defined for \(bool, bool\)"),
    "negative power": (lambda i: i ** -1, (I,), ValueError, "negative integer powers"),
    "concatenate": (lambda x: np.concatenate([x, x[0]]), (X,), ValueError, "same number of dimensions"),
    "stack": (lambda x: np.stack([x, x[0]]), (X,), ValueError, r"\(2, 3\).*\(3,\)"),
    "split": (lambda x: np.split(x, 2, axis=1), (X,), ValueError, "size 3, which 2 does not divide"),
    "einsum": (lambda x: np.einsum("ij,jk->ik", x, x), (X,), ValueError, "label 'j' has size 3"),
    "einsum labels": (lambda x: np.einsum("ijk->i", x), (X,), ValueError, "3 labels, its operand has 2"),
    "empty max": (lambda x: x[:0].max(), (X,), ValueError, "zero-size"),
    "squeeze": (lambda x: x.squeeze(0), (X,), ValueError, "axis 0 has size 2"),
    "unsupported function": (lambda x: np.fft.fft(x), (X,), NotImplementedError, r"np\.fft\.fft is not supported on traced values"),
    "unsupported with a near one": (lambda x: np.nanargmax(x), (X,), NotImplementedError, r"np\.nanargmax.*np\.(nanmax|argmax)"),
    "unsupported with a hint": (lambda x: np.unique(x), (X,), NotImplementedError, "shape depends on the data"),
    "unsupported ufunc": (lambda x: np.gcd(x.astype(int), 2), (X,), NotImplementedError, r"np\.gcd is not supported"),
    "unsupported method of a ufunc": (lambda x: np.add.reduceat(x, [0]), (X,), NotImplementedError, r"np\.add\.reduceat"),
    "attribute": (lambda x: x.flags, (X,), AttributeError, r"ndarray\.flags is not supported"),
    "no attribute": (lambda x: x.foo, (X,), AttributeError, "no attribute 'foo'"),
    "keyword": (lambda x: x.sum(axes=0), (X,), TypeError, "axes"),
    "unknown dtype": (lambda x: x.astype("c8"), (X,), TypeError, "complex64 is not supported"),
    "object array inside": (lambda x: x + np.array([1, None, 2]), (X,), TypeError, "objects"),
    "string result": (lambda x: {"a": "text"}, (X,), TypeError, r"the result\['a'\] of .* is str 'text'"),
    "object result": (lambda x: object(), (X,), TypeError, "the result of"),
    "random": (lambda x: np.random.default_rng(0).permutation(x), (X,), TypeError, ""),
    "keys of a result": (lambda x: {1: x, "a": x}, (X,), TypeError, "comparable"),
    "at": (lambda x: xnp.at(x, 0).set(np.ones(4)), (X,), ValueError, r"\(4,\).*\(3,\)"),
    "symbolic iteration": (lambda x: list(x), (xlc.spec("n"),), TypeError, "symbolic size n"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_errors_inside_a_function_name_its_line(case: str) -> None:
    f, args, kind, words = WRONG[case]
    with pytest.raises(xlc.XlcError, match=rf"(?s)^test_errors\.py:{f.__code__.co_firstlineno}: .*{words}") as caught:
        call(f, *args)
    assert isinstance(caught.value, kind), type(caught.value).__mro__
    assert caught.value.location == (__file__, f.__code__.co_firstlineno)


ARGUMENTS: dict[str, tuple[Any, type[Exception], str]] = {
    "object array": (np.array([1, None]), TypeError, "objects"),
    "string array": (np.array(["a"]), TypeError, "strings"),
    "complex array": (np.ones(2, complex), TypeError, "real"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), TypeError, "dates"),
    "structured": (np.zeros(2, [("a", "f4")]), TypeError, "structured"),
    "long double": (np.ones(2, np.longdouble), TypeError, "float64"),
    "string": ("relu", TypeError, "the argument x is str 'relu'.*static_argnames"),
    "complex": (1j, TypeError, "complex"),
    "function": (math.sin, TypeError, "static_argnames"),
    "set": ({1, 2}, TypeError, "set"),
    "object": (object(), TypeError, "the argument x is an object"),
    "nested": ({"a": [1.0, "b"]}, TypeError, r"the argument x\['a'\]\[1\] is str 'b'"),
    "huge int": (2**63, OverflowError, "does not fit int64"),
    "masked": (np.ma.masked_array([1.0, 2.0], [True, False]), TypeError, r"\.mask"),
    "matrix": (np.matrix([[1.0]]), TypeError, "np.asarray"),
    "spec": (xlc.spec(3), TypeError, "specs are for lower"),
}


@pytest.mark.parametrize("case", ARGUMENTS, ids=str)
def test_wrong_arguments_name_the_callers_line(case: str) -> None:
    value, kind, words = ARGUMENTS[case]
    f = xlc.jit(lambda x: x)
    with pytest.raises(xlc.XlcError, match=rf"(?s)^test_errors\.py:\d+: .*{words}") as caught:
        f(value)
    assert isinstance(caught.value, kind)
    assert caught.value.location == (__file__, test_wrong_arguments_name_the_callers_line.__code__.co_firstlineno + 5)


def test_wrong_number_of_arguments() -> None:
    def f(x: Any, y: Any, *, k: Any = 1) -> Any:
        return x

    for args, kwargs, words in (((1.0,), {}, "missing a required argument: 'y'"), ((1.0, 2.0, 3.0), {}, "too many positional"),
                                ((1.0, 2.0), {"z": 1}, "unexpected keyword argument 'z'"), ((1.0, 2.0), {"x": 1}, "multiple values")):
        with pytest.raises(xlc.XlcTypeError, match=rf"^test_errors\.py:\d+: f\(\): .*{words}"):
            xlc.jit(f)(*args, **kwargs)


def test_wrong_options() -> None:
    f = lambda x, k: x  # noqa: E731
    for options, words in (({"static_argnames": "q"}, "no argument 'q'; it has x, k"), ({"donate": (5,)}, "no argument 5"),
                           ({"dynamic": {"x": "n"}}, "axis: name"),
                           ({"dynamic": {"x": {0: "a b"}}}, "identifier"), ({"dynamic": {"z": {0: "n"}}}, "no argument 'z'"),
                           ({"dynamic": 3}, "expects")):
        with pytest.raises(xlc.XlcError, match=rf"test_errors\.py:\d+: .*{words}"):
            xlc.jit(f, **options)
    with pytest.raises(xlc.XlcTypeError, match="expects a function"):
        xlc.jit(3)
    with pytest.raises(xlc.XlcTypeError, match="static argument 'k' must be hashable.*tuple"):
        xlc.jit(f, static_argnames="k")(1.0, [1, 2])
    with pytest.raises(xlc.XlcTypeError, match="static argument 'k' must be hashable.*ordinary arguments"):
        xlc.jit(f, static_argnames="k")(1.0, np.ones(2))
    with pytest.raises(xlc.XlcValueError, match="axis 3 of x"):
        xlc.jit(f, dynamic={"x": {3: "n"}})(np.ones(2), 1)


def test_the_users_exceptions_pass_unchanged() -> None:
    class Own(Exception):
        pass

    error = Own("mine")

    def f(x: Any) -> Any:
        raise error

    with pytest.raises(Own) as caught:
        xlc.jit(f)(1.0)
    assert caught.value is error
    with pytest.raises(ZeroDivisionError):
        xlc.jit(lambda x: 1 // 0)(1.0)
    with pytest.raises(KeyError):
        xlc.jit(lambda p: p["missing"])({"a": 1.0})
    compiled = xlc.jit(lambda x: x + 1)
    assert compiled(1.0) == 2  # and a failed trace leaves nothing behind


def test_traced_values_do_not_outlive_their_trace() -> None:
    kept: list[Any] = []
    xlc.jit(lambda x: kept.append(x * 2)).lower(X)
    for use in (lambda t: t + 1, lambda t: np.exp(t), lambda t: np.sum(t), lambda t: t[0], lambda t: xnp.exp(t),
                lambda t: xlc.jit(lambda x: x)(t), bool):
        with pytest.raises(xlc.XlcTypeError, match=r"test_errors\.py:\d+: a traced value \(made at .*test_errors\.py:\d+\) is used after "
                                                   r"the trace"):
            use(kept[0])
    with pytest.raises(xlc.XlcTypeError, match="after the trace"):
        xlc.jit(lambda x: x + kept[0]).lower(X)
    with pytest.raises(xlc.XlcTypeError, match="after the trace"):
        xlc.jit(lambda x: kept[0]).lower(X)
    assert "f32[2,3]" in repr(kept[0]) and kept[0].shape == (2, 3)


def test_traced_values_belong_to_their_thread() -> None:
    errors: list[BaseException] = []

    def f(x: Any) -> Any:
        def work() -> None:
            try:
                x + 1  # noqa: B018
            except xlc.XlcError as error:
                errors.append(error)

        t = threading.Thread(target=work)
        t.start()
        t.join()
        return x

    call(f, X)
    assert len(errors) == 1 and "another thread" in str(errors[0])


def test_traced_values_belong_to_one_trace() -> None:
    def f(x: Any) -> Any:
        return xlc.jit(lambda y: y + x).lower(X).graph

    with pytest.raises(xlc.XlcTypeError, match="separate trace"):
        call(f, X)


def test_endless_recursion() -> None:
    @xlc.jit
    def f(x: Any) -> Any:
        return f(x) + 1

    with pytest.raises(xlc.XlcError, match="f calls itself") as caught:
        f(1.0)
    assert isinstance(caught.value, RecursionError)


def test_tracers_print() -> None:
    seen: list[str] = []

    def f(x: Any, s: float) -> Any:
        seen.extend((f"{x}", f"{x * 2:.3f}", repr(s), str(x.shape)))
        return x

    call(f, X, 2.0)
    assert seen[0] == "<traced x: f32[2,3]>" and seen[1].startswith("<traced f32[2,3] of ")
    assert seen[2] == "<traced weak s: f64[]>" and seen[3] == "(2, 3)"


def test_unhashable_as_arrays_are() -> None:
    def f(x: Any) -> Any:
        return {x: 1}

    with pytest.raises(TypeError, match="unhashable"):
        call(f, X)


def test_missing_functions_of_the_namespace() -> None:
    with pytest.raises(xlc.XlcError, match=r"test_errors\.py:\d+: xlc\.numpy\.nonzero is not supported.*np\.where"):
        xnp.nonzero  # noqa: B018
    assert not hasattr(xnp, "nonsense") and not hasattr(xnp, "unique_values")


def test_eager_errors_name_the_callers_line() -> None:
    with pytest.raises(xlc.XlcValueError, match=r"^test_errors\.py:\d+: .*broadcast"):
        xnp.add(np.ones(2), np.ones(3))
    with pytest.raises(xlc.XlcTypeError, match=r"^test_errors\.py:\d+: sum: .*unexpected keyword"):
        xnp.sum(np.ones(2), axes=1)
