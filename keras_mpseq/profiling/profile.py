"""Profile: what was measured and what it means, and the ways to look at it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from keras_mpseq.profiling.analysis import Slow, Verdict, by_index
from keras_mpseq.profiling.measured import Setting, middle, percentile, steady
from keras_mpseq.profiling.sentences import sentence

_SLOWEST = 10
"""Indices that are named."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a pipeline goes; what `Loader.profile()` returns. Printed, it is the screen of the command."""

    name: str
    """Of the pipeline."""
    settings: tuple[Setting, ...]
    """What was measured, a setting for each number of workers."""
    stepped: Setting | None
    """The same with the advised number and the model's step."""
    verdict: Verdict
    """What is in the way, with the figures that say so."""

    @property
    def sentence(self) -> str:
        """The bottleneck, in one sentence."""
        return sentence(self.verdict)

    @property
    def workers(self) -> int:
        """The number of workers that is advised."""
        return self.verdict.workers

    @property
    def slowest(self) -> list[Slow]:
        """The indices that took longest, the slowest first."""
        return by_index(list(steady(self.settings)))[:_SLOWEST]

    @property
    def shown(self) -> Setting:
        """The setting whose course is drawn: that with the model's step, else the advised one."""
        if self.stepped:
            return self.stepped
        return next((one for one in self.settings if one.workers == self.workers), self.settings[-1])

    def as_dict(self) -> dict[str, Any]:
        """Return everything but single batches; times in seconds, sizes in bytes."""
        verdict = self.verdict
        return {
            "name": self.name,
            "bottleneck": verdict.kind,
            "sentence": self.sentence,
            "workers": self.workers,
            "cores": verdict.cores,
            "step_s": verdict.step_s,
            "batch_nbytes": verdict.nbytes,
            "cpu_share": verdict.cpu_share,
            "moving_share": verdict.moving_share,
            "hottest": None if verdict.hot is None else {**verdict.hot.frame._asdict(), "share": verdict.hot.share},
            "slowest": [slow._asdict() for slow in self.slowest],
            "settings": [row._asdict() for row in map(row_of, self.settings)],
            "with_step": None if self.stepped is None else row_of(self.stepped)._asdict(),
        }

    def as_json(self) -> str:
        """Return `as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2)

    def write_html(self, path: str | Path) -> None:
        """Write a page of its own with charts, which needs no network.

        Raises:
            MpseqError: plotly is not installed.
        """
        from keras_mpseq.profiling.page import page

        Path(path).write_text(page(self), encoding="utf-8")

    def write_trace(self, path: str | Path) -> None:
        """Write the course of the shown setting in the trace format of Chrome, for ui.perfetto.dev."""
        from keras_mpseq.profiling.tracing import trace

        Path(path).write_text(json.dumps(trace(self)), encoding="utf-8")

    def write_png(self, path: str | Path) -> None:
        """Write the charts as one picture.

        Raises:
            MpseqError: matplotlib is not installed.
        """
        from keras_mpseq.profiling.picture import draw

        draw(self, Path(path))

    def __str__(self) -> str:
        from keras_mpseq.profiling.screen import screen

        return screen(self)


class Row(NamedTuple):
    """One setting in figures; seconds are of a batch."""

    workers: int
    batches: int
    batches_per_s: float
    getitem_median_s: float
    getitem_p95_s: float
    encode_s: float
    transport_s: float
    wait_s: float
    wait_share: float
    """Of the time of the training process."""


def row_of(setting: Setting) -> Row:
    """Return the figures of *setting*."""
    built = setting.steady
    return Row(
        workers=setting.workers,
        batches=len(setting.takes),
        batches_per_s=setting.rate,
        getitem_median_s=middle(one.timing.build_s for one in built),
        getitem_p95_s=percentile((one.timing.build_s for one in built), 0.95),
        encode_s=middle(one.timing.encode_s for one in built),
        transport_s=setting.transport_s,
        wait_s=setting.waited_s / max(len(setting.takes), 1),
        wait_share=min(setting.waited_s / setting.took_s, 1.0) if setting.took_s else 0.0,
    )
