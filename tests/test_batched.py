"""BatchedSequence: every kind of source against a plain loop, shuffling, padding, skipping, memory, bad input."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import optree
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_mpseq import (
    BatchedSequence,
    Loader,
    SpecMismatchError,
    StatefulGetitemError,
    UnsupportedLeafError,
    UserCodeError,
    to_dataset,
)
from tests.batched_sources import (
    BAD,
    Given,
    Placed,
    Squares,
    Structured,
    always_wrong,
    as_list,
    decoded,
    draw,
    in_place,
    modules,
    noisy,
    of_file,
    of_row,
    pair_or_error,
    pid,
    scaled,
)
from tests.sequences import address, frozen, place_in_memory_file

COUNT = 45
SIZE = 8
X = np.random.default_rng(0).normal(size=(COUNT, 3, 2)).astype(np.float32)
Y = np.arange(COUNT)
WEIGHTS = np.linspace(0, 1, COUNT)
RAGGED = [np.arange(length, dtype=np.int32) for length in np.random.default_rng(1).integers(0, 9, COUNT)]
BOTH = pytest.mark.parametrize("workers", [0, 2])


def epochs_of(sequence: Any, epochs: int = 1, **options: Any) -> list[list[Any]]:
    """Return all batches of some epochs."""
    with Loader(sequence, **{"workers": 0, **options}) as loader:
        return [optree.tree_map(_copied, list(loader)) for _ in range(epochs)]


def _copied(leaf: np.ndarray) -> np.ndarray:
    # Texts as an array that has them in its bytes, which are what is compared.
    return np.array(leaf.tolist()) if leaf.dtype.kind in "OU" else np.copy(leaf)


def batches_of(sequence: Any, **options: Any) -> list[Any]:
    """Return all batches of one epoch."""
    return epochs_of(sequence, **options)[0]


def by_hand(samples: list[Any], size: int = SIZE, stack: Callable[..., Any] = np.stack) -> list[Any]:
    """Return what a plain loop makes of samples."""
    parts = [samples[first : first + size] for first in range(0, len(samples), size)]
    return [optree.tree_map(lambda *leaves: stack(leaves), *part) for part in parts]


def text(leaf: Any) -> Any:
    """Stack arrays, numbers, or texts."""
    return np.array([str(one) for one in leaf]) if isinstance(leaf[0], (str, Path)) else np.stack(leaf)


# --- sources ----------------------------------------------------------------------------------------


def sources(folder: Path) -> dict[str, tuple[Any, list[Any], Any]]:
    """Return sources, the samples that they hold, and a transform."""
    with h5py.File(folder / "file.h5", "w") as file:
        file["group/x"] = X
        file["y"] = Y
        file["text"] = [f"text {y}" for y in Y]
    h5 = f"{folder / 'file.h5'}:"
    np.save(folder / "x.npy", X)
    memmap = np.load(folder / "x.npy", mmap_mode="r")
    paths = [folder / f"{number}.npy" for number in range(COUNT)]
    for path, x in zip(paths, X, strict=True):
        np.save(path, x)
    strings = [f"ä {y}" for y in Y]
    frame = pd.DataFrame({"a": Y / 2, "b": Y, "name": ["one" if y % 2 else "other" for y in Y]})
    rows = [{"a": y / 2, "b": y, "name": "one" if y % 2 else "other"} for y in Y]
    sparse = np.lib.stride_tricks.as_strided(X.copy(), (COUNT // 2, 3, 2), (48, 8, 4))
    return {
        "array": (X, list(X), None),
        "tuple": ((X, Y), list(zip(X, Y, strict=True)), None),
        "dict": ({"x": X, "y": (Y, Y * 2)}, [{"x": x, "y": (y, y * 2)} for x, y in zip(X, Y, strict=True)], None),
        "memmap": (memmap, list(X), None),
        "part of a memmap": (memmap[5:30], list(X[5:30]), None),
        "Fortran order": ({"x": np.asfortranarray(X)}, [{"x": x} for x in X], None),
        "strided": (sparse, list(sparse), None),
        "big-endian": (X.astype(">f4"), list(X), None),
        "strings": (np.array(strings), [np.str_(one) for one in strings], None),
        "a list of strings": (strings, strings, None),
        "a list of arrays": (list(X), list(X), None),
        "a list of numbers": (Y.tolist(), list(Y), None),
        "lists of numbers": ([[1, 2], [3, 4], [5, 6]], [np.array(one) for one in ([1, 2], [3, 4], [5, 6])], None),
        "an object": (Squares(COUNT), [Squares(COUNT)[index] for index in range(COUNT)], None),
        "HDF5": (h5 + "/group/x", list(X), None),
        "HDF5 in a tuple": ((h5 + "group/x", h5 + "y"), list(zip(X, Y, strict=True)), None),
        "HDF5 text": ({"t": h5 + "/text"}, [{"t": f"text {y}"} for y in Y], None),
        "DataFrame": (frame, rows, None),
        "rows of a DataFrame": (frame, [of_row(row, np.random.default_rng()) for row in rows], of_row),
        "Series": (frame["b"], list(Y), None),
        "paths": (paths, [(x, "Path") for x in X], of_file),
        "paths as str": ([str(path) for path in paths], [(x, "str") for x in X], of_file),
        "paths and labels": ((paths, Y), [(str(path), y) for path, y in zip(paths, Y, strict=True)], None),
        "torch": (torch_of(X), list(X), None),
        "tf": (keras.ops.convert_to_tensor(X), list(X), None),
    }


def torch_of(array: np.ndarray) -> Any:
    """Return a torch tensor, or the array where torch is not installed."""
    try:
        import torch
    except ImportError:
        return array
    return torch.from_numpy(array)


KINDS = ["array", "tuple", "dict", "memmap", "part of a memmap", "Fortran order", "strided", "big-endian", "strings"]
KINDS += ["a list of strings", "a list of arrays", "a list of numbers", "lists of numbers", "an object", "HDF5"]
KINDS += ["HDF5 in a tuple", "HDF5 text", "DataFrame", "rows of a DataFrame", "Series", "paths", "paths as str"]
KINDS += ["paths and labels", "torch", "tf"]


@pytest.mark.parametrize("kind", KINDS)
def test_sources_give_what_a_plain_loop_gives(kind: str, tmp_path: Path) -> None:
    made = sources(tmp_path)
    assert list(made) == KINDS
    source, samples, transform = made[kind]
    sequence = BatchedSequence(source, SIZE, transform=transform)
    expected = [frozen(batch) for batch in by_hand(samples, stack=text)]
    assert len(sequence) == len(expected)
    for workers in (0, 2):
        batches = batches_of(sequence, workers=workers)
        assert [frozen(batch) for batch in batches] == expected
    shuffled = BatchedSequence(source, SIZE, transform=transform, shuffle=True)
    rows = [row for batch in batches_of(shuffled) for row in unstacked(batch)]
    assert sorted(rows) == sorted(row for batch in by_hand(samples, stack=text) for row in unstacked(batch))


def unstacked(batch: Any) -> list[str]:
    """Return each sample of a batch as a text."""
    leaves = optree.tree_leaves(batch)
    return [
        repr([leaf[row].tolist() if leaf.dtype != object else leaf[row] for leaf in leaves])
        for row in range(len(leaves[0]))
    ]


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_the_same_batches_for_any_number_of_workers(launcher: str) -> None:
    sequence = BatchedSequence((X, Y), SIZE, transform=noisy, shuffle=True, seed=3)
    expected = frozen(epochs_of(sequence, epochs=3))
    assert frozen(epochs_of(sequence, epochs=3, workers=2, launcher=launcher)) == expected
    # Of two processes the second has one whole epoch to itself, and the batches come in another order.
    shuffled = epochs_of(sequence, epochs=2, workers=2, shuffle=True, partition="stride", launcher=launcher)
    assert sorted(map(repr, map(frozen, shuffled[1]))) == sorted(map(repr, expected[1][1][1]))


def test_two_epochs_at_a_time_and_another_seed() -> None:
    sequence = BatchedSequence((X, Y), SIZE, shuffle=True, seed=3)
    first, second = ([y.tolist() for _, y in epoch] for epoch in epochs_of(sequence, 2))
    with Loader(sequence, workers=2) as loader:
        both = zip(iter(loader), iter(loader), strict=True)
        assert [(a[1].tolist(), b[1].tolist()) for a, b in both] == list(zip(first, second, strict=True))
    for seeded in (BatchedSequence((X, Y), SIZE, shuffle=True, seed=4), sequence):
        other = [y.tolist() for _, y in batches_of(seeded, workers=2, seed=4)]
        assert other == [y.tolist() for _, y in batches_of(BatchedSequence((X, Y), SIZE, shuffle=True, seed=4))]
        assert other != first


def test_shuffled_epochs_are_permutations_and_differ() -> None:
    epochs = epochs_of(BatchedSequence(Y, SIZE, shuffle=True), epochs=5)
    drawn = [np.concatenate(epoch).tolist() for epoch in epochs]
    assert [sorted(epoch) for epoch in drawn] == [Y.tolist()] * 5
    assert len({tuple(epoch) for epoch in [*drawn, Y.tolist()]}) == 6


def test_the_generator_of_a_sample_depends_on_no_batch() -> None:
    runs = []
    for size, shuffle, workers in ((8, False, 0), (8, True, 2), (3, True, 0), (45, False, 2)):
        epochs = epochs_of(BatchedSequence(Y, size, transform=draw, shuffle=shuffle), epochs=2, workers=workers)
        runs.append([{int(y): int(d) for ys, ds in epoch for y, d in zip(ys, ds, strict=True)} for epoch in epochs])
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert len({value for epoch in runs[0] for value in epoch.values()}) == 2 * COUNT
    other = batches_of(BatchedSequence(Y, 45, transform=draw, seed=1))[0][1]
    assert not set(other.tolist()) & set(runs[0][0].values())


def test_generators_can_do_what_those_of_numpy_can() -> None:
    def spawns(sample: Any, rng: np.random.Generator) -> Any:
        return [child.random() for child in rng.spawn(2)] + [rng.random()]

    (batch,) = batches_of(BatchedSequence(np.zeros(2000), 2000, transform=spawns))
    assert batch.shape == (2000, 3) and len(np.unique(batch)) == 6000
    assert np.abs(batch.mean(axis=0) - 0.5).max() < 0.05
    assert np.abs(np.corrcoef(batch.T) - np.eye(3)).max() < 0.1


# --- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [None, scaled])
def test_batches_lie_in_the_slot_from_the_start(transform: Any) -> None:
    large = np.arange(200 * 3000, dtype=np.float32).reshape(200, 3000)
    sequence = Placed((large, np.arange(200)), 50, transform=transform, shuffle=True)
    assert sequence.element_spec is None
    with Loader(sequence, workers=2) as loader:
        for x, y, places in loader:
            here = [place_in_memory_file(address(leaf)) for leaf in (x, y)]
            assert here == [tuple(place) for place in places.tolist()]
            assert (x == large[y]).all()


def test_drop_remainder() -> None:
    sequence = BatchedSequence(Y, SIZE, drop_remainder=True, shuffle=True)
    first, second = epochs_of(sequence, epochs=2)
    assert len(sequence) == COUNT // SIZE == len(first)
    assert {len(batch) for batch in first + second} == {SIZE}
    left = [set(Y) - set(np.concatenate(epoch)) for epoch in (first, second)]
    assert [len(one) for one in left] == [COUNT % SIZE] * 2
    assert left[0] != left[1]


@BOTH
@pytest.mark.parametrize("transform", [None, scaled])
def test_weights_are_the_third_part(workers: int, transform: Any) -> None:
    sequence = BatchedSequence((X, Y), SIZE, transform=transform, sample_weight=WEIGHTS, shuffle=True)
    for x, y, weight in batches_of(sequence, workers=workers):
        assert (X[y] == x).all() and (WEIGHTS[y] == weight).all()


def test_weights_of_ints_are_floats_and_follow_what_is_skipped() -> None:
    sequence = BatchedSequence((X, Y), SIZE, transform=pair_or_error, sample_weight=Y * 2, on_error="skip")
    for _, y, weight in batches_of(sequence):
        assert weight.dtype == np.float32 and (weight == 2 * y).all()


def test_element_spec_says_what_batches_are() -> None:
    def declared(sequence: BatchedSequence) -> list[tuple[Any, ...]]:
        return [(leaf.shape, leaf.dtype) for leaf in optree.tree_leaves(sequence.element_spec, is_leaf=_is_spec)]

    f4, i8 = np.dtype(np.float32), np.dtype(np.int64)
    assert declared(BatchedSequence((X, Y), SIZE)) == [((None, 3, 2), f4), ((None,), i8)]
    assert declared(BatchedSequence((X, Y), 9)) == [((9, 3, 2), f4), ((9,), i8)]
    assert declared(BatchedSequence((X, Y), SIZE, drop_remainder=True, sample_weight=Y)) == [
        ((8, 3, 2), f4),
        ((8,), i8),
        ((8,), f4),
    ]
    for sequence in (BatchedSequence(X, SIZE, transform=draw), BatchedSequence(RAGGED, SIZE, pad=True)):
        assert sequence.element_spec is None
    assert BatchedSequence(np.zeros(4, "M8[s]"), 2).element_spec is None
    for source in ((X, Y), {"text": np.array(["a", "b"] * 4)}, [b"1", b"2"]):
        sequence = BatchedSequence(source, 2)
        assert len(list(to_dataset(sequence, workers=0, element_spec=sequence.element_spec))) == len(sequence)


def _is_spec(node: Any) -> bool:
    return hasattr(node, "dtype")


def test_an_index_out_of_range() -> None:
    sequence = BatchedSequence(Y, SIZE)
    for index in (-1, 6, 100):
        with pytest.raises(IndexError, match=rf"^index must be from 0 to 5, got {index}\.$"):
            sequence[index]
    assert np.concatenate(list(sequence)).tolist() == Y.tolist()


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_workers_stay_light(launcher: str, tmp_path: Path) -> None:
    for source in (pd.DataFrame({"a": Y}), X):
        sequence = BatchedSequence(source, COUNT, transform=modules)
        with Loader(sequence, workers=2, launcher=launcher) as loader:
            for names in loader:
                loaded = {name.partition(".")[0] for name in names[0].split()}
                assert "keras_mpseq" in loaded
                assert loaded & {"keras", "tensorflow", "pandas", "h5py", "scipy", "PIL", "torch"} == set()


# --- padding ----------------------------------------------------------------------------------------

RAGGED_ARRAYS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=9).map(
    lambda shapes: [np.arange(1, a * b + 1).reshape(a, b) for a, b in shapes]
)


@settings(deadline=None, max_examples=60)
@given(RAGGED_ARRAYS, st.integers(1, 4), st.sampled_from([True, 0, -7]), st.sampled_from([None, 1, 4]))
def test_padding_fills_up_to_the_largest(arrays: list[Any], size: int, pad: Any, multiple: int | None) -> None:
    sequence = BatchedSequence(arrays, size, pad=pad, pad_to_multiple_of=multiple)
    position = 0
    for index in range(len(sequence)):
        batch = sequence[index]
        part = arrays[position : position + size]
        position += size
        assert len(batch) == len(part)
        shapes = np.array([array.shape for array in part])
        for axis, (largest, found) in enumerate(zip(shapes.max(axis=0), batch.shape[1:], strict=True)):
            # The only leaf with dimensions: its length is rounded in every batch.
            rounded = multiple and (axis == 0 or (shapes[:, axis] != largest).any())
            assert found == (-(-largest // multiple) * multiple if rounded else largest)
        for row, array in zip(batch, part, strict=True):
            inside = np.zeros(row.shape, bool)
            inside[: array.shape[0], : array.shape[1]] = True
            assert (row[inside].reshape(array.shape) == array).all()
            assert (row[~inside] == (0 if pad is True else pad)).all()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=300),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)
def test_buckets_hold_every_sample_once(lengths: list[int], size: int, shuffle: bool, drop: bool, epoch: int) -> None:
    if drop and len(lengths) < size:
        return
    numbers = np.arange(len(lengths))
    sequence = BatchedSequence(numbers, size, bucket_by_length=np.array(lengths), shuffle=shuffle, drop_remainder=drop)
    batches = epochs_of(sequence, epochs=epoch + 1)[epoch]
    drawn = np.concatenate(batches)
    assert len(set(drawn.tolist())) == len(drawn) == (len(sequence) * size if drop else len(lengths))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert frozen(batches) == frozen(epochs_of(sequence, epochs=epoch + 1)[epoch])
    if len(lengths) <= 100 * size:  # One window: the spans of full batches do not overlap.
        spans = sorted((min(part), max(part)) for part in (np.array(lengths)[batch] for batch in batches))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_buckets_save_padding_and_stay_random() -> None:
    arrays = [np.zeros(length) for length in np.random.default_rng(0).integers(1, 1000, 2000)]
    padded = {}
    for bucket in (None, "auto", len, [len(array) for array in arrays]):
        sequence = BatchedSequence(arrays, 20, pad=True, bucket_by_length=bucket, shuffle=True)
        padded[str(bucket)[:6]] = sum(batch.size for batch in batches_of(sequence))
    least = sum(array.size for array in arrays)
    plain, *bucketed = padded.values()
    assert plain > 1.8 * least
    assert len(set(bucketed)) == 1 and bucketed[0] < 1.05 * least
    numbers = BatchedSequence(np.arange(2000), 20, bucket_by_length=[len(array) for array in arrays], shuffle=True)
    first, second = epochs_of(numbers, epochs=2)
    together = [{frozenset(batch.tolist()) for batch in epoch} for epoch in (first, second)]
    assert len(together[0] & together[1]) < 50
    by_length = [len(arrays[batch[0]]) for batch in first]
    assert by_length not in (sorted(by_length), sorted(by_length)[::-1])


@BOTH
def test_padding_leaf_by_leaf(workers: int) -> None:
    source = ([np.arange(n) for n in (3, 1, 4)], {"text": [["a"], ["b", "c"], []], "y": np.arange(6).reshape(3, 2)})
    sequence = BatchedSequence(source, 3, pad=(-1, {"text": "-", "y": False}), pad_to_multiple_of=3)
    ((tokens, rest),) = batches_of(sequence, workers=workers)
    assert tokens.tolist() == [[0, 1, 2, -1, -1, -1], [0, -1, -1, -1, -1, -1], [0, 1, 2, 3, -1, -1]]
    assert rest["text"].tolist() == [["a", "-", "-"], ["b", "c", "-"], ["-", "-", "-"]]
    assert rest["y"].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_lengths_that_agree_are_rounded_where_they_are_meant() -> None:
    equal = [np.ones(5), np.ones(5)]
    one_hot = np.eye(2, 3)

    def shapes(pad: Any) -> list[tuple[int, ...]]:
        (batch,) = batches_of(BatchedSequence((equal, one_hot), 2, pad=pad, pad_to_multiple_of=4))
        return [leaf.shape for leaf in batch]

    assert shapes(True) == [(2, 5), (2, 3)]
    assert shapes((0, False)) == [(2, 8), (2, 3)]
    assert batches_of(BatchedSequence((equal, Y[:2]), 2, pad=True, pad_to_multiple_of=4))[0][0].shape == (2, 8)


def test_an_empty_list_has_the_dtype_of_the_others() -> None:
    sequence = BatchedSequence([np.arange(n) for n in (0, 2, 1)], 3, transform=as_list, pad=True)
    assert frozen(batches_of(sequence)) == frozen([np.array([[0, 0], [0, 1], [0, 0]])])


# --- samples that do not fit, or fail ---------------------------------------------------------------

IN_4 = "in sample 4, and"
OF_BATCH = "in sample 0 of the same batch (index 0, epoch 0, attempt 1). "
OF_BATCH += "Return the same structure, dtypes and shapes for every sample"


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"a": np.zeros((2, 4), np.float32), "b": 1},
            f"Leaf sample['a'] is float32(2, 4) {IN_4} float32(2, 3) {OF_BATCH}, or pass pad=True.",
        ),
        ({"a": np.zeros((2, 3)), "b": 1}, f"Leaf sample['a'] is float64(2, 3) {IN_4} float32(2, 3) {OF_BATCH}."),
        ({"a": np.zeros((2, 3), np.float32), "b": 1.5}, f"Leaf sample['b'] is float64() {IN_4} int64() {OF_BATCH}."),
        ({"a": np.zeros((2, 3), np.float32)}, "Sample 4 has the structure {'a': *}, and sample 0 of the same "),
        (None, "Sample 4 is None (index 0, epoch 0, attempt 1). Return "),
        ({"a": {1}, "b": 1}, "Leaf sample['a'] of sample 4 is of type set, which makes no array of numbers or "),
        ({"a": [np.zeros(2), np.zeros(2)], "b": 1}, "Sample 4 has the structure"),
        ({"a": [[1, 2], [3]], "b": 1}, "Leaf sample['a'] of sample 4 is of type list and makes no array (ValueError: "),
        ({"a": np.ma.masked_array([1], [True]), "b": 1}, "Leaf sample['a'] of sample 4 is a masked array, whose mask"),
    ],
)  # fmt: skip
def test_samples_that_differ_are_named(other: Any, sentence: str) -> None:
    for options in ({}, {"on_error": "skip"}):
        with pytest.raises(SpecMismatchError) as caught:
            batches_of(BatchedSequence(Structured(other), 6, **options))
        assert str(caught.value).startswith(sentence)
        assert (caught.value.index, caught.value.epoch) == (0, 0)
        assert isinstance(caught.value, UnsupportedLeafError) == (" array" in sentence)


def test_padding_refuses_what_it_cannot_fill() -> None:
    def error(*arrays: Any, pad: Any) -> str:
        with pytest.raises((SpecMismatchError, UserCodeError)) as caught:
            batches_of(BatchedSequence(Given(arrays), 2, pad=pad), workers=2)
        return str(caught.value).partition(" (index")[0]

    bytes_ = [np.zeros(2, np.uint8), np.zeros(3, np.uint8)]
    unfit = "The pad value {} does not fit leaf sample, which is of dtype uint8"
    for value in (-1, 256, 0.5, float("nan")):
        assert unfit.format(repr(value)) in error(*bytes_, pad=value)
    assert "Leaf sample is float64(2, 2) in sample 1, and float64(2) in sample 0" in error(
        np.zeros(2), np.zeros((2, 2)), pad=True
    )
    assert error(*bytes_, pad=(0, 0)) == "pad has another structure than the samples: (0, 0), and sample 0 is *"
    assert "sample[1] is uint8(3) in sample 1, and uint8(2) in sample 0" in error(
        (0, bytes_[0]), (0, bytes_[1]), pad=(0, False)
    )


@BOTH
def test_an_exception_names_the_sample(workers: int) -> None:
    with pytest.raises(UserCodeError, match=r"^transform of sample 3 raised ValueError: y is 3 \(index 0, ") as caught:
        batches_of(BatchedSequence((X, Y), SIZE, transform=pair_or_error), workers=workers)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "in pair_or_error" in caught.value.traceback


@BOTH
@pytest.mark.parametrize("array", [X, np.zeros((COUNT, 40_000), np.float32)], ids=["small", "shared"])
def test_the_source_cannot_be_written_to(workers: int, array: Any) -> None:
    with pytest.raises(StatefulGetitemError, match=r"^transform wrote to sample 0, which is a view of the source "):
        batches_of(BatchedSequence(array, SIZE, transform=in_place), workers=workers)


@BOTH
def test_bad_samples_leave_no_hole(workers: int) -> None:
    sequence = BatchedSequence((X, Y), SIZE, transform=pair_or_error, on_error="skip")
    batches = batches_of(sequence, workers=workers)
    assert [len(y) for _, y in batches] == [6, 7, 8, 8, 8, 5]
    good = [number for number in range(COUNT) if number not in BAD]
    assert np.concatenate([y for _, y in batches]).tolist() == good
    assert (np.concatenate([x for x, _ in batches]) == X[good]).all()


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Real JPEG files, of which the third is cut off, the fifth no image, and the sixth missing."""
    paths = []
    for number in range(8):
        photo = load_sample_images().images[number % 2][40 * number : 40 * number + 64, :96]
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(photo).save(paths[-1])
    paths[2].write_bytes(paths[2].read_bytes()[:800])
    paths[4].write_text("no image")
    paths[5].unlink()
    return paths


@BOTH
def test_truncated_images_are_skipped(photographs: list[Path], workers: int) -> None:
    sequence = BatchedSequence((photographs, Y[:8]), 4, transform=decoded, on_error="skip")
    batches = batches_of(sequence, workers=workers)
    assert [(images.shape, labels.tolist()) for images, labels in batches] == [
        ((3, 64, 96, 3), [0, 1, 3]),
        ((2, 64, 96, 3), [6, 7]),
    ]


def test_truncated_images_are_an_error_that_names_the_file(photographs: list[Path]) -> None:
    photographs[5].touch()
    sentence = re.escape(f"transform of sample 2 ('{photographs[2]}') raised OSError: image file is truncated")
    with pytest.raises(UserCodeError, match=f"^{sentence}"):
        batches_of(BatchedSequence((photographs, Y[:8]), 4, transform=decoded), workers=2)


@BOTH
def test_the_log_names_what_was_skipped(photographs: list[Path], workers: int, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "keras_mpseq"):
        batches_of(BatchedSequence((photographs, Y[:8]), 4, transform=decoded, on_error="skip"), workers=workers)
    [text] = [record.getMessage() for record in caplog.records]
    for number in (2, 4, 5):
        assert f"sample {number} ('{photographs[number]}')" in text
    assert "image file is truncated" in text


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_next_sample_stands_in_where_a_batch_lost_all(workers: int, shuffle: bool) -> None:
    options = {"transform": pair_or_error, "on_error": "skip", "shuffle": shuffle, "sample_weight": Y}
    plain = batches_of(BatchedSequence((X, Y), 1, shuffle=shuffle))
    order = [int(y[0]) for _, y in plain]
    good = [next(y for y in order[at:] + order if y not in BAD) for at in range(COUNT)]
    for x, y, weight in batches_of(BatchedSequence((X, Y), 1, **options), workers=workers):
        number = good.pop(0)
        assert (y.tolist(), weight.tolist()) == ([number], [number])
        assert (x[0] == X[number]).all()


@BOTH
@pytest.mark.parametrize("size", [SIZE, 2 * COUNT])
def test_that_all_samples_fail_is_an_error(workers: int, size: int) -> None:
    with pytest.raises(
        UserCodeError, match=r"^All 45 samples failed: transform of sample \d+ raised OSError: no such "
    ):
        batches_of(BatchedSequence(X, size, transform=always_wrong, on_error="skip"), workers=workers)


# --- training ---------------------------------------------------------------------------------------


class Seen(keras.Model):
    """Notes the labels that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[list[int]] = []
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.labels.append(np.asarray(data[1]).tolist())
        return {"loss": keras.ops.mean(self(data[0]))}


def fitted(sequence: BatchedSequence, **options: Any) -> list[list[int]]:
    """Fit to *sequence* and return the labels of every batch."""
    model = Seen()
    model.compile(run_eagerly=True)
    model.fit(sequence, verbose=0, **options)
    return model.labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transform", [None, scaled])
def test_fit(transform: Any, dtype: Any) -> None:
    sequence = BatchedSequence(
        (X.reshape(COUNT, 6).astype(dtype), Y), SIZE, transform=transform, shuffle=True, workers=2
    )
    expected = [y.tolist() for epoch in epochs_of(sequence, epochs=2) for _, y in epoch]
    assert fitted(sequence, epochs=2, shuffle=False) == expected


def test_fit_with_weights_and_validation() -> None:
    sequence = BatchedSequence((X.reshape(COUNT, 6), Y[:, None] / 50), SIZE, sample_weight=WEIGHTS, workers=2)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(sequence, epochs=2, validation_data=sequence, verbose=0).history
    expected = model.evaluate(X.reshape(COUNT, 6), Y[:, None] / 50, sample_weight=WEIGHTS, batch_size=SIZE, verbose=0)
    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-4)


def test_fit_goes_on_where_a_batch_lost_all_samples() -> None:
    sequence = BatchedSequence((X.reshape(COUNT, 6), Y), 1, transform=pair_or_error, on_error="skip", workers=2)
    labels = fitted(sequence, epochs=2, shuffle=False)
    assert len(labels) == 2 * COUNT
    assert {y for (y,) in labels} == set(Y.tolist()) - set(BAD)


@pytest.mark.parametrize("weights", [None, np.ones(16)], ids=["", "weights"])
def test_fit_to_batches_of_any_size_after_two_of_one(weights: Any) -> None:
    samples = [np.ones((length, 3), np.float32) for length in [4] * 8 + [7] * 4 + [2] * 4]
    for pad in (True, (0, False)):
        sequence = BatchedSequence((samples, np.zeros((16, 1))), 4, pad=pad, sample_weight=weights, workers=2)
        model = keras.Sequential([keras.layers.Dense(2), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(sequence, verbose=0, shuffle=False)
        dataset = to_dataset(sequence, workers=0)
        assert dataset.element_spec[0].shape.as_list() == [None, None, 3]
        assert [batch[0].shape[1] for batch in dataset] == [4, 4, 7, 2]


# --- memory -----------------------------------------------------------------------------------------

MOST_PRIVATE = 100e6


def private_bytes(loader: Loader, batches: int) -> tuple[int, list[int]]:
    """Take batches, and return the private memory of all workers, and of each."""
    for number, batch in enumerate(loader, 1):
        batch[:, ::512].sum()  # Looked at, as training would.
        if number == batches:
            break
    processes = psutil.Process().children(recursive=True)
    workers = [process for process in processes if not process.children()]
    each = [process.memory_full_info().uss for process in workers]
    return sum(each), each


@pytest.mark.slow
def test_a_memmap_of_4_gb_is_nobodys_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(1 << 32)
    array = np.memmap(path, np.uint8, "r", shape=(1 << 16, 1 << 16))
    with Loader(BatchedSequence(array, 32, shuffle=True), workers=4) as loader:
        total, each = private_bytes(loader, 400)  # 800 MB
        assert len(each) == 4
        assert total < MOST_PRIVATE, each
        assert loader.stats().bytes_shared == 0


@pytest.mark.slow
def test_an_array_of_1_gb_is_there_once(tmp_path: Path) -> None:
    array = np.zeros((1 << 15, 1 << 13), np.float32)
    with Loader(BatchedSequence({"x": array}, 32, shuffle=True), workers=4) as loader:
        total, each = private_bytes(_Leaf(loader), 1 << 10)  # All of it.
        assert len(each) == 4
        assert total < MOST_PRIVATE, each
        assert loader.stats().bytes_shared == array.nbytes
        assert loader.stats().bytes_pickled < 100_000


class _Leaf:
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return (batch["x"] for batch in self.loader)


def test_many_paths_are_shared_and_not_pickled() -> None:
    names = np.array([f"/data/images/{number:012}.jpg" for number in range(200_000)], object)
    with Loader(BatchedSequence(names, 1000, transform=pid), workers=2) as loader:
        assert loader.stats().bytes_shared > 3_000_000
        assert loader.stats().bytes_pickled < 100_000
