"""The command line: what it takes, what it refuses in one sentence, and its exit codes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from keras_mpseq import MpseqError, __version__
from keras_mpseq.cli import demo
from keras_mpseq.cli.main import main
from tests.conftest import Scripts


def ended(arguments: list[str]) -> int:
    """Return the exit code of argparse, which ends the program itself."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[demo.Settings]:
    """Return the settings that the demo is called with; it does nothing itself."""
    calls: list[demo.Settings] = []

    def record(settings: demo.Settings) -> int:
        calls.append(settings)
        return 1

    monkeypatch.setattr(demo, "run", record)
    return calls


def test_version_names_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-mpseq {__version__}\n"


def test_help_lists_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--help"]) == 0
    assert "demo" in capsys.readouterr().out
    assert ended(["demo", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--workers", "--epochs", "--seed", "--data", "--quick"))


def test_help_waits_for_neither_keras_nor_tensorflow(scripts: Scripts) -> None:
    source = """
import sys
from keras_mpseq.cli.main import main
try:
    main(["demo", "--help"])
except SystemExit:
    print(sorted({"keras", "tensorflow", "numpy", "rich"} & set(sys.modules)))
"""
    assert scripts.run(source).splitlines()[-1] == "[]"


def test_options_reach_the_demo(asked: list[demo.Settings]) -> None:
    assert main(["demo"]) == 1
    assert main(["demo", "--workers", "0", "--epochs", "5", "--seed", "7", "--data", "there", "--quick"]) == 1
    assert asked == [
        demo.Settings(),
        demo.Settings(workers=0, epochs=5, seed=7, data=Path("there"), quick=True),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "keras-mpseq: the following arguments are required: command. See keras-mpseq --help.\n"),
        (
            ["demo", "--workers", "-1"],
            "keras-mpseq demo: argument --workers: must be an int from 0 to 64, got '-1'. "
            "See keras-mpseq demo --help.\n",
        ),
        (
            ["demo", "--workers", "two"],
            "keras-mpseq demo: argument --workers: must be an int from 0 to 64, got 'two'. "
            "See keras-mpseq demo --help.\n",
        ),
        (
            ["demo", "--workers", "65"],
            "keras-mpseq demo: argument --workers: must be an int from 0 to 64, got '65'. "
            "See keras-mpseq demo --help.\n",
        ),
        (
            ["demo", "--epochs", "0"],
            "keras-mpseq demo: argument --epochs: must be an int from 1 to 10000, got '0'. "
            "See keras-mpseq demo --help.\n",
        ),
        (
            ["demo", "--seed", "4294967296"],
            "keras-mpseq demo: argument --seed: must be an int from 0 to 4294967295, got '4294967296'. "
            "See keras-mpseq demo --help.\n",
        ),
        (
            ["demo", "--data"],
            "keras-mpseq demo: argument --data: expected one argument. See keras-mpseq demo --help.\n",
        ),
        (["demo", "--work", "2"], "keras-mpseq: unrecognized arguments: --work 2. See keras-mpseq --help.\n"),
    ],
)
def test_a_bad_call_is_one_sentence(
    arguments: list[str], sentence: str, asked: list[demo.Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(arguments) == 2
    assert capsys.readouterr() == ("", sentence)
    assert asked == []


def test_an_unknown_command_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["demos"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "demos" in err and "demo'" in err + "'" and err.count("\n") == 1  # Quotes differ between Python versions.


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(demo, "run", run)
    return main(["demo"])


def test_a_foreseen_error_is_its_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(MpseqError("It is closed", remedy="Open it."), monkeypatch) == 2
    assert capsys.readouterr() == ("", "keras-mpseq: It is closed. Open it.\n")


def test_an_unforeseen_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(RuntimeError("surprise"), monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    sentence = "keras-mpseq: This is a mistake of keras-mpseq itself. Please report it with the lines above.\n"
    assert err.startswith("Traceback") and err.endswith(f"RuntimeError: surprise\n{sentence}")


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr() == ("", "\nInterrupted.\n")


@pytest.mark.parametrize(
    ("modules", "names"),
    [(["sklearn"], "scikit-learn"), (["PIL"], "Pillow"), (["sklearn", "PIL"], "scikit-learn and Pillow")],
)
def test_missing_packages_are_named_with_the_remedy(
    modules: list[str], names: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 2
    sentence = f"The demo needs {names}, which cannot be imported."
    remedy = 'Install keras-mpseq[demo]: pip install "keras-mpseq[demo]".'
    assert capsys.readouterr() == ("", f"keras-mpseq: {sentence} {remedy}\n")
