"""The scenarios of tests/scenarios on stock Keras, beside ours: `python -m tests.bench --only stock`.

The classes are the same, once over `keras.utils.PyDataset` and once over `SafeSequence`. Each runs in a process of its
own, for so long at most. No part of a usual run, because of what hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.bench.running import _QUIET, ROOT, _ended, _last_line, _members_left

TIMEOUT_S = 30.0
"""Some five times what any scenario takes that ends."""
SIDES = {"keras": "stock Keras", "ours": "keras_mpseq"}
ERROR = "an error"
_WIDTH = 90
"""Characters of what a cell quotes."""
_PLACE = re.compile(r"\{\{function_node .*?\}\}\s*")
_CAUSE = re.compile(r"^(?:\w+\.)*(\w+: \S.*)$", re.MULTILINE)
"""A line of a traceback that names an exception."""
_TOO_EXACT = re.compile(r"\.0\b|(?<=\.\d{2})\d+")
_PROGRAM = """
import numpy as np, os, signal, sys
import keras
from tests.bench import stock
{imports}
class Mine(Base):
    def __init__(self):
        super().__init__(workers=2, use_multiprocessing=True)
        self.scale = {scale}
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return np.zeros((8, 4)), np.full((8, 1), index)
    def __setstate__(self, state):
        {setstate}
class Ends(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        {end}
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
{guard}stock.tell(lambda: model.fit(Mine(), verbose=0, callbacks=[Ends()]) and "trained", {right!r}, __name__)
"""
_FORK = {
    "keras": "from keras.utils import PyDataset as Base",
    "ours": "from keras_mpseq import SafeSequence as Base",
}
_SPAWN = {
    "keras": "import multiprocessing; multiprocessing.set_start_method('spawn', force=True)",
    "ours": "from keras_mpseq import options; options.default_launcher = lambda: 'spawn'",
}


class Program(NamedTuple):
    """A script of its own, for what depends on how the process began or ends."""

    spawn: bool = True
    stdin: bool = False
    guarded: bool = True
    scale: str = "1"
    setstate: str = "self.__dict__.update(state)"
    end: str = "pass"

    def text(self, side: str, right: object) -> str:
        """Return it for one of the sides."""
        return _PROGRAM.format(
            right=right,
            imports="; ".join([_FORK[side], *([_SPAWN[side]] if self.spawn else [])]),
            guard="if __name__ == '__main__': " if self.guarded else "",
            **{name: getattr(self, name) for name in ("scale", "setstate", "end")},
        )


class Scenario(NamedTuple):
    """A row: what is done, and what is right, or that an error is."""

    row: str
    what: str
    run: Callable[[], object] | Program
    right: object


def scenarios(side: str) -> list[Scenario]:
    """Return all, in the order of the table, over the base that `keras_mpseq.SafeSequence` is now."""
    import keras
    import psutil

    from tests.scenarios import sequences as s
    from tests.scenarios.training import Peeks, RaisesTheLevel, Raising, Recorder, Stops, calls, fit, labels

    log = Path("log").absolute()
    pipe = Path("pipe").absolute()

    def made(make: Callable[[int], Any], features: Callable[[Any], Any] = lambda x: x, **kwargs: Any) -> Any:
        return fit(s.Made(make), Recorder(features), **kwargs)

    def shapes(batches: list[Any]) -> Any:
        return keras.tree.map_structure(lambda leaf: getattr(leaf, "shape", leaf), batches[0])

    def ends(sequence: Any) -> int:
        return sum(hook.startswith("end") for hook in sequence.hooks)

    def validated(training: Any, validation: Any, **kwargs: Any) -> Any:
        model = Recorder()
        fit(training, model, epochs=3, validation_data=validation, **kwargs)
        return [*model.seen.labels, *labels(model.seen.tested)]

    def under_lock() -> Any:
        with s.LOCK:
            return fit(s.TakesTheLock()).labels

    def gpus() -> Any:
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        return fit(s.Environment({"CUDA_VISIBLE_DEVICES": ""})).labels

    def forks() -> int:
        seen: list[int] = []
        os.register_at_fork(before=lambda: seen.append(1))
        fit(s.Batches(), epochs=2, validation_data=s.Batches())
        return len(seen)

    def waits(use: Callable[[Any], Any]) -> Any:
        os.mkfifo(pipe)
        return use(s.WaitsForALaterBatch(pipe))

    def stopped() -> Any:
        sequence, model = s.Batches(), Recorder()
        fit(sequence, model, epochs=2, callbacks=[Stops()])
        return fit(sequence, model, epochs=2).labels

    def left_over() -> int:
        with contextlib.suppress(RuntimeError):
            fit(s.Batches(100), callbacks=[Raising()])
        return sum(process.name() != "resource_tracker" for process in psutil.Process().children(recursive=True))

    def level() -> Any:
        sequence = s.Levels()
        watched = Recorder(lambda x: x[:, :4])
        return fit(sequence, watched, epochs=3, callbacks=[RaisesTheLevel(sequence, sync=False)]).labels

    def seeded() -> Any:
        keras.utils.set_random_seed(7)
        return fit(s.Augmented(workers=3), epochs=2).labels

    def predicted() -> bool:
        model = Recorder()
        expected = np.concatenate([model.predict_on_batch(s.rows(index)) for index in range(10)])
        return bool(np.allclose(waits(lambda sequence: model.predict(sequence, verbose=0)), expected))

    def hooked() -> Any:
        whole, parts, validation = s.Hooked(), s.Hooked(), s.Hooked()
        fit(whole, epochs=2, validation_data=validation)
        fit(parts, epochs=2, steps_per_epoch=2)
        return [ends(whole), ends(parts), ends(validation)]

    def built(**kwargs: Any) -> list[int]:
        fit(s.Batches(10, log=log), epochs=2, **kwargs)
        return [len(calls(log)), sum(pid == os.getpid() for _, pid in calls(log))]

    def images() -> Any:
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        import keras_mpseq

        array = np.arange(24, dtype=np.float32).reshape(24, 1, 1, 1) * np.ones((1, 2, 2, 1), np.float32)
        flow = ImageDataGenerator().flow(array, np.arange(24, dtype=np.float32)[:, None], batch_size=4, seed=1)
        model = Recorder(lambda x: keras.ops.reshape(x, (-1, 4)))
        if side == "keras":
            flow.workers, flow.use_multiprocessing = 2, True
            model.fit(flow, epochs=2, verbose=0)
        else:
            keras_mpseq.fit(model, flow, workers=2, epochs=2, verbose=0)
        drawn = [int(y) for _, column in model.seen.trained for y in column[:, 0]]
        return [len(set(drawn[:24])), len(set(drawn[24:]))]

    def peeked() -> Any:
        sequence, model = s.Batches(), Recorder()
        fit(sequence, model, epochs=2, callbacks=[Peeks(sequence)])
        return [len(model.seen.trained), len(model.seen.tested)]

    def ragged(index: int) -> Any:
        import tensorflow as tf

        lengths = [1] * 7 + [1 + index % 4]
        return tf.RaggedTensor.from_row_lengths(np.arange(sum(lengths), dtype=np.float32), lengths), s.column(index)

    def sparse(index: int) -> Any:
        from scipy.sparse import csr_matrix

        return csr_matrix(np.eye(8, 4, dtype=np.float32)), s.column(index)

    def densified(x: Any) -> Any:
        import tensorflow as tf

        return tf.sparse.to_dense(x)

    def of_ops(index: int) -> Any:
        return keras.ops.zeros((8, 4)), keras.ops.full((8, 1), float(index))

    def of_torch(index: int) -> Any:
        import torch

        return torch.zeros((8, 4), requires_grad=True), torch.full((8, 1), float(index))

    def weighted() -> Any:
        return made(lambda i: (s.rows(i), s.column(i), s.column(1)), class_weight={0: 1.0}).labels

    six = [*range(6)]
    return [
        Scenario("killed, A5", "a worker is killed once", lambda: fit(s.Killed(Path("once").absolute())).labels, six),
        Scenario("sysexit, A5", "sys.exit() in __getitem__", lambda: fit(s.Exits("sys.exit")).labels, ERROR),
        Scenario("sysexit, A5", "os._exit() in __getitem__", lambda: fit(s.Exits("os._exit")).labels, ERROR),
        Scenario("sysexit, A5", "a crash in __getitem__", lambda: fit(s.Exits("crash")).labels, ERROR),
        Scenario(
            "badexc, A8",
            "an exception that does not unpickle",
            lambda: fit(s.Raises(lambda: s.NeedsTwoError("no label", "a.csv"))).labels,
            ERROR,
        ),
        Scenario(
            "none, A9", "None for a batch", lambda: made(lambda i: None if i == 2 else (s.rows(i), s.column(i))), ERROR
        ),
        Scenario(
            "rand, C1",
            "different values of np.random, 8 batches, 4 workers",
            lambda: len(set(fit(s.Augmented(batches=8, workers=4)).labels)),
            8,
        ),
        Scenario("rand2, C2", "the same in 3 epochs of 6", lambda: len(set(fit(s.Augmented(), epochs=3).labels)), 18),
        Scenario(
            "inttofloat, C18",
            "y is int in two batches, then 0.7",
            lambda: made(lambda i: (s.rows(i), np.zeros((8, 1), int) if i < 2 else s.column(0.7))).labels,
            ERROR,
        ),
        Scenario(
            "varshape, D1",
            "another width in the third batch",
            lambda: made(lambda i: (s.rows(i, 4 if i < 2 else 6), s.column(i)), lambda x: x[:, :4]).labels,
            ERROR,
        ),
        Scenario("lazy", "batches from a file of their own process", lambda: sum(fit(s.Lazy()).labels), 6),
        Scenario(
            "fitsteps3, C6",
            "200 batches, steps_per_epoch=20, 10 epochs: trained on",
            lambda: len(set(fit(s.Batches(200), steps_per_epoch=20, epochs=10).labels)),
            200,
        ),
        Scenario("level, C10", "a callback changes the sequence", level, [0] * 6 + [1] * 6 + [2] * 6),
        Scenario("leftover", "a callback raises: processes left", left_over, 0),
        Scenario("stdin_cls, A12", "a class of a notebook or stdin, spawn", Program(stdin=True), "trained"),
        Scenario("plain", "ValueError in __getitem__", lambda: fit(s.Raises(lambda: ValueError("no label"))), ERROR),
        Scenario("spawnlambda", "a lambda in self, spawn", Program(scale="lambda x: x"), "trained"),
        Scenario(
            "sigint",
            "the training process is killed: no worker stays",
            Program(spawn=False, end="os.kill(os.getpid(), signal.SIGKILL)"),
            "SIGKILL",
        ),
        Scenario("A1", "a lock that a thread holds: free in workers", under_lock, [1] * 6),
        Scenario(
            "A2",
            "TensorFlow in __getitem__",
            lambda: fit(s.UsesTensorFlow(workers=1)).labels,
            [4 * (index + 0.5) for index in six],
        ),
        Scenario("A3", "GPUs hidden from workers", gpus, [1] * 6),
        Scenario("A4", "forks of the training process", forks, 0),
        Scenario("A6", "a slow batch", lambda: waits(lambda sequence: fit(sequence).labels), [*range(10)]),
        Scenario("A7", "on_epoch_end raises", lambda: fit(s.RaisesAtEpochEnd()).labels, ERROR),
        Scenario("A10", "training is stopped and goes on", stopped, [0, 1, 2, *six, *six]),
        Scenario("A11", "training and validation", lambda: validated(s.Batches(), s.Batches(4)), six * 3 + six[:4] * 3),
        Scenario("A12", "unpickling raises, spawn", Program(setstate="raise OSError('no file')"), ERROR),
        Scenario("A13", "no __main__ guard, spawn", Program(guarded=False), "trained"),
        Scenario("A14", "threads of a worker after a product of matrices", lambda: fit(s.Multiplies()).labels, [1] * 6),
        Scenario("A15", "sys.exit() in a callback", Program(spawn=False, end="sys.exit()"), ""),
        Scenario("C3", "two runs with one seed are the same", lambda: seeded() == seeded(), True),
        Scenario("C5", "predict keeps the order", predicted, True),
        Scenario("C7", "on_epoch_end: whole, with steps, validation", hooked, [2, 2, 2]),
        Scenario("C8", "on_epoch_begin is seen", lambda: fit(s.Hooked(), epochs=2).labels, [1] * 6 + [2] * 6),
        Scenario(
            "C9",
            "on_epoch_begin loads what the epoch needs",
            lambda: fit(s.LoadsAtEpochBegin(), epochs=2).labels,
            [100 + index for index in six] + [200 + index for index in six],
        ),
        Scenario("C11", "2 epochs of 10: calls, and those in the training process", built, [20, 0]),
        Scenario(
            "C12",
            "6, 4, 9, 2 batches in four epochs",
            lambda: fit(s.VaryingLength(), epochs=4).labels,
            [*range(6), *range(4), *range(9), *range(2)],
        ),
        Scenario(
            "C13",
            "validation_steps=2",
            lambda: validated(s.Batches(), s.Batches(), validation_steps=2)[18:],
            [0, 1] * 3,
        ),
        Scenario("C14", "2 epochs of 5 steps: calls, as C11", lambda: built(steps_per_epoch=5), [10, 0]),
        Scenario("C16", "num_batches is a method", lambda: fit(s.NumBatchesIsAMethod()).labels, ERROR),
        Scenario("C19", "ImageDataGenerator: images of 24, in each of 2 epochs", images, [24, 24]),
        Scenario("C20", "a callback uses the sequence", peeked, [12, 12]),
        Scenario(
            "D3",
            "a list of two inputs",
            lambda: shapes(made(lambda i: ([s.rows(i)] * 2, s.column(i)), lambda x: x[0]).trained),
            (((8, 4), (8, 4)), (8, 1)),
        ),
        Scenario("D4", "a label without batch dimension", lambda: made(lambda i: (s.rows(i), 1.0)).labels, ERROR),
        Scenario("D5", "RaggedTensor", lambda: made(ragged, lambda x: x.to_tensor(shape=(None, 4))).labels, six),
        Scenario("D5", "SciPy matrix", lambda: made(sparse, densified).labels, six),
        Scenario(
            "D6",
            "other lengths from the first batch on",
            lambda: (
                made(
                    lambda i: (np.zeros((8, 3 + i, 4), np.float32), s.column(i)), lambda x: keras.ops.mean(x, axis=1)
                ).labels
            ),
            six,
        ),
        Scenario("D7", "class_weight and sample_weight", weighted, ERROR),
        Scenario("D8", "no batches", lambda: fit(s.Batches(0)).labels, ERROR),
        Scenario("D9", "tensors of keras.ops", lambda: made(of_ops).labels, six),
        Scenario("D9", "torch tensors with gradient", lambda: made(of_torch).labels, six),
    ]


def compare(console: Console, markdown: Path | None) -> None:
    """Run every scenario on both sides, print the table, and write it."""
    import keras

    table = Table("row", "what", *SIDES.values(), box=box.SIMPLE_HEAD)
    lines = [f"| row | what | {' | '.join(SIDES.values())} |", "|---|---|---|---|"]
    with ThreadPoolExecutor(len(SIDES)) as both:
        for number, scenario in enumerate(track(scenarios("ours"), "stock", console=console)):
            cells = both.map(lambda side, n=number, one=scenario: outcome(n, one, side), SIDES)
            row = [scenario.row, scenario.what, *cells]
            table.add_row(*row)
            lines.append(f"| {' | '.join(cell.replace('|', '/').replace('_', chr(92) + '_') for cell in row)} |")
    console.print(f"Keras {keras.__version__}, Python {sys.version.split()[0]}.", highlight=False)
    console.print(table)
    if markdown:
        markdown.write_text("\n".join([*lines, ""]), encoding="utf-8")


def outcome(number: int, scenario: Scenario, side: str) -> str:
    """Run a scenario in a process of its own and say what came of it."""
    with _running(number, scenario, side) as (process, out, err):
        if not _ended(process.pid, TIMEOUT_S):
            said = _last_line(out).removeprefix('"').removesuffix('"')
            return f"{said}; does not exit" if said else f"hangs ({TIMEOUT_S:g} s)"
        left = _members_left(process.pid)
        rest = f", {left} processes left" if left else ""
        os.killpg(process.pid, signal.SIGKILL)  # Before it is reaped: its number is nobody else's yet.
        status = process.wait()
        if status:
            reason = signal.Signals(-status).name if status < 0 else _shown(_last_line(err))
            return f"{'right' if reason == scenario.right else reason}{rest}"
        answer = _last_line(out)
    return f"{json.loads(answer) if answer else judged('', scenario.right)}{rest}"


def _shown(text: str) -> str:
    """Return the first line, so much of it as fits into a cell."""
    line = text.partition("\n")[0]
    return line if len(line) <= _WIDTH else f"{line[:_WIDTH]} ..."


def judged(value: object, right: object) -> str:
    """Say whether *value* is what is right."""
    return "right" if value == right else _shown(f"wrong: {_TOO_EXACT.sub('', str(value))}")


@contextlib.contextmanager
def _running(number: int, scenario: Scenario, side: str) -> Iterator[tuple[subprocess.Popen[bytes], Any, Any]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.TemporaryFile("w+") as given,
    ):
        command = ["-m", "tests.bench.stock", str(number), side]
        if isinstance(scenario.run, Program):
            script = Path(folder, "script.py")
            script.write_text(scenario.run.text(side, scenario.right), encoding="utf-8")
            command = ["-"] if scenario.run.stdin else [str(script)]
            given.write(scenario.run.text(side, scenario.right) if scenario.run.stdin else "")
            given.seek(0)
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=given,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=os.environ | _QUIET | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        try:
            yield process, out, err
        finally:
            if process.returncode is None:
                # Again and again: a pool whose workers die starts others until it is killed itself.
                os.killpg(process.pid, signal.SIGKILL)
                _members_left(process.pid)
                process.wait()


def main(number: int, side: str) -> None:
    """Run one scenario on one side and print what came of it."""
    from keras.utils import PyDataset

    import keras_mpseq

    if side == "keras":
        # With an epoch, which the scenarios about hooks tell.
        keras_mpseq.SafeSequence = type("PyDataset", (PyDataset,), {"epoch": None})  # type: ignore[assignment, misc]
    scenario = scenarios(side)[number]
    assert not isinstance(scenario.run, Program)
    tell(scenario.run, scenario.right)


def tell(run: Callable[[], object], right: object, module: str = "__main__") -> None:
    """Run it and print what came of it; in a process that imports the user's script an error is to end that."""
    try:
        told = judged(run(), right)
    except Exception as error:
        if module != "__main__":
            raise
        text = _PLACE.sub("", str(error)).strip()
        causes = _CAUSE.findall(text) if text.startswith("Graph execution error") else []
        told = _shown(f"{type(error).__name__}: {causes[-1] if causes else text}")
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
