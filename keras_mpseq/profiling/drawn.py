"""What the charts draw, whatever draws them: lines, bars and their names, from the numbers of a profile. Pure."""

from __future__ import annotations

from typing import NamedTuple

from keras_mpseq.profiling.measured import Setting
from keras_mpseq.profiling.profile import Profile

MOST_BARS = 400
"""Batches of a timeline that are drawn: more are thinner than a point."""
TRAINING = "training"


class Scaling(NamedTuple):
    """Batches a second by workers."""

    workers: list[int]
    rates: list[float]
    ideal: list[tuple[int, float]]
    """What so many workers would build, if each built what one alone does."""
    wanted: float | None
    """By the model's step."""


class Bar(NamedTuple):
    """Something that took its time in the course of a setting; seconds from its beginning on."""

    row: str
    kind: str
    """"__getitem__", "encode" or "wait"."""
    began_s: float
    took_s: float
    index: int | None  # type: ignore[assignment]  # shadows a tuple method nobody calls


def scaling_of(profile: Profile) -> Scaling:
    """Return how the rate grows."""
    verdict = profile.verdict
    workers, rates = [count for count, _ in verdict.rates], [rate for _, rate in verdict.rates]
    single = verdict.single
    ideal = [(count, single * count) for count in workers if count]
    return Scaling(workers, rates, ideal, 1 / verdict.step_s if verdict.step_s else None)


def course_of(setting: Setting) -> list[Bar]:
    """Return the last batches of *setting*: who built which one when, and when the training process waited."""
    built = sorted(setting.built, key=lambda one: one.timing.began)[-MOST_BARS:]
    since = min((one.timing.began for one in built), default=0.0)
    takes = [take for take in setting.takes if take.ended >= since][-MOST_BARS:]
    bars = []
    for one in built:
        row, timing = f"worker {one.worker}", one.timing
        if not setting.workers:
            row = TRAINING
        bars.append(Bar(row, "__getitem__", timing.began - since, timing.build_s, timing.index))
        end = timing.began + timing.build_s - since
        bars.append(Bar(row, "encode", end, timing.encode_s, timing.index))
    if setting.workers:
        bars += [Bar(TRAINING, "wait", t.began - since, t.ended - t.began, None) for t in takes if t.began >= since]
    return bars


def rows_of(bars: list[Bar]) -> list[str]:
    """Return the rows of a timeline, from the top: the workers in order, then the training process."""
    return sorted({bar.row for bar in bars}, key=lambda row: (row == TRAINING, len(row), row))


def times_of(setting: Setting) -> list[float]:
    """Return the milliseconds of `__getitem__` of each batch."""
    return [one.timing.build_s * 1e3 for one in setting.steady]
