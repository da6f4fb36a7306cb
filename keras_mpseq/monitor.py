"""PipelineMonitor: how long training waited for data, epoch by epoch."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import replace
from typing import Any, NamedTuple

from keras_mpseq import fitting
from keras_mpseq.callback import Callback
from keras_mpseq.event_file import EventFile
from keras_mpseq.live import APART_S, Rates, StatusLine, between
from keras_mpseq.machine import cores
from keras_mpseq.run import Stats

_ENOUGH = 0.05
"""Share of waiting below which data is not the bottleneck: jitter of the system alone costs that much."""
log: logging.Logger = logging.getLogger("keras_mpseq")


class Look(NamedTuple):
    """What was seen, and when by the clock of `time.perf_counter`."""

    stats: Stats
    at: float

    def until(self, later: Look) -> Rates:
        """Return the rates from this look to a later one."""
        return between(self.stats, later.stats, later.at - self.at)


class PipelineMonitor(Callback):
    """Keras callback that measures the time spent waiting for the batches of a `SafeSequence`.

    Adds to the logs of each epoch: `data_wait_s` (seconds), `data_wait_share` (of the time of training steps, 0 to
    1), `batches_per_s`, and `worker_restarts`. `History` has them always; put the monitor before callbacks such as
    `CSVLogger` and `TensorBoard` that are to have them too. At the end of training it says in one sentence whether
    data is the bottleneck; the attribute `sentence` holds it. Works in `fit` of Keras 3 and of tf_keras.

    Args:
        verbose: Print the sentence; else it goes to the logger `keras_mpseq` only.
        log_dir: Folder into which scalars for TensorBoard are written, under the names `keras_mpseq/wait_share`,
            `ready` (batches that are built and not taken; over an epoch, their mean), `batches_per_s`, `mb_per_s`,
            `restarts`, and `worker_0/batches_per_s` for each worker. TensorBoard itself need not be installed.
        update_freq: "epoch" writes once an epoch, and the axis counts epochs; a number writes every so many batches,
            and the axis counts batches.
        status: Show the same figures in one line: in a notebook or a terminal it changes while training goes on,
            elsewhere there is a line for each epoch. Meant for `fit(verbose=0)`: Keras's own bar uses the same line.

    Raises:
        ValueError: *update_freq* is neither "epoch" nor a number above 0.

    Example:
        ```python
        model.fit(sequence, epochs=3, callbacks=[PipelineMonitor()])
        ```
    """

    # tf_keras asks for these: without the first it would fetch the metrics from the device after each step.
    _supports_tf_logs = True
    _implements_train_batch_hooks = staticmethod(lambda: True)
    _implements_test_batch_hooks = _implements_predict_batch_hooks = staticmethod(lambda: False)

    def __init__(
        self,
        verbose: bool = True,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        update_freq: int | str = "epoch",
        status: bool = False,
    ) -> None:
        """Begin with nothing measured."""
        super().__init__()
        if update_freq != "epoch" and (type(update_freq) is not int or update_freq < 1):
            raise ValueError(f'update_freq must be "epoch" or a number of batches above 0, got {update_freq!r}.')
        self._verbose = verbose
        self._file = None if log_dir is None else EventFile(log_dir)
        self._every = None if update_freq == "epoch" else int(update_freq)
        self._status = StatusLine() if status else None
        self._looked: Look | None = None
        """When the line was shown last."""
        self._written: Look | None = None
        """When scalars were written last, where that is every so many batches."""
        self._steps = 0
        """Batches of this training."""
        self._epoch = 0
        self._ready: list[int] = []
        """Batches that were ready at the end of each step of the epoch."""
        self._adapter: Any = None
        self._before: Stats | None = None
        self._began = self._latest = 0.0
        self._batches = self._first = self._restarts = 0
        self._waited_s = self._took_s = 0.0
        self.sentence: str = ""
        """What was said at the end of training."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the pipeline of this call of fit."""
        session = fitting.outermost_session()
        self._adapter = session.adapters[0] if session and session.adapters else None
        self._waited_s = self._took_s = 0.0
        self._restarts = 0
        self._steps = 0
        self._written = None
        self.sentence = ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin to measure."""
        self._before = self._adapter.stats() if self._adapter else None
        self._began = self._latest = time.perf_counter()
        self._batches = 0
        self._epoch = epoch
        self._ready = []
        if self._before is not None:
            self._looked = Look(self._before, self._began)
            self._written = self._written or self._looked

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note which step begins."""
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note that steps have ended: validation, which may follow, is not measured."""
        taken = batch - self._first + 1
        self._batches += taken
        self._latest = time.perf_counter()
        if self._before is not None and (self._file or self._status):
            self._watch(taken)

    def _watch(self, taken: int) -> None:
        """Show and write what is due after so many batches more."""
        before, self._steps = self._steps, self._steps + taken
        now = Look(self._adapter.stats(), self._latest)
        self._ready.append(now.stats.ready)
        if self._every and self._file and self._written and before // self._every < self._steps // self._every:
            self._file.add(self._written.until(now).scalars(), self._steps, time.time())
            self._written = now
        if self._status and self._status.changes and self._looked and self._latest - self._looked.at >= APART_S:
            self._status.show(f"epoch {self._epoch}, batch {self._batches}: {self._looked.until(now)}")
            self._looked = now

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the figures of the epoch to *logs*."""
        if self._before is None:
            return
        now: Stats = self._adapter.stats()
        took_s = max(self._latest - self._began, 1e-9)
        waited_s = min(now.waited_s - self._before.waited_s, took_s)
        self._took_s += took_s
        self._waited_s += waited_s
        # Not from the beginning of the epoch: workers build, and may be lost, before the first one begins.
        restarts, self._restarts = now.restarts - self._restarts, now.restarts
        if logs is not None:
            logs["data_wait_s"] = waited_s
            logs["data_wait_share"] = waited_s / took_s
            logs["batches_per_s"] = self._batches / took_s
            logs["worker_restarts"] = restarts
        rates = Look(self._before, self._began).until(Look(now, self._latest))
        # At the end of an epoch nothing is ready, so that the mean of what the steps found tells more.
        rates = replace(rates, restarts=restarts, ready=round(sum(self._ready) / max(len(self._ready), 1)))
        if self._file and not self._every:
            self._file.add(rates.scalars(), epoch, time.time())
        if self._status:
            self._status.end(f"epoch {epoch}: {rates}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say whether data is the bottleneck."""
        if self._adapter is None:
            self.sentence = "PipelineMonitor measures SafeSequence and keras_mpseq.fit only; this fit had neither."
        elif self._took_s:
            self.sentence = advice(self._adapter.stats().workers, self._waited_s / self._took_s, cores())
        self._adapter = None
        if self._file:
            self._file.close()
        log.info("%s", self.sentence)
        if self._verbose and self.sentence:
            print(self.sentence)


def advice(workers: int, share: float, available: int) -> str:
    """Return the sentence for a share of waiting, from 0 to 1, with so many cores *available*."""
    if share < _ENOUGH:
        return f"Data is not the bottleneck: the model waited for it {share:.0%} of the time."
    begin = f"The model waited for data {share:.0%} of the time: {workers or 'no'} worker{'' if workers == 1 else 's'}"
    # Workers that take (1 - share) of the time they take now feed the model without a wait. Without workers, building
    # took a share of the time, and will go on beside the model.
    needed = max(workers + 1, math.ceil((workers or share) / max(1 - share, 0.01)))
    if needed <= available:
        return f"{begin}, try {needed}."
    if workers < available:
        return f"{begin}, try {available}, as many as there are cores; {needed} would be needed."
    return f"{begin} on {available} core{'' if available == 1 else 's'}, so make __getitem__ faster, or use more cores."
