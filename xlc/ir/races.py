"""Whether iterations of a parallel loop touch the same memory, of which one writes it.

    parallel i in 0..n step 64 { vector v in 0..min(n-i, 64) { z[i+v] = ... } }      iteration i keeps to  i <= address < i+64: no race

Two arguments are tried for each buffer that the loop writes. *Apart*: every address of a later iteration is above every address of an
earlier one. *Digits*: the address determines the iteration, as a number determines its digits. What neither proves is reported; ``replay``
then tries all iterations at given sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import gcd

from .late import UnderWay
from .loops import LOAD, VAR, Buffer, Expr, If, Kernel, Let, Local, Loop, Mma, Stmt, Store, Wait, expressions, statements, var, walk
from .loops import size as size_expr
from .prove import Poly, Prover, exact_quotient, flat_index, number, plus, renamed, times
from .types import evaluate, i64

CONCURRENT = ("parallel", "block", "thread")  # kinds of loops whose iterations run side by side
MOST_PAIRS = 600  # of accesses to one buffer
MOST_SPLIT = 100  # accesses to one buffer


@dataclass(frozen=True)
class Access:
    """A load or store of global memory: where, under which conditions (and their truth), inside which loops and lets."""

    buffer: Buffer
    index: tuple[Expr, ...]
    conditions: tuple[tuple[Expr, bool], ...]
    write: bool
    loops: tuple[Loop, ...]
    lets: Mapping[Expr, Expr]


def conflicts(loop: Loop, accesses: Sequence[Access], buffers: set[Buffer]) -> list[str]:
    """What could not be proved free of races between iterations of a loop: one line for each buffer."""
    trips = loop.stop - loop.start
    if trips.is_const and trips.value <= loop.step:
        return []
    inside = [a for a in accesses if any(v is loop for v in a.loops)]
    found = []
    for b in sorted(buffers, key=lambda b: b.name):
        distinct = {(a.index, a.conditions, a.write, a.loops, tuple(a.lets.items())): a for a in inside if a.buffer == b}
        uses = list(distinct.values())
        if any(a.write for a in uses) and not _apart(loop, uses) and not _digits(loop, uses):
            found.append(f"iterations of the {loop.kind} loop {loop.var} may touch the same element of {b.name}")
    return found


def works_in_place(accesses: Sequence[Access], out: Buffer, old: Buffer) -> bool:
    """Whether it is proved that ``out`` may lie over ``old``: no iteration of any loop touches what another iteration touches, and within
    an iteration no element is read after it was written. ``accesses`` are in program order."""
    one = [replace(a, buffer=out) if a.buffer == old else a for a in accesses if a.buffer in (out, old)]
    loops = {id(v): v for a in accesses if a.buffer == old for v in a.loops}
    if any(conflicts(v, one, {out}) for v in loops.values()):
        return False
    writes = [(k, a) for k, a in enumerate(accesses) if a.buffer == out and a.write]
    reads = [(k, a) for k, a in enumerate(accesses) if a.buffer == old]
    pairs = [(w, r) for n, w in writes for k, r in reads if n < k]
    return len(pairs) <= MOST_PAIRS and all(_exclusive(w, r) or _disjoint(w, r) for w, r in pairs)


def _common(a: Access, b: Access) -> tuple[Loop, ...]:
    return tuple(v for v, _ in takewhile(lambda t: t[0] is t[1], zip(a.loops, b.loops, strict=False)))


def _exclusive(a: Access, b: Access) -> bool:
    """Whether the two are in different branches of one condition."""
    same = {var(v.var) for v in _common(a, b)} | {v for v, e in a.lets.items() if b.lets.get(v) is e}
    return any((c, not truth) in b.conditions and all(x.op is not VAR or x in same for x in walk(c)) for c, truth in a.conditions)


def _position(prover: Prover, a: Access) -> Poly:
    return flat_index([prover.poly(i) for i in a.index], [prover.poly(size_expr(d)) for d in a.buffer.shape])


def _enter(prover: Prover, a: Access, names: Mapping[Expr, Expr], stack: ExitStack, entered: Sequence[Loop] = ()) -> Poly:
    """Tell the prover the loops around an access (but those entered already), with its variables renamed; returns its position."""
    memo: dict[Expr, Expr] = {}

    def r(e: Expr) -> Expr:
        return renamed(e, names, memo)

    for name, value in a.lets.items():
        stack.enter_context(prover.let(names.get(name, name)["name"], r(value)))
    for v in a.loops:
        if not any(v is w for w in entered):
            stack.enter_context(prover.loop(names.get(var(v.var), var(v.var))["name"], r(v.start), r(v.stop), v.step))
    for c, truth in a.conditions:
        stack.enter_context(prover.known(r(c), truth))
    return _position(prover, replace(a, index=tuple(r(i) for i in a.index)))


def _apart(loop: Loop, uses: Sequence[Access]) -> bool:
    """Whether each access of iteration j > i lies above each access of iteration i (where one of the two writes)."""
    pairs = [(a, b) for a in uses for b in uses if a.write or b.write]
    return len(pairs) <= MOST_PAIRS and all(_difference(a, b, loop, False) for a, b in pairs)


def _disjoint(a: Access, b: Access) -> bool:
    """Whether the one lies above the other in every iteration of the loops that hold both."""
    return _difference(a, b, None, False) or _difference(a, b, None, True)


def _difference(a: Access, b: Access, loop: Loop | None, reverse: bool) -> bool:
    """Whether b lies above a (``reverse``: a above b) in the same iteration of the loops that hold both; of ``loop``, b in a later one."""
    prover = Prover()
    common = _common(a, b)
    if loop is not None:
        common = common[:next(k for k, v in enumerate(common) if v is loop)]
    entered = [*common, *([loop] if loop is not None else [])]
    with ExitStack() as stack:
        for name, value in a.lets.items():
            stack.enter_context(prover.let(name["name"], value))
        for v in entered:
            stack.enter_context(prover.loop(v.var, v.start, v.stop, v.step))
        later: dict[Expr, Expr] = {}
        if loop is not None:
            i, j = var(loop.var), var(f"{loop.var}'")
            stack.enter_context(prover.loop(j["name"], i + loop.step, loop.stop, loop.step))
            later[i] = j
        places = []
        for access, mark, moved in ((a, ".", {}), (b, "'", later)):
            inner = [var(v.var) for v in access.loops if not any(v is w for w in entered)] + list(access.lets)
            places.append(_enter(prover, access, {v: var(v["name"] + mark) for v in inner} | moved, stack, entered))
        low, high = places[::-1] if reverse else places
        return prover.at_least_zero(plus(plus(high, low, -1), number(-1)))


def _digits(loop: Loop, uses: Sequence[Access]) -> bool:
    """Whether the address, read as a number in a mixed radix, determines the iteration.

    An address H*M + L with 0 <= L < M gives both H and L, which are split further in the same way. A part Q gives the digit w (the loop's
    variable, or a quotient or remainder of it) if 0 <= Q - u*w < u for some unit u. All accesses have to agree in M, w and u. A digit that
    conditions make the same number at every access is known, too."""
    if len(uses) > MOST_SPLIT:
        return False
    i = var(loop.var)
    with ExitStack() as stack:
        parts: list[_Part] = []
        for a in uses:
            prover = Prover()
            parts.append((prover, _enter(prover, a, {}, stack)))
        own = {x for _, p in parts for m in p for x in m if any(y is i for y in walk(x))}
        asked = {x for a in uses for c, _ in a.conditions for x in walk(c) if x is i or x.args and x.args[0] is i and x.dtype is i64}
        same = {x for x in asked if len(values := {prover.constant(x) for prover, _ in parts}) == 1 and None not in values}
        return _determine(loop, _given(loop, parts, own, 3) | same)


_Part = tuple[Prover, Poly]  # a part of an address, and what is known where it occurs


def _given(loop: Loop, parts: Sequence[_Part], own: set[Expr], depth: int) -> set[Expr]:
    """The digits among ``own`` that these parts, one of each address, determine."""
    found = {w for w in own if any(_reads(loop, parts, w, u) for u in _factors(parts, {w}))}
    if found == own or not depth:
        return found
    offsets = gcd(*(p.get((), 0) for _, p in parts))  # of the rows of an unrolled tile
    for unit in [*_factors(parts, None), *([number(offsets)] if offsets > 1 else [])]:
        split = [_split_by(p, unit) for _, p in parts]
        if any(high for high, _ in split) and any(low for _, low in split) and all(
                prover.at_least_zero(low) and prover.at_least_zero(plus(plus(unit, low, -1), number(-1)))
                for (prover, _), (_, low) in zip(parts, split, strict=True)):
            for side in (0, 1):
                rest = [(prover, s[side]) for (prover, _), s in zip(parts, split, strict=True)]
                found |= _given(loop, rest, own - found, depth - 1)
            break
    return found


def _factors(parts: Sequence[_Part], atoms: set[Expr] | None) -> list[Poly]:
    """The distinct factors, over sizes, of these atoms (None: of all), the largest first."""
    out: dict[frozenset, Poly] = {}
    for _, p in parts:
        for a in {x for m in p for x in m if x.op.name != "size"} if atoms is None else atoms:
            factor = {tuple(x for x in m if x is not a): c for m, c in p.items() if a in m}
            if factor and all(x.op.name == "size" for m in factor for x in m):
                out.setdefault(frozenset(factor.items()), factor)
    return sorted(out.values(), key=lambda f: -abs(sum(c * 1009 ** len(m) for m, c in f.items())))


def _split_by(p: Poly, unit: Poly) -> tuple[Poly, Poly]:
    """p = high * unit + low, term by term."""
    high: Poly = {}
    low: Poly = {}
    for m, c in p.items():
        q = exact_quotient({m: c}, unit)
        if q is None:
            low[m] = c
        else:
            high = plus(high, q)
    return high, low


def _reads(loop: Loop, parts: Sequence[_Part], w: Expr, unit: Poly) -> bool:
    """Whether 0 <= Q - u*w < u in every part, up to one constant."""
    span = times(unit, number(loop.step if w is var(loop.var) else 1))
    first = parts[0][1]
    constant = {m: c for m, c in first.items() if all(x.op.name == "size" for x in m)}
    for shift in ([{}, constant] if constant else [{}]):
        rests = [(prover, plus(plus(q, times(unit, {(w,): 1}), -1), shift, -1)) for prover, q in parts]
        for size in (span, plus({}, span, -1)):
            if all(prover.at_least_zero(rest) and prover.at_least_zero(plus(plus(size, rest, -1), number(-1))) for prover, rest in rests):
                return True
    return False


def _determine(loop: Loop, atoms: set[Expr]) -> bool:
    """Whether the values of these atoms determine the loop's variable: it is one of them, or they are its quotients and remainders."""
    i = var(loop.var)
    known = atoms
    if i in known:
        return True
    if loop.start.is_const and any(q.args[1].is_const and q.args[1].value > 0 and loop.step % q.args[1].value == 0
                                   for q in _subterms(known, i, "floor_divide")):
        return True  # steps of a multiple of d change the quotient by d
    # i = d * (i // d) + i % d, where either may be split further
    todo, found = [i], True
    while todo and found:
        e = todo.pop()
        if e in known:
            continue
        remainders = _subterms(known, e, "remainder")
        pair = next(((q, r) for q in _subterms(known, e, "floor_divide") for r in remainders if q.args[1] is r.args[1]), None)
        found = pair is not None
        todo += pair or ()
    return found


def _subterms(atoms: set[Expr], e: Expr, op: str) -> list[Expr]:
    return [x for a in atoms for x in walk(a) if x.op.name == op and x.args[0] is e]


# ------------------------------------------------------------------------------------------------ at given sizes


def replay(kernel: Kernel, sizes: Mapping[str, int], most: int = 1 << 20) -> list[str]:
    """Run through the addresses of a kernel at these sizes, and report accesses out of bounds and races between iterations of its parallel
    loop. Addresses that depend on data are left out. At most ``most`` accesses are looked at."""
    player = _Replay(kernel, sizes, most)
    player.run(kernel.body, {})
    return list(dict.fromkeys(player.found))


@dataclass
class _Concurrent:
    """A loop whose iterations may run at the same time: who has touched what. Each iteration has the buffers ``own`` for itself."""

    own: set[Buffer]
    iteration: int = 0
    writers: dict[tuple[str, int], int] = field(default_factory=dict)
    readers: dict[tuple[str, int], int] = field(default_factory=dict)

    def touch(self, b: Buffer, position: int, write: bool) -> int | None:
        """The other iteration with which this one is in conflict."""
        if b in self.own:
            return None
        key = b.name, position
        owner = self.writers.get(key, self.readers.get(key) if write else None)
        if write:
            self.writers[key] = self.iteration
        elif self.readers.get(key, self.iteration) != self.iteration:
            self.readers[key] = -1  # several
        else:
            self.readers[key] = self.iteration
        return owner if owner is not None and owner != self.iteration else None


class _Unknown(Exception):
    pass


class _Replay:
    def __init__(self, kernel: Kernel, sizes: Mapping[str, int], most: int):
        self.kernel, self.sizes, self.left = kernel, sizes, most
        self.found: list[str] = []
        self.around: list[_Concurrent] = []
        self.thread: int | None = None
        self.products = UnderWay()

    def value(self, e: Expr, env: Mapping[str, int]) -> int:
        """An i64 or bool expression."""
        done: dict[Expr, int] = {}
        for x in walk(e):
            if x.op is VAR:
                if x["name"] not in env:
                    raise _Unknown
                done[x] = env[x["name"]]
            elif x.op.name == "size":
                done[x] = self.sizes[x["name"]]
            elif x.is_const:
                done[x] = x.value
            else:
                done[x] = _scalar(x.op.name, [done[a] for a in x.args])
        return done[e]

    def run(self, body: Sequence[Stmt], env: dict[str, int]) -> None:
        env = dict(env)
        for s in body:
            if self.left <= 0:
                return
            self.loads(s, env)
            try:
                match s:
                    case Store():
                        if s.mask is None or self.value(s.mask, env):
                            self.touch(s.buffer, [self.value(i, env) for i in s.index], True)
                    case Mma() if s.group > 32:
                        self.products.begin(s, *(self.value(e, env) for e in (s.thread, s.a_at, s.b_at)))
                    case Wait(left, True):
                        self.products.wait(self.thread, left)
                    case Let():
                        env.pop(s.name, None)
                        if s.value.dtype is i64:
                            env[s.name] = self.value(s.value, env)
                    case If():
                        self.run(s.body if self.value(s.condition, env) else s.orelse, env)
                    case Loop():
                        concurrent = s.kind in CONCURRENT
                        if concurrent:
                            self.around.append(_Concurrent({x.buffer for x in statements(s.body) if isinstance(x, Local)}))
                        for k in range(self.value(s.start, env), self.value(s.stop, env), s.step):
                            if concurrent:
                                self.around[-1].iteration = k
                            self.thread = k if s.kind == "thread" else self.thread
                            self.run(s.body, {**env, s.var: k})
                        if concurrent:
                            self.around.pop()
                        self.thread = None if s.kind == "thread" else self.thread
                    case Local():
                        pass
            except _Unknown:
                continue

    def loads(self, s: Stmt, env: Mapping[str, int]) -> None:
        for e in walk(*expressions(s)):
            if e.op is LOAD:
                try:
                    if not e["masked"] or self.value(e.args[-1], env):
                        self.touch(e["buffer"], [self.value(i, env) for i in (e.args[:-1] if e["masked"] else e.args)], False)
                except _Unknown:
                    pass

    def touch(self, b: Buffer, index: Sequence[int], write: bool) -> None:
        self.left -= 1
        shape = [evaluate(d, self.sizes) for d in b.shape]
        if any(not 0 <= i < d for i, d in zip(index, shape, strict=True)):
            self.found.append(f"{b.name}{list(index)} is out of bounds: the shape is {shape}")
            return
        if b.space not in ("global", "shared"):
            return
        position = 0
        for i, d in zip(index, shape, strict=True):
            position = position * d + i
        if write and self.products.touched(b, position):
            self.found.append(f"{b.name}{list(index)} is written while a product may read it")
        for loop in self.around:
            owner = loop.touch(b, position, write)
            if owner is not None:
                self.found.append(f"iterations {owner} and {loop.iteration} both touch {b.name}{list(index)}")


_SCALARS: Mapping[str, Callable[..., int]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "negative": operator.neg, "minimum": min, "maximum": max,
    "floor_divide": lambda a, b: a // b if b else 0, "remainder": lambda a, b: a % b if b else 0, "where": lambda c, a, b: a if c else b,
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge, "equal": operator.eq,
    "not_equal": operator.ne, "bitwise_and": operator.and_, "logical_and": operator.and_, "bitwise_or": operator.or_,
    "logical_or": operator.or_, "bitwise_xor": operator.xor, "cast": int,
}


def _scalar(name: str, v: Sequence[int]) -> int:
    if name in ("bitwise_not", "logical_not") and isinstance(v[0], bool):
        return not v[0]
    if name not in _SCALARS:
        raise _Unknown
    return _SCALARS[name](*v)


__all__ = ["CONCURRENT", "Access", "conflicts", "replay", "works_in_place"]
