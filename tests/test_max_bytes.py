"""`max_bytes` bounds the shared memory of batches, whoever holds them, and costs speed, not batches."""

from __future__ import annotations

import contextlib
import json
import mmap
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mpseq import Loader, SlotTooSmallError, to_dataset
from keras_mpseq.options import checked
from keras_mpseq.slots import SLOT_HEAD, aligned, whole_pages
from tests.bench import soak
from tests.sequences import Counting
from tests.sized import OfSizes

PAGE = mmap.PAGESIZE
BATCH = 100_000
NEED = whole_pages(SLOT_HEAD + aligned(BATCH))
"""Of a slot for one batch."""


def bounded(loader: Loader, max_bytes: int, hold: bool) -> list[Any]:
    """Return an epoch's batches, and see to it that the bound holds at each step."""
    held = []
    for batch in loader:
        held.append(batch if hold else np.array(batch))
        stats = loader.stats()
        assert stats.bytes_slots <= max_bytes
    return held


def assert_right(batches: list[Any], sizes: tuple[int, ...]) -> None:
    assert [batch.shape for batch in batches] == [(size,) for size in sizes]
    assert all((batch == index % 251).all() for index, batch in enumerate(batches))


PATTERNS = {
    "equal": (BATCH,) * 12,
    "smaller": tuple(BATCH // (1 + index) for index in range(12)),
    "up and down": tuple(BATCH - 30_000 * (index % 3) for index in range(12)),
    "a little larger": (BATCH, *(BATCH + 64 * index for index in range(1, 12))),
}


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize("times", [1, 1.5, 2, 3, 20])
@pytest.mark.parametrize("name", PATTERNS)
def test_the_bound_holds_and_all_batches_come(name: str, times: float, in_place: bool) -> None:
    """Also with room for just one batch, and with a consumer that never lets go of one."""
    sizes = PATTERNS[name]
    max_bytes = int(times * NEED)
    sequence = OfSizes(sizes, in_place)
    with Loader(sequence, workers=2, max_bytes=max_bytes) as loader:
        for hold in (True, False):
            batches = bounded(loader, max_bytes, hold)
            assert_right(batches, sizes)
            del batches
        assert loader.stats().slots <= 8


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_memory_grows_with_the_need_and_not_beyond(workers: int) -> None:
    size = 300_000  # Too large for tasks of several batches.
    with Loader(OfSizes((size,) * 12), workers=workers, prefetch=3, max_bytes=1 << 30) as loader:
        for _ in range(3):
            bounded(loader, (workers + 3 + 2) * whole_pages(SLOT_HEAD + aligned(size)), hold=True)


def test_a_batch_of_many_parts_does_not_take_the_room_of_others() -> None:
    """Its slot grows ahead, piece by piece; the other slots must find room beside it."""
    sequence = OfSizes((BATCH,) * 12, in_place=True, parts=7)
    for max_bytes in range(2 * NEED, 5 * NEED, NEED // 2):
        with Loader(sequence, workers=2, max_bytes=max_bytes) as loader:
            for batch in loader:
                assert loader.stats().bytes_slots <= max_bytes
                assert len(batch) == 7


@pytest.mark.parametrize("size", [10, 1000, 5000])
def test_small_batches_that_come_in_groups(size: int) -> None:
    sizes = (size,) * 300
    for max_bytes in (2 * PAGE, 5 * PAGE, 100 * PAGE):
        with Loader(OfSizes(sizes), workers=2, max_bytes=max_bytes) as loader:
            for _ in range(2):
                assert_right(bounded(loader, max_bytes, hold=True), sizes)


def test_small_batches_before_larger_ones() -> None:
    """A task of many small batches has room for some that are larger."""
    sizes = (500,) * 200 + (5000,) * 50
    with Loader(OfSizes(sizes), workers=2, max_bytes=1 << 20) as loader:
        for _ in range(2):
            assert_right(bounded(loader, 1 << 20, hold=False), sizes)


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
def test_one_that_fits_alone_behind_small_ones(in_place: bool) -> None:
    """A task of many small batches ends before the one that finds no room behind them; that is built by itself."""
    sizes = ((500,) * 150 + (126_000,)) * 2 + (500,) * 50
    with Loader(OfSizes(sizes, in_place), workers=2, max_bytes=1 << 20) as loader:
        for _ in range(2):
            assert_right(bounded(loader, 1 << 20, hold=False), sizes)


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize("max_bytes", [1, PAGE - 1, PAGE, NEED - 1])
def test_too_little_for_one_batch(max_bytes: int, in_place: bool) -> None:
    with Loader(OfSizes((BATCH,) * 3, in_place), workers=2, max_bytes=max_bytes) as loader:
        for _ in range(2):
            with pytest.raises(SlotTooSmallError) as caught:
                list(loader)
        need = NEED if max_bytes >= PAGE else PAGE
        assert caught.value.message == (
            f"The batch needs {need:,} bytes of shared memory and max_bytes leaves {max_bytes:,} for one batch"
        )
        assert caught.value.remedy == "Raise max_bytes, or lower workers, prefetch or the batch size."
        if max_bytes >= PAGE:
            assert caught.value.index == 0
        assert loader.stats().bytes_slots <= max_bytes


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
def test_a_later_batch_that_is_larger_than_its_share(in_place: bool) -> None:
    """Eight slots share what there is for eight of the first batch: the fourth needs three times that."""
    sizes = (BATCH, BATCH, BATCH, 3 * BATCH, BATCH)
    need = whole_pages(SLOT_HEAD + aligned(3 * BATCH))
    with Loader(OfSizes(sizes, in_place), workers=2, prefetch=4, max_bytes=8 * NEED) as loader:
        for _ in range(2):
            batches = iter(loader)
            assert_right([next(batches) for _ in range(3)], sizes[:3])
            with pytest.raises(SlotTooSmallError) as caught:
                next(batches)
            error = caught.value
            assert str(error).startswith(
                f"The batch needs {need:,} bytes of shared memory and max_bytes leaves {NEED:,} for one batch "
                f"(index 3, epoch {error.epoch}, worker {error.worker}, attempt 1). Raise max_bytes, or lower workers, "
                "prefetch or the batch size."
            )
    # As the remedy says.
    for mended in ({"max_bytes": 8 * need}, {"prefetch": 1, "workers": 1, "max_bytes": 12 * NEED}):
        with Loader(OfSizes(sizes, in_place), **{"workers": 2, "prefetch": 4, **mended}) as loader:
            assert_right(list(loader), sizes)


def test_the_same_batch_is_refused_in_whichever_slot() -> None:
    """The first slot may have grown larger than the others may."""
    sizes = (BATCH, *(150_000,) * 20)
    with Loader(OfSizes(sizes), workers=2, prefetch=2, max_bytes=6 * NEED, on_error="skip") as loader:
        for _ in range(3):
            assert_right(list(loader), sizes[:1])


def test_skipping_what_is_too_large(caplog: pytest.LogCaptureFixture) -> None:
    sizes = (BATCH, 3 * BATCH, BATCH, BATCH)
    with Loader(OfSizes(sizes), workers=2, prefetch=4, max_bytes=8 * NEED, on_error="skip") as loader:
        assert [int(batch[0]) for batch in loader] == [0, 2, 3]
    assert "1 (The batch needs " in caplog.text


class SomeFail(OfSizes):
    """Fails at once for some batches."""

    def __getitem__(self, index: int) -> Any:
        if index in (3, 4, 5):
            raise ValueError(index)
        return super().__getitem__(index)


def test_batches_that_fail_do_not_crowd_those_after_them() -> None:
    """A failure has no bytes and takes no time: several of what comes next would go into one slot, which is full."""
    with Loader(SomeFail((BATCH,) * 20), workers=1, max_bytes=4 * NEED, on_error="skip") as loader:
        assert [int(batch[0]) for batch in loader] == [0, 1, 2, *range(6, 20)]


def test_no_rows_first() -> None:
    """A first batch of no bytes tells nothing about the next."""
    sizes = (0, 0, BATCH, 0, BATCH, BATCH)
    for max_bytes in (NEED, 10 * NEED):
        with Loader(OfSizes(sizes), workers=2, max_bytes=max_bytes) as loader:
            assert_right(bounded(loader, max_bytes, hold=True), sizes)


def test_by_default_a_quarter_of_the_memory() -> None:
    options = checked(Counting(3))
    with open("/proc/meminfo") as lines:
        total = int(next(lines).split()[1]) * 1024
    assert options.max_bytes == pytest.approx(total / 4, rel=0.01)


def test_in_this_process_there_is_no_shared_memory() -> None:
    with Loader(OfSizes((BATCH,) * 3), workers=0, max_bytes=1) as loader:
        assert len(list(loader)) == 3
        assert loader.stats().bytes_slots == 0


def test_through_a_dataset_that_keeps_everything() -> None:
    sizes = (BATCH,) * 30
    dataset = to_dataset(OfSizes(sizes), workers=2, max_bytes=2 * NEED)
    for elements in (list(dataset), list(dataset.cache()), list(dataset.shuffle(100))):
        assert sorted(int(element[0]) for element in elements) == list(range(30))
        assert all(len(np.unique(element.numpy())) == 1 for element in elements)


# --- whatever consumers do --------------------------------------------------------------------------


def slots_of_this_process() -> dict[tuple[int, int], int]:
    """Return the bytes of each memory file of a slot, by what the system says: those of whole pages."""
    files = {}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(link.readlink()).startswith(("/memfd:keras_mpseq", f"{tempfile.gettempdir()}/keras_mpseq-")):
                status = link.stat()
                files[status.st_dev, status.st_ino] = status.st_size
    return {file: size for file, size in files.items() if size % PAGE == 0}


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_no_order_of_taking_holding_and_letting_go_gets_beyond_the_bound(data: st.DataObject) -> None:
    """Several iterators, some given up; a consumer that holds what it likes: the files of slots stay in the bound."""
    largest = data.draw(st.sampled_from([100, 9_000, 40_000, BATCH]), "largest")
    rest = data.draw(st.lists(st.sampled_from([largest // 10, largest // 2, largest]), min_size=4, max_size=16), "rest")
    sizes = (largest, *rest)  # None is refused for want of room.
    need = whole_pages(SLOT_HEAD + aligned(largest))
    max_bytes = int(data.draw(st.sampled_from([1, 1.7, 2, 3, 5, 9]), "times") * need)
    workers = data.draw(st.integers(1, 3), "workers")
    prefetch = data.draw(st.integers(1, 6), "prefetch")
    before = slots_of_this_process()
    with Loader(OfSizes(sizes), workers=workers, prefetch=prefetch, max_bytes=max_bytes) as loader:
        iterators: list[tuple[Any, list[int]]] = []
        held: list[tuple[int, Any]] = []
        for _ in range(40):
            match data.draw(st.sampled_from(["take"] * 6 + ["open", "give up", "let go", "let all go"])):
                case "open" if len(iterators) < 4:
                    iterators.append((iter(loader), []))
                case "take" if iterators:
                    iterator, taken = data.draw(st.sampled_from(iterators))
                    batch = next(iterator, None)
                    if batch is None:
                        assert len(taken) == len(sizes)
                        iterators.remove((iterator, taken))
                    else:
                        assert batch.shape == (sizes[len(taken)],)
                        held.append((len(taken) % 251, batch))
                        taken.append(len(batch))
                    del batch
                case "give up" if iterators:
                    del iterators[data.draw(st.integers(0, len(iterators) - 1))]
                case "let go" if held:
                    del held[data.draw(st.integers(0, len(held) - 1))]
                case "let all go":
                    held.clear()
            # In this order: workers go on building, and slots only grow.
            mine = sum(size for file, size in slots_of_this_process().items() if file not in before)
            assert mine <= loader.stats().bytes_slots <= max_bytes
        assert all((batch == value).all() for value, batch in held)


# --- over a long run --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("part", "times"), [("batches", 10_000), ("epochs", 300), ("pools", 20)])
def test_a_long_run_in_short_keeps_nothing(part: str, times: int) -> None:
    """The whole one is `python -m tests.bench.soak`; its table is in docs/explanation/reliability.md."""
    command = [sys.executable, "-m", "tests.bench.soak", "--here", "--only", part]
    ran = subprocess.run(
        [*command, "--share", str(times / soak.PARTS[part].times), "--looks", "10"],
        cwd=soak.ROOT,
        capture_output=True,
        timeout=200,
        check=True,
    )
    grown = soak.growth([soak.Look(*one) for one in json.loads(ran.stdout)])
    assert grown.steps == times
    assert (grown.files, grown.threads) == (0, 0)
    assert grown.grown < 2 * soak.LIMIT  # Much of it is warm-up still: with Python 3.13 some 1,000 epochs are.
