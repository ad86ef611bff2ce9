"""``plusx recipes``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx recipes
  plusx recipes a3
  plusx recipes a3 --json
"""


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to show whole.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """List the recipes of plusx train --recipe, or show one: source, expected figure, every
    number. A file of yours in the same form is plusx train --config FILE."""
    from plusx.jobs.recipes import read_recipe, recipe_names

    if name is not None:
        one = read_recipe(name)
        print(json.dumps(asdict(one), ensure_ascii=False) if as_json else one.text, end="")
        if as_json:
            print()
        return
    found = [read_recipe(known) for known in recipe_names()]
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    wide = max(len(one.name) for one in found)
    for one in found:
        print(f"{one.name:<{wide}}  {one.title}")
        print(f"{'':<{wide}}  {one.expected}")
    print(f"{'':<{wide}}  one in full: plusx recipes NAME")
