"""A network as a picture (SVG): the straight line with its blocks and bypasses, beside figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from plusx.jobs.drawing import figures, grouped, short
from plusx.jobs.models import Model
from plusx.model.describe import Block, Row

WIDTH, CENTRE, BOX, LAYER, GAP = 980, 190, 210, 24, 26
"""Pixels: of the picture, the line's place, a box's width, a layer's height, between boxes."""

COLOURS = ("#64748b", "#2563eb", "#0d9488", "#ca8a04", "#dc2626", "#7c3aed")
"""Of the stem and head, and of the stages in turn."""

_COLUMNS = (("output", 610), ("receptive field", 725), ("parameters", 845), ("multiply-adds", 955))
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:13px;"
    "fill:#0f172a}.t{font-size:22px;font-weight:600}.s{fill:#475569}.h{fill:#64748b;font-size:12px}"
    ".n{font-weight:600}.l{fill:#fff}.r{text-anchor:end}.m{text-anchor:middle}"
)


@dataclass
class _Page:
    """What was drawn, and how far down."""

    y: float
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>')

    def line(self, path: str, colour: str = "#334155", width: float = 1.6, end: str = "") -> None:
        tip = ' marker-end="url(#tip)"' if end else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{tip}/>'
        )

    def down(self, length: float) -> None:
        """The line, ``length`` further."""
        self.line(f"M{CENTRE} {self.y:g}v{length:g}")
        self.y += length


def picture(model: Model) -> str:
    """The picture as SVG text; one file, without scripts, fonts or links."""
    found = model.description
    page = _Page(40)
    page.text(30, page.y, found.name, "t")
    sizes = f"{found.params:,} parameters · {short(found.macs)} multiply-adds"
    page.text(WIDTH - 25, page.y, f"{sizes} at {found.image[1]} pixels", "s r")
    for text in _said(model):
        page.y += 20
        page.text(30, page.y, text, "s")
    page.y += 40
    for head, x in _COLUMNS:
        page.text(x, page.y, head, "h r")
    page.text(CENTRE, page.y, "image " + " × ".join(map(str, found.image)), "m")
    page.y += 8
    stage = 0
    for row in found.rows:
        stage += row.name.startswith("stage")
        page.down(GAP)
        colour = COLOURS[1 + (stage - 1) % 5] if row.name.startswith("stage") else COLOURS[0]
        _part(page, row, colour)
    page.down(GAP)
    page.text(CENTRE, page.y + 16, f"{found.rows[-1].shape[0]:,} logits", "m")
    height = page.y + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}"><title>{escape(found.name)}</title>'
        f"<style>{_STYLE}</style>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#334155"/></marker></defs>'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(page.parts) + "\n</svg>\n"
    )


def _said(model: Model) -> list[str]:
    said = model.published
    if said is None:
        return []
    accuracy = f"top-1 {said.percent} ({said.top1_of})" if said.top1 is not None else ""
    return [text for text in (said.differs, said.paper, accuracy) if text]


def _part(page: _Page, row: Row, colour: str) -> None:
    start = page.y
    groups = grouped(row.blocks) if row.name.startswith("stage") else [(row.blocks[0], 1)]
    for number, (block, times) in enumerate(groups):
        if number:
            page.down(GAP)
        _block(page, block, times, colour)
    middle = (start + page.y) / 2 + 4
    page.text(CENTRE + 190, middle, row.name, "n")
    for text, (_, x) in zip(figures(row), _COLUMNS, strict=True):
        page.text(x, middle, text, "r")
    page.parts.append(
        f'<path d="M{CENTRE + 180} {start:g}V{page.y:g}" stroke="{colour}" stroke-width="3"/>'
    )


def _block(page: _Page, block: Block, times: int, colour: str) -> None:
    """Layers in boxes; the bypass leaves above them and comes back to the plus below."""
    left = CENTRE - BOX / 2
    leaves = page.y
    page.down(14 if block.bypass else 0)
    for number, layer in enumerate(block.layers or ("no layers",)):
        if number:
            page.down(5)
        page.parts.append(
            f'<rect x="{left:g}" y="{page.y:g}" width="{BOX}" height="{LAYER}" rx="5" '
            f'fill="{colour}"/>'
        )
        page.text(CENTRE, page.y + 16.5, layer, "m l")
        page.y += LAYER
    if block.bypass:
        page.down(14)
        side, back = left - 26, page.y + 9
        page.line(
            f"M{CENTRE} {leaves + 3:g}H{side + 10:g}q-10 0 -10 10V{back - 10:g}q0 10 10 10"
            f"H{CENTRE - 10}",
            end="tip",
        )
        page.parts.append(
            f'<circle cx="{CENTRE}" cy="{back:g}" r="9" fill="#fff" stroke="#334155" '
            'stroke-width="1.6"/>'
        )
        page.line(f"M{CENTRE - 5} {back:g}h10M{CENTRE} {back - 5:g}v10")
        page.parts.append(
            f'<text transform="translate({side - 6:g} {(leaves + back) / 2:g}) rotate(-90)" '
            f'class="m h">{escape(block.bypass)}</text>'
        )
        page.y = back + 9
    if times > 1:
        page.text(CENTRE + 18, page.y - 3, f"× {times}", "n")
