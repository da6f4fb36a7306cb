"""`check` runs a sequence in throw-away processes: what is wrong is found with its line, and what is right is not."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_mpseq import CheckError, MpseqError, UserCodeError, check
from keras_mpseq.checks import Report
from keras_mpseq.checks.plan import sampled
from keras_mpseq.rules import RULES
from tests import checked
from tests.conftest import Scripts

# --- one fault each ---------------------------------------------------------------------------------

WITHOUT_FILES = [
    *(checked.HoldsLambda, checked.HoldsLock, checked.BindsGlobal, checked.FillsGlobal),
    *(checked.WritesClass, checked.Counts, checked.CountsForNothing, checked.UsesUpIterator, checked.UsesUpList),
    *(checked.ReturnsBuffer, checked.TellsOnTheSide, checked.ChangesSource, checked.Remembers, checked.Swaps),
    *(checked.StartsThreads, checked.Prints, checked.DrawsFromNumpy, checked.DrawsFromRandom, checked.HasGenerator),
    *(checked.Reseeds, checked.TellsProcess, checked.OrdersBySet, checked.IgnoresIndex, checked.ReturnsNothing),
    *(checked.Raises, checked.ChangesDtype, checked.IsTooLong, checked.Overlaps, checked.LeavesRowsUnset),
    *(checked.SwallowsErrors,),
]
WITH_FILE = [
    *(checked.HoldsConnection, checked.HoldsFile, checked.HoldsMemmap, checked.WritesOneFile, checked.OpensOften),
]


def marked(cls: type) -> list[tuple[str, int]]:
    """Return the codes that stand in the source of a class, and their lines."""
    lines, first = inspect.getsourcelines(cls)
    marks = re.compile(r"# (SEQ\d{3})")
    return sorted((code, first + at) for at, line in enumerate(lines) for code in marks.findall(line))


def places(report: Report) -> list[tuple[str, int | None]]:
    """Return code and line of each finding."""
    assert {finding.path for finding in report.findings} <= {checked.__file__}, str(report)
    return sorted((finding.code, finding.line) for finding in report.findings)


@pytest.mark.parametrize("cls", WITHOUT_FILES, ids=lambda cls: cls.__name__)
def test_every_fault_is_found_in_its_line_and_nothing_else(cls: Callable[[], Any]) -> None:
    report = check(cls())
    assert places(report) == marked(cls), str(report)
    assert {finding.class_name for finding in report.findings} == {cls.__name__}


def test_rules_on_trial_are_selected_by_their_codes() -> None:
    assert check(checked.LosesState()).findings == []
    assert places(check(checked.LosesState(), select=["SEQ104"])) == marked(checked.LosesState)


@pytest.mark.parametrize("cls", WITH_FILE, ids=lambda cls: cls.__name__)
def test_faults_with_files(cls: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(64, dtype=np.uint8))
    sequence = cls(path)
    try:
        report = check(sequence)
    finally:
        for resource in vars(sequence).values():
            getattr(resource, "close", list)()
    assert places(report) == marked(cls), str(report)


def test_the_order_of_a_listing_is_found(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert places(check(checked.ListsFolder(tmp_path))) == marked(checked.ListsFolder)
    (found,) = check(checked.made_from_listing(tmp_path)).findings
    line = inspect.getsourcelines(checked.made_from_listing)[1] + 5
    assert (found.code, found.line) == ("SEQ407", line), found


def test_free_variables_and_functions_of_other_modules_are_followed() -> None:
    (found,) = check(checked.ChangesClosure()).findings
    first = inspect.getsourcelines(checked.counting)[1]
    assert (found.code, found.line) == ("SEQ204", first + 5)
    assert [step.function for step in found.chain] == ["ChangesClosure.__getitem__", "count"]


def test_severity_follows_from_what_was_proved() -> None:
    (harmless,) = check(checked.CountsForNothing()).findings
    assert (harmless.severity, harmless.confidence) == ("warning", "proved")
    assert check(checked.Counts(), select=["SEQ205"]).findings[0].severity == "error"
    (racing,) = check(checked.Swaps()).findings
    assert racing.severity == "error" and "two threads" in racing.proof


def test_an_empty_sequence_is_not_called() -> None:
    (found,) = check(checked.IsEmpty()).findings
    assert (found.code, found.message) == ("SEQ503", "len(seq) is 0")


# --- processes that come to no end ------------------------------------------------------------------


def test_a_hang_is_a_finding_with_the_stack() -> None:
    report = check(checked.Hangs(), timeout=1.0)
    (found,) = report.findings
    assert found.message == "seq[0] does not return within 1 s"
    assert found.line == inspect.getsourcelines(checked.Hangs)[1] + 4
    assert "__getitem__" in found.proof
    assert report.unverified == ["What comes after the trial 'serial' was not tried"]


ASKS_A_THREAD = """
import queue
import threading

import numpy as np

asked, answers = queue.SimpleQueue(), queue.SimpleQueue()


def answer():
    while True:
        answers.put(asked.get())


threading.Thread(target=answer, daemon=True).start()


class Asks:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        asked.put(index)
        return np.full(3, answers.get())
"""
CHECKS_IT = """
import multiprocessing

from asks import Asks

from keras_mpseq import check
from keras_mpseq.checks import plan

multiprocessing.set_start_method("fork")
plan.FRESH_S = 0.0  # As if it took long to load.
report = check(Asks, select=["SEQ309", "SEQ409", "SEQ501"], timeout=4)
print([(found.code, "in __getitem__" in found.proof) for found in report.findings], *report.unverified, sep="\\n")
"""


def test_where_only_forks_hang_the_rest_is_checked_in_fresh_processes(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(ASKS_A_THREAD)
    (tmp_path / "checks_it.py").write_text(CHECKS_IT)
    status, out, errors = scripts.start_python(["checks_it.py"]).ended()
    assert (status, errors) == (0, "")
    found, left_out = out.splitlines()
    assert found == "[('SEQ309', True)]"
    assert left_out.startswith("Forked processes hang, and fresh ones take long to load: the trials 'trace', 'poison'")


def test_threads_of_a_framework_before_a_fork(scripts: Scripts, tmp_path: Path) -> None:
    script = RULES["SEQ309"].example() + (
        "\n\nif __name__ == '__main__':\n    from keras_mpseq import check\n    from keras_mpseq.checks import plan\n\n"
        "    plan.FRESH_S = 0.0\n"
        "    print([found.code for found in check(Batches(), select=['SEQ309', 'SEQ304', 'SEQ501']).findings])\n"
    )
    (tmp_path / "threads.py").write_text(script)
    status, out, _ = scripts.start_python(["threads.py"]).ended()
    assert (status, out) == (0, "['SEQ309']\n")


def test_the_end_of_the_process_is_a_finding() -> None:
    (found,) = check(checked.Exits()).findings
    assert (found.code, found.message) == ("SEQ501", "seq[0] ends its process (exit code 3)")


# --- members ----------------------------------------------------------------------------------------


def test_all_members_that_do_not_travel_are_found_in_one_pass() -> None:
    sequence = checked.Rows()
    numbers = (n for n in range(9))
    vars(sequence).update(a=[{"f": lambda: 0}], b=numbers, c=checked.HoldsLock())
    report = check(sequence)
    assert sorted(f"{finding.code} {finding.message.split()[0]}" for finding in report.findings) == [
        "SEQ101 self.a[0]['f']",
        "SEQ101 self.b",
        "SEQ102 self.c.tools['lock']",
    ]
    assert sorted(report.unverified) == [
        "self.b (generator) could not be sent to another process",
        "self.c.tools['lock'] (_thread.lock) could not be sent to another process",
    ]


def test_a_factory_makes_what_cannot_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(bytes(range(64)))

    def make() -> Any:
        return checked.HoldsFile(path)

    report = check(make)
    # The file has one position for all batches.
    assert {finding.code for finding in report.findings} == {"SEQ303", "SEQ408", "SEQ409"}


# --- nothing wrong ----------------------------------------------------------------------------------


def test_clean_sequences_are_clean(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(64)))
    for sequence in (checked.Rows(), checked.Shuffles(path), lambda: checked.Shuffles(path), [np.zeros(2), np.ones(2)]):
        report = check(sequence)
        assert report.ok and report.unverified == [], str(report)
        assert {finding.code for finding in report.findings} <= {"SEQ210"}, str(report)


def test_what_our_workers_make_safe_is_information_for_a_safe_sequence(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(64)))
    draws, opens = check(checked.SafeDraws()), check(checked.OpensInWorker(path))
    assert draws.ok and {finding.code for finding in draws.findings} == {"SEQ401", "SEQ402"}
    assert opens.ok and opens.findings == []


def test_the_hook_of_a_worker_has_run_and_what_it_sets_is_the_worker_s(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(64)))
    for sequence in (checked.StartsInWorker(path), lambda: checked.StartsInWorker(path)):
        report = check(sequence)
        assert (report.findings, report.unverified) == ([], []), str(report)
    (found,) = check(checked.StartsInWorker(path, fails=True)).findings
    assert found.code == "SEQ501"
    assert found.message == "on_worker_start raises OSError: worker 0 has no disk in another process"


def test_leaves_that_cannot_be_compared_are_said() -> None:
    report = check(checked.HasOpaqueLeaf(), samples=1)
    assert report.findings == []
    assert report.unverified == ["seq[0]: Leaf batch[1] is of type object, which cannot travel between processes"]


# --- programs ---------------------------------------------------------------------------------------

PROGRAM = """
import random
import numpy as np
from keras_mpseq import check

def helper(batch):
    return batch + random.random()

class Mine:
    def __init__(self):
        self.x = np.ones((4, 2))
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return helper(self.x[index])

print("once")
print([(found.code, found.line) for found in check(Mine()).findings])
"""


def test_a_class_of_a_script_travels_by_value_and_the_script_runs_once(scripts: Scripts) -> None:
    assert scripts.run(PROGRAM) == "once\n[('SEQ402', 7)]\n"


def test_a_class_of_a_notebook_can_be_checked_and_cannot_be_imported(scripts: Scripts) -> None:
    assert scripts.run_python(["-"], stdin=PROGRAM) == "once\n[('SEQ402', 7), ('SEQ103', 14)]\n"


LIGHT = """
import sys
import numpy as np
from keras_mpseq import check
class Mine:
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return np.array([len({"keras", "tensorflow", "scipy", "pandas", "multiprocessing"} & set(sys.modules))])
    def __reduce__(self):
        return Mine, ()
report = check(Mine())
assert report.ok, report
print({"keras", "tensorflow"} & set(sys.modules))
"""


def test_neither_the_program_nor_its_children_load_a_framework(scripts: Scripts) -> None:
    assert scripts.run(LIGHT) == "set()\n"


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_sequences_of_keras(scripts: Scripts, library: str) -> None:
    base = "keras.utils.PyDataset" if library == "keras" else "tf_keras.utils.Sequence"
    returned = "keras.ops.convert_to_numpy(keras.ops.sqrt(self.x))" if library == "keras" else "self.x, 1, 2, 3"
    script = f"""
import numpy as np
import {library}
from keras_mpseq import check

class Mine({base}):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.x = np.ones((4, 2))
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return {returned}

print([(found.code, found.line) for found in check(Mine(), ignore=["SEQ309"]).findings])
"""
    found = "('SEQ304', 13)" if library == "keras" else "('SEQ501', 13)"
    assert scripts.run(script) == f"[{found}]\n"


# --- what is asked for ------------------------------------------------------------------------------


def failing_factory() -> Any:
    raise ValueError("no data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "takes a sequence or a function that makes one, got 3"),
        ((checked.Rows(), {"samples": 0}), "samples must be an int of 1 or more, got 0"),
        ((checked.Rows(), {"epochs": True}), "epochs must be an int of 1 or more, got True"),
        ((checked.Rows(), {"timeout": 0}), "timeout must be a number of seconds above 0, got 0"),
        ((checked.Rows(), {"on_fail": "panic"}), "on_fail must be one of 'report', 'warn', 'raise', got 'panic'"),
        ((checked.Rows(), {"select": ["SEQ999"]}), "There is no rule 'SEQ999'"),
        ((checked.Rows(), {"expected": {"SEQ205": ""}}), "expected must give a reason for SEQ205, got ''"),
        ((failing_factory,), "The factory failing_factory raised ValueError: no data"),
        ((dict,), None),
        ((lambda: 3,), "returned 3 in the place of a sequence"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: Any, message: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)  # Nothing is started.
    first, options = (*arguments, {})[:2]
    if message is None:
        return
    with pytest.raises(MpseqError, match=re.escape(message)) as caught:
        check(first, **options)
    assert isinstance(caught.value, UserCodeError) == (first is failing_factory)
    assert str(caught.value).partition("\n")[0].endswith(".")


def test_rules_are_selected_and_expected() -> None:
    sequence = checked.Counts()
    assert places(check(sequence, select=["SEQ4"])) == [("SEQ409", marked(checked.Counts)[1][1])]
    report = check(
        sequence, ignore=["order-dependent-batch"], expected={"SEQ205": "counted on purpose", "SEQ4": "none"}
    )
    assert [(found.code, reason) for found, reason in report.expected] == [("SEQ205", "counted on purpose")]
    (unused,) = [found for found in report.findings if found.code == "SEQ001"]
    assert "expected (none), and not found" in unused.message


def test_a_failure_is_a_warning_or_an_error_if_asked_for() -> None:
    with pytest.warns(UserWarning, match="Counts is not safe in several processes"):
        check(checked.Counts(), on_fail="warn")
    with pytest.raises(CheckError, match="SEQ205, SEQ409"):
        check(checked.Counts(), on_fail="raise")
    check(checked.Rows(), on_fail="raise").raise_for_errors()


def test_a_report_is_text_json_sarif_and_html() -> None:
    report = check(checked.Counts())
    assert "SEQ205" in str(report) and "self.count is written while serving a batch" in str(report)
    assert {found["code"] for found in json.loads(report.to_json())["findings"]} == {"SEQ205", "SEQ409"}
    assert {result["ruleId"] for result in json.loads(report.to_sarif())["runs"][0]["results"]} == {"SEQ205", "SEQ409"}
    assert "SEQ205" in report._repr_html_()


def test_what_linter_and_check_both_find_is_proved() -> None:
    report = check(checked.SafeCounts(), lint=True)
    (found,) = [one for one in report.findings if one.code == "SEQ205"]
    assert found.confidence == "proved" and found.column is not None and found.proof


def test_with_the_source_its_comments_count() -> None:
    assert {found.code for found in check(checked.Excused()).findings} == {"SEQ205", "SEQ409"}
    assert check(checked.Excused(), lint=True).findings == []


@pytest.mark.parametrize(
    ("length", "samples", "indices"),
    [
        (8, 6, (0, 1, 3, 4, 6, 7)),
        (8, 1, (0,)),
        (8, 2, (0, 7)),
        (1, 6, (0,)),
        (3, 6, (0, 1, 2)),
        (None, 3, (0, 1, 2)),
        (100, 5, (0, 1, 2, 98, 99)),
        (sys.maxsize, 4, (0, 1, sys.maxsize - 2, sys.maxsize - 1)),
    ],
)
def test_samples_are_neighbours(length: int | None, samples: int, indices: tuple[int, ...]) -> None:
    assert sampled(length, samples) == indices
