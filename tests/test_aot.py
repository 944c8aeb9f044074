"""Exported libraries, called from C programs that are compiled against the header (all warnings are errors) and from Python: equal to
``jit`` bit for bit, inside a workspace of exactly the stated size between canaries, on several threads, with named sizes, without
undefined symbols."""

from __future__ import annotations

import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import xlc
import xlc.nn as nn
from xlc.aot.interface import C_TYPES, Interface

CC = shutil.which("cc") or shutil.which("gcc")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler")
rng = np.random.default_rng(3)


def draw(*shape: int, dtype="f4") -> np.ndarray:
    return rng.normal(size=shape).astype(dtype)


def program(i: Interface, header: Path, body: str, functions: str) -> str:
    """A C program: sizes on the command line, inputs from in.bin, outputs to out.bin."""
    sizes = "".join(f"  int64_t {s} = strtoll(argv[{k + 1}], 0, 10);\n" for k, s in enumerate(i.sizes))

    def elements(p) -> str:
        return " * ".join(["(size_t)1", *(f"(size_t)({s})" for s in p.shape)])

    inputs = "".join(f"  {C_TYPES[p.dtype]} *{p.name} = get(in, {elements(p)}, sizeof *{p.name});\n" for p in i.inputs)
    outputs = "".join(f"  {C_TYPES[p.dtype]} *{p.name} = get(NULL, {elements(p)}, sizeof *{p.name});\n" for p in i.outputs)
    writes = "".join(f"  put(out, {p.name}, {elements(p)}, sizeof *{p.name});\n" for p in i.outputs)
    call = ", ".join([*i.sizes, *(p.name for p in i.inputs), *(p.name for p in i.outputs)])
    call = call + ", " if call else ""
    return f"""#include "{header.name}"
#include "{header.name}" /* twice is as once */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
enum {{ RED = 192, PAD = 64 }};
/* Memory between red zones, filled with noise. */
static void *get(FILE *f, size_t n, size_t size) {{
  unsigned char *p = aligned_alloc(64, (n * size + 2 * RED + 63) / 64 * 64);
  memset(p, 0xA5, n * size + 2 * RED);
  if (f && fread(p + RED, size, n, f) != n) exit(10);
  return p + RED;
}}
static void intact(const void *data, size_t bytes) {{
  const unsigned char *p = (const unsigned char *)data - RED;
  for (size_t k = 0; k < RED; k++) if (p[k] != 0xA5 || p[RED + bytes + k] != 0xA5) exit(11);
}}
static void put(FILE *f, const void *data, size_t n, size_t size) {{
  intact(data, n * size);
  if (fwrite(data, size, n, f) != n) exit(12);
}}
static int64_t tasks;
static void pieces(void *ctx, xlc_task task, void *closure, int64_t n) {{
  (void)ctx;
  tasks++;
  int64_t cut = n / 3;
  task(closure, cut, n); /* out of order, in uneven parts */
  task(closure, 0, cut);
}}
{functions}
int main(int argc, char **argv) {{
  (void)argc; (void)argv; (void)pieces;
  FILE *in = fopen("in.bin", "rb"), *out = fopen("out.bin", "wb");
  if (!in || !out) return 13;
{sizes}{inputs}{outputs}  size_t bytes = {i.name}_workspace_size({', '.join(i.sizes)});
  void *workspace = get(NULL, bytes, 1);
{body.replace('CALL', call)}
  intact(workspace, bytes);
{writes}  fclose(out);
  return 0;
}}
"""


PLAIN = "  int code = NAME(CALL workspace);\n  if (code) return 20 + code;"


def run_c(exported, arrays, sizes=(), body: str = PLAIN, cc_options=(), wrap=(), functions: str = "") -> list[np.ndarray]:
    """Compile and run; the outputs as arrays."""
    i, folder = exported.interface, Path(exported.library).parent
    source = folder / "main.c"
    source.write_text(program(i, exported.header, body.replace("NAME", i.name), functions))
    subprocess.run([CC, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", *cc_options, "main.c",
                    "./" + Path(exported.library).name,
                    *(["-lpthread"] if "pthread" in functions else []), "-o", "main"], cwd=folder, check=True)
    (folder / "in.bin").write_bytes(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
    done = subprocess.run([*wrap, "./main", *map(str, sizes)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    data, out, at = (folder / "out.bin").read_bytes(), [], 0
    env = dict(zip(i.sizes, sizes, strict=True))
    for p in i.outputs:
        t = p.type
        shape = tuple(s if isinstance(s, int) else s.evaluate(env) for s in t.shape)
        n = int(np.prod(shape, dtype=int))
        out.append(np.frombuffer(data, t.dtype.numpy, n, at).reshape(shape))
        at += n * t.dtype.bytes
    assert at == len(data)
    return out


def same(a, b) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def mlp(x, w1, b1, w2, b2):
    return np.maximum(x @ w1 + b1, 0) @ w2 + b2


WEIGHTS = [draw(20, 33), draw(33), draw(33, 10), draw(10)]


# ------------------------------------------------------------------------------------------------ from C


@needs_cc
@pytest.mark.parametrize("suffix", [".so", ".a", ".o"])
def test_static_mlp(tmp_path: Path, suffix: str) -> None:
    e = xlc.aot.export(mlp, [xlc.spec((7, 20), "f4"), *WEIGHTS], tmp_path / f"net{suffix}", name="mlp")
    header = e.header.read_text()
    assert "int mlp(const float *x, float *y, void *workspace);" in header and "size_t mlp_workspace_size(void);" in header
    x = draw(7, 20)
    (y,) = run_c(e, [x])
    same(y, xlc.jit(lambda x: mlp(x, *WEIGHTS))(x))


@needs_cc
def test_named_sizes(tmp_path: Path) -> None:
    e = xlc.aot.export(mlp, [xlc.spec(("batch", 20), "f4"), *WEIGHTS], tmp_path / "mlp.so")
    assert "int mlp(int64_t batch, const float *x, float *y, void *workspace);" in e.header.read_text()
    assert "size_t mlp_workspace_size(int64_t batch);" in e.header.read_text()
    f = xlc.jit(lambda x: mlp(x, *WEIGHTS), dynamic={"x": {0: "batch"}})
    for n in (0, 1, 5, 64, 131):
        x = draw(n, 20)
        same(run_c(e, [x], [n])[0], f(x))
    assert f.compiles == 1
    body = ("  if (NAME(-1, x, y, workspace) != 1) return 30;\n"
            "  if (bytes && NAME(batch, x, y, (char *)workspace + 8) != 2) return 31;\n" + PLAIN)
    run_c(e, [draw(4, 20)], [4], body)
    e = xlc.aot.export(lambda a, b: (a[1:] * b[:, None]).sum(0), [xlc.spec(("rows+1", "cols")), xlc.spec("rows")], tmp_path / "two.so",
                       name="two")
    assert "int two(int64_t cols, int64_t rows, const float *a, const float *b, float *y, void *workspace);" in e.header.read_text()
    a, b = draw(6, 3), draw(5)
    same(run_c(e, [a, b], [3, 5])[0], xlc.jit(lambda a, b: (a[1:] * b[:, None]).sum(0))(a, b))


@needs_cc
def test_every_dtype(tmp_path: Path) -> None:
    dtypes = [np.dtype(d) for d in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ml_dtypes.bfloat16)]

    def f(*xs):
        return tuple(~x if x.dtype == bool else x + x * 3 for x in xs)

    arrays = [(rng.normal(size=(3, 5)) * 20).astype(d) if d.kind != "u" else rng.integers(0, 200, (3, 5)).astype(d) for d in dtypes]
    e = xlc.aot.export(f, [xlc.spec((3, 5), d) for d in dtypes], tmp_path / "all.so", name="all_of_them")
    assert "const uint8_t *xs_0" in e.header.read_text() and "const uint16_t *xs_12" in e.header.read_text()
    for got, expected in zip(run_c(e, arrays), xlc.jit(f)(*arrays), strict=True):
        same(got, expected)


@needs_cc
def test_training_step(tmp_path: Path) -> None:
    def step(p, x, labels, rate):
        def loss(p):
            h = np.tanh(x @ p["w1"] + p["b1"])
            return nn.cross_entropy(h @ p["w2"], labels).mean()

        value, g = xlc.value_and_grad(loss)(p)
        return value, {k: p[k] - rate * g[k] for k in p}

    p = {"w1": draw(20, 33), "b1": draw(33), "w2": draw(33, 10)}
    specs = {k: xlc.spec(v.shape, v.dtype) for k, v in p.items()}
    e = xlc.aot.export(step, [specs, xlc.spec((16, 20)), xlc.spec(16, "i4"), 0.1], tmp_path / "step.so")
    assert [q.name for q in e.interface.inputs] == ["p_b1", "p_w1", "p_w2", "x", "labels"]
    assert [q.name for q in e.interface.outputs] == ["y_0", "y_1_b1", "y_1_w1", "y_1_w2"]
    x, labels = draw(16, 20), rng.integers(0, 10, 16).astype("i4")
    value, after = xlc.jit(lambda p, x, labels: step(p, x, labels, 0.1))(p, x, labels)
    got = run_c(e, [p["b1"], p["w1"], p["w2"], x, labels])
    for a, b in zip(got, [value, after["b1"], after["w1"], after["w2"]], strict=True):
        same(a, b)
    again, tree = xlc.aot.load(e.library)(p, x, labels)
    same(again, value)
    same(tree["w1"], after["w1"])


@needs_cc
def test_donated_parameters_are_updated_in_place(tmp_path: Path) -> None:
    def step(p, x):
        return p - 0.5 * (x @ p) * x

    p, x = draw(40), draw(40)
    e = xlc.aot.export(xlc.jit(step, donate="p"), [xlc.spec(40), xlc.spec(40)], tmp_path / "step.so")
    assert "int step(float *p, const float *x, float *y, void *workspace);" in e.header.read_text()
    body = "  int code = NAME(p, x, p, workspace);\n  if (code) return 20 + code;\n  memcpy(y, p, 160);"
    same(run_c(e, [p, x], body=body)[0], xlc.jit(step)(p, x))
    before = p.copy()
    same(xlc.aot.load(e.library)(p, x), xlc.jit(step)(p, x))
    same(p, before)


@needs_cc
def test_parallel_callback_and_threads(tmp_path: Path) -> None:
    def f(x, w):
        return nn.softmax(np.tanh(x) @ w).sum(1), np.exp(x)

    x, w = draw(300, 257), draw(257, 64)
    e = xlc.aot.export(f, [xlc.spec((300, 257)), w], tmp_path / "f.so")
    expected = xlc.jit(lambda x: f(x, w))(x)
    for body in ("  xlc_parallel par = {NULL, 2, pieces};\n  int code = NAME_parallel(CALL workspace, &par);\n  if (code) return 20 + "
                 "code;\n"
                 "  if (tasks == 0) return 30;", "  if (NAME_parallel(CALL workspace, NULL)) return 30;"):
        for got, want in zip(run_c(e, [x], body=body), expected, strict=True):
            same(got, want)
    body = """  {
    pthread_t other;
    struct job j = {x, get(NULL, 300, 4), get(NULL, 300 * 257, 4), get(NULL, bytes, 1), 0};
    if (pthread_create(&other, NULL, work, &j)) return 30;
    for (int k = 0; k < 20; k++) if (NAME(CALL workspace)) return 31;
    pthread_join(other, NULL);
    if (j.code || memcmp(j.y0, y_0, 300 * 4) || memcmp(j.y1, y_1, 300 * 257 * 4)) return 32;
  }"""
    functions = """#include <pthread.h>
struct job { const float *x; float *y0, *y1; void *workspace; int code; };
static void *work(void *p) {
  struct job *j = p;
  for (int k = 0; k < 20; k++) j->code |= f(j->x, j->y0, j->y1, j->workspace);
  return NULL;
}"""
    got = run_c(e, [x], body=body, functions=functions)
    same(got[0], expected[0])


@needs_cc
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")
def test_under_valgrind(tmp_path: Path) -> None:
    try:  # valgrind knows AVX2, not AVX-512
        e = xlc.aot.export(mlp, [xlc.spec(("batch", 20), "f4"), *WEIGHTS], tmp_path / "mlp.so", cpu="x86-64-v3")
    except ValueError:
        pytest.skip("not an x86 machine")
    x = draw(5, 20)
    body = "  workspace = aligned_alloc(64, bytes ? bytes : 64);\n" + PLAIN + "\n  workspace = get(NULL, bytes, 1);"
    (y,) = run_c(e, [x], [5], body, wrap=["valgrind", "-q", "--error-exitcode=99"])
    assert np.allclose(y, mlp(x, *WEIGHTS), atol=1e-5)


@needs_cc
def test_header_in_cplusplus(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    e = xlc.aot.export(lambda x, w: x * w, [xlc.spec(4), xlc.spec(4)], tmp_path / "times.so", name="times")
    (tmp_path / "main.cpp").write_text(f'#include "{e.header.name}"\nint main() {{ float x[4] = {{1, 2, 3, 4}}, y[4]; return times(x, x, '
                                       f'y, nullptr) || y[3] != 16; }}')
    subprocess.run([compiler, "-Wall", "-Werror", "main.cpp", "./times.so", "-o", "main"], cwd=tmp_path, check=True)
    assert subprocess.run(["./main"], cwd=tmp_path, check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ what is in the file


@needs_cc
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
def test_symbols_and_size(tmp_path: Path) -> None:
    w = draw(300, 200)
    e = xlc.aot.export(lambda x, w: np.exp(nn.softmax(x @ w)) + np.sin(x[:, :1]) ** 0.3, [xlc.spec(("n", 300)), w], tmp_path / "net.so",
                       name="net")
    lines = subprocess.run(["nm", "-D", e.library], capture_output=True, text=True, check=True).stdout.split("\n")
    symbols = {line.split()[-1]: line.split()[-2] for line in lines if line}
    assert symbols == dict.fromkeys(["net", "net_parallel", "net_signature", "net_workspace_size"], "T")
    data = e.library.read_bytes()
    weights = [c.value for c in e.executable.plan.constants]
    assert all(c.tobytes() in data for c in weights) and len(data) - sum(c.nbytes for c in weights) < 64 << 10
    o = xlc.aot.export(lambda x, w: x @ w, [xlc.spec(("n", 300)), w], tmp_path / "net.o", name="net")
    lines = subprocess.run(["nm", "-g", o.library], capture_output=True, text=True, check=True).stdout.split("\n")
    assert {line.split()[-1] for line in lines if line} == symbols.keys()


@needs_cc
def test_same_bytes_every_time(tmp_path: Path) -> None:
    one, two = (xlc.aot.export(mlp, [xlc.spec((3, 20), "f4"), *WEIGHTS], tmp_path / f"{k}.so",
                               name="mlp").library.read_bytes() for k in "ab")
    assert one == two


def test_cross_object(tmp_path: Path) -> None:
    e = xlc.aot.export(mlp, [xlc.spec(("batch", 20), "f4"), *WEIGHTS], tmp_path / "mlp.o", target="aarch64-unknown-linux-gnu",
                       cpu="cortex-a72")
    data = e.library.read_bytes()
    assert data[:4] == b"\x7fELF" and data[18:20] == b"\xb7\x00"  # EM_AARCH64


# ------------------------------------------------------------------------------------------------ from Python


@needs_cc
def test_load(tmp_path: Path) -> None:
    Pair = namedtuple("Pair", "low high")

    def f(p, x, flag, label=None):
        assert flag is True and label == "text" and p["none"] is None
        return {"r": Pair(x * p["w"][0], [x.sum(), (x > 0)]), "w": p["w"][1]}

    e = xlc.aot.export(f, [{"w": [xlc.spec("n", "f8"), draw(2)], "none": None}, xlc.spec("n", "f8"), True, "text"], tmp_path / "f.so")
    lib = xlc.aot.load(str(e.library))
    assert "f(f64[n], f64[n])" in repr(lib) and lib.interface.sizes == ("n",)
    w, x = draw(9, dtype="f8"), draw(9, dtype="f8")
    for got in (lib({"w": [w, None], "none": None}, x), lib(x=x[::1], p={"w": [w, None], "none": None})):
        assert type(got["r"]).__name__ == "Pair" and got["r"]._fields == ("low", "high")
        same(got["r"].low, x * w)
        assert got["r"].high[0] == pytest.approx(x.sum()) and np.array_equal(got["r"].high[1], x > 0) and got["w"].shape == (2,)
    same(lib({"w": [w[:0], None], "none": None}, x[:0])["r"].low, x[:0])
    same(lib({"w": [w, None], "none": None}, x[::-1])["r"].low, x[::-1] * w)
    for arguments, text in [(({"w": [w, None], "none": None}, x[:3]), "must have n = 9 on axis 0, found 3"), ((w, x), "nested as"),
                            ((x,), "takes"),
                            (({"w": [w, None], "none": None}, x.astype("f4")), "must be f64\\[n\\], found float32"),
                            (({"w": [w, None], "none": None}, x[None]), "found shape")]:
        with pytest.raises(xlc.XlcError, match=text) as info:
            lib(*arguments)
        assert "test_aot.py:" in str(info.value)


@needs_cc
def test_a_result_twice_an_input_unchanged_and_no_inputs(tmp_path: Path) -> None:
    lib = xlc.aot.load(xlc.aot.export(lambda x: (x, x, x * 2, x + x), [xlc.spec(5)], tmp_path / "a.so").library)
    x = draw(5)
    for got, expected in zip(lib(x), (x, x, x * 2, x + x), strict=True):
        same(got, expected)
    lib = xlc.aot.load(xlc.aot.export(lambda w: np.tanh(w), [x], tmp_path / "b.so", name="b").library)
    # what is constant is computed by the interpreter, which rounds correctly; a kernel may be one unit off
    np.testing.assert_array_max_ulp(lib(), xlc.jit(lambda w: np.tanh(w))(x), 1)


def test_errors(tmp_path: Path) -> None:
    def error(text: str, run) -> None:
        with pytest.raises(xlc.XlcError, match=text) as info:
            run()
        assert "test_aot.py:" in str(info.value)

    f, x = (lambda x: x + 1), xlc.spec(3)
    error("must end in .so, .a or .o", lambda: xlc.aot.export(f, [x], tmp_path / "f.dll"))
    error("no name for a C function", lambda: xlc.aot.export(f, [x], tmp_path / "f.o", name="a b"))
    error("no name for a C function", lambda: xlc.aot.export(f, [x], tmp_path / "f.o", name="double"))
    error("arguments as a list", lambda: xlc.aot.export(f, x, tmp_path / "f.o"))
    error("expects a function", lambda: xlc.aot.export(3, [x], tmp_path / "f.o"))
    error("x86-64-v3", lambda: xlc.aot.export(f, [x], tmp_path / "f.o", cpu="pentium7"))
    error("there is no file", lambda: xlc.aot.load(tmp_path / "absent.so"))
    (tmp_path / "empty.so").write_bytes(b"")
    error("no library that this xlc can load", lambda: xlc.aot.load(tmp_path / "empty.so"))
    (tmp_path / "other.so").write_bytes(b"\x7fELF" + bytes(5000))
    error("no library that this xlc can load", lambda: xlc.aot.load(tmp_path / "other.so"))
    error("export a .so", lambda: xlc.aot.load(xlc.aot.export(f, [x], tmp_path / "f.o", name="f").library))
    assert not list(tmp_path.glob(".*"))


def test_a_failing_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "f.so"
    old.write_bytes(b"old")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(xlc.XlcError, match="a .so needs a linker"):
        xlc.aot.export(lambda x: x + 1, [xlc.spec(3)], old, name="f")
    assert old.read_bytes() == b"old" and list(tmp_path.iterdir()) == [old]
