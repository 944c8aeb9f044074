"""Graphs, kernels and plans as text. ``parse`` (re-exported here) is the inverse: ``print(parse(print(x)))`` is ``print(x)``.

    graph f(%x: f32[64,784], %w: f32[784,10]) {
      %0: f32[64,10] = dot(%x, %w) {batch=((), ()), contract=((1,), (0,))}  # user.py:12
      %1: f32[64,10] = multiply(%0, 2.0)
      return %1
    }

Names are given in order, so equal graphs print equally, in every process. Four abbreviations, which parse back to the same objects:

- a number among the arguments of a node is a ``full`` of the type of its first other argument;
- a graph inside an attribute (a body of control flow) is written out where it occurs first, and after that named, ``graph step``;
- a number in a kernel takes the dtype of the first expression beside it, else ``f32(2.0)``; a bare integer is i64;
- a line ``%3 = exp(x[i])`` before a statement names a subexpression that is long or used more than once. It is a name in the
  text only (a ``let`` is a statement), so that a shared expression prints in linear size.

Large constants print as ``f32[784,500]@digest``; ``constants_of`` gives the arrays by digest, which the parser wants back.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count
from math import isnan
from typing import Any

import numpy as np

from .loops import Buffer, Expr, If, Kernel, Let, Local, Loop, Mma, Prefetch, Stmt, Store, Wait, expressions, statements, walk
from .node import Array, Graph, Node, bodies
from .op import Op
from .parse import RESERVED, parse_graph
from .parse_kernel import parse_expr, parse_kernel, parse_plan
from .plan import Branch, Entry, Launch, Plan
from .types import Dim, DType, Type, dtype_of, i64

__all__ = ["constants_of", "digest", "parse_expr", "parse_graph", "parse_kernel", "parse_plan", "print_expr", "print_graph", "print_kernel",
           "print_plan", "print_value"]

INLINE_ELEMENTS = 16  # constants up to this size print their numbers
LONG = 96  # characters from which a subexpression gets a line of its own
SHORT = 24  # characters up to which a subexpression that is used twice is simply written twice


# ------------------------------------------------------------------------------------------------ values


def number(value: Any, dtype: DType | None = None) -> str:
    """A number as text that reads back exactly: for a float of a known dtype the shortest such text."""
    if isinstance(value, float):
        if dtype is not None and dtype.bits < 64 and not isnan(value):
            short = str(dtype.numpy.type(value))
            if "." not in short and "e" not in short and "n" not in short:
                short += ".0"
            if float(dtype.numpy.type(float(short))) == value:
                return short
        return float.__repr__(value)
    return str(value)


def digest(array: Array) -> str:
    """What identifies the content of a constant: 16 hexadecimal digits of the SHA-256 of its dtype, shape and bytes."""
    found = _digests.get(array)
    if found is None:
        v = np.ascontiguousarray(array.value)
        h = hashlib.sha256(f"{v.dtype}{v.shape}".encode())
        h.update(v.view(np.uint8).data if v.ndim and v.size else v.tobytes())
        found = _digests[array] = h.hexdigest()[:16]
    return found


_digests: weakref.WeakKeyDictionary[Array, str] = weakref.WeakKeyDictionary()


def print_array(array: Array) -> str:
    v = array.value
    dtype = dtype_of(v.dtype)
    head = f"{dtype}[{','.join(map(str, v.shape))}]"
    if v.size <= INLINE_ELEMENTS:
        items = [number(x, dtype) for x in (v.astype(np.float64) if dtype.is_float else v).ravel().tolist()]
        if not dtype.is_float or np.array([float(t) for t in items]).astype(v.dtype).tobytes() == v.tobytes():  # nan payloads
            return f"{head}{{{', '.join(items)}}}"
    return f"{head}@{digest(array)}"


def print_value(value: Any, indent: str = "", inner: dict[int, str] | None = None, locations: bool = True) -> str:
    """An attribute value. ``inner`` names the graphs that have been written out before it."""
    if isinstance(value, (bool, int)) or value is None:
        return str(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (DType, Type)):
        return str(value)
    if isinstance(value, tuple):
        items = [print_value(v, indent, inner, locations) for v in value]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Dim):
        return f"<{value}>" if value.names & RESERVED else str(value)
    if isinstance(value, Array):
        return print_array(value)
    if isinstance(value, Graph):
        return _print_inner(value, indent + "  ", {} if inner is None else inner, locations)
    if isinstance(value, Op):
        return f"op {value.name}"
    return f"<{type(value).__name__} {getattr(value, '__qualname__', '')}>"


_Inner = dict[int, str]  # the graphs inside attributes of one text, by id: the name of each, which is its own


def _print_inner(graph: Graph, indent: str, inner: _Inner, locations: bool) -> str:
    if id(graph) in inner:
        return f"graph {inner[id(graph)]}"
    name = inner[id(graph)] = distinct(_identifier(graph.name), set(inner.values()))
    return _print_graph(graph, indent, locations, name, inner)


def distinct(stem: str, taken: Collection[str]) -> str:
    """The stem, or the stem with the first number that makes it a new name."""
    return stem if stem not in taken else next(name for k in count(2) if (name := f"{stem}_{k}") not in taken)


# ------------------------------------------------------------------------------------------------ graphs


def _identifier(name: str) -> str:
    """The name as it may stand after ``%``."""
    return "".join([c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name]) or "_"


def parameter_names(params: Sequence[Node]) -> list[str]:
    """A distinct text name for each parameter, never a bare number."""
    out: list[str] = []
    for p in params:
        stem = _identifier(p["name"] if p.op.name == "parameter" else p.op.name)
        out.append(distinct(f"p{stem}" if stem.isdigit() else stem, out))
    return out


def _typed_parameter(text: str, p: Node) -> str:
    label = "" if p["name"] == text else f" {json.dumps(p['name'])}"
    return f"%{text}: {p.type}{label}"


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The graph as text; ``locations`` adds the user's file and line to each node."""
    return _print_graph(graph, "", locations, _identifier(graph.name), {})


def _print_graph(graph: Graph, indent: str, locations: bool, name: str, inner: _Inner) -> str:
    params = parameter_names(graph.params)
    names = {id(p): f"%{t}" for p, t in zip(graph.params, params, strict=True)}
    signature = ", ".join([_typed_parameter(t, p) for t, p in zip(params, graph.params, strict=True)])
    lines = [f"graph {name}({signature}) {{"]
    nodes = graph.nodes()
    inline = _inline_fulls(nodes, graph.results)
    types: dict[Type, str] = {}
    values: dict[Any, str] = {}
    for n in nodes:
        if id(n) in names or id(n) in inline:
            continue
        args = [names[id(a)] if id(a) in names else number(a["value"], a.dtype) for a in n.args]
        ref = names[id(n)] = f"%{len(names) - len(params)}"
        t = types.get(n.type) or types.setdefault(n.type, str(n.type))
        attrs = values.get(n.attrs) if n.attrs else ""
        if attrs is None:
            attrs = f" {{{', '.join([f'{k}={print_value(v, indent, inner, locations)}' for k, v in n.attrs])}}}"
            if not bodies(n):
                values[n.attrs] = attrs
        where = f"  # {os.path.basename(n.loc[0])}:{n.loc[1]}" if locations and n.loc and n.args else ""
        lines.append(f"{indent}  {ref}: {t} = {n.op.name}({', '.join(args)}){attrs}{where}")
    results = ", ".join([names[id(r)] for r in graph.results])
    lines += [f"{indent}  return {results}".rstrip(), f"{indent}}}"]
    return "\n".join(lines)


def _inline_fulls(nodes: list[Node], results: Sequence[Node]) -> set[int]:
    """The constants of one value that print as a number everywhere: each use is beside an argument of the same type."""
    inline = {id(n) for n in nodes if n.op.name == "full"} - {id(r) for r in results}
    for n in nodes:
        if inline and n.args:
            like = next((a.type for a in n.args if a.op.name != "full"), None)
            for a in n.args:
                if id(a) in inline and a.type != like:
                    inline.discard(id(a))
    return inline


def constants_of(value: Graph | Plan) -> dict[str, np.ndarray]:
    """The arrays that the text of a graph or plan refers to, by digest: what its parser needs beside the text."""
    arrays: list[Array] = []

    def collect(x: Any) -> None:
        if isinstance(x, Array):
            arrays.append(x)
        elif isinstance(x, tuple):
            for v in x:
                collect(v)

    collect(tuple(v for n in value.everywhere() for _, v in n.attrs) if isinstance(value, Graph) else value.constants)
    return {digest(a): a.value for a in arrays}


# ------------------------------------------------------------------------------------------------ expressions

_INFIX = {"add": ("+", 5), "multiply": ("*", 6), "floor_divide": ("//", 6), "less": ("<", 4), "less_equal": ("<=", 4),
          "greater": (">", 4), "greater_equal": (">=", 4), "equal": ("==", 4), "not_equal": ("!=", 4), "bitwise_and": ("&", 3),
          "bitwise_or": ("|", 2)}
_SHORT_NAMES = {"minimum": "min", "maximum": "max"}


class _Expressions:
    """Prints the expressions of one kernel. ``shared`` numbers the textual names through the kernel; ``hidden`` are names that
    variables have, so that a size of that name prints as ``size(n)``."""

    def __init__(self, hidden: Iterable[str] = ()):
        self.shared = 0
        self.hidden = frozenset(hidden)

    def texts(self, roots: Sequence[tuple[Expr, DType | None]]) -> tuple[list[str], list[str]]:
        """The lines that name subexpressions, then the text of each root. The dtype beside a root is what its place implies."""
        exprs = [r for r, _ in roots]
        if all(not r.args for r in exprs):
            return [], [self._literal(r, like) if r.is_const else self._render(r, {})[0] for r, like in roots]
        uses: dict[int, int] = {id(r): 1 for r in exprs}
        order = list(walk(*exprs))
        for e in order:
            for a in e.args:
                uses[id(a)] = uses.get(id(a), 0) + 1
        tops = {id(r) for r in exprs}
        lines: list[str] = []
        done: dict[int, tuple[str, int]] = {}
        for e in order:
            if e.is_const:
                continue
            text, rank = self._render(e, done)
            long = len(text) > LONG and id(e) not in tops
            if e.args and (long or (uses[id(e)] > 1 and len(text) > SHORT)):
                name = f"%{self.shared}"
                self.shared += 1
                lines.append(f"{name} = {text}")
                text, rank = name, 9
            done[id(e)] = text, rank
        return lines, [self._literal(r, like) if r.is_const else done[id(r)][0] for r, like in roots]

    @staticmethod
    def _literal(e: Expr, like: DType | None) -> str:
        text = str(e.value).lower() if e.dtype.kind == "b" else number(e.value, e.dtype)
        return text if e.dtype.kind == "b" or e.dtype is (like or i64) else f"{e.dtype}({text})"

    def _atom(self, e: Expr) -> str:
        name: str = e["name"]
        return f"size({name})" if e.op.name == "size" and name in self.hidden else name

    def _render(self, e: Expr, done: dict[int, tuple[str, int]]) -> tuple[str, int]:
        """The text and its binding strength (9: an atom)."""
        name = e.op.name
        if name in ("var", "size"):
            return self._atom(e), 9
        if name == "load":
            masked = e["masked"]
            index = [done[id(a)][0] if not a.is_const else self._literal(a, i64) for a in (e.args[:-1] if masked else e.args)]
            mask = "" if not masked else f" where {done[id(e.args[-1])][0] if not e.args[-1].is_const else self._literal(e.args[-1], None)}"
            return f"{e['buffer'].name}[{', '.join(index)}{mask}]", 9
        if name in _INFIX and not e.attrs:
            symbol, rank = _INFIX[name]
            if all(a.dtype.kind == "b" if rank < 4 else a.dtype is i64 for a in e.args):
                left, right = ((self._literal(a, i64), 9) if a.is_const else done[id(a)] for a in e.args)
                left_text = left[0] if left[1] >= rank + (rank == 4) else f"({left[0]})"
                right_text = right[0] if right[1] > rank else f"({right[0]})"
                minus = self._negated(e.args[1], done) if name == "add" else None
                if minus:
                    symbol, right_text = "-", minus
                space = " " if rank < 5 else ""
                return f"{left_text}{space}{symbol}{space}{right_text}", rank
        beside = e.args[1:] if name == "where" else e.args
        like = next((a.dtype for a in beside if not a.is_const), None)
        args = [self._literal(a, like) if a.is_const else done[id(a)][0] for a in e.args]
        args += [f"{k}={print_value(v)}" for k, v in e.attrs]
        if name in _SHORT_NAMES and e.dtype is i64:
            name = _SHORT_NAMES[name]
        return f"{name}({', '.join(args)})", 9


    def _negated(self, e: Expr, done: dict[int, tuple[str, int]]) -> str | None:
        """The text of -e where e is a negative constant or a multiple by one, so that the canonical ``n + i*-1`` reads ``n-i``."""
        if e.is_const:
            return str(-e.value) if e.value < 0 else None
        if e.op.name != "multiply" or not e.args[1].is_const or e.args[1].value >= 0 or done[id(e)][0].startswith("%"):
            return None
        text, rank = done[id(e.args[0])] if not e.args[0].is_const else (self._literal(e.args[0], i64), 0)
        factor = -e.args[1].value
        text = text if rank >= 6 else f"({text})"
        if factor == 1:
            return text if not text.startswith("(") and not (e.args[0].op is e.op and e.args[0].args[1].is_const) else None
        return f"{text}*{factor}"


def print_expr(e: Expr) -> str:
    """One expression; where it has named subexpressions, these come first, separated by semicolons."""
    lines, (text,) = _Expressions().texts([(e, None)])
    return "; ".join([*lines, text])


# ------------------------------------------------------------------------------------------------ kernels


def _buffer(b: Buffer) -> str:
    return f"{b.name}: {Type(b.dtype, b.shape)}" + ("" if b.space == "global" else f" {b.space}")


def print_kernel(kernel: Kernel) -> str:
    """The kernel as text."""
    variables = {s.var if isinstance(s, Loop) else s.name for s in statements(kernel.body) if isinstance(s, (Loop, Let))}
    expressions_ = _Expressions(variables)
    signature = ", ".join([f"in {_buffer(b)}" for b in kernel.inputs] + [f"out {_buffer(b)}" for b in kernel.outputs])
    head = f"kernel {_identifier(kernel.name)}({signature})"
    head += f" sizes({', '.join(kernel.sizes)})" if kernel.sizes else ""
    head += f" inplace({', '.join([f'{o}:{i}' for o, i in kernel.inplace])})" if kernel.inplace else ""
    head += f" streaming({', '.join(map(str, kernel.streaming))})" if kernel.streaming else ""
    head += f" library({', '.join(map(str, kernel.library))})" if kernel.library else ""
    head += f" {json.dumps(kernel.note)}" if kernel.note else ""
    lines = [head + " {"]
    _print_body(kernel.body, "  ", lines.append, expressions_)
    return "\n".join([*lines, "}"])


def _print_body(body: Sequence[Stmt], indent: str, emit: Callable[[str], None], printer: _Expressions) -> None:
    for s in body:
        implied = s.buffer.dtype if isinstance(s, Store) else s.value.dtype if isinstance(s, Let) else None
        value = s.value if isinstance(s, (Store, Let)) else None
        named, texts = printer.texts([(e, implied if e is value else None) for e in expressions(s)])
        for line in named:
            emit(indent + line)
        match s:
            case Store():
                k = len(s.index)
                index = [printer._literal(e, i64) if e.is_const else t for e, t in zip(s.index, texts, strict=False)]
                mask = f" where {texts[k + 1]}" if s.mask is not None else ""
                emit(f"{indent}{s.buffer.name}[{', '.join(index)}] = {texts[k]}{mask}")
            case Prefetch():
                emit(f"{indent}prefetch {s.buffer.name}[{', '.join(texts)}] ahead {s.distance}")
            case Mma():
                a, b = (" ".join(map(str, steps)) for steps in (s.a_steps, s.b_steps))
                emit(f"{indent}mma {s.acc.name}[{texts[0]}], {s.a.name}[{texts[1]}] steps {a}, {s.b.name}[{texts[2]}] steps {b}, "
                     f"shape {' '.join(map(str, s.shape))} products {s.products}{f' group {s.group}' if s.group != 32 else ''}")
            case Wait():
                emit(f"{indent}wait {'products ' if s.products else ''}{s.left}")
            case Let():
                emit(f"{indent}let {s.name}: {s.value.dtype} = {texts[0]}")
            case Local():
                emit(f"{indent}local {_buffer(s.buffer)}")
            case If():
                emit(f"{indent}if {texts[0]} {{")
                _print_body(s.body, indent + "  ", emit, printer)
                if s.orelse:
                    emit(f"{indent}}} else {{")
                    _print_body(s.orelse, indent + "  ", emit, printer)
                emit(f"{indent}}}")
            case Loop():
                step = f" step {s.step}" if s.step != 1 else ""
                width = f" width {s.width}" if s.width else ""
                emit(f"{indent}{s.kind} {s.var} in {texts[0]}..{texts[1]}{step}{width} {{")
                _print_body(s.body, indent + "  ", emit, printer)
                emit(f"{indent}}}")


# ------------------------------------------------------------------------------------------------ plans


def _print_launch(x: Entry) -> list[str]:
    note = f" {json.dumps(x.note)}" if x.note else ""
    head = f"({', '.join(['%' + i for i in x.inputs])}) -> ({', '.join(['%' + o for o in x.outputs])}){note}"
    if isinstance(x, Launch):
        return [f"  {x.kernel}{head}"]
    if isinstance(x, Branch):
        head = f"  branch{head} {{"
    else:
        trips = "" if x.trips is None else f" trips {print_value(x.trips)}"
        head = f"  loop{head} fixed {x.fixed} carries {x.carries}{trips}{' reverse' if x.reverse else ''} {{"
    return [head, *(f"    {line}" for body in x.bodies for line in print_plan(body).splitlines()), "  }"]


def print_plan(plan: Plan, kernels: bool = False) -> str:
    """The plan as text; with ``kernels``, the text of each kernel follows, so that the whole parses back by itself."""
    sizes = f" sizes({', '.join(plan.sizes)})" if plan.sizes else ""
    donated = f" donated({', '.join([f'{r}:{p}' for r, p in plan.donated])})" if plan.donated else ""
    lines = [f"plan {_identifier(plan.name)}{sizes}{donated} {{"]
    width = max((len(s.name) + len(str(s.type)) for s in plan.slots), default=0)
    for s in plan.slots:
        lines.append(f"  %{s.name}: {s.type}{' ' * (width - len(s.name) - len(str(s.type)))} = {s.place} {s.at}")
    lines += [f"  data {k} = {print_array(a)}" for k, a in enumerate(plan.constants)]
    for x in plan.launches:
        lines += _print_launch(x)
    lines += [f"  note {json.dumps(n)}" for n in plan.notes]
    lines.append(f"}} arena {plan.arena} bound {plan.lower_bound}")
    return "\n\n".join(["\n".join(lines), *(print_kernel(k) for k in plan.kernels)] if kernels else ["\n".join(lines)])
