"""Which contractions a library may compute: large ones with nothing fused to them, when the knob ``cuda_library`` asks for it.

    group [%y = dot(%x, %w) {contract=((1,), (0,))}], 4096 x 4096 times 4096 x 4096   ->   ("matmul", 0, 1, 1, 4096, 4096, 4096, 0, 0)

The kernel is made all the same, and says what it means; the claim (see ``claim``) stands beside it. What is fused is always ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xlc import config
from xlc.ir.loops import Kernel
from xlc.ir.types import product
from xlc.passes.group import Group
from xlc.passes.memory import Step

LARGE = 1 << 27  # multiplications from which a library's kernels are worth what they cost to call
Claim = tuple[str | int, ...]


def claim(group: Group, step: Step) -> Claim:
    """("matmul", positions of both operands among the kernel's inputs, batch, m, n, k, whether each operand lies transposed); or ()."""
    dot = group.anchor
    if config.cuda_library != "cublas" or dot is None or dot.op.kind != "contraction" or group.members != [dot] or group.roots != [dot] \
            or group.tiling is not None:
        return ()
    (lc, rc), (lb, rb) = dot["contract"], dot["batch"]
    lhs, rhs = dot.args
    batch, first = len(lb), tuple(range(len(lb)))
    if not dot.dtype.is_float or lb != first or rb != first or lhs is rhs or lhs.rank != batch + 2 or rhs.rank != batch + 2 or len(lc) != 1:
        return ()
    sizes = (product(lhs.shape[:batch]), lhs.shape[2 * batch + 1 - lc[0]], rhs.shape[2 * batch + 1 - rc[0]], lhs.shape[lc[0]])
    if not all(isinstance(s, int) for s in sizes) or product(sizes) < LARGE:  # type: ignore[operator]
        return ()
    return ("matmul", step.inputs.index(lhs), step.inputs.index(rhs), *map(int, sizes), int(lc[0] == batch), int(rc[0] != batch))


def claiming(lowering: Callable[[Group], Step]) -> Callable[[Group], Step]:
    """The lowering, whose kernels carry the claims."""
    def lower(group: Group) -> Step:
        step = lowering(group)
        if isinstance(step.kernel, Kernel) and (found := claim(group, step)):
            return replace(step, kernel=replace(step.kernel, library=found))
        return step

    return lower


__all__ = ["claim", "claiming"]
