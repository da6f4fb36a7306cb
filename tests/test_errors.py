"""Whatever goes wrong ends in an error that says what, where and what to do; and the next epoch works.

Each error by itself; the matrix of faults and phases is in tests/faults.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import tensorflow as tf

from keras_mpseq import (
    CheckError,
    InternalError,
    Loader,
    MpseqError,
    PayloadError,
    PoolClosedError,
    SequenceLengthError,
    SlotTooSmallError,
    SpecMismatchError,
    StatefulGetitemError,
    UnsupportedLeafError,
    UserCodeError,
    WorkerLostError,
    WorkerTimeoutError,
    deadlines,
    to_dataset,
)
from keras_mpseq import errors as errors_module
from keras_mpseq.errors import describe_exit, load_error
from keras_mpseq.worker import dump_error
from tests import faulty
from tests.conftest import Scripts
from tests.faulty import (
    AT,
    BATCHES,
    FAULTS,
    Does,
    EndlessFailure,
    Faulty,
    Fickle,
    Raises,
    RaisesInHook,
    Sized,
    go_wrong,
)
from tests.sequences import Calling, Counting

LAUNCHERS = ("template", "spawn")
WORKERS = (0, 2)
IN_WORKER = "The worker's traceback is below, and the exception itself is the cause where it pickles."
HERE = "The traceback is below, and the exception itself is the cause."


def values(loader: Loader) -> list[int]:
    return [int(batch.flat[0]) for batch in loader]


def error_of(sequence: Any, **options: Any) -> MpseqError:
    """Return the error that the first epoch ends with."""
    with Loader(sequence, **{"workers": 2, **options}) as loader, pytest.raises(MpseqError) as caught:
        list(loader)
    return caught.value


def first_line(error: MpseqError) -> str:
    return str(error).splitlines()[0]


# --- the user's exceptions --------------------------------------------------------------------------

RAISED: dict[str, tuple[Callable[[], BaseException], str]] = {
    "ValueError": (lambda: ValueError("no such row"), "ValueError: no such row"),
    "KeyError": (lambda: KeyError("image"), "KeyError: 'image'"),
    "no text": (lambda: RuntimeError(), "RuntimeError"),
    "a full stop": (lambda: OSError("It is gone."), "OSError: It is gone"),
    "StopIteration": (StopIteration, "StopIteration"),
    "StopAsyncIteration": (StopAsyncIteration, "StopAsyncIteration"),
    "IndexError": (lambda: IndexError(99), "IndexError: 99"),
    "SystemExit": (lambda: SystemExit(3), "SystemExit: 3"),
    "GeneratorExit": (GeneratorExit, "GeneratorExit"),
    "CancelledError": (asyncio.CancelledError, "CancelledError"),
    "MemoryError": (lambda: MemoryError("too much"), "MemoryError: too much"),
    "with fields": (lambda: faulty.Fields("broken", 7), "Fields: ('broken', 7)"),
    "a UnicodeDecodeError": (
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    # These do not pickle by themselves.
    "two arguments": (lambda: faulty.TwoArguments("broken", 2), "TwoArguments: broken 2"),
    "no __reduce__": (lambda: faulty.NoReduce("broken"), "NoReduce: broken"),
    "no __str__": (lambda: faulty.NoText("broken"), "NoText: (its __str__ raised)"),
    "holding a lock": (lambda: faulty.Holding("broken"), "Holding: broken"),
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", RAISED)
def test_any_exception_of_getitem(name: str, workers: int) -> None:
    """Its class, its arguments and its traceback arrive, and the same loader goes on."""
    make, text = RAISED[name]
    original = make()
    with Loader(Raises(make), workers=workers) as loader:
        for epoch in range(2):
            batches = iter(loader)
            assert [int(next(batches)[0]) for _ in range(AT)] == list(range(AT))
            with pytest.raises(UserCodeError) as caught:
                next(batches)
            error = caught.value
            worker = f", worker {error.worker}" if workers else ""
            assert first_line(error) == (
                f"__getitem__ raised {text} (index {AT}, epoch {epoch}{worker}, attempt 1). "
                f"{IN_WORKER if workers else HERE}"
            )
            assert type(error.__cause__) is type(original)
            assert error.__cause__.args == original.args
            assert "tests/faulty.py" in str(error)
            assert "raise self.make()" in str(error)
            assert "keras_mpseq/" not in error.traceback.replace("keras_mpseq/tests", "")
            assert next(batches, None) is None  # The epoch is over.


def test_what_of_an_exception_does_not_pickle_is_left_out() -> None:
    cause = error_of(Raises(lambda: faulty.Holding("broken"))).__cause__
    assert isinstance(cause, faulty.Holding)
    assert not hasattr(cause, "lock")
    cause = error_of(Raises(lambda: faulty.TwoArguments("broken", 2))).__cause__
    assert isinstance(cause, faulty.TwoArguments)
    assert cause.number == 2


def test_an_interrupt_that_a_worker_raises_itself_is_the_users_exception() -> None:
    error = error_of(Raises(KeyboardInterrupt))
    assert isinstance(error, UserCodeError)
    assert type(error.__cause__) is KeyboardInterrupt


def test_an_interrupt_in_this_process_is_none_of_our_errors() -> None:
    with Loader(Raises(KeyboardInterrupt), workers=0) as loader, pytest.raises(KeyboardInterrupt):
        list(loader)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (faulty.recurse, RecursionError, "maximum recursion depth exceeded"),
        (lambda index: np.ones(1 << 46, np.uint8), MemoryError, "Unable to allocate 64.0 TiB"),
    ],
)
def test_exhaustion_of_stack_and_memory(
    make: Callable[[int], Any], kind: type[Exception], text: str, workers: int
) -> None:
    with Loader(Calling(make), workers=workers) as loader, pytest.raises(UserCodeError) as caught:
        list(loader)
    assert isinstance(caught.value.__cause__, kind)
    assert text in first_line(caught.value)
    assert len(str(caught.value)) < 30_000


def test_a_huge_traceback_keeps_its_start_and_its_end() -> None:
    error = error_of(Raises(faulty.long_story))
    text = str(error)
    assert "ValueError: the first" in text
    assert "[...]" in text
    assert text.rstrip().endswith("RuntimeError: number 199")
    assert len(text) < 30_000


def test_a_huge_text_is_shortened_and_the_exception_is_whole() -> None:
    error = error_of(Raises(lambda: ValueError("x" * 3_000_000)))
    assert f"__getitem__ raised ValueError: {'x' * 2000} [...] (index {AT}," in str(error)
    assert len(str(error)) < 30_000
    assert error.__cause__ is not None
    assert len(error.__cause__.args[0]) == 3_000_000


def test_an_error_of_ours_that_the_users_code_raises_keeps_its_class() -> None:
    """Such as one of a loader that is used inside `__getitem__`."""
    error = error_of(Raises(lambda: SpecMismatchError("Nothing fits", remedy="Try again.")))
    assert type(error) is SpecMismatchError
    assert first_line(error) == (f"Nothing fits (index {AT}, epoch 0, worker {error.worker}, attempt 1). Try again.")


OF_MAIN = """
import traceback
from keras_mpseq import Loader, MpseqError, UserCodeError, UserCodeError as Base

class Broken(Exception):
    def __init__(self, what, number):
        super().__init__(f"{what} {number}")
        self.number = number

class Ours(MpseqError):
    "A user's own subclass."

class Sequence:
    def __init__(self, kind):
        self.kind = kind
    def __len__(self):
        return 5
    def __getitem__(self, index):
        raise Broken("image", index) if self.kind == "theirs" else Ours("odd", remedy="Even it.")

for launcher in ("template", "spawn"):
    with Loader(Sequence("theirs"), workers=2, launcher=launcher) as loader:
        try:
            list(loader)
        except UserCodeError as error:
            assert type(error.__cause__) is Broken, repr(error.__cause__)
            assert error.__cause__.number == error.index == 0
            assert "raise Broken" in str(error)
    with Loader(Sequence("ours"), workers=2, launcher=launcher) as loader:
        try:
            list(loader)
        except Ours as error:
            assert str(error).startswith("odd (index 0, epoch 0, worker ")
print("done")
"""


def test_exception_classes_of_a_script(scripts: Scripts) -> None:
    assert scripts.run(OF_MAIN) == "done\n"


# --- hooks and resources ----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("hook", ["on_worker_start", "on_epoch_begin", "on_epoch_end"])
def test_hooks_that_raise(hook: str, workers: int) -> None:
    """With any `on_error`: no batch is to blame. What is mended works in the next epoch."""
    for on_error in ("raise", "skip"):
        sequence = RaisesInHook(hook)
        with Loader(sequence, workers=workers, on_error=on_error) as loader:
            with pytest.raises(UserCodeError) as caught:
                list(loader)
            error = caught.value
            in_worker = bool(workers) and hook == "on_worker_start"
            place = f"worker {error.worker}" if in_worker else "epoch 0"
            place = f" ({place})" if in_worker or hook != "on_worker_start" else ""
            assert first_line(error) == (
                f"{hook} raised Fields: ('broken {hook}', 7){place}. {IN_WORKER if in_worker else HERE}"
            )
            assert isinstance(error.__cause__, faulty.Fields)
            assert error.__cause__.code == 7
            assert error.index is None
            assert "self._call(" in error.traceback
            sequence.hook = ""
            assert values(loader) == list(range(5, 5 + BATCHES))


@pytest.mark.parametrize("workers", WORKERS)
def test_a_resource_that_cannot_be_built(workers: int) -> None:
    sequence = RaisesInHook("build")
    with Loader(sequence, workers=workers) as loader:
        with pytest.raises(
            UserCodeError, match=r"^__getitem__ raised Fields: \('broken build', 7\) \(index 0,"
        ) as caught:
            list(loader)
        assert isinstance(caught.value.__cause__, faulty.Fields)
        assert "np.full(3, index + self.resource)" in caught.value.traceback
        sequence.hook = ""
        assert values(loader) == list(range(5, 5 + BATCHES))


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    ("hook", "what"), [("on_worker_stop", "on_worker_stop"), ("close", "Closing a per_worker resource")]
)
def test_what_fails_at_the_end_is_logged(hook: str, what: str, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with Loader(RaisesInHook(hook), workers=workers) as loader:
        assert len(list(loader)) == BATCHES
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    # A worker that built no batch has no resource to close.
    assert 1 <= len(caplog.records) <= max(workers, 1)
    for record in caplog.records:
        who = f"Worker {record.args[0]}" if workers else "The sequence"
        assert record.getMessage().startswith(
            f"{who} did not stop in good order: {what} raised Fields: ('broken {hook}', 7)"
        )


# --- lost workers -----------------------------------------------------------------------------------

LOSSES: dict[str, tuple[Callable[[], object], str, str]] = {
    "os._exit(0)": (
        lambda: os._exit(0),
        "exit code 0",
        "Something that the sequence calls ended the process (sys.exit, os._exit): let it raise an exception.",
    ),
    "os._exit(7)": (
        lambda: os._exit(7),
        "exit code 7",
        "Something that the sequence calls ended the process (sys.exit, os._exit): let it raise an exception.",
    ),
    "SIGKILL": (
        FAULTS["SIGKILL"],
        "SIGKILL",
        "The system kills processes that use too much memory: lower the batch size, workers or prefetch; "
        "`keras-mpseq doctor` tells what there is.",
    ),
    "SIGTERM": (
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        "SIGTERM",
        "Somebody ended it from outside, such as a batch system at its time limit.",
    ),
    "SIGSEGV": (
        faulty.crash,
        "SIGSEGV",
        "Native code crashed: look at the libraries that the sequence calls, and at the stack below, if any.",
    ),
    "abort": (faulty.abort, "SIGABRT", "Native code called abort(): its message is on stderr."),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_worker_that_dies_on_each_attempt(name: str) -> None:
    what, how, remedy = LOSSES[name]
    with Loader(Does(what), workers=2) as loader:
        batches = iter(loader)
        assert [int(next(batches)[0]) for _ in range(AT)] == list(range(AT))
        with pytest.raises(WorkerLostError) as caught:
            next(batches)
        error = caught.value
        assert first_line(error) == (
            f"Worker {error.worker} died ({how}) while building batch {AT}, attempt 2 of 2 (epoch 0). {remedy}"
        )
        assert (error.index, error.epoch, error.attempt) == (AT, 0, 2)
        assert error.worker in (0, 1)
        assert not isinstance(error, WorkerTimeoutError)
        assert loader.stats().restarts == 2


@pytest.mark.parametrize("what", [faulty.crash, faulty.abort])
def test_a_crash_shows_its_stack_without_the_list_of_modules(what: Callable[[], object]) -> None:
    text = str(error_of(Does(what), attempts=1))
    assert "Traceback in the worker:\nFatal Python error: " in text
    assert f"in {what.__name__}\n" in text
    assert "tests/faulty.py" in text
    assert "Extension modules" not in text


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("fault", ["os._exit(0)", "SIGKILL", "SIGSEGV", "hang"])
def test_a_death_that_does_not_come_again_costs_nothing(fault: str, launcher: str, tmp_path: Path) -> None:
    sequence = Does(FAULTS[fault], at=(0, 3, 4, 7), once_in=tmp_path)
    timeout = 0.5 if fault == "hang" else None
    with Loader(sequence, workers=2, launcher=launcher, timeout=timeout) as loader:
        assert values(loader) == list(range(BATCHES))
        assert loader.stats().restarts == 4
        assert values(loader) == list(range(BATCHES))
        assert loader.stats().restarts == 4


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_as_many_attempts_as_asked_for(attempts: int) -> None:
    error = error_of(Does(FAULTS["os._exit(0)"]), attempts=attempts)
    assert f"while building batch {AT}, attempt {attempts} of {attempts} (" in str(error)
    assert error.attempt == attempts


def test_other_batches_are_not_blamed_for_a_death(tmp_path: Path) -> None:
    """Each batch kills its worker once; with one death allowed for each, all are built."""
    sequence = Does(FAULTS["os._exit(0)"], at=tuple(range(BATCHES)), once_in=tmp_path)
    with Loader(sequence, workers=2) as loader:
        assert values(loader) == list(range(BATCHES))
        assert loader.stats().restarts == BATCHES


@pytest.mark.parametrize(
    ("status", "name", "remedy"),
    [(0, "exit code 0", "os._exit"), (1, "exit code 1", "os._exit"), (-7, "SIGBUS", "memmap"), (-50, "signal 50", "")],
)
def test_exit_statuses_are_named(status: int, name: str, remedy: str) -> None:
    found, told = describe_exit(status)
    assert found == name
    assert remedy in told


# --- time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_batch_that_takes_too_long_shows_where_it_stands(launcher: str) -> None:
    error = error_of(Does(faulty.hang), launcher=launcher, timeout=0.5, attempts=1)
    assert isinstance(error, WorkerTimeoutError)
    assert isinstance(error, WorkerLostError)
    assert first_line(error) == (
        f"Worker {error.worker} was killed because it took longer than 0.5 s while building batch {AT}, "
        "attempt 1 of 1 (epoch 0). Raise timeout, or see in the stack below what it waits for."
    )
    assert "in hang\n" in error.stack
    assert "tests/faulty.py" in error.stack
    assert str(error).endswith(f"Stack of the worker:\n{error.stack.rstrip()}")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_start_that_takes_too_long_shows_where_it_stands(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "START_S", 2.0)
    go_wrong(tmp_path / "on", "unpickle", "hang")
    with (
        pytest.raises(WorkerTimeoutError) as caught,
        Loader(Faulty(tmp_path / "on"), workers=1, launcher=launcher, timeout=1.0, attempts=1) as loader,
    ):
        list(loader)
    assert "took longer than 2 s" in caught.value.message
    assert "in hang\n" in caught.value.stack
    assert "in __setstate__\n" in caught.value.stack


def test_each_batch_has_its_own_time() -> None:
    """Where a task is several batches, it may take as many times as long."""
    with Loader(faulty.SlowAfterFast(), workers=2, timeout=0.4) as loader:
        assert values(loader) == list(range(230))
        assert loader.stats().restarts == 0


# --- the payload ------------------------------------------------------------------------------------


def test_a_sequence_that_does_not_pickle_is_told_before_any_process_starts() -> None:
    sequence = Counting(3)
    sequence.generator = (n for n in range(3))
    sequence.nested = {"lock": [faulty.threading.Lock()]}
    with pytest.raises(PayloadError) as caught:
        Loader(sequence, workers=2)
    assert str(caught.value) == (
        "The sequence cannot be sent to workers: 2 members do not pickle: "
        "seq.generator (generator: keep what it is made from, and index that), "
        "seq.nested['lock'][0] (_thread.lock: it belongs to one process). "
        "Build such members in the worker with @per_worker, or drop them in __getstate__."
    )
    assert isinstance(caught.value.__cause__, TypeError)
    assert len(Loader(sequence, workers=0)) == 3  # This process needs no copy.


def test_a_sequence_that_stops_pickling_between_epochs() -> None:
    sequence = Counting(3)
    with Loader(sequence, workers=2) as loader:
        assert len(list(loader)) == 3
        sequence.lock = faulty.threading.Lock()
        with pytest.raises(PayloadError, match=r"seq\.lock"):
            list(loader)
        del sequence.lock
        assert len(list(loader)) == 3


# --- the spec ---------------------------------------------------------------------------------------

FIT = {"x": np.zeros((4, 2), np.float32), "y": np.arange(4)}
MISFITS = {
    "structure": ((FIT["x"], FIT["y"]), "The batch has the structure (*, *), expected {'x': *, 'y': *}"),
    "dtype": ({**FIT, "x": np.zeros((4, 2))}, "Leaf batch['x'] is float64(4, 2), expected float32(None, {})"),
    "rank": ({**FIT, "y": np.zeros((4, 1), int)}, "Leaf batch['y'] is int64(4, 1), expected int64(None)"),
}
INFERRED = (
    "Return the same structure and dtypes for every index (.astype), or declare element_spec=, with None for each "
    "dimension that varies."
)
DECLARED = {"x": tf.TensorSpec((None, 2), tf.float32), "y": tf.TensorSpec((None,), tf.int64)}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", MISFITS)
def test_a_batch_that_differs_from_the_first(name: str, workers: int) -> None:
    batch, message = MISFITS[name]
    error = error_of(Fickle({AT: batch}), workers=workers)
    assert type(error) is SpecMismatchError
    assert str(error) == (f"{message.replace('{}', 'None')} as in the first batch (index {AT}, epoch 0). {INFERRED}")


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", [*MISFITS, "dimension"])
def test_a_batch_that_differs_from_what_was_declared(name: str, workers: int) -> None:
    dimension = (
        {**FIT, "x": np.zeros((4, 3), np.float32)},
        "Leaf batch['x'] is float32(4, 3), expected float32(None, {})",
    )
    batch, message = {**MISFITS, "dimension": dimension}[name]
    sequence = Fickle({AT: batch})
    with Loader(sequence, workers=workers, element_spec=DECLARED) as loader:
        batches = iter(loader)
        assert [next(batches)["y"].tolist() for _ in range(AT)] == [[0, 1, 2, 3]] * AT
        with pytest.raises(SpecMismatchError) as caught:
            next(batches)
        sequence.changes = {}
        assert len(list(loader)) == BATCHES
    assert str(caught.value) == (
        f"{message.replace('{}', '2')} (index {AT}, epoch 0). Make __getitem__ return what element_spec declares."
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_none_in_the_place_of_a_batch(workers: int) -> None:
    error = error_of(Fickle({AT: None}), workers=workers)
    worker = f", worker {error.worker}" if workers else ""
    assert str(error) == (
        f"__getitem__ returned None in the place of a batch (index {AT}, epoch 0{worker}, attempt 1). "
        "Return arrays for every index; to leave one out, make the sequence shorter."
    )
    assert type(error) is SpecMismatchError


def test_a_leaf_that_cannot_travel_is_a_mismatch_too() -> None:
    error = error_of(Fickle({AT: {**FIT, "y": {1}}}))
    assert type(error) is UnsupportedLeafError
    assert isinstance(error, SpecMismatchError)
    assert error.message == "Leaf batch['y'] is of type set, which cannot travel between processes"


def test_a_dataset_fixes_what_a_loader_leaves_open() -> None:
    batch = {**FIT, "x": np.zeros((4, 3), np.float32)}
    with Loader(Fickle({AT: batch}), workers=0) as loader:
        assert len(list(loader)) == BATCHES
    with pytest.raises(tf.errors.OpError, match=r"batch\['x'\] is float32\(4, 3\), expected float32\(None, 2\)"):
        list(to_dataset(Fickle({AT: batch}), workers=0))


# --- lengths ----------------------------------------------------------------------------------------

HINT = (
    "Return the number of batches from __len__; use math.ceil(samples / batch_size), and check that there are samples."
)


@pytest.mark.parametrize("length", [0, -1, 2.5, 3.0, None, "3", np.float32(3)])
@pytest.mark.parametrize("make", [Loader, to_dataset])
def test_lengths_that_are_none(length: Any, make: Callable[..., Any]) -> None:
    with pytest.raises(SequenceLengthError) as caught:
        make(Sized(length))
    assert str(caught.value) == f"Sized has the length {length!r}, expected an int of 1 or more. {HINT}"


class NoLength:
    def __getitem__(self, index: int) -> Any:
        return index


class LengthOfNone(NoLength):
    def __len__(self) -> int:
        return len(None)  # type: ignore[arg-type]


class BatchesMethod(NoLength):
    def num_batches(self) -> int:
        return 3


class BatchesProperty(NoLength):
    batches: Any = None

    @property
    def num_batches(self) -> Any:
        return self.batches


def test_sequences_that_do_not_say_their_length() -> None:
    define = "Define __len__, or num_batches as a property that returns None for an infinite sequence."
    for sequence, why in (
        (NoLength(), "TypeError: object of type 'NoLength' has no len()"),
        (LengthOfNone(), "TypeError: object of type 'NoneType' has no len()"),
    ):
        with pytest.raises(SequenceLengthError) as caught:
            Loader(sequence)
        assert str(caught.value) == (
            f"{type(sequence).__name__} does not say how many batches it has ({why}). {define}"
        )
    with pytest.raises(SequenceLengthError) as caught:
        Loader(BatchesMethod())
    assert str(caught.value) == "BatchesMethod.num_batches is a method. Put @property above it."


def test_num_batches() -> None:
    sequence = BatchesProperty()
    with (
        Loader(sequence, workers=0) as loader,
        pytest.raises(TypeError, match=r"^The sequence is infinite: it has no length\.$"),
    ):
        len(loader)
    sequence.batches = 0
    with pytest.raises(SequenceLengthError, match="has the length 0"):
        Loader(sequence)
    sequence.batches = np.int64(5)
    assert len(Loader(sequence, workers=0)) == 5


@pytest.mark.parametrize("workers", WORKERS)
def test_a_length_that_changes_during_an_epoch(workers: int) -> None:
    sequence = Counting(5)
    with Loader(sequence, workers=workers) as loader:
        batches = iter(loader)
        next(batches)
        sequence.batches = 6
        with pytest.raises(SequenceLengthError) as caught:
            list(batches)
        assert str(caught.value) == (
            "The length of Counting changed from 5 to 6 during epoch 0. "
            "Change it in on_epoch_begin or on_epoch_end, or between epochs."
        )
        assert len(list(loader)) == 6


def test_a_length_that_no_longer_is_one() -> None:
    sequence = Counting(5)
    with Loader(sequence, workers=2) as loader:
        assert len(list(loader)) == 5
        sequence.batches = 0
        with pytest.raises(SequenceLengthError, match="Counting has the length 0, expected an int of 1 or more"):
            list(loader)


def test_a_dataset_whose_length_changes_between_epochs() -> None:
    sequence = Counting(5)
    dataset = to_dataset(sequence, workers=0)
    assert len(list(dataset)) == 5
    sequence.batches = 6
    with pytest.raises(
        tf.errors.OpError,
        match=r"The sequence had 5 batches when the dataset was made and has 6 now\. Pass varying_length=True to",
    ):
        list(dataset)


# --- closed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_a_closed_loader(workers: int) -> None:
    loader = Loader(Counting(9), workers=workers)
    batches = iter(loader)
    next(batches)
    loader.close()
    loader.close()
    for use in (lambda: next(batches), lambda: iter(loader)):
        with pytest.raises(PoolClosedError) as caught:
            use()
        assert str(caught.value) == "The loader is closed. Iterate inside its `with` block, or make a new one."


def test_a_deleted_dataset() -> None:
    """TensorFlow can keep the graph of a dataset without the dataset."""
    dataset = to_dataset(Counting(3), workers=0)
    spec, variant = dataset.element_spec, tf.data.experimental.to_variant(dataset)
    graph = tf.data.experimental.from_variant(variant, spec)
    assert len(list(graph)) == 3
    del dataset
    gc.collect()
    with pytest.raises(tf.errors.OpError, match=r"PoolClosedError: The dataset was deleted\. Keep what to_dataset"):
        list(graph)


# --- skipping ---------------------------------------------------------------------------------------


def skipped(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]


@pytest.mark.parametrize("workers", WORKERS)
def test_skipped_batches_are_counted_and_named(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with Loader(Raises(lambda: ValueError("broken")), workers=workers, on_error="skip") as loader:
        for epoch in range(2):
            assert values(loader) == [index for index in range(BATCHES) if index != AT]
            assert loader.stats().skipped == epoch + 1
            assert loader.stats().batches == (BATCHES - 1) * (epoch + 1)
    assert skipped(caplog) == [
        f"Epoch {epoch} skipped 1 batch that failed: {AT} (__getitem__ raised ValueError: broken)."
        for epoch in range(2)
    ]


@pytest.mark.parametrize("fault", ["os._exit(0)", "SIGSEGV", "hang"])
def test_batches_that_cost_their_worker_are_skipped(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    sequence = Does(FAULTS[fault], at=(2, 5))
    timeout = 0.5 if fault == "hang" else None
    with Loader(sequence, workers=2, on_error="skip", attempts=1, timeout=timeout) as loader:
        assert values(loader) == [0, 1, 3, 4, 6, 7]
        assert (loader.stats().skipped, loader.stats().restarts) == (2, 2)
    [message] = skipped(caplog)
    assert message.startswith("Epoch 0 skipped 2 batches that failed: 2 (Worker ")
    assert "while building batch 2, attempt 1 of 1); 5 (Worker " in message
    assert message.endswith("while building batch 5, attempt 1 of 1).")


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_that_do_not_fit_are_skipped(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    changes = {1: None, 2: {**FIT, "x": 1}, 5: {**FIT, "y": {2}}}
    with Loader(Fickle(changes), workers=workers, on_error="skip") as loader:
        assert len(list(loader)) == BATCHES - 3
        assert loader.stats().skipped == 3
        assert loader.stats().batches == BATCHES - 3
    [message] = skipped(caplog)
    assert "1 (__getitem__ returned None in the place of a batch); 2 (Leaf batch['x'] is int64(), expected " in message
    assert "5 (Leaf batch['y'] is of type set, which cannot travel between processes)." in message


def test_no_more_than_ten_are_named(caplog: pytest.LogCaptureFixture) -> None:
    sequence = Fickle(dict.fromkeys(range(3, 17)), batches=20)
    with Loader(sequence, workers=0, on_error="skip") as loader:
        assert len(list(loader)) == 6
    [message] = skipped(caplog)
    assert message.startswith("Epoch 0 skipped 14 batches that failed: 3 (")
    assert message.endswith("12 (__getitem__ returned None in the place of a batch); and 4 more.")


@pytest.mark.parametrize("workers", WORKERS)
def test_an_epoch_of_failures_only_is_empty(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with Loader(Fickle(dict.fromkeys(range(BATCHES))), workers=workers, on_error="skip") as loader:
        assert list(loader) == []
        assert loader.stats().skipped == BATCHES
    assert len(skipped(caplog)) == 1


@pytest.mark.parametrize("workers", WORKERS)
def test_an_endless_sequence_that_only_fails_is_an_error(workers: int, tmp_path: Path) -> None:
    with Loader(EndlessFailure(5, tmp_path / "log"), workers=workers, on_error="skip") as loader:
        batches = iter(loader)
        assert [int(next(batches)[0]) for _ in range(5)] == list(range(5))
        with pytest.raises(UserCodeError, match=r"ValueError: no batch \d+ \(index"):
            next(batches)
        assert loader.stats().skipped == 100
    assert len((tmp_path / "log").read_text().splitlines()) < 1000


def test_skipping_in_a_dataset(caplog: pytest.LogCaptureFixture) -> None:
    dataset = to_dataset(Raises(lambda: ValueError("broken")), workers=2, on_error="skip")
    assert dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    assert [int(batch[0]) for batch in dataset] == [0, 1, 2, 4, 5, 6, 7]
    assert len(skipped(caplog)) == 1


def test_a_dataset_of_failures_only(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SequenceLengthError) as caught:
        to_dataset(Fickle(dict.fromkeys(range(BATCHES))), workers=0, on_error="skip")
    assert str(caught.value) == (
        "No batch of the first epoch could be built, so that there is no element spec. "
        "See the log for what was skipped, or declare element_spec=."
    )


# --- through TensorFlow -----------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True], ids=["grouped", "one by one"])
@pytest.mark.parametrize("workers", WORKERS)
def test_tensorflow_tells_our_message_and_the_remote_traceback(workers: int, large: bool) -> None:
    sequence = Raises(lambda: KeyError("image 3"))
    spec = tf.TensorSpec(None if large else (None,), tf.int64)  # An unknown rank cannot be grouped.
    dataset = to_dataset(sequence, workers=workers, element_spec=spec)
    batches = iter(dataset)
    assert [int(next(batches)[0]) for _ in range(AT)] == list(range(AT))
    with pytest.raises(tf.errors.OpError) as caught:
        next(batches)
    text = str(caught.value)
    assert f"UserCodeError: __getitem__ raised KeyError: 'image 3' (index {AT}, epoch 0" in text
    assert "raise self.make()" in text
    assert f"Traceback{' in the worker' if workers else ''}:" in text
    sequence.make = lambda: StopIteration()
    with pytest.raises(tf.errors.OpError, match=r"__getitem__ raised StopIteration \(index 3, epoch 1"):
        list(dataset)


def test_an_error_of_the_first_batch_is_ours() -> None:
    with pytest.raises(UserCodeError, match=r"ValueError: none \(index 0, epoch 0, worker \d, attempt 1\)"):
        to_dataset(Calling(faulty.none), workers=2)


def test_a_lost_worker_through_tensorflow() -> None:
    dataset = to_dataset(Does(faulty.crash), workers=2, attempts=1)
    with pytest.raises(tf.errors.OpError) as caught:
        list(dataset)
    assert f"died (SIGSEGV) while building batch {AT}, attempt 1 of 1 (epoch 0)" in str(caught.value)
    assert "in crash" in str(caught.value)


# --- pickling ---------------------------------------------------------------------------------------


def all_errors() -> Iterator[MpseqError]:
    for name in vars(errors_module):
        kind = getattr(errors_module, name)
        if isinstance(kind, type) and issubclass(kind, MpseqError):
            error = kind(
                "Something happened", index=3, epoch=2, worker=1, attempt=4, remedy="Mend it.", traceback="line 1\n"
            )
            error.__cause__ = faulty.Fields("broken", 7)
            if isinstance(error, WorkerTimeoutError):
                error.stack, error.state = "line 2\n", "process 17 is sleeping"
            if isinstance(error, InternalError):
                error.trace = "Wanted(run=0) -> nothing"
            yield error


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda error: type(error).__name__)
def test_every_error_survives_pickling_with_its_fields_and_its_cause(error: MpseqError) -> None:
    for through in (
        lambda one: pickle.loads(pickle.dumps(one)),
        lambda one: cloudpickle.loads(cloudpickle.dumps(one)),
        lambda one: load_error(dump_error(pickle.loads(pickle.dumps(one)))),
    ):
        found = through(error)
        assert type(found) is type(error)
        assert vars(found) == vars(error)
        assert found.args == error.args
        assert str(found) == str(error)
        assert isinstance(found.__cause__, faulty.Fields)
        assert (found.__cause__.args, found.__cause__.code) == (("broken", 7), 7)


def test_the_tree_of_errors() -> None:
    kinds = {type(error) for error in all_errors()}
    assert kinds == {
        MpseqError,
        UserCodeError,
        WorkerLostError,
        WorkerTimeoutError,
        PayloadError,
        SpecMismatchError,
        UnsupportedLeafError,
        SlotTooSmallError,
        StatefulGetitemError,
        SequenceLengthError,
        CheckError,
        PoolClosedError,
        InternalError,
    }


def test_a_message_without_a_place_or_a_remedy() -> None:
    assert str(MpseqError("Something happened")) == "Something happened."
    assert str(MpseqError("Something happened", index=0)) == "Something happened (index 0)."
    assert str(UserCodeError("A hook raised", traceback="line 1\n")) == "A hook raised.\n\nTraceback:\nline 1"


def test_a_cause_that_unpickles_there_but_not_here_costs_only_the_cause() -> None:
    error = UserCodeError("__getitem__ raised Odd: text", index=3, traceback="line 1")
    data = pickle.dumps((error, b"not a pickle"))
    found = load_error(data)
    assert str(found) == str(error)
    assert found.__cause__ is None
