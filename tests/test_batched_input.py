"""Bad input to BatchedSequence: one clear sentence with the value received, before any process starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from keras_mpseq import BatchedSequence, SpecMismatchError
from tests.batched_sources import Squares, as_list
from tests.test_bad_input import message, no_process  # noqa: F401 - a fixture of every test here

COUNT = 45
SIZE = 8
X = np.zeros((COUNT, 3, 2), np.float32)
Y = np.arange(COUNT)

EQUAL = "All parts of source must be of equal length, got 45 for"
MISSING = "has paths that do not exist"


def bad_sources(folder: Path) -> list[tuple[Any, type[Exception], str]]:
    """Return sources that are none, and what is said of them."""
    with h5py.File(folder / "file.h5", "w") as file:
        file["group/x"] = X
        file["y"] = Y
        file["one"] = 1
    (folder / "text.h5").write_text("text")
    h5 = str(folder / "file.h5")
    any_of = 'source must be an array, a tuple or dict of arrays, a list of paths, "FILE.h5:/DATASET", or any object '
    any_of += "with __len__ and __getitem__ that gives samples, got "
    many = [str(folder)] * 2001 + ["x"] * 999
    name = "pass a list of paths, or name an HDF5 dataset as "
    return [
        ((X, Y[:3]), ValueError, f"{EQUAL} source[0] and 3 for source[1]."),
        ({"x": X, "y": (Y, [1])}, ValueError, f"{EQUAL} source['x'] and 1 for source['y'][1]."),
        ([], ValueError, "source must hold at least one sample, got list []."),
        ((), ValueError, "source holds no array, got tuple ()."),
        (X[:0], ValueError, "source must hold at least one sample, got ndarray "),
        (pd.DataFrame({"a": []}), ValueError, "source must hold at least one sample, got DataFrame "),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "The columns of source must have different names"),
        (5, TypeError, f"{any_of}int 5."),
        (None, TypeError, f"{any_of}NoneType None."),
        (b"abc", TypeError, f"{any_of}bytes b'abc'."),
        (iter(Y), TypeError, f"{any_of}"),
        ((X, None), TypeError, 'source[1] must be an array, a list of paths, "FILE.h5:/DATASET", or any object'),
        (np.float32(1), TypeError, f"{any_of}float32 "),
        (np.array(1), TypeError, "source must have one row for each sample, got the single value array(1)."),
        (np.ma.masked_array(Y), TypeError, "source is a masked array, whose mask would be lost: "),
        (Squares, TypeError, "source does not say how many samples it has: len() raised TypeError: "),
        (["a.jpg", "b.jpg"], FileNotFoundError, f"source {MISSING} (2 of 2), the first is 'a.jpg' (sample 0): "),
        ([folder, folder / "b"], FileNotFoundError, f"source {MISSING} (1 of 2), the first is '{folder}/b' (sam"),
        ((many, np.zeros(3000)), FileNotFoundError, f"source[0] {MISSING} (333 of the 1000 that were looked for), "),
        ("a.jpg", ValueError, f"source is the single path 'a.jpg': {name}"),
        (h5, ValueError, f"source is the single path '{h5}': {name}\"FILE.h5:/DATASET\"; it has /group/x, /one, /y."),
        (f"{h5}:", ValueError, f"source is the single path '{h5}:': {name}"),
        (f"{h5}:/z", ValueError, f"source names no dataset of the file, got '{h5}:/z'; it has /group/x, /one, /y."),
        ((X, f"{h5}:/group"), ValueError, f"source[1] names no dataset of the file, got '{h5}:/group'; it h"),
        (f"{h5}:/one", ValueError, f"source must have one row for each sample, got the single value '{h5}:/one'."),
        (f"{folder}/no.h5:/x", FileNotFoundError, f"source is in a file that does not exist: '{folder}/no.h5', got "),
        (f"{folder}/text.h5:/x", ValueError, "source is in a file that h5py cannot open (OSError: "),
    ]  # fmt: skip


def test_bad_sources(tmp_path: Path) -> None:
    for source, kind, start in bad_sources(tmp_path):
        assert message(kind, lambda source=source: BatchedSequence(source, SIZE)).startswith(start), source


def test_open_hdf5_objects_are_refused_with_the_name_to_pass(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["x"] = X
        for opened, name in ((file["x"], "x"), (file, "DATASET")):
            assert message(TypeError, lambda opened=opened: BatchedSequence(opened, SIZE)) == (
                "source is an open HDF5 object, which belongs to this process: pass where it lies, as in "
                f"'{tmp_path}/file.h5:/{name}'."
            )


def test_paths_are_not_looked_for_where_they_may_be_missing() -> None:
    BatchedSequence(["a.jpg", "b.jpg"], 2, on_error="skip")
    BatchedSequence(np.array(["a.jpg", "b.jpg"]), 2)
    BatchedSequence(["https://a/b.jpg", "https://a/c.jpg"], 2)
    BatchedSequence(["It rains.", "See fig.a"], 2)


INT = "{} must be an int of 1 or more, got {!r}."
FLAG = "{} must be True or False, got {!r}."
ON_ERROR = 'on_error must be one of "raise", "skip", got {!r}.'
WEIGHT = "sample_weight must be an array of one number for each sample, got "
PAD = "pad must be True, False, a number, or a tuple or dict of these for each leaf of a sample, got {!r}."
BUCKET = 'bucket_by_length must be "auto", a function that returns the length of a sample, or an array of lengths, got '
TRANSFORM = "transform must be a function transform(sample, rng) or None, got {}."
BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    *[({"batch_size": value}, ValueError, INT.format("batch_size", value)) for value in (0, -1, True, "8", 8.0, None)],
    *[
        ({"pad": True, "pad_to_multiple_of": value}, ValueError, INT.format("pad_to_multiple_of", value))
        for value in (0, True, "8", 1.5)
    ],
    ({"pad_to_multiple_of": 4}, ValueError, "pad_to_multiple_of=4 needs pad: pass pad=True as well."),
    *[
        ({name: value}, TypeError, FLAG.format(name, value))
        for name in ("shuffle", "drop_remainder")
        for value in (None, 1, "yes")
    ],
    *[({"on_error": value}, ValueError, ON_ERROR.format(value)) for value in ("ignore", None, True)],
    *[({"pad": value}, ValueError, PAD.format(value)) for value in ("zeros", None, (), [0, None], {"a": {1}})],
    ({"transform": 3}, TypeError, TRANSFORM.format("int 3")),
    ({"transform": "scale"}, TypeError, TRANSFORM.format("str 'scale'")),
    ({"transform": lambda sample: sample}, TypeError, "transform must take (sample, rng), got <lambda>(sample): "),
    ({"sample_weight": Y[:3]}, ValueError, "sample_weight must have one number for each of 45 samples, got 3."),
    ({"sample_weight": "balanced"}, TypeError, f"{WEIGHT}str 'balanced'."),
    ({"sample_weight": X}, TypeError, f"{WEIGHT}ndarray "),
    ({"bucket_by_length": "len"}, TypeError, f"{BUCKET}str 'len'."),
    ({"bucket_by_length": True}, TypeError, f"{BUCKET}bool True."),
    ({"bucket_by_length": [[1], [2, 3]]}, TypeError, f"{BUCKET}list [[1], [2, 3]]."),
    ({"bucket_by_length": Y[:3]}, ValueError, "bucket_by_length must have one length for each of 45 samples, got 3."),
    (
        {"drop_remainder": True, "batch_size": 46},
        ValueError,
        "drop_remainder=True leaves no batch: source has 45 samples, and batch_size is 46.",
    ),
    ({"workers": -1}, ValueError, "workers must be an int of 0 or more, got -1."),
    ({"seed": 1.5}, ValueError, "seed must be an int of 0 or more, got 1.5."),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "kind", "sentence"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    text = message(kind, lambda: BatchedSequence((X, Y), **{"batch_size": SIZE, **arguments}))
    assert text.startswith(sentence) if sentence.endswith(" ") else text == sentence


def test_weights_need_pairs() -> None:
    for source in (X, (X, Y, Y), {"x": X, "y": Y}):
        assert message(ValueError, lambda source=source: BatchedSequence(source, SIZE, sample_weight=Y)) == (
            "sample_weight needs samples (x, y): source must be a tuple of two, or transform given."
        )
    with pytest.raises(SpecMismatchError, match=r"^sample_weight needs samples \(x, y\), and the batch is a ndarray\."):
        BatchedSequence(X, SIZE, sample_weight=Y, transform=as_list)[0]


def test_lengths_of_paths_mean_nothing(tmp_path: Path) -> None:
    assert message(ValueError, lambda: BatchedSequence([tmp_path], 1, bucket_by_length="auto")).startswith(
        'bucket_by_length="auto" takes the length of what the source holds, and these are paths: pass a function'
    )
    assert message(ValueError, lambda: BatchedSequence(Y, 1, bucket_by_length="auto")).startswith(
        'bucket_by_length="auto" takes the length of the first part of a sample, and that of sample 0 is int64 '
    )
