"""Some seeds of tests/chaos, always the same ones, and that the harness would notice what it looks for."""

from __future__ import annotations

import faulthandler
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keras_mpseq import UserCodeError, WorkerLostError
from tests.chaos.consumers import Pass, Wrong
from tests.chaos.faults import Injector, Keeper
from tests.chaos.run import Report, _check, _check_error, _check_restarts, _check_skipped, serial
from tests.chaos.script import LETHAL, Fault, Script, script_of
from tests.conftest import PATIENCE_S, REPOSITORY

SEEDS = 100
"""One minute on two cores."""
CHAOS_S = 1800.0
"""Each script has a watchdog of its own."""


@pytest.mark.slow
def test_whatever_dies_each_batch_comes_once_and_nothing_is_left() -> None:
    faulthandler.cancel_dump_traceback_later()  # Of pytest, and meant for shorter tests.
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seeds", f"0:{SEEDS}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=CHAOS_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    scripts, faults, broken = (int(words.split()[0]) for words in ran.stdout.splitlines()[-5].split(", "))
    assert (scripts, broken) == (SEEDS, 0) and faults >= 10 * scripts


def test_a_seed_is_one_script() -> None:
    assert script_of(7) == script_of(7) != script_of(8)
    scripts = [script_of(seed) for seed in range(300)]
    assert {fault.what for script in scripts for fault in script.faults} >= {"kill", "stop", "starve", "slow"}
    assert {fault.what for script in scripts for fault in script.own} == {*LETHAL - {"terminate"}, "nap", "template"}


# --- the harness sees what it looks for -------------------------------------------------------------


def calm() -> Script:
    """Return a script without faults, in whose order batches must come."""
    script = script_of(0)
    options = {**script.options, "workers": 2, "ordered": True, "on_error": "raise", "timeout": None, "attempts": 2}
    return replace(script, options=options, use="fast", way="loader", kind="small", faults=(), own=())


def injector(script: Script, folder: Path, keeper: Keeper) -> Injector:
    return Injector(script.faults, script.own, str(folder), lambda: (None, []), 2, keeper)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda batches: batches[:3] + batches[4:], "a batch was left out"),
        (lambda batches: batches[:-1], "1 batches are missing"),
        (lambda batches: [*batches, batches[3]], "positions [3] came more than once"),
        (lambda batches: [*batches[:2], batches[3], batches[2], *batches[4:]], "came in the order"),
        (lambda batches: [*batches[:2], b"other", *batches[3:]], "came at [2] are none of the serial run"),
        (lambda batches: [b"other", *batches[1:]], "of no epoch"),
    ],
    ids=["lost", "lost at the end", "doubled", "swapped", "wrong", "wrong from the first on"],
)
def test_what_is_wrong_is_seen(tamper: Callable[[list[bytes]], list[bytes]], message: str, tmp_path: Path) -> None:
    script = calm()
    epochs = serial(script, 2)
    report = Report(0)
    with Keeper() as keeper:
        given = Pass(tamper(epochs[1]), None, True)
        with pytest.raises(Wrong, match=re.escape(message)):  # noqa: PT012 - the second looks at what the first counts.
            _check(script, report, given, epochs, [0, 1], injector(script, tmp_path, keeper))
            _check_skipped(script, report, failed=0)


@pytest.mark.parametrize("error", [WorkerLostError("A worker died"), UserCodeError("It raised"), KeyError(7)], ids=repr)
def test_an_error_that_no_fault_explains_is_seen(error: Exception, tmp_path: Path) -> None:
    with Keeper() as keeper, pytest.raises(Wrong, match="no fault explains"):
        _check_error(calm(), Report(0), error, injector(calm(), tmp_path, keeper))


def test_a_worker_that_dies_of_itself_is_seen(tmp_path: Path) -> None:
    with Keeper() as keeper, pytest.raises(Wrong, match="1 workers were lost, and 0 were killed"):
        _check_restarts(calm(), Report(0, restarts=1), injector(calm(), tmp_path, keeper))


def test_when_nothing_happens_the_watchdog_barks() -> None:
    barked = threading.Event()
    with Keeper() as keeper:
        keeper.watch(0.0, lambda: 1.0, barked.set)
        assert barked.wait(PATIENCE_S)


def test_no_other_process_is_hit(tmp_path: Path) -> None:
    """A process that has gone, and whose number may be another's, is left alone: the fault waits for a worker."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with Keeper() as keeper:
        fault = Fault(0, 0, "kill", 0)
        given = Injector([fault], (), str(tmp_path), lambda: (None, [gone.pid]), 1, keeper)
        given.step("test")
        assert not given.injected()
        living = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        given._targets = lambda: (None, [living.pid])
        given.step("test")
        assert given.injected() == {"kill": 1}
        assert living.wait() == -signal.SIGKILL
    assert living.stdin is not None
    living.stdin.close()
