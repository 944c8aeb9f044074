"""Reverse mode through the public API: every rule against central differences in f64, hand-known formulas, PyTorch where it is installed;
and the shapes of the interface (pytrees, argnums, aux, custom rules, second order, errors)."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import xlc
import xlc.nn as nn
import xlc.numpy as xnp
from xlc import errors

rng = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    return rng.uniform(0.3, 2.5, size=shape)


def inside(*shape: int) -> np.ndarray:
    return rng.uniform(-0.8, 0.8, size=shape)


def check(f, *args, h: float = 1e-5, tol: float = 2e-7, argnums=None) -> None:
    """Directional derivatives of a random weighting of f's results, by differences of f on arrays (NumPy itself wherever f is made of
    NumPy)."""
    argnums = tuple(range(len(args))) if argnums is None else argnums
    weight = rng.normal(size=np.shape(f(*args)))
    found = xlc.grad(lambda *xs: (f(*xs) * weight).sum(), argnums)(*args)
    for i, g in zip(argnums, found, strict=True):
        assert g.shape == np.shape(args[i]) and g.dtype == np.asarray(args[i]).dtype
        v = rng.normal(size=np.shape(args[i]))

        def at(t: float, i=i, v=v) -> float:
            return float((f(*args[:i], args[i] + t * v, *args[i + 1:]) * weight).sum())

        expected = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        assert (g * v).sum() == pytest.approx(expected, rel=tol, abs=tol * (1 + np.abs(g * v).sum()))


UNARY = {
    "negative": (np.negative, normal), "abs": (np.abs, positive), "square": (np.square, normal), "sqrt": (np.sqrt, positive),
    "cbrt": (np.cbrt, positive),
    "exp": (np.exp, normal), "exp2": (np.exp2, normal), "expm1": (np.expm1, normal), "log": (np.log, positive), "log2": (np.log2, positive),
    "log10": (np.log10, positive), "log1p": (np.log1p, positive), "sin": (np.sin, normal), "cos": (np.cos, normal), "tan": (np.tan, inside),
    "arcsin": (np.arcsin, inside), "arccos": (np.arccos, inside), "arctan": (np.arctan, normal), "sinh": (np.sinh, normal),
    "cosh": (np.cosh, normal),
    "tanh": (np.tanh, normal), "arcsinh": (np.arcsinh, normal), "arccosh": (lambda x: np.arccosh(x + 1.2), positive),
    "arctanh": (np.arctanh, inside),
    "reciprocal": (np.reciprocal, positive), "power 3": (lambda x: x ** 3, normal), "power -2": (lambda x: x ** -2.0, positive),
    "power 2.5": (lambda x: x ** 2.5, positive), "base 3": (lambda x: 3.0 ** x, normal),
    "where": (lambda x: np.where(x > 0, x * x, 3 * x), normal),
    "clip": (lambda x: np.clip(x, -0.31, 0.62), normal), "minimum": (lambda x: np.minimum(x, 0.2) * x, normal),
    "floor": (lambda x: np.floor(x) * x, normal),
    "astype": (lambda x: x.astype("f4").astype("f8") * 0 + x, normal),
}


@pytest.mark.parametrize("name", UNARY)
def test_elementwise(name: str) -> None:
    f, draw = UNARY[name]
    check(f, draw(3, 5))


XLC_UNARY = {"erf": xnp.erf, "expit": xnp.expit, "gelu": nn.gelu, "gelu_tanh": lambda x: nn.gelu(x, approximate=True), "silu": nn.silu,
             "softplus": nn.softplus, "relu": nn.relu, "softmax": nn.softmax, "log_softmax": lambda x: nn.log_softmax(x, axis=0),
             "logsumexp": lambda x: xnp.logsumexp(x, axis=1), "rsqrt": lambda x: xnp.rsqrt(x * x + 1)}


@pytest.mark.parametrize("name", XLC_UNARY)
def test_functions_of_xlc(name: str) -> None:
    check(XLC_UNARY[name], normal(4, 6), tol=1e-6)


BINARY = {
    "add": lambda x, y: x + y, "subtract": lambda x, y: x - y, "multiply": lambda x, y: x * y, "divide": lambda x, y: x / y,
    "power": lambda x, y: x ** y, "maximum": np.maximum, "minimum": np.minimum, "hypot": np.hypot, "arctan2": np.arctan2,
    "logaddexp": np.logaddexp,
    "remainder": lambda x, y: x % (y + 3), "copysign": lambda x, y: np.copysign(x, -y),
    "broadcast": lambda x, y: x * y[0] + y[:, :1], "matmul": lambda x, y: x @ y.T, "tensordot": lambda x, y: np.tensordot(x, y, axes=2),
    "outer": lambda x, y: np.outer(x, y), "einsum": lambda x, y: np.einsum("ij,kj->ik", x, y),
    "concatenate": lambda x, y: np.concatenate([x, y, x], 1),
    "stack": lambda x, y: np.stack([x, y * 2]), "where": lambda x, y: np.where(x > y, x, y * 2),
    "vecdot": lambda x, y: np.linalg.vecdot(x, y),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str) -> None:
    check(BINARY[name], positive(4, 5), positive(4, 5))


SHAPES = {
    "reshape": lambda x: x.reshape(2, 12) ** 2, "transpose": lambda x: x.transpose(2, 0, 1) * 2, "slice": lambda x: x[1:, ::2, -2:] ** 2,
    "negative step": lambda x: x[:, ::-2] * x[:, ::-2], "integer": lambda x: x[1] * 3, "newaxis": lambda x: x[:, None] * x[:, :, None],
    "gather": lambda x: x[:, [0, 2, 2, 1]] ** 2, "index two": lambda x: x[[0, 1, 1], [2, 0, 0]] ** 2,
    "take": lambda x: np.take(x, [3, 0, 3], axis=2) ** 2,
    "take_along": lambda x: np.take_along_axis(x, np.array([[[1, 1]]] * 2), 2) ** 2, "sum": lambda x: x.sum(1) ** 2,
    "mean": lambda x: x.mean((0, 2)) ** 2,
    "prod": lambda x: x.prod(1), "max": lambda x: x.max(2), "min": lambda x: x.min((0, 1)), "var": lambda x: x.var(1),
    "std": lambda x: x.std(1, ddof=1),
    "cumsum": lambda x: np.cumsum(x, axis=1) ** 2, "cumprod": lambda x: np.cumprod(x, axis=2), "sort": lambda x: np.sort(x, axis=1) ** 2,
    "flip": lambda x: np.flip(x, 1) * x, "roll": lambda x: np.roll(x, 2, axis=2) * x, "tile": lambda x: np.tile(x, (1, 2, 1)) ** 2,
    "repeat": lambda x: np.repeat(x, 3, axis=1) ** 2, "pad": lambda x: np.pad(x, ((0, 0), (1, 2), (0, 1))) ** 2,
    "squeeze": lambda x: x[:, :1].squeeze(1) ** 2,
    "broadcast_to": lambda x: np.broadcast_to(x[:, :, :1], (2, 3, 7)) ** 2, "tril": lambda x: np.tril(x) ** 2,
    "diff": lambda x: np.diff(x, axis=1) ** 2,
    "trace": lambda x: np.trace(x[0, :, :3]) * x.sum(), "split": lambda x: np.split(x, 2, axis=2)[1] ** 2,
    "moveaxis": lambda x: np.moveaxis(x, 0, 2) * 2,
    "linalg.norm": lambda x: np.linalg.norm(x, axis=1), "batched matmul": lambda x: x @ x.swapaxes(1, 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_reductions_indexing(name: str) -> None:
    check(SHAPES[name], normal(2, 3, 4))


def test_functional_update() -> None:
    i = np.array([2, 0, 2])
    for method in ("set", "add", "max", "min", "multiply"):
        j = i[:2] if method == "set" else i
        check(lambda x, v, m=method, j=j: getattr(xnp.at(x, j), m)(v), normal(4, 3), normal(len(j), 3), tol=1e-6)


def test_norms_losses_attention() -> None:
    check(lambda x, s, b: nn.layer_norm(x, s, b), normal(3, 8), normal(8), normal(8), tol=1e-6)
    check(lambda x, s: nn.rms_norm(x, s), normal(3, 8), normal(8), tol=1e-6)
    labels = np.array([0, 3, 1])
    check(lambda x: nn.cross_entropy(x, labels), normal(3, 4), tol=1e-6)
    check(nn.sigmoid_cross_entropy, normal(3, 4), rng.uniform(size=(3, 4)), tol=1e-6)
    q, k, v = normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 6)
    check(lambda q, k, v: nn.attention(q, k, v, causal=True), q, k, v, tol=1e-6)
    mask = np.arange(15).reshape(3, 5) % 3 > 0
    check(lambda q, k, v: nn.attention(q, k, v, mask=mask, scale=0.3), q, k, v, tol=1e-6)


# ------------------------------------------------------------------------------------------------ known values at corners


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_corners(dtype: str) -> None:
    zero = np.zeros(3, dtype)
    assert np.array_equal(xlc.grad(lambda x: np.abs(x).sum())(zero), zero)
    assert np.array_equal(xlc.grad(lambda x: (x ** 2).sum())(zero), zero)
    assert np.array_equal(xlc.grad(lambda x: x.max())(np.array([2, 1, 2], dtype)), np.array([0.5, 0, 0.5], dtype))
    assert np.array_equal(xlc.grad(lambda x: x.prod())(np.array([0, 3, 4], dtype)), np.array([12, 0, 0], dtype))
    assert np.array_equal(xlc.grad(lambda x: x.prod())(np.array([0, 0, 4], dtype)), zero)
    assert np.array_equal(xlc.grad(lambda x: np.maximum(x, 0).sum())(np.array([-1, 2, 3], dtype)), np.array([0, 1, 1], dtype))


def test_half_precision_keeps_its_dtype() -> None:
    import ml_dtypes

    for dtype in ("f2", ml_dtypes.bfloat16):
        x = np.array([0.5, -1.25, 2], dtype)
        g = xlc.grad(lambda x: (x * x).sum())(x)
        assert g.dtype == x.dtype and np.array_equal(g, 2 * x)


def test_no_dependence_gives_zeros() -> None:
    x = normal(2, 3)
    assert np.array_equal(xlc.grad(lambda x, y: (y * y).sum())(x, x), np.zeros((2, 3)))
    assert np.array_equal(xlc.grad(lambda x: 3.0)(x), np.zeros((2, 3)))
    assert np.array_equal(xlc.grad(lambda x: (x > 0).astype(float).sum())(x), np.zeros((2, 3)))
    assert xlc.grad(lambda x: x.sum())(np.zeros((0, 3))).shape == (0, 3)


# ------------------------------------------------------------------------------------------------ the interface


def test_scalars_and_argnums() -> None:
    f = lambda x, y: x ** 3 * y  # noqa: E731
    assert xlc.grad(f)(2.0, 5.0) == 60 and xlc.grad(f, 1)(2.0, 5.0) == 8 and xlc.grad(f, -1)(2.0, 5.0) == 8
    gx, gy = xlc.grad(f, (0, 1))(2.0, 5.0)
    assert (gx, gy) == (60, 8)
    (only,) = xlc.grad(f, (1,))(2.0, 5.0)
    assert only == 8
    value, g = xlc.value_and_grad(f)(2.0, y=5.0)
    assert (value, g) == (40, 60)


def test_pytrees_and_aux() -> None:
    P = namedtuple("P", "w b")
    x = normal(4, 3)

    def loss(p, x):
        y = x @ p["layer"].w + p["layer"].b * p["scale"][0]
        return (y ** 2).mean(), {"y": y, "n": 3}

    p = {"layer": P(normal(3, 2), normal(2)), "scale": [2.0, None]}
    (value, aux), g = xlc.value_and_grad(loss, has_aux=True)(p, x)
    y = x @ p["layer"].w + p["layer"].b * 2
    assert value == pytest.approx((y ** 2).mean()) and np.allclose(aux["y"], y) and aux["n"] == 3
    assert type(g["layer"]) is P and g["scale"][1] is None
    assert np.allclose(g["layer"].w, x.T @ y / y.size * 2) and np.allclose(g["scale"][0], (y / y.size * 2 * p["layer"].b).sum())
    g2, aux = xlc.grad(loss, has_aux=True)(p, x)
    assert np.array_equal(g2["layer"].b, g["layer"].b) and aux["y"].shape == (4, 2)


def test_inside_and_outside_jit_agree() -> None:
    x = normal(5)
    f = lambda x: (np.sin(x) * x).sum()  # noqa: E731
    eager = xlc.grad(f)(x)
    assert np.array_equal(xlc.jit(xlc.grad(f))(x), eager) and np.array_equal(xlc.grad(xlc.jit(f))(x), eager)
    assert np.array_equal(xlc.jit(lambda x: xlc.grad(xlc.jit(f))(x))(x), eager)
    assert np.allclose(eager, np.cos(x) * x + np.sin(x))
    inner = xlc.jit(lambda x, c: (x * c).sum(), static_argnames="c")
    assert np.array_equal(xlc.grad(inner)(x, 3), np.full(5, 3.0))


def test_a_gradient_is_compiled_once() -> None:
    traces = []

    @xlc.jit
    def f(x):
        traces.append(1)
        return (x * x).sum()

    for _ in range(3):
        xlc.grad(f)(normal(4))
    assert len(traces) == 1
    g = xlc.grad(lambda x: traces.append(2) or x.sum())
    g(normal(3)), g(normal(3))
    assert traces == [1, 2]


def test_second_order_and_no_confusion() -> None:
    f = lambda x: np.sin(x) * x ** 2  # noqa: E731
    x = 0.7
    d2 = xlc.grad(xlc.grad(f))(x)
    assert d2 == pytest.approx(-np.sin(x) * x ** 2 + 4 * x * np.cos(x) + 2 * np.sin(x))
    d3 = xlc.jit(xlc.grad(xlc.grad(xlc.grad(lambda x: x ** 5))))(2.0)
    assert d3 == 60 * 4
    # What an inner function closes over is constant to it, although it depends on the same outer variable.
    g = xlc.grad(lambda x: x * xlc.grad(lambda y: x * y)(1.0))
    assert g(3.0) == 6.0
    g = xlc.grad(lambda x: xlc.grad(lambda y: y * stay(x))(x))
    stay = np.sin
    assert g(0.3) == pytest.approx(np.cos(0.3))
    a = normal(3, 3)
    hvp = xlc.grad(lambda x: (xlc.grad(lambda x: (np.tanh(a @ x) ** 2).sum())(x) * np.arange(3.0)).sum())
    first = xlc.grad(lambda x: (np.tanh(a @ x) ** 2).sum())
    x, h = normal(3), 1e-6
    numeric = [((first(x + h * e) - first(x - h * e)) / (2 * h) * np.arange(3.0)).sum() for e in np.eye(3)]
    assert np.allclose(hvp(x), numeric, rtol=1e-6, atol=1e-8)


def test_second_order_of_composites() -> None:
    x, labels = normal(3, 4), np.array([1, 0, 3])
    for f in (lambda x: nn.softmax(x)[:, 0].sum(), lambda x: nn.cross_entropy(x, labels).sum(), lambda x: nn.gelu(x).sum(),
              lambda x: nn.layer_norm(x, np.ones(4), np.zeros(4))[:, 1].sum()):
        check(xlc.grad(f), x, tol=1e-5)


def test_vjp() -> None:
    x, w = normal(4, 3), normal(3, 2)
    f = lambda x, w: {"y": np.tanh(x @ w), "s": x.sum()}  # noqa: E731
    ct = {"y": normal(4, 2), "s": np.float64(2.0)}
    y, pull = xlc.vjp(f, x, w)
    gx, gw = pull(ct)
    inner = ct["y"] * (1 - np.tanh(x @ w) ** 2)
    assert np.allclose(y["y"], np.tanh(x @ w)) and np.allclose(gx, inner @ w.T + 2) and np.allclose(gw, x.T @ inner)

    @xlc.jit
    def both(x, w, ct):
        y, pull = xlc.vjp(f, x, w)
        return pull(ct)

    for a, b in zip(both(x, w, ct), (gx, gw), strict=True):
        assert np.array_equal(a, b)
    y, pull, aux = xlc.vjp(lambda x: (x * 2, x.shape), x, has_aux=True)
    assert np.array_equal(pull(np.ones((4, 3)))[0], np.full((4, 3), 2.0))
    _, pull = xlc.vjp(lambda x, i: x[i], x, np.array([0, 0]))
    g, none = pull(np.ones((2, 3)))
    assert none is None and np.array_equal(g[0], [2, 2, 2])


def test_stop_gradient() -> None:
    x = normal(3)
    assert np.array_equal(xlc.grad(lambda x: (xlc.stop_gradient(x) * x).sum())(x), x)
    assert np.array_equal(xlc.stop_gradient({"a": x})["a"], x)
    assert np.array_equal(xlc.grad(lambda p: (xlc.stop_gradient(p)["a"] * p["b"]).sum())({"a": x, "b": x})["a"], np.zeros(3))


# ------------------------------------------------------------------------------------------------ rules of the user's own


def clipped():
    @xlc.custom_vjp
    def clip_gradient(x, limit):
        return x * 1.0

    clip_gradient.defvjp(lambda x, limit: (x * 1.0, limit), lambda limit, g: (np.clip(g, -limit, limit), None))
    return clip_gradient


def test_custom_vjp() -> None:
    f = clipped()
    x = np.array([1.0, 2.0, 3.0])
    assert np.array_equal(f(x, 1.0), x)
    for wrap in (lambda g: g, xlc.jit):
        assert np.array_equal(wrap(xlc.grad(lambda x: (f(x, 0.5) * np.array([0.2, 3.0, -3.0])).sum()))(x), [0.2, 0.5, -0.5])
    assert np.array_equal(xlc.jit(lambda x: f(x, limit=0.5) + 1)(x), x + 1)


def test_custom_vjp_second_order_pytrees_and_several_results() -> None:
    @xlc.custom_vjp
    def sincos(p, n):
        return {"s": np.sin(p["x"]), "c": np.cos(p["x"])}

    calls = []

    def bwd(n, res, ct):
        calls.append(n)
        return ({"x": ct["s"] * res["c"] - ct["c"] * res["s"]},)

    sincos = xlc.custom_vjp(sincos.f, nondiff_argnums=(1,))
    sincos.defvjp(lambda p, n: ((y := {"s": np.sin(p["x"]), "c": np.cos(p["x"])}), y), bwd)
    x = 0.4

    def f(x):
        y = sincos({"x": x}, "a label")
        return y["s"] * y["s"] * y["c"]

    assert xlc.grad(f)(x) == pytest.approx(2 * np.sin(x) * np.cos(x) ** 2 - np.sin(x) ** 3)
    assert calls == ["a label"]  # once, although both results have cotangents
    h = 1e-5
    assert xlc.grad(xlc.grad(f))(x) == pytest.approx((xlc.grad(f)(x + h) - xlc.grad(f)(x - h)) / (2 * h), rel=1e-6)
    assert xlc.jit(f)(x) == pytest.approx(np.sin(x) ** 2 * np.cos(x))


def test_custom_vjp_whose_first_result_is_no_float() -> None:
    @xlc.custom_vjp
    def f(x):
        return np.argmax(x), x * x

    f.defvjp(lambda x: (f(x), x), lambda x, ct: (7 * x * ct[1],))
    np.testing.assert_allclose(xlc.grad(lambda x: f(x)[1].sum() + f(x)[0])(np.arange(3.0)), [0, 7, 14])


def test_custom_vjp_closure() -> None:
    def outer(x, c):
        @xlc.custom_vjp
        def f(x):
            return x * c

        f.defvjp(lambda x: (x * c, None), lambda _, g: (g * c * 10,))
        return f(x)

    assert xlc.grad(outer)(2.0, 3.0) == 30
    assert xlc.jit(xlc.grad(xlc.grad(lambda x, c: outer(x, c) ** 2)))(2.0, 3.0) == 2 * 30 * 30
    with pytest.raises(xlc.XlcError, match="closes over"):
        xlc.grad(outer, 1)(2.0, 3.0)


# ------------------------------------------------------------------------------------------------ errors


def error(kind: type, text: str, f) -> None:
    with pytest.raises(kind, match=text) as info:
        f()
    assert isinstance(info.value, xlc.XlcError) and "test_grad.py:" in str(info.value)


def test_errors() -> None:
    x = normal(3)
    error(TypeError, r"loss returned an array of shape \(3,\)", lambda: xlc.grad(loss)(x))
    error(TypeError, r"returned a tuple of 2", lambda: xlc.grad(lambda x: (x.sum(), x))(x))
    error(TypeError, r"respect to n needs a float, and n is an array of int64", lambda: xlc.grad(lambda n: n.sum())(np.arange(3)))
    error(TypeError, r"respect to p\['n'\] needs a float, and p\['n'\] is the Python int 3",
          lambda: xlc.jit(lambda: xlc.grad(lambda p: p["n"] * 1.0)({"n": 3}))())
    error(IndexError, "argnums names argument 2 of loss", lambda: xlc.grad(loss, 2)(x))
    error(ValueError, "twice", lambda: xlc.grad(lambda x, y: x.sum(), (0, -2))(x, x))
    error(TypeError, "argnums='x'", lambda: xlc.grad(loss, "x"))
    error(TypeError, "expects a function", lambda: xlc.grad(3.0))
    error(TypeError, r"must return a pair \(value, aux\)", lambda: xlc.grad(lambda x: x.sum(), has_aux=True)(x))
    error(TypeError, "float result", lambda: xlc.grad(lambda x: (x > 0).sum())(x))
    error(TypeError, "missing a required argument", lambda: xlc.grad(lambda x, y: x)(x))
    error(TypeError, "nested as the result", lambda: xlc.vjp(loss, x)[1]((x, x)))
    error(TypeError, "no rule yet", lambda: xlc.jit(xlc.custom_vjp(loss))(x))
    bad = xlc.custom_vjp(lambda x: x * 1.0)
    bad.defvjp(lambda x: (x, None), lambda r, g: g)
    error(TypeError, "must return a tuple with one cotangent", lambda: xlc.grad(lambda x: bad(x).sum())(x))
    bad.defvjp(lambda x: (x, None), lambda r, g: (g[:1],))
    error(TypeError, "must be f64", lambda: xlc.grad(lambda x: bad(x).sum())(x))
    assert issubclass(errors.XlcIndexError, IndexError)


def loss(x):
    return x * x


# ------------------------------------------------------------------------------------------------ against PyTorch


def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    x, w1, w2 = normal(6, 5), normal(5, 7), normal(7, 4)
    labels = np.array([0, 1, 2, 3, 0, 1])
    q = normal(2, 4, 3)

    def ours(w1, w2, q):
        h = nn.gelu(x @ w1)
        a = nn.attention(q, q, q, causal=True)
        logits = nn.layer_norm(h, np.ones(7), np.zeros(7)) @ w2
        return nn.cross_entropy(logits, labels).mean() + (a ** 3).sum() + np.sort(q, axis=1)[:, 0].sum()

    value, grads = xlc.value_and_grad(ours, (0, 1, 2))(w1, w2, q)
    F = torch.nn.functional
    tw1, tw2, tq = (torch.tensor(a, requires_grad=True) for a in (w1, w2, q))
    h = F.gelu(torch.tensor(x) @ tw1)
    a = F.scaled_dot_product_attention(tq, tq, tq, is_causal=True)
    expected = F.cross_entropy(F.layer_norm(h, (7,)) @ tw2, torch.tensor(labels)) + (a ** 3).sum() + tq.sort(dim=1).values[:, 0].sum()
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    for g, t in zip(grads, (tw1, tw2, tq), strict=True):
        assert np.allclose(g, t.grad.numpy(), rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------------------------ named sizes, dtypes by name


def test_named_sizes() -> None:
    @xlc.jit(dynamic={"x": {0: "n"}, "y": {0: "n"}})
    def mean_loss(w, x, y):
        return nn.cross_entropy(np.tanh(x @ w), y).mean()

    g, w = xlc.grad(mean_loss), normal(5, 4)
    for n in (1, 3, 50):
        x, y, v, h = normal(n, 5), rng.integers(0, 4, n), normal(5, 4), 1e-5
        expected = (mean_loss(w + h * v, x, y) - mean_loss(w - h * v, x, y)) / (2 * h)
        assert (g(w, x, y) * v).sum() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert mean_loss.compiles == 1 and g(w, np.zeros((0, 5)), np.zeros(0, int)).shape == (5, 4)


def test_a_dtype_by_name_means_what_it_means_to_numpy() -> None:
    for name in ("i1", "i2", "i4", "i8", "u1", "u8", "f2", "f4", "f8", "int8", "?"):
        assert xlc.spec(3, name).type.dtype.numpy == np.dtype(name)
        assert xlc.jit(lambda x, name=name: x.astype(name))(np.ones(3)).dtype == np.dtype(name)
    assert xlc.spec(3, "f32").type.dtype.numpy == np.float32 and xlc.spec(3, "bfloat16").type.dtype.name == "bf16"
