"""`fit`, `evaluate` and `predict` of Keras with a SafeSequence: the same numbers for any number of workers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import psutil
import pytest
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from keras_mpseq import Loader, UserCodeError
from keras_mpseq.keras_bridge import SafeSequenceAdapter, worker_count
from tests.fit_sequence import Noisy


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
    assert _losses(workers=3) == alone


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
    class Plain(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return np.zeros((2, 4)), np.zeros(2)

    assert type(data_adapters.get_data_adapter(Plain())) is PyDatasetAdapter
    assert type(data_adapters.get_data_adapter(Noisy())) is SafeSequenceAdapter


@pytest.mark.parametrize(
    ("workers", "use_multiprocessing", "processes"),
    [(0, None, 0), (1, None, 0), (1, False, 0), (1, True, 1), (4, None, 4), (4, False, 4), (0, True, 0)],
)
def test_workers_mean_processes(workers: int, use_multiprocessing: bool | None, processes: int) -> None:
    assert worker_count(Noisy(workers=workers, use_multiprocessing=use_multiprocessing)) == processes
