"""How long one batch takes, in the steady state: seconds per batch from a participant, or from the bare machine."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

import numpy as np

from tests.bench.running import NAMESPACED
from tests.bench.workloads import WORKERS, Batches, images, loop, make

UNTIMED = 16
"""Batches taken before the clock starts: more than any participant keeps ahead, so that neither start-up nor what
was built meanwhile is in the figure. At the first of them what the imports left is collected: going over the 430,000
objects of TensorFlow and Keras takes 0.25 s, once, and would fall on whoever happens to allocate the last one."""
CPU_BATCH_S = 0.010
_COPIES = 50


def seconds_per_batch(participant: str, workload: str, count: int, loops: int) -> float:
    """Iterate *count* timed batches of *workload* eagerly, through tf.data."""
    if participant.startswith("fit-"):
        from tests.bench.training import seconds_per_step

        return seconds_per_step(participant, make(workload, count + UNTIMED, loops))
    if participant in ("batched", "torch-samples"):
        from tests.bench.decoding import DECODING, Encoded

        return _seconds(DECODING[participant](Encoded(workload, count + UNTIMED)), count, participant)
    if workload == "streams":
        from tests.bench.streams import STREAMS

        return _seconds(STREAMS[participant](count + UNTIMED, loops), count, participant)
    if participant in NAMESPACED:
        from tests.bench.on_ray import ON_RAY

        return _seconds(ON_RAY[participant](make(workload, count + UNTIMED, loops)), count, participant)
    from tests.bench.participants import PARTICIPANTS

    sequence: Batches
    if participant == "ours-in-place":
        from tests.bench.in_place import IN_PLACE

        sequence = IN_PLACE[workload](count + UNTIMED)
    else:
        sequence = make(workload, count + UNTIMED, loops)
    return _seconds(PARTICIPANTS[participant](sequence), count, participant)


def _seconds(made: AbstractContextManager[Iterable[object]], count: int, participant: str) -> float:
    """Iterate over what *made* gives, and return the seconds for each of *count* timed batches."""
    began = taken = 0.0
    with made as dataset:
        for number, _ in enumerate(dataset, 1):
            taken = time.perf_counter()
            if number == 1:
                gc.collect()
            elif number == UNTIMED:
                began = taken
    assert number == count + UNTIMED, f"{participant} gave {number} batches of {count + UNTIMED}"
    return (taken - began) / count


def seconds_per_copy() -> float:
    """np.copyto of one 19 MB batch into memory that is mapped already."""
    source = images(1)[0]
    target = np.ones_like(source)
    spent = []
    for _ in range(_COPIES):
        began = time.perf_counter()
        np.copyto(target, source)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def bare_seconds_per_batch(count: int, loops: int) -> float:
    """Bare processes do the work of *count* batches together, from one barrier on, and send nothing."""
    command = [sys.executable, "-m", "tests.bench.bare", str(count // WORKERS), str(loops)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()  # Ready.
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    each = [float(child.communicate()[0]) for child in children]
    # The sum of their rates, and not the time of the slower one: the process that ends first has no share in the rest.
    return 1 / sum(1 / seconds for seconds in each)


def loops_of_a_batch() -> float:
    """Return how many loops of pure Python take 10 ms on an idle core."""
    trial = 100_000
    spent = []
    for _ in range(30):
        began = time.perf_counter()
        loop(trial)
        spent.append(time.perf_counter() - began)
    return CPU_BATCH_S / min(spent) * trial  # The least: whatever else the machine does only adds to it.
