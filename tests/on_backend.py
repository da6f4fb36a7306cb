"""What holds on every backend of Keras: run by test_backends.py, once for each, with KERAS_BACKEND set."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import psutil
import pytest

import keras_mpseq
from keras_mpseq import UserCodeError, WorkerLostError
from tests.fit_sequence import Noisy
from tests.trained_sequences import Bare, Broken, Light, Lost, Named, Numbered, Weighted

# torch has an __array__ that NumPy 2 calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PROCESSES = pytest.mark.parametrize("workers", [0, 2])


class Recorder(keras.Model):
    """A dense layer, trained eagerly, that keeps the batches it was given as the backend has them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen: list[Any] = []
        self.compile("sgd", "mse", run_eagerly=True)

    @property
    def indices(self) -> list[int]:
        return [int(x[0, 0]) for x, _ in self.seen]

    @property
    def labels(self) -> list[float]:
        return [float(y[0, 0]) for _, y in self.seen]

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, *arguments: Any) -> Any:
        self.seen.append(arguments[-1])  # JAX passes the state before it.
        return super().train_step(*arguments)


def _model() -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def _losses(**settings: Any) -> dict[str, list[float]]:
    history = _model().fit(Noisy(seed=3, **settings), epochs=3, verbose=0, validation_data=Noisy(seed=4, **settings))
    return history.history


def no_process_remains() -> bool:
    return not psutil.Process().children(recursive=True)


# --- training ---------------------------------------------------------------------------------------


def test_loss_curves_are_equal_to_the_last_bit() -> None:
    alone = _losses(workers=0)
    assert alone["loss"][0] != alone["loss"][1]
    assert _losses(workers=3) == alone
    assert no_process_remains()


def test_shuffle_permutes_each_epoch() -> None:
    ordered, shuffled = Recorder(), Recorder()
    ordered.fit(Numbered(workers=2), epochs=2, verbose=0, shuffle=False)
    assert ordered.indices == [*range(10)] * 2
    shuffled.fit(Numbered(workers=2), epochs=2, verbose=0)
    first, second = shuffled.indices[:10], shuffled.indices[10:]
    assert sorted(first) == sorted(second) == [*range(10)]
    assert first != second
    assert first != [*range(10)]


@PROCESSES
def test_hooks_run_once_an_epoch_and_before_its_batches(workers: int) -> None:
    sequence, validation = Noisy(workers=workers), Noisy(workers=workers)
    _model().fit(sequence, epochs=3, verbose=0, validation_data=validation)
    assert sequence.hooks == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]
    assert validation.hooks == sequence.hooks
    model = Recorder()
    model.fit(Numbered(workers=workers), epochs=3, verbose=0)
    assert model.labels == [1.0] * 10 + [2.0] * 10 + [3.0] * 10


@PROCESSES
def test_fewer_steps_than_batches_go_on_where_they_stopped(workers: int) -> None:
    model, sequence = Recorder(), Numbered(workers=workers)
    model.fit(sequence, epochs=4, steps_per_epoch=5, shuffle=False, verbose=0)
    assert model.indices == [*range(10)] * 2
    assert model.labels == [float(epoch) for epoch in (1, 2, 3, 4) for _ in range(5)]


@PROCESSES
@pytest.mark.parametrize("steps", [4, 12])
def test_steps_that_do_not_divide_run_out_of_data_as_in_keras(steps: int, workers: int) -> None:
    def trained(sequence: Any) -> list[int]:
        model = Recorder()
        with pytest.warns(UserWarning, match="Your input ran out of data"):
            model.fit(sequence, epochs=4, steps_per_epoch=steps, shuffle=False, verbose=0)
        return model.indices

    assert trained(Numbered(workers=workers)) == trained(PlainNumbered())


@PROCESSES
def test_an_endless_sequence(workers: int) -> None:
    model = Recorder()
    model.fit(Numbered(length=None, workers=workers), epochs=2, steps_per_epoch=3, shuffle=False, verbose=0)
    assert model.indices == [0, 1, 2, 3, 4, 5]


def test_class_weight_and_sample_weight_count() -> None:
    plain, weighted = (
        _model().fit(Noisy(workers=2), verbose=0, class_weight=weight).history["loss"]
        for weight in (None, dict.fromkeys(range(10), 2.0))
    )
    assert weighted != plain
    assert _model().evaluate(Weighted(workers=2), verbose=0) == _model().evaluate(Weighted(), verbose=0)
    assert _model().evaluate(Weighted(workers=2), verbose=0) != _model().evaluate(Numbered(), verbose=0)


def test_doubles_become_floatx() -> None:
    model = Recorder()
    model.fit(Numbered(workers=2), verbose=0)
    assert {keras.backend.standardize_dtype(leaf.dtype) for batch in model.seen for leaf in batch} == {"float32"}


def test_inputs_and_outputs_by_name() -> None:
    def model() -> Any:
        keras.utils.set_random_seed(1)
        a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
        total = keras.layers.Dense(1, name="sum")(a + b)
        model = keras.Model({"a": a, "b": b}, {"sum": total, "difference": keras.layers.Dense(1)(a - b)})
        model.compile("sgd", "mse")
        return model

    alone = model().fit(Named(), epochs=2, verbose=0).history
    assert model().fit(Named(workers=2), epochs=2, verbose=0).history == alone


def test_workers_load_nothing_heavy() -> None:
    model = Recorder()
    model.fit(Light(workers=2), verbose=0)
    assert model.labels == [1.0] * 10


class PlainNumbered(keras.utils.PyDataset):
    """A dataset of Keras's own base; y is 1 where another process built it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bare = Bare()

    def __len__(self) -> int:
        return len(self.bare)

    def __getitem__(self, index: int) -> Any:
        return self.bare[index]


def test_datasets_of_keras_run_on_our_workers() -> None:
    model = Recorder()
    keras_mpseq.install()
    try:
        model.fit(PlainNumbered(workers=2, use_multiprocessing=True), verbose=0, shuffle=False)
    finally:
        keras_mpseq.uninstall()
    assert model.indices == [*range(10)]
    assert model.labels == [1.0] * 10
    assert no_process_remains()


def test_any_sequence_runs_on_our_workers() -> None:
    model = Recorder()
    keras_mpseq.fit(model, Bare(), workers=2, verbose=0, shuffle=False)
    assert model.indices == [*range(10)]
    assert model.labels == [1.0] * 10
    assert no_process_remains()


def test_the_monitor_adds_to_the_logs() -> None:
    monitor = keras_mpseq.PipelineMonitor(verbose=False)
    history = _model().fit(Noisy(workers=2), epochs=2, verbose=0, callbacks=[monitor]).history
    assert [len(history[name]) for name in ("data_wait_s", "data_wait_share", "batches_per_s")] == [2, 2, 2]
    assert monitor.sentence


# --- evaluate and predict ---------------------------------------------------------------------------


@PROCESSES
def test_predict_keeps_the_order(workers: int) -> None:
    model = _model()
    expected = model.predict(np.repeat(np.arange(10.0), 2)[:, None] * np.ones(4), verbose=0)
    assert np.allclose(model.predict(Numbered(workers=workers), verbose=0), expected, atol=1e-5)
    assert no_process_remains()


def test_evaluate_sees_every_batch_once() -> None:
    sequence = Noisy(workers=2)
    assert _model().evaluate(sequence, verbose=0) == _model().evaluate(Noisy(), verbose=0)
    assert sequence.hooks == ["begin 0", "end 0"]


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 50_000])
def test_batches_that_are_held_keep_their_values(size: int) -> None:
    model, sequence = Recorder(), Numbered(length=30, size=size, workers=2)
    model.fit(sequence, epochs=2, verbose=0, shuffle=False)
    # More than there are slots; the workers and their memory are gone by now.
    assert no_process_remains()
    held = [keras.ops.convert_to_numpy(x) for x, _ in model.seen]
    assert [{*x.flat} for x in held] == [{float(index)} for index in [*range(30)] * 2]
    assert model.labels == [1.0] * 30 + [2.0] * 30


def test_parts_of_batches_that_are_held_keep_their_values() -> None:
    model = Recorder()
    rows: list[Any] = []

    def keep_a_row(batch: int, logs: Any) -> None:
        rows.append(model.seen.pop()[0][1])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=keep_a_row)
    model.fit(
        Numbered(length=30, size=50_000, workers=2, max_queue_size=2), verbose=0, shuffle=False, callbacks=[callback]
    )
    assert [{*keras.ops.convert_to_numpy(row)} for row in rows] == [{float(index)} for index in range(30)]


# --- errors -----------------------------------------------------------------------------------------


@PROCESSES
@pytest.mark.parametrize("index", [0, 7])
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_errors_are_ours_and_name_index_and_cause(method: str, index: int, workers: int) -> None:
    with pytest.raises(UserCodeError, match="no such image") as caught:
        getattr(_model(), method)(Broken(index, workers=workers), verbose=0)
    assert caught.value.index == index
    assert isinstance(caught.value.__cause__, KeyError)
    assert no_process_remains()


def test_a_lost_worker_is_an_error_of_ours() -> None:
    with pytest.raises(WorkerLostError) as caught:
        _model().fit(Lost(workers=2), verbose=0)
    assert caught.value.index == 7
    assert no_process_remains()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_after_an_error_of_a_callback_no_process_remains(error: type[BaseException]) -> None:
    def fail(epoch: int, logs: Any) -> None:
        if epoch:
            raise error

    model = _model()
    callback = keras.callbacks.LambdaCallback(on_epoch_end=fail)
    with pytest.raises(error):
        model.fit(Noisy(workers=2), epochs=3, verbose=0, validation_data=Noisy(workers=2), callbacks=[callback])
    assert no_process_remains()
    # What Keras kept for validation in the next epoch is not used by the next call.
    validation = Noisy(workers=2)
    model.fit(Noisy(workers=2), verbose=0, validation_data=validation)
    assert validation.hooks == ["begin 0", "end 0"]
