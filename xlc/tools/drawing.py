"""Drawings for reports, as SVG text that needs nothing else.

    layered([Box("a", ("x", "f32[3]")), Box("b", ("sin",))], [("a", "b")])    ->    "<svg ...>": boxes in layers, an arrow from a to b
    lifetimes([Life("t0", 0, 400, 0, 2)], 400, 3)                             ->    "<svg ...>": bytes of the arena over the launches
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_CHARACTER, _LINE, _GAP_X, _GAP_Y = 6.7, 15, 18, 34


@dataclass(frozen=True)
class Box:
    """A node of a drawing. ``kind`` becomes its CSS class; ``hint`` is shown when the pointer rests on it."""

    key: str
    lines: tuple[str, ...]
    kind: str = ""
    hint: str = ""

    @property
    def width(self) -> float:
        return max(map(len, self.lines), default=1) * _CHARACTER + 14

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 8


def layered(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> str:
    """Every arrow points down. Boxes stand below all that they depend on, ordered by the mean place of their neighbours above."""
    by_key = {b.key: b for b in boxes}
    above: dict[str, list[str]] = {b.key: [] for b in boxes}
    for source, sink in dict.fromkeys(edges):
        above[sink].append(source)
    layer: dict[str, int] = {}
    for b in boxes:  # arguments come first
        layer[b.key] = 1 + max((layer[a] for a in above[b.key]), default=-1)
    below: dict[str, list[str]] = {b.key: [] for b in boxes}
    for sink, sources in above.items():
        for source in sources:
            below[source].append(sink)
    for b in reversed(boxes):  # inputs stand near their first use
        if not above[b.key] and below[b.key]:
            layer[b.key] = min(layer[c] for c in below[b.key]) - 1
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for b in boxes:
        rows[layer[b.key]].append(b.key)
    centre = _places(rows, by_key, above)
    top, y = {}, 10.0
    for row in rows:
        for key in row:
            top[key] = y
        y += max(by_key[k].height for k in row) + _GAP_Y
    width = max((centre[b.key] + b.width / 2 for b in boxes), default=0) + 12
    parts = [f'<svg class="drawing" width="{width:.0f}" height="{y:.0f}" viewBox="0 0 {width:.0f} {y:.0f}">']
    for sink, sources in above.items():
        for source in sources:
            x1, y1, x2, y2 = centre[source], top[source] + by_key[source].height, centre[sink], top[sink]
            bend = max((y2 - y1) / 2, 12)
            parts.append(f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"/>')
    for b in boxes:
        x, h = centre[b.key] - b.width / 2, b.height
        text = "".join(f'<tspan x="{centre[b.key]:.0f}" dy="{_LINE}">{escape(line)}</tspan>' for line in b.lines)
        parts.append(f'<g class="{escape(b.kind)}"><title>{escape(b.hint or " ".join(b.lines))}</title><rect x="{x:.0f}" '
                     f'y="{top[b.key]:.0f}" '
                     f'width="{b.width:.0f}" height="{h:.0f}" rx="4"/><text y="{top[b.key]:.0f}">{text}</text></g>')
    return "".join([*parts, "</svg>"])


def _places(rows: Sequence[list[str]], by_key: dict[str, Box], above: dict[str, list[str]]) -> dict[str, float]:
    """The horizontal centre of every box."""
    centre: dict[str, float] = {}
    for row in rows:
        row.sort(key=lambda k: sum(centre[a] for a in above[k]) / len(above[k]) if above[k] else 1e9)
        x = 10.0
        for key in row:
            half = by_key[key].width / 2
            wish = sum(centre[a] for a in above[key]) / len(above[key]) if above[key] else 0.0
            centre[key] = max(x + half, wish)
            x = centre[key] + half + _GAP_X
    return centre


@dataclass(frozen=True)
class Life:
    """A buffer: ``bytes`` at offset ``at``, alive from the launch ``first`` to the launch ``last``."""

    name: str
    at: int
    bytes: int
    first: int
    last: int
    hint: str = ""


def lifetimes(lives: Sequence[Life], total: int, launches: int) -> str:
    """Time runs to the right, one column per launch; addresses upwards."""
    column, height, left = max(18.0, min(90.0, 900 / max(launches, 1))), 260.0, 70.0
    width = left + column * launches + 10
    scale = height / max(total, 1)
    parts = [f'<svg class="drawing" width="{width:.0f}" height="{height + 40:.0f}" viewBox="0 0 {width:.0f} {height + 40:.0f}">',
             f'<text class="left" x="0" y="14">{total} B</text><text class="left" x="0" y="{height + 8:.0f}">0</text>']
    for k in range(launches):
        parts.append(f'<text x="{left + (k + 0.5) * column:.0f}" y="{height + 26:.0f}">{k}</text>')
    for n, b in enumerate(lives):
        h = max(b.bytes * scale, 1.5)
        y = 8 + height - b.at * scale - h
        parts.append(f'<g class="life c{n % 6}"><title>{escape(b.hint or b.name)}</title><rect x="{left + b.first * column:.1f}" '
                     f'y="{y:.1f}" '
                     f'width="{(b.last - b.first + 1) * column:.1f}" height="{h:.1f}"/>')
        if h > 11:
            parts.append(f'<text class="left" x="{left + b.first * column + 4:.1f}" y="{y + h / 2 + 4:.1f}">{escape(b.name)}</text>')
        parts.append("</g>")
    return "".join([*parts, "</svg>"])
