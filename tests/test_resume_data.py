"""`ResumeData`: training that stops anywhere goes on as if it had not; what cannot be resumed is told."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_mpseq
from keras_mpseq import ResumeData, to_dataset
from tests.conftest import Scripts, alarm
from tests.dealt import Reshuffled
from tests.resumed_training import Drawn, Held, made


class Killed(BaseException):
    """Nobody catches it."""


class KillAt(keras.callbacks.Callback):
    """Ends training in the middle of its n-th call of a hook."""

    def __init__(self, hook: str, call: int) -> None:
        super().__init__()
        self.left = call

        def count(*_: Any, **__: Any) -> None:
            if not self.left:
                raise Killed
            self.left -= 1

        setattr(self, hook, count)


def _trained(folder: Path, *callbacks: Any, save_freq: Any = 3, workers: int = 2, epochs: int = 3, **fit: Any) -> Any:
    compiled = fit.pop("compiled", {})
    model = made(**compiled)
    history = model.fit(
        Drawn(workers=workers, seed=4),
        validation_data=Held(workers=0),
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, ResumeData(folder, save_freq)],
        **fit,
    )
    return history.history, history.epoch, [np.asarray(variable).tolist() for variable in model.weights]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whole")
    found = _trained(folder)
    assert not list(folder.iterdir())
    assert len(set(found[0]["loss"])) == 3
    return found


def _killed(folder: Path, hook: str, call: int, **settings: Any) -> None:
    with pytest.raises(Killed):
        _trained(folder, KillAt(hook, call), **settings)


@pytest.mark.parametrize(
    ("hook", "call", "resumed"),
    [
        ("on_train_batch_end", 1, None),  # Nothing was saved yet.
        ("on_train_batch_end", 5, (0, 3)),
        ("on_train_batch_begin", 6, (0, 3)),  # Before ResumeData has its say.
        ("on_epoch_end", 0, (0, 6)),
        ("on_epoch_begin", 1, (0, 6)),
        ("on_train_batch_end", 20, (2, 3)),
        ("on_train_end", 0, (2, 6)),
    ],
)
def test_training_goes_on_to_the_same_end(hook: str, call: int, resumed: Any, tmp_path: Path, whole: Any) -> None:
    _killed(tmp_path, hook, call)
    began: list[Any] = []

    class Notes(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            began.append(epoch)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            began.append(batch)

    assert _trained(tmp_path, Notes(), workers=0) == whole
    assert tuple(began[:2]) == (resumed or (0, 0))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kills_at_random_moments(scripts: Scripts) -> None:
    """`python -m tests.killed --kills 20` is the whole of it."""
    faulthandler.cancel_dump_traceback_later()  # The alarm watches.
    script = scripts.start_python(["-m", "tests.killed", "--kills", "2", "--seed", "2"])
    with alarm("Two kills took too long.", 200):
        out, errors = script.process.communicate()
    assert script.process.returncode == 0, f"{out.decode()}\n{errors.decode()}"


def test_at_the_ends_of_epochs_only(tmp_path: Path, whole: Any) -> None:
    _killed(tmp_path, "on_train_batch_end", 13, save_freq="epoch")
    assert _trained(tmp_path, save_freq="epoch") == whole


@pytest.mark.parametrize(
    "settings",
    [
        {"steps_per_epoch": 4, "epochs": 5},  # A pass goes on over the ends of epochs.
        {"compiled": {"steps_per_execution": 3}},
    ],
    ids=str,
)
def test_other_ways_to_count_steps(settings: dict[str, Any], tmp_path: Path) -> None:
    def fresh() -> dict[str, Any]:
        return {
            "save_freq": 2,
            **settings,
            **({"compiled": dict(settings["compiled"])} if "compiled" in settings else {}),
        }

    whole = _trained(tmp_path / "whole", **fresh())
    for call in (4, 3):
        _killed(tmp_path, "on_train_batch_end", call, **fresh())
    assert _trained(tmp_path, **fresh()) == whole


def test_a_model_that_the_first_step_builds_and_any_sequence(tmp_path: Path) -> None:
    def trained(folder: Path, *callbacks: Any) -> Any:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        model.compile("adam", "mse", metrics=["mae"])
        data = [(np.full((4, 2), index, np.float32), np.full((4, 1), index, np.float32)) for index in range(6)]
        callbacks = (*callbacks, ResumeData(folder, 2))
        history = keras_mpseq.fit(model, data, workers=1, epochs=2, verbose=0, callbacks=list(callbacks))
        return history.history

    whole = trained(tmp_path / "whole")
    for call in (4, 3):
        with pytest.raises(Killed):
            trained(tmp_path / "killed", KillAt("on_train_batch_end", call))
    assert trained(tmp_path / "killed") == whole


def test_a_finished_training_goes_on_with_more_epochs(tmp_path: Path, whole: Any) -> None:
    def trained(epochs: int) -> Any:
        model = made()
        callback = ResumeData(tmp_path, delete_checkpoint=False)
        data = {"x": Drawn(workers=1, seed=4), "validation_data": Held()}
        return model.fit(**data, epochs=epochs, verbose=0, callbacks=[callback]).history

    trained(2)
    assert trained(2)["loss"] == whole[0]["loss"][:2]
    assert trained(3) == whole[0]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras itself loads weights so.
def test_beside_backup_and_restore(tmp_path: Path, whole: Any) -> None:
    def backup() -> Any:
        return keras.callbacks.BackupAndRestore(tmp_path / "weights", save_freq=3)

    _killed(tmp_path / "data", "on_train_batch_end", 5)
    assert _trained(tmp_path / "data", backup()) == whole
    model = made()
    callbacks = [ResumeData(tmp_path / "data"), backup(), KillAt("on_train_batch_end", 17)]
    with pytest.raises(Killed):
        model.fit(Drawn(), epochs=3, verbose=0, callbacks=callbacks)
    (tmp_path / "weights" / "training_metadata.json").write_text('{"epoch": 1, "batch": 0}')
    with pytest.raises(
        ValueError, match="of epoch 2, and fit began with 1: put ResumeData after callbacks that restore"
    ):
        made().fit(Drawn(), epochs=3, verbose=0, callbacks=[ResumeData(tmp_path / "data"), backup()])


def test_the_state_of_fit_without_weights() -> None:
    """`SafeSequence.state_dict`: the position is what the model was trained on, not what TensorFlow took."""
    states: list[Any] = []

    class Saves(keras.callbacks.Callback):
        def __init__(self, sequence: Any) -> None:
            super().__init__()
            self.sequence = sequence

        def on_train_begin(self, logs: Any = None) -> None:
            states.append(self.sequence.state_dict())

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            states.append(self.sequence.state_dict())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            states.append(self.sequence.state_dict())

    class Seen(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[list[float]] = []
            self.compile(run_eagerly=True)

        def train_step(self, data: Any) -> Any:
            self.seen.append(np.asarray(data).tolist())
            return {"loss": keras.ops.zeros(())}

    class Rows(Reshuffled):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)[:, None]

    def seen(state: Any, epochs: int, first: int = 0) -> Any:
        model, sequence = Seen(), Rows(workers=0)
        if state:
            sequence.load_state_dict(state)
        model.fit(sequence, epochs=epochs, initial_epoch=first, verbose=0, callbacks=[] if state else [Saves(sequence)])
        return model.seen

    whole = seen(None, 2)
    found = [(state["epoch"], state["position"], state["step"], state["begun"]) for state in states]
    assert found == [
        (0, 0, 0, True),  # The first batches were built, to learn what they look like.
        *((0, step, step, True) for step in range(1, 7)),
        (1, 0, 0, False),
        *((1, step, step, True) for step in range(1, 7)),
        (2, 0, 0, False),
    ]
    for number, state in enumerate(states[:-1]):
        done = min(number, 6) if number < 8 else number - 1
        if state["step"] == 6:
            with pytest.raises(ValueError, match="all of whose batches were trained on, and that had not ended"):
                seen(state, 2, state["epoch"])
            continue
        assert seen(state, 2, state["epoch"]) == whole[done:], number
    with pytest.raises(ValueError, match="no fit runs on it: call it in a callback"):
        Rows().state_dict()


# --- what cannot be resumed -------------------------------------------------------------------------


def _fit(folder: Path, x: Any = None, model: Any = None, **settings: Any) -> None:
    (model or made()).fit(Drawn() if x is None else x, verbose=0, callbacks=[ResumeData(folder, 2)], **settings)


def test_states_that_do_not_fit(tmp_path: Path) -> None:
    _killed(tmp_path, "on_train_batch_end", 5)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="it is that of another model"):
        _fit(tmp_path, Drawn(seed=4), other)
    with pytest.raises(ValueError, match="saved with seed=4, and here seed is 5"):
        _fit(tmp_path, Drawn(seed=5))
    with pytest.raises(ValueError, match="saved with shuffle=True, and here shuffle is False"):
        _fit(tmp_path, Drawn(seed=4), shuffle=False)
    file = tmp_path / "resume_data.npz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"is no state of ResumeData \(.*\): delete it to begin anew"):
        _fit(tmp_path)


def test_where_it_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    with pytest.raises(ValueError, match="ResumeData needs a SafeSequence as the training data"):
        _fit(tmp_path, to_dataset(Drawn(), workers=0), shuffle=False)
    for bad in (0, "batch", 1.5, True):
        with pytest.raises(ValueError, match="save_freq must be an int of 1 or more"):
            ResumeData(tmp_path, bad)
    with pytest.raises(ValueError, match="backup_dir must be the path of a folder"):
        ResumeData("")
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 2)
    with pytest.raises(ValueError, match="ResumeData works on one device, and the model is on 2"):
        _fit(tmp_path)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match='ResumeData works on the TensorFlow backend, and Keras runs on "jax"'):
        _fit(tmp_path)
