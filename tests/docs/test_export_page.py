"""The examples of docs/export.md run where plusx cannot even be imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plusx import Run
from plusx.jobs.export import Checking
from plusx.jobs.talk import Talk

PAGE = Path(__file__).parents[2] / "docs" / "export.md"

BLOCKER = """
import sys
class NoPlusx:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "plusx":
            raise ImportError("plusx is not here")
sys.meta_path.insert(0, NoPlusx())
try:
    import plusx
except ImportError:
    pass
else:
    raise SystemExit("plusx could be imported")
"""


@pytest.mark.parametrize(
    ("to", "precision", "extra"),
    [("onnx", "fp32", "onnx"), ("openvino", "bf16", "openvino"), ("torch", "fp32", "")],
)
def test_example_runs_without_plusx(
    finished: Run, photos: Path, tmp_path: Path, to: str, precision: str, extra: str
) -> None:
    if extra:
        pytest.importorskip(extra, reason=f"extra '{extra}' absent")
    heading = {"onnx": "onnxruntime", "openvino": "OpenVINO", "torch": "torch"}[to]
    text = PAGE.read_text(encoding="utf-8").split(f"### {heading}, without plusx\n")[1]
    code = text.split("```python\n")[1].split("```")[0]
    suffix = {"onnx": "onnx", "openvino": "xml", "torch": "pt2"}[to]
    out = tmp_path / "runs" / "photos-1" / "export" / f"photos-1-{precision}.{suffix}"
    finished.export(to=to, precision=precision, out=out, checking=Checking(skip=True),
                    talk=Talk(quiet=True))  # fmt: skip
    shutil.copy(next((photos / "val" / "across").iterdir()), tmp_path / "x.jpg")
    done = subprocess.run([sys.executable, "-I", "-c", BLOCKER + code], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "across" in done.stdout or "upright" in done.stdout
