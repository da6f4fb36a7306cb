"""What `keras-mpseq doctor` finds out: the facts about this machine, what would go wrong on it, and a trial."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_mpseq import __version__, machine
from keras_mpseq.errors import MpseqError
from keras_mpseq.loader import Loader
from keras_mpseq.options import default_launcher

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly")
_BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_TRIAL_S = 60.0
_FILES_A_WORKER = 3 + 3
"""A channel, a stack and a process descriptor; a slot for each batch that it builds or is ahead."""
_FILES_BESIDES = 64
"""Of Python, TensorFlow and the user."""
_PROCESSES_BESIDES = 1
"""The template."""
_LITTLE_ADDRESS_SPACE = 16 << 30
"""TensorFlow alone reserves several GiB."""
_LITTLE_MEMORY = 512 << 20


class Problem(NamedTuple):
    """Something that would go wrong."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}."


@dataclass(slots=True)
class Report:
    """Facts by section and name, and the problems."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def as_json(self) -> str:
        """Return everything as JSON."""
        problems = [problem._asdict() for problem in self.problems]
        return json.dumps({**self.facts, "problems": problems}, indent=2) + "\n"


def examined() -> Report:
    """Look at everything, and start a worker."""
    report = Report()
    workers = machine.cores()
    for name, look in (
        ("versions", _versions),
        ("workers", _launcher),
        ("cores", _cores),
        ("memory", _memory),
        ("shared_memory", _shared_memory),
        ("limits", _limits),
        ("threads", _threads),
        ("temporary_files", _temporary_files),
        ("trial", _trial),
    ):
        facts = report.facts[name] = {}
        report.problems += look(facts, workers)
    return report


def _versions(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    facts["python"] = f"{platform.python_version()} ({platform.python_implementation()})"
    facts["system"] = f"{platform.system()} {platform.release()} ({platform.machine()})"
    facts["keras_mpseq"] = __version__
    facts["tensorflow"] = next(filter(None, map(_version, _TENSORFLOWS)), None)
    facts["keras"] = _version("keras")
    facts["keras_backend"] = backend = _backend()
    facts["numpy"] = np.__version__
    for package, name in (("keras", "Keras"), ("tensorflow", "TensorFlow")):
        if facts[package] is None:
            yield Problem(f"{name} is not installed", f"pip install {package}")
    if backend not in _BACKENDS:
        yield Problem(
            f"Keras has no backend {backend!r}", f"set KERAS_BACKEND or {_settings()} to tensorflow, jax or torch"
        )


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _settings() -> Path:
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path("~").expanduser() / ".keras") / "keras.json"


def _backend() -> str:
    """Return what Keras would take, without the seconds that importing it takes."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads(_settings().read_text(encoding="utf-8")).get("backend", "tensorflow"))
    return "tensorflow"


def _launcher(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    if os.name != "posix":
        facts["launcher"], facts["why"] = None, f"there are no worker processes on {platform.system()}"
        yield Problem(f"Worker processes need Linux or macOS, this is {platform.system()}", "use workers=0, or WSL")
        return
    facts["launcher"] = default_launcher()
    if facts["launcher"] == "template":
        facts["why"] = "Linux with pidfd_open: workers are forked from a clean process"
    elif sys.platform == "linux":
        facts["why"] = "Linux before 5.3, or Python without pidfd_open: each worker starts on its own"
    else:
        facts["why"] = f"{platform.system()}: each worker starts on its own"
    if not sys.executable or not os.access(sys.executable, os.X_OK):
        yield Problem(
            f"Python does not know its own executable ({sys.executable or 'none'})",
            "start the program with a python command, or set sys.executable",
        )


def _cores(facts: dict[str, Any], workers: int) -> Iterator[Problem]:
    facts["machine"] = os.cpu_count()
    facts["may_run_on"] = machine.affinity()
    facts["quota"] = machine.cpu_quota()
    facts["workers_auto"] = workers
    yield from ()


def _memory(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    facts["machine_bytes"] = machine.physical_memory()
    facts["available_bytes"] = available = _available()
    facts["container_limit_bytes"] = machine.memory_limit()
    facts["killed_for_memory"] = killed = machine.killed_for_memory()
    facts["address_space_limit_bytes"] = space = _limit("RLIMIT_AS")[0]
    if killed:
        yield Problem(
            f"The system has killed {killed} process{'' if killed == 1 else 'es'} of this container because its memory "
            "was used up",
            "give it more memory, or lower the batch size, workers or prefetch",
        )
    if available is not None and available < _LITTLE_MEMORY:
        yield Problem(f"Only {told_bytes(available)} of memory are free", "end other programs, or lower workers")
    if space is not None and space < _LITTLE_ADDRESS_SPACE:
        yield Problem(
            f"The address space of a process is limited to {told_bytes(space)}, of which libraries reserve a lot",
            "raise it with ulimit -v unlimited",
        )
    if machine.told(Path("/proc/sys/vm/overcommit_memory")) == "2":
        yield Problem(
            "The system reserves memory for all that is asked for (vm.overcommit_memory=2), and workers ask for more",
            "set it to 0 with sysctl, or lower max_bytes and workers",
        )


def _available() -> int | None:
    for line in machine.told(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _shared_memory(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    facts["memfd"] = False
    if hasattr(os, "memfd_create"):
        try:
            os.close(os.memfd_create("keras_mpseq"))
            facts["memfd"] = True
        except OSError as error:
            yield Problem(
                f"Memory without a name cannot be had: memfd_create failed ({error.strerror})",
                "allow the system call memfd_create, such as in the container's seccomp profile",
            )
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        facts["dev_shm"] = "not there, and not needed"
    else:
        facts["dev_shm"] = "there, and not needed"
        facts["dev_shm_size_bytes"], facts["dev_shm_free_bytes"] = usage.total, usage.free


def _limits(facts: dict[str, Any], workers: int) -> Iterator[Problem]:
    files, most = _limit("RLIMIT_NOFILE")
    processes, _ = _limit("RLIMIT_NPROC")
    facts["open_files_limit"], facts["open_files_at_most"] = files, most
    facts["user_processes_limit"] = processes
    facts["container_processes_left"] = left = machine.process_limit()
    needed = workers * _FILES_A_WORKER + _FILES_BESIDES
    if files is not None and files < needed:
        raised = f"raise it with ulimit -n {needed}" if most is None or most >= needed else "lower workers"
        yield Problem(f"{files} open files are not enough for {workers} workers, which need about {needed}", raised)
    needed = workers + _PROCESSES_BESIDES
    if left is not None and left < needed:
        yield Problem(
            f"The container may start only {left} more processes, {workers} workers need {needed}",
            "raise its limit (docker run --pids-limit), or lower workers",
        )
    running = _tasks_of_user()
    if processes is not None and os.getuid() != 0 and processes - running < needed:
        yield Problem(
            f"You may have {processes} processes and threads and have {running}, {workers} workers need {needed}",
            "raise the limit with ulimit -u, or lower workers",
        )


def _limit(name: str) -> tuple[int | None, int | None]:
    """Return the soft and the hard limit; None for none."""
    try:
        import resource

        soft, hard = resource.getrlimit(getattr(resource, name))
    except (ImportError, AttributeError):  # Windows; a limit that this system does not have.
        return None, None
    return tuple(None if value == resource.RLIM_INFINITY else value for value in (soft, hard))  # type: ignore[return-value]


def _tasks_of_user() -> int:
    """Return how many threads the user's processes have, as far as /proc tells."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It has ended.
            if folder.stat().st_uid == os.getuid():
                count += len(list((folder / "task").iterdir()))
    return count


def _threads(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    for name in _THREADS:
        facts[name] = value = os.environ.get(name)
        if value is not None and not value.strip().replace(",", "").isdigit():
            yield Problem(f"{name} is {value!r}, which is no number", f"unset {name}")
    facts["in_workers"] = "1, unless worker_threads says otherwise"


def _temporary_files(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    facts["TMPDIR"] = told = os.environ.get("TMPDIR")
    try:
        facts["folder"] = folder = tempfile.gettempdir()
        facts["free_bytes"] = shutil.disk_usage(folder).free
    except OSError as error:
        facts["folder"] = None
        yield Problem(
            f"No folder for temporary files can be written ({error.strerror or error})", "set TMPDIR to one that can be"
        )
        return
    if told and not os.access(told, os.W_OK | os.X_OK):
        yield Problem(f"TMPDIR is {told}, which cannot be written", "set it to a folder that can be, or unset it")


def _trial(facts: dict[str, Any], _: int) -> Iterator[Problem]:
    """Start a pool of one worker, and build a batch."""
    if os.name != "posix":
        return
    began = time.perf_counter()
    try:
        with Loader([np.arange(6.0)], workers=1, timeout=_TRIAL_S, slow_warning_s=None) as loader:
            (batch,) = loader
            facts["first_batch_s"] = round(time.perf_counter() - began, 4)
            began = time.perf_counter()
            (batch,) = loader
            facts["next_batch_s"] = round(time.perf_counter() - began, 6)
        facts["worked"] = bool((batch == np.arange(6.0)).all())
    except (MpseqError, OSError) as error:
        facts["worked"], facts["error"] = False, str(error)
        first = str(error).splitlines()[0].rstrip(".")
        yield Problem(
            f"A worker built no batch ({type(error).__name__}: {first})",
            "see the whole error with --json, and the problems above",
        )


def told_bytes(count: int) -> str:
    """Return a number of bytes as one reads it, such as "3.5 GiB"."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
