"""A model that remembers what it was given, and `fit` as the scenarios call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np


class Seen:
    """What the steps of a model were given, batch by batch, copied."""

    def __init__(self) -> None:
        self.trained: list[Any] = []
        self.tested: list[Any] = []

    @property
    def labels(self) -> list[float]:
        """The first y of each batch that was trained on."""
        return labels(self.trained)


def labels(batches: list[Any]) -> list[float]:
    """Return the first y of each batch."""
    return [batch[1].flat[0].item() for batch in batches]


def calls(log: Path) -> list[tuple[int, int]]:
    """Return index and process of every call of `__getitem__` that is in the log of a sequence."""
    return [(int(index), int(pid)) for index, pid in map(str.split, log.read_text().splitlines())]


class Recorder(keras.Model):
    """A dense layer, trained eagerly.

    Args:
        features: Returns what the layer takes, of the shape (rows, 4), for the x of a batch.
    """

    def __init__(self, features: Callable[[Any], Any] = lambda x: x) -> None:
        super().__init__()
        self.features = features
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 4))
        self.built = True
        self.seen = Seen()
        self.compile("sgd", "mse", run_eagerly=True)

    def call(self, x: Any) -> Any:
        return self.dense(self.features(x))

    def train_step(self, data: Any) -> Any:
        self.seen.trained.append(_copied(data))
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        self.seen.tested.append(_copied(data))
        return super().test_step(data)


def _copied(data: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: np.array(leaf) if hasattr(leaf, "numpy") else leaf, data)


def fit(sequence: Any, model: Recorder | None = None, **kwargs: Any) -> Seen:
    """Fit a model to *sequence*, in order; return what it was trained on."""
    model = model or Recorder()
    model.fit(sequence, **{"shuffle": False, "verbose": 0, **kwargs})
    return model.seen


# --- callbacks ------------------------------------------------------------------------------------


class Raising(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise RuntimeError("stop")


class Stops(keras.callbacks.Callback):
    """Stops the training in the middle of an epoch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = batch == 2


class RaisesTheLevel(keras.callbacks.Callback):
    """Raises the level after the third batch of each epoch."""

    def __init__(self, sequence: Any, sync: bool) -> None:
        super().__init__()
        self.sequence, self.sync = sequence, sync

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.sequence.level += 1
            if self.sync:
                self.sequence.sync()


class Peeks(keras.callbacks.Callback):
    """Uses the very sequence that is trained on: by index, in a loop, and in evaluate."""

    def __init__(self, sequence: Any) -> None:
        super().__init__()
        self.sequence = sequence
        self.looked: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.looked.append(self.sequence[5 - batch][1][0, 0])
        if batch == 1:
            self.looked += labels(list(self.sequence))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.evaluate(self.sequence, verbose=0)
