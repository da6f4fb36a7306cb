"""`keras-mpseq completion`: a static script with which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from keras_mpseq.cli.arguments import Commands, write
from keras_mpseq.errors import MpseqError

SHELLS = ("bash", "zsh", "tcsh")
_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
_FOLDERS = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}
_KINDS = {"PATH": _FILES, "FILE": _FILES, "DIR": _FOLDERS}
"""What stands for an argument in the help, and how each shell completes it."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    what = "Write a script that lets a shell complete commands, options and files: see the how-to on the command line."
    parser = commands.add_parser("completion", help=what, description=what, allow_abbrev=False)
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the script, and return the exit code.

    Raises:
        MpseqError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MpseqError(
            "Writing a completion script needs keras_mpseq[completion], which brings shtab",
            remedy='Install it: pip install "keras_mpseq[completion]".',
        ) from error
    from keras_mpseq.cli.main import make_parser

    parser = make_parser()
    for action in _actions(parser):
        if isinstance(action.metavar, str) and action.metavar in _KINDS:
            action.complete = _KINDS[action.metavar]  # type: ignore[attr-defined]
    write(shtab.complete(parser, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
