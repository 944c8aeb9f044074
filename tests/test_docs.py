"""The documents are true: every fenced block of Python in README.md and docs/*.md runs, and prints what the document shows.

    ```python
    print(1 + 1)
    ```
    ```text
    2
    ```

The blocks of one document run in order, in one namespace and an empty folder; each counts its lines from 1 and is the file example.py.
What a block prints is compared with a block of ``text`` that follows it, where ``...`` stands for anything; a block of ``console`` is
an example of what depends on the machine, and is not compared. ``pytest tests/test_docs.py --update-golden`` rewrites both kinds where
they differ.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xlc
from xlc.ir.op import OPS, lookup

lookup("add")  # fills the table
ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if "```python" in path.read_text()]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\s*^```(?P<kind>text|console)\n(?P<shown>.*?)^```\n)?", re.M | re.S)


@pytest.fixture
def table_of_operators():
    """Operators that a document declares are gone afterwards."""
    known = dict(OPS)
    yield
    for name in OPS.keys() - known.keys():
        del OPS[name]


def agrees(shown: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_document(path, tmp_path, monkeypatch, update_golden, table_of_operators):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {"__name__": "example"}
    text = path.read_text()
    changed = text
    for block in BLOCK.finditer(text):
        printed = io.StringIO()
        (tmp_path / "example.py").write_text(block["code"])
        line = text[:block.start()].count("\n") + 1
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(block["code"], str(tmp_path / "example.py"), "exec"), names)
            except Exception as error:
                raise AssertionError(f"{path.name}:{line}: the block raises {error!r}") from error
        if not block["kind"]:
            assert not printed.getvalue(), f"{path.name}:{line}: the block prints {printed.getvalue()!r}, and nothing is shown"
        elif agrees(block["shown"], printed.getvalue()):
            continue
        elif update_golden:
            fence = f"```{block['kind']}\n"
            new = block[0].replace(fence + block["shown"], fence + printed.getvalue())
            changed = changed.replace(block[0], new, 1)
        elif block["kind"] == "text":
            raise AssertionError(f"{path.name}:{line}: the block prints\n{printed.getvalue()}\nand the document shows\n{block['shown']}")
    if changed != text:
        path.write_text(changed)


def test_links_lead_somewhere():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            assert target.startswith("http") or (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_files_that_documents_name_exist():
    for path in [ROOT / "README.md", ROOT / "docs" / "design.md", ROOT / "docs" / "adding-an-operator.md"]:
        for name in re.findall(r"`((?:xlc|tests|csrc|runtime|benchmarks|examples)/[\w/.]+)`", path.read_text()):
            assert (ROOT / name).exists(), f"{path.name} names {name}, which is not there"


def test_every_knob_is_documented():
    text = (ROOT / "docs" / "reading-dumps.md").read_text() + (ROOT / "README.md").read_text()
    missing = [name for name in xlc.config.KNOBS if f"`{name}`" not in text and f"XLC_{name.upper()}" not in text]
    assert not missing, f"knobs that no document mentions: {missing}"


def test_import_is_quick():
    """Not a measurement: importing xlc must not import what it does not need yet."""
    code = "import xlc, sys; print(*sorted({'numpy', 'llvmlite', 'networkx', 'ml_dtypes'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == []
