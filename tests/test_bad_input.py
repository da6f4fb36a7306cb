"""Bad input to every public function: one clear sentence with the value received, before any process starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mpseq
from keras_mpseq import Loader, MpseqError, SafeSequence, get_worker_info, options, per_worker, to_dataset
from tests.sequences import Calling, Counting, Endless

MAKERS: list[Callable[..., Any]] = [Loader, to_dataset]
both = pytest.mark.parametrize("make", MAKERS, ids=["Loader", "to_dataset"])


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a process is started."""

    def refuse(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"A process was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "fork", refuse)


def message(kind: type[Exception], call: Callable[[], Any]) -> str:
    """Return the message of the error of exactly this *kind*, which must be one sentence."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


# --- options ----------------------------------------------------------------------------------------

PARTITIONS = 'partition must be one of "dynamic", "block", "stride"'
ON_ERROR = 'on_error must be one of "raise", "skip"'
LAUNCHERS = 'launcher must be one of "template", "spawn"'
BACKENDS = 'backend must be one of "local", "ray"'
WORKERS = 'workers must be an int of 0 or more, or "auto"'
TIMEOUT = "timeout must be a number of seconds above 0 and up to 1,000,000, or None for no limit"
SLOW = "slow_warning_s must be a number of seconds above 0 and up to 1,000,000, or None for no warning"
MOST = "max_tasks_per_worker must be an int of 1 or more, or None for no limit"
LIMITS = [
    *[
        (name, value, text)
        for name, text in (("timeout", TIMEOUT), ("slow_warning_s", SLOW))
        for value in (0, -1, 0.0, "5", True, float("nan"), float("inf"), 1e7, [1], 1j)
    ],
    *[("max_tasks_per_worker", value, MOST) for value in (0, -5, 1.5, 2.0, "3", True, [1], np.float32(1))],
]
SHARD = 'shard must be (i, n) with 0 <= i < n, or "auto"'
AN_INT = {"seed": 0, "prefetch": 1, "attempts": 1, "max_bytes": 1, "worker_threads": 1}

BAD_OPTIONS: list[tuple[str, Any, type[Exception], str]] = [
    *[("workers", value, ValueError, WORKERS) for value in (-1, 1.5, 2.0, True, "two", "4", None, [2], np.float64(2))],
    *[
        ("partition", value, ValueError, PARTITIONS)
        for value in ("", "blocks", "Block", None, 0, ["block"], np.array([1, 2]))
    ],
    *[("on_error", value, ValueError, ON_ERROR) for value in ("ignore", None, True, ValueError)],
    *[("launcher", value, ValueError, LAUNCHERS) for value in ("fork", "", 1, True)],
    *[("backend", value, ValueError, BACKENDS) for value in ("dask", None, "")],
    *[
        (name, value, TypeError, f"{name} must be True or False")
        for name in ("shuffle", "ordered", "strict")
        for value in (None, 1, 0, "yes", 1000, [True])
    ],
    *[
        (name, value, ValueError, f"{name} must be an int of {least} or more")
        for name, least in AN_INT.items()
        for value in (least - 1, -5, 1.5, 2.0, "3", True, [1], np.float32(1))
    ],
    *[(name, value, ValueError, text) for name, value, text in LIMITS],
    *[
        ("shard", value, ValueError, SHARD)
        for value in ((1, 1), (-1, 2), (0, 0), (2, 1), (0,), (0, 1, 2), (0.0, 1), (False, True), 1, "01", {0: 1})
    ],
]


@both
@pytest.mark.parametrize(("name", "value", "kind", "start"), BAD_OPTIONS)
def test_bad_options(make: Callable[..., Any], name: str, value: Any, kind: type[Exception], start: str) -> None:
    assert message(kind, lambda: make(Counting(3), **{name: value})) == f"{start}, got {value!r}."


@both
def test_options_that_do_not_exist(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="'use_multiprocessing'"):
        make(Counting(3), use_multiprocessing=True)
    with pytest.raises(TypeError, match="positional argument"):
        make(Counting(3), 4)
    with pytest.raises(TypeError, match="sequence"):
        make()


@both
def test_numbers_of_numpy_are_taken(make: Callable[..., Any]) -> None:
    make(
        Counting(3),
        workers=np.int64(0),
        prefetch=np.int32(1),
        seed=np.uint64(2**63),
        shard=(np.int8(0), np.int64(3)),
        timeout=np.float32(5),
        slow_warning_s=np.int64(5),
        max_tasks_per_worker=np.int16(3),
        shuffle=np.bool_(True),
        attempts=np.uint8(1),
        max_bytes=np.int64(1 << 20),
    )


@both
def test_ray_says_what_to_install(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert message(ImportError, lambda: make(Counting(3), backend="ray")) == (
        'backend="ray" needs keras_mpseq[ray]: pip install "keras_mpseq[ray]", or use backend="local".'
    )


@both
def test_the_launcher_of_another_platform(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "default_launcher", lambda: "spawn")
    assert message(ValueError, lambda: make(Counting(3), launcher="template")) == (
        'launcher="template" needs Linux 5.3 or later; use launcher="spawn".'
    )


@both
def test_workers_on_windows(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.os, "name", "nt")
    text = message(ValueError, lambda: make(Counting(3), workers=2))
    monkeypatch.undo()
    assert text == "workers must be 0 on this platform, got 2: worker processes need Linux or macOS (or WSL)."


@both
@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ([], "element_spec must hold at least one leaf, got []."),
        (
            (tf.TensorSpec((3,)), 5),
            "element_spec must be a tree of tf.TensorSpec or of anything with shape and dtype, got 5 in it.",
        ),
        (
            "float32",
            "element_spec must be a tree of tf.TensorSpec or of anything with shape and dtype, got 'float32' in it.",
        ),
        (
            tf.TensorSpec((3,), tf.resource),
            "element_spec must have dtypes of numbers or strings, got tf.resource in it.",
        ),
    ],
)
def test_bad_element_specs(make: Callable[..., Any], spec: Any, text: str) -> None:
    assert message(TypeError, lambda: make(Counting(3), element_spec=spec)) == text


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_varying_length_is_a_flag(value: Any) -> None:
    text = message(TypeError, lambda: to_dataset(Counting(3), varying_length=value))
    assert text == f"varying_length must be True or False, got {value!r}."


@both
def test_what_cannot_be_had_of_an_infinite_sequence(make: Callable[..., Any]) -> None:
    for workers in (0, 2):
        assert message(ValueError, lambda workers=workers: make(Endless(), shuffle=True, workers=workers)) == (
            "shuffle must be False for an infinite sequence, got True: shuffle downstream, as with "
            "dataset.shuffle(1000)."
        )
        assert message(ValueError, lambda workers=workers: make(Endless(), partition="block", workers=workers)) == (
            'partition must be "dynamic" or "stride" for an infinite sequence, got "block": it has no parts of equal '
            "size."
        )


def test_more_batches_ahead_than_the_system_has_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 300), hard))
    try:
        text = message(MpseqError, lambda: Loader(Counting(3), workers=2, prefetch=1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert text == (
        "1004 pieces of shared memory cannot be had: Too many open files. "
        "Lower workers or prefetch, or raise the limits on processes, memory and open files (ulimit), or "
        "the room on the disk for temporary files; `keras-mpseq doctor` tells what they are."
    )


# --- sequences --------------------------------------------------------------------------------------

ANY = "sequence must be a SafeSequence, a keras Sequence or PyDataset, or any object with __len__ and __getitem__"
NO_SEQUENCES: list[tuple[Any, str]] = [
    (5, f"{ANY}, got int 5."),
    (None, f"{ANY}, got NoneType None."),
    ({1, 2}, f"{ANY}, got set {{1, 2}}."),
    (len, f"{ANY}, got builtin_function_or_method <built-in function len>."),
    (iter([]), f"{ANY}, got list_iterator <list_iterator object at"),
    (tf.data.Dataset.range(3), f"{ANY}, got _RangeDataset <_RangeDataset element_spec="),
    ("text", "sequence must give a batch for each index, got str 'text'."),
    (b"text", "sequence must give a batch for each index, got bytes b'text'."),
    ({0: 1}, "sequence must give a batch for each index, got dict {0: 1}."),
    (
        Counting,
        "sequence must be an object with __len__ and __getitem__, got the class Counting: call it, as in "
        "Counting(...).",
    ),
    ("x" * 100, f"sequence must give a batch for each index, got str '{'x' * 56}...."),
]


@both
@pytest.mark.parametrize(("sequence", "start"), NO_SEQUENCES)
def test_what_is_no_sequence(make: Callable[..., Any], sequence: Any, start: str) -> None:
    assert message(TypeError, lambda: make(sequence)).startswith(start)


@both
def test_a_list_of_batches_is_a_sequence(make: Callable[..., Any]) -> None:
    batches = [np.full(3, number) for number in range(4)]
    found = make(batches, workers=0)
    assert [int(batch[0]) for batch in found] == list(range(4))


# --- SafeSequence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        *[("workers", value, "workers must be an int of 0 or more") for value in (-1, 1.5, True, None, "2")],
        *LIMITS,
        *[("max_queue_size", value, "max_queue_size must be an int of 0 or more") for value in (-1, 1.5, None)],
        *[("seed", value, "seed must be an int of 0 or more") for value in (-1, 0.5, None, "0", False)],
        *[
            ("use_multiprocessing", value, "use_multiprocessing must be True, False or None")
            for value in ("yes", 2, [True])
        ],
        *[("strict", value, "strict must be True or False") for value in ("yes", 1, None)],
    ],
)
def test_bad_arguments_of_a_sequence(name: str, value: Any, text: str) -> None:
    assert message(ValueError, lambda: Counting(3, **{name: value})) == f"{text}, got {value!r}."


def test_an_argument_that_no_sequence_has() -> None:
    with pytest.raises(TypeError, match="'worker'"):
        Counting(3, worker=2)


@both
def test_a_seed_that_the_class_sets_itself_is_checked_too(make: Callable[..., Any]) -> None:
    sequence = Counting(3)
    sequence.seed = "lucky"
    assert message(ValueError, lambda: make(sequence)) == "seed must be an int of 0 or more, got 'lucky'."


@pytest.mark.parametrize("index", ["3", 1.0, None, True, [1], np.float32(2), np.array([1, 2])])
def test_the_index_of_a_generator(index: Any) -> None:
    assert message(TypeError, lambda: Counting(3).rng(index)) == f"index must be an int, got {index!r}."


@pytest.mark.parametrize("shape", [-1, (3, -1), 2.5, (2, 2.5), "ab", None, (2, None), {"a"}])
def test_shapes_of_empty(shape: Any) -> None:
    text = message(ValueError, lambda: Counting(3).empty(shape))
    assert text == f"shape must be an int of 0 or more, or a tuple of such, got {shape!r}."


@pytest.mark.parametrize("dtype", [object, "U", "S", "V", np.dtype([("a", object)]), "floof", 3])
def test_dtypes_of_empty(dtype: Any) -> None:
    text = message(ValueError, lambda: Counting(3).empty(3, dtype))
    assert text == f"dtype must be a dtype of a fixed size in bytes, got {dtype!r}."


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        (3, "f4", (3,)),
        (np.int64(3), bool, (3,)),
        ((), np.int8, ()),
        ([2, np.uint8(3)], np.complex64, (2, 3)),
        (np.array([2, 0]), "U5", (2, 0)),
        ((2,), [("a", "i4"), ("b", "f8")], (2,)),
        (tf.TensorShape((2, 3)), tf.float32.as_numpy_dtype, (2, 3)),
    ],
)
def test_what_empty_takes(shape: Any, dtype: Any, found: tuple[int, ...]) -> None:
    array = Counting(3).empty(shape, dtype)
    assert (array.shape, array.dtype) == (found, np.dtype(dtype))


def test_a_sequence_without_getitem_says_so() -> None:
    class Nothing(SafeSequence):
        def __len__(self) -> int:
            return 3

    with Loader(Nothing(), workers=0) as loader, pytest.raises(MpseqError, match="NotImplementedError"):
        list(loader)


# --- per_worker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, None, "file", property(lambda self: 1)])
def test_per_worker_of_no_method(value: Any) -> None:
    text = message(TypeError, lambda: per_worker(value))
    assert text == f"per_worker decorates a method that builds a resource, got {value!r}."


class Resources(Counting):
    @per_worker
    def file(self) -> Any:
        return [1]

    @per_worker
    def nothing(self) -> Any:
        return
        yield


class Slotted:
    __slots__ = ()

    @per_worker
    def file(self) -> Any:
        return [1]


def test_a_resource_cannot_be_assigned() -> None:
    sequence = Resources(3)

    def assign() -> None:
        sequence.file = [2]

    assert message(AttributeError, assign) == (
        "Resources.file is a per_worker resource: each process builds its own, it cannot be assigned."
    )
    assert sequence.file == [1]


def test_a_resource_that_yields_nothing() -> None:
    assert message(TypeError, lambda: Resources(3).nothing) == (
        "Resources.nothing must yield the resource once, but it ended without a yield."
    )


def test_a_resource_of_a_class_without_a_dict() -> None:
    assert message(TypeError, lambda: Slotted().file) == (
        "Slotted has no __dict__ for its per_worker resources: drop its __slots__."
    )


# --- fit --------------------------------------------------------------------------------------------


def compiled() -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(("sequence", "start"), NO_SEQUENCES)
def test_fitting_to_what_is_no_sequence(sequence: Any, start: str) -> None:
    assert message(TypeError, lambda: keras_mpseq.fit(compiled(), sequence)).startswith(start)


@pytest.mark.parametrize(("name", "value"), [("workers", -1), ("workers", 1.5), ("max_queue_size", -1)])
def test_bad_options_of_fit(name: str, value: Any) -> None:
    text = message(ValueError, lambda: keras_mpseq.fit(compiled(), Counting(3), **{name: value}))
    assert text.endswith(f"got {value!r}.")


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_arguments_of_keras_2_get_an_answer(method: str) -> None:
    call = getattr(compiled(), method)
    text = message(TypeError, lambda: call(Counting(3), workers=4, use_multiprocessing=True))
    assert text.startswith(
        f"{method}() of Keras 3 does not take workers, use_multiprocessing, which belong to the sequence: write "
        f"Counting(..., workers=4, use_multiprocessing=True) and model.{method}(sequence)"
    )
    # Of other data Keras says what it says.
    with pytest.raises((TypeError, ValueError), match=r"unexpected keyword|Arguments not recognized"):
        call(np.zeros((3, 3)), workers=4)


def test_install_takes_nothing() -> None:
    for function in (keras_mpseq.install, keras_mpseq.uninstall):
        with pytest.raises(TypeError, match="positional argument"):
            function(1)


# --- the rest ---------------------------------------------------------------------------------------


def test_outside_a_worker_there_is_no_worker_info() -> None:
    assert get_worker_info() is None
    with pytest.raises(TypeError):
        get_worker_info(1)  # type: ignore[call-arg]


def test_the_length_of_a_loader_of_an_infinite_sequence() -> None:
    with Loader(Endless(), workers=0) as loader:
        assert message(TypeError, lambda: len(loader)) == "The sequence is infinite: it has no length."


def test_names_that_the_package_does_not_have() -> None:
    assert message(AttributeError, lambda: keras_mpseq.todataset) == (
        "module 'keras_mpseq' has no attribute 'todataset'."
    )
    assert set(keras_mpseq.__all__) <= set(dir(keras_mpseq))


def test_every_public_function_is_tested_here() -> None:
    functions = {
        name
        for name in keras_mpseq.__all__
        if not isinstance(getattr(keras_mpseq, name), type) or not issubclass(getattr(keras_mpseq, name), MpseqError)
    }
    assert functions == {
        *("SafeSequence", "per_worker", "get_worker_info", "Loader", "to_dataset"),
        *("fit", "install", "uninstall", "PipelineMonitor"),
        # In test_resume_data.py and test_ray_options.py.
        *("ResumeData", "RayOptions"),
        # In test_batched_input.py, test_generator_dataset.py, test_process_map.py and test_check.py.
        *("BatchedSequence", "generator_dataset", "process_map", "check"),
    }


def test_a_dataset_says_it_about_its_first_batch() -> None:
    """What only the first batch can tell is told when the dataset is made."""
    with pytest.raises(MpseqError, match="The batch is of type set"):
        to_dataset(Calling(lambda index: {1, 2}), workers=0)
