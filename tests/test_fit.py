"""`fit`, `evaluate` and `predict` of Keras with a SafeSequence: the same numbers for any number of workers."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest
from keras.src.layers.preprocessing import normalization
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

import keras_mpseq
from keras_mpseq import Loader, PayloadError, UserCodeError, WorkerTimeoutError, pipeline
from keras_mpseq.keras_bridge import SafeSequenceAdapter, worker_count
from tests.fit_sequence import Noisy, OnlyX


def _model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def _losses(**settings: Any) -> dict[str, list[float]]:
    history = _model().fit(
        Noisy(seed=3, **settings), epochs=3, shuffle=True, verbose=0, validation_data=Noisy(seed=4, **settings)
    )
    return history.history


def test_loss_curves_are_equal_to_the_last_bit() -> None:
    alone = _losses(workers=0)
    assert alone["loss"][0] != alone["loss"][1]
    assert _losses(workers=1, use_multiprocessing=True) == alone
    assert _losses(workers=4) == alone


def test_workers_may_be_replaced_in_training(tmp_path: Path) -> None:
    alone = _losses(workers=0)
    log = tmp_path / "log"
    assert _losses(workers=2, max_tasks_per_worker=4, log=log) == alone
    assert max(Counter(log.read_text().split()).values()) <= 4


def test_a_batch_that_takes_too_long_ends_training() -> None:
    with pytest.raises(WorkerTimeoutError, match=r"longer than 0\.5 s while building batch 4, attempt 2 of 2"):
        _model().fit(Noisy(stuck=4, workers=2, timeout=0.5), shuffle=False, verbose=0)


def test_shuffle_false_trains_in_order_and_true_does_not() -> None:
    for shuffle in (False, True):
        adapter = data_adapters.get_data_adapter(Noisy(workers=2), shuffle=shuffle)
        order = [int(y[0]) for _, y in adapter.get_tf_dataset()]
        assert sorted(order) == list(range(10))
        assert (order == list(range(10))) is not shuffle


def test_class_weight_counts() -> None:
    weighted, plain = (
        _model().fit(Noisy(workers=2), verbose=0, class_weight=weight).history["loss"]
        for weight in (dict.fromkeys(range(10), 2.0), None)
    )
    assert weighted != plain


@pytest.mark.parametrize("workers", [0, 2])
def test_hooks_run_once_an_epoch(workers: int) -> None:
    sequence = Noisy(workers=workers)
    _model().fit(sequence, epochs=3, verbose=0)
    assert sequence.hooks == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]


def test_predict_keeps_the_order() -> None:
    model = _model()
    with Loader(Noisy(), workers=0) as loader:
        expected = np.concatenate([model.predict_on_batch(x) for x, _ in loader])
    assert np.allclose(model.predict(Noisy(workers=2), verbose=0), expected, atol=1e-6)


def test_no_process_remains_after_fit_and_after_an_error_in_it() -> None:
    _model().fit(Noisy(workers=2), verbose=0)
    with pytest.raises(UserCodeError, match="__getitem__ raised ValueError: broken") as caught:
        _model().fit(Noisy(workers=2, broken=7), verbose=0)
    assert isinstance(caught.value.__cause__, ValueError)
    assert not psutil.Process().children(recursive=True)


def test_other_datasets_have_keras_own_adapter() -> None:
    assert type(data_adapters.get_data_adapter(Plain())) is PyDatasetAdapter
    assert type(data_adapters.get_data_adapter(Noisy())) is SafeSequenceAdapter


@pytest.mark.parametrize(
    ("workers", "use_multiprocessing", "processes"),
    [(0, None, 0), (1, None, 0), (1, False, 0), (1, True, 1), (4, None, 4), (4, False, 4), (0, True, 0)],
)
def test_workers_mean_processes(workers: int, use_multiprocessing: bool | None, processes: int) -> None:
    assert worker_count(Noisy(workers=workers, use_multiprocessing=use_multiprocessing)) == processes


def test_asking_for_threads_gets_processes_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pipeline._say_processes.cache_clear()
    for workers in (1, 3, 3):
        worker_count(Noisy(workers=workers, use_multiprocessing=False))
        worker_count(Noisy(workers=workers))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "use_multiprocessing=False with workers above 1"
    ]


class Plain(keras.utils.PyDataset):
    """A class that cannot be edited; every y is the process that built it."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return np.full((4, 4), index, np.float32), np.full((4, 1), os.getpid(), np.int64)


class Labels(keras.Model):
    """Keeps the first y of every batch; a dense layer is trained on x."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[float] = []
        self.compile(run_eagerly=True)

    def train_step(self, data: Any) -> Any:
        self.labels.append(data[1].numpy().flat[0].item())
        return {"loss": keras.ops.zeros(())}

    test_step = train_step


def _labels(x: Any, **settings: Any) -> list[float]:
    model = Labels()
    model.fit(x, verbose=0, **settings)
    return model.labels


def test_the_order_is_a_permutation_keyed_by_seed_and_epoch() -> None:
    epochs = np.reshape(_labels(Noisy(workers=2, seed=3), epochs=3), (3, 10)).tolist()
    assert [sorted(epoch) for epoch in epochs] == [[*range(10)]] * 3
    assert len({tuple(epoch) for epoch in [*epochs, range(10)]}) == 4
    assert np.reshape(_labels(Noisy(workers=0, seed=3), epochs=3), (3, 10)).tolist() == epochs
    assert np.reshape(_labels(Noisy(workers=2, seed=4), epochs=3), (3, 10)).tolist() != epochs


def test_fitting_again_goes_on_counting_and_initial_epoch_says_where() -> None:
    sequence = Noisy(workers=2)
    first, second = _labels(sequence, epochs=2), _labels(sequence)
    assert sequence.hooks == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]
    assert first[10:] != second
    resumed = Noisy(workers=2)
    assert _labels(resumed, epochs=2, initial_epoch=1) == first[10:]
    assert resumed.hooks == ["begin 1", "end 1"]


@pytest.mark.parametrize(("workers", "processes"), [(2, 2), (0, 0), (1, 1)])
def test_fit_takes_the_old_spelling_for_any_sequence(workers: int, processes: int) -> None:
    model = Labels()
    history = keras_mpseq.fit(
        model, Plain(), workers=workers, use_multiprocessing=True, max_queue_size=4, epochs=2, validation_data=Plain()
    )
    trained_and_tested = set(model.labels)
    assert len(model.labels) == 24
    assert sorted(history.history) == ["loss", "val_loss"]
    assert (os.getpid() in trained_and_tested) is not bool(processes)
    assert len(trained_and_tested) <= max(2 * processes, 1)  # Training and validation have workers of their own.


def test_fit_without_processes_stays_in_this_one() -> None:
    model = Labels()
    keras_mpseq.fit(model, Plain(), workers=1, use_multiprocessing=False, verbose=0)
    assert model.labels == [os.getpid()] * 6


def test_install_and_uninstall() -> None:
    asks, does_not = Plain(workers=2, use_multiprocessing=True), Plain(workers=2)
    keras_mpseq.install()
    try:
        assert type(data_adapters.get_data_adapter(does_not)) is PyDatasetAdapter
        assert os.getpid() not in _labels(asks)
    finally:
        keras_mpseq.uninstall()
    assert type(data_adapters.get_data_adapter(asks)) is PyDatasetAdapter


@pytest.mark.skipif(
    not hasattr(normalization, "PyDataset"), reason="Layers of Keras before 3.13 adapt to no PyDataset at all."
)
def test_normalization_adapts_to_a_sequence() -> None:
    layers = []
    for workers in (0, 2):
        layer = keras.layers.Normalization()
        layer.adapt(OnlyX(workers=workers))
        layers.append([np.asarray(value).tolist() for value in (layer.mean, layer.variance)])
    assert layers[0] == layers[1]
    every = np.concatenate([OnlyX()[index] for index in range(4)])
    np.testing.assert_allclose(np.ravel(layers[0][0]), every.mean(0), rtol=1e-5)
    assert not psutil.Process().children(recursive=True)


def test_several_devices() -> None:
    """MirroredStrategy cuts each batch into shares, one for each device."""
    import tensorflow as tf

    losses = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0"])):
        with strategy.scope():
            model = _model()
        losses.append(model.fit(Noisy(workers=2), epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


class Raises(keras.callbacks.Callback):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no more"), SystemExit(3)], ids=repr)
def test_no_worker_outlives_an_error_in_a_callback(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        _model().fit(Noisy(workers=2), validation_data=Noisy(workers=2), verbose=0, callbacks=[Raises(error)])
    assert caught.value is error
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_errors_of_evaluate_and_predict(method: str) -> None:
    with pytest.raises(UserCodeError, match="ValueError: broken") as caught:
        getattr(_model(), method)(Noisy(workers=2, broken=5), verbose=0)
    assert caught.value.index == 5
    assert "in __getitem__" in caught.value.traceback
    assert not psutil.Process().children(recursive=True)


def test_an_error_in_the_validation_data() -> None:
    with pytest.raises(UserCodeError, match="ValueError: broken"):
        _model().fit(Noisy(workers=2), validation_data=Noisy(workers=2, broken=9), verbose=0)
    assert not psutil.Process().children(recursive=True)


def test_a_sequence_that_cannot_travel() -> None:
    """Keras filters tracebacks by `raise ... from None`; the cause is there all the same."""
    sequence = Noisy(workers=2)
    sequence.lock = threading.Lock()
    with pytest.raises(PayloadError, match=r"seq\.lock") as caught:
        _model().fit(sequence, verbose=0)
    assert isinstance(caught.value.__cause__, TypeError)
