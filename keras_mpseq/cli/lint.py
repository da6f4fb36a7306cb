"""`keras-mpseq lint`: read source, tell what will go wrong in several processes; nothing is imported or run."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mpseq.cli.arguments import Commands, add_reading, add_selection, flat, tell, write
from keras_mpseq.errors import MpseqError

if TYPE_CHECKING:
    from keras_mpseq.lint.config import Config, Overrides
    from keras_mpseq.reporting import Results


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    what = "Find what will go wrong in several processes, in source: nothing is imported or run."
    parser = commands.add_parser("lint", help=what, description=what, allow_abbrev=False)
    parser.add_argument("paths", nargs="*", default=["."], metavar="PATH", help="files and folders (default: this one)")
    add_selection(parser)
    parser.add_argument("--statistics", action="store_true", help="tell how often each rule was found, no more")
    parser.add_argument("--show-unresolved", action="store_true", help="list the calls that could not be followed")
    parser.add_argument("--fix", action="store_true", help="change what can be changed safely, then lint")
    parser.add_argument("--diff", action="store_true", help="show what --fix would change, and change nothing")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="do not tell the findings in FILE")
    parser.add_argument("--write-baseline", type=Path, metavar="FILE", help="write the findings to FILE as known")
    add_reading(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Lint, and return the exit code.

    Raises:
        MpseqError: A path, an option or a setting cannot be meant.
    """
    from keras_mpseq.lint import config

    overrides = config.Overrides(
        select=flat(options.select),
        ignore=flat(options.ignore) or [],
        preview=options.preview,
        fail_level=options.fail_level,
        exclude=options.exclude,
        baseline=options.baseline,
    )
    found, settings = gathered(options.paths, options.config, overrides)
    if options.diff:
        return _fix(found, settings, diff=True)
    if options.fix:
        _fix(found, settings, diff=False)
    return _lint(found, settings, options)


def gathered(named: Sequence[str], file: Path | None, overrides: Overrides) -> tuple[list[str], Config]:
    """Return the Python files below the paths that a call names, and the settings that count for them.

    Raises:
        MpseqError: A path, an option or a setting cannot be meant.
    """
    from keras_mpseq.lint import config, files

    paths = [Path(path) for path in named]
    for path in paths:
        if not path.exists():
            raise MpseqError(f"There is no file or folder {str(path)!r}", remedy="Name one that exists.")
        if path.suffix == ".ipynb" and path.is_file():
            raise MpseqError(
                f"{str(path)!r} is a notebook, and lint reads Python files",
                remedy="Call keras_mpseq.check() in it, or write its code to a file: jupyter nbconvert --to script.",
            )
    settings = config.load(file or config.find(paths), overrides)
    # As people write them: `data.py`, not `./data.py`.
    found = [os.path.normpath(path) for path in files.discover(named, settings.exclude)]
    if not found:
        write(f"No Python files in {', '.join(map(repr, named))}.\n", sys.stderr)
    return found, settings


def _lint(found: list[str], settings: Config, options: argparse.Namespace) -> int:
    from keras_mpseq.lint import baseline, select
    from keras_mpseq.reporting.results import counted

    if options.write_baseline:
        settings = dataclasses.replace(settings, baseline=None)
    results = _results(found, settings, options.show_unresolved)
    if options.write_baseline:
        baseline.write(options.write_baseline, results.findings, results.sources)
        number = len(results.findings)
        verb = "is" if number == 1 else "are"
        write(f"{counted(number, 'finding')} {verb} now known in {options.write_baseline}.\n")
        return 0
    tell(results, "statistics" if options.statistics else options.output_format)
    return int(select.failing(results.findings, settings.fail_level) and not options.exit_zero)


def _results(found: list[str], settings: Config, show_not_followed: bool) -> Results:
    from keras_mpseq.lint import lint_paths
    from keras_mpseq.lint.select import select
    from keras_mpseq.reporting import Results, Sources

    sources = Sources()
    linted = lint_paths(found, preview=True, extra_bases=settings.extra_bases, decls=settings.decls)
    selected = select(linted.findings, found, settings, sources)
    return Results(
        findings=selected.findings,
        files=linted.files,
        classes=linted.classes,
        not_followed=linted.unresolved,
        sources=sources,
        show_not_followed=show_not_followed,
    )


def _fix(found: list[str], settings: Config, *, diff: bool) -> int:
    """Change the files, or show the changes; return the exit code, which is 1 if there is a change to show."""
    with needing_libcst():
        from keras_mpseq.lint.fix import fix_paths
    fixed = fix_paths(found, diff=diff, settings=settings)
    if diff:
        write("".join(one.diff_text for one in fixed))
        return int(bool(fixed))
    for one in fixed:
        write(f"{os.fspath(one.path)}: {'; '.join(one.applied)}.\n", sys.stderr)
    return 0


@contextmanager
def needing_libcst() -> Iterator[None]:
    """Say how to get libcst where the block cannot import it.

    Raises:
        MpseqError: It is not there.
    """
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "libcst":
            raise
        raise MpseqError(
            "Changing source needs keras_mpseq[fix], which brings libcst",
            remedy='Install it: pip install "keras_mpseq[fix]".',
        ) from error
