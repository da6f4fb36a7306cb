"""Output of every command where letters, colours or paths are not ours: ASCII, cp1252, NO_COLOR, backslashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_mpseq.cli.main import make_parser
from keras_mpseq.lint.fix import Fixed, fix_paths
from tests.conftest import REPOSITORY

COMMANDS = [
    *(["lint", "--output-format", name] for name in ("full", "concise", "json", "jsonl", "sarif")),
    *(["lint", "--output-format", name] for name in ("github", "gitlab", "junit")),
    ["lint", "--statistics", "--show-unresolved"],
    ["lint", "--diff"],
    ["lint", "--write-baseline", "bekannt-é.json"],
    ["migrate", "--diff"],
    ["migrate", "--json", "--diff"],
    ["migrate"],
    ["check", "plän.py:Mengen", "--samples", "1", "--epochs", "1"],
    ["profile", "plän.py:Mengen", "--seconds", "0.1", "--workers", "0,1"],
    ["profile", "plän.py:Mengen", "--seconds", "0.1", "--workers", "0", "--json", "--html", "größe.html"],
    ["explain", "SEQ205"],
    ["rules"],
    ["rules", "--format", "json"],
    ["doctor"],
    ["completion", "bash"],
    ["lint", "nicht-da-é"],
    *(
        [name, "--help"]
        for name in ("lint", "migrate", "check", "profile", "explain", "rules", "doctor", "demo", "completion")
    ),
    ["--help"],
    ["--version"],
]
RUN_ALL = f"""
import sys, traceback
from keras_mpseq.cli.main import main
for arguments in {COMMANDS!r}:
    print("\\n> " + ascii(arguments), flush=True)
    try:
        main(arguments)
    except SystemExit:
        pass
print("errors", sys.stdout.errors)
"""
SOURCE = """\
import keras
import numpy as np


class Mengen(keras.utils.Sequence):
    größe = 3

    def __len__(self):
        return 2

    def __getitem__(self, 指数):
        self.größe += 1  # → “more”
        return np.random.rand(self.größe)
"""
PLAIN = SOURCE.replace("import keras\n", "").replace("(keras.utils.Sequence)", "").replace("(self.größe)", "(3)")


@pytest.mark.parametrize(("encoding", "more"), [("ascii", {"FORCE_COLOR": "1"}), ("cp1252", {"NO_COLOR": "1"})])
def test_no_command_stumbles_over_letters(tmp_path: Path, encoding: str, more: dict[str, str]) -> None:
    folder = tmp_path / "größe [x] C:\\daten\\"
    folder.mkdir()
    (folder / "größe.py").write_text(SOURCE, encoding="utf-8")
    (folder / "plän.py").write_text(PLAIN, encoding="utf-8")
    (folder / "pyproject.toml").write_text("[tool.keras-mpseq]\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding, "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(
        [sys.executable, "-c", RUN_ALL], cwd=folder, env=environment | more, capture_output=True, timeout=55
    )
    out, err = ran.stdout.decode(encoding), ran.stderr.decode(encoding)
    assert ran.returncode == 0 and "Traceback" not in err and "mistake of keras-mpseq" not in err, err
    parts = dict(zip([str(command) for command in COMMANDS], out.split("\n> ")[1:], strict=True))
    told = parts[str(["lint", "--output-format", "full"])]
    # As the encoding has it, or as an escape; the name of the folder is no markup.
    word = "größe" if encoding == "cp1252" else r"gr\xf6\xdfe"
    assert f"{word}.py:12:9: " in told.replace("\x1b[0m", "").replace("\x1b[1m", "")
    assert ("\x1b[" in out) == ("FORCE_COLOR" in more)
    assert out.rstrip().endswith("errors strict")


def test_all_commands_are_tried() -> None:
    (commands,) = [action for action in make_parser()._actions if action.choices]
    assert {command[0] for command in COMMANDS if command[0][0] != "-"} == set(commands.choices or ())


def test_a_diff_has_slashes_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras_mpseq.lint.fix as fix

    class WindowsPath(type(Path())):  # type: ignore[misc]
        def as_posix(self) -> str:
            return super().as_posix().replace("\\", "/")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fix, "Path", WindowsPath)
    (tmp_path / "data\\größe.py").write_text(SOURCE)
    (fixed,) = fix_paths(["data\\größe.py"], diff=True)
    assert isinstance(fixed, Fixed)
    assert fixed.diff_text.splitlines()[:2] == ["--- a/data/größe.py", "+++ b/data/größe.py"]


def test_the_module_is_the_command() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", "import sys; from keras_mpseq.cli.main import main; sys.exit(main())"]
    for arguments in (["--help"], ["explain", "SEQ205"], ["explain", "nothing"], ["lint", "nowhere"], ["rules", "-x"]):
        one, other = (
            subprocess.run([*start, *arguments], env=environment, capture_output=True, text=True, timeout=55)
            for start in (command, [sys.executable, "-m", "keras_mpseq"])
        )
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)


COMPLETE = """
source {script}
complete -p keras-mpseq
try() {{ COMP_WORDS=(keras-mpseq "$@"); COMP_CWORD=$#; COMPREPLY=(); _shtab_keras_mpseq; echo "${{COMPREPLY[*]}}"; }}
try mig
try migrate --d
try lint --output-format sa
try lint some
"""


def test_completion_completes(tmp_path: Path) -> None:
    (tmp_path / "something.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for shell in ("bash", "zsh", "tcsh"):
        with open(tmp_path / shell, "w") as file:
            subprocess.run([sys.executable, "-m", "keras_mpseq", "completion", shell], env=environment, stdout=file)
    ran = subprocess.run(
        ["bash", "-c", COMPLETE.format(script=tmp_path / "bash")], cwd=tmp_path, capture_output=True, text=True
    )
    expected = "complete -o bashdefault -F _shtab_keras_mpseq keras-mpseq\nmigrate\n--diff\nsarif\nsomething.py\n"
    assert (ran.stdout, ran.stderr) == (expected, "")
    assert (tmp_path / "zsh").read_text().startswith("#compdef keras-mpseq\n")
    assert "complete keras-mpseq" in (tmp_path / "tcsh").read_text()
