"""The demo: its images, its sequence, what it measures, what it prints, and when it fails."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from rich.console import Console

from keras_mpseq import Loader, MpseqError
from keras_mpseq.cli import demo
from keras_mpseq.cli.demo import Measured, Settings, digest_of, measure, run
from keras_mpseq.cli.digits import SIZE, Digits, write_images
from tests.conftest import REPOSITORY, SCRIPT_S, Scripts

PIL_Image = pytest.importorskip("PIL.Image")

# --- images and sequence ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    """Write ten images of grey levels 0 to 16."""
    images = np.random.default_rng(0).integers(0, 17, (10, 8, 8))
    return write_images(folder, images, np.arange(10) % 3)


def digits(files: list[Path], augment: bool = True, seed: int = 0) -> Digits:
    return Digits(files, np.arange(len(files)), batch_size=4, augment=augment, seed=seed)


def epochs_of(sequence: Digits, count: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    with Loader(sequence, workers=0) as loader:
        return [list(loader) for _ in range(count)]


def test_images_lie_by_label_and_keep_their_grey_levels(folder: Path) -> None:
    image = np.arange(64).reshape(1, 8, 8) % 17
    (file,) = write_images(folder / "new" / "place", image, np.array([7]))
    assert file == folder / "new" / "place" / "7" / "0000.png"
    assert_array_equal(np.asarray(PIL_Image.open(file)), np.rint(image[0] * 255 / 16))


def test_writing_leaves_other_files_alone(folder: Path) -> None:
    place = folder / "used"
    (place / "7").mkdir(parents=True)
    other = place / "7" / "mine.txt"
    other.write_text("kept")
    for _ in range(2):
        write_images(place, np.zeros((1, 8, 8)), np.array([7]))
    assert other.read_text() == "kept"
    assert sorted(place.rglob("*.*")) == [place / "7" / "0000.png", other]


def test_batches_have_the_model_s_size_and_the_last_is_short(files: list[Path]) -> None:
    ((*full, last),) = epochs_of(digits(files), 1)
    assert [x.shape for x, _ in (*full, last)] == [(4, SIZE, SIZE, 1), (4, SIZE, SIZE, 1), (2, SIZE, SIZE, 1)]
    assert all(x.dtype == np.float32 for x, _ in (*full, last))
    assert_array_equal(last[1], [8, 9])


def test_without_augmentation_an_image_is_only_enlarged(files: list[Path]) -> None:
    first, second = epochs_of(digits(files, augment=False), 2)
    assert digest_of(first) == digest_of(second)
    x = first[0][0]
    assert x.min() >= 0 and x.max() <= 1
    # The mean over the block that a pixel of the file became is close to that pixel.
    small = x[0, ..., 0].reshape(8, SIZE // 8, 8, SIZE // 8).mean((1, 3))
    assert np.corrcoef(small.ravel(), np.asarray(PIL_Image.open(files[0])).ravel())[0, 1] > 0.95


def test_augmentation_is_a_function_of_seed_epoch_and_index(files: list[Path]) -> None:
    first, second = epochs_of(digits(files), 2)
    assert digest_of(first) == digest_of(epochs_of(digits(files), 1)[0])
    assert digest_of(first) != digest_of(second)
    assert digest_of(first) != digest_of(epochs_of(digits(files, seed=1), 1)[0])


def test_two_images_that_are_equal_are_augmented_differently(files: list[Path]) -> None:
    x, _ = digits([files[0]] * 2)[0]
    assert not np.array_equal(x[0], x[1])


def test_a_worker_needs_neither_keras_nor_tensorflow_for_the_images(scripts: Scripts) -> None:
    source = """
import sys
from keras_mpseq import role
role.in_worker = True
import keras_mpseq.cli.digits
print(sorted({"keras", "tensorflow", "rich", "sklearn"} & set(sys.modules)))
"""
    assert scripts.run(source) == "[]\n"


# --- measuring --------------------------------------------------------------------------------------


def test_batches_are_the_same_for_every_number_of_workers(files: list[Path]) -> None:
    measured = measure(digits(files), [0, 1, 3], 1)
    assert list(measured) == [0, 1, 3]
    assert len({digest for _, digest in measured.values()}) == 1
    assert all(rate > 0 for rate, _ in measured.values())


def test_the_hash_tells_bytes_dtypes_shapes_and_order_apart() -> None:
    a, b = np.arange(4, dtype=np.int32), np.zeros(4, np.int32)
    variants = [
        [(a, b)],
        [(b, a)],
        [(a,), (a,)],
        [(a, a)],
        [(a.reshape(2, 2), b)],
        [(a.astype(np.int64), b)],
        [(a.view(np.uint32), b)],
        [(a, b + 1)],
    ]
    # One hash for [(a,), (a,)] and [(a, a)]: batches of one sequence have one structure, so nothing is lost.
    assert len({digest_of(batches) for batches in variants}) == len(variants) - 1
    assert digest_of([(a, b)]) == digest_of([(a.repeat(2)[::2], b.copy())])


# --- the whole demo ---------------------------------------------------------------------------------


def test_the_quick_demo_runs_and_says_nothing_on_stderr(tmp_path: Path) -> None:
    """As `make demo` starts it: with TensorFlow's own log level, and not on a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1", "TMPDIR": str(tmp_path)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    ended = subprocess.run(
        [sys.executable, "-m", "keras_mpseq.cli.main", "demo", "--quick", "--workers", "3"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=SCRIPT_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith(f"1,797 handwritten digits become PNG files in {tmp_path}/keras_mpseq_demo_")
    assert lines[1:4] == [
        "3 worker processes decode and augment them while a small CNN trains.",
        "Then 0, 1, 2 and 3 workers build the same epoch: how fast, and are all bits equal?",
        "",
    ]
    number = r"\d+\.\d+"
    assert re.fullmatch(rf"epoch 1/1: {number} s, loss {number}, accuracy {number}, validation {number}", lines[4]), (
        ended.stdout
    )
    rows = re.findall(rf"(\d+) \S +({number}) \S +({number})x \S +(\d+)% ", ended.stdout)
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0][2] == "1.00"
    assert all(int(row[3]) <= 100 for row in rows)
    assert re.search(r"^batches identical: yes \(sha256 of 10: [0-9a-f]{12}\)$", ended.stdout, re.M)
    assert re.search(rf"^validation accuracy: {number}$", ended.stdout, re.M)
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_there_is_a_bar_for_each_epoch_and_data_stay(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, no_color=True)
    assert run(Settings(workers=0, epochs=2, seed=3, data=tmp_path / "kept", quick=True), console) == 0
    shown = screen.getvalue()
    assert "This process decodes and augments them while a small CNN trains." in shown
    for epoch in ("epoch 1/2", "epoch 2/2"):
        assert re.search(rf"{epoch} .*10/10 \d:\d\d:\d\d loss .*, accuracy .*, validation \d\.\d{{3}}", shown)
    assert len(list((tmp_path / "kept").rglob("*.png"))) == 1797


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MpseqError) as caught:
        run(Settings(data=tmp_path / place, quick=True), Console(file=io.StringIO()))
    assert str(caught.value) == (
        f"The images cannot be written to {tmp_path / place}: Not a directory. "
        "Name a directory that can be written, as in --data DIR."
    )


@pytest.mark.parametrize(
    ("digests", "accuracy", "demanding", "status", "lines"),
    [
        (["aa", "aa"], 0.95, True, 0, ["batches identical: yes (sha256 of 9: aa)", "validation accuracy: 0.950"]),
        (["aa", "aa"], 0.5, False, 0, ["batches identical: yes (sha256 of 9: aa)", "validation accuracy: 0.500"]),
        (
            ["aa", "aa"],
            0.94,
            True,
            1,
            ["batches identical: yes (sha256 of 9: aa)", "validation accuracy: 0.940, expected at least 0.95"],
        ),
        (
            ["aa", "bb"],
            0.99,
            True,
            1,
            ["batches identical: no (sha256 of 9: aa, bb)", "validation accuracy: 0.990"],
        ),
    ],
)
def test_it_fails_when_batches_differ_or_accuracy_is_low(
    digests: list[str], accuracy: float, demanding: bool, status: int, lines: list[str]
) -> None:
    screen = io.StringIO()
    measured = {count: Measured(1.0, digest) for count, digest in enumerate(digests)}
    assert demo._verdict(Console(file=screen), measured, 9, accuracy, demanding) == status
    assert screen.getvalue().splitlines() == lines


# --- TensorFlow's chatter ---------------------------------------------------------------------------


@pytest.fixture
def no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # So that what the code sets is undone.
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")


@pytest.mark.usefixtures("no_level")
def test_chatter_is_kept_back_only_inside(capfd: pytest.CaptureFixture[str]) -> None:
    with demo._without_chatter():
        os.write(2, b"chatter\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.usefixtures("no_level")
def test_chatter_is_shown_when_loading_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(ImportError), demo._without_chatter():
        os.write(2, b"why\n")
        raise ImportError
    assert capfd.readouterr().err == "why\n"


def test_chatter_is_shown_to_who_set_the_level(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with demo._without_chatter():
        os.write(2, b"wanted\n")
    assert capfd.readouterr().err == "wanted\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
