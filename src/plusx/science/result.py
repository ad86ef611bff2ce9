"""What every study gives: plain data and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """One study's data and finding.

    Attributes:
        study: its name, as ``plusx study`` has it.
        finding: one sentence with numbers and their uncertainty, made from the data.
        settings: everything that was chosen, resolved: seeds, nets, sizes; JSON values.
        tables: name -> rows of plain values, all with the same keys; each becomes a CSV file.
        arrays: name -> array; together they become one npz file.
        notes: what a reader must know: departures from the paper, what was left out and why.
    """

    study: str
    finding: str
    settings: Mapping[str, Any]
    tables: Mapping[str, Sequence[Row]]
    arrays: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    notes: Sequence[str] = ()
