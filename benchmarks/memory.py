"""What the plans need: the arena against its lower bound, and fused against unfused (kernels, bytes moved, arena, time)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from . import peers
from .harness import US, Build, Row, Scale, amount, contest, reason_of
from .workloads import Workload, everything

BAR = 1.05


def compiled(w: Workload, **options: Any) -> Any:
    import xlc

    return xlc.jit(w.f, donate=w.donate, **options).compile(*w.inputs[0])


def moved(plan: Any) -> int:
    """Bytes that the launches of a plan read and write, each buffer once per launch."""
    slots = plan.by_name
    return sum(slots[name].type.bytes for launch in plan.launches for name in {*launch.inputs, *launch.outputs})


def arena_rows(scale: Scale) -> Iterator[Row]:
    for w in everything(scale):
        row = Row(f"arena: {w.name}")
        try:
            plan = compiled(w).plan
        except Exception as error:  # named in the table, as for a contestant that breaks
            row.absent[US] = reason_of(error)
            row.judge(f"at most {BAR} of the lower bound", f"no {US}", False)
        else:
            arena, bound = plan.arena_bytes, plan.lower_bound_bytes
            found = f"{arena / bound if bound else 1:.3f} ({amount(arena)} for {amount(bound)})"
            row.judge(f"at most {BAR} of the lower bound", found, arena <= BAR * bound)
        yield row


def fusion_rows(scale: Scale) -> Iterator[Row]:
    for w in everything(scale):
        ways: dict[str, Build] = {name: partial(peers.xlc_calls, w.f, w.inputs, check=False, **options)
                                  for name, options in (("xlc", {}), ("xlc, fuse=False", {"fuse": False}))}
        row = contest(scale, f"fusion: {w.name}", ways)
        fused, unfused = row.us, row.stats.get("xlc, fuse=False")
        if fused and unfused:
            one, other = compiled(w).plan, compiled(w, fuse=False).plan
            found = (f"{len(one.launches)} kernels for {len(other.launches)}, {amount(moved(one))} moved for {amount(moved(other))}, "
                     f"arena {amount(one.arena_bytes)} for {amount(other.arena_bytes)}, {unfused.median / fused.median:.2f}x as fast")
            row.judge("fused against unfused", found, fused.median <= unfused.median and moved(one) <= moved(other))
        else:
            row.judge("fused against unfused", f"no {US}", False)
        yield row
