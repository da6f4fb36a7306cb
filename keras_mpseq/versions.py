"""The versions of the sequence that workers have, in shared memory (decisions S8, S9).

A version is the sequence's pickle and its large arrays, each in a segment of its own. Before an epoch the sequence is
packed again and compared, byte for byte; only what changed gets a new segment. Two runs at a time may use two versions.
Where segments lie is the workplace's affair; those of this machine are made here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras_mpseq.backend import Segment
from keras_mpseq.errors import scarce
from keras_mpseq.messages import State
from keras_mpseq.payload import pack, reusable
from keras_mpseq.slots import anonymous_file, never_changes, read_only, write_file


@dataclass(eq=False, slots=True)
class SharedSegment:
    """Bytes in shared memory of this machine that do not change any more; the handle is a descriptor. See Segment."""

    handle: int
    nbytes: int
    view: memoryview

    @classmethod
    def of(cls, data: memoryview | bytes) -> SharedSegment:
        """Copy *data* into a new segment."""
        nbytes = memoryview(data).nbytes
        with scarce("Shared memory for the sequence cannot be had"), contextlib.ExitStack() as undo:
            fd = anonymous_file(nbytes)
            undo.callback(os.close, fd)
            write_file(fd, data)
            never_changes(fd)
            segment = cls(fd, nbytes, read_only(fd, nbytes))
            undo.pop_all()
        return segment

    def close(self) -> None:
        """Free the memory, as far as this process holds it."""
        self.view.release()
        os.close(self.handle)


@dataclass(eq=False, slots=True)
class Version:
    """One state of the sequence."""

    number: int
    segments: tuple[Segment, ...]
    runs: int = 0
    """How many live runs use it."""

    @property
    def state(self) -> State:
        """The message that announces it; the `handles` go along."""
        return State(self.number, tuple(segment.nbytes for segment in self.segments))

    @property
    def handles(self) -> list[Any]:
        """What workers find its segments by."""
        return [segment.handle for segment in self.segments]


class Versions:
    """Owns all segments. The first version stays: a template that has to start again begins with it.

    Args:
        sequence: In its first version.
        segment: Makes a segment.
    """

    def __init__(self, sequence: Any, segment: Callable[[memoryview | bytes], Segment] = SharedSegment.of) -> None:
        packed = pack(sequence)
        self._segment = segment
        self.first: Version = Version(0, self._segments([packed.data, *packed.buffers], []))
        self.current: Version = self.first
        self.live: list[Version] = [self.first]

    def publish(self, sequence: Any) -> Version:
        """Return the version of *sequence* as it is now: the current one, or a new one."""
        packed = pack(sequence)
        old = self.current.segments
        pieces: list[memoryview] = [memoryview(packed.data), *packed.buffers]
        found = reusable(pieces, [segment.view for segment in old])
        new = self._segments(pieces, [None if at is None else old[at] for at in found])
        if new != old:
            self.current = Version(self.current.number + 1, new)
            self.live.append(self.current)
        return self.current

    def retire(self) -> list[int]:
        """Drop the versions that nothing uses any more, and return their numbers."""
        gone = [v for v in self.live if not v.runs and v is not self.current and v is not self.first]
        self.live = [version for version in self.live if version not in gone]
        used = {segment for version in self.live for segment in version.segments}
        for segment in {segment for version in gone for segment in version.segments} - used:
            segment.close()
        return [version.number for version in gone]

    @property
    def nbytes_pickled(self) -> int:
        """Bytes of the pickle of the current version."""
        return self.current.segments[0].nbytes

    @property
    def nbytes_shared(self) -> int:
        """Bytes of the arrays that the current version shares."""
        return sum(segment.nbytes for segment in self.current.segments[1:])

    def close(self) -> None:
        """Close every segment."""
        for segment in {segment for version in self.live for segment in version.segments}:
            segment.close()
        self.live.clear()

    def _segments(self, pieces: Sequence[memoryview | bytes], have: Sequence[Segment | None]) -> tuple[Segment, ...]:
        """Return a segment for each of *pieces*: that which we *have* already, or a new one."""
        with contextlib.ExitStack() as undo:
            segments = []
            for piece, segment in itertools.zip_longest(pieces, have):
                if segment is None:
                    segment = self._segment(piece)
                    undo.callback(segment.close)
                segments.append(segment)
            undo.pop_all()
        return tuple(segments)
