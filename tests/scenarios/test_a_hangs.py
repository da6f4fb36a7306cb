"""Rows A1 to A15: hangs and dead workers. The first line of each docstring says what Keras 3.15.1 or its users saw.

What hangs there hangs because a worker is a fork of a process that computes; most tests show that ours are none.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import psutil
import pytest

from keras_mpseq import PayloadError, UserCodeError, options
from tests.conftest import Scripts
from tests.scenarios.sequences import (
    LOCK,
    Batches,
    Environment,
    FailsToUnpickle,
    HasModule,
    Hooked,
    Multiplies,
    RaisesAtEpochEnd,
    TakesTheLock,
    UsesTensorFlow,
    WaitsForALaterBatch,
)
from tests.scenarios.training import Recorder, Stops, calls, fit, labels

# A5: test_headline_killed, test_headline_sysexit. A8: test_headline_badexc. A9: test_headline_none.
# A12: also test_headline_stdin_cls.

_forks: list[int] = []
os.register_at_fork(before=lambda: _forks.append(os.getpid()))


@pytest.fixture(params=["template", "spawn"])
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start workers in one way and in the other."""
    monkeypatch.setattr(options, "default_launcher", lambda: request.param)
    name: str = request.param
    return name


def test_a01_workers_inherit_no_locks(launcher: str) -> None:
    """Stock Keras forks while TensorFlow's threads hold locks, which then stay locked in the worker for ever."""
    with LOCK:
        assert fit(TakesTheLock(), epochs=2).labels == [1] * 12


def test_a01_workers_do_not_have_tensorflow(launcher: str) -> None:
    """Stock Keras's workers have all of the training process, TensorFlow without its threads among it."""
    assert fit(HasModule("tensorflow")).labels == [0] * 6


def test_a02_tensorflow_in_getitem() -> None:
    """Users of Keras waited for ever for an op in a forked worker, which lacks the threads; not always, as measured."""
    assert fit(UsesTensorFlow(workers=1)).labels == [4 * (index + 0.5) for index in range(6)]


def test_a03_workers_see_no_gpu(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Keras forks the CUDA context as well: CUDA_ERROR_NOT_INITIALIZED, or a freeze."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert fit(Environment({"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""})).labels == [1] * 6


def test_a04_the_training_process_is_not_forked(launcher: str) -> None:
    """Stock Keras forks at every epoch of training and of validation: "os.fork() is incompatible with ... JAX"."""
    before = len(_forks)
    fit(Batches(), epochs=2, validation_data=Batches())
    assert _forks[before:] == []


BACKEND = """
import keras
from tests.scenarios.sequences import Batches
def losses(workers):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.001), "mse")
    return model.fit(Batches(workers=workers), epochs=3, verbose=0, validation_data=Batches(workers=workers)).history
assert losses(2) == losses(0)
print(keras.backend.backend())
"""


def _trains_on(backend: str, scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether three shuffled epochs with workers end, and in the losses of those without."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    return scripts.run(BACKEND) == f"{backend}\n"  # And without a warning, which stderr would have.


def test_a04_jax(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Keras on JAX: stuck, after a warning that os.fork() does not go with JAX's threads."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert _trains_on("jax", scripts, monkeypatch)


def test_a06_a_slow_batch_is_waited_for(tmp_path: Path) -> None:
    """Keras 2 gave a worker 30 s, then built the batch again in the training process, and hung an epoch later."""
    os.mkfifo(tmp_path / "pipe")
    log = tmp_path / "log"
    assert fit(WaitsForALaterBatch(tmp_path / "pipe", log=log)).labels == [*range(10)]
    assert sorted(index for index, _ in calls(log)) == [*range(10)]
    assert os.getpid() not in {pid for _, pid in calls(log)}
    assert options.checked(Batches(), workers=2).limits.timeout is None


@pytest.mark.parametrize("workers", [0, 2])
def test_a07_on_epoch_end_raises(workers: int) -> None:
    """Keras before 3.4 waited for ever: the exception was raised in a thread that nobody asked."""
    with pytest.raises(UserCodeError, match="on_epoch_end raised RuntimeError: no more files") as caught:
        fit(RaisesAtEpochEnd(workers=workers), epochs=2)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a10_an_epoch_that_is_not_read_to_its_end() -> None:
    """Keras 3.6 waited for ever at the end of an epoch whose iterator had not been read to its end."""
    sequence, model = Hooked(), Recorder()
    fit(sequence, model, epochs=3, callbacks=[Stops()])
    fit(sequence, model, epochs=2)
    assert sequence.hooks == [f"{hook} {epoch}" for epoch in (0, 1, 2) for hook in ("begin", "end")]
    assert model.seen.labels == [1] * 3 + [2] * 6 + [3] * 6


def test_a10_torch(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras 3.6 on torch waited for ever at the end of the first epoch; 3.15 loses batches of a shuffled one."""
    assert _trains_on("torch", scripts, monkeypatch)


def test_a11_training_and_validation_both_have_workers(tmp_path: Path) -> None:
    """Keras hung in validation: its workers were forked, every epoch anew, while those of training ran."""
    model = Recorder()
    training, validation = Batches(log=tmp_path / "training"), Batches(4, log=tmp_path / "validation")
    fit(training, model, epochs=3, validation_data=validation)
    assert (model.seen.labels, labels(model.seen.tested)) == ([*range(6)] * 3, [*range(4)] * 3)
    for log in (training.log, validation.log):
        assert log is not None and len({pid for _, pid in calls(log)}) <= 2  # The same workers in all epochs.


def test_a12_a_sequence_that_does_not_unpickle(launcher: str) -> None:
    """Stock Keras with spawn starts one dying worker after the other and waits for ever."""
    with pytest.raises(
        PayloadError, match=r"Unpickling the sequence in a worker raised FileNotFoundError: labels\.csv"
    ):
        fit(FailsToUnpickle())


UNGUARDED = """
import keras
from keras_mpseq import options
from tests.scenarios.sequences import Batches
options.default_launcher = lambda: "spawn"
print("imported")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(Batches(), verbose=0)
"""


def test_a13_a_script_without_main_guard(scripts: Scripts) -> None:
    """Stock Keras with spawn runs the script again in each worker: "before ... its bootstrapping phase"."""
    assert scripts.run(UNGUARDED) == "imported\n"


def test_a14_workers_do_not_start_threads(launcher: str) -> None:
    """Stock Keras's workers inherit OpenCV's and OpenMP's pools of threads without the threads: cv2.resize hangs."""
    assert fit(Multiplies()).labels == [1] * 6
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    assert fit(Environment(threads)).labels == [1] * 6


LEAVES = """
import keras, sys
from tests.scenarios.sequences import Batches
class Leaves(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        sys.exit()
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(Batches(1000), verbose=0, validation_data=Batches(), callbacks=[Leaves()])
"""


def test_a15_the_process_exits(scripts: Scripts) -> None:
    """Keras's threads and workers kept the process, and its GPU memory, after the script's end."""
    assert scripts.run(LEAVES) == ""
    assert not psutil.Process().children(recursive=True)
