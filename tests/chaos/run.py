"""One script, from its start to the proof that nothing is left: `run(script)`."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import tensorflow as tf

from keras_mpseq import Loader, generator_dataset, process_map, to_dataset
from tests.chaos.consumers import Pass, Wrong, dataset_passes, digest, loader_passes
from tests.chaos.faults import Injector, Keeper
from tests.chaos.script import PARTITIONS, Script
from tests.chaos.sequences import Chaotic, Generated, Mapped
from tests.chaos.traced import Trace, traced
from tests.conftest import PATIENCE_S, Census

LIMIT_S = 60.0
"""Without a single event: that is a hang. A whole script takes one second, and a minute where the machine is busy."""
HUNG = 70
"""Exit status of a process whose script did not end."""
_OUR_ERROR = re.compile(r"\b(\w+Error): ")


@dataclass
class Report:
    """What came of a script."""

    seed: int
    wrong: str = ""
    """What promise was broken."""
    errors: Counter[str] = field(default_factory=Counter)
    """Passes that ended with an error that is one of the promised outcomes."""
    injected: Counter[str] = field(default_factory=Counter)
    passes: int = 0
    whole: int = 0
    """Passes iterated to their end."""
    batches: int = 0
    """Compared."""
    skipped: int = 0
    restarts: int = 0
    seconds: float = 0.0


def serial(script: Script, epochs: int) -> list[list[bytes]]:
    """Return the digests of each epoch's batches, built in this process."""
    names = ("seed", "shuffle", "partition")
    calm = replace(script, work_ms=0, own=(), options={k: v for k, v in script.options.items() if k in names})
    with pipeline(calm, "", workers=0) as batches:
        return [[digest(batch) for batch in batches] for _ in range(epochs)]


@contextlib.contextmanager
def pipeline(script: Script, folder: str, **options: Any) -> Iterator[Any]:
    """Make what the script iterates."""
    options = {**script.options, **options}
    if script.way in ("loader", "dataset"):
        sequence = Chaotic(script.kind, script.batches, script.work_ms, script.own, folder)
        if script.way == "dataset" and options["workers"]:
            yield to_dataset(sequence, **options)
        else:
            with Loader(sequence, **options) as loader:
                yield loader
    elif script.way == "map":
        mapped = Mapped(script.kind, script.work_ms, script.own, folder)
        yield process_map(tf.data.Dataset.range(script.batches), mapped, **options)
    else:
        generated = Generated(script.batches, script.kind, script.work_ms, script.own, folder)
        yield generator_dataset(generated, PARTITIONS, **options)


def run(script: Script) -> Report:
    """Run a script and return what came of it. When it does not end, tell all there is to tell and end the process."""
    began = time.perf_counter()
    report = Report(script.seed)
    before = Census.taken()
    trace = Trace()
    faulthandler.dump_traceback_later(60 * LIMIT_S, exit=True)  # For the case that no Python code runs at all.
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Keeper() as keeper:
            injector = trace.injector = Injector(
                script.faults, script.own, folder, trace.targets, script.options["workers"], keeper
            )
            keeper.watch(LIMIT_S, trace.still, lambda: _hang(script, trace, injector))
            with contextlib.ExitStack() as end, traced(trace, script.depth):
                end.callback(injector.own)  # While the folder is there.
                _consume(script, report, trace, injector, folder)
                if not trace.closed:
                    trace.engine = None
                    gc.collect()  # A dataset closes itself when it is garbage.
            report.injected = injector.injected()
            _check_restarts(script, report, injector)
    except Wrong as broken:
        report.wrong = str(broken)
    faulthandler.cancel_dump_traceback_later()
    if not report.wrong:
        report.wrong = _leftovers(before)
    if report.wrong:
        print(told(script, trace), report.wrong, sep="\n", file=sys.stderr, flush=True)
    report.seconds = time.perf_counter() - began
    return report


def _consume(script: Script, report: Report, trace: Trace, injector: Injector, folder: str) -> None:
    # Two epochs a pass for those who take two at a time, and one that may have been begun before the first pass.
    epochs = serial(script, 2 * script.passes + 1)
    free = list(range(len(epochs)))
    try:
        with pipeline(script, folder) as batches:
            for done in (dataset_passes if script.dataset else loader_passes)(script, batches):
                _check(script, report, done, epochs, free, injector)
            _check_engine(script, report, trace)
    except Wrong:
        raise
    except Exception as error:
        _check_error(script, report, error, injector)


def _check_engine(script: Script, report: Report, trace: Trace) -> None:
    if trace.engine is not None:
        stats = trace.engine.stats(0, 0, 0.0)
        report.restarts = stats.restarts
        _check_skipped(script, report, trace.failed)
        if script.options["max_bytes"] is not None and stats.bytes_slots > script.options["max_bytes"]:
            raise Wrong(f"The slots have {stats.bytes_slots} bytes, more than max_bytes.")


def _check_skipped(script: Script, report: Report, failed: int) -> None:
    """Compare what is missing in passes that came to their end with what failed and was to be skipped."""
    allowed = failed if script.options["on_error"] == "skip" else 0
    if allowed and script.dataset and script.use == "zip":
        return  # The shorter one ends both.
    if report.skipped > allowed or (report.skipped < allowed and report.whole == report.passes):
        raise Wrong(f"{report.skipped} batches are missing, and {allowed} failed and may be.")


def _check(
    script: Script, report: Report, done: Pass, epochs: list[list[bytes]], free: list[int], inj: Injector
) -> None:
    """Compare a pass with the epoch of the serial run that it was."""
    report.passes += 1
    report.batches += len(done.taken)
    if done.taken:
        number = next((number for number in free if done.taken[0] in epochs[number]), None)
        if number is None:
            raise Wrong(f"Pass {report.passes}: the first batch is of no epoch that is still to come.")
        free.remove(number)
        _compare(script, done, epochs[number], f"Pass {report.passes}, epoch {number}")
    if done.error is not None:
        _check_error(script, report, done.error, inj)
    elif done.whole:
        report.whole += 1
        report.skipped += script.batches - len(done.taken)


def _compare(script: Script, done: Pass, epoch: list[bytes], name: str) -> None:
    counts = Counter(done.taken)
    if doubled := [epoch.index(batch) for batch, count in counts.items() if count > 1 and batch in epoch]:
        raise Wrong(f"{name}: the batches at positions {doubled} came more than once.")
    if wrong := [at for at, batch in enumerate(done.taken) if batch not in epoch]:
        raise Wrong(f"{name}: the batches that came at {wrong} are none of the serial run.")
    positions = [epoch.index(batch) for batch in done.taken]
    if not script.options["ordered"] or done.any_order:
        return
    if positions != sorted(positions):
        raise Wrong(f"{name}: batches came in the order {positions}.")
    if script.options["on_error"] == "raise" and positions != list(range(len(positions))):
        raise Wrong(f"{name}: a batch was left out: {positions}.")


def _check_error(script: Script, report: Report, error: Exception, injector: Injector) -> None:
    """Take an error for an outcome that was promised, if faults that happened explain it."""
    names = _OUR_ERROR.findall(f"{type(error).__name__}: {error}")
    if cause := error.__cause__:
        names.append(type(cause).__name__)
    deaths = injector.most_deaths()
    starved = injector.done["starve"] > 0
    attempts = script.options["attempts"]
    # Before the first batch nothing is tried again: a sequence that cannot be loaded is told at once.
    templates = injector.done["kill template"] + injector.own()["own template"]
    if "template process" in str(error) and (templates >= attempts or injector.own(("unpickle",))):
        report.errors["WorkerLostError of the template"] += 1
    elif "WorkerTimeoutError" in names and script.options["timeout"] is not None:
        report.errors["WorkerTimeoutError"] += 1
    elif "WorkerLostError" in names and (deaths >= attempts or starved or script.options["timeout"] is not None):
        report.errors["WorkerLostError"] += 1
    elif starved and re.search("MemoryError|cannot be had", f"{error!r} {error}"):
        report.errors["MemoryError"] += 1
    else:
        raise Wrong(f"An error that no fault explains: {type(error).__name__}: {error}") from error


def _check_restarts(script: Script, report: Report, injector: Injector) -> None:
    """No worker died of itself."""
    most = injector.most_deaths()
    if script.options["timeout"] is None and not injector.done["starve"] and report.restarts > most:
        raise Wrong(f"{report.restarts} workers were lost, and {most} were killed.")


def _leftovers(before: Census) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while leaks := (left := Census.taken()).beyond(before):
        if time.monotonic() > deadline:
            for process in left.processes - before.processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return "Left behind:\n" + "\n".join(leaks)
        gc.collect()
        psutil.wait_procs(left.processes - before.processes, 0.02)
    return ""


def told(script: Script, trace: Trace) -> str:
    """Return what is known of a script that failed."""
    injector = trace.injector
    return "\n".join(
        [
            f"--- seed {script.seed} ---",
            str(script),
            "--- faults ---",
            *(injector.log if injector else []),
            *(f"{name}: {count}" for name, count in (injector.own() if injector else Counter()).items()),
            "--- the scheduler's last events ---",
            *trace.lines(),
        ]
    )


def _hang(script: Script, trace: Trace, injector: Injector) -> None:
    print(
        f"Seed {script.seed} hangs: nothing happens for {LIMIT_S:g} s.", told(script, trace), sep="\n", file=sys.stderr
    )
    print("--- stacks ---", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    print(*trace.stacks(), sep="\n", file=sys.stderr, flush=True)
    os._exit(HUNG)
