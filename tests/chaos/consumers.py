"""Who takes the batches, in every way that users do; each yields passes over an epoch with what it took of it.

A pass is a list of digests. Batches that are held are looked at twice: when they come and at the end, when all the
others have come too.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tests.chaos.script import Script

_SLOW_S = 0.004
_SLOW_EVERY = 3


class Wrong(Exception):
    """A promise was broken."""


def digest(batch: Any) -> bytes:
    """Return what is equal only for batches that are equal bit for bit, in structure, types, shapes and contents."""
    found = hashlib.blake2b(digest_size=16)
    _feed(found, batch)
    return found.digest()


def _feed(found: Any, batch: Any) -> None:
    if isinstance(batch, dict):
        found.update(f"dict {list(batch)}".encode())
        batch = tuple(batch.values())
    if isinstance(batch, (tuple, list)):
        found.update(f"{type(batch).__name__} {len(batch)}".encode())
        for part in batch:
            _feed(found, part)
        return
    array = np.asarray(batch)
    found.update(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).data)


class Pass(NamedTuple):
    """What came of one iteration."""

    taken: list[bytes]
    error: Exception | None
    whole: bool
    """It was iterated to its end."""
    any_order: bool = False
    """The consumer itself mixes them."""


def taken(
    iterator: Iterator[Any], most: int | None = None, *, hold: bool = False, slow: bool = False, any_order: bool = False
) -> Pass:
    """Take batches to the end or up to *most*; keep them all meanwhile with *hold*."""
    digests: list[bytes] = []
    held: list[Any] = []
    error = None
    whole = False
    try:
        while most is None or len(digests) < most:
            batch = next(iterator)
            digests.append(digest(batch))
            if hold:
                held.append(batch)
            elif slow and len(digests) % _SLOW_EVERY == 0:
                time.sleep(_SLOW_S)
            del batch
    except StopIteration:
        whole = True
    except Exception as problem:
        error = problem
    if [digest(batch) for batch in held] != digests[: len(held)]:
        raise Wrong("A batch that was held has changed.")
    return Pass(digests, error, whole, any_order)


def _alternating(one: Iterator[Any], other: Iterator[Any]) -> list[Pass]:
    """Take from two iterators in turn, three from the one for each of the other."""
    parts: tuple[list[Pass], list[Pass]] = [], []
    while True:
        for own, iterator, count in ((parts[0], one, 3), (parts[1], other, 1)):
            if not own or not (own[-1].whole or own[-1].error):
                own.append(taken(iterator, count))
        if all(own[-1].whole or own[-1].error for own in parts):
            return [_joined(own) for own in parts]


def _joined(parts: list[Pass]) -> Pass:
    return Pass(list(itertools.chain(*(part.taken for part in parts))), parts[-1].error, parts[-1].whole)


def loader_passes(script: Script, loader: Any) -> Iterator[Pass]:
    """Iterate a Loader as the script says."""
    for _ in range(script.passes):
        match script.use:
            case "fast":
                yield taken(iter(loader))
            case "slow":
                yield taken(iter(loader), slow=True)
            case "hold":
                yield taken(iter(loader), hold=True)
            case "abandon":
                yield taken(iter(loader), script.until)
            case "close":
                iterator = iter(loader)
                yield taken(iterator, script.until)
                iterator.close()
            case "zip":
                yield from _alternating(iter(loader), iter(loader))
            case "threads":
                yield from _at_a_time([lambda: taken(iter(loader)), lambda: taken(iter(loader))])


def _at_a_time(takes: Iterable[Callable[[], Pass]]) -> list[Pass]:
    """Run each in a thread of its own."""
    results: list[Pass | BaseException] = []

    def run(take: Callable[[], Pass]) -> None:
        try:
            results.append(take())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(take,)) for take in takes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Pass)]


def dataset_passes(script: Script, dataset: Any) -> Iterator[Pass]:
    """Iterate a tf.data.Dataset as the script says."""
    for _ in range(script.passes):
        match script.use:
            case "fast":
                yield taken(iter(dataset))
            case "slow":
                yield taken(iter(dataset.prefetch(2)), slow=True)
            case "abandon":
                yield taken(iter(dataset.take(script.until)))._replace(whole=script.until == script.batches)
            case "list":
                yield taken(iter(dataset), hold=True)
            case "cache":
                cached = dataset.cache()
                first = taken(iter(cached))
                yield first
                if first.whole and taken(iter(cached)) != first:
                    raise Wrong("The second pass over cache() differs from the first.")
            case "shuffle":
                yield taken(iter(dataset.shuffle(script.batches)), any_order=True)
            case "zip":
                yield from _zipped(dataset.zip((dataset, dataset)))


def _zipped(pairs: Any) -> list[Pass]:
    sides: tuple[list[bytes], list[bytes]] = [], []
    error = None
    whole = False
    iterator = iter(pairs)
    try:
        while True:
            for side, batch in zip(sides, next(iterator), strict=True):
                side.append(digest(batch))
    except StopIteration:
        whole = True
    except Exception as problem:
        error = problem
    return [Pass(side, error, whole) for side in sides]
