"""Which schedule makes the kernel of a group: by its kind, the first that takes it."""

from __future__ import annotations

from xlc.ir.loops import Stmt
from xlc.ir.machine import Machine
from xlc.ir.node import Node
from xlc.passes.group import Group
from xlc.schedule.inline import Places
from xlc.schedule.lower import Lowering

from .chain import lower_chain
from .contract import lower_contraction
from .indexed import lower_scatter
from .map import lower_map
from .online import lower_online
from .reduce import lower_reduction
from .scan import lower_cumulative
from .sort import lower_sort, rows_in_memory


def lower_ordered(group: Group, places: Places, machine: Machine) -> tuple[Stmt, ...]:
    """Operators whose elements depend on earlier ones along an axis."""
    node = group.anchor
    assert node is not None
    if any(s == 0 for s in node.shape):
        return ()
    return tuple((lower_cumulative if node.op.monoid is not None else lower_sort)(group, places, machine))


def scratch(group: Group) -> tuple[Node, ...]:
    """Memory that kernels need beside their results."""
    return rows_in_memory(group)


SCHEDULES: dict[str, tuple[Lowering, ...]] = {
    "map": (lower_map,), "reduction": (lower_reduction,), "contraction": (lower_contraction, lower_reduction),
    "ordered": (lower_ordered,), "indexed": (lower_scatter,), "tiled": (lower_chain, lower_online)}
