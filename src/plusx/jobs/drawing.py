"""A network drawn for the terminal: stem, stages, blocks with their bypass, and the figures."""

from __future__ import annotations

from collections.abc import Callable

from plusx.jobs.models import Model
from plusx.model.describe import Block, Row

_ASCII = str.maketrans({
    "│": "|", "─": "-", "┌": "+", "┐": "+", "└": "+", "┘": "+", "┬": "+", "┴": "+", "├": "+",
    "╮": ".", "╯": "'", "⊕": "+", "◄": "<", "×": "x", "·": "-",
})  # fmt: skip

HEADS = ("output", "receptive field", "parameters", "multiply-adds")
_NARROW = ("output", "field", "params", "mult-adds")


def draw(model: Model, encoding: str = "utf-8", width: int = 1000) -> str:
    """The drawing, ending in a line break.

    Args:
        model: what to draw.
        encoding: of the terminal; plain ASCII is used where it lacks box characters.
        width: of the terminal; figures and their names are shortened where it is narrow.
    """
    text = _draw(model, HEADS, figures)
    if max(map(len, text.splitlines())) > width:
        text = _draw(model, _NARROW, _short_figures)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII)
    return text


def _draw(model: Model, names: tuple[str, ...], cells_of: Callable[[Row], tuple[str, ...]]) -> str:
    found = model.description
    lines = [_title(model), "", *_about(model)]
    parts = [_part(row) for row in found.rows]
    wide = max(len(line) for part in parts for line in part) + 3
    table = [cells_of(row) for row in found.rows]
    widths = [max(len(head), *(len(cells[i]) for cells in table)) for i, head in enumerate(names)]
    heads = "  ".join(head.rjust(width) for head, width in zip(names, widths, strict=True))
    image = f"image {_shape(found.image)}"
    lines += [image.ljust(wide) + heads, "     │"]
    for row, part, cells in zip(found.rows, parts, table, strict=True):
        text = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        at = _anchor(row, part)
        lines += [line.ljust(wide) + text if i == at else line for i, line in enumerate(part)]
        lines.append("     │")
    lines[-1] = f"  {found.rows[-1].shape[0]:,} logits"
    return "\n".join(line.rstrip() for line in lines) + "\n"


def short(number: int) -> str:
    """``25.56 M``, ``4.09 G``."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:#.3g}".rstrip(".") + f" {letter}"
    return str(number)


def _title(model: Model) -> str:
    found = model.description
    return (
        f"{found.name} · {found.params:,} parameters · {short(found.macs)} multiply-adds "
        f"at {found.image[1]} pixels"
    )


def _about(model: Model) -> list[str]:
    lines = []
    if said := model.published:
        lines += [f"  {said.differs}"] + ([f"  {said.paper}"] if said.paper else [])
        if said.top1 is not None:
            lines.append(f"  top-1 {said.percent} ({said.top1_of})")
    lines.append(f"  --weights auto takes: {model.auto or 'none known'}")
    return [*lines, ""]


def figures(row: Row) -> tuple[str, ...]:
    """Output, receptive field, parameters and multiply-adds of a part, as text."""
    field = f"{row.receptive_field} px"
    if row.whole_image:
        field = "whole image"
    return _shape(row.shape), field, f"{row.params:,}", short(row.macs)


def _short_figures(row: Row) -> tuple[str, ...]:
    shape, field, *_ = figures(row)
    return (
        shape.replace(" ", ""), field.replace("whole image", "all"), short(row.params),
        short(row.macs),
    )  # fmt: skip


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _anchor(row: Row, part: list[str]) -> int:
    """The line of a part that carries its figures: the one that names it."""
    return next((i for i, line in enumerate(part) if row.name in line), 0)


def _part(row: Row) -> list[str]:
    groups = grouped(row.blocks)
    if not row.name.startswith("stage"):
        return _box(groups[0][0].layers, label=row.name)
    lines: list[str] = []
    for number, (block, times) in enumerate(groups):
        lines += ["     │"] if lines else []
        label = row.name if number == 0 else ""
        lines += _drawn(block, times, label)
    return lines


def grouped(blocks: tuple[Block, ...]) -> list[tuple[Block, int]]:
    """Equal blocks that follow each other, as one and their number."""
    groups: list[tuple[Block, int]] = []
    for block in blocks:
        if groups and groups[-1][0] == block:
            groups[-1] = (block, groups[-1][1] + 1)
        else:
            groups.append((block, 1))
    return groups


def _drawn(block: Block, times: int, label: str) -> list[str]:
    """A block: its layers in a box; the bypass goes round them and is added below."""
    box = _box(block.layers, label)
    repeated = f"  ×{times}" if times > 1 else ""
    if not block.bypass:
        box[-2] += repeated
        return box
    wide = max(len(line) for line in box)
    middle = len(box) // 2
    lines = ["     ├" + "─" * (wide - 4) + "╮"]
    for i, line in enumerate(box):
        said = f" {block.bypass}" if i == middle else ""
        lines.append(line.ljust(wide + 2) + "│" + said)
    lines.append("     ⊕◄" + "─" * (wide - 5) + "╯" + repeated)
    return lines


def _box(layers: tuple[str, ...], label: str = "") -> list[str]:
    """Layers in a box on the line; the label stands in its upper edge."""
    inside = max([len(layer) for layer in layers] + [len(label) + 3, 8])
    edge = "─┴" + (f" {label} " if label else "")
    top = "   ┌" + edge + "─" * (inside + 2 - len(edge)) + "┐"
    body = [f"   │ {layer.ljust(inside)} │" for layer in layers]
    return [top, *body, "   └─┬" + "─" * inside + "┘"]
