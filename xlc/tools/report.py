"""One HTML page about a compiled program, which needs no other file: the graph before and after fusion, every kernel as loops, LLVM text
and assembly, the memory over time, and a table of work.

    write_report(f.compile(x), "report.html", title="my program", facts={"time": "12 us"}, tables=[...])
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..ir.node import Graph, Node
from ..ir.plan import Plan
from ..passes.fuse import in_memory, is_free
from ..run.explain import Work, describe_members, human, number, work_of
from .drawing import Box, Life, layered, lifetimes

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --blue: #4a7dd0; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; margin: .6rem 0; } th, td { padding: .15rem .8rem; border-bottom: 1px solid var(--line); text-align:
left; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { font: 12px/1.45 ui-monospace, monospace; background: var(--soft); padding: .7rem; overflow: auto; max-height: 32rem; margin: .3rem
0; } details { margin: .3rem 0 .3rem .6rem; } summary { cursor: pointer; } .scroll { overflow: auto; max-height: 46rem; border: 1px solid
var(--line); } svg.drawing { font: 11px ui-monospace, monospace; } svg text { fill: currentColor; text-anchor: middle; } svg .life text,
svg > text { text-anchor: start; } svg path { fill: none; stroke: #888; stroke-width: 1; opacity: .7; } svg rect { fill: #8883; stroke:
#888; } svg .parameter rect { fill: #4a7dd044; } svg .constant rect { fill: #9a6bd044; } svg .contraction rect { fill: #d0804a55; }
svg .reduction rect { fill: #c9b02f55; } svg .result rect { stroke: #2a9d55; stroke-width: 2.5; }
svg .c0 rect { fill: #4a7dd088; } svg .c1 rect { fill: #d0804a88; } svg .c2 rect { fill: #2a9d5588; } svg .c3 rect { fill: #9a6bd088; }
svg .c4 rect { fill: #c9b02f88; } svg .c5 rect { fill: #c94a6b88; }
"""

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]
"""A heading, the names of the columns, the rows."""


def write_report(executable: Any, path: str | os.PathLike[str], title: str = "", facts: Mapping[str, Any] | None = None,
                 tables: Sequence[Table] = ()) -> Path:
    """Write the page and give its path. ``executable`` is what ``f.compile(...)`` returns."""
    from ..aot.link import write

    where = Path(path)
    write(where, report(executable, title, facts, tables).encode())
    return where


def report(executable: Any, title: str = "", facts: Mapping[str, Any] | None = None, tables: Sequence[Table] = ()) -> str:
    """The page as text."""
    done = getattr(executable, "program", executable).compilation
    plan: Plan = done.plan
    title = title or f"xlc: {plan.name}"
    works = [work_of(g, s) for g, s in done.stages.kernels()]
    arena, bound = number(plan.arena), number(plan.lower_bound)
    listed = {"operations traced": sum(not in_memory(n) for n in done.source.nodes()), "kernel launches": len(list(plan.everywhere())),
              "arena": f"{plan.arena} B ({arena / bound if bound else 1:.3f} of the lower bound)",
              "work": f"{human(sum(number(w.flops) for w in works), 'flop')}, {human(sum(number(w.bytes) for w in works))} moved",
              **(facts or {})}
    parts = [f"<h1>{escape(title)}</h1>", _table(("", ""), list(listed.items()))]
    for heading, columns, rows in tables:
        parts += [f"<h2>{escape(heading)}</h2>", _table(columns, rows)]
    parts += ["<h2>Graph as traced</h2>", _scroll(draw_graph(done.source)), _panel("as text", str(done.source)),
              "<h2>Graph after fusion: one box per kernel</h2>", _scroll(draw_partition(done)), _panel("the passes", _passes(done)),
              _panel("in words", executable.explain()), "<h2>Kernels</h2>", *_kernels(executable, done, works),
              "<h2>Memory over time</h2>", f"<p>{escape(_memory_text(plan))}</p>", _scroll(draw_memory(plan)),
              _panel("the plan", str(plan))]
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n")


# ------------------------------------------------------------------------------------------------ drawings


def draw_graph(graph: Graph) -> str:
    """Every operation; constants of one repeated value are left out."""
    results = set(graph.results)
    shown = [n for n in graph.nodes() if not is_free(n)]
    keys = {n: f"n{i}" for i, n in enumerate(shown)}
    boxes = [Box(keys[n], (_label(n), str(n.type)), f"{n.op.name if in_memory(n) else n.op.kind}{' result' if n in results else ''}",
                 f"{n.op.name} {n.type}" + (f"   {n.loc[0]}:{n.loc[1]}" if n.loc else "")) for n in shown]
    return layered(boxes, [(keys[a], keys[n]) for n in shown for a in n.args if a in keys])


def _label(n: Node) -> str:
    return str(n["name"]) if n.op.name == "parameter" else n.op.name


def draw_partition(done: Any) -> str:
    """Every kernel, with what it computes, and the arrays that pass between them."""
    boxes, edges = [], []
    made: dict[Node, str] = {}
    results = set(done.plan and _results(done))
    for k, (group, step) in enumerate(zip(done.partition.groups, done.steps, strict=True)):
        for n in step.inputs:
            if n not in made:
                made[n] = f"i{len(made)}"
                boxes.append(Box(made[n], (_label(n), str(n.type)), n.op.name))
            edges.append((made[n], f"k{k}"))
        names = [n.op.name for n in reversed(group.members)]
        shown = [*names[:7], *([f"+ {len(names) - 7} more"] if len(names) > 7 else [])]
        outputs = tuple(f"-> {n.type}" for n in step.outputs)
        boxes.append(Box(f"k{k}", (f"kernel {k}", *shown, *outputs), f"{group.kind}{' result' if results & set(step.outputs) else ''}",
                         describe_members(group)))
        made |= dict.fromkeys(step.outputs, f"k{k}")
    return layered(boxes, edges)


def _results(done: Any) -> tuple[Node, ...]:
    return tuple(list(done.graphs.values())[-1].results)


def draw_memory(plan: Plan) -> str:
    """The arena's buffers, each from the launch that writes it to the last that reads it."""
    names = plan.by_name
    span: dict[str, tuple[int, int]] = {}
    for k, launch in enumerate(plan.launches):
        for name in (*launch.inputs, *launch.outputs):
            if names[name].place == "arena":
                span[name] = (span[name][0] if name in span else k, k)
    lives = [Life(name, number(names[name].at), number(names[name].type.bytes), first, last,
                  f"{name}: {names[name].type}, {human(number(names[name].type.bytes))}, launches {first} to {last}")
             for name, (first, last) in span.items()]
    return lifetimes(lives, number(plan.arena), len(plan.launches)) if lives else "<p>No intermediate buffer is needed.</p>"


def _memory_text(plan: Plan) -> str:
    text = f"The arena holds {plan.arena} bytes; no arena for this order of launches can hold fewer than {plan.lower_bound}."
    donated = "".join(f" Result {r} takes the memory of parameter {p}." for r, p in plan.donated)
    return text + donated


# ------------------------------------------------------------------------------------------------ text


def _kernels(executable: Any, done: Any, works: Sequence[Work]) -> list[str]:
    """A table of all launches, then each distinct kernel with its sources."""
    plan: Plan = done.plan
    rows = [(k, describe_members(group), group.kind, human(number(w.flops), "flop"), human(number(w.bytes)), f"{w.intensity:.3g}")
            for k, ((group, _), w) in enumerate(zip(done.stages.kernels(), works, strict=True))]
    parts = [_table(("kernel", "computes", "kind", "work", "memory traffic", "flop per byte"), rows)]
    for kernel in plan.kernels:
        sources = executable.asm[kernel.name]
        launches = sum(launch.kernel == kernel.name for _, launch in plan.everywhere())
        several = f" ({launches} launches)" if launches > 1 else ""
        parts.append(f"<details><summary>{escape(kernel.name)} {escape(kernel.note)}{several}</summary>"
                     + _panel("loops", kernel.loops) + _panel("LLVM", sources["llvm"]) + _panel("assembly", sources["s"]) + "</details>")
    return parts


def _passes(done: Any) -> str:
    return "\n\n".join(f"after {name} ({done.seconds.get(name, 0) * 1e3:.1f} ms)\n{graph}" for name, graph in done.graphs.items())


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any, tag: str = "td") -> str:
        text = str(value)
        numeric = tag == "td" and bool(text) and text[0].isdigit()
        return f'<{tag}{" class=n" if numeric else ""}>{escape(text)}</{tag}>'

    head = "".join(cell(c, "th") for c in columns) if any(columns) else ""
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join('<tr>' + ''.join(map(cell, row)) + '</tr>' for row in rows)}</table>"


def _panel(name: str, text: str) -> str:
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"


def _scroll(svg: str) -> str:
    return f'<div class="scroll">{svg}</div>'
