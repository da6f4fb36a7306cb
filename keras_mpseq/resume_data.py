"""ResumeData: a Keras callback that saves weights and the position in the data at one moment, in one file.

`BackupAndRestore` saves the weights within an epoch if it is told to, and begins the epoch anew: batches count twice.
Here one file holds all that the rest of training follows from: the variables of model, optimizer and metrics, the
state of the data, and the logs of the epochs so far. It takes the place of the one before by a rename, so that a kill
at any moment leaves one or the other, whole.

A state is saved when the next step or epoch begins, after all callbacks have had their say about the one before.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mpseq import fitting
from keras_mpseq.callback import Callback
from keras_mpseq.errors import named
from keras_mpseq.keras_bridge import SafeSequenceAdapter
from keras_mpseq.options import check_int

_FILE = "resume_data.npz"
_FORMAT = 1


class Saved(NamedTuple):
    """What a file holds."""

    epoch: int
    """Of Keras, that is gone on with."""
    data: dict[str, Any]
    variables: list[np.ndarray[Any, Any]]
    """Of the model and the optimizer."""
    metrics: list[np.ndarray[Any, Any]]
    """Values of the metrics in the epoch, so that its logs are those of the whole epoch."""
    epochs: list[int]
    history: dict[str, list[Any]]
    """Logs of *epochs*."""


class ResumeData(Callback):
    """Keras callback with which a training that was killed goes on with the next batch, as if it had not been.

    Like `keras.callbacks.BackupAndRestore`, and instead of it: run the same program again, and `fit` goes on where the
    last state was saved. Weights, optimizer, metrics, the seeds of layers such as Dropout and the position in the data
    are saved at one moment, so that on CPU losses are those of an uninterrupted training, to the last bit. `History`
    holds all epochs, also those before the kill.

    It works with a `SafeSequence` as the training data, or with `keras_mpseq.fit`, on the TensorFlow backend of Keras
    3, on one device. What a sequence changes in its epoch hooks needs `on_save_state` and `on_load_state`. Not saved
    are the states of other callbacks, what the hooks of validation data change, the global random states of Python,
    NumPy and TensorFlow, and variables that Keras does not know of.

    Args:
        backup_dir: Folder for the state, made if need be. One training at a time may use it.
        save_freq: "epoch" saves when an epoch ends; an int saves after so many batches as well.
        delete_checkpoint: Delete the state when training is finished. Otherwise `fit` with more epochs goes on there.

    Raises:
        ValueError: An argument is out of its range. Of `fit`: the state cannot be resumed, or not here.

    Example:
        ```python
        model.fit(sequence, epochs=3, callbacks=[ResumeData("backup", save_freq=100)])
        ```
    """

    def __init__(self, backup_dir: str | os.PathLike[str], save_freq: Any = "epoch", delete_checkpoint: bool = True):
        """Nothing is read yet."""
        super().__init__()
        if not backup_dir:
            raise ValueError(f"backup_dir must be the path of a folder, got {backup_dir!r}.")
        self._path = Path(backup_dir) / _FILE
        self._every = math.inf if save_freq == "epoch" else check_int("save_freq", save_freq, 1)
        self._delete = bool(delete_checkpoint)
        self._adapter: Any = None
        self._loaded: Saved | None = None
        self._epoch = self._unsaved = self._validations = 0
        self._due: dict[str, Any] | None = None
        """The state of the data that is to be saved with the weights before the next step begins."""
        self._epoch_ended = False

    def _before_fit(self, model: Any, keras_3: bool) -> dict[str, Any] | None:
        """Return the state with which the data is to begin. Called by our wrapper of `fit`."""
        if not keras_3:
            raise ValueError("ResumeData works in fit of Keras 3, and this model is one of tf_keras.")
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f'ResumeData works on the TensorFlow backend, and Keras runs on "{keras.backend.backend()}": save '
                "weights and Loader.state_dict() in a loop of your own."
            )
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                f"ResumeData works on one device, and the model is on {replicas}: save weights and Loader.state_dict() "
                "in a loop of your own."
            )
        self._loaded = _read(self._path) if self._path.exists() else None
        if self._loaded is None:
            self._validations = 0
            return None
        self._validations = self._loaded.data["validations"]
        return self._loaded.data

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the variables, and say with which epoch to go on."""
        session = fitting.training_session()
        self._adapter = session.adapters[0] if session and session.adapters else None
        if not isinstance(self._adapter, SafeSequenceAdapter):
            raise ValueError(
                "ResumeData needs a SafeSequence as the training data, which alone knows its position: pass fit the "
                "sequence, or use keras_mpseq.fit."
            )
        self._due, self._unsaved, self._epoch_ended = None, 0, False
        if self._loaded is not None:
            # On this backend layers and metrics are built by the first step; their variables are needed before.
            self.model._symbolic_build(data_batch=self._adapter.get_tf_dataset().element_spec)
            _assign(_variables(self.model), self._loaded.variables, "variables")
            self.model._initial_epoch = self._loaded.epoch
            self.model.history.history.update(self._loaded.history)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on with the metrics of a resumed epoch, or save the end of the one before."""
        self._epoch = epoch
        if self._loaded is not None:
            if epoch != self._loaded.epoch:
                raise ValueError(
                    f"The state is of epoch {self._loaded.epoch}, and fit began with {epoch}: put ResumeData after "
                    "callbacks that restore, such as BackupAndRestore."
                )
            self.model._initial_epoch = None
            _assign(_variables(self.model), self._loaded.variables, "variables")
            if self._loaded.data["step"]:
                _assign(self.model.metrics_variables, self._loaded.metrics, "values of metrics")
            self.model.history.epoch[:0] = self._loaded.epochs
            self._loaded = None
        elif self._epoch_ended:
            self._save(self._adapter.state_dict())

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the state after the step before, if it is time."""
        if self._due is not None:
            self._save(self._due)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the position in the data, if it is time; the end of an epoch is saved with its logs."""
        self._unsaved += 1
        self._epoch_ended = False
        if self._unsaved >= self._every and self._adapter.steps_left != 0:
            self._due = self._adapter.state_dict()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note that the epoch is over."""
        self._due, self._epoch_ended = None, True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Delete the state, or save the last one."""
        self.model._initial_epoch = None
        if self._delete:
            for path in (self._path, _partial(self._path)):
                path.unlink(missing_ok=True)
        elif self._epoch_ended:
            self._epoch += 1
            self._save(self._adapter.state_dict())

    def _save(self, data: dict[str, Any]) -> None:
        self._due, self._unsaved, self._epoch_ended = None, 0, False
        session = fitting.training_session()
        if session and len(session.adapters) > 1:
            self._validations = session.adapters[1].coming_epoch
        history = self.model.history
        _write(
            self._path,
            Saved(
                self._epoch,
                {**data, "validations": self._validations},
                [variable.value.numpy() for variable in _variables(self.model)],
                [variable.value.numpy() for variable in self.model.metrics_variables],
                list(history.epoch),
                history.history,
            ),
        )


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _assign(variables: list[Any], values: list[np.ndarray[Any, Any]], what: str) -> None:
    mine = [(tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)) for variable in variables]
    saved = [(value.shape, value.dtype.name) for value in values]
    if mine != saved:
        raise ValueError(
            f"The state holds {len(saved)} {what} and the model has {len(mine)}, or their shapes differ: it is that of "
            "another model. Make the model as it was, or delete the state."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


# --- the file ---


def _write(path: Path, saved: Saved) -> None:
    """Put *saved* in the place of what *path* holds, at once."""
    header = {
        "format": _FORMAT,
        **saved._replace(variables=_kinds(saved.variables), metrics=_kinds(saved.metrics))._asdict(),
    }
    arrays = [*saved.variables, *saved.metrics]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    with partial.open("wb") as file:
        np.savez(
            file,
            header=np.frombuffer(json.dumps(header, default=_plain).encode(), np.uint8),
            # One array of bytes: NumPy's format knows no bfloat16.
            values=np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]),
        )
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _read(path: Path) -> Saved:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header, values = json.loads(file["header"].tobytes()), file["values"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no state of ResumeData ({named(error)}): delete it to begin anew, or name another backup_dir."
        ) from error
    if header.pop("format") != _FORMAT:
        raise ValueError(f"{path} was saved by another release of keras_mpseq: use that one, or delete it.")
    saved = Saved(**header)
    arrays = []
    start = 0
    for name, shape in [*saved.variables, *saved.metrics]:
        dtype = np.dtype(name)
        end = start + dtype.itemsize * math.prod(shape)
        arrays.append(values[start:end].view(dtype).reshape(shape))
        start = end
    count = len(saved.variables)
    return saved._replace(variables=arrays[:count], metrics=arrays[count:])


def _kinds(arrays: list[np.ndarray[Any, Any]]) -> list[Any]:
    return [(array.dtype.name, array.shape) for array in arrays]


def _plain(value: Any) -> Any:
    """Return what JSON can hold in the place of a value of NumPy in the logs."""
    return np.asarray(value).tolist()
