"""Checks of graphs, kernels and plans that share no code with what makes them.

    verify_graph(g)                 types agree with the operators' own rules; parameters are in their places
    verify_kernel(k) -> unproven    names, dtypes, kinds of loops; bounds of every access and absence of races, proved where possible
    verify_plan(p)                  every slot is written before it is read, and no two that are alive share memory, for any sizes

What is wrong raises ``VerifyError``. What a kernel does that could be neither proved nor refuted is returned as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, NoReturn

from ..errors import XlcValueError
from . import plan as plans
from .index import polynomial
from .late import late_products
from .loops import LOAD, VAR, Buffer, Expr, If, Kernel, Let, Local, Loop, Mma, Stmt, Store, Wait, const, expressions, statements, var, walk
from .loops import size as size_expr
from .node import Graph, Node, bodies
from .plan import ALIGNMENT, PLACES, Branch, Entry, Launch, Plan, Slot
from .prove import Prover, flat_index
from .races import CONCURRENT, Access, conflicts, replay, works_in_place
from .sizes import at, at_most
from .types import Dim, Type, bf16, bool_, evaluate, f16, f32, i64, u8

SPACES = ("global", "register", "stack", "shared")
PANEL = 512  # elements of 16 bits in eight rows of a panel
KINDS = ("serial", "parallel", "vector", "unroll", "block", "thread", "async")
SAMPLES = (0, 1, 2, 3, 7, 64, 100, 1000)  # sizes at which what is not proved about a plan is at least tried


class VerifyError(XlcValueError):
    """A graph, kernel or plan that breaks a rule. This is a mistake in xlc, or in a text that was edited by hand."""


# ------------------------------------------------------------------------------------------------ graphs


def verify_graph(graph: Graph) -> None:
    """Check a graph. Cycles cannot occur: a node is made from nodes that exist."""
    nodes = graph.nodes()
    for k, p in enumerate(graph.params):
        if p.op.name != "parameter":
            raise VerifyError(f"graph {graph.name}: parameter {k} is {p}, expected a node of the operator parameter")
    if len(set(graph.params)) != len(graph.params):
        raise VerifyError(f"graph {graph.name}: a parameter is listed twice")
    own = set(graph.params)
    for n in nodes:
        if n.op.name == "parameter" and n not in own:
            raise VerifyError(f"graph {graph.name}: uses the parameter {n['name']} ({n.type}) of another graph", n.loc)
        _verify_node(graph, n)
    for body in dict.fromkeys(b for n in nodes for b in bodies(n)):
        verify_graph(body)


def _verify_node(graph: Graph, n: Node) -> None:
    def fail(what: str) -> NoReturn:
        raise VerifyError(f"graph {graph.name}: {n.op.name}({', '.join(str(a.type) for a in n.args)}): {what}", n.loc)

    if n.op.arity is not None and len(n.args) != n.op.arity:
        fail(f"has {len(n.args)} arguments, expected {n.op.arity}")
    if [k for k, _ in n.attrs] != sorted({k for k, _ in n.attrs}):
        fail("attributes are not sorted by name, or one is given twice")
    if n.op.name == "parameter":
        return
    if n.op.infer is not None:
        try:
            expected = n.op.infer(*(a.type for a in n.args), **n.attributes)
        except Exception as error:  # noqa: BLE001  whatever a type rule raises on arguments that do not fit
            fail(f"its type rule refuses the arguments: {error}")
        if expected != n.type:
            fail(f"has the type {n.type}, expected {expected}")


# ------------------------------------------------------------------------------------------------ kernels


def verify_kernel(kernel: Kernel) -> list[str]:
    """Check a kernel. Returns what could not be proved: accesses that may be out of bounds, iterations that may race."""
    checker = _KernelChecker(kernel)
    checker.body(kernel.body, True)
    checker.check_inplace()
    return [*checker.unproven, *late_products(kernel, checker.fail)]


def check_kernel(kernel: Kernel, values: Sequence[int] = (1, 2, 7, 65)) -> list[str]:
    """``verify_kernel``, and where something is unproven, the addresses of all iterations at some sizes (those of the kernel, if they are
    known). What is found there raises; what is returned was neither proved nor seen to fail."""
    unproven = verify_kernel(kernel)
    for v in (values if kernel.sizes else values[:1]) if unproven else ():
        found = replay(kernel, dict.fromkeys(kernel.sizes, v))
        if found:
            raise VerifyError(f"kernel {kernel.name}{f' where all sizes are {v}' if kernel.sizes else ''}: {'; '.join(found[:3])}")
    return unproven


class _KernelChecker:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.unproven: list[str] = []
        self.buffers = {b.name: b for b in (*kernel.inputs, *kernel.outputs)}
        self.variables: dict[str, Any] = {}
        self.prover = Prover()
        self.accesses: list[Access] = []
        self.loops: list[Loop] = []
        self.conditions: list[tuple[Expr, bool]] = []
        if len(self.buffers) != len(kernel.inputs) + len(kernel.outputs):
            self.fail("two buffers have the same name")
        for b in self.buffers.values():
            self.declared(b)
            if b.space != "global":
                self.fail(f"the argument {b.name} is in the space {b.space}, expected global")
        for o, i in kernel.inplace:
            if not (0 <= o < len(kernel.outputs) and 0 <= i < len(kernel.inputs)):
                self.fail(f"inplace({o}:{i}) names buffers that do not exist")
        for o in kernel.streaming:
            if not 0 <= o < len(kernel.outputs):
                self.fail(f"streaming({o}) names an output that does not exist")

    def fail(self, what: str) -> NoReturn:
        raise VerifyError(f"kernel {self.kernel.name}: {what}")

    def declared(self, b: Buffer) -> None:
        names = frozenset().union(*(d.names for d in b.shape if isinstance(d, Dim)))
        if not names <= set(self.kernel.sizes):
            self.fail(f"{b.name} has the sizes {', '.join(sorted(names))}, but the kernel declares ({', '.join(self.kernel.sizes)})")
        if b.space not in SPACES:
            self.fail(f"{b.name} is in the space {b.space}, expected one of {', '.join(SPACES)}")

    def body(self, body: Sequence[Stmt], outermost: bool = False) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        with ExitStack() as stack:  # the lets of this body
            for s in body:
                for e in expressions(s):
                    self.expression(e)
                match s:
                    case Store():
                        self.store(s)
                    case Mma():
                        self.mma(s)
                    case Wait(_, False) if any(v.kind == "thread" for v in self.loops):
                        self.fail("copies are waited for inside of a loop over threads")
                    case Let():
                        self.variables[s.name] = s.value.dtype
                        stack.enter_context(self.prover.let(s.name, s.value))
                    case Local():
                        self.declared(s.buffer)
                        if s.buffer.space == "global":
                            self.fail(f"the local buffer {s.buffer.name} is in global memory, expected register, stack or shared")
                        self.buffers[s.buffer.name] = s.buffer
                    case If():
                        if s.condition.dtype is not bool_:
                            self.fail(f"the condition {s.condition} has the dtype {s.condition.dtype}, expected bool")
                        for part, truth in ((s.body, True), (s.orelse, False)):
                            self.conditions.append((s.condition, truth))
                            with self.prover.known(s.condition, truth):
                                self.body(part)
                            self.conditions.pop()
                    case Loop():
                        self.loop(s, outermost and len(body) == 1)
        self.buffers, self.variables = buffers, variables

    def loop(self, s: Loop, alone: bool) -> None:
        if s.kind not in KINDS:
            self.fail(f"the loop {s.var} is of the kind {s.kind}, expected one of {', '.join(KINDS)}")
        if s.step < 1:
            self.fail(f"the loop {s.var} has the step {s.step}, expected at least 1")
        if s.start.dtype is not i64 or s.stop.dtype is not i64:
            self.fail(f"the bounds of the loop {s.var} are not i64")
        if s.var in self.variables:
            self.fail(f"the variable {s.var} is declared inside its own scope again")
        if s.kind == "parallel" and not alone:
            self.fail(f"the parallel loop {s.var} is not the single outermost statement")
        if s.kind == "unroll" and not (s.start.is_const and s.stop.is_const):
            self.fail(f"the unrolled loop {s.var} has bounds that are not constant: {s.start}..{s.stop}")
        if s.kind in ("vector", "async"):
            self.check_vector(s)
        if s.kind == "async" and not (len(s.body) == 1 and isinstance(s.body[0], Store) and s.body[0].buffer.space == "shared"
                                      and s.body[0].value.op is LOAD):
            self.fail(f"the async loop {s.var} holds other than one store of a load to shared memory")
        self.variables[s.var] = i64
        with self.prover.loop(s.var, s.start, s.stop, s.step):
            self.loops.append(s)
            self.body(s.body)
            self.loops.pop()
            if s.kind in CONCURRENT:
                seen = {a.buffer for a in self.accesses if a.write and any(v is s for v in a.loops)}
                own = {x.buffer for x in statements(s.body) if isinstance(x, Local)}  # each iteration has these for itself
                self.unproven += conflicts(s, self.accesses, seen - own)
        if s.kind == "thread":
            self.check_lanes(s)
        del self.variables[s.var]

    def check_inplace(self) -> None:
        for o, i in self.kernel.inplace:
            out, old = self.kernel.outputs[o], self.kernel.inputs[i]
            if not works_in_place(self.accesses, out, old):
                self.unproven.append(f"inplace({o}:{i}): {out.name} may overwrite what is still to be read of {old.name}")

    def check_vector(self, s: Loop) -> None:
        if s.width < 1:
            self.fail(f"the vector loop {s.var} has the width {s.width}, expected at least 1")
        if not (s.start.is_const and s.start.value == 0) or s.step != 1:
            self.fail(f"the vector loop {s.var} runs from {s.start} by {s.step}, expected from 0 by 1")
        if any(isinstance(inner, Loop) and inner.kind == "vector" for inner in statements(s.body)):
            self.fail(f"the vector loop {s.var} holds another vector loop")
        fits = self.prover.poly(s.stop)
        if not self.prover.at_least_zero({m: -c for m, c in fits.items() if m} | {(): s.width - fits.get((), 0)}):
            self.unproven.append(f"the vector loop {s.var} may run more than its width of {s.width} times: to {s.stop}")

    # Expressions and accesses.

    def expression(self, root: Expr) -> None:
        for e in walk(root):
            if e.op is VAR:
                if self.variables.get(e["name"]) != e.dtype:
                    self.fail(f"the variable {e['name']} of dtype {e.dtype} is not declared here"
                              + (f" (it has the dtype {self.variables[e['name']]})" if e["name"] in self.variables else ""))
            elif e.op.name == "size":
                if e["name"] not in self.kernel.sizes:
                    self.fail(f"the size {e['name']} is not among the kernel's: ({', '.join(self.kernel.sizes)})")
            elif e.op is LOAD:
                index, mask = (e.args[:-1], e.args[-1]) if e["masked"] else (e.args, None)
                self.access(e["buffer"], index, mask, False)
            elif not e.is_const:
                self.operator(e)

    def operator(self, e: Expr) -> None:
        op = e.op
        if op.kind != "elementwise":
            self.fail(f"{op.name} is no scalar operator (in {e})")
        if op.arity is not None and len(e.args) != op.arity:
            self.fail(f"{e} has {len(e.args)} arguments, expected {op.arity}")
        dtype = op.scalar(*(a.dtype for a in e.args), **dict(e.attrs)) if op.scalar else e.args[0].dtype
        if dtype != e.dtype:
            self.fail(f"{e} has the dtype {e.dtype}, expected {dtype}")

    def store(self, s: Store) -> None:
        if s.buffer in self.kernel.inputs:
            self.fail(f"the input {s.buffer.name} is written")
        if s.value.dtype != s.buffer.dtype:
            self.fail(f"{s.value.dtype} is stored to {s.buffer.name}, which holds {s.buffer.dtype}")
        self.access(s.buffer, s.index, s.mask, True)
        lanes = next((v for v in reversed(self.loops) if v.kind == "vector"), None)
        if lanes is not None and s.buffer.space != "register":
            position = flat_index([self.prover.poly(i) for i in s.index], [self.prover.poly(size_expr(d)) for d in s.buffer.shape])
            if not any(m and any(a.op is VAR and a["name"] == lanes.var for x in m for a in walk(x)) for m in position):
                self.unproven.append(f"all lanes of {lanes.var} write the same element of {s.buffer.name}")

    def mma(self, s: Mma) -> None:
        rows, columns, depth = s.shape
        step = 16 if s.a.dtype.bits == 16 else 8
        if s.a.dtype is not s.b.dtype or s.a.dtype not in (f16, bf16, f32) or s.acc.dtype is not f32:
            self.fail(f"mma on {s.a.dtype} and {s.b.dtype}, summed in {s.acc.dtype}: expected two of f16, bf16 or f32, summed in f32")
        high = s.group // 2  # the rows of a step
        if rows % high or columns % 16 or depth % step or s.products not in (1, 3):
            self.fail(f"mma of the shape {s.shape} in {s.products} products: expected multiples of ({high}, 16, {step}), in 1 or 3")
        if s.group not in (32, 128) or s.group == 128 and s.a.dtype is f32:
            self.fail(f"mma of {s.a.dtype} by {s.group} threads: expected 32, or 128 of halves")
        spaces = s.acc.space == "register" and s.a.space in ("shared", "register") and s.b.space == "shared"
        if not spaces or s.acc.shape[1:] != (rows * columns // s.group,):
            self.fail(f"mma of the shape {s.shape} adds to {s.acc.name}, {s.acc.dtype}{list(s.acc.shape)} {s.acc.space}")
        self.access(s.acc, (s.thread, const(0)), None, True)
        operands = [(s.a, s.a_at, s.a_steps, rows), (s.b, s.b_at, s.b_steps, columns)]
        if s.a.space == "register":
            if s.a == s.acc or s.a.dtype is f32 or s.a.shape[1:] != (rows * depth // s.group,):
                self.fail(f"mma of the shape {s.shape} takes {s.a.name}, {s.a.dtype}{list(s.a.shape)} {s.a.space}, for the left operand")
            self.access(s.a, (s.thread, const(0)), None, False)
            del operands[0]
        for b, first, steps, n in operands:
            self.panels(s, steps, n, first)
            self.access(b, (first,), None, False)
            last = (n - 1) * steps[0] + (depth - 1) * steps[1]
            if s.group == 128:
                along, other = (n, depth) if steps[0] == 1 else (depth, n)
                last = (along - 1) // 64 * steps[2] + other * 64 - 1
            self.access(b, (first + last,), None, False)

    def panels(self, s: Mma, steps: tuple[int, ...], n: int, first: Expr) -> None:
        """Four warps take panels that begin at 1024 bytes, and whole ones of rows (columns) that lie side by side."""
        if len(steps) != (2 if s.group == 32 else 3):
            self.fail(f"mma of {s.group} threads on an operand in steps of {steps}")
        if s.group == 128:
            whole = all(c % PANEL == 0 for c in polynomial(first).values()) and steps[2] % PANEL == 0
            if sorted(steps[:2]) != [1, 64] or not whole or steps[0] == 1 and n % 64:
                self.fail(f"mma of {s.group} threads on {n} rows at {first} in steps of {steps}: expected panels of 64, that begin at "
                          f"multiples of {PANEL}")

    def check_lanes(self, s: Loop) -> None:
        """Registers of other threads, as a loop over threads may read them, are from before it."""
        own = var(s.var)
        written = {x.buffer for x in statements(s.body) if isinstance(x, Store)}
        read = {x.a for x in statements(s.body) if isinstance(x, Mma)}
        read |= {e["buffer"] for x in statements(s.body) for e in walk(*expressions(x)) if e.op is LOAD and e.args[0] is not own}
        inside = {x.buffer for x in statements(s.body) if isinstance(x, Local)}
        for b in sorted(read & written - inside, key=lambda b: b.name):
            if b.space == "register":
                self.fail(f"the loop over threads {s.var} reads {b.name} of other threads, and writes it")

    def access(self, b: Buffer, index: Sequence[Expr], mask: Expr | None, write: bool) -> None:
        what = f"{b.name}[{', '.join(map(str, index))}]"
        if self.buffers.get(b.name) != b:
            self.fail(f"{what}: the buffer {b.name} is not declared here" + (", or with another type" if b.name in self.buffers else ""))
        if len(index) != len(b.shape):
            self.fail(f"{what}: has {len(index)} indices, expected {len(b.shape)}")
        if any(i.dtype is not i64 for i in index) or (mask is not None and mask.dtype is not bool_):
            self.fail(f"{what}: an index is i64, and a mask is bool")
        with self.prover.known(mask):
            for axis, (i, d) in enumerate(zip(index, b.shape, strict=True)):
                above, below = self.prover.within(i, self.prover.poly(size_expr(d)))
                place = "the index" if len(index) == 1 else f"index {axis}"
                note = "" if mask is None else f" where {mask}"
                if isinstance(d, int) and i.is_const and not 0 <= i.value < d:
                    self.fail(f"{what}: {place} {i.value} is out of bounds for the size {d}")
                if not above:
                    self.unproven.append(f"{what}{note}: {place} may be negative")
                if not below:
                    self.unproven.append(f"{what}{note}: {place} may reach the size {d}")
        if b.space in ("global", "shared"):
            conditions = (*self.conditions, *(((mask, True),) if mask is not None else ()))
            self.accesses.append(Access(b, tuple(index), conditions, write, tuple(self.loops), dict(self.prover.lets)))


# ------------------------------------------------------------------------------------------------ plans


def verify_plan(plan: Plan) -> None:
    """Check a plan, whatever made it: operands, places, order of writing and reading, lifetimes against overlaps. Those inside too."""
    _verify_slots(plan)
    kernels = {k.name: k for k in plan.kernels}
    if len(kernels) != len(plan.kernels):
        raise VerifyError(f"plan {plan.name}: two kernels have the same name")
    slots = plan.by_name
    written: dict[str, int] = {s.name: -1 for s in plan.slots if s.place in ("param", "const")}
    last: dict[str, int] = {}
    for t, x in enumerate(plan.launches):
        if isinstance(x, Launch):
            _verify_launch(plan, t, x, kernels.get(x.kernel), slots)
        else:
            _verify_region(plan, t, x, slots)
        for i in x.inputs:
            if i not in written:
                raise VerifyError(f"plan {plan.name}: launch {t} ({_what(x)}) reads %{i}, which nothing has written")
            last[i] = t
        for o in x.outputs:
            if o in written:
                raise VerifyError(f"plan {plan.name}: launch {t} ({_what(x)}) writes %{o}, which "
                                  + ("is an input" if written[o] < 0 else "was written before"))
            written[o] = t
    for s in plan.slots:
        if s.place == "result":
            if s.name not in written:
                raise VerifyError(f"plan {plan.name}: nothing writes the result %{s.name}")
            last[s.name] = len(plan.launches)
    _verify_overlaps(plan, written, last, kernels)


def _what(x: Entry) -> str:
    return x.kernel if isinstance(x, Launch) else type(x).__name__.lower()


def _verify_region(plan: Plan, t: int, x: plans.Loop | Branch, slots: dict[str, Slot]) -> None:
    """A loop or branch: its bodies are plans, and what it gives them is of the types that they take."""
    def fail(what: str) -> NoReturn:
        raise VerifyError(f"plan {plan.name}: launch {t} ({_what(x)}): {what}")

    if unknown := [n for n in (*x.inputs, *x.outputs) if n not in slots]:
        fail(f"%{unknown[0]} is no slot")
    if len(set(x.outputs)) != len(x.outputs):
        fail("writes a slot twice")
    inputs, outputs = ([slots[n].type for n in names] for names in (x.inputs, x.outputs))
    for body in x.bodies:
        verify_plan(body)
        if not {k.name for k in body.kernels} <= {k.name for k in plan.kernels} or not set(body.sizes) <= set(plan.sizes):
            fail(f"{body.name} has kernels or sizes that the plan has not")
        params, results = ([s.type for s in sorted(body.slots, key=lambda s: at(s.at, 0)) if s.place == place]
                           for place in ("param", "result"))
        if isinstance(x, Branch):
            takes, gives = [Type(i64), *params], results
        else:
            rows = x.fixed + x.carries
            if x.trips is None and (len(params) > rows or len(results) > x.carries or not x.carries or results[0] != Type(bool_)):
                fail("runs while its first carry is true, which must be a bool, and has no rows")
            if any(p != x.fixed + r for r, p in body.donated) or results[:x.carries] != params[x.fixed:rows]:
                fail(f"the carries of {body.name} are not in place")
            takes = [*params[:rows], *(p.with_shape((x.trips, *p.shape)) for p in params[rows:])]  # type: ignore[arg-type]
            gives = [*results[:x.carries], *(r.with_shape((x.trips, *r.shape)) for r in results[x.carries:]),  # type: ignore[arg-type]
                     *(results[j] for j in x.swapped)]
        if takes != inputs or [*gives] != outputs[:-1]:
            fail(f"has ({', '.join(map(str, inputs))}) -> ({', '.join(map(str, outputs))}), but {body.name} needs "
                 f"({', '.join(map(str, takes))}) -> ({', '.join(map(str, gives))}) and its arena")
        if outputs[-1].dtype is not u8 or not at_most(body.arena, outputs[-1].bytes):
            fail(f"%{x.outputs[-1]} is no room for the arena of {body.name}, {body.arena} bytes")


def _verify_slots(plan: Plan) -> None:
    def fail(s: Slot, what: str) -> NoReturn:
        raise VerifyError(f"plan {plan.name}: slot %{s.name}: {what}")

    if len(plan.by_name) != len(plan.slots):
        raise VerifyError(f"plan {plan.name}: two slots have the same name")
    if tuple(sorted(plan.sizes)) != plan.sizes:
        raise VerifyError(f"plan {plan.name}: its sizes are not in order: {plan.sizes}")
    environments = _environments(plan)
    places: set[tuple[str, Any]] = set()
    for s in plan.slots:
        if s.place not in PLACES:
            fail(s, f"the place {s.place} is none of {', '.join(PLACES)}")
        if not s.type.names <= set(plan.sizes):
            fail(s, f"the type {s.type} has sizes that the plan does not declare")
        if s.place == "arena":
            if any(evaluate(s.at, env) < 0 or evaluate(s.at, env) % ALIGNMENT for env in environments):
                fail(s, f"the offset {s.at} is not a multiple of {ALIGNMENT}")
            end = s.at + s.type.bytes
            if not at_most(end, plan.arena) and any(evaluate(end, env) > evaluate(plan.arena, env) for env in environments):
                fail(s, f"ends at byte {end}, beyond the arena of {plan.arena}")
        else:
            if not isinstance(s.at, int) or s.at < 0:
                fail(s, f"{s.place} {s.at}: expected a position")
            if (s.place, s.at) in places:
                fail(s, f"{s.place} {s.at} is there twice")
            places.add((s.place, s.at))
        if s.place == "const":
            if not isinstance(s.at, int) or s.at >= len(plan.constants):
                fail(s, f"there are {len(plan.constants)} constants only")
            v = plan.constants[s.at].value
            if v.shape != s.type.shape or v.dtype != s.type.dtype.numpy:
                fail(s, f"the constant is {v.dtype}{v.shape}, expected {s.type}")
    for place in ("param", "result"):
        positions = sorted(int(p) for q, p in places if q == place)
        if positions != list(range(len(positions))):
            raise VerifyError(f"plan {plan.name}: the {place}s are numbered {positions}, expected 0 to {len(positions) - 1}")


def _environments(plan: Plan) -> list[dict[str, int]]:
    """Values of the sizes at which what is not proved is tried: all equal, and mixed."""
    if not plan.sizes:
        return [{}]
    draw = Random(0)
    mixed = [{n: draw.choice(SAMPLES) for n in plan.sizes} for _ in range(24 if len(plan.sizes) > 1 else 0)]
    return [dict.fromkeys(plan.sizes, v) for v in SAMPLES] + mixed


def _verify_launch(plan: Plan, t: int, x: Launch, kernel: Kernel | None, slots: dict[str, Slot]) -> None:
    def fail(what: str) -> NoReturn:
        raise VerifyError(f"plan {plan.name}: launch {t} ({x.kernel}): {what}")

    if kernel is None:
        fail("there is no such kernel")
    for names, buffers, which in ((x.inputs, kernel.inputs, "inputs"), (x.outputs, kernel.outputs, "outputs")):
        if len(names) != len(buffers):
            fail(f"has {len(names)} {which}, but the kernel {len(buffers)}")
        for n, b in zip(names, buffers, strict=True):
            if n not in slots:
                fail(f"%{n} is no slot")
            if slots[n].type.dtype != b.dtype or slots[n].type.size != b.size:
                fail(f"%{n} is {slots[n].type}, but the buffer {b.name} is {b.dtype}[{','.join(map(str, b.shape))}]")
    if not set(kernel.sizes) <= set(plan.sizes):
        fail(f"the kernel has the sizes {kernel.sizes}, the plan {plan.sizes}")
    if len(set(x.outputs)) != len(x.outputs):
        fail("writes a slot twice")


def _verify_overlaps(plan: Plan, written: dict[str, int], last: dict[str, int], kernels: dict[str, Kernel]) -> None:
    """No launch writes memory of a slot that is alive: written (or given) before, and read at or after this launch; except where the
    kernel may work in place on an input that it is the last to read."""
    position = {(s.place, s.at): s for s in plan.slots}
    shared: dict[str, str] = {}  # result -> parameter whose memory it is
    for r, p in plan.donated:
        result, param = position.get(("result", r)), position.get(("param", p))
        if result is None or param is None or result.type != param.type:
            raise VerifyError(f"plan {plan.name}: donated({r}:{p}): there is no such result and parameter of one type")
        shared[result.name] = param.name
    if len(set(shared.values())) != len(plan.donated):
        raise VerifyError(f"plan {plan.name}: a parameter is donated to two results, or twice")
    slots = plan.by_name
    alive: list[str] = []  # slots of the arena and donated parameters
    for t, x in enumerate(plan.launches):
        alive = [n for n in alive if last.get(n, -1) >= t]
        for o, name in enumerate(x.outputs):
            s = slots[name]
            rivals = [n for n in alive if n != name and slots[n].place == "arena"] if s.place == "arena" else []
            if name in shared and last.get(shared[name], -1) >= t:
                rivals = [shared[name]]
            for n in rivals:
                together = s.place != "arena" or _overlap(plan, s, slots[n])
                inplace = kernels[x.kernel].inplace if isinstance(x, Launch) else x.inplace
                if together and not _in_place(inplace, x, o, n, last[n] == t, slots):
                    raise VerifyError(f"plan {plan.name}: launch {t} ({_what(x)}) writes %{name} over %{n}, "
                                      f"which is needed until launch {last[n]}")
            if s.place == "arena":
                alive.append(name)
                last.setdefault(name, t)


def _overlap(plan: Plan, a: Slot, b: Slot) -> bool:
    """Whether two slots of the arena may share a byte."""
    if a.type.bytes == 0 or b.type.bytes == 0:
        return False
    if at_most(a.at + a.type.bytes, b.at) or at_most(b.at + b.type.bytes, a.at):
        return False

    if all(isinstance(v, int) for v in (a.at, b.at, a.type.bytes, b.type.bytes)):
        return True
    for env in _environments(plan):
        (a0, a1), (b0, b1) = ((evaluate(s.at, env), evaluate(s.at + s.type.bytes, env)) for s in (a, b))
        if max(a0, b0) < min(a1, b1):
            return True
    return False


def _in_place(inplace: Sequence[tuple[int, int]], x: Entry, o: int, name: str, dies: bool, slots: dict[str, Slot]) -> bool:
    """Whether output ``o`` may lie exactly where the slot does that this launch is the last to read."""
    here, there = slots[x.outputs[o]], slots[name]
    positions = [i for i, n in enumerate(x.inputs) if n == name]
    exactly = here.place == "result" or (here.at == there.at and here.type.bytes == there.type.bytes)
    return dies and exactly and bool(positions) and all((o, i) in inplace for i in positions)
