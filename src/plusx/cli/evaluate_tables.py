"""What ``plusx evaluate`` prints for a person."""

from __future__ import annotations

from typing import Any

from plusx.cli.words import deciding, figure

Json = dict[str, Any]

_SLICES = 20


def show(found: Json) -> None:
    """The figures, the classes, and whatever else was asked for."""
    print(f"{found['n']} images ({found['split']})")
    for name, value in found["figures"].items():
        if value is not None and name != "nll":
            print(f"{name:<22} {figure(value)}")
    for line in deciding(found["decision"] or {}):
        print(line)
    _classes(found)
    _held(found)
    for name, tell in (("costs", _costs), ("slices", _slices), ("tta", _tta), ("crops", _crops),
                       ("robustness", _robustness)):  # fmt: skip
        if name in found:
            tell(found[name])


def _classes(found: Json) -> None:
    from rich.console import Console
    from rich.table import Table

    seen = [one for one in found["per_class"] if one["support"]]
    table = Table(title=None)
    figures = ["precision", "recall", "f1", "auroc", "auprc"]
    for name in ("class", *figures, "support"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for one in seen[:50]:
        cells = [_share(one[name]) for name in figures]
        table.add_row(str(one["class"]), *cells, str(one["support"]))
    console = Console()
    console.print(table, markup=False)
    if len(seen) > 50:
        print(f"and {len(seen) - 50} classes more (--json has all)")
    if len(seen) <= 20 and found["confusion"] is not None:
        _confusion(found, [str(one["class"]) for one in seen])


def _confusion(found: Json, names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    order = [found["classes"].index(name) for name in names]
    rows: list[list[int]] = found["confusion"]
    numbers = [str(i) for i in range(1, len(names) + 1)]
    console = Console()
    for heads in (names, numbers):  # under numbers where the names don't fit side by side
        table = Table(title="confusion: rows are true, columns predicted")
        for head in ("", *heads):
            table.add_column(head, justify="right", no_wrap=True)
        for number, name, i in zip(numbers, names, order, strict=True):
            label = name if heads is names else f"{name} {number}"
            table.add_row(label, *(str(rows[i][j]) for j in order))
        if Console(width=10_000).measure(table).maximum <= console.width:
            console.print(table, markup=False)
            break
    else:
        print(f"the confusion matrix needs more than {console.width} columns (--json has it)")
    elsewhere = sum(map(sum, rows)) - sum(rows[i][j] for i in order for j in order)
    if elsewhere:
        print(f"{elsewhere} predictions are of classes absent from the data")


def _held(found: Json) -> None:
    """The rates at promised ones, a line each, and why some are left out."""
    for one in found["per_class"][:50]:
        for at in one["at"]:
            other = "sensitivity" if at["promised"] == "specificity" else "specificity"
            print(f"{one['class']}: {other} {figure(at[other])} at {at['held_at']:.4g} "
                  f"{at['promised']} (probability {at['threshold']:.6g})")  # fmt: skip
    for name, why in found["undefined"].items():
        if name.startswith("per_class.at "):
            print(f"left out: {why}")


def _costs(costs: Json) -> None:
    def amount(value: Json) -> str:
        return f"{value['value']:.4g} (95% interval {value['low']:.4g} to {value['high']:.4g})"

    print(f"expected cost an image, deciding by cost:        {amount(costs['cheapest'])}")
    print(f"expected cost an image, by the most probable:    {amount(costs['most_probable'])}")
    print(f"saved an image: {amount(costs['saved'])}; {costs['changed']} decisions change")
    made = ", ".join(f"{name} {count}" for name, count in list(costs["decided"].items())[:20])
    print(f"decisions by cost: {made}")


def _slices(found: list[Json]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not found:
        print("no slices to judge")
        return
    table = Table(title="slices, each against the rest; p is corrected for their number (Holm)")
    for head in ("column", "value", "images", "top1", "95% interval", "rest", "p", ""):
        table.add_column(head, justify="left" if head in ("column", "value") else "right")
    for one in found[:_SLICES]:
        top1 = one["top1"]
        between = f"{top1['low']:.3f}-{top1['high']:.3f}"
        table.add_row(one["column"], one["value"], str(one["n"]), f"{top1['value']:.3f}", between,
                      f"{one['rest']:.3f}", f"{one['p']:.2g}", "worse" * one["worse"])  # fmt: skip
    Console().print(table, markup=False)
    if len(found) > _SLICES:
        print(f"and {len(found) - _SLICES} slices more (--json has all)")
    worse = [one for one in found if one["worse"]]
    print(f"significantly worse than the rest: {len(worse)} of {len(found)} slices")


def _points(way: Json) -> str:
    gain = way["gain"]
    low, high = 100 * gain["low"], 100 * gain["high"]
    return f"{100 * gain['value']:+.1f} points (95% interval {low:+.1f} to {high:+.1f})"


def _tta(way: Json) -> None:
    print(f"--tta {way['name']}: top1 {figure(way['top1'])}, {_points(way)}: {way['finding']}")


def _crops(ways: list[Json]) -> None:
    for way in ways:
        against = "" if way["own"] else f", {_points(way)}"
        print(f"--crop {way['name']:<7} top1 {figure(way['top1'])}{against}: {way['finding']}")
    if not any(way["settled"] for way in ways):
        print("which crop is best cannot be told from these images")
    elif found := [way for way in ways if way["settled"] and way["gain"]["low"] > 0]:
        mode = {"centre": "short"}.get(found[0]["name"], found[0]["name"])
        print(f"to train with it: plusx train ... --resize-mode {mode}")


def _robustness(found: Json) -> None:
    from rich.console import Console
    from rich.table import Table

    kinds = list(dict.fromkeys(point["kind"] for point in found["points"]))
    some = "" if found["n"] == found["of"] else f" of {found['of']}, each class by its share"
    table = Table(title=f"{found['figure']} under harm, {found['n']} images{some}")
    for head in ("kind", "as it is", "1", "2", "3", "4", "5"):
        table.add_column(head, justify="left" if head == "kind" else "right")
    for kind in kinds:
        own = [point for point in found["points"] if point["kind"] == kind]
        table.add_row(kind, *(f"{point['value']:.3f}" for point in own))
    Console().print(table, markup=False)


def _share(value: object) -> str:
    return "-" if not isinstance(value, dict) else f"{value['value']:.3f}"
