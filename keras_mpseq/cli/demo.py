"""`keras-mpseq demo`: write images, train on them with worker processes, measure, compare every batch.

This module has the order of events and what is printed; images are in `digits`, all that needs Keras in `training`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from keras_mpseq.errors import MpseqError
from keras_mpseq.machine import cores

if TYPE_CHECKING:
    from keras_mpseq.cli.digits import Digits

BATCH = 32
_TRAINED_ON = 1440
"""Of the 1,797 images, in whole batches; the other 357 are held out for validation."""
_QUICK_TRAINED_ON, _QUICK_HELD_OUT = 10 * BATCH, 3 * BATCH
_EPOCHS = 3
_ACCURACY = 0.95
"""Expected of the held-out images after three epochs; the seeds 0 to 19 gave 0.969 to 0.989."""
_MEASURED_EPOCHS = 3
_ALWAYS_MEASURED = (0, 1, 2)
_DIGITS_SHOWN = 12
_PACKAGES = {"sklearn": "scikit-learn", "PIL": "Pillow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked of the demo.

    Args:
        workers: Processes that build batches; None means one for each core.
        epochs: Of the training; None means 3, or 1 if *quick*.
        seed: Of the split, the model, the shuffling and the augmentation.
        data: Where the images are written; None means a directory that is deleted at the end.
        quick: Take a part of the images, and demand no accuracy.
    """

    workers: int | None = None
    epochs: int | None = None
    seed: int = 0
    data: Path | None = None
    quick: bool = False


class Measured(NamedTuple):
    """What the loader of one line of the table did."""

    rate: float
    """Batches a second, consumed by nothing."""
    digest: str
    """Hash of all batches of an epoch."""


def run(settings: Settings, console: Console | None = None) -> int:
    """Run the demo and return the exit code: 1 if batches differ, or the accuracy is too low.

    Raises:
        MpseqError: A package is missing, or the images cannot be written.
    """
    console = console or Console(highlight=False)
    _require_packages()
    workers = cores() if settings.workers is None else settings.workers
    counts = sorted({*_ALWAYS_MEASURED, workers})
    with _folder(settings.data) as folder:
        _introduce(console, folder, workers, counts)
        with _without_chatter():
            from keras_mpseq.cli import training
        train, held_out = _sequences(settings, folder)
        epochs = settings.epochs or (1 if settings.quick else _EPOCHS)
        model, accuracy = training.train(train, held_out, workers, epochs, settings.seed, console)
        with console.status("Measuring"):
            measured = measure(train, counts, 1 if settings.quick else _MEASURED_EPOCHS)
            waited = {count: training.waiting_share(model, train, count) for count in counts}
    _print_table(console, measured, waited)
    return _verdict(console, measured, len(train), accuracy, not settings.quick and epochs >= _EPOCHS)


def measure(sequence: Digits, counts: list[int], epochs: int) -> dict[int, Measured]:
    """Return how fast each number of workers in *counts* builds batches, and the hash of what it built.

    The first epoch warms up and is hashed; the median of the following *epochs*, consumed by nothing, is the rate.
    They take turns, so that another program's load falls on all of them.
    """
    from keras_mpseq.loader import Loader

    with contextlib.ExitStack() as stack:
        loaders = {count: stack.enter_context(Loader(sequence, workers=count, shuffle=True)) for count in counts}
        digests = {count: digest_of(loader) for count, loader in loaders.items()}
        turns = [{count: _seconds_of(loader) for count, loader in loaders.items()} for _ in range(epochs)]
    return {count: Measured(len(sequence) / median(turn[count] for turn in turns), digests[count]) for count in counts}


def digest_of(batches: Iterable[tuple[NDArray[Any], ...]]) -> str:
    """Return a hash of the order, dtypes, shapes and bytes of all arrays of all *batches*."""
    digest = hashlib.sha256()
    for batch in batches:
        for array in batch:
            digest.update(f"{array.dtype.str} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _seconds_of(batches: Iterable[object]) -> float:
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def _require_packages() -> None:
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise MpseqError(
            f"The demo needs {' and '.join(missing)}, which cannot be imported",
            remedy='Install keras-mpseq[demo]: pip install "keras-mpseq[demo]".',
        )


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="keras_mpseq_demo_") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep back what TensorFlow writes to descriptor 2 while it loads, unless loading fails.

    Version 2.21 writes six lines there whatever TF_CPP_MIN_LOG_LEVEL says. Whoever sets that variable wants to see.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _sequences(settings: Settings, folder: Path) -> tuple[Digits, Digits]:
    """Write the images and return the sequences to train on and to validate with."""
    from sklearn.datasets import load_digits

    from keras_mpseq.cli.digits import Digits, write_images

    images, labels = load_digits(return_X_y=True)
    try:
        files = write_images(folder, images.reshape(-1, 8, 8), labels)
    except OSError as error:
        raise MpseqError(
            f"The images cannot be written to {folder}: {error.strerror}",
            remedy="Name a directory that can be written, as in --data DIR.",
        ) from error
    # scikit-learn has the images by writer: without a shuffle the held-out ones would be of other hands.
    order = np.random.default_rng(settings.seed).permutation(len(files))
    trained_on, held_out = (_QUICK_TRAINED_ON, _QUICK_HELD_OUT) if settings.quick else (_TRAINED_ON, None)
    parts = order[:trained_on], order[trained_on:][:held_out]
    train, validation = (
        Digits([files[i] for i in part], labels[part], batch_size=BATCH, augment=augment, seed=settings.seed)
        for part, augment in zip(parts, (True, False), strict=True)
    )
    return train, validation


def _introduce(console: Console, folder: Path, workers: int, counts: list[int]) -> None:
    builders = {0: "This process decodes and augments", 1: "1 worker process decodes and augments"}
    *most, last = map(str, counts)
    for line in (
        f"1,797 handwritten digits become PNG files in {folder}.",
        f"{builders.get(workers, f'{workers} worker processes decode and augment')} them while a small CNN trains.",
        f"Then {', '.join(most)} and {last} workers build the same epoch: how fast, and are all bits equal?",
        "",
    ):
        console.print(line, soft_wrap=True)


def _print_table(console: Console, measured: dict[int, Measured], waited: dict[int, float]) -> None:
    table = Table()
    for heading in ("workers", "batches/s", "speed-up", "training waited for data"):
        table.add_column(heading, justify="right")
    for count, (rate, _) in measured.items():
        table.add_row(str(count), f"{rate:.1f}", f"{rate / measured[0].rate:.2f}x", f"{waited[count]:.0%}")
    console.print()
    console.print(table)


def _verdict(console: Console, measured: dict[int, Measured], batches: int, accuracy: float, demanding: bool) -> int:
    """Print whether the batches are identical and the accuracy is enough, and return the exit code."""
    digests = sorted({digest[:_DIGITS_SHOWN] for _, digest in measured.values()})
    identical = len({digest for _, digest in measured.values()}) == 1
    enough = accuracy >= _ACCURACY or not demanding
    console.print(f"batches identical: {'yes' if identical else 'no'} (sha256 of {batches}: {', '.join(digests)})")
    console.print(f"validation accuracy: {accuracy:.3f}" + ("" if enough else f", expected at least {_ACCURACY}"))
    return 0 if identical and enough else 1
