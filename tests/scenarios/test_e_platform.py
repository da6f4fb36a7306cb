"""Rows E1 to E18: interfaces, pickling, platform, speed. Docstrings begin with what Keras 3.15.1 or its users saw."""

from __future__ import annotations

import fcntl
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest

import keras_mpseq
from keras_mpseq import Loader, PayloadError, SafeSequence, options
from tests.conftest import Scripts
from tests.scenarios.sequences import (
    Batches,
    Endless,
    HoldsFile,
    Inherits,
    OpensFile,
    Plain,
    VaryingLength,
    WithoutInit,
)
from tests.scenarios.training import Recorder, fit
from tests.test_parent_ends import LIGHT

# E3: test_headline_spawnlambda.
# E8: test_a06_a_slow_batch_is_waited_for, where one process waits for what only another can build.
# E9: test_large_batches_are_not_copied_on_their_way, test_b06_large_arrays_are_not_copied_for_each_worker.
# E10: test_elements_come_in_order_in_every_pass, test_each_partition_is_run_by_one_worker.
# E11: test_a_deleted_dataset, test_a_forked_process_that_iterates_is_told_so.
# E13: test_threads_may_share_a_loader, test_threads_may_share_an_iterator_of_tf_data.


@pytest.fixture(params=["template", "spawn"])
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start workers in one way and in the other."""
    monkeypatch.setattr(options, "default_launcher", lambda: request.param)
    name: str = request.param
    return name


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """An HDF5 file of labels."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["y"] = np.arange(6)
    return path


def test_e01_workers_as_arguments_of_fit() -> None:
    """fit() got an unexpected keyword argument 'workers'; what to write is now told, and the old spelling works."""
    old = {"workers": 2, "use_multiprocessing": True, "max_queue_size": 10}
    with pytest.raises(TypeError, match=r"write Batches\(\.\.\., workers=2, .* or keras_mpseq\.fit\(model, sequence"):
        fit(Batches(), **old)
    model = Recorder()
    keras_mpseq.fit(model, Batches(), shuffle=False, verbose=0, **old)
    assert model.seen.labels == [*range(6)]


def test_e02_without_super_init() -> None:
    """Stock Keras warns that super().__init__(**kwargs) is to be called, and has one worker."""
    model = Recorder()
    keras_mpseq.fit(model, WithoutInit(6), workers=2, shuffle=False, verbose=0)
    assert model.seen.labels == [*range(6)]


METHOD = """
import multiprocessing
from keras_mpseq import Loader
class Mine:
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return [self.scale(index)]
for method in (None, "forkserver", "spawn", "fork"):
    multiprocessing.set_start_method(method, force=True)
    mine = Mine()
    mine.scale = lambda x: 10 * x
    with Loader(mine, workers=2) as loader:
        assert [int(batch[0]) for batch in loader] == [0, 10, 20, 30]
        assert multiprocessing.active_children() == []
    assert multiprocessing.get_start_method(allow_none=True) == method
print("done")
"""


def test_e04_the_default_start_method_does_not_matter(scripts: Scripts) -> None:
    """Python 3.14 has another default, with which what worked does not pickle."""
    assert scripts.run(METHOD) == "done\n"


def test_e05_a_file_that_is_opened_before_workers_start(labelled: Path) -> None:
    """Stock Keras: workers share the handle and its position: wrong data, KeyError or OSError."""
    sequence = HoldsFile(labelled)
    with pytest.raises(PayloadError, match=r"seq\.file \(.*per_worker"):
        fit(sequence)
    sequence.file.close()


def test_e05_a_file_that_each_worker_opens(labelled: Path, launcher: str) -> None:
    """Stock Keras calls `ds[0]` before it forks: opening late, the usual advice, opens in the training process."""
    assert fit(OpensFile(labelled)).labels == [*range(6)]


def test_e06_files_of_callbacks_are_not_inherited(tmp_path: Path, launcher: str) -> None:
    """HDF5 cannot lock the checkpoint: Keras's forked workers hold the file of the epoch before, and its lock."""
    path = tmp_path / "model.h5"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert fit(Inherits(path)).labels == [0] * 6


def test_e07_any_class_with_the_two_methods() -> None:
    """keras.Sequence and tf.keras.Sequence were two classes, and `fit` took the wrong one for a generator."""
    model = Recorder()
    keras_mpseq.fit(model, Plain(), workers=2, shuffle=False, verbose=0)
    assert model.seen.labels == [*range(6)]


def test_e12_a_share_for_each_process_of_a_strategy() -> None:
    """Keras had no way to deal a Sequence among the processes of a distribution strategy."""
    shares: list[list[int]] = []
    for number in range(3):
        with Loader(Batches(9), workers=1, shard=(number, 3)) as loader:
            shares.append([int(y[0, 0]) for _, y in loader])
    assert sorted(itertools.chain(*shares)) == [*range(9)]
    assert [len(share) for share in shares] == [3, 3, 3]


def test_e14_an_endless_sequence_has_no_empty_epochs() -> None:
    """Keras before 3.5: every second epoch was empty, "your input ran out of data"."""
    assert fit(Endless(), steps_per_epoch=5, epochs=4).labels == [*range(20)]


def test_e15_no_warning_that_data_ran_out() -> None:
    """Keras warns "Your input ran out of data" where the length is unknown or changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(VaryingLength(), epochs=3).labels == [*range(6), *range(4), *range(9)]
        assert fit(Endless(), steps_per_epoch=3).labels == [0, 1, 2]


def test_e16_without_semaphores(scripts: Scripts, tmp_path: Path) -> None:
    """Stock Keras makes a semaphore for each queue: OSError where the system has none."""
    # Imported by every interpreter, the workers' too, before anything else.
    (tmp_path / "sitecustomize.py").write_text("import _multiprocessing; del _multiprocessing.SemLock")
    body = """
for launcher in ("template", "spawn"):
    with Loader(Sequence(), workers=2, launcher=launcher) as loader:
        assert len(list(loader)) == 50
try:
    import multiprocessing.synchronize
except ImportError:
    print("done")
"""
    assert scripts.checked(scripts.start(LIGHT + body, path=str(tmp_path))) == "done\n"


def test_e17_what_use_multiprocessing_means_is_written_down() -> None:
    """Stock Keras does not say what use_multiprocessing does."""
    assert SafeSequence.__doc__ is not None
    text = " ".join(SafeSequence.__doc__.split())
    assert (
        "use_multiprocessing: As in Keras. None and True mean processes; with False and `workers > 1` processes" in text
    )
    assert "workers: Processes that build batches. 0, or 1 without `use_multiprocessing`, means this process." in text


SERVED = """
import multiprocessing

def serve():
    with Loader(Sequence(), workers=2, launcher=launcher) as loader:
        assert len(list(loader)) == 50
    print("served", flush=True)

threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for launcher in ("template", "spawn"):
    # As gunicorn and celery do: forked from a process with threads, and daemons, which may have no children.
    process = multiprocessing.get_context("fork").Process(target=serve, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
"""


def test_e18_in_a_forked_server_with_threads(scripts: Scripts) -> None:
    """Stock Keras hangs in workers of gunicorn and celery: "daemonic processes are not allowed to have children"."""
    assert scripts.run(LIGHT + SERVED) == "served\n" * 2
