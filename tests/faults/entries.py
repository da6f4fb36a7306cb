"""The three ways to the batches of a sequence, as one interface: open, pass over an epoch, close."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from keras_mpseq import Loader, MpseqError, SafeSequence, pipeline, to_dataset

LIMIT_S = 1.0
"""The timeout of cells in which something hangs."""
_OURS = re.compile(r"(\w+Error): (.*)", re.DOTALL)
_BLAMED = re.compile(r"(?:\(index |while building batch )(\d+)")


class Told(NamedTuple):
    """The error that a consumer gets."""

    kind: str
    """Its class."""
    within: str
    """The class of TensorFlow's error that it came in, if it did."""
    message: str
    index: int | None

    @classmethod
    def of(cls, error: Exception) -> Told:
        """Read an error of ours, or of TensorFlow's, which has ours as text."""
        if isinstance(error, MpseqError):
            return cls(type(error).__name__, "", error.message, error.index)
        found = _OURS.search(str(error))
        assert found, error
        message = found[2].partition("\n")[0]
        blamed = _BLAMED.search(message)
        return cls(found[1], type(error).__name__, message, int(blamed[1]) if blamed else None)

    def __str__(self) -> str:
        """Return what stands in a cell."""
        within = f" in `{self.within}`" if self.within else ""
        index = f", index {self.index}" if self.index is not None else ""
        return f"`{self.kind}`{within}{index}"


class Setting(NamedTuple):
    """How workers are started, and what they may take."""

    launcher: str
    timeout: float | None = None
    attempts: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of Loader. One worker where each costs the start of an interpreter."""
        return {**self._asdict(), "workers": 2 if self.launcher == "template" else 1}


class Entry(Protocol):
    """An entry point, opened for one sequence or not."""

    def open(self) -> None:
        """Make what can be made before the first epoch."""

    def epoch(self, before: Callable[[], object] | None = None) -> list[int]:
        """Pass over an epoch and return its batches; with *before* over two, and call it between them."""

    def close(self) -> None:
        """End it."""

    first: list[int]
    """The batches of the first of two epochs."""
    is_open: bool
    """What was opened is there still: a failure may have closed it."""
    again: str
    """What is said of it when the next epoch works."""


class OfLoader:
    """`Loader`: one pool for all epochs."""

    again = "next epoch works"

    def __init__(self, sequence: SafeSequence, setting: Setting) -> None:
        self.sequence, self.setting = sequence, setting
        self.loader: Loader | None = None
        self.first: list[int] = []

    @property
    def is_open(self) -> bool:
        return self.loader is not None

    def open(self) -> None:
        self.loader = Loader(self.sequence, **self.setting.options)

    def epoch(self, before: Callable[[], object] | None = None) -> list[int]:
        assert self.loader is not None
        if before:
            self.first = self.epoch()
            before()
        return [int(batch.flat[0]) for batch in self.loader]

    def close(self) -> None:
        if self.loader is not None:
            self.loader.close()
        self.loader = None


class OfDataset:
    """`to_dataset`: one pool for all epochs; the first batch is built when the dataset is made."""

    again = "next epoch works"

    def __init__(self, sequence: SafeSequence, setting: Setting) -> None:
        self.sequence, self.setting = sequence, setting
        self.dataset: Any = None
        self.first: list[int] = []

    @property
    def is_open(self) -> bool:
        return self.dataset is not None

    def open(self) -> None:
        self.dataset = to_dataset(self.sequence, **self.setting.options)

    def epoch(self, before: Callable[[], object] | None = None) -> list[int]:
        if before:
            self.first = self.epoch()
            before()
        return [int(batch[0]) for batch in self.dataset]

    def close(self) -> None:
        self.dataset = None
        gc.collect()


class Recorder(keras.Model):
    """Notes the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.built = True
        self.seen: list[int] = []
        self.compile(run_eagerly=True)

    def train_step(self, data: Any) -> Any:
        self.seen.append(int(data[0][0]))
        return {"loss": 0.0}


class OfFit:
    """`fit`: each call has a pool of its own."""

    again = "next `fit` works"
    is_open = False

    def __init__(self, sequence: SafeSequence, setting: Setting) -> None:
        self.sequence, self.setting = sequence, setting
        self.model = Recorder()

    def open(self) -> None:
        """Nothing: `fit` opens and closes."""

    def epoch(self, before: Callable[[], object] | None = None) -> list[int]:
        self.model.seen.clear()
        callbacks = []
        if before:
            callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda number, _: number or before()))
        with self._set():
            self.model.fit(self.sequence, epochs=2 if before else 1, shuffle=False, verbose=0, callbacks=callbacks)
        return self.model.seen[len(self.sequence) if before else 0 :]

    @property
    def first(self) -> list[int]:
        return self.model.seen[: len(self.sequence)]

    @contextlib.contextmanager
    def _set(self) -> Iterator[None]:
        """Let `fit` have options that belong to the sequence or to the platform."""
        checked = pipeline.checked
        mine = self.setting._asdict()
        pipeline.checked = lambda *args, **kwargs: checked(*args, **{**kwargs, **mine})
        self.sequence._workers = self.setting.options["workers"]
        self.sequence._use_multiprocessing = True
        try:
            yield
        finally:
            pipeline.checked = checked

    def close(self) -> None:
        """Nothing, as in open()."""


ENTRIES: dict[str, Callable[[SafeSequence, Setting], Entry]] = {
    "Loader": OfLoader,
    "to_dataset": OfDataset,
    "fit": OfFit,
}


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Collect what the package logs."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    log, handler = logging.getLogger("keras_mpseq"), Handler(logging.WARNING)
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


@contextlib.contextmanager
def warmed_up() -> Iterator[None]:
    """Let TensorFlow open what it opens once, before anybody looks for leaks; within, collections of garbage are cheap.

    Each would go through all objects of TensorFlow, 0.15 s, and dropping a dataset takes one.
    """
    made = tf.data.Dataset.from_generator(lambda: iter(range(3)), output_signature=tf.TensorSpec((), tf.int32))
    list(made.map(lambda x: x, num_parallel_calls=2).prefetch(1))
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
