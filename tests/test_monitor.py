"""PipelineMonitor on real calls of fit. Work is laid on one side or the other; shares are compared, never seconds."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_mpseq
from keras_mpseq import PipelineMonitor, monitor
from keras_mpseq.monitor import advice
from tests.conftest import Scripts
from tests.monitored import Worked, work

COLUMNS = ("data_wait_s", "data_wait_share", "batches_per_s", "worker_restarts")
BATCHES = 8
NEITHER = "PipelineMonitor measures SafeSequence and keras_mpseq.fit only; this fit had neither."


class Works(keras.callbacks.Callback):
    """Makes each step of training take long."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        work()


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A model whose functions are traced: the first steps take long otherwise."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(Worked(workers=0), validation_data=Worked(workers=0), verbose=0)
    return model


def monitored(model: keras.Model, x: Any, *callbacks: Any, **kwargs: Any) -> tuple[PipelineMonitor, dict[str, Any]]:
    """Fit; return the monitor and the history."""
    watching = PipelineMonitor(verbose=False)
    return watching, model.fit(x, verbose=0, callbacks=[watching, *callbacks], **kwargs).history


@pytest.mark.parametrize("workers", [0, 2])
def test_history_has_numbers_for_every_epoch(model: keras.Model, workers: int) -> None:
    _, history = monitored(model, Worked(workers=workers), epochs=3)
    for name in COLUMNS:
        assert len(history[name]) == 3
        assert all(type(value) in (int, float) and value >= 0 for value in history[name])
    assert max(history["data_wait_share"]) <= 1
    assert history["worker_restarts"] == [0] * 3


@pytest.mark.parametrize("at_a_time", [1, 4])
def test_every_batch_is_counted(at_a_time: int) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=at_a_time)
    _, history = monitored(model, Worked(workers=0))
    took_s = history["data_wait_s"][0] / history["data_wait_share"][0]
    assert history["batches_per_s"][0] * took_s == pytest.approx(BATCHES)


def test_callbacks_after_the_monitor_have_its_columns(model: keras.Model, tmp_path: Path) -> None:
    before, after = (keras.callbacks.CSVLogger(str(tmp_path / name)) for name in ("before", "after"))
    model.fit(Worked(), epochs=2, verbose=0, callbacks=[before, PipelineMonitor(verbose=False), after])
    with open(tmp_path / "after", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(float(row[name]) >= 0 for row in rows for name in COLUMNS)
    with open(tmp_path / "before", newline="") as file:
        assert not set(COLUMNS) & set(next(csv.reader(file)))


@pytest.mark.parametrize(("workers", "said"), [(0, "no workers, try "), (2, "2 workers, try ")])
def test_a_sequence_slower_than_the_model(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch, workers: int, said: str
) -> None:
    monkeypatch.setattr(monitor, "cores", lambda: 10_000)
    watching, history = monitored(model, Worked(heavy=3, workers=workers), epochs=2)
    assert history["data_wait_share"][-1] > 0.5  # In the first epoch the first step takes long too.
    assert watching.sentence.startswith("The model waited for data ")
    assert said in watching.sentence


@pytest.mark.parametrize("workers", [0, 2])
def test_a_model_slower_than_the_sequence(model: keras.Model, workers: int) -> None:
    watching, history = monitored(model, Worked(workers=workers), Works(), epochs=2)
    assert max(history["data_wait_share"]) < 0.25
    assert workers or watching.sentence.startswith("Data is not the bottleneck: the model waited for it ")


def test_restarts_are_those_of_the_epoch(model: keras.Model, tmp_path: Path) -> None:
    sequence = Worked(marker=tmp_path / "died", workers=2)
    _, history = monitored(model, sequence, epochs=3, shuffle=False)
    assert sum(history["worker_restarts"]) == 1
    assert history["worker_restarts"][2] == 0


def test_a_fit_without_a_sequence_of_ours(model: keras.Model) -> None:
    watching, history = monitored(model, np.zeros((4, 4)), y=np.zeros((4, 1)))
    assert watching.sentence == NEITHER
    assert not set(COLUMNS) & set(history)


def test_a_monitor_is_used_again(model: keras.Model) -> None:
    watching = PipelineMonitor(verbose=False)
    model.fit(Worked(heavy=1, workers=0), verbose=0, callbacks=[watching])
    assert "waited for data" in watching.sentence
    model.fit(Worked(workers=0), verbose=0, callbacks=[watching, Works()])
    assert "not the bottleneck" in watching.sentence


def test_validation_is_not_counted(model: keras.Model) -> None:
    validation = Worked(heavy=1, workers=0)
    slower = keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: work())
    for fit in (model.fit, lambda *args, **kwargs: keras_mpseq.fit(model, *args, workers=0, **kwargs)):
        watching = PipelineMonitor(verbose=False)
        alone, validated = (
            fit(Worked(workers=0), epochs=2, verbose=0, callbacks=[watching, Works(), slower], **more).history
            for more in ({}, {"validation_data": validation})
        )
        assert "not the bottleneck" in watching.sentence
        assert max(validated["data_wait_share"]) < 0.25
        # Counted, it would take the rate to a third.
        assert max(validated["batches_per_s"]) > max(alone["batches_per_s"]) / 2


def test_the_sentence_is_printed_or_logged(
    model: keras.Model, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "keras_mpseq")
    for verbose in (True, False):
        watching = PipelineMonitor(verbose=verbose)
        model.fit(Worked(), verbose=0, callbacks=[watching])
        assert (watching.sentence in capsys.readouterr().out) is verbose
        assert watching.sentence in caplog.messages


LEGACY = """
import tf_keras
from keras_mpseq import PipelineMonitor
from tests.monitored import Worked
model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(1)])
model.compile("sgd", "mse")
watching = PipelineMonitor(verbose=False)
sequence = Worked()
model.fit(sequence, verbose=0)
history = model.fit(sequence, workers=2, use_multiprocessing=True, epochs=2, verbose=0, callbacks=[watching]).history
print([len(history[name]) for name in ("data_wait_s", "data_wait_share", "batches_per_s", "worker_restarts")])
took_s = history["data_wait_s"][0] / history["data_wait_share"][0]
print(round(history["batches_per_s"][0] * took_s), bool(watching.sentence))
"""


def test_in_tf_keras(scripts: Scripts) -> None:
    assert scripts.run(LEGACY) == "[2, 2, 2, 2]\n8 True\n"


IDLE = "Data is not the bottleneck: the model waited for it "
MORE = ", as many as there are cores; "
FASTER = ", so make __getitem__ faster, or use more cores."


@pytest.mark.parametrize(
    ("workers", "share", "cores", "sentence"),
    [
        (4, 0.0, 8, f"{IDLE}0% of the time."),
        (4, 0.32, 8, "The model waited for data 32% of the time: 4 workers, try 6."),
        (1, 0.06, 8, "The model waited for data 6% of the time: 1 worker, try 2."),
        (1, 0.5, 8, "The model waited for data 50% of the time: 1 worker, try 2."),
        (0, 0.4, 8, "The model waited for data 40% of the time: no workers, try 1."),
        (0, 0.75, 8, "The model waited for data 75% of the time: no workers, try 3."),
        (4, 0.75, 8, f"The model waited for data 75% of the time: 4 workers, try 8{MORE}16 would be needed."),
        (1, 1.0, 2, f"The model waited for data 100% of the time: 1 worker, try 2{MORE}100 would be needed."),
        (8, 0.5, 8, f"The model waited for data 50% of the time: 8 workers on 8 cores{FASTER}"),
        (64, 0.5, 8, f"The model waited for data 50% of the time: 64 workers on 8 cores{FASTER}"),
        (1, 0.5, 1, f"The model waited for data 50% of the time: 1 worker on 1 core{FASTER}"),
    ],
)
def test_advice(workers: int, share: float, cores: int, sentence: str) -> None:
    assert advice(workers, share, cores) == sentence
