"""`lint`, `check`, `explain` and `rules` on the command line: options, outputs, exit codes, refusals."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import keras_mpseq.checks
import keras_mpseq.lint
from keras_mpseq.cli.main import main
from keras_mpseq.findings import Finding
from keras_mpseq.rules import RULES
from tests.conftest import REPOSITORY, Scripts

STATEFUL = RULES["SEQ205"].example()
CLEAN = RULES["SEQ205"].instead()
WARNED = RULES["SEQ402"].example()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of a project, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    for variable in ("GITHUB_ACTIONS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "pyproject.toml").write_text("[tool.keras-mpseq]\n")
    return tmp_path


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*arguments: str) -> Ran:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call


# --- lint -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "arguments", "code"),
    [
        (CLEAN, [], 0),
        (STATEFUL, [], 1),
        (STATEFUL, ["--exit-zero"], 0),
        (STATEFUL, ["--ignore", "SEQ205"], 0),
        (STATEFUL, ["--select", "SEQ4,SEQ5"], 0),
        (STATEFUL, ["--select", "SEQ4", "--select", "stateful-getitem"], 1),
        (WARNED, [], 1),
        (WARNED, ["--fail-level", "error"], 0),
        ("from keras.utils import PyDataset\ndef f(:\n", [], 1),
        ("", [], 0),
    ],
)
def test_the_exit_code_says_whether_something_was_found(
    folder: Path, run: Callable[..., Ran], source: str, arguments: list[str], code: int
) -> None:
    (folder / "data.py").write_text(source)
    assert run("lint", *arguments).code == code


def test_findings_are_told_with_their_line(folder: Path, run: Callable[..., Ran]) -> None:
    (folder / "data.py").write_text(STATEFUL)
    told = run("lint", "data.py")
    line = STATEFUL.splitlines().index("        self.count += 1") + 1
    assert told.out.startswith(f"data.py:{line}:9: E SEQ205 stateful-getitem  ")
    assert "self.count += 1\n" in told.out and told.out.endswith("in 1 class.\n")
    assert told.err == ""


@pytest.mark.parametrize(
    ("format", "begin"),
    [
        ("concise", "data.py:"),
        ("json", "{"),
        ("jsonl", '{"code"'),
        ("sarif", "{"),
        ("github", "::error file=data.py,"),
        ("gitlab", "["),
        ("junit", "<?xml"),
    ],
)
def test_formats(folder: Path, run: Callable[..., Ran], format: str, begin: str) -> None:
    (folder / "data.py").write_text(STATEFUL)
    told = run("lint", "--output-format", format)
    assert told.code == 1
    assert told.out.startswith(begin)
    assert "SEQ205" in told.out and "\x1b" not in told.out


def test_annotations_are_written_in_github_actions(
    folder: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "data.py").write_text(STATEFUL)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run("lint").out.startswith("::error file=")
    assert not run("lint", "--output-format", "full").out.startswith("::")


def test_statistics_and_colours(folder: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data.py").write_text(STATEFUL)
    assert run("lint", "--statistics").out.splitlines()[0] == "1  SEQ205 stateful-getitem"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31mE " in run("lint").out


def test_a_baseline_lets_only_new_findings_through(folder: Path, run: Callable[..., Ran]) -> None:
    (folder / "data.py").write_text(STATEFUL)
    wrote = run("lint", "--write-baseline", "known.json")
    assert (wrote.code, wrote.out) == (0, "1 finding is now known in known.json.\n")
    assert run("lint", "--baseline", "known.json").code == 0
    (folder / "data.py").write_text(STATEFUL.replace("count", "number"))
    assert run("lint", "--baseline", "known.json").code == 1
    (folder / "pyproject.toml").write_text('[tool.keras-mpseq]\nbaseline = "none.json"\n')
    assert run("lint", "--write-baseline", "known.json").code == 0  # That of the settings is not there yet.


def test_comments_and_settings_count(folder: Path, run: Callable[..., Ran]) -> None:
    counted = "        self.count += 1"
    (folder / "data.py").write_text(STATEFUL.replace(counted, f"{counted}  # seq: ignore[SEQ205] shown in a page"))
    assert run("lint").code == 0
    (folder / "data.py").write_text(CLEAN.replace("import keras\n", "import keras  # seq: ignore[SEQ205] of old\n"))
    assert "W SEQ001 unused-suppression" in run("lint").out
    (folder / "pyproject.toml").write_text('[tool.keras-mpseq]\nper-file-ignores = {"data.py" = ["SEQ001"]}\n')
    assert run("lint").code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothere"], "keras-mpseq: There is no file or folder 'nothere'. Name one that exists.\n"),
        (
            ["--select", "SEQ2O5"],
            "keras-mpseq: There is no rule 'SEQ2O5'; the nearest is 'SEQ205'. `keras",
        ),
        (
            ["--config", "no.toml"],
            "keras-mpseq: no.toml cannot be read: No such file or directory. Name",
        ),
        (["--baseline", "no.json"], "keras-mpseq: The baseline no.json cannot be read: No such file or directory. "),
        (["--nothing"], "keras-mpseq: unrecognized arguments: --nothing. See keras-mpseq --help.\n"),
        (["--fail-level", "bad"], "keras-mpseq lint: argument --fail-level: invalid choice: 'bad' (choose from "),
    ],
)
def test_a_bad_call_is_one_sentence(folder: Path, run: Callable[..., Ran], arguments: list[str], sentence: str) -> None:
    (folder / "data.py").write_text(CLEAN)
    told = run("lint", *arguments)
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(sentence) and told.err.count("\n") == 1


def test_a_folder_without_python_is_said(folder: Path, run: Callable[..., Ran]) -> None:
    assert run("lint") == Ran(0, "No findings.\n", "No Python files in '.'.\n")


def test_only_what_is_reported_is_fixed(folder: Path, run: Callable[..., Ran]) -> None:
    draws = RULES["SEQ401"].example()
    line = next(line for line in draws.splitlines() if "np.random." in line)
    source = draws.replace(line, f"{line.replace('return ', 'x = ')}\n        return x + random.random()")
    source = source.replace("import keras\n", "import random\n\nimport keras\n")
    (folder / "data.py").write_text(source)
    for arguments in (["--ignore", "SEQ4"], ["--select", "SEQ2"]):
        assert run("lint", "--diff", *arguments) == Ran(0, "", "")
    only = run("lint", "--diff", "--select", "SEQ402").out
    assert "+        return x + rng.random()" in only and "-        x = " not in only
    run("lint", "--write-baseline", "known.json")
    settings = folder / "pyproject.toml"
    for setting in ('per-file-ignores = {"data.py" = ["SEQ4"]}', 'baseline = "known.json"'):
        settings.write_text(f"[tool.keras-mpseq]\n{setting}\n")
        assert run("lint", "--diff") == Ran(0, "", "")


def test_fixing_says_what_it_needs(folder: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data.py").write_text(CLEAN)
    monkeypatch.setitem(sys.modules, "libcst", None)
    monkeypatch.delitem(sys.modules, "keras_mpseq.lint.fix", raising=False)
    for option in ("--fix", "--diff"):
        told = run("lint", option)
        assert told.code == 2
        assert told.err == (
            "keras-mpseq: Changing source needs keras_mpseq[fix], which brings libcst. "
            'Install it: pip install "keras_mpseq[fix]".\n'
        )


def test_output_that_the_terminal_has_no_letters_for(
    folder: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dätä.py").write_text("from keras.utils import PyDataset\ndef f(:\n")
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    assert main(["lint", "--output-format", "concise"]) == 1
    assert b"d\\xe4t\\xe4.py:2:" in plain.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m keras_mpseq rules --format json | head -n 1"
    ran = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=REPOSITORY, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[\n", "")


LIBRARY_USER = """\
import lib
import numpy as np
from keras.utils import PyDataset


class Fed(lib.Feeder):
    def __init__(self, x):
        self.x, self.connection = x, lib.connect()

    def __getitem__(self, index):
        return self.x[index] + np.random.rand(3) + lib.draw()


class Batches(PyDataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return lib.scaled(self.x[index]) + np.random.rand(3)
"""


def test_settings_count_for_fixes_which_are_done_at_once(folder: Path, run: Callable[..., Ran]) -> None:
    (folder / "pyproject.toml").write_text(
        '[tool.keras-mpseq]\nextra-bases = ["lib.Feeder"]\n'
        'decls = {"lib.draw" = "rng", "lib.connect" = "resource", "lib.scaled" = "pure"}\n'
    )
    (folder / "data.py").write_text(LIBRARY_USER)
    first = run("lint", "--fix", "--output-format", "concise")
    fixed = (folder / "data.py").read_text()
    fed, batches = fixed.split("class Batches")
    # A base that is only known by name is not changed: nobody knows what it does.
    assert "np.random.rand(3) + lib.draw()" in fed and "class Fed(lib.Feeder)" in fed
    assert "super().__init__(**kwargs)" in batches and "rng.random(3)" in batches
    assert [line.split()[2] for line in first.out.splitlines()[:-1]] == ["SEQ303", "SEQ401", "SEQ402"]
    assert run("lint", "--fix", "--output-format", "concise") == Ran(1, first.out, "")
    assert run("lint", "--diff").out == "" and (folder / "data.py").read_text() == fixed


def test_a_notebook_is_not_taken_for_a_program(folder: Path, run: Callable[..., Ran]) -> None:
    (folder / "train.ipynb").write_text('{"cells": []}')
    told = run("lint", "train.ipynb")
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("keras-mpseq: 'train.ipynb' is a notebook, and lint reads Python files. Call ")


# --- check ------------------------------------------------------------------------------------------


class Report(NamedTuple):
    findings: list[Finding]
    unverified: list[str]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Return what `check` is called with; it finds an error and something on trial, and runs nothing."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def check(target: object, **options: Any) -> Report:
        calls.append((target, options))
        codes = {"SEQ604", "SEQ409"} & set(options["select"])
        found = [Finding.of(code, "it", class_name="Batches", confidence="proved") for code in sorted(codes)]
        return Report(found, ["seq[0] holds objects"])

    monkeypatch.setattr(keras_mpseq.checks, "check", check)
    return calls


def test_options_reach_the_check(folder: Path, run: Callable[..., Ran], checked: list[Any]) -> None:
    (folder / "validated.py").write_text("class A:\n    class B: pass\n")
    (folder / "pyproject.toml").write_text("[tool.keras-mpseq]\nheavy-state-limit = 1000\n")
    sys.modules.pop("validated", None)
    told = run("check", "validated:A.B", "--samples", "3", "--epochs", "1", "--timeout", "9.5", "--lint")
    ((target, options),) = checked
    assert (target.__module__, target.__qualname__) == ("validated", "A.B")
    assert "SEQ409" in options.pop("select")
    assert options == {
        "samples": 3,
        "epochs": 1,
        "lint": True,
        "timeout": 9.5,
        "ignore": [],
        "heavy_state_limit": 1000,
    }
    assert told.code == 1
    assert told.out.startswith("Batches: E SEQ409 order-dependent-batch  it (proved)\n")
    assert "SEQ604" not in told.out and "Not verified: seq[0] holds objects.\n" in told.out
    assert run("check", "validated.py:A", "--ignore", "SEQ409").code == 0
    document = json.loads(run("check", "validated:A", "--preview", "--output-format", "json").out)
    assert [finding["code"] for finding in document["findings"]] == ["SEQ409", "SEQ604"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["there"], "keras-mpseq: 'there' names no sequence. Write MODULE:FACTORY, as in training.data:make_train.\n"),
        (["not_there:A"], "keras-mpseq: There is no module 'not_there'. Name one that can be imported from "),
        (["not_there.py:A"], "keras-mpseq: There is no file 'not_there.py'. Name one that exists.\n"),
        (["json:Nothing"], "keras-mpseq: 'json' has no 'Nothing'. Name a sequence, its class, or a function.\n"),
        (["json:dumps", "--samples", "0"], "keras-mpseq check: argument --samples: must be an int from 1 to 1000"),
        (
            ["json:dumps", "--timeout", "0"],
            "keras-mpseq check: argument --timeout: must be a number of seconds",
        ),
    ],
)
def test_a_bad_target_is_one_sentence(
    run: Callable[..., Ran], checked: list[Any], arguments: list[str], sentence: str
) -> None:
    told = run("check", *arguments)
    assert (told.code, told.out, checked) == (2, "", [])
    assert told.err.startswith(sentence) and told.err.count("\n") == 1


def test_a_module_that_raises_is_the_user_s_mistake(folder: Path, run: Callable[..., Ran]) -> None:
    (folder / "raising.py").write_text("import there_is_no_such_module\n")
    told = run("check", "raising:A")
    assert (told.code, told.out) == (2, "")
    sentence = (
        "keras-mpseq: Importing 'raising' raised ModuleNotFoundError: No module named 'there_is_no_such_module'. "
    )
    assert told.err.startswith(sentence) and "raising.py" in told.err
    assert "keras_mpseq/" not in told.err


def test_a_crash_is_told_whatever_is_selected(folder: Path, run: Callable[..., Ran]) -> None:
    (folder / "crashing.py").write_text(
        "import os\nclass A:\n    def __len__(self): return 3\n    def __getitem__(self, index): os._exit(7)\n"
    )
    told = run("check", "crashing:A", "--select", "SEQ4")
    assert told.code == 1
    assert told.out.startswith("crashing.py:4: E SEQ501 bad-return  seq[0] ends its process (exit code 7) (proved)\n")


# --- explain and rules ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SEQ205", "seq205", "stateful-getitem"])
def test_explain_shows_the_page(run: Callable[..., Ran], name: str) -> None:
    told = run("explain", name)
    assert told.code == 0
    assert told.out.startswith(
        "# SEQ205 stateful-getitem\n\nBuilding a batch writes to the sequence.\n\nSeverity `error`;"
    )
    assert STATEFUL in told.out


def test_explain_in_colour_is_laid_out(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run("explain", "SEQ205").out
    assert "\x1b[" in out and "```" not in out


def test_an_unknown_rule_is_refused(run: Callable[..., Ran]) -> None:
    sentence = "keras-mpseq: There is no rule 'statefull-getitem'; the nearest is 'stateful-getitem'. "
    assert run("explain", "statefull-getitem") == Ran(2, "", f"{sentence}`keras-mpseq rules` lists all.\n")


def test_rules_are_listed(run: Callable[..., Ran]) -> None:
    assert [line.split()[0] for line in run("rules").out.splitlines()] == list(RULES)
    assert [rule["code"] for rule in json.loads(run("rules", "--format", "json").out)] == list(RULES)
    assert len(run("rules", "--format", "md").out.splitlines()) == len(RULES) + 2


# --- cost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["lint", "--help"], ["check", "--help"], ["rules"]])
def test_help_and_rules_wait_for_nothing(scripts: Scripts, arguments: list[str]) -> None:
    source = f"""
import sys
from keras_mpseq.cli.main import main
try:
    main({arguments!r})
except SystemExit:
    pass
print(sorted({{"keras", "tensorflow", "numpy", "rich", "keras_mpseq.lint", "keras_mpseq.checks"}} & set(sys.modules)))
"""
    assert scripts.run(source).splitlines()[-1] == "[]"


def test_lint_imports_no_framework(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(STATEFUL)
    source = f"""
import sys
from keras_mpseq.cli.main import main
assert main(["lint", {os.fspath(tmp_path / "data.py")!r}]) == 1
print(sorted({{"keras", "tensorflow", "numpy", "data"}} & set(sys.modules)))
"""
    assert scripts.run(source).splitlines()[-1] == "[]"
