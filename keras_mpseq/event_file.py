"""Scalars in a file that TensorBoard reads; TensorFlow writes it, and TensorBoard need not be installed."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_numbers = itertools.count()


class EventFile:
    """A file of events in a folder; made with the first scalars, and anew with the first after it was closed.

    Args:
        folder: A run, as TensorBoard shows it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._writer: Any = None

    def add(self, scalars: Mapping[str, float], step: int, at: float) -> None:
        """Write scalars of one step, so that a reader sees them at once.

        Args:
            scalars: Value by tag.
            step: Where they stand on the axis.
            at: Seconds since 1970.
        """
        from tensorflow.compat.v1 import Event, Summary

        if self._writer is None:
            self._writer = self._opened(at)
            self._writer.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._writer.write(Event(wall_time=at, step=step, summary=Summary(value=values)).SerializeToString())
        self._writer.flush()

    def _opened(self, at: float) -> Any:
        from tensorflow.io import TFRecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{at:.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}.keras_mpseq"
        return TFRecordWriter(str(self._folder / name))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
