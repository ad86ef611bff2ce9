"""Keep a study: data, figure, finding, in one folder."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plusx.atomic import replacing
from plusx.jobs.run import write_json
from plusx.science.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def keep(result: Result, figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write ``NAME.json``, a CSV per table, ``arrays.npz``, and each figure as SVG and PNG.

    Args:
        result: of a study.
        figures: name -> figure; they are drawn without a display.
        folder: made if absent; files of the same names are replaced.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{result.study}.json"]
    write_json(
        written[0],
        {
            "study": result.study,
            "finding": result.finding,
            "notes": list(result.notes),
            "settings": dict(result.settings),
            "tables": {
                name: [{key: _known(value) for key, value in row.items()} for row in rows]
                for name, rows in result.tables.items()
            },
        },
    )
    for name, rows in result.tables.items():
        written.append(folder / f"{name}.csv")
        with replacing(written[-1]) as beside:
            beside.write_text(_csv(rows), encoding="utf-8")
    if result.arrays:
        written.append(folder / "arrays.npz")
        with replacing(written[-1]) as beside, open(beside, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **result.arrays)
    for name, figure in figures.items():
        for ending in ("svg", "png"):
            written.append(folder / f"{name}.{ending}")
            with replacing(written[-1]) as beside:
                figure.savefig(beside, format=ending, dpi=200, bbox_inches="tight")
    return written


def default_folder(study: str, subject: str | os.PathLike[str] | None) -> Path:
    """``RUN/studies/NAME`` for a run, else ``studies/NAME``."""
    run = None if subject is None else Path(subject)
    if run is not None and (run / "config.toml").is_file():
        return run / "studies" / study
    return Path("studies") / study


def _known(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null there, spelled out in the CSV."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    table = list(rows)
    writer = csv.DictWriter(text, fieldnames=list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
