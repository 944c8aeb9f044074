"""Which schedule makes the kernel of a group: by its kind, the first that takes it."""

from __future__ import annotations

from xlc.ir.loops import Stmt
from xlc.ir.machine import Machine
from xlc.passes.group import Group
from xlc.schedule.inline import Places
from xlc.schedule.lower import Lowering
from xlc.schedule.ordered import lower_ordered as cpu_ordered

from .bind import bound
from .contract import lower_contraction
from .map import lower_map
from .online import lower_online
from .reduce import lower_reduction
from .scan import lower_cumulative


def _by_one_thread(lowering: Lowering) -> Lowering:
    """A nest made for a CPU, each step of its parallel loop by one thread."""
    def lower(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...] | None:
        body = lowering(group, places, Machine(vector_bits=32))
        return None if body is None else tuple(bound(body))

    return lower


def lower_ordered(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...]:
    """Operators whose elements depend on earlier ones along an axis."""
    node = group.anchor
    assert node is not None
    if any(s == 0 for s in node.shape):
        return ()
    return tuple(lower_cumulative(group, places, machine) if node.op.monoid is not None else bound(cpu_ordered(group, places, machine)))


SCHEDULES: dict[str, tuple[Lowering, ...]] = {
    "map": (lower_map,), "reduction": (lower_reduction,), "contraction": (lower_contraction, lower_reduction),
    "ordered": (lower_ordered,), "indexed": (_by_one_thread(cpu_ordered),), "tiled": (lower_online,)}
