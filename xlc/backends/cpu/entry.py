"""Plan -> LLVM text: the kernels, and the entry function that calls them in order (docs/abi.md).

    plan main { %x = param 0; %h = arena 0; %y = result 0;  k0(%x) -> (%h);  k1(%h) -> (%y) }
 -> define i32 @main(ptr %buffers, ptr %dims, ptr %workspace, ptr %par) { ... call void @main.k0(ptr %x, ptr %h, i64 0, i64 8) ... }
    define i64 @main_workspace(ptr %dims)

A launch whose outermost loop is parallel runs through ``par->run`` where there are threads, at least two iterations, and enough
work to be worth a fork; otherwise it is a plain call. The outcome is the same, bit for bit. """

from __future__ import annotations

import re
from collections.abc import Sequence

from xlc.ir.loops import Expr, Kernel, const, size
from xlc.ir.loops import expr as make_expr
from xlc.ir.op import lookup
from xlc.ir.plan import Launch, Plan
from xlc.ir.types import Size, i64

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
    for launch in plan.launches:
        aliased[launch.kernel] = aliased.get(launch.kernel, frozenset()) | aliases(plan, launch)
    kernels = [emit_kernel(k, target, aliased.get(k.name, frozenset()), f"{name}.{symbol(k.name)}") for k in plan.kernels]
    entry = EntryEmitter(plan, dict(zip((k.name for k in plan.kernels), kernels, strict=True)))
    functions = [*entry.thunks(), entry.function(), entry.workspace()]
    parts: list[list[KernelText]] = [[] for _ in range(max(modules, 1))]
    for k in sorted(kernels, key=lambda k: -len(k.function)):  # the longest first, each to the module that is shortest so far
        min(parts, key=lambda p: sum(len(x.function) for x in p)).append(k)
    elsewhere = frozenset(_declaration(k) for p in parts[1:] for k in p)
    main = KernelText(name, "\n".join(functions), elsewhere | frozenset(entry.declared), {})
    return [module_text([*parts[0], main]), *(module_text(p) for p in parts[1:] if p)]


def _declaration(k: KernelText) -> str:
    head = k.function.partition("\n")[0]
    return re.sub(r" %[\w.]+", "", head.replace("define hidden", "declare hidden").rpartition(" #0")[0])


def aliases(plan: Plan, launch: Launch) -> frozenset[int]:
    """Positions (inputs, then outputs) of the buffers of a launch that share memory with another one, of which one is written."""
    slots = [plan.by_name[n] for n in (*launch.inputs, *launch.outputs)]
    donated = frozenset(plan.donated)
    found: set[int] = set()
    for o in range(len(launch.inputs), len(slots)):
        for k in range(o):
            a, b = slots[k], slots[o]
            same = a is b or (a.place == b.place == "arena" and a.at == b.at)
            if same or (a.place == "param" and b.place == "result" and (b.at, a.at) in donated):
                found |= {k, o}
    return frozenset(found)


class EntryEmitter(Values):
    def __init__(self, plan: Plan, kernels: dict[str, KernelText]):
        super().__init__(f"plan {plan.name}")
        self.plan, self.kernels, self.symbol = plan, kernels, symbol(plan.name)
        self.by_name = {k.name: k for k in plan.kernels}
        self.slots = plan.by_name
        self.addresses: dict[str, str] = {}
        self.sizes = sorted(plan.sizes)

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
        threads = self.threads() if any(self.may_fork(launch) for launch in self.plan.launches) else "1"
        for launch in self.plan.launches:
            self.launch(launch, threads)
        return self.text(f"define dso_local i32 @{self.symbol}(ptr %buffers, ptr %dims, ptr %workspace, ptr %par) #1 {{", "  ret i32 0")

    def threads(self) -> str:
        """par->threads, or 1."""
        self.stream += ["  %serial = icmp eq ptr %par, null", "  br i1 %serial, label %counted, label %several", "several:",
                        "  %threads.at = getelementptr inbounds i8, ptr %par, i64 8", "  %threads.some = load i64, ptr %threads.at",
                        "  br label %counted", "counted:", "  %threads = phi i64 [ %threads.some, %several ], [ 1, %BEFORE ]"]
        self.stream[-1] = self.stream[-1].replace("%BEFORE", "%start" if self.sizes else "%entry")
        return "%threads"

    def address(self, name: str) -> str:
        """The pointer to a slot's memory."""
        found = self.addresses.get(name)
        if found is not None:
            return found
        slot, plan = self.slots[name], self.plan
        if slot.place == "arena":
            at = self.amount(slot.at)
            pointer = self.emit(f"getelementptr inbounds i8, ptr %workspace, i64 {at}") if at != "0" else "%workspace"
        else:
            params, results = (_count(plan, place) for place in ("param", "result"))
            index = slot.at + {"param": 0, "result": params, "const": params + results}[slot.place]
            at = self.emit(f"getelementptr inbounds ptr, ptr %buffers, i64 {index}")
            pointer = self.emit(f"load ptr, ptr {at}")
        self.addresses[name] = pointer
        return pointer

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

    def launch(self, launch: Launch, threads: str) -> None:
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
        conditions = [self.emit(f"icmp sgt i64 {threads}, 1")]
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
        for kernel in {launch.kernel: self.by_name[launch.kernel] for launch in self.plan.launches if self.may_fork(launch)}.values():
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


def _size(name: str) -> Expr:
    return make_expr(lookup("size"), (), i64, (("name", name),))


def _count(plan: Plan, place: str) -> int:
    """How many buffers of a kind the caller passes."""
    return 1 + max((s.at for s in plan.slots if s.place == place and isinstance(s.at, int)), default=-1)


__all__ = ["FORK", "EntryEmitter", "aliases", "emit_plan", "symbol"]
