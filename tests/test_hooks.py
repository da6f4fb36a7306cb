"""Hooks run when, where and as often as promised; state that they and the consumer change reaches the workers."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

from keras_mpseq import (
    Loader,
    SafeSequence,
    SequenceLengthError,
    StatefulGetitemError,
    UserCodeError,
    get_worker_info,
    per_worker,
    to_dataset,
)
from keras_mpseq.epochs import Begun, Epochs
from tests.conftest import alarm, open_targets
from tests.sequences import (
    Calling,
    Counting,
    Endless,
    Hooked,
    NoInit,
    OwnState,
    Raising,
    Resourceful,
    Shared,
    frozen,
)

WORKERS = pytest.mark.parametrize("workers", [0, 2])
LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def warm_tensorflow() -> None:
    """Let TensorFlow open what it opens once, before the leak fixture looks."""
    dataset = tf.data.Dataset.from_generator(lambda: iter(range(3)), output_signature=tf.TensorSpec((), tf.int32))
    list(dataset.prefetch(1))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def lines(log: Path, *kinds: str) -> list[list[str]]:
    """Return the logged lines of some kinds, as words."""
    words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in words if line[0] in kinds]


def epochs_logged(log: Path) -> list[str]:
    """Return what hooks of epochs logged, all of it in this process."""
    found = lines(log, "begin", "end")
    assert {pid for *_, pid in found} <= {str(os.getpid())}
    return [f"{kind} {epoch}" for kind, epoch, _ in found]


def pairs(count: int) -> list[str]:
    return [f"{kind} {epoch}" for epoch in range(count) for kind in ("begin", "end")]


# --- hooks of epochs --------------------------------------------------------------------------------


@WORKERS
def test_once_for_each_full_epoch_of_a_loader(log: Path, workers: int) -> None:
    with Loader(Hooked(log), workers=workers) as loader:
        assert epochs_logged(log) == []
        for count in range(1, 4):
            iterator = iter(loader)
            assert epochs_logged(log) == [*pairs(count - 1), f"begin {count - 1}"]
            list(iterator)
            assert epochs_logged(log) == pairs(count)
            assert list(iterator) == []
    assert epochs_logged(log) == pairs(3)


@WORKERS
def test_once_for_each_epoch_that_is_given_up(log: Path, workers: int) -> None:
    with Loader(Hooked(log), workers=workers) as loader:
        for _ in loader:
            break
        iterator = iter(loader)
        assert epochs_logged(log) == [*pairs(1), "begin 1"]
        next(iterator)
        iterator.close()
        iterator.close()
        assert epochs_logged(log) == pairs(2)
        iter(loader)
        for _ in itertools.islice(loader, 2):
            pass
        gc.collect()
        list(loader)
        assert sorted(epochs_logged(log)) == sorted(pairs(5))
        assert epochs_logged(log)[-2:] == ["begin 4", "end 4"]
        next(iter(loader))
    assert epochs_logged(log) == [*epochs_logged(log)[:10], "begin 5", "end 5"]


@WORKERS
def test_once_for_each_epoch_that_is_open_when_the_loader_is_closed(log: Path, workers: int) -> None:
    with Loader(Hooked(log), workers=workers) as loader:
        iterators = [iter(loader) for _ in range(3)]
        next(iterators[0])
    assert epochs_logged(log)[:3] == ["begin 0", "begin 1", "begin 2"]
    del iterators
    gc.collect()
    loader.close()
    assert sorted(epochs_logged(log)[3:]) in ([], ["end 0", "end 1", "end 2"])


@WORKERS
def test_an_epoch_that_ended_with_an_error_has_no_end(log: Path, workers: int) -> None:
    class Broken(Hooked):
        def __getitem__(self, index: int) -> Any:
            if index == 2 and self.epoch == 1:
                raise ValueError("broken")
            return super().__getitem__(index)

    with Loader(Broken(log), workers=workers) as loader:
        list(loader)
        with pytest.raises(UserCodeError):
            list(loader)
        list(loader)
    assert epochs_logged(log) == [*pairs(1), "begin 1", "begin 2", "end 2"]


@WORKERS
@pytest.mark.parametrize(
    ("transform", "epochs"),
    [
        (lambda d: d, 1),
        (lambda d: d.repeat(3), 3),
        (lambda d: d.take(3), 1),
        (lambda d: d.take(3).repeat(3), 3),
        (lambda d: d.repeat().take(13), 3),
        (lambda d: d.cache().repeat(3), 1),
        (lambda d: d.prefetch(2), 1),
        (lambda d: tf.data.Dataset.zip((d, d)), 2),
        (lambda d: d.concatenate(d), 2),
    ],
)
def test_once_for_each_epoch_of_a_dataset(log: Path, transform: Any, epochs: int, workers: int) -> None:
    dataset = transform(to_dataset(Hooked(log), workers=workers))
    assert epochs_logged(log) == ["begin 0"]  # The first batch was built, for the element spec.
    list(dataset)
    del dataset
    gc.collect()
    logged = epochs_logged(log)
    assert sorted(logged) == sorted(pairs(epochs))
    for epoch in range(epochs):
        assert logged.index(f"begin {epoch}") < logged.index(f"end {epoch}")


@WORKERS
def test_once_for_each_epoch_of_a_dataset_that_is_given_up(log: Path, workers: int) -> None:
    dataset = to_dataset(Hooked(log), workers=workers)
    for count in range(1, 4):
        for _ in dataset:
            break
        gc.collect()
        logged = epochs_logged(log)
        assert logged[:-1] == [*pairs(count - 1), f"begin {count - 1}"] and logged[-1] == f"end {count - 1}"
    for _ in zip(dataset, dataset, strict=True):
        pass
    assert sorted(epochs_logged(log)) == sorted(pairs(5))


def test_a_dataset_with_a_declared_spec_begins_no_epoch_before_it_is_iterated(log: Path) -> None:
    dataset = to_dataset(Hooked(log), workers=2, element_spec=tf.TensorSpec((7,), tf.float64))
    assert epochs_logged(log) == []
    list(dataset)
    assert epochs_logged(log) == pairs(1)


def test_a_dataset_that_is_never_iterated_ends_the_epoch_of_its_first_batch(log: Path) -> None:
    dataset = to_dataset(Hooked(log), workers=2)
    del dataset
    gc.collect()
    assert epochs_logged(log) == pairs(1)


@WORKERS
def test_endless_epochs_begin_and_end(log: Path, workers: int) -> None:
    class Logged(Endless):
        on_epoch_begin, on_epoch_end = Hooked.on_epoch_begin, Hooked.on_epoch_end
        begun = grow_by = batches = 0

        def __init__(self) -> None:
            super().__init__()
            self.log = str(log)
            self.small, self.big = np.zeros(1), np.zeros(1)

    sequence = Logged()
    list(to_dataset(sequence, workers=workers).take(10).repeat(2))
    gc.collect()
    assert epochs_logged(log) == pairs(2)


@WORKERS
@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
def test_a_hook_that_raises_is_told_by_name_and_the_next_epoch_works(hook: str, workers: int) -> None:
    class Failing(Counting):
        fails = True

        def _hook(self) -> None:
            if self.fails:
                raise KeyError("of the user")

    setattr(Failing, hook, Failing._hook)
    sequence = Failing(4)
    with Loader(sequence, workers=workers) as loader:
        with pytest.raises(UserCodeError, match=f"^{hook} raised KeyError: 'of the user'") as caught:
            list(loader)
        assert isinstance(caught.value.__cause__, KeyError)
        sequence.fails = False
        assert [int(batch[0, 0]) for batch in loader] == [1000, 1001, 1002, 1003]


def test_epoch_is_right_in_hooks_in_batches_and_between(log: Path) -> None:
    sequence = Hooked(log)
    assert sequence.epoch == 0
    with Loader(sequence, workers=2) as loader:
        for epoch in range(3):
            assert {batch[1] for batch in loader} == {epoch}
            assert sequence.epoch == epoch
            assert sequence[0][1] == epoch
    assert epochs_logged(log) == pairs(3)


# --- state ------------------------------------------------------------------------------------------


@WORKERS
@LAUNCHERS
def test_changes_between_epochs_arrive(log: Path, workers: int, launcher: str) -> None:
    sequence = Hooked(log)
    with Loader(sequence, workers=workers, launcher=launcher) as loader:
        for epoch in range(4):
            sequence.small[0] = 10 * epoch
            sequence.big[0] = 100 * epoch
            got = np.array(list(loader))
            assert got[:, 0].tolist() == list(range(6))
            count = epoch + 1  # Of calls of on_epoch_begin, which adds 1 to three things.
            assert (got[:, 1:] == [epoch, count, 10 * epoch, count, 100 * epoch, count]).all(), epoch


@WORKERS
def test_changes_between_epochs_arrive_through_a_dataset(log: Path, workers: int) -> None:
    sequence = Hooked(log)
    dataset = to_dataset(sequence, workers=workers)
    for epoch in range(3):
        sequence.small[0] = sequence.big[0] = 10 * epoch + 1  # Epoch 0: after its first batch was built already.
        got = np.array(list(dataset.as_numpy_iterator()))
        assert (got[:, 1:] == [epoch, epoch + 1, 10 * epoch + 1, epoch + 1, 10 * epoch + 1, epoch + 1]).all(), epoch


def test_every_kind_of_change_arrives(log: Path) -> None:
    class State:
        def __init__(self) -> None:
            self.values = [0]

    state = State()
    sequence = Calling(lambda index: np.int64(state.values[-1]))
    big = np.zeros(MIB // 8)
    view = big[10:]
    frozen_view = big.view()
    frozen_view.flags.writeable = False
    holder = Shared(
        {"frozen": frozen_view, "strided": big[::2][::1], "fortran": np.asfortranarray(np.zeros((512, 512)))}
    )
    with Loader(sequence, workers=2) as loader, Loader(holder, workers=2) as other:
        for change in range(1, 4):
            state.values.append(change)  # Deep inside a closure.
            view[0] = change  # Through a view that nobody sent.
            holder.arrays["fortran"][1, 2] = change
            assert [int(batch) for batch in loader] == [change] * 4
            for batch in other:
                assert {name: float(part["sum"]) for name, part in batch.items()} == {
                    "frozen": change,
                    "strided": change,
                    "fortran": change,
                }


def test_state_that_changes_back_and_forth_takes_no_more_memory() -> None:
    arrays = {"a": np.zeros(MIB // 8), "b": np.zeros(MIB // 4)}
    sequence = Shared(arrays)
    with Loader(sequence, workers=2) as loader:
        counts, opened = [], []
        for epoch in range(14):
            arrays["a"][0] = epoch % 3
            assert {float(batch["a"]["sum"]) for batch in loader} == {epoch % 3}
            counts.append(len(open_targets()))
            opened.append([process.num_fds() for process in psutil.Process().children(recursive=True)])
            assert loader.stats().bytes_shared == 3 * MIB
        assert len(set(counts[2:])) == 1
        # A worker that has not heard yet that a version may go has four descriptors more: two for each of two parts.
        assert all(last <= early + 4 for early, last in zip(opened[2], opened[-1], strict=True)), opened


def test_epochs_that_begin_in_two_threads_have_each_its_own_state(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = threading.Event()
    other: list[Any] = []
    begin = Epochs.begin

    def begin_two(epochs: Epochs) -> Begun:
        begun = begin(epochs)
        if begun.number:
            began.set()
        else:  # After the hook, and before the state that it left is sent.
            thread.start()
            began.wait(0.2)  # In vain: the other has to wait.
        return begun

    monkeypatch.setattr(Epochs, "begin", begin_two)
    with Loader(Hooked(log), workers=2) as loader, alarm("The threads wait for each other."):
        thread = threading.Thread(target=lambda: other.extend(loader))
        mine = list(loader)
        thread.join()
    assert [set(batch[1:].tolist()) for batch in mine] == [{0, 1}] * 6
    assert [batch[1:3].tolist() for batch in other] == [[1, 2]] * 6


def test_an_epoch_keeps_the_state_that_it_began_with() -> None:
    sequence = Counting(30, (2,))
    with Loader(sequence, workers=2, prefetch=1) as loader:
        first = iter(loader)
        shapes = [next(first).shape]
        sequence.shape = (3,)
        second = iter(loader)
        shapes_second = [next(second).shape]
        sequence.shape = (4,)
        shapes += [batch.shape for batch in first]
        shapes_second += [batch.shape for batch in second]
        assert (set(shapes), set(shapes_second)) == ({(2,)}, {(3,)})
        assert {batch.shape for batch in loader} == {(4,)}


@WORKERS
def test_a_hook_may_change_the_length(log: Path, workers: int) -> None:
    sequence = Hooked(log)
    sequence.grow_by = 1
    with Loader(sequence, workers=workers, shuffle=True) as loader:
        for epoch in range(3):
            assert sorted(batch[0] for batch in loader) == list(range(7 + epoch))
            assert len(loader) == 7 + epoch


@WORKERS
def test_a_hook_may_change_the_length_of_a_dataset_if_told(log: Path, workers: int) -> None:
    sequence = Hooked(log)
    dataset = to_dataset(sequence, workers=workers, varying_length=True)
    assert [len(list(dataset)) for _ in range(2)] == [6, 6]
    sequence.grow_by = 2
    assert [len(list(dataset)) for _ in range(2)] == [8, 10]
    fixed = to_dataset(Hooked(log), workers=workers)
    list(fixed)


@WORKERS
def test_a_hook_that_changes_the_length_of_a_dataset_otherwise_is_an_error(log: Path, workers: int) -> None:
    sequence = Hooked(log)
    dataset = to_dataset(sequence, workers=workers)
    list(dataset)
    sequence.grow_by = 1
    with pytest.raises(tf.errors.OpError, match="had 6 batches when the dataset was made and has 7 now") as caught:
        list(dataset)
    assert "SequenceLengthError" in str(caught.value)
    assert "varying_length=True" in str(caught.value)


@WORKERS
def test_a_length_that_changes_during_an_epoch_is_an_error(workers: int) -> None:
    sequence = Counting(5)
    with Loader(sequence, workers=workers) as loader:
        iterator = iter(loader)
        next(iterator)
        sequence.batches = 6
        with pytest.raises(SequenceLengthError, match="changed from 5 to 6 during epoch 0"):
            list(iterator)
        assert len(list(loader)) == 6


# --- hooks of workers -------------------------------------------------------------------------------


@LAUNCHERS
def test_worker_hooks_run_once_in_each_worker(log: Path, launcher: str) -> None:
    with Loader(Hooked(log), workers=3, launcher=launcher) as loader:
        for _ in range(3):
            list(loader)
        assert lines(log, "stop") == []
    started = lines(log, "start")  # One may have started after the others had built all there was.
    assert sorted(number for _, number, _ in started) == ["0", "1", "2"]
    pids = {pid for *_, pid in started}
    assert len(pids) == 3 and str(os.getpid()) not in pids
    assert sorted(pid for _, pid in lines(log, "stop")) == sorted(pids)


def test_worker_hooks_run_once_in_this_process_without_workers(log: Path) -> None:
    with Loader(Hooked(log), workers=0) as loader:
        assert lines(log, "start") == []
        for _ in range(3):
            list(loader)
        assert lines(log, "start") == [["start", "0", str(os.getpid())]]
        assert lines(log, "stop") == []
    assert lines(log, "stop") == [["stop", str(os.getpid())]]


@LAUNCHERS
def test_a_replaced_worker_starts_with_the_number_of_its_predecessor(log: Path, launcher: str) -> None:
    with Loader(Hooked(log), workers=2, launcher=launcher) as loader:
        list(loader)
        with alarm("The second worker does not start."):
            while len(lines(log, "start")) < 2:  # An epoch does not wait for it.
                time.sleep(0.01)
        victim = lines(log, "start")[1]
        psutil.Process(int(victim[2])).send_signal(signal.SIGKILL)
        list(loader)
        list(loader)
    started = lines(log, "start")
    assert [number for _, number, _ in started[2:]] == [victim[1]]
    assert len({pid for *_, pid in started}) == 3
    assert sorted(pid for _, pid in lines(log, "stop")) == sorted(pid for *_, pid in started if pid != victim[2])


@WORKERS
def test_attributes_set_in_a_worker_survive_changes_of_the_state(workers: int) -> None:
    sequence = OwnState()
    with Loader(sequence, workers=workers) as loader:
        for epoch in range(4):
            sequence.state = epoch
            for index, batch in enumerate(loader):
                assert batch[:2].tolist() == [index, epoch]
                _, _, mine, info, cached = batch.tolist()
                assert mine == cached
                assert (mine, info) == (0, -2) if workers == 0 else mine == info in (0, 1)
    assert (sequence.mine, sequence.cache) == ((-1, None) if workers else (0, {"worker": 0}))


def test_worker_info() -> None:
    assert get_worker_info() is None
    with Loader(Calling(lambda index: np.array(get_worker_info())), workers=3, seed=5) as loader:
        for worker, workers, seed in loader:
            assert worker in (0, 1, 2)
            assert (workers, seed) == (3, 5)
    assert get_worker_info() is None


def test_hooks_are_optional() -> None:
    class Plain:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return np.array([index])

    for workers in (0, 2):
        with Loader(Plain(), workers=workers) as loader:
            assert [batch[0] for batch in loader] == [0, 1, 2]


# --- per_worker -------------------------------------------------------------------------------------


@LAUNCHERS
def test_resources_are_built_once_in_each_worker_and_closed_last_built_first(log: Path, launcher: str) -> None:
    sequence = Resourceful(log)
    with Loader(sequence, workers=2, launcher=launcher) as loader:
        uses: dict[int, int] = {}
        for epoch in range(4):
            sequence.state = epoch  # A new version of the sequence goes on with the worker's resources.
            for index, batch in enumerate(loader):
                assert batch[:2].tolist() == [index, epoch]
                _, _, pid, used = batch.tolist()
                uses[pid] = max(uses.get(pid, 0), used)
        assert sum(uses.values()) == 40
        assert str(os.getpid()) not in map(str, uses)
    for pid in map(str, uses):
        assert [line[:2] for line in lines(log, "open", "close") if line[2] == pid] == [
            ["open", "file"],
            ["open", "cursor"],
            ["close", "cursor"],
            ["close", "file"],
        ]
    assert len(lines(log, "open", "close")) == 4 * len(uses)


def test_resources_without_workers_are_closed_with_the_loader(log: Path) -> None:
    with Loader(Resourceful(log), workers=0) as loader:
        list(loader)
        assert [int(batch[3]) for batch in loader] == list(range(11, 21))
        assert lines(log, "close") == []
    assert [line[:2] for line in lines(log, "open", "close")] == [
        ["open", "file"],
        ["open", "cursor"],
        ["close", "cursor"],
        ["close", "file"],
    ]


def test_resources_of_this_process_do_not_travel(log: Path) -> None:
    sequence = Resourceful(log)
    assert sequence[0][3] == 1
    with Loader(sequence, workers=1) as loader:
        assert [int(batch[3]) for batch in loader] == list(range(1, 11))
        assert sequence[0][3] == 2
    # The pool closes what its sequence opened here as well; it is opened again when needed.
    assert [line[2] == str(os.getpid()) for line in lines(log, "close")].count(True) == 2
    assert sequence[0][3] == 1
    sequence.file.close()


@LAUNCHERS
def test_resources_are_built_again_in_a_replaced_worker(log: Path, tmp_path: Path, launcher: str) -> None:
    sequence = Resourceful(log, kill_at=5, marker=tmp_path / "killed")
    with Loader(sequence, workers=1, launcher=launcher) as loader:
        got = [batch.tolist() for batch in loader]
        assert [index for index, *_ in got] == list(range(10))
        assert loader.stats().restarts == 1
        pids = [pid for _, _, pid, _ in got]
        assert len(set(pids)) == 2
        assert [used for _, _, pid, used in got if pid == pids[-1]] == list(range(1, 1 + pids.count(pids[-1])))
    opened = [pid for kind, _, pid in lines(log, "open")]
    assert [opened.count(str(pid)) for pid in dict.fromkeys(pids)] == [2, 2]
    assert {pid for _, _, pid in lines(log, "close")} == {str(pids[-1])}  # The killed one could not.


def test_a_resource_that_does_not_close_is_told_and_the_others_are_closed(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Resourceful):
        @per_worker
        def third(self) -> Any:
            assert self.cursor
            yield 3
            raise OSError("of the user")

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) * self.third

    with caplog.at_level(logging.WARNING, "keras_mpseq"), Loader(Stubborn(log), workers=1) as loader:
        list(loader)
    assert "Worker 0 did not stop in good order: " in caplog.text
    assert "OSError: of the user" in caplog.text
    assert [name for _, name, _ in lines(log, "close")] == ["cursor", "file"]


def test_a_resource_cannot_be_assigned(log: Path) -> None:
    with pytest.raises(AttributeError, match=r"^Resourceful\.file is a per_worker resource: .* cannot be assigned\.$"):
        Resourceful(log).file = 3
    assert isinstance(Resourceful.file, per_worker)


# --- the base class ---------------------------------------------------------------------------------


def test_a_safe_sequence_is_a_real_keras_sequence() -> None:
    for cls in (keras.utils.PyDataset, keras.utils.Sequence, tf.keras.utils.PyDataset, tf.keras.utils.Sequence):
        assert issubclass(SafeSequence, cls)
        assert isinstance(Counting(), cls)
        assert isinstance(NoInit(3), cls)


@WORKERS
def test_a_subclass_need_not_call_init(workers: int) -> None:
    sequence = NoInit(5)
    assert (sequence.workers, sequence.use_multiprocessing, sequence.max_queue_size) == (1, False, 10) or (
        sequence.use_multiprocessing is None
    )
    assert (sequence.seed, sequence.epoch, sequence.num_batches, len(sequence)) == (0, 0, 5, 5)
    with Loader(sequence, workers=workers, seed=2) as loader:
        epochs = [[frozen(batch) for batch in loader] for _ in range(2)]
    with Loader(NoInit(5), workers=0, seed=2) as loader:
        assert epochs == [[frozen(batch) for batch in loader] for _ in range(2)]
    assert sequence.workers == 1


def test_rng_depends_on_seed_epoch_and_index_only() -> None:
    draws = {
        (seed, index): tuple(Counting(seed=seed).rng(index).integers(0, 1 << 60, 4))
        for seed, index in itertools.product(range(4), repeat=2)
    }
    assert len(set(draws.values())) == 16
    sequence = Counting(seed=1)
    assert tuple(sequence.rng(2).integers(0, 1 << 60, 4)) == draws[1, 2]
    assert tuple(sequence.rng(np.int32(2)).integers(0, 1 << 60, 4)) == draws[1, 2]


# --- what is shared ---------------------------------------------------------------------------------


@LAUNCHERS
def test_large_arrays_are_shared_and_read_only_in_workers(launcher: str) -> None:
    arrays = {
        "exactly": np.ones(MIB // 8),
        "large": np.arange(MIB, dtype=np.float32).reshape(1024, -1),
        "below": np.ones(MIB // 8 - 1),
        "small": np.ones(3),
    }
    with Loader(Shared(arrays), workers=2, launcher=launcher) as loader:
        batches = list(loader)
        stats = loader.stats()
    for batch in batches:
        for name, array in arrays.items():
            part = batch[name]
            assert part["sum"] == array.sum(dtype=np.float64)
            shared = name in ("exactly", "large")
            assert (bool(part["writeable"]), part["inode"] != 0) == (not shared, shared), name
    # The same file, so the same memory, in every worker.
    assert len({int(batch["large"]["inode"]) for batch in batches}) == 1
    assert stats.bytes_shared == 5 * MIB
    assert MIB < stats.bytes_pickled < 1.1 * MIB  # "below", which every worker has for itself.
    assert all(array.flags.writeable for array in arrays.values())


def test_stats_without_workers_share_and_pickle_nothing() -> None:
    with Loader(Shared({"large": np.ones(MIB)}), workers=0) as loader:
        list(loader)
        stats = loader.stats()
    assert (stats.workers, stats.batches, stats.bytes_shared, stats.bytes_pickled, stats.slots) == (0, 4, 0, 0, 0)


def test_stats_count() -> None:
    with Loader(Raising(at=3, batches=6), workers=2, on_error="skip") as loader:
        assert len(list(loader)) == 5
        assert len(list(loader)) == 5
        stats = loader.stats()
    assert (stats.workers, stats.batches, stats.skipped, stats.restarts) == (2, 10, 2, 0)
    assert stats.waited_s > 0
    assert stats.slots >= 2
    assert stats.bytes_slots > 0


def test_writing_to_a_shared_array_is_an_error_with_a_remedy() -> None:
    big = np.zeros(MIB)

    def write(index: int) -> Any:
        big[index] += 1
        return big[:4]

    with Loader(Calling(write), workers=1) as loader, pytest.raises(StatefulGetitemError, match=r"\.copy\(\)"):
        list(loader)
    assert not big.any()


@LAUNCHERS
def test_memmaps_stay_memmaps(tmp_path: Path, launcher: str) -> None:
    path = tmp_path / "data.bin"
    data = np.memmap(path, np.float64, "w+", shape=(4, MIB // 8))
    data[:] = np.arange(4)[:, None]
    data.flush()
    sequence = Shared({"whole": data, "part": data[2:3], "small": data[3, :5]})
    with Loader(sequence, workers=2, launcher=launcher) as loader:
        for batch in loader:
            assert {name: float(part["sum"]) for name, part in batch.items()} == {
                "whole": 6 * MIB / 8,
                "part": 2 * MIB / 8,
                "small": 15,
            }
            assert all(part["memmap"] and part["inode"] == 0 and not part["writeable"] for part in batch.values())
        stats = loader.stats()
        assert stats.bytes_shared == 0
        assert stats.bytes_pickled < 10_000
        data[3, 0] = 8  # The workers look at the same file.
        assert {float(batch["small"]["sum"]) for batch in loader} == {20.0}
