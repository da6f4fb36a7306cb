"""What a pipeline can be told, checked before any process starts: one sentence for each way to be wrong."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_mpseq.errors import SequenceLengthError, cut, named
from keras_mpseq.limits import SLOW_WARNING_S, Limits, check_among
from keras_mpseq.local import Safe
from keras_mpseq.machine import cores, memory
from keras_mpseq.ranks import shard_here
from keras_mpseq.ray_options import RayOptions, checked_for
from keras_mpseq.shares import Shard, check_shard, check_uneven, share_of
from keras_mpseq.spec import ElementSpec
from keras_mpseq.streams import Streamed

Partition = Literal["dynamic", "block", "stride"]
OnError = Literal["raise", "skip"]

BATCHES_AHEAD = 2
"""Finished batches ahead for each worker, unless prefetch says otherwise; as many as torch's DataLoader keeps."""
_MEMORY_SHARE = 4
"""By default slots may take one part in so many of the memory of the machine, or of the container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The checked options of a pipeline; see `to_dataset` for what they mean."""

    workers: int
    partition: str
    shuffle: bool
    ordered: bool
    seed: int
    shard: tuple[int, int]
    uneven: str
    on_error: str
    prefetch: int
    element_spec: ElementSpec | None
    limits: Limits
    attempts: int
    max_bytes: int
    worker_threads: int
    strict: bool
    launcher: str
    hooks: bool = True
    """Epoch hooks run when iterators begin and end; False: whoever iterates runs them."""
    first_epoch: int = 0
    doubles: np.dtype[Any] | None = None
    """What float64 leaves become, without a copy of their own; None leaves them."""
    ray: RayOptions | None = None
    """Of the cluster on which workers run; None for this machine."""
    record: bool = False
    """Measure every batch, for a profile."""
    auto: bool = False
    """The number of workers is still to be measured; until then it is that of the cores."""


def checked(
    sequence: object,
    *,
    workers: int | str = "auto",
    partition: str = "dynamic",
    shuffle: bool = False,
    ordered: bool = True,
    seed: int | None = None,
    shard: Shard | None = None,
    uneven: str | None = None,
    on_error: str = "raise",
    prefetch: int | None = None,
    element_spec: Any = None,
    timeout: float | None = None,
    attempts: int = 2,
    max_bytes: int | None = None,
    worker_threads: int = 1,
    strict: bool = False,
    backend: str = "local",
    launcher: str | None = None,
    slow_warning_s: float | None = SLOW_WARNING_S,
    max_tasks_per_worker: int | None = None,
    most_workers: int | None = None,
    ray: RayOptions | None = None,
) -> Options:
    """Return the options of a pipeline over *sequence*, or raise on the first that is wrong.

    Raises:
        TypeError: *sequence* is no sequence of batches, or an option is of the wrong type.
        ValueError: An option is out of its range.
        ImportError: The backend needs a package that is not installed.
    """
    check_sequence(sequence)
    on_ray = checked_for(backend, ray)
    check_among("partition", partition, ("dynamic", "block", "stride"))
    check_among("on_error", on_error, ("raise", "skip"))
    own_shard, own_uneven = (sequence._shard, sequence._uneven) if isinstance(sequence, Safe) else ((0, 1), "error")
    uneven = check_uneven(own_uneven if uneven is None else uneven)
    for name, flag in (("shuffle", shuffle), ("ordered", ordered), ("strict", strict)):
        check_flag(name, flag)
    count, auto = _workers(sequence, workers)
    if most_workers is not None:
        count = min(count, most_workers)
    limits = Limits.checked(timeout, slow_warning_s, max_tasks_per_worker)
    if launcher is not None and on_ray is not None:
        raise ValueError(f'launcher must be None with backend="ray", got {launcher!r}: Ray starts the workers.')
    if launcher is not None:
        check_among("launcher", launcher, ("template", "spawn"))
        if launcher == "template" and default_launcher() != "template":
            raise ValueError('launcher="template" needs Linux 5.3 or later; use launcher="spawn".')
    if count and os.name != "posix":
        raise ValueError(
            f"workers must be 0 on this platform, got {workers!r}: worker processes need Linux or macOS (or WSL)."
        )
    return Options(
        workers=count,
        partition=partition,
        shuffle=bool(shuffle),
        ordered=bool(ordered),
        seed=check_int("seed", _own_seed(sequence) if seed is None else seed, 0),
        shard=resolved(check_shard(own_shard if shard is None else shard)),
        uneven=uneven,
        on_error=on_error,
        prefetch=BATCHES_AHEAD * count if prefetch is None else check_int("prefetch", prefetch, 1),
        element_spec=None if element_spec is None else ElementSpec.declared_as(element_spec),
        limits=limits,
        attempts=check_int("attempts", attempts, 1),
        max_bytes=memory() // _MEMORY_SHARE if max_bytes is None else check_int("max_bytes", max_bytes, 1),
        worker_threads=check_int("worker_threads", worker_threads, 1),
        strict=bool(strict) or (isinstance(sequence, Safe) and bool(sequence.strict)),
        launcher=launcher or default_launcher(),
        ray=on_ray,
        # On a cluster each worker has a core; what is put in from outside is not there yet.
        auto=auto and on_ray is None and not isinstance(sequence, Streamed),
    )


def check_flag(name: str, flag: object) -> None:
    """Raise TypeError unless *flag* is a bool."""
    if not isinstance(flag, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {flag!r}.")


def check_sequence(sequence: object) -> None:
    """Raise TypeError unless *sequence* has `__getitem__` and a length, or is infinite."""
    if isinstance(sequence, type):
        raise TypeError(
            f"sequence must be an object with __len__ and __getitem__, got the class {sequence.__name__}: "
            f"call it, as in {sequence.__name__}(...)."
        )
    if not hasattr(sequence, "__getitem__"):
        raise TypeError(
            f"sequence must be a SafeSequence, a keras Sequence or PyDataset, or any object with __len__ and "
            f"__getitem__, got {_described(sequence)}."
        )
    if isinstance(sequence, (str, bytes, dict)):
        raise TypeError(f"sequence must give a batch for each index, got {_described(sequence)}.")


def length_of(sequence: Any) -> int | None:
    """Return the number of batches, or None for an infinite sequence.

    Raises:
        SequenceLengthError: It is not an int, or below 1.
    """
    kind = type(sequence)
    try:
        count = sequence.num_batches if hasattr(kind, "num_batches") else len(sequence)
        if count is None:
            return None
    except (TypeError, ValueError, NotImplementedError) as error:
        count = _refused_length(sequence, error)
    if callable(count):
        raise SequenceLengthError(f"{kind.__name__}.num_batches is a method", remedy="Put @property above it.")
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise SequenceLengthError(
            f"{kind.__name__} has the length {count!r}, expected an int of 1 or more",
            remedy="Return the number of batches from __len__; use math.ceil(samples / batch_size), and check that "
            "there are samples.",
        )
    return int(count)


def _refused_length(sequence: Any, error: Exception) -> Any:
    """Return what `__len__` returns, which len() refuses without telling it."""
    try:
        return type(sequence).__len__(sequence)
    except Exception:  # There is none, or it is the one that raised.
        raise SequenceLengthError(
            f"{type(sequence).__name__} does not say how many batches it has ({named(error)})",
            remedy="Define __len__, or num_batches as a property that returns None for an infinite sequence.",
        ) from error


def check_endless(options: Options) -> None:
    """Raise ValueError if *options* cannot be had of an infinite sequence."""
    if options.shuffle:
        raise ValueError(
            "shuffle must be False for an infinite sequence, got True: shuffle downstream, as with "
            "dataset.shuffle(1000)."
        )
    if options.partition == "block":
        raise ValueError(
            'partition must be "dynamic" or "stride" for an infinite sequence, got "block": it has no parts of equal '
            "size."
        )


def steps_of(sequence: object, length: int, options: Options) -> int:
    """Return how many of *length* batches this shard delivers, the same for all shards.

    Raises:
        SequenceLengthError: The shards cannot have the same number of batches.
        ValueError: A batch that is skipped would leave one of them with fewer.
    """
    shards, name = options.shard[1], type(sequence).__name__
    most, rest = -(-length // shards), length % shards
    if rest and options.uneven == "error":
        raise SequenceLengthError(
            f"{name} has {length} batches, which {shards} shards cannot share equally: some would run {most} steps and "
            f"others {most - 1}",
            remedy=f'Pass uneven="drop" to leave {rest} of them out, "pad" to fill up with batches of weight 0, or '
            f'"wrap" to deliver {shards - rest} more, from the beginning of the order again.',
        )
    if length < shards and options.uneven != "wrap":
        raise SequenceLengthError(
            f"{name} has {length} batches, fewer than the {shards} shards",
            remedy='Use fewer shards or smaller batches, or pass uneven="wrap".',
        )
    if shards > 1 and options.on_error == "skip" and options.uneven != "pad":
        raise ValueError(
            f'on_error="skip" with shard={options.shard} would let shards run unequal numbers of steps: pass '
            'uneven="pad", which fills up.'
        )
    return share_of(length, options.shard, options.uneven).steps


def _workers(sequence: object, workers: int | str) -> tuple[int, bool]:
    """Return how many workers there are to be, and whether that is to be measured."""
    if isinstance(workers, str):
        if workers != "auto":
            raise ValueError(f'workers must be an int of 0 or more, or "auto", got {workers!r}.')
        wanted = sequence.workers if isinstance(sequence, Safe) else 1
        return (wanted, False) if wanted > 1 else (cores(), os.name == "posix")
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)) or workers < 0:
        raise ValueError(f'workers must be an int of 0 or more, or "auto", got {workers!r}.')
    return int(workers), False


def _own_seed(sequence: object) -> int:
    return sequence.seed if isinstance(sequence, Safe) else 0


def resolved(shard: Shard) -> tuple[int, int]:
    """Return *shard*, or for "auto" what is found; the log says what."""
    return shard_here() if shard == "auto" else shard


def check_int(name: str, value: Any, least: int) -> int:
    """Return *value* as an int, or raise ValueError unless it is one of *least* or more."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an int of {least} or more, got {value!r}.")
    return int(value)


def _described(value: object) -> str:
    return f"{type(value).__name__} {cut(repr(value))}"


def default_launcher() -> str:
    """Return the launcher of this platform: "template" where processes can be forked and watched safely."""
    return "template" if sys.platform == "linux" and hasattr(os, "pidfd_open") else "spawn"
