"""Kernel -> CUDA C++ of one device function.

    kernel k0(in b0: f32[1024], out b1: f32[1024]) { block b in 0..4 { thread t in 0..256 { b1[b*256+t] = sqrt(b0[b*256+t]) } } }
 -> static __device__ void k0(const float* __restrict__ b0, float* __restrict__ b1, int block) {
      const int t = threadIdx.x;
      { const int e1 = ((block * 256) + t); const float e2 = b0[e1]; const float e3 = sqrtf(e2); b1[e1] = e3; }
    }

All threads of a block run what stands outside of thread loops, each for itself. A thread loop is what they do side by side: where one
touches what another thread of an earlier one may have touched (shared or global memory, of which one writes), there is a
``__syncthreads()`` between them. A local register array in front of thread loops has a row for each thread, which is registers of that
thread; ``x[t ^ 16]``, the register of another lane of the warp, is a shuffle. What is copied in the background counts as written from the
wait on, behind which a barrier stands. Products of four warps read shared memory past all that (through the asynchronous proxy): in a
kernel that has such, every barrier has a fence before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from xlc.backends.cstyle import Printer, Value
from xlc.errors import XlcNotImplementedError
from xlc.ir.loops import (
    LOAD,
    Buffer,
    Expr,
    If,
    Kernel,
    Let,
    Local,
    Loop,
    Mma,
    Stmt,
    Store,
    Wait,
    const,
    expressions,
    statements,
    substitute,
    var,
    walk,
)
from xlc.ir.types import product

from .scalar import SCALARS, TYPES
from .tensor_cores import mma_lines
from .warpgroup import warpgroup_lines

THREADS = 256
WARP = 32
ALIGNMENT = 128  # of what lies in shared memory
PANELS = 1024  # of operands of four warps
QUOTIENT_LANES = 4  # lanes from which a divisor is worth a reciprocal
QUOTIENTS = ("f32", "f16", "bf16")
COPIES = (4, 8, 16)  # bytes that may be copied to shared memory in the background

Touched = Mapping[Buffer, str]  # buffer -> some of "r", "w", and "a": copied to in the background, and not waited for


@dataclass(frozen=True)
class KernelText:
    """A device function: its text, the constant tables that it reads, the bytes of shared memory it needs, the number of its blocks, the
    words that a thread has in arrays."""

    name: str
    function: str
    tables: Mapping[str, str]
    shared: int
    blocks: Expr
    aliased: frozenset[int] = frozenset()
    registers: int = 0

    def __str__(self) -> str:
        return self.function


def emit_kernel(kernel: Kernel, symbol: str = "", aliased: frozenset[int] = frozenset(),
                unaligned: frozenset[int] = frozenset()) -> KernelText:
    """The function of a kernel. The buffers at the positions ``aliased`` (inputs, then outputs) may share memory, those at ``unaligned``
    need not begin at a multiple of 16 bytes."""
    return _Emitter(kernel, symbol or kernel.name, aliased, unaligned).text()


def grid(kernel: Kernel) -> Loop | None:
    """The loop over blocks; None of a kernel that does nothing."""
    if not kernel.body:
        return None
    only = kernel.body[0]
    if len(kernel.body) != 1 or not isinstance(only, Loop) or only.kind != "block":
        raise XlcNotImplementedError(f"kernel {kernel.name}: a kernel for a GPU is one loop over blocks")
    return only


class _Emitter(Printer):
    def __init__(self, kernel: Kernel, symbol: str, aliased: frozenset[int], unaligned: frozenset[int]):
        buffers = (*kernel.inputs, *kernel.outputs)
        readonly = frozenset(b for k, b in enumerate(kernel.inputs) if k not in aliased)
        super().__init__(kernel, SCALARS, readonly, {b: b.name for b in buffers})
        self.unaligned = frozenset(buffers[k] for k in unaligned)
        self.symbol, self.aliased = symbol, aliased
        self.perhaps_one = frozenset(buffers[k] for k in aliased)
        self.shared = 0
        self.rows: set[Buffer] = set()  # register arrays with a row for each thread
        self.thread: Expr | None = None
        self.nested = 0  # conditions and loops of a single thread
        self.touched: dict[int, Touched] = {}
        late = [s for s in statements(kernel.body) if isinstance(s, Mma) and s.group > WARP]
        self.panels = {b for s in late for b in (s.a, s.b)}
        self.late = {s.acc for s in late}
        self.results: list[Buffer] = []  # of these, those that are declared here
        self.quotients: Mapping[Expr, str] = {}  # of all lanes by one divisor: where they are

    def text(self) -> KernelText:
        kernel = self.kernel
        loop = grid(kernel)
        params = [f"{'const ' if k < len(kernel.inputs) and k not in self.aliased else ''}{TYPES[b.dtype.name]}*"
                  f"{'' if k in self.aliased else ' __restrict__'} {b.name}" for k, b in enumerate((*kernel.inputs, *kernel.outputs))]
        params += [*(f"const long long n_{s}" for s in kernel.sizes), "const int block"]
        if loop is not None:
            self.line("const int t = threadIdx.x;")
            self.variable(loop.var, Value("block", True, (0.0, loop.stop.value - 1.0 if loop.stop.is_const else 2.0**31 - 1)))
            self.uniform(loop.body, {})
        note = f"// {kernel.note}\n" if kernel.note else ""
        function = "\n".join([f"{note}static __device__ void {self.symbol}({', '.join(params)}) {{", *self.lines, "}"])
        return KernelText(self.symbol, function, dict(self.tables), self.shared, loop.stop if loop else const(0),
                          self.aliased, _words(kernel))

    # -- what all threads of a block run ----------------------------------------------------------

    def uniform(self, body: Sequence[Stmt], pending: Touched) -> Touched:
        """Prints; ``pending`` is what threads have touched since the last barrier. Returns what is pending at the end."""
        outside = len(self.results)
        for s in body:
            if not isinstance(s, Let):
                self.forget()
            if self.conflict(s, pending):
                if self.panels:
                    self.line("xlc_fence_proxy_async();")
                self.line("__syncthreads();")
                pending = _behind(pending)
            match s:
                case Local(b):
                    self.declare(b)
                case Let():
                    self.statement(s)
                    pending = _joined(pending, self.touches(s))
                case If():
                    self.forget()
                    self.enter(f"if ({self.value(s.condition).text})")
                    pending = _joined(pending, self.touches(Let("", s.condition)))
                    yes = self.uniform(s.body, pending)
                    self.leave()
                    no = pending
                    if s.orelse:
                        self.enter("else")
                        no = self.uniform(s.orelse, pending)
                        self.leave()
                    pending = _joined(yes, no)
                case Loop(kind="thread"):
                    self.threads(s)
                    pending = _joined(pending, self.touches(s))
                case Loop(kind="serial" | "unroll"):
                    pending = self.uniform_loop(s, pending)
                case Wait():
                    self.statement(s)
                    pending = _waited(pending, s)
                case _:
                    raise XlcNotImplementedError(f"kernel {self.kernel.name}: {type(s).__name__} stands outside of a loop over threads")
            if not isinstance(s, Let):
                self.forget()
        del self.results[outside:]
        return pending

    def uniform_loop(self, s: Loop, pending: Touched) -> Touched:
        """What is pending at the head is what is pending in front of the loop, or at the end of an iteration."""
        head = pending
        for _ in range(3):
            head = _joined(head, self.flow(s.body, head))
        start, stop = self.value(s.start), self.value(s.stop)
        self.line("#pragma unroll" + ("" if s.kind == "unroll" else " 1"))
        outer, self.body_of = self.body_of, head
        self.counted(s, start, stop)
        head, self.body_of = self.body_of, outer
        return _joined(pending, head)

    body_of: Touched | None = None

    def body(self, body: Sequence[Stmt]) -> None:
        if self.thread is None and self.body_of is not None:
            self.body_of = self.uniform(body, self.body_of)
        else:
            super().body(body)

    def flow(self, body: Sequence[Stmt], pending: Touched) -> Touched:
        """As ``uniform``, without printing."""
        for s in body:
            if self.conflict(s, pending):
                pending = _behind(pending)
            match s:
                case Wait():
                    pending = _waited(pending, s)
                case If():
                    pending = _joined(pending, self.touches(Let("", s.condition)))
                    pending = _joined(self.flow(s.body, pending), self.flow(s.orelse, pending))
                case Loop(kind="serial" | "unroll"):
                    head = pending
                    for _ in range(3):
                        head = _joined(head, self.flow(s.body, head))
                    pending = head
                case Loop(kind="thread") | Let():
                    pending = _joined(pending, self.touches(s))
        return pending

    def touches(self, s: Stmt) -> Touched:
        """What a statement reads and writes that several threads see."""
        found = self.touched.get(id(s))
        if found is None:
            uses: dict[Buffer, set[str]] = {}
            copies = {id(x) for v in statements((s,)) if isinstance(v, Loop) and v.kind == "async" for x in v.body}
            for x in statements((s,)):
                for e in walk(*expressions(x)):
                    if e.op is LOAD:
                        uses.setdefault(e["buffer"], set()).add("r")
                if isinstance(x, Mma):
                    uses.setdefault(x.a, set()).add("r")
                    uses.setdefault(x.b, set()).add("r")
                if isinstance(x, Store):
                    uses.setdefault(x.buffer, set()).add("a" if id(x) in copies else "w")
            found = {b: "".join(sorted(u)) for b, u in uses.items() if b.space != "register" and b not in self.readonly}
            if not isinstance(s, Let) or s.name:
                self.touched[id(s)] = found
        return found

    def conflict(self, s: Stmt, pending: Touched) -> bool:
        """Whether a barrier must stand in front of a statement."""
        if isinstance(s, If):
            s = Let("", s.condition)
        if not isinstance(s, Let) and not (isinstance(s, Loop) and s.kind == "thread"):
            return False
        found = ((use, pending[b]) for b, use in self.touches(s).items() if b in pending)
        return any("w" in before or "r" in before and use != "r" for use, before in found)

    def declare(self, b: Buffer) -> None:
        if not all(isinstance(s, int) for s in b.shape):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: the local buffer {b.name} has the size {b.size}; it must be a number")
        self.names[b] = name = self.name(f"{b.name}_")
        if b.space == "shared":
            assert isinstance(b.size, int)
            alignment = PANELS if b in self.panels else ALIGNMENT
            self.shared = -(-self.shared // alignment) * alignment
            self.line(f"{TYPES[b.dtype.name]}* const {name} = ({TYPES[b.dtype.name]}*)(xlc_shared + {self.shared});")
            self.shared += -(-b.size * b.dtype.bytes // ALIGNMENT) * ALIGNMENT
        else:
            if b.shape[:1] != (THREADS,):
                raise XlcNotImplementedError(f"kernel {self.kernel.name}: registers of a block need one row for each of {THREADS} threads, "
                                             f"found {b.name}: {b.shape}")
            self.rows.add(b)
            self.results += [b] if b in self.late else []
            self.line(f"{TYPES[b.dtype.name]} {name}[{product(b.shape[1:])}];")

    # -- what each thread runs --------------------------------------------------------------------

    def threads(self, s: Loop) -> None:
        if not (s.start.is_const and s.start.value == 0 and s.stop.is_const and s.stop.value == THREADS and s.step == 1):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: a loop over threads runs from 0 to {THREADS}, found "
                                         f"{s.start}..{s.stop}")
        self.enter("")
        self.thread = var(s.var)
        self.variable(s.var, Value("t", True, (0.0, THREADS - 1.0)))
        super().body(s.body)
        if any(isinstance(x, Loop) and x.kind == "async" for x in statements(s.body)):
            self.line("xlc_cp_commit();")
        self.thread = None
        self.leave()

    def statement(self, s: Stmt) -> None:
        match s:
            case Mma():
                a, b = (self.names[x] + (f" + {self.value(at).text}" if x.space == "shared" else "")
                        for x, at in ((s.a, s.a_at), (s.b, s.b_at)))
                self.enter("")
                for line in (warpgroup_lines if s.group > WARP else mma_lines)(s, self.names[s.acc], a, b):
                    self.line(line)
                self.leave()
            case Wait(left, products):
                self.line(f"xlc_{'wgmma' if products else 'cp'}_wait<{left}>();")
                for result in self.results if products else ():
                    self.line(f"xlc_wgmma_settle({self.names[result]});")
            case Loop(kind="async") if self.copied(s):
                pass
            case _:
                super().statement(s)

    def copied(self, s: Loop) -> bool:
        """Prints an async loop as one copy past the registers, if its lanes lie side by side on both sides."""
        (store,), lane = s.body, var(s.var)
        assert isinstance(store, Store)
        access = store.value["buffer"], store.value.args[0], store.value.args[-1] if store.value["masked"] else None
        if store.buffer.dtype.bytes * s.width not in COPIES or not self.together(access, lane, s.width) \
                or not self.together((store.buffer, store.index[0], None), lane, s.width):
            return False
        into, source = (self.value(substitute(at, {lane: const(0)})).text for at in (store.index[0], access[1]))
        mask = "" if access[2] is None else f", {self.value(access[2]).text}"
        self.line(f"xlc_cp_async{store.buffer.dtype.bytes * s.width}{'_zfill' if mask else ''}"
                  f"({self.names[store.buffer]} + {into}, {self.names[access[0]]} + {source}{mask});")
        return True

    def loop(self, s: Loop) -> None:
        outer = self.quotients
        if s.kind == "vector" and s.stop.is_const and s.stop.value >= QUOTIENT_LANES:
            self.divide(s)
        super().loop(s)
        self.quotients = outer

    def divide(self, s: Loop) -> None:
        """Quotients of all lanes by one divisor are computed together, in front of the loop over lanes."""
        plain = [x for x in s.body if isinstance(x, (Let, Store))]
        own = {s.var, *(x.name for x in plain if isinstance(x, Let))}
        stored = {x.buffer for x in plain if isinstance(x, Store)}
        found = [e for e in walk(*(e for x in plain for e in expressions(x))) if e.op.name == "divide" and e.dtype.name in QUOTIENTS]
        for e in found if len(plain) == len(s.body) else ():
            a, b = e.args
            if b.free & own or a.free & own != {s.var} or any(x.op is LOAD and x["buffer"] in stored for x in walk(a, b)):
                continue
            q, divisor = Buffer("q", e.dtype, (s.stop.value,), "register"), self.value(b).text
            self.local(q)
            super().loop(replace(s, body=(Store(q, (var(s.var),), a),)))
            self.line(f"xlc_quotients_{e.dtype}({self.names[q]}, {divisor});")
            self.quotients = {**self.quotients, e: self.names[q]}

    def arguments(self, x: Expr) -> Sequence[Expr]:
        return (self.lane,) if x in self.quotients else super().arguments(x)

    def compute(self, x: Expr) -> Value:
        if x in self.quotients:
            return self.temporary(x, f"{self.quotients[x]}[{self.memo[self.lane].text}]")
        return super().compute(x)

    def offset(self, b: Buffer, index: Sequence[Expr]) -> Expr:
        if b not in self.rows:
            return super().offset(b, index)
        total: Expr = const(0)
        for k, i in enumerate(index[1:], 1):
            total = total + i * const(prod(int(n) for n in b.shape[k + 1:] if isinstance(n, int)))
        return total

    def load(self, x: Expr) -> Value:
        b = x["buffer"]
        if b not in self.rows or x.args[0] is self.thread:
            return super().load(x)
        lane = x.args[0]
        if not (lane.op.name == "bitwise_xor" and lane.args[0] is self.thread and lane.args[1].is_const and lane.args[1].value < WARP):
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: {x} reads registers of another thread that is not t ^ constant")
        text = f"{self.names[b]}[{self.memo[self.offset(b, x.args)].text}]"
        kind = b.dtype.name if b.dtype.bits >= 32 else "i32"
        return self.temporary(x, f"({TYPES[b.dtype.name]})__shfl_xor_sync(0xffffffffu, ({TYPES[kind]}){text}, {lane.args[1].value})")

    def store(self, s: Store) -> None:
        if s.buffer in self.rows and s.index[0] is not self.thread:
            raise XlcNotImplementedError(f"kernel {self.kernel.name}: a thread writes the registers of another, "
                                         f"{s.buffer.name}{list(s.index)}")
        x = s.value
        if x.op is LOAD and x.args == s.index and s.mask is None and {x["buffer"], s.buffer} <= self.perhaps_one:
            out, old = self.names[s.buffer], self.names[x["buffer"]]
            place = self.value(self.offset(s.buffer, s.index)).text
            self.line(f"if ((const void*){out} != (const void*){old}) {out}[{place}] = {old}[{place}];")
            return
        super().store(s)


def _words(kernel: Kernel) -> int:
    """The words of 32 bits in a thread's arrays."""
    total = 0
    for s in statements(kernel.body):
        if isinstance(s, Local) and s.buffer.space == "register":
            shape = s.buffer.shape[1:] if s.buffer.shape[:1] == (THREADS,) and len(s.buffer.shape) > 1 else s.buffer.shape
            total += prod(n for n in shape if isinstance(n, int)) * -(-s.buffer.dtype.bits // 32)
    return total


def _behind(pending: Touched) -> Touched:
    """What is pending behind a barrier: copies that were not waited for."""
    return {b: "a" for b, use in pending.items() if "a" in use}


def _waited(pending: Touched, s: Wait) -> Touched:
    """Copies that are waited for are written."""
    if s.products:
        return pending
    return {b: "".join(sorted({*use, "w"} - ({"a"} if not s.left else set()))) if "a" in use else use for b, use in pending.items()}


def _joined(a: Touched, b: Touched) -> Touched:
    return {k: "".join(sorted(set(a.get(k, "") + b.get(k, "")))) for k in {**a, **b}}


__all__ = ["ALIGNMENT", "THREADS", "WARP", "KernelText", "emit_kernel", "grid"]
