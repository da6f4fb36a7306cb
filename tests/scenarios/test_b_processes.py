"""Rows B1 to B12: memory and processes. The first line of each docstring says what Keras 3.15.1 or its users saw."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest

from keras_mpseq import Loader, options, to_dataset
from tests.conftest import Scripts
from tests.scenarios.sequences import Batches, HasArray, Killed, Mapped, SeesGpus
from tests.scenarios.training import calls, fit
from tests.sequences import Counting
from tests.test_parent_ends import LIGHT

# B4: test_ctrl_c, test_ctrl_c_under_tensorflow. B11: test_headline_leftover.
# B12 on a GPU cannot run here, there is none: what hides it from the workers is tested.

LARGE = (64, 64, 16)
"""256 KiB."""


@pytest.fixture(params=["template", "spawn"])
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start workers in one way and in the other."""
    monkeypatch.setattr(options, "default_launcher", lambda: request.param)
    name: str = request.param
    return name


class Looks(keras.callbacks.Callback):
    """Notes what *look* returns, at the end of each epoch."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look
        self.seen: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(self.look())


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_b01_memory_does_not_grow_with_epochs() -> None:
    """Keras made a pool and a queue for each epoch, and what was left in them stayed."""
    with Loader(Counting(10, LARGE), workers=2) as loader:
        tracemalloc.start()
        try:
            sizes = []
            for epoch in range(60):
                for _ in loader:
                    pass
                if epoch % 20 == 19:
                    gc.collect()
                    sizes.append((tracemalloc.get_traced_memory()[0], loader.stats().bytes_slots))
        finally:
            tracemalloc.stop()
    heap, slots = zip(*sizes, strict=True)
    assert len(set(slots)) == 1
    assert heap[-1] - heap[0] < 1 << 16  # A batch is four times that, and there were 400.


def test_b02_processes_do_not_become_more(launcher: str) -> None:
    """Keras made a pool for each validation: 109 processes after 277 epochs."""
    looks = Looks(lambda: {process.pid for process in _descendants()})
    fit(Batches(), epochs=4, validation_data=Batches(4), callbacks=[looks])
    assert len(looks.seen[0]) == (6 if launcher == "template" else 4)
    assert looks.seen == [looks.seen[0]] * 4


def test_b03_no_zombies(launcher: str, tmp_path: Path) -> None:
    """Stock Keras does not wait for workers that have ended: `<defunct>` for the life of the training."""
    looks = Looks(lambda: [process.status() for process in _descendants()])
    assert fit(Killed(tmp_path / "marker"), epochs=2, callbacks=[looks]).labels == [*range(6)] * 2
    assert psutil.STATUS_ZOMBIE not in {status for epoch in looks.seen for status in epoch}
    assert not _descendants()


def test_b05_nothing_is_built_while_callbacks_run(tmp_path: Path) -> None:
    """Keras's workers went on while callbacks ran at the end of an epoch, and both together needed too much memory."""
    log = tmp_path / "log"
    looks = Looks(lambda: len(calls(log)))
    fit(Batches(log=log), epochs=3, callbacks=[looks])
    assert looks.seen == [6, 12, 18]


def test_b06_large_arrays_are_not_copied_for_each_worker(launcher: str) -> None:
    """Stock Keras with spawn pickles the whole data set into each worker."""
    found = fit(HasArray(np.ones((1 << 20,), np.float32), batches=20)).labels
    assert len(set(found)) == 1 and found[0] >= 0  # All in one file, in whatever worker.


def test_b07_more_than_a_pickle_of_old_can_hold(launcher: str, tmp_path: Path) -> None:
    """OverflowError: cannot serialize a bytes object larger than 4 GiB."""
    path = tmp_path / "data"
    with path.open("wb") as file:
        file.truncate((5 << 30) + 1)
        file.seek(5 << 30)
        file.write(b"\7")
    assert fit(Mapped(path)).labels == [7, 8, 9, 10, 11, 12]


def test_b08_batches_ahead_are_bounded_in_bytes() -> None:
    """max_queue_size bounds batches and not bytes."""
    with Loader(Counting(40, LARGE), workers=2, prefetch=30, max_bytes=2 << 20) as loader:
        batches = iter(loader)
        assert [int(next(batches).flat[0]) for _ in range(3)] == [0, 1, 2]
        assert sum(1 for _ in batches) == 37
        assert 1 << 20 < loader.stats().bytes_slots <= 2 << 20


SEMAPHORES = """
from multiprocessing import resource_tracker
before = set(os.listdir("/dev/shm"))
for launcher in ("template", "spawn"):
    for _ in range(3):
        with Loader(Sequence(1 << 16), workers=2, launcher=launcher) as loader:
            assert len(list(loader)) == 50
            assert set(os.listdir("/dev/shm")) <= before
assert resource_tracker._resource_tracker._pid is None
"""


def test_b09_no_semaphores_are_left(scripts: Scripts) -> None:
    """resource_tracker: There appear to be 12 leaked semaphore objects to clean up at shutdown."""
    assert scripts.run(LIGHT + SEMAPHORES) == ""


def test_b10_datasets_that_are_dropped_leave_nothing() -> None:
    """TensorFlow keeps the function of every from_generator for ever, and with it what the function holds."""
    dead = []
    for _ in range(5):
        sequence = Counting(10)
        dead.append(weakref.ref(sequence))
        for _ in to_dataset(sequence, workers=1).take(2):
            pass
    del sequence
    gc.collect()
    assert [one() for one in dead] == [None] * 5


def test_b12_gpus_are_hidden_before_anything_is_imported(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Keras with spawn: each worker initialises CUDA and takes memory of the GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert fit(SeesGpus()).labels == [1] * 6
