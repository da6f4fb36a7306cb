"""Bad input to the public functions: one sentence with the value received, before any process starts."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest

from keras_mpseq import Loader, SafeSequence, SequenceLengthError, per_worker, to_dataset


class Fine:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return np.zeros((2, 2), np.float32)


class Sized:
    """A sequence that says *length* for its length."""

    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> Any:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return np.zeros(2)


class Method:
    def num_batches(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return np.zeros(2)


class Unsized:
    def __getitem__(self, index: int) -> Any:
        return np.zeros(2)


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"workers": -1}, 'workers must be an int of 0 or more, or "auto", got -1.'),
    ({"workers": "many"}, "got 'many'."),
    ({"workers": 1.5}, "got 1.5."),
    ({"workers": True}, "got True."),
    ({"partition": "random"}, 'partition must be one of "dynamic", "block", "stride", got \'random\'.'),
    ({"shuffle": "yes"}, "shuffle must be True or False, got 'yes'."),
    ({"ordered": 2}, "ordered must be True or False, got 2."),
    ({"seed": -3}, "seed must be an int of 0 or more, got -3."),
    ({"seed": "7"}, "seed must be an int of 0 or more, got '7'."),
    ({"shard": (2, 2)}, "shard must be (i, n) with 0 <= i < n, got (2, 2)."),
    ({"shard": 1}, "shard must be (i, n) with 0 <= i < n, got 1."),
    ({"on_error": "ignore"}, 'on_error must be one of "raise", "skip", got \'ignore\'.'),
    ({"prefetch": 0}, "prefetch must be an int of 1 or more, got 0."),
    ({"timeout": 0}, "timeout must be a number of seconds above 0"),
    ({"timeout": "1 s"}, "got '1 s'."),
    ({"attempts": 0}, "attempts must be an int of 1 or more, got 0."),
    ({"max_bytes": 0}, "max_bytes must be an int of 1 or more, got 0."),
    ({"worker_threads": 0}, "worker_threads must be an int of 1 or more, got 0."),
    ({"strict": None}, "strict must be True or False, got None."),
    ({"launcher": "fork"}, 'launcher must be one of "template", "spawn", got \'fork\'.'),
    ({"backend": "dask"}, 'backend must be one of "local", "ray", got \'dask\'.'),
    ({"backend": "ray"}, "keras_mpseq[ray]"),
    ({"element_spec": 3}, "element_spec"),
    ({"element_spec": ()}, "element_spec must hold at least one leaf, got ()."),
]


@pytest.mark.parametrize("make", [Loader, to_dataset], ids=["Loader", "to_dataset"])
@pytest.mark.parametrize(("options", "sentence"), OPTIONS, ids=lambda value: str(value)[:40])
def test_options(make: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError, ImportError)) as caught:
        make(Fine(), **options)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("make", [Loader, to_dataset], ids=["Loader", "to_dataset"])
@pytest.mark.parametrize(
    ("sequence", "sentence"),
    [
        (Fine, "got the class Fine: call it, as in Fine(...)."),
        (3, "got int 3."),
        (None, "got NoneType None."),
        ({"a": 1}, "got dict"),
        ("text", "got str 'text'."),
    ],
    ids=["class", "int", "None", "dict", "str"],
)
def test_no_sequence(make: Any, sequence: Any, sentence: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(sequence, workers=1)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("make", [Loader, to_dataset], ids=["Loader", "to_dataset"])
@pytest.mark.parametrize(
    ("sequence", "sentence"),
    [
        (Sized(0), "Sized has the length 0, expected an int of 1 or more."),
        (Sized(-1), "Sized has the length -1, expected an int of 1 or more."),
        (Sized(2.5), "Sized has the length 2.5, expected an int of 1 or more."),
        (Method(), "Method.num_batches is a method. Put @property above it."),
        (Unsized(), "Define __len__, or num_batches as a property"),
    ],
    ids=["zero", "negative", "float", "method", "unsized"],
)
def test_lengths(make: Any, sequence: Any, sentence: str) -> None:
    with pytest.raises(SequenceLengthError) as caught:
        make(sequence, workers=1)
    assert sentence in str(caught.value)


def test_an_empty_share_is_refused() -> None:
    with pytest.raises(SequenceLengthError, match="Share 4 of 8 of Fine is empty: it has 3 batches"):
        Loader(Fine(), workers=1, shard=(4, 8))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"workers": -1}, "workers must be an int of 0 or more, got -1."),
        ({"max_queue_size": 0}, "max_queue_size must be an int of 1 or more, got 0."),
        ({"seed": 1.0}, "seed must be an int of 0 or more, got 1.0."),
        ({"use_multiprocessing": "yes"}, "use_multiprocessing must be True, False or None, got 'yes'."),
    ],
)
def test_safe_sequence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared whole
        SafeSequence(**settings)
    assert str(caught.value) == sentence


def test_per_worker_cannot_be_assigned() -> None:
    class Has(SafeSequence):
        @per_worker
        def file(self) -> object:
            return object()

    with pytest.raises(AttributeError, match=r"Has\.file is a per_worker resource"):
        Has().file = 3
