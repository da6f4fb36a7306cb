"""process_map: what `Dataset.map` gives, in order, from workers; and one clear error for each way to be wrong."""

from __future__ import annotations

import gc
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_mpseq import PayloadError, process_map
from tests import streamed
from tests.conftest import Scripts, alarm

SERIAL_AND_POOL = pytest.mark.parametrize("workers", [0, 2])


def values(dataset: tf.data.Dataset) -> list[Any]:
    return [tf.nest.map_structure(lambda tensor: tensor.numpy(), element) for element in dataset]


def bits(element: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: (np.asarray(leaf).dtype, np.asarray(leaf).tobytes()), element)


@SERIAL_AND_POOL
@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_elements_come_in_order_in_every_pass(workers: int, launcher: str) -> None:
    dataset = process_map(tf.data.Dataset.range(300), streamed.plain, workers=workers, launcher=launcher)
    assert dataset.element_spec == tf.TensorSpec((), tf.int64)
    assert dataset.cardinality() == 300
    for _ in range(3):
        assert values(dataset) == list(range(0, 600, 2))


@SERIAL_AND_POOL
def test_any_structure_comes_out(workers: int) -> None:
    dataset = process_map(tf.data.Dataset.range(20), streamed.nested, workers=workers)
    assert dataset.element_spec["pair"][0] == tf.TensorSpec((2, 3), tf.float32)
    assert dataset.element_spec["bytes"] == tf.TensorSpec((), tf.string)
    for number, element in enumerate(values(dataset)):
        assert element["number"] == number
        assert (element["pair"][0] == number).all()
        assert element["pair"][1] == (b"text %d" % number, True)
        assert element["bytes"] == b"x" * (number % 5)


@SERIAL_AND_POOL
def test_any_structure_goes_in_as_numpy_function_would_give_it(workers: int) -> None:
    source = tf.data.Dataset.from_tensors(
        (np.int8(3), np.ones((2, 2), np.float32), "text", {"a": np.float16(1.5)}, tf.constant(["é", "b"]))
    )
    dataset = process_map(
        source, lambda a, b, c, d, e: streamed.types_of(a, b, c, d["a"], e.tolist()[0]), workers=workers
    )
    assert values(dataset) == [b"int8:int8, ndarray:float32, bytes:, float16:float16, bytes: writeable=False"]
    one = process_map(tf.data.Dataset.from_tensors({"x": 1}), lambda element: element["x"], workers=workers)
    assert values(one) == [1]


@SERIAL_AND_POOL
def test_ragged_and_sparse_elements(workers: int) -> None:
    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[[1, 2], [3]], [[], [4, 5, 6]]], ragged_rank=2))
    dataset = process_map(ragged, lambda rows: rows.flat_values.sum(), workers=workers)
    assert values(dataset) == [6, 15]
    sparse = tf.data.Dataset.from_tensors(tf.SparseTensor([[0, 1], [2, 0]], [5.0, 7.0], [3, 2]))
    dataset = process_map(sparse, lambda matrix: (matrix.values, matrix.dense_shape), workers=workers)
    [(found, shape)] = values(dataset)
    assert found.tolist() == [5.0, 7.0]
    assert shape.tolist() == [3, 2]


def test_random_numbers_are_keyed_by_epoch_and_element() -> None:
    passes = []
    for workers in (0, 1, 3):
        dataset = process_map(tf.data.Dataset.range(40), streamed.seeded, workers=workers, seed=5)
        passes.append([np.stack(values(dataset)) for _ in range(2)])
    for other in passes[1:]:
        np.testing.assert_array_equal(passes[0], other)
    first, second = passes[0]
    assert len(np.unique(first[:, 1])) == len(np.unique(first[:, 2])) == 40
    assert not np.isin(second[:, 1:], first[:, 1:]).any()
    differently_seeded = process_map(tf.data.Dataset.range(40), streamed.seeded, workers=2, seed=6)
    assert not np.isin(np.stack(values(differently_seeded))[:, 1:], first[:, 1:]).any()


@SERIAL_AND_POOL
def test_in_the_middle_of_a_pipeline(workers: int) -> None:
    source = tf.data.Dataset.range(64).shuffle(64, seed=3)
    dataset = process_map(source, streamed.plain, workers=workers).batch(10).prefetch(2)
    for _ in range(2):
        batches = [batch.numpy() for batch in dataset]
        assert [len(batch) for batch in batches] == [10] * 6 + [4]
        assert sorted(np.concatenate(batches)) == list(range(0, 128, 2))
        assert list(np.concatenate(batches)) != list(range(0, 128, 2))


@SERIAL_AND_POOL
def test_infinite_datasets(workers: int) -> None:
    source = tf.data.Dataset.range(7).repeat()
    dataset = process_map(source, streamed.plain, workers=workers)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    for _ in range(2):
        got = [int(element) for element in itertools.islice(dataset, 50)]
        assert got == [2 * (number % 7) for number in range(50)]


def test_several_iterators_at_a_time() -> None:
    dataset = process_map(tf.data.Dataset.range(60), streamed.plain, workers=2)
    got = [(int(a), int(b)) for a, b in zip(dataset, dataset, strict=True)]
    assert got == [(2 * number, 2 * number) for number in range(60)]


def test_one_over_the_other_ends_also_with_a_single_thread(scripts: Scripts) -> None:
    body = """
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
from keras_mpseq import process_map

dataset = tf.data.Dataset.from_generator(lambda: iter(range(50)), output_signature=tf.TensorSpec((), tf.int64))
for _ in range(3):
    dataset = process_map(dataset, lambda number: int(number) + 1, workers=1)
assert [int(number) for number in dataset] == list(range(3, 53))
"""
    assert scripts.run(body) == ""


def test_large_elements_lie_in_shared_memory_both_ways() -> None:
    source = tf.data.Dataset.from_tensors(np.arange(1 << 18)).repeat(20)
    dataset = process_map(source, streamed.same, workers=2)
    for element in dataset:
        array = np.asarray(element)
        assert array.ctypes.data % 64 == 0
        assert (array == np.arange(1 << 18)).all()
        del array, element
    kept = list(process_map(source, lambda array: array + 1, workers=2))  # Every lease is held.
    assert all((np.asarray(element) == np.arange(1, (1 << 18) + 1)).all() for element in kept)


def test_elements_of_very_different_sizes() -> None:
    spec = tf.TensorSpec((None,), tf.int64)
    source = tf.data.Dataset.range(60)
    dataset = process_map(source, lambda n: np.arange(1 << (n % 20)), workers=2, element_spec=spec)
    assert [len(element) for element in dataset] == [1 << (n % 20) for n in range(60)]
    back = process_map(dataset, lambda array: array.sum(), workers=2)
    assert values(back) == [sum(range(1 << (n % 20))) for n in range(60)]


def test_unordered_gives_each_element_once() -> None:
    dataset = process_map(tf.data.Dataset.range(200), streamed.plain, workers=3, ordered=False)
    assert sorted(values(dataset)) == list(range(0, 400, 2))


# --- what goes wrong --------------------------------------------------------------------------------


@SERIAL_AND_POOL
def test_an_exception_names_function_element_and_worker(workers: int) -> None:
    dataset = process_map(tf.data.Dataset.range(20), streamed.picky, workers=workers)
    iterator = iter(dataset)
    assert [int(next(iterator)) for _ in range(3)] == [0, 1, 2]
    place = r"worker \d, " if workers else ""
    message = rf"fn raised ValueError: 3 is a bad number \(element 3, epoch 0, {place}attempt 1\)\."
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        next(iterator)
    assert [int(element) for element in itertools.islice(dataset, 3)] == [0, 1, 2]  # The next pass works.


@SERIAL_AND_POOL
def test_skip_leaves_bad_elements_out_and_names_them(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    dataset = process_map(tf.data.Dataset.range(100), streamed.picky, workers=workers, on_error="skip")
    assert dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    with caplog.at_level(logging.WARNING, "keras_mpseq"):
        assert values(dataset) == [number for number in range(100) if number % 7 != 3]
    [record] = caplog.records
    text = record.getMessage()
    assert text.startswith(
        "Epoch 0 skipped 14 elements that failed: element 3 (fn raised ValueError: 3 is a bad number);"
    )
    assert text.endswith("; and 4 more.")


def test_a_lost_worker_is_replaced_and_its_element_mapped_again(tmp_path: Path) -> None:
    dies = streamed.Dies(at=31, times=1, folder=tmp_path)
    dataset = process_map(tf.data.Dataset.range(100), dies, workers=2)
    assert values(dataset) == list(range(0, 200, 2))
    assert len(list(tmp_path.iterdir())) == 1


def test_an_element_that_kills_workers_is_named(tmp_path: Path) -> None:
    dies = streamed.Dies(at=31, times=2, folder=tmp_path)
    dataset = process_map(tf.data.Dataset.range(100), dies, workers=2)
    with pytest.raises(
        tf.errors.UnknownError, match=r"Worker \d died \(SIGKILL\) while building element 31, attempt 2 of 2"
    ):
        values(dataset)
    assert values(dataset) == list(range(0, 200, 2))


def test_a_function_that_writes_to_its_argument_is_told() -> None:
    source = tf.data.Dataset.from_tensors(np.zeros(1000))
    with pytest.raises(Exception, match=r"fn wrote to a read-only array \(SEQ209, .*streamed.py:\d+\): its arguments"):
        process_map(source, streamed.writes, workers=2)


def test_an_error_of_the_dataset_comes_after_the_elements_before_it() -> None:
    source = tf.data.Dataset.range(10).map(lambda number: tf.gather([0, 1, 2, 3, 4, 5], tf.cast(number, tf.int32)))
    dataset = process_map(source, streamed.plain, workers=2)
    iterator = iter(dataset)
    assert [int(next(iterator)) for _ in range(6)] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(tf.errors.UnknownError, match="The dataset that is mapped raised InvalidArgumentError"):
        next(iterator)


def test_an_element_of_another_shape_is_told() -> None:
    dataset = process_map(tf.data.Dataset.range(1, 9), lambda number: np.zeros(1 + number // 5), workers=2)
    message = (
        r"The element is float64\(2\), expected float64\(1\) as in the first element \(element 4, epoch 0\)\. "
        r"Return the same structure and dtypes for every element"
    )
    with pytest.raises(tf.errors.UnknownError, match=message):
        values(dataset)


def test_an_element_too_large_for_max_bytes_is_told() -> None:
    source = tf.data.Dataset.range(1, 12).map(lambda number: tf.zeros(number * 10_000))
    dataset = process_map(source, lambda array: array[:1], workers=2, max_bytes=1 << 19)
    with pytest.raises(tf.errors.UnknownError, match=r"The element needs .* bytes of shared memory and max_"):
        values(dataset)


def test_nothing_is_left_of_an_iterator_given_up_and_the_dataset_goes_on() -> None:
    dataset = process_map(tf.data.Dataset.range(1000), streamed.plain, workers=2)
    with alarm("It hangs after an iterator was given up."):
        for _ in range(5):
            assert [int(element) for element in itertools.islice(dataset, 7)] == list(range(0, 14, 2))
            gc.collect()
        assert len(values(dataset)) == 1000


RANGE = tf.data.Dataset.range(3)
BAD = [
    (([1, 2], abs), {}, TypeError, "dataset must be a tf.data.Dataset, got list: for a sequence or arrays use "),
    ((RANGE, 7), {}, TypeError, "fn must be a function of the elements of the dataset, got 7."),
    ((RANGE, abs), {"workers": -1}, ValueError, "workers must be an int of 0 or more, or "),
    (
        (RANGE, abs),
        {"on_error": "drop"},
        ValueError,
        'on_error must be one of "raise", "skip", ',
    ),
    ((RANGE, abs), {"ordered": 1}, TypeError, "ordered must be True or False, got 1."),
    (
        (RANGE, abs),
        {"element_spec": 3},
        TypeError,
        "element_spec must be a tree of tf.TensorSpec",
    ),
]


@pytest.mark.parametrize(("arguments", "options", "error", "text"), BAD)
def test_bad_input(arguments: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        process_map(*arguments, **options)
    assert str(raised.value).startswith(text)


def test_an_empty_dataset_is_told() -> None:
    with pytest.raises(Exception, match="No element could be built, so that there is no element spec"):
        process_map(tf.data.Dataset.range(0), streamed.plain, workers=2)
    spec = tf.TensorSpec((), tf.int64)
    assert values(process_map(tf.data.Dataset.range(0), streamed.plain, workers=2, element_spec=spec)) == []


def test_a_function_that_does_not_pickle_is_told() -> None:
    lock = __import__("threading").Lock()
    with pytest.raises(PayloadError, match="lock"):
        process_map(tf.data.Dataset.range(3), lambda number: (lock, number)[1], workers=2)


def test_the_function_of_a_script_and_training(scripts: Scripts) -> None:
    body = """
import numpy as np, keras, tensorflow as tf
from keras_mpseq import process_map

def load(number):
    rng = np.random.default_rng(number)
    return rng.normal(size=(8,)).astype("float32"), np.float32(number % 2)

dataset = process_map(tf.data.Dataset.range(64).shuffle(64), load, workers=2).batch(16).repeat()
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = model.fit(dataset, steps_per_epoch=4, epochs=3, verbose=0, shuffle=False)
assert len(history.history["loss"]) == 3
"""
    assert scripts.run(body) == ""
