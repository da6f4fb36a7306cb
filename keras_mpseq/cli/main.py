"""The command line of keras_mpseq: arguments to a command, errors to a sentence and an exit code.

0 is success, 1 findings, problems, or a demo that did not hold what it promises, 2 a mistake in the call, its
surroundings, or in this package.
What a command needs is imported when it is called, so that `--help` does not wait for Keras.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_mpseq import MpseqError, __version__
from keras_mpseq.cli import check, completion, doctor, explain, lint, migrate, profile
from keras_mpseq.cli.arguments import BAD_CALL, Commands, Parser, int_between

_MOST_WORKERS = 64
"""The demo has 45 batches an epoch: more workers would have nothing to do."""
_MOST_SEED = 2**32 - 1
"""The largest seed that `np.random.seed`, and so `keras.utils.set_random_seed`, takes."""
_MOST_EPOCHS = 10_000
_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* (None: those of this process) name, and return the exit code."""
    with _any_letter():
        return _run(arguments)


@contextmanager
def _any_letter() -> Iterator[None]:
    """Let standard output take every letter: what its encoding does not have is written as an escape.

    Paths and excerpts hold what they hold; a terminal in ASCII or cp1252 is no reason to end with a traceback.
    """
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if not stream.closed:
            stream.reconfigure(errors="strict")


def _run(arguments: Sequence[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `keras-mpseq rules | head`; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # The wall between the commands and the shell: what we foresaw is a sentence, the rest a traceback.
    except Exception as error:
        if isinstance(error, MpseqError):
            print(f"keras-mpseq: {error}", file=sys.stderr)
            return BAD_CALL
        traceback.print_exc()
        print(
            "keras-mpseq: This is a mistake of keras-mpseq itself. Please report it with the lines above.",
            file=sys.stderr,
        )
        return BAD_CALL


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="keras-mpseq",
        description="Data loading for Keras in several processes: safe, fast, and the same batches every time.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"keras-mpseq {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (lint, migrate, check, profile, explain, doctor, completion):
        command.add(commands)
    _add_demo(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    what = "Train a small CNN on real images that several processes decode, and measure what they gain."
    demo = commands.add_parser("demo", help=what, description=what, allow_abbrev=False)
    demo.add_argument(
        "--workers",
        type=int_between(0, _MOST_WORKERS),
        metavar="N",
        help="processes that build batches; 0 is none but the training's own (default: one for each core)",
    )
    demo.add_argument(
        "--epochs",
        type=int_between(1, _MOST_EPOCHS),
        metavar="N",
        help="epochs of training (default: 3; 1 with --quick)",
    )
    demo.add_argument(
        "--seed",
        type=int_between(0, _MOST_SEED),
        default=0,
        metavar="N",
        help="of the split, the model, the shuffling and the augmentation (default: 0)",
    )
    demo.add_argument(
        "--data", type=Path, metavar="DIR", help="write the images to DIR and keep them (default: a temporary one)"
    )
    demo.add_argument("--quick", action="store_true", help="a part of the images, and any accuracy will do")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from keras_mpseq.cli.demo import Settings, run

    return run(
        Settings(
            workers=options.workers,
            epochs=options.epochs,
            seed=options.seed,
            data=options.data,
            quick=options.quick,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
