"""``plusx scan``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plusx.cli.options import Background, Bands, Depth, Device, MaxPixels, Range

if TYPE_CHECKING:
    from plusx.jobs.audit import Audit
    from plusx.jobs.audit_findings import Finding

EXAMPLES = """\b
Examples:
  plusx scan photos/
  plusx scan photos/ --weights timm/resnet50.a1_in1k (label errors and outliers too)
  plusx scan photos/ --fix clean.csv
  plusx scan photos/ --json
"""

SHOWN = 5
"""Files named on the screen for each finding."""


def scan(
    data: Annotated[str, typer.Argument(help="Class folders (with or without splits), or a CSV.")],
    out: Annotated[
        str | None, typer.Option(help="The page [default: scan-NAME.html in this folder].")
    ] = None,
    fix: Annotated[
        str | None, typer.Option(help="Write a manifest without what is wrong for sure.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is at --out and --fix.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="Also find label errors and outliers: a file, a run, or a hub id."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Variant, where the weights don't say.")] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails/--no-thumbnails", help="Show images on the page.")
    ] = True,
    cache: Annotated[
        str | None, typer.Option(help="Folder for facts and features [default: the user's own].")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep neither.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That read images [default: one a core].")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="That images are read with: 3 colour, 1 grey.")
    ] = None,
    bands: Bands = None,
    range: Range = None,
    depth: Depth = "full-range",
    background: Background = "white",
    max_pixels: MaxPixels = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of folds and samples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Look for what is wrong with a data set: broken files, copies, leaks, label errors, shortcuts.
    Nothing in it is changed. Exits with 1 where files cannot be read or lie in two splits."""
    given: dict[str, Any] = dict(locals())
    for name in ("data", "out", "fix", "overwrite", "thumbnails", "no_cache", "as_json"):
        given.pop(name)
    given["cache"] = None if no_cache else cache or "auto"
    from pathlib import Path

    from plusx.jobs.audit import scan as job
    from plusx.jobs.audit_manifest import check_manifest, write_manifest
    from plusx.jobs.audit_page import check_page, write_page
    from plusx.jobs.talk import Talk

    page = check_page(data, out, overwrite=overwrite)
    if fix is not None:
        check_manifest(Path(fix), overwrite=overwrite)
    audit = job(data, talk=Talk(quiet=as_json), **given)
    if as_json:
        print(json.dumps(audit.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _show(audit)
    write_page(audit, page, thumbnails=thumbnails)
    said = [f"page:     {page}"]
    if fix is not None:
        fixed = write_manifest(audit, Path(fix), overwrite=overwrite)
        said.append(f"manifest: {fixed.path} ({fixed.kept:,} images; {fixed.left_out:,} left out, "
                    f"{fixed.suspects:,} labels to look at: {fixed.notes})")  # fmt: skip
    print("\n".join(said), file=sys.stderr if as_json else sys.stdout)
    if audit.of("error"):
        raise typer.Exit(1)


def _show(audit: Audit) -> None:
    """A table on a terminal; plain lines elsewhere."""
    print(f"{audit.listing.source}: {audit.verdict}")
    if sys.stdout.isatty():
        _table(audit)
    else:
        for finding in audit.findings:
            print(f"{finding.severity}: {_one_line(finding.text)}")
            for line in _files(audit, finding):
                print(f"  {line}")
    for note in audit.notes:
        print(f"not looked for: {note}")


def _table(audit: Audit) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"error": "bold red", "warning": "yellow", "note": "dim"}
    table = Table(show_lines=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("finding", overflow="fold", ratio=3)
    table.add_column("what to do", ratio=2)
    for finding in audit.findings:
        lines = "\n".join([_one_line(finding.text), *_files(audit, finding, relative=True)])
        severity = Text(finding.severity, colours[finding.severity])
        table.add_row(severity, Text(lines), Text(finding.remedy))
    if audit.findings:
        Console().print(table)


def _files(audit: Audit, finding: Finding, *, relative: bool = False) -> list[str]:
    """The first files of a finding, a group on one line."""
    from plusx.data.split import relative_name

    def name(row: int) -> str:
        sample = audit.listing.samples[row]
        return relative_name(audit.listing, sample) if relative else sample.path

    lines = []
    shown = [item for item in finding.items if item.rows][:SHOWN]
    for item in shown:
        names = [name(row) for row in item.rows[:3]]
        more = f" and {len(item.rows) - 3} more" if len(item.rows) > 3 else ""
        why = f": {item.why}" if item.why else ""
        lines.append(_one_line(f"{', '.join(names)}{more}{why}"))
    left = sum(bool(item.rows) for item in finding.items) - len(shown)
    return [*lines, f"and {left:,} more (--json has all)"] if left else lines


def _one_line(text: str) -> str:
    from plusx.jobs.wording import one_line

    return one_line(text)
