"""The pages about models and weights out name every option of their commands, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("verb", "page"),
    [("models", "variants"), ("export-weights", "weights-out"), ("push", "weights-out")],
)
def test_page_names_every_option(
    verb: str, page: str, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    help_text = command(verb, "--help").out
    assert f"plusx {verb} " in help_text.partition("Examples:")[2]
    shown = re.findall(r"^\s+(?:-h, )?(--[a-z-]+)", help_text, re.MULTILINE)
    options = set(shown) - {"--help"}
    assert len(options) >= 4
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert not {option for option in options if f"`{option}`" not in text}
    for line in re.findall(rf"^plusx {verb} .*$", text, re.MULTILINE):
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line
