"""`keras-mpseq doctor`, and what it and the defaults read of the machine: cores, memory, containers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_mpseq import Loader, WorkerLostError, machine
from keras_mpseq.cli import surroundings
from keras_mpseq.cli.main import main
from tests.conftest import Scripts
from tests.sequences import Counting

SECTIONS = {
    "versions": {"python", "system", "keras_mpseq", "tensorflow", "keras", "keras_backend", "numpy"},
    "workers": {"launcher", "why"},
    "cores": {"machine", "may_run_on", "quota", "workers_auto"},
    "memory": {
        "machine_bytes",
        "available_bytes",
        "container_limit_bytes",
        "killed_for_memory",
        "address_space_limit_bytes",
    },
    "shared_memory": {"memfd", "dev_shm", "dev_shm_size_bytes", "dev_shm_free_bytes"},
    "limits": {"open_files_limit", "open_files_at_most", "user_processes_limit", "container_processes_left"},
    "threads": {*surroundings._THREADS, "in_workers"},
    "temporary_files": {"TMPDIR", "folder", "free_bytes"},
    "trial": {"first_batch_s", "next_batch_s", "worked"},
}


def told(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Return the exit code and what it says to programs."""
    status = main(["doctor", "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_all_facts_are_there_and_a_worker_builds_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = told(capsys)
    problems = found.pop("problems")
    assert {section: set(facts) for section, facts in found.items()} == SECTIONS
    assert found["trial"]["worked"] is True
    assert found["versions"]["keras_mpseq"] == "0.1.0"
    assert status == bool(problems)


def test_all_of_it_is_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 110
    assert not any(line != line.rstrip() for line in lines)
    assert [line.split("  ")[0] for line in lines if line[:1].isalpha()][:9] == [
        section.replace("_", " ") for section in SECTIONS
    ]


ONE_BY_ONE: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    (
        "The container may start only 1 more processes, 2 workers need 3: raise its limit (docker run --pids-limit), "
        "or lower workers.",
        lambda patch: patch.setattr(machine, "process_limit", lambda: 1),
    ),
    (
        "The system has killed 1 process of this container because its memory was used up: give it more memory, or "
        "lower the batch size, workers or prefetch.",
        lambda patch: patch.setattr(machine, "killed_for_memory", lambda: 1),
    ),
    (
        "Only 100 MiB of memory are free: end other programs, or lower workers.",
        lambda patch: patch.setattr(surroundings, "_available", lambda: 100 << 20),
    ),
    (
        "OMP_NUM_THREADS is 'many', which is no number: unset OMP_NUM_THREADS.",
        lambda patch: patch.setenv("OMP_NUM_THREADS", "many"),
    ),
    (
        "Keras has no backend 'theano': set KERAS_BACKEND or /nowhere/keras.json to tensorflow, jax or torch.",
        lambda patch: (patch.setenv("KERAS_HOME", "/nowhere"), patch.setenv("KERAS_BACKEND", "theano"))[0],
    ),
    (
        "TMPDIR is /nowhere, which cannot be written: set it to a folder that can be, or unset it.",
        lambda patch: patch.setenv("TMPDIR", "/nowhere"),
    ),
    (
        "40 open files are not enough for 2 workers, which need about 76: raise it with ulimit -n 76.",
        lambda patch: patch.setattr(
            surroundings, "_limit", lambda name: (40, None) if name == "RLIMIT_NOFILE" else (None, None)
        ),
    ),
    (
        "The address space of a process is limited to 2.0 GiB, of which libraries reserve a lot: raise it with ulimit "
        "-v unlimited.",
        lambda patch: patch.setattr(
            surroundings, "_limit", lambda name: (2 << 30, None) if name == "RLIMIT_AS" else (None, None)
        ),
    ),
    (
        "TensorFlow is not installed: pip install tensorflow.",
        lambda patch: patch.setattr(surroundings, "_TENSORFLOWS", ("tensorflow-of-nobody",)),
    ),
    (
        "Python does not know its own executable (none): start the program with a python command, or set "
        "sys.executable.",
        lambda patch: patch.setattr(surroundings.sys, "executable", ""),
    ),
]


@pytest.mark.parametrize(
    ("sentence", "spoil"), ONE_BY_ONE, ids=lambda value: value[:24] if isinstance(value, str) else ""
)
def test_each_problem_is_a_sentence_with_its_remedy(
    sentence: str, spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_trial(facts: dict[str, Any], workers: int) -> tuple[()]:
        return ()

    monkeypatch.setattr(surroundings, "_trial", no_trial)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    spoil(monkeypatch)
    assert sentence in list(map(str, surroundings.examined().problems))


def test_a_worker_that_builds_nothing_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loader(*_: Any, **__: Any) -> Any:
        raise WorkerLostError("Worker 0 died (SIGSYS) while it started, attempt 2 of 2")

    monkeypatch.setattr(surroundings, "Loader", loader)
    status, found = told(capsys)
    assert status == 1
    assert found["trial"]["worked"] is False
    assert found["problems"][-1] == {
        "what": "A worker built no batch (WorkerLostError: Worker 0 died (SIGSYS) while it started, attempt 2 of 2)",
        "remedy": "see the whole error with --json, and the problems above",
    }


_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from keras_mpseq.cli.main import main
sys.exit(main(["doctor"]))
"""


def test_limits_of_the_system_are_found(scripts: Scripts) -> None:
    status, out, errors = scripts.start(_FEW_FILES).ended()
    assert (status, errors) == (1, "")
    assert "40 open files are not enough for" in out
    assert "lower workers." in out


# --- the machine ------------------------------------------------------------------------------------


class Groups:
    """A tree of control groups, and which of them is this process's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(machine, "_GROUPS", folder / "cgroup")
        monkeypatch.setattr(machine, "_OWN", folder / "own")

    def own(self, *lines: str) -> None:
        (self.folder / "own").write_text("".join(f"{line}\n" for line in lines))

    def write(self, path: str, text: str) -> None:
        file = self.folder / "cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    return Groups(tmp_path, monkeypatch)


def read() -> tuple[float | None, int | None, int | None, int]:
    return machine.cpu_quota(), machine.memory_limit(), machine.process_limit(), machine.killed_for_memory()


def test_without_control_groups_there_are_no_limits(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read() == (None, None, None, 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    assert machine.cores() == 7
    assert machine.memory() == machine.physical_memory() > 0


def test_limits_of_version_2_count_from_the_group_upward(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    groups.own("0::/user/box")
    groups.write("user/box/cpu.max", "max 100000")
    groups.write("user/cpu.max", "250000 100000")
    groups.write("user/box/memory.max", "max")
    groups.write("user/memory.max", "1048576")
    groups.write("memory.max", "4194304")
    groups.write("user/box/pids.max", "100")
    groups.write("user/box/pids.current", "90")
    groups.write("user/box/memory.events", "low 0\nhigh 0\noom 3\noom_kill 2")
    assert read() == (2.5, 1 << 20, 10, 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert machine.cores() == 3
    assert machine.memory() == 1 << 20


def test_limits_of_version_1_count_also_where_the_group_is_seen_as_the_root(groups: Groups) -> None:
    groups.own("4:memory:/docker/abc", "3:cpu,cpuacct:/docker/abc", "2:pids:/docker/abc", "0::/docker/abc")
    groups.write("memory/memory.limit_in_bytes", str(1 << 30))
    groups.write("memory/docker/abc/memory.limit_in_bytes", str((1 << 63) - 4096))
    groups.write("cpu,cpuacct/cpu.cfs_quota_us", "50000")
    groups.write("cpu,cpuacct/cpu.cfs_period_us", "100000")
    groups.write("pids/pids.max", "max")
    groups.write("pids/pids.current", "9")
    groups.write("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1")
    assert read() == (0.5, 1 << 30, None, 1)
    assert machine.cores() == 1
    groups.write("cpu,cpuacct/cpu.cfs_quota_us", "-1")
    assert machine.cpu_quota() is None


def test_workers_and_memory_are_by_default_what_the_container_allows(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.own("0::/")
    groups.write("cpu.max", "300000 100000")
    groups.write("memory.max", str(64 << 20))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    with Loader(Counting(3)) as loader:
        options = loader._feed.source.options
        assert (options.workers, options.max_bytes) == (3, 16 << 20)
        assert len(list(loader)) == 3
