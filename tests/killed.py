"""Training that is killed (SIGKILL) at random moments and begun again, until it ends: is its loss curve the same?

    python -m tests.killed --kills 20 --seed 1

Each life is a process of its own, forked from one that has imported Keras and run nothing. It says each step; the kill
comes a drawn number of steps later, and a drawn part of a second after that, so that it falls into steps, into the
saving of a state, into validation and into the start alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.resumed_training import Drawn, Held, made

_BATCHES, _EPOCHS = 12, 6
_LATER_S, _START_S = 0.05, 3.0
"""At the most, from what a life says to its end; and for one that has said nothing yet."""


def life(folder: Path, say: int) -> dict[str, list[float]]:
    """Train to the end, and say each step."""
    import keras

    from keras_mpseq import ResumeData

    class Says(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            os.write(say, b"s")

    model = made()
    history = model.fit(
        Drawn(_BATCHES, workers=2, seed=4),
        validation_data=Held(workers=0),
        epochs=_EPOCHS,
        verbose=0,
        callbacks=[Says(), ResumeData(folder, save_freq=2)],
    )
    return dict(history.history)


def forked(run: Callable[[int], Any]) -> tuple[int, int]:
    """Run *run* in a child, which writes what it says and then what it returns; return pid and pipe."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writes)
        return pid, reads
    status = 1
    try:
        os.close(reads)
        result = run(writes)
        os.write(writes, b"\n" + json.dumps(result).encode())
        status = 0
    finally:
        os._exit(status)


def lived(pid: int, pipe: int, steps: int | None, later_s: float) -> Any:
    """Wait for the end of a life, or end it after so many steps and seconds; return its result, None if killed."""
    said = b""
    while steps is None or b"\n" not in said:
        if steps is not None and said.count(b"s") >= steps:
            select.select([], [], [], later_s)
            break
        if not (more := os.read(pipe, 1 << 16)):
            break
        said += more
    if steps is not None:
        os.kill(pid, signal.SIGKILL)
    os.close(pipe)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
        return None
    if status or b"\n" not in said:
        raise AssertionError(f"A life ended with the status {status} and said {said!r}.")
    return json.loads(said.partition(b"\n")[2])


def main(arguments: list[str]) -> int:
    """Compare the curves, and say what was done."""
    parser = argparse.ArgumentParser(prog="python -m tests.killed")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    import keras  # noqa: F401  # Once, for all lives.

    draw = random.Random(options.seed)
    most = max(2 * _BATCHES * _EPOCHS // options.kills, 2)
    with tempfile.TemporaryDirectory() as name:
        whole = lived(*forked(lambda say: life(Path(name) / "whole", say)), None, 0)
        kills, steps_told, saved = 0, [], 0
        result = None
        while kills < options.kills and result is None:
            steps = draw.randrange(most)
            later_s = draw.random() ** 2 * (_LATER_S if steps else _START_S)
            result = lived(*forked(lambda say: life(Path(name) / "killed", say)), steps, later_s)
            kills += result is None
            steps_told.append(steps)
            saved += (Path(name) / "killed" / "resume_data.npz").exists()
        if result is None:
            result = lived(*forked(lambda say: life(Path(name) / "killed", say)), None, 0)
    same = result == whole
    print(
        f"{kills} kills after {', '.join(map(str, steps_told))} steps of a life; {saved} left a state; loss curve and "
        f"metrics of {_EPOCHS} epochs of {_BATCHES} batches: {'equal' if same else 'DIFFERENT'}"
    )
    print(f"loss {whole['loss']}\n     {result['loss']}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
