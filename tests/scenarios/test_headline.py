"""The probes of the table of what is broken in Keras 3.15.1, with a SafeSequence in their place.

The first line of each docstring says what Keras does. A hang is what these tests must not do; pytest's
`faulthandler_timeout` shows where one is.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from keras_mpseq import PayloadError, SpecMismatchError, UserCodeError, WorkerLostError, options
from tests.conftest import PATIENCE_S, Scripts
from tests.scenarios.sequences import (
    Augmented,
    Batches,
    Declared,
    Exits,
    Killed,
    Lazy,
    Levels,
    Made,
    NeedsTwoError,
    Raises,
    Unpicklable,
    column,
)
from tests.scenarios.training import RaisesTheLevel, Raising, Recorder, fit


@pytest.mark.parametrize("again", [False, True], ids=["once", "always"])
def test_headline_killed(tmp_path: Path, again: bool) -> None:
    """Stock Keras waits for ever for the batch of a worker that was killed; row A5.

    Killed once, the batch is built by another worker; killed at every attempt, the error names the batch.
    """
    if not again:
        assert fit(Killed(tmp_path / "marker"), epochs=2).labels == [*range(6)] * 2
        return
    with pytest.raises(WorkerLostError, match=r"SIGKILL.* batch 3, attempt 2 of 2\b") as caught:
        fit(Killed())
    assert caught.value.index == 3


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("sys.exit", UserCodeError, "SystemExit: 1"),
        ("os._exit", WorkerLostError, "exit code 1"),
        ("crash", WorkerLostError, "SIGSEGV"),
    ],
)
def test_headline_sysexit(how: str, kind: type[UserCodeError], text: str) -> None:
    """Stock Keras waits for ever for a worker that ended itself; row A5."""
    with pytest.raises(kind, match=text) as caught:
        fit(Exits(how))
    assert caught.value.index == 3


def test_headline_badexc() -> None:
    """Stock Keras waits for ever: the exception fails to unpickle in the pool's thread; row A8."""
    with pytest.raises(UserCodeError, match=r"NeedsTwoError: no label in a\.csv") as caught:
        fit(Raises(lambda: NeedsTwoError("no label", "a.csv")))
    assert caught.value.index == 3
    assert type(caught.value.__cause__) is NeedsTwoError


def test_headline_none() -> None:
    """Stock Keras leaves the None out and waits for ever for the batch that is missing then; row A9."""
    with pytest.raises(SpecMismatchError) as caught:
        fit(Made(lambda index: None if index == 2 else (np.zeros((8, 4)), column(index))))
    assert caught.value.index == 2


def test_headline_rand() -> None:
    """Stock Keras gives all workers one random state: 2 distinct values in 8 batches with 4 workers; row C1."""
    drawn = fit(Augmented(batches=8, workers=4)).labels
    assert len(set(drawn)) == 8
    assert drawn == fit(Augmented(batches=8, workers=0)).labels


def test_headline_rand2() -> None:
    """Stock Keras forks every epoch from the same random state, so that each repeats the first; row C2."""
    drawn = fit(Augmented(), epochs=3).labels
    assert len(set(drawn)) == 18
    assert drawn == fit(Augmented(workers=0), epochs=3).labels


def test_headline_inttofloat() -> None:
    """Stock Keras takes the dtype from two batches and trains on 0 where y is 0.7; row C18."""

    def batch(index: int) -> Any:
        return np.zeros((8, 4)), np.zeros((8, 1), int) if index < 2 else column(0.7)

    with pytest.raises(SpecMismatchError, match=r"batch\[1\] is float32.*expected int64") as caught:
        fit(Made(batch))
    assert caught.value.index == 2


def test_headline_varshape() -> None:
    """Stock Keras fixes what two batches share, and fails in the third without naming it; row D1.

    The error names the batch, the leaf and the remedy; the remedy works.
    """

    def batch(index: int) -> Any:
        return np.full((8, 4 if index < 2 else 6), index, np.float32), column(index)

    with pytest.raises(SpecMismatchError, match="declare element_spec") as caught:
        fit(Made(batch))
    assert caught.value.index == 2
    spec = SimpleNamespace(shape=(None, None), dtype="float32"), SimpleNamespace(shape=(None, 1), dtype="float32")
    seen = fit(Declared(batch, spec), Recorder(lambda x: x[:, :4]))
    assert [x.shape for x, _ in seen.trained] == [(8, 4)] * 2 + [(8, 6)] * 4


def test_headline_lazy() -> None:
    """Stock Keras opens in the parent, for the spec, what was to be opened in workers: 6 of 6 batches used that."""
    sequence = Lazy()
    assert fit(sequence).labels == [1] * 6
    assert sequence.opened_by is None


def test_headline_fitsteps3() -> None:
    """Stock Keras trains on 31 of 200 batches: with steps_per_epoch every epoch begins at index 0; row C6."""
    assert fit(Batches(200), steps_per_epoch=20, epochs=10).labels == [*range(200)]


@pytest.mark.parametrize("sync", [False, True])
def test_headline_level(sync: bool) -> None:
    """Stock Keras shows workers a callback's change in the next epoch, and never in this one; row C10.

    So do we, with the same workers in all epochs; `sync()` shows it in this one.
    """
    sequence = Levels()
    model = Recorder(lambda x: x[:, :4])
    levels = fit(sequence, model, epochs=3, callbacks=[RaisesTheLevel(sequence, sync)]).labels
    assert levels == ([0] * 3 + [1] * 6 + [2] * 6 + [3] * 3 if sync else [0] * 6 + [1] * 6 + [2] * 6)


def test_headline_leftover() -> None:
    """Stock Keras leaves the workers running when a callback raises; row B11."""
    with pytest.raises(RuntimeError, match="stop"):
        fit(Batches(100), callbacks=[Raising()])
    assert not psutil.Process().children(recursive=True)


STDIN = """
import keras, numpy as np
from keras_mpseq import SafeSequence, options
options.default_launcher = lambda: "spawn"
class Mine(SafeSequence):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return np.zeros((8, 4)), np.full((8, 1), index)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(Mine(workers=2, use_multiprocessing=True), verbose=0)
print("trained")
"""


def test_headline_stdin_cls(scripts: Scripts) -> None:
    """Stock Keras starts dying workers without end for a class that they cannot import (203 in 45 s); row A12."""
    assert scripts.run_python(["-"], stdin=STDIN) == "trained\n"


def test_headline_plain() -> None:
    """Stock Keras raises an InvalidArgumentError of TensorFlow with the trace in its text; now it is an object."""
    with pytest.raises(UserCodeError, match="ValueError: no label") as caught:
        fit(Raises(lambda: ValueError("no label")))
    assert caught.value.index == 3
    assert isinstance(caught.value.__cause__, ValueError)
    assert "in label" in caught.value.traceback


def test_headline_spawnlambda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Keras with spawn refuses a lambda without saying where it lies; here it travels, and a lock is named."""
    monkeypatch.setattr(options, "default_launcher", lambda: "spawn")
    assert fit(Unpicklable(lock=False)).labels == [0, 10, 20, 30, 40, 50]
    with pytest.raises(PayloadError, match=r"""seq\.tools\[['"]io['"]\]\[0\]"""):
        fit(Unpicklable(lock=True))


ORPHANING = """
import keras, signal
from tests.scenarios.sequences import Batches
class Say(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("training", flush=True)
        signal.pause()
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(Batches(100), verbose=0, callbacks=[Say()])
"""


def test_headline_sigint(scripts: Scripts) -> None:
    """Stock Keras gets this right: workers end within 3 s after the training process was killed."""
    script = scripts.start(ORPHANING)
    script.wait_for("training")
    workers = script.descendants()
    os.kill(script.process.pid, signal.SIGKILL)
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, PATIENCE_S)[1]
