"""`python -m tests.chaos`: run the scripts of many seeds, some processes at a time, and say what came of them.

    python -m tests.chaos --minutes 30       from seed 0 on, until the time is over
    python -m tests.chaos --seeds 0:1000     these
    python -m tests.chaos --seed 17          one, with its script

Ends with status 1 when a promise was broken or a script hung; what is known of it is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chaos.script import script_of

_ROOT = Path(__file__).resolve().parents[2]
_JOBS_PER_CORE = 2
"""Scripts wait as often as they work."""
_LATEST = 1200
"""Lines of a failure that are printed."""


class Totals:
    """What came of all scripts so far. Shared by the threads that drive the runners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.failures: list[int] = []

    def add(self, report: dict[str, Any], told: str) -> None:
        """Take in a report; print what was told of a failure."""
        with self._lock:
            self.counts["scripts"] += 1
            for name in ("passes", "whole", "batches", "skipped", "restarts"):
                self.counts[name] += report.get(name, 0)
            self.injected.update(report.get("injected", {}))
            self.errors.update(report.get("errors", {}))
            if report["wrong"]:
                self.failures.append(report["seed"])
                print(*told.splitlines()[-_LATEST:], f"Seed {report['seed']}: {report['wrong']}", sep="\n", flush=True)
            elif self.counts["scripts"] % 100 == 0:
                print(f"{self.counts['scripts']} scripts, {self.injected.total()} faults", flush=True)

    def lines(self) -> Iterator[str]:
        """Yield what there is to say at the end."""
        counts = self.counts
        yield f"{counts['scripts']} scripts, {self.injected.total()} faults, {len(self.failures)} broken promises."
        yield f"Faults: {_listed(self.injected)}."
        yield (
            f"{counts['batches']} batches compared in {counts['passes']} passes, {counts['whole']} of them to the end; "
            f"{counts['restarts']} workers replaced."
        )
        yield f"Passes that ended with a promised error: {_listed(self.errors)}; batches skipped: {counts['skipped']}."
        if self.failures:
            yield f"Seeds that failed: {', '.join(map(str, sorted(self.failures)))}."


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


class Runner:
    """A process that runs scripts, and the thread that drives it."""

    def __init__(self, seeds: Iterator[int], totals: Totals) -> None:
        self._seeds = seeds
        self._totals = totals
        self.thread = threading.Thread(target=self._drive)

    def _drive(self) -> None:
        for first in self._seeds:
            self._run(first)

    def _run(self, first: int) -> None:
        """Run a process from one seed to the end, or to its death."""
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.runner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=_ROOT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            )
            assert process.stdin is not None and process.stdout is not None
            with process:
                for seed in itertools.chain([first], self._seeds):
                    errors.truncate(0)
                    process.stdin.write(f"{seed}\n")
                    process.stdin.flush()
                    answer = process.stdout.readline()  # The process ends itself when a script hangs.
                    report = json.loads(answer) if answer else {"seed": seed, "wrong": "The process that ran it ended."}
                    errors.seek(0)
                    self._totals.add(report, errors.read())
                    if not answer:
                        return


def seeds_of(arguments: argparse.Namespace) -> Iterator[int]:
    """Return the seeds, which threads may take from at the same time."""
    if arguments.seed is not None:
        found: Iterator[int] = iter([arguments.seed] * arguments.times)
    elif arguments.seeds is not None:
        found = iter(range(*map(int, arguments.seeds.split(":"))))
    else:
        end = time.monotonic() + 60 * arguments.minutes
        found = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())
    return _Shared(found)


class _Shared(Iterator[int]):
    def __init__(self, of: Iterator[int]) -> None:
        self._of = of
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            return next(self._of)


def main() -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults while epochs run.")
    parser.add_argument("--minutes", type=float, default=30, help="run seeds from 0 on for so long")
    parser.add_argument("--seeds", metavar="A:B", help="run these instead")
    parser.add_argument("--seed", type=int, help="run this one instead, and show its script")
    parser.add_argument("--times", type=int, default=1, help="how often to run it")
    parser.add_argument("--jobs", type=int, default=_JOBS_PER_CORE * len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(script_of(arguments.seed))
    began = time.monotonic()
    totals = Totals()
    seeds = seeds_of(arguments)
    runners = [Runner(seeds, totals) for _ in range(1 if arguments.seed is not None else arguments.jobs)]
    for runner in runners:
        runner.thread.start()
    for runner in runners:
        runner.thread.join()
    print(*totals.lines(), sep="\n")
    print(f"{time.monotonic() - began:.0f} s: {shlex.join(['python', '-m', 'tests.chaos', *sys.argv[1:]])}")
    return 1 if totals.failures else 0


if __name__ == "__main__":
    sys.exit(main())
