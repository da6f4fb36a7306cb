"""Metrics for OpenTelemetry, where its API is installed: what all live pipelines of this process have done.

The instruments are observable: nothing is done for a batch, and somebody who exports metrics asks when he likes.
Without an SDK the API does nothing with them; without the API nothing is imported.
"""

from __future__ import annotations

import importlib.util
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from keras_mpseq import __version__
from keras_mpseq.run import Source, Stats

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

_lock = threading.Lock()
_live: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""Each with a number that tells it from others of the same class."""
_numbers = itertools.count()
_made = False

Read = Callable[[Stats], float]
COUNTERS: dict[str, tuple[str, str, Read]] = {
    "keras_mpseq.batches": ("{batch}", "Batches that consumers took.", lambda stats: stats.batches),
    "keras_mpseq.io": ("By", "Bytes of the batches that consumers took.", lambda stats: stats.bytes_delivered),
    "keras_mpseq.wait": ("s", "Time in which consumers waited for batches.", lambda stats: stats.waited_s),
    "keras_mpseq.restarts": ("{worker}", "Workers that were lost and replaced.", lambda stats: stats.restarts),
    "keras_mpseq.skipped": ("{batch}", "Batches or samples left out.", lambda stats: stats.skipped),
}
"""By name: unit, description, and where the figure is; they only grow."""
GAUGES: dict[str, tuple[str, str, Read]] = {
    "keras_mpseq.ready": ("{batch}", "Batches that are built and not taken.", lambda stats: stats.ready),
    "keras_mpseq.workers": ("{worker}", "Worker processes.", lambda stats: stats.workers),
}
BUILT = "keras_mpseq.built"
"""Batches by worker."""


def observe(source: Source) -> None:
    """Let *source* be seen by whoever exports metrics, as long as it lives."""
    global _made
    if not _made and importlib.util.find_spec("opentelemetry") is None:
        return
    with _lock:
        _live[source] = next(_numbers)
        if not _made:
            _made = True
            _make()


def _make() -> None:
    try:
        from opentelemetry.metrics import get_meter
    except ImportError:  # Another package of the same name space, without the API.
        return
    meter = get_meter("keras_mpseq", __version__)
    for name, (unit, what, read) in COUNTERS.items():
        meter.create_observable_counter(name, [_reader(read)], unit, what)
    for name, (unit, what, read) in GAUGES.items():
        meter.create_observable_gauge(name, [_reader(read)], unit, what)
    meter.create_observable_counter(BUILT, [_built], "{batch}", "Batches that each worker has built.")


def _reader(read: Read) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observed(_: CallbackOptions) -> Iterator[Observation]:
        from opentelemetry.metrics import Observation

        for number, source in _numbered():
            yield Observation(read(source.stats()), _attributes(number, source))

    return observed


def _built(_: CallbackOptions) -> Iterator[Observation]:
    from opentelemetry.metrics import Observation

    for number, source in _numbered():
        for worker, built in enumerate(source.stats().built):
            yield Observation(built, {**_attributes(number, source), "keras_mpseq.worker": worker})


def _numbered() -> list[tuple[int, Source]]:
    with _lock:
        return [(number, source) for source, number in _live.items()]


def _attributes(number: int, source: Source) -> dict[str, str | int]:
    return {"keras_mpseq.sequence": type(source.sequence).__name__, "keras_mpseq.pipeline": number}
