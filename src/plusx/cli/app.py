"""The command line: one verb a module, each importing its room only when it runs."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from plusx._version import __version__
from plusx.cli import (
    bench,
    cache,
    choose,
    compare,
    evaluate,
    explain,
    export,
    export_weights,
    import_,
    models,
    predict,
    push,
    recipes,
    report,
    scan,
    serve,
    shards,
    slim,
    study,
    train,
)
from plusx.errors import PlusxError

app = typer.Typer(
    name="plusx",
    help="Residual networks for image recognition: from a folder of images to a classifier you can "
    "trust and ship.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  plusx train photos/   (plusx VERB --help has examples)",
)
VERBS: dict[str, tuple[Callable[..., None], str, str]] = {
    "train": (train.train, "Train a classifier on a folder of images.", train.EXAMPLES),
    "scan": (scan.scan, "Look for what is wrong with a data set.", scan.EXAMPLES),
    "predict": (predict.predict, "Classify images, folders, patterns.", predict.EXAMPLES),
    "evaluate": (evaluate.evaluate, "Score a run on labelled images.", evaluate.EXAMPLES),
    "compare": (
        compare.compare,
        "Compare two runs, or networks trained on your images.",
        compare.EXAMPLES,
    ),
    "slim": (slim.slim, "Take blocks out of a run's network.", slim.EXAMPLES),
    "explain": (explain.explain, "Show where the network looked.", explain.EXAMPLES),
    "bench": (bench.bench, "Time networks on this machine.", bench.EXAMPLES),
    "choose": (choose.choose, "Find the right net for your images.", choose.EXAMPLES),
    "report": (report.report, "Make a run's page again, or of two.", report.EXAMPLES),
    "import": (import_.import_weights, "Make a run of weights that exist.", import_.EXAMPLES),
    "models": (models.models, "List the networks, or draw one.", models.EXAMPLES),
    "export": (export.export, "Write a file that other programs run.", export.EXAMPLES),
    "export-weights": (
        export_weights.export_weights,
        "Weights for torchvision, timm or one file.",
        export_weights.EXAMPLES,
    ),
    "cache": (cache.cache, "List or remove what is kept from run to run.", cache.EXAMPLES),
    "shards": (shards.shards, "Pack images into tar files.", shards.EXAMPLES),
    "serve": (serve.serve, "Answer over HTTP: a page and an API.", serve.EXAMPLES),
    "recipes": (recipes.recipes, "List the recipes of training, or show one.", recipes.EXAMPLES),
    "push": (push.push, "Put a model on the Hugging Face hub.", push.EXAMPLES),
}
"""Each verb: what runs, one line of help, examples."""

for _name, (_run, _help, _examples) in VERBS.items():
    app.command(_name, short_help=_help, epilog=_examples)(_run)
app.add_typer(study.study, name="study", short_help="Why residual networks work, measured.")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"plusx {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Residual networks for image recognition."""


def main() -> None:
    """Run the command line. Exit codes: 0 done; 1 done, but some items failed; 2 usage or input;
    130 interrupted."""
    _print_any_name()
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except PlusxError as error:
        sys.exit(_complain(str(error), aloud=_speaks(error)))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        sys.exit(_complain(f"{named}{error.strerror or error}"))
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # Typer's usage errors: its versions carry click under different names
        said = getattr(error, "format_message", None)
        if said is None:
            sys.exit(_out_of_memory(error))
        usage = f"{said()} (plusx {' '.join(sys.argv[1:2])} --help)"
        sys.exit(_complain(usage, aloud=_speaks()))
    if code == 130 and _speaks():
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _speaks(error: PlusxError | None = None) -> bool:
    """Whether it is for this process, of several that train together, to tell the user."""
    if error is not None and error.said_elsewhere is not None:
        return not error.said_elsewhere
    from plusx.runtime import world

    try:
        return world().is_main
    except PlusxError:  # the environment is what is wrong
        return True


def _print_any_name() -> None:
    """File names may hold bytes that are no UTF-8, or characters the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _out_of_memory(error: Exception) -> int:
    """Say so where it is that; anything else is a fault of ours and is raised again."""
    from plusx.jobs.fitting import out_of_memory

    if not isinstance(error, RuntimeError | MemoryError) or not out_of_memory(error):
        raise error
    return _complain(
        "out of memory: try a smaller --batch-size, --image-size or --model, or fewer --threads"
    )


def _complain(text: str, *, aloud: bool = True) -> int:
    one_line = " ".join(text.split("\n"))
    if aloud:
        print(f"error: {one_line}", file=sys.stderr)
    return 2
