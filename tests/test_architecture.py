"""The shape of the source: who imports whom, how long files are, how many of them know an operator by name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import xlc.ops  # noqa: F401  (fills the table)
from xlc.ir.op import OPS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "xlc"

# Each part may import only from those before it, when it is itself imported.
ORDER = (
    "errors",
    "config",
    "ir",
    "ops",
    "transform",
    "passes",
    "schedule",
    "observe",
    "backends",
    "_xlc",
    "run",
    "pipeline",
    "frontend",
    "tree",
    "debug",
    "numpy",
    "random",
    "nn",
    "optim",
    "train",
    "importers",
    "aot",
    "tools",
    "__main__",
    "__init__",
)
# Imports against the order, made inside functions when they are needed.
LATER = {
    ("ops", "transform"): "rules of control flow are transforms of the graphs that its nodes hold",
    ("ir", "ops"): "looking an operator up fills the table, whoever asks first",
    ("observe", "run"): "comparing launches with the interpreter, when the knob check asks for it",
    ("observe", "tools"): "timing kernels, when the knob debug asks for it",
    ("run", "pipeline"): "the stages of a program that came from the cache are made when somebody looks at them",
    ("frontend", "numpy"): "methods of traced values are functions of xlc.numpy, which is written with the front end",
}
# Longer than 400 lines, and why.
LONG = {
    "xlc/ir/loops.py": "everything that a kernel is made of",
    "xlc/ir/parse_kernel.py": "the parsers of kernels and plans share their tokens",
    "xlc/ir/text.py": "graphs, kernels and plans print alike",
    "xlc/frontend/array.py": "every operator and method of an array",
    "xlc/frontend/jit.py": "one class, whose parts share its state",
    "xlc/numpy/shape.py": "thirty short functions of one namespace",
    "xlc/ir/verify.py": "the verifiers of graphs, kernels and plans are to be read together",
    "xlc/run/fallback.py": "the call path once more, in Python, for machines without a C++ compiler",
    "xlc/ir/prove.py": "one prover, whose rules are tried in turn",
    "csrc/dispatcher.cpp": "the call path, in one translation unit so that it is inlined",
}
LIMIT, TEST_LIMIT = 400, 800

# Operators that the compiler itself is woven from: arithmetic of addresses, bounds and reductions; views; leaves.
# All others it meets as data.
WOVEN = frozenset(
    [
        *("const", "var", "size", "load", "parameter", "constant", "full", "iota", "copy"),
        *("broadcast", "transpose", "reshape", "slice", "pad", "concat", "index"),
        *("add", "subtract", "multiply", "divide", "negative", "minimum", "maximum", "fma", "where", "cast", "sqrt"),
        *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "floor_divide", "remainder"),
        *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "bitwise_left_shift", "bitwise_right_shift"),
        *("logical_and", "logical_or", "logical_not", "sum", "prod", "max", "min", "any", "all"),
        "lookup",  # its table is a constant of the module, which is for an emitter to place
    ]
)
COMPILER = ("ir", "transform", "passes", "schedule", "backends", "run", "observe.py", "pipeline.py", "aot", "tools")


@cache
def sources() -> dict[str, ast.Module]:
    return {str(f.relative_to(ROOT)): ast.parse(f.read_text("utf-8")) for f in sorted(PACKAGE.rglob("*.py"))}


def part(module: str) -> str:
    return (module.split(".") + ["__init__"])[1]


def imports(path: str) -> Iterator[tuple[str, bool]]:
    """The parts of xlc that a file imports, and whether only inside a function (or for type checking)."""
    tree = sources()[path]
    inside = {
        id(m)
        for n in ast.walk(tree)
        if isinstance(n, (ast.FunctionDef, ast.Lambda)) or (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))
        for m in ast.walk(n)
    }
    package = path.removesuffix(".py").split("/")[:-1]
    for n in ast.walk(tree):
        names: list[str] = []
        if isinstance(n, ast.Import):
            names = [a.name for a in n.names]
        elif isinstance(n, ast.ImportFrom):
            base = package[: len(package) - n.level + 1] if n.level else []
            module = ".".join([*base, *([n.module] if n.module else [])])
            names = [f"xlc.{a.name}" for a in n.names] if module == "xlc" else [module]
        for name in names:
            if name.split(".")[0] == "xlc":
                yield part(name), id(n) in inside


def part_of(path: str) -> str:
    return path.split("/")[1].removesuffix(".py")


def test_every_part_has_its_place() -> None:
    assert {part_of(p) for p in sources()} <= set(ORDER)


def test_imports_go_one_way() -> None:
    rank = {p: k for k, p in enumerate(ORDER)}
    for path in sources():
        mine = part_of(path)
        for other, later in imports(path):
            if other == mine or mine == "__init__":
                continue
            allowed = rank[other] < rank[mine] or (later and (mine, other) in LATER)
            assert allowed, f"{path} imports xlc.{other}, which comes after xlc.{mine}; the order is {', '.join(ORDER)}"


def test_what_is_imported_first_is_little() -> None:
    """``import xlc`` imports nothing but the errors and knobs that its attributes do not ask for."""
    assert {other for other, later in imports("xlc/__init__.py") if not later} == set()


def lines(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


def test_files_are_short() -> None:
    found = {
        str(f.relative_to(ROOT)): lines(f)
        for folder in ("xlc", "csrc", "runtime")
        for f in (ROOT / folder).rglob("*")
        if f.suffix in (".py", ".c", ".h", ".cpp") and not (f.parent.name == "runtime" and f.parent.parent.name == "xlc")
    }
    long = {f: n for f, n in found.items() if n > LIMIT}
    assert set(long) <= set(LONG), {f: n for f, n in long.items() if f not in LONG}
    assert all(n <= 1.5 * LIMIT for n in long.values()), long
    tests = {f.name: lines(f) for f in (ROOT / "tests").glob("*.py")}
    assert all(n <= TEST_LIMIT for n in tests.values()), tests


def test_names_of_files_say_what_is_in_them() -> None:
    for path in sources():
        words = set(Path(path).stem.split("_"))
        assert not words & {"utils", "util", "helpers", "helper", "misc", "common", "manager", "base", "impl"}, path


def test_nothing_is_evaluated_or_unpickled() -> None:
    for path, tree in sources().items():
        for n in ast.walk(tree):
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name):
                assert n.func.id not in ("eval", "exec", "compile", "__import__"), f"{path}:{n.lineno}"
            if isinstance(n, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in n.names] + [getattr(n, "module", "") or ""]
                assert not {"pickle", "marshal", "shelve", "dill", "cloudpickle"} & {x.split(".")[0] for x in names}, f"{path}:{n.lineno}"


def test_every_file_says_what_it_is_about() -> None:
    for path, tree in sources().items():
        assert ast.get_docstring(tree) or not tree.body, f"{path} has no docstring"


def mentions() -> dict[str, set[str]]:
    """For every operator, the files that have its name as a string."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, tree in sources().items():
        for n in ast.walk(tree):
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in OPS:
                found[n.value].add(path)
    return found


@pytest.mark.parametrize("kind", sorted({op.kind for op in OPS.values()}))
def test_the_compiler_does_not_know_operators_by_name(kind: str) -> None:
    """One file of the compiler at most, tests and front ends (which give operators their public names) aside: adding an operator edits
    no pass, no schedule and no backend. (A backend's table of scalar operators lists what its hardware has; all else is decomposed.)"""
    found = mentions()
    for name, op in OPS.items():
        if op.kind == kind and name not in WOVEN:
            compiler = {p for p in found[name] if p.split("/")[1] in COMPILER and not re.fullmatch(r"xlc/backends/\w+/scalar\.py", p)}
            assert len(compiler) <= 1, f"{name} is named in {', '.join(sorted(compiler))}"


def test_an_operator_is_declared_in_one_place() -> None:
    declared: dict[str, set[str]] = defaultdict(set)
    makers = {"Op", "elementwise", "view", "reduction", "composite", "cumulative"}
    for path, tree in sources().items():
        for n in ast.walk(tree):
            if (
                isinstance(n, ast.Call)
                and isinstance(n.func, ast.Name)
                and n.func.id in makers
                and n.args
                and isinstance(n.args[0], ast.Constant)
            ):
                declared[str(n.args[0].value)].add(path)
    for name, where in declared.items():
        if name in OPS and all(w.startswith(("xlc/ops", "xlc/ir")) for w in where):
            assert len(where) == 1, f"{name} is declared in {where}"


def test_backends_do_not_know_tensor_operators() -> None:
    """A backend sees loops and scalars alone."""
    tensor = {
        name for name, op in OPS.items() if op.kind in ("view", "reduction", "contraction", "indexed", "ordered", "composite", "create")
    } - WOVEN
    found = mentions()
    assert not {name: p for name in tensor for p in found[name] if p.startswith("xlc/backends/")}
