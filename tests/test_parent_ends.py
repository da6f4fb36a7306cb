"""However the training process ends, nothing of ours outlives it, and nothing but its own error is said.

Each test runs a script in a session of its own and looks at it from outside.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import PATIENCE_S, Script, Scripts

LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])

LIGHT = """
import os, sys, threading
import numpy as np
from keras_mpseq import Loader

class Sequence:
    def __init__(self, size=1000, batches=50):
        self.size, self.batches = size, batches
    def __len__(self):
        return self.batches
    def __getitem__(self, index):
        return np.full(self.size, index)

def say(text):
    os.write(1, f"{text}\\n".encode())

launcher = sys.argv[1] if len(sys.argv) > 1 else None
"""
"""Needs neither TensorFlow nor Keras, which take seconds to import."""
FOREVER = """
import itertools
number = 0
for epoch in itertools.count():
    for batch in batches:
        (batch * 2.0).sum()
        number += 1
        if number == 100:
            say("ready")
"""
STUCK = """
class Stuck(Sequence):
    def __getitem__(self, index):
        if index == 7:
            say("ready")
            sum(range(10**11))  # One call in C, for minutes: no Python code runs, so that no signal handler does.
        return super().__getitem__(index)
"""


def assert_ended(processes: list[psutil.Process]) -> None:
    """Assert that all *processes*, some at least, end within the patience."""
    assert processes
    _, alive = psutil.wait_procs(processes, PATIENCE_S)
    # A zombie has ended; its new parent has not looked yet.
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


# --- killed -----------------------------------------------------------------------------------------

VICTIMS = {
    "idle": "loader = Loader(Sequence(), workers=2, launcher=launcher); list(loader); say('ready')\n"
    "threading.Event().wait()",
    "iterating": "batches = Loader(Sequence(1 << 16), workers=2, launcher=launcher)" + FOREVER,
    "with an open iterator": "it = iter(Loader(Sequence(), workers=2, launcher=launcher)); next(it); say('ready')\n"
    "threading.Event().wait()",
    "stuck in a call": STUCK + "list(Loader(Stuck(), workers=2, launcher=launcher))",
    "stuck in a hook": """
class Slow(Sequence):
    def on_worker_start(self, worker):
        if worker == 1:
            say("ready")
            sum(range(10**11))
list(Loader(Slow(), workers=2, launcher=launcher))
""",
    "started in a thread that has ended": STUCK
    + """
made = []
thread = threading.Thread(target=lambda: made.append(Loader(Stuck(), workers=2, launcher=launcher)))
thread.start(); thread.join()
thread = threading.Thread(target=lambda: made.append(next(iter(made[0]))))
thread.start(); thread.join()
assert len(made) == 2
list(made[0])
""",
    "while a payload loads": """
class Slow(Sequence):
    def __setstate__(self, state):
        say("ready")
        sum(range(10**11))
list(Loader(Slow(), workers=2, launcher=launcher))
""",
    "its worker ignores signals": """
class Deaf(Sequence):
    def __getitem__(self, index):
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        say("ready")
        threading.Event().wait()
list(Loader(Deaf(), workers=1, launcher=launcher))
""",
}


@LAUNCHERS
@pytest.mark.parametrize("state", VICTIMS)
def test_a_killed_parent_leaves_no_process(scripts: Scripts, state: str, launcher: str) -> None:
    script = scripts.start(LIGHT + VICTIMS[state], launcher)
    script.wait_for("ready")
    children = script.descendants()
    script.process.kill()
    assert_ended(children)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, "os._exit"])
def test_other_sudden_ends_leave_no_process(scripts: Scripts, how: Any) -> None:
    on_signal = "import signal; signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))\n"
    script = scripts.start(LIGHT + STUCK + on_signal + "loader = Loader(Stuck(), workers=2); list(loader)")
    script.wait_for("ready")
    children = script.descendants()
    script.process.send_signal(signal.SIGUSR1 if how == "os._exit" else how)
    assert_ended(children)


def test_a_killed_parent_of_a_dataset_leaves_no_process(scripts: Scripts) -> None:
    script = scripts.start(
        LIGHT
        + "from keras_mpseq import to_dataset\n"
        + "batches = to_dataset(Sequence(1 << 16), workers=2).map(lambda x: x).prefetch(2)"
        + FOREVER.replace("batch * 2.0", "batch.numpy()")
    )
    script.wait_for("ready")
    children = script.descendants()
    script.process.kill()
    assert_ended(children)


def test_a_killed_template_takes_its_workers_along(scripts: Scripts) -> None:
    script = scripts.start(LIGHT + VICTIMS["stuck in a call"], "template")
    script.wait_for("ready")
    template, *workers = script.descendants()
    assert template.ppid() == script.process.pid and len(workers) == 2
    template.kill()
    assert_ended(workers)


# --- interrupted ------------------------------------------------------------------------------------

DATASET = """
from keras_mpseq import to_dataset
class Slow(Sequence):
    def __getitem__(self, index):
        threading.Event().wait(0.05)  # So that a thread of TensorFlow waits for it when the interrupt comes.
        return super().__getitem__(index)
batches = to_dataset(Slow(1 << 16), workers=2).map(lambda x: x).prefetch(2)
import itertools
number = 0
for epoch in itertools.count():
    for batch in batches:
        (batch * 2).numpy().sum()
        number += 1
        if number == 20:
            # TensorFlow swallows an interrupt in its Executor.__del__, which runs once a step: not there.
            say("ready")
            threading.Event().wait()
"""
FIT = """
import keras
from keras_mpseq import SafeSequence

class Training(SafeSequence):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        threading.Event().wait(0.05)
        return np.ones((4, 3)), np.ones((4, 1))

def interruptible(batch, logs):
    if batch == 20:
        say("ready")
        threading.Event().wait()

model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
steps = keras.callbacks.LambdaCallback(on_train_batch_end=interruptible)
model.fit(Training(workers=2), epochs=10**6, verbose=0, callbacks=[steps])
"""
INTERRUPTED = {
    "loader": "batches = Loader(Sequence(), workers=2, launcher=launcher)" + FOREVER,
    "loader of large batches": "batches = Loader(Sequence(1 << 18), workers=2, launcher=launcher)" + FOREVER,
    "loader in a with block": "with Loader(Sequence(), workers=2, launcher=launcher) as batches:"
    + FOREVER.replace("\n", "\n    "),
    "in this process": "batches = Loader(Sequence(), workers=0)" + FOREVER,
    "waiting for a batch": """
class Waiting(Sequence):
    def __getitem__(self, index):
        if index == 7:
            say("ready")
            threading.Event().wait(1.0)
        return super().__getitem__(index)
while True:
    list(Loader(Waiting(), workers=2, launcher=launcher))
""",
    "between epochs": "loader = Loader(Sequence(), workers=2, launcher=launcher); list(loader); say('ready')\n"
    "threading.Event().wait()",
}


def interrupted(script: Script) -> None:
    """Press Ctrl-C once the script is ready, and look at its end."""
    script.wait_for("ready")
    children = script.descendants()
    os.killpg(script.process.pid, signal.SIGINT)
    ended_by_ctrl_c(script, children)


def ended_by_ctrl_c(script: Script, children: list[psutil.Process]) -> None:
    """Assert that there is one KeyboardInterrupt, in the training process, and that *children* end."""
    status, _, errors = script.ended()
    assert errors.count("KeyboardInterrupt") == errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert status in (-signal.SIGINT, 128 + signal.SIGINT)
    if children:
        assert_ended(children)


@LAUNCHERS
@pytest.mark.parametrize("state", INTERRUPTED)
def test_ctrl_c(scripts: Scripts, state: str, launcher: str) -> None:
    interrupted(scripts.start(LIGHT + INTERRUPTED[state], launcher))


@pytest.mark.parametrize("body", [DATASET, FIT], ids=["to_dataset", "fit"])
def test_ctrl_c_under_tensorflow(scripts: Scripts, body: str) -> None:
    interrupted(scripts.start(LIGHT + body))


@LAUNCHERS
def test_ctrl_c_while_a_child_starts(scripts: Scripts, tmp_path: Path, launcher: str) -> None:
    # The child must be deaf from its first instruction on: its own KeyboardInterrupt would be a second one. This
    # module is imported by every interpreter, before anything of ours; in a child it waits there for a reader.
    os.mkfifo(tmp_path / "go on")
    (tmp_path / "sitecustomize.py").write_text(
        """
import os, sys
if any("keras_mpseq.process" in argument for argument in sys.orig_argv):
    os.write(1, b"starting\\n")
    open("go on").read()
"""
    )
    script = scripts.start(
        LIGHT + "list(Loader(Sequence(), workers=1, launcher=launcher))", launcher, path=str(tmp_path)
    )
    script.wait_for("starting")
    children = script.descendants()
    os.killpg(script.process.pid, signal.SIGINT)
    (tmp_path / "go on").write_text("")
    ended_by_ctrl_c(script, children)


def test_a_caught_ctrl_c_leaves_a_pool_that_works_or_says_that_it_is_closed(scripts: Scripts) -> None:
    script = scripts.start(
        LIGHT
        + """
from keras_mpseq import PoolClosedError
loader = Loader(Sequence(), workers=2)
for round in range(20):
    try:
        say("ready")
        while True:
            for batch in loader:
                pass
    except KeyboardInterrupt:
        pass
    except PoolClosedError:
        loader = Loader(Sequence(), workers=2)
        continue
    try:
        assert [int(batch[0]) for batch in loader] == list(range(50))
    except PoolClosedError:
        loader = Loader(Sequence(), workers=2)
say("done")
"""
    )
    for _ in range(20):
        script.wait_for("ready")
        os.killpg(script.process.pid, signal.SIGINT)
    status, out, errors = script.ended()
    assert (status, out, errors) == (0, "done\n", "")


# --- the interpreter exits --------------------------------------------------------------------------

EXITS = {
    "open iterator": "it = iter(Loader(Sequence(), workers=2, launcher=launcher)); next(it)",
    "batches in hand": "kept = list(Loader(Sequence(1 << 16), workers=2, launcher=launcher))",
    "in this process": "it = iter(Loader(Sequence(), workers=0)); next(it)",
    "unused": "loader = Loader(Sequence(), workers=2, launcher=launcher)",
    "in a ring": "ring = [Loader(Sequence(), workers=2, launcher=launcher)]; ring.append(ring); next(iter(ring[0]))",
    "in a module's global that outlives others": "import builtins\n"
    "builtins.it = iter(Loader(Sequence(1 << 16), workers=2, launcher=launcher)); builtins.b = next(builtins.it)",
    "two pools": "a = Loader(Sequence(), workers=1); b = Loader(Sequence(), workers=2, launcher=launcher)\n"
    "pairs = zip(a, b); next(pairs)",
    "in a thread": "def use():\n    global it\n"
    "    it = iter(Loader(Sequence(), workers=2, launcher=launcher)); next(it)\n"
    "thread = threading.Thread(target=use); thread.start(); thread.join()",
}


@LAUNCHERS
@pytest.mark.parametrize("state", EXITS)
def test_exit_is_clean(scripts: Scripts, state: str, launcher: str) -> None:
    assert scripts.run(LIGHT + EXITS[state] + "\nsay('done')", launcher) == "done\n"


def test_exit_with_an_open_dataset_is_clean(scripts: Scripts) -> None:
    body = """
from keras_mpseq import to_dataset
dataset = to_dataset(Sequence(1 << 16), workers=2)
iterator = iter(dataset)
held = [next(iterator) for _ in range(5)]
small = iter(to_dataset(Sequence(10), workers=2).prefetch(2))
next(small)
say("done")
"""
    assert scripts.run(LIGHT + body) == "done\n"


@pytest.mark.parametrize(("ending", "status"), [("sys.exit(3)", 3), ("raise RuntimeError('of the user')", 1)])
def test_exit_status_and_error_are_the_scripts_own(scripts: Scripts, ending: str, status: int) -> None:
    script = scripts.start(LIGHT + f"for batch in Loader(Sequence(), workers=2):\n    {ending}")
    got, _, errors = script.ended()
    assert got == status
    assert errors.count("Traceback") == (1 if status == 1 else 0)
    assert errors == "" or errors.endswith("RuntimeError: of the user\n")


# --- the user forks ---------------------------------------------------------------------------------

FORKS: dict[str, str] = {
    "ends at once": "os._exit(0)",
    "exits as Python does": "sys.exit(0)",
    "collects garbage": "del loader, it; import gc; gc.collect(); os._exit(0)",
    "closes": "loader.close(); os._exit(0)",
}


@LAUNCHERS
@pytest.mark.parametrize("child", FORKS)
def test_a_process_that_the_user_forks_changes_nothing(scripts: Scripts, child: str, launcher: str) -> None:
    body = f"""
loader = Loader(Sequence(1 << 14), workers=2, launcher=launcher)
it = iter(loader)
got = [int(next(it)[0]) for _ in range(10)]
pid = os.fork()
if pid == 0:
    {FORKS[child]}
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
got += [int(batch[0]) for batch in it]
assert got == list(range(50))
assert [int(batch[0]) for batch in loader] == list(range(50))
assert loader.stats().restarts == 0
loader.close()
say("done")
"""
    assert scripts.run(LIGHT + body, launcher) == "done\n"


@LAUNCHERS
def test_a_forked_process_that_lives_on_keeps_no_worker(scripts: Scripts, launcher: str) -> None:
    body = """
import psutil, time
loader = Loader(Sequence(), workers=2, launcher=launcher)
list(loader)
workers = psutil.Process().children(recursive=True)
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(write)
    os.read(read, 1)  # Until the parent is gone.
    os._exit(0)
os.close(read)
began = time.monotonic()
loader.close()
assert not [process for process in workers if process.is_running()]
say("closed" if time.monotonic() - began < 4 else "closed when patience ended")
"""
    assert scripts.run(LIGHT + body, launcher) == "closed\n"


def test_a_killed_parent_with_a_forked_process_that_lives_on(scripts: Scripts) -> None:
    body = """
loader = Loader(Sequence(), workers=2, launcher=launcher)
list(loader)
workers = __import__("psutil").Process().children(recursive=True)
if os.fork() == 0:
    say(" ".join(str(process.pid) for process in workers))
    threading.Event().wait()
threading.Event().wait()
"""
    script = scripts.start(LIGHT + body, "template")
    workers = [psutil.Process(int(pid)) for pid in script.line().split()]
    others = [process for process in script.descendants() if process not in workers]
    script.process.kill()
    try:
        assert_ended(workers)
    finally:
        for process in others:
            process.kill()
        psutil.wait_procs(others, PATIENCE_S)


def test_a_forked_process_that_iterates_is_told_so(scripts: Scripts) -> None:
    body = """
from keras_mpseq import PoolClosedError
loader = Loader(Sequence(), workers=2)
it = iter(loader)
next(it)
pid = os.fork()
if pid == 0:
    told = 0
    for use in (lambda: next(it), lambda: iter(loader)):
        try:
            use()
        except PoolClosedError as error:
            told += 1
            assert "process" in str(error) and "Loader" in str(error)
    os._exit(0 if told == 2 else 9)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert len(list(it)) == 49
loader.close()
say("done")
"""
    assert scripts.run(LIGHT + body) == "done\n"


def test_forked_pools_of_multiprocessing_live_beside_ours(scripts: Scripts) -> None:
    body = """
import multiprocessing
with Loader(Sequence(), workers=2) as loader:
    it = iter(loader)
    next(it)
    with multiprocessing.get_context("fork").Pool(2) as others:
        assert others.map(abs, [-1, -2]) == [1, 2]
        assert len(list(it)) == 49
        assert others.map(abs, [-3]) == [3]
    assert len(list(loader)) == 50
say("done")
"""
    assert scripts.run(LIGHT + body) == "done\n"
