"""What the demo needs Keras for: the model, its training with a progress bar, and the time it waits for data."""

from __future__ import annotations

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from keras_mpseq.cli.digits import SIZE, Digits
from keras_mpseq.dataset import to_dataset

_DIGITS = 10
_LEARNING_RATE = 3e-3
_MOMENTUM = 0.9
"""Of the batch statistics: Keras's 0.99 would not have settled after three epochs of 45 batches."""


def train(
    sequence: Digits, held_out: Digits, workers: int, epochs: int, seed: int, console: Console
) -> tuple[Any, float]:
    """Train a new model on *sequence* and return it with its accuracy on *held_out* after the last epoch.

    Args:
        sequence: Batches to train on.
        held_out: Batches to validate with after each epoch.
        workers: Processes that build them.
        epochs: Of training.
        seed: Of the model's first weights and of the shuffling.
        console: Where the progress is shown.
    """
    keras.utils.set_random_seed(seed)
    model = _new_model(steps=epochs * len(sequence))
    with _progress(console) as progress:
        history = model.fit(
            to_dataset(sequence, workers=workers, shuffle=True),
            validation_data=to_dataset(held_out, workers=workers),
            epochs=epochs,
            verbose=0,
            # Else Keras warns that it leaves the shuffling to the dataset, which is what we want.
            shuffle=False,
            callbacks=[_ShowProgress(progress, console)],
        )
    return model, history.history["val_accuracy"][-1]


def waiting_share(model: Any, sequence: Digits, workers: int) -> float:
    """Train *model* for one more epoch and return the share of its time that it waited for batches.

    `fit` cannot tell: it takes the batch and trains on it in one call of TensorFlow.
    """
    model.train_on_batch(*sequence[0])  # Traces the step, which would count as training below.
    waited = 0.0
    batches = to_dataset(sequence, workers=workers, shuffle=True)
    start = trained = time.perf_counter()
    for x, y in batches:
        waited += time.perf_counter() - trained
        model.train_on_batch(x, y)
        trained = time.perf_counter()
    return waited / (trained - start)


def _new_model(steps: int) -> Any:
    layers: list[Any] = [keras.Input((SIZE, SIZE, 1))]
    for filters, kernel, stride in ((16, 5, 4), (32, 3, 2), (64, 3, 2)):
        layers += [
            keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=_MOMENTUM),
            keras.layers.ReLU(),
        ]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(_DIGITS)])
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # Compiling takes XLA longer than training so small a model takes without it; JAX always compiles.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    return model


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal,
    )


class _ShowProgress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is not typed.
    """One bar for each epoch, or one line where the output is not a terminal."""

    def __init__(self, progress: Progress, console: Console) -> None:
        super().__init__()
        self._progress = progress
        self._console = console
        self._bar = TaskID(0)
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Begin a bar."""
        self._began = time.perf_counter()
        self._bar = self._progress.add_task(self._title(epoch), total=self.params["steps"], figures="")

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=batch + 1, figures=_figures(logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """End the bar with the validation's figures, or print the line."""
        self._progress.update(self._bar, figures=_figures(logs))
        if self._progress.disable:
            took = time.perf_counter() - self._began
            self._console.print(f"{self._title(epoch)}: {took:.1f} s, {_figures(logs)}")

    def _title(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self.params['epochs']}"


def _figures(logs: dict[str, float]) -> str:
    named = {"loss": "loss", "accuracy": "accuracy", "val_accuracy": "validation"}
    return ", ".join(f"{named[key]} {float(logs[key]):.3f}" for key in named if key in logs)
