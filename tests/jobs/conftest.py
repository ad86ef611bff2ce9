"""Exported files, each made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from plusx import Run
from plusx.export import TARGETS
from plusx.jobs.export import Exported
from plusx.jobs.talk import Talk


@pytest.fixture(scope="session")
def exported(
    finished: Run, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Exported]:
    """(format, precision) -> a file of ``finished``; read it, don't write to it."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[tuple[str, str], Exported] = {}

    def make(to: str, precision: str) -> Exported:
        for module, extra in (("onnx", "onnx"), ("openvino", "openvino"), ("nncf", "int8")):
            if to == module or (extra == "int8" and precision == "int8"):
                pytest.importorskip(module, reason=f"extra '{extra}' absent")
        if (to, precision) not in made:
            out = folder / f"{to}-{precision}{TARGETS[to].suffix}"  # type: ignore[index]
            made[to, precision] = finished.export(
                to=to, precision=precision, out=out,
                talk=Talk(quiet=True),
            )  # fmt: skip
        return made[to, precision]

    return make
