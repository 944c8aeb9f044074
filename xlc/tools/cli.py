"""The command line.

    python -m xlc compile script.py:function --spec "f32[batch,784]" --spec weights.npy -o layer.so
    python -m xlc explain script.py:function --spec "f32[64,784]"
    python -m xlc dump    script.py:function --spec "f32[64,784]" --stage plan
    python -m xlc report  script.py:function --spec "f32[64,784]" -o report.html
    python -m xlc gpu-check                                                    (see gpu_check.py)

``--spec`` stands once per argument, in order: a type (dtype, sizes; names are symbolic), a number, True, False or None, or a .npy file,
which is baked in.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..aot.export import export, lower_baked
from ..errors import XlcError
from ..frontend.jit import spec
from . import gpu_check

STAGES = ("graph", "passes", "kernels", "plan", "llvm", "asm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for an error of the program, 2 for a wrong command line."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options) or 0)
    except (XlcError, _Usage) as error:
        print(f"xlc: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, XlcError) else 2


class _Usage(Exception):
    """A command line that does not say what to do."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m xlc", description="Compile NumPy functions ahead of time, and look inside the "
                                                                       "compiler.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="compile | explain | dump | report | gpu-check")

    def command(name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        def on_function(options: argparse.Namespace) -> None:
            run(options, load_function(options.function), [parse_spec(text) for text in options.spec])

        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("function", metavar="script.py:function")
        sub.add_argument("--spec", action="append", default=[], metavar="TYPE",
                         help='one per argument: "f32[batch,784]", a number, True, None, or file.npy')
        sub.set_defaults(run=on_function)
        return sub

    sub = command("compile", _compile, "Write a library (.so, .a or .o) and its header.")
    sub.add_argument("-o", "--output", required=True, metavar="FILE")
    sub.add_argument("--name", help="of the C function; the function's own by default")
    sub.add_argument("--target", default="host", help="host, or an LLVM triple")
    sub.add_argument("--cpu", help="an LLVM processor name, such as x86-64-v3; the running one by default")
    command("explain", _explain, "Say in words what is fused, what is allocated, and what limits each kernel.")
    sub = command("dump", _dump, "Print the stages of the compilation.")
    sub.add_argument("--stage", action="append", choices=STAGES, help="only these; all by default")
    sub = command("report", _report, "Write one HTML page: graphs, kernels with sources, memory over time.")
    sub.add_argument("-o", "--output", required=True, metavar="FILE")
    text = "Run the tests, checks and benchmarks of the CUDA backend on this machine's GPU."
    sub = commands.add_parser("gpu-check", help=text, description=text)
    gpu_check.arguments(sub)
    sub.set_defaults(run=lambda options: gpu_check.check(Path(options.output), options.section, options.seconds, options.smoke))
    return parser


def load_function(text: str) -> Callable[..., Any]:
    """``script.py:function`` or ``package.module:Class.function``."""
    where, colon, name = text.rpartition(":")
    if not colon or not name:
        raise _Usage(f"{text!r}: expected script.py:function")
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise _Usage(f"there is no file {where!r}")
        sys.path.insert(0, str(path.parent.resolve()))
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[path.stem] = module
        found.loader.exec_module(module)
    else:
        sys.path.insert(0, "")
        try:
            module = importlib.import_module(where)
        except ImportError as error:
            raise _Usage(f"{where!r} cannot be imported: {error}") from None
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            functions = ", ".join(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
            raise _Usage(f"{where} has no {name!r}; it has {functions or 'no function'}")
        value = getattr(value, part)
    return value


def parse_spec(text: str) -> Any:
    """One ``--spec``: a type, a number, True, False, None, a quoted string, or a .npy file."""
    if text.endswith(".npy"):
        try:
            return np.load(text, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _Usage(f"--spec {text}: {error}") from None
    found = re.fullmatch(r"\s*(\w+)\s*\[(.*)\]\s*", text)
    if found:
        try:
            return spec(tuple(s.strip() for s in found[2].split(",") if s.strip()), found[1])
        except XlcError as error:
            raise _Usage(f"--spec {text!r}: {error.message}") from None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise _Usage(f'--spec {text!r}: expected a type such as "f32[batch,784]", a number, True, None, or a .npy file') from None


# ------------------------------------------------------------------------------------------------ commands


def _compile(options: argparse.Namespace, function: Callable[..., Any], args: list[Any]) -> None:
    done = export(function, args, options.output, name=options.name, target=options.target, cpu=options.cpu)
    plan = done.executable.plan
    print(f"{done.library}  {done.library.stat().st_size} bytes\n{done.header}")
    print(f"{len(list(plan.everywhere()))} kernel launches, workspace {done.interface.workspace} bytes")
    print(*(line for line in done.header.read_text().split("\n") if line.startswith(("int ", "size_t ", "const char"))), sep="\n")


def _compiled(function: Callable[..., Any], args: list[Any]) -> Any:
    return lower_baked(function, args, getattr(function, "__name__", "main"))[0].compile()


def _explain(options: argparse.Namespace, function: Callable[..., Any], args: list[Any]) -> None:
    print(_compiled(function, args).explain())


def _dump(options: argparse.Namespace, function: Callable[..., Any], args: list[Any]) -> None:
    program = _compiled(function, args)
    done = program.program.compilation
    texts: dict[str, Callable[[], str]] = {
        "graph": lambda: str(program.graph),
        "passes": lambda: "\n".join(f"-- after {name}\n{graph}" for name, graph in done.graphs.items()),
        "kernels": lambda: "\n".join(k.loops for k in program.plan.kernels),
        "plan": lambda: str(program.plan),
        "llvm": lambda: "\n".join(program.asm[k.name]["llvm"] for k in program.plan.kernels),
        "asm": lambda: "\n".join(program.asm[k.name]["s"] for k in program.plan.kernels),
    }
    chosen = options.stage or STAGES
    for stage in chosen:
        if len(chosen) > 1:
            print(f"==== {stage}")
        print(texts[stage]())


def _report(options: argparse.Namespace, function: Callable[..., Any], args: list[Any]) -> None:
    from .report import write_report

    print(write_report(_compiled(function, args), options.output))


if __name__ == "__main__":
    sys.exit(main())
