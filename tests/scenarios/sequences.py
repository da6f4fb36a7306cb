"""The users' classes of the scenarios, as they write them. Imports NumPy and keras_mpseq only: workers import it.

A batch is x of the shape (8, 4) and y of the shape (8, 1) unless its row is about shapes; y tells what was built.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, per_worker
from tests.sequences import address, append_line, once, place_in_memory_file

ROWS = 8


def column(value: Any) -> np.ndarray:
    """Return a y that says *value*."""
    return np.full((ROWS, 1), value, np.float32)


def rows(index: int, width: int = 4) -> np.ndarray:
    """Return an x that says *index*."""
    return np.full((ROWS, width), index, np.float32)


class Batches(SafeSequence):
    """Every y is the index. With a *log* every call of `__getitem__` leaves a line in it: index and process."""

    def __init__(self, batches: int = 6, workers: int = 2, log: Path | None = None, **kwargs: Any) -> None:
        super().__init__(workers=workers, use_multiprocessing=workers > 0, **kwargs)
        self.batches = batches
        self.log = log

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        if self.log is not None:
            append_line(self.log, f"{index} {os.getpid()}")
        return self.batch(index)

    def batch(self, index: int) -> Any:
        return rows(index), column(self.label(index))

    def label(self, index: int) -> Any:
        return index


class Made(Batches):
    """What *make* returns for each index."""

    def __init__(self, make: Callable[[int], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.make = make

    def batch(self, index: int) -> Any:
        return self.make(index)


class Declared(Made):
    """The same, with its `element_spec` as an attribute."""

    def __init__(self, make: Callable[[int], Any], element_spec: Any, **kwargs: Any) -> None:
        super().__init__(make, **kwargs)
        self.element_spec = element_spec


# --- ends of workers ------------------------------------------------------------------------------


class Killed(Batches):
    """SIGKILL at index 3, as from the kernel when memory is short: always, or with a *marker* once."""

    def __init__(self, marker: Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.marker = marker

    def label(self, index: int) -> Any:
        if index == 3 and (self.marker is None or once(self.marker)):
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class Exits(Batches):
    """Ends its process at index 3, in one of three ways."""

    def __init__(self, how: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how

    def label(self, index: int) -> Any:
        if index == 3:
            match self.how:
                case "sys.exit":
                    sys.exit(1)
                case "os._exit":
                    os._exit(1)
                case "crash":
                    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # Not faulthandler's: its stack is no part of this.
                    os.kill(os.getpid(), signal.SIGSEGV)
        return index


class NeedsTwoError(Exception):
    """Pickles and does not unpickle: the base remembers one argument."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


class Raises(Batches):
    """Raises at index 3."""

    def __init__(self, make: Callable[[], BaseException], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.make = make

    def label(self, index: int) -> Any:
        if index == 3:
            raise self.make()
        return index


class FailsToUnpickle(Batches):
    """Cannot be rebuilt in another process."""

    def __setstate__(self, state: Any) -> None:
        raise FileNotFoundError("labels.csv")


class RaisesAtEpochEnd(Batches):
    def on_epoch_end(self) -> None:
        raise RuntimeError("no more files")


class WaitsForALaterBatch(Batches):
    """Index 2 takes until index 8 has been built, which only another worker can do. *pipe* is a FIFO."""

    def __init__(self, pipe: Path, **kwargs: Any) -> None:
        super().__init__(batches=10, **kwargs)
        self.pipe = pipe

    def label(self, index: int) -> Any:
        if index in (2, 8):
            os.close(os.open(self.pipe, os.O_RDONLY if index == 2 else os.O_WRONLY))
        return index


# --- state ----------------------------------------------------------------------------------------


class Augmented(Batches):
    """Draws from NumPy's global generator, as augmentation does that knows nothing of processes."""

    def label(self, index: int) -> Any:
        return np.random.rand()


class Lazy(Batches):
    """Opens its file on first use, keeps it, and says whether it belongs to the process that uses it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.opened_by: int | None = None

    def label(self, index: int) -> Any:
        if self.opened_by is None:
            self.opened_by = os.getpid()
        return self.opened_by == os.getpid()


class Levels(Batches):
    """A curriculum: y is the level, which a callback raises. Too large for TensorFlow to take several at a time."""

    level = 0

    def batch(self, index: int) -> Any:
        return np.zeros((ROWS, 1024), np.float32), column(self.level)


class Unpicklable(Batches):
    """Has a lambda, which travels, and a lock, which cannot."""

    def __init__(self, lock: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = lambda value: value * 10
        self.tools = {"io": [threading.Lock()]} if lock else {}

    def label(self, index: int) -> Any:
        return self.scale(index)


class Hooked(Batches):
    """Counts its hooks where they run; y says how often `on_epoch_begin` had run when the batch was built."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hooks: list[str] = []

    def on_epoch_begin(self) -> None:
        self.hooks.append(f"begin {self.epoch}")

    def on_epoch_end(self) -> None:
        self.hooks.append(f"end {self.epoch}")

    def label(self, index: int) -> Any:
        return sum(hook.startswith("begin") for hook in self.hooks)


class LoadsAtEpochBegin(Batches):
    """`current` exists from the first `on_epoch_begin` on."""

    current: list[int]
    loads = 0

    def on_epoch_begin(self) -> None:
        self.loads += 1
        self.current = [100 * self.loads + index for index in range(self.batches)]

    def label(self, index: int) -> Any:
        return self.current[index]


class Counter(Batches):
    """Counts its calls, which is no function of the index."""

    calls = 0

    def label(self, index: int) -> Any:
        self.calls += 1
        return self.calls


class VaryingLength(Batches):
    """Another number of batches in every epoch."""

    def on_epoch_end(self) -> None:
        self.batches = {6: 4, 4: 9, 9: 2, 2: 6}[self.batches]


class NumBatchesIsAMethod(Batches):
    def num_batches(self) -> int:  # type: ignore[override]
        return 6


# --- what a worker is -----------------------------------------------------------------------------

LOCK = threading.Lock()
"""Held by a thread of the training process, as TensorFlow's and OpenCV's are."""


class TakesTheLock(Batches):
    """y is 1 where the lock could be had; to wait for it would hang a process that inherited it locked."""

    def label(self, index: int) -> Any:
        if taken := LOCK.acquire(blocking=False):
            LOCK.release()
        return taken


class Multiplies(Batches):
    """y is the number of the process's threads after a product of matrices, for which BLAS starts its own."""

    def label(self, index: int) -> Any:
        ones = np.ones((400, 400))
        ones @ ones
        return len([*Path("/proc/self/task").iterdir()])


class HasModule(Batches):
    """y is 1 where *name* had been imported before the batch was built."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name

    def label(self, index: int) -> Any:
        return self.name in sys.modules


class UsesTensorFlow(Batches):
    """An op and a tensor of TensorFlow in `__getitem__`."""

    def batch(self, index: int) -> Any:
        import tensorflow as tf

        x = tf.image.adjust_brightness(tf.fill((ROWS, 4), float(index)), 0.5)
        return x, tf.reduce_sum(x, axis=1, keepdims=True).numpy()


class Environment(Batches):
    """y is 1 where the variables are as *wanted*."""

    def __init__(self, wanted: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wanted = wanted

    def label(self, index: int) -> Any:
        return all(os.environ.get(name) == value for name, value in self.wanted.items())


class HasArray(Batches):
    """Holds a large array; y tells the file that it is mapped from, by the last digits of its number."""

    def __init__(self, array: np.ndarray, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.array = array

    def label(self, index: int) -> Any:
        place = place_in_memory_file(address(self.array))
        return -1 if place is None else place[0] % 1000


class Mapped(Batches):
    """Reads the last byte of a file that is larger than what a pickle of old could hold."""

    def __init__(self, path: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bytes = np.memmap(path, np.uint8, "r")

    def label(self, index: int) -> Any:
        return self.bytes[-1] + index


class SeesGpus(Batches):
    """y is 1 where the process saw no GPU already when the sequence arrived in it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""

    def label(self, index: int) -> Any:
        return self.hidden


class WithoutInit(SafeSequence):
    """Does not call the base's __init__."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return rows(index), column(index)


class Plain:
    """Has no base of ours or of Keras."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return rows(index), column(index)


class Endless(Batches):
    """Has no end."""

    num_batches = None


class HoldsFile(Batches):
    """Opens its HDF5 file once, as many do."""

    def __init__(self, path: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        import h5py

        self.file = h5py.File(path)

    def label(self, index: int) -> Any:
        return self.file["y"][index]


class OpensFile(Batches):
    """Opens it in the process that reads it; y says whether that was so."""

    def __init__(self, path: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    @per_worker
    def file(self) -> Any:
        import h5py

        return os.getpid(), h5py.File(self.path)

    def label(self, index: int) -> Any:
        opened_by, file = self.file
        return file["y"][index] if opened_by == os.getpid() else -1


class Inherits(Batches):
    """y is 1 where the process has the file *name* open."""

    def __init__(self, name: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = str(name)

    def label(self, index: int) -> Any:
        return any(os.path.realpath(link) == self.name for link in Path("/proc/self/fd").iterdir())
