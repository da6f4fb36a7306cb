"""Workers that are replaced after some batches: same batches, same order, no memory that grows, nobody blamed."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_mpseq import Loader, deadlines
from tests.conftest import alarm
from tests.slow import LEAK, DiesAtEnd, HangsAtEnd, KillsOnce, Numbered

LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])


class Epochs:
    """What a loader delivered in two epochs."""

    def __init__(self, sequence: Any, **options: Any) -> None:
        with alarm("It does not come to its end."), Loader(sequence, seed=3, **options) as loader:
            batches = [{name: array.copy() for name, array in batch.items()} for _ in range(2) for batch in loader]
            self.stats = loader.stats()
        self.batches = np.array([batch["batch"] for batch in batches])
        workers, pids, resident = np.array([batch["by"] for batch in batches]).T
        self.seats = set(workers.tolist())
        self.built = Counter(pids.tolist())
        """By each process."""
        self.resident = int(resident.max())


def alike(one: Epochs, other: Epochs) -> bool:
    return bool((one.batches == other.batches).all())


@pytest.mark.parametrize(
    ("most", "options"),
    [
        (1, {}),
        (3, {"partition": "stride"}),
        (4, {"shuffle": True}),
        (5, {"partition": "block", "shuffle": True}),
        (4, {"launcher": "spawn"}),
    ],
)
def test_batches_and_their_order_stay_the_same(most: int, options: dict[str, Any]) -> None:
    alone = Epochs(Numbered(12), workers=0, **options)
    found = Epochs(Numbered(12), workers=2, max_tasks_per_worker=most, **options)
    assert alike(found, alone)
    assert max(found.built.values()) <= most
    assert found.seats == {0, 1}
    assert found.stats.recycled > 0
    assert found.stats.restarts == 0


def test_small_batches_travel_several_at_a_time_up_to_the_last_one() -> None:
    found = Epochs(Numbered(400), workers=2, max_tasks_per_worker=50)
    assert alike(found, Epochs(Numbered(400), workers=0))
    assert max(found.built.values()) <= 50


@LAUNCHERS
def test_memory_of_a_leaking_worker_stays_bounded(launcher: str) -> None:
    found = Epochs(Numbered(20, leak=True), workers=1, launcher=launcher, max_tasks_per_worker=10)
    assert alike(found, Epochs(Numbered(20), workers=0))
    spared = Epochs(Numbered(20, leak=True), workers=1, launcher=launcher)
    assert spared.resident - found.resident > (40 - 10 - 1) * LEAK


def test_a_death_costs_an_attempt_and_an_end_does_not(tmp_path: Path) -> None:
    found = Epochs(KillsOnce(30, tmp_path), workers=2, max_tasks_per_worker=3, attempts=2)
    assert alike(found, Epochs(Numbered(30), workers=0))
    assert found.stats.restarts == len(list(tmp_path.iterdir())) == 3


def test_each_worker_stops_in_good_order(tmp_path: Path) -> None:
    found = Epochs(Numbered(20, stop=tmp_path / "stopped"), workers=2, max_tasks_per_worker=4)
    stopped = (tmp_path / "stopped").read_text().split()
    assert len(stopped) == len(set(stopped)) == found.stats.recycled + 2
    assert set(map(int, stopped)) >= set(found.built)


def test_a_worker_that_dies_while_it_stops_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    found = Epochs(DiesAtEnd(8), workers=1, max_tasks_per_worker=5)
    assert alike(found, Epochs(Numbered(8), workers=0))
    lines = [record.getMessage() for record in caplog.records]
    assert lines and set(lines) == {
        "Worker 0 died (exit code 3) while it stopped. Something that the sequence calls ended the process "
        "(sys.exit, os._exit): let it raise an exception."
    }


def test_a_worker_that_does_not_stop_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deadlines, "STOP_S", 0.1)
    monkeypatch.setattr("keras_mpseq.crew._PATIENCE_S", 0.1)
    found = Epochs(HangsAtEnd(8), workers=1, max_tasks_per_worker=2)
    assert alike(found, Epochs(Numbered(8), workers=0))
    assert found.stats.restarts == 0
    line = caplog.records[0].getMessage()
    assert caplog.records[0].levelno == logging.WARNING
    assert re.match(
        r"Worker 0 was killed because it took longer than 0\.1 s while it stopped\. "
        r"See in the stack below what it waits for\.\n\nState of the worker: process \d+ is sleeping",
        line,
    )
    assert "in on_worker_stop" in line


def test_whoever_holds_its_batches_does_not_stop_workers_from_being_replaced() -> None:
    with alarm("It does not come to its end."):
        with Loader(Numbered(30), workers=2, max_tasks_per_worker=7, prefetch=1) as loader:
            held = list(loader)
            first, second = iter(loader), iter(loader)
            held += [next(first) for _ in range(20)]
            held += list(second)
            first.close()
        assert [int(batch["batch"][-1]) for batch in held] == [*range(30), *range(20), *range(30)]


def test_nobody_is_left_when_the_pool_is_closed_while_workers_are_replaced() -> None:
    """The fixture for leaks looks."""
    for batches in (1, 2, 3):
        with Loader(Numbered(20), workers=2, max_tasks_per_worker=1) as loader:
            for _, _ in zip(loader, range(batches), strict=False):
                pass


def test_without_processes_the_option_means_nothing() -> None:
    found = Epochs(Numbered(5), workers=0, max_tasks_per_worker=1)
    assert set(found.built) == {os.getpid()}
    assert found.stats.recycled == 0
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
