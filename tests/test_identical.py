"""The same batches, bit for bit: for any number of workers, partition, launcher and order, and after deaths."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from keras_mpseq import Loader, SafeSequence, WorkerLostError, to_dataset
from tests.sequences import KILL_SELF, KILL_TEMPLATE, Counting, DiesOfItsTemplate, DiesOnce, Draws, LargeDraws, frozen

SEED = 7
EPOCHS = 3
Epochs = list[list[Any]]
LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])


def epochs_of(sequence: SafeSequence, **options: Any) -> Epochs:
    """Return all batches of three epochs, frozen."""
    with Loader(sequence, **{"seed": SEED, "shuffle": True, **options}) as loader:
        return [[frozen(batch) for batch in loader] for _ in range(EPOCHS)]


def indices(epoch: list[Any]) -> list[int]:
    """Return the index of each batch of a frozen epoch of Draws."""
    found = []
    for _, items in epoch:
        _, (index, _) = dict(items)["which"]
        found.append(int(np.frombuffer(index[3], np.int64)[0]))
    return found


@pytest.fixture(scope="module")
def expected() -> Epochs:
    """The batches of Draws, built in this process."""
    return epochs_of(Draws(), workers=0)


def test_what_is_expected_is_random_and_shuffled(expected: Epochs) -> None:
    batches = [dict(items) for epoch in expected for _, items in epoch]
    for source in ("rng", "numpy", "python"):
        assert len({batch[source] for batch in batches}) == len(batches) == EPOCHS * 12, source
    orders = [indices(epoch) for epoch in expected]
    assert [sorted(order) for order in orders] == [list(range(12))] * EPOCHS
    assert len({tuple(order) for order in orders} | {tuple(range(12))}) == EPOCHS + 1


def test_another_seed_gives_other_batches(expected: Epochs) -> None:
    mine = {part for epoch in expected for _, items in epoch for part in dict(items).items() if part[0] != "which"}
    others = {
        part
        for epoch in epochs_of(Draws(), workers=0, seed=SEED + 1)
        for _, items in epoch
        for part in dict(items).items()
        if part[0] != "which"
    }
    assert not mine & others


def test_the_seed_of_the_sequence_counts_unless_the_option_is_given(expected: Epochs) -> None:
    assert epochs_of(Draws(seed=SEED), workers=2, seed=None) == expected
    assert epochs_of(Draws(seed=1), workers=2, seed=SEED) == expected


@LAUNCHERS
@pytest.mark.parametrize("partition", ["dynamic", "block", "stride"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_partition_launcher(expected: Epochs, workers: int, partition: str, launcher: str) -> None:
    assert epochs_of(Draws(), workers=workers, partition=partition, launcher=launcher) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"prefetch": 1},
        {"prefetch": 40},
        {"max_bytes": 1 << 14},
        {"attempts": 1},
        {"strict": True},
        {"timeout": 60.0},
        {"worker_threads": 2},
        {"on_error": "skip"},
    ],
    ids=repr,
)
def test_options_that_change_no_data(expected: Epochs, options: dict[str, Any]) -> None:
    assert epochs_of(Draws(), workers=2, **options) == expected


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("partition", ["dynamic", "block", "stride"])
def test_large_batches_and_batches_built_in_place(workers: int, partition: str) -> None:
    assert epochs_of(LargeDraws(6), workers=workers, partition=partition) == epochs_of(LargeDraws(6), workers=0)


@pytest.mark.parametrize("partition", ["dynamic", "block", "stride"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_unordered_epochs_hold_the_same_batches(partition: str, shuffle: bool) -> None:
    expected = epochs_of(Draws(50), workers=0, shuffle=shuffle)
    got = epochs_of(Draws(50), workers=3, partition=partition, shuffle=shuffle, ordered=False)
    assert [Counter(epoch) for epoch in got] == [Counter(epoch) for epoch in expected]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("partition", ["dynamic", "block", "stride"])
def test_shards_are_disjoint_complete_and_the_same_batches(shuffle: bool, partition: str) -> None:
    whole = epochs_of(Draws(10), workers=0, shuffle=shuffle)
    shards = [
        epochs_of(Draws(10), workers=workers, shuffle=shuffle, partition=partition, shard=(i, 3), uneven="wrap")
        for i, workers in enumerate((2, 0, 1))
    ]
    for number, epoch in enumerate(whole):
        parts = [shard[number] for shard in shards]
        assert [len(part) for part in parts] == [4, 4, 4]
        assert Counter(batch for part in parts for batch in part) == Counter([*epoch, *epoch[:2]])


def test_the_parents_random_state_is_untouched() -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state(legacy=False)
    for workers in (0, 2):
        epochs_of(Draws(), workers=workers)
    assert random.getstate() == before[0]
    after = np.random.get_state(legacy=False)
    assert frozen(after["state"]) == frozen(before[1]["state"])
    assert (after["has_gauss"], after["gauss"]) == (before[1]["has_gauss"], before[1]["gauss"])


def test_the_parents_random_state_decides_nothing(expected: Epochs) -> None:
    random.seed(99)
    np.random.seed(99)
    assert epochs_of(Draws(), workers=0) == expected
    assert epochs_of(Draws(), workers=2) == expected


def test_a_second_pool_begins_with_the_first_epoch_again(expected: Epochs) -> None:
    sequence = Draws()
    assert epochs_of(sequence, workers=2) == expected
    assert epochs_of(sequence, workers=2) == expected


# --- after deaths -----------------------------------------------------------------------------------


@LAUNCHERS
@pytest.mark.parametrize("partition", ["dynamic", "block", "stride"])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_worker_killed_in_the_middle(tmp_path: Path, launcher: str, partition: str, ordered: bool) -> None:
    marker = tmp_path / "killed"
    options: dict[str, Any] = {"seed": SEED, "shuffle": True, "ordered": ordered, "partition": partition}
    with Loader(DiesOnce(LargeDraws(8), 5, marker), workers=2, launcher=launcher, **options) as loader:
        got = [[frozen(batch) for batch in loader] for _ in range(EPOCHS)]
        assert marker.exists()
        assert loader.stats().restarts == 1
    expected = epochs_of(LargeDraws(8), workers=0)
    if ordered:
        assert got == expected
    else:
        assert [Counter(epoch) for epoch in got] == [Counter(epoch) for epoch in expected]


@pytest.mark.parametrize("whom", [KILL_SELF, KILL_TEMPLATE])
def test_a_death_in_the_middle_of_small_batches_that_travel_together(tmp_path: Path, whom: str) -> None:
    # 400 batches of some microseconds: by the 301st a task holds many of them, some finished and some not.
    with Loader(DiesOnce(Draws(400), 300, tmp_path / "killed", whom), workers=2, seed=SEED) as loader:
        assert [frozen(batch) for batch in loader] == epochs_of(Draws(400), workers=0, shuffle=False)[0]
        assert loader.stats().restarts == (1 if whom == KILL_SELF else 2)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_template_killed_in_the_middle(tmp_path: Path, workers: int) -> None:
    sequence = DiesOnce(LargeDraws(8), 3, tmp_path / "killed", KILL_TEMPLATE)
    with Loader(sequence, workers=workers, seed=SEED, shuffle=True, launcher="template") as loader:
        got = [[frozen(batch) for batch in loader] for _ in range(EPOCHS)]
        assert loader.stats().restarts == workers
    assert got == epochs_of(LargeDraws(8), workers=0)


@LAUNCHERS
@pytest.mark.parametrize("rank", ["first", "last"])
def test_a_process_killed_between_two_epochs(launcher: str, rank: str) -> None:
    # By age: with "template" the first is the template itself, with "spawn" it is worker 0.
    expected = epochs_of(LargeDraws(8), workers=0)
    with Loader(LargeDraws(8), workers=2, seed=SEED, shuffle=True, launcher=launcher) as loader:
        got = []
        for _ in range(EPOCHS):
            got.append([frozen(batch) for batch in loader])
            processes = sorted(psutil.Process().children(recursive=True), key=lambda process: process.pid)
            victim = processes[0 if rank == "first" else -1]
            victim.send_signal(signal.SIGKILL)
    assert got == expected


def test_state_of_the_present_epoch_after_the_template_was_killed(tmp_path: Path) -> None:
    # The new template starts with the first version of the sequence; the workers need the present one.
    sequence = DiesOnce(Counting(6), 4, tmp_path / "killed", KILL_TEMPLATE)
    with Loader(sequence, workers=2) as loader:
        (tmp_path / "killed").touch()
        assert [batch[0, 0] for batch in loader] == [0, 1, 2, 3, 4, 5]
        sequence.of.shape = (2, 2)
        (tmp_path / "killed").unlink()
        got = list(loader)
    assert [batch.shape for batch in got] == [(2, 2)] * 6
    assert [batch[0, 0] for batch in got] == [1000, 1001, 1002, 1003, 1004, 1005]


def test_the_next_template_dies_while_it_loads_the_sequence(tmp_path: Path) -> None:
    sequence = DiesOfItsTemplate(LargeDraws(8), 3, tmp_path / "killed", times=2)
    with Loader(sequence, workers=1, seed=SEED, shuffle=True, attempts=3) as loader:
        got = [[frozen(batch) for batch in loader] for _ in range(EPOCHS)]
    assert (tmp_path / "killed-1").exists()
    assert got == epochs_of(LargeDraws(8), workers=0)


def test_templates_that_keep_dying_are_an_error(tmp_path: Path) -> None:
    sequence = DiesOfItsTemplate(Counting(8), 3, tmp_path / "killed", times=2)
    with Loader(sequence, workers=1, attempts=2) as loader:
        with pytest.raises(WorkerLostError, match=r"template process of the workers died \(SIGKILL\) while it loaded"):
            list(loader)
        assert [batch[0, 0] for batch in loader] == [1000 + index for index in range(8)]


@LAUNCHERS
def test_a_stopped_worker_holds_nobody_up_for_ever(launcher: str) -> None:
    # SIGSTOP is the hang that no exception ends; the time-out must kill it and go on with the same batches.
    expected = epochs_of(LargeDraws(8), workers=0)
    with Loader(LargeDraws(8), workers=2, seed=SEED, shuffle=True, launcher=launcher, timeout=1.0) as loader:
        first = iter(loader)
        got = [[frozen(next(first))]]
        processes = sorted(psutil.Process().children(recursive=True), key=lambda process: process.pid)
        os.kill(processes[-1].pid, signal.SIGSTOP)
        got[0] += [frozen(batch) for batch in first]
        got += [[frozen(batch) for batch in loader] for _ in range(EPOCHS - 1)]
    assert got == expected


# --- through tf.data --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2}, {"workers": 5, "partition": "stride"}], ids=repr)
@pytest.mark.parametrize("sequence", [Draws(40), LargeDraws(6)], ids=["small", "large"])
def test_to_dataset(sequence: SafeSequence, options: dict[str, Any]) -> None:
    dataset = to_dataset(sequence, seed=SEED, shuffle=True, **options)
    got = [[frozen(batch) for batch in dataset.as_numpy_iterator()] for _ in range(EPOCHS)]
    assert got == epochs_of(sequence, workers=0)


def test_to_dataset_after_the_template_was_killed(tmp_path: Path) -> None:
    dataset = to_dataset(
        DiesOnce(LargeDraws(8), 5, tmp_path / "killed", KILL_TEMPLATE), workers=2, seed=SEED, shuffle=True
    )
    got = [[frozen(batch) for batch in dataset.as_numpy_iterator()] for _ in range(EPOCHS)]
    assert (tmp_path / "killed").exists()
    assert got == epochs_of(LargeDraws(8), workers=0)
