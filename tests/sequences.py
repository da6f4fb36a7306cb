"""Sequences that tests use in workers, and how batches are compared. Imports NumPy and keras_mpseq only.

Workers import this module by its name. Classes that do not need a SafeSequence are plain, as users' own often are.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, get_worker_info, per_worker, role

KILL_SELF = "self"
KILL_TEMPLATE = "template"


def frozen(batch: Any) -> Any:
    """Return *batch* as nested tuples that are equal only if structure, types, shapes and all bits are."""
    if isinstance(batch, dict):
        return "dict", tuple((key, frozen(batch[key])) for key in batch)
    if isinstance(batch, (tuple, list)):
        return type(batch).__name__, tuple(map(frozen, batch))
    array = np.asarray(batch)
    return "array", array.dtype.str, array.shape, array.tobytes()


def address(array: np.ndarray) -> int:
    """Return where the memory of *array* begins."""
    return int(array.__array_interface__["data"][0])


def place_in_memory_file(where: int) -> tuple[int, int] | None:
    """Return inode and offset in the anonymous file that is mapped at address *where*; None if none of ours is."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            ends, _, offset, _, inode, *name = line.split(maxsplit=5)
            low, high = (int(end, 16) for end in ends.split("-"))
            if low <= where < high:
                ours = bool(name) and name[0].startswith("/memfd:keras_mpseq")
                return (int(inode), int(offset, 16) + where - low) if ours else None
    return None


def append_line(path: str | Path, line: str) -> None:
    """Append a line in one write: processes may do so at the same time."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def once(marker: str | Path) -> bool:
    """Return True to the first that asks, in whatever process."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        return True
    return False


class Numbered:
    """A plain sequence of batches that hold their index."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full((4, 3), index, np.float32)


class Draws(SafeSequence):
    """Random numbers from the three sources, in small batches."""

    def __init__(self, batches: int = 12, rows: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches = batches
        self.rows = rows

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        rows = self.rows
        return {
            "rng": self.rng(index).normal(size=(rows, 2)),
            "numpy": np.random.randint(0, 1 << 40, (rows, 4)),
            "python": np.array([random.random() for _ in range(rows)]),
            "which": (np.int64(index), np.int64(self.epoch)),
        }


class LargeDraws(Draws):
    """The same with a leaf that is built in place, so large that batches are leased and not copied."""

    def __getitem__(self, index: int) -> Any:
        image = self.empty((self.rows, 64, 64), np.float64)
        self.rng(index).random(out=image)
        return image, super().__getitem__(index)


class DiesOnce(SafeSequence):
    """Another sequence's batches; once, half-way through a batch, a process is killed.

    Args:
        of: The other sequence.
        at: Index of the batch.
        marker: A path that does not exist.
        whom: KILL_SELF, or KILL_TEMPLATE for the worker's parent.
    """

    def __init__(self, of: SafeSequence, at: int, marker: Path, whom: str = KILL_SELF) -> None:
        super().__init__(seed=of.seed)
        self.of = of
        self.at = at
        self.marker = str(marker)
        self.whom = whom

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Any:
        if index == self.at and once(self.marker):
            self.rng(index).random(), np.random.rand(), random.random()
            self.empty((100, 100), np.float64)[:] = -1
            if self.whom == KILL_TEMPLATE:
                os.kill(os.getppid(), signal.SIGKILL)
                signal.pause()  # Until the kernel takes the children after their parent.
            os.kill(os.getpid(), signal.SIGKILL)
        return self.of[index]


class DiesOfItsTemplate(DiesOnce):
    """The same with the template, and the next template dies while it loads the sequence, so many times.

    Args:
        of: The other sequence.
        at: Index of the batch.
        marker: A path that does not exist.
        times: How many templates die while they load.
    """

    def __init__(self, of: SafeSequence, at: int, marker: Path, times: int) -> None:
        super().__init__(of, at, marker, KILL_TEMPLATE)
        self.times = times

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if role.in_worker and os.path.exists(self.marker):
            for number in range(self.times):
                if once(f"{self.marker}-{number}"):
                    os.kill(os.getpid(), signal.SIGKILL)


class Counting(SafeSequence):
    """Batches that say which they are: every element is index + 1000 * epoch, or what `scale` makes of it."""

    def __init__(self, batches: int = 10, shape: tuple[int, ...] = (4, 3), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches = batches
        self.shape = shape

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        if index >= self.batches:
            raise IndexError(index)
        return np.full(self.shape, index + 1000 * self.epoch, np.float32)


class Raising(Counting):
    """Raises at one index."""

    def __init__(self, at: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at = at

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            raise ValueError("broken")
        return super().__getitem__(index)


class Endless(SafeSequence):
    """Batches without an end."""

    num_batches = None

    def __getitem__(self, index: int) -> Any:
        return np.full((4,), index, np.int64)


class InPlace(SafeSequence):
    """Leaves built in the slot, and where they lay in the worker: (inode, offset) of a memory file.

    The batches grow, so that slots do.
    """

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        rows = 8 * (index + 1)
        image = self.empty((rows, 32, 32))
        image[:] = index
        label = self.empty(rows, np.int64)
        label[:] = np.arange(rows)
        padded = self.empty((2 * rows, 16), np.float64)
        padded[:] = -index
        part = padded[:rows]
        places = [place_in_memory_file(address(leaf)) or (0, 0) for leaf in (image, label, part)]
        return image, label, part, np.array(places)


class Hooked(SafeSequence):
    """Logs its hooks, with the process they ran in, to a file; a batch tells the state it was built from."""

    def __init__(self, log: Path, batches: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log = str(log)
        self.batches = batches
        self.begun = 0
        self.grow_by = 0
        self.small = np.zeros(4)
        self.big = np.zeros(1 << 18)  # 2 MiB

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return np.array([index, self.epoch, self.begun, self.small[0], self.small[-1], self.big[0], self.big[-1]])

    def on_worker_start(self, worker: int) -> None:
        append_line(self.log, f"start {worker} {os.getpid()}")

    def on_worker_stop(self) -> None:
        append_line(self.log, f"stop {os.getpid()}")

    def on_epoch_begin(self) -> None:
        self.begun += 1
        self.small[-1] += 1
        self.big[-1] += 1
        self.batches += self.grow_by
        append_line(self.log, f"begin {self.epoch} {os.getpid()}")

    def on_epoch_end(self) -> None:
        append_line(self.log, f"end {self.epoch} {os.getpid()}")


class OwnState(SafeSequence):
    """Sets an attribute in each worker, next to state that changes between epochs."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = 0
        self.mine = -1
        self.cache: dict[str, int] | None = None

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        seen = -2 if info is None else info.id
        assert self.cache is not None
        return np.array([index, self.state, self.mine, seen, self.cache["worker"]])

    def on_worker_start(self, worker: int) -> None:
        self.mine = worker
        self.cache = {"worker": worker}


class Resource:
    """Logs how it is opened and closed; does not pickle."""

    def __init__(self, log: str, name: str) -> None:
        self.log, self.name, self.pid, self.uses = log, name, os.getpid(), 0
        append_line(log, f"open {name} {self.pid}")

    def use(self) -> int:
        """Return how often it was used, in the process that it belongs to."""
        assert self.pid == os.getpid()
        self.uses += 1
        return self.uses

    def close(self) -> None:
        append_line(self.log, f"close {self.name} {os.getpid()}")

    def __reduce__(self) -> Any:
        raise TypeError("A resource was pickled.")


class Resourceful(SafeSequence):
    """Uses a resource with `close()` and one that is a generator; the second needs the first."""

    def __init__(self, log: Path, kill_at: int = -1, marker: Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log = str(log)
        self.kill_at = kill_at
        self.marker = str(marker)
        self.state = 0

    def __len__(self) -> int:
        return 10

    @per_worker
    def file(self) -> Resource:
        return Resource(self.log, "file")

    @per_worker
    def cursor(self) -> Iterator[Resource]:
        assert self.file.pid == os.getpid()
        cursor = Resource(self.log, "cursor")
        yield cursor
        cursor.close()

    def __getitem__(self, index: int) -> Any:
        uses = self.cursor.use()
        self.file.use()
        if index == self.kill_at and once(self.marker):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([index, self.state, os.getpid(), uses])


class NoInit(SafeSequence):
    """An old class whose base alone was changed: it never calls `super().__init__`."""

    def __init__(self, batches: int) -> None:
        self.count = batches

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.rng(index).random(2), np.array([index, self.epoch])


class Shared(SafeSequence):
    """Holds arrays, large ones too, and tells in its batches how they arrived in this process."""

    def __init__(self, arrays: dict[str, np.ndarray], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arrays = arrays

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        batch: dict[str, Any] = {}
        for name, array in self.arrays.items():
            batch[name] = {
                "sum": array.sum(dtype=np.float64),
                "writeable": np.bool_(array.flags.writeable),
                "memmap": np.bool_(isinstance(array, np.memmap)),
                "inode": np.int64((place_in_memory_file(address(array)) or (0, 0))[0]),
            }
        return batch


class Modules:
    """What a worker has imported, as one long string. No SafeSequence: nothing is asked of Keras anywhere."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return " ".join(sorted(sys.modules))


class SafeModules(SafeSequence):
    """The same, in a subclass of SafeSequence."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return " ".join(sorted(sys.modules))


class Calling(SafeSequence):
    """Batches made by a function, which may be anything that cloudpickle sends."""

    def __init__(self, make: Callable[[int], Any], batches: int = 4) -> None:
        super().__init__()
        self.make = make
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return self.make(index)
