"""A training that is killed and begun again, for tests and for `python -m tests.killed`: all that a state must hold.

Imports Keras only in functions: workers import this module by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Drawn(SafeSequence):
    """Draws what it returns, and deals its batches anew at the end of each epoch."""

    def __init__(self, batches: int = 8, last_rows: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order = np.arange(batches)
        self.last_rows = last_rows

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        rows = self.last_rows if index == len(self.order) - 1 else 6
        x = self.rng(int(self.order[index])).normal(size=(rows, 4))
        return x, x.sum(axis=1, keepdims=True) + np.random.rand()

    def on_epoch_end(self) -> None:
        self.order = np.random.default_rng(int(self.order[0])).permutation(self.order)

    def on_save_state(self) -> Any:
        return self.order.tolist()

    def on_load_state(self, state: Any) -> None:
        self.order = np.array(state)


class Held(SafeSequence):
    """For validation: other batches for each."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        x = self.rng(index).normal(size=(5, 4))
        return x, x.sum(axis=1, keepdims=True)


def made(**settings: Any) -> Any:
    """Return a model with everything that has a state: momenta, a rate that changes, dropout, metrics."""
    import keras

    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.05, 40)
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"], **settings)
    return model
