"""A profile of made-up numbers, always the same: for tests of what shows it, and for `tests/screenshots.py`."""

from __future__ import annotations

import heapq

from keras_mpseq.messages import Frame, Stack, Timing
from keras_mpseq.profiling.analysis import judged
from keras_mpseq.profiling.measured import Built, Setting, Take
from keras_mpseq.profiling.profile import Profile

CORES, STEP_S = 8, 0.040
_BUILD_S, _ENCODE_S, _TAKE_S = 0.195, 0.002, 0.0002
_INDICES, _BATCHES = 60, 180
_GETITEM, _AUGMENT = Frame("training/data.py", "__getitem__", 52), Frame("training/data.py", "_augment", 41)
_STACKS: tuple[tuple[Stack, int], ...] = (((_GETITEM, _AUGMENT), 710), ((_GETITEM,), 290))


def made() -> Profile:
    """Return the profile of a pipeline on a machine of eight cores."""
    settings = tuple(_setting(workers, None) for workers in (0, 1, 2, 4, 8))
    verdict = judged(settings, CORES, STEP_S)
    return Profile("Photos", settings, _setting(verdict.workers, STEP_S), verdict)


def _setting(workers: int, step_s: float | None) -> Setting:
    """Play a pipeline: each batch goes to the worker that is free first, and is taken in order."""
    # Cores that share their caches are a little slower together.
    slower = 1 + 0.02 * max(workers - 1, 0)
    free = [(0.0, worker) for worker in range(max(workers, 1))]
    built, takes, seen, now = [], [], set(), 0.0
    for number in range(_BATCHES):
        index = number % _INDICES
        began, worker = heapq.heappop(free)
        # Never further ahead than two batches for each worker.
        ahead = 3 * max(workers, 1)
        if not workers or (step_s and number >= ahead):
            began = max(began, takes[number - ahead].ended if workers else now)
        build = (_BUILD_S + 0.01 * ((index * 7) % 5 - 2) + (0.085 if index == 17 else 0.0)) * slower
        ended = began + build + _ENCODE_S
        heapq.heappush(free, (ended, worker))
        timing = Timing(index, began, build, _ENCODE_S if workers else 0.0, 0.97 * build, 0.0, 19_267_584)
        built.append(Built(worker, timing, worker not in seen))
        seen.add(worker)
        took = max(ended, now) + _TAKE_S
        takes.append(Take(now, took, _TAKE_S))
        now = took + (step_s or 0.0)
    return Setting(workers, takes[-1].ended, tuple(takes), tuple(built), _STACKS, step_s)
