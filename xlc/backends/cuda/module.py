"""Plan -> one module of CUDA C++: a device function for each kernel, an entry for each launch; one for all launches of a kernel.

    plan f { %x = param 0 ... k0(%x) -> (%t); k1(%t) -> (%y) } arena 4096
 ->
    XLC_TABLE(4, 0)                                      params, results, constants, arena, counter
    static __device__ void k0(...) { ... }
    XLC_ENTRY(l0) { k0((const float*)XLC_AT(0), (float*)((char*)XLC_AT(2) + 0), blockIdx.x); }

A loop or branch is one entry, launched with no more blocks than run at a time, which wait for each other between the kernels of its bodies:
neither the host nor Python takes part in an iteration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlc.ir.loops import Expr, Kernel, size
from xlc.ir.plan import Branch, Entry, Launch, Loop, Plan, Slot, aliases, same_place
from xlc.ir.sizes import at
from xlc.ir.types import Dim, Size, Type

from .emit import KernelText, emit_kernel
from .scalar import TYPES

HALF = 114 << 10  # bytes of shared memory, of which two blocks have room on a multiprocessor of some chip
FEW = 96  # words of a thread in arrays, of the 128 registers that it has where two blocks share a multiprocessor
VECTOR = 16  # bytes of the widest access, to which what kernels see is aligned unless it is a row of something


@dataclass(frozen=True)
class EntryPoint:
    """What the host launches: a function's name, the number of blocks (a tree, see ``evaluate``), bytes of shared memory, and whether the
    blocks wait for each other (then ``blocks`` is the most that is useful). ``slots``, of an entry that launches share: where the arrays of
    this one are (place in the table, offset in bytes)."""

    name: str
    blocks: Any
    shared: int
    cooperative: bool
    note: str = ""
    slots: Any = None
    library: Any = None  # instead of the entry: the kernel's claim, its dtype, and where its inputs and output lie (place, offset in bytes)


@dataclass(frozen=True)
class Module:
    """The text of a plan, without what stands in front of it, and its entries in the order in which they run."""

    text: str
    entries: tuple[EntryPoint, ...]
    kernels: tuple[KernelText, ...]


def emit_module(plan: Plan) -> Module:
    return _Module(plan).module()


def tree(e: Expr) -> Any:
    """An expression over sizes as nested lists: ["add", ["size", "n"], 3]."""
    if e.is_const:
        return int(e.value)
    return ["size", e["name"]] if e.op.name == "size" else [e.op.name, *map(tree, e.args)]


def evaluate(t: Any, sizes: Mapping[str, int]) -> int:
    if isinstance(t, int):
        return t
    if t[0] == "size":
        return sizes[t[1]]
    a, b = (evaluate(x, sizes) for x in t[1:])
    return {"add": a + b, "subtract": a - b, "multiply": a * b, "floor_divide": a // b if b else 0, "minimum": min(a, b),
            "maximum": max(a, b)}[t[0]]


def places(plan: Plan) -> dict[str, int]:
    """Where in the table the first parameter, result and constant, the arena and the counter of the barrier stand, and its length."""
    def count(place: str) -> int:
        return 1 + max((s.at for s in plan.slots if s.place == place and isinstance(s.at, int)), default=-1)

    result = count("param")
    const = result + count("result")
    arena = const + len(plan.constants)
    return {"param": 0, "result": result, "const": const, "arena": arena, "counter": arena + 1, "length": arena + 2}


@dataclass
class Frame:
    """A plan whose text is written: C expressions for the addresses of its slots, which of these may be unaligned, and its arena."""

    plan: Plan
    arena: str
    addresses: dict[str, str]
    unaligned: set[str] = field(default_factory=set)


class _Module:
    def __init__(self, plan: Plan):
        self.plan, self.places = plan, places(plan)
        self.kernels = {k.name: k for k in plan.kernels}
        self.variants: dict[tuple[str, frozenset[int], frozenset[int]], KernelText] = {}
        self.names = 0
        base = self.places
        addresses = {s.name: f"XLC_AT({base[s.place] + s.at})" for s in plan.slots if s.place != "arena" and isinstance(s.at, int)}
        self.frame = Frame(plan, f"((char*)XLC_AT({base['arena']}))", addresses)

    def module(self) -> Module:
        entries: list[EntryPoint] = []
        texts: list[str] = []
        counter = f"(unsigned*)XLC_AT({self.places['counter']})"
        if any(not isinstance(x, Launch) for x in self.plan.launches):
            entries.append(EntryPoint("zero", 1, 0, False, "the counter of the barrier"))
            texts.append(f"XLC_ENTRY(zero) {{ if (threadIdx.x == 0) *{counter} = 0; }}")
        times = Counter(self.variant_of(x).name for x in self.plan.launches if isinstance(x, Launch))
        shared: dict[str, str] = {}
        for k, x in enumerate(self.plan.launches):
            name = f"l{k}"
            if isinstance(x, Launch) and (kernel := self.variant_of(x)) and times[kernel.name] > 1:
                if kernel.name not in shared:
                    shared[kernel.name] = name
                    slots = [f"XLC_SLOT({n})" for n in range(len(x.inputs) + len(x.outputs))]
                    head = _entry(name, kernel.registers, kernel.shared, len(slots))
                    texts.append(f"{head} {{ XLC_CALL {self.call(x, kernel, slots, 'blockIdx.x')} }}")
                entries.append(EntryPoint(shared[kernel.name], tree(kernel.blocks), kernel.shared, False, x.note, self.where(x),
                                          self.library(x)))
            elif isinstance(x, Launch):
                text, kernel = self.launch(x, "blockIdx.x")
                entries.append(EntryPoint(name, tree(kernel.blocks), kernel.shared, False, x.note, library=self.library(x)))
                texts.append(f"{_entry(name, kernel.registers, kernel.shared)} {{ {text} }}")
            else:
                self.lines: list[str] = []
                self.depth, self.most, self.shared, self.registers = 1, ["maximum", 1, 1], 0, 0
                self.region(x)
                entries.append(EntryPoint(name, self.most, self.shared, True, x.note))
                head = _entry(name, self.registers, self.shared)
                texts.append("\n".join([f"{head} {{", f"  unsigned* const counter = {counter};", *self.lines, "}"]))
        kernels = tuple(self.variants.values())
        tables = {name: text for k in kernels for name, text in k.tables.items()}
        parts = [f"XLC_TABLE({self.places['length']}, {len(self.plan.sizes)})",
                 *(f"static __device__ const {text}" for text in tables.values()), *(k.function for k in kernels), *texts]
        return Module("\n\n".join(parts) + "\n", tuple(entries), kernels)

    def library(self, x: Launch) -> Any:
        kernel = self.kernels[x.kernel]
        return [kernel.library, kernel.outputs[0].dtype.name, self.where(x)] if kernel.library else None

    def where(self, x: Launch) -> list[Any]:
        """Of each array of a launch, inputs then outputs, its place in the table and its offset in bytes (a tree)."""
        slots = [self.plan.by_name[n] for n in (*x.inputs, *x.outputs)]
        return [[self.places[s.place], tree(size(s.at))] if s.place == "arena" else [self.places[s.place] + at(s.at, 0), 0] for s in slots]

    # -- kernels ----------------------------------------------------------------------------------

    def launch(self, x: Launch, block: str) -> tuple[str, KernelText]:
        """The call of a kernel for one block."""
        text = self.variant_of(x)
        return self.call(x, text, [self.address(n) for n in (*x.inputs, *x.outputs)], block), text

    def call(self, x: Launch, text: KernelText, addresses: Sequence[str], block: str) -> str:
        kernel = self.kernels[x.kernel]
        arguments = [f"({'const ' if k < len(x.inputs) and k not in text.aliased else ''}{TYPES[b.dtype.name]}*){address}"
                     for k, (b, address) in enumerate(zip((*kernel.inputs, *kernel.outputs), addresses, strict=True))]
        return f"{text.name}({', '.join([*arguments, *(self.amount(size(Dim.named(s))) for s in kernel.sizes), block])});"

    def variant_of(self, x: Launch) -> KernelText:
        """The function that a launch calls."""
        frame = self.frame
        loose = frozenset(k for k, n in enumerate((*x.inputs, *x.outputs)) if n in frame.unaligned)
        return self.variant(self.kernels[x.kernel], aliases(frame.plan, x), loose)

    def variant(self, kernel: Kernel, aliased: frozenset[int], unaligned: frozenset[int]) -> KernelText:
        """The kernel's function for buffers that share memory, or need not be aligned to whole vectors, at these positions."""
        key = kernel.name, aliased, unaligned
        if key not in self.variants:
            number = sum(k[0] == kernel.name for k in self.variants)
            self.variants[key] = emit_kernel(kernel, kernel.name + (f"_{number}" if number else ""), aliased, unaligned)
        return self.variants[key]

    def address(self, name: str) -> str:
        frame = self.frame
        found = frame.addresses.get(name)
        if found is None:
            at = self.amount(size(frame.plan.by_name[name].at))
            found = frame.addresses[name] = f"({frame.arena} + {at})"
        return found

    def amount(self, e: Expr | Size) -> str:
        """A size as C, inside an entry."""
        e = e if isinstance(e, Expr) else size(e)
        if e.is_const:
            return f"{e.value}ll"
        if e.op.name == "size":
            return f"XLC_SIZE({self.plan.sizes.index(e['name'])})"
        a, b = map(self.amount, e.args)
        symbol = {"add": "+", "subtract": "-", "multiply": "*", "floor_divide": "/"}[e.op.name]
        return f"({a} {symbol} {b})"

    # -- loops and branches -----------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def open(self, head: str) -> None:
        self.line(head + " {")
        self.depth += 1

    def close(self) -> None:
        self.depth -= 1
        self.line("}")

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def sync(self) -> None:
        self.line("xlc_grid_sync(counter);")

    def entries(self, plan: Plan) -> None:
        for x in plan.launches:
            self.region(x)

    def region(self, x: Entry) -> None:
        if isinstance(x, Launch):
            block = self.name("block")
            text, kernel = self.launch(x, block)
            self.shared, self.registers = max(self.shared, kernel.shared), max(self.registers, kernel.registers)
            self.most = ["maximum", self.most, tree(kernel.blocks)]
            if kernel.blocks.is_const and kernel.blocks.value == 0:
                return
            # a block that computes several parts one after another uses its shared memory again
            again = "__syncthreads(); " if kernel.shared else ""
            count = self.amount(kernel.blocks)
            self.line(f"for (long long {block} = blockIdx.x; {block} < {count}; {block} += gridDim.x) {{ {text} {again}}}")
            self.sync()
            return
        inputs, outputs = ([self.address(n) for n in names] for names in (x.inputs, x.outputs))
        slots = self.frame.plan.by_name
        if isinstance(x, Loop):
            self.loop(x, inputs, outputs, slots)
        else:
            self.branch(x, inputs, outputs)

    def inside(self, plan: Plan, params: Sequence[str], results: Sequence[str], arena: str, loose: Mapping[str, set[int]]) -> None:
        """The launches of an inner plan whose parameters and results lie at these addresses; ``loose`` are positions of unaligned ones."""
        given = {"param": params, "result": results}
        inner = [s for s in plan.slots if s.place in given and isinstance(s.at, int)]
        outer = self.frame
        self.frame = Frame(plan, f"((char*){arena})", {s.name: given[s.place][s.at] for s in inner if isinstance(s.at, int)},
                           {s.name for s in inner if s.at in loose[s.place]})
        self.entries(plan)
        self.frame = outer

    def loose(self, names: Sequence[str]) -> set[int]:
        return {k for k, n in enumerate(names) if n in self.frame.unaligned}

    def branch(self, x: Branch, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        index = self.name("index")
        self.line(f"const long long {index} = *(const volatile long long*){inputs[0]};")
        loose = {"param": self.loose(x.inputs[1:]), "result": self.loose(x.outputs[:-1])}
        for k, body in enumerate(x.bodies):
            last = k == len(x.bodies) - 1  # the last is for all that is larger
            self.open(("else " if k else "") + ("" if last else f"if ({index} <= {k})"))
            self.inside(body, inputs[1:], outputs[:-1], outputs[-1], loose)
            self.close()

    def loop(self, x: Loop, inputs: Sequence[str], outputs: Sequence[str], slots: Mapping[str, Slot]) -> None:
        plan = self.frame.plan
        self.open("")
        home, written = outputs[:x.carries], outputs[x.carries:x.carries + x.rows]
        for j, first in enumerate(inputs[x.fixed:x.fixed + x.carries]):
            if not same_place(plan, slots[x.outputs[j]], slots[x.inputs[x.fixed + j]]):
                self.copy(home[j], first, slots[x.outputs[j]].type)
        self.sync()
        now, spare = list(home), dict(zip(x.swapped, outputs[x.carries + x.rows:], strict=False))
        for j in x.swapped:
            one, two = self.name("now"), self.name("next")
            self.line(f"char *{one} = (char*){home[j]}, *{two} = (char*){spare[j]};")
            now[j], spare[j] = one, two
        i, trips = self.name("i"), "" if x.trips is None else self.amount(x.trips)
        if x.trips is None:
            self.open(f"while (*(const volatile bool*){now[0]})")
            self.sync()  # nobody writes the condition before everybody has read it
            row = "0"
        else:
            self.open(f"for (long long {i} = 0; {i} < {trips}; ++{i})")
            row = f"({trips} - 1 - {i})" if x.reverse else i

        def rows(pointers: Sequence[str], names: Sequence[str]) -> list[str]:
            return [f"((char*){p} + {row} * {self.amount(_row(slots[n].type).bytes)})" for p, n in zip(pointers, names, strict=True)]

        into, stacked = x.outputs[x.carries:][:x.rows], x.inputs[x.fixed + x.carries:]
        following = [spare.get(j, now[j]) for j in range(x.carries)]
        loose = {"param": self.loose(x.inputs) | self.unaligned_rows(stacked, x.fixed + x.carries),
                 "result": self.loose(x.outputs) | self.unaligned_rows(into, x.carries)}
        self.inside(x.body, [*inputs[:x.fixed], *now, *rows(inputs[x.fixed + x.carries:], stacked)], [*following, *rows(written, into)],
                    outputs[-1], loose)
        for j in x.swapped:
            self.line(f"{{ char* const other = {now[j]}; {now[j]} = {spare[j]}; {spare[j]} = other; }}")
        self.close()
        for j in x.swapped:
            self.line(f"if ({now[j]} != (char*){home[j]}) {{")
            self.depth += 1
            self.copy(home[j], now[j], slots[x.outputs[j]].type)
            self.close()
        self.sync()
        self.close()

    def unaligned_rows(self, names: Sequence[str], first: int) -> set[int]:
        """Positions of what is seen row by row, where rows do not end at whole vectors."""
        slots = self.frame.plan.by_name
        rows = [(k, _row(slots[n].type).bytes) for k, n in enumerate(names)]
        return {first + k for k, b in rows if not isinstance(b, int) or b % VECTOR}

    def copy(self, into: str, source: str, type: Type) -> None:
        """All blocks together copy the elements, unless both are one."""
        c, i = TYPES[type.dtype.name], self.name("i")
        self.line(f"if ({into} != {source}) for (long long {i} = blockIdx.x * 256ll + threadIdx.x; {i} < {self.amount(type.size)}; "
                  f"{i} += gridDim.x * 256ll) (({c}*){into})[{i}] = ((const {c}*){source})[{i}];")


def _entry(name: str, registers: int, shared: int, slots: int | None = None) -> str:
    """The head of an entry (that launches share, with so many slots). Where a thread's arrays, and the shared memory, leave room for two
    blocks on a multiprocessor, the compiler need not make room for more."""
    enough = ", 2" if registers <= FEW and shared <= HALF else ""
    return f"XLC_ENTRY({name}{enough})" if slots is None else f"XLC_SHARED_ENTRY({name}, {slots}{enough})"


def _row(t: Type) -> Type:
    return Type(t.dtype, t.shape[1:])


__all__ = ["EntryPoint", "Module", "emit_module", "evaluate", "places", "tree"]
