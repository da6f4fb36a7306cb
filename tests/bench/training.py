"""How long one step of `fit` takes with a model that does next to nothing, so that data is all there is to wait for."""

from __future__ import annotations

import gc
import time
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from tests.bench.throughput import UNTIMED
from tests.bench.workloads import WORKERS, Batches


class Trivial(keras.Model):  # type: ignore[misc]
    """Reads one value of each batch."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """Return it as the loss."""
        return {"loss": tf.reshape(data[0] if isinstance(data, tuple) else data, (-1,))[0]}


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes when the first timed step begins, and when the last one ended."""

    began = ended = 0.0
    steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A step has ended."""
        self.steps += 1
        self.ended = time.perf_counter()
        if self.steps == 1:
            gc.collect()  # As in seconds_per_batch.
        elif self.steps == UNTIMED:
            self.began = self.ended


def seconds_per_step(participant: str, sequence: Batches) -> float:
    """Fit to one epoch of *sequence*, in the way of *participant*."""
    workers, use_multiprocessing = PARTICIPANTS[participant]
    model, clock = Trivial(), Clock()
    model.compile(jit_compile=False)
    model.fit(
        dataset_of(participant, sequence, workers, use_multiprocessing), shuffle=False, verbose=0, callbacks=[clock]
    )
    return (clock.ended - clock.began) / (clock.steps - UNTIMED)


def dataset_of(participant: str, sequence: Batches, workers: int, use_multiprocessing: bool) -> Any:
    """Return *sequence* on our base or on Keras's."""
    from keras_mpseq import SafeSequence

    base: Any = SafeSequence if participant == "fit-ours" else keras.utils.PyDataset

    class Wrapped(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(workers=workers, use_multiprocessing=use_multiprocessing)
            self.sequence = sequence

        def __len__(self) -> int:
            return len(self.sequence)

        def __getitem__(self, index: int) -> NDArray[Any]:
            return self.sequence[index]

    return Wrapped()


PARTICIPANTS = {
    "fit-ours": (WORKERS, True),
    "fit-keras": (WORKERS, True),
    "fit-keras-single": (1, False),
}
"""Workers, and whether they are processes."""
