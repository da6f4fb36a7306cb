"""Pools and iterators begin, cross, are given up and end: nothing is lost, nothing is left, nothing waits."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tensorflow as tf

from keras_mpseq import Loader, PoolClosedError, UserCodeError, to_dataset
from tests.conftest import PATIENCE_S, open_targets
from tests.sequences import (
    Counting,
    Draws,
    Endless,
    Hooked,
    InPlace,
    LargeDraws,
    Raising,
    address,
    frozen,
    place_in_memory_file,
)

LARGE = (64, 64, 4)
"""64 KiB: batches that are leased, and also travel several in a task, where they are built fast enough."""
HUGE = (64, 64, 32)
"""512 KiB: batches that always travel alone."""


SIZES = pytest.mark.parametrize(
    ("workers", "shape"), [(0, (4, 3)), (2, (4, 3)), (2, LARGE)], ids=["here", "small", "large"]
)


def firsts(batches: Any) -> list[int]:
    """Return what Counting put into each batch, after a look at all of its elements."""
    found = []
    for batch in batches:
        array = np.asarray(batch)
        assert array.size and (array == array.flat[0]).all()
        found.append(int(array.flat[0]))
    return found


def epoch(number: int, batches: int = 10) -> list[int]:
    """Return what the batches of Counting hold in an epoch."""
    return [1000 * number + index for index in range(batches)]


def workers_of_this_process() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="module", autouse=True)
def warm_tensorflow() -> None:
    """Let TensorFlow open what it opens once, before the leak fixture looks."""
    dataset = tf.data.Dataset.from_generator(lambda: iter(range(3)), output_signature=tf.TensorSpec((), tf.int32))
    list(dataset.map(lambda x: x, num_parallel_calls=2).shuffle(2).prefetch(1))


# --- several at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), LARGE], ids=["small", "large"])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("partition", ["dynamic", "block"])
def test_iterators_that_advance_unevenly(shape: tuple[int, ...], workers: int, partition: str) -> None:
    # Round k takes k batches from the first, none or one from the second, and the third waits for the others.
    with Loader(Counting(40, shape), workers=workers, partition=partition) as loader:
        a, b, c = iter(loader), iter(loader), iter(loader)
        got_a, got_b = [], []
        for size in itertools.count(1):
            piece = firsts(itertools.islice(a, size))
            got_a += piece
            got_b += firsts(itertools.islice(b, size % 2))
            if not piece:
                break
        assert got_a == epoch(0, 40)
        assert firsts(c) == epoch(2, 40)
        assert got_b + firsts(b) == epoch(1, 40)


@SIZES
def test_zip_of_a_dataset_with_itself(shape: tuple[int, ...], workers: int) -> None:
    dataset = to_dataset(Counting(10, shape), workers=workers)
    for number in (0, 2):
        pairs = list(tf.data.Dataset.zip((dataset, dataset)))
        got = [firsts(side) for side in zip(*pairs, strict=True)]
        assert sorted(got) == [epoch(number), epoch(number + 1)]


def test_python_zip_of_a_dataset_with_itself_and_with_a_shorter_one() -> None:
    dataset = to_dataset(Counting(10), workers=2)
    pairs = list(zip(dataset, dataset, range(4), strict=False))
    a, b, _ = zip(*pairs, strict=True)
    assert (firsts(a), firsts(b)) == (epoch(0)[:4], epoch(1)[:4])


def test_many_open_iterators_share_few_slots() -> None:
    with Loader(Counting(12, LARGE), workers=2, prefetch=1) as loader:
        iterators = [iter(loader) for _ in range(8)]
        held = [[next(iterator) for iterator in iterators] for _ in range(12)]
        assert [next(iterator, None) for iterator in iterators] == [None] * 8
        assert [firsts(column) for column in zip(*held, strict=True)] == [epoch(number, 12) for number in range(8)]


def test_two_pools_in_one_process() -> None:
    with Loader(Draws(30), workers=2, seed=1) as one, Loader(Draws(30), workers=3, seed=2, launcher="spawn") as two:
        got = [(frozen(a), frozen(b)) for a, b in zip(one, two, strict=True)]
    for seed, batches in enumerate(zip(*got, strict=True), start=1):
        with Loader(Draws(30), workers=0, seed=seed) as loader:
            assert list(batches) == [frozen(batch) for batch in loader]


def test_training_and_validation() -> None:
    training = to_dataset(Counting(8), workers=2)
    validation = to_dataset(Counting(3, LARGE), workers=1)
    for number in range(3):
        steps = iter(training)
        assert firsts(itertools.islice(steps, 7)) == epoch(number, 8)[:7]
        assert firsts(validation) == epoch(number, 3)  # While the training iterator is open.
        assert firsts(steps) == epoch(number, 8)[7:]


def test_threads_may_share_a_loader() -> None:
    with Loader(Counting(60, LARGE), workers=2) as loader, ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda _: firsts(loader), range(6)))
    assert sorted(got) == [epoch(number, 60) for number in range(6)]


def test_threads_may_share_an_iterator_of_tf_data() -> None:
    # Interleave runs generators of two copies of the dataset in threads of TensorFlow.
    dataset = to_dataset(Counting(30), workers=2)
    mixed = tf.data.Dataset.range(4).interleave(lambda _: dataset, cycle_length=4, num_parallel_calls=4)
    assert sorted(firsts(mixed)) == [value for number in range(4) for value in epoch(number, 30)]


# --- given up half-way ------------------------------------------------------------------------------


def _by_break(loader: Loader) -> None:
    for batch in loader:
        if int(batch.flat[0]) % 1000 == 3:
            break


def _raising_at_the_fourth(loader: Loader) -> None:
    for batch in loader:
        if int(batch.flat[0]) % 1000 == 3:
            raise RuntimeError("the consumer's")


def _by_exception(loader: Loader) -> None:
    with pytest.raises(RuntimeError, match="the consumer's"):
        _raising_at_the_fourth(loader)


def _by_close(loader: Loader) -> None:
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    iterator.close()
    assert next(iterator, None) is None


def _by_garbage(loader: Loader) -> None:
    ring: list[Any] = [iter(loader)]
    next(ring[0])
    ring.append(ring)


def _before_the_first_batch(loader: Loader) -> None:
    iter(loader)


def _with_a_batch_in_hand(loader: Loader) -> None:
    iterator = iter(loader)
    _kept.append((next(iterator), next(iterator)))


_kept: list[Any] = []
WAYS = [_by_break, _by_exception, _by_close, _by_garbage, _before_the_first_batch, _with_a_batch_in_hand]


@SIZES
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_given_up_iterators_leave_a_whole_pool(way: Any, shape: tuple[int, ...], workers: int) -> None:
    # Many more times than there are slots: each lost slot, task or run would show.
    with Loader(Counting(10, shape), workers=workers, prefetch=2) as loader:
        for _ in range(12):
            way(loader)
        gc.collect()
        assert firsts(loader) == epoch(12)
        kept = [int(batch.flat[0]) for pair in _kept for batch in pair]
        assert kept == [1000 * number + index for number in range(12) for index in (0, 1)][: len(kept)]
        _kept.clear()


@pytest.mark.parametrize("shape", [(4, 3), LARGE], ids=["small", "large"])
def test_given_up_iterators_of_a_dataset_leave_a_whole_pool(shape: tuple[int, ...]) -> None:
    dataset = to_dataset(Counting(10, shape), workers=2, prefetch=2)
    for number in range(12):
        for batch in dataset:
            if number % 3 == 0:
                break
            if number % 3 == 1 and int(batch[0, 0] if batch.ndim == 2 else batch[0, 0, 0]) % 1000 == 3:
                break
    gc.collect()
    assert firsts(dataset) == epoch(12)


def test_an_error_in_one_epoch_leaves_a_whole_pool() -> None:
    sequence = Raising(at=5, batches=10, shape=LARGE)
    with Loader(sequence, workers=2) as loader:
        for number in range(6):
            iterator = iter(loader)
            assert firsts(itertools.islice(iterator, 5)) == epoch(number)[:5]
            with pytest.raises(UserCodeError, match="broken") as caught:
                next(iterator)
            assert (caught.value.index, caught.value.epoch) == (5, number)
        sequence.at = -1
        assert firsts(loader) == epoch(6)


def test_a_given_up_run_is_not_built_to_its_end() -> None:
    with Loader(Endless(), workers=2, prefetch=2) as loader:
        for _ in range(50):
            assert int(next(iter(loader))[0]) == 0
        # Each run may have built what there are slots for; built on, an endless one would go on for ever.
        assert loader.stats().batches == 50


# --- the end of a pool ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_closing_twice_and_using_after_close(workers: int) -> None:
    loader = Loader(Counting(), workers=workers)
    open_iterator = iter(loader)
    next(open_iterator)
    loader.close()
    loader.close()
    for use in (lambda: iter(loader), lambda: next(open_iterator), lambda: list(loader)):
        with pytest.raises(PoolClosedError, match=r"^The loader is closed\. .*with"):
            use()
    assert len(loader) == 10
    assert loader.stats().batches == 1
    open_iterator.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_closing_while_other_threads_iterate(threads: int) -> None:
    loader = Loader(Endless(), workers=2)
    begun = threading.Barrier(threads + 1)

    def use() -> None:
        iterator = iter(loader)
        next(iterator)
        begun.wait(PATIENCE_S)
        for _ in iterator:
            pass

    with ThreadPoolExecutor(threads) as executor:
        ends = [executor.submit(use) for _ in range(threads)]
        begun.wait(PATIENCE_S)
        loader.close()
        assert [type(end.exception(PATIENCE_S)) for end in ends] == [PoolClosedError] * threads


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_a_dropped_loader_ends_its_workers(launcher: str) -> None:
    loader = Loader(Counting(), workers=2, launcher=launcher)
    iterator = iter(loader)
    next(iterator)
    processes = workers_of_this_process()
    assert len(processes) == (3 if launcher == "template" else 2)
    del loader
    gc.collect()
    assert firsts(iterator) == epoch(0)[1:]  # The iterator alone keeps the pool.
    del iterator
    gc.collect()
    assert not psutil.wait_procs(processes, PATIENCE_S)[1]


def test_a_dropped_dataset_ends_its_workers() -> None:
    dataset = to_dataset(Counting(), workers=2).map(lambda x: x + 1).batch(2).prefetch(1)
    iterator = iter(dataset)
    next(iterator)
    processes = workers_of_this_process()
    assert len(processes) == 3
    del dataset, iterator
    gc.collect()
    assert not psutil.wait_procs(processes, PATIENCE_S)[1]


def test_a_loader_whose_body_raised_ends_its_workers() -> None:
    def use() -> None:
        with Loader(Counting(), workers=2) as loader:
            next(iter(loader))
            raise RuntimeError("the consumer's")

    with pytest.raises(RuntimeError, match="the consumer's"):
        use()
    assert not workers_of_this_process()


def test_a_dropped_loader_frees_the_sequence() -> None:
    sequence = Counting()
    dead = weakref.ref(sequence)
    loader = Loader(sequence, workers=1)
    list(loader)
    del sequence, loader
    gc.collect()
    assert dead() is None


# --- what consumers do with a dataset ---------------------------------------------------------------


def same(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset


@SIZES
@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (same, epoch(0)),
        (lambda d: d.cache(), epoch(0)),
        (lambda d: d.cache().repeat(3), epoch(0) * 3),
        (lambda d: d.shuffle(10_000, seed=1), sorted(epoch(0))),
        (lambda d: d.prefetch(4), epoch(0)),
        (lambda d: d.prefetch(tf.data.AUTOTUNE), epoch(0)),
        (lambda d: d.repeat(3), epoch(0) + epoch(1) + epoch(2)),
        (lambda d: d.take(5), epoch(0)[:5]),
        (lambda d: d.take(5).repeat(2), epoch(0)[:5] + epoch(1)[:5]),
        (lambda d: d.repeat().take(25), epoch(0) + epoch(1) + epoch(2)[:5]),
        (lambda d: d.skip(8), epoch(0)[8:]),
        (lambda d: d.batch(3).unbatch(), epoch(0)),
        (lambda d: d.map(tf.identity, num_parallel_calls=4), epoch(0)),
        (lambda d: d.concatenate(d), epoch(0) + epoch(1)),
        (lambda d: d.shard(2, 1), epoch(0)[1::2]),
    ],
)
def test_downstream(transform: Any, expected: list[int], shape: tuple[int, ...], workers: int) -> None:
    dataset = transform(to_dataset(Counting(10, shape), workers=workers, prefetch=2))
    got = firsts(list(dataset))  # list: all tensors are held until the end.
    assert (sorted(got) if expected == sorted(epoch(0)) and got != expected else got) == expected


def test_cardinality_and_batch() -> None:
    dataset = to_dataset(Counting(10), workers=2)
    assert dataset.cardinality() == 10
    assert to_dataset(Counting(10), workers=1, shard=(2, 4), uneven="drop").cardinality() == 2
    assert to_dataset(Counting(10), workers=1, varying_length=True).cardinality() < 0
    assert dataset.element_spec == tf.TensorSpec((None, 3), tf.float32)
    assert [batch.shape for batch in dataset.batch(4)] == [(4, 4, 3), (4, 4, 3), (2, 4, 3)]


def test_autotuning_is_off() -> None:
    assert to_dataset(Counting(), workers=0).options().autotune.enabled is False


def test_endless_sequences() -> None:
    for workers in (0, 2):
        with Loader(Endless(), workers=workers) as loader:
            assert firsts(itertools.islice(loader, 300)) == list(range(300))
            with pytest.raises(TypeError, match=r"^The sequence is infinite: it has no length\.$"):
                len(loader)
        dataset = to_dataset(Endless(), workers=workers)
        assert dataset.cardinality() < 0
        assert firsts(dataset.take(300)) == list(range(300))
        assert firsts(dataset.take(3).repeat(2)) == [0, 1, 2] * 2


def test_len_of_a_loader() -> None:
    with Loader(Counting(10), workers=0) as loader:
        assert len(loader) == 10
    with Loader(Counting(10), workers=0, shard=(1, 4), uneven="wrap") as loader:
        assert len(loader) == len(list(loader)) == 3


# --- memory -----------------------------------------------------------------------------------------


def test_arrays_keep_their_values_as_long_as_they_are_held() -> None:
    with Loader(LargeDraws(20), workers=0, seed=3) as loader:
        expected = [[frozen(batch) for batch in loader] for _ in range(2)]
    loader = Loader(LargeDraws(20), workers=2, seed=3, prefetch=2)
    held = [list(loader), list(loader)]
    now = [[frozen(batch) for batch in batches] for batches in held]
    assert now == expected
    loader.close()
    del loader
    gc.collect()
    assert [[frozen(batch) for batch in batches] for batches in held] == expected


def test_a_slice_alone_keeps_the_batch() -> None:
    with Loader(Counting(40, LARGE), workers=2, prefetch=1) as loader:
        corners = [batch[-1, -1, -2:] for batch in loader]
        list(loader)
        assert [corner.tolist() for corner in corners] == [[index, index] for index in range(40)]


def test_tensors_keep_their_values_as_long_as_they_are_held() -> None:
    dataset = to_dataset(Counting(30, LARGE), workers=2, prefetch=2)
    held = [list(dataset), list(dataset)]
    assert [firsts(batches) for batches in held] == [epoch(0, 30), epoch(1, 30)]
    del dataset
    gc.collect()
    assert [firsts(batches) for batches in held] == [epoch(0, 30), epoch(1, 30)]


def test_a_consumer_may_write_into_its_arrays() -> None:
    with Loader(Counting(20, LARGE), workers=2) as loader:
        for number in range(2):
            got = []
            for batch in loader:
                got += firsts([batch])
                batch += 0.5
            assert got == epoch(number, 20)


def test_large_batches_are_not_copied_on_their_way() -> None:
    with Loader(Counting(30, HUGE), workers=2) as loader:
        for batch in loader:
            assert place_in_memory_file(address(batch)) is not None
            assert address(batch) % 64 == 0
    with Loader(Counting(6, (4, 3)), workers=2) as loader:  # Copying so little costs less than a lease.
        assert [place_in_memory_file(address(batch)) for batch in loader] == [None] * 6


def test_large_batches_are_not_copied_into_tensorflow() -> None:
    dataset = to_dataset(Counting(30, HUGE), workers=2)
    for number in range(2):
        got = []
        for tensor in dataset:
            view = np.asarray(memoryview(tensor))
            assert place_in_memory_file(address(view)) is not None
            got += firsts([view])
        assert got == epoch(number, 30)
    del tensor, view
    tf.constant(0)  # TensorFlow lets go of the last buffer that it lent to NumPy at its next call.


def test_slots_are_reused_for_the_life_of_the_pool() -> None:
    places = set()
    with Loader(Counting(50, HUGE), workers=2, prefetch=2) as loader:
        for _ in range(3):
            for batch in loader:
                places.add(place_in_memory_file(address(batch)))
        stats = loader.stats()
    assert None not in places
    assert 1 < len({inode for inode, _ in places if inode}) <= stats.slots
    assert stats.bytes_slots <= stats.slots * 2 * (4 * np.prod(HUGE) + 4096)


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_what_empty_gave_is_not_copied_at_all(launcher: str) -> None:
    with Loader(InPlace(), workers=2, launcher=launcher) as loader:
        for _ in range(3):
            for index, (image, label, part, places) in enumerate(loader):
                rows = 8 * (index + 1)
                assert image.shape == (rows, 32, 32) and (image == index).all()
                assert label.tolist() == list(range(rows))
                assert part.shape == (rows, 16) and (part == -index).all()
                here = [place_in_memory_file(address(leaf)) for leaf in (image, label, part)]
                assert here == [tuple(place) for place in places.tolist()], index
                assert len(set(here)) == 3


def test_what_empty_gave_outside_a_worker_is_a_plain_array() -> None:
    sequence = InPlace()
    for shape in (3, (3,), np.int64(3)):
        array = sequence.empty(shape, np.int16)
        assert (array.shape, array.dtype, array.flags.writeable) == ((3,), np.dtype(np.int16), True)
    assert sequence.empty((2, 3)).dtype == np.float32
    image, _, part, places = sequence[1]
    assert (image == 1).all() and (part == -1).all() and not places.any()
    with Loader(sequence, workers=0) as loader:
        assert [batch[0].shape[0] for batch in loader] == [8 * (index + 1) for index in range(8)]


# --- nothing leaks ----------------------------------------------------------------------------------


def _use(mode: int, sequence: Any) -> None:
    """Open a pool, go through twenty epochs, most of them half-way, and let it go in one of five ways."""
    dataset = mode % 2 == 1
    loader: Any = to_dataset(sequence, workers=2) if dataset else Loader(sequence, workers=2)
    for number in range(20):
        iterator: Iterator[Any] = iter(loader)
        for position, _ in enumerate(iterator):
            if position == number % 5 and number % 4:
                break
        if number % 3 == 0 and not dataset:
            iterator.close()  # type: ignore[attr-defined]
    if mode % 4 == 0:
        loader.close()


def _shared_bytes() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Shmem", "Swap:")))


@pytest.mark.slow
def test_200_epochs_leave_nothing() -> None:
    def counts() -> tuple[int, int, int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count("memfd:keras_mpseq")
        return len(workers_of_this_process()), len(open_targets()), _shared_bytes(), maps

    sequences = [Counting(10, LARGE), Draws(10), LargeDraws(5), Hooked(Path(os.devnull)), Counting(20, (1 << 18,))]
    for mode in (0, 1):  # What is loaded and opened once.
        _use(mode, sequences[mode])
    before = counts()
    for mode in range(10):
        _use(mode, sequences[mode // 2])
    assert counts() == before
