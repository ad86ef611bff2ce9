"""The model card: what stands in the artifact's README.md, for people and for the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plusx._version import __version__
from plusx.data.records import Task
from plusx.jobs.wording import ROLES, interval, label, number, one_line, verdict, which_images

_SHOWN = 100  # classes listed by name; config.json holds all of them
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$=!])")
_ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:[\\/]")
_LEADING = re.compile(r"^([-+]|\d+[.)])(?=\s|$)")  # would open a list


RESIDUAL = "residual network"


def model_card(
    *,
    classes: Sequence[str],
    provenance: Mapping[str, Any],
    name: str = "model",
    architecture: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    task: Task = "single",
    license: str | None = None,
    kind: str = RESIDUAL,
) -> str:
    """The text of a Hugging Face model card (https://huggingface.co/docs/hub/model-cards).

    Names of classes and folders are escaped, so that none can break out of its cell or the front
    matter. Of a path only the last part is shown.

    Args:
        classes: K names, in the order of the logits.
        provenance: what made the model, as in the artifact. ``weights`` (what it started from),
            ``trained_blocks`` (a number or ``all``), ``ships`` (``probe``, ``imported`` or an
            epoch) and ``data`` (the folder) are told in sentences, all else is listed.
        name: of the model, such as the run folder's.
        architecture: as in config.json; timm's, unless it begins with ``plusx_``.
        metrics: what ``metrics.json`` holds; None where nothing was measured. Its ``counts``
            (split -> class -> images) are told where it has them.
        task: one class an image, or any number.
        license: of the weights, as the hub names it (``apache-2.0``); ``unknown`` where None.
        kind: of network, in a sentence.
    """
    metrics = metrics or {}
    title, data = _last_part(name), _last_part(str(provenance.get("data") or "images"))
    timm = architecture is not None and not architecture.startswith("plusx_")
    parts = [
        _front_matter(title, data, metrics, license=license, tags=_tags(kind, timm=timm)),
        f"# {_escape(title)}",
        _what(kind, architecture, classes, metrics, task),
        "## Data",
        _data(provenance, classes, metrics.get("counts") or {}),
        "## Training",
        _training(provenance, metrics, kind),
        "## Results",
        _results(metrics),
        "## Intended use and limits",
        _limits(classes, metrics, task),
        "## How to use it",
        _usage(timm=timm),
        "## Versions",
        _escape(f"plusx {metrics.get('plusx_version', __version__)}"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tags(kind: str, *, timm: bool) -> list[str]:
    resnet = ["resnet"] if kind == RESIDUAL else []
    return ["image-classification", *resnet, "plusx", *(["timm"] if timm else [])]


def _front_matter(
    name: str, data: str, metrics: Mapping[str, Any], *, license: str | None, tags: Sequence[str]
) -> str:
    lines = [
        "---",
        "library_name: plusx",
        "pipeline_tag: image-classification",
        f"license: {_quoted(license or 'unknown')}",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    headline = metrics.get("headline")
    if headline and headline["figure"] == "top1":
        lines += [
            "metrics:",
            "- accuracy",
            "model-index:",
            f"- name: {_quoted(name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {_quoted(data)}",
            "      type: imagefolder",
            f"      split: {_quoted(headline['split'])}",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {headline['value']:.4f}",
        ]
    return "\n".join([*lines, "---"])


def _what(
    kind: str,
    architecture: str | None,
    classes: Sequence[str],
    metrics: Mapping[str, Any],
    task: Task,
) -> str:
    which = f" ({_escape(architecture)})" if architecture else ""
    does = "sorts an image into one of"
    if task == "multi":
        does = "says of an image which it has, any number or none, of"
    text = (
        f"A {kind}{which} that {does} {len(classes)} classes. `config.json` "
        "beside this file holds its preprocessing and the names of its classes, in order."
    )
    headline = metrics.get("headline")
    if headline is None:
        return text + " Nothing has been measured yet."
    limits = interval(headline["figure"], headline)
    sure = f" (95% interval {limits})" if limits else ""
    method = _escape(headline.get("method", ""))
    return (
        f"{text}\n\n**{verdict(headline)}**{sure}. Measured on {_escape(which_images(headline))}"
        + (f": {method}." if method else ".")
    )


def _data(
    provenance: Mapping[str, Any], classes: Sequence[str], counts: Mapping[str, Mapping[str, int]]
) -> str:
    source = "What it was trained on is not recorded here."
    if data := provenance.get("data"):
        source = f"Trained on images from the folder or list `{_code(_last_part(str(data)))}`."
    splits = list(counts)
    rows = [
        [_escape(name), *(f"{counts[split].get(name, 0):,}" for split in splits)]
        for name in classes[:_SHOWN]
    ]
    if len(classes) > _SHOWN:
        rows.append([f"and {len(classes) - _SHOWN:,} more", *("" for _ in splits)])
    if splits:
        totals = [f"**{sum(counts[split].values()):,}**" for split in splits]
        rows.append(["**all**", *totals])
    return f"{source}\n\n" + _table(["class", *map(_escape, splits)], rows)


def _training(provenance: Mapping[str, Any], metrics: Mapping[str, Any], kind: str) -> str:
    told = ("weights", "trained_blocks", "ships", "data")
    lines = []
    if weights := provenance.get("weights"):
        origin = _last_part(str(weights)) if _ABSOLUTE.match(str(weights)) else weights
        lines.append(f"The weights it started from: {_escape(origin)}.")
    if trained := _trained(provenance, kind):
        lines.append(f"Trained: {trained}.")
    if chosen := metrics.get("chosen"):
        lines.append(f"What ships: {_escape(chosen.get('text') or chosen['name']).rstrip('.')}.")
    rest = {key: value for key, value in provenance.items() if key not in told}
    rows = [[_escape(key), _escape(_plain(value))] for key, value in rest.items()]
    parts = ["\n".join(f"- {line}" for line in lines)] if lines else []
    parts += [_table(["provenance", ""], rows)] if rows else []
    return "\n\n".join(parts) or "Nothing is recorded about the training."


def _trained(provenance: Mapping[str, Any], kind: str) -> str:
    blocks, ships = provenance.get("trained_blocks"), provenance.get("ships")
    if ships == "imported":
        return "nothing, the weights were imported as they are"
    if ships == "probe" or blocks == 0:
        return "the head alone, on the features of the frozen backbone"
    if blocks == "all":
        return "the whole network"
    which = "residual blocks" if kind == RESIDUAL else "blocks"
    return f"the last {_escape(blocks)} {which} and the head" if blocks else ""


def _results(metrics: Mapping[str, Any]) -> str:
    rows = [
        [
            label(figure),
            number(figure, found["value"]),
            interval(figure, found),
            _escape(f"{evaluation['n']:,} of {evaluation['split']}"),
            _escape(evaluation["role"]),
            _escape(evaluation.get("method", "")),
        ]
        for evaluation in metrics.get("evaluations", [])
        for figure, found in evaluation["figures"].items()
        if found is not None
    ]
    if not rows:
        return "Nothing has been measured: run `plusx evaluate` on images of your own."
    table = _table(["figure", "value", "95% interval", "images", "role", "how"], rows)
    roles = {evaluation["role"] for evaluation in metrics["evaluations"]} & set(ROLES)
    return (
        table
        + "\n\nThe images of role "
        + "; of role ".join(f"`{role}`: {ROLES[role]}" for role in sorted(roles))
        + "."
    )


def _limits(classes: Sequence[str], metrics: Mapping[str, Any], task: Task) -> str:
    lines = [
        "For images like those it was trained on. Another camera, place, season or way of "
        "cutting out can lower every figure above: measure on your own images first.",
        *_deciding(classes, metrics.get("decision") or {}, task),
        "Not for decisions about people's health, safety or rights without a check of its own.",
    ]
    few = {
        one["class"]: one["support"]
        for evaluation in metrics.get("evaluations", [])
        if evaluation["role"] == "report"
        for one in evaluation.get("per_class") or []
        if one["support"] < 20
    }
    if few:
        names = ", ".join(f"{_escape(name)} ({n})" for name, n in list(few.items())[:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        lines.append(f"Measured on fewer than 20 images: {names}{more}.")
    return "\n".join(f"- {line}" for line in lines)


def _deciding(classes: Sequence[str], decision: Mapping[str, Any], task: Task) -> Iterator[str]:
    """What it makes of images unlike its own, and how far its probabilities can be believed."""
    ships, unknown = decision.get("ships", {}), decision.get("unknown")
    if task == "multi":
        yield (
            f"It knows of its {len(classes)} classes alone; on an image of something quite "
            "different its answers mean nothing, however sure."
        )
    elif "unknown" in ships:
        rows, numbers = ships["unknown"]["bank"]
        share = f"{100 * ships['unknown']['false_reject']:g}% of images of its own classes"
        measured = ""
        if unknown:
            limits = interval("top1", unknown["share"])
            measured = f" (measured: {number('top1', unknown['share']['value'])}, {limits})"
        yield (
            f"An image unlike all it was trained on is called unknown; so are about {share}"
            f"{measured}. For this, `decision.safetensors` holds the features ({numbers:,} numbers "
            f"each) of {rows:,} training images: no picture and no path, but whoever has an image "
            "can tell whether it is among them."
        )
    else:
        yield (
            f"It always answers with one of its {len(classes)} classes, for an image of anything "
            "else as well, and can be sure of it."
        )
    found = decision.get("calibration")
    if "temperature" not in ships:
        yield "How sure it says it is has not been calibrated."
    elif not found:
        yield "How sure it says it is has been calibrated, and not measured on other images."
    else:
        before, after = (found[when]["ece"]["value"] for when in ("before", "after"))
        yield (
            "How sure it says it is has been calibrated: it is off by "
            f"{number('top1', after)} on average ({number('top1', before)} before), measured on "
            f"{_escape(which_images(decision))}."
        )


def _usage(*, timm: bool) -> str:
    parts = [
        "MODEL is the folder that holds this file.",
        "```sh\npip install plusx\nplusx predict MODEL photo.jpg\n"
        "plusx evaluate MODEL photos/\n```",
        '```python\nimport plusx\n\nplusx.Predictor("MODEL").predict("photo.jpg")\n```',
    ]
    if timm:
        parts += [
            "The same logits from timm (preprocess as `config.json` says):",
            "```python\nimport timm\n\n"
            'model = timm.create_model("local-dir:MODEL", pretrained=True).eval()\n```',
        ]
    return "\n\n".join(parts)


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]", path) if part not in ("", ".")]
    return parts[-1] if parts else "images"


def _plain(value: object) -> str:
    if isinstance(value, str | int | float) or value is None:
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escape(text: object) -> str:
    """Markdown that shows ``text`` as it is (CommonMark 0.31, section 2.4), on one line."""
    return _LEADING.sub(_behind_backslash, _MARKUP.sub(r"\\\1", one_line(text)))


def _behind_backslash(found: re.Match[str]) -> str:
    return f"{found[0][:-1]}\\{found[0][-1]}"


def _code(text: str) -> str:
    """``text`` between single backticks, where a backtick cannot be escaped."""
    return one_line(text).replace("`", "'").replace("|", "/")


def _quoted(text: object) -> str:
    """A YAML scalar: JSON's double quotes are YAML's (YAML 1.2.2, section 1.2)."""
    return json.dumps(one_line(text), ensure_ascii=False)
