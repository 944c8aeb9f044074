"""The call path: every case runs on the C++ implementation and on the one in Python. Entries are small C functions, compiled here."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

from xlc.run import fallback

try:
    from xlc import _xlc
except ImportError:  # no C++ compiler where this was installed
    _xlc = None

SOURCE = r"""
#include <stdint.h>
#include <string.h>
typedef void *const *B;
typedef const int64_t *D;
int32_t add8_constant(B b, D d, void *w, const void *p) { const float *x = b[0], *y = b[2]; float *z = b[1];
  for (int i = 0; i < 8; i++) z[i] = x[i] + y[i]; return 0; }
int32_t add8(B b, D d, void *w, const void *p) { const float *x = b[0], *y = b[1]; float *z = b[2];
  for (int i = 0; i < 8; i++) z[i] = x[i] + y[i]; return 0; }
int32_t addn(B b, D d, void *w, const void *p) { const float *x = b[0], *y = b[1]; float *z = b[2];      /* z[n] = x[n] + y[n] */
  for (int64_t i = 0; i < d[0]; i++) z[i] = x[i] + y[i]; return 0; }
int32_t sub2(B b, D d, void *w, const void *p) { ((float *)b[2])[0] = ((float *)b[0])[0] - ((float *)b[1])[0]; return 0; }
int32_t copy24(B b, D d, void *w, const void *p) { memcpy(b[1], b[0], 24); return 0; }                   /* three 8-byte elements */
int32_t scalars(B b, D d, void *w, const void *p) { double *z = b[3];
  z[0] = *(int64_t *)b[0]; z[1] = *(double *)b[1]; z[2] = *(uint8_t *)b[2]; return 0; }
int32_t increment(B b, D d, void *w, const void *p) { float *x = b[0], *z = b[1];                        /* donated: z may be x */
  for (int i = 0; i < 4; i++) x[i] += 1; for (int i = 0; i < 4; i++) z[i] = x[i]; return 0; }
int32_t writes(B b, D d, void *w, const void *p) { float *x = b[0]; const float *y = b[1]; float *z = b[2];
  for (int i = 0; i < 4; i++) x[i] = -1; for (int i = 0; i < 4; i++) z[i] = y[i]; return 0; }
int32_t fails(B b, D d, void *w, const void *p) { return 7; }
int32_t bad_size(B b, D d, void *w, const void *p) { return 1; }
int32_t nothing(B b, D d, void *w, const void *p) { return 0; }
int32_t work(B b, D d, void *w, const void *p) { if ((uintptr_t)w % 64) return 9; memset(w, 1, 1000); *(int64_t *)b[0] = w != 0; return 0; }
int32_t workn(B b, D d, void *w, const void *p) { memset(w, 1, 8 * d[0]); *(int64_t *)b[1] = d[0]; return 0; }
int64_t workn_size(D d) { return 8 * d[0]; }
int32_t threads(B b, D d, void *w, const int64_t *p) { *(int64_t *)b[0] = p ? p[1] : 0; return 0; }
int32_t dims(B b, D d, void *w, const void *p) { memcpy(b[2], d, 16); return 0; }
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entries")
    (folder / "entries.c").write_text(SOURCE)
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-o", folder / "entries.so", folder / "entries.c"], check=True)
    return ctypes.CDLL(str(folder / "entries.so"))


@pytest.fixture
def address(library):
    return lambda name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value


@pytest.fixture(params=["native", "python"])
def impl(request):
    if request.param == "native" and _xlc is None:
        pytest.skip("the C++ extension is not installed")
    return _xlc if request.param == "native" else fallback


F4, F8, I8 = np.float32, np.float64, np.int64
LEAF = ("leaf", 0)


class Table:
    """A dispatcher whose miss records its calls and adds what `make(args, kwargs)` gives (None: answers "slow")."""

    def __init__(self, impl, make, **options):
        self.misses, self.make = [], make
        self.f = impl.Dispatcher(self.miss, **options)
        self.retry = impl.RETRY

    def miss(self, args, kwargs):
        self.misses.append((args, kwargs))
        executable = self.make(args, kwargs)
        return "slow" if executable is None or self.f.add(args, kwargs, executable) is None else self.retry


def adder(impl, address, **options):
    return impl.Executable(address("add8"), params=[0, 1], results=[(F4, (8,))], out_tree=LEAF, name="add8", **options)


def taker(impl, address, leaves, results=1, **options):
    """Takes that many leaves, does nothing with them."""
    options = {"results": [(F4, ())] * results, "out_tree": ("none",), **options}
    return impl.Executable(address("nothing"), params=[-1] * leaves, **options)


# ---- calls and signatures ----


def test_call_after_one_miss(impl, address):
    executable = adder(impl, address)
    table = Table(impl, lambda a, k: executable)
    x, y = np.arange(8, dtype=F4), np.ones(8, F4)
    for _ in range(3):
        z = table.f(x, y)
        assert type(z) is np.ndarray and z.dtype == F4 and z.flags.c_contiguous and z.flags.writeable
        np.testing.assert_array_equal(z, x + y)
    assert len(table.misses) == 1 and executable.calls == 3
    assert table.misses[0][0][0] is x and table.misses[0][1] == {}
    assert table.f.executables() == [executable] and table.f.find((x, y), {}) is executable and table.f.find((x,), {}) is None
    table.f.clear()
    assert table.f.executables() == [] and table.f.find((x, y), {}) is None


Point = namedtuple("Point", "x y")
Other = namedtuple("Other", "x y")
A = np.zeros(3, F4)

DISTINCT = [  # no two of these share a signature
    (), (A,), (A, A), (A[:2],), (A.reshape(3, 1),), (A.reshape(1, 3),), (A.astype(F8),), (A.astype(np.float16),),
    (A.astype(ml_dtypes.bfloat16),), (A.astype(np.int8),), (A.astype(np.uint8),), (A.astype(np.bool_),), (A.astype(np.complex64),),
    (A[0],), (A.astype(F8)[0],),
    (1,), (1.0,), (True,), (1j,), (None,), ((A,),), ([A],), ((A, A),), (((A,), A),), ((A, (A,)),), ({"a": A},), ({"b": A},), ({1: A},),
    ({"a": A, "b": A},), (Point(A, A),), (Other(A, A),), ({},), ((),), ([],), (A.astype(ml_dtypes.bfloat16)[0],), (A, None), (None, A),
]


def test_signatures_are_distinct(impl, address):
    table = Table(impl, lambda a, k: taker(impl, address, leaves((a, k))))
    for i, args in enumerate(DISTINCT):
        assert table.f(*args) is None
        assert len(table.misses) == i + 1, f"{args} has the signature of an earlier one"
    for args in DISTINCT:
        assert table.f(*args) is None
    assert len(table.misses) == len(DISTINCT)
    for args in DISTINCT:
        table.f(x=args)
    assert len(table.misses) == 2 * len(DISTINCT)
    table.f(y=A), table.f(z=A)
    assert len(table.misses) == 2 * len(DISTINCT) + 2


def leaves(value):
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(leaves, value))
    return 0 if value is None else 1


def test_what_shares_a_signature(impl, address):
    table = Table(impl, lambda a, k: taker(impl, address, 1))
    base = np.arange(12, dtype=F4)
    readonly = base[:3].copy()
    readonly.flags.writeable = False
    for x in (A, base[::4], base[2::-1], readonly, A.astype(">f4"), np.broadcast_to(F4(1), (3,))):
        table.f(x)
    assert len(table.misses) == 1
    table.f(F4(1)), table.f(np.array(1, F4))
    assert len(table.misses) == 2
    table.f(3), table.f(-(2**63)), table.f(2**63 - 1)
    assert len(table.misses) == 3
    table.f(np.zeros(3, np.longlong)), table.f(np.zeros(3, np.int64))
    assert len(table.misses) == 4
    table.f({"".join(["k", "ey"]): A}), table.f({"key": A})  # two strings, equal
    assert len(table.misses) == 5


def test_long_signatures(impl, address):
    big = {f"k{i}": [np.zeros((2, 3), F4), {"x": (1, 2.0, None)}] for i in range(300)}
    table = Table(impl, lambda a, k: taker(impl, address, 900))
    table.f(big), table.f(dict(reversed(big.items()))), table.f(big)
    assert len(table.misses) <= 2  # in C, another order of insertion is another signature of the same executable
    big["k299"][0] = np.zeros((2, 4), F4)
    table.f(big)
    assert len(table.misses) <= 3 and len(table.misses[-1][0]) == 1 and table.misses[-1][0][0] is big


@dataclass
class Data:
    x: object


class Sub(np.ndarray):
    pass


def deep(n):
    value = A
    for _ in range(n):
        value = [value]
    return value


NOT_FAST = [object(), "text", Data(A), OrderedDict(a=A), A.view(Sub), np.ma.array([1.0]), np.array(["s"]), np.array([None]),
            np.array("2020-01-01", "M8[D]"), np.float64("nan").astype("m8[s]"), 2**63, -(2**63) - 1, {(1, 2): A}, {True: A}, {2**70: A},
            deep(300)]


@pytest.mark.parametrize("value", NOT_FAST, ids=lambda v: type(v).__name__)
def test_what_is_not_fast_goes_to_miss(impl, address, value):
    table = Table(impl, lambda a, k: taker(impl, address, 1))
    for args in ((value,), (A, [value]), ({"a": value},)):
        assert table.f(*args) == "slow" and table.f(*args) == "slow" and table.f(1, k=args) == "slow"
        assert table.f.find(args, {}) is None
    assert table.f.executables() == []


def test_miss_decides(impl, address):
    executable = adder(impl, address)
    x = np.ones(8, F4)
    answers = iter([None, 5, impl.RETRY, ValueError("no")])

    def miss(args, kwargs):
        assert args == (1,) and kwargs == {"k": 2}
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    f = impl.Dispatcher(miss)
    assert f(1, k=2) is None and f(1, k=2) == 5
    with pytest.raises(RuntimeError, match="added nothing"):
        f(1, k=2)
    with pytest.raises(ValueError, match="no"):
        f(1, k=2)
    f.add((x, x), {}, executable)
    f.miss = lambda a, k: "slow"
    assert isinstance(f(x, x), np.ndarray)
    f.slow = True
    assert f(x, x) == "slow"
    with pytest.raises(ValueError, match="takes 2 leaves"):
        f.add((x,), {}, executable)
    other = adder(impl, address)
    f.slow = False
    assert f.add((x, x), {}, other) is impl.RETRY and f.executables() == [other]


def test_leaf_order_is_sorted(impl, address):
    """Whatever the order of keys and keywords, leaf 0 is the first in sorted order."""
    executable = impl.Executable(address("sub2"), params=[0, 1], results=[(F4, ())], out_tree=LEAF)
    table = Table(impl, lambda a, k: executable)
    five, three = np.array(5, F4), np.array(3, F4)
    assert table.f({"a": five, "b": three}) == 2 and table.f({"b": three, "a": five}) == 2 and table.f({"b": five, "a": three}) == -2
    assert table.f(a=five, b=three) == 2 and table.f(b=three, a=five) == 2
    assert table.f({2: three, 1: five}) == 2
    assert table.f({"z": [], "b": three, "a": (five,)}) == 2
    assert table.f({"b": {"y": three}, "a": {"x": five}}) == 2 and table.f({"o": {"y": three, "x": five}}) == 2
    assert table.f({"y": three, 1: five}) == -2  # not comparable: order of insertion
    assert table.f(b={"q": three}, a=five) == 2


def test_static_arguments(impl, address):
    table = Table(impl, lambda a, k: taker(impl, address, 1), static_argnums=(1,), static_argnames=("mode",))
    calls = [((A, "x"), {}), ((A, "y"), {}), ((A, 1), {}), ((A, 1.0), {}), ((A, True), {}),
             ((A,), {"mode": "x"}), ((A,), {"mode": ("x", 2)})]
    for args, kwargs in calls:
        table.misses.clear()
        assert table.f(*args, **kwargs) is None and table.f(*args, **kwargs) is None
        assert len(table.misses) == 1 and table.misses[0] == (args, kwargs)
    assert table.f(A, []) == "slow" and table.f(A, mode={}) == "slow"  # no hash

    class Odd:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            raise ValueError("never equal")

    table.misses.clear()
    odd = Odd()
    table.f(A, odd), table.f(A, odd)
    if impl is _xlc:
        table.f(A, Odd())  # what cannot be compared is not equal
        assert len(table.misses) == 2


def test_static_value_is_compared_not_only_hashed(impl, address):
    class Same:
        def __init__(self, v):
            self.v = v

        def __hash__(self):
            return 0

        def __eq__(self, other):
            return self.v == other.v

    table = Table(impl, lambda a, k: taker(impl, address, 0), static_argnums=(0,))
    for i in range(5):
        table.f(Same(i)), table.f(Same(i))
    assert len(table.misses) == 5


def test_context_is_part_of_the_signature(impl, address):
    table = Table(impl, lambda a, k: taker(impl, address, 1))
    table.f(A)
    try:
        impl.set_context(3)
        table.f(A), table.f(A)
        assert len(table.misses) == 2 and impl.get_context() == 3
        seen = []
        thread = threading.Thread(target=lambda: seen.append(impl.get_context()))
        thread.start(), thread.join()
        assert seen == [0]
        impl.set_context(None)
        table.f(A)
        impl.set_default_context(8)
        table.f(A)
        assert len(table.misses) == 3 and impl.get_context() == 8
    finally:
        impl.set_context(None), impl.set_default_context(0)


def test_it_behaves_as_a_function(impl, address):
    class Owner:
        """what it does"""
        compiles = 4

        def __repr__(self):
            return "<owner>"

    executable = adder(impl, address)
    f = impl.Dispatcher(lambda a, k: f.add(a, k, executable), owner=Owner())
    assert f.compiles == 4 and repr(f) == "<owner>"
    f.extra = 1
    assert f.extra == 1 and f.owner.compiles == 4
    with pytest.raises(AttributeError, match="nosuch"):
        _ = f.nosuch
    f.__doc__, f.__name__ = "mine", "f"
    assert f.__doc__ == "mine" and f.__name__ == "f"

    class Model:
        run = impl.Dispatcher(lambda a, k: (a, k))

    model = Model()
    assert model.run(1, k=2) == ((model, 1), {"k": 2}) and Model.run(3) == ((3,), {})


# ---- inputs ----


@pytest.mark.parametrize("make", [
    lambda x: x, lambda x: np.stack([x, x], 1)[:, 0], lambda x: x[::-1].copy()[::-1], lambda x: x.astype(">i8"),
    lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(I8),
    lambda x: np.asfortranarray(x.reshape(3, 1)).T.reshape(3)], ids=range(6))
def test_inputs_of_any_layout(impl, address, make):
    x = np.array([1, 2**40, -3])
    executable = impl.Executable(address("copy24"), params=[0], results=[(I8, (3,))], out_tree=LEAF)
    table = Table(impl, lambda a, k: executable)
    given = make(x)
    np.testing.assert_array_equal(given, x)
    np.testing.assert_array_equal(table.f(given), x)
    np.testing.assert_array_equal(table.f(given), x)
    np.testing.assert_array_equal(given, x)


def test_python_and_numpy_scalars(impl, address):
    executable = impl.Executable(address("scalars"), params=[0, 1, 2], results=[(F8, (3,))], out_tree=LEAF)
    table = Table(impl, lambda a, k: executable)
    assert table.f(-5, 2.5, True).tolist() == [-5, 2.5, 1]
    assert table.f(7, -0.5, False).tolist() == [7, -0.5, 0]
    assert table.f(np.int64(3), np.float64(4.5), np.bool_(True)).tolist() == [3, 4.5, 1]
    assert table.f(np.array(3), np.array(1.5), np.array(True)).tolist() == [3, 1.5, 1]
    assert len(table.misses) == 2


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", ml_dtypes.bfloat16])
def test_scalars_of_every_dtype(impl, address, dtype):
    dtype = np.dtype(dtype)
    memcpy = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        lambda b, d, w, p: ctypes.memmove(b[1], b[0], dtype.itemsize) and 0)
    executable = impl.Executable(ctypes.cast(memcpy, ctypes.c_void_p).value, params=[0], results=[(dtype, ())], out_tree=LEAF,
                                 keepalive=memcpy)
    table = Table(impl, lambda a, k: executable)
    for v in (np.array([1], dtype)[0], np.array([0], dtype)[0], np.array(1, dtype), np.array([[1]], dtype)[0, 0]):
        result = table.f(v)
        assert result.shape == () and result.dtype == dtype and result == v
    assert len(table.misses) == 1


def test_constants_and_unused_leaves(impl, address):
    y = np.arange(16, dtype=F4)[::2]
    executable = impl.Executable(address("add8_constant"), params=[-1, 0, -1], constants=[y], results=[(F4, (8,))], out_tree=LEAF)
    x = np.ones(8, F4)
    np.testing.assert_array_equal(executable("".__len__(), x, None is None), x + y)
    with pytest.raises(TypeError, match="takes 3 leaves, 1 were given"):
        executable(x)


def test_flat_calls(impl, address):
    executable = adder(impl, address)
    x = np.ones(8, F4)
    np.testing.assert_array_equal(executable.call_flat([x, x]), 2 * x)
    (z,) = executable.run_flat((x, x))
    np.testing.assert_array_equal(z, 2 * x)
    np.testing.assert_array_equal(executable(x.tolist() and x, x), 2 * x)
    assert executable.calls == 3 and executable.params == (0, 1) and executable.name == "add8" and "add8" in repr(executable)
    with pytest.raises(TypeError):
        executable(np.array(["s"]), x)


# ---- results ----


def test_out_trees(impl, address):
    marker = object()
    tree = ("dict", ["p", "q"], [("tuple", [("leaf", 1), ("none",), ("list", [("leaf", 0), ("leaf", 0)])]),
                                 ("call", Point, [("const", marker), ("dict", (), [])])])
    executable = impl.Executable(address("nothing"), params=[], results=[(F4, (2,)), (I8, ())], out_tree=tree)
    out = executable()
    assert list(out) == ["p", "q"] and type(out["p"]) is tuple and out["p"][0].dtype == I8 and out["p"][1] is None
    assert type(out["p"][2]) is list and out["p"][2][0] is out["p"][2][1] and out["p"][2][0].shape == (2,)
    assert type(out["q"]) is Point and out["q"].x is marker and out["q"].y == {}
    assert executable.out_tree is tree
    for bad in [("leaf", 2), ("leaf",), ("what", 1), ("dict", ["a"], []), ("tuple", [("leaf", 9)])]:
        with pytest.raises(ValueError):
            impl.Executable(address("nothing"), params=[], results=[(F4, (2,)), (I8, ())], out_tree=bad)

    def explode(*_):
        raise KeyError("constructor")

    executable = taker(impl, address, 0, out_tree=("tuple", [LEAF, ("call", explode, [LEAF])]))
    with pytest.raises(KeyError, match="constructor"):
        executable()


def test_results_of_every_shape(impl, address):
    shapes = [(), (0,), (3, 0, 2), (1, 1), (70_000,), (3, 1 << 20), (1 << 15,)]
    executable = impl.Executable(address("nothing"), params=[], results=[(F4, s) for s in shapes],
                                 out_tree=("list", [("leaf", i) for i in range(len(shapes))]))
    for _ in range(3):
        out = executable()
        assert [x.shape for x in out] == shapes
        for x in out:
            assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned
            x[...] = 1
            if x.nbytes >= 1 << 16:
                assert x.ctypes.data % 64 == 0
    starts = sorted((x.ctypes.data, x.nbytes) for x in out if x.size)
    assert all(a + n <= b for (a, n), (b, _) in zip(starts, starts[1:], strict=False))


def test_malformed_descriptions(impl, address):
    good = {"params": [0, 1], "results": [(F4, (8,))], "out_tree": LEAF}
    impl.Executable(address("add8"), **good)
    for change in [{"params": [0, 2]}, {"params": [0, 0]}, {"params": [0, -2]}, {"results": [(F4, (-1,))]}, {"results": [(object, ())]},
                   {"results": [(F4, ([(1, [(0, 1)])],))]}, {"dims": [[(5, 0)]]}, {"dims": [[]]}, {"dims": [[(0, -1)]]}, {"donate": [2]},
                   {"alias": {0: 9}},
                   {"alias": {3: 0}}, {"checks": [(0, 0, [(1, [(0, 1)])])]}, {"dims": [[(0, 0)]], "results": [(F4, ([(1, [(0, 0)])],))]}]:
        with pytest.raises(ValueError):
            impl.Executable(address("add8"), **{**good, **change})
    with pytest.raises(ValueError):
        impl.Executable(0, **good)
    with pytest.raises(TypeError):
        impl.Executable(address("add8"), params=[0, 1])


# ---- symbolic sizes ----


def d(*terms):
    return [(c, [*f]) for c, f in terms]


N = d((1, [(0, 1)]))


def symbolic(impl, address, **options):
    description = {"params": [0, 1], "results": [(F4, (N,))], "out_tree": LEAF, "dims": [[(0, 0), (1, 0)]]}
    return impl.Executable(address("addn"), **{**description, **options})


def test_one_executable_for_every_size(impl, address):
    executable = symbolic(impl, address)
    table = Table(impl, lambda a, k: executable if len(a[0]) == len(a[1]) else None)
    for n in (5, 1, 0, 100, 7, 100_000):
        x = np.arange(n, dtype=F4)
        np.testing.assert_array_equal(table.f(x, x), 2 * x)
        np.testing.assert_array_equal(table.f(x, x), 2 * x)
    assert len(table.misses) == 1
    assert table.f(np.zeros(3, F4), np.zeros(4, F4)) == "slow"  # the same name, two sizes
    assert table.f(np.zeros(3, F8), np.zeros(3, F8)) is not None and len(table.misses) == 3
    with pytest.raises(ValueError, match="same name"):
        executable(np.zeros(3, F4), np.zeros(4, F4))


def test_exact_comes_before_symbolic(impl, address):
    f = impl.Dispatcher(lambda a, k: "miss")
    exact, any_size = adder(impl, address), symbolic(impl, address)
    x, y = np.ones(8, F4), np.ones(9, F4)
    f.add((y, y), {}, any_size), f.add((x, x), {}, exact)
    f(x, x), f(x, x)
    assert exact.calls == 2
    f(y, y), f(y, y)
    assert any_size.calls == 2 and len(f.executables()) == 2


def test_symbolic_leaves_in_another_order(impl, address):
    executable = symbolic(impl, address)
    table = Table(impl, lambda a, k: executable)
    for n in (3, 4):
        x, y = np.ones(n, F4), np.arange(n, dtype=F4)
        np.testing.assert_array_equal(table.f({"b": y, "a": x}), x + y)
        np.testing.assert_array_equal(table.f(b=y, a=x), x + y)
    assert len(table.misses) == 2


def test_expressions(impl, address):
    """dims a, b; results of sizes a*b+3, a**2, a//b, 7, -(-a//2)."""
    a, b = (0, 1), (1, 1)
    da, db = d((1, [a])), d((1, [b]))
    shape = (d((1, [a, b]), (3, [])), d((1, [(0, 2)])), d((1, [((da, db), 1)])), 7, d((-1, [((d((-1, [a])), 2), 1)])))
    executable = impl.Executable(address("nothing"), params=[0, 1], results=[(np.int8, shape)], out_tree=LEAF,
                                 dims=[[(0, 0)], [(1, 1)]], checks=[(1, 0, d((2, [a]), (1, [])))])
    table = Table(impl, lambda a, k: executable if a[1].shape[0] == 2 * len(a[0]) + 1 else None)
    for m, n in [(5, 2), (3, 4), (1, 1)]:
        assert table.f(np.zeros(m, F4), np.zeros((2 * m + 1, n), F4)).shape == (m * n + 3, m**2, m // n, 7, -(-m // 2))
    assert len(table.misses) == 1
    assert table.f(np.zeros(3, F4), np.zeros((8, 2), F4)) == "slow"
    negative = impl.Executable(address("nothing"), params=[0], results=[(F4, (d((1, [a]), (-3, [])),))], out_tree=LEAF, dims=[[(0, 0)]])
    assert negative(np.zeros(3, F4)).shape == (0,)
    with pytest.raises(ValueError, match="size -1"):
        negative(np.zeros(2, F4))


def test_dims_reach_the_entry(impl, address):
    executable = impl.Executable(address("dims"), params=[0, 1], results=[(I8, (2,))], out_tree=LEAF, dims=[[(1, 1)], [(0, 0)]])
    assert executable(np.zeros(4, F4), np.zeros((1, 9), F4)).tolist() == [9, 4]
    with pytest.raises(ValueError, match="no axis"):
        impl.Dispatcher(lambda a, k: 0).add((A, A), {}, executable)
    with pytest.raises(ValueError):
        executable(1.0, 2.0)


# ---- workspace, pool, errors ----


def test_workspace(impl, address):
    for _ in range(3):
        assert impl.Executable(address("work"), params=[], results=[(I8, ())], out_tree=LEAF, workspace=1000)() == 1
    executable = impl.Executable(address("workn"), params=[0], results=[(I8, ())], out_tree=LEAF, dims=[[(0, 0)]],
                                 workspace_function=address("workn_size"))
    for n in (3, 1 << 20, 0, 2):
        assert executable(np.empty(n, np.int8)) == n
    executable = impl.Executable(address("work"), params=[], results=[(I8, ())], out_tree=LEAF, workspace=300 << 20)
    assert executable() == 1


def test_pool_is_given(impl, address):
    options = {"params": [], "results": [(I8, ())], "out_tree": LEAF}
    assert impl.Executable(address("threads"), **options)() == (impl.pool_threads() if impl.NATIVE else 0)
    assert impl.Executable(address("threads"), parallel=False, **options)() == 0


@pytest.mark.parametrize("release_gil", [False, True])
def test_errors_of_the_entry(impl, address, release_gil):
    executable = impl.Executable(address("fails"), params=[0], results=[(F4, (100_000,))] * 2, out_tree=LEAF, name="demo",
                                 release_gil=release_gil)
    table = Table(impl, lambda a, k: executable)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="demo failed with code 7"):
            table.f(A)
    with pytest.raises(RuntimeError, match="bad symbolic size"):
        impl.Executable(address("bad_size"), params=[], results=[], out_tree=("none",))()


# ---- donation ----


def donor(impl, address, **options):
    return impl.Executable(address("increment"), **{"params": [0], "results": [(F4, (4,))], "out_tree": LEAF, "alias": {0: 0}, **options})


def test_a_donated_array_becomes_the_result(impl, address):
    table = Table(impl, lambda a, k: donor(impl, address))
    x = np.zeros(4, F4)
    y = table.f(x)
    assert y is not x and np.shares_memory(x, y) and y.base is x and y.tolist() == [1] * 4
    for _ in range(5):
        y = table.f(y)
    assert y.tolist() == [6] * 4 and np.shares_memory(x, y)
    del x
    gc.collect()
    assert y.tolist() == [6] * 4


def test_what_cannot_be_donated_is_copied(impl, address):
    table = Table(impl, lambda a, k: donor(impl, address))
    readonly = np.zeros(4, F4)
    readonly.flags.writeable = False
    for x in (readonly, np.zeros(8, F4)[::2], np.zeros(4, ">f4"), np.broadcast_to(F4(0), (4,))):
        y = table.f(x)
        assert not np.shares_memory(x, y) and y.tolist() == [1] * 4 and x.tolist() == [0] * 4 and y.flags.writeable


def test_a_donated_array_that_is_also_another_argument(impl, address):
    executable = impl.Executable(address("writes"), params=[0, 1], results=[(F4, (4,))], out_tree=LEAF, donate=[0])
    table = Table(impl, lambda a, k: executable)
    memory = np.arange(8, dtype=F4)
    for x, y in [(memory[:4], memory[:4]), (memory[:4], memory[2:6]), (memory[2:6], memory[:4]), (memory[:4], memory[3:7])]:
        before = y.copy()
        np.testing.assert_array_equal(table.f(x, y), before)
        np.testing.assert_array_equal(memory, np.arange(8))
    table.f(memory[:4], memory[4:])
    assert memory[0] == -1


def test_donated_scalars_and_sizes(impl, address):
    executable = impl.Executable(address("nothing"), params=[0], results=[(F8, ())], out_tree=LEAF, alias={0: 0})
    assert executable(2.5) == 2.5 and executable(np.float64(3)) == 3
    too_small = donor(impl, address, results=[(F4, (5,))])
    with pytest.raises(ValueError, match="does not fit"):
        too_small(np.zeros(4, F4))
    other = impl.Executable(address("nothing"), params=[0], results=[(np.int16, (2, 4))], out_tree=LEAF, alias={0: 0})
    assert other(np.zeros(4, F4)).shape == (2, 4)


# ---- memory, references, threads ----


def test_references(impl, address):
    executable = impl.Executable(address("add8"), params=[0, 1], results=[(F4, (8,))], out_tree=("dict", ["k"], [LEAF]))
    table = Table(impl, lambda a, k: executable if "q" not in k else None, static_argnames=("s", "q"))
    x, y, static = np.ones(8, F4), np.ones(16, F4)[::2], (1, "static")
    named = Point(x, y)
    watched = [x, y, named, static, static[1], executable, Point, F4, np.dtype(F4), table.f, table.f.miss]

    def calls(n):
        for _ in range(n):
            table.f(x, y), table.f(named), table.f({"b": y, "a": x}), table.f([x, (y, None)], s=static)
            table.f(x, y, q=static), table.f(x, object()), table.f.find((x, y), {}), table.f.add((x, y), {}, executable)
            executable(x, y), executable.run_flat([x, y])
            with pytest.raises(TypeError):
                executable(x)

    calls(1)
    table.misses.clear()
    gc.collect()  # what earlier tests left behind holds references to types
    before = [sys.getrefcount(o) for o in watched]
    calls(200)
    table.misses.clear()
    gc.collect()
    grown = [(o, a, b) for o, a, b in zip(watched, before, [sys.getrefcount(o) for o in watched], strict=True) if abs(a - b) > 2]
    assert not grown


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_does_not_grow(impl, address):
    f = Table(impl, lambda a, k: adder(impl, address)).f
    fails = impl.Executable(address("fails"), params=[0], results=[(F4, (8,)), (F4, (20_000,))], out_tree=LEAF)
    x, strided = np.ones(8, F4), np.ones(16, F4)[::2]

    def calls(n):
        for _ in range(n):
            f(x, strided), f(x, x)
            with pytest.raises(RuntimeError):
                fails(x)

    calls(2000)
    gc.collect()
    before = resident()
    calls(30_000 if impl is _xlc else 2000)
    gc.collect()
    assert resident() - before < 4 << 20


def test_garbage_is_collected(impl, address):
    import weakref

    def cycle():
        f = impl.Dispatcher(lambda a, k: f)
        executable = impl.Executable(address("nothing"), params=[0], results=[], out_tree=("const", f), keepalive=f)
        f.add((A,), {}, executable)
        f.me = f
        assert f(A) is f
        return weakref.ref(f)

    refs = [cycle() for _ in range(10)]
    gc.collect()
    assert all(r() is None for r in refs)


@pytest.mark.skipif(_xlc is None, reason="the C++ extension is not installed")
def test_dead_results_are_recycled(address):
    _xlc.trim_memory()
    before = _xlc.memory_stats()
    assert before["cached"] == 0
    executable = _xlc.Executable(address("nothing"), params=[], results=[(F4, (3 << 20,))], out_tree=LEAF)
    x = executable()
    assert _xlc.memory_stats()["live"] - before["live"] >= x.nbytes
    x[:], place = 1, x.ctypes.data
    view = x[5:]
    del x
    assert _xlc.memory_stats()["cached"] == 0  # the view holds it
    del view
    assert _xlc.memory_stats()["cached"] > 0
    y = executable()
    assert y.ctypes.data == place and _xlc.memory_stats()["cached"] == 0
    del y
    assert _xlc.trim_memory() >= 12 << 20 and _xlc.memory_stats()["cached"] == 0 and _xlc.memory_stats()["live"] == before["live"]
    many = [executable() for _ in range(4)]
    many.clear()
    assert _xlc.memory_stats()["cached"] <= 1 << 30
    _xlc.trim_memory()


def test_many_threads(impl, address):
    table = Table(impl, lambda a, k: symbolic(impl, address))
    errors = []

    def run(seed):
        rng = np.random.default_rng(seed)
        try:
            for i in range(300):
                n = int(rng.integers(0, 40)) * (1000 if i % 50 == 0 else 1)
                x = rng.random(n, F4)
                y = table.f(x, x)
                np.testing.assert_array_equal(y, x + x)
                if i % 40 == 0:
                    table.f.clear()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    # a table that another thread clears between add and the second look is allowed to say so
    assert all("added nothing" in str(e) for e in errors), errors


def test_reentrance(impl, address):
    """An entry that comes back to Python and calls another executable: each has its own workspace."""
    inner = impl.Executable(address("work"), params=[], results=[(I8, ())], out_tree=LEAF, workspace=1000)

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    def entry(buffers, dims, workspace, par):
        ctypes.memset(workspace, 5, 1000)
        assert inner() == 1
        return 0 if ctypes.string_at(workspace, 1000) == b"\5" * 1000 else 3

    outer = impl.Executable(ctypes.cast(entry, ctypes.c_void_p).value, params=[], results=[], out_tree=("none",), workspace=1000,
                            keepalive=entry)
    for _ in range(3):
        assert outer() is None


def test_python_calls_are_said_once(tmp_path):
    """Without the extension the package works, and warns once."""
    code = ("import sys, warnings; sys.modules['xlc._xlc'] = None\n"
            "with warnings.catch_warnings(record=True) as w:\n"
            "    warnings.simplefilter('always'); import xlc.run.native as n; import xlc.run.native\n"
            "assert len([x for x in w if 'C++ extension' in str(x.message)]) == 1, w\nassert not n.NATIVE and n.pool_address() == 0")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_speed(impl, address, capsys):
    """Printed, not judged (pytest -s -k speed)."""
    import timeit

    executable = adder(impl, address, release_gil=False)
    f = Table(impl, lambda a, k: executable).f
    x = np.ones(8, F4)
    f(x, x)
    for what, call in [("call of two arrays", lambda: f(x, x)), ("x * x + x", lambda: x * x + x)]:
        print(f"{impl.__name__}: {what}: {min(timeit.repeat(call, number=2000, repeat=5)) / 2000 * 1e6:.2f} us")


@pytest.mark.skipif(_xlc is None, reason="the C++ extension is not installed")
def test_the_workspace_is_kept_between_calls_until_memory_is_trimmed(address):
    size = 300 << 20  # never touched: this costs addresses, not memory
    executable = _xlc.Executable(address("nothing"), params=[], results=[(F4, (1,))], out_tree=LEAF, workspace=size)
    _xlc.trim_memory()
    executable()
    assert _xlc.trim_memory() >= size and _xlc.trim_memory() == 0
