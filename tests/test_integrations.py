"""Other tools that run the validator: pytest, flake8, pre-commit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import keras_mpseq.testing
from keras_mpseq import CheckError, MpseqError
from keras_mpseq.checks import Report
from keras_mpseq.cli.main import main
from keras_mpseq.findings import Finding
from keras_mpseq.lint.flake8 import Plugin
from keras_mpseq.rules import RULES
from keras_mpseq.testing import parametrize_with_checks
from tests.conftest import REPOSITORY, Scripts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NUMPY = RULES["SEQ401"].example()
LINE = next(number for number, line in enumerate(NUMPY.splitlines(), 1) if "np.random." in line)


# --- pytest -----------------------------------------------------------------------------------------

SUITE = """
import os

import numpy as np
import pytest

from keras_mpseq.testing import parametrize_with_checks


class Clean:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full(3, index)


class Counting(Clean):
    count = 0

    def __getitem__(self, index):
        self.count += 1
        return np.full(3, self.count)


def made():
    with open("made.txt", "a") as file:
        print(os.getpid(), file=file)
    return Counting()


def expected(sequence):
    return {"SEQ409": "it counts"} if sequence is made else {}


@parametrize_with_checks([Clean, made], expected=expected, select=["SEQ205", "SEQ401", "SEQ409"], samples=2, epochs=1)
def test_sequences(check):
    check()


def test_pid():
    with open("pid.txt", "w") as file:
        print(os.getpid(), file=file)
"""


def test_one_item_for_each_sequence_and_rule(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    script = scripts.start_python(["-m", "pytest", "-v", "-p", "no:cacheprovider", "test_suite.py"])
    status, out, errors = script.ended()
    assert (status, errors) == (1, "")
    said = dict(line.split()[:2] for line in out.splitlines() if line.startswith("test_suite.py::"))
    assert said == {
        **{f"test_suite.py::test_sequences[Clean-{code}]": "PASSED" for code in ("SEQ205", "SEQ401", "SEQ409")},
        "test_suite.py::test_sequences[made-SEQ205]": "FAILED",
        "test_suite.py::test_sequences[made-SEQ401]": "PASSED",
        "test_suite.py::test_sequences[made-SEQ409]": "XFAIL",
        "test_suite.py::test_pid": "PASSED",
    }
    assert "CheckError: Counting is not safe in several processes: SEQ205 stateful-getitem. What was found:" in out
    assert "keras_mpseq/testing.py" not in out  # The traceback ends in the test.
    # Checked once: what was made in this process is made for all rules.
    pid = (tmp_path / "pid.txt").read_text().strip()
    assert (tmp_path / "made.txt").read_text().split().count(pid) == 1


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Return what `check` is called with; it finds a warning and a note."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def check(target: Any, **options: Any) -> Report:
        calls.append((target, options))
        if target is broken:
            raise MpseqError("It is broken")
        return Report([Finding.of("SEQ402", "it draws"), Finding.of("SEQ210", "it keeps")], class_name="A")

    monkeypatch.setattr(keras_mpseq.testing, "check", check)
    return calls


def broken() -> None:
    """Stand for a factory that raises."""


def items(sequences: list[Any], **options: Any) -> dict[str, Any]:
    mark = parametrize_with_checks(sequences, **options)
    name, parameters = mark.mark.args
    assert name == "check"
    return {parameter.id: parameter for parameter in parameters}


def test_all_stable_rules_have_an_item_and_options_reach_the_check(checked: list[Any]) -> None:
    found = items([list], samples=3, epochs=1, timeout=9)
    stable = [code for code, rule in RULES.items() if rule.stable and rule.runtime and not code.startswith("SEQ0")]
    assert list(found) == [f"list-{code}" for code in stable]
    assert checked == []  # Until a test runs.
    found["list-SEQ401"].values[0]()
    found["list-SEQ101"].values[0]()
    ((target, options),) = checked
    assert target is list and options.pop("select") == stable
    assert options == {"samples": 3, "epochs": 1, "lint": False, "timeout": 9}
    more = items([list], lint=True, ignore=["SEQ4"])
    static = {code for code, rule in RULES.items() if rule.stable and rule.static and code[:4] not in ("SEQ0", "SEQ4")}
    assert {f"list-{code}" for code in static} <= set(more) and "list-SEQ401" not in more


def test_notes_pass_unless_they_are_expected(checked: list[Any]) -> None:
    found = items([list], select=["SEQ210", "SEQ402"])
    found["list-SEQ210"].values[0]()
    with pytest.raises(
        CheckError, match=r"(?s)^A is not safe in several processes: SEQ402 process-global-rng\. .*it draws"
    ):
        found["list-SEQ402"].values[0]()
    expecting = items([list], select=["SEQ210", "SEQ402"], expected={"per-process-cache": "small"})["list-SEQ210"]
    (mark,) = expecting.marks
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "small", "raises": CheckError, "strict": True}
    with pytest.raises(CheckError, match="it keeps"):
        expecting.values[0]()


def test_a_check_that_fails_is_not_run_again(checked: list[Any]) -> None:
    for item in items([broken], select=["SEQ401", "SEQ402"]).values():
        with pytest.raises(MpseqError, match="It is broken"):
            item.values[0]()
    assert len(checked) == 1


@pytest.mark.parametrize(
    "options", [{"select": ["SEQ2O5"]}, {"expected": {"SEQ2O5": "a"}}, {"expected": {"SEQ205": ""}}]
)
def test_arguments_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(MpseqError):
        parametrize_with_checks([list], **options)


# --- flake8 -----------------------------------------------------------------------------------------


@pytest.fixture
def flake8(tmp_path: Path) -> Callable[..., list[str]]:
    """Return flake8, which finds the entry point of pyproject.toml as that of an installed package."""
    document = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    points = document["project"]["entry-points"]["flake8.extension"]
    # Its name is that of the real one, of which flake8 then takes no notice.
    installed = tmp_path / "installed" / "keras_mpseq-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: keras_mpseq\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[flake8.extension]", *lines]) + "\n")

    def run(*arguments: str, stdin: str = "") -> list[str]:
        path = os.pathsep.join([str(installed.parent), str(REPOSITORY)])
        command = [sys.executable, "-m", "flake8", "--isolated", "--jobs=1", *arguments]
        environment = {**os.environ, "PYTHONPATH": path}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, input=stdin, capture_output=True, text=True)
        assert ran.stderr == ""
        return ran.stdout.splitlines()

    return run


def test_flake8_runs_the_plugin(flake8: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(NUMPY)
    (tmp_path / "broken.py").write_text("def f(:\n")
    (only,) = flake8("--select=SEQ", "data.py", "broken.py")
    assert only.startswith(f"./data.py:{LINE}:".removeprefix("./"))
    assert " SEQ401 numpy-global-rng: numpy.random." in only
    assert flake8("--select=SEQ", "-", stdin=NUMPY)[0].startswith(f"stdin:{LINE}:")
    (tmp_path / "data.py").write_text(NUMPY.replace("import numpy", "import  numpy"))
    assert {line.split()[1] for line in flake8("data.py")} == {"E271", "SEQ401"}


def test_flake8_tells_notes_only_when_they_are_selected(flake8: Callable[..., list[str]], tmp_path: Path) -> None:
    assert RULES["SEQ210"].severity == "info"
    (tmp_path / "data.py").write_text(RULES["SEQ210"].example())
    assert flake8("data.py") == []
    (only,) = flake8("--extend-select=SEQ210", "data.py")
    assert "SEQ210 per-process-cache" in only


def test_the_plugin_knows_comments_and_leaves_out_rules_on_trial() -> None:
    def found(source: str) -> list[str]:
        lines = source.splitlines(keepends=True)
        return [text.split()[0] for *_, text, _ in Plugin(compile(source, "a", "exec", 1024), "a.py", lines).run()]

    line = NUMPY.splitlines()[LINE - 1]
    assert found(NUMPY) == ["SEQ401"]
    assert found(NUMPY.replace(line, f"{line}  # seq: ignore[SEQ401] known")) == []
    assert found(NUMPY.replace(line, f"{line}  # seq: ignore[SEQ4O1] known")) == ["SEQ401", "SEQ002"]
    assert not RULES["SEQ305"].stable
    assert "SEQ305" not in found(RULES["SEQ305"].example())


# --- pre-commit -------------------------------------------------------------------------------------

HOOKS = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
FIELDS = {"id", "name", "description", "entry", "language", "types", "pass_filenames", "require_serial"}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_hooks_lint_the_project(
    hook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(hook) == FIELDS
    assert hook["language"] in ("python", "system") and hook["types"] == ["python"]
    program, *arguments = shlex.split(hook["entry"])
    assert f'{program} = "keras_mpseq.cli.main:main"' in (REPOSITORY / "pyproject.toml").read_text()
    monkeypatch.chdir(tmp_path)
    # Without file names, in the root of the repository.
    assert hook["pass_filenames"] is False
    (tmp_path / "root.py").write_text(NUMPY.replace(NUMPY.splitlines()[LINE - 1].strip(), "raise NotImplementedError"))
    (tmp_path / "data.py").write_text(
        "import numpy as np\nfrom root import Batches\n\n\nclass Below(Batches):\n"
        "    def __getitem__(self, index):\n        return np.random.rand(index)\n"
    )
    assert main(arguments) == 1
    assert "data.py:7:16: E SEQ401" in capsys.readouterr().out


def test_hooks_have_names_of_their_own() -> None:
    assert [hook["id"] for hook in HOOKS] == ["keras-mpseq-lint", "keras-mpseq-lint-system"]
