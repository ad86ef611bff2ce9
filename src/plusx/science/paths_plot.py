"""The figure of ``paths``, from its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plusx.science.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED = "#0072B2", "#D55E00"


def draw(result: Result) -> dict[str, Figure]:
    """Paths by length, the gradient along one of them, and what each length brings."""
    from matplotlib.figure import Figure

    rows = result.tables["lengths"]
    lengths = [row["length"] for row in rows]
    figure = Figure(figsize=(10.5, 3), layout="constrained")
    paths, one, brings = figure.subplots(1, 3)
    paths.bar(lengths, [row["share_of_paths"] for row in rows], color=BLUE)
    paths.set(ylabel="share of paths")
    one.plot(lengths, [row["gradient_of_one_path"] for row in rows], "o-", color=BLUE,
             markersize=3, label="one path (sampled)")  # fmt: skip
    one.plot(lengths, [row["gradient_of_all_paths"] for row in rows], "s--", color=RED,
             markersize=3, label="all paths, summed (exact)")  # fmt: skip
    one.set(ylabel="norm of the input's gradient", yscale="log")
    one.legend(frameon=False, fontsize=7)
    share = [row["share_of_gradient"] for row in rows]
    spread = [
        [max(row["share_of_gradient"] - row["share_low"], 0) for row in rows],
        [max(row["share_high"] - row["share_of_gradient"], 0) for row in rows],
    ]
    brings.bar(lengths, share, yerr=spread, color=BLUE, error_kw={"elinewidth": 0.8})
    brings.set(ylabel="share of the gradient")
    for panel in (paths, one, brings):
        panel.set(xlabel="path length (residual branches)")
        panel.spines[["top", "right"]].set_visible(False)
    return {"paths": figure}
