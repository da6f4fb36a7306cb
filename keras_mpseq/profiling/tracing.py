"""The course of a profile in the trace event format of Chrome, which Perfetto and chrome://tracing read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_mpseq.profiling.measured import Setting
from keras_mpseq.profiling.profile import Profile

_TRAINING, _WORKERS = 1, 2
"""Numbers of the groups of rows, which are "processes" of the format."""
_US = 1e6


def trace(profile: Profile) -> dict[str, Any]:
    """Return the trace of the setting that *profile* shows."""
    return {
        "traceEvents": list(_events(profile.shown)),
        "displayTimeUnit": "ms",
        "otherData": {"name": profile.name, "sentence": profile.sentence, "workers": profile.shown.workers},
    }


def _events(setting: Setting) -> Iterator[dict[str, Any]]:
    began = beginning(setting)
    yield _named("process_name", _TRAINING, 0, "training process")
    yield _named("process_name", _WORKERS, 0, "workers")
    for worker in sorted({built.worker for built in setting.built}):
        yield _named("thread_name", _WORKERS, worker, f"worker {worker}")
    for built in setting.built:
        timing = built.timing
        about = {"index": timing.index, "cpu_s": timing.cpu_s, "queued_s": timing.queued_s, "nbytes": timing.nbytes}
        yield _event("__getitem__", _WORKERS, built.worker, timing.began - began, timing.build_s, about)
        end = timing.began + timing.build_s - began
        yield _event("encode", _WORKERS, built.worker, end, timing.encode_s, {"index": timing.index})
    for number, take in enumerate(setting.takes):
        about = {"batch": number, "cpu_s": take.cpu_s}
        yield _event("wait for a batch", _TRAINING, 0, take.began - began, take.ended - take.began, about)


def beginning(setting: Setting) -> float:
    """Return the moment at which the drawn course begins."""
    moments = [built.timing.began for built in setting.built] + [take.began for take in setting.takes]
    return min(moments, default=0.0)


def _event(name: str, group: int, row: int, began_s: float, seconds: float, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "ph": "X",
        "pid": group,
        "tid": row,
        "ts": round(began_s * _US, 3),
        "dur": round(seconds * _US, 3),
        "args": about,
    }


def _named(kind: str, group: int, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": group, "tid": row, "args": {"name": name}}
