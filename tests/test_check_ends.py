"""`check` of sequences that hang, take long, or leave something behind: that is told, and nothing is left."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from keras_mpseq import BatchedSequence, check
from keras_mpseq.checks.report import Report
from keras_mpseq.findings import Finding
from keras_mpseq.state.reach import UserCode
from tests import ended


def only(report: Report, cls: type) -> tuple[str, str]:
    """Return code and message of the only finding, which is in the line of *cls* that is marked with its code."""
    (found,) = report.findings
    lines, first = inspect.getsourcelines(cls)
    (at,) = (at for at, line in enumerate(lines) if f"# {found.code}" in line)
    assert (found.path, found.severity) == (ended.__file__, "error"), str(report)
    assert found.line in (first + at, inspect.getsourcelines(ended.wait_for_ever)[1] + 1), str(report)
    return found.code, found.message


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ended.HangsInLength, "len(seq) does not return within 1 s"),
        (ended.HangsWhenLoaded, "Loading the sequence in another process does not end within 1 s"),
        (ended.HangsWhenStopped, "on_worker_stop does not return within 1 s"),
        (ended.RaisesWhenStopped, "on_worker_stop raises OSError: the disk is gone in another process"),
        (ended.HasNoLength, "len(seq) raises TypeError: 'NoneType' object cannot be interpreted as an integer"),
        (ended.RaisesAtLength, "seq[0] raises ValueError: first line [...]"),
        (
            ended.ReturnsObject,
            "seq[0] cannot be sent: The batch is of type object, which cannot travel between processes",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_end_is_told_in_one_line(cls: Callable[[], Any], message: str) -> None:
    hangs = "within" in message
    # Whatever is selected: that nothing was found would mean nothing.
    report = check(cls(), timeout=1.0 if hangs else 60.0, select=["SEQ404"] if hangs else None)
    assert only(report, cls)[1] == message  # type: ignore[arg-type]
    assert bool(report.unverified) == hangs and not report.ok
    assert "keras_mpseq/" not in report.findings[0].proof


def test_what_is_ignored_by_name_is_still_unverified() -> None:
    report = check(ended.HangsWhenLoaded(), timeout=1.0, ignore=["SEQ101"])
    assert report.ok
    assert report.unverified == ["The sequence could not be loaded in another process: no batch was built"]


@pytest.mark.parametrize("make", [ended.HasNoState, ended.HasNoState()], ids=["factory", "sequence"])
def test_what_cannot_be_sent_at_all_is_told(make: Any) -> None:
    report = check(make, select="SEQ1", samples=1, epochs=1)
    (found,) = report.findings
    assert (found.code, found.severity) == ("SEQ101", "error")
    assert "HasNoState: ValueError: no state" in found.message
    assert "self (tests.ended.HasNoState) could not be sent to another process" in report.unverified


def test_batches_that_take_long_do_not_hang() -> None:
    report = check(ended.TakesLong(), timeout=1.0, samples=2)
    assert report.findings == [], str(report)
    (left_out,) = report.unverified
    assert left_out.startswith("Batches take long: the trials ") and "'epochs' were left out" in left_out


def test_nothing_is_left_of_what_batches_start(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    check(ended.LeavesBehind(notes), samples=1, epochs=1)
    left = [line.split() for line in notes.read_text().splitlines()]
    assert left
    _, alive = psutil.wait_procs([psutil.Process(int(pid)) for pid, _ in left if psutil.pid_exists(int(pid))], 10)
    assert not alive
    assert not [name for _, name in left if Path("/dev/shm", name).exists()]


def test_what_an_import_does_is_not_what_the_batch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "drawing_library.py").write_text(
        "import random, threading\nimport numpy as np\n"
        "random.random(), np.random.rand(), print(1)\nthreading.Thread(target=int).start()\n"
    )
    monkeypatch.syspath_prepend(library)
    assert check(ended.ImportsLate()).findings == []


def fails(sample: Any, rng: np.random.Generator) -> Any:
    raise ValueError("no such row")


def test_an_error_in_a_transform_is_told_at_its_line() -> None:
    (found,) = check(BatchedSequence(np.zeros((8, 2)), 4, transform=fails)).findings
    assert (found.path, found.line) == (__file__, fails.__code__.co_firstlineno + 1)
    assert found.message == "seq[0] raises UserCodeError: transform of sample 0 raised ValueError: no such row"


def test_code_made_by_a_library_is_not_the_user_s() -> None:
    def frame(file: str | None) -> types.FrameType:
        names: dict[str, Any] = {"sys": sys} | ({} if file is None else {"__file__": file})
        exec("frame = sys._getframe()", names)
        return names["frame"]  # type: ignore[no-any-return]

    code = UserCode()
    assert [code.owns_frame(frame(file)) for file in (None, __file__, np.__file__)] == [True, True, False]


def test_a_report_is_coloured_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report([Finding.of("SEQ205", "it")])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = []
    for variables in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}):
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        shown.append("\x1b[" in str(report))
    assert shown == [True, False, True, False]
