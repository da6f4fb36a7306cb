"""generator_dataset: whole partitions in workers, the same order for any number of them, and nothing left open."""

from __future__ import annotations

import gc
import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mpseq import generator_dataset
from keras_mpseq.generators import LaneSupply
from keras_mpseq.growing import Lanes
from keras_mpseq.options import checked
from keras_mpseq.run import Signal
from tests import streamed
from tests.conftest import Scripts, alarm
from tests.test_process_map import values

SERIAL_AND_POOL = pytest.mark.parametrize("workers", [0, 2])
COUNTS = [5, 3, 0, 7, 2, 9, 1]


def taking_turns(partitions: Sequence[Iterable[Any]], lanes: int) -> list[Any]:
    """What the docstring promises, written down plainly."""
    queues = [itertools.chain.from_iterable(partitions[lane::lanes]) for lane in range(lanes)]
    result = []
    while queues:
        for queue in list(queues):
            try:
                result.append(next(queue))
            except StopIteration:
                queues.remove(queue)
    return result


@pytest.mark.parametrize("cycle_length", [1, 2, 4, None])
@pytest.mark.parametrize(("workers", "launcher"), [(0, None), (1, None), (3, "template"), (2, "spawn")])
def test_partitions_take_turns_whatever_the_workers(workers: int, launcher: str, cycle_length: int | None) -> None:
    dataset = generator_dataset(
        streamed.count_up, COUNTS, workers=workers, cycle_length=cycle_length, launcher=launcher
    )
    assert dataset.element_spec == tf.TensorSpec((), tf.int64)
    expected = taking_turns([list(streamed.count_up(count)) for count in COUNTS], cycle_length or len(COUNTS))
    for _ in range(2):
        assert values(dataset) == expected


def test_each_partition_is_run_by_one_worker() -> None:
    dataset = generator_dataset(streamed.worker_and_pid, 6, workers=3)
    got = values(dataset)
    assert len(got) == 30
    ran_by = {partition: {worker for other, _, worker in got if other == partition} for partition in range(6)}
    assert all(len(workers) == 1 for workers in ran_by.values())
    assert set().union(*ran_by.values()) == {0, 1, 2}


def test_random_numbers_are_the_same_for_any_number_of_workers() -> None:
    passes = []
    for workers in (0, 1, 3):
        dataset = generator_dataset(streamed.random_numbers, 5, workers=workers, seed=3)
        passes.append([np.stack(values(dataset)) for _ in range(2)])
    for other in passes[1:]:
        np.testing.assert_array_equal(passes[0], other)
    first, second = passes[0]
    assert len(np.unique(first[:, 3])) == len(first) == 20
    assert not np.isin(second[:, 2:], first[:, 2:]).any()


@SERIAL_AND_POOL
def test_elements_of_any_structure_and_declared_spec(workers: int) -> None:
    spec = {"name": tf.TensorSpec((), tf.string), "data": tf.TensorSpec((None,), tf.int64)}
    dataset = generator_dataset(streamed.varied, [3, 1, 4], workers=workers, element_spec=spec)
    expected = taking_turns([list(streamed.varied(count)) for count in (3, 1, 4)], 3)
    got = values(dataset)
    assert [element["name"].decode() for element in got] == [element["name"] for element in expected]
    assert [element["data"].tolist() for element in got] == [element["data"].tolist() for element in expected]


def test_many_small_elements_and_few_large_ones() -> None:
    dataset = generator_dataset(streamed.count_up, [2000, 1, 3000], workers=2)
    assert values(dataset) == taking_turns([list(streamed.count_up(count)) for count in (2000, 1, 3000)], 3)

    def large(partition: int) -> Any:
        for number in range(6):
            yield np.full(1 << 18, 10 * partition + number)

    kept = list(generator_dataset(large, 3, workers=2))  # Every lease is held.
    assert [int(element[-1]) for element in kept] == [10 * p + n for n in range(6) for p in range(3)]


def test_unordered_gives_each_element_once_and_partitions_in_order() -> None:
    dataset = generator_dataset(streamed.count_up, [500, 20, 300], workers=2, ordered=False)
    for _ in range(2):
        got = values(dataset)
        assert sorted(got) == sorted(itertools.chain(*(streamed.count_up(count) for count in (500, 20, 300))))
        for count in (500, 20, 300):
            assert [value for value in got if value // 1000 == count] == list(streamed.count_up(count))


def test_functions_that_return_lists_and_infinite_generators() -> None:
    assert values(generator_dataset(streamed.a_list, [1, 5], workers=2)) == [1, 5, 2, 6]
    dataset = generator_dataset(lambda start: itertools.count(start), [0, 100], workers=2)
    for _ in range(2):
        got = [int(element) for element in itertools.islice(dataset, 6)]
        assert got == [0, 100, 1, 101, 2, 102]


def test_two_iterators_at_a_time() -> None:
    dataset = generator_dataset(streamed.count_up, COUNTS, workers=2)
    expected = values(dataset)
    assert [(int(a), int(b)) for a, b in zip(dataset, dataset, strict=True)] == [(a, a) for a in expected]


@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    workers=st.integers(1, 3),
)
@settings(deadline=None, max_examples=200)
def test_the_arrangement_does_not_depend_on_how_lanes_are_dealt(
    counts: list[int], chunks: list[int], workers: int
) -> None:
    """Whatever the sizes of blocks, what comes out is each lane's elements in turn."""
    options = checked([0], workers=workers, partition="stride")
    supply = LaneSupply(len(counts), options)
    out: list[tuple[int, int]] = []
    delivered = 0
    sizes = itertools.cycle(chunks)
    while True:
        supply.grow(delivered, next(sizes))
        order = supply.order
        assert isinstance(order, Lanes)
        if order.size == delivered:
            supply.put(-1, Signal.END)
        else:
            step, lane = divmod(order.index(delivered), order.lanes)
            order.delivered(delivered)
            supply.put(step * order.lanes + lane, (lane, step) if step < counts[lane] else Signal.PAST)
            delivered += 1
        while (arranged := supply.next()) is not None and arranged[1] is not Signal.END:
            out.append(arranged[1])
        if arranged is not None:
            break
    assert out == taking_turns([[(lane, n) for n in range(count)] for lane, count in enumerate(counts)], len(counts))


# --- nothing is left open ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_generators_are_closed_when_an_iterator_is_given_up(workers: int, tmp_path: Path) -> None:
    notes = streamed.Notes(tmp_path, count=None)
    dataset = generator_dataset(notes, 4, workers=workers)
    with alarm("It hangs after an iterator was given up."):
        for _ in range(2):
            assert [int(element[0]) for element in itertools.islice(dataset, 8)] == [0, 100, 200, 300, 1, 101, 201, 301]
            gc.collect()
        list(itertools.islice(dataset, 1))  # What was given up is over before anything new is built.
    assert notes.noted("ended") == notes.noted("began") == set(range(4))


def test_generators_are_closed_with_the_dataset(tmp_path: Path) -> None:
    notes = streamed.Notes(tmp_path, count=None)
    dataset = generator_dataset(notes, 3, workers=2)
    iterator = iter(dataset)
    next(iterator)
    del iterator, dataset
    gc.collect()
    assert notes.noted("ended") == notes.noted("began")


def test_a_generator_that_does_not_close_is_told(caplog: pytest.LogCaptureFixture) -> None:
    dataset = generator_dataset(streamed.FailsToClose(), 2, workers=2)
    with caplog.at_level(logging.WARNING, "keras_mpseq"):
        assert len(list(itertools.islice(dataset, 5))) == 5
        gc.collect()
        assert len(list(itertools.islice(dataset, 5))) == 5
        del dataset
        gc.collect()
    assert any(
        "Closing a generator raised RuntimeError: cannot close" in record.getMessage() for record in caplog.records
    )


# --- what goes wrong --------------------------------------------------------------------------------


@SERIAL_AND_POOL
def test_an_exception_names_partition_and_element(workers: int) -> None:
    dataset = generator_dataset(streamed.raises_at_two, ["good", "bad"], workers=workers)
    place = r"worker \d, " if workers else ""
    message = rf"fn raised KeyError: 'no such record' \(element 2 of partition 'bad', epoch 0, {place}attempt 1\)\."
    iterator = iter(dataset)
    assert [int(next(iterator)) for _ in range(5)] == [0, 0, 1, 1, 2]
    with pytest.raises(tf.errors.UnknownError, match=message):
        next(iterator)


@SERIAL_AND_POOL
def test_skip_gives_the_rest_of_a_partition_up(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    dataset = generator_dataset(
        streamed.raises_at_two, ["good", "bad", "fine"], workers=workers, cycle_length=2, on_error="skip"
    )
    with caplog.at_level(logging.WARNING, "keras_mpseq"):
        assert values(dataset) == [0, 0, 1, 1, 2, 3, 0, 1, 2, 3]
    [record] = caplog.records
    assert record.getMessage() == (
        "Epoch 0 skipped 1 element that failed: element 2 of partition 'bad' (fn raised KeyError: 'no such record')."
    )


@pytest.mark.parametrize("at", [0, 12, 25])
def test_a_lost_worker_is_replaced_and_its_partitions_go_on(at: int, tmp_path: Path) -> None:
    expected = np.stack(values(generator_dataset(streamed.DyingGenerator(-1, 0, tmp_path), 3, workers=0)))
    dies = streamed.DyingGenerator(at=at, times=1, folder=tmp_path)
    if at == 0:
        spec = tf.TensorSpec((3,), tf.float64)
        dataset = generator_dataset(dies, 3, workers=2, element_spec=spec)
    else:
        dataset = generator_dataset(dies, 3, workers=2)
    np.testing.assert_array_equal(np.stack(values(dataset)), expected)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_element_that_kills_workers_is_named(tmp_path: Path) -> None:
    dies = streamed.DyingGenerator(at=12, times=2, folder=tmp_path)
    dataset = generator_dataset(dies, [0, 1, 2], workers=2)
    message = r"Worker \d died \(SIGKILL\) while building element 2 of partition 1, attempt 2 of 2"
    with pytest.raises(tf.errors.UnknownError, match=message):
        values(dataset)


def test_a_generator_that_hangs_is_named_with_its_stack() -> None:
    dataset = generator_dataset(streamed.hangs_at_two, ["a.csv", "b.csv"], workers=2, timeout=1.5, attempts=1)
    iterator = iter(dataset)
    assert [int(next(iterator)) for _ in range(4)] == [0, 0, 1, 1]
    message = (
        r"took longer than 1\.5 s while building element 2 of partition 'a\.csv', attempt 1 of 1(.|\n)*hangs_at_two"
    )
    with pytest.raises(tf.errors.UnknownError, match=message):
        next(iterator)


def generator_object() -> Any:
    return streamed.count_up(3)


def exhausted() -> Any:
    generator = streamed.count_up(1)
    list(generator)
    return generator


async def asynchronous(partition: int) -> Any:
    yield partition


BAD: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (generator_object(), 3, {}, TypeError, r"fn must be a function, .* got the generator object .*: that runs once"),
    (exhausted(), 3, {}, TypeError, r"fn must be a function, .* got the exhausted generator object .*: that runs once"),
    (iter([1]), 3, {}, TypeError, r"fn must be a function, which workers call with a partition, got the list_iterator"),
    (7, 3, {}, TypeError, r"fn must be a generator function of one partition, got 7\."),
    (asynchronous, 3, {}, TypeError, r"fn must be a generator function \(def with yield\), got an async function"),
    (streamed.count_up, [], {}, ValueError, r"partitions must hold at least one partition, got \[\]\."),
    (streamed.count_up, 0, {}, ValueError, r"partitions must be 1 or more, or a list of partitions, got 0\."),
    (streamed.count_up, "abc", {}, TypeError, r"partitions must be a list of what fn is called with, or how many, got"),
    (streamed.count_up, iter([1]), {}, TypeError, r"partitions must be a list of what fn is called with, or how many,"),
    (streamed.count_up, 3, {"workers": -1}, ValueError, r"workers must be an int of 0 or more, or \"auto\", got -1\."),
    (
        streamed.count_up,
        3,
        {"cycle_length": 0},
        ValueError,
        r"cycle_length must be an int of 1 or more, got 0\.",
    ),
]


@pytest.mark.parametrize(("fn", "partitions", "options", "error", "message"), BAD)
def test_bad_input(fn: Any, partitions: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        generator_dataset(fn, partitions, **options)


def test_a_function_that_is_no_generator_is_told() -> None:
    message = r"fn must return a generator \(a function with yield\) .* got NoneType for partition 'a.csv'"
    with pytest.raises(Exception, match=message):
        generator_dataset(streamed.no_generator, ["a.csv"], workers=2)


def test_partitions_without_any_element_are_told() -> None:
    with pytest.raises(Exception, match="No element could be built, so that there is no element spec"):
        generator_dataset(streamed.count_up, [0, 0], workers=2)


def test_more_workers_than_partitions_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "keras_mpseq"):
        dataset = generator_dataset(streamed.count_up, [2, 3], workers=5)
    assert values(dataset) == [2000, 3000, 2001, 3001, 3002]
    [record] = caplog.records
    assert re.match(r"generator_dataset starts 2 of 5 workers: no more than 2 of 2 partitions run", record.getMessage())


def test_training_on_generators_of_a_script(scripts: Scripts) -> None:
    body = """
import numpy as np, keras, tensorflow as tf
from keras_mpseq import generator_dataset

def samples(partition):
    rng = np.random.default_rng(partition)
    for number in range(16):
        yield rng.normal(size=(8,)).astype("float32"), np.float32(number % 2)

dataset = generator_dataset(samples, 4, workers=2).batch(16).apply(tf.data.experimental.assert_cardinality(4))
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = model.fit(dataset, epochs=3, verbose=0, shuffle=False)
assert len(history.history["loss"]) == 3
"""
    assert scripts.run(body) == ""
