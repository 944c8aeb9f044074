"""Plan -> LLVM text: the kernels, and the entry function that calls them in order (docs/abi.md).

    plan main { %x = param 0; %h = arena 0; %y = result 0;  k0(%x) -> (%h);  k1(%h) -> (%y) }
 -> define i32 @main(ptr %buffers, ptr %dims, ptr %workspace, ptr %par) { ... call void @main.k0(ptr %x, ptr %h, i64 0, i64 8) ... }
    define i64 @main_workspace(ptr %dims)

A loop or branch of the plan is a loop or branch of this function, around the calls of the kernels of its bodies.

A launch whose outermost loop is parallel runs through ``par->run`` where there are threads, at least two iterations, and enough
work to be worth a fork; otherwise it is a plain call. The outcome is the same, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xlc.ir.loops import Expr, Kernel, const, size
from xlc.ir.loops import expr as make_expr
from xlc.ir.op import lookup
from xlc.ir.plan import Branch, Launch, Loop, Plan, aliases, same_place
from xlc.ir.types import Size, Type, i64

from .emit import KernelText, emit_kernel, module_text, parallel_loop
from .target import Target
from .values import Values, is_number
from .writer import flatten

FORK = 24_000
"""Instructions below which a launch stays on the caller's thread: about 4 microseconds at 2 per cycle."""


def symbol(name: str) -> str:
    """A plan's name as a linker symbol."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return f"_{text}" if text[0].isdigit() else text


def emit_plan(plan: Plan, target: Target, modules: int = 1) -> list[str]:
    """The LLVM text of a plan, as that many modules; the first holds the entry function."""
    name = symbol(plan.name)
    aliased: dict[str, frozenset[int]] = {}
    for inner, launch in plan.everywhere():
        aliased[launch.kernel] = aliased.get(launch.kernel, frozenset()) | aliases(inner, launch)
    kernels = [emit_kernel(k, target, aliased.get(k.name, frozenset()), f"{name}.{symbol(k.name)}") for k in plan.kernels]
    entry = EntryEmitter(plan, dict(zip((k.name for k in plan.kernels), kernels, strict=True)))
    functions = [*entry.thunks(), entry.function(), entry.workspace(), *entry.copying]
    parts: list[list[KernelText]] = [[] for _ in range(max(modules, 1))]
    for k in sorted(kernels, key=lambda k: -len(k.function)):  # the longest first, each to the module that is shortest so far
        min(parts, key=lambda p: sum(len(x.function) for x in p)).append(k)
    elsewhere = frozenset(_declaration(k) for p in parts[1:] for k in p)
    main = KernelText(name, "\n".join(functions), elsewhere | frozenset(entry.declared), {})
    return [module_text([*parts[0], main]), *(module_text(p) for p in parts[1:] if p)]


def _declaration(k: KernelText) -> str:
    head = k.function.partition("\n")[0]
    return re.sub(r" %[\w.]+", "", head.replace("define hidden", "declare hidden").rpartition(" #0")[0])


@dataclass
class Frame:
    """A plan as it is being emitted: pointers to its slots as far as they are known, and to its arena."""

    plan: Plan
    arena: str
    addresses: dict[str, str]


class EntryEmitter(Values):
    def __init__(self, plan: Plan, kernels: dict[str, KernelText]):
        super().__init__(f"plan {plan.name}")
        self.plan, self.kernels, self.symbol = plan, kernels, symbol(plan.name)
        self.by_name = {k.name: k for k in plan.kernels}
        self.frame = Frame(plan, "%workspace", {})
        self.sizes = sorted(plan.sizes)
        self.threads = "1"
        self.copying: list[str] = []  # the function that copies bytes, where it is needed

    def text(self, head: str, *last: str) -> str:
        return "\n".join([head, "entry:", *flatten(self.entry), *flatten(self.stream), *last, "}"])

    def begin(self) -> None:
        """A new function, whose sizes are read from %dims."""
        self.entry, self.stream, self.memo = [], [], {}
        self.out = self.stream
        for k, s in enumerate(self.sizes):
            at = self.emit(f"getelementptr inbounds i64, ptr %dims, i64 {k}") if k else "%dims"
            self.stream.append(f"  %n.{s} = load i64, ptr {at}")

    def amount(self, s: Size | Expr) -> str:
        value = self.value(s if isinstance(s, Expr) else size(s))
        self.out = self.stream
        assert isinstance(value, str)
        return value

    def workspace(self) -> str:
        self.begin()
        amount = self.amount(self.plan.arena)
        return self.text(f"define dso_local i64 @{self.symbol}_workspace(ptr %dims) #1 {{", f"  ret i64 {amount}")

    def function(self) -> str:
        self.begin()
        if self.sizes:
            bad = "false"
            for s in self.sizes:
                bad = self.emit(f"or i1 {bad}, {self.emit(f'icmp slt i64 %n.{s}, 0')}")
            self.stream += [f"  br i1 {bad}, label %invalid, label %start", "invalid:", "  ret i32 1", "start:"]
        if any(self.may_fork(launch) for _, launch in self.plan.everywhere()):
            self.threads = self.count_threads()
        self.launches(self.plan)
        return self.text(f"define dso_local i32 @{self.symbol}(ptr %buffers, ptr %dims, ptr %workspace, ptr %par) #1 {{", "  ret i32 0")

    def count_threads(self) -> str:
        """par->threads, or 1."""
        self.stream += ["  %serial = icmp eq ptr %par, null", "  br i1 %serial, label %counted, label %several", "several:",
                        "  %threads.at = getelementptr inbounds i8, ptr %par, i64 8", "  %threads.some = load i64, ptr %threads.at",
                        "  br label %counted", "counted:", "  %threads = phi i64 [ %threads.some, %several ], [ 1, %BEFORE ]"]
        self.stream[-1] = self.stream[-1].replace("%BEFORE", "%start" if self.sizes else "%entry")
        return "%threads"

    def address(self, name: str) -> str:
        """The pointer to a slot's memory."""
        frame = self.frame
        found = frame.addresses.get(name)
        if found is not None:
            return found
        slot, plan = frame.plan.by_name[name], frame.plan
        if slot.place == "arena":
            at = self.amount(slot.at)
            pointer = self.emit(f"getelementptr inbounds i8, ptr {frame.arena}, i64 {at}") if at != "0" else frame.arena
        else:
            params, results = (_count(plan, place) for place in ("param", "result"))
            index = slot.at + {"param": 0, "result": params, "const": params + results}[slot.place]
            at = self.emit(f"getelementptr inbounds ptr, ptr %buffers, i64 {index}")
            pointer = self.emit(f"load ptr, ptr {at}")
        frame.addresses[name] = pointer
        return pointer

    # ------------------------------------------------------------------ loops and branches

    def launches(self, plan: Plan) -> None:
        for x in plan.launches:
            if isinstance(x, Launch):
                self.launch(x)
                continue
            inputs, outputs = ([self.address(n) for n in names] for names in (x.inputs, x.outputs))
            self.enter()
            if isinstance(x, Loop):
                self.loop(x, inputs, outputs)
            else:
                self.branch(x, inputs, outputs)
            self.leave()

    def inside(self, plan: Plan, params: Sequence[str], results: Sequence[str], arena: str) -> None:
        """The launches of an inner plan whose parameters and results lie at these addresses."""
        given = {"param": params, "result": results}
        addresses = {s.name: given[s.place][s.at] for s in plan.slots if s.place in given and isinstance(s.at, int)}
        outer, self.frame = self.frame, Frame(plan, arena, addresses)
        self.launches(plan)
        self.frame = outer

    def branch(self, x: Branch, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        index, done = self.emit(f"load i64, ptr {inputs[0]}"), self.name("done")
        for k, body in enumerate(x.bodies):
            if k < len(x.bodies) - 1:  # the last is for all that is larger
                this, other = self.name("branch"), self.name("other")
                self.do(f"br i1 {self.emit(f'icmp sle i64 {index}, {k}')}, label %{this}, label %{other}")
                self.stream.append(f"{this}:")
            self.enter()
            self.inside(body, inputs[1:], outputs[:-1], outputs[-1])
            self.leave()
            self.stream.append(f"  br label %{done}")
            if k < len(x.bodies) - 1:
                self.stream.append(f"{other}:")
        self.stream.append(f"{done}:")

    def loop(self, x: Loop, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        slots, plan = self.frame.plan.by_name, self.frame.plan
        home, written = outputs[:x.carries], outputs[x.carries:x.carries + x.rows]
        for j, first in enumerate(inputs[x.fixed:x.fixed + x.carries]):
            if not same_place(plan, slots[x.outputs[j]], slots[x.inputs[x.fixed + j]]):
                self.copy(home[j], first, slots[x.outputs[j]].type.bytes)
        last = None if x.trips is None else self.amount(x.trips)
        strides = {n: self.amount(_row(slots[n].type).bytes) for n in (*x.inputs[x.fixed + x.carries:], *x.outputs[x.carries:][:x.rows])}
        self.out = self.stream
        before, head, body, after = (self.name(stem) for stem in ("before", "head", "body", "after"))
        count = f"%{self.name('i')}"
        now, spare = list(home), list(outputs[x.carries + x.rows:-1])
        phis: list[str] = []
        for k, j in enumerate(x.swapped):
            one, two = f"%{self.name('now')}", f"%{self.name('next')}"
            phis += [f"  {one} = phi ptr [ {home[j]}, %{before} ], [ {two}, %{body}.end ]",
                     f"  {two} = phi ptr [ {spare[k]}, %{before} ], [ {one}, %{body}.end ]"]
            now[j], spare[k] = one, two
        self.stream += [f"  br label %{before}", f"{before}:", f"  br label %{head}", f"{head}:",
                        f"  {count} = phi i64 [ 0, %{before} ], [ {count}.more, %{body}.end ]", *phis]
        go = self.emit(f"icmp ne i8 {self.emit(f'load i8, ptr {now[0]}')}, 0") if last is None \
            else self.emit(f"icmp slt i64 {count}, {last}")
        self.stream += [f"  br i1 {go}, label %{body}, label %{after}", f"{body}:"]
        row = count
        if x.reverse:
            row = self.emit(f"sub i64 {self.emit(f'sub i64 {last}, 1')}, {count}")

        def rows(pointers: Sequence[str], names: Sequence[str]) -> list[str]:
            return [self.emit(f"getelementptr inbounds i8, ptr {p}, i64 {self.emit(f'mul i64 {row}, {strides[n]}')}")
                    for p, n in zip(pointers, names, strict=True)]

        following = list(now)
        for k, j in enumerate(x.swapped):
            following[j] = spare[k]
        stacked, into = rows(inputs[x.fixed + x.carries:], x.inputs[x.fixed + x.carries:]), rows(written, x.outputs[x.carries:][:x.rows])
        self.enter()
        self.inside(x.body, [*inputs[:x.fixed], *now, *stacked], [*following, *into], outputs[-1])
        self.leave()
        self.stream += [f"  br label %{body}.end", f"{body}.end:", f"  {count}.more = add i64 {count}, 1", f"  br label %{head}",
                        f"{after}:"]
        for j in x.swapped:
            self.copy(home[j], now[j], slots[x.outputs[j]].type.bytes)

    def copy(self, into: str, source: str, bytes_: Size) -> None:
        """Copy bytes, unless both pointers are equal."""
        self.copying = self.copying or [_COPY.replace("@copy", f"@{self.symbol}.copy")]
        self.do(f"call void @{self.symbol}.copy(ptr {into}, ptr {source}, i64 {self.amount(bytes_)})")

    # ------------------------------------------------------------------ kernels

    def trips(self, kernel: Kernel) -> Expr:
        """The iterations of the outermost parallel loop; 1 where there is none."""
        loop = parallel_loop(kernel)
        if loop is None:
            return const(1)
        return (loop.stop - loop.start + (loop.step - 1)) // loop.step if loop.step > 1 else loop.stop - loop.start

    def cost(self, kernel: Kernel) -> Expr:
        """About how many instructions a launch runs."""
        total = const(0)
        for m, c in self.kernels[kernel.name].work.items():
            term = const(max(round(c), 1) if c > 0 else 0)
            for a in m:
                term = term * a
            total = total + term
        return total

    def may_fork(self, launch: Launch) -> bool:
        kernel = self.by_name[launch.kernel]
        work, trips = self.cost(kernel), self.trips(kernel)
        return parallel_loop(kernel) is not None and not (work.is_const and work.value < FORK) and not (trips.is_const and trips.value < 2)

    def launch(self, launch: Launch) -> None:
        kernel = self.by_name[launch.kernel]
        name = self.kernels[kernel.name].name
        pointers = [self.address(n) for n in (*launch.inputs, *launch.outputs)]
        sizes = [self.amount(_size(s)) for s in kernel.sizes]
        trips = self.amount(self.trips(kernel))
        if trips == "0":
            return
        direct = f"call void @{name}({', '.join([*(f'ptr {p}' for p in pointers), *(f'i64 {s}' for s in sizes), 'i64 0', f'i64 {trips}'])})"
        if not self.may_fork(launch):
            self.do(direct)
            return
        conditions = [self.emit(f"icmp sgt i64 {self.threads}, 1")]
        if not is_number(trips):
            conditions.append(self.emit(f"icmp sgt i64 {trips}, 1"))
        work = self.amount(self.cost(kernel))
        if not is_number(work):
            conditions.append(self.emit(f"icmp sge i64 {work}, {FORK}"))
        fork = conditions[0]
        for c in conditions[1:]:
            fork = self.emit(f"and i1 {fork}, {c}")
        several, alone, done = self.name("several"), self.name("alone"), self.name("done")
        self.stream += [f"  br i1 {fork}, label %{several}, label %{alone}", f"{several}:"]
        self.fork(name, pointers, sizes, trips)
        self.stream += [f"  br label %{done}", f"{alone}:", f"  {direct}", f"  br label %{done}", f"{done}:"]

    def fork(self, name: str, pointers: Sequence[str], sizes: Sequence[str], trips: str) -> None:
        """par->run(par->ctx, thunk, closure, trips), the closure holding the kernel's other arguments."""
        closure = f"%{self.name('closure')}"
        self.entry.append(f"  {closure} = alloca [{len(pointers) + len(sizes)} x i64], align 8")
        for k, (ty, value) in enumerate([*(("ptr", p) for p in pointers), *(("i64", s) for s in sizes)]):
            at = self.emit(f"getelementptr inbounds i8, ptr {closure}, i64 {8 * k}")
            self.do(f"store {ty} {value}, ptr {at}")
        context = self.emit("load ptr, ptr %par")
        run = self.emit(f"load ptr, ptr {self.emit('getelementptr inbounds i8, ptr %par, i64 16')}")
        self.do(f"call void {run}(ptr {context}, ptr @{name}.task, ptr {closure}, i64 {trips})")

    def thunks(self) -> list[str]:
        """For each kernel that may fork: void task(closure, lo, hi)."""
        out = []
        for kernel in {x.kernel: self.by_name[x.kernel] for _, x in self.plan.everywhere() if self.may_fork(x)}.values():
            self.entry, self.stream = [], []
            self.out = self.stream
            name = self.kernels[kernel.name].name
            args = []
            pointers = len(kernel.inputs) + len(kernel.outputs)
            for k in range(pointers + len(kernel.sizes)):
                ty = "ptr" if k < pointers else "i64"
                at = self.emit(f"getelementptr inbounds i8, ptr %closure, i64 {8 * k}")
                args.append(f"{ty} {self.emit(f'load {ty}, ptr {at}')}")
            self.do(f"call void @{name}({', '.join([*args, 'i64 %lo', 'i64 %hi'])})")
            out.append(self.text(f"define internal void @{name}.task(ptr %closure, i64 %lo, i64 %hi) #1 {{", "  ret void"))
        return out


_COPY = """define internal void @copy(ptr %into, ptr %from, i64 %bytes) #0 {
entry:
  %same = icmp eq ptr %into, %from
  br i1 %same, label %end, label %blocks
blocks:
  %i = phi i64 [ 0, %entry ], [ %i.more, %block ]
  %i.more = add i64 %i, 64
  %whole = icmp sle i64 %i.more, %bytes
  br i1 %whole, label %block, label %rest
block:
  %a = getelementptr inbounds i8, ptr %from, i64 %i
  %b = getelementptr inbounds i8, ptr %into, i64 %i
  %v = load <64 x i8>, ptr %a, align 1
  store <64 x i8> %v, ptr %b, align 1
  br label %blocks
rest:
  %j = phi i64 [ %i, %blocks ], [ %j.more, %byte ]
  %more = icmp slt i64 %j, %bytes
  br i1 %more, label %byte, label %end
byte:
  %c = getelementptr inbounds i8, ptr %from, i64 %j
  %d = getelementptr inbounds i8, ptr %into, i64 %j
  %w = load i8, ptr %c
  store i8 %w, ptr %d
  %j.more = add i64 %j, 1
  br label %rest
end:
  ret void
}"""


def _row(t: Type) -> Type:
    return t.with_shape(t.shape[1:])


def _size(name: str) -> Expr:
    return make_expr(lookup("size"), (), i64, (("name", name),))


def _count(plan: Plan, place: str) -> int:
    """How many buffers of a kind the caller passes."""
    return 1 + max((s.at for s in plan.slots if s.place == place and isinstance(s.at, int)), default=-1)


__all__ = ["FORK", "EntryEmitter", "emit_plan", "symbol"]
