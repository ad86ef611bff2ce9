"""The legend of the variants as a Markdown table, for docs/variants.md."""

from __future__ import annotations

import re

from plusx.model.published import PUBLISHED, Published

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def variants_table() -> str:
    """A row a variant: what differs, paper, year, published figures and where they stand."""
    lines = [
        "| name | what differs | paper | parameters | multiply-adds | top-1 | of | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, published) for name, published in PUBLISHED.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, published: Published) -> str:
    cells = [
        f"`{name}`",
        published.differs,
        _paper(published.paper),
        published.params or "",
        published.macs or "",
        published.percent,
        published.top1_of,
        f"[source]({published.source})" if published.source else "",
    ]
    return f"| {' | '.join(cells)} |"


def _paper(paper: str) -> str:
    """Authors and year, linked to the paper."""
    found = re.fullmatch(r"(.+ \d{4}), .+ arXiv (\S+)", paper)
    return f"[{found[1]}](https://arxiv.org/abs/{found[2]})" if found else paper
