"""`keras-mpseq profile module:factory`: where the time of a pipeline goes, and how many workers feed a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from keras_mpseq.cli.arguments import Commands, int_between, seconds, write
from keras_mpseq.cli.check import imported
from keras_mpseq.errors import MpseqError, is_interrupt, user_error

_MOST_WORKERS = 1024


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    what = "Measure a pipeline with several numbers of workers, and say in one sentence what is in its way."
    parser = commands.add_parser("profile", help=what, description=what, allow_abbrev=False)
    parser.add_argument(
        "target",
        metavar="MODULE:FACTORY",
        help="a sequence, its class, or a function that returns one, as in training.data:make_train or train.py:make",
    )
    parser.add_argument(
        "--workers",
        type=_counts,
        metavar="N,N",
        help="numbers of workers to measure (default: 0,1,2,4 and so on up to the number of cores)",
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=1.0,
        metavar="S",
        help="for each of them, once the workers are there (default: 1)",
    )
    parser.add_argument(
        "--step-ms", type=seconds, metavar="MS", help="milliseconds of a model's step that the pipeline is to feed"
    )
    parser.add_argument("--shuffle", action="store_true", help="take the batches in the order of a shuffled epoch")
    parser.add_argument("--json", action="store_true", help="everything for programs, times in seconds")
    for name, what in (
        ("--html", "write a page with charts (needs keras_mpseq[plot])"),
        ("--trace", "write the course of a run, for ui.perfetto.dev"),
        ("--png", "write the charts as a picture (needs keras_mpseq[plot])"),
    ):
        parser.add_argument(name, type=Path, metavar="FILE", help=what)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, show, write, and return the exit code.

    Raises:
        MpseqError: The target is no sequence, fails, or a file cannot be written.
    """
    from keras_mpseq.loader import Loader
    from keras_mpseq.profiling.screen import screen
    from keras_mpseq.reporting import coloured

    sequence = _made(options.target)
    try:
        loader = Loader(sequence, workers=0, shuffle=options.shuffle)
    except (TypeError, ValueError) as error:  # What is no sequence is a mistake of the call.
        raise MpseqError(str(error).rstrip(".")) from error
    with loader:
        profile = loader.profile(
            seconds=options.seconds,
            step_s=options.step_ms and options.step_ms / 1000,
            workers=options.workers,
            told=_tell if sys.stderr.isatty() else None,
        )
    _clear()
    for path, writes in (
        (options.html, profile.write_html),
        (options.trace, profile.write_trace),
        (options.png, profile.write_png),
    ):
        if path is not None:
            try:
                writes(path)
            except OSError as error:
                raise MpseqError(f"{path} cannot be written ({error.strerror})") from error
    write(profile.as_json() + "\n" if options.json else screen(profile, colour=coloured()))
    return 0


def _made(target: str) -> Any:
    """Return the sequence that *target* names or makes."""
    found = imported(target)
    if hasattr(found, "__getitem__") and not isinstance(found, type):
        return found
    try:
        return found()
    except BaseException as error:  # The wall around the user's function.
        if is_interrupt(error):
            raise
        raise user_error(f"Calling {target!r}", error) from error


def _counts(text: str) -> list[int]:
    parse = int_between(0, _MOST_WORKERS)
    return sorted({parse(part) for part in text.split(",")})


def _tell(what: str) -> None:
    print(f"\r\x1b[KMeasuring {what} …", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
