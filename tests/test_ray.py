"""`backend="ray"`: the contract tests of other files, and what is particular to it, where there is no network.

Ray listens on all interfaces, so each run is a process of its own in a network namespace that has only the loopback.
"""

from __future__ import annotations

import faulthandler
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, alarm
from tests.namespaces import NAMESPACE, why_no_namespace

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_no_namespace()), reason=why_no_namespace())]
RUN_S = 800.0
"""For all tests of a run; reached only by a hang: each has an alarm of its own."""
CONTRACT = {
    "tests/test_identical.py": [
        "test_workers_partition_launcher[1-dynamic-template]",
        "test_workers_partition_launcher[2-block-template]",
        "test_workers_partition_launcher[5-stride-template]",
        "test_large_batches_and_batches_built_in_place[dynamic-2]",
        "test_unordered_epochs_hold_the_same_batches[True-stride]",
        "test_options_that_change_no_data[{'max_bytes': 16384}]",
        "test_options_that_change_no_data[{'strict': True}]",
        "test_a_worker_killed_in_the_middle[True-dynamic-template]",
        "test_a_worker_killed_in_the_middle[False-stride-template]",
        "test_a_death_in_the_middle_of_small_batches_that_travel_together[self]",
        "test_to_dataset[small-{'workers': 2}]",
        "test_to_dataset[large-{'workers': 2}]",
    ],
    "tests/test_errors.py": [
        "test_any_exception_of_getitem[KeyError-2]",
        "test_any_exception_of_getitem[StopIteration-2]",
        "test_any_exception_of_getitem[SystemExit-2]",
        "test_any_exception_of_getitem[two arguments-2]",
        "test_any_exception_of_getitem[no __reduce__-2]",
        "test_any_exception_of_getitem[no __str__-2]",
        "test_hooks_that_raise[on_worker_start-2]",
        "test_what_fails_at_the_end_is_logged[on_worker_stop-on_worker_stop-2]",
        "test_other_batches_are_not_blamed_for_a_death",
        "test_a_batch_that_takes_too_long_shows_where_it_stands[template]",
        "test_none_in_the_place_of_a_batch[2]",
        "test_skipped_batches_are_counted_and_named[2]",
    ],
    "tests/test_stateful.py": [
        "test_strict_raises_and_names_it",
        "test_writing_to_an_array_that_workers_share[operator]",
    ],
    "tests/test_hooks.py": [
        "test_once_for_each_full_epoch_of_a_loader[2]",
        "test_changes_between_epochs_arrive[template-2]",
        "test_worker_hooks_run_once_in_each_worker[template]",
        "test_attributes_set_in_a_worker_survive_changes_of_the_state[2]",
        "test_resources_are_built_once_in_each_worker_and_closed_last_built_first[template]",
    ],
    "tests/test_process_map.py": [
        "test_elements_come_in_order_in_every_pass[template-2]",
        "test_ragged_and_sparse_elements[2]",
        "test_an_exception_names_function_element_and_worker[2]",
        "test_a_lost_worker_is_replaced_and_its_element_mapped_again",
    ],
    "tests/test_generator_dataset.py": [
        "test_partitions_take_turns_whatever_the_workers[3-template-4]",
        "test_generators_are_closed_when_an_iterator_is_given_up[2]",
        "test_a_lost_worker_is_replaced_and_its_partitions_go_on[12]",
    ],
}
"""Tests of other files that run on Ray as well, a few of each kind; `python -m pytest -p tests.on_ray` runs any."""


def run(arguments: Sequence[object], folder: Path) -> str:
    """Run Python with *arguments* in a namespace, to its good end; return its output."""
    # The watchdog is for single tests: theirs watches over them, and the alarm over all.
    faulthandler.cancel_dump_traceback_later()
    environment = {
        **os.environ,
        "KERAS_MPSEQ_ON_RAY": "1",
        "RAY_TMPDIR": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    command = [*NAMESPACE, sys.executable, *map(str, arguments)]
    with (
        subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        alarm(f"The run on Ray took more than {RUN_S:g} s.", RUN_S),
    ):
        try:
            output, _ = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 0, output
    return output


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For Ray's files: the names of sockets must not be long."""
    return tmp_path_factory.mktemp("r")


def test_the_contract(folder: Path) -> None:
    nodes = [f"{file}::{name}" for file, names in CONTRACT.items() for name in names]
    run(["-m", "pytest", "-q", "-p", "tests.on_ray", *nodes], folder)


def test_what_is_particular(folder: Path) -> None:
    settings = REPOSITORY / "pyproject.toml"
    run(["-m", "pytest", "-q", "-c", settings, REPOSITORY / "tests" / "on_cluster.py"], folder)


_STARTED = """
import logging, sys
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(name)s: %(message)s")
from keras_mpseq import Loader, MpseqError, RayOptions
from tests.sequences import Counting

try:
    Loader(Counting(), workers=2, backend="ray", ray=RayOptions(address="127.0.0.1:1"))
except MpseqError as error:
    print(error)
with Loader(Counting(), workers=2, backend="ray") as loader:
    print([int(batch[0, 0]) for batch in loader])
"""


def test_ray_is_started_where_no_cluster_is_given_and_none_is_found_where_one_is(folder: Path) -> None:
    script = folder / "started.py"
    script.write_text(_STARTED)
    output = run([script], folder)
    assert "No Ray cluster answers at 127.0.0.1:1: [Errno 111] Connection refused. Look for its head node" in output
    assert "keras_mpseq: Ray was started on this machine (127.0.0.1:" in output
    assert "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" in output


_LOST = """
import contextlib, os
import psutil
from keras_mpseq import Loader, MpseqError
from tests import ray_faults
from tests.sequences import LargeDraws

with ray_faults.cluster_of(2, 1) as cluster:
    nodes = psutil.Process().children(recursive=True)
    loader = Loader(LargeDraws(100_000), workers=2, backend="ray")
    for number, _ in enumerate(iterator := iter(loader)):
        if number == 5:
            cluster.head_node.kill_gcs_server()
            break
    try:
        for _ in iterator:
            pass
    except MpseqError as error:
        print(error, flush=True)
    # Ray would wait for the head, and then end this process its own way; what runs beside its nodes outlives them.
    for process in {*nodes, *psutil.Process().children(recursive=True)}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(0)
"""


def test_a_cluster_that_is_lost_in_the_middle_is_told(folder: Path) -> None:
    script = folder / "lost.py"
    script.write_text(_LOST)
    told = r"The Ray cluster at 127\.0\.0\.1:\d+ is gone \(worker \d\)\. Make a new Loader or dataset when there is a "
    assert re.search(told, run([script], folder))
