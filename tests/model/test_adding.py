"""The worked example of docs/adding-a-variant.md is the code itself."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_stands_in_the_source():
    page = (ROOT / "docs" / "adding-a-variant.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|text)\n(.+?)\n```", page, re.DOTALL)
    for file, text in zip(("attention.py", "variants.py"), blocks, strict=False):
        source = (ROOT / "src" / "plusx" / "model" / file).read_text(encoding="utf-8")
        assert text in source
