"""``plusx report``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx report runs/photos-1 --open
  plusx report runs/photos-1 --no-thumbnails --out for-others.html
  plusx report runs/photos-1 runs/photos-2
"""


def report(
    run: Annotated[str, typer.Argument(help="A run folder; also one that was interrupted.")],
    run_b: Annotated[
        str | None, typer.Argument(help="Another run: both side by side, on one page.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    thumbnails: Annotated[
        bool | None,
        typer.Option("--thumbnails/--no-thumbnails", help="Images [default: as in training]."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="The page [default: RUN/report.html, RUN/report-with-RUN_B.html]."),
    ] = None,
) -> None:
    """Make a run's report again from what lies in its folder, or set two runs side by side. Nothing
    is trained; the model looks at the few photographs shown, to paint where it looked."""
    from pathlib import Path

    from plusx.cli.evaluate import ready

    ready("--out", out)
    target = None if out is None else Path(out)
    if run_b is None:
        from plusx.jobs.report import write_report

        page = write_report(Path(run), thumbnails=thumbnails, out=target)
    else:
        from plusx.jobs.report_pair import write_pair

        page = write_pair(Path(run), Path(run_b), thumbnails=thumbnails, out=target)
    print(page)
    if open_:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            print("note: no browser was found; open the page by hand", file=sys.stderr)
