"""Measure a pipeline with several numbers of workers, one after the other, for about a second each.

The thin part: it opens a feed, takes batches as fast as they come, or a model step apart, and hands on what the workers
have measured. What that means is said by `analysis`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from keras_mpseq.errors import MpseqError, SequenceLengthError
from keras_mpseq.iteration import Iteration
from keras_mpseq.machine import cores
from keras_mpseq.messages import Frame, Recorded, Stack
from keras_mpseq.options import BATCHES_AHEAD, Options
from keras_mpseq.profiling.analysis import judged
from keras_mpseq.profiling.choice import Choice, chosen
from keras_mpseq.profiling.measured import Built, Setting, Take
from keras_mpseq.profiling.profile import Profile
from keras_mpseq.run import Feed

Open: TypeAlias = Callable[[Options], Feed]

log = logging.getLogger("keras_mpseq")

_AUTO_S = 0.2
"""For a trial: noticed by nobody who waits for TensorFlow, and some ten looks at what a worker does."""
_WORTH = 64
"""Batches of an epoch from which on it is worth the time to measure what `workers="auto"` is."""
_ROUNDS = 2
"""Batches of each worker, at least, besides those that fill the pipeline."""
_FILLING, _FILLED = 0.2, 4
"""Share of the seconds of a setting, or batches of each worker, that fill the pipeline, whichever is less."""
_PATIENCE = 5
"""Times the seconds of a setting after which one batch is enough."""


def profile(
    name: str,
    open_feed: Open,
    options: Options,
    *,
    seconds: float,
    step_s: float | None,
    workers: Sequence[int] | None,
    told: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Measure, and return what was found.

    Args:
        name: Of the pipeline.
        open_feed: Makes the pipeline of options.
        options: Of the pipeline; the number of workers is replaced.
        seconds: For each number of workers.
        step_s: Of a model that the pipeline is to feed; it is run once with that, after the others.
        workers: The numbers to measure; None takes 0, 1, 2, 4 and so on up to the number of cores.
        told: Called with what is done next.
    """
    available = cores()
    counts = list(workers) if workers is not None else doubling(available)
    settings = []
    for count in counts:
        told(f"{count} worker{'' if count == 1 else 's'}")
        settings.append(_measured(open_feed, _with(options, count), seconds, None))
    verdict = judged(settings, available, step_s)
    stepped = None
    if step_s:
        told(f"{verdict.workers} workers and a model")
        stepped = _measured(open_feed, _with(options, verdict.workers), seconds, step_s)
    return Profile(name, tuple(settings), stepped, verdict)


def settled(open_feed: Open, options: Options, length: int | None) -> Options:
    """Return options with the number of workers that `workers="auto"` is, measured with one worker, and log the reason.

    Hooks do not run, so that a sequence that needs them may fail: then, and where too few batches are to be built, it
    is the number of cores.
    """
    available = cores()
    if length is not None and length < _WORTH:
        choice = Choice(available, f"one worker for each core; {length} batches are too few to measure")
    else:
        one = dataclasses.replace(_with(options, 1), hooks=False, auto=False)
        try:
            measured = _measured(open_feed, one, _AUTO_S, None)
            alone = Choice(available, "one worker for each core; nothing could be measured")
            choice = chosen(measured, available) if measured.built else alone
        except MpseqError as error:
            choice = Choice(available, f"one worker for each core; a trial failed ({str(error).splitlines()[0]})")
    log.info('workers="auto" is %d: %s.', choice.workers, choice.why.rstrip("."))
    return dataclasses.replace(_with(options, choice.workers), auto=False, record=False)


def doubling(most: int) -> list[int]:
    """Return 0, 1, 2, 4 and so on, up to *most*."""
    counts = [0, 1]
    while counts[-1] < most:
        counts.append(min(2 * counts[-1], most))
    return counts


def _with(options: Options, workers: int) -> Options:
    own = BATCHES_AHEAD * options.workers
    prefetch = BATCHES_AHEAD * workers if options.prefetch == own else options.prefetch
    return dataclasses.replace(options, workers=workers, prefetch=max(prefetch, 1), record=True)


def _measured(open_feed: Open, options: Options, seconds: float, step_s: float | None) -> Setting:
    """Take batches for *seconds*, but for those that fill the pipeline, and return how it went."""
    feed = open_feed(options)
    try:
        batches = _batches(feed)
        try:
            filled, takes = _taken(batches, max(1, options.workers), seconds, step_s)
        finally:
            batches.close()
        records = feed.source.records()
    finally:
        feed.close()
    took = takes[-1].ended - filled.ended
    return Setting(options.workers, took, takes, _built(records), _stacks(records), step_s)


def _taken(batches: Iterator[Take], seats: int, seconds: float, step_s: float | None) -> tuple[Take, tuple[Take, ...]]:
    """Return the take that found the pipeline filled, and those after it."""
    filling: list[Take] = []
    counted: list[Take] = []
    for take in batches:
        if not filling or not _is_filled(filling, seats, seconds):
            filling.append(take)
        else:
            counted.append(take)
            over = take.ended - filling[-1].ended
            # Workers that began together end together: whole rounds only, or the last ones would not count.
            enough = len(counted) >= _ROUNDS * seats and len(counted) % seats == 0
            if (over >= seconds and enough) or over >= _PATIENCE * seconds:
                break
        if step_s:
            _step(step_s)
    return filling[-1], tuple(counted)


def _is_filled(filling: list[Take], seats: int, seconds: float) -> bool:
    """Tell whether every worker has had its turn: by then all have started, too, and know how large tasks are."""
    late = filling[-1].ended - filling[0].ended >= _FILLING * seconds
    slow = filling[0].ended - filling[0].began >= _PATIENCE * seconds
    return len(filling) >= seats and (late or slow or len(filling) >= _FILLED * seats)


def _step(step_s: float) -> None:
    """Do what a model on an accelerator does with this process: let it wait."""
    threading.Event().wait(step_s)


def _batches(feed: Feed) -> Generator[Take, None, None]:
    """Take batches of one epoch after another, and yield how each was come by."""
    while True:
        iteration = Iteration(feed)
        some = False
        try:
            while True:
                cpu, began = time.thread_time(), time.perf_counter()
                try:
                    parts = next(iteration)
                except StopIteration:
                    break
                batch = parts.batch
                ended, computed = time.perf_counter(), time.thread_time() - cpu
                del parts, batch
                some = True
                yield Take(began, ended, computed)
        finally:
            iteration.close()
        if not some:
            raise SequenceLengthError(
                "An epoch has no batch that could be measured", remedy='Pass on_error="raise" to see what fails.'
            )


def _built(records: Sequence[tuple[int, Recorded]]) -> tuple[Built, ...]:
    seen: set[int] = set()
    found = []
    for worker, recorded in records:
        for timing in recorded.timings:
            found.append(Built(worker, timing, worker not in seen))
            seen.add(worker)
    return tuple(found)


def _stacks(records: Sequence[tuple[int, Recorded]]) -> tuple[tuple[Stack, int], ...]:
    """Return all stacks and how often each was seen, with paths from this folder on where they are in it."""
    counts: Counter[Stack] = Counter()
    for _, recorded in records:
        for stack, count in recorded.stacks:
            counts[tuple(Frame(_shorter(frame.path), frame.function, frame.line) for frame in stack)] += count
    return tuple(counts.items())


def _shorter(path: str) -> str:
    if not Path(path).is_absolute():
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
