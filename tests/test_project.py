"""The project's own files: what is declared is what is used, and the two commands stand on it."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import plusx
from plusx.jobs.options import TrainOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "plusx"

IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn", "typing-extensions": "typing_extensions"}
"""Name on the package index -> name in an import, where they differ in more than - and _."""
UNSEEN = {"tensorboard", "pylibjpeg", "pylibjpeg_openjpeg", "python_gdcm"}
"""Declared, though never imported: torch needs the first to write TensorBoard events, pydicom finds
the others by itself."""


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def requirement_name(text: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", text)
    assert found, text
    return found[0].lower().replace("_", "-").replace(".", "-")


def imported() -> set[str]:
    """Top-level names of all that the package imports, anywhere in a file."""
    names: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"plusx", "__future__"}


def test_every_import_is_declared_and_every_dependency_is_imported(
    project: dict[str, dict],
) -> None:
    declared = [*project["project"]["dependencies"]]
    for extra in (
        "parquet", "datasets", "heic", "dicom", "geotiff", "keras", "timm", "wandb", "mlflow",
    ):  # fmt: skip
        # more extras: one a line, sorted, as soon as the package imports them
        declared += project["project"]["optional-dependencies"][extra]
    names = {requirement_name(text) for text in declared}
    known = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}
    found = imported()
    assert not found - known - {"tomllib"}, "imported, but not declared in pyproject.toml"
    assert not known - found - UNSEEN, "declared in pyproject.toml, but never imported"


def test_constraints_name_one_version_of_each_dependency(project: dict[str, dict]) -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]  # fmt: skip
    shape = r'([a-z0-9-]+)==([0-9][^ ]*)( ; python_version >= "3\.11")?'
    pinned = [re.fullmatch(shape, line) for line in lines]
    assert all(pinned), [line for line, found in zip(lines, pinned, strict=True) if not found]
    names = [found[1] for found in pinned if found]
    assert len(set(names)) == len(names)
    declared = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        declared += extra
    wanted = {requirement_name(text) for text in declared if "python_version" not in text}
    assert not wanted - set(names) - {"plusx"}


def test_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{plusx.__version__}]" in text


def make(*arguments: str) -> str:
    program = shutil.which("make")
    assert program, "the two commands of the README need make"
    done = subprocess.run([program, "-C", str(ROOT), "--no-print-directory", *arguments],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout


def test_make_demo_trains_on_the_bundled_sample_and_names_the_report() -> None:
    lines = make("--dry-run", "demo").splitlines()
    verbs = [shlex.split(line)[1:] for line in lines if "/plusx " in line]
    train = verbs[0]
    assert train[0] == "train"
    assert train[train.index("--weights") + 1] == "bundled"
    out = train[train.index("--out") + 1]
    TrainOptions(train[1], out=out, weights="bundled", overwrite=True)
    assert all(out in words for words in verbs), "every command is about the same run"
    assert str(ROOT / out / "report.html") in lines[-1]


def test_make_test_runs_every_check() -> None:
    commands = make("--dry-run", "test")
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert check in commands
    assert "[dev]" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert text.splitlines()[-1] == "make test"
    assert "PLUSX_TEST_DATA" in text
    assert script.stat().st_mode & 0o111 or sys.platform == "win32", "it must be executable"


def test_template_and_typing_marker_are_packaged(project: dict[str, dict]) -> None:
    packaged = project["tool"]["setuptools"]["package-data"]["plusx"]
    assert "py.typed" in packaged
    for pattern in packaged:
        assert list(PACKAGE.glob(pattern)), f"{pattern}: nothing there to package"
