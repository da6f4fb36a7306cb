"""In straits: it works, or there is one clear error before training starts; never a hang, never an end in the middle.

Each case is a script of its own, which narrows what it has and then runs pools. Where mounts are changed it does so in
a mount namespace, for real; what no namespace can change is limited with setrlimit, or taken away from the module.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Scripts
from tests.straits import NO_MOUNTS

LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])

COMMON = """
import json, os, signal, sys
import numpy as np
from keras_mpseq import Loader, MpseqError
from tests import straits

class Sequence:
    def __init__(self, size=40_000):
        self.size = size
        self.table = np.arange(1 << 18)
    def __len__(self):
        return 10
    def __getitem__(self, index):
        assert self.table[-1] == len(self.table) - 1
        return np.full(self.size, index)

def outcome(sequence=None, **options):
    "Return how many batches came in two epochs, and the error that was the end."
    came = 0
    try:
        with Loader(sequence or Sequence(), **{"workers": 2, "launcher": launcher, **options}) as loader:
            for _ in range(2):
                for index, batch in enumerate(loader):
                    assert (batch == index).all()
                    came += 1
    except (MpseqError, MemoryError) as error:
        return came, type(error).__name__, str(error).partition("Traceback")[0]
    return came, "", ""

def tell(**options):
    print(json.dumps(outcome(**options)), flush=True)

launcher = sys.argv[1] if len(sys.argv) > 1 else None
"""
WORKS = [20, "", ""]
RAISE_LIMITS = (
    "Lower workers or prefetch, or raise the limits on processes, memory and open files (ulimit), "
    "or the room on the disk for temporary files; `keras-mpseq doctor` tells what they are."
)


def outcomes(scripts: Scripts, source: str, *arguments: object) -> list[list[Any]]:
    """Run a script; return what it told, in order."""
    script = scripts.start(COMMON + source, *arguments)
    status, out, errors = script.ended()
    if status == NO_MOUNTS:
        pytest.skip("Neither root nor user namespaces: mounts cannot be changed here.")
    assert (status, errors) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


# --- mounts -----------------------------------------------------------------------------------------

MOUNTS = {
    "/dev/shm of 64 MB": "straits.tmpfs('/dev/shm', 1 << 26)",
    "/dev/shm full": "straits.tmpfs('/dev/shm', 4096)",
    "neither /dev/shm nor /dev/fd": "os.mkdir('dev'); straits.bare_dev('dev')",
    "no /proc": "straits.tmpfs('/proc', 4096)",
    "nothing but /proc can be written": "straits.read_only('/')",
}


@LAUNCHERS
@pytest.mark.parametrize("case", MOUNTS)
def test_other_mounts(scripts: Scripts, case: str, launcher: str) -> None:
    """Ten batches of 8 MB do not fit into 64 MB; slots are no part of /dev/shm."""
    assert outcomes(
        scripts, f"straits.own_mounts(); {MOUNTS[case]}\ntell(sequence=Sequence(1 << 20), prefetch=10)", launcher
    ) == [WORKS]


def test_without_proc_workers_are_spawned(scripts: Scripts) -> None:
    """How many threads the template has cannot be told, so that forking it would be a guess."""
    source = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
straits.own_mounts(); straits.tmpfs("/proc", 4096)
outcome(launcher="template")
"""
    script = scripts.start(COMMON + source)
    status, out, _ = script.ended()
    if status == NO_MOUNTS:
        pytest.skip("Neither root nor user namespaces: mounts cannot be changed here.")
    assert out == "Workers are spawned, which takes longer than forking: there is no /proc/self/task.\n"


def test_a_home_that_cannot_be_written(scripts: Scripts) -> None:
    """With Keras, which keeps its settings there."""
    source = """
import logging
home = os.getcwd()
straits.own_mounts(); straits.read_only(home)
os.environ.update(HOME=home, KERAS_HOME=home + "/keras")
os.environ.pop("XDG_CACHE_HOME", None)
logging.getLogger("matplotlib").setLevel("ERROR")  # Keras imports it where it is, and it says where its files are.
from keras_mpseq import SafeSequence
class Safe(SafeSequence):
    __len__, __getitem__ = Sequence.__len__, Sequence.__getitem__
    size, table = 40_000, np.arange(9)
tell(sequence=Safe())
"""
    assert outcomes(scripts, source) == [WORKS]


# --- temporary files, where there is no memory without a name ---------------------------------------

NO_MEMFD = "del os.memfd_create\n"
TEMPORARY = {
    "a disk with room": ("straits.tmpfs(where, 1 << 26)", ""),
    "a full disk": (
        "straits.tmpfs(where, 1 << 21)",
        "Shared memory for the sequence cannot be had: No space left on device.",
    ),
    "a disk that batches fill": (
        "straits.tmpfs(where, 5 << 20)",
        "Shared memory cannot be had: No space left on device (index 0, epoch 0, worker N, attempt 1).",
    ),
    "a disk with room for one batch": (
        "straits.tmpfs(where, 10 << 20)",
        "Memory for 8 batches cannot be had: No space left on device.",
    ),
}


@LAUNCHERS
@pytest.mark.parametrize("case", TEMPORARY)
def test_temporary_files(scripts: Scripts, case: str, launcher: str) -> None:
    """A disk that is full must not end a process with SIGBUS, and not in the middle of an epoch."""
    mount, message = TEMPORARY[case]
    source = f"where = os.environ['TMPDIR'] = os.path.abspath('tmp'); os.mkdir(where)\nstraits.own_mounts(); {mount}\n"
    ((came, kind, told),) = outcomes(
        scripts, NO_MEMFD + source + "tell(sequence=Sequence(1 << 19))\nassert os.listdir(where) == []", launcher
    )
    if message:
        told = re.sub(r"worker \d", "worker N", told).strip()
        assert (came, kind, told) == (0, "MpseqError", f"{message} {RAISE_LIMITS}")
    else:
        assert [came, kind, told] == WORKS


def test_no_folder_for_temporary_files(scripts: Scripts) -> None:
    source = "os.environ['TMPDIR'] = '/nowhere'; straits.own_mounts(); straits.read_only('/')\n"
    assert outcomes(scripts, source + "tell()") == [WORKS]
    ((came, kind, told),) = outcomes(scripts, NO_MEMFD + source + "tell()")
    assert (came, kind) == (0, "MpseqError")
    assert re.match(r"\d+ pieces of shared memory cannot be had: No usable temporary directory found in ", told) or (
        told.startswith("Shared memory for the sequence cannot be had: No usable temporary directory found in ")
    )


@LAUNCHERS
@pytest.mark.parametrize("memory", ["memfd", "files"])
def test_a_long_tmpdir(scripts: Scripts, memory: str, launcher: str) -> None:
    """Names of Unix sockets have 107 characters at most; ours have none."""
    source = (
        "where = os.path.join(os.getcwd(), *['d' * 200] * 5); os.makedirs(where); os.environ['TMPDIR'] = where\n"
        "import tempfile\nassert tempfile.gettempdir() == where\ntell()"
    )
    assert outcomes(scripts, (NO_MEMFD if memory == "files" else "") + source, launcher) == [WORKS]


@LAUNCHERS
def test_memory_files_that_are_not_allowed(scripts: Scripts, launcher: str) -> None:
    """As a seccomp filter does: PermissionError, not a missing function."""
    source = """
import errno
def refused(*_):
    raise OSError(errno.EPERM, "")
os.memfd_create = refused
tell()
"""
    assert outcomes(scripts, source, launcher) == [WORKS]


def test_old_kernels_do_not_know_all_flags(scripts: Scripts) -> None:
    source = """
import errno
create = os.memfd_create
def old(name, flags):
    if flags & ~(os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING):
        raise OSError(errno.EINVAL, "")
    seen.append(name)
    return create(name, flags)
seen = []
os.memfd_create = old
tell()
assert seen
"""
    assert outcomes(scripts, source) == [WORKS]


# --- limits -----------------------------------------------------------------------------------------


@LAUNCHERS
@pytest.mark.parametrize("workers", [2, 4, 16])
def test_64_open_files_and_one_for_each_worker(scripts: Scripts, workers: int, launcher: str) -> None:
    source = f"straits.limit('RLIMIT_NOFILE', 64 + {workers})\ntell(workers={workers})"
    ((came, kind, told),) = outcomes(scripts, source, launcher)
    if workers <= 4:
        assert [came, kind, told] == WORKS
    else:
        assert (came, kind) == (0, "MpseqError")
        assert re.fullmatch(rf"[\w ]+: Too many open files\. {re.escape(RAISE_LIMITS)}", told)


LIMITS = {
    # One worker and two batches ahead need some 30.
    "RLIMIT_NOFILE": ("(6, 13, 20, 24, 28, 32, 46)", "workers=1, prefetch=2", "Too many open files"),
    # Bytes beyond what the script has by then. Much below, our own modules cannot be imported.
    "RLIMIT_AS": (
        "(straits.address_space() + (mb << 20) for mb in (2, 6, 10, 14, 18, 64))",
        "sequence=Sequence(1 << 17)",
        "Cannot allocate memory",
    ),
    "RLIMIT_FSIZE": ("(0, 1 << 20, 1 << 21, 1 << 24)", "sequence=Sequence(1 << 18)", "File too large"),
}


@LAUNCHERS
@pytest.mark.parametrize("name", LIMITS)
def test_whatever_the_limit_an_epoch_ends_or_does_not_begin(scripts: Scripts, name: str, launcher: str) -> None:
    values, options, reason = LIMITS[name]
    warm = "outcome(workers=1)\n"  # Modules are loaded.
    source = f"""{warm}sequence = Sequence(1)
for value in {values}:
    straits.limit("{name}", value)
    tell({options})
    straits.limit("{name}", -1) if "{name}" != "RLIMIT_NOFILE" else straits.limit("{name}", 1024)
"""
    found = outcomes(scripts, source, launcher)
    assert found[0] != WORKS
    assert found[-1] == WORKS
    for came, kind, told in found:
        if kind == "MemoryError":  # While the sequence was made: not our part.
            assert came == 0
        elif kind:
            assert (came, kind) == (0, "MpseqError")
            assert f": {reason}" in told or ": no memory is left" in told
            assert told.strip().endswith(RAISE_LIMITS)
        else:
            assert came == 20


PROCESSES = """
class Refused:
    def __init__(self, nth):
        self.left, self.fork = nth, os.fork
    def __call__(self):
        self.left -= 1
        if self.left < 0:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return self.fork()

class Few(Sequence):
    "In the template, os.fork fails from the third time on."
    def __setstate__(self, state):
        vars(self).update(state)
        if not isinstance(os.fork, Refused):
            os.fork = Refused(nth)
"""


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_no_more_processes(scripts: Scripts, nth: int) -> None:
    """RLIMIT_NPROC does not hold for root: the template's os.fork is made to fail from the nth time on."""
    ((came, kind, told),) = outcomes(scripts, f"nth = {nth}\n{PROCESSES}\ntell(sequence=Few())")
    if nth == 2:
        assert [came, kind, told] == WORKS
    else:
        assert (came, kind) == (0, "MpseqError")
        assert told.startswith("A worker process cannot be started: Resource temporarily unavailable (worker ")
        assert told.strip().endswith(RAISE_LIMITS)


# --- one worker takes too much memory ---------------------------------------------------------------

GREEDY = """
class Greedy(Sequence):
    def __init__(self, limited):
        super().__init__()
        self.limited = limited
    def on_worker_start(self, worker):
        self.limited(worker)
    def __getitem__(self, index):
        if index == 7:
            np.ones(1 << 29, np.uint8)  # 512 MB
        return super().__getitem__(index)
"""


@contextlib.contextmanager
def memory_group(nbytes: int) -> Iterator[Path]:
    """Make a group for processes that may have *nbytes* of memory together, of cgroup v1 or v2."""
    root = Path("/sys/fs/cgroup")
    group = (root / "memory" if (root / "memory").is_dir() else root) / f"keras_mpseq_{os.getpid()}"
    name = "memory.max" if (root / "cgroup.controllers").exists() else "memory.limit_in_bytes"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"There is no memory cgroup that can be written: {error}")
    try:
        try:
            (group / name).write_text(str(nbytes))
        except OSError as error:
            pytest.skip(f"The limit of a memory cgroup cannot be set: {error}")
        yield group
    finally:
        group.rmdir()


@LAUNCHERS
def test_a_memory_cgroup_that_one_worker_fills(scripts: Scripts, launcher: str) -> None:
    """The kernel kills it, twice: the error names the batch and says what SIGKILL may mean; the pool is still there."""
    with memory_group(200 << 20) as group:
        source = (
            GREEDY
            + f"""
def limited(worker):
    open("{group}/cgroup.procs", "w").write(str(os.getpid()))
with Loader(Greedy(limited), workers=2, launcher=launcher) as loader:
    for _ in range(2):
        came = []
        try:
            for batch in loader:
                came.append(int(batch[0]))
        except MpseqError as error:
            print(json.dumps([len(came), type(error).__name__, str(error)]))
"""
        )
        found = outcomes(scripts, source, launcher)
    assert len(found) == 2
    for epoch, (came, kind, told) in enumerate(found):
        assert (came, kind) == (7, "WorkerLostError")
        assert re.match(
            rf"Worker \d died \(SIGKILL\) while building batch 7, attempt 2 of 2 \(epoch {epoch}\)\. ", told
        )
        assert "The system kills processes that use too much memory" in told


@LAUNCHERS
def test_a_memory_limit_of_one_worker(scripts: Scripts, launcher: str) -> None:
    """The same where the system refuses memory instead: the user's MemoryError, with the batch."""
    source = (
        GREEDY
        + """
def limited(worker):
    straits.limit("RLIMIT_AS", straits.address_space() + (200 << 20))
tell(sequence=Greedy(limited))
"""
    )
    ((came, kind, told),) = outcomes(scripts, source, launcher)
    assert (came, kind) == (7, "UserCodeError")
    assert "MemoryError: Unable to allocate 512. MiB" in told
    assert "(index 7, epoch 0, " in told


# --- standard streams -------------------------------------------------------------------------------


@LAUNCHERS
@pytest.mark.parametrize("streams", ["closed", "full"])
def test_standard_streams_that_cannot_be_written(scripts: Scripts, streams: str, launcher: str) -> None:
    """As in a daemon, or with output to a disk that is full; the module says something when it is loaded."""
    source = """
class Loud(Sequence):
    def __setstate__(self, state):
        vars(self).update(state)
        print("loaded")
told = os.dup(1)
for fd in (0, 1, 2):
    os.close(fd)
if sys.argv[2] == "full":
    for fd in (0, 1, 2):
        os.open("/dev/full", os.O_RDWR)
found = outcome(sequence=Loud())
os.write(told, json.dumps(found).encode())
os._exit(0)
"""
    assert outcomes(scripts, source, launcher, streams) == [WORKS]
