"""`keras-mpseq check module:factory`: build batches in throw-away processes and prove what goes wrong."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from keras_mpseq.cli.arguments import Commands, add_selection, flat, int_between, seconds, tell
from keras_mpseq.errors import MpseqError, is_interrupt, user_error
from keras_mpseq.findings import Finding

_MOST = 1_000
"""Samples and epochs: a check is no training."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    what = "Build batches of a sequence in throw-away processes, and prove what goes wrong."
    parser = commands.add_parser("check", help=what, description=what, allow_abbrev=False)
    parser.add_argument(
        "target",
        metavar="MODULE:FACTORY",
        help="a sequence, its class, or a function that returns one, as in training.data:make_train or train.py:make",
    )
    parser.add_argument(
        "--samples", type=int_between(1, _MOST), default=6, metavar="N", help="batches to build (default: 6)"
    )
    parser.add_argument(
        "--epochs", type=int_between(1, _MOST), default=2, metavar="N", help="epochs to look at (default: 2)"
    )
    parser.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS", help="for each throw-away process (default: 60)"
    )
    parser.add_argument("--lint", action="store_true", help="read the source as well, and join what is found")
    add_selection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check, and return the exit code.

    Raises:
        MpseqError: The target cannot be imported, or an option cannot be meant.
    """
    from keras_mpseq.lint import config, select
    from keras_mpseq.reporting import Results, Sources, by_place

    overrides = config.Overrides(
        select=flat(options.select),
        ignore=flat(options.ignore) or [],
        preview=options.preview,
        fail_level=options.fail_level,
    )
    settings = config.load(config.find([Path.cwd()]), overrides)
    target = imported(options.target)
    from keras_mpseq.checks import check

    report = check(
        target,
        samples=options.samples,
        epochs=options.epochs,
        select=settings.select,
        ignore=overrides.ignore,
        lint=options.lint,
        heavy_state_limit=settings.heavy_state_limit,
        timeout=options.timeout,
    )
    sources = Sources()
    wanted = [finding for finding in report.findings if not select.is_ignored_there(finding, settings)]
    findings = [_relative(finding) for finding in sorted(select.uncovered(wanted, sources), key=by_place)]
    tell(Results(findings=findings, classes=1, unverified=report.unverified, sources=sources), options.output_format)
    return int(select.failing(findings, settings.fail_level) and not options.exit_zero)


def _relative(finding: Finding) -> Finding:
    """Return the finding with paths as the linter has them: from this folder where they are in it."""
    chain = tuple(dataclasses.replace(step, path=_shorter(step.path)) for step in finding.chain)
    path = None if finding.path is None else _shorter(finding.path)
    return dataclasses.replace(finding, path=path, chain=chain)


def _shorter(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def imported(target: str) -> Any:
    """Return what *target* names, `module:name` or `file.py:name`, with this folder first on the path.

    Raises:
        MpseqError: It is not of that form, or nothing is there.
    """
    module, colon, name = target.rpartition(":")
    if not (module and colon and name):
        raise MpseqError(
            f"{target!r} names no sequence", remedy="Write MODULE:FACTORY, as in training.data:make_train."
        )
    folder = Path.cwd()
    if module.endswith(".py"):
        file = Path(module)
        if not file.is_file():
            raise MpseqError(f"There is no file {module!r}", remedy="Name one that exists.")
        folder, module = file.resolve().parent, file.stem
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        # The throw-away processes import the module as well.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    try:
        value: Any = importlib.import_module(module)
    except BaseException as error:  # The wall around the user's module.
        if is_interrupt(error):
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            remedy = f"Name one that can be imported from {folder}."
            raise MpseqError(f"There is no module {module!r}", remedy=remedy) from error
        raise user_error(f"Importing {module!r}", error) from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise MpseqError(f"{module!r} has no {name!r}", remedy="Name a sequence, its class, or a function.")
        value = getattr(value, part)
    return value
