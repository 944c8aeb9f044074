"""Register buffers: a local array as a row of vector-sized stack slots, each read and written whole.

A slot that is only loaded and stored whole is what LLVM's ``sroa`` turns into a register without fail; narrower and misplaced
accesses become shuffles of the whole slot. So an accumulator of 64 floats is four registers of 16, and the halving tree over its
lanes is four steps of one shuffle each. """

from __future__ import annotations

from collections.abc import Sequence

from xlc.ir.types import DType

from .writer import Lines, Writer, element, vector


class RegisterArray:
    """``size`` elements of a dtype, in slots of ``lanes`` elements declared in ``entry`` (the function's first block)."""

    def __init__(self, w: Writer, entry: Lines, dtype: DType, size: int, lanes: int):
        self.w = w
        self.lanes = min(lanes, 1 << max(size - 1, 0).bit_length())
        self.scalar = element(dtype)
        self.type = vector(self.scalar, self.lanes)
        self.slots = []
        for _ in range(-(-size // self.lanes)):
            slot = f"%{w.name('r')}"
            entry.append(f"  {slot} = alloca {self.type}")
            self.slots.append(slot)
        self.size = len(self.slots) * self.lanes
        self.columns: list[str] = []  # of a square, since the last write: its slots, turned

    def _is_slot(self, places: Sequence[int]) -> bool:
        first = places[0]
        return first % self.lanes == 0 and first < self.size and all(p == first + k for k, p in enumerate(places))

    def _whole(self, slot: int) -> str:
        return self.w.emit(f"load {self.type}, ptr {self.slots[slot]}")

    def read(self, places: Sequence[int]) -> str:
        """The elements at these constant places (behind the end: anything), as one vector."""
        n, size = len(places), self.lanes
        if n == size and self._is_slot(places):
            return self._whole(places[0] // size)
        if len(self.slots) == size and n > 1 and all(p == places[0] + k * size for k, p in enumerate(places)):
            column = self._turned()[places[0] % size]
            first = places[0] // size
            return column if n == size else self.w.shuffle(self.scalar, size, column, "poison", range(first, first + n))
        touched = sorted({p // size for p in places if p < self.size})
        if len(touched) > 2:  # join halves, each of fewer slots
            a, b = (self.read(part) for part in (places[:n // 2], places[n // 2:]))
            return self.w.shuffle(self.scalar, n // 2, a, b, range(n))
        if not touched:
            return "poison"
        first, last = touched[0], touched[-1]
        picked = [-1 if p >= self.size else p % size + (size if p // size != first else 0) for p in places]
        return self.w.shuffle(self.scalar, size, self._whole(first), self._whole(last) if last != first else "poison", picked)

    def _turned(self) -> list[str]:
        """The columns of a square: pairs of rows exchange every other element, every other pair, and so on."""
        if not self.columns:
            rows, size, bit = [self._whole(k) for k in range(self.lanes)], self.lanes, 1
            while bit < size:
                for i in range(size):
                    if not i & bit:
                        a, b = rows[i], rows[i | bit]
                        rows[i] = self.w.shuffle(self.scalar, size, a, b, [k if not k & bit else k - bit + size for k in range(size)])
                        rows[i | bit] = self.w.shuffle(self.scalar, size, a, b, [k + size if k & bit else k + bit for k in range(size)])
                bit *= 2
            self.columns = rows
        return self.columns

    def read_one(self, place: int) -> str:
        return self.w.emit(f"extractelement {self.type} {self._whole(place // self.lanes)}, i64 {place % self.lanes}")

    def write(self, places: Sequence[int], value: str, mask: str | None) -> None:
        """Set the elements at these constant places (behind the end: nothing), where ``mask`` (of as many lanes) is true."""
        n, size = len(places), self.lanes
        self.columns = []
        if mask is not None:
            value = self.w.select(n, mask, self.scalar, value, self.read(places))
        if n == size and self._is_slot(places):
            self.w.do(f"store {self.type} {value}, ptr {self.slots[places[0] // size]}")
            return
        for slot in sorted({p // size for p in places if p < self.size}):
            source = {p % size: k for k, p in enumerate(places) if p // size == slot and p < self.size}
            part = self.w.shuffle(self.scalar, n, value, "poison", [source.get(k, -1) for k in range(size)])
            if len(source) < size:
                part = self.w.shuffle(self.scalar, size, self._whole(slot), part, [k + size if k in source else k for k in range(size)])
            self.w.do(f"store {self.type} {part}, ptr {self.slots[slot]}")

    def write_one(self, place: int, value: str, mask: str | None) -> None:
        slot = place // self.lanes
        self.columns = []
        old = self._whole(slot)
        if mask is not None:
            before = self.w.emit(f"extractelement {self.type} {old}, i64 {place % self.lanes}")
            value = self.w.select(0, mask, self.scalar, value, before)
        new = self.w.emit(f"insertelement {self.type} {old}, {self.scalar} {value}, i64 {place % self.lanes}")
        self.w.do(f"store {self.type} {new}, ptr {self.slots[slot]}")

