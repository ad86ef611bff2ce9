"""``plusx models``: the list, its filters, and one network drawn."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from plusx.model import VARIANTS

Command = Callable[..., Any]


def listed(command: Command, *arguments: object) -> list[dict[str, Any]]:
    said = command("models", *arguments, "--json")
    assert said.code == 0, said
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


def test_the_list_holds_every_variant(command: Command) -> None:
    found = {one["name"]: one for one in listed(command)}
    assert set(VARIANTS) <= set(found)
    first = found["resnet50"]
    assert (first["params"], first["macs"]) == (25_557_032, 4_089_184_256)
    assert first["auto"] == "timm/resnet50.a1_in1k"
    assert first["published"]["year"] == 2015
    assert 0.8 < first["published"]["top1"] < 0.81
    assert found["plusx_small"]["auto"] == "bundled"
    assert found["resnet50_v1"]["auto"] is None
    assert found["resnet20_cifar_a"]["kind"] == "cifar"


def test_piped_the_list_is_columns_with_nothing_cut_off(command: Command) -> None:
    said = command("models")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split()[:2] == ["name", "parameters"]
    row = next(line for line in lines if line.startswith("resnet34 "))
    assert row.split() == ["resnet34", "21,797,672", "3.66", "G", "224", "77.49%", "2015",
                           "timm/resnet34.ra4_e3600_r224_in1k"]  # fmt: skip
    assert said.out.isascii()
    assert not said.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("resnet1?",), {"resnet18"}),
        (("*_v1",), {"resnet50_v1", "resnet101_v1", "resnet152_v1"}),
        (("resnet50*", "plusx_*"), {"resnet50", "resnet50_v1", "plusx_small"}),
        (("cifar", "--max-params", "400k"), {"resnet20_cifar_a"}),
        (("resnet??", "--max-macs", "2G"), {"resnet18"}),
        (("resnet50*", "--pretrained"), {"resnet50"}),
        (("*", "--kind", "small"), {"plusx_small"}),
        (("50_v",), {"resnet50_v1"}),  # a part of a name
    ],
)
def test_filters(command: Command, arguments: tuple[str, ...], names: set[str]) -> None:
    found = {one["name"] for one in listed(command, *arguments)}
    assert names <= found
    for name in found - names:  # later variants may fit as well, but never these
        assert name not in ("resnet34", "resnet152", "resnet101", "resnet110_cifar_a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnext*_zz",), "no model fits 'resnext*_zz'; did you mean res"),
        (("resnet5000",), "model 'resnet5000' is unknown; did you mean resnet"),
        (("*", "--max-params", "1k"), "none of"),
        (("--max-params", "many"), "--max-params 'many' is no number; write it as 30M"),
        (("--kind", "video"), "--kind 'video' is not one of imagenet, cifar, small"),
        (("--image-size", "64"), "--image-size needs one model to draw"),
        (("resnet50", "--max-params", "1M"), "--max-params filters the list"),
        (("nowhere/run",), "nowhere/run"),
        (("nowhere.json",), "nowhere.json: cannot be read"),
        (("resnet50", "--classes", "0"), "classes=0 must be a whole number"),
        (("resnet50", "--image-size", "-3"), "image_size=-3 must be a whole number"),
    ],
)
def test_what_cannot_be_is_one_line(
    command: Command, arguments: tuple[str, ...], said: str
) -> None:
    ended = command("models", *arguments)
    assert said in ended.error
    assert ended.out == ""


def test_a_network_is_drawn_with_its_bypass(command: Command) -> None:
    said = command("models", "resnet50")
    assert said.code == 0
    lines = said.out.splitlines()
    assert "25,557,032 parameters" in lines[0]
    assert "4.09 G" in lines[0]
    assert "He et al. 2015" in said.out
    stages = [line for line in lines if " stage " in line]
    for line, figures in zip(
        stages,
        [("256 × 56 × 56", "35 px"), ("512 × 28 × 28", "91 px"),
         ("1024 × 14 × 14", "267 px"), ("2048 × 7 × 7", "427 px")],
        strict=True,
    ):  # fmt: skip
        for figure in figures:
            assert figure in line
    assert [int(n) for n in re.findall(r"⊕◄─+╯  ×(\d)", said.out)] == [2, 3, 5, 2]
    assert said.out.count("⊕") == 8
    assert "│ 3x3 128 /2 │" in said.out
    assert "1x1 512 /2 of x" in said.out
    assert lines[-1].strip() == "1,000 logits"
    assert max(map(len, lines)) <= 110


def test_a_plain_net_has_no_bypass(command: Command) -> None:
    said = command("models", "plain_resnet18", "--classes", "3", "--image-size", "64")
    assert said.code == 0
    assert "⊕" not in said.out
    assert "512 × 2 × 2" in said.out
    assert "3 logits" in said.out


def test_json_of_one_network(command: Command) -> None:
    found = json.loads(command("models", "resnet56_cifar_a", "--in-channels", "1", "--json").out)
    assert found["name"] == "resnet56_cifar_a"
    assert found["image"] == [1, 32, 32]
    assert [row["stride"] for row in found["rows"]] == [1, 1, 2, 4, 0]
    assert sum(row["params"] for row in found["rows"]) == found["params"]
    assert len(found["rows"][1]["blocks"]) == 9
    assert found["published"]["top1"] == 0.9303


def test_a_run_and_a_spec_are_drawn(command: Command, tiny_weights: Path, tmp_path: Path) -> None:
    drawn = command("models", tiny_weights)
    assert drawn.code == 0
    assert drawn.out.startswith("tiny · ")
    assert "5 logits" in drawn.out
    spec = tmp_path / "mine.json"
    spec.write_text('{"name": "mine", "block": "basic", "depths": [1], "widths": [8]}')
    assert command("models", spec).out.startswith("mine · ")
    spec.write_text('{"block": "basic"}')
    assert "mine.json: missing field depths" in command("models", spec).error
    assert "no model there" in command("models", tmp_path).error


def test_the_picture_is_sound_svg(command: Command, tmp_path: Path) -> None:
    spec = tmp_path / "odd.json"
    fields = {"name": 'a<b & "c"', "block": "basic", "depths": [2], "widths": [8], "stem_width": 8}
    spec.write_text(json.dumps(fields))
    said = command("models", spec, "--svg", tmp_path / "net.svg")
    assert (said.code, said.err) == (0, "")
    root = ET.parse(tmp_path / "net.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert 'a<b & "c"' in texts
    assert texts.count("3x3 8") == 2  # two equal blocks are drawn once
    assert "× 2" in texts
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 1
    assert "no logits" not in texts
    missing = command("models", "resnet18", "--svg", tmp_path / "no" / "net.svg")
    assert "net.svg: cannot be written" in missing.error


def test_without_box_characters_it_is_ascii() -> None:
    code = "import sys; sys.argv = ['plusx', 'models', 'resnet8_cifar_a']\n"
    code += "from plusx.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code], capture_output=True, check=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )  # fmt: skip
    text = done.stdout.decode("ascii")
    assert "+<-" in text
    assert "\\u" not in text
    assert "3x3 16" in text


def test_it_fits_a_narrow_terminal() -> None:
    from plusx.jobs.drawing import draw
    from plusx.jobs.models import describe_model

    for name in ("resnet50", "resnet18"):
        wide, narrow = (draw(describe_model(name), width=width) for width in (200, 80))
        tables = [line for line in narrow.splitlines() if "stage" in line or "mult-adds" in line]
        assert len(tables) == 5
        assert max(map(len, tables)) <= 80 < max(map(len, wide.splitlines()))
        assert "35 px" in narrow or "43 px" in narrow


def test_a_name_goes_before_a_folder_of_that_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()
    (tmp_path / "photos").mkdir()
    assert command("models", "resnet18").out.startswith("resnet18 ")
    assert "photos: no model there" in command("models", "photos").error


def test_help_loads_no_torch() -> None:
    code = (
        "import sys, runpy; sys.argv = ['plusx', 'models', '--help']\n"
        "try: runpy.run_module('plusx', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "plusx models 'resnext*'" in done.stdout


def test_on_a_terminal_it_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from plusx.cli.models import models

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    with contextlib.redirect_stdout(screen):
        models(["resnet1?"], None, None, False, None, None, None, None, None, False)
    text = screen.getvalue()
    assert "resnet18" in text
    assert "┃" in text or "│" in text
    assert "plusx models NAME draws one" in text


def test_networks_that_depend_on_the_image_are_drawn_as_they_are_trained(
    command: Callable[..., Any],
) -> None:
    from plusx.weights import resolve_spec

    drawn = json.loads(command("models", "cnn", "--image-size", "224", "--json").out)
    own = resolve_spec("cnn", image_size=224)
    assert [row["shape"] for row in drawn["rows"]][-2][0] == own.feature_channels
    assert len(drawn["rows"]) == own.stages + 2  # and stem and head
    pytest.importorskip("timm", reason="extra 'timm' absent")
    size = ("--image-size", "96")
    drawn = json.loads(command("models", "timm:vit_tiny_patch16_224", *size, "--json").out)
    assert drawn["image"] == [3, 96, 96]
    assert drawn["auto"] == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
