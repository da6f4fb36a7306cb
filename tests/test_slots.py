"""A slot grows and never shrinks, arrays lie aligned in it, and its lease ends once, with the last array."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import queue
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from keras_mpseq.errors import SlotTooSmallError
from keras_mpseq.messages import Leaf
from keras_mpseq.slots import (
    ALIGNMENT,
    SLOT_HEAD,
    LeaseEnd,
    Slot,
    aligned,
    anonymous_file,
    read_only,
    whole_pages,
    write_file,
)
from tests.conftest import REPOSITORY
from tests.sequences import address

PAGE = mmap.PAGESIZE
ROOM = 64 * PAGE


@pytest.fixture
def slot() -> Iterator[Slot]:
    """A slot whose task has begun."""
    slot = Slot(anonymous_file())
    slot.begin(ROOM)
    yield slot
    slot.close()


@pytest.fixture
def other(slot: Slot) -> Iterator[Slot]:
    """Another process's view of the same slot."""
    other = Slot(os.dup(slot.fd))
    yield other
    other.close()


def through(slot: Slot, array: np.ndarray, *, copy: bool = True) -> np.ndarray:
    """Place *array* and return what the other side finds there."""
    leaf = slot.place(array)
    assert leaf.offset % ALIGNMENT == 0
    return slot.arrays([leaf], [array.dtype], copy)[0]


# --- files ------------------------------------------------------------------------------------------


def test_files_have_no_name_and_do_not_leak_into_other_programs() -> None:
    fd = anonymous_file(10)
    name = str(Path(f"/proc/self/fd/{fd}").readlink())
    assert name.startswith(("/memfd:keras_mpseq", f"{tempfile.gettempdir()}/keras_mpseq-")) and name.endswith(
        " (deleted)"
    )
    assert not os.get_inheritable(fd)
    assert os.fstat(fd).st_size == 10
    os.close(fd)


@pytest.mark.parametrize("nbytes", [0, 1, PAGE, PAGE + 1])
def test_a_file_reads_as_it_was_written_and_cannot_be_written(nbytes: int) -> None:
    fd = anonymous_file(nbytes)
    data = os.urandom(nbytes)
    write_file(fd, memoryview(data))
    view = read_only(fd, nbytes)
    os.close(fd)
    assert bytes(view) == data
    assert view.readonly


def test_files_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    fd = anonymous_file(PAGE)
    monkeypatch.undo()
    assert str(Path(f"/proc/self/fd/{fd}").readlink()).endswith("(deleted)")
    write_file(fd, b"x" * PAGE)
    assert bytes(read_only(fd, PAGE)) == b"x" * PAGE
    os.close(fd)


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "unit"), [pytest.param(aligned, ALIGNMENT, id="aligned"), pytest.param(whole_pages, PAGE, id="pages")]
)
def test_rounding_up(function: Any, unit: int) -> None:
    assert [function(n) for n in (0, 1, unit - 1, unit, unit + 1, 5 * unit)] == [n * unit for n in (0, 1, 1, 1, 2, 5)]


def test_a_new_slot_takes_no_memory_until_a_task_begins() -> None:
    slot = Slot(anonymous_file())
    assert (slot.capacity, slot.nbytes, slot.progress) == (0, 0, None)
    slot.begin(ROOM)
    assert slot.nbytes == PAGE
    slot.close()


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, PAGE - SLOT_HEAD, PAGE - SLOT_HEAD + 1, 40 * PAGE])
def test_arrays_are_aligned_and_do_not_touch(slot: Slot, nbytes: int) -> None:
    before = slot.empty((3,), np.uint8)
    array = slot.empty((nbytes,), np.uint8)
    after = slot.empty((3,), np.uint8)
    before[:], array[:], after[:] = 1, 2, 3
    assert [address(part) % ALIGNMENT for part in (before, array, after)] == [0, 0, 0]
    assert before.tolist() == [1] * 3
    assert after.tolist() == [3] * 3
    assert (array == 2).all()


def test_a_grown_slot_keeps_the_arrays_that_were_made_before(slot: Slot) -> None:
    arrays = []
    for number in range(20):  # It grows several times: from one page to more than 20.
        arrays.append(slot.empty((PAGE,), np.uint8))
        arrays[-1][:] = number
    assert [(int(array.min()), int(array.max())) for array in arrays] == [(n, n) for n in range(20)]
    leaves = [slot.place(array) for array in arrays]
    assert [leaf.offset for leaf in leaves] == [SLOT_HEAD + number * PAGE for number in range(20)]
    assert slot.used == SLOT_HEAD + 20 * PAGE
    assert slot.progress == 0


def test_a_slot_grows_ahead_but_never_beyond_its_room(slot: Slot) -> None:
    sizes = []
    while slot.used + PAGE <= ROOM:
        slot.empty((PAGE,), np.uint8)
        sizes.append(slot.nbytes)
    assert sizes == sorted(sizes)
    assert sizes[-1] == ROOM
    assert len(set(sizes)) < 10
    with pytest.raises(SlotTooSmallError):
        slot.empty((PAGE,), np.uint8)
    assert slot.nbytes == ROOM


@pytest.mark.parametrize("room", [PAGE, PAGE + 1, 3 * PAGE - 1, 3 * PAGE])
def test_room_that_is_no_whole_number_of_pages_is_rounded_down(room: int) -> None:
    slot = Slot(anonymous_file())
    slot.begin(room)
    rest = room // PAGE * PAGE - SLOT_HEAD
    slot.empty((rest,), np.uint8)
    assert slot.nbytes <= room
    with pytest.raises(SlotTooSmallError):
        slot.empty((1,), np.uint8)
    slot.close()


def test_too_large_a_batch_is_refused_with_both_numbers_and_a_remedy(slot: Slot) -> None:
    with pytest.raises(SlotTooSmallError) as caught:
        slot.place(np.zeros(100 * PAGE, np.uint8))
    assert str(caught.value) == (
        f"The batch needs {101 * PAGE:,} bytes of shared memory and max_bytes leaves {ROOM:,} for one batch. "
        "Raise max_bytes, or lower workers, prefetch or the batch size."
    )


def test_room_counts_also_in_a_slot_that_was_larger_once(slot: Slot) -> None:
    """The first batch may have the whole of max_bytes for itself; later ones get a share, in whichever slot."""
    slot.empty((50 * PAGE,), np.uint8)
    slot.begin(10 * PAGE)
    assert slot.nbytes >= 50 * PAGE
    slot.empty((9 * PAGE,), np.uint8)
    with pytest.raises(SlotTooSmallError):
        slot.empty((PAGE,), np.uint8)


# --- two views --------------------------------------------------------------------------------------


def test_what_one_view_places_the_other_finds_also_after_it_grew(slot: Slot, other: Slot) -> None:
    small, large = np.arange(10), np.arange(5 * PAGE)
    leaves = [slot.place(small), slot.place(large)]
    assert other.capacity < slot.capacity
    found = other.arrays(leaves, [small.dtype, large.dtype], copy=False)
    np.testing.assert_array_equal(found[0], small)
    np.testing.assert_array_equal(found[1], large)
    found[1][-1] = -1
    assert slot.arrays(leaves[1:], [large.dtype], copy=True)[0][-1] == -1  # The same pages.


def test_a_view_that_is_behind_does_not_shrink_the_slot(slot: Slot, other: Slot) -> None:
    leaf = slot.place(np.full(20 * PAGE, 7, np.uint8))
    size = slot.nbytes
    assert other.capacity < size
    other.begin(ROOM)
    other.empty((PAGE,), np.uint8)
    assert slot.nbytes == other.capacity == size
    slot.arrays([leaf], [np.dtype(np.uint8)], copy=True)  # A shrunk file would end this process with SIGBUS.


def test_arrays_over_an_old_mapping_stay_valid_while_the_slot_grows(slot: Slot, other: Slot) -> None:
    old = other.arrays([slot.place(np.arange(100))], [np.dtype(np.int64)], copy=False)[0]
    slot.place(np.zeros(30 * PAGE, np.uint8))
    other.remap()
    other.arrays([Leaf(SLOT_HEAD, (8,), 8)], [np.dtype(np.uint8)], copy=False)
    np.testing.assert_array_equal(old, np.arange(100))


def test_progress_is_seen_by_the_other_view(slot: Slot, other: Slot) -> None:
    assert other.progress == 0
    for done in (None, 0, 1, 63):
        slot.progress = done
        assert other.progress == done
        other.progress = done
        assert slot.progress == done


def test_progress_survives_growth_and_ends_with_the_next_task(slot: Slot, other: Slot) -> None:
    slot.progress = 5
    slot.empty((20 * PAGE,), np.uint8)
    assert (slot.progress, other.progress) == (5, 5)
    other.begin(ROOM)
    assert slot.progress == 0


def test_since_is_the_time_of_the_last_progress(slot: Slot, other: Slot) -> None:
    before = time.monotonic()
    slot.progress = 3
    assert before <= other.since <= time.monotonic()
    assert slot.since == other.since


VIEW_OF_ANOTHER_PROCESS = """
import sys
import numpy as np
from keras_mpseq.slots import Slot
slot = Slot(int(sys.argv[1]))
slot.begin(1 << 20)
leaf = slot.place(np.arange(50_000))
slot.progress = 1
print(*leaf.shape, leaf.offset, leaf.nbytes)
"""


def test_the_view_of_another_process() -> None:
    slot = Slot(anonymous_file())
    answer = subprocess.run(
        [sys.executable, "-c", VIEW_OF_ANOTHER_PROCESS, str(slot.fd)],
        pass_fds=[slot.fd],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=True,
    )
    size, offset, nbytes = map(int, answer.stdout.split())
    [array] = slot.arrays([Leaf(offset, (size,), nbytes)], [np.dtype(np.int64)], copy=False)
    np.testing.assert_array_equal(array, np.arange(50_000))
    assert slot.progress == 1
    slot.close()


# --- placing ----------------------------------------------------------------------------------------

LAYOUTS = {
    "plain": np.arange(24.0).reshape(4, 6),
    "Fortran": np.asfortranarray(np.arange(24.0).reshape(4, 6)),
    "strided": np.arange(96.0).reshape(8, 12)[::2, ::2],
    "backwards": np.arange(24.0)[::-1],
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "broadcast": np.broadcast_to(np.arange(6.0), (4, 6)),
    "one value": np.broadcast_to(np.float32(7), (100, 100)),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 5)),
    "empty inside": np.zeros((5, 0, 2), np.int8),
    "unaligned": np.frombuffer(b"x" + np.arange(5.0).tobytes(), np.uint8)[1:].view(np.float64),
    "complex": np.arange(5) * 1j,
    "half": np.arange(5, dtype=np.float16),
    "bool": np.array([True, False]),
    "bfloat16": np.arange(5).astype(ml_dtypes.bfloat16),
    "float8": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
    "text": np.array(["a", "bcd", "é"]),
    "bytes": np.array([b"a", b"bcd"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("copy", [True, False])
def test_every_layout_of_arrays_arrives(slot: Slot, name: str, copy: bool) -> None:
    array = LAYOUTS[name].view()
    array.flags.writeable = False
    found = through(slot, array, copy=copy)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert copy or address(found) % ALIGNMENT == 0


def test_an_array_that_lies_in_the_slot_is_not_copied(slot: Slot) -> None:
    array = slot.empty((10, 16), np.float32)
    used = slot.used
    assert slot.place(array) == Leaf(SLOT_HEAD, (10, 16), 640)
    assert slot.place(array[2:5]) == Leaf(SLOT_HEAD + 128, (3, 16), 192)
    assert slot.place(array.reshape(16, 10)) == Leaf(SLOT_HEAD, (16, 10), 640)
    assert slot.place(array.view(np.int16)) == Leaf(SLOT_HEAD, (10, 32), 640)
    assert slot.used == used


def test_views_that_cannot_be_used_in_place_are_copied(slot: Slot) -> None:
    array = slot.empty((10, 16), np.float32)
    array[:] = np.arange(160).reshape(10, 16)
    for view in (array[:, 1:], array[::2], array.reshape(-1)[1:], array.T):
        expected = view.copy()
        np.testing.assert_array_equal(through(slot, view), expected)
    assert slot.used > SLOT_HEAD + 4 * 320


def test_an_array_in_a_mapping_of_before_it_grew_is_not_copied(slot: Slot) -> None:
    array = slot.empty((100,), np.uint8)
    slot.empty((10 * PAGE,), np.uint8)
    used = slot.used
    assert slot.place(array).offset == SLOT_HEAD
    assert slot.used == used


def test_the_same_array_twice(slot: Slot) -> None:
    array = np.arange(10)
    first, second = slot.place(array), slot.place(array)
    found = slot.arrays([first, second], [array.dtype] * 2, copy=False)
    assert not np.shares_memory(*found)
    assert [part.tolist() for part in found] == [array.tolist()] * 2


NUMBERS = st.one_of(
    numpy_st.boolean_dtypes(),
    numpy_st.integer_dtypes(endianness="="),
    numpy_st.unsigned_integer_dtypes(endianness="="),
    numpy_st.floating_dtypes(endianness="="),
    numpy_st.complex_number_dtypes(endianness="="),
)


@given(
    st.lists(numpy_st.arrays(NUMBERS, numpy_st.array_shapes(min_dims=0, max_dims=3, min_side=0)), max_size=5),
    st.data(),
)
@settings(deadline=None)
def test_any_arrays_arrive(arrays: list[np.ndarray], data: st.DataObject) -> None:
    parts = [array[data.draw(numpy_st.basic_indices(array.shape), "part")] for array in arrays]
    views = [np.asarray(part) for part in parts]
    with contextlib.closing(Slot(anonymous_file())) as slot:
        slot.begin(ROOM)
        leaves = [slot.place(view) for view in views]
        found = slot.arrays(leaves, [view.dtype for view in views], copy=False)
        for view, one in zip(views, found, strict=True):
            assert (one.dtype, one.shape, one.tobytes()) == (view.dtype, view.shape, view.tobytes())


# --- leases -----------------------------------------------------------------------------------------


class Leased:
    """Arrays on lease, and how often it has ended."""

    def __init__(self, slot: Slot, *sizes: int) -> None:
        self.ended: queue.SimpleQueue[LeaseEnd] = queue.SimpleQueue()
        leaves = [slot.place(np.full(size, 7, np.uint8)) for size in sizes]
        self.arrays = slot.leased(leaves, [np.dtype(np.uint8)] * len(sizes), 3, self.ended.put)


def test_a_lease_ends_once_with_the_last_array_in_any_order(slot: Slot) -> None:
    leased = Leased(slot, 10, 20, 30)
    for at in (1, 0):
        del leased.arrays[at]
        assert leased.ended.empty()
    leased.arrays.clear()
    assert leased.ended.qsize() == 1
    gc.collect()
    assert leased.ended.qsize() == 1
    assert leased.ended.get().number == 3


def test_whatever_is_made_of_a_leased_array_holds_the_lease(slot: Slot) -> None:
    leased = Leased(slot, 640)
    part: Any = leased.arrays.pop()[64:].reshape(24, 24)[::2].view(np.int8)
    assert leased.ended.empty()
    part = memoryview(part)
    assert leased.ended.empty()
    copy = np.array(part)
    del part
    assert leased.ended.qsize() == 1
    assert copy.shape == (12, 24)
    assert (copy == 7).all()


def test_a_leased_array_can_be_written_and_lies_in_the_slot(slot: Slot, other: Slot) -> None:
    leaf = slot.place(np.arange(100))
    [array] = other.leased([leaf], [np.dtype(np.int64)], 0, queue.SimpleQueue().put)
    array[0] = -1
    assert slot.arrays([leaf], [array.dtype], copy=True)[0][0] == -1
    assert address(array) % ALIGNMENT == 0


def test_a_batch_of_empty_arrays_has_a_lease_too(slot: Slot) -> None:
    leased = Leased(slot, 0, 0)
    assert [array.shape for array in leased.arrays] == [(0,), (0,)]
    leased.arrays.clear()
    assert leased.ended.qsize() == 1


def test_leased_arrays_outlive_the_slot(slot: Slot) -> None:
    extra = Slot(os.dup(slot.fd))
    extra.begin(1 << 20)
    leased = Leased(extra, 5 * PAGE)
    [array] = leased.arrays
    leased.arrays.clear()
    memory = weakref.ref(array.base)
    extra.close()
    del extra
    assert (array == 7).all()
    del array
    assert memory() is None
    assert leased.ended.empty()  # Nobody is left who could use it.


def test_an_interrupt_is_not_swallowed_where_a_lease_ends(slot: Slot) -> None:
    """A signal's handler runs between two steps of Python code, of which the end of a lease must have none."""
    leased = Leased(slot, 100)
    steps: list[str] = []

    def note(frame: FrameType, event: str, _arg: object) -> None:
        steps.append(f"{event} {frame.f_code.co_name}")

    sys.setprofile(note)
    leased.arrays.clear()
    sys.setprofile(None)
    assert leased.ended.qsize() == 1
    assert not [step for step in steps if step.startswith("call")]


def test_a_lease_that_lives_at_exit_does_nothing() -> None:
    code = (
        "import numpy as np\n"
        "from keras_mpseq.slots import Slot, anonymous_file\n"
        "slot = Slot(anonymous_file()); slot.begin(1 << 20)\n"
        "array = slot.leased([slot.place(np.arange(9))], [np.dtype(int)], 0, print)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
