"""`keras-mpseq migrate`: what it changes, what it leaves to do, in which form it says so, and its exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from keras_mpseq.cli.main import main

LOADING = """\
import numpy as np
from keras.utils import Sequence


class Volumes(Sequence):
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return np.load(self.names[index])
"""
TRAINING = """\
import keras
from loading import Volumes


def train(model: keras.Model, names):
    volumes = Volumes(names)
    model.fit_generator(volumes, 10, workers=4, use_multiprocessing=True)
"""
BY_HAND = """\
import multiprocessing

import keras
import numpy as np
from keras.utils.data_utils import OrderedEnqueuer  # here: keras.utils.data_utils is no module of Keras 3


def batches(names):
    while True:
        yield np.load(names[0])


class Slow(keras.utils.Sequence):  # here: Slow keeps its base: SafeSequence has epoch and rng of its own
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rng, self.epoch = None, 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.epoch += 1  # here: self.epoch is written while serving a batch
        return np.full(3, index)


class Quick(keras.utils.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.full(3, index)


def train(model, names, given):
    multiprocessing.set_start_method("spawn")  # here: set_start_method() has no effect on workers
    enqueuer = OrderedEnqueuer(given)  # here: Keras 3 has no OrderedEnqueuer
    generator = batches(names)  # here: batches() is a generator: no other process can build its batches
    model.fit(generator, epochs=2)
    model.fit(given, epochs=2, workers=4)  # here: fit() of Keras 3 has no argument workers
    quick = Quick(workers=2)
    validation = Quick()  # here: validation batches are built in this process
    model.fit(quick, validation_data=validation)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a project, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    for variable in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "pyproject.toml").write_text("[tool.keras-mpseq]\n")
    (tmp_path / "loading.py").write_text(LOADING)
    (tmp_path / "training.py").write_text(TRAINING)
    return tmp_path


def test_a_project_of_two_files_is_migrated_and_nothing_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out.splitlines()[:10] == [
        "loading.py",
        "  done  Volumes.__init__ calls super().__init__(**kwargs).",
        "  done  Volumes derives from SafeSequence.",
        "",
        "    --- a/loading.py",
        "    +++ b/loading.py",
        "    @@ -1,9 +1,10 @@",
        "     import numpy as np",
        "    -from keras.utils import Sequence",
        "    +from keras_mpseq import SafeSequence",
    ]
    text = (folder / "training.py").read_text()
    assert "    volumes = Volumes(names, workers=4, use_multiprocessing=True)\n" in text
    assert "    model.fit(volumes, steps_per_epoch=10)\n" in text
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == "Nothing to migrate.\n"


def test_a_diff_changes_nothing_and_is_one_that_git_applies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--diff"]) == 1
    shown = capsys.readouterr()
    assert (folder / "loading.py").read_text() == LOADING and (folder / "training.py").read_text() == TRAINING
    assert "  plan  fit_generator() becomes fit().\n" in shown.err
    assert shown.err.endswith("2 files would be changed, nothing is left.\n")
    subprocess.run(["git", "apply", "-"], input=shown.out, text=True, check=True, cwd=folder)
    assert main(["migrate", "--diff"]) == 0
    assert capsys.readouterr() == ("", "Nothing to migrate.\n")


@pytest.mark.parametrize("options", [[], ["--diff"]])
def test_what_is_left_is_listed_with_its_place_after_the_changes(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    (folder / "by_hand.py").write_text(BY_HAND)
    assert main(["migrate", "--json", *options]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["schema_version"], document["written"]) == (1, not options)
    (one,) = [file for file in document["files"] if file["path"] == "by_hand.py"]
    assert one["applied"] == ["Quick derives from SafeSequence"]
    # Our import is a line that the file has more, below the imports.
    lines = BY_HAND.splitlines()
    expected = [
        (number + (number > 5), line.partition("  # here: ")[2])
        for number, line in enumerate(lines, 1)
        if "  # here: " in line
    ]
    assert [left["line"] for left in one["left"]] == [line for line, _ in expected]
    for left, (_, message) in zip(one["left"], expected, strict=True):
        assert left["message"].startswith(message)
        assert left["remedy"] and not left["remedy"].endswith(".")
    assert document["summary"] == {"changed_files": 3, "left": len(expected)}
    assert (folder / "loading.py").read_text() == LOADING or not options


def test_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--exit-zero", "--diff"]) == 0
    (folder / "training.py").unlink()
    (folder / "loading.py").write_text(
        "import keras\nimport multiprocessing\n\nmultiprocessing.set_start_method('spawn')\n"
    )
    # What need not be done is told, and is no reason to fail.
    assert main(["migrate"]) == 0
    assert "loading.py:4:1 set_start_method() has no effect" in capsys.readouterr().out
    (folder / "by_hand.py").write_text(BY_HAND)
    assert main(["migrate"]) == 1
    assert main(["migrate", "--exit-zero"]) == 0
    assert main(["migrate", "nowhere"]) == 2
    assert main(["migrate", "--ignore", "SEQ9"]) == 2


def test_what_is_not_reported_is_not_changed(folder: Path) -> None:
    assert main(["migrate", "--exclude", "loading.py", "--ignore", "SEQ506"]) == 0
    assert (folder / "loading.py").read_text() == LOADING
    assert (folder / "training.py").read_text() == TRAINING
