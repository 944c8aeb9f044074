"""The command line and the report."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import xlc
from xlc.tools.cli import STAGES, main
from xlc.tools.drawing import Box, Life, layered, lifetimes
from xlc.tools.report import write_report

SCRIPT = '''
import numpy as np
import xlc

def layer(x, w, s=2.0):
    """Plain NumPy."""
    return np.tanh(x @ w) * s

class Model:
    @staticmethod
    @xlc.jit
    def twice(x):
        return x + x
'''


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    np.save(tmp_path / "w.npy", np.ones((3, 5), np.float32))
    return str(path)


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@needs_cc
def test_compile(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "layer.so"
    assert main(["compile", f"{script}:layer", "--spec", "f32[batch, 3]", "--spec", str(tmp_path / "w.npy"), "--spec", "3.0", "-o",
                 str(out),
                 "--name", "thrice"]) == 0
    text = capsys.readouterr().out
    assert "int thrice(int64_t batch, const float *x, float *y, void *workspace);" in text and str(out) in text
    x = np.arange(6, dtype="f4").reshape(2, 3) / 9
    assert np.allclose(xlc.aot.load(out)(x), np.tanh(x.sum(1, keepdims=True) + np.zeros(5)) * 3)
    assert main(["compile", f"{script}:Model.twice", "--spec", "float64[4]", "-o", str(tmp_path / "t.o"), "--cpu", "x86-64-v3"]) in (0, 1)


def test_explain_and_dump(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"{script}:layer", "--spec", "f32[8,3]", "--spec", "f32[3,5]"]
    assert main(["explain", *arguments]) == 0
    assert "layer:" in capsys.readouterr().out
    assert main(["dump", *arguments]) == 0
    text = capsys.readouterr().out
    assert all(f"==== {stage}" in text for stage in STAGES)
    for part in ("graph layer(%x: f32[8,3], %w: f32[3,5])", "-- after simplify", "kernel k0(", "plan layer {", "define", "ret"):
        assert part in text
    assert main(["dump", *arguments, "--stage", "plan"]) == 0
    assert capsys.readouterr().out.startswith("plan layer {")


def test_as_a_process(script: str) -> None:
    done = subprocess.run([sys.executable, "-m", "xlc", "dump", f"{script}:Model.twice", "--spec", "i32[4]", "--stage", "graph"],
                          capture_output=True,
                          text=True, check=False, cwd=Path(__file__).resolve().parent.parent)
    assert done.returncode == 0 and "add(%x, %x)" in done.stdout, done.stderr


@pytest.mark.parametrize(("arguments", "status", "text"), [
    (["dump", "SCRIPT:absent"], 2, "it has layer, Model"),
    (["dump", "SCRIPT"], 2, "expected script.py:function"),
    (["dump", "/nowhere/x.py:f"], 2, "there is no file"),
    (["dump", "no_such_module_:f"], 2, "cannot be imported"),
    (["dump", "SCRIPT:layer", "--spec", "q32[4]"], 2, "q32"),
    (["dump", "SCRIPT:layer", "--spec", "what"], 2, "expected a type such as"),
    (["dump", "SCRIPT:layer", "--spec", "/nowhere/w.npy"], 2, "w.npy"),
    (["dump", "SCRIPT:layer", "--spec", "f32[4]"], 1, "missing a required argument: 'w'"),
    (["dump", "SCRIPT:layer", "--spec", "f32[4]", "--spec", "f32[5,2]"], 1, "script.py:7"),
    (["compile", "SCRIPT:layer", "--spec", "f32[4]", "--spec", "f32[4,2]", "-o", "x.dll"], 1, "must end in .so, .a or .o"),
])
def test_errors(script: str, arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([a.replace("SCRIPT", script) for a in arguments]) == status
    error = capsys.readouterr().err
    assert error.startswith("xlc: error: ") and text in error and "Traceback" not in error


# ------------------------------------------------------------------------------------------------ the report


class Balanced(HTMLParser):
    """Checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report(tmp_path: Path) -> None:
    f = xlc.jit(lambda x, w: (np.exp(x @ w) < 3) * (x @ w).max(axis=1, keepdims=True))
    program = f.compile(xlc.spec(("batch", 12)), np.ones((12, 7), np.float32))
    path = write_report(program, tmp_path / "r.html", "A <title>", {"fact & figure": 3}, [("Table", ("a", "b"), [("x", 1)])])
    page = path.read_text()
    checker = Balanced()
    checker.feed(page)
    assert not checker.open
    for part in ("A &lt;title&gt;", "fact &amp; figure", "Graph as traced", "one box per kernel", "Memory over time", "assembly", "LLVM",
                 "loops"):
        assert part in page
    assert "src=" not in page and "href=" not in page and "url(" not in page and page.count("<svg") >= 2


def test_drawings() -> None:
    svg = layered([Box("a", ("x < y", "f32[3]")), Box("d", ("w",)), Box("b", ("sin",)), Box("c", ("add",))],
                  [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c"), ("a", "b")])
    root = ElementTree.fromstring(svg)
    boxes = [g.find("rect") for g in root.iter("g")]
    assert len(boxes) == 4 and len(list(root.iter("path"))) == 4
    top = [float(b.get("y")) for b in boxes]
    assert top[0] < top[2] < top[3] and top[1] == top[2]  # below what they depend on, inputs beside their first use
    spans = sorted((float(b.get("y")), float(b.get("x")), float(b.get("x")) + float(b.get("width"))) for b in boxes)
    assert all(y1 != y2 or right <= left for (y1, _, right), (y2, left, _) in zip(spans, spans[1:], strict=False))
    root = ElementTree.fromstring(lifetimes([Life("t0", 0, 400, 0, 1), Life("t1", 448, 0, 1, 2)], 448, 3))
    assert len(list(root.iter("rect"))) == 2
    assert layered([], []).startswith("<svg")
