"""`fit`, `evaluate` and `predict` of tf_keras, the Keras 2 API, run a SafeSequence on our workers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import psutil
import pytest

import keras_mpseq
from keras_mpseq import Loader, UserCodeError, WorkerLostError
from tests.conftest import Scripts
from tests.fit_sequence import Noisy
from tests.trained_sequences import Broken, Light, Lost, Numbered, Unlabelled, Weighted

tf_keras: Any = pytest.importorskip("tf_keras", reason="tf_keras is Keras 2: pip install keras_mpseq[legacy]")

PROCESSES = [
    pytest.param({}, id="this process"),
    pytest.param({"workers": 2, "use_multiprocessing": True, "max_queue_size": 10}, id="2 workers"),
]


class Recorder(tf_keras.Model):  # type: ignore[misc]
    """A dense layer that remembers the batches it was given: index and y, and the dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = tf_keras.layers.Dense(1)
        self.trained: list[tuple[int, float]] = []
        self.dtypes: set[str] = set()
        self.compile("sgd", "mse", run_eagerly=True)

    @property
    def indices(self) -> list[int]:
        return [index for index, _ in self.trained]

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.trained.append((int(data[0][0, 0]), float(data[1][0, 0])))
        self.dtypes |= {leaf.dtype.name for leaf in data}
        return super().train_step(data)


def _model() -> Any:
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.Sequential([tf_keras.layers.Dense(8, activation="relu"), tf_keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def _losses(asked: dict[str, Any], **given: Any) -> dict[str, list[float]]:
    return (
        _model()
        .fit(Noisy(seed=3, **asked), epochs=3, verbose=0, validation_data=Noisy(seed=4, **asked), **given)
        .history
    )


def no_process_remains() -> bool:
    return not psutil.Process().children(recursive=True)


# --- training ---------------------------------------------------------------------------------------


def test_loss_curves_are_equal_to_the_last_bit() -> None:
    alone = _losses({"workers": 0})
    assert sorted(alone) == ["loss", "val_loss"]
    assert alone["loss"][0] != alone["loss"][1]
    assert _losses({}, workers=3, use_multiprocessing=True, max_queue_size=4) == alone
    assert _losses({}, workers=3) == alone
    assert _losses({}, use_multiprocessing=True) == alone
    assert _losses({"workers": 3}) == alone
    assert no_process_remains()


def test_batches_are_built_by_light_processes() -> None:
    model = Recorder()
    model.fit(Light(), verbose=0, workers=2, use_multiprocessing=True)
    assert [light for _, light in model.trained] == [1.0] * 10


@pytest.mark.parametrize("asked", [{"workers": 2}, {"workers": 1, "use_multiprocessing": True}])
def test_without_arguments_the_sequence_says_how_many(asked: dict[str, Any]) -> None:
    model = Recorder()
    model.fit(Light(**asked), verbose=0)
    assert [light for _, light in model.trained] == [1.0] * 10


@pytest.mark.parametrize("settings", PROCESSES)
def test_hooks_run_once_an_epoch_and_before_its_batches(settings: dict[str, Any]) -> None:
    sequence, validation = Noisy(), Noisy()
    _model().fit(sequence, epochs=3, verbose=0, validation_data=validation, **settings)
    assert sequence.hooks == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]
    assert validation.hooks == sequence.hooks
    model = Recorder()
    model.fit(Numbered(), epochs=3, verbose=0, **settings)
    assert [begun for _, begun in model.trained] == [1.0] * 10 + [2.0] * 10 + [3.0] * 10


def test_the_epoch_that_stopped_training_ends() -> None:
    sequence = Noisy()
    stop = tf_keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True))
    model = _model()
    model.fit(sequence, epochs=3, verbose=0, workers=2, callbacks=[stop])
    assert sequence.hooks == ["begin 0", "end 0"]


def test_shuffle_permutes_each_epoch() -> None:
    ordered, shuffled = Recorder(), Recorder()
    ordered.fit(Numbered(), epochs=2, verbose=0, workers=2, shuffle=False)
    assert ordered.indices == [*range(10)] * 2
    shuffled.fit(Numbered(), epochs=2, verbose=0, workers=2)
    first, second = shuffled.indices[:10], shuffled.indices[10:]
    assert sorted(first) == sorted(second) == [*range(10)]
    assert first != second
    assert first != [*range(10)]


@pytest.mark.parametrize("settings", PROCESSES)
def test_fewer_steps_than_batches_go_on_where_they_stopped(settings: dict[str, Any]) -> None:
    model, sequence = Recorder(), Numbered()
    model.fit(sequence, epochs=5, steps_per_epoch=4, shuffle=False, verbose=0, **settings)
    assert model.indices == [*range(10)] * 2
    assert [begun for _, begun in model.trained] == [float(epoch) for epoch in range(1, 6) for _ in range(4)]
    assert sequence.begun == 5


@pytest.mark.parametrize("settings", PROCESSES)
def test_more_steps_than_batches_begin_anew(settings: dict[str, Any]) -> None:
    model, sequence = Recorder(), Numbered(length=4)
    model.fit(sequence, epochs=2, steps_per_epoch=6, shuffle=False, verbose=0, **settings)
    assert model.indices == [0, 1, 2, 3] * 3
    assert sequence.begun == 2


def test_an_endless_sequence_needs_steps() -> None:
    model = Recorder()
    model.fit(Numbered(length=None), epochs=2, steps_per_epoch=3, verbose=0, workers=2)
    assert model.indices == [0, 1, 2, 3, 4, 5]


def test_class_weight_and_sample_weight_count() -> None:
    plain = _model().fit(Noisy(), verbose=0, workers=2).history["loss"]
    weighted = _model().fit(Noisy(), verbose=0, workers=2, class_weight=dict.fromkeys(range(10), 2.0)).history["loss"]
    assert weighted != plain
    with Loader(Weighted(), workers=0) as loader:
        x, y, weight = (np.concatenate(column) for column in zip(*loader, strict=True))
    model = _model()
    expected = model.evaluate(x, y, sample_weight=weight, verbose=0)
    assert model.evaluate(Weighted(), verbose=0, workers=2) == pytest.approx(expected, rel=1e-5)


def test_doubles_become_floatx() -> None:
    model = Recorder()
    model.fit(Numbered(), verbose=0, workers=2)
    assert model.dtypes == {"float32"}


@pytest.mark.parametrize("argument", ["y", "sample_weight"])
def test_batches_hold_the_targets(argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must be None for a sequence, whose batches hold it\.$"):
        _model().fit(Numbered(), verbose=0, workers=2, **{argument: np.zeros((20, 1))})


def test_training_goes_on_where_it_ended() -> None:
    once, twice = Noisy(seed=3), Noisy(seed=3)
    model = _model()
    expected = model.fit(once, epochs=2, verbose=0, workers=2).history["loss"]
    model = _model()
    assert [model.fit(twice, verbose=0, workers=2).history["loss"][0] for _ in range(2)] == expected


# --- evaluate, predict, adapt, generators -----------------------------------------------------------


@pytest.mark.parametrize("settings", PROCESSES)
def test_predict_keeps_the_order(settings: dict[str, Any]) -> None:
    model = _model()
    expected = model.predict(np.repeat(np.arange(10.0), 2)[:, None] * np.ones(4), verbose=0)
    assert np.allclose(model.predict(Numbered(), verbose=0, **settings), expected, atol=1e-5)
    assert len(model.predict(Numbered(), verbose=0, steps=3, **settings)) == 6
    assert no_process_remains()


def test_evaluate_sees_every_batch_once() -> None:
    model, sequence = _model(), Noisy()
    alone = model.evaluate(Noisy(), verbose=0)
    assert model.evaluate(sequence, verbose=0, workers=2, use_multiprocessing=True) == alone
    assert sequence.hooks == ["begin 0", "end 0"]


def test_a_layer_adapts_to_a_sequence() -> None:
    layer = tf_keras.layers.Normalization()
    layer.adapt(Unlabelled(workers=2))
    assert np.allclose(layer.mean, np.arange(10).mean())


def test_methods_for_generators_run_on_workers() -> None:
    model, settings = Recorder(), {"workers": 2, "use_multiprocessing": True}
    with pytest.warns(UserWarning, match="fit_generator"):
        model.fit_generator(Light(), steps_per_epoch=10, epochs=2, verbose=0, **settings)
    assert [light for _, light in model.trained] == [1.0] * 20
    with pytest.warns(UserWarning, match="evaluate_generator"):
        assert model.evaluate_generator(Numbered(), **settings) == model.evaluate(Numbered(), verbose=0)
    with pytest.warns(UserWarning, match="predict_generator"):
        assert len(model.predict_generator(Numbered(), **settings)) == 20


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", PROCESSES)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("index", [0, 7])
def test_errors_are_ours_and_name_index_and_cause(method: str, index: int, settings: dict[str, Any]) -> None:
    with pytest.raises(UserCodeError, match="no such image") as caught:
        getattr(_model(), method)(Broken(index), verbose=0, **settings)
    assert caught.value.index == index
    assert isinstance(caught.value.__cause__, KeyError)
    assert no_process_remains()


def test_a_lost_worker_is_an_error_of_ours() -> None:
    with pytest.raises(WorkerLostError) as caught:
        _model().fit(Lost(), verbose=0, workers=2, use_multiprocessing=True)
    assert caught.value.index == 7
    assert no_process_remains()


def test_an_error_in_validation_is_ours() -> None:
    with pytest.raises(UserCodeError, match="no such image"):
        _model().fit(Noisy(), verbose=0, workers=2, validation_data=Broken())
    assert no_process_remains()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_after_an_error_of_a_callback_no_process_remains(error: type[BaseException]) -> None:
    def fail(epoch: int, logs: Any) -> None:
        if epoch:
            raise error

    model = _model()
    with pytest.raises(error):
        model.fit(
            Noisy(),
            epochs=3,
            verbose=0,
            workers=2,
            validation_data=Noisy(),
            callbacks=[tf_keras.callbacks.LambdaCallback(on_epoch_end=fail)],
        )
    assert no_process_remains()
    # What tf_keras kept for validation in the next epoch is not used by the next call.
    validation = Noisy()
    model.fit(Noisy(), verbose=0, workers=2, validation_data=validation)
    assert validation.hooks == ["begin 0", "end 0"]


# --- sequences of tf_keras --------------------------------------------------------------------------


class Plain(tf_keras.utils.Sequence):  # type: ignore[misc]
    """A sequence as Keras 2 has them; y says whether another process built it."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self.ends = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 4), float(index)), np.full((2, 1), float(os.getpid() != self.parent))

    def on_epoch_end(self) -> None:
        self.ends += 1


def test_keras_mpseq_fit_takes_models_and_sequences_of_tf_keras() -> None:
    model, sequence = Recorder(), Plain()
    settings = {"shuffle": False, "verbose": 0, "validation_data": Numbered()}
    history = keras_mpseq.fit(model, sequence, workers=2, epochs=2, **settings)
    assert model.trained == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)] * 2
    assert sequence.ends == 2
    assert sorted(history.history) == ["loss", "val_loss"]
    assert no_process_remains()


def test_keras_mpseq_fit_is_fit() -> None:
    expected = _losses({"workers": 0})
    for workers in (0, 2):
        given = {"epochs": 3, "verbose": 0, "validation_data": Noisy(seed=4), "workers": workers}
        assert keras_mpseq.fit(_model(), Noisy(seed=3), **given).history == expected
    model = Recorder()
    keras_mpseq.fit(model, Numbered(), workers=2, steps_per_epoch=5, epochs=4, shuffle=False, verbose=0)
    assert model.indices == [*range(10)] * 2
    weighted = keras_mpseq.fit(_model(), Noisy(), workers=2, verbose=0, class_weight=dict.fromkeys(range(10), 2.0))
    assert weighted.history != keras_mpseq.fit(_model(), Noisy(), workers=2, verbose=0).history


def test_install_is_for_sequences_of_tf_keras_too() -> None:
    keras_mpseq.install()
    try:
        model, sequence = Recorder(), Plain()
        model.fit(sequence, epochs=2, verbose=0, workers=2, use_multiprocessing=True, shuffle=False)
        assert model.trained == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)] * 2
        assert sequence.ends == 2
        threads = Recorder()
        threads.fit(Plain(), verbose=0, shuffle=False)
        assert threads.trained == [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0)]
    finally:
        keras_mpseq.uninstall()
    adapters = [type(_adapter(sequence, use_multiprocessing=True)).__name__ for sequence in (Plain(), Numbered())]
    assert adapters == ["KerasSequenceAdapter", "LegacyAdapter"]


def _adapter(sequence: Any, **settings: Any) -> Any:
    from tf_keras.src.engine import data_adapter

    return data_adapter.select_data_adapter(sequence, None)(sequence, **settings)


# --- programs ---------------------------------------------------------------------------------------

_PROGRAM = """
IMPORTS

class Digits(SafeSequence):
    def __init__(self, broken=-1):
        self.broken = broken

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == self.broken:
            raise ValueError("broken")
        x = self.rng(index).normal(size=(4, 3))
        return x, np.full((4, 1), os.getpid() != parent)

    def on_epoch_begin(self):
        print("begin", self.epoch)

    def on_epoch_end(self):
        print("end", self.epoch)

class Model(keras.Model):
    def train_step(self, data):
        built.append(float(data[1][0, 0]))
        return {"loss": 0.0}

parent, built = os.getpid(), []
model = Model()
model.compile(run_eagerly=True)
model.fit(Digits(), epochs=2, workers=4, use_multiprocessing=True, max_queue_size=10, verbose=0)
print(built)
try:
    model.fit(Digits(broken=4), workers=2, use_multiprocessing=True, verbose=0)
except UserCodeError as error:
    print(error.index, repr(error.__cause__))
print(psutil.Process().children(recursive=True))
"""
_SAID = """\
begin 0
end 0
begin 1
end 1
[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
begin 0
4 ValueError('broken')
[]
"""
_OURS = "import os\nimport numpy as np\nimport psutil\nfrom keras_mpseq import SafeSequence, UserCodeError\n"


@pytest.mark.parametrize("imports", [f"import tf_keras as keras\n{_OURS}", f"{_OURS}import tf_keras as keras\n"])
def test_tf_keras_imported_before_and_after(imports: str, scripts: Scripts) -> None:
    assert scripts.run(_PROGRAM.replace("IMPORTS", imports)) == _SAID


def test_tensorflow_told_to_use_keras_2(monkeypatch: pytest.MonkeyPatch, scripts: Scripts) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    imports = f"import tensorflow as tf\n{_OURS}keras = tf.keras\nassert keras.Model.__module__.startswith('tf_keras')"
    assert scripts.run(_PROGRAM.replace("IMPORTS", imports)) == _SAID
