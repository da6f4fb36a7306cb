"""What a profile is made of: one setting for each number of workers, with all that was measured in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from keras_mpseq.messages import Stack, Timing


@dataclass(frozen=True, slots=True)
class Built:
    """A batch, and who built it."""

    worker: int
    timing: Timing
    first: bool
    """It was this worker's first, in which files are opened and modules loaded."""

    @property
    def build_s(self) -> float:
        """Seconds in `__getitem__`, without those in which others had the core."""
        timing = self.timing
        # What it computed is certain; how long it queued is what the system believes.
        return max(timing.build_s - timing.queued_s, min(timing.cpu_s, timing.build_s))

    @property
    def own_s(self) -> float:
        """The same with encoding."""
        return self.build_s + self.timing.encode_s

    @property
    def ended(self) -> float:
        """When it lay in its slot, at the latest from when on the training process could have it."""
        return self.timing.began + self.timing.build_s + self.timing.encode_s


@dataclass(frozen=True, slots=True)
class Take:
    """How the training process came by one batch."""

    began: float
    ended: float
    cpu_s: float
    """Of that it worked: took messages in, mapped and checked arrays, dealt new tasks. The rest it waited."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What was measured with one number of workers."""

    workers: int
    took_s: float
    takes: tuple[Take, ...]
    built: tuple[Built, ...]
    stacks: tuple[tuple[Stack, int], ...]
    step_s: float | None = None
    """Of the model that stood behind it; None: batches were taken as fast as they came."""

    @property
    def rate(self) -> float:
        """Batches a second."""
        return len(self.takes) / self.took_s if self.took_s else 0.0

    @property
    def waited_s(self) -> float:
        """Seconds that the training process waited for batches."""
        if not self.workers:  # It builds them itself.
            return sum(take.ended - take.began for take in self.takes)
        return sum(max(take.ended - take.began - take.cpu_s, 0.0) for take in self.takes)

    @property
    def transport_s(self) -> float:
        """Seconds a batch that the training process worked to take it over."""
        return sum(take.cpu_s for take in self.takes) / len(self.takes) if self.workers and self.takes else 0.0

    @property
    def steady(self) -> list[Built]:
        """Batches that were built by a worker that had built one before."""
        return [built for built in self.built if not built.first] or list(self.built)


def steady(settings: Iterable[Setting]) -> Iterator[Built]:
    """Yield the batches of *settings* that were built by a worker that had built one before."""
    for setting in settings:
        yield from setting.steady


def middle(values: Iterable[float]) -> float:
    """Return the median, 0 of nothing."""
    found = list(values)
    return median(found) if found else 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which *share* (0 to 1) of *values* lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
