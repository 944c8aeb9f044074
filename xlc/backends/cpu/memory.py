"""Loads and stores of vectors of lanes, by the distance between neighbouring lanes.

    1    one (masked) vector load or store
    0    one scalar, in every lane
    -1   a vector load and a reversal
    2    two overlapping vector loads and a shuffle
    else gather, scatter (LLVM makes scalar accesses of these where the processor has no such instruction)

``base`` points to the element of lane 0. Values are as in registers (a bool is i1); memory holds bools as bytes.
"""

from __future__ import annotations

from xlc.ir.types import DType

from .writer import Writer, element, mangled, memory_element, splat, vector


def load_scalar(w: Writer, d: DType, base: str, mask: str | None) -> str:
    """One element; where the scalar ``mask`` is false 0, and ``base`` is not read."""
    if mask is not None:
        w.declared.add("@xlc.zero = private unnamed_addr constant i64 0")
        base = w.emit(f"select i1 {mask}, ptr {base}, ptr @xlc.zero")
    return _from_memory(w, d, 0, w.emit(f"load {memory_element(d)}, ptr {base}, align {d.bytes}"))


def store_scalar(w: Writer, d: DType, base: str, value: str) -> None:
    w.do(f"store {memory_element(d)} {_to_memory(w, d, 0, value)}, ptr {base}, align {d.bytes}")


def load_lanes(w: Writer, d: DType, n: int, base: str, stride: int, mask: str | None) -> str:
    scalar = memory_element(d)
    if stride == 1:
        return _from_memory(w, d, n, _load(w, d, n, base, mask))
    if stride == -1:
        low = w.emit(f"getelementptr inbounds {scalar}, ptr {base}, i64 {1 - n}")
        value = _load(w, d, n, low, mask and w.shuffle("i1", n, mask, "poison", range(n - 1, -1, -1)))
        return _from_memory(w, d, n, w.shuffle(scalar, n, value, "poison", range(n - 1, -1, -1)))
    if stride == 2 and mask is None:
        first = _load(w, d, n, base, None)
        second = _load(w, d, n, w.emit(f"getelementptr inbounds {scalar}, ptr {base}, i64 {n - 1}"), None)
        picked = [2 * k if 2 * k < n else n + 2 * k - (n - 1) for k in range(n)]
        return _from_memory(w, d, n, w.shuffle(scalar, n, first, second, picked))
    offsets = "<" + ", ".join(f"i64 {stride * k}" for k in range(n)) + ">"
    return gather(w, d, n, base, offsets, mask)


def store_lanes(w: Writer, d: DType, n: int, base: str, stride: int, value: str, mask: str | None,
                streaming: bool = False) -> None:
    """``streaming``: past the caches; then ``base`` is aligned to the whole vector."""
    scalar = memory_element(d)
    lane = _only_lane(mask)
    if lane is not None:
        at = w.emit(f"getelementptr inbounds {scalar}, ptr {base}, i64 {stride * lane}") if stride * lane else base
        store_scalar(w, d, at, w.emit(f"extractelement {vector(element(d), n)} {value}, i64 {lane}"))
        return
    if stride in (1, -1):
        ty = vector(scalar, n)
        value = _to_memory(w, d, n, value)
        if stride == -1:
            base = w.emit(f"getelementptr inbounds {scalar}, ptr {base}, i64 {1 - n}")
            value = w.shuffle(scalar, n, value, "poison", range(n - 1, -1, -1))
            mask = mask and w.shuffle("i1", n, mask, "poison", range(n - 1, -1, -1))
        if mask is None and streaming:
            w.declared.add("!0 = !{i32 1}")
            w.do(f"store {ty} {value}, ptr {base}, align {n * d.bytes}, !nontemporal !0")
        elif mask is None:
            w.do(f"store {ty} {value}, ptr {base}, align {d.bytes}")
        else:
            name = f"@llvm.masked.store.{mangled(scalar, n)}.p0"
            w.declared.add(f"declare void {name}({ty}, ptr, i32, {vector('i1', n)})")
            w.do(f"call void {name}({ty} {value}, ptr {base}, i32 {d.bytes}, {vector('i1', n)} {mask})")
        return
    scatter(w, d, n, base, "<" + ", ".join(f"i64 {stride * k}" for k in range(n)) + ">", value, mask)


def _only_lane(mask: str | None) -> int | None:
    """The lane of a literal mask that is alone in being true. LLVM 22 makes a scalar store of a masked store under such a mask, and when
    the vector is a truncation (f16 and bf16 from f32, narrow integers) it stores what was not yet truncated, over the neighbours."""
    lanes = mask.strip("<>").split(", ") if mask is not None and mask.startswith("<") else []
    return lanes.index("i1 true") if lanes.count("i1 true") == 1 else None


def gather(w: Writer, d: DType, n: int, base: str, offsets: str, mask: str | None) -> str:
    """The elements at ``offsets`` (i64 lanes, in elements) from base."""
    scalar = memory_element(d)
    ty, masks, pointers = vector(scalar, n), vector("i1", n), vector("ptr", n)
    places = w.emit(f"getelementptr {scalar}, ptr {base}, {vector('i64', n)} {offsets}")
    name = f"@llvm.masked.gather.{mangled(scalar, n)}.{mangled('ptr', n)}"
    w.declared.add(f"declare {ty} {name}({pointers}, i32, {masks}, {ty})")
    value = w.emit(f"call {ty} {name}({pointers} {places}, i32 {d.bytes}, {masks} {mask or splat('i1', 'true', n)}, {ty} zeroinitializer)")
    return _from_memory(w, d, n, value)


def scatter(w: Writer, d: DType, n: int, base: str, offsets: str, value: str, mask: str | None) -> None:
    """Store to base + offsets; where two lanes meet, the later one stays."""
    scalar = memory_element(d)
    ty, masks, pointers = vector(scalar, n), vector("i1", n), vector("ptr", n)
    places = w.emit(f"getelementptr {scalar}, ptr {base}, {vector('i64', n)} {offsets}")
    name = f"@llvm.masked.scatter.{mangled(scalar, n)}.{mangled('ptr', n)}"
    w.declared.add(f"declare void {name}({ty}, {pointers}, i32, {masks})")
    value = _to_memory(w, d, n, value)
    w.do(f"call void {name}({ty} {value}, {pointers} {places}, i32 {d.bytes}, {masks} {mask or splat('i1', 'true', n)})")


def _load(w: Writer, d: DType, n: int, base: str, mask: str | None) -> str:
    scalar = memory_element(d)
    ty = vector(scalar, n)
    if mask is None:
        return w.emit(f"load {ty}, ptr {base}, align {d.bytes}")
    name = f"@llvm.masked.load.{mangled(scalar, n)}.p0"
    w.declared.add(f"declare {ty} {name}(ptr, i32, {vector('i1', n)}, {ty})")
    return w.emit(f"call {ty} {name}(ptr {base}, i32 {d.bytes}, {vector('i1', n)} {mask}, {ty} zeroinitializer)")


def _from_memory(w: Writer, d: DType, n: int, value: str) -> str:
    return value if d.kind != "b" else w.emit(f"icmp ne {vector('i8', n)} {value}, {splat('i8', '0', n)}")


def _to_memory(w: Writer, d: DType, n: int, value: str) -> str:
    return value if d.kind != "b" else w.emit(f"zext {vector('i1', n)} {value} to {vector('i8', n)}")
