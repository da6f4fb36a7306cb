"""Rows C1 to C20: wrong data, silently. The first line of each docstring says what Keras 3.15.1 or its users saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_mpseq
from keras_mpseq import SequenceLengthError, StatefulGetitemError
from tests.scenarios.sequences import (
    Augmented,
    Batches,
    Counter,
    Hooked,
    LoadsAtEpochBegin,
    NumBatchesIsAMethod,
    VaryingLength,
    WaitsForALaterBatch,
    column,
)
from tests.scenarios.training import Peeks, Recorder, calls, fit, labels

# C1: test_headline_rand. C2: test_headline_rand2. C6: test_headline_fitsteps3. C10: test_headline_level.
# C18: test_headline_inttofloat.
# C17, a __len__ that leaves samples out and rows of np.empty, is no test here: such a sequence is valid, and only lint
# and check, which are not built yet, can say that it was not meant.


def test_c03_reproducible_with_a_seed() -> None:
    """Stock Keras: threads race for the global generator, so that a seed does not give the same run twice."""
    runs = [fit(Augmented(workers=workers, seed=7), epochs=2).labels for workers in (3, 3, 0)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != fit(Augmented(workers=3, seed=8), epochs=2).labels


def test_c04_a_generator_is_refused() -> None:
    """Stock Keras 2 gave each process a copy of the generator: every batch came as often as there were workers."""

    def batches() -> Iterator[Any]:
        yield np.zeros((8, 4)), column(0)

    with pytest.raises(TypeError, match=r"sequence must be a SafeSequence.*__getitem__, got generator"):
        keras_mpseq.fit(Recorder(), batches(), workers=2, verbose=0)


def test_c05_predict_keeps_the_order(tmp_path: Path) -> None:
    """Keras 2 delivered what was ready first, so that predictions belonged to other inputs."""
    os.mkfifo(tmp_path / "pipe")
    model = Recorder()
    expected = np.concatenate([model.predict_on_batch(np.full((8, 4), index, np.float32)) for index in range(10)])
    predicted = model.predict(WaitsForALaterBatch(tmp_path / "pipe"), verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_c07_on_epoch_end_is_called(workers: int) -> None:
    """Keras forgot on_epoch_end with workers=0, with steps_per_epoch, for validation data and with from_generator."""
    whole, parts, validation = (Hooked(workers=workers) for _ in range(3))
    fit(whole, epochs=2, validation_data=validation)
    fit(parts, epochs=2, steps_per_epoch=2)
    for sequence, ends in ((whole, [0, 1]), (parts, [0, 0]), (validation, [0, 1])):  # parts: two epochs, one pass
        assert [hook for hook in sequence.hooks if hook.startswith("end")] == [f"end {epoch}" for epoch in ends]


def test_c08_hooks_run_once_an_epoch_and_workers_see_them() -> None:
    """Keras called on_epoch_end again whenever it made an iterator; what it changed there workers might not see."""
    sequence = Hooked()
    seen = fit(sequence, epochs=3)
    assert sequence.hooks == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]
    assert seen.labels == [1] * 6 + [2] * 6 + [3] * 6


def test_c09_on_epoch_begin_runs_before_any_batch() -> None:
    """Stock Keras starts workers before on_epoch_begin: AttributeError, or the data of the epoch before."""
    assert fit(LoadsAtEpochBegin(), epochs=3).labels == [100 * epoch + i for epoch in (1, 2, 3) for i in range(6)]


def test_c11_every_index_is_built_once_and_in_a_worker(tmp_path: Path) -> None:
    """Stock Keras builds 0 and 1 once more, in the training process, to learn the spec: counters go out of step."""
    log = tmp_path / "log"
    fit(Batches(log=log), epochs=2)
    built = calls(log)
    assert sorted(index for index, _ in built) == sorted([*range(6)] * 2)
    assert os.getpid() not in {pid for _, pid in built}


def test_c11_a_counter_is_warned_of() -> None:
    """Stock Keras says nothing of a `__getitem__` whose batches depend on which worker builds them."""
    with pytest.warns(UserWarning, match=r"Counter\.__getitem__ changed self\.calls"):
        fit(Counter(24))


def test_c11_strict_is_an_error() -> None:
    with pytest.raises(StatefulGetitemError, match=r"Counter\.__getitem__ changed self\.calls \(SEQ205, "):
        fit(Counter(24, strict=True))


def test_c12_the_number_of_batches_varies() -> None:
    """Stock Keras with workers reads the length once: later epochs are cut, or ask for indices that are gone."""
    seen = fit(VaryingLength(), epochs=4)
    assert seen.labels == [*range(6), *range(4), *range(9), *range(2)]


def test_c13_validation_steps_count() -> None:
    """Keras 2.2.1 ignored validation_steps; with workers the next validation began with what was left over."""
    model = Recorder()
    fit(Batches(), model, epochs=3, validation_data=Batches(), validation_steps=2)
    assert labels(model.seen.tested) == [0, 1] * 3


def test_c14_nothing_is_built_beyond_the_epoch_and_lost(tmp_path: Path) -> None:
    """Stock Keras builds ahead of steps_per_epoch, drops that, and builds it again."""
    log = tmp_path / "log"
    assert fit(Batches(10, log=log), epochs=2, steps_per_epoch=5).labels == [*range(10)]
    assert sorted(index for index, _ in calls(log)) == [*range(10)]


def test_c15_iteration_ends_at_the_length(tmp_path: Path) -> None:
    """Keras before 3.10: a for loop over a PyDataset did not end, and indices beyond its length were asked for."""
    assert [int(y[0, 0]) for _, y in Batches(workers=0)] == [*range(6)]
    log = tmp_path / "log"
    Recorder().evaluate(Batches(log=log), verbose=0)
    assert {index for index, _ in calls(log)} == {*range(6)}


def test_c16_num_batches_is_a_method() -> None:
    """Stock Keras: TypeError: '<' not supported between instances of 'method' and 'int'."""
    with pytest.raises(SequenceLengthError, match=r"num_batches is a method.*Put @property above it"):
        fit(NumBatchesIsAMethod())


def test_c19_image_data_generator() -> None:
    """Keras 2's iterators of images drew indices from a shared generator: some images came often, others never."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    images = np.arange(24, dtype=np.float32).reshape(24, 1, 1, 1) * np.ones((1, 2, 2, 1), np.float32)
    flow = ImageDataGenerator().flow(images, np.arange(24, dtype=np.float32)[:, None], batch_size=4, seed=1)
    model = Recorder(lambda x: keras.ops.reshape(x, (-1, 4)))
    keras_mpseq.fit(model, flow, workers=2, epochs=2, verbose=0)
    rows = [int(y) for _, column in model.seen.trained for y in column[:, 0]]
    assert sorted(rows[:24]) == sorted(rows[24:]) == [*range(24)]


def test_c20_a_callback_uses_the_same_sequence() -> None:
    """Keras 2: "generator already executing", or batches that training misses."""
    sequence = Hooked()
    model, peeks = Recorder(), Peeks(sequence)
    fit(sequence, model, epochs=2, callbacks=[peeks])
    assert len(model.seen.trained) == len(model.seen.tested) == 12
    assert len(peeks.looked) == 2 * 12
