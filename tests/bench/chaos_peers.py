"""The scripts of tests/chaos on other loaders, beside ours: `python -m tests.bench.chaos_peers --seeds 0:100`.

Every loader gets the same sequence, number of workers and timetable of faults, and its own defaults for the rest. A
batch follows from its index alone, so that nobody is blamed for how it seeds. What processes do to themselves happens
at the same batches; what happens to them from outside, after the same number of batches was taken. Where there is no
template process, a worker is meant instead. Each script runs in a process of its own, for so long at most.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.running import _QUIET, ROOT, _ended, _last_line, _members_left
from tests.chaos.acting import Acting
from tests.chaos.consumers import Wrong, digest
from tests.chaos.faults import Injector, Keeper, children
from tests.chaos.script import Script, script_of

PATIENCE_S = 30.0
"""Without a batch: that is a hang. A batch takes some milliseconds."""
_LIMIT_S = 600.0
"""For a process, its imports included."""
SIDES = {
    "ours": "keras_mpseq `Loader`",
    "enqueuer": "Keras `OrderedEnqueuer`",
    "pydataset": "Keras `PyDataset` as `fit` reads it",
    "torch": "torch `DataLoader`",
}
RIGHT, RAISED, WRONG, HUNG, DIED = "right", "raised", "wrong", "hung", "died"
OUTCOMES = {
    RIGHT: "all batches right",
    RAISED: "an error",
    WRONG: "lost, doubled or wrong batches",
    HUNG: f"hung (no batch for {PATIENCE_S:g} s)",
    DIED: "training process died",
}
_STEPS = 9
"""After each batch; what is timed by steps in our own scripts is due at once here."""
_JOBS = 8
"""Most of what hangs does nothing."""
Passes = Iterator[Iterator[Any]]


# --- the loaders: each yields one iterator a pass -----------------------------------------------------


def ours(sequence: Acting, script: Script) -> Passes:
    """keras_mpseq.Loader."""
    from keras_mpseq import Loader

    with Loader(sequence, workers=script.options["workers"]) as loader:
        for _ in range(script.passes):
            yield iter(loader)


def enqueuer(sequence: Acting, script: Script) -> Passes:
    """What Keras has under PyDataset, by itself."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer

    of = OrderedEnqueuer(_keras(sequence, script), workers=script.options["workers"], use_multiprocessing=True)
    for _ in range(script.passes):
        of.start()
        yield itertools.islice(of.get(), script.batches)
        of.stop()


def pydataset(sequence: Acting, script: Script) -> Passes:
    """The dataset that Keras makes of a PyDataset, driven as `fit` does."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    adapter = PyDatasetAdapter(_keras(sequence, script))
    dataset = adapter.get_tf_dataset()
    for _ in range(script.passes):
        adapter.on_epoch_begin()
        yield iter(dataset)
        adapter.on_epoch_end()


def _keras(sequence: Acting, script: Script) -> Any:
    import keras

    class Wrapped(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(sequence)

        def __getitem__(self, index: int) -> Any:
            return sequence[index]

    return Wrapped(workers=script.options["workers"], use_multiprocessing=True)


def torch(sequence: Acting, script: Script) -> Passes:
    """A DataLoader over ready batches."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(sequence, batch_size=None, num_workers=script.options["workers"])  # type: ignore[arg-type]
    for _ in range(script.passes):
        yield iter(loader)


LOADERS: dict[str, Callable[[Acting, Script], Passes]] = {
    "ours": ours,
    "enqueuer": enqueuer,
    "pydataset": pydataset,
    "torch": torch,
}


# --- one script in this process -----------------------------------------------------------------------


def simplified(script: Script) -> Script:
    """Return the script with one pass at a time, and with what can happen in any loader."""
    own = [fault for fault in script.own if fault.phase in ("begin", "half", "end")]
    own = [fault._replace(what="kill") if fault.what == "template" else fault for fault in own]
    return replace(script, own=tuple(own))


def targets() -> tuple[int | None, list[int]]:
    """Return the template and the workers among the descendants of this process."""
    template, workers = None, []
    for pid in children(os.getpid()):
        command = ""
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text()
        if "main('template'" in command:
            template = pid
            workers += children(pid)
        elif "resource_tracker" not in command:
            workers.append(pid)
    return template, workers


def play(side: str, seed: int, calm: bool) -> dict[str, Any]:
    """Run a script on a loader, or *calm* without its faults; return what came of it and how many happened."""
    script = simplified(script_of(seed))
    if calm:
        script = replace(script, faults=(), own=())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    plain = Acting(script.batches, 0, (), "")
    right = [digest(plain[index]) for index in range(script.batches)]
    with tempfile.TemporaryDirectory() as folder, Keeper() as keeper:
        injector = Injector(script.faults, script.own, folder, targets, script.options["workers"], keeper)
        moved = [time.monotonic()]

        def hang() -> None:
            print(json.dumps({"outcome": HUNG, "detail": "", "faults": injector.injected().total()}), flush=True)
            shutil.rmtree(folder)
            os._exit(0)

        acting = Acting(script.batches, script.work_ms, script.own, folder)
        passes = LOADERS[side](acting, script)
        first = next(passes)  # After the imports.
        moved[0] = time.monotonic()
        keeper.watch(PATIENCE_S, lambda: time.monotonic() - moved[0], hang)
        try:
            outcome, detail = _played(itertools.chain([first], passes), script, right, injector, moved)
        except Wrong as wrong:
            outcome, detail = WRONG, str(wrong)
        except Exception as error:
            outcome, detail = RAISED, type(error).__name__
        return {"outcome": outcome, "detail": detail, "faults": injector.injected().total()}


def _played(
    passes: Passes, script: Script, right: list[bytes], injector: Injector, moved: list[float]
) -> tuple[str, str]:
    hold = script.use in ("hold", "list", "cache")
    for iterator in passes:
        held = []
        taken = 0
        _steps(injector)
        for batch in itertools.islice(iterator, script.until):
            if taken >= len(right) or digest(_plain(batch)) != right[taken]:
                raise Wrong(f"Batch {taken} is not the one of the serial run.")
            taken += 1
            held.append(batch if hold else None)
            moved[0] = time.monotonic()
            injector.taken()
            _steps(injector)
        if taken != script.until:
            raise Wrong(f"{taken} batches of {script.until} came.")
        if any(digest(_plain(batch)) != right[at] for at, batch in enumerate(held) if hold):
            raise Wrong("A batch that was held has changed.")
        del iterator
    return RIGHT, ""


def _steps(injector: Injector) -> None:
    for _ in range(_STEPS):
        injector.step("batch")


def _plain(batch: Any) -> tuple[Any, ...]:
    """Return a batch in NumPy, whatever sequence and tensors a loader makes of it."""
    return tuple(np.asarray(part) for part in batch)


def main_of_script(side: str, seed: int, calm: bool) -> None:
    """Run one and print."""
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork")  # The default of all three before Python 3.14.
    print(json.dumps(play(side, seed, calm)), flush=True)


# --- all scripts ----------------------------------------------------------------------------------------


def measured(side: str, seed: int, calm: bool) -> dict[str, Any]:
    """Run a script in a process of its own, and end every process of it."""
    # Keras without TensorFlow where none is needed: its import takes most of the time.
    backend = {"KERAS_BACKEND": "numpy"} if side == "enqueuer" else {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.chaos_peers", "--play", side, str(seed), *["--calm"] * calm],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env={**os.environ, **_QUIET, **backend},
            start_new_session=True,
        )
        left = 0
        try:
            if in_time := _ended(process.pid, _LIMIT_S):
                left = _members_left(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # Before its number can be another's.
            status = process.wait()
        if not in_time:
            sys.exit(f"Seed {seed} on {side} did not end: this harness is wrong, or the machine is too busy.")
        answer = _last_line(out)
        if not answer.startswith("{"):
            # torch raises in a handler of SIGCHLD, which may run anywhere.
            name, _, _ = _last_line(err).partition(":")
            outcome = (RAISED, name) if status == 1 else (DIED, f"status {status}")
            return {"outcome": outcome[0], "detail": outcome[1], "faults": 0, "left": left}
        return {**json.loads(answer), "left": left}


def main() -> None:
    """Run all, print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chaos_peers", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", metavar="A:B", default="0:100")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {','.join(SIDES)}")
    parser.add_argument("--jobs", type=int, default=_JOBS)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--calm", action="store_true", help="without faults, to see that all is right then")
    parser.add_argument("--play", nargs=2, metavar=("SIDE", "SEED"), help="run one script in this process")
    arguments = parser.parse_args()
    if arguments.play:
        main_of_script(arguments.play[0], int(arguments.play[1]), arguments.calm)
        return
    sides = arguments.sides.split(",")
    runs = list(itertools.product(range(*map(int, arguments.seeds.split(":"))), sides))
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with ThreadPoolExecutor(arguments.jobs) as jobs:
        for (seed, side), answer in zip(
            runs, jobs.map(lambda run: measured(run[1], run[0], arguments.calm), runs), strict=True
        ):
            found[side].append(answer)
            print(f"seed {seed}, {side}: {answer}", file=sys.stderr, flush=True)
    rows = [_row(side, found[side]) for side in sides]
    heads = ["", *OUTCOMES.values(), "left processes behind", "faults that happened"]
    command = f"Command: `{shlex.join(['python', '-m', 'tests.bench.chaos_peers', *sys.argv[1:]])}`"
    table = Table(*heads, box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    console = Console(width=160)
    console.print(table)
    details = [f"{SIDES[side]}: {_details(found[side])}" for side in sides]
    print(*details, command, sep="\n")
    if arguments.markdown:
        lines = [heads, ["---"] * len(heads), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        arguments.markdown.write_text("\n".join([text, "", *(f"* {line}" for line in details), "", command, ""]))


def _row(side: str, answers: list[dict[str, Any]]) -> list[str]:
    counts = Counter(answer["outcome"] for answer in answers)
    left = sum(answer["left"] > 0 for answer in answers)
    return [SIDES[side], *(str(counts[name]) for name in OUTCOMES), str(left), str(sum(a["faults"] for a in answers))]


def _details(answers: list[dict[str, Any]]) -> str:
    counts = Counter(answer["detail"] for answer in answers if answer["outcome"] != RIGHT and answer["detail"])
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "no errors"


if __name__ == "__main__":
    main()
