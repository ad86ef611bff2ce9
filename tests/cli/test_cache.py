"""``plusx cache``: what it lists, what it removes, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with facts of one scan."""
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path))
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts" / "0123.sqlite").write_bytes(bytes(2_500))
    return tmp_path


def test_it_lists_and_clears(command: Callable[..., Any], kept: Path) -> None:
    said = command("cache")
    assert said.code == 0
    assert "facts" in said.out
    assert f"{kept}: 2.5 kB in all" in said.out
    found = json.loads(command("cache", "ls", "--json").out)
    assert found["folder"] == str(kept)
    assert found["total_bytes"] == 2_500
    assert [one["name"] for one in found["entries"]] == ["facts/0123.sqlite"]
    assert "removed 0" in command("cache", "clear", "--older-than", "1h").out
    assert "removed 1, 2.5 kB" in command("cache", "clear").out
    assert json.loads(command("cache", "clear", "--json").out)["removed"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drop",), "'drop' is not one of ls, clear"),
        (("ls", "--older-than", "1d"), "belongs to plusx cache clear"),
        (("clear", "--older-than", "soon"), "--older-than 'soon'"),
    ],
)
def test_what_it_refuses(
    command: Callable[..., Any], kept: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in command("cache", *arguments).error
    assert (kept / "facts" / "0123.sqlite").exists()
