"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plusx

VERBS = ("train", "predict", "evaluate", "import")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(command: Callable[..., Any], verb: str) -> None:
    said = command(verb, "--help")
    assert said.code == 0
    assert f"plusx {verb} " in said.out.partition("Examples:")[2]
    assert verb in command("--help").out


def test_every_option_of_training_is_an_option_of_the_command(command: Callable[..., Any]) -> None:
    from dataclasses import fields

    from plusx.jobs.options import TrainOptions

    shown = command("train", "--help").out
    page = Path(__file__).parents[2] / "docs" / "recipes.md"
    told = page.read_text(encoding="utf-8")  # of the fine numbers, for --set
    for field in fields(TrainOptions):
        if field.name != "data" and f"`{field.name}`" not in told:
            assert f"--{field.name.replace('_', '-')}" in shown, field.name


def test_no_arguments_and_help_are_the_same(command: Callable[..., Any]) -> None:
    assert command().out == command("--help").out == command("-h").out
    assert command("--version").out == f"plusx {plusx.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fly",), "No such command 'fly'"),
        (("train", "photos", "--epoch", "3"), "No such option"),
        (("train", "photos", "--epochs", "three"), "valid integer"),
        (("predict",), "Missing argument"),
        (("train",), "give DATA to train on, or --resume RUN"),
        (("train", "photos", "--resume", "run"), "give DATA to train on, or --resume RUN"),
        (
            ("train", "--resume", "run", "--epochs", "9", "--dry-run"),
            "leave out --epochs, --dry-run",
        ),
        (("train", "photos", "--unfreeze", "two"), "--unfreeze 'two' must be a number of blocks"),
        (("train", "photos", "--weights", "none", "--norm", "x"), "--norm 'x' is not one of"),
        (("train", "nowhere", "--weights", "none"), "nowhere: does not exist"),
        (("train", "--resume", "nowhere"), "is no run (it has no config.toml)"),
        (("predict", "nowhere", "x.jpg"), "x.jpg: does not exist"),
        (("evaluate", "nowhere", "photos"), "nowhere: no model there"),
        (("import", "nowhere.pth", "--out", "run"), "nowhere.pth"),
    ],
)
def test_what_cannot_work_is_one_line_and_code_2(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ended = command(*arguments)
    assert said in ended.error
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


def test_out_of_memory_is_one_line_with_a_remedy(
    command: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text('{"block": "basic", "depths": [1], "widths": [1048576], "stem_width": 1}')
    said = command("train", photos, "--weights", "none", "--model", spec, "--out", tmp_path / "run")
    assert "out of memory: try a smaller --batch-size" in said.error
    assert not (tmp_path / "run").exists()


def test_a_name_with_a_line_break_stays_one_line(command: Callable[..., Any]) -> None:
    assert "does not exist" in command("train", "two\nlines", "--weights", "none").error


def test_ctrl_c_while_it_still_loads(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "from plusx.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_help_and_module_load_nothing_heavy() -> None:
    code = (
        "import sys, runpy; sys.argv = ['plusx', 'train', '--help']\n"
        "try: runpy.run_module('plusx', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'numpy', 'PIL', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Examples:" in done.stdout
