"""Every command in README.md and docs/ runs here as a reader types it, in a folder like theirs.

Blocks in sh and python run in the order of the page; csv and json blocks that name a file are
written first. A block below ``<!-- not run: reason -->`` is printed with its reason instead. The
commands run for real, on a small network instead of a downloaded one: ``SMOKE`` says what differs.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.__main__ import main
from plusx.cli.app import VERBS
from plusx.cli.study import STUDIES
from plusx.fit.recipe import default_lr
from plusx.jobs.options import TrainOptions

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
HOMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "recipes"),
    "predict": ("predict-evaluate-import",),
    "evaluate": ("evaluate", "predict-evaluate-import"),
    "import": ("predict-evaluate-import",),
    "models": ("variants",),
    "export-weights": ("weights-out",),
    "push": ("weights-out",),
}
"""The pages that explain a verb; of all others the page of their own name."""

NETWORK = "resnet14_cifar_a"
BACKBONE = "backbone"  # a model folder made by ``reader``, so that nothing is downloaded
SMOKE = {
    "timm/resnet50.a1_in1k": BACKBONE,
    "resnet18": NETWORK,
    "resnet50": NETWORK,
    "resnet56_cifar_a": NETWORK,
    "vgg11_bn": "cnn",
    "timm:efficientnet_b0": "timm:test_efficientnet",
    "20ms": "100s",
}
"""Word of a command -> what is put in its place."""
QUICK = ["--epochs", "1", "--threads", "1"]
"""Added to every ``plusx train``; of an option given twice the last counts."""
SHORT = [*QUICK, "--budget", "1x1", "--seeds", "1", "--image-size", "32", "--shift-images", "2"]
"""The same for ``plusx compare DATA --with``."""
STUDY = {
    "degradation": ["--depths", "8,14", "--seeds", "0", "--iterations", "2"],
    "gradients": ["--depths", "8", "--seeds", "0", "--images", "4", "--steps", "3"],
    "batchnorm": ["--batches", "8,16", "--seeds", "0", "--epochs", "1"],
}
"""The same for every ``plusx study NAME``."""
SHOWN = ("json", "ini", "dockerfile")
"""Languages of blocks that are only looked at."""
PYTHON = {
    'plusx.train("photos/")': f'plusx.train("photos/", weights="{BACKBONE}", epochs=1)',
    'plusx.bench("resnet18", ': f'plusx.bench("{NETWORK}", seconds=0.02, ',
    'latency="20ms"': 'latency="100s", models="plusx_small", seconds=0.02',
}
"""The same for python blocks."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, the file it names, why it does not run."""

    page: str
    line: int
    language: str
    file: str
    text: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.page}, line {self.line}"


def read_blocks(page: Path) -> list[Block]:
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at, reason = 0, ""
    while at < len(lines):
        if lines[at].startswith("```"):
            language, _, file = lines[at][3:].strip().partition(" ")
            end = lines.index("```", at + 1)
            text = "\n".join(lines[at + 1 : end])
            found.append(Block(page.name, at + 1, language, file, text, reason))
            at, reason = end, ""
        elif marked := re.fullmatch(r"<!-- not run: (.+) -->", lines[at]):
            reason = marked[1]
        elif lines[at].strip():
            reason = ""
        at += 1
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """The command lines of a sh block; a backslash at the end of a line joins it to the next."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def smoke(words: list[str]) -> list[str]:
    """A command as it runs here."""
    words = [SMOKE.get(word, word) for word in words]
    if words[1] == "bench":
        return [*words, "--seconds", "0.02", "--no-memory", "--engine", "torch"]
    if words[1] == "choose":
        return [*words, "--seconds", "0.02", "--models", f"plusx_small,backbone={BACKBONE}"]
    if words[1] == "compare" and "--with" in words:
        return words + SHORT + (["--weights", BACKBONE] if "--weights" not in words else [])
    if words[1] == "study":
        return [*words, *STUDY.get(words[2], []), "--threads", "1"]
    if words[1] != "train" or "--resume" in words:
        return words
    extra = list(QUICK)
    if "--weights" not in words and "--init" not in words:
        extra += ["--weights", BACKBONE]
    elif "--init" not in words and words[words.index("--weights") + 1] == "none":
        extra += ["--image-size", "32"]
        extra += ["--model", NETWORK] if "--model" not in words else []
    if "--image-size" in words:
        extra += ["--image-size", "32"]
    return words + extra


def run_command(words: list[str], place: str, patch: pytest.MonkeyPatch) -> str:
    """Run one ``plusx`` command in this process; gives what it printed."""
    assert words[0] == "plusx", f"{place}: {words[0]} cannot run in this test: mark the block"
    patch.setattr(sys, "argv", smoke(words))
    printed, complaints = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert not code, f"{place}: {shlex.join(words)} exits with {code}: {complaints.getvalue()}"
    return printed.getvalue()


def run_page(page: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    names: dict[str, object] = {}
    for block in read_blocks(page):
        if block.file:
            Path(block.file).write_text(block.text + "\n", encoding="utf-8")
        elif block.language == "sh" and not block.reason:
            for words in commands(block):
                run_command(words, block.place, patch)
        elif block.language == "python" and not block.reason:
            text = block.text
            for said, run in PYTHON.items():
                text = text.replace(said, run)
            code = compile("\n" * block.line + text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, names)


def pictures(folder: Path, count: int, *, hue: tuple[int, int, int], seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        noise = rng.integers(-60, 60, (40, 48, 3))
        image = np.clip(np.array(hue) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{i:02d}.jpg")


def reader(folder: Path) -> None:
    """What the pages take a reader to have: folders of images, and weights of some kind."""
    cats, dogs = (200, 120, 60), (90, 100, 160)
    for name, count in (("photos", 10), ("test-photos", 4)):
        pictures(folder / name / "cats", count, hue=cats, seed=count)
        pictures(folder / name / "dogs", count, hue=dogs, seed=count + 1)
    pictures(folder / "new", 3, hue=cats, seed=3)
    shutil.copy(folder / "new" / "00.jpg", folder / "x.jpg")
    import torch

    from plusx.weights.load import disk_state

    net = plusx.create(plusx.variant(NETWORK), weights="none", classes=2)
    torch.save(disk_state(net), folder / "mine.pth")
    plusx.import_weights(folder / "mine.pth", folder / "run", model=NETWORK, talk=quiet())
    (folder / "run" / "model").rename(folder / BACKBONE)
    shutil.rmtree(folder / "run")


def quiet() -> object:
    from plusx.jobs.talk import Talk

    return Talk(quiet=True)


@pytest.fixture(scope="module")
def read_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has typed all of README.md; the other pages go on from there."""
    folder = tmp_path_factory.mktemp("reader")
    reader(folder)
    with pytest.MonkeyPatch.context() as patch:
        run_page(README, folder, patch)
    return folder


def test_readme_leaves_what_it_says(read_readme: Path) -> None:
    run = read_readme / "runs" / "photos-1"
    said = read_blocks(README)
    tree = next(b for b in said if b.language == "text" and "metrics.json" in b.text)
    for line in tree.text.splitlines()[1:]:
        name = line.split()[0]
        assert (run / name).exists(), f"{tree.place}: {name} is not in the run folder"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_page_runs(
    page: Path, read_readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(read_readme, folder)
    run_page(page, folder, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_of_a_known_kind(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in read_blocks(page):
        known = ("csv", "json", "text", "toml") if block.file else ("text", *SHOWN)
        runs = block.language in ("sh", "python") and not block.file
        assert runs or block.language in known, f"{block.place}: {block.language!r}"
        if block.reason:
            with capsys.disabled():
                print(f"\nnot run: {block.place}: {block.reason}", end="")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https://", target):
            continue
        file, _, anchor = target.partition("#")
        aim = (page.parent / file).resolve() if file else page
        assert aim.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", aim.read_text(encoding="utf-8"), re.MULTILINE)
            made = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in made, f"{page.name}: {aim.name} has no heading #{anchor}"


def options_of(verb: str, patch: pytest.MonkeyPatch) -> set[str]:
    patch.setenv("COLUMNS", "200")
    printed = run_command(["plusx", *verb.split(), "--help"], "the command line", patch)
    pairs = re.findall(r"^\s+(?:-h, )?(--[a-z-]+)(?: / (--[a-z-]+))?", printed, re.MULTILINE)
    return {name for pair in pairs for name in pair if name} - {"--help"}


def test_pages_name_every_option_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        verb: options_of(verb, monkeypatch)
        for verb in [*VERBS, *(f"study {name}" for name in STUDIES)]
    }
    assert "--unfreeze" in known["train"]
    assert "--estimate" in known["study degradation"]
    text = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}
    for verb, options in known.items():
        pages = HOMES.get(verb, (verb.split()[-1],))
        told = "".join(text[page] for page in pages)
        missing = {option for option in options if f"`{option}" not in told}
        assert not missing, f"docs: {pages} don't explain {sorted(missing)} of {verb}"
    for page in PAGES:
        for block in read_blocks(page):
            for words in commands(block) if block.language == "sh" else ():
                verb = " ".join(words[1 : 3 if words[1] == "study" else 2])
                if words[0] == "plusx" and verb in known:
                    used = {word for word in words if word.startswith("--")}
                    assert used <= known[verb], f"{block.place}: {used - known[verb]}"


def test_train_page_states_the_defaults() -> None:
    rows = [row.strip("|").split("|") for row in (ROOT / "docs" / "train.md").read_text(
        encoding="utf-8").splitlines() if row.startswith("| `--")]  # fmt: skip
    said = {cells[0].strip(" `").split("`")[0].split()[0]: cells[-1] for cells in rows}
    for field in fields(TrainOptions):
        option = f"--{field.name.replace('_', '-')}"
        if option in said and type(field.default) in (int, float):
            words = re.findall(r"[0-9.]+", said[option])
            assert f"{field.default:g}" in words, f"docs/train.md: default of {option}"
    for scratch in (True, False):
        assert f"{default_lr('adamw', 32, scratch=scratch):g}" in said["--lr"]


def test_python_page_names_the_whole_interface() -> None:
    text = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    missing = [n for n in plusx.__all__ if n != "__version__" and f".{n}`" not in text]
    assert not missing, f"docs/python-api.md does not name {missing}"
