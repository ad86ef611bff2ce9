"""``plusx push``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx push runs/photos-1 me/photos --dry-run
  plusx push runs/photos-1 me/photos --private
  plusx push runs/photos-2 me/photos --overwrite --message "more images of dogs"
"""


def push(
    run: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    repo: Annotated[str, typer.Argument(help="USER/NAME on the hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="For you alone, where the repository is new.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be sent and replaced; send nothing.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch [default: main].")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another model that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Put a model on the Hugging Face hub: weights, config.json and model card, nothing else of
    the run. Log in first: hf auth login, or set HF_TOKEN."""
    from plusx.jobs.push import push as job

    done = job(
        run, repo, private=private, dry_run=dry_run, revision=revision, message=message,
        overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        print(json.dumps(done.to_json(), ensure_ascii=False))
        return
    for file in done.files:
        print(f"{file.name:<20} {file.bytes:>12,} bytes  {file.fate}")
    if done.url is None:
        print(f"nothing was sent; to {done.where}: leave out --dry-run")
    else:
        print(f"pushed:  {done.url}")
        print(f"next:    plusx train DATA --weights {done.repo}")
