"""The versions of the sequence that workers have, in shared memory (decisions S8, S9).

A version is the sequence's pickle and its large arrays, each in a segment of its own. Before an epoch the sequence is
packed again and compared, byte for byte; only what changed gets a new segment. Two runs at a time may use two versions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_mpseq.errors import scarce
from keras_mpseq.messages import State
from keras_mpseq.payload import pack, reusable
from keras_mpseq.slots import anonymous_file, never_changes, read_only, write_file


@dataclass(eq=False, slots=True)
class Segment:
    """Bytes in shared memory that do not change any more. Owned by the versions that use it."""

    fd: int
    nbytes: int
    view: memoryview

    @classmethod
    def of(cls, data: memoryview | bytes) -> Segment:
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
        os.close(self.fd)


@dataclass(eq=False, slots=True)
class Version:
    """One state of the sequence."""

    number: int
    segments: tuple[Segment, ...]
    runs: int = 0
    """How many live runs use it."""

    @property
    def state(self) -> State:
        """The message that announces it; the descriptors `fds` go along."""
        return State(self.number, tuple(segment.nbytes for segment in self.segments))

    @property
    def fds(self) -> list[int]:
        """Descriptors of its segments."""
        return [segment.fd for segment in self.segments]


class Versions:
    """Owns all segments. The first version stays: a template that has to start again begins with it."""

    def __init__(self, sequence: Any) -> None:
        packed = pack(sequence)
        self.first = self.current = Version(0, _segments([packed.data, *packed.buffers], []))
        self.live = [self.first]

    def publish(self, sequence: Any) -> Version:
        """Return the version of *sequence* as it is now: the current one, or a new one."""
        packed = pack(sequence)
        old = self.current.segments
        pieces: list[memoryview] = [memoryview(packed.data), *packed.buffers]
        found = reusable(pieces, [segment.view for segment in old])
        new = _segments(pieces, [None if at is None else old[at] for at in found])
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


def _segments(pieces: Sequence[memoryview | bytes], have: Sequence[Segment | None]) -> tuple[Segment, ...]:
    """Return a segment for each of *pieces*: that which we *have* already, or a new one."""
    with contextlib.ExitStack() as undo:
        segments = []
        for piece, segment in itertools.zip_longest(pieces, have):
            if segment is None:
                segment = Segment.of(piece)
                undo.callback(segment.close)
            segments.append(segment)
        undo.pop_all()
    return tuple(segments)
