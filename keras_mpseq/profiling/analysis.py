"""What is in the way of a pipeline, from what was measured alone: no clock, no process, no chance.

A bottleneck is looked for from the outside in: a model that is fed anyway; one index that the others wait for; moving
batches; one worker that is slow; building batches, which either computes or waits. Times are a worker's own, without
those in which other processes had the core, so that a busy machine changes no verdict.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Literal, NamedTuple

from keras_mpseq.messages import Frame, Stack
from keras_mpseq.profiling.measured import Built, Setting, middle, steady

Kind = Literal["model", "slow index", "slow worker", "transport", "cpu", "io"]

_HALF = 0.5
"""Share from which on something is what time goes to."""
_SLOW_INDEX = 5.0
"""Times the median from which on an index is slow."""
_SLOW_SHARE = 0.15
"""Of the time of all indices: slow ones that take less are in nobody's way."""
_FEW = 0.05
"""Share of indices that may be slow. More of them are no exception."""
_SLOW_WORKER = 2.0
"""Times the others from which on a worker is slow: twice is more than a core that shares its caches explains."""
_BATCHES_TO_TELL = 3
"""Of each worker, besides its first."""
_AS_GOOD = 0.95
"""Of the best rate: what fewer workers may lack, because they cost less memory."""
_GAIN = 0.6
"""Of what as many single workers would build: below that waiting workers wait for each other."""
MOST_WAITING = 4
"""Workers for each core, at most, that are advised where they wait: each costs memory."""


class Hot(NamedTuple):
    """The function that time goes to."""

    frame: Frame
    """At its busiest line."""
    share: float
    """Of the time in `__getitem__`, with all that it calls."""


class Slow(NamedTuple):
    """An index and its time."""

    index: int  # type: ignore[assignment]  # shadows a tuple method nobody calls
    seconds: float
    times: int
    """How often it was built."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is in the way, and the figures that say so."""

    kind: Kind
    rates: tuple[tuple[int, float], ...]
    """Workers, and batches a second."""
    cores: int
    step_s: float | None
    workers: int
    """How many are advised."""
    needed: float
    """Workers that would feed the step at this rate each, also where there are no cores for them; 0 without a step."""
    build_s: float
    """Median, the worker's own."""
    encode_s: float
    transport_s: float
    nbytes: int
    """Of a batch, the median."""
    moving_share: float
    """Of the time of a batch, for encoding and transport."""
    cpu_share: float
    """Of the time in `__getitem__`, computing."""
    saturated: bool
    """More workers gained nothing, while these waited."""
    hot: Hot | None
    slow: Slow | None
    """The slowest index, if that is in the way."""
    slow_worker: tuple[int, float, float] | None
    """Its number, its median time of a batch and that of the others, if that is in the way."""

    @property
    def single(self) -> float:
        """Batches a second of one worker alone."""
        return _each(self.rates)

    @property
    def best(self) -> tuple[int, float]:
        """The fewest workers that are about as fast as any, and their rate."""
        return best(self.rates)


def judged(settings: Sequence[Setting], cores: int, step_s: float | None = None) -> Verdict:
    """Return what is in the way of a pipeline.

    Args:
        settings: Measured without a model; one for each number of workers.
        cores: That the pipeline may use.
        step_s: Of the model that it is to feed, if there is one.
    """
    rates = tuple(sorted((setting.workers, setting.rate) for setting in settings))
    in_workers = [setting for setting in settings if setting.workers] or list(settings)
    built = list(steady(in_workers))
    build = sum(one.build_s for one in built)
    transport = middle(setting.transport_s for setting in in_workers)
    # Medians: a worker that lost its core while it encoded says nothing of encoding.
    build_s, encode_s = middle(one.build_s for one in built), middle(one.timing.encode_s for one in built)
    moving_share = (encode_s + transport) / max(build_s + encode_s + transport, 1e-12)
    cpu_share = min(sum(one.timing.cpu_s for one in built) / build, 1.0) if build else 1.0
    single = max((rate for workers, rate in rates if workers <= 1), default=0.0)
    slow, worker = slow_index(list(steady(settings))), slow_worker(settings)
    kind: Kind
    if step_s and single >= 1 / step_s:
        kind = "model"
    elif slow:
        kind = "slow index"
    elif moving_share >= _HALF:
        kind = "transport"
    elif worker:
        kind = "slow worker"
    else:
        kind = "cpu" if cpu_share >= _HALF else "io"
    saturated = _is_saturated(rates)
    return Verdict(
        kind=kind,
        rates=rates,
        cores=cores,
        step_s=step_s,
        workers=_advised(kind, rates, cores, step_s, cpu_share, saturated),
        needed=1 / step_s / _each(rates) if step_s else 0.0,
        build_s=build_s,
        encode_s=encode_s,
        transport_s=transport,
        nbytes=int(middle(one.timing.nbytes for one in built)),
        moving_share=moving_share,
        cpu_share=cpu_share,
        saturated=saturated,
        hot=hottest([stack for setting in settings for stack in setting.stacks]),
        slow=slow,
        slow_worker=worker,
    )


# --- workers --------------------------------------------------------------------------------------


def best(rates: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """Return the fewest workers that are about as fast as any, and their rate."""
    most = max(rate for _, rate in rates)
    return next((workers, rate) for workers, rate in sorted(rates) if rate >= _AS_GOOD * most)


def feeding(rates: Sequence[tuple[int, float]], step_s: float) -> int | None:
    """Return how many workers build a batch every *step_s* seconds, also between those measured; None: too few."""
    wanted = 1 / step_s
    known = sorted((workers, rate) for workers, rate in rates if workers)
    before = 0, 0.0
    for workers, rate in known:
        if rate >= wanted:
            share = (wanted - before[1]) / max(rate - before[1], 1e-12)
            return max(1, ceil(before[0] + share * (workers - before[0]) - 1e-9))
        before = workers, rate
    return None


def _each(rates: Sequence[tuple[int, float]]) -> float:
    """Return the batches a second of one worker."""
    found = dict(rates)
    if 1 in found:
        return max(found[1], 1e-12)
    return max(max(rate / max(workers, 1) for workers, rate in rates), 1e-12)


def _is_saturated(rates: Sequence[tuple[int, float]]) -> bool:
    workers, rate = max(rates)
    return workers > 1 and rate < _GAIN * workers * _each(rates)


def _advised(
    kind: Kind, rates: Sequence[tuple[int, float]], cores: int, step_s: float | None, cpu_share: float, saturated: bool
) -> int:
    enough = feeding(rates, step_s) if step_s else None
    if enough is not None:
        return enough
    if kind == "io" and not saturated:
        wanted = ceil(1 / step_s / _each(rates)) if step_s else ceil(cores / max(cpu_share, 1e-12))
        return max(best(rates)[0], min(wanted, MOST_WAITING * cores))
    return best(rates)[0]


# --- who is slow ----------------------------------------------------------------------------------


def by_index(built: Sequence[Built]) -> list[Slow]:
    """Return each index with the least time that `__getitem__` took, the slowest first.

    The least, because what took long only once was disturbed.
    """
    times: dict[int, list[float]] = defaultdict(list)
    for one in built:
        times[one.timing.index].append(one.build_s)
    found = [Slow(index, min(seconds), len(seconds)) for index, seconds in times.items()]
    return sorted(found, key=lambda slow: slow.seconds, reverse=True)


def slow_index(built: Sequence[Built]) -> Slow | None:
    """Return the slowest index, if it or a few like it take a good part of the time, each time."""
    indices = [slow for slow in by_index(built) if slow.times > 1]
    if len(indices) < _BATCHES_TO_TELL:
        return None
    usual = median(slow.seconds for slow in indices)
    slow = [one for one in indices if one.seconds >= _SLOW_INDEX * usual]
    lost = sum(one.seconds - usual for one in slow)
    few = len(slow) <= max(1, _FEW * len(indices))
    return slow[0] if slow and few and lost >= _SLOW_SHARE * sum(one.seconds for one in indices) else None


def slow_worker(settings: Sequence[Setting]) -> tuple[int, float, float] | None:
    """Return the worker that takes far longer than the others for what they build, its time and theirs; or None."""
    setting = max(settings, key=lambda one: one.workers)
    times: dict[int, list[float]] = defaultdict(list)
    for built in setting.built:
        if not built.first:
            times[built.worker].append(built.own_s)
    told = {worker: median(seconds) for worker, seconds in times.items() if len(seconds) >= _BATCHES_TO_TELL}
    if len(told) < max(2, setting.workers):
        return None
    slowest = max(told, key=lambda worker: told[worker])
    others = median(seconds for worker, seconds in told.items() if worker != slowest)
    if told[slowest] < _SLOW_WORKER * others:
        return None
    # What it built may have been harder, as with partition="stride": did others take as long for the same?
    indices = {built.timing.index for built in setting.built if built.worker == slowest}
    same = [one.own_s for one in steady(settings) if one.worker != slowest and one.timing.index in indices]
    harder = len(same) >= _BATCHES_TO_TELL and _SLOW_WORKER * median(same) > told[slowest]
    return None if harder else (slowest, told[slowest], others)


# --- where ----------------------------------------------------------------------------------------


def hottest(stacks: Sequence[tuple[Stack, int]]) -> Hot | None:
    """Return the innermost function in which at least half of the looks found `__getitem__`, with its busiest line.

    From `__getitem__` inwards as long as one call has half of all looks: further in the time is spread over several.
    """
    every = sum(count for _, count in stacks)
    path: tuple[tuple[str, str], ...] = ()
    here, found = list(stacks), None
    while every:
        calls: Counter[tuple[str, str]] = Counter()
        for stack, count in here:
            if len(stack) > len(path):
                calls[stack[len(path)].path, stack[len(path)].function] += count
        (name, count), *_ = calls.most_common(1) or [(("", ""), 0)]
        if count < _HALF * every and found:
            return found
        if not count:
            return found
        here = [(stack, n) for stack, n in here if len(stack) > len(path) and stack[len(path)][:2] == name]
        lines: Counter[Frame] = Counter()
        for stack, n in here:
            lines[stack[len(path)]] += n
        found = Hot(lines.most_common(1)[0][0], count / every)
        path = (*path, name)
    return found
