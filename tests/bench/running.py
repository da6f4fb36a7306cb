"""Runs one measurement in a process of its own, for so long at most, and leaves nothing of it behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]

from tests.namespaces import NAMESPACE, why_no_namespace

ROOT = Path(__file__).resolve().parents[2]
_LAST_S = 5.0
"""For what a participant left running to end by itself, so that its shared memory is unlinked; then it is killed."""
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


NAMESPACED = ("ours-ray", "actors", "ray-data", "ray-data-rows")
"""Run where there is no network."""


@dataclass(frozen=True, slots=True)
class Run:
    """A measurement: who, what, how many batches."""

    participant: str
    workload: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one: a value, or the reason why there is none; and how many processes it left."""

    value: float | None
    reason: str = ""
    left: int = 0


def measure(run: Run, loops: int, timeout_s: float) -> Outcome:
    """Run it, and end every process of it."""
    command = [sys.executable, "-m", "tests.bench.participant", run.participant, run.workload, str(run.count)]
    if run.participant in NAMESPACED:
        if why := why_no_namespace():
            return Outcome(None, f"needs a network namespace: {why}")
        command = [*NAMESPACE, *command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [*command, str(loops)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env=os.environ | _QUIET,
            start_new_session=True,
        )
        left = 0
        try:
            in_time = _ended(process.pid, timeout_s)
            if not in_time:
                # Not SIGKILL: Python's resource tracker ignores this one, and unlinks the shared memory of the others.
                os.killpg(process.pid, signal.SIGTERM)
                _ended(process.pid, _LAST_S)
            left = _members_left(process.pid)
        finally:
            # Before the leader is reaped, so that the number of its group cannot be another's by now.
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        if not in_time:
            return Outcome(None, f"hung: nothing after {timeout_s:g} s")
        if status:
            return Outcome(None, f"failed: {_last_line(err) or f'status {status}'}", left)
        answer = json.loads(_last_line(out))
        return Outcome(answer.get("value"), answer.get("skipped", ""), left)


def _ended(pid: int, timeout_s: float) -> bool:
    """Wait for the end of a child, and leave it unreaped."""
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(fd)


def _members_left(group: int) -> int:
    """Give the rest of a process group some time to end; return how many did not."""
    members = []
    for process in psutil.process_iter():
        try:
            if process.pid != group and os.getpgid(process.pid) == group:
                members.append(process)
        except ProcessLookupError:
            continue
    return len(psutil.wait_procs(members, timeout=_LAST_S)[1])


def _last_line(file: IO[str]) -> str:
    file.seek(0)
    lines = file.read().strip().splitlines()
    return lines[-1] if lines else ""
