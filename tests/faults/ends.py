"""What happens to the training process and to the processes around it. Each function runs in a child of the nursery."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import tempfile
from pathlib import Path
from random import Random

import keras

from keras_mpseq import crew
from tests.faults.entries import ENTRIES, Entry, OfFit, Setting, Told
from tests.faults.matrix import ENDED, FAULTS, HOOKS, LAUNCHERS, PIPE, RAISED, START_S, Cell, starts_limited
from tests.faults.nursery import End, Nursery
from tests.faulty import ACTS, AT, BATCHES, Around, Faulty, go_right, go_wrong

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "Ctrl-C": signal.SIGINT}
SEEDS = range(2)
WHOLE = [*range(BATCHES)]
OPEN = "interpreter exit with an open iterator"
HOOK_FAULTS = tuple(fault for fault in FAULTS if fault not in RAISED and fault not in PIPE)
_WITH_TEMPLATE = tuple(act for act in ACTS if act.startswith("template"))


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


# --- in a child -------------------------------------------------------------------------------------


def act(entry: str, launcher: str, name: str) -> None:
    """Let something happen to the processes around a pool, and say what came of it."""
    marker = Path(tempfile.mkdtemp()) / "marker"
    crew._PATIENCE_S = 1.0
    waits = name == "template stopped while it starts a worker"
    with_fault = ENTRIES[entry](Around(name, marker), Setting(launcher, START_S if waits else None, attempts=2))
    with starts_limited(template=False) if waits else contextlib.nullcontext():
        _act(with_fault, marker)
    with_fault.close()


def _act(with_fault: Entry, marker: Path) -> None:
    with_fault.open()
    try:
        came = "both epochs work" if with_fault.epoch(lambda: None) == with_fault.first == WHOLE else "wrong batches"
    except Exception as error:
        came = str(Told.of(error))
        go_right(marker)
        works = with_fault.epoch() == WHOLE
        came += f"; {with_fault.again}" if works else "; the next epoch is wrong"
    say(came)


def hook(entry: str, launcher: str, phase: str, fault: str) -> None:
    """Let an epoch hook end or stop the training process."""
    marker = Path(tempfile.mkdtemp()) / "marker"
    here = ENTRIES[entry](Faulty(marker), Setting(launcher))
    here.open()

    def before() -> None:
        go_wrong(marker, phase, fault)
        say("on")

    if here.epoch(before) == WHOLE:
        say("both epochs work")
    here.close()


def forever(entry: str, launcher: str) -> None:
    """Iterate until somebody ends it."""
    here = ENTRIES[entry](Faulty(Path("nowhere")), Setting(launcher))
    here.open()
    for _ in itertools.count():
        assert here.epoch() == WHOLE


def leave(entry: str, launcher: str) -> None:
    """Leave in the middle of an epoch, and return: the interpreter ends with all that is open."""
    here = ENTRIES[entry](Faulty(Path("nowhere")), Setting(launcher))
    here.open()
    if isinstance(here, OfFit):

        class Leaves(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: object = None) -> None:
                if batch == AT:
                    say("left")
                    sys.exit()

        with here._set():
            here.model.fit(here.sequence, verbose=0, callbacks=[Leaves()])
    global left
    left = iter(here.loader if entry == "Loader" else here.dataset)
    next(left)
    say("left")


left: object = None
"""The open iterator."""


# --- outside ----------------------------------------------------------------------------------------


def rows() -> dict[str, list[tuple[str, str]]]:
    """Return the rows of what happens around the pool: for each the cells (entry, launcher) in which it is played."""
    cells = [*itertools.product(ENTRIES, LAUNCHERS)]
    with_template = [cell for cell in cells if cell[1] == "template"]
    around = {name: with_template if name in _WITH_TEMPLATE else cells for name in ACTS}
    return around | dict.fromkeys([f"{name} at a random moment" for name in SIGNALS], cells) | {OPEN: cells}


def played(nursery: Nursery, row: str, entry: str, launcher: str) -> str:
    """Play a row in one cell and return what came of it."""
    if row in ACTS:
        return _quiet(nursery.run("act", entry, launcher, row)).said.rstrip("\n")
    if row == OPEN:
        assert _quiet(nursery.run("leave", entry, launcher)).said == "left\n"
        return "exit status 0; all workers end"
    name = row.partition(" ")[0]
    for seed in SEEDS:
        _signalled(nursery, name, entry, launcher, seed)
    how = "`KeyboardInterrupt`" if name == "Ctrl-C" else "the process ends"
    return f"{how}; all workers end"


def _quiet(end: End) -> End:
    assert (end.status, end.errors, end.left) == (0, "", []), end
    return end


def _signalled(nursery: Nursery, name: str, entry: str, launcher: str, seed: int) -> None:
    number = SIGNALS[name]
    moment = Random(f"{name} {entry} {launcher} {seed}").uniform(0.0, 1.0)
    child = nursery.bear("forever", entry, launcher)
    assert (early := child.ended(moment)) is None, early
    if name != "Ctrl-C":
        os.kill(child.pid, number)
        end = child.ended(120.0)
        assert end is not None, f"{name} after {moment:.3f} s does not end it"
        assert (end.status, end.left) == (-number, []), end
        return
    # A terminal sends it to all. TensorFlow swallows one that comes in its Executor.__del__: a user presses again.
    for _ in range(10):
        os.killpg(child.pid, number)
        if end := child.ended(10.0):
            break
    assert end is not None, f"Ctrl-C after {moment:.3f} s does not end it"
    assert end.status in (-number, 1, 130) and end.left == [], end
    assert end.errors.rstrip().splitlines()[-1] == "KeyboardInterrupt", end.errors
    assert "keras_mpseq/process.py" not in end.errors, end.errors  # Workers say nothing of it.


def hook_cells() -> list[Cell]:
    """Return the cells of epoch hooks that do not just raise."""
    return [
        Cell(entry, launcher, phase, fault)
        for phase in HOOKS
        for fault in HOOK_FAULTS
        for entry, launcher in itertools.product(ENTRIES, LAUNCHERS)
    ]


def hooked(nursery: Nursery, cell: Cell) -> str:
    """Play a cell of hook_cells() and return what came of it."""
    child = nursery.bear("hook", *cell)
    if cell.fault == "hang":
        assert child.said("on"), cell
        os.kill(child.pid, signal.SIGTERM)
    end = child.ended(120.0)
    assert end is not None and not end.left, (cell, end)
    if cell.fault == "SIGSTOP":  # The nursery continues it.
        assert (end.status, end.said) == (0, "on\nboth epochs work\n"), (cell, end)
        return "waits for SIGCONT; then both epochs work"
    wanted = {"SIGKILL": -9, "SIGSEGV": -11, "C stack overflow": -11, "hang": -15}.get(cell.fault, 0)
    assert (end.status, end.said) == (wanted, "on\n"), (cell, end)
    if cell.fault == "hang":
        return "waits in the hook; SIGTERM ends it and all workers"
    assert cell.fault in ENDED
    return "the process ends; all workers end"
