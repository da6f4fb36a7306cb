"""Shared memory: anonymous files, the slots that batches lie in, and the consumer's lease on a slot.

Nothing here has a name that could leak: a file is a memfd (Linux) or a temporary file unlinked at birth, known
by its descriptor alone, and gone with the last process that holds it.

Who owns a slot: the pool creates it; from Send to Built it is the worker's, which alone writes it and may let it
grow; from Built on it is the pool's; with Deliver it is the consumer's until the lease ends. A slot only grows:
an older, shorter mapping of it stays valid, because both are views of the same pages.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from keras_mpseq.errors import SlotTooSmallError, scarce
from keras_mpseq.messages import Leaf

with contextlib.suppress(ImportError):  # Windows has none, and no worker.
    import fcntl

S = TypeVar("S", bound="Slot")
ALIGNMENT = 64
"""Bytes. TensorFlow takes a buffer without a copy only when it is so aligned (EIGEN_MAX_ALIGN_BYTES)."""
_MFD_NOEXEC_SEAL = 0x0008  # linux/memfd.h
_ZEROS = bytes(1 << 16)
SLOT_HEAD = ALIGNMENT
"""A slot begins with three words: how far the task is, since when, and a mark; see `Slot.progress` and `Slot.note`."""


def anonymous_file(nbytes: int = 0) -> int:
    """Create a file of *nbytes* zero bytes without a name, for this user only, and return its descriptor."""
    fd = _memory_file()
    if fd is None:
        fd, name = tempfile.mkstemp(prefix="keras_mpseq-")
        os.unlink(name)
    try:
        os.fchmod(fd, 0o600)  # A memfd is born with 0o777.
        enlarge(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _memory_file() -> int | None:
    """Return a file of memory, which nobody can execute or shrink, or None where the system has or allows none."""
    if not hasattr(os, "memfd_create"):
        return None
    fd = None
    # Linux before 6.3 does not know the flag for "not executable"; later ones may insist on it (vm.memfd_noexec).
    for flags in (os.MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL, os.MFD_ALLOW_SEALING):
        try:
            fd = os.memfd_create("keras_mpseq", os.MFD_CLOEXEC | flags)
            break
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES):
                raise
    return fd


def enlarge(fd: int, nbytes: int) -> None:
    """Let the file *fd* of ours be *nbytes* long, if it is shorter.

    Memory is taken when it is touched. On a disk it is taken now: when that is full, whoever touches a page that is
    not there yet would be killed.
    """
    size = os.fstat(fd).st_size
    if nbytes <= size:
        return
    if not _is_memory(fd):
        for start in range(size, nbytes, len(_ZEROS)):
            write_at(fd, memoryview(_ZEROS)[: nbytes - start], start)
    os.ftruncate(fd, nbytes)


def never_shrinks(fd: int) -> None:
    """Let nobody make the file of memory *fd* shorter, which would kill those who touch what is gone."""
    if _is_memory(fd):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)


def never_changes(fd: int) -> None:
    """Let nobody write to the file of memory *fd*, or make it shorter or longer."""
    if _is_memory(fd):
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def _is_memory(fd: int) -> bool:
    if not hasattr(os, "memfd_create"):
        return False
    try:
        # Only such a file can be sealed further, or was made so that it cannot be executed.
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) != fcntl.F_SEAL_SEAL
    except OSError:  # A file of a disk.
        return False


def write_file(fd: int, data: memoryview | bytes) -> None:
    """Write *data* from the start of the file *fd*; write() spares the page faults of a fresh mapping."""
    write_at(fd, memoryview(data).cast("B"), 0)


def write_at(fd: int, view: memoryview, offset: int) -> None:
    """Write the bytes *view* to the file *fd* from *offset* on."""
    done = 0
    while done < len(view):  # Linux writes at most 2 GiB at a time.
        done += os.pwrite(fd, view[done : done + (1 << 30)], offset + done)


def read_only(fd: int, nbytes: int) -> memoryview:
    """Map *nbytes* of the file *fd*, which does not change any more, for reading."""
    if not nbytes:
        return memoryview(b"")
    # Not MAP_SHARED: Linux before 6.7 refuses that of a file that never_changes(), also for reading only.
    return memoryview(_mapped(fd, nbytes, mmap.MAP_PRIVATE, mmap.PROT_READ))


def _mapped(fd: int, nbytes: int, flags: int, prot: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, nbytes, flags, prot, trackfd=False)
    return mmap.mmap(fd, nbytes, flags, prot)  # Takes a descriptor of its own.


FILES_OF_A_MAPPING = 0 if sys.version_info >= (3, 13) else 1
"""Descriptors that one takes."""


def room_for_files(count: int) -> None:
    """Raise OSError unless *count* more descriptors can be had: better now than in the middle of an epoch."""
    with contextlib.ExitStack() as undo:
        first, second = os.pipe()
        undo.callback(os.close, first)
        undo.callback(os.close, second)
        for _ in range(count - 2):
            undo.callback(os.close, os.dup(first))


def room_for_memory(nbytes: int) -> None:
    """Raise OSError unless *nbytes* more can be mapped: better now than in the middle of an epoch."""
    mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()


def aligned(nbytes: int) -> int:
    """Round *nbytes* up to the alignment of leaves."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def whole_pages(nbytes: int) -> int:
    """Round *nbytes* up to whole pages of memory."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


class Slot:
    """One process's view of a slot. Owns its descriptor; mappings live as long as arrays over them."""

    remedy: ClassVar[str] = "Raise max_bytes, or lower workers, prefetch or the batch size."
    """For a batch that is too large."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.capacity: int = 0
        """Bytes that this process has mapped."""
        self._maps: list[NDArray[np.uint8]] = []
        self._lease_end: LeaseEnd | None = None
        """Python calls a weak reference's function only if the reference itself is alive."""
        self._end = SLOT_HEAD
        self._room = 0
        self.remap()

    @classmethod
    def new(cls: type[S]) -> S:
        """Make a slot."""
        fd = anonymous_file()
        never_shrinks(fd)
        return cls(fd)

    def remap(self) -> None:
        """Map the file at its present size, if it has grown since.

        Raises:
            MpseqError: There is no memory, or no descriptor (a mapping takes one before Python 3.13), left.
        """
        size = os.fstat(self.fd).st_size
        if size > self.capacity:
            with scarce("Shared memory cannot be had"):
                mapping = _mapped(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
                self._maps.append(np.frombuffer(mapping, np.uint8))
            self.capacity = size

    # --- the worker's side ---

    def begin(self, room: int, used: int = 0) -> None:
        """Start a task: nothing is finished; behind *used* bytes the slot is empty and may grow to *room* bytes."""
        self.remap()  # Other workers may have let it grow; ftruncate from an old size would shrink it under them.
        del self._maps[:-1]
        self._end = max(SLOT_HEAD, used)
        self._room = room
        if not self.capacity:
            self._grow(SLOT_HEAD)
        self.progress = 0
        self.note(-1)

    @property
    def used(self) -> int:
        """Bytes of the slot that the task has used so far."""
        return self._end

    @property
    def progress(self) -> int | None:
        """How many batches of the task are finished, or None before it is begun.

        The pool reads it when the worker has died, to know which batch to blame, and sets it to None before it sends
        a task. In the slot's first word lies one more than the number, so that a new slot says "not begun".
        """
        self.remap()
        word = int(self._maps[-1][:8].view(np.int64)[0]) if self.capacity else 0
        return word - 1 if word else None

    @progress.setter
    def progress(self, done: int | None) -> None:
        if self.capacity:
            self._maps[-1][:8].view(np.int64)[0] = 0 if done is None else done + 1
            self._maps[-1][8:16].view(np.float64)[0] = time.monotonic()

    @property
    def since(self) -> float:
        """When `progress` was set last, by the clock `time.monotonic`, which all processes share."""
        self.remap()
        return float(self._maps[-1][8:16].view(np.float64)[0]) if self.capacity else 0.0

    def note(self, mark: int) -> None:
        """Leave *mark* where the pool finds it when this worker is lost."""
        self._maps[-1][16:24].view(np.int64)[0] = mark

    @property
    def noted(self) -> int:
        """The mark that was left last; -1 for none."""
        return int(self._maps[-1][16:24].view(np.int64)[0]) if self.capacity else -1

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Allocate an array in the slot; raises SlotTooSmallError when the task's room is used up."""
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        start, end = self._end, self._end + aligned(nbytes)
        if end > min(self.capacity, self._room):
            self._grow(end)
        self._end = end
        return self._maps[-1][start : start + nbytes].view(kind).reshape(shape)

    def _grow(self, nbytes: int) -> None:
        need = whole_pages(nbytes)
        if need > self._room:
            raise SlotTooSmallError(
                f"The batch needs {need:,} bytes of shared memory and max_bytes leaves {self._room:,} for one batch",
                remedy=self.remedy,
            )
        # Twice as large as before, so that a batch built piece by piece does not remap for each piece: pages
        # that nobody touches cost nothing.
        with scarce("Shared memory cannot be had"):
            enlarge(self.fd, max(need, whole_pages(min(2 * self.capacity, self._room - mmap.PAGESIZE))))
        self.remap()

    def locate(self, array: NDArray[Any]) -> int | None:
        """Return the offset at which *array* already lies in this slot, aligned and contiguous, or None."""
        if not array.flags.c_contiguous:
            return None
        address = array.__array_interface__["data"][0]
        for memory in self._maps:
            offset = int(address - memory.__array_interface__["data"][0])
            if offset >= 0 and offset + array.nbytes <= len(memory):
                return offset if offset % ALIGNMENT == 0 else None
        return None

    def place(self, array: NDArray[Any], dtype: np.dtype[Any] | None = None) -> Leaf:
        """Make *array* lie in the slot, as *dtype* if one is given, by one copy or none, and say where."""
        kind = dtype or array.dtype.newbyteorder("=")
        offset = self.locate(array) if array.dtype == kind else None
        if offset is None:
            offset = self._end
            np.copyto(self.empty(array.shape, kind), array, casting="same_kind")
        return Leaf(offset, array.shape, array.size * kind.itemsize)

    def written(self, start: int) -> NDArray[np.uint8]:
        """Return what lies in the slot from *start* on, up to where the task has come."""
        return self._maps[-1][start : self._end]

    # --- the pool's side ---

    def arrays(self, leaves: Iterable[Leaf], dtypes: Iterable[np.dtype[Any]], copy: bool) -> list[NDArray[Any]]:
        """Return the arrays at *leaves*: over the slot's memory, or copies of it."""
        views = [
            self._memory(leaf.offset + leaf.nbytes)[leaf.offset : leaf.offset + leaf.nbytes]
            .view(dtype)
            .reshape(leaf.shape)
            for leaf, dtype in zip(leaves, dtypes, strict=True)
        ]
        return [view.copy() for view in views] if copy else views

    def leased(
        self,
        leaves: Iterable[Leaf],
        dtypes: Iterable[np.dtype[Any]],
        number: int,
        ended: Callable[[LeaseEnd], object],
    ) -> list[NDArray[Any]]:
        """Return arrays over the slot; when the last of them has died, *ended* is called once with the slot's *number*.

        *ended* must be a function in C (decision S17).
        """
        end = max((leaf.offset + leaf.nbytes for leaf in leaves), default=0)
        lease = Lease(self._memory(end))
        self._lease_end = LeaseEnd(lease, ended)
        self._lease_end.number = number  # Before the arrays are anybody's.
        memory = np.asarray(lease)
        del lease
        return [
            memory[leaf.offset : leaf.offset + leaf.nbytes].view(dtype).reshape(leaf.shape)
            for leaf, dtype in zip(leaves, dtypes, strict=True)
        ]

    def _memory(self, end: int) -> NDArray[np.uint8]:
        if end > self.capacity:
            self.remap()
        # Older, shorter mappings live on while arrays are over them.
        del self._maps[:-1]
        return self._maps[-1]

    def reserve(self, nbytes: int) -> None:
        """Take *nbytes* of the disk now, where that is what the slot lies on; raises OSError where it is full."""
        if not _is_memory(self.fd):
            enlarge(self.fd, nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes that the slot has grown to, in whichever process."""
        return os.fstat(self.fd).st_size

    def close(self) -> None:
        """Give up the descriptor; leased arrays keep their mapping."""
        self._maps.clear()
        os.close(self.fd)


class Lease:
    """The consumer's hold on a slot: the base of the delivered arrays, and so of tensors made from them."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory: NDArray[np.uint8] = memory
        self.__array_interface__: dict[str, Any] = memory.__array_interface__


class LeaseEnd(weakref.ref[Lease]):
    """What the end of a lease says: the number of its slot."""

    __slots__ = ("number",)
    number: int
